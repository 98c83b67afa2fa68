"""Signs that an attack is weaker than it looks: the five that AutoAttack knows, and two probes for masked gradients.

AutoAttack (Croce and Hein 2020, arXiv:2003.01690, and its released checks) warns of networks that answer at random, that give
probabilities, whose gradients are zero, that optimise while they answer, and where Square, which needs no gradient, fools what
white-box attacks left. The second and third are `steps.weaknesses`. Here are the others, and one more: an attack in a larger
ball, whose images are projected back, that fools what the attack in the ball itself left. All of them are reasons to distrust a
robust accuracy, none a proof that it is right.
"""

import sys
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lib.attacks import projected, square
from lib.attacks.losses import cross_entropy, margin
from lib.attacks.pool import Subject, keyed_start
from lib.attacks.steps import default_step, fooled, logits_of
from lib.system.devices import wide

WIDER = 2.0  # radius of the larger ball, of the radius that is judged
BACK = 40  # steps in either ball
QUERIES = 500  # of the cheap black-box probe
WIDE_RUN = 8190  # the number of its run among the keyed starts, apart from those of other attacks


class Doubt(NamedTuple):
    """A reason to distrust a robust accuracy: whose (an attack's name), at which radius (0: at all), and what it is."""

    attack: str
    eps: float
    text: str


def randomised(first: Float[Tensor, "n classes"], second: Float[Tensor, "n classes"]) -> tuple[str, ...]:
    """Whether two passes over the same images differ by more than rounding."""
    if torch.allclose(first, second, rtol=1e-3, atol=1e-4):
        return ()
    return ("the model is randomised: two passes over the same images differ; attack its expectation (EOT)",)


def optimising(model: nn.Module, x: Float[Tensor, "n c h w"]) -> tuple[str, ...]:
    """Whether the model differentiates while it answers (a dynamic defence), by one pass over x.

    Python calls of `torch.autograd.grad` and `backward` are seen by the interpreter's profiling hook, which is put back.
    What a compiled model does inside one call is not seen.
    """
    asked: set[CodeType] = {torch.autograd.grad.__code__, torch.autograd.backward.__code__}
    seen = False

    def hook(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal seen
        seen = seen or (event == "call" and frame.f_code in asked)

    before = sys.getprofile()
    sys.setprofile(hook)
    try:
        with torch.no_grad():
            logits_of(model, x)
    finally:
        # below Python 3.12 `cProfile` shows as an object here, which goes on by its own method
        sys.setprofile(before) if before is None or callable(before) else before.enable()
    if not seen:
        return ()
    return (
        "the model computes gradients while it answers (optimisation at inference time): attacks on its answer may be far too "
        "weak; attack it adaptively, through that optimisation, or attack the model without it by transfer",
    )


def fewer_than_white_box(found: int, left: int, how: str) -> tuple[str, ...]:
    """What is said where a probe fooled `found` of the `left` images that the white-box attacks left."""
    if not found:
        return ()
    return (
        f"masked gradients: {how} fools {found} of {left} images that the white-box attack left; robust accuracy is lower than "
        "it says: use the ensemble, more steps, restarts and a transfer attack",
    )


def from_wider(subject: Subject, rows: Int[Tensor, " k"], eps: float, seed: int, steps: int = BACK) -> Tensor:
    """Which rows PGD in a ball WIDER times as large fools once its images are projected back, (k,) bool.

    `steps` of PGD on the cross-entropy in the larger ball, then as many on the margin in the ball of radius eps, from where the
    projection leads. For use inside `hooks.frozen`. Gradients that vanish at the image may be whole farther away.
    """
    broken = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    largest = 1.0 if subject.norm == "linf" else subject.x[0].numel() ** 0.5
    for part in torch.arange(len(rows), device=rows.device).split(subject.batch_size):
        x, y = subject.x[rows[part]], subject.y[rows[part]]
        wider = min(WIDER * eps, largest)
        noise = keyed_start(seed, WIDE_RUN, subject.norm)(rows[part], wide(subject.x), wider)
        far = projected.ascend(
            lambda z, y=y: cross_entropy(logits_of(subject.model, z), y),
            x,
            eps=wider,
            steps=steps,
            step=default_step(wider, steps),
            norm=subject.norm,
            start=noise,
        )
        near = projected.ascend(
            lambda z, y=y: margin(logits_of(subject.model, z), y),
            x,
            eps=eps,
            steps=steps,
            step=default_step(eps, steps),
            norm=subject.norm,
            start=wide(far) - wide(x),
        )
        with torch.no_grad():
            broken[part] = fooled(subject.logits(near), y)
    return broken


def probed(subject: Subject, rows: Int[Tensor, " k"], eps: float, seed: int, attack: str) -> tuple[Doubt, ...]:
    """Doubts about an attack that left `rows`, at radius eps: by a short Square and from a larger ball."""
    if not len(rows):
        return ()
    texts = fewer_than_white_box(
        int(from_wider(subject, rows, eps, seed).sum()), len(rows), f"PGD from a ball {WIDER:g} times as large, projected back,"
    )
    run = square.search(subject, rows, eps, QUERIES, seed)
    texts += fewer_than_white_box(int(run.broken.sum()), len(rows), f"Square with {QUERIES} queries, which sees no gradient,")
    return tuple(Doubt(attack, eps, text) for text in texts)
