"""Small networks, and the rules of relevance as loops over outputs in float64: what both tests of relevance share."""

import operator

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.explanations import relevance
from lib.explanations.relevance import PIXELS
from lib.explanations.relevance_rules import AlphaBeta, Composite, Epsilon, Flat, Gamma, WSquare, ZBox

D = torch.float64
Z = Epsilon(0)
ZERO = Composite(AlphaBeta(eps=0), Z, Z, AlphaBeta(eps=0))
# The rules that no named composite has, each where it belongs and everywhere.
OTHERS = {
    "gamma": Composite("gamma", Gamma(0.5), "epsilon", "z-plus"),
    "z-box": Composite("z-plus", "epsilon", "epsilon", "z-plus", first=ZBox(0, 1)),
    "w-square": Composite("w-square", "w-square", "w-square", "w-square"),
    "flat": Composite("alpha2-beta1", "epsilon", "flat", "flat", first="flat"),
}


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


class Chain(nn.Module):
    """No shortcut and no BatchNorm; every ReLU a module, as the oracles need it."""

    def __init__(self, bias=False):
        super().__init__()
        self.below = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=bias), nn.ReLU(), nn.MaxPool2d(2))
        self.above = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, bias=bias), nn.ReLU(), nn.AvgPool2d(2))
        self.hidden, self.relu, self.head = nn.Linear(24, 5, bias=bias), nn.ReLU(), nn.Linear(5, 3, bias=bias)

    def forward(self, x):
        return self.head(self.relu(self.hidden(self.above(self.below(x)).flatten(1))))


def branches(join, channels=4):
    """Two convolutions, layers 2 and 3, joined in layer 0."""
    return below_head(lambda x, a, b: join(a(x), b(x)), (channels, 3, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3))


def by_zennit(composite, model, x, y):
    gradient = pytest.importorskip("zennit.attribution").Gradient(model, composite)
    return gradient(x.clone().requires_grad_(), lambda logits: logits * F.one_hot(y, 3))[1].detach()


def epsilon(rule, x, w, b):
    yield 1, x * w, b


def alpha_beta(rule, x, w, b):
    plus = {"none": 0 * b, "signed": b.clamp(min=0), "twice": 2 * b}[rule.bias]
    yield rule.alpha, (x * w).clamp(min=0), plus
    yield -rule.beta, (x * w).clamp(max=0), b.clamp(max=0) if rule.bias == "signed" else 0 * b


def gamma(rule, x, w, b):
    z = (x * w).sum() + b
    if z != 0:
        part = (lambda t: t.clamp(min=0)) if z > 0 else (lambda t: t.clamp(max=0))
        yield 1, x * w + rule.gamma * part(x * w), b + rule.gamma * part(b)


def z_box(rule, x, w, b):
    low, high = (torch.tensor(v, dtype=D).view(-1, 1, 1).expand_as(x) for v in (rule.low, rule.high))
    yield 1, x * w - low * w.clamp(min=0) - high * w.clamp(max=0), 0 * b


def w_square(rule, x, w, b):
    yield 1, w**2, 0 * b


def flat(rule, x, w, b):
    yield 1, (w != 0).to(D), 0 * b


# By rule: for one output with its inputs x, weights w and bias b, the (factor, contributions, bias) that share out R_j.
ORACLES = {Epsilon: epsilon, AlphaBeta: alpha_beta, Gamma: gamma, ZBox: z_box, WSquare: w_square, Flat: flat}


def matrix(f, x):
    """The weights of a linear f, output by output, each in the shape of one image of x."""
    w = torch.autograd.functional.jacobian(f, x[:1])
    return w.reshape(-1, *x.shape[1:])


def handed(rule, w, x, b, r):
    """The formula for one image, output by output. w as `matrix` gives it, x (C, h, w); r and b flat."""
    found = torch.zeros_like(x)
    for j in range(r.numel()):
        for factor, contributions, bias in ORACLES[type(rule)](rule, x, w[j], b[j]):
            z = contributions.sum() + bias
            z = z + (-rule.eps if z < 0 else rule.eps)
            if z != 0:
                found += factor * contributions / z * r[j]
    return found


def check(rule, composite, net, x, seen, f, b=None):
    """What `net` hands from layer 0 to the pixels is what the formula hands on through f, which sees `seen` of the images."""
    found = relevance.lrp(net, x, torch.tensor([[0, 2]] * len(x)), ["0", PIXELS], composite=composite).values
    w = matrix(f, seen)
    for n in range(len(x)):
        for k in range(2):
            r = found["0"][n, k]
            bias = torch.zeros_like(r) if b is None else b.detach().view(-1, 1, 1).expand_as(r)
            expected = handed(rule, w, seen[n], bias.flatten(), r.flatten())
            torch.testing.assert_close(found[PIXELS][n, k], expected, msg=lambda m: f"{rule}: {m}")
