"""Attacks on anybody's network, with labels, radii and types as people hold them: each kind beside its plain form."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.attacks import auto_projected, losses, projected, robustness, single_step, square, steps, unforeseen
from lib.attacks.by_name import ATTACKS
from lib.fooling import interpretation_attack
from lib.networks import classifier, models
from tests.conftest import toy
from tests.explanations.test_contract import RETURNS, OneLogit, Returns, TwoLogits

NAMES = tuple(a.name for a in ATTACKS.rows)
LOOKS = tuple(n for n in NAMES if n not in ("none", "noise", "noise-l2"))  # at the model
SIDE = {"eps": 0.2, "steps": 3}


@pytest.fixture
def y(x):
    """What the network decides, so that there is something to attack."""
    found = toy()(x).argmax(1)
    assert len(found.unique()) > 2
    return found


@pytest.fixture
def labels(x):
    return (toy(classes=1)(x)[:, 0] > 0).long()


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_one_logit_is_attacked_as_two(name, flat, x, labels):
    for rows in (slice(None), slice(0, 1)):
        found = ATTACKS.find(name)(OneLogit(flat), x[rows], labels[rows], **SIDE)
        expected = ATTACKS.find(name)(TwoLogits(), x[rows], labels[rows], **SIDE)
        torch.testing.assert_close(found.x_adv, expected.x_adv)


@pytest.mark.parametrize("flat", [False, True])
def test_robust_accuracy_of_one_logit_falls(flat, x):
    """auto-attack#70: with labels 0 and one logit it was 1 at every radius."""
    y = torch.zeros(len(x), dtype=torch.long)
    found = robustness.robust_accuracy(OneLogit(flat), x, y, eps=(0.05, 1.0), steps=5)
    expected = robustness.robust_accuracy(TwoLogits(), x, y, eps=(0.05, 1.0), steps=5)
    assert torch.equal(found.correct, expected.correct)
    assert found.accuracy[0] == (toy(classes=1)(x)[:, 0] <= 0).float().mean() > 0
    assert found.accuracy[2] == 0


def test_losses_of_one_logit_are_those_of_two(x, labels):
    z, w = toy(classes=1)(x), toy(classes=1)(1 - x)
    zeros = torch.zeros_like(z)
    two, other = torch.cat([zeros, z], 1), torch.cat([zeros, w], 1)
    for loss in (losses.cross_entropy, losses.margin):
        torch.testing.assert_close(loss(z, labels), loss(two, labels))
    torch.testing.assert_close(
        losses.cross_entropy(z, labels), F.binary_cross_entropy_with_logits(z[:, 0], labels.double(), reduction="none")
    )
    torch.testing.assert_close(losses.kl(z, w), losses.kl(two, other))
    assert torch.equal(steps.fooled(z, labels), steps.fooled(two, labels)) and not steps.fooled(z, labels).any()


def test_labels_of_one_logit_are_two_classes(x):
    with pytest.raises(ValueError, match=r"labels range over \[-1, 1\], but the model has 2 classes: 0\.\.1"):
        projected.pgd(OneLogit(True), x, [-1, 1, 1, -1, 1, 1], **SIDE)
    with pytest.raises(ValueError, match="one probability an image"):
        projected.pgd(OneLogit(True, torch.sigmoid), x, [0, 1] * 3, **SIDE)
    with pytest.raises(ValueError, match="one probability an image"):
        robustness.robust_accuracy(OneLogit(False, torch.sigmoid), x, [1] * 6, eps=(0.1,), steps=2)


@pytest.mark.parametrize("kind", RETURNS)
@pytest.mark.parametrize("name", LOOKS)
def test_logits_in_something_else_are_told_and_picked(name, kind, x, y):
    put, output, message = RETURNS[kind]
    with pytest.raises(ValueError, match=f"the model returns {message}"):
        ATTACKS.find(name)(Returns(put), x, y, **SIDE)
    found = ATTACKS.find(name)(classifier.adapt(Returns(put), output=output), x, y, **SIDE)
    torch.testing.assert_close(found.x_adv, ATTACKS.find(name)(toy(), x, y, **SIDE).x_adv)


def everything(x):
    """Every entry that takes labels."""
    model = toy()
    headed = classifier.adapt(model, stages=("act2",))
    found = {f"ATTACKS {n}": lambda y, n=n: ATTACKS.find(n)(model, x, y, **SIDE).x_adv for n in NAMES if n != "none"}
    return found | {
        "pgd": lambda y: projected.pgd(model, x, y, restarts=2, **SIDE).x_adv,
        "fgsm": lambda y: single_step.fgsm(model, x, y, eps=[0.1])[0].x_adv,
        "fgsm_direction": lambda y: single_step.fgsm_direction(model, x, y)[0],
        "robust_accuracy": lambda y: robustness.robust_accuracy(model, x, y, eps=(0.1,), steps=2).correct,
        "gabor": lambda y: unforeseen.gabor(model, x, y, eps=0.1, steps=2, targets=y).x_adv,
        "aai": lambda y: interpretation_attack.aai(headed, x, y, eps=0.1, steps=2, k=2).x_adv,
    }


@pytest.mark.parametrize("name", everything(None))
def test_labels_as_people_hold_them(name, x, y):
    call = everything(x)[name]
    expected = call(y)
    for given in (y.tolist(), tuple(y.tolist()), y.numpy(), y.numpy().astype(np.int32), y.to(torch.uint8), list(y)):
        torch.testing.assert_close(call(given), expected, rtol=0, atol=0)
    for one in (1, np.int64(1), torch.tensor(1)):
        torch.testing.assert_close(call(one), call(torch.ones_like(y)), rtol=0, atol=0)
    torch.testing.assert_close(call(y > 0), call((y > 0).long()), rtol=0, atol=0)
    for wrong, message in (
        (None, "labels are None; give the class of each of the 6 image"),
        ("cat", "labels are 'cat'; expected integers"),
        (y.double(), r"expected 6 integers, one an image: did you mean y\.long\(\)"),
        (y[:, None], r"did you mean y\[:, 0\]\?"),
        (F.one_hot(y, 4), r"did you mean y\.argmax\(1\)"),
        (y[:2], "6 images but 2 labels"),
        ([0, 1, 2], "6 images but 3 labels"),
    ):
        with pytest.raises(ValueError, match=message):
            call(wrong)


RADII = {
    "pgd": lambda x, y, e: projected.pgd(toy(), x, y, eps=e, steps=1),
    "robust_accuracy": lambda x, y, e: robustness.robust_accuracy(toy(), x, y, eps=(e,), steps=1),
    "fgsm": lambda x, y, e: single_step.fgsm(toy(), x, y, eps=[e]),
    "step_along": lambda x, y, e: single_step.step_along(x, x.sign(), e),
    "ascend": lambda x, y, e: projected.ascend(lambda z: z.flatten(1).sum(1), x, eps=e, steps=1, step=0.1),
    "aai": lambda x, y, e: interpretation_attack.aai(classifier.adapt(toy(), stages=("act2",)), x, y, eps=e, steps=1),
    "step of pgd": lambda x, y, e: projected.pgd(toy(), x, y, eps=0.1, steps=1, step=e),
    "step of ascend": lambda x, y, e: projected.ascend(lambda z: z.flatten(1).sum(1), x, eps=0.1, steps=1, step=e),
    "step of aai": lambda x, y, e: interpretation_attack.aai(
        classifier.adapt(toy(), stages=("act2",)), x, y, eps=0.1, steps=1, step=e
    ),
} | {n: lambda x, y, e, n=n: ATTACKS.find(n)(toy(), x, y, eps=e, steps=1) for n in ("noise", "fgsm", "pgd")}


@pytest.mark.parametrize("name", RADII)
def test_radii_beyond_the_box_are_refused(name, x, y):
    call = RADII[name]
    call(x, y, 1.0)
    call(x, y, 0)
    call(x, y, torch.tensor(8 / 255))
    call(x, y, np.float32(8 / 255))
    with pytest.raises(ValueError, match=r"(eps|step) is 8; .*no two are farther apart than 1 \(linf\): did you mean 8/255\?"):
        call(x, y, 8)
    for wrong in (-0.1, float("nan"), float("inf"), "8/255", [0.1, 0.2]):
        with pytest.raises(ValueError, match=r"(eps|step) is "):
            call(x, y, wrong)


def test_radii_have_the_sense_of_their_norm(x, y):
    """Under L2 images of d pixels lie within the root of d; Gabor, snow and JPEG count in measures of their own."""
    d = x[0].numel()
    for name in ("noise-l2", "fgsm-l2", "pgd-l2"):
        ATTACKS.find(name)(toy(), x, y, eps=8, steps=1)
        with pytest.raises(ValueError, match=r"eps is 128; .*than 13\.86 \(l2\): did you mean 128/255\?"):
            ATTACKS.find(name)(toy(), x, y, eps=128, steps=1)
    assert d**0.5 == pytest.approx(13.86, abs=0.01)
    for name in ("gabor", "snow", "jpeg-linf", "jpeg-l2", "jpeg-l1"):
        ATTACKS.find(name)(toy(), x, y, eps=8, steps=1)
    with pytest.raises(ValueError, match=r"eps is 0\.1; several radii are taken here, with a result each: eps=\[0\.1\]"):
        single_step.fgsm(toy(), x, y, eps=0.1)
    with pytest.raises(ValueError, match="several radii are taken here"):
        robustness.robust_accuracy(toy(), x, y, eps=0.1)


def test_rounding_beyond_the_box_is_cut(x, y):
    """torchattacks#136: what was normalised and brought back."""
    z = x.float()
    z[0, 0, 0, :3] = torch.tensor([1.0, 0.0, 1.0])
    off = z.clone()
    off[0, 0, 0, :2] = torch.tensor([1 + 2**-23, -1e-8])
    assert off.max() > 1 and off.min() < 0
    model = toy().float()
    for name in NAMES:
        if name != "none":
            found = ATTACKS.find(name)(model, off, y, **SIDE).x_adv
            torch.testing.assert_close(found, ATTACKS.find(name)(model, z, y, **SIDE).x_adv, rtol=0, atol=0)
    found = robustness.robust_accuracy(model, off, y, eps=(0.1,), steps=2)
    assert torch.equal(found.correct, robustness.robust_accuracy(model, z, y, eps=(0.1,), steps=2).correct)
    off[0, 0, 0, 0] = 1 + 2**-20
    with pytest.raises(ValueError, match=r"images range over \[-1e-08, 1.000001\]"):
        projected.pgd(model, off, y, **SIDE)


HALVES = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_half_precision_keeps_the_ball_and_finds_what_float32_finds(dtype, norm):
    """auto-attack#51. The attack moves in float32: its steps are smaller than the gaps of bfloat16 near 1."""
    model = models.create("plain", classes=10, seed=1).eval()
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).mul(0.3).add(0.7).to(dtype)
    y = model(x.float()).argmax(1)
    eps = 4 / 255 if norm == "linf" else 0.5
    wide = projected.pgd(model, x.float(), y, eps=eps, steps=20, norm=norm)
    half = projected.pgd(model.to(dtype), x, y, eps=eps, steps=20, norm=norm)
    assert half.x_adv.dtype == dtype and half.logits.dtype == torch.float32
    gap = torch.finfo(dtype).eps / 2  # between numbers of [.5, 1)
    moved = (half.x_adv.float() - x.float()).flatten(1)
    if norm == "linf":
        assert moved.abs().max() <= eps + gap / 2 + 1e-6
    else:
        assert moved.norm(dim=1).max() <= eps + moved.shape[1] ** 0.5 * gap / 2
    clean = F.cross_entropy(model.float()(x.float()), y, reduction="none")
    gained, could = (half.loss - clean).mean(), (wide.loss - clean).mean()
    assert could > 0 and gained > 0.7 * could


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", NAMES)
def test_every_attack_takes_half_precision(name, dtype, x, y):
    model, x = toy().to(dtype), x.to(dtype)
    for eps in (2 / 255, 8 / 255, 0.3):
        found = ATTACKS.find(name)(model, x, y, eps=eps, steps=3)
        assert found.x_adv.dtype == dtype
        if name not in unforeseen.ATTACKS:  # whose radii are of measures of their own
            steps.check_result(x, found.x_adv, eps, "l2" if name.endswith("l2") else "linf")
    found = robustness.robust_accuracy(model, x, y, eps=(2 / 255, 8 / 255), steps=3)
    assert found.accuracy.diff().le(0).all()
    ascended = projected.ascend(lambda z: model(z)[:, 0], x, eps=8 / 255, steps=3, step=2 / 255)
    assert ascended.dtype == dtype


def test_autocast_keeps_the_ball(x, y):
    model, x = toy().float(), x.float()
    with torch.autocast("cpu", torch.bfloat16):
        for name in NAMES:
            ATTACKS.find(name)(model, x, y, eps=8 / 255, steps=3)
        projected.pgd(model, x, y, eps=8 / 255, steps=3, restarts=2)
        single_step.fgsm(model, x, y, eps=[2 / 255, 8 / 255])
        robustness.robust_accuracy(model, x, y, eps=(2 / 255, 8 / 255), steps=3)


def test_a_half_result_outside_its_ball_is_caught(x):
    x = x.bfloat16() * 0.5
    with pytest.raises(RuntimeError, match="left its ball"):
        steps.check_result(x, x + 0.05, 8 / 255, "linf")


@pytest.mark.parametrize("name", everything(None))
def test_inference_mode_is_as_any_other(name, x, y):
    with torch.inference_mode():
        made, labels = x + 0, y + 0
    call, expected = everything(made)[name], everything(x)[name](y)
    with torch.inference_mode():
        inside = [call(y), call(labels)]
    outside = call(labels)
    for found in (*inside, outside):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("labels", [0, np.int64(0), torch.zeros(6, dtype=torch.int32), [0] * 6], ids=str)
def test_labels_of_any_kind_in_inference_mode(x, labels):
    model, whole = toy(), torch.zeros(6, dtype=torch.long)
    for attack in (projected.pgd, auto_projected.auto_pgd):
        expected = attack(model, x, whole, eps=8 / 255, steps=2).x_adv
        with torch.inference_mode():
            assert torch.equal(attack(model, x + 0, labels, eps=8 / 255, steps=2).x_adv, expected)
    expected = square.square_attack(model, x, whole, eps=8 / 255, queries=5).x_adv
    with torch.inference_mode():
        assert torch.equal(square.square_attack(model, x + 0, labels, eps=8 / 255, queries=5).x_adv, expected)


@pytest.mark.parametrize(
    "attack",
    [
        lambda *given: projected.pgd(*given, eps=0.1, steps=1),
        lambda *given: square.square_attack(*given, eps=0.1, queries=3),
        lambda *given: auto_projected.auto_pgd(*given, eps=0.1, steps=2),
        lambda *given: auto_projected.auto_pgd(*given, eps=0.1, steps=2, objective="dlr"),
    ],
)
def test_labels_beyond_the_classes_are_refused_by_every_attack(attack, x):
    with pytest.raises(ValueError, match=r"labels range over \[0, 7\], but the model has 4 classes"):
        attack(toy(), x, torch.tensor([0, 0, 0, 0, 0, 7]))


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64 - 1, 2**63 - 1])
def test_generators_of_any_seed(seed, x, y):
    """Torch's own `seed()` is as large more often than not."""
    found = square.square_attack(toy(), x, y, eps=0.1, queries=5, generator=torch.Generator().manual_seed(seed))
    assert (found.x_adv - x).abs().max() > 0.05


def test_networks_that_return_no_logits_are_told(x, y):
    for put, message in (
        (lambda z: z[:3], r"returns \(3, 4\) for 6 image"),
        (lambda z: z.T, r"returns \(4, 6\) for 6 image"),
        (lambda z: z.argmax(1), r"returns \(6,\) of type torch.int64"),
        (lambda z: z[:, :, None, None], r"returns \(6, 4, 1, 1\) for 6 image"),
        (lambda z: z.sum(), r"returns \(\) for 6 image"),
        (lambda z: None, "returns None; expected logits"),
        (lambda z: (z,)[1:], "returns a tuple of "),
        (lambda z: z.tolist(), "returns a list of 0: list"),
    ):
        with pytest.raises(ValueError, match=message):
            projected.pgd(Returns(put), x, y, **SIDE)


def test_custom_losses_see_two_logits(x, labels):
    seen = []

    def loss(z, y):
        seen.append(z.shape)
        return nn.functional.cross_entropy(z, y, reduction="none")

    projected.pgd(OneLogit(False), x, labels, loss=loss, **SIDE)
    assert set(seen) == {(6, 2)}
