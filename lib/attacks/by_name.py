"""Attacks under one interface: one table, so that a study and its menus choose by name.

`ATTACKS` is the table: an attack costs one function and one row. Names are what is typed and kept in tables. Every row is
called in the same way, `find("pgd")(model, x, y, eps=8 / 255, steps=10).x_adv`, and gives what its function gives: an
AttackResult, which says whether it succeeded where the attack looked at its own result. What an attack has no use for is not
handed to it.

Under an L2 radius eps, `fgsm-l2` is the sign step of that length, eps / sqrt(d) a pixel of d, and `noise-l2` a random
direction.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.attacks import projected, single_step, unforeseen
from lib.attacks.steps import AttackResult, Norm, ascent, check_input, weaknesses
from lib.data.checks import Labels
from lib.system.devices import wide
from lib.system.names import Table


@dataclass(frozen=True)
class Attack:
    """A row: how an attack is called, what computes it, and in which norm its radius is (none: in a measure of its own)."""

    name: str
    label: str
    function: Callable[..., Any]
    norm: Norm | None = "linf"

    @property
    def takes(self) -> tuple[str, ...]:
        """What the function has a use for, of what a call may give beside model, images and labels."""
        given = ("eps", "steps", "step", "targets", "generator")
        return tuple(name for name in given if name in inspect.signature(self.function).parameters)

    @property
    def steps(self) -> int:
        """How many it takes unless told otherwise."""
        return inspect.signature(self.function).parameters["steps"].default if "steps" in self.takes else 1

    def __call__(
        self,
        model: nn.Module,
        x: Float[Tensor, "n c h w"],
        y: Labels,
        *,
        eps: float,
        steps: int | None = None,
        step: float | None = None,
        targets: Labels | None = None,
        generator: torch.Generator | None = None,
    ) -> Any:
        """The function's own result, with `x_adv` (N, C, H, W): away from the classes y, or towards `targets`, (N,) both.

        `eps` is the radius; `steps` and their length `step` matter where there are several. Unless given they are the
        function's own: 20 steps of PGD, and of the attacks of Kang et al. their 200, which do not grow when they are fewer.
        Randomness comes from `generator` alone, or from a fresh one seeded with 0. Raises what the function raises.
        """
        given = {"eps": eps, "steps": steps, "step": step, "targets": targets, "generator": generator}
        return self.function(model, x, y, **{k: v for k, v in given.items() if k in self.takes and v is not None})


def _only(x_adv: Tensor, warnings: tuple[str, ...] = ()) -> AttackResult:
    """Images that nobody has looked at."""
    return AttackResult(x_adv.detach(), None, None, None, warnings=warnings)


def _none(model: nn.Module, x: Tensor, y: Tensor) -> AttackResult:
    return _only(x)


def _noise(
    model: nn.Module, x: Tensor, y: Labels, *, eps: float, generator: torch.Generator | None = None, norm: Norm = "linf"
) -> AttackResult:
    """Noise of the size of an attack: random signs, or a random direction of that length."""
    x, _ = check_input(x, y, eps, norm)
    generator = generator or torch.Generator().manual_seed(0)
    if norm == "linf":
        return _only(single_step.step_along(x, single_step.random_sign(x, generator), eps))
    draw = torch.randn(x.shape, generator=generator, device=generator.device).to(wide(x))
    return _only((wide(x) + eps * ascent(draw, "l2")).clamp(0, 1).to(x))


def _fgsm(
    model: nn.Module, x: Tensor, y: Labels, *, eps: float, targets: Labels | None = None, norm: Norm = "linf"
) -> AttackResult:
    x, y = check_input(x, y, eps, norm)
    direction, logits = single_step.fgsm_direction(model, x, y if targets is None else targets)
    length = eps if norm == "linf" else eps / x[0].numel() ** 0.5
    x_adv = single_step.step_along(x, direction if targets is None else -direction, length)
    return _only(x_adv, weaknesses(direction, logits))


def _pgd(
    model: nn.Module,
    x: Tensor,
    y: Labels,
    *,
    eps: float,
    steps: int = 20,
    step: float | None = None,
    targets: Labels | None = None,
    generator: torch.Generator | None = None,
    norm: Norm = "linf",
) -> AttackResult:
    goal, targeted = (y, False) if targets is None else (targets, True)
    return projected.pgd(
        model, x, goal, eps=eps, steps=steps, step=step, norm=norm, targeted=targeted, judge=False, generator=generator
    )


ATTACKS = Table(
    "attack",
    (
        Attack("none", "none", _none),
        Attack("noise", "random signs", _noise),
        Attack("fgsm", "FGSM", _fgsm),
        Attack("pgd", "PGD", _pgd),
        Attack("noise-l2", "random direction", functools.partial(_noise, norm="l2"), "l2"),
        Attack("fgsm-l2", "FGSM", functools.partial(_fgsm, norm="l2"), "l2"),
        Attack("pgd-l2", "PGD (L2)", functools.partial(_pgd, norm="l2"), "l2"),
        Attack("gabor", "Gabor", unforeseen.gabor, None),
        Attack("snow", "snow", unforeseen.snow, None),
        Attack("jpeg-linf", "JPEG L∞", functools.partial(unforeseen.jpeg_attack, norm="linf"), None),
        Attack("jpeg-l2", "JPEG L2", functools.partial(unforeseen.jpeg_attack, norm="l2"), None),
        Attack("jpeg-l1", "JPEG L1", functools.partial(unforeseen.jpeg_attack, norm="l1"), None),
    ),
)
find = ATTACKS.find
