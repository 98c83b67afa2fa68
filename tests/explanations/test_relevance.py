"""The sweep of relevance: what is passed by, routed and shared, conservation, derivatives, costs and refusals."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lib.explanations import gradients, relevance, relevance_rules
from lib.explanations.relevance import PIXELS
from lib.explanations.relevance_rules import AlphaBeta, Epsilon
from lib.networks import classifier, contract, models, small
from lib.system.flops import flops
from tests.conftest import Breaks, same_state, state_of
from tests.explanations.relevance_cases import OTHERS, ZERO, D, Net, Shallow, below_head, branches, check, drawn, images

COMPOSITES = {name: name for name in relevance_rules.COMPOSITES} | OTHERS


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_the_winner_of_max_pooling_takes_all():
    for pool, x in ((nn.MaxPool2d(3, 2, 1), images(2, 3, 5, 6)), (nn.AdaptiveMaxPool2d(2), images(2, 3, 5, 7))):
        net = below_head(lambda x, pool: pool(x - 0.5), pool(x)[0].shape, pool)
        found = relevance.lrp(net, x, 1, ["0", PIXELS]).values
        pool.return_indices = True
        expected = torch.zeros_like(x).flatten(2).scatter_add_(2, pool(x)[1].flatten(2), found["0"].flatten(2))
        torch.testing.assert_close(found[PIXELS], expected.view_as(x))


def test_a_concatenation_hands_each_piece_its_own():
    x = images(2, 3, 5, 5)
    found = relevance.lrp(branches(lambda a, b: torch.cat([b, a], 1), 8), x, 1, ["2", "3", "0"]).values
    assert torch.equal(found["0"], torch.cat([found["3"], found["2"]], 1)) and found["2"].abs().sum() > 0
    found = relevance.lrp(branches(lambda a, b: torch.cat([b, a[:, :2]], 1).split(3, 1)[1], 3), x, 1, ["2", "3", "0"]).values
    assert torch.equal(found["3"], F.pad(found["0"][:, :1], (0, 0, 0, 0, 3, 0)))
    assert torch.equal(found["2"], F.pad(found["0"][:, 1:], (0, 0, 0, 0, 0, 2)))


def test_what_is_read_twice_gets_both_relevances():
    net = below_head(lambda x, a: torch.cat([y := a(x), (y + y)[:, :2], y], 1), (10, 3, 3), nn.Conv2d(3, 4, 3))
    found = relevance.lrp(net, images(2, 3, 5, 5), 0, ["2", "0"], composite="z").values
    torch.testing.assert_close(
        found["2"], found["0"][:, :4] + found["0"][:, 6:] + F.pad(found["0"][:, 4:6], (0, 0, 0, 0, 0, 2))
    )


ACTIVATIONS = [nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.SiLU, nn.GELU, nn.Tanh, nn.Dropout, nn.Dropout2d]


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_hand_on_unchanged_also_in_place(kind):
    conv, x = nn.Conv2d(3, 4, 3), images(2, 3, 5, 5)

    def bare(x):
        return F.conv2d(x, conv.weight)

    for inplace in (False, True) if hasattr(kind(), "inplace") else (False,):
        act = (kind(inplace=True) if inplace else kind()).eval()
        below, above = (below_head(f, (4, 3, 3), conv) for f in (lambda x, a: act(a(x)), lambda x, a: a(act(x - 0.5))))  # noqa: B023
        check(Epsilon(), relevance_rules.COMPOSITES["epsilon"], below, x, x, bare, conv.bias)
        check(AlphaBeta(), relevance_rules.COMPOSITES["epsilon-plus"], above, x, act(x - 0.5), bare, conv.bias)


def test_constants_are_passed_by():
    x = images(2, 3, 5, 5)
    for f in (
        lambda x: x + 1,
        lambda x: 1 + x,
        lambda x: x.add_(x.shape[1]),
        lambda x: (x - 1) / 3,
        lambda x: 2 * x * x.shape[2],
    ):
        found = relevance.lrp(below_head(lambda x: f(x.clone()), (3, 5, 5)), x, 0, ["0", PIXELS]).values  # noqa: B023
        assert torch.equal(found["0"], found[PIXELS])


@pytest.mark.parametrize("shape", [(4, 1, 1), (2, 4, 3, 3), ()])
def test_a_scale_hands_on_the_same_from_either_side(shape):
    """As of ConvNeXt's `layer_scale * x`; and with negative entries, through which a rule of its own would turn signs."""
    scale, x = nn.Parameter(torch.randn(shape, dtype=D)), images(2, 3, 5, 5)
    conv, above = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
    forms = (
        lambda y: y * scale,
        lambda y: scale * y,
        lambda y: torch.mul(scale, y),
        lambda y: torch.mul(other=y, input=scale),
        lambda y: torch.mul(input=y, other=scale),
        lambda y: torch.multiply(scale, y),
        lambda y: y.clone().mul_(scale),
        lambda y: y / (1 / scale),
        lambda y: torch.div(input=y, other=1 / scale),
    )
    torch.manual_seed(1)
    net = below_head(lambda x, a, b, f: b(f(a(x))), (4, 3, 3), conv, above, nn.Identity())
    for composite in COMPOSITES.values():
        found = []
        for form in forms:
            net[4].forward = form
            found.append(relevance.lrp(net, x, 0, ["4", "2", PIXELS], composite=composite).values)
        for values in found:
            assert torch.equal(values["2"], values["4"]) and values["2"].abs().sum() > 0
            torch.testing.assert_close(values[PIXELS], found[0][PIXELS])


def test_a_wider_constant_hands_back_all_that_its_products_stand_for():
    x, scale = images(2, 3, 5, 5), torch.tensor([2.0, -1.0], dtype=D).view(2, 1, 1)
    for f in (lambda x: x[:, :1] * scale, lambda x: scale * x[:, :1]):
        found = relevance.lrp(below_head(f, (2, 5, 5)), x, 0, ["0", PIXELS]).values
        torch.testing.assert_close(found[PIXELS], F.pad(found["0"].sum(1, keepdim=True), (0, 0, 0, 0, 0, 2)))


def test_two_products_as_logits_are_no_halves():
    """One logit stands for two as (-z/2, z/2); tensors are not asked whether they are these numbers."""
    x, ways = images(2, 3, 4, 4), torch.tensor([[0.3], [0.4]], dtype=D)
    head = nn.Linear(3, 1)
    for f in (lambda z: torch.cat([z * ways, z * ways], 1), lambda z: torch.cat([ways * z, z * 2.0], 1)):
        net = drawn(Net(lambda x, head, f=f: f(head(x.mean((2, 3)))), head))
        found = relevance.lrp(net, x, 1, composite=ZERO)
        assert found.values[PIXELS].abs().sum() > 0 and found.logits.shape == (2, 2)


@pytest.mark.parametrize("arch", ["plain", "residual", "inception", "small", "wresnet"])
def test_without_biases_the_vanilla_rule_is_gradient_times_input(arch):
    model, x, y = drawn(models.create(arch, classes=5), bias=False, shift=False), images(2, 3, 16, 16), torch.tensor([4, 0])
    found = relevance.lrp(model, x, y, [PIXELS, model.stages[-1]], composite="z")
    expected = gradients.gradient(model, x, y).values * (x - model.mean)
    torch.testing.assert_close(found.values[PIXELS], expected, rtol=1e-6, atol=1e-12)
    for values in found.values.values():
        torch.testing.assert_close(values.sum((1, 2, 3)), found.logits.gather(1, y[:, None])[:, 0])


CONSERVED = {
    "plain": (*small.STAGES, "into:stage3"),
    "residual": (*small.STAGES, "into:stage2.1", "into:stage3.0"),
    "inception": (*small.STAGES, "into:stage3.2"),
    "small": ("conv1", "conv2", "conv3", "into:conv2", "into:conv3"),
    "vgg19": ("features.3", "features.35", "into:features.34"),
    "resnet50": ("layer1", "layer2", "layer3", "layer4", "into:layer4.2", "into:layer1.0"),
    "densenet121": ("features.denseblock1", "features.denseblock4", "into:features.denseblock4.denselayer16"),
    "googlenet": ("conv3", "inception3b", "inception4e", "inception5b", "into:inception4a"),
}


@pytest.mark.parametrize("arch", CONSERVED)
def test_relevance_is_conserved_through_whole_networks(arch):
    """A shift can put out what has no positive input: where BatchNorm is passed by, and in strided shortcuts."""
    model = drawn(models.create(arch, classes=10), bias=False, shift=arch not in ("densenet121", "residual"))
    size = 32 if arch in models.SMALL_NETWORKS else 64
    found = relevance.lrp(model, images(1, 3, size, size), torch.tensor([3]), [PIXELS, *CONSERVED[arch]], composite=ZERO)
    for name, values in found.values.items():
        assert values.sum().item() == pytest.approx(found.logits[0, 3].item(), rel=1e-7), name


class Kernel(nn.Module):
    """Relevance as a module, so that functional_call can put weights into its network."""

    def __init__(self, net, composite):
        super().__init__()
        self.net, self.composite = net, composite

    def forward(self, x):
        found = relevance.lrp(self.net, x, 1, [PIXELS, "max"], composite=self.composite, create_graph=True)
        return torch.cat([v.flatten() for v in (*found.values.values(), found.logits)])


@pytest.mark.parametrize("composite", COMPOSITES.values(), ids=COMPOSITES)
def test_derivatives_with_respect_to_images_and_every_parameter(composite):
    net, x = drawn(Shallow()), 0.2 + 0.6 * images(1, 3, 4, 4)
    names = [f"net.{name}" for name, _ in net.named_parameters()]

    def of(x, *parameters):
        return torch.func.functional_call(Kernel(net, composite), dict(zip(names, parameters, strict=True)), (x,))

    leaves = [t.detach().clone().requires_grad_() for t in (x, *net.parameters())]
    assert torch.autograd.gradcheck(of, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(of, leaves, fast_mode=True)
    if composite in ("epsilon-plus", "heo"):  # entry by entry
        assert torch.autograd.gradcheck(lambda *leaves: of(*leaves).square().sum(), leaves)


@pytest.mark.parametrize("composite", COMPOSITES.values(), ids=COMPOSITES)
def test_rows_classes_and_layers_do_not_see_each_other(composite):
    net, x, classes = drawn(Shallow()), images(3, 3, 8, 8), torch.tensor([[0, 1], [2, 0], [1, 1]])
    layers = [PIXELS, "into:conv2", "max", "mean"]
    found = relevance.lrp(net, x, classes, layers, composite=composite)
    torch.testing.assert_close(found.logits, net(x).detach())
    for name in layers:
        assert found.values[name].shape[:2] == (3, 2)
        for k in range(2):
            alone = relevance.lrp(net, x, classes[:, k], name, composite=composite)
            assert list(alone.values) == [name]
            torch.testing.assert_close(found.values[name][:, k], alone.values[name])
        for n in range(3):
            row = relevance.lrp(net, x[n : n + 1], classes[n : n + 1], name, composite=composite).values[name]
            torch.testing.assert_close(found.values[name][n : n + 1], row)
    decided, expected = (
        relevance.lrp(net, x, y, composite=composite).values[PIXELS] for y in (contract.predicted, net(x).argmax(1))
    )
    assert torch.equal(decided, expected)


@pytest.mark.parametrize("composite", COMPOSITES.values(), ids=COMPOSITES)
def test_graphs_and_in_place_operations_change_nothing(composite):
    net, inplace, x = drawn(Shallow()), Shallow(inplace=True).double().eval(), images(2, 3, 8, 8)
    inplace.load_state_dict(net.state_dict())
    layers = [PIXELS, "max", "bn2", "mean"]
    a, b = (relevance.lrp(n, x, 0, layers, composite=composite) for n in (net, inplace))
    with torch.no_grad():
        c = relevance.lrp(net, x, 0, layers, composite=composite, create_graph=True)
    assert torch.equal(a.logits, b.logits) and c.logits.requires_grad and not a.logits.requires_grad
    for n in layers:
        assert torch.equal(a.values[n], b.values[n]) and c.values[n].requires_grad and not a.values[n].requires_grad
        torch.testing.assert_close(a.values[n], c.values[n].detach())


def test_float32_is_close_to_float64():
    net, x = drawn(models.create("residual", classes=10)), images(2, 3, 32, 32)
    for composite in ("epsilon-plus", "epsilon", "heo", "heo-released"):
        exact = relevance.lrp(net, x, 3, composite=composite).values[PIXELS]
        found = relevance.lrp(copy.deepcopy(net).float(), x.float(), 3, composite=composite).values[PIXELS]
        assert found.dtype == torch.float32 and (found - exact).norm() < 1e-3 * exact.norm(), composite


@pytest.mark.parametrize("graph", [False, True])
def test_the_model_is_left_as_it_was(graph):
    net, x = drawn(Shallow(inplace=True)).train(), images(2, 3, 8, 8)
    net.bn1.eval()
    net.head.weight.requires_grad_(False)
    net.conv1.weight.grad = torch.ones_like(net.conv1.weight)
    broken, pixels = Breaks(net), x.clone()
    before = state_of(broken)
    relevance.lrp(net, x, 0, [PIXELS, "conv2", "into:conv2"], create_graph=graph)
    with pytest.raises(RuntimeError, match="forced"):
        relevance.lrp(broken, x, 0, [PIXELS, "into:conv2"], create_graph=graph)
    assert same_state(before, state_of(broken)) and not any(m._forward_pre_hooks for m in broken.modules())
    assert torch.equal(x, pixels) and not x.requires_grad and torch.is_grad_enabled()


def test_exact_costs():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 6, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(6, 5, 3, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 4, bias=False),
    )
    z = x = torch.rand(2, 3, 12, 12)
    cost = []
    for layer in net:
        cost.append(flops(lambda layer=layer, z=z: layer(z)))
        z = layer(z).detach()
    forward, convolutions = sum(cost), cost[0] + cost[3] + cost[5]
    epsilon, plus = (lambda *a, c=c: flops(lambda: relevance.lrp(net, x, *a, composite=c)) for c in ("epsilon", "epsilon-plus"))
    assert epsilon(0) == flops(lambda: gradients.gradient(net, x, 0)) == 2 * forward
    assert plus(0) == 2 * forward + convolutions
    assert plus(torch.tensor([[0, 1], [2, 3]])) == 3 * forward + 2 * convolutions
    assert flops(lambda: relevance.lrp(net, x, 0, composite="alpha2-beta1")) == 2 * forward + 3 * convolutions
    assert epsilon(0, "into:6") == forward + cost[8]  # the last stage: nothing but the head
    for lowest, above in (("5", 6), ("into:5", 5), ("4", 5), ("0", 1), (PIXELS, 0)):
        assert epsilon(0, lowest) == epsilon(0, [lowest, "into:6"]) == forward + sum(cost[above:])


def stale(x):
    x.relu_()
    return x


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (torch.sigmoid, "no rule for 'sigmoid', which runs in layer 'Net'; replace it by a layer that has one"),
        (lambda x: x * x.flatten(2).softmax(2).view_as(x), "'mul' of two activations.*in layer 'Net'"),
        (lambda x: x / (x.mean() + 1), "'div' of two activations"),
        (lambda x: 1 / (x.square() + 1), "no rule for"),
        (lambda x: torch.div(input=torch.ones(4, 3, 3, dtype=D), other=x), "no rule for 'div', which runs in layer 'Net'"),
        (lambda x: torch.ones(4, 3, 3, dtype=D) - x, "no rule for 'sub', which runs in layer 'Net'"),
        (lambda x: x + x.mean((2, 3), keepdim=True), "layer 'Net' adds with a factor or across shapes"),
        (lambda x: torch.add(x, x, alpha=2), "adds with a factor or across shapes"),
        (lambda x: F.batch_norm(x, *torch.ones(2, 4, dtype=D), training=True), "normalises with the batch's own statistics"),
        (stale, r"layer 'Net' reads a tensor that was changed in place; write x = x.relu\(\)"),
    ],
)
def test_what_has_no_rule_is_refused_with_its_layer(f, message):
    with pytest.raises(ValueError, match=message):
        relevance.lrp(below_head(lambda x, a: f(a(x)), (4, 3, 3), nn.Conv2d(3, 4, 3)), images(2, 3, 5, 5), 0)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_wrong_calls_are_refused():
    net, x = drawn(Shallow()), images(2, 3, 8, 8)
    conv, flat, head = nn.Conv2d(3, 4, 3, padding="same"), nn.Flatten(), nn.Linear(256, 3)
    gated, even, local = (
        classifier.Classifier(nn.Sequential(*m, flat, head).double(), stages=("0",), classes=3)
        for m in (
            [conv, nn.Sigmoid()],
            [nn.Conv2d(3, 4, 2, padding="same")],
            [conv, nn.BatchNorm2d(4, track_running_stats=False)],
        )
    )
    net.spare, broken = nn.Conv2d(3, 4, 3), drawn(Shallow())
    broken.conv2.weight.data[0] = torch.nan
    for call, message in (
        (lambda: relevance.lrp(gated, x, 0), "no rule for 'sigmoid', which runs in layer '1'"),
        (lambda: relevance.lrp(even, x, 0), "layer '0' pads 'same' with an even kernel"),
        (lambda: relevance.lrp(local, x, 0), "layer '1' normalises with the batch's own statistics"),
        (lambda: relevance.lrp(local, x, 0, composite="heo"), "layer '1' normalises with the batch's own statistics"),
        (lambda: relevance.lrp(net, x, 0, composite="lrp-0"), "unknown composite 'lrp-0'; .*There are z, epsilon"),
        (lambda: relevance.lrp(net, x, 0, "convv2"), "no layer 'convv2' in Shallow; did you mean conv2"),
        (lambda: relevance.lrp(net, x, 0, "into:convv2"), "no layer 'convv2' in Shallow; did you mean conv2"),
        (lambda: relevance.lrp(net, x, 0, ["conv1", "spare"]), "layer 'spare' did not run"),
        (lambda: relevance.lrp(net, x, 0, "head"), r"layer 'head' puts out \(2, 3\)"),
        (lambda: relevance.lrp(net, x, 0, []), "no layer named"),
        (lambda: relevance.lrp(net, 2 * x, 0), "images range over"),
        (lambda: relevance.lrp(net, x[0], 0), "expected .N, C, H, W."),
        (lambda: relevance.lrp(net, x, 3), "targets range over"),
        (lambda: relevance.lrp(broken, x, 0), r"NaN or infinity in conv2\.weight"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(list(COMPOSITES.values())), st.sampled_from([1, 2, 5]), st.sampled_from("01?"))
def test_awkward_images_give_finite_relevance(seed, composite, size, constant):
    """Black and white images, maps of one pixel, dead ReLUs, logits of any sign; one image, float32."""
    torch.manual_seed(seed)
    modules = (nn.Conv2d(4, 4, 3, padding=1, stride=2), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Linear(4, 3))
    net = Net(lambda x, a, n, b, head: head((F.relu(b(y := F.relu(n(a(x))))) + y).mean((2, 3))), *modules)
    net = drawn(net, bias=bool(seed % 2)).float()
    x = torch.rand(1, 4, size, size).round(decimals=1) if constant == "?" else torch.full((1, 4, size, size), float(constant))
    found = relevance.lrp(net, x, 0, [PIXELS, "1", "into:2"], composite=composite)
    assert all(v.isfinite().all() for v in found.values.values())


def fork():
    """y = layer 2, layer 3 on it, and the sum of both, each by way of a layer without weights."""
    modules = (nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Identity(), nn.Identity())
    return below_head(lambda x, a, b, left, right: left(b(y := a(x))) + right(y), (4, 3, 3), *modules)


@pytest.mark.parametrize(
    ("made", "others"), [(Shallow, ["bn2"]), (Shallow, ["conv1"]), (Shallow, ["into:bn1"]), (fork, ["into:3", "into:5"])]
)
def test_what_else_is_asked_for_changes_nothing(made, others):
    """A branch of a sum, both sides of a fold, two names of one tensor."""
    net, x = drawn(made()), images(2, 3, 8 if made is Shallow else 5, 8 if made is Shallow else 5)
    together = relevance.lrp(net, x, 0, [PIXELS, *others], composite="epsilon").values
    for name in (PIXELS, *others):
        torch.testing.assert_close(together[name], relevance.lrp(net, x, 0, name, composite="epsilon").values[name])


def test_a_shortcut_without_weights_gets_its_share():
    found = relevance.lrp(fork(), images(2, 3, 5, 5), 0, ["0", "4", "5", PIXELS], composite="z").values
    torch.testing.assert_close(found["4"] + found["5"], found["0"])


@pytest.mark.parametrize(
    "f",
    [
        lambda x: (x.relu_(), x.__iadd__(1.0))[1],
        lambda x: (x[:, :2].relu_(), x)[1],
        lambda x: (x.flatten(2).relu_(), x)[1],
        lambda x: (x.__setitem__((slice(None), 0), 0.0), x)[1],
        lambda x: (y := torch.zeros(2, 4, 3, 3, dtype=D), y.__setitem__(slice(None), x))[0],
    ],
)
def test_what_changes_tensors_behind_the_tape_is_refused(f):
    with pytest.raises(ValueError, match="layer 'Net'"):
        relevance.lrp(below_head(lambda x, a: f(a(x)), (4, 3, 3), nn.Conv2d(3, 4, 3)), images(2, 3, 5, 5), 0)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x + (-0.5),
        lambda x: torch.cat([x[:, :2] - 0.5, x[:, 2:]], 1),
        lambda x: F.pad(x[:, :, 1:-1, 1:-1], (1, 1, 1, 1), value=-1.0),
        lambda x: torch.cat([x[:, :2], torch.full((2, 1, 5, 5), -1.0, dtype=D)], 1),
    ],
)
def test_a_relu_that_changes_nothing_changes_nothing(f):
    """Also where a negative constant comes in after it."""
    conv, x = nn.Conv2d(3, 4, 3), images(2, 3, 5, 5)
    without, with_relu = (below_head(lambda x, a, g=g: a(f(g(x))), (4, 3, 3), conv) for g in (torch.clone, torch.relu))
    with_relu.load_state_dict(without.state_dict())
    torch.testing.assert_close(relevance.lrp(with_relu, x, 0).values[PIXELS], relevance.lrp(without, x, 0).values[PIXELS])
