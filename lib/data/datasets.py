"""Data sets by name: embedded ones, torchvision's public ones, anyone's own folder of images.

`load(name, split)` gives images in [0, 1]. Names:

* `digits` (scikit-learn, 28 px), `faces` (scikit-image's LFW subset, face or not, 25 px), `shapes` and its single-cue
  and control splits `shapes-shape`, `shapes-texture`, `shapes-conflict`, `shapes-neither` (see `lib.data.shapes`): embedded;
* `mnist`, `cifar10`, … : torchvision's, downloaded into the data root on first use;
* `tiny-imagenet`: as its archive is unpacked, see `lib.data.tiny_imagenet`;
* `folder:NAME`: `<root>/NAME/{train,test}/<class>/*`; `segmented:NAME`, the same with masks of what is in the middle of each
  photograph (`lib.data.segmentation`);
* `photographs` (foolbox's and scikit-image's, with ImageNet's labels): embedded; `imagenet:NAME`, ImageNet's validation set
  or a part of it; both for evaluation only. `imagenet:divided:NAME`: the same, with a part to tune on. `restricted:NAME`: nine
  groups of its classes. See `lib.data.imagenet`.

The root is `data/datasets`, or the folder that STUDY_DATA names.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lib.data import downloads, folders, imagenet, segmentation, shapes, tiny_imagenet
from lib.data.image_sets import ImageFiles, ImageSet, Split
from lib.data.images import luma, to_tensor

FOLDERS = ("folder", "segmented", "imagenet", "restricted")  # kinds of sets that are somebody's own folder, KIND:NAME


def has_cue_conflict(name: str) -> bool:
    """Whether a data set has two cues, shape and texture, with splits of its own: NAME-shape, NAME-texture, NAME-conflict."""
    return name == "shapes"


def has_masks(name: str) -> bool:
    """Whether a data set knows where its objects are, pixel by pixel."""
    return name.partition("-")[0] == "shapes" or name.startswith("segmented:")


def has_split(name: str, split: Split) -> bool:
    """Whether a data set has a split: some are for evaluation alone. Raises ValueError as `folders.place` does."""
    base, _, option = name.partition(":")
    if base in ("folder", "segmented", "restricted"):
        return folders.has_split(option, split)
    if base == "imagenet":
        return imagenet.has_split(option, split)
    return split == "test" or base != "photographs"


def load(
    name: str, split: Split = "train", *, size: int | None = None, channels: int | None = None, limit: int | None = None
) -> ImageSet:
    """Load a data set by name; see the module's docstring for the names.

    `size` resizes to that many pixels square (shapes: draws at 32 or 64), `channels` converts to 1 (grey) or 3, `limit`
    keeps the first images. Raises ValueError for an unknown name or split, FileNotFoundError or RuntimeError for data
    that is missing, half there or damaged: what was looked for, where, and how to get it.
    """
    base, option = _named(name, split)
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}: an empty data set holds nothing to study")
    if base == "folder":
        loaded = folders.load(option, split, size, channels, limit)
    elif base == "segmented":
        loaded = _segmented(option, split, size, limit)
    elif base == "restricted":
        loaded = imagenet.restricted(option, split, size, channels)
    elif base == "imagenet":
        loaded = imagenet.validation(option, split, size, channels, limit)
    elif name == "photographs":
        loaded = imagenet.photographs(split, size, channels)
    elif name == tiny_imagenet.NAME:
        loaded = tiny_imagenet.load(split, size, channels, limit)
    elif name == "caltech256":
        loaded = _caltech256(split, size, channels, limit)
    elif base == "shapes":
        loaded = _shapes(name, option, split, size or 32, limit)
    elif name in EMBEDDED:
        loaded = EMBEDDED[name](split)
    else:
        loaded = _public(name, split, size)
    return _fit(loaded.head(limit), size, channels)


def count(name: str, split: Split, *, size: int | None = None) -> int | None:
    """How many images a data set has, with none decoded; None where only reading or downloading them tells.

    So that what is missing is said before anything begins. Raises as `load` does, but not for files that are damaged.
    """
    base, option = _named(name, split)
    if base in ("folder", "segmented"):
        return sum(map(len, folders.listed(option, split).values()))
    if base == "restricted":
        return imagenet.restricted_count(option, split)
    if base == "imagenet":
        return sum(map(len, imagenet.listed(option, split).values()))
    if base == "shapes":
        shapes.check(option or "both", split, size or 32)
        return SHAPES_COUNT[split]
    if name == tiny_imagenet.NAME:
        return tiny_imagenet.count(split)
    if name == "photographs":
        imagenet.evaluation_only(name, split)
    return len(EMBEDDED[name](split)) if name in EMBEDDED else None


def classes(name: str) -> tuple[str, ...] | None:
    """The classes of a data set's test images, with none decoded; None where only reading tells. Raises as `count` does."""
    base, option = _named(name, "test")
    if base in ("folder", "segmented"):
        return tuple(folders.listed(option, "test"))
    if base == "restricted":
        return tuple(imagenet.RESTRICTED)
    if base == "shapes":
        return _shapes_classes(option or "both")
    if name == tiny_imagenet.NAME:
        return tiny_imagenet.classes()
    return EMBEDDED[name]("test").classes if name in EMBEDDED else None


def _named(name: str, split: Split) -> tuple[str, str]:
    """The two parts of a data set's name: what kind it is, and which. Raises ValueError for an unknown one, or split."""
    if split not in ("train", "test"):
        raise ValueError(f"unknown split {split!r}; choose train or test")
    base, _, option = name.partition(":" if name.partition(":")[0] in FOLDERS else "-")
    if base in (*FOLDERS, "shapes") or name in (*EMBEDDED, *ALONE, *PUBLIC):
        return base, option
    known = [*EMBEDDED, "shapes", *(f"shapes-{c}" for c in shapes.CUES[1:]), *PUBLIC, *ALONE]
    known += [f"{kind}:NAME" for kind in FOLDERS]
    raise ValueError(f"unknown data set {name!r}; choose one of {', '.join(known)}")


def _segmented(option: str, split: Split, size: int | None, limit: int | None) -> ImageSet:
    """`folder:NAME` in colour, and where its objects are. Raises ValueError for a set too large to be held in memory."""
    data = folders.load(option, split, size, 3, limit)
    finer = folders.load(option, split, segmentation.SIDE, 3, limit).images
    if isinstance(data.images, ImageFiles) or isinstance(finer, ImageFiles):
        raise ValueError(f"segmented:{option} ({split}): {len(data)} images are more than can be held; give a limit")
    masks = segmentation.foreground(finer, data.images.shape[-1])
    return dataclasses.replace(data, name=f"segmented:{option}", masks=masks)


def _fit(data: ImageSet, size: int | None, channels: int | None) -> ImageSet:
    if isinstance(data.images, ImageFiles):
        return data
    x, masks = data.images, data.masks
    if size is not None and x.shape[-1] != size:
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
        if masks is not None:
            masks = F.interpolate(masks[:, None].float(), (size, size), mode="nearest-exact")[:, 0].bool()
    if channels is not None and x.shape[1] != channels:
        if (x.shape[1], channels) == (1, 3):
            x = x.expand(-1, 3, -1, -1).contiguous()
        elif (x.shape[1], channels) == (3, 1):
            x = luma(x)
        else:
            raise ValueError(f"channels must be 1 or 3, got {channels}")
    return dataclasses.replace(data, images=x, masks=masks)


def _stratified(labels: np.ndarray, share: float, split: Split) -> np.ndarray:
    """A fixed random part of each class, in a fixed random order: the test images are the last `1 - share`."""
    rng = np.random.default_rng(0)
    train, test = [], []
    for label in np.unique(labels):
        index = rng.permutation(np.flatnonzero(labels == label))
        cut = round(share * len(index))
        train.append(index[:cut])
        test.append(index[cut:])
    return rng.permutation(np.concatenate(train if split == "train" else test))


def _digits(split: Split) -> ImageSet:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    index = _stratified(bunch.target, 0.8, split)
    x = torch.from_numpy(bunch.images[index].astype(np.float32))[:, None] / 16
    x = F.interpolate(x, (28, 28), mode="bilinear").clamp(0, 1)
    return ImageSet("digits", split, x, torch.from_numpy(bunch.target[index]).long(), tuple("0123456789"))


def _faces(split: Split) -> ImageSet:
    from skimage.data import lfw_subset

    x = lfw_subset()  # the first 100 are faces, the rest are not
    labels = (np.arange(len(x)) >= 100).astype(np.int64)
    index = _stratified(labels, 0.7, split)
    tensor = torch.from_numpy(x[index].astype(np.float32))[:, None].clamp(0, 1)
    return ImageSet("faces", split, tensor, torch.from_numpy(labels[index]), ("face", "other"))


SHAPES_COUNT = {"train": 6000, "test": 1000}


def _shapes(name: str, option: str, split: Split, size: int, limit: int | None) -> ImageSet:
    cue = option or "both"
    n = SHAPES_COUNT[split] if limit is None else min(limit, SHAPES_COUNT[split])
    drawn = shapes.draw(n, cue=cue, split=split, size=size)
    images_, masks, boxes, labels, shape, texture = (torch.from_numpy(a) for a in drawn)
    told = {"shape": shape, "texture": texture}
    return ImageSet(name, split, images_, labels, _shapes_classes(cue), masks, boxes, told)


def _shapes_classes(cue: str) -> tuple[str, ...]:
    both = tuple(f"{s}/{t}" for s, t in zip(shapes.SHAPES, shapes.TEXTURES, strict=True))
    return {"both": both, "texture": tuple(shapes.TEXTURES)}.get(cue, tuple(shapes.SHAPES))


ALONE = ("photographs", tiny_imagenet.NAME)  # names of one data set each, read by a module of its own
EMBEDDED: dict[str, Callable[[Split], ImageSet]] = {"digits": _digits, "faces": _faces}

# torchvision class, options by split, default size (None: the images are square and of one size already)
PUBLIC: dict[str, tuple[str, dict[str, dict[str, Any]], int | None]] = {
    "mnist": ("MNIST", {"train": {"train": True}, "test": {"train": False}}, None),
    "fashionmnist": ("FashionMNIST", {"train": {"train": True}, "test": {"train": False}}, None),
    "kmnist": ("KMNIST", {"train": {"train": True}, "test": {"train": False}}, None),
    "cifar10": ("CIFAR10", {"train": {"train": True}, "test": {"train": False}}, None),
    "cifar100": ("CIFAR100", {"train": {"train": True}, "test": {"train": False}}, None),
    "svhn": ("SVHN", {"train": {"split": "train"}, "test": {"split": "test"}}, None),
    "stl10": ("STL10", {"train": {"split": "train"}, "test": {"split": "test"}}, None),
    "flowers102": ("Flowers102", {"train": {"split": "train"}, "test": {"split": "test"}}, 64),
    "pets": ("OxfordIIITPet", {"train": {"split": "trainval"}, "test": {"split": "test"}}, 64),
    "caltech256": ("Caltech256", {"train": {}, "test": {}}, 64),  # no split of its own: 80/20 of each class, drawn once
}


def _public(name: str, split: Split, size: int | None) -> ImageSet:
    kind, options, default_size = PUBLIC[name]
    arrays, labels, classes = downloads.read(name, kind, lambda source: _decode(source, size or default_size), **options[split])
    data = ImageSet(name, split, arrays, labels, classes)
    order = np.random.default_rng(0).permutation(len(labels))  # so that `head` is a fair sample
    return data.select(torch.from_numpy(order))


def _caltech256(split: Split, size: int | None, channels: int | None, limit: int | None) -> ImageSet:
    """torchvision's Caltech256, of which only the images that are asked for are decoded, or none where they stay on disk.

    Some of its images are grey; all are read in colour unless `channels` says otherwise.
    """
    kind, options, default_size = PUBLIC["caltech256"]
    found, labels, classes = downloads.read("caltech256", kind, _caltech256_files, **options[split])
    index = torch.from_numpy(_stratified(labels.numpy(), 0.8, split))[:limit]
    images = ImageFiles([found[i] for i in index.tolist()], size or default_size or 64, channels or 3)
    return ImageSet("caltech256", split, images.held(), labels[index], classes)


def _caltech256_files(source: Any) -> tuple[list[Path], Tensor, tuple[str, ...]]:
    """The files that torchvision's data set would open, one after the other, with labels and the names of classes."""
    root, categories = Path(source.root) / "256_ObjectCategories", source.categories
    named = zip(source.y, source.index, strict=True)  # folder y holds y + 1 and the image's number, as torchvision reads it
    return [root / categories[y] / f"{y + 1:03d}_{i:04d}.jpg" for y, i in named], torch.tensor(source.y), tuple(categories)


def _decode(source: Any, size: int | None) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Images (N,C,S,S), labels and class names of a torchvision data set."""
    pairs = [(to_tensor(x if isinstance(x, Image.Image) else Image.fromarray(x), size=size), y) for x, y in source]
    labels = torch.tensor([int(y) for _, y in pairs])
    names = getattr(source, "classes", None) or getattr(source, "categories", None) or range(int(labels.max()) + 1)
    channels = max(x.shape[0] for x, _ in pairs)
    return torch.stack([x.expand(channels, -1, -1) for x, _ in pairs]), labels, tuple(str(n) for n in names)
