"""Study 6: the graph of a network of the study, a pair of classes and an attack, ready to be drawn."""

import functools

from torch import Tensor

from lib.pathways.graph import Graph, build
from lib.studies.attack_pathways.measure import attacked
from lib.studies.attack_pathways.plan import Parameters, evaluation_set, layers_of, network, of_class, pair_of


def graph(p: Parameters, arch: str, pair: str, *, seed: int = 0, chosen: tuple[str, ...] = ("pgd", "fgsm")) -> Graph:
    """The graph of one network on one pair of classes."""
    data = evaluation_set(p)
    classes = pair_of(pair, data.classes)
    source = of_class(data, classes.source, p.images)
    return graph_of(p, arch, source, data.classes[classes.source], classes.target, seed=seed, chosen=chosen)


def graph_of(
    p: Parameters,
    arch: str,
    source: Tensor,
    name: str,
    target: int,
    *,
    seed: int = 0,
    chosen: tuple[str, ...] = ("pgd",),
    layers: tuple[str, ...] = (),
) -> Graph:
    """The graph of one network on any source images, which are called `name`, and a target class."""
    model, data = network(p, arch, seed).model, evaluation_set(p)
    where = next(model.parameters()).device
    return build(
        model,
        source.to(where),
        of_class(data, target, p.images).to(where),
        target,
        names=(name, data.classes[target]),
        layers=layers_of(model, layers or p.layers),
        attacks={a: functools.partial(attacked, name=a, steps=p.steps) for a in chosen},
        strengths=p.strengths,
        title=f"{arch}: {name} → {data.classes[target]}",
        share=p.share,
        least=p.least,
        most=p.most,
        exploited=p.exploited,
        released=p.stride == "released",
        features=p.features,
        patches=p.patches,
        progress=True,
    )
