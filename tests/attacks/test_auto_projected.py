import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from lib.attacks import auto_projected, losses, pool
from lib.attacks import steps as steps_
from lib.networks import hooks
from tests.conftest import Breaks, same_state, state_of, toy

EPS = {"linf": 0.004, "l2": 0.03}


def printed_checkpoints(steps):
    """Croce and Hein 2020, sec. 3.2, as it is printed, in fractions: W with w_0."""
    p = [Fraction(0), Fraction(22, 100)]
    while p[-1] <= 1:
        p.append(p[-1] + max(p[-1] - p[-2] - Fraction(3, 100), Fraction(6, 100)))
    return [math.ceil(q * steps) for q in p]


def twin(model, x, y, start, eps, steps, norm, objective):
    """Algorithm 1 for one image (1, C, H, W), with lists: fooling iterate or x_max, its f, how often steps were halved."""

    def inside(z):
        delta = z - x
        if norm == "linf":
            delta = delta.clamp(-eps, eps)
        elif delta.norm() > eps:
            delta = delta * (eps / delta.norm())
        return (x + delta).clamp(0, 1)

    def f(z):
        z = z.clone().requires_grad_()
        value = objective(model(z), y).sum()
        (g,) = torch.autograd.grad(value, z)
        return value.item(), (g.sign() if norm == "linf" else g / g.norm())

    w = printed_checkpoints(steps)
    xs, eta, halved = [inside(x + start)], 2 * eps, 0
    values = [f(xs[0])[0]]
    best, best_value = xs[0], values[0]
    etas, bests = {0: eta}, {0: best_value}
    if model(xs[0]).argmax(1) != y:
        return xs[0], values[0], 0
    for k in range(steps):
        z = inside(xs[k] + eta * f(xs[k])[1])
        new = z if k == 0 else inside(xs[k] + 0.75 * (z - xs[k]) + 0.25 * (xs[k] - xs[k - 1]))
        value = f(new)[0]
        if model(new).argmax(1) != y:
            return new, value, halved
        xs.append(new)
        values.append(value)
        if value > best_value:
            best, best_value = new, value
        if k + 1 in w[1:] and k + 1 < steps:
            j = w.index(k + 1)
            rises = sum(values[i + 1] > values[i] for i in range(w[j - 1], w[j]))
            first = rises < 0.75 * (w[j] - w[j - 1])
            second = etas[w[j - 1]] == eta and bests[w[j - 1]] == best_value
            etas[w[j]], bests[w[j]] = eta, best_value
            if first or second:
                eta, halved = eta / 2, halved + 1
                xs[-1], values[-1] = best, best_value
    return best, best_value, halved


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(14, 3, 8, 8, dtype=torch.float64, generator=generator)
    return x, toy()(x).argmax(1)


def test_checkpoints_are_those_of_the_paper():
    assert auto_projected.checkpoints(100) == (22, 41, 57, 70, 80, 87, 93, 99)  # p: .22, .41, .57, .70, .80, .87, .93, .99
    for steps in (1, 2, 7, 20, 40, 50, 99, 1000):
        expected = [w for w in dict.fromkeys(printed_checkpoints(steps)) if 0 < w < steps]
        assert list(auto_projected.checkpoints(steps)) == expected


OBJECTIVES = {"cross-entropy": losses.cross_entropy, "margin": losses.margin}


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("batch_size", [3, 128])
def test_equals_the_twin_at_any_batch_size(model, data, norm, objective, batch_size):
    x, y = data
    eps, steps, loss, start = EPS[norm], 30, OBJECTIVES[objective], pool.keyed_start(0, 0, norm)
    subject, rows, keep = pool.Subject(model, x, y, norm, batch_size), torch.arange(len(x)), x.clone()
    with hooks.frozen(model):
        run = auto_projected.climb(subject, rows, eps, steps, lambda f, y, at: loss(f, y), start, keep)
    halved = []
    for i in range(len(x)):
        z = start(rows[i : i + 1], x, eps)
        expected, value, times = twin(model, x[i : i + 1], y[i : i + 1], z, eps, steps, norm, loss)
        assert torch.allclose(keep[i : i + 1], expected, rtol=0, atol=1e-9), i  # at the top, heights tie but for rounding
        assert loss(model(keep[i : i + 1]), y[i : i + 1]).item() == pytest.approx(value, abs=1e-10)
        assert bool(run.broken[i]) == bool(model(expected).argmax(1) != y[i])
        halved.append(times)
    assert 0 < run.broken.sum() < len(x) and max(halved) >= 3  # steps were halved; some rows fall and some do not


def test_the_ratio_by_hand():
    logits = torch.tensor([[4.0, 1.0, 3.0, 2.0, 0.0]])
    y, t = torch.tensor([0]), torch.tensor([3])
    assert losses.targeted_dlr(logits, y, t).item() == pytest.approx((2 - 4) / (4 - (2 + 1) / 2))
    assert losses.targeted_dlr(logits[:, :4], y, t).item() == pytest.approx((2 - 4) / (4 - (2 + 1) / 2))
    assert losses.targeted_dlr(logits[:, :3], y, torch.tensor([2])).item() == pytest.approx((3 - 4) / (4 - 1))
    assert losses.targeted_dlr(logits[:, :2], y, torch.tensor([1])).item() == -3  # of two the margin itself
    one = torch.tensor([[2.0]])  # (-1, 1): label 1
    assert losses.targeted_dlr(one, torch.tensor([1]), torch.tensor([0])).item() == -2
    scaled = losses.targeted_dlr(logits * 7 + 5, y, t)
    assert scaled.item() == pytest.approx(losses.targeted_dlr(logits, y, t).item())  # neither shift nor scale matters
    assert torch.isfinite(losses.targeted_dlr(torch.zeros(1, 5), y, t)).all()


@pytest.mark.parametrize("classes", [2, 3, 4, 6])
def test_the_ratio_s_gradient(classes):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, classes, dtype=torch.float64, generator=generator, requires_grad=True)
    y, t = torch.zeros(5, dtype=torch.long), torch.ones(5, dtype=torch.long)
    assert torch.autograd.gradcheck(lambda f: losses.targeted_dlr(f, y, t), logits)


def test_targets_are_the_highest_other_classes(model, data):
    x, y = data
    subject = pool.Subject(model, x, y, "linf", 4)
    found = auto_projected.rivals(subject, torch.arange(len(x)), 2)
    for i in range(len(x)):
        order = [c for c in model(x[i : i + 1])[0].argsort(descending=True).tolist() if c != y[i]]
        assert found[i].tolist() == order[:2]
    assert auto_projected.rivals(subject, torch.arange(3), 9).shape == (3, 3)  # of four classes


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("objective", ["cross-entropy", "dlr"])
def test_results_keep_their_bounds_and_batches_change_nothing(model, data, norm, objective):
    x, y = data
    options = {"eps": EPS[norm], "steps": 12, "objective": objective, "norm": norm}
    whole = auto_projected.auto_pgd(model, x, y, **options)
    delta = (whole.x_adv - x).flatten(1)
    size = delta.abs().amax() if norm == "linf" else delta.norm(dim=1).amax()
    assert size <= EPS[norm] * (1 + 1e-9) and whole.x_adv.amin() >= 0 and whole.x_adv.amax() <= 1
    assert torch.equal(whole.success, model(whole.x_adv).argmax(1) != y) and 0 < whole.success.sum() < len(x)
    few = auto_projected.auto_pgd(model, x, y, batch_size=3, **options)
    assert torch.allclose(few.x_adv, whole.x_adv, rtol=0, atol=1e-12)


@pytest.mark.parametrize("targets", [1, 2, 9])
def test_budgets_are_exact(data, targets):
    x, y = data
    seen = {True: 0, False: 0}

    class Far(nn.Module):
        """Never fooled: class 0 by a wide margin."""

        def forward(self, x):
            seen[torch.is_grad_enabled()] += len(x)
            return torch.stack([100 + x.mean((1, 2, 3)), x[:, 0].mean((1, 2)), x[:, 1].mean((1, 2)), x[:, 2].mean((1, 2))], 1)

    y, far = torch.zeros_like(y), Far()
    subject, rows = pool.Subject(far, x, y, "linf", 5), torch.arange(len(x))
    with hooks.frozen(far):
        run = auto_projected.climb(subject, rows, 0.1, 8, lambda f, y, at: losses.cross_entropy(f, y), None)
    assert run.spent == 8 * len(x)
    with hooks.frozen(far):
        others = auto_projected.rivals(subject, rows, targets)
        run = auto_projected.targeted(subject, rows, others, 0.1, 8, lambda j: None)
    assert run.spent == 8 * len(x) * min(targets, 3)
    seen.update({True: 0, False: 0})
    full = pool.Subject(far, x, y, "linf", len(x))
    with hooks.frozen(far):
        auto_projected.climb(full, rows, 0.1, 8, lambda f, y, at: losses.cross_entropy(f, y), None)
    assert seen == {True: 8 * len(x), False: len(x)}  # one pass more judges the last iterate


@pytest.mark.parametrize("steps", [1, 2])
def test_steps_are_those_of_torchattacks(data, steps):
    import torchattacks

    x, y = data
    net, x = toy().float(), x.float()
    theirs = torchattacks.APGD(net, eps=0.004, steps=steps, seed=0)
    torch.manual_seed(0)
    expected = theirs.attack_single_run(x, y)[0]
    torch.manual_seed(0)
    t = 2 * torch.rand(x.shape) - 1
    start = 0.004 * t / t.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    keep, rows = x.clone(), torch.arange(len(x))
    with hooks.frozen(net):
        subject = pool.Subject(net, x, y)
        run = auto_projected.climb(
            subject, rows, 0.004, steps, lambda f, y, at: losses.cross_entropy(f, y), lambda r, x, e: start[r], keep
        )
    held = ~run.broken  # rows that are fooled stop here, and go on there
    assert held.sum() > 4 and torch.allclose(keep[held], expected[held], rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_climbs_as_high_as_torchattacks(data, norm):
    """The released code counts its windows a little differently: the heights are compared, from the same starts."""
    import torchattacks

    x, y = data
    net, x, eps = toy().float(), x.float(), {"linf": 0.003, "l2": 0.02}[norm]
    theirs = torchattacks.APGD(net, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, steps=50, seed=0)
    torch.manual_seed(0)
    _, kept, height, _ = theirs.attack_single_run(x, y)
    torch.manual_seed(0)
    t = 2 * torch.rand(x.shape) - 1 if norm == "linf" else torch.randn(x.shape)
    size = t.flatten(1).abs().amax(1) if norm == "linf" else t.flatten(1).norm(dim=1)
    start, keep, rows = eps * t / size.view(-1, 1, 1, 1), x.clone(), torch.arange(len(x))
    with hooks.frozen(net):
        run = auto_projected.climb(
            pool.Subject(net, x, y, norm),
            rows,
            eps,
            50,
            lambda f, y, at: losses.cross_entropy(f, y),
            lambda r, x, e: start[r],
            keep,
        )
    assert torch.equal(run.broken, ~kept)
    ours = losses.cross_entropy(net(keep), y)[~run.broken]
    assert torch.allclose(ours, height[~run.broken], rtol=0.02)


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("objective", ["cross-entropy", "dlr"])
def test_one_logit_and_two_classes_fall_alike(data, flat, objective):
    x, _ = data
    net = toy()

    class OneLogit(nn.Module):
        def forward(self, x):
            z = net(x)[:, 0] - net(x)[:, 1]
            return z if flat else z[:, None]

    class TwoLogits(nn.Module):
        def forward(self, x):
            z = net(x)[:, 0] - net(x)[:, 1]
            return torch.stack([-z / 2, z / 2], 1)

    y = TwoLogits()(x).argmax(1)
    one, two = (auto_projected.auto_pgd(m, x, y, eps=0.01, steps=10, objective=objective) for m in (OneLogit(), TwoLogits()))
    assert torch.allclose(one.x_adv, two.x_adv) and torch.equal(one.success, two.success) and one.success.any()


def test_leaves_the_model_as_it_was(model, data):
    x, y = data
    for net in (model.train(), Breaks(model).train()):
        before = state_of(net)
        if isinstance(net, Breaks):
            with pytest.raises(RuntimeError, match="forced"):
                auto_projected.auto_pgd(net, x, y, eps=0.1, steps=2, objective="dlr")
        else:
            auto_projected.auto_pgd(net, x, y, eps=0.1, steps=2, objective="dlr")
        assert same_state(before, state_of(net))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"targets": 0}, {"objective": "dice"}, {"batch_size": 0}])
def test_bad_options_say_what_to_do(model, data, wrong):
    with pytest.raises(ValueError, match="1 at least"):
        auto_projected.auto_pgd(model, *data, eps=0.1, **wrong)


def test_half_precision_is_moved_in_float32(data):
    x, y = data
    net = toy().to(torch.bfloat16)
    found = auto_projected.auto_pgd(net, x.to(torch.bfloat16), y, eps=0.02, steps=5)
    assert found.x_adv.dtype == torch.bfloat16 and steps_.check_result(x.to(torch.bfloat16), found.x_adv, 0.02, "linf") is None


@pytest.mark.parametrize(
    ("rises", "halved", "risen", "back"),
    [
        (7, False, True, True),  # condition 1: fewer than .75 of ten steps
        (8, False, True, False),
        (8, False, False, True),  # condition 2: the best is what it was, and so is the step
        (8, True, False, False),  # the step was halved at the checkpoint before: it gets its chance
        (7, True, False, True),
    ],
)
def test_conditions_at_a_checkpoint(rises, halved, risen, back):
    def begin(fresh):
        image = torch.zeros(1, 1, 2, 2)
        state = {"x_adv": image, "best": image + 1, "best_gradient": image + 2}
        state |= {"f": torch.tensor([0.5]), "f_best": torch.tensor([1.0]), "f_check": torch.tensor([0.9 if risen else 1.0])}
        return state | {"rises": torch.tensor([float(rises)]), "eta": torch.tensor([0.2]), "halved": torch.tensor([halved])}

    rows = pool.Pool(1, 1, begin, torch.device("cpu"))
    assert rows.filled()
    rows.age = torch.tensor([11])
    gaps = torch.zeros(20)
    gaps[10] = 10
    gradient = auto_projected._checked(rows, torch.full((1, 1, 2, 2), 5.0), gaps)
    assert bool(rows["x_adv"].eq(1).all()) == back and bool(gradient.eq(2).all()) == back
    assert rows["eta"].item() == pytest.approx(0.1 if back else 0.2) and bool(rows["halved"]) == back
    assert rows["rises"].item() == 0 and rows["f_check"].item() == 1 and rows["f"].item() == (1.0 if back else 0.5)
    rows.age = torch.tensor([12])  # no checkpoint: nothing happens
    before = {name: t.clone() for name, t in rows.state.items()}
    auto_projected._checked(rows, gradient, gaps)
    assert all(torch.equal(rows[name], t) for name, t in before.items())
