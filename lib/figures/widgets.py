"""Pieces that every explorer is made of: labelled controls, a picture that a pure function draws, safe uploads.

A slider reports once it is let go (`continuous_update=False`). The front end keeps one message in flight and the last
value wins, so there is no queue to manage. What goes wrong is said beside the picture, which then stays as it was; what is
wrong with a file is said beside its button, and the picture before it stays.
"""

import contextlib
import html
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
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


class Upload(ipywidgets.VBox):
    """A picture of one's own instead of the data set's: `value` is the picture, None while the data set's is shown.

    A file that is no picture is refused in words below the button, and `value` stays. `size` is what the networks take: what
    becomes of a larger picture is said too.
    """

    value = traitlets.Any(None, allow_none=True)
    size = traitlets.Int()

    def __init__(self, label: str, size: int) -> None:
        self.file = ipywidgets.FileUpload(description=label, accept="image/*", multiple=False, layout=WIDE)
        self.back = ipywidgets.Button(
            description="back to the data set", layout=ipywidgets.Layout(width="340px", display="none")
        )
        self.said = ipywidgets.HTML(layout=WIDE)
        self.name = ""
        super().__init__([self.file, self.back, self.said], size=size)
        self.file.observe(self._read, names="value")
        self.observe(lambda _: self._tell(), names="size")
        self.back.on_click(lambda _: self.leave())

    @property
    def description(self) -> str:
        """What the button says."""
        return self.file.description

    def leave(self) -> None:
        """Back to the pictures of the data set."""
        self.file.value = ()  # so that the same file can be chosen again
        self.said.value, self.back.layout.display, self.value = "", "none", None

    def _read(self, _change: Any) -> None:
        if not self.file.value:
            return
        file = self.file.value[-1]
        try:
            picture = images.open_image(bytes(file["content"]), name=file["name"])
        except (ValueError, OSError) as error:
            self.said.value = told(error)
            return
        self.name, self.back.layout.display, self.value = file["name"], "", picture
        self._tell()

    def _tell(self) -> None:
        if self.value is None:
            return
        width, height = self.value.size
        self.said.value = (
            f"{html.escape(self.name)}, {width} × {height} pixels: its central square, scaled to {self.size} × {self.size}. "
            "None of the classes that the network knows need fit it."
        )


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


Follow = Callable[[str, dict[str, Any]], None]


class Explorer:
    """Controls to the left, a picture and a line of text to the right; `render(**values)` gives both from the controls.

    `render` is called with the value of every control by name and returns (figure, text). `follow(name, controls)`, where it
    is given, is called when the control of that name has changed, before anything is drawn, and may change others. Moving a
    control called `image` leaves an upload for the data set. `widget` is what a notebook displays; in a narrow window the
    controls stand above the picture, which keeps its proportions. `status` holds the text or the error, `picture` the PNG.
    """

    def __init__(
        self, controls: Mapping[str, ipywidgets.Widget], render: Callable[..., tuple[Figure, str]], follow: Follow | None = None
    ) -> None:
        self.controls, self.render, self.follow = dict(controls), render, follow
        # of its own height: a picture that is stretched shows another place
        layout = ipywidgets.Layout(max_width="100%", height="auto", align_self="flex-start", object_fit="contain")
        self.picture = ipywidgets.Image(format="png", layout=layout)
        self.status = ipywidgets.HTML()
        self._held = False
        left = ipywidgets.VBox(list(self.controls.values()), layout=ipywidgets.Layout(flex="0 0 370px", max_width="100%"))
        right = ipywidgets.VBox([self.status, self.picture], layout=ipywidgets.Layout(flex="1 1 480px", min_width="0"))
        self.widget = ipywidgets.HBox([left, right], layout=ipywidgets.Layout(flex_flow="row wrap", align_items="flex-start"))
        for name, control in self.controls.items():
            control.observe(lambda _change, name=name: self._changed(name), names="value")
        self.update()

    def _changed(self, name: str) -> None:
        if self._held:
            return
        with self._holding():
            if name == "image":
                for control in self.controls.values():
                    if isinstance(control, Upload):
                        control.leave()
            if self.follow:
                try:
                    self.follow(name, self.controls)
                except Exception as error:
                    self.status.value = told(error)
                    return
        self.update()

    @contextlib.contextmanager
    def _holding(self) -> Iterator[None]:
        """What changes in here is drawn once, after it."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def update(self) -> None:
        """Draw again from what the controls say now."""
        self.status.value = "<i>working …</i>"
        open_before = plt.get_fignums()
        try:
            fig, text = self.render(**{name: control.value for name, control in self.controls.items()})
            drawn = png(fig)
        except BaseException as error:  # whatever it is: nobody shall wait for a picture that does not come
            self.status.value = told(error)
            for number in set(plt.get_fignums()) - set(open_before):
                plt.close(number)
            if not isinstance(error, Exception):
                raise
            return
        self.picture.value, self.status.value = drawn, text
