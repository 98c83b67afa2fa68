"""Where things are. Everything hangs off `home()`, the project's folder, or `STUDY_HOME` for a copy elsewhere (tests).

Both variables may be relative to where a command is typed; `settle` makes them whole before jobs and kernels start elsewhere.
"""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def home() -> Path:
    return Path(os.environ.get("STUDY_HOME") or PROJECT).absolute()


def datasets() -> Path:
    """Data sets: `data/datasets`, or the folder that `STUDY_DATA` names."""
    return Path(os.environ.get("STUDY_DATA") or home() / "data" / "datasets").absolute()


def settle() -> None:
    """Make the variables that name folders absolute, for what this process starts."""
    for name in ("STUDY_HOME", "STUDY_DATA"):
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).absolute())


def models() -> Path:
    return home() / "data" / "models"


def results(profile: str, run: str) -> Path:
    return home() / "data" / "results" / profile / run


def figures(profile: str) -> Path:
    return home() / "figures" / profile


def tried(profile: str) -> Path:
    """Figures of notebooks that somebody runs by hand in JupyterLab; git ignores them."""
    return home() / "data" / "figures" / profile


def published() -> Path:
    """The papers' tables, part of the project."""
    return PROJECT / "data" / "published"


def notebooks() -> Path:
    return PROJECT / "notebooks"
