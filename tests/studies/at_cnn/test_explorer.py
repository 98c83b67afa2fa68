"""Study 2's explorer without a browser: widgets are traitlets, so setting a value does what a click does."""

import re

import pytest
import torch

from lib.runs import profiles
from lib.studies.at_cnn import explorer, measure, plan
from lib.system import paths
from tests.studies.attention_shift.test_explorer import OWN, png, upload

P = profiles.parameters("02-at-cnn", "smoke")


@pytest.fixture(scope="module")
def explore(tmp_path_factory):
    """On the study's own networks; what it begins with has a test below."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(tmp_path_factory.mktemp("home")))
        found = explorer.explorer(P)
        assert not paths.models().exists()  # nothing is trained before it is asked for
        found.controls["arch"].value = "linf-4"
        yield found


def test_every_control_is_labelled_and_there_is_a_picture(explore):
    assert {c.description for c in explore.controls.values()} == {
        "network",
        "own network",
        "image",
        "upload an image",
        "change",
        "saturation p",
        "pieces k × k",
        "style",
        "strength α",
        "PGD eps, L∞",
        "explain by",
    }
    assert "data:image/png;base64,iVBOR" in explore.picture.value
    assert "Standard: <b>" in explore.status.value and "PGD-L∞ 4/255: <b>" in explore.status.value


def test_random_signs_stand_beside_the_attack(explore):
    found = {n.name: n for n in explore.view.numbers}
    assert explore.controls["eps"].value > 0 and explore.status.value.count("random signs of the same size: <b>") == 2
    assert found["PGD-L∞ 4/255: edge agreement under random signs of the same size"].unit == explorer.EDGES
    assert found["Standard: largest change of a pixel by the attack"].value == pytest.approx(4 / 255, abs=1e-6)


@pytest.mark.parametrize(("size", "cut"), [(256, [1, 2, 4, 8]), (75, [])])
def test_pieces_are_those_that_every_network_in_view_can_be_cut_into(explore, tmp_path, size, cut):
    """The published one sees 224 pixels."""
    (tmp_path / f"own{size}.py").write_text(
        "from torch import nn\ndef net():\n    found = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), "
        f"nn.Flatten(), nn.Linear(4, 3))\n    found.size = {size}\n    return found\n"
    )
    c, before = explore.controls, explore.controls["arch"].value
    c["network"].field.value = f"{tmp_path}/own{size}.py:net"
    assert c["own"].size == size and ("patch shuffle" in c["how"].options) == bool(cut)
    assert not cut or [k for _, k in c["k"].options] == cut
    assert "cannot be cut" not in explore.status.value and "as it is" in explore.status.value
    c["network"].back.click()
    assert c["own"].size != size
    c["arch"].value = before


def test_its_code_makes_the_same_view(explore):
    shown = {}
    exec(explore.code(), shown)
    assert shown["view"].text == explore.view.text and shown["view"].numbers == explore.view.numbers


@pytest.mark.parametrize(
    ("control", "value"),
    [
        ("image", 7),
        ("how", "saturation"),
        ("p_level", 1.0),
        ("how", "patch shuffle"),
        ("k", 2),
        ("how", "style (AdaIN)"),
        ("style", 3),
        ("alpha", 0.25),
        ("how", "Fourier amplitude of the style"),
        ("eps", 0.0),
        ("method", "guided"),
        ("method", "ig"),
        ("arch", "l2-1.14"),
    ],
)
def test_each_control_changes_the_picture(explore, control, value):
    before = explore.picture.value
    assert not explore.controls[control].disabled
    explore.controls[control].value = value
    awake = {n for n in ("p_level", "k", "style", "alpha") if not explore.controls[n].disabled}
    assert awake == set(explorer.CHANGES[explore.controls["how"].value][1])  # what a change does not listen to is greyed out
    assert explore.picture.value != before and "edge agreement" in explore.status.value


def test_the_curve_is_over_the_change_or_over_radii(explore):
    c = explore.controls
    c["how"].value, c["eps"].value = "saturation", 0.0
    explore.ask.click()
    assert (
        "median and quartiles over 24 images" in explore.over.value and "Standard, saturation p 2: median" in explore.over.value
    )
    c["eps"].value = 4 / 255
    assert explore.over.value == ""
    explore.ask.click()
    assert "Standard, random signs, eps of 255, L∞, after the change “saturation” 4: median" in explore.over.value


def test_the_next_image_that_is_taken_for_something_else(explore):
    c = explore.controls
    c["how"].value = "patch shuffle"
    before = c["image"].value
    explore.next.click()
    decisions = re.findall(r"<b>(.*?)</b> as it is, <b>(.*?)</b> shown", explore.status.value)
    assert c["image"].value != before and any(a != b for a, b in decisions)


def test_upload(explore):
    """Of one colour, so that it has no edges that a map could agree with."""
    explore.controls["how"].value = "none"
    upload(explore.controls["own"], png(), "mine.png")
    assert "edge agreement of the map not defined: map or image is flat" in explore.status.value
    assert not any("nan" in str(n.value) for n in explore.view.numbers) and "nan" not in explore.status.value
    before = explore.picture.value
    upload(explore.controls["own"], b"just text", "text.png")
    assert "text.png cannot be read" in explore.controls["own"].said.value and explore.picture.value == before
    explore.controls["own"].leave()


def test_it_begins_with_a_published_network_on_a_shuffled_photograph(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))  # nothing is trained for it
    found = explorer.explorer(P).update()
    c = found.controls
    assert c["arch"].label == "EfficientNet-Lite0, published" and c["own"].size == 224 and c["how"].value == "patch shuffle"
    assert "<b>folding chair</b> as it is, <b>folding chair</b> shown" in found.status.value
    assert "style (AdaIN)" not in c["how"].options and "guided" not in dict(c["method"].options).values()
    c["method"].value = "gradient"
    c["how"].value = "saturation"
    assert "<b>folding chair</b> as it is, <b>paddlewheel</b> shown" in found.status.value
    (tmp_path / "mine.py").write_text(OWN)
    c["network"].field.value = f"{tmp_path}/mine.py:net"
    assert re.search(r"EfficientNet-Lite0: .*<br>mine\.py:net: <b>[012]</b> as it is", found.status.value)
    c["arch"].value = "linf-4"
    assert c["network"].value == "" and c["own"].size == P.size and "Standard: <b>" in found.status.value
    assert "style (AdaIN)" in c["how"].options and c["method"].value == "gradient"


def test_the_explorers_changes_are_the_studys(explore):
    """What is shown for image 5 is what was measured for image 5."""
    data, painter, ids = plan.evaluation_set(P), measure.painter(P), torch.tensor([5])
    options = {
        "p_level": 1024.0,
        "k": 8,
        "keys": [5],
        "style": measure.style_rows(P, ids),
        "alpha": P.alpha,
        "painter": painter,
    }
    views = {v.kind: v.images for v in measure.views(P, ids)}
    for how, kind in zip(explorer.TRANSFORMS, ("clean", "saturation", "shuffle", "style", "fourier"), strict=True):
        torch.testing.assert_close(explorer.transformed(data.images[ids], how, **options), views[kind])
    with pytest.raises(ValueError, match="unknown transformation 'blur'"):
        explorer.transformed(data.images[ids], "blur", **options)
