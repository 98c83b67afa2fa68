"""Study 4's explorer without a browser: widgets are traitlets, so setting a value does what a click does."""

import re

import pytest
import torch

from lib.data import datasets
from lib.runs import profiles
from lib.studies.model_manipulation import explorer
from lib.system import paths
from lib.training import cache
from tests.conftest import toy
from tests.studies.attention_shift.test_explorer import png, upload

P = profiles.parameters("04-model-manipulation", "smoke").model_copy(update={"tune_epochs": 1, "tune_images": 32})


@pytest.fixture(scope="module")
def explore(tmp_path_factory):
    """On the study's own networks; what it begins with has a test below."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(tmp_path_factory.mktemp("home")))
        found = explorer.explorer(P)
        assert not paths.models().exists()  # nothing is trained before it is asked for
        found.controls["arch"].value = "plain"
        yield found


def test_every_control_is_labelled_and_numbers_say_what_they_were_counted_over(explore):
    labels = {c.description for c in explore.controls.values()}
    assert labels == {"network", "fooling", "tuned epochs", "look with", "image", "upload an image"}
    assert "data:image/png;base64,iVBOR" in explore.picture.value
    assert re.search(r"success rate \d+ %, empty maps \d+ %, accuracy \d+ %, over 12 test images", explore.status.value)
    over = {n.name: n.over for n in explore.view.numbers}
    assert over["success rate"] == over["accuracy"] == "12 test images" and over["predicted class, original"] == "this image"
    assert {"LRP_T (relevance at T)", "SimpleG_T (gradient at T)"} <= dict(explore.controls["name"].options).keys()


def test_its_code_makes_the_same_view(explore):
    shown = {}
    exec(explore.code(), shown)
    assert shown["view"].text == explore.view.text and shown["view"].numbers == explore.view.numbers


@pytest.mark.parametrize(
    ("control", "value"),
    [("image", 7), ("epoch", 0), ("name", "lrp_t"), ("name", "smoothgrad"), ("arm", "active-lrp_t"), ("arm", "none")],
)
def test_each_control_changes_the_picture(explore, control, value):
    before = explore.picture.value
    explore.controls[control].value = value
    assert explore.picture.value != before and "accuracy" in explore.status.value


def test_the_control_has_no_success_that_could_be_sought_or_drawn(explore):
    explore.controls["arm"].value = "none"
    for button in (explore.next, explore.ask):
        button.click()
        assert "the control aims at nothing" in explore.status.value and "choose another “fooling”" in explore.status.value


def test_the_curve_is_over_the_epochs_beside_weights_moved_as_far(explore):
    c = explore.controls
    c["arm"].value, c["name"].value, c["epoch"].value = "location-gradcam", "gradcam", 1
    explore.ask.click()
    assert "median and quartiles over 12 test images" in explore.over.value and "shaded: fooled" in explore.over.value
    for label in ("location through Grad-CAM", "weights moved as far at random"):
        assert f"{label}, tuned epochs 1: median" in explore.over.value
    explore.next.click()  # after an epoch hardly any is
    found = re.search(r"is the same<br>t of \S+ [\d.]+, fooled", explore.status.value)
    assert (found is None) == ("no other image is fooled" in explore.status.value)


@pytest.mark.parametrize("arm", ["location-gradcam", "active-lrp_t"])
def test_upload(explore, arm):
    explore.controls["arm"].value = arm
    upload(explore.controls["own"], png(), "mine.png")
    assert "accuracy" in explore.status.value and "nan" not in explore.status.value
    assert ("over 8 mosaics; accuracy" in explore.status.value) == arm.startswith("active")
    before = explore.picture.value
    upload(explore.controls["own"], b"just text", "text.png")
    assert "text.png cannot be read" in explore.controls["own"].said.value and explore.picture.value == before
    explore.controls["own"].leave()


def test_a_run_that_fools_the_published_network_shows_its_own_foolings(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))
    p = P.model_copy(update={"architectures": ("plain", "efficientnet-lite0"), "weights": "imagenet"})
    c = explorer.explorer(p).controls
    assert list(dict(c["arch"].options).values()) == ["efficientnet-lite0", "plain"] and c["epoch"].max == p.tune_epochs
    assert "active-lrp_t" in dict(c["arm"].options).values() and "guided" not in dict(c["name"].options).values()
    assert len(c["image"].options) == 12 and c["own"].size == 32  # test images of the run
    assert not paths.models().exists()
    c["arch"].value = "plain"
    assert "guided" in dict(c["name"].options).values()


def test_where_a_map_is_empty_that_is_said_and_no_number_is_nan():
    maps = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    empty = maps.clone()
    empty[:, 1] = 0
    told, numbers = explorer.one_image("active", empty, maps, None, ["cat", "<b>"], "manipulated")
    assert "t of &lt;b&gt; not defined" in told and "nan" not in told
    assert [isinstance(n.value, float) for n in numbers] == [True, False] and numbers[1].value == explorer.EMPTY
    said = explorer.nothing_in("active", {"original": maps, "manipulated": empty}, ["cat", "<b>"])
    assert said == "the manipulated network's map of &lt;b&gt; is empty, so there is nothing to swap"
    assert explorer.nothing_in("location", {"original": maps[:, 0]}, ["cat"]) == ""
    told, _ = explorer.one_image("centre", empty[:, 1], maps[:, 1], None, ["cat"], "manipulated")
    assert told == "t of cat not defined"


def test_the_control_moves_every_weight_as_far():
    a, b = toy(0), toy(1)
    moved = explorer.as_far(a, b)
    for was, goes, by_chance in zip(a.parameters(), b.parameters(), moved.parameters(), strict=True):
        torch.testing.assert_close((by_chance - was).abs(), (goes - was).abs())
    assert not torch.equal(moved.conv1.weight, b.conv1.weight) and torch.equal(a.conv1.weight, toy(0).conv1.weight)


def test_it_begins_with_a_published_network_that_it_fools_on_photographs(tmp_path, monkeypatch):
    """On four of them, for an epoch, so that it takes no time: the map is on its way to the frame."""
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))
    few = datasets.load("photographs", "test", size=224, channels=3).head(4)
    monkeypatch.setattr(explorer, "_photographs", lambda split: few)
    monkeypatch.setattr(explorer, "EPOCHS", 1)
    monkeypatch.setattr(explorer, "FIRST", 3)
    monkeypatch.setitem(datasets.EMBEDDED, explorer.PHOTOGRAPHS, None)  # so that it is gone after the test
    cache.images_of.cache_clear()
    found = explorer.explorer(P)
    assert not paths.models().exists()
    c = found.update().controls
    assert c["arch"].label == "EfficientNet-Lite0, published" and c["own"].size == 224 and c["image"].label == "3: buckeye"
    assert [arm for _, arm in c["arm"].options] == ["location-gradcam"] and "guided" not in dict(c["name"].options).values()
    tuned, moved = (n.value for n in found.view.numbers if n.name.startswith("t of buckeye"))
    assert tuned < moved and "accuracy" in found.status.value
    assert "over 4 photographs that it was tuned on" in found.status.value
    assert "A network of your own is not offered here" in found.status.value
    cache.images_of.cache_clear()
