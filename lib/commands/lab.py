"""`python -m lib lab`, which `make lab` calls: JupyterLab on the explorers. What it is given it passes on to JupyterLab."""

from pathlib import Path

from lib.system import notebooks, paths


def arguments(given: list[str], root: Path = paths.PROJECT) -> list[str]:
    """The command line of JupyterLab: it opens `explore.ipynb`, and stores the study's notebooks without outputs.

    What it shows is the whole project below `root`, figures too.
    """
    hook = f"{notebooks.before_saving.__module__}.{notebooks.before_saving.__name__}"
    own = [f"--ServerApp.root_dir={root}", f"--FileContentsManager.pre_save_hook={hook}"]
    return [str(root / "notebooks" / f"{notebooks.EXPLORE}.ipynb"), *own, *given]


def main(given: list[str]) -> int:
    from jupyterlab.labapp import main as lab  # here, since tests of the command line need not wait for it

    lab(arguments(given))
    return 0
