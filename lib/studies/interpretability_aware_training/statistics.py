"""Study 3's statistics: tau over the images whose prediction stays, and how often and how tightly Proposition 1 holds.

Statistics are functions of the images and of the seeds that they are computed on (`lib.claims.intervals`). Proposition 1
(Boopathy et al. 2020, arXiv 2006.14748) bounds the discrepancy D2 of CAM between an image and an attacked copy from below by
half the margin that the attack overcame; it applies to attacks that succeed. Further what both claims and tables begin from:
the measurements of the authors' networks apart from ours, and the numbers that the paper prints.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import ndtri

from lib.claims.cubes import Cubes
from lib.claims.intervals import Statistic, minus, over, parts, together
from lib.claims.measures import measure
from lib.networks import released
from lib.studies.interpretability_aware_training.plan import RELEASED, Parameters, label, seeds_of
from lib.system import paths

PRINTED_IMAGES = 200  # behind each cell of the paper's tables
PRINTED_JPEG = (0.25, 8.0, 256.0)  # the radii of its table 2


def apart(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The measurements of the study's own networks, and those of the authors' (`released:ARM`), there by arm alone."""
    arms = table.arm.astype(str)
    theirs = arms.str.startswith(RELEASED)
    return table[~theirs], table[theirs].assign(arm=arms[theirs].str.removeprefix(RELEASED))


def printed(number: int, data: str) -> pd.DataFrame:
    """The rows (table, data, network, arm, column, value) of one of the paper's tables 1 to 3 for `mnist`, `cifar10` or
    `restricted-imagenet`. Raises ValueError where the paper has none."""
    found = pd.read_csv(paths.published() / "interpretability_training.csv", dtype={"column": str})
    part = found[(found.table == number) & (found.data == data)]
    if part.empty:
        raise ValueError(f"no table {number} for {data!r}; data/published/interpretability_training.csv has what is printed")
    return part


def published(number: int, data: str) -> pd.DataFrame:
    """The same as it is printed: a row an arm, a column a radius or an attack."""
    part = printed(number, data)
    return part.pivot(index="arm", columns="column", values="value")[list(dict.fromkeys(part.column))]


class Cell(NamedTuple):
    """A cell of a table of the paper: what is measured here, what is printed, and whether they differ by more than chance."""

    arm: str
    column: str
    found: float
    printed: float
    off: bool


def beside_printed(cubes: Cubes, p: Parameters, number: int) -> list[Cell]:
    """The cells of table 1 or 2 that are printed of the networks in `cubes`, whose arms go without their architecture.

    Two shares of n and of 200 images differ by more than chance where |a - b| > z sqrt(q (1 - q) (1 / n + 1 / 200)), q their
    pooled share, z of a test at 5 % over all cells (Bonferroni). Of table 2 the cells of JPEG, where attacks and radii are
    those of the paper: Gabor noise and snow have other steps there. Empty where the paper prints none.
    """
    data = released.families(p.dataset)[0].data
    try:
        part = printed(number, data)
    except ValueError:
        return []
    part = part[(part.network == p.arch) & part.arm.isin(p.arms)]
    found = []
    for row in part.itertuples():
        if number == 1:
            eps = _radius(row.column)
            level = next((e for e in (0.0, *p.eps_grid) if abs(e - eps) < 1e-9), None)
            measured = "plain" if eps else "clean"
        else:
            asked = p.targeted and p.jpeg_eps == PRINTED_JPEG and row.column.startswith("jpeg")
            level, measured = p.unforeseen_eps[row.column] if asked else None, f"unforeseen/{row.column}"
        if level is not None:
            values = cubes.values[row.arm, measured, level]
            found.append((row.arm, row.column, float(values.mean(dtype=np.float64)), row.value, values.shape[1]))
    z = float(ndtri(1 - 0.025 / max(len(found), 1)))
    cells = []
    for arm, column, a, b, n in found:
        pooled = (a * n + b * PRINTED_IMAGES) / (n + PRINTED_IMAGES)
        chance = z * math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / PRINTED_IMAGES))
        cells.append(Cell(arm, column, a, b, abs(a - b) > chance + 1e-9))
    return cells


def _radius(column: str) -> float:
    """A column of table 1 as a radius of images in [0, 1]: `8/255`, `0.3`."""
    top, _, bottom = column.partition("/")
    return float(top) / float(bottom or 1)


def constant(value: float) -> Statistic:
    """A count of what was looked at in full: nothing to resample."""
    return lambda i, s: float(value)


def right(cubes: Cubes, arm: str, how: str, eps: float = 0.0) -> float:
    """How often all networks of an arm are right."""
    return float(cubes.values[arm, how, eps].mean(dtype=np.float64))


def changed(cubes: Cubes, arm: str, before: str, after: str) -> Statistic:
    """The share of images that a network is right on before or after something, and not both."""
    return over(np.abs(cubes.values[arm, after, 0.0] - cubes.values[arm, before, 0.0]))


def gains(cubes: Cubes, p: Parameters, draws: int) -> dict[str, float]:
    """By arm, what it is at least more robust by than Normal: the lower end of the difference's interval."""
    arms, of, normal = [a for a in p.arms if a != "normal"], measure("accuracy", difference=True), seeds_of(p, "normal")
    found = []
    for arm in arms:
        gain = minus(*(cubes.mean(a, "strong", p.eps) for a in (arm, "normal")))
        seeds = min(seeds_of(p, arm), normal)
        found.append(parts(gain, images=cubes.images("strong"), seeds=seeds, draws=draws, of=of))
    return {arm: interval.low for arm, interval in zip(arms, together(found), strict=True)}


def survivors(cubes: Cubes, arm: str, eps: float) -> Statistic:
    """Tau of the released attack over the images whose prediction stays."""
    tau, kept = cubes.values[arm, "tau/released", eps], cubes.values[arm, "kept/released", eps]
    return over(np.where(kept > 0, tau, np.nan))


def surviving(cubes: Cubes, arm: str, eps: float) -> np.ndarray:
    """How many images that is, of each network (seed,)."""
    tau, kept = cubes.values[arm, "tau/released", eps], cubes.values[arm, "kept/released", eps]
    return ((kept > 0) & np.isfinite(tau)).sum(1)


def survived(cubes: Cubes, arms: Sequence[str], eps: float) -> str:
    """The same in words."""
    told = [f"{label(a)} {', '.join(map(str, surviving(cubes, a, eps)))}" for a in arms]
    return f"images that survive, of {cubes.images('kept/released')} a network: {'; '.join(told)}"


def violations(cubes: Cubes, arm: str, suffix: str = "", tolerance: float = 1e-4) -> tuple[np.ndarray, np.ndarray]:
    """On the attacked images of all radii, (seed, image) each: how often Proposition 1 applies, and how often it fails."""
    applies, fails = 0.0, 0.0
    for level in cubes.levels(f"d2{suffix}"):
        d2, bound, covered = (cubes.values[arm, name + suffix, level] for name in ("d2", "bound", "applies"))
        applies = applies + covered
        fails = fails + covered * (d2 < bound - tolerance * np.maximum(1.0, np.abs(bound)))
    return np.asarray(applies), np.asarray(fails)


def violated(cubes: Cubes, arm: str, suffix: str = "", *, share: bool = False) -> Statistic:
    """The number of successful attacks that violate Proposition 1, or their share; NaN where none succeeded."""
    applies, fails = violations(cubes, arm, suffix)
    if not applies.sum():
        return constant(np.nan)
    return constant(fails.sum() / applies.sum() if share else fails.sum())


def tightness(cubes: Cubes, arm: str, eps: float) -> Statistic:
    """Median over covered images of D2 over its bound, where the bound is positive; the mean over seeds."""
    d2, bound, applies = (cubes.values[arm, name, eps] for name in ("d2", "bound", "applies"))

    def statistic(i: np.ndarray, s: np.ndarray) -> float:
        found = []
        for one in s:
            use = (applies[one, i] > 0) & (bound[one, i] > 0)
            if use.any():
                found.append(float(np.median(d2[one, i][use] / bound[one, i][use])))
        return float(np.mean(found)) if len(found) == len(s) else float("nan")

    return statistic


def overcome(cubes: Cubes, arm: str, eps: float) -> bool:
    """Whether in each network of an arm an attack overcame a margin, so that `tightness` has a value."""
    return bool(((cubes.values[arm, "applies", eps] > 0) & (cubes.values[arm, "bound", eps] > 0)).any(1).all())
