"""Study 2's claims: what Zhang and Zhu say of adversarially trained CNNs, the controls, and what is left open."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from lib.claims import cubes as cubes_
from lib.claims.claim import Claim, Rule
from lib.claims.court import Book, noted
from lib.claims.intervals import Statistic, minus
from lib.studies.at_cnn.plan import Parameters, label

SOURCE = "Zhang and Zhu 2019"
OURS = "control of this study"
UP = Rule("above", 0.0)


@dataclass
class Cubes(cubes_.Cubes):
    """The table as arrays, and retention."""

    min_correct: int = 1

    def level(self, measure: str, which: int = 0) -> float:
        """The levels of a measure in ascending order, by position."""
        return self.levels(measure)[which]

    def few(self, *arms: str) -> str:
        """What to say where a retention of these arms rests on fewer right images than the 200 that are customary."""
        least = min(int(self.values[arm, "clean", 0.0].sum(1).min()) for arm in arms)
        return f"rests on {least} right images in the network with fewest, fewer than 200" if least < 200 else ""

    def retention(self, arm: str, measure: str, level: float) -> Statistic:
        """Right before and after over right before, mean over seeds; NaN where a network has too few right images."""
        before, after = self.values[arm, "clean", 0.0], self.values[arm, measure, level]
        enough = (before.sum(1) >= self.min_correct).all()

        def statistic(i: np.ndarray, s: np.ndarray) -> float:
            b, a = before[s][:, i], after[s][:, i]
            count = b.sum(1)
            if not enough or (count == 0).any():
                return float("nan")
            return float(((a * b).sum(1) / count).mean())

        return statistic


NO_UNDERFIT = (
    "Underfit exists in {} of {} seeds: in the others adversarial training costs no accuracy, there is nothing to stop"
)


@dataclass
class Rival:
    """What an adversarial arm is compared with, and under which kind and source such a comparison is filed."""

    arm: str
    suffix: str  # of the claims' ids
    kind: Literal["claim", "control"]
    source: str
    note: str = ""


def judge(table: pd.DataFrame, p: Parameters, *, test: bool = True) -> list[Claim]:
    """All claims from the table of measurements."""
    cubes = Cubes.of(table, p.min_correct)
    rows: list[Claim] = []

    def book(measure: str, seeds: int, testable: bool = True) -> Book:
        """A book for statistics over the images of one measure."""
        images = table.loc[table.measure == measure, "image_id"].nunique()
        return Book("02", images, seeds, p.variant, test and testable, rows)

    def against(rival: Rival, arm: str, cubes: Cubes, seeds: int, testable: bool = True) -> None:
        deciding = book("clean", seeds, testable)
        _contours(book("alignment", seeds, testable), cubes, arm, rival)
        _stylised(deciding, cubes, arm, rival)
        _saturated(deciding, cubes, arm, rival, p)
        _shuffled(deciding, cubes, arm, rival, p)

    for arm in p.headline:
        _robust(book("pgd", p.seeds), cubes, arm, p)
        against(Rival("standard", "", "claim", SOURCE), arm, cubes, p.seeds)
    if "underfit" in p.arms:
        seeds = _underfit_seeds(cubes, p)
        there = len(seeds) > 0
        note = NO_UNDERFIT.format(len(seeds), p.seeds) if len(seeds) < p.seeds else ""
        underfit = Rival("underfit", "/over-underfit", "control", OURS, note)
        own = cubes.of(table[table.seed.isin(seeds)], p.min_correct) if there else cubes
        count = len(seeds) if there else p.seeds
        against(underfit, p.headline[0], own, count, there)  # it is matched to the first
        _underfit(book("clean", count, there), own, underfit, p)
    _style(book("style-distance", 1), cubes)
    _open(book("clean", p.seeds), book("clean", 1), cubes, p)
    return rows


def _underfit_seeds(cubes: Cubes, p: Parameters) -> list[int]:
    """The seeds in which Underfit is a network of its own; in the others it is the standard one, and no control."""
    changed = [(m, v) for arm, m, v in cubes.values if arm == "standard" and m in ("clean", "saturation", "shuffle")]

    def same(seed: int) -> bool:
        return all((cubes.values["underfit", m, v][seed] == cubes.values["standard", m, v][seed]).all() for m, v in changed)

    return [seed for seed in range(p.seeds) if not same(seed)]


def _robust(book: Book, cubes: Cubes, arm: str, p: Parameters) -> None:
    level = cubes.level("pgd", min(2, len(p.robust_eps)))
    book.add(
        f"robust/{arm}",
        "control",
        f"{label(arm)} withstands PGD better than the standard network, as it was trained to",
        minus(cubes.mean(arm, "pgd", level), cubes.mean("standard", "pgd", level)),
        UP,
        statistic=f"accuracy under PGD-{p.robust_steps}, L-infinity {level:g}/255, adversarial - standard",
        source=OURS,
    )


CONTOURS = {
    "edges": ("follows the image's edges more", "rank correlation with Sobel's edges", 1),
    "mask": ("lies more inside the object", "share of the map inside the object's mask", 1),
    "tv": ("is less scattered", "total variation of the map", -1),
}


def _contours(book: Book, cubes: Cubes, arm: str, rival: Rival) -> None:
    """Claim (a): maps show contours, those of standard networks are scattered; the measures are ours."""
    source = f"{rival.source}, claim (a); the measure is ours" if rival.kind == "claim" else rival.source
    for name, (says, statistic, sign) in CONTOURS.items():
        key = f"smoothgrad/{name}"
        if (arm, key, 0.0) not in cubes.values:  # no masks
            continue
        mine, theirs = cubes.mean(arm, key), cubes.mean(rival.arm, key)
        book.add(
            f"contours-{name}/{arm}{rival.suffix}",
            rival.kind,
            f"SmoothGrad's map of {label(arm)} {says} than that of {rival.arm}",
            minus(mine, theirs) if sign > 0 else minus(theirs, mine),
            UP,
            statistic=f"{statistic}, {'adversarial - ' + rival.arm if sign > 0 else rival.arm + ' - adversarial'}",
            source=source,
            note=rival.note,
        )

    def own(which: str) -> Statistic:
        return minus(cubes.mean(which, "smoothgrad/edges"), cubes.mean(which, "smoothgrad/edges-other"))

    book.add(
        f"own-edges/{arm}{rival.suffix}",
        "control",
        f"What the map of {label(arm)} gains over {rival.arm} in edges is about its own image, not about where objects lie",
        minus(own(arm), own(rival.arm)),
        UP,
        statistic=f"agreement with own edges - with the next image's, adversarial - {rival.arm}",
        source=OURS,
        note=rival.note,
    )
    book.add(
        f"scatter/{arm}{rival.suffix}",
        "control",
        f"The map of {label(arm)} is smoother than that of {rival.arm} for its own distribution of values",
        minus(cubes.mean(rival.arm, "smoothgrad/scatter"), cubes.mean(arm, "smoothgrad/scatter")),
        UP,
        statistic=f"total variation / that of the same pixels permuted, {rival.arm} - adversarial",
        source=OURS,
        note=rival.note or "total variation alone also falls when a map is sparser",
    )
    book.add(
        f"alignment/{arm}{rival.suffix}",
        rival.kind,
        f"The gradient of {label(arm)} is better aligned with the image than that of {rival.arm}",
        minus(cubes.mean(arm, "alignment"), cubes.mean(rival.arm, "alignment")),
        UP,
        statistic=f"|<x, g>| / ||g|| of the winning logit, adversarial - {rival.arm}",
        source=f"{SOURCE}, claim (a); the measure is Etmann et al.'s (2019)" if rival.kind == "claim" else source,
        note=rival.note,
    )


CHANGES = {"style": "stylised (AdaIN)", "fourier": "Fourier-swapped", "conflict": "cue-conflict"}


def _stylised(book: Book, cubes: Cubes, arm: str, rival: Rival) -> None:
    """Claim (b): absolute accuracy on stylised images, and two other changes of texture as controls."""
    for measure, what in CHANGES.items():
        if not any(m == measure for _, m, _ in cubes.values):
            continue
        level, scored = cubes.level(measure), "shape" if measure == "conflict" else "class"
        claimed = measure == "style" and rival.kind == "claim"
        book.add(
            f"{measure}/{arm}{rival.suffix}",
            "claim" if claimed else "control",
            f"{label(arm)} is more accurate than {rival.arm} on {what} images",
            minus(cubes.mean(arm, measure, level), cubes.mean(rival.arm, measure, level)),
            UP,
            statistic=f"accuracy in the {scored} on {what} images, adversarial - {rival.arm}",
            source=f"{SOURCE}, claim (b)" if claimed else OURS,
            note=rival.note,
        )


def _saturated(book: Book, cubes: Cubes, arm: str, rival: Rival, p: Parameters) -> None:
    """Claim (c): retention under saturation, at the largest p and its growth with p."""
    beyond = [q for q in p.saturation if q > 2]
    if not beyond:  # all levels turn images grey
        return
    top, low = max(beyond), min(beyond)

    def gap(level: float) -> Statistic:
        return minus(cubes.retention(arm, "saturation", level), cubes.retention(rival.arm, "saturation", level))

    source = f"{SOURCE}, claim (c)" if rival.kind == "claim" else rival.source
    book.add(
        f"saturated/{arm}{rival.suffix}",
        rival.kind,
        f"{label(arm)} retains more than {rival.arm} on saturated images, p = {top:g}",
        gap(top),
        UP,
        statistic=f"retention at p = {top:g}, adversarial - {rival.arm}",
        source=source,
        note=noted(rival.note, cubes.few(arm, rival.arm)),
    )
    if low < top and rival.kind == "claim":
        book.add(
            f"saturated-grows/{arm}",
            "claim",
            f"The gap between {label(arm)} and standard grows with saturation",
            minus(gap(top), gap(low)),
            UP,
            statistic=f"retention gap at p = {top:g} - at p = {low:g}",
            source=source,
            note=cubes.few(arm, rival.arm) or "standard retains so little at large p that the gap can close from below",
        )


def _shuffled(book: Book, cubes: Cubes, arm: str, rival: Rival, p: Parameters) -> None:
    """Claim (d): retention under patch shuffle is lower, the more so the more patches; k = 2 is often mixed: left open."""

    def gap(k: float) -> Statistic:
        return minus(cubes.retention(rival.arm, "shuffle", k), cubes.retention(arm, "shuffle", k))

    source = f"{SOURCE}, claim (d)" if rival.kind == "claim" else rival.source
    for k in p.shuffle:
        book.add(
            f"shuffled-{k}/{arm}{rival.suffix}",
            "open question" if k < 4 else rival.kind,
            f"{label(arm)} retains less than {rival.arm} under {k} x {k} patch shuffle",
            gap(k),
            UP,
            statistic=f"retention at k = {k}, {rival.arm} - adversarial",
            source=source,
            note=noted(rival.note, cubes.few(arm, rival.arm)),
        )
    low, top = min(p.shuffle), max(p.shuffle)
    if low < top and rival.kind == "claim":
        book.add(
            f"shuffled-grows/{arm}",
            "open question",
            f"The gap between standard and {label(arm)} grows with k",
            minus(gap(top), gap(low)),
            UP,
            statistic=f"retention gap at k = {top} - at k = {low}",
            source=source,
            note=cubes.few(arm, rival.arm) or "both fall towards chance, which closes the gap",
        )


def _underfit(book: Book, cubes: Cubes, underfit: Rival, p: Parameters) -> None:
    """The control that the paper has: accuracy is lower, and nothing else follows."""
    first = p.headline[0]
    book.add(
        "underfit-matched",
        "control",
        f"The search for Underfit found a network as accurate as {label(first)} on clean images",
        minus(cubes.mean("underfit", "clean"), cubes.mean(first, "clean")),
        Rule("within", 0.03),
        statistic="clean accuracy, underfit - adversarial, on the images it was matched on",
        source=OURS,
        note=underfit.note,
    )
    style = cubes.level("style")
    book.add(
        "underfit-style",
        "claim",
        "Underfit gains nothing on stylised images over standard",
        minus(cubes.mean("underfit", "style", style), cubes.mean("standard", "style", style)),
        Rule("below", 0.02),
        statistic="accuracy on stylised images, underfit - standard",
        source=f"{SOURCE}, table; the tolerance is ours",
        note=underfit.note,
    )
    top = max(p.saturation)
    book.add(
        "underfit-saturated",
        "control",
        f"Underfit gains nothing on saturated images over standard, p = {top:g}",
        minus(cubes.retention("underfit", "saturation", top), cubes.retention("standard", "saturation", top)),
        Rule("below", 0.02),
        statistic=f"retention at p = {top:g}, underfit - standard",
        source=OURS,
        note=noted(underfit.note, cubes.few("underfit", "standard")),
    )


def _style(book: Book, cubes: Cubes) -> None:
    """Does the stylisation do what it says?"""
    before, after, others = (cubes.mean("edges", "style-distance", level) for level in (0.0, 1.0, 2.0))
    book.add(
        "style-matched",
        "control",
        "Stylised images have the statistics of their style: the distance is less than half",
        lambda i, s: after(i, s) / before(i, s),
        Rule("below", 0.5),
        statistic="distance of channel means and deviations to the style's, stylised / as they are",
        source=OURS,
        note="these statistics are what the decoder was trained on; the next row asks for more",
    )
    book.add(
        "style-own",
        "control",
        "Stylised images are nearer to their own style than to another image's",
        minus(others, after),
        UP,
        statistic="distance to the next image's style - to its own",
        source=OURS,
    )
    book.add(
        "shape-kept",
        "control",
        "Shape survives: a classifier of edges alone, which never saw a style, keeps nine of ten images that it knew",
        cubes.retention("edges", "style", cubes.level("style")),
        Rule("above", 0.9),
        statistic="retention on stylised images of a classifier of edges alone",
        source=OURS,
        note="where this is contradicted, part of what networks lose on stylised images is shape, not texture",
    )


def _open(book: Book, single: Book, cubes: Cubes, p: Parameters) -> None:
    """Readings of the published table that rest on one training run an arm there: reported, not asserted."""
    style = cubes.level("style")

    def ratio(arm: str) -> Statistic:
        stylised, clean = cubes.mean(arm, "style", style), cubes.mean(arm, "clean")
        return lambda i, s: stylised(i, s) / max(clean(i, s), 1e-9)

    def add(to: Book, id: str, statement: str, a: str, b: str, note: str, source: str = f"{SOURCE}, table") -> None:
        if a in p.arms and b in p.arms:
            to.add(
                id,
                "open question",
                statement,
                minus(ratio(a), ratio(b)),
                UP,
                statistic=f"stylised / clean accuracy, {a} - {b}",
                source=source,
                note=note,
            )

    by_eps = sorted((a for a in p.arms if a.startswith("linf-") and "@" not in a), key=lambda a: float(a[5:]))
    if len(by_eps) > 1:
        says = "The ratio of stylised to clean accuracy is higher at the largest eps than at the smallest"
        add(single, "ratio-rises", says, by_eps[-1], by_eps[0], "one seed: the order of arms is not settled by it")
    linf = [a for a in p.headline if a.startswith("linf")]
    l2 = [a for a in p.headline if a.startswith("l2")]
    if linf and l2:
        add(book, "l2-over-linf", "L2 has a higher ratio of stylised to clean accuracy than L-infinity", l2[0], linf[0], "")
    note = "the table's Tiny-ImageNet column: consistent with catastrophic overfitting, or with swapped labels"
    add(single, "fgsm-anomaly", "FGSM of radius 4 has a higher ratio than FGSM of radius 8", "fgsm-4", "fgsm-8", note)
    full = f"{p.headline[0]}@1"
    note = "the paper's equation is pure min-max, its code alternates"
    says = "Adversarial batches alone give a higher ratio than every second one"
    add(single, "full-share", says, full, p.headline[0], note, OURS)
    if ("standard", "conflict", 1.0) in cubes.values:
        for arm in p.headline:
            book.add(
                f"shape-bias/{arm}",
                "open question",
                f"{label(arm)} decides by shape more often than standard does",
                minus(_shape_bias(cubes, arm), _shape_bias(cubes, "standard")),
                UP,
                statistic="shape decisions / (shape + texture decisions), adversarial - standard",
                source=OURS,
            )


def _shape_bias(cubes: Cubes, arm: str) -> Statistic:
    """Geirhos et al. 2019: of decisions for either cue, the share for the shape."""
    shape, texture = cubes.mean(arm, "conflict", 1.0), cubes.mean(arm, "conflict-texture", 1.0)

    def statistic(i: np.ndarray, s: np.ndarray) -> float:
        a, b = shape(i, s), texture(i, s)
        return a / (a + b) if a + b > 0 else float("nan")

    return statistic
