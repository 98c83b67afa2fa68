"""Guided backpropagation (Springenberg et al. 2015, arXiv:1412.6806), alone and joined with Grad-CAM++."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lib.explanations import activation_maps
from lib.explanations.explanation import Explanation
from lib.explanations.gradients import Of, _check, _chosen, _differentiate, gradient
from lib.networks import hooks
from lib.networks.contract import Targets


class _GuidedReLU(torch.autograd.Function):
    """ReLU whose backward pass lets through what is positive on both sides."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, inplace: bool) -> Tensor:
        ctx.save_for_backward(z > 0)
        if not inplace:
            return z.clamp_min(0)
        ctx.mark_dirty(z)
        return z.clamp_min_(0)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        (positive,) = ctx.saved_tensors
        return gradients[0].clamp_min(0) * positive, None


_RELUS = {F.relu, torch.relu, Tensor.relu, torch.ops.aten.relu.default}
_RELUS_IN_PLACE = {torch.relu_, Tensor.relu_, F.relu_}


class _Guided(TorchFunctionMode):
    """Every ReLU that runs inside is guided: modules, functions and methods alike, in place or not."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _RELUS or func in _RELUS_IN_PLACE:
            self.seen += 1
            z = args[0] if args else kwargs["input"]
            inplace = func in _RELUS_IN_PLACE or (
                func is F.relu and (args[1] if len(args) > 1 else kwargs.get("inplace", False))
            )
            return _GuidedReLU.apply(z, inplace)
        return func(*args, **kwargs)


def guided_backpropagation(model: nn.Module, x: Float[Tensor, "n c h w"], targets: Targets, *, of: Of = "score") -> Explanation:
    """Guided backpropagation; see the module's docstring. Cost: one forward pass and one backward pass to the input.

    Every ReLU is guided however it is written (`nn.ReLU`, `F.relu`, `torch.relu`, `.relu_()`): hooks on modules miss the
    functional ones, and the map is then a plain gradient in part. Other activations keep their own gradient. Raises
    ValueError as `gradient` does, and where no ReLU ran, so that nothing would be guided.
    """
    x = _check(x, of)
    with hooks.frozen(model), _Guided() as mode:
        values, logits = _differentiate(model, x, _chosen(model, targets), of)
    if not mode.seen:
        raise ValueError("no ReLU ran in the forward pass: guided backpropagation is not defined; use the gradient")
    return Explanation(values, logits.detach())


def guided_gradcam(
    model: nn.Module, x: Float[Tensor, "n c h w"], targets: Targets, layer: str, *, guiding: bool = True
) -> Explanation:
    """Guided Grad-CAM++ (Chattopadhay et al. 2018) as Mangla et al. 2020 released it, (N, C, H, W), in [-1, 1].

    It joins g = sign(guided backpropagation) and the signed Grad-CAM++ map c of `layer`, enlarged and in [0, 1]:
    ((g + 1)(c + 1) - 2) / 2, which is c where g = 1 and -1 where g = -1. Without `guiding` g is the sign of the plain
    gradient. Of the logit alone: Grad-CAM++ of a loss is not defined here. Cost: two forward and two backward passes.
    """
    raw = activation_maps.gradcam(model, x, targets, layer, method="gradcam++", sign="signed")
    c = activation_maps.upsample(activation_maps.normalise(raw.values), tuple(x.shape[2:]))[:, None]
    back = guided_backpropagation if guiding else gradient
    g = back(model, x, targets).values.sign()
    return Explanation(((g + 1) * (c + 1) - 2) / 2, raw.logits)
