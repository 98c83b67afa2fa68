"""Study 3's explorer without a browser: widgets are traitlets, so setting a value does what a click does."""

import re

import pytest
import torch

from lib.attacks import unforeseen
from lib.runs import profiles
from lib.studies.interpretability_aware_training import explorer
from lib.system import paths
from tests.studies.attention_shift.test_explorer import OWN, png, upload

SMOKE = profiles.parameters("03-interpretability-aware-training", "smoke")


@pytest.fixture(scope="module")
def explore(tmp_path_factory):
    """On the study's own networks; what it begins with has a test below."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(tmp_path_factory.mktemp("home")))
        found = explorer.explorer(SMOKE)
        assert not paths.models().exists()  # nothing is trained before it is asked for
        found.controls["arch"].value = "int2"
        yield found


def test_every_control_is_labelled_and_there_is_a_picture(explore):
    assert {c.description for c in explore.controls.values()} == {
        "network",
        "own network",
        "image",
        "upload an image",
        "attack",
        "eps, of [0, 1]",
        "steps",
    }
    assert "data:image/png;base64,iVBOR" in explore.picture.value
    assert "margin" in explore.status.value and "Kendall's tau" in explore.status.value


def test_its_code_makes_the_same_view(explore):
    shown = {}
    exec(explore.code(), shown)
    assert shown["view"].text == explore.view.text and shown["view"].numbers == explore.view.numbers


@pytest.mark.parametrize("how", [h for h in explorer.ATTACKS.values() if h not in ("pgd", "none")])
def test_every_attack_is_shown_beside_random_signs_of_its_size(explore, how):
    c = explore.controls
    c["how"].value = "none"
    before = explore.picture.value
    assert "pixel 0.000 of [0, 1]" in explore.status.value and "move: 0.00 logits. Where" in explore.status.value
    c["how"].value = how
    assert explore.picture.value != before and "pixel 0.000" not in explore.status.value
    size = "L2 length" if how in unforeseen.ATTACKS else "size"
    assert f"random signs of the same {size}: <b>" in explore.status.value
    assert c["eps"].disabled == (how in unforeseen.ATTACKS)  # those have radii of their own


@pytest.mark.parametrize(("control", "value"), [("image", 7), ("eps", 0.16), ("steps", 5), ("arch", "adv")])
def test_each_control_changes_the_picture(explore, control, value):
    explore.controls["how"].value = "pgd"
    before = explore.picture.value
    explore.controls[control].value = value
    assert explore.picture.value != before and "margin" in explore.status.value


def test_random_signs_are_as_long_as_the_attack():
    x, y = torch.full((1, 1, 8, 8), 0.5), torch.zeros(1, dtype=torch.long)
    x_new = x.clone()
    x_new[..., 0, 0] += 0.4
    of_pgd, of_gabor = (explorer.beside(x, x_new, y, how, None) - x for how in ("pgd", "gabor"))
    torch.testing.assert_close(of_pgd.abs(), torch.full_like(x, 0.4))
    torch.testing.assert_close(of_gabor.norm(), (x_new - x).norm())
    assert explorer.beside(x, x, y, "pgd", None) is None


def test_the_next_image_and_the_curve(explore):
    c = explore.controls
    c["how"].value, c["eps"].value, c["arch"].value = "pgd", 0.16, "normal"
    explore.next.click()
    before, after = re.search(r"<b>(.*?)</b> before, <b>(.*?)</b> after", explore.status.value).groups()
    assert before != after
    explore.ask.click()
    assert (
        "median and quartiles over 12 images" in explore.over.value
        and "random signs, eps, of [0, 1] 0.16" in explore.over.value
    )
    c["how"].value = "gabor"
    explore.ask.click()
    assert "Gabor has a radius of its own: choose PGD or an attack on the map" in explore.status.value


def test_upload(explore):
    upload(explore.controls["own"], png(), "mine.png")
    assert "margin" in explore.status.value
    before = explore.picture.value
    upload(explore.controls["own"], b"just text", "text.png")
    assert "text.png cannot be read" in explore.controls["own"].said.value and explore.picture.value == before
    explore.controls["own"].leave()


def test_it_begins_with_a_published_network_whose_decision_and_map_change(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))  # nothing is trained for it
    found = explorer.explorer(SMOKE).update()
    c = found.controls
    assert c["arch"].label == "EfficientNet-Lite0, published" and c["own"].size == 224
    assert (
        "<b>strawberry</b> before, <b>agaric</b> after; random signs of the same size: <b>strawberry</b>" in found.status.value
    )
    numbers = {n.name: n.value for n in found.view.numbers}
    assert numbers["discrepancy D2, of both classes' maps"] > numbers["bound of the proposition, half the margin"] > 0
    assert numbers["discrepancy D2 under random signs of the same size"] < 1
    (tmp_path / "mine.py").write_text(
        OWN + "def flat():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(147, 3))\n"
    )
    c["network"].field.value = f"{tmp_path}/mine.py:net"
    assert re.search(r"<b>[012]</b> before", found.status.value)
    c["network"].field.value = f"{tmp_path}/mine.py:flat"  # CAM is not defined there
    assert "mine.py:flat" in c["network"].said.value and c["network"].value == f"{tmp_path}/mine.py:net"
