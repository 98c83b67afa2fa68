"""Anyone's own folder of images as a data set: `<root>/NAME/{train,test}/<class>/*`.

Every image below a class's folder is of that class, at any depth, as torchvision's ImageFolder reads them: links are
followed, suffixes may be in capitals. What systems leave behind is no data: names that begin with a dot
(.ipynb_checkpoints, ._1.png), and LEFT_BEHIND. Any other file that is passed over is counted and said, once.
"""

import collections
import os
from collections.abc import Iterable
from pathlib import Path, PurePath

import numpy as np
import torch

from lib.data.image_sets import ImageFiles, ImageSet, Split
from lib.data.images import SUFFIXES, header, is_grey, open_image
from lib.system import paths
from lib.system.progress import say_once

LEFT_BEHIND = ("__macosx", "@eadir", "$recycle.bin", "thumbs.db", "desktop.ini")


def place(name: str) -> Path:
    """Where the folder NAME lies. Raises ValueError for a name that leads out of the data root."""
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise ValueError(
            f"data set {name!r}: expected the name of a folder below {paths.datasets()}, not a path that leads out of it; set "
            "STUDY_DATA to the folder that holds yours"
        )
    return paths.datasets() / os.fsdecode(name.encode("utf-8", "surrogateescape"))


def has_split(name: str, split: Split) -> bool:
    """Whether `folder:NAME` has a split: one that only networks as published look at needs no training images."""
    return (place(name) / split).is_dir()


def visible(name: str) -> bool:
    """Whether a file or a folder is somebody's data, and not what a system left there."""
    return not name.startswith(".") and name.lower() not in LEFT_BEHIND


def images_below(folder: Path, above: tuple[str, ...] = ()) -> tuple[list[Path], collections.Counter[str]]:
    """The image files below a folder, its own first, each folder's in the order of their names; and what else is there.

    A link that leads back to a folder `above` it is not followed.
    """
    found: list[Path] = []
    other: collections.Counter[str] = collections.Counter()
    real = os.path.realpath(folder)
    if real in above:
        return found, other
    with os.scandir(folder) as entries:
        listed = sorted((e for e in entries if visible(e.name)), key=lambda e: e.name)
    for entry in listed:
        suffix = PurePath(entry.name).suffix.lower()
        if entry.is_file() and suffix in SUFFIXES:
            found.append(folder / entry.name)
        elif not entry.is_dir():
            other[(suffix or "without a suffix") if entry.is_file() else "links that lead nowhere"] += 1
    for entry in listed:
        if entry.is_dir():
            deeper, odd = images_below(folder / entry.name, (*above, real))
            found += deeper
            other += odd
    return found, other


def _text(name: str) -> str:
    """A file's name as text, whatever the locale made of it."""
    return os.fsencode(name).decode("utf-8", "replace")


def _in_colour(files: Iterable[Path]) -> bool:
    """Whether any file is in colour, by its header."""
    return any(seen is not None and not is_grey(seen[0]) for seen in map(header, files))


def told(other: collections.Counter[str]) -> str:
    """What is passed over, in words: how many files of each kind."""
    return ", ".join(f"{n} {what}" for what, n in other.most_common())


def _listed(root: Path, classes: dict[str, str]) -> tuple[dict[str, list[Path]], dict[str, collections.Counter[str]]]:
    """The images of each class in one split, and what is passed over there; `classes` are folders by what they are called."""
    there = {c: images_below(root / f) if (root / f).is_dir() else ([], collections.Counter()) for c, f in classes.items()}
    return {c: found for c, (found, _) in there.items()}, {c: other for c, (_, other) in there.items()}


def listed(name: str, split: Split) -> dict[str, list[Path]]:
    """The image files of each class in one split of `folder:NAME`, which nothing has opened yet.

    Raises ValueError as `place` does, FileNotFoundError for a folder or a class that is missing or empty: what was looked
    for, where, and how to lay it out.
    """
    root = place(name)
    expected = f"{root}/{{train,test}}/<class>/*{{{','.join(s[1:] for s in SUFFIXES[:3])},…}}"
    if not name or not (root / split).is_dir():
        raise FileNotFoundError(
            f"data set 'folder:{name}' ({split}): there is no folder {root / split}. Lay your images out as {expected}, or "
            "set STUDY_DATA to the folder above. (Networks as they were published, epochs: 0, need no train folder.)"
        )
    beside = [p for p in (root / split).iterdir() if visible(p.name) and p.suffix.lower() in SUFFIXES and p.is_file()]
    classes = _classes(root)
    found, passed_over = _listed(root / split, classes)
    empty = [c for c, files in found.items() if not files]
    if len(classes) < 2 or empty:
        there = f"no images for class {empty[0]!r}" if empty else f"{len(classes)} class folder(s)"
        there += f" (but {told(passed_over[empty[0]])})" if empty and passed_over[empty[0]] else ""
        there += f" ({len(beside)} images beside them)" if beside and not classes else ""
        raise FileNotFoundError(
            f"data set 'folder:{name}' ({split}): {there} below {root / split}. Expected two classes or more, each with "
            f"images: {expected}. A copy that was cut short looks like this too: copy it again."
        )
    other = sum(passed_over.values(), collections.Counter({"images beside the folders of classes": len(beside)}))
    if +other:
        number = sum(map(len, found.values()))
        say_once(f"folder:{name} ({split}): {number} images are read; passed over: {told(+other)}")
    return found


def _splits(root: Path) -> list[Path]:
    return [root / s for s in ("train", "test") if (root / s).is_dir()]


def _classes(root: Path) -> dict[str, str]:
    """Folders by what their classes are called, of either split, in order."""
    called = {_text(p.name): p.name for s in _splits(root) for p in s.iterdir() if visible(p.name) and p.is_dir()}
    return {c: called[c] for c in sorted(called)}


def load(name: str, split: Split, size: int | None, channels: int | None, limit: int | None) -> ImageSet:
    """The images of one split of `folder:NAME`, in a fixed random order; in colour where any image of either split is.

    Raises ValueError as `place` and `lib.data.images.open_image` do, FileNotFoundError as `listed` does.
    """
    found = listed(name, split)
    pairs = [(f, i) for i, files in enumerate(found.values()) for f in files]
    if channels is None:
        root = place(name)
        splits = sorted(_splits(root), key=lambda s: s.name != split)
        every = (f for s in splits for fs in _listed(s, _classes(root))[0].values() for f in fs)
        channels = 3 if _in_colour(every) else 1
    order = np.random.default_rng(0).permutation(len(pairs))[:limit]
    files, labels = [pairs[i][0] for i in order], torch.tensor([pairs[i][1] for i in order])
    stored = ImageFiles(files, size or min(open_image(files[0]).size), channels)
    return ImageSet(f"folder:{name}", split, stored.held(), labels, tuple(found))
