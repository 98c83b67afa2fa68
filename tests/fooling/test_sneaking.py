"""The attack that hides: what it must keep, what it must find, and the bound that it cannot go under."""

import functools

import pytest
import torch

from lib.attacks import pgd
from lib.fooling import discrepancy, sneaking
from tests.conftest import Breaks, same_state, state_of, toy

EPS = 0.15
IG = functools.partial(discrepancy.integrated, steps=4)


@pytest.fixture
def model():
    return toy(seed=3).eval()


@pytest.fixture
def y(model, x):
    return model(x).argmax(1)


def sneak(model, x, y, **options):
    model.stages = ("act2",)
    return sneaking.sneak(model, x, y, **{"eps": EPS, "steps": 30} | options)


@pytest.mark.parametrize("classes", ["one", "two"])
@pytest.mark.parametrize(("interpreter", "beta"), [(discrepancy.cam, None), (IG, 20.0), (IG, None)])
def test_what_hides_is_fooled_and_has_moved_less(model, x, y, classes, interpreter, beta):
    before = state_of(model)
    found = sneak(model, x, y, classes=classes, interpreter=interpreter, beta=beta)
    assert same_state(before, state_of(model))
    assert (found.x_adv - x).abs().max() <= EPS + 1e-9 and found.x_adv.min() >= 0 and found.x_adv.max() <= 1
    assert found.fooled.any() and (found.hidden <= found.first).all()
    decided = model(found.x_adv).argmax(1)
    assert torch.equal(decided[found.fooled], found.target[found.fooled]) and (found.target != y)[found.fooled].all()
    asked = torch.stack([y, found.target] if classes == "two" else [y], 1)
    with torch.no_grad():
        a, b = (interpreter(model, image, asked).values for image in (x, found.x_adv))
    wanted = (a - b).flatten(2).abs().sum(2).mean(1)  # both discrepancies are means over their classes
    torch.testing.assert_close(found.hidden, wanted)


def test_it_hides_from_one_class_and_not_under_the_bound_of_two(model, x, y):
    """Proposition 1, which no attack can break; and most of what PGD moved one class by can be hidden."""
    one, two = sneak(model, x, y, classes="one"), sneak(model, x, y, classes="two")
    assert (two.hidden >= two.bound - 1e-9)[two.fooled].all() and (two.bound > 0)[two.fooled].all()
    kept = [(f.hidden / f.first)[f.fooled].mean() for f in (one, two)]
    assert kept[0] < kept[1] < 1


def test_half_precision_is_moved_in_float32(model, x, y, monkeypatch):
    """Its steps, and what they are judged by; what is hidden is hidden nearly as well."""
    moved, real = [], sneaking.project
    wide = sneak(model.float(), x.float(), y, eps=0.15)
    monkeypatch.setattr(sneaking, "project", lambda delta, *given: moved.append(delta.dtype) or real(delta, *given))
    half = sneak(model.bfloat16(), x.bfloat16(), y, eps=0.15)
    assert half.x_adv.dtype == torch.bfloat16 and {*moved, half.hidden.dtype} == {torch.float32}
    kept = [float((f.hidden / f.first)[f.fooled].mean()) for f in (wide, half)]
    assert half.fooled.any() and abs(kept[1] - kept[0]) < 0.1


def test_it_begins_with_pgds_images(model, x, y):
    found = sneak(model, x, y, slack=0.999, steps=1)  # nothing is safe: no step goes down
    peer = pgd(model, x, y, eps=EPS, steps=1)
    assert torch.equal(found.target, peer.logits.argmax(1))
    assert torch.equal(found.fooled, peer.success & (model(x).argmax(1) == y))
    assert (found.hidden <= found.first).all()  # what went up the margin and farther away is not what hides


def test_at_radius_zero_there_is_nothing_to_hide(model, x, y):
    whole = sneak(model, x, y, eps=0.0)
    assert not whole.fooled.any() and torch.equal(whole.x_adv, x) and (whole.hidden == 0).all()


def test_what_is_wrong_already_hides_nothing(model, x, y):
    found = sneak(model, x, (y + 1) % 4)
    assert not found.fooled.any()


def test_after_an_exception_all_is_as_it_was(model, x, y):
    before = state_of(model)
    with pytest.raises(RuntimeError, match="forced"):
        sneak(Breaks(model), x, y)
    assert same_state(before, state_of(model))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": "three"}, "classes='three'; choose one"),
        ({"steps": 0}, "steps=0"),
        ({"slack": 1.0}, "slack=1.0"),
        ({"eps": 8}, "did you mean"),
    ],
)
def test_bad_input_is_refused(model, x, y, options, message):
    with pytest.raises(ValueError, match=message):
        sneak(model, x, y, **options)
