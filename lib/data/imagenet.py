"""ImageNet's classes, and sets of photographs that are labelled with them: for evaluation, with no training split of their own.

* `photographs`: twenty that come with the package foolbox, its class in each name, and two of scikit-image's;
* `imagenet:NAME`: a folder laid out as ImageNet's validation set, `<root>/NAME/{val,test}/<wnid>/*`; all classes or some;
* `imagenet:divided:NAME`: the same folder in two parts that share no photograph, seven tenths to tune a published network on
  (`train`) and the rest held out (`test`): training on an evaluation set is asked for by this name alone;
* `restricted:NAME`: nine groups of ImageNet's classes (Tsipras et al. 2019), from a folder of all 1,000, either split.
"""

import collections
import dataclasses
import functools
import importlib.util
import itertools
import re
from pathlib import Path

import numpy as np
import torch

from lib.data import folders
from lib.data.image_sets import ImageFiles, ImageSet, Split
from lib.data.images import Crop
from lib.system import paths
from lib.system.progress import say_once

SIZE = 224  # pixels, where none is asked for
WNID = re.compile(r"n\d{8}")
DIVIDED = "divided:"  # before NAME: the set in two parts
TUNED_ON = 0.7  # of the photographs of a divided set, to the nearest
# Ours: foolbox's photographs have their class in the name, these two have not.
LABELLED = {"chelsea.png": 282, "coffee.png": 967}  # tiger cat, espresso


@functools.cache
def class_names() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes in the order of their numbers; all different."""
    from torchvision import models  # here, since it takes a second that most processes need not wait

    return tuple(models.get_model_weights("resnet50").IMAGENET1K_V1.meta["categories"])


@functools.cache
def wnids() -> tuple[str, ...]:
    """The WordNet numbers of ImageNet's 1,000 classes (n01440764, …), in the order of their numbers."""
    from timm.data import ImageNetInfo  # here, since it takes seconds

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def evaluation_only(name: str, split: Split) -> None:
    """Raises ValueError for the training split."""
    if split != "test":
        raise ValueError(
            f"data set {name!r} has no training images: it is for evaluation. Use a network as it was published (epochs: 0)."
        )


def photographs(split: Split, size: int | None = None, channels: int | None = None, crop: Crop = "imagenet") -> ImageSet:
    """Twenty-two photographs with ImageNet's labels, in colour, cut as ImageNet's classifiers expect them, or as `crop` says.

    Raises ValueError for the training split, RuntimeError where the package foolbox is missing.
    """
    evaluation_only("photographs", split)
    found = importlib.util.find_spec("foolbox")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("data set 'photographs' comes with the package foolbox: pip install foolbox")
    import skimage.data  # here, since it takes a while

    files = {}
    for file in sorted((Path(found.submodule_search_locations[0]) / "data").glob("imagenet_*.jpg")):
        files[file] = int(file.stem.rsplit("_", 1)[-1])
    files |= {Path(skimage.data.data_dir) / file: label for file, label in LABELLED.items()}
    images = ImageFiles(list(files), size or SIZE, channels or 3, crop)
    return ImageSet("photographs", split, images[:], torch.tensor(list(files.values())), class_names(), crop=crop)


def has_split(name: str, split: Split) -> bool:
    """Whether `imagenet:NAME` has a split: a training one where NAME begins with `divided:` alone."""
    return split == "test" or name.startswith(DIVIDED)


def _part(found: dict[str, list[Path]], split: Split) -> dict[str, list[Path]]:
    """Which files of a divided set are in a split: by their names' order and a seed alone, so the same ones everywhere."""
    order = np.random.default_rng(0).permutation(sum(map(len, found.values())))
    first = round(TUNED_ON * len(order))
    chosen = set((order[:first] if split == "train" else order[first:]).tolist())
    at = itertools.count()
    return {c: [f for f in files if next(at) in chosen] for c, files in found.items()}


def listed(name: str, split: Split) -> dict[str, list[Path]]:
    """The image files of `imagenet:NAME` by WordNet number, which nothing has opened yet.

    Of `imagenet:divided:NAME` those of one part, and then some classes may have none. Raises ValueError for the training
    split of a set that is not divided and for folders that are no WordNet numbers, FileNotFoundError where there is nothing.
    """
    if not has_split(name, split):
        evaluation_only(f"imagenet:{name}", split)
    divided, name = name.startswith(DIVIDED), name.removeprefix(DIVIDED)
    root = folders.place(name)
    there = [root / s for s in ("val", "test") if (root / s).is_dir()]
    if not name or not there:
        raise FileNotFoundError(
            f"data set 'imagenet:{name}': there is neither {root / 'val'} nor {root / 'test'}. Lay the validation set out as "
            f"{root}/val/<wnid>/*.JPEG, a folder a class (n01440764, …), or set STUDY_DATA to the folder above."
        )
    below = [f for f in sorted(there[0].iterdir()) if f.is_dir() and folders.visible(f.name)]
    read = {f.name: folders.images_below(f) for f in below}
    found = {name: pictures for name, (pictures, _) in read.items()}
    other = [c for c in found if not WNID.fullmatch(c)]
    if other:
        raise ValueError(
            f"data set 'imagenet:{name}': {there[0] / other[0]} is not named by a WordNet number (n01440764, …). For folders "
            f"with names of your own, use folder:{name}."
        )
    if not any(found.values()):
        raise FileNotFoundError(f"data set 'imagenet:{name}': no image below {there[0]}; expected <wnid>/*.JPEG there")
    empty = [c for c, pictures in found.items() if not pictures]
    if empty:
        raise FileNotFoundError(
            f"data set 'imagenet:{name}': no images below {there[0] / empty[0]}. A copy that was cut short looks like this: "
            "copy it again, or remove the folder."
        )
    other = sum((odd for _, odd in read.values()), collections.Counter())
    if other:
        number = sum(map(len, found.values()))
        say_once(f"imagenet:{name}: {number} images are read; passed over: {folders.told(other)}")
    return _part(found, split) if divided else found


def validation(name: str, split: Split, size: int | None, channels: int | None, limit: int | None) -> ImageSet:
    """`imagenet:NAME`: photographs by WordNet number, decoded when they are asked for, so that memory does not grow with them.

    Folders may hold all classes or some. In a fixed random order, so that the first ones are a fair sample. Raises as
    `listed` does, and ValueError for a WordNet number that is none of ImageNet's.
    """
    found = listed(name, split)
    number = {w: i for i, w in enumerate(wnids())}
    unknown = [c for c in found if c not in number]
    if unknown:
        raise ValueError(f"data set 'imagenet:{name}': {unknown[0]} is none of the 1,000 classes of ILSVRC 2012")
    pairs = [(file, number[c]) for c, files in found.items() for file in files]
    pairs = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))[:limit]]
    images = ImageFiles([f for f, _ in pairs], size or SIZE, channels or 3, "imagenet")
    return ImageSet(f"imagenet:{name}", split, images, torch.tensor([i for _, i in pairs]), class_names(), crop=images.crop)


# Restricted ImageNet: groups of ImageNet's class numbers, first and last (Tsipras et al. 2019)
RESTRICTED = {
    "dog": (151, 268),
    "cat": (281, 285),
    "frog": (30, 32),
    "turtle": (33, 37),
    "bird": (80, 100),
    "primate": (365, 382),
    "fish": (389, 397),
    "crab": (118, 121),
    "insect": (300, 319),
}


def _all_classes(name: str, classes: int) -> None:
    if classes != 1000:
        raise ValueError(
            f"data set 'restricted:{name}': {paths.datasets() / name} has {classes} class folders; the groups are numbers of "
            "ImageNet's 1,000 classes, so all of them must be there (n01440764 to n15075141)"
        )


def restricted_count(name: str, split: Split) -> int:
    """How many images `restricted:NAME` has. Raises as `folders.listed` does, and ValueError where classes are missing."""
    found = list(folders.listed(name, split).values())
    _all_classes(name, len(found))
    return sum(len(files) for first, last in RESTRICTED.values() for files in found[first : last + 1])


def restricted(name: str, split: Split, size: int | None, channels: int | None) -> ImageSet:
    """Nine groups of the classes of an ImageNet folder, whose 1,000 class folders (n01440764, …) are in ImageNet's order."""
    whole = folders.load(name, split, size, channels, None)
    _all_classes(name, len(whole.classes))
    group = torch.full((1000,), -1)
    for i, (first, last) in enumerate(RESTRICTED.values()):
        group[first : last + 1] = i
    kept = whole.select((group[whole.labels] >= 0).nonzero()[:, 0])
    return dataclasses.replace(kept, name=f"restricted:{name}", labels=group[kept.labels], classes=tuple(RESTRICTED))
