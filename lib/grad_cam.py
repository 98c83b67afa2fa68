"""Study 0, the Grad-CAM tour: CAM and Grad-CAM, two classes, two layers, with and without ReLU, two objects, under attack.

Selvaraju et al. 2017 beside Zhou et al. 2016. For each network: how far CAM and Z times Grad-CAM are from being one; how
much of each map lies on the object, at a middle and at the last layer; on images of two objects, how much of either class's
map and of its counterfactual lies on either object; the same under a targeted attack and under noise of the same size; and
whether the network goes by shape or by texture where they disagree.
"""

import functools
from typing import Annotated, Literal

import pandas as pd
import torch
from pydantic import Field, model_validator
from torch import Tensor

from lib import attacks, cam, datasets, metrics, models, mosaics, profiles, training, zoo
from lib.cubes import rows

FAMILY = {"plain": "plain (VGG-like)", "residual": "residual"}
SIGNS: tuple[cam.Sign, ...] = ("positive", "counterfactual", "signed")
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
    return mosaics.mosaics(data, pair, max(8, p.images // 2), seed=0)


def other_class(y: Tensor, classes: int) -> Tensor:
    """The class that an attack aims at: the next one, in a circle; another for every class, none by choice."""
    return (y + 1) % classes


def enlarged(maps: Tensor, size: int) -> Tensor:
    """Maps >= 0, enlarged to the image without being scaled: mass is compared."""
    return cam.upsample(maps, size)


def on_object(maps: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The share of a map's mass that lies on an object, and whether its peak does; maps (N, h, w), masks (N, H, W)."""
    big = enlarged(maps, mask.shape[-1])
    return {how: metrics.overlap(big, mask.to(big), how) for how in ("energy", "pointing")}  # type: ignore[arg-type]


def identity(model: models.Classifier, x: Tensor, y: Tensor, head: str = "head") -> dict[str, Tensor]:
    """How far the two sides of each identity are apart, relative to the largest value, (N,).

    `cam`: CAM and Z times the signed Grad-CAM at the last layer, where CAM is defined (average pooling, then `head`);
    `sum`: the signed map and the positive one minus the counterfactual one; `product`: the positive times the
    counterfactual one, which is 0; `softmax`: how far the map of the probability, scaled alike, is from that of the logit.
    """
    layer = model.stages[-1]
    found = {s: cam.gradcam(model, x, y, layer, sign=s).maps[layer] for s in SIGNS}

    def largest(maps: Tensor) -> Tensor:
        return maps.abs().amax((1, 2))

    try:
        weighed = cam.cam(model, x, y, layer, head=head).maps[layer]
        apart = {"cam": largest(weighed - weighed[0].numel() * found["signed"]) / largest(weighed)}
    except ValueError:  # a head of several layers, as VGG-16's
        apart = {}
    of_probability = cam.gradcam(_Softmax(model), x, y, f"net.{layer}", sign="signed").maps[f"net.{layer}"]
    unit = [m / largest(m).clamp_min(torch.finfo(m.dtype).tiny).view(-1, 1, 1) for m in (of_probability, found["signed"])]
    return apart | {
        "sum": largest(found["signed"] - (found["positive"] - found["counterfactual"])) / largest(found["signed"]),
        "product": largest(found["positive"] * found["counterfactual"]) / largest(found["signed"]) ** 2,
        "softmax": largest(unit[0] - unit[1]),
    }


class _Softmax(torch.nn.Module):
    """A network whose last layer is a softmax, which Grad-CAM is not meant for."""

    def __init__(self, model: models.Classifier) -> None:
        super().__init__()
        self.net = model

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).softmax(1)


def measure(p: Parameters, arch: str, seed: int) -> pd.DataFrame:
    """Everything about one network: rows (arm, seed, image_id, measure, level, value), the arm is the architecture."""
    model, data = network(p, arch, seed).model, evaluation_set(p)
    where = next(model.parameters()).device
    x, y = data.images[:].to(where), data.labels.to(where)
    layers = layers_of(model, arch)
    found: list[pd.DataFrame] = []

    def keep(measure: str, level: float, values: Tensor) -> None:
        found.append(rows(arch, seed, measure, level, values))

    head = zoo.NETWORKS[arch].head if arch in zoo.NETWORKS else "head"
    for name, values in identity(model, x, y, head).items():
        keep(f"identity/{name}", 0, values)
    clean = cam.gradcam(model, x, y, list(layers.values()), sign="signed")
    keep("right", 0, (clean.logits.argmax(1) == y).float())
    if data.masks is not None:
        mask = data.masks.to(where)
        keep("area", 0, mask.flatten(1).float().mean(1))
        for level, layer in layers.items():
            for how, values in on_object(clean.maps[layer].relu(), mask).items():
                keep(f"{how}/{level}", 0, values)
    _two_objects(model, p, keep)
    last = layers["last"]
    aimed = other_class(y, len(data.classes))
    draw = attacks.random_sign(x, torch.Generator().manual_seed(0))
    for eps in p.eps:
        attacked = attacks.pgd(
            model, x, aimed, eps=eps, steps=p.steps, targeted=True, judge=False, generator=torch.Generator().manual_seed(0)
        ).x_adv
        for name, images in (("attack", attacked), ("noise", attacks.step_along(x, draw, eps))):
            maps = cam.gradcam(model, images, y, last)
            keep(f"reached/{name}", eps, (maps.logits.argmax(1) == aimed).float())
            before, after = (cam.upsample(cam.normalise(m), p.size) for m in (clean.maps[last].relu(), maps.maps[last]))
            keep(f"nissim/{name}", eps, metrics.nissim(before, after))
            if data.masks is not None:
                for how, values in on_object(maps.maps[last], data.masks.to(where)).items():
                    keep(f"{how}/{name}", eps, values)
    if p.dataset == "shapes":
        conflict = evaluation_set(p, "shapes-conflict")
        decided = training.predictions(model, conflict.images[:])
        for cue in ("shape", "texture"):
            keep(f"by/{cue}", 0, (decided == conflict.attributes[cue]).float())
    return pd.concat(found, ignore_index=True)


def _two_objects(model: models.Classifier, p: Parameters, keep: object) -> None:
    """How much of the map of each class, and of its counterfactual, lies on the object of the first class."""
    pair = two_objects(p)
    data = evaluation_set(p)
    where = next(model.parameters()).device
    x, on_first = pair.images.to(where), pair.first.to(where)
    layer = model.stages[-1]
    for word, name, own in (("first", p.first, on_first), ("second", p.second, ~on_first)):
        signed = cam.gradcam(model, x, data.classes.index(name), layer, sign="signed").maps[layer]
        for sign, maps in (("positive", signed.relu()), ("counterfactual", (-signed).relu())):
            keep(f"two/{sign}/{word}", 0, on_object(maps, own)["energy"])  # type: ignore[operator]
