"""Study 0 on a published network and photographs: pictures of two things, a targeted attack, and whether what is marked counts.

Photographs have no masks. Whose half of a picture a map lies on is known where the picture is put together from two; and
what a map says of the decision is tested by its own words: take away what it marks, and look at the decision again.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lib.attacks import projected, single_step
from lib.attacks.steps import AttackResult
from lib.claims import warned
from lib.data.image_sets import ImageSet
from lib.explanations import activation_maps
from lib.measures import comparison
from lib.networks import contract

SHARE = 0.25  # of a picture that is taken away, at most
DRAWS = 4  # regions of the same size elsewhere
BATCH = 8

Keep = Callable[[str, float, Tensor], None]  # (measure, level, a value an image)


class Pairs(NamedTuple):
    """Photographs side by side, (n, C, H, 2 W), and which stand left and right, (n, 2)."""

    images: Float[Tensor, "n c h w"]
    both: Int[Tensor, "n 2"]


def side_by_side(data: ImageSet) -> Iterator[Pairs]:
    """Each photograph in one picture, with the one half the set away, left and right in turn; in batches.

    Pairs of one class are left out. Raises ValueError where no two photographs are of different classes.
    """
    half = len(data) // 2
    found = [(i, i + half) if i % 2 == 0 else (i + half, i) for i in range(half) if data.labels[i] != data.labels[i + half]]
    if not found:
        raise ValueError(f"{data.name}: its {len(data)} photographs make no pair of different classes; ask for more pictures")
    for both in torch.tensor(found).split(BATCH):
        yield Pairs(torch.cat([data.images[both[:, 0]], data.images[both[:, 1]]], 3), both)


def strongest(maps: Float[Tensor, "n h w"], share: float = SHARE) -> Bool[Tensor, "n h w"]:
    """Where a map is largest: `share` of its positions, and only such as are above zero."""
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
    """As much of each photograph at another place: what a region has of either half is moved within that half, round its
    edges, by a step drawn at random from those that overlap it least."""
    cut = region.shape[-1] // 2
    return torch.stack([torch.cat([_moved(r[:, :cut], generator), _moved(r[:, cut:], generator)], 1) for r in region])


def _moved(part: Tensor, generator: torch.Generator) -> Tensor:
    steps = [s for s in itertools.product(*map(range, part.shape)) if s != (0, 0)]
    overlap = torch.tensor([int((part.roll(s, (0, 1)) & part).sum()) for s in steps])
    least = (overlap == overlap.min()).nonzero()[:, 0]
    return part.roll(steps[int(least[int(torch.randint(len(least), (), generator=generator))])], (0, 1))


@torch.no_grad()
def _evidence(model: nn.Module, x: Tensor, classes: Tensor) -> dict[str, Tensor]:
    """What a network thinks of classes, (N,) each: their scores, which maps explain, and the logarithms of their
    probabilities."""
    logits = contract.logits_of(model, x)
    return {name: v.gather(1, classes[:, None])[:, 0] for name, v in (("score", logits), ("log", logits.log_softmax(1)))}


def two_in_one(
    model: nn.Module, layers: Mapping[str, str], data: ImageSet, generator: torch.Generator
) -> dict[str, Float[Tensor, " n"]]:
    """Of each picture of two photographs, the mean over its two classes (NaN where both maps are empty).

    `two/SIGN`: the share of the map's mass on the class's own half, at the last of the layers; `two/positive/middle` at the
    middle one. `removal/SIGN/EVIDENCE`: by how much the class's score, and its log-probability (`log`), grow once what the map
    marks is taken away (`strongest`); `removal/SIGN/EVIDENCE/elsewhere`: the same of regions `elsewhere`. SIGN is positive
    (for the class) or counterfactual (against it).
    """
    where = next(model.parameters()).device
    found: dict[str, list[Tensor]] = {}
    for images, both in side_by_side(data):
        x, classes = images.to(where), data.labels[both].to(where)
        maps = activation_maps.gradcams(model, x, classes, list(layers.values()), sign="signed").maps
        sides: list[dict[str, Tensor]] = []
        for side in (0, 1):
            y, own = classes[:, side], maps[layers["last"]][:, side]
            before = _evidence(model, x, y)
            middle = maps[layers["middle"]][:, side].relu()
            values = {"two/positive/middle": _on_half(middle, side, x.shape[-2:])}
            for sign, shown in (("positive", own.relu()), ("counterfactual", (-own).relu())):
                marked = strongest(shown)
                empty = ~marked.flatten(1).any(1)
                values[f"two/{sign}"] = _on_half(shown, side, x.shape[-2:])
                regions = {"": [marked], "/elsewhere": [elsewhere(marked, generator) for _ in range(DRAWS)]}
                for suffix, taken in regions.items():
                    after = [_evidence(model, without(x, region), y) for region in taken]
                    for kind, value in before.items():
                        grown = torch.stack([a[kind] for a in after]).mean(0) - value
                        values[f"removal/{sign}/{kind}{suffix}"] = grown.masked_fill(empty, torch.nan)
            sides.append(values)
        for name in sides[0]:
            found.setdefault(name, []).append(torch.stack([s[name] for s in sides]).nanmean(0).cpu())
    return {name: torch.cat(parts) for name, parts in found.items()}


def _on_half(maps: Tensor, side: int, size: tuple[int, int]) -> Tensor:
    """The share of a map's mass on the left (0) or right (1) half of its picture, NaN where the map is empty."""
    left = torch.arange(size[1], device=maps.device) < size[1] // 2
    big = activation_maps.upsample(maps, tuple(size))
    return comparison.overlap(big, (left if side == 0 else ~left).expand_as(big), "energy")


def under_attack(
    model: nn.Module, layer: str, data: ImageSet, aim: int, radii: tuple[float, ...], steps: int, keep: Keep
) -> None:
    """Every photograph attacked towards one class, and with random signs of the same size: whether it gets there (NaN where
    it shows that class, or is taken for it as it is), and how far the map of the true class moves."""
    where = next(model.parameters()).device
    for index in torch.arange(len(data)).split(BATCH):
        x, y = data.images[index].to(where), data.labels[index].to(where)
        clean = activation_maps.gradcam(model, x, y, layer)
        keep("right", 0, (clean.logits.argmax(1) == y).float())
        there = (y == aim) | (clean.logits.argmax(1) == aim)
        draw = single_step.random_sign(x, torch.Generator().manual_seed(int(index[0])))
        before = activation_maps.upsample(activation_maps.normalise(clean.values), x.shape[-1])
        for eps in radii:
            attacked = towards(model, x, aim, eps, steps, int(index[0]))
            warned.tell("published network, photographs", "PGD towards one class", eps, attacked.warnings)
            for name, images in (("attack", attacked.x_adv), ("noise", single_step.step_along(x, draw, eps))):
                maps = activation_maps.gradcam(model, images, y, layer)
                after = activation_maps.upsample(activation_maps.normalise(maps.values), x.shape[-1])
                keep(f"reached/{name}", eps, (maps.logits.argmax(1) == aim).float().masked_fill(there, torch.nan))
                keep(f"nissim/{name}", eps, comparison.nissim(before, after))


def attacked_towards(model: nn.Module, x: Tensor, aim: int, eps: float, steps: int, seed: int = 0) -> Tensor:
    """Images moved towards a class by PGD; where they stand at the end, whether the network falls for it or not."""
    return towards(model, x, aim, eps, steps, seed).x_adv


def towards(model: nn.Module, x: Tensor, aim: int, eps: float, steps: int, seed: int = 0) -> AttackResult:
    """The same, with what the attack warns of."""
    targets, generator = torch.full((len(x),), aim, device=x.device), torch.Generator().manual_seed(seed)
    return projected.pgd(model, x, targets, eps=eps, steps=steps, targeted=True, judge=False, generator=generator)
