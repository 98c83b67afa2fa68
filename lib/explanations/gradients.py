r"""Explanations in the pixels: gradient, gradient x input, SmoothGrad, integrated gradients.

What is differentiated is F, of the target class c: the logit (`of="score"`) or the cross-entropy at c (`of="loss"`).

* gradient: :math:`g = \partial F/\partial x` (Simonyan et al. 2014);
* gradient x input: :math:`x \odot g` (Shrikumar et al. 2017);
* SmoothGrad (Smilkov et al. 2017): :math:`E = \frac1n \sum_i g(x + \epsilon_i)`, :math:`\epsilon_i \sim N(0, \sigma^2)`,
  :math:`\sigma = spread \cdot (\max x - \min x)`, of each image;
* integrated gradients (Sundararajan et al. 2017): :math:`(x - x_0) \odot \int_0^1 g(x_0 + a (x - x_0))\,da`, whose values
  sum to :math:`F(x) - F(x_0)` (completeness).

Values come back raw and signed, (N, C, H, W), in units of F a unit of pixel (integrated gradients: units of F).
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lib.data import checks
from lib.explanations.explanation import Explanation
from lib.networks import contract, hooks, layouts, reach
from lib.networks.contract import Targets
from lib.networks.layouts import Layout
from lib.system import devices

Of = Literal["score", "loss"]
Rule = Literal["midpoint", "right", "gausslegendre"]
ROWS = 32  # a pass has at least this many, where there are fewer images: single rows waste the machine


def _objective(logits: Tensor, classes: Tensor, of: Of) -> Tensor:
    """F of each row, (N,)."""
    if of == "loss":
        return F.cross_entropy(logits, classes, reduction="none")
    return logits.gather(1, classes[:, None])[:, 0]


def _one_class(targets: Targets, logits: Tensor) -> Tensor:
    classes, single = contract.target_classes(targets, logits)
    if not single:
        raise ValueError(f"targets have shape {tuple(classes.shape)}; pixel explanations take one class an image, (N,)")
    return classes[:, 0]


def _check(x: Tensor, of: str) -> Tensor:
    x = checks.check_images(x)
    if of not in ("score", "loss"):
        raise ValueError(f"unknown objective {of!r}; choose score (the logit) or loss (the cross-entropy)")
    return x


def _differentiate(
    model: nn.Module, x: Tensor, classes: Callable[[Tensor], Tensor], of: Of, create_graph: bool = False
) -> tuple[Tensor, Tensor]:
    """The gradient of F at x, summed over rows so that rows do not see each other; and the logits of the same pass."""
    with torch.enable_grad():
        z = x if create_graph and x.requires_grad else x.detach().requires_grad_()
        logits = contract.logits_of(model, z)
        values = reach.image_gradient(model, _objective(logits, classes(logits), of).sum(), z, create_graph=create_graph)
    return values, logits


def _chosen(model: nn.Module, targets: Targets) -> Callable[[Tensor], Tensor]:
    """The class of each row from the logits, both checked."""

    def classes(logits: Tensor) -> Tensor:
        contract.check_explained(model, logits)
        return _one_class(targets, logits)

    return classes


def gradient(
    model: nn.Module, x: Float[Tensor, "n c h w"], targets: Targets, *, of: Of = "score", create_graph: bool = False
) -> Explanation:
    """The gradient of F with respect to the pixels, (N, C, H, W), and the logits of the same pass.

    `x` is (N, C, H, W) in [0, 1]; `targets` one class for all images, (N,), a function of the logits
    (`contract.predicted`), or None: the predicted class.
    One forward pass and one backward pass to the input. With `create_graph` the values are differentiable with respect to
    the parameters and `x`. Raises ValueError for images outside [0, 1], classes out of range, logits that are not finite.
    """
    x = _check(x, of)
    with hooks.frozen(model, parameters=create_graph):
        values, logits = _differentiate(model, x, _chosen(model, targets), of, create_graph)
    return Explanation(values, logits if create_graph else logits.detach())


def gradient_times_input(
    model: nn.Module, x: Float[Tensor, "n c h w"], targets: Targets, *, of: Of = "score", create_graph: bool = False
) -> Explanation:
    """The gradient times the pixels, (N, C, H, W), in units of F; arguments, cost and errors as of `gradient`.

    Shrikumar et al. 2017 (arXiv:1605.01713). Of a piecewise linear network without biases it sums to F (Euler's theorem).
    """
    x = _check(x, of)
    found = gradient(model, x, targets, of=of, create_graph=create_graph)
    return Explanation(found.values * (x if create_graph else x.detach()), found.logits)


def layer_gradient(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    targets: Targets,
    layer: str,
    *,
    layout: Layout | None = None,
    create_graph: bool = False,
) -> Explanation:
    """The gradient of the target's logit at a layer (`NAME` or `into:NAME`), and the logits of the same pass.

    (N, C, h, w), or (N, K, C, h, w) for K classes an image. One forward pass, without a graph below the layer, and one
    backward pass a class down to it. `x`, `targets` and `create_graph` as in `gradient`, `layout` as in `gradcam`; raises
    ValueError as they do.
    """
    x = checks.check_images(x)
    with (
        hooks.frozen(model, parameters=create_graph),
        hooks.capture(model, [layer], cut=not create_graph, any_layout=True) as seen,
        torch.enable_grad(),
    ):
        logits = contract.logits_of(model, x if create_graph else x.detach())
        contract.check_explained(model, logits)
        classes, single = contract.target_classes(targets, logits)
        scores = logits.gather(1, classes).sum(0)  # summed over rows: they do not see each other
        as_map = layouts.maps_of(model, layer, seen[layer], logits, x.shape[2:], layout)
        found, unreached = [], False
        for k, score in enumerate(scores):
            keep = create_graph or k + 1 < len(scores)
            (value,) = reach.gradients(score, [seen[layer]], create_graph=create_graph, retain_graph=keep)
            unreached |= value is None
            value = torch.zeros_like(seen[layer]) if value is None else value
            found.append(layouts.both(value, value, as_map, layer)[0] if as_map else value)
    if unreached:
        reach.check(model, x, [layer])
    return Explanation(found[0] if single else torch.stack(found, 1), logits if create_graph else logits.detach())


def _clean(model: nn.Module, x: Tensor, targets: Targets, batch_size: int | None = None) -> tuple[Tensor, Tensor]:
    """Logits of the images as they are, and the class that is explained."""
    with torch.no_grad():
        logits = torch.cat([contract.logits_of(model, part) for part in x.split(_rows_of(x, batch_size))])
    return logits, _chosen(model, targets)(logits)


def _rows_of(x: Tensor, batch_size: int | None) -> int:
    """Rows of a pass: as asked for, or N, ROWS at least; but no more large images than fit in memory."""
    return batch_size or devices.images_at_once(max(x.shape[2:]), max(ROWS, len(x)))


def _passes(model: nn.Module, points: Iterator[Tensor], classes: Tensor, of: Of, rows: int) -> Iterator[Tensor]:
    """The gradient at each of many points (N, C, H, W), in passes of about `rows` rows; order is kept.

    Few images: several points share a pass. Many: a point takes several passes. Either way no pass is larger.
    """
    n = len(classes)
    together = max(1, rows // n)
    pending: list[Tensor] = []

    def drawn() -> Iterator[Tensor]:
        z, y = torch.cat(pending), classes.repeat(len(pending))
        parts = [_differentiate(model, a, lambda _, b=b: b, of)[0] for a, b in zip(z.split(rows), y.split(rows), strict=True)]
        yield from torch.cat(parts).split(n) if len(parts) > 1 else parts[0].split(n)

    for point in points:
        pending.append(point)
        if len(pending) == together:
            yield from drawn()
            pending.clear()
    if pending:
        yield from drawn()


def smoothgrad(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    targets: Targets,
    *,
    n: int = 50,
    spread: float = 0.15,
    of: Of = "score",
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
    create_graph: bool = False,
) -> Explanation:
    """The mean gradient over `n` noisy copies of each image; see the module's docstring.

    The noise is not clipped to [0, 1]: its variance is what it says. An image without contrast gets none, and its gradient
    is returned. The cost is n forward-and-input-backward passes and one forward pass; memory that of one pass of
    `batch_size` rows (default: N, or 32 where N is smaller, and fewer large images), whatever n is. Noise is drawn copy by copy
    for all images, from `generator` or a fresh one seeded with 0, so batching does not change it. With `create_graph` the
    values are differentiable with respect to the parameters and `x`, the noise being constant; memory then grows with `n`.

    Raises ValueError as `gradient` does, and for n < 1 or spread < 0.
    """
    x = _check(x, of)
    if n < 1 or not 0 <= spread < float("inf"):
        raise ValueError(
            f"n={n}, spread={spread}: SmoothGrad needs one copy at least and a spread of 0 or more (0.15 is usual)"
        )
    generator = generator or torch.Generator().manual_seed(0)
    # deviation: noise is of the range of the pixels in [0, 1]; Zhang and Zhu 2019 add it after normalisation.
    flat = x.detach().flatten(1)
    sigma = spread * (flat.amax(1) - flat.amin(1)).view(-1, 1, 1, 1)
    noises = (sigma * torch.randn(x.shape, generator=generator, device=generator.device).to(sigma) for _ in range(n))
    if create_graph:
        with hooks.frozen(model, parameters=True), torch.enable_grad():
            z = x if x.requires_grad else x.detach().requires_grad_()
            logits = contract.logits_of(model, z)
            classes = _chosen(model, targets)(logits)
            total = torch.zeros_like(z)
            for noise in noises:
                total = total + _differentiate(model, z + noise, lambda _: classes, of, True)[0]
            return Explanation(total / n, logits)
    x = x.detach()
    with hooks.frozen(model):
        logits, classes = _clean(model, x, targets, batch_size)
        noisy = (x + noise for noise in noises)
        total = torch.zeros_like(x)
        for found in _passes(model, noisy, classes, of, _rows_of(x, batch_size)):
            total += found
    return Explanation(total / n, logits)


def _path(steps: int, rule: Rule) -> tuple[list[float], list[float]]:
    """Places in [0, 1] along the path, and their weights, which sum to one."""
    if steps < 1:
        raise ValueError(f"steps={steps}: the path needs one point at least")
    # deviation: midpoints unless asked otherwise; Sundararajan et al. sum right ends, whose error is larger for as many points.
    if rule == "midpoint":
        return [(i + 0.5) / steps for i in range(steps)], [1 / steps] * steps
    if rule == "right":
        return [(i + 1) / steps for i in range(steps)], [1 / steps] * steps
    if rule == "gausslegendre":
        places, weights = np.polynomial.legendre.leggauss(steps)
        return ((places + 1) / 2).tolist(), (weights / 2).tolist()
    raise ValueError(f"unknown rule {rule!r}; choose midpoint, right or gausslegendre")


def integrated_gradients(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    targets: Targets,
    *,
    baseline: float | Float[Tensor, "..."] = 0.0,
    steps: int = 50,
    rule: Rule = "midpoint",
    of: Of = "score",
    batch_size: int | None = None,
    create_graph: bool = False,
) -> Explanation:
    """Integrated gradients along the straight path from `baseline` (a value, or images that x broadcasts with) to `x`.

    The integral is a sum over `steps` points: midpoints (default), right ends (the original paper), or Gauss-Legendre.
    Completeness holds up to its error: `completeness_gap`. Cost and memory as SmoothGrad's with n = steps. With
    `create_graph` the values are differentiable with respect to the parameters and `x`; memory then grows with `steps`.

    Raises ValueError as `gradient` does, and for steps < 1, an unknown rule or a baseline of another shape.
    """
    x = _check(x, of)
    places, weights = _path(steps, rule)
    origin = _baseline(baseline, x)
    if create_graph:
        with hooks.frozen(model, parameters=True), torch.enable_grad():
            z = x if x.requires_grad else x.detach().requires_grad_()
            logits = contract.logits_of(model, z)
            classes = _chosen(model, targets)(logits)
            total = torch.zeros_like(z)
            for a, w in zip(places, weights, strict=True):
                total = total + w * _differentiate(model, origin + a * (z - origin), lambda _: classes, of, True)[0]
            return Explanation((z - origin) * total, logits)
    x = x.detach()
    with hooks.frozen(model):
        logits, classes = _clean(model, x, targets, batch_size)
        points = (origin + a * (x - origin) for a in places)
        total = torch.zeros_like(x)
        for w, found in zip(weights, _passes(model, points, classes, of, _rows_of(x, batch_size)), strict=True):
            total += w * found
    return Explanation((x - origin) * total, logits)


def _baseline(baseline: float | Tensor, x: Tensor) -> Tensor:
    origin = torch.as_tensor(baseline, dtype=x.dtype, device=x.device)
    try:
        origin = origin.expand_as(x) if origin.dim() else origin.expand(x.shape)
    except RuntimeError:
        raise ValueError(
            f"the baseline has shape {tuple(origin.shape)}, the images {tuple(x.shape)}; give one value, one image or one each"
        ) from None
    return checks.check_images(origin, "the baseline's images").detach()


@torch.no_grad()
def completeness_gap(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    targets: Targets,
    values: Float[Tensor, "n c h w"],
    *,
    baseline: float | Float[Tensor, "..."] = 0.0,
    of: Of = "score",
) -> Float[Tensor, " n"]:
    """sum of `values` - (F(x) - F(baseline)), (N,): how far integrated gradients are from complete."""
    x = _check(x, of)
    with hooks.frozen(model):
        logits, classes = _clean(model, x, targets)
        before = contract.logits_of(model, _baseline(baseline, x))
    return values.flatten(1).sum(1) - (_objective(logits, classes, of) - _objective(before, classes, of))
