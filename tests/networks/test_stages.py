"""Stages that are found are those that the zoo says, each can be explained, and CAM's head is found where CAM is defined."""

import pytest
import torch
from torch import nn

from lib.explanations import activation_maps
from lib.networks import classifier, models, stages
from tests.conftest import Toy, same_state, state_of, toy


@pytest.mark.parametrize(
    ("arch", "size", "head"),
    [
        ("resnet18", 64, "fc"),
        ("googlenet", 64, "fc"),
        ("efficientnet-lite0", 64, "classifier"),
        ("plain", 32, "head"),
        ("residual", 32, "head"),
        ("connected", 32, ""),
    ],
)
def test_they_are_among_those_that_are_found(arch, size, head):
    net = models.create(arch, classes=7).eval()
    x = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    found = stages.find_stages(net, x)
    assert found[-1] == net.stages[-1] and [s for s in found if s in net.stages] == list(net.stages)
    assert stages.find_head(net, found[-1], x) == head
    if head:
        assert torch.isfinite(activation_maps.cam(net, x, 0, found[-1], head=head).values).all()


class Around(nn.Module):
    """An early layer on top, and all the rest within one block that ends in a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.Dropout(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(5, 3)
        )

    def forward(self, x):
        return self.body(self.stem(x))


def test_the_last_one_is_the_last_that_runs():
    """However deep it lies; what pools or drops is none."""
    net = classifier.adapt(Around().eval())
    x = torch.rand(1, 3, 8, 8)
    assert stages.find_stages(net, x) == ("body.1",)
    assert stages.find_head(net, "body.1", x) == ""  # it takes the largest value, not the mean


class Twice(nn.Module):
    """Its last convolution is used twice, so that it has no map of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.again, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.again(self.again(self.first(x))).mean((2, 3)))


def test_what_runs_twice_is_none():
    assert stages.find_stages(classifier.adapt(Twice()), torch.rand(1, 3, 8, 8)) == ("first",)


class Tokens(nn.Module):
    """A transformer of one block whose head reads the class token alone."""

    def __init__(self, width=6):
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.class_token = nn.Parameter(torch.randn(1, 1, width))
        self.before = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        t = self.patches(x).flatten(2).transpose(1, 2)
        t = self.before(torch.cat([self.class_token.expand(len(t), -1, -1), t], 1))
        return self.head(self.norm(t + self.attention(t, t, t, need_weights=False)[0])[:, 0])


def test_of_a_transformer_the_last_whose_patches_count():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = classifier.adapt(Tokens().eval())
    x = torch.rand(1, 3, 16, 16)
    assert stages.find_stages(net, x) == ("patches", "before")
    assert activation_maps.gradcam(net, x, None, "before", sign="signed").values.abs().max() > 0
    assert stages.find_head(net, "before", x) == ""


def test_a_network_without_maps_has_none():
    net = classifier.adapt(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)))
    assert stages.find_stages(net, torch.rand(1, 3, 2, 2)) == ()
    scripted = classifier.adapt(nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    assert stages.find_stages(scripted, torch.rand(1, 3, 1, 1)) == ()  # one position is no map


def test_the_network_stays_as_it_was(x):
    net = classifier.adapt(toy())
    before = state_of(net)
    found = stages.find_stages(net, x[:1])
    assert found == ("act1", "act2") and stages.find_head(net, "act2", x[:1]) == "head" and isinstance(net.net, Toy)
    assert same_state(before, state_of(net))
