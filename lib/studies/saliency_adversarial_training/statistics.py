"""Study 5's statistics: robust accuracy, the cost of a training step, and whether maps differ from image to image.

Statistics are functions of the images and of the seeds that they are computed on (`lib.claims.intervals`). Of a timing the
images are its rounds: all networks take a step in each, so that what else the machine does falls on all alike.
"""

import numpy as np

from lib.claims.cubes import Cubes
from lib.claims.intervals import Statistic, over
from lib.studies.saliency_adversarial_training.plan import Parameters, parsed

FIRST = 3  # radii that robustness is averaged over; the poster's tables of weak maps have three


def robust(cubes: Cubes, arm: str, p: Parameters) -> Statistic:
    """Accuracy under the paper's attack, averaged over the first radii."""
    return over(np.mean([cubes.values[arm, "pgd", e] for e in p.eps_grid[:FIRST]], axis=0))


def robust_in_words(p: Parameters) -> str:
    """What `robust` is."""
    return f"accuracy under PGD-{p.steps}, mean over eps {', '.join(f'{e:g}' for e in p.eps_grid[:FIRST])} of 255"


def same(cubes: Cubes, arm: str) -> bool:
    """Whether an arm's maps are one and the same for all images: then an image's own and another's make no difference."""
    values = [cubes.values.get((arm, m, 0.0)) for m in ("cosine", "cosine-another")]
    return values[0] is not None and np.array_equal(*values)


def timed(cubes: Cubes, arm: str) -> bool:
    """Whether the steps of an arm, or the making of maps (`maps/ATTRIBUTION`), were timed."""
    return (arm, "seconds", 0.0) in cubes.values


def ratio(a: list[np.ndarray], b: np.ndarray) -> Statistic:
    """Sum of the medians of times (1, rounds) over the median of another's."""
    return lambda i, s: float(sum(np.median(v[0, i]) for v in a) / np.median(b[0, i]))


def cost(cubes: Cubes, arm: str, p: Parameters) -> list[np.ndarray]:
    """Times of a step of an arm (1, rounds), and of its share of making the maps, which happens once a run."""
    found = parsed(arm, p.mix_maps)
    step = (
        arm
        if found.base != "plain" or found.mix != "sat"
        else next(a for a in ("sat-masks", "sat-boxes", "sign") if timed(cubes, a))
    )
    parts = [cubes.values[step, "seconds", 0.0]]
    if found.mix == "sat" and found.teacher:
        whole = cubes.values[f"maps/{found.attribution}", "seconds", 0.0]
        parts.append(whole if "fresh" in found.changes else whole / p.epochs)
    return parts
