"""The explorer without a browser: widgets are traitlets, so setting a value does what a click does."""

import io
import re
from datetime import UTC, datetime

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from lib.figures import use_style
from lib.figures.explorer import img
from lib.networks import models
from lib.studies.attention_shift import explorer, plan
from tests.data.test_images import bomb


def png(size=(40, 30), colour=(200, 30, 90)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def explore(tmp_path_factory):
    """On the study's own networks and data; what it begins with has tests below."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(tmp_path_factory.mktemp("home")))
        found = explorer.explorer(plan.Parameters(train_images=256, epochs=2))
        found.controls["arch"].value = "plain"
        yield found


def upload(control, content: bytes, name: str) -> None:
    file = {"name": name, "type": "image/png", "size": len(content), "content": memoryview(content)}
    control.file.value = (file | {"last_modified": datetime.now(UTC)},)


def test_every_control_is_labelled(explore):
    assert {c.description for c in explore.controls.values()} == {
        "data set",
        "network",
        "own network",
        "image",
        "upload an image",
        "attack",
        "eps, of [0, 1]",
        "conv stage",
        "method",
        "explain the",
    }


def test_starts_with_a_picture_and_its_numbers(explore):
    assert "data:image/png;base64,iVBOR" in explore.picture.value
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


def test_what_cannot_go_together_gives_way(explore):
    """CAM is read off the last stage: the choice that was made last stands."""
    c = explore.controls
    c["stage"].value = 1
    c["method"].value = "cam"
    assert c["stage"].value == c["stage"].max == 3 and "NISSIM" in explore.status.value
    c["stage"].value = 2
    assert c["method"].value == "gradcam" and "NISSIM" in explore.status.value


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


def test_it_begins_with_a_published_network_whose_decision_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))  # nothing is trained for it
    found = explorer.explorer(plan.Parameters())
    with plt.rc_context():
        use_style()  # as a notebook of the study does
        c = found.update().controls
    assert c["arch"].label == "EfficientNet-Lite0, published" and c["dataset"].value == "photographs" and c["own"].size == 224
    before, after = (re.search(rf"{when}: <b>(.*?)</b>", found.status.value)[1] for when in ("before", "after"))
    assert before != after and "random signs of the same size: 0.0" in found.status.value
    assert {n.unit for n in found.view.numbers if n.name.startswith("NISSIM")} == {explorer.UNIT}
    shown = {}
    with plt.rc_context():
        plt.rcdefaults()  # as where nobody has started a notebook of the study
        exec(found.code(), shown)
        assert img(shown["view"]._repr_png_(), found.view.plain) == found.picture.value
    assert shown["view"].text == found.view.text and shown["view"].numbers == found.view.numbers


OWN = """
import torch
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
                               torch.nn.Linear(4, 3))
"""


def test_a_network_of_ones_own(tmp_path, explore):
    (tmp_path / "mine.py").write_text(OWN)
    c = explore.controls
    c["network"].field.value = f"{tmp_path}/mine.py:absent"
    assert "absent" in c["network"].said.value and "NISSIM" in explore.status.value
    c["network"].field.value = f"{tmp_path}/mine.py:net"
    assert "NISSIM" in explore.status.value and c["dataset"].value == "photographs" and c["own"].size == 224
    assert re.search(r"before: <b>[012]</b>", explore.status.value)
    (tmp_path / "mine.py").write_text(OWN.replace("Linear(4, 3)", "Linear(4, 1)"))
    c["network"].back.click()
    c["network"].field.value = f"{tmp_path}/mine.py:net"  # edited in the meantime
    assert re.search(r"before: <b>[01]</b>", explore.status.value) and "decision" not in explore.status.value
    c["arch"].value = "plain" if c["arch"].value != "plain" else "residual"
    assert c["network"].value == "" and c["dataset"].value == "shapes" and c["own"].size == 32


def test_the_next_image_and_the_curve(explore):
    c = explore.controls
    c["arch"].value = "plain"
    c["arch"].value = "efficientnet-lite0"
    explore.next.click()
    before, after = (re.search(rf"{when}: <b>(.*?)</b>", explore.status.value)[1] for when in ("before", "after"))
    assert before != after and c["image"].value > 0
    c["arch"].value = "plain"
    explore.ask.click()
    assert "median and quartiles over 16 images" in explore.over.value and "random signs, eps" in explore.over.value


def test_what_is_sought_is_what_the_view_attacks(explore):
    """Away from the label, as the view does, also where the network is wrong before."""
    c = explore.controls
    c["arch"].value = "plain"
    c["arch"].value = "efficientnet-lite0"
    c["eps"].value, c["image"].value = explorer.RADII[0], 5
    found = explore.seek(**explore.values)
    view = explore.render(**explore.values | {"image": found})
    told = {n.name: n.value for n in view.numbers}
    assert found != 5 and told["predicted class, before"] != told["predicted class, after"]


@pytest.mark.parametrize("explain", explorer.EXPLAINED)
def test_the_curve_is_of_what_the_view_explains(explain):
    model = models.create("plain", classes=10).eval()
    data = plan.evaluation_set(plan.Parameters(images=8))
    seen = explorer.Looked(model, "stage3", "head", data.classes)
    options = {"attack": "noise", "method": "gradcam", "explain": explain}
    view = explorer.draw(seen, data.images[3:4], int(data.labels[3]), eps=0.05, **options)
    over = explorer.curve(seen, data.images[3:4], data.labels[3:4], (0.05,), present=0.05, **options)
    (told,), (median,) = (
        [n.value for n in found.numbers if n.name.endswith(name)]
        for found, name in ((view, "NISSIM of the two maps"), (over, "0.05: median"))
    )
    assert told == pytest.approx(median, abs=1e-6)


def test_render_is_pure():
    model = models.create("plain", classes=10).eval()
    data = plan.evaluation_set(plan.Parameters(images=8))
    seen = explorer.Looked(model, "stage3", "head", data.classes)
    options = {"attack": "fgsm", "eps": 0.05, "method": "gradcam", "explain": "predicted class"}
    first, second = (explorer.draw(seen, data.images[:1], 0, **options) for _ in range(2))
    assert first.text == second.text and first._repr_png_() == second._repr_png_() and first.numbers == second.numbers
    assert "a map is empty" in first.text and "nan" not in first.text + first.table()
    for wrong, message in (
        ({"attack": "fgms"}, "unknown attack 'fgms'; did you mean fgsm"),
        ({"method": "grad-cam"}, "unknown explanation 'grad-cam'; did you mean gradcam"),
    ):
        with pytest.raises(ValueError, match=message):
            explorer.draw(seen, data.images[:1], 0, **options | wrong)


def test_text_from_class_names_is_escaped():
    model = models.create("plain", classes=2).eval()
    x = plan.evaluation_set(plan.Parameters(images=8)).images[:1]
    options = {"attack": "none", "eps": 0.0, "method": "gradcam", "explain": "predicted class"}
    view = explorer.draw(explorer.Looked(model, "stage3", "head", ("<script>", "<b>")), x, 0, **options)
    assert view._repr_png_() and "<script>" not in view.text
