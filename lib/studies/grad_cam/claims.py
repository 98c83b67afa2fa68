"""Study 0: the claims of the Grad-CAM tour, and the statistics that they rest on.

Gates, chosen before any number was seen: a network must be right on more than .6 of the images, as in study 1, or its maps
of the true class explain what it does not think; and a targeted attack must reach the class that it aims at on more than half
of them, or what becomes of the map is not what becomes of it under a successful attack. Identities hold of any network.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.claims.claim import Claim, Kind, Rule
from lib.claims.court import OURS_ALONE, Court
from lib.claims.cubes import Cubes
from lib.claims.intervals import Statistic, over
from lib.studies.grad_cam.photo import SHARE
from lib.studies.grad_cam.plan import Parameters, named

SOURCE = "Selvaraju et al. 2017"
TALK = "presentation of the Grad-CAM project"
MASS = "share of the map's mass on the object"
UP, DOWN = Rule("above", 0.0), Rule("below", 0.0)
EXACT = 1e-4  # relative, in float32
RIGHT, REACHED = Rule("above", 0.6), Rule("above", 0.5)  # see above
PHOTO = "photo/"  # begins the measures on photographs


class Row(NamedTuple):
    """A claim in words; its statistic is the mean of a measure of the table, less another one where one is named. `bounds`
    are those of a name in `lib.claims.measures`; `attacked`: whether the attack must have reached its class."""

    id: str
    kind: Kind
    statement: str
    measure: str
    less: str
    rule: Rule
    statistic: str
    source: str
    bounds: str = ""
    attacked: bool = False


def primaries(p: Parameters) -> tuple[str, ...]:
    """The ids of what a reader of Selvaraju et al. would name, on a published network and photographs."""
    told = ("photo-two", "photo-late-beats-middle", "photo-removal-positive-score", "photo-removal-counterfactual-score")
    return tuple(f"{id}/{p.published}" for id in (*told, "photo-attack-moves-map"))


def judge(table: pd.DataFrame, p: Parameters, *, test: bool = True) -> list[Claim]:
    """Every claim, for every network that has its measure: without masks, say, nothing lies on an object."""
    unknown = "Without interval: every map of this kind is empty."
    court = Court("00", p, Cubes.of(table), test, p.seeds, draws=200, unknown=unknown, primaries=primaries(p))
    asked = [(p.published, on_photographs(p), p.radii[-1], 1)]
    for arch, claims, eps, seeds in asked + [(arch, claimed(p), p.eps[-1], p.seeds) for arch in p.architectures]:
        own = court.within(arch, f", in the {named(arch)} network", seeds=seeds, networks=arch)
        seen = at_strongest(court.cubes, arch, eps)
        known = gates(own, arch, seen, eps, PHOTO if arch == p.published else "")
        for row in claims:
            if row.measure not in seen:
                continue
            values = seen[row.measure] - (seen[row.less] if row.less else 0.0)
            empty = int((~np.isfinite(values)).sum())
            note = f"{empty} of {values.size} values are missing, since their maps are empty." if empty else ""
            compute, n, what = over(values), "", ""
            if row.kind == "check":  # of these networks as they are: nothing is asked of another training run
                compute, n = _of_all(compute, len(values)), f"{values.shape[1]} images, {len(values)} seeds"
            if row.measure.startswith(PHOTO):
                what = "pairs of photographs" if row.measure.startswith(("photo/two", "photo/removal")) else "photographs"
                n = f"{values.size} {what}, one network as it was published"
            own.add(
                row.id,
                row.kind,
                row.statement,
                compute,
                row.rule,
                statistic=row.statistic,
                source=row.source,
                measure=row.bounds,
                difference=bool(row.less),
                over=row.measure,
                gates=() if row.kind == "check" else tuple(g for g in known if row.attacked or not g.startswith("reached")),
                trained=arch != p.published,
                note=note,
                n=n,
                unit=what,
            )
    return court.rows


def _of_all(compute: Statistic, seeds: int) -> Statistic:
    return lambda i, s: compute(i, np.arange(seeds))


def at_strongest(cubes: Cubes, arch: str, eps: float) -> dict[str, np.ndarray]:
    """A network's measures (seed, image): without attack, and under attack at the largest radius."""
    return {measure: values for (arm, measure, level), values in cubes.values.items() if arm == arch and level in (0.0, eps)}


def gates(court: Court, arch: str, seen: dict[str, np.ndarray], eps: float, prefix: str) -> tuple[str, ...]:
    """The gates of one network by name, as far as they were measured: of its worst seed, and of the attack on all."""
    what = "photographs" if prefix else "test images"
    known = []
    if (right := seen.get(f"{prefix}right")) is not None:
        says = f"share of {what} that the {named(arch)} network{'' if prefix else ' of the worst seed'} gets right"
        court.gate(f"right/{arch}", says, float(right.mean(1).min()), RIGHT)
        known.append(f"right/{arch}")
    if (reached := seen.get(f"{prefix}reached/attack")) is not None:
        says = f"share of {what} on which the attack reaches its class at eps {eps:g}, {named(arch)} network"
        court.gate(f"reached/{arch}", says, float(np.nanmean(reached)), REACHED)
        known.append(f"reached/{arch}")
    return tuple(known)


def identities(prefix: str = "") -> list[Row]:
    """What holds of any network whose head is average pooling and a linear layer; and that the score is what is explained."""
    told = "largest difference of the two sides over the largest value, mean of the images"
    rows = [
        Row(f"identity-{which}", "check", statement, f"{prefix}identity/{which}", "", Rule("within", EXACT), told, SOURCE)
        for which, statement in (
            ("cam", "Without ReLU, Grad-CAM at the last layer is CAM over the number of positions"),
            ("sum", "The map without ReLU is Grad-CAM minus the counterfactual map"),
            ("product", "Where Grad-CAM is above zero, the counterfactual map is zero"),
        )
    ]
    statement = "The map of the probability is another one than that of the logit"
    told = "largest difference of the two maps, each over its own largest value, mean of the images"
    above = Rule("above", EXACT)
    return [*rows, Row("softmax-differs", "check", statement, f"{prefix}identity/softmax", "", above, told, OURS_ALONE)]


def on_photographs(p: Parameters) -> list[Row]:
    """What is claimed of the published network, in order."""
    rows = identities(PHOTO)
    half = "share of the map's mass on the half of the picture that shows the class's photograph, mean of both classes"
    beside = "In a picture of two photographs,"
    for id, sign, rule, statement in (
        ("photo-two", "positive", Rule("above", 0.5), "the map of a class lies on the class's own photograph"),
        (
            "photo-counterfactual",
            "counterfactual",
            Rule("below", 0.5),
            "the counterfactual map of a class lies on the other one",
        ),
    ):
        rows.append(Row(id, "claim", f"{beside} {statement}", f"photo/two/{sign}", "", rule, half, SOURCE, "share"))
    statement = f"{beside} the last layer's map of a class lies on its own photograph more than a middle layer's"
    told = f"{half}, last minus middle layer"
    both = ("photo/two/positive", "photo/two/positive/middle")
    rows.append(Row("photo-late-beats-middle", "claim", statement, *both, UP, told, TALK, "share"))
    for sign, rule, does, marks in (("counterfactual", UP, "raises", "against"), ("positive", DOWN, "lowers", "for")):
        for kind, what in (("score", "score"), ("log", "log-probability")):
            grown = f"growth of the class's {what} once at most {SHARE:.0%} of the picture are taken away, mean of both classes"
            key, id = f"photo/removal/{sign}/{kind}", f"photo-removal-{sign}-{kind}"
            statement = f"Taking away what the map marks {marks} a class {does} the class's {what}"
            rows.append(Row(id, "claim", statement, key, "", rule, f"{grown}, where the map is largest", SOURCE))
            statement = f"{statement} more than taking away as much elsewhere on the same photographs"
            told = f"{grown}: where the map is largest, minus elsewhere"
            rows.append(Row(f"{id}-over-elsewhere", "control", statement, key, f"{key}/elsewhere", rule, told, OURS_ALONE))
    told = f"NISSIM with the clean map, attack towards {p.aim} minus random signs, eps {p.radii[-1]:g}"
    return [*rows, _moved("photo-attack-moves-map", PHOTO, told)]


def _moved(id: str, prefix: str, told: str) -> Row:
    statement = "A targeted attack changes the map of the true class more than random signs of the same size do"
    measures = (f"{prefix}nissim/attack", f"{prefix}nissim/noise")
    return Row(id, "claim", statement, *measures, UP, told, TALK, "NISSIM", attacked=True)


def claimed(p: Parameters) -> list[Row]:
    """What is claimed of each network that the study trains, in order."""
    moved = f"targeted attack minus random signs, eps {p.eps[-1]:g}"
    rows = identities()
    for how, what, told in (
        ("energy", "More of the mass of the last layer's map lies on the object than of a middle layer's", MASS),
        (
            "pointing",
            "The peak of the last layer's map lies on the object more often than a middle layer's",
            "share of peaks on it",
        ),
    ):
        both = (f"{how}/last", f"{how}/middle")
        told = f"{told}, true class, last minus middle layer"
        rows.append(Row(f"late-beats-middle-{how}", "claim", what, *both, UP, told, TALK, "share"))
    even = "The last layer's map lies on the object more than an even map would"
    told = f"{MASS} minus the object's share of the image"
    rows.append(Row("on-object", "control", even, "energy/last", "area", UP, told, OURS_ALONE, "share"))
    for word, own, other in (("first", p.first, p.second), ("second", p.second, p.first)):
        statement = f"On a mosaic of two classes, two images of each, the map of {own} lies on the {own}"
        told = f"share of the map's mass on the quarters that show {own}"
        key, half = f"two/positive/{word}", Rule("above", 0.5)
        rows.append(Row(f"two-objects-{word}", "claim", statement, key, "", half, told, SOURCE, "share"))
        statement = f"On a mosaic of two classes, two images of each, the counterfactual map of {own} lies on the {other}"
        told = f"share of the counterfactual map's mass on the quarters that show {own}"
        key, half = f"two/counterfactual/{word}", Rule("below", 0.5)
        rows.append(Row(f"counterfactual-{word}", "claim", statement, key, "", half, told, SOURCE, "share"))
    rows.append(_moved("attack-moves-map", "", f"NISSIM with the clean map, {moved}"))
    less = "Under a targeted attack less of the true class's map lies on the object than"
    told = f"{MASS}, targeted attack at eps {p.eps[-1]:g} minus clean"
    clean = ("attack-leaves-object", "claim", f"{less} without", "energy/attack", "energy/last", DOWN, told, TALK)
    noise = f"{less} under random signs of the same size"
    told = f"{MASS}, {moved}"
    beyond = ("attack-leaves-object-over-noise", "control", noise, "energy/attack", "energy/noise", DOWN, told, OURS_ALONE)
    rows += [Row(*row, "share", attacked=True) for row in (clean, beyond)]
    cue = "Where shape and texture disagree, more decisions are for the texture's class than for the shape's"
    told = "share of decisions for the texture's class minus share for the shape's class"
    rows.append(Row("leans-on-texture", "open question", cue, "by/texture", "by/shape", UP, told, OURS_ALONE, "share"))
    return rows
