"""Study 3's numbers as tables, each with its 95 % interval over images and seeds, and the paper's printed ones beside them.

What a chart draws has a row a point (value, low, high, n); what is read has a row an arm. Cells `0.81±0.02` are a value and the
longer side of its interval.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from lib.attacks import unforeseen
from lib.claims.cubes import Cubes
from lib.claims.intervals import Interval
from lib.figures.charts import cell, row
from lib.networks import released
from lib.studies.interpretability_aware_training import statistics
from lib.studies.interpretability_aware_training.objective import ARMS
from lib.studies.interpretability_aware_training.plan import Parameters, arch_of, label, method_of, seeds_of

TERMS = {"one": "γ D1", "all": "γ D̃", "kl": "KL", "ig": "w R", "ce": "CE(x′)"}
PGD = {"plain": "paper's PGD", "strong": "strongest PGD"}
ATTACKS = PGD | {"ensemble": "ensemble"}
BOUNDS = {"tau": "correlation", "top": "overlap", "moved": ""}  # of measures that are no share of images, by their first part
FEWEST = 30  # images that survive, as claims ask too: of a handful, the ones that moved least, tau says nothing
KINDS = ("survivors", "released", "l1", "topk", "noise", "ig")  # of Kendall's tau: attacks, and on which images
FORMS = {  # of the attack: what a chart of it shows of KINDS, and how
    "as released, survivors (solid) and all (dashed)": {"survivors": "-", "released": "--"},
    "L1 form, prediction kept (solid), random signs (dotted)": {"l1": "-", "noise": ":"},
}
MAPS = {"l1": "CAM, L1 form", "topk": "CAM, top-k form", "noise": "CAM, random signs", "ig": "integrated gradients, L1 form"}
SIDES = {
    "": "CAM, PGD",
    "-aai": "CAM, attack on explanations",
    "-unforeseen": "CAM, unforeseen attacks",
    "-ig": "integrated gradients, PGD",
}
UNITS = {"gabor": ("eps, of 255", 255), "snow": ("opacity", 1)}  # of the unforeseen attacks' radii, and how many there are in 1
JPEG_UNIT = ("half quantisation steps", 1)
CALIBRATED = ("normal", "adv")  # whose radii are looked through
STARTS = {"paper": "as published", "starts-1": "1 random start", "starts-3": "3 random starts"}

History = Sequence[Mapping[str, float]]  # of a training: an epoch a row


# what is trained --------------------------------------------------------------------------------------------------------


def seconds(history: History, after: float = 0) -> float:
    """The median time of the epochs later than `after`; of the last one where none is later."""
    late = [h["seconds"] for h in history if h["epoch"] > after] or [history[-1]["seconds"]]
    return float(np.median(late))


def losses(p: Parameters, accuracies: Mapping[str, float], histories: Mapping[str, History]) -> pd.DataFrame:
    """A row an arm: its two losses in symbols, how often it is trained, and of seed 0 what is given; the authors' networks have
    no history."""
    rows = {}
    for arm in p.arms:
        how, history = ARMS[method_of(arm)], histories.get(arm)
        outer = [f"CE({'x′' if how.adversarial else 'x'})"] + ([TERMS[how.penalty]] if how.penalty else [])
        rows[label(arm)] = {
            "outer loss": " + ".join(outer),
            "inner objective": " + ".join(TERMS[term] for term in how.climbs) or "none",
            "seeds": seeds_of(p, arm),
            "clean accuracy (seed 0)": round(accuracies[arm], 3),
            "seconds an epoch": round(seconds(history), 2) if history else "published",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


# what is measured -------------------------------------------------------------------------------------------------------


def told(cubes: Cubes, p: Parameters, arm: str, measure: str, level: float = 0.0) -> Interval:
    """A measure of one arm: the mean over images and seeds, with its interval."""
    of = BOUNDS.get(measure.partition("/")[0], "accuracy")
    return cubes.interval(cubes.mean(arm, measure, level), measure, seeds_of(p, arm), of)


def tau(cubes: Cubes, p: Parameters, arm: str, kind: str, eps: float) -> Interval:
    """Kendall's tau of one of KINDS: the measure `tau/KIND` over all images; `survivors`, the released attack over those
    whose prediction stays, NaN where these are fewer than FEWEST in some network."""
    if kind == "survivors":
        if statistics.surviving(cubes, arm, eps).min() < FEWEST:
            return Interval(math.nan, math.nan, math.nan, "")
        return cubes.interval(statistics.survivors(cubes, arm, eps), "tau/released", seeds_of(p, arm), "correlation")
    return told(cubes, p, arm, f"tau/{kind}", eps)


def warned(cubes: Cubes, p: Parameters) -> list[str]:
    """The arms of which an attack met gradients that are exactly zero, by label."""
    return [label(a) for a in p.arms if cubes.values[a, "warned", 0.0].any()]


def accuracy(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Rows (arm, attack, eps, value, low, high, n): how often a network is right under both PGDs, at eps 0, clean; and under
    the ensemble, at the radius of training and beyond."""
    return pd.DataFrame(
        [
            row(told(cubes, p, arm, how if eps else "clean", eps), arm=arm, attack=how, eps=eps)
            for arm, how in itertools.product(p.arms, ATTACKS)
            for eps in ((0.0, *p.eps_grid) if how in PGD else cubes.levels(how))
        ]
    )


def order(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Rows (arm, kind, eps, value, low, high, n): Kendall's tau of each of KINDS."""
    return pd.DataFrame(
        [
            row(tau(cubes, p, arm, kind, eps), arm=arm, kind=kind, eps=eps)
            for arm, kind, eps in itertools.product(p.arms, KINDS, p.aai_eps)
        ]
    )


def explanations(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """At the radius of training, over all images: tau of MAPS, the overlap of the top positions, D1; a row an arm."""
    more = {f"overlap of the top {p.top_k}, top-k form": "top/topk", "D1, L1 form": "moved/l1"}
    rows = {
        label(arm): {says: cell(tau(cubes, p, arm, kind, p.eps)) for kind, says in MAPS.items()}
        | {says: cell(told(cubes, p, arm, measure, p.eps)) for says, measure in more.items()}
        for arm in p.arms
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def margins(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Rows (arm, eps, margin, d2), one an image of seed 0 whose attack succeeds: by Proposition 1, d2 >= margin / 2."""
    found = []
    for arm, eps in itertools.product(p.arms, p.eps_grid):
        d2, bound, applies = (cubes.values[arm, m, eps][0] for m in ("d2", "bound", "applies"))
        found.append(pd.DataFrame({"arm": arm, "eps": eps, "margin": 2 * bound, "d2": d2})[applies > 0])
    return pd.concat(found)


def violations(cubes: Cubes, arms: Iterable[str] | None = None, suffix: str = "") -> tuple[int, int]:
    """Of all seeds and radii of some arms, or of all: how many attacks violate Proposition 1, and how many succeeded."""
    chosen = dict.fromkeys(a for a, _, _ in cubes.values) if arms is None else arms
    found = [statistics.violations(cubes, arm, suffix) for arm in chosen]
    return int(sum(fails.sum() for _, fails in found)), int(sum(applies.sum() for applies, _ in found))


def proposition(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """`violations of successful attacks` for each of SIDES that was measured, and how tight the bound is; a row an arm."""
    measured = {suffix: says for suffix, says in SIDES.items() if cubes.levels(f"d2{suffix}")}
    rows = {}
    for arm in p.arms:
        counts = {says: "{} of {}".format(*violations(cubes, [arm], suffix)) for suffix, says in measured.items()}
        tight = cubes.interval(statistics.tightness(cubes, arm, p.eps), "d2", seeds_of(p, arm), "ratio")
        rows[label(arm)] = counts | {f"median D2 / bound, eps {p.eps:.3g}": cell(tight)}
    return pd.DataFrame.from_dict(rows, orient="index")


def calibration(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Rows (attack, arm, radius, value, low, high, n): accuracy of Normal and Adv, seed 0, at the radii that the attacks'
    authors calibrated."""
    found = []
    arms = [a for a in p.arms if method_of(a) in CALIBRATED]
    for name, arm in itertools.product(p.unforeseen_eps, arms):
        measure = f"calibration/{name}"
        for radius in cubes.levels(measure):
            one = cubes.interval(cubes.mean(arm, measure, radius), measure, 1, "accuracy")
            found.append(row(one, attack=name, arm=arm, radius=radius))
    return pd.DataFrame(found)


def uar(radii: pd.DataFrame) -> pd.DataFrame:
    """The attacks' authors' score (arXiv:1908.08016), of a `calibration`: the sum of a network's accuracies over the radii,
    divided by the sum of those of networks that were trained against the attack (where they are published)."""
    sums = radii.groupby(["arm", "attack"], sort=False).value.sum()
    rows = {
        label(arm): {name: sums[arm, name] / sum(best) for name, best in unforeseen.ATA_CIFAR10.items()}
        for arm in dict.fromkeys(radii.arm)
    }
    return pd.DataFrame.from_dict(rows, orient="index").round(3)


def costs(cubes: Cubes, p: Parameters, histories: Mapping[str, History]) -> pd.DataFrame:
    """Rows (arm, seconds an epoch, value, low, high): the time once eps is whole, and accuracy under the strongest PGD."""
    found = [
        row(told(cubes, p, arm, "strong", p.eps), arm=arm) | {"seconds an epoch": seconds(history, p.full_share * p.epochs)}
        for arm, history in histories.items()
    ]
    return pd.DataFrame(found)[["arm", "seconds an epoch", "value", "low", "high"]]


# beside the paper -------------------------------------------------------------------------------------------------------


def alike(p: Parameters, number: int) -> str:
    """The published data set that the run's is nearest to, of those that the table of this number holds."""
    if number == 2:  # for CIFAR-10 alone
        return "cifar10"
    if "cifar" in p.dataset:
        if number == 1:
            return "cifar10"
        # table 3 leaves CIFAR-10 out: the authors' WResnet stands beside the one that they trained on other colour images
        return "restricted-imagenet" if arch_of(p.arms[0]) == "wresnet" else "mnist"
    return "restricted-imagenet" if p.dataset.startswith("restricted") else "mnist"


def _beside(ours: Mapping[str, Mapping[str, str]], number: int, p: Parameters) -> pd.DataFrame:
    """Our cells, by arm and column, and the published ones to the right of them."""
    data = alike(p, number)
    theirs = statistics.published(number, data).reindex(map(method_of, ours)).map(lambda v: "–" if np.isnan(v) else f"{v:.3f}")
    heading = f"published, {data}, {statistics.printed(number, data).network.iloc[0]}"
    whose = f"the authors' {p.arch}" if arch_of(p.arms[0]) else "ours"
    found = {f"{whose}, {p.dataset}": pd.DataFrame.from_dict(ours, orient="index"), heading: theirs.set_axis(list(ours))}
    both = pd.concat(found, axis=1)
    return both.rename(index=label)


def _radius(p: Parameters, eps: float) -> str:
    return f"{255 * eps:g}/255" if p.eps < 0.1 else f"{eps:g}"


def table_1(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Accuracy by eps, `under the paper's PGD / under the strongest PGD`, beside the published one."""
    ours = {}
    for arm in p.arms:
        ours[arm] = {"0": cell(told(cubes, p, arm, "clean"))}
        for eps in p.eps_grid:
            strong = told(cubes, p, arm, "strong", eps).value
            ours[arm][_radius(p, eps)] = f"{cell(told(cubes, p, arm, 'plain', eps))} / {strong:.2f}"
    return _beside(ours, 1, p)


def table_2(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Accuracy under the unforeseen attacks, and on the same images as they are, beside the published one."""
    levels = {"none": 0.0} | p.unforeseen_eps
    ours = {arm: {name: cell(told(cubes, p, arm, f"unforeseen/{name}", eps)) for name, eps in levels.items()} for arm in p.arms}
    return _beside(ours, 2, p)


def table_3(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """`tau of number of survivors`: the released attack over images whose prediction stays, beside the published tau."""

    def survived(arm: str, eps: float) -> str:
        kept = cubes.values[arm, "kept/released", eps]
        return f"{cell(tau(cubes, p, arm, 'survivors', eps))} of {kept.sum() / kept.shape[0]:.0f}"

    return _beside({arm: {_radius(p, eps): survived(arm, eps) for eps in p.aai_eps} for arm in p.arms}, 3, p)


# the networks that the authors published ------------------------------------------------------------------------------------


def _mean(values: np.ndarray) -> float:
    """The mean of what is finite; NaN where nothing is."""
    finite = values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if len(finite) else float("nan")


def released_skipped(p: Parameters, theirs: pd.DataFrame) -> str:
    """Why their own part of the report is empty; nothing where it is not."""
    if len(theirs):
        return ""
    asked = "This run does not ask for them (`published_networks`)."
    return released.missing(released.MNIST_SMALL) if p.published_networks else asked


def released_accuracy(theirs: pd.DataFrame) -> pd.DataFrame:
    """Rows (arm, attack, eps, value, low, high, n) of the authors' networks, attack one of STARTS: accuracy by their own
    protocol, and under random starts where these were measured. Takes their measurements by arm alone (`statistics.apart`)."""
    cubes = Cubes.of(theirs)
    return pd.DataFrame(
        [
            row(cubes.interval(cubes.mean(arm, measure, eps), measure, 1, "accuracy"), arm=arm, attack=says, eps=eps)
            for arm, (measure, says) in itertools.product(theirs.arm.unique(), STARTS.items())
            for eps in cubes.levels(measure)
        ]
    )


def released_table_1(curves: pd.DataFrame) -> pd.DataFrame:
    """By (network, eps): the accuracies of a `released_accuracy`, and what is published."""
    wide = curves.pivot(index=["arm", "eps"], columns="attack", values="value")[list(STARTS.values())]
    wide = wide.loc[list(dict.fromkeys(curves.arm))].rename(columns={STARTS["paper"]: "measured"}).rename_axis(columns=None)
    theirs = statistics.published(1, "mnist")
    wide.insert(1, "published", [theirs.at[arm, f"{eps:g}"] for arm, eps in wide.index])
    return wide.rename(index=label, level=0).rename_axis(["network", "eps"])


def agreement(found: pd.DataFrame) -> str:
    """How many cells of a `released_table_1` come out as published, and which do not."""
    off = found[~np.isclose(found.measured, found.published)]
    told = [f"{name} at {eps:g}: {ours:.3f}, printed {theirs:.3f}" for (name, eps), ours, theirs, *_ in off.itertuples()]
    count = f"{len(found) - len(off)} of {len(found)} cells of table 1 come out to the digit"
    return f"{count}; not: {'; '.join(told)}" if told else count


def released_table_3(theirs: pd.DataFrame) -> pd.DataFrame:
    """By (network, eps): tau over survivors, what is published, how many survive, and tau over all images."""
    cubes, printed = Cubes.of(theirs), statistics.published(3, "mnist")
    rows: dict[tuple[str, float], dict[str, float]] = {}
    for arm, eps in itertools.product(theirs.arm.unique(), cubes.levels("tau")):
        values, kept = cubes.values[arm, "tau", eps], cubes.values[arm, "kept", eps]
        rows[label(arm), eps] = {
            "tau, survivors": _mean(values[kept > 0]),
            "published": printed.at[arm, f"{eps:g}"],
            f"survivors of {released.EVALUATED}": int(kept.sum()),
            "tau, all": _mean(values),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["network", "eps"])
