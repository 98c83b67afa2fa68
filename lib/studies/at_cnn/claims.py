"""Study 2's claims: what Zhang and Zhu say of adversarially trained CNNs, the controls, and what is left open."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import pandas as pd

from lib.claims.claim import Claim, Kind, Rule
from lib.claims.court import OURS, Court, noted
from lib.claims.intervals import Statistic, minus
from lib.studies.at_cnn.plan import EDGES, Parameters, label, seeds_of
from lib.studies.at_cnn.statistics import Cubes, shape_bias

SOURCE = "Zhang and Zhu 2019"
UP = Rule("above", 0.0)
NO_UNDERFIT = (
    "Underfit exists in {} of {} seeds: in the others adversarial training costs no accuracy, there is nothing to stop"
)
CONTOURS = {
    "edges": ("follows the image's edges more", "rank correlation with Sobel's edges", 1),
    "mask": ("lies more inside the object", "share of the map inside the object's mask", 1),
    "tv": ("is less scattered", "total variation of the map", -1),
}
CHANGES = {"style": "stylised (AdaIN)", "fourier": "Fourier-swapped", "conflict": "cue-conflict"}
Row = tuple[str, Kind, str, Statistic, str, str, str]  # id, kind, statement, its statistic and that in words, source, note


class Rival(NamedTuple):
    """What an adversarial arm is compared with; the paper's claims are about `standard`, all else is a control of ours."""

    arm: str = "standard"
    kind: Kind = "claim"
    note: str = ""

    def source(self, claim: str) -> str:
        return f"{SOURCE}, {claim}" if self.kind == "claim" else OURS


def primaries(p: Parameters) -> tuple[str, ...]:
    """The ids of the paper's claims for its first adversarial network: contours, stylised, saturated and shuffled images."""
    return tuple(f"{id}/{p.headline[0]}" for id in ("contours-edges", "style-ratio", "saturated", "shuffled-4"))


def judge(table: pd.DataFrame, p: Parameters, *, test: bool = True) -> list[Claim]:
    """All claims from the table of measurements."""
    court = Court("02", p, Cubes.of(table, p.min_correct), test, functools.partial(seeds_of, p))
    for arm in p.headline:
        _robust(court, arm)
        _against(court.within(arm), arm, Rival())
    if "underfit" in p.arms:
        first = p.headline[0]  # it is matched to the first
        seeds = _underfit_seeds(court.cubes, p)
        rival = Rival("underfit", "control", NO_UNDERFIT.format(len(seeds), p.seeds) if len(seeds) < p.seeds else "")
        own = court.within("", seeds=p.seeds, test=False)  # without such a network nothing is judged
        if seeds:
            own = court.within("", cubes=Cubes.of(table[table.seed.isin(seeds)], p.min_correct), seeds=len(seeds))
        _against(own.within(f"{first}/over-underfit"), first, rival)
        _underfit(own.within("", over="clean"), first, rival.note)
    _style(court.within("", over="style-distance"))
    _open(court.within("", over="clean"))
    return court.rows


def _underfit_seeds(cubes: Cubes, p: Parameters) -> list[int]:
    """The seeds in which Underfit is a network of its own; in the others it is the standard one, and no control."""
    changed = [(m, v) for arm, m, v in cubes.values if arm == "standard" and m in ("clean", "saturation", "shuffle")]

    def same(seed: int) -> bool:
        return all((cubes.values["underfit", m, v][seed] == cubes.values["standard", m, v][seed]).all() for m, v in changed)

    return [seed for seed in range(p.seeds) if not same(seed)]


def _robust(court: Court, arm: str) -> None:
    cubes, level = court.cubes, court.cubes.level("pgd", min(2, len(court.p.robust_eps)))
    court.add(
        f"robust/{arm}",
        "control",
        f"{label(arm)} withstands PGD better than the standard network, as it was trained to",
        minus(cubes.mean(arm, "pgd", level), cubes.mean("standard", "pgd", level)),
        UP,
        statistic=f"accuracy under PGD-{court.p.robust_steps}, L-infinity {level:g}/255, adversarial - standard",
        source=OURS,
        over="pgd",
        arms=(arm, "standard"),
    )


def _against(court: Court, arm: str, rival: Rival) -> None:
    """What the paper says of an adversarial arm, beside a rival."""
    for measure, part in (("alignment", _contours), ("clean", _stylised), ("clean", _saturated), ("clean", _shuffled)):
        for id, kind, statement, compute, statistic, source, note in part(court.cubes, arm, rival, court.p):
            court.add(
                id,
                kind,
                statement,
                compute,
                UP,
                statistic=statistic,
                source=source,
                over=measure,
                arms=(arm, rival.arm),
                note=noted(rival.note, note),
            )


def _contours(cubes: Cubes, arm: str, rival: Rival, p: Parameters) -> Iterator[Row]:
    """Claim (a): maps show contours, those of standard networks are scattered; the measures are ours."""
    mine, theirs = (functools.partial(cubes.mean, one) for one in (arm, rival.arm))
    for name, (says, statistic, sign) in CONTOURS.items():
        key = f"smoothgrad/{name}"
        if (arm, key, 0.0) not in cubes.values:  # no masks
            continue
        yield (
            f"contours-{name}",
            rival.kind,
            f"SmoothGrad's map of {label(arm)} {says} than that of {rival.arm}",
            minus(mine(key), theirs(key)) if sign > 0 else minus(theirs(key), mine(key)),
            f"{statistic}, {f'adversarial - {rival.arm}' if sign > 0 else f'{rival.arm} - adversarial'}",
            rival.source("claim (a); the measure is ours"),
            "",
        )
    own, other = (minus(of("smoothgrad/edges"), of("smoothgrad/edges-other")) for of in (mine, theirs))
    yield (
        "own-edges",
        "control",
        f"What the map of {label(arm)} gains over {rival.arm} in edges is about its own image, not about where objects lie",
        minus(own, other),
        f"agreement with own edges - with the next image's, adversarial - {rival.arm}",
        OURS,
        "",
    )
    yield (
        "scatter",
        "control",
        f"The map of {label(arm)} is smoother than that of {rival.arm} for its own distribution of values",
        minus(theirs("smoothgrad/scatter"), mine("smoothgrad/scatter")),
        f"total variation / that of the same pixels permuted, {rival.arm} - adversarial",
        OURS,
        "" if rival.note else "total variation alone also falls when a map is sparser",
    )
    yield (
        "alignment",
        rival.kind,
        f"The gradient of {label(arm)} is better aligned with the image than that of {rival.arm}",
        minus(mine("alignment"), theirs("alignment")),
        f"|<x, g>| / ||g|| of the winning logit, adversarial - {rival.arm}",
        rival.source("claim (a); the measure is Etmann et al.'s (2019)"),
        "",
    )


def _stylised(cubes: Cubes, arm: str, rival: Rival, p: Parameters) -> Iterator[Row]:
    """Claim (b): absolute accuracy on stylised images, and two other changes of texture as controls."""
    for measure, what in CHANGES.items():
        if not cubes.levels(measure):
            continue
        level, scored = cubes.level(measure), "shape" if measure == "conflict" else "class"
        yield (
            measure,
            rival.kind if measure == "style" else "control",
            f"{label(arm)} is more accurate than {rival.arm} on {what} images",
            minus(cubes.mean(arm, measure, level), cubes.mean(rival.arm, measure, level)),
            f"accuracy in the {scored} on {what} images, adversarial - {rival.arm}",
            rival.source("claim (b)") if measure == "style" else OURS,
            "",
        )


def _saturated(cubes: Cubes, arm: str, rival: Rival, p: Parameters) -> Iterator[Row]:
    """Claim (c): retention under saturation, at the largest p and its growth with p."""
    beyond = [q for q in p.saturation if q > 2]
    if not beyond:  # all levels turn images grey
        return
    top, low, few = max(beyond), min(beyond), cubes.few(arm, rival.arm)

    def gap(level: float) -> Statistic:
        return minus(cubes.retention(arm, "saturation", level), cubes.retention(rival.arm, "saturation", level))

    yield (
        "saturated",
        rival.kind,
        f"{label(arm)} retains more than {rival.arm} on saturated images, p = {top:g}",
        gap(top),
        f"retention at p = {top:g}, adversarial - {rival.arm}",
        rival.source("claim (c)"),
        few,
    )
    if low < top and rival.kind == "claim":
        yield (
            "saturated-grows",
            "claim",
            f"The gap between {label(arm)} and standard grows with saturation",
            minus(gap(top), gap(low)),
            f"retention gap at p = {top:g} - at p = {low:g}",
            rival.source("claim (c)"),
            few or "standard retains so little at large p that the gap can close from below",
        )


def _shuffled(cubes: Cubes, arm: str, rival: Rival, p: Parameters) -> Iterator[Row]:
    """Claim (d): retention under patch shuffle is lower, the more so the more patches; k = 2 is often mixed: left open."""
    few = cubes.few(arm, rival.arm)

    def gap(k: float) -> Statistic:
        return minus(cubes.retention(rival.arm, "shuffle", k), cubes.retention(arm, "shuffle", k))

    for k in p.shuffle:
        yield (
            f"shuffled-{k}",
            "open question" if k < 4 else rival.kind,
            f"{label(arm)} retains less than {rival.arm} under {k} x {k} patch shuffle",
            gap(k),
            f"retention at k = {k}, {rival.arm} - adversarial",
            rival.source("claim (d)"),
            few,
        )
    low, top = min(p.shuffle), max(p.shuffle)
    if low < top and rival.kind == "claim":
        yield (
            "shuffled-grows",
            "open question",
            f"The gap between standard and {label(arm)} grows with k",
            minus(gap(top), gap(low)),
            f"retention gap at k = {top} - at k = {low}",
            rival.source("claim (d)"),
            few or "both fall towards chance, which closes the gap",
        )


def _underfit(court: Court, first: str, note: str) -> None:
    """The control that the paper has: accuracy is lower, and nothing else follows."""
    cubes, style, top = court.cubes, court.cubes.level("style"), max(court.p.saturation)
    for id, kind, statement, compute, rule, statistic, source, more in (
        (
            "underfit-matched",
            "control",
            f"The search for Underfit found a network as accurate as {label(first)} on clean images",
            minus(cubes.mean("underfit", "clean"), cubes.mean(first, "clean")),
            Rule("within", 0.03),
            "clean accuracy, underfit - adversarial, on the images it was matched on",
            OURS,
            "",
        ),
        (
            "underfit-style",
            "claim",
            "Underfit gains nothing on stylised images over standard",
            minus(cubes.mean("underfit", "style", style), cubes.mean("standard", "style", style)),
            Rule("below", 0.02),
            "accuracy on stylised images, underfit - standard",
            f"{SOURCE}, table; the tolerance is ours",
            "",
        ),
        (
            "underfit-saturated",
            "control",
            f"Underfit gains nothing on saturated images over standard, p = {top:g}",
            minus(cubes.retention("underfit", "saturation", top), cubes.retention("standard", "saturation", top)),
            Rule("below", 0.02),
            f"retention at p = {top:g}, underfit - standard",
            OURS,
            cubes.few("underfit", "standard"),
        ),
    ):
        court.add(id, kind, statement, compute, rule, statistic=statistic, source=source, note=noted(note, more))


def _style(court: Court) -> None:
    """Does the stylisation do what it says?"""
    cubes = court.cubes
    before, after, others = (cubes.mean(EDGES, "style-distance", level) for level in (0.0, 1.0, 2.0))
    for id, statement, compute, rule, statistic, note in (
        (
            "style-matched",
            "Stylised images have the statistics of their style: the distance is less than half",
            lambda i, s: after(i, s) / before(i, s),
            Rule("below", 0.5),
            "distance of channel means and deviations to the style's, stylised / as they are",
            "these statistics are what the decoder was trained on; the next row asks for more",
        ),
        (
            "style-own",
            "Stylised images are nearer to their own style than to another image's",
            minus(others, after),
            UP,
            "distance to the next image's style - to its own",
            "",
        ),
        (
            "shape-kept",
            "Shape survives: a classifier of edges alone, which never saw a style, keeps nine of ten images that it knew",
            cubes.retention(EDGES, "style", cubes.level("style")),
            Rule("above", 0.9),
            "retention on stylised images of a classifier of edges alone",
            "where this is contradicted, part of what networks lose on stylised images is shape, not texture",
        ),
    ):
        court.add(id, "control", statement, compute, rule, statistic=statistic, source=OURS, arms=(EDGES,), note=note)


def _open(court: Court) -> None:
    """Readings of the published table that rest on one training run an arm there: reported, not asserted."""
    p, cubes, style = court.p, court.cubes, court.cubes.level("style")

    def ratio(arm: str) -> Statistic:
        stylised, clean = cubes.mean(arm, "style", style), cubes.mean(arm, "clean")
        return lambda i, s: stylised(i, s) / max(clean(i, s), 1e-9)

    by_eps = sorted((a for a in p.arms if a.startswith("linf-") and "@" not in a), key=lambda a: float(a[5:]))
    linf, l2 = ([a for a in p.headline if a.startswith(kind)][:1] for kind in ("linf", "l2"))
    table = f"{SOURCE}, table"
    rows = [
        (
            "ratio-rises",
            "The ratio of stylised to clean accuracy is higher at the largest eps than at the smallest",
            [by_eps[-1], by_eps[0]] if len(by_eps) > 1 else [],
            1,
            table,
            "one seed: the order of arms is not settled by it",
        ),
        ("l2-over-linf", "L2 has a higher ratio of stylised to clean accuracy than L-infinity", l2 + linf, p.seeds, table, ""),
        (
            "fgsm-anomaly",
            "FGSM of radius 4 has a higher ratio than FGSM of radius 8",
            ["fgsm-4", "fgsm-8"],
            1,
            table,
            "the table's Tiny-ImageNet column: consistent with catastrophic overfitting, or with swapped labels",
        ),
        (
            "full-share",
            "Adversarial batches alone give a higher ratio than every second one",
            [f"{p.headline[0]}@1", p.headline[0]],
            1,
            OURS,
            "the paper's equation is pure min-max, its code alternates",
        ),
    ]
    for id, statement, arms, seeds, source, note in rows:
        if len(arms) == 2 and court.there(*arms):
            compute, told = minus(*map(ratio, arms)), f"stylised / clean accuracy, {' - '.join(arms)}"
            court.add(id, "open question", statement, compute, UP, statistic=told, source=source, seeds=seeds, note=note)
    for arm in p.headline if cubes.levels("conflict") else ():
        court.add(
            f"shape-bias/{arm}",
            "open question",
            f"{label(arm)} decides by shape more often than standard does",
            minus(shape_bias(cubes, arm), shape_bias(cubes, "standard")),
            UP,
            statistic="shape decisions / (shape + texture decisions), adversarial - standard",
            source=OURS,
            arms=(arm, "standard"),
        )
