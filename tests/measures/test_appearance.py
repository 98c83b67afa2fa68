"""Measures of saliency maps by hand, against scipy, and on maps without contrast."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch

from lib.measures import appearance


def test_sensitivity_is_the_papers_scaling():
    values = torch.randn(3, 3, 20, 20, dtype=torch.float64)
    magnitude = values.abs().sum(1).numpy()
    for found, one in zip(appearance.sensitivity(values).numpy(), magnitude, strict=True):
        np.testing.assert_allclose(found, np.clip(one / np.percentile(one, 99), 0, 1), atol=1e-12)


def test_sensitivity_without_contrast_is_no_nan():
    assert appearance.sensitivity(torch.zeros(2, 3, 8, 8)).abs().max() == 0
    single = torch.zeros(1, 3, 20, 20)
    single[0, 0, 3, 4] = -0.2  # fewer than one pixel in a hundred
    found = appearance.sensitivity(single)
    assert found[0, 3, 4] == 1 and found.sum() == 1
    with pytest.raises(ValueError, match="percentile"):
        appearance.sensitivity(single, 0)


def test_edges_against_scipy_and_by_hand():
    x = torch.rand(2, 3, 9, 12, dtype=torch.float64)
    for found, image in zip(appearance.edges(x), x, strict=True):
        grey = image.mean(0).numpy()
        expected = np.hypot(*(scipy.ndimage.sobel(grey, axis=a, mode="mirror") / 8 for a in (0, 1)))
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)
    step = torch.zeros(1, 1, 4, 6)
    step[..., 3:] = 1.0
    assert appearance.edges(step)[0].tolist() == [[0, 0, 0.5, 0.5, 0, 0]] * 4
    assert appearance.edges(torch.full((1, 1, 4, 4), 0.7)).abs().max() < 1e-7


def test_edge_agreement_is_a_rank_correlation():
    x, maps = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.rand(2, 8, 8, dtype=torch.float64)
    expected = [scipy.stats.spearmanr(m.flatten(), e.flatten())[0] for m, e in zip(maps, appearance.edges(x), strict=True)]
    np.testing.assert_allclose(appearance.edge_agreement(maps, x).numpy(), expected, atol=1e-12)
    torch.testing.assert_close(appearance.edge_agreement(appearance.edges(x) ** 3, x), torch.ones(2, dtype=torch.float64))
    assert appearance.edge_agreement(torch.ones(1, 8, 8), torch.rand(1, 3, 8, 8)).isnan().all()
    assert appearance.edge_agreement(torch.rand(1, 8, 8), torch.full((1, 3, 8, 8), 0.5)).isnan().all()


def test_total_variation_literals():
    chess = (torch.arange(4)[:, None] + torch.arange(4)) % 2
    ramp = torch.arange(4.0).expand(4, 4) / 3
    maps = torch.stack([chess.float(), torch.full((4, 4), 0.3), ramp])
    found = appearance.total_variation(maps)
    torch.testing.assert_close(found[[0, 2]], torch.tensor([2.0, 1 / 3]))
    assert found[1].isnan()  # nothing is shown there, which is not smooth


def test_scatter_is_one_for_noise_and_small_for_smooth_maps():
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(8, 32, 32, generator=generator)
    ramp = (torch.arange(32)[:, None] + torch.arange(32)).float().expand(8, 32, 32) / 62
    assert abs(appearance.scatter(noise).mean() - 1) < 0.03 and appearance.scatter(ramp).max() < 0.15
    # sparser noise has less total variation, and the same scatter
    sparse = noise * (noise > 0.9)
    assert appearance.total_variation(sparse).mean() < 0.6 * appearance.total_variation(noise).mean()
    assert abs(appearance.scatter(sparse).mean() - 1) < 0.1
    assert appearance.scatter(torch.zeros(1, 8, 8)).isnan().all()


def test_gini_literals():
    maps = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 4.0]], [[1.0, -2.0], [3.0, 4.0]]])
    torch.testing.assert_close(appearance.gini(maps), torch.tensor([0.0, 0.75, 0.25]))
    assert appearance.gini(torch.zeros(1, 2, 2)).isnan().all()
    m = torch.rand(1, 5, 5, dtype=torch.float64)
    v = m.flatten().numpy()
    expected = np.abs(v[:, None] - v[None]).sum() / (2 * len(v) ** 2 * v.mean())  # half the relative mean difference
    np.testing.assert_allclose(appearance.gini(m).item(), expected)
    torch.testing.assert_close(appearance.gini(7 * m), appearance.gini(m))


def test_alignment_by_hand():
    x, g = torch.rand(3, 3, 4, 4), torch.randn(3, 3, 4, 4)
    expected = [abs((a * b).sum().item()) / b.norm().item() for a, b in zip(x, g, strict=True)]
    np.testing.assert_allclose(appearance.alignment(x, g).numpy(), expected, rtol=1e-5)
    torch.testing.assert_close(appearance.alignment(x, -3 * x), x.flatten(1).norm(dim=1))  # as large as can be
    assert appearance.alignment(x[:1], torch.zeros(1, 3, 4, 4)).isnan().all()
