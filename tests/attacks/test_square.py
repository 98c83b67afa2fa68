import pytest
import torch
from torch import nn

from lib.attacks import losses, pool, square, square_l2
from lib.networks import hooks
from tests.conftest import Breaks, same_state, state_of, toy

MASK = 2**64 - 1


def splitmix(z):
    """SplitMix64's finaliser on Python's integers."""
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def uniform(seed, row, count, draw):
    mixed = splitmix(splitmix(splitmix(splitmix(seed) + row) + count) + draw)
    return (mixed >> 11) / 2**53


def stripes(x, eps, draw):
    """The start of algorithm 1 under L-infinity; `draw` gives a random number by its number."""
    channels, _, width = x.shape
    image = x.clone()
    for c in range(channels):
        for w in range(width):
            sign = 1 if draw(c * width + w) < 0.5 else -1
            image[c, :, w] = (x[c, :, w] + sign * eps).clamp(0, 1)
    return image


def algorithm2(x, best, eps, s, draw):
    channels, height, width = x.shape
    top, left = int(draw(0) * (height - s + 1)), int(draw(1) * (width - s + 1))
    new = best.clone()
    for c in range(channels):
        sign = 1 if draw(2 + c) < 0.5 else -1
        for h in range(top, top + s):
            for w in range(left, left + s):
                moved = min(max(best[c, h, w] + 2 * eps * sign, x[c, h, w] - eps), x[c, h, w] + eps)
                new[c, h, w] = min(max(moved, 0), 1)
    return new


def eta(h):
    """eq. 2 with its sum over k, both halves beside each other, of length 1."""

    def half(h1, h2, r, s):
        n = h1 // 2
        m = n - max(abs(r - h1 // 2 - 1), abs(s - h2 // 2 - 1))
        return sum(1 / (n + 1 - k) ** 2 for k in range(m + 1))

    left = h // 2
    rows = [
        [half(h, left, r, s) for s in range(1, left + 1)] + [-half(h, h - left, r, s) for s in range(1, h - left + 1)]
        for r in range(1, h + 1)
    ]
    found = torch.tensor(rows, dtype=torch.float64)
    return found / found.square().sum().sqrt()


def tiles(x, eps, draw):
    """The start under L2: 5 x 5 tiles or more, as many as fit."""
    channels, height, width = x.shape
    one = min(height, width) // 5
    down, across = height // one, width // one
    top, left = (height - down * one) // 2, (width - across * one) // 2
    nu = torch.zeros_like(x)
    for c in range(channels):
        for i in range(down):
            for j in range(across):
                sign = 1 if draw((c * down + i) * across + j) < 0.5 else -1
                h, w = top + i * one, left + j * one
                nu[c, h : h + one, w : w + one] = sign * eta(one)
    return (x + eps * nu / nu.square().sum().sqrt()).clamp(0, 1)


def algorithm3(x, best, eps, s, draw):
    channels, height, width = x.shape
    (t1, l1), (t2, l2) = ([int(draw(i + j) * (n - s + 1)) for j, n in ((0, height), (1, width))] for i in (0, 2))
    nu = best - x
    unused = max(eps**2 - float(nu.square().sum()), 0)
    shape = eta(s).T if draw(4) < 0.5 else eta(s)
    for i in range(channels):
        rho = 1 if draw(5 + i) < 0.5 else -1
        window = nu[i, t1 : t1 + s, l1 : l1 + s].clone()
        length = float(window.square().sum()) ** 0.5
        towards = rho * shape + (window / length if length else 0)
        both = torch.zeros(height, width, dtype=torch.bool)
        both[t1 : t1 + s, l1 : l1 + s] = both[t2 : t2 + s, l2 : l2 + s] = True
        available = (float(nu[i][both].square().sum()) + unused / channels) ** 0.5
        nu[i, t2 : t2 + s, l2 : l2 + s] = 0
        nu[i, t1 : t1 + s, l1 : l1 + s] = towards / float(towards.square().sum()) ** 0.5 * available
    return (x + nu).clamp(0, 1)


WAYS = {"linf": (stripes, algorithm2), "l2": (tiles, algorithm3)}


def twin(model, x, y, row, eps, queries, seed, norm="linf"):
    """Algorithm 1 for one image (C, H, W), window by window: the image, whether it fools."""
    start, step = WAYS[norm]
    best = start(x, eps, lambda d: uniform(seed, row, 0, d))
    margin = losses.margin(model(best[None]), y[None]).item()
    for i in range(queries):
        if model(best[None]).argmax(1) != y:
            return best, True
        if i == 0:
            continue
        s = square.side(i, queries, *x.shape[1:], norm)
        new = step(x, best, eps, s, lambda d, i=i: uniform(seed, row, i, d))
        value = losses.margin(model(new[None]), y[None]).item()
        if value > margin:
            best, margin = new, value
    return best, bool(model(best[None]).argmax(1) != y)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(5)
    x = torch.rand(10, 3, 8, 8, dtype=torch.float64, generator=generator)
    return x, toy()(x).argmax(1)


def test_the_schedule_is_the_published_one():
    found = [square.share(i, 10_000) for i in (0, 10, 11, 50, 51, 200, 201, 500, 501, 1000, 1001, 2000, 2001)]
    assert found == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.0125]
    assert [square.share(i, 10_000) for i in (4000, 4001, 6001, 8001, 9999)] == [0.8 / 2**k for k in (6, 7, 8, 9, 9)]
    assert square.share(5, 5000) == 0.8 and square.share(6, 5000) == 0.4  # rescaled to fewer queries
    assert [square.side(0, 100, 28, 28), square.side(99, 100, 28, 28)] == [25, 1]
    assert square.side(0, 100, 8, 200) == 8  # no longer than the image is high
    # windows under L2 are odd, from 3 on: of shares of 28 x 28 pixels whose roots are 25.04, 12.52, 6.26 and 1.11
    assert [square_l2.side(share, 28, 28) for share in (0.8, 0.2, 0.05, 0.8 / 512)] == [25, 13, 7, 3]


def test_the_schedule_is_that_of_torchattacks():
    import torchattacks

    for queries in (100, 5000, 10_000):
        theirs = torchattacks.Square(toy(), n_queries=queries)
        for i in range(0, queries, 7):
            assert square.share(i, queries) == pytest.approx(theirs.p_selection(i))


def test_random_numbers_are_keyed():
    rows, counts = torch.tensor([0, 3, 250]), torch.tensor([5, 0, 4999])
    found = pool.keyed_uniform(7, rows, counts, 4)
    for i in range(3):
        assert found[i].tolist() == [uniform(7, int(rows[i]), int(counts[i]), d) for d in range(4)]
    many = pool.keyed_uniform(1, torch.arange(400), torch.zeros(400, dtype=torch.long), 50)
    assert many.min() >= 0 and many.max() < 1 and abs(many.mean() - 0.5) < 0.01 and abs(many.var() - 1 / 12) < 0.003
    assert abs(torch.corrcoef(many.T[:20]).triu(1)).max() < 0.2 and abs(torch.corrcoef(many[:20]).triu(1)).max() < 0.6


def test_random_numbers_where_a_device_has_no_float64(monkeypatch):
    """As on Apple's GPUs: the same numbers cut to the bits of float32, never rounded up to 1."""
    asked = (3, torch.arange(2000), torch.zeros(2000, dtype=torch.long), 20)
    wide = pool.keyed_uniform(*asked)
    monkeypatch.setattr(pool.devices, "exact", lambda where: torch.float32)
    narrow = pool.keyed_uniform(*asked)
    assert narrow.dtype == torch.float32 and torch.equal(narrow.double(), (wide * 2**24).floor() / 2**24)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.012), ("l2", 0.08)])
@pytest.mark.parametrize("batch_size", [3, 128])
def test_equals_the_twin_at_any_batch_size(model, data, batch_size, norm, eps):
    x, y = data
    subject, rows, keep = pool.Subject(model, x, y, norm, batch_size), torch.arange(len(x)).flip(0), x.clone()
    with hooks.frozen(model):
        run = square.search(subject, rows, eps, 40, 3, keep)
    for at, i in enumerate(rows.tolist()):
        expected, fooled = twin(model, x[i], y[i], i, eps, 40, 3, norm)
        assert torch.allclose(keep[at], expected, rtol=0, atol=1e-12), i
        assert bool(run.broken[at]) == fooled
    assert 0 < run.broken.sum() < len(x)


def test_results_keep_their_bounds(model, data):
    x, y = data
    found = square.square_attack(model, x, y, eps=0.03, queries=60)
    assert (found.x_adv - x).abs().amax() <= 0.03 * (1 + 1e-9) and found.x_adv.amin() >= 0 and found.x_adv.amax() <= 1
    assert torch.equal(found.success, model(found.x_adv).argmax(1) != y) and found.success.any()
    more = square.square_attack(model, x, y, eps=0.03, queries=60, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(more.x_adv, found.x_adv)


def test_queries_are_counted_and_need_no_gradient(data):
    x, _ = data
    seen = []

    class Far(nn.Module):
        def forward(self, x):
            assert not torch.is_grad_enabled()
            seen.append(len(x))
            return torch.stack([100 + x.mean((1, 2, 3)), x.mean((1, 2, 3)) * 0], 1)

    far, y = Far(), torch.zeros(len(x), dtype=torch.long)
    with hooks.frozen(far):
        run = square.search(pool.Subject(far, x, y, "linf", 4), torch.arange(len(x)), 0.1, 17, 0)
    assert run.spent == 17 * len(x) == sum(seen) and not run.broken.any()


@pytest.mark.parametrize(("norm", "name", "eps"), [("linf", "Linf", 0.006), ("l2", "L2", 0.06)])
def test_as_strong_as_torchattacks(data, norm, name, eps):
    """Random searches of the same budget from different random numbers fool about as many."""
    import torchattacks

    generator = torch.Generator().manual_seed(6)
    x = torch.rand(120, 3, 8, 8, generator=generator)
    net = toy().float()
    y = net(x).argmax(1)
    theirs = torchattacks.Square(net, norm=name, eps=eps, n_queries=100, seed=0)
    expected = (net(theirs(x, y)).argmax(1) != y).float().mean()
    ours = square.square_attack(net, x, y, eps=eps, norm=norm, queries=100).success.float().mean()
    assert 0.1 < expected < 0.9 and abs(ours - expected) < 0.08


def test_bump_and_hollow_is_that_of_torchattacks_but_for_the_length_of_its_halves():
    """The authors' code gives both halves one length, which eq. 2 does not."""
    import torchattacks

    def halves(window):
        return [
            half / half.norm().clamp_min(1e-12) for half in window.split([len(window) // 2, len(window) - len(window) // 2], 1)
        ]

    theirs = torchattacks.Square(toy(), norm="L2")
    for side in (1, 2, 3, 5, 8, 25):
        found = square_l2.bump_and_hollow(side)
        assert torch.allclose(found, eta(side), rtol=0, atol=1e-12)
        expected = theirs.eta(side).double()
        either = [zip(halves(found), halves(way), strict=True) for way in (expected, expected.T)]
        assert min(max(float((a - b).abs().max()) for a, b in pairs if a.numel()) for pairs in either) < 1e-6


def test_a_step_moves_length_and_adds_none(data):
    """The perturbation has the length of the ball where no pixel is cut, whatever of it a window had."""
    x = 0.3 + 0.4 * data[0]
    sides = torch.tensor([3, 5, 7, 7, 5, 3, 1, 3, 5, 7])
    best = x
    for i in range(20):
        drawn = pool.keyed_uniform(i, torch.arange(len(x)), torch.zeros(len(x), dtype=torch.long), 8)
        best = square_l2.step(x, best, 0.2, sides, drawn)
        assert torch.allclose((best - x).flatten(1).norm(dim=1), torch.full((len(x),), 0.2, dtype=x.dtype), rtol=1e-9)


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (4, 4), (6, 11)])
def test_small_images(model, size):
    x = torch.rand(4, 3, *size, dtype=torch.float64)

    class Mean(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    net = Mean()
    found = square.square_attack(net, x, net(x).argmax(1), eps=0.5, norm="l2", queries=12)
    assert (found.x_adv - x).flatten(1).norm(dim=1).max() <= 0.5 * (1 + 1e-9)
    for share in (0.8, 0.001):
        side = square_l2.side(share, *size)
        assert side % 2 == 1 and side <= min(size)


def test_one_logit_falls_as_two_do(data):
    x, _ = data
    net = toy()

    class OneLogit(nn.Module):
        def forward(self, x):
            return net(x)[:, 0] - net(x)[:, 1]

    class TwoLogits(nn.Module):
        def forward(self, x):
            z = net(x)[:, 0] - net(x)[:, 1]
            return torch.stack([-z / 2, z / 2], 1)

    y = TwoLogits()(x).argmax(1)
    one, two = (square.square_attack(m, x, y, eps=0.02, queries=30) for m in (OneLogit(), TwoLogits()))
    assert torch.equal(one.x_adv, two.x_adv) and one.success.any()


def test_leaves_the_model_as_it_was(model, data):
    x, y = data
    for net in (model.train(), Breaks(model).train()):
        before = state_of(net)
        if isinstance(net, Breaks):
            with pytest.raises(RuntimeError, match="forced"):
                square.square_attack(net, x, y, eps=0.1, queries=3)
        else:
            square.square_attack(net, x, y, eps=0.1, queries=3)
        assert same_state(before, state_of(net))


@pytest.mark.parametrize("wrong", [{"queries": 0}, {"queries": 2**21}, {"batch_size": 0}])
def test_bad_options_say_what_to_do(model, data, wrong):
    with pytest.raises(ValueError, match="queries, 1 image at least"):
        square.square_attack(model, *data, eps=0.1, **wrong)
