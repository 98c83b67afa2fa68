"""Study 2's explorer without a browser: widgets are traitlets, so setting a value does what a click does."""

import pytest
import torch

from lib.runs import profiles
from lib.studies.at_cnn import explorer, measure, plan
from tests.studies.attention_shift.test_explorer import png, upload


@pytest.fixture(scope="module")
def explore(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(tmp_path_factory.mktemp("home")))
        yield explorer.explorer(profiles.parameters("02-at-cnn", "smoke")).update()


def test_every_control_is_labelled_and_there_is_a_picture(explore):
    assert {c.description for c in explore.controls.values()} == {
        "beside it",
        "image",
        "upload an image",
        "change",
        "saturation p",
        "shuffle k",
        "style",
        "style alpha",
        "PGD eps",
        "explain by",
    }
    assert "data:image/png;base64,iVBOR" in explore.picture.value
    assert "Standard: <b>" in explore.status.value and "PGD-L∞ 4/255: <b>" in explore.status.value


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
        ("eps", 4 / 255),
        ("method", "guided"),
        ("method", "ig"),
        ("arm", "l2-1.14"),
    ],
)
def test_each_control_changes_the_picture(explore, control, value):
    before = explore.picture.value
    explore.controls[control].value = value
    assert explore.picture.value != before and "edge agreement" in explore.status.value


def test_upload(explore):
    upload(explore.controls["own"], png(), "mine.png")
    assert "total variation" in explore.status.value
    before = explore.picture.value
    upload(explore.controls["own"], b"just text", "text.png")
    assert "text.png cannot be read" in explore.controls["own"].said.value and explore.picture.value == before
    explore.controls["own"].leave()


def test_the_explorers_changes_are_the_studys(explore, monkeypatch):
    """What is shown for image 5 is what was measured for image 5."""
    p = profiles.parameters("02-at-cnn", "smoke")
    data = plan.evaluation_set(p)
    painter = measure.painter(p)
    ids = torch.tensor([5])
    options = {"p": 1024.0, "k": 8, "key": 5, "style": measure.style_rows(p, ids), "alpha": p.alpha, "painter": painter}
    views = {v.kind: v.images for v in measure.views(p, ids)}
    for how, kind in zip(explorer.TRANSFORMS, ("clean", "saturation", "shuffle", "style", "fourier"), strict=True):
        torch.testing.assert_close(explorer.transformed(data.images[ids], how, **options), views[kind])
    with pytest.raises(ValueError, match="unknown transformation 'blur'"):
        explorer.transformed(data.images[ids], "blur", **options)
