"""Where in a network that says nothing of itself maps can be made: its stages, and the head of a CAM, from passes of an image.

A stage of a convolutional network is the last layer of a resolution at which a convolution works: what pools, drops or only
hands on is none. Of blocks within blocks the outermost is taken. Where a network normalises tokens or has its channels last
(transformers), the last layer is taken whose patches the score depends on; that is tried with a gradient.
"""

import torch
from torch import Tensor, nn

from lib.networks import contract, hooks, layouts, reach
from lib.networks.layers import find_layer

Shape = tuple[int, ...]
_IDLE = (*layouts.POOLS, nn.modules.dropout._DropoutNd, nn.Identity, nn.Flatten, nn.Unflatten, nn.Upsample)


def find_stages(model: nn.Module, x: Tensor) -> tuple[str, ...]:
    """The layers at which maps of images like x (N, C, H, W) can be made, in the order in which they run, the last one last.

    Empty where there is none. Raises ValueError as `lib.networks.contract.logits_of`, and for models that cannot be looked
    into (torch.jit).
    """
    ran = _shapes(model, x)
    modules = {name: module for name in ran if (module := _module(model, name)) is not None}
    usable = {n: shape for n, shape in ran.items() if n in modules and not isinstance(modules[n], _IDLE)}
    places = _of_convolutions(usable, modules)
    if not layouts.beyond_convolutions(model):
        return tuple(places)
    last = _last_with_gradient(model, x, [n for n in usable if n in places or _of_tokens(model, modules[n], usable[n])])
    if last is None:
        return ()
    order = list(usable)
    return (*(n for n in places if order.index(n) < order.index(last)), last)


def _shapes(model: nn.Module, x: Tensor) -> dict[str, Shape]:
    """The shapes of what each layer puts out that runs once and puts out maps or tokens, in the order of their ends."""
    found: dict[str, list[Shape | None]] = {}

    def seeing(output: object, name: str) -> None:
        if isinstance(output, tuple | list) and sum(isinstance(o, Tensor) for o in output) == 1:
            output = next(o for o in output if isinstance(o, Tensor))
        kept = isinstance(output, Tensor) and layouts.possible(output, True) and len(output) == len(x)
        found.setdefault(name, []).append(tuple(output.shape) if kept else None)  # type: ignore[attr-defined]

    with hooks.frozen(model), torch.no_grad(), hooks.naming(model, seeing):
        contract.logits_of(model, x)
    return {name: shapes[0] for name, shapes in found.items() if len(shapes) == 1 and shapes[0] is not None}


def _module(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return find_layer(model, name)
    except ValueError:  # two layers of one name, in the network and in its wrapper
        return None


def _of_convolutions(usable: dict[str, Shape], modules: dict[str, nn.Module]) -> list[str]:
    """The last layer of each resolution at which a convolution works, where there is more than one position.

    Before the last resolution that is the last of those least deep within others: a block of the next stage may begin at the
    resolution of the one before.
    """
    worked = {s[2:] for n, s in usable.items() if isinstance(modules[n], nn.modules.conv._ConvNd) and len(s) == 4}
    at: dict[Shape, list[str]] = {}
    for name, shape in usable.items():
        if len(shape) == 4 and shape[2:] in worked and shape[2] * shape[3] > 1:
            at.setdefault(shape[2:], []).append(name)
    order = list(usable)
    resolutions = sorted(at.values(), key=lambda there: order.index(there[-1]))
    chosen = [min(reversed(there), key=lambda name: name.count(".")) for there in resolutions[:-1]]
    return [*chosen, *(there[-1] for there in resolutions[-1:])]


def _of_tokens(model: nn.Module, module: nn.Module, shape: Shape) -> bool:
    """Whether a layer puts out tokens, or maps with channels last, of the width that the network normalises."""
    if isinstance(module, nn.Linear) or shape[-1] not in layouts.tokens_wide(model):
        return False
    return len(shape) == 3 or layouts.by_parts(module, shape) == "channels-last"


def _last_with_gradient(model: nn.Module, x: Tensor, layers: list[str]) -> str | None:
    """The last of some layers whose maps have positions that the predicted class depends on."""
    if not layers:
        return None
    with hooks.frozen(model), hooks.capture(model, layers, cut=True, any_layout=True) as seen, torch.enable_grad():
        logits = contract.logits_of(model, x)
        records = [seen[n] for n in layers]
        gradients = reach.gradients(logits.amax(1).sum(), records)
        for name, record, gradient in reversed(list(zip(layers, records, gradients, strict=True))):
            if gradient is None:
                continue
            try:
                as_map = layouts.maps_of(model, name, record, logits, x.shape[2:], None)
                maps = gradient if as_map is None else layouts.both(gradient, record, as_map, name)[0]
            except ValueError:  # no grid, or nothing but the class token counts there
                continue
            if maps.any() and maps.shape[2] * maps.shape[3] > 1:
                return name
    return None


def find_head(model: nn.Module, layer: str, x: Tensor) -> str:
    """The linear layer that makes the logits of a layer's means over positions, which is where CAM is defined; empty
    where there is none."""
    with hooks.frozen(model), torch.no_grad(), hooks.capture(model, [layer], cut=False, any_layout=True) as seen:
        logits = contract.logits_of(model, x)
    if seen[layer].dim() != 4:
        return ""
    pooled = seen[layer].mean((2, 3))
    for name, module in reversed(list(model.named_modules())):
        if not isinstance(module, nn.Linear) or module.in_features != pooled.shape[1]:
            continue
        with torch.no_grad():
            found = contract.two_logits(module(pooled))
        if found.shape == logits.shape and torch.allclose(found, logits, rtol=1e-3, atol=1e-3):
            return name.removeprefix("net.")
    return ""
