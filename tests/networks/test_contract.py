"""What counts as logits, as images and as classes, and `adapt`, which makes a network of anybody's give them."""

import collections

import numpy as np
import pytest
import torch
from torch import nn

from lib.attacks import projected
from lib.data import checks, transforms
from lib.explanations import by_name, gradients
from lib.explanations.by_name import Settings
from lib.networks import classifier, contract, hooks
from lib.pathways import features, influences, neurons
from tests.conftest import toy
from tests.explanations.test_contract import OneLogit, Output, Returns


def test_logits_are_the_very_tensor_that_the_model_returned(model, x):
    seen = []
    handle = model.register_forward_hook(lambda _m, _a, output: seen.append(output))
    assert contract.logits_of(model, x) is seen[0]
    handle.remove()


@pytest.mark.parametrize("shape", [(6, 1), (6,)])
def test_one_logit_becomes_two_of_the_same_softmax(x, shape):
    z = toy(classes=1)(x)
    found = contract.logits_of(Returns(lambda _: z.reshape(shape)), x)
    torch.testing.assert_close(found.softmax(1), torch.cat([torch.zeros_like(z), z], 1).softmax(1))
    assert torch.equal(found.argmax(1), (z[:, 0] > 0).long()) and torch.equal(found[:, 1] - found[:, 0], z[:, 0])
    assert torch.equal(contract.two_logits(found), found)


def test_one_image_of_a_model_that_squeezes(x):
    for put in (lambda z: z[:, :1].squeeze(), lambda z: z[:, 0]):
        assert contract.logits_of(Returns(put), x[:1]).shape == (1, 2)
    with pytest.raises(ValueError, match=r"the model returns \(4,\) for 1 image"):
        contract.logits_of(Returns(lambda z: z.squeeze()), x[:1])


def test_a_sigmoid_is_seen_through_what_reshapes_it(x):
    for last in (
        lambda z: z.sigmoid()[:, :1],
        lambda z: z.sigmoid()[:, 0],
        lambda z: z[:, :1].sigmoid().squeeze(1),
        lambda z: z[:, :1].sigmoid().view(-1).clone(),
    ):
        with pytest.raises(ValueError, match=r"one probability an image, by a sigmoid.*adapt\(model, output=torch\.logit\)"):
            contract.logits_of(Returns(last), x)
    contract.logits_of(Returns(lambda z: z.sigmoid()[:, :1] * 3), x)  # no probability any more
    contract.logits_of(Returns(torch.sigmoid), x)  # several classes: of several labels each its own


Pair = collections.namedtuple("Pair", "logits aux")


def test_what_is_returned_is_told_with_names_and_shapes(x):
    for put, message in (
        (lambda z: Pair(z, None), r"a Pair of logits: \(6, 4\), aux: NoneType.*output='logits'"),
        (lambda z: {"hidden": z[..., None, None], "scores": z}, r"a dict of 'hidden': \(6, 4, 1, 1\).*output='scores'"),
        (lambda z: (z[..., None], [z]), r"a tuple of 0: \(6, 4, 1\), 1: list.*output=0"),
        (lambda z: object(), r"an object; .*output=FUNCTION"),
    ):
        with pytest.raises(ValueError, match=f"the model returns {message}"):
            contract.logits_of(Returns(put), x)
    picked = classifier.adapt(Returns(lambda z: Pair(z, None)), output="logits")
    assert torch.equal(contract.logits_of(picked, x), toy()(x))
    for output in ("scores", 3, lambda found: found["scores"]):
        wrong = classifier.adapt(Returns(lambda z: Output(loss=None, logits=z)), output=output)
        with pytest.raises((ValueError, KeyError), match=r"picks nothing: the model returns an Output of 'loss'|scores"):
            contract.logits_of(wrong, x)


def test_adapt_normalises_names_stages_and_shares_the_weights(x, y):
    """As a network of one's own that takes normalised images; every kernel takes it, at its last stage unless told."""
    net = toy().train()
    net.conv1.eval()
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    adapted = classifier.adapt(net, mean=mean, std=std, stages=("act1", "act2"), classes=4)
    assert adapted.net is net and net.training and not net.conv1.training  # flags are left as they are
    expected = net((x - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(std).view(3, 1, 1))
    torch.testing.assert_close(contract.logits_of(adapted, x), expected, rtol=1e-6, atol=1e-6)
    at_last = by_name.raw("gradcam", adapted, x, y, Settings()).values
    assert torch.equal(at_last, by_name.raw("gradcam", adapted, x, y, Settings(layer="act2")).values)
    assert projected.pgd(adapted, x, y, eps=0.1, steps=2).x_adv.shape == x.shape
    plain = classifier.adapt(toy())
    assert torch.equal(plain(x), toy()(x)) and plain.stages == ()
    with pytest.raises(ValueError, match="name the layer"):
        by_name.raw("gradcam", plain, x, y, Settings())
    half = classifier.adapt(toy().bfloat16(), mean=mean, std=std)
    assert half(x.bfloat16()).dtype == torch.bfloat16
    for wrong in ({"mean": (0.5, 0.5)}, {"std": (0.0,)}, {"std": (-1.0,)}):
        with pytest.raises(ValueError, match="std above 0"):
            classifier.adapt(toy(), **wrong)


def test_targets_of_one_class_among_two(x):
    for wrong, message in (
        (2, r"range over \[2, 2\], but there are 2 classes"),
        (torch.zeros(6), "expected one class for all"),
    ):
        with pytest.raises(ValueError, match=message):
            gradients.gradient(OneLogit(True), x, wrong)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_tolerance_of_images_is_that_of_their_type(dtype):
    """What comes back from a normalisation is taken and cut; ten times as far is refused."""
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    x[0, :, 0, 0], x[0, :, 0, 1] = 1, 0
    assert checks.check_images(x) is x
    mean, std = (torch.tensor(v).view(3, 1, 1).to(dtype) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    back = (x - mean) / std * std + mean
    cut = checks.check_images(back)
    assert cut.amin() >= 0 and cut.amax() <= 1 and torch.equal(cut, back.clamp(0, 1))
    for off in (1 + checks.tolerance(dtype) * 10, -checks.tolerance(dtype) * 10):
        far = x.clone()
        far[1, 0, 0, 0] = off
        with pytest.raises(ValueError, match="range over"):
            checks.check_images(far)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 3, 8, 8)), r"images are a ndarray; expected a tensor.*torch\.from_numpy"),
        ([torch.rand(3, 8, 8)], "images are a list"),
        (torch.randint(0, 255, (1, 3, 8, 8), dtype=torch.uint8), r"x\.float\(\) / 255"),
        (torch.randint(0, 255, (1, 3, 8, 8)), r"x\.float\(\) / 255"),
        (torch.rand(1, 3, 8, 8) * 255, r"did you mean x / 255\? models here"),
        (torch.rand(1, 3, 8, 8) * 2 - 1, "undo any mean/std normalisation"),
        (torch.rand(1, 3, 0, 8), "empty batch"),
        (torch.full((1, 3, 8, 8), torch.inf), r"range over \[inf, inf\]"),
        (torch.full((1, 3, 8, 8), torch.nan), r"range over \[nan, nan\]"),
    ],
)
def test_images_of_other_kinds_are_told(x, message):
    with pytest.raises(ValueError, match=message):
        checks.check_images(x)


def test_transforms_cut_rounding_too():
    x = torch.rand(2, 3, 8, 8)
    x[0, 0, 0, 0] = 1 + 2**-23
    for changed in (transforms.saturation(x, 4), transforms.patch_shuffle(x, 2, [0, 1]), transforms.amplitude_swap(x, x)):
        assert changed.amax() <= 1


def test_probabilities_in_half_precision_are_told(x):
    logits = torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert contract.looks_like_probabilities(logits.to(dtype).softmax(1))
        assert not contract.looks_like_probabilities(logits.to(dtype))


def test_a_method_called_probabilities_silences_nothing(x):
    model = nn.Sequential(toy(), nn.Softmax(1))
    model.probabilities = lambda x: model(x)
    with pytest.warns(contract.ProbabilitiesWarning):
        gradients.gradient(model, x, 0)


def test_inference_mode_is_left_and_entered_again(model, x):
    with torch.inference_mode():
        with hooks.frozen(model):
            assert not torch.is_inference_mode_enabled() and not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled()
        with pytest.raises(RuntimeError, match="forced"), hooks.frozen(model):
            raise RuntimeError("forced")
        assert torch.is_inference_mode_enabled()
    with torch.no_grad(), hooks.frozen(model):
        assert not torch.is_grad_enabled()
    with hooks.frozen(model):
        assert torch.is_grad_enabled()


def test_pathways_take_inference_mode_and_one_logit(x):
    model, layers = OneLogit(True), ["act1", "act2"]
    scores, matrices = neurons.scores(model, x, layers), influences.influence(model, x, layers)
    drawn = features.features(model, "act2", [0, 1], shape=(3, 8, 8), steps=2)
    assert scores.logits.shape == (6, 2)
    with torch.inference_mode():
        made = x + 0
        inside = neurons.scores(model, made, layers)
        torch.testing.assert_close(inside.logits, scores.logits)
        torch.testing.assert_close(influences.influence(model, made, layers), matrices)
        torch.testing.assert_close(features.features(model, "act2", [0, 1], shape=(3, 8, 8), steps=2), drawn, equal_nan=True)
