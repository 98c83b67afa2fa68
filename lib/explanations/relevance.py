r"""Layer-wise relevance propagation (Bach et al. 2015): how much of a logit each activation, or each pixel, stands for.

Relevance starts at the logit of the class (its value; all other logits get none) and is handed back layer by layer. What share
of R_j goes to which input of a layer :math:`z_j = \sum_i x_i w_{ij} + b_j` (convolution, dense layer, average pooling, sum of
branches) says a rule; which rule each layer takes says a composite. `relevance_rules` has both, with their equations.

Activations hand relevance through unchanged, max-pooling to the winner, concatenation to the pieces; constants that are
added or multiplied, in either order (normalisation of the images, a layer's scale), are passed by. Where the divisor is zero
nothing is handed on.

BatchNorm in evaluation mode is folded into the convolution or dense layer whose output it alone reads, and passed by
elsewhere (DenseNet normalises sums of many layers: a divisor of its own could be near zero).

Relevance is conserved, :math:`\sum_i R_i = f_c`, but for what biases and stabilisers absorb and for outputs without any
positive input; the composites say what theirs do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from lib.data import checks
from lib.explanations.linear_maps import linear_map, over
from lib.explanations.relevance_rules import Composite, Rule, composite_of
from lib.networks import contract, hooks, reach
from lib.networks.contract import Targets
from lib.networks.tape import KEEPING, WEIGHTED, Step, Tape, bound, normalisation

PIXELS = "pixels"  # the layer name of the input


@dataclass(frozen=True)
class Relevance:
    """values[layer], raw and signed, in units of the logit: (N, C, h, w), or (N, K, C, h, w) for K classes an image; logits
    (N, classes) of the same pass."""

    values: dict[str, Tensor]
    logits: Tensor


# By the operation's name (`lib.networks.tape.Step`). Others have no rule.
_PASSED = {
    "relu",
    "relu6",
    "hardtanh",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "tanh",
    "dropout",
    "dropout1d",
    "dropout2d",
    "alpha_dropout",
    "feature_dropout",
    "sub",
    "__sub__",
    "div",
    "__truediv__",
    "true_divide",
}
_TIMES = {"mul", "multiply", "__mul__", "__rmul__"}
_POOLED = {"avg_pool2d", "adaptive_avg_pool2d", "mean"}
_ROUTED = KEEPING - _POOLED - {"dropout"} | {"pad", "view_as"}
_MOVED = {n for n in _ROUTED if "pool" not in n} | _TIMES  # values as they are, but for a factor
_SUMMED = {"add", "__add__", "__radd__"}
_WAYS_OUT = (
    "replace it by a layer that has one (convolution, dense, BatchNorm, pooling, ReLU and its kin, sum, concatenation), or "
    "stop the relevance at a layer above it"
)


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
    """Average pooling: the share of each value's part that counts."""
    part = rule.part(x)
    args, kwargs = pytree.tree_map(lambda a: part if a is x else a, (step.args, step.kwargs))
    z = step.function(*args, **kwargs)
    return part * _routed(step, [x], [over(relevance, z, rule.eps)])[0]


def _summed(composite: Composite, step: Step, sources: list[Tensor], relevance: Tensor) -> list[Tensor]:
    """A sum of two branches: the share of each value's part that counts. A constant that is added is passed by."""
    if step.kwargs.get("alpha", 1) != 1 or any(t.shape != relevance.shape for t in sources) or len(sources) > 2:
        raise ValueError(f"layer {step.layer!r} adds with a factor or across shapes, which LRP has no rule for; {_WAYS_OUT}")
    if len(sources) == 1:
        return [relevance]
    (a, b), rule = sources, composite.total
    a, b = rule.part(a + b if composite.overwritten else a), rule.part(b)
    share = over(relevance, a + b, rule.eps)
    return [a * share, b * share]


def _foldings(record: Tape) -> dict[int, Step]:
    """The BatchNorm that alone reads the output of a convolution or dense layer, by that output."""
    found = {}
    for step in (s for s in record.steps if s.name == "batch_norm"):
        t = step.sources[0]
        while record.readers[id(t)] == 1 and (before := record.producer.get(id(t))):
            if before.name in WEIGHTED:
                found[id(t)] = step
            elif before.name in ("clone", "view"):  # what `hooks.capture` puts between
                t = before.sources[0]
                continue
            break
    return found


def _halves(record: Tape, logits: Tensor) -> bool:
    """Whether two logits are one, as `contract.two_logits` makes them: (-z/2, z/2)."""
    last = record.producer.get(id(logits))
    parts = [record.producer.get(id(t)) for t in last.sources] if last and last.name == "cat" else []
    if len(parts) != 2 or not all(p and p.name in _TIMES and len(p.sources) == 1 for p in parts):
        return False
    times = [a for p in parts for a in p.args[1:] if isinstance(a, float)]
    return parts[0].sources[0] is parts[1].sources[0] and times == [-0.5, 0.5]


class _Sweep(NamedTuple):
    """One pass from the logits back: the rules, and the forward pass that they are applied to."""

    composite: Composite
    tape: Tape
    foldings: dict[int, Step]

    def back(self, step: Step, relevance: list[Tensor | None], factor: float) -> Iterator[tuple[Tensor, Tensor]]:
        """(input, its relevance) of one step, whose output is multiplied by `factor` further on."""
        if not all(t.is_floating_point() for t in (*step.sources, *step.outputs)):
            kind = f"{step.name!r} of integers or complex numbers"
            raise ValueError(f"LRP has no rule for {kind}, which runs in layer {step.layer!r}; {_WAYS_OUT}")
        if step.name in _ROUTED:
            yield from zip(step.sources, _routed(step, list(step.sources), relevance), strict=True)
            return
        whole, first = relevance[0], step.sources[0]
        assert whole is not None  # operations below have one output
        if step.name in WEIGHTED and len(step.sources) == 1:
            layer, above = linear_map(step, id(first) in self.tape.nonnegative), self.foldings.get(id(step.outputs[0]))
            if above and self.composite.fold:
                layer = layer.folded(above)
            layer = layer if factor == 1 else layer.times(factor)
            rule = self.composite.conv if layer.groups else self.composite.dense
            if self.composite.first and id(first) not in self.tape.weighted:
                rule = self.composite.first
            yield first, rule.through(layer, whole)
        elif step.name == "batch_norm" and len(step.sources) == 1:
            normalisation(step)  # refuses the batch's own statistics
            yield first, whole
        elif len(step.sources) == 1 and (step.name in _TIMES or (step.name in _PASSED and bound(step, ["input"])[0] is first)):
            yield first, whole.sum_to_size(first.shape)  # a constant may be wider: each product has one factor of the image's
        elif step.name in _POOLED:
            yield first, _pooled(self.composite.pool, step, first, whole)
        elif step.name in _SUMMED:
            yield from zip(step.sources, _summed(self.composite, step, list(step.sources), whole), strict=True)
        else:
            kind = f"{step.name!r} of two activations" if len(step.sources) > 1 else f"{step.name!r}"
            raise ValueError(f"LRP has no rule for {kind}, which runs in layer {step.layer!r}; {_WAYS_OUT}")

    def classes(self, start: Tensor, logits: Tensor, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
        """`run`; of one logit as two, (-z/2, z/2), class by class, as of a last layer with weights -w/2 and w/2.

        Rules look at signs: were relevance only passed by the factor, what speaks for class 1 would be shown for class 0.
        """
        if not _halves(self.tape, logits):
            return self.run(start, logits, wanted)
        of = torch.eye(2).to(start)
        first, second = (self.run(start * of[c], logits, wanted, factor) for c, factor in enumerate((-0.5, 0.5)))
        return {name: first[name] + second[name] for name in wanted}

    def run(self, start: Tensor, logits: Tensor, wanted: dict[str, Tensor], factor: float = 1.0) -> dict[str, Tensor]:
        """Relevance at the wanted tensors, from that of the logits, which are `factor` times what the last layer put out."""
        factors = {id(logits): factor}
        at: dict[int, Tensor] = {id(logits): start}
        found: dict[int, Tensor] = {}
        asked = {id(t) for t in wanted.values()}
        for step in reversed(self.tape.steps):
            found |= {id(t): at[id(t)] for t in step.outputs if id(t) in asked and id(t) in at}
            relevance = [at.pop(id(t), None) for t in step.outputs]
            if any(r is not None for r in relevance):
                factor = factors.get(id(step.outputs[0]), 1.0)
                if step.name in _MOVED:
                    factors |= {id(t): factor for t in step.sources}
                for source, value in self.back(step, relevance, factor):
                    if id(source) in self.tape.reached:
                        at[id(source)] = at[id(source)] + value if id(source) in at else value
        found |= {i: r for i, r in at.items() if i in asked}
        return {name: found.get(id(t), torch.zeros_like(t)) for name, t in wanted.items()}


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
    x = checks.check_images(x)
    record = Tape()
    own = [n for n in names if n != PIXELS]
    with hooks.frozen(model, parameters=create_graph), torch.set_grad_enabled(create_graph):
        image = x if create_graph else x.detach()
        record.follow(image)
        if PIXELS in names:
            record.want(image)
        with record.naming(model), hooks.capture(model, own, cut=False, seeing=record.want) as seen, record:
            logits = contract.logits_of(model, image)
        contract.check_explained(model, logits)
        reach.check_recorded(record, model, x, own, logits, image=PIXELS in names)
        wanted = {n: image if n == PIXELS else seen[n] for n in names}
        classes, single = contract.target_classes(targets, logits)
        sweep = _Sweep(chosen, record, _foldings(record))
        found: dict[str, list[Tensor]] = {n: [] for n in names}
        for k in range(classes.shape[1]):
            mask = F.one_hot(classes[:, k], logits.shape[1]).to(logits)
            for name, value in sweep.classes(logits * mask, logits, wanted).items():
                found[name].append(value)
    return Relevance({n: v[0] if single else torch.stack(v, 1) for n, v in found.items()}, logits)
