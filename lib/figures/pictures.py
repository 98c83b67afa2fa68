"""The few ways in which every study draws images and maps."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from lib.data.images import from_tensor
from lib.figures.style import COLOURS, MAGNITUDE, SIGNED

MANY_ROWS, BAR_ROWS = 5, 3.5  # beside more rows of pictures than these a colour bar is as long as so many


def blank(ax: Axes) -> None:
    """An axis that holds a picture: no ticks, no grid, no frame."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)


def image(ax: Axes, x: Tensor, title: str = "") -> None:
    """An image (C, H, W) in [0, 1]."""
    ax.imshow(from_tensor(x), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(title)
    blank(ax)


def images(axes: Sequence[Axes], x: Tensor) -> None:
    """Images (N, C, H, W) in [0, 1] of any device, one in each of N axes."""
    for ax, one in zip(axes, x, strict=True):
        image(ax, one.cpu())


def heatmap(
    ax: Axes, values: Tensor | np.ndarray, title: str = "", *, signed: bool = False, limit: float | None = None
) -> mpl.image.AxesImage:
    """A map (H, W) in [0, 1], or signed with limits at +-`limit`, by default max |values|."""
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    limit = limit or float(np.abs(array).max()) or 1.0
    low, high, cmap = (-limit, limit, SIGNED) if signed else (0.0, 1.0, MAGNITUDE)
    drawn = ax.imshow(array, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
    ax.set_title(title)
    blank(ax)
    return drawn


def overlay(ax: Axes, x: Tensor, values: Tensor, title: str = "") -> mpl.image.AxesImage:
    """A map (H, W) in [0, 1] over its image in grey: the map is as opaque as it is strong."""
    grey = from_tensor(x.mean(0, keepdim=True))
    ax.imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    strength = np.asarray(values.detach().cpu())
    drawn = ax.imshow(strength, cmap=MAGNITUDE, vmin=0, vmax=1, alpha=0.25 + 0.55 * strength, interpolation="nearest")
    ax.set_title(title)
    blank(ax)
    return drawn


def coarse(values: Tensor, block: int) -> Tensor:
    """A map (H, W) of single pixels so that it can be seen: means of blocks of `block` pixels, scaled by the largest."""
    height, width = values.shape
    means = F.avg_pool2d(values[None, None], block, ceil_mode=True)
    big = F.interpolate(means, scale_factor=block, mode="nearest")[0, 0, :height, :width]
    return big / (float(big.max()) or 1.0)


def for_and_against(axes: Sequence[Axes], x: Tensor, signed: Tensor) -> tuple[mpl.image.AxesImage, mpl.image.AxesImage]:
    """A signed map (H, W) of an image in three pictures: what speaks for, what speaks against, both; each over its own largest
    value."""

    def scaled(values: Tensor) -> Tensor:
        return values / (float(values.abs().max()) or 1.0)

    overlay(axes[0], x, scaled(signed.relu()))
    drawn = overlay(axes[1], x, scaled((-signed).relu()))
    return drawn, heatmap(axes[2], scaled(signed), signed=True, limit=1.0)


def outline(ax: Axes) -> None:
    """A border around a picture that is pointed out."""
    for spine in ax.spines.values():
        spine.set(visible=True, color=COLOURS[1], linewidth=2.5)


def colour_bar(fig: Figure, drawn: mpl.image.AxesImage, axes: Any, label: str) -> None:
    """A colour bar beside all of `axes`: beside many rows no longer than a few of them, where a reader begins."""
    rows = len(axes) if np.ndim(axes) == 2 else 1
    place = {"shrink": BAR_ROWS / rows, "anchor": (0.0, 1.0)} if rows > MANY_ROWS else {"shrink": 0.7}
    bar = fig.colorbar(mpl.cm.ScalarMappable(drawn.norm, drawn.cmap), ax=axes, pad=0.02, **place)
    bar.set_label(label)
    bar.ax.grid(False)


def grid(
    rows: int, columns: int, *, cell: float = 1.25, width: float | None = None, aspect: float = 1.0
) -> tuple[Figure, np.ndarray]:
    """A figure of cells for pictures, `cell` inches high and `aspect` times as wide; axes as an array (rows, columns)."""
    size = (width or cell * aspect * columns + 0.6, cell * rows + 0.5)
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    return fig, axes


def canvas(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, np.ndarray]:
    """A figure of `size` inches and its axes (rows, columns), unknown to pyplot: an explorer draws beside the kernel's thread,
    and pyplot's list of open figures belongs to that."""
    fig = Figure(figsize=size)
    return fig, fig.subplots(rows, columns, squeeze=False)


def row_labels(axes: np.ndarray, labels: Sequence[str]) -> None:
    """Names to the left of the first column of pictures."""
    for ax, label in zip(axes[:, 0], labels, strict=True):
        ax.annotate(
            label, (0, 0.5), xytext=(-6, 0), xycoords="axes fraction", textcoords="offset points", ha="right", va="center"
        )
