"""Images with objects of two classes: 2 x 2 mosaics of a data set's own images, the active fooling's set (Heo et al. 2019).

Two images of one class stand on one diagonal, two of the other on the other; which diagonal is drawn at random. The paper's
set is not published and how it was made is recalled rather than known.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from lib.data.datasets import ImageSet

Tile = Literal["native", "half"]


class Mosaics(NamedTuple):
    """images (n, C, S, S) in [0, 1]; where the first class stands, (n, S, S) bool (the second stands elsewhere)."""

    images: Float[Tensor, "n c h w"]
    first: Bool[Tensor, "n h w"]


def most(data: ImageSet, pair: tuple[int, int]) -> int:
    """How many mosaics of the classes `pair` there are without an image in two of them."""
    return min(int((data.labels == c).sum()) // 2 for c in pair)


def mosaics(
    data: ImageSet, pair: tuple[int, int], n: int, *, tile: Tile = "native", seed: int = 0, again: bool = False
) -> Mosaics:
    """`n` mosaics of the classes `pair`, drawn from `data` without replacement: no image is in two of them.

    With `again` all images are dealt out once before any is dealt again, so that `n` may be any number: for training, where
    mosaics need not be independent.

    `native` tiles keep their size, so that a mosaic is twice as wide as an image: for networks that end in average pooling,
    which take any size. `half` tiles are shrunk (antialiased), and mosaics have the size of an image.

    Raises ValueError for a class that the data set does not have or shows fewer than two images of, for one class named
    twice, n < 1, and for more mosaics than there are images for.
    """
    if n < 1 or pair[0] == pair[1]:
        raise ValueError(f"n = {n} mosaics of the classes {pair}: at least one, of two different classes")
    size = data.images.shape[-1]
    if tile not in ("native", "half") or (tile == "half" and size % 2):
        raise ValueError(f"tile {tile!r} of images of {size} pixels; choose native, or half where the size is even")
    rng = np.random.default_rng(seed)
    tiles = []
    for c in pair:
        if not 0 <= c < len(data.classes):
            raise ValueError(f"class {c} is none of the {len(data.classes)} of {data.name}: 0..{len(data.classes) - 1}")
        found = (data.labels == c).nonzero()[:, 0].numpy()
        if len(found) < 2:
            shows = f"{len(found) or 'no'} image{'' if len(found) else 's'}"
            raise ValueError(
                f"{data.name} ({data.split}) shows {shows} of class {data.classes[c]!r}, 2 are needed; choose another pair"
            )
        deal = len(found) // 2  # mosaics in which every image is once
        if n > deal and not again:
            raise ValueError(
                f"{n} mosaics need {2 * n} images of class {data.classes[c]!r}, and {data.name} ({data.split}) has "
                f"{len(found)}: ask for {deal} at most, or let images appear again"
            )
        dealt = np.concatenate([rng.permutation(found)[: 2 * deal] for _ in range(-(-n // deal))])
        images = data.images[torch.from_numpy(dealt[: 2 * n])]
        if tile == "half":
            images = F.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True).clamp(0, 1)
        tiles.append(images.unflatten(0, (n, 2)))
    a, b = tiles
    # deviation: two images of each class on the diagonals; how Heo et al. made their 1,300 images is not published.
    falling = torch.from_numpy(rng.random(n) < 0.5)  # the first class from upper left to lower right
    either = falling[:, None, None, None]
    corners = [
        torch.where(either, u, v) for u, v in ((a[:, 0], b[:, 0]), (b[:, 1], a[:, 0]), (b[:, 0], a[:, 1]), (a[:, 1], b[:, 1]))
    ]
    images = torch.cat([torch.cat(corners[:2], 3), torch.cat(corners[2:], 3)], 2)
    size = images.shape[-1]
    low = torch.arange(size) < size // 2
    return Mosaics(images, (low[:, None] == low[None, :]) == falling[:, None, None])
