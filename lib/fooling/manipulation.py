r"""Fooling explanations (Heo, Joo and Moon, NeurIPS 2019): what a manipulated network is trained on, and its success.

h is the map of the manipulated network, h0 that of the original, both (N, l, l) in [0, 1]; m a mask. Training losses and
test losses t are per sample; fooling succeeds where t lies in an interval (FSR, the fooling success rate, is the share):

==========  ==============================================================  ==========================================  ========
kind        training loss                                                   t                                           interval
==========  ==============================================================  ==========================================  ========
`location`  mean over pixels of (h - m)^2                                   the same                                    [0, .2]
`topk`      mean over P of h^2, P the floor(l^2/10) largest pixels of h0    the same                                    [0, .3]
`centre`    -(|dy| + |dx|), d the shift of the centre of mass               sqrt((dy^2 + dx^2)/2) / (l - 1)             [.1, 1]
`active`    1/2 [mean (h_c1 - h0_c2)^2 + mean (h_c2 - h0_c1)^2]             s(h_c1, h0_c2) - s(h_c1, h0_c1), and c2     [.5, 2]
==========  ==============================================================  ==========================================  ========

For `topk` and `centre` both maps are scaled to [0, 1] by minimum and maximum. s is Spearman's rank correlation, as printed;
the released code correlates maps of signs instead (`correlation="ternary"`). The mean over P and squares are those of the
released code too; the paper prints a sum of absolute values, on which the interval would make no sense.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lib.explanations import activation_maps
from lib.measures import comparison

Kind = Literal["location", "topk", "centre", "active"]
PASSIVE: tuple[Kind, ...] = ("location", "topk", "centre")
KINDS: tuple[Kind, ...] = (*PASSIVE, "active")
INTERVALS: dict[str, tuple[float, float]] = {"location": (0, 0.2), "topk": (0, 0.3), "centre": (0.1, 1), "active": (0.5, 2)}


def frame(l: int) -> Float[Tensor, "l l"]:
    """The mask of the paper: ones on a border of width floor(l/7), at least 1; (l, l)."""
    # deviation: at least 1, so that maps of fewer than 7 positions have a frame; the paper's maps have 7 and 14.
    width = max(1, l // 7)
    mask = torch.ones(l, l)
    mask[width : l - width, width : l - width] = 0
    return mask


def _check(h: Tensor, h0: Tensor | None = None) -> None:
    if h.dim() != 3 or h.shape[1] != h.shape[2]:
        raise ValueError(f"maps have shape {tuple(h.shape)}; expected (N, l, l)")
    if h0 is not None and h0.shape != h.shape:
        raise ValueError(f"maps of shape {tuple(h.shape)} and original maps of {tuple(h0.shape)}; they must be the same")


def location(
    h: Float[Tensor, "n l l"], mask: Float[Tensor, "l l"] | Float[Tensor, "n l l"] | None = None
) -> Float[Tensor, " n"]:
    """mean (h - m)^2, (N,); m is (l, l), or (N, l, l), `frame` unless given. Raises ValueError for a mask of another size."""
    _check(h)
    m = frame(h.shape[-1]) if mask is None else mask
    if m.shape[-2:] != h.shape[-2:] or m.dim() not in (2, 3) or (m.dim() == 3 and len(m) != len(h)):
        raise ValueError(
            f"the mask has shape {tuple(m.shape)}, the maps {tuple(h.shape)}; give a mask of {tuple(h.shape[-2:])} (maps have "
            "the resolution of their layer, not of the image)"
        )
    return ((h - m.detach().to(h)) ** 2).flatten(1).mean(1)


def top(h0: Float[Tensor, "n l l"], k: int | None = None) -> Bool[Tensor, "n d"]:
    """Where the k largest values of each map are, (N, l*l) bool; k is floor(l*l/10) unless given. Ties go to the first.

    Raises ValueError for k that is not in 1..l*l.
    """
    _check(h0)
    n = h0[0].numel()
    k = max(1, n // 10) if k is None else k
    if not 1 <= k <= n:
        raise ValueError(f"k = {k}, but the map has {n} positions ({h0.shape[-2]} x {h0.shape[-1]}); choose k in 1..{n}")
    return comparison.highest(h0, k)


def topk(
    h: Float[Tensor, "n l l"], h0: Float[Tensor, "n l l"], k: int | None = None, form: Literal["code", "printed"] = "code"
) -> Float[Tensor, " n"]:
    """mean over P of h^2 (code), or the sum over P of |h| (printed), (N,)."""
    _check(h, h0)
    if form not in ("code", "printed"):
        raise ValueError(f"unknown form {form!r}; choose code or printed")
    chosen = top(activation_maps.normalise(h0), k)
    # deviation: the mean of squares over P, as in the code of Heo et al., on which the interval of success makes sense; they
    # print a sum.
    values = activation_maps.normalise(h).flatten(1) * chosen
    return (values**2).sum(1) / chosen.sum(1) if form == "code" else values.abs().sum(1)


def _shift(h: Tensor, h0: Tensor) -> Tensor:
    """Shift of the centre of mass in rows and columns, (N, 2), pixels; zero, and without gradient, where h is dead."""
    _check(h, h0)
    scaled, original = activation_maps.normalise(h), activation_maps.normalise(h0.detach())
    alive = ~comparison.degenerate(h) & ~comparison.degenerate(h0)
    safe = torch.where(alive[:, None, None], scaled, torch.ones_like(scaled))
    centre0 = comparison.centroid(torch.where(alive[:, None, None], original, torch.ones_like(original)))
    return torch.where(alive[:, None], comparison.centroid(safe) - centre0, 0.0)


def centre(h: Float[Tensor, "n l l"], h0: Float[Tensor, "n l l"]) -> Float[Tensor, " n"]:
    """-(|dy| + |dx|), (N,); it has no bound below that matters, so its weight must be small."""
    # deviation: the centre in rows and columns, as in the code of Heo et al.; they print the centre of one running index.
    return -_shift(h, h0).abs().sum(1)


def _check_pairs(h: Tensor, h0: Tensor) -> None:
    if h.dim() != 4 or h.shape[1] != 2 or h.shape != h0.shape:
        raise ValueError(f"maps have shapes {tuple(h.shape)} and {tuple(h0.shape)}; a swap takes two of (N, 2, l, l)")


def swap(h: Float[Tensor, "n 2 h w"], h0: Float[Tensor, "n 2 h w"]) -> Float[Tensor, " n"]:
    """The active loss for maps of two classes, (N, 2, l, l) each: h of each class against h0 of the other."""
    _check_pairs(h, h0)
    return ((h - h0.detach().flip(1)) ** 2).flatten(1).mean(1)  # the mean over both classes is the half sum


class Test(NamedTuple):
    """t of each image, (N,), NaN where it is not defined; and whether the map is dead (without contrast), (N,) bool."""

    t: Float[Tensor, " n"]
    dead: Bool[Tensor, " n"]


@torch.no_grad()
def test(
    kind: Kind,
    h: Float[Tensor, "n l l"],
    h0: Float[Tensor, "n l l"],
    *,
    mask: Float[Tensor, "l l"] | Float[Tensor, "n l l"] | None = None,
    k: int | None = None,
) -> Test:
    """The test loss of a passive fooling. A dead map has no centre; under `topk` it counts as fooled, by the formula."""
    dead = comparison.degenerate(h)
    if kind == "location":
        return Test(location(h, mask), dead)
    if kind == "topk":
        return Test(topk(h, h0, k), dead)
    if kind == "centre":
        t = (_shift(h, h0) ** 2).mean(1).sqrt() / (h.shape[-1] - 1)
        return Test(torch.where(dead | comparison.degenerate(h0), math.nan, t), dead)
    raise ValueError(f"unknown passive fooling {kind!r}; choose one of {', '.join(PASSIVE)}")


def ternary(maps: Float[Tensor, " n *s"]) -> Float[Tensor, " n *s"]:
    """The released code's maps: signs where |map| exceeds mean + one standard deviation of |map|, zero elsewhere."""
    size = maps.flatten(1).abs()
    bar = size.mean(1, keepdim=True) + size.std(1, keepdim=True, correction=0)
    return torch.where(size > bar, maps.flatten(1).sign(), 0.0).view_as(maps)


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    u, v = (m.flatten(1) - m.flatten(1).mean(1, keepdim=True) for m in (a, b))
    scale = u.norm(dim=1) * v.norm(dim=1)
    return torch.where(scale > 0, (u * v).sum(1) / scale, math.nan)


@torch.no_grad()
def swapped(
    h: Float[Tensor, "n 2 h w"], h0: Float[Tensor, "n 2 h w"], correlation: Literal["spearman", "ternary"] = "spearman"
) -> Float[Tensor, "n 2"]:
    """t of the active fooling for both classes, (N, 2): s(h_c1, h0_c2) - s(h_c1, h0_c1) and s(h_c2, h0_c1) - s(h_c2, h0_c2).

    NaN where a map is constant. An exact swap reaches 1 - s(h0_c1, h0_c2), no map more than the root of twice that: originals
    that resemble each other can hardly be swapped.
    """
    _check_pairs(h, h0)
    if correlation not in ("spearman", "ternary"):
        raise ValueError(f"unknown correlation {correlation!r}; choose spearman or ternary")

    def s(a: Tensor, b: Tensor) -> Tensor:
        return comparison.spearman(a, b) if correlation == "spearman" else _pearson(ternary(a), ternary(b))

    # deviation: the second class mirrors the first; the print has s(c1, c2) in both. Ranks as printed, where the code
    # correlates signs.
    return torch.stack([s(h[:, c], h0[:, 1 - c]) - s(h[:, c], h0[:, c]) for c in (0, 1)], 1)


def succeeded(kind: Kind, t: Float[Tensor, " *s"]) -> Bool[Tensor, " *s"]:
    """Where t lies in the kind's interval, (N,) bool; not where it is not defined."""
    low, high = INTERVALS[kind]
    return (t >= low) & (t <= high)
