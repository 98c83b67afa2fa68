r"""How far a map has gone, as attacks climb it: per sample, differentiable, for maps >= 0.

:math:`m` is the map of the attacked image, :math:`m_0` that of the image as it was, both (N, h, w); a hat divides a map by its
sum, so that it is a distribution over positions. Every goal is larger the farther the map has gone, and 0 where it is
:math:`m_0` (`topk`: the share that lies outside the clean top already):

===========  =====================================================================================  ==========================
goal         value                                                                                  range
===========  =====================================================================================  ==========================
`mass`       :math:`\frac12 \lVert \hat m - \hat m_0 \rVert_1`, the share of the map that moved      [0, 1]
`ranks`      :math:`\frac12 (1 - r(s(m), s(m_0)))`, r Pearson's correlation, s soft ranks            [0, 1]
`topk`       :math:`1 - \sum_{i \in P} \hat m_i`, P the k = ⌈hw/10⌉ highest positions of m_0         [0, 1]
`centre`     distance of the centres of mass, of the map's diagonal                                  [0, 1]
`towards`    :math:`1 - \lVert \hat m - \hat t \rVert_2^2 / \lVert \hat m_0 - \hat t \rVert_2^2`      up to 1, at the map t
===========  =====================================================================================  ==========================

`topk` and `centre` are the attacks of Ghorbani et al. 2019 (arXiv:1710.10547, sec. 2), `towards` is that of Dombrowski et al.
2019 (arXiv:1906.07983, sec. 2); `mass` and `ranks` are ours. A soft rank is a value's place among Q quantiles
:math:`q` of its own map, :math:`s(v) = \frac1Q \sum_q \sigma((v - q)/\tau)`, :math:`\tau` their mean gap; quantiles and
:math:`\tau` are constants for derivatives. With ever more quantiles, ever closer, r becomes Spearman's rank correlation.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lib.measures import comparison
from lib.system.names import Table

QUANTILES = 32
TOP = 0.1  # of the positions
Maps = Float[Tensor, "n h w"]


def _share(maps: Tensor) -> Tensor:
    """Each map over its sum, flat (N, d); a map of zeros stays one."""
    flat = maps.flatten(1)
    return flat / flat.sum(1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny ** 0.5)


def mass_moved(m: Maps, m0: Maps) -> Float[Tensor, " n"]:
    """Half the L1 distance of the maps as distributions, in [0, 1]: the share of the map that lies elsewhere now."""
    return 0.5 * (_share(m) - _share(m0)).abs().sum(1)


def _soft_ranks(flat: Tensor) -> Tensor:
    places = torch.linspace(0.5 / QUANTILES, 1 - 0.5 / QUANTILES, QUANTILES, dtype=flat.dtype, device=flat.device)
    at = torch.quantile(flat.detach(), places, dim=1).T  # (N, Q)
    gap = ((at[:, -1:] - at[:, :1]) / (QUANTILES - 1)).clamp_min(torch.finfo(flat.dtype).tiny ** 0.5)
    soft = torch.zeros_like(flat)
    for i in range(QUANTILES):  # one at a time: Q maps at once would be most of the memory
        soft = soft + torch.sigmoid((flat - at[:, i : i + 1]) / gap)
    return soft / QUANTILES


def ranks_moved(m: Maps, m0: Maps) -> Float[Tensor, " n"]:
    """(1 - r) / 2 of soft ranks, in [0, 1]: 0 for one order, 1/2 for orders that have nothing in common."""
    u, v = (_soft_ranks(a.flatten(1)) for a in (m, m0))
    u, v = u - u.mean(1, keepdim=True), v - v.mean(1, keepdim=True)
    tiny = torch.finfo(u.dtype).tiny ** 0.5
    r = (u * v).sum(1) / ((u * u).sum(1).clamp_min(tiny) * (v * v).sum(1).clamp_min(tiny)).sqrt()
    return (1 - r) / 2


def top_lost(m: Maps, m0: Maps) -> Float[Tensor, " n"]:
    """The share of the map that lies outside the highest tenth of the positions of m0, in [0, 1]."""
    return 1 - (_share(m) * comparison.highest(m0, math.ceil(TOP * m0[0].numel()))).sum(1)


def centre_moved(m: Maps, m0: Maps) -> Float[Tensor, " n"]:
    """The distance of the centres of mass, over the distance of the map's corners."""
    h, w = m.shape[-2:]
    if h * w < 2:
        raise ValueError(f"maps have {h} x {w} positions; a centre can move over two at least")
    shift = (_share(m) - _share(m0)).view(-1, h, w)
    down = (shift.sum(2) * torch.arange(h, dtype=m.dtype, device=m.device)).sum(1)
    across = (shift.sum(1) * torch.arange(w, dtype=m.dtype, device=m.device)).sum(1)
    squared = down**2 + across**2
    # the root has no derivative at 0, where the map is still what it was
    return squared.clamp_min(torch.finfo(m.dtype).tiny ** 0.5).sqrt() / math.hypot(h - 1, w - 1)


def towards(m: Maps, m0: Maps, given: Maps) -> Float[Tensor, " n"]:
    """How much of the squared distance between m0 and the map `given` is gone: 0 at m0, 1 at the map given, below 0 beyond."""
    own, wanted = _share(m), _share(given)
    whole = ((_share(m0) - wanted) ** 2).sum(1)
    return 1 - ((own - wanted) ** 2).sum(1) / whole.clamp_min(torch.finfo(m.dtype).tiny ** 0.5)


class Goal(NamedTuple):
    """A row: what is typed, what people read, the function of (m, m0), and whether that takes a map to reach as well."""

    name: str
    label: str
    function: Callable[..., Float[Tensor, " n"]]
    aimed: bool = False


GOALS = Table(
    "goal",
    (
        Goal("mass", "share of the map that moved", mass_moved),
        Goal("ranks", "order of the map's positions", ranks_moved),
        Goal("topk", "share outside the clean map's top tenth", top_lost),
        Goal("centre", "centre of mass, of the diagonal", centre_moved),
        Goal("towards", "share of the way to a given map", towards, aimed=True),
    ),
)
