r"""Test images with less texture, or with texture alone: saturation, patch shuffle, Fourier amplitude swap.

Zhang and Zhu 2019 transform images so that one cue is lost and the other kept: saturation destroys texture and keeps
contours, shuffling patches destroys contours and keeps texture. All functions are pure: batches (N, C, H, W) in [0, 1] go
in and come out. Stylisation by AdaIN stands in `lib.networks.style`; the texture swap of `shapes` is its split
`shapes-conflict`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lib.data import checks


def saturation(x: Float[Tensor, "n c h w"], p: float) -> Float[Tensor, "n c h w"]:
    r""":math:`v' = \frac12\,\mathrm{sign}(2v - 1)\,|2v - 1|^{2/p} + \frac12`, of every pixel and channel.

    p = 2 is the identity; p to infinity drives every value to 0 or 1 (exactly 1/2 stays); p to 0 leaves grey 1/2.
    Raises ValueError for p <= 0 and for images outside [0, 1].
    """
    x = checks.check_images(x)
    if not 0 < p < float("inf"):
        raise ValueError(f"saturation level p is {p}; it must be above 0 and finite (2 changes nothing, 1024 binarises)")
    centred = 2 * x - 1
    return (centred.sign() * centred.abs() ** (2 / p) / 2 + 0.5).clamp(0, 1)


def permutations(keys: Sequence[int] | Int[Tensor, " n"], k: int, seed: int = 0) -> Int[Tensor, "n patches"]:
    """A permutation of k * k patches for each key, (N, k * k), uniform over all of them, the identity included.

    It depends on (key, k, seed) alone, so every model sees an image shuffled in the same way.
    """
    rows = [_generator(seed, int(key), k) for key in keys]
    return torch.stack([torch.randperm(k * k, generator=g) for g in rows])


def _generator(seed: int, key: int, k: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 1_000_003 + key * 8191 + k * 131) % 2**63)


def patch_shuffle(
    x: Float[Tensor, "n c h w"], k: int, keys: Sequence[int] | Int[Tensor, " n"], *, seed: int = 0
) -> Float[Tensor, "n c h w"]:
    """Cut each image into k x k equal patches and permute them; `keys` (N,) name the images (`permutations`).

    k = 1 changes nothing. Raises ValueError where k does not divide the height and the width, or k < 1.
    """
    x = checks.check_images(x)
    n, c, height, width = x.shape
    if k < 1 or height % k or width % k:
        fit = [d for d in range(1, min(height, width) + 1) if height % d == 0 and width % d == 0]
        raise ValueError(
            f"{height} x {width} pixels cannot be cut into {k} x {k} equal patches; k can be {', '.join(map(str, fit))}"
        )
    if len(keys) != n:
        raise ValueError(f"{n} images but {len(keys)} keys; a key names each image")
    # deviation: a permutation belongs to the image, so all networks see one; the code of Zhang and Zhu draws anew in every run.
    order = permutations(keys, k, seed).to(x.device)
    h, w = height // k, width // k
    patches = x.view(n, c, k, h, k, w).permute(0, 2, 4, 1, 3, 5).reshape(n, k * k, c, h, w)
    patches = patches[torch.arange(n, device=x.device)[:, None], order]
    return patches.view(n, k, k, c, h, w).permute(0, 3, 1, 4, 2, 5).reshape(n, c, height, width)


def amplitude_swap(x: Float[Tensor, "n c h w"], other: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """The phase of `x` with the Fourier amplitude of `other`, channel by channel, clipped to [0, 1].

    Phase carries where edges are, amplitude how much there is of each frequency: a crude change of texture. With
    `other` = x nothing changes. Raises ValueError for images of different shapes.
    """
    x = checks.check_images(x)
    other = checks.check_images(other, "the images that give the amplitude")
    if x.shape != other.shape:
        raise ValueError(f"images of one shape are mixed; got {tuple(x.shape)} and {tuple(other.shape)}")
    phase, amplitude = torch.fft.rfft2(x).angle(), torch.fft.rfft2(other).abs()
    return torch.fft.irfft2(torch.polar(amplitude, phase), s=x.shape[-2:]).clamp(0, 1)
