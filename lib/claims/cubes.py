"""A study's table of measurements (`lib.claims.rows`) as arrays, and statistics over them that claims resample."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from lib.claims import intervals, measures
from lib.claims.intervals import Statistic, over


def paired(one: np.ndarray, other: np.ndarray) -> Statistic:
    """The mean of one array (seed, image) less another, over the images that have both. Training runs are paired as far as both
    have them."""
    runs = min(len(one), len(other))
    return over(one[:runs] - other[:runs])


@dataclass
class Cubes:
    """Arrays (seed, image), one a (arm, measure, level)."""

    values: dict[tuple[str, str, float], np.ndarray]

    @classmethod
    def of(cls, table: pd.DataFrame, *further: Any) -> Self:
        """From a table; `further` are the fields that a study's own class adds.

        Raises ValueError where the training runs of an arm were not measured on the same images, each once.
        """
        found = {}
        for (arm, measure, level), part in table.groupby(["arm", "measure", "level"], observed=True):
            part = part.sort_values(["seed", "image_id"])
            runs, images = part.seed.nunique(), np.unique(part.image_id)
            if len(part) != runs * len(images) or (part.image_id.to_numpy().reshape(runs, -1) != images).any():
                raise ValueError(
                    f"{measure} of {arm} at {level:g}: {len(part)} values of {runs} training runs and {len(images)} images; "
                    "every run must be measured on the same images, each once"
                )
            found[arm, measure, float(level)] = part.value.to_numpy().reshape(runs, -1)
        return cls(found, *further)

    def levels(self, measure: str) -> list[float]:
        """The levels of a measure, ascending."""
        return sorted({v for _, m, v in self.values if m == measure})

    def images(self, measure: str) -> int:
        """How many images a measure was taken on."""
        return next(v.shape[1] for (_, m, _), v in self.values.items() if m == measure)

    def mean(self, arm: str, measure: str, level: float = 0.0) -> Statistic:
        """The mean over the images and seeds that have a value (a map without contrast has no rank correlation)."""
        return over(self.values[arm, measure, level])

    def less(self, a: tuple[str, str, float], b: tuple[str, str, float]) -> Statistic:
        """The mean of one (arm, measure, level) less another: image by image, over those that have both, so that an image whose
        map is dead on one side does not stay in the mean of the other."""
        return paired(self.values[a], self.values[b])

    def interval(
        self,
        statistic: Statistic,
        over: str,
        seeds: int,
        of: str,
        *,
        difference: bool = False,
        draws: int = 200,
        units: np.ndarray | None = None,
        unit: str = "images",
    ) -> intervals.Interval:
        """A statistic over the images of a measure, with its 95 % interval: the one that a claim of it has, but for what other
        arms tell of training runs. `of` names what it is (`lib.claims.measures`), whose range the interval never leaves;
        `units` which images stand and fall together, called `unit`."""
        scale, images = measures.measure(of, difference=difference), self.images(over)
        return intervals.interval(statistic, scale, images=images, seeds=seeds, draws=draws, units=units, unit=unit)
