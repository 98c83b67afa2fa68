"""Study 6: what each network's neurons do under attack, image by image; and the graphs, a row each."""

import itertools

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib.claims import warned
from lib.pathways import neurons
from lib.studies.attack_pathways import plan, traced
from lib.studies.attack_pathways.plan import Pair, Parameters


def measure_pair(
    model: nn.Module,
    source: Tensor,
    target: Tensor,
    pair: Pair,
    p: Parameters,
    layers: tuple[str, ...],
    network: str = "network",
) -> pd.DataFrame:
    """Scores of every channel of every layer on every image: a row for each (attack, strength, layer, image).

    Attack `source` and `target` are the clean images of either class, strength 0; `success` says whether the network decides
    for the target class. What attacks warn of is told of `network`.
    """
    rows = []
    y = torch.full((len(source),), pair.target, device=source.device)

    def keep(images: Tensor, attack: str, strength: float) -> None:
        found = neurons.scores(model, images, layers)
        success = (found.logits.argmax(1) == pair.target).cpu().numpy()
        for layer in layers:
            values = found.of[layer].cpu().numpy()
            rows.append(
                pd.DataFrame(
                    {
                        "attack": attack,
                        "strength": strength,
                        "layer": layer,
                        "image_id": np.arange(len(values)),
                        "success": success,
                        "scores": list(values),
                    }
                )
            )

    keep(source, "source", 0.0)
    keep(target, "target", 0.0)
    for attack, strength in itertools.product(plan.ATTACKS, p.strengths):
        parts = zip(source.split(neurons.BATCH), y.split(neurons.BATCH), strict=True)
        found = [plan.attack(model, a, b, strength, name=attack, steps=p.steps) for a, b in parts]
        warned.tell(network, f"{plan.NAMES[attack]} (L2)", strength, itertools.chain(*(f.warnings for f in found)))
        keep(torch.cat([f.x_adv for f in found]), attack, strength)
    return pd.concat(rows, ignore_index=True)


def measure(p: Parameters, arch: str, seed: int, number: int | None = None) -> pd.DataFrame:
    """All pairs of one network; or the graph of the pair of a number, which is one row."""
    if number is not None:
        pair = plan.PHOTOGRAPHED if arch == plan.PHOTOGRAPHS else p.pairs[number]
        return traced.row(traced.of_pair(p, arch, pair)).assign(arch=arch, seed=seed, pair=pair)
    model, data = plan.network(p, arch, seed).model, plan.evaluation_set(p)
    where = next(model.parameters()).device
    layers = plan.layers_of(model, p.layers)
    parts = []
    for pair in p.pairs:
        classes = plan.pair_of(pair, data.classes)
        source, target = (plan.of_class(data, c, p.images).to(where) for c in classes)
        network = f"{arch}, seed {seed}, {pair}"
        parts.append(measure_pair(model, source, target, classes, p, layers, network).assign(pair=pair))
    return pd.concat(parts, ignore_index=True).assign(arch=arch, seed=seed)
