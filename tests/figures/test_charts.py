"""Charts draw the intervals they are given: positions, ends of scales, numbers in cells."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import same_color

from lib.claims.intervals import Interval
from lib.figures import charts, pictures
from lib.figures.style import COLOURS

FOUND = [Interval(0.2, 0.1, 0.3, "8 images"), Interval(0.9, 0.7, 1.1, "8 images")]


@pytest.fixture
def ax():
    fig, ax = plt.subplots()
    yield ax
    plt.close(fig)


def test_a_row_and_a_cell_tell_the_interval():
    assert charts.row(FOUND[0], arm="adv") == {"arm": "adv", "value": 0.2, "low": 0.1, "high": 0.3, "n": "8 images"}
    assert charts.cell(FOUND[0]) == "0.20±0.10" and charts.cell(FOUND[1], 1) == "0.9±0.2"
    assert charts.cell(Interval(0.9, 0.6, 1.0, "")) == "0.90±0.30"  # the longer side
    assert charts.cell(next(charts.table(FOUND).itertuples())) == charts.cell(FOUND[0])  # of a row of a table too
    assert charts.cell(Interval(0.5, math.nan, math.nan, "")) == "0.50"
    assert charts.cell(Interval(math.nan, math.nan, math.nan, "")) == "–"


def test_panels_hide_what_is_spare():
    fig, axes = charts.panels(5, columns=3, width=2, height=1)
    assert len(axes) == 5 and [a.get_visible() for a in fig.axes] == [True] * 5 + [False]
    assert fig.get_size_inches().tolist() == [6, 2]
    plt.close(fig)
    with pytest.raises(ValueError, match="one at least"):
        charts.panels(0)


def test_panels_name_their_axes_once():
    fig, _ = charts.panels(3, columns=2, xlabel="eps, L∞", ylabel="accuracy")
    assert [t.get_text() for t in fig.texts] == ["eps, L∞", "accuracy"] and fig.texts[0].get_fontsize() == 10
    plt.close(fig)
    fig, _ = charts.panels(3)
    assert not fig.texts
    plt.close(fig)


def test_a_band_ends_with_its_scale(ax):
    charts.band(ax, [1, 2], FOUND, "a", 1, within=(0, 1))
    line, fill = ax.lines[0], ax.collections[0]
    assert line.get_ydata().tolist() == [0.2, 0.9] and line.get_color() == COLOURS[1] and line.get_label() == "a"
    ys = fill.get_paths()[0].vertices[:, 1]
    assert ys.min() == pytest.approx(0.1) and ys.max() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="2 values at 3 points"):
        charts.band(ax, [1, 2, 3], FOUND, "a", 1)


def test_a_table_draws_as_its_intervals_do(ax):
    charts.band(ax, [1, 2], pd.DataFrame({"value": [0.2, 0.9], "low": [0.1, 0.7], "high": [0.3, 1.1]}, index=[7, 9]), "a", 0)
    assert ax.lines[0].get_ydata().tolist() == [0.2, 0.9]


def test_bands_follow_the_order_of_the_table(ax):
    rows = [("b", "early", 0.5), ("b", "late", 0.6), ("a", "early", 0.1), ("a", "late", 0.2)]
    found = pd.DataFrame([(w, at, v, v - 0.1, v + 0.1) for w, at, v in rows], columns=["who", "at", "value", "low", "high"])
    charts.bands(ax, found, "at", "who", within=(0.05, 1))
    drawn = [(line.get_label(), line.get_color(), line.get_ydata().tolist()) for line in ax.lines]
    assert drawn == [("b", COLOURS[0], [0.5, 0.6]), ("a", COLOURS[1], [0.1, 0.2])]
    assert ax.collections[1].get_paths()[0].vertices[:, 1].min() == 0.05
    assert [t.get_text() for t in ax.get_xticklabels()] == ["early", "late"]


def test_a_panel_each_with_a_dotted_line():
    rows = [(arm, at, v, v - 0.1, v + 0.1) for arm, v in (("b", 0.5), ("a", 0.25)) for at in (1, 2)]
    found = pd.DataFrame(rows, columns=["arm", "eps", "value", "low", "high"]).assign(attack="PGD")
    fig, axes = charts.bands_each(found, "arm", "eps", "attack", at=1.5, label=str.upper, ylabel="accuracy")
    assert [ax.get_title() for ax in axes] == ["B", "A"] and fig.texts[0].get_text() == "accuracy"
    for ax, value in zip(axes, (0.5, 0.25), strict=True):
        curve, dotted = ax.lines
        assert curve.get_ydata().tolist() == [value] * 2 and curve.get_label() == "PGD"
        assert list(dotted.get_xdata()) == [1.5, 1.5] and dotted.get_linestyle() == ":" and ax.get_ylim() == (0, 1.02)
    plt.close(fig)


def test_images_are_drawn_one_an_axis():
    fig, axes = plt.subplots(1, 2)
    x = torch.rand(2, 3, 4, 4)
    pictures.images(axes, x)
    for ax, one in zip(axes, x, strict=True):
        np.testing.assert_allclose(ax.images[0].get_array(), one.permute(1, 2, 0), atol=1 / 255)
    with pytest.raises(ValueError, match="shorter"):
        pictures.images(axes, x[:1])
    plt.close(fig)


def test_a_panel_each_measure():
    found = pd.DataFrame(
        [
            {"measure": m, "eps": e, "who": w, "value": v, "low": v - 0.1, "high": 2.0}
            for m, v in (("b", 0.5), ("a", 0.25))
            for w in ("x", "y")
            for e in (1, 2)
        ]
    )
    fig = charts.by_measure(found, "eps", "who", {"a": ("A", "share"), "b": ("B", "NISSIM")}, xlabel="eps, pixels")
    first, second = fig.axes
    assert [ax.get_title() for ax in fig.axes] == ["B", "A"] and [ax.get_ylabel() for ax in fig.axes] == ["NISSIM", "share"]
    assert first.lines[0].get_ydata().tolist() == [0.5, 0.5] and second.lines[1].get_ydata().tolist() == [0.25, 0.25]
    assert max(c.get_paths()[0].vertices[:, 1].max() for c in first.collections) == 1  # bands end with their scale
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ["x", "y"]
    plt.close(fig)


def test_for_and_against_are_each_over_their_own_largest_value():
    fig, axes = plt.subplots(1, 3)
    signed = torch.tensor([[4.0, -1.0], [2.0, 0.0]])
    drawn, both = pictures.for_and_against(axes, torch.rand(3, 2, 2), signed)
    shown = [np.asarray(ax.images[-1].get_array()).tolist() for ax in axes]
    assert shown == [[[1, 0], [0.5, 0]], [[0, 1], [0, 0]], [[1, -0.25], [0.5, 0]]]
    assert drawn.get_clim() == (0, 1) and both.get_clim() == (-1, 1)
    pictures.for_and_against(axes, torch.rand(3, 2, 2), signed.relu())  # nothing speaks against it
    assert not np.asarray(axes[1].images[-1].get_array()).any()
    plt.close(fig)


def test_cells_for_pictures_may_be_wide():
    fig, axes = pictures.grid(2, 3, cell=1.0, aspect=2.0)
    assert fig.get_size_inches().tolist() == pytest.approx([6.6, 2.5]) and axes.shape == (2, 3)
    plt.close(fig)


def test_a_density_is_the_mean_of_kernels_and_ends_with_its_scale(ax):
    values = np.array([0.1, 0.2, 0.2, 0.6, 0.95])
    charts.density(ax, values, "a", 2, within=(-1, 1))
    (line,) = ax.lines
    x, y = line.get_data()
    assert -1 <= x[0] < 0 and x[-1] == 1 and same_color(line.get_color(), COLOURS[2]) and line.get_label() == "a"
    width = values.std(ddof=1) * len(values) ** -0.2
    kernels = np.exp(-(((x[:, None] - values) / width) ** 2) / 2) / (width * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(y, kernels.mean(1), rtol=1e-6, atol=1e-12)
    charts.density(ax, [1.0, 1.0], "b", 0, within=(-1, 1))
    assert len(ax.lines) == 1  # no width, no density


def test_levels_have_a_tick_each(ax):
    charts.levels(ax, [0.01, 0.1], "eps, pixels in [0, 1]")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.01", "0.1"] and ax.get_xscale() == "log"
    assert ax.get_xlabel() == "eps, pixels in [0, 1]"


def test_bars_stand_in_the_order_of_their_names(ax):
    charts.bars(ax, ["a", "b"], FOUND, "title")
    assert [p.get_width() for p in ax.patches] == [0.2, 0.9] and ax.get_ylim() == (1.5, -0.5)
    assert ax.lines[1].get_xdata().tolist() == [0.7, 1.1]
    with pytest.raises(ValueError, match="2 values for 1 names"):
        charts.bars(ax, ["a"], FOUND)


@pytest.mark.parametrize("upright", [True, False])
def test_points_have_their_intervals(ax, upright):
    charts.points(ax, [0, 1], FOUND, "a", 2, upright=upright, within=(0, 1))
    (bars,) = ax.containers[0].lines[2]
    spans = [s[:, 1 if upright else 0].tolist() for s in bars.get_segments()]
    assert np.allclose(spans, [[0.1, 0.3], [0.7, 1.0]])


def test_a_matrix_shows_its_numbers(ax):
    charts.matrix(ax, np.array([[0.5, np.nan], [-1.0, 0.25]]), ["a", "b"], ["c", "d"], signed=True)
    assert [t.get_text() for t in ax.texts] == ["0.50", "-1.00", "0.25"]
    assert ax.images[0].norm.vmin == -1 and ax.images[0].norm.vmax == 1
    with pytest.raises(ValueError, match="by name"):
        charts.matrix(ax, np.zeros((1, 2)), ["a", "b"], ["c", "d"])
    charts.matrix(ax, np.full((1, 1), np.nan), ["a"], ["b"])  # nothing to show is no error


def test_marks(ax):
    charts.mark(ax, True)
    charts.mark(ax, False)
    charts.same_height(ax, 0.1, "chance")
    assert [t.get_text() for t in ax.texts] == ["✓", "✗"] and ax.lines[0].get_ydata() == [0.1, 0.1]


def test_one_legend_stands_below_all_panels():
    with plt.rc_context({"figure.constrained_layout.use": True}):
        fig, axes = charts.panels(2)
    charts.bands(axes[0], pd.DataFrame({"who": ["a", "b"], "at": 1, "value": 1, "low": 0, "high": 2}), "at", "who")
    charts.legend_below(fig, axes[0], columns=2)
    fig.canvas.draw()
    (legend,) = fig.legends
    assert [t.get_text() for t in legend.get_texts()] == ["a", "b"]
    assert legend.get_window_extent().y1 <= min(ax.get_tightbbox().y0 for ax in axes)
    plt.close(fig)


def test_a_cell_and_a_picture_are_outlined(ax):
    charts.matrix(ax, np.ones((2, 3)), ["a", "b"], ["x", "y", "z"])
    charts.outline_cell(ax, 1, 2)
    (border,) = ax.patches
    assert (border.get_x(), border.get_y()) == pytest.approx((1.54, 0.54)) and not border.get_fill()
    fig, other = plt.subplots()
    pictures.image(other, torch.zeros(1, 4, 4))
    assert not any(s.get_visible() for s in other.spines.values())
    pictures.outline(other)
    assert all(s.get_visible() and s.get_linewidth() == 2.5 for s in other.spines.values())
    plt.close(fig)


def test_boxes_have_the_quartiles_and_leave_a_place_empty(ax):
    charts.boxes(ax, ["a", "none", "b"], [np.array([0.0, 1.0, 2.0, 3.0, 4.0]), np.array([]), np.array([5.0, 5.0])])
    medians = [line for line in ax.lines if line.get_color() == COLOURS[1]]
    assert [(np.mean(m.get_xdata()), m.get_ydata()[0]) for m in medians] == [(0, 2), (2, 5)]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "none", "b"] and ax.get_xlim() == (-0.5, 2.5)


@pytest.mark.parametrize("draw", [charts.points, charts.band])
def test_a_value_without_an_interval_is_hollow(ax, draw):
    known, unknown = Interval(0.5, 0.4, 0.6, ""), Interval(0.3, math.nan, math.nan, "")
    draw(ax, [0, 1], [known, unknown], "what", 0, markerfacecolor="none", zorder=4)
    rings = [line for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert [(list(r.get_xdata()), list(r.get_ydata())) for r in rings] == [([1], [0.3])]
