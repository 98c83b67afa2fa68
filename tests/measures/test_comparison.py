import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.explanations import activation_maps
from lib.measures import appearance, comparison


def test_nissim_golden_values():
    rng = torch.Generator().manual_seed(0)
    contrast = (torch.rand(1, 16, 16, generator=rng) > 0.5).float()
    zeros = torch.zeros(1, 16, 16)
    assert comparison.nissim(contrast, contrast).item() == pytest.approx(0, abs=1e-6)
    assert comparison.nissim(contrast, 1 - contrast).item() > 0.5
    assert comparison.nissim(zeros, zeros).item() == 0
    assert comparison.nissim(torch.full((1, 16, 16), 0.3), torch.full((1, 16, 16), 0.3)).item() == pytest.approx(0, abs=1e-6)
    assert 0 <= comparison.nissim(zeros, contrast).item() <= 1


def test_nissim_is_half_of_one_less_ssim():
    from skimage.metrics import structural_similarity

    a, b = (torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (1, 2))
    expected = [(1 - structural_similarity(u, v, data_range=1.0)) / 2 for u, v in zip(a.numpy(), b.numpy(), strict=True)]
    assert comparison.nissim(a, b).tolist() == pytest.approx(expected, abs=1e-10)


def test_mod_and_vid_golden_values():
    assert comparison.mod(torch.tensor([[0.1, 0.3], [0.5, 0.5]])).tolist() == pytest.approx([0.2, 0.5])
    mods = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert comparison.vid_model(mods).item() == pytest.approx(0.1118, abs=1e-4)  # population standard deviation
    assert comparison.vid_image(torch.stack([mods, torch.zeros(4)])).tolist() == pytest.approx([0.1118, 0.0], abs=1e-4)


def test_readings_of_vid_differ_where_images_do():
    nissim = torch.tensor([[0.0, 0.4], [0.4, 0.0]])  # (image, eps): every image moves, the mean does not
    assert comparison.vid_model(comparison.mod(nissim.T)).item() == pytest.approx(0)
    assert comparison.vid_image(nissim).tolist() == pytest.approx([0.2, 0.2])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=1, max_size=4))
def test_ranks_with_ties_equal_scipy(rows):
    values = torch.tensor(rows, dtype=torch.float32)
    assert np.array_equal(comparison.ranks(values).numpy(), scipy.stats.rankdata(values.numpy(), axis=1))


def test_ranks_where_a_device_has_no_float64(monkeypatch):
    """As on Apple's GPUs: the same ranks, halves included, also of many equal values."""
    values = torch.randint(0, 3, (2, 5000), generator=torch.Generator().manual_seed(0)).float()
    wide = comparison.ranks(values)
    monkeypatch.setattr(comparison.devices, "exact", lambda where: torch.float32)
    narrow = comparison.ranks(values)
    assert narrow.dtype == torch.float32 and torch.equal(narrow.double(), wide)


def test_spearman_equals_scipy_and_is_undefined_on_constant_maps():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(4, 6, 5, generator=generator, dtype=torch.float64).sub(0.5).relu()  # many ties, as ReLU makes them
    b = torch.rand(4, 6, 5, generator=generator, dtype=torch.float64)
    expected = [scipy.stats.spearmanr(u.ravel(), v.ravel()).statistic for u, v in zip(a.numpy(), b.numpy(), strict=True)]
    assert np.allclose(comparison.spearman(a, b), expected, atol=1e-12)
    assert math.isnan(comparison.spearman(torch.zeros(1, 3, 3), b[:1, :3, :3].float()).item())
    assert comparison.spearman(b, -b).tolist() == pytest.approx([-1] * 4)
    every = comparison.spearman_of_all(a, b[:2])
    one_by_one = [[comparison.spearman(u[None], v[None]).item() for v in b[:2]] for u in a]
    assert np.allclose(every, one_by_one, atol=1e-12)
    assert comparison.spearman_of_all(torch.zeros(1, 3, 3), torch.rand(2, 3, 3)).isnan().all()
    with pytest.raises(ValueError, match="maps of one shape"):
        comparison.spearman_of_all(torch.rand(1, 3, 3), torch.rand(2, 4, 4))


def test_topk_iou_by_hand():
    a = torch.tensor([[[5.0, 4, 0], [0, 0, 0], [0, 0, 0]]])
    b = torch.tensor([[[5.0, 0, 4], [0, 0, 0], [0, 0, 0]]])
    assert comparison.topk_iou(a, b, 2 / 9).item() == pytest.approx(1 / 3)
    assert comparison.topk_iou(a, a).item() == 1
    rising = torch.arange(9.0).view(1, 3, 3)
    swapped = rising.clone()
    swapped[0, 1, 2], swapped[0, 2, 0] = 6.0, 5.0  # the third highest and the fourth change places: 2 of 4 shared
    assert comparison.topk_iou(rising, swapped, 3 / 9).item() == pytest.approx(0.5)
    # sparse maps do not share their empty background, and a constant map has no highest pixels
    one, other = torch.zeros(2, 1, 8, 8)
    one[0, 1, 1], other[0, 5, 5] = 1, 1
    assert comparison.topk_iou(one, other).item() == 0 and comparison.topk_iou(one, one).item() == 1
    assert comparison.topk_iou(one, torch.zeros(1, 8, 8)).isnan().all()
    grid = torch.arange(3136.0).view(1, 56, 56)  # the highest 53 of 3,136, whose share times 3,136 is a bit more than 53
    other = grid.flatten(1).index_put((torch.tensor([0]), torch.tensor([3136 - 54])), torch.tensor(1e6)).view_as(grid)
    assert comparison.topk_iou(grid, other, 53 / 3136).item() == pytest.approx(52 / 54)
    with pytest.raises(ValueError, match="share must be in"):
        comparison.topk_iou(a, b, 0)


def test_centroid_equals_scipy_and_shift_by_hand():
    maps = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = [scipy.ndimage.center_of_mass(m) for m in maps.numpy()]
    assert np.allclose(comparison.centroid(maps), expected)
    a, b = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    a[0, 1, 1], b[0, 4, 5] = 1, 2
    assert comparison.centroid_shift(a, b).item() == 5
    assert math.isnan(comparison.centroid_shift(a, torch.zeros(1, 8, 8)).item())


def test_degenerate_maps():
    maps = torch.stack([torch.zeros(4, 4), torch.ones(4, 4), torch.eye(4)])
    assert comparison.degenerate(maps).tolist() == [True, True, False]


def test_psnr_by_hand():
    x = torch.full((2, 1, 4, 4), 0.5)
    assert comparison.psnr(x, x + 0.1).tolist() == pytest.approx([20, 20], abs=1e-4)
    assert comparison.psnr(x, x).isinf().all()


def test_overlap_by_hand():
    maps = torch.tensor([[[3.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[[True, False], [False, False]]]).expand(2, 2, 2)
    energy = comparison.overlap(maps, mask)
    assert energy[0] == 0.75 and energy[1].isnan()
    peak = comparison.overlap(maps, mask, "pointing")
    assert peak[0] == 1 and peak[1].isnan()  # a map of zeros has no peak, not one in its first pixel
    assert comparison.overlap(maps, ~mask, "pointing")[0] == 0


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        comparison.spearman(torch.rand(1, 3, 3), torch.rand(1, 4, 4))


@pytest.mark.parametrize(("n", "d"), [(7, 49), (1, 2), (5, 16), (3, 500)])
def test_kendall_is_scipys_also_with_ties(n, d):
    generator = torch.Generator().manual_seed(d)
    a = torch.randn(n, d, generator=generator, dtype=torch.float64)
    for b in (a + torch.randn(a.shape, generator=generator, dtype=a.dtype), torch.randn(a.shape, generator=generator).to(a)):
        for u, v in ((a, b), (a.round(), b.round(decimals=1)), (a, b.round())):
            expected = [scipy.stats.kendalltau(*pair).statistic for pair in zip(u.numpy(), v.numpy(), strict=True)]
            torch.testing.assert_close(comparison.kendall(u, v), torch.tensor(expected), equal_nan=True)


def test_kendall_by_hand():
    a = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    assert comparison.kendall(a, a).item() == 1 and comparison.kendall(a, -a).item() == -1
    assert comparison.kendall(a, torch.tensor([[[1.0, 2.0], [4.0, 3.0]]])).item() == pytest.approx(4 / 6)
    assert comparison.kendall(a, torch.ones_like(a)).isnan().all()
    with pytest.raises(ValueError, match="maps of one shape"):
        comparison.kendall(a, a[:, :1])


def holes(where=1):
    """Three maps in [0, 1], the one in the middle with a NaN."""
    maps = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    maps[where, 4, 5] = torch.nan
    return maps


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_nan_in_a_map_is_a_nan_of_its_number_alone(swapped, large):
    """In either map of a pair, in every measure; the other rows are as they were."""
    whole = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    torn, filled = holes(), holes().nan_to_num(0.5)
    if large:  # beyond 400 positions Kendall's tau is SciPy's
        whole, torn, filled = (activation_maps.upsample(m, 24) for m in (whole, torn, filled))
        assert torn.isnan().any((1, 2)).tolist() == [False, True, False]
    pairs = {
        name: getattr(comparison, name) for name in ("nissim", "spearman", "kendall", "topk_iou", "centroid_shift", "psnr")
    }
    for name, measure in pairs.items():
        found = measure(whole, torn) if swapped else measure(torn, whole)
        expected = measure(whole, filled) if swapped else measure(filled, whole)
        assert found.isnan().tolist() == [False, True, False], name
        assert torch.equal(found[[0, 2]], expected[[0, 2]]), name


def test_a_nan_in_a_single_map_is_a_nan_of_its_number_alone():
    torn = holes()
    mask = torch.ones(3, 9, 9, dtype=torch.bool)
    singles = {
        "ranks": comparison.ranks(torn.flatten(1))[:, 0],
        "centroid": comparison.centroid(torn)[:, 0],
        "energy": comparison.overlap(torn, mask),
        "pointing": comparison.overlap(torn, mask, "pointing"),
        "sensitivity": appearance.sensitivity(torn[:, None]).mean((1, 2)),
        "edge_agreement": appearance.edge_agreement(torn, torn[:, None]),
        "total_variation": appearance.total_variation(torn),
        "scatter": appearance.scatter(torn),
        "gini": appearance.gini(torn),
        "alignment": appearance.alignment(torn, torn),
    }
    for name, found in singles.items():
        assert found.isnan().tolist() == [False, True, False], name
    for how in ("minmax", "max"):
        scaled = activation_maps.normalise(torn, how)
        assert scaled[1].isnan().all() and torch.equal(scaled[[0, 2]], activation_maps.normalise(torn[[0, 2]], how))
        assert activation_maps.normalise(torn.nan_to_num(torch.inf), how)[1].isnan().all()
    assert not comparison.degenerate(torn).any()  # nothing is said of its contrast


def test_maps_that_were_never_scaled_are_refused():
    """Raw maps around 1e-4 would all look alike, and maps beyond [0, 1] would have SSIM's constants wrong."""
    raw = torch.rand(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)) * 1e-4
    with pytest.raises(ValueError, match=r"range over \[.*, 9.*e-05\]: all below 0\.1 they were never.*normalise first"):
        comparison.nissim(*raw)
    assert comparison.nissim(*activation_maps.normalise(raw)).min() > 0.4
    for wrong in (raw * 1e6, -raw * 1e4):
        with pytest.raises(ValueError, match=r"range over \[[^:]*\]; NISSIM compares maps in \[0, 1\]: use lib"):
            comparison.nissim(*wrong)
    faint = torch.stack([activation_maps.normalise(raw[0]), torch.zeros(4, 16, 16)])
    assert comparison.nissim(*faint).isfinite().all()  # beside a map that is scaled, an empty one is in range
    assert comparison.nissim(raw[:, :0][0], raw[:, :0][1]).shape == (0,)


def test_a_mass_is_never_negative():
    signed = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0))
    for measure in (comparison.centroid, lambda m: comparison.overlap(m, torch.ones(2, 5, 5))):
        with pytest.raises(ValueError, match=r"maps go down to -.*relu\(\) or maps\.abs\(\)"):
            measure(signed)
