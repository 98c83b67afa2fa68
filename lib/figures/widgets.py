"""Pieces that every explorer is made of: labelled controls, a picture that a pure function draws, safe uploads.

A slider reports once it is let go (`continuous_update=False`). The front end keeps one message in flight and the last
value wins, so there is no queue to manage. What goes wrong is said beside the picture, which then stays as it was.
"""

import html
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from lib.data import images
from lib.figures import style

LABEL = {"description_width": "90px"}
WIDE = ipywidgets.Layout(width="340px")


def choice(label: str, options: Sequence[Any] | Mapping[str, Any], value: Any = None) -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(description=label, options=options, value=value, style=LABEL, layout=WIDE)


def slider(label: str, values: Sequence[float], value: float, text: Callable[[float], str] = "{:g}".format) -> Any:
    """A slider over given values, which may be spaced in any way."""
    return ipywidgets.SelectionSlider(
        description=label,
        options=[(text(v), v) for v in values],
        value=value,
        continuous_update=False,
        style=LABEL,
        layout=WIDE,
    )


def integer(label: str, low: int, high: int, value: int = 0) -> ipywidgets.IntSlider:
    return ipywidgets.IntSlider(
        description=label, min=low, max=high, value=value, continuous_update=False, style=LABEL, layout=WIDE
    )


def upload(label: str) -> ipywidgets.FileUpload:
    return ipywidgets.FileUpload(description=label, accept="image/*", multiple=False, layout=WIDE)


def uploaded(control: ipywidgets.FileUpload) -> Image.Image | None:
    """The uploaded picture, or None before there is one. Raises ValueError as `lib.data.images.open_image`."""
    if not control.value:
        return None
    file = control.value[-1]
    return images.open_image(bytes(file["content"]), name=file["name"])


def bars(ax: Axes, probabilities: Tensor, classes: Sequence[str], title: str) -> None:
    """The four likeliest classes as bars."""
    top = probabilities.topk(min(4, len(classes)))
    names = [classes[i] for i in top.indices]
    ax.barh(range(len(names))[::-1], top.values.tolist(), color=style.COLOURS[0])
    ax.set_yticks(range(len(names))[::-1], [n if len(n) < 18 else f"{n[:16]}…" for n in names], fontsize=8)
    ax.set_xlim(0, 1)
    ax.set_xlabel("probability")
    ax.set_title(title)


def png(fig: Figure) -> bytes:
    buffer = io.BytesIO()
    style.as_written(fig)
    fig.savefig(buffer, format="png", dpi=100)
    plt.close(fig)
    return buffer.getvalue()


def told(error: BaseException) -> str:
    """An error as HTML: its own words where it is meant for people, else what kind of error it is too."""
    words = str(error) if str(error) and isinstance(error, (ValueError, RuntimeError, OSError)) else f"{error!r}"
    return f'<b style="color:#D55E00">{html.escape(words)}</b>'


class Explorer:
    """Controls to the left, a picture and a line of text to the right; `render(**values)` gives both from the controls.

    `render` is called with the value of every control by name and returns (figure, text). `widget` is what a notebook
    displays; `status` holds the text or the error, and `picture` the PNG.
    """

    def __init__(self, controls: Mapping[str, ipywidgets.Widget], render: Callable[..., tuple[Figure, str]]) -> None:
        self.controls, self.render = dict(controls), render
        self.picture = ipywidgets.Image(format="png", layout=ipywidgets.Layout(min_height="420px", max_width="100%"))
        self.status = ipywidgets.HTML()
        left = ipywidgets.VBox(list(self.controls.values()), layout=ipywidgets.Layout(flex="0 0 370px"))
        right = ipywidgets.VBox([self.status, self.picture], layout=ipywidgets.Layout(flex="1 1 0", min_width="0"))
        self.widget = ipywidgets.HBox([left, right])
        for control in self.controls.values():
            control.observe(self.update, names="value")
        self.update()

    def update(self, _change: Any = None) -> None:
        """Draw again from what the controls say now."""
        self.status.value = "<i>working …</i>"
        open_before = plt.get_fignums()
        try:
            values = {k: uploaded(c) if isinstance(c, ipywidgets.FileUpload) else c.value for k, c in self.controls.items()}
            fig, text = self.render(**values)
            drawn = png(fig)
        except BaseException as error:  # whatever it is: nobody shall wait for a picture that does not come
            self.status.value = told(error)
            for number in set(plt.get_fignums()) - set(open_before):
                plt.close(number)
            if not isinstance(error, Exception):
                raise
            return
        self.picture.value, self.status.value = drawn, text
