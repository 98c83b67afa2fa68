"""Rows on their way through an iterative attack: a bounded number at once, each at its own step.

A row leaves the moment it is fooled or has spent its budget, and makes room for the next, so that batches stay full and no
pass is spent on what is decided. Randomness is keyed by (seed, row, count) and computed from the key alone, so that neither
the batch in which a row travels nor the order changes what it meets.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lib.attacks.steps import Norm, logits_of, random_point
from lib.system import devices


@dataclass(frozen=True)
class Subject:
    """What stays the same over all runs: the model, images (N, C, H, W), their labels (N,), the norm, how many rows at once."""

    model: nn.Module
    x: Float[Tensor, "n c h w"]
    y: Int[Tensor, " n"]
    norm: Norm = "linf"
    batch_size: int = 128

    def logits(self, x: Float[Tensor, "k c h w"]) -> Float[Tensor, "k classes"]:
        """Of images in the type that the model takes."""
        return logits_of(self.model, x.to(self.x))


@dataclass(frozen=True)
class Outcome:
    """What a run did to its rows: which it fooled, the margin it brought each to, passes spent on single images (with a
    backward pass, or for `square` without), and reasons to distrust it."""

    broken: Bool[Tensor, " k"]
    reached: Float[Tensor, " k"]
    spent: int
    warnings: tuple[str, ...] = ()


class Pool:
    """At most `size` of `count` rows at once; `begin` gives the state of new ones, a tensor with a row for each by name.

    `slot` (k,) are the positions of the rows that are in, `age` (k,) the steps that each has taken; `pool["x_adv"]` is
    their state, which may be set. Use: `while pool.filled(): ...; pool.keep(stay)`.
    """

    def __init__(
        self, count: int, size: int, begin: Callable[[Int[Tensor, " k"]], dict[str, Tensor]], device: torch.device
    ) -> None:
        self.count, self.size, self.begin, self.device = count, size, begin, device
        self.slot = torch.empty(0, dtype=torch.long, device=device)
        self.age = torch.empty(0, dtype=torch.long, device=device)
        self.state: dict[str, Tensor] = {}
        self.queued = 0

    def __getitem__(self, name: str) -> Tensor:
        return self.state[name]

    def __setitem__(self, name: str, value: Tensor) -> None:
        self.state[name] = value

    def filled(self) -> bool:
        """Whether rows are in, after new ones came where half of the places were free."""
        room = min(self.size - len(self.slot), self.count - self.queued)
        if room > 0 and len(self.slot) <= self.size // 2:
            fresh = torch.arange(self.queued, self.queued + room, device=self.device)
            new = self.begin(fresh)
            self.state = {name: torch.cat([self.state[name], t]) if self.state else t for name, t in new.items()}
            self.slot, self.age = torch.cat([self.slot, fresh]), torch.cat([self.age, torch.zeros_like(fresh)])
            self.queued += room
        return len(self.slot) > 0

    def keep(self, stay: Bool[Tensor, " k"], aged: int = 1) -> None:
        """Rows that are done leave; the others are `aged` steps older."""
        self.slot, self.age = self.slot[stay], self.age[stay] + aged
        self.state = {name: t[stay] for name, t in self.state.items()}


Start = Callable[[Tensor, Tensor, float], Tensor]  # (rows, all images, eps) -> a point of the ball around 0 for each row


def keyed_start(seed: int, run: int, norm: Norm) -> Start:
    """Random starting points that belong to images, not to batches."""

    def start(rows: Tensor, x: Tensor, eps: float) -> Tensor:
        points = []
        for row in rows.tolist():
            key = (seed * 1_000_003 + run * 8191 + row) % 2**63
            points.append(random_point(x[:1], eps, norm, torch.Generator().manual_seed(key)))
        return torch.cat(points)

    return start


def keyed_uniform(seed: int, rows: Int[Tensor, " k"], counts: Int[Tensor, " k"], draws: int) -> Float[Tensor, "k draws"]:
    """Numbers in [0, 1) that are a function of (seed, row, count, number of the draw) alone, in the widest type of the
    device.

    The finaliser of SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195), chained over the four, in wrapping 64-bit
    integers; the number is as many of the upper bits as that type holds, 53 of float64. A generator a row and step would cost
    more than the network.
    """
    mixed = _mixed(torch.full_like(rows, (seed + 2**63) % 2**64 - 2**63))  # seeds of torch's generators have 64 bits, no sign
    mixed = _mixed(_mixed(mixed + rows) + counts)
    mixed = _mixed(mixed[:, None] + torch.arange(draws, device=rows.device))
    kind = devices.exact(rows.device)
    bits = 53 if kind == torch.float64 else 24
    return _shifted(mixed, 64 - bits).to(kind) * 2.0**-bits


def signs(drawn: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """-1 or 1 for each number in [0, 1)."""
    return 2.0 * (drawn < 0.5) - 1


def corners(
    drawn: Float[Tensor, "k 2"], side: int | Int[Tensor, " k"], height: int, width: int
) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    """The top and the left of squares that lie within an image, for two numbers in [0, 1) each."""
    return (drawn[:, 0] * (height - side + 1)).long(), (drawn[:, 1] * (width - side + 1)).long()


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Bits moved to the right, zeros behind them: torch's own shift repeats the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mixed(z: Tensor) -> Tensor:
    z = z - 0x61C8864680B583EB  # the golden ratio's 0x9E3779B97F4A7C15, as a signed number
    z = (z ^ _shifted(z, 30)) * -0x40A7B892E31B1A47  # 0xBF58476D1CE4E5B9
    z = (z ^ _shifted(z, 27)) * -0x6B2FB644ECCEEE15  # 0x94D049BB133111EB
    return z ^ _shifted(z, 31)
