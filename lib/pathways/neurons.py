r"""Neurons of a network and groups of them (Bluff: Das, Park et al. 2020, arXiv:2009.02608).

A neuron is a channel of a convolutional layer.

* Its *score* on an image is the maximum over positions of its activation; on a set of images, the median of these. Its
  percentile is the rank of that median within the layer, over the layer's size.
* With O the K highest neurons of a layer on clean images of the source class, T those of the target class, and A those of
  the attacked images: *original* is O \ T, *both* O ∩ T, *target* T \ O, *exploited* the first few of A \ O \ T.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lib.data import checks
from lib.measures import comparison
from lib.networks import contract, hooks
from lib.system import devices

Change = Literal["activated", "changed", "excited", "inhibited"]
CHANGES: tuple[Change, ...] = ("activated", "changed", "excited", "inhibited")
BATCH = 50


def rows_of(x: Float[Tensor, "n c h w"]) -> int:
    """How many of the images pass together: BATCH, or fewer where they are large."""
    return devices.images_at_once(max(x.shape[2:]), BATCH)


@dataclass(frozen=True)
class Scores:
    """`of[layer]` (N, C): the maximum over positions of each channel's activation; `logits` (N, classes) of that pass."""

    of: dict[str, Float[Tensor, "n ..."]]
    logits: Float[Tensor, "n classes"]


@torch.no_grad()
def scores(model: nn.Module, x: Float[Tensor, "n c h w"], layers: Sequence[str], *, batch_size: int | None = None) -> Scores:
    """Scores of every channel of the layers: one forward pass, in batches as `rows_of` says unless told otherwise.

    Raises ValueError for images outside [0, 1], no layer, and a layer that is unknown, does not run, or puts out no maps.
    """
    if not layers:
        raise ValueError("no layer named; pathways need one at least")
    x = checks.check_images(x)
    found: list[dict[str, Tensor]] = []
    logits = []
    with hooks.frozen(model):
        for part in x.split(batch_size or rows_of(x)):
            with hooks.capture(model, layers, cut=False) as seen:
                logits.append(contract.logits_of(model, part))
            contract.check_logits(model, logits[-1])
            found.append({n: seen[n].amax((2, 3)) for n in layers})
    return Scores({n: torch.cat([f[n] for f in found]) for n in layers}, torch.cat(logits))


def median(values: Float[Tensor, " n *s"]) -> Float[Tensor, " *s"]:
    """The median over the first dimension, halfway between the two middle values where their number is even."""
    if len(values) == 1 or (len(values) and not values[0].numel()):
        return values[0]
    return devices.wide(values).quantile(0.5, dim=0)


def percentile(medians: Float[Tensor, "*s c"]) -> Float[Tensor, "*s c"]:
    """Ranks within a layer over its size, in (0, 1], of medians (..., C); equal ones share the mean of their ranks."""
    flat = medians.reshape(-1, medians.shape[-1])
    return (comparison.ranks(flat) / medians.shape[-1]).reshape(medians.shape).to(medians)


def top(medians: Float[Tensor, "*s c"], k: int) -> Int[Tensor, "*s k"]:
    """The k highest channels of medians (..., C), highest first; of equal ones the one that comes first."""
    if not 1 <= k <= medians.shape[-1]:
        raise ValueError(f"k = {k} of {medians.shape[-1]} channels: 1 at least, and no more than there are")
    return medians.sort(dim=-1, descending=True, stable=True)[1][..., :k]


class Groups(NamedTuple):
    """Channels of one layer by group; `exploited` has one tuple a strength."""

    original: tuple[int, ...]
    both: tuple[int, ...]
    target: tuple[int, ...]
    exploited: tuple[tuple[int, ...], ...]

    @property
    def exploited_ever(self) -> tuple[int, ...]:
        """The union over strengths, in the order in which they first appear."""
        return tuple(dict.fromkeys(c for group in self.exploited for c in group))

    def of(self, name: str) -> tuple[int, ...]:
        """The channels of a group by name, of `exploited` those of any strength."""
        return self.exploited_ever if name == "exploited" else getattr(self, name)

    @property
    def shown(self) -> tuple[int, ...]:
        """Every channel that is in a group."""
        return (*self.original, *self.both, *self.target, *self.exploited_ever)


def groups(
    source: Float[Tensor, " c"],
    target: Float[Tensor, " c"] | None,
    attacked: Float[Tensor, "s c"],
    k: int,
    *,
    exploited: int = 5,
) -> Groups:
    """The four groups of a layer from medians: clean source and target images (C,), attacked images by strength (S, C).

    Without target images (None) T is empty: what an attack brings up may be the target's or anything else.
    """
    own, other = (top(m, k).tolist() if m is not None else [] for m in (source, target))
    first = [tuple(c for c in row if c not in own and c not in other)[:exploited] for row in top(attacked, k).tolist()]
    return Groups(
        tuple(c for c in own if c not in other),
        tuple(c for c in own if c in other),
        tuple(c for c in other if c not in own),
        tuple(first),
    )


def change(values: Float[Tensor, "..."], clean: Float[Tensor, "..."], how: Change) -> Float[Tensor, "..."]:
    """What neurons or edges are ranked by: the attacked value, |attacked - clean|, attacked - clean, or clean - attacked."""
    if how not in CHANGES:
        raise ValueError(f"unknown ranking {how!r}; choose one of {', '.join(CHANGES)}")
    if how == "activated":
        return values
    difference = values - clean
    return difference.abs() if how == "changed" else difference if how == "excited" else -difference


def vulnerability(
    attacked: Float[Tensor, "s c"], clean: Float[Tensor, " c"], strengths: Sequence[float]
) -> Float[Tensor, " c"]:
    """Sum over strengths of |percentile attacked - percentile clean| / strength, of medians (S, C) and (C,)."""
    if len(strengths) != len(attacked) or min(strengths, default=0) <= 0:
        raise ValueError(f"{len(attacked)} rows of medians for the strengths {tuple(strengths)}; one each, above 0")
    moved = (percentile(attacked) - percentile(clean)).abs()
    return (moved / attacked.new_tensor(list(strengths))[:, None]).sum(0)
