"""What claims measure: the range of each measure, and the difference that nobody would act on.

A statistic with a bounded range is judged on a scale without bounds: with both ends, the logit of its place between them (of a
correlation that is twice Fisher's z); above zero alone, the logarithm. So no interval leaves the range.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from lib.system import names

AT_END = 1e-9  # of the range: what is nearer to an end is there, but for rounding


@dataclass(frozen=True)
class Measure:
    """Range [low, high] and delta: differences within ±delta are negligible, for the reason `why`."""

    low: float
    high: float
    delta: float
    why: str

    def difference(self) -> "Measure":
        """Of the difference of two values."""
        width = self.high - self.low
        return Measure(-width, width, self.delta, self.why)

    @property
    def bounded(self) -> bool:
        """Whether it has both ends."""
        return math.isfinite(self.high - self.low)

    def out(self, values: np.ndarray | float, images: int) -> np.ndarray:
        """On the scale without bounds; values at an end are taken as half an image away from it, and nearer to it than any
        value that is not, since a share need not be a count of images."""
        x = np.asarray(values, float)
        if self.bounded:
            place = (x - self.low) / (self.high - self.low)
            away = np.minimum(place, 1 - place)
            end = min(0.5 / (images + 1), float(np.min(away, initial=np.inf, where=away > AT_END)) / 2)
            return logit(np.clip(place, end, 1 - end))
        if math.isfinite(self.low):
            return np.log(np.maximum(x - self.low, np.finfo(float).tiny))
        return x

    def back(self, values: np.ndarray | float) -> np.ndarray:
        """From the scale without bounds."""
        z = np.asarray(values, float)
        if self.bounded:
            return self.low + (self.high - self.low) * expit(z)
        return self.low + np.exp(z) if math.isfinite(self.low) else z


MEASURES = {
    "": Measure(-math.inf, math.inf, 0.0, "nothing is known of its size"),
    "accuracy": Measure(0, 1, 0.02, "two points: what two training runs of one network differ by"),
    "share": Measure(0, 1, 0.02, "two images of a hundred"),
    "NISSIM": Measure(0, 1, 0.02, "what re-encoding an image as JPEG moves a map by"),
    # of E = 4 levels of MOD, one that moves by NISSIM's own .02 moves their spread by .02 sqrt(E - 1) / E = .0087 at most; the
    # five networks of Chakraborty et al. differ by .01 to .08
    "VID": Measure(0, 0.5, 0.01, "what their spread over eps changes by when one level of MOD moves by NISSIM's own .02"),
    "correlation": Measure(-1, 1, 0.05, "ranks that differ by less than neighbours trading places"),
    "cosine": Measure(-1, 1, 0.02, "what two random directions of an image of 32 x 32 pixels have by chance"),
    "overlap": Measure(0, 1, 0.02, "a fiftieth of a region"),
    "auc": Measure(0, 1, 0.02, "two points from chance"),
    "ratio": Measure(0, math.inf, 0.05, "a twentieth more or less"),
    "variation": Measure(0, 2, 0.01, "of a map in [0, 1], two or three grey levels from pixel to pixel"),
    "medians": Measure(-math.inf, math.inf, 0.1, "a tenth of what a neuron of the layer has in the mean"),
    "pixels": Measure(0, math.inf, 0.5, "half a pixel"),
}


def measure(name: str, *, difference: int = 0) -> Measure:
    """By name; of a `difference` of two values where that is 1 or true, of two differences where it is 2. Raises ValueError for
    an unknown one, with the close matches."""
    if name not in MEASURES:
        raise names.unknown("measure", name, MEASURES)
    found = MEASURES[name]
    for _ in range(difference):
        found = found.difference()
    return found
