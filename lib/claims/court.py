"""The court: a run's claims, each judged as it is added."""

from dataclasses import dataclass, field

from lib.claims.claim import Claim, Kind, Rule
from lib.claims.intervals import Statistic, interval


def noted(*parts: str) -> str:
    """Notes that say something, joined."""
    return "; ".join(p for p in parts if p)


@dataclass
class Book:
    """The claims of one run, each judged as it is added.

    `images` and `seeds` are how many of each the statistics may resample; `variant` tells a second run of a study from the
    first in the claims' ids; with `test=False` (smoke runs) nothing is judged. `draws` are those of the bootstrap.
    """

    study: str
    images: int
    seeds: int
    variant: str = ""
    test: bool = True
    rows: list[Claim] = field(default_factory=list)
    draws: int = 500

    def add(
        self,
        id: str,
        kind: Kind,
        statement: str,
        compute: Statistic,
        rule: Rule,
        *,
        statistic: str,
        source: str,
        note: str = "",
        unknown: str = "",
    ) -> None:
        """State a claim: `compute` is its statistic, `statistic` says in words what it is; `unknown` joins the note where
        there is no interval, and says why that can be."""
        found = interval(compute, images=self.images, seeds=self.seeds, draws=self.draws)
        verdict = rule.judge(found) if self.test else "not tested"
        if self.test and verdict == "not tested" and unknown:
            note = f"{note} {unknown}".strip()
        name = f"{id}@{self.variant}" if self.variant else id
        self.rows.append(
            Claim(
                study=self.study,
                id=name,
                kind=kind,
                statement=statement,
                source=source,
                statistic=statistic,
                value=found.value,
                ci_low=found.low,
                ci_high=found.high,
                n=found.n,
                rule=str(rule),
                verdict=verdict,
                note=note,
            )
        )
