"""Robust accuracy over a grid of eps, doing no work twice.

Balls are nested: an image that is adversarial at one eps is adversarial at every larger one, and an attack that comes
nowhere near the decision boundary in a large ball comes no nearer in a small one. So the grid is worked through from large
to small, a row leaves the batch the moment it is fooled, and a row that keeps its margin at one eps is not attacked at
smaller ones. Close calls are: they are attacked at the next smaller eps too, and get a second look of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lib.attacks import ensemble as ensemble_
from lib.attacks import masking
from lib.attacks.ensemble import Ensemble
from lib.attacks.losses import Loss, cross_entropy, margin
from lib.attacks.masking import Doubt
from lib.attacks.pool import Outcome, Pool, Start, Subject, keyed_start
from lib.attacks.steps import (
    Norm,
    ascent,
    check_ball,
    check_result,
    default_step,
    fooled,
    input_gradient,
    per_row,
    project,
    radii,
    weaknesses,
)
from lib.data import checks
from lib.data.checks import Labels
from lib.networks import contract, hooks
from lib.system import devices
from lib.system.devices import wide

# (eps, steps, i) -> length of step i
Step = Callable[[float, int, int], float]


def shrinking_step(eps: float, steps: int, i: int) -> float:
    """From eps down to eps / steps, linearly: what can be fooled easily is fooled at once, and the end is fine."""
    return eps * (1 - i / steps)


def constant_step(eps: float, steps: int, i: int) -> float:
    """2.5 eps / steps throughout (Madry et al. 2018)."""
    return default_step(eps, steps)


@dataclass(frozen=True)
class RobustAccuracy:
    """correct (E+1, N) bool: still right after the attack, by eps (row 0: without attack); eps is (0, *grid) ascending.

    after: the same after each attack, by name, in the order in which they went to work on what was left: PGD, and with an
    ensemble its members; the last is `correct`. steps (E+1,): row-steps spent at each eps, that is forward-and-backward passes
    of single images; queries (E+1,): forward passes of Square. doubts: what to distrust it for, with the attack and the radius;
    `warnings` are their words. A randomised model's robust accuracy means little.
    """

    eps: tuple[float, ...]
    correct: Bool[Tensor, "levels n"]
    steps: tuple[int, ...]
    doubts: tuple[Doubt, ...] = ()
    after: dict[str, Bool[Tensor, "levels n"]] = field(default_factory=dict)
    queries: tuple[int, ...] = ()

    @property
    def accuracy(self) -> Float[Tensor, " levels"]:
        """(E+1,) in [0, 1]."""
        return self.correct.float().mean(1)

    @property
    def warnings(self) -> tuple[str, ...]:
        """As in `attacks`: each once."""
        return tuple(dict.fromkeys(d.text for d in self.doubts))


@dataclass(frozen=True)
class _Attacker(Subject):
    """What stays the same over a grid: model, data and attack."""

    steps: int = 40
    step: Step = shrinking_step
    repeats: bool = True  # the model answers the same images in the same way

    def run(self, rows: Tensor, eps: float, loss: Loss, start: Start | None) -> Outcome:
        """One run of PGD over `rows`, each at its own step.

        An iterate is judged by the forward pass that the next step needs anyway; the only extra one is the last. Where all
        steps are of one length, and the model is not randomised, the next iterate is a function of this one: a row that is
        back where it was two steps ago goes to and fro between two points that were judged already, and is done. Sign steps at
        the ball's faces soon do that.
        """
        x, device = wide(self.x), self.x.device  # images of half precision are moved in float32
        broken = torch.zeros(len(rows), dtype=torch.bool, device=device)
        reached = torch.full((len(rows),), -torch.inf, dtype=x.dtype, device=device)
        spent = 0
        warnings: tuple[str, ...] = ()
        lengths = torch.tensor([self.step(eps, self.steps, i) for i in range(self.steps)], dtype=x.dtype, device=device)
        steady = self.repeats and bool((lengths == lengths[0]).all())

        def begin(fresh: Tensor) -> dict[str, Tensor]:
            z = x[rows[fresh]]
            z = z if start is None else (z + start(rows[fresh], x, eps)).clamp(0, 1)
            return {"x_adv": z, "before": z} if steady else {"x_adv": z}

        pool = Pool(len(rows), self.batch_size, begin, device)
        while pool.filled():
            slot, x_adv, last = pool.slot, pool["x_adv"], pool.age == self.steps
            target = self.y[rows[slot]]
            if last.all():
                with torch.no_grad():
                    logits = self.logits(x_adv)
            else:
                gradient, _, logits = input_gradient(self.model, x_adv.to(self.x), target, loss, check=spent == 0)
                if spent == 0:
                    warnings = weaknesses(gradient, logits)
                spent += int((~last).sum())
            now = fooled(logits, target)
            reached[slot] = torch.maximum(reached[slot], margin(logits, target).to(x))
            if now.any():
                check_result(x[rows[slot[now]]], x_adv[now].to(self.x), eps, self.norm)
                # deviation: any iterate at this radius or a smaller one breaks an image; Boopathy et al. judge the last iterate
                # alone.
                broken[slot[now]] = True
            stay = ~now & ~last
            length = lengths[pool.age[stay]]
            pool.keep(stay)
            if len(pool.slot):
                origin = x[rows[pool.slot]]
                delta = pool["x_adv"] + per_row(length, x) * ascent(gradient[stay], self.norm) - origin
                moved = (origin + project(delta, eps, self.norm)).clamp(0, 1)
                if steady:
                    returned = (moved == pool["before"]).flatten(1).all(1)
                    pool["before"], pool["x_adv"] = pool["x_adv"], moved
                    pool.keep(~returned, aged=0)
                else:
                    pool["x_adv"] = moved
        return Outcome(broken, reached, spent, warnings)


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
    ensemble: bool | Ensemble = False,
    probe: int = 0,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> RobustAccuracy:
    """Accuracy under PGD for every eps: a row counts as broken as soon as any iterate of any run fools the model.

    `step(eps, steps, i)` is the length of step i: `shrinking_step`, or `constant_step`. Every loss of `losses` gets
    `restarts` runs. A row's margin is f_y - max_{j != y} f_j. A row that kept more than the
    share `screen` of its clean margin through all runs at one eps is not attacked at smaller ones; `screen=1` attacks every
    row at every eps. A row that was brought to less than the share `second_look` of it gets one run more, on the margin
    itself, from another start; 0 leaves that out. What a row yields at a small eps counts at every larger one.

    `ensemble`: what PGD leaves is attacked by auto-PGD on the cross-entropy and on the targeted difference of logits ratio, and
    by Square, with AutoAttack's budgets or those of an `Ensemble` (`lib.attacks.ensemble`). PGD's own numbers stay
    as they would be without, `after["pgd"]`. `probe`: at each radius, as many of the rows that are left in the end are probed
    for masked gradients (`masking.probed`); that adds doubts, and changes no number.

    Memory depends on `batch_size` (default: 128, fewer large images), not on N. Randomness is keyed by (image, run), so
    batching does not change the result.
    Raises ValueError for bad input, RuntimeError where an attack breaks its own bounds.
    """
    given = radii(eps)
    if not given:
        raise ValueError("the grid of eps is empty; give one radius at least")
    for e in given:
        x = check_ball(x, e, norm)
    y = checks.as_labels(y, x)
    batch_size = devices.images_at_once(max(x.shape[2:]), 128) if batch_size is None else batch_size
    grid = sorted({float(e) for e in given})
    if steps < 1 or restarts < 1 or not losses or batch_size < 1:
        raise ValueError(f"steps={steps}, restarts={restarts}, losses={len(losses)}, batch_size={batch_size}: 1 at least")
    if not 0 <= second_look <= screen <= 1:
        raise ValueError(
            f"screen={screen}, second_look={second_look}: shares of the clean margin, 0 <= second_look <= screen <= 1"
        )
    grid = [e for e in grid if e > 0]
    seed = (generator or torch.Generator().manual_seed(0)).initial_seed()
    if probe < 0:
        raise ValueError(f"probe={probe}: how many of the rows that are left are probed, 0 or more")
    attacker = _Attacker(model, x.detach(), y, norm, batch_size, steps, step)
    queries = [0] * len(grid)
    with hooks.frozen(model):
        clean, doubts, repeats = _clean(attacker)
        attacker = replace(attacker, repeats=repeats)
        right = clean < 0
        broken = torch.zeros(len(grid), len(x), dtype=torch.bool, device=x.device)
        spent = [0] * len(grid)
        rows = right.nonzero()[:, 0]
        for k in reversed(range(len(grid))):
            found = _at(attacker, rows, clean[rows], grid[k], losses, restarts, random_start, second_look, seed)
            broken[k, rows] = found.broken
            spent[k] = found.spent
            doubts += tuple(Doubt("pgd", grid[k], text) for text in found.warnings)
            rows = rows[found.broken | (found.reached <= screen)]
        after = {"pgd": _left(right, broken)}
        if ensemble and grid:
            budget = Ensemble() if ensemble is True else ensemble
            more = ensemble_.attack(attacker, clean, after["pgd"][1:], grid, budget, seed)
            for name, hit in more.broken.items():
                broken |= hit
                after[name] = _left(right, broken)
            spent, queries = [a + b for a, b in zip(spent, more.steps, strict=True)], more.queries
            doubts += more.doubts
        correct = list(after.values())[-1]
        for k in range(len(grid) if probe else 0):
            rows = correct[k + 1].nonzero()[:probe, 0]
            doubts += masking.probed(attacker, rows, grid[k], seed, list(after)[-1])
    levels = (0.0, *grid)
    return RobustAccuracy(levels, correct, (0, *spent), tuple(dict.fromkeys(doubts)), after, (0, *queries))


def _left(right: Tensor, broken: Tensor) -> Tensor:
    """Right by eps (E+1, N): what broke at a smaller eps is broken at every larger one."""
    return torch.cat([right[None], right & ~(broken.cumsum(0) > 0)])


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
) -> Outcome:
    """All runs at one eps over `rows`; `reached` is the share of its clean margin that each row kept, (len(rows),)."""
    broken, total, warnings = torch.zeros_like(rows, dtype=torch.bool), 0, ()
    kept = torch.ones_like(clean)

    def attack(which: Tensor, loss: Loss, start: Start | None) -> None:
        nonlocal total, warnings
        run = attacker.run(rows[which], eps, loss, start)
        kept[which] = torch.minimum(kept[which], run.reached / clean[which])  # both margins are negative where it holds
        broken[which[run.broken]] = True
        total, warnings = total + run.spent, warnings + run.warnings

    runs = [loss for _ in range(restarts) for loss in losses]
    for i, loss in enumerate(runs):
        start = keyed_start(seed, i, attacker.norm) if random_start or i >= len(losses) else None
        attack((~broken).nonzero()[:, 0], loss, start)
    close = (~broken & (kept < second_look)).nonzero()[:, 0]
    attack(close, margin, keyed_start(seed, len(runs), attacker.norm))
    return Outcome(broken, kept, total, warnings)


def _clean(attacker: _Attacker) -> tuple[Tensor, tuple[Doubt, ...], bool]:
    """Margins without attack (N,), negative where the prediction is right; what its answers alone give to doubt; and whether
    they repeat."""
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
    random = masking.randomised(*passes)
    texts = random + masking.optimising(attacker.model, attacker.x[:1])
    return torch.cat(margins), tuple(Doubt("all", 0.0, text) for text in texts), not random
