"""The example's one claim."""

import pandas as pd
from lib.studies.example.plan import Parameters

from lib.claims.claim import Claim, Rule
from lib.claims.court import Court
from lib.claims.cubes import Cubes


def judge(table: pd.DataFrame, p: Parameters, *, test: bool = True) -> list[Claim]:
    """Every claim, for every network."""
    cubes = Cubes.of(table)
    court = Court("08", p, cubes, test, seeds=lambda arm: p.seeds)
    for arch in p.architectures:
        court.add(
            f"seeds-agree/{arch}",
            "claim",
            f"Grad-CAM of two seeds of {arch} agrees",
            cubes.mean(arch, "agreement"),
            Rule("above", 0.5),
            statistic="Spearman correlation of the maps of two seeds",
            source="an example",
            over="agreement",
            arms=(arch,),
        )
    return court.rows
