"""Study 1's table as arrays, and what claims make of them: means over the images and seeds that a statistic is computed on."""

import numpy as np
import pandas as pd

from lib.claims.intervals import Statistic

Cube = dict[str, np.ndarray]  # by architecture: (seed, eps, image)


def cube(table: pd.DataFrame, column: str, *, attack: str = "fgsm", target: str = "pred") -> Cube:
    """A column of the table as arrays (seed, eps, image), one an architecture, for statistics that resample."""
    part = table[(table.attack == attack) & (table.target_mode == target)]
    found = {}
    for model, rows in part.groupby("model", observed=True):
        rows = rows.sort_values(["seed", "eps", "image_id"])
        shape = tuple(rows[c].nunique() for c in ("seed", "eps", "image_id"))
        found[str(model)] = rows[column].to_numpy().reshape(shape)
    return found


def pick(a: np.ndarray, images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    return a[seeds][:, :, images]


def by_eps(a: np.ndarray, images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The mean over seeds and images, (eps,): MOD, for NISSIM."""
    return pick(a, images, seeds).mean((0, 2))


def mean_where(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Mean over images of the values where `where` holds, NaN where it never does; (seed, eps, image) -> (seed, eps)."""
    count = where.sum(-1)
    return np.where(count > 0, np.where(where, values, 0).sum(-1) / np.maximum(count, 1), np.nan)


def pooled(parts: list[np.ndarray]) -> float:
    """The mean of all finite values, NaN where there is none."""
    values = np.concatenate([p.ravel() for p in parts])
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def mean_of(parts: list[Statistic]) -> Statistic:
    """The mean of several statistics."""
    return lambda i, s: float(np.mean([part(i, s) for part in parts]))


def finite_mean(values: np.ndarray) -> Statistic:
    """The mean of the finite ones of values (seed, image); NaN where there is none."""
    return lambda i, s: pooled([values[s][:, i]])


def inverted(correlations: np.ndarray) -> np.ndarray:
    """1 where a map's ranks correlate negatively with those of its clean map, else 0; NaN where one of them has no ranks."""
    return np.where(np.isfinite(correlations), correlations < 0, np.nan)


def told_by_shift(shift: np.ndarray, wrong: np.ndarray, known: np.ndarray) -> np.ndarray:
    """How well the shift (seed, eps, image) tells, within an image, at which eps the network is `wrong`: the share of pairs of
    one eps that it is wrong at and one that it is right at in which the first has the larger shift, equal ones counting half
    (the area under the curve of true against false positives; Mann and Whitney 1947, doi:10.1214/aoms/1177730491).

    (seed, image), .5 by chance; NaN where the image is not `known` (seed, image), right without attack, or always wrong or
    always right.
    """
    first, second = shift[:, :, None], shift[:, None]
    pairs = wrong[:, :, None] & ~wrong[:, None] & known[:, None, None]
    count = pairs.sum((1, 2))
    right = np.where(pairs, (first > second) + 0.5 * (first == second), 0).sum((1, 2))
    return np.where(count > 0, right / np.maximum(count, 1), np.nan)


def failures_told(table: pd.DataFrame) -> tuple[Cube, Cube]:
    """`told_by_shift` of every image, by architecture (seed, image): by the shift of its own map of the label's class, and by
    the mean shift of all images at that eps."""
    nissim, pred, clean, truth = (cube(table, c, target="true") for c in ("nissim", "pred_adv", "pred_clean", "true"))
    own, mean = {}, {}
    for m, shifts in nissim.items():
        shift, wrong, known = shifts[:, 1:], (pred[m] != truth[m])[:, 1:], (clean[m] == truth[m])[:, 0]
        own[m] = told_by_shift(shift, wrong, known)
        mean[m] = told_by_shift(np.broadcast_to(shift.mean(-1, keepdims=True), shift.shape), wrong, known)
    return own, mean
