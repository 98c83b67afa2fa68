r"""What training costs in passes through a network: counted, so that it is the same on every machine.

A pass is of one image. A forward and a backward pass count one each, the latter however far down it goes (to the weights in a
step of training, to the pixels in an attack or a map, to a layer in Grad-CAM++); passes of the student and of the teacher count
alike, and the teacher's own training is not counted. What an image costs in an epoch, the mean over a run:

=====================  ====================================  =====================================================
part                   forward + backward                    when
=====================  ====================================  =====================================================
step                   1 + 1; TRADES: 2 + 2                  always; TRADES passes an image and its attacked copy
PGD                    steps + steps                         in half of the batches of a mix, else in all
TRADES' inner loop     (steps + 1) + steps                   likewise; one forward pass more for the clean logits
a teacher's map        1 + 1; Grad-CAM++ guided: 2 + 2;      once a run; as released, in every batch that asks one:
                       SmoothGrad and integrated             those of the mix, but not in epochs of random signs
                       gradients: (n + 1) + n                alone
=====================  ====================================  =====================================================

Masks, boxes and noise cost nothing. Images that no whole batch takes are left out of an epoch (`lib.training.loop`), but have
their maps too: where batches leave some, maps cost less than one part in the number of batches more than is counted here.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from lib.claims.claim import Rule
from lib.studies.saliency_adversarial_training import maps as maps_
from lib.studies.saliency_adversarial_training import objective
from lib.studies.saliency_adversarial_training.plan import Parameters, label, parsed
from lib.training.config import TrainConfig


@dataclass(frozen=True)
class Passes:
    """Forward and backward passes, an image."""

    forward: float = 0.0
    backward: float = 0.0

    def __add__(self, other: "Passes") -> "Passes":
        return Passes(self.forward + other.forward, self.backward + other.backward)

    def __rmul__(self, times: float) -> "Passes":
        return Passes(times * self.forward, times * self.backward)

    @property
    def total(self) -> float:
        """Both kinds together."""
        return self.forward + self.backward


EPOCHS = 100  # the paper's
STEP = {"plain": Passes(1, 1), "pgd": Passes(1, 1), "trades": Passes(2, 2)}


def _given(function: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Options with a function's own defaults where they are silent."""
    return {k: v.default for k, v in inspect.signature(function).parameters.items()} | options


def attack(base: str, steps: int) -> Passes:
    """Of a base's attack on the student."""
    return {"plain": Passes(), "pgd": Passes(steps, steps), "trades": Passes(steps + 1, steps)}[base]


def a_map(**options: Any) -> Passes:
    """Of one map, by the options of `maps.maps`."""
    given = _given(maps_.maps, options)
    many = {"smoothgrad": given["n"], "ig": given["ig_steps"]}.get(given["kind"])
    if many:
        return Passes(many + 1, many)  # one more forward pass for the logits as they are
    return {"masks": Passes(), "boxes": Passes(), "guided-gradcam++": Passes(2, 2)}.get(given["kind"], Passes(1, 1))


def asked(epochs: int, alpha10: float) -> float:
    """The share of epochs in which the perturbation needs a map: the others have random signs alone."""
    return sum(objective.share_random(e, epochs, alpha10) < 1 for e in range(epochs)) / epochs


def of(config: TrainConfig) -> Passes:
    """Of a training, an image in an epoch: its steps, its attacks and its maps; see the module's docstring."""
    if config.objective == "standard":
        return STEP["plain"]
    given = _given(objective.train, config.options)
    base, mix, fresh = given["base"], given["mix"], given["fresh"]
    mixed = 0.0 if mix == "none" else 1.0 if base == "plain" else 0.5  # the share of batches, by the objective's coin
    found = STEP[base] + (1 - mixed) * attack(base, given["steps"])
    if mix == "sat" and fresh is not None:
        found += mixed * asked(config.epochs, given["alpha10"]) * a_map(**fresh)
    if config.maps is not None:
        found += 1 / config.epochs * a_map(**config.maps_options)
    return found


class Compared(NamedTuple):
    """Two arms whose passes a claim compares, over so many epochs."""

    id: str
    statement: str
    arm: str
    against: str
    epochs: int
    rule: Rule
    note: str


def compared(p: Parameters, arms: list[str]) -> list[Compared]:
    """What is said of the cost of `arms`, which train with maps alone, in this run and in one of the paper's length; of maps of
    every batch anew; and of maps in half of the batches that attacks had."""
    quarter, teaching = Rule("below", 1.25), "without the teacher's own training; the 1.25 is ours"
    once = f"maps are made once a run of {p.epochs} epochs and moved with the images; {teaching}"
    found = []
    for arm in arms:
        cheap = f"{label(arm)} adds less than a quarter to the passes of training"
        found.append(Compared(f"cheap/{arm}", cheap, arm, "original", p.epochs, quarter, once))
        if p.epochs != EPOCHS and parsed(arm).teacher:
            long = f"Over the paper's {EPOCHS} epochs {cheap}"
            found.append(Compared(f"cheap-{EPOCHS}/{arm}", long, arm, "original", EPOCHS, quarter, teaching))
        anew = f"{cheap}, with maps of every batch anew as released"
        found.append(Compared(f"fresh/{arm}", anew, f"{arm}@fresh", "original", p.epochs, quarter, teaching))
    for base in ("pgd", "trades-1"):
        fewer = f"{label(f'{base}+sat')} trains in fewer passes than {label(base)}"
        found.append(Compared(f"faster/{base}", fewer, f"{base}+sat", base, p.epochs, Rule("below", 1.0), ""))
    return found
