"""Study 0, the Grad-CAM tour: CAM and Grad-CAM, two classes, two layers, with and without ReLU, two objects, under attack.

Selvaraju et al. 2017 beside Zhou et al. 2016. For each network: how far CAM and Z times Grad-CAM are from being one; how
much of each map lies on the object, at a middle and at the last layer; on images of two objects, how much of either class's
map and of its counterfactual lies on either object; the same under a targeted attack and under noise of the same size; and
whether the network goes by shape or by texture where they disagree.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Literal

import pandas as pd
import torch
from pydantic import Field, model_validator
from torch import Tensor

from lib import attacks, cam, datasets, metrics, models, mosaics, profiles, training, zoo
from lib.cubes import rows

FAMILY = {"plain": "plain (VGG-like)", "residual": "residual"}
LEVELS = ("middle", "last")
MIDDLE = {"vgg16": "features.25"}  # of the presentation, beside features.29
Positive = Annotated[float, Field(gt=0)]


class Parameters(profiles.Parameters):
    """What the study varies; the defaults are the laptop profile."""

    dataset: Annotated[str, Field(description="any name that lib.datasets.load knows")] = "shapes"
    size: Annotated[int, Field(ge=16, description="image size, pixels")] = 32
    channels: Annotated[Literal[1, 3], Field(description="1 grey, 3 colour")] = 3
    architectures: Annotated[tuple[str, ...], Field(min_length=1)] = ("plain", "residual")
    seeds: Annotated[int, Field(ge=1, description="networks trained for each architecture")] = 3
    epochs: Annotated[int, Field(ge=0, description="0: published weights as they are")] = 8
    train_images: Annotated[int | None, Field(ge=1, description="None: all there are")] = 2000
    batch_size: Annotated[int, Field(ge=2, description="images in a training step")] = 64
    learning_rate: Annotated[float, Field(gt=0, description="peak of the schedule")] = 0.1
    augment: Annotated[tuple[training.Augmentation, ...], Field(description="of training images")] = ("flip",)
    weights: Annotated[Literal["none", "imagenet"], Field(description="start from random or published weights")] = "none"
    images: Annotated[int, Field(ge=8, description="test images")] = 200
    first: Annotated[str, Field(description="a class, of the images of two objects")] = "star/print"
    second: Annotated[str, Field(description="the other one")] = "ring/stars"
    eps: Annotated[tuple[Positive, ...], Field(min_length=1, description="radii of the attack, [0,1] pixels, L-infinity")] = (
        0.01, 0.03, 0.06,
    )  # fmt: skip
    steps: Annotated[int, Field(ge=1, description="of the targeted attack")] = 20

    @model_validator(mode="after")
    def _fits(self) -> "Parameters":
        if self.first == self.second:
            raise ValueError(f"first and second are both {self.first!r}; two different classes make an image of two objects")
        if list(self.eps) != sorted(set(self.eps)):
            raise ValueError(f"eps {self.eps}: in ascending order, each once")
        return self


def networks(p: Parameters) -> list[training.TrainConfig]:
    """Every network the study needs, architecture by architecture; on `shapes` those of study 1."""
    return [
        training.TrainConfig(
            dataset=p.dataset, size=p.size, channels=p.channels, limit=p.train_images, arch=arch, weights=p.weights,
            seed=seed, epochs=p.epochs, batch_size=p.batch_size, lr=p.learning_rate, augment=p.augment,
        )
        for arch in p.architectures
        for seed in range(p.seeds)
    ]  # fmt: skip


def network(p: Parameters, arch: str, seed: int) -> training.Trained:
    return training.trained(next(c for c in networks(p) if (c.arch, c.seed) == (arch, seed)), device_name=p.device)


def layers_of(model: models.Classifier, arch: str) -> dict[str, str]:
    """The middle and the last layer, by LEVELS: stages, or what the presentation compares."""
    return {"middle": MIDDLE.get(arch, model.stages[-2]), "last": model.stages[-1]}


@functools.lru_cache(maxsize=4)
def evaluation_set(p: Parameters, name: str = "") -> datasets.ImageSet:
    return datasets.load(name or p.dataset, "test", size=p.size, channels=p.channels, limit=p.images)


@functools.lru_cache(maxsize=2)
def two_objects(p: Parameters) -> mosaics.Mosaics:
    """Images of two objects: 2 x 2 mosaics of images of the two classes, each on a diagonal."""
    data = evaluation_set(p)
    missing = [c for c in (p.first, p.second) if c not in data.classes]
    if missing:
        raise ValueError(f"{missing[0]!r} is none of the classes {', '.join(data.classes)}; set first and second")
    pair = (data.classes.index(p.first), data.classes.index(p.second))
    whole = datasets.load(p.dataset, "test", size=p.size, channels=p.channels)  # a few images may show neither class
    return mosaics.mosaics(whole, pair, max(8, p.images // 2), seed=0)


def other_class(y: Tensor, classes: int) -> Tensor:
    """The class that an attack aims at: the next one, in a circle; another for every class, none by choice."""
    return (y + 1) % classes


def head_of(arch: str) -> str:
    """The linear layer that ends a network."""
    return zoo.NETWORKS[arch].head if arch in zoo.NETWORKS else "head"


def on_object(maps: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The share of a map's mass that lies on an object, and whether its peak does; maps >= 0 (N, h, w), masks (N, H, W).

    Maps are enlarged but not scaled. One that is empty has neither mass nor peak: NaN.
    """
    big, mask = cam.upsample(maps, mask.shape[-1]), mask.to(maps)
    energy, peak = (metrics.overlap(big, mask, how) for how in ("energy", "pointing"))  # type: ignore[arg-type]
    return {"energy": energy, "pointing": torch.where(energy.isnan(), torch.nan, peak)}


def identity(model: models.Classifier, x: Tensor, y: Tensor, head: str = "head") -> dict[str, Tensor]:
    """How far the two sides of each identity are apart, relative to the largest value, (N,).

    `cam`: CAM and Z times the signed Grad-CAM at the last layer, where CAM is defined (average pooling, then `head`);
    `sum`: the signed map and the positive one minus the counterfactual one; `product`: the positive times the
    counterfactual one, which is 0; `softmax`: how far the map of the probability, scaled alike, is from that of the logit.
    """
    layer = model.stages[-1]
    found = {s: cam.gradcam(model, x, y, layer, sign=s).maps[layer] for s in ("positive", "signed")}
    # from its definition: Grad-CAM of the negated score
    against = cam.gradcam(_Changed(model, torch.neg), x, y, f"net.{layer}").maps[f"net.{layer}"]

    def largest(maps: Tensor) -> Tensor:
        return maps.abs().amax((1, 2))

    try:
        weighed = cam.cam(model, x, y, layer, head=head).maps[layer]
        apart = {"cam": largest(weighed - weighed[0].numel() * found["signed"]) / largest(weighed)}
    except ValueError:  # a head of several layers, as VGG-16's
        apart = {}
    of_probability = cam.gradcam(_Changed(model, _softmax), x, y, f"net.{layer}", sign="signed").maps[f"net.{layer}"]
    unit = [m / largest(m).clamp_min(torch.finfo(m.dtype).tiny).view(-1, 1, 1) for m in (of_probability, found["signed"])]
    return apart | {
        "sum": largest(found["signed"] - (found["positive"] - against)) / largest(found["signed"]),
        "product": largest(found["positive"] * against) / largest(found["signed"]) ** 2,
        # where float32 has no gradient of the probability left there is no map to compare
        "softmax": torch.where(largest(of_probability) > 0, largest(unit[0] - unit[1]), torch.nan),
    }


class _Changed(torch.nn.Module):
    """A network with another last step: what is explained is a function of its scores."""

    def __init__(self, model: models.Classifier, last: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.last = model, last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.net(x))


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(1)


BATCH = 50


def measure(p: Parameters, arch: str, seed: int) -> pd.DataFrame:
    """Everything about one network: rows (arm, seed, image_id, measure, level, value), the arm is the architecture."""
    model, data = network(p, arch, seed).model, evaluation_set(p)
    where = next(model.parameters()).device
    found: dict[tuple[str, float], list[Tensor]] = {}

    def keep(measure: str, level: float, values: Tensor) -> None:
        found.setdefault((measure, level), []).append(values.detach().float().cpu())

    for part in torch.arange(len(data)).split(BATCH):
        mask = None if data.masks is None else data.masks[part].to(where)
        _single(model, p, arch, data.images[part].to(where), data.labels[part].to(where), mask, int(part[0]), keep)
    pair = two_objects(p)
    for images, on_first in zip(pair.images.split(BATCH // 4), pair.first.split(BATCH // 4), strict=True):
        _two_objects(model, p, images.to(where), on_first.to(where), keep)
    if p.dataset == "shapes":
        conflict = evaluation_set(p, "shapes-conflict")
        decided = training.predictions(model, conflict.images[:])
        for cue in ("shape", "texture"):
            keep(f"by/{cue}", 0, (decided == conflict.attributes[cue]).float())
    tables = [rows(arch, seed, name, level, torch.cat(values)) for (name, level), values in found.items()]
    return pd.concat(tables, ignore_index=True)


Keep = Callable[[str, float, Tensor], None]


def _single(
    model: models.Classifier, p: Parameters, arch: str, x: Tensor, y: Tensor, mask: Tensor | None, first: int, keep: Keep
) -> None:
    """Images of one object: identities, where maps lie, what an attack and noise make of them."""
    layers = layers_of(model, arch)
    for name, values in identity(model, x, y, head_of(arch)).items():
        keep(f"identity/{name}", 0, values)
    clean = cam.gradcam(model, x, y, list(layers.values()), sign="signed")
    keep("right", 0, (clean.logits.argmax(1) == y).float())
    if mask is not None:
        keep("area", 0, mask.flatten(1).float().mean(1))
        for level, layer in layers.items():
            for how, values in on_object(clean.maps[layer].relu(), mask).items():
                keep(f"{how}/{level}", 0, values)
    last = layers["last"]
    aimed = other_class(y, clean.logits.shape[1])
    draw = attacks.random_sign(x, torch.Generator().manual_seed(first))
    for eps in p.eps:
        generator = torch.Generator().manual_seed(first)
        attacked = attacks.pgd(model, x, aimed, eps=eps, steps=p.steps, targeted=True, judge=False, generator=generator).x_adv
        for name, images in (("attack", attacked), ("noise", attacks.step_along(x, draw, eps))):
            maps = cam.gradcam(model, images, y, last)
            keep(f"reached/{name}", eps, (maps.logits.argmax(1) == aimed).float())
            before, after = (cam.upsample(cam.normalise(m), p.size) for m in (clean.maps[last].relu(), maps.maps[last]))
            keep(f"nissim/{name}", eps, metrics.nissim(before, after))
            if mask is not None:
                for how, values in on_object(maps.maps[last], mask).items():
                    keep(f"{how}/{name}", eps, values)


def _two_objects(model: models.Classifier, p: Parameters, x: Tensor, on_first: Tensor, keep: Keep) -> None:
    """How much of the map of each class, and of its counterfactual, lies on the class's own objects."""
    classes, layer = evaluation_set(p).classes, model.stages[-1]
    for word, name, own in (("first", p.first, on_first), ("second", p.second, ~on_first)):
        signed = cam.gradcam(model, x, classes.index(name), layer, sign="signed").maps[layer]
        for sign, maps in (("positive", signed.relu()), ("counterfactual", (-signed).relu())):
            keep(f"two/{sign}/{word}", 0, on_object(maps, own)["energy"])
