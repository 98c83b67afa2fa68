r"""How much neurons of one layer make neurons of the next (Bluff: Das, Park et al. 2020, arXiv:2009.02608).

The *influence* of neuron i of a layer on neuron o of the next is the median over images of the maximum over positions of
the convolution of i's map with the one kernel slice from i to o, without bias. A scale that directly follows the
convolution, BatchNorm's or a constant factor, belongs to the kernel; any other is in the maps that the next one sees.
Through neurons b between them it is max_b min(inf(i, b), inf(b, o)); of paths side by side (branches, a shortcut) the larger
counts. A shortcut that changes nothing is a kernel of one: a neuron's influence on itself is its score. A gate, which
multiplies whole channels, is no path of its own. Where no path leads, influence is 0.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lib.data import checks
from lib.networks import contract, hooks, reach, tape
from lib.networks.tape import Step, Tape
from lib.pathways.neurons import median, rows_of
from lib.pathways.routes import PRODUCTS, QUOTIENTS, Beside, Convolution, Joined, Node, Source, walk


class _Hop(NamedTuple):
    """One convolution between two sets of channels."""

    step: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]


def _hops(node: Node | None, columns: tuple[int, ...], rows: tuple[int, ...]) -> set[_Hop]:
    """Every convolution on the way to the channels `columns` of a node, from the lower layer's channels `rows`."""
    found: set[_Hop] = set()
    seen: set[tuple[int, tuple[int, ...]]] = set()  # where paths meet again, what lies below is looked at once

    def visit(node: Node | None, columns: tuple[int, ...]) -> None:
        if node is None or (id(node), columns) in seen:
            return
        seen.add((id(node), columns))
        if isinstance(node, Convolution):
            below = rows if isinstance(node.below, Source) else tuple(range(node.below.channels))
            found.add(_Hop(node.step, below, columns))
            visit(node.below, below)
        elif isinstance(node, Beside):
            for path in node.paths:
                visit(path, columns)
        elif isinstance(node, Joined):
            for part, own, _ in _parts(node, columns):
                visit(part, own)

    visit(node, columns)
    return found


def _parts(node: Joined, columns: tuple[int, ...]) -> Iterator[tuple[Node | None, tuple[int, ...], list[int]]]:
    """Of each part: itself, which of its channels are asked for, and their places among `columns`."""
    begin = 0
    for part, width in zip(node.parts, node.widths, strict=True):
        places = [i for i, c in enumerate(columns) if begin <= c < begin + width]
        if places:
            yield part, tuple(columns[i] - begin for i in places), places
        begin += width


def _combined(
    node: Node | None, columns: tuple[int, ...], rows: tuple[int, ...], hops: dict[_Hop, Tensor], own: Tensor
) -> Tensor:
    """Influence (rows, columns) from single hops' medians; `own` (C,) is that of the lower layer's channels on themselves,
    -inf stands where there is no path."""
    known: dict[tuple[int, tuple[int, ...], tuple[int, ...], bool], Tensor] = {}

    def visit(node: Node | None, columns: tuple[int, ...], rows: tuple[int, ...], unchanged: bool) -> Tensor:
        key = (id(node), columns, rows, unchanged)
        if key not in known:
            known[key] = value(node, columns, rows, unchanged)
        return known[key]

    def value(node: Node | None, columns: tuple[int, ...], rows: tuple[int, ...], unchanged: bool) -> Tensor:
        found = own.new_full((len(rows), len(columns)), -torch.inf)
        if isinstance(node, Source):
            for i, row in enumerate(rows):
                for j in (j for j, column in enumerate(columns) if column == row):
                    found[i, j] = torch.inf if unchanged else own[row]
        elif isinstance(node, Convolution):
            between = rows if isinstance(node.below, Source) else tuple(range(node.below.channels))
            hop = hops[_Hop(node.step, between, columns)]
            if isinstance(node.below, Source):
                return hop
            # what reaches the convolution unchanged has no weaker step before it
            return strongest(visit(node.below, between, rows, True), hop)
        elif isinstance(node, Beside):
            return torch.stack([visit(path, columns, rows, unchanged) for path in node.paths]).amax(0)
        elif isinstance(node, Joined):
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
    pairs: list[Node] = []
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
                pairs = [walk(record, seen[b], seen[a]) for a, b in itertools.pairwise(layers)]
                every = {n: _asked(n, seen[n].shape[1], shown) for n in layers}
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


def _asked(layer: str, width: int, shown: dict[str, Sequence[int]] | None) -> tuple[int, ...]:
    """The channels of a layer that are asked for. Raises ValueError for one that it does not have."""
    if shown is None:
        return tuple(range(width))
    if layer not in shown:
        raise ValueError(f"shown names no channels of layer {layer!r}; give some of each layer, or None for all")
    if any(not 0 <= c < width for c in shown[layer]):
        raise ValueError(f"channels {sorted(shown[layer])} of layer {layer!r}, which has {width}")
    return tuple(shown[layer])


def _beginning(node: Node | None) -> set[int]:
    """The convolutions (places on the tape) that take the lower layer's maps, pooled or not."""
    found: set[int] = set()
    seen: set[int] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Convolution):
            waiting.append(node.below)
            if isinstance(node.below, Source):
                found.add(node.step)
        else:
            waiting += node.paths if isinstance(node, Beside) else node.parts if isinstance(node, Joined) else ()
    return found


def _scales(record: Tape) -> dict[int, Tensor]:
    """By convolution (its place on the tape): what directly follows it multiplies its channels by, a factor a channel."""
    found: dict[int, Tensor] = {}
    made: dict[int, int] = {}  # by tensor, the convolution that made it, scaled or not
    readers = Counter(id(t) for step in record.steps if not _gives_back(step) for t in step.sources)
    for place, step in enumerate(record.steps):
        if step.name == "conv2d":
            made[id(step.outputs[0])] = place
        below = made.get(id(step.sources[0])) if len(step.sources) == 1 else None
        factor = None if below is None else _factor(step)
        if below is not None and factor is not None and readers[id(step.sources[0])] == 1:  # else of one path of several
            # deviation: BatchNorm's scale belongs to the kernel; Bluff's network has no BatchNorm.
            found[below] = found.get(below, 1.0) * factor
            made[id(step.outputs[0])] = below
    return found


def _gives_back(step: Step) -> bool:
    """Whether a step puts out what it was given, as dropout does in evaluation mode."""
    return any(out is given for out in step.outputs for given in step.sources)


def _factor(step: Step) -> Tensor | None:
    """What a step multiplies each channel (C,) of its one input by, whatever the image; None where it does something else."""
    channels = step.outputs[0].shape[1] if step.outputs and step.outputs[0].dim() == 4 else 0
    if step.name == "batch_norm":
        n = tape.normalisation(step)
        return n.weight * torch.rsqrt(n.variance + n.eps)
    if step.name not in PRODUCTS | QUOTIENTS or not channels or len(step.args) < 2:
        return None
    constant = step.args[1] if step.args[0] is step.sources[0] else step.args[0]
    factor = torch.as_tensor(constant, dtype=step.sources[0].dtype, device=step.sources[0].device)
    if step.name in QUOTIENTS:
        factor = 1 / factor
    if factor.numel() == 1:
        return factor.reshape(1).expand(channels)
    alone = factor.dim() >= 3 and factor.numel() == factor.shape[-3] == channels  # a number a channel
    return factor.reshape(channels) if alone else None
