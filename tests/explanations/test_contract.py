"""Explanations of anybody's network, and of targets as people hold them: each kind beside its plain form."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from lib.explanations import activation_maps, by_name, gradients
from lib.explanations.by_name import METHODS, Settings
from lib.networks import classifier, contract
from tests.conftest import Toy, toy

NAMES = tuple(m.name for m in METHODS.rows)
SETTINGS = Settings(layer="act2", n=3, steps=3, head="head")


class OneLogit(nn.Module):
    """A network that decides by the sign of one logit, (N, 1), or (N,) where it is flat."""

    def __init__(self, flat: bool, last=None):
        super().__init__()
        self.net, self.flat, self.last = toy(classes=1), flat, last

    def forward(self, x):
        z = self.net(x)
        z = z if self.last is None else self.last(z)
        return z.squeeze() if self.flat else z


class TwoLogits(nn.Module):
    """The same network by hand: a head with two rows, -w/2 and w/2."""

    def __init__(self):
        super().__init__()
        one = toy(classes=1)
        self.net = Toy(classes=2).double().eval()
        state = one.state_dict()
        for name in ("head.weight", "head.bias"):
            state[name] = torch.cat([-state[name] / 2, state[name] / 2])
        self.net.load_state_dict(state)

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_one_logit_is_explained_as_two(name, flat, x):
    """Of both classes, and no map of either is zero: what a constant logit 0 would have."""
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    for rows in (slice(None), slice(0, 1)):  # one image: the flat network gives a number
        found = by_name.raw(name, OneLogit(flat), x[rows], y[rows], SETTINGS)
        expected = by_name.raw(name, TwoLogits(), x[rows], y[rows], SETTINGS)
        torch.testing.assert_close(found.values, expected.values, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.logits, expected.logits)
        if name not in ("gradcam", "gradcam++"):  # ReLU may leave nothing
            assert (found.values.flatten(1).abs().amax(1) > 0).all()
    with pytest.raises(ValueError, match="but there are 2 classes"):
        by_name.raw(name, OneLogit(flat), x, 2, SETTINGS)


def test_the_classes_of_one_logit_are_each_others_opposite(x):
    model = OneLogit(True)
    for explain in (gradients.gradient, lambda *a: activation_maps.gradcam(*a, "act2", sign="signed")):
        torch.testing.assert_close(explain(model, x, 0).values, -explain(model, x, 1).values)
    maps, logits = activation_maps.all_cams(model, x, layer="act2")
    torch.testing.assert_close(
        maps[:, 1] - maps[:, 0], activation_maps.all_cams(toy(classes=1), x, layer="act2").values.diff(dim=1)[:, 0]
    )
    torch.testing.assert_close(logits.softmax(1)[:, 1], toy(classes=1)(x)[:, 0].sigmoid())


def test_a_probability_in_place_of_one_logit_is_refused(x):
    for flat in (False, True):
        with pytest.raises(ValueError, match=r"one probability an image, by a sigmoid.*output=torch\.logit"):
            gradients.gradient(OneLogit(flat, torch.sigmoid), x, 1)
        found = gradients.gradient(classifier.adapt(OneLogit(flat, torch.sigmoid), output=torch.logit), x, 1)
        torch.testing.assert_close(found.values, gradients.gradient(OneLogit(flat), x, 1).values, rtol=1e-6, atol=1e-9)


class Output(dict):
    """As transformers' ModelOutput: by key, by attribute and by position."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getitem__(self, key):
        return list(self.values())[key] if isinstance(key, int) else super().__getitem__(key)


class Returns(nn.Module):
    """A network that returns its logits in something else."""

    def __init__(self, put):
        super().__init__()
        self.net, self.put = toy(), put

    def forward(self, x):
        return self.put(self.net(x))


RETURNS = {
    "tuple": (lambda z: (z[:, :1, None, None], z), 1, r"a tuple of 0: \(6, 1, 1, 1\), 1: \(6, 4\).*output=1\)"),
    "list": (lambda z: [z], 0, r"a list of 0: \(6, 4\).*output=0\)"),
    "dict": (lambda z: {"out": z, "aux": None}, "out", r"a dict of 'out': \(6, 4\), 'aux': NoneType.*output='out'"),
    "model output": (lambda z: Output(loss=None, logits=z), "logits", r"an? Output of .*'logits': \(6, 4\).*output='logits'"),
}


@pytest.mark.parametrize("kind", RETURNS)
@pytest.mark.parametrize("name", NAMES)
def test_logits_in_something_else_are_told_and_picked(name, kind, x, y):
    put, output, message = RETURNS[kind]
    with pytest.raises(ValueError, match=f"the model returns {message}"):
        by_name.raw(name, Returns(put), x, y, SETTINGS)
    expected = by_name.raw(name, toy(), x, y, SETTINGS)
    for picks in (output, lambda found: found[output]):
        settings = SETTINGS._replace(layer="net.act2", head="net.head")
        found = by_name.raw(name, classifier.adapt(Returns(put), output=picks), x, y, settings)
        torch.testing.assert_close(found.values, expected.values)


@pytest.mark.parametrize("name", NAMES)
def test_targets_as_people_hold_them(name, x):
    """One class of all as numpy counts, one each as list, tuple, array and small integers; K each; none: the predicted."""
    model, y = toy(), [0, 1, 2, 3, 0, 1]

    def values(targets):
        return by_name.raw(name, model, x, targets, SETTINGS).values

    for one in (np.int64(1), np.array(1), torch.tensor(1)):
        torch.testing.assert_close(values(one), values(1), rtol=0, atol=0)
    expected = values(torch.tensor(y))
    for each in (y, tuple(y), np.array(y), np.array(y, np.int32), torch.tensor(y, dtype=torch.uint8), list(torch.tensor(y))):
        torch.testing.assert_close(values(each), expected, rtol=0, atol=0)
    pairs = torch.tensor([y, y[::-1]]).T
    for several in (pairs.tolist(), pairs.numpy()):
        torch.testing.assert_close(values(several), values(pairs), rtol=0, atol=0)
    torch.testing.assert_close(values(None), values(contract.predicted), rtol=0, atol=0)
    for wrong in ("cat", [0.5] * 6, [[0], [1, 2]], [0, 1], object()):
        with pytest.raises(ValueError, match=r"targets (are|have|range)"):
            values(wrong)


@pytest.mark.parametrize("name", NAMES)
def test_rounding_beyond_the_box_is_cut(name, x, y):
    """Of each type; also where images require gradients and maps are differentiated further."""
    x = x.clone()
    x[0, 0, 0, 0], x[0, 0, 0, 1] = 1, 0
    off = x.clone()
    off[0, 0, 0, 0], off[0, 0, 0, 1] = 1 + 1e-7, -1e-8
    method, model = METHODS.find(name), toy()
    torch.testing.assert_close(
        by_name.raw(name, model, off, y, SETTINGS).values, by_name.raw(name, model, x, y, SETTINGS).values, rtol=0, atol=0
    )
    off[0, 0, 0, 0] = 1.00001
    with pytest.raises(ValueError, match=r"images range over \[-1e-08, 1.00001\]"):
        by_name.raw(name, model, off, y, SETTINGS)
    if method.differentiable:
        found = []
        for image in (x, torch.where(x == 1, 1 + 1e-7, x)):
            z = image.clone().requires_grad_()
            values, logits = by_name.raw(name, model, z, y, SETTINGS, create_graph=True)
            found.append(torch.autograd.grad((values**2).sum() + logits.sum(), z)[0])
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("cam", "lrp", "lrp_t")])
def test_probabilities_are_warned_of(name, x, y):
    """At p = 1 the map is zero: not in silence. A model that is meant so says it."""

    class Sure(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = toy().requires_grad_(False)
            self.net.head.weight *= 1e6

        def forward(self, x):
            return self.net(x).softmax(1)

    model = Sure()
    with pytest.warns(contract.ProbabilitiesWarning, match="the model returns probabilities, not logits.*remove the softmax"):
        found = by_name.raw(name, model, x, None, SETTINGS)
    assert name.startswith("guided-") or found.values.abs().max() < 1e-30
    model.probabilities = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_name.raw(name, model, x, None, SETTINGS)


@pytest.mark.parametrize("name", ["cam", "lrp", "lrp_t"])
def test_maps_of_the_logit_refuse_probabilities(name, x, y):
    with (
        pytest.warns(contract.ProbabilitiesWarning),
        pytest.raises(ValueError, match=r"do not give the model's logits|no rule"),
    ):
        by_name.raw(name, nn.Sequential(toy(), nn.Softmax(1)), x, y, SETTINGS._replace(layer="0.act2", head="0.head"))


@pytest.mark.parametrize("name", NAMES)
def test_inference_mode_is_as_any_other(name, x, y):
    """Inside it, of images made inside it, and with such images and classes outside."""
    model = toy()
    expected = by_name.raw(name, model, x, y, SETTINGS).values
    with torch.inference_mode():
        made, labels = x + 0, y + 0
        inside = [by_name.raw(name, model, a, b, SETTINGS).values for a, b in ((x, y), (made, labels), (x, None))]
        by_name.explain(name, model, made, labels, SETTINGS)
    outside = by_name.raw(name, model, made, labels, SETTINGS).values
    for found in (inside[0], inside[1], outside):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert all(p.requires_grad for p in model.parameters())
    assert not torch.is_inference_mode_enabled() and torch.is_grad_enabled()


@pytest.mark.parametrize("name", NAMES)
def test_a_network_made_in_inference_mode_is_told(name, x, y):
    with torch.inference_mode():
        model = toy()
    with pytest.raises(ValueError, match=r"the model was made, loaded or moved inside torch\.inference_mode"):
        by_name.raw(name, model, x, y, SETTINGS)
