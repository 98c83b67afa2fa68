"""Explorers say what went wrong, and names stand as they were written."""

import datetime
import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from lib.figures import charts, pictures, style, widgets

ODD = ("a$^$b", "$x$", "<b>&", r"\frac{", "_low", "$", "ünï", "a\nb", "%s {0}", "")


@pytest.fixture(autouse=True)
def closed():
    plt.close("all")
    yield
    plt.close("all")


def explorer(render):
    return widgets.Explorer({"n": widgets.integer("n", 0, 9)}, render)


def drawn(n):
    fig, ax = plt.subplots(figsize=(2, 2))
    ax.set_title(f"number {n}")
    return fig, f"drew {n}"


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
    """The picture stays as it was, no figure stays open, and the next change is drawn."""

    def render(n):
        fig, text = drawn(n)
        if n == 1:
            raise error
        return fig, text

    found = explorer(render)
    before = found.picture.value
    assert found.status.value == "drew 0" and before
    found.controls["n"].value = 1
    assert said in found.status.value and "working" not in found.status.value
    assert found.picture.value == before and not plt.get_fignums()
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


def everything(name):
    """A figure that has a name wherever names can be."""
    fig, axes = charts.panels(6, columns=3, sharey=False, xlabel=name, ylabel=name)
    pictures.image(axes[0], torch.ones(3, 8, 8), name)
    pictures.colour_bar(fig, pictures.heatmap(axes[1], torch.eye(8), f"map of\n{name}"), axes[1], name)
    widgets.bars(axes[2], torch.tensor([0.6, 0.4]), (name, f"{name} too"), name)
    charts.matrix(axes[3], np.ones((1, 1)), [name], [name], name)
    charts.boxes(axes[4], [name], [np.array([1.0, 2.0])])
    axes[4].plot([0, 1], [1, 2], label=f"of {name}")
    axes[4].legend()
    axes[5].loglog([1, 1e6], [1, 1e6])
    fig.suptitle(name)
    return fig


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


@pytest.mark.parametrize("name", ODD)
@pytest.mark.filterwarnings("ignore:Glyph")
def test_names_of_every_kind_are_drawn_as_they_are_written(name):
    """To the pixel what matplotlib draws where each dollar is escaped by hand; a formula `a$^$b` would be no picture at all."""
    by_hand = io.BytesIO()
    everything(name.replace("$", r"\$")).savefig(by_hand, format="png", dpi=100)
    assert np.array_equal(pixels(widgets.png(everything(name))), pixels(by_hand.getvalue()))


def test_powers_of_ten_stay_powers():
    fig = everything("$x$")
    style.as_written(fig)
    powers = [t for t in fig.axes[5].get_xticklabels() if "mathdefault" in t.get_text()]
    assert powers and all(t.get_parse_math() for t in powers)


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
        fig, _ = plt.subplots(figsize=(1, 1))
        return fig, f"image {image}" if own is None else f"own {own.size}"

    controls = {"image": widgets.integer("image", 0, 9), "own": widgets.Upload("own", 32)}
    return widgets.Explorer(controls, render), controls["own"], drawings


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
        fig, _ = plt.subplots(figsize=(1, 1))
        return fig, f"{kind} {which}"

    def follow(name, controls):
        if name == "kind":
            controls["which"].options = {"numbers": (1, 2), "letters": ("a", "b")}[controls["kind"].value]

    controls = {
        "kind": widgets.choice("kind", ("numbers", "letters", "none"), "numbers"),
        "which": widgets.choice("w", (1, 2), 2),
    }
    found = widgets.Explorer(controls, render, follow)
    controls["kind"].value = "letters"
    assert drawings == [("numbers", 2), ("letters", "a")] and found.status.value == "letters a"
    controls["kind"].value = "none"
    assert "KeyError" in found.status.value and len(drawings) == 2
    controls["which"].value = "b"
    assert drawings[-1] == ("none", "b")


def test_pictures_keep_their_proportions():
    """Neither a least height nor a stretched width: in a study of where maps lie, a squeezed picture is a wrong result."""
    layout = explorer(drawn).picture.layout
    assert layout.min_height is None and layout.height == "auto" and layout.align_self == "flex-start"
