import cProfile
import itertools
import pstats
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.attacks import ensemble as ensemble_
from lib.attacks import losses, masking, pool, projected, robustness
from lib.attacks import steps as steps_
from lib.attacks.ensemble import MEMBERS, Ensemble
from lib.data import datasets
from lib.networks import hooks
from tests.conftest import Breaks, same_state, state_of, toy

GRID = (0.002, 0.004, 0.008)
SMALL = Ensemble(steps=8, targets=2, queries=20)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(40, 3, 8, 8, dtype=torch.float64, generator=generator)
    y = toy()(x).argmax(1)
    y[::7] = (y[::7] + 1) % 4  # some rows are wrong from the start
    return x, y


class Far(nn.Module):
    """Never fooled: class 0 by a wide margin."""

    def forward(self, x):
        return torch.stack([100 + x.mean((1, 2, 3)), x[:, 0].mean((1, 2)), x[:, 1].mean((1, 2)), x[:, 2].mean((1, 2))], 1)


@pytest.mark.parametrize(("norm", "grid"), [("linf", GRID), ("l2", (0.01, 0.04, 0.1))])
def test_members_go_to_work_on_what_is_left(model, data, norm, grid):
    x, y = data
    options = {"eps": grid, "steps": 2, "second_look": 0.0, "norm": norm}
    alone = robustness.robust_accuracy(model, x, y, **options)
    found = robustness.robust_accuracy(model, x, y, ensemble=SMALL, **options)
    assert list(found.after) == ["pgd", *MEMBERS] and list(alone.after) == ["pgd"]
    assert torch.equal(found.after["pgd"], alone.correct)  # PGD's own numbers stay
    stages = list(found.after.values())
    for before, after in itertools.pairwise(stages):
        assert (after <= before).all()
    assert torch.equal(found.correct, stages[-1]) and (found.correct.float().mean(1).diff() <= 0).all()
    assert found.correct.sum() < alone.correct.sum()  # it finds more than two steps do
    assert torch.equal(found.correct[0], ~steps_.fooled(model(x), y))


def test_no_member_attacks_what_has_fallen(model, data):
    x, y = data
    y = model(x).argmax(1)
    held = torch.ones(len(GRID), len(x), dtype=torch.bool)
    with hooks.frozen(model):
        found = ensemble_.attack(pool.Subject(model, x, y), losses.margin(model(x), y), held, GRID, SMALL, 0)
    first, second, third = (found.broken[name] for name in MEMBERS)
    assert first.any() and not (first & second).any() and not ((first | second) & third).any()
    left = held & ~first & ~second
    assert found.queries[-1] <= 20 * int(left[-1].sum())


@pytest.mark.parametrize(("norm", "grid"), [("linf", GRID), ("l2", (0.01, 0.04, 0.1))])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_batches_change_nothing(model, data, batch_size, norm, grid):
    x, y = data
    options = {"eps": grid, "steps": 2, "ensemble": SMALL, "norm": norm}
    whole = robustness.robust_accuracy(model, x, y, **options)
    few = robustness.robust_accuracy(model, x, y, batch_size=batch_size, **options)
    for name in whole.after:
        assert torch.equal(few.after[name], whole.after[name])
    assert few.steps == whole.steps and few.queries == whole.queries


def test_budgets_are_exact(data):
    x, _ = data
    y = torch.zeros(len(x), dtype=torch.long)
    found = robustness.robust_accuracy(Far(), x, y, eps=(0.1, 0.2), steps=3, ensemble=SMALL)
    n = len(x)
    # nobody comes near the boundary in the larger ball: nothing is spent in the smaller one
    assert found.steps == (0, 0, 3 * n + 8 * n + 2 * 8 * n) and found.queries == (0, 0, 20 * n)
    every = Ensemble(steps=8, targets=9, queries=20, screen=1.0)
    found = robustness.robust_accuracy(Far(), x, y, eps=(0.1, 0.2), steps=3, ensemble=every)
    assert found.steps == (0, 4 * 8 * n, 3 * n + 4 * 8 * n) and found.queries == (0, 20 * n, 20 * n)
    one = Ensemble(steps=8, targets=1, queries=20, eps=(0.1,), images=5)
    found = robustness.robust_accuracy(Far(), x, y, eps=(0.1, 0.2), steps=3, ensemble=one)
    assert found.steps == (0, 2 * 8 * 5, 3 * n) and found.queries == (0, 20 * 5, 0)
    assert (Ensemble().steps, Ensemble().targets, Ensemble().queries) == (100, 9, 5000)  # AutoAttack's own budgets


def digits(split, count):
    """Handwritten digits from 0 to 3."""
    data = datasets.load("digits", split, size=16, channels=1, limit=None)
    few = (data.labels < 4).nonzero()[:count, 0]
    return data.images[few], data.labels[few]


def trained(eps, channels=8, epochs=12, norm="linf"):
    """A network of two convolutions and two linear layers on handwritten digits, trained on PGD's images."""
    x, y = digits("train", 300)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(channels * 16, 32),
            nn.ReLU(),
            nn.Linear(32, 4),
        )
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for epoch in range(epochs):
            radius = eps * min(1, 2 * epoch / epochs)
            for part in torch.randperm(len(x)).split(40):
                z = (
                    projected.pgd(net, x[part], y[part], eps=radius, steps=5, norm=norm, judge=False).x_adv
                    if radius
                    else x[part]
                )
                optimizer.zero_grad()
                F.cross_entropy(net(z), y[part]).backward()
                optimizer.step()
    return net.eval()


@pytest.mark.parametrize(("norm", "name", "radius"), [("linf", "Linf", 0.2), ("l2", "L2", 1.5)])
def test_never_more_than_a_point_above_autoattack(norm, name, radius):
    """Trained at one radius and attacked at 1.2 times it, where gradients begin to be masked; a fifth of the usual queries for
    both."""
    import torchattacks

    net, eps = trained(radius, norm=norm), 1.2 * radius
    x, y = digits("test", 60 if norm == "linf" else 40)
    found = robustness.robust_accuracy(net, x, y, eps=(eps,), norm=norm, steps=20, ensemble=Ensemble(queries=1000))
    theirs = torchattacks.AutoAttack(net, norm=name, eps=eps, n_classes=4, seed=0)._autoattack.attacks
    next(a for a in theirs if isinstance(a, torchattacks.Square)).n_queries = 1000
    left = (net(x).argmax(1) == y).nonzero()[:, 0]
    assert len(left) > 25
    for attack in theirs:
        if len(left):
            left = left[net(attack(x[left], y[left])).argmax(1) == y[left]]
    assert found.accuracy[1] <= len(left) / len(x) + 0.01
    assert found.accuracy[1] <= found.after["pgd"][1].float().mean()


class Masked(nn.Module):
    """Looks at images in steps of a quarter: what it sees has no gradient."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(torch.floor(x * 4) / 4)


def test_masked_gradients_are_doubted(model, data):
    x, _ = data
    net = Masked(model)
    y = net(x).argmax(1)
    found = robustness.robust_accuracy(net, x, y, eps=(0.2,), steps=5, random_start=False, ensemble=SMALL)
    assert found.after["pgd"][1].all()  # PGD goes nowhere
    assert found.after["square"][1].sum() < len(x) / 2
    said = [(d.attack, d.eps) for d in found.doubts if "masked gradients" in d.text]
    assert said == [("apgd-dlr", 0.2)]
    assert any(d.attack == "pgd" and d.text.startswith("overstates") for d in found.doubts)
    assert any("zero gradients on 100%" in w for w in found.warnings)
    alone = robustness.robust_accuracy(net, x, y, eps=(0.2,), steps=5, random_start=False, probe=20)
    assert any("Square with 500 queries" in w for w in alone.warnings)
    quiet = robustness.robust_accuracy(net, x, y, eps=(0.2,), steps=5, random_start=False)
    assert torch.equal(alone.correct, quiet.correct) and alone.steps == quiet.steps  # a probe changes no number


class Ditch(nn.Module):
    """Two classes by how far pixels are from grey; the gradient at a pixel is zero up to .05 from it, and whole beyond."""

    def forward(self, x):
        d = (x - 0.5).abs()
        inner = d.clamp(max=0.05)
        z = (inner.detach() + d - inner).mean((1, 2, 3)) - 0.03
        return torch.stack([-z, z], 1)


def test_a_larger_ball_is_probed(data):
    x, _ = data
    grey, y, rows = torch.full((5, 1, 8, 8), 0.5, dtype=torch.float64), torch.zeros(5, dtype=torch.long), torch.arange(5)
    with hooks.frozen(Far()):
        assert not masking.from_wider(pool.Subject(Far(), x[:5], y), rows, 0.1, 0).any()
        assert masking.from_wider(pool.Subject(Ditch(), grey, y), rows, 0.045, 0).all()
    options = {"eps": (0.045,), "steps": 20, "random_start": False, "second_look": 0.0}
    found = robustness.robust_accuracy(Ditch(), grey, y, probe=5, **options)
    assert found.correct.all() and any("a ball 2 times as large, projected back, fools 5 of 5" in w for w in found.warnings)
    assert masking.fewer_than_white_box(0, 5, "a probe") == ()
    assert "a probe fools 2 of 5 images" in masking.fewer_than_white_box(2, 5, "a probe")[0]


def test_a_network_that_optimises_is_doubted(model, data):
    x, y = data

    class Purifies(nn.Module):
        def forward(self, x):
            with torch.enable_grad():
                z = x.detach().requires_grad_()
                (g,) = torch.autograd.grad(model(z).logsumexp(1).sum(), z)
            return model(x - 0.001 * g)

    before = sys.getprofile()
    found = robustness.robust_accuracy(Purifies(), x, y, eps=(0.01,), steps=1)
    assert any("computes gradients while it answers" in w for w in found.warnings) and sys.getprofile() is before
    assert found.doubts[0][:2] == ("all", 0.0)
    with pytest.raises(RuntimeError, match="forced"):
        masking.optimising(Breaks(model), x[:1])
    assert sys.getprofile() is before
    assert robustness.robust_accuracy(model, x, y, eps=(0.01,), steps=1).doubts == ()


def test_what_is_profiled_stays_profiled(model, data):
    """Who asks where the time goes: below Python 3.12 their profiler holds the same hook, and is no function."""
    profiler = cProfile.Profile()
    profiler.enable()
    masking.optimising(model, data[0][:1])
    masking.randomised(torch.zeros(1, 2), torch.zeros(1, 2))
    profiler.disable()
    assert "randomised" in {function for _, _, function in pstats.Stats(profiler).stats}


@pytest.mark.parametrize("classes", [2, 3])
def test_two_and_three_classes(classes):
    net = toy(classes=classes)
    x = torch.rand(20, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = net(x).argmax(1)
    found = robustness.robust_accuracy(net, x, y, eps=(0.01,), steps=1, second_look=0.0, ensemble=SMALL)
    assert torch.isfinite(found.accuracy).all() and found.accuracy[1] < 1


def test_one_logit_falls_as_two_do():
    net = toy(classes=2)
    x = torch.rand(20, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    class OneLogit(nn.Module):
        def forward(self, x):
            f = net(x)
            return f[:, 1] - f[:, 0]

    y = net(x).argmax(1)
    one, two = (robustness.robust_accuracy(m, x, y, eps=(0.01,), steps=1, ensemble=SMALL) for m in (OneLogit(), net))
    for name in one.after:
        assert torch.equal(one.after[name], two.after[name])


def test_leaves_the_model_as_it_was(model, data):
    x, y = data
    for net in (model.train(), Breaks(model).train()):
        before = state_of(net)
        if isinstance(net, Breaks):
            with pytest.raises(RuntimeError, match="forced"):
                robustness.robust_accuracy(net, x, y, eps=(0.01,), steps=1, ensemble=SMALL, probe=2)
        else:
            robustness.robust_accuracy(net, x, y, eps=(0.01,), steps=1, ensemble=SMALL, probe=2)
        assert same_state(before, state_of(net))


@pytest.mark.parametrize(
    ("options", "message"), [({"ensemble": Ensemble(eps=(0.3,))}, "which the grid .* has not"), ({"probe": -1}, "0 or more")]
)
def test_bad_options_say_what_to_do(model, data, options, message):
    with pytest.raises(ValueError, match=message):
        robustness.robust_accuracy(model, *data, **({"eps": (0.01,), "steps": 1, "ensemble": True} | options))
    with pytest.raises(ValueError, match="1 step and target at least"):
        Ensemble(steps=0)
