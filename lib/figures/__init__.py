"""How figures look."""

from lib.figures.charts import band, bands, bars, cell, density, levels, mark, matrix, panels, points, row, same_height, table
from lib.figures.pictures import blank, colour_bar, grid, heatmap, image, overlay, row_labels
from lib.figures.style import COLOURS, LINES, MAGNITUDE, MARKERS, SIGNED, series, use_style
from lib.figures.widgets import Explorer, choice, integer, png, slider, upload, uploaded

__all__ = [
    "COLOURS",
    "LINES",
    "MAGNITUDE",
    "MARKERS",
    "SIGNED",
    "Explorer",
    "band",
    "bands",
    "bars",
    "blank",
    "cell",
    "choice",
    "colour_bar",
    "density",
    "grid",
    "heatmap",
    "image",
    "integer",
    "levels",
    "mark",
    "matrix",
    "overlay",
    "panels",
    "png",
    "points",
    "row",
    "row_labels",
    "same_height",
    "series",
    "slider",
    "table",
    "upload",
    "uploaded",
    "use_style",
]
