"""Robust accuracy over a grid of eps, doing no work twice."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lib import hooks
from lib.attacks import (
    Loss,
    Norm,
    check_input,
    ascent,
    check_result,
    cross_entropy,
    default_step,
    fooled,
    input_gradient,
    project,
    random_point,
    weaknesses,
)


@dataclass(frozen=True)
class RobustAccuracy:
    """correct (E+1, N) bool: still right after the attack, by eps (row 0: without attack); eps is (0, *grid) ascending.

    steps (E+1,): row-steps spent at each eps, that is forward-and-backward passes of single images. warnings as in
    `attacks`, and for a model that answers twice in two ways (randomised), whose robust accuracy means little.
    """

    eps: tuple[float, ...]
    correct: Tensor
    steps: tuple[int, ...]
    warnings: tuple[str, ...]

    @property
    def accuracy(self) -> Tensor:
        """(E+1,) in [0, 1]."""
        return self.correct.float().mean(1)


def robust_accuracy(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: Sequence[float],
    steps: int = 40,
    step: Callable[[float, int], float] = default_step,
    norm: Norm = "linf",
    losses: Sequence[Loss] = (cross_entropy,),
    random_start: bool = True,
    restarts: int = 1,
    batch_size: int = 128,
    generator: torch.Generator | None = None,
) -> RobustAccuracy:
    """Accuracy under PGD for every eps: a row counts as broken as soon as any iterate of any restart fools the model.

    The grid is worked through from small to large. A row that a smaller eps broke is broken at every larger one (the
    adversarial image lies in the larger ball), so it is never attacked again; a row fooled on the way leaves the batch at
    once, and the batch is refilled. Iterates are judged by the forward pass that the next step needs anyway, so the only
    extra forward is the last. Every loss of `losses` gets `restarts` runs. Memory depends on `batch_size`, not on N.

    Randomness is keyed by (image, eps, run), so the result does not depend on batching.
    """
    grid = sorted({float(e) for e in eps})
    if not grid:
        raise ValueError("the grid of eps is empty; give one radius at least")
    for e in grid:
        check_input(x, y, e, norm)
    if steps < 1 or restarts < 1 or not losses or batch_size < 1:
        raise ValueError(f"steps={steps}, restarts={restarts}, losses={len(losses)}, batch_size={batch_size}: 1 at least")
    seed = (generator or torch.Generator().manual_seed(0)).initial_seed()
    grid = [e for e in grid if e > 0]
    with hooks.frozen(model):
        correct, warnings = _clean(model, x, y, batch_size)
        table, spent = [correct.clone()], [0]
        for e in grid:
            alive = correct.nonzero()[:, 0]
            cost = 0
            for run in range(restarts * len(losses)):
                loss = losses[run % len(losses)]
                start = _keyed_start(seed, run, norm) if random_start or run >= len(losses) else None
                broken, used, found = _attack(model, x, y, alive, e, steps, step(e, steps), norm, loss, start, batch_size)
                cost, warnings = cost + used, warnings + found
                correct[alive[broken]] = False
                alive = alive[~broken]
            table.append(correct.clone())
            spent.append(cost)
    return RobustAccuracy((0.0, *grid), torch.stack(table), tuple(spent), tuple(dict.fromkeys(warnings)))


def _clean(model: nn.Module, x: Tensor, y: Tensor, batch_size: int) -> tuple[Tensor, tuple[str, ...]]:
    """Correct without attack (N,), and whether the model is deterministic."""
    right, passes = [], []
    with torch.no_grad():
        for i in range(0, len(x), batch_size):
            logits = model(x[i : i + batch_size])
            hooks.check_logits(model, logits)
            hooks.check_labels(y[i : i + batch_size], logits.shape[1], len(logits))
            right.append(~fooled(logits, y[i : i + batch_size]))
            if i == 0:
                passes = [logits, model(x[:batch_size])]
    warnings: tuple[str, ...] = ()
    if not torch.allclose(*passes, rtol=1e-3, atol=1e-4):
        warnings = ("the model is randomised: two passes over the same images differ; attack its expectation (EOT)",)
    return torch.cat(right), warnings


def _keyed_start(seed: int, run: int, norm: Norm) -> Callable[[Tensor, Tensor, float], Tensor]:
    """Random starting points that belong to images, not to batches."""

    def start(rows: Tensor, x: Tensor, eps: float) -> Tensor:
        points = []
        for row in rows.tolist():
            key = (seed * 1_000_003 + run * 8191 + row) % 2**63
            generator = torch.Generator().manual_seed(key)
            points.append(random_point(x[:1], eps, norm, generator))
        return torch.cat(points)

    return start


def _attack(
    model: nn.Module, x: Tensor, y: Tensor, rows: Tensor, eps: float, steps: int, step: float, norm: Norm, loss: Loss,
    start: Callable[[Tensor, Tensor, float], Tensor] | None, batch_size: int,
) -> tuple[Tensor, int, tuple[str, ...]]:  # fmt: skip
    """One run over `rows`: which broke (len(rows),), the row-steps spent, warnings.

    A pool of at most `batch_size` rows, each at its own step; rows that broke or finished make room for the next.
    """
    broken = torch.zeros(len(rows), dtype=torch.bool, device=x.device)
    spent, queued = 0, 0
    warnings: tuple[str, ...] = ()
    slot = torch.empty(0, dtype=torch.long, device=x.device)  # positions in `rows`
    age = torch.empty(0, dtype=torch.long, device=x.device)  # steps taken
    x_adv = x[:0]
    while len(slot) or queued < len(rows):
        room = min(batch_size - len(slot), len(rows) - queued)
        if room > 0 and (len(slot) <= batch_size // 2 or queued == 0):
            fresh = torch.arange(queued, queued + room, device=x.device)
            begin = x[rows[fresh]]
            if start is not None:
                begin = (begin + start(rows[fresh], x, eps)).clamp(0, 1)
            slot, x_adv = torch.cat([slot, fresh]), torch.cat([x_adv, begin])
            age = torch.cat([age, torch.zeros_like(fresh)])
            queued += room
        target = y[rows[slot]]
        last = age == steps
        if last.all():
            with torch.no_grad():
                logits = model(x_adv)
        else:
            gradient, _, logits = input_gradient(model, x_adv, target, loss, check=spent == 0)
            if spent == 0:
                warnings = weaknesses(gradient, logits)
            spent += int((~last).sum())
        now = fooled(logits, target)
        if now.any():
            check_result(x[rows[slot[now]]], x_adv[now], eps, norm)
            broken[slot[now]] = True
        stay = ~now & ~last
        if last.all():
            slot, age, x_adv = slot[stay], age[stay], x_adv[stay]
            continue
        slot, age = slot[stay], age[stay] + 1
        origin = x[rows[slot]]
        delta = x_adv[stay] + step * ascent(gradient[stay], norm) - origin
        x_adv = (origin + project(delta, eps, norm)).clamp(0, 1)
    return broken, spent, warnings
