"""Every rule against its slow twin on explicit matrices, zennit and captum; new ones, refused ones, and what they cost."""

import copy
import operator
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.explanations import relevance, relevance_rules
from lib.explanations.relevance import PIXELS
from lib.explanations.relevance_rules import AlphaBeta, Composite, Epsilon, Flat, Gamma, Rule, WSquare, ZBox
from lib.networks import classifier, models
from lib.system.flops import flops
from tests.conftest import Breaks
from tests.explanations.relevance_cases import (
    ORACLES,
    ZERO,
    Chain,
    D,
    Shallow,
    Z,
    below_head,
    branches,
    by_zennit,
    check,
    drawn,
    handed,
    images,
    matrix,
)

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
    "gamma": Gamma(eps=0),
    "gamma, stabilised": Gamma(2, eps=0.1),
    "z-box": ZBox(-9, 8, eps=0),
    "z-box, stabilised": ZBox(-8, 9, eps=0.1),
    "w-square": WSquare(eps=0),
    "w-square, stabilised": WSquare(eps=0.1),
    "flat": Flat(eps=0),
    "flat, stabilised": Flat(eps=0.1),
}


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


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
    for rule in (Z, Epsilon(0.1), AlphaBeta(eps=0), AlphaBeta(eps=0.1), WSquare(eps=0), Flat(eps=0)):
        check(rule, Composite(Z, Z, rule, Z), net, x, x - shift, pool)


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
            (Flat(eps=0), 1, 1, 2),
            (WSquare(eps=0), 1, 1, 2),
            ("overwritten", total.relu(), b.relu(), total.relu() + b.relu() + 0.1),
        ):
            over = rule == "overwritten"
            composite = Composite(Z, Z, Z, AlphaBeta(eps=0.1) if over else rule, overwritten=over)
            found = relevance.lrp(net, x, 2, ["2", "3", "0"], composite=composite).values
            torch.testing.assert_close(found["2"], found["0"] * mine / divisor)
            torch.testing.assert_close(found["3"], found["0"] * others / divisor)


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
        expected = handed(rule, matrix(bare, x), x[n], conv.bias.repeat_interleave(9), (r[:4] + r[4:]).flatten())
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


def defined():
    return [kind for kind in Rule.__subclasses__() if kind.__module__ == relevance_rules.__name__]


@pytest.mark.parametrize("kind", defined())
def test_every_rule_has_its_equation_and_its_slow_twin(kind):
    assert kind in ORACLES, f"{kind.__name__} has no oracle in relevance_cases.py; write its formula for one output"
    assert any(type(rule) is kind for rule in RULES.values()), f"{kind.__name__} is not in RULES of this file"
    assert ":math:" in kind.__doc__, f"{kind.__name__} does not tell its equation"


def test_a_box_may_differ_from_channel_to_channel():
    conv, x = nn.Conv2d(4, 4, 3, groups=2, padding=1), images(2, 4, 4, 4)
    net, bare = below_head(lambda x, conv: conv(x - 0.5), (4, 4, 4), conv), copy.deepcopy(conv)
    bare.bias = None
    rule = ZBox((-0.5, -1.0, -2.0, -0.6), (0.5, 0.5, 1.0, 3.0), eps=0)
    check(rule, Composite(rule, Z, Z, Z), net, x, x - 0.5, bare.double(), conv.bias)
    check(rule, Composite(Z, Z, Z, Z, first=rule), net, x, x - 0.5, bare, conv.bias)


def test_gamma_lies_between_epsilon_and_z_plus():
    """On outputs above zero, of inputs above zero."""
    net, x = below_head(lambda x, conv: conv(x).relu(), (4, 3, 3), nn.Conv2d(3, 4, 3)), images(2, 3, 5, 5)
    nothing, all_of_it, epsilon, plus = (
        relevance.lrp(net, x, 0, composite=Composite(rule, Z, Z, Z)).values[PIXELS]
        for rule in (Gamma(0, eps=0), Gamma(1e9, eps=0), Z, AlphaBeta(eps=0, bias="signed"))
    )
    torch.testing.assert_close(nothing, epsilon)
    torch.testing.assert_close(all_of_it, plus, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("rule", [ZBox(-2, 2, eps=0), WSquare(eps=0), Flat(eps=0)])
def test_rules_of_pixels_conserve_and_take_no_sign_from_values(rule):
    model, x = drawn(models.create("plain", classes=5), bias=False, shift=False), images(2, 3, 16, 16)
    y = model(x).argmax(1)
    composite = Composite(AlphaBeta(eps=0), AlphaBeta(eps=0), Z, AlphaBeta(eps=0), first=rule)
    found = relevance.lrp(model, x, y, composite=composite)
    score = found.logits.gather(1, y[:, None])[:, 0]
    assert (score > 0).all() and found.values[PIXELS].min() >= 0
    torch.testing.assert_close(found.values[PIXELS].sum((1, 2, 3)), score)


def test_the_first_rule_is_of_layers_that_read_the_image():
    """Normalised, through a ReLU and in two branches; not of a layer above, whatever else is asked for."""
    x, modules = images(2, 3, 5, 5), (nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))
    net = below_head(lambda x, a, b, c: c(a(z := (x - 0.5) / 0.2).relu()) + b(z.relu()), (4, 3, 3), *modules)

    def of(composite, *layers):
        return relevance.lrp(net, x, 1, layers, composite=composite).values

    plain, first = Composite(Z, Z, Z, Z), Composite(Z, Z, Z, Z, first=Flat(eps=0))
    for layers in (["into:4"], ["into:4", PIXELS], ["into:4", "into:2"]):
        assert torch.equal(of(plain, *layers)["into:4"], of(first, *layers)["into:4"])
    for below, above in (("into:2", "2"), ("into:3", "3")):
        for layers in ([below, above], [below, above, PIXELS]):
            found = of(first, *layers)
            spread = F.conv_transpose2d(found[above], torch.ones(4, 3, 3, 3, dtype=D)) / 27
            torch.testing.assert_close(found[below], spread)
            assert not torch.allclose(found[below], of(plain, *layers)[below])


def test_a_rule_is_added_without_touching_the_sweep():
    class Absolute(Rule):
        """|x_i w_ij| / sum of |x_i w_ij|: as alpha-beta with the negative products' sign turned."""

        eps = 0.0

        def through(self, layer, relevance):
            return layer.share(layer.own._replace(x=layer.x.abs(), w=layer.w.abs()), relevance, self.eps)

    conv, x = nn.Conv2d(3, 4, 3, bias=False), images(1, 3, 5, 5)
    net = below_head(lambda x, conv: conv(x), (4, 3, 3), conv)
    found = relevance.lrp(net, x, 0, ["0", PIXELS], composite=Composite(Absolute(), Z, Z, Z)).values
    w = torch.autograd.functional.jacobian(conv, x).reshape(36, 75) * x.flatten()
    expected = (w.abs() / w.abs().sum(1, keepdim=True) * found["0"].flatten()[:, None]).sum(0)
    torch.testing.assert_close(found[PIXELS].flatten(), expected)


@pytest.mark.parametrize("bias", [False, True])
def test_zennit_agrees_on_gamma_flat_w_square_and_the_box(bias):
    """It adds a squared bias to the divisor of w-square, unless told not to."""
    zennit, rules = pytest.importorskip("zennit.composites"), pytest.importorskip("zennit.rules")
    net, x, y = drawn(Chain(bias)), images(3, 3, 8, 8), torch.tensor([0, 2, 1])
    model = classifier.Classifier(net, stages=("below",), classes=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)).double()
    low, high = ((v - model.mean) / model.std for v in (0, 1))

    def of(conv, first, pool):
        passed, dense = (nn.ReLU, rules.Pass()), (nn.Linear, rules.Epsilon())
        layers = [passed, (nn.AvgPool2d, pool), (nn.Conv2d, conv), dense]
        return zennit.SpecialFirstLayerMapComposite(layers, [(nn.Conv2d, first)])

    box = ZBox(tuple(low.flatten().tolist()), tuple(high.flatten().tolist()))
    for ours, theirs in (
        (Composite("gamma", "epsilon", "epsilon", "z"), of(rules.Gamma(), rules.Gamma(), rules.Norm())),
        (Composite(Gamma(3), "epsilon", "flat", "z", first="flat"), of(rules.Gamma(3), rules.Flat(), rules.Flat())),
        (Composite("flat", "epsilon", "flat", "z"), of(rules.Flat(), rules.Flat(), rules.Flat())),
        (
            Composite("z", "epsilon", "epsilon", "z", first="w-square"),
            of(rules.Epsilon(0), rules.WSquare(zero_params="bias"), rules.Norm()),
        ),
        (Composite("gamma", "epsilon", "epsilon", "z", first=box), of(rules.Gamma(), rules.ZBox(low, high), rules.Norm())),
    ):
        found = relevance.lrp(model, x, y, composite=ours).values[PIXELS]
        torch.testing.assert_close(found, by_zennit(theirs, net, (x - model.mean) / model.std, y))


def test_exact_costs_of_rules():
    """In passes of the first layer, beyond the forward pass and one back; inputs are not negative."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    x = torch.rand(2, 3, 12, 12)
    layer, least = flops(lambda: net[0](x)), flops(lambda: relevance.lrp(net, x, 0, composite="z"))
    for rule, passes in ((AlphaBeta(), 1), (AlphaBeta(2, 1), 3), (Gamma(), 3), (WSquare(), 1), (Flat(), 1), (ZBox(0, 1), 3)):
        composite = Composite(Z, Z, Z, Z, first=rule)
        assert flops(lambda c=composite: relevance.lrp(net, x, 0, composite=c)) == least + passes * layer, rule


def test_unknown_rules_and_composites_are_refused_by_name_before_any_pass():
    broken, x = Breaks(drawn(Shallow())), images(2, 3, 8, 8)
    for call, message in (
        (lambda: relevance.lrp(broken, x, 0, composite="lrp-0"), "unknown composite 'lrp-0'; .*There are z, epsilon"),
        (lambda: relevance.lrp(broken, x, 0, composite="epsilon-pluss"), "unknown composite.*did you mean epsilon-plus"),
        (lambda: Composite("gama", "z", "z", "z"), "unknown rule 'gama'; did you mean gamma"),
        (lambda: Composite("z", "z", "z", "z", first="z-box"), r"unknown rule 'z-box'; .*There are z, epsilon"),
        (lambda: Composite("z", 0.1, "z", "z"), "0.1 is no rule; give a Rule"),
        (lambda: Composite(Z, Z, Z, None), "None is no rule; give a Rule"),
        (lambda: Composite("z", "z", "gamma", "z"), r"Gamma\(gamma=0.25.* is no rule of pooling and sums"),
        (lambda: Composite("z", "z", "z", ZBox(0, 1)), r"ZBox\(low=0.* is no rule of pooling and sums"),
        (lambda: Composite("z", "z", "z", "alpha2-beta1"), "no rule of pooling and sums; theirs are Epsilon, AlphaBeta with"),
        (lambda: AlphaBeta(2, 0), "it takes alpha - beta = 1"),
        (lambda: AlphaBeta(0.5, -0.5), "beta >= 0"),
        (lambda: AlphaBeta(2, 1, bias="twice"), "a bias counted twice belongs to alpha = 1"),
        (lambda: Gamma(-1), "it takes gamma >= 0"),
        (lambda: ZBox(1, 0), "low = 1 is not below high = 0"),
        (lambda: ZBox((0.0, 1.0), (1.0, 1.0)), "is not below high"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_box_refuses_what_lies_outside():
    model, x = models.create("plain", classes=3).double(), images(2, 3, 16, 16)
    composite = Composite("z", "z", "z", "z", first=ZBox(0, 1))
    with pytest.raises(
        ValueError, match=r"the input of layer '.*' ranges over .* outside ZBox\(low=0, high=1.*\(0 - mean\) / std"
    ):
        relevance.lrp(model, x, 0, composite=composite)


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
