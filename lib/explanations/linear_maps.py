r"""A layer with weights as rules of relevance see it: :math:`z_j = \sum_i x_i w_{ij} + b_j`, and shares of its terms.

Every rule hands relevance on as :math:`R_i = \sum_j \frac{x'_i w'_{ij}}{z'_j + \epsilon\,\mathrm{sign}\,z'_j} R_j` with
:math:`z'_j = \sum_i x'_i w'_{ij}` (sign 0 = 1), for inputs x' and weights w' of its own choice: that is `LinearMap.share`,
one pass of the layer for z' and one transposed pass back. Several pairs of inputs and weights stand side by side as one
layer with more channels (`LinearMap.beside`).
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lib.networks import tape
from lib.networks.tape import Step


def plus(t: Tensor) -> Tensor:
    """The positive part, 0 elsewhere."""
    return t.clamp(min=0)


def minus(t: Tensor) -> Tensor:
    """The negative part, 0 elsewhere."""
    return t.clamp(max=0)


def over(relevance: Tensor, z: Tensor, eps: float, *, nonnegative: bool = False) -> Tensor:
    """R / (z + eps sign z) with sign 0 = 1, and 0 where that divides by zero; `nonnegative`: no z is below zero."""
    if eps and nonnegative:
        return relevance / (z + eps)
    if eps:
        away = torch.copysign(z.new_tensor(eps), z.detach())
        return relevance / (z + away) if torch.is_grad_enabled() else torch.div(relevance, away.add_(z), out=away)
    zero = z == 0
    return torch.where(zero, 0.0, relevance / torch.where(zero, 1.0, z))


def _product(a: Tensor, fresh: Tensor) -> Tensor:
    """a * fresh, in the second's memory where nothing is differentiated."""
    return a * fresh if torch.is_grad_enabled() else fresh.mul_(a)


class Terms(NamedTuple):
    """Inputs x' and weights w'; `pairs` of them stand side by side, channel by channel."""

    x: Tensor
    w: Tensor
    pairs: int = 1


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A convolution or dense layer: x, w, b, its output z, and the maps x, w -> x w and s, w, x -> s w^T.

    Convolution: x (N, C, h, w), w (K, C / groups, kh, kw), z (N, K, h', w'). Dense: x (..., C), w (K, C), z (..., K).
    b (K,) or None. `name` is the module that it ran in.
    """

    x: Tensor
    w: Tensor
    b: Tensor | None
    z: Tensor
    forward: Callable[[Tensor, Tensor], Tensor]
    transposed: Callable[[Tensor, Tensor, Tensor], Tensor]
    name: str
    groups: int = 0  # of a convolution; 0: a dense layer
    known_nonnegative: bool = False  # known without a look at x

    @cached_property
    def nonnegative(self) -> bool:
        """Whether no input is negative; x is mostly a ReLU's output."""
        return self.known_nonnegative or bool((self.x >= 0).all())

    @property
    def own(self) -> Terms:
        """The layer's own terms, x_i w_ij."""
        return Terms(self.x, self.w)

    def by_sign(self, up: Tensor, down: Tensor) -> Terms:
        """Terms x_i^+ up_ij + x_i^- down_ij. Where no input is negative `down` is not read."""
        if self.nonnegative:
            return Terms(self.x, up)
        return Terms(self._signs, torch.cat([up, down], 1), 2)

    @cached_property
    def _signs(self) -> Tensor:
        return self._joined(plus(self.x), minus(self.x))

    def beside(self, *pairs: tuple[Tensor, Tensor]) -> Terms:
        """Terms of several inputs, each with its weights, to be summed."""
        return Terms(self._joined(*(x for x, _ in pairs)), torch.cat([w for _, w in pairs], 1), len(pairs))

    def share(
        self,
        terms: Terms,
        relevance: Tensor,
        eps: float,
        *,
        bias: Tensor | None = None,
        z: Tensor | None = None,
        nonnegative: bool = False,
    ) -> Tensor:
        """R_i of the module's docstring, in the shape of x, from R_j in that of z.

        The `bias`, (K,), is part of z' and absorbs its share. `z` is z' where that is known, which saves a pass;
        `nonnegative`: no term and no bias is below zero.
        """
        if z is None:
            z = self.forward(terms.x, terms.w)
            if bias is not None:
                z = z + self.by_channel(bias)
        found = _product(terms.x, self.transposed(over(relevance, z, eps, nonnegative=nonnegative), terms.w, terms.x))
        return found if terms.pairs == 1 else self._summed(found, terms.pairs)

    def by_channel(self, values: Tensor) -> Tensor:
        """One value a channel, (C,), or one for all, so that it broadcasts against x or z."""
        return values.view(-1, 1, 1) if self.groups else values

    def _joined(self, *inputs: Tensor) -> Tensor:
        """Several inputs as one with as many times the channels, group by group."""
        if not self.groups:
            return torch.cat(inputs, -1)
        return torch.stack([x.unflatten(1, (self.groups, -1)) for x in inputs], 2).flatten(1, 3)

    def _summed(self, joined: Tensor, pairs: int) -> Tensor:
        """Back to one: the sum of all."""
        if not self.groups:
            return joined.unflatten(-1, (pairs, -1)).sum(-2)
        return joined.unflatten(1, (self.groups, pairs, -1)).sum(2).flatten(1, 2)

    def times(self, factor: float) -> "LinearMap":
        """This layer and a multiplication of its output as one."""
        b = None if self.b is None else self.b * factor
        return dataclasses.replace(self, w=self.w * factor, b=b, z=self.z * factor)

    def folded(self, step: Step) -> "LinearMap":
        """This layer and the BatchNorm that follows it as one. Raises ValueError for one with the batch's statistics."""
        n = tape.normalisation(step)
        scale = n.weight * torch.rsqrt(n.variance + n.eps)
        shift = n.bias + ((0 if self.b is None else self.b) - n.mean) * scale
        w = self.w * scale.view(-1, *[1] * (self.w.dim() - 1))
        return dataclasses.replace(self, w=w, b=shift, z=step.outputs[0])


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _convolution(step: Step, nonnegative: bool) -> LinearMap:
    x, w, b, stride, padding, dilation, groups = tape.bound(
        step, ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    )
    stride, dilation, groups = stride or 1, dilation or 1, groups or 1
    if isinstance(padding, str):
        dilated = [d * (k - 1) for d, k in zip(_pair(dilation), w.shape[2:], strict=True)]
        if padding == "same" and any(d % 2 for d in dilated):
            raise ValueError(f"layer {step.layer!r} pads 'same' with an even kernel; give its padding as numbers for LRP")
        padding = [d // 2 for d in dilated] if padding == "same" else 0
    options = (stride, padding or 0, dilation, groups)

    def forward(x: Tensor, w: Tensor) -> Tensor:
        return F.conv2d(x, w, None, *options)

    point = tuple(w.shape[2:]) == (1, 1) and groups == 1 and _pair(stride) == (1, 1) and _pair(padding or 0) == (0, 0)

    def transposed(s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        if point:  # a product of matrices
            return F.conv2d(s, w.transpose(0, 1))
        # as torch.nn.grad.conv2d_input, which has no x at hand and so lets torch copy one
        strides = (_pair(stride), _pair(padding or 0), _pair(dilation))
        wanted = (True, False, False)
        return torch.ops.aten.convolution_backward(s, x, w, None, *strides, False, (0, 0), groups, wanted)[0]

    return LinearMap(x, w, b, step.outputs[0], forward, transposed, step.layer, groups, nonnegative)


def _dense(step: Step, nonnegative: bool) -> LinearMap:
    x, w, b = tape.bound(step, ("input", "weight", "bias"))
    return LinearMap(
        x, w, b, step.outputs[0], lambda x, w: x @ w.T, lambda s, w, _: s @ w, step.layer, known_nonnegative=nonnegative
    )


_KINDS = {"conv2d": _convolution, "linear": _dense}


def linear_map(step: Step, nonnegative: bool = False) -> LinearMap:
    """The layer of a step whose name is in `tape.WEIGHTED`; `nonnegative`: its input is known to be.

    Raises ValueError for a convolution that pads 'same' with an even kernel.
    """
    return _KINDS[step.name](step, nonnegative)
