"""`python -m lib serve`: the loaded process that `python -m lib study` keeps, whose forks its jobs are (`lib.system.forks`)."""

import importlib

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
    begun = forks.state(paths.PROJECT / "lib")
    for module in LOADED:
        importlib.import_module(module)
    forks.serve(int(given[0]), work, paths.PROJECT / "lib", begun)
    return 0
