"""The smooth twin of a network: softplus wherever a ReLU runs, and nowhere else."""

import math
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.explanations import METHODS, Settings, by_name
from lib.networks import rectifiers
from tests.conftest import Breaks, same_state, state_of, toy

DIFFERENTIABLE = tuple(m.name for m in METHODS.rows if m.differentiable)
SETTINGS = Settings("into:conv2", n=2, steps=2)
LAYERS = {"cam": SETTINGS._replace(layer="act2")}

WAYS = {
    "torch.relu": torch.relu,
    "F.relu in place": lambda z: F.relu(z * 1, inplace=True),
    "relu_": lambda z: (z * 1).relu_(),
    "clamp": lambda z: z.clamp(min=0),
    "maximum": lambda z: torch.maximum(z, torch.zeros_like(z)),
    "mask": lambda z: z * (z > 0),
    "module": nn.ReLU(),
    "module in place": lambda z: nn.ReLU(inplace=True)(z * 1),
}


class Acts(nn.Module):
    def __init__(self, act) -> None:
        super().__init__()
        self.act = act

    def forward(self, x):
        return self.act(x)


def by_hand(z, beta):
    """softplus of a row, number by number."""
    rows = []
    for row in z:
        values = row.flatten().tolist()
        mean = sum(values) / len(values)
        sigma = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
        rows.append([math.log1p(math.exp(beta / sigma * v)) * sigma / beta for v in values])
    return torch.tensor(rows, dtype=z.dtype).view_as(z)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_write_a_relu_has_a_twin(way):
    z = torch.tensor([[-1.0, 0.5, 2.0], [3.0, -0.1, 0.0]], dtype=torch.float64, requires_grad=True)
    model = Acts(WAYS[way])
    with rectifiers.smoothed(model, 1.5) as seen:
        found = model(z)
    torch.testing.assert_close(found, by_hand(z.detach(), 1.5))
    assert seen.seen == 1
    assert torch.equal(model(z), z.clamp(min=0))  # and none once it is over


@pytest.mark.parametrize(
    ("act", "wanted"),
    [
        (nn.ReLU6(), lambda z, s: s(z, 2.0) - s(z - 6, 2.0)),
        (nn.Hardtanh(0, 3), lambda z, s: s(z, 2.0) - s(z - 3, 2.0)),
        (nn.LeakyReLU(0.2), lambda z, s: 0.2 * z + 0.8 * s(z, 2.0)),
        (lambda z: z.clamp(0, 6), lambda z, s: s(z, 2.0) - s(z - 6, 2.0)),
        (lambda z: F.leaky_relu_(z * 1, 0.3), lambda z, s: 0.3 * z + 0.7 * s(z, 2.0)),
        (nn.GELU(), lambda z, _s: F.gelu(z)),
        (lambda z: z.clamp(-1, 1), lambda z, _s: z.clamp(-1, 1)),
    ],
)
def test_relatives_have_their_own(act, wanted):
    z = torch.linspace(-4, 9, 14, dtype=torch.float64).view(2, 7).requires_grad_()
    model = Acts(act)
    with rectifiers.smoothed(model, 2.0):
        found = model(z)
    torch.testing.assert_close(found, wanted(z, rectifiers.softplus))


def test_sharp_twins_are_the_network(model, x):
    plain, gaps = model(x), []
    for beta in (5.0, 50.0, 5e4):
        with rectifiers.smoothed(model, beta):
            gaps.append((model(x) - plain).abs().max().item())
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 1e-4


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_maps_of_sharp_twins_are_the_networks(model, x, y, name):
    settings = LAYERS.get(name, SETTINGS)
    plain = by_name.explain(name, model, x, y, settings).values
    near = []
    for beta in (3.0, 1e5):
        with rectifiers.smoothed(model, beta) as seen:
            near.append(by_name.explain(name, model, x, y, settings, create_graph=True).values.detach())
        assert seen.seen >= 1
    assert not torch.allclose(near[0], plain, atol=1e-3)
    torch.testing.assert_close(near[1], plain, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["gradient", "smoothgrad", "guided", "simple_t"])
def test_a_twin_has_the_second_derivative_that_the_network_lacks(x, y, name, monkeypatch):
    """Against finite differences of the map itself, at a softplus of one sharpness: the deviation is a constant."""
    monkeypatch.setattr(rectifiers, "softplus", lambda z, beta: F.softplus(z, beta))
    model, settings = toy(seed=2), SETTINGS
    x, y = x[:2], y[:2]

    def value(z):
        with rectifiers.smoothed(model, 3.0):
            return by_name.raw(name, model, z, y, settings, create_graph=True).values.square().sum()

    z = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(z), z)
    assert slope.abs().max() > 1e-6
    way = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    way[(x == x.amax((1, 2, 3), True)) | (x == x.amin((1, 2, 3), True))] = 0  # SmoothGrad's noise stays
    h = 1e-6
    up, down = (value((x + s * h * way).clamp(0, 1).requires_grad_()) for s in (1, -1))
    inside = ((x + h * way).clamp(0, 1) - (x - h * way).clamp(0, 1)) / (2 * h)
    torch.testing.assert_close((slope * inside).sum(), (up - down).detach() / (2 * h), rtol=1e-5, atol=1e-8)
    z = x.clone().requires_grad_()
    plain = by_name.raw(name, model, z, y, settings, create_graph=True).values.square().sum()
    (none,) = torch.autograd.grad(plain, z, allow_unused=True)
    assert none is None or none.abs().max() == 0


def test_the_maps_own_relu_stays(model, x, y):
    with rectifiers.smoothed(model, 2.0):
        signed = by_name.raw("gradcam", model, x, y, SETTINGS._replace(layer="act2", sign="signed"), create_graph=True).values
        positive = by_name.raw("gradcam", model, x, y, SETTINGS._replace(layer="act2"), create_graph=True).values
    assert (signed < 0).any()
    torch.testing.assert_close(positive, signed.clamp_min(0))


def test_deviations_are_torchs_to_the_last_bit():
    rows = torch.randn(300, 1000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 300)[:, None] + 0.3
    rows[7] = 0.1  # does not vary
    assert torch.equal(rectifiers._deviation(rows), rows.std(1, correction=0))


def test_rows_do_not_see_each_other(model, x):
    with rectifiers.smoothed(model, 2.0):
        torch.testing.assert_close(model(x), torch.cat([model(row[None]) for row in x]))


def test_an_image_without_contrast_is_rectified_as_it_is():
    z = torch.tensor([[[[-0.3]]], [[[0.7]]], [[[0.0]]]], dtype=torch.float64)
    torch.testing.assert_close(rectifiers.softplus(z, 2.0), z.clamp_min(0), atol=1e-12, rtol=0)


def test_other_threads_and_whoever_comes_after_see_the_network(model, x):
    plain, elsewhere = model(x), []
    before = state_of(model)
    with rectifiers.smoothed(model, 1.0):
        thread = threading.Thread(target=lambda: elsewhere.append(model(x)))
        thread.start()
        thread.join()
        assert not torch.allclose(model(x), plain)
    assert torch.equal(elsewhere[0], plain) and torch.equal(model(x), plain)
    broken = Breaks(model)
    with pytest.raises(RuntimeError, match="forced"), rectifiers.smoothed(broken, 1.0):
        broken(x)
    assert torch.equal(model(x), plain) and same_state(before, state_of(model))
    with rectifiers.smoothed(broken, 1.0) as seen:
        with pytest.raises(RuntimeError, match="forced"):
            broken(x)
        torch.relu(x)
        assert not seen.running


class Two(nn.Module):
    """Two ReLUs; between them, once, a pass of the same network in another thread."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.between = threading.get_ident(), []

    def forward(self, x):
        x = torch.relu(x - 0.5)
        if threading.get_ident() == self.own:
            thread = threading.Thread(target=lambda: self.between.append(self(torch.ones(1, 4))))
            thread.start()
            thread.join()
        return torch.relu(x - 0.2)


def test_a_pass_of_another_thread_ends_nothing_here():
    x = torch.tensor([[0.1, 0.4, 0.8, 0.9]])
    model = Two()
    with rectifiers.smoothed(model, 3.0) as seen:
        model(x)
    assert seen.seen == 2
    torch.testing.assert_close(model.between[0], torch.full((1, 4), 0.3))


@pytest.mark.parametrize("beta", [0, -1, float("nan")])
def test_beta_is_above_zero(model, beta):
    with pytest.raises(ValueError, match=r"beta=.*above 0"), rectifiers.smoothed(model, beta):
        pass
