"""Study 4's claims: what Heo et al. say of manipulated networks, the controls they left out, and what is left open.

What must hold for them to mean anything stands in `gates`.
"""

import functools
import itertools
from typing import Any

import pandas as pd

from lib.claims.claim import Claim, Rule
from lib.claims.court import OURS, QUESTION, Court, noted
from lib.claims.cubes import Cubes
from lib.claims.intervals import Statistic, minus, most
from lib.studies.model_manipulation import gates, published, statistics
from lib.studies.model_manipulation.gates import LARGE, WHICH, rests, stands
from lib.studies.model_manipulation.plan import (
    COSTLY,
    INTERPRETERS,
    KIND_NAMES,
    SWAPPED,
    Parameters,
    fooling,
    foolings,
    interpreters,
    label,
    parsed,
    seeds_of,
)
from lib.studies.model_manipulation.statistics import CLASSES, SUCCESS, fsr, swap_rate

SOURCE = "Heo et al. 2019"
TABLE = f"{SOURCE}, its table of success rates"
SWAPS = f"{SOURCE}, its table of active fooling"
UP = Rule("above", 0.0)
RARE = Rule("below", 0.1)
DEAD = "not defined: every map concerned is dead"
UNSEEN = ("smoothgrad", "ig", "guided")  # interpreters that no fooling went through
AGREE = {"layers": "Grad-CAM at the fooled layer and one stage before", "interpreters": "Grad-CAM and LRP_T"}


def passive(p: Parameters) -> list[str]:
    """The foolings but the active ones."""
    return [arm for arm in foolings(p) if parsed(arm).kind != "active"]


def primaries(p: Parameters) -> tuple[str, ...]:
    """The ids of the paper's claims on its first architecture: location fooling through LRP and Grad-CAM, at no cost in
    accuracy, active fooling, and that what fools LRP carries over to Grad-CAM more than the other way round."""
    told = ("fooled/location-lrp_t", "fooled/location-gradcam", "accuracy/location-gradcam", "active/gradcam")
    return tuple(f"{id}/{p.architectures[0]}" for id in (*told, "transfer-asymmetric/location"))


def judge(table: pd.DataFrame, p: Parameters, *, test: bool = True) -> list[Claim]:
    """All claims from the table of measurements."""
    court = Court("04", p, Cubes.of(table), test, unknown=DEAD, primaries=primaries(p))
    for arch in p.architectures:
        gates.state(court, arch)
        seeds = functools.partial(seeds_of, p, arch)
        of_one = court.within(arch, f" ({arch})", seeds=seeds, gates=(f"right/{arch}",), networks=arch)
        _succeeds(of_one, arch)
        _keeps_deciding(of_one, arch)
        _transfers(of_one, arch)
        if "active" in p.kinds:
            _active(of_one, arch)
        _still_depends(of_one, arch)
        _controls(of_one, arch)
    return court.rows


def _succeeds(court: Court, arch: str) -> None:
    """Fooling works on the interpreter that it went through, on images it was not trained on."""
    c = court.cubes
    for arm in passive(court.p):
        kind, name = parsed(arm)[:2]
        resting, goal = rests(court, arch, arm), f"{KIND_NAMES[kind]} under {INTERPRETERS[name]}"
        shared: dict[str, Any] = {"measure": "share", "arms": (arm, "none"), "over": f"t/{kind}/{name}", "gates": resting}
        rates = published.rates(kind, name, name)
        agreed = bool(rates) and min(rates.values()) > SUCCESS  # else the paper has none such, or its networks disagree
        court.add(
            f"fooled/{arm}",
            "claim" if agreed else "open question",
            f"Beyond the control, fooling {label(arm)} succeeds on more than half of the unseen images",
            minus(*(fsr(c, f"{arch}/{a}", kind, name) for a in (arm, "none"))),
            LARGE,
            **shared,
            source=TABLE if rates else QUESTION,
            statistic=f"success rate of {goal}, manipulated - control",
            note=noted(published.told(rates), "the margin of .5 is ours", "" if resting else "its plateau was not looked for"),
        )
        court.add(
            f"living/{arm}",
            "control",
            f"Beyond the control, fooling {label(arm)} succeeds on more than half of the maps that are not dead",
            statistics.living(c, f"{arch}/{arm}", f"{arch}/none", kind, name),
            LARGE,
            **shared,
            source=OURS,
            statistic=f"success rate of {goal} over images whose map has contrast, manipulated - control",
        )
    for arm in court.p.headline:
        kind, name = parsed(arm)[:2]
        seen, new = (fsr(c, f"{arch}/{arm}", kind, name, of=of) for of in ("train-t", "t"))
        train, images = c.images(f"train-t/{kind}/{name}"), c.images(f"t/{kind}/{name}")
        court.add(
            f"generalises/{arm}",
            "claim",
            f"Fooling {label(arm)} succeeds about as often on unseen images as on training images",
            lambda i, s, a=seen, b=new, n=train: a(i[i < n], s) - b(i, s),
            Rule("within", 0.1),
            measure="share",
            arms=(arm,),
            gates=stands(court, arch, arm),
            over=f"t/{kind}/{name}",
            source=SOURCE,
            note="the margin of .1 is ours",
            statistic=f"success rate of {KIND_NAMES[kind]} under {INTERPRETERS[name]}, {train} training - {images} test images",
        )


def _keeps_deciding(court: Court, arch: str) -> None:
    """What it costs, and what it does to the decision."""
    c = court.cubes

    def right(arm: str) -> Statistic:
        return c.mean(f"{arch}/{arm}", "right")

    for arm in foolings(court.p):
        theirs = parsed(arm).interpreter in ("gradcam", "lrp_t")
        standing = stands(court, arch, arm)
        shared: dict[str, Any] = {"measure": "accuracy", "over": "right"}
        court.add(
            f"accuracy/{arm}",
            "claim" if theirs else "open question",
            f"Accuracy falls by less than 5 points by {fooling(arm)}",
            minus(right("base"), right(arm)),
            Rule("below", 0.05),
            **shared,
            gates=(*standing, f"kept/{arch}"),
            arms=("base", arm),
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
                **shared,
                gates=standing,
                arms=("none", arm),
                source=OURS,
                statistic="accuracy of the control - of the manipulated network",
            )
    for arm in court.p.headline:
        asked: dict[str, Any] = {"arms": (arm, "none"), "source": QUESTION, "gates": stands(court, arch, arm)}
        court.add(
            f"agrees/{arm}",
            "open question",
            f"Fooling {label(arm)} changes at most five points more decisions than honest fine-tuning",
            minus(c.mean(f"{arch}/none", "agrees"), c.mean(f"{arch}/{arm}", "agrees")),
            Rule("below", 0.05),
            measure="share",
            over="agrees",
            **asked,
            statistic="share of test images with the original's prediction, control - manipulated",
            note="the .05 is ours",
        )
        court.add(
            f"calibration/{arm}",
            "open question",
            f"Calibration does not give away fooling {label(arm)}",
            minus(statistics.calibration_error(c, f"{arch}/{arm}"), statistics.calibration_error(c, f"{arch}/none")),
            Rule("within", 0.05),
            measure="accuracy",
            over="right",
            **asked,
            statistic="expected calibration error, manipulated - control",
            note="the .05 is ours",
        )
        court.add(
            f"robust/{arm}",
            "open question",
            f"PGD breaks more after fooling {label(arm)} than after honest fine-tuning",
            statistics.robustness_lost(c, f"{arch}/none", f"{arch}/{arm}"),
            UP,
            measure="accuracy",
            over="robust",
            **asked | {"gates": (*asked["gates"], f"attacked/{arch}", f"withstood/{arch}")},
            statistic=f"accuracy under PGD-{court.p.robust_steps}, eps {court.p.robust_eps:g}/255, control - manipulated, over "
            "images that both get right",
        )


def _transfers(court: Court, arch: str) -> None:
    """The manipulated network under interpreters that its training did not go through."""
    c, p = court.cubes, court.p

    def rate(arm: str, name: str) -> Statistic:
        return fsr(c, f"{arch}/{arm}", parsed(arm).kind, name)

    for kind in (k for k in p.kinds if k != "active" and {"lrp_t", "gradcam"} <= set(p.fooled)):
        lrp, cam = f"{kind}-lrp_t", f"{kind}-gradcam"
        arms: dict[str, Any] = {"arms": (lrp, cam), "gates": stands(court, arch, lrp, cam)}
        for id, than, first, second in (
            ("simple", "SimpleG_T more than through Grad-CAM", (lrp, "simple_t"), (cam, "simple_t")),
            ("asymmetric", "Grad-CAM more than the other way round", (lrp, "gradcam"), (cam, "lrp_t")),
        ):
            theirs = published.difference(*(published.rates(kind, parsed(a).interpreter, name) for a, name in (first, second)))
            words = (f"under {INTERPRETERS[n]}, fooled through {INTERPRETERS[parsed(a)[1]]}" for a, n in (first, second))
            court.add(
                f"transfer-{id}/{kind}",
                "claim" if min(theirs.values()) > 0 else "open question",
                f"Fooling {KIND_NAMES[kind]} through LRP_T carries over to {than}",
                minus(rate(*first), rate(*second)),
                UP,
                **arms,
                measure="share",
                over=f"t/{kind}/{first[1]}",
                source=TABLE,
                pool="transfer",  # both are differences of success rates under interpreters that no training went through
                statistic=f"success rate {' - '.join(words)}",
                note=published.told(theirs, "+"),
            )
    if "location" in p.kinds and "gradcam" in p.fooled:
        court.add(
            "transfer-none",
            "claim",
            "Fooling location through Grad-CAM hardly carries over to LRP_T",
            rate("location-gradcam", "lrp_t"),
            RARE,
            measure="share",
            difference=False,
            arms=("location-gradcam",),
            over="t/location/lrp_t",
            source=TABLE,
            statistic="success rate of location under LRP_T, fooled through Grad-CAM",
            gates=stands(court, arch, "location-gradcam"),
            note=noted(published.told(published.rates("location", "gradcam", "lrp_t")), "the bound of .1 is ours"),
        )
    for arm, name in itertools.product(p.headline, (n for n in UNSEEN if n in interpreters(arch))):
        kind = parsed(arm).kind
        honest, fooled = ((f"{arch}/{a}", f"t/{kind}/{name}", 0.0) for a in ("none", arm))
        court.add(
            f"unseen/{arm}/{name}",
            "control",
            f"Maps of {INTERPRETERS[name]}, which the training does not see, hardly follow when fooling {label(arm)}",
            c.less(honest, fooled) if kind != "centre" else c.less(fooled, honest),
            Rule("below", 0.05),
            arms=(arm, "none"),
            over=f"t/{kind}/{name}",
            source=OURS,
            gates=stands(court, arch, arm),
            statistic=f"mean test loss of {KIND_NAMES[kind]} under {INTERPRETERS[name]}, towards its goal, beyond the control",
            note=noted(f"{c.images(f't/{kind}/{name}')} images" if name in COSTLY else "", "the .05 is ours"),
        )


def _active(court: Court, arch: str) -> None:
    """Two classes' explanations change places."""
    c, p = court.cubes, court.p
    for name in p.fooled:
        arm, through = f"active-{name}", INTERPRETERS[name]
        theirs = published.swaps(name)
        shared: dict[str, Any] = {"measure": "share", "arms": (arm, "none"), "source": SWAPS if theirs else QUESTION}
        shared["unit"] = "mosaics"
        says = f"Beyond the control, active fooling through {through}"
        shared["gates"] = (*rests(court, arch, arm), f"swappable/{arch}/{name}")
        court.add(
            f"active/{name}",
            "claim" if theirs else "open question",
            f"{says} swaps both classes' maps on more than half of the mosaics",
            statistics.both_swapped(c, f"{arch}/{arm}", f"{arch}/none", name),
            LARGE,
            **shared,
            over=f"swap-c1/{name}",
            statistic=f"success rate under {through}, manipulated - control, of the class where this is smaller",
            note=noted(published.told(theirs), "the margin of .5 is ours"),
        )
        for which in CLASSES:
            court.add(
                f"swapped/{name}/{which}",
                "open question",
                f"{says} gives the {WHICH[which]} class the other's map on more than half of the mosaics",
                minus(swap_rate(c, f"{arch}/{arm}", name, which), swap_rate(c, f"{arch}/none", name, which)),
                LARGE,
                **shared,
                over=f"swap-{which}/{name}",
                statistic=f"success rate of the {WHICH[which]} class under {through}, manipulated - control",
                note="the margin of .5 is ours" + ("; the published networks disagree" if theirs else ""),
            )
            others = [n for n in SWAPPED if n != name]
            rates = [swap_rate(c, f"{arch}/{arm}", n, which) for n in others]
            court.add(
                f"swap-stays/{name}/{which}",
                "open question",
                f"The swap of the {WHICH[which]} class's map through {through} hardly carries over to any other interpreter",
                most(lambda i, s, rates=rates: [rate(i, s) for rate in rates]),
                RARE,
                measure="share",
                difference=False,
                arms=(arm,),
                over=f"swap-{which}/{name}",
                unit="mosaics",
                source=QUESTION,
                gates=(*stands(court, arch, f"{arm}:{which}"), f"swappable/{arch}/{name}"),
                statistic=f"the largest of the success rates under {', '.join(INTERPRETERS[n] for n in others)}",
                note=noted("published for two of three networks: it carries over" if name == "lrp_t" else "", "the .1 is ours"),
            )


def _still_depends(court: Court, arch: str) -> None:
    """The decision rests where it rested: what the original's map marks still matters."""
    c = court.cubes
    for arm in court.p.headline:
        name, standing = f"{arch}/{arm}", stands(court, arch, arm)
        shared: dict[str, Any] = {"measure": "accuracy", "arms": (arm,), "gates": standing, "over": "deleted/original"}
        court.add(
            f"depends/{arm}",
            "claim",
            f"Decisions still depend on what the original's map marks, after fooling {label(arm)}",
            minus(statistics.deleted(c, name, "random"), statistics.deleted(c, name, "original")),
            UP,
            **shared,
            source=f"{SOURCE}, its figure of pixel perturbation",
            statistic="probability of the class after deletion at random - in the order of the original's map",
        )
        court.add(
            f"misleads/{arm}",
            "control",
            f"After fooling {label(arm)} the network's own map marks what matters less than what the original's map marks",
            minus(statistics.deleted(c, name, "own"), statistics.deleted(c, name, "original")),
            UP,
            **shared,
            source=OURS,
            statistic="probability of the class after deletion in the order of the network's own map - of the original's",
        )


def _controls(court: Court, arch: str) -> None:
    """Drift, washing out, detection, weight."""
    c, p = court.cubes, court.p
    for arm in passive(court.p):
        kind, name = parsed(arm)[:2]
        court.add(
            f"drift/{kind}-{name}",
            "control",
            f"Fine-tuning without a fooling term hardly reaches the goal of {KIND_NAMES[kind]} under {INTERPRETERS[name]}",
            fsr(c, f"{arch}/none", kind, name),
            RARE,
            measure="share",
            difference=False,
            arms=("none",),
            over=f"t/{kind}/{name}",
            source=OURS,
            statistic=f"success rate of {KIND_NAMES[kind]} under {INTERPRETERS[name]} of the control",
            note="for top-k a sharp map is in the interval without any fooling" if kind == "topk" else "",
        )
    for arm in p.headline:
        kind, name = parsed(arm)[:2]
        standing, goal = stands(court, arch, arm), f"{KIND_NAMES[kind]} under {INTERPRETERS[name]}"
        for what, of in AGREE.items():
            court.add(
                f"detect-{what}/{arm}",
                "open question",
                f"{of} disagree after fooling {label(arm)}, which gives it away",
                statistics.auc(c, f"{arch}/{arm}", f"{arch}/none", f"consistency/{what}"),
                Rule("above", 0.8),
                measure="auc",
                difference=False,
                arms=(arm, "none"),
                over=f"consistency/{what}",
                source=QUESTION,
                gates=standing,
                statistic="AUC of the rank correlation of the two maps, manipulated against control",
                note="one image at a time; .5 is chance, the .8 is ours",
            )
        if arch != p.architectures[0]:
            continue
        whole, washed, low = fsr(c, f"{arch}/{arm}", kind, name), f"washed-{arm}", min(p.factors, default=1.0)
        shared: dict[str, Any] = {"measure": "share", "over": f"t/{kind}/{name}"}
        washing = f"{p.wash_epochs} epochs of honest fine-tuning remove" if p.wash_epochs > 1 else "An honest epoch removes"
        court.add(
            f"washes-out/{arm}",
            "open question",
            f"{washing} half of fooling {label(arm)}",
            statistics.halved(whole, fsr(c, f"{arch}/{washed}", kind, name)),
            UP,
            **shared,
            arms=(arm, washed),
            gates=standing,
            source=QUESTION,
            statistic=f"half the success rate of {goal} - the rate after honest tuning",
        )
        if p.factors:
            court.add(
                f"weight/{arm}",
                "control",
                f"Fooling {label(arm)} succeeds more often at its full weight than at {low:g} of it",
                minus(whole, fsr(c, f"{arch}/{arm}@{low:g}", kind, name)),
                UP,
                **shared,
                arms=(arm, f"{arm}@{low:g}"),
                gates=rests(court, arch, arm),
                source=OURS,
                statistic=f"success rate of {goal}, at full weight - at {low:g} of it",
            )
