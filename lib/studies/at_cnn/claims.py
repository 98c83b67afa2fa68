"""Study 2's claims: what Zhang and Zhu say of adversarially trained CNNs, the controls, and what is left open.

What must hold for them to mean anything, chosen before any number was seen:

* the standard network is right on .6 of clean images: the least accurate network of the paper's table, its Underfit on
  Tiny-ImageNet, has .6035;
* Underfit is right on half of them, so that what it retains is of the larger part of the images, and within .03 of the
  network that it is matched to, the tolerance of its own control;
* an adversarial arm is right more often than the standard network under PGD, the interval above .1: attacks were learnt;
* stylisation leaves the standard network at most .35 of its clean accuracy (published: .202 and .101), and a classifier of
  edges alone nine of ten images that it knew: what is lost is texture, and not shape.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.claims import measures
from lib.claims.claim import Claim, Kind, Rule
from lib.claims.court import OURS, Court, noted
from lib.claims.intervals import Statistic, minus, over_pairs, parts, together
from lib.studies.at_cnn.plan import EDGES, Parameters, attacked, family, label, seeds_of
from lib.studies.at_cnn.statistics import Cubes, robustness, shape_bias, underfit_seeds

SOURCE = "Zhang and Zhu 2019"
UP = Rule("above", 0.0)
ENOUGH, ENOUGH_UNDERFIT, MATCHED = Rule("above", 0.6), Rule("above", 0.5), Rule("within", 0.03)
ROBUST, TEXTURE_GONE, SHAPE_KEPT = Rule("above", 0.1), Rule("below", 0.35), Rule("above", 0.9)
STYLISED = ("texture-gone", "shape-kept")  # the gates of stylised images
NO_UNDERFIT = (
    "Underfit exists in {} of {} seeds: in the others adversarial training costs no accuracy, there is nothing to stop"
)
# what a map does, in what measure, its words, and the sign of an advantage
CONTOURS = {
    "edges": ("agrees more with the image's edges", "correlation", "rank correlation with Sobel's edges", 1),
    "mask": ("lies more inside the object", "share", "share of the map inside the object's mask", 1),
    "tv": ("is less scattered", "variation", "total variation of the map", -1),
}
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


def primaries(p: Parameters) -> tuple[str, ...]:
    """The ids of the paper's claims for its first adversarial network: contours, stylised, saturated and shuffled images."""
    return tuple(f"{id}/{p.headline[0]}" for id in ("contours-edges", "style-ratio", "saturated", "shuffled-4"))


def beside(p: Parameters) -> dict[str, tuple[str, str]]:
    """A map that likes edges of any image says nothing of its own."""
    arm = p.headline[0]
    return {f"contours-edges/{arm}": (f"own-edges/{arm}", "with the edges of its own image more than with another image's")}


def judge(table: pd.DataFrame, p: Parameters, *, test: bool = True) -> list[Claim]:
    """All claims from the table of measurements."""
    whose = f"{family(p).name} of Boopathy et al." if p.authors else ""
    seeds = functools.partial(seeds_of, p)
    court = Court("02", p, Cubes.of(table, p.min_correct), test, seeds, primaries=primaries(p), whose=whose)
    _gates(court)
    clean = court.within("", gates=("clean",))
    for arm in p.headline:
        _robust(clean, arm)
        _against(clean.within(arm, gates=("clean", f"robust-{arm}")), arm, Rival())
    if "underfit" in p.arms:
        first = p.headline[0]  # it is matched to the first
        seeds = underfit_seeds(court.cubes, p.seeds)
        rival = Rival("underfit", "control", NO_UNDERFIT.format(len(seeds), p.seeds) if len(seeds) < p.seeds else "")
        own = clean.within("", seeds=p.seeds, test=False)  # without such a network nothing is judged
        gates: tuple[str, ...] = ()
        if seeds:
            own = clean.within("", cubes=Cubes.of(table[table.seed.isin(seeds)], p.min_correct), seeds=len(seeds))
            gates = _underfit_gates(own, first)
        beside = (*gates, "clean", f"robust-{first}")
        _against(own.within(f"{first}/over-underfit", gates=beside), first, rival)
        _underfit(own.within("", over="clean"), first, gates, rival.note)
    _style(court.within("", over="style-distance", whose=""))
    _open(clean.within("", over="clean"))
    return court.rows


def _gates(court: Court) -> None:
    """What must hold of the standard network, of every adversarial one, and of the stylised images."""
    p, cubes = court.p, court.cubes
    everything = np.arange(cubes.images("clean")), np.arange(p.seeds)
    says = "the standard network is right on enough clean images"
    court.gate("clean", says, cubes.mean("standard", "clean")(*everything), ENOUGH)
    says = "stylisation takes from the standard network as much as published: accuracy on stylised / on clean images"
    court.gate("texture-gone", says, cubes.ratio("standard", cubes.level("style"))(*everything), TEXTURE_GONE)
    kept = cubes.retention(EDGES, "style", cubes.level("style"))(everything[0], np.arange(1))
    says = "stylisation keeps the shape: retention of a classifier of edges alone"
    says += "" if np.isfinite(kept) else f", which is right on fewer than {cubes.min_correct} clean images"
    court.gate("shape-kept", says, kept, SHAPE_KEPT)
    arms, of = [a for a in p.arms if attacked(a)], measures.measure("accuracy", difference=True)
    gained = [
        parts(
            robustness(cubes, arm, _radius(cubes, p)),
            images=cubes.images("pgd"),
            seeds=seeds_of(p, arm),
            draws=court.draws,
            of=of,
        )
        for arm in arms
    ]
    for arm, interval in zip(arms, together(gained), strict=True):
        says = f"{label(arm)} stands clearly above the standard network under PGD: lower end of the difference's interval"
        court.gate(f"robust-{arm}", says, interval.low, ROBUST)


def _underfit_gates(court: Court, first: str) -> tuple[str, ...]:
    cubes = court.cubes
    everything = np.arange(cubes.images("clean")), np.arange(court.seeds)
    own, other = (cubes.mean(arm, "clean")(*everything) for arm in ("underfit", first))
    court.gate("underfit-clean", "Underfit is right on enough clean images", own, ENOUGH_UNDERFIT)
    court.gate("underfit-matched", f"Underfit is as accurate as {label(first)} on clean images", own - other, MATCHED)
    return "underfit-clean", "underfit-matched"


def _radius(cubes: Cubes, p: Parameters) -> float:
    """Of PGD, where robustness is judged."""
    return cubes.level("pgd", min(2, len(p.robust_eps)))


def _robust(court: Court, arm: str) -> None:
    eps = _radius(court.cubes, court.p)
    told = f"PGD-{court.p.robust_steps}, L-infinity {eps:g}/255"
    court.add(
        f"robust/{arm}",
        "control",
        f"{label(arm)} is right more often than the standard network under {told}, as it was trained to",
        robustness(court.cubes, arm, eps),
        UP,
        statistic=f"accuracy under {told}, adversarial - standard",
        source=OURS,
        measure="accuracy",
        over="pgd",
        arms=(arm, "standard"),
    )


def _against(court: Court, arm: str, rival: Rival) -> None:
    """What the paper says of an adversarial arm, beside a rival."""
    for over, part in (("alignment", _contours), ("clean", _stylised), ("clean", _saturated), ("clean", _shuffled)):
        for row in part(court.cubes, arm, rival, court.p):
            court.add(
                row.id,
                row.kind,
                row.statement,
                row.compute,
                UP,
                statistic=row.statistic,
                source=row.source,
                measure=row.measure,
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
            f"SmoothGrad's map of {name} {says} than that of {rival.name} does ({told})",
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
        rival.source("claim (b), table"),
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
        )


def _underfit(court: Court, first: str, gates: tuple[str, ...], note: str) -> None:
    """The control that the paper has: accuracy is lower, and nothing else follows."""
    cubes, style, top = court.cubes, court.cubes.level("style"), max(court.p.saturation)
    court.add(
        "underfit-matched",
        "control",
        f"The search for Underfit found a network as accurate as {label(first)} on clean images",
        minus(cubes.mean("underfit", "clean"), cubes.mean(first, "clean")),
        MATCHED,
        statistic="clean accuracy, underfit - adversarial, on the images it was matched on",
        source=OURS,
        measure="accuracy",
        note=note,
    )
    court.add(
        "underfit-style",
        "claim",
        "Underfit gains nothing on stylised images over the standard network: two points of accuracy at most",
        minus(cubes.mean("underfit", "style", style), cubes.mean("standard", "style", style)),
        Rule("below", 0.02),
        statistic="accuracy on stylised images, underfit - standard",
        source=f"{SOURCE}, table; the tolerance is ours",
        measure="accuracy",
        gates=(*gates, *STYLISED),
        pool="style",
        note=note,
    )
    court.add(
        "underfit-saturated",
        "control",
        f"Underfit gains nothing on saturated images over the standard network, p = {top:g}: two points of retention at most",
        minus(cubes.retention("underfit", "saturation", top), cubes.retention("standard", "saturation", top)),
        Rule("below", 0.02),
        statistic=f"retention at p = {top:g}, underfit - standard",
        source=OURS,
        measure="share",
        gates=gates,
        pool="saturated",
        note=noted(note, cubes.few("underfit", "standard")),
    )


def _style(court: Court) -> None:
    """Does the stylisation do what it says? Of these images alone: no training is repeated."""
    cubes = court.cubes
    before, after, others = (cubes.mean(EDGES, "style-distance", level) for level in (0.0, 1.0, 2.0))
    add = functools.partial(court.add, kind="control", source=OURS, arms=(EDGES,), trained=False)
    add(
        "style-matched",
        statement="Stylised images have the statistics of their style: the distance to it is less than half of what it was",
        compute=lambda i, s: after(i, s) / before(i, s),
        rule=Rule("below", 0.5),
        statistic="distance of channel means and deviations to the style's, stylised / as they are",
        measure="ratio",
        difference=False,
        note="these statistics are what the decoder was trained on; `shape-kept` asks for more",
    )
    add(
        "style-own",
        statement="Stylised images are nearer to their own style than to another image's",
        compute=minus(others, after),
        rule=UP,
        statistic="distance to the next image's style - to its own",
    )
    add(
        "shape-kept",
        statement="Shape survives stylisation: a classifier of edges alone, which never saw a style, keeps nine of ten images",
        compute=cubes.retention(EDGES, "style", cubes.level("style")),
        rule=SHAPE_KEPT,
        statistic="retention on stylised images of a classifier of edges alone",
        measure="share",
        difference=False,
        note="where this is contradicted, part of what networks lose on stylised images is shape, not texture",
    )


def _open(court: Court) -> None:
    """Readings of the published table that rest on one training run an arm there: reported, not asserted."""
    p, cubes, style = court.p, court.cubes, court.cubes.level("style")
    by_eps = sorted((a for a in p.arms if a.startswith("linf-") and "@" not in a), key=lambda a: float(a[5:]))
    linf, l2 = ([a for a in p.headline if a.startswith(kind)][:1] for kind in ("linf", "l2"))
    table, swapped = f"{SOURCE}, table", "the table's Tiny-ImageNet column: catastrophic overfitting, or swapped labels"
    share, alternates = [f"{p.headline[0]}@1", p.headline[0]], "the paper's equation is pure min-max, its code alternates"
    for id, arms, source, note in (
        ("ratio-rises", [by_eps[-1], by_eps[0]] if len(by_eps) > 1 else [], table, ""),
        ("l2-over-linf", l2 + linf, table, ""),
        ("fgsm-anomaly", ["fgsm-4", "fgsm-8"], table, swapped),
        ("full-share", share, OURS, alternates),
    ):
        if len(arms) < 2 or not court.there(*arms):
            continue
        fast = id == "fgsm-anomaly"  # whether FGSM's runs fail is the question: no gate, nor do PGD's runs tell how they vary
        court.add(
            id,
            "open question",
            "{} keeps a larger part of its clean accuracy on stylised images than {}".format(*map(label, arms)),
            minus(*(cubes.ratio(arm, style) for arm in arms)),
            UP,
            statistic=f"accuracy on stylised / on clean images, {' - '.join(arms)}",
            source=source,
            measure="ratio",
            arms=tuple(arms),
            gates=STYLISED if fast else (*STYLISED, *(f"robust-{a}" for a in arms)),
            pool=id if fast else "style-ratio",
            note=note,
        )
    for arm in p.headline if cubes.levels("conflict") else ():
        court.add(
            f"shape-bias/{arm}",
            "open question",
            f"{label(arm)} decides by shape more often than the standard network, where either cue decides",
            minus(shape_bias(cubes, arm), shape_bias(cubes, "standard")),
            UP,
            statistic="shape decisions / (shape + texture decisions), adversarial - standard",
            source=OURS,
            measure="share",
            arms=(arm, "standard"),
            gates=(f"robust-{arm}",),
        )
