"""What a network must give: logits of a class each, and classes that it knows."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

# one class for all images, (N,) or (N, K) classes, or a function of the logits that gives these
Targets = int | Int[Tensor, " n"] | Int[Tensor, "n k"] | Callable[[Float[Tensor, "n classes"]], Int[Tensor, "n ..."]]


def predicted(logits: Float[Tensor, "n classes"]) -> Int[Tensor, " n"]:
    """The predicted class, (N,), for use as targets."""
    return logits.argmax(1)


def target_classes(targets: Targets, logits: Float[Tensor, "n classes"]) -> tuple[Int[Tensor, "n k"], bool]:
    """Targets as (N, K) integers within range, and whether the caller asked for one class an image."""
    n, count = logits.shape
    if callable(targets):
        targets = targets(logits.detach())
    if isinstance(targets, int):
        targets = torch.full((n,), targets, device=logits.device)
    if targets.is_floating_point() or targets.dim() not in (1, 2) or targets.shape[0] != n:
        raise ValueError(
            f"targets have shape {tuple(targets.shape)} and type {targets.dtype}; expected one class for all, (N,) or (N, K) "
            f"integers for N = {n} images"
        )
    if targets.numel() and (targets.min() < 0 or targets.max() >= count):
        raise ValueError(f"targets range over [{targets.min()}, {targets.max()}], but there are {count} classes")
    single = targets.dim() == 1
    return (targets[:, None] if single else targets), single


def check_logits(model: nn.Module, logits: Float[Tensor, "n classes"]) -> None:
    """Logits are (N, classes) and finite; what is not finite is traced to the parameter that caused it, where one did."""
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model returns {shape}; expected logits (N, classes)")
    if not torch.isfinite(logits).all():
        named = [*model.named_parameters(), *model.named_buffers()]
        bad = [name for name, p in named if p.is_floating_point() and not torch.isfinite(p).all()]
        cause = f"its weights hold NaN or infinity in {', '.join(bad[:3])}" if bad else "its weights are finite"
        raise ValueError(f"the model's logits are not finite; {cause}. Load or train it again.")


def looks_like_probabilities(logits: Float[Tensor, "n classes"]) -> bool:
    """True when every row lies in [0, 1] and sums to one, as softmax does and logits do not (two classes or more)."""
    if logits.shape[1] < 2:
        return False
    p = logits.detach()
    return bool((p >= 0).all() and (p <= 1).all() and ((p.sum(1) - 1).abs() < 1e-4).all())
