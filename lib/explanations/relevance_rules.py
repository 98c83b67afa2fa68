"""The rules of layer-wise relevance propagation, one a kind of layer, and the composites that say which layer takes which."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from lib.networks import tape
from lib.networks.tape import Step


@dataclass(frozen=True)
class Epsilon:
    """The epsilon rule; 0 is the vanilla rule. The bias is part of z and absorbs its share."""

    eps: float = 1e-6


@dataclass(frozen=True)
class AlphaBeta:
    """The alpha-beta rule. `bias`: left out of z+ and z- (none), its positive part in z+ and its negative in z- (signed), or
    whole and twice in the one divisor of alpha = 1, beta = 0 (twice), as in the code that Heo et al. published."""

    alpha: float = 1.0
    beta: float = 0.0
    eps: float = 1e-6
    bias: Literal["none", "signed", "twice"] = "none"

    def __post_init__(self) -> None:
        if abs(self.alpha - self.beta - 1) > 1e-9 or self.beta < 0:
            raise ValueError(f"alpha = {self.alpha:g}, beta = {self.beta:g}: it takes alpha - beta = 1 and beta >= 0")
        if self.bias == "twice" and self.beta:
            raise ValueError("a bias counted twice belongs to alpha = 1, beta = 0")


Rule = Epsilon | AlphaBeta


@dataclass(frozen=True)
class Composite:
    """A rule for each kind of layer: convolutions, dense layers, average pooling, sums of branches.

    `fold`: BatchNorm is folded into the layer before it; otherwise relevance passes it unchanged. `overwritten`: shares of
    a residual sum as in the published code of Heo et al., where the main branch had been overwritten by the sum.
    """

    conv: Rule
    dense: Rule
    pool: Rule
    total: Rule
    fold: bool = True
    overwritten: bool = False

    def __post_init__(self) -> None:
        if any(isinstance(rule, AlphaBeta) and rule.beta for rule in (self.pool, self.total)):
            raise ValueError("pooling and sums have no negative weights: their rule is Epsilon, or AlphaBeta with beta = 0")


_PLUS = AlphaBeta()
_HEO = (Epsilon(0.01), AlphaBeta(eps=0.01), AlphaBeta(eps=0.01))
COMPOSITES = {
    "z": Composite(Epsilon(0), Epsilon(0), Epsilon(0), Epsilon(0)),
    "epsilon": Composite(Epsilon(), Epsilon(), Epsilon(), Epsilon()),
    "epsilon-plus": Composite(_PLUS, Epsilon(), Epsilon(), _PLUS),
    "alpha2-beta1": Composite(AlphaBeta(2, 1), Epsilon(), Epsilon(), _PLUS),
    # Heo et al. 2019: stabiliser .01, BatchNorm passed by; and with the two slips of their code
    "heo": Composite(AlphaBeta(eps=0.01), *_HEO, fold=False),
    "heo-released": Composite(AlphaBeta(eps=0.01, bias="twice"), *_HEO, fold=False, overwritten=True),
}
_WAYS_OUT = (
    "replace it by a layer that has one (convolution, dense, BatchNorm, pooling, ReLU and its kin, sum, concatenation), or "
    "stop the relevance at a layer above it"
)


def _over(relevance: Tensor, z: Tensor, eps: float) -> Tensor:
    """R / (z + eps sign z), and 0 where that divides by zero."""
    if eps:
        away = torch.copysign(z.new_tensor(eps), z.detach())
        return relevance / (z + away) if torch.is_grad_enabled() else torch.div(relevance, away.add_(z), out=away)
    zero = z == 0
    return torch.where(zero, 0.0, relevance / torch.where(zero, 1.0, z))


def _product(a: Tensor, fresh: Tensor) -> Tensor:
    """a * fresh, in the second's memory where nothing is differentiated."""
    return a * fresh if torch.is_grad_enabled() else fresh.mul_(a)


class _Linear(NamedTuple):
    """A layer with weights: x, w, b, its output z, and the map x, w -> x w and its transpose."""

    x: Tensor
    w: Tensor
    b: Tensor | None
    z: Tensor
    forward: Callable[[Tensor, Tensor], Tensor]
    transposed: Callable[[Tensor, Tensor, torch.Size], Tensor]
    groups: int = 0  # of a convolution; 0: a dense layer

    def doubled(self, a: Tensor, b: Tensor) -> Tensor:
        """Two inputs as one with twice the channels, group by group."""
        if not self.groups:
            return torch.cat([a, b], -1)
        return torch.stack([a.unflatten(1, (self.groups, -1)), b.unflatten(1, (self.groups, -1))], 2).flatten(1, 3)

    def summed(self, both: Tensor) -> Tensor:
        """Back to one: the sum of the two."""
        if not self.groups:
            return both.unflatten(-1, (2, -1)).sum(-2)
        return both.unflatten(1, (self.groups, 2, -1)).sum(2).flatten(1, 2)


def _convolution(step: Step) -> _Linear:
    x, w, b, stride, padding, dilation, groups = tape.bound(
        step, ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    )
    stride, dilation, groups = stride or 1, dilation or 1, groups or 1
    if isinstance(padding, str):
        dilated = [d * (k - 1) for d, k in zip(_pair(dilation), w.shape[2:], strict=True)]
        if padding == "same" and any(d % 2 for d in dilated):
            raise ValueError(f"layer {step.layer!r} pads 'same' with an even kernel; give its padding as numbers for LRP")
        padding = [d // 2 for d in dilated] if padding == "same" else 0
    options = (stride, padding or 0, dilation, groups)

    def transposed(s: Tensor, w: Tensor, shape: torch.Size) -> Tensor:
        return torch.nn.grad.conv2d_input(shape, w, s, *options)

    return _Linear(x, w, b, step.outputs[0], lambda x, w: F.conv2d(x, w, None, *options), transposed, groups)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _dense(step: Step) -> _Linear:
    x, w, b = tape.bound(step, ("input", "weight", "bias"))
    return _Linear(x, w, b, step.outputs[0], lambda x, w: x @ w.T, lambda s, w, _: s @ w)


_WEIGHTED = {"conv2d": _convolution, "linear": _dense}


def _folded(layer: _Linear, step: Step) -> _Linear:
    """The layer and the BatchNorm that follows it as one layer."""
    n = tape.normalisation(step)
    scale = n.weight * torch.rsqrt(n.variance + n.eps)
    shift = n.bias + ((0 if layer.b is None else layer.b) - n.mean) * scale
    w = layer.w * scale.view(-1, *[1] * (layer.w.dim() - 1))
    return layer._replace(w=w, b=shift, z=step.outputs[0])


def _through(rule: Rule, layer: _Linear, relevance: Tensor, above_zero: bool) -> Tensor:
    """Relevance of a weighted layer's input from that of its output; `above_zero`: the input has no negative value."""
    x, w, b = layer.x, layer.w, layer.b
    if isinstance(rule, Epsilon):
        return _product(x, layer.transposed(_over(relevance, layer.z, rule.eps), w, x.shape))
    # parts of x beside parts of w whose products are all positive; x is mostly a ReLU's output and has one part
    up = w.clamp(min=0)
    down = w.clamp(max=0) if rule.beta or not above_zero else up  # else nothing reads it
    parts = x if above_zero else layer.doubled(x.clamp(min=0), x.clamp(max=0))

    def share(v: Tensor, bias: Tensor | None) -> Tensor:
        z = layer.forward(parts, v)
        if bias is not None:
            z = z + (bias.view(-1, 1, 1) if layer.groups else bias)
        found = _product(parts, layer.transposed(_over(relevance, z, rule.eps), v, parts.shape))
        return found if above_zero else layer.summed(found)

    signed = rule.bias == "signed" and b is not None
    bias = None if b is None or rule.bias == "none" else b.clamp(min=0) if signed else 2 * b
    found = share(up if above_zero else torch.cat([up, down], 1), bias)
    if not rule.beta:
        return found
    other = share(down if above_zero else torch.cat([down, up], 1), b.clamp(max=0) if signed else None)
    return rule.alpha * found - rule.beta * other


def _routed(step: Step, sources: list[Tensor], relevance: list[Tensor | None]) -> list[Tensor]:
    """Relevance along an operation that moves values about, or picks some: its transpose."""
    with torch.enable_grad():
        fresh = {id(t): t.detach().requires_grad_() for t in sources}
        args, kwargs = pytree.tree_map(lambda a: fresh.get(id(a), a) if isinstance(a, Tensor) else a, (step.args, step.kwargs))
        outputs = pytree.tree_leaves(step.function(*args, **kwargs))
    known = [(o, r) for o, r in zip(outputs, relevance, strict=False) if r is not None]
    graph = any(r.requires_grad for _, r in known)
    found = torch.autograd.grad(
        [o for o, _ in known], list(fresh.values()), [r for _, r in known], create_graph=graph, allow_unused=True
    )
    return [torch.zeros_like(t) if g is None else g for t, g in zip(fresh.values(), found, strict=True)]


def _pooled(rule: Rule, step: Step, x: Tensor, relevance: Tensor) -> Tensor:
    """Average pooling: the share of each value, or of its positive part."""
    eps = rule.eps
    part = x if isinstance(rule, Epsilon) else x.clamp(min=0)
    args, kwargs = pytree.tree_map(lambda a: part if a is x else a, (step.args, step.kwargs))
    z = step.function(*args, **kwargs)
    return part * _routed(step, [x], [_over(relevance, z, eps)])[0]


def _summed(composite: Composite, step: Step, sources: list[Tensor], relevance: Tensor) -> list[Tensor]:
    """A sum of two branches: the share of each value, or of its positive part. A constant that is added is passed by."""
    if step.kwargs.get("alpha", 1) != 1 or any(t.shape != relevance.shape for t in sources) or len(sources) > 2:
        raise ValueError(f"layer {step.layer!r} adds with a factor or across shapes, which LRP has no rule for; {_WAYS_OUT}")
    if len(sources) == 1:
        return [relevance]
    a, b = sources
    if isinstance(composite.total, AlphaBeta):
        a, b = (a + b if composite.overwritten else a).clamp(min=0), b.clamp(min=0)
    share = _over(relevance, a + b, composite.total.eps)
    return [a * share, b * share]


def composite_of(which: str | Composite) -> Composite:
    """A composite by name. Raises ValueError for an unknown one."""
    if isinstance(which, Composite):
        return which
    if which not in COMPOSITES:
        raise ValueError(f"unknown composite {which!r}; choose one of {', '.join(COMPOSITES)}, or make a Composite")
    return COMPOSITES[which]
