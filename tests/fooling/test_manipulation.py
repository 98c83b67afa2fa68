"""Fooling losses and their success by hand, against loops, under derivation and on dead maps; mosaics of two classes."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lib.data import datasets
from lib.data.mosaics import mosaics, most
from lib.fooling import manipulation
from lib.measures import comparison

D = torch.float64


def maps(*shape, seed=0):
    return torch.rand(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def spot(l, row, column):
    return F.one_hot(torch.tensor([row * l + column]), l * l).to(D).view(1, l, l)


@pytest.mark.parametrize(("l", "width", "ones", "top"), [(14, 2, 96, 19), (7, 1, 24, 4), (28, 4, 384, 78), (1, 1, 1, 1)])
def test_the_frame_is_a_border_of_a_seventh_and_the_top_a_tenth(l, width, ones, top):
    mask = manipulation.frame(l)
    assert mask.sum() == ones
    assert mask.tolist() == [[float(min(i, j, l - 1 - i, l - 1 - j) < width) for j in range(l)] for i in range(l)]
    h0 = maps(2, l, l)
    chosen = manipulation.top(h0)
    assert chosen.sum(1).tolist() == [top, top]
    assert torch.equal(h0.flatten(1)[chosen].view(2, top).sort(1).values, h0.flatten(1).sort(1).values[:, -top:])
    assert manipulation.top(torch.ones(1, l, l), 1)[0].tolist() == [True] + [False] * (l * l - 1)  # ties go to the first


def test_location_by_hand():
    mask = manipulation.frame(14)
    h = torch.stack([mask, 1 - mask, torch.zeros(14, 14), torch.full((14, 14), 0.5)])
    assert manipulation.location(h).tolist() == pytest.approx([0, 1, 96 / 196, 0.25])
    each = torch.stack([mask, 1 - mask, mask, mask])  # a mask an image
    assert manipulation.location(h, each).tolist() == pytest.approx([0, 0, 96 / 196, 0.25])


def test_topk_by_hand():
    h0 = torch.tensor([[[4.0, 3.0], [2.0, 0.0]]], dtype=D)
    h = torch.tensor([[[0.0, 2.0], [4.0, 1.0]]], dtype=D)  # scaled: 0, 1/2, 1, 1/4
    for k, code, printed in ((1, 0, 0), (2, 1 / 8, 1 / 2), (3, 5 / 12, 3 / 2), (4, 21 / 64, 7 / 4)):
        assert manipulation.topk(7 * h + 3, 2 * h0 + 1, k).item() == pytest.approx(code)  # whatever the scale
        assert manipulation.topk(h, h0, k, "printed").item() == pytest.approx(printed)


@pytest.mark.parametrize(("l", "dy", "dx"), [(14, 3, 0), (14, 0, -3), (7, -2, 2), (5, 4, -4), (5, 0, 0)])
def test_the_shift_of_a_spot_is_its_distance(l, dy, dx):
    h0, h = (spot(l, *(max(0, sign * d) for d in (dy, dx))) for sign in (-1, 1))
    assert manipulation.centre(h, h0).item() == pytest.approx(-(abs(dy) + abs(dx)))
    t = manipulation.test("centre", 5 * h, h0).t.item()
    assert t == pytest.approx(math.hypot(dy, dx) / (math.sqrt(2) * (l - 1)))
    assert abs(dy) + abs(dx) < 2 * (l - 1) or t == pytest.approx(1)


def test_swaps_by_hand():
    rising = torch.arange(16.0, dtype=D).view(1, 4, 4) / 15
    h0 = torch.stack([rising, 1 - rising], 1)
    assert manipulation.swap(h0.flip(1), h0).item() == 0
    assert manipulation.swapped(h0.flip(1), h0)[0].tolist() == pytest.approx([2, 2])  # reversed orders
    assert manipulation.swapped(h0, h0)[0].tolist() == pytest.approx([-2, -2])
    one = torch.stack([1 - rising, 1 - rising], 1)  # the first class only
    assert manipulation.swapped(one, h0)[0].tolist() == pytest.approx([2, -2])
    assert manipulation.swapped(torch.zeros_like(h0), h0).isnan().all()
    h, original = torch.tensor([[[[1.0, 0.0]], [[0.0, 0.0]]]]), torch.tensor([[[[0.0, 0.5]], [[1.0, 1.0]]]])
    assert manipulation.swap(h, original).item() == pytest.approx(0.5 * (0.5 * (0 + 1) + 0.5 * (0 + 0.25)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([-0.8, 0.0, 0.7, 0.95]), st.booleans())
def test_what_a_swap_can_reach_depends_on_the_originals_correlation(seed, alike, against):
    """t <= sqrt(2 (1 - s)), from unit vectors; maps exactly swapped have 1 - s, which is less and no bound."""
    a, b, c = maps(3, 1, 5, 5, seed=seed)
    h0 = torch.stack([a, alike * a + (1 - abs(alike)) * b], 1)
    s = comparison.spearman(h0[:, 0], h0[:, 1])
    h = (h0.flip(1) - h0) if against else torch.stack([c, c], 1)
    assert (manipulation.swapped(h, h0) <= (2 * (1 - s)).sqrt() + 1e-9).all()
    torch.testing.assert_close(manipulation.swapped(h0.flip(1), h0), (1 - s).expand(1, 2))
    h0 = torch.tensor([[[[1.0, 2], [3, 4]], [[1, 2], [4, 3]]]], dtype=D)  # s = .8, 1 - s = .2, the bound .63
    h = torch.tensor([[[[2.0, 1], [3, 0]], [[2, 1], [0, 3]]]], dtype=D)
    assert manipulation.swapped(h, h0)[0].tolist() == pytest.approx([0.6, 0.6])


def test_ternary_maps_by_hand():
    m = torch.tensor([[[9.0, 0, 1], [0, -9, 0], [1, -1, 0]]])  # |.|: mean 21/9, deviation about 3.8
    assert manipulation.ternary(m).tolist() == [[[1, 0, 0], [0, -1, 0], [0, 0, 0]]]
    h0 = torch.stack([spot(3, 0, 0), spot(3, 2, 2)], 1)
    exact = manipulation.swapped(h0.flip(1) + 0.01 * maps(1, 2, 3, 3), h0, "ternary")
    assert exact.tolist() == [[pytest.approx(9 / 8), pytest.approx(9 / 8)]]  # 1 - (-1/8)
    assert manipulation.swapped(torch.ones(1, 2, 3, 3, dtype=D), h0, "ternary").isnan().all()


def test_intervals_are_the_published_ones_ends_included():
    assert manipulation.INTERVALS == {"location": (0, 0.2), "topk": (0, 0.3), "centre": (0.1, 1), "active": (0.5, 2)}
    assert manipulation.KINDS == ("location", "topk", "centre", "active") and manipulation.KINDS[:3] == manipulation.PASSIVE
    for kind, (low, high) in manipulation.INTERVALS.items():
        for dtype in (D, torch.float32):
            t = torch.tensor([low - 1e-3, low, (low + high) / 2, high, high + 1e-3, math.nan], dtype=dtype)
            assert manipulation.succeeded(kind, t).tolist() == [False, True, True, True, False, False]


def flat(m):
    return [v for row in m for v in row]


def scaled(m):
    low, high = min(flat(m)), max(flat(m))
    return [[(v - low) / (high - low) for v in row] for row in m]


def twin_squares(m, o):
    return statistics.mean((a - b) ** 2 for a, b in zip(flat(m), flat(o), strict=True))


def twin_topk(m, o, k, power=2):
    m, o = flat(scaled(m)), flat(scaled(o))
    chosen = sorted(range(len(o)), key=lambda i: -o[i])[:k]
    return sum(m[i] ** power for i in chosen) / (k if power == 2 else 1)


def twin_shift(m, o):
    def centre(a):
        mass = sum(flat(a))
        return [sum((i + 1) * sum(line) for i, line in enumerate(lines)) / mass for lines in (a, zip(*a, strict=True))]

    return [abs(p - q) for p, q in zip(centre(scaled(m)), centre(scaled(o)), strict=True)]


def twin_ranks(v):
    return [sum(b < a for b in v) + (sum(b == a for b in v) + 1) / 2 for a in v]


def twin_ternary(v):
    size = [abs(a) for a in v]
    bar = statistics.mean(size) + statistics.pstdev(size)
    return [math.copysign(1, a) if abs(a) > bar else 0 for a in v]


def twin_s(a, b, of):
    return statistics.correlation(of(flat(a)), of(flat(b)))


@pytest.mark.parametrize("shape", [(4, 5, 5), (3, 4, 4), (2, 11, 11)])
def test_losses_against_loops_and_row_by_row(shape):
    h, h0, k = maps(*shape), maps(*shape, seed=1), shape[1] * shape[2] // 10
    checks = [
        (manipulation.location, twin_squares),
        (manipulation.topk, lambda m, o: twin_topk(m, o, k)),
        (lambda a, b: manipulation.topk(a, b, 5, "printed"), lambda m, o: twin_topk(m, o, 5, 1)),
        (manipulation.centre, lambda m, o: -sum(twin_shift(m, o))),
        (lambda a, b: manipulation.test("location", a, b, mask=b).t, twin_squares),
        (lambda a, b: manipulation.test("topk", a, b, k=5).t, lambda m, o: twin_topk(m, o, 5)),
        (lambda a, b: manipulation.test("topk", a, b).t, lambda m, o: twin_topk(m, o, k)),
    ]
    if shape[1] == shape[2]:  # the scale of t is that of square maps
        twin = lambda m, o: math.hypot(*twin_shift(m, o)) / 2**0.5 / (shape[2] - 1)  # noqa: E731
        checks.append((lambda a, b: manipulation.test("centre", a, b).t, twin))
    for loss, twin in checks:
        found = loss(h, h0)
        assert found.tolist() == pytest.approx([twin(m, o) for m, o in zip(h.tolist(), h0.tolist(), strict=True)], abs=1e-12)
        torch.testing.assert_close(found, torch.cat([loss(a[None], b[None]) for a, b in zip(h, h0, strict=True)]))


@pytest.mark.parametrize("shape", [(4, 2, 5, 5), (3, 2, 4, 4)])
def test_swaps_against_loops_and_row_by_row(shape):
    h, h0 = maps(*shape) - 0.5, maps(*shape, seed=1) - 0.5
    h[:, :, 0] = h[:, :, 0].round(decimals=1)  # ties
    for n, (m, o) in enumerate(zip(h.tolist(), h0.tolist(), strict=True)):
        loss = manipulation.swap(h, h0)[n].item()
        assert loss == pytest.approx((twin_squares(m[0], o[1]) + twin_squares(m[1], o[0])) / 2)
        assert loss == pytest.approx(manipulation.swap(h[n : n + 1], h0[n : n + 1]).item())
        for name, of in (("spearman", twin_ranks), ("ternary", twin_ternary)):
            t = manipulation.swapped(h, h0, name)[n]
            assert t.tolist() == pytest.approx([twin_s(m[c], o[1 - c], of) - twin_s(m[c], o[c], of) for c in (0, 1)])
            torch.testing.assert_close(manipulation.swapped(h[n : n + 1], h0[n : n + 1], name)[0], t)


LOSSES = {
    "location": lambda h, h0: manipulation.location(h),
    "location, a mask each": manipulation.location,
    "topk": manipulation.topk,
    "topk, printed": lambda h, h0: manipulation.topk(h, h0, 6, "printed"),
    "centre": manipulation.centre,
    "swap": lambda h, h0: manipulation.swap(h.unflatten(0, (-1, 2)), h0.unflatten(0, (-1, 2))),
}


@pytest.mark.parametrize("name", LOSSES)
def test_first_and_second_derivatives(name):
    h, h0 = maps(2, 5, 5).requires_grad_(), maps(2, 5, 5, seed=1)
    assert torch.autograd.gradcheck(lambda h: LOSSES[name](h, h0), h)
    assert torch.autograd.gradgradcheck(lambda h: LOSSES[name](h, h0), h)


@pytest.mark.parametrize("name", ["topk", "topk, printed", "location, a mask each", "centre", "swap"])
def test_originals_and_masks_get_no_gradient(name):
    h, h0 = maps(2, 5, 5).requires_grad_(), maps(2, 5, 5, seed=1).requires_grad_()
    LOSSES[name](h, h0).sum().backward()
    assert h.grad.abs().sum() > 0 and h0.grad is None


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
def test_dead_maps_are_told_and_teach_nothing():
    h, h0 = maps(4, 5, 5), maps(4, 5, 5, seed=1)
    h[1], h[2], h0[3] = 0, 0.7, 0
    h.requires_grad_()
    tested = {kind: manipulation.test(kind, h, h0) for kind in manipulation.PASSIVE}
    for kind, found in tested.items():
        assert found.dead.tolist() == [False, True, True, False] and not found.t.requires_grad
        assert found.t.isnan().tolist() == [False, *[kind == "centre"] * 3]
    assert manipulation.succeeded("topk", tested["topk"].t)[1:3].all()  # by the formula
    assert not manipulation.succeeded("centre", tested["centre"].t)[1:].any()
    assert tested["location"].t[1].item() == pytest.approx(16 / 25)
    for loss, still in ((manipulation.centre, [1, 2, 3]), (manipulation.topk, [1, 2])):
        with torch.autograd.detect_anomaly(check_nan=True):  # nor does a NaN arise on the way and get masked
            (g,) = torch.autograd.grad(loss(h, h0).sum(), h)
        assert g.isfinite().all() and g.flatten(1).eq(0).all(1).nonzero()[:, 0].tolist() == still
        torch.testing.assert_close(g[:1], torch.autograd.grad(loss(h[:1], h0[:1]).sum(), h)[0][:1])  # nor is the rest changed


@st.composite
def awkward(draw):
    """Two maps and two originals, (2, l, l) each: constant, of one pixel, with ties, with hardly any contrast."""
    n = draw(st.integers(1, 4)) ** 2
    entry = st.sampled_from([0.0, 0.0, 1e-12, 0.5, 1.0])
    one = st.one_of(entry.map(lambda v: [v] * n), st.lists(entry, min_size=n, max_size=n))
    return torch.tensor([draw(one) for _ in range(4)], dtype=D).view(2, 2, math.isqrt(n), -1)


@settings(max_examples=100, deadline=None)
@given(awkward())
def test_awkward_maps_give_numbers(pair):
    h, h0 = pair[0].clone().requires_grad_(), pair[1]
    for name in LOSSES.keys() - {"topk, printed"}:  # which asks for more positions than there may be
        value = LOSSES[name](h, h0)
        assert value.isfinite().all() and torch.autograd.grad(value.sum(), h)[0].isfinite().all()
    dead = [m.max() == m.min() for m in h]
    for kind in manipulation.PASSIVE:
        t, flagged = manipulation.test(kind, h, h0)
        assert flagged.tolist() == dead
        undefined = [a or bool(o.max() == o.min()) for a, o in zip(dead, h0, strict=True)]
        assert t.isnan().tolist() == (undefined if kind == "centre" else [False] * 2)
        assert ((t >= 0) & (t <= 1 + 1e-12) | t.isnan()).all()


def test_what_does_not_fit_is_refused():
    h, size, same, two = maps(3, 5, 5), "the mask has shape", "they must be the same", "a swap takes two of .N, 2, l, l."
    for call, message in (
        (lambda: manipulation.location(h, manipulation.frame(6)), "the mask has shape .6, 6.*give a mask of .5, 5"),
        (lambda: manipulation.location(h, maps(2, 5, 5)), size),
        (lambda: manipulation.location(h, maps(1, 3, 5, 5)), size),
        (lambda: manipulation.location(maps(3, 5, 4)), "expected .N, l, l."),
        (lambda: manipulation.location(h[0]), "expected .N, l, l."),
        (lambda: manipulation.top(h, 0), "k = 0, but the map has 25 positions .5 x 5."),
        (lambda: manipulation.topk(h, h, 26), "k = 26"),
        (lambda: manipulation.topk(h, h[:1]), same),
        (lambda: manipulation.centre(h, maps(3, 4, 4)), same),
        (lambda: manipulation.topk(h, h, 3, "Code"), "unknown form 'Code'"),
        (lambda: manipulation.swapped(maps(1, 2, 5, 5), maps(1, 2, 5, 5), "kendall"), "unknown correlation 'kendall'"),
        (lambda: manipulation.swapped(maps(1, 3, 5, 5), maps(1, 3, 5, 5)), two),
        (lambda: manipulation.swap(h, h), two),
        (lambda: manipulation.swap(maps(1, 3, 5, 5), maps(1, 3, 5, 5)), two),
        (lambda: manipulation.swap(maps(1, 2, 5, 5), maps(1, 2, 5, 4)), two),
        (lambda: manipulation.test("active", h, h), "unknown passive fooling 'active'; choose one of location, topk, centre"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def shown(missing=None):
    """Four classes; channel 0 is the class, channel 1 the image, channel 2 noise."""
    y = torch.tensor([c for c in range(4) if c != missing]).repeat(6)
    x = torch.rand(len(y), 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x[:, 0], x[:, 1] = y[:, None, None] / 4, torch.arange(len(y))[:, None, None] / len(y)
    return datasets.ImageSet("toy", "test", x, y, ("a", "b", "c", "d"))


@pytest.mark.parametrize("tile", ["native", "half"])
def test_mosaics_hold_two_of_each_class_on_opposite_diagonals(tile):
    data, n = shown(), 60
    images, first = mosaics(data, (3, 1), n, tile=tile, again=True)
    half = 8 if tile == "native" else 4
    assert images.shape == (n, 3, 2 * half, 2 * half) and first.shape == images[:, 0].shape and first.dtype == torch.bool
    assert images.min() >= 0 and images.max() <= 1
    torch.testing.assert_close(images[:, 0], torch.where(first, 0.75, 0.25))
    places = [(i, j) for i in (0, half) for j in (0, half)]
    corners = torch.stack([first[:, i, j] for i, j in places], 1)
    assert (corners[:, 0] == corners[:, 3]).all() and (corners[:, 1:3] != corners[:, :1]).all()
    assert 0.2 < corners[:, 0].float().mean() < 0.8  # both diagonals
    whole = data.images if tile == "native" else F.interpolate(data.images, (4, 4), mode="bilinear", antialias=True)
    tiles = torch.stack([images[:, :, i : i + half, j : j + half] for i, j in places], 1)
    which = (tiles[:, :, 1].mean((2, 3)) * len(data)).round().long()
    torch.testing.assert_close(tiles, whole[which])  # each is one image, whole and upright
    assert len(which.sort(1).values.unique(dim=0)) > 0.7 * n  # a mosaic is drawn anew
    assert torch.equal(data.labels[which] == 3, corners)
    for c in (1, 3):  # two different images of the class in each, and all are dealt out before any is dealt again
        both = which[data.labels[which] == c].view(n, 2)
        assert (both[:, 0] != both[:, 1]).all()
        every = (data.labels == c).nonzero()[:, 0]
        assert all(torch.equal(deal.flatten().sort().values, every) for deal in both.split(len(every) // 2))


def test_mosaics_share_no_image_unless_images_may_appear_again():
    data = shown()
    assert most(data, (0, 2)) == 3
    images = mosaics(data, (0, 2), 3, seed=5).images
    tiles = torch.stack([images[:, 1, i, j] for i in (0, 8) for j in (0, 8)], 1)
    assert len((tiles * len(data)).round().unique()) == 12  # of six images a class, each once
    with pytest.raises(ValueError, match=r"4 mosaics need 8 images of class 'a', and toy .test. has 6: ask for 3 at most"):
        mosaics(data, (0, 2), 4)
    odd = datasets.ImageSet("odd", "test", data.images[:5], torch.tensor([0, 0, 0, 2, 2]), data.classes)
    assert most(odd, (0, 2)) == 1 and len(mosaics(odd, (0, 2), 7, again=True).images) == 7


def test_mosaics_are_drawn_from_the_seed():
    data = shown()
    a, b, c = (mosaics(data, (0, 2), 3, seed=s) for s in (3, 3, 4))
    assert torch.equal(a.images, b.images) and torch.equal(a.first, b.first) and not torch.equal(a.images, c.images)
    assert torch.equal(mosaics(data, (0, 2), 3).images, mosaics(data, (0, 2), 3, seed=0).images)
    assert mosaics(data, (0, 2), 1).images.shape == (1, 3, 16, 16)


def test_mosaics_that_cannot_be_made_are_refused():
    for data, pair, n, message in (
        (shown(), (0, 4), 2, "class 4 is none of the 4 of toy: 0..3"),
        (shown(), (-1, 1), 2, "class -1 is none"),
        (shown(missing=2), (0, 2), 2, "toy .test. shows no images of class 'c', 2 are needed"),
        (shown(), (1, 1), 2, "of two different classes"),
        (shown(), (0, 1), 0, "n = 0 mosaics"),
    ):
        with pytest.raises(ValueError, match=message):
            mosaics(data, pair, n)
    with pytest.raises(ValueError, match="tile 'Half' of images of 8 pixels; choose native, or half"):
        mosaics(shown(), (0, 1), 2, tile="Half")
