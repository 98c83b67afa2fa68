"""Study 2's statistics: retention, the ratio of stylised to clean accuracy, and how often a network decides by shape.

Statistics are functions of the images and of the seeds that they are computed on (`lib.claims.intervals`). Retention is, of
the images that a network gets right as they are, the share that it still gets right after a change.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lib.claims import cubes as cubes_
from lib.claims.intervals import Among, Statistic, minus
from lib.data import styles
from lib.studies.at_cnn.plan import Parameters, style_of


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

    def ratio(self, arm: str, level: float) -> Statistic:
        """Accuracy on stylised images over that on clean ones, of the paper's two columns; NaN where nothing is right."""
        stylised, clean = self.mean(arm, "style", level), self.mean(arm, "clean")

        def statistic(i: np.ndarray, s: np.ndarray) -> float:
            right = clean(i, s)
            return stylised(i, s) / right if right > 0 else float("nan")

        return statistic

    def retention(self, arm: str, measure: str, level: float) -> Statistic:
        """Right before and after over right before, mean over seeds; NaN where a network has too few right images."""
        before = self.values[arm, "clean", 0.0].astype(float)
        both = self.values[arm, measure, level] * before
        enough = (before.sum(1) >= self.min_correct).all()

        def statistic(i: np.ndarray, s: np.ndarray) -> float:
            times = np.bincount(i, minlength=before.shape[1]).astype(float)  # each image is drawn
            count = before[s] @ times
            if not enough or (count == 0).any():
                return float("nan")
            return float((both[s] @ times / count).mean())

        return Among(statistic, before > 0)


def by_style(p: Parameters, images: int) -> dict[str, Any]:
    """What of painted images stands and falls together, as `lib.claims` takes it: those that one photograph or painting lends
    its style. Embedded styles are crops of a few photographs, which do not count as so many styles; of a folder each held-out
    file is lent to every so many-th image."""
    lent = style_of(np.arange(images), styles.held_out(p.style_source))
    if p.style_source != "embedded":
        return {"units": lent, "unit": "styles"}
    return {"units": lent % len((*styles.PHOTOGRAPHS, *styles.PAINTED)), "unit": "photographs of the styles"}


def shape_bias(cubes: Cubes, arm: str) -> Statistic:
    """Geirhos et al. 2019: of decisions for either cue, the share for the shape."""
    shape, texture = cubes.mean(arm, "conflict", 1.0), cubes.mean(arm, "conflict-texture", 1.0)

    def statistic(i: np.ndarray, s: np.ndarray) -> float:
        a, b = shape(i, s), texture(i, s)
        return a / (a + b) if a + b > 0 else float("nan")

    either = cubes.values[arm, "conflict", 1.0] + cubes.values[arm, "conflict-texture", 1.0] > 0
    return Among(statistic, either)


def robustness(cubes: Cubes, arm: str, level: float) -> Statistic:
    """How much more often an arm is right under PGD than the standard network."""
    return minus(cubes.mean(arm, "pgd", level), cubes.mean("standard", "pgd", level))


def underfit_seeds(cubes: Cubes, seeds: int) -> list[int]:
    """The seeds in which Underfit is a network of its own; in the others it is the standard one, and no control."""
    changed = [(m, v) for arm, m, v in cubes.values if arm == "standard" and m in ("clean", "saturation", "shuffle")]

    def same(seed: int) -> bool:
        return all((cubes.values["underfit", m, v][seed] == cubes.values["standard", m, v][seed]).all() for m, v in changed)

    return [seed for seed in range(seeds) if not same(seed)]
