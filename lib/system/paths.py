"""Where things are. Everything hangs off `home()`, the project's folder, or `STUDY_HOME` for a copy elsewhere (tests)."""

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def home() -> Path:
    return Path(os.environ.get("STUDY_HOME") or PROJECT)


def datasets() -> Path:
    """Data sets: `data/datasets`, or the folder that `STUDY_DATA` names."""
    return Path(os.environ.get("STUDY_DATA") or home() / "data" / "datasets")


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
