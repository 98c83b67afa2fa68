"""Guided backpropagation (Springenberg et al. 2015, arXiv:1412.6806), alone and joined with Grad-CAM++."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointError

from lib.explanations import activation_maps
from lib.explanations.explanation import Explanation
from lib.explanations.gradients import Of, _check, _chosen, _differentiate, gradient
from lib.networks import hooks
from lib.networks.contract import Targets
from lib.networks.layouts import Layout
from lib.networks.tape import tensors


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


_INPUT, _OTHER = ("input", "self"), ("other",)


def _given(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, *names: str) -> Any:
    return args[place] if len(args) > place else next((kwargs[n] for n in names if n in kwargs), None)


def _zero(value: Any) -> bool:
    """Whether it is 0 everywhere, and no activation."""
    if isinstance(value, Tensor):
        return not value.requires_grad and not value.any()
    return isinstance(value, int | float) and value == 0


def _passes_positive(mask: Any, z: Any) -> bool:
    """Whether it is 1 (or true) where z is positive, and 0 elsewhere."""
    plain = isinstance(mask, Tensor) and isinstance(z, Tensor) and not mask.requires_grad and z.requires_grad
    return plain and mask.shape == z.shape and torch.equal(mask.to(z.dtype), (z > 0).to(z.dtype))


def _relu_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """What an operation by this name puts through a ReLU; None where it is none. In-place ones end in an underscore."""
    z, name = _given(args, kwargs, 0, *_INPUT), name.removesuffix("_")
    if name == "relu":
        return z
    if name in ("clamp", "clip"):
        low, high = _given(args, kwargs, 1, "min"), _given(args, kwargs, 2, "max")
        return z if high is None and _zero(low) else None
    if name == "clamp_min":
        return z if _zero(_given(args, kwargs, 1, "min")) else None
    if name in ("threshold", "_threshold"):
        return z if _zero(_given(args, kwargs, 1, "threshold")) and _zero(_given(args, kwargs, 2, "value")) else None
    if name == "leaky_relu":
        return z if _zero(_given(args, kwargs, 1, "negative_slope")) else None
    other = _given(args, kwargs, 1, *_OTHER)
    if name in ("maximum", "max", "fmax") and isinstance(other, Tensor):
        shape = torch.broadcast_shapes(z.shape, other.shape)
        return z if _zero(other) and z.shape == shape else other if _zero(z) and other.shape == shape else None
    if name == "where" and isinstance(other, Tensor):  # of torch: condition first
        condition, a, b = (*((z, other) if z.dtype == torch.bool else (other, z)), _given(args, kwargs, 2, *_OTHER))
        return a if _zero(b) and _passes_positive(condition, a) else None
    if name in ("mul", "__mul__", "__rmul__", "__imul__") and isinstance(other, Tensor):
        return z if _passes_positive(other, z) else other if _passes_positive(z, other) else None
    return None


class _HiddenError(ValueError):
    """Something ran that cannot be looked into."""


class _Guided(TorchFunctionMode):
    """Every ReLU that runs inside is guided: modules, functions and methods alike, in place or not."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.seen = 0
        self.running: list[str] = []
        self._own = {id(p) for p in model.parameters()}
        self._made: dict[int, weakref.ref[Tensor]] = {}  # by identity: what operations that were seen have put out

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.__name__.partition(".")[0]
        if name == "__get__":  # shapes and the like
            return self._remembered(func(*args, **kwargs))
        self.check((args, kwargs))
        z = _relu_of(name, args, kwargs) if torch.is_grad_enabled() else None
        if z is None or not z.requires_grad:
            return self._remembered(func(*args, **kwargs))
        self.seen += 1
        written = _given(args, kwargs, 0, *_INPUT) is z and (name.endswith("_") and not name.endswith("__"))
        place = {"relu": 1, "threshold": 3, "_threshold": 3, "leaky_relu": 2}.get(name)
        inplace = written or (place is not None and bool(_given(args, kwargs, place, "inplace"))) or name == "__imul__"
        return self._remembered(_GuidedReLU.apply(z, inplace))

    def _remembered(self, found: Any) -> Any:
        for t in tensors(found):
            self._made[id(t)] = weakref.ref(t)
        return found

    def check(self, values: Any) -> None:
        """ValueError for tensors that come out of what cannot be looked into, so that a ReLU in it would not be guided."""
        for t in tensors(values):
            if t.grad_fn is None or id(t) in self._own:
                continue
            made = self._made.get(id(t))
            if made is None or made() is not t:
                what = "a scripted or compiled function, or an extension"
            elif isinstance(t.grad_fn, BackwardCFunction) and type(t.grad_fn).__name__ != f"{_GuidedReLU.__name__}Backward":
                what = f"the autograd.Function {type(t.grad_fn).__name__.removesuffix('Backward')}"
            else:
                continue
            layer = f" in or below layer {self.running[-1]!r}" if self.running else ""
            raise _HiddenError(
                f"{what} runs{layer}, and whether a ReLU is in it does not show: guided backpropagation would pass it by; "
                "write it in operations of torch (torch.relu), or use the gradient"
            )


def guided_backpropagation(model: nn.Module, x: Float[Tensor, "n c h w"], targets: Targets, *, of: Of = "score") -> Explanation:
    """Guided backpropagation; see the module's docstring. Cost: one forward pass and one backward pass to the input.

    Every ReLU is guided however it is written: as a module, a function or a method (`torch.relu`, `.relu_()`), as a clamp, a
    maximum or a threshold at 0, or as a product with the mask of what is positive. Hooks on modules miss the functional
    ones, and the map is then a plain gradient in part. Other activations keep their own gradient. Raises ValueError as
    `gradient` does, where no ReLU ran, so that nothing would be guided, and where something ran that cannot be looked into
    (a scripted function, an `autograd.Function`).
    """
    x = _check(x, of)
    hooks.check_open(model)
    mode = _Guided(model)

    def chosen(logits: Tensor) -> Tensor:
        mode.check(logits)
        return _chosen(model, targets)(logits)

    try:
        with hooks.frozen(model), hooks.as_written():
            try:
                with mode:
                    values, logits = _differentiate(model, x, chosen, of)
            except _HiddenError:  # once more, to name the layer: names cost a hook a module
                with hooks.naming(model) as mode.running, mode:
                    _differentiate(model, x, chosen, of)
                raise
    except CheckpointError:  # what runs again in the backward pass runs as it is
        raise ValueError(
            "a part of the model runs under torch.utils.checkpoint, where ReLUs cannot be guided; switch checkpointing off"
        ) from None
    if not mode.seen:
        raise ValueError("no ReLU ran in the forward pass: guided backpropagation is not defined; use the gradient")
    return Explanation(values, logits.detach())


def guided_gradcam(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    targets: Targets,
    layer: str,
    *,
    guiding: bool = True,
    layout: Layout | None = None,
) -> Explanation:
    """Guided Grad-CAM++ (Chattopadhay et al. 2018) as Mangla et al. 2020 released it, (N, C, H, W), in [-1, 1].

    It joins g = sign(guided backpropagation) and the signed Grad-CAM++ map c of `layer`, enlarged and in [0, 1]:
    ((g + 1)(c + 1) - 2) / 2, which is c where g = 1 and -1 where g = -1. Without `guiding` g is the sign of the plain
    gradient. Of the logit alone: Grad-CAM++ of a loss is not defined here. Cost: two forward and two backward passes.
    """
    raw = activation_maps.gradcam(model, x, targets, layer, method="gradcam++", sign="signed", layout=layout)
    c = activation_maps.upsample(activation_maps.normalise(raw.values), tuple(x.shape[2:]))[:, None]
    back = guided_backpropagation if guiding else gradient
    g = back(model, x, targets).values.sign()
    return Explanation(((g + 1) * (c + 1) - 2) / 2, raw.logits)
