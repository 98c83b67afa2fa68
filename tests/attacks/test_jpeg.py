"""JPEG's transform against scipy's cosine transform and Pillow's codec, by hand on flat images, and its derivatives."""

import io

import numpy as np
import pytest
import scipy.fft
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.autograd import gradcheck, gradgradcheck

from lib.attacks import jpeg
from lib.data import images

SIZES = [(16, 16), (32, 48), (30, 34), (5, 7), (1, 1)]


def random(n=2, height=16, width=16, seed=0, low=0.0, high=1.0):
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(n, 3, height, width, dtype=torch.float64, generator=generator)


def photograph(height, width):
    """Bytes (height, width, 3) as Pillow takes them, and the same in [0, 1]."""
    whole = Image.fromarray(skimage.data.astronaut()).resize((width, height), Image.Resampling.BOX)
    return np.asarray(whole), images_of(np.asarray(whole))


def images_of(array):
    return torch.from_numpy(array.astype(np.float64) / 255).permute(2, 0, 1)[None]


def pillow(array, quality):
    """What Pillow reads back of what it stored, 4:2:0."""
    stored = io.BytesIO()
    Image.fromarray(array).save(stored, "JPEG", quality=quality, subsampling=2)
    return Image.open(stored)


def psnr(a, b):
    return -10 * torch.log10((a - b).square().mean()).item()


def round_trip(x):
    return jpeg.decode(jpeg.encode(x), tuple(x.shape[2:]))


def test_the_tables_are_the_standards():
    assert jpeg.LUMA_TABLE[0].tolist() == [16, 11, 10, 16, 24, 40, 51, 61]
    assert jpeg.LUMA_TABLE[:, 0].tolist() == [16, 12, 14, 14, 18, 24, 49, 72]
    assert jpeg.LUMA_TABLE[7, 7] == 99 and jpeg.LUMA_TABLE.sum() == 3688
    assert jpeg.CHROMA_TABLE[:4, :4].tolist() == [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
    assert (jpeg.CHROMA_TABLE[4:] == 99).all() and (jpeg.CHROMA_TABLE[:, 4:] == 99).all()


def test_the_tables_are_libjpegs_at_quality_50():
    tables = pillow(photograph(16, 16)[0], 50).quantization
    assert jpeg.LUMA_TABLE.flatten().tolist() == tables[0] and jpeg.CHROMA_TABLE.flatten().tolist() == tables[1]


@pytest.mark.parametrize("grey", [0.0, 0.25, 0.5, 1.0])
def test_a_flat_grey_image_has_nothing_but_its_mean(grey):
    y, cb, cr = jpeg.encode(torch.full((1, 3, 16, 32), grey, dtype=torch.float64))
    expected = torch.zeros(1, 2, 4, 8, 8, dtype=torch.float64)
    expected[..., 0, 0] = 8 * (255 * grey - 128) / 16
    torch.testing.assert_close(y, expected, rtol=1e-7, atol=1e-11)
    assert max(cb.abs().max(), cr.abs().max()) < 1e-11


def test_a_flat_red_image_by_hand():
    """Y = .299 * 255 = 76.245, Cb - 128 = -.1687 * 255 = -43.0277, Cr - 128 = 127.5; a block's DC is 8 times its mean."""
    red = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    y, cb, cr = jpeg.encode(red)
    for found, mean, step in ((y, 76.245 - 128, 16), (cb, -43.027652, 17), (cr, 127.5, 17)):
        expected = torch.zeros_like(found)
        expected[..., 0, 0] = 8 * mean / step
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-6)


def test_colours_are_pillows():
    pixels, x = photograph(32, 32)
    c = jpeg.encode(x)
    theirs = np.asarray(Image.fromarray(pixels).convert("YCbCr"), np.float64)
    for k, plane in enumerate(c):
        side = 8 if k == 0 else 16
        means = plane[0, :, :, 0, 0] * (jpeg.LUMA_TABLE, jpeg.CHROMA_TABLE)[k > 0][0, 0] / 8 + (128 if k == 0 else 0)
        expected = theirs[..., k].reshape(32 // side, side, 32 // side, side).mean((1, 3)) - (0 if k == 0 else 128)
        assert np.abs(means.numpy() - expected).max() < 0.75  # theirs are whole numbers, rounded down


@pytest.mark.parametrize(("plane", "pixel"), [(0, 1), (1, 2), (2, 2)])
def test_each_block_is_scipys_cosine_transform(plane, pixel):
    x = random(2, 32, 48)
    weights = ([0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411])[plane]
    values = 255 * np.einsum("c,nchw->nhw", weights, x.numpy()) - (128 if plane == 0 else 0)
    values = values.reshape(2, 32 // pixel, pixel, 48 // pixel, pixel).mean((2, 4))
    table = (jpeg.LUMA_TABLE if plane == 0 else jpeg.CHROMA_TABLE).numpy()
    found = jpeg.encode(x)[plane].numpy()
    assert found.shape == (2, values.shape[1] // 8, values.shape[2] // 8, 8, 8)
    for n in range(2):
        for i in range(found.shape[1]):
            for j in range(found.shape[2]):
                block = values[n, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
                np.testing.assert_allclose(found[n, i, j] * table, scipy.fft.dctn(block, norm="ortho"), 1e-7, 1e-9)


def test_nothing_is_lost_where_chroma_is_even_over_two_by_two():
    """Luma per pixel, chroma per 2 x 2: what 4:2:0 can hold comes back exactly."""
    generator = torch.Generator().manual_seed(0)
    y = 90 + 80 * torch.rand(2, 32, 16, dtype=torch.float64, generator=generator)
    cb, cr = (
        60 * torch.rand(2, 2, 16, 8, dtype=torch.float64, generator=generator).repeat_interleave(2, 2).repeat_interleave(2, 3)
        - 30
    )
    x = torch.stack([y + 1.402 * cr, y - 0.344136286 * cb - 0.714136286 * cr, y + 1.772 * cb], 1) / 255
    assert x.min() > 0 and x.max() < 1
    assert (round_trip(x) - x).abs().max() < 1e-7


def test_only_the_resolution_of_chroma_is_lost():
    x = random(2, 32, 32, low=0.35, high=0.65)  # narrow enough that nothing is cut
    lost = 255 * (round_trip(x) - x)
    assert images.luma(lost).abs().max() < 1e-4 and lost.abs().mean() > 5
    means = torch.nn.functional.avg_pool2d(lost, 2)
    assert means.abs().max() < 1e-3  # and its means over 2 x 2 are kept


def test_a_photograph_is_nearly_unchanged():
    """The specification's D9, on a photograph of finer detail: luma changes only where a value is cut to [0, 1]."""
    x = photograph(96, 96)[1]
    lost = 255 * (round_trip(x) - x)
    assert images.luma(lost).abs().mean() < 0.05 and images.luma(lost).abs().quantile(0.99) < 1
    assert 0.3 < lost.abs().mean() < 4
    grey = images.luma(x).clamp(0, 1).expand(-1, 3, -1, -1)
    assert (round_trip(grey) - grey).abs().max() < 1e-7


def test_the_transform_is_orthonormal_to_double_precision():
    x = random(1).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert (round_trip(x) - x).abs().max() < 1e-12
    torch.testing.assert_close(jpeg.encode(x * 0).y[0, 0, 0, 0, 0].item(), -64.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(64, 64), (100, 74), (61, 47)])
def test_compressed_is_pillows_quality_50(size):
    pixels, x = photograph(*size)
    ours = jpeg.compressed(x)
    theirs = {q: images_of(np.asarray(pillow(pixels, q))) for q in (20, 40, 50, 60, 90)}
    closeness = {q: psnr(ours, t) for q, t in theirs.items()}
    assert closeness[50] > 34 and psnr(x, theirs[50]) < 28
    assert all(closeness[50] > closeness[q] + 5 for q in theirs if q != 50)
    assert psnr(images.luma(ours), images.luma(theirs[50])) > 38  # the rest is how chroma is drawn larger


def test_without_colour_compressed_is_pillows_up_to_the_last_digit():
    pixels = np.asarray(Image.fromarray(photograph(64, 64)[0]).convert("L").convert("RGB"))
    away = 255 * (jpeg.compressed(images_of(pixels)) - images_of(np.asarray(pillow(pixels, 50)))).abs()
    assert away.median() < 0.5 and away.mean() < 0.7  # a coefficient at half a step may round either way


def test_compressing_again_changes_little():
    once = jpeg.compressed(photograph(64, 64)[1])
    assert psnr(jpeg.compressed(once), once) > 40


@pytest.mark.parametrize("size", SIZES)
def test_any_size_is_padded_by_its_edge_and_cut_again(size):
    x = random(2, *size)
    c = jpeg.encode(x)
    height, width = (-(-s // 16) for s in size)
    assert c.y.shape == (2, 2 * height, 2 * width, 8, 8) and c.cb.shape == c.cr.shape == (2, height, width, 8, 8)
    padding = ((0, 0), (0, 0), (0, 16 * height - size[0]), (0, 16 * width - size[1]))
    padded = torch.from_numpy(np.pad(x.numpy(), padding, mode="edge"))
    for found, expected in zip(c, jpeg.encode(padded), strict=True):
        torch.testing.assert_close(found, expected)
    whole = jpeg.decode(c, tuple(padded.shape[2:]))
    torch.testing.assert_close(jpeg.decode(c, size), whole[..., : size[0], : size[1]])


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_luma_survives_at_every_size(height, width, seed):
    x = random(1, height, width, seed, low=0.4, high=0.6)
    found = round_trip(x)
    assert found.shape == x.shape
    assert (images.luma(found) - images.luma(x)).abs().max() < 1e-6


def test_flat_and_like_are_inverse():
    c = jpeg.encode(random(3, 32, 48))
    rows = c.flat()
    assert rows.shape == (3, 1.5 * 32 * 48)
    assert torch.equal(rows[:, :64], c.y[:, 0, 0].flatten(1))  # luma, block by block, then blue, then red
    assert torch.equal(rows[:, 32 * 48 : 32 * 48 + 64], c.cb[:, 0, 0].flatten(1))
    assert torch.equal(rows[:, -64:], c.cr[:, -1, -1].flatten(1))
    assert all(torch.equal(a, b) for a, b in zip(c.like(rows), c, strict=True))
    other = torch.rand_like(rows)
    assert torch.equal(c.like(other).flat(), other)


def test_like_refuses_rows_of_another_length():
    c = jpeg.encode(random())
    with pytest.raises(RuntimeError, match="split_with_sizes"):
        c.like(c.flat()[:, :-1])


def test_round_gives_whole_steps_and_no_gradient():
    x = random(1, low=0.3, high=0.7).requires_grad_()
    c = jpeg.encode(x).round()
    assert all(torch.equal(t, t.round()) for t in c) and (c.flat() - jpeg.encode(x).flat()).abs().max() <= 0.5
    (gradient,) = torch.autograd.grad(jpeg.decode(c, (16, 16)).sum(), x)
    assert not gradient.any()


def test_a_step_of_quantisation_by_hand():
    """One step of luma's DC is 16 / 8 = 2 grey levels over its block, and nothing elsewhere."""
    x = torch.full((1, 3, 16, 16), 0.5, dtype=torch.float64)
    c = jpeg.encode(x)
    c.y[0, 0, 1, 0, 0] += 1
    moved = 255 * (jpeg.decode(c, (16, 16)) - x)
    expected = torch.zeros_like(moved)
    expected[:, :, :8, 8:] = 2
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("size", [(16, 16), (5, 7)])
def test_derivatives(size):
    x = random(1, *size, low=0.4, high=0.6).requires_grad_()
    v = torch.zeros_like(jpeg.encode(x).flat()).uniform_(-0.1, 0.1, generator=torch.Generator().manual_seed(1)).requires_grad_()

    def both(x, v):
        c = jpeg.encode(x)
        return jpeg.decode(c.like(c.flat() + v), size)

    found = both(x, v)
    assert found.min() > 0 and found.max() < 1  # away from the cut
    assert gradcheck(both, (x, v), fast_mode=True)
    assert gradgradcheck(lambda x, v: both(x, v).square(), (x, v), fast_mode=True)


def test_no_gradient_where_a_value_is_cut():
    c = jpeg.encode(random(1, low=0.4, high=0.6))
    bright = c.like(c.flat() + 0).y.clone()
    bright[:, 0, 0, 0, 0] += 200  # the first block far above white
    bright.requires_grad_()
    found = jpeg.decode(jpeg.Coefficients(bright, c.cb, c.cr), (16, 16))
    assert (found[..., :8, :8] == 1).all()
    (gradient,) = torch.autograd.grad(found.sum(), bright)
    assert not gradient[:, 0, 0].any() and gradient[:, 1, 1].any()


def test_a_batch_equals_its_rows():
    x = random(4, 20, 33)
    for function in (lambda z: jpeg.encode(z).flat(), round_trip, jpeg.compressed):
        torch.testing.assert_close(function(x), torch.cat([function(row[None]) for row in x]))


def test_single_precision_stays_single_and_close():
    x = random(2, 32, 32)
    single = jpeg.encode(x.float())
    assert all(t.dtype == torch.float32 for t in single)
    torch.testing.assert_close(single.flat().double(), jpeg.encode(x).flat(), rtol=0, atol=1e-4)
    assert round_trip(x.float()).dtype == torch.float32
    torch.testing.assert_close(round_trip(x.float()).double(), round_trip(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_transformed_in_single(dtype):
    x = random(2, 20, 33).to(dtype)
    c = jpeg.encode(x)
    assert all(t.dtype == torch.float32 for t in c) and torch.equal(c.flat(), jpeg.encode(x.float()).flat())
    rough = jpeg.Coefficients(*(t.to(dtype) for t in c))
    assert torch.equal(jpeg.decode(rough, (20, 33)), jpeg.decode(jpeg.Coefficients(*(t.float() for t in rough)), (20, 33)))
    assert jpeg.compressed(x).dtype == dtype and torch.equal(jpeg.compressed(x), jpeg.compressed(x.float()).to(dtype))


def test_autocast_changes_nothing():
    x = random(2, 20, 33).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = jpeg.compressed(x)
    torch.testing.assert_close(found, jpeg.compressed(x), rtol=0, atol=0)


def test_images_and_coefficients_are_not_written_to():
    x = random()
    before = x.clone()
    c = jpeg.encode(x)
    kept = c.flat()
    jpeg.decode(c, (16, 16)), c.round(), c.like(kept + 1), jpeg.compressed(x)
    assert torch.equal(x, before) and torch.equal(c.flat(), kept)


@pytest.mark.parametrize("function", [jpeg.encode, jpeg.compressed])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[:, :1], r"1 channel\(s\); this attack is defined in colour.*unforeseen\.InColour\(model\)"),
        (lambda x: x[:, [0, 1, 2, 0]], r"4 channel\(s\)"),
        (lambda x: 255 * x, "divide 8-bit images by 255"),
        (lambda x: x - 0.5, "models here take"),
        (lambda x: x * torch.nan, "range over"),
        (lambda x: (255 * x).to(torch.uint8), r"x\.float\(\) / 255"),
        (lambda x: x[0], r"x\[None\]"),
        (lambda x: x[:0], "empty batch"),
    ],
)
def test_other_images_are_refused(function, spoil, message):
    with pytest.raises(ValueError, match=message):
        function(spoil(random()))
