r"""Layer-wise relevance propagation (Bach et al. 2015): how much of a logit each activation, or each pixel, stands for.

Relevance starts at the logit of the class (its value; all other logits get none) and is handed back layer by layer. For a
layer :math:`z_j = \sum_i x_i w_{ij} + b_j` (convolution, dense layer, average pooling, sum of branches):

* epsilon: :math:`R_i = \sum_j \frac{x_i w_{ij}}{z_j + \epsilon\,\mathrm{sign}\,z_j} R_j` with sign 0 = 1; epsilon = 0 is the
  vanilla rule (z), which on ReLU networks without biases is gradient times input;
* alpha-beta: :math:`R_i = \sum_j (\alpha \frac{(x_i w_{ij})^+}{z_j^+} - \beta \frac{(x_i w_{ij})^-}{z_j^-}) R_j` with
  :math:`\alpha - \beta = 1` and z+, z- the sums of the positive and of the negative parts, stabilised in the same way.

Activations hand relevance through unchanged, max-pooling to the winner, concatenation to the pieces; constants that are
added or multiplied (normalisation of the images) are passed by. Where the divisor is zero nothing is handed on.

BatchNorm in evaluation mode is folded into the convolution or dense layer whose output it alone reads, and passed by
elsewhere (DenseNet normalises sums of many layers: a divisor of its own could be near zero).

Relevance is conserved, :math:`\sum_i R_i = f_c`, but for what biases and stabilisers absorb and for outputs without any
positive input; the composites say what theirs do.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from lib import hooks, tape
from lib.hooks import Targets
from lib.tape import Step, Tape

PIXELS = "pixels"  # the layer name of the input


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


@dataclass(frozen=True)
class Relevance:
    """values[layer], raw and signed, in units of the logit: (N, C, h, w), or (N, K, C, h, w) for K classes an image; logits
    (N, classes) of the same pass."""

    values: dict[str, Tensor]
    logits: Tensor


# By the operation's name (`lib.tape.Step`). Others have no rule.
_PASSED = {
    "relu", "relu6", "hardtanh", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "dropout", "dropout1d", "dropout2d",
    "alpha_dropout", "feature_dropout", "sub", "__sub__", "mul", "__mul__", "__rmul__", "div", "__truediv__", "true_divide",
}  # fmt: skip
_POOLED = {"avg_pool2d", "adaptive_avg_pool2d", "mean"}
_ROUTED = tape.KEEPING - _POOLED - {"dropout"} | {"pad", "view_as"}
_SUMMED = {"add", "__add__", "__radd__"}
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


def _foldings(record: Tape) -> dict[int, Step]:
    """The BatchNorm that alone reads the output of a convolution or dense layer, by that output."""
    found = {}
    for step in (s for s in record.steps if s.name == "batch_norm"):
        t = step.sources[0]
        while record.readers[id(t)] == 1 and (before := record.producer.get(id(t))):
            if before.name in _WEIGHTED:
                found[id(t)] = step
            elif before.name in ("clone", "view"):  # what `hooks.capture` puts between
                t = before.sources[0]
                continue
            break
    return found


class _Sweep(NamedTuple):
    """One pass from the logits back: the rules, and the forward pass that they are applied to."""

    composite: Composite
    tape: Tape
    foldings: dict[int, Step]

    def back(self, step: Step, relevance: list[Tensor | None]) -> Iterator[tuple[Tensor, Tensor]]:
        """(input, its relevance) of one step."""
        if step.name in _ROUTED:
            yield from zip(step.sources, _routed(step, list(step.sources), relevance), strict=True)
            return
        whole, first = relevance[0], step.sources[0]
        assert whole is not None  # operations below have one output
        if step.name in _WEIGHTED and len(step.sources) == 1:
            layer, above = _WEIGHTED[step.name](step), self.foldings.get(id(step.outputs[0]))
            if above and self.composite.fold:
                layer = _folded(layer, above)
            rule = self.composite.conv if layer.groups else self.composite.dense
            yield first, _through(rule, layer, whole, id(first) in self.tape.nonnegative or bool((first >= 0).all()))
        elif step.name == "batch_norm" and len(step.sources) == 1:
            tape.normalisation(step)  # refuses the batch's own statistics
            yield first, whole
        elif step.name in _PASSED and len(step.sources) == 1 and step.args[0] is first:
            yield first, whole
        elif step.name in _POOLED:
            yield first, _pooled(self.composite.pool, step, first, whole)
        elif step.name in _SUMMED:
            yield from zip(step.sources, _summed(self.composite, step, list(step.sources), whole), strict=True)
        else:
            kind = f"{step.name!r} of two activations" if len(step.sources) > 1 else f"{step.name!r}"
            raise ValueError(f"LRP has no rule for {kind}, which runs in layer {step.layer!r}; {_WAYS_OUT}")

    def run(self, start: Tensor, logits: Tensor, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
        """Relevance at the wanted tensors, from that of the logits."""
        at: dict[int, Tensor] = {id(logits): start}
        found: dict[int, Tensor] = {}
        asked = {id(t) for t in wanted.values()}
        for step in reversed(self.tape.steps):
            found |= {id(t): at[id(t)] for t in step.outputs if id(t) in asked and id(t) in at}
            relevance = [at.pop(id(t), None) for t in step.outputs]
            if any(r is not None for r in relevance):
                for source, value in self.back(step, relevance):
                    if id(source) in self.tape.reached:
                        at[id(source)] = at[id(source)] + value if id(source) in at else value
        found |= {i: r for i, r in at.items() if i in asked}
        return {name: found.get(id(t), torch.zeros_like(t)) for name, t in wanted.items()}


def composite_of(which: str | Composite) -> Composite:
    """A composite by name. Raises ValueError for an unknown one."""
    if isinstance(which, Composite):
        return which
    if which not in COMPOSITES:
        raise ValueError(f"unknown composite {which!r}; choose one of {', '.join(COMPOSITES)}, or make a Composite")
    return COMPOSITES[which]


def lrp(
    model: nn.Module,
    x: Tensor,
    targets: Targets,
    layers: str | Sequence[str] = PIXELS,
    *,
    composite: str | Composite = "epsilon-plus",
    create_graph: bool = False,
) -> Relevance:
    """Relevance at the pixels and at layers (`NAME`, or `into:NAME`), by one forward pass and one sweep back a class.

    `x` is (N, C, H, W) in [0, 1]; `targets` one class for all images, (N,), or (N, K) for K classes an image, or a function
    of the logits. A convolution costs its forward pass, its z+ and one transposed convolution under alpha = 1, beta = 0
    (three passes where forward and backward cost two), its forward pass and one transposed under epsilon. The sweep ends at
    the lowest layer that was named.

    With `create_graph` values and logits are differentiable with respect to the parameters and `x`, any number of times;
    what selects (the signs of weights and activations, winners of max-pooling) counts as constant. The model is left as it
    was. Raises ValueError for images outside [0, 1], classes out of range, a wrong layer, an unknown composite, and for an
    operation without a rule, with the layer that it runs in.
    """
    chosen = composite_of(composite)
    names = [layers] if isinstance(layers, str) else list(layers)
    if not names:
        raise ValueError(f"no layer named; relevance is asked for at one at least ({PIXELS!r} for the input)")
    hooks.check_images(x)
    record = Tape()
    own = [n for n in names if n != PIXELS]
    with (
        hooks.frozen(model, parameters=create_graph),
        record.naming(model),
        hooks.capture(model, own, cut=False, seeing=record.want) as seen,
        torch.set_grad_enabled(create_graph),
    ):
        image = x if create_graph else x.detach()
        record.follow(image)
        if PIXELS in names:
            record.want(image)
        with record:
            logits = model(image)
        hooks.check_logits(model, logits)
        missing = [n for n in own if n not in seen]
        if missing:
            raise ValueError(f"layer {missing[0]!r} did not run in the forward pass; name one that does")
        wanted = {n: image if n == PIXELS else seen[n] for n in names}
        classes, single = hooks.target_classes(targets, logits)
        sweep = _Sweep(chosen, record, _foldings(record))
        found: dict[str, list[Tensor]] = {n: [] for n in names}
        for k in range(classes.shape[1]):
            mask = F.one_hot(classes[:, k], logits.shape[1]).to(logits)
            for name, value in sweep.run(logits * mask, logits, wanted).items():
                found[name].append(value)
    return Relevance({n: v[0] if single else torch.stack(v, 1) for n, v in found.items()}, logits)
