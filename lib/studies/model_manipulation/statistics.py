"""Study 4's statistics: success rates of foolings, and what gives a manipulated network away or costs it.

Statistics are functions of the images and of the seeds that they are computed on (`lib.claims.intervals`). A fooling succeeds
on an image where the test loss t of its kind lies in an interval (Heo et al. 2019, arXiv 1902.02041); the share of such images
is its fooling success rate, FSR.
"""

import numpy as np
import scipy.stats

from lib.claims.cubes import Cubes, paired
from lib.claims.intervals import Statistic, least, over
from lib.fooling import manipulation
from lib.studies.model_manipulation.plan import parsed

BINS = 10  # of the calibration error
SUCCESS = 0.5  # what a fooling must reach beyond the control
CLASSES = ("c1", "c2")  # of a mosaic


def success(kind: str, t: np.ndarray) -> np.ndarray:
    """1 where t lies in the kind's interval, else 0, also where t is not defined."""
    low, high = manipulation.INTERVALS[kind]
    return ((t >= low) & (t <= high)).astype(float)


def fsr(cubes: Cubes, arm: str, kind: str, name: str, *, of: str = "t") -> Statistic:
    """The fooling success rate of `kind` under interpreter `name`."""
    return over(success(kind, cubes.values[arm, f"{of}/{kind}/{name}", 0.0]))


def living(cubes: Cubes, arm: str, honest: str, kind: str, name: str) -> Statistic:
    """The fooling success rate beyond an honest network's, image by image over those whose maps have contrast in both."""

    def successes(which: str) -> np.ndarray:
        dead = cubes.values[which, f"dead/{name}", 0.0] > 0
        return np.where(dead, np.nan, success(kind, cubes.values[which, f"t/{kind}/{name}", 0.0]))

    return paired(successes(arm), successes(honest))


def swap_rate(cubes: Cubes, arm: str, name: str, c: str) -> Statistic:
    """The success rate of the active fooling for the class c1 or c2, on mosaics."""
    return over(success("active", cubes.values[arm, f"swap-{c}/{name}", 0.0]))


def halved(whole: Statistic, left: Statistic) -> Statistic:
    """Half of one less another: above zero where more than half is gone."""
    return lambda i, s: whole(i, s) / 2 - left(i, s)


def both_swapped(cubes: Cubes, arm: str, honest: str, name: str) -> Statistic:
    """The success rate of the active fooling beyond an honest network's, of the class where it is smaller."""
    each = [(swap_rate(cubes, arm, name, c), swap_rate(cubes, honest, name, c)) for c in CLASSES]
    return least(lambda i, s: [own(i, s) - drift(i, s) for own, drift in each])


def beyond(cubes: Cubes, arch: str, need: str) -> float:
    """The success rate of an arm beyond the control's (`ARM`; of active fooling: of the class where it is smaller, as the claim
    that it succeeds has it, or of the one that is named, `ARM:c1`)."""
    arm, _, which = need.partition(":")
    kind, name = parsed(arm)[:2]
    measures = [f"swap-{c}/{name}" for c in CLASSES if which in ("", c)] if kind == "active" else [f"t/{kind}/{name}"]
    own, drift = ([success(kind, cubes.values[f"{arch}/{a}", m, 0.0]).mean() for m in measures] for a in (arm, "none"))
    return float(min(a - b for a, b in zip(own, drift, strict=True)))


def still_moving(cubes: Cubes, name: str) -> float:
    """How far the success rate of a network moved from the last but one quarter of its fine-tuning to the last, at least an
    epoch each; of active fooling, of the class where it moved further. NaN where fewer than two epochs were looked at."""
    kind = parsed(name.partition("/")[2]).kind
    tuned = sorted(level for arm, measure, level in cubes.values if (arm, measure) == (name, "steps-t") and level > 0)
    last = max(1, len(tuned) // 4)
    if len(tuned) < 2:
        return float("nan")
    found = []
    for measure in ("steps-t", "steps-t2") if kind == "active" else ("steps-t",):
        rates = [success(kind, cubes.values[name, measure, level]).mean() for level in tuned]
        found.append(abs(np.mean(rates[-last:]) - np.mean(rates[-2 * last : -last])))
    return float(max(found))


def swappable(cubes: Cubes, base: str, name: str) -> float:
    """The share of mosaics on which an exact swap of the original's two maps would count as a success: what active fooling is
    trained for. Maps that resemble each other can change places without anybody's noticing."""
    return float(success("active", 1 - cubes.values[base, f"alike/{name}", 0.0]).mean())


def broken(cubes: Cubes, arm: str) -> float:
    """The share of the images that a network gets right which it does not get right under PGD."""
    attacked = cubes.values[arm, "robust", 0.0]
    right = cubes.values[arm, "right", 0.0][:, : attacked.shape[1]] > 0
    return float(1 - attacked[right].mean()) if right.any() else float("nan")


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
