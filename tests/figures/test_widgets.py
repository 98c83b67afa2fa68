"""Names stand as they were written, and a network that cannot be had is refused in words."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from lib.figures import charts, pictures, style, widgets

ODD = ("a$^$b", "$x$", "<b>&", r"\frac{", "_low", "$", "ünï", "a\nb", "%s {0}", "")


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


def load(name):
    if name != "mine.py:net":
        raise ValueError(f"<{name}> cannot be imported")
    return object()


def test_a_network_that_cannot_be_had_is_refused_beside_its_field_and_changes_nothing():
    own = widgets.OwnNetwork(load)
    assert own.value == "" and own.back.layout.display == "none" and own.description == "own network"
    own.field.value = " mine.py:net "
    assert own.value == "mine.py:net" and own.said.value == "" and own.back.layout.display == ""
    own.field.value = "other"
    assert "&lt;other&gt; cannot be imported" in own.said.value and own.value == "mine.py:net"
    own.back.click()
    assert own.value == own.field.value == own.said.value == "" and own.back.layout.display == "none"


def test_what_was_mended_is_loaded_again():
    mended = []

    def load_now(name):
        if not mended:
            raise SyntaxError(name)

    own = widgets.OwnNetwork(load_now)
    assert own.again.layout.display == "none"
    own.field.value = "mine.py:net"
    assert own.value == "" and own.again.layout.display == "" and "mine.py:net" in own.said.value
    mended.append(True)
    own.again.click()
    assert own.value == "mine.py:net" and own.said.value == "" and own.again.layout.display == "none"
    own.field.value = ""
    assert own.value == "" and own.again.layout.display == own.back.layout.display == "none"


def test_images_are_chosen_by_number_and_told_by_name():
    found = widgets.numbered("image", ["a", "a name that is far too long to be shown beside it"], 1)
    assert found.value == 1 and [o[0] for o in found.options] == ["0: a", "1: a name that is far too long to be sh…"]


def test_what_was_chosen_stays_where_it_is_still_offered():
    menu = widgets.choice("kind", {"one": 1, "two": 2}, 2)
    widgets.offer(menu, [("two", 2), ("three", 3)])
    assert menu.value == 2
    widgets.offer(menu, [3, 4])
    assert menu.value == 3
    widgets.offer(menu, [5, 6], 6)
    assert menu.value == 6
