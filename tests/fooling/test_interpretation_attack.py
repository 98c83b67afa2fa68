"""Attacks against interpretability: their objectives step by step, what they keep, and what they leave alone."""

import pytest
import torch

from lib.attacks import single_step
from lib.attacks import steps as steps_
from lib.explanations import activation_maps
from lib.fooling import interpretation_attack
from lib.fooling.interpretation_attack import aai
from lib.measures import comparison
from lib.system import devices
from tests.conftest import same_state, state_of
from tests.fooling.test_discrepancy import Headed


@pytest.fixture
def headed():
    return Headed()


def own_map(model, x, y):
    maps, _ = activation_maps.all_cams(model, x, check=False)
    return maps[torch.arange(len(x)), y]


def twin(model, x, y, *, eps, form, k, hinge, steps, step):
    """All iterates, the random start first, with the form's measure of each (steps + 1, N); no image is chosen yet."""
    start = steps_.random_point(x, eps, "linf", torch.Generator().manual_seed(0))
    z, before, seen = (x + start).clamp(0, 1), own_map(model, x, y).detach(), []
    for _ in range(steps + 1):
        z = z.detach().requires_grad_()
        after, logits = own_map(model, z, y), model(z)
        moved = []
        for n in range(len(x)):
            if form == "l1":
                moved.append((after[n] - before[n]).abs().sum())
            else:
                flat = before[n].flatten().tolist()
                top = sorted(range(len(flat)), key=lambda i, flat=flat: -flat[i])[:k]
                moved.append(-after[n].flatten()[top].sum())
        moved = torch.stack(moved)
        seen.append((z.detach(), moved.detach(), logits.argmax(1)))
        decided = model(x).argmax(1).tolist()
        wrong = torch.stack([max(row[j] - row[c] for j in range(4) if j != c) for row, c in zip(logits, decided, strict=True)])
        (gradient,) = torch.autograd.grad((moved - hinge * wrong.clamp_min(0)).sum(), z)
        z = (x + (z + step * gradient.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    return seen


@pytest.mark.parametrize("form", ["l1", "topk"])
@pytest.mark.parametrize("hinge", [0.0, 1.0])
def test_the_released_form_returns_the_last_iterate(headed, x, y, form, hinge):
    options = {"eps": 0.2, "form": form, "k": 3, "hinge": hinge, "steps": 4, "step": 0.06}
    found = aai(headed, x, y, keep=False, **options)
    last, _, decided = twin(headed, x, y, **options)[-1]
    torch.testing.assert_close(found.x_adv, last)
    assert torch.equal(found.kept, decided == headed(x).argmax(1))
    torch.testing.assert_close(found.before, own_map(headed, x, y))
    torch.testing.assert_close(found.after, own_map(headed, last, y))


@pytest.mark.parametrize("form", ["l1", "topk"])
@pytest.mark.parametrize("eps", [0.02, 0.3])
def test_keeping_the_prediction_takes_the_farthest_iterate_that_does(headed, x, y, form, eps):
    options = {"eps": eps, "form": form, "k": 3, "hinge": 1.0, "steps": 5, "step": eps / 2}
    found = aai(headed, x, y, **options)
    predicted, before = headed(x).argmax(1), own_map(headed, x, y).detach()
    still = 0.0 if form == "l1" else None
    for n in range(len(x)):
        here = still if form == "l1" else -float(before[n].flatten().topk(3).values.sum())
        best, image = here, x[n]
        for z, moved, decided in twin(headed, x, y, **options):
            if decided[n] == predicted[n] and float(moved[n]) > best:
                best, image = float(moved[n]), z[n]
        torch.testing.assert_close(found.x_adv[n], image)
    assert torch.equal(headed(found.x_adv).argmax(1), predicted) and found.kept.all()
    assert ((found.x_adv - x).abs() <= eps + 1e-12).all() and found.x_adv.min() >= 0 and found.x_adv.max() <= 1
    torch.testing.assert_close(found.after, own_map(headed, found.x_adv, y))


def test_it_moves_the_map_further_than_noise_of_its_size(headed, x, y):
    y = headed(x).argmax(1)
    found = aai(headed, x, y, eps=0.1, steps=20, step=0.02)
    noise = single_step.step_along(x, single_step.random_sign(x, torch.Generator().manual_seed(0)), 0.1)
    moved = (found.after - found.before).abs().sum((1, 2))
    assert moved.mean() > (own_map(headed, noise, y) - found.before).abs().sum((1, 2)).mean()
    assert comparison.kendall(found.before, found.after).mean() < 0.9


def test_without_a_radius_nothing_moves(headed, x, y):
    found = aai(headed, x, y, eps=0.0, steps=3)
    assert torch.equal(found.x_adv, x) and found.kept.all()
    torch.testing.assert_close(found.after, found.before)


def test_the_model_is_left_as_it_was(headed, x, y, monkeypatch):
    before = state_of(headed)
    aai(headed, x, y, eps=0.1, steps=2)
    assert same_state(before, state_of(headed))

    def fails(*_):
        raise RuntimeError("forced")

    monkeypatch.setattr(interpretation_attack, "_moved", fails)
    with pytest.raises(RuntimeError, match="forced"):
        aai(headed, x, y, eps=0.1, steps=2)
    assert same_state(before, state_of(headed))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "l2"}, "unknown form 'l2'"),
        ({"form": "topk", "k": 17}, "k=17: the map has 16 positions"),
        ({"form": "topk", "k": 0}, "k=0"),
        ({"steps": 0}, "steps=0"),
        ({"hinge": -1.0}, "hinge=-1.0"),
        ({"eps": -0.1}, "eps is -0.1"),
        ({"eps": float("nan")}, "eps is nan"),
    ],
)
def test_bad_input_is_refused(headed, x, y, options, message):
    with pytest.raises(ValueError, match=message):
        aai(headed, x, y, **({"eps": 0.1} | options))


def test_labels_and_images_are_checked(headed, x, y):
    with pytest.raises(ValueError, match="labels range over"):
        aai(headed, x, y + 3, eps=0.1)
    with pytest.raises(ValueError, match="images range over"):
        aai(headed, x * 255, y, eps=0.1)


@pytest.mark.parametrize("form", ["l1", "topk"])
@pytest.mark.parametrize("keep", [True, False])
def test_batches_change_nothing(form, keep, headed, x, y):
    whole, parts = (aai(headed, x, y, eps=0.1, form=form, k=3, steps=4, step=0.03, keep=keep, batch_size=b) for b in (6, 4))
    for name in ("x_adv", "before", "after"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-12, atol=1e-12)
    assert torch.equal(parts.kept, whole.kept)


def test_a_batch_of_none_is_refused(headed, x, y):
    with pytest.raises(ValueError, match="batch_size=0: one image at least"):
        aai(headed, x, y, eps=0.1, steps=1, batch_size=0)


def test_large_images_travel_in_small_batches(headed, x, y, monkeypatch):
    monkeypatch.setattr(devices, "PIXELS_WITH_GRAPH", 2 * 8**2)
    seen, forward = [], headed.net.forward
    monkeypatch.setattr(headed.net, "forward", lambda z: (seen.append(len(z)), forward(z))[1])
    aai(headed, x, y, eps=0.1, k=3, steps=1)
    assert max(seen) == 2
