"""Study 6, attack pathways (Bluff: Das, Park et al., VIS 2020) for any network: parameters, measurement.

For each network and each pair of classes, images of the source class are pushed towards the target class by targeted
attacks of ten strengths, which are L2 radii of images in [0, 1]; the same images at each strength. What is kept is every
channel's score on every image (`lib.pathways`), so that everything else can be computed for any choice of images: the same
ones at each strength, or those alone on which the attack succeeds, as in the original.

`pgd` is PGD in the L2 ball with steps of a fifth of the radius, as in the original. `fgsm` takes one step against the sign
of the gradient, with the L2 size of the strength (the original's is not published). `noise` is the control: a random
direction of the same L2 size.
"""

import functools
import itertools
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from lib import attacks, datasets, hooks, models, pathways, pathways_graph, profiles, training
from lib.pathways_view import Graph

ATTACKS = ("pgd", "fgsm", "noise")
NAMES = {"pgd": "PGD (L2)", "fgsm": "FGSM", "noise": "random direction"}
Positive = Annotated[float, Field(gt=0)]


class Pair(NamedTuple):
    """Classes by number."""

    source: int
    target: int


class Parameters(profiles.Parameters):
    """What the study varies; the defaults are the laptop profile."""

    dataset: Annotated[str, Field(description="any name that lib.datasets.load knows")] = "shapes"
    size: Annotated[int, Field(ge=16, description="image size, pixels")] = 32
    channels: Annotated[Literal[1, 3], Field(description="1 grey, 3 colour")] = 3
    architectures: Annotated[tuple[str, ...], Field(min_length=1)] = ("plain", "residual")
    layers: Annotated[
        tuple[str, ...], Field(description="convolutional layers by name, in order; none: the blocks of the network")
    ] = ()
    seeds: Annotated[int, Field(ge=1, description="networks trained for each architecture")] = 3
    epochs: Annotated[int, Field(ge=0, description="0: published weights as they are")] = 8
    train_images: Annotated[int | None, Field(ge=1, description="None: all there are")] = 2000
    batch_size: Annotated[int, Field(ge=2, description="images in a training step")] = 64
    learning_rate: Annotated[float, Field(gt=0, description="peak of the schedule")] = 0.1
    optimizer: Literal["sgd", "adam"] = "sgd"
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    augment: Annotated[tuple[training.Augmentation, ...], Field(description="of training images")] = ("flip",)
    weights: Annotated[Literal["none", "imagenet"], Field(description="start from random or published weights")] = "none"
    similar: Annotated[tuple[str, ...], Field(min_length=1, description="pairs SOURCE>TARGET that look alike")] = (
        "square/grass>cross/lawn",
    )
    dissimilar: Annotated[tuple[str, ...], Field(min_length=1, description="pairs SOURCE>TARGET that do not")] = (
        "ring/stars>arrow/writing",
    )
    images: Annotated[int, Field(ge=8, description="test images of either class")] = 50
    strengths: Annotated[tuple[Positive, ...], Field(min_length=2, description="L2 radii, pixels in [0, 1]")] = (
        0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9, 1.1, 1.3, 1.5,
    )  # fmt: skip
    steps: Annotated[int, Field(ge=1, description="of PGD, each a fifth of the radius")] = 20
    share: Annotated[float, Field(gt=0, le=1, description="of a layer's channels: its top neurons")] = 0.1
    least: Annotated[int, Field(ge=1, description="top neurons of a layer, at least")] = 3
    most: Annotated[int, Field(ge=1, description="top neurons of a layer, at most")] = 10
    exploited: Annotated[int, Field(ge=1, description="neurons exploited by an attack of one strength, at most")] = 5
    stride: Annotated[Literal["own", "released"], Field(description="how influence convolves; see lib.pathways")] = "own"
    features: Annotated[int, Field(ge=1, description="steps of activation maximisation")] = 64
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
        return self

    @property
    def pairs(self) -> tuple[str, ...]:
        return (*self.similar, *self.dissimilar)


def networks(p: Parameters) -> list[training.TrainConfig]:
    """Every network the study needs, architecture by architecture; on `shapes` those of study 1."""
    return [
        training.TrainConfig(
            dataset=p.dataset, size=p.size, channels=p.channels, limit=p.train_images, arch=arch, weights=p.weights,
            seed=seed, epochs=p.epochs, batch_size=p.batch_size, optimizer=p.optimizer, lr=p.learning_rate,
            weight_decay=p.weight_decay, augment=p.augment,
        )
        for arch in p.architectures
        for seed in range(p.seeds)
    ]  # fmt: skip


def network(p: Parameters, arch: str, seed: int) -> training.Trained:
    config = next(c for c in networks(p) if (c.arch, c.seed) == (arch, seed))
    return training.trained(config, device_name=p.device)


def layers_of(model: models.Classifier, named: tuple[str, ...] = ()) -> tuple[str, ...]:
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


@functools.lru_cache(maxsize=2)
def evaluation_set(p: Parameters) -> datasets.ImageSet:
    return datasets.load(p.dataset, "test", size=p.size, channels=p.channels)


def attacked(model: nn.Module, x: Tensor, y: Tensor, attack: str, strength: float, *, steps: int = 20) -> Tensor:
    """Images pushed towards the classes y by one of ATTACKS; `strength` is an L2 radius.

    Cost: `steps` forward-and-backward passes, one, or none.
    """
    if attack == "pgd":
        return attacks.pgd(
            model, x, y, eps=strength, steps=steps, step=strength / 5, norm="l2", targeted=True, judge=False,
            generator=torch.Generator().manual_seed(0),
        ).x_adv  # fmt: skip
    size = x[0].numel() ** 0.5
    if attack == "fgsm":
        return attacks.step_along(x, -attacks.fgsm_direction(model, x, y)[0], strength / size)
    if attack != "noise":
        raise ValueError(f"unknown attack {attack!r}; choose one of {', '.join(ATTACKS)}")
    draw = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    return (x + strength * attacks.ascent(draw, "l2")).clamp(0, 1)


def measure_pair(
    model: nn.Module, source: Tensor, target: Tensor, pair: Pair, p: Parameters, layers: tuple[str, ...]
) -> pd.DataFrame:
    """Scores of every channel of every layer on every image: a row for each (attack, strength, layer, image).

    Attack `source` and `target` are the clean images of either class, strength 0; `success` says whether the network decides
    for the target class.
    """
    rows = []
    y = torch.full((len(source),), pair.target, device=source.device)

    def keep(images: Tensor, attack: str, strength: float) -> None:
        found = pathways.scores(model, images, layers)
        success = (found.logits.argmax(1) == pair.target).cpu().numpy()
        for layer in layers:
            values = found.of[layer].cpu().numpy()
            rows.append(
                pd.DataFrame(
                    {
                        "attack": attack, "strength": strength, "layer": layer, "image_id": np.arange(len(values)),
                        "success": success, "scores": list(values),
                    }
                )
            )  # fmt: skip

    keep(source, "source", 0.0)
    keep(target, "target", 0.0)
    for attack, strength in itertools.product(ATTACKS, p.strengths):
        parts = zip(source.split(pathways.BATCH), y.split(pathways.BATCH), strict=True)
        keep(torch.cat([attacked(model, a, b, attack, strength, steps=p.steps) for a, b in parts]), attack, strength)
    return pd.concat(rows, ignore_index=True)


def measure(p: Parameters, arch: str, seed: int) -> pd.DataFrame:
    """All pairs of one network."""
    model, data = network(p, arch, seed).model, evaluation_set(p)
    where = next(model.parameters()).device
    layers = layers_of(model, p.layers)
    parts = []
    for pair in p.pairs:
        classes = pair_of(pair, data.classes)
        source, target = (of_class(data, c, p.images).to(where) for c in classes)
        parts.append(measure_pair(model, source, target, classes, p, layers).assign(pair=pair))
    return pd.concat(parts, ignore_index=True).assign(arch=arch, seed=seed)


class Scored:
    """The measurement as arrays: `clean`, `target` (seeds, images, channels), `attacked` (seeds, strengths, images,
    channels), `success` (seeds, strengths, images)."""

    def __init__(self, table: pd.DataFrame, p: Parameters) -> None:
        self.p = p
        self.layers: dict[str, list[str]] = {a: list(dict.fromkeys(t.layer)) for a, t in table.groupby("arch", sort=False)}
        self._arrays: dict[tuple[str, str, str, str], np.ndarray] = {}
        self._success: dict[tuple[str, str, str], np.ndarray] = {}
        order = ["seed", "strength", "image_id"]
        for (arch, pair, attack, layer), part in table.groupby(["arch", "pair", "attack", "layer"], sort=False):
            part = part.sort_values(order)
            shape = (part.seed.nunique(), part.strength.nunique(), -1)
            values = np.stack(part.scores.to_list()).astype(np.float32)
            self._arrays[arch, pair, attack, layer] = values.reshape(*shape, values.shape[1])
            self._success[arch, pair, attack] = part.success.to_numpy().reshape(shape)

    def scores(self, arch: str, pair: str, attack: str, layer: str) -> np.ndarray:
        """(seeds, strengths, images, channels)."""
        return self._arrays[arch, pair, attack, layer]

    def success(self, arch: str, pair: str, attack: str) -> np.ndarray:
        """(seeds, strengths, images), bool, of as many images as `images` says."""
        return self._success[arch, pair, attack][..., : self.images(pair)]

    def images(self, pair: str) -> int:
        """How many of the source class, or of the target class where those are fewer."""
        arch = next(iter(self.layers))
        return min(self._success[arch, pair, c].shape[2] for c in ("source", "target"))


def graph(p: Parameters, arch: str, pair: str, *, seed: int = 0, chosen: tuple[str, ...] = ("pgd", "fgsm")) -> Graph:
    """The graph of one network on one pair of classes."""
    data = evaluation_set(p)
    classes = pair_of(pair, data.classes)
    source = of_class(data, classes.source, p.images)
    return graph_of(p, arch, source, data.classes[classes.source], classes.target, seed=seed, chosen=chosen)


def graph_of(
    p: Parameters, arch: str, source: Tensor, name: str, target: int, *, seed: int = 0, chosen: tuple[str, ...] = ("pgd",),
    layers: tuple[str, ...] = (),
) -> Graph:  # fmt: skip
    """The graph of one network on any source images, which are called `name`, and a target class."""
    model, data = network(p, arch, seed).model, evaluation_set(p)
    where = next(model.parameters()).device
    return pathways_graph.build(
        model, source.to(where), of_class(data, target, p.images).to(where), target, names=(name, data.classes[target]),
        layers=layers_of(model, layers or p.layers),
        attacks={a: functools.partial(as_attack, name=a, steps=p.steps) for a in chosen}, strengths=p.strengths,
        title=f"{arch}: {name} → {data.classes[target]}", share=p.share, least=p.least, most=p.most, exploited=p.exploited,
        released=p.stride == "released", features=p.features, patches=p.patches, progress=True,
    )  # fmt: skip


def as_attack(model: nn.Module, x: Tensor, y: Tensor, strength: float, *, name: str, steps: int) -> Tensor:
    """One of ATTACKS in the form that `pathways_graph.build` takes."""
    return attacked(model, x, y, name, strength, steps=steps)
