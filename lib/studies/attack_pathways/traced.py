"""Study 6: the graph of any network, classes, images and attack, as the study, its explorer and a reader's code trace it."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from lib.data.image_sets import ImageSet
from lib.data.images import open_image
from lib.networks import classifier
from lib.pathways import stored
from lib.pathways.graph import Graph, build
from lib.studies import subjects
from lib.studies.attack_pathways import plan
from lib.studies.attack_pathways.plan import Parameters
from lib.system import names

# ends of the stages of EfficientNet-Lite; the head's ReLU6 behind them cuts the highest activations off
PUBLISHED_LAYERS = tuple(f"blocks.{i}" for i in range(1, 7))
PUBLISHED = "EfficientNet-Lite0"
MINE = "your images"

Source = str | Sequence[Path] | Tensor  # a class by name, files of one's own, or images
Progress = Callable[[str], None]


class Subject(NamedTuple):
    """A network, what it is called, and images beside it, whose labels are numbers of `classes` where `labelled`."""

    title: str
    model: classifier.Classifier
    data: ImageSet
    classes: tuple[str, ...]
    labelled: bool
    layers: tuple[str, ...]
    features: int  # steps that make a picture of a neuron


def subject(p: Parameters, network: str, seed: int = 0) -> Subject:
    """One of the study's networks on its data; the published one (PHOTOGRAPHS, or its own name) or one's own, as
    `lib.networks.named` has it, on photographs. Raises ValueError, RuntimeError or OSError as that does."""
    if network in p.architectures:
        model, data = plan.network(p, network, seed).model, plan.evaluation_set(p)
        return Subject(network, model, data, data.classes, True, plan.layers_of(model, p.layers), p.features)
    if network in (plan.PHOTOGRAPHS, subjects.PUBLISHED):
        found = plan.published(p)
        title, layers = PUBLISHED, PUBLISHED_LAYERS
    else:
        found = subjects.own(network, p.device)
        title, layers = network, found.model.stages
    # what is made to excite a neuron of a large network looks like noise, and takes minutes
    return Subject(title, found.model, found.data, found.classes, found.labelled, layers, 0)


def choices(p: Parameters, network: str) -> tuple[dict[str, int], tuple[str, ...]]:
    """What a graph of a network can be traced from, by name, with how many images there are; and the classes that it can lead
    to. No network is trained for it."""
    if network in p.architectures or network == plan.PHOTOGRAPHS:
        data = plan.photographs() if network == plan.PHOTOGRAPHS else plan.evaluation_set(p)
        classes = data.classes
    else:
        found = subject(p, network)
        data, classes = found.data, found.classes
    count: dict[str, int] = {}
    for label in data.labels.tolist():
        count[data.classes[label]] = min(p.images, count.get(data.classes[label], 0) + 1)
    return count, classes


def between(
    p: Parameters,
    network: str,
    source: Source,
    target: str,
    *,
    attacks: Sequence[str] = ("pgd",),
    layers: Sequence[str] = (),
    progress: Progress | None = None,
    seed: int = 0,
) -> Graph:
    """The graph of a network (as `subject` has it) from the images of a class, or one's own, to a class.

    Beside a published network, and one's own, `source` is a photograph by what it shows; `target` is any class that the network
    knows, whose neurons are known where a photograph shows it. Raises ValueError for two classes that are one, a class or a
    layer that is not known (with close matches), and files that are no pictures.
    """
    found = subject(p, network, seed)
    number = class_number(found.classes, target, f"class of {found.title}")
    if isinstance(source, str):
        own = class_number(found.data.classes, source, "class" if network in p.architectures else "photograph")
        if found.labelled and own == number:
            raise ValueError(f"“from” and “to” are both {target}; choose another class for one of them")
        images, name, given = _shown(p, network, found, own), source, repr(source)
    else:
        images, name = (source, MINE) if isinstance(source, Tensor) else (opened(found, source), MINE)
        given = "[Path('mine.jpg')]" if isinstance(source, Tensor) else repr([Path(f) for f in source])
    known = _shown(p, network, found, number) if found.labelled and (found.data.labels == number).any() else ()
    where = next(found.model.parameters()).device
    title = f"{found.title}: {name} → {found.classes[number]}"
    return build(
        found.model,
        images.to(where),
        known.to(where) if len(known) else None,
        number,
        names=(name, found.classes[number]),
        layers=plan.layers_of(found.model, tuple(layers)) if layers else found.layers,
        attacks={a: functools.partial(plan.attacked, name=a, steps=p.steps) for a in attacks},
        strengths=p.strengths,
        title=title,
        share=p.share,
        least=p.least,
        most=p.most,
        exploited=p.exploited,
        released=p.stride == "released",
        features=found.features,
        patches=p.patches,
        settings={"network": found.title, "steps of PGD, each a fifth of the strength": p.steps},
        code=code(p, network, given, found.classes[number], attacks, layers, seed),
        progress=progress,
    )


def _shown(p: Parameters, network: str, found: Subject, number: int) -> Tensor:
    """Images of a class: of the study's networks those that the study measures, else the first photographs of it."""
    if network in p.architectures:
        return plan.shown(p, found.model, found.data, number)
    return plan.of_class(found.data, number, p.images)


def of_pair(p: Parameters, arch: str, pair: str, *, seed: int = 0, attacks: Sequence[str] = plan.SHOWN) -> Graph:
    """The graph of one of the study's networks, or of the published one, on one pair of classes SOURCE>TARGET."""
    source, _, target = pair.partition(">")
    return between(p, arch, source, target, attacks=attacks, seed=seed)


def class_number(classes: Sequence[str], name: str, what: str = "class") -> int:
    """The number of a class by its name. Raises ValueError with those that come close."""
    if name in classes:
        return list(classes).index(name)
    close = names.close(name, classes)
    some = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(classes[:6])}, …"
    raise ValueError(f"there is no {what} {name!r}; {some}")


def opened(found: Subject, files: Sequence[Path]) -> Tensor:
    """Pictures of one's own as a network takes them: cut and scaled as its data are. Raises ValueError as `open_image`."""
    return torch.stack([found.data.like(open_image(Path(f))) for f in files])


def code(
    p: Parameters, network: str, source: str, target: str, attacks: Sequence[str], layers: Sequence[str], seed: int = 0
) -> str:
    """Python that traces a graph and writes its page; `source` as it stands in Python."""
    changed = p.model_dump(exclude_defaults=True, exclude={"profile", "variant"})
    given = ", ".join(f"{k}={v!r}" for k, v in changed.items())
    named = (f", layers={tuple(layers)!r}" if layers else "") + (f", seed={seed}" if seed else "")
    return (
        "from pathlib import Path\n\nfrom lib import pathways\nfrom lib.studies.attack_pathways import plan, traced\n\n"
        f"p = plan.Parameters({given})\n"
        f"graph = traced.between(p, {network!r}, {source}, {target!r}, attacks={tuple(attacks)!r}{named})\n"
        'Path("graph.html").write_text(pathways.page({graph.title: graph}, plan.NAMES, graph.title))\n'
    )


def row(graph: Graph) -> pd.DataFrame:
    """A graph as a row of the study's measurements."""
    about = {"attack": plan.GRAPH, "strength": 0.0, "layer": "", "image_id": 0, "success": False, "scores": None}
    return pd.DataFrame([about | {"graph": stored.packed(graph)}])


def graphs(table: pd.DataFrame) -> dict[str, Graph]:
    """The graphs among the study's measurements by their titles, the published network's first."""
    found = [stored.unpacked(content) for content in table.graph[table.attack == plan.GRAPH]]
    return {graph.title: graph for graph in found}
