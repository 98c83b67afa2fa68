"""Study 0, the Grad-CAM tour: CAM and Grad-CAM, two classes, two layers, with and without ReLU, two objects, under attack.

Selvaraju et al. 2017 beside Zhou et al. 2016. First a published network on photographs (see `photo`), which needs no
training. Then small networks on images whose objects have exact masks: how far CAM and Z times Grad-CAM are from being one;
how much of each map lies on the object, at a middle and at the last layer; on images of two objects, how much of either
class's map and of its counterfactual lies on either object; the same under a targeted attack and under noise of the same
size; and whether the network goes by shape or by texture where they disagree.
"""

import functools
from typing import Annotated, Any

from pydantic import Field, model_validator
from torch import Tensor

from lib.data import datasets, imagenet, mosaics
from lib.networks import classifier, zoo
from lib.studies import parameters, subjects
from lib.system import names
from lib.training import cache
from lib.training.config import TrainConfig

TITLE = "Grad-CAM tour"
FAMILY = {
    "plain": "plain (VGG-like)",
    "residual": "residual",
    "connected": "connected (VGG-like head)",
    "efficientnet-lite0": "EfficientNet-Lite0",
}
LEVELS = ("middle", "last")
# Of the presentation, beside features.29; and the last ReLU at 14 x 14 positions (blocks end without one).
MIDDLE = {"vgg16": "features.25"} | {f"efficientnet-lite{i}": "blocks.5.0.bn1" for i in range(3)}
Positive = Annotated[float, Field(gt=0)]


class Parameters(parameters.Trained):
    """What the study varies; the defaults are the laptop profile."""

    architectures: Annotated[tuple[str, ...], Field(min_length=1, description="names that lib.networks.models knows")] = (
        "plain",
        "residual",
        "connected",
    )
    published: Annotated[str, Field(description="a network with its published ImageNet weights")] = "efficientnet-lite0"
    photographs: Annotated[str, Field(description="what it looks at: photographs, or imagenet:NAME")] = "photographs"
    pictures: Annotated[int, Field(ge=4, description="photographs")] = 22
    left: Annotated[str, Field(description="class of the photograph on the left of the picture of two")] = "bull mastiff"
    right: Annotated[str, Field(description="class of the one on the right")] = "tiger cat"
    victim: Annotated[str, Field(description="class of the photograph that is attacked before the reader's eyes")] = (
        "strawberry"
    )
    aim: Annotated[str, Field(description="the class that attacks on photographs aim at")] = "ocarina"
    radii: Annotated[tuple[Positive, ...], Field(min_length=1, description="eps of those attacks, [0,1] pixels, L-inf")] = (
        0.004,
        0.008,
        0.016,
    )
    images: Annotated[int, Field(ge=8, description="test images")] = 200
    first: Annotated[str, Field(description="a class, of the images of two objects")] = "star/print"
    second: Annotated[str, Field(description="the other one")] = "ring/stars"
    eps: Annotated[tuple[Positive, ...], Field(min_length=1, description="radii of the attack, [0,1] pixels, L-infinity")] = (
        0.01,
        0.03,
        0.06,
    )
    steps: Annotated[int, Field(ge=1, description="of the targeted attacks")] = 10

    @model_validator(mode="after")
    def _fits(self) -> "Parameters":
        if self.first == self.second:
            raise ValueError(f"first and second are both {self.first!r}; two different classes make an image of two objects")
        for name in ("eps", "radii"):
            given = getattr(self, name)
            if list(given) != sorted(set(given)):
                raise ValueError(f"{name} {given}: in ascending order, each once")
        self._photographs_fit()
        return self

    def _photographs_fit(self) -> None:
        if self.published not in zoo.NETWORKS:
            known = ", ".join(zoo.NETWORKS)
            raise ValueError(f"published {self.published!r} has no published weights; choose one of {known}")
        if self.published in self.architectures:
            raise ValueError(f"{self.published} is both published and among the architectures; name it once")
        fields = type(self).model_fields
        for name in ("left", "right", "victim", "aim"):
            known = getattr(self, name) == fields[name].default  # the list of names takes a second to load
            if not known and getattr(self, name) not in imagenet.class_names():
                close = names.close(getattr(self, name), imagenet.class_names())
                meant = f"; did you mean {' or '.join(close)}?" if close else ""
                raise ValueError(f"{name} {getattr(self, name)!r} is none of ImageNet's 1,000 classes{meant}")
        if self.left == self.right or self.victim == self.aim:
            raise ValueError("left and right, and victim and aim, are two different classes each")


def jobs(p: Parameters) -> list[tuple[str, int]]:
    """(architecture, seed) of every network; the published one first, since it waits for nothing."""
    return [(p.published, 0), *parameters.by_architecture(p)]


def networks(p: Parameters, *job: Any) -> list[TrainConfig]:
    """Every network that the study trains, or that of one job; on `shapes` those of study 1."""
    return [p.train_config(*one) for one in ([job] if job else jobs(p)) if one[0] != p.published]


def network(p: Parameters, arch: str, seed: int) -> cache.Trained:
    return cache.trained(*networks(p, arch, seed), device_name=p.device)


def seen(p: Parameters, *job: Any) -> list[str]:
    """The images that a job looks at."""
    if job and job[0] == p.published:
        return parameters.fingerprints(photo_set(p, p.pictures))
    conflict = [evaluation_set(p, f"{p.dataset}-conflict")] if datasets.has_cue_conflict(p.dataset) else []
    return parameters.fingerprints(evaluation_set(p), pool(p), *conflict)


def published_network(p: Parameters) -> classifier.Classifier:
    """The network as it was published, for evaluation alone: normalisations are folded into its convolutions."""
    return subjects.published(p.published, p.photographs, p.device).model


@functools.lru_cache(maxsize=2)
def photo_set(p: Parameters, limit: int | None = None) -> datasets.ImageSet:
    """What the published network looks at, in the size that it was published for; the first `limit`, all unless given."""
    return datasets.load(p.photographs, "test", size=zoo.NETWORKS[p.published].size, channels=3, limit=limit)


def photograph(p: Parameters, name: str) -> Tensor:
    """The first photograph of a class, (1, C, H, W). Raises ValueError where there is none."""
    data = photo_set(p)
    found = (data.labels == data.classes.index(name)).nonzero()[:, 0]
    if not len(found):
        raise ValueError(f"{p.photographs} shows no {name}; choose another class")
    return data.images[int(found[0])][None]


def named(arch: str) -> str:
    """What a network is called in tables and pictures."""
    return FAMILY.get(arch, arch)


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
    """Images of two objects: 2 x 2 mosaics of images of the two classes, each on a diagonal and each image in one alone."""
    data = evaluation_set(p)
    missing = [c for c in (p.first, p.second) if c not in data.classes]
    if missing:
        raise ValueError(f"{missing[0]!r} is none of the classes {', '.join(data.classes)}; set first and second")
    pair = (data.classes.index(p.first), data.classes.index(p.second))
    images = pool(p)
    return mosaics.mosaics(images, pair, min(max(8, p.images // 2), mosaics.most(images, pair)), seed=0)


def head_of(arch: str) -> str:
    """The linear layer that ends a network."""
    return zoo.NETWORKS[arch].head if arch in zoo.NETWORKS else "head"
