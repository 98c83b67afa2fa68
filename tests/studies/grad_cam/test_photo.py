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


def test_each_photograph_stands_in_one_picture_left_and_right_in_turn(data):
    labels = torch.tensor([0, 1, 2, 1, 0, 2, 2, 0])
    more = ImageSet("m", "test", torch.rand(8, 3, 4, 4), labels, data.classes)
    [pairs] = photo.side_by_side(more)
    assert pairs.both.tolist() == [[5, 1], [7, 3]]  # 0 and 4, 2 and 6 are of one class
    assert torch.equal(pairs.images[..., :4], more.images[pairs.both[:, 0]])
    assert torch.equal(pairs.images[..., 4:], more.images[pairs.both[:, 1]])


def test_photographs_of_one_class_make_no_pair(data):
    alike = ImageSet("alike", "test", torch.rand(4, 3, 4, 4), torch.zeros(4, dtype=torch.long), data.classes)
    with pytest.raises(ValueError, match="alike: its 4 photographs make no pair of different classes"):
        list(photo.side_by_side(alike))


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


def test_elsewhere_takes_as_much_of_either_half_and_as_little_as_can_be_of_the_region():
    region = torch.zeros(40, 3, 8, dtype=torch.bool)
    region[:, 0, :2] = True
    region[:20, :, 4:] = True  # the whole of the right half: there is nowhere else
    moved = photo.elsewhere(region, torch.Generator().manual_seed(0))
    assert (moved[..., :4].flatten(1).sum(1) == 2).all() and not (moved & region)[..., :4].any()
    assert (moved[:20, :, 4:]).all() and not moved[20:, :, 4:].any()
    assert len({tuple(m.flatten().tolist()) for m in moved[20:]}) > 3


@pytest.fixture
def six(data):
    """Each square twice, so that each colour meets another: pairs (red, green), (green, blue), (blue, red)."""
    return ImageSet("six", "test", data.images[[0, 1, 2, 1, 2, 0]], torch.tensor([0, 1, 2, 1, 2, 0]), data.classes)


def test_maps_are_taken_at_their_word(net, six):
    """What speaks against red is the other colour: without it red gains; without its own colour it loses."""
    found = photo.two_in_one(net, {"middle": "conv", "last": "same"}, six, torch.Generator().manual_seed(0))
    assert all(v.shape == (3,) for v in found.values())
    assert torch.allclose(found["two/positive"], torch.ones(3), atol=0.05) and (found["two/counterfactual"] < 0.05).all()
    assert torch.equal(found["two/positive"], found["two/positive/middle"])
    for kind in ("score", "log"):
        for sign, way in (("counterfactual", 1), ("positive", -1)):
            marked, other = found[f"removal/{sign}/{kind}"], found[f"removal/{sign}/{kind}/elsewhere"]
            assert (way * marked > 0.05).all() and (way * marked > way * other).all()


def test_growth_by_hand(net):
    """A red and a green square: the whole of the green one, which speaks against red, is a quarter of the picture."""
    x = torch.zeros(2, 3, 16, 16)
    x[0, 0, 4:12, 4:12] = 1
    x[1, 1, 4:12, 4:12] = 1
    two = ImageSet("two", "test", x, torch.tensor([0, 1]), ("red", "green", "blue"))
    found = photo.two_in_one(net, {"middle": "conv", "last": "same"}, two, torch.Generator().manual_seed(0))
    # 4 x 8 positions; a square covers 4 of them, 1/8 of the picture: scores are 9 (1/8 - 1/2 1/8); its positions become means
    # of a smoothed square, which cannot be told from it where it is even: what is taken away is at most what it marked
    assert 0 < float(found["removal/counterfactual/score"]) <= 9 * 0.5 / 8 + 1e-5
    assert -9 / 8 - 1e-5 <= float(found["removal/positive/score"]) < 0


def test_a_map_that_says_nothing_is_missing(net, six):
    """With a head that knows no `against` there is no counterfactual map, and no number in its place."""
    net.net.head.weight.data.clamp_(min=0)
    found = photo.two_in_one(net, {"middle": "conv", "last": "same"}, six, torch.Generator().manual_seed(0))
    assert found["two/counterfactual"].isnan().all() and found["removal/counterfactual/score"].isnan().all()
    assert found["removal/counterfactual/log/elsewhere"].isnan().all() and found["removal/positive/log"].isfinite().all()


def test_attacks_towards_one_class(net, data):
    rows = []
    photo.under_attack(net, "conv", data, 2, (0.01, 0.6), 5, lambda name, level, values: rows.append((name, level, values)))
    found = {(name, level): values for name, level, values in rows}
    assert found["right", 0].tolist() == [1, 1, 1]
    assert found["reached/attack", 0.01][:2].tolist() == [0, 0] and found["reached/attack", 0.6][:2].tolist() == [1, 1]
    assert all(v[2].isnan() for (name, _), v in found.items() if name.startswith("reached"))  # it shows the class aimed at
    assert found["nissim/attack", 0.6].shape == (3,) and set(found) >= {("nissim/noise", 0.01), ("reached/noise", 0.6)}
    rows.clear()
    taken = ImageSet("taken", "test", data.images, torch.tensor([0, 1, 1]), data.classes)  # the third is wrong as it is
    photo.under_attack(net, "conv", taken, 2, (0.6,), 5, lambda name, level, values: rows.append((name, level, values)))
    assert {v[2].isnan().item() for name, _, v in rows if name.startswith("reached")} == {True}
