"""Whether a network can be seen through: where gradients are cut, and what a tape has not recorded.

A gradient that autograd does not have is no zero. It is one where the score does not depend on the tensor, which a second
pass tells: it follows every operation, whether autograd does or not. That pass is made only where a gradient is missing.

A tape, the other way round, sees operations but not what a scripted or compiled function or an extension does. Where it read a
tensor of unknown origin, a second pass asks autograd, which knows.
"""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from lib.networks import hooks
from lib.networks.tape import CONSTANT, Tape, tensors


class Ancestry:
    """Which tensors depend on some others by autograd, whatever else in their graph needs gradients."""

    def __init__(self) -> None:
        self._known: dict[torch.autograd.graph.Node, bool] = {}  # holding the nodes keeps them apart

    def root(self, tensor: Tensor) -> None:
        self._known[torch.autograd.graph.get_gradient_edge(tensor).node] = True

    def has(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on a root."""
        if not tensor.requires_grad:
            return False
        start = torch.autograd.graph.get_gradient_edge(tensor).node
        waiting = [start]
        while waiting:
            node = waiting[-1]
            below = [n for n, _ in node.next_functions if n is not None]
            unknown = [n for n in below if n not in self._known]
            if node not in self._known and not unknown:
                self._known[node] = any(self._known[n] for n in below)
            if node in self._known:
                waiting.pop()
            else:
                waiting += unknown
        return self._known[start]


def name_of(function: Callable[..., Any]) -> str:
    """What an operation is called; of a property the property's name."""
    name = getattr(function, "__name__", str(function))
    return getattr(getattr(function, "__self__", None), "__name__", name) if name == "__get__" else name


class _Trail(TorchFunctionMode):
    """Follows everything that is computed from a tensor; `cut` says of what autograd lost where it did."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[str] = []
        self._held: dict[int, Tensor] = {}  # holding the tensors keeps identities unique
        self._ancestry = Ancestry()
        self._cut: dict[int, str] = {}

    def follow(self, tensor: Tensor) -> None:
        self._held[id(tensor)] = tensor
        if tensor.requires_grad:
            self._ancestry.root(tensor)

    def cut(self, tensor: Tensor) -> str | None:
        return self._cut.get(id(tensor))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        name = name_of(func)
        sources = [t for t in tensors((args, kwargs)) if id(t) in self._held]
        if not sources or name in CONSTANT:
            return found
        for t in tensors(found) or [a for a in args[:1] if isinstance(a, Tensor) and name == "__setitem__"]:
            if any(t is s for s in sources) and not name.endswith("_"):
                continue  # what puts out its own input
            self._held[id(t)] = t
            self._cut.pop(id(t), None)
            if not self._ancestry.has(t):
                how = "" if torch.is_grad_enabled() else " under torch.no_grad()"
                where = f"layer {self.running[-1]!r}, at {name!r}{how}" if self.running else f"{name!r}{how}"
                self._cut[id(t)] = next((c for s in sources if (c := self.cut(s))), where)
        return found


def _cut(model: nn.Module, x: Tensor, layer: str | None) -> str | None:
    """Where the gradient of the logits on its way to a layer (None: the images) is cut; None where nothing leads there."""
    image = x.detach().requires_grad_(layer is None)
    own = [] if layer is None else [layer]
    alive = any(not p.is_leaf for p in model.parameters())  # put there by functional_call: nobody can freeze them
    trail = _Trail()
    if layer is None:
        trail.follow(image)
    with (
        hooks.frozen(model, parameters=alive),
        hooks.capture(model, own, cut=True, seeing=trail.follow, any_layout=True),
        hooks.naming(model) as trail.running,
        hooks.as_written(),
        torch.enable_grad(),
        trail,
    ):
        output = model(image)
    found = [trail.cut(t) for t in pytree.tree_leaves(output) if isinstance(t, Tensor)]
    return next((c for c in found if c), None)


_REMEDY = "no gradient passes torch.no_grad(), detach(), .data, integers or numpy: let that part run without"


def check(model: nn.Module, x: Tensor, layers: Sequence[str]) -> None:
    """ValueError for layers that the logits do depend on, though autograd has no gradient there; for use after a pass."""
    for name in layers:
        if where := _cut(model, x, name):
            raise ValueError(
                f"the gradient is cut above layer {name!r}, in {where}, so that nothing reaches it; {_REMEDY}, or name a layer "
                "above it"
            )


def gradients(
    score: Tensor, at: Sequence[Tensor], *, create_graph: bool = False, retain_graph: bool | None = None
) -> tuple[Tensor | None, ...]:
    """The gradients of a score, None where autograd has none."""
    able = [t for t in at if score.requires_grad and t.requires_grad]  # one of a part without gradients needs none
    if len(able) == len(at):
        with hooks.outside_autocast(score):
            return torch.autograd.grad(score, at, create_graph=create_graph, retain_graph=retain_graph, allow_unused=True)
    found = iter(gradients(score, able, create_graph=create_graph, retain_graph=retain_graph) if able else ())
    return tuple(next(found) if any(t is a for a in able) else None for t in at)


def image_gradient(
    model: nn.Module, score: Tensor, at: Tensor, *, image: Tensor | None = None, create_graph: bool = False
) -> Tensor:
    """The gradient of a score of the model's at images, or at what they (`image`) are made of.

    Raises ValueError, and says where it is cut, where there is none.
    """
    (found,) = gradients(score, [at], create_graph=create_graph)
    if found is None:
        _raise_cut(model, at if image is None else image, "the logits")
    return found


def check_below(model: nn.Module, x: Tensor, record: Tensor, layer: str) -> None:
    """ValueError for a layer's record that has no gradient towards the images, which have one; parameters are frozen."""
    if not record.requires_grad:
        _raise_cut(model, x, f"layer {layer!r}")


def _raise_cut(model: nn.Module, x: Tensor, above: str) -> NoReturn:
    if not isinstance(model, torch.jit.ScriptModule) and (where := _cut(model, x, None)):
        raise ValueError(f"the gradient is cut below {above}, in {where}, so that nothing reaches the images; {_REMEDY}")
    raise ValueError(f"autograd knows of no way from the images to {above}, so there is no gradient; {_REMEDY}")


class _Witness(Tape):
    """A tape that asks autograd about every tensor that it does not follow."""

    def __init__(self) -> None:
        super().__init__()
        self._ancestry = Ancestry()

    def want(self, tensor: Tensor) -> None:
        super().want(tensor)
        if tensor.requires_grad:
            self._ancestry.root(tensor)

    def check(self, values: Any, layer: str) -> None:
        for t in tensors(values):
            if not self.follows(t) and self._ancestry.has(t):
                raise ValueError(
                    f"what layer {layer!r} makes of the image is not recorded: it runs a scripted or compiled function, an "
                    f"autograd.Function or an extension. {_PLAIN}"
                )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.check((args, kwargs), self.layers[-1] if self.layers else "")
        return super().__torch_function__(func, types, args, kwargs)


_PLAIN = "Write it in operations of torch, or ask for layers above it"


def check_recorded(record: Tape, model: nn.Module, x: Tensor, layers: Sequence[str], logits: Tensor, *, image: bool) -> None:
    """ValueError where a tape has lost what was asked for (layers; `image`: the pixels) on the way to the logits.

    For use after the pass that it recorded. Costs nothing unless the tape read a tensor of unknown origin, or none of what
    was asked for reached the logits; then a pass with gradients.
    """
    reached = id(logits) in record.reached
    if reached and not record.strange:
        return
    witness = _Witness()
    pixels = x.detach().requires_grad_()
    try:
        with (
            hooks.frozen(model, parameters=True),
            hooks.naming(model, witness.check),
            hooks.capture(model, layers, cut=False, seeing=witness.want),
            witness.naming(model),
            torch.enable_grad(),
        ):
            if image:
                witness.want(pixels)
            with witness:
                model(pixels)
    except RuntimeError:  # numpy takes no tensors with gradients
        if not record.left:
            raise
    if record.left and (not reached or record.strange):
        raise ValueError(
            f"layer {record.left!r} takes what it makes of the image out of torch, where nothing is recorded. {_PLAIN}"
        )
    if image and not reached:
        raise ValueError(f"nothing that was recorded leads from the image to the logits. {_PLAIN}")
