"""What a data set is: images with labels, in memory or on disk, and a digest of what is in them."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lib.data.images import Crop, open_image, to_tensor

Split = Literal["train", "test"]
EAGER_BYTES = 2 * 2**30  # what is larger stays on disk and is decoded batch by batch


class ImageFiles:
    """Images on disk that are indexed like a tensor (N, C, H, W) and decoded when they are asked for."""

    def __init__(self, files: Sequence[Path], size: int, channels: int, crop: Crop = "whole") -> None:
        self.files, self.size, self.channels, self.crop = list(files), size, channels, crop

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.files), self.channels, self.size, self.size))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Tensor:
        chosen = np.atleast_1d(np.arange(len(self.files))[np.asarray(index) if torch.is_tensor(index) else index])
        given = {"size": self.size, "channels": self.channels, "crop": self.crop}
        stack = [to_tensor(open_image(self.files[i]), **given) for i in chosen]
        return stack[0] if np.ndim(index) == 0 and not isinstance(index, slice) else torch.stack(stack)

    def held(self) -> "Tensor | ImageFiles":
        """Decoded into memory where that takes at most EAGER_BYTES, else as they are."""
        return self[:] if self.shape.numel() * 4 <= EAGER_BYTES else self

    def fingerprint_bytes(self) -> bytes:
        return "\n".join(f"{f.parent.name}/{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in self.files).encode()


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images (N,C,H,W) in [0,1], labels (N,), and where known masks (N,H,W) bool, boxes (N,4) and other labels.

    `crop` is how they were cut out of larger pictures (`lib.data.images.to_tensor`).
    """

    name: str
    split: str
    images: Tensor | ImageFiles
    labels: Tensor
    classes: tuple[str, ...]
    masks: Tensor | None = None
    boxes: Tensor | None = None
    attributes: dict[str, Tensor] = dataclasses.field(default_factory=dict)
    crop: Crop = "whole"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    def like(self, picture: Image.Image) -> Tensor:
        """Another picture as the set's own are: (C, H, W) in [0, 1], cut and scaled alike."""
        return to_tensor(picture, size=self.images.shape[-1], channels=self.channels, crop=self.crop)

    def head(self, n: int | None) -> "ImageSet":
        """The first `n` images; data sets come balanced or shuffled, so that these are a fair sample."""
        if n is None or n >= len(self):
            return self
        return self.select(torch.arange(n))

    def select(self, index: Tensor) -> "ImageSet":
        if isinstance(self.images, ImageFiles):
            files = [self.images.files[i] for i in index.tolist()]
            kept: Any = ImageFiles(files, self.images.size, self.channels, self.images.crop)
        else:
            kept = self.images[index]
        part = {k: None if v is None else v[index] for k, v in (("masks", self.masks), ("boxes", self.boxes))}
        attributes = {k: v[index] for k, v in self.attributes.items()}
        return dataclasses.replace(self, images=kept, labels=self.labels[index], attributes=attributes, **part)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of every pixel and label (of names, sizes and times for images that stay on disk)."""
        content = hashlib.sha256()
        if isinstance(self.images, ImageFiles):
            content.update(self.images.fingerprint_bytes())
        else:
            content.update(self.images.contiguous().numpy().tobytes())
        content.update(self.labels.numpy().tobytes())
        content.update("\n".join(self.classes).encode())
        return content.hexdigest()[:16]

    @functools.cached_property
    def marks(self) -> str:
        """A digest of masks and boxes; empty where there are none."""
        found = [v for v in (self.masks, self.boxes) if v is not None]
        return hashlib.sha256(b"".join(v.contiguous().numpy().tobytes() for v in found)).hexdigest()[:16] if found else ""
