"""Explanations under one interface: each map by hand, derivatives of every fooling through it, state, errors, FLOPs."""

import pytest
import torch
from torch import nn

from lib.explanations import activation_maps, by_name, gradients, guided, relevance
from lib.explanations.by_name import METHODS, Method, Settings
from lib.explanations.explanation import Explanation
from lib.fooling import manipulation
from lib.measures import comparison
from lib.networks import contract, models
from lib.system.flops import flops
from tests.conftest import Breaks, same_state, state_of, toy

D = torch.float64
NAMES = tuple(METHODS)
AT_LAYER = tuple(m.name for m in METHODS.rows if m.where == "layer")
DIFFERENTIABLE = tuple(m.name for m in METHODS.rows if m.differentiable)
FOOLED = (
    "gradcam",
    "lrp_t",
    "simple_t",
    "lrp",
    "gradient",
    "ig",
    "smoothgrad",
    "guided",
)  # their scaled maps through losses of fooling
UNMOVED = {
    "simple_t": {"conv1", "x"},
    "gradient": {"x"},
    "smoothgrad": {"x"},
    "guided": {"x"},
}  # a ReLU network is linear around x: these gradients do not depend on it
INTO = Settings("into:conv2", n=2, steps=2)


def at(name, settings=INTO):
    """Settings as a method can be asked for: CAM is of the last maps alone."""
    return settings._replace(layer="act2") if name == "cam" else settings


@pytest.mark.parametrize("arch", ["efficientnet-lite0", "resnet18", "plain"])
def test_what_is_said_to_be_defined_is(arch):
    """A network of this name has guided backpropagation, or `guided` refuses it."""
    net, said = models.create(arch, classes=3, seed=0).eval(), by_name.defined(("guided", "gradient"), arch)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert "gradient" in said
    if "guided" in said:
        assert guided.guided_backpropagation(net, x, 0).values.abs().sum() > 0
    else:
        with pytest.raises(ValueError, match="not defined"):
            guided.guided_backpropagation(net, x, 0)


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


def by_image(net, x, y):
    """The gradient of each image's logit at its pixels, image by image."""
    found = []
    for row, c in zip(x, y, strict=True):
        z = row[None].clone().requires_grad_()
        found.append(torch.autograd.grad(net(z)[0, c], z)[0][0])
    return torch.stack(found)


def twin_gradcam(net, x, y, s):
    maps = []
    for a, g in zip(*by_hand(net, x, y, s.layer), strict=True):
        m = sum(g[k].mean() * a[k] for k in range(len(a))).clamp(min=0)
        maps.append(m / m.max() if m.max() > 0 else m)
    return torch.stack(maps)


def twin_guided_gradcam(net, x, y, s):
    c = minmax(activation_maps.gradcam(net, x, y, s.layer, method="gradcam++", sign="signed").values)
    c = nn.functional.interpolate(c[:, None], x.shape[2:], mode="bilinear")
    g = guided.guided_backpropagation(net, x, y).values.sign()
    raw = torch.where(g > 0, c, torch.where(g < 0, -1.0, (c - 1) / 2))  # -1: what speaks against the class
    return minmax((raw + 1).sum(1))


def twin_cam(net, x, y, s):
    a = forward(net, x, "act2")[0].detach()
    maps = torch.stack([sum(net.head.weight[c, k] * row[k] for k in range(len(row))) for row, c in zip(a, y, strict=True)])
    maps = maps.detach().relu()
    return maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-30)


def twin_gradcam_pp(net, x, y, s):
    maps = activation_maps.gradcam(net, x, y, s.layer, method="gradcam++").values
    return maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-30)


TWINS = {
    "gradcam++": twin_gradcam_pp,
    "cam": twin_cam,
    "guided-gradcam++": twin_guided_gradcam,
    "gradcam": twin_gradcam,
    "simple_t": lambda net, x, y, s: pixels(by_hand(net, x, y, s.layer)[1]),
    "lrp_t": lambda net, x, y, s: minmax(
        relevance.lrp(net, x, y, s.layer, composite=s.composite).values[s.layer].sum(1).relu()
    ),
    "lrp": lambda net, x, y, s: minmax(relevance.lrp(net, x, y, composite=s.composite).values[relevance.PIXELS].sum(1).relu()),
    "gradient": lambda net, x, y, s: pixels(gradients.gradient(net, x, y).values),
    "gradxinput": lambda net, x, y, s: pixels(x * by_image(net, x, y)),
    "smoothgrad": lambda net, x, y, s: pixels(gradients.smoothgrad(net, x, y, n=s.n, spread=s.spread).values),
    "ig": lambda net, x, y, s: pixels(gradients.integrated_gradients(net, x, y, steps=s.steps).values),
    "guided": lambda net, x, y, s: pixels(guided.guided_backpropagation(net, x, y).values),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("s", [Settings("into:conv2"), Settings("conv2", "epsilon", 3, 0.3, 4)], ids=["defaults", "others"])
def test_maps_are_the_formula(model, x, y, name, s):
    s = at(name, s)
    found = by_name.explain(name, model, x, y, s)
    torch.testing.assert_close(found.values, TWINS[name](model, x, y, s))
    torch.testing.assert_close(found.logits, model(x))
    assert not found.values.requires_grad and not found.logits.requires_grad
    assert found.values.shape == (6, *((8, 8) if name not in AT_LAYER or s.layer == "into:conv2" else (4, 4)))
    alive = ~comparison.degenerate(found.values)
    assert alive.any() and found.values[alive].amax((1, 2)).eq(1).all() and found.values.min() >= 0
    assert found.values[~alive].eq(0).all()
    assert METHODS.find(name).scale == "max" or found.values[alive].amin((1, 2)).eq(0).all()


def test_the_defaults_are_the_published_ones():
    assert Settings("conv")[:5] == ("conv", "heo", 16, 0.1, 16) and Settings().of == "score"


def test_gradcam_is_scaled_by_its_maximum_alone():
    net = toy()
    with torch.no_grad():
        net.conv1.weight.abs_(), net.conv1.bias.abs_(), net.conv2.weight.abs_(), net.head.weight.abs_()
    x = 0.5 + torch.rand(2, 3, 8, 8, dtype=D) / 2
    maps = by_name.explain("gradcam", net, x, torch.tensor([0, 1]), INTO).values
    assert maps.amin((1, 2)).min() > 0.05 and maps.amax((1, 2)).eq(1).all()


@pytest.mark.parametrize("name", NAMES)
def test_many_classes_are_the_single_ones_stacked(model, x, y, name):
    classes = torch.stack([y, (y + 1) % 4, (y + 3) % 4], 1)
    many = by_name.explain(name, model, x, classes, at(name))
    single = [by_name.explain(name, model, x, c, at(name)) for c in classes.T]
    torch.testing.assert_close(many.values, torch.stack([s.values for s in single], 1))
    torch.testing.assert_close(many.logits, single[0].logits)
    assert not many.values.requires_grad and not many.logits.requires_grad
    rows = torch.cat([by_name.explain(name, model, x[n : n + 1], y[n : n + 1], at(name)).values for n in range(2)])
    assert name == "smoothgrad" or torch.allclose(rows, many.values[:2, 0])  # whose noise depends on the batch


@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_nothing_speaks_for_has_a_map_of_zeros(loud, x, y, name):
    found = by_name.explain(name, loud, x, torch.stack([y * 0 + 3, y * 0], 1), at(name))
    assert found.values[:, 0].eq(0).all() and found.values[:, 1].gt(0).any()
    assert comparison.degenerate(found.values[:, 0]).all()


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_with_a_graph_parameters_and_images_get_gradients(loud, x, name):
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    x.requires_grad_()
    found = by_name.explain(name, loud, x, y, at(name), create_graph=True)
    wanted = {"conv1": loud.conv1.weight, "conv2": loud.conv2.weight, "head": loud.head.weight, "x": x}
    for value, still in ((found.values.sum(), UNMOVED.get(name, set())), (found.logits.sum(), set())):
        for n, t in wanted.items():
            (g,) = torch.autograd.grad(value, t, retain_graph=True, allow_unused=True)
            assert (g is None or g.eq(0).all()) if n in still else (g.isfinite().all() and g.ne(0).any())
    plain = by_name.explain(name, loud, x, y, at(name))
    torch.testing.assert_close(found.values, plain.values)
    assert not plain.values.requires_grad and not plain.logits.requires_grad


@pytest.mark.parametrize("name", FOOLED)
def test_dead_maps_among_others_spoil_no_gradient(loud, x, name):
    h = by_name.explain(name, loud, x, torch.tensor([0, 3, 1, 3, 2, 0]), at(name), create_graph=True).values
    h0 = by_name.explain(name, raised(toy(3)), x, torch.tensor([0, 1, 2, 3, 0, 1]), at(name)).values
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
        h = by_name.explain(self.name, self.net, x, self.classes, INTO, create_graph=True).values
        return LOSSES[self.loss](h, self.h0)


@pytest.mark.parametrize("name", FOOLED)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_whole_chain_is_differentiated(loud, name, loss):
    """From weights, and from pixels, through the map and its scaling to the loss; first and second order."""
    x, classes = torch.rand(2, 3, 6, 6, dtype=D, generator=torch.Generator().manual_seed(3)), torch.tensor([[0, 1], [1, 0]])
    h, h0 = (by_name.explain(name, net, x, classes, INTO).values for net in (loud, raised(toy(5))))
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
    by_name.explain(name, model, x, y, at(name), create_graph=graph)
    assert same(before, state(broken)) and torch.equal(x, pixels) and not x.requires_grad
    with pytest.raises(RuntimeError, match="forced"):
        by_name.explain(name, broken, x, y, at(name), create_graph=graph)
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
    for name, settings, options, message in (
        ("grad-cam", INTO, {}, "unknown explanation 'grad-cam'; did you mean gradcam or .*There are gradcam, gradcam"),
        ("xyz", INTO, {}, "unknown explanation 'xyz'; There are gradcam"),
        ("guided-gradcam++", INTO, {"create_graph": True}, r"guided Grad-CAM\+\+ is not differentiated here; choose"),
        ("gradcam", INTO._replace(of="loss"), {}, "Grad-CAM is of the logit alone, of='loss' is not defined here"),
        ("guided-gradcam++", INTO._replace(of="loss"), {}, "is of the logit alone"),
        ("gradcam", Settings(), {}, "name the layer: this network does not say which its last stage is"),
        ("cam", INTO, {}, "CAM is not defined here; use gradcam"),
    ):
        for asked in (by_name.explain, by_name.raw):
            with pytest.raises(ValueError, match=message):
                asked(name, model, x, y, settings, **options)
    for name in NAMES:
        for images, classes, message in (
            (2 * x, y, "images range over"),
            (x, y + 3, "targets range over"),
            (x, y[:3], "targets"),
        ):
            with pytest.raises(ValueError, match=message):
                by_name.explain(name, model, images, classes, at(name))
    for name in AT_LAYER:
        for layer, message in (("conv3", "no layer 'conv3'"), ("into:conv3", "no layer 'conv3'"), ("head", "'head' puts out")):
            with pytest.raises(ValueError, match=message):
                by_name.explain(name, model, x, y, Settings(layer))
    model.aside = nn.Conv2d(3, 2, 1)
    for name in AT_LAYER:
        with pytest.raises(ValueError, match="layer 'aside' did not run"):
            by_name.explain(name, model, x, y, Settings("aside"))


@pytest.mark.parametrize("name", NAMES)
def test_raw_values_are_the_functions_own(model, x, y, name):
    """Of one class and of two; K classes stack in the second dimension."""
    method, s = METHODS.find(name), at(name)
    own = method(model, x, y, s)
    found = by_name.raw(name, model, x, y, s)
    assert torch.equal(found.values, own.values) and torch.equal(found.logits, own.logits)
    both = by_name.raw(name, model, x, torch.stack([y, (y + 1) % 4], 1), s)
    torch.testing.assert_close(both.values[:, 0], own.values)
    assert both.values.shape == (len(x), 2, *own.values.shape[1:])
    taken = by_name.raw(name, model, x, contract.predicted, s)
    torch.testing.assert_close(taken.values, by_name.raw(name, model, x, model(x).argmax(1), s).values)


def test_what_a_method_takes_reaches_it(model, x, y):
    expected = {
        "gradcam": {"layer", "sign", "layout"},
        "cam": {"layer", "sign", "head"},
        "lrp_t": {"layer", "composite"},
        "simple_t": {"layer", "layout"},
        "lrp": {"composite"},
        "gradient": {"of"},
        "smoothgrad": {"n", "spread", "of", "generator"},
        "ig": {"steps", "of"},
        "guided": {"of"},
        "guided-gradcam++": {"layer", "layout"},
    }
    assert {name: set(METHODS.find(name).takes) for name in expected} == expected

    def drawn(seed):
        return torch.Generator().manual_seed(seed)

    other = {"n": 3, "spread": 0.3, "steps": 5, "of": "loss", "sign": "signed", "composite": "epsilon", "generator": drawn(1)}
    for name, fields in expected.items():
        plain = by_name.raw(name, model, x, y, at(name)).values
        for field in fields & other.keys():
            changed = by_name.raw(name, model, x, y, at(name)._replace(**{field: other[field]})).values
            assert not torch.equal(plain, changed), (name, field)
        if "layout" in fields:
            turned = by_name.raw(name, model, x, y, at(name)._replace(layout=lambda t: t.flip(2, 3))).values
            shown = plain if name != "guided-gradcam++" else None
            assert shown is None or torch.allclose(turned, shown.flip(-2, -1), rtol=1e-12)
            assert not torch.equal(turned, plain)
    ours = by_name.raw("smoothgrad", model, x, y, INTO._replace(generator=drawn(4))).values
    assert torch.equal(ours, gradients.smoothgrad(model, x, y, n=2, spread=0.1, generator=drawn(4)).values)


def test_a_layer_that_is_not_named_is_the_last_stage(model, x, y):
    model.stages = ("conv1", "act2")
    for name in ("cam", "gradcam", "guided-gradcam++"):
        found = by_name.explain(name, model, x, y, Settings()).values
        assert torch.equal(found, by_name.explain(name, model, x, y, Settings("act2")).values)


def test_a_method_costs_one_function_and_one_row(model, x, y):
    def times(model, x, targets, *, spread):
        values, logits = gradients.gradient(model, x, targets)
        return Explanation(spread * x * values, logits)

    table = METHODS.plus(Method("times", "gradient times input", times, "pixels"))
    found = table.find("times")(model, x, y, INTO)
    torch.testing.assert_close(found.values, 0.1 * x * gradients.gradient(model, x, y).values)
    assert table.menu("times", "ig") == {"gradient times input": "times", "integrated gradients": "ig"}
    assert table.labels("ig") == {"ig": "integrated gradients"} and "times" in table and "times" not in METHODS
    with pytest.raises(ValueError, match="two rows of the table of explanations have one name"):
        table.plus(Method("ig", "again", times, "pixels"))


@pytest.mark.parametrize("name", ["gradcam", "gradcam++", "cam"])
def test_signed_maps_have_no_place_between_0_and_1(model, x, y, name):
    with pytest.raises(
        ValueError, match=r"sign='signed': such a map has no place in \[0, 1\]; choose positive or counterfactual"
    ):
        by_name.explain(name, model, x, y, Settings("act2", sign="signed"))
    assert by_name.explain("gradient", model, x, y, Settings(sign="signed")).values.max() <= 1  # which has no use for a sign
