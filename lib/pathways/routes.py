"""Which paths lead from a layer's channels to those of the next: convolutions, sums and concatenations, as a network runs them.

A network's run is on a tape (`lib.networks.tape`); a layer's output is a node that says from which nodes below its channels
come. A gate, which multiplies whole channels, is no path; a step that mixes channels otherwise cannot be followed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lib.networks import tape
from lib.networks.tape import Step, Tape

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
    "celu",
    "threshold",
    "_threshold",
    "clamp",
    "clamp_min",
    "clip",
    "alpha_dropout",
    "feature_alpha_dropout",
    "batch_norm",
    "group_norm",
    "instance_norm",
    "local_response_norm",
    "interpolate",
    "pad",
    "clone",
    "contiguous",
    "to",
    "float",
    "type",
    "type_as",
    "view",
    "view_as",
}
PRODUCTS = {"mul", "multiply", "__mul__", "__rmul__"}
QUOTIENTS = {"div", "divide", "true_divide", "__truediv__"}
_DIFFERENCES = {"sub", "subtract", "__sub__", "__rsub__", "rsub"}
_BESIDE = {"add", "__add__", "__radd__"} | PRODUCTS | QUOTIENTS | _DIFFERENCES
_JOINED = {"cat", "concat", "concatenate"}


@dataclass(frozen=True)
class Source:
    """The lower layer's own channels."""

    channels: int


@dataclass(frozen=True)
class Convolution:
    """The channels of a convolution of what `below` puts out; `step` is its place on the tape."""

    below: "Node"
    step: int
    channels: int


@dataclass(frozen=True)
class Beside:
    """Channel by channel the largest of several paths."""

    paths: tuple["Node", ...]
    channels: int


@dataclass(frozen=True)
class Joined:
    """Channels one after the other; None where they do not come from the lower layer."""

    parts: tuple["Node | None", ...]
    widths: tuple[int, ...]

    @property
    def channels(self) -> int:
        return sum(self.widths)


Node = Source | Convolution | Beside | Joined


def walk(record: Tape, upper: Tensor, lower: Tensor) -> Node:
    """How the channels of `upper` come from those of `lower`: step by step, however many there are."""
    needed = {id(upper)}
    waiting = [upper]
    while waiting:
        tensor = waiting.pop()
        step = None if tensor is lower else record.producer.get(id(tensor))
        for source in _followed(step, tensor) if step else ():
            if id(source) not in needed:
                needed.add(id(source))
                waiting.append(source)
    found: dict[int, Node] = {id(lower): Source(lower.shape[1])}
    for place, step in enumerate(record.steps):
        for tensor in step.outputs:
            asked = id(tensor) in needed and tensor is not lower and record.producer.get(id(tensor)) is step
            if asked and any(id(t) in found for t in _followed(step, tensor)):
                found[id(tensor)] = _through(step, place, tensor, found)
    if id(upper) not in found:
        raise ValueError(
            "no path leads from the lower layer to the upper one (a gate of one number a channel is none); name layers in the "
            "order in which they run"
        )
    return found[id(upper)]


def _through(step: Step, place: int, tensor: Tensor, found: dict[int, Node]) -> Node:
    """How the channels of what a step puts out come from the lower layer, where those of some of its inputs do (`found`).

    Raises ValueError for a step that cannot be followed.
    """
    sources = [t for t in _followed(step, tensor) if id(t) in found]
    below = found[id(sources[0])]
    if step.name == "conv2d":
        return Convolution(below, place, tensor.shape[1])
    if step.name in _JOINED:
        given = step.args[0] if step.args else step.kwargs["tensors"]
        dimension = step.args[1] if len(step.args) > 1 else step.kwargs.get("dim", step.kwargs.get("axis", 0))
        if dimension in (1, -3):
            return Joined(tuple(found.get(id(t)) for t in given), tuple(t.shape[1] for t in given))
    if step.name in _BESIDE and tensor.dim() == 4 and not _taken_away(step, sources):
        wide = [t for t in sources if found[id(t)].channels == tensor.shape[1]]
        if len(wide) == 1:
            return found[id(wide[0])]
        if wide:
            return Beside(tuple(found[id(t)] for t in wide), tensor.shape[1])
    if step.name == "pad" and tensor.dim() == 4 and below.channels != tensor.shape[1]:  # a shortcut with more channels
        pads = tape.bound(step, ("input", "pad"))[1]
        return Joined((None, below, None), (pads[4], below.channels, pads[5]))
    kept = step.name in _CHANNELWISE or (step.name == "__getitem__" and _all_channels(step.args[1]))
    if kept and tensor.dim() == 4 and below.channels == tensor.shape[1]:
        return below
    raise ValueError(
        f"influence cannot be followed through {step.name!r} in layer {step.layer!r}; name layers between which there are "
        "convolutions, normalisation, pooling, activations, sums and concatenations"
    )


def _followed(step: Step, tensor: Tensor) -> list[Tensor]:
    """The inputs that paths lead through to what a step puts out: of a product the maps, not a gate of one number a channel."""
    maps = [t for t in step.sources if step.name in PRODUCTS and t.dim() == 4 and t.shape[2:] == tensor.shape[2:]]
    return maps or list(step.sources)


def _taken_away(step: Step, sources: Sequence[Tensor]) -> bool:
    """Whether a step subtracts, or divides by, what comes from the lower layer: no kernel holds that sign."""
    if step.name not in _DIFFERENCES | QUOTIENTS:
        return False
    first = 1 if step.name in ("rsub", "__rsub__") else 0
    second = step.args[1 - first] if len(step.args) > 1 else step.kwargs.get("other")
    return any(second is t for t in sources)


def _all_channels(index: object) -> bool:
    """Whether what is cut out of (N, C, H, W) has all channels, in their order."""
    index = index if isinstance(index, tuple) else (index,)
    if index[0] is Ellipsis:
        return len(index) <= 3 and all(isinstance(i, slice) for i in index[1:])
    return all(isinstance(i, slice) for i in index) and all(i == slice(None) for i in index[:2])
