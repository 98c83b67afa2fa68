"""Groups of ImageNet's classes by what they show, for samples that hold one photograph of a class: dogs, birds, vehicles, ….

ImageNet's class numbers follow WordNet, so that most groups are ranges of them; vehicles are named one by one. All that is in
no group is `REST`. The groups were chosen by their members' names, before anything was measured on them.
"""

import dataclasses
import functools

import torch
from jaxtyping import Float
from torch import Tensor

from lib.data import imagenet
from lib.data.image_sets import ImageSet

REST = "anything else"
# on wheels, rails, tracks or runners, from ambulance to unicycle
VEHICLES = (407, 408, 436, 444, 466, 468, 511, 547, 555, 561, 565, 569, 573, 575, 586, 603, 609, 612, 627, 654, 656, 661, 665)
VEHICLES += (670, 671, 675, 690, 705, 717, 734, 751, 757, 779, 802, 803, 817, 820, 829, 847, 864, 866, 867, 870, 874, 880)
# first and last number of each run of classes
RUNS: dict[str, tuple[tuple[int, int], ...]] = {
    "dogs": ((151, 268),),
    "other carnivores": ((269, 299),),  # wolves, wild dogs, foxes, cats, bears, a mongoose, a meerkat
    "birds": ((7, 24), (80, 100), (127, 146)),
    "snakes": ((52, 68),),
    "insects": ((300, 326),),
    "primates": ((365, 384),),
    "vehicles": tuple((i, i) for i in VEHICLES),
}
NAMES = (*RUNS, REST)


@functools.cache
def members() -> tuple[tuple[int, ...], ...]:
    """The class numbers of each of NAMES; each of the 1,000 is in one."""
    found = [tuple(i for first, last in runs for i in range(first, last + 1)) for runs in RUNS.values()]
    taken = {i for group in found for i in group}
    return (*found, tuple(i for i in range(len(imagenet.class_names())) if i not in taken))


def grouped(data: ImageSet) -> ImageSet:
    """The images whose class is in a group, labelled by the group's place among NAMES.

    Raises ValueError for images that are not labelled with ImageNet's classes.
    """
    if data.classes != imagenet.class_names():
        raise ValueError(
            f"data set {data.name!r} is not labelled with ImageNet's classes, which the groups are of; use imagenet:NAME"
        )
    group = torch.empty(len(data.classes), dtype=torch.long)
    for i, classes in enumerate(members()):
        group[list(classes)] = i
    kept = data.select((group[data.labels] < len(RUNS)).nonzero()[:, 0])
    return dataclasses.replace(kept, name=f"{data.name}, in groups", labels=group[kept.labels], classes=NAMES)


def by_group(logits: Float[Tensor, "n 1000"]) -> Float[Tensor, "n groups"]:
    r"""The logits of groups: :math:`z_g = \log \sum_{c \in g} e^{z_c}`.

    Their softmax is the sum of the probabilities of a group's classes, so that an attack that aims at a group takes the way to
    whichever of its classes is nearest. Raises ValueError for another number of classes than ImageNet's.
    """
    if logits.shape[1] != len(imagenet.class_names()):
        raise ValueError(f"logits of {logits.shape[1]} classes; the groups are of ImageNet's {len(imagenet.class_names())}")
    return torch.stack([logits[:, list(classes)].logsumexp(1) for classes in members()], 1)
