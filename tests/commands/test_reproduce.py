"""`python -m lib reproduce`: which runs, where, what is told, how it ends. `.ci/run` computes some in earnest."""

import itertools
import os
import re
import sys

import pytest

from lib.commands import rehearse, reproduce
from lib.runs import profiles
from lib.system import files, paths
from tests.reports.finished import RUN, finish, outdate

OTHER = "02-at-cnn"


@pytest.fixture
def there(home):
    finish(made=("up", "down", "open"))
    finish(OTHER, made=("up",))
    return home


@pytest.fixture
def computed(monkeypatch):
    """Instead of the study: what each run's claims become (none: it does not finish), and where that was asked for."""
    become, asked = {}, []

    def compute(runs, profile, cores, folder):
        asked.append((runs, folder))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STUDY_HOME", str(folder))
            for run in runs:
                if become.get(run):
                    finish(run, profile, become[run])

    monkeypatch.setattr(reproduce, "_compute", compute)
    return become, asked


def test_claims_that_are_the_same(there, computed, capsys):
    become, asked = computed
    become |= {RUN: ("up", "down", "open"), OTHER: ("up",)}
    assert reproduce.main([]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{RUN}: 3 claims, 3 the same to the digit",
        f"{OTHER}: 1 claim, 1 the same to the digit",
    ]
    ((runs, folder),) = asked
    assert runs == [RUN, OTHER] and not folder.exists() and folder != there


def test_a_verdict_that_turns_round_and_a_run_that_does_not_finish(there, computed, capsys, tmp_path):
    become, asked = computed
    become |= {RUN: ("up=down", "down", "open=up")}
    assert reproduce.main(["--folder", str(tmp_path / "kept")]) == 1
    out = capsys.readouterr().out
    assert (
        "1 the same to the digit, 1 with another verdict, 1 turned round" in out and "up (turned round): supported 1.00" in out
    )
    assert f"{OTHER}: did not finish; what stopped it is said above" in out
    assert (tmp_path / "kept" / "figures" / "laptop" / RUN / "claims.csv").exists() and asked[0][1] == tmp_path / "kept"
    become |= {RUN: ("up", "down", "open=nothing")}
    assert reproduce.main([RUN]) == 0  # another verdict, not the opposite
    become[RUN] = ("up", "down")
    assert reproduce.main([RUN]) == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--profile", "labtop"], "unknown profile 'labtop'; did you mean laptop"),
        (["--profile", "paper"], "figures/paper has no claims to compare with; make report PROFILE=paper makes them"),
        (["01-attention"], f"unknown run with claims in figures/laptop '01-attention'; did you mean {RUN}"),
        (["--turn", "zz"], "--turn zz: give a commit's hash, or nothing for the day"),
        ([RUN, "--turn", "ff"], "--turn chooses runs itself; name none"),
    ],
)
def test_refused_before_anything_is_computed(there, computed, capsys, given, says):
    assert reproduce.main(given) == 2
    assert f"error: {says}" in capsys.readouterr().err and not computed[1]


def test_the_folder_of_what_is_compared_with_is_refused(there, computed, capsys):
    assert reproduce.main(["--folder", str(there)]) == 2
    assert "what is compared with is there; give a folder of its own" in capsys.readouterr().err and not computed[1]


def test_claims_of_an_older_version_are_refused(there, computed, capsys):
    outdate()
    assert reproduce.main([RUN]) == 2
    assert "is of another version (it lacks p, adjusted); judge it anew" in capsys.readouterr().err and not computed[1]


def test_turns(home):
    """Every run has its turn, once; the day's number where no hash is given; the same for rehearsals."""
    runs = profiles.declared_runs("laptop")
    for run in runs:
        finish(run)
    found = [reproduce._chosen([], "laptop", f"{i:x}") for i in range(10, 10 + reproduce.PARTS)]
    assert sorted(itertools.chain(*found)) == runs and all(found)
    assert reproduce._chosen([], "laptop", "") in found and len(rehearse._chosen([], "")) == 1


def test_a_run_is_computed_by_the_study_of_another_home(tmp_path, monkeypatch):
    """What is typed, and with which folders: targets are seen from the folder that Snakemake works in."""
    monkeypatch.delenv("STUDY_DATA", raising=False)
    data, noted = paths.datasets(), tmp_path / "noted.json"
    script = tmp_path / "python"
    note = "import json, os, sys; own = {n: os.environ[n] for n in ('STUDY_HOME', 'STUDY_DATA')}"
    write = f"own |= {{'given': sys.argv[1:], 'cwd': os.getcwd()}}; json.dump(own, open({str(noted)!r}, 'w'))"
    script.write_text(f"#!{sys.executable}\n{note}\n{write}\n")
    script.chmod(0o755)
    monkeypatch.setattr(reproduce.sys, "executable", str(script))
    kept = tmp_path / "home" / "figures" / "laptop" / RUN / "run.json"
    files.write_json(kept, {})
    reproduce._compute([RUN, OTHER], "laptop", "2", tmp_path / "home")
    assert not kept.exists()  # of an earlier call, in a folder that stays: it says nothing of this one
    found = files.read_json(noted)
    *options, first, second = found["given"]
    assert options == ["-m", "lib", "study", "--profile", "laptop", "--cores", "2", "--"]
    assert found["STUDY_HOME"] == str(tmp_path / "home") and found["STUDY_DATA"] == str(data)
    assert os.path.normpath(paths.PROJECT / first) == str(tmp_path / "home" / "figures" / "laptop" / RUN / "run.json")
    assert re.search(rf"/{OTHER}/run\.json$", second) and found["cwd"] == str(paths.PROJECT)
