"""Images that lend their style: crops of real photographs with texture, embedded, or a folder of paintings.

`embedded` cuts crops from the colour photographs that come with scikit-image and scikit-learn. None of them gives a texture
to `shapes`, so a style tells nothing about a class there. Training and test crops come from disjoint parts of each
photograph (the left 60 % and the rest). `folder:NAME` takes every image below `<data root>/NAME`, at any depth; a fixed
random fifth of the files is the test part.
"""

import functools
from pathlib import Path
from typing import Literal

import numpy as np
import skimage
import torch
from PIL import Image
from torch import Tensor

from lib.data import folders, images
from lib.data.image_sets import ImageFiles
from lib.system import files, paths
from lib.system.progress import say

VERSION = 1  # raise it when a change here changes a crop
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "ihc.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg")
PAINTED = ("china.jpg", "flower.jpg")  # scikit-learn's
COUNT = {"train": 1800, "test": 450}
TRAIN_SHARE = 0.6
SCALE = (1.5, 4.0)  # a crop is this many times larger than the image it becomes
TRIES = 4  # the crop with most fine structure of so many: flat sky has no style

Split = Literal["train", "test"]


def _photographs() -> dict[str, np.ndarray]:
    import sklearn.datasets

    folder = Path(skimage.__file__).parent / "data"
    found = {name: folder / name for name in PHOTOGRAPHS}
    found |= {name: Path(sklearn.datasets.__file__).parent / "images" / name for name in PAINTED}
    return {name: np.asarray(images.open_image(path).convert("RGB")) for name, path in found.items()}


def _detail(crop: np.ndarray) -> float:
    """How much a crop differs from one pixel to the next."""
    grey = crop.mean(2, dtype=np.float32)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


def _crop(photo: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    height, width = photo.shape[:2]
    best, most = photo[:size, :size], -1.0
    for _ in range(TRIES):
        side = int(min(height, width, rng.uniform(*SCALE) * size))
        top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
        cut = Image.fromarray(photo[top : top + side, left : left + side])
        crop = np.asarray(cut.resize((size, size), Image.Resampling.BOX), np.uint8)
        if _detail(crop) > most:
            best, most = crop, _detail(crop)
    return best


@functools.lru_cache(maxsize=4)
def _embedded(split: Split, size: int) -> Tensor:
    photographs = list(_photographs().values())
    found = np.empty((COUNT[split], size, size, 3), np.uint8)
    for i in range(len(found)):
        photo = photographs[i % len(photographs)]
        cut = int(TRAIN_SHARE * photo.shape[1])
        part = photo[:, :cut] if split == "train" else photo[:, cut:]
        found[i] = _crop(part, size, np.random.default_rng((VERSION, split == "test", size, i)))
    return torch.from_numpy(found).permute(0, 3, 1, 2).float() / 255


MIN_SIDE = 32  # pixels; smaller files have no texture to lend
MIN_FILES = 5


def _files(source: str) -> tuple[Path, ...]:
    """The usable image files of a folder of styles, in a fixed random order.

    Raises FileNotFoundError that says what was looked for, and where.
    """
    name = source.removeprefix("folder:")
    root = folders.place(name)
    found = _usable(root) if name and root.is_dir() else ()
    if len(found) < MIN_FILES:
        raise FileNotFoundError(
            f"styles {source!r}: found {len(found)} images below {root}, at least {MIN_FILES} are needed (a fifth of them is "
            "kept for testing). Put images there, in folders of any depth, or use styles='embedded'."
        )
    return found


@functools.lru_cache(maxsize=4)
def _usable(root: Path) -> tuple[Path, ...]:
    """Files whose header is an image's, large enough; what is dropped is said."""
    listed = sorted(folders.images_below(root)[0])
    found = [f for f in listed if _side(f) >= MIN_SIDE]
    if len(found) < len(listed):
        say(f"styles below {root}: {len(listed) - len(found)} of {len(listed)} files are no images or under {MIN_SIDE} pixels")
    return tuple(found[i] for i in np.random.default_rng(0).permutation(len(found)))


def _side(path: Path) -> int:
    """The shorter side from the file's header, 0 where it has none."""
    seen = images.header(path)
    return min(seen[1]) if seen else 0


def check(source: str) -> None:
    """ValueError for a source that is none or leads out of the root, FileNotFoundError for a folder with too few images."""
    if source.startswith("folder:"):
        _files(source)
    elif source != "embedded":
        raise ValueError(f"unknown styles {source!r}; choose embedded or folder:NAME")


def fingerprint(source: str) -> str:
    """What the styles are made of: paths, sizes and times of files, or the version of the embedded crops."""
    check(source)
    if source == "embedded":
        return f"embedded {VERSION}"
    root = paths.datasets()
    return files.digest_of([(str(f.relative_to(root)), f.stat().st_size, f.stat().st_mtime_ns) for f in _files(source)])


def load(source: str, split: Split, size: int) -> Tensor | ImageFiles:
    """Styles (M, 3, size, size) in [0, 1], to be indexed like a tensor. Raises as `check` does."""
    check(source)
    return _embedded(split, size) if source == "embedded" else _folder(_files(source), split, size)


def held_out(source: str) -> int:
    """How many styles the test part has. Raises as `check` does."""
    return COUNT["test"] if source == "embedded" else _held_out(_files(source))


def _held_out(found: tuple[Path, ...]) -> int:
    return -(-len(found) // 5)


@functools.lru_cache(maxsize=4)
def _folder(found: tuple[Path, ...], split: Split, size: int) -> Tensor | ImageFiles:
    cut = _held_out(found)
    stored = ImageFiles(found[cut:] if split == "train" else found[:cut], size, 3)
    return stored.held()
