"""Study 5's measurement: accuracy under weak and strong attacks, transfer, alignment of maps and attacks, time.

The results are one tidy table, a row a measurement: (arm, seed, image_id, measure, level, value). Levels are radii, of 255.

* `clean`: right as it is; `pgd`: that, and right under the paper's attack, PGD of 5 steps of 2/255 from a random start, its
  last iterate; `strong`: right under that and under PGD of 50 steps with restarts and two losses (headline arms);
  `ensemble`: right under both and under auto-PGD on two losses and Square, on the first of these images;
* `transfer`: right on PGD's images, of 20 steps, against an original network that is neither the arm's own nor its teacher,
  on the strong attack's images at its largest radius;
* `noise`: right under random signs of the size of eps_0;
* `cosine`: of the sign of the network's own loss gradient with -s, s the map that its arm would have of the image: does the
  direction that training used look like an attack? `cosine-another`: with the map of another image;
* `seconds`: of one training step, a row a round (`timing`).
"""

import functools
import time

import pandas as pd
import torch
from torch import Tensor, nn

from lib.attacks import losses, projected, robustness, single_step
from lib.attacks.steps import input_gradient
from lib.claims.rows import rows
from lib.networks import folding, hooks
from lib.studies import parameters
from lib.studies.saliency_adversarial_training import maps, objective, plan
from lib.studies.saliency_adversarial_training.plan import (
    Parameters,
    config_of,
    evaluation_set,
    label,
    parsed,
    teacher,
    test_maps,
    transfer_seed,
)
from lib.system import devices
from lib.training import cache, evaluate, loop, objectives

TRANSFER_STEPS = 20
TIMED = (
    "original",
    "uniform",
    "sign",
    "sat-masks",
    "sat-boxes",
    "pgd",
    "pgd+uniform",
    "pgd+sign",
    "pgd+sat",
    "trades-1",
    "trades-1+uniform",
    "trades-1+sign",
    "trades-1+sat",
    "trades-6",
    "trades-6+uniform",
    "trades-6+sat",
)
BATCH = 64  # images that are attacked together: memory depends on it, not on how many there are; faster than 256 on a CPU


def pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, step: float | None = None) -> Tensor:
    """PGD's images (N, C, H, W), in batches; `eps` is of 255."""
    options = {"eps": eps / 255, "steps": steps, "step": step, "judge": False}
    return projected.pgd_in_batches(model, x, y, batch_size=BATCH, **options).x_adv


def weak(model: nn.Module, x: Tensor, y: Tensor, right: Tensor, eps: float, p: Parameters) -> Tensor:
    """Where a prediction that is right as it is stays so under the paper's attack at `eps` (of 255), (N,)."""
    held, rows_ = right.clone(), right.nonzero()[:, 0].to(x.device)
    if len(rows_):
        held[right] = _right(model, pgd(model, x[rows_], y[rows_], eps, p.steps, p.step / 255), y[rows_])
    return held


def strong(model: nn.Module, x: Tensor, y: Tensor, p: Parameters) -> robustness.RobustAccuracy:
    """Random starts, cross-entropy and the margin, steps that shrink; what keeps its margin in a large ball is not attacked in
    a smaller one. Then the ensemble, on what these leave: `after["pgd"]` is without it."""
    return robustness.robust_accuracy(
        model,
        x,
        y,
        eps=[e / 255 for e in p.strong_eps],
        steps=p.strong_steps,
        losses=(losses.cross_entropy, losses.margin),
        restarts=p.restarts,
        second_look=0.0,
        ensemble=p.ensemble([e / 255 for e in p.strong_eps], len(x)),
        batch_size=BATCH,
    )


@functools.lru_cache(maxsize=32)
def transferred(p: Parameters, seed: int, eps: float) -> Tensor:
    """PGD's images against the original that `seed` is attacked from, at `eps` of 255."""
    data = evaluation_set(p)
    model = folding.measured(plan.model(p, "original", transfer_seed(p, seed)), data.images[:2])
    where, part = next(model.parameters()).device, slice(0, p.strong_images)
    x, y = data.images[part].to(where), data.labels[part].to(where)
    return pgd(model, x, y, eps, TRANSFER_STEPS)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Of each row's angle, (N,)."""
    return torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1))


def measure(p: Parameters, arm: str, seed: int) -> pd.DataFrame:
    """Everything about one network."""
    data = evaluation_set(p)
    model = folding.measured(plan.model(p, arm, seed), data.images[:2])
    where = next(model.parameters()).device
    x, y = data.images[:].to(where, memory_format=torch.channels_last), data.labels.to(where)
    clean = _right(model, x, y)
    found = [rows(arm, seed, "clean", 0, clean)]
    held = {eps: weak(model, x, y, clean, eps, p) for eps in p.eps_grid}
    for eps, right in held.items():
        found.append(rows(arm, seed, "pgd", eps, right))
    part, high = slice(0, p.strong_images), p.strong_eps[-1]
    if arm not in p.arms:  # of switches and sweeps nothing else is told
        return pd.concat(found, ignore_index=True)
    noisy = single_step.step_along(x, single_step.random_sign(x, torch.Generator().manual_seed(0)), p.eps / 255)
    found.append(rows(arm, seed, "noise", p.eps, _right(model, noisy, y)))
    found.append(rows(arm, seed, "transfer", high, _right(model, transferred(p, seed, high), y[part])))
    if arm in p.headline:
        result = strong(model, x[part], y[part], p)
        parameters.doubted(f"{label(arm)}, seed {seed}", result.doubts, 255)
        few = min(p.ensemble_images, p.strong_images)
        for i, eps in enumerate(p.strong_eps, 1):
            found.append(rows(arm, seed, "strong", eps, result.after["pgd"][i].cpu() & held[eps][part]))
            if few:
                found.append(rows(arm, seed, "ensemble", eps, (result.correct[i].cpu() & held[eps][part])[:few]))
    s = test_maps(p, arm, seed, data)
    if s is not None:
        with hooks.frozen(model):
            parts = zip(x.split(BATCH), y.split(BATCH), strict=True)
            gradient = torch.cat([input_gradient(model, a, b, losses.cross_entropy)[0].sign() for a, b in parts])
        s = s.to(gradient)
        found.append(rows(arm, seed, "cosine", 0, cosine(gradient, -s)))
        found.append(rows(arm, seed, "cosine-another", 0, cosine(gradient, -s[maps.derangement(len(s))])))
    return pd.concat(found, ignore_index=True)


@torch.no_grad()
def _right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return evaluate.predictions(model, x) == y.cpu()


def timing(p: Parameters) -> pd.DataFrame:
    """Seconds of a training step of the arms TIMED, interleaved over rounds on one CPU thread: measure `seconds`.

    A round takes two steps of each arm, one of either side of the coin where the arm has one, so that a ratio is not a
    matter of luck. All steps are of one network: time does not depend on its weights, and memory not on the number of arms.
    `maps/KIND`: seconds to make the maps of a batch, which `lib.training` does once a run.
    """
    timed = [a for a in TIMED if a in p.arms]
    used = {parsed(a, p.mix_maps).attribution for a in p.every}
    kinds = [k for k in maps.ATTRIBUTIONS if k in used]
    data = cache.images_of(p.dataset, "train", p.size, p.channels, p.train_images)
    sides = _both_sides()
    configs = {a: config_of(p, a, 0) for a in timed}
    model = cache.fresh(configs[timed[0]], data)
    optimizer = loop.optimizer_of(configs[timed[0]], model)
    x, y = data.images[: p.batch_size], data.labels[: p.batch_size]
    s = torch.ones_like(x)  # what the values are does not matter to the time
    guide = teacher(p, "std", 0) if kinds else None
    where = devices.device(p.device)
    x, y, s = x.to(where), y.to(where), s.to(where)
    found = []

    def synchronised() -> float:
        if where.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    model.to(where, memory_format=torch.channels_last).train()
    with devices.threads(1):
        for i in range(-1, p.rounds):  # the first warms up
            for arm in timed:
                begin = synchronised()
                for side in sides:
                    moment = objectives.Moment(p.epochs - 1, 0, 1, 1.0, torch.Generator().manual_seed(side), p.epochs, s)
                    loss = objectives.objective(configs[arm].objective)(model, x, y, moment, **configs[arm].options)
                    optimizer.zero_grad(set_to_none=True)
                    loss.mean().backward()
                    optimizer.step()
                found.append((arm, i, (synchronised() - begin) / len(sides)))
            for kind in kinds:
                begin = synchronised()
                maps.directions(guide, x, y, kind=kind, n=p.smooth_n, ig_steps=p.ig_steps)
                found.append((f"maps/{kind}", i, synchronised() - begin))
    table = pd.DataFrame(found, columns=["arm", "image_id", "value"])
    return table[table.image_id >= 0].assign(seed=0, measure="seconds", level=0.0)


def _both_sides() -> list[int]:
    """Seeds of generators whose first throw is heads, and tails."""
    thrown = {objective.coin(torch.Generator().manual_seed(s)): s for s in range(20)}
    return [thrown[True], thrown[False]]
