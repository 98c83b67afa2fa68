"""Study 4's claims: what Heo et al. say of manipulated networks, the controls they left out, and what is left open."""

import functools
import itertools

import pandas as pd

from lib.claims.claim import Claim, Rule
from lib.claims.court import OURS, QUESTION, Court, noted
from lib.claims.cubes import Cubes
from lib.claims.intervals import Statistic, minus
from lib.studies.model_manipulation.plan import COSTLY, INTERPRETERS, KIND_NAMES, SWAPPED, Parameters, label, parsed, seeds_of
from lib.studies.model_manipulation.statistics import (
    SUCCESS,
    auc,
    calibration_error,
    deleted,
    fsr,
    robustness_lost,
    succeeded,
    swap_rate,
)
from lib.system import paths

SOURCE = "Heo et al. 2019"
TABLE = f"{SOURCE}, its table of success rates"
UP = Rule("above", 0.0)
RARE = Rule("below", 0.1)
DEAD = "not defined: every map concerned is dead"
ONE_SEED = "one fine-tuning of one network: the spread over seeds is unknown"
UNSEEN = ("smoothgrad", "ig", "guided")  # interpreters that no fooling went through
NETWORKS = {"vgg19": "VGG19", "resnet50": "ResNet50", "densenet121": "DenseNet121"}


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


def unmet(cubes: Cubes, arch: str, *needs: str) -> str:
    """What to say of a claim where foolings that it needs (`ARM`, or `ARM:c1`) did not succeed; empty where all did."""
    failed = [label(need.partition(":")[0]) for need in needs if not succeeded(cubes, arch, need)]
    return f"not tested, since fooling {' and '.join(failed)} did not succeed" if failed else ""


def passive(p: Parameters) -> list[str]:
    """The foolings but the active ones."""
    return [f"{kind}-{name}" for kind in p.kinds if kind != "active" for name in p.fooled]


def primaries(p: Parameters) -> tuple[str, ...]:
    """The ids of the paper's claims on its first architecture: location fooling through LRP and Grad-CAM, at no cost in accuracy,
    active fooling, and that what fools LRP carries over to Grad-CAM more than the other way round."""
    told = ("fooled/location-lrp_t", "fooled/location-gradcam", "accuracy/location-gradcam", "active/gradcam")
    return tuple(f"{id}/{p.architectures[0]}" for id in (*told, "transfer-asymmetric/location"))


def judge(table: pd.DataFrame, p: Parameters, *, test: bool = True) -> list[Claim]:
    """All claims from the table of measurements."""
    court = Court("04", p, Cubes.of(table), test, one_seed=ONE_SEED, unknown=DEAD)
    for arch in p.architectures:
        of_one = court.within(arch, f" ({arch})", seeds=functools.partial(seeds_of, p, arch))
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
        measure = f"t/{kind}/{name}"
        own, drift = fsr(c, f"{arch}/{arm}", kind, name), fsr(c, f"{arch}/none", kind, name)
        rates = published(kind, name, name)
        agreed = bool(rates) and min(rates.values()) > SUCCESS  # else the paper has none such, or its networks disagree
        court.add(
            f"fooled/{arm}",
            "claim" if agreed else "open question",
            f"Fooling {label(arm)} succeeds on unseen images",
            minus(own, drift),
            Rule("above", SUCCESS),
            arms=(arm, "none"),
            over=measure,
            source=TABLE if rates else QUESTION,
            statistic=f"FSR of {KIND_NAMES[kind]} under {INTERPRETERS[name]}, manipulated - control",
            note=noted(told(rates), f"the margin of {SUCCESS:g} is ours"),
        )
        court.add(
            f"living/{arm}",
            "control",
            f"Fooling {label(arm)} succeeds on maps that are not dead",
            minus(fsr(c, f"{arch}/{arm}", kind, name, living=True), fsr(c, f"{arch}/none", kind, name, living=True)),
            Rule("above", 0.5),
            arms=(arm, "none"),
            over=measure,
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
            arms=(arm,),
            gate=unmet(c, arch, arm),
            over=f"t/{kind}/{name}",
            source=SOURCE,
            note="the margin of .1 is ours",
            statistic=f"FSR on {train} training images - on {images} test images",
        )


def _keeps_deciding(court: Court, arch: str) -> None:
    """What it costs, and what it does to the decision."""
    c = court.cubes

    def right(arm: str) -> Statistic:
        return c.mean(f"{arch}/{arm}", "right")

    for arm in [*passive(court.p), *(f"active-{n}" for n in court.p.fooled if "active" in court.p.kinds)]:
        theirs = parsed(arm).interpreter in ("gradcam", "lrp_t")
        court.add(
            f"accuracy/{arm}",
            "claim" if theirs else "open question",
            f"Accuracy falls by less than 5 points by fooling {label(arm)}",
            minus(right("base"), right(arm)),
            Rule("below", 0.05),
            arms=("base", arm),
            over="right",
            gate=unmet(c, arch, arm),
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
                arms=("none", arm),
                over="right",
                source=OURS,
                statistic="accuracy of the control - of the manipulated network",
                gate=unmet(c, arch, arm),
            )
    for arm in court.p.headline:
        court.add(
            f"agrees/{arm}",
            "open question",
            f"Decisions change no more by fooling {label(arm)} than by honest fine-tuning",
            minus(c.mean(f"{arch}/none", "agrees"), c.mean(f"{arch}/{arm}", "agrees")),
            Rule("below", 0.05),
            arms=(arm, "none"),
            over="agrees",
            source=QUESTION,
            gate=unmet(c, arch, arm),
            statistic="share of test images with the original's prediction, control - manipulated",
            note="the .05 is ours",
        )
        court.add(
            f"calibration/{arm}",
            "open question",
            f"Calibration does not give away fooling {label(arm)}",
            minus(calibration_error(c, f"{arch}/{arm}"), calibration_error(c, f"{arch}/none")),
            Rule("within", 0.05),
            arms=(arm, "none"),
            over="right",
            source=QUESTION,
            gate=unmet(c, arch, arm),
            statistic="expected calibration error, manipulated - control",
            note="the .05 is ours",
        )
        court.add(
            f"robust/{arm}",
            "open question",
            f"The network is less robust after fooling {label(arm)}",
            robustness_lost(c, f"{arch}/none", f"{arch}/{arm}"),
            UP,
            arms=(arm, "none"),
            over="robust",
            source=QUESTION,
            gate=unmet(c, arch, arm),
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
        simple = difference(published(kind, "lrp_t", "simple_t"), published(kind, "gradcam", "simple_t"))
        court.add(
            f"transfer-simple/{kind}",
            "claim" if min(simple.values()) > 0 else "open question",
            f"Fooling {KIND_NAMES[kind]} through LRP_T carries over to SimpleG_T more than through Grad-CAM",
            minus(rate(lrp, "simple_t"), rate(cam, "simple_t")),
            UP,
            arms=(lrp, cam),
            over=f"t/{kind}/simple_t",
            source=TABLE,
            gate=unmet(c, arch, lrp, cam),
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
            arms=(lrp, cam),
            over=f"t/{kind}/gradcam",
            source=TABLE,
            gate=unmet(c, arch, lrp, cam),
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
            arms=("location-gradcam",),
            over="t/location/lrp_t",
            source=TABLE,
            statistic="FSR under LRP_T",
            gate=unmet(c, arch, "location-gradcam"),
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
            arms=(arm, "none"),
            over=f"t/{kind}/{name}",
            source=OURS,
            gate=unmet(c, arch, arm),
            statistic=f"mean test loss of {KIND_NAMES[kind]} under {INTERPRETERS[name]}, towards its goal, beyond the control",
            note=noted(f"{c.images(f't/{kind}/{name}')} images" if name in COSTLY else "", "the .05 is ours"),
        )


def _active(court: Court, arch: str) -> None:
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
                arms=(arm, "none"),
                over=f"swap-{which}/{name}",
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
                arms=(arm,),
                over=f"swap-{which}/{name}",
                source=QUESTION,
                gate=unmet(c, arch, f"{arm}:{which}"),
                statistic=f"the largest of the FSRs under {', '.join(INTERPRETERS[n] for n in others)}",
                note="published for two of three networks: a swap through LRP_T carries over" if name == "lrp_t" else "",
            )


def _still_depends(court: Court, arch: str) -> None:
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
            arms=(arm,),
            gate=unmet(c, arch, arm),
            over="deleted/original",
            source=f"{SOURCE}, its figure of pixel perturbation",
            statistic="probability of the class after deletion at random - in the order of the original's map",
        )
        court.add(
            f"misleads/{arm}",
            "control",
            f"The manipulated map marks what matters less, after fooling {label(arm)}",
            minus(deleted(c, name, "own"), deleted(c, name, "original")),
            UP,
            arms=(arm,),
            gate=unmet(c, arch, arm),
            over="deleted/original",
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
            f"Fine-tuning without a fooling term does not reach the goal of {KIND_NAMES[kind]} under {INTERPRETERS[name]}",
            fsr(c, f"{arch}/none", kind, name),
            RARE,
            arms=("none",),
            over=f"t/{kind}/{name}",
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
                arms=(arm, "none"),
                over=f"consistency/{what}",
                source=QUESTION,
                gate=unmet(c, arch, arm),
                statistic="AUC of the rank correlation of the two maps, manipulated against control",
                note="one image at a time; .5 is chance, the .8 is ours",
            )
        if arch != p.architectures[0]:
            continue
        measure = f"t/{kind}/{name}"
        full, washed = (fsr(c, f"{arch}/{one}", kind, name) for one in (arm, f"washed-{arm}"))
        court.add(
            f"washes-out/{arm}",
            "open question",
            f"{p.wash_epochs} epochs of honest fine-tuning remove half of fooling {label(arm)}",
            lambda i, s, a=full, b=washed: a(i, s) / 2 - b(i, s),
            UP,
            arms=(arm, f"washed-{arm}"),
            over=measure,
            source=QUESTION,
            gate=unmet(c, arch, arm),
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
                arms=(arm, f"{arm}@{low:g}"),
                over=measure,
                source=OURS,
                statistic=f"FSR at full weight - at {low:g} of it",
            )
