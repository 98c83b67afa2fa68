"""Reaching into a model and leaving it as it was: `frozen`, and activations of one forward pass.

Several threads may do so on one model at the same time: hooks hear the thread that set them alone, and flags come back when
the last thread has left.
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lib.networks import contract, layouts
from lib.networks.layers import INTO, find_layer, walk

# Flags and hooks belong to all threads; torch numbers hooks without a lock of its own, so that two set at once could get
# one number, and the second would replace the first.
_LOCK = threading.RLock()


@dataclass(eq=False)
class _Hold:
    """One block's hold on a flag: its thread, whether it leaves the flag as the owner set it, and the value it found."""

    thread: int
    live: bool
    found: bool


_HOLDS: dict[int, list[_Hold]] = {}  # by identity of a module or parameter, in order of entry; gone with the last of them


def _taken(thing: object, hold: _Hold) -> bool:
    """The flag's value from the entry of a block on."""
    holds = _HOLDS.setdefault(id(thing), [])
    holds.append(hold)
    if all(h.thread == hold.thread for h in holds):
        return hold.found and hold.live
    return _wished(holds)


def _left(thing: object, hold: _Hold) -> bool | None:
    """The flag's value once a block is left, None where it stays."""
    holds = _HOLDS[id(thing)]
    place = holds.index(hold)
    del holds[place]
    if place < len(holds):
        holds[place].found = hold.found  # who came later found what this block had made of it
    if not holds:
        del _HOLDS[id(thing)]
        return hold.found
    if all(h.thread == hold.thread for h in holds):
        return hold.found if place == len(holds) else None
    return _wished(holds)


def _wished(holds: list[_Hold]) -> bool:
    """What several threads need: the owner's value where one of them needs that, since the others only do without."""
    freezing = {h.thread for h in holds if not h.live}
    return holds[0].found and any(h.thread not in freezing for h in holds)


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


def outside_autocast(like: Tensor) -> torch.autocast:
    """Inside `torch.autocast` a block that is outside of it, on the device of `like`.

    For what draws images, and for backward passes: they run in the types of the forward pass, where inside of autocast each
    product would be rounded again, also those that the forward pass left alone.
    """
    return torch.autocast(like.device.type, enabled=False)


@contextlib.contextmanager
def frozen(model: nn.Module, *, parameters: bool = False) -> Iterator[nn.Module]:
    """Evaluation mode with frozen parameters inside the block; every module's own flags come back after it.

    `parameters=True` leaves `requires_grad` alone, for kernels that a training loss differentiates through. Training
    flags are restored module by module: a BatchNorm that its owner had frozen inside a training network stays frozen.

    Threads may hold one model at the same time and leave in any order. While one of them needs live parameters they are
    live for all, which costs the others memory and changes no value.
    The block is `outside_inference`, and networks that were made inside are refused with a ValueError.
    """
    if torch.is_inference_mode_enabled():
        with outside_inference(), frozen(model, parameters=parameters):
            yield model
        return
    own = threading.get_ident()
    modules: list[tuple[nn.Module, _Hold]] = []
    leaves: dict[int, tuple[Tensor, _Hold]] = {}
    try:
        with _LOCK:
            for m, weights in walk(model):
                flag = getattr(m, "training", None)  # a module that torch.jit has frozen has none
                if flag or (flag is not None and id(m) in _HOLDS):  # what is off and nobody holds stays off
                    modules.append((m, _Hold(own, False, flag)))
                    _taken(*modules[-1])
                for p in weights:
                    if p is None:
                        continue
                    if p.is_inference():
                        contract.check_outside_inference([p])  # which refuses it
                    if (p.requires_grad or id(p) in _HOLDS) and id(p) not in leaves:
                        leaves[id(p)] = p, _Hold(own, parameters, p.requires_grad)
                        _set(p, _taken(*leaves[id(p)]))
            if modules:
                with contextlib.suppress(NotImplementedError):  # of torch.export, which has fixed how everything runs
                    model.eval()
        yield model
    finally:
        with _LOCK:
            for m, hold in modules:
                if (flag := _left(m, hold)) is not None:
                    m.training = flag
            for p, hold in leaves.values():
                _set(p, _left(p, hold))


def _set(parameter: Tensor, flag: bool | None) -> None:
    if flag is not None and parameter.requires_grad != flag:
        parameter.requires_grad_(flag)


def _in_backward() -> bool:
    """Whether this thread is in a backward pass: what torch.utils.checkpoint does not keep runs again there."""
    return torch._C._current_graph_task_id() != -1


class _Hooks:
    """Hooks that hear one thread alone; all are gone after the block, also after an exception."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self.elsewhere = False  # a layer ran in another thread

    @property
    def own(self) -> bool:
        """Whether this is the thread that is heard."""
        return threading.get_ident() == self._thread

    def _heard(self, hook: Callable[..., object], backward: bool) -> Callable[..., object]:
        own, current = self._thread, threading.get_ident

        def heard(*given: object) -> object:
            if current() == own or (backward and _in_backward()):  # autograd has threads of its own on accelerators
                return hook(*given)
            self.elsewhere = True
            return None

        return heard

    def before(self, module: nn.Module, hook: Callable[..., object], *, backward: bool = False) -> None:
        """`hook(module, args)` before the module runs; what it returns stands for args. `backward`: also in backward passes."""
        with _LOCK:
            self._handles.append(module.register_forward_pre_hook(self._heard(hook, backward)))

    def after(self, module: nn.Module, hook: Callable[..., object], *, backward: bool = False) -> None:
        """`hook(module, args, output)` after the module has run; what it returns stands for the output."""
        with _LOCK:
            self._handles.append(module.register_forward_hook(self._heard(hook, backward)))

    def __enter__(self) -> "_Hooks":
        return self

    def __exit__(self, *_: object) -> None:
        with _LOCK:
            for handle in self._handles:
                handle.remove()


def check_open(model: nn.Module) -> None:
    """ValueError for a model whose forward pass cannot be looked into."""
    if isinstance(model, torch.jit.ScriptModule):
        raise ValueError(
            f"{type(model).__name__} is a torch.jit model, which cannot be looked into: give the model that it was made from; "
            "gradients in the pixels and attacks take it as it is"
        )
    inner = getattr(model, "net", None)
    for m in (model, inner):
        if isinstance(m, nn.DataParallel) and len(m.device_ids) > 1:
            raise ValueError(
                f"the model runs on {len(m.device_ids)} devices at once (DataParallel) and cannot be looked into so; give its "
                "`module`, or device_ids with one device"
            )


_EAGER: list[Any] = [0, None]  # how many blocks run models as they are written, and what ends it


@contextlib.contextmanager
def as_written() -> Iterator[None]:
    """What torch.compile has compiled runs operation by operation inside the block, where all of it can be seen.

    (With hooks of its own each call would be compiled anew, and up to the first hook alone.)
    """
    if "torch._dynamo" not in sys.modules or torch.compiler.is_compiling():
        yield
        return
    with _LOCK:
        _EAGER[0] += 1
        if _EAGER[0] == 1:
            _EAGER[1] = torch.compiler.set_stance("force_eager")
    try:
        yield
    finally:
        with _LOCK:
            _EAGER[0] -= 1
            if not _EAGER[0]:
                _EAGER[1].__exit__(None, None, None)


@contextlib.contextmanager
def naming(model: nn.Module, seeing: Callable[[object, str], None] | None = None) -> Iterator[list[str]]:
    """The modules that run, the innermost last, by their names within `model.net` or `model`.

    `seeing` is called with what each puts out and its name.
    """
    check_open(model)
    running: list[str] = []

    def enters(shown: str) -> Callable[..., None]:
        return lambda *_: running.append(shown)

    def leaves(_module: object, _args: object, output: object) -> None:
        name = running.pop()
        if seeing:
            seeing(output, name)

    with _Hooks() as hooks:
        for name, module in model.named_modules():
            if not isinstance(module, torch.jit.ScriptModule):  # takes no hooks
                hooks.before(module, enters(name.removeprefix("net.") or type(module).__name__))
                hooks.after(module, leaves)
        yield running


@contextlib.contextmanager
def capture(
    model: nn.Module,
    layers: Sequence[str],
    *,
    cut: bool,
    seeing: Callable[[Tensor], None] | None = None,
    instead: Callable[[str, Tensor], Tensor] | None = None,
    any_layout: bool = False,
) -> Iterator[dict[str, Tensor]]:
    """Record what each layer puts out during the next forward pass, as tensors that can be differentiated.

    `into:NAME` records what goes into a layer instead: of a residual block all that both branches see; of a layer that is
    given a list of maps, as DenseNet's are, their concatenation, which then also is what the rest of the block sees. Of a
    layer that puts out several things the one tensor among them is recorded.

    With `cut` the graph starts at the first of these layers: what runs below it builds none, so neither its memory nor
    its backward pass is paid for. Each record is kept apart from what the network goes on with, so that a following
    in-place ReLU cannot change it. `seeing` is called with each record. `instead(name, record)` makes what the network goes on
    with in the record's place, as a new tensor. Hooks are gone after the block, also after an exception. What other threads run
    on the model is not recorded.

    Records are maps (N, C, H, W); with `any_layout` also what `lib.networks.layouts` makes maps of.

    Raises ValueError for a layer that is unknown, runs more than once or puts out no maps, and for one that did not run by
    the end of the model's forward pass (or of the block, where what was called is a part of the model).
    """
    seen: dict[str, Tensor] = {}

    def onward(name: str, record: Tensor) -> Tensor:
        return record.clone() if instead is None else instead(name, record)

    def keep(name: str, module: nn.Module, activation: object) -> object:
        if _in_backward() and (name in seen or not hooks.own):  # a checkpointed part: what it saves must be the same again
            if not isinstance(activation, Tensor) or name not in seen:
                return activation
            leaf = cut and not activation.requires_grad
            return onward(name, activation.detach().requires_grad_() if leaf else activation)
        if name in seen:
            raise ValueError(f"layer {name!r} runs more than once in a forward pass (a shared module); name one that runs once")
        does = "takes" if name.startswith(INTO) else "puts out"
        if not isinstance(activation, Tensor) or not layouts.possible(activation, any_layout):
            shape = tuple(activation.shape) if isinstance(activation, Tensor) else type(activation).__name__
            raise ValueError(f"layer {name!r} {does} {shape}; a map needs a convolutional layer, (N, C, H, W)")
        if not any_layout:
            layouts.check_channels_first(model, module, name, tuple(activation.shape), into=name.startswith(INTO))
        if cut and activation.is_inference():
            raise ValueError(f"layer {name!r} runs under torch.inference_mode(), which no gradient passes; use none there")
        if cut and not activation.requires_grad:
            activation = activation.detach().requires_grad_()
        elif not cut:
            activation = activation.view(activation.shape)  # a layer that puts out what it takes has a record of its own
        seen[name] = activation
        if seeing:
            seeing(activation)
        return onward(name, activation)

    def out_of(name: str) -> Callable[..., object]:
        def hook(module: nn.Module, _args: object, output: object) -> object:
            if isinstance(output, (tuple, list)) and sum(isinstance(o, Tensor) for o in output) == 1:
                kept = [keep(name, module, o) if isinstance(o, Tensor) else o for o in output]
                return type(output)(*kept) if hasattr(output, "_fields") else type(output)(kept)
            return keep(name, module, output)

        return hook

    def into(name: str) -> Callable[..., object]:
        def hook(module: nn.Module, args: tuple[object, ...]) -> object:
            first = args[0] if args else None
            if not isinstance(first, list):
                return (keep(name, module, first), *args[1:])
            joined = keep(name, module, torch.cat(first, 1))
            assert isinstance(joined, Tensor)
            first[:] = joined.split([piece.shape[1] for piece in first], 1)  # the block's own list: it goes on with these
            return None

        return hook

    def check(*_: object) -> None:
        missing = [name for name in layers if name not in seen]
        if missing:
            where = " (another thread ran it, which the model's own threads must not)" if hooks.elsewhere else ""
            raise ValueError(f"layer {missing[0]!r} did not run in the forward pass{where}; name one that does")

    check_open(model)
    with _Hooks() as hooks, as_written():
        for name in layers:
            layer = find_layer(model, name.removeprefix(INTO))
            if isinstance(layer, torch.jit.ScriptModule):
                raise ValueError(
                    f"layer {name!r} is a part of a torch.jit model, which cannot be looked into: name a layer outside, or "
                    "give the model that it was made from"
                )
            if name.startswith(INTO):
                hooks.before(layer, into(name), backward=True)
            else:
                hooks.after(layer, out_of(name), backward=True)
        hooks.after(model, check)
        yield seen
        check()
