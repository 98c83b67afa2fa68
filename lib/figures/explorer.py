"""An explorer: controls, and the view that a pure function makes of their values; told, kept, saved, and as code.

What takes long is done beside the kernel's own thread, so that a change of mind is heard: it ends the view that is being made
at the next pass through a network. What goes wrong is said beside the picture, which then stays as it was.
"""

import base64
import contextlib
import csv
import dataclasses
import html
import io
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ipywidgets
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image
from pydantic import BaseModel
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook

from lib.figures.pictures import canvas
from lib.figures.style import series
from lib.figures.widgets import OwnNetwork, Upload, png, styles, told
from lib.system.progress import heard

ROW = ipywidgets.Layout(flex_flow="row wrap", align_items="flex-start")
SHOWN = "max-width: 100%; height: auto"  # of its own height: a picture that is stretched shows another place
KEEP = "keep this view to compare"
WORKING = "<i>working …</i>"
AIMS = ("aimed",)  # controls of what an attack is for
PAUSE = 0.5  # seconds between two words on how far it is


@dataclasses.dataclass(frozen=True)
class Number:
    """A number of a view: its name, its value, its unit, and what it was counted over."""

    name: str
    value: float | str
    unit: str = ""
    over: str = "this image"


@dataclasses.dataclass(frozen=True)
class View:
    """What an explorer shows: a figure, what is said of it (HTML), and its numbers."""

    figure: Figure
    text: str
    numbers: Sequence[Number] = ()

    @property
    def plain(self) -> str:
        """What is said of it, without markup: the alternative text of the picture."""
        return html.unescape(re.sub(r"<[^>]+>", " ", self.text.replace("<br>", ". "))).replace("  ", " ").strip()

    def table(self) -> str:
        """The numbers as CSV."""
        file = io.StringIO()
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([f.name for f in dataclasses.fields(Number)])
        rows.writerows(dataclasses.astuple(n) for n in self.numbers)
        return file.getvalue()

    def _repr_png_(self) -> bytes:
        return png(self.figure)


class Superseded(BaseException):
    """The controls have changed since this view was begun."""


Follow = Callable[[str, dict[str, Any]], None]
_drawing = threading.RLock()  # one view at a time in this process: they share networks, and two would be half as fast


class Explorer:
    """Controls to the left, the view to the right; under it its numbers, the code that makes it, and a link that saves all.

    `render(**values)` makes the view from the values of all controls by name. Optional: `many` makes from the same values a
    view over many images, and `seek` gives the number of the next image where the attack does what it is for; a button asks
    for each. `follow(name, controls)` is called when the control of that name has changed, before anything is drawn, and may
    change others. Moving a control called `image` leaves an upload for the data set, and choosing one called `arch` leaves an
    own network for the study's. `p` are the parameters that the study's `explorer` was called with.

    As the last expression of a cell it shows itself. `update()` draws; before it nothing is computed, so that
    `explorer(p).render(...)` costs that view alone. In a narrow window the controls stand above the picture.
    """

    def __init__(
        self,
        p: BaseModel,
        controls: Mapping[str, ipywidgets.Widget],
        render: Callable[..., View],
        follow: Follow | None = None,
        many: Callable[..., View] | None = None,
        seek: Callable[..., int] | None = None,
    ) -> None:
        self.p, self.controls, self.render, self.follow = p, dict(controls), render, follow
        self.many, self.seek = many, seek
        self.status, self.picture, self.under = ipywidgets.HTML(), ipywidgets.HTML(), ipywidgets.HTML()
        self.kept, self.over = ipywidgets.HTML(), ipywidgets.HTML()
        self.status.add_class("view-text")
        self.next = _button("next image where the attack succeeds", lambda: self._start(self._seek))
        self.ask = _button("the same over many images", lambda: self._start(self._over_many))
        self.keep = _button(KEEP, self._keep)
        self.view: View | None = None
        self._made: dict[str, str] = {}  # what the controls said when the view was begun
        self._held, self._turn = threading.local(), 0
        self._unfollowed: list[str] = []  # controls that have changed since `follow` was last told
        buttons = [*([self.next] if seek else []), *([self.ask] if many else []), self.keep]
        left = ipywidgets.VBox(
            [*self.controls.values(), *buttons], layout=ipywidgets.Layout(flex="0 0 370px", max_width="100%")
        )
        half = {"flex": "1 1 480px", "min_width": "0"}
        now = ipywidgets.VBox([self.status, self.picture, self.under, self.over], layout=ipywidgets.Layout(**half))
        before = ipywidgets.VBox([self.kept], layout=ipywidgets.Layout(**half | {"display": "none"}))
        self._beside = before
        right = ipywidgets.HBox([now, before], layout=ipywidgets.Layout(flex_flow="row wrap", **half))
        self.widget = ipywidgets.HBox([left, right, styles()], layout=ROW)
        for name, control in self.controls.items():
            control.observe(lambda _change, name=name: self._changed(name), names="value")

    def _ipython_display_(self) -> None:
        display(self.widget)
        self.update()

    @property
    def values(self) -> dict[str, Any]:
        """The value of every control by name."""
        return {name: control.value for name, control in self.controls.items()}

    def _changed(self, name: str) -> None:
        if getattr(self._held, "now", False):
            return
        if left := {"image": Upload, "arch": OwnNetwork}.get(name):
            with self._holding():
                self._leave(left)
        self.over.value = ""  # of another choice
        self._unfollowed.append(name)
        self._start(self._draw)

    def _catch_up(self, turn: int) -> None:
        """Let what has changed be followed, which may train a network, before anything is made of the controls."""
        while self._unfollowed:
            self._check(turn)
            name = self._unfollowed.pop(0)
            try:
                with self._holding():
                    if self.follow:
                        self.follow(name, self.controls)
            except Superseded:
                self._unfollowed.insert(0, name)  # the other controls do not go with it yet
                raise

    def _leave(self, kind: type[Upload] | type[OwnNetwork]) -> None:
        """Back from what is one's own to what is the study's."""
        for control in self.controls.values():
            if isinstance(control, kind):
                control.leave()

    @contextlib.contextmanager
    def _holding(self) -> Iterator[None]:
        """What this thread changes in here is drawn once, after it."""
        self._held.now = True
        try:
            yield
        finally:
            self._held.now = False

    def _start(self, work: Callable[[int], None]) -> None:
        """Do it in place of what is being done: in a notebook beside the kernel's thread, which so hears the next change."""
        self._turn += 1
        if getattr(get_ipython(), "kernel", None) is None:
            self._do(self._turn, work)
        else:
            threading.Thread(target=self._do, args=(self._turn, work), name="explorer", daemon=True).start()

    def update(self) -> "Explorer":
        """Draw from what the controls say now; returns itself."""
        self._turn += 1
        self._do(self._turn, self._draw)
        return self

    def stop(self) -> None:
        """End what is being made; what is shown stays."""
        self._turn += 1

    def _do(self, turn: int, work: Callable[[int], None]) -> None:
        """One work at a time, which says how far it is, ends where it is once it is superseded, and says what went wrong."""
        with _drawing:
            if turn != self._turn:
                return
            self.status.value = WORKING
            try:
                with self._watched(turn), heard(lambda line: self._say(turn, line)):
                    self._catch_up(turn)
                    work(turn)
            except Superseded:
                pass
            except BaseException as error:  # whatever it is: nobody shall wait for a picture that does not come
                self.status.value = told(error)
                if not isinstance(error, Exception):
                    raise

    def _draw(self, turn: int) -> None:
        values, made = self.values, self.settings()
        view = self.render(**values)
        drawn = png(view.figure)
        self._check(turn)
        self.view, self._made = view, made
        self.picture.value, self.status.value = img(drawn, view.plain), view.text
        self.under.value = self._under(drawn, view, values)

    def _over_many(self, turn: int) -> None:
        assert self.many  # else there is no button
        view = self.many(**self.values)
        self._check(turn)
        self.over.value = f"{view.text}<br>{img(png(view.figure), view.plain)}{_numbers(view)}"
        self.status.value = self.view.text if self.view else ""

    def _seek(self, turn: int) -> None:
        assert self.seek  # else there is no button
        found = self.seek(**self.values)
        self._check(turn)
        if found == self.controls["image"].value:
            raise ValueError("the attack succeeds on no other image; try a larger eps")
        aimed = {name: control.value for name, control in self.controls.items() if name in AIMS}
        with self._holding():
            self.controls["image"].value = found
            self._leave(Upload)
            if self.follow:
                self.follow("image", self.controls)
            for name, value in aimed.items():  # what was sought stays what the attack is for
                self.controls[name].value = value
        self._draw(turn)

    def _check(self, turn: int) -> None:
        if turn != self._turn:
            raise Superseded

    def _say(self, turn: int, line: str) -> None:
        self._check(turn)
        self.status.value = f"<i>working … {html.escape(line.strip())}</i>"

    @contextlib.contextmanager
    def _watched(self, turn: int) -> Iterator[None]:
        """Every pass through a network looks whether the view is still wanted, and says now and then how long it has taken."""
        me, begun = threading.get_ident(), time.perf_counter()
        next_word = begun + PAUSE

        def look(_module: Any, _given: Any) -> None:
            nonlocal next_word
            if threading.get_ident() != me:
                return
            self._check(turn)
            now = time.perf_counter()
            if now > next_word:
                next_word = now + PAUSE
                if self.status.value == WORKING or "s so far" in self.status.value:  # else something better is said
                    self.status.value = f"<i>working … {now - begun:.0f} s so far</i>"

        handle = register_module_forward_pre_hook(look)
        try:
            yield
        finally:
            handle.remove()

    def _keep(self) -> None:
        """Put the view beside those that follow, with what it was made of; or let it go."""
        if self.kept.value:
            self.kept.value, self._beside.layout.display, self.keep.description = "", "none", KEEP
        elif self.view:
            made = "; ".join(f"{html.escape(k)} {html.escape(v)}" for k, v in self._made.items())
            self.kept.value = f"<b>kept:</b> {made}<br>{self.view.text}<br>{self.picture.value}"
            self._beside.layout.display, self.keep.description = "", "let the kept view go"

    def settings(self) -> dict[str, str]:
        """What every control says, in the words of its menu."""
        said = {c.description: _said(c) for c in self.controls.values()}
        return {label: str(value) for label, value in said.items() if value not in (None, "")}

    def code(self, values: Mapping[str, Any] | None = None) -> str:
        """Python that makes the view of these values, by default of those that the controls say now."""
        study, kind = type(self.p).__module__.removesuffix(".plan"), type(self.p).__name__
        changed = ", ".join(f"{k}={v!r}" for k, v in self.p.model_dump(exclude_defaults=True).items())
        lines = ["from lib.figures import use_style", f"from {study}.explorer import explorer"]
        lines += [f"from {study}.plan import {kind}", "", "use_style()"]
        arguments = []
        for name, value in (self.values if values is None else values).items():
            if isinstance(value, Image.Image):
                file = getattr(self.controls[name], "name", "") or "picture.png"
                lines[:0] = ["from pathlib import Path", "", "from lib.data import own_pictures"]
                arguments.append(f"{name}=own_pictures.opened(Path({file!r}))")  # upright, in the colours that were seen
            else:
                arguments.append(f"{name}={value!r}")
        given = "".join(f"    {a},\n" for a in arguments)
        return "\n".join([*lines, f"view = explorer({kind}({changed})).render(\n{given})", "view"])

    def _under(self, drawn: bytes, view: View, values: Mapping[str, Any]) -> str:
        code, name = self.code(values), type(self.p).__module__.split(".")[-2].replace("_", "-")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as folder:
            folder.writestr(f"{name}/picture.png", drawn, zipfile.ZIP_STORED)
            folder.writestr(f"{name}/numbers.csv", view.table())
            folder.writestr(f"{name}/view.py", f"# {view.plain}\n{code}\n")
        data = base64.b64encode(packed.getvalue()).decode()
        return (
            f'<a style="text-decoration: underline" download="{name}.zip" href="data:application/zip;base64,{data}">'
            "save picture, numbers and code</a>"
            f"{_numbers(view)}<details><summary>the code that makes this view</summary>"
            f'<pre style="user-select: all; white-space: pre-wrap">{html.escape(code)}</pre></details>'
        )


def _said(control: Any) -> Any:
    """What a control says: the words of its menu, the file of an upload, else its value."""
    if isinstance(control, Upload):
        return control.name if control.value is not None else None
    return getattr(control, "label", None) or control.value


def _button(label: str, act: Callable[[], None]) -> ipywidgets.Button:
    button = ipywidgets.Button(description=label, layout=ipywidgets.Layout(width="340px"))
    button.on_click(lambda _: act())
    return button


def img(drawn: bytes, alt: str) -> str:
    """A PNG as HTML, in its own proportions, with alternative text."""
    data = base64.b64encode(drawn).decode()
    return f'<img class="view" style="{SHOWN}" alt="{html.escape(alt, quote=True)}" src="data:image/png;base64,{data}">'


def _numbers(view: View) -> str:
    if not view.numbers:
        return ""
    rows = "".join(
        f"<tr><th scope='row' style='text-align: left; font-weight: normal'>{html.escape(n.name)}</th>"
        f"<td style='text-align: right; padding: 0 8px'>{_told(n.value)}</td>"
        f"<td>{html.escape(n.unit)}</td><td style='padding-left: 8px'>{html.escape(n.over)}</td></tr>"
        for n in view.numbers
    )
    head = "<tr><th style='text-align: left'>what</th><th>value</th><th>unit</th><th>counted over</th></tr>"
    return f"<details><summary>numbers</summary><table>{head}{rows}</table></details>"


def _told(value: float | str) -> str:
    return html.escape(value) if isinstance(value, str) else f"{value:.4g}"


def over_levels(
    levels: Sequence[float],
    curves: Mapping[str, Tensor],
    present: float,
    *,
    xlabel: str,
    ylabel: str,
    unit: str = "",
    what: str = "images",
) -> View:
    """Medians and quartiles of a number over many images at each level, (levels, N) a curve, with the present level marked."""
    fig, axes = canvas(1, 1, (7.5, 3.4))
    ax, numbers = axes[0, 0], []
    for i, (label, values) in enumerate(curves.items()):
        count = int(values.isfinite().any(0).sum())
        low, middle, high = (values.double().nanquantile(q, 1).tolist() for q in (0.25, 0.5, 0.75))
        ax.plot(levels, middle, label=label, **series(i))
        ax.fill_between(levels, low, high, color=series(i)["color"], alpha=0.18, linewidth=0)
        for level, *found in zip(levels, low, middle, high, strict=True):
            names = zip(("lower quartile", "median", "upper quartile"), found, strict=True)
            numbers += [Number(f"{label}, {xlabel} {level:.4g}: {n}", v, unit, f"{count} {what}") for n, v in names]
    ax.axvline(present, color="gray", linestyle=":", label="the view above")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    text = f"median and quartiles over {count} {what}; dotted: the view above"
    return View(fig, text, numbers)
