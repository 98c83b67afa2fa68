"""One image before and after an attack: what comes out is what the kernels give, and the control has the attack's size."""

import math

import pytest
import torch

from lib.attacks import by_name as attacks
from lib.attacks import projected, single_step
from lib.explanations import activation_maps, gradients
from lib.explanations.by_name import METHODS
from lib.fooling import before_after
from lib.fooling.before_after import Asked, Force
from lib.measures import comparison
from tests.conftest import same_state, state_of

CAM, PIXELS = Asked(METHODS.find("gradcam"), "act2"), Asked(METHODS.find("gradient"), "")
PGD = Force(attacks.find("pgd"), 0.05, 3, None)


@pytest.fixture
def x(x):
    """The images of the tests, from one on whose map attacks move and do not empty."""
    return x[3:]


def look(model, x, *asked, **given):
    with torch.no_grad():
        return before_after.before_and_after(model, x[:1], asked, **given)


def test_without_an_attack_there_is_an_image_and_its_maps(model, x):
    before = state_of(model)
    found = look(model, x, CAM, PIXELS)
    assert same_state(before, state_of(model))
    logits = model(x[:1])[0].detach()
    assert found.attacked is None and found.largest_change == 0 and list(found.logits) == ["before"]
    assert torch.allclose(found.logits["before"], logits) and found.of == found.decision("before") == int(logits.argmax())
    assert found.probability("before", 2) == pytest.approx(float(logits.softmax(0)[2]))
    raw = activation_maps.gradcam(model, x[:1], found.of, "act2").values
    assert torch.allclose(found.shifts[0].before, activation_maps.upsample(activation_maps.normalise(raw, "max"), 8)[0])
    raw = gradients.gradient(model, x[:1], found.of).values.abs().sum(1)
    assert torch.allclose(found.shifts[1].before, activation_maps.normalise(raw)[0])
    assert found.shifts[0].after is None and found.shifts[0].moved is None


def test_an_attack_away_from_the_decision(model, x):
    found = look(model, x, CAM, force=PGD)
    y = model(x[:1]).argmax(1)
    assert found.of == int(y)
    own = projected.pgd(model, x[:1], y, eps=0.05, steps=3, judge=False, generator=torch.Generator().manual_seed(0)).x_adv
    assert torch.equal(found.attacked, own[0]) and found.largest_change == pytest.approx(0.05, rel=1e-3)
    assert torch.allclose(found.logits["after"], model(own)[0].detach())
    signs = single_step.random_sign(x[:1], torch.Generator().manual_seed(1))
    noise = (x[:1] + 0.05 * signs).clamp(0, 1)
    assert torch.allclose(found.logits["noise"], model(noise)[0].detach())
    small = [activation_maps.normalise(activation_maps.gradcam(model, i, y, "act2").values, "max") for i in (x[:1], own, noise)]
    big = [activation_maps.upsample(m, 8) for m in small]
    shift = found.shifts[0]
    assert torch.allclose(shift.after, big[1][0])
    assert shift.moved.nissim == pytest.approx(float(comparison.nissim(big[0], big[1])))
    assert shift.moved.rank_correlation == pytest.approx(float(comparison.spearman(small[0], small[1])))
    assert shift.moved_by_noise.nissim == pytest.approx(float(comparison.nissim(big[0], big[2])))
    assert shift.moved_by_noise.nissim != shift.moved.nissim


def test_an_attack_towards_a_class_and_a_map_of_another(model, x):
    """The map stays that of the class that was asked for."""
    decided, aim, of, _ = model(x[:1])[0].argsort(descending=True).tolist()
    found = look(model, x, CAM, of=of, force=PGD._replace(aim=aim, eps=0.3, steps=20))
    assert found.of == of and found.decision("before") == decided and found.decision("after") == aim
    raw = activation_maps.gradcam(model, found.attacked[None], of, "act2").values
    assert torch.allclose(found.shifts[0].after, activation_maps.upsample(activation_maps.normalise(raw, "max"), 8)[0])


@pytest.mark.parametrize("name", ["pgd", "pgd-l2", "gabor"])
def test_the_control_is_as_large_as_the_attack(name):
    """Under L-infinity by the radius, else by the length of what the attack did."""
    x = torch.full((1, 3, 4, 4), 0.5)
    attacked = x.clone()
    attacked[0, 0, 0, 0] += 0.3
    signs = before_after.signs_of_the_size(x, attacked, Force(attacks.find(name), 0.1, 1, None), torch.Generator()) - x
    size = 0.1 if name == "pgd" else 0.3 / math.sqrt(48)
    assert torch.allclose(signs.abs(), torch.tensor(size)) and 0 < int((signs > 0).sum()) < 48


def test_the_control_of_each_of_several_images_is_as_large_as_its_own_attack():
    x = torch.full((2, 3, 4, 4), 0.5)
    attacked = x.clone()
    attacked[0, 0, 0, 0] += 0.3
    signs = before_after.signs_of_the_size(x, attacked, Force(attacks.find("pgd-l2"), 0.1, 1, None), torch.Generator()) - x
    torch.testing.assert_close(signs.flatten(1).norm(dim=1), torch.tensor([0.3, 0.0]))


def test_an_image_does_not_depend_on_what_else_is_looked_at(model, x):
    again = [look(model, x[i : i + 1], CAM, force=PGD).attacked for i in (0, 1, 0)]
    assert torch.equal(again[0], again[2]) and not torch.equal(again[0], again[1])
    assert not torch.equal(again[0], look(model, x, CAM, force=PGD, seed=5).attacked)


def test_a_map_without_contrast_has_no_ranks(model, x):
    with torch.no_grad():
        model.head.weight.zero_()
    found = look(model, x, CAM, of=0, force=PGD)
    assert math.isnan(found.shifts[0].moved.rank_correlation) and found.shifts[0].moved.nissim == 0


def test_one_image_at_a_time(model, x):
    with pytest.raises(ValueError, match="3 images; one is looked at here"):
        before_after.before_and_after(model, x, [CAM])
    with pytest.raises(ValueError, match="classes"):
        look(model, x, CAM, of=4)
    assert look(model, x).shifts == []
