"""How the study's notebooks are stored, without outputs, and a hook that makes JupyterLab store them so.

Whoever runs a notebook to look at it, or only opens it, then leaves the checkout as it was: JupyterLab saves by itself, with
outputs, with the name that it gives the kernel, and with what it remembers of each cell.
"""

from pathlib import Path
from typing import Any

EXPLORE = "explore"  # the notebook that `python -m lib lab` opens: it shows every study's explorer and is none itself
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def is_ours(file: Path) -> bool:
    """Whether a notebook is one of the study's, which have profiles beside them, and no copy or trial of somebody's own."""
    there = file.parent / "profiles" / "laptop"
    return there.is_dir() and (file.stem == EXPLORE or (there / f"{file.stem}.yaml").exists())


def strip(content: dict[str, Any]) -> None:
    """Make a notebook what is stored of it: text, code and tags; no outputs, counts, widgets, and no trace of the front end,
    which adds an empty cell below the last one that is run."""
    content["metadata"] = {name: dict(value) for name, value in KERNEL.items()}
    content["nbformat"], content["nbformat_minor"] = 4, 5
    content["cells"] = [cell for cell in content["cells"] if "".join(cell["source"]).strip()]
    for cell in content["cells"]:
        tags = cell["metadata"].get("tags")
        cell["metadata"] = {"tags": tags} if tags else {}
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None


def before_saving(*, model: dict[str, Any], path: str, contents_manager: Any, **_given: Any) -> None:
    """A `pre_save_hook` of Jupyter's contents manager: the study's notebooks are saved as `strip` leaves them."""
    if model["type"] == "notebook" and model.get("content") and is_ours(Path(contents_manager.root_dir, path.strip("/"))):
        strip(model["content"])
