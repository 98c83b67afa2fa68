"""Anyone's own folder of images as a data set: `<root>/NAME/{train,test}/<class>/*`."""

import numpy as np
import torch

from lib.data.image_sets import ImageFiles, ImageSet, Split
from lib.data.images import SUFFIXES, open_image
from lib.system import paths


def load(name: str, split: Split, size: int | None, channels: int | None, limit: int | None) -> ImageSet:
    """The images of one split of `folder:NAME`, in a fixed random order.

    Raises FileNotFoundError for a folder or a class that is missing or empty: what was looked for, where, and how to lay it
    out; ValueError as `lib.data.images.open_image`.
    """
    root = paths.datasets() / name
    expected = f"{root}/{{train,test}}/<class>/*{{{','.join(s[1:] for s in SUFFIXES[:3])},…}}"
    if not name or not (root / split).is_dir():
        raise FileNotFoundError(
            f"data set 'folder:{name}' ({split}): there is no folder {root / split}. Lay your images out as {expected}, or "
            "set STUDY_DATA to the folder above."
        )
    classes = sorted({p.name for s in ("train", "test") if (root / s).is_dir() for p in (root / s).iterdir() if p.is_dir()})
    listed = {c: sorted(f for f in (root / split / c).glob("*") if f.suffix.lower() in SUFFIXES) for c in classes}
    empty = [c for c, files in listed.items() if not files]
    if len(classes) < 2 or empty:
        found = f"no images for class {empty[0]!r}" if empty else f"{len(classes)} class folder(s)"
        raise FileNotFoundError(
            f"data set 'folder:{name}' ({split}): {found} below {root / split}. Expected two classes or more, each with "
            f"images: {expected}. A copy that was cut short looks like this too: copy it again."
        )
    pairs = [(f, i) for i, c in enumerate(classes) for f in listed[c]]
    order = np.random.default_rng(0).permutation(len(pairs))[:limit]
    files, labels = [pairs[i][0] for i in order], torch.tensor([pairs[i][1] for i in order])
    first = open_image(files[0])
    stored = ImageFiles(files, size or min(first.size), channels or (1 if first.mode == "L" else 3))
    return ImageSet(f"folder:{name}", split, stored.held(), labels, tuple(classes))
