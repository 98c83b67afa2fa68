"""An ensemble of attacks that differ in what they trust: auto-PGD on two objectives, and Square, after Croce and Hein 2020
(arXiv:2003.01690, AutoAttack; without FAB, which finds the least radius and costs more than it adds).

It goes to work where another attack ends: only the rows that are left are attacked, at each radius by one member after the
other. Balls are nested, so radii are worked through from large to small, and a row that the whole ensemble brought nowhere near
the boundary in a large ball is not attacked in a smaller one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lib.attacks import auto_projected, masking, square
from lib.attacks.losses import cross_entropy
from lib.attacks.masking import Doubt
from lib.attacks.pool import Outcome, Subject, keyed_start

MEMBERS = ("apgd-ce", "apgd-dlr", "square")
NAMES = {
    "all": "all",
    "pgd": "PGD",
    "apgd-ce": "auto-PGD (cross-entropy)",
    "apgd-dlr": "auto-PGD (targeted DLR)",
    "square": "Square",
}
OVERSTATED = 0.01  # of the images it is asked about: where the ensemble finds more than this, the attack before it is doubted
RUNS = 4096  # keyed starts from here on, apart from those of PGD


@dataclass(frozen=True)
class Ensemble:
    """Its budgets. AutoAttack's own are 100 steps, 9 targets and 5,000 queries.

    steps: of auto-PGD, in its one run on the cross-entropy and in each of `targets` runs on the targeted DLR, towards the
    classes with the highest logits. queries: of Square. screen: a row that kept more than this share of its clean margin at one
    radius is not attacked at smaller ones. eps: the radii it is used at; None: all of the grid. images: it attacks the first so
    many, and of the others what was found before it stands; None: all.
    """

    steps: int = 100
    targets: int = 9
    queries: int = 5000
    screen: float = 0.15
    eps: Sequence[float] | None = None
    images: int | None = None

    def __post_init__(self) -> None:
        if min(self.steps, self.targets) < 1 or not 1 <= self.queries <= square.LARGEST or not 0 <= self.screen <= 1:
            raise ValueError(
                f"steps={self.steps}, targets={self.targets}, queries={self.queries}, screen={self.screen}: 1 step and target "
                f"at least, 1 to {square.LARGEST} queries, a share of the clean margin"
            )


@dataclass(frozen=True)
class Found:
    """By member: broken (E, N), what it fooled of what was left to it. steps (E,): forward-and-backward passes of single
    images; queries (E,): forward passes of Square."""

    broken: dict[str, Bool[Tensor, "levels n"]]
    steps: list[int]
    queries: list[int]
    doubts: tuple[Doubt, ...]


def attack(
    subject: Subject,
    clean: Float[Tensor, " n"],
    held: Bool[Tensor, "levels n"],
    grid: Sequence[float],
    budget: Ensemble,
    seed: int,
    before: str = "pgd",
) -> Found:
    """The ensemble over a grid of radii, ascending, on the rows that another attack left (`held`), whose name is `before`.

    `clean` are the margins without attack, negative where the prediction is right. For use inside `hooks.frozen`. Raises
    ValueError for radii of the budget that the grid has not.
    """
    wanted = grid if budget.eps is None else [float(e) for e in budget.eps]
    if missing := sorted(set(wanted) - set(grid)):
        raise ValueError(f"the ensemble is asked for at eps {missing}, which the grid {tuple(grid)} has not")
    broken = {name: torch.zeros_like(held) for name in MEMBERS}
    steps, queries, doubts = [0] * len(grid), [0] * len(grid), ()
    candidates = clean < 0
    candidates[len(clean) if budget.images is None else budget.images :] = False
    for k in reversed(range(len(grid))):
        if grid[k] not in wanted:
            continue
        rows = (candidates & held[k]).nonzero()[:, 0]
        kept = torch.ones_like(clean)
        left = rows
        for name in MEMBERS if len(rows) else ():
            run = _member(name, subject, left, grid[k], budget, seed)
            broken[name][k, left[run.broken]] = True
            kept[left] = torch.minimum(kept[left], run.reached.to(clean) / clean[left])
            doubts += tuple(Doubt(name, grid[k], text) for text in run.warnings)
            (queries if name == "square" else steps)[k] += run.spent
            if name == "square":
                told = masking.fewer_than_white_box(int(run.broken.sum()), len(left), "Square, which sees no gradient,")
                doubts += tuple(Doubt("apgd-dlr", grid[k], text) for text in told)
            left = left[~run.broken]
            if not len(left):
                break
        asked = len(clean) if budget.images is None else min(budget.images, len(clean))
        if len(rows) - len(left) > OVERSTATED * asked:
            text = f"overstates: {len(rows) - len(left)} of {len(rows)} images that it left fall to the ensemble"
            doubts += (Doubt(before, grid[k], text),)
        fallen = ~held[k]
        fallen[rows] = True
        fallen[left] = False
        candidates = candidates & (fallen | (kept <= budget.screen))
    return Found(broken, steps, queries, doubts)


def _member(name: str, subject: Subject, rows: Int[Tensor, " k"], eps: float, budget: Ensemble, seed: int) -> Outcome:
    """One member's run over rows."""
    if name == "square":
        return square.search(subject, rows, eps, budget.queries, seed)
    if name == "apgd-ce":
        start = keyed_start(seed, RUNS, subject.norm)
        return auto_projected.climb(subject, rows, eps, budget.steps, lambda f, y, at: cross_entropy(f, y), start)
    others = auto_projected.rivals(subject, rows, budget.targets)
    return auto_projected.targeted(
        subject, rows, others, eps, budget.steps, lambda j: keyed_start(seed, RUNS + 1 + j, subject.norm)
    )
