"""What explorers look at that no study trains: a published network on photographs, and anybody's own network."""

import functools
from typing import NamedTuple

from lib.data import datasets, imagenet
from lib.data.image_sets import ImageSet
from lib.networks import classifier, folding, models, named, zoo
from lib.system import devices

PUBLISHED = "efficientnet-lite0"  # whose weights are a package


class Subject(NamedTuple):
    """A network for evaluation, and images beside it; their labels are numbers of `classes` where `labelled`."""

    model: classifier.Classifier
    data: ImageSet
    classes: tuple[str, ...]
    head: str  # the linear layer that ends the network
    layer: str  # the last convolutional one
    labelled: bool

    @property
    def size(self) -> int:
        """Of the images that the network takes, in pixels."""
        return self.data.images.shape[-1]


@functools.lru_cache(maxsize=2)
def published(name: str, photographs: str, device: str) -> Subject:
    """A network as it was published, with its normalisations folded into its convolutions; `photographs` in its size."""
    data = datasets.load(photographs, "test", size=zoo.NETWORKS[name].size, channels=3)
    model = folding.folded(models.create(name, classes=1000, weights="imagenet"), data.images[:2])
    return Subject(model.to(devices.device(device)), data, data.classes, zoo.NETWORKS[name].head, model.stages[-1], True)


@functools.lru_cache(maxsize=4)
def own(name: str, device: str) -> Subject:
    """One's own network as `lib.networks.named` finds it, beside the embedded photographs, in the size that it takes and cut as
    it expects them.

    Raises ValueError, RuntimeError or OSError as `named.load` does, in words for the person who named it.
    """
    found = named.load(name)
    data = imagenet.photographs("test", found.size, found.channels, found.crop)
    labelled = found.classes == imagenet.class_names()
    return Subject(found.model.to(devices.device(device)), data, found.classes, found.head, found.layer, labelled)


def anew(name: str, device: str) -> Subject:
    """`own`, from its file as it is now: whoever names a network again may have edited it."""
    own.cache_clear()
    return own(name, device)
