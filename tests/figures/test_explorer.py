"""Explorers say what went wrong and how far they are, give way to a change of mind, and hand out what they show."""

import base64
import csv
import datetime
import io
import re
import threading
import zipfile

import pytest
import torch
from PIL import Image
from pydantic import BaseModel

from lib.figures import explorer as explorer_
from lib.figures import pictures, style, widgets
from lib.figures.explorer import Explorer, Number, View
from lib.system.progress import say


class P(BaseModel):
    """Parameters of no study."""

    size: int = 32


def explorer(render):
    return Explorer(P(), {"n": widgets.integer("n", 0, 9)}, render).update()


def drawn(n):
    fig, axes = pictures.canvas(1, 1, (2, 2))
    axes[0, 0].set_title(f"number {n}")
    return View(fig, f"drew {n}", [Number("n", n, "pieces")])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("choose <two> classes"), "choose &lt;two&gt; classes"),
        (KeyError("a$^$b"), "KeyError(&#x27;a$^$b&#x27;)"),
        (RuntimeError(), "RuntimeError()"),
        (ZeroDivisionError("by zero"), "ZeroDivisionError(&#x27;by zero&#x27;)"),
        (AttributeError("'NoneType' has no attribute"), "AttributeError"),
        (AssertionError(), "AssertionError()"),
    ],
)
def test_any_error_takes_the_place_of_working(error, said):
    """The picture stays as it was, and the next change is drawn."""

    def render(n):
        if n == 1:
            raise error
        return drawn(n)

    found = explorer(render)
    before = found.picture.value
    assert found.status.value == "drew 0" and before
    found.controls["n"].value = 1
    assert said in found.status.value and "working" not in found.status.value
    assert found.picture.value == before
    found.controls["n"].value = 2
    assert found.status.value == "drew 2" and found.picture.value != before


def test_an_interrupted_render_is_said_and_handed_on():
    def render(n):
        if n:
            raise KeyboardInterrupt
        return drawn(n)

    found = explorer(render)
    with pytest.raises(KeyboardInterrupt):
        found.controls["n"].value = 1
    assert "KeyboardInterrupt" in found.status.value


def test_a_figure_that_cannot_be_drawn_is_an_error_too(monkeypatch):
    def broken(_fig):
        raise KeyError("glyph")

    monkeypatch.setattr(style, "as_written", broken)
    assert "glyph" in explorer(drawn).status.value


def png_of(mode="L", size=(40, 30)):
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


def given(control, content, name="<i>.png"):
    file = {"name": name, "type": "image/png", "size": len(content), "last_modified": datetime.datetime.now(datetime.UTC)}
    control.file.value = (file | {"content": memoryview(content)},)


def uploading():
    """An explorer that says what it was given, and how often it drew."""
    drawings = []

    def render(image, own):
        drawings.append((image, own))
        return View(pictures.canvas(1, 1, (1, 1))[0], f"image {image}" if own is None else f"own {own.size}")

    controls = {"image": widgets.integer("image", 0, 9), "own": widgets.Upload("own", 32)}
    return Explorer(P(), controls, render).update(), controls["own"], drawings


def test_an_upload_is_shown_and_what_becomes_of_it_is_said():
    found, own, _ = uploading()
    assert found.status.value == "image 0" and own.back.layout.display == "none" and own.description == "own"
    given(own, png_of())
    assert found.status.value == "own (40, 30)" and own.back.layout.display == ""
    assert "&lt;i&gt;.png, 40 × 30 pixels: its central square, scaled to 32 × 32" in own.said.value
    own.size = 224  # another network
    assert "scaled to 224 × 224" in own.said.value


def test_a_file_that_is_no_picture_is_refused_beside_its_button_and_locks_nothing():
    found, own, _ = uploading()
    given(own, png_of())
    given(own, b"text")
    assert "&lt;i&gt;.png cannot be read as an image" in own.said.value and found.status.value == "own (40, 30)"
    moving = io.BytesIO()
    Image.new("L", (9, 9)).save(moving, "GIF", save_all=True, append_images=[Image.new("L", (9, 9), 200)])
    for content, why in ((png_of(size=(1, 1)), "has 1 × 1 pixel;"), (moving.getvalue(), "is an animation")):
        given(own, content)
        assert f"&lt;i&gt;.png {why}" in own.said.value and found.status.value == "own (40, 30)"
    given(own, png_of(size=(8, 8)))
    assert found.status.value == "own (8, 8)" and "cannot" not in own.said.value


@pytest.mark.parametrize("way", ["button", "slider"])
def test_there_is_a_way_back_from_an_upload_and_it_draws_once(way):
    found, own, drawings = uploading()
    given(own, png_of())
    count = len(drawings)
    own.back.click() if way == "button" else setattr(found.controls["image"], "value", 3)
    assert found.status.value == ("image 0" if way == "button" else "image 3") and own.value is None
    assert len(drawings) == count + 1 and own.said.value == "" and own.back.layout.display == "none"
    given(own, png_of())  # the same file once more
    assert found.status.value == "own (40, 30)"


def test_controls_follow_one_another_before_anything_is_drawn():
    drawings = []

    def render(kind, which):
        drawings.append((kind, which))
        return View(pictures.canvas(1, 1, (1, 1))[0], f"{kind} {which}")

    def follow(name, controls):
        if name == "kind":
            controls["which"].options = {"numbers": (1, 2), "letters": ("a", "b")}[controls["kind"].value]

    controls = {
        "kind": widgets.choice("kind", ("numbers", "letters", "none"), "numbers"),
        "which": widgets.choice("w", (1, 2), 2),
    }
    found = Explorer(P(), controls, render, follow).update()
    controls["kind"].value = "letters"
    assert drawings == [("numbers", 2), ("letters", "a")] and found.status.value == "letters a"
    controls["kind"].value = "none"
    assert "KeyError" in found.status.value and len(drawings) == 2
    controls["which"].value = "b"
    assert drawings[-1] == ("none", "b")


def test_what_is_kept_says_what_made_it_whatever_the_controls_say_now():
    def render(n):
        if n:
            raise ValueError("no")
        return drawn(n)

    found = explorer(render)
    found.controls["n"].value = 3
    found.keep.click()
    assert "n 0<br>drew 0<br>" in found.kept.value


def test_a_control_that_cannot_be_followed_ends_the_view_before_it(monkeypatch):
    """Its error stands, not the words of a view that the menus no longer say; what is slow in it is done beside the kernel."""
    live, threads = Live(monkeypatch), []

    def follow(name, controls):
        threads.append(threading.current_thread().name)
        if controls["n"].value == 2:
            raise ValueError("2 cannot be loaded")

    found = Explorer(P(), {"n": widgets.integer("n", 0, 9)}, live.render, follow).update()
    found.controls["n"].value = 1
    assert live.begun.wait(10)
    found.controls["n"].value = 2
    live.go_on.set()
    settled()
    assert "2 cannot be loaded" in found.status.value and "drew 0" not in found.status.value
    assert threads == ["explorer"] * 2 and live.ended == [0, 1]


def test_a_control_whose_following_was_ended_is_followed_before_the_next(monkeypatch):
    """Else the other controls would not go with it."""
    monkeypatch.setattr(explorer_, "get_ipython", lambda: type("Shell", (), {"kernel": object()})())
    net, begun, go_on, followed = torch.nn.Identity(), threading.Event(), threading.Event(), []

    def follow(name, controls):
        if name == "kind" and not begun.is_set():
            begun.set()
            assert go_on.wait(10)
            net(torch.zeros(1))  # the training of a network: the change of mind ends it here
        followed.append(name)

    controls = {"kind": widgets.integer("kind", 0, 9), "n": widgets.integer("n", 0, 9)}
    found = Explorer(P(), controls, lambda kind, n: drawn(10 * kind + n), follow).update()
    controls["kind"].value = 4
    assert begun.wait(10)
    controls["n"].value = 2
    go_on.set()
    settled()
    assert followed == ["kind", "n"] and found.status.value == "drew 42"


def test_whatever_is_asked_for_is_made_of_controls_that_go_together(monkeypatch):
    """The button that asks for many images, and coming back, find what was not followed."""

    def follow(name, controls):
        if name == "arch":
            controls["stage"].value = {"x": 1, "y": 5}[controls["arch"].value]

    controls = {"arch": widgets.choice("arch", ("x", "y"), "x"), "stage": widgets.integer("stage", 0, 9, 1)}
    found = Explorer(P(), controls, lambda arch, stage: drawn(stage), follow, many=lambda arch, stage: drawn(100 + stage))
    found.update()
    for ask in (found.ask.click, found.update):
        with monkeypatch.context() as patch:
            patch.setattr(found, "_start", lambda work: None)  # superseded before it began
            controls["arch"].value = "y" if controls["arch"].value == "x" else "x"
        ask()
        shown = found.over.value if ask == found.ask.click else found.status.value
        assert f"drew {105 if ask == found.ask.click else 1}" in shown


def test_what_is_sought_is_followed_and_stays_what_is_aimed_at():
    def follow(name, controls):
        if name == "image":
            controls["of"].value = controls["aimed"].value = controls["image"].value

    controls = {n: widgets.integer(n, 0, 9) for n in ("image", "of", "aimed")}
    found = Explorer(P(), controls, lambda image, of, aimed: drawn(100 * image + 10 * of + aimed), follow, seek=lambda **_: 4)
    found.update().next.click()
    assert found.status.value == "drew 440"


def test_a_view_nobody_looks_at_is_ended(monkeypatch):
    live = Live(monkeypatch)
    found = explorer(live.render)
    found.controls["n"].value = 1
    assert live.begun.wait(10)
    found.stop()
    live.go_on.set()
    settled()
    assert live.ended == [0, 1] and found.view.text == "drew 0"


def test_pictures_keep_their_proportions_and_can_be_read_aloud():
    """Neither a least height nor a stretched width: in a study of where maps lie, a squeezed picture is a wrong result."""
    shown = explorer_.img(b"png", 'a "cat" < 1')
    assert 'style="max-width: 100%; height: auto"' in shown and 'alt="a &quot;cat&quot; &lt; 1"' in shown


def test_nothing_is_computed_before_it_is_shown():
    drawings = []
    found = Explorer(P(), {"n": widgets.integer("n", 0, 9)}, lambda n: drawings.append(n) or drawn(n))
    assert not drawings and not found.picture.value
    assert found.update() is found and drawings == [0] and found.picture.value


def test_what_is_said_is_the_alternative_text_and_has_no_markup():
    view = View(pictures.canvas(1, 1, (1, 1))[0], "<b>cat</b> &lt; 1<br>score 2")
    assert view.plain == "cat < 1. score 2" and view._repr_png_().startswith(b"\x89PNG")


def packed(found):
    data = re.search(r'download="([^"]+)" href="data:application/zip;base64,([^"]+)"', found.under.value)
    folder = zipfile.ZipFile(io.BytesIO(base64.b64decode(data[2])))
    return {name.split("/")[1]: folder.read(name) for name in folder.namelist()}


def test_a_view_can_be_taken_away_with_its_numbers_and_its_code():
    found = explorer(drawn)
    found.controls["n"].value = 3
    files = packed(found)
    assert files["picture.png"].startswith(b"\x89PNG") and "drew 3" in files["view.py"].decode()
    rows = list(csv.DictReader(io.StringIO(files["numbers.csv"].decode())))
    assert rows == [{"name": "n", "value": "3", "unit": "pieces", "over": "this image"}]
    assert "n=3" in files["view.py"].decode() and found.code() in files["view.py"].decode()
    assert "pieces" in found.under.value


def test_the_code_names_the_file_of_an_upload_and_the_parameters_that_differ():
    found, own, _ = uploading()
    found.p = P(size=64)
    given(own, png_of(), "cat.png")
    assert "from lib.data import own_pictures\n" in found.code() and "own=own_pictures.opened(Path('cat.png'))" in found.code()
    assert "explorer(P(size=64)).render(" in found.code() and "\n\nuse_style()\n" in found.code()
    assert found.settings()["own"] == "cat.png"


def test_a_view_is_kept_beside_those_that_follow():
    found = explorer(drawn)
    found.keep.click()
    found.controls["n"].value = 5
    assert "drew 0" in found.kept.value and "n 0" in found.kept.value and found.status.value == "drew 5"
    assert found._beside.layout.display == ""
    found.keep.click()
    assert found.kept.value == "" and found._beside.layout.display == "none"


def test_many_images_are_asked_for_by_a_button_and_gone_once_the_choice_is_another():
    asked = []
    found = Explorer(P(), {"n": widgets.integer("n", 0, 9)}, drawn, many=lambda n: asked.append(n) or drawn(n + 100)).update()
    assert not asked
    found.ask.click()
    assert asked == [0] and "drew 100" in found.over.value and found.status.value == "drew 0"
    found.controls["n"].value = 1
    assert found.over.value == "" and asked == [0]


def test_the_next_image_where_it_succeeds_is_sought():
    found = Explorer(
        P(), {"image": widgets.integer("image", 0, 9)}, lambda image: drawn(image), seek=lambda image: min(image + 4, 8)
    )
    found.update().next.click()
    assert found.controls["image"].value == 4 and found.status.value == "drew 4"
    found.next.click()
    found.next.click()
    assert found.controls["image"].value == 8 and "succeeds on no other image" in found.status.value


def test_what_is_sought_is_shown_in_place_of_an_upload():
    found, own, _ = uploading()
    found.seek = lambda image, own: image + 1
    given(own, png_of())
    found._start(found._seek)
    assert found.status.value == "image 1" and own.value is None


def test_a_curve_shows_medians_and_quartiles_and_where_one_is():
    values = torch.tensor([[0.0, 1.0, 2.0, torch.nan], [4.0, 6.0, 8.0, torch.nan]])  # of three images there is a number
    view = explorer_.over_levels((1, 2), {"PGD": values}, 2, xlabel="eps", ylabel="NISSIM", unit="u")
    found = {n.name: (n.value, n.unit, n.over) for n in view.numbers}
    assert found["PGD, eps 2: median"] == (6.0, "u", "3 images") and found["PGD, eps 1: upper quartile"][0] == 1.5
    lines = view.figure.axes[0].lines
    assert list(lines[0].get_ydata()) == [1.0, 6.0] and list(lines[1].get_xdata()) == [2, 2]


class Live:
    """As in a notebook: what is asked for is done in a thread of its own, and networks are called in it."""

    def __init__(self, monkeypatch):
        monkeypatch.setattr(explorer_, "get_ipython", lambda: type("Shell", (), {"kernel": object()})())
        self.net, self.begun, self.go_on, self.ended = torch.nn.Identity(), threading.Event(), threading.Event(), []

    def render(self, n):
        try:
            say(f"training {n}")
            for _ in range(2 if n else 1):
                self.net(torch.zeros(1))
                if n == 1:
                    self.begun.set()
                    assert self.go_on.wait(10)
            return drawn(n)
        finally:
            self.ended.append(n)


def settled():
    for thread in threading.enumerate():
        if thread.name == "explorer":
            thread.join(10)


def test_a_change_of_mind_ends_what_is_being_done(monkeypatch, capsys):
    live = Live(monkeypatch)
    found = explorer(live.render)
    drawings = []
    found.status.observe(lambda change: drawings.append(change["new"]), names="value")
    found.controls["n"].value = 1
    assert live.begun.wait(10)
    assert found.status.value == "<i>working … training 1</i>"  # how far it is, in the explorer
    found.controls["n"].value = 2
    live.go_on.set()
    settled()
    assert found.status.value == "drew 2" and live.ended == [0, 1, 2] and "drew 1" not in drawings
    assert "training 1" in capsys.readouterr().err


def test_one_hears_how_long_it_has_taken(monkeypatch):
    monkeypatch.setattr(explorer_, "PAUSE", 0.0)
    net, told = torch.nn.Identity(), []

    def render(n):
        net(torch.zeros(1))
        told.append(found.status.value)
        return drawn(n)

    found = Explorer(P(), {"n": widgets.integer("n", 0, 9)}, render)
    found.update()
    assert told == ["<i>working … 0 s so far</i>"]
