"""The explorer of study 6: any two classes, your own images, an attack; pathways are traced on demand and shown as a page.

The page in the frame answers by itself; the button is what needs the kernel.
"""

import html

import ipywidgets
import torch
from torch import Tensor

from lib.data.images import open_image, to_tensor
from lib.figures import widgets
from lib.pathways import interactive
from lib.pathways.graph import Graph
from lib.studies.attack_pathways import plan, traced
from lib.studies.attack_pathways.plan import NAMES, Parameters

FRAME = '<iframe title="attack pathways" style="width: 1010px; height: 860px; border: 0" srcdoc="{}"></iframe>'


class Explorer:
    """Controls and a button above the graph; `widget` is what a notebook displays, `status` says what was traced."""

    def __init__(self, p: Parameters, first: Graph | None = None) -> None:
        self.p = p
        self.data = plan.evaluation_set(p)
        numbered = {name: i for i, name in enumerate(self.data.classes)}
        source, target = plan.pair_of(p.pairs[0], self.data.classes)
        self.arch = widgets.choice("network", p.architectures, p.architectures[0])
        self.source = widgets.choice("from class", numbered, source)
        self.target = widgets.choice("to class", numbered, target)
        self.own = ipywidgets.FileUpload(
            description="your own images instead", accept="image/*", multiple=True, layout=widgets.WIDE
        )
        self.attack = widgets.choice("attack", {NAMES[a]: a for a in plan.ATTACKS}, "pgd")
        self.layers = ipywidgets.Text(
            description="layers",
            placeholder="names, comma between; empty: all blocks",
            style=widgets.LABEL,
            layout=widgets.WIDE,
        )
        self.button = ipywidgets.Button(description="Trace pathways", button_style="primary")
        self.status = ipywidgets.HTML()
        self.frame = ipywidgets.HTML()
        left = ipywidgets.VBox([self.arch, self.source, self.target, self.attack])
        right = ipywidgets.VBox([self.layers, self.own, self.button, self.status])
        row = ipywidgets.HBox([left, right], layout=ipywidgets.Layout(flex_flow="row wrap"))
        self.widget = ipywidgets.VBox([row, self.frame])
        self.button.on_click(lambda _: self.trace())
        for control in (self.arch, self.source, self.target, self.own, self.attack, self.layers):
            control.observe(lambda _: self.stale(True), names="value")
        if first is not None:
            self.show(first)

    def stale(self, now: bool) -> None:
        """Say on the button whether the graph is of another choice than the one that stands now."""
        self.button.description = "Trace anew: the graph below is of another choice" if now else "Trace pathways"
        self.button.button_style, self.button.layout.width = ("warning", "340px") if now else ("primary", "auto")

    def show(self, graph: Graph) -> None:
        """Put a graph into the frame."""
        self.stale(False)
        attacks = {a: NAMES.get(a, a) for a in graph.edges}
        page = interactive.page({graph.title: graph}, attacks, "Attack pathways")
        self.frame.value = FRAME.format(html.escape(page, quote=True))
        reached = {attack: max(won) for attack, won in graph.success.items()}
        told = "; ".join(
            f"{NAMES.get(a, a)} reaches {html.escape(graph.target)} with {n} of {graph.images} images at most"
            for a, n in reached.items()
        )
        self.status.value = f"<b>traced</b> {html.escape(graph.title)}: {told}"

    def images(self) -> tuple[Tensor, str]:
        """The source images and what they are called: uploaded ones where there are any."""
        if self.own.value:
            opened = [open_image(bytes(f["content"]), name=f["name"]) for f in self.own.value]
            found = [to_tensor(o, size=self.p.size, channels=self.p.channels) for o in opened]
            return torch.stack(found), "your images"
        index = self.source.value
        return plan.of_class(self.data, index, self.p.images), self.data.classes[index]

    def trace(self) -> None:
        """What the button does; what goes wrong is said beside it, and the graph stays as it was."""
        p = self.p
        self.button.disabled = True
        self.status.value = "<i>tracing …</i>"
        try:
            if self.source.value == self.target.value and not self.own.value:
                raise ValueError("choose two different classes")
            source, name = self.images()
            named = tuple(n.strip() for n in self.layers.value.split(",") if n.strip())
            graph = traced.graph_of(
                p, self.arch.value, source, name, self.target.value, chosen=(self.attack.value,), layers=named
            )
            self.show(graph)
        except BaseException as error:  # whatever it is: nobody shall wait for a graph that does not come
            self.status.value = widgets.told(error)
            if not isinstance(error, Exception):
                raise
        finally:
            self.button.disabled = False


def explorer(p: Parameters, first: Graph | None = None) -> Explorer:
    """The explorer of a run; `first` is the graph that it shows before the button is pressed."""
    return Explorer(p, first or traced.graph(p, p.architectures[0], p.pairs[0], chosen=("pgd",)))
