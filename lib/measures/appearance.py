r"""What a saliency map looks like, in numbers: agreement with edges, smoothness, sparsity, alignment with the image.

Zhang and Zhu 2019 show by eye that maps of adversarially trained networks follow contours while those of standard ones are
scattered; these measures are this study's way to put an interval beside that. One number an image, (N,).
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lib.measures.comparison import degenerate, spearman


def sensitivity(values: Float[Tensor, "n c h w"], percentile: float = 99.0) -> Float[Tensor, "n h w"]:
    """A map for the eye, (N, H, W) in [0, 1]: absolute values summed over colours, divided by their 99th percentile, clipped.

    Zhang and Zhu 2019 (and SmoothGrad's authors). A map of zeros stays zeros. Where the percentile is 0 though the map is
    not (fewer than 1 % of the pixels count), the maximum takes its place.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must be in (0, 100], got {percentile}")
    magnitude = values.abs().sum(1)
    flat = magnitude.flatten(1)
    top = torch.stack([row.quantile(percentile / 100) for row in flat])  # row by row: torch refuses large batches
    # deviation: where the percentile is 0 the maximum takes its place; Zhang and Zhu divide by the percentile alone.
    top = torch.where(top > 0, top, flat.amax(1))
    scale = torch.where(top > 0, top, torch.where(top.isnan(), torch.nan, 1.0))  # a NaN anywhere leaves nothing to scale by
    return (magnitude / scale.view(-1, 1, 1)).clamp(max=1)


def edges(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """Sobel's gradient magnitude of the grey image, (N, H, W): 0 where nothing changes; the border is reflected."""
    grey = F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="reflect")
    smooth, step = x.new_tensor([1.0, 2.0, 1.0]) / 4, x.new_tensor([-1.0, 0.0, 1.0]) / 2
    kernels = torch.stack([smooth[:, None] * step[None, :], step[:, None] * smooth[None, :]])[:, None]
    return F.conv2d(grey, kernels).norm(dim=1)


def edge_agreement(maps: Float[Tensor, "n h w"], x: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Spearman's rank correlation of each map (N, H, W) with the edges of its image, in [-1, 1]; NaN without contrast."""
    return spearman(maps, edges(x))


def total_variation(maps: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Mean absolute difference of neighbouring pixels, down plus across, in units of the map.

    For maps in [0, 1] such as `sensitivity`'s, 2 is a chessboard. NaN for a map without contrast: it shows nothing, which
    is not smooth.
    """
    return torch.where(degenerate(maps), torch.nan, _variation(maps))


def _variation(maps: Tensor) -> Tensor:
    down = (maps[:, 1:] - maps[:, :-1]).abs().mean((1, 2))
    return down + (maps[:, :, 1:] - maps[:, :, :-1]).abs().mean((1, 2))


def scatter(maps: Float[Tensor, "n h w"], generator: torch.Generator | None = None) -> Float[Tensor, " n"]:
    """Total variation over that of the same values at random places: 1 for noise, near 0 for smooth maps.

    Total variation alone falls when few pixels are bright; this does not. NaN for a map without contrast.
    """
    flat = maps.flatten(1)
    order = torch.randperm(flat.shape[1], generator=generator or torch.Generator().manual_seed(0)).to(maps.device)
    return total_variation(maps) / _variation(flat[:, order].view_as(maps))


def gini(maps: Float[Tensor, " n *s"]) -> Float[Tensor, " n"]:
    r"""Gini's index of the absolute values, in [0, 1): 0 where all are equal, near 1 where few pixels hold everything.

    :math:`G = \frac{\sum_i (2i - n - 1)\,v_{(i)}}{n \sum_i v_i}` over values in ascending order. NaN for a map of zeros.
    """
    values = maps.abs().flatten(1).sort(1).values
    n = values.shape[1]
    rank = 2 * torch.arange(1, n + 1, device=maps.device, dtype=maps.dtype) - n - 1
    total = values.sum(1)
    return torch.where(total > 0, (rank * values).sum(1) / (n * total.clamp_min(torch.finfo(maps.dtype).tiny)), torch.nan)


def alignment(x: Float[Tensor, " n *s"], gradient: Float[Tensor, " n *s"]) -> Float[Tensor, " n"]:
    """|<x, g>| / ||g||_2 with g the gradient of the winning logit (Etmann et al. 2019), in units of the image's norm.

    NaN where the gradient is zero.
    """
    size = gradient.flatten(1).norm(dim=1)
    inner = (x * gradient).flatten(1).sum(1).abs()
    return torch.where(size > 0, inner / size.clamp_min(torch.finfo(x.dtype).tiny), torch.nan)
