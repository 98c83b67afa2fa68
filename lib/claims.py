r"""Claims as data: a statistic, its interval, a rule, and the verdict that follows from them. Nobody types a verdict.

Intervals. A statistic is a function of the images and of the training seeds it is computed on. Its uncertainty has two
parts: over images, by the bootstrap with the seeds as they are; over seeds, from the values s of single seeds, with
variance s^2 / m. Each part gets Student's t of its own degrees of freedom, which keeps three seeds from looking like
certainty, and the two half-widths are added in quadrature (Howe 1974; Graybill and Wang 1980):

.. math:: value \pm \sqrt{t_{n-1}^2\, v_{images} + t_{m-1}^2\, s^2 / m}.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
import scipy.stats
from pydantic import BaseModel, ConfigDict

Kind = Literal["claim", "control", "open question"]
Verdict = Literal["supported", "contradicted", "inconclusive", "not tested"]
COLUMNS = (
    "study", "id", "kind", "statement", "source", "statistic", "value", "ci_low", "ci_high", "n", "rule", "verdict", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval and what it rests on, in words ("300 images, 3 seeds")."""

    value: float
    low: float
    high: float
    n: str


@dataclass(frozen=True)
class Rule:
    """`above t`: the claim holds where the whole interval lies above t, fails where it lies below; `below` likewise.

    `within t`: it holds where the interval lies inside [-t, t], fails where it lies wholly outside.
    """

    kind: Literal["above", "below", "within"]
    threshold: float

    def __str__(self) -> str:
        if self.kind == "within":
            return f"supported if the 95 % interval lies inside ±{self.threshold:g}, contradicted if wholly outside"
        other = "below" if self.kind == "above" else "above"
        return f"supported if the 95 % interval lies {self.kind} {self.threshold:g}, contradicted if {other}"

    def judge(self, interval: Interval) -> Verdict:
        low, high, t = interval.low, interval.high, self.threshold
        if not (math.isfinite(low) and math.isfinite(high)):
            return "not tested"
        if self.kind == "within":
            holds, fails = -t <= low and high <= t, low > t or high < -t
        elif self.kind == "above":
            holds, fails = low > t, high < t
        else:
            holds, fails = high < t, low > t
        return "supported" if holds else "contradicted" if fails else "inconclusive"


Statistic = Callable[[np.ndarray, np.ndarray], float]  # (image indices, seed indices) -> value


class Claim(BaseModel):
    """One row of claims.csv."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    id: str
    kind: Kind
    statement: str
    source: str
    statistic: str
    value: float
    ci_low: float
    ci_high: float
    n: str
    rule: str
    verdict: Verdict
    note: str = ""


def table(claims: Sequence[Claim]) -> pd.DataFrame:
    return pd.DataFrame([c.model_dump() for c in claims], columns=list(COLUMNS))


def interval(
    statistic: Statistic,
    *,
    images: int,
    seeds: int,
    draws: int = 500,
    confidence: float = 0.95,
) -> Interval:
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
    squares = scipy.stats.t.ppf(quantile, images - 1) ** 2 * over_images
    if over_seeds > 0:
        squares += scipy.stats.t.ppf(quantile, seeds - 1) ** 2 * over_seeds
    half = math.sqrt(squares)
    return Interval(value, value - half, value + half, n)


@dataclass
class Book:
    """The claims of one run, each judged as it is added.

    `images` and `seeds` are how many of each the statistics may resample; `variant` tells a second run of a study from the
    first in the claims' ids; with `test=False` (smoke runs) nothing is judged. `draws` are those of the bootstrap.
    """

    study: str
    images: int
    seeds: int
    variant: str = ""
    test: bool = True
    rows: list[Claim] = field(default_factory=list)
    draws: int = 500

    def add(
        self,
        id: str,
        kind: Kind,
        statement: str,
        compute: Statistic,
        rule: Rule,
        *,
        statistic: str,
        source: str,
        note: str = "",
        unknown: str = "",
    ) -> None:
        """State a claim: `compute` is its statistic, `statistic` says in words what it is; `unknown` joins the note where
        there is no interval, and says why that can be."""
        found = interval(compute, images=self.images, seeds=self.seeds, draws=self.draws)
        verdict = rule.judge(found) if self.test else "not tested"
        if self.test and verdict == "not tested" and unknown:
            note = f"{note} {unknown}".strip()
        name = f"{id}@{self.variant}" if self.variant else id
        self.rows.append(
            Claim(
                study=self.study, id=name, kind=kind, statement=statement, source=source, statistic=statistic,
                value=found.value, ci_low=found.low, ci_high=found.high, n=found.n, rule=str(rule), verdict=verdict, note=note,
            )
        )  # fmt: skip


def tally(claims: pd.DataFrame) -> str:
    """`3 supported, 1 contradicted, 0 inconclusive` of the rows that are claims, and how many were not tested."""
    own = claims[claims.kind == "claim"].verdict
    counts = [f"{(own == v).sum()} {v}" for v in ("supported", "contradicted", "inconclusive")]
    untested = (own == "not tested").sum()
    return ", ".join(counts + ([f"{untested} not tested"] if untested else []))
