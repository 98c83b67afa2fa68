"""Study 0, the Grad-CAM tour: CAM and Grad-CAM, two classes, two layers, with and without ReLU, two objects, under attack.

Selvaraju et al. 2017 beside Zhou et al. 2016. For each network: how far CAM and Z times Grad-CAM are from being one; how
much of each map lies on the object, at a middle and at the last layer; on images of two objects, how much of either class's
map and of its counterfactual lies on either object; the same under a targeted attack and under noise of the same size; and
whether the network goes by shape or by texture where they disagree.
"""

import functools
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lib.data import datasets, mosaics
from lib.networks import classifier, zoo
from lib.studies import parameters
from lib.training import cache, config

TITLE = "Grad-CAM tour"
FAMILY = {"plain": "plain (VGG-like)", "residual": "residual"}
LEVELS = ("middle", "last")
MIDDLE = {"vgg16": "features.25"}  # of the presentation, beside features.29
Positive = Annotated[float, Field(gt=0)]


class Parameters(parameters.Parameters):
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
    augment: Annotated[tuple[config.Augmentation, ...], Field(description="of training images")] = ("flip",)
    weights: Annotated[Literal["none", "imagenet"], Field(description="start from random or published weights")] = "none"
    images: Annotated[int, Field(ge=8, description="test images")] = 200
    first: Annotated[str, Field(description="a class, of the images of two objects")] = "star/print"
    second: Annotated[str, Field(description="the other one")] = "ring/stars"
    eps: Annotated[tuple[Positive, ...], Field(min_length=1, description="radii of the attack, [0,1] pixels, L-infinity")] = (
        0.01,
        0.03,
        0.06,
    )
    steps: Annotated[int, Field(ge=1, description="of the targeted attack")] = 20

    @model_validator(mode="after")
    def _fits(self) -> "Parameters":
        if self.first == self.second:
            raise ValueError(f"first and second are both {self.first!r}; two different classes make an image of two objects")
        if list(self.eps) != sorted(set(self.eps)):
            raise ValueError(f"eps {self.eps}: in ascending order, each once")
        return self


def networks(p: Parameters) -> list[config.TrainConfig]:
    """Every network the study needs, architecture by architecture; on `shapes` those of study 1."""
    return [
        config.TrainConfig(
            dataset=p.dataset,
            size=p.size,
            channels=p.channels,
            limit=p.train_images,
            arch=arch,
            weights=p.weights,
            seed=seed,
            epochs=p.epochs,
            batch_size=p.batch_size,
            lr=p.learning_rate,
            augment=p.augment,
        )
        for arch in p.architectures
        for seed in range(p.seeds)
    ]


def network(p: Parameters, arch: str, seed: int) -> cache.Trained:
    return cache.trained(next(c for c in networks(p) if (c.arch, c.seed) == (arch, seed)), device_name=p.device)


def layers_of(model: classifier.Classifier, arch: str) -> dict[str, str]:
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


def head_of(arch: str) -> str:
    """The linear layer that ends a network."""
    return zoo.NETWORKS[arch].head if arch in zoo.NETWORKS else "head"
