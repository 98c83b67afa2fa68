"""What every attack is made of: checked input, gradients of the loss at the images, projections, results and their checks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from lib.attacks.losses import Loss
from lib.data import checks
from lib.data.checks import Labels
from lib.networks import contract, reach
from lib.system.devices import wide

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class Trace:
    """What happened on the way, by step: loss (steps, N) before each step, and fooled (steps, N)."""

    loss: Float[Tensor, "steps n"]
    fooled: Bool[Tensor, "steps n"]


@dataclass(frozen=True)
class AttackResult:
    """Adversarial images (N,C,H,W); and, where the attack looked at its result, success (N,) bool, loss (N,) and logits.

    success: the prediction differs from y (untargeted) or equals it (targeted). first_success (N,): the number of steps
    after which an iterate first succeeded (0: the start did; -1: none did, though success may still hold by another
    restart). warnings: reasons to distrust a robust accuracy built on this.
    """

    x_adv: Float[Tensor, "n c h w"]
    success: Bool[Tensor, " n"] | None
    loss: Float[Tensor, " n"] | None
    logits: Float[Tensor, "n classes"] | None
    first_success: Int[Tensor, " n"] | None = None
    trace: Trace | None = None
    warnings: tuple[str, ...] = ()


def joined(parts: Sequence[AttackResult]) -> AttackResult:
    """The result of all images from those of some of them, in order: what is known of each of them, each warning once."""

    def together(values: list[Tensor | None]) -> Tensor | None:
        known = [v for v in values if v is not None]
        return torch.cat(known) if len(known) == len(values) else None

    names = ("x_adv", "success", "loss", "logits", "first_success")
    found: dict[str, Any] = {name: together([getattr(part, name) for part in parts]) for name in names}
    return AttackResult(**found, warnings=tuple(dict.fromkeys(text for part in parts for text in part.warnings)))


def check_result(x: Float[Tensor, "n c h w"], x_adv: Float[Tensor, "n c h w"], eps: float, norm: Norm) -> None:
    """RuntimeError where an attack broke its own rules; the tolerance is the rounding of the images' type.

    A pixel of an attacked image is rounded by a quarter of the type's eps at most (below 1, where a step of it is half of
    that), the radius by half of it, relatively; under L2 all d pixels are, and so are the factors of the projection.
    """
    if not torch.isfinite(x_adv).all():
        raise RuntimeError("the attack produced values that are not finite")
    if x_adv.amin() < 0 or x_adv.amax() > 1:
        raise RuntimeError("the attack left [0, 1]")
    distance = _norm(wide(x_adv) - wide(x), norm).amax().item()
    rounding = torch.finfo(x_adv.dtype).eps
    pixels = 1 if norm == "linf" else x[0].numel() ** 0.5
    if distance > eps * (1 + max(1e-5, 2 * rounding)) + max(1e-6, pixels * rounding / 4):
        raise RuntimeError(f"the attack left its ball: {norm} distance {distance:.6g} > eps {eps:.6g}")


def _norm(delta: Tensor, norm: Norm) -> Tensor:
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


def check_ball(x: Float[Tensor, "n c h w"], eps: float, norm: str | None = "linf") -> Float[Tensor, "n c h w"]:
    """The images, as `check_images` gives them; ValueError for images outside [0, 1], an unknown norm, a radius that is none.

    `norm` None: the radius is in a measure of the attack's own, which has no largest one.
    """
    x = checks.check_images(x)
    if norm not in ("linf", "l2", None):
        raise ValueError(f"unknown norm {norm!r}; choose linf or l2")
    check_radius(eps, norm, x[0].numel())
    return x


def check_radius(eps: float, norm: str | None, pixels: int, what: str = "eps") -> None:
    """A radius or step is a number from 0 to what separates black and white images; else a ValueError that says so."""
    try:
        size = float("nan" if isinstance(eps, str) else eps)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{what} is {eps!r}; expected one number in units of [0, 1] images (8/255 = 0.031)") from None
    if not 0 <= size < float("inf"):
        raise ValueError(f"{what} is {eps}; it is a radius in units of [0, 1] images: 0 or more (8/255 = 0.031)")
    largest = {"linf": 1.0, "l2": pixels**0.5}.get(norm or "", float("inf"))
    if size > largest:
        raise ValueError(
            f"{what} is {size:g}; images are in [0, 1], where no two are farther apart than {largest:.4g} ({norm}): "
            f"did you mean {size:g}/255?"
        )


def radii(eps: Sequence[float]) -> tuple[float, ...]:
    """Several radii. Raises ValueError for one number."""
    try:
        return tuple(eps)
    except TypeError:
        raise ValueError(f"eps is {eps!r}; several radii are taken here, with a result each: eps=[{eps!r}]") from None


def check_input(
    x: Float[Tensor, "n c h w"], y: Labels, eps: float, norm: str | None = "linf"
) -> tuple[Float[Tensor, "n c h w"], Int[Tensor, " n"]]:
    """Images and labels as attacks use them; ValueError as `check_ball`, and for labels that do not match or are none."""
    x = check_ball(x, eps, norm)
    return x, checks.as_labels(y, x)


def logits_of(model: nn.Module, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
    """`contract.logits_of`, in float32 where they are of half precision, in which losses saturate."""
    return wide(contract.logits_of(model, x))


def _per_sample(value: Tensor, n: int) -> Tensor:
    if value.shape != (n,):
        raise ValueError(f"the loss returned shape {tuple(value.shape)}; it must be per sample, ({n},): reduction='none'")
    return value


def input_gradient(
    model: nn.Module, x: Float[Tensor, "n c h w"], y: Int[Tensor, " n"], loss: Loss, *, check: bool = True
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, " n"], Float[Tensor, "n classes"]]:
    """Gradient of the summed loss with respect to x, with the losses (N,) and logits of the same pass.

    For use inside `hooks.frozen(model)`: one forward pass, one backward pass to the input. `check` refuses logits that
    are not finite and labels out of range; once is enough.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = logits_of(model, x)
        if check:
            contract.check_logits(model, logits)
            checks.check_labels(y, logits.shape[1], len(x))
        losses = _per_sample(loss(logits, y), len(x))
        gradient = reach.image_gradient(model, losses.sum(), x)
    return wide(gradient), losses.detach(), logits.detach()


def weaknesses(gradient: Float[Tensor, "n ..."], logits: Float[Tensor, "n classes"]) -> tuple[str, ...]:
    """What makes an attack weaker than it looks, from its first step."""
    found = []
    if contract.looks_like_probabilities(logits):
        found.append(f"{contract.PROBABILITIES}: a loss that takes logits saturates and the attack is weak; remove the softmax")
    zero = (gradient.flatten(1) == 0).all(1).float().mean().item()
    if zero > 0:
        found.append(
            f"zero gradients on {zero:.0%} of the images: the loss has saturated or the model masks its gradients; attack "
            "with the margin loss and with a transfer attack as well"
        )
    return tuple(found)


@torch.no_grad()
def judged(
    model: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    y: Tensor,
    eps: float,
    norm: Norm,
    loss: Loss,
    targeted: bool,
    warnings: tuple[str, ...],
) -> AttackResult:
    """The result of an attack, looked at: whether each row is fooled, and its loss, by one forward pass."""
    check_result(x, x_adv, eps, norm)
    logits = logits_of(model, x_adv)
    contract.check_logits(model, logits)
    checks.check_labels(y, logits.shape[1], len(x))
    return AttackResult(x_adv, fooled(logits, y, targeted), loss(logits, y), logits, warnings=warnings)


def fooled(logits: Float[Tensor, "n classes"], y: Int[Tensor, " n"], targeted: bool = False) -> Bool[Tensor, " n"]:
    """Where the prediction is y (targeted), or is not (untargeted)."""
    logits = contract.two_logits(logits)
    return (logits.argmax(1) == y) if targeted else (logits.argmax(1) != y)


def per_row(values: Shaped[Tensor, " n"], like: Shaped[Tensor, "..."]) -> Shaped[Tensor, "n ..."]:
    return values.view(-1, *[1] * (like.dim() - 1))


def project(delta: Float[Tensor, " n *s"], eps: float, norm: Norm) -> Float[Tensor, " n *s"]:
    """The nearest point of the ball of radius eps around 0, row by row."""
    if norm == "linf":
        return delta.clamp(-eps, eps)
    length = _norm(delta, "l2").clamp_min(1e-12)
    return delta * per_row((eps / length).clamp(max=1), delta)


def ascent(gradient: Float[Tensor, " n *s"], norm: Norm) -> Float[Tensor, " n *s"]:
    """The direction of steepest ascent of length one: the sign under L-infinity, the normalised gradient under L2."""
    if norm == "linf":
        return gradient.sign()
    length = _norm(gradient, "l2")
    return gradient / per_row(length.clamp_min(1e-12), gradient)


def random_point(
    x: Float[Tensor, " n *s"], eps: float, norm: Norm, generator: torch.Generator | None = None
) -> Float[Tensor, " n *s"]:
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
