r"""Guided backpropagation (Springenberg et al. 2015, arXiv:1412.6806), alone and joined with Grad-CAM++.

The gradient of F (`lib.explanations.gradients`), where every ReLU lets pass only what is positive both in its input z and in
the gradient that comes back: :math:`R^l = 1[z > 0]\, 1[R^{l+1} > 0]\, R^{l+1}`.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import get_gradient_edge
from torch.overrides import TorchFunctionMode

from lib.explanations import activation_maps
from lib.explanations.explanation import Explanation
from lib.explanations.gradients import Of, _check, _chosen, _differentiate, gradient
from lib.networks import hooks, rectifiers
from lib.networks.contract import Targets
from lib.networks.layouts import Layout
from lib.networks.tape import tensors


class _HiddenError(ValueError):
    """Something ran that cannot be looked into."""


class _Guided(TorchFunctionMode):
    """Every ReLU that runs inside is guided: modules, functions and methods alike, in place or not.

    It is in the backward pass that explains, while `guiding`; derivatives of the explanation go through it as they are.
    So is it in what torch.utils.checkpoint runs again there, which else would save other tensors than it did.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.seen, self.guiding, self.gating, self.back = 0, True, False, False
        self.running: list[str] = []
        self._own = {id(p) for p in model.parameters()}
        self._made: dict[int, weakref.ref[Tensor]] = {}  # by identity: what operations that were seen have put out

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.__name__.partition(".")[0]
        # what the rule itself computes; and what a dispatch mode around it (a counter of operations) sees of the pass back
        if self.gating or (self.back and isinstance(func, torch._ops.OpOverload)):
            return func(*args, **kwargs)
        if name == "__get__":  # shapes and the like
            return self.remember(func(*args, **kwargs))
        if func is torch.autograd.grad and all(t.requires_grad for given in args for t in tensors(given)):
            return self.remember(self._differentiated(args, kwargs))
        self.check((args, kwargs))
        z = rectifiers.relu_of(name, args, kwargs) if torch.is_grad_enabled() else None
        if z is None or not z.requires_grad:
            return self.remember(func(*args, **kwargs))
        self.seen += 1
        # torch.relu whatever it was, which lets nothing through at 0 and has a twin (`lib.networks.rectifiers`)
        rectified = torch.relu_(z) if rectifiers.in_place(name, args, kwargs, z) else torch.relu(z)
        rectified.register_hook(self._gate)
        return self.remember(rectified)

    def _differentiated(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`torch.autograd.grad` with this mode on, which torch switches off in what a mode calls.

        Of tensors it would come back here; edges of the graph stand for them.
        """
        edges = [[get_gradient_edge(t) for t in tensors(given)] for given in args]
        self.back = True
        try:
            with self:
                return torch.autograd.grad(*edges, **kwargs)
        finally:
            self.back = False

    def _gate(self, gradient: Tensor) -> Tensor:
        if not self.guiding:
            return gradient
        self.gating = True
        try:
            return gradient.clamp_min(0)
        finally:
            self.gating = False

    def remember(self, found: Any) -> Any:
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
            elif isinstance(t.grad_fn, BackwardCFunction):
                what = f"the autograd.Function {type(t.grad_fn).__name__.removesuffix('Backward')}"
            else:
                continue
            layer = f" in or below layer {self.running[-1]!r}" if self.running else ""
            raise _HiddenError(
                f"{what} runs{layer}, and whether a ReLU is in it does not show: guided backpropagation would pass it by; "
                "write it in operations of torch (torch.relu), or use the gradient"
            )


def guided_backpropagation(
    model: nn.Module, x: Float[Tensor, "n c h w"], targets: Targets, *, of: Of = "score", create_graph: bool = False
) -> Explanation:
    """Guided backpropagation; see the module's docstring. Cost: one forward pass and one backward pass to the input.

    With `create_graph` the values are differentiable with respect to the parameters and `x`: what lets pass counts as constant
    in itself, but for softplus in place of ReLU (`lib.networks.rectifiers`).

    Every ReLU is guided however it is written: as a module, a function or a method (`torch.relu`, `.relu_()`), as a clamp, a
    maximum or a threshold at 0, or as a product with the mask of what is positive. Hooks on modules miss the functional
    ones, and the map is then a plain gradient in part. What torch.utils.checkpoint runs again in the backward pass is guided
    as it was. Other activations keep their own gradient. Raises ValueError as `gradient` does, where no ReLU ran, so that
    nothing would be guided, and where something ran that cannot be looked into (a scripted function, an `autograd.Function`,
    of which the checkpoint with `use_reentrant=True` is one).
    """
    x = _check(x, of)
    hooks.check_open(model)
    mode = _Guided(model)
    mode.remember(x)

    def chosen(logits: Tensor) -> Tensor:
        mode.check(logits)
        return _chosen(model, targets)(logits)

    with hooks.frozen(model, parameters=create_graph), hooks.as_written():
        try:
            with mode:
                values, logits = _differentiate(model, x, chosen, of, create_graph)
            mode.guiding = False
        except _HiddenError:  # once more, to name the layer: names cost a hook a module
            with hooks.naming(model) as mode.running, mode:
                _differentiate(model, x, chosen, of)
            raise
    if not mode.seen:
        raise ValueError("no ReLU ran in the forward pass: guided backpropagation is not defined; use the gradient")
    return Explanation(values, logits if create_graph else logits.detach())


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
