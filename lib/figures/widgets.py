"""Controls that explorers are made of: menus, sliders, safe uploads; pictures of their views.

A slider reports once it is let go (`continuous_update=False`). What is wrong with a file is said beside its button, and the
picture before it stays.
"""

import html
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import traitlets
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from lib.data import own_pictures
from lib.figures import style

LABEL = {"description_width": "90px"}
WIDE = ipywidgets.Layout(width="340px")
DPI = 100  # dots an inch of a view's picture
# JupyterLab draws the arrows of menus dark, on its dark ground too, and cuts off what is said beside sliders
STYLES = """<style>[data-jp-theme-light="false"] .widget-dropdown > select { background-image: url("data:image/svg+xml,%3Csvg
 xmlns='http://www.w3.org/2000/svg' viewBox='0 0 18 18'%3E
%3Cpath fill='%23ddd' d='M5.2 5.9 9 9.7l3.8-3.8L14 7.1 9 12 4 7.1z'/%3E%3C/svg%3E") !important; }
.widget-hslider .widget-readout { white-space: normal; overflow-wrap: anywhere; height: auto; line-height: 1.2; }
</style>""".replace("\n", "")


def choice(label: str, options: Sequence[Any] | Mapping[str, Any], value: Any = None) -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(description=label, options=options, value=value, style=LABEL, layout=WIDE)


def offer(control: Any, options: Sequence[Any], otherwise: Any = None) -> None:
    """Other options for a menu, values or (label, value). What was chosen stays where it is among them; else `otherwise`, or
    the first one, is chosen."""
    value, known = control.value, [o[1] if isinstance(o, tuple) else o for o in options]
    control.options = options
    control.value = value if value in known else known[0] if otherwise is None else otherwise


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


def numbered(label: str, names: Sequence[str], value: int = 0) -> Any:
    """A slider over the images of a set, by number; beside it stands what each is called."""
    return ipywidgets.SelectionSlider(
        description=label, options=numbers(names), value=value, continuous_update=False, style=LABEL, layout=WIDE
    )


def numbers(names: Sequence[str]) -> list[tuple[str, int]]:
    """The options of `numbered`."""
    return [(f"{i}: {n if len(n) < 38 else f'{n[:36]}…'}", i) for i, n in enumerate(names)]


def styles() -> ipywidgets.HTML:
    """What explorers add to JupyterLab's looks: shown with them, it takes no place."""
    return ipywidgets.HTML(STYLES, layout=ipywidgets.Layout(display="none"))


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
            picture = own_pictures.opened(bytes(file["content"]), name=file["name"])
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


class OwnNetwork(ipywidgets.VBox):
    """A network of one's own by name instead of the study's: `value` is its name, "" while the study's is shown.

    `load(name)` raises ValueError for what is no network, which is said in words below the field, and `value` stays.
    """

    value = traitlets.Unicode()

    def __init__(self, load: Callable[[str], Any], label: str = "own network") -> None:
        self.load = load
        self.field = ipywidgets.Text(
            description=label,
            placeholder="file.py:function, module:function or torchvision:NAME",
            continuous_update=False,
            style=LABEL,
            layout=WIDE,
        )
        self.again = ipywidgets.Button(
            description="load it again",
            tooltip="after you have mended it",
            layout=ipywidgets.Layout(width="340px", display="none"),
        )
        self.back = ipywidgets.Button(
            description="back to the networks above", layout=ipywidgets.Layout(width="340px", display="none")
        )
        self.said = ipywidgets.HTML(layout=WIDE)
        super().__init__([self.field, self.again, self.back, self.said])
        self.field.observe(self._read, names="value")
        self.again.on_click(self._read)
        self.back.on_click(lambda _: self.leave())

    @property
    def description(self) -> str:
        """What the field is called."""
        return self.field.description

    def leave(self) -> None:
        """Back to the networks of the study."""
        self.field.value = ""

    def _read(self, _change: Any) -> None:
        name = self.field.value.strip()
        self.said.value = "<i>loading …</i>" if name else ""
        if name:
            try:
                self.load(name)
            except Exception as error:  # whatever somebody's own code raises
                self.said.value, self.again.layout.display = told(error), ""
                return
        self.said.value, self.again.layout.display = "", "none"
        self.back.layout.display, self.value = "" if name else "none", name


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
    fig.savefig(buffer, format="png", dpi=DPI)
    plt.close(fig)
    return buffer.getvalue()


def told(error: BaseException) -> str:
    """An error as HTML: its own words where it is meant for people, else what kind of error it is too."""
    words = str(error) if str(error) and isinstance(error, (ValueError, RuntimeError, OSError)) else f"{error!r}"
    return f'<b style="color:#D55E00">{html.escape(words)}</b>'
