"""Study 2's numbers as tables: what maps look like, retention, accuracy, and the paper's numbers beside ours."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from lib.claims.intervals import Statistic
from lib.studies.at_cnn.measure import View, methods
from lib.studies.at_cnn.plan import EDGES, Parameters, label, seeds_of
from lib.studies.at_cnn.statistics import Cubes, by_style, underfit_seeds
from lib.system import paths

Of = tuple[str, float]  # a measure and its level
VIEWS = {
    "clean": "as it is",
    "saturation": "saturation\np = {:g}",
    "shuffle": "shuffle\nk = {:g}",
    "style": "stylised",
    "fourier": "Fourier\nswap",
    "conflict": "cue\nconflict",
}
# what maps look like: what it is called, and what it is counted in
APPEARANCE = {
    "smoothgrad/edges": ("agreement with edges", "rank correlation"),
    "smoothgrad/mask": ("share inside the object", "share of the map"),
    "smoothgrad/tv": ("total variation", "of a map in [0, 1], a pixel"),
    "smoothgrad/gini": ("sparsity", "Gini's index"),
    "alignment": ("alignment with the image", "|<x, g>| / ||g||"),
}
BEHIND = {"smoothgrad/edges": "smoothgrad/edges-other", "conflict": "conflict-texture"}  # drawn pale, to compare
BOUNDS = {"smoothgrad/edges": "correlation", "smoothgrad/tv": "variation", "alignment": ""}  # what is no share
PAINTED = ("style", "fourier")  # whose images share the photographs of their styles
UNCHANGED = {"saturation": 2.0, "shuffle": 1.0}  # the level that leaves an image as it is


def title(view: View) -> str:
    """What a transformation is called in pictures."""
    return VIEWS[view.kind].format(view.level)


def where(table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The rows that have these values in these columns."""
    for column, value in columns.items():
        table = table[table[column] == value]
    return table


def whole(cubes: Cubes, p: Parameters, arm: str, statistic: Statistic) -> float:
    """A statistic over all test images and all seeds of an arm."""
    return float(statistic(np.arange(cubes.images("clean")), np.arange(seeds_of(p, arm))))


def arms(p: Parameters, costs: pd.DataFrame, accuracy: Mapping[str, float]) -> pd.DataFrame:
    """A row an arm: how many seeds, and of seed 0 the steps of training, if it was here, and the accuracy, given by arm."""
    columns: dict[str, list[Any]] = {"seeds": [seeds_of(p, a) for a in p.arms]}
    if len(costs):
        steps = costs.set_index("arm").steps
        columns["steps of training (seed 0)"] = [int(steps[a]) for a in p.arms]
    columns["clean accuracy (seed 0)"] = [round(accuracy[a], 3) for a in p.arms]
    return pd.DataFrame(columns, index=[label(a) for a in p.arms])


def style_check(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Of images as they are and stylised: the distance to the style's statistics, and what edges alone tell of the class."""

    def mean(measure: str, level: float) -> float:
        return float(cubes.values[EDGES, measure, level].mean(dtype=np.float64))

    columns = {
        "distance to the style's statistics": [mean("style-distance", 0.0), mean("style-distance", 1.0)],
        "to another image's style": [np.nan, mean("style-distance", 2.0)],
        "accuracy from edges alone": [mean("clean", 0.0), mean("style", p.alpha)],
    }
    return pd.DataFrame(columns, index=["as they are", "stylised"]).round(3)


def trained(cubes: Cubes, p: Parameters) -> tuple[str, ...]:
    """The arms that are networks of their own: without Underfit where adversarial training costs no accuracy, so that there is
    nothing to stop and its numbers are the standard network's."""
    gone = "underfit" in p.arms and not underfit_seeds(cubes, p.seeds)
    return tuple(a for a in p.arms if not (gone and a == "underfit"))


def under_attack(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Accuracy under PGD at every radius that was measured, over the images that it attacks and all seeds: a row an arm."""
    arms, radii = trained(cubes, p), [r for r in cubes.levels("pgd") if r]
    columns = {f"{r:g}/255": [f"{cubes.values[a, 'pgd', r].mean(dtype=np.float64):.2f}" for a in arms] for r in radii}
    return pd.DataFrame(columns, index=[label(a) for a in arms])


def with_intervals(cubes: Cubes, p: Parameters, arms: Iterable[str], of: Iterable[Of], score: str = "mean") -> pd.DataFrame:
    """A row a measure and arm, with its 95 % interval over images and seeds: (arm, measure, level, score, value, low, high, n).

    `score` is `mean` or `retention`. What a measure is compared with (`BEHIND`) has rows of its own, before it.
    """
    asked = [(m, level) for one, level in of for m in (BEHIND.get(one), one) if m]
    rows = []
    for measure, level in asked:
        for arm in arms:
            statistic = getattr(cubes, score)(arm, measure, level)
            units = by_style(p, cubes.images(measure)) if measure in PAINTED else {}
            of_what = BOUNDS.get(measure.partition("-")[0], "share")
            found = cubes.interval(statistic, measure, seeds_of(p, arm), of_what, **units)
            about = {"arm": arm, "measure": measure, "level": level, "score": score}
            rows.append(about | {"value": found.value, "low": found.low, "high": found.high, "n": found.n})
    return pd.DataFrame(rows)


def appearance(cubes: Cubes) -> list[Of]:
    """The measures of what maps look like that there are; without masks there is no share inside the object."""
    return [(m, 0.0) for m in APPEARANCE if ("standard", m, 0.0) in cubes.values]


def accuracies(cubes: Cubes, p: Parameters) -> dict[Of, str]:
    """What accuracy is shown on, and what it is called: images as they are, without their texture, and attacked."""
    found = {("clean", 0.0): "clean", ("style", p.alpha): "stylised", ("fourier", 1.0): "Fourier swap"}
    found |= {("conflict", 1.0): "cue conflict"} if cubes.levels("conflict") else {}
    found |= {("pgd", p.judged_eps): f"PGD-{p.robust_steps}, {p.judged_eps:g}/255"}
    return found | {("ensemble", level): f"ensemble, {level:g}/255" for level in cubes.levels("ensemble")}


def agreement(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Agreement of every kind of map with the edges of its image, and in brackets with another image's: a row an arm."""

    def cell(arm: str, method: str) -> str:
        own, other = (whole_map(cubes, arm, f"{method}/{edges}") for edges in ("edges", "edges-other"))
        return f"{own:.2f} ({other:.2f})"

    columns = {name: [cell(arm, method) for arm in trained(cubes, p)] for method, name in methods(p.arch).items()}
    return pd.DataFrame(columns, index=[label(a) for a in trained(cubes, p)])


def whole_map(cubes: Cubes, arm: str, measure: str) -> float:
    """The mean of a measure of maps over images and seeds, of those that have contrast."""
    return float(np.nanmean(cubes.values[arm, measure, 0.0], dtype=np.float64))


def without_contrast(cubes: Cubes, p: Parameters) -> float:
    """The share of SmoothGrad's maps without any contrast, which have no numbers."""
    return float(np.mean(np.concatenate([np.isnan(cubes.values[a, "smoothgrad/tv", 0.0]).ravel() for a in p.arms])))


def retention(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Retention of the standard, the underfit and the headline arms at every saturation and shuffle, as `with_intervals`."""
    levels = [("saturation", float(q)) for q in sorted(p.saturation)] + [("shuffle", float(k)) for k in sorted(p.shuffle)]
    shown = [a for a in trained(cubes, p) if a in ("standard", "underfit", *p.headline)]
    return pd.concat([with_intervals(cubes, p, [arm], levels, "retention") for arm in shown], ignore_index=True)


def curves(kept: pd.DataFrame, change: str) -> pd.DataFrame:
    """Rows (network, level, value, low, high) of one change, in ascending order, with the level that changes nothing."""
    still = pd.DataFrame([{"level": UNCHANGED[change], "value": 1.0, "low": 1.0, "high": 1.0}])
    parts = []
    for arm, part in where(kept, measure=change).groupby("arm", sort=False):
        changed = part.loc[part.level != UNCHANGED[change], list(still.columns)]
        parts.append(pd.concat([changed, still]).sort_values("level").assign(network=label(str(arm))))
    return pd.concat(parts, ignore_index=True)


def scores(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Accuracy under every change, and in brackets retention, over all images and seeds: a row an arm."""
    columns = {f"p = {q:g}": ("saturation", float(q)) for q in p.saturation}
    columns |= {f"k = {k}": ("shuffle", float(k)) for k in p.shuffle}
    columns |= {"stylised": ("style", float(p.alpha)), "Fourier swap": ("fourier", 1.0)}

    def cell(arm: str, of: Of) -> str:
        right, kept = (whole(cubes, p, arm, score(arm, *of)) for score in (cubes.mean, cubes.retention))
        return f"{right:.2f} ({kept:.2f})"

    rows = {
        label(arm): {"clean": f"{whole(cubes, p, arm, cubes.mean(arm, 'clean')):.2f}"}
        | {name: cell(arm, of) for name, of in columns.items()}
        for arm in trained(cubes, p)
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def counterpart(p: Parameters, arm: str, published: Iterable[str]) -> str | None:
    """The paper's arm that ours is compared with: of the same name, or for L2 with the same root mean square a pixel."""
    if not arm.startswith("l2-"):
        return arm if arm in published else None
    radius = float(arm[3:].partition("@")[0]) * 224 / p.size * (3 / p.channels) ** 0.5
    return next((a for a in published if a.startswith("l2-") and abs(radius / float(a[3:]) - 1) < 0.05), None)


def beside_published(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Clean and stylised accuracy in per cent and their ratio, ours and the paper's for both of its data sets: a row an arm."""
    published = pd.read_csv(paths.published() / "at_cnn.csv").set_index("arm")
    rows = []
    for arm in trained(cubes, p):
        theirs = counterpart(p, arm, published.index)
        clean, painted = (
            100 * whole(cubes, p, arm, cubes.mean(arm, *of)) for of in (("clean", 0.0), ("style", float(p.alpha)))
        )
        row = {"arm": label(arm), "seeds": seeds_of(p, arm)}
        row |= {"clean": clean, "stylised": painted, "ratio": painted / max(clean, 1e-9)}
        for name in ("caltech", "tiny"):
            a, b = (published[f"{name}_{k}"].get(theirs, np.nan) for k in ("clean", "stylised"))
            row |= {f"{name} clean": a, f"{name} stylised": b, f"{name} ratio": b / a}
        rows.append(row)
    return pd.DataFrame(rows).set_index("arm")
