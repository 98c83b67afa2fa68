import pytest
import torch
from torch import nn

from lib.data import checks
from lib.networks import contract, hooks
from tests.conftest import same_state, state_of


def test_frozen_restores_each_modules_own_flags_also_after_an_exception(model):
    model.train()
    model.act1.eval()  # as an owner who froze one module
    model.conv1.weight.requires_grad_(False)
    before = state_of(model)
    with pytest.raises(RuntimeError, match="forced"), hooks.frozen(model):
        assert not any(m.training for m in model.modules())
        assert not any(p.requires_grad for p in model.parameters())
        raise RuntimeError("forced")
    assert same_state(before, state_of(model))


def test_frozen_can_leave_parameters_live(model):
    with hooks.frozen(model, parameters=True):
        assert all(p.requires_grad for p in model.parameters())


def test_find_layer_names_close_matches(model):
    assert hooks.find_layer(model, "conv2") is model.conv2
    with pytest.raises(ValueError, match="no layer 'convv2' in Toy; did you mean conv2"):
        hooks.find_layer(model, "convv2")


def test_capture_survives_inplace_relu_and_removes_its_hooks():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    x = torch.rand(2, 3, 6, 6)
    with hooks.capture(net, ["0"], cut=True) as seen:
        net(x)
    assert torch.equal(seen["0"], net[0](x))  # values from before the ReLU
    assert not net[0]._forward_hooks


def test_capture_cuts_the_graph_below_the_first_layer(model, x):
    with hooks.frozen(model), hooks.capture(model, ["conv2"], cut=True) as seen:
        model(x)
    assert seen["conv2"].is_leaf and seen["conv2"].requires_grad


def test_capture_refuses_a_shared_module_and_a_flat_output(model, x):
    relu = nn.ReLU()
    shared = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu).double()
    with pytest.raises(ValueError, match="runs more than once"), hooks.capture(shared, ["1"], cut=False):
        shared(x)
    with pytest.raises(ValueError, match="convolutional layer"), hooks.capture(model, ["head"], cut=False):
        model(x)
    assert not relu._forward_hooks and not model.head._forward_hooks


class Dense(nn.Module):
    """Two layers that take the list of all maps before them, as DenseNet's do."""

    def __init__(self):
        super().__init__()
        self.one, self.two = Joined(3, 2), Joined(5, 2)

    def forward(self, x):
        maps = [x]
        maps.append(self.one(maps))
        maps.append(self.two(maps))
        return torch.cat(maps, 1)


class Joined(nn.Module):
    def __init__(self, c_in, c_out):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1)

    def forward(self, maps):
        return self.conv(torch.cat(maps, 1))


@pytest.mark.parametrize("cut", [False, True])
def test_capture_of_what_goes_into_a_layer(model, x, cut):
    told = []
    layers = ["into:conv1", "conv1", "into:conv2"]
    with hooks.frozen(model), hooks.capture(model, layers, cut=cut, seeing=told.append) as seen:
        logits = model(x)
    assert list(seen) == layers and all(a is b for a, b in zip(told, seen.values(), strict=True))
    assert seen["into:conv1"].requires_grad is cut and torch.equal(seen["into:conv1"], x) and not x.requires_grad
    assert torch.equal(seen["into:conv2"], seen["conv1"].relu()) and torch.equal(logits, model(x))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    if cut:  # what is recorded is what the rest is made from
        below, above = (torch.autograd.grad(logits.sum(), seen[n], retain_graph=True)[0] for n in ("conv1", "into:conv2"))
        torch.testing.assert_close(below, above * (seen["conv1"] > 0))


def test_capture_into_a_layer_survives_what_works_in_place():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    x = torch.rand(2, 3, 6, 6)
    with hooks.capture(net, ["into:1"], cut=True) as seen:
        net(x)
    assert torch.equal(seen["into:1"], net[0](x)) and seen["into:1"].lt(0).any()


@pytest.mark.parametrize("cut", [False, True])
def test_capture_joins_a_list_and_the_rest_of_the_block_goes_on_with_it(cut):
    net, x = Dense().double(), torch.rand(2, 3, 6, 6, dtype=torch.float64, requires_grad=not cut)
    joined = torch.cat([x, net.one([x])], 1)
    with hooks.frozen(net), hooks.capture(net, ["into:two"], cut=cut) as seen:
        out = net(x)
    assert torch.equal(seen["into:two"], joined) and torch.equal(out, net(x)) and seen["into:two"].is_leaf is cut
    ones = torch.ones(2, 2, 6, 6, dtype=torch.float64)
    expected = 1 + torch.nn.grad.conv2d_input(joined.shape, net.two.conv.weight, ones, padding=1)  # put out as it is, too
    torch.testing.assert_close(torch.autograd.grad(out.sum(), seen["into:two"])[0], expected)


def test_capture_refuses_what_does_not_go_into_a_layer_as_a_map(model, x):
    for name, message in (
        ("into:head", r"layer 'into:head' takes \(6, 6\); a map needs a convolutional layer"),
        ("into:convv2", "no layer 'convv2' in Toy; did you mean conv2"),
        ("into:", "no layer ''"),
    ):
        with pytest.raises(ValueError, match=message), hooks.capture(model, [name], cut=False):
            model(x)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with pytest.raises(ValueError, match="'into:conv2' takes NoneType"), hooks.capture(model, ["into:conv2"], cut=False):
        model.conv2(input=torch.rand(1, 5, 4, 4).double())


class Aside(nn.Module):
    """Two layers, of which one does not run."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.one(x)


@pytest.mark.parametrize("name", ["two", "into:two"])
def test_capture_says_that_a_layer_did_not_run_at_the_end_of_the_forward_pass(name):
    net, x, reached = Aside(), torch.rand(2, 3, 6, 6), []
    with (
        pytest.raises(ValueError, match=f"layer '{name}' did not run in the forward pass; name one that does"),
        hooks.capture(net, ["one", name], cut=False) as seen,
    ):
        net(x)
        reached.append(seen[name])  # a KeyError, were it not for the check
    assert not reached and not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    with pytest.raises(ValueError, match="'one' did not run"), hooks.capture(net, ["one"], cut=False):
        net.two(x)  # a part of the model: noticed at the end of the block


def test_capture_masks_no_exception_of_the_block():
    net = Aside()
    with pytest.raises(RuntimeError, match="forced"), hooks.capture(net, ["two"], cut=False):
        raise RuntimeError("forced")
    assert not any(m._forward_hooks for m in net.modules())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.rand(3, 8, 8), r"use x\[None\]"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "x.float"),
        (torch.rand(0, 3, 8, 8), "empty batch"),
        (torch.rand(1, 3, 8, 8) * 255, "divide 8-bit images by 255"),
        (torch.rand(1, 3, 8, 8) - 0.9, "normalise inside"),
        (torch.full((1, 3, 8, 8), torch.nan), r"range over \[nan, nan\]"),
    ],
)
def test_bad_images_are_refused_with_a_remedy(x, message):
    with pytest.raises(ValueError, match=message):
        checks.check_images(x)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.tensor([0, 4]), r"4 classes: 0\.\.3"),
        (torch.tensor([-1, 0]), r"over \[-1, 0\]"),
        (torch.tensor([0.0, 1.0]), "integers"),
        (torch.tensor([0]), "expected 2 integers"),
    ],
)
def test_bad_labels_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        checks.check_labels(y, 4, 2)


def test_nan_weights_are_named(model, x):
    with torch.no_grad():
        model.conv2.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinity in conv2\.weight"):
        contract.check_logits(model, model(x))


def test_probabilities_are_told_from_logits():
    logits = torch.randn(8, 5)
    assert contract.looks_like_probabilities(logits.softmax(1))
    assert not contract.looks_like_probabilities(logits)
    assert not contract.looks_like_probabilities(torch.rand(8, 5))


def test_a_network_that_is_refused_halfway_is_left_as_it_was():
    with torch.inference_mode():
        late = nn.Linear(3, 3)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), late).train()
    with pytest.raises(ValueError, match="inference_mode"), hooks.frozen(model):
        pass
    assert all(m.training for m in model.modules()) and all(p.requires_grad for p in model[0].parameters())
    with hooks.frozen(model[:2]):
        assert not any(p.requires_grad for p in model[0].parameters())
    assert all(p.requires_grad for p in model[0].parameters())
