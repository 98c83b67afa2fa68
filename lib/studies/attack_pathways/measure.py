"""Study 6: what each network's neurons do under attack, image by image; and the graphs, a row each."""

import itertools

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lib.claims import warned
from lib.networks import folding
from lib.pathways import influences, interventions, neurons
from lib.pathways.graph import top_count
from lib.pathways.neurons import Groups, Scores
from lib.studies.attack_pathways import plan, traced
from lib.studies.attack_pathways.plan import AMONG, CLAMPED, DRAWN, OWN, TOGETHER, UNDONE, Pair, Parameters


def groups_of(source: Scores, target: Scores, p: Parameters) -> dict[str, Groups]:
    """By layer, the neurons that one class alone uses, or both, on clean images."""
    found = {}
    for layer, values in source.of.items():
        k = top_count(values.shape[1], p.share, p.least, p.most)
        own, other = (neurons.median(v) for v in (values, target.of[layer]))
        found[layer] = neurons.groups(own, other, own[None], k)
    return found


def among(
    model: nn.Module, x: Tensor, layers: tuple[str, ...], groups: dict[str, Groups], released: bool = False
) -> dict[str, dict[str, np.ndarray]]:
    """By layer and group (OWN): of each image, the mean influence (what is above zero of it) of the group's neurons of the
    layer below on those of this one; NaN in the first layer and where a group is empty in either.

    Cost: a forward pass of each image, and the kernel slices between these neurons.
    """
    shown = {n: (*groups[n].original, *groups[n].target) for n in layers}
    first = {n: len(groups[n].original) for n in layers}
    found = {n: {group: np.full(len(x), np.nan, np.float32) for group in OWN} for n in layers}
    for image in range(len(x)):
        matrices = influences.influence(model, x[image : image + 1], layers, shown, released=released)
        for (below, above), matrix in zip(itertools.pairwise(layers), matrices, strict=True):
            a, b = first[below], first[above]
            for group, part in (("original", matrix[:a, :b]), ("target", matrix[a:, b:])):
                if part.numel():
                    found[above][group][image] = float(part.clamp_min(0).mean())
    return found


def undone(
    model: nn.Module,
    images: tuple[Tensor, Tensor],
    scores: tuple[Scores, Scores, Scores],
    pair: Pair,
    p: Parameters,
    layers: tuple[str, ...],
    *,
    alone: bool,
) -> dict[str, dict[str, np.ndarray]]:
    """By layer and column (UNDONE, TOGETHER): of each attacked image, whether it misses the target class once channels hold the
    maps of its clean image, the mean over draws for random ones; TOGETHER, which all layers repeat, is of all layers at once,
    UNDONE of each layer `alone`, where that is asked for.

    `images` are clean and attacked ones of the source class, `scores` those of clean source and target images and of attacked
    ones. NaN where the attack had not succeeded, and where it exploits no neuron of the layer (or of any), so that there is
    nothing to clamp. Of a layer's neurons the same ones are clamped on all images, as many as are exploited; random ones are
    drawn anew for each.

    Cost: for each image on which the attack has succeeded, 2 + DRAWN forward passes, as many again for each layer `alone`, and
    three of the clean image.
    """
    clean, attacked = images
    source, _, after = scores
    won = (after.logits.argmax(1) == pair.target) & (source.logits.argmax(1) != pair.target)
    count = int(won.sum())
    generator = torch.Generator().manual_seed(0)
    own = {which: [{} for _ in range(DRAWN if which == "random" else 1)] for which in CLAMPED}
    for layer in layers:
        before, other, now = (neurons.median(s.of[layer]) for s in scores)
        width = len(now)
        k = top_count(width, p.share, p.least, p.most)
        exploited = neurons.groups(before, other, now[None], k, exploited=p.exploited).exploited[0]
        if not exploited:
            continue
        excited = interventions.most_excited(before, now, len(exploited))
        for which, channels in (("exploited", exploited), ("excited", excited)):
            own[which][0][layer] = interventions.chosen(channels, width, count)
        for draw in own["random"]:
            draw[layer] = interventions.drawn(len(exploited), width, count, generator)
    there = list(own["exploited"][0])
    by_layer = there if alone else []
    found = {n: {c: np.full(len(clean), np.nan, np.float32) for c in (*UNDONE.values(), *TOGETHER.values())} for n in layers}
    if not there or not count:
        return found
    for which, draws in own.items():
        sets = [*draws, *({n: draw[n]} for n in by_layer for draw in draws)]
        logits = interventions.clamped(model, attacked[won], clean[won], sets)
        failed = (logits.argmax(2) != pair.target).float().cpu().unflatten(0, (1 + len(by_layer), len(draws))).mean(1).numpy()
        for layer in layers:
            found[layer][TOGETHER[which]][won.cpu()] = failed[0]
        for layer, values in zip(by_layer, failed[1:], strict=True):
            found[layer][UNDONE[which]][won.cpu()] = values
    return found


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
    for the target class. The columns AMONG are the influence among either class's own neurons, on clean source images and at
    the largest strength of PGD and noise; TOGETHER what clamping makes of PGD, UNDONE the same of single layers at
    its largest strength (`undone`); NaN elsewhere. What attacks warn of is told of `network`.
    """
    rows = []
    y = torch.full((len(source),), pair.target, device=source.device)
    groups: dict[str, Groups] = {}

    def keep(images: Tensor, attack: str, strength: float, found: Scores | None = None) -> None:
        found = found or neurons.scores(model, images, layers)
        success = (found.logits.argmax(1) == pair.target).cpu().numpy()
        strongest = strength == p.strengths[-1]
        asked = attack == "source" or (attack in ("pgd", "noise") and strongest)
        edges = among(model, images, layers, groups, p.stride == "released") if asked else {}
        scored = (*clean.values(), found)
        failed = undone(model, (source, images), scored, pair, p, layers, alone=strongest) if attack == "pgd" else {}
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
                    | {column: edges[layer][group] if edges else np.float32(np.nan) for group, column in AMONG.items()}
                    | {c: failed[layer][c] if failed else np.float32(np.nan) for c in (*UNDONE.values(), *TOGETHER.values())}
                )
            )

    clean = {"source": neurons.scores(model, source, layers), "target": neurons.scores(model, target, layers)}
    groups |= groups_of(*clean.values(), p)
    for (attack, found), images in zip(clean.items(), (source, target), strict=True):
        keep(images, attack, 0.0, found)
    for attack, strength in itertools.product(plan.ATTACKS, p.strengths):
        hit = plan.attack(model, source, y, strength, name=attack, steps=p.steps)
        warned.tell(network, f"{plan.NAMES[attack]} (L2)", strength, hit.warnings)
        keep(hit.x_adv, attack, strength)
    return pd.concat(rows, ignore_index=True)


def measure(p: Parameters, arch: str, seed: int, number: int | None = None, what: str = plan.GRAPH) -> pd.DataFrame:
    """All pairs of one network; or of the pair of a number its SCORES, or its graph, which is one row."""
    if number is not None and what == plan.GRAPH:
        pair = plan.PHOTOGRAPHED if arch == plan.PHOTOGRAPHS else p.pairs[number]
        return traced.row(traced.of_pair(p, arch, pair)).assign(arch=arch, seed=seed, pair=pair)
    data = plan.evaluation_set(p)
    model = folding.measured(plan.network(p, arch, seed).model, data.images[:2])
    where = next(model.parameters()).device
    layers = plan.layers_of(model, p.layers)
    parts = []
    for pair in p.pairs if number is None else p.pairs[number : number + 1]:
        classes = plan.pair_of(pair, data.classes)
        source, target = (plan.shown(p, model, data, c).to(where) for c in classes)
        network = f"{arch}, {pair}" if p.as_published else f"{arch}, seed {seed}, {pair}"
        parts.append(measure_pair(model, source, target, classes, p, layers, network).assign(pair=pair))
    return pd.concat(parts, ignore_index=True).assign(arch=arch, seed=seed)
