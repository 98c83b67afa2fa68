"""Study 4's claims: what Heo et al. say of manipulated networks, the controls they left out, and what is left open."""

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats

from lib.claims.claim import Claim, Kind, Rule
from lib.claims.court import Book, noted
from lib.claims.cubes import Cubes
from lib.claims.intervals import Statistic, minus, over
from lib.fooling import manipulation
from lib.studies.model_manipulation.plan import COSTLY, INTERPRETERS, KIND_NAMES, SWAPPED, Parameters, label, parsed, seeds_of
from lib.system import paths

SOURCE = "Heo et al. 2019"
OURS = "control of this study"
UP = Rule("above", 0.0)
RARE = Rule("below", 0.1)
ONE_SEED = "one fine-tuning of one network: the spread over seeds is unknown"
UNSEEN = ("smoothgrad", "ig", "guided")  # interpreters that no fooling went through
BINS = 10  # of the calibration error
SUCCESS = 0.5  # what a fooling must reach beyond the control
QUESTION = "a question of this study"
NETWORKS = {"vgg19": "VGG19", "resnet50": "ResNet50", "densenet121": "DenseNet121"}


@dataclass
class Judge:
    """The table, the study's parameters, and the claims judged so far."""

    cubes: Cubes
    p: Parameters
    test: bool
    rows: list[Claim]

    def add(
        self,
        id: str,
        kind: Kind,
        statement: str,
        compute: Statistic,
        rule: Rule,
        *,
        arch: str,
        arms: tuple[str, ...],
        over_images: str,
        statistic: str,
        source: str,
        note: str = "",
        needs: tuple[str, ...] = (),
    ) -> None:
        """A claim about `arms` of an architecture, over the images of a measure and the seeds that all these arms have.

        It says nothing where one of the foolings that it `needs` (`ARM`, or `ARM:c1`) did not succeed, and is not tested then.
        """
        seeds = min(seeds_of(self.p, arch, arm) for arm in arms)
        failed = [label(need.partition(":")[0]) for need in needs if not self.succeeded(arch, need)]
        book = Book("04", self.cubes.images(over_images), seeds, self.p.variant, self.test and not failed, self.rows)
        few = ONE_SEED if seeds == 1 and kind != "control" else ""
        missed = f"not tested, since fooling {' and '.join(failed)} did not succeed" if failed else ""
        book.add(
            f"{id}/{arch}",
            kind,
            f"{statement} ({arch})",
            compute,
            rule,
            statistic=statistic,
            source=source,
            note=noted(missed, note, few),
        )
        last = self.rows[-1]
        if self.test and not failed and last.verdict == "not tested":
            self.rows[-1] = last.model_copy(update={"note": noted("not defined: every map concerned is dead", last.note)})

    def succeeded(self, arch: str, need: str) -> bool:
        """Whether more than half the images beyond the control's are fooled (of active fooling: of one class at least, or of
        the one that is named)."""
        arm, _, which = need.partition(":")
        kind, name = parsed(arm)[:2]
        swaps = [f"swap-{c}/{name}" for c in ("c1", "c2") if which in ("", c)]
        measures = swaps if kind == "active" else [f"t/{kind}/{name}"]
        own, drift = ([success(kind, self.cubes.values[f"{arch}/{a}", m, 0.0]).mean() for m in measures] for a in (arm, "none"))
        return max(a - b for a, b in zip(own, drift, strict=True)) > SUCCESS

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
    low, high = manipulation.INTERVALS[kind]
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


def robustness_lost(cubes: Cubes, honest: str, manipulated: str) -> Statistic:
    """Robust accuracy of one network less that of another, over the images that both get right as they are."""
    attacked = {name: cubes.values[name, "robust", 0.0] for name in (honest, manipulated)}
    seeds, n = attacked[manipulated].shape
    both = np.prod([cubes.values[name, "right", 0.0][:seeds, :n] for name in attacked], axis=0) > 0
    return over(np.where(both, attacked[honest][:seeds] - attacked[manipulated], np.nan))


def deleted(cubes: Cubes, arm: str, order: str) -> Statistic:
    """The probability of the class after deletion in an order, averaged over the shares deleted."""
    levels = [v for v in cubes.levels(f"deleted/{order}") if v > 0]
    return over(np.mean([cubes.values[arm, f"deleted/{order}", v] for v in levels], axis=0))


@functools.cache
def published(kind: str, through: str, column: str) -> dict[str, float]:
    """The published success rates of a passive fooling by network, as shares; empty where the paper has none."""
    table = pd.read_csv(paths.published() / "model_manipulation.csv", keep_default_na=False, dtype={"value": float})
    part = table[(table.table == "fsr") & (table.fooling == kind) & (table.through == through) & (table.column == column)]
    return {NETWORKS[n]: v / 100 for n, v in zip(part.network, part.value, strict=True)}


def difference(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    return {network: a[network] - b[network] for network in a}


def told(values: dict[str, float], sign: str = "") -> str:
    """Published values as a note."""
    return "published: " + ", ".join(f"{n} {v:{sign}.3f}" for n, v in values.items()) if values else ""


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
        rates = published(kind, name, name)
        agreed = bool(rates) and min(rates.values()) > SUCCESS  # else the paper has no such fooling, or its networks disagree
        court.add(
            f"fooled/{arm}",
            "claim" if agreed else "open question",
            f"Fooling {label(arm)} succeeds on unseen images",
            minus(own, drift),
            Rule("above", SUCCESS),
            arch=arch,
            arms=(arm, "none"),
            over_images=measure,
            source=f"{SOURCE}, its table of success rates" if rates else QUESTION,
            statistic=f"FSR of {KIND_NAMES[kind]} under {INTERPRETERS[name]}, manipulated - control",
            note=noted(told(rates), f"the margin of {SUCCESS:g} is ours"),
        )
        court.add(
            f"living/{arm}",
            "control",
            f"Fooling {label(arm)} succeeds on maps that are not dead",
            minus(fsr(c, f"{arch}/{arm}", kind, name, living=True), fsr(c, f"{arch}/none", kind, name, living=True)),
            Rule("above", 0.5),
            arch=arch,
            arms=(arm, "none"),
            over_images=measure,
            source=OURS,
            statistic="the same over images whose map has contrast",
        )
    for arm in court.p.headline:
        kind, name = parsed(arm)[:2]
        seen = fsr(c, f"{arch}/{arm}", kind, name, of="train-t")
        new = fsr(c, f"{arch}/{arm}", kind, name)
        train, images = c.images(f"train-t/{kind}/{name}"), c.images(f"t/{kind}/{name}")
        court.add(
            f"generalises/{arm}",
            "claim",
            f"Fooling {label(arm)} succeeds on unseen images as on training ones",
            lambda i, s, a=seen, b=new, n=train: a(i[i < n], s) - b(i, s),
            Rule("within", 0.1),
            arch=arch,
            arms=(arm,),
            needs=(arm,),
            over_images=f"t/{kind}/{name}",
            source=SOURCE,
            note="the margin of .1 is ours",
            statistic=f"FSR on {train} training images - on {images} test images",
        )


def _keeps_deciding(court: Judge, arch: str) -> None:
    """What it costs, and what it does to the decision."""
    c = court.cubes

    def right(arm: str) -> Statistic:
        return c.mean(f"{arch}/{arm}", "right")

    for arm in [*court.passive, *(f"active-{n}" for n in court.p.fooled if "active" in court.p.kinds)]:
        theirs = parsed(arm).interpreter in ("gradcam", "lrp_t")
        court.add(
            f"accuracy/{arm}",
            "claim" if theirs else "open question",
            f"Accuracy falls by less than 5 points by fooling {label(arm)}",
            minus(right("base"), right(arm)),
            Rule("below", 0.05),
            arch=arch,
            arms=("base", arm),
            over_images="right",
            needs=(arm,),
            source=f"{SOURCE}, its table of accuracies" if theirs else QUESTION,
            statistic="accuracy of the original - of the manipulated network",
            note="published: .002 to .031; the .05 is ours" if theirs else "",
        )
        if arm in court.p.headline:
            court.add(
                f"accuracy-control/{arm}",
                "control",
                f"Beyond what fine-tuning does itself, accuracy falls by less than 5 points by fooling {label(arm)}",
                minus(right("none"), right(arm)),
                Rule("below", 0.05),
                arch=arch,
                arms=("none", arm),
                over_images="right",
                source=OURS,
                statistic="accuracy of the control - of the manipulated network",
                needs=(arm,),
            )
    for arm in court.p.headline:
        court.add(
            f"agrees/{arm}",
            "open question",
            f"Decisions change no more by fooling {label(arm)} than by honest fine-tuning",
            minus(c.mean(f"{arch}/none", "agrees"), c.mean(f"{arch}/{arm}", "agrees")),
            Rule("below", 0.05),
            arch=arch,
            arms=(arm, "none"),
            over_images="agrees",
            source=QUESTION,
            needs=(arm,),
            statistic="share of test images with the original's prediction, control - manipulated",
            note="the .05 is ours",
        )
        court.add(
            f"calibration/{arm}",
            "open question",
            f"Calibration does not give away fooling {label(arm)}",
            minus(calibration_error(c, f"{arch}/{arm}"), calibration_error(c, f"{arch}/none")),
            Rule("within", 0.05),
            arch=arch,
            arms=(arm, "none"),
            over_images="right",
            source=QUESTION,
            needs=(arm,),
            statistic="expected calibration error, manipulated - control",
            note="the .05 is ours",
        )
        court.add(
            f"robust/{arm}",
            "open question",
            f"The network is less robust after fooling {label(arm)}",
            robustness_lost(c, f"{arch}/none", f"{arch}/{arm}"),
            UP,
            arch=arch,
            arms=(arm, "none"),
            over_images="robust",
            source=QUESTION,
            needs=(arm,),
            statistic=f"accuracy under PGD-{court.p.robust_steps}, eps {court.p.robust_eps:g}/255, control - manipulated, over "
            "images that both get right",
        )


def _transfers(court: Judge, arch: str) -> None:
    """The manipulated network under interpreters that its training did not go through."""
    c, p = court.cubes, court.p

    def rate(arm: str, name: str) -> Statistic:
        return fsr(c, f"{arch}/{arm}", parsed(arm).kind, name)

    for kind in (k for k in p.kinds if k != "active" and {"lrp_t", "gradcam"} <= set(p.fooled)):
        lrp, cam = f"{kind}-lrp_t", f"{kind}-gradcam"
        simple = difference(published(kind, "lrp_t", "simple_t"), published(kind, "gradcam", "simple_t"))
        court.add(
            f"transfer-simple/{kind}",
            "claim" if min(simple.values()) > 0 else "open question",
            f"Fooling {KIND_NAMES[kind]} through LRP_T carries over to SimpleG_T more than through Grad-CAM",
            minus(rate(lrp, "simple_t"), rate(cam, "simple_t")),
            UP,
            arch=arch,
            arms=(lrp, cam),
            over_images=f"t/{kind}/simple_t",
            source=f"{SOURCE}, its table of success rates",
            needs=(lrp, cam),
            statistic="FSR under SimpleG_T, fooled through LRP_T - through Grad-CAM",
            note=told(simple, "+"),
        )
        other = difference(published(kind, "lrp_t", "gradcam"), published(kind, "gradcam", "lrp_t"))
        court.add(
            f"transfer-asymmetric/{kind}",
            "claim" if min(other.values()) > 0 else "open question",
            f"Fooling {KIND_NAMES[kind]} through LRP_T carries over to Grad-CAM more than the other way round",
            minus(rate(lrp, "gradcam"), rate(cam, "lrp_t")),
            UP,
            arch=arch,
            arms=(lrp, cam),
            over_images=f"t/{kind}/gradcam",
            source=f"{SOURCE}, its table of success rates",
            needs=(lrp, cam),
            statistic="FSR under Grad-CAM, fooled through LRP_T - under LRP_T, fooled through Grad-CAM",
            note=told(other, "+"),
        )
    if "location" in p.kinds and "gradcam" in p.fooled:
        court.add(
            "transfer-none",
            "claim",
            "Fooling location through Grad-CAM does not carry over to LRP_T",
            rate("location-gradcam", "lrp_t"),
            RARE,
            arch=arch,
            arms=("location-gradcam",),
            over_images="t/location/lrp_t",
            source=f"{SOURCE}, its table of success rates",
            statistic="FSR under LRP_T",
            needs=("location-gradcam",),
            note=noted(told(published("location", "gradcam", "lrp_t")), "the bound of .1 is ours"),
        )
    for arm, name in itertools.product(p.headline, UNSEEN):
        kind = parsed(arm).kind
        honest, fooled = (c.mean(f"{arch}/{a}", f"t/{kind}/{name}") for a in ("none", arm))
        court.add(
            f"unseen/{arm}/{name}",
            "control",
            f"Maps of {INTERPRETERS[name]} hardly follow when fooling {label(arm)}",
            minus(honest, fooled) if kind != "centre" else minus(fooled, honest),
            Rule("below", 0.05),
            arch=arch,
            arms=(arm, "none"),
            over_images=f"t/{kind}/{name}",
            source=OURS,
            needs=(arm,),
            statistic=f"mean test loss of {KIND_NAMES[kind]} under {INTERPRETERS[name]}, towards its goal, beyond the control",
            note=noted(f"{c.images(f't/{kind}/{name}')} images" if name in COSTLY else "", "the .05 is ours"),
        )


def _active(court: Judge, arch: str) -> None:
    """Two classes' explanations change places."""
    c, p = court.cubes, court.p
    for name in p.fooled:
        arm = f"active-{name}"
        for which in ("c1", "c2"):
            court.add(
                f"swapped/{name}/{which}",
                "open question",
                f"Active fooling through {INTERPRETERS[name]} swaps the explanation of {which}",
                minus(swap_rate(c, f"{arch}/{arm}", name, which), swap_rate(c, f"{arch}/none", name, which)),
                Rule("above", SUCCESS),
                arch=arch,
                arms=(arm, "none"),
                over_images=f"swap-{which}/{name}",
                source=QUESTION if name == "simple_t" else f"{SOURCE}, its table of active fooling",
                statistic=f"FSR on unseen mosaics under {INTERPRETERS[name]}, manipulated - control",
                note="the margin of .5 is ours" + ("" if name == "simple_t" else "; the published networks disagree"),
            )
            others = [n for n in SWAPPED if n != name]
            rates = [swap_rate(c, f"{arch}/{arm}", n, which) for n in others]
            court.add(
                f"swap-stays/{name}/{which}",
                "open question",
                f"The swap of {which} through {INTERPRETERS[name]} does not carry over to other interpreters",
                lambda i, s, rates=rates: max(rate(i, s) for rate in rates),
                RARE,
                arch=arch,
                arms=(arm,),
                over_images=f"swap-{which}/{name}",
                source=QUESTION,
                needs=(f"{arm}:{which}",),
                statistic=f"the largest of the FSRs under {', '.join(INTERPRETERS[n] for n in others)}",
                note="published for two of three networks: a swap through LRP_T carries over" if name == "lrp_t" else "",
            )


def _still_depends(court: Judge, arch: str) -> None:
    """The decision rests where it rested: what the original's map marks still matters."""
    c = court.cubes
    for arm in court.p.headline:
        name = f"{arch}/{arm}"
        court.add(
            f"depends/{arm}",
            "claim",
            f"Decisions still depend on what the original's map marks, after fooling {label(arm)}",
            minus(deleted(c, name, "random"), deleted(c, name, "original")),
            UP,
            arch=arch,
            arms=(arm,),
            needs=(arm,),
            over_images="deleted/original",
            source=f"{SOURCE}, its figure of pixel perturbation",
            statistic="probability of the class after deletion at random - in the order of the original's map",
        )
        court.add(
            f"misleads/{arm}",
            "control",
            f"The manipulated map marks what matters less, after fooling {label(arm)}",
            minus(deleted(c, name, "own"), deleted(c, name, "original")),
            UP,
            arch=arch,
            arms=(arm,),
            needs=(arm,),
            over_images="deleted/original",
            source=OURS,
            statistic="probability of the class after deletion in the order of the network's own map - of the original's",
        )


def _controls(court: Judge, arch: str) -> None:
    """Drift, washing out, detection, weight."""
    c, p = court.cubes, court.p
    for arm in court.passive:
        kind, name = parsed(arm)[:2]
        court.add(
            f"drift/{kind}-{name}",
            "control",
            f"Fine-tuning without a fooling term does not reach the goal of {KIND_NAMES[kind]} under {INTERPRETERS[name]}",
            fsr(c, f"{arch}/none", kind, name),
            RARE,
            arch=arch,
            arms=("none",),
            over_images=f"t/{kind}/{name}",
            source=OURS,
            statistic=f"FSR of {KIND_NAMES[kind]} under {INTERPRETERS[name]} of the control",
            note="for top-k a sharp map is in the interval without any fooling" if kind == "topk" else "",
        )
    for arm in p.headline:
        kind, name = parsed(arm)[:2]
        for what, of in (("layers", "Grad-CAM at T and a stage before"), ("interpreters", "Grad-CAM and LRP_T")):
            court.add(
                f"detect-{what}/{arm}",
                "open question",
                f"{of} disagree after fooling {label(arm)}, which gives it away",
                auc(c, f"{arch}/{arm}", f"{arch}/none", f"consistency/{what}"),
                Rule("above", 0.8),
                arch=arch,
                arms=(arm, "none"),
                over_images=f"consistency/{what}",
                source=QUESTION,
                needs=(arm,),
                statistic="AUC of the rank correlation of the two maps, manipulated against control",
                note="one image at a time; .5 is chance, the .8 is ours",
            )
        if arch != p.archs[0]:
            continue
        measure = f"t/{kind}/{name}"
        full, washed = (fsr(c, f"{arch}/{one}", kind, name) for one in (arm, f"washed-{arm}"))
        court.add(
            f"washes-out/{arm}",
            "open question",
            f"{p.wash_epochs} epochs of honest fine-tuning remove half of fooling {label(arm)}",
            lambda i, s, a=full, b=washed: a(i, s) / 2 - b(i, s),
            UP,
            arch=arch,
            arms=(arm, f"washed-{arm}"),
            over_images=measure,
            source=QUESTION,
            needs=(arm,),
            statistic=f"half the FSR of {KIND_NAMES[kind]} under {INTERPRETERS[name]} - the FSR after honest tuning",
        )
        if p.factors:
            low = min(p.factors)
            court.add(
                f"weight/{arm}",
                "control",
                f"More weight fools more (fooling {label(arm)})",
                minus(full, fsr(c, f"{arch}/{arm}@{low:g}", kind, name)),
                UP,
                arch=arch,
                arms=(arm, f"{arm}@{low:g}"),
                over_images=measure,
                source=OURS,
                statistic=f"FSR at full weight - at {low:g} of it",
            )
