r"""What a channel of a layer looks for: an image made to excite it, and the patches of images that excite it most.

Activation maximisation (Erhan et al. 2009; Olah et al. 2017): the image :math:`\sigma(z)` maximises the mean over positions
of the channel's activation, by Adam from noise, each step under a random shift; total variation keeps it smooth.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lib.networks import hooks, reach
from lib.pathways import neurons

TOGETHER = 32
STARTS = 16  # images of noise among which a channel that its own noise does not reach looks for a beginning


def total_variation(x: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Mean absolute difference of neighbouring pixels, (N, C, H, W) -> (N,)."""
    down, right = (x[:, :, 1:] - x[:, :, :-1]).abs(), (x[:, :, :, 1:] - x[:, :, :, :-1]).abs()
    return down.mean((1, 2, 3)) + right.mean((1, 2, 3))


@hooks.outside_inference()
def features(
    model: nn.Module,
    layer: str,
    channels: Sequence[int],
    *,
    shape: tuple[int, int, int],
    steps: int = 64,
    lr: float = 0.15,
    shift: int = 2,
    smoothness: float = 1.0,
    seed: int = 0,
) -> Float[Tensor, "n c h w"]:
    """An image (C, H, W) = `shape` in [0, 1] for each channel, (len(channels), C, H, W).

    The objective is the mean activation over its own value at the start (so that channels of any scale are treated alike)
    minus `smoothness` times the total variation. A channel that the noise does not reach (a ReLU that is 0 everywhere) has no
    gradient there: it begins at the best of STARTS coarser images of noise, and is NaN where none of them reaches it either.
    Cost: `steps` forward-and-input-backward passes of one image a channel, no backward below what the layer needs. Randomness
    comes from `seed` alone; images do not depend on which other channels are asked for. Raises ValueError for a channel that
    the layer does not have.
    """
    if len(channels) > TOGETHER:  # memory depends on how many are made together, the images do not
        options = {"shape": shape, "steps": steps, "lr": lr, "shift": shift, "smoothness": smoothness, "seed": seed}
        parts = [channels[i : i + TOGETHER] for i in range(0, len(channels), TOGETHER)]
        return torch.cat([features(model, layer, part, **options) for part in parts])  # type: ignore[arg-type]
    if not len(channels):
        return torch.zeros(0, *shape)
    where = next(model.parameters())
    generators = [torch.Generator().manual_seed(seed * 1_000_003 + int(c)) for c in channels]
    z = (0.3 * torch.stack([torch.randn(shape, generator=g) for g in generators])).to(where)
    z = _reached(model, layer, channels, z, generators).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=lr)
    wanted = torch.tensor(list(channels), device=where.device)
    shifts = torch.randint(-shift, shift + 1, (steps, 2), generator=torch.Generator().manual_seed(seed)).tolist()
    scale: Tensor | None = None
    mean = z.new_ones(len(wanted))
    with hooks.frozen(model), torch.enable_grad():
        for i in range(steps):
            x = z.sigmoid()
            with hooks.capture(model, [layer], cut=False) as seen:
                model(x.roll(shifts[i], (2, 3)))
            activation = seen[layer]
            reach.check_below(model, x, activation, layer)
            mean = activation[torch.arange(len(wanted)), wanted].mean((1, 2))
            if scale is None:
                scale = mean.detach().abs().clamp_min(1e-3)
            loss = -(mean / scale) + smoothness * total_variation(x)
            (z.grad,) = torch.autograd.grad(loss.sum(), z)
            optimizer.step()
    return torch.where((mean.detach() == 0)[:, None, None, None], torch.nan, z.detach().sigmoid())


@torch.no_grad()
def _reached(model: nn.Module, layer: str, channels: Sequence[int], z: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Where channels begin (N, C, H, W): as given, or where that does not move a channel at all, the coarser noise that does
    most. Raises ValueError for a channel that the layer does not have."""

    def means(x: Tensor) -> Tensor:
        with hooks.frozen(model), hooks.capture(model, [layer], cut=False) as seen:
            model(x.sigmoid())
        activation = seen[layer]
        if max(channels) >= activation.shape[1] or min(channels) < 0:
            raise ValueError(f"channels {sorted(channels)} of layer {layer!r}, which has {activation.shape[1]}")
        return activation.mean((2, 3))

    z = z.clone()
    found = means(z)
    coarse = [max(1, side // 4) for side in z.shape[2:]]
    for i, channel in enumerate(channels):
        if found[i, channel] == 0:
            noise = 1.5 * torch.randn((STARTS, z.shape[1], *coarse), generator=generators[i])
            starts = F.interpolate(noise, size=z.shape[2:], mode="bilinear").to(z)
            z[i] = starts[means(starts)[:, channel].argmax()]
    return z


class Patch(NamedTuple):
    """Where an image excites a channel most: its place among the images, the score, and the pixels it depends on."""

    image: int
    score: float
    box: tuple[int, int, int, int]  # top, left, bottom, right


def patches(
    model: nn.Module, x: Float[Tensor, "n c h w"], layer: str, channels: Sequence[int], *, count: int = 5
) -> list[list[Patch]]:
    """For each channel the `count` images of `x` that excite it most, highest first, and where they do.

    The box is where the gradient of that one activation is not zero: the pixels it depends on, which is the receptive
    field, cut by the image's border and by units that are switched off. Cost: a forward pass of `x`, and a
    forward-and-backward pass of `count` images a channel, of which the forward one is shared by channels that follow each
    other and are excited by the same images.
    """
    count = min(count, len(x))
    scores = neurons.scores(model, x, [layer]).of[layer]
    if len(channels) and not 0 <= min(channels) <= max(channels) < scores.shape[1]:
        raise ValueError(f"channels {sorted(channels)} of layer {layer!r}, which has {scores.shape[1]}")
    if not count:
        return [[] for _ in channels]
    found: list[list[Patch]] = []
    shown: list[int] = []  # what the maps below are of: where there are few images, all channels share one pass
    with hooks.frozen(model), torch.enable_grad():
        for channel in channels:
            best = scores[:, channel].sort(descending=True, stable=True)[1][:count].tolist()
            if sorted(best) != shown:
                shown = sorted(best)
                chosen = x[shown].detach().requires_grad_()
                with hooks.capture(model, [layer], cut=False) as seen:
                    model(chosen)
                reach.check_below(model, chosen, seen[layer], layer)
            value, _ = seen[layer][:, channel].flatten(1).max(1)
            (gradient,) = torch.autograd.grad(value.sum(), chosen, retain_graph=True)
            places = [shown.index(i) for i in best]
            found.append([Patch(i, float(value[k].detach()), _box(gradient[k])) for i, k in zip(best, places, strict=True)])
    return found


def _box(gradient: Tensor) -> tuple[int, int, int, int]:
    """The smallest box around what is not zero, (C, H, W); the whole image where everything is."""
    used = (gradient != 0).any(0)
    rows, columns = used.any(1).nonzero()[:, 0].tolist(), used.any(0).nonzero()[:, 0].tolist()
    if not rows:
        return 0, 0, gradient.shape[1], gradient.shape[2]
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def cut(x: Float[Tensor, "c h w"], box: tuple[int, int, int, int], size: int) -> Float[Tensor, "c size size"]:
    """The part (C, H, W) in a box, enlarged to `size` pixels a side by nearest pixels; zeros keep its shape."""
    top, left, bottom, right = box
    part = x[:, top:bottom, left:right]
    side = max(part.shape[1:])
    missing = (side - part.shape[2], side - part.shape[1])
    part = F.pad(part, (missing[0] // 2, missing[0] - missing[0] // 2, missing[1] // 2, missing[1] - missing[1] // 2))
    return F.interpolate(part[None], size=(size, size), mode="nearest")[0]
