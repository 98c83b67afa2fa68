"""Gabor, snow and JPEG attacks against slow twins of the published procedures, linear programming, and their own bounds."""

import copy
import itertools
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lib.attacks import by_name, jpeg, unforeseen
from lib.attacks import losses as losses_
from lib.data import images
from lib.system import devices
from tests.conftest import Breaks, Toy, same_state, state_of, toy


def attack(name, model, x, y, **options):
    return by_name.find(name)(model, x, y, **options)


SIZES = [(16, 16), (30, 34), (8, 21), (5, 3)]
JPEGS = ["jpeg-linf", "jpeg-l2", "jpeg-l1"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random(seed=0, dtype=torch.float64):
    return unforeseen.Randomness(seeded(seed), torch.zeros(1, dtype=dtype))


def pictures(n=3, height=16, width=16, seed=5, dtype=torch.float64):
    return torch.rand(n, 3, height, width, dtype=dtype, generator=seeded(seed))


def spy(monkeypatch, module, name):
    """Every call of module.name as (arguments, result), detached."""
    calls, original = [], getattr(module, name)

    def spying(*args):
        found = original(*args)
        calls.append((tuple(a.detach().clone() if isinstance(a, torch.Tensor) else a for a in args), found))
        return found

    monkeypatch.setattr(module, name, spying)
    return calls


def uphill(model, draw, v, goal, sign=1):
    """The gradient of the summed cross-entropy of what a latent draws."""
    v = v.clone().requires_grad_()
    (found,) = torch.autograd.grad(sign * F.cross_entropy(model(draw(v)), goal, reduction="sum"), v)
    return found


@pytest.fixture(scope="module")
def trained():
    """A network that tells stripes across from stripes down and from none, and images of them with their labels."""
    y = torch.arange(48) % 3
    wave = 0.2 * torch.cos(torch.arange(16) * math.pi / 2)
    x = 0.35 + 0.3 * torch.rand(48, 1, 1, 1, generator=seeded(0)) + 0.05 * torch.randn(48, 3, 16, 16, generator=seeded(1))
    x = (x + (y == 0).view(-1, 1, 1, 1) * wave[:, None] + (y == 1).view(-1, 1, 1, 1) * wave).clamp(0, 1)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = Toy(classes=3)
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(100):
        optimiser.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimiser.step()
    assert (net(x).argmax(1) == y).float().mean() > 0.95
    return net.eval(), x[:12], y[:12]


# Gabor ------------------------------------------------------------------------------------------------------------------


def gabor_kernel_twin(u, sides):
    """The formula of the specification's C2, pixel by pixel, from three uniform numbers and the number of sides."""
    sigma, frequency, angle = 0.1 + 0.3 * u[0], 3 + (23 / 4 - 3) * u[1], math.pi * u[2]
    found = np.zeros((23, 23))
    for i in range(23):
        for j in range(23):
            down, right = -0.5 + i / 22, -0.5 + j / 22
            for k in range(sides):
                theta = angle + math.pi * k / sides
                along = right * math.cos(theta) + down * math.sin(theta)
                across = -right * math.sin(theta) + down * math.cos(theta)
                bell = math.exp(-(along**2 + across**2) / (2 * (sigma + 0.001) ** 2))
                found[i, j] += bell * math.cos(2 * math.pi * frequency * along)
    return found


def test_gabor_kernels_equal_the_formula():
    n, generator = 5, seeded(2)
    sigma, frequency, angle, sides = (torch.rand(n, 1, 1, generator=generator).flatten().tolist() for _ in range(4))
    found = unforeseen.gabor_kernels(n, random(2))
    assert found.shape == (n, 1, 23, 23) and found.dtype == torch.float64
    for i in range(n):
        expected = gabor_kernel_twin((sigma[i], frequency[i], angle[i]), 1 + int(10 * sides[i]))
        np.testing.assert_allclose(found[i, 0].numpy(), expected, rtol=0, atol=1e-5)  # the grid is in single precision


def test_gabor_kernels_have_one_to_ten_sides():
    """At the centre every cosine and the envelope are 1, so the value there is the number of sides."""
    sides = unforeseen.gabor_kernels(600, random())[:, 0, 11, 11]
    torch.testing.assert_close(sides, sides.round(), rtol=0, atol=1e-9)
    counts = sides.round().long().bincount(minlength=11)
    assert counts[0] == 0 and len(counts) == 11 and counts[1:].min() > 30 and counts[1:].max() < 95


def gabor_noise_twin(v, kernels):
    """As published, an image at a time: the spectrum of the squared noise, there and back, and range to [0, 1]."""
    found = []
    for row, kernel in zip(v, kernels, strict=True):
        noise = torch.from_numpy(scipy.signal.correlate2d(row[0].numpy(), kernel[0].numpy(), "same"))
        mean = noise.mean()
        spectrum = torch.fft.rfft2((noise - mean) ** 2)
        deviation = torch.fft.irfft2(spectrum, s=tuple(noise.shape)).abs().sqrt()
        gain = 1.001 / (0.001 + deviation / deviation.max())
        even = mean + (noise - mean) * gain
        found.append((even - even.min()) / (even.max() - even.min()))
    return torch.stack(found)[:, None]


def sparse(n=3, height=32, width=32, seed=0):
    """Kernels, and latents as the attack starts from them."""
    numbers = random(seed)
    kernels = unforeseen.gabor_kernels(n, numbers)
    mask = numbers.uniform(n, 1, height, width) < 1 / 14
    return (2 * numbers.uniform(n, 1, height, width) - 1) * mask, kernels


@pytest.mark.parametrize("size", SIZES)
def test_gabor_noise_equals_the_published_procedure(size):
    v, kernels = sparse(3, *size, seed=1)
    v[:, 0, 0, 0] = 0.7  # small ones may have been empty
    torch.testing.assert_close(unforeseen.gabor_noise(v, kernels), gabor_noise_twin(v, kernels), rtol=0, atol=1e-4)


def test_gabor_noise_is_nearly_binary():
    """The specification's D9."""
    noise = unforeseen.gabor_noise(*sparse(48))
    assert (noise.amin((1, 2, 3)) == 0).all() and (noise.amax((1, 2, 3)) == 1).all()
    assert ((noise > 0.1) & (noise < 0.9)).double().mean() < 0.02
    assert abs(noise.mean() - 0.5) < 0.02


def test_each_image_has_its_own_kernel():
    v, kernels = sparse(4)
    v = v[:1].expand(4, -1, -1, -1)
    together = unforeseen.gabor_noise(v, kernels)
    alone = torch.cat([unforeseen.gabor_noise(v[i : i + 1], kernels[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone)
    assert all((together[i] - together[0]).abs().mean() > 0.1 for i in range(1, 4))


def test_gains_and_range_of_gabor_noise_are_constants_to_the_gradient():
    v, kernels = sparse(1)
    found = v.clone().requires_grad_()
    noise = unforeseen.gabor_noise(found, kernels)
    weights = torch.randn(noise.shape, dtype=torch.float64, generator=seeded(1))
    weights[(noise == 0) | (noise == 1)] = 0  # releases of torch disagree about the gradient of clamp at its ends
    (noise * weights).sum().backward()
    plain = F.conv2d(v, kernels, padding=11)
    mean = plain.mean()
    gain = 1.001 / (0.001 + (plain - mean).abs() / (plain - mean).abs().max())
    even = mean + (plain - mean) * gain
    expected = F.conv_transpose2d(weights * gain / (even.max() - even.min()), kernels, padding=11)
    torch.testing.assert_close(found.grad, expected)


def test_an_empty_latent_gives_no_noise():
    _, kernels = sparse(2)
    v = torch.zeros(2, 1, 9, 9, dtype=torch.float64)
    assert not unforeseen.gabor_noise(v, kernels).any()
    assert not unforeseen.gabor_noise(v.float(), kernels.float()).any()


def test_gabor_takes_sign_steps_in_a_sparse_latent(model, x, y, monkeypatch):
    x = pictures(6)
    seen = spy(monkeypatch, unforeseen, "gabor_noise")
    found = unforeseen.gabor(model, x, y, eps=0.2, steps=4, step=0.3)
    (v, kernels), noise = seen[-1]
    assert len(seen) == 5 and torch.equal(found.x_adv, (x + 0.2 * noise).clamp(0, 1))
    monkeypatch.undo()
    mask = seen[0][0][0] != 0
    assert 0.03 < mask.double().mean() < 0.12  # 1 / 14 = 0.071
    for ((v, kernels), _), ((after, same), _) in itertools.pairwise(seen):
        assert torch.equal(kernels, same)
        gradient = uphill(model, lambda v, k=kernels: (x + 0.2 * unforeseen.gabor_noise(v, k)).clamp(0, 1), v, y)
        torch.testing.assert_close(after, (v + 0.3 * gradient.sign()).clamp(-1, 1) * mask)
        assert after.abs().max() <= 1 and not after[~mask].any()


def test_gabor_starts_uniform_at_one_pixel_in_fourteen(model, monkeypatch):
    seen = spy(monkeypatch, unforeseen, "gabor_noise")
    unforeseen.gabor(model, pictures(4, 64, 64), torch.arange(4), eps=0.1, steps=1)
    v = seen[0][0][0]
    kept = v[v != 0]
    assert abs((v != 0).double().mean() - 1 / 14) < 0.006
    assert kept.min() < -0.98 and kept.max() > 0.98 and abs(kept.mean()) < 0.06 and abs(kept.abs().mean() - 0.5) < 0.03


@pytest.mark.parametrize("eps", [0.05, 25 / 255, 400 / 255])
def test_gabor_only_brightens_and_all_colours_alike(model, x, y, eps):
    found = unforeseen.gabor(model, x, y, eps=eps, steps=3).x_adv
    added = found - x
    assert added.min() >= 0 and added.max() <= eps + 1e-12
    free = (found < 1).all(1, keepdim=True).expand_as(x)
    torch.testing.assert_close(added[free], added.amax(1, keepdim=True).expand_as(x)[free])


# Snow -------------------------------------------------------------------------------------------------------------------


def streak_twin(down, right, width, flip, sigma):
    """An anti-aliased line from the centre to (down, right), mirrored in it, and blurred: pixel by pixel."""
    longer, shorter = max(down, right), min(down, right)
    slope = shorter / longer
    thick = width * math.sqrt(1 + slope) / 2
    found = np.zeros((13, 13))
    for i in range(7):
        for j in range(7):
            along, across = (i, j) if down > right else (j, i)
            if along <= longer:
                found[6 + i, 6 + j] = min(max(1 + thick / 2 - abs(across - along * slope), 0), 1)
    found[:7, :7] = found[::-1, ::-1][:7, :7]
    if flip:
        found = found[:, ::-1]
    bell = np.array([[math.exp(-(a**2 + b**2) / (2 * sigma**2)) for a in (-1, 0, 1)] for b in (-1, 0, 1)])
    return scipy.signal.correlate2d(found, bell / bell.sum(), "same")


@pytest.mark.parametrize("seed", range(6))
def test_snow_kernels_equal_lines_drawn_by_hand(seed):
    generator = seeded(seed)
    ends = torch.rand(7, 2, generator=generator).tolist()
    chosen = torch.rand(7, generator=generator).tolist()
    flip = torch.rand(1, generator=generator).item() < 0.5
    blurs = torch.rand(7, 1, generator=generator).flatten().tolist()
    found = unforeseen.snow_kernels(random(seed))
    assert found.shape == (1, 7, 13, 13)
    for i in range(7):
        down, right = (2 + int(5 * u) for u in ends[i])
        width = 1 if chosen[i] < 0.6 else 3 if chosen[i] < 0.9 else 5
        expected = streak_twin(down, right, width, flip, 0.41 + 0.19 * blurs[i])
        np.testing.assert_allclose(found[0, i].numpy(), expected, rtol=0, atol=1e-6)


def test_snow_kernels_pass_through_the_centre_and_lean_one_way():
    leans = []
    for seed in range(24):
        k = unforeseen.snow_kernels(random(seed))[0]
        torch.testing.assert_close(k, k.flip(1, 2))  # one half is the other's point reflection
        assert k.min() >= 0 and k.max() <= 1 + 1e-9 and (k[:, 6, 6] > 0.5).all()
        moment = torch.arange(-6, 7).to(k)
        skew = (k * moment[:, None] * moment).sum((1, 2))  # positive: from the upper left to the lower right
        assert (skew > 0).all() or (skew < 0).all()
        leans.append((skew > 0).all().item())
    assert 4 < sum(leans) < 20


def snowflakes_twin(v, kernels, size):
    n, _, h, w = v.shape
    found = np.zeros((n, 1, *size))
    for b in range(n):
        for g in range(7):
            canvas = np.zeros((4 * h, 4 * w))
            for i in range(h):
                for j in range(w):
                    row, column = (4 * i, 4 * j + g) if g < 4 else (4 * i + g - 3, 4 * j)
                    canvas[row, column] = v[b, g, i, j] ** 4
            found[b, 0] += scipy.signal.correlate2d(canvas, kernels[0, g].numpy(), "same")[: size[0], : size[1]]
    return found


@pytest.mark.parametrize("size", [(16, 16), (30, 21), (3, 5)])
def test_snowflakes_equal_the_loop(size):
    v = torch.rand(2, 7, -(-size[0] // 4), -(-size[1] // 4), dtype=torch.float64, generator=seeded(1))
    kernels = unforeseen.snow_kernels(random())
    found = unforeseen.snowflakes(v, kernels, size)
    np.testing.assert_allclose(found.numpy(), snowflakes_twin(v, kernels, size), atol=1e-12)


def test_one_flake_by_hand():
    """A half-bright flake of the sixth grid in cell (1, 2): its streak, times 1/16, around row 4 + 2 and column 8."""
    v = torch.zeros(1, 7, 6, 6, dtype=torch.float64)
    v[0, 5, 1, 2] = 0.5
    kernels = unforeseen.snow_kernels(random())
    expected = torch.zeros(1, 1, 24, 24, dtype=torch.float64)
    expected[0, 0, 0:13, 2:15] = kernels[0, 5] / 16
    torch.testing.assert_close(unforeseen.snowflakes(v, kernels, (24, 24)), expected)


def test_whitened_by_hand():
    x = torch.tensor([[0.2, 0.4, 0.6], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], dtype=torch.float64)
    # 1.5 grey + .5: 1.5 * .37192 + .5 = 1.05788; .6083, less than blue's own 1; .5; 2
    expected = torch.tensor(
        [[0.41447, 0.56447, 0.71447], [0.152075, 0.152075, 1.0], [0.125, 0.125, 0.125], [1.25, 1.25, 1.25]], dtype=torch.float64
    )
    found = unforeseen.whitened(x[:, :, None, None])[:, :, 0, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


def test_without_flakes_snow_is_the_whitened_sky(model, x, y, monkeypatch):
    sky = unforeseen.whitened(x).clamp(0, 1)
    torch.testing.assert_close(unforeseen.snow(model, x, y, eps=0.0, steps=2).x_adv, sky, rtol=0, atol=0)
    original = unforeseen.snowflakes
    monkeypatch.setattr(unforeseen, "snowflakes", lambda v, kernels, size: original(0 * v, kernels, size))
    torch.testing.assert_close(unforeseen.snow(model, x, y, eps=4.0, steps=2).x_adv, sky, rtol=0, atol=0)


def budget_twin(v):
    v = v.clone()
    for grid in v.flatten(0, 1):
        for i in range(0, grid.shape[0], 8):
            for j in range(0, grid.shape[1], 8):
                block = grid[i : i + 8, j : j + 8]
                if block.mean() > 0.2:
                    block *= 0.2 / block.mean()
    return v


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (9, 13), (3, 5), (1, 1)])
def test_flakes_keep_to_their_budget_block_by_block(size):
    v = torch.rand(3, 7, *size, dtype=torch.float64, generator=seeded(0))
    v[0] *= 0.2  # means of about .1: left alone
    v[1, :, :8, :8] = 0.05
    found = unforeseen.within_budget(v)
    torch.testing.assert_close(found, budget_twin(v), rtol=1e-12, atol=0)
    assert torch.equal(found[1, :, :8, :8], v[1, :, :8, :8])
    assert size == (1, 1) or torch.equal(found[0], v[0])
    means = F.avg_pool2d(found, 8, ceil_mode=True, count_include_pad=False)
    assert means.max() <= 0.2 + 1e-12


@pytest.mark.parametrize("size", [(16, 16), (37, 30)])
def test_snow_takes_sign_steps_in_its_flakes(model, monkeypatch, size):
    x, y, steps = pictures(3, *size), torch.arange(3), 4
    seen = spy(monkeypatch, unforeseen, "snowflakes")
    found = unforeseen.snow(model, x, y, eps=0.8, steps=steps, step=0.25)
    assert len(seen) == steps + 1
    torch.testing.assert_close(found.x_adv, (unforeseen.whitened(x) + 0.8 * seen[-1][1]).clamp(0, 1), rtol=0, atol=0)
    monkeypatch.undo()
    assert seen[0][0][0].shape == (3, 7, -(-size[0] // 4), -(-size[1] // 4))
    for i, (((v, kernels, _), _), ((after, *_), _)) in enumerate(itertools.pairwise(seen)):
        gradient = uphill(
            model, lambda v, k=kernels: (unforeseen.whitened(x) + 0.8 * unforeseen.snowflakes(v, k, size)).clamp(0, 1), v, y
        )
        expected = (v + 0.25 * gradient.sign()).clamp(1e-9, 1)
        torch.testing.assert_close(after, budget_twin(expected) if i < steps - 1 else expected)  # the last is not cut
        assert after.min() > 0 and after.max() <= 1


def test_flakes_start_exponential_and_in_their_box(model, monkeypatch):
    """exp(-U / .2): the logarithm is uniform over [-5, 0]."""
    seen = spy(monkeypatch, unforeseen, "snowflakes")
    unforeseen.snow(model, pictures(2, 48, 48), torch.arange(2), eps=0.1, steps=1)
    logarithm = seen[0][0][0].log()
    assert logarithm.max() <= 0 and logarithm.min() >= -5
    assert abs(logarithm.mean() + 2.5) < 0.15 and abs(logarithm.std() - 5 / math.sqrt(12)) < 0.1


def test_streaks_are_drawn_once_an_attack_as_published(model, x, y, monkeypatch):
    seen = spy(monkeypatch, unforeseen, "snowflakes")
    unforeseen.snow(model, x, y, eps=0.5, steps=3)
    assert all(torch.equal(kernels, seen[0][0][1]) for (_, kernels, _), _ in seen)


# JPEG -------------------------------------------------------------------------------------------------------------------


def start_by_hand(n, length, eps, norm, seed):
    """A uniform point of the ball, from the numbers that the attack draws, in their order."""
    generator = seeded(seed)
    if norm == "linf":
        return eps * (2 * torch.rand(n, length, generator=generator).double() - 1)
    if norm == "l2":
        normal = torch.randn(n, length, generator=generator).double()
        radius = torch.rand(n, 1, generator=generator).double() ** (1 / length)
        return torch.stack([(eps * r * z / z.square().sum().sqrt()).clamp(-2, 2) for z, r in zip(normal, radius, strict=True)])
    exponential = -(1 - torch.rand(n, length + 1, generator=generator).double()).log()
    signs = 1 - 2 * (torch.rand(n, length, generator=generator) < 0.5).double()
    return (eps * signs * exponential[:, :-1] / exponential.sum(1, keepdim=True)).clamp(-2, 2)


def vertex_by_hand(gradient, eps):
    """The coordinates in the order of their gradients, each to the box, as long as there is room."""
    found, room = torch.zeros_like(gradient), eps
    for k in sorted(range(len(gradient)), key=lambda k: -abs(gradient[k].item())):
        found[k] = min(room, 2.0) * gradient[k].sign()
        room = max(room - 2.0, 0)
    return found


def jpeg_twin(model, x, y, eps, norm, steps, start, targets=None):
    """The specification's C5, a row at a time."""
    step, rows = eps / math.sqrt(steps), []
    for i in range(len(x)):
        clean, v = jpeg.encode(x[i : i + 1]), start[i]

        def draw(v, clean=clean):
            return jpeg.decode(clean.like(clean.flat() + v[None] / 2), tuple(x.shape[2:]))

        for t in range(steps):
            up = uphill(model, draw, v, y[i : i + 1]) if targets is None else -uphill(model, draw, v, targets[i : i + 1])
            if norm == "linf":
                v = (v + step * up.sign()).clamp(-eps, eps)
            elif norm == "l2":
                v = v + step * up / (up.norm() + 1e-8)
                v = (v * min(1.0, eps / v.norm().item())).clamp(-2, 2)
            else:
                v = v + (vertex_by_hand(up, eps) - v) / (t + 1)
        rows.append(draw(v))
    return torch.cat(rows)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.25), ("l2", 8.0), ("l1", 61.0)])
def test_jpeg_equals_the_slow_twin(model, norm, eps, targeted):
    x, y = pictures(3, 16, 32), torch.tensor([0, 1, 2])
    targets = torch.tensor([1, 3, 0]) if targeted else None
    start = start_by_hand(3, 16 * 32 * 3 // 2, eps, norm, seed=4)
    found = unforeseen.jpeg_attack(model, x, y, eps=eps, norm=norm, steps=3, targets=targets, generator=seeded(4))
    expected = jpeg_twin(model, x, y, eps, norm, 3, start, targets)
    assert (expected - x).abs().max() > 0.01
    torch.testing.assert_close(found.x_adv, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("norm", "eps"), [("linf", 0.3), ("linf", 5.0), ("l2", 3.0), ("l2", 60.0), ("l1", 9.0), ("l1", 3000.0)]
)
def test_jpeg_keeps_its_latent_in_the_ball_and_the_box(model, monkeypatch, norm, eps):
    x = pictures(3)
    seen = spy(monkeypatch, jpeg, "decode")
    unforeseen.jpeg_attack(model, x, torch.arange(3), eps=eps, norm=norm, steps=4)
    clean = jpeg.encode(x).flat()
    assert len(seen) == 5
    for (moved, size), _ in seen:
        v = 2 * (moved.flat().detach() - clean)
        length = {"linf": v.abs().amax(1), "l2": v.norm(dim=1), "l1": v.abs().sum(1)}[norm]
        assert (length <= eps * (1 + 1e-9)).all() and size == (16, 16)
        assert norm == "linf" or v.abs().max() <= 2 + 1e-9
        assert v.abs().max() > 0
    assert length.min() > 0.2 * min(eps, {"linf": eps, "l2": 2 * 384**0.5, "l1": 768.0}[norm])  # and much of the ball is used


def test_jpeg_l2_steps_to_the_surface_and_is_scaled_back(model, monkeypatch):
    x = pictures(3)
    seen = spy(monkeypatch, jpeg, "decode")
    unforeseen.jpeg_attack(model, x, torch.arange(3), eps=4.0, norm="l2", steps=9)
    v = [2 * (moved.flat().detach() - jpeg.encode(x).flat()) for (moved, _), _ in seen]
    assert all((a - b).norm(dim=1).max() <= 2 * 4 / 3 for a, b in itertools.pairwise(v))
    torch.testing.assert_close(v[-1].norm(dim=1), torch.full((3,), 4.0, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.25), ("l2", 8.0), ("l2", 60.0), ("l1", 61.0)])
def test_jpeg_starts_at_a_random_point_of_the_ball(model, monkeypatch, norm, eps):
    """The first step of Frank and Wolfe forgets it, so it is looked at here."""
    x = pictures(3)
    seen = spy(monkeypatch, jpeg, "decode")
    unforeseen.jpeg_attack(model, x, torch.arange(3), eps=eps, norm=norm, steps=1, generator=seeded(4))
    v = 2 * (seen[0][0][0].flat().detach() - jpeg.encode(x).flat())
    torch.testing.assert_close(v, start_by_hand(3, 384, eps, norm, seed=4), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_jpeg_without_a_radius_is_the_codec_alone(model, x, y, norm):
    found = unforeseen.jpeg_attack(model, x, y, eps=0.0, norm=norm, steps=2).x_adv
    torch.testing.assert_close(found, jpeg.decode(jpeg.encode(x), (8, 8)))


def test_l1_vertex_by_hand():
    up = torch.tensor([[3.0, -5.0, 1.0, 0.5], [-1.0, 2.0, 4.0, 0.0]])
    for eps, expected in (
        (5.0, [[2, -2, 1, 0], [0 - 1, 2, 2, 0]]),  # the last of the largest only in part
        (3.0, [[1, -2, 0, 0], [0, 1, 2, 0]]),
        (4.0, [[2, -2, 0, 0], [0, 2, 2, 0]]),
        (0.5, [[0, -0.5, 0, 0], [0, 0, 0.5, 0]]),
        (100.0, [[2, -2, 2, 2], [-2, 2, 2, 0]]),  # all at the box, but what has no gradient
        (0.0, [[0, 0, 0, 0], [0, 0, 0, 0]]),
    ):
        assert unforeseen.l1_vertex(up, eps, 2.0).tolist() == expected


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 7), eps=st.floats(0, 12), box=st.floats(0.1, 3), seed=st.integers(0, 999))
def test_l1_vertex_is_the_optimum_of_the_linear_program(size, eps, box, seed):
    """maximise <up, p - q> over 0 <= p, q <= box with sum(p + q) <= eps."""
    up = torch.randn(2, size, dtype=torch.float64, generator=seeded(seed))
    found = unforeseen.l1_vertex(up, eps, box)
    assert found.abs().max() <= box and (found.abs().sum(1) <= eps + 1e-9).all()
    for row, v in zip(up.numpy(), found, strict=True):
        cost = np.concatenate([-row, row])
        best = scipy.optimize.linprog(cost, A_ub=np.ones((1, 2 * size)), b_ub=[eps], bounds=(0, box))
        assert best.success and abs(-best.fun - (torch.from_numpy(row) * v).sum().item()) < 1e-7


# all attacks ------------------------------------------------------------------------------------------------------------


STRONG = {"gabor": 0.3, "snow": 1.0, "jpeg-linf": 1.0, "jpeg-l2": 16.0, "jpeg-l1": 256.0}
STEPS = {"gabor": {"step": 0.1}, "snow": {"step": 0.1}}


def call(name, *args, **options):
    """The attack's own function, where a step is to be given."""
    function = {"gabor": unforeseen.gabor, "snow": unforeseen.snow}.get(name)
    if function:
        return function(*args, **STEPS[name], **options)
    return unforeseen.jpeg_attack(*args, norm=name.removeprefix("jpeg-"), **options)


@pytest.mark.parametrize("name", unforeseen.ATTACKS)
def test_untargeted_attacks_raise_the_loss(trained, name):
    """Against the images as they are, and against the same attack in the other direction (y itself for a target)."""
    net, x, y = trained
    up = call(name, net, x, y, eps=STRONG[name], steps=10)
    down = call(name, net, x, y, eps=STRONG[name], steps=10, targets=y)
    assert up.loss.mean() > down.loss.mean() + 0.15
    assert up.loss.mean() > losses_.cross_entropy(net(x), y).mean() + 0.15
    assert up.success.sum() > down.success.sum()


@pytest.mark.parametrize("name", unforeseen.ATTACKS)
def test_targeted_attacks_raise_the_probability_of_their_target(trained, name):
    net, x, y = trained
    targets = unforeseen.wrong_classes(y, 3)
    towards = call(name, net, x, y, eps=STRONG[name], steps=10, targets=targets)
    away = call(name, net, x, targets, eps=STRONG[name], steps=10)
    there = losses_.cross_entropy(towards.logits, targets).mean()
    assert there < away.loss.mean() - 1 and there < losses_.cross_entropy(net(x), targets).mean() - 1
    torch.testing.assert_close(towards.loss, losses_.cross_entropy(towards.logits, y))  # at y, also when targeted


@pytest.mark.parametrize("name", [n for n in unforeseen.ATTACKS if n != "snow"])
def test_the_loss_rises_from_the_random_start(trained, name):
    """Not for snow, whose budget takes from the flakes that its start allows."""
    net, x, y = trained
    logits = []
    handle = net.register_forward_hook(lambda _m, _a, out: logits.append(out.detach()))
    call(name, net, x, y, eps=STRONG[name], steps=10)
    handle.remove()
    assert len(logits) == 11  # a pass a step, and one look
    losses = [losses_.cross_entropy(l, y).mean() for l in logits]
    assert losses[-1] > losses[0] + 0.3


class Sees(nn.Module):
    """A network that rounds what it sees to a type, and computes in float32 whatever surrounds it."""

    def __init__(self, net, dtype):
        super().__init__()
        self.net, self.dtype = net, dtype

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            return self.net(x.to(self.dtype).float())


HALVES = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", unforeseen.ATTACKS)
def test_half_precision_is_what_the_model_sees_and_no_more(trained, name, dtype):
    """Images of half precision are drawn as those of float32 are: nothing but the network's view is rounded."""
    net, x, y = trained
    x, net = x.to(dtype), Sees(net, dtype)
    half = call(name, net, x, y, eps=STRONG[name], steps=10)
    exact = call(name, net, x.float(), y, eps=STRONG[name], steps=10)
    assert half.x_adv.dtype == dtype and half.logits.dtype == exact.x_adv.dtype == torch.float32
    assert torch.equal(half.x_adv, exact.x_adv.to(dtype))
    torch.testing.assert_close(half.logits, exact.logits, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", unforeseen.ATTACKS)
def test_a_half_network_is_attacked_as_its_twin_in_single_precision(trained, name, dtype):
    net, x, y = trained
    clean = losses_.cross_entropy(net(x), y).mean()
    could = call(name, net, x, y, eps=STRONG[name], steps=10).loss.mean() - clean
    half = copy.deepcopy(net).to(dtype)
    gained = call(name, half, x.to(dtype), y, eps=STRONG[name], steps=10).loss.mean() - clean
    assert could > 0.1 and gained > 0.7 * could


@pytest.mark.parametrize("name", unforeseen.ATTACKS)
def test_autocast_does_not_blur_what_is_drawn(trained, name):
    """A coefficient of JPEG in 8 bits is off by a quarter of a step; the images would come back in bfloat16, too."""
    net, x, y = trained
    net = Sees(net, torch.float32)
    expected = call(name, net, x, y, eps=STRONG[name], steps=10).x_adv
    with torch.autocast("cpu", torch.bfloat16):
        found = call(name, net, x, y, eps=STRONG[name], steps=10).x_adv
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", unforeseen.ATTACKS)
def test_success_is_a_wrong_prediction(model, x, y, name, targeted):
    decided = model(x).argmax(1)
    targets = (decided + 1) % 4 if targeted else None
    found = attack(name, model, x, decided, eps=STRONG[name], steps=2, targets=targets)
    logits = model(found.x_adv)
    torch.testing.assert_close(found.logits, logits)
    torch.testing.assert_close(found.loss, losses_.cross_entropy(logits, decided))
    assert torch.equal(found.success, logits.argmax(1) != decided)
    wrong = (model(attack(name, model, x, y, eps=0.0, steps=1).x_adv).argmax(1) + 1) % 4
    still = attack(name, model, x, wrong, eps=0.0, steps=1, targets=(wrong + 1) % 4)
    assert still.success.all()  # whatever the target: the label was wrong to begin with


@pytest.mark.parametrize("name", unforeseen.ATTACKS)
def test_attack_is_the_function_of_that_name(model, x, y, name):
    options = {"eps": STRONG[name], "steps": 2, "targets": (y + 1) % 4}
    found = attack(name, model, x, y, **options, generator=seeded(3)).x_adv
    function = {"gabor": unforeseen.gabor, "snow": unforeseen.snow}.get(name, unforeseen.jpeg_attack)
    norm = {"norm": name.removeprefix("jpeg-")} if name in JPEGS else {}
    assert torch.equal(found, function(model, x, y, **options, **norm, generator=seeded(3)).x_adv)
    assert not torch.equal(found, attack(name, model, x, y, **{**options, "targets": None}, generator=seeded(3)).x_adv)


@pytest.mark.parametrize("name", unforeseen.ATTACKS)
def test_randomness_is_the_generators_alone(model, x, y, name):
    def found(generator):
        return attack(name, model, x, y, eps=STRONG[name] / 2, steps=2, generator=generator).x_adv

    a = found(seeded(3))
    torch.rand(5)
    assert torch.equal(a, found(seeded(3))) and not torch.equal(a, found(seeded(4)))
    assert torch.equal(found(None), found(seeded(0)))


@pytest.mark.parametrize("name", unforeseen.ATTACKS)
def test_rows_do_not_see_each_other(model, x, y, name):
    other = torch.cat([x[:1], 1 - x[1:]])
    a, b = (attack(name, model, z, y, eps=STRONG[name], steps=3) for z in (x, other))
    torch.testing.assert_close(a.x_adv[0], b.x_adv[0])
    torch.testing.assert_close(a.loss[0], b.loss[0])


def test_the_steps_are_the_published_ones(model, x, y, monkeypatch):
    assert abs(unforeseen.FIXED_STEP - 0.002236) < 1e-6
    seen = spy(monkeypatch, unforeseen, "gabor_noise")
    attack("gabor", model, x, y, eps=0.1, steps=2)
    moved = (seen[1][0][0] - seen[0][0][0]).abs()
    assert abs(moved.max() - unforeseen.FIXED_STEP) < 1e-9
    seen = spy(monkeypatch, jpeg, "decode")
    attack("jpeg-linf", model, x, y, eps=0.4, steps=16)
    moved = [2 * (b.flat() - a.flat()).abs().max().item() for ((a, _), _), ((b, _), _) in itertools.pairwise(seen)]
    assert abs(max(moved) - 0.1) < 1e-9  # eps / sqrt(steps)


def test_published_radii():
    assert set(unforeseen.CALIBRATED) == set(unforeseen.ATTACKS)
    assert [round(255 * e, 6) for e in unforeseen.CALIBRATED["gabor"]] == [6.25, 12.5, 25, 400, 800, 1600]
    assert unforeseen.CALIBRATED["jpeg-l1"] == (2, 8, 64, 256, 512, 1024)
    assert all(list(radii) == sorted(radii) and len(radii) == 6 for radii in unforeseen.CALIBRATED.values())
    assert set(unforeseen.ATA_CIFAR10) == set(JPEGS)
    for best in unforeseen.ATA_CIFAR10.values():
        assert len(best) == 6 and list(best) == sorted(best, reverse=True)
    assert unforeseen.ATA_CIFAR10["jpeg-linf"][0] == 0.897 and unforeseen.ATA_CIFAR10["jpeg-l1"][-1] == 0.377


@settings(max_examples=12, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    eps=st.floats(0, 3000),
    steps=st.integers(1, 3),
    seed=st.integers(0, 99),
    targeted=st.booleans(),
)
def test_any_size_gives_finite_images_in_the_box(height, width, eps, steps, seed, targeted):
    net = toy().float()
    x = pictures(2, height, width, seed, torch.float32).round(decimals=1)  # corners of the box included
    y = torch.tensor([0, 3])
    targets = torch.tensor([2, 1]) if targeted else None
    for name in unforeseen.ATTACKS:
        found = attack(name, net, x, y, eps=eps, steps=steps, targets=targets, generator=seeded(seed))
        assert found.x_adv.shape == x.shape and found.x_adv.dtype == torch.float32
        assert torch.isfinite(found.x_adv).all() and found.x_adv.min() >= 0 and found.x_adv.max() <= 1
        assert found.success.shape == found.loss.shape == (2,) and not found.x_adv.requires_grad


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", unforeseen.ATTACKS)
def test_named_sizes(model, name, size):
    x = pictures(2, *size)
    found = attack(name, model, x, torch.tensor([0, 1]), eps=STRONG[name], steps=2)
    assert found.x_adv.shape == x.shape and found.x_adv.dtype == torch.float64
    assert found.x_adv.min() >= 0 and found.x_adv.max() <= 1 and not torch.equal(found.x_adv, x)


@pytest.mark.parametrize("name", unforeseen.ATTACKS)
def test_leaves_the_model_as_it_was(model, x, y, name):
    model.train()
    model.conv2.eval()
    model.head.weight.requires_grad_(False)
    model.conv1.weight.grad = torch.ones_like(model.conv1.weight)
    before, pixels, labels = state_of(model), x.clone(), y.clone()
    attack(name, model, x, y, eps=0.5, steps=2)
    attack(name, model, x, y, eps=0.5, steps=2, targets=(y + 1) % 4)
    assert same_state(before, state_of(model)) and torch.equal(pixels, x) and torch.equal(labels, y)
    broken = Breaks(model)
    before = state_of(broken)
    with pytest.raises(RuntimeError, match="forced"):
        attack(name, broken, x, y, eps=0.5, steps=2)
    assert same_state(before, state_of(broken))


@pytest.mark.parametrize("name", unforeseen.ATTACKS)
def test_surroundings_change_nothing(model, x, y, name):
    """Without gradients around it, with images that ask for one, with a network in training mode."""
    net = nn.Sequential(nn.BatchNorm2d(3), model).double().eval()
    expected = attack(name, net, x, y, eps=0.5, steps=3).x_adv
    with torch.no_grad():
        assert torch.equal(expected, attack(name, net, x, y, eps=0.5, steps=3).x_adv)
    found = attack(name, net.train(), x.clone().requires_grad_(), y, eps=0.5, steps=3).x_adv
    assert torch.equal(expected, found) and not found.requires_grad


def test_in_colour_is_the_grey_network_on_luma(x, y):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        grey = Toy(channels=1).double()
    seeing = unforeseen.InColour(grey)
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(1, 3, 1, 1)
    torch.testing.assert_close(seeing(x), grey((weights * x).sum(1, keepdim=True)))
    one = images.luma(x)
    torch.testing.assert_close(seeing(one.expand(-1, 3, -1, -1)), grey(one))
    before = state_of(grey)
    for name in unforeseen.ATTACKS:
        found = attack(name, seeing, one.expand(-1, 3, -1, -1), y, eps=0.5, steps=2)
        assert found.x_adv.shape == x.shape
        torch.testing.assert_close(found.logits, grey(images.luma(found.x_adv)))
    assert same_state(before, state_of(grey))


def test_wrong_classes_are_wrong_and_uniform():
    y = torch.arange(5).repeat(2000)
    found = unforeseen.wrong_classes(y, 5)
    assert found.shape == y.shape and found.dtype == y.dtype and found.min() == 0 and found.max() == 4
    assert (found != y).all()
    counts = torch.zeros(5, 5).index_put((y, found), torch.ones(len(y)), accumulate=True)
    wrong = counts[~torch.eye(5, dtype=torch.bool)]
    assert wrong.min() > 420 and wrong.max() < 580  # of 2,000 labels, 500 each, and five deviations of 19
    assert torch.equal(found, unforeseen.wrong_classes(y, 5)) and torch.equal(found, unforeseen.wrong_classes(y, 5, seeded(0)))
    assert not torch.equal(found, unforeseen.wrong_classes(y, 5, seeded(1)))
    assert unforeseen.wrong_classes(torch.tensor([0, 1, 1]), 2).tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="there is one class; a wrong one needs two at least"):
        unforeseen.wrong_classes(torch.zeros(3, dtype=torch.long), 1)


@pytest.mark.parametrize("name", unforeseen.ATTACKS)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: {"x": x[:, :1]}, r"1 channel\(s\); this attack is defined in colour.*unforeseen\.InColour\(model\)"),
        (lambda x, y: {"x": 255 * x}, "divide 8-bit images by 255"),
        (lambda x, y: {"x": x * torch.nan}, "images range over"),
        (lambda x, y: {"x": x[0]}, r"x\[None\]"),
        (lambda x, y: {"x": x[:0], "y": y[:0]}, "empty batch"),
        (lambda x, y: {"y": y + 1}, r"labels range over \[1, 4\], but the model has 4 classes"),
        (lambda x, y: {"y": y - 1}, r"labels range over \[-1, 2\]"),
        (lambda x, y: {"y": y.double()}, "expected 6 integers"),
        (lambda x, y: {"y": y[:2]}, "6 images but 2 labels"),
        (lambda x, y: {"targets": y + 1}, r"labels range over \[1, 4\]"),
        (lambda x, y: {"targets": y[:2]}, "expected 6 integers"),
        (lambda x, y: {"steps": 0}, "steps=0: one at least"),
        (lambda x, y: {"steps": -1}, "steps=-1"),
        (lambda x, y: {"eps": -0.1}, "eps is -0.1"),
        (lambda x, y: {"eps": math.nan}, "eps is nan"),
        (lambda x, y: {"eps": math.inf}, "eps is inf"),
    ],
)
def test_bad_input_is_refused(model, x, y, name, spoil, message):
    given_ = {"x": x, "y": y, "eps": 0.1, "steps": 1, "targets": None} | spoil(x, y)
    with pytest.raises(ValueError, match=message):
        attack(name, model, given_.pop("x"), given_.pop("y"), **given_)


def test_labels_are_checked_beside_targets(model, x, y):
    with pytest.raises(ValueError, match=r"labels range over \[1, 4\]"):
        unforeseen.gabor(model, x, y + 1, eps=0.1, steps=1, targets=y)


def test_unknown_norms_are_refused(model, x, y):
    with pytest.raises(ValueError, match="unknown norm 'l0'; choose linf, l2 or l1"):
        unforeseen.jpeg_attack(model, x, y, eps=0.1, norm="l0")


def test_broken_networks_are_named(model, x, y):
    with torch.no_grad():
        model.head.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"head\.weight"):
        unforeseen.snow(model, x, y, eps=0.1, steps=1)
    with pytest.raises(ValueError, match="expected logits"):
        unforeseen.snow(nn.Identity(), x, y, eps=0.1, steps=1)


def test_a_result_that_is_not_finite_is_caught(model, x, y, monkeypatch):
    original, calls = unforeseen.gabor_noise, []

    def breaks_at_the_end(v, kernels):
        calls.append(0)
        return original(v, kernels) * (torch.nan if len(calls) > 2 else 1)

    monkeypatch.setattr(unforeseen, "gabor_noise", breaks_at_the_end)
    with pytest.raises(RuntimeError, match=r"not finite or outside \[0, 1\]"):
        unforeseen.gabor(model, x, y, eps=0.1, steps=2)


@pytest.mark.parametrize("name", unforeseen.ATTACKS)
@pytest.mark.parametrize("targeted", [False, True])
def test_batches_change_nothing(name, targeted, model):
    """All that is random is drawn for all images before they are parted."""
    x, y = pictures(5), torch.tensor([0, 1, 2, 3, 0])
    targets = (y + 1) % 4 if targeted else None
    kernel, _, norm = name.partition("-")
    run = {"gabor": unforeseen.gabor, "snow": unforeseen.snow, "jpeg": unforeseen.jpeg_attack}[kernel]
    given = {"eps": 0.5, "steps": 3, "targets": targets} | ({"norm": norm} if norm else {})
    whole, parts = (run(model, x, y, batch_size=b, **given) for b in (5, 2))
    assert torch.equal(parts.success, whole.success) and len(parts.x_adv) == 5
    for name_ in ("x_adv", "loss", "logits"):
        torch.testing.assert_close(getattr(parts, name_), getattr(whole, name_), rtol=1e-12, atol=1e-12)


def test_large_images_travel_in_small_batches(model, monkeypatch):
    """Unless told otherwise, memory depends on no number of images: the network never sees more rows than fit."""
    monkeypatch.setattr(devices, "PIXELS_WITH_GRAPH", 2 * 16**2)
    seen, forward = [], model.forward
    monkeypatch.setattr(model, "forward", lambda z: (seen.append(len(z)), forward(z))[1])
    attack("gabor", model, pictures(5), torch.zeros(5, dtype=torch.long), eps=0.5, steps=1)
    assert max(seen) == 2 and sum(seen) == 10
