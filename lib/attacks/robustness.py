"""Robust accuracy over a grid of eps, doing no work twice.

Balls are nested: an image that is adversarial at one eps is adversarial at every larger one, and an attack that comes
nowhere near the decision boundary in a large ball comes no nearer in a small one. So the grid is worked through from large
to small, a row leaves the batch the moment it is fooled, and a row that keeps its margin at one eps is not attacked at
smaller ones. Close calls are: they are attacked at the next smaller eps too, and get a second look of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lib.attacks.losses import Loss, cross_entropy, margin
from lib.attacks.steps import (
    Norm,
    ascent,
    check_ball,
    check_result,
    default_step,
    fooled,
    input_gradient,
    logits_of,
    per_row,
    project,
    radii,
    random_point,
    weaknesses,
    wide,
)
from lib.data import checks
from lib.data.checks import Labels
from lib.networks import contract, hooks

# (eps, steps, i) -> length of step i
Step = Callable[[float, int, int], float]
Start = Callable[[Tensor, Tensor, float], Tensor]


def shrinking_step(eps: float, steps: int, i: int) -> float:
    """From eps down to eps / steps, linearly: what can be fooled easily is fooled at once, and the end is fine."""
    return eps * (1 - i / steps)


def constant_step(eps: float, steps: int, i: int) -> float:
    """2.5 eps / steps throughout (Madry et al. 2018)."""
    return default_step(eps, steps)


@dataclass(frozen=True)
class RobustAccuracy:
    """correct (E+1, N) bool: still right after the attack, by eps (row 0: without attack); eps is (0, *grid) ascending.

    steps (E+1,): row-steps spent at each eps, that is forward-and-backward passes of single images. warnings as in
    `attacks`, and for a model that answers twice in two ways (randomised), whose robust accuracy means little.
    """

    eps: tuple[float, ...]
    correct: Bool[Tensor, "levels n"]
    steps: tuple[int, ...]
    warnings: tuple[str, ...]

    @property
    def accuracy(self) -> Float[Tensor, " levels"]:
        """(E+1,) in [0, 1]."""
        return self.correct.float().mean(1)


@dataclass(frozen=True)
class _Attacker:
    """What stays the same over a grid: model, data and attack."""

    model: nn.Module
    x: Tensor
    y: Tensor
    steps: int
    step: Step
    norm: Norm
    batch_size: int

    def logits(self, x: Tensor) -> Tensor:
        return logits_of(self.model, x.to(self.x))

    def run(self, rows: Tensor, eps: float, loss: Loss, start: Start | None) -> tuple[Tensor, Tensor, int, tuple[str, ...]]:
        """One run over `rows`: which were fooled, the margin they were brought to (both (len(rows),)), steps, warnings.

        A pool of at most `batch_size` rows, each at its own step; rows that were fooled or finished make room for the
        next. An iterate is judged by the forward pass that the next step needs anyway; the only extra one is the last.
        """
        x, device = wide(self.x), self.x.device  # images of half precision are moved in float32
        broken = torch.zeros(len(rows), dtype=torch.bool, device=device)
        reached = torch.full((len(rows),), -torch.inf, dtype=x.dtype, device=device)
        slot = torch.empty(0, dtype=torch.long, device=device)  # positions in `rows`
        age = torch.empty(0, dtype=torch.long, device=device)  # steps taken
        x_adv, spent, queued = x[:0], 0, 0
        warnings: tuple[str, ...] = ()
        lengths = torch.tensor([self.step(eps, self.steps, i) for i in range(self.steps)], dtype=x.dtype, device=device)
        while len(slot) or queued < len(rows):
            room = min(self.batch_size - len(slot), len(rows) - queued)
            if room > 0 and len(slot) <= self.batch_size // 2:
                fresh = torch.arange(queued, queued + room, device=device)
                begin = x[rows[fresh]]
                if start is not None:
                    begin = (begin + start(rows[fresh], x, eps)).clamp(0, 1)
                slot, x_adv = torch.cat([slot, fresh]), torch.cat([x_adv, begin])
                age = torch.cat([age, torch.zeros_like(fresh)])
                queued += room
            target, last = self.y[rows[slot]], age == self.steps
            if last.all():
                with torch.no_grad():
                    logits = self.logits(x_adv)
            else:
                gradient, _, logits = input_gradient(self.model, x_adv.to(self.x), target, loss, check=spent == 0)
                if spent == 0:
                    warnings = weaknesses(gradient, logits)
                spent += int((~last).sum())
            now = fooled(logits, target)
            reached[slot] = torch.maximum(reached[slot], margin(logits, target))
            if now.any():
                check_result(x[rows[slot[now]]], x_adv[now].to(self.x), eps, self.norm)
                # deviation: any iterate at this radius or a smaller one breaks an image; Boopathy et al. judge the last iterate
                # alone.
                broken[slot[now]] = True
            stay = ~now & ~last
            slot, age, x_adv = slot[stay], age[stay], x_adv[stay]
            if len(slot):
                origin = x[rows[slot]]
                delta = x_adv + per_row(lengths[age], x) * ascent(gradient[stay], self.norm) - origin
                x_adv = (origin + project(delta, eps, self.norm)).clamp(0, 1)
                age = age + 1
        return broken, reached, spent, warnings


def robust_accuracy(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Labels,
    *,
    eps: Sequence[float],
    steps: int = 40,
    step: Step = shrinking_step,
    norm: Norm = "linf",
    losses: Sequence[Loss] = (cross_entropy,),
    random_start: bool = True,
    restarts: int = 1,
    screen: float = 0.15,
    second_look: float = 0.1,
    batch_size: int = 128,
    generator: torch.Generator | None = None,
) -> RobustAccuracy:
    """Accuracy under PGD for every eps: a row counts as broken as soon as any iterate of any run fools the model.

    `step(eps, steps, i)` is the length of step i: `shrinking_step`, or `constant_step`. Every loss of `losses` gets
    `restarts` runs. A row's margin is f_y - max_{j != y} f_j. A row that kept more than the
    share `screen` of its clean margin through all runs at one eps is not attacked at smaller ones; `screen=1` attacks every
    row at every eps. A row that was brought to less than the share `second_look` of it gets one run more, on the margin
    itself, from another start; 0 leaves that out. What a row yields at a small eps counts at every larger one.

    Memory depends on `batch_size`, not on N. Randomness is keyed by (image, run), so batching does not change the result.
    Raises ValueError for bad input, RuntimeError where an attack breaks its own bounds.
    """
    given = radii(eps)
    if not given:
        raise ValueError("the grid of eps is empty; give one radius at least")
    for e in given:
        x = check_ball(x, e, norm)
    y = checks.as_labels(y, x)
    grid = sorted({float(e) for e in given})
    if steps < 1 or restarts < 1 or not losses or batch_size < 1:
        raise ValueError(f"steps={steps}, restarts={restarts}, losses={len(losses)}, batch_size={batch_size}: 1 at least")
    if not 0 <= second_look <= screen <= 1:
        raise ValueError(
            f"screen={screen}, second_look={second_look}: shares of the clean margin, 0 <= second_look <= screen <= 1"
        )
    grid = [e for e in grid if e > 0]
    seed = (generator or torch.Generator().manual_seed(0)).initial_seed()
    attacker = _Attacker(model, x.detach(), y, steps, step, norm, batch_size)
    with hooks.frozen(model):
        clean, warnings = _clean(attacker)
        right = clean < 0
        broken = torch.zeros(len(grid), len(x), dtype=torch.bool, device=x.device)
        spent = [0] * len(grid)
        rows = right.nonzero()[:, 0]
        for k in reversed(range(len(grid))):
            found, kept = _at(attacker, rows, clean[rows], grid[k], losses, restarts, random_start, second_look, seed)
            broken[k, rows] = found.broken
            spent[k], warnings = found.steps, warnings + found.warnings
            rows = rows[found.broken | (kept <= screen)]
        broken = broken.cumsum(0) > 0  # what broke at a smaller eps is broken here
    correct = torch.cat([right[None], right & ~broken])
    return RobustAccuracy((0.0, *grid), correct, (0, *spent), tuple(dict.fromkeys(warnings)))


@dataclass(frozen=True)
class _Found:
    broken: Tensor
    steps: int
    warnings: tuple[str, ...]


def _at(
    attacker: _Attacker,
    rows: Tensor,
    clean: Tensor,
    eps: float,
    losses: Sequence[Loss],
    restarts: int,
    random_start: bool,
    second_look: float,
    seed: int,
) -> tuple[_Found, Tensor]:
    """All runs at one eps over `rows`, and the share of the clean margin that each row kept, (len(rows),)."""
    broken, total, warnings = torch.zeros_like(rows, dtype=torch.bool), 0, ()
    kept = torch.ones_like(clean)

    def attack(which: Tensor, loss: Loss, start: Start | None) -> None:
        nonlocal total, warnings
        hit, reached, steps, said = attacker.run(rows[which], eps, loss, start)
        kept[which] = torch.minimum(kept[which], reached / clean[which])  # both margins are negative where it holds
        broken[which[hit]] = True
        total, warnings = total + steps, warnings + said

    runs = [loss for _ in range(restarts) for loss in losses]
    for i, loss in enumerate(runs):
        start = _keyed_start(seed, i, attacker.norm) if random_start or i >= len(losses) else None
        attack((~broken).nonzero()[:, 0], loss, start)
    close = (~broken & (kept < second_look)).nonzero()[:, 0]
    attack(close, margin, _keyed_start(seed, len(runs), attacker.norm))
    return _Found(broken, total, warnings), kept


def _clean(attacker: _Attacker) -> tuple[Tensor, tuple[str, ...]]:
    """Margins without attack (N,), negative where the prediction is right; and whether the model is deterministic."""
    margins, passes, size = [], [], attacker.batch_size
    with torch.no_grad():
        for i in range(0, len(attacker.x), size):
            logits, y = attacker.logits(attacker.x[i : i + size]), attacker.y[i : i + size]
            contract.check_logits(attacker.model, logits)
            checks.check_labels(y, logits.shape[1], len(logits))
            # a tie counts as the prediction decides it, so that `right` is what accuracy would say
            wrong = fooled(logits, y)
            values = margin(logits, y)
            margins.append(torch.where(wrong, values.clamp_min(0), values.clamp_max(-torch.finfo(values.dtype).tiny)))
            if i == 0:
                passes = [logits, attacker.logits(attacker.x[:size])]
    warnings: tuple[str, ...] = ()
    if not torch.allclose(*passes, rtol=1e-3, atol=1e-4):
        warnings = ("the model is randomised: two passes over the same images differ; attack its expectation (EOT)",)
    return torch.cat(margins), warnings


def _keyed_start(seed: int, run: int, norm: Norm) -> Start:
    """Random starting points that belong to images, not to batches."""

    def start(rows: Tensor, x: Tensor, eps: float) -> Tensor:
        points = []
        for row in rows.tolist():
            key = (seed * 1_000_003 + run * 8191 + row) % 2**63
            points.append(random_point(x[:1], eps, norm, torch.Generator().manual_seed(key)))
        return torch.cat(points)

    return start
