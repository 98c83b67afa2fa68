r"""The training arms of Boopathy et al. 2020: for each, an outer loss and what the inner maximisation climbs.

With x' the attacked copy, D~ and D1 the discrepancies of `lib.fooling.discrepancy` on CAM (the authors' scale: without
1/u and the halves), R the L1 norm of integrated gradients of the cross-entropy along the segment from x to x':

==============  ========================  =======================
arm             outer loss                inner objective
==============  ========================  =======================
Normal          CE(x)                     none
Adv             CE(x')                    CE(x')
TRADES          CE(x) + KL(x || x')       KL(x || x')
IG-Norm         CE(x) + w R               R
IG-Norm-Sum     CE(x') + w R              CE(x') + w R
Int-one-class   CE(x) + g D1              D1
Int             CE(x) + g D~              D~
Int-Adv         CE(x') + g D~             CE(x') + g D~
Int2            CE(x) + g D~              CE(x')
Int2-Adv        CE(x') + g D~             CE(x')
==============  ========================  =======================

The inner loop starts from a random point of the box (at x' = x the discrepancy has no gradient), takes steps of constant
size by the gradient's sign, and its last iterate counts. eps is 0 at first, then grows linearly; while it is 0, x' = x.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lib.attacks import losses, projected
from lib.attacks.losses import kl
from lib.explanations.activation_maps import all_cams
from lib.fooling import discrepancy
from lib.networks import hooks, reach
from lib.training.objectives import Moment

Term = Literal["one", "all", "kl", "ig"]


class Arm(NamedTuple):
    """outer: where cross-entropy is taken and what is added; inner: the terms that the attack climbs."""

    name: str
    adversarial: bool  # cross-entropy at x' rather than at x
    penalty: Term | None
    climbs: tuple[Literal["ce"] | Term, ...]


ARMS = {
    "normal": Arm("Normal", False, None, ()),
    "adv": Arm("Adv", True, None, ("ce",)),
    "trades": Arm("TRADES", False, "kl", ("kl",)),
    "ig-norm": Arm("IG-Norm", False, "ig", ("ig",)),
    "ig-norm-sum": Arm("IG-Norm-Sum", True, "ig", ("ce", "ig")),
    "int-one-class": Arm("Int-one-class", False, "one", ("one",)),
    "int": Arm("Int", False, "all", ("all",)),
    "int-adv": Arm("Int-Adv", True, "all", ("ce", "all")),
    "int2": Arm("Int2", False, "all", ("ce",)),
    "int2-adv": Arm("Int2-Adv", True, "all", ("ce",)),
}


def ramp(progress: float, begin: float, full: float) -> float:
    """The share of eps at `progress` of the run: 0 to `begin`, 1 from `full`, linear between."""
    if progress >= full:
        return 1.0
    return max(0.0, (progress - begin) / (full - begin)) if full > begin else 0.0


def ig_norm(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    x_adv: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    *,
    points: int = 5,
    create_graph: bool = True,
) -> Float[Tensor, " n"]:
    """R, per sample (N,): || (x' - x) * mean over k of grad CE(x + k/points (x' - x)) ||_1, right ends k = 1..points.

    One forward and one backward pass over `points` copies of the batch; differentiable in the parameters and x' with
    `create_graph`. Chen et al. 2019 (IG-Norm) weigh it by 1; the authors' code takes the gradient of a batch mean, which
    makes that 1 / batch size.
    """
    delta = x_adv - x
    along = torch.cat([x + k / points * delta for k in range(1, points + 1)])
    if not along.requires_grad:
        along.requires_grad_()
    loss = F.cross_entropy(model(along), y.repeat(points), reduction="sum")
    gradient = reach.image_gradient(model, loss, along, create_graph=create_graph)
    mean = gradient.view(points, *x.shape).mean(0)
    # deviation: R is per sample; the gradient in the authors' code is of a batch mean, so that its weight is 1 / batch size.
    return (delta * mean).flatten(1).abs().sum(1)


class Weights(NamedTuple):
    """gamma: of the discrepancy at the authors' scale; ig: of R; kl: of TRADES' divergence."""

    gamma: float = 0.01
    ig: float = 0.02
    kl: float = 1.0
    ig_points: int = 5


class _Seen(NamedTuple):
    """What one forward pass gave: logits, and the CAMs of all classes where they are needed, at the authors' scale."""

    logits: Tensor
    maps: Tensor | None


def _see(model: nn.Module, x: Tensor, cams: bool, check: bool = False) -> _Seen:
    if not cams:
        return _Seen(model(x), None)
    maps, logits = all_cams(model, x, check=check)
    # deviation: maps without 1/u, and below D~ without its halves, as in the authors' code: gamma is of that scale.
    return _Seen(logits, maps * maps[0, 0].numel())


def _term(term: str, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, clean: _Seen, seen: _Seen, w: Weights) -> Tensor:
    """A term of a loss, weighted, per sample."""
    if term == "ce":
        return losses.cross_entropy(seen.logits, y)
    if term == "kl":
        return w.kl * kl(clean.logits, seen.logits)
    if term == "ig":
        return w.ig * ig_norm(model, x, x_adv, y, points=w.ig_points)
    assert clean.maps is not None and seen.maps is not None  # `cams` was asked for
    if term == "one":
        return w.gamma * discrepancy.l1(clean.maps, seen.maps).gather(1, y[:, None])[:, 0]
    return w.gamma * 2 * discrepancy.all_class(clean.maps, seen.maps, y, seen.logits)


def inner(
    arm: Arm,
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    *,
    eps: float,
    steps: int,
    step: float,
    weights: Weights,
    generator: torch.Generator,
) -> Float[Tensor, "n c h w"]:
    """x', the last of `steps` sign steps up the arm's inner objective from a random point of the box, (N, C, H, W).

    The network is seen in evaluation mode. Cost: `steps` forward-and-input-backward passes (IG arms: more), and one
    forward pass of x where the objective compares with it.
    """
    cams = bool({"one", "all"} & set(arm.climbs))
    with hooks.frozen(model):
        clean = _Seen(x.new_empty(0), None)
        if set(arm.climbs) & {"one", "all", "kl"}:
            with torch.no_grad():
                clean = _see(model, x, cams)

        def objective(z: Tensor) -> Tensor:
            seen = _see(model, z, cams) if set(arm.climbs) - {"ig"} else clean
            return sum((_term(t, model, x, z, y, clean, seen, weights) for t in arm.climbs), x.new_zeros(len(x)))

        return projected.ascend(objective, x, eps=eps, step=step, steps=steps, generator=generator)


def train(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    moment: Moment,
    *,
    arm: str,
    eps: float = 0.0,
    steps: int = 0,
    step: float = 0.0,
    begin: float = 0.0,
    full: float = 0.5,
    gamma: float = 0.01,
    ig_weight: float = 0.02,
    ig_points: int = 5,
    kl_weight: float = 1.0,
) -> Float[Tensor, " n"]:
    """The loss of an arm, per sample: the objective that `lib.training` calls; see the module's docstring.

    `eps` is 0 for the share `begin` of the run and whole from `full`. Raises ValueError for an unknown arm, negative
    weights, a warm-up that is longer than the run, and where CAM is needed and the network has no such head.
    """
    if arm not in ARMS:
        raise ValueError(f"unknown arm {arm!r}; choose one of {', '.join(ARMS)}")
    if min(gamma, ig_weight, kl_weight) < 0 or eps < 0:
        raise ValueError(f"gamma={gamma}, ig_weight={ig_weight}, kl_weight={kl_weight}, eps={eps}: 0 or more")
    if not 0 <= begin <= full <= 1:
        raise ValueError(f"eps starts to grow at {begin} of the run and is whole at {full}: 0 <= begin <= full <= 1 is needed")
    chosen, weights = ARMS[arm], Weights(gamma, ig_weight, kl_weight, ig_points)
    cams = chosen.penalty in ("one", "all")
    if cams and moment.epoch == moment.batch == 0:
        with hooks.frozen(model), torch.no_grad():
            _see(model, x[:2], True, check=True)
    now = eps * ramp(moment.progress, begin, full)
    if not chosen.climbs or now == 0:  # x' = x: every penalty is zero
        return losses.cross_entropy(model(x), y)
    x_adv = inner(chosen, model, x, y, eps=now, steps=steps, step=step, weights=weights, generator=moment.generator)
    if chosen.penalty in ("one", "all", "kl"):  # both copies in one pass: one large pass costs less than two small ones
        both = _see(model, torch.cat([x, x_adv]), cams)
        clean = _Seen(both.logits[: len(x)], both.maps[: len(x)] if cams else None)
        attacked = _Seen(both.logits[len(x) :], both.maps[len(x) :] if cams else None)
    else:
        clean = attacked = _see(model, x_adv if chosen.adversarial else x, False)
    loss = losses.cross_entropy((attacked if chosen.adversarial else clean).logits, y)
    if chosen.penalty:
        loss = loss + _term(chosen.penalty, model, x, x_adv, y, clean, attacked, weights)
    return loss
