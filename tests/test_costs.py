"""What a training takes in forward passes, against what is known of it."""

import pandas as pd
import pytest

from lib.runs import graph
from lib.training.config import TrainConfig
from tests import costs

PLAIN = TrainConfig(dataset="digits", size=16, channels=1, limit=128, arch="plain", epochs=2, batch_size=32)


def attacked(**options) -> TrainConfig:
    return PLAIN.model_copy(update={"objective": "adversarial", "options": {"eps": 0.1, "steps": 3, **options}})


def test_a_standard_step_is_three_passes_an_image_less_the_first_layers_share():
    found = costs.of(PLAIN)
    assert found.steps == 8 and 2.8 < found.forward_passes / (2 * 128) < 3
    assert costs.of(PLAIN.model_copy(update={"stop": 3})).steps == 3


def test_each_step_of_an_attack_is_a_forward_and_a_backward_pass(monkeypatch):
    standard, whole, half = (costs.of(c).forward_passes / (2 * 128) for c in (PLAIN, attacked(), attacked(share=0.5)))
    assert whole - standard == pytest.approx(3 * 2, rel=1e-3)
    assert half == pytest.approx((standard + whole) / 2)
    monkeypatch.setattr(costs, "MANY", 1)  # one pair of neighbours is enough to know it
    assert costs.of(attacked(share=0.5)).forward_passes / (2 * 128) == pytest.approx(half)


def test_maps_of_a_teacher_are_counted_once():
    """A gradient is a forward and a backward pass of each image, however many epochs there are."""
    networks = graph.networks("05-saliency-adversarial-training", "smoke")
    short = next(c for c in networks if c.maps_options.get("kind") == "gradient")
    long = short.model_copy(update={"epochs": 2 * short.epochs})
    once = 2 * costs.of(short).forward_passes - costs.of(long).forward_passes
    assert once / short.limit == pytest.approx(2, rel=0.01)


def test_a_run_is_the_sum_of_its_trainings(home, monkeypatch, capsys):
    one, again = PLAIN, PLAIN.model_copy(update={"seed": 1})
    monkeypatch.setattr(costs.graph, "networks", lambda *_: [one, again, one.model_copy(update={"epochs": 0})])
    monkeypatch.setattr(costs.profiles, "declared_runs", lambda _: ["01-attention-shift"])
    monkeypatch.setattr(costs, "FILE", home / "costs.csv")
    assert costs.main(["laptop"]) == 0 and costs.main(["smoke"]) == 0
    assert capsys.readouterr().err.count("digits/plain seed 0, 2 times: ") == 2  # networks that differ in their seed, once
    rows = pd.read_csv(home / "costs.csv")
    assert rows.profile.to_list() == ["smoke", "laptop"] and rows.trainings.to_list() == [2, 2]
    assert rows["million forward passes"][0] == pytest.approx(2 * costs.of(one).forward_passes / 1e6, rel=5e-3)
    assert costs.main(["desktop"]) == 2 and "name profiles" in capsys.readouterr().err
