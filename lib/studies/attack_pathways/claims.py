"""Study 6: the claims of pathways under attack, judged from `statistics`.

Top neurons are the K of a layer whose medians over a class's images are highest: O those of the original (source) class, T
those of the target class. Gates, chosen before any number was seen: the network of every seed tells clean images of the two
classes apart by more than half of what could be (0: by chance, 1: always), or O and T are not those of two classes; and what is
said of the attack's effect asks that it reaches its aim on more than half of the images.
"""

from typing import Any

import numpy as np
import pandas as pd

from lib.claims.claim import Claim, Kind, Rule
from lib.claims.court import OURS_ALONE, Court, noted
from lib.claims.intervals import Statistic, minus
from lib.studies.attack_pathways import statistics
from lib.studies.attack_pathways.plan import CLAMPED, Parameters
from lib.studies.attack_pathways.statistics import DRAWS, FEW, LAST, Pathways, mean, thirds

SPEC = "expected at this scale; not in the paper"
EMPTY = "Without interval: for a seed or a draw of images the group of neurons is empty."
NEVER = "Without interval: for a seed or a draw of images the attack succeeds on none."
UP, DOWN = Rule("above", 0.0), Rule("below", 0.0)
REACH = "share of the images that are not taken for the target class as they are, which reach it"
LITTLE = 0.02  # of successes that fail: two of a hundred
SUCCEEDS = 0.5  # of images at the strongest attack, or else its pathways are those of failures
AIMED = Rule("above", SUCCEEDS)
APART = Rule("above", 0.5)
FEWEST = 5  # top neurons of a layer, below which one more or less moves a share by more than a fifth; the original shows ten
APARTLY = "share of clean images of the target class that are taken for it, less that of the original class, worst seed"
ALONE = "top neurons of the {} class that are none of the {} class's"
TARGETS, SOURCES = ALONE.format("target", "original"), ALONE.format("original", "target")
# by group: whose class, its neurons in words, what they do as the attack grows, what the attack makes them, and the rule
GROUPS = {"target": ("target", TARGETS, "join", "excited", UP), "original": ("source", SOURCES, "leave", "inhibited", DOWN)}
# id, kind, statement, its statistic, rule, statistic in words, source, measure
Row = tuple[str, Kind, str, Statistic, Rule, str, str, str]


def primaries(p: Parameters) -> tuple[str, ...]:
    """The ids of what Bluff's authors see in their graphs, for the first network and pair of classes."""
    told = ("shared-falls", "early-change-less", "target-excited", "original-leave")
    return tuple(f"{id}/{p.architectures[0]}/{p.pairs[0]}" for id in told)


def judge(table: pd.DataFrame, p: Parameters, *, test: bool = True) -> list[Claim]:
    """Every claim, for every network and pair."""
    pathways = statistics.measured(table, p)
    court = Court("06", p, test=test, seeds=p.seeds, draws=DRAWS, unknown=EMPTY, primaries=primaries(p))
    for (arch, pair), path in pathways.items():
        about = f" ({arch}, {pair.replace('>', ' → ')})."
        court.gate(f"apart {arch} {pair}", APARTLY, path.apart(), APART)
        clean = (f"apart {arch} {pair}",)
        own = court.within(f"{arch}/{pair}", about, over=path.images, gates=clean, networks=arch)
        reached = path.success("pgd", -1)(np.arange(path.images), np.arange(p.seeds))
        own.gate(f"reaches {arch} {pair}", "the strongest attack reaches its aim, share of images", reached, AIMED)
        first, last = thirds(path.layers)
        aimed = (f"reaches {arch} {pair}",)
        for gates, note, rows in (
            ((), "", _reached(path)),
            ((), narrow(path, [*first, *last]), _shared(path)),
            (aimed, "", _depth(path)),
            (aimed, narrow(path, path.layers[-LAST:]), _moved(path)),
            (aimed, narrow(path, path.layers), _edges(path)),
            (aimed, floored(path), _clamped(path)),
        ):
            for id, kind, statement, compute, rule, statistic, source, measure in rows:
                own.add(
                    id,
                    kind,
                    statement,
                    compute,
                    rule,
                    statistic=statistic,
                    source=source,
                    measure=measure,
                    gates=gates,
                    note=note,
                    **alone(p, path.images),
                )
        _selection(own, path)
    for arch in p.architectures:
        alike, other = ([pathways[arch, pair] for pair in pairs] for pairs in (p.similar, p.dissimilar))
        fewest = min(path.images for path in (*alike, *other))
        known = tuple(f"apart {arch} {path.pair}" for path in (*alike, *other))
        court.within(arch, f" ({arch}).", gates=known, networks=arch).add(
            "similar-share-more",
            "claim",
            f"{told(p.similar)} share more top neurons than {told(p.dissimilar)}",
            minus(shared(alike), shared(other)),
            UP,
            statistic="share of the top neurons that are top neurons of both classes, mean of the layers: pairs that look "
            "alike minus pairs that do not",
            source=SPEC,
            measure="share",
            over=fewest,
            note=noted("The interval is over images and seeds, not over pairs of classes", narrow(alike[0], alike[0].layers)),
            **alone(p, fewest),
        )
    return court.rows


def alone(p: Parameters, images: int) -> dict[str, Any]:
    """What a claim is told of a published network: that it speaks of this one alone, over so many images."""
    return {"trained": False, "n": f"{images} images, one network as it was published"} if p.as_published else {}


def told(pairs: tuple[str, ...]) -> str:
    """Pairs of classes in words."""
    return "; ".join(pair.replace(">", " and ") for pair in pairs)


def narrow(path: Pathways, layers: list[str]) -> str:
    """A note where a layer has few top neurons: what one of them makes of a share. Intervals have it in them."""
    k = min((path.k[n] for n in layers), default=FEWEST)
    return "" if k >= FEWEST else f"{k} top neurons in the narrowest layer: one more or less moves its share by {1 / k:.2f}"


def floored(path: Pathways) -> str:
    """A note where no clamping undoes a thing, so that none could be told from another."""
    every = (np.arange(path.images), np.arange(path.p.seeds))
    most = [statistic(*every) for which in CLAMPED if (statistic := path.undone(which))]
    none = bool(most) and max(most) < LITTLE
    return "next to no attack fails whatever is clamped: it is too strong to tell neurons apart" if none else ""


def shared(paths: list[Pathways]) -> Statistic:
    """|O ∩ T| / K, mean of all layers of all pairs."""
    return mean([path.shared(n) for path in paths for n in path.layers])


def _over_noise(p: Parameters) -> str:
    return f"PGD minus a random direction at L2 {p.strengths[-1]:g}"


def _grows(p: Parameters) -> str:
    return f"PGD at L2 {p.strengths[-1]:g} minus {p.strengths[0]:g}"


def _reached(path: Pathways) -> list[Row]:
    """Whether the attack does what it is for."""
    strong, weak, noise = path.success("pgd", -1), path.success("pgd", 0), path.success("noise", -1)
    says = "A stronger targeted attack succeeds more often"
    beyond = "A targeted attack succeeds more often than a random direction of the same size"
    over_noise = f"{REACH}, {_over_noise(path.p)}"
    return [
        ("success", "claim", says, minus(strong, weak), UP, f"{REACH}, {_grows(path.p)}", SPEC, "share"),
        ("success-over-noise", "control", beyond, minus(strong, noise), UP, over_noise, OURS_ALONE, "share"),
    ]


def _shared(path: Pathways) -> list[Row]:
    """What early layers have in common."""
    if len(path.layers) == 1:
        return []
    first, last = thirds(path.layers)

    def falls(over_chance: bool) -> Statistic:
        return minus(*(mean([path.shared(n, over_chance) for n in part]) for part in (first, last)))

    both = "share of the top neurons that are top neurons of both classes"
    thirds_ = "the first third of the layers minus the last"
    beyond = "Two classes share fewer top neurons in late layers than in early ones beyond what two random sets share"
    return [
        (
            "shared-falls",
            "claim",
            "Two classes share fewer top neurons in late layers than in early ones",
            falls(False),
            UP,
            f"{both}, {thirds_}",
            SPEC,
            "share",
        ),
        (
            "shared-falls-over-chance",
            "control",
            beyond,
            falls(True),
            UP,
            f"{both}, moved and scaled so that random sets have 0 (narrow layers: more) and equal sets 1, {thirds_}",
            OURS_ALONE,
            "correlation",  # below 0 where they share less than random sets do
        ),
    ]


def _depth(path: Pathways) -> list[Row]:
    """How much less early layers change."""
    if len(path.layers) == 1:
        return []
    first, last = thirds(path.layers)
    return [
        (
            "early-change-less",
            "claim",
            "Early layers change less under attack than late ones",
            minus(path.correlation("pgd", -1, first), path.correlation("pgd", -1, last)),
            UP,
            "Spearman correlation of attacked and clean medians over channels, the first third of the layers minus the last, "
            f"PGD at L2 {path.p.strengths[-1]:g}",
            SPEC,
            "correlation",
        )
    ]


def _edges(path: Pathways) -> list[Row]:
    """Whether the edges of one class alone grow or fade, where the influence of each image was measured."""
    rows: list[Row] = []
    for group, (whose, name, _, _, rule) in GROUPS.items():
        grown, noise = (path.influence(attack, -1, group) for attack in ("pgd", "noise"))
        if grown is None or noise is None:
            continue
        does, makes = ("grows", "raises") if rule == UP else ("fades", "lowers")
        says = f"The attack {makes} the influence of the {whose} class's own neurons on those of the next layer"
        measure = f"growth of the influence between the {name}, as a share of that on clean images, all layers"
        at = f"PGD at L2 {path.p.strengths[-1]:g}"
        over_noise = f"{measure}, {_over_noise(path.p)}"
        id, beyond = f"influence-{whose}-{does}", f"{says} more than a random direction of the same size does"
        rows += [
            (id, "claim", says, grown, rule, f"{measure}, {at}", SPEC, "ratio"),
            (f"{id}-over-noise", "control", beyond, minus(grown, noise), rule, over_noise, OURS_ALONE, "ratio"),
        ]
    return rows


def _clamped(path: Pathways) -> list[Row]:
    """Whether the attack needs the neurons that it exploits, where that was measured."""
    exploited, random, excited = (path.undone(which) for which in CLAMPED)
    if exploited is None or random is None or excited is None:
        return []
    does = "clamping them to their clean values in all layers undoes more attacks than clamping"
    fail = f"share of the successes of PGD at L2 {path.p.strengths[-1]:g} that fail while neurons hold their clean values"
    return [
        (
            "exploited-carry",
            "claim",
            f"Neurons exploited by the attack carry it: {does} equally many random ones",
            minus(exploited, random),
            UP,
            f"{fail}: exploited ones minus equally many of the same layers at random",
            SPEC,
            "share",
        ),
        (
            "exploited-carry-over-excited",
            "control",
            f"Neurons exploited by the attack carry it more than those that it excites most: {does} equally many of these",
            minus(exploited, excited),
            UP,
            f"{fail}: exploited ones minus equally many of the same layers whose medians rise most",
            OURS_ALONE,
            "share",
        ),
    ]


def _moved(path: Pathways) -> list[Row]:
    """What becomes of the neurons that one class alone uses."""
    deep = f"the last {LAST} layers" if len(path.layers) >= LAST else "the only layer"
    rows: list[Row] = []
    for group, (whose, name, joins, made, rule) in GROUPS.items():
        measure = f"change of the medians of the {name}, last layer, in units of the layer's mean"
        moved = path.moved("pgd", -1, group)
        rows += [
            (
                f"{group}-{joins}",
                "claim",
                f"As the attack grows, neurons of the {whose} class {joins} the top neurons",
                minus(path.kept("pgd", -1, group), path.kept("pgd", 0, group)),
                rule,
                f"share of the {name} that are top neurons of the attacked images, {deep}, same images, {_grows(path.p)}",
                SPEC,
                "share",
            ),
            (
                f"{whose}-{made}",
                "claim",
                f"The {whose} class's own neurons of the last layer are {made} by the attack",
                moved,
                rule,
                f"{measure}, PGD at L2 {path.p.strengths[-1]:g}",
                SPEC,
                "medians",
            ),
            (
                f"{whose}-{made}-over-noise",
                "control",
                f"The {whose} class's own neurons of the last layer are {made} more by the attack than by a random direction "
                "of the same size",
                minus(moved, path.moved("noise", -1, group)),
                rule,
                f"{measure}, {_over_noise(path.p)}",
                OURS_ALONE,
                "medians",
            ),
        ]
    return rows


def _selection(court: Court, path: Pathways) -> None:
    """What looking at successes alone, as the original does, makes of it; where one strength has a few for each seed."""
    weakest = path.first_success("pgd")
    if weakest is None:
        return
    at = f"PGD at L2 {path.p.strengths[weakest]:g}"
    new = "share of the top neurons that are top neurons of neither class on clean images, all layers"
    few = int(path.scored.success(path.arch, path.pair, "pgd")[:, weakest].sum())
    own = path.new_among_successes("pgd", weakest)
    court.add(
        "selection",
        "control",
        "Looking at successes alone, as the original does, shows more neurons that neither class uses than as many images "
        "drawn from all of them do",
        minus(own, path.new_among_as_many("pgd", weakest)),
        UP,
        statistic=f"{new}: successes minus as many images at random, {at}, the weakest with {FEW} successes for each seed",
        source=OURS_ALONE,
        measure="share",
        note=noted(f"{few} successes of all seeds", narrow(path, path.layers)),
        unknown=NEVER,
        **alone(path.p, path.images),
    )
    court.add(
        "selection-falls",
        "open question",
        "Among successes, neurons that neither class uses are most at the weakest attack, as in the released data",
        minus(own, path.new_among_successes("pgd", -1)),
        UP,
        statistic=f"{new}, successes alone: {at} minus {path.p.strengths[-1]:g}",
        source="released data of Das et al. 2020",
        measure="share",
        note=narrow(path, path.layers),
        unknown=NEVER,
        **alone(path.p, path.images),
    )
