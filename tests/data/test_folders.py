"""Folders of images as people and systems leave them: nested, linked, mixed, oddly named, in part no images at all."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from lib.data import datasets, folders, styles
from lib.system import paths, progress

COLOURS = {"cat": (250, 0, 0), "dog": (0, 250, 0)}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    progress.say_once.cache_clear()
    return tmp_path


def put(folder, *names, colour=(9, 9, 9), mode="RGB"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 6), colour).convert(mode).save(folder / name, None if "." in name else "PNG")


def two(root, name="mine", splits=("train", "test"), names=("0.png", "1.png", "2.png")):
    for split in splits:
        for c, colour in COLOURS.items():
            put(root / name / split / c, *names, colour=colour)
    return root / name


def test_what_systems_leave_behind_is_no_data(root, capsys):
    there = two(root)
    for split in ("train", "test"):
        put(there / split / ".ipynb_checkpoints", "0-checkpoint.png")
        put(there / split / "cat" / ".ipynb_checkpoints", "0-checkpoint.png")
        put(there / split / "__MACOSX" / "cat", "0.png")
        (there / split / "cat" / "._0.png").write_bytes(b"\0\5\x16\7 no image")
        (there / split / "cat" / "Thumbs.db").write_bytes(b"no image")
        (there / split / ".DS_Store").write_bytes(b"")
    data = datasets.load("folder:mine", "train")
    assert data.classes == ("cat", "dog") and data.labels.bincount().tolist() == [3, 3]
    assert not capsys.readouterr().err


def test_every_layout_that_imagefolder_reads_is_read(root, tmp_path):
    """Nested folders, links to files and to folders, suffixes in capitals: the same files and labels as torchvision's."""
    there = two(root, splits=("train",))
    elsewhere = tmp_path / "elsewhere"
    put(elsewhere, "far.png", "deep/er.png", colour=COLOURS["dog"])
    put(there / "train" / "cat" / "2019", "9.png", "A.PNG", "b.JpEg", "winter/c.webp", colour=COLOURS["cat"])
    (there / "train" / "dog" / "linked").symlink_to(elsewhere)
    (there / "train" / "cat" / "linked.png").symlink_to(there / "train" / "cat" / "0.png")
    (there / "train" / "dog" / "more.png").mkdir()  # a folder that is called as an image
    put(there / "train" / "dog" / "more.png", "x.bmp", colour=COLOURS["dog"])
    theirs = torchvision.datasets.ImageFolder(there / "train")
    listed = {c: folders.images_below(there / "train" / c) for c in theirs.classes}
    ours = {(str(f), i) for i, c in enumerate(theirs.classes) for f in listed[c][0]}
    assert ours == set(theirs.samples) and len(ours) == 14 and not any(other for _, other in listed.values())
    data = datasets.load("folder:mine", "train", size=6)
    assert data.classes == tuple(theirs.classes) and len(data) == 14
    assert (data.images.mean((2, 3)).argmax(1) == data.labels).all()


def test_a_link_that_leads_back_up_is_followed_once(root):
    there = two(root)
    (there / "train" / "cat" / "again").symlink_to(there / "train" / "cat")
    assert len(datasets.load("folder:mine", "train")) == 6


def test_what_is_passed_over_is_counted_and_said_once(root, capsys):
    there = two(root)
    for name in ("a.heic", "b.heic", "notes.txt", "README"):
        (there / "train" / "cat" / name).write_bytes(b"?")
    (there / "train" / "dog" / "gone.png").symlink_to(there / "nowhere.png")
    put(there / "train", "loose.png")
    datasets.load("folder:mine", "train")
    said = capsys.readouterr().err
    assert said.startswith("folder:mine (train): 6 images are read; passed over: 2 .heic, ") and said.count("\n") == 1
    for part in ("1 .txt", "1 without a suffix", "1 links that lead nowhere", "1 images beside the folders of classes"):
        assert part in said
    datasets.load("folder:mine", "train")
    datasets.load("folder:mine", "test")
    assert not capsys.readouterr().err
    for file in (there / "test" / "dog").iterdir():
        file.rename(file.with_suffix(".heic"))
    with pytest.raises(FileNotFoundError, match=r"no images for class 'dog' \(but 3 \.heic\)"):
        datasets.load("folder:mine", "test")


def test_images_without_classes_are_pointed_at(root):
    put(root / "flat" / "train", "0.png", "1.png")
    with pytest.raises(FileNotFoundError, match=r"0 class folder\(s\) \(2 images beside them\).*<class>"):
        datasets.load("folder:flat", "train")
    (root / "file").write_bytes(b"a folder that is a file")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        datasets.load("folder:file", "train")


@pytest.mark.parametrize("grey", ["all", "but one", "but one of the other split"])
def test_one_grey_image_makes_no_set_grey(root, grey):
    """Which image is drawn first does not matter: each is the only coloured one in turn."""
    there = two(root)
    files = sorted((there / "train").rglob("*.png"))
    for file in sorted(there.rglob("*.png")):
        put(file.parent, file.name, mode="L")
    for file in files:
        if grey != "all":
            put(file.parent, file.name, colour=(250, 0, 0))
        loaded = datasets.load("folder:mine", "test" if "other" in grey else "train")
        assert loaded.channels == (1 if grey == "all" else 3)
        put(file.parent, file.name, mode="L")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16"])
def test_pictures_of_every_grey_mode_are_grey(root, mode):
    there = two(root)
    for file in there.rglob("*.png"):
        Image.new(mode if mode != "I;16" else "L", (6, 6)).convert(mode).save(file)
    assert datasets.load("folder:mine", "train").channels == 1


@pytest.mark.parametrize("name", ["with space", "fünf", "a#b", "50%", "[x]", "a*b?", "{c}", "$d", "deep/er", "'q\""])
def test_names_of_every_kind_work(root, name, monkeypatch):
    two(root, name)
    put(root / name / "train" / f"class {name.replace('/', ' ')}", "[0].png", "é.png", "a#1.png")
    put(root / name / "test" / f"class {name.replace('/', ' ')}", "[0].png")
    assert len(datasets.load(f"folder:{name}", "train")) == 9 and len(datasets.load(f"folder:{name}", "test").classes) == 3
    monkeypatch.setattr(styles, "MIN_SIDE", 6)
    assert len(styles._files(f"folder:{name}")) == 16


@pytest.mark.parametrize("name", ["../mine", "/etc", "a/../../b"])
def test_names_that_lead_out_of_the_root_are_refused(root, name):
    with pytest.raises(ValueError, match=r"expected the name of a folder below .*set STUDY_DATA"):
        datasets.load(f"folder:{name}", "train")
    with pytest.raises(ValueError, match="expected the name of a folder"):
        styles.check(f"folder:{name}")


def test_a_folder_without_nested_ones_keeps_its_order_and_fingerprint(root):
    """Keys of trained networks hang on both: as they were before nested folders were read."""
    there = two(root, names=("10.png", "2.png", "B.png", "a.png"))
    for i, file in enumerate(sorted(there.rglob("*.png"))):
        Image.fromarray(np.full((4, 4), 3 * i, np.uint8)).save(file)
    data = datasets.load("folder:mine", "train")
    flat = [f for c in ("cat", "dog") for f in sorted((there / "train" / c).glob("*"))]
    order = np.random.default_rng(0).permutation(8)
    expected = [np.asarray(Image.open(flat[i]))[0, 0] for i in order]
    assert (data.images[:, 0, 0, 0] * 255).round().tolist() == expected
    assert data.labels.tolist() == [int(i >= 4) for i in order]
    assert data.fingerprint == "4e30679cee53cdb5"


def test_a_locale_that_is_not_utf8_reads_the_same_set(root):
    there = two(root, "fünf")
    (there / "train" / "dog").rename(there / "train" / "hündchen")
    (there / "test" / "dog").rename(there / "test" / "hündchen")
    code = "from lib.data import datasets; d = datasets.load('folder:f\\xfcnf'); print(d.fingerprint, ascii(d.classes))"
    told = []
    for settings in ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONUTF8": "1"}):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=paths.PROJECT, env=os.environ | settings, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        told.append(done.stdout)
    assert told[0] == told[1] and rb"h\xfcndchen" in told[0]


def test_splits_that_are_there(root):
    two(root, splits=("test",))
    assert folders.has_split("mine", "test") and not folders.has_split("mine", "train")
    assert torch.equal(datasets.load("folder:mine", "test").labels.bincount(), torch.tensor([3, 3]))


def test_images_are_counted_without_one_being_opened(root, monkeypatch):
    two(root)
    monkeypatch.setattr(folders, "open_image", None)
    assert (datasets.count("folder:mine", "train"), datasets.count("folder:mine", "test")) == (6, 6)
    with pytest.raises(FileNotFoundError, match=r"\(train\): there is no folder"):
        datasets.count("folder:yours", "train")
