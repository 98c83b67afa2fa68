"""`shapes` is an instrument: each cue suffices alone, nothing else tells the class."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lib.data import datasets, shapes
from lib.training import cache, evaluate
from lib.training import config as config_


@pytest.fixture(scope="module")
def drawn():
    return {cue: shapes.draw(200, cue=cue, split="test") for cue in shapes.CUES}


def test_ranges_and_balance(drawn):
    for d in drawn.values():
        assert d.images.min() >= 0 and d.images.max() <= 1
        assert (np.bincount(d.labels) == 20).all()


def test_cues_are_what_the_table_says(drawn):
    assert (drawn["both"].shapes == drawn["both"].labels).all() and (drawn["both"].textures == drawn["both"].labels).all()
    assert (drawn["shape"].shapes == drawn["shape"].labels).all()
    assert (drawn["texture"].textures == drawn["texture"].labels).all()
    conflict = drawn["conflict"]
    assert (conflict.shapes == conflict.labels).all() and not (conflict.textures == conflict.labels).any()
    for cue, free in (("shape", "textures"), ("texture", "shapes"), ("neither", "shapes"), ("neither", "textures")):
        assert (getattr(drawn[cue], free) == drawn[cue].labels).mean() < 0.2  # chance is 0.1


def test_masks_and_boxes_are_exact(drawn):
    d = drawn["both"]
    for mask, (top, left, bottom, right) in zip(d.masks, d.boxes, strict=True):
        assert mask[top:bottom, left:right].any(0).all() and mask[top:bottom, left:right].any(1).all()
        assert mask.sum() == mask[top:bottom, left:right].sum()
    share = d.masks.mean((1, 2))
    assert share.min() > 0.8 * shapes.AREA[0] and share.max() < 1.2 * shapes.AREA[1]


def test_an_image_depends_on_nothing_but_its_index():
    a, b = shapes.draw(30, split="train"), shapes.draw(10, split="train")
    assert np.array_equal(a.images[:10], b.images)
    assert not np.array_equal(shapes.draw(10, split="test").images, b.images)


def test_training_and_test_textures_are_disjoint_parts():
    for name in shapes.TEXTURES:
        for size in shapes.SIZES:
            train, test = (shapes.texture(name, split, size) for split in ("train", "test"))
            assert train.shape[1] > test.shape[1] >= 0.5 * size
            assert abs(train.mean()) < 0.2 and 0.3 < train.std() < 1.2


def test_both_sizes_show_the_same_world():
    small, large = shapes.draw(40, size=32), shapes.draw(40, size=64)
    assert abs(small.masks.mean() - large.masks.mean()) < 0.02
    assert large.images.shape == (40, 3, 64, 64)


@pytest.mark.parametrize("bad", [{"cue": "colour"}, {"split": "val"}, {"size": 48}])
def test_unknown_options_are_refused(bad):
    with pytest.raises(ValueError, match="choose one of"):
        shapes.draw(1, **bad)


def statistics(d: shapes.Drawn) -> np.ndarray:
    """What might tell the class without being a cue: mean and spread of each channel inside and outside, area, place."""
    rows = []
    for image, mask in zip(d.images, d.masks, strict=True):
        # the rim is part object, part background, and its length is part of the shape: the interior is what is asked
        inside, outside = image[:, binary_erosion(mask)], image[:, ~mask]
        y, x = np.nonzero(mask)
        place = [mask.sum(), y.mean(), x.mean()]
        rows.append([*inside.mean(1), *inside.std(1), *outside.mean(1), *outside.std(1), *place, *image.mean((1, 2))])
    return np.array(rows)


def test_nothing_but_shape_and_texture_tells_the_class():
    train, test = shapes.draw(2000, split="train"), shapes.draw(1000, split="test")
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    score = probe.fit(statistics(train), train.labels).score(statistics(test), test.labels)
    assert score < 0.15, score  # chance is 0.1, three standard errors are 0.028


def test_each_cue_alone_suffices_and_without_a_cue_there_is_nothing(home):
    """A small network trained on one cue alone reads it (>= 90 %, half of the data); trained on neither it stays at chance."""
    for cue, epochs in (("shape", 4), ("texture", 10)):  # textures take longer to learn
        config = config_.TrainConfig(
            dataset=f"shapes-{cue}", arch="plain", limit=2400, epochs=epochs, augment=("flip", "shift")
        )
        network = cache.trained(config)
        right = evaluate.accuracy(network.model, datasets.load(f"shapes-{cue}", "test"))
        blind = evaluate.accuracy(network.model, datasets.load("shapes-neither", "test"))
        assert right >= 0.9, (cue, right)
        assert blind < 0.14, (cue, blind)  # chance 0.1, three standard errors 0.028 at 1,000 images
    config = config_.TrainConfig(dataset="shapes-neither", arch="plain", epochs=3, limit=2000)
    assert evaluate.accuracy(cache.trained(config).model, datasets.load("shapes-neither", "test")) < 0.14


def test_the_network_of_the_study_sees_the_class(home):
    config = config_.TrainConfig(dataset="shapes", arch="plain", epochs=3, limit=2000)
    network = cache.trained(config)
    assert evaluate.accuracy(network.model, datasets.load("shapes", "test")) > 0.8
    conflict = datasets.load("shapes-conflict", "test")
    predicted = evaluate.predictions(network.model, conflict.images)
    by_shape = (predicted == conflict.attributes["shape"]).float().mean()
    by_texture = (predicted == conflict.attributes["texture"]).float().mean()
    assert torch.tensor(0.4) < by_shape + by_texture <= 1  # it goes by one of the two cues, whichever
