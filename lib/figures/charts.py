"""The charts of the reports: panels, curves with bands, bars and points with intervals, matrices of numbers.

What is drawn is an `Interval` (value, low, high), or a table with these columns, so that no chart is without its uncertainty.
Categories keep the colour, marker and line style of their number (`style.series`).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from lib.claims import intervals
from lib.claims.intervals import Interval
from lib.figures.style import COLOURS, MAGNITUDE, SIGNED, series

ENDS = (-math.inf, math.inf)
Share = Literal["row", "col"]  # of an axis: by rows or columns of panels, else by all or none


def row(found: Interval, **about: Any) -> dict[str, Any]:
    """A row of a figure's numbers: what it is `about`, then value, low, high and n."""
    return about | {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def cell(found: Any, digits: int = 2) -> str:
    """`0.81±0.02`: a value and the longer side of its interval; without an interval the value, without a value a dash.

    `found` is an interval, or a row of a table with value, low and high.
    """
    side = intervals.side(found)
    if not np.isfinite(found.value):
        return "–"
    return f"{found.value:.{digits}f}" + (f"±{side:.{digits}f}" if np.isfinite(side) else "")


def table(found: Iterable[Interval] | pd.DataFrame) -> pd.DataFrame:
    """Intervals as a table with the columns value, low and high."""
    if isinstance(found, pd.DataFrame):
        return found.reset_index(drop=True)
    return pd.DataFrame([(f.value, f.low, f.high) for f in found], columns=["value", "low", "high"])


def panels(
    count: int,
    *,
    columns: int | None = None,
    width: float = 3.3,
    height: float = 3.0,
    sharex: bool | Share = False,
    sharey: bool | Share = True,
    xlabel: str = "",
    ylabel: str = "",
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` axes in rows of `columns` (all in one row unless given), each `width` x `height` inches; the names
    of the axes, where given, stand once for all of them."""
    if count < 1:
        raise ValueError(f"a figure of {count} panels; it needs one at least")
    across = min(count, columns or count)
    down = -(-count // across)
    size = (width * across, height * down)
    fig, axes = plt.subplots(down, across, figsize=size, sharex=sharex, sharey=sharey, squeeze=False)
    for spare in axes.flat[count:]:
        spare.set_visible(False)
    for ax in axes.flat[:count][-across:]:  # the lowest of each column keeps its numbers, also above a spare
        ax.tick_params("x", labelbottom=True)
    for name, put in ((xlabel, fig.supxlabel), (ylabel, fig.supylabel)):
        if name:
            put(name, fontsize=plt.rcParams["axes.labelsize"])
    return fig, list(axes.flat[:count])


def band(
    ax: Axes,
    x: Sequence[float],
    found: Iterable[Interval] | pd.DataFrame,
    label: str | None,
    number: int,
    *,
    within: tuple[float, float] = ENDS,
    alpha: float = 0.15,
    **look: Any,
) -> None:
    """A curve over x in the look of category `number`, with a band from low to high, cut off at the ends of its scale; hollow
    where there is none."""
    values = table(found)
    if len(values) != len(x):
        raise ValueError(f"{len(values)} values at {len(x)} points; a curve has one a point")
    style = series(number) | look
    ax.plot(x, values.value, label=label, **style)
    ax.fill_between(x, values.low.clip(*within), values.high.clip(*within), color=style["color"], alpha=alpha, linewidth=0)
    if alpha:
        _hollow(ax, list(x), values, style)


def bands(ax: Axes, found: pd.DataFrame, x: str, line: str, *, within: tuple[float, float] = ENDS, **look: Any) -> None:
    """A band over the column x for each value of the column `line`, which is its label, in the order of the table."""
    for number, (label, part) in enumerate(found.groupby(line, sort=False)):
        band(ax, part[x], part, str(label), number, within=within, **look)


def bands_each(
    found: pd.DataFrame, panel: str, x: str, line: str, *, at: float, label: Callable[[str], str], **layout: Any
) -> tuple[Figure, list[Axes]]:
    """A panel for each value of the column `panel`, of shares in [0, 1]: curves over x, one a `line`, dotted where x is `at`.

    `label` gives the title of a panel; `layout` is of `panels`.
    """
    fig, axes = panels(found[panel].nunique(), **layout)
    for ax, (value, part) in zip(axes, found.groupby(panel, sort=False), strict=True):
        bands(ax, part, x, line, markersize=4)
        ax.axvline(at, color="gray", linestyle=":")
        ax.set(title=label(str(value)), ylim=(0, 1.02))
    return fig, axes


def by_measure(
    found: pd.DataFrame, x: str, line: str, titles: dict[str, tuple[str, str]], *, xlabel: str, width: float = 3.9
) -> Figure:
    """A panel for each value of the column `measure`, of shares and distances in [0, 1]: curves over x, one a `line`.

    `titles` has the title of each panel and the name of its axis of y.
    """
    fig, axes = panels(found.measure.nunique(), width=width, height=2.9, sharey=False)
    for ax, (what, part) in zip(axes, found.groupby("measure", sort=False), strict=True):
        bands(ax, part, x, line, within=(0, 1))
        title, label = titles[what]
        ax.set(title=title, xlabel=xlabel, ylabel=label, ylim=(0, None))
    legend_below(fig, axes[0], 2)
    return fig


def density(
    ax: Axes, values: Sequence[float], label: str | None, number: int, *, within: tuple[float, float], **look: Any
) -> None:
    """The density of values `within` a scale (Gaussian kernels of Scott's width); nothing where all values are equal."""
    found = np.asarray(values, float)
    if np.ptp(found) == 0:
        return
    style = {k: v for k, v in (series(number) | look).items() if k != "marker"}
    from seaborn import kdeplot  # here, since it takes half a second that most processes need not wait

    kdeplot(x=found, ax=ax, label=label, clip=within, **style)


def levels(ax: Axes, values: Sequence[float], label: str, *, base: float = 10, rotation: float = 60) -> None:
    """A logarithmic axis of x with a tick at each of its values."""
    ax.set_xscale("log", base=base)
    ax.set_xticks(values, [f"{v:g}" for v in values], rotation=rotation, fontsize=8)
    ax.minorticks_off()
    ax.set_xlabel(label)


def bars(
    ax: Axes,
    names: Sequence[str],
    found: Iterable[Interval] | pd.DataFrame,
    title: str = "",
    *,
    height: float = 0.7,
    offset: float = 0.0,
    number: int = 0,
    alpha: float = 1.0,
    label: str | None = None,
    within: tuple[float, float] = ENDS,
) -> None:
    """A horizontal bar for each name, the first on top, with its interval as a line."""
    values = table(found)
    if len(values) != len(names):
        raise ValueError(f"{len(values)} values for {len(names)} names; a bar has one a name")
    at = np.arange(len(names)) + offset
    ax.barh(at, values.value, height=height, color=series(number)["color"], alpha=alpha, label=label)
    for y, low, high in zip(at, values.low.clip(*within), values.high.clip(*within), strict=True):
        ax.plot([low, high], [y, y], color="black", linewidth=1.2, alpha=alpha)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_title(title)
    ax.grid(axis="y", visible=False)


def points(
    ax: Axes,
    x: Sequence[float],
    found: Iterable[Interval] | pd.DataFrame,
    label: str | None,
    number: int,
    *,
    within: tuple[float, float] = ENDS,
    upright: bool = True,
    **look: Any,
) -> None:
    """Points with their intervals at the places x, upright, or lying (then the first of the places is on top); hollow ones have
    none."""
    values = table(found)
    spread = [values.value - values.low.clip(*within), values.high.clip(*within) - values.value]
    style = series(number) | look
    if upright:
        ax.errorbar(x, values.value, yerr=spread, capsize=3, label=label, **style)
    else:
        ax.errorbar(values.value, x, xerr=spread, capsize=3, label=label, **style)
    _hollow(ax, list(x), values, style, upright=upright)


def _hollow(ax: Axes, x: Sequence[float], values: pd.DataFrame, style: dict[str, Any], *, upright: bool = True) -> None:
    """Points without an interval, again, as rings."""
    for place, (value, unknown) in zip(x, zip(values.value, values.low.isna(), strict=True), strict=True):
        if unknown and value == value:
            at = (place, value) if upright else (value, place)
            ax.plot(*at, **style | {"linestyle": "none", "markerfacecolor": "white", "zorder": 3})


def matrix(
    ax: Axes,
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str = "",
    *,
    form: str = "{:.2f}",
    signed: bool = False,
    limit: float | None = None,
) -> None:
    """Numbers as coloured cells, each with its number; NaN is an empty cell. Signed ones are symmetric about zero."""
    if values.shape != (len(rows), len(columns)):
        raise ValueError(f"a matrix of shape {values.shape} with {len(rows)} rows and {len(columns)} columns by name")
    top = limit or float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    drawn = ax.imshow(values, cmap=SIGNED if signed else MAGNITUDE, vmin=-top if signed else 0.0, vmax=top, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = drawn.cmap(drawn.norm(value))
            dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            ax.text(j, i, form.format(value), ha="center", va="center", fontsize=8, color="white" if dark else "black")
    ax.set_xticks(range(len(columns)), columns, rotation=30, ha="right", fontsize=8)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.set_title(title)
    ax.grid(False)


def outline_cell(ax: Axes, row: int, column: int) -> None:
    """A border around a cell of a matrix that is pointed out."""
    ax.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=COLOURS[1], linewidth=2))


def boxes(ax: Axes, names: Sequence[str], values: Sequence[np.ndarray]) -> None:
    """A box of quartiles for each name, its whiskers within 1.5 of the quartiles' distance; no values, no box."""
    for at, one in zip(range(len(names)), values, strict=True):
        if len(one):
            ax.boxplot([one], positions=[at], widths=0.6, showfliers=False, medianprops={"color": COLOURS[1]})
    ax.set_xticks(range(len(names)), names, fontsize=8)
    ax.set_xlim(-0.5, len(names) - 0.5)


def mark(ax: Axes, right: bool) -> None:
    """✓ or ✗ in the corner of a picture: is the prediction right? With a rim, so that it is seen on any ground."""
    rim = withStroke(linewidth=2.5, foreground=COLOURS[2 if right else 1])
    sign = "✓" if right else "✗"
    ax.text(0.03, 0.97, sign, transform=ax.transAxes, va="top", color="white", fontsize=10, path_effects=[rim])


def same_height(ax: Axes, value: float, label: str | None = None) -> None:
    """A dotted grey line across: what chance, or an even map, would give."""
    ax.axhline(value, color="gray", linestyle=":", label=label)


def legend_below(fig: Figure, ax: Axes, columns: int) -> None:
    """One legend for all panels, below them, of what `ax` shows."""
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=columns, fontsize=8)
