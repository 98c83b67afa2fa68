"""Tiny-ImageNet: 200 of ImageNet's classes at 64 pixels, 500 training and 50 validation images of each (Le and Yang 2015).

It is read as its archive is unpacked, `<root>/tiny-imagenet-200`:

* `train/<wnid>/images/*.JPEG` with `train/<wnid>/<wnid>_boxes.txt`, a line an image: file, left, top, right, bottom;
* `val/images/*.JPEG` with `val/val_annotations.txt`, a line an image: file, class, left, top, right, bottom.

The validation set is the test split, since the labels of the archive's own `test` are not published. Boxes are kept (the pixels
named are inside), at the size that is asked for. Images stay on disk where they would take much memory.
"""

from pathlib import Path

import numpy as np
import torch

from lib.data.image_sets import ImageFiles, ImageSet, Split
from lib.system import paths

NAME, FOLDER, SIDE = "tiny-imagenet", "tiny-imagenet-200", 64
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
Row = tuple[Path, str, tuple[int, int, int, int]]  # file, class, left, top, right, bottom


def _missing(what: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"data set '{NAME}': {what}. Unpack {URL} as {paths.datasets() / FOLDER}, with train/<wnid>/images/*.JPEG and "
        "val/images/*.JPEG beside val/val_annotations.txt, or set STUDY_DATA to the folder above."
    )


def classes() -> tuple[str, ...]:
    """The WordNet numbers of the classes, sorted. Raises FileNotFoundError where there is no folder of any."""
    train = paths.datasets() / FOLDER / "train"
    found = sorted(p.name for p in train.iterdir() if p.is_dir()) if train.is_dir() else []
    if not found:
        raise _missing(f"there is no folder of a class below {train}")
    return tuple(found)


def _lines(file: Path) -> list[list[str]]:
    if not file.exists():
        raise _missing(f"{file} is missing")
    return [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def rows(split: Split) -> list[Row]:
    """File, class and box of every image of a split, with none opened; raises FileNotFoundError for what is missing, and
    ValueError for a line that is none."""
    root, found = paths.datasets() / FOLDER, []
    try:
        if split == "train":
            for wnid in classes():
                folder = root / "train" / wnid
                for name, *box in _lines(folder / f"{wnid}_boxes.txt"):
                    left, top, right, bottom = map(int, box)
                    found.append((folder / "images" / name, wnid, (left, top, right, bottom)))
        else:
            for name, wnid, *box in _lines(root / "val" / "val_annotations.txt"):
                left, top, right, bottom = map(int, box)
                found.append((root / "val" / "images" / name, wnid, (left, top, right, bottom)))
    except ValueError as error:
        raise ValueError(
            f"data set '{NAME}' ({split}): a damaged line of its annotations ({error}); unpack it again"
        ) from error
    return found


def count(split: Split) -> int:
    """How many images a split has, with none opened. Raises as `rows` does."""
    return len(rows(split))


def load(split: Split, size: int | None, channels: int | None, limit: int | None) -> ImageSet:
    """The images of a split, in a fixed random order, with boxes as (top, left, bottom, right). Raises as `rows` does, and
    ValueError for a class that has no training folder."""
    found, names = rows(split), classes()
    number = {wnid: i for i, wnid in enumerate(names)}
    strange = [wnid for _, wnid, _ in found if wnid not in number]
    if strange:
        raise ValueError(f"data set '{NAME}' ({split}): class {strange[0]} has no folder among the {len(names)} of train")
    found = [found[i] for i in np.random.default_rng(0).permutation(len(found))[:limit]]
    size = size or SIDE
    images = ImageFiles([file for file, _, _ in found], size, channels or 3)
    box = torch.tensor([box for _, _, box in found]).view(-1, 4)
    start, end = box[:, [1, 0]] * size // SIDE, -(-(box[:, [3, 2]] + 1) * size // SIDE)
    labels = torch.tensor([number[wnid] for _, wnid, _ in found])
    return ImageSet(NAME, split, images.held(), labels, names, boxes=torch.cat([start, end], 1))
