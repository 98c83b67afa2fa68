"""Attacks against slow twins, closed forms on linear models, torchattacks and captum, and their own invariants."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lib.attacks import losses, projected, single_step
from lib.attacks import steps as steps_
from lib.data import datasets
from lib.measures import comparison
from lib.networks import models
from lib.system.flops import flops
from tests.conftest import Breaks, same_state, state_of, toy


class Linear(nn.Module):
    """Two classes with logits (0, w.x + b): the gradient of every loss is along w, so attacks have closed forms."""

    def __init__(self, w, b=0.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))
        self.b = b

    def forward(self, x):
        score = (x.flatten(1) * self.w).sum(1) + self.b
        return torch.stack([torch.zeros_like(score), score], 1)


def pgd_twin(model, x, y, eps, step, steps, norm):
    """Madry et al. 2018 without random start, a row at a time."""
    rows = []
    for i in range(len(x)):
        x0 = x[i : i + 1]
        xi = x0.clone()
        for _ in range(steps):
            xi.requires_grad_()
            loss = nn.functional.cross_entropy(model(xi), y[i : i + 1])
            (g,) = torch.autograd.grad(loss, xi)
            if norm == "linf":
                delta = (xi + step * torch.sign(g) - x0).clamp(-eps, eps)
            else:
                delta = xi + step * g / g.norm() - x0
                if delta.norm() > eps:
                    delta = delta * eps / delta.norm()
            xi = (x0 + delta).clamp(0, 1).detach()
        rows.append(xi)
    return torch.cat(rows)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_equals_the_slow_twin(model, x, y, norm):
    eps = 0.05 if norm == "linf" else 0.4
    found = projected.pgd(model, x, y, eps=eps, step=eps / 3, steps=5, norm=norm, random_start=False)
    assert torch.allclose(found.x_adv, pgd_twin(model, x, y, eps, eps / 3, 5, norm), rtol=0, atol=1e-12)


@pytest.mark.parametrize("judge", [True, False])
@pytest.mark.parametrize("rows", [1, 4, 100])
def test_batches_of_pgd_are_pgd(model, x, y, judge, rows):
    """One stream of random starts: what is found does not depend on who travels with whom, judged or not."""
    whole = projected.pgd(model, x, y, eps=0.05, steps=3, judge=judge)
    found = projected.pgd_in_batches(model, x, y, eps=0.05, steps=3, judge=judge, batch_size=rows)
    for name in ("x_adv", "success", "loss", "logits", "first_success"):
        a, b = getattr(whole, name), getattr(found, name)
        assert (a is None and b is None) or torch.allclose(a.double(), b.double(), atol=1e-12), name
    assert (found.success is None) == (not judge)


def test_large_images_travel_few_at_once(model, x, y, monkeypatch):
    seen, real = [], projected.pgd
    monkeypatch.setattr(projected, "pgd", lambda model, x, y, **options: seen.append(len(x)) or real(model, x, y, **options))
    monkeypatch.setattr(projected.devices, "PIXELS_WITH_GRAPH", 2 * x.shape[-1] ** 2)
    projected.pgd_in_batches(model, x, y, eps=0.05, steps=1)
    assert seen == [2] * (len(x) // 2) + [1] * (len(x) % 2)


def test_of_batches_each_warning_is_told_once(x, y):
    flat = Linear([0.0] * x[0].numel())
    said = projected.pgd_in_batches(flat, x, y.clamp(max=1), eps=0.05, steps=1, batch_size=2).warnings
    assert said and len(set(said)) == len(said)
    with pytest.raises(ValueError, match="no trace"):
        projected.pgd_in_batches(flat, x, y, eps=0.05, steps=1, trace=True)


def test_fgsm_by_hand():
    model = Linear([1.0, -2.0, 0.0, 3.0])
    x = torch.tensor([[[[0.5, 0.5], [0.5, 0.95]]]], dtype=torch.float64)
    first, second = single_step.fgsm(model, x, torch.tensor([0]), eps=[0.1, 0.0])
    assert torch.allclose(first.x_adv.flatten(), torch.tensor([0.6, 0.4, 0.5, 1.0], dtype=torch.float64))
    assert torch.equal(second.x_adv, x)
    (down,) = single_step.fgsm(model, x, torch.tensor([0]), eps=[0.1], targeted=True)
    assert torch.allclose(down.x_adv.flatten(), torch.tensor([0.4, 0.6, 0.5, 0.85], dtype=torch.float64))


def test_pgd_finds_the_minimal_l2_direction_of_a_linear_model():
    model = Linear([3.0, 4.0, 0.0, 0.0], b=-3.5)  # score 0 at the centre of the box
    x = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    found = projected.pgd(model, x, torch.tensor([0]), eps=0.1, steps=20, norm="l2", random_start=False)
    expected = x.flatten() + 0.1 * torch.tensor([0.6, 0.8, 0.0, 0.0])
    assert torch.allclose(found.x_adv.flatten(), expected, atol=1e-3)
    assert found.success.all()


def test_targeted_pgd_goes_to_the_target():
    model = Linear([1.0, -2.0, 0.5, 3.0], b=-1.5)
    x = torch.full((2, 1, 2, 2), 0.5, dtype=torch.float64)
    found = projected.pgd(model, x, torch.tensor([0, 1]), eps=0.1, steps=10, targeted=True, random_start=False)
    direction = 0.1 * torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64)
    assert torch.allclose(found.x_adv.flatten(1) - 0.5, torch.stack([-direction, direction]))
    assert found.success.all()


def test_a_restart_replaces_another_only_where_it_is_better():
    def result(success, loss, mark):
        n = len(success)
        x, ones = torch.full((n, 1, 1, 1), mark), torch.full((n,), int(mark))
        return steps_.AttackResult(x, torch.tensor(success), torch.tensor(loss), ones[:, None], ones)

    # rows: success against failure, failure against success, larger loss, smaller loss, a tie
    a = result([True, False, True, False, True], [1.0, 9.0, 1.0, 5.0, 3.0], 0.0)
    b = result([False, True, True, False, True], [9.0, 1.0, 2.0, 4.0, 3.0], 1.0)
    for targeted, expected in ((False, [0, 1, 1, 0, 0]), (True, [0, 1, 0, 1, 0])):
        best = projected._better(a, b, targeted)
        assert best.x_adv.flatten().tolist() == best.first_success.tolist() == expected
        assert best.success.tolist() == [True, True, True, False, True]


def test_fgsm_for_many_eps_equals_one_at_a_time(model, x, y):
    many = single_step.fgsm(model, x, y, eps=[0.01, 0.1])
    for e, found in zip([0.01, 0.1], many, strict=True):
        (alone,) = single_step.fgsm(model, x, y, eps=[e])
        assert torch.equal(found.x_adv, alone.x_adv) and torch.equal(found.success, alone.success)
        assert torch.allclose(found.loss, losses.cross_entropy(model(found.x_adv), y))


def test_torchattacks_agrees():
    import torchattacks

    net = toy().float()
    x, y = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(2)), torch.arange(8) % 4
    ours = single_step.fgsm(net, x, y, eps=[0.03])[0].x_adv
    assert torch.allclose(ours, torchattacks.FGSM(net, eps=0.03)(x, y), atol=1e-6)
    ours = projected.pgd(net, x, y, eps=0.03, step=0.01, steps=7, random_start=False).x_adv
    assert torch.allclose(ours, torchattacks.PGD(net, eps=0.03, alpha=0.01, steps=7, random_start=False)(x, y), atol=1e-6)
    ours = projected.pgd(net, x, y, eps=0.3, step=0.1, steps=7, norm="l2", random_start=False).x_adv
    theirs = torchattacks.PGDL2(net, eps=0.3, alpha=0.1, steps=7, random_start=False)(x, y)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_margin_by_hand():
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 0.0, -1.0]])
    assert losses.margin(logits, torch.tensor([1, 2])).tolist() == [-1.0, 6.0]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@settings(max_examples=25, deadline=None)
@given(eps=st.floats(0, 0.5), steps=st.integers(0, 4), seed=st.integers(0, 99), targeted=st.booleans())
def test_always_inside_the_ball_and_the_box(norm, eps, steps, seed, targeted):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(3, 3, 6, 6, dtype=torch.float64, generator=generator).round(decimals=1)  # corners of the box included
    y = torch.randint(0, 4, (3,), generator=generator)
    found = projected.pgd(toy(), x, y, eps=eps, steps=steps, norm=norm, targeted=targeted, generator=generator)
    delta = (found.x_adv - x).flatten(1)
    size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert (size <= eps + 1e-9).all()
    assert found.x_adv.min() >= 0 and found.x_adv.max() <= 1
    assert torch.equal(found.success, steps_.fooled(toy()(found.x_adv), y, targeted))


def test_a_batch_equals_its_rows(model, x, y):
    together = projected.pgd(model, x, y, eps=0.1, steps=4, random_start=False).x_adv
    alone = torch.cat(
        [projected.pgd(model, x[i : i + 1], y[i : i + 1], eps=0.1, steps=4, random_start=False).x_adv for i in range(6)]
    )
    assert torch.allclose(together, alone, atol=1e-12)


def test_randomness_is_the_generators_alone(model, x, y):
    a = projected.pgd(model, x, y, eps=0.1, steps=2, generator=torch.Generator().manual_seed(3)).x_adv
    torch.rand(5)
    b = projected.pgd(model, x, y, eps=0.1, steps=2, generator=torch.Generator().manual_seed(3)).x_adv
    c = projected.pgd(model, x, y, eps=0.1, steps=2, generator=torch.Generator().manual_seed(4)).x_adv
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_restarts_never_do_worse_and_prefer_success(model, x, y):
    one = projected.pgd(model, x, y, eps=0.08, steps=3, generator=torch.Generator().manual_seed(0))
    three = projected.pgd(model, x, y, eps=0.08, steps=3, restarts=3, generator=torch.Generator().manual_seed(0))
    assert (three.success | ~one.success).all()
    same = three.success == one.success
    assert (three.loss[same] >= one.loss[same]).all()
    logits = model(three.x_adv)
    assert torch.allclose(three.loss, losses.cross_entropy(logits, y)) and torch.equal(three.success, steps_.fooled(logits, y))


def test_trace_and_first_success(model, x, y):
    found = projected.pgd(model, x, y, eps=0.3, steps=6, step=0.06, random_start=False, trace=True)
    assert found.trace.loss.shape == found.trace.fooled.shape == (6, 6)
    assert torch.allclose(found.trace.loss[0], losses.cross_entropy(model(x), y))
    for row in range(6):
        hits = [*found.trace.fooled[:, row].tolist(), bool(found.success[row])]
        assert found.first_success[row] == (hits.index(True) if any(hits) else -1)


def test_loss_rises_along_the_path_of_a_linear_model():
    model = Linear([0.3, -0.2, 0.1, 0.5])
    x = torch.full((2, 1, 2, 2), 0.5, dtype=torch.float64)
    found = projected.pgd(model, x, torch.tensor([0, 1]), eps=0.2, steps=8, step=0.02, random_start=False, trace=True)
    assert (found.trace.loss.diff(dim=0) > 0).all()


def test_random_sign_has_the_size_of_fgsm_and_no_direction():
    noise = single_step.random_sign(torch.zeros(64, 3, 16, 16), torch.Generator().manual_seed(0))
    assert set(noise.unique().tolist()) == {-1.0, 1.0}
    assert abs(noise.mean()) < 0.02


def test_random_points_fill_the_ball():
    x = torch.zeros(4000, 1, 1, 2)
    points = steps_.random_point(x, 2.0, "l2", torch.Generator().manual_seed(0)).flatten(1)
    radius = points.norm(dim=1)
    assert radius.max() <= 2 + 1e-6
    # area grows with the square: half the points lie outside 2 / sqrt(2)
    assert abs((radius > 2 / 2**0.5).float().mean() - 0.5) < 0.03
    assert abs(steps_.random_point(x, 2.0, "linf", torch.Generator().manual_seed(0)).abs().mean() - 1) < 0.03


def test_psnr_row_of_the_paper():
    """38.32 / 25.97 / 22.64 / 20.32 dB at eps .01 / .05 / .075 / .1: the scale of [0, 1], up to clipping and 8-bit rounding."""

    x = datasets.load("shapes", "test", limit=40).images
    model = models.create("plain", classes=10)
    direction, _ = single_step.fgsm_direction(model, x, torch.arange(40) % 10)
    for eps, published in ((0.01, 38.32), (0.05, 25.97), (0.075, 22.64), (0.1, 20.32)):
        psnr = comparison.psnr(x, single_step.step_along(x, direction, eps)).mean()
        exact = -20 * torch.log10(torch.tensor(eps))
        assert exact - 1e-3 <= psnr < exact + 0.7  # clipping can only make the change smaller
        assert abs(psnr - published) < 1.8


def test_warnings_say_why_an_attack_is_weak(model, x, y):
    found = projected.pgd(nn.Sequential(model, nn.Softmax(1)), x, y, eps=0.1, steps=1)
    assert any("probabilities" in w for w in found.warnings)

    class Flat(nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 4, dtype=x.dtype) + 0 * x.sum((1, 2, 3))[:, None] + torch.tensor([5.0, 0, 0, 0])

    assert any("zero gradients on 100%" in w for w in projected.pgd(Flat(), x, y, eps=0.1, steps=1).warnings)
    assert projected.pgd(model, x, y, eps=0.1, steps=1).warnings == ()


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "broken"])
def test_leaves_the_model_as_it_was(model, x, y, attack):
    net = (Breaks(model) if attack == "broken" else model).train()
    model.conv1.weight.grad = torch.ones_like(model.conv1.weight)
    before, images = state_of(net), x.clone()
    if attack == "fgsm":
        single_step.fgsm(net, x, y, eps=[0.1])
    elif attack == "pgd":
        projected.pgd(net, x, y, eps=0.1, steps=2, restarts=2)
    else:
        with pytest.raises(RuntimeError, match="forced"):
            projected.pgd(net, x, y, eps=0.1, steps=2)
    assert same_state(before, state_of(net))
    assert torch.equal(images, x)


def test_flops_are_the_steps_and_one_look(small_plain):
    x, y = torch.rand(4, 3, 32, 32), torch.arange(4)

    def forward_and_input_backward():
        z = x.clone().requires_grad_()
        for p in small_plain.parameters():
            p.requires_grad_(False)
        torch.autograd.grad(small_plain(z).sum(), z)

    floor, forward = flops(forward_and_input_backward), flops(lambda: small_plain(x))
    assert flops(lambda: projected.pgd(small_plain, x, y, eps=0.1, steps=10, judge=False)) == 10 * floor
    assert flops(lambda: projected.pgd(small_plain, x, y, eps=0.1, steps=10)) == 10 * floor + forward
    assert flops(lambda: single_step.fgsm(small_plain, x, y, eps=[0.01, 0.02, 0.03])) == floor + 3 * forward
    assert flops(lambda: single_step.fgsm_direction(small_plain, x, y)) == floor


def test_a_result_outside_its_bounds_is_caught(x):
    with pytest.raises(RuntimeError, match="left its ball"):
        steps_.check_result(x, (x + 0.2).clamp(0, 1), 0.1, "linf")
    with pytest.raises(RuntimeError, match=r"left \[0, 1\]"):
        steps_.check_result(x, x + 1, 2.0, "linf")
    with pytest.raises(RuntimeError, match="not finite"):
        steps_.check_result(x, x * torch.nan, 0.1, "linf")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": -0.1, "steps": 1}, "eps is -0.1"),
        ({"eps": float("nan"), "steps": 1}, "eps is nan"),
        ({"eps": 0.1, "steps": -1}, "steps=-1"),
        ({"eps": 0.1, "steps": 1, "restarts": 0}, "1 restart"),
        ({"eps": 0.1, "steps": 1, "restarts": 2, "judge": False}, "judging"),
        ({"eps": 0.1, "steps": 1, "norm": "l1"}, "unknown norm 'l1'"),
        ({"eps": 0.1, "steps": 1, "loss": lambda z, y: nn.functional.cross_entropy(z, y)}, "per sample"),
    ],
)
def test_bad_options_say_what_to_do(model, x, y, options, message):
    with pytest.raises(ValueError, match=message):
        projected.pgd(model, x, y, **options)


def test_bad_data_is_refused(model, x, y):
    with pytest.raises(ValueError, match="normalise inside"):
        projected.pgd(model, x * 2, y, eps=0.1, steps=1)
    with pytest.raises(ValueError, match="4 classes"):
        projected.pgd(model, x, y + 2, eps=0.1, steps=1)
    with pytest.raises(ValueError, match="6 images but 2 labels"):
        projected.pgd(model, x, y[:2], eps=0.1, steps=1)
    with torch.no_grad():
        model.head.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"head\.weight"):
        single_step.fgsm(model, x, y, eps=[0.1])


def test_ascend_climbs_any_objective(model, x, y):
    """On the cross-entropy it is PGD's path; on a sum of pixels it ends at the box's corner."""
    options = {"eps": 0.1, "steps": 3, "step": 0.04}
    found = projected.ascend(
        lambda z: losses.cross_entropy(model(z), y), x, generator=torch.Generator().manual_seed(4), **options
    )
    twin = projected.pgd(model, x, y, generator=torch.Generator().manual_seed(4), judge=False, **options)
    torch.testing.assert_close(found, twin.x_adv)
    corner = projected.ascend(lambda z: z.sum((1, 2, 3)), x, eps=0.1, steps=10, step=0.05)
    torch.testing.assert_close(corner, (x + 0.1).clamp(max=1))
    still = projected.ascend(lambda z: z.sum((1, 2, 3)), x, eps=0.1, steps=0, step=0.05, random_start=False)
    assert torch.equal(still, x)
    with pytest.raises(ValueError, match="it must be per sample"):
        projected.ascend(lambda z: z.sum(), x, **options)
    with pytest.raises(ValueError, match="steps=-1"):
        projected.ascend(lambda z: z.sum((1, 2, 3)), x, eps=0.1, steps=-1, step=0.05)
