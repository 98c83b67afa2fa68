"""Study 0 on a published network and photographs: pictures of two things, a targeted attack, and whether what is marked counts.

Photographs have no masks. Whose half of a picture a map lies on is known where the picture is put together from two; and
what a map says of the decision is tested by its own words: take away what it marks, and look at the decision again.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lib.attacks import projected, single_step
from lib.data.image_sets import ImageSet
from lib.explanations import activation_maps
from lib.measures import comparison
from lib.networks import contract

PARTNERS = 2  # photographs that each one is joined with, beside those that it is a partner of
SHARE = 0.25  # of a picture that is taken away
DRAWS = 2  # regions of the same size and form elsewhere
BATCH = 8


class Pairs(NamedTuple):
    """Photographs side by side, (n, C, H, 2 W), and which stand left and right, (n, 2)."""

    images: Float[Tensor, "n c h w"]
    both: Int[Tensor, "n 2"]


def side_by_side(data: ImageSet, partners: int = PARTNERS) -> Iterator[Pairs]:
    """Each photograph with the next ones of another class, in a circle, left and right in turn; in batches."""
    n = len(data)
    found = [(i, (i + step) % n) for step in range(1, partners + 1) for i in range(n)]
    found = [(a, b) if k % 2 else (b, a) for k, (a, b) in enumerate(found) if data.labels[a] != data.labels[b]]
    for both in torch.tensor(found).split(BATCH):
        yield Pairs(torch.cat([data.images[both[:, 0]], data.images[both[:, 1]]], 3), both)


def strongest(maps: Float[Tensor, "n h w"], share: float = SHARE) -> Bool[Tensor, "n h w"]:
    """Where a map is largest: `share` of its positions. Of a map that is zero in more than the rest, those above zero."""
    flat = maps.flatten(1)
    count = max(1, round(share * flat.shape[1]))
    index = flat.topk(count, 1).indices
    return (torch.zeros_like(flat, dtype=torch.bool).scatter(1, index, True) & (flat > 0)).view_as(maps)


def without(x: Float[Tensor, "n c h w"], region: Bool[Tensor, "n a b"]) -> Float[Tensor, "n c h w"]:
    """Images without what a region shows: it is replaced by the image's means over the positions of the map, smoothed."""
    blurred = F.interpolate(F.adaptive_avg_pool2d(x, region.shape[-2:]), x.shape[-2:], mode="bilinear", align_corners=False)
    mask = F.interpolate(region[:, None].to(x), x.shape[-2:], mode="nearest")
    return x + mask * (blurred - x)


def elsewhere(region: Bool[Tensor, "n a b"], generator: torch.Generator) -> Bool[Tensor, "n a b"]:
    """Regions of the same size and form at another place: each is moved by a step drawn at random, round the edges."""
    height, width = region.shape[-2:]
    steps = 1 + torch.randint(height * width - 1, (len(region),), generator=generator)
    moved = [r.roll((int(s) // width, int(s) % width), (0, 1)) for r, s in zip(region, steps, strict=True)]
    return torch.stack(moved)


@torch.no_grad()
def _evidence(model: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """Log-probabilities of classes, (N,)."""
    return contract.logits_of(model, x).log_softmax(1).gather(1, classes[:, None])[:, 0]


def two_in_one(
    model: nn.Module, layers: Mapping[str, str], data: ImageSet, generator: torch.Generator
) -> dict[str, Float[Tensor, " n"]]:
    """Of each photograph, the mean over its pairs (NaN where its maps are empty).

    `two/SIGN`: the share of the map's mass on the photograph's own half, at the last of the layers; `two/positive/middle` at
    the middle one. `removal/SIGN`: by how much the log-probability of
    its class grows once the SHARE that the map marks is taken away; `removal/SIGN/elsewhere`: the same of regions elsewhere.
    SIGN is positive (for the class) or counterfactual (against it).
    """
    where = next(model.parameters()).device
    found: dict[str, list[tuple[int, float]]] = {}
    for images, both in side_by_side(data):
        x, classes = images.to(where), data.labels[both].to(where)
        maps = activation_maps.gradcams(model, x, classes, list(layers.values()), sign="signed").maps
        signed, middle = maps[layers["last"]], maps[layers["middle"]]
        for side in (0, 1):
            y, own = classes[:, side], signed[:, side]
            before = _evidence(model, x, y)
            values = {"two/positive/middle": _on_half(middle[:, side].relu(), side)}
            for sign, shown in (("positive", own.relu()), ("counterfactual", (-own).relu())):
                marked = strongest(shown)
                empty = ~marked.flatten(1).any(1)
                grown = _evidence(model, without(x, marked), y) - before
                others = [_evidence(model, without(x, elsewhere(marked, generator)), y) - before for _ in range(DRAWS)]
                values |= {
                    f"two/{sign}": _on_half(shown, side),
                    f"removal/{sign}": grown.masked_fill(empty, torch.nan),
                    f"removal/{sign}/elsewhere": torch.stack(others).mean(0).masked_fill(empty, torch.nan),
                }
            for name, each in values.items():
                found.setdefault(name, []).extend(zip(both[:, side].tolist(), each.cpu().tolist(), strict=True))
    return {name: _means(pairs, len(data)) for name, pairs in found.items()}


def _on_half(maps: Tensor, side: int) -> Tensor:
    """The share of a map's mass on the left (0) or right (1) half, NaN where the map is empty."""
    left = torch.arange(maps.shape[-1], device=maps.device) < maps.shape[-1] // 2
    return comparison.overlap(maps, (left if side == 0 else ~left).expand_as(maps), "energy")


def _means(pairs: list[tuple[int, float]], n: int) -> Tensor:
    index, values = torch.tensor([i for i, _ in pairs]), torch.tensor([v for _, v in pairs])
    return torch.stack([values[index == i].nanmean() for i in range(n)])


Keep = Callable[[str, float, Tensor], None]


def under_attack(
    model: nn.Module, layer: str, data: ImageSet, aim: int, radii: tuple[float, ...], steps: int, keep: Keep
) -> None:
    """Every photograph attacked towards one class, and with random signs of the same size: whether it gets there, and how far
    the map of the true class moves."""
    where = next(model.parameters()).device
    for index in torch.arange(len(data)).split(BATCH):
        x, y = data.images[index].to(where), data.labels[index].to(where)
        clean = activation_maps.gradcam(model, x, y, layer)
        keep("right", 0, (clean.logits.argmax(1) == y).float())
        draw = single_step.random_sign(x, torch.Generator().manual_seed(int(index[0])))
        before = activation_maps.upsample(activation_maps.normalise(clean.values), x.shape[-1])
        for eps in radii:
            attacked = attacked_towards(model, x, aim, eps, steps, int(index[0]))
            for name, images in (("attack", attacked), ("noise", single_step.step_along(x, draw, eps))):
                maps = activation_maps.gradcam(model, images, y, layer)
                after = activation_maps.upsample(activation_maps.normalise(maps.values), x.shape[-1])
                keep(f"reached/{name}", eps, (maps.logits.argmax(1) == aim).float())
                keep(f"nissim/{name}", eps, comparison.nissim(before, after))


def attacked_towards(model: nn.Module, x: Tensor, aim: int, eps: float, steps: int, seed: int = 0) -> Tensor:
    """Images moved towards a class by PGD; where they stand at the end, whether the network falls for it or not."""
    targets, generator = torch.full((len(x),), aim, device=x.device), torch.Generator().manual_seed(seed)
    return projected.pgd(model, x, targets, eps=eps, steps=steps, targeted=True, judge=False, generator=generator).x_adv
