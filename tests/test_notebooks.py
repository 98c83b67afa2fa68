"""Every notebook: its stored form, and its execution under `smoke`: through Snakemake, which resumes after kill -9 and does
nothing twice, and under plain papermill, with the same numbers. (tests/test_browser.py runs cells in JupyterLab.)
"""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lib import __main__
from lib.runs import graph, profiles
from lib.system import files, paths

NOTEBOOKS = sorted(paths.notebooks().glob("[0-9]*.ipynb"))
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
    sources = {p.name: p.read_text() for p in (paths.PROJECT / "lib").rglob("*.py")}
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        sources[path.name] = "\n".join(c.source for c in cells if c.cell_type == "code")
    for name, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value.removesuffix("_r") not in MISLEADING, (name, node.value)


def study(home: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "lib", "study", "--profile", "smoke"]
    return subprocess.Popen(
        command,
        cwd=paths.PROJECT,
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"STUDY_HOME": str(home)},
        start_new_session=True,
    )


@dataclass
class Finished:
    """A whole study that was killed while it trained, and then run again: what was there after the kill, what it said."""

    home: Path
    after_kill: dict[str, int]
    said: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Every study under smoke as `make report` runs it, once for all tests here."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(home))
        process = study(home)
        seen = ""
        for line in process.stdout:
            seen += line
            if "epoch 1/1" in line and len(list(paths.models().glob("trained/*.json"))) >= 2:
                os.killpg(process.pid, signal.SIGKILL)  # snakemake, its jobs and the command itself
                break
        process.stdout.close()
        process.wait()
        whole = {p.stem for p in paths.models().glob("*.json")}  # a network's record is written last
        kept = [p for p in paths.models().glob("*.safetensors") if p.name.partition(".")[0] in whole]
        done = {p.name: p.stat().st_mtime_ns for p in kept}
        networks = {c.digest for run in profiles.declared_runs("smoke") for c in graph.networks(run, "smoke")}
        assert 2 <= len(done) < len(networks), seen
        process = study(home)
        said = process.communicate()[0]
        assert process.returncode == 0, said
    return Finished(home, done, said)


@pytest.fixture
def executed(finished, monkeypatch):
    monkeypatch.setenv("STUDY_HOME", str(finished.home))
    return finished.home


def test_the_study_resumes_after_a_kill(finished, executed):
    index = paths.figures("smoke") / "index.html"
    runs = profiles.declared_runs("smoke")
    *told, last = finished.said.splitlines()[-1 - len(runs) :]
    for line, run in zip(told, runs, strict=True):
        nothing = "0 supported, 0 contradicted, 0 negligible, 0 inconclusive"
        untested = int(re.fullmatch(rf"{run[:2]} .*: {nothing}, (\d+) not tested", line)[1])
        assert untested > 3 and (paths.figures("smoke") / f"{run}.html").exists()
    assert last == str(index) and index.exists()
    kept = {n: (paths.models() / n).stat().st_mtime_ns for n in finished.after_kill}
    assert kept == finished.after_kill  # what was trained is not trained again


def test_the_study_does_nothing_twice(executed):
    def records():
        return [files.read_json(paths.results("smoke", run) / "run.json") for run in profiles.declared_runs("smoke")]

    before = records()
    process = study(executed)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert not [line for line in said.splitlines() if line.startswith(("training ", "running "))], said
    assert records() == before


def test_figures_that_were_deleted_are_drawn_again(executed, tmp_path):
    """Their page alone would not do: it shows them."""
    drawn = paths.figures("smoke") / STUDIES[-1]
    drawn.rename(tmp_path / "kept")  # the others stay as they are, and nothing is run here
    command = [sys.executable, "-m", "lib", "study", "--profile", "smoke", "--", "--dry-run", "--quiet", "rules"]
    environment = os.environ | {"STUDY_HOME": str(executed)}
    done = subprocess.run(command, cwd=paths.PROJECT, capture_output=True, text=True, check=True, env=environment)
    (tmp_path / "kept").rename(drawn)
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.M))
    assert counts["notebook"] == counts["report"] == "1" and not {"train", "measure"} & set(counts), counts


def test_an_unknown_profile_is_refused(capsys):
    assert __main__.main(["study", "--profile", "desktop"]) == 2
    assert "no profile 'desktop'; there are smoke, laptop" in capsys.readouterr().err


@pytest.mark.parametrize("run", STUDIES)
def test_a_run_leaves_its_record_tables_figures_and_claims(executed, run):
    folder, figures = executed / "data/results/smoke" / run, executed / "figures/smoke" / run
    record = files.read_json(folder / "run.json")
    assert record["profile"] == "smoke" and record["tables"] and record["seconds"] < 120
    for name, digest in record["tables"].items():
        assert files.digest(folder / name) == digest
        assert len(pd.read_parquet(folder / name)) or name == "warnings.parquet"  # attacks may have nothing to warn of
    shown = files.read_json(figures / "figures.json")
    assert sum(f["hero"] for f in shown) == 1
    for figure in shown:
        with Image.open(executed / "figures/smoke" / figure["file"]) as picture:
            assert min(picture.size) > 50 and len(np.unique(picture.convert("L"))) > 20, figure
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


def test_plain_papermill_gives_the_same_numbers(executed, elsewhere):
    """papermill's command line with the profile's file; the study that measures fastest stands for all, which takes long."""
    run = "03-interpretability-aware-training"
    command = [sys.executable, "-m", "papermill", str(profiles.notebook_of(run)), str(elsewhere / "out.ipynb")]
    command += ["-f", str(profiles.profile_file(run, "smoke")), "--no-progress-bar"]
    subprocess.run(command, check=True, capture_output=True, cwd=paths.notebooks())
    same_tables(executed, run, elsewhere)
