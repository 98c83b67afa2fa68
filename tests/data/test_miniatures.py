"""Miniatures: each is read by the true loader, in its true layout. Tiny-ImageNet and Caltech-256 as they are read."""

import pytest
import torch
import torchvision
from PIL import Image

from lib.data import datasets, downloads, image_sets, imagenet, miniatures, styles, tiny_imagenet
from lib.data.images import open_image, to_tensor


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    return tmp_path


# name, size asked for, splits, classes, images of the test split at least, whether they stay on disk
SETS = [
    ("mnist", 28, 10, 24, False),
    ("cifar10", 32, 10, 24, False),
    ("cifar100", 32, 100, 100, False),
    ("caltech256", 224, 257, 257, True),
    ("tiny-imagenet", 224, 200, 200, True),
    ("folder:vggface2", 224, 12, 24, True),
    ("folder:flowers17", 32, 17, 34, False),
]


@pytest.mark.parametrize(("name", "size", "classes", "images", "lazy"), SETS)
def test_the_true_loader_reads_it(root, name, size, classes, images, lazy):
    miniatures.lay_out(name, root, 24)
    with miniatures.trusted(root):
        train, test = (datasets.load(name, split, size=size) for split in ("train", "test"))
        assert datasets.count(name, "test", size=size) in (None, len(test))
    assert len(test) >= images and len(test.classes) == classes and int(train.labels.max()) == classes - 1
    assert isinstance(test.images, datasets.ImageFiles) == isinstance(train.images, datasets.ImageFiles) == lazy
    x = test.images[:3]
    assert x.shape[2:] == (size, size) and 0 <= x.min() < x.max() <= 1 and not torch.equal(x[0], x[1])


def test_another_runs_classes_are_added_to_imagenet(root, monkeypatch):
    """Runs that are rehearsed in one folder name other classes of the same set."""
    first, second = imagenet.wnids()[:2]
    monkeypatch.setattr(imagenet, "wnids", lambda: (first, second))
    counts, kept = [], []
    for named in ([first], [second], [second]):
        miniatures.lay_out("folder:imagenet", root, 3, named)
        pictures = sorted((root / "imagenet").rglob("*.JPEG"))
        counts.append([sum(p.parent.name == wnid for p in pictures) for wnid in (first, second)])
        kept.append({p: p.stat().st_mtime_ns for p in pictures})
    assert counts == [[6, 2], [6, 6], [6, 6]]
    assert kept[0].items() <= kept[1].items() == kept[2].items()  # what was there is left as it was


def test_imagenet_serves_all_three_ways_of_reading_it(root, monkeypatch):
    """All 1,000 classes, of which two are named: of these there are as many images as asked for."""
    some = ("n02108422", "n02123159")
    for name in ("folder:imagenet", "imagenet:imagenet", "restricted:imagenet"):
        miniatures.lay_out(name, root, 5, some)
    with miniatures.trusted(root):
        folder, validation, nine = (
            datasets.load(name, "test", size=224) for name in ("folder:imagenet", "imagenet:imagenet", "restricted:imagenet")
        )
    assert len(folder.classes) == 1000 and folder.classes == imagenet.wnids() and len(nine.classes) == 9
    counts = torch.bincount(folder.labels, minlength=1000)
    assert counts.min() == 1 and [int(counts[folder.classes.index(c)]) for c in some] == [5, 5]
    assert sorted(validation.labels.tolist()) == sorted(folder.labels.tolist())
    with Image.open(folder.images.files[0]) as picture:
        assert picture.size == miniatures.IMAGENET_SIDE


def test_styles(root):
    miniatures.lay_out("folder:painter-by-numbers", root, 8)
    with miniatures.trusted(root):
        assert len(styles.load("folder:painter-by-numbers", "test", 64)) == 3


def test_what_comes_with_packages_needs_no_files(root):
    for name in ("shapes", "shapes-conflict", "digits", "faces", "photographs"):
        miniatures.lay_out(name, root, 8)
    assert not list(root.iterdir())


def test_an_interrupted_one_is_begun_anew(root, monkeypatch):
    place, write = miniatures.PLACES["mnist"]

    def stops(there, images, draw):
        there.mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setitem(miniatures.PLACES, "mnist", (place, stops))
    with pytest.raises(KeyboardInterrupt):
        miniatures.lay_out("mnist", root, 8)
    monkeypatch.setitem(miniatures.PLACES, "mnist", (place, write))
    assert not (root / place).exists()
    miniatures.lay_out("mnist", root, 8)
    assert len(datasets.load("mnist", "test", size=28, channels=1)) >= 8 and not list(root.glob(".*.part"))


def test_an_unknown_data_set_is_refused_by_name(root):
    with pytest.raises(ValueError, match=r"'folder:celebrities' has no miniature .* there are mnist, cifar10"):
        miniatures.lay_out("folder:celebrities", root, 8)


def test_cifar_is_checked_all_the_same(root, monkeypatch):
    """A miniature passes torchvision's check by its own MD5, within `trusted` alone; what is damaged afterwards does not."""
    miniatures.lay_out("cifar10", root, 10)
    before = [list(map(list, torchvision.datasets.CIFAR10.train_list)), dict(torchvision.datasets.CIFAR10.meta)]
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", lambda self: None)
    monkeypatch.setattr(downloads, "locked", miniatures.contextlib.nullcontext)
    with pytest.raises(RuntimeError, match="could not be had"):
        datasets.load("cifar10", "test")
    held = image_sets.EAGER_BYTES
    with pytest.raises(RuntimeError, match="could not be had"), miniatures.trusted(root):
        assert len(datasets.load("cifar10", "test")) == 10 and held > image_sets.EAGER_BYTES
        file = root / "cifar-10-batches-py" / "test_batch"
        file.write_bytes(file.read_bytes() + b"\0")
        datasets.load("cifar10", "test")
    assert [list(map(list, torchvision.datasets.CIFAR10.train_list)), dict(torchvision.datasets.CIFAR10.meta)] == before
    assert held == image_sets.EAGER_BYTES


def test_caltech256_is_torchvisions_file_by_file(root):
    """Beside what its folders hold too (256_ObjectCategories/198.spider/RENAME2), and grey images in colour."""
    miniatures.lay_out("caltech256", root, 8)
    place = root / "caltech256" / "256_ObjectCategories"
    (place / "198.class-198" / "RENAME2").write_bytes(b"")
    open_image(place / "003.class-003" / "003_0002.jpg").convert("L").save(place / "003.class-003" / "003_0002.jpg")
    source = torchvision.datasets.Caltech256(str(root))
    data = {s: datasets.load("caltech256", s, size=16) for s in ("train", "test")}
    seen = []
    for part in data.values():
        seen += [(image.flatten().tolist(), int(y)) for image, y in zip(part.images, part.labels, strict=True)]
    expected = [(to_tensor(image, size=16, channels=3).flatten().tolist(), y) for image, y in source]
    assert sorted(seen) == sorted(expected)
    assert all((torch.bincount(d.labels, minlength=257) == n).all() for d, n in zip(data.values(), (2, 1), strict=True))
    assert len(datasets.load("caltech256", "test", size=16, limit=7)) == 7


def test_tiny_imagenet_keeps_boxes(root):
    """Left 4, top 8, right 59, bottom 63 of 64, all inside; at 32 pixels outwards: rows 4 to 31, columns 2 to 29."""
    miniatures.lay_out("tiny-imagenet", root, 8)
    whole, half = (datasets.load("tiny-imagenet", "train", size=s, limit=3) for s in (None, 32))
    assert whole.images.shape == (3, 3, 64, 64) and whole.boxes[0].tolist() == [8, 4, 64, 60]
    assert half.boxes[0].tolist() == [4, 2, 32, 30]
    assert datasets.classes("tiny-imagenet") == whole.classes == tuple(sorted(whole.classes))
    test = datasets.load("tiny-imagenet", "test", limit=200)
    assert sorted(test.labels.tolist()) == list(range(200))


def test_tiny_imagenet_says_what_is_missing(root):
    with pytest.raises(FileNotFoundError, match=r"no folder of a class below .*tiny-imagenet-200.*or set STUDY_DATA"):
        datasets.load("tiny-imagenet", "train")
    miniatures.lay_out("tiny-imagenet", root, 8)
    told = root / tiny_imagenet.FOLDER / "val" / "val_annotations.txt"
    lines = told.read_text(encoding="utf-8")
    told.write_text(lines.replace("\t0\t2\t", "\tzero\t2\t", 1), encoding="utf-8")
    with pytest.raises(ValueError, match=r"\(test\): a damaged line of its annotations"):
        datasets.load("tiny-imagenet", "test")
    told.write_text(lines + "val_0.JPEG\tn00000000\t0\t0\t9\t9\n", encoding="utf-8")
    with pytest.raises(ValueError, match="class n00000000 has no folder among the 200 of train"):
        datasets.load("tiny-imagenet", "test")
    told.unlink()
    with pytest.raises(FileNotFoundError, match=r"val_annotations\.txt is missing"):
        datasets.count("tiny-imagenet", "test")
