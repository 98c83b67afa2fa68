"""The explorers of all studies in one place, for `notebooks/explore.ipynb`: choose a study, and its explorer appears.

Nothing is run above it: an explorer is made when its study is chosen, with the profile's parameters, and kept. Networks that
are not in the cache are trained then.
"""

import html
from typing import Any

import ipywidgets
from IPython.display import display

from lib.figures import style, widgets
from lib.runs import profiles
from lib.system.progress import heard


class Explorers(ipywidgets.VBox):
    """A menu of the studies; below it the explorer of the one that is chosen, or what hinders it, in words."""

    def __init__(self, profile: str = "laptop") -> None:
        self.profile, self.made = profile, {}
        runs = [run for run in profiles.declared_runs(profile) if "." not in run]
        named = {f"{run[:2]} {profiles.part(run, 'plan').TITLE}": run for run in runs}
        self.study, self.said, self.place = widgets.choice("study", named, runs[0]), ipywidgets.HTML(), ipywidgets.VBox()
        super().__init__([self.study, self.said, self.place])
        self.study.observe(lambda _change: self.appear(), names="value")

    def appear(self) -> None:
        """Show the explorer of the chosen study; where it cannot be made, the one before it stays."""
        run = self.study.value
        try:
            if run not in self.made:
                self._say(f"opening {self.study.label} …")
                with heard(self._say):
                    self.made[run] = profiles.part(run, "explorer").explorer(profiles.parameters(run, self.profile))
            for other in self.made.values():  # one work at a time: what nobody looks at ends
                if other is not self.made[run] and hasattr(other, "stop"):
                    other.stop()
            self.place.children = (self.made[run].widget,)
            self.said.value = ""
            if hasattr(self.made[run], "update"):  # it draws only when it is asked to
                self.made[run].update()
        except Exception as error:
            self.said.value = widgets.told(error)

    def _say(self, line: str) -> None:
        self.said.value = f"<i>{html.escape(line.strip())}</i>"


def explore(**given: Any) -> None:
    """Show the menu at once, then open the first study below it."""
    style.use_style()  # as the start of a study's notebook does
    shown = Explorers(**given)
    display(shown)
    shown.appear()
