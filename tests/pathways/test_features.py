"""Feature visualisation and patches: what they say of a channel is checked against the channel itself."""

import pytest
import torch
from torch import nn

from lib.networks import classifier, models
from lib.pathways import features


@pytest.fixture
def net() -> classifier.Classifier:
    return models.create("plain", classes=4)


def mean_activation(net: classifier.Classifier, x: torch.Tensor, channel: int) -> float:
    with torch.no_grad():
        return net.eval().net.stage1((x - net.mean) / net.std)[:, channel].mean().item()


def test_total_variation_by_hand():
    x = torch.tensor([[[[0.0, 1.0], [0.0, 3.0]]]])
    assert features.total_variation(x).tolist() == [(0 + 2) / 2 + (1 + 3) / 2]


def test_a_feature_excites_its_channel_and_lies_in_the_range(net):
    made = features.features(net, "stage1", [3, 0], shape=(3, 16, 16), steps=25)
    assert made.shape == (2, 3, 16, 16) and 0 <= made.min() <= made.max() <= 1
    start = features.features(net, "stage1", [3, 0], shape=(3, 16, 16), steps=0)
    for i, channel in enumerate((3, 0)):
        assert mean_activation(net, made[i : i + 1], channel) > mean_activation(net, start[i : i + 1], channel)


def test_a_feature_depends_on_its_channel_and_seed_alone(net):
    alone = features.features(net, "stage1", [3], shape=(3, 16, 16), steps=4)
    beside = features.features(net, "stage1", [0, 3], shape=(3, 16, 16), steps=4)
    assert torch.allclose(alone[0], beside[1], atol=1e-5)
    first = features.features(net, "stage1", [0, 3], shape=(3, 16, 16), steps=0)
    assert not torch.allclose(first[0], first[1])  # each starts from noise of its own
    assert not torch.allclose(alone, features.features(net, "stage1", [3], shape=(3, 16, 16), steps=4, seed=1))
    assert all(p.requires_grad and p.grad is None for p in net.parameters()) and net.training
    many = list(range(16)) * 3
    together = features.features(net, "stage1", many, shape=(3, 16, 16), steps=2)
    assert len(together) == 48 and torch.allclose(together[3], together[35], atol=1e-5)
    assert features.features(net, "stage1", [], shape=(3, 16, 16)).shape == (0, 3, 16, 16)


class Peak(nn.Module):
    """Channel 1 is the sum of a 3 x 3 neighbourhood of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, bias=False)
        self.conv.weight.data = torch.stack([torch.zeros(1, 3, 3), torch.ones(1, 3, 3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean((2, 3))


def test_patches_are_where_the_image_excites_the_channel_most():
    x = torch.zeros(3, 1, 8, 8)
    x[0, 0, 3, 4], x[2, 0, 6, 6] = 0.5, 1.0
    (found,) = features.patches(Peak(), x, "conv", [1], count=2)
    assert [p.image for p in found] == [2, 0] and [p.score for p in found] == [1.0, 0.5]
    assert found[0].box == (4, 4, 7, 7)  # the first of the neighbourhoods that hold the peak
    top, left, bottom, right = found[1].box
    assert (bottom - top, right - left) == (3, 3) and top <= 3 < bottom and left <= 4 < right
    (dead,) = features.patches(Peak(), x, "conv", [0], count=1)
    assert dead[0].box == (0, 0, 8, 8)  # depends on nothing: the whole image is shown


def test_a_cut_keeps_its_shape():
    x = torch.arange(64.0).view(1, 8, 8)
    assert torch.equal(features.cut(x, (2, 2, 4, 4), 2), x[:, 2:4, 2:4])
    tall = features.cut(x, (0, 3, 4, 5), 4)
    assert torch.equal(tall[:, :, 1:3], x[:, 0:4, 3:5]) and (tall[:, :, 0] == 0).all() and (tall[:, :, 3] == 0).all()


@pytest.mark.parametrize("call", [features.features, features.patches])
def test_channels_that_are_none(net, call):
    arguments = {"shape": (3, 16, 16), "steps": 1} if call is features.features else {}
    first = (net,) if call is features.features else (net, torch.rand(2, 3, 16, 16))
    with pytest.raises(ValueError, match=r"channels \[99\] of layer 'stage1', which has 16"):
        call(*first, "stage1", [99], **arguments)


class Late(nn.Module):
    """Channel 0 answers to a light patch alone, that noise of single pixels hardly makes; channel 1 to nothing."""

    def __init__(self, threshold: float = 0.62) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 8, stride=8)
        self.conv.weight.data = torch.stack([torch.ones(1, 8, 8) / 64, -torch.ones(1, 8, 8)])
        self.conv.bias.data = torch.tensor([-threshold, 0.0])
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.conv(x)).mean((2, 3))


def test_a_channel_that_noise_does_not_reach_begins_elsewhere_or_is_left_out():
    model = Late()
    made = features.features(model, "relu", [0, 1], shape=(1, 16, 16), steps=0)
    assert model(made[:1])[0, 0] > 0 and model(torch.full((1, 1, 16, 16), 0.5))[0, 0] == 0
    made = features.features(model, "relu", [0, 1], shape=(1, 16, 16), steps=20)
    assert model(made[:1])[0, 0] > 0.2 and made[1].isnan().all()  # nothing excites it: no picture says that something does
    assert torch.equal(made[:1], features.features(model, "relu", [0], shape=(1, 16, 16), steps=20))


def test_no_patches_are_none():
    assert features.patches(Peak(), torch.rand(2, 1, 8, 8), "conv", [0, 1], count=0) == [[], []]
