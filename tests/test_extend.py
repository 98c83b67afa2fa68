"""What the README says that it costs to add something: each of its examples runs as printed, and a whole study too."""

import ast
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
import torch
import yaml

from lib.attacks import ATTACKS
from lib.data import datasets
from lib.explanations import METHODS
from lib.networks import models
from lib.runs import profiles
from lib.studies.parameters import Trained
from lib.system import files, paths
from tests.test_house import SIGNATURES

README = (paths.PROJECT / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("## Extend")[2].partition("\n## ")[0]
EXAMPLES = re.findall(r"```python\n(.*?)```", SECTION, flags=re.DOTALL)
EXAMPLE = paths.PROJECT / "tests" / "example_study"

CELLS = (
    """from lib import figures
from lib.runs import start

run = start("08-example", globals())
p = run.parameters
run.card()""",
    """table = run.measured()
fig, axes = figures.panels(1)
axes[0].hist(table.value)
axes[0].set_xlabel("Spearman correlation with the next seed's map")
run.show(fig, "agreement", "How many images have which rank correlation between the maps of two seeds.", table, hero=True)""",
    "run.judged(table)",
)


@pytest.fixture
def unchanged(monkeypatch):
    """What the examples add is gone afterwards."""
    for table in (METHODS, ATTACKS):
        monkeypatch.setattr(table, "rows", table.rows)
        monkeypatch.setattr(table, "_by_name", dict(table._by_name))
    yield
    models.SMALL_NETWORKS.pop("tiny", None)
    datasets.EMBEDDED.pop("noise", None)


def test_the_examples_of_the_readme_run(unchanged):
    assert len(EXAMPLES) == 4
    scope = {}
    for code in EXAMPLES:
        exec(code, scope)
    assert scope["map_"].shape == (4, 28, 28) and float(scope["map_"].min()) >= 0
    assert float((scope["moved"] - scope["data"].images).abs().max()) <= 8 / 255 + 1e-6
    assert not torch.equal(scope["moved"], scope["data"].images)


def notebook():
    """The parameters cell of the example, written from its Parameters, and CELLS."""
    defaults = Trained(architectures=("plain",)).model_dump()
    lines = [f"{name}: {type(value).__name__} = {value!r}  # a parameter" for name, value in defaults.items()]
    cells = [nbformat.v4.new_code_cell("\n".join(lines), metadata={"tags": ["parameters"]})]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=cells + [nbformat.v4.new_code_cell(code) for code in CELLS], metadata=kernel)


def test_a_study_costs_a_folder_a_notebook_and_a_profile(tmp_path):
    """In a copy of the project, with nothing else changed: it runs, judges and is reported."""
    project = tmp_path / "project"
    for name in ("lib", "notebooks"):
        shutil.copytree(paths.PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(EXAMPLE, project / "lib" / "studies" / "example", ignore=shutil.ignore_patterns("__pycache__"))
    nbformat.write(notebook(), project / "notebooks" / "08-example.ipynb")
    small = {"dataset": "digits", "size": 16, "channels": 1, "images": 8, "seeds": 2, "epochs": 1, "train_images": 64}
    (project / "notebooks" / "profiles" / "smoke" / "08-example.yaml").write_text(yaml.safe_dump(small))
    command = [sys.executable, "-m", "lib", "run", "08-example", "--profile", "smoke"]
    home = tmp_path / "home"
    done = subprocess.run(
        command, cwd=project, env=os.environ | {"STUDY_HOME": str(home)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shown = home / "figures" / "smoke"
    assert "seeds-agree/plain" in (shown / "08-example" / "claims.csv").read_text()
    assert "Do seeds agree?" in (shown / "index.html").read_text() and (shown / "08-example.html").exists()
    assert files.read_json(shown / "08-example" / "run.json")["tables"].keys() == {"measurements.parquet"}


@pytest.mark.parametrize("missing", ["measure.py", "explorer.py"])
def test_a_study_without_one_of_its_parts_is_refused(tmp_path, monkeypatch, missing):
    shutil.copytree(EXAMPLE, tmp_path / "lib" / "studies" / "example")
    (tmp_path / "lib" / "studies" / "example" / missing).unlink()
    monkeypatch.setattr(paths, "PROJECT", tmp_path)
    with pytest.raises(ValueError, match=f"08-example: lib/studies/example lacks {missing}; a study has plan, measure"):
        profiles.part("08-example", "plan")


def test_the_example_has_the_signatures_of_a_study():
    for part, functions in SIGNATURES.items():
        tree = ast.parse((EXAMPLE / f"{part}.py").read_text())
        defined = {
            node.name: [
                a.arg for a in (*node.args.args, *([node.args.vararg] if node.args.vararg else []), *node.args.kwonlyargs)
            ]
            for node in tree.body
            if isinstance(node, ast.FunctionDef)
        }
        for function, first in functions.items():
            assert function in defined and (first is None or defined[function][: len(first)] == first)
