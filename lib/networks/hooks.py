"""Reaching into a model and leaving it as it was: `frozen`, layers by dotted name, activations of one forward pass."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from lib.networks import contract
from lib.system import names as names_


@contextlib.contextmanager
def outside_inference() -> Iterator[None]:
    """Inside `torch.inference_mode` a block, or a decorated function, that is outside of it: where gradients can be asked for.

    They are off in it until they are, as they were.
    """
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


@contextlib.contextmanager
def frozen(model: nn.Module, *, parameters: bool = False) -> Iterator[nn.Module]:
    """Evaluation mode with frozen parameters inside the block; every module's own flags come back after it.

    `parameters=True` leaves `requires_grad` alone, for kernels that a training loss differentiates through. Training
    flags are restored module by module: a BatchNorm that its owner had frozen inside a training network stays frozen.
    The block is `outside_inference`, and networks that were made inside are refused with a ValueError.
    """
    if torch.is_inference_mode_enabled():
        with outside_inference(), frozen(model, parameters=parameters):
            yield model
        return
    contract.check_outside_inference(model)
    training = [(m, m.training) for m in model.modules()]
    requires = [] if parameters else [(p, p.requires_grad) for p in model.parameters()]
    try:
        model.eval()
        for p, _ in requires:
            p.requires_grad_(False)
        yield model
    finally:
        for m, flag in training:
            m.training = flag
        for p, flag in requires:
            p.requires_grad_(flag)


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The module called `name` (dotted, relative to `model.net` where the model is a wrapper, else to the model).

    Raises ValueError with the closest names when there is none.
    """
    roots = [r for r in (getattr(model, "net", None), model) if isinstance(r, nn.Module)]
    for root in roots:
        modules = dict(root.named_modules())
        if name and name in modules:
            return modules[name]
    names = [n for n in dict(roots[0].named_modules()) if n]
    close = names_.close(name, names) or names[:8]
    raise ValueError(f"no layer {name!r} in {type(roots[0]).__name__}; did you mean {', '.join(close)}?")


INTO = "into:"  # `into:NAME` is what goes into a layer, where NAME alone is what it puts out


@contextlib.contextmanager
def capture(
    model: nn.Module, layers: Sequence[str], *, cut: bool, seeing: Callable[[Tensor], None] | None = None
) -> Iterator[dict[str, Tensor]]:
    """Record what each layer puts out during the next forward pass, as tensors that can be differentiated.

    `into:NAME` records what goes into a layer instead: of a residual block all that both branches see; of a layer that is
    given a list of maps, as DenseNet's are, their concatenation, which then also is what the rest of the block sees.

    With `cut` the graph starts at the first of these layers: what runs below it builds none, so neither its memory nor
    its backward pass is paid for. Each record is kept apart from what the network goes on with, so that a following
    in-place ReLU cannot change it. `seeing` is called with each record. Hooks are gone after the block, also after an
    exception.

    Raises ValueError for a layer that is unknown, runs more than once or puts out no maps, and for one that did not run by
    the end of the model's forward pass (or of the block, where what was called is a part of the model).
    """
    seen: dict[str, Tensor] = {}
    handles = []

    def keep(name: str, activation: object) -> Tensor:
        if name in seen:
            raise ValueError(f"layer {name!r} runs more than once in a forward pass (a shared module); name one that runs once")
        if not isinstance(activation, Tensor) or activation.dim() != 4:
            shape = tuple(activation.shape) if isinstance(activation, Tensor) else type(activation).__name__
            does = "takes" if name.startswith(INTO) else "puts out"
            raise ValueError(f"layer {name!r} {does} {shape}; a map needs a convolutional layer, (N, C, H, W)")
        if cut and not activation.requires_grad:
            activation = activation.detach().requires_grad_()
        elif not cut:
            activation = activation.view(activation.shape)  # a layer that puts out what it takes has a record of its own
        seen[name] = activation
        if seeing:
            seeing(activation)
        return activation.clone()

    def out_of(name: str) -> Callable[..., Tensor]:
        return lambda _module, _args, output: keep(name, output)

    def into(name: str) -> Callable[..., object]:
        def hook(_module: nn.Module, args: tuple[object, ...]) -> object:
            first = args[0] if args else None
            if not isinstance(first, list):
                return (keep(name, first), *args[1:])
            joined = keep(name, torch.cat(first, 1))
            first[:] = joined.split([piece.shape[1] for piece in first], 1)  # the block's own list: it goes on with these
            return None

        return hook

    def check() -> None:
        missing = [name for name in layers if name not in seen]
        if missing:
            raise ValueError(f"layer {missing[0]!r} did not run in the forward pass; name one that does")

    try:
        for name in layers:
            layer = find_layer(model, name.removeprefix(INTO))
            if name.startswith(INTO):
                handles.append(layer.register_forward_pre_hook(into(name)))
            else:
                handles.append(layer.register_forward_hook(out_of(name)))
        handles.append(model.register_forward_hook(lambda _module, _args, _output: check()))
        yield seen
        check()
    finally:
        for handle in handles:
            handle.remove()
