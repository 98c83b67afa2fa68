"""Attacks of one step: the fast gradient sign method (Goodfellow et al. 2015, arXiv:1412.6572), and random signs beside it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.attacks.losses import Loss, cross_entropy
from lib.attacks.steps import AttackResult, check_ball, check_input, input_gradient, judged, radii, weaknesses
from lib.data.checks import Labels
from lib.networks import hooks
from lib.system.devices import wide


def fgsm_direction(
    model: nn.Module, x: Float[Tensor, "n c h w"], y: Labels, *, loss: Loss = cross_entropy
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n classes"]]:
    """sign(grad_x loss(f(x), y)) and the clean logits (N, classes): one forward and one backward pass.

    Goodfellow et al. 2015. The direction serves every eps: `step_along(x, direction, eps)`.
    """
    x, y = check_input(x, y, 0.0)
    with hooks.frozen(model):
        gradient, _, logits = input_gradient(model, x, y, loss)
    return gradient.sign(), logits


def random_sign(x: Float[Tensor, " n *s"], generator: torch.Generator | None = None) -> Float[Tensor, " n *s"]:
    """Independent fair signs in the shape of x: noise of the same L-infinity and L2 size as FGSM's step, the control."""
    draw = torch.randint(0, 2, x.shape, generator=generator, device=generator.device if generator else x.device)
    return draw.to(x) * 2 - 1


def step_along(x: Float[Tensor, "n c h w"], direction: Float[Tensor, "n c h w"], eps: float) -> Float[Tensor, "n c h w"]:
    """clip(x + eps * direction, 0, 1)."""
    x = check_ball(x, eps)
    return (wide(x) + eps * direction).clamp(0, 1).to(x)


def fgsm(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Labels,
    *,
    eps: Sequence[float],
    loss: Loss = cross_entropy,
    targeted: bool = False,
) -> list[AttackResult]:
    """The fast gradient sign method for every eps from one gradient: x + eps sign(grad_x loss), clipped to [0, 1].

    `targeted` steps down the loss towards class y. One forward-and-backward pass, and a forward pass an eps for success.
    """
    eps = radii(eps)
    for e in eps:
        check_ball(x, e)
    x, y = check_input(x, y, 0.0)
    with hooks.frozen(model):
        gradient, _, logits = input_gradient(model, x, y, loss)
        warnings = weaknesses(gradient, logits)
        direction = -gradient.sign() if targeted else gradient.sign()
        return [judged(model, x, step_along(x, direction, e).detach(), y, e, "linf", loss, targeted, warnings) for e in eps]
