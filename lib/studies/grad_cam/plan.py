"""Study 0, the Grad-CAM tour: CAM and Grad-CAM, two classes, two layers, with and without ReLU, two objects, under attack.

Selvaraju et al. 2017 beside Zhou et al. 2016. For each network: how far CAM and Z times Grad-CAM are from being one; how
much of each map lies on the object, at a middle and at the last layer; on images of two objects, how much of either class's
map and of its counterfactual lies on either object; the same under a targeted attack and under noise of the same size; and
whether the network goes by shape or by texture where they disagree.
"""

import functools
from typing import Annotated, Any

from pydantic import Field, model_validator

from lib.data import datasets, mosaics
from lib.networks import classifier, zoo
from lib.studies import parameters
from lib.training import cache
from lib.training.config import TrainConfig

TITLE = "Grad-CAM tour"
FAMILY = {"plain": "plain (VGG-like)", "residual": "residual"}
LEVELS = ("middle", "last")
MIDDLE = {"vgg16": "features.25"}  # of the presentation, beside features.29
Positive = Annotated[float, Field(gt=0)]


class Parameters(parameters.Trained):
    """What the study varies; the defaults are the laptop profile."""

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


def jobs(p: Parameters) -> list[tuple[str, int]]:
    """(architecture, seed) of every network."""
    return parameters.by_architecture(p)


def networks(p: Parameters, *job: Any) -> list[TrainConfig]:
    """Every network the study needs, or that of one job; on `shapes` those of study 1."""
    return [p.train_config(*one) for one in ([job] if job else jobs(p))]


def network(p: Parameters, arch: str, seed: int) -> cache.Trained:
    return cache.trained(*networks(p, arch, seed), device_name=p.device)


def seen(p: Parameters, *job: Any) -> list[str]:
    """The images that a job looks at."""
    conflict = [evaluation_set(p, f"{p.dataset}-conflict")] if datasets.has_cue_conflict(p.dataset) else []
    return parameters.fingerprints(evaluation_set(p), pool(p), *conflict)


def layers_of(model: classifier.Classifier, arch: str) -> dict[str, str]:
    """The middle and the last layer, by LEVELS: stages, or what the presentation compares."""
    return {"middle": MIDDLE.get(arch, model.stages[-2]), "last": model.stages[-1]}


@functools.lru_cache(maxsize=4)
def evaluation_set(p: Parameters, name: str = "") -> datasets.ImageSet:
    return datasets.load(name or p.dataset, "test", size=p.size, channels=p.channels, limit=p.images)


@functools.lru_cache(maxsize=2)
def pool(p: Parameters) -> datasets.ImageSet:
    """All test images: a few may show neither class of the images of two objects."""
    return datasets.load(p.dataset, "test", size=p.size, channels=p.channels)


@functools.lru_cache(maxsize=2)
def two_objects(p: Parameters) -> mosaics.Mosaics:
    """Images of two objects: 2 x 2 mosaics of images of the two classes, each on a diagonal."""
    data = evaluation_set(p)
    missing = [c for c in (p.first, p.second) if c not in data.classes]
    if missing:
        raise ValueError(f"{missing[0]!r} is none of the classes {', '.join(data.classes)}; set first and second")
    pair = (data.classes.index(p.first), data.classes.index(p.second))
    return mosaics.mosaics(pool(p), pair, max(8, p.images // 2), seed=0)


def head_of(arch: str) -> str:
    """The linear layer that ends a network."""
    return zoo.NETWORKS[arch].head if arch in zoo.NETWORKS else "head"
