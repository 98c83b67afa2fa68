"""Saturation and patch shuffle by hand, by identities, and on awkward inputs; the Fourier swap."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.data import transforms

PIXELS = torch.tensor([0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0], dtype=torch.float64)


def images(values=PIXELS):
    return values.view(1, 1, 1, -1)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (2, [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1]),  # nothing changes
        (4, [0, 0.5 - 0.8**0.5 / 2, 0.5 - 0.5**0.5 / 2, 0.5, 0.5 + 0.5**0.5 / 2, 0.5 + 0.8**0.5 / 2, 1]),
        (1, [0, 0.5 - 0.64 / 2, 0.5 - 0.25 / 2, 0.5, 0.5 + 0.25 / 2, 0.5 + 0.64 / 2, 1]),
        (0.25, [0, 0.5 - 0.8**8 / 2, 0.5 - 0.5**8 / 2, 0.5, 0.5 + 0.5**8 / 2, 0.5 + 0.8**8 / 2, 1]),
        (1e6, [0, 0, 0, 0.5, 1, 1, 1]),  # binary, but grey stays grey
        (1e-6, [0, 0.5, 0.5, 0.5, 0.5, 0.5, 1]),  # grey, but black and white stay
    ],
)
def test_saturation_by_hand(p, expected):
    found = transforms.saturation(images(), p).flatten()
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=2e-6, rtol=0)


@settings(max_examples=40, deadline=None)
@given(p=st.floats(0.01, 5000), seed=st.integers(0, 1000))
def test_saturation_stays_in_range_keeps_order_and_is_odd_about_grey(p, seed):
    x = torch.rand(1, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = transforms.saturation(x, p)
    assert found.amin() >= 0 and found.amax() <= 1 and torch.isfinite(found).all()
    order = x.flatten().argsort()
    assert (found.flatten()[order].diff() >= 0).all()
    torch.testing.assert_close(transforms.saturation(1 - x, p), 1 - found)


@pytest.mark.parametrize("p", [0, -1, float("nan"), float("inf")])
def test_saturation_refuses_levels_that_are_none(p):
    with pytest.raises(ValueError, match="it must be above 0 and finite"):
        transforms.saturation(images(), p)


def shuffled_by_loop(x, k, order):
    """Patch by patch: place i gets patch order[i], both counted row by row."""
    n, _, height, width = x.shape
    h, w = height // k, width // k
    out = torch.empty_like(x)
    for b in range(n):
        for i, j in enumerate(order[b].tolist()):
            (ti, li), (tj, lj) = ((d // k * h, d % k * w) for d in (i, j))
            out[b, :, ti : ti + h, li : li + w] = x[b, :, tj : tj + h, lj : lj + w]
    return out


@pytest.mark.parametrize(("k", "height", "width"), [(2, 8, 8), (4, 8, 12), (8, 32, 32), (3, 9, 6)])
def test_patch_shuffle_against_a_loop(k, height, width):
    x = torch.rand(5, 3, height, width)
    keys = [3, 1, 4, 1, 5]
    found = transforms.patch_shuffle(x, k, keys)
    assert torch.equal(found, shuffled_by_loop(x, k, transforms.permutations(keys, k)))
    assert torch.equal(found.flatten(2).sort(2).values, x.flatten(2).sort(2).values)  # the pixels are the same


def test_patch_shuffle_literals():
    x = torch.arange(16.0).view(1, 1, 4, 4) / 16
    order = transforms.permutations([0], 2)[0]
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    corners = (transforms.patch_shuffle(x, 2, [0])[0, 0, ::2, ::2] * 16).flatten().long()
    assert corners.tolist() == [[0, 2, 8, 10][i] for i in order]
    assert torch.equal(transforms.patch_shuffle(x, 1, [7]), x)


def test_a_shuffle_belongs_to_its_image():
    """The same for every model and in any batch; different for other images, levels and seeds."""
    x = torch.rand(4, 3, 8, 8)
    whole = transforms.patch_shuffle(x, 4, [10, 11, 12, 13])
    assert torch.equal(transforms.patch_shuffle(x[2:3], 4, [12]), whole[2:3])
    orders = {tuple(o.tolist()) for o in transforms.permutations(range(50), 4)}
    assert len(orders) == 50
    assert not torch.equal(transforms.permutations([1], 4), transforms.permutations([1], 4, seed=1))


def test_all_permutations_are_equally_likely():
    """Of four patches, the identity included: 24 orders, 2,400 draws, chi-squared."""
    orders = transforms.permutations(range(2400), 2)
    _, counts = np.unique(orders.numpy(), axis=0, return_counts=True)
    assert len(counts) == 24
    assert ((counts - 100) ** 2 / 100).sum() < 49.7  # the 99.9 % quantile at 23 degrees of freedom


@pytest.mark.parametrize(
    ("k", "keys", "message"),
    [
        (3, [0, 1], "cannot be cut into 3 x 3 equal patches; k can be 1, 2, 4, 8"),
        (0, [0, 1], "cannot be cut into 0 x 0"),
        (16, [0, 1], "cannot be cut"),
        (2, [0], "2 images but 1 keys"),
    ],
)
def test_patch_shuffle_refuses(k, keys, message):
    with pytest.raises(ValueError, match=message):
        transforms.patch_shuffle(torch.rand(2, 3, 8, 8), k, keys)


def test_amplitude_swap_by_numpy():
    x, other = torch.rand(2, 3, 8, 6, dtype=torch.float64), torch.rand(2, 3, 8, 6, dtype=torch.float64)
    spectrum = np.abs(np.fft.fft2(other.numpy())) * np.exp(1j * np.angle(np.fft.fft2(x.numpy())))
    expected = np.fft.ifft2(spectrum).real.clip(0, 1)
    np.testing.assert_allclose(transforms.amplitude_swap(x, other).numpy(), expected, atol=1e-12)
    torch.testing.assert_close(transforms.amplitude_swap(x, x), x)
    grey = torch.full_like(x, 0.3)
    torch.testing.assert_close(transforms.amplitude_swap(x, grey), grey)  # a mean and nothing else
    with pytest.raises(ValueError, match="images of one shape are mixed"):
        transforms.amplitude_swap(x, other[:1])


@pytest.mark.parametrize(
    "transform",
    [
        lambda x: transforms.saturation(x, 64),
        lambda x: transforms.patch_shuffle(x, 2, range(len(x))),
        lambda x: transforms.amplitude_swap(x, x.flip(0)),
    ],
)
def test_constant_and_grey_images_and_bad_ranges(transform):
    for x in (torch.full((2, 3, 8, 8), 0.5), torch.zeros(2, 3, 8, 8), torch.rand(2, 1, 8, 8)):
        found = transform(x)
        assert found.shape == x.shape and torch.isfinite(found).all() and 0 <= found.amin() <= found.amax() <= 1
    for bad in (
        torch.rand(2, 3, 8, 8) * 255,
        torch.full((2, 3, 8, 8), float("nan")),
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
    ):
        with pytest.raises(ValueError, match=r"range over|floating point"):
            transform(bad)
