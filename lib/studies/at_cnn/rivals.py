"""Study 2: what Zhang and Zhu say of an adversarially trained network beside a rival, the standard one or one stopped early."""

from collections.abc import Iterator
from typing import NamedTuple

from lib.claims.claim import Kind, Rule
from lib.claims.court import OURS, Court, noted
from lib.claims.intervals import Statistic, minus, over_pairs
from lib.studies.at_cnn.plan import Parameters, label
from lib.studies.at_cnn.statistics import Cubes, by_style

SOURCE = "Zhang and Zhu 2019"
UP = Rule("above", 0.0)
STYLISED = ("texture-gone", "shape-kept")  # the gates of stylised images
# what a map does, in what measure, its words, and the sign of an advantage
CONTOURS = {
    "edges": ("agrees more with the image's edges", "correlation", "rank correlation with Sobel's edges", 1),
    "mask": ("lies more inside the object", "share", "share of the map inside the object's mask", 1),
    "tv": ("is less scattered", "variation", "total variation of the map", -1),
}
OF_STYLES = ("style", "style-ratio", "fourier")  # whose images share the photographs of their styles
CHANGES = {"style": "stylised (AdaIN)", "fourier": "Fourier-swapped", "conflict": "cue-conflict"}


class Rival(NamedTuple):
    """What an adversarial arm is compared with; the paper's claims are about `standard`, all else is a control of ours."""

    arm: str = "standard"
    kind: Kind = "claim"
    note: str = ""

    @property
    def name(self) -> str:
        return "the standard network" if self.arm == "standard" else label(self.arm)

    def source(self, claim: str) -> str:
        return f"{SOURCE}, {claim}" if self.kind == "claim" else OURS


class Row(NamedTuple):
    """A claim of one arm beside a rival: its difference of two values of a measure should be above zero."""

    id: str
    kind: Kind
    statement: str
    compute: Statistic
    statistic: str
    source: str
    measure: str
    gates: tuple[str, ...] = ()
    note: str = ""
    difference: int = 1


def against(court: Court, arm: str, rival: Rival) -> None:
    """What the paper says of an adversarial arm, beside a rival."""
    of_styles = court.within("", **by_style(court.p, court.cubes.images("clean")))
    for over, part in (("alignment", _contours), ("clean", _stylised), ("clean", _saturated), ("clean", _shuffled)):
        for row in part(court.cubes, arm, rival, court.p):
            (of_styles if row.id in OF_STYLES else court).add(
                row.id,
                row.kind,
                row.statement,
                row.compute,
                UP,
                statistic=row.statistic,
                source=row.source,
                measure=row.measure,
                difference=row.difference,
                over=over,
                arms=(arm, rival.arm),
                gates=row.gates,
                note=noted(rival.note, row.note),
            )


def _contours(cubes: Cubes, arm: str, rival: Rival, p: Parameters) -> Iterator[Row]:
    """Claim (a): maps show contours, those of standard networks are scattered; the measures are ours."""
    name, both = label(arm), (arm, rival.arm)

    def less(measure: str, one: str, other: str) -> Statistic:
        return cubes.less((one, measure, 0.0), (other, measure, 0.0))

    for which, (says, measure, told, sign) in CONTOURS.items():
        key = f"smoothgrad/{which}"
        if (arm, key, 0.0) not in cubes.values:  # no masks
            continue
        yield Row(
            f"contours-{which}",
            rival.kind,
            f"SmoothGrad's map of {name} {says} than that of {rival.name} ({told})",
            less(key, *both[::sign]),
            f"{told}, {f'adversarial - {rival.arm}' if sign > 0 else f'{rival.arm} - adversarial'}",
            rival.source("claim (a); the measure is ours"),
            measure,
        )
    own, other = (
        minus(cubes.mean(a, "smoothgrad/edges"), over_pairs(cubes.values[a, "smoothgrad/edges-other", 0.0])) for a in both
    )
    yield Row(
        "own-edges",
        "control",
        f"SmoothGrad's map of {name} prefers the edges of its own image to those of another more than that of {rival.name}",
        minus(own, other),
        f"rank correlation with own edges - with other images', adversarial - {rival.arm}",
        OURS,
        "correlation",
        note="what is gained is about the image, not about where objects usually lie",
        difference=2,
    )
    yield Row(
        "scatter",
        "control",
        f"SmoothGrad's map of {name} is smoother than that of {rival.name} for its own distribution of values",
        less("smoothgrad/scatter", rival.arm, arm),
        f"total variation / that of the same pixels permuted, {rival.arm} - adversarial",
        OURS,
        "ratio",
        note="total variation alone also falls when a map is sparser",
    )
    yield Row(
        "alignment",
        rival.kind,
        f"The gradient of {name} is better aligned with the image than that of {rival.name}",
        less("alignment", arm, rival.arm),
        f"|<x, g>| / ||g||, x the image, g the gradient of the winning logit, adversarial - {rival.arm}",
        rival.source("claim (a); the measure is Etmann et al.'s (2019)"),
        "",
    )


def _stylised(cubes: Cubes, arm: str, rival: Rival, p: Parameters) -> Iterator[Row]:
    """Claim (b): accuracy on stylised images, absolute and of what it is on clean ones; two other changes as controls."""
    for change, what in CHANGES.items():
        if not cubes.levels(change):
            continue
        level, scored = cubes.level(change), "the shape" if change == "conflict" else "the class"
        yield Row(
            change,
            rival.kind if change == "style" else "control",
            f"{label(arm)} is right more often than {rival.name} about {scored} in {what} images",
            minus(cubes.mean(arm, change, level), cubes.mean(rival.arm, change, level)),
            f"accuracy in {scored} on {what} images, adversarial - {rival.arm}",
            rival.source("claim (b)") if change == "style" else OURS,
            "accuracy",
            STYLISED if change == "style" else (),
        )
    style = cubes.level("style")
    yield Row(
        "style-ratio",
        rival.kind,
        f"{label(arm)} keeps a larger part of its clean accuracy on stylised images than {rival.name}",
        minus(cubes.ratio(arm, style), cubes.ratio(rival.arm, style)),
        f"accuracy on stylised / on clean images, adversarial - {rival.arm}",
        rival.source("claim (b), table; the ratio is ours"),
        "ratio",
        STYLISED,
    )


def _saturated(cubes: Cubes, arm: str, rival: Rival, p: Parameters) -> Iterator[Row]:
    """Claim (c): retention under saturation, at the largest p and its growth with p."""
    beyond = [q for q in p.saturation if q > 2]
    if not beyond:  # all levels turn images grey
        return
    top, low, few = max(beyond), min(beyond), cubes.few(arm, rival.arm)

    def gap(level: float) -> Statistic:
        return minus(cubes.retention(arm, "saturation", level), cubes.retention(rival.arm, "saturation", level))

    yield Row(
        "saturated",
        rival.kind,
        f"{label(arm)} retains more of what it has right than {rival.name} on saturated images, p = {top:g}",
        gap(top),
        f"retention at p = {top:g}, adversarial - {rival.arm}",
        rival.source("claim (c)"),
        "share",
        note=few,
    )
    if low < top and rival.kind == "claim":
        yield Row(
            "saturated-grows",
            "claim",
            f"What {label(arm)} retains more than {rival.name} on saturated images grows from p = {low:g} to p = {top:g}",
            minus(gap(top), gap(low)),
            f"retention gap at p = {top:g} - at p = {low:g}",
            rival.source("claim (c)"),
            "share",
            note=few or "standard retains so little at large p that the gap can close from below",
            difference=2,
        )


def _shuffled(cubes: Cubes, arm: str, rival: Rival, p: Parameters) -> Iterator[Row]:
    """Claim (d): retention under patch shuffle is lower, the more so the more patches; k = 2 is often mixed: left open."""
    few = cubes.few(arm, rival.arm)

    def gap(k: float) -> Statistic:
        return minus(cubes.retention(rival.arm, "shuffle", k), cubes.retention(arm, "shuffle", k))

    for k in p.shuffle:
        yield Row(
            f"shuffled-{k}",
            "open question" if k < 4 else rival.kind,
            f"{label(arm)} retains less of what it has right than {rival.name} under {k} x {k} patch shuffle",
            gap(k),
            f"retention at k = {k}, {rival.arm} - adversarial",
            rival.source("claim (d)"),
            "share",
            note=few,
        )
    low, top = min(p.shuffle), max(p.shuffle)
    if low < top and rival.kind == "claim":
        yield Row(
            "shuffled-grows",
            "open question",
            f"What {label(arm)} retains less than {rival.name} under patch shuffle grows from k = {low} to k = {top}",
            minus(gap(top), gap(low)),
            f"retention gap at k = {top} - at k = {low}",
            rival.source("claim (d)"),
            "share",
            note=few or "both fall towards chance, which closes the gap",
            difference=2,
        )
