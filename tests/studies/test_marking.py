"""What maps mark: signs by hand on a network that reads one corner, the table, and the networks that each study names."""

import inspect
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lib.claims import intervals, measures
from lib.claims.rows import rows
from lib.networks.classifier import Classifier
from lib.runs import profiles, shown
from lib.sanity import removal
from lib.studies import marking, parameters

STUDIES = [name for name in profiles.declared_runs("laptop") if hasattr(profiles.part(name, "plan"), "marked")]


class Corner(nn.Module):
    """Class 1 for a bright upper left quarter; a convolution, so that maps at a layer are defined."""

    def __init__(self):
        super().__init__()
        self.stage, self.relu, self.flat, self.last = nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
        corner = torch.zeros(8, 8)
        corner[:4, :4] = 20 / 16
        with torch.no_grad():
            self.stage.weight.fill_(1)
            self.last.weight.copy_(torch.stack([torch.zeros(64), corner.flatten()]))
            self.last.bias.copy_(torch.tensor([0.0, -13.0]))

    def forward(self, x):
        return self.last(self.flat(self.relu(self.stage(x))))


@pytest.fixture
def corner():
    return Classifier(Corner(), stages=("stage",), classes=2, mean=(0.0,), std=(1.0,)).eval()


@pytest.fixture
def images():
    """Bright in the upper left quarter alone."""
    x = 0.1 * torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x[:, :, :4, :4] = 0.9
    return x


def test_a_map_of_what_is_read_is_above_zero_and_one_of_the_rest_below(corner, images):
    y = torch.ones(6, dtype=torch.long)
    right = torch.zeros(6, 8, 8)
    right[:, :4, :4] = 1
    for maps, sign in ((right, 1), (1 - right, -1)):
        for part in marking.rows_of(corner, images, y, maps, "a", 0, "gradcam"):
            assert (sign * part.value > 0.1).all()
    # all of the quarter goes first: right at 0 of the shares .0, .1, .2 and then nothing is left of it
    found = removal.deletion(corner, images, y, right)
    assert (found.probability[0, :, 3:] < 0.5).all() and (found.probability[0, :, 0] > 0.9).all()


def test_every_explanation_that_a_network_has_is_asked(corner, images):
    found = marking.measure(corner, images, parameters.Arm("a", "plain", []), 3, 10)
    assert set(found.measure) == {f"{m}/{what}" for m in marking.EXPLAINED for what in ("deletion", "insertion")}
    assert set(found.seed) == {3} and set(found.arm) == {"a"} and (found.groupby("measure").image_id.nunique() == 6).all()
    by = found.groupby("measure").value.mean()
    assert all(by[f"{m}/{what}"] > 0.1 for m in ("gradcam", "gradxinput", "ig", "lrp") for what in ("deletion", "insertion"))
    capped = marking.measure(corner, images, parameters.Arm("a", "efficientnet-lite0", []), 0, 10)
    assert set(found.measure) - set(capped.measure) == {"guided/deletion", "guided/insertion"}


def test_batches_change_nothing_and_the_network_is_left_as_it_was(corner, images, monkeypatch):
    whole = marking.measure(corner.train(), images, parameters.Arm("a", "plain", []), 0, 10)
    assert corner.training and all(p.requires_grad and p.grad is None for p in corner.parameters())
    monkeypatch.setattr(marking.devices, "images_at_once", lambda *_, **__: 2)
    split = marking.measure(corner, images, parameters.Arm("a", "plain", []), 0, 10)
    exact = ~whole.measure.str.startswith("smoothgrad")  # whose noise is drawn batch by batch
    assert np.allclose(whole.value[exact], split.value[exact], atol=1e-6, equal_nan=True)


def test_the_table_shows_means_with_their_intervals_and_no_number_where_there_is_none():
    values = {("one", 0): [0.1, 0.3], ("one", 1): [0.2, 0.2], ("two", 0): [math.nan, math.nan]}
    found = pd.concat([rows(arm, seed, "gradcam/deletion", 0, torch.tensor(v)) for (arm, seed), v in values.items()])
    table = shown.marks(found)
    of = measures.measure("share", difference=True)
    own = intervals.parts(
        intervals.over(np.array([values["one", 0], values["one", 1]], np.float32)), images=2, seeds=2, of=of
    ).interval()
    assert table.loc[("taken away", "one", "2 runs"), "Grad-CAM"] == f"0.20 ± {intervals.side(own):.2f}"
    assert table.loc[("taken away", "two", "1 run"), "Grad-CAM"] == "–"
    arms = (("one", "2 runs"), ("two", "1 run"))
    assert list(table.index) == [(w, *a) for w in ("taken away", "put in") for a in arms]


@pytest.mark.parametrize("run", STUDIES)
@pytest.mark.parametrize("profile", ["smoke", "laptop"])
def test_each_study_names_networks_of_its_own(run, profile):
    p, plan = profiles.parameters(run, profile), profiles.part(run, "plan")
    arms = plan.marked(p)
    assert len({a.name for a in arms}) == len(arms) > 0
    trained = {c.digest for c in plan.networks(p)}
    asked = list(inspect.signature(plan.model).parameters)
    for arm in arms:
        assert arm.jobs and [job[-1] for job in arm.jobs] == list(range(len(arm.jobs)))
        for job in arm.jobs:
            assert {c.digest for c in plan.networks(p, *job)} <= trained
            assert len(job) <= len(asked) - 1


def test_five_studies_are_asked():
    assert len(STUDIES) == 5
