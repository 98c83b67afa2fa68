"""Where a layer's output has its channels, and maps (N, C, h, w) from it.

PyTorch's convolutions put channels first, (N, C, h, w); Swin's blocks put them last, (N, h, w, C); a vision transformer has
tokens, (N, T, C): one a patch, row by row, behind tokens that belong to no patch (of the class, registers).

Nothing is guessed. What tells is the layer itself (the channels that its convolutions, dense layers and normalisations have)
and what the network goes on to do with the map, which autograd has recorded. Where neither tells, or they leave two answers,
the layout has to be given.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.networks.layers import INTO, find_layer

Order = Literal["channels-first", "channels-last", "tokens"]
# how a layer's output is laid out, or a function that makes maps (N, C, h, w) of it
Layout = Order | Callable[[Tensor], Tensor]
ORDERS = ("channels-first", "channels-last", "tokens")
STATE = 'say layout="channels-first", "channels-last", "tokens", or a function that makes maps (N, C, h, w) of it'

POOLS = (
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveMaxPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
)
_LAST = (nn.Linear, nn.LayerNorm, nn.RMSNorm)


def _widths(module: nn.Module, into: bool) -> tuple[type | None, int]:
    """(the kind, the channels that it puts out or takes) of a module that knows; (None, 0) of another."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return nn.modules.conv._ConvNd, module.in_channels if into else module.out_channels
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return nn.modules.batchnorm._NormBase, module.num_features
    if isinstance(module, nn.GroupNorm):
        return nn.GroupNorm, module.num_channels
    if isinstance(module, nn.Linear):
        return nn.Linear, module.in_features if into else module.out_features
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) and len(module.normalized_shape) == 1:
        # some that are derived from it turn channels-first maps around and back
        return (type(module) if type(module) in _LAST else None), module.normalized_shape[-1]
    return None, 0


def possible(activation: Tensor, any_layout: bool) -> bool:
    """Whether maps could be made of it."""
    return activation.dim() == 4 or (any_layout and activation.dim() == 3 and activation.is_floating_point())


def by_parts(module: nn.Module, shape: tuple[int, ...], into: bool = False) -> Order | None:
    """What the layer's own modules tell of its output (or of what goes into it); None where they leave it open."""
    kinds: set[type | None] = set()
    known: list[int] = []
    for m in module.modules():
        kind, width = _widths(m, into)
        if width:
            kinds.add(kind)
            known.append(width)
    if not known:
        return "channels-first" if isinstance(module, POOLS) and len(shape) == 4 else None
    if len(shape) == 4 and kinds.isdisjoint(_LAST) and None not in kinds:
        return "channels-first"
    if _widths(module, into)[0] in _LAST:  # nothing but this one
        return "channels-last" if len(shape) == 4 else "tokens"
    for widths in ({known[0 if into else -1]}, set(known)):
        first, last = shape[1] in widths, shape[-1] in widths
        if first != last:
            return "channels-first" if first and len(shape) == 4 else "channels-last" if len(shape) == 4 else "tokens"
        if first:
            return None
    return None


# -- what the network does with a map ----------------------------------------------------------------------------------

_AS_IT_IS = re.compile(
    r"(Clone|Relu|Gelu|Silu|Mish|Elu|LeakyRelu|Hardtanh|Hardswish|Hardsigmoid|Sigmoid|Tanh|Softplus|Add|Sub|Mul|Div|"
    r"NativeDropout|ToCopy|Slice|ConstantPadNd|Alias|Contiguous)Backward\d*$"
)
_READS_FIRST = re.compile(
    r".*(Convolution|BatchNorm|GroupNorm|MaxPool2D|AvgPool2D|MaxPool2DWithIndices|Upsample|PixelShuffle|ReflectionPad2D)"
)


def _dims(values: object, count: int) -> tuple[int, ...]:
    """Dimensions as autograd keeps them: one or several, negative ones as unsigned numbers of 64 bits."""
    several = values if isinstance(values, tuple | list) else (values,)
    return tuple((v - 2**64 if v >= 2**63 else v) % count for v in several)


def _read(node: torch.autograd.graph.Node, above: list[torch.autograd.graph.Node]) -> Order | None:
    """How an operation reads a map of four dimensions; None where that does not show."""
    name = node.name()
    if _READS_FIRST.match(name):
        return "channels-first"
    if "LayerNorm" in name or "RmsNorm" in name:
        return "channels-last" if len(getattr(node, "_saved_normalized_shape", (0,))) == 1 else None
    if name.startswith("Permute"):
        return {(0, 3, 1, 2): "channels-last", (0, 2, 3, 1): "channels-first"}.get(_dims(node._saved_dims, 4))  # type: ignore[attr-defined]
    if name.startswith("Mean"):
        return {(2, 3): "channels-first", (1, 2): "channels-last"}.get(tuple(sorted(_dims(node._saved_dim, 4))))  # type: ignore[attr-defined]
    if name.startswith("Cat"):
        return {1: "channels-first", 3: "channels-last"}.get(_dims(node._saved_dim, 4)[0])  # type: ignore[attr-defined]
    if "View" in name and any(a.name().startswith(("Addmm", "Mm")) for a in above):  # a dense layer, value by value
        sizes = getattr(node, "_saved_self_sym_sizes", ())
        for a in above:
            read = getattr(a, "_saved_mat1_sym_sizes", None) or getattr(a, "_saved_self_sym_sizes", ())
            if len(sizes) == 4 and len(read) == 2 and read == (math.prod(sizes[:3]), sizes[3]):
                return "channels-last"
    return None


def by_use(record: Float[Tensor, "n a b c"], logits: Tensor) -> Order | None:
    """How the operations between a record (a tensor with a gradient) and the logits read it; None where that stays open."""
    if logits.grad_fn is None or not record.requires_grad:
        return None
    above: dict[torch.autograd.graph.Node, list[torch.autograd.graph.Node]] = {logits.grad_fn: []}
    waiting = [logits.grad_fn]
    while waiting:
        node = waiting.pop()
        for below, _ in node.next_functions:
            if below is not None:
                if below not in above:
                    above[below] = []
                    waiting.append(below)
                above[below].append(node)
    start = torch.autograd.graph.get_gradient_edge(record).node
    waiting, met, found = list(above.get(start, ())), set(), set()
    while waiting:
        node = waiting.pop()
        if node in met:
            continue
        met.add(node)
        order = _read(node, above[node])
        if order:
            found.add(order)
        elif _AS_IT_IS.match(node.name()):
            waiting += above[node]
    return found.pop() if len(found) == 1 else None


def beyond_convolutions(model: nn.Module) -> bool:
    """Whether anything in a network may work on maps with channels last."""
    return any(isinstance(m, nn.LayerNorm | nn.RMSNorm | nn.MultiheadAttention) for m in model.modules())


def check_channels_first(model: nn.Module, module: nn.Module, name: str, shape: tuple[int, ...], *, into: bool = False) -> None:
    """ValueError for a layer whose maps have, or may have, their channels elsewhere, where that was not asked for."""
    order = by_parts(module, shape, into)
    if order == "channels-last" or (order is None and beyond_convolutions(model)):
        how = "has its channels last" if order else "may have its channels last, which nothing in it tells"
        raise ValueError(
            f"layer {name!r}, {shape}, {how}; what is asked for needs maps (N, C, h, w): name a layer that puts them out, a "
            "convolution or normalisation of the same stage, or a permutation's input (Grad-CAM takes other layouts)"
        )


# -- maps --------------------------------------------------------------------------------------------------------------


def maps_of(
    model: nn.Module, name: str, record: Tensor, logits: Tensor, size: Sequence[int], layout: Layout | None
) -> Callable[[Tensor], Tensor] | None:
    """What makes maps (N, C, h, w) of a layer's record and of its gradient; None where they are such already.

    `size` is that of the images, whose shape a grid of tokens has. Raises ValueError where the layout neither is given nor
    tells itself, and for tokens that are no grid.
    """
    if callable(layout):
        return _checked(layout, name)
    if layout is not None and layout not in ORDERS:
        raise ValueError(f"unknown layout {layout!r}; {STATE}")
    shape = tuple(record.shape)
    order = layout or by_parts(find_layer(model, name.removeprefix(INTO)), shape, name.startswith(INTO))
    if order is None and len(shape) == 4:
        order = by_use(record, logits) or (None if beyond_convolutions(model) else "channels-first")
    if order is None and len(shape) == 3 and tokens_wide(model) == {shape[2]}:
        order = "tokens"
    if order is None:
        raise ValueError(f"layer {name!r} has {shape}, and where its channels are does not tell; {STATE}")
    if len(shape) != (3 if order == "tokens" else 4):
        raise ValueError(f"layer {name!r} has {shape}, which is not {order}; {STATE}")
    if order == "channels-first":
        return None
    if order == "channels-last":
        return lambda t: t.permute(0, 3, 1, 2)
    return _grid(model, name, shape, len(logits), (size[0], size[1]))


def both(
    gradient: Tensor, activation: Tensor, as_map: Callable[[Tensor], Tensor], name: str
) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]]:
    """A layer's gradient and activation as maps. Raises ValueError where the score reads none of the patches of a layer that
    has other tokens, too: right before a head that reads one token, every map would be zero."""
    found = as_map(gradient)
    if activation.dim() == 3 and not found.any() and gradient.any():
        raise ValueError(
            f"of layer {name!r} the class depends on tokens that belong to no patch (the class token) alone, so its map would "
            "be zero everywhere; name a layer below the last attention, such as the normalisation that goes into it"
        )
    return found, as_map(activation)


def tokens_wide(model: nn.Module) -> set[int]:
    """The widths that a network's normalisations of tokens have."""
    return {m.normalized_shape[-1] for m in model.modules() if isinstance(m, nn.LayerNorm | nn.RMSNorm)}


def _checked(made: Callable[[Tensor], Tensor], name: str) -> Callable[[Tensor], Tensor]:
    def maps(t: Tensor) -> Tensor:
        found = made(t)
        if not isinstance(found, Tensor) or found.dim() != 4 or len(found) != len(t):
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"layout makes {got} of layer {name!r}, {tuple(t.shape)}; expected maps (N, C, h, w)")
        return found

    return maps


def extra_tokens(model: nn.Module, width: int) -> int:
    """How many tokens come before those of the patches: what the network's parameters `class_token` and the like hold."""
    named = re.compile(r"(^|\.|_)(cls|class|dist|distillation|reg|register|prefix)_?tokens?$")
    return sum(p.shape[1] for n, p in model.named_parameters() if named.search(n) and p.dim() == 3 and p.shape[2] == width)


def _grids(count: int, size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The grids of so many patches in the shape of an image."""
    height, width = size
    return ((h, count // h) for h in range(1, count + 1) if count % h == 0 and h * width == count // h * height)


def _grid(model: nn.Module, name: str, shape: tuple[int, ...], n: int, size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    count = shape[1]
    turned = any(isinstance(m, nn.MultiheadAttention) and not m.batch_first for m in model.modules())
    if shape[0] != n or turned:
        raise ValueError(
            f"layer {name!r} has {shape} for {n} image(s): tokens do not come image by image, (N, T, C); give layout= a "
            "function that makes maps (N, C, h, w) of it"
        )
    extra = extra_tokens(model, shape[2])
    grid = next(_grids(count - extra, size), None) if count > extra else None
    if grid is None and (grid := next(_grids(count, size), None)):  # they come in further up, or at the end
        extra = 0
    if grid is None:
        raise ValueError(
            f"layer {name!r} has {count} tokens, where by its parameters the network has {extra} before the patches, which "
            f"leaves no grid in the shape of an image of {size[0]} x {size[1]}; give layout= a function that makes maps "
            "(N, C, h, w) of (N, T, C), such as lambda t: t[:, 1:].transpose(1, 2).unflatten(2, (h, w))"
        )
    h, w = grid
    return lambda t: t[:, extra:].transpose(1, 2).unflatten(2, (h, w))
