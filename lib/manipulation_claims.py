"""Study 4's claims: what Heo et al. say of manipulated networks, the controls they left out, and what is left open."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats

from lib import fooling
from lib.claims import Book, Claim, Kind, Rule, Statistic
from lib.cubes import Cubes, minus, noted, over
from lib.interpreters import NAMES
from lib.manipulation_measure import COSTLY
from lib.model_manipulation import KIND_NAMES, Parameters, label, parsed, seeds_of

SOURCE = "Heo et al. 2019"
OURS = "control of this study"
UP = Rule("above", 0.0)
RARE = Rule("below", 0.1)
ONE_SEED = "one fine-tuning of one network: the spread over seeds is unknown"
UNSEEN = ("smoothgrad", "ig", "guided")  # interpreters that no fooling went through
BINS = 10  # of the calibration error


@dataclass
class Judge:
    """The table, the study's parameters, and the claims judged so far."""

    cubes: Cubes
    p: Parameters
    test: bool
    rows: list[Claim]

    def add(
        self, id: str, kind: Kind, statement: str, compute: Statistic, rule: Rule, *, arch: str, arms: tuple[str, ...],
        over_images: str, statistic: str, source: str, note: str = "",
    ) -> None:  # fmt: skip
        """A claim about `arms` of an architecture, over the images of a measure and the seeds that all these arms have."""
        seeds = min(seeds_of(self.p, arch, arm) for arm in arms)
        book = Book("04", self.cubes.images(over_images), seeds, self.p.variant, self.test, self.rows)
        few = ONE_SEED if seeds == 1 and kind != "control" else ""
        book.add(
            f"{id}/{arch}", kind, f"{statement} ({arch})", compute, rule, statistic=statistic, source=source,
            note=noted(note, few),
        )  # fmt: skip
        last = self.rows[-1]
        if self.test and last.verdict == "not tested":
            self.rows[-1] = last.model_copy(update={"note": noted("not defined: every map concerned is dead", last.note)})

    @property
    def passive(self) -> list[str]:
        return [f"{kind}-{name}" for kind in self.p.kinds if kind != "active" for name in self.p.fooled]


def fsr(cubes: Cubes, arm: str, kind: str, name: str, *, of: str = "t", living: bool = False) -> Statistic:
    """The fooling success rate of `kind` under interpreter `name`; `living`: over images whose map has contrast."""
    t = cubes.values[arm, f"{of}/{kind}/{name}", 0.0]
    found = success(kind, t)
    return over(np.where(cubes.values[arm, f"dead/{name}", 0.0] > 0, np.nan, found) if living else found)


def success(kind: str, t: np.ndarray) -> np.ndarray:
    """1 where t lies in the kind's interval, else 0, also where t is not defined."""
    low, high = fooling.INTERVALS[kind]
    return ((t >= low) & (t <= high)).astype(float)


def swap_rate(cubes: Cubes, arm: str, name: str, c: str) -> Statistic:
    """The success rate of the active fooling for the class c1 or c2, on mosaics."""
    return over(success("active", cubes.values[arm, f"swap-{c}/{name}", 0.0]))


def calibration_error(cubes: Cubes, arm: str) -> Statistic:
    """Expected calibration error over ten equal bins of confidence (Guo et al. 2017); the mean over seeds."""
    right, confidence = cubes.values[arm, "right", 0.0], cubes.values[arm, "confidence", 0.0]

    def statistic(i: np.ndarray, s: np.ndarray) -> float:
        found = []
        for one in s:
            c, r = confidence[one, i], right[one, i]
            bins = np.minimum((c * BINS).astype(int), BINS - 1)
            gaps = np.bincount(bins, c - r, BINS)  # in each bin: count * (confidence - accuracy)
            found.append(np.abs(gaps).sum() / len(i))
        return float(np.mean(found))

    return statistic


def auc(cubes: Cubes, arm: str, honest: str, measure: str) -> Statistic:
    """How often a map of the manipulated network has a lower value than one of the honest network's (ties half)."""
    a, b = cubes.values[arm, measure, 0.0], cubes.values[honest, measure, 0.0]

    def statistic(i: np.ndarray, s: np.ndarray) -> float:
        found = []
        for one in s:
            u, v = a[one, i], b[one, i]
            u, v = u[np.isfinite(u)], v[np.isfinite(v)]
            if not len(u) or not len(v):
                return float("nan")
            ranks = scipy.stats.rankdata(np.concatenate([v, u]))[: len(v)]
            found.append((ranks.sum() - len(v) * (len(v) + 1) / 2) / (len(u) * len(v)))
        return float(np.mean(found))

    return statistic


def deleted(cubes: Cubes, arm: str, order: str) -> Statistic:
    """The probability of the class after deletion in an order, averaged over the shares deleted."""
    levels = [v for v in cubes.levels(f"deleted/{order}") if v > 0]
    return over(np.mean([cubes.values[arm, f"deleted/{order}", v] for v in levels], axis=0))


def judge(table: pd.DataFrame, p: Parameters, *, test: bool = True) -> list[Claim]:
    """All claims from the table of measurements."""
    court = Judge(Cubes.of(table), p, test, [])
    for arch in p.archs:
        _succeeds(court, arch)
        _keeps_deciding(court, arch)
        _transfers(court, arch)
        if "active" in p.kinds:
            _active(court, arch)
        _still_depends(court, arch)
        _controls(court, arch)
    return court.rows


def _succeeds(court: Judge, arch: str) -> None:
    """Fooling works on the interpreter that it went through, on images it was not trained on."""
    c = court.cubes
    for arm in court.passive:
        kind, name = parsed(arm)[:2]
        measure = f"t/{kind}/{name}"
        own, drift = fsr(c, f"{arch}/{arm}", kind, name), fsr(c, f"{arch}/none", kind, name)
        court.add(
            f"fooled/{arm}", "claim", f"Fooling {label(arm)} succeeds on unseen images", minus(own, drift),
            Rule("above", 0.5), arch=arch, arms=(arm, "none"), over_images=measure, source=f"{SOURCE}, table 1",
            statistic=f"FSR of {KIND_NAMES[kind]} under {NAMES[name]}, manipulated - control", note="the margin of .5 is ours",
        )  # fmt: skip
        court.add(
            f"living/{arm}", "control", f"Fooling {label(arm)} succeeds on maps that are not dead",
            minus(fsr(c, f"{arch}/{arm}", kind, name, living=True), fsr(c, f"{arch}/none", kind, name, living=True)),
            Rule("above", 0.5), arch=arch, arms=(arm, "none"), over_images=measure, source=OURS,
            statistic="the same over images whose map has contrast",
        )  # fmt: skip
    for arm in court.p.headline:
        kind, name = parsed(arm)[:2]
        seen = fsr(c, f"{arch}/{arm}", kind, name, of="train-t")
        new = fsr(c, f"{arch}/{arm}", kind, name)
        train, images = c.images(f"train-t/{kind}/{name}"), c.images(f"t/{kind}/{name}")
        court.add(
            f"generalises/{arm}", "claim", f"Fooling {label(arm)} succeeds on unseen images as on training ones",
            lambda i, s, a=seen, b=new, n=train: a(i[i < n], s) - b(i, s), Rule("within", 0.1), arch=arch, arms=(arm,),
            over_images=f"t/{kind}/{name}", source=f"{SOURCE}, section 4", note="the margin of .1 is ours",
            statistic=f"FSR on {train} training images - on {images} test images",
        )  # fmt: skip


def _keeps_deciding(court: Judge, arch: str) -> None:
    """What it costs, and what it does to the decision."""
    c = court.cubes

    def right(arm: str) -> Statistic:
        return c.mean(f"{arch}/{arm}", "right")

    for arm in [*court.passive, *(f"active-{n}" for n in court.p.fooled if "active" in court.p.kinds)]:
        court.add(
            f"accuracy/{arm}", "claim", f"Accuracy stays after fooling {label(arm)}", minus(right("base"), right(arm)),
            Rule("below", 0.05), arch=arch, arms=("base", arm), over_images="right", source=f"{SOURCE}, table 2",
            statistic="accuracy of the original - of the manipulated network", note="published: .002 to .031; the .05 is ours",
        )  # fmt: skip
        if arm in court.p.headline:
            court.add(
                f"accuracy-control/{arm}", "control",
                f"Beyond what fine-tuning does itself, accuracy stays after fooling {label(arm)}",
                minus(right("none"), right(arm)), Rule("below", 0.05), arch=arch, arms=("none", arm), over_images="right",
                source=OURS, statistic="accuracy of the control - of the manipulated network",
            )  # fmt: skip
    for arm in court.p.headline:
        court.add(
            f"agrees/{arm}", "open question", f"Decisions are those of the original after fooling {label(arm)}",
            c.mean(f"{arch}/{arm}", "agrees"), Rule("above", 0.9), arch=arch, arms=(arm,), over_images="agrees",
            source="a question of this study", statistic="share of test images with the original's prediction",
        )  # fmt: skip
        court.add(
            f"calibration/{arm}", "open question", f"Calibration does not give away fooling {label(arm)}",
            minus(calibration_error(c, f"{arch}/{arm}"), calibration_error(c, f"{arch}/none")), Rule("within", 0.05), arch=arch,
            arms=(arm, "none"), over_images="right", source="a question of this study",
            statistic="expected calibration error, manipulated - control",
        )  # fmt: skip
        court.add(
            f"robust/{arm}", "open question", f"The network is less robust after fooling {label(arm)}",
            minus(c.mean(f"{arch}/none", "robust"), c.mean(f"{arch}/{arm}", "robust")), UP, arch=arch, arms=(arm, "none"),
            over_images="robust", source="a question of this study",
            statistic=f"accuracy under PGD-{court.p.robust_steps}, eps {court.p.robust_eps:g}/255, control - manipulated",
        )  # fmt: skip


def _transfers(court: Judge, arch: str) -> None:
    """The manipulated network under interpreters that its training did not go through."""
    c, p = court.cubes, court.p

    def rate(arm: str, name: str) -> Statistic:
        return fsr(c, f"{arch}/{arm}", parsed(arm).kind, name)

    for kind in (k for k in p.kinds if k != "active"):
        lrp, cam = f"{kind}-lrp_t", f"{kind}-gradcam"
        if {"lrp_t", "gradcam"} <= set(p.fooled):
            published = kind == "location"  # the other kinds' published differences have both signs, or are small
            court.add(
                f"transfer-simple/{kind}", "claim" if published else "open question",
                f"Fooling {KIND_NAMES[kind]} through LRP_T carries over to SimpleG_T more than through Grad-CAM",
                minus(rate(lrp, "simple_t"), rate(cam, "simple_t")), UP, arch=arch, arms=(lrp, cam),
                over_images=f"t/{kind}/simple_t", source=f"{SOURCE}, table 1",
                statistic="FSR under SimpleG_T, fooled through LRP_T - through Grad-CAM",
                note="published for VGG19 and ResNet50, reversed for DenseNet121" if published else "",
            )  # fmt: skip
            court.add(
                f"transfer-asymmetric/{kind}", "open question",
                f"Fooling {KIND_NAMES[kind]} through LRP_T carries over to Grad-CAM more than the other way round",
                minus(rate(lrp, "gradcam"), rate(cam, "lrp_t")), UP, arch=arch, arms=(lrp, cam),
                over_images=f"t/{kind}/gradcam", source=f"{SOURCE}, table 1",
                statistic="FSR under Grad-CAM, fooled through LRP_T - under LRP_T, fooled through Grad-CAM",
                note="the published networks disagree",
            )  # fmt: skip
    if "location" in p.kinds and "gradcam" in p.fooled:
        court.add(
            "transfer-none", "claim", "Fooling location through Grad-CAM does not carry over to LRP_T",
            rate("location-gradcam", "lrp_t"), RARE, arch=arch, arms=("location-gradcam",), over_images="t/location/lrp_t",
            source=f"{SOURCE}, table 1 (.058, .008, .004)", statistic="FSR under LRP_T", note="the bound of .1 is ours",
        )  # fmt: skip
    for arm in p.headline:
        for name in UNSEEN:
            kind = parsed(arm).kind
            small = f"{c.images(f't/{kind}/{name}')} images" if name in COSTLY else ""
            court.add(
                f"unseen/{arm}/{name}", "control", f"{NAMES[name]} sees through fooling {label(arm)}", rate(arm, name), RARE,
                arch=arch, arms=(arm,), over_images=f"t/{kind}/{name}", source=OURS, note=small,
                statistic=f"FSR of {KIND_NAMES[kind]} under {NAMES[name]}",
            )  # fmt: skip


def _active(court: Judge, arch: str) -> None:
    """Two classes' explanations change places."""
    c, p = court.cubes, court.p
    for name in p.fooled:
        arm = f"active-{name}"
        for which in ("c1", "c2"):
            court.add(
                f"swapped/{name}/{which}", "claim", f"Active fooling through {NAMES[name]} swaps the explanation of {which}",
                minus(swap_rate(c, f"{arch}/{arm}", name, which), swap_rate(c, f"{arch}/none", name, which)),
                Rule("above", 0.5), arch=arch, arms=(arm, "none"), over_images=f"swap-{which}/{name}",
                source=f"{SOURCE}, table 3", statistic=f"FSR on unseen mosaics under {NAMES[name]}, manipulated - control",
                note="the margin of .5 is ours; the published networks disagree",
            )  # fmt: skip
            others = [n for n in ("gradcam", "lrp_t", "simple_t") if n != name]
            rates = [swap_rate(c, f"{arch}/{arm}", n, which) for n in others]
            court.add(
                f"swap-stays/{name}/{which}", "control",
                f"The swap of {which} through {NAMES[name]} does not carry over to other interpreters",
                lambda i, s, rates=rates: max(rate(i, s) for rate in rates), RARE, arch=arch, arms=(arm,),
                over_images=f"swap-{which}/{name}", source=OURS,
                statistic=f"the larger of the FSRs under {' and '.join(NAMES[n] for n in others)}",
            )  # fmt: skip


def _still_depends(court: Judge, arch: str) -> None:
    """The decision rests where it rested: what the original's map marks still matters."""
    c = court.cubes
    for arm in court.p.headline:
        name = f"{arch}/{arm}"
        court.add(
            f"depends/{arm}", "claim", f"Decisions still depend on what the original's map marks, after fooling {label(arm)}",
            minus(deleted(c, name, "random"), deleted(c, name, "original")), UP, arch=arch, arms=(arm,),
            over_images="deleted/original", source=f"{SOURCE}, its figure of pixel perturbation",
            statistic="probability of the class after deletion at random - in the order of the original's map",
        )  # fmt: skip
        court.add(
            f"misleads/{arm}", "control", f"The manipulated map marks what matters less, after fooling {label(arm)}",
            minus(deleted(c, name, "own"), deleted(c, name, "original")), UP, arch=arch, arms=(arm,),
            over_images="deleted/original", source=OURS,
            statistic="probability of the class after deletion in the order of the network's own map - of the original's",
        )  # fmt: skip


def _controls(court: Judge, arch: str) -> None:
    """Drift, washing out, detection, weight."""
    c, p = court.cubes, court.p
    for arm in court.passive:
        kind, name = parsed(arm)[:2]
        court.add(
            f"drift/{kind}-{name}", "control",
            f"Fine-tuning without a fooling term leaves {KIND_NAMES[kind]} under {NAMES[name]} where it was",
            fsr(c, f"{arch}/none", kind, name), RARE, arch=arch, arms=("none",), over_images=f"t/{kind}/{name}", source=OURS,
            statistic=f"FSR of {KIND_NAMES[kind]} under {NAMES[name]} of the control",
            note="for top-k a sharp map is in the interval without any fooling" if kind == "topk" else "",
        )  # fmt: skip
    for arm in p.headline:
        kind, name = parsed(arm)[:2]
        for what, of in (("layers", "Grad-CAM at T and a stage before"), ("interpreters", "Grad-CAM and LRP_T")):
            court.add(
                f"detect-{what}/{arm}", "open question", f"{of} disagree after fooling {label(arm)}, which gives it away",
                auc(c, f"{arch}/{arm}", f"{arch}/none", f"consistency/{what}"), Rule("above", 0.8), arch=arch,
                arms=(arm, "none"), over_images=f"consistency/{what}", source="a question of this study",
                statistic="AUC of the rank correlation of the two maps, manipulated against control",
                note="one image at a time; .5 is chance, the .8 is ours",
            )  # fmt: skip
        if arch != p.archs[0]:
            continue
        measure = f"t/{kind}/{name}"
        full, washed = (fsr(c, f"{arch}/{one}", kind, name) for one in (arm, f"washed-{arm}"))
        court.add(
            f"washes-out/{arm}", "open question",
            f"{p.wash_epochs} epochs of honest fine-tuning remove half of fooling {label(arm)}",
            lambda i, s, a=full, b=washed: a(i, s) / 2 - b(i, s), UP, arch=arch,
            arms=(arm, f"washed-{arm}"), over_images=measure, source="a question of this study",
            statistic=f"half the FSR of {KIND_NAMES[kind]} under {NAMES[name]} - the FSR after honest tuning",
        )  # fmt: skip
        if p.factors:
            low = min(p.factors)
            court.add(
                f"weight/{arm}", "control", f"More weight fools more (fooling {label(arm)})",
                minus(full, fsr(c, f"{arch}/{arm}@{low:g}", kind, name)), UP, arch=arch, arms=(arm, f"{arm}@{low:g}"),
                over_images=measure, source=OURS, statistic=f"FSR at full weight - at {low:g} of it",
            )  # fmt: skip
