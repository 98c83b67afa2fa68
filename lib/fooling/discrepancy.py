r"""How far an explanation moves between an image x and its attacked copy x', as losses (Boopathy et al., ICML 2020).

An interpreter gives a map :math:`I(x, c)` for each class c. Both here are complete, that is, the values of a map add up to
the logit :math:`f_c(x)` but for something that does not depend on x (a bias, the logit of a baseline):

* CAM, :math:`I(x, c)_i = \frac1u \sum_k W_{kc} A_{ki}(x)` over the u positions of the last feature maps A, of a network that
  ends in average pooling and one linear layer W;
* integrated gradients of the logit (`lib.explanations.gradients`).

Discrepancies are per sample, (N,), in units of logits, and differentiable in the parameters and both images:

* one class: :math:`D_1 = \lVert I(x, y) - I(x', y) \rVert_1`;
* two classes: :math:`D_2 = \frac12 (\lVert I(x, y) - I(x', y) \rVert_1 + \lVert I(x, y') - I(x', y') \rVert_1)`;
* all classes, the training loss: :math:`\tilde D = \frac12 (\lVert \Delta_y \rVert_1 + \sum_{c \ne y} p_c \lVert \Delta_c
  \rVert_1)`, p the softmax of f(x') over the classes other than y. Gradients flow through p.

Proposition 1: where the attack succeeds, :math:`f_{y'}(x') \ge f_y(x')`, completeness alone gives
:math:`D_2 \ge \frac12 (f_y(x) - f_{y'}(x))`: what fools the network must move an explanation.

The authors' code leaves out the 1/u of CAM and both halves, and weighs the rest by gamma = .01. On the maps here, the same
weight of D~ is 2 u gamma.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lib.data import checks
from lib.data.checks import Labels
from lib.explanations import activation_maps, by_name
from lib.explanations.by_name import Settings
from lib.explanations.explanation import Explanation
from lib.networks import contract, hooks
from lib.system import devices

# (model, x, classes (N, K)) -> Explanation
Interpreter = Callable[[nn.Module, Float[Tensor, "n c h w"], Int[Tensor, "n k"]], Explanation]


def _rows(classes: Tensor, n: int) -> Tensor:
    if classes.dim() != 2 or classes.shape[0] != n or classes.is_floating_point():
        raise ValueError(f"classes have shape {tuple(classes.shape)}; expected ({n}, K) integers, K classes an image")
    return classes


def cam(model: nn.Module, x: Float[Tensor, "n c h w"], classes: Int[Tensor, "n k"]) -> Explanation:
    """CAM of K classes an image, (N, K, h, w), scaled by 1/u; see `activation_maps.all_cams`."""
    maps, logits = activation_maps.all_cams(model, x)
    chosen = _rows(classes, len(x))[:, :, None, None].expand(-1, -1, *maps.shape[2:])
    return Explanation(maps.gather(1, chosen), logits)


def integrated(model: nn.Module, x: Float[Tensor, "n c h w"], classes: Int[Tensor, "n k"], *, steps: int = 20) -> Explanation:
    """Integrated gradients from black of K logits an image, (N, K, C, H, W), differentiable where grad mode is on.

    The authors average 100 right ends of a softplus network; here it is the network itself, `steps` midpoints.
    """
    # deviation: the network itself and midpoints; the code of Boopathy et al. takes 100 right ends of a copy with softplus for
    # ReLU.
    settings = Settings(steps=steps)
    return by_name.raw("ig", model, x, _rows(classes, len(x)), settings, create_graph=torch.is_grad_enabled())


def l1(a: Float[Tensor, "n k *s"], b: Float[Tensor, "n k *s"]) -> Float[Tensor, "n k"]:
    """Sum of absolute differences of maps (N, K, ...), (N, K)."""
    return (a - b).flatten(2).abs().sum(2)


def one_class(a: Float[Tensor, "n 1 *s"], b: Float[Tensor, "n 1 *s"]) -> Float[Tensor, " n"]:
    """D1 of maps of the true class, (N, 1, ...) each."""
    return l1(a, b)[:, 0]


def two_class(a: Float[Tensor, "n 2 *s"], b: Float[Tensor, "n 2 *s"]) -> Float[Tensor, " n"]:
    """D2 of maps of two classes, (N, 2, ...) each: the true one and the one that the attack is after."""
    if a.shape[1] != 2:
        raise ValueError(f"maps have shape {tuple(a.shape)}; D2 takes two classes an image, (N, 2, ...)")
    return 0.5 * l1(a, b).sum(1)


def other_weights(logits: Float[Tensor, "n classes"], y: Int[Tensor, " n"]) -> Float[Tensor, "n classes"]:
    """Softmax over the classes other than y, (N, classes): zero at y, a sum of one. Raises ValueError for one class."""
    if logits.shape[1] < 2:
        raise ValueError("there is one class; a discrepancy over other classes needs two at least")
    # deviation: the softmax is over the classes other than y, as in the authors' code; the print does not show over which it
    # runs.
    return logits.scatter(1, y[:, None], -torch.inf).softmax(1)


def all_class(
    a: Float[Tensor, "n classes *s"], b: Float[Tensor, "n classes *s"], y: Int[Tensor, " n"], logits: Float[Tensor, "n classes"]
) -> Float[Tensor, " n"]:
    """D~ of the maps of all classes, (N, classes, ...) each; `logits` (N, classes) are those of the attacked image."""
    distance = l1(a, b)
    own = distance.gather(1, y[:, None])[:, 0]
    return 0.5 * (own + (other_weights(logits, y) * distance).sum(1))


class Bound(NamedTuple):
    """Proposition 1, by image: D2, the bound (f_y(x) - f_y'(x)) / 2, and where it applies (the attack succeeded), (N,)."""

    discrepancy: Float[Tensor, " n"]
    bound: Float[Tensor, " n"]
    applies: Bool[Tensor, " n"]


@torch.no_grad()
def proposition(
    model: nn.Module, x: Float[Tensor, "n c h w"], x_adv: Float[Tensor, "n c h w"], y: Labels, interpreter: Interpreter = cam
) -> Bound:
    """Both sides of Proposition 1, for the strongest wrong class of each attacked image; large images some at a time."""
    x, x_adv = checks.check_images(x), checks.check_images(x_adv, "attacked images")
    y = checks.as_labels(y, x)
    rows = devices.images_at_once(max(x.shape[2:]), len(x), graph=False)
    parts = zip(x.split(rows), x_adv.split(rows), y.split(rows), strict=True)
    found = [_proposition(model, *part, interpreter) for part in parts]
    return Bound(*(torch.cat(values) for values in zip(*found, strict=True)))


def _proposition(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, interpreter: Interpreter) -> Bound:
    with hooks.frozen(model):
        attacked = contract.logits_of(model, x_adv)
        checks.check_labels(y, attacked.shape[1], len(x))
        wrong = attacked.scatter(1, y[:, None], -torch.inf).argmax(1)
        classes = torch.stack([y, wrong], 1)
        before, after = interpreter(model, x, classes), interpreter(model, x_adv, classes)
    f = before.logits.gather(1, classes)
    reached = attacked.gather(1, classes)
    return Bound(two_class(before.values, after.values), (f[:, 0] - f[:, 1]) / 2, reached[:, 1] >= reached[:, 0])
