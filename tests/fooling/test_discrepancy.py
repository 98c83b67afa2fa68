"""Discrepancies of explanations against slow twins, their completeness, Proposition 1, and what they cost."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.attacks import projected
from lib.explanations import activation_maps, gradients
from lib.fooling import discrepancy
from lib.networks import models
from lib.system import devices
from lib.system.flops import flops
from tests.conftest import Breaks, same_state, state_of, toy


class Headed(nn.Module):
    """The toy network of the tests as a model with stages, smooth where second derivatives are wanted."""

    def __init__(self, seed: int = 0, smooth: bool = False) -> None:
        super().__init__()
        self.net = toy(seed, smooth=smooth)
        self.stages = ("act2",)

    def forward(self, x):
        return self.net(x)


class Deep(nn.Module):
    """Two linear layers after average pooling: no CAM."""

    stages = ("conv",)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.head(F.relu(self.hidden(self.conv(x).mean((2, 3)))))


@pytest.fixture
def headed():
    return Headed()


@torch.no_grad()
def twin_cam(model, x, c):
    """(1/u) sum_k W_kc A_ki of one image and one class, by loops."""
    net = model.net
    a = net.act2(net.conv2(net.act1(net.conv1(x[None]))))[0]
    u = a.shape[1] * a.shape[2]
    out = torch.zeros(a.shape[1:], dtype=a.dtype)
    for i in range(a.shape[1]):
        for j in range(a.shape[2]):
            out[i, j] = sum(net.head.weight[c, k] * a[k, i, j] for k in range(a.shape[0])) / u
    return out


@torch.no_grad()
def twin_all(before, after, y, logits):
    """The authors' loss of one image on unscaled maps {class: map}: |d_y| + sum over others of p_c |d_c|."""
    others = [c for c in before if c != y]
    total = sum(float(logits[c].exp()) for c in others)
    own = float((before[y] - after[y]).abs().sum())
    return own + sum(float(logits[c].exp()) / total * float((before[c] - after[c]).abs().sum()) for c in others)


def test_cams_are_the_formula(headed, x):
    maps, logits = activation_maps.all_cams(headed, x)
    expected = torch.stack([torch.stack([twin_cam(headed, row, c) for c in range(4)]) for row in x])
    torch.testing.assert_close(maps, expected)
    torch.testing.assert_close(logits, headed(x))
    classes = torch.tensor([[c % 4, (c + 2) % 4] for c in range(len(x))])
    torch.testing.assert_close(discrepancy.cam(headed, x, classes).values[3], expected[3, classes[3]])


def test_cam_is_complete(headed, x):
    """A map adds up to its logit, less the head's bias."""
    maps, logits = activation_maps.all_cams(headed, x)
    torch.testing.assert_close(maps.sum((2, 3)), logits - headed.net.head.bias)
    small = models.create("small", classes=10, channels=1).eval().double()
    z = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    maps, logits = activation_maps.all_cams(small, z)
    assert maps.shape == (3, 10, 7, 7)
    torch.testing.assert_close(maps.sum((2, 3)), logits)


def test_integrated_gradients_are_complete(headed, x, y):
    classes = torch.stack([y, (y + 1) % 4], 1)
    maps, logits = discrepancy.integrated(headed, x, classes, steps=400)
    black = headed(torch.zeros_like(x))
    torch.testing.assert_close(maps.flatten(2).sum(2), (logits - black).gather(1, classes), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        maps[:, 1], gradients.integrated_gradients(headed, x, classes[:, 1], steps=400).values, rtol=1e-6, atol=1e-9
    )


def test_discrepancies_by_hand():
    a = torch.tensor([[[[1.0, 2.0]], [[0.0, 0.0]], [[5.0, 5.0]]]])
    b = torch.tensor([[[[0.0, 4.0]], [[1.0, 0.0]], [[5.0, 1.0]]]])
    assert discrepancy.l1(a, b).tolist() == [[3.0, 1.0, 4.0]]
    assert discrepancy.one_class(a[:, :1], b[:, :1]).item() == 3
    assert discrepancy.two_class(a[:, :2], b[:, :2]).item() == 2
    logits = torch.tensor([[9.0, 0.0, 0.0]])  # the other two classes share the weight
    assert discrepancy.other_weights(logits, torch.tensor([0])).tolist() == [[0, 0.5, 0.5]]
    assert discrepancy.all_class(a, b, torch.tensor([0]), logits).item() == pytest.approx(0.5 * (3 + 0.5 + 2))


def test_the_training_loss_against_its_twin(headed, x, y):
    x_adv = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)).clamp(0, 1)
    before, _ = activation_maps.all_cams(headed, x)
    after, logits = activation_maps.all_cams(headed, x_adv)
    found = discrepancy.all_class(before, after, y, logits)
    for n in range(len(x)):
        u = before[0, 0].numel()
        unscaled = [{c: u * twin_cam(headed, z[n], c) for c in range(4)} for z in (x, x_adv)]
        expected = twin_all(*unscaled, int(y[n]), logits[n])
        assert 0.01 * expected == pytest.approx(2 * u * 0.01 * found[n].item(), rel=1e-6)


def test_no_change_no_discrepancy(headed, x, y):
    maps, logits = activation_maps.all_cams(headed, x)
    assert discrepancy.all_class(maps, maps, y, logits).eq(0).all()
    weights = discrepancy.other_weights(logits, y)
    torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))
    assert weights.gather(1, y[:, None]).eq(0).all() and (weights >= 0).all()
    moved = activation_maps.all_cams(headed, (x + 0.05).clamp(0, 1)).values
    assert (discrepancy.all_class(maps, moved, y, logits) > 0).all()


def test_first_and_second_derivatives():
    """In both images and in the parameters, through the weights p too; of integrated gradients as well."""
    model = Headed(smooth=True)
    x = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = (x + 0.2 * torch.rand(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))).clamp(0, 0.99)
    y = torch.tensor([0, 3])
    name, weight = "net.conv1.weight", model.net.conv1.weight.detach().clone()

    def loss(a, b, w):
        def both(image):
            return torch.func.functional_call(wrapped, {f"model.{name}": w}, (image,))

        (before, _), (after, logits) = both(a), both(b)
        return discrepancy.all_class(before, after, y, logits)

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, image):
            return activation_maps.all_cams(self.model, image, check=False)

    wrapped = Wrapped()
    inputs = tuple(t.requires_grad_() for t in (x, z, weight))
    assert torch.autograd.gradcheck(loss, inputs) and torch.autograd.gradgradcheck(loss, inputs, fast_mode=True)

    def integrated(a, b):
        classes = torch.stack([y, (y + 1) % 4], 1)
        maps = [discrepancy.integrated(model, t, classes, steps=2).values for t in (a, b)]
        return discrepancy.two_class(*maps)

    assert torch.autograd.gradcheck(integrated, inputs[:2])


@pytest.mark.parametrize("seed", range(4))
def test_proposition_1_is_never_violated(x, y, seed):
    model = Headed(seed)
    covered = 0
    for eps in (0.02, 0.1, 0.3):
        x_adv = projected.pgd(model, x, y, eps=eps, steps=10).x_adv
        sides = discrepancy.proposition(model, x, x_adv, y)
        assert (sides.discrepancy >= sides.bound - 1e-9)[sides.applies].all()
        assert torch.equal(sides.applies, model(x_adv).argmax(1) != y)
        covered += int((sides.applies & (sides.bound > 0)).sum())
        own = discrepancy.proposition(model, x, x_adv, y, lambda m, z, c: discrepancy.integrated(m, z, c, steps=300))
        assert (own.discrepancy >= own.bound - 0.01)[own.applies].all()
        torch.testing.assert_close(own.bound, sides.bound)
    assert covered > 0


def test_both_sides_of_the_proposition_by_hand(headed, x, y):
    x_adv = projected.pgd(headed, x, y, eps=0.2, steps=5).x_adv
    sides = discrepancy.proposition(headed, x, x_adv, y)
    for n in range(len(x)):
        after = headed(x_adv[n : n + 1])[0].detach()
        wrong = max((c for c in range(4) if c != y[n]), key=lambda c: float(after[c]))
        clean = headed(x[n : n + 1])[0].detach()
        assert sides.bound[n].item() == pytest.approx(float(clean[y[n]] - clean[wrong]) / 2)
        moved = [twin_cam(headed, x[n], c) - twin_cam(headed, x_adv[n], c) for c in (int(y[n]), wrong)]
        assert sides.discrepancy[n].item() == pytest.approx(float(sum(m.abs().sum() for m in moved)) / 2)


def test_a_network_with_a_bias_or_batch_norm_will_do(x):
    plain = models.create("plain", classes=4).eval().double()
    y = plain(x).argmax(1)
    x_adv = projected.pgd(plain, x, y, eps=0.3, steps=10).x_adv
    sides = discrepancy.proposition(plain, x, x_adv, y)
    assert (sides.discrepancy >= sides.bound - 1e-9)[sides.applies].all()


def test_maps_cost_no_second_backward(headed, x, y):
    """The gradient of a discrepancy costs that of a logit and what the maps themselves cost: one 1 x 1 convolution each way."""
    small = models.create("small", classes=10, channels=1).eval()
    for p in small.parameters():
        p.requires_grad_(False)
    z = torch.rand(4, 1, 28, 28)
    clean, _ = activation_maps.all_cams(small, z)

    def logit():
        a = (z * 0.5).requires_grad_()
        torch.autograd.grad(small(a)[:, 0].sum(), a)

    def moved():
        a = (z * 0.5).requires_grad_()
        maps = activation_maps.all_cams(small, a, check=False).values
        torch.autograd.grad(discrepancy.l1(maps, clean).sum(), a)

    head = 2 * 4 * 100 * 10  # the logits' own matrix, once: the maps' loss does not go back through it
    maps = 2 * 4 * 49 * 100 * 10
    assert flops(moved) == flops(logit) + 2 * maps - head


def test_state_is_left_alone(headed, x, y):
    before = state_of(headed)
    discrepancy.proposition(headed, x, (x + 0.1).clamp(0, 1), y)
    activation_maps.all_cams(headed, x)
    assert same_state(before, state_of(headed))
    broken = Breaks(toy())
    broken.stages = ("act2",)
    before = state_of(broken)
    with pytest.raises(RuntimeError, match="forced"):
        activation_maps.all_cams(broken, x)
    assert same_state(before, state_of(broken))


def test_what_is_not_a_cam_network_is_refused(x, y):
    with pytest.raises(ValueError, match="do not give the model's logits, so CAM is not defined here"):
        activation_maps.all_cams(Deep().double(), x)
    with pytest.raises(ValueError, match="head 'conv1' is a Conv2d"):
        activation_maps.linear_head(toy(), "conv1")
    with pytest.raises(ValueError, match="there is one class"):
        discrepancy.other_weights(torch.zeros(2, 1), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="D2 takes two classes"):
        discrepancy.two_class(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match="K classes an image"):
        discrepancy.cam(Headed(), x, y)
    with pytest.raises(ValueError, match="attacked images range"):
        discrepancy.proposition(Headed(), x, x + 2, y)


def test_batches_change_nothing_in_the_proposition(x, y, monkeypatch):
    model, moved = Headed(), (x + 0.1).clamp(0, 1)
    whole = discrepancy.proposition(model, x, moved, y)
    monkeypatch.setattr(devices, "PIXELS_WITHOUT", 4 * 8**2)
    seen, forward = [], model.net.forward
    monkeypatch.setattr(model.net, "forward", lambda z: (seen.append(len(z)), forward(z))[1])
    for one, other in zip(whole, discrepancy.proposition(model, x, moved, y), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)
    assert max(seen) == 4
