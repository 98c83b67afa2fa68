import itertools

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics import road as peer

from lib.sanity import imputation


def images(n, c, h, w, seed=0):
    return torch.rand(n, c, h, w, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def holes(n, h, w, share, seed=1):
    return torch.rand(n, h, w, generator=torch.Generator().manual_seed(seed)) < share


def slow(x, missing):
    """One equation a pixel, known ones included, solved as a dense system."""
    channels, height, width = x.shape
    system, right = np.zeros((height * width,) * 2), np.zeros((height * width, channels))
    for r, c in itertools.product(range(height), range(width)):
        i = r * width + c
        if not missing[r, c]:
            system[i, i], right[i] = 1, x[:, r, c]
            continue
        for a, b in itertools.product((r - 1, r, r + 1), (c - 1, c, c + 1)):
            if (a, b) != (r, c) and 0 <= a < height and 0 <= b < width:
                weight = 1 / 6 if a == r or b == c else 1 / 12
                system[i, i] += weight
                system[i, a * width + b] -= weight
    return torch.from_numpy(np.linalg.solve(system, right).T.reshape(channels, height, width))


@pytest.mark.parametrize(("size", "share"), [((6, 7), 0.5), ((9, 4), 0.9), ((1, 8), 0.5), ((5, 5), 0.0), ((2, 2), 0.4)])
def test_it_is_the_slow_twin(size, share):
    x, missing = images(4, 3, *size), holes(4, *size, share)
    missing[:, 0, 0] = False
    wanted = torch.stack([slow(a, m) for a, m in zip(x, missing, strict=True)])
    found = imputation.imputed(x, missing)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)
    assert torch.equal(found.permute(0, 2, 3, 1)[~missing], x.permute(0, 2, 3, 1)[~missing])


@pytest.mark.filterwarnings("ignore")  # the peer's own
@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
def test_it_is_that_of_grad_cam_and_so_of_the_authors(share):
    x, missing = images(3, 3, 12, 10), holes(3, 12, 10, share)
    for a, m, found in zip(x, missing, imputation.imputed(x, missing), strict=True):
        wanted = peer.NoisyLinearImputer(noise=0)(a.float(), (~m).float())
        assert torch.allclose(found.float(), wanted, atol=1e-5)


def test_by_hand():
    x = torch.arange(9.0, dtype=torch.float64).view(1, 1, 3, 3) ** 2 / 64
    centre = torch.zeros(1, 3, 3, dtype=torch.bool)
    centre[0, 1, 1] = True
    beside, across = (1 + 9 + 25 + 49) / 64, (0 + 4 + 36 + 64) / 64
    assert imputation.imputed(x, centre)[0, 0, 1, 1].item() == pytest.approx(beside / 6 + across / 12)
    corner = torch.zeros(1, 3, 3, dtype=torch.bool)
    corner[0, 0, 0] = True  # 1, 9 beside it and 16 across: weights 2 : 2 : 1
    assert imputation.imputed(x, corner)[0, 0, 0, 0].item() == pytest.approx((2 * 1 + 2 * 9 + 16) / 5 / 64)
    row = torch.tensor([[[[0.0, 0.9, 0.9, 0.6]]]], dtype=torch.float64)
    gone = torch.tensor([[[False, True, True, False]]])
    assert imputation.imputed(row, gone).flatten().tolist() == pytest.approx([0, 0.2, 0.4, 0.6])


def test_a_ramp_is_filled_in_as_it_was_and_nothing_leaves_the_known_range():
    across = torch.linspace(0, 1, 10, dtype=torch.float64)
    ramp = ((across[:, None] + 2 * across) / 3)[None, None]
    hole = torch.zeros(1, 10, 10, dtype=torch.bool)
    hole[0, 2:8, 1:9] = True
    assert torch.allclose(imputation.imputed(ramp, hole), ramp, atol=1e-12)
    x, missing = images(5, 2, 9, 9), holes(5, 9, 9, 0.8)
    known = x.masked_fill(missing[:, None], torch.nan)
    for found, k in zip(imputation.imputed(x, missing), known, strict=True):
        for channel, values in zip(found, k, strict=True):
            seen = values[values.isfinite()]
            assert seen.min() - 1e-12 <= channel.min() and channel.max() <= seen.max() + 1e-12


def test_what_is_missing_is_not_looked_at_and_a_batch_is_a_loop():
    x, missing = images(4, 3, 8, 8), holes(4, 8, 8, 0.5)
    found = imputation.imputed(x, missing)
    other = torch.where(missing[:, None], 1 - x, x)
    assert torch.equal(imputation.imputed(other, missing), found)
    alone = torch.cat([imputation.imputed(x[i : i + 1], missing[i : i + 1]) for i in range(4)])
    assert torch.equal(alone, found)
    assert imputation.imputed(x.float(), missing).dtype == torch.float32
    assert torch.allclose(imputation.imputed(x.float(), missing).double(), found, atol=1e-6)


def test_what_cannot_be_filled_in_is_refused():
    x, missing = images(2, 3, 4, 4), holes(2, 4, 4, 0.5)
    with pytest.raises(ValueError, match="every pixel is missing"):
        imputation.imputed(x, torch.ones_like(missing))
    with pytest.raises(ValueError, match=r"expected bool \(2, 4, 4\)"):
        imputation.imputed(x, missing.float())
    with pytest.raises(ValueError, match=r"expected bool \(2, 4, 4\)"):
        imputation.imputed(x, missing[:1])
