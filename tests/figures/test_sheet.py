"""Sheets of pictures: what is drawn where, and that no text meets another one, from one row to twenty."""

import itertools

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color
from matplotlib.text import Text

from lib.figures import sheet, style
from lib.figures.sheet import MapColumn, SheetRow
from lib.figures.style import COLOURS

CAM, PIXELS = MapColumn("Grad-CAM at blocks.5.0.bn1", True), MapColumn("integrated gradients", False)
NAMES = ("black-footed ferret, also polecat", "bald eagle", "dishwasher", "hair spray", "sewing machine", "worm fence")


def row(attacked=True, maps=1, classes=4, size=8):
    g = torch.Generator().manual_seed(0)
    x = torch.rand(3, size, size, generator=g)
    changed = (x + 2 / 255).clamp(0, 1) if attacked else None
    before = tuple(torch.rand(size, size, generator=g) for _ in range(maps))
    after = tuple(1 - m for m in before) if attacked else ()
    told = tuple((name, 0.5 / (i + 1), 0.1 if attacked else None) for i, name in enumerate(NAMES[:classes]))
    label = ("a-long-name-of-a-file.jpg", "12000 × 12000 pixels", "maps of:", "black-footed ferret")
    return SheetRow(label, x, changed, before, after, told, ("moved by 0.38 (0.02)",) * maps if attacked else ())


def texts(fig):
    """Where every text stands, in pixels."""
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    shown = [t for t in fig.findobj(Text) if t.get_visible() and t.get_text().strip()]
    return [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in shown]


@pytest.mark.parametrize(
    ("rows", "attacked", "maps", "classes"),
    [(1, False, 1, 1), (1, True, 1, 6), (3, True, 4, 4), (20, True, 1, 6), (2, False, 4, 3)],
)
def test_no_text_meets_another_one_or_leaves_the_figure(rows, attacked, maps, classes):
    columns = ([CAM, PIXELS] * 2)[:maps]
    caption = "a network sees the centre of each picture, and this is told at some length. " * 5
    fig = sheet.sheet([row(attacked, maps, classes)] * rows, columns, caption, attack="random direction")
    style.as_written(fig)
    found = texts(fig)
    width, height = fig.canvas.get_width_height()
    assert len(found) > 10
    for text, at in found:
        assert at.x0 >= 0 and at.y0 >= 0 and at.x1 <= width and at.y1 <= height, text
    pictures = [ax.get_window_extent() for ax in fig.axes if ax.images]
    for text, at in found:
        assert not any(at.overlaps(p) for p in pictures), f"{text!r} lies on a picture"
    for (a, at), (b, other) in itertools.combinations(found, 2):
        assert not at.overlaps(other), f"{a!r} meets {b!r}"


def shown(ax):
    return np.asarray(ax.images[-1].get_array())


def test_what_a_row_shows():
    one = row(maps=2)
    fig = sheet.sheet([one], [CAM, PIXELS], "caption", attack="PGD")
    cells = [a for a in fig.axes if a.images]
    titles = [" ".join(a.get_title().split()) for a in cells]
    assert titles == [
        "what the network sees", "change by PGD", "what it then sees", "Grad-CAM at blocks.5.0.bn1, before",
        "Grad-CAM at blocks.5.0.bn1, after", "integrated gradients, before", "integrated gradients, after",
    ]  # fmt: skip
    assert np.allclose(shown(cells[0]), one.x.permute(1, 2, 0)) and np.allclose(shown(cells[2]), one.attacked.permute(1, 2, 0))
    change = (one.attacked - one.x).mean(0) * 255
    assert np.allclose(shown(cells[1]), change) and cells[1].images[0].get_cmap().name == style.SIGNED
    assert cells[1].images[0].get_clim() == (-float(change.abs().max()), float(change.abs().max()))
    assert np.allclose(shown(cells[3]), one.before[0]) and np.allclose(shown(cells[4]), one.after[0])
    assert [len(a.images) for a in cells] == [1, 1, 1, 2, 2, 1, 1]  # maps of a layer lie over the image
    assert cells[3].images[1].get_cmap().name == style.MAGNITUDE
    assert [a.get_xlabel() for a in cells[3:]] == ["", "moved by 0.38 (0.02)"] * 2


def test_few_large_values_do_not_darken_a_map_of_pixels():
    values = torch.full((40, 40), 0.1)
    values[0, 0] = 1.0
    one = SheetRow((), torch.zeros(1, 40, 40), None, (values, values), (), (("a", 0.5, None),))
    fig = sheet.sheet([one], [CAM, PIXELS], "")
    over, alone = (a for a in fig.axes[1:3])
    assert float(shown(over)[5, 5]) == pytest.approx(0.1) and float(shown(alone)[5, 5]) == pytest.approx(1.0)
    labels = [a.get_xlabel().replace("\n", " ") for a in fig.axes]
    assert "map, each over its own largest value (of pixels: over the value that 0.5% exceed)" in labels
    dead = sheet.sheet([SheetRow((), one.x, None, (values * 0,), (), (("a", 1.0, None),))], [PIXELS], "")
    assert not shown(dead.axes[1]).any()


def test_decisions_are_pairs_of_bars_told_apart_without_colour():
    fig = sheet.sheet([row()], [CAM], "", attack="PGD")
    (ax,) = [a for a in fig.axes if a.get_title() == "decision"]
    before, after = ax.containers
    assert [b.get_width() for b in before] == pytest.approx([0.5, 0.25, 0.5 / 3, 0.125]) and before[0].get_hatch() is None
    assert [b.get_width() for b in after] == pytest.approx([0.1] * 4) and after[0].get_hatch()
    assert same_color(before[0].get_facecolor(), COLOURS[0]) and ax.get_xlim() == (0, 1) and ax.get_xlabel() == "probability"
    assert [t.get_text() for t in ax.get_yticklabels()] == ["black-footed fer…polecat", *NAMES[1:4]]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["before", "after"]
    alone = sheet.sheet([row(attacked=False)], [CAM], "")
    (ax,) = [a for a in alone.axes if a.get_title() == "decision"]
    assert len(ax.containers) == 1 and ax.get_legend() is None


def test_names_are_shortened_in_the_middle():
    assert sheet.shortened("short.jpg", 9) == "short.jpg"
    found = sheet.shortened("IMG_20240101_123456_edited.jpg", 20)
    assert len(found) == 20 and found.startswith("IMG_2024") and found.endswith("ed.jpg")


def test_rows_that_make_no_sheet_are_refused():
    with pytest.raises(ValueError, match="21 rows; a sheet has 1 to 20"):
        sheet.sheet([row()] * 21, [CAM], "")
    with pytest.raises(ValueError, match="0 rows"):
        sheet.sheet([], [CAM], "")
    with pytest.raises(ValueError, match="a row of 2 and 2 maps does not fit 1 columns"):
        sheet.sheet([row(), row(maps=2)], [CAM], "")
