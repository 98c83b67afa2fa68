"""Relevance against its formulas on explicit matrices, zennit, captum, conservation, derivatives and FLOPs."""

import copy
import operator
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lib.explanations import gradients, relevance, relevance_rules
from lib.explanations.relevance import PIXELS
from lib.explanations.relevance_rules import AlphaBeta, Composite, Epsilon
from lib.networks import classifier, contract, models, small
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
Z = Epsilon(0)
ZERO = Composite(AlphaBeta(eps=0), Z, Z, AlphaBeta(eps=0))


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def images(*shape):
    return torch.rand(*shape, dtype=D)


@torch.no_grad()
def drawn(model, bias=True, shift=True):
    """float64, evaluation mode; random biases or none; statistics of BatchNorm at random, that shift or do not."""
    for m in model.modules():
        if isinstance(m, (nn.Conv2d, nn.Linear)) and m.bias is not None:
            m.bias.normal_(std=float(bias))
        if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)):
            m.running_var.uniform_(0.5, 2)
            m.running_mean.normal_(std=0.3 * shift)
            if m.affine:
                m.weight.uniform_(0.5, 1.5)
                m.bias.normal_(std=0.3 * shift)
    return model.double().eval()


class Net(nn.Sequential):
    """A network as a function of the images and its modules, which are called 0, 1, 2; three classes."""

    def __init__(self, f, *modules):
        super().__init__(*modules)
        self.f = f

    def forward(self, x):
        return self.f(x, *self)


def below_head(f, shape, *modules):
    """f(x, *modules), of that shape, is layer 0, and a dense layer's input."""
    modules = (nn.Identity(), nn.Linear(torch.Size(shape).numel(), 3), *modules)
    return drawn(Net(lambda x, as_layer, head, *rest: head(as_layer(f(x, *rest)).flatten(1)), *modules))


class Shallow(nn.Module):
    """Folded BatchNorm, a shortcut, both kinds of pooling, two dense layers; all in place where asked."""

    def __init__(self, inplace=False):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.max, self.mean, self.relu = nn.MaxPool2d(2), nn.AvgPool2d(2), nn.ReLU(inplace)
        self.hidden, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        x = self.max(self.relu(self.bn1(self.conv1(x))))
        y = self.bn2(self.conv2(x))
        y = operator.iadd(y, x) if self.relu.inplace else y + x
        return self.head(self.relu(self.hidden(self.mean(self.relu(y)).mean((2, 3)))))


def handed(rule, f, x, b, r):
    """The formula for one image: f without its bias as a matrix, output by output. x (C, h, w); r and b flat."""
    w = torch.autograd.functional.jacobian(f, x[None]).reshape(r.numel(), x.numel())
    found = torch.zeros(x.numel(), dtype=D)

    def share(weight, part, bias):
        for j in range(r.numel()):
            contributions = part(w[j] * x.flatten())
            z = contributions.sum() + bias[j]
            z = z + (-rule.eps if z < 0 else rule.eps)
            if z != 0:
                found.add_(weight * contributions / z * r[j])

    if isinstance(rule, Epsilon):
        share(1, lambda c: c, b)
    else:
        plus = {"none": 0 * b, "signed": b.clamp(min=0), "twice": 2 * b}[rule.bias]
        share(rule.alpha, lambda c: c.clamp(min=0), plus)
        share(-rule.beta, lambda c: c.clamp(max=0), b.clamp(max=0) if rule.bias == "signed" else 0 * b)
    return found.view_as(x)


def check(rule, composite, net, x, seen, f, b=None):
    """What `net` hands from layer 0 to the pixels is what the formula hands on through f, which sees `seen` of the images."""
    found = relevance.lrp(net, x, torch.tensor([[0, 2]] * len(x)), ["0", PIXELS], composite=composite).values
    for n in range(len(x)):
        for k in range(2):
            r = found["0"][n, k]
            bias = torch.zeros_like(r) if b is None else b.detach().view(-1, 1, 1).expand_as(r)
            expected = handed(rule, f, seen[n], bias.flatten(), r.flatten())
            torch.testing.assert_close(found[PIXELS][n, k], expected, msg=lambda m: f"{rule}: {m}")


GEOMETRY = {
    "valid": {"kernel_size": 3},
    "no bias": {"kernel_size": 3, "bias": False},
    "stride, padding": {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
    "same": {"kernel_size": (3, 5), "padding": "same"},
    "same, dilated, even": {"kernel_size": 2, "padding": "same", "dilation": 2},
    "padding valid": {"kernel_size": 3, "padding": "valid"},
    "groups": {"kernel_size": 3, "groups": 2, "dilation": (1, 2), "padding": 1},
    "depthwise": {"kernel_size": 2, "groups": 4, "stride": 2},
}


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("geometry", GEOMETRY)
def test_convolutions_hand_on_by_the_formula(geometry, shift):
    conv, x = nn.Conv2d(4, 4, **GEOMETRY[geometry]), images(2, 4, 5, 4)
    net, bare = below_head(lambda x, conv: conv(x - shift), conv(x.float())[0].shape, conv), copy.deepcopy(conv)
    bare.bias = None
    for rule in RULES.values():
        check(rule, Composite(rule, Z, Z, Z), net, x, x - shift, bare.double(), conv.bias)


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("size", [12, 3])
def test_dense_layers_hand_on_by_the_formula(size, shift):
    """On flat values, and on the channels of each pixel."""
    dense, x = nn.Linear(size, 5), images(2, 3, 2, 2)

    def f(x, dense):
        return dense(x.flatten(1))[:, :, None, None] if size == 12 else dense(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    net = below_head(lambda x, dense: f(x - shift, dense), f(x.float(), dense)[0].shape, dense)
    for rule in RULES.values():
        bare = lambda x: f(x, lambda x: F.linear(x, dense.weight))  # noqa: E731
        check(rule, Composite(Z, rule, Z, Z), net, x, x - shift, bare, dense.bias)


POOLS = {
    "function": lambda x: F.avg_pool2d(x, 2),
    "module": nn.AvgPool2d(3, 2, 1),
    "adaptive": nn.AdaptiveAvgPool2d((2, 3)),
    "mean": lambda x: x.mean((2, 3))[:, :, None, None],
    "torch.mean": lambda x: torch.mean(x, dim=1, keepdim=True),
}


@pytest.mark.parametrize("shift", [0.0, 0.5])
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS)
def test_average_pooling_hands_on_by_the_formula(pool, shift):
    x = images(2, 3, 4, 5)
    net = below_head(lambda x: pool(x - shift), pool(x)[0].shape)
    for rule in (Z, Epsilon(0.1), AlphaBeta(eps=0), AlphaBeta(eps=0.1)):
        check(rule, Composite(Z, Z, rule, Z), net, x, x - shift, pool)


def test_the_winner_of_max_pooling_takes_all():
    for pool, x in ((nn.MaxPool2d(3, 2, 1), images(2, 3, 5, 6)), (nn.AdaptiveMaxPool2d(2), images(2, 3, 5, 7))):
        net = below_head(lambda x, pool: pool(x - 0.5), pool(x)[0].shape, pool)
        found = relevance.lrp(net, x, 1, ["0", PIXELS]).values
        pool.return_indices = True
        expected = torch.zeros_like(x).flatten(2).scatter_add_(2, pool(x)[1].flatten(2), found["0"].flatten(2))
        torch.testing.assert_close(found[PIXELS], expected.view_as(x))


def branches(join, channels=4):
    """Two convolutions, layers 2 and 3, joined in layer 0."""
    return below_head(lambda x, a, b: join(a(x), b(x)), (channels, 3, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3))


def test_a_sum_is_shared_out_by_its_terms():
    x = images(2, 3, 5, 5)
    for join in (torch.add, operator.add, operator.iadd, lambda a, b: a.add_(b)):
        net = branches(join)
        a, b = (net[i](x).detach() for i in (2, 3))
        total, plus = a + b, a.relu() + b.relu() + 0.1
        for rule, mine, others, divisor in (
            (Z, a, b, total),
            (Epsilon(0.1), a, b, total + 0.1 * total.sign()),
            (AlphaBeta(eps=0.1), a.relu(), b.relu(), plus),
            ("overwritten", total.relu(), b.relu(), total.relu() + b.relu() + 0.1),
        ):
            over = rule == "overwritten"
            composite = Composite(Z, Z, Z, AlphaBeta(eps=0.1) if over else rule, overwritten=over)
            found = relevance.lrp(net, x, 2, ["2", "3", "0"], composite=composite).values
            torch.testing.assert_close(found["2"], found["0"] * mine / divisor)
            torch.testing.assert_close(found["3"], found["0"] * others / divisor)


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


class Other(nn.BatchNorm2d):
    def forward(self, x):
        return torch.batch_norm(x, self.weight, self.bias, self.running_mean, self.running_var, False, 0.1, self.eps, False)


FOLDED = {
    "groups": lambda: (nn.Conv2d(4, 4, 3, groups=2), nn.BatchNorm2d(4, eps=0.1)),
    "no bias": lambda: (nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4)),
    "not affine": lambda: (nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, affine=False)),
    "dense": lambda: (nn.Linear(100, 4), nn.BatchNorm1d(4)),
    "no epsilon": lambda: (nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, eps=0.0)),
    "torch.batch_norm": lambda: (nn.Conv2d(4, 4, 3), Other(4)),
}


@pytest.mark.parametrize("kind", FOLDED)
def test_batchnorm_is_folded_into_the_layer_before_it(kind):
    (layer, norm), x, dense = FOLDED[kind](), images(2, 4, 5, 5), kind == "dense"
    bare = copy.deepcopy(layer).double()
    bare.bias = None

    def f(x, layer):
        return layer(x.flatten(1)) if dense else layer(x)

    def as_map(z):
        return z[:, :, None, None] if dense else z

    shape = (4, 1, 1) if dense else (4, 3, 3)
    net = below_head(lambda x, layer, norm: as_map(norm(f(x - 0.5, layer))), shape, layer, norm)
    gain = (1 if norm.weight is None else norm.weight) / (norm.running_var + norm.eps).sqrt()
    b = (0 if norm.bias is None else norm.bias) + ((0 if layer.bias is None else layer.bias) - norm.running_mean) * gain
    for rule in RULES.values():
        check(rule, Composite(rule, rule, Z, Z), net, x, x - 0.5, lambda x: as_map(f(x, bare)) * gain[:, None, None], b)


def test_batchnorm_is_passed_by_where_it_cannot_be_folded():
    x, rule, conv, norm = images(2, 4, 5, 5), Epsilon(0.1), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def bare(x):
        return F.conv2d(x, conv.weight)

    net = below_head(lambda x, a, n: n(a(x)), (4, 3, 3), conv, norm)
    check(rule, Composite(rule, Z, Z, Z, fold=False), net, x, x, bare, conv.bias)
    first = below_head(lambda x, n: n(x), (4, 5, 5), norm)
    found = relevance.lrp(first, x, 0, ["0", PIXELS], composite=ZERO).values
    assert torch.equal(found["0"], found[PIXELS])
    twice = below_head(lambda x, a, n: torch.cat([n(y := a(x)), y * 2], 1), (8, 3, 3), conv, norm)
    found = relevance.lrp(twice, x, 0, ["0", PIXELS], composite=Composite(rule, Z, Z, Z)).values
    for n, r in enumerate(found["0"]):
        expected = handed(rule, bare, x[n], conv.bias.repeat_interleave(9), (r[:4] + r[4:]).flatten())
        torch.testing.assert_close(found[PIXELS][n], expected)


def test_where_the_divisor_is_zero_nothing_is_handed_on():
    """Nothing positive; and what is 1 - 1, but not after BatchNorm."""
    net, x = (
        below_head(lambda x, a, n: n(a(x)), (4, 3, 3), nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4)),
        images(2, 2, 5, 5),
    )
    a = net[2].weight.data
    for w, images_, composites in (
        (-a.abs(), x, (ZERO, "epsilon-plus", "heo")),
        (torch.cat([a[:, :1], -a[:, :1]], 1).sign(), torch.ones_like(x), (Composite(Z, Z, Z, Z, fold=False),)),
    ):
        net[2].weight.data = w
        for composite in composites:
            found = relevance.lrp(net, images_, 0, ["0", PIXELS], composite=composite).values
            assert found["0"].abs().sum() > 0 and found[PIXELS].eq(0).all()


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


def test_named_composites_are_what_they_say():
    x, net, plus, heo = images(2, 3, 8, 8), drawn(Shallow()), AlphaBeta(1, 0, 1e-6, "none"), AlphaBeta(1, 0, 0.01, "none")
    for name, *rules, options in (
        ("z", Z, Z, Z, Z, {}),
        ("epsilon", *[Epsilon(1e-6)] * 4, {}),
        ("epsilon-plus", plus, Epsilon(1e-6), Epsilon(1e-6), plus, {}),
        ("alpha2-beta1", AlphaBeta(2, 1, 1e-6, "none"), Epsilon(1e-6), Epsilon(1e-6), plus, {}),
        ("heo", heo, Epsilon(0.01), heo, heo, {"fold": False}),
        ("heo-released", AlphaBeta(1, 0, 0.01, "twice"), Epsilon(0.01), heo, heo, {"fold": False, "overwritten": True}),
    ):
        found, expected = (relevance.lrp(net, x, 0, composite=c).values[PIXELS] for c in (name, Composite(*rules, **options)))
        assert torch.equal(found, expected), name
    assert torch.equal(
        relevance.lrp(net, x, 0).values[PIXELS], relevance.lrp(net, x, 0, composite="epsilon-plus").values[PIXELS]
    )


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


class Chain(nn.Module):
    """No shortcut and no BatchNorm; every ReLU a module, as the oracles need it."""

    def __init__(self, bias=False):
        super().__init__()
        self.below = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=bias), nn.ReLU(), nn.MaxPool2d(2))
        self.above = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, bias=bias), nn.ReLU(), nn.AvgPool2d(2))
        self.hidden, self.relu, self.head = nn.Linear(24, 5, bias=bias), nn.ReLU(), nn.Linear(5, 3, bias=bias)

    def forward(self, x):
        return self.head(self.relu(self.hidden(self.above(self.below(x)).flatten(1))))


def by_zennit(composite, model, x, y):
    gradient = pytest.importorskip("zennit.attribution").Gradient(model, composite)
    return gradient(x.clone().requires_grad_(), lambda logits: logits * F.one_hot(y, 3))[1].detach()


def test_zennit_agrees_on_a_network_without_biases():
    zennit, rules = pytest.importorskip("zennit.composites"), pytest.importorskip("zennit.rules")
    net, x, y = drawn(Chain()), images(3, 3, 8, 8), torch.tensor([0, 2, 1])

    def of(conv, dense):
        return zennit.LayerMapComposite(
            [(nn.ReLU, rules.Pass()), (nn.AvgPool2d, rules.Norm()), (nn.Conv2d, conv), (nn.Linear, dense)]
        )

    for ours, theirs in (
        ("epsilon-plus", zennit.EpsilonPlus()),
        ("alpha2-beta1", zennit.EpsilonAlpha2Beta1()),
        ("epsilon", of(rules.Epsilon(), rules.Epsilon())),
        (Composite(AlphaBeta(3, 2), AlphaBeta(), Epsilon(), Epsilon()), of(rules.AlphaBeta(3, 2), rules.ZPlus())),
    ):
        torch.testing.assert_close(relevance.lrp(net, x, y, composite=ours).values[PIXELS], by_zennit(theirs, net, x, y))


@pytest.mark.parametrize("bias", [False, True])
def test_zennit_agrees_on_a_folded_resnet(bias):
    """It shares sums out by value where epsilon-plus does by positive parts; drops the head's bias where it drops the
    others'; and leaves the epsilon of a folded BatchNorm in the network."""
    zennit, canonizers = pytest.importorskip("zennit.composites"), pytest.importorskip("zennit.torchvision")
    model, x, y = drawn(models.create("resnet18", classes=3), bias=bias), images(2, 3, 64, 64), torch.tensor([0, 2])
    for m in model.modules():
        m.inplace = False
        if isinstance(m, nn.BatchNorm2d):
            m.eps = 1e-12
    composite = Composite(AlphaBeta(bias="signed" if bias else "none"), Epsilon(), Epsilon(), Epsilon())
    theirs = zennit.EpsilonPlus(canonizers=[canonizers.ResNetCanonizer()], zero_params=None if bias else "bias")
    expected = by_zennit(theirs, model.net, (x - model.mean) / model.std, y)
    torch.testing.assert_close(relevance.lrp(model, x, y, composite=composite).values[PIXELS], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
def test_captum_agrees_on_a_chain_of_layers(bias):
    captum = pytest.importorskip("captum.attr")
    net, x, y = drawn(Chain(bias)), images(3, 3, 8, 8), torch.tensor([0, 2, 1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting backward hooks")
        expected = captum.LRP(copy.deepcopy(net)).attribute(x.clone().requires_grad_(), target=y).detach()
    composite = Composite(*[Epsilon(1e-9)] * 4)
    torch.testing.assert_close(relevance.lrp(net, x, y, composite=composite).values[PIXELS], expected)


class Kernel(nn.Module):
    """Relevance as a module, so that functional_call can put weights into its network."""

    def __init__(self, net, composite):
        super().__init__()
        self.net, self.composite = net, composite

    def forward(self, x):
        found = relevance.lrp(self.net, x, 1, [PIXELS, "max"], composite=self.composite, create_graph=True)
        return torch.cat([v.flatten() for v in (*found.values.values(), found.logits)])


@pytest.mark.parametrize("composite", relevance_rules.COMPOSITES)
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


@pytest.mark.parametrize("composite", relevance_rules.COMPOSITES)
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


@pytest.mark.parametrize("composite", relevance_rules.COMPOSITES)
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
        (lambda: relevance.lrp(net, x, 0, composite="lrp-0"), "unknown composite 'lrp-0'; choose one of z, epsilon"),
        (lambda: AlphaBeta(2, 0), "it takes alpha - beta = 1"),
        (lambda: AlphaBeta(0.5, -0.5), "beta >= 0"),
        (lambda: AlphaBeta(2, 1, bias="twice"), "a bias counted twice belongs to alpha = 1"),
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
@given(
    st.integers(0, 10_000),
    st.sampled_from(list(relevance_rules.COMPOSITES)),
    st.sampled_from([1, 2, 5]),
    st.sampled_from("01?"),
)
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
