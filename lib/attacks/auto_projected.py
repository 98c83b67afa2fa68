"""Auto-PGD: projected gradient ascent that chooses its own step (Croce and Hein 2020, arXiv:2003.01690, algorithm 1).

With f the objective, P the projection on ball and box, alpha = .75, and x^(0) the start:

    z = P(x^(k) + eta ascent(grad f(x^(k)))),  x^(k+1) = P(x^(k) + alpha (z - x^(k)) + (1 - alpha) (x^(k) - x^(k-1)))

The first step has no momentum, and eta is 2 eps at first. At each checkpoint w_j the step is halved, and the row goes back to
the best point it has met, where f rose in fewer than rho = .75 of the steps since w_{j-1} (condition 1), or where neither the
step nor the best f has changed since (condition 2).
"""

import itertools
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lib.attacks.losses import cross_entropy, margin, targeted_dlr
from lib.attacks.pool import Outcome, Pool, Start, Subject, keyed_start
from lib.attacks.steps import (
    AttackResult,
    Norm,
    ascent,
    check_input,
    check_result,
    fooled,
    input_gradient,
    judged,
    per_row,
    project,
    weaknesses,
)
from lib.data import checks
from lib.data.checks import Labels
from lib.networks import hooks
from lib.system.devices import wide

Objective = Literal["cross-entropy", "dlr"]
MOMENTUM, RISES = 0.75, 0.75  # alpha and rho


def checkpoints(steps: int) -> tuple[int, ...]:
    """w_1, w_2, … below `steps`: ceil(p_j steps), p_0 = 0, p_1 = .22, p_{j+1} = p_j + max(p_j - p_{j-1} - .03, .06).

    Croce and Hein 2020, sec. 3.2; in hundredths, so that no sum is rounded.
    """
    found, before, at = [], 0, 22
    while at * steps < 100 * steps:
        found.append(-(-at * steps // 100))
        before, at = at, at + max(at - before - 3, 6)
    return tuple(dict.fromkeys(w for w in found if w < steps))


def rivals(subject: Subject, rows: Int[Tensor, " k"], targets: int) -> Int[Tensor, "k targets"]:
    """The classes other than the label of the highest logits, the highest first, of each row; all where there are fewer."""
    found = []
    with torch.no_grad():
        for part in rows.split(subject.batch_size):
            logits = subject.logits(subject.x[part])
            if not found:
                checks.check_labels(subject.y, logits.shape[1], len(subject.x))
            hidden = logits.scatter(1, subject.y[part, None], -torch.inf)
            order = hidden.argsort(dim=1, descending=True, stable=True)
            found.append(order[:, : min(targets, logits.shape[1] - 1)])
    return torch.cat(found)


def climb(
    subject: Subject,
    rows: Int[Tensor, " k"],
    eps: float,
    steps: int,
    objective: Callable[[Tensor, Tensor, Tensor], Tensor],
    start: Start | None,
    keep: Tensor | None = None,
) -> Outcome:
    """One run over `rows` of the subject; `objective` is (logits, labels, positions in `rows`) -> what is maximised.

    For use inside `hooks.frozen`. A row leaves when it is fooled; an iterate is judged by the forward pass that the next step
    needs anyway, the last one by a pass without a backward one. `keep` (k, C, H, W) takes the fooling image of each row, else
    the best that it met. Every row spends `steps` forward-and-backward passes at most.
    """
    x, device = wide(subject.x), subject.x.device
    broken = torch.zeros(len(rows), dtype=torch.bool, device=device)
    reached = torch.full((len(rows),), -torch.inf, dtype=x.dtype, device=device)
    gaps = torch.zeros(steps + 1, device=device)  # at a checkpoint, the steps since the one before
    marks = (0, *checkpoints(steps))
    for before, at in itertools.pairwise(marks):
        gaps[at] = at - before
    spent, warnings = 0, ()

    def begin(fresh: Tensor) -> dict[str, Tensor]:
        origin = x[rows[fresh]]
        z = origin if start is None else (origin + start(rows[fresh], x, eps)).clamp(0, 1)
        low, none = torch.full_like(z[:, 0, 0, 0], -torch.inf), torch.zeros_like(z[:, 0, 0, 0])
        state = {"x_adv": z, "before": z, "best": z, "best_gradient": torch.zeros_like(z)}
        state |= {"f": low, "f_best": low, "f_check": low, "rises": none, "eta": none + 2 * eps}
        return state | {"halved": torch.zeros_like(fresh, dtype=torch.bool)}

    pool = Pool(len(rows), subject.batch_size, begin, device)
    while pool.filled():
        x_adv, y, slot, last = pool["x_adv"], subject.y[rows[pool.slot]], pool.slot, pool.age == steps
        if last.all():
            with torch.no_grad():
                logits = subject.logits(x_adv)
                f, gradient = objective(logits, y, slot), torch.zeros_like(x_adv)
        else:
            gradient, f, logits = input_gradient(
                subject.model, x_adv.to(subject.x), y, lambda logits, y, slot=slot: objective(logits, y, slot), check=spent == 0
            )
            if spent == 0:
                warnings = weaknesses(gradient, logits)
            spent += int((~last).sum())
        f, now = f.to(x), fooled(logits, y)
        reached[slot] = torch.maximum(reached[slot], margin(logits, y).to(x))
        if now.any():
            check_result(x[rows[slot[now]]], x_adv[now].to(subject.x), eps, subject.norm)
            broken[slot[now]] = True
        pool["rises"] = pool["rises"] + ((f > pool["f"]) & (pool.age > 0))
        higher = f > pool["f_best"]
        pool["f"], pool["f_best"] = f, torch.where(higher, f, pool["f_best"])
        pool["best"] = torch.where(per_row(higher, x_adv), x_adv, pool["best"])
        pool["best_gradient"] = torch.where(per_row(higher, x_adv), gradient, pool["best_gradient"])
        pool["f_check"] = torch.where(pool.age == 0, f, pool["f_check"])
        if keep is not None:
            keep[slot] = torch.where(per_row(now, x_adv), x_adv, pool["best"])
        stay, gradient = ~now & ~last, gradient[~now & ~last]
        pool.keep(stay)
        if len(pool.slot):
            gradient = _checked(pool, gradient, gaps)
            _step(pool, gradient, x[rows[pool.slot]], eps, subject.norm)
    return Outcome(broken, reached, spent, warnings)


def _checked(pool: Pool, gradient: Tensor, gaps: Tensor) -> Tensor:
    """Halves steps at checkpoints and takes rows back to their best point; the gradient where each row then is.

    deviation: x_max is gone back to once w_j steps are taken, as in the released code; algorithm 1 as printed takes one step
    more from the point that it then leaves.
    """
    gap = gaps[pool.age - 1]
    at = gap > 0
    stuck = ~pool["halved"] & (pool["f_check"] >= pool["f_best"])
    back = at & ((pool["rises"] < RISES * gap) | stuck)
    pool["halved"] = torch.where(at, back, pool["halved"])
    pool["f_check"] = torch.where(at, pool["f_best"], pool["f_check"])
    pool["rises"] = torch.where(at, 0, pool["rises"])
    pool["eta"] = torch.where(back, pool["eta"] / 2, pool["eta"])
    pool["f"] = torch.where(back, pool["f_best"], pool["f"])
    pool["x_adv"] = torch.where(per_row(back, gradient), pool["best"], pool["x_adv"])
    return torch.where(per_row(back, gradient), pool["best_gradient"], gradient)


def _step(pool: Pool, gradient: Tensor, origin: Tensor, eps: float, norm: Norm) -> None:
    x_adv, first = pool["x_adv"], per_row(pool.age == 1, origin)

    def inside(z: Tensor) -> Tensor:
        return (origin + project(z - origin, eps, norm)).clamp(0, 1)

    z = inside(x_adv + per_row(pool["eta"], x_adv) * ascent(gradient, norm))
    moved = inside(x_adv + MOMENTUM * (z - x_adv) + (1 - MOMENTUM) * (x_adv - pool["before"]))
    pool["before"], pool["x_adv"] = x_adv, torch.where(first, z, moved)


def targeted(
    subject: Subject,
    rows: Int[Tensor, " k"],
    others: Int[Tensor, "k targets"],
    eps: float,
    steps: int,
    start: Callable[[int], Start | None],
    keep: Tensor | None = None,
) -> Outcome:
    """A run towards each column of `others` on the targeted DLR, of the rows that are not fooled yet; `start` by column."""
    broken, spent, warnings = torch.zeros(len(rows), dtype=torch.bool, device=rows.device), 0, ()
    reached = torch.full((len(rows),), -torch.inf, dtype=wide(subject.x).dtype, device=rows.device)
    for j in range(others.shape[1]):
        left = (~broken).nonzero()[:, 0]
        part = None if keep is None else keep[left]
        aim = others[left, j]
        run = climb(subject, rows[left], eps, steps, lambda f, y, at, aim=aim: targeted_dlr(f, y, aim[at]), start(j), part)
        if keep is not None and part is not None:
            closer = run.broken | (run.reached > reached[left])
            keep[left[closer]] = part[closer]
        broken[left[run.broken]] = True
        reached[left] = torch.maximum(reached[left], run.reached)
        spent, warnings = spent + run.spent, warnings + run.warnings
    return Outcome(broken, reached, spent, tuple(dict.fromkeys(warnings)))


def auto_pgd(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Labels,
    *,
    eps: float,
    steps: int = 100,
    objective: Objective = "cross-entropy",
    targets: int = 9,
    norm: Norm = "linf",
    batch_size: int = 128,
    generator: torch.Generator | None = None,
) -> AttackResult:
    """Auto-PGD from a random point of the ball, away from the classes y; see the module's docstring.

    `objective`: the cross-entropy at y in one run, or the targeted difference of logits ratio (`losses.targeted_dlr`) in a run
    towards each of the `targets` other classes with the highest logits at x (9, as published; all where there are fewer).
    Two classes, or one logit, have no ratio: there the margin is climbed.

    A row is done when an iterate fools it, which is then its image; else it is the best point met. Cost: `steps`
    forward-and-input-backward passes a run and row at most, and a forward pass to judge. Random starts are keyed by
    (`generator`'s seed, row), so that `batch_size` changes nothing. Raises as `pgd` does.
    """
    x, y = check_input(x, y, eps, norm)
    if steps < 1 or targets < 1 or batch_size < 1 or objective not in ("cross-entropy", "dlr"):
        raise ValueError(
            f"steps={steps}, targets={targets}, batch_size={batch_size}: 1 at least; objective={objective!r}: cross-entropy or "
            "dlr"
        )
    seed = (generator or torch.Generator().manual_seed(0)).initial_seed()
    subject, rows = Subject(model, x.detach(), y, norm, batch_size), torch.arange(len(x), device=x.device)
    with hooks.frozen(model):  # in inference mode too, what is written to comes about outside of it
        keep = wide(subject.x).clone()
        if objective == "cross-entropy":
            start = keyed_start(seed, 0, norm)
            run = climb(subject, rows, eps, steps, lambda f, y, at: cross_entropy(f, y), start, keep)
        else:
            others = rivals(subject, rows, targets)
            run = targeted(subject, rows, others, eps, steps, lambda j: keyed_start(seed, j, norm), keep)
        return judged(model, subject.x, keep.to(subject.x), y, eps, norm, margin, False, run.warnings)
