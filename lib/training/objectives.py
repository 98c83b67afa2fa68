"""What training minimises: objectives, per sample, and where in its run a training step stands."""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lib.attacks import projected
from lib.attacks.steps import Norm
from lib.networks import contract


@dataclass(frozen=True)
class Moment:
    """Where a training step stands in its run, and the randomness that it may use."""

    epoch: int  # from 0
    batch: int  # within the epoch, from 0
    batches: int  # in an epoch
    progress: float  # the share of the run that lies behind it, in [0, 1)
    generator: torch.Generator
    epochs: int = 1  # in the run
    maps: Float[Tensor, "n c h w"] | None = None  # what `TrainConfig.maps` made of these images, moved as they were
    teacher: Any = None  # the network of `TrainConfig.teacher`


# (model, x, y, moment, **options) -> per-sample loss (N,); the inner maximisation, where there is one, happens inside.
Objective = Callable[..., Tensor]


def standard(model: nn.Module, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], moment: Moment) -> Float[Tensor, " n"]:
    """Cross-entropy on the images as they are."""
    return F.cross_entropy(contract.logits_of(model, x), y, reduction="none")


def adversarial(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    moment: Moment,
    *,
    eps: float = 8 / 255,
    steps: int = 7,
    step: float | None = None,
    norm: Norm = "linf",
    direction: Norm | None = None,
    random_start: bool = True,
    share: float = 1.0,
    warmup: float = 0.0,
) -> Float[Tensor, " n"]:
    """Cross-entropy on PGD's images (Madry et al. 2018); the attack sees the network in evaluation mode.

    `share` of an epoch's batches are adversarial, spread evenly (0.5: every second one), the others are clean. The radius,
    and an explicit `step` with it, grow linearly from 0 over the first `warmup` of the run: large radii are not learnt
    otherwise.
    """
    if int(moment.batches * share) == 0:
        raise ValueError(f"share {share:g} of {moment.batches} batch(es) an epoch is none: nothing would be attacked")
    # deviation: with `share` below 1 batches stay clean, as in the code of Zhang and Zhu (1/2); Madry et al. and their print
    # attack all.
    if int((moment.batch + 1) * share) == int(moment.batch * share):
        return standard(model, x, y, moment)
    # deviation: the radius grows over the warm-up; the papers train at the whole radius from the start.
    grown = min(1.0, moment.progress / warmup) if warmup else 1.0
    found = projected.pgd(
        model,
        x,
        y,
        eps=grown * eps,
        steps=steps,
        step=None if step is None else grown * step,
        norm=norm,
        direction=direction,
        random_start=random_start,
        judge=False,
        generator=moment.generator,
    )
    return F.cross_entropy(contract.logits_of(model, found.x_adv), y, reduction="none")


OBJECTIVES: dict[str, Objective] = {"standard": standard, "adversarial": adversarial}


def objective(name: str) -> Objective:
    """An objective by name, or as `module:function` of a study's own module in lib."""
    return OBJECTIVES[name] if name in OBJECTIVES else own(name, "objective", OBJECTIVES)


def name_of(function: Callable[..., Any]) -> str:
    """A function of lib as a configuration names it, `module:function`: what `own` resolves."""
    return f"{function.__module__.removeprefix('lib.')}:{function.__name__}"


def own(name: str, what: str, known: Iterable[str]) -> Callable[..., Any]:
    """`module:function` within lib; ValueError that names the `known` ones where there is no such function."""
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(f"lib.{module}"), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"unknown {what} {name!r}; choose one of {', '.join(known)} or module:function in lib") from error
