"""Relevance against its formulas on explicit matrices, zennit, captum, conservation, derivatives and FLOPs."""

import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lib import gradients, hooks, lrp, models
from lib.lrp import PIXELS, AlphaBeta, Composite, Epsilon
from tests.conftest import Breaks, same_state, state_of
from tests.flops import flops

D = torch.float64
RULES = {
    "z": Epsilon(0),
    "epsilon": Epsilon(0.1),
    "1/0": AlphaBeta(eps=0),
    "1/0, stabilised": AlphaBeta(eps=0.1),
    "1/0, signed bias": AlphaBeta(eps=0.1, bias="signed"),
    "1/0, bias twice": AlphaBeta(eps=0.1, bias="twice"),
    "2/1": AlphaBeta(2, 1, eps=0),
    "2/1, signed bias": AlphaBeta(2, 1, eps=0.1, bias="signed"),
    "3/2": AlphaBeta(3, 2, eps=0.1),
}
ZERO = Composite(AlphaBeta(eps=0), Epsilon(0), Epsilon(0), AlphaBeta(eps=0))


class Net(nn.Sequential):
    """A network as a function of the images and its modules, which are called 0, 1, 2."""

    def __init__(self, f, *modules):
        super().__init__(*modules)
        self.f = f

    def forward(self, x):
        return self.f(x, *self)


def drawn(model, bias=True, shift=True):
    """float64, evaluation mode, random biases and statistics of BatchNorm; else zero biases, and nothing that shifts."""
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, (nn.Conv2d, nn.Linear)) and m.bias is not None:
                m.bias.normal_() if bias else m.bias.zero_()
            if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
                m.running_var.uniform_(0.5, 2)
                m.running_mean.normal_(std=0.3) if shift else m.running_mean.zero_()
                if m.affine:
                    m.weight.uniform_(0.5, 1.5)
                    m.bias.normal_(std=0.3) if shift else m.bias.zero_()
    return model.double().eval()


def to_head(*shape, classes=3):
    return nn.Linear(torch.Size(shape).numel(), classes)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def images(*shape):
    return torch.rand(*shape, dtype=D)


def handed(rule, f, x, b, r):
    """The formula for one image: f without its bias as a matrix, all contributions one by one. x (C, h, w); b, r flat."""
    w = torch.autograd.functional.jacobian(f, x[None]).reshape(r.numel(), x.numel())
    found = torch.zeros(x.numel(), dtype=D)

    def share(weight, part, of_bias):
        for j in range(r.numel()):
            contributions = part(w[j] * x.flatten())
            z = contributions.sum() + of_bias(b[j])
            z = z + (-rule.eps if z < 0 else rule.eps)
            if z != 0:
                found.add_(weight * contributions / z * r[j])

    if isinstance(rule, Epsilon):
        share(1, lambda c: c, lambda b: b)
    else:
        kept = {"none": lambda b: 0, "signed": lambda b: b, "twice": lambda b: 2 * b}[rule.bias]
        one_sign = rule.bias == "signed"
        share(rule.alpha, lambda c: c.clamp(min=0), lambda b: kept(b.clamp(min=0) if one_sign else b))
        share(-rule.beta, lambda c: c.clamp(max=0), lambda b: kept(b.clamp(max=0)) if one_sign else 0)
    return found.view_as(x)


def check_layer(net, x, shift, f, b, composite, rule, name):
    """What `net` hands from its layer `name` to the pixels is what the formula hands on, through f, for every class."""
    found = lrp.lrp(net, x, torch.arange(3).repeat(len(x), 1), [name, PIXELS], composite=composite).values
    for n in range(len(x)):
        for k in range(3):
            r = found[name][n, k].flatten()
            bias = torch.zeros(r.numel(), dtype=D) if b is None else b[:, None].expand(-1, r.numel() // len(b)).flatten()
            expected = handed(rule, f, x[n] - shift, bias, r)
            torch.testing.assert_close(found[PIXELS][n, k], expected, msg=lambda m: f"{rule} {m}")


GEOMETRY = {
    "valid": {"kernel_size": 3},
    "no bias": {"kernel_size": 3, "bias": False},
    "stride, padding": {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
    "same": {"kernel_size": (3, 5), "padding": "same"},
    "same, dilated, even": {"kernel_size": 2, "padding": "same", "dilation": 2},
    "padding valid": {"kernel_size": 2, "padding": "valid"},
    "groups": {"kernel_size": 3, "groups": 2, "dilation": (1, 2), "padding": 1},
    "depthwise": {"kernel_size": 2, "groups": 4, "stride": 2},
}


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("geometry", GEOMETRY)
def test_convolutions_hand_on_by_the_formula(geometry, shift):
    conv, x = nn.Conv2d(4, 4, **GEOMETRY[geometry]), images(2, 4, 5, 4)
    net = drawn(Net(lambda x, conv, head: head(conv(x - shift).flatten(1)), conv, to_head(*conv(x[:1].float()).shape[1:])))
    bare = copy.deepcopy(conv)
    bare.bias = None
    for rule in RULES.values():
        check_layer(net, x, shift, bare, conv.bias, Composite(rule, Epsilon(0), Epsilon(0), Epsilon(0)), rule, "0")


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_dense_layers_hand_on_by_the_formula(shift):
    def forward(x, dense, as_map, head):
        return head(F.relu(as_map(dense((x - shift).flatten(1))[:, :, None, None])).flatten(1))

    net, x = drawn(Net(forward, nn.Linear(12, 5), nn.Identity(), nn.Linear(5, 3))), images(2, 3, 2, 2)
    for rule in RULES.values():
        composite = Composite(Epsilon(0), rule, Epsilon(0), Epsilon(0))
        check_layer(net, x, shift, lambda x: F.linear(x.flatten(1), net[0].weight), net[0].bias, composite, rule, "1")


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize(
    "pool",
    [
        lambda x: F.avg_pool2d(x, 2),
        nn.AvgPool2d(3, 2, 1),
        nn.AdaptiveAvgPool2d((2, 3)),
        lambda x: x.mean((2, 3))[:, :, None, None],
        lambda x: torch.mean(x, (2, 3), keepdim=True),
        lambda x: x.mean(dim=1, keepdim=True),
    ],
)
def test_average_pooling_hands_on_by_the_formula(pool, shift):
    x = images(2, 3, 4, 5)
    head = to_head(*pool(x).shape[1:])
    net = drawn(Net(lambda x, as_map, head: head(as_map(pool(x - shift)).flatten(1)), nn.Identity(), head))
    for rule in (Epsilon(0), Epsilon(0.1), AlphaBeta(eps=0), AlphaBeta(eps=0.1)):
        check_layer(net, x, shift, pool, None, Composite(Epsilon(0), Epsilon(0), rule, Epsilon(0)), rule, "0")


def test_the_winner_of_max_pooling_takes_all():
    for pool, plain in (
        (nn.MaxPool2d(3, 2, 1), lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True)),
        (nn.AdaptiveMaxPool2d(2), lambda x: F.adaptive_max_pool2d(x, 2, return_indices=True)),
    ):
        x = images(2, 3, 5, 6)
        head = to_head(*pool(x).shape[1:])
        net = drawn(Net(lambda x, pool, head: head(pool(x - 0.5).flatten(1)), pool, head))
        found = lrp.lrp(net, x, 1, ["0", PIXELS]).values
        winners = plain(x - 0.5)[1].flatten(2)
        expected = torch.zeros_like(x).flatten(2).scatter_add_(2, winners, found["0"].flatten(2)).view_as(x)
        torch.testing.assert_close(found[PIXELS], expected)


def branches(join, channels=4):
    """Two convolutions joined: layers 2 and 3 are what they put out, 4 is the joint."""

    def forward(x, a, b, left, right, joint, head):
        return head(joint(join(left(a(x)), right(b(x)))).flatten(1))

    maps = (nn.Identity(), nn.Identity(), nn.Identity())
    return drawn(Net(forward, nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), *maps, to_head(channels, 3, 3)))


def test_a_sum_is_shared_out_by_its_terms():
    x = images(2, 3, 5, 5)
    for join in (torch.add, lambda a, b: a + b, lambda a, b: a.add(b), lambda a, b: a.__iadd__(b), lambda a, b: a.add_(b)):
        net = branches(join)
        a, b = net[0](x).detach(), net[1](x).detach()
        total = a + b
        shares = {
            Epsilon(0): (a, b, total),
            Epsilon(0.1): (a, b, total + 0.1 * total.sign()),
            AlphaBeta(eps=0.1): (a.relu(), b.relu(), a.relu() + b.relu() + 0.1),
            "overwritten": (total.relu(), b.relu(), total.relu() + b.relu() + 0.1),
        }
        for rule, (mine, others, divisor) in shares.items():
            over = rule == "overwritten"
            composite = Composite(Epsilon(0), Epsilon(0), Epsilon(0), AlphaBeta(eps=0.1) if over else rule, overwritten=over)
            found = lrp.lrp(net, x, 2, ["2", "3", "4"], composite=composite).values
            torch.testing.assert_close(found["2"], found["4"] * mine / divisor)
            torch.testing.assert_close(found["3"], found["4"] * others / divisor)


def test_a_concatenation_hands_each_piece_its_own():
    x = images(2, 3, 5, 5)
    found = lrp.lrp(branches(lambda a, b: torch.cat([b, a], 1), 8), x, 1, ["2", "3", "4"]).values
    assert torch.equal(found["4"], torch.cat([found["3"], found["2"]], 1)) and found["2"].abs().sum() > 0
    found = lrp.lrp(branches(lambda a, b: torch.cat([b, a[:, :2]], 1).split(3, 1)[1], 3), x, 1, ["2", "3", "4"]).values
    assert torch.equal(found["3"], F.pad(found["4"][:, :1], (0, 0, 0, 0, 3, 0)))
    assert torch.equal(found["2"], F.pad(found["4"][:, 1:], (0, 0, 0, 0, 0, 2)))


def test_what_is_read_twice_gets_both_relevances():
    def forward(x, a, once, joint, head):
        y = once(a(x))
        return head(joint(torch.cat([y, (y + y)[:, :2]], 1)).flatten(1))

    net = drawn(Net(forward, nn.Conv2d(3, 4, 3), nn.Identity(), nn.Identity(), to_head(6, 3, 3)))
    found = lrp.lrp(net, images(2, 3, 5, 5), 0, ["1", "2"], composite="z").values
    torch.testing.assert_close(found["1"], found["2"][:, :4] + F.pad(found["2"][:, 4:], (0, 0, 0, 0, 0, 2)))


@pytest.mark.parametrize("rule", RULES)
def test_batchnorm_is_folded_into_the_layer_before_it(rule):
    composite = Composite(RULES[rule], RULES[rule], Epsilon(0), Epsilon(0))
    x = images(2, 4, 5, 5)
    for layer, norm in (
        (nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4, eps=0.1)),
        (nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4)),
        (nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, affine=False)),
        (nn.Linear(100, 5), nn.BatchNorm1d(5)),
    ):
        dense = isinstance(layer, nn.Linear)

        def forward(x, layer, norm, head, dense=dense):
            return head(norm(layer((x - 0.5).flatten(1) if dense else x - 0.5)).relu().flatten(1))

        net = drawn(Net(forward, layer, norm, nn.Linear(5, 3) if dense else to_head(4, 3, 3)))
        by_hand = copy.deepcopy(net)
        by_hand[1] = nn.Identity()
        gain = (1 if norm.weight is None else norm.weight.data) / (norm.running_var + norm.eps).sqrt()
        shift = (0 if norm.bias is None else norm.bias.data) - norm.running_mean * gain
        by_hand[0].weight.data = layer.weight.data * gain.view(-1, *[1] * (layer.weight.dim() - 1))
        by_hand[0].bias = nn.Parameter(shift if layer.bias is None else shift + layer.bias.data * gain)
        found, expected = (lrp.lrp(n, x, 1, composite=composite).values[PIXELS] for n in (net, by_hand))
        torch.testing.assert_close(found, expected)


def test_batchnorm_is_passed_by_where_it_cannot_be_folded():
    x, rule = images(2, 4, 5, 5), AlphaBeta(eps=0)
    net = drawn(Net(lambda x, a, n, head: head(n(a(x)).flatten(1)), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), to_head(4, 3, 3)))
    bare = copy.deepcopy(net[0])
    bare.bias = None
    unfolded = Composite(rule, Epsilon(0), Epsilon(0), Epsilon(0), fold=False)
    check_layer(net, x, 0, bare, net[0].bias, unfolded, rule, "1")

    first = drawn(Net(lambda x, n, head: head(n(x).flatten(1)), nn.BatchNorm2d(4), to_head(4, 5, 5)))
    found = lrp.lrp(first, x, 0, ["0", PIXELS], composite=ZERO).values
    assert torch.equal(found["0"], found[PIXELS])

    def forward(x, a, n, left, right, head):
        y = a(x)
        return head(torch.cat([left(n(y)), right(y * 2)], 1).flatten(1))

    read_twice = drawn(Net(forward, net[0], net[1], nn.Identity(), nn.Identity(), to_head(8, 3, 3)))
    found = lrp.lrp(read_twice, x, 0, ["2", "3", PIXELS], composite=ZERO).values
    for n in range(len(x)):
        expected = handed(rule, bare, x[n], net[0].bias.repeat_interleave(9), (found["2"] + found["3"])[n].flatten())
        torch.testing.assert_close(found[PIXELS][n], expected)


def test_where_the_divisor_is_zero_nothing_is_handed_on():
    net = drawn(Net(lambda x, conv, head: head(conv(x).flatten(1)), nn.Conv2d(3, 4, 3), to_head(4, 3, 3)))
    net[0].weight.data = -net[0].weight.data.abs()
    for composite in (ZERO, "epsilon-plus", "heo"):
        found = lrp.lrp(net, images(2, 3, 5, 5), 0, ["0", PIXELS], composite=composite).values
        assert found["0"].abs().sum() > 0 and found[PIXELS].eq(0).all()


@pytest.mark.parametrize("arch", ["plain", "residual", "inception", "small", "wresnet"])
def test_without_biases_the_vanilla_rule_is_gradient_times_input(arch):
    model, x = drawn(models.create(arch, classes=5), bias=False, shift=False), images(2, 3, 16, 16)
    y = torch.tensor([4, 0])
    expected = gradients.gradient(model, x, y).values * (x - model.mean)
    found = lrp.lrp(model, x, y, composite="z")
    torch.testing.assert_close(found.values[PIXELS], expected, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(found.values[PIXELS].sum((1, 2, 3)), found.logits.gather(1, y[:, None])[:, 0])


CONSERVED = {
    "plain": (*models.STAGES, "into:stage3"),
    "residual": (*models.STAGES, "into:stage2.1", "into:stage3.0"),
    "inception": (*models.STAGES, "into:stage3.2"),
    "small": ("conv1", "conv2", "conv3", "into:conv2", "into:conv3"),
    "vgg19": ("features.3", "features.35", "into:features.34"),
    "resnet50": ("layer1", "layer2", "layer3", "layer4", "into:layer4.2", "into:layer1.0"),
    "densenet121": ("features.denseblock1", "features.denseblock4", "into:features.denseblock4.denselayer16"),
    "googlenet": ("conv3", "inception3b", "inception4e", "inception5b", "into:inception4a"),
}


@pytest.mark.parametrize("arch", CONSERVED)
def test_relevance_is_conserved_through_whole_networks(arch):
    """A shift can put out what has no positive input: where BatchNorm is passed by, and beside strided shortcuts."""
    model = drawn(models.create(arch, classes=10), bias=False, shift=arch not in ("densenet121", "residual"))
    size = 32 if arch in models.SMALL_NETWORKS else 64
    found = lrp.lrp(model, images(1, 3, size, size), torch.tensor([3]), [PIXELS, *CONSERVED[arch]], composite=ZERO)
    for name, values in found.values.items():
        assert values.sum().item() == pytest.approx(found.logits[0, 3].item(), rel=1e-7), name


def by_zennit(composite, model, x, y):
    zennit = pytest.importorskip("zennit.attribution")
    start = F.one_hot(y, 3).to(x)
    return zennit.Gradient(model, composite)(x.clone().requires_grad_(), lambda logits: logits * start)[1].detach()


class Shallow(nn.Module):
    """Convolutions, a shortcut, both poolings, two dense layers; the ReLUs may work in place."""

    def __init__(self, bias=True, norm=True, inplace=False):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=bias), nn.BatchNorm2d(4) if norm else nn.Identity()
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=bias), nn.BatchNorm2d(4) if norm else nn.Identity()
        self.relu, self.relu2, self.relu3 = (nn.ReLU(inplace) for _ in range(3))
        self.inplace, self.max, self.mean = inplace, nn.MaxPool2d(2), nn.AvgPool2d(2)
        self.hidden, self.relu4, self.head = nn.Linear(4, 5, bias), nn.ReLU(inplace), nn.Linear(5, 3, bias)

    def forward(self, x):
        x = self.max(self.relu(self.bn1(self.conv1(x))))
        y = self.bn2(self.conv2(x))
        if self.inplace:
            y += x
        else:
            y = y + x
        y = self.mean(self.relu2(y))
        return self.head(self.relu4(self.hidden(y.flatten(2).mean(2))))


class Chain(nn.Module):
    """No shortcut; the shape of a VGG."""

    def __init__(self, bias=False):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, bias=bias), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, padding=1, bias=bias), nn.ReLU(), nn.AvgPool2d(2),
        )  # fmt: skip
        self.hidden, self.relu, self.head = nn.Linear(24, 5, bias=bias), nn.ReLU(), nn.Linear(5, 3, bias=bias)

    def forward(self, x):
        return self.head(self.relu(self.hidden(self.features(x).flatten(1))))


def test_zennit_agrees_on_a_network_without_biases():
    """Its stabiliser is ours, its BatchNorm and sums are not: here are none."""
    composites, rules = pytest.importorskip("zennit.composites"), pytest.importorskip("zennit.rules")
    net, x, y = drawn(Chain()), images(3, 3, 8, 8), torch.tensor([0, 2, 1])
    for ours, theirs in (
        ("epsilon-plus", composites.EpsilonPlus()),
        ("alpha2-beta1", composites.EpsilonAlpha2Beta1()),
        (Composite(AlphaBeta(3, 2), Epsilon(0.1), Epsilon(), Epsilon()), None),
        ("epsilon", None),
    ):
        if theirs is None:
            conv, dense = (
                (rules.Epsilon(), rules.Epsilon()) if ours == "epsilon" else (rules.AlphaBeta(3, 2), rules.Epsilon(0.1))
            )
            others = [(nn.ReLU, rules.Pass()), (nn.AvgPool2d, rules.Norm())]
            theirs = composites.LayerMapComposite([*others, (nn.Conv2d, conv), (nn.Linear, dense)])
        torch.testing.assert_close(lrp.lrp(net, x, y, composite=ours).values[PIXELS], by_zennit(theirs, net, x, y))


@pytest.mark.parametrize("bias", [False, True])
def test_zennit_agrees_on_a_folded_resnet(bias):
    """It shares sums out by value where epsilon-plus does by positive parts, drops the head's bias with the others, and leaves
    the epsilon of a folded BatchNorm behind."""
    composites = pytest.importorskip("zennit.composites")
    canonizer = pytest.importorskip("zennit.torchvision").ResNetCanonizer()
    model = drawn(models.create("resnet18", classes=3), bias=bias)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eps = 1e-12
        if isinstance(m, nn.ReLU):
            m.inplace = False
    x, y = images(2, 3, 64, 64), torch.tensor([0, 2])
    ours = Composite(AlphaBeta(bias="signed" if bias else "none"), Epsilon(), Epsilon(), Epsilon())
    found = lrp.lrp(model, x, y, composite=ours).values[PIXELS]
    theirs = composites.EpsilonPlus(canonizers=[canonizer], zero_params=None if bias else "bias")
    expected = by_zennit(theirs, model.net, ((x - model.mean) / model.std), y)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
def test_captum_agrees_on_a_chain_of_layers(bias):
    captum = pytest.importorskip("captum.attr")
    net, x, y = drawn(Chain(bias)), images(3, 3, 8, 8), torch.tensor([0, 2, 1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting backward hooks")
        expected = captum.LRP(copy.deepcopy(net)).attribute(x.clone().requires_grad_(), target=y).detach()
    rule = Epsilon(1e-9)
    torch.testing.assert_close(lrp.lrp(net, x, y, composite=Composite(rule, rule, rule, rule)).values[PIXELS], expected)


@pytest.mark.parametrize("composite", ["epsilon-plus", "z", "epsilon", "heo", "heo-released", "alpha2-beta1"])
def test_derivatives_with_respect_to_images_and_weights(composite):
    net, x = drawn(Shallow()), 0.2 + 0.6 * images(1, 3, 4, 4)

    def of(x, *parameters):
        given = dict(zip((n for n, _ in net.named_parameters()), parameters, strict=True))
        return torch.func.functional_call(Kernel(net, composite), {f"net.{n}": p for n, p in given.items()}, (x,))

    leaves = [t.detach().clone().requires_grad_() for t in (x, *net.parameters())]
    assert torch.autograd.gradcheck(of, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(of, leaves, fast_mode=True)
    if composite in ("epsilon-plus", "heo"):  # every entry of every parameter
        assert torch.autograd.gradcheck(lambda *leaves: of(*leaves).square().sum(), leaves)


class Kernel(nn.Module):
    """Relevance as a module, so that functional_call can put weights into its network."""

    def __init__(self, net, composite):
        super().__init__()
        self.net, self.composite = net, composite

    def forward(self, x):
        found = lrp.lrp(self.net, x, 1, [PIXELS, "conv1"], composite=self.composite, create_graph=True)
        return torch.cat([v.flatten() for v in (*found.values.values(), found.logits)])


def test_with_a_graph_and_without_agree():
    net, x = drawn(Shallow()), images(3, 3, 8, 8)
    for composite in lrp.COMPOSITES:
        a, b = (lrp.lrp(net, x, 0, composite=composite, create_graph=g) for g in (True, False))
        torch.testing.assert_close(a.values[PIXELS], b.values[PIXELS])
        assert a.values[PIXELS].requires_grad and a.logits.requires_grad
        assert not b.values[PIXELS].requires_grad and not b.logits.requires_grad


@pytest.mark.parametrize("composite", lrp.COMPOSITES)
def test_rows_classes_and_layers_do_not_see_each_other(composite):
    net, x = drawn(Shallow()), images(4, 3, 8, 8)
    classes = torch.tensor([[0, 1], [2, 0], [1, 1], [2, 1]])
    layers = [PIXELS, "into:conv2", "max", "mean"]
    found = lrp.lrp(net, x, classes, layers, composite=composite)
    torch.testing.assert_close(found.logits, net(x).detach())
    for name in layers:
        assert found.values[name].shape[:2] == (4, 2)
        for k in range(2):
            alone = lrp.lrp(net, x, classes[:, k], name, composite=composite)
            assert list(alone.values) == [name]
            torch.testing.assert_close(found.values[name][:, k], alone.values[name])
        for n in range(4):
            row = lrp.lrp(net, x[n : n + 1], classes[n : n + 1], name, composite=composite)
            torch.testing.assert_close(found.values[name][n : n + 1], row.values[name])
    decided = lrp.lrp(net, x, hooks.predicted, composite=composite).values[PIXELS]
    torch.testing.assert_close(decided, lrp.lrp(net, x, net(x).argmax(1), composite=composite).values[PIXELS])


def test_float32_is_close_to_float64():
    net, x = drawn(models.create("residual", classes=10)), images(2, 3, 32, 32)
    for composite in ("epsilon-plus", "epsilon", "heo", "heo-released"):
        exact = lrp.lrp(net, x, 3, composite=composite).values[PIXELS]
        found = lrp.lrp(copy.deepcopy(net).float(), x.float(), 3, composite=composite).values[PIXELS]
        assert found.dtype == torch.float32
        assert (found - exact).norm() < 1e-3 * exact.norm(), composite


def everything(model):
    return state_of(model), [len(m._forward_pre_hooks) for m in model.modules()]


def test_the_model_is_left_as_it_was():
    net, x = drawn(Shallow(inplace=True)).train(), images(2, 3, 8, 8)
    net.bn1.eval()
    net.head.weight.requires_grad_(False)
    net.conv1.weight.grad = torch.ones_like(net.conv1.weight)
    for model, layers in ((net, [PIXELS, "conv2", "into:conv2"]), (Breaks(net), [PIXELS, "into:conv2"])):
        for graph in (False, True):
            before, pixels = everything(model), x.clone()
            if model is net:
                lrp.lrp(model, x, 0, layers, create_graph=graph)
            else:
                with pytest.raises(RuntimeError, match="forced"):
                    lrp.lrp(model, x, 0, layers, create_graph=graph)
            after = everything(model)
            assert same_state(before[0], after[0]) and before[1] == after[1]
            assert torch.equal(x, pixels) and not x.requires_grad and torch.is_grad_enabled()


@pytest.mark.parametrize("composite", lrp.COMPOSITES)
def test_in_place_operations_change_nothing(composite):
    net, x = drawn(Shallow()), images(2, 3, 8, 8)
    inplace = Shallow(inplace=True).double().eval()
    inplace.load_state_dict(net.state_dict())
    layers = [PIXELS, "conv1", "bn2", "mean"]
    a, b = (lrp.lrp(n, x, 0, layers, composite=composite) for n in (net, inplace))
    assert torch.equal(a.logits, b.logits) and all(torch.equal(a.values[n], b.values[n]) for n in layers)


ACTIVATIONS = [nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Tanh, nn.Dropout2d]


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations_hand_on_unchanged_also_in_place(kind):
    x, found = images(2, 3, 5, 5), []
    net = drawn(Net(lambda x, a, act, head: head(act(a(x)).flatten(1)), nn.Conv2d(3, 4, 3), kind(), to_head(4, 3, 3)))
    for inplace in (False, True) if hasattr(net[1], "inplace") else (False,):
        if inplace:
            net[1].inplace = True
        values = lrp.lrp(net, x, 1, ["1", PIXELS], composite="epsilon").values
        found.append(values[PIXELS])
        for n in range(2):
            bias = net[0].bias.repeat_interleave(9)
            expected = handed(Epsilon(), lambda x: F.conv2d(x, net[0].weight), x[n], bias, values["1"][n].flatten())
            torch.testing.assert_close(found[-1][n], expected)
    torch.testing.assert_close(found[0], found[-1])


def test_exact_costs():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.ReLU(),
        nn.Conv2d(6, 5, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4, bias=False),
    )  # fmt: skip
    x = torch.rand(2, 3, 12, 12)
    with torch.no_grad():
        steps = [x, *(x := layer(x) for layer in net)]
        x = steps[0]
        cost = [flops(lambda layer=layer, z=z: layer(z)) for layer, z in zip(net, steps, strict=False)]
    forward, convolutions = sum(cost), cost[0] + cost[3] + cost[5]
    assert flops(lambda: lrp.lrp(net, x, 0, composite="epsilon")) == flops(lambda: gradients.gradient(net, x, 0))
    assert flops(lambda: lrp.lrp(net, x, 0, composite="epsilon")) == 2 * forward
    assert flops(lambda: lrp.lrp(net, x, 0)) == 2 * forward + convolutions
    assert flops(lambda: lrp.lrp(net, x, torch.tensor([[0, 1], [2, 3]]))) == 3 * forward + 2 * convolutions
    assert flops(lambda: lrp.lrp(net, x, 0, composite="alpha2-beta1")) == 2 * forward + 3 * convolutions
    for name, above in (("7", 8), ("5", 8), ("3", 5), ("0", 3)):
        assert flops(lambda name=name: lrp.lrp(net, x, 0, name, composite="epsilon")) == forward + sum(cost[above:])
        assert flops(lambda name=name: lrp.lrp(net, x, 0, [name, "5"], composite="epsilon")) == forward + sum(cost[above:])


def through(f):
    """A network that puts f between a convolution and its head."""
    return drawn(Net(lambda x, a, head: head(f(a(x)).mean((2, 3))), nn.Conv2d(3, 4, 3), nn.Linear(4, 3)))


def stale(x):
    x.relu_()
    return x


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (torch.sigmoid, "no rule for 'sigmoid', which runs in layer 'Net'; replace it by a layer that has one"),
        (lambda x: x * x.flatten(2).softmax(2).view_as(x), r"the product of two activations \(mul\).*in layer 'Net'"),
        (lambda x: x / (x.mean() + 1), r"the product of two activations \(div\)"),
        (lambda x: x + x.mean((2, 3), keepdim=True), "adds with a factor or across shapes"),
        (lambda x: torch.add(x, x, alpha=2), "adds with a factor or across shapes"),
        (lambda x: F.batch_norm(x, None, None, training=True), "normalises with the batch's own statistics"),
        (stale, r"layer 'Net' reads a tensor that was changed in place; write x = x.relu\(\)"),
    ],
)
def test_what_has_no_rule_is_refused_with_its_layer(f, message):
    with pytest.raises(ValueError, match=message):
        lrp.lrp(through(f), images(2, 3, 5, 5), 0)


def test_wrong_calls_are_refused():
    net, x = drawn(Shallow()), images(2, 3, 8, 8)
    chain = nn.Sequential(nn.Conv2d(3, 4, 2, padding="same"), nn.Sigmoid(), nn.Flatten(), nn.Linear(256, 3)).double()
    local = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(), nn.Linear(144, 3))
    net.spare = nn.Conv2d(3, 4, 3)
    for call, message in (
        (lambda: lrp.lrp(chain, x, 0), "no rule for 'sigmoid', which runs in layer '1'"),
        (lambda: lrp.lrp(nn.Sequential(chain[0], *chain[2:]), x, 0), "layer '0' pads 'same' with an even kernel"),
        (lambda: lrp.lrp(local.double(), x, 0), "layer '1' normalises with the batch's own statistics"),
        (lambda: lrp.lrp(net, x, 0, composite="lrp-0"), "unknown composite 'lrp-0'; choose one of z, epsilon"),
        (lambda: AlphaBeta(2, 0), "it takes alpha - beta = 1"),
        (lambda: AlphaBeta(0.5, -0.5), "beta >= 0"),
        (lambda: AlphaBeta(2, 1, bias="twice"), "a bias counted twice belongs to alpha = 1"),
        (lambda: lrp.lrp(net, x, 0, "convv2"), "no layer 'convv2' in Shallow; did you mean conv2"),
        (lambda: lrp.lrp(net, x, 0, "into:convv2"), "no layer 'convv2' in Shallow; did you mean conv2"),
        (lambda: lrp.lrp(net, x, 0, ["conv1", "spare"]), "layer 'spare' did not run"),
        (lambda: lrp.lrp(net, x, 0, "head"), r"layer 'head' puts out \(2, 3\)"),
        (lambda: lrp.lrp(net, x, 0, []), "no layer named"),
        (lambda: lrp.lrp(net, 2 * x, 0), "images range over"),
        (lambda: lrp.lrp(net, x[0], 0), "expected .N, C, H, W."),
        (lambda: lrp.lrp(net, x, 3), "targets range over"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10_000), st.sampled_from(list(lrp.COMPOSITES)), st.sampled_from([1, 2, 5]), st.sampled_from(["", "0", "1"])
)
def test_awkward_images_give_finite_relevance(seed, composite, size, constant):
    """Black and white images, maps of one pixel, dead ReLUs, logits of any sign, in float32."""
    torch.manual_seed(seed)
    net = Net(lambda x, a, b, head: head((F.relu(b(F.relu(a(x)))) + x[:, :1]).mean((2, 3))), nn.Conv2d(3, 4, 3, padding=1),
              nn.Conv2d(4, 4, 1), nn.Linear(4, 3))  # fmt: skip
    net = drawn(net, bias=bool(seed % 2)).float()
    x = torch.full((1, 3, size, size), float(constant)) if constant else torch.rand(1, 3, size, size).round(decimals=1)
    found = lrp.lrp(net, x, 0, [PIXELS, "0", "into:1"], composite=composite)
    assert all(v.isfinite().all() for v in found.values.values())
