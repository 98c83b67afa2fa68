r"""Structural similarity of batches of maps, by scikit-image's definition.

.. math:: SSIM = \frac{(2\mu_a\mu_b + c_1)(2\sigma_{ab} + c_2)}{(\mu_a^2+\mu_b^2+c_1)(\sigma_a^2+\sigma_b^2+c_2)}

averaged over the windows that lie wholly inside the map, with c1 = (0.01 L)^2, c2 = (0.03 L)^2 (Wang et al. 2004).

A separable window is two banded matrix products, and SSIM needs only four filtered fields, because the variances enter
as their sum; that is what makes the batch faster than a loop of the library's.
"""

import functools
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lib.system import devices

Window = Literal["uniform", "gaussian", "global"]
CHUNK_ELEMENTS = 2**18  # per field: what is worked on at once fits the cache, whatever the number of maps


@functools.lru_cache(maxsize=64)
def _kernel(window: Window, size: int, sigma: float) -> tuple[float, ...]:
    if window == "gaussian":
        t = np.arange(size) - size // 2
        weights = np.exp(-(t**2) / (2 * sigma**2))
        return tuple(weights / weights.sum())
    return (1 / size,) * size


@functools.lru_cache(maxsize=64)
def _band(window: Window, size: int, sigma: float, length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(length, length - size + 1): column j holds the window that starts at j."""
    kernel = torch.tensor(_kernel(window, size, sigma), dtype=torch.float64)
    band = torch.zeros(length, length - size + 1, dtype=torch.float64)
    for j in range(length - size + 1):
        band[j : j + size, j] = kernel
    return band.to(device=device, dtype=dtype)


def ssim(
    a: Float[Tensor, "n h w"],
    b: Float[Tensor, "n h w"],
    *,
    window: Window = "uniform",
    size: int | None = None,
    sigma: float = 1.5,
    data_range: float = 1.0,
    sample_covariance: bool = True,
) -> Float[Tensor, " n"]:
    """SSIM of pairs of maps (N, H, W) -> (N,), in [-1, 1]; 1 for identical maps.

    `uniform`: a square window, 7 wide unless `size` says otherwise (scikit-image's default). `gaussian`: weights of width
    `sigma`, cut off at 3.5 sigma, 11 wide for 1.5 (scikit-image's gaussian_weights=True). `global`: one window, the whole
    map. `sample_covariance` divides by (n - 1), as scikit-image does by default; Wang et al. divide by n.
    Differentiable in both maps.

    Raises ValueError for shapes that differ, a window that does not fit, or a range that is not positive.
    """
    if a.shape != b.shape or a.dim() != 3:
        raise ValueError(f"two batches of maps (N, H, W) of one shape are compared; got {tuple(a.shape)}, {tuple(b.shape)}")
    if not data_range > 0:
        raise ValueError(f"data_range must be positive, got {data_range}; it is 1 for maps scaled to [0, 1]")
    height, width = a.shape[1:]
    if window == "global":
        sizes = (height, width)
    elif window in ("uniform", "gaussian"):
        # deviation: a square window and n - 1 unless asked otherwise; Wang et al. weigh 11 x 11 by a Gaussian and divide by n.
        default = 7 if window == "uniform" else 2 * int(3.5 * sigma + 0.5) + 1
        sizes = (size or default,) * 2
    else:
        raise ValueError(f"unknown window {window!r}; choose uniform, gaussian or global")
    if min(sizes) < 1 or sizes[0] > height or sizes[1] > width or (window != "global" and sizes[0] % 2 == 0):
        raise ValueError(
            f"a window of {sizes[0]} does not fit maps of {height} x {width}; it must be odd and no larger than the map "
            "(on a small native grid use size=3 or window='global')"
        )
    a, b = devices.wide(a), devices.wide(b)
    kind: Window = "uniform" if window == "global" else window
    rows = _band(kind, sizes[0], sigma, height, a.dtype, a.device)
    columns = _band(kind, sizes[1], sigma, width, a.dtype, a.device)
    count = sizes[0] * sizes[1]
    norm = count / (count - 1) if sample_covariance and count > 1 else 1.0
    chunk = max(1, CHUNK_ELEMENTS // (height * width))
    if len(a) == 0:
        return a.new_zeros(0)
    parts = [
        _chunk(u / data_range, v / data_range, rows, columns, norm) for u, v in zip(a.split(chunk), b.split(chunk), strict=True)
    ]
    return torch.cat(parts)


def _chunk(a: Tensor, b: Tensor, rows: Tensor, columns: Tensor, norm: float) -> Tensor:
    """SSIM of some pairs. In the precision of the maps inside autocast too: variances are small differences of large sums."""
    with torch.autocast(a.device.type, enabled=False):
        return _similarity(a, b, rows, columns, norm)


def _similarity(a: Tensor, b: Tensor, rows: Tensor, columns: Tensor, norm: float) -> Tensor:
    fields = torch.stack([a, b, a * a + b * b, a * b])
    mean_a, mean_b, squares, product = rows.T @ (fields @ columns)
    mean_ab = mean_a * mean_b
    mean_squares = mean_a * mean_a + mean_b * mean_b
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mean_ab + c1) * (2 * norm * (product - mean_ab) + c2)
    denominator = (mean_squares + c1) * (norm * (squares - mean_squares) + c2)
    return (numerator / denominator).mean((1, 2))
