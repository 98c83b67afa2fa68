"""What the sheet of one's own pictures says: captions of each kind of attack, classes in the bars, empty numbers."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from matplotlib.text import Text

from lib.attacks import by_name as attacks
from lib.data.own_pictures import OwnPicture
from lib.explanations.by_name import METHODS
from lib.fooling.before_after import Asked, BeforeAfter, Force, Moved, Shift
from lib.networks import classifier
from lib.networks.named import Named
from lib.reports import explained
from tests.conftest import toy

NETWORK = Named("mine", classifier.adapt(toy()), 8, 3, ("ant", "bee", "cat", "dog", "eel"), "act2", "head", "whole")
MAP = torch.linspace(0, 1, 64).view(8, 8)


def seen(force, rank=0.5):
    shift = Shift(Asked(METHODS.find("gradcam"), "act2"), MAP, MAP, Moved(0.25, rank), Moved(0.125, 0.75))
    logits = {"before": torch.tensor([4.0, 3, 2, 1, 0]), "after": torch.tensor([0.0, 3, 2, 1, 0]), "noise": torch.zeros(5)}
    return BeforeAfter(torch.full((3, 8, 8), 0.5), torch.full((3, 8, 8), 0.75), 4, logits, [shift])


def force(name, aim=None):
    return Force(attacks.find(name), 0.02, 5, aim)


PICTURE = OwnPicture(Path("folder/a.png"), 30, 20, torch.zeros(3, 8, 8))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (force("pgd"), "Attack: PGD, away from the decision; no value of a pixel changes by more than 5.1/255."),
        (force("pgd-l2", 2), "Attack: PGD (L2) towards cat; the change has a length of 0.02 at most"),
        (force("snow"), "Attack: snow, away from the decision; radius 0.02 in a measure of its own."),
        (force("noise"), "Attack: random signs; no value"),
    ],
)
def test_the_caption_says_what_was_done(made, said):
    caption = explained._caption(NETWORK, made)
    assert said in caption and caption.startswith("mine sees the centre of each picture, 8 × 8 pixels.")
    assert "Attack" not in explained._caption(NETWORK, None)


def test_the_bars_are_of_the_likeliest_the_explained_and_the_aimed_at():
    one = seen(force("pgd", 3))
    names = [name for name, _, _ in explained._decisions(NETWORK, one, force("pgd", 3))]
    assert names == ["ant", "bee", "cat", "eel", "dog"]
    (first, *_) = explained._decisions(NETWORK, one, None)
    assert first[1] == pytest.approx(one.probability("before", 0)) and first[2] == pytest.approx(one.probability("after", 0))


def test_what_has_no_name_is_called_by_what_it_is():
    numbered = dataclasses.replace(NETWORK, classes=tuple("01234"))
    assert [name for name, _, _ in explained._decisions(numbered, seen(None), None)] == [
        "class 0",
        "class 1",
        "class 2",
        "class 4",
    ]
    assert "towards class 2;" in explained._caption(numbered, force("pgd", 2))
    titles = [explained._title(Asked(METHODS.find(m), at)) for m, at in (("gradcam", "act2"), ("gradcam", "4"), ("lrp", ""))]
    assert titles == ["Grad-CAM at act2", "Grad-CAM at layer 4", "LRP"]
    (row,) = explained.records(numbered, PICTURE, seen(None), force("pgd"))
    assert row["class of the map"] == "4"


def test_a_row_a_map_and_nothing_where_there_is_no_value():
    (row,) = explained.records(NETWORK, PICTURE, seen(None, math.nan), force("pgd", 3))
    assert row["picture"] == str(Path("folder/a.png")) and row["class of the map"] == "eel" and row["aim"] == "dog"
    assert row["decision, before"] == "ant" and row["decision, after"] == "bee" and row["steps"] == 5
    assert row["rank correlation of the maps, after (-1 to 1)"] == ""
    assert row["NISSIM of the maps, after (0 same to 1)"] == "0.25"
    assert row["NISSIM of the maps, random signs (0 same to 1)"] == "0.125"
    assert row["largest change of a value (1/255)"] == "63.75" and row["score of the class, before (logit)"] == "0"


def test_a_map_that_is_gone_is_told_as_such():
    shift = seen(None).shifts[0]
    assert explained._told(shift) == "moved by 0.25 (0.12)"
    assert explained._told(dataclasses.replace(shift, after=MAP * 0)) == "empty; moved by 0.25 (0.12)"


@pytest.mark.parametrize(("method", "pictures"), [("gradcam", 2), ("guided-gradcam++", 1)])
def test_maps_of_pixels_stand_alone_whatever_layer_they_are_made_with(method, pictures):
    one = seen(None)
    one = dataclasses.replace(one, shifts=[dataclasses.replace(one.shifts[0], asked=Asked(METHODS.find(method), "act2"))])
    fig = explained.figure(NETWORK, [PICTURE], [one], force("pgd"))
    assert [len(a.images) for a in fig.axes if a.get_title().endswith("after")] == [pictures]


def test_as_many_rows_on_each_sheet():
    assert [len(range(50)[part]) for part in explained._parts(41)] == [14, 14, 14]
    assert explained.pages(Path("a.png"), 20) == [Path("a.png")]
    assert explained.pages(Path("b/a.png"), 21) == [Path("b/a-1.png"), Path("b/a-2.png")]


def test_the_same_numbers_make_the_same_file_and_a_name_may_hold_anything(tmp_path):
    """A dollar begins no formula; a letter that the font lacks is no error."""
    odd = OwnPicture(Path("$x_1$ 写真.png"), 30, 20, PICTURE.x)
    for name in ("a.svg", "b.svg"):
        explained.write(tmp_path / name, NETWORK, [odd], [seen(None)], force("pgd"))
    fig = explained.figure(NETWORK, [odd], [seen(None)], force("pgd"))
    explained._encoded(fig, "svg")
    assert [t.get_parse_math() for t in fig.findobj(Text) if "$" in t.get_text()] == [False]
    first = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "$x_1$ 写真.png" in first and "jet" not in first
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert "写真" in (tmp_path / "a.csv").read_text(encoding="utf-8")
    assert first == (tmp_path / "b.svg").read_text(encoding="utf-8")
