import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from lib.measures.similarity import CHUNK_ELEMENTS, ssim

GENERATOR = torch.Generator().manual_seed(0)
A, B = (torch.rand(5, 17, 23, dtype=torch.float64, generator=GENERATOR) for _ in range(2))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"size": 3}, {"win_size": 3}),
        ({"sample_covariance": False}, {"use_sample_covariance": False}),
        ({"window": "gaussian"}, {"gaussian_weights": True, "sigma": 1.5}),
        (
            {"window": "gaussian", "sigma": 1.5, "sample_covariance": False},
            {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
        ),
        ({"window": "gaussian", "sigma": 0.8}, {"gaussian_weights": True, "sigma": 0.8}),
    ],
)
def test_equals_scikit_image(ours, theirs):
    expected = [structural_similarity(a, b, data_range=1.0, **theirs) for a, b in zip(A.numpy(), B.numpy(), strict=True)]
    assert np.allclose(ssim(A, B, **ours), expected, rtol=0, atol=1e-10)
    assert np.allclose(ssim(A.float(), B.float(), **ours), expected, rtol=0, atol=1e-5)  # float32, as it is used


def test_global_window_by_the_formula():
    for a, b, found in zip(A, B, ssim(A, B, window="global", sample_covariance=False), strict=True):
        ma, mb = a.mean(), b.mean()
        cov = ((a - ma) * (b - mb)).mean()
        va, vb = ((a - ma) ** 2).mean(), ((b - mb) ** 2).mean()
        c1, c2 = 1e-4, 9e-4
        expected = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
        assert torch.isclose(found, expected, rtol=1e-10)


def test_data_range_is_a_unit():
    assert torch.allclose(ssim(A * 255, B * 255, data_range=255.0), ssim(A, B), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(7, 20), width=st.integers(7, 20), seed=st.integers(0, 99), scale=st.sampled_from([0.0, 1e-6, 1.0]))
def test_bounds_symmetry_identity(height, width, seed, scale):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(2, height, width, generator=generator) * scale for _ in range(2))
    s = ssim(a, b)
    assert (s <= 1 + 1e-6).all() and (s >= -1 - 1e-6).all()
    assert torch.allclose(s, ssim(b, a), atol=1e-6)
    assert torch.allclose(ssim(a, a), torch.ones(2))


def test_chunks_do_not_change_the_result():
    n = CHUNK_ELEMENTS // (32 * 32) + 3  # more than one chunk, and a rest
    a, b = torch.rand(n, 32, 32), torch.rand(n, 32, 32)
    assert torch.allclose(ssim(a, b)[-5:], ssim(a[-5:], b[-5:]), atol=1e-6)


def test_differentiable():
    a, b = (m[:2, :9, :9].clone().requires_grad_() for m in (A, B))
    assert torch.autograd.gradcheck(lambda u, v: ssim(u, v), (a, b))


def test_no_maps_no_numbers():
    assert ssim(A[:0], B[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        (A, B[:2], {}, "one shape"),
        (A[0], B[0], {}, r"batches of maps \(N, H, W\)"),
        (A[:, :4, :4], B[:, :4, :4], {}, "use size=3 or window='global'"),
        (A, B, {"size": 4}, "must be odd"),
        (A, B, {"window": "box"}, "unknown window"),
        (A, B, {"data_range": 0.0}, "must be positive"),
    ],
)
def test_bad_input_says_what_to_do(a, b, options, message):
    with pytest.raises(ValueError, match=message):
        ssim(a, b, **options)
