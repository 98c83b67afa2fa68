"""The explorer without a browser: widgets are traitlets, so setting a value does what a click does."""

import io
from datetime import UTC, datetime

import pytest
from PIL import Image

from lib.figures import widgets
from lib.networks import models
from lib.studies.attention_shift import explorer, plan
from tests.data.test_images import bomb


def png(size=(40, 30), colour=(200, 30, 90)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def explore(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(tmp_path_factory.mktemp("home")))
        yield explorer.explorer(plan.Parameters(train_images=256, epochs=2))


def upload(control, content: bytes, name: str) -> None:
    file = {"name": name, "type": "image/png", "size": len(content), "content": memoryview(content)}
    control.file.value = (file | {"last_modified": datetime.now(UTC)},)


def test_every_control_is_labelled(explore):
    assert {c.description for c in explore.controls.values()} == {
        "data set",
        "network",
        "image",
        "upload an image",
        "attack",
        "eps",
        "conv stage",
        "method",
        "explain the",
    }


def test_starts_with_a_picture_and_its_numbers(explore):
    assert bytes(explore.picture.value).startswith(b"\x89PNG")
    assert "before:" in explore.status.value and "NISSIM" in explore.status.value


@pytest.mark.parametrize(
    ("control", "value"),
    [
        ("image", 7),
        ("eps", 0.1),
        ("attack", "pgd"),
        ("attack", "noise"),
        ("stage", 1),
        ("method", "gradcam++"),
        ("explain", "true class"),
        ("arch", "residual"),
        ("dataset", "shapes-conflict"),
        ("dataset", "digits"),
    ],
)
def test_each_control_changes_picture_and_numbers_together(explore, control, value):
    before = explore.picture.value
    explore.controls[control].value = value
    assert explore.picture.value != before
    assert "NISSIM" in explore.status.value


def test_without_attack_nothing_moves(explore):
    explore.controls["attack"].value = "none"
    assert "NISSIM <b>0.000</b>" in explore.status.value
    explore.controls["attack"].value = "fgsm"


def test_cam_is_refused_where_it_is_not_defined_and_the_picture_stays(explore):
    explore.controls["stage"].value = 1
    before = explore.picture.value
    explore.controls["method"].value = "cam"
    assert "CAM is not defined here" in explore.status.value and explore.picture.value == before
    explore.controls["method"].value = "gradcam"


def test_upload(explore):
    upload(explore.controls["own"], png(), "mine.png")
    assert "NISSIM" in explore.status.value
    for content, name, message in (
        (b"just text", "text.png", "text.png cannot be read as an image: its content is none of PNG"),
        (bomb(60_000), "bomb.png", "bomb.png"),
        (png()[:60], "cut.png", "cut.png cannot be read"),
    ):
        before = explore.picture.value
        upload(explore.controls["own"], content, name)
        assert message in explore.controls["own"].said.value and explore.picture.value == before
        assert "NISSIM" in explore.status.value  # it goes on with the picture before
    explore.controls["own"].leave()
    assert "NISSIM" in explore.status.value


def test_render_is_pure():
    model = models.create("plain", classes=10).eval()
    data = plan.evaluation_set(plan.Parameters(images=8))
    options = {"attack": "fgsm", "eps": 0.05, "layer": "stage3", "method": "gradcam", "explain": "predicted class"}
    drawn = [explorer.draw(model, data.images[:1], 0, data.classes, **options) for _ in range(2)]
    pictures, texts = zip(*drawn, strict=True)
    assert texts[0] == texts[1] and widgets.png(pictures[0]) == widgets.png(pictures[1])
    for wrong, message in (
        ({"attack": "fgms"}, "unknown attack 'fgms'; did you mean fgsm"),
        ({"method": "grad-cam"}, "unknown explanation 'grad-cam'; did you mean gradcam"),
    ):
        with pytest.raises(ValueError, match=message):
            explorer.draw(model, data.images[:1], 0, data.classes, **options | wrong)


def test_text_from_class_names_is_escaped():
    model = models.create("plain", classes=2).eval()
    x = plan.evaluation_set(plan.Parameters(images=8)).images[:1]
    options = {"attack": "none", "eps": 0.0, "layer": "stage3", "method": "gradcam", "explain": "predicted class"}
    fig, text = explorer.draw(model, x, 0, ("<script>", "<b>"), **options)
    widgets.png(fig)
    assert "<script>" not in text
