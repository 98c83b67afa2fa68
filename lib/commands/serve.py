"""`python -m lib serve`: the loaded process that `python -m lib study` keeps, whose forks its jobs are (`lib.system.forks`)."""

import importlib
import os

from lib.system import forks, paths

# what jobs and the kernels of notebooks import
LOADED = (
    *(f"lib.commands.{name}" for name in ("train", "measure", "run", "report", "kernel")),
    *("matplotlib.backends.backend_agg", "nbconvert", "papermill", "pyarrow.parquet", "scipy.stats", "seaborn", "torchvision"),
)


def work(given: list[str]) -> int:
    """What `python -m lib COMMAND …` does, in a process that is loaded."""
    return importlib.import_module(f"lib.commands.{given[0]}").main(given[1:])


def main(given: list[str]) -> int:
    begun = forks.state(paths.PROJECT / "lib")  # before anything is imported: a change on the way is one, too
    os.environ["MPLBACKEND"] = "agg"  # as jobs have it: nobody watches them, and matplotlib asks when it is imported
    for module in LOADED:
        importlib.import_module(module)
    sources = importlib.import_module("lib.runs.sources")
    for notebook in paths.notebooks().glob("[0-9]*.ipynb"):
        sources.of_notebook(notebook.stem)  # parsed once, not by every job that asks what decides its numbers
    forks.serve(int(given[0]), work, paths.PROJECT / "lib", begun)
    return 0
