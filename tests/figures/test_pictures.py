"""Pictures in rows and columns stay in rows and columns, whatever stands beside them."""

import pytest
import torch

from lib.figures import pictures


@pytest.mark.parametrize("rows", [2, pictures.MANY_ROWS, pictures.MANY_ROWS + 1, 11])
def test_a_colour_bar_stands_beside_all_rows(rows):
    """Columns stay columns; beside many rows the bar is no longer than a few and begins with the first."""
    fig, axes = pictures.grid(rows, 3)
    for ax in axes.flat:
        drawn = pictures.heatmap(ax, torch.eye(4))
    pictures.colour_bar(fig, drawn, axes, "map")
    fig.canvas.draw()
    places = [[ax.get_position() for ax in row] for row in axes]
    for row in places:
        assert [p.x0 for p in row] == pytest.approx([p.x0 for p in places[0]], abs=1e-6)
    bar, high = fig.axes[-1].get_position(), places[0][0].y1 - places[-1][0].y0
    assert bar.x0 > places[0][-1].x1
    if rows > pictures.MANY_ROWS:
        assert bar.height / high == pytest.approx(pictures.BAR_ROWS / rows, rel=0.1)
        assert bar.y1 == pytest.approx(places[0][0].y1, abs=0.02)
    else:
        assert bar.height / high == pytest.approx(0.7, abs=0.1)
