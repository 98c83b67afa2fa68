r"""Intervals of statistics over images and training seeds.

A statistic is a function of the images and of the training seeds it is computed on. Its uncertainty has two parts: over
images, by the bootstrap with the seeds as they are; over seeds, from the values s of single seeds, with variance s^2 / m.
Each part gets Student's t of its own degrees of freedom, which keeps three seeds from looking like certainty, and the two
half-widths are added in quadrature (Howe 1974; Graybill and Wang 1980):

.. math:: value \pm \sqrt{t_{n-1}^2\, v_{images} + t_{m-1}^2\, s^2 / m}.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit  # Student's quantiles; scipy.stats, which calls this, takes half a second to load


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval and what it rests on, in words ("300 images, 3 seeds")."""

    value: float
    low: float
    high: float
    n: str


Statistic = Callable[[np.ndarray, np.ndarray], float]  # (image indices, seed indices) -> value


def interval(statistic: Statistic, *, images: int, seeds: int, draws: int = 500, confidence: float = 0.95) -> Interval:
    """The statistic with its interval over images and seeds; see the module's docstring.

    `statistic(image_index, seed_index)` computes the value from the images and seeds that it is given (integer arrays; an
    image may occur more than once). With a single seed the interval covers images alone, and `n` says so.
    """
    if images < 2 or seeds < 1:
        raise ValueError(f"an interval needs 2 images and 1 seed at least, got {images} and {seeds}")
    every_image, every_seed = np.arange(images), np.arange(seeds)
    value = float(statistic(every_image, every_seed))
    rng = np.random.default_rng(0)
    resampled = [statistic(rng.integers(0, images, images), every_seed) for _ in range(draws)]
    over_images = float(np.var(resampled, ddof=1))
    n = f"{images} images, {seeds} seed{'s' if seeds > 1 else ' (spread over seeds unknown)'}"
    if seeds > 1:
        singles = [statistic(every_image, np.array([s])) for s in every_seed]
        over_seeds = float(np.var(singles, ddof=1)) / seeds
    else:
        over_seeds = 0.0
    if not all(map(math.isfinite, (value, over_images, over_seeds))):
        return Interval(value, math.nan, math.nan, n)
    quantile = 0.5 + confidence / 2
    squares = stdtrit(images - 1, quantile) ** 2 * over_images
    if over_seeds > 0:
        squares += stdtrit(seeds - 1, quantile) ** 2 * over_seeds
    half = math.sqrt(squares)
    return Interval(value, value - half, value + half, n)


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

    return statistic


def minus(a: Statistic, b: Statistic) -> Statistic:
    return lambda i, s: a(i, s) - b(i, s)
