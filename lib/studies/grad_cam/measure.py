"""Study 0: identities, where maps lie, and what an attack makes of them, a row an image and measure."""

from collections.abc import Callable

import pandas as pd
import torch
from torch import Tensor

from lib.attacks import projected, single_step
from lib.claims import warned
from lib.claims.rows import rows
from lib.data import datasets
from lib.explanations import activation_maps
from lib.measures import comparison
from lib.networks import classifier
from lib.studies.grad_cam import photo
from lib.studies.grad_cam.plan import (
    Parameters,
    evaluation_set,
    head_of,
    layers_of,
    network,
    photo_set,
    published_network,
    two_objects,
)
from lib.system import devices
from lib.training import evaluate


def other_class(y: Tensor, classes: int) -> Tensor:
    """The class that an attack aims at: the next one, in a circle; another for every class, none by choice."""
    return (y + 1) % classes


def on_object(maps: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The share of a map's mass that lies on an object, and whether its peak does; maps >= 0 (N, h, w), masks (N, H, W).

    Maps are enlarged but not scaled. One that is empty has neither mass nor peak: NaN.
    """
    big, mask = activation_maps.upsample(maps, mask.shape[-1]), mask.to(maps)
    return {"energy": comparison.overlap(big, mask), "pointing": comparison.overlap(big, mask, "pointing")}


def identity(model: classifier.Classifier, x: Tensor, y: Tensor, head: str = "head") -> dict[str, Tensor]:
    """How far the two sides of each identity are apart, relative to the largest value, (N,).

    `cam`: CAM and Z times the signed Grad-CAM at the last layer, where CAM is defined (average pooling, then `head`);
    `sum`: the signed map and the positive one minus the counterfactual one; `product`: the positive times the
    counterfactual one, which is 0; `softmax`: how far the map of the probability, scaled alike, is from that of the logit.
    """
    layer = model.stages[-1]
    found = {s: activation_maps.gradcam(model, x, y, layer, sign=s).values for s in ("positive", "signed")}
    # from its definition: Grad-CAM of the negated score
    against = activation_maps.gradcam(_Changed(model, torch.neg), x, y, f"net.{layer}").values

    def largest(maps: Tensor) -> Tensor:
        return maps.abs().amax((1, 2))

    try:
        weighed = activation_maps.cam(model, x, y, layer, head=head).values
        apart = {"cam": largest(weighed - weighed[0].numel() * found["signed"]) / largest(weighed)}
    except ValueError:  # a head of several layers, as VGG-16's
        apart = {}
    of_probability = activation_maps.gradcam(_Changed(model, _softmax), x, y, f"net.{layer}", sign="signed").values
    unit = [m / largest(m).clamp_min(torch.finfo(m.dtype).tiny).view(-1, 1, 1) for m in (of_probability, found["signed"])]
    return apart | {
        "sum": largest(found["signed"] - (found["positive"] - against)) / largest(found["signed"]),
        "product": largest(found["positive"] * against) / largest(found["signed"]) ** 2,
        # where float32 has no gradient of the probability left there is no map to compare
        "softmax": torch.where(largest(of_probability) > 0, largest(unit[0] - unit[1]), torch.nan),
    }


class _Changed(torch.nn.Module):
    """A network with another last step: what is explained is a function of its scores, probabilities too."""

    probabilities = True

    def __init__(self, model: classifier.Classifier, last: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.last = model, last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.net(x))


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(1)


BATCH = 50


class _Found:
    """Measures of one network as they come, a value an image, in batches."""

    def __init__(self, arm: str, seed: int, prefix: str = "") -> None:
        self.arm, self.seed, self.prefix = arm, seed, prefix
        self.values: dict[tuple[str, float], list[Tensor]] = {}

    def keep(self, measure: str, level: float, values: Tensor) -> None:
        self.values.setdefault((f"{self.prefix}{measure}", level), []).append(values.detach().float().cpu())

    def table(self) -> pd.DataFrame:
        each = [rows(self.arm, self.seed, name, level, torch.cat(parts)) for (name, level), parts in self.values.items()]
        return pd.concat(each, ignore_index=True)


def measure(p: Parameters, arch: str, seed: int) -> pd.DataFrame:
    """Everything about one network: rows (arm, seed, image_id, measure, level, value), the arm is the architecture.

    Measures of the published network on photographs begin with `photo/`.
    """
    if arch == p.published:
        return _published(p)
    model, data = network(p, arch, seed).model, evaluation_set(p)
    where = next(model.parameters()).device
    found = _Found(arch, seed)
    keep = found.keep
    rows = devices.images_at_once(p.size, BATCH)
    for part in torch.arange(len(data)).split(rows):
        mask = None if data.masks is None else data.masks[part].to(where)
        _single(model, p, arch, seed, data.images[part].to(where), data.labels[part].to(where), mask, int(part[0]), keep)
    pair = two_objects(p)
    rows = devices.images_at_once(pair.images.shape[-1], BATCH // 4)
    for images, on_first in zip(pair.images.split(rows), pair.first.split(rows), strict=True):
        _two_objects(model, p, images.to(where), on_first.to(where), keep)
    if datasets.has_cue_conflict(p.dataset):
        conflict = evaluation_set(p, f"{p.dataset}-conflict")
        decided = evaluate.predictions(model, conflict.images[:])
        for cue in ("shape", "texture"):
            keep(f"by/{cue}", 0, (decided == conflict.attributes[cue]).float())
    return found.table()


def _published(p: Parameters) -> pd.DataFrame:
    """The published network, an image being a photograph."""
    model, data = published_network(p), photo_set(p, p.pictures)
    layers, where = layers_of(model, p.published), next(model.parameters()).device
    found = _Found(p.published, 0, "photo/")
    keep = found.keep
    for index in torch.arange(len(data)).split(photo.BATCH):
        x, y = data.images[index].to(where), data.labels[index].to(where)
        for name, values in identity(model, x, y, head_of(p.published)).items():
            keep(f"identity/{name}", 0, values)
    for name, values in photo.two_in_one(model, layers, data, torch.Generator().manual_seed(0)).items():
        keep(name, 0, values)
    photo.under_attack(model, layers["last"], data, data.classes.index(p.aim), p.radii, p.steps, keep)
    return found.table()


def _single(
    model: classifier.Classifier,
    p: Parameters,
    arch: str,
    seed: int,
    x: Tensor,
    y: Tensor,
    mask: Tensor | None,
    first: int,
    keep: photo.Keep,
) -> None:
    """Images of one object: identities, where maps lie, what an attack and noise make of them."""
    layers = layers_of(model, arch)
    for name, values in identity(model, x, y, head_of(arch)).items():
        keep(f"identity/{name}", 0, values)
    clean = activation_maps.gradcams(model, x, y, list(layers.values()), sign="signed")
    keep("right", 0, (clean.logits.argmax(1) == y).float())
    if mask is not None:
        keep("area", 0, mask.flatten(1).float().mean(1))
        for level, layer in layers.items():
            for how, values in on_object(clean.maps[layer].relu(), mask).items():
                keep(f"{how}/{level}", 0, values)
    last = layers["last"]
    aimed = other_class(y, clean.logits.shape[1])
    draw = single_step.random_sign(x, torch.Generator().manual_seed(first))
    for eps in p.eps:
        generator = torch.Generator().manual_seed(first)
        attacked = projected.pgd(model, x, aimed, eps=eps, steps=p.steps, targeted=True, judge=False, generator=generator)
        warned.tell(f"{arch}, seed {seed}", "PGD towards another class", eps, attacked.warnings)
        for name, images in (("attack", attacked.x_adv), ("noise", single_step.step_along(x, draw, eps))):
            maps = activation_maps.gradcam(model, images, y, last)
            there = clean.logits.argmax(1) == aimed  # before any attack
            keep(f"reached/{name}", eps, (maps.logits.argmax(1) == aimed).float().masked_fill(there, torch.nan))
            before, after = (
                activation_maps.upsample(activation_maps.normalise(m), p.size) for m in (clean.maps[last].relu(), maps.values)
            )
            keep(f"nissim/{name}", eps, comparison.nissim(before, after))
            if mask is not None:
                for how, values in on_object(maps.values, mask).items():
                    keep(f"{how}/{name}", eps, values)


def _two_objects(model: classifier.Classifier, p: Parameters, x: Tensor, on_first: Tensor, keep: photo.Keep) -> None:
    """How much of the map of each class, and of its counterfactual, lies on the class's own objects."""
    classes, layer = evaluation_set(p).classes, model.stages[-1]
    for word, name, own in (("first", p.first, on_first), ("second", p.second, ~on_first)):
        signed = activation_maps.gradcam(model, x, classes.index(name), layer, sign="signed").values
        for sign, maps in (("positive", signed.relu()), ("counterfactual", (-signed).relu())):
            keep(f"two/{sign}/{word}", 0, on_object(maps, own)["energy"])
