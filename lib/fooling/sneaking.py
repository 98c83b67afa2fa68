r"""The attack that hides (Boopathy et al. 2020, arXiv:2006.14748): fool the decision, and move the map as little as can be.

.. math:: \min_{\lVert x' - x \rVert_\infty \le \epsilon} D(x, x') \quad \text{where} \quad \arg\max f(x') = y'

D is the discrepancy of one class (the label's map) or of two (that of y' as well), as in `discrepancy`. Under two classes
Proposition 1 bounds it from below by :math:`\frac12 (f_y(x) - f_{y'}(x))`, whatever the attack; one class has no bound.

It begins with the images of PGD, of which those that are fooled count, y' being what each is taken for. From there it goes down
D by sign steps that shrink, and up the margin of y' where that has become thinner than the share `slack` of the clean margin;
what counts is the iterate with the smallest D that is taken for y'.
"""

import contextlib
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lib.attacks.losses import margin
from lib.attacks.projected import pgd
from lib.attacks.steps import check_input, check_result, per_row, project
from lib.data import checks
from lib.data.checks import Labels
from lib.fooling import discrepancy
from lib.fooling.discrepancy import Interpreter
from lib.networks import contract, hooks, rectifiers
from lib.system.devices import wide

Classes = Literal["one", "two"]
DISTANCES = {"one": discrepancy.one_class, "two": discrepancy.two_class}


@dataclass(frozen=True)
class Sneaked:
    """x_adv (N, C, H, W), PGD's image where none that hides was found; fooled (N,): whether PGD fooled the network, so that
    there is something to hide; target (N,), the class y' that both are taken for. first and hidden (N,): D of PGD's image and
    of x_adv; bound (N,): that of Proposition 1, of two classes."""

    x_adv: Float[Tensor, "n c h w"]
    fooled: Bool[Tensor, " n"]
    target: Int[Tensor, " n"]
    first: Float[Tensor, " n"]
    hidden: Float[Tensor, " n"]
    bound: Float[Tensor, " n"]


def sneak(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Labels,
    *,
    eps: float,
    classes: Classes = "two",
    interpreter: Interpreter = discrepancy.cam,
    steps: int = 60,
    slack: float = 0.02,
    beta: float | None = None,
    generator: torch.Generator | None = None,
) -> Sneaked:
    """Hide an attack from an interpreter; see the module's docstring.

    `beta`: go down the discrepancy of the smooth twin (`lib.networks.rectifiers`), and judge on the network; for maps made of
    gradients, whose own derivative a ReLU network does not have. Cost: PGD's `steps` passes, and as many of the interpreter
    with its backward pass (with `beta` one more without). Raises ValueError for bad input, and as the interpreter does.
    """
    x, y = check_input(x, y, eps)
    if classes not in DISTANCES:
        raise ValueError(f"classes={classes!r}; choose one (the label's map) or two (that of the other class too)")
    if steps < 1 or not 0 <= slack < 1:
        raise ValueError(f"steps={steps}, slack={slack}: a step at least, a share of the clean margin below 1")
    distance = DISTANCES[classes]
    found = pgd(model, x, y, eps=eps, steps=steps, generator=generator)
    x, dtype = wide(x), x.dtype

    def decided(z: Tensor) -> Tensor:
        return contract.two_logits(contract.logits_of(model, z.to(dtype))).to(z)

    def explained(z: Tensor, asked: Tensor) -> Tensor:
        return interpreter(model, z.to(dtype), asked).values.to(z)

    with hooks.frozen(model):
        with torch.no_grad():
            clean = decided(x)
        checks.check_labels(y, clean.shape[1], len(x))
        target = contract.two_logits(found.logits).argmax(1)
        asked = torch.stack([y, target] if classes == "two" else [y], 1)
        room = margin(clean, y).abs().clamp_min(torch.finfo(x.dtype).tiny ** 0.5)
        with torch.no_grad():
            before = explained(x, asked)
            first = distance(before, explained(wide(found.x_adv), asked))
        fooled = (clean.argmax(1) == y) & (target != y)
        best = z = wide(found.x_adv)
        hidden = first.clone()
        for i in range(steps + 1):
            z = z.detach().requires_grad_()
            with torch.enable_grad():
                logits = decided(z)
                over = -margin(logits, target) / room
                with contextlib.nullcontext() if beta is None else rectifiers.smoothed(model, beta):
                    d = distance(before, explained(z, asked))
                safe = over.detach() > slack
                (gradient,) = torch.autograd.grad(torch.where(safe, -d, over).sum(), [z])
            own = d.detach()
            if beta is not None:
                with torch.no_grad():
                    own = distance(before, explained(z, asked))
            better = (logits.detach().argmax(1) == target) & (own < hidden)
            best = torch.where(per_row(better, x), z.detach(), best)
            hidden = torch.where(better, own, hidden)
            length = 0.5 * eps * (1 - i / steps)
            z = (x + project(z.detach() + length * gradient.sign() - x, eps, "linf")).clamp(0, 1)
    best = best.to(dtype)
    check_result(x, best, eps, "linf")
    bound = (clean.gather(1, y[:, None]) - clean.gather(1, target[:, None]))[:, 0] / 2
    return Sneaked(best, fooled, target, first, hidden, bound)
