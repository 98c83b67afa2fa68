r"""Intervals of statistics over images and training runs.

A statistic is a function of the images and of the training runs that it is computed on. Its uncertainty has two parts: over
images, by the bootstrap of independent units with the runs as they are; over runs, from the values s of single runs, with
variance s^2 / m, which other arms moderate (`lib.claims.moderation`). Each part gets Student's t of its own degrees of
freedom, which keeps three runs from looking like certainty, and the two half-widths are added in quadrature (Howe 1974;
Graybill and Wang 1980), on the scale of `lib.claims.measures`:

.. math:: value \pm \sqrt{t_{n-1}^2\, v_{images} + t_{d}^2\, \tilde s^2 / m}.

Minima and maxima of several values are lower and higher in resamples than in the data, and more so the more of the values are
alike. Their part over images comes from intervals that hold all values at once, by the bootstrap of the largest deviation in
standard errors (Montiel Olea and Plagborg-Moller 2019, doi:10.1002/jae.2656): where each value lies in its interval, the
smallest lies between the smallest lower end and the smallest upper end. Shares of none or all of the images are exact (Clopper
and Pearson 1934); of a difference of two shares of all images, to which few may contribute, half a decision more on either side
(Agresti and Min 2005, doi:10.1002/sim.1781) keeps the interval from closing about the few.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit  # scipy.stats, which calls them, takes half a second to load

from lib.claims import measures
from lib.claims.measures import Measure
from lib.claims.moderation import Moderated, moderate

CONFIDENCE = 0.95
ALMOST = 0.95  # of the resamples have a value, at least
UNKNOWN = "spread over seeds unknown"  # what is said of one training run
TAIL = 0.5 + CONFIDENCE / 2
ROUNDING = 1e-12  # of values as large as these, or of 1


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval and what it rests on, in words ("300 images, 3 seeds")."""

    value: float
    low: float
    high: float
    n: str


def side(found: Any) -> float:
    """How far the farther end of an interval, or of a row with value, low and high, is from the value: what stands after ±."""
    return max(found.value - found.low, found.high - found.value)


Statistic = Callable[[np.ndarray, np.ndarray], float]  # (image indices, seed indices) -> value


@dataclass(frozen=True)
class Among:
    """A statistic of those images alone that something holds for, `eligible` (seed, image) bool: at an end of its range it is
    as exact as so many images make it."""

    statistic: Statistic
    eligible: np.ndarray

    def __call__(self, images: np.ndarray, seeds: np.ndarray) -> float:
        return self.statistic(images, seeds)

    def count(self, units: np.ndarray) -> int:
        """How many of the units, one an image, have an image that counts in some training run."""
        counting = np.flatnonzero(self.eligible.any(0))
        return len(np.unique(units[counting[counting < len(units)]]))


@dataclass(frozen=True)
class Extreme:
    """A statistic that is the smallest or the largest (`pick`, along an axis) of several, its `cells`."""

    cells: Callable[[np.ndarray, np.ndarray], Sequence[float] | np.ndarray]
    pick: Callable[..., Any]

    def __call__(self, images: np.ndarray, seeds: np.ndarray) -> float:
        return float(self.pick(np.asarray(self.cells(images, seeds), float)))


def least(cells: Callable[[np.ndarray, np.ndarray], Sequence[float] | np.ndarray]) -> Extreme:
    """The smallest of the values that `cells` gives."""
    return Extreme(cells, np.min)


def most(cells: Callable[[np.ndarray, np.ndarray], Sequence[float] | np.ndarray]) -> Extreme:
    """The largest of them."""
    return Extreme(cells, np.max)


@dataclass(frozen=True)
class Parts:
    """A statistic and its two uncertainties, on the scale of its measure.

    `below` and `above` are half-widths of 95 % over images; `variance` is that of single runs, whose number is `runs`. `exact`
    is the interval of a share at an end of its range.
    """

    value: float
    centre: float
    below: float
    above: float
    variance: float
    runs: int
    units: int
    among: int  # of the units those that the statistic is of
    measure: Measure
    n: str
    exact: tuple[float, float] | None = None
    unit: str = "images"

    @property
    def finite(self) -> bool:
        """Whether there is an interval."""
        return all(map(math.isfinite, (self.value, self.centre, self.below, self.above, self.variance)))

    def widths(self, seen: Moderated | None) -> tuple[float, float]:
        """Half-widths below and above, with the variance over runs as `seen` among other arms (None: unknown, left out)."""
        runs = 0.0
        if seen and seen.variance > 0:
            runs = stdtrit(seen.df, TAIL) ** 2 * seen.variance / self.runs
        return math.sqrt(self.below**2 + runs), math.sqrt(self.above**2 + runs)

    def freedom(self, seen: Moderated | None) -> float:
        """Degrees of freedom of both parts together (Satterthwaite 1946)."""
        images = (max(self.below, self.above) / stdtrit(self.among - 1, TAIL)) ** 2
        runs = seen.variance / self.runs if seen else 0.0
        if images + runs == 0:
            return float(self.among - 1)
        parts = images**2 / (self.among - 1) + (runs**2 / seen.df if seen and runs else 0.0)
        return float((images + runs) ** 2 / parts)

    def interval(self, seen: Moderated | None = None) -> Interval:
        """With the variance over runs as other arms moderate it; by default its own."""
        if not self.finite:
            return Interval(self.value, math.nan, math.nan, self.n)
        below, above = self.widths(seen or self.own)
        low, high = (float(self.measure.back(z)) for z in (self.centre - below, self.centre + above))
        if self.exact:
            low, high = min(low, self.exact[0]), max(high, self.exact[1])
        return Interval(self.value, min(low, self.value), max(high, self.value), self.n)

    def exact_level(self, edge: float) -> float:
        """The level at which the exact interval of a share of none or all would touch `edge`; 0 where there is none."""
        if self.exact is None:
            return 0.0
        return 2 * max(0.0, 1 - abs(edge - self.value) / _span(self.measure)) ** self.among

    @property
    def own(self) -> Moderated | None:
        """The variance over runs as it is, without the other arms."""
        return Moderated(self.variance, self.runs - 1) if self.runs > 1 else None


def parts(
    statistic: Statistic,
    *,
    images: int,
    seeds: int,
    draws: int = 500,
    of: Measure | None = None,
    units: np.ndarray | None = None,
    unit: str = "images",
) -> Parts:
    """The statistic and its uncertainties; see the module's docstring.

    `statistic(image_index, seed_index)` computes the value from the images and seeds that it is given (integer arrays; an
    image may occur more than once). `units` (images,) says which images stand and fall together (pictures of one person);
    what is resampled is called `unit`. Of an `Extreme` the cells are resampled together. Resamples without a value are left out
    where they are fewer than one in twenty; else there is no interval. Raises ValueError for fewer than two units or no seed.
    """
    groups = None if units is None else [np.flatnonzero(units == u) for u in np.unique(units)]
    units = np.arange(images) if units is None else units
    count = len(np.unique(units))
    if count < 2 or seeds < 1:
        raise ValueError(f"an interval needs 2 {unit} and 1 seed at least, got {count} and {seeds}")
    of = of or measures.measure("")
    every_image, every_seed = np.arange(images), np.arange(seeds)
    among = statistic.count(units) if isinstance(statistic, Among) else count
    cells, pick = (statistic.cells, statistic.pick) if isinstance(statistic, Extreme) else (_alone(statistic), np.min)
    first = np.asarray(cells(every_image, every_seed), float)
    value = float(pick(first))
    chosen = _resamples(count, draws)
    drawn = chosen if groups is None else (np.concatenate([groups[i] for i in one]) for one in chosen)
    raw = np.array([cells(i, every_seed) for i in drawn], float)
    known = np.isfinite(raw).all(1)
    if ALMOST < known.mean() < 1:  # a draw of few images may hold none that the statistic is of
        raw = raw[known]
    exact = None
    if of.bounded and math.isfinite(value) and _alike(pick(raw, axis=1)):
        exact = _exact(value, of, among)
    own, resampled = of.out(first, among), of.out(raw, among)
    own_spread = np.std(resampled, axis=0, ddof=1)
    spread = own_spread * (math.sqrt(among / (among - 1)) if among > 1 else math.nan)  # a resample varies about its own mean
    few = of.bounded and of.low < 0 and exact is None and abs(value) < of.high / 2
    if few and _counted(raw * count * seeds):  # half a decision more that differs, on either side (Agresti and Min 2005)
        half = 0.5 / (count * seeds)
        spread = np.hypot(spread, of.out(first + half, among) - of.out(first - half, among))
    reach = float(stdtrit(among - 1, TAIL)) * spread
    if isinstance(statistic, Extreme) and (own_spread > 0).any():
        gone = np.abs(resampled - own) / np.where(own_spread > 0, own_spread, math.inf)
        reach = reach * float(np.quantile(gone.max(1), CONFIDENCE)) / ndtri(TAIL)
    centre = float(pick(own))
    below, above = centre - float(pick(own - reach)), float(pick(own + reach)) - centre
    variance = _variance(of.out([statistic(every_image, np.array([s])) for s in every_seed], among)) if seeds > 1 else 0.0
    eligible = statistic.count(every_image) if isinstance(statistic, Among) else images
    n = f"{eligible} of {images}" if eligible < images else f"{images}"
    n += f" {unit}" if groups is None else f" images of {among} {unit}"
    n += f", {seeds} seed{'s' if seeds > 1 else f' ({UNKNOWN})'}"
    return Parts(value, centre, below, above, variance, seeds, count, among, of, n, exact, unit)


def _counted(values: np.ndarray) -> bool:
    """Whether all are whole numbers, as those of images that two networks decide differently."""
    return bool((np.abs(values - np.round(values)) < 1e-6).all() and np.abs(values).max() > 0.5)


def _alike(values: np.ndarray) -> bool:
    """Whether values differ by rounding alone."""
    return bool(np.ptp(values) <= ROUNDING * max(1.0, np.abs(values).max()))


def _variance(values: np.ndarray) -> float:
    """Of single training runs; none where they differ by rounding alone, whose logarithm would speak for other arms."""
    return 0.0 if _alike(values) else float(np.var(values, ddof=1))


def _alone(statistic: Statistic) -> Callable[[np.ndarray, np.ndarray], list[float]]:
    """A statistic as the one cell of itself."""
    return lambda images, seeds: [statistic(images, seeds)]


@functools.lru_cache(maxsize=2)  # of 10,000 images: 40 MB each
def _resamples(count: int, draws: int) -> np.ndarray:
    """The units of every resample, (draws, count): the same ones for every statistic of as many units."""
    chosen = np.random.default_rng(0).integers(0, count, (draws, count))
    chosen.flags.writeable = False  # they are handed to every statistic
    return chosen


def interval(
    statistic: Statistic,
    of: Measure,
    *,
    images: int,
    seeds: int,
    draws: int = 500,
    units: np.ndarray | None = None,
    unit: str = "images",
) -> Interval:
    """The statistic with its interval over images and seeds, on its own; see `parts`."""
    return parts(statistic, images=images, seeds=seeds, draws=draws, of=of, units=units, unit=unit).interval()


def together(found: Sequence[Parts]) -> list[Interval]:
    """The intervals of one statistic for several arms, whose variances over runs moderate each other."""
    seen = moderate([f.variance for f in found], [f.runs - 1 for f in found])
    return [f.interval(s) for f, s in zip(found, seen, strict=True)]


def _span(of: Measure) -> float:
    """What the share of images that an exact interval leaves open is a share of: of the range; of a difference, both of whose
    shares are uncertain (Newcombe 1998), of that of one share times the root of two."""
    width = of.high - of.low
    return width if of.low >= 0 else width / math.sqrt(2)


def _exact(value: float, of: Measure, count: int) -> tuple[float, float] | None:
    """Of a share of none or all of `count`; of a difference of two such shares, as wide on both sides."""
    reach = (1 - (1 - TAIL) ** (1 / max(1, count))) * _span(of)  # Clopper and Pearson's upper end of 0 of `count`
    if of.low < 0:
        return max(of.low, value - reach), min(of.high, value + reach)
    if value in (of.low, of.high):
        return (value, value + reach) if value == of.low else (value - reach, value)
    return None


def over(values: np.ndarray) -> Statistic:
    """The mean of an array (seed, image) over what is finite; NaN where nothing is."""
    if np.isfinite(values).all():  # as good as always; means over seeds are taken once for all resamples of the images
        means: dict[bytes, np.ndarray] = {}

        def whole(i: np.ndarray, s: np.ndarray) -> float:
            key = s.tobytes()
            if key not in means:
                means[key] = values[s].mean(0, dtype=np.float64)
            return float(means[key][i].mean())

        return whole

    def statistic(i: np.ndarray, s: np.ndarray) -> float:
        chosen = values[s][:, i]
        chosen = chosen[np.isfinite(chosen)]
        return float(chosen.mean()) if len(chosen) else float("nan")

    return Among(statistic, np.isfinite(values))


def over_pairs(values: np.ndarray) -> Statistic:
    """The mean over all pairs of images, from an array (seed, image) of each image's mean over its pairs with the others.

    An image stands in many pairs, so that a mean over pairs varies more than its images' means r_i would, if they were
    independent: to first order as the mean of 2 r_i - r, r the mean over all (Hoeffding 1948, for a U-statistic of two
    arguments). The value is that of the pairs.
    """
    return over(2 * values - np.nanmean(values, axis=1, keepdims=True, dtype=np.float64))


def minus(a: Statistic, b: Statistic) -> Statistic:
    """a - b; where one is of some images alone, as exact at an end of its range as the one of fewer images makes it."""
    eligible = [one.eligible for one in (a, b) if isinstance(one, Among)]

    def difference(i: np.ndarray, s: np.ndarray) -> float:
        return a(i, s) - b(i, s)

    return Among(difference, min(eligible, key=lambda e: e.any(0).sum())) if eligible else difference
