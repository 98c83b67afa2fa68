import shutil
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from lib.data import datasets, image_sets, imagenet
from lib.system import paths


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    return tmp_path


def folder(root, name="mine", classes=("a", "b"), per_class=3, size=(10, 12), mode="RGB"):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for c in classes:
            (root / name / split / c).mkdir(parents=True)
            for i in range(per_class):
                shape = (*size, 3) if mode == "RGB" else size
                Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(root / name / split / c / f"{i}.png")


@pytest.mark.parametrize(
    ("name", "shape", "classes", "train", "test"),
    [("digits", (1, 28, 28), 10, 1438, 359), ("faces", (1, 25, 25), 2, 140, 60), ("shapes", (3, 32, 32), 10, 6000, 1000)],
)
def test_embedded_data_needs_no_files(root, name, shape, classes, train, test):
    for split, n in (("train", train), ("test", test)):
        data = datasets.load(name, split)
        assert len(data) == n and tuple(data.images.shape[1:]) == shape and len(data.classes) == classes
        assert data.images.min() >= 0 and data.images.max() <= 1
        assert data.labels.unique().tolist() == list(range(classes))
    assert not list(root.iterdir())


def test_splits_are_disjoint_and_fixed():
    train, test = (datasets.load("digits", s).images.flatten(1) for s in ("train", "test"))
    assert torch.cdist(test, train).min() > 0
    assert torch.equal(test, datasets.load("digits", "test").images.flatten(1))


def test_size_channels_limit():
    data = datasets.load("digits", "test", size=32, channels=3, limit=7)
    assert data.images.shape == (7, 3, 32, 32)
    assert torch.equal(data.images[:, 0], data.images[:, 1])
    grey = datasets.load("shapes", "test", channels=1, limit=3)
    assert grey.images.shape == (3, 1, 32, 32) and grey.masks.shape == (3, 32, 32)
    assert datasets.load("shapes", "test", size=64, limit=2).images.shape[-1] == 64


def test_select_keeps_everything_together():
    data = datasets.load("shapes-conflict", "test", limit=10)
    part = data.select(torch.tensor([3, 1]))
    assert torch.equal(part.images[0], data.images[3]) and torch.equal(part.masks[1], data.masks[1])
    assert part.attributes["texture"].tolist() == data.attributes["texture"][[3, 1]].tolist()


def test_fingerprint_sees_every_pixel_and_label():
    data = datasets.load("digits", "test", limit=5)
    same = datasets.load("digits", "test", limit=5)
    assert data.fingerprint == same.fingerprint
    same.images[4, 0, 27, 27] += 1e-3
    assert datasets.ImageSet("", "", same.images, same.labels, same.classes).fingerprint != data.fingerprint
    assert datasets.ImageSet("", "", data.images, data.labels.flip(0), data.classes).fingerprint != data.fingerprint


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_folder_of_images(root, mode):
    folder(root, mode=mode)
    data = datasets.load("folder:mine", "train")
    assert data.images.shape == (6, 3 if mode == "RGB" else 1, 10, 10)
    assert data.classes == ("a", "b") and sorted(data.labels.tolist()) == [0, 0, 0, 1, 1, 1]
    assert datasets.load("folder:mine", "test", size=16, channels=1, limit=4).images.shape == (4, 1, 16, 16)


def test_large_folders_stay_on_disk_and_look_the_same(root, monkeypatch):
    folder(root)
    eager = datasets.load("folder:mine", "train")
    monkeypatch.setattr(image_sets, "EAGER_BYTES", 0)
    lazy = datasets.load("folder:mine", "train")
    assert isinstance(lazy.images, datasets.ImageFiles) and lazy.images.shape == eager.images.shape
    assert torch.equal(lazy.images[torch.tensor([4, 0])], eager.images[[4, 0]])
    assert torch.equal(lazy.images[1:3], eager.images[1:3]) and torch.equal(lazy.images[2], eager.images[2])
    before = lazy.fingerprint
    assert lazy.select(torch.tensor([5])).images[:].shape[0] == 1
    next((root / "mine/train/a").iterdir()).write_bytes(b"changed")
    assert datasets.load("folder:mine", "train").fingerprint != before


def test_a_damaged_image_is_named(root):
    folder(root)
    (root / "mine/train/a/1.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"1\.png cannot be read"):
        datasets.load("folder:mine", "train")


def test_missing_empty_and_half_copied_folders_say_what_was_looked_for(root):
    with pytest.raises(FileNotFoundError, match=rf"no folder {root}/none/train.*Lay your images out"):
        datasets.load("folder:none", "train")
    folder(root)
    for f in (root / "mine/test/b").iterdir():
        f.unlink()
    with pytest.raises(FileNotFoundError, match=r"no images for class 'b'.*copy it again"):
        datasets.load("folder:mine", "test")
    folder(root, name="single", classes=("a",))
    with pytest.raises(FileNotFoundError, match=r"1 class folder\(s\)"):
        datasets.load("folder:single", "train")


def mnist(root, n=20):
    """A small MNIST laid out as torchvision lays it out."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix in ("train", "t10k"):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, n, 28, 28) + images.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, n) + labels.tobytes())
    return raw


def test_torchvisions_own_files_are_read(root):
    raw = mnist(root)
    data = datasets.load("mnist", "test")
    assert data.images.shape == (20, 1, 28, 28) and len(data.classes) == 10
    stored = np.frombuffer((raw / "t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(20, 28, 28)
    order = np.random.default_rng(0).permutation(20)
    assert np.allclose(data.images[:, 0] * 255, stored[order], atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("imagenet22k", "train"), "unknown data set 'imagenet22k'; choose one of digits"),
        (("digits", "val"), "choose train or test"),
        (("shapes-colour", "train"), "unknown cue 'colour'"),
    ],
)
def test_unknown_names_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(*arguments)
    with pytest.raises(ValueError, match="empty data set"):
        datasets.load("digits", "test", limit=0)


def test_the_root_is_the_project_s_or_the_user_s(monkeypatch, tmp_path):
    monkeypatch.delenv("STUDY_DATA", raising=False)
    monkeypatch.delenv("STUDY_HOME", raising=False)
    assert paths.datasets() == paths.PROJECT / "data" / "datasets"
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    assert paths.datasets() == tmp_path


def test_restricted_imagenet_groups_classes_by_their_number(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    for i in range(1000):
        for split in ("train", "test"):
            folder = tmp_path / "imagenet" / split / f"n{i:08d}"
            folder.mkdir(parents=True)
            Image.new("RGB", (8, 8), (i % 256, i // 256, 0)).save(folder / "a.png")
    data = datasets.load("restricted:imagenet", "test")
    assert data.classes == ("dog", "cat", "frog", "turtle", "bird", "primate", "fish", "crab", "insect")
    assert data.labels.bincount().tolist() == [118, 5, 3, 5, 21, 18, 9, 4, 20]
    number = (255 * data.images[:, 0, 0, 0] + 256 * 255 * data.images[:, 1, 0, 0]).round().long()
    bounds = torch.tensor(list(imagenet.RESTRICTED.values()))[data.labels]
    assert ((number >= bounds[:, 0]) & (number <= bounds[:, 1])).all()
    assert len(datasets.load("restricted:imagenet", "train", limit=30)) == 30
    assert datasets.count("restricted:imagenet", "test") == len(data)
    shutil.rmtree(tmp_path / "imagenet" / "train" / "n00000007")
    shutil.rmtree(tmp_path / "imagenet" / "test" / "n00000007")
    with pytest.raises(ValueError, match="has 999 class folders"):
        datasets.load("restricted:imagenet", "test")
    with pytest.raises(ValueError, match="has 999 class folders"):
        datasets.count("restricted:imagenet", "test")


@pytest.mark.parametrize("name", ["digits", "faces", "shapes", "shapes-conflict"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_count_is_the_number_of_images(name, split):
    at_most = 8 if name.startswith("shapes") else None  # what is drawn is counted as it is drawn
    counted, loaded = datasets.count(name, split), datasets.load(name, split, limit=at_most)
    assert counted == (datasets.SHAPES_COUNT[split] if at_most else len(loaded))


def test_what_only_reading_tells_is_not_counted():
    assert datasets.count("cifar10", "train") is None and datasets.count("photographs", "test") is None
    with pytest.raises(ValueError, match="has no training images"):
        datasets.count("photographs", "train")
    with pytest.raises(ValueError, match="unknown cue 'colour'"):
        datasets.count("shapes-colour", "train")
