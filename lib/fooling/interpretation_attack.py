r"""Attacks against interpretability (AAI): move a network's explanation and leave its decision (Boopathy et al. 2020).

Two objectives on the CAM of the true class, M the CAM of x and M' that of x':

* `l1`, the paper's formula: climb :math:`D_1(x, x') - \lambda \max(\max_{j \ne y} f_j(x') - f_y(x'), 0)`;
* `topk`, the authors' code: push down the sum of M' over the k positions that are largest in M.

Both take sign steps in the L-infinity ball, from a random start (at x' = x the first has no gradient). The authors keep the
last iterate and leave out the images whose prediction changed. That compares fewer and fewer images as eps grows, so
`keep=True`, the default here, returns for every image the iterate that moves most among those that keep the prediction;
x itself is one.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lib.attacks import losses
from lib.attacks.by_name import Attack
from lib.attacks.steps import check_input, check_radius, check_result, per_row, project, random_point
from lib.data import checks
from lib.data.checks import Labels
from lib.explanations.activation_maps import all_cams
from lib.networks import hooks, reach
from lib.system import devices
from lib.system.devices import wide

Form = Literal["l1", "topk"]
LABELS: dict[Form, str] = {"l1": "AAI, L1 form (map)", "topk": "AAI, top-k form (map)"}


@dataclass(frozen=True)
class Shifted:
    """x_adv (N, C, H, W); kept (N,) bool: the prediction is that of x; before and after, the CAMs (N, h, w) of class y."""

    x_adv: Float[Tensor, "n c h w"]
    kept: Bool[Tensor, " n"]
    before: Float[Tensor, "n a b"]
    after: Float[Tensor, "n a b"]


def attacks(k: int = 8) -> tuple[Attack, ...]:
    """Both forms, of the k top positions, as rows that the table of attacks can be continued with."""
    return tuple(Attack(form, label, functools.partial(aai, form=form, k=k)) for form, label in LABELS.items())


def _moved(form: Form, before: Tensor, after: Tensor, top: Tensor) -> Tensor:
    """How far a map went by the form's own measure, (N,): more is farther."""
    if form == "l1":
        return (after - before).flatten(1).abs().sum(1)
    # deviation: `topk` is what the code of Boopathy et al. climbs and what their table 3 holds; the printed formula is `l1`.
    return -after.flatten(1).gather(1, top).sum(1)


def aai(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Labels,
    *,
    eps: float,
    form: Form = "l1",
    k: int = 8,
    hinge: float = 1.0,
    steps: int = 200,
    step: float = 0.01,
    keep: bool = True,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Shifted:
    """Move the CAM of class y within ||x' - x||_inf <= eps; see the module's docstring.

    `hinge` is lambda, and holds for both forms (0 for `topk` as released); for an image that is wrong as it is, it holds on to
    the class that was predicted rather than y; k is the number of top positions. Cost: `steps`
    forward-and-input-backward passes and two forward passes. Memory is that of a pass of `batch_size` images (default: 256,
    fewer large ones); starts are drawn for all images at once, so that batches change nothing. Raises ValueError for bad
    input, k larger than the map, and
    networks without a linear head after average pooling.
    """
    x, y = check_input(x, y, eps)
    if form not in ("l1", "topk"):
        raise ValueError(f"unknown form {form!r}; choose l1 or topk")
    if steps < 1 or hinge < 0:
        raise ValueError(f"steps={steps}, hinge={hinge}: 1 step at least, a weight of 0 or more")
    check_radius(step, "linf", x[0].numel(), "step")
    generator = generator or torch.Generator().manual_seed(0)
    x, dtype = wide(x.detach()), x.dtype
    rows = devices.images_at_once(max(x.shape[2:]), 256) if batch_size is None else batch_size
    if rows < 1:
        raise ValueError(f"batch_size={batch_size}: one image at least")
    climb = functools.partial(_climb, model, eps=eps, form=form, k=k, hinge=hinge, steps=steps, step=step, dtype=dtype)
    with hooks.frozen(model):  # in inference mode too, points that gradients are taken at come about outside of it
        starts = (x + random_point(x, eps, "linf", generator)).clamp(0, 1)
        found = [climb(*part, keep=keep) for part in zip(x.split(rows), y.split(rows), starts.split(rows), strict=True)]
    return Shifted(*(torch.cat([getattr(part, f.name) for part in found]) for f in dataclasses.fields(Shifted)))


def _climb(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    x_adv: Tensor,
    *,
    eps: float,
    form: Form,
    k: int,
    hinge: float,
    steps: int,
    step: float,
    dtype: torch.dtype,
    keep: bool,
) -> Shifted:
    """`aai` of images that travel together, from the points `x_adv`."""
    with hooks.frozen(model):
        with torch.no_grad():
            maps, logits = all_cams(model, x.to(dtype))
        checks.check_labels(y, logits.shape[1], len(x))
        own = y.view(-1, 1, 1, 1).expand(-1, 1, *maps.shape[2:])
        before, predicted = maps.gather(1, own)[:, 0], logits.argmax(1)
        positions = before[0].numel()
        if not 1 <= k <= positions:
            raise ValueError(f"k={k}: the map has {positions} positions; choose 1 to {positions}")
        top = before.flatten(1).topk(k, dim=1).indices
        best, best_after = x.clone(), before.clone()
        farthest = _moved(form, before, before, top)
        kept, after = torch.ones_like(y, dtype=torch.bool), before
        for i in range(steps + 1):
            last = i == steps
            z = x_adv.detach().requires_grad_(not last)
            with torch.set_grad_enabled(not last):
                maps, logits = all_cams(model, z.to(dtype), check=False)
                after = maps.gather(1, own)[:, 0]
                moved = _moved(form, before, after, top)
                if not last:
                    # deviation: the hinge holds on to the class predicted for x, and in both forms; the print holds on to y,
                    # the code has no hinge.
                    goal = moved - hinge * losses.margin(logits, predicted).clamp_min(0)
                    gradient = reach.image_gradient(model, goal.sum(), z)
            kept = logits.argmax(1) == predicted
            # deviation: the farthest iterate that keeps the prediction counts, unless `keep=False`; the authors take the last
            # one and drop images.
            if keep:
                better = kept & (moved.detach() > farthest)
                best = torch.where(per_row(better, x), x_adv, best)
                best_after = torch.where(better[:, None, None], after.detach(), best_after)
                farthest = torch.where(better, moved.detach(), farthest)
            if not last:
                delta = project(x_adv + step * gradient.sign() - x, eps, "linf")
                x_adv = (x + delta).clamp(0, 1)
    found = (best, torch.ones_like(kept), best_after) if keep else (x_adv, kept, after.detach())
    x_adv = found[0].to(dtype)
    check_result(x, x_adv, eps, "linf")
    return Shifted(x_adv, found[1], before, found[2])
