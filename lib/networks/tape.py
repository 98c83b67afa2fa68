"""What a network computed in one forward pass, operation by operation, for rules that walk back through it.

A `Tape` is a torch-function mode: it sees modules, functions and methods alike, in any network, and needs no tracing. It
follows every tensor that depends on the image, and keeps the steps that depend on the tensors asked for (`want`).
"""

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from lib.networks import hooks

# Operations that put out their input's values, some of them or means of them: no negative value comes from none.
KEEPING = {
    "max_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "mean",
    "flatten",
    "reshape",
    "view",
    "squeeze",
    "unsqueeze",
    "permute",
    "transpose",
    "contiguous",
    "clone",
    "cat",
    "concat",
    "concatenate",
    "split",
    "chunk",
    "__getitem__",
    "to",
    "dropout",
}
WEIGHTED = {"conv2d", "linear"}  # layers with weights that rules know
_SUMS = {"add", "__add__", "__radd__"}
# Operations that put out a tensor like another, of which they read no value.
CONSTANT = {
    "zeros_like",
    "ones_like",
    "empty_like",
    "full_like",
    "rand_like",
    "randn_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "new_tensor",
}
# Operations whose integers are values, where those of others (an argmax, a comparison) only choose among values.
_CASTS = {"to", "type", "type_as", "int", "long", "short", "byte", "char", "quantize_per_tensor"}
_OUT_OF_TORCH = {"numpy", "__array__", "__dlpack__"}
_IN_PLACE = {
    "relu_": torch.relu,
    "__iadd__": torch.add,
    "add_": torch.add,
    "__isub__": torch.sub,
    "sub_": torch.sub,
    "__imul__": torch.mul,
    "mul_": torch.mul,
    "__itruediv__": torch.div,
    "div_": torch.div,
}


class Step(NamedTuple):
    """One operation; `sources` are the tensors it read that depend on the image, `layer` is the module that it ran in."""

    name: str  # what `function.__name__` says
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    sources: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layer: str


def tensors(values: Any) -> list[Tensor]:
    """The tensors among arguments or results, also within lists, tuples and dicts."""
    if isinstance(values, Tensor):
        return [values]
    if not isinstance(values, tuple | list | dict):
        return [t for t in pytree.tree_leaves(values) if isinstance(t, Tensor)] if values is not None else []
    found: list[Tensor] = []
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list | dict):
            found += tensors(value)
    return found


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _is_value(tensor: Tensor, integers: bool) -> bool:
    """Whether a result carries values on; `integers`: these do, too."""
    return tensor.is_floating_point() or tensor.is_complex() or (integers and tensor.dtype != torch.bool)


class Tape(TorchFunctionMode):
    """Records operations while it is entered.

    What the rules need must not change under them, so in-place operations put out a new tensor. Their result is what
    networks go on with (`x = relu_(x)`, `x += y`); one that reads the old name instead is refused with a ValueError.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.producer: dict[int, Step] = {}
        self.readers: dict[int, int] = {}  # how many kept steps read a tensor
        self.reached: set[int] = set()  # depends on a tensor that was asked for
        self.nonnegative: set[int] = set()  # known to hold no negative value, without a look at them
        self.weighted: set[int] = set()  # depends on the image by way of a layer with weights
        self.layers: list[str] = []
        self.strange = False  # read a tensor of unknown origin, which may come from the image by a way that is not recorded
        self.left = ""  # the layer in which values that depend on the image went where nothing is recorded
        self._followed: dict[int, Tensor] = {}  # by identity; holding the tensors keeps identities unique
        self._own: set[int] = set()  # the model's parameters and buffers
        self._made: dict[int, weakref.ref[Tensor]] = {}  # by identity: came out of an operation and is not followed
        self._changed: dict[int, Tensor] = {}  # by storage: what an in-place operation would have overwritten

    def follow(self, tensor: Tensor) -> None:
        self._followed[id(tensor)] = tensor

    def want(self, tensor: Tensor) -> None:
        """Keep every step that depends on this tensor."""
        self.follow(tensor)
        self.reached.add(id(tensor))

    @contextlib.contextmanager
    def naming(self, model: nn.Module) -> Iterator[None]:
        """Know which module runs, by its name within `model.net` or `model`."""
        self._own |= {id(t) for t in (*model.parameters(), *model.buffers())}
        with hooks.naming(model) as self.layers, hooks.as_written():
            yield

    def know(self, tensor: Tensor) -> None:
        """Take it as known where a tensor comes from that is not followed."""
        self._own.add(id(tensor))

    def follows(self, tensor: Tensor) -> bool:
        """Whether a tensor is known to depend on the image."""
        return id(tensor) in self._followed

    def _known(self, tensor: Tensor) -> bool:
        """Whether it is clear where a tensor comes from."""
        i = id(tensor)
        return i in self._followed or i in self._own or ((made := self._made.get(i)) is not None and made() is tensor)

    def _remember(self, found: Any) -> None:
        for t in tensors(found):
            if id(t) not in self._followed:
                self._made[id(t)] = weakref.ref(t)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        given = tensors(args) + tensors(kwargs)
        sources = tuple({id(t): t for t in given if id(t) in self._followed}.values())
        if not self.strange and len(sources) < len(given) and not all(map(self._known, given)):
            self.strange = True
        if not sources or func.__name__ in CONSTANT:
            found = func(*args, **kwargs)
            self._remember(found)
            return found
        layer = self.layers[-1] if self.layers else ""
        if func.__name__ in _OUT_OF_TORCH and any(id(t) in self.reached for t in sources):
            self.left = self.left or layer
        if func.__name__ == "__setitem__" or (
            func.__name__ != "__get__" and any(_storage(t) in self._changed for t in sources)
        ):
            raise ValueError(f"layer {layer!r} reads a tensor that was changed in place; write x = x.relu() for x.relu_()")
        written = args[0] if kwargs.get("inplace") or func.__name__ in _IN_PLACE else None
        if kwargs.get("inplace"):
            kwargs["inplace"] = False
        func = _IN_PLACE.get(func.__name__, func)
        found = func(*args, **kwargs)
        if written is not None and found is not written:  # dropout in evaluation mode returns its input
            self._changed[_storage(written)] = written
        values = func.__name__ in _CASTS
        outputs = tuple(t for t in tensors(found) if _is_value(t, values))
        weighted = func.__name__ in WEIGHTED or any(id(t) in self.weighted for t in sources)
        for t in outputs:
            self.follow(t)
            if weighted:
                self.weighted.add(id(t))
        self._remember(found)
        if outputs and any(id(t) in self.reached for t in sources):
            args, kwargs = pytree.tree_map(lambda a: a, (args, kwargs))  # DenseNet appends to the lists it has passed on
            self._keep(Step(func.__name__, func, args, kwargs, sources, outputs, layer), given)
        return found

    def _keep(self, step: Step, given: list[Tensor]) -> None:
        self.steps.append(step)
        for t in step.sources:
            self.readers[id(t)] = self.readers.get(id(t), 0) + 1
        numbers = step.name in _SUMS and len(given) < 2  # a number that is added may be negative
        kept = step.name in KEEPING | _SUMS and not numbers and all(id(t) in self.nonnegative for t in given)
        for t in step.outputs:
            if not any(t is s for s in step.sources):  # what gives back its input has not made it
                self.producer[id(t)] = step
            self.reached.add(id(t))
            if kept or step.name in ("relu", "relu6") or (step.name == "hardtanh" and _least(step) >= 0):
                self.nonnegative.add(id(t))


def _least(step: Step) -> float:
    """The smallest value that a hardtanh puts out: 0 of `nn.ReLU6`, which is one."""
    least = bound(step, ("input", "min_val"))[1]
    return -1.0 if least is None else float(least)


def bound(step: Step, names: Sequence[str]) -> list[Any]:
    """The arguments of a step by name, None where they were not given."""
    given = dict(zip(names, step.args, strict=False)) | step.kwargs
    return [given.get(n) for n in names]


class Normalisation(NamedTuple):
    """A BatchNorm's running statistics, scale, shift and eps."""

    mean: Tensor
    variance: Tensor
    weight: Tensor
    bias: Tensor
    eps: float


def normalisation(step: Step) -> Normalisation:
    """Of a step `batch_norm`. Raises ValueError where it normalises with the batch's own statistics."""
    first = ("input", "running_mean", "running_var", "weight", "bias")
    if step.function is not F.batch_norm:  # torch.batch_norm
        first = ("input", "weight", "bias", "running_mean", "running_var")
    names = (*first, "training", "momentum", "eps")
    given = dict(zip(names, bound(step, names), strict=True))
    mean, weight, bias, eps = given["running_mean"], given["weight"], given["bias"], given["eps"]
    if given["training"] or mean is None:
        raise ValueError(f"layer {step.layer!r} normalises with the batch's own statistics; running ones are needed")
    weight, bias = torch.ones_like(mean) if weight is None else weight, torch.zeros_like(mean) if bias is None else bias
    return Normalisation(mean, given["running_var"], weight, bias, 1e-5 if eps is None else eps)
