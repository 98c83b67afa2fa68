import pytest
import torch
from torch import nn

from lib.attacks import losses, pool, robustness
from lib.attacks import steps as steps_
from tests.conftest import Breaks, same_state, state_of, toy

GRID = (0.002, 0.005, 0.01)


def twin(model, x, y, grid, steps, runs):
    """Every row, every eps, every run, from scratch: a row is broken if any iterate of any run at any eps so far fools."""
    broken = steps_.fooled(model(x), y)
    table = [~broken]
    for e in grid:
        for run in range(runs):
            start = pool.keyed_start(0, run, "linf")
            for i in range(len(x)):
                x0 = x[i : i + 1]
                xi = (x0 + start(torch.tensor([i]), x, e)).clamp(0, 1)
                hit = bool(steps_.fooled(model(xi), y[i : i + 1]))
                for _ in range(steps):
                    xi = xi.detach().requires_grad_()
                    (g,) = torch.autograd.grad(losses.cross_entropy(model(xi), y[i : i + 1]).sum(), xi)
                    delta = (xi + steps_.default_step(e, steps) * g.sign() - x0).clamp(-e, e)
                    xi = (x0 + delta).clamp(0, 1).detach()
                    hit |= bool(steps_.fooled(model(xi), y[i : i + 1]))
                broken[i] |= hit
        table.append(~broken.clone())
    return torch.stack(table)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(40, 3, 8, 8, dtype=torch.float64, generator=generator)
    y = toy()(x).argmax(1)
    y[::7] = (y[::7] + 1) % 4  # some rows are wrong from the start
    return x, y


@pytest.mark.parametrize("batch_size", [3, 16, 128])
def test_equals_the_slow_twin_at_any_batch_size(model, data, batch_size):
    x, y = data
    every = {"screen": 1.0, "second_look": 0.0, "step": robustness.constant_step}
    found = robustness.robust_accuracy(model, x, y, eps=GRID, steps=5, restarts=2, batch_size=batch_size, **every)
    assert found.eps == (0.0, *GRID)
    expected = twin(model, x, y, GRID, 5, 2)
    assert torch.equal(found.correct, expected)
    accuracy = found.accuracy
    assert 0 < accuracy[-1] < accuracy[0] < 1  # rows that break and rows that do not are both there


def test_accuracy_never_rises_with_eps_and_starts_clean(model, data):
    x, y = data
    found = robustness.robust_accuracy(model, x, y, eps=(0.3, 0.01, 0.1), steps=3)
    assert found.eps == (0.0, 0.01, 0.1, 0.3)
    assert (found.accuracy.diff() <= 0).all()
    assert torch.equal(found.correct[0], ~steps_.fooled(model(x), y))


def test_the_margin_that_a_row_was_brought_to_is_the_best_of_its_path(model, data):
    x, y = data
    attacker = robustness._Attacker(model, x, y, "linf", 16, 5, robustness.constant_step)
    rows = (~steps_.fooled(model(x), y)).nonzero()[:, 0]
    run = attacker.run(rows, 0.003, losses.cross_entropy, None)
    broken, reached, spent = run.broken, run.reached, run.spent
    assert not broken.all() and spent <= 5 * len(rows)
    for k in (~broken).nonzero()[:6, 0]:
        i = rows[k]
        x0, label = x[i : i + 1], y[i : i + 1]
        xi, best = x0, -torch.inf
        for step in range(6):
            best = max(best, losses.margin(model(xi), label).item())
            if step < 5:
                z = xi.clone().requires_grad_()
                (g,) = torch.autograd.grad(losses.cross_entropy(model(z), label).sum(), z)
                xi = (x0 + (xi + steps_.default_step(0.003, 5) * g.sign() - x0).clamp(-0.003, 0.003)).clamp(0, 1)
        assert reached[k].item() == pytest.approx(best, abs=1e-12)


def test_what_breaks_in_a_small_ball_is_broken_in_every_larger_one(model, data, monkeypatch):
    x, y = data

    def only_small(attacker, rows, clean, eps, *_):
        broken = torch.full((len(rows),), eps < 0.02)
        return pool.Outcome(broken, torch.zeros(len(rows)), 0)

    monkeypatch.setattr(robustness, "_at", only_small)
    found = robustness.robust_accuracy(model, x, y, eps=(0.01, 0.05, 0.1), steps=1)
    assert found.correct[0].any() and not found.correct[1:].any()


def test_shrinking_steps_are_stronger_and_sooner(model, data):
    x, y = data
    constant = robustness.robust_accuracy(model, x, y, eps=GRID, steps=10, step=robustness.constant_step)
    shrinking = robustness.robust_accuracy(model, x, y, eps=GRID, steps=10)
    assert (shrinking.accuracy <= constant.accuracy).all() and sum(shrinking.steps) < sum(constant.steps)
    lengths = [robustness.shrinking_step(0.4, 4, i) for i in range(4)]
    assert lengths == pytest.approx([0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_screening_gives_what_attacking_everything_gives(data, norm):
    """Rows far from the boundary in a large ball are not attacked in a small one: fewer steps, the same rows broken."""
    x, y = data
    grid = GRID if norm == "linf" else (0.01, 0.04, 0.1)
    full = robustness.robust_accuracy(toy(), x, y, eps=grid, norm=norm, steps=10, screen=1.0, second_look=0.0)
    quick = robustness.robust_accuracy(toy(), x, y, eps=grid, norm=norm, steps=10, second_look=0.0)
    assert torch.equal(quick.correct, full.correct)
    assert sum(quick.steps) < 0.8 * sum(full.steps)
    closer = robustness.robust_accuracy(toy(), x, y, eps=grid, norm=norm, steps=10)
    assert (closer.correct <= full.correct).all()  # a second look can only break more


def test_spends_nothing_on_rows_that_are_fooled_or_safe(model, data):
    x, y = data
    found = robustness.robust_accuracy(model, x, y, eps=(1e-5, 0.5), steps=10, random_start=False)
    assert found.steps[0] == 0 and found.correct[1].sum() == found.correct[0].sum()
    assert found.steps[2] < 10 * int(found.correct[0].sum())  # fooled rows left on the way
    # at the small eps only rows broken at the large one are attacked, and the close calls
    assert found.steps[1] <= 10 * int(found.correct[0].sum())
    safe = robustness.robust_accuracy(model, x, y, eps=(1e-6, 1e-5), steps=10, random_start=False)
    assert safe.steps[1] == 0 and safe.steps[2] == 10 * int(safe.correct[0].sum())


def test_never_above_torchattacks(data):
    import torchattacks

    x, y = data
    net, x = toy().float(), x.float()
    ours = robustness.robust_accuracy(net, x, y, eps=GRID, steps=10).accuracy[1:]
    for e, accuracy in zip(GRID, ours, strict=True):
        step = steps_.default_step(e, 10)
        adv = torchattacks.PGD(net, eps=e, alpha=step, steps=10)(x, y)
        assert accuracy <= (net(adv).argmax(1) == y).float().mean() + 1e-6


def test_every_loss_gets_its_runs(model, data):
    x, y = data
    seen = []

    def counting(logits, labels):
        seen.append(len(labels))
        return losses.margin(logits, labels)

    robustness.robust_accuracy(model, x, y, eps=(0.01,), steps=2, losses=(losses.cross_entropy, counting))
    assert seen


def test_randomised_and_probability_models_are_reported(model, data):
    x, y = data

    class Noisy(nn.Module):
        def forward(self, x):
            return model(x) + torch.randn(len(x), 4, dtype=x.dtype)

    torch.manual_seed(0)
    assert any("randomised" in w for w in robustness.robust_accuracy(Noisy(), x, y, eps=(0.01,), steps=1).warnings)
    softmax = nn.Sequential(model, nn.Softmax(1))
    assert any("probabilities" in w for w in robustness.robust_accuracy(softmax, x, y, eps=(0.01,), steps=1).warnings)
    assert robustness.robust_accuracy(model, x, y, eps=(0.01,), steps=1).warnings == ()


def test_leaves_the_model_as_it_was(model, data):
    x, y = data
    for net in (model.train(), Breaks(model).train()):
        before = state_of(net)
        if isinstance(net, Breaks):
            with pytest.raises(RuntimeError, match="forced"):
                robustness.robust_accuracy(net, x, y, eps=(0.1,), steps=2)
        else:
            robustness.robust_accuracy(net, x, y, eps=(0.1,), steps=2)
        assert same_state(before, state_of(net))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": ()}, "grid of eps is empty"),
        ({"eps": (-1.0,)}, "eps is -1"),
        ({"eps": (0.1,), "steps": 0}, "1 at least"),
        ({"eps": (0.1,), "screen": 0.05}, "second_look <= screen"),
    ],
)
def test_bad_options_say_what_to_do(model, data, options, message):
    with pytest.raises(ValueError, match=message):
        robustness.robust_accuracy(model, *data, **options)


class Unsteady(nn.Module):
    """Rounds what it sees to levels that are drawn anew in each pass; its gradient looks past that."""

    def __init__(self, net):
        super().__init__()
        self.net, self.generator = net, torch.Generator().manual_seed(0)

    def forward(self, x):
        drawn = torch.rand(x.shape, generator=self.generator, dtype=x.dtype)
        return self.net((torch.floor(3 * x + drawn) / 3).detach() + 0 * x)


def test_of_a_randomised_model_every_step_is_taken(data):
    """Another pass may fool it where this one did not, so that nothing is decided when a row comes back to where it was."""
    x, _ = data
    y = toy()(x).argmax(1)
    options = {"eps": (0.02,), "steps": 60, "screen": 1.0, "second_look": 0.0}
    found = robustness.robust_accuracy(Unsteady(toy()), x, y, step=lambda eps, steps, i: 0.01, **options)
    assert any("randomised" in w for w in found.warnings)
    held = int(found.correct[1].sum())
    assert held > 0 and found.steps[1] >= 60 * held
    uneven = robustness.robust_accuracy(Unsteady(toy()), x, y, step=lambda eps, steps, i: 0.01 + 1e-9 * i, **options)
    assert abs(float(found.accuracy[1] - uneven.accuracy[1])) < 0.2  # the same, but for what is drawn


def test_a_network_that_answers_in_float64_is_attacked(data):
    x, y = data
    model = toy()

    class Narrow(nn.Module):
        def forward(self, z):
            return model(z.double())

    narrow = robustness.robust_accuracy(Narrow(), x.float(), y, eps=GRID, steps=5)
    assert torch.equal(narrow.correct, robustness.robust_accuracy(model, x.float().double(), y, eps=GRID, steps=5).correct)
