"""What study 5's claims have in common: their sources, notes and gates, and how one arm is compared with another."""

import numpy as np

from lib.claims.claim import Kind, Rule
from lib.claims.court import Court, noted
from lib.claims.intervals import Statistic, minus
from lib.studies.saliency_adversarial_training import statistics
from lib.studies.saliency_adversarial_training.plan import Parameters, label, parsed, seeds_of, source_label

SOURCE = "Mangla et al. 2020"
ABLATION = f"{SOURCE}, ablations in the history of their code"
UP = Rule("above", 0.0)
OVERSTATED = Rule("above", 0.02)
TABLES = f"{SOURCE}, its tables"
SMALL = (
    "Flower-17's published test set seems to have 136 images, where one is .007: every such gap is within 1.5 standard errors"
)
MISPRINT = "without the published 5.43 % at 2/255: below the 7.28 % at 3/255 it must be a misprint"
ONE_BOX = "boxes here are the middle two thirds of every image, one and the same for all"

COUNTED = "{:.4g} / {:.4g}, counted exactly: the interval has no width"
FAIR = "where a coin chooses between mix and attack, of as many heads as tails"


def kind_of(found: dict[str, float]) -> Kind:
    """A claim where every published table says so; else the question is open."""
    return "claim" if found and min(found.values()) > 0 else "open question"


def sat(p: Parameters) -> list[str]:
    """Arms of maps alone, without switches."""
    return [a for a in p.arms if parsed(a).base == "plain" and parsed(a).mix == "sat" and "@" not in a]


def remarks(court: Court, arms: tuple[str, ...], note: str) -> str:
    """What is to be said of the maps of these arms beside a claim's own note."""
    p, named = court.p, [parsed(arm, court.p.mix_maps).source for arm in arms]
    one_box = "boxes" in named and any(statistics.same(court.cubes, a) for a in p.arms if parsed(a).source == "boxes")
    return noted(
        f"with maps: {source_label(p.mix_maps)}" if any("+sat" in arm for arm in arms) else "",
        ONE_BOX if one_box else "",
        MISPRINT if "sat-std-ig" in arms and "published" in note else "",
    )


def add(
    court: Court,
    id: str,
    kind: Kind,
    statement: str,
    compute: Statistic,
    rule: Rule,
    *,
    arms: tuple[str, ...],
    statistic: str,
    source: str,
    note: str = "",
    over: str = "pgd",
    measure: str = "accuracy",
    pool: str = "",
    difference: bool = True,
) -> None:
    """A claim about a difference of `arms`, with the remarks on their maps, behind the gates of what it compares."""
    note = noted(note, remarks(court, arms, note))
    more = {"measure": measure, "gates": gates_of(arms), "pool": pool, "difference": difference}
    court.add(id, kind, statement, compute, rule, statistic=statistic, source=source, over=over, arms=arms, note=note, **more)


def gates_of(arms: tuple[str, ...]) -> tuple[str, ...]:
    """The clean gate for all; those of PGD for what is compared with it, or stands on it."""
    beside = any(parsed(a).base == "pgd" or parsed(a).teacher == "adv" for a in arms)
    return ("clean", "pgd", "pgd-clear") if beside else ("clean",)


def better(
    court: Court, id: str, kind: Kind, a: str, b: str, *, source: str, statement: str = "", note: str = "", rule: Rule = UP
) -> None:
    """`a` is more robust than `b`, where the study has both."""
    if {a, b} <= set(court.p.every):
        compute = minus(*(statistics.robust(court.cubes, arm, court.p) for arm in (a, b)))
        statement = statement or f"Trained as {label(a)}, a network withstands PGD better than trained as {label(b)}"
        statistic = f"{statistics.robust_in_words(court.p)}, {label(a)} - {label(b)}"
        note = noted(note, _compared_runs(court, a, b))
        more = {"statistic": statistic, "pool": "robust accuracy"}  # one statistic, whatever the two arms
        add(court, id, kind, statement, compute, rule, arms=(a, b), source=source, note=note, **more)


def _compared_runs(court: Court, a: str, b: str) -> str:
    """How lucky the runs are that two arms have in common, where one of them has more."""
    p, few = court.p, min(seeds_of(court.p, arm) for arm in (a, b))
    told = []
    for arm in (one for one in (a, b) if seeds_of(p, one) > few):
        robust, every = statistics.robust(court.cubes, arm, p), np.arange(court.cubes.images("pgd"))
        here, whole = (robust(every, np.arange(n)) for n in (few, seeds_of(p, arm)))
        runs = "the run" if few == 1 else f"the {few} runs"
        told.append(f"{label(arm)} has {here:.3f} in {runs} compared, {whole:.3f} over all its {seeds_of(p, arm)}")
    return "; ".join(told)
