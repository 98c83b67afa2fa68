"""Study 3's claims about the authors' own networks: their tables, what random starts leave of it, the paper's claims on them.

What is said of these networks is said of them alone, not of a way of training: no training is repeated. The paper's claims
have the ids of `claims.primaries` after `published/`.
"""

import functools

import numpy as np

from lib.claims.claim import Rule
from lib.claims.court import OURS, Court
from lib.claims.intervals import minus, over
from lib.studies.interpretability_aware_training import statistics, terms
from lib.studies.interpretability_aware_training.objective import ARMS

EPS, BEYOND, LARGEST = 0.3, 0.35, 0.4  # the radius that they were trained at, and table 1's further ones
STARTS = "starts-3"  # the strongest attack that was tried on them


def judge(court: Court) -> None:
    """All claims about them; the court has their measurements, by arm alone."""
    arms = list(dict.fromkeys(a for a, _, _ in court.cubes.values))
    for arm in arms:
        _checks(court, arm)
        if arm != "normal":
            _stronger(court, arm)
    _primaries(court, arms)


def _checks(court: Court, arm: str) -> None:
    """What was looked at in full: nothing is estimated."""
    cubes, table, radii = court.cubes, statistics.published(1, "mnist"), court.cubes.levels("paper")
    name = f"the authors' network {ARMS[arm].name}"
    differ = sum(abs(cubes.values[arm, "paper", e].mean() - table.at[arm, f"{e:g}"]) > 0.0025 for e in radii)
    court.add(
        f"published/table-1/{arm}",
        "check",
        f"The row of table 1 comes out to the digit on {name}",
        statistics.constant(differ),
        terms.NONE,
        statistic=f"number of its {len(radii)} cells that differ",
        source=terms.TABLE_1,
        note="in print the clean cells of Int and Int-Adv are swapped" if arm in ("int", "int-adv") else "",
    )
    applies, fails = statistics.violations(cubes, arm)
    court.add(
        f"published/proposition/{arm}",
        "check",
        f"The discrepancy D2 of CAM is at least half the margin wherever PGD fools {name}",
        statistics.constant(fails.sum()),
        terms.NONE,
        statistic=f"number of {int(applies.sum())} successful attacks that violate it",
        source=terms.PROPOSITION,
    )


def _stronger(court: Court, arm: str) -> None:
    """What random starts leave of the published robustness beyond the radius of training."""
    cubes, name = court.cubes, ARMS[arm].name
    add = functools.partial(court.add, kind="control", source=OURS, measure="accuracy", trained=False)
    add(
        f"published/overstated/{arm}",
        statement=f"The published accuracy of {name} beyond training rests on an attack without a random start (eps {BEYOND})",
        compute=minus(cubes.mean(arm, "paper", BEYOND), cubes.mean(arm, STARTS, BEYOND)),
        rule=terms.OVERSTATED,
        difference=False,  # a share of the images: starts are tried where the published attack fails
        gates=(terms.left(court, "paper", BEYOND, arm),),
        statistic=f"accuracy at eps {BEYOND}, as published - after three random starts",
        note="the margin of .02 is ours",
    )
    add(
        f"published/nothing-left/{arm}",
        statement=f"Three random starts leave less than a twentieth to the authors' network {name} (eps {LARGEST})",
        compute=cubes.mean(arm, STARTS, LARGEST),
        rule=Rule("below", 0.05),
        difference=False,
        statistic=f"accuracy at eps {LARGEST} after three random starts",
        note="nothing would be 0; the margin of .05 is ours",
    )


def _primaries(court: Court, arms: list[str]) -> None:
    """The paper's claims, on these networks."""
    told = f"accuracy at eps {EPS} under the strongest of plain PGD and three random starts with two losses"
    better = functools.partial(terms.better, court, kind="claim", trained=False)
    at = functools.partial(better, how=STARTS, eps=EPS, told=told, where=f"the authors' networks, eps {EPS}")
    if {"int", "normal"} <= {*arms}:
        note = "the margin of .1 is ours"
        at("published/robust/int", statement=terms.FAR_BETTER, arms=("int", "normal"), rule=terms.FAR, note=note)
    if {"int", "adv"} <= {*arms}:
        better(
            "published/beyond/int/over-adv",
            statement=terms.BEYOND,
            arms=("int", "adv"),
            how="paper",
            eps=BEYOND,
            told=f"accuracy at eps {BEYOND} under the paper's PGD",
            where=f"the authors' networks, eps {BEYOND}",
            gates=(terms.left(court, "paper", BEYOND, "int", "adv"),),
            note="what is published here rests on one attack without a random start; see `published/overstated`",
        )
    if {"int", "int-one-class"} <= {*arms}:
        at("published/two-class/int", statement=terms.TWO_CLASS["int"], arms=("int", "int-one-class"))
    if {"int2", "int"} <= {*arms}:
        at("published/int2-over-int", statement=terms.INT2, arms=("int2", "int"))
    if {"int2", "adv"} <= {*arms}:
        _keeps(court, ("int2", "adv"))


def _keeps(court: Court, arms: tuple[str, str]) -> None:
    cubes, names = court.cubes, [ARMS[a].name for a in arms]
    kept = {arm: np.where(cubes.values[arm, "kept", EPS] > 0, cubes.values[arm, "tau", EPS], np.nan) for arm in arms}
    counts = {arm: int(np.isfinite(values).sum()) for arm, values in kept.items()}
    for arm, name in zip(arms, names, strict=True):
        says = f"at least 30 images of the authors' network {name} keep their prediction under the attack on explanations"
        court.gate(f"published-surviving-{arm}", says, counts[arm], terms.SURVIVING)
    court.add(
        f"published/tau-released/{arms[0]}/over-{arms[1]}",
        "claim",
        terms.said(terms.KEEPS, arms, f"the authors' networks, Kendall's tau, eps {EPS}"),
        minus(*(over(kept[arm]) for arm in arms)),
        terms.UP,
        statistic=f"Kendall's tau at eps {EPS} over the images whose prediction stays, {' - '.join(names)}",
        source=terms.TABLE_3,
        measure="correlation",
        trained=False,
        gates=tuple(f"published-surviving-{arm}" for arm in arms),
        note=f"images that survive: {', '.join(f'{n} {counts[a]}' for a, n in zip(arms, names, strict=True))}",
    )


def as_printed(court: Court) -> None:
    """Whether a table of the paper comes out on the networks that it is of, on other images."""
    for number, source in ((1, terms.TABLE_1), (2, terms.TABLE_2)):
        if cells := statistics.beside_printed(court.cubes, court.p, number):
            court.add(
                f"table-{number}",
                "control",
                f"The paper's table {number} comes out within the sampling error of its 200 images and ours",
                statistics.constant(sum(cell.off for cell in cells)),
                terms.NONE,
                difference=False,
                over="clean",
                statistic=f"number of {len(cells)} cells that differ by more than chance, 5 % over all cells (Bonferroni)",
                source=source,
                note="the paper's images are others of the same test set: the order of this copy is not known",
            )
