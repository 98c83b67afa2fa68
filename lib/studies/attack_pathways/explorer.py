"""The explorer of study 6: any network, classes or pictures of one's own, and attack; traced on demand and shown as a page.

The page in the frame answers by itself, and is what can be saved; the button is what needs the kernel. It traces beside the
kernel's own thread, so that a change of mind is heard, which ends what is being traced.
"""

import functools
import html
import re
import threading
from collections.abc import Callable
from typing import Any

import ipywidgets
import torch
import traitlets
from IPython import get_ipython
from IPython.display import display
from torch import Tensor

from lib.data import own_pictures
from lib.figures import widgets
from lib.figures.explorer import Superseded
from lib.pathways import pages, stored
from lib.pathways.graph import Graph
from lib.studies import subjects
from lib.studies.attack_pathways import plan, traced
from lib.studies.attack_pathways.plan import NAMES, Parameters
from lib.system import files, paths
from lib.system.progress import heard
from lib.training.cache import key_of

NAME = "06-attack-pathways"
FITTING = ipywidgets.Layout(width="auto", min_width="240px", max_width="420px", flex="1 1 300px")
TRACE, ANEW, STOP = "Trace pathways", "Trace anew: the graph below is of another choice", "Stop tracing"
KEPT = 20  # graphs that are shown again at once


class Pictures(ipywidgets.VBox):
    """Pictures of one's own instead of a class: `value` has an opened picture a file by its name, () while there is none.

    A file that is no picture is refused in words below the button, and `value` stays as it was.
    """

    value = traitlets.Any(())

    def __init__(self) -> None:
        self.file = ipywidgets.FileUpload(description="your own images instead", accept="image/*", multiple=True)
        self.back = ipywidgets.Button(description="back to the classes", layout=ipywidgets.Layout(display="none"))
        self.said = ipywidgets.HTML()
        self.file.layout.width = self.back.layout.width = "auto"
        super().__init__([self.file, self.back, self.said], layout=FITTING)
        self.file.observe(self._read, names="value")
        self.back.on_click(lambda _: self.leave())

    def leave(self) -> None:
        """Back to the classes."""
        self.file.value = ()  # so that the same files can be chosen again
        self.said.value, self.back.layout.display, self.value = "", "none", ()

    def _read(self, _change: Any) -> None:
        if not self.file.value:
            return
        try:
            opened = [(f["name"], own_pictures.opened(bytes(f["content"]), name=f["name"])) for f in self.file.value]
        except (ValueError, OSError) as error:
            self.said.value = widgets.told(error)
            return
        self.back.layout.display, self.value = "", tuple(opened)
        named = ", ".join(html.escape(name) for name, _ in opened)
        self.said.value = f"from {named}: the central square of each, scaled to the size that the network takes"


class Explorer:
    """Controls and a button above the graph; `widget` is what a notebook displays, `status` says what was traced.

    `run` is the run whose folders keep what was traced (`lib.runs`), `graphs` are those that its notebook has. The first view
    is the first of these, else the page of the run's figures, else it is traced.
    """

    def __init__(self, p: Parameters, run: Any = None, graphs: dict[str, Graph] | None = None) -> None:
        self.p, self.run, self.graphs = p, run, graphs
        self.kept: dict[str, Graph] = {}
        self._turn, self._busy, self._held, self._one = 0, False, False, threading.Lock()
        source, _, target = plan.PHOTOGRAPHED.partition(">")
        trained = {f"{a} (trained on {p.dataset})": a for a in p.architectures}
        published = {f"{traced.PUBLISHED} (published)": plan.PHOTOGRAPHS}
        self.arch = widgets.choice("network", published | trained, plan.PHOTOGRAPHS)
        self.network = widgets.OwnNetwork(self._anew)
        self.source = widgets.choice("from", [source], source)
        self.own = Pictures()
        self.target = ipywidgets.Combobox(description="to class", value=target, style=widgets.LABEL, continuous_update=False)
        self.attack = widgets.choice("attack", {NAMES[a]: a for a in plan.ATTACKS}, "pgd")
        self.layers = ipywidgets.Text(
            description="layers", placeholder="empty: all blocks", style=widgets.LABEL, continuous_update=False
        )
        self.button = ipywidgets.Button(description=TRACE, button_style="primary", layout=ipywidgets.Layout(width="auto"))
        self.status, self.frame = ipywidgets.HTML(), ipywidgets.HTML(layout=ipywidgets.Layout(width="100%"))
        controls = (self.arch, self.network, self.source, self.target, self.own, self.attack, self.layers)
        for control in controls:
            control.layout = FITTING
        for part in self.network.children:
            part.layout = ipywidgets.Layout(width="auto", display=part.layout.display)
        row = ipywidgets.Layout(flex_flow="row wrap", align_items="flex-start", grid_gap="2px 12px")
        under = ipywidgets.HBox([self.button, self.status], layout=row)
        self.widget = ipywidgets.VBox([ipywidgets.HBox(controls, layout=row), under, self.frame, widgets.styles()])
        self._fit()
        self.button.on_click(lambda _: self.stop() if self._busy else self.trace())
        for control in controls:
            control.observe(functools.partial(self._changed, control), names="value")

    def _ipython_display_(self) -> None:
        display(self.widget)
        self.update()

    def update(self) -> "Explorer":
        """Show the first view, if nothing is shown yet; returns itself."""
        if not self.frame.value:
            self._first()
        return self

    def _first(self) -> None:
        if self.graphs:
            self.show(next(iter(self.graphs.values())))
            return
        report = paths.figures(self.p.profile) / (self.run.name if self.run else NAME)
        for folder in (self.run.figures if self.run else report, report):  # in JupyterLab a run has a folder of its own
            try:
                page = pages.read(folder / pages.FILE)
                known = tuple(pages.contents(page)["strengths"]) == self.p.strengths
            except (OSError, ValueError):
                continue
            if known:  # else it is of other parameters
                self._put(page, f"<b>traced</b> before, for the report of profile {html.escape(self.p.profile)}")
                return
        self.trace()

    # -- controls ------------------------------------------------------------------------------------------------------

    def _anew(self, name: str) -> None:
        """Load one's own network from its file as it is now; graphs of what it was are let go."""
        subjects.anew(name, self.p.device)
        self.kept.clear()

    @property
    def chosen(self) -> str:
        """The network: one's own by its name, where one is given."""
        return self.network.value or self.arch.value

    def _changed(self, control: Any, _change: Any) -> None:
        if self._held:
            return
        self._held = True
        try:
            if control is self.arch:
                self.network.leave()
            if control in (self.arch, self.network):
                self._fit()
            if control is self.source:
                self.own.leave()
        except (ValueError, RuntimeError, OSError) as error:
            self.status.value = widgets.told(error)
        finally:
            self._held = False
        self.stop()
        self.stale(True)

    def _fit(self) -> None:
        """Offer what the chosen network can be asked."""
        count, classes = traced.choices(self.p, self.chosen)
        trained = self.chosen in self.p.architectures
        what = "image" if trained else "photograph"
        options = [(f"{name} ({n} {what}{'' if n == 1 else 's'})", name) for name, n in sorted(count.items())]
        pair = (self.p.pairs[0] if trained else plan.PHOTOGRAPHED).split(">")
        names = [name for _, name in options]
        before = (self.source.value, self.target.value)
        self.source.options = options
        self.source.value = next(n for n in (before[0], pair[0], names[0]) if n in names)
        self.target.options = classes
        self.target.value = next((n for n in (before[1], pair[1]) if n in classes and n != self.source.value), classes[0])

    def stale(self, now: bool) -> None:
        """Say on the button whether the graph is of another choice than the one that stands now."""
        if not self._busy:
            self.button.description = ANEW if now else TRACE
            self.button.button_style = "warning" if now else "primary"

    # -- tracing -------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End what is being traced; the graph stays as it was."""
        self._turn += 1

    def trace(self) -> None:
        """What the button does: in a notebook beside the kernel's thread. What goes wrong is said beside the button, and the
        graph stays as it was."""
        self._turn += 1
        if getattr(get_ipython(), "kernel", None) is None:
            self._trace(self._turn)
        else:
            threading.Thread(target=self._trace, args=(self._turn,), name="tracing", daemon=True).start()

    def _trace(self, turn: int) -> None:
        with self._one:  # what is no longer wanted ends first
            if turn != self._turn:
                return
            self._busy = True
            self.button.description, self.button.button_style = STOP, "danger"
            said, done = self.status.value, False
            try:
                with heard(lambda line: self._tell(turn, line)):
                    self._tell(turn, "tracing …")
                    graph = self._graph(lambda line: self._tell(turn, line))
                    self._tell(turn, "drawing …")
                self.show(graph)
                done = True
            except Superseded:
                self.status.value = said
            except BaseException as error:  # whatever it is: nobody shall wait for a graph that does not come
                self.status.value = widgets.told(error)
                if not isinstance(error, Exception):
                    raise
            finally:
                self._busy = False
                self.stale(not done or turn != self._turn)

    def _tell(self, turn: int, line: str) -> None:
        """How far it is; ends it where it is once it is no longer wanted."""
        if turn != self._turn:
            raise Superseded
        share = re.search(r"\((\d+) %\)", line)
        bar = f'<progress max="100" value="{share[1]}" aria-label="traced"></progress> ' if share else ""
        self.status.value = f"{bar}<i>{html.escape(line.strip())}</i>"

    def _graph(self, progress: Callable[[str], None]) -> Graph:
        """The graph of what the controls say; one that was traced before is found again."""
        p, network, target = self._asked(), self.chosen, self.target.value.strip()
        layers = tuple(n.strip() for n in self.layers.value.split(",") if n.strip())
        source = self._images() if self.own.value else self.source.value
        named = source if isinstance(source, str) else files.digest(source.numpy().tobytes())
        key = [network, named, target, self.attack.value, layers, p.model_dump(mode="json", exclude={"profile", "variant"})]
        short = files.digest_of(key)
        if short not in self.kept:

            def trace() -> Graph:
                progress(f"loading {network}" if network not in p.architectures else f"loading, or training, {network}")
                attacks = (self.attack.value,)
                return traced.between(p, network, source, target, attacks=attacks, layers=layers, progress=progress)

            if self.run is None or self.network.value:  # the code of one's own network may change under its name
                graph = trace()
            else:
                key.append([key_of(c) for c in plan.networks(p, network, 0)])
                table = self.run.cached("traced", key, lambda: traced.row(trace()))
                graph = stored.unpacked(table.graph.iloc[0])
            self.kept = dict(list(self.kept.items())[1 - KEPT :]) | {short: graph}
        return self.kept[short]

    def _asked(self) -> Parameters:
        """The parameters; of a large network every other strength and half as many steps, so that nobody waits long."""
        if self.chosen in self.p.architectures:
            return self.p
        strengths = self.p.strengths[-1::-2][::-1] if len(self.p.strengths) > 3 else self.p.strengths
        return self.p.model_copy(update={"strengths": strengths, "steps": max(1, self.p.steps // 2)})

    def _images(self) -> Tensor:
        """One's own pictures as the network takes them."""
        found = traced.subject(self.p, self.chosen).data
        return torch.stack([found.like(opened) for _, opened in self.own.value])

    def show(self, graph: Graph) -> None:
        """Put a graph into the frame."""
        page = pages.page({graph.title: graph}, NAMES, "Attack pathways")
        told = "; ".join(
            f"{NAMES.get(a, a)} reaches {html.escape(graph.target)} with {max(won)} of {graph.images} at most"
            for a, won in graph.success.items()
        )
        self._put(page, f"<b>traced</b> {html.escape(graph.title)}, {html.escape(pages.counted(graph))}: {told}")

    def _put(self, page: str, status: str) -> None:
        self.frame.value, self.status.value = pages.framed(page), status
        self.stale(False)


def explorer(p: Parameters, run: Any = None, graphs: dict[str, Graph] | None = None) -> Explorer:
    """The explorer of a run: the published network on photographs first, then one's own, then those that the study trains."""
    return Explorer(p, run, graphs)
