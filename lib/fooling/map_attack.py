r"""Attacks on explanations: move a map as far as can be inside a ball, while the decision stays.

.. math:: \max_{\lVert x' - x \rVert \le \epsilon} D(h(x'), h(x)) \quad \text{where} \quad \arg\max f(x') = \arg\max f(x)

h is the map of the predicted class as it is shown, of any method of `lib.explanations.METHODS` that can be differentiated, and
D a goal of `goals` (Ghorbani et al. 2019, arXiv:1710.10547; Dombrowski et al. 2019, arXiv:1906.07983).

Three things mask such an attack, and each is met. ReLU networks have no second derivative, so the gradient of a map that is
made of gradients is zero or leaves most out: h is climbed through the smooth twin (`lib.networks.rectifiers`), whose beta grows
from stage to stage, and judged on the network. A fixed step is too long in the end, or too short at the start: each image has
its own, halved after a stage that found nothing better, and goes on from its best (as APGD does: Croce and Hein 2020,
arXiv:2003.01690, alg. 1, whose momentum is taken too). And a penalty for the decision needs a weight: here an image whose
margin falls below the share `slack` of what it was climbs its margin, and not the goal, until it is safe again.

What counts is the farthest image that a stage ended with, keeps its decision, and has a map with contrast; x is one.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lib.attacks.losses import margin
from lib.attacks.pool import keyed_start
from lib.attacks.steps import Norm, ascent, check_ball, check_radius, check_result, per_row, project
from lib.explanations import by_name
from lib.explanations.by_name import Settings
from lib.fooling.goals import GOALS
from lib.measures import comparison
from lib.networks import contract, hooks, reach, rectifiers
from lib.networks.contract import Targets
from lib.system import devices
from lib.system.devices import wide

# of the first stage and the last: at 5 a deep network's twin decides otherwise than the
# network, at 100 its maps are those of the network but for little
BETAS = (10.0, 100.0)
DEFAULT = Settings()
MOMENTUM = 0.75  # of the new step: Croce and Hein 2020
TIRED = 1 / 64  # of its first length: an image whose step is shorter is done
KEPT = 0.5  # fewer judged iterates than this share kept their decision: the attack pays for most of its way
AGREE = 0.5  # a rank correlation of the twin's map and the network's below it: the twin leads elsewhere


@dataclass(frozen=True)
class MovedMaps:
    """What an attack on maps found, image by image.

    x_adv (N, C, H, W); before and after, the maps (N, h, w) in [0, 1] as they are shown, of the class predicted for x;
    moved (N,), the goal's value; found (N,) bool: an image other than x is what counts. trace (restarts * stages, N): the
    farthest so far after each stage of each restart. passes: row-steps, each one map that is differentiated and one forward
    pass; looks: maps that were judged. warnings: reasons to distrust that an explanation withstood.
    """

    x_adv: Float[Tensor, "n c h w"]
    before: Float[Tensor, "n a b"]
    after: Float[Tensor, "n a b"]
    moved: Float[Tensor, " n"]
    found: Bool[Tensor, " n"]
    trace: Float[Tensor, "s n"]
    passes: int
    looks: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Climb:
    """What stays the same over images and restarts."""

    model: nn.Module
    method: str
    settings: Settings  # of the maps that are judged
    climbing: Settings  # of those that are climbed
    goal: Callable[..., Tensor]
    eps: float
    norm: Norm
    steps: tuple[int, ...]  # of each stage
    betas: tuple[float | None, ...]  # a stage each; None: the network itself
    first: float  # length of the first step
    slack: float
    dtype: torch.dtype  # of the images as they were given; attacks compute in float32 at least
    noisy: bool  # maps hold noise that belongs to an image's place in its batch: no image leaves

    def shown(self, x: Tensor, y: Targets) -> tuple[Tensor, Tensor]:
        """The network's own maps and logits."""
        with torch.no_grad():
            found = by_name.explain(self.method, self.model, x.to(self.dtype), y, self.settings)
        return found.values.detach().to(x), found.logits.detach().to(x)

    def climbed(self, z: Tensor, y: Tensor, beta: float | None, tally: "_Tally", settings: Settings | None = None) -> Tensor:
        """Differentiable maps, of the smooth twin unless `beta` is None; `settings` other than those that are climbed."""
        used = settings or self.climbing
        with contextlib.nullcontext() if beta is None else rectifiers.smoothed(self.model, beta) as twin:
            maps = by_name.explain(self.method, self.model, z.to(self.dtype), y, used, create_graph=True).values
        tally.rectified += 1 if twin is None else twin.seen
        return maps.to(z)

    def uphill(self, z: Tensor, of: "_Rows", beta: float | None, tally: "_Tally") -> Tensor:
        """The gradient at z of what each row climbs: its goal, or its margin where that has become thin."""
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            room = -margin(contract.logits_of(self.model, z.to(self.dtype)).to(z), of.y) / of.room
            safe = room.detach() > self.slack
            back = None if safe.all() else reach.image_gradient(self.model, torch.where(safe, 0.0, room).sum(), z)
            del room  # and its graph, before that of the map is built
            value = self.goal(self.climbed(z, of.y, beta, tally), of.before, *of.given)
            (gradient,) = reach.gradients(torch.where(safe, value, 0.0).sum(), [z])
            gradient = torch.zeros_like(z) if gradient is None else gradient
            gradient = gradient if back is None else gradient + back
        tally.passes += len(z)
        return gradient


class _Rows(NamedTuple):
    """Images with all that belongs to each: as they were, class, map, margin, and the map to reach, if there is one."""

    x: Tensor
    y: Tensor
    before: Tensor
    room: Tensor
    given: tuple[Tensor, ...]

    def at(self, rows: Tensor) -> "_Rows":
        return _Rows(self.x[rows], self.y[rows], self.before[rows], self.room[rows], tuple(t[rows] for t in self.given))


@dataclass
class _Tally:
    """What is counted on the way, for costs and warnings."""

    passes: int = 0
    looks: int = 0  # at iterates, and how many of them kept their decision
    kept: int = 0
    started: int = 0  # images, and how many of them had no gradient to begin with
    still: int = 0
    rectified: int = 0
    agreement: list[Tensor] = field(default_factory=list)

    def warnings(self, name: str, twin: bool) -> tuple[str, ...]:
        found = []
        if self.still:
            found.append(
                f"the distance of {name} maps has no gradient on {self.still} of {self.started} images: an attack that follows "
                "it cannot move them, which does not say that none can"
            )
        if self.kept < KEPT * self.looks:
            found.append(
                f"{self.kept} of {self.looks} judged images keep their decision: most of what this attack on {name} found "
                "does not count"
            )
        if twin and self.passes and not self.rectified:
            found.append("no ReLU runs where it can be seen: the smooth twin is the network itself")
        agree = torch.cat(self.agreement).nanmean().item() if self.agreement else 1.0
        if agree < AGREE:
            found.append(
                f"{name} maps of the smooth twin and of the network correlate by {agree:.2f}: what moves one need not move both"
            )
        return tuple(found)


class _Best(NamedTuple):
    """The farthest of each row so far."""

    x_adv: Tensor
    after: Tensor
    moved: Tensor
    found: Tensor

    def farther(self, z: Tensor, maps: Tensor, moved: Tensor, counts: Tensor) -> tuple["_Best", Tensor]:
        better = counts & (moved > self.moved)
        pick = [torch.where(per_row(better, a), b, a) for a, b in ((self.x_adv, z), (self.after, maps), (self.moved, moved))]
        return _Best(*pick, self.found | better), better


def _run(c: _Climb, of: _Rows, best: _Best, start: Tensor, tally: _Tally) -> tuple[_Best, list[Tensor]]:
    """One restart: stages of steps, each judged at its end; the farthest of each row, and the trace."""
    z = (of.x + project(start, c.eps, c.norm)).clamp(0, 1)
    behind, length = z, torch.full((len(z),), c.first, dtype=z.dtype, device=z.device)
    tired = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    trace = []
    for stage, beta in enumerate(c.betas):
        rows = (~tired).nonzero()[:, 0]
        part, here, back, moves = of.at(rows), z[rows], behind[rows], torch.zeros_like(tired[rows])
        for _ in range(c.steps[stage] if len(rows) else 0):
            gradient = c.uphill(here, part, beta, tally)
            moves |= gradient.flatten(1).ne(0).any(1)
            ahead = here + per_row(length[rows], here) * ascent(gradient, c.norm)
            ahead = (part.x + project(ahead - part.x, c.eps, c.norm)).clamp(0, 1)
            mixed = here + MOMENTUM * (ahead - here) + (1 - MOMENTUM) * (here - back)
            back, here = here, (part.x + project(mixed - part.x, c.eps, c.norm)).clamp(0, 1)
        if len(rows):
            maps, logits = c.shown(here, part.y)
            kept = logits.argmax(1) == part.y
            counts = kept & ~comparison.degenerate(maps)
            tally.looks, tally.kept = tally.looks + len(rows), tally.kept + int(kept.sum())
            moved = torch.where(counts, c.goal(maps, part.before, *part.given), -torch.inf)
            own = _Best(*(t[rows] for t in best))
            own, better = own.farther(here, maps, moved, counts)
            best = _Best(*(t.index_copy(0, rows, n) for t, n in zip(best, own, strict=True)))
            # what found nothing goes on from its best, in shorter steps
            z = z.index_copy(0, rows, torch.where(per_row(better | ~own.found, here), here, own.x_adv))
            behind = behind.index_copy(0, rows, torch.where(per_row(better, here), back, z[rows]))
            length = length.index_copy(0, rows, torch.where(better, length[rows], length[rows] / 2))
            tired = tired.index_copy(0, rows, (~moves | (length[rows] < c.first * TIRED)) & (not c.noisy))
            if stage == 0:
                tally.started, tally.still = tally.started + len(rows), tally.still + int((~moves).sum())
            if beta is not None and stage == len(c.betas) - 1:
                tally.agreement.append(comparison.spearman(c.climbed(here, part.y, beta, tally, c.settings).detach(), maps))
        trace.append(best.moved.clone())
    return best, trace


def move_maps(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    method: str,
    *,
    eps: float,
    goal: str = "mass",
    given: Float[Tensor, "n a b"] | None = None,
    settings: Settings = DEFAULT,
    climbing: Settings | None = None,
    norm: Norm = "linf",
    steps: int = 40,
    stages: int = 8,
    betas: tuple[float, float] | None = BETAS,
    step: float | None = None,
    restarts: int = 1,
    slack: float = 0.1,
    batch_size: int | None = None,
    seed: int = 0,
) -> MovedMaps:
    """Move the maps of `method` of the predicted classes within ||x' - x|| <= eps; see the module's docstring.

    `given` are the maps (N, h, w) that `goal="towards"` is after, at their own resolution. `settings` are the method's
    where maps are judged, `climbing` where they are climbed: fewer points of integrated gradients, say. SmoothGrad's noise
    is that of the maps that are judged where as many copies are climbed, so that the attack knows it; any other number of
    copies is drawn anew for each step. `steps` are shared by the `stages` (the first ones have one more where they do not
    come out even), over which beta grows geometrically between the two `betas`; None climbs the network itself. The first
    `step` is as long as eps unless given. Each of the `restarts` begins at a random point of the ball.

    Cost: a step is one map that is differentiated (for gradients: a second-order pass) and one forward pass, of the images that
    are not done (SmoothGrad's noise belongs to an image's place in its batch: there all go on); a stage one map, the end one
    more. Memory is that of a pass of `batch_size` images: `batch_of` them unless given. Randomness is keyed by image, so that
    batches do not matter (but for SmoothGrad's noise).

    Raises ValueError for bad input, a method without derivative, a goal without its map or a map without its goal.
    """
    x = check_ball(x, eps, norm)
    row, wanted = by_name.find(method), GOALS.find(goal)
    if not row.differentiable:
        known = ", ".join(by_name.DIFFERENTIABLE)
        raise ValueError(f"{row.label} is not differentiated here, so that no attack can climb it; choose one of {known}")
    if wanted.aimed != (given is not None):
        raise ValueError(
            f"goal {goal!r} {'needs' if wanted.aimed else 'takes no'} map to reach; given={'None' if given is None else 'maps'}"
        )
    first = eps if step is None else step
    check_radius(first, norm, x[0].numel(), "step")
    batch_size = batch_of(x) if batch_size is None else batch_size
    if not 1 <= stages <= steps or restarts < 1 or batch_size < 1 or not 0 <= slack < 1:
        raise ValueError(
            f"steps={steps}, stages={stages}, restarts={restarts}, batch_size={batch_size}, slack={slack}: a step a stage, a "
            "stage, a restart and an image at least, a share of the margin below 1"
        )
    if betas is not None and not 0 < betas[0] <= betas[1]:
        raise ValueError(
            f"betas={betas}: two values above 0, the sharper one last (10 is smooth, 100 hardly to be told from ReLU)"
        )
    grown = (
        [None] * stages
        if betas is None
        else [betas[0] * (betas[1] / betas[0]) ** (i / max(1, stages - 1)) for i in range(stages)]
    )
    shared = tuple(steps // stages + (stage < steps % stages) for stage in range(stages))
    climbing, noisy = climbing or settings, method == "smoothgrad"
    if not noisy or climbing.n != settings.n:
        climbing = climbing._replace(generator=torch.Generator().manual_seed(seed))
    x, dtype = wide(x.detach()), x.dtype
    c = _Climb(model, method, settings, climbing, wanted.function, eps, norm, shared, tuple(grown), first, slack, dtype, noisy)
    tally, parts = _Tally(), []
    with hooks.frozen(model):
        for ids in torch.arange(len(x), device=x.device).split(batch_size):
            parts.append(_batch(c, x[ids], None if given is None else given.to(x)[ids], ids.tolist(), restarts, seed, tally))
    best = _Best(*(torch.cat([part[0][i] for part in parts]) for i in range(4)))
    before = torch.cat([part[1] for part in parts])
    trace = torch.cat([part[2] for part in parts], 1)
    x_adv = best.x_adv.to(dtype)
    check_result(x, x_adv, eps, norm)
    said = tally.warnings(row.label, betas is not None)
    return MovedMaps(x_adv, before, best.after, best.moved, best.found, trace, tally.passes, tally.looks, said)


def batch_of(x: Float[Tensor, "n c h w"]) -> int:
    """How many images are attacked together: 32, or fewer where they are large, half as many as other passes take, since this
    one is differentiated twice."""
    return max(1, devices.images_at_once(max(x.shape[2:]), 64) // 2)


def _batch(
    c: _Climb, x: Tensor, given: Tensor | None, ids: list[int], restarts: int, seed: int, tally: _Tally
) -> tuple[_Best, Tensor, Tensor]:
    """The farthest of each image of a batch over all restarts, the maps before, and the trace."""
    before, logits = c.shown(x, contract.predicted)
    contract.check_logits(c.model, logits)
    y = contract.two_logits(logits).argmax(1)
    if given is not None and given.shape != before.shape:
        raise ValueError(f"maps to reach have shape {tuple(given.shape)}, the maps of the images {tuple(before.shape)}")
    room = (-margin(logits, y)).clamp_min(torch.finfo(x.dtype).tiny ** 0.5)
    of = _Rows(x, y, before, room, () if given is None else (given,))
    best = _Best(x, before, c.goal(before, before, *of.given), torch.zeros_like(y, dtype=torch.bool))
    traces = []
    for restart in range(restarts):
        start = keyed_start(seed, restart, c.norm)(torch.tensor(ids), x, c.eps)
        best, trace = _run(c, of, best, start, tally)
        traces += trace
    return best, before, torch.stack(traces)
