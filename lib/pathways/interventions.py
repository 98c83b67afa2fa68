r"""Neurons clamped to what they are without the attack: whether they carry it (Pearl 2009, do-operator; Geiger et al. 2021,
arXiv:2106.02997, interchange interventions).

That a neuron is excited under attack does not say that the attack needs it. An intervention does: of an attacked image x' the
network is run with the maps of chosen channels replaced by those of the clean image x,

    a_l <- m_l a_l(x) + (1 - m_l) a_l,    m_l in {0, 1}^C,

in one layer or in several at once, where a_l is what the layer puts out after whatever was replaced below it. An attack that
fails then was carried by these channels. With every channel of a layer clamped that all paths lead through, the network sees
the clean image; with none, the attacked one. Any channels undo something when enough of them are clamped, so as many others
stand beside them: drawn at random (`drawn`), or those that the attack excites most (`most_excited`).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lib.data import checks
from lib.networks import contract, hooks
from lib.pathways import neurons

Channels = Mapping[str, Bool[Tensor, "n c"]]  # by layer: which of its channels are clamped, for each image


@torch.no_grad()
def clamped(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    clean: Float[Tensor, "n c h w"],
    sets: Sequence[Channels],
    *,
    batch_size: int | None = None,
) -> Float[Tensor, "sets n classes"]:
    """Logits of images `x` while the channels of each set, by layer and image, hold the maps of the images `clean`.

    `x` and `clean` (N, C, H, W) in [0, 1] are attacked and clean, in one order. A set names layers that put out maps, and of
    each the channels (N, C) of every image; its layers are clamped at once. An empty set clamps nothing.

    Cost: a forward pass of the clean images, and one of the attacked images for each set. Raises ValueError for images outside
    [0, 1] or that do not match, masks of another shape or kind, and layers as `scores`.
    """
    x, clean = checks.check_images(x), checks.check_images(clean)
    if x.shape != clean.shape:
        raise ValueError(f"attacked images have shape {tuple(x.shape)}, clean ones {tuple(clean.shape)}; each needs its own")
    layers = list(dict.fromkeys(n for one in sets for n in one))
    found: list[list[Tensor]] = [[] for _ in sets]
    with hooks.frozen(model):
        for part in torch.arange(len(x), device=x.device).split(batch_size or neurons.rows_of(x)):
            with hooks.capture(model, layers, cut=False) as own:
                contract.check_logits(model, contract.logits_of(model, clean[part]))
            for logits, one in zip(found, sets, strict=True):
                masks = {n: _mask(n, one[n], own[n], part, len(x)) for n in one}
                with hooks.capture(model, list(one), cut=False, instead=_exchange(masks, own)):
                    logits.append(contract.logits_of(model, x[part]))
                contract.check_logits(model, logits[-1])
    return torch.stack([torch.cat(logits) for logits in found])


def _exchange(masks: dict[str, Tensor], clean: dict[str, Tensor]) -> Callable[[str, Tensor], Tensor]:
    return lambda name, maps: torch.where(masks[name], clean[name], maps)


def _mask(name: str, mask: Tensor, maps: Tensor, part: Tensor, n: int) -> Tensor:
    """Of a batch, (N, C, 1, 1)."""
    if mask.dtype != torch.bool or mask.shape != (n, maps.shape[1]):
        raise ValueError(
            f"channels of layer {name!r} are {mask.dtype} {tuple(mask.shape)}; expected bool, a row an image and a column a "
            f"channel: {(n, maps.shape[1])}"
        )
    return mask.to(maps.device)[part, :, None, None]


def chosen(channels: Sequence[int], width: int, images: int) -> Bool[Tensor, "n c"]:
    """The same channels of every image. Raises ValueError for one that a layer of that width does not have."""
    if any(not 0 <= c < width for c in channels):
        raise ValueError(f"channels {tuple(channels)} of a layer that has {width}; they go from 0 to {width - 1}")
    found = torch.zeros(images, width, dtype=torch.bool)
    found[:, list(channels)] = True
    return found


def drawn(count: int, width: int, images: int, generator: torch.Generator) -> Bool[Tensor, "n c"]:
    """So many channels at random, drawn anew for each image. Raises ValueError for more than there are."""
    if not 0 <= count <= width:
        raise ValueError(f"{count} channels of a layer that has {width}; draw from 0 to {width}")
    return torch.rand(images, width, generator=generator).argsort(1).argsort(1) < count


def most_excited(clean: Float[Tensor, " c"], attacked: Float[Tensor, " c"], count: int) -> tuple[int, ...]:
    """The `count` channels whose medians (C,) rise most under the attack, the highest first."""
    return tuple(neurons.top(neurons.change(attacked, clean, "excited"), count).tolist()) if count else ()
