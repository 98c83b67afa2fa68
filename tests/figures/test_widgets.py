"""Explorers say what went wrong, and names stand as they were written."""

import datetime
import io

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from lib.data.images import from_tensor
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


def test_uploads_are_opened_or_refused_in_words():
    def render(own):
        fig, ax = plt.subplots()
        if own is not None:
            ax.imshow(from_tensor(torch.tensor(np.asarray(own)[None] / 255.0)))
        return fig, "nothing yet" if own is None else own.mode

    found = widgets.Explorer({"own": widgets.upload("own")}, render)
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    file = {"name": "<i>.png", "type": "image/png", "size": 4, "last_modified": datetime.datetime.now(datetime.UTC)}
    assert isinstance(found.controls["own"], ipywidgets.FileUpload) and found.status.value == "nothing yet"
    for content, said in ((buffer.getvalue(), "L"), (b"text", "&lt;i&gt;.png cannot be read as an image")):
        found.controls["own"].value = (file | {"content": memoryview(content)},)
        assert said in found.status.value
