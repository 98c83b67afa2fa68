"""Study 7: how far each explanation moves under each attack, a row an image, measure and radius.

Measures are called METHOD/ATTACK (the share of the map that moved, `lib.fooling.goals.mass_moved`) and METHOD/ATTACK/ranks
(Spearman's rank correlation of both maps). Only images that keep their decision and have a map afterwards count; random signs
do not ask, and a map may die, so that some have no value. METHOD/cost is what a step of the adaptive attack costs an image, in
forward passes, its own forward pass left out. `frame`: the share of Grad-CAM's map that lies on the frame that the manipulated
network was taught.

METHOD/randomised (of the standard networks and the published one) is the rank correlation of the map with that of the network
with random weights in so many of its layers (the level), from the logits down; of the edge detector too. METHOD/deletion and
METHOD/insertion are areas under the probability of the class, that of random orders less that of the map's (insertion: the
other way round), so that above 0 the map marks what the decision rests on. hide/CLASSES is the share of the discrepancy that
PGD makes that is left when it hides from CAM, and hide/bound what Proposition 1 leaves at least.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from lib.attacks import projected, single_step
from lib.claims import warned
from lib.claims.rows import rows
from lib.explanations import by_name
from lib.explanations.by_name import Settings
from lib.fooling import goals, manipulation, map_attack, sneaking
from lib.fooling.map_attack import MovedMaps
from lib.measures import comparison
from lib.networks import contract, folding, hooks, layers, rectifiers
from lib.sanity.invariance import after_randomisation
from lib.studies import marking
from lib.studies.attacked_explanations import plan
from lib.studies.attacked_explanations.plan import PHOTOGRAPHS, Parameters
from lib.system.flops import flops


def attacked(
    model: nn.Module,
    x: Tensor,
    method: str,
    kind: str,
    *,
    eps: float,
    settings: tuple[Settings, Settings],
    steps: int,
    stages: int,
    restarts: int = 1,
) -> MovedMaps:
    """The adaptive attack on the maps of a method; or the naive one, with as many steps and restarts: the network's own
    derivatives, one length of step, the last iterate."""
    judged, climbing = settings
    given: dict[str, Any] = {"eps": eps, "settings": judged, "climbing": climbing, "steps": steps, "restarts": restarts}
    if kind == "naive":
        return map_attack.move_maps(model, x, method, stages=1, betas=None, step=2.5 * eps / steps, **given)
    return map_attack.move_maps(model, x, method, stages=stages, **given)


def signs(x: Tensor, eps: float) -> Tensor:
    """Each image with random signs of its own: every network sees the same."""
    noise = torch.cat([single_step.random_sign(x[:1], torch.Generator().manual_seed(i)) for i in range(len(x))])
    return single_step.step_along(x, noise, eps)


def shift(model: nn.Module, method: str, settings: Settings, before: Tensor, x_adv: Tensor, y: Tensor) -> dict[str, Tensor]:
    """How far the maps (N, h, w) of classes y are from those before, NaN where the decision is another or the map is dead.

    In the batches of the attack: an image's noise in SmoothGrad is that of its place in them.
    """
    size = map_attack.batch_of(x_adv)
    found = [by_name.explain(method, model, *part, settings) for part in zip(x_adv.split(size), y.split(size), strict=True)]
    values, logits = torch.cat([f.values for f in found]), torch.cat([f.logits for f in found])
    return compared(before, values, logits.argmax(1) == y)


def compared(before: Tensor, after: Tensor, kept: Tensor) -> dict[str, Tensor]:
    """Both distances of maps, by the end of their measure's name."""
    counts = kept & ~comparison.degenerate(before) & ~comparison.degenerate(after)
    moved, ranks = goals.mass_moved(after, before), comparison.spearman(after, before)
    return {"": torch.where(counts, moved, torch.nan), "/ranks": torch.where(counts, ranks, torch.nan)}


def step_cost(model: nn.Module, x: Tensor, method: str, climbing: Settings) -> float:
    """Floating point operations of one step of the adaptive attack on an image, over those of a forward pass: the map and its
    derivative. (The step's own forward pass is one more.)"""

    def step() -> None:
        z = x[:1].clone().requires_grad_()
        with rectifiers.smoothed(model, map_attack.BETAS[0]):
            maps = by_name.explain(method, model, z, 0, climbing, create_graph=True).values
        torch.autograd.grad(maps.sum(), z)

    with hooks.frozen(model):
        return flops(step) / flops(lambda: model(x[:1]))


def measure_network(
    model: nn.Module, x: Tensor, p: Parameters, arm: str, seed: int, *, layer: str, head: str = "head", through: str = ""
) -> pd.DataFrame:
    """Everything about one network."""
    photos = arm == PHOTOGRAPHS
    methods, radii = (p.photo_methods, (p.photo_eps,)) if photos else (p.methods, p.eps)
    headline, steps = (p.photo_eps, p.photo_steps) if photos else (p.headline, p.steps)
    with torch.no_grad():
        y = contract.logits_of(model, x).argmax(1)
    found: list[pd.DataFrame] = []
    every = torch.ones_like(y, dtype=torch.bool)  # what these attacks return keeps its decision

    def keep(name: str, eps: float, values: dict[str, Tensor]) -> None:
        found.extend(rows(arm, seed, f"{name}{end}", eps, v) for end, v in values.items())

    for eps in radii:
        noisy = signs(x, eps / 255)
        carried: Tensor | None = None
        for method in ("gradcam", *(m for m in methods if m != "gradcam")):
            both = plan.settings(p, method, layer, head, through)
            budget = plan.budget(p, method, steps)
            own = attacked(model, x, method, "adaptive", eps=eps / 255, settings=both, **budget)
            keep(f"{method}/adaptive", eps, compared(own.before, own.after, every))
            keep(f"{method}/random", eps, shift(model, method, both[0], own.before, noisy, y))
            attack = f"adaptive attack on {by_name.METHODS.find(method).label}"
            warned.tell(f"{plan.NAMES[arm]}, seed {seed}", attack, eps, own.warnings)
            if carried is None:
                carried = own.x_adv
            else:
                keep(f"{method}/carried", eps, shift(model, method, both[0], own.before, carried, y))
            if eps == headline:
                naive = attacked(model, x, method, "naive", eps=eps / 255, settings=both, **budget)
                keep(f"{method}/naive", eps, compared(naive.before, naive.after, every))
                found.append(rows(arm, seed, f"{method}/cost", 0, torch.tensor([step_cost(model, x, method, both[1])])))
    return pd.concat(found, ignore_index=True)


def sane(
    model: nn.Module,
    x: Tensor,
    p: Parameters,
    arm: str,
    seed: int,
    *,
    parts: Sequence[str],
    layer: str,
    head: str = "head",
    through: str = "",
) -> pd.DataFrame:
    """Whether each explanation depends on what the network has learnt, and marks what its decision rests on."""
    methods, found = p.photo_methods if arm == PHOTOGRAPHS else p.methods, []
    with torch.no_grad():
        y = contract.logits_of(model, x).argmax(1)
    for method in methods:
        judged, _ = plan.settings(p, method, layer, head, through)
        if arm in plan.RANDOMISED:
            stays = after_randomisation(model, x, y, [method], judged, scheme="cascading", layers=parts)
            for row, name in enumerate(stays.methods):  # the method, and the edge detector, which sees no network
                if name == method or method == methods[0]:
                    for step in range(len(stays.steps)):
                        found.append(rows(arm, seed, f"{name}/randomised", step + 1, stays.rank_correlation[row, step]))
        maps = by_name.explain(method, model, x, y, judged).values
        found += marking.rows_of(model, x, y, maps, arm, seed, method)
    return pd.concat(found, ignore_index=True)


def hidden(model: nn.Module, x: Tensor, y: Tensor, p: Parameters, arm: str, seed: int) -> pd.DataFrame:
    """How much of what PGD moves CAM by is left when the attack hides from it, NaN where PGD does not fool the network."""
    found = []
    for classes in sneaking.DISTANCES:
        own = sneaking.sneak(model, x, y, eps=p.headline / 255, classes=classes, steps=p.hide_steps)
        share = torch.where(own.fooled, own.hidden / own.first, torch.nan)
        found.append(rows(arm, seed, f"hide/{classes}", p.headline, share))
        if classes == "two":
            least = torch.where(own.fooled, own.bound / own.first, torch.nan)
            found.append(rows(arm, seed, "hide/bound", p.headline, least))
    return pd.concat(found, ignore_index=True)


def accuracy(model: nn.Module, x: Tensor, y: Tensor, arm: str, seed: int, eps: float) -> pd.DataFrame:
    """Whether each image is right, clean and under PGD of 20 steps: what the gates ask."""
    with torch.no_grad():
        clean = contract.logits_of(model, x).argmax(1) == y
    hard = ~projected.pgd(model, x, y, eps=eps / 255, steps=20).success
    return pd.concat([rows(arm, seed, "right", 0, clean.float()), rows(arm, seed, "robust", eps, (clean & hard).float())])


def on_frame(model: nn.Module, x: Tensor, through: str) -> Tensor:
    """The share of Grad-CAM's map of the decision at the layer `through` that lies on the frame, (N,); NaN of an empty map."""
    h = by_name.explain("gradcam", model, x, None, Settings(through)).values
    return (h * manipulation.frame(h.shape[-1]).to(h)).sum((1, 2)) / h.sum((1, 2))


def measure(p: Parameters, arm: str, seed: int) -> pd.DataFrame:
    """The measurement of one network: rows (arm, seed, image_id, measure, level, value), the level being eps of 255."""
    if arm == PHOTOGRAPHS:
        subject = plan.published(p)
        model, x = subject.model, subject.data.images[: p.photo_images]
        inner = {"layer": subject.layer, "head": subject.head}
        learnt = [s for s in model.stages if any(True for _ in layers.find_layer(model, s).parameters())]  # not what is folded
        found = [
            measure_network(model, x, p, arm, seed, **inner),
            sane(model, x, p, arm, seed, parts=[*learnt, subject.head], **inner),
        ]
        return pd.concat(found, ignore_index=True)
    model, data = plan.model(p, arm, seed), plan.evaluation_set(p)
    where = next(model.parameters()).device
    x, y = data.images[:].to(where), data.labels.to(where)
    few, at = x[: p.sanity_images], {"layer": model.stages[-1], "through": plan.through(p, arm)}
    found = [
        accuracy(model, x, y, arm, seed, p.headline),
        measure_network(folding.folded(model, x[:2]), x, p, arm, seed, **at),  # faster; `sane` gives it other weights
        sane(model, few, p, arm, seed, parts=[*model.stages, "head"], **at),
        hidden(model, few, y[: p.sanity_images], p, arm, seed),
    ]
    if at["through"]:
        found.append(rows(arm, seed, "frame", 0, on_frame(model, x, at["through"])))
    return pd.concat(found, ignore_index=True)
