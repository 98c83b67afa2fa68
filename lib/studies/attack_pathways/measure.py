"""Study 6: what each network's neurons do under attack, image by image."""

import itertools

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib.attacks import projected, single_step
from lib.attacks.steps import ascent
from lib.pathways import neurons
from lib.studies.attack_pathways.plan import ATTACKS, Pair, Parameters, evaluation_set, layers_of, network, of_class, pair_of


def attacked(model: nn.Module, x: Tensor, y: Tensor, attack: str, strength: float, *, steps: int = 20) -> Tensor:
    """Images pushed towards the classes y by one of ATTACKS; `strength` is an L2 radius.

    Cost: `steps` forward-and-backward passes, one, or none.
    """
    if attack == "pgd":
        return projected.pgd(
            model,
            x,
            y,
            eps=strength,
            steps=steps,
            step=strength / 5,
            norm="l2",
            targeted=True,
            judge=False,
            generator=torch.Generator().manual_seed(0),
        ).x_adv
    size = x[0].numel() ** 0.5
    if attack == "fgsm":
        return single_step.step_along(x, -single_step.fgsm_direction(model, x, y)[0], strength / size)
    if attack != "noise":
        raise ValueError(f"unknown attack {attack!r}; choose one of {', '.join(ATTACKS)}")
    draw = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    return (x + strength * ascent(draw, "l2")).clamp(0, 1)


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
    for attack, strength in itertools.product(ATTACKS, p.strengths):
        parts = zip(source.split(neurons.BATCH), y.split(neurons.BATCH), strict=True)
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
