"""Square: a random search that asks the network for its logits and for no gradient (Andriushchenko et al. 2020,
arXiv:1912.00049, algorithms 1 to 3).

Under L-infinity the start has stripes of a column's width, each channel of each column at +-eps. Each query then moves one
square of side s by +-2 eps a channel, projected on ball and box, and keeps it where the margin grows. The area s^2 falls as
the queries go by. What is moved under L2 is said in `lib.attacks.square_l2`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lib.attacks import square_l2
from lib.attacks.losses import margin
from lib.attacks.pool import Outcome, Pool, Subject, corners, keyed_uniform, signs
from lib.attacks.steps import AttackResult, Norm, check_input, check_result, fooled, judged, per_row
from lib.data import checks
from lib.data.checks import Labels
from lib.networks import contract, hooks
from lib.system.devices import wide

SHARE = 0.8  # p of the first squares, as in AutoAttack (arXiv:2003.01690)
# of 10,000 queries, those after which the share is halved (arXiv:1912.00049, sec. 5)
HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
LARGEST = 2**20  # more queries than this have no keyed numbers of their own


def share(query: int, queries: int, first: float = SHARE) -> float:
    """The share p of an image's pixels that a square has at a query of 0 to `queries`: halved at HALVED, rescaled."""
    return first / 2 ** sum(query * 10_000 // queries > at for at in HALVED)


def side(query: int, queries: int, height: int, width: int, norm: Norm = "linf") -> int:
    """The side of a square of that share, rounded, in pixels: 1 at least, and no longer than the image is high or wide."""
    if norm == "l2":
        return square_l2.side(share(query, queries), height, width)
    return max(1, min(height, width, round((share(query, queries) * height * width) ** 0.5)))


def _start(x: Float[Tensor, "k c h w"], eps: float, drawn: Float[Tensor, "k d"]) -> Float[Tensor, "k c h w"]:
    """Stripes."""
    stripes = signs(drawn).view(len(x), x.shape[1], 1, x.shape[3]).to(x)
    return (x + eps * stripes).clamp(0, 1)


def _step(
    x: Float[Tensor, "k c h w"],
    best: Float[Tensor, "k c h w"],
    eps: float,
    sides: Int[Tensor, " k"],
    drawn: Float[Tensor, "k d"],
) -> Float[Tensor, "k c h w"]:
    """One square of another colour."""
    height, width = x.shape[2:]
    down, across = torch.arange(height, device=x.device)[:, None], torch.arange(width, device=x.device)
    s, top, left = (per_row(t, x) for t in (sides, *corners(drawn[:, :2], sides, height, width)))
    inside = (down >= top) & (down < top + s) & (across >= left) & (across < left + s)
    colour = signs(drawn[:, 2:])[:, :, None, None].to(x)
    moved = best + 2 * eps * colour * inside
    return (x + (moved - x).clamp(-eps, eps)).clamp(0, 1)


def search(
    subject: Subject, rows: Int[Tensor, " k"], eps: float, queries: int, seed: int, keep: Tensor | None = None
) -> Outcome:
    """Square over `rows` of the subject, in the ball of its norm, `queries` forward passes each at most; `spent` counts them.

    For use inside `hooks.frozen`. `keep` (k, C, H, W) takes the fooling image of each row, else the best that it met.
    """
    x, device = wide(subject.x), subject.x.device
    _, channels, height, width = x.shape
    broken = torch.zeros(len(rows), dtype=torch.bool, device=device)
    reached = torch.full((len(rows),), -torch.inf, dtype=x.dtype, device=device)
    sides = torch.tensor([side(i, queries, height, width, subject.norm) for i in range(queries)], device=device)
    first, start, each, step = channels * width, _start, 2 + channels, _step
    if subject.norm == "l2":
        first, start = square_l2.start_draws(channels, height, width), square_l2.start
        each, step = square_l2.step_draws(channels), square_l2.step
    spent = 0

    def begin(fresh: Tensor) -> dict[str, Tensor]:
        z = start(x[rows[fresh]], eps, keyed_uniform(seed, rows[fresh], torch.zeros_like(fresh), first))
        return {"x_adv": z, "best": z}

    pool = Pool(len(rows), subject.batch_size, begin, device)
    with torch.no_grad():
        while pool.filled():
            slot, x_adv, y = pool.slot, pool["x_adv"], subject.y[rows[pool.slot]]
            logits = subject.logits(x_adv)
            if spent == 0:
                contract.check_logits(subject.model, logits)
                checks.check_labels(subject.y, logits.shape[1], len(subject.x))
            spent += len(slot)
            now, value = fooled(logits, y), margin(logits, y).to(x)
            if now.any():
                check_result(x[rows[slot[now]]], x_adv[now].to(subject.x), eps, subject.norm)
                broken[slot[now]] = True
            better = now | (value > reached[slot]) | (pool.age == 0)
            reached[slot] = torch.where(better, value, reached[slot])
            pool["best"] = torch.where(per_row(better, x_adv), x_adv, pool["best"])
            if keep is not None:
                keep[slot] = pool["best"]
            pool.keep(~now & (pool.age + 1 < queries))
            if len(pool.slot):
                drawn = keyed_uniform(seed, rows[pool.slot], pool.age, each)
                pool["x_adv"] = step(x[rows[pool.slot]], pool["best"], eps, sides[pool.age], drawn)
    return Outcome(broken, reached, spent)


def square_attack(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Labels,
    *,
    eps: float,
    norm: Norm = "linf",
    queries: int = 5000,
    batch_size: int = 128,
    generator: torch.Generator | None = None,
) -> AttackResult:
    """Square within L-infinity or L2, away from the classes y; see the module's docstring.

    A row is done when a query fools it; else its image is the one of the largest margin. Cost: `queries` forward passes a row
    at most (5,000, as in AutoAttack), and one to judge. Random numbers are keyed by (`generator`'s seed, row, query), so that
    `batch_size` changes nothing. Raises ValueError for bad input, RuntimeError where the result breaks its own bounds.
    """
    x, y = check_input(x, y, eps, norm)
    if not 1 <= queries <= LARGEST or batch_size < 1:
        raise ValueError(f"queries={queries}, batch_size={batch_size}: from 1 to {LARGEST} queries, 1 image at least at once")
    seed = (generator or torch.Generator().manual_seed(0)).initial_seed()
    subject, rows = Subject(model, x.detach(), y, norm, batch_size), torch.arange(len(x), device=x.device)
    with hooks.frozen(model):  # in inference mode too, what is written to comes about outside of it
        keep = wide(subject.x).clone()
        search(subject, rows, eps, queries, seed, keep)
        return judged(model, subject.x, keep.to(subject.x), y, eps, norm, margin, False, ())
