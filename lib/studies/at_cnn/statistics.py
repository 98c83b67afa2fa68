"""Study 2's statistics: retention, and how often a network decides by shape.

Statistics are functions of the images and of the seeds that they are computed on (`lib.claims.intervals`). Retention is, of
the images that a network gets right as they are, the share that it still gets right after a change.
"""

from dataclasses import dataclass

import numpy as np

from lib.claims import cubes as cubes_
from lib.claims.intervals import Statistic


@dataclass
class Cubes(cubes_.Cubes):
    """The table as arrays, and retention."""

    min_correct: int = 1

    def level(self, measure: str, which: int = 0) -> float:
        """The levels of a measure in ascending order, by position."""
        return self.levels(measure)[which]

    def few(self, *arms: str) -> str:
        """What to say where a retention of these arms rests on fewer right images than the 200 that are customary."""
        least = min(int(self.values[arm, "clean", 0.0].sum(1).min()) for arm in arms)
        return f"rests on {least} right images in the network with fewest, fewer than 200" if least < 200 else ""

    def retention(self, arm: str, measure: str, level: float) -> Statistic:
        """Right before and after over right before, mean over seeds; NaN where a network has too few right images."""
        before, after = self.values[arm, "clean", 0.0], self.values[arm, measure, level]
        enough = (before.sum(1) >= self.min_correct).all()

        def statistic(i: np.ndarray, s: np.ndarray) -> float:
            b, a = before[s][:, i], after[s][:, i]
            count = b.sum(1)
            if not enough or (count == 0).any():
                return float("nan")
            return float(((a * b).sum(1) / count).mean())

        return statistic


def shape_bias(cubes: Cubes, arm: str) -> Statistic:
    """Geirhos et al. 2019: of decisions for either cue, the share for the shape."""
    shape, texture = cubes.mean(arm, "conflict", 1.0), cubes.mean(arm, "conflict-texture", 1.0)

    def statistic(i: np.ndarray, s: np.ndarray) -> float:
        a, b = shape(i, s), texture(i, s)
        return a / (a + b) if a + b > 0 else float("nan")

    return statistic
