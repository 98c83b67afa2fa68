"""Study 2's claims: what Zhang and Zhu say of adversarially trained CNNs, the controls, and what is left open."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lib.at_cnn import Parameters, label, seeds_of
from lib.claims import Book, Claim, Rule

SOURCE = "Zhang and Zhu 2019"
OURS = "control of this study"
UP = Rule("above", 0.0)
Statistic = Callable[[np.ndarray, np.ndarray], float]


@dataclass
class Cubes:
    """The table as arrays (seed, image), one a (arm, measure, level)."""

    values: dict[tuple[str, str, float], np.ndarray]
    min_correct: int

    @classmethod
    def of(cls, table: pd.DataFrame, min_correct: int) -> "Cubes":
        found = {}
        for (arm, measure, level), part in table.groupby(["arm", "measure", "level"], observed=True):
            part = part.sort_values(["seed", "image_id"])
            found[arm, measure, level] = part.value.to_numpy().reshape(part.seed.nunique(), -1)
        return cls(found, min_correct)

    def level(self, measure: str, which: int = 0) -> float:
        """The levels of a measure in ascending order, by position."""
        return sorted({v for _, m, v in self.values if m == measure})[which]

    def mean(self, arm: str, measure: str, level: float = 0.0) -> Statistic:
        """The mean over the images and seeds that have a value (a map without contrast has no edge agreement)."""
        values = self.values[arm, measure, level]

        def statistic(i: np.ndarray, s: np.ndarray) -> float:
            chosen = values[s][:, i]
            chosen = chosen[np.isfinite(chosen)]
            return float(chosen.mean()) if len(chosen) else float("nan")

        return statistic

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


def minus(a: Statistic, b: Statistic) -> Statistic:
    return lambda i, s: a(i, s) - b(i, s)


def judge(table: pd.DataFrame, p: Parameters, *, test: bool = True) -> list[Claim]:
    """All claims from the table of measurements."""
    cubes = Cubes.of(table, p.min_correct)
    rows: list[Claim] = []

    def book(measure: str, seeds: int) -> Book:
        """A book for statistics over the images of one measure."""
        images = table.loc[table.measure == measure, "image_id"].nunique()
        return Book("02", images, seeds, p.variant, test, rows)

    deciding, explained, attacked = (book(m, p.seeds) for m in ("clean", "alignment", "pgd"))
    for arm in p.headline:
        _robust(attacked, cubes, arm, p)
        _contours(explained, cubes, arm, p)
        _stylised(deciding, cubes, arm, p)
        _saturated(deciding, cubes, arm, p)
        _shuffled(deciding, cubes, arm, p)
    _underfit(deciding, cubes, p)
    _style(book("style-distance", 1), cubes, p)
    _open(deciding, book("clean", 1), cubes, p)
    return rows


def _rivals(p: Parameters) -> list[tuple[str, str, str, str]]:
    """What an arm is compared with: name in ids, arm, kind of the claim, source."""
    found = [("", "standard", "claim", SOURCE)]
    return found + ([("/over-underfit", "underfit", "control", OURS)] if "underfit" in p.arms else [])


def _robust(book: Book, cubes: Cubes, arm: str, p: Parameters) -> None:
    level = cubes.level("pgd", min(2, len(p.robust_eps)))
    book.add(
        f"robust/{arm}", "control", f"{label(arm)} withstands PGD better than the standard network, as it was trained to",
        minus(cubes.mean(arm, "pgd", level), cubes.mean("standard", "pgd", level)), UP,
        statistic=f"accuracy under PGD-{p.robust_steps}, L-infinity {level:g}/255, adversarial - standard", source=OURS,
    )  # fmt: skip


CONTOURS = {
    "edges": ("follows the image's edges more", "rank correlation with Sobel's edges", 1),
    "mask": ("lies more inside the object", "share of the map inside the object's mask", 1),
    "tv": ("is less scattered", "total variation of the map", -1),
}


def _contours(book: Book, cubes: Cubes, arm: str, p: Parameters) -> None:
    """Claim (a): maps show contours, those of standard networks are scattered; the measures are ours."""
    for suffix, rival, kind, source in _rivals(p):
        for name, (says, statistic, sign) in CONTOURS.items():
            key = f"smoothgrad/{name}"
            if (arm, key, 0.0) not in cubes.values:  # no masks
                continue
            mine, theirs = cubes.mean(arm, key), cubes.mean(rival, key)
            book.add(
                f"contours-{name}/{arm}{suffix}", kind, f"SmoothGrad's map of {label(arm)} {says} than that of {rival}",
                minus(mine, theirs) if sign > 0 else minus(theirs, mine), UP,
                statistic=f"{statistic}, {'adversarial - ' + rival if sign > 0 else rival + ' - adversarial'}",
                source=f"{source}, claim (a); the measure is ours" if kind == "claim" else source,
            )  # fmt: skip
        book.add(
            f"alignment/{arm}{suffix}", kind, f"The gradient of {label(arm)} aligns better with the image than {rival}'s",
            minus(cubes.mean(arm, "alignment"), cubes.mean(rival, "alignment")), UP,
            statistic=f"|<x, g>| / ||g|| of the winning logit, adversarial - {rival}",
            source=f"{source}, claim (a); the measure is Etmann et al.'s (2019)" if kind == "claim" else source,
        )  # fmt: skip
    book.add(
        f"own-edges/{arm}", "control", f"The map of {label(arm)} follows the edges of its own image more than another's",
        minus(cubes.mean(arm, "smoothgrad/edges"), cubes.mean(arm, "smoothgrad/edges-other")), UP,
        statistic="rank correlation with own edges - with the edges of another image", source=OURS,
    )  # fmt: skip


def _stylised(book: Book, cubes: Cubes, arm: str, p: Parameters) -> None:
    """Claim (b): absolute accuracy on stylised images, and two other changes of texture."""
    changes = {
        "style": ("stylised (AdaIN)", "claim"),
        "fourier": ("Fourier-swapped", "control"),
        "conflict": ("cue-conflict", "control"),
    }
    for suffix, rival, kind, source in _rivals(p):
        for measure, (what, own_kind) in changes.items():
            if not any(m == measure for _, m, _ in cubes.values):
                continue
            level = cubes.level(measure)
            chosen, scored = (kind if own_kind == "claim" else "control"), ("shape" if measure == "conflict" else "class")
            book.add(
                f"{measure}/{arm}{suffix}", chosen, f"{label(arm)} is more accurate than {rival} on {what} images",
                minus(cubes.mean(arm, measure, level), cubes.mean(rival, measure, level)), UP,
                statistic=f"accuracy in the {scored} on {what} images, adversarial - {rival}",
                source=f"{source}, claim (b)" if chosen == "claim" else OURS,
            )  # fmt: skip


def _saturated(book: Book, cubes: Cubes, arm: str, p: Parameters) -> None:
    """Claim (c): retention under saturation, at the largest p and its growth with p."""
    top, low = max(p.saturation), min(q for q in p.saturation if q > 2 or q == max(p.saturation))

    def gap(rival: str, level: float) -> Statistic:
        return minus(cubes.retention(arm, "saturation", level), cubes.retention(rival, "saturation", level))

    for suffix, rival, kind, source in _rivals(p):
        book.add(
            f"saturated/{arm}{suffix}", kind, f"{label(arm)} retains more than {rival} on saturated images, p = {top:g}",
            gap(rival, top), UP, statistic=f"retention at p = {top:g}, adversarial - {rival}",
            source=f"{source}, claim (c)" if kind == "claim" else source,
        )  # fmt: skip
    if low < top:
        book.add(
            f"saturated-grows/{arm}", "claim", f"The gap between {label(arm)} and standard grows with saturation",
            minus(gap("standard", top), gap("standard", low)), UP,
            statistic=f"retention gap at p = {top:g} - at p = {low:g}", source=f"{SOURCE}, claim (c)",
            note="standard retains so little at large p that the gap can close from below",
        )  # fmt: skip


def _shuffled(book: Book, cubes: Cubes, arm: str, p: Parameters) -> None:
    """Claim (d): retention under patch shuffle is lower; k = 2 is often mixed and is left open."""
    for suffix, rival, kind, source in _rivals(p):
        for k in p.shuffle:
            chosen = "open question" if k < 4 else kind
            book.add(
                f"shuffled-{k}/{arm}{suffix}", chosen, f"{label(arm)} retains less than {rival} under {k} x {k} patch shuffle",
                minus(cubes.retention(rival, "shuffle", k), cubes.retention(arm, "shuffle", k)), UP,
                statistic=f"retention at k = {k}, {rival} - adversarial",
                source=f"{source}, claim (d)" if kind == "claim" else source,
            )  # fmt: skip


def _underfit(book: Book, cubes: Cubes, p: Parameters) -> None:
    """The control that the paper has: accuracy is lower, and nothing else follows."""
    if "underfit" not in p.arms:
        return
    first = p.headline[0]
    clean = minus(cubes.mean("underfit", "clean"), cubes.mean(first, "clean"))
    book.add(
        "underfit-matched", "control", f"Underfit and {label(first)} are equally accurate on clean images",
        clean, Rule("within", 0.03), statistic="clean accuracy, underfit - adversarial", source=OURS,
    )  # fmt: skip
    style, top = cubes.level("style"), max(p.saturation)
    book.add(
        "underfit-style", "claim", "Underfit gains nothing on stylised images over standard",
        minus(cubes.mean("underfit", "style", style), cubes.mean("standard", "style", style)), Rule("below", 0.02),
        statistic="accuracy on stylised images, underfit - standard", source=f"{SOURCE}, table; the tolerance is ours",
    )  # fmt: skip
    book.add(
        "underfit-saturated", "control", f"Underfit gains nothing on saturated images over standard, p = {top:g}",
        minus(cubes.retention("underfit", "saturation", top), cubes.retention("standard", "saturation", top)),
        Rule("below", 0.02), statistic=f"retention at p = {top:g}, underfit - standard", source=OURS,
    )  # fmt: skip


def _style(book: Book, cubes: Cubes, p: Parameters) -> None:
    """Does the stylisation do what it says?"""
    before, after = (cubes.mean("edges", "style-distance", level) for level in (0.0, 1.0))
    book.add(
        "style-matched", "control", "Stylised images have the statistics of their style: the distance is less than half",
        lambda i, s: after(i, s) / before(i, s), Rule("below", 0.5),
        statistic="distance of channel means and deviations to the style's, stylised / as they are", source=OURS,
    )  # fmt: skip
    level = cubes.level("style")
    seen, standard = cubes.retention("edges", "style", level), cubes.values["standard", "clean", 0.0][:1]
    painted = cubes.values["standard", "style", level][:1]

    def network(i: np.ndarray, s: np.ndarray) -> float:
        return float((standard[:, i] * painted[:, i]).sum() / max(standard[:, i].sum(), 1))

    book.add(
        "shape-kept", "control",
        "Shape survives: a classifier of edges alone, which never saw a style, retains more than the standard network",
        minus(seen, network), UP, statistic="retention on stylised images, edges alone - standard (seed 0)", source=OURS,
    )  # fmt: skip


def _open(book: Book, single: Book, cubes: Cubes, p: Parameters) -> None:
    """Readings of the published table that rest on one training run an arm there: reported, not asserted."""
    style = cubes.level("style")

    def ratio(arm: str) -> Statistic:
        stylised, clean = cubes.mean(arm, "style", style), cubes.mean(arm, "clean")
        return lambda i, s: stylised(i, s) / max(clean(i, s), 1e-9)

    def add(to: Book, id: str, statement: str, a: str, b: str, note: str) -> None:
        if a in p.arms and b in p.arms:
            to.add(
                id, "open question", statement, minus(ratio(a), ratio(b)), UP,
                statistic=f"stylised / clean accuracy, {a} - {b}", source=f"{SOURCE}, table", note=note,
            )  # fmt: skip

    by_eps = sorted((a for a in p.arms if a.startswith("linf-") and "@" not in a), key=lambda a: float(a[5:]))
    if len(by_eps) > 1:
        note = "one seed: the order of arms is not settled by it"
        add(single, "ratio-rises", "The ratio of stylised to clean accuracy rises with eps", by_eps[-1], by_eps[0], note)
    linf = [a for a in p.headline if a.startswith("linf")]
    l2 = [a for a in p.headline if a.startswith("l2")]
    if linf and l2:
        add(book, "l2-over-linf", "L2 has a higher ratio of stylised to clean accuracy than L-infinity", l2[0], linf[0], "")
    note = "the table's Tiny-ImageNet column: consistent with catastrophic overfitting, or with swapped labels"
    add(single, "fgsm-anomaly", "FGSM of radius 4 has a higher ratio than FGSM of radius 8", "fgsm-4", "fgsm-8", note)
    full = f"{p.headline[0]}@1"
    note = "the paper's equation is pure min-max, its code alternates"
    add(single, "full-share", "Adversarial batches alone give a higher ratio than every second one", full, p.headline[0], note)
    if ("standard", "conflict", 1.0) in cubes.values:
        for arm in p.headline:
            book.add(
                f"shape-bias/{arm}", "open question", f"{label(arm)} decides by shape more often than standard does",
                minus(_shape_bias(cubes, arm), _shape_bias(cubes, "standard")), UP,
                statistic="shape decisions / (shape + texture decisions), adversarial - standard", source=OURS,
            )  # fmt: skip


def _shape_bias(cubes: Cubes, arm: str) -> Statistic:
    """Geirhos et al. 2019: of decisions for either cue, the share for the shape."""
    shape, texture = cubes.mean(arm, "conflict", 1.0), cubes.mean(arm, "conflict-texture", 1.0)

    def statistic(i: np.ndarray, s: np.ndarray) -> float:
        a, b = shape(i, s), texture(i, s)
        return a / (a + b) if a + b > 0 else float("nan")

    return statistic


def seeds_are_there(table: pd.DataFrame, p: Parameters) -> bool:
    """Whether every arm was measured with all its seeds."""
    found = table.groupby("arm", observed=True).seed.nunique()
    return all(found.get(arm, 0) == seeds_of(p, arm) for arm in p.arms)
