r"""How much neurons of one layer make neurons of the next (Bluff: Das, Park et al. 2020, arXiv:2009.02608).

The *influence* of neuron i of a layer on neuron o of the next is the median over images of the maximum over positions of
the convolution of i's map with the one kernel slice from i to o, without bias. BatchNorm's scale belongs to the kernel.
Through neurons b between them it is max_b min(inf(i, b), inf(b, o)); of paths side by side (branches, a shortcut) the larger
counts. A shortcut that changes nothing is a kernel of one: a neuron's influence on itself is its score. Where no path leads,
influence is 0.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lib.data import checks
from lib.networks import contract, hooks, reach, tape
from lib.networks.tape import Step, Tape
from lib.pathways.neurons import median, rows_of

# Operations that leave channels where they are.
_CHANNELWISE = {
    "relu",
    "relu6",
    "hardtanh",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "hardswish",
    "hardsigmoid",
    "prelu",
    "mish",
    "softplus",
    "tanh",
    "sigmoid",
    "dropout",
    "dropout2d",
    "max_pool2d",
    "avg_pool2d",
    "adaptive_max_pool2d",
    "adaptive_avg_pool2d",
    "batch_norm",
    "pad",
    "clone",
    "contiguous",
    "to",
    "view",
    "view_as",
}
_BESIDE = {"add", "__add__", "__radd__", "mul", "__mul__", "__rmul__", "sub", "__sub__"}
_JOINED = {"cat", "concat", "concatenate"}


# -- influence ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """The lower layer's own channels."""

    channels: int


@dataclass(frozen=True)
class _Convolution:
    """The channels of a convolution of what `below` puts out; `step` is its place on the tape."""

    below: "_Node"
    step: int
    channels: int


@dataclass(frozen=True)
class _Beside:
    """Channel by channel the largest of several paths."""

    paths: tuple["_Node", ...]
    channels: int


@dataclass(frozen=True)
class _Joined:
    """Channels one after the other; None where they do not come from the lower layer."""

    parts: tuple["_Node | None", ...]
    widths: tuple[int, ...]

    @property
    def channels(self) -> int:
        return sum(self.widths)


_Node = _Source | _Convolution | _Beside | _Joined


class _Hop(NamedTuple):
    """One convolution between two sets of channels."""

    step: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]


def _walk(record: Tape, upper: Tensor, lower: Tensor) -> _Node:
    """How the channels of `upper` come from those of `lower`."""
    order = {id(step): i for i, step in enumerate(record.steps)}

    @functools.cache
    def follow(identity: int, tensor: Tensor) -> _Node | None:
        if identity == id(lower):
            return _Source(lower.shape[1])
        step = record.producer.get(identity)
        if step is None:
            return None
        below = [found for t in step.sources if (found := follow(id(t), t)) is not None]
        if not below:
            return None
        if step.name == "conv2d":
            return _Convolution(below[0], order[id(step)], tensor.shape[1])
        if step.name in _JOINED:
            given = step.args[0] if step.args else step.kwargs["tensors"]
            dimension = step.args[1] if len(step.args) > 1 else step.kwargs.get("dim", step.kwargs.get("axis", 0))
            if dimension in (1, -3):
                return _Joined(tuple(follow(id(t), t) for t in given), tuple(t.shape[1] for t in given))
        if step.name in _BESIDE:
            wide = [b for b in below if b.channels == tensor.shape[1]]
            return wide[0] if len(wide) == 1 else _Beside(tuple(wide), tensor.shape[1])
        if step.name == "pad" and tensor.dim() == 4 and below[0].channels != tensor.shape[1]:  # a shortcut with more channels
            pads = tape.bound(step, ("input", "pad"))[1]
            return _Joined((None, below[0], None), (pads[4], below[0].channels, pads[5]))
        if step.name in _CHANNELWISE and tensor.dim() == 4 and below[0].channels == tensor.shape[1]:
            return below[0]
        raise ValueError(
            f"influence cannot be followed through {step.name!r} in layer {step.layer!r}; name layers between which there are "
            "convolutions, normalisation, pooling, activations, sums and concatenations"
        )

    found = follow(id(upper), upper)
    if found is None:
        raise ValueError("the upper layer does not depend on the lower one; name layers in the order in which they run")
    return found


def _hops(node: _Node | None, columns: tuple[int, ...], rows: tuple[int, ...]) -> set[_Hop]:
    """Every convolution on the way to the channels `columns` of a node, from the lower layer's channels `rows`."""
    found: set[_Hop] = set()
    seen: set[tuple[int, tuple[int, ...]]] = set()  # where paths meet again, what lies below is looked at once

    def visit(node: _Node | None, columns: tuple[int, ...]) -> None:
        if node is None or (id(node), columns) in seen:
            return
        seen.add((id(node), columns))
        if isinstance(node, _Convolution):
            below = rows if isinstance(node.below, _Source) else tuple(range(node.below.channels))
            found.add(_Hop(node.step, below, columns))
            visit(node.below, below)
        elif isinstance(node, _Beside):
            for path in node.paths:
                visit(path, columns)
        elif isinstance(node, _Joined):
            for part, own, _ in _parts(node, columns):
                visit(part, own)

    visit(node, columns)
    return found


def _parts(node: _Joined, columns: tuple[int, ...]) -> Iterator[tuple[_Node | None, tuple[int, ...], list[int]]]:
    """Of each part: itself, which of its channels are asked for, and their places among `columns`."""
    begin = 0
    for part, width in zip(node.parts, node.widths, strict=True):
        places = [i for i, c in enumerate(columns) if begin <= c < begin + width]
        if places:
            yield part, tuple(columns[i] - begin for i in places), places
        begin += width


def _combined(
    node: _Node | None, columns: tuple[int, ...], rows: tuple[int, ...], hops: dict[_Hop, Tensor], own: Tensor
) -> Tensor:
    """Influence (rows, columns) from single hops' medians; `own` (C,) is that of the lower layer's channels on themselves,
    -inf stands where there is no path."""
    known: dict[tuple[int, tuple[int, ...], tuple[int, ...], bool], Tensor] = {}

    def visit(node: _Node | None, columns: tuple[int, ...], rows: tuple[int, ...], unchanged: bool) -> Tensor:
        key = (id(node), columns, rows, unchanged)
        if key not in known:
            known[key] = value(node, columns, rows, unchanged)
        return known[key]

    def value(node: _Node | None, columns: tuple[int, ...], rows: tuple[int, ...], unchanged: bool) -> Tensor:
        found = own.new_full((len(rows), len(columns)), -torch.inf)
        if isinstance(node, _Source):
            for i, row in enumerate(rows):
                for j in (j for j, column in enumerate(columns) if column == row):
                    found[i, j] = torch.inf if unchanged else own[row]
        elif isinstance(node, _Convolution):
            between = rows if isinstance(node.below, _Source) else tuple(range(node.below.channels))
            hop = hops[_Hop(node.step, between, columns)]
            if isinstance(node.below, _Source):
                return hop
            # what reaches the convolution unchanged has no weaker step before it
            return strongest(visit(node.below, between, rows, True), hop)
        elif isinstance(node, _Beside):
            return torch.stack([visit(path, columns, rows, unchanged) for path in node.paths]).amax(0)
        elif isinstance(node, _Joined):
            for part, inside, places in _parts(node, columns):
                found[:, places] = visit(part, inside, rows, unchanged)
        return found

    return visit(node, columns, rows, False)


def strongest(first: Float[Tensor, "i b"], second: Float[Tensor, "b o"]) -> Float[Tensor, "i o"]:
    """max_b min(first[i, b], second[b, o]), (I, B) and (B, O) -> (I, O): a path is as strong as its weakest step."""
    found = [torch.minimum(row[:, None], second).amax(0) for row in first]
    return torch.stack(found) if found else second.new_zeros(0, second.shape[1])


def slices(
    step: Step,
    scale: Float[Tensor, " c"] | None,
    rows: Sequence[int],
    columns: Sequence[int],
    given: Float[Tensor, "n d h w"] | None,
) -> Float[Tensor, "n i o"]:
    """Maxima over positions of single kernel slices' convolutions, (N, rows, columns), no bias.

    `given` is the maps to convolve as the released code does, in steps of 3 and with 'same' padding; None: what the network
    convolves, as it does. A slice that a grouped convolution does not have gives 0.
    """
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    x, weight, _, stride, padding, dilation, count = tape.bound(step, names)
    stride, padding, dilation, count = stride or 1, padding or 0, dilation or 1, count or 1
    # deviation: as the network convolves, unless `released`; Bluff's code convolves in steps of 3, with 'same' padding, before
    # pooling.
    if given is not None:
        x, stride, padding = given, 3, tuple(k // 2 for k in weight.shape[2:])
    if scale is not None:
        weight = weight * scale.view(-1, 1, 1, 1)
    inside, outside = x.shape[1] // count, len(weight) // count
    chosen, given_rows = (torch.tensor(list(c), dtype=torch.long, device=x.device) for c in (columns, rows))
    if not len(chosen) or not len(given_rows):
        return x.new_zeros(len(x), len(given_rows), len(chosen))
    group = chosen // outside  # of a column; a row of another group has no slice for it
    if inside == 1:  # depthwise: a slice a column
        maxima = F.conv2d(x[:, group], weight[chosen], None, stride, padding, dilation, len(chosen)).amax((2, 3))
        return torch.where(group == given_rows[:, None], maxima[:, None], 0.0)
    if weight.shape[2:] == (1, 1) and _unpadded(padding):
        factors = weight[chosen][:, given_rows % inside, 0, 0].T
        factors = torch.where(group == given_rows[:, None] // inside, factors, 0.0)
        return _products(x[:, given_rows], factors, stride)
    found = []
    for row in rows:
        own = group == row // inside
        maxima = x.new_zeros(len(x), len(chosen))
        if own.any():
            kernel = weight[chosen[own], row % inside, None]
            maxima[:, own] = F.conv2d(x[:, row : row + 1], kernel, None, stride, padding, dilation).amax((2, 3))
        found.append(maxima)
    return torch.stack(found, 1)


def _unpadded(padding: int | str | Sequence[int]) -> bool:
    """Whether a kernel of one pixel is padded with nothing: `same` of it is none."""
    return isinstance(padding, str) or not any([padding] if isinstance(padding, int) else padding)


def _products(maps: Float[Tensor, "n i h w"], factors: Float[Tensor, "i o"], stride: int | Sequence[int]) -> Tensor:
    """Maxima over positions of maps times single numbers, (N, I, O): the highest value's product, or below 0 the lowest's."""
    down, across = (stride, stride) if isinstance(stride, int) else (stride[0], stride[-1])
    values = maps[:, :, ::down, ::across].flatten(2)
    return torch.where(factors >= 0, factors * values.amax(2)[:, :, None], factors * values.amin(2)[:, :, None])


@torch.no_grad()
def influence(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    layers: Sequence[str],
    shown: dict[str, Sequence[int]] | None = None,
    *,
    released: bool = False,
    batch_size: int | None = None,
) -> list[Float[Tensor, "_ _"]]:
    """Influence between consecutive layers, one matrix (channels shown below, channels shown above) a pair of layers.

    `shown` are the channels asked for by layer; all of them where it is None. Every path from a layer to the next counts,
    and what does not come from it does not. `released` repeats what the released code convolves: maps of the lower layer
    as they are even where they are pooled on the way, in steps of 3 and with 'same' padding (half a kernel on each side,
    where TensorFlow's depends on the size and may begin one pixel later).

    Cost: a forward pass, and of each convolution between the layers the share of its kernel slices that is asked for. A
    median over images is taken of each single hop before hops are joined. Raises ValueError as `scores`, and for an
    operation that mixes channels in another way than a convolution.
    """
    if len(layers) < 2:
        return []
    x = checks.check_images(x)
    pairs: list[_Node] = []
    wanted: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    hops: list[dict[_Hop, list[Tensor]]] = [{} for _ in layers[1:]]
    own: list[list[Tensor]] = [[] for _ in layers[1:]]
    with hooks.frozen(model):
        for part in x.split(batch_size or rows_of(x)):
            record = Tape()
            record.know(part)
            with record.naming(model), hooks.capture(model, layers, cut=False, seeing=record.want) as seen, record:
                logits = contract.logits_of(model, part)
            reach.check_recorded(record, model, part, layers, logits, image=False)
            if not pairs:
                pairs = [_walk(record, seen[b], seen[a]) for a, b in itertools.pairwise(layers)]
                every = {n: tuple(range(seen[n].shape[1])) if shown is None else tuple(shown[n]) for n in layers}
                wanted = [(every[a], every[b]) for a, b in itertools.pairwise(layers)]
            scales = _scales(record)
            for i, node in enumerate(pairs):
                lower = seen[layers[i]]
                own[i].append(lower.amax((2, 3)))
                rows, columns = wanted[i]
                begins = _beginning(node)
                for hop in _hops(node, columns, rows):
                    step = record.steps[hop.step]
                    given = None if not released else lower if hop.step in begins else step.sources[0]
                    found = slices(step, scales.get(hop.step), hop.rows, hop.columns, given)
                    hops[i].setdefault(hop, []).append(found)
    medians = [{hop: median(torch.cat(v)) for hop, v in found.items()} for found in hops]
    matrices = [
        _combined(node, columns, rows, medians[i], median(torch.cat(own[i])))
        for i, (node, (rows, columns)) in enumerate(zip(pairs, wanted, strict=True))
    ]
    return [torch.where(matrix == -torch.inf, 0.0, matrix) for matrix in matrices]


def _beginning(node: _Node | None) -> set[int]:
    """The convolutions (places on the tape) that take the lower layer's maps, pooled or not."""
    found: set[int] = set()
    seen: set[int] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, _Convolution):
            waiting.append(node.below)
            if isinstance(node.below, _Source):
                found.add(node.step)
        else:
            waiting += node.paths if isinstance(node, _Beside) else node.parts if isinstance(node, _Joined) else ()
    return found


def _scales(record: Tape) -> dict[int, Tensor]:
    """By convolution (its place on the tape): the scale of the BatchNorm that follows it, a factor a channel."""
    order = {id(step): i for i, step in enumerate(record.steps)}
    found = {}
    for step in record.steps:
        below = record.producer.get(id(step.sources[0])) if step.name == "batch_norm" else None
        if below is not None and below.name == "conv2d":
            n = tape.normalisation(step)
            # deviation: BatchNorm's scale belongs to the kernel; Bluff's network has no BatchNorm.
            found[order[id(below)]] = n.weight * torch.rsqrt(n.variance + n.eps)
    return found
