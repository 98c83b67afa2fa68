"""The menu of `explore.ipynb`: an explorer is made when its study is chosen, and what hinders it is said in words."""

import ipywidgets
import pytest

from lib.runs import explore, profiles
from lib.system.progress import say


class Made:
    """An explorer that counts how often it was made and drawn."""

    def __init__(self, p):
        self.p, self.widget, self.drawn = p, ipywidgets.HTML(), 0
        say("training its network: epoch 1/8")

    def update(self):
        self.drawn += 1

    def stop(self):
        self.stopped = getattr(self, "stopped", 0) + 1


@pytest.fixture
def asked(monkeypatch):
    """The runs whose explorers are made."""
    runs, real = [], profiles.part

    def part(run, name):
        if name != "explorer":
            return real(run, name)
        runs.append(run)
        if run.startswith("05"):
            raise FileNotFoundError("data set 'folder:<mine>' is not there")
        return type("module", (), {"explorer": staticmethod(Made)})

    monkeypatch.setattr(profiles, "part", part)
    return runs


def test_an_explorer_is_made_when_its_study_is_chosen(asked):
    shown = explore.Explorers("smoke")
    studies = dict(shown.study.options)
    assert next(iter(studies)) == "00 Grad-CAM tour" and list(studies.values()) == profiles.declared_runs("smoke")
    assert asked == [] and shown.place.children == ()
    shown.appear()
    first = shown.made["00-grad-cam"]
    assert asked == ["00-grad-cam"] and shown.place.children == (first.widget,) and first.drawn == 1
    assert first.p == profiles.parameters("00-grad-cam", "smoke") and shown.said.value == ""
    shown.study.value = "03-interpretability-aware-training"
    shown.study.value = "00-grad-cam"
    assert asked == ["00-grad-cam", "03-interpretability-aware-training"] and shown.place.children == (first.widget,)
    assert first.stopped == 1 == shown.made["03-interpretability-aware-training"].stopped  # what one has left ends


def test_progress_is_shown_while_one_is_made(asked):
    shown, said = explore.Explorers("smoke"), []
    shown.said.observe(lambda change: said.append(change.new), names="value")
    shown.appear()
    assert said == ["<i>opening 00 Grad-CAM tour …</i>", "<i>training its network: epoch 1/8</i>", ""]


def test_one_that_cannot_be_made_says_why_and_the_one_before_it_stays(asked):
    shown = explore.Explorers("smoke")
    shown.appear()
    before = shown.place.children
    shown.study.value = "05-saliency-adversarial-training"
    assert "data set &#x27;folder:&lt;mine&gt;&#x27; is not there" in shown.said.value and shown.place.children == before
    shown.study.value = "00-grad-cam"
    assert shown.said.value == "" and shown.place.children == before


def test_the_menu_is_there_before_anything_is_made(asked, monkeypatch):
    displayed = []
    monkeypatch.setattr(explore, "display", lambda shown: displayed.append((shown, list(asked))))
    explore.explore(profile="smoke")
    ((shown, before),) = displayed
    assert before == [] and asked == ["00-grad-cam"] and shown.place.children
