"""Pictures of two photographs, and taking a map at its word: by hand, and on a network whose maps are known."""

import pytest
import torch
from torch import nn

from lib.data.image_sets import ImageSet
from lib.networks.classifier import Classifier
from lib.studies.grad_cam import photo


class Colours(nn.Module):
    """Class k is told by colour k, and against by the others: logits are the means of x_k - x_others / 2, times 9."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 4, 4, bias=False)
        with torch.no_grad():
            self.conv.weight.zero_()
            for k in range(3):
                self.conv.weight[k, k] = 1 / 16
        self.same = nn.Identity()
        self.head = nn.Linear(3, 3, bias=False)
        self.head.weight.data = 9 * (1.5 * torch.eye(3) - 0.5)

    def forward(self, x):
        return self.head(self.same(self.conv(x)).mean((2, 3)))


@pytest.fixture
def net():
    return Classifier(Colours(), stages=("conv",), classes=3, mean=(0.0,), std=(1.0,)).eval()


@pytest.fixture
def data():
    """Three squares, each in the colour of its class on black."""
    x = torch.zeros(3, 3, 16, 16)
    for k in range(3):
        x[k, k, 4:12, 4:12] = 1
    return ImageSet("squares", "test", x, torch.arange(3), ("red", "green", "blue"))


def test_pairs_are_of_two_classes_left_and_right(data):
    doubled = ImageSet("d", "test", data.images.repeat(2, 1, 1, 1), torch.tensor([0, 1, 2, 0, 0, 1]), data.classes)
    pairs = list(photo.side_by_side(doubled, 2))
    both = torch.cat([p.both for p in pairs])
    assert (doubled.labels[both[:, 0]] != doubled.labels[both[:, 1]]).all() and len(both) == 9
    assert all(torch.equal(p.images[..., :16], doubled.images[p.both[:, 0]]) for p in pairs)
    assert all(torch.equal(p.images[..., 16:], doubled.images[p.both[:, 1]]) for p in pairs)
    assert set(both.flatten().tolist()) == set(range(6))


def test_the_strongest_positions_by_hand():
    maps = torch.tensor([[[4.0, 3.0], [2.0, 1.0]], [[0.0, 0.0], [5.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    found = photo.strongest(maps, 0.5)
    assert found.tolist() == [[[True, True], [False, False]], [[False, False], [True, False]], [[False, False]] * 2]
    assert photo.strongest(maps, 0.01)[0].sum() == 1  # one at least


def test_what_is_taken_away_is_gone_and_nothing_else():
    x = torch.rand(1, 3, 8, 8)
    region = torch.tensor([[[True, False], [False, False]]])
    found = photo.without(x, region)
    assert torch.equal(found[..., 4:, :], x[..., 4:, :]) and torch.equal(found[..., :4, 4:], x[..., :4, 4:])
    corner = x[..., :4, :4].mean((2, 3))
    assert torch.allclose(found[0, :, 0, 0], corner[0], atol=1e-6)  # the mean of its position, where nothing is smoothed in
    assert torch.allclose(photo.without(x, ~region | region).mean((2, 3)), x.mean((2, 3)), atol=1e-6)


def test_elsewhere_has_the_same_size_and_another_place():
    region = torch.zeros(40, 3, 4, dtype=torch.bool)
    region[:, 0, :2] = True
    moved = photo.elsewhere(region, torch.Generator().manual_seed(0))
    assert (moved.flatten(1).sum(1) == 2).all() and not (moved == region).flatten(1).all(1).any()


def test_maps_are_taken_at_their_word(net, data):
    """What speaks against red is the other colour: without it red grows; without its own colour it falls."""
    layers = {"middle": "conv", "last": "same"}
    found = photo.two_in_one(net, layers, data, torch.Generator().manual_seed(0))
    assert all(v.shape == (3,) for v in found.values())
    assert (found["two/positive"] == 1).all() and (found["two/counterfactual"] == 0).all()
    assert torch.equal(found["two/positive"], found["two/positive/middle"])
    assert (found["removal/counterfactual"] > 0.05).all() and (found["removal/positive"] < -0.05).all()
    assert (found["removal/counterfactual"] > found["removal/counterfactual/elsewhere"]).all()
    assert (found["removal/positive"] < found["removal/positive/elsewhere"]).all()


def test_a_map_that_says_nothing_is_missing(net, data):
    """With a head that knows no `against` there is no counterfactual map, and no number in its place."""
    net.net.head.weight.data.clamp_(min=0)
    found = photo.two_in_one(net, {"middle": "conv", "last": "same"}, data, torch.Generator().manual_seed(0))
    assert found["two/counterfactual"].isnan().all() and found["removal/counterfactual"].isnan().all()
    assert found["removal/counterfactual/elsewhere"].isnan().all() and found["removal/positive"].isfinite().all()


def test_attacks_towards_one_class(net, data):
    rows = []
    photo.under_attack(net, "conv", data, 2, (0.01, 0.6), 5, lambda name, level, values: rows.append((name, level, values)))
    found = {(name, level): values for name, level, values in rows}
    assert found["right", 0].tolist() == [1, 1, 1]
    assert found["reached/attack", 0.01].tolist() == [0, 0, 1] and found["reached/attack", 0.6].tolist() == [1, 1, 1]
    assert found["nissim/attack", 0.6].shape == (3,) and set(found) >= {("nissim/noise", 0.01), ("reached/noise", 0.6)}
