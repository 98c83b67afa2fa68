"""The passes of a training are those that its networks make: counted by hooks in whole epochs of real steps."""

import pytest
import torch
from torch import nn

from lib.networks import models
from lib.studies.saliency_adversarial_training import maps, objective, passes, plan
from lib.studies.saliency_adversarial_training.passes import Passes
from lib.studies.saliency_adversarial_training.plan import Parameters
from lib.training import objectives

P = Parameters(epochs=3, steps=2, smooth_n=3, ig_steps=4, batch_size=2, mix_maps="std-smoothgrad")
SIDES = [next(s for s in range(20) if objective.coin(torch.Generator().manual_seed(s)) == heads) for heads in (True, False)]


class Counter:
    """Images that go through a network, forward and backward."""

    def __init__(self, model: nn.Module) -> None:
        self.forward = self.backward = 0
        model.register_forward_hook(self._seen)

    def _seen(self, _: nn.Module, given: tuple[torch.Tensor, ...], logits: torch.Tensor) -> None:
        self.forward += len(given[0])
        if logits.requires_grad:
            logits.register_hook(self._returned)

    def _returned(self, gradient: torch.Tensor) -> None:
        self.backward += len(gradient)


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ("original", (1, 1)),
        ("uniform", (1, 1)),
        ("sign", (1, 1)),
        ("sat-masks", (1, 1)),
        ("sat-std-gradient", (1 + 1 / 3, 1 + 1 / 3)),
        ("sat-std-smoothgrad", (1 + 4 / 3, 1 + 3 / 3)),
        ("sat-adv-ig", (1 + 5 / 3, 1 + 4 / 3)),
        ("sat-std-guided", (1 + 1 / 3, 1 + 1 / 3)),
        ("sat-std-guided-gradcam++", (1 + 2 / 3, 1 + 2 / 3)),
        ("sat-std-ig@released", (1 + 5 / 3, 1 + 4 / 3)),
        ("sat-std-gradient@predicted", (1 + 1 / 3, 1 + 1 / 3)),
        ("sat-std-smoothgrad@fresh", (1 + 4 * 2 / 3, 1 + 3 * 2 / 3)),  # the first epoch asks no map
        ("pgd", (3, 3)),
        ("pgd+uniform", (2, 2)),
        ("pgd+sat", (2 + 4 / 3, 2 + 3 / 3)),
        ("pgd+sat@fresh", (2 + 4 / 3, 2 + 3 / 3)),  # half of the batches in two epochs of three
        ("trades-6", (5, 4)),
        ("trades-1+sign", (3.5, 3)),
    ],
)
def test_a_training_takes_the_passes_that_are_counted(arm, expected):
    """Epochs of two batches, one of either side of the coin; as `lib.training.loop` has it, kept maps are made once."""
    config = plan.config_of(P, arm, 0)
    student, teacher = models.create("plain", classes=4), models.create("plain", classes=4, seed=1).eval()
    seen = [Counter(student), Counter(teacher)]
    x, y = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3])
    kept = None
    if config.maps is not None:
        kind = config.maps_options["kind"]
        kept = torch.ones_like(x) if kind == "masks" else maps.directions(teacher, x, y, **config.maps_options)
    loss_of = objectives.objective(config.objective)
    for epoch in range(P.epochs):
        for part, side in zip((slice(0, 2), slice(2, 4)), SIDES, strict=True):
            generator = torch.Generator().manual_seed(side)
            moment = objectives.Moment(epoch, 0, 2, 0.0, generator, P.epochs, None if kept is None else kept[part], teacher)
            loss_of(student, x[part], y[part], moment, **config.options).mean().backward()
    images = len(x) * P.epochs
    counted = Passes(*(sum(getattr(c, way) for c in seen) / images for way in ("forward", "backward")))
    found = passes.of(config)
    assert (found.forward, found.backward) == pytest.approx((counted.forward, counted.backward))
    assert (found.forward, found.backward) == pytest.approx(expected) and found.total == pytest.approx(sum(expected))


def test_random_signs_ask_no_map_to_the_end():
    assert passes.asked(5, 1.0) == 0 and passes.asked(5, 0.6) == 0.8 and passes.asked(4, 1e-300) == 0.75


def test_what_is_not_said_is_the_functions_default():
    assert passes.a_map(kind="smoothgrad") == Passes(11, 10) and passes.a_map(kind="ig") == Passes(101, 100)
    assert passes.a_map(kind="boxes") == Passes() and 2 * Passes(1, 0.5) + Passes(1, 1) == Passes(3, 2)
