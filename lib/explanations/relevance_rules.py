r"""The rules of layer-wise relevance propagation, one object each, and the composites that say which layer takes which.

A rule hands the relevance :math:`R_j` of a layer's outputs :math:`z_j = \sum_i x_i w_{ij} + b_j` on to its inputs. Sources:
Bach et al. 2015 (doi 10.1371/journal.pone.0130140), Montavon et al. 2017 (deep Taylor decomposition, arXiv:1512.02479),
Montavon et al. 2019 (an overview, doi 10.1007/978-3-030-28954-6_10, where table 10.1 has them all). Written here without
the stabiliser: every divisor d stands for :math:`d + \epsilon\,\mathrm{sign}\,d`, and where it is zero nothing is handed on.
:math:`t^+` and :math:`t^-` are positive and negative parts.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lib.explanations.linear_maps import LinearMap, minus, plus
from lib.system import names


class Rule(ABC):
    """One rule: a frozen dataclass with its equation in the docstring and in `through`. Nothing else knows it by type.

    A new rule is a subclass here and an oracle in the tests; a row of RULES, where it is to be had by name.
    """

    eps: float

    @abstractmethod
    def through(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        """R_i, in the shape of `layer.x`, from R_j, in that of `layer.z`."""

    def part(self, x: Tensor) -> Tensor:
        r"""The part p of the values that counts where all weights are alike, in pooling and sums:
        :math:`R_i = p_i / \sum_{i'} p_{i'}\, R`.

        Raises ValueError for a rule that has none.
        """
        raise ValueError(f"{self} is no rule of pooling and sums; theirs are Epsilon, AlphaBeta with beta = 0, WSquare, Flat")


@dataclass(frozen=True)
class Epsilon(Rule):
    r"""LRP-epsilon: :math:`R_i = \sum_j \frac{x_i w_{ij}}{z_j} R_j` (Bach et al., eq. 58).

    eps = 0 is the vanilla rule, LRP-0 or z (eq. 56). The bias is part of z and absorbs its share.
    """

    eps: float = 1e-6

    def through(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        return layer.share(layer.own, relevance, self.eps, z=layer.z)

    def part(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class AlphaBeta(Rule):
    r"""LRP-alpha-beta: :math:`R_i = \sum_j (\alpha \frac{(x_i w_{ij})^+}{\sum_{i'} (x_{i'} w_{i'j})^+} -
    \beta \frac{(x_i w_{ij})^-}{\sum_{i'} (x_{i'} w_{i'j})^-}) R_j` with :math:`\alpha - \beta = 1`.

    Bach et al., eq. 60, who write their beta with the other sign; alpha = 1, beta = 0 is z+ (Montavon et al. 2017). `bias`:
    left out of both divisors (none), its positive part in the first and its negative in the second (signed, as eq. 60), or
    whole and twice in the one divisor of alpha = 1, beta = 0 (twice), as in the code that Heo et al. published.
    """

    alpha: float = 1.0
    beta: float = 0.0
    eps: float = 1e-6
    # deviation: without the bias, where eq. 60 has it signed: so that a bias absorbs no relevance.
    bias: Literal["none", "signed", "twice"] = "none"

    def __post_init__(self) -> None:
        if abs(self.alpha - self.beta - 1) > 1e-9 or self.beta < 0:
            raise ValueError(f"alpha = {self.alpha:g}, beta = {self.beta:g}: it takes alpha - beta = 1 and beta >= 0")
        if self.bias == "twice" and self.beta:
            raise ValueError("a bias counted twice belongs to alpha = 1, beta = 0")

    def through(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        w, b = layer.w, layer.b
        up = plus(w)
        down = minus(w) if self.beta or not layer.nonnegative else up  # else nothing reads it
        signed = self.bias == "signed" and b is not None
        bias = None if b is None or self.bias == "none" else plus(b) if signed else 2 * b
        found = layer.share(layer.by_sign(up, down), relevance, self.eps, bias=bias, nonnegative=self.bias != "twice")
        if not self.beta:
            return found
        other = layer.share(layer.by_sign(down, up), relevance, self.eps, bias=minus(b) if signed else None)
        return self.alpha * found - self.beta * other

    def part(self, x: Tensor) -> Tensor:
        return super().part(x) if self.beta else plus(x)


@dataclass(frozen=True)
class Gamma(Rule):
    r"""LRP-gamma: :math:`R_i = \sum_j \frac{x_i w_{ij} + \gamma (x_i w_{ij})^\pm}
    {\sum_{i'} x_{i'} w_{i'j} + \gamma (x_{i'} w_{i'j})^\pm} R_j`, + where :math:`z_j > 0`, - where :math:`z_j < 0`.

    Montavon et al. 2019, sec. 10.2.3, for inputs and outputs that are not negative (between ReLUs); with both signs Andéol
    et al. 2021 (arXiv:2106.04923). The bias is one more weight, of the input 1. gamma = 0 is LRP-epsilon.
    """

    gamma: float = 0.25
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.gamma < 0:
            raise ValueError(f"gamma = {self.gamma:g}: it takes gamma >= 0")

    def through(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        w, b = layer.w, layer.b
        up, down = w + self.gamma * plus(w), w + self.gamma * minus(w)
        more, less = (None, None) if b is None else (b + self.gamma * plus(b), b + self.gamma * minus(b))
        above = layer.share(layer.by_sign(up, down), relevance * (layer.z > 0), self.eps, bias=more)
        return above + layer.share(layer.by_sign(down, up), relevance * (layer.z < 0), self.eps, bias=less)


Bounds = float | tuple[float, ...]


@dataclass(frozen=True)
class ZBox(Rule):
    r"""z^B, for a layer that reads pixels: :math:`R_i = \sum_j \frac{x_i w_{ij} - l_i w_{ij}^+ - h_i w_{ij}^-}
    {\sum_{i'} x_{i'} w_{i'j} - l_{i'} w_{i'j}^+ - h_{i'} w_{i'j}^-} R_j` with :math:`l \le x \le h`.

    Montavon et al. 2017, on constrained input spaces. `low` and `high` are one number or one a channel, in the layer's own
    units: where the model normalises images in [0, 1], (0 - mean) / std and (1 - mean) / std. The bias has no part in it.
    Raises ValueError for values outside.
    """

    low: Bounds
    high: Bounds
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if not bool((torch.tensor(self.low) < torch.tensor(self.high)).all()):
            raise ValueError(f"low = {self.low} is not below high = {self.high}")

    def through(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        x, w = layer.x, layer.w
        low, high = (layer.by_channel(x.new_tensor(bound)) for bound in (self.low, self.high))
        slack = 1e-5 * (high - low)  # for rounding
        if bool(((x < low - slack) | (x > high + slack)).any()):
            raise ValueError(
                f"the input of layer {layer.name!r} ranges over {x.min():.3g} to {x.max():.3g}, outside {self}; give the "
                "bounds in its own units: (0 - mean) / std and (1 - mean) / std where the model normalises"
            )
        # x w - l w+ - h w-, written so that no term is negative and nothing cancels
        return layer.share(layer.beside((x - low, plus(w)), (x - high, minus(w))), relevance, self.eps)


@dataclass(frozen=True)
class WSquare(Rule):
    r"""w²: :math:`R_i = \sum_j \frac{w_{ij}^2}{\sum_{i'} w_{i'j}^2} R_j`, whatever the values.

    Montavon et al. 2017, on the unconstrained input space. The bias has no part in it.
    """

    eps: float = 1e-6

    def through(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        terms = layer.own._replace(x=torch.ones_like(layer.x), w=layer.w.square())
        return layer.share(terms, relevance, self.eps)

    def part(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


@dataclass(frozen=True)
class Flat(Rule):
    r"""Flat: :math:`R_i = \sum_j \frac{1}{\sum_{i'} 1} R_j` over the inputs i' that j reads.

    Lapuschkin et al. 2019 (arXiv:1902.10178): w² with all weights alike.
    """

    eps: float = 1e-6

    def through(self, layer: LinearMap, relevance: Tensor) -> Tensor:
        terms = layer.own._replace(x=torch.ones_like(layer.x), w=torch.ones_like(layer.w))
        return layer.share(terms, relevance, self.eps)

    def part(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


# Those that need no more to be said; z^B does: its bounds.
RULES: dict[str, Rule] = {
    "z": Epsilon(0),
    "epsilon": Epsilon(),
    "z-plus": AlphaBeta(),
    "alpha2-beta1": AlphaBeta(2, 1),
    "gamma": Gamma(),
    "w-square": WSquare(),
    "flat": Flat(),
}


def rule_of(which: str | Rule) -> Rule:
    """A rule by name, or itself. Raises ValueError for an unknown one, with the close matches."""
    if isinstance(which, Rule):
        return which
    if not isinstance(which, str):
        raise ValueError(f"{which!r} is no rule; give a Rule, such as ZBox(low, high), or one of {', '.join(RULES)}")
    if which not in RULES:
        raise names.unknown("rule", which, RULES)
    return RULES[which]


@dataclass(frozen=True)
class Composite:
    """A rule for each kind of layer: convolutions, dense layers, average pooling, sums of branches; given by name too.

    `first`: the rule of layers with weights that read the image, with no such layer below; None: as all others. `fold`:
    BatchNorm is folded into the layer before it; otherwise relevance passes it unchanged. `overwritten`: shares of a
    residual sum as in the published code of Heo et al., where the main branch had been overwritten by the sum.

    Raises ValueError for an unknown rule, and for one that pooling and sums do not have.
    """

    conv: Rule
    dense: Rule
    pool: Rule
    total: Rule
    first: Rule | None = None
    fold: bool = True
    overwritten: bool = False

    def __post_init__(self) -> None:
        for kind in ("conv", "dense", "pool", "total", "first"):
            given = getattr(self, kind)
            if kind != "first" or given is not None:
                object.__setattr__(self, kind, rule_of(given))
        for rule in (self.pool, self.total):
            rule.part(torch.zeros(()))


_PLUS = AlphaBeta()
_HEO = (Epsilon(0.01), AlphaBeta(eps=0.01), AlphaBeta(eps=0.01))
COMPOSITES = {
    "z": Composite(Epsilon(0), Epsilon(0), Epsilon(0), Epsilon(0)),
    "epsilon": Composite(Epsilon(), Epsilon(), Epsilon(), Epsilon()),
    "epsilon-plus": Composite(_PLUS, Epsilon(), Epsilon(), _PLUS),
    "alpha2-beta1": Composite(AlphaBeta(2, 1), Epsilon(), Epsilon(), _PLUS),
    # Heo et al. 2019: stabiliser .01, BatchNorm passed by; and with the two slips of their code
    # deviation: without the two slips of the code of Heo et al. 2019: a bias counted twice, shares of a sum that had been
    # overwritten.
    "heo": Composite(AlphaBeta(eps=0.01), *_HEO, fold=False),
    "heo-released": Composite(AlphaBeta(eps=0.01, bias="twice"), *_HEO, fold=False, overwritten=True),
}


def composite_of(which: str | Composite) -> Composite:
    """A composite by name, or itself. Raises ValueError for an unknown one, with the close matches."""
    if isinstance(which, Composite):
        return which
    if which not in COMPOSITES:
        raise names.unknown("composite", which, COMPOSITES)
    return COMPOSITES[which]
