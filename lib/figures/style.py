"""One figure style. Magnitudes are cividis, signed maps RdBu_r with limits symmetric about zero; categories are Okabe and
Ito's colours, each with a marker and a line style of its own, so that nothing rests on colour alone.
"""

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text

MAGNITUDE, SIGNED = "cividis", "RdBu_r"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))

STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 120,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.edgecolor": "none",  # on white: no line runs through its words
    "legend.framealpha": 0.85,
    "image.cmap": MAGNITUDE,
    "axes.prop_cycle": mpl.cycler(color=COLOURS),
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # the second: like it, where an SVG is seen without it
    "svg.fonttype": "none",  # text stays text, to be searched and edited, in less than half of the bytes
    "svg.hashsalt": "study",  # the same picture is the same file
}


def use_style() -> None:
    plt.rcParams.update(STYLE)


def as_written(fig: Figure) -> None:
    """Let every text stand as it was written: a dollar in the name of a class begins no formula. Called where a figure is
    saved, so that it holds for titles, labels, ticks and legends alike, whoever set them.
    """
    for ax in fig.axes:
        for axis in (ax.xaxis, ax.yaxis):
            axis.get_ticklabels()  # writes them
    for text in fig.findobj(Text):
        if "$" in text.get_text() and r"\mathdefault" not in text.get_text():  # which are matplotlib's own powers of ten
            text.set_parse_math(False)


def series(i: int) -> dict[str, Any]:
    """Colour, marker and line style of the i-th category."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "linestyle": LINES[i % len(LINES)]}
