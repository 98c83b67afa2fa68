"""Notebooks are stored without what a front end leaves in them, to the byte as they were."""

import copy
import json
import types

import nbformat
import pytest

from lib.commands import lab
from lib.system import notebooks, paths

OURS = sorted(paths.notebooks().glob("*.ipynb"))


def looked_at(file):
    """A notebook as JupyterLab hands it over to be saved once it was run."""
    content = nbformat.read(file, as_version=4)
    content.metadata.kernelspec.display_name = "Python 3 (ipykernel)"
    content.metadata.language_info |= {"version": "3.12.1", "file_extension": ".py", "codemirror_mode": {"name": "ipython"}}
    content.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    for i, cell in enumerate(content.cells):
        cell.metadata |= {"editable": True, "slideshow": {"slide_type": ""}, "trusted": True}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [nbformat.v4.new_output("stream", text="seen")], i
            cell.metadata |= {"execution": {"iopub.status.busy": "2026-01-01T00:00:00Z"}, "collapsed": False}
    content.cells.append(nbformat.v4.new_code_cell())  # Shift+Enter in the last cell
    return json.loads(json.dumps(content))


def saved(file, model):
    """What Jupyter writes of it, as its contents manager does."""
    given = {"model": model, "path": file.name, "contents_manager": types.SimpleNamespace(root_dir=str(file.parent))}
    notebooks.before_saving(**given)
    return nbformat.writes(nbformat.from_dict(model["content"]), version=nbformat.NO_CONVERT) + "\n"


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.stem)
def test_a_notebook_that_is_looked_at_is_saved_as_it_was(file):
    assert saved(file, {"type": "notebook", "content": looked_at(file)}) == file.read_text(encoding="utf-8")


def test_what_is_changed_in_one_is_saved():
    file = paths.notebooks() / f"{notebooks.EXPLORE}.ipynb"
    content = looked_at(file)
    content["cells"][0]["source"] += " and more"
    before = nbformat.read(file, as_version=4)
    now = nbformat.reads(saved(file, {"type": "notebook", "content": content}), as_version=4)
    assert now.cells[0].source == before.cells[0].source + " and more" and now.cells[1:] == before.cells[1:]


@pytest.mark.parametrize("name", ["Untitled.ipynb", "00-grad-cam-Copy1.ipynb", "mine/00-grad-cam.ipynb", "mine/explore.ipynb"])
def test_somebodys_own_notebook_keeps_its_outputs(name):
    content = looked_at(OURS[0])
    model = {"type": "notebook", "content": copy.deepcopy(content)}
    saved(paths.notebooks() / name, model)
    assert model["content"] == content


def test_other_files_are_saved_as_they_are():
    for model in ({"type": "file", "content": "text", "format": "text"}, {"type": "directory"}, {"type": "notebook"}):
        before = copy.deepcopy(model)
        given = types.SimpleNamespace(root_dir=str(paths.notebooks()))
        notebooks.before_saving(model=model, path="/00-grad-cam.ipynb", contents_manager=given)
        assert model == before


def test_make_lab_is_that_command():
    rule = (paths.PROJECT / "Makefile").read_text(encoding="utf-8").partition("\nlab:")[2].splitlines()[1]
    assert rule == "\t@$(RUN) -m lib lab"
    file, *options = lab.arguments(["--no-browser"])
    assert file == str(paths.notebooks() / "explore.ipynb") and options[-1] == "--no-browser"
    assert "--FileContentsManager.pre_save_hook=lib.system.notebooks.before_saving" in options
