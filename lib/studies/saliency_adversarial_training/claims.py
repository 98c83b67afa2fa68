"""Study 5's claims: what Mangla et al. say of training with maps, the controls they left out, and what is left open.

Gates, chosen before any verdict was drawn with them:

* `clean`: the original is right on more than .6 of clean images; below, there is little to defend;
* `pgd`, `pgd-clear`: PGD training, which is known to protect, gains more than .05 of robust accuracy, and its interval lies
  above 0; else training is too short, or the attack too weak or too strong, to speak of what stands beside PGD or on it.
"""

import functools
import itertools
import math

import numpy as np
import pandas as pd

from lib.claims import measures
from lib.claims.claim import Claim, Kind, Rule
from lib.claims.court import OURS, QUESTION, Court, noted
from lib.claims.cubes import Cubes
from lib.claims.intervals import Interval, minus, over, parts, together
from lib.studies.saliency_adversarial_training import passes, statistics
from lib.studies.saliency_adversarial_training.plan import NAMES, TEACHERS, Arm, Parameters, config_of, label, parsed, seeds_of
from lib.studies.saliency_adversarial_training.published import gaps, printed, said, theirs, without_misprint
from lib.studies.saliency_adversarial_training.terms import (
    ABLATION,
    COUNTED,
    FAIR,
    OVERSTATED,
    SMALL,
    SOURCE,
    TABLES,
    UP,
    add,
    better,
    kind_of,
    sat,
)


def gates(court: Court) -> None:
    """The original network has learnt its task; PGD training protects. See the module's docstring."""
    c, p = court.cubes, court.p
    right = float(c.values["original", "clean", 0.0].mean())
    court.gate("clean", "the original network is right on clean images", right, Rule("above", 0.6))
    gain = Interval(math.nan, math.nan, math.nan, "")
    if "pgd" in p.arms:  # its variance over runs is moderated by those of the other arms with several
        arms = dict.fromkeys(("pgd", *(a for a in p.headline if a != "original")))
        gains = {a: minus(*(statistics.robust(c, one, p) for one in (a, "original"))) for a in arms}
        of = measures.measure("accuracy", difference=True)
        images, seeds = c.images("pgd"), {a: min(seeds_of(p, one) for one in (a, "original")) for a in arms}
        gain = together([parts(gains[a], images=images, seeds=seeds[a], draws=court.draws, of=of) for a in arms])[0]
    says = "training with PGD gains robust accuracy" + ("" if "pgd" in p.arms else " (name pgd in arms)")
    court.gate("pgd", says, gain.value, Rule("above", 0.05))
    court.gate("pgd-clear", f"{says}, by the lower end of the interval", gain.low, UP)


def primaries(p: Parameters) -> tuple[str, ...]:
    """The ids of the paper's claims: SAT with a standard teacher's SmoothGrad protects, and better than noise; beside PGD too;
    an adversarially trained teacher's maps protect better; and it is cheap."""
    arm = "sat-std-smoothgrad"
    return (f"helps/{arm}", f"over-uniform/{arm}", "sat-over-noise/pgd", "better-teacher/smoothgrad", f"cheap/{arm}")


def beside(p: Parameters) -> dict[str, tuple[str, str]]:
    """Maps are made once: what that adds to an epoch depends on how many there are."""
    arm = "sat-std-smoothgrad"
    return {f"cheap/{arm}": (f"cheap-{passes.EPOCHS}/{arm}", f"over the paper's {passes.EPOCHS} epochs")}


def judge(table: pd.DataFrame, p: Parameters, *, test: bool = True) -> list[Claim]:
    """All claims from the table of measurements."""
    court = Court("05", p, Cubes.of(table), test, seeds=functools.partial(seeds_of, p), primaries=primaries(p))
    gates(court)
    _helps(court)
    _noise(court)
    _maps_matter(court)
    _combined(court)
    _better_maps(court)
    _cost(court)
    _curriculum(court)
    _switches(court)
    _honest(court)
    return court.rows


def _helps(court: Court) -> None:
    """(i) Maps instead of attacks make a network more robust."""
    for arm in sat(court.p):
        found = gaps(arm, "original")
        better(court, f"helps/{arm}", kind_of(found), arm, "original", source=TABLES, note=said(found))


def _noise(court: Court) -> None:
    """(ii) Maps beside noise of the same size: uniform, as published, and signs, the matched control."""
    for arm in sat(court.p):
        found = gaps(arm, "uniform")
        weak = not parsed(arm).teacher
        better(
            court,
            f"over-uniform/{arm}",
            kind_of(found),
            arm,
            "uniform",
            source=TABLES,
            note=noted(said(found), SMALL if weak else ""),
        )
        signs = printed("cifar-100", "sign", table="alpha")
        own = theirs(arm).get("cifar-100")
        both = own is not None and signs is not None
        gap = {"cifar-100": float((without_misprint(own) - signs).loc[[1, 2, 3]].mean())} if both else {}
        if arm == "sat-std-gradient":
            better(
                court,
                "awkward",
                "claim",
                "sign",
                arm,
                source=ABLATION,
                note=said({d: -v for d, v in gap.items()}),
                statement="Random signs of the same size protect against PGD better than maps of a standard teacher's gradient",
            )
        else:
            better(court, f"over-sign/{arm}", "open question", arm, "sign", source=QUESTION, note=said(gap))
    better(court, "noise", "claim", "uniform", "original", source=TABLES, note=said(gaps("uniform", "original")))
    better(
        court,
        "signs",
        "control",
        "sign",
        "uniform",
        source=ABLATION,
        note="signs have three times the variance of uniform noise; published for CIFAR-100 at 1/255: .360 and .332",
    )


def _maps_matter(court: Court) -> None:
    """Is it the image's own map?"""
    for arm in (a for a in court.p.arms if a.endswith(("@another", "@inverted"))):
        better(court, f"own-map/{arm}", "control", arm.partition("@")[0], arm, source=OURS)
    for arm in (a for a in sat(court.p) if not statistics.same(court.cubes, a)):
        own, another = (over(court.cubes.values[arm, m, 0.0]) for m in ("cosine", "cosine-another"))
        add(
            court,
            f"looks-like-attack/{arm}",
            "open question",
            f"Steps along −s, s the image's own map, look more like an attack on the student than another map's ({label(arm)})",
            minus(own, another),
            UP,
            arms=(arm,),
            measure="cosine",
            over="clean",
            source=f"{SOURCE}, a script of their code",
            statistic="cosine of the sign of the student's loss gradient with −s, s the map: own map - another image's",
        )


def _combined(court: Court) -> None:
    """(iii) Half the batches from maps instead of attacks."""
    for base in ("pgd", "trades-1", "trades-6"):
        maps, noise, signs = f"{base}+sat", f"{base}+uniform", f"{base}+sign"
        ours = base == "trades-6"  # the paper combines with beta = 1
        for id, a, b in (("sat-over-noise", maps, noise), ("noise-over-none", noise, base), ("sat-over-none", maps, base)):
            found = {} if ours or (base == "trades-1" and b == base) else gaps(a, b, court.p.mix_maps)
            better(
                court,
                f"{id}/{base}",
                "control" if b == base and base != "pgd" else kind_of(found),
                a,
                b,
                source=f"{SOURCE}, its tables of weak maps" if found else OURS if b == base else QUESTION,
                note=noted(said(found), SMALL if found and id == "sat-over-noise" else ""),
            )
        better(court, f"sat-over-sign/{base}", "control", maps, signs, source=OURS)
    for mix in ("sat", "uniform"):
        found = gaps(f"trades-1+{mix}", "trades-6", court.p.mix_maps)
        better(
            court,
            f"trades-as-published/{mix}",
            kind_of(found),
            f"trades-1+{mix}",
            "trades-6",
            source=TABLES,
            note=noted(said(found), "published with beta 6 without and 1 with the mix, which does not compare like with like"),
        )


def _at_smallest_radius(court: Court, id: str, a: str, b: str) -> None:
    """`a` is more robust than `b` at the smallest radius, where the paper's table says so."""
    p = court.p
    if not {a, b} <= set(p.arms):
        return
    x, y = (theirs(arm).get("cifar-100") for arm in (a, b))
    gap = float(x[1] - y[1]) if x is not None and y is not None else float("nan")
    eps = p.eps_grid[0]
    add(
        court,
        id,
        kind_of({"cifar-100": gap}),
        f"Trained as {label(a)}, a network withstands PGD at eps {eps:g}/255 better than trained as {label(b)}",
        minus(court.cubes.mean(a, "pgd", eps), court.cubes.mean(b, "pgd", eps)),
        UP,
        arms=(a, b),
        pool="smallest radius",
        source=f"{SOURCE}, its table of CIFAR-100",
        statistic=f"accuracy under PGD-{p.steps} at eps {eps:g}/255, {label(a)} - {label(b)}",
        note=f"published: cifar-100 {gap:+.3f} at 1/255" if np.isfinite(gap) else "",
    )


def _better_maps(court: Court) -> None:
    """(iv) Better maps and better teachers help."""
    for teacher in TEACHERS:
        order = [f"sat-{teacher}-{a}" for a in ("smoothgrad", "ig", "gradient")]
        for a, b in itertools.pairwise(order):
            _at_smallest_radius(court, f"better-map/{a}/over-{parsed(b).attribution}", a, b)
    for attribution in NAMES:
        a, b = (f"sat-{t}-{attribution}" for t in ("adv", "std"))
        _at_smallest_radius(court, f"better-teacher/{attribution}", a, b)


def _cost(court: Court) -> None:
    """(v) What it costs, counted in passes, which are the same on every machine; seconds stand in the report's tables."""
    p = court.p
    for id, statement, arm, against, epochs, rule, note in passes.compared(p, sat(p)):
        if {arm, against} <= set(p.every):
            lengths = (config_of(p, a, 0).model_copy(update={"epochs": epochs}) for a in (arm, against))
            taken = [passes.of(config).total for config in lengths]
            court.add(
                id,
                "check",
                statement,
                lambda i, s, share=taken[0] / taken[1]: share,
                rule,
                source=SOURCE,
                statistic=f"forward and backward passes of an image in an epoch, {label(arm)} / {label(against)}",
                note=noted(COUNTED.format(*taken), FAIR if any(_tosses(parsed(a)) for a in (arm, against)) else "", note),
                measure="ratio",
                difference=False,
                trained=False,
                over=2,
                seeds=1,
                n="exact",
            )


def _tosses(arm: Arm) -> bool:
    """Whether a coin chooses between the arm's mix and its attack, batch by batch."""
    return arm.base != "plain" and arm.mix != "none"


ALPHA_NOTE = {"std": (".205 against .024", ".352 and .205"), "adv": (".343 against .007", ".378 and .343")}
EPS0_NOTE = {"std": ".205 and .045", "adv": ".343 and .138"}


def _curriculum(court: Court) -> None:
    """What alpha and eps0 do, as the authors' early plots have it for the gradient of two teachers."""
    p, c, eps = court.p, court.cubes, court.p.eps_grid[0]
    smallest, later = [v for v in p.alphas if v < 1e-6], [v for v in p.alphas if v > p.alpha10]
    larger = [v for v in p.eps0s if v > p.eps]
    for arm in p.sweep:
        found = parsed(arm)
        known = found.attribution in ("gradient", "guided")
        kind: Kind = "claim" if known else "open question"
        source = ABLATION if known else QUESTION
        if smallest:
            note = f"published for CIFAR-100 at 1/255: {ALPHA_NOTE[found.teacher][0]}" if known else ""
            says = f"{label(arm)} withstands PGD better with random signs at first than with the map's alone (α → 0)"
            pure = f"{arm}@a{smallest[0]:g}"
            better(court, f"pure-maps/{arm}", kind, arm, pure, source=source, statement=says, note=note)
        if later:
            plots = "published for CIFAR-100, alpha^10 of .8 against .6 at 1/255"
            note = f"{plots}: {ALPHA_NOTE[found.teacher][1]}" if known else ""
            share = f"α¹⁰, the share of random signs in the tenth epoch, is {later[-1]:g} instead of {p.alpha10:g}"
            says = f"{label(arm)} withstands PGD better where maps come later: {share}"
            late = f"{arm}@a{later[-1]:g}"
            better(court, f"later-maps/{arm}", kind, late, arm, source=source, statement=says, note=note)
        if larger:
            strong, attack = f"{arm}@e{larger[-1]:g}", f"PGD at eps {eps:g}/255"
            note = f"published for CIFAR-100, 8/255 against 16/255: {EPS0_NOTE[found.teacher]}" if known else ""
            add(
                court,
                f"collapse/{arm}",
                kind,
                f"{label(arm)} with steps ε₀ of {p.eps:g}/255 withstands {attack} better than with {larger[-1]:g}/255",
                minus(c.mean(arm, "pgd", eps), c.mean(strong, "pgd", eps)),
                Rule("above", 0.1),
                arms=(arm, strong),
                source=source,
                note=noted(note, "the .1 is ours"),
                statistic=f"accuracy under PGD-{p.steps} at eps {eps:g}/255, eps0 {p.eps:g}/255 - {larger[-1]:g}/255",
            )


def _switches(court: Court) -> None:
    """As released beside as published: does a slip matter?"""
    for arm in court.p.switches:
        whole = arm.partition("@")[0]
        better(
            court,
            f"switch/{arm}",
            "open question",
            arm,
            whole,
            source=QUESTION,
            rule=Rule("within", 0.05),
            statement=f"Trained as {label(arm)}, a network withstands PGD as trained as {label(whole)}, within 5 points",
            note="the .05 is ours",
        )


def _honest(court: Court) -> None:
    """Attacks that the paper did not run, and the accuracy that it does not tell."""
    c, p = court.cubes, court.p
    low, high = p.strong_eps[0], p.strong_eps[-1]
    told = f"PGD-{p.strong_steps}, {p.restarts} restarts, two losses, eps"
    n = c.images("strong")
    for arm in (a for a in sat(court.p) if a in p.headline):
        add(
            court,
            f"strong/{arm}",
            "control",
            f"Under the strong attack too {label(arm)} is more robust than the original",
            minus(c.mean(arm, "strong", low), c.mean("original", "strong", low)),
            UP,
            arms=(arm, "original"),
            over="strong",
            source=OURS,
            statistic=f"accuracy under {told} {low:g}/255, {label(arm)} - original",
        )
        add(
            court,
            f"clean/{arm}",
            "control",
            f"{label(arm)} costs accuracy on clean images",
            minus(c.mean("original", "clean"), c.mean(arm, "clean")),
            UP,
            arms=("original", arm),
            over="clean",
            source=OURS,
            statistic=f"clean accuracy, original - {label(arm)}",
            note="the paper tells no clean accuracy",
        )
    for arm in p.headline:
        weak, strong = c.values[arm, "pgd", high][:, :n], c.values[arm, "strong", high]
        add(
            court,
            f"overstated/{arm}",
            "control",
            f"PGD-{p.steps} overstates the robustness of {label(arm)} at eps {high:g}/255 by more than two points",
            over(weak - strong),
            OVERSTATED,
            arms=(arm,),
            over="strong",
            difference=False,  # a share of the images: what the strong attack leaves, PGD leaves too
            source=OURS,
            statistic=f"accuracy under PGD-{p.steps} at eps {high:g}/255 - under {told} {high:g}/255",
            note="the .02 is ours",
        )
        if (arm, "ensemble", high) in c.values:
            few = c.images("ensemble")
            add(
                court,
                f"overstated-ensemble/{arm}",
                "control",
                f"PGD-{p.steps} overstates the robustness of {label(arm)} at eps {high:g}/255 by more than two points "
                "beside the ensemble too",
                over(weak[:, :few] - c.values[arm, "ensemble", high]),
                OVERSTATED,
                arms=(arm,),
                over="ensemble",
                difference=False,
                source=OURS,
                statistic=f"accuracy under PGD-{p.steps} at eps {high:g}/255 - under auto-PGD on two losses and Square",
                note="the .02 is ours",
            )
        moved = c.values[arm, "transfer", high]
        moved = moved * c.values[arm, "clean", 0.0][:, : moved.shape[1]]  # as under attack: what is wrong as it is stays wrong
        add(
            court,
            f"no-masking/{arm}",
            "control",
            f"Attacks on another network fool {label(arm)} no more than attacks on itself do (by two points at most)",
            over(moved - strong),
            Rule("above", -0.02),
            arms=(arm,),
            over="strong",
            source=OURS,
            statistic=f"accuracy at eps {high:g}/255, attack transferred from an original - {told} {high:g}/255",
            note="if not, its gradients hide it from PGD; the .02 is ours",
        )
