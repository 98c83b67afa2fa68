r"""Attacks on predictions: FGSM for many radii from one gradient, PGD under L-infinity and L2, random-sign noise.

Every attack is a function of (model, x, y) with x in [0, 1]; `eps` is in the same units (callers write 8 / 255). Losses
are per sample and summed, so a row's gradient does not depend on the batch it travels in. Results carry warnings where an
attack may be weaker than it looks, and are checked before they are returned: inside the ball, inside [0, 1], finite.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib import hooks

Norm = Literal["linf", "l2"]
Loss = Callable[[Tensor, Tensor], Tensor]  # (logits (N, classes), y (N,)) -> (N,)


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log softmax(logits)_y, per sample."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_{j != y} f_j - f_y, per sample: positive where the prediction is wrong; does not vanish on confident models."""
    others = logits.scatter(1, y[:, None], -torch.inf)
    return others.amax(1) - logits.gather(1, y[:, None])[:, 0]


@dataclass(frozen=True)
class Trace:
    """What happened on the way, by step: loss (steps, N) before each step, and fooled (steps, N)."""

    loss: Tensor
    fooled: Tensor


@dataclass(frozen=True)
class AttackResult:
    """Adversarial images (N,C,H,W); and, where the attack looked at its result, success (N,) bool, loss (N,) and logits.

    success: the prediction differs from y (untargeted) or equals it (targeted). first_success (N,): the number of steps
    after which an iterate first succeeded (0: the start did; -1: none did, though success may still hold by another
    restart). warnings: reasons to distrust a robust accuracy built on this.
    """

    x_adv: Tensor
    success: Tensor | None
    loss: Tensor | None
    logits: Tensor | None
    first_success: Tensor | None = None
    trace: Trace | None = None
    warnings: tuple[str, ...] = ()


def check_result(x: Tensor, x_adv: Tensor, eps: float, norm: Norm) -> None:
    """RuntimeError where an attack broke its own rules; the tolerance is float rounding."""
    if not torch.isfinite(x_adv).all():
        raise RuntimeError("the attack produced values that are not finite")
    if x_adv.amin() < 0 or x_adv.amax() > 1:
        raise RuntimeError("the attack left [0, 1]")
    distance = _norm(x_adv - x, norm).amax().item()
    if distance > eps * (1 + 1e-5) + 1e-6:
        raise RuntimeError(f"the attack left its ball: {norm} distance {distance:.6g} > eps {eps:.6g}")


def _norm(delta: Tensor, norm: Norm) -> Tensor:
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


def check_input(x: Tensor, y: Tensor, eps: float, norm: str = "linf") -> None:
    """ValueError for images outside [0, 1], a radius that is none, an unknown norm, labels that do not match."""
    hooks.check_images(x)
    if not 0 <= eps < float("inf"):
        raise ValueError(f"eps is {eps}; it is a radius in units of [0, 1] images: 0 or more (8/255 = 0.031)")
    if norm not in ("linf", "l2"):
        raise ValueError(f"unknown norm {norm!r}; choose linf or l2")
    if y.shape[:1] != x.shape[:1]:
        raise ValueError(f"{len(x)} images but {len(y)} labels")


def _per_sample(value: Tensor, n: int) -> Tensor:
    if value.shape != (n,):
        raise ValueError(f"the loss returned shape {tuple(value.shape)}; it must be per sample, ({n},): reduction='none'")
    return value


def input_gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Loss, *, check: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of the summed loss with respect to x, with the losses (N,) and logits of the same pass.

    For use inside `hooks.frozen(model)`: one forward pass, one backward pass to the input. `check` refuses logits that
    are not finite and labels out of range; once is enough.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(x)
        if check:
            hooks.check_logits(model, logits)
            hooks.check_labels(y, logits.shape[1], len(x))
        losses = _per_sample(loss(logits, y), len(x))
        (gradient,) = torch.autograd.grad(losses.sum(), x)
    return gradient, losses.detach(), logits.detach()


def weaknesses(gradient: Tensor, logits: Tensor) -> tuple[str, ...]:
    """What makes an attack weaker than it looks, from its first step."""
    found = []
    if hooks.looks_like_probabilities(logits):
        found.append(
            "the model returns probabilities, not logits: a loss that takes logits saturates and the attack is weak; "
            "remove the softmax"
        )
    zero = (gradient.flatten(1) == 0).all(1).float().mean().item()
    if zero > 0:
        found.append(
            f"zero gradients on {zero:.0%} of the images: the loss has saturated or the model masks its gradients; attack "
            "with the margin loss and with a transfer attack as well"
        )
    return tuple(found)


def fgsm_direction(model: nn.Module, x: Tensor, y: Tensor, *, loss: Loss = cross_entropy) -> tuple[Tensor, Tensor]:
    """sign(grad_x loss(f(x), y)) and the clean logits (N, classes): one forward and one backward pass.

    Goodfellow et al. 2015. The direction serves every eps: `step_along(x, direction, eps)`.
    """
    check_input(x, y, 0.0)
    with hooks.frozen(model):
        gradient, _, logits = input_gradient(model, x, y, loss)
    return gradient.sign(), logits


def random_sign(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Independent fair signs in the shape of x: noise of the same L-infinity and L2 size as FGSM's step, the control."""
    draw = torch.randint(0, 2, x.shape, generator=generator, device=generator.device if generator else x.device)
    return draw.to(x) * 2 - 1


def step_along(x: Tensor, direction: Tensor, eps: float) -> Tensor:
    """clip(x + eps * direction, 0, 1)."""
    check_input(x, x, eps)
    return (x + eps * direction).clamp(0, 1)


def fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: Sequence[float],
    loss: Loss = cross_entropy,
    targeted: bool = False,
) -> list[AttackResult]:
    """The fast gradient sign method for every eps from one gradient: x + eps sign(grad_x loss), clipped to [0, 1].

    `targeted` steps down the loss towards class y. One forward-and-backward pass, and a forward pass an eps for success.
    """
    for e in eps:
        check_input(x, y, e)
    with hooks.frozen(model):
        gradient, _, logits = input_gradient(model, x, y, loss)
        warnings = weaknesses(gradient, logits)
        direction = -gradient.sign() if targeted else gradient.sign()
        return [_judged(model, x, step_along(x, direction, e), y, e, "linf", loss, targeted, warnings) for e in eps]


@torch.no_grad()
def _judged(
    model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, eps: float, norm: Norm, loss: Loss, targeted: bool,
    warnings: tuple[str, ...],
) -> AttackResult:  # fmt: skip
    check_result(x, x_adv, eps, norm)
    logits = model(x_adv)
    hooks.check_logits(model, logits)
    hooks.check_labels(y, logits.shape[1], len(x))
    return AttackResult(x_adv, fooled(logits, y, targeted), loss(logits, y), logits, warnings=warnings)


def fooled(logits: Tensor, y: Tensor, targeted: bool = False) -> Tensor:
    """Where the prediction is y (targeted), or is not (untargeted)."""
    return (logits.argmax(1) == y) if targeted else (logits.argmax(1) != y)


def per_row(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))


def project(delta: Tensor, eps: float, norm: Norm) -> Tensor:
    """The nearest point of the ball of radius eps around 0, row by row."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    length = _norm(delta, "l2").clamp_min(1e-12)
    return delta * per_row((eps / length).clamp(max=1), delta)


def ascent(gradient: Tensor, norm: Norm) -> Tensor:
    """The direction of steepest ascent of length one: the sign under L-infinity, the normalised gradient under L2."""
    if norm == "linf":
        return gradient.sign()
    length = _norm(gradient, "l2")
    return gradient / per_row(length.clamp_min(1e-12), gradient)


def random_point(x: Tensor, eps: float, norm: Norm, generator: torch.Generator | None = None) -> Tensor:
    """A uniformly random point of the ball around 0, shaped like x."""
    device = generator.device if generator else x.device
    if norm == "linf":
        return (torch.rand(x.shape, generator=generator, device=device).to(x) * 2 - 1) * eps
    direction = torch.randn(x.shape, generator=generator, device=device).to(x)
    radius = torch.rand(len(x), generator=generator, device=device).to(x) ** (1 / x[0].numel())
    return ascent(direction, "l2") * per_row(radius, x) * eps


def default_step(eps: float, steps: int) -> float:
    """2.5 eps / steps (Madry et al. 2018): far enough to cross the ball and come back."""
    return 2.5 * eps / max(steps, 1)


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    steps: int,
    step: float | None = None,
    norm: Norm = "linf",
    direction: Norm | None = None,
    loss: Loss = cross_entropy,
    targeted: bool = False,
    random_start: bool = True,
    restarts: int = 1,
    trace: bool = False,
    judge: bool = True,
    generator: torch.Generator | None = None,
) -> AttackResult:
    """Projected gradient ascent (Madry et al. 2018) on a per-sample loss; descent towards class y when `targeted`.

    x' <- clip_[0,1](x + P_eps(x' + step * ascent(grad) - x)), from x or from a random point of the ball. The last iterate
    is returned; with `restarts`, for each row that of the best restart: a success if there is one, else the highest loss
    (lowest when targeted). `direction="linf"` takes sign steps in an L2 ball, as some released code does. `step` defaults
    to 2.5 eps / steps. `trace` records loss and success by step.

    Cost: `steps` forward-and-input-backward passes a restart, and one forward pass without a graph to judge the result;
    `judge=False` leaves that out (success, loss and logits are None), for training and for callers who look themselves.
    Randomness comes from `generator` alone, or from a fresh one seeded with 0.

    Raises ValueError for bad input, RuntimeError where the result breaks its own bounds.
    """
    check_input(x, y, eps, norm)
    check_input(x, y, eps, direction or norm)
    if steps < 0 or restarts < 1 or (restarts > 1 and not judge):
        raise ValueError(
            f"steps={steps}, restarts={restarts}, judge={judge}: 0 steps, 1 restart at least, and several restarts are "
            "compared by judging them"
        )
    step = default_step(eps, steps) if step is None else step
    generator = generator or torch.Generator().manual_seed(0)
    x = x.detach()
    uphill = -1.0 if targeted else 1.0
    best: AttackResult | None = None
    with hooks.frozen(model):
        for _ in range(restarts):
            x_adv = (x + random_point(x, eps, norm, generator)).clamp(0, 1) if random_start else x
            warnings: tuple[str, ...] = ()
            first = torch.full((len(x),), -1, dtype=torch.long, device=x.device)
            losses, successes = [], []
            for i in range(steps):
                gradient, values, logits = input_gradient(model, x_adv, y, loss, check=i == 0)
                if i == 0:
                    warnings = weaknesses(gradient, logits)
                now = fooled(logits, y, targeted)
                first = torch.where((first < 0) & now, i, first)
                if trace:
                    losses.append(values)
                    successes.append(now)
                delta = x_adv + uphill * step * ascent(gradient, direction or norm) - x
                x_adv = (x + project(delta, eps, norm)).clamp(0, 1)
            path = Trace(torch.stack(losses), torch.stack(successes)) if trace and steps else None
            if not judge:
                check_result(x, x_adv, eps, norm)
                return AttackResult(x_adv, None, None, None, first, path, warnings)
            result = _judged(model, x, x_adv, y, eps, norm, loss, targeted, warnings)
            first = torch.where((first < 0) & result.success, steps, first)
            result = replace(result, first_success=first, trace=path)
            best = result if best is None else _better(best, result, targeted)
    return best


def ascend(
    objective: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    eps: float,
    steps: int,
    step: float,
    norm: Norm = "linf",
    random_start: bool = True,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Projected ascent on any per-sample objective of the images, (N, C, H, W) -> (N,): PGD's path, its last iterate.

    For objectives that need more than logits and labels, as discrepancies of explanations do; what they run belongs inside
    `hooks.frozen`. The start is uniform in the ball (an objective that compares x with x' has no gradient at x' = x), cut
    to [0, 1]; or x + `start`, shaped like x, projected likewise, where that is given. Cost: `steps` times the objective and
    its backward pass to the images. Raises as `pgd` does.
    """
    check_input(x, x, eps, norm)
    if steps < 0:
        raise ValueError(f"steps={steps}: 0 steps at least")
    generator = generator or torch.Generator().manual_seed(0)
    x = x.detach()
    if start is None:
        start = random_point(x, eps, norm, generator) if random_start else torch.zeros_like(x)
    x_adv = (x + project(start, eps, norm)).clamp(0, 1)
    for _ in range(steps):
        z = x_adv.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(_per_sample(objective(z), len(x)).sum(), z)
        x_adv = (x + project(x_adv + step * ascent(gradient, norm) - x, eps, norm)).clamp(0, 1)
    check_result(x, x_adv, eps, norm)
    return x_adv


def _better(a: AttackResult, b: AttackResult, targeted: bool) -> AttackResult:
    """Row by row: a success before a failure, then the larger (targeted: smaller) loss; the first restart wins ties."""
    gain = a.loss - b.loss if targeted else b.loss - a.loss
    take = (b.success & ~a.success) | ((b.success == a.success) & (gain > 0))

    def pick(u: Tensor, v: Tensor) -> Tensor:
        return torch.where(per_row(take, u), v, u)

    return AttackResult(
        pick(a.x_adv, b.x_adv),
        a.success | b.success,
        pick(a.loss, b.loss),
        pick(a.logits, b.logits),
        pick(a.first_success, b.first_success),
        a.trace,  # of the first restart: the paths of several have no common clock
        tuple(dict.fromkeys(a.warnings + b.warnings)),
    )
