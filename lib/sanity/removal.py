r"""What a map marks, taken away or put in, share by share: deletion, insertion (Petsiuk et al. 2018), ROAD (Rong et al. 2022).

Pixels are taken in the order of a map, and the probability of a class is followed:

* `deletion` (arXiv:1806.07421): the highest first, each becomes its image's mean colour. A map of what the network
  rests on makes the curve fall at once: a small area is good;
* `insertion` (likewise): the highest first, each appears on the blurred image. A large area is good;
* `road` (arXiv:2202.00449): the highest or the lowest first, each filled in from its neighbours (`lib.sanity.imputation`)
  with a little noise. With the highest first a small area is good, with the lowest first a large one.

A map coarser than the image is enlarged first, bilinearly, as it is shown. Equal values come in random order. Area is under the
curve by trapezoids, over the shares' range, so it is a mean probability.

**The control** is a map with the same values at random places, of its own grid, enlarged likewise: what is removed then has the
same size and the same grain. (Single pixels at random ruin an image sooner than the patches of a coarse map do, so beside them
a coarse map would seem to mark little; such curves favour what is coarse or blurred, arXiv:2304.13836, so compare methods by
their distance from their own control.) A map that marks nothing has the control's curve.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lib.data import checks
from lib.data.checks import Labels
from lib.explanations import activation_maps
from lib.measures import comparison
from lib.networks import contract, hooks
from lib.sanity import imputation

SHARES = tuple(i / 10 for i in range(11))
ROAD_SHARES = SHARES[1:-1]  # as Rong et al.; with every pixel gone nothing is left to fill in from
# of rows: the numbers of their images, and the pixels whose turn has come
Taken = Callable[[Int[Tensor, " rows"], Bool[Tensor, "rows h w"]], Float[Tensor, "rows c h w"]]


@dataclass(frozen=True)
class Curves:
    """The probability of the class, and whether it is what the network decides for, after each share of the pixels: first in
    the order of the map, then of each of its controls. Rows of maps that order nothing (constant, or with a NaN) are NaN."""

    shares: Float[Tensor, " shares"]
    probability: Float[Tensor, "orders n shares"]
    right: Float[Tensor, "orders n shares"]

    @property
    def areas(self) -> Float[Tensor, "orders n"]:
        """Under each curve of probabilities, in [0, 1]."""
        return torch.trapezoid(self.probability, self.shares) / (self.shares[-1] - self.shares[0])

    @property
    def area(self) -> Float[Tensor, " n"]:
        """In the order of the map."""
        return self.areas[0]

    @property
    def control(self) -> Float[Tensor, " n"]:
        """In random order, the mean over the draws."""
        return self.areas[1:].mean(0)


def removal_ranks(maps: Float[Tensor, "n h w"], size: tuple[int, int], generator: torch.Generator) -> Int[Tensor, "n a b"]:
    """When each pixel of an image of `size` is removed, 0 first: the highest value of the enlarged map; ties at random."""
    big = activation_maps.upsample(maps, size).flatten(1)
    tied = torch.stack([torch.randperm(big.shape[1], generator=generator) for _ in big]).to(big.device)
    order = tied.gather(1, big.gather(1, tied).sort(dim=1, descending=True, stable=True).indices)
    places = torch.arange(big.shape[1], device=big.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view(len(maps), *size)


def shuffled(maps: Float[Tensor, "n h w"], generator: torch.Generator) -> Float[Tensor, "n h w"]:
    """Each map's values at random places."""
    flat = maps.flatten(1)
    order = torch.stack([torch.randperm(flat.shape[1], generator=generator) for _ in flat]).to(flat.device)
    return flat.gather(1, order).view_as(maps)


def blurred(x: Float[Tensor, "n c h w"], sigma: float = 5.0, taps: int = 11) -> Float[Tensor, "n c h w"]:
    """Images under a Gaussian of width `sigma`, cut off to `taps` pixels, those of the code of Petsiuk et al.; the border is
    repeated."""
    if not sigma > 0 or taps < 1 or taps % 2 == 0:
        raise ValueError(f"sigma={sigma}, taps={taps}: a width above 0 and an odd number of pixels are needed (5 and 11)")
    reach = taps // 2
    t = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = (-(t**2) / (2 * sigma**2)).exp()
    kernel = kernel / kernel.sum()
    # deviation: the code of Petsiuk et al. pads with zeros, which darkens the border.
    wide = F.pad(x.reshape(-1, 1, *x.shape[2:]), (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(wide, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1)).view(x.shape)


def deletion(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Labels,
    maps: Float[Tensor, "n a b"],
    *,
    shares: Sequence[float] = SHARES,
    draws: int = 1,
    generator: torch.Generator | None = None,
    batch: int = 256,
) -> Curves:
    """The deletion curve of class `y` (one an image) and its controls; see the module's docstring.

    `x` (N, C, H, W) in [0, 1], maps (N, h, w), any values (the highest count first). `draws` controls an image. It costs
    N (1 + draws) shares forward passes, in batches of `batch` images; batches change nothing. Deterministic by the generator
    (none: one seeded with 0).

    Raises ValueError for images of one pixel, maps of another number, shares that do not rise within [0, 1], classes out of
    range, logits that are not finite.
    """
    x = _images(x)
    # deviation: to each image's own mean; Petsiuk et al. take zeros after normalisation, the mean of the data set.
    mean = x.mean((2, 3), keepdim=True)
    return _curves(
        model, x, y, maps, shares, draws, generator, batch, lambda i, gone: torch.where(gone[:, None], mean[i], x[i])
    )


def insertion(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Labels,
    maps: Float[Tensor, "n a b"],
    *,
    shares: Sequence[float] = SHARES,
    draws: int = 1,
    generator: torch.Generator | None = None,
    batch: int = 256,
    sigma: float = 5.0,
) -> Curves:
    """The insertion curve: of pixels that appear on the image blurred by `sigma` pixels. Else as `deletion`."""
    x = _images(x)
    start = blurred(x, sigma)
    return _curves(
        model, x, y, maps, shares, draws, generator, batch, lambda i, seen: torch.where(seen[:, None], x[i], start[i])
    )


def road(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Labels,
    maps: Float[Tensor, "n a b"],
    *,
    first: Literal["most", "least"],
    shares: Sequence[float] = ROAD_SHARES,
    draws: int = 1,
    generator: torch.Generator | None = None,
    batch: int = 256,
    noise: float = 0.01,
) -> Curves:
    """ROAD's curve, with the `most` or `least` relevant pixels removed first, filled in linearly with noise of that standard
    deviation (an image's is the same at all shares; what it carries out of [0, 1] is cut). Rong et al. draw `right`, the
    accuracy; their order of methods follows from either.

    Else as `deletion`, but shares are below 1; and beside the passes it solves as many sparse systems on the CPU
    (`lib.sanity.imputation`): 200 images of 28 x 28 at 9 shares with one control take 5 to 10 s, one of 224 x 224 3 to 7 s.
    """
    if first not in ("most", "least"):
        raise ValueError(f"unknown order {first!r}; first is most or least, the relevance of what is removed first")
    if max(shares, default=0) >= 1:
        raise ValueError(f"shares go up to {max(shares)}; something must be left to fill in from, so they must be below 1")
    x = _images(x)
    generator = generator or torch.Generator().manual_seed(0)
    drawn = noise * torch.randn(x.shape, generator=generator, device=generator.device).to(x)

    def taken(i: Tensor, gone: Tensor) -> Tensor:
        full = imputation.imputed(x[i], gone)
        return torch.where(gone[:, None], (full + drawn[i]).clamp(0, 1), full)

    order = maps if first == "most" else -maps
    return _curves(model, x, y, order, shares, draws, generator, batch, taken)


def _images(x: Tensor) -> Tensor:
    x = checks.check_images(x)
    if x.shape[2] * x.shape[3] < 2:
        raise ValueError("images of one pixel have nothing to remove in an order; 2 pixels at least are needed")
    return x


def _check(x: Tensor, maps: Tensor, shares: Sequence[float], draws: int, batch: int) -> None:
    if maps.dim() != 3 or len(maps) != len(x):
        raise ValueError(f"maps have shape {tuple(maps.shape)}; expected (N, h, w) for N = {len(x)} images, one an image")
    rise = all(a < b for a, b in itertools.pairwise(shares))
    if len(shares) < 2 or not rise or shares[0] < 0 or shares[-1] > 1:
        raise ValueError(f"shares are {tuple(shares)}; a curve needs two or more, rising, in [0, 1]")
    if draws < 1 or batch < 1:
        raise ValueError(f"draws={draws}, batch={batch}: one control an image and one image a batch are needed at least")


def _curves(
    model: nn.Module,
    x: Tensor,
    y: Labels,
    maps: Tensor,
    shares: Sequence[float],
    draws: int,
    generator: torch.Generator | None,
    batch: int,
    taken: Taken,
) -> Curves:
    """Curves of images that `taken` makes of rows' images and the pixels whose turn has come."""
    _check(x, maps, shares, draws, batch)
    generator = generator or torch.Generator().manual_seed(0)
    n, size = len(x), (x.shape[2], x.shape[3])
    classes = checks.as_labels(y, x)
    lost = comparison.degenerate(maps) | ~maps.flatten(1).isfinite().all(1)
    maps = maps.detach().to(x).masked_fill(lost[:, None, None], 0)
    orders = [maps, *(shuffled(maps, generator) for _ in range(draws))]
    ranks = torch.cat([removal_ranks(m, size, generator) for m in orders])  # (orders * n, h, w)
    counts = torch.tensor([round(s * size[0] * size[1]) for s in shares], device=x.device)
    probability, right = [], []
    rows = torch.arange(len(ranks) * len(shares), device=x.device)
    with hooks.frozen(model), torch.no_grad():
        for part in rows.split(batch):
            row, step = part // len(shares), part % len(shares)
            gone = ranks[row] < counts[step].view(-1, 1, 1)
            logits = contract.logits_of(model, taken(row % n, gone))
            contract.check_logits(model, logits)
            checks.check_labels(classes, logits.shape[1], n)
            own = classes[row % n]
            probability.append(logits.softmax(1).gather(1, own[:, None])[:, 0])
            right.append((logits.argmax(1) == own).to(logits))
    shape = (len(orders), n, len(shares))
    found = [torch.cat(v).view(shape).masked_fill(lost[None, :, None], torch.nan).cpu() for v in (probability, right)]
    return Curves(torch.tensor(shares, dtype=found[0].dtype), *found)
