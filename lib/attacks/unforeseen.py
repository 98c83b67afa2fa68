r"""Attacks that training did not foresee (Kang et al. 2019, advex-uar): Gabor noise, snow, and JPEG coefficients.

Each optimises a latent v of its own, from which the attacked image is drawn differentiably:

* Gabor: sparse v in [-1, 1], convolved with a random Gabor kernel an image, its local variance made even, scaled to [0, 1],
  and eps times it added to all colours. eps in units of [0, 1] images (theirs / 255). It only brightens.
* Snow: seven coarse grids of flakes v in (0, 1], to the fourth power, convolved with random streaks; eps is the snow's
  opacity. The whitening of the sky applies at eps = 0 too.
* JPEG: v moves the quantised coefficients by v / 2 quantisation steps, within a ball of radius eps under L-infinity, L2 or
  L1 (`lib.attacks.jpeg`).

As published, the loss is the cross-entropy towards a random wrong class, which suits 1,000 classes more than ten; without
`targets` the attack is untargeted and climbs the cross-entropy at y. Success is a wrong prediction either way. All take
colour images; `InColour` lets a network of grey images see them. Images of half precision are drawn in float32 and rounded
where the model sees them, and under `torch.autocast` the model alone runs in it. Memory is that of a pass of `batch_size`
images (default: 256, fewer large ones); all that is random is drawn for all images at once, so that batches change nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lib.attacks import jpeg, losses
from lib.attacks.steps import AttackResult, check_input, fooled, joined, logits_of, project, weaknesses
from lib.data import checks, images
from lib.data.checks import Labels
from lib.networks import contract, hooks, reach
from lib.system import devices
from lib.system.devices import wide

# deviation: the step of Gabor and snow is the construction's own, as Kang et al. published it; Boopathy et al. 2020 took eps /
# sqrt(200).
FIXED_STEP = math.sqrt(0.001 / 200)  # of Gabor and snow, whose latents live in fixed boxes: it does not grow with eps
# Radii that the authors calibrated: Gabor and snow on ImageNet-100 (there are none for CIFAR), JPEG on CIFAR-10.
CALIBRATED = {
    "gabor": tuple(e / 255 for e in (6.25, 12.5, 25, 400, 800, 1600)),
    "snow": (0.0625, 0.125, 0.25, 2, 4, 8),
    "jpeg-linf": (0.03125, 0.0625, 0.125, 0.25, 0.5, 1),
    "jpeg-l2": (0.25, 0.5, 1, 2, 4, 8),
    "jpeg-l1": (2, 8, 64, 256, 512, 1024),
}
# Accuracy of the best adversarially trained ResNet-56 on CIFAR-10 at each of those radii, for their summary score.
ATA_CIFAR10 = {
    "jpeg-linf": (0.897, 0.870, 0.831, 0.786, 0.697, 0.354),
    "jpeg-l2": (0.922, 0.910, 0.884, 0.858, 0.813, 0.720),
    "jpeg-l1": (0.914, 0.881, 0.802, 0.689, 0.563, 0.377),
}
COEFFICIENT_BOX = 2.0  # |v| of JPEG under L2 and L1


class InColour(nn.Module):
    """A network of grey images that takes colour ones, by their luma."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.grey = model

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n classes"]:
        return self.grey(images.luma(x))


Drawn = Callable[[Tensor, slice], Tensor]  # (latent, which images it is of) -> these images in [0, 1]
Update = Callable[[Tensor, Tensor, int, slice], Tensor]  # (latent, ascent gradient, iteration, which images) -> latent


def _optimise(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    latent: Tensor,
    draw: Drawn,
    update: Update,
    steps: int,
    targets: Tensor | None,
    batch_size: int | None,
) -> AttackResult:
    """`steps` updates of the latent, and the image that the last one draws, in the type of x; some images at a time."""
    rows = devices.images_at_once(max(x.shape[2:]), 256) if batch_size is None else batch_size
    if rows < 1:
        raise ValueError(f"batch_size={batch_size}: one image at least")
    parts = []
    for first in range(0, len(x), rows):
        part = slice(first, first + rows)
        goal = None if targets is None else targets[part]
        parts.append(_optimise_part(model, x[part], y[part], latent[part], draw, update, steps, goal, part))
    return joined(parts)


def _optimise_part(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    latent: Tensor,
    draw: Drawn,
    update: Update,
    steps: int,
    targets: Tensor | None,
    part: slice,
) -> AttackResult:
    """`_optimise` of the images `part`, which travel together."""

    def drawing(v: Tensor) -> Tensor:
        with hooks.outside_autocast(v):
            return draw(v, part).to(x)

    # deviation: untargeted unless `targets` are given; Kang et al. drive every image towards a random wrong class.
    goal, sign = (y, 1.0) if targets is None else (targets, -1.0)
    warnings: tuple[str, ...] = ()
    with hooks.frozen(model):
        for i in range(steps):
            v = latent.detach().requires_grad_()
            with torch.enable_grad():
                drawn = drawing(v)
                logits = logits_of(model, drawn)
                if i == 0:
                    contract.check_logits(model, logits)
                    for labels in (y, goal):
                        checks.check_labels(labels, logits.shape[1], len(y))
                gradient = reach.image_gradient(model, losses.cross_entropy(logits, goal).sum(), v, image=drawn)
                if i == 0:
                    warnings = weaknesses(gradient, logits)
            latent = update(v.detach(), sign * gradient, i, part)
        with torch.no_grad():
            x_adv = drawing(latent)
            logits = logits_of(model, x_adv)
    if not torch.isfinite(x_adv).all() or x_adv.amin() < 0 or x_adv.amax() > 1:
        raise RuntimeError("the attack drew values that are not finite or outside [0, 1]")
    return AttackResult(x_adv, fooled(logits, y), losses.cross_entropy(logits, y), logits, warnings=warnings)


def wrong_classes(y: Int[Tensor, " n"], classes: int, generator: torch.Generator | None = None) -> Int[Tensor, " n"]:
    """A uniformly random wrong class for each label, the published targets. Raises ValueError for one class."""
    if classes < 2:
        raise ValueError("there is one class; a wrong one needs two at least")
    checks.check_labels(y, classes, len(y))
    generator = generator or torch.Generator().manual_seed(0)
    return (y + torch.randint(1, classes, y.shape, generator=generator, device=generator.device).to(y.device)) % classes


def _check(x: Tensor, y: Labels, targets: Labels | None, eps: float, steps: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Images, labels and targets as the attacks use them; the radius is in a measure of each attack's own."""
    x, y = check_input(jpeg.check_colour(x), y, eps, None)
    if steps < 1:
        raise ValueError(f"steps={steps}: one at least")
    return x, y, None if targets is None else checks.as_labels(targets, x, "targets")


@dataclass(frozen=True)
class Randomness:
    """Draws from one generator, placed beside the images."""

    generator: torch.Generator
    like: Tensor

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.generator.device).to(self.like)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.generator.device).to(self.like)


def _randomness(x: Tensor, generator: torch.Generator | None) -> Randomness:
    return Randomness(generator or torch.Generator().manual_seed(0), wide(x))


GABOR_SIDE, GABOR_DENSITY = 23, 1 / 14


def gabor_kernels(n: int, random: Randomness) -> Float[Tensor, "n 1 23 23"]:
    """Random kernels (n, 1, 23, 23): a Gaussian times the sum of 1 to 10 cosines of one frequency in as many directions."""
    side = GABOR_SIDE
    sigma = 0.1 + 0.3 * random.uniform(n, 1, 1)
    frequency = 3 + (side / 4 - 3) * random.uniform(n, 1, 1)
    angle = math.pi * random.uniform(n, 1, 1)
    sides = 1 + (10 * random.uniform(n, 1, 1)).floor().clamp(max=9)
    grid = torch.linspace(-0.5, 0.5, side).to(random.like)
    row, column = grid[:, None], grid[None, :]
    envelope = torch.exp(-(row**2 + column**2) / (2 * (sigma + 0.001) ** 2))
    waves = torch.zeros_like(envelope)
    for j in range(10):
        theta = angle + math.pi * j / sides
        along = column * torch.cos(theta) + row * torch.sin(theta)
        waves = waves + torch.where(j < sides, torch.cos(2 * math.pi * frequency * along), 0.0)
    return (envelope * waves)[:, None]


def gabor_noise(v: Float[Tensor, "n 1 h w"], kernels: Float[Tensor, "n 1 23 23"]) -> Float[Tensor, "n 1 h w"]:
    """Noise (N, 1, H, W) in [0, 1] from sparse latents v of that shape, each with its own kernel.

    The published normalisation by local variance transforms there and back without a filter between, so it divides by the
    noise's own absolute value: what comes out is nearly binary, and so it is here. Gains and range are constants to the
    gradient.
    """
    noise = F.conv2d(v.transpose(0, 1), kernels, padding=GABOR_SIDE // 2, groups=len(v)).transpose(0, 1)
    mean = noise.mean((2, 3), keepdim=True)
    away = (noise - mean).abs()
    spread = away / away.amax((2, 3), keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)
    even = mean.detach() + (noise - mean.detach()) * (1.001 / (0.001 + spread)).detach()
    low, high = even.amin((2, 3), keepdim=True).detach(), even.amax((2, 3), keepdim=True).detach()
    return (even - low) / (high - low).clamp_min(torch.finfo(v.dtype).tiny)


@hooks.outside_inference()
def gabor(
    model: nn.Module,
    x: Float[Tensor, "n 3 h w"],
    y: Labels,
    *,
    eps: float,
    steps: int = 200,
    step: float = FIXED_STEP,
    targets: Labels | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> AttackResult:
    """Gabor noise: x' = clip(x + eps n(v)), n in [0, 1]; sign steps in v, kept sparse and in [-1, 1].

    `x` (N, 3, H, W) in [0, 1], any H and W; eps in the same units (`CALIBRATED`). Cost: `steps` passes forward and back.
    Raises ValueError for grey images and bad input.
    """
    x, y, targets = _check(x, y, targets, eps, steps)
    random = _randomness(x, generator)
    shape = (len(x), 1, *x.shape[2:])
    kernels = gabor_kernels(len(x), random)
    mask = random.uniform(*shape) < GABOR_DENSITY
    latent = (2 * random.uniform(*shape) - 1) * mask
    clean = wide(x)

    def draw(v: Tensor, part: slice) -> Tensor:
        return (clean[part] + eps * gabor_noise(v, kernels[part])).clamp(0, 1)

    def update(v: Tensor, up: Tensor, i: int, part: slice) -> Tensor:
        # deviation: pixels outside the mask stay zero, as in the paper; in the code of Kang et al. the mask is inverted and
        # they move.
        return (v + step * up.sign()).clamp(-1, 1) * mask[part]

    return _optimise(model, x, y, latent, draw, update, steps, targets, batch_size)


SNOW_SIDE, SNOW_BUDGET, SNOW_GRIDS = 13, 0.2, 7


def snow_kernels(random: Randomness) -> Float[Tensor, "1 7 13 13"]:
    """Seven random streaks (1, 7, 13, 13) through the centre, of one lean, slightly blurred."""
    middle = SNOW_SIDE // 2
    end = 2 + (5 * random.uniform(SNOW_GRIDS, 2)).floor().clamp(max=4)  # offsets 2 to 6, down and to the right
    chosen = random.uniform(SNOW_GRIDS)
    width = 1 + 2 * (chosen >= 0.6).to(end) + 2 * (chosen >= 0.9).to(end)
    axis = torch.arange(SNOW_SIDE).to(end) - middle
    row, column = axis[None, :, None], axis[None, None, :]
    down, right = end[:, 0, None, None], end[:, 1, None, None]
    steep = down > right
    longer, shorter = torch.maximum(down, right), torch.minimum(down, right)
    thick = width[:, None, None] * (1 + shorter / longer).sqrt() / 2
    along = torch.where(steep, row, column)
    off = (torch.where(steep, column, row) - along * shorter / longer).abs()
    quadrant = ((row >= 0) & (column >= 0)) | ((row <= 0) & (column <= 0))
    streak = (1 + thick / 2 - off).clamp(0, 1) * (along.abs() <= longer) * quadrant
    if random.uniform(1).item() < 0.5:
        streak = streak.flip(2)
    sigma = 0.41 + 0.19 * random.uniform(SNOW_GRIDS, 1)
    taps = torch.exp(-((torch.arange(3).to(end) - 1) ** 2) / (2 * sigma**2))
    taps = taps / taps.sum(1, keepdim=True)
    blur = (taps[:, :, None] * taps[:, None, :])[:, None]
    return F.conv2d(streak[None], blur, padding=1, groups=SNOW_GRIDS)


def snowflakes(
    v: Float[Tensor, "n 7 a b"], kernels: Float[Tensor, "1 7 13 13"], size: tuple[int, int]
) -> Float[Tensor, "n 1 h w"]:
    """Snow (N, 1, *size) from flakes v (N, 7, h, w), a flake each 4 pixels: to the fourth power, scattered, streaked."""
    n, grids, h, w = v.shape
    flakes = v**4
    canvas = v.new_zeros(n, grids, 4 * h, 4 * w)
    for i in range(4):
        canvas[:, i, ::4, i::4] = flakes[:, i]
    for i in range(4, SNOW_GRIDS):
        canvas[:, i, i - 3 :: 4, ::4] = flakes[:, i]
    return F.conv2d(canvas, kernels, padding=SNOW_SIDE // 2)[..., : size[0], : size[1]]


def whitened(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Colours under a snowy sky: .75 x + .25 max(x, 1.5 grey + .5)."""
    grey = (x * torch.tensor([0.2126, 0.7152, 0.0722]).to(x).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return 0.75 * x + 0.25 * torch.maximum(x, 1.5 * grey + 0.5)


def within_budget(v: Float[Tensor, "n g h w"]) -> Float[Tensor, "n g h w"]:
    """Flakes scaled so that each block of 8 x 8, in each grid, has a mean of the budget at most."""
    mean = F.avg_pool2d(v, 8, ceil_mode=True, count_include_pad=False)
    scale = SNOW_BUDGET / mean.clamp_min(SNOW_BUDGET)
    return v * scale.repeat_interleave(8, 2).repeat_interleave(8, 3)[..., : v.shape[2], : v.shape[3]]


@hooks.outside_inference()
def snow(
    model: nn.Module,
    x: Float[Tensor, "n 3 h w"],
    y: Labels,
    *,
    eps: float,
    steps: int = 200,
    step: float = FIXED_STEP,
    targets: Labels | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> AttackResult:
    """Snow: x' = clip(whitened(x) + eps s(v)); sign steps in the flakes, kept in (0, 1] and within their budget.

    Streaks are drawn once for all images of a call, as published. Shapes, cost and errors as `gabor`; eps is a factor.
    """
    x, y, targets = _check(x, y, targets, eps, steps)
    random = _randomness(x, generator)
    size = (x.shape[2], x.shape[3])
    with hooks.outside_autocast(x):
        sky, kernels = whitened(wide(x)), snow_kernels(random)
    latent = torch.exp(-random.uniform(len(x), SNOW_GRIDS, -(-size[0] // 4), -(-size[1] // 4)) / SNOW_BUDGET)

    def draw(v: Tensor, part: slice) -> Tensor:
        return (sky[part] + eps * snowflakes(v, kernels, size)).clamp(0, 1)

    def update(v: Tensor, up: Tensor, i: int, part: slice) -> Tensor:
        v = (v + step * up.sign()).clamp(1e-9, 1)
        return within_budget(v) if i < steps - 1 else v  # the last step is not cut, as published

    return _optimise(model, x, y, latent, draw, update, steps, targets, batch_size)


def l1_vertex(up: Float[Tensor, "n d"], eps: float, box: float) -> Float[Tensor, "n d"]:
    """argmax <up, v> over ||v||_1 <= eps, |v_i| <= box, row by row: the largest entries at the box, the last in part."""
    order = up.abs().argsort(1, descending=True)
    used = box * torch.arange(up.shape[1]).to(up)
    sizes = (eps - used).clamp(0, box).expand_as(up)
    return torch.zeros_like(up).scatter(1, order, sizes) * up.sign()


@hooks.outside_inference()
def jpeg_attack(
    model: nn.Module,
    x: Float[Tensor, "n 3 h w"],
    y: Labels,
    *,
    eps: float,
    norm: Literal["linf", "l2", "l1"] = "linf",
    steps: int = 200,
    targets: Labels | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> AttackResult:
    """JPEG: coefficients move by v / 2 quantisation steps, ||v|| <= eps (`CALIBRATED`); under L2 and L1, |v| <= 2 too.

    L-infinity takes sign steps and L2 steepest ones, of eps / sqrt(steps); L1 is Frank and Wolfe's method, whose vertices
    here keep to the box (the published ones measure the room from where v is and can leave it). The start is uniform in
    the ball. Shapes, cost and errors as `gabor`.
    """
    x, y, targets = _check(x, y, targets, eps, steps)
    if norm not in ("linf", "l2", "l1"):
        raise ValueError(f"unknown norm {norm!r}; choose linf, l2 or l1")
    random = _randomness(x, generator)
    clean, size, step = jpeg.encode(x), (x.shape[2], x.shape[3]), eps / math.sqrt(steps)
    shape = clean.flat().shape
    if norm == "linf":
        latent = eps * (2 * random.uniform(*shape) - 1)
    elif norm == "l2":
        direction = random.normal(*shape)
        radius = random.uniform(len(x), 1) ** (1 / shape[1])
        latent = (eps * radius * direction / direction.norm(dim=1, keepdim=True)).clamp(-COEFFICIENT_BOX, COEFFICIENT_BOX)
    else:  # uniform in the L1 ball (Barthe et al. 2005): exponential magnitudes over their sum and one more
        magnitude = -torch.log1p(-random.uniform(shape[0], shape[1] + 1))
        sign = torch.where(random.uniform(*shape) < 0.5, -1.0, 1.0).to(magnitude)
        latent = eps * sign * magnitude[:, :-1] / magnitude.sum(1, keepdim=True)
        latent = latent.clamp(-COEFFICIENT_BOX, COEFFICIENT_BOX)

    def draw(v: Tensor, part: slice) -> Tensor:
        # deviation: v moves the coefficients by v / 2 in every pass; the first pass of the code of Kang et al. moves them by
        # eps v / 2.
        own = jpeg.Coefficients(*(q[part] for q in clean))
        moved = (q + d / 2 for q, d in zip(own, own.like(v), strict=True))
        return jpeg.decode(jpeg.Coefficients(*moved), size)

    def update(v: Tensor, up: Tensor, i: int, part: slice) -> Tensor:
        if norm == "linf":
            return (v + step * up.sign()).clamp(-eps, eps)
        if norm == "l2":
            v = v + step * up / (up.norm(dim=1, keepdim=True) + 1e-8)
            return project(v, eps, "l2").clamp(-COEFFICIENT_BOX, COEFFICIENT_BOX)
        # deviation: the vertices keep to the box; those in the code of Kang et al. measure the room from where v is and can
        # leave it.
        return v + (l1_vertex(up, eps, COEFFICIENT_BOX) - v) / (i + 1)

    return _optimise(model, x, y, latent, draw, update, steps, targets, batch_size)


ATTACKS = ("gabor", "snow", "jpeg-linf", "jpeg-l2", "jpeg-l1")
