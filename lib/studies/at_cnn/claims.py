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

import numpy as np
import pandas as pd

from lib.claims import measures
from lib.claims.claim import Claim, Rule
from lib.claims.court import OURS, Court, noted
from lib.claims.intervals import minus, parts, together
from lib.studies.at_cnn import rivals
from lib.studies.at_cnn.plan import EDGES, Parameters, attacked, family, label, seeds_of
from lib.studies.at_cnn.rivals import SOURCE, STYLISED, UP
from lib.studies.at_cnn.statistics import Cubes, by_style, robustness, shape_bias, underfit_seeds

ENOUGH, ENOUGH_UNDERFIT, MATCHED = Rule("above", 0.6), Rule("above", 0.5), Rule("within", 0.03)
ROBUST, TEXTURE_GONE, SHAPE_KEPT = Rule("above", 0.1), Rule("below", 0.35), Rule("above", 0.9)
NO_UNDERFIT = (
    "Underfit exists in {} of {} seeds: in the others adversarial training costs no accuracy, there is nothing to stop"
)


def primaries(p: Parameters) -> tuple[str, ...]:
    """The ids of the paper's claims for its first adversarial network: contours, stylised, saturated and shuffled images."""
    return tuple(f"{id}/{p.headline[0]}" for id in ("contours-edges", "style-ratio", "saturated", "shuffled-4"))


def beside(p: Parameters) -> dict[str, tuple[str, str]]:
    """A map that likes edges of any image says nothing of its own; the ratio to clean accuracy is ours."""
    arm = p.headline[0]
    return {
        f"contours-edges/{arm}": (f"own-edges/{arm}", "with the edges of its own image more than with another image's"),
        f"style-ratio/{arm}": (f"style/{arm}", "in absolute accuracy, as the paper has it"),
    }


def judge(table: pd.DataFrame, p: Parameters, *, test: bool = True) -> list[Claim]:
    """All claims from the table of measurements."""
    whose = f"{family(p).name} of Boopathy et al." if p.authors else ""
    seeds = functools.partial(seeds_of, p)
    court = Court("02", p, Cubes.of(table, p.min_correct), test, seeds, primaries=primaries(p), whose=whose)
    _gates(court)
    clean = court.within("", gates=("clean",))
    for arm in p.headline:
        _robust(clean, arm)
        rivals.against(clean.within(arm, gates=("clean", f"robust-{arm}")), arm, rivals.Rival())
    if "underfit" in p.arms:
        first = p.headline[0]  # it is matched to the first
        seeds = underfit_seeds(court.cubes, p.seeds)
        rival = rivals.Rival("underfit", "control", NO_UNDERFIT.format(len(seeds), p.seeds) if len(seeds) < p.seeds else "")
        own = clean.within("", seeds=p.seeds, test=False)  # without such a network nothing is judged
        gates: tuple[str, ...] = ()
        if seeds:
            own = clean.within("", cubes=Cubes.of(table[table.seed.isin(seeds)], p.min_correct), seeds=len(seeds))
            gates = _underfit_gates(own, first)
        beside = (*gates, "clean", f"robust-{first}")
        rivals.against(own.within(f"{first}/over-underfit", gates=beside), first, rival)
        _underfit(own.within("", over="clean"), first, gates, rival.note)
    _style(court.within("", over="style-distance", whose="", **by_style(p, court.cubes.images("clean"))))
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
            robustness(cubes, arm, p.judged_eps), images=cubes.images("pgd"), seeds=seeds_of(p, arm), draws=court.draws, of=of
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


def _robust(court: Court, arm: str) -> None:
    eps = court.p.judged_eps
    told = f"PGD-{court.p.robust_steps}, L-infinity {eps:g}/255"
    court.add(
        f"robust/{arm}",
        "control",
        f"{label(arm)} is right more often than the standard network under {told}",
        robustness(court.cubes, arm, eps),
        UP,
        statistic=f"accuracy under {told}, adversarial - standard",
        source=OURS,
        measure="accuracy",
        over="pgd",
        arms=(arm, "standard"),
    )


def _underfit(court: Court, first: str, gates: tuple[str, ...], note: str) -> None:
    """The control that the paper has: accuracy is lower, and nothing else follows."""
    cubes, style, top = court.cubes, court.cubes.level("style"), max(court.p.saturation)
    of_styles = court.within("", **by_style(court.p, cubes.images("clean")))
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
    of_styles.add(
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
    of_styles = court.within("", **by_style(p, cubes.images("clean")))
    by_eps = sorted((a for a in p.arms if a.startswith("linf-") and "@" not in a), key=lambda a: float(a[5:]))
    linf, l2 = ([a for a in p.headline if a.startswith(kind)][:1] for kind in ("linf", "l2"))
    table = f"{SOURCE}, table; the ratio is ours"
    swapped = "the table's Tiny-ImageNet column: catastrophic overfitting, or swapped labels"
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
        of_styles.add(
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
