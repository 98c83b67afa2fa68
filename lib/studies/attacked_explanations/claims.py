"""Study 7's claims: what is said of explanations under attack, judged by an attack that is made for each of them.

Gates, chosen before any number was seen: a network that is wrong on more than .4 of clean images explains little worth keeping
(by chance .1 are right), and adversarial training must have done what it is for: right on .1 more of the images under PGD than
the standard network, at the radius at which maps are attacked. Of the manipulated network's Grad-CAM maps .2 more must lie
on the frame than of the standard one's (chosen later, when its maps were found to be taken at another layer than that of the
manipulation).

Where the networks are those that Boopathy et al. published, there is one an arm: what is said of one is said of it alone, and
what compares ways of training has the verdict `one network`.
"""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from lib.claims.claim import Claim, Kind, Rule
from lib.claims.court import OURS, QUESTION, Court
from lib.claims.cubes import Cubes
from lib.claims.intervals import Statistic, over
from lib.explanations.by_name import METHODS
from lib.studies.attacked_explanations.plan import NAMES, PHOTOGRAPHS, Parameters, family

GHORBANI = "Ghorbani et al. 2019"
ADEBAYO = "Adebayo et al. 2018"
BOOPATHY = "Boopathy et al. 2020"
DOMBROWSKI = "Dombrowski et al. 2019"
RIGHT, RESISTS, FRAMED = 0.6, 0.1, 0.2  # see above
UP = Rule("above", 0.0)
MOVED = "share of the map that moved"


class Networks(Court):
    """A court whose sentences say so where the networks are Boopathy et al.'s."""

    def add(self, id: str, kind: Kind, statement: str, compute: Statistic, rule: Rule, **further: Any) -> None:
        """As `Court.add`."""
        court: Court = self
        if self.p.authors and PHOTOGRAPHS not in further["arms"]:
            court = dataclasses.replace(self, about=f"{self.about} ({family(self.p).name} of Boopathy et al.)")
            further["trained"] = further.get("trained", True) and len(further["arms"]) > 1
        Court.add(court, id, kind, statement, compute, rule, **further)


def primaries(p: Parameters) -> tuple[str, ...]:
    """The ids of the four claims that a reader of this literature would name."""
    return ("fragile", "carried-understates", "robust-training-holds", "smoothing-holds")


def judge(table: pd.DataFrame, p: Parameters, *, test: bool = True) -> list[Claim]:
    """All claims from the table of measurements."""
    cubes = Cubes.of(table[~table.measure.astype(str).str.contains("/warning: ")])
    court = Networks(
        "07",
        p,
        cubes,
        test,
        seeds=lambda arm: 1 if arm == PHOTOGRAPHS else p.seeds,
        over="right",
        primaries=primaries(p),
        unknown="too few images have a value under both attacks",
    )
    _gates(court, p)
    others = [m for m in p.methods if m != "gradcam"]
    at = f", within {p.headline:g}/255"
    whole = court.within("", f"{at}, mean of the explanations", gates=("right/standard",))
    _contrast(
        whole,
        "fragile",
        "On a standard network the attack that is made for an explanation moves its map farther than random signs of its size",
        _mean(cubes, "standard", p.methods, "adaptive", p) - _mean(cubes, "standard", p.methods, "random", p),
        "adaptive attack - random signs",
        GHORBANI,
    )
    _contrast(
        whole,
        "carried-understates",
        "Images that move Grad-CAM's map move other explanations' maps less than attacks that are made for these",
        _mean(cubes, "standard", others, "adaptive", p) - _mean(cubes, "standard", others, "carried", p),
        "adaptive attack - carried over from Grad-CAM",
        QUESTION,
    )
    if "smoothgrad" in p.methods and "gradient" in p.methods:
        _contrast(
            court.within("", at, gates=("right/standard",)),
            "smoothing-holds",
            "SmoothGrad's map moves less than the gradient's, each under the attack that is made for it",
            _values(cubes, "standard", "gradient", "adaptive", p) - _values(cubes, "standard", "smoothgrad", "adaptive", p),
            "gradient - SmoothGrad, adaptive attack, standard network",
            DOMBROWSKI,
        )
    if "adversarial" in p.arms:
        resists = ("right/standard", "right/adversarial", "resists")
        _contrast(
            court.within("", f"{at}, mean of the explanations", gates=resists),
            "robust-training-holds",
            "Maps of adversarially trained networks move less than those of standard ones under attacks that are made for them",
            _mean(cubes, "standard", p.methods, "adaptive", p) - _mean(cubes, "adversarial", p.methods, "adaptive", p),
            "adaptive attack, standard - adversarially trained network",
            QUESTION,
            arms=("standard", "adversarial"),
        )
    _sane(court, cubes, p)
    for method in p.methods:
        _one(court, cubes, p, method)
    if p.photo_images:
        for method in p.photo_methods:
            _photographed(court, cubes, p, method)
    return court.rows


def _gates(court: Court, p: Parameters) -> None:
    for arm in p.arms:
        right = float(court.cubes.values[arm, "right", 0].mean(1).min())
        court.gate(
            f"right/{arm}", f"share of clean images that the worst {NAMES[arm]} network gets right", right, Rule("above", RIGHT)
        )
    if "adversarial" in p.arms:
        robust = (court.cubes.values[arm, "robust", p.headline] for arm in ("adversarial", "standard"))
        gain = float(np.subtract(*(a.mean() for a in robust)))
        at = f"accuracy under PGD at {p.headline:g}/255"
        court.gate("resists", f"{at}, adversarially trained less standard network", gain, Rule("above", RESISTS))

    if ("manipulated", "frame", 0.0) in court.cubes.values:
        shares = (court.cubes.values[arm, "frame", 0.0] for arm in ("manipulated", "standard"))
        gain = float(np.subtract(*(np.nanmean(a) for a in shares)))
        court.gate("framed", "share of Grad-CAM on the frame, manipulated less standard network", gain, Rule("above", FRAMED))


def _values(cubes: Cubes, arm: str, method: str, attack: str, p: Parameters) -> np.ndarray:
    """(seed, image): how far a map moved at the headline radius, NaN where it does not count."""
    return cubes.values[arm, f"{method}/{attack}", p.photo_eps if arm == PHOTOGRAPHS else p.headline]


def _mean(cubes: Cubes, arm: str, methods: list[str] | tuple[str, ...], attack: str, p: Parameters) -> np.ndarray:
    """The mean over explanations of an image that has a value under all of them."""
    return np.mean([_values(cubes, arm, m, attack, p) for m in methods], axis=0)


def _contrast(
    court: Court,
    id: str,
    statement: str,
    difference: np.ndarray,
    what: str,
    source: str,
    kind: Kind = "claim",
    arms: tuple[str, ...] = ("standard",),
    **further: Any,
) -> None:
    """A claim that a difference of shares, (seed, image), is above zero; `what` says between what it is."""
    note = _missing(difference, "the decision changed, or a map has no contrast")
    court.add(
        id,
        kind,
        statement,
        over(difference),
        UP,
        statistic=f"{MOVED}, {what}",
        source=source,
        measure="share",
        arms=arms,
        over=difference.shape[1],
        note=note,
        **further,
    )


def _missing(values: np.ndarray, why: str) -> str:
    """What is said where not all values are there."""
    gone = int((~np.isfinite(values)).sum())
    return f"{gone} of {values.size} values are missing, since {why}" if gone else ""


def _sane(court: Court, cubes: Cubes, p: Parameters) -> None:
    """Whether maps depend on what was learnt and mark what counts, and whether attacks can hide from them."""
    whole = max(cubes.levels(f"{p.methods[0]}/randomised"))
    standard = court.within("", ", standard network", gates=("right/standard",))
    if {"guided", "gradient"} <= set(p.methods):
        kept = [cubes.values["standard", f"{m}/randomised", whole] for m in ("guided", "gradient")]
        standard.add(
            "guided-survives",
            "claim",
            "The map of guided backpropagation stays more like itself than the gradient's when all layers get random weights",
            over(kept[0] - kept[1]),
            UP,
            statistic="rank correlation with the trained network's map, guided backpropagation - gradient",
            source=ADEBAYO,
            measure="correlation",
            arms=("standard",),
            over=kept[0].shape[1],
        )
    for method in p.methods:
        label, within = METHODS.find(method).label, court.within(f"{method}/standard", gates=("right/standard",))
        kept = cubes.values["standard", f"{method}/randomised", whole]
        within.add(
            "depends-on-weights",
            "control",
            f"The map of {label} has little in common with that of the same network with random weights (an edge detector: 1)",
            over(kept),
            Rule("below", 0.5),
            statistic=f"rank correlation of the map with that under random weights in all layers, {label}",
            source=f"{ADEBAYO}; the threshold is ours",
            measure="correlation",
            difference=False,
            arms=("standard",),
            over=kept.shape[1],
            note=_missing(kept, "a map has no contrast"),
        )
        for measure, what in (("deletion", "random order - map's order"), ("insertion", "map's order - random order")):
            area = cubes.values["standard", f"{method}/{measure}", 0]
            verb = "falls faster as pixels are taken away" if measure == "deletion" else "rises faster as pixels come in"
            within.add(
                f"marks-what-counts/{measure}",
                "control",
                f"The probability of the class {verb} in the order of {label}'s map than in random order",
                over(area),
                UP,
                statistic=f"area under the probability of the class, {what}, {label}",
                source=OURS,
                measure="share",
                arms=("standard",),
                over=area.shape[1],
                pool=f"marks-what-counts/{measure}",
            )
    for arm in p.arms:
        within = court.within(arm, f", {NAMES[arm]} network", gates=(f"right/{arm}",))
        one, two, bound = (cubes.values[arm, f"hide/{c}", p.headline] for c in ("one", "two", "bound"))
        rest = "discrepancy of CAM that is left, of what PGD makes"
        options = {"arms": (arm,), "over": one.shape[1], "unknown": "PGD fools the network on too few images"}
        options |= {"note": _missing(two, "PGD does not fool the network there")}
        within.add(
            "two-classes-hide-less",
            "claim",
            "An attack that hides from CAM keeps less of its trace under the map of one class than under those of two",
            over(two - one),
            UP,
            statistic=f"{rest}, two classes - one",
            source=BOOPATHY,
            measure="share",
            **options,
        )
        within.add(
            "hides",
            "open question",
            "An attack can hide most of its trace from CAM of two classes: less than half is left",
            over(two),
            Rule("below", 0.5),
            statistic=f"{rest}, two classes",
            source=f"{BOOPATHY}, who say that it is difficult to hide; the threshold is ours",
            measure="share",
            difference=False,
            **options,
        )
        within.add(
            "bound-holds",
            "check",
            "What hides under two classes stays above the bound of Proposition 1",
            _most(bound - two),
            Rule("within", 1e-4),
            statistic=f"largest shortfall below the bound of the {rest}",
            source=f"{BOOPATHY}, proposition 1",
            **options,
        )


def _most(values: np.ndarray) -> Statistic:
    """The largest value there is, 0 if none is above it; NaN where there is none."""

    def statistic(images: np.ndarray, seeds: np.ndarray) -> float:
        known = values[seeds][:, images]
        known = known[np.isfinite(known)]
        return float(max(known.max(), 0.0)) if len(known) else float("nan")

    return statistic


def _one(court: Court, cubes: Cubes, p: Parameters, method: str) -> None:
    """What is said of one explanation on the trained networks."""
    label = METHODS.find(method).label
    at = f"{p.headline:g}/255"
    for arm in p.arms:
        within = court.within(f"{method}/{arm}", f", {NAMES[arm]} network", gates=(f"right/{arm}",))
        own = _values(cubes, arm, method, "adaptive", p)
        for attack, kind, words, source in (
            ("naive", "claim", "the naive attack, which follows the network's own derivatives", QUESTION),
            ("random", "control", "random signs of its size", OURS),
            ("carried", "control", "the images that move Grad-CAM's map", OURS),
        ):
            if method == "gradcam" and attack == "carried":
                continue
            _contrast(
                within,
                f"adaptive-over-{attack}",
                f"Within {at} the attack that is made for {label} moves its map farther than {words}",
                own - _values(cubes, arm, method, attack, p),
                f"adaptive - {attack}, {label}",
                source,
                kind,
                (arm,),
            )
    # manipulated, and those that Boopathy et al. trained on discrepancies of explanations, are beside the question of the paper
    for arm in p.arms:
        if arm != "standard":
            statement = f"Under its own attack the map of {{}} moves less on {NAMES[arm]} than on standard networks"
            needed = {"adversarial": ("resists",), "manipulated": ("framed",)}.get(arm, ())
            gates = ("right/standard", f"right/{arm}", *needed)
            _contrast(
                court.within(f"{method}/{arm}", gates=gates),
                "holds",
                statement.format(label),
                _values(cubes, "standard", method, "adaptive", p) - _values(cubes, arm, method, "adaptive", p),
                f"adaptive attack, standard - {NAMES[arm]} network, {label}",
                QUESTION,
                "claim" if arm == "adversarial" else "open question",
                ("standard", arm),
                pool=f"holds/{arm}",
            )


def _photographed(court: Court, cubes: Cubes, p: Parameters, method: str) -> None:
    """The published network, which is one: what is said is said of it."""
    label = METHODS.find(method).label
    within = court.within(f"{method}/{PHOTOGRAPHS}", f", {NAMES[PHOTOGRAPHS]}, on photographs")
    own = _values(cubes, PHOTOGRAPHS, method, "adaptive", p)
    for attack, kind, words in (
        ("naive", "claim", "the naive attack"),
        ("random", "control", "random signs of its size"),
        ("carried", "control", "the images that move Grad-CAM's map"),
    ):
        if method == "gradcam" and attack == "carried":
            continue
        _contrast(
            within,
            f"adaptive-over-{attack}",
            f"Within {p.photo_eps:g}/255 the attack that is made for {label} moves its map farther than {words}",
            own - _values(cubes, PHOTOGRAPHS, method, attack, p),
            f"adaptive - {attack}, {label}",
            OURS,
            kind,
            (PHOTOGRAPHS,),
            pool=f"photographs/{method}/{attack}",
            trained=False,
        )
