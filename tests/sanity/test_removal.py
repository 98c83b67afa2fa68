import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from pytorch_grad_cam.metrics import road as peer
from torch import nn

from lib.sanity import imputation, removal
from tests import conftest


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def maps_of(n, h, w, seed=4):
    return torch.rand(n, h, w, dtype=torch.float64, generator=generator(seed))


class Counts(nn.Module):
    """Two classes: the logit of the second is the sum of weighted pixels, that of the first 0."""

    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, x):
        z = (x * self.weights).sum((1, 2, 3))
        return torch.stack([torch.zeros_like(z), z], 1)


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


@pytest.fixture
def by_hand():
    """Pixels 1, 0, 0, 1 (mean .5) with weights 4, 2, -2, 0: z = 4."""
    x = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]], dtype=torch.float64)
    weights = torch.tensor([[4.0, 2.0], [-2.0, 0.0]], dtype=torch.float64)
    return Counts(weights), x, weights[None].clone()


def test_deletion_by_hand(by_hand):
    model, x, maps = by_hand
    found = removal.deletion(model, x, 1, maps, shares=(0, 0.25, 0.5, 0.75, 1))
    # each pixel in turn becomes .5: 4 -> 2; + 2 * .5 = 3; the one of weight 0: 3; - 2 * .5 = 2
    wanted = [sigmoid(z) for z in (4, 2, 3, 3, 2)]
    assert found.probability[0, 0].tolist() == pytest.approx(wanted)
    assert found.area.item() == pytest.approx((wanted[0] / 2 + sum(wanted[1:4]) + wanted[4] / 2) / 4)
    assert found.right[0, 0].tolist() == [1] * 5
    assert found.shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    other = removal.deletion(model, x, 0, maps, shares=(0, 0.25))
    assert other.probability[0, 0].tolist() == pytest.approx([1 - w for w in wanted[:2]])
    assert other.right[0, 0].tolist() == [0, 0]
    assert other.area.item() == pytest.approx(1 - (wanted[0] + wanted[1]) / 2)


def test_insertion_by_hand(by_hand):
    model, x, maps = by_hand
    found = removal.insertion(model, x, 1, maps, shares=(0, 0.25, 0.5, 0.75, 1), sigma=1e6)
    # a wide Gaussian of 11 taps is a mean: the border is repeated, so along a side one pixel counts 6 and one 5 times of 11
    near, far = 6 / 11, 5 / 11
    start = [[near**2 + far**2, 2 * near * far], [2 * near * far, near**2 + far**2]]
    (a, b), (c, d) = start
    wanted = [(a, b, c), (1, b, c), (1, 0, c), (1, 0, c), (1, 0, 0)]  # the third is the pixel d of weight 0
    assert found.probability[0, 0].tolist() == pytest.approx([sigmoid(4 * p + 2 * q - 2 * r) for p, q, r in wanted])
    assert d == a and found.probability[0, 0, -1].item() == pytest.approx(sigmoid(4))


def test_road_by_hand(by_hand):
    model, x, maps = by_hand
    most = removal.road(model, x, 1, maps, first="most", shares=(0.25, 0.5), noise=0)
    # the first pixel from 0, 0 beside it and 1 across: .2; then it and the second, p and q: from the row below (0, 1)
    p, q = np.linalg.solve([[5, -2], [-2, 5]], [2 * 0 + 1 * 1, 2 * 1 + 1 * 0])
    assert most.probability[0, 0].tolist() == pytest.approx([sigmoid(4 * 0.2), sigmoid(4 * p + 2 * q)])
    least = removal.road(model, x, 1, maps, first="least", shares=(0.25, 0.5), noise=0)
    # the pixel of weight -2 first: 1, 1 beside it and 0 across: .8; then that of weight 0, which leaves 1 above, 0 across
    r = np.linalg.solve([[5, -2], [-2, 5]], [2 * 1 + 0, 2 * 0 + 1])[0]
    assert least.probability[0, 0].tolist() == pytest.approx([sigmoid(4 - 2 * 0.8), sigmoid(4 - 2 * r)])


def slow(model, x, y, maps, shares, how, noise=None):
    """An image at a time, a pixel at a time, in the order of maps without ties."""
    height, width = x.shape[2:]
    curves = []
    for i in range(len(x)):
        values = {(r, c): maps[i, r, c].item() for r in range(height) for c in range(width)}
        order = sorted(values, key=values.get, reverse=True)
        curve = []
        for share in shares:
            image = (removal.blurred(x) if how == "insertion" else x)[i].clone()
            taken = order[: round(share * height * width)]
            for r, c in taken:
                image[:, r, c] = x[i].mean((1, 2)) if how == "deletion" else x[i, :, r, c]
            if how == "road" and taken:
                gone = torch.zeros(1, height, width, dtype=torch.bool)
                for r, c in taken:
                    gone[0, r, c] = True
                image = imputation.imputed(x[i : i + 1], gone)[0]
                for r, c in taken:
                    image[:, r, c] = (image[:, r, c] + noise[i, :, r, c]).clamp(0, 1)
            with torch.no_grad():
                curve.append(torch.softmax(model(image[None])[0], 0)[y[i]].item())
        curves.append(curve)
    return torch.tensor(curves, dtype=torch.float64)


SHARES = (0.0, 0.1, 0.35, 0.9)


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_they_are_the_slow_twin_in_batches_of_any_size(model, x, y, batch):
    maps = maps_of(6, 8, 8)
    for how in ("deletion", "insertion"):
        found = getattr(removal, how)(model, x, y, maps, shares=SHARES, batch=batch)
        assert torch.allclose(found.probability[0], slow(model, x, y, maps, SHARES, how), atol=1e-10)
    noise = 0.1 * torch.randn(x.shape, generator=generator(8)).to(x)
    for first, order in (("most", maps), ("least", -maps)):
        found = removal.road(model, x, y, maps, first=first, shares=SHARES, noise=0.1, batch=batch, generator=generator(8))
        assert torch.allclose(found.probability[0], slow(model, x, y, order, SHARES, "road", noise), atol=1e-10)
    with torch.no_grad():
        assert torch.allclose(found.probability[:, :, 0], model(x).softmax(1).gather(1, y[:, None])[:, 0].expand(2, 6))


@pytest.mark.filterwarnings("ignore")  # the peer's own
@pytest.mark.parametrize("percentile", [30, 80])
def test_road_is_that_of_grad_cam(model, x, y, percentile, monkeypatch):
    monkeypatch.setattr(peer.NoisyLinearImputer.__init__, "__defaults__", (0.0, peer.neighbors_weights))
    x, net = x.float(), model.float()
    maps = maps_of(6, 8, 8).float()
    targets = [lambda out, c=int(c): out.softmax(-1)[c] for c in y]
    wanted = peer.ROADMostRelevantFirst(percentile)(x, maps.numpy(), targets, net, return_diff=False)
    # it removes what is at or above the percentile: (1 - percentile) of 63 intervals, and one pixel
    gone = [(m >= np.percentile(m, percentile)).sum() / 64 for m in maps.numpy()]
    assert len(set(gone)) == 1
    found = removal.road(net, x, y, maps, first="most", shares=(0.0, gone[0]), noise=0)
    assert found.probability[0, :, 1].tolist() == pytest.approx(wanted.tolist(), abs=1e-5)


def test_coarse_maps_are_enlarged_as_they_are_shown(model, x, y):
    coarse = maps_of(6, 3, 3)
    fine = torch.nn.functional.interpolate(coarse[:, None], (8, 8), mode="bilinear", align_corners=False)[:, 0]
    found, wanted = (removal.deletion(model, x, y, m, shares=SHARES) for m in (coarse, fine))
    assert torch.allclose(found.probability[0], wanted.probability[0])
    ranks = removal.removal_ranks(coarse, (8, 8), generator())
    for r, m in zip(ranks, fine, strict=True):
        assert (np.diff(m.flatten()[r.flatten().argsort()]) <= 0).all()


def test_the_control_has_the_values_of_the_map_at_random_places_of_its_grid():
    maps = maps_of(3, 4, 5)
    found = removal.shuffled(maps, generator())
    for a, b in zip(maps, found, strict=True):
        assert sorted(a.flatten().tolist()) == sorted(b.flatten().tolist()) and not torch.equal(a, b)
    other = removal.shuffled(maps[:1].repeat(2, 1, 1), generator())
    assert not torch.equal(other[0], other[1])


def test_the_map_of_a_linear_network_beats_its_control_and_noise_does_not():
    weights = torch.randn(1, 8, 8, generator=generator(), dtype=torch.float64)
    model = Counts(weights)
    x = torch.rand(200, 1, 8, 8, generator=generator(1), dtype=torch.float64)
    contribution = ((x - x.mean((2, 3), keepdim=True)) * weights).sum(1)  # what deletion takes away, exactly
    found = removal.deletion(model, x, 1, contribution, draws=3)
    assert found.areas.shape == (4, 200) and (found.area < found.control).all()
    least = removal.deletion(model, x, 1, -contribution)
    assert (least.area > least.control).all()
    assert torch.allclose(found.control, (found.areas[1] + found.areas[2] + found.areas[3]) / 3)
    into = removal.insertion(model, x, 1, ((x - removal.blurred(x)) * weights).sum(1))
    assert (into.area > into.control).all()
    noise = removal.deletion(model, x, 1, maps_of(200, 8, 8))
    gap = noise.area - noise.control
    assert abs(gap.mean()) < 3 * gap.std() / 200**0.5


def test_equal_values_come_in_random_order_and_the_generator_decides():
    maps = torch.zeros(400, 3, 3)
    maps[:, 0, 0], maps[:, 2, 2] = 1, -1
    ranks = removal.removal_ranks(maps, (3, 3), generator())
    assert (ranks[:, 0, 0] == 0).all() and (ranks[:, 2, 2] == 8).all()
    assert (ranks.flatten(1).sort(1).values == torch.arange(9)).all()
    middle = ranks[:, 0, 1].double()
    assert set(middle.tolist()) == set(range(1, 8)) and abs(middle.mean() - 4) < 4 * 2 / 400**0.5
    assert torch.equal(ranks, removal.removal_ranks(maps, (3, 3), generator()))
    assert not torch.equal(ranks, removal.removal_ranks(maps, (3, 3), generator(1)))


def test_maps_that_order_nothing_have_no_curve(model, x, y):
    maps = maps_of(6, 8, 8)
    whole = removal.deletion(model, x, y, maps, shares=SHARES)
    spoilt = maps.clone()
    spoilt[1], spoilt[3, 0, 0], spoilt[4, 2, 2] = 0.5, torch.nan, torch.inf
    for found in (
        removal.deletion(model, x, y, spoilt, shares=SHARES),
        removal.road(model, x, y, spoilt, first="least", shares=SHARES),
    ):
        assert found.probability.isnan().all(-1).all(0).tolist() == [False, True, False, True, True, False]
        assert found.right.isnan().all(-1).all(0).tolist() == [False, True, False, True, True, False]
        assert found.area.isnan().tolist() == found.control.isnan().tolist() == [False, True, False, True, True, False]
        assert found.probability[:, [0, 2, 5]].isfinite().all()
    again = removal.deletion(model, x, y, spoilt, shares=SHARES)
    assert torch.equal(again.probability[0, [0, 2, 5]], whole.probability[0, [0, 2, 5]])


def test_blurred_is_scipys():
    x = torch.rand(2, 3, 9, 12, dtype=torch.float64, generator=generator())
    for sigma in (0.5, 5.0):
        wanted = scipy.ndimage.gaussian_filter(x.numpy(), sigma, axes=(2, 3), mode="nearest", truncate=5 / sigma)
        assert np.allclose(removal.blurred(x, sigma), wanted, atol=1e-12)
    assert torch.allclose(removal.blurred(torch.full((1, 1, 2, 2), 0.3)), torch.full((1, 1, 2, 2), 0.3))
    with pytest.raises(ValueError, match="odd number of pixels"):
        removal.blurred(x, 5, 10)


@pytest.mark.parametrize("how", ["deletion", "insertion", "road"])
def test_model_images_and_global_random_state_stay_as_they_are(model, x, y, how):
    options = {"first": "most", "shares": SHARES} if how == "road" else {}
    model.train()
    before, images, maps = conftest.state_of(model), x.clone(), maps_of(6, 8, 8)
    kept = maps.clone()
    a, b = (getattr(removal, how)(model, x, y, maps, **options) for _ in range(2))
    assert torch.equal(a.probability, b.probability)
    assert not torch.equal(
        a.probability[1], getattr(removal, how)(model, x, y, maps, generator=generator(1), **options).probability[1]
    )
    with pytest.raises(RuntimeError, match="forced"):
        getattr(removal, how)(conftest.Breaks(model), x, y, maps, **options)
    assert conftest.same_state(before, conftest.state_of(model))
    assert torch.equal(x, images) and torch.equal(maps, kept)


def test_a_network_that_is_being_trained_is_looked_at_as_it_decides(small_plain):
    x = torch.rand(4, 3, 16, 16, generator=generator())
    wanted = removal.deletion(small_plain, x, 1, maps_of(4, 16, 16).float())
    found = removal.deletion(small_plain.train(), x, 1, maps_of(4, 16, 16).float())
    assert torch.equal(found.probability, wanted.probability) and all(m.training for m in small_plain.modules())


def test_noise_stays_within_the_images_range_and_off_the_pixels_that_are_left(x, y):
    seen = []

    class Looks(nn.Module):
        def forward(self, z):
            seen.append(z.clone())
            return z.mean((2, 3))

    maps = maps_of(6, 8, 8)
    removal.road(Looks(), x, y % 3, maps, first="most", shares=(0.0, 0.5), noise=2.0)
    images = torch.cat(seen).view(2, 6, 2, 3, 8, 8)  # order, image, share
    assert images.min() >= 0 and images.max() <= 1
    assert torch.equal(images[0, :, 0], x)
    left = removal.removal_ranks(maps, (8, 8), generator()) >= 32
    where = left[:, None].expand_as(x)
    assert torch.equal(images[0, :, 1][where], x[where]) and not torch.isclose(images[0, :, 1], x)[~where].any(-1).all()


def test_what_has_no_order_or_no_shares_is_refused(model, x, y):
    maps = maps_of(6, 8, 8)
    with pytest.raises(ValueError, match="images of one pixel"):
        removal.deletion(model, x[:, :, :1, :1], y, maps)
    with pytest.raises(ValueError, match=r"expected \(N, h, w\) for N = 6 images"):
        removal.insertion(model, x, y, maps[:3])
    for shares in ((0.5,), (0.5, 0.1), (0.0, 1.2), (-0.1, 0.5), (0.5, 0.5)):
        with pytest.raises(ValueError, match="shares are"):
            removal.deletion(model, x, y, maps, shares=shares)
    with pytest.raises(ValueError, match="must be below 1"):
        removal.road(model, x, y, maps, first="most", shares=(0.5, 1.0))
    with pytest.raises(ValueError, match="unknown order 'morf'"):
        removal.road(model, x, y, maps, first="morf")
    with pytest.raises(ValueError, match="draws=0"):
        removal.deletion(model, x, y, maps, draws=0)
    with pytest.raises(ValueError, match="but the model has 4 classes"):
        removal.deletion(model, x, y + 3, maps)
    with pytest.raises(ValueError, match="6 images but 2 labels"):
        removal.deletion(model, x, y[:2], maps)
    with pytest.raises(ValueError, match="range over"):
        removal.road(model, x * 3, y, maps, first="most")
