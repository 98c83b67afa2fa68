r"""ReLUs wherever they run, and a network's smooth twin, with softplus in their place.

A ReLU network is piecewise linear: its second derivatives are zero almost everywhere, and whoever climbs an explanation that is
made of first derivatives follows nothing. Dombrowski et al. 2019 (arXiv:1906.07983, sec. 3) replace ReLU by

.. math:: \mathrm{softplus}_\beta(z) = \tfrac1\beta \log(1 + e^{\beta z}) \to \max(z, 0), \quad \beta \to \infty.

Here :math:`\beta` is in units of the deviation of what enters the ReLU, image by image (and is constant for derivatives), so
that one value means the same in every layer of every network. ReLU6 becomes
:math:`\mathrm{softplus}(z) - \mathrm{softplus}(z - 6)`, a leaky ReLU of slope a :math:`a z + (1 - a)\,\mathrm{softplus}(z)`.
Max-pooling stays as it is, and so do activations that are smooth already.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_INPUT, _OTHER = ("input", "self"), ("other",)


def _given(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, *names: str) -> Any:
    return args[place] if len(args) > place else next((kwargs[n] for n in names if n in kwargs), None)


def _zero(value: Any) -> bool:
    """Whether it is 0 everywhere, and no activation."""
    if isinstance(value, Tensor):
        return not value.requires_grad and not value.any()
    return isinstance(value, int | float) and value == 0


def _passes_positive(mask: Any, z: Any) -> bool:
    """Whether it is 1 (or true) where z is positive, and 0 elsewhere."""
    plain = isinstance(mask, Tensor) and isinstance(z, Tensor) and not mask.requires_grad and z.requires_grad
    return plain and mask.shape == z.shape and torch.equal(mask.to(z.dtype), (z > 0).to(z.dtype))


def relu_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """What an operation by this name puts through a ReLU; None where it is none. In-place ones end in an underscore."""
    z, name = _given(args, kwargs, 0, *_INPUT), name.removesuffix("_")
    if name == "relu":
        return z
    if name in ("clamp", "clip"):
        low, high = _given(args, kwargs, 1, "min"), _given(args, kwargs, 2, "max")
        return z if high is None and _zero(low) else None
    if name == "clamp_min":
        return z if _zero(_given(args, kwargs, 1, "min")) else None
    if name in ("threshold", "_threshold"):
        return z if _zero(_given(args, kwargs, 1, "threshold")) and _zero(_given(args, kwargs, 2, "value")) else None
    if name == "leaky_relu":
        return z if _zero(_given(args, kwargs, 1, "negative_slope")) else None
    other = _given(args, kwargs, 1, *_OTHER)
    if name in ("maximum", "max", "fmax") and isinstance(other, Tensor):
        shape = torch.broadcast_shapes(z.shape, other.shape)
        return z if _zero(other) and z.shape == shape else other if _zero(z) and other.shape == shape else None
    if name == "where" and isinstance(other, Tensor):  # of torch: condition first
        condition, a, b = (*((z, other) if z.dtype == torch.bool else (other, z)), _given(args, kwargs, 2, *_OTHER))
        return a if _zero(b) and _passes_positive(condition, a) else None
    if name in ("mul", "__mul__", "__rmul__", "__imul__") and isinstance(other, Tensor):
        return z if _passes_positive(other, z) else other if _passes_positive(z, other) else None
    return None


_PLACES = {"relu": 1, "relu6": 1, "threshold": 3, "_threshold": 3, "leaky_relu": 2, "hardtanh": 3}  # of `inplace`


def in_place(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], z: Tensor) -> bool:
    """Whether an operation by this name writes its result over z."""
    written = _given(args, kwargs, 0, *_INPUT) is z and (name.endswith("_") and not name.endswith("__"))
    asked = name in _PLACES and bool(_given(args, kwargs, _PLACES[name], "inplace"))
    return written or asked or name == "__imul__"


def _bounded(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, float] | None:
    """What an operation by this name cuts to [0, c], and c; None where it does something else."""
    z, name = _given(args, kwargs, 0, *_INPUT), name.removesuffix("_")
    if name == "relu6":
        return z, 6.0
    if name not in ("hardtanh", "clamp", "clip"):
        return None
    low = _given(args, kwargs, 1, "min", "min_val")
    high = _given(args, kwargs, 2, "max", "max_val")
    plain = isinstance(high, int | float) and high > 0
    return (z, float(high)) if plain and _zero(low) else None


def _deviation(rows: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Of each row; on a CPU, where torch takes four times as long for it, to the last bit what torch finds."""
    if rows.device.type != "cpu":
        return rows.std(1, correction=0)
    wide = rows.double()
    return (wide - wide.mean(1, keepdim=True)).square_().mean(1).sqrt().to(rows.dtype)


def softplus(z: Float[Tensor, " n *s"], beta: float) -> Float[Tensor, " n *s"]:
    r""":math:`\mathrm{softplus}_{\beta/\sigma}(z)`, with the standard deviation of each row of z as a constant; ReLU where a
    row does not vary."""
    sigma = _deviation(z.detach().reshape(len(z), -1)).view(-1, *[1] * (z.dim() - 1))
    k = beta / sigma.clamp_min(torch.finfo(z.dtype).tiny ** 0.5)
    return F.softplus(k * z) / k


class _Smooth(TorchFunctionMode):
    """Softplus for every ReLU that runs while `running`."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta, self.running, self.seen = beta, False, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        found = self._smoothed(name, args, kwargs) if self.running and name != "__get__" else None
        if found is None:
            return func(*args, **kwargs)
        self.seen += 1
        z, smooth = found
        return z.copy_(smooth) if in_place(name, args, kwargs, z) else smooth

    def _smoothed(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor] | None:
        """What a ReLU of some kind was given, and the twin's result; None for any other operation."""
        if (cut := _bounded(name, args, kwargs)) is not None:
            z, high = cut
            kept = z.clone() if in_place(name, args, kwargs, z) else z  # softplus differentiates what it was given
            return z, softplus(kept, self.beta) - softplus(kept - high, self.beta)
        z, slope = relu_of(name, args, kwargs), 0.0
        if z is None and name.removesuffix("_") == "leaky_relu":
            z, slope = _given(args, kwargs, 0, *_INPUT), float(args[1] if len(args) > 1 else kwargs.get("negative_slope", 0.01))
        if z is None:
            return None
        kept = z.clone() if in_place(name, args, kwargs, z) else z
        return z, softplus(kept, self.beta) if slope == 0 else slope * kept + (1 - slope) * softplus(kept, self.beta)


@contextlib.contextmanager
def smoothed(model: nn.Module, beta: float) -> Iterator[_Smooth]:
    """The model's smooth twin inside the block, in this thread: its own forward passes, whoever asks for them, run with
    softplus in place of ReLU. The block's value counts what was replaced (`seen`).

    What runs outside the model (the ReLU of a map, the rules of LRP) stays as it is. ReLUs in scripted or compiled functions
    are not seen. Raises ValueError unless beta > 0.
    """
    if not beta > 0:
        raise ValueError(f"beta={beta}: how sharp softplus is, above 0 (10 is smooth, 100 hardly to be told from ReLU)")
    mode, own = _Smooth(beta), threading.get_ident()

    def switch(on: bool) -> Callable[..., None]:
        def heard(*_: Any) -> None:
            if threading.get_ident() == own:
                mode.running = on

        return heard

    handles = [model.register_forward_pre_hook(switch(True)), model.register_forward_hook(switch(False), always_call=True)]
    try:
        with mode:
            yield mode
    finally:
        for handle in handles:
            handle.remove()
