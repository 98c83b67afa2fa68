r"""How far an explanation moved: NISSIM, MOD, VID (Chakraborty et al. 2022) and its companions.

All functions take batches of maps (N, H, W), give one number a pair, (N,), and hold nothing else in memory. A map with a
NaN in it gives NaN.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Real, Shaped
from torch import Tensor

from lib.measures.similarity import Window, ssim
from lib.system import devices

FAINT = 0.1  # maps that stay below have not been scaled: SSIM's constants, (0.01)^2 and (0.03)^2, would outweigh them


def _check_scaled(*maps: Tensor) -> None:
    known = [torch.nan_to_num(m.detach(), nan=0.0).aminmax() for m in maps if m.numel()]
    low, high = min((float(k.min) for k in known), default=0.0), max((float(k.max) for k in known), default=1.0)
    if low < -1e-3 or high > 1 + 1e-3 or 0 < high < FAINT:
        faint = f": all below {FAINT} they were never scaled, and any two of them would look alike"
        raise ValueError(
            f"maps range over [{low:.4g}, {high:.4g}]{faint if low >= 0 and high < FAINT else ''}; NISSIM compares maps in "
            "[0, 1]: use lib.explanations.normalise first (or lib.measures.ssim, which takes a data_range)"
        )


def _check_mass(maps: Tensor) -> None:
    if maps.numel() and float(low := torch.nan_to_num(maps.detach(), nan=0.0).min()) < -1e-6:
        raise ValueError(f"maps go down to {low:.4g}; a mass is never negative: use maps.relu() or maps.abs()")


def _nan(*maps: Tensor) -> Tensor:
    """Where any of a row of maps is NaN somewhere, (N,) bool."""
    return torch.stack([m.flatten(1).isnan().any(1) for m in maps]).any(0)


def nissim(
    a: Float[Tensor, "n h w"],
    b: Float[Tensor, "n h w"],
    *,
    window: Window = "uniform",
    size: int | None = None,
    sample_covariance: bool = True,
) -> Float[Tensor, " n"]:
    """(1 - SSIM) / 2 in [0, 1] for maps in [0, 1]: 0 for identical maps, 1 for maximally dissimilar ones.

    Chakraborty et al. 2022. Two maps of zeros are identical. The window is not stated in the paper: see
    `lib.measures.similarity.ssim`. Raises ValueError for maps that are not in [0, 1], or that are so faint that they were
    never scaled.
    """
    _check_scaled(a, b)
    # deviation: the paper of Chakraborty et al. names no window; scikit-image's default is taken. Equal maps give 0, which its
    # range leaves out.
    similar = ssim(a, b, window=window, size=size, sample_covariance=sample_covariance)
    return ((1 - similar) / 2).clamp(0, 1)


def mod(nissim_values: Float[Tensor, "*levels n"]) -> Float[Tensor, "*levels"]:
    """Mean observed dissimilarity: the mean of NISSIM over the images of one (model, layer, eps), the last dimension."""
    return nissim_values.mean(-1)


def vid_model(mods: Float[Tensor, "*models eps"]) -> Float[Tensor, "*models"]:
    """VID, reading A: the standard deviation over eps (the last dimension) of MOD, dividing by the number E of levels.

    The paper calls it a variance and prints the root of one: VID = sqrt(1/E sum_e (MOD_e - m)^2), m = 1/E sum_e MOD_e.
    """
    return mods.std(-1, correction=0)


def vid_image(nissim_values: Float[Tensor, "n eps"]) -> Float[Tensor, " n"]:
    """VID, reading B: the same over eps (the last dimension) for every image, (N, E) -> (N,)."""
    return nissim_values.std(-1, correction=0)


def ranks(values: Real[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Ranks of each row (N, D), from 1, in the widest type of the device; equal values share the mean of their ranks (scipy's
    `average`). NaN has no rank, and with it no value of its row has."""
    ordered, order = torch.sort(values, dim=-1, stable=True)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    group = new.cumsum(-1) - 1
    kind = devices.exact(values.device)
    count = torch.zeros(values.shape, dtype=kind, device=values.device)
    count.scatter_add_(-1, group, torch.ones((), dtype=kind, device=values.device).expand(values.shape))
    mean = (count.cumsum(-1) - (count - 1) / 2).gather(-1, group)  # of the last rank of a group and its first
    return torch.empty_like(mean).scatter_(-1, order, mean).masked_fill_(values.isnan().any(-1, keepdim=True), torch.nan)


def spearman(a: Float[Tensor, " n *s"], b: Float[Tensor, " n *s"]) -> Float[Tensor, " n"]:
    """Spearman's rank correlation of each pair of maps, in [-1, 1]; NaN where a map is constant and has no ranks,
    or has a NaN."""
    if a.shape != b.shape:
        raise ValueError(f"maps of one shape are compared; got {tuple(a.shape)} and {tuple(b.shape)}")
    u, v = (_order(m) for m in (a, b))
    return (u * v).sum(-1).to(devices.wide(a).dtype)


def spearman_of_all(a: Float[Tensor, " n *s"], b: Float[Tensor, " m *s"]) -> Float[Tensor, "n m"]:
    """Spearman's rank correlation of every map of one batch with every map of the other, (N, M); NaN as in `spearman`."""
    if a.shape[1:] != b.shape[1:]:
        raise ValueError(f"maps of one shape are compared; got {tuple(a.shape[1:])} and {tuple(b.shape[1:])}")
    return (_order(a) @ _order(b).T).to(devices.wide(a).dtype)


def _order(maps: Tensor) -> Tensor:
    """The ranks of each map, centred and of length 1; NaN for a constant one."""
    found = ranks(maps.flatten(1))
    found = found - found.mean(-1, keepdim=True)
    length = found.norm(dim=-1, keepdim=True)
    return torch.where(length > 0, found / length, torch.nan)


def kendall(a: Float[Tensor, " n *s"], b: Float[Tensor, " n *s"]) -> Float[Tensor, " n"]:
    """Kendall's tau-b of each pair of maps, in [-1, 1]: concordant less discordant pairs of positions, ties left out.

    tau_b = sum_{i<j} sign(a_i - a_j) sign(b_i - b_j) / sqrt(pairs untied in a * pairs untied in b), as SciPy's default.
    NaN where a map is constant and orders nothing, or has a NaN. Pairs are compared lag by lag, which is fast for many small
    maps; maps of more than 400 positions go to SciPy's n log n algorithm, one by one.
    """
    if a.shape != b.shape:
        raise ValueError(f"maps of one shape are compared; got {tuple(a.shape)} and {tuple(b.shape)}")
    a, b = (devices.wide(t.detach()) for t in (a, b))
    u, v = a.flatten(1).T.contiguous(), b.flatten(1).T.contiguous()  # positions first: a lag is then one block of memory
    if len(u) > 400:
        from scipy.stats import kendalltau  # here, since it takes half a second that most processes need not wait

        found = [kendalltau(*pair).statistic for pair in zip(u.T.cpu().numpy(), v.T.cpu().numpy(), strict=True)]
        return torch.tensor(found, dtype=a.dtype, device=a.device)
    agree, own, other = torch.zeros(3, u.shape[1], device=u.device)  # counts of pairs, exact below 2^24
    for lag in range(1, len(u)):
        s, t = (u[lag:] - u[:-lag]).sign(), (v[lag:] - v[:-lag]).sign()
        agree += (s * t).sum(0)
        own += (s * s).sum(0)
        other += (t * t).sum(0)
    agree, own, other = (t.cpu().double() for t in (agree, own, other))
    scale = (own * other).sqrt()
    return torch.where(scale > 0, agree / scale, torch.nan).to(a).masked_fill_(_nan(a, b), torch.nan)


def highest(maps: Float[Tensor, "n ..."], k: int) -> Bool[Tensor, "n d"]:
    """Where the k highest of the d positions of each map are; of equal ones the first, in row-major order."""
    flat = maps.flatten(1)
    order = torch.sort(flat, dim=1, descending=True, stable=True).indices[:, :k]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, True)


def topk_iou(a: Float[Tensor, " n *s"], b: Float[Tensor, " n *s"], share: float = 0.2) -> Float[Tensor, " n"]:
    """Intersection over union of the highest ceil(share * H * W) pixels of each map, in [0, 1]; k / (H * W) asks for k.

    Only pixels above the map's minimum count, so a sparse map gives fewer, and its empty background is never shared; equal
    values are taken in row-major order. NaN where a map is constant and has no highest pixels.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    if a.shape != b.shape:
        raise ValueError(f"maps of one shape are compared; got {tuple(a.shape)} and {tuple(b.shape)}")
    k = math.ceil(share * a[0].numel() * (1 - 1e-12))  # 53 / 3136 * 3136 is a bit more than 53

    def top(m: Tensor) -> Tensor:
        flat = m.flatten(1)
        return highest(m, k) & (flat > flat.amin(-1, keepdim=True))

    u, v = top(a), top(b)
    ratio = (u & v).sum(-1) / (u | v).sum(-1).clamp_min(1).to(a.dtype)
    return torch.where(u.any(-1) & v.any(-1), ratio, torch.nan)


def centroid(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n 2"]:
    """Centre of mass (row, column) of maps >= 0, (N, 2), in pixels from the first pixel's centre; NaN for a map of zeros.

    Raises ValueError for maps with negative values.
    """
    _check_mass(maps)
    maps = devices.wide(maps)
    height, width = maps.shape[-2:]
    mass = maps.sum((-2, -1))
    y = (maps.sum(-1) * torch.arange(height, device=maps.device, dtype=maps.dtype)).sum(-1)
    x = (maps.sum(-2) * torch.arange(width, device=maps.device, dtype=maps.dtype)).sum(-1)
    return torch.where(mass[:, None] > 0, torch.stack([y, x], -1) / mass[:, None], torch.nan)


def centroid_shift(a: Float[Tensor, "n h w"], b: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Euclidean distance in pixels between the centres of mass of two maps; NaN where one is all zeros."""
    return (centroid(a) - centroid(b)).norm(dim=-1)


def degenerate(maps: Float[Tensor, "*n h w"]) -> Bool[Tensor, " *n"]:
    """Where a map has no contrast (after ReLU: it is all zeros), (N,) bool: nothing is explained there."""
    return maps.amax((-2, -1)) <= maps.amin((-2, -1))


def psnr(x: Float[Tensor, " n *s"], y: Float[Tensor, " n *s"], data_range: float = 1.0) -> Float[Tensor, " n"]:
    """Peak signal-to-noise ratio in dB, 10 log10(L^2 / mean squared error), an image each; infinite for equal images."""
    error = ((devices.wide(x) - devices.wide(y)) ** 2).flatten(1).mean(1)
    return 10 * torch.log10(data_range**2 / error)


def overlap(
    a: Float[Tensor, "n h w"], mask: Shaped[Tensor, "n h w"], how: Literal["energy", "pointing"] = "energy"
) -> Float[Tensor, " n"]:
    """How much of a map >= 0 lies in a mask: the share of its mass in [0, 1], or whether its peak does (pointing game); NaN
    for a map without mass, or without a peak.

    Raises ValueError for shares of maps with negative values.
    """
    if how == "pointing":
        peak = mask.flatten(1).gather(1, a.flatten(1).argmax(1, keepdim=True))[:, 0].to(a.dtype)
        return peak.masked_fill(_nan(a) | degenerate(a), torch.nan)
    _check_mass(a)
    a = devices.wide(a)
    mass = a.sum((-2, -1))
    return torch.where(mass > 0, (a * mask).sum((-2, -1)) / mass, torch.nan)
