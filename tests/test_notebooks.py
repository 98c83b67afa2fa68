"""Every notebook: its stored form, and its execution under `smoke` in several ways that give the same numbers."""

import ast
import shutil
import subprocess
import sys

import nbformat
import pandas as pd
import pytest

from lib import files, paths, profiles, report, runs

NOTEBOOKS = sorted(paths.notebooks().glob("*.ipynb"))
STUDIES = [p.stem for p in NOTEBOOKS if p.stem != profiles.LEDGER]
TAGS = {"parameters", "hide-input", "hide-cell", "interactive", "slow"}
MISLEADING = {"jet", "turbo", "hsv", "rainbow", "gist_rainbow", "seismic", "bwr", "hot", "nipy_spectral"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_stored_form(path):
    content = nbformat.read(path, as_version=4)
    nbformat.validate(content)
    assert content.metadata.kernelspec.name == "python3" and content.metadata.language_info.name == "python"
    assert set(content.metadata) == {"kernelspec", "language_info"}
    assert path.stem[:2].isdigit() and content.cells[0].source.startswith("# ")
    code = [c for c in content.cells if c.cell_type == "code"]
    assert not any(c.outputs or c.execution_count for c in code)
    assert {t for c in content.cells for t in c.metadata.get("tags", [])} <= TAGS
    parameters = [c for c in code if "parameters" in c.metadata.get("tags", [])]
    assert len(parameters) == 1
    for node in ast.parse(parameters[0].source).body:
        assert isinstance(node, ast.AnnAssign), "typed assignments only"
        ast.literal_eval(node.value)
        assert "#" in parameters[0].source.splitlines()[node.lineno - 1], f"{node.target.id} needs a comment"
    assert len({p.stem[:2] for p in NOTEBOOKS}) == len(NOTEBOOKS)


def test_no_colour_map_that_misleads():
    sources = {p.name: p.read_text() for p in (paths.PROJECT / "lib").glob("*.py")}
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        sources[path.name] = "\n".join(c.source for c in cells if c.cell_type == "code")
    for name, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value.removesuffix("_r") not in MISLEADING, (name, node.value)


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Each study through the runner under smoke, once for all tests here."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(home))
        for run in STUDIES:
            runs.execute(run, "smoke")
            report.render(run, "smoke")
    return home


@pytest.mark.parametrize("run", STUDIES)
def test_a_run_leaves_its_record_tables_figures_and_claims(executed, run):
    folder, figures = executed / "data/results/smoke" / run, executed / "figures/smoke" / run
    record = files.read_json(folder / "run.json")
    assert record["profile"] == "smoke" and record["tables"] and record["seconds"] < 120
    for name, digest in record["tables"].items():
        assert files.digest(folder / name) == digest and len(pd.read_parquet(folder / name))
    shown = files.read_json(figures / "figures.json")
    assert sum(f["hero"] for f in shown) == 1
    for figure in shown:
        assert (executed / "figures/smoke" / figure["file"]).stat().st_size > 5000
    claims = pd.read_csv(figures / "claims.csv", dtype={"study": str})
    assert (claims.verdict == "not tested").all() and (claims.study == run[:2]).all() and claims.id.is_unique


def same_tables(executed, run, home) -> None:
    for official in (executed / "data/results/smoke" / run).glob("*.parquet"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(official), pd.read_parquet(home / "data/results/smoke" / run / official.name)
        )


@pytest.fixture
def elsewhere(executed, tmp_path, monkeypatch):
    """A home of its own with the networks that are trained already."""
    shutil.copytree(executed / "data/models", tmp_path / "data/models")
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("run", STUDIES)
def test_plain_papermill_gives_the_same_numbers(executed, run, elsewhere):
    """papermill's command line with the profile's file."""
    command = [sys.executable, "-m", "papermill", str(profiles.notebook_of(run)), str(elsewhere / "out.ipynb")]
    command += ["-f", str(profiles.profile_file(run, "smoke")), "--no-progress-bar"]
    subprocess.run(command, check=True, capture_output=True, cwd=paths.notebooks())
    same_tables(executed, run, elsewhere)


def test_cells_by_hand_give_the_same_numbers(executed, elsewhere):
    """One after the other, as JupyterLab runs them; how they are run is not a study's own, so one study will do."""
    from nbclient import NotebookClient

    run = STUDIES[0]
    content = nbformat.read(profiles.notebook_of(run), as_version=4)
    for cell in content.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = "\n".join(f"{k} = {v!r}" for k, v in profiles.parameters(run, "smoke").model_dump().items())
    NotebookClient(content, kernel_name="python3", resources={"metadata": {"path": str(paths.notebooks())}}).execute()
    same_tables(executed, run, elsewhere)
