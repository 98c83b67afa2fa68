"""Photographs with ImageNet's labels: those in packages, folders laid out as the validation set, and how they are cut."""

import numpy as np
import pytest
import torch
from PIL import Image

from lib.data import datasets, imagenet, images


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    return tmp_path


def validation_set(root, split="val", wnids=("n01440764", "n02123159", "n15075141"), each=2):
    rng = np.random.default_rng(0)
    for i, wnid in enumerate(wnids):
        folder = root / "sample" / split / wnid
        folder.mkdir(parents=True)
        for k in range(each):
            pixels = rng.integers(0, 256, (40 + 4 * i, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"ILSVRC2012_val_{k:08d}.JPEG")


def test_photographs_are_embedded_with_their_labels(root):
    data = datasets.load("photographs", "test")
    assert tuple(data.images.shape) == (22, 3, 224, 224) and len(data.classes) == 1000
    names = [data.classes[int(y)] for y in data.labels]
    assert names[:5] == ["bull mastiff", "folding chair", "beaker", "buckeye", "strawberry"]
    assert names[20:] == ["tiger cat", "espresso"] and not list(root.iterdir())
    assert datasets.load("photographs", "test", size=64, limit=3).images.shape == (3, 3, 64, 64)
    assert datasets.load("photographs", "test", size=64, channels=1).images.shape[1] == 1


def test_there_is_nothing_to_train_on(root):
    validation_set(root)
    for name in ("photographs", "imagenet:sample"):
        with pytest.raises(ValueError, match="no training images: it is for evaluation"):
            datasets.load(name, "train")


def test_class_names_and_numbers_are_those_of_imagenet():
    names, wnids = imagenet.class_names(), imagenet.wnids()
    assert len(set(names)) == len(set(wnids)) == 1000 and list(wnids) == sorted(wnids)
    for number, name, wnid in ((0, "tench", "n01440764"), (282, "tiger cat", "n02123159"), (684, "ocarina", "n03840681")):
        assert names[number] == name and wnids[number] == wnid


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_part_of_the_validation_set_keeps_imagenets_numbers(root, split):
    validation_set(root, split)
    (root / "sample" / split / ".ipynb_checkpoints").mkdir()
    (root / "sample" / split / "@eaDir").mkdir()
    (root / "sample" / split / "n01440764" / "._ILSVRC2012_val_00000000.JPEG").write_bytes(b"left behind")
    data = datasets.load("imagenet:sample", "test", size=32)
    assert datasets.count("imagenet:sample", "test") == 6
    assert sorted(data.labels.tolist()) == [0, 0, 282, 282, 999, 999] and data.classes[282] == "tiger cat"
    assert isinstance(data.images, datasets.ImageFiles)  # decoded batch by batch, whatever their number
    assert data.images[:2].shape == (2, 3, 32, 32)
    assert datasets.load("imagenet:sample", "test", limit=4).labels.tolist() == data.labels[:4].tolist()


def test_a_divided_set_has_a_part_to_tune_on_and_one_held_out(root):
    """Ten photographs: by hand, numpy's permutation of 10 from seed 0 is 4 6 2 7 3 5 9 | 0 8 1, in the order of names."""
    validation_set(root, wnids=("n01440764", "n02123159"), each=5)
    assert datasets.has_split("imagenet:divided:sample", "train") and not datasets.has_split("imagenet:sample", "train")
    train, test = (datasets.load("imagenet:divided:sample", split, size=32) for split in ("train", "test"))
    numbers = [sorted(5 * (d.labels[i] > 0) + int(f.stem[-1]) for i, f in enumerate(d.images.files)) for d in (train, test)]
    assert numbers == [[2, 3, 4, 5, 6, 7, 9], [0, 1, 8]]
    assert [datasets.count("imagenet:divided:sample", split) for split in ("train", "test")] == [7, 3]
    assert (train.name, train.split, test.split) == ("imagenet:divided:sample", "train", "test") and len(train.classes) == 1000
    assert datasets.load("imagenet:divided:sample", "train", limit=3).labels.tolist() == train.labels[:3].tolist()
    with pytest.raises(FileNotFoundError, match="data set 'imagenet:other': there is neither"):
        datasets.load("imagenet:divided:other", "train")


def test_what_is_no_validation_set_is_refused(root):
    with pytest.raises(FileNotFoundError, match=r"neither .*sample/val nor .*sample/test"):
        datasets.load("imagenet:sample", "test")
    validation_set(root, wnids=("n01440764", "cats"))
    with pytest.raises(ValueError, match=r"cats is not named by a WordNet number .* use folder:sample"):
        datasets.load("imagenet:sample", "test")


def test_a_thousand_other_classes_are_not_those(root):
    """1,000 folders of ImageNet-21k, say: their order is not the order of the classes."""
    for i in range(1000):
        (root / "sample" / "val" / f"n{i:08d}").mkdir(parents=True)
        (root / "sample" / "val" / f"n{i:08d}" / "0.JPEG").touch()
    with pytest.raises(ValueError, match="is none of the 1,000 classes of ILSVRC 2012"):
        datasets.load("imagenet:sample", "test")
    with pytest.raises(ValueError, match="leads out of it"):
        datasets.load("imagenet:../sample", "test")


def test_a_wordnet_number_that_is_no_class_is_refused(root):
    validation_set(root, wnids=("n00000001",))
    with pytest.raises(ValueError, match="n00000001 is none of the 1,000 classes"):
        datasets.load("imagenet:sample", "test")


def test_an_empty_validation_set_is_refused(root):
    (root / "sample" / "val" / "n01440764").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no image below"):
        datasets.load("imagenet:sample", "test")


def test_a_class_without_images_is_refused_and_what_is_passed_over_said(root, capsys):
    validation_set(root, wnids=("n01440764",))
    (root / "sample" / "val" / "n01440764" / "a.heic").touch()
    datasets.load("imagenet:sample", "test")
    assert "imagenet:sample: " in (said := capsys.readouterr().err) and "images are read; passed over: 1 .heic" in said
    (root / "sample" / "val" / "n01443537").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no images below .*n01443537\. A copy that was cut short looks like this"):
        datasets.load("imagenet:sample", "test")


def test_photographs_are_cut_as_imagenets_classifiers_expect():
    """The shorter side to 256, the centre 224: a frame of 16 of 256 pixels at either end of the shorter side is gone."""
    picture = np.full((512, 768, 3), 255, np.uint8)
    picture[32:480, 160:608] = 0  # exactly the part that stays
    x = images.to_tensor(Image.fromarray(picture), size=224, crop="imagenet")
    assert x.shape == (3, 224, 224) and float(x[:, 2:-2, 2:-2].max()) == 0
    whole = images.to_tensor(Image.fromarray(picture), size=224)
    assert float(whole[:, 0].min()) == 1
    ready = Image.fromarray(np.arange(224 * 224 * 3, dtype=np.uint32).astype(np.uint8).reshape(224, 224, 3))
    assert torch.equal(images.to_tensor(ready, size=224, crop="imagenet"), images.to_tensor(ready))
