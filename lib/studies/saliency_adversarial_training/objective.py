r"""Saliency-based adversarial training (Mangla et al. 2020): perturbations from maps instead of from an attack.

With s the map of an image (maps.py), epoch t of E, and z uniform in {-1, 1}, for each pixel and channel

.. math:: \delta = z \text{ with probability } \alpha^t, \text{ else } -s; \qquad x' = clip(x + \epsilon_0 \delta, 0, 1).

Why -s: the smallest change that turns a binary linear classifier, whose logit of the other class is minus that of the true
one, goes along minus the gradient of the true class's logit. Where several classes compete that is a simplification.

The curriculum runs from random signs to maps. t counts in hundredths of the run, so that alpha means the same for any
number of epochs: P(random) = (alpha^10)^(10 epoch / epochs); the published alpha^10 is .6.

An arm is a `base` and a `mix`:

========  =========================================  ====================================================================
base      loss                                       x'
========  =========================================  ====================================================================
plain     CE(x')                                     the mix's, always
pgd       CE(x')                                     one fair coin a batch: the mix's, or PGD's
trades    CE(x) + beta KL(f(x) || f(x'))             one fair coin a batch: the mix's, or that of TRADES' inner loop
========  =========================================  ====================================================================

`mix` is `none` (every batch attacked; plain: clean), `uniform` (x + U(-eps, eps)), or `sat`. Under `pgd` the mix `sat` keeps
PGD's random start; the released code does not project again, so that x' can be 2 eps away (`reproject=False`).
"""

from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lib.attacks import losses, projected, single_step
from lib.attacks.losses import kl
from lib.attacks.steps import project, random_point
from lib.networks import hooks
from lib.studies.saliency_adversarial_training import maps
from lib.training.objectives import Moment

Base = Literal["plain", "pgd", "trades"]
Mix = Literal["none", "uniform", "sat"]
TRADES_START = 1e-3  # standard deviation of the normal start of TRADES' inner loop


def share_random(epoch: int, epochs: int, alpha10: float) -> float:
    """P(random) = alpha^t in epoch `epoch` (from 0) of `epochs`, with alpha10 = alpha^10 and t = 100 epoch / epochs.

    Raises ValueError for alpha10 outside (0, 1]; 1 is random signs to the end. (The limit alpha = 0, no randomness after the
    first epoch, is any tiny alpha10.)
    """
    if not 0 < alpha10 <= 1:
        raise ValueError(f"alpha^10 = {alpha10}: it lies in (0, 1]; 0.6 is published, 1 is random signs throughout")
    if not 0 <= epoch < epochs:
        raise ValueError(f"epoch {epoch} of {epochs}: epochs count from 0")
    # deviation: t counts in hundredths of the run, so that alpha means the same for any length; Mangla et al. train 100 epochs.
    return float(alpha10 ** (10 * epoch / epochs))


def perturbation(s: Float[Tensor, " n *s"], share: float, generator: torch.Generator) -> Float[Tensor, " n *s"]:
    """delta, shaped like the maps s: each element a random sign with probability `share`, else -s.

    In {-1, 1} for maps of signs: an element without direction (s = 0) gets a random one. Maps with values between are
    continuous, and 0 is a value there. A draw for every element, fresh
    for each call. Raises ValueError for maps outside [-1, 1] and a share that is no probability.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share = {share} is no probability")
    if s.numel() and not s.abs().amax() <= 1:
        raise ValueError(f"maps reach {s.abs().amax().item():.3g}; directions lie in [-1, 1]: binarise them first")
    device = generator.device
    random = (torch.rand(s.shape, generator=generator, device=device) < share).to(s.device)
    signs = bool(((s == 0) | (s.abs() == 1)).all())
    # deviation: an element without direction gets a random sign; in the code of Mangla et al. it is not perturbed.
    return torch.where(random | ((s == 0) & signs), single_step.random_sign(s, generator), -s)


def coin(generator: torch.Generator) -> bool:
    """A fair coin: heads, a batch of the mix; tails, an attack."""
    return bool(torch.rand(1, generator=generator, device=generator.device) < 0.5)


def trades_attack(
    model: nn.Module, x: Float[Tensor, "n c h w"], *, eps: float, steps: int, step: float, generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """TRADES' inner maximisation (Zhang et al. 2019): KL(f(x) || f(x')) climbed by sign steps from x + .001 N(0, 1)."""
    start = TRADES_START * torch.randn(x.shape, generator=generator, device=generator.device).to(x)
    with hooks.frozen(model):
        with torch.no_grad():
            clean = model(x)
        return projected.ascend(lambda z: kl(clean, model(z)), x, eps=eps, steps=steps, step=step, start=start)


def _mixed(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    moment: Moment,
    *,
    base: str,
    mix: str,
    eps: float,
    alpha10: float,
    reproject: bool,
    fresh: dict[str, Any] | None,
) -> Tensor:
    """x' of the mix, in [0, 1]."""
    generator = moment.generator
    if mix == "uniform":
        return (x + random_point(x, eps, "linf", generator)).clamp(0, 1)
    share = share_random(moment.epoch, moment.epochs, alpha10)
    s = torch.zeros_like(x) if share == 1 else _maps(x, y, moment, fresh)  # random signs ask no map
    moved = eps * perturbation(s, share, generator)
    if base == "pgd":
        moved = moved + random_point(x, eps, "linf", generator)
        # deviation: x' is projected again, unless told otherwise; in the code of Mangla et al. it can be 2 eps away.
        moved = project(moved, eps, "linf") if reproject else moved
    return (x + moved).clamp(0, 1)


def _maps(x: Tensor, y: Tensor, moment: Moment, fresh: dict[str, Any] | None) -> Tensor:
    if fresh is not None:
        return maps.directions(moment.teacher, x, y, generator=moment.generator, **fresh)
    assert moment.maps is not None  # `_check_maps` saw them
    return moment.maps


def _check_maps(x: Tensor, moment: Moment, fresh: dict[str, Any] | None) -> None:
    if fresh is not None and moment.teacher is None:
        raise ValueError("maps of the augmented batch are asked for, but this training has no teacher")
    if fresh is None and moment.maps is None:
        raise ValueError("saliency-based training needs maps (`TrainConfig.maps`), or alpha10 = 1 for random signs")
    if fresh is None and moment.maps.shape != x.shape:
        raise ValueError(f"maps of shape {tuple(moment.maps.shape)} for images of shape {tuple(x.shape)}: a map an image")


def train(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    moment: Moment,
    *,
    base: Base = "plain",
    mix: Mix = "sat",
    eps: float = 8 / 255,
    alpha10: float = 0.6,
    steps: int = 5,
    step: float = 2 / 255,
    beta: float = 1.0,
    reproject: bool = True,
    fresh: dict[str, Any] | None = None,
) -> Float[Tensor, " n"]:
    """The loss of an arm, per sample: the objective that `lib.training` calls; see the module's docstring.

    `eps` is the radius of attack and mix alike (eps_0), `steps` and `step` are of PGD's and TRADES' inner loops, which see
    the network in evaluation mode. `fresh` recomputes the teacher's maps on every augmented batch, as released: arguments
    of `maps.directions`. Raises ValueError for unknown arms and missing maps.
    """
    if base not in get_args(Base) or mix not in get_args(Mix):
        raise ValueError(f"base={base!r}, mix={mix!r}: choose of {', '.join(get_args(Base))} and of {', '.join(get_args(Mix))}")
    if not (beta >= 0 and 0 <= eps < float("inf")):
        raise ValueError(f"beta = {beta}, eps = {eps}: 0 or more, and finite; eps is a radius in units of [0, 1] images")
    share_random(0, 1, alpha10)  # refuses what is no alpha
    if mix == "sat" and alpha10 < 1:
        _check_maps(x, moment, fresh)  # in the first epoch too, which would not miss them
    generator = moment.generator
    if mix != "none" and (base == "plain" or coin(generator)):
        x_new = _mixed(model, x, y, moment, base=base, mix=mix, eps=eps, alpha10=alpha10, reproject=reproject, fresh=fresh)
    elif base == "pgd":
        # deviation: PGD and TRADES look for x' with the network in evaluation mode; in the code of Mangla et al. it trains.
        x_new = projected.pgd(model, x, y, eps=eps, steps=steps, step=step, judge=False, generator=generator).x_adv
    elif base == "trades":
        x_new = trades_attack(model, x, eps=eps, steps=steps, step=step, generator=generator)
    else:
        x_new = x
    if base != "trades":
        return losses.cross_entropy(model(x_new), y)
    # deviation: both copies in one pass, whose batch statistics are of both; the authors pass each on its own.
    clean, attacked = model(torch.cat([x, x_new])).split(len(x))  # both in one pass: batch statistics are of both
    return losses.cross_entropy(clean, y) + beta * kl(clean, attacked)
