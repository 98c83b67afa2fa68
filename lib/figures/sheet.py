"""A sheet of pictures: a row each with its image, an attack, maps before and after it, and decisions as bars.

Everything has its place in inches, so that a sheet of twenty rows reads as one of a single row does, and no text meets
another one. Maps of a layer lie over the image in grey; maps of pixels stand alone.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lib.figures import pictures
from lib.figures.style import COLOURS, MAGNITUDE, SIGNED

ROWS = 20  # of one sheet
CLASSES = 6  # bars of one row
BRIGHT = 0.995  # maps of pixels have a few values far above all others: those above this share of them look alike
# inches
LABEL, CELL, GAP, NAMES, BARS, EDGE = 1.75, 1.6, 0.14, 1.5, 1.35, 0.2
LINE, BELOW, BOTTOM = 0.16, 0.32, 0.75  # a line of small text; under a row; for the colour bars
SMALL = 8  # points


@dataclass(frozen=True)
class MapColumn:
    """One map of every row: its name, and whether it is of a layer (and lies over the image)."""

    title: str
    over_image: bool


@dataclass(frozen=True)
class SheetRow:
    """What a row shows. Images (C, H, W) and maps (H, W) in [0, 1]; `after` what belongs to the attacked image.

    `label` are short lines. `decisions` are (class, probability before, probability after or None). `below` are lines under
    each column's second map.
    """

    label: tuple[str, ...]
    x: Float[Tensor, "c h w"]
    attacked: Float[Tensor, "c h w"] | None
    before: tuple[Float[Tensor, "h w"], ...]
    after: tuple[Float[Tensor, "h w"], ...]
    decisions: tuple[tuple[str, float, float | None], ...]
    below: tuple[str, ...] = ()


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and end around an ellipsis: `most` letters."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 3
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def sheet(rows: Sequence[SheetRow], columns: Sequence[MapColumn], caption: str, *, attack: str = "") -> Figure:
    """The figure of rows that all are of one kind: with an attack, called `attack`, or without; a map for each column.

    Raises ValueError for no row, for more than ROWS, and for rows that do not fit the columns.
    """
    if not 0 < len(rows) <= ROWS:
        raise ValueError(f"{len(rows)} rows; a sheet has 1 to {ROWS}")
    attacked = rows[0].attacked is not None
    for row in rows:
        if len(row.before) != len(columns) or len(row.after) != len(columns) * attacked:
            raise ValueError(f"a row of {len(row.before)} and {len(row.after)} maps does not fit {len(columns)} columns")
    titles = _titles(columns, attack if attacked else None)
    width = LABEL + len(titles) * (CELL + GAP) + NAMES + BARS + EDGE
    lines = textwrap.wrap(caption, int(width * 13))
    head = LINE * (max(t.count("\n") for t in titles) + 1) + 0.1
    top = LINE * len(lines) + 0.25 + head
    height = top + len(rows) * (CELL + BELOW) + BOTTOM
    fig = Figure(figsize=(width, height), layout="none")
    fig.text(EDGE / width, 1 - 0.1 / height, "\n".join(lines), fontsize=SMALL + 1, va="top")

    def place(column: float, row: int, wide: float = CELL, high: float = CELL) -> Axes:
        """Axes at inches from the left and in a row."""
        bottom = height - top - row * (CELL + BELOW) - CELL
        return fig.add_axes((column / width, bottom / height, wide / width, high / height))

    limit = max((_change(r).abs().max().item() for r in rows if attacked), default=0.0) or 1.0
    across = [LABEL + i * (CELL + GAP) for i in range(len(titles))]
    for i, row in enumerate(rows):
        cells = [place(x, i) for x in across]
        _draw(cells, row, columns, limit)
        if i == 0:
            for ax, title in zip(cells, titles, strict=True):
                ax.set_title(title, fontsize=SMALL + 1)
        cells[0].annotate(
            "\n".join(row.label), (0, 0.5), xytext=(-6, 0), xycoords="axes fraction", textcoords="offset points",
            ha="right", va="center", fontsize=SMALL,
        )  # fmt: skip
        _bars(place(LABEL + len(titles) * (CELL + GAP) + NAMES, i, BARS), row, last=i == len(rows) - 1, first=i == 0)

    def bar(first: int, count: int, limits: tuple[float, float], cmap: str, label: str) -> None:
        wide = min(count, 2) * CELL
        cax = fig.add_axes((across[first] / width, (BOTTOM - 0.25) / height, wide / width, 0.1 / height))
        shown = mpl.cm.ScalarMappable(mpl.colors.Normalize(*limits), cmap)
        fig.colorbar(shown, cax=cax, orientation="horizontal")
        cax.tick_params(labelsize=SMALL - 1)
        cax.grid(False)
        cax.set_xlabel("\n".join(textwrap.wrap(label, int(wide * 15))), fontsize=SMALL - 1, labelpad=1)

    if attacked:
        colours = ", mean of its colours" if rows[0].x.shape[0] > 1 else ""
        bar(1, 1, (-limit, limit), SIGNED, f"change of a pixel{colours}, in\N{NO-BREAK SPACE}1/255")
    if columns:
        first = 3 if attacked else 1
        own = "its own largest value"
        if not all(c.over_image for c in columns):
            own += f" (of pixels: over the value that {1 - BRIGHT:.1%} exceed)"
        bar(first, len(titles) - first, (0, 1), MAGNITUDE, f"map, each over {own}")
    return fig


def _titles(columns: Sequence[MapColumn], attack: str | None) -> list[str]:
    """The names of the columns, in lines that are no wider than they."""
    found = ["what the network sees"]
    if attack is not None:
        found += [f"change by {attack}", "what it then sees"]
    for column in columns:
        found += [f"{column.title}, before", f"{column.title}, after"] if attack is not None else [column.title]
    return ["\n".join(textwrap.wrap(title, 22)) for title in found]


def _change(row: SheetRow) -> Tensor:
    """What an attack does to each pixel, mean over colours, in steps of 1/255."""
    assert row.attacked is not None
    return (row.attacked - row.x).mean(0) * 255


def _draw(cells: Sequence[Axes], row: SheetRow, columns: Sequence[MapColumn], limit: float) -> None:
    pictures.image(cells[0], row.x)
    rest = list(cells[1:])
    if row.attacked is not None:
        pictures.heatmap(rest[0], _change(row), signed=True, limit=limit)
        pictures.image(rest[1], row.attacked)
        rest = rest[2:]
    step = 1 if row.attacked is None else 2
    for number, column in enumerate(columns):
        versions = [(row.x, row.before[number])]
        if row.attacked is not None:
            versions.append((row.attacked, row.after[number]))
        for ax, (image, values) in zip(rest[number * step :], versions, strict=False):
            if column.over_image:
                pictures.overlay(ax, image, values)
            else:
                pictures.heatmap(ax, _brightened(values))
        if row.below:
            rest[number * step + step - 1].set_xlabel(row.below[number], fontsize=SMALL - 1, labelpad=2)


def _brightened(values: Tensor) -> Tensor:
    """A map of pixels over the value that few of them exceed, which are cut."""
    top = values.flatten().kthvalue(max(1, round(BRIGHT * values.numel()))).values
    return (values / top).clamp(max=1) if top > 0 else values


def _bars(ax: Axes, row: SheetRow, *, first: bool, last: bool) -> None:
    """The likeliest classes before and after, as pairs of bars."""
    shown = row.decisions[:CLASSES]
    both = any(after is not None for _, _, after in shown)
    high = 0.38 if both else 0.6
    at = list(range(len(shown)))
    looks: list[dict[str, Any]] = [{"color": COLOURS[0]}, {"color": COLOURS[1], "hatch": "////", "edgecolor": "white"}]
    ax.barh([a - high / 2 * both for a in at], [b for _, b, _ in shown], high, label="before", **looks[0])
    if both:
        ax.barh([a + high / 2 for a in at], [c or 0.0 for _, _, c in shown], high, label="after", linewidth=0, **looks[1])
    ax.set_yticks(at, [shortened(name, 24) for name, _, _ in shown], fontsize=SMALL)
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.set_xlim(0, 1)
    ax.set_xticks([0, 0.5, 1], ["0", ".5", "1"], fontsize=SMALL - 1)
    ax.grid(axis="y", visible=False)
    ax.tick_params("y", length=0)
    ax.set_axisbelow(True)
    if first:
        ax.set_title("decision", fontsize=SMALL + 1)
    if last:
        ax.set_xlabel("probability", fontsize=SMALL, labelpad=1)
        if both:
            ax.legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=2, fontsize=SMALL - 1, frameon=False, borderaxespad=0,
                handlelength=1.2, columnspacing=1.0,
            )  # fmt: skip
