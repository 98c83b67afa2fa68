"""Study 6, attack pathways (Bluff: Das, Park et al., VIS 2020) for any network: parameters, pairs of classes, networks.

For each network and each pair of classes, images of the source class are pushed towards the target class by targeted
attacks of ten strengths, which are L2 radii of images in [0, 1]; the same images at each strength. What is kept is every
channel's score on every image (`lib.pathways`), so that everything else can be computed for any choice of images: the same
ones at each strength, or those alone on which the attack succeeds, as in the original.

`pgd` is PGD in the L2 ball with steps of a fifth of the radius, as in the original. `fgsm` takes one step against the sign
of the gradient, with the L2 size of the strength (the original's is not published). `noise` is the control: a random
direction of the same L2 size.

Beside the networks that are trained for it, the graph of a published one is traced from one photograph to another.

A published network may also be the study's own (no epochs), on photographs of which there is one a class: classes are then
`grouped` (`lib.data.imagenet_groups`), and a pair is of two groups. The network decides for the group whose classes have the
largest probability together, the attack aims at that of the whole target group, and images are the photographs of a group that
the network takes for it.
"""

import dataclasses
import functools
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from lib.attacks import by_name
from lib.attacks.steps import AttackResult, joined
from lib.data import datasets, imagenet_groups
from lib.networks import classifier, folding, hooks, zoo
from lib.pathways import neurons
from lib.studies import parameters, subjects
from lib.training import cache, evaluate
from lib.training.config import TrainConfig

TITLE = "Attack pathways"
ATTACKS = ("pgd", "fgsm", "noise")
NAMES = {name: by_name.find(f"{name}-l2").label for name in ATTACKS}
OWN = ("original", "target")  # groups of neurons that one class alone uses
AMONG = {group: f"among_{group}" for group in OWN}  # columns: an image's influence between them, from the layer below
# which channels hold their clean values while an attack runs: those exploited by it, as many drawn at random, as many that it
# excites most; columns: whether the attack fails then, in a layer alone and in all layers at once
CLAMPED = ("exploited", "random", "excited")
UNDONE = {which: f"undone_{which}" for which in CLAMPED}
TOGETHER = {which: f"undone_together_{which}" for which in CLAMPED}
DRAWN = 4  # times that channels are drawn at random, each time others for each image
GRAPH = "graph"  # in the place of an attack: the row that holds a graph
SCORES = "scores"  # what a job measures of one pair, where it does not trace the graph
LOOKED_AT = 10  # photographs that are shown to a network together
SHOWN = ("pgd", "fgsm")  # attacks of the graphs
PHOTOGRAPHS = "photographs"  # in the place of an architecture: a published network, and the embedded photographs
PHOTOGRAPHED = "dalmatian>tiger cat"
Positive = Annotated[float, Field(gt=0)]


class Pair(NamedTuple):
    """Classes by number."""

    source: int
    target: int


class Parameters(parameters.Trained):
    """What the study varies; the defaults are the laptop profile."""

    # top neurons of a narrow layer are few, and one more or less is a third of a group: more networks make up for it
    seeds: Annotated[int, Field(ge=1, description="networks trained for each architecture")] = 5
    layers: Annotated[
        tuple[str, ...], Field(description="convolutional layers by name, in order; none: the blocks of the network")
    ] = ()
    grouped: Annotated[bool, Field(description="classes are groups of ImageNet's, see lib.data.imagenet_groups")] = False
    similar: Annotated[tuple[str, ...], Field(min_length=1, description="pairs SOURCE>TARGET that look alike")] = (
        "square/grass>cross/lawn",
    )
    dissimilar: Annotated[tuple[str, ...], Field(min_length=1, description="pairs SOURCE>TARGET that do not")] = (
        "ring/stars>arrow/writing",
    )
    images: Annotated[int, Field(ge=8, description="test images of either class")] = 50
    strengths: Annotated[tuple[Positive, ...], Field(min_length=2, description="L2 radii, pixels in [0, 1]")] = (
        0.1,
        0.2,
        0.3,
        0.45,
        0.6,
        0.75,
        0.9,
        1.1,
        1.3,
        1.5,
    )
    steps: Annotated[int, Field(ge=1, description="of PGD, each a fifth of the radius")] = 20
    share: Annotated[float, Field(gt=0, le=1, description="of a layer's channels: its top neurons")] = 0.1
    least: Annotated[int, Field(ge=1, description="top neurons of a layer, at least")] = 3
    most: Annotated[int, Field(ge=1, description="top neurons of a layer, at most")] = 10
    exploited: Annotated[int, Field(ge=1, description="neurons exploited by an attack of one strength, at most")] = 5
    stride: Annotated[Literal["own", "released"], Field(description="how influence convolves; see lib.pathways")] = "own"
    features: Annotated[int, Field(ge=0, description="steps of activation maximisation; 0: patches alone")] = 64
    patches: Annotated[int, Field(ge=1, description="images that excite a neuron most, shown of each")] = 4

    @field_validator("strengths")
    @classmethod
    def _ascending(cls, grid: tuple[float, ...]) -> tuple[float, ...]:
        if list(grid) != sorted(set(grid)):
            raise ValueError("in ascending order, each once")
        return grid

    @field_validator("similar", "dissimilar")
    @classmethod
    def _pairs(cls, pairs: tuple[str, ...]) -> tuple[str, ...]:
        for pair in pairs:
            source, arrow, target = pair.partition(">")
            if not (source and arrow and target) or source == target:
                raise ValueError(f"pair {pair!r}: two different classes, as SOURCE>TARGET")
        return pairs

    @model_validator(mode="after")
    def _fits(self) -> "Parameters":
        if self.layers and len(self.architectures) > 1:
            raise ValueError("layers are those of one network; name one architecture, or leave layers empty")
        if self.grouped and self.epochs:
            raise ValueError(
                f"grouped with epochs = {self.epochs}: groups are of ImageNet's classes; use epochs: 0, as published"
            )
        return self

    @property
    def pairs(self) -> tuple[str, ...]:
        return (*self.similar, *self.dissimilar)


def jobs(p: Parameters) -> list[tuple[Any, ...]]:
    """(architecture, seed) of every network; (architecture, seed, pair by number) of every graph, the photographs' first, since
    it waits for nothing. Of a published network, whose images are large, each pair is a job of its own."""
    graphs = [(arch, 0, i) for arch in p.architectures for i in range(len(p.pairs))]
    found: list[tuple[Any, ...]] = parameters.by_architecture(p)
    if p.as_published:
        found = [(*one, SCORES) for one in graphs]
    return [(PHOTOGRAPHS, 0, 0), *found, *graphs]


def networks(p: Parameters, *job: Any) -> list[TrainConfig]:
    """Every network that the study trains, or that of one job; on `shapes` those of study 1."""
    wanted = [job[:2]] if job else parameters.by_architecture(p)
    return [p.train_config(*one) for one in wanted if one[0] != PHOTOGRAPHS]


def network(p: Parameters, arch: str, seed: int) -> cache.Trained:
    """One of the study's networks; where classes are grouped, with its normalisations folded and a logit a group."""
    found = cache.trained(*networks(p, arch, seed), device_name=p.device)
    return dataclasses.replace(found, model=in_groups(found.model, evaluation_set(p).images[:2])) if p.grouped else found


def in_groups(model: classifier.Classifier, x: Tensor) -> classifier.Classifier:
    """A network of ImageNet's classes as one of groups, laid out for speed; what it computes is looked at on the images x."""
    own = folding.measured(model, x)
    scale = {"mean": own.mean.flatten().tolist(), "std": own.std.flatten().tolist()}
    names = imagenet_groups.NAMES
    return classifier.adapt(own.net, output=imagenet_groups.by_group, stages=own.stages, classes=len(names), **scale)


def seen(p: Parameters, *job: Any) -> list[str]:
    """The images that a job looks at."""
    return parameters.fingerprints(photographs() if job[:1] == (PHOTOGRAPHS,) else evaluation_set(p))


@functools.lru_cache(maxsize=1)
def photographs() -> datasets.ImageSet:
    """What the published network looks at, in the size that it was published for."""
    return datasets.load(PHOTOGRAPHS, "test", size=zoo.NETWORKS[subjects.PUBLISHED].size, channels=3)


def published(p: Parameters) -> subjects.Subject:
    """A published network and photographs."""
    return subjects.published(subjects.PUBLISHED, PHOTOGRAPHS, p.device)


def attacked(model: nn.Module, x: Tensor, y: Tensor, strength: float, *, name: str, steps: int) -> Tensor:
    """Images pushed towards the classes y by one of ATTACKS, within the L2 radius `strength`, PGD in fifths of it."""
    return attack(model, x, y, strength, name=name, steps=steps).x_adv


def attack(model: nn.Module, x: Tensor, y: Tensor, strength: float, *, name: str, steps: int) -> AttackResult:
    """The same, with what the attack warns of; some images at a time, with one stream of random numbers for all of them."""
    row, rows = by_name.find(f"{name}-l2"), neurons.rows_of(x)
    generator = torch.Generator().manual_seed(0)
    return joined(
        [
            row(model, a, b, eps=strength, steps=steps, step=strength / 5, targets=b, generator=generator)
            for a, b in zip(x.split(rows), y.split(rows), strict=True)
        ]
    )


def layers_of(model: classifier.Classifier, named: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The layers that are rows of the graph: as named, or the blocks of the network's stages in order.

    Raises ValueError for a name that is none of the network's.
    """
    if named:
        for name in named:
            hooks.find_layer(model, name)
        return named
    found: list[str] = []
    for stage in model.stages:
        module = hooks.find_layer(model, stage)
        blocks = [
            f"{stage}.{name}"
            for name, child in module.named_children()
            if any(isinstance(m, nn.Conv2d) for m in child.modules())
        ]
        whole = not isinstance(module, nn.Sequential) or any(isinstance(c, nn.Conv2d) for c in module.children())
        found += [stage] if whole or not blocks else blocks
    return tuple(found)


def pair_of(pair: str, classes: tuple[str, ...]) -> Pair:
    """Raises ValueError for a class that the data set does not have."""
    names = pair.split(">")
    for name in names:
        if name not in classes:
            raise ValueError(f"pair {pair!r}: {name!r} is none of the classes {', '.join(classes)}")
    return Pair(*(classes.index(n) for n in names))


def of_class(data: datasets.ImageSet, index: int, n: int) -> Tensor:
    """The first n images of a class. Raises ValueError where there are none."""
    found = (data.labels == index).nonzero()[:n, 0]
    if not len(found):
        raise ValueError(f"{data.name} ({data.split}) shows no image of class {data.classes[index]!r}; choose another pair")
    return data.images[found]


def shown(p: Parameters, model: nn.Module, data: datasets.ImageSet, index: int) -> Tensor:
    """The first images of a class that a network is looked at with; of a group, those that it takes for the group.

    Raises ValueError where there are none.
    """
    if not p.grouped:
        return of_class(data, index, p.images)
    every = of_class(data, index, len(data))
    right = evaluate.predictions(model, every, LOOKED_AT) == index
    if not right.any():
        raise ValueError(f"the network takes no photograph of {data.classes[index]!r} for it; choose another pair")
    return every[right][: p.images]


@functools.lru_cache(maxsize=2)
def evaluation_set(p: Parameters) -> datasets.ImageSet:
    """The test images, in groups where classes are grouped."""
    found = datasets.load(p.dataset, "test", size=p.size, channels=p.channels)
    return imagenet_groups.grouped(found) if p.grouped else found
