"""Explanations under one interface: each map by hand, derivatives of every fooling through it, state, errors, FLOPs."""

import pytest
import torch
from torch import nn

from lib.explanations import by_name, gradients, guided, relevance
from lib.explanations.by_name import AT_LAYER, DIFFERENTIABLE, NAMES, Settings
from lib.fooling import manipulation
from lib.measures import comparison
from lib.networks import contract
from tests.conftest import Breaks, same_state, state_of, toy
from tests.flops import flops

D = torch.float64
UNMOVED = {
    "simple_t": {"conv1", "x"},
    "simple": {"x"},
}  # a ReLU network is linear around x: these gradients do not depend on it
INTO = Settings("into:conv2", smooth_n=2, ig_steps=2)


@pytest.fixture
def loud():
    """Every logit is positive, so that relevance is; nothing speaks for class 3."""
    return raised(toy())


def raised(net):
    with torch.no_grad():
        net.head.bias += 1
        net.head.weight[3] = 0
    return net


def forward(net, x, layer):
    """The layer's activations and the logits."""
    seen = {"into:conv2": net.act1(net.conv1(x))}
    seen["conv2"] = net.conv2(seen["into:conv2"])
    seen["act2"] = net.act2(seen["conv2"])
    return seen[layer], net.head(seen["act2"].mean((2, 3)))


def by_hand(net, x, y, layer):
    """The layer's activations and the gradient of the logit there, row by row."""
    found = []
    for row, c in zip(x, y, strict=True):
        a, logits = forward(net, row[None], layer)
        found.append((a[0].detach(), torch.autograd.grad(logits[0, c], a)[0][0]))
    return [torch.stack(v) for v in zip(*found, strict=True)]


def minmax(maps):
    """Scaled map by map; a dead map is zero."""
    return torch.stack([(m - m.min()) / (m.max() - m.min()) if m.max() > m.min() else 0 * m for m in maps])


def pixels(values):
    return minmax(values.abs().sum(1))


def twin_gradcam(net, x, y, s):
    maps = []
    for a, g in zip(*by_hand(net, x, y, s.layer), strict=True):
        m = sum(g[k].mean() * a[k] for k in range(len(a))).clamp(min=0)
        maps.append(m / m.max() if m.max() > 0 else m)
    return torch.stack(maps)


TWINS = {
    "gradcam": twin_gradcam,
    "simple_t": lambda net, x, y, s: pixels(by_hand(net, x, y, s.layer)[1]),
    "lrp_t": lambda net, x, y, s: minmax(
        relevance.lrp(net, x, y, s.layer, composite=s.composite).values[s.layer].sum(1).relu()
    ),
    "lrp": lambda net, x, y, s: minmax(relevance.lrp(net, x, y, composite=s.composite).values[relevance.PIXELS].sum(1).relu()),
    "simple": lambda net, x, y, s: pixels(gradients.gradient(net, x, y).values),
    "smoothgrad": lambda net, x, y, s: pixels(gradients.smoothgrad(net, x, y, n=s.smooth_n, spread=s.smooth_spread).values),
    "ig": lambda net, x, y, s: pixels(gradients.integrated_gradients(net, x, y, steps=s.ig_steps).values),
    "guided": lambda net, x, y, s: pixels(guided.guided_backpropagation(net, x, y).values),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("s", [Settings("into:conv2"), Settings("conv2", "epsilon", 3, 0.3, 4)], ids=["defaults", "others"])
def test_maps_are_the_formula(model, x, y, name, s):
    found = by_name.explain(name, model, x, y, s)
    torch.testing.assert_close(found.maps, TWINS[name](model, x, y, s))
    torch.testing.assert_close(found.logits, model(x))
    assert not found.maps.requires_grad and not found.logits.requires_grad
    assert found.maps.shape == (6, *((8, 8) if name not in AT_LAYER or s.layer == "into:conv2" else (4, 4)))
    alive = ~comparison.degenerate(found.maps)
    assert alive.any() and found.maps[alive].amax((1, 2)).eq(1).all() and found.maps.min() >= 0
    assert found.maps[~alive].eq(0).all()
    assert name == "gradcam" or found.maps[alive].amin((1, 2)).eq(0).all()


def test_the_defaults_are_the_published_ones():
    assert Settings("conv") == ("conv", "heo", 16, 0.1, 16)
    assert set(DIFFERENTIABLE) == {"gradcam", "lrp_t", "simple_t", "lrp", "simple"} and set(AT_LAYER) < set(DIFFERENTIABLE)


def test_gradcam_is_scaled_by_its_maximum_alone():
    net = toy()
    with torch.no_grad():
        net.conv1.weight.abs_(), net.conv1.bias.abs_(), net.conv2.weight.abs_(), net.head.weight.abs_()
    x = 0.5 + torch.rand(2, 3, 8, 8, dtype=D) / 2
    maps = by_name.explain("gradcam", net, x, torch.tensor([0, 1]), INTO).maps
    assert maps.amin((1, 2)).min() > 0.05 and maps.amax((1, 2)).eq(1).all()


@pytest.mark.parametrize("name", NAMES)
def test_many_classes_are_the_single_ones_stacked(model, x, y, name):
    classes = torch.stack([y, (y + 1) % 4, (y + 3) % 4], 1)
    many = by_name.explain(name, model, x, classes, INTO)
    single = [by_name.explain(name, model, x, c, INTO) for c in classes.T]
    torch.testing.assert_close(many.maps, torch.stack([s.maps for s in single], 1))
    torch.testing.assert_close(many.logits, single[0].logits)
    assert not many.maps.requires_grad and not many.logits.requires_grad
    rows = torch.cat([by_name.explain(name, model, x[n : n + 1], y[n : n + 1], INTO).maps for n in range(2)])
    assert name == "smoothgrad" or torch.allclose(rows, many.maps[:2, 0])  # whose noise depends on the batch


@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_nothing_speaks_for_has_a_map_of_zeros(loud, x, y, name):
    found = by_name.explain(name, loud, x, torch.stack([y * 0 + 3, y * 0], 1), INTO)
    assert found.maps[:, 0].eq(0).all() and found.maps[:, 1].gt(0).any()
    assert comparison.degenerate(found.maps[:, 0]).all()


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_with_a_graph_parameters_and_images_get_gradients(loud, x, name):
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    x.requires_grad_()
    found = by_name.explain(name, loud, x, y, INTO, create_graph=True)
    wanted = {"conv1": loud.conv1.weight, "conv2": loud.conv2.weight, "head": loud.head.weight, "x": x}
    for value, still in ((found.maps.sum(), UNMOVED.get(name, set())), (found.logits.sum(), set())):
        for n, t in wanted.items():
            (g,) = torch.autograd.grad(value, t, retain_graph=True, allow_unused=True)
            assert (g is None or g.eq(0).all()) if n in still else (g.isfinite().all() and g.ne(0).any())
    plain = by_name.explain(name, loud, x, y, INTO)
    torch.testing.assert_close(found.maps, plain.maps)
    assert not plain.maps.requires_grad and not plain.logits.requires_grad


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_dead_maps_among_others_spoil_no_gradient(loud, x, name):
    h = by_name.explain(name, loud, x, torch.tensor([0, 3, 1, 3, 2, 0]), INTO, create_graph=True).maps
    h0 = by_name.explain(name, raised(toy(3)), x, torch.tensor([0, 1, 2, 3, 0, 1]), INTO).maps
    dead = comparison.degenerate(h)
    assert dead.tolist() == [False, True, False, True, False, False]
    weight = loud.conv2.weight
    for loss in (manipulation.location(h), manipulation.topk(h, h0), manipulation.centre(h, h0)):
        every = torch.autograd.grad(loss.sum(), weight, retain_graph=True)[0]
        living = torch.autograd.grad(loss[~dead].sum(), weight, retain_graph=True)[0]
        assert loss.isfinite().all() and every.isfinite().all() and every.ne(0).any()
        torch.testing.assert_close(every, living)


LOSSES = {
    "location": lambda h, h0: manipulation.location(h[:, 0]),
    "topk": lambda h, h0: manipulation.topk(h[:, 0], h0[:, 0], 18),
    "centre": lambda h, h0: manipulation.centre(h[:, 0], h0[:, 0]),
    "active": manipulation.swap,
}


class Chain(nn.Module):
    """A fooling loss as a module, so that functional_call can put weights into its network."""

    def __init__(self, net, name, loss, classes, h0):
        super().__init__()
        self.net, self.name, self.loss, self.classes, self.h0 = net, name, loss, classes, h0

    def forward(self, x):
        h = by_name.explain(self.name, self.net, x, self.classes, INTO, create_graph=True).maps
        return LOSSES[self.loss](h, self.h0)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_whole_chain_is_differentiated(loud, name, loss):
    """From weights, and from pixels, through the map and its scaling to the loss; first and second order."""
    x, classes = torch.rand(2, 3, 6, 6, dtype=D, generator=torch.Generator().manual_seed(3)), torch.tensor([[0, 1], [1, 0]])
    h, h0 = (by_name.explain(name, net, x, classes, INTO).maps for net in (loud, raised(toy(5))))
    assert not comparison.degenerate(h).any() and not comparison.degenerate(h0).any()
    chain = Chain(loud, name, loss, classes, h0)
    for layer in {"conv1", "conv2", "head"} - UNMOVED.get(name, set()):
        weight = getattr(loud, layer).weight.detach().clone().requires_grad_()

        def of_weight(w, layer=layer):
            return torch.func.functional_call(chain, {f"net.{layer}.weight": w}, (x,))

        assert torch.autograd.gradcheck(of_weight, weight, fast_mode=True)
        assert torch.autograd.gradgradcheck(of_weight, weight, fast_mode=True)
        assert torch.autograd.grad(of_weight(weight).sum(), weight)[0].abs().max() > 1e-3
    if "x" not in UNMOVED.get(name, set()):
        x.requires_grad_()
        assert torch.autograd.gradcheck(chain, x, fast_mode=True) and torch.autograd.gradgradcheck(chain, x, fast_mode=True)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_left_as_it_was(model, x, y, name, graph):
    def state(net):
        return [len(m._forward_pre_hooks) for m in net.modules()], state_of(net)

    def same(a, b):
        return a[0] == b[0] and same_state(a[1], b[1])

    model.train()
    model.conv2.eval()
    model.head.bias.requires_grad_(False)
    model.conv1.weight.grad = torch.ones_like(model.conv1.weight)
    broken = Breaks(model)
    before, pixels, graph = state(broken), x.clone(), graph and name in DIFFERENTIABLE
    by_name.explain(name, model, x, y, INTO, create_graph=graph)
    assert same(before, state(broken)) and torch.equal(x, pixels) and not x.requires_grad
    with pytest.raises(RuntimeError, match="forced"):
        by_name.explain(name, broken, x, y, INTO, create_graph=graph)
    assert same(before, state(broken))


@pytest.mark.parametrize("layer", ["into:conv2", "conv2", "act2"])
def test_the_gradient_at_a_layer_is_autograds(model, x, y, layer):
    expected = by_hand(model, x, y, layer)[1]
    found, logits = gradients.layer_gradient(model, x, y, layer)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(logits, model(x))
    assert not found.requires_grad and not logits.requires_grad
    classes = torch.stack([(y + 2) % 4, y], 1)
    many = gradients.layer_gradient(model, x, classes, layer)[0]
    torch.testing.assert_close(many, torch.stack([by_hand(model, x, c, layer)[1] for c in classes.T], 1))
    torch.testing.assert_close(gradients.layer_gradient(model, x, 2, layer)[0], by_hand(model, x, y * 0 + 2, layer)[1])
    decided = gradients.layer_gradient(model, x, contract.predicted, layer)[0]
    torch.testing.assert_close(decided, by_hand(model, x, model(x).argmax(1), layer)[1])
    graph, logits = gradients.layer_gradient(model, x, classes, layer, create_graph=True)
    torch.testing.assert_close(graph, many)
    assert graph.requires_grad and logits.requires_grad


def test_the_gradient_at_a_layer_costs_what_is_above_it(model, x, y):
    below, conv2, head = 2 * 6 * 8 * 8 * 5 * 27, 2 * 6 * 4 * 4 * 6 * 45, 2 * 6 * 6 * 4
    for layer, above in (("into:conv2", conv2 + head), ("conv2", head), ("act2", head)):
        assert flops(lambda: gradients.layer_gradient(model, x, y, layer)) == below + conv2 + head + above  # noqa: B023
        classes = torch.stack([y, (y + 1) % 4, (y + 2) % 4], 1)
        assert flops(lambda: gradients.layer_gradient(model, x, classes, layer)) == below + conv2 + head + 3 * above  # noqa: B023


def test_what_does_not_fit_is_refused(model, x, y):
    for name, options, message in (
        ("grad-cam", {}, "unknown interpreter 'grad-cam'; choose one of gradcam, lrp_t, simple_t, lrp"),
        ("smoothgrad", {"create_graph": True}, "SmoothGrad is not differentiated here; choose one of gradcam"),
        ("ig", {"create_graph": True}, "integrated gradients is not differentiated here"),
        ("guided", {"create_graph": True}, "guided backprop is not differentiated here"),
    ):
        with pytest.raises(ValueError, match=message):
            by_name.explain(name, model, x, y, INTO, **options)
    for name in NAMES:
        for images, classes, message in (
            (2 * x, y, "images range over"),
            (x, y + 3, "targets range over"),
            (x, y[:3], "targets"),
        ):
            with pytest.raises(ValueError, match=message):
                by_name.explain(name, model, images, classes, INTO)
    for name in AT_LAYER:
        for layer, message in (("conv3", "no layer 'conv3'"), ("into:conv3", "no layer 'conv3'"), ("head", "'head' puts out")):
            with pytest.raises(ValueError, match=message):
                by_name.explain(name, model, x, y, Settings(layer))
    model.aside = nn.Conv2d(3, 2, 1)
    with pytest.raises(ValueError, match="layer 'aside' did not run"):
        gradients.layer_gradient(model, x, y, "aside")
