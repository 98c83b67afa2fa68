"""Miniatures of data sets: a few drawn images in the true layout of files, so that the true loaders can be rehearsed.

`lay_out(name, root, images)` writes what `lib.data.datasets.load(name, …)` reads below `root`: the true folders, formats,
image sizes and numbers of classes, with colours drawn at random in place of photographs. Classes that a run names get
`images` of either split, the others as few as their loader takes. Nothing is learnt from them but whether a run would run.

torchvision knows the true files of CIFAR by their MD5; `trusted` puts those of a miniature in their place while it is read, so
that the check itself stays.
"""

import contextlib
import hashlib
import io
import pickle
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from lib.data import image_sets, imagenet, tiny_imagenet
from lib.data.datasets import EMBEDDED

# Of a folder of one's own: classes, width and height of its pictures. VGGFace2 has 8,631 identities; few stand for all.
FOLDERS = {"vggface2": (12, (160, 200)), "flowers17": (17, (550, 500)), "cifar10": (10, (32, 32)), "orl_faces": (40, (92, 112))}
STYLES = {"painter-by-numbers": (600, 480)}  # folders of paintings, without classes
IMAGENET_SIDE = (500, 375)
CALTECH_CLASSES, CALTECH_SIDE, CALTECH_EACH = 257, (320, 240), 3  # of three images of a class one is a test image
TINY_CLASSES = 200
SUPERCLASSES = 20  # of CIFAR-100
DIFFERENT = 64  # pictures of one size; a thousand take a minute to draw
FEW = 8  # colours a side of a drawn picture, which is smooth in between
NEEDS_NO_FILES = (*EMBEDDED, "shapes", "photographs")


class Draw:
    """Pictures and numbers from one generator."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.drawn: dict[tuple[int, int], list[bytes]] = {}
        self.saved = 0

    def picture(self, size: tuple[int, int]) -> Image.Image:
        """(width, height), in colour: FEW random colours a side, with smooth transitions."""
        few = self.rng.integers(0, 256, (FEW, FEW, 3), dtype=np.uint8)
        return Image.fromarray(few).resize(size, Image.Resampling.BICUBIC)

    def save(self, file: Path, size: tuple[int, int]) -> None:
        """A JPEG, (width, height); of one size there are DIFFERENT ones, in turn."""
        drawn = self.drawn.setdefault(size, [])
        if len(drawn) < DIFFERENT:
            stream = io.BytesIO()
            self.picture(size).save(stream, format="JPEG", quality=75)
            drawn.append(stream.getvalue())
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(drawn[self.saved % len(drawn)] if len(drawn) == DIFFERENT else drawn[-1])
        self.saved += 1

    def pixels(self, n: int, *shape: int) -> np.ndarray:
        return self.rng.integers(0, 256, (n, *shape), dtype=np.uint8)


def lay_out(name: str, root: Path, images: int, named: Iterable[str] = (), seed: int = 0) -> None:
    """Write the miniature of a data set (or of a folder of styles) below `root`; one that is there already is left as it is.

    `named` are classes of ImageNet that need `images` of either split, as their folders are called; what is there already gets
    what it lacks of them. Raises ValueError for a name that no miniature is known for.
    """
    base, _, option = name.partition(":")
    if name.partition("-")[0] in NEEDS_NO_FILES:
        return
    draw = Draw(seed)
    if base in ("folder", "imagenet", "restricted") and (option == "imagenet" or base != "folder"):
        _imagenet(root / option, images, set(named), draw)
    elif base == "folder" and option in FOLDERS:
        _once(root / option, lambda place: _folder(place, images, draw, *FOLDERS[option]))
    elif base == "folder" and option in STYLES:
        _once(root / option, lambda place: _styles(place, images, draw, STYLES[option]))
    elif name in PLACES:
        place, write = PLACES[name]
        _once(root / place, lambda there: write(there, images, draw))
    else:
        known = [*PLACES, *(f"folder:{f}" for f in ("imagenet", *FOLDERS, *STYLES)), "imagenet:NAME", "restricted:NAME"]
        raise ValueError(f"data set {name!r} has no miniature in lib.data.miniatures; there are {', '.join(known)}")


def _once(place: Path, write: Callable[[Path], None]) -> None:
    """Written whole or not at all: an interrupted one is begun anew."""
    if place.exists():
        return
    part = place.with_name(f".{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    write(part)
    part.rename(place)


def _each(draw: Draw, place: Path, n: int, size: tuple[int, int], suffix: str = "jpg", there: int = 0) -> None:
    for i in range(there, n):
        draw.save(place / f"{i + 1:04d}.{suffix}", size)


def _folder(place: Path, images: int, draw: Draw, classes: int, size: tuple[int, int]) -> None:
    for split in ("train", "test"):
        for c in range(classes):
            _each(draw, place / split / f"class-{c + 1:04d}", max(2, -(-images // classes)), size)


def _styles(place: Path, images: int, draw: Draw, size: tuple[int, int]) -> None:
    _each(draw, place / "train", max(15, images), size)  # a fifth of them is kept for testing


def _imagenet(place: Path, images: int, named: set[str], draw: Draw) -> None:
    for split in ("train", "test"):
        for wnid in imagenet.wnids():
            folder = place / split / wnid
            there = len(list(folder.glob("*.JPEG")))
            _each(draw, folder, images if wnid in named else 1, IMAGENET_SIDE, "JPEG", there)


def _tiny_imagenet(place: Path, images: int, draw: Draw) -> None:
    side = tiny_imagenet.SIDE
    wnids, told = sorted(imagenet.wnids()[:: len(imagenet.wnids()) // TINY_CLASSES]), []
    each = -(-images // TINY_CLASSES)
    for c, wnid in enumerate(wnids):
        lines = []
        for i in range(each):
            draw.save(place / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", (side, side))
            lines.append(f"{wnid}_{i}.JPEG\t4\t8\t{side - 5}\t{side - 1}\n")
        (place / "train" / wnid / f"{wnid}_boxes.txt").write_text("".join(lines), encoding="utf-8")
        for i in range(each * c, each * (c + 1)):
            draw.save(place / "val" / "images" / f"val_{i}.JPEG", (side, side))
            told.append(f"val_{i}.JPEG\t{wnid}\t0\t2\t{side - 1}\t{side - 9}\n")
    (place / "val" / "val_annotations.txt").write_text("".join(told), encoding="utf-8")
    (place / "wnids.txt").write_text("".join(f"{w}\n" for w in wnids), encoding="utf-8")


def _caltech256(place: Path, images: int, draw: Draw) -> None:
    each = max(CALTECH_EACH, CALTECH_EACH * -(-images // CALTECH_CLASSES))
    for c in range(1, CALTECH_CLASSES + 1):
        for i in range(1, each + 1):
            draw.save(place / "256_ObjectCategories" / f"{c:03d}.class-{c:03d}" / f"{c:03d}_{i:04d}.jpg", CALTECH_SIDE)


def _mnist(place: Path, images: int, draw: Draw) -> None:
    raw, n = place / "raw", max(10, images)
    raw.mkdir(parents=True)
    for split in ("train", "t10k"):
        header = struct.pack(">iiii", 2051, n, 28, 28)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(header + draw.pixels(n, 28, 28).tobytes())
        labels = (np.arange(n) % 10).astype(np.uint8)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">ii", 2049, n) + labels.tobytes())


def _cifar10(place: Path, images: int, draw: Draw) -> None:
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        n = max(10, images if name == "test_batch" else -(-images // 5))
        _pickled(place / name, {"data": draw.pixels(n, 3072), "labels": [i % 10 for i in range(n)], "batch_label": name})
    _pickled(place / "batches.meta", {"label_names": [f"class {i}" for i in range(10)], "num_vis": 3072})


def _cifar100(place: Path, images: int, draw: Draw) -> None:
    n = max(100, images)
    for name in ("train", "test"):
        fine, coarse = [i % 100 for i in range(n)], [i % SUPERCLASSES for i in range(n)]
        _pickled(place / name, {"data": draw.pixels(n, 3072), "fine_labels": fine, "coarse_labels": coarse})
    names = {"fine": [f"class {i}" for i in range(100)], "coarse": [f"group {i}" for i in range(SUPERCLASSES)]}
    _pickled(place / "meta", {f"{kind}_label_names": found for kind, found in names.items()})


def _pickled(file: Path, content: dict) -> None:
    """As torchvision's archives hold it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(content, protocol=2))


# by name: the folder below the root, and what writes it
PLACES: dict[str, tuple[str, Callable[[Path, int, Draw], None]]] = {
    "mnist": ("MNIST", _mnist),
    "cifar10": ("cifar-10-batches-py", _cifar10),
    "cifar100": ("cifar-100-python", _cifar100),
    "caltech256": ("caltech256", _caltech256),
    "tiny-imagenet": (tiny_imagenet.FOLDER, _tiny_imagenet),
}


@contextlib.contextmanager
def trusted(root: Path, eager_bytes: int = image_sets.EAGER_BYTES // 1000) -> Iterator[None]:
    """Within it, miniatures below `root` are read as their true data sets are.

    torchvision checks CIFAR's files against the MD5 of the miniature's. And data sets that would stay on disk at their true
    size do so: what is held in memory at once (`image_sets.EAGER_BYTES`) is smaller, as the miniatures are.
    """
    from torchvision import datasets  # here, since it takes a second that most processes need not wait

    names = ("train_list", "test_list", "meta")
    kinds = (datasets.CIFAR10, datasets.CIFAR100)
    before = [(kind, {n: vars(kind)[n] for n in names}) for kind in kinds]
    held = image_sets.EAGER_BYTES
    try:
        image_sets.EAGER_BYTES = eager_bytes
        for kind, own in before:
            place = root / kind.base_folder
            for n in ("train_list", "test_list"):
                setattr(kind, n, [[file, _md5(place / file, md5)] for file, md5 in own[n]])
            kind.meta = own["meta"] | {"md5": _md5(place / own["meta"]["filename"], own["meta"]["md5"])}
        yield
    finally:
        image_sets.EAGER_BYTES = held
        for kind, own in before:
            for n, value in own.items():
                setattr(kind, n, value)


def _md5(file: Path, otherwise: str) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() if file.exists() else otherwise
