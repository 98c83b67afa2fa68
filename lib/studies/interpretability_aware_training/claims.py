"""Study 3's claims: what Boopathy et al. say of interpretability-aware training, the controls, and what is left open.

What must hold for them to mean anything, chosen before any number was seen:

* Normal is right on .9 of clean digits, on .7 of other images (published: 1.000 on MNIST, .765 on CIFAR-10, .770 on
  Restricted ImageNet): it was trained;
* Adv is more robust than Normal at the training radius, the interval of the difference above .1, and so is TRADES where it
  is the rival: attacks were learnt where they were trained on;
* beyond that radius one of two networks at least keeps .05 of the images, ten of 200: where both keep none they are alike;
* tau is the mean of 30 images at least, of networks that are right on half as many clean images as Normal at least: the
  maps of a collapsed network do not move;
* JPEG's attack takes from Normal half of what it has right at least: a radius that leaves it alone tells nothing;
* snow's steps leave a network less accuracy than their random start does (asked later, when they were found to leave more).

Of networks that the authors published the first two are not asked: they were trained to their end.

That attacked images in the classification loss make robust is known (Madry et al. 2018): here a control of the training.
What the paper adds is robustness without them.
"""

import functools
import itertools
from typing import Any

import pandas as pd

from lib.attacks import unforeseen
from lib.claims.claim import Claim, Kind, Rule
from lib.claims.court import OURS, Court, noted
from lib.claims.cubes import Cubes
from lib.claims.intervals import Statistic, minus
from lib.networks import released
from lib.studies.interpretability_aware_training import authors, plan, statistics
from lib.studies.interpretability_aware_training.plan import Parameters, arch_of, groups, label, method_of, seeds_of
from lib.studies.interpretability_aware_training.terms import (
    BEYOND,
    FAR,
    FAR_BETTER,
    INT2,
    INTERPRETED,
    KEEPS,
    NONE,
    OVERSTATED,
    PROPOSITION,
    RIVALS,
    SOURCE,
    SURVIVING,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TWO_CLASS,
    UP,
    Whose,
    better,
    left,
    said,
)

ADDED = ("int-one-class", "int", "int2")  # of the INTERPRETED, without attacked images in the cross-entropy
DIGITS = ("digits", "mnist")
LEARNT, TAKEN = Rule("above", 0.5), Rule("below", 0.5)
KNOWN = "attacked images in the loss are known to make robust"


def primaries(p: Parameters) -> tuple[str, ...]:
    """The ids of the paper's claims: Int withstands attacks, more than Adv beyond the radius that both were trained at, all
    classes do more than one, Int2 more than Int, and its explanations keep their order."""
    return ("robust/int", "beyond/int/over-adv", "two-class/int", "int2-over-int", "tau-released/int2/over-adv")


def beside(p: Parameters) -> dict[str, tuple[str, str]]:
    """The paper attacks once, without a random start."""
    return {"beyond/int/over-adv": ("overstated/int", "random starts take more than .02 of all images from Int there")}


def judge(table: pd.DataFrame, p: Parameters, *, test: bool = True) -> list[Claim]:
    """All claims from the table of measurements; of the authors' networks, where it has rows of arms `released:ARM`."""
    ours, theirs = statistics.apart(table)
    named = primaries(p)  # on the study's own networks, and on those that the authors published
    named = (*named, *(f"published/{id}" for id in named))
    whole = Whose("03", p, Cubes.of(ours), test, seeds=functools.partial(seeds_of, p), primaries=named)
    for group in groups(p):
        _compared(_of(whole, ours, group))
    if len(theirs):
        authors.judge(whole.within("", cubes=Cubes.of(theirs), seeds=1, over="paper"))
    return whole.rows


def _of(whole: Whose, table: pd.DataFrame, group: Parameters) -> Whose:
    """The court of one of plan.groups: of the authors' networks by their arms alone, the first of their architectures, that of
    table 1, under the ids of the paper's claims, which the paper's own protocol has where these networks meet it too."""
    table = table[table.arm.isin(group.arms)]
    if not arch_of(group.arms[0]):
        return whole.within("", p=group, cubes=Cubes.of(table))
    family = plan.family(group, group.arms[0])
    arms, headline = (tuple(map(method_of, names)) for names in (group.arms, group.headline))
    short = group.model_copy(update={"arms": arms, "headline": headline, "seeds": 1, "runs": ()})
    first = family == released.families(group.dataset)[0] and not group.published_networks
    cubes = Cubes.of(table.assign(arm=table.arm.astype(str).map(method_of)))
    words = f"the authors' {family.name}"
    return whole.within("" if first else family.arch, p=short, cubes=cubes, seeds=1, whose=words)


def _compared(whole: Whose) -> None:
    """All claims about arms that are compared with each other."""
    p = whole.p
    _gates(whole)
    court = whole.within("", gates=() if whole.whose else ("clean",))
    _robust(court)
    _beyond(court)
    _clean(court)
    _tau(court)
    _tau_controls(court)
    _proposition(whole)
    _tight(court)
    if p.unforeseen_images:
        _jpeg(court)
        _unforeseen(court)
    if whole.whose:
        authors.as_printed(court)


# what must hold --------------------------------------------------------------------------------------------------------


def _gates(court: Court) -> None:
    """Of Normal, of what others are compared with, and of the networks whose maps are."""
    p, cubes = court.p, court.cubes
    normal = statistics.right(cubes, "normal", "clean")
    floor = Rule("above", 0.9 if p.dataset in DIGITS else 0.7)
    court.gate("clean", "Normal is right on enough clean images", normal, floor)
    for arm, low in statistics.gains(cubes, p, court.draws).items():
        says = f"{label(arm)} stands clearly above Normal under the strongest PGD: lower end of the difference's interval"
        court.gate(f"trained-{arm}", says, low, FAR)
    for arm in p.arms:
        says = f"{label(arm)} is right on at least half as many clean images as Normal"
        court.gate(f"learnt-{arm}", says, statistics.right(cubes, arm, "clean") / max(normal, 1e-9), LEARNT)
        count, says = statistics.surviving(cubes, arm, p.eps).min(), f"at least 30 images of {label(arm)} keep their prediction"
        court.gate(f"surviving-{arm}", f"{says} under the attack on explanations", int(count), SURVIVING)


# robustness ------------------------------------------------------------------------------------------------------------


def _robust(court: Court) -> None:
    """At the radius of training, under the strongest PGD."""
    p, where = court.p, f"eps {court.p.eps:.3g}"
    told = f"accuracy at {where} under the strongest of plain PGD and {p.restarts} random starts with two losses"
    at = functools.partial(better, court, how="strong", eps=p.eps, told=told, where=where)
    for arm in (a for a in p.arms if a not in ("normal", "ig-norm")):
        kind: Kind = "claim" if arm in ADDED else "control"
        gates, note = (("trained-adv",), "") if arm in ADDED else ((), KNOWN)
        note = noted("the margin of .1 is ours", note)
        at(f"robust/{arm}", kind, FAR_BETTER, (arm, "normal"), rule=FAR, gates=gates, note=note)
    # differences of two networks that were trained on attacks, which vary alike
    between = functools.partial(at, kind="claim", gates=("trained-adv",), pool="inside")
    for arm, says in TWO_CLASS.items():
        if court.there(arm, "int-one-class"):
            between(f"two-class/{arm}", statement=says, arms=(arm, "int-one-class"))
    if court.there("int2", "int"):
        between("int2-over-int", statement=INT2, arms=("int2", "int"))
    for arms in itertools.product(INTERPRETED, RIVALS):
        if court.there(*arms):
            says = "At the training radius {0} is right more often than {1} under the strongest PGD ({2})"
            note, gates = "the published tables of the three data sets disagree about this", (f"trained-{arms[1]}",)
            at(f"inside/{arms[0]}/over-{arms[1]}", "open question", says, arms, gates=gates, note=note)


def _beyond(court: Court) -> None:
    """The paper's claim of robustness to stronger attacks, by its own attack, and whether it is one."""
    p, eps = court.p, court.p.beyond
    where = f"eps {eps:.3g}"
    at = functools.partial(better, court, eps=eps, where=where)
    plain, strong = (f"accuracy at {where} under {how}" for how in (f"the paper's PGD-{p.pgd_steps}", "the strongest PGD"))
    for arms in (a for a in itertools.product(INTERPRETED, RIVALS) if court.there(*a)):
        id, trained = f"{arms[0]}/over-{arms[1]}", f"trained-{arms[1]}"
        note = "what is published here rests on one attack without a random start; see `beyond-restarts`"
        gates = (trained, left(court, "plain", eps, *arms))
        at(f"beyond/{id}", "claim", BEYOND, arms, "plain", told=plain, gates=gates, note=note)
        says = "Beyond the training radius {0} is right more often than {1} under random restarts too ({2})"
        source, gates = f"{TABLE_1}; the attack is ours", (trained, left(court, "strong", eps, *arms))
        at(f"beyond-restarts/{id}", "control", says, arms, "strong", told=strong, source=source, gates=gates)
    for arm in (a for a in p.arms if a not in ("normal", "ig-norm")):
        add = functools.partial(court.add, kind="control", source=OURS, measure="accuracy", arms=(arm,), over="strong")
        add(
            f"overstated/{arm}",
            statement=f"PGD without a random start overstates {label(arm)} beyond the training radius by two points ({where})",
            compute=minus(court.cubes.mean(arm, "plain", eps), court.cubes.mean(arm, "strong", eps)),
            rule=OVERSTATED,
            difference=False,  # a share of the images: what the strongest PGD leaves, PGD leaves too
            statistic=f"accuracy at {where}, paper's PGD - strongest PGD",
            gates=(left(court, "plain", eps, arm),),
            note="the margin of .02 is ours",
        )
        if court.cubes.levels("ensemble"):
            add(
                f"overstated-ensemble/{arm}",
                statement=f"PGD without a random start overstates {label(arm)} by two points beside the ensemble too ({where})",
                compute=minus(court.cubes.mean(arm, "plain", eps), court.cubes.mean(arm, "ensemble", eps)),
                rule=OVERSTATED,
                difference=False,
                over="ensemble",
                statistic=f"accuracy at {where}, paper's PGD - the ensemble, on its images",
                gates=(left(court, "plain", eps, arm),),
                note="the margin of .02 is ours; the ensemble: auto-PGD on two losses, and Square",
            )
        if arm in INTERPRETED:
            add(
                f"left-beyond/{arm}",
                statement=f"Beyond the training radius random restarts leave {label(arm)} a tenth of images at most ({where})",
                compute=court.cubes.mean(arm, "strong", eps),
                rule=Rule("below", 0.1),
                difference=False,
                statistic=strong,
            )


def _clean(court: Court) -> None:
    """What robustness costs."""
    says, note = "{1} is right less often than {0} on clean images", "the published tables disagree about these orders"
    for arms in (("normal", "adv"), ("adv", "int"), ("adv", "int2"), ("int2", "int2-adv")):
        if court.there(*arms):
            id = f"clean/{arms[0]}-over-{arms[1]}"
            better(court, id, "control", says, arms, "clean", 0.0, "clean accuracy", source=OURS, note=note)


# explanations ----------------------------------------------------------------------------------------------------------

# forms of the attack on the explanation: of what, over what, and whose
FORMS = {
    "released": (KEEPS, "over the images whose prediction stays, as published", TABLE_3),
    "l1": (
        "Under the attack's L1 form {0}'s explanation keeps its order better than {1}'s over all images ({2})",
        "over all images, the prediction kept, L1 form",
        f"{SOURCE}, its formula of the attack; over all images is ours",
    ),
    "topk": (
        "Under the attack's top-k form {0}'s explanation keeps its order better than {1}'s over all images ({2})",
        "over all images, the prediction kept, top-k form",
        OURS,
    ),
    "ig": (
        "On images that attack CAM, {0}'s integrated gradients keep their order better than {1}'s ({2})",
        "of integrated gradients on the L1 form's images",
        OURS,
    ),
}


def _tau(court: Court) -> None:
    """Attacks on the explanation: whose keeps its order."""
    p, cubes = court.p, court.cubes
    for arm, rival in itertools.product(INTERPRETED, RIVALS):
        for form, (says, over_what, source) in FORMS.items():
            if arm == "int-one-class" or not court.there(arm, rival) or (rival == "trades" and source == OURS):
                continue
            both, released = (arm, rival), form == "released"
            gates = (f"trained-{rival}", f"learnt-{arm}", f"learnt-{rival}")
            own, other = ((a, f"tau/{form}", p.eps) for a in both)
            left = [statistics.survivors(cubes, a, p.eps) for a in both] if released else []
            court.add(
                f"tau-{form}/{arm}/over-{rival}",
                "control" if source == OURS else "claim",
                said(says, both, f"Kendall's tau, eps {p.eps:.3g}"),
                minus(*left) if released else cubes.less(own, other),
                UP,
                measure="correlation",
                arms=both,
                over=f"tau/{form}",
                source=source,
                statistic=f"Kendall's tau at eps {p.eps:.3g} {over_what}, {label(arm)} - {label(rival)}",
                gates=(*gates, *(f"surviving-{a}" for a in both if released)),
                note=statistics.survived(cubes, both, p.eps) if released else "",
            )


def _tau_controls(court: Court) -> None:
    """Attacks on the explanation: what the size of the step does, what noise does, what counting survivors alone does."""
    p, cubes = court.p, court.cubes
    low, high, eps = min(p.aai_eps), max(p.aai_eps), f"eps {p.eps:.3g}"
    for arm in p.headline:
        name = label(arm)
        add = functools.partial(court.add, kind="control", rule=UP, source=OURS, measure="correlation", arms=(arm,))
        add(
            f"tau-falls/{arm}",  # a larger ball holds the smaller one, so that this is all but certain
            statement=f"The explanation of {name} keeps less of its order the larger the attack's radius (Kendall's tau)",
            compute=cubes.less((arm, "tau/l1", low), (arm, "tau/l1", high)),
            over="tau/l1",
            gates=(f"learnt-{arm}",),
            statistic=f"Kendall's tau over all images, L1 form, eps {low:.3g} - eps {high:.3g}",
        )
        add(
            f"tau-noise/{arm}",
            statement=f"The attack disorders the explanation of {name} more than random signs do (Kendall's tau, {eps})",
            compute=cubes.less((arm, "tau/noise", p.eps), (arm, "tau/l1", p.eps)),
            over="tau/l1",
            gates=(f"learnt-{arm}",),
            statistic=f"Kendall's tau at {eps}, random signs - L1 form",
        )
        add(
            f"survivors/{arm}",
            statement=f"Leaving out images whose prediction changed flatters the explanation of {name} (Kendall's tau, {eps})",
            compute=minus(statistics.survivors(cubes, arm, p.eps), cubes.mean(arm, "tau/released", p.eps)),
            over="tau/released",
            gates=(f"surviving-{arm}",),
            statistic=f"Kendall's tau at {eps}, over survivors - over all images",
            note=statistics.survived(cubes, (arm,), p.eps),
        )


# what the sides of Proposition 1 were measured by and on: interpreter, attack
SIDES = {
    "": ("CAM", "PGD"),
    "-ig": ("integrated gradients", "PGD"),
    "-aai": ("CAM", "the attack on explanations, unconstrained,"),
    "-unforeseen": ("CAM", "Gabor, snow or JPEG"),
}


def _proposition(court: Court) -> None:
    """Proposition 1, a theorem: it holds for any network, and what was looked at is looked at in full."""
    p, cubes = court.p, court.cubes
    for suffix, (name, by) in SIDES.items():
        exact = suffix != "-ig"  # a finite sum is complete but for its error: one in fifty is allowed
        for arm in (p.headline if suffix else p.arms) if cubes.levels(f"d2{suffix}") else ():
            court.add(
                f"proposition{suffix}/{arm}",
                "check",
                f"The discrepancy D2 of {name} is at least half the margin wherever {by} fools {label(arm)}",
                statistics.violated(cubes, arm, suffix, share=not exact),
                NONE if exact else Rule("below", 0.02),
                arms=(arm,),
                over=f"d2{suffix}",
                difference=False,
                statistic=f"{'number' if exact else 'share'} of successful attacks that violate it",
                source=PROPOSITION,
                note="" if exact else "a finite sum is complete but for its error: one in fifty is allowed",
                unknown="no attack succeeded",
            )


def _tight(court: Court) -> None:
    """How tight the proposition's bound is."""
    p, cubes = court.p, court.cubes
    for arm in (a for a in INTERPRETED if court.there(a)):
        court.add(
            f"tight/{arm}",
            "claim",
            f"The proposition's bound on the discrepancy D2 is tighter for {label(arm)} than for Normal (eps {p.eps:.3g})",
            minus(statistics.tightness(cubes, "normal", p.eps), statistics.tightness(cubes, arm, p.eps)),
            UP,
            measure="ratio",
            arms=(arm, "normal"),
            over="d2",
            statistic=f"median of D2 / bound on fooled images at eps {p.eps:.3g}, Normal - {label(arm)}",
            gates=(f"learnt-{arm}",),
            note="" if statistics.overcome(cubes, arm, p.eps) else "in some network no attack overcame a margin",
            source=f"{SOURCE}, its figure of the bound's tightness",
        )


# attacks that training did not foresee ---------------------------------------------------------------------------------

NO_ATTACK = "unforeseen/none"  # the same images as they are
JPEGS = [name for name in unforeseen.ATTACKS if name.startswith("jpeg")]


def _jpeg(court: Court) -> None:
    """Table 2, as far as its differences exceed the noise of 200 images: under JPEG, beside Normal."""
    p = court.p
    for name in JPEGS:
        how, eps, under = f"unforeseen/{name}", p.unforeseen_eps[name], f"accuracy under {name}"
        told = f"{under}, radius {eps:g}"
        kept = statistics.right(court.cubes, "normal", how, eps) / max(statistics.right(court.cubes, "normal", NO_ATTACK), 1e-9)
        court.gate(f"taken-{name}", f"{name} takes from Normal half of what it has right: share that it keeps", kept, TAKEN)
        beside = functools.partial(better, court, how=how, eps=eps, source=TABLE_2)
        for arm in (a for a in p.arms if a not in ("normal", "ig-norm", "int-one-class")):
            says, kind = f"{{0}} is right more often than {{1}} under {name}", "claim" if arm in INTERPRETED else "control"
            beside(f"{name}/{arm}", kind, says, (arm, "normal"), told=told, gates=(f"taken-{name}",))
        if court.there("ig-norm"):
            says = f"Without adversarial cross-entropy {{0}} fares under {name} as {{1}} does, within a tenth"
            rule, note = Rule("within", 0.1), "the tolerance is ours"
            beside(f"{name}/ig-norm", "control", says, ("ig-norm", "normal"), told=under, rule=rule, note=note)
        court.add(
            f"{name}/normal",
            "control",
            f"Normal collapses under {name}: a tenth of the images at most is left",
            court.cubes.mean("normal", how, eps),
            Rule("below", 0.1),
            measure="accuracy",
            difference=False,
            pool="normal-left",
            arms=("normal",),
            over=how,
            statistic=told,
            source=TABLE_2,
            note="the margin of .1 is ours",
        )


def _unforeseen(court: Court) -> None:
    """Table 2's orders of attacks, and what of an attack is its codec or its sky."""
    p, eps = court.p, court.p.unforeseen_eps
    told: Kind = "claim" if "cifar" in p.dataset else "open question"

    def right(arm: str, name: str) -> Statistic:
        return court.cubes.mean(arm, f"unforeseen/{name}", eps.get(name, 0.0))

    def add(
        id: str, arm: str, kind: Kind, statement: str, compute: Statistic, over: str, rule: Rule = UP, **words: Any
    ) -> None:
        about = {"source": TABLE_2 if kind == told else OURS, "measure": "accuracy", "arms": (arm,)}
        court.add(f"{id}/{arm}", kind, statement, compute, rule, over=f"unforeseen/{over}", **about, **words)

    for arm in (a for a in ("adv", "int2") if court.there(a)):
        gained = statistics.right(court.cubes, arm, "unforeseen/snow", eps["snow"])
        gained -= statistics.right(court.cubes, arm, "unforeseen/snow-start", eps["snow"])
        name = f"climbs-snow-{arm}"
        falls = f"snow's steps leave {label(arm)} less accuracy than its random start does: the difference"
        court.gate(name, falls, gained, Rule("below", 0.0))
        none, sky, snow, linf = (right(arm, name) for name in ("none", "sky", "snow", "jpeg-linf"))
        for a, b in itertools.pairwise(JPEGS):
            says, note = f"{label(arm)} withstands {a} better than {b}", "the radii are calibrated for CIFAR-10 alone"
            words = {"statistic": f"accuracy, {a} {eps[a]:g} - {b} {eps[b]:g}", "pool": f"order/{a}", "note": note}
            add(f"order/{a}-over-{b}", arm, told, says, minus(right(arm, a), right(arm, b)), a, **words)
        says = f"Snow leaves {label(arm)} less accuracy than JPEG within L-infinity does"
        words: dict[str, Any] = {"statistic": f"accuracy, jpeg-linf - snow {eps['snow']:g}", "gates": (name,)}
        add("snow", arm, told, says, minus(linf, snow), "snow", **words)
        says = f"Snow's flakes cost {label(arm)} more accuracy than its white sky does"
        words = {"statistic": "accuracy lost to flakes under the sky - lost to the sky alone", "gates": (name,)}
        add("sky", arm, "control", says, minus(minus(sky, snow), minus(none, sky)), "snow", difference=2, **words)
    for arm in p.headline:
        court.add(
            f"codec/{arm}",
            "control",
            f"JPEG's transform alone changes whether {label(arm)} is right on one image of twenty at most",
            statistics.changed(court.cubes, arm, NO_ATTACK, "unforeseen/codec"),
            Rule("below", 0.05),  # of 100 images none is consistent with .036: less could not be told
            measure="share",
            difference=False,
            arms=(arm,),
            over="unforeseen/codec",
            statistic="share of images that are right before coding without rounding or after it, and not both",
            source=OURS,
            note="the margin of .05 is ours",
        )
