"""Maps of half precision and maps inside autocast are measured as float32 measures them: sums over a map overflow float16."""

import pytest
import torch

from lib.measures import appearance, comparison, similarity

MASK = torch.ones(3, 100, 100)
MEASURES = {
    "ssim": lambda a, b: similarity.ssim(a, b),
    "nissim": lambda a, b: comparison.nissim(a, b),
    "gini": lambda a, b: appearance.gini(a),
    "sensitivity": lambda a, b: appearance.sensitivity(a[:, None]),
    "centroid": lambda a, b: comparison.centroid(a),
    "centroid_shift": lambda a, b: comparison.centroid_shift(a, b),
    "overlap": lambda a, b: comparison.overlap(a, MASK),
    "psnr": lambda a, b: comparison.psnr(a, b),
    "kendall": lambda a, b: comparison.kendall(a[:, :9, :9], b[:, :9, :9]),
    "kendall of many": lambda a, b: comparison.kendall(a[:, :30, :30], b[:, :30, :30]),
    "spearman": lambda a, b: comparison.spearman(a, b),
}


@pytest.fixture
def maps():
    """Bright ones, which differ little: variances are small differences of large sums."""
    generator = torch.Generator().manual_seed(0)
    a, b = (0.85 + 0.1 * torch.rand(3, 100, 100, generator=generator) for _ in range(2))
    a[:, 0, 0], b[:, 0, 0], a[:, 5, 5], b[:, 5, 5] = 0.0, 0.0, 1.0, 1.0
    return a, b


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", MEASURES)
def test_half_precision_is_measured_as_what_it_holds(maps, name, dtype):
    halves = [m.to(dtype) for m in maps]
    found, expected = MEASURES[name](*halves), MEASURES[name](*(m.float() for m in halves))
    assert found.isfinite().all()
    torch.testing.assert_close(found.float(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MEASURES)
def test_autocast_changes_no_measure(maps, name):
    expected = MEASURES[name](*maps)
    with torch.autocast("cpu", torch.bfloat16):
        found = MEASURES[name](*maps)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_kendall_takes_maps_that_are_differentiated():
    a, b = (torch.rand(2, 25, 25, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    assert torch.equal(comparison.kendall(a.requires_grad_(), b), comparison.kendall(a.detach(), b))
