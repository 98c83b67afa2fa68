r"""What Square does in an L2 ball (Andriushchenko et al. 2020, arXiv:1912.00049, algorithm 3).

A perturbation nu uses the whole radius, most of it at few pixels. A query empties one window, W2, of each channel and moves
what it had there, with what the radius has left, into another, W1, where it is added to what is there as a bump and a hollow
side by side, :math:`\eta`. Along a half of h1 x h2 pixels, in row r and column s (from 1), by eq. 2

.. math:: \eta^{(h_1, h_2)}_{r,s} = \sum_{k=0}^{M(r,s)} \frac{1}{(n + 1 - k)^2}, \quad n = \lfloor h_1 / 2 \rfloor, \quad
          M(r,s) = n - \max(|r - \lfloor h_1/2 \rfloor - 1|, |s - \lfloor h_2/2 \rfloor - 1|);

the window's h columns are a half of h // 2 and one of the rest, of opposite signs, or this turned by its diagonal.
"""

import functools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lib.attacks.pool import corners, signs
from lib.attacks.steps import per_row

LEAST = 3  # pixels of a window's side, which is odd, as in the authors' code
TILES = 5  # of the start, a side


def _bump(h1: int, h2: int) -> Float[Tensor, "h1 h2"]:
    """eq. 2; the sum over k is one over j^2 = (n + 1 - k)^2 from the distance to the middle + 1 to n + 1."""
    n = h1 // 2
    inverse = torch.cat([torch.zeros(1, dtype=torch.float64), torch.arange(1, n + 2, dtype=torch.float64) ** -2]).cumsum(0)
    away = torch.maximum((torch.arange(h1) - h1 // 2).abs()[:, None], (torch.arange(h2) - h2 // 2).abs())
    return inverse[-1] - inverse[away.clamp_max(n + 1)]


@functools.lru_cache(maxsize=64)
def bump_and_hollow(side: int) -> Float[Tensor, "side side"]:
    """eta of a window, of length 1, in float64."""
    halves = _bump(side, side // 2), -_bump(side, side - side // 2)
    eta = torch.cat(halves, 1)
    return eta / eta.norm()


def side(share: float, height: int, width: int) -> int:
    """The side of windows with that share of the pixels: odd, from LEAST on, no longer than the image is high or wide."""
    largest = min(height, width)
    rounded = max(LEAST, round((share * height * width) ** 0.5)) | 1
    return min(rounded, largest if largest % 2 else max(1, largest - 1))


def _tile(height: int, width: int) -> tuple[int, int, int]:
    """The side of the start's tiles, and how many fit below and beside each other."""
    one = max(1, min(height, width) // TILES)
    return one, height // one, width // one


def start_draws(channels: int, height: int, width: int) -> int:
    _, down, across = _tile(height, width)
    return channels * down * across


def start(x: Float[Tensor, "k c h w"], eps: float, drawn: Float[Tensor, "k d"]) -> Float[Tensor, "k c h w"]:
    """Tiles of eta with a random sign each, of length eps in all; what the image has over whole tiles is left as a margin."""
    k, channels, height, width = x.shape
    one, down, across = _tile(height, width)
    up_or_down = signs(drawn).view(k, channels, down, across).to(x)
    nu = torch.zeros_like(x)
    top, left = (height - down * one) // 2, (width - across * one) // 2
    tiled = up_or_down.repeat_interleave(one, 2).repeat_interleave(one, 3) * bump_and_hollow(one).to(x).repeat(down, across)
    nu[..., top : top + down * one, left : left + across * one] = tiled
    return (x + eps * nu / per_row(nu.flatten(1).norm(dim=1), nu)).clamp(0, 1)


def step_draws(channels: int) -> int:
    return 5 + channels


def step(
    x: Float[Tensor, "k c h w"],
    best: Float[Tensor, "k c h w"],
    eps: float,
    sides: Int[Tensor, " k"],
    drawn: Float[Tensor, "k d"],
) -> Float[Tensor, "k c h w"]:
    """Algorithm 3 for each row, with windows of its side: first W1, then W2, whether eta is turned, a sign for each channel."""
    found = best.clone()
    for one in sides.unique().tolist():
        rows = (sides == one).nonzero()[:, 0]
        found[rows] = _moved(x[rows], best[rows], eps, one, drawn[rows])
    return found


def _moved(x: Tensor, best: Tensor, eps: float, one: int, drawn: Tensor) -> Tensor:
    k, channels, height, width = x.shape
    nu, along = best - x, torch.arange(one, device=x.device)
    rows, planes = torch.arange(k, device=x.device)[:, None, None, None], torch.arange(channels, device=x.device)[:, None, None]

    def window(first: int) -> tuple[Tensor, ...]:
        top, left = corners(drawn[:, first : first + 2], one, height, width)
        return rows, planes, (top[:, None] + along)[:, None, :, None], (left[:, None] + along)[:, None, None, :]

    taken, emptied = window(0), window(2)
    eta = bump_and_hollow(one).to(x)
    turned = torch.where(per_row(drawn[:, 4] < 0.5, x), eta.T, eta)
    rho = signs(drawn[:, 5:])[:, :, None, None].to(x)
    there = nu[taken]
    towards = rho * turned + there / _length(there).clamp_min(torch.finfo(x.dtype).tiny)
    rest = nu.clone()
    rest[taken], rest[emptied] = 0, 0
    unused = per_row((eps**2 - nu.square().flatten(1).sum(1)).clamp_min(0), x) / channels
    freed = (nu.square().sum((2, 3), keepdim=True) - rest.square().sum((2, 3), keepdim=True)).clamp_min(0)
    rest[taken] = towards / _length(towards).clamp_min(torch.finfo(x.dtype).tiny) * (freed + unused).sqrt()
    return (x + rest).clamp(0, 1)


def _length(windows: Float[Tensor, "k c s s"]) -> Float[Tensor, "k c 1 1"]:
    return windows.square().sum((2, 3), keepdim=True).sqrt()
