"""Projected gradient descent under L-infinity and L2 (Madry et al. 2018, arXiv:1706.06083).

Every attack is a function of (model, x, y) with x in [0, 1]; `eps` is in the same units (callers write 8 / 255). Losses
are per sample and summed, so a row's gradient does not depend on the batch it travels in. Results carry warnings where an
attack may be weaker than it looks, and are checked before they are returned: inside the ball, inside [0, 1], finite.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lib.attacks.losses import Loss, cross_entropy
from lib.attacks.steps import (
    AttackResult,
    Norm,
    Trace,
    _per_sample,
    ascent,
    check_ball,
    check_input,
    check_radius,
    check_result,
    default_step,
    fooled,
    input_gradient,
    joined,
    judged,
    per_row,
    project,
    random_point,
    weaknesses,
)
from lib.data.checks import Labels
from lib.networks import hooks, reach
from lib.system import devices
from lib.system.devices import wide


def pgd(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Labels,
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

    `y` is one class an image, or one for all. Images of half precision are moved in float32 and rounded where the model sees
    them, and at the end. Raises ValueError for bad input, RuntimeError where the result breaks its own bounds.
    """
    x, y = check_input(x, y, eps, norm)
    if direction is not None:
        check_ball(x, 0.0, direction)
    if step is not None:
        check_radius(step, direction or norm, x[0].numel(), "step")
    if steps < 0 or restarts < 1 or (restarts > 1 and not judge):
        raise ValueError(
            f"steps={steps}, restarts={restarts}, judge={judge}: 0 steps, 1 restart at least, and several restarts are "
            "compared by judging them"
        )
    step = default_step(eps, steps) if step is None else step
    generator = generator or torch.Generator().manual_seed(0)
    x, dtype = wide(x.detach()), x.dtype
    uphill = -1.0 if targeted else 1.0
    best: AttackResult | None = None
    with hooks.frozen(model):
        for _ in range(restarts):
            x_adv = (x + random_point(x, eps, norm, generator)).clamp(0, 1) if random_start else x
            warnings: tuple[str, ...] = ()
            first = torch.full((len(x),), -1, dtype=torch.long, device=x.device)
            losses, successes = [], []
            for i in range(steps):
                gradient, values, logits = input_gradient(model, x_adv.to(dtype), y, loss, check=i == 0)
                if i == 0:
                    warnings = weaknesses(gradient, logits)
                now = fooled(logits, y, targeted)
                first = torch.where((first < 0) & now, i, first)
                if trace:
                    losses.append(values)
                    successes.append(now)
                # in place, since large images pay for every new tensor
                delta = ascent(gradient, direction or norm).mul_(uphill * step).add_(x_adv).sub_(x)
                x_adv = project(delta, eps, norm).add_(x).clamp_(0, 1)
            x_adv = x_adv.to(dtype)
            path = Trace(torch.stack(losses), torch.stack(successes)) if trace and steps else None
            if not judge:
                check_result(x, x_adv, eps, norm)
                return AttackResult(x_adv, None, None, None, first, path, warnings)
            result = judged(model, x, x_adv, y, eps, norm, loss, targeted, warnings)
            first = torch.where((first < 0) & result.success, steps, first)
            result = replace(result, first_success=first, trace=path)
            best = result if best is None else _better(best, result, targeted)
    return best


def pgd_in_batches(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    *,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
    **options: Any,
) -> AttackResult:
    """`pgd` of some images at a time, so that memory does not grow with their number; `options` are its own.

    `batch_size` unless given: all, or as many as are small enough together. One stream of random starts runs through the
    batches, so that with one restart they do not matter under L-infinity. There is no trace. Raises as `pgd` does.
    """
    rows = devices.images_at_once(max(x.shape[2:]), len(x)) if batch_size is None else batch_size
    if rows < 1 or options.get("trace"):
        raise ValueError(f"batch_size={batch_size}, trace={options.get('trace', False)}: one image at least, and no trace")
    generator = generator or torch.Generator().manual_seed(0)
    parts = zip(x.split(rows), y.split(rows), strict=True)
    return joined([pgd(model, *part, generator=generator, **options) for part in parts])


def ascend(
    objective: Callable[[Float[Tensor, "n c h w"]], Float[Tensor, " n"]],
    x: Float[Tensor, "n c h w"],
    *,
    eps: float,
    steps: int,
    step: float,
    norm: Norm = "linf",
    random_start: bool = True,
    start: Float[Tensor, "n c h w"] | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n c h w"]:
    """Projected ascent on any per-sample objective of the images, (N, C, H, W) -> (N,): PGD's path, its last iterate.

    For objectives that need more than logits and labels, as discrepancies of explanations do; what they run belongs inside
    `hooks.frozen`. The start is uniform in the ball (an objective that compares x with x' has no gradient at x' = x), cut
    to [0, 1]; or x + `start`, shaped like x, projected likewise, where that is given. Cost: `steps` times the objective and
    its backward pass to the images. Raises as `pgd` does.
    """
    x = check_ball(x, eps, norm)
    check_radius(step, norm, x[0].numel(), "step")
    if steps < 0:
        raise ValueError(f"steps={steps}: 0 steps at least")
    generator = generator or torch.Generator().manual_seed(0)
    x, dtype = wide(x.detach()), x.dtype
    if start is None:
        start = random_point(x, eps, norm, generator) if random_start else torch.zeros_like(x)
    x_adv = (x + project(start, eps, norm)).clamp(0, 1)
    for _ in range(steps):
        z = x_adv.detach().to(dtype).requires_grad_()
        with torch.enable_grad():
            (gradient,) = reach.gradients(_per_sample(objective(z), len(x)).sum(), [z])
        if gradient is None:
            raise ValueError("the objective does not depend on the images as far as autograd knows, so nothing can be climbed")
        x_adv = (x + project(x_adv + step * ascent(gradient, norm) - x, eps, norm)).clamp(0, 1)
    x_adv = x_adv.to(dtype)
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
