r"""JPEG's transform as tensors, differentiable: from images to quantised coefficients and back, without rounding.

RGB in [0, 255] goes to Y, Cb, Cr (ITU-R BT.601, as JFIF has it), chroma is averaged over 2 x 2 pixels, each plane less 128
is cut into 8 x 8 blocks B, and :math:`q = (D B D^T) / Q` with the orthonormal cosine transform D and the quantisation
tables Q of the standard's annex K (libjpeg's quality 50). Without rounding this loses nothing but chroma's resolution; an
attack moves q by fractions of a quantisation step (Kang et al. 2019), and `round` gives what a codec stores.

Images of any size: they are padded at the right and below, by repeating the edge, to multiples of 16, and cut again. Those
of half precision are transformed in float32, also under `torch.autocast`: 8 bits are a quarter of a quantisation step of the
mean of a block.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from lib.data import checks
from lib.networks import hooks
from lib.system.devices import wide

_LUMA = """
16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
_CHROMA = """
17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99  47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
"""
LUMA_TABLE, CHROMA_TABLE = (torch.from_numpy(np.array(t.split(), np.float64).reshape(8, 8)) for t in (_LUMA, _CHROMA))
_TO_YCBCR = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]], dtype=torch.float64
)


class Coefficients(NamedTuple):
    """Quantised coefficients, in quantisation steps: y (N, H/8, W/8, 8, 8), cb and cr (N, H/16, W/16, 8, 8), H, W padded."""

    y: Float[Tensor, "n rows columns 8 8"]
    cb: Float[Tensor, "n rows2 columns2 8 8"]
    cr: Float[Tensor, "n rows2 columns2 8 8"]

    def flat(self) -> Float[Tensor, "n d"]:
        """As one row an image, (N, 1.5 H W)."""
        return torch.cat([t.flatten(1) for t in self], 1)

    def like(self, rows: Float[Tensor, "n d"]) -> "Coefficients":
        """`rows` (N, 1.5 H W) in these shapes."""
        parts = rows.split([t[0].numel() for t in self], 1)
        return Coefficients(*(p.reshape(t.shape) for p, t in zip(parts, self, strict=True)))

    def round(self) -> "Coefficients":
        """What a codec stores; its gradient is zero."""
        return Coefficients(*(t.round() for t in self))


def _cosines(like: Tensor) -> Tensor:
    """The orthonormal 8-point cosine transform (DCT-II), rows are frequencies."""
    k, i = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)[None]
    scale = torch.full_like(k, 0.5).where(k > 0, 8**-0.5)
    return (scale * torch.cos((2 * i + 1) * k * torch.pi / 16)).to(like)


def _blocks(plane: Tensor) -> Tensor:
    n, height, width = plane.shape
    return plane.view(n, height // 8, 8, width // 8, 8).transpose(2, 3)


def _plane(blocks: Tensor) -> Tensor:
    n, rows, columns = blocks.shape[:3]
    return blocks.transpose(2, 3).reshape(n, 8 * rows, 8 * columns)


def check_colour(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """The images, as `check_images` gives them; ValueError for images that are not in colour."""
    x = checks.check_images(x)
    if x.shape[1] != 3:
        raise ValueError(
            f"images have {x.shape[1]} channel(s); this attack is defined in colour. For a network of grey images use "
            "unforeseen.InColour(model) and x.expand(-1, 3, -1, -1)"
        )
    return x


def encode(x: Float[Tensor, "n 3 h w"]) -> Coefficients:
    """Coefficients of colour images (N, 3, H, W) in [0, 1]; differentiable. Raises ValueError for grey images."""
    x = wide(check_colour(x))
    height, width = x.shape[2:]
    with hooks.outside_autocast(x):
        # deviation: images of any size are padded; the code of Kang et al. takes multiples of 16 alone.
        padded = F.pad(x, (0, -width % 16, 0, -height % 16), mode="replicate") * 255
        y, cb, cr = torch.einsum("kc,nchw->knhw", _TO_YCBCR.to(x), padded)  # chroma without its offset of 128
        chroma = F.avg_pool2d(torch.stack([cb, cr], 1), 2)
        d = _cosines(x)
        tables = (LUMA_TABLE.to(x), CHROMA_TABLE.to(x), CHROMA_TABLE.to(x))
        planes = (y - 128, chroma[:, 0], chroma[:, 1])
        return Coefficients(*(d @ _blocks(p) @ d.T / q for p, q in zip(planes, tables, strict=True)))


def decode(c: Coefficients, size: tuple[int, int]) -> Float[Tensor, "n 3 h w"]:
    """Images (N, 3, *size) in [0, 1] from coefficients; differentiable, but where a value is cut to [0, 1]."""
    c = Coefficients(*map(wide, c))
    with hooks.outside_autocast(c.y):
        d = _cosines(c.y)
        tables = (LUMA_TABLE.to(c.y), CHROMA_TABLE.to(c.y), CHROMA_TABLE.to(c.y))
        y, cb, cr = (_plane(d.T @ (t * q) @ d) for t, q in zip(c, tables, strict=True))
        chroma = torch.stack([cb, cr], 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
        planes = torch.cat([y[:, None] + 128, chroma], 1)
        rgb = torch.einsum("ck,nkhw->nchw", torch.linalg.inv(_TO_YCBCR).to(y), planes)
        return (rgb[..., : size[0], : size[1]] / 255).clamp(0, 1)


def compressed(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Images as a codec at libjpeg's quality 50 stores them, 4:2:0, in the type of x."""
    return decode(encode(x).round(), tuple(x.shape[2:])).to(x)
