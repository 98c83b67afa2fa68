"""Layers by name: which module a name means, and that a name of two says so."""

import pytest
import torch
from torch import nn

from lib.explanations import activation_maps
from lib.networks import classifier, layers
from tests.conftest import Toy, toy


class Around(nn.Module):
    """Somebody's model with a `conv1` of its own before a network that has one."""

    def __init__(self, inner):
        super().__init__()
        self.conv1, self.net = nn.Conv2d(3, 3, 1).double(), inner

    def forward(self, x):
        return self.net(self.conv1(x).sigmoid())


def test_the_models_own_name_comes_first(x, y):
    inner = toy()
    model = Around(inner)
    assert layers.find_layer(model, "conv1") is model.conv1 and layers.find_layer(model, "net.conv1") is inner.conv1
    assert layers.find_layer(model, "conv2") is layers.find_layer(model, "net.conv2") is inner.conv2
    for name, module in (("conv1", model.conv1), ("net.conv1", inner.conv1)):
        store = {}
        handle = module.register_forward_hook(lambda m, i, o: store.update(a=o))  # noqa: B023
        g = torch.autograd.grad(model(x).gather(1, y[:, None]).sum(), store["a"])[0]
        handle.remove()
        expected = (g.mean((2, 3), keepdim=True) * store["a"].detach()).sum(1)
        torch.testing.assert_close(activation_maps.gradcam(model, x, y, name, sign="signed").values, expected)


def test_a_wrappers_own_layer_by_the_name_of_one_of_its_network_is_refused(x, y):
    class Denoised(classifier.Classifier):
        def __init__(self, net):
            super().__init__(net, stages=("conv1", "conv2"), classes=4)
            self.conv1 = nn.Conv2d(3, 3, 1)

    model = Denoised(Toy()).double()
    with pytest.raises(
        ValueError, match=r"layer 'conv1' of Denoised means 'conv1' and 'net.conv1'; write 'net.conv1', or give"
    ):
        activation_maps.gradcam(model, x, y, "conv1")
    assert layers.find_layer(model, "net.conv1") is model.net.conv1
    assert layers.find_layer(model, "conv2") is model.net.conv2


def test_wrappers_around_wrappers(x, y):
    inner = classifier.Classifier(toy(), stages=("conv2",), classes=4).double()
    twice = classifier.Classifier(inner, stages=("conv2",), classes=4).double()
    for name in ("conv2", "net.conv2", "net.net.conv2"):
        assert layers.find_layer(twice, name) is inner.net.conv2
    with pytest.raises(ValueError, match=r"no layer 'convv2' in Classifier; did you mean .*conv2"):
        layers.find_layer(twice, "convv2")


def test_two_names_of_one_module_are_one(x):
    net = nn.Sequential(nn.Conv2d(3, 3, 1))
    net.alias = net[0]
    assert layers.find_layer(net, "alias") is layers.find_layer(net, "0") is net[0]


def test_a_compiled_model_knows_the_names_that_it_had(model, x, y):
    compiled = torch.compile(model, backend="eager")
    for name in ("act2", "_orig_mod.act2"):
        assert layers.find_layer(compiled, name) is model.act2
    found = activation_maps.gradcam(compiled, x, y, "act2").values
    torch.testing.assert_close(found, activation_maps.gradcam(model, x, y, "act2").values)


def test_names_that_are_none(model):
    for name in ("", "conv1.weight", "forward", "conv1.", "conv1.conv1"):
        with pytest.raises(ValueError, match=r"no layer"):
            layers.find_layer(model, name)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_walk_meets_every_module_once_and_every_parameter():
    shared = nn.Linear(3, 3)
    net = nn.Sequential(shared, nn.Sequential(nn.ReLU(), shared), nn.BatchNorm1d(3))
    net.register_module("none", None)
    net[2].register_parameter("absent", None)
    scripted = nn.Sequential(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), nn.Linear(2, 2))
    for model in (net, scripted):
        met = list(layers.walk(model))
        modules = [m for m, _ in met]
        parameters = {id(p): p for _, held in met for p in held if p is not None}.values()
        assert {id(m) for m in modules} >= {id(m) for m in model.children()}
        assert len({*map(id, modules)}) == len(modules)
        assert sorted(p.numel() for p in parameters) == sorted(p.numel() for p in model.parameters())
    assert sorted(id(m) for m, _ in layers.walk(net)) == sorted(id(m) for m in net.modules())
