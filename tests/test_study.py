"""Snakemake drives the graph: it resumes after kill -9, and does nothing twice."""

import os
import re
import signal
import subprocess
import sys
import time

from lib import files, paths, profiles


def study(home, **options):
    command = [sys.executable, "-m", "lib.study", "--profile", "smoke"]
    return subprocess.Popen(
        command, cwd=paths.PROJECT, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"STUDY_HOME": str(home)}, start_new_session=True, **options,
    )  # fmt: skip


def test_the_study_resumes_after_a_kill_and_does_nothing_twice(home):
    process = study(home)
    seen = ""
    for line in process.stdout:
        seen += line
        if "epoch 1/1" in line and len(list(paths.models().glob("trained/*.json"))) >= 2:
            os.killpg(process.pid, signal.SIGKILL)  # snakemake, its jobs and the command itself
            break
    process.stdout.close()
    process.wait()
    done = {p.name: p.stat().st_mtime_ns for p in paths.models().glob("*.safetensors")}
    networks = {c.digest for run in profiles.declared_runs("smoke") for c in profiles.networks(run, "smoke")}
    assert 2 <= len(done) < len(networks), seen

    process = study(home)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    index = paths.figures("smoke") / "index.html"
    runs = profiles.declared_runs("smoke")
    *told, last = said.splitlines()[-1 - len(runs) :]
    for line, run in zip(told, runs, strict=True):
        untested = int(re.fullmatch(rf"{run[:2]} .*: 0 supported, 0 contradicted, 0 inconclusive, (\d+) not tested", line)[1])
        assert untested > 3 and (paths.figures("smoke") / f"{run}.html").exists()
    assert last == str(index) and index.exists()
    assert {n: (paths.models() / n).stat().st_mtime_ns for n in done} == done  # what was trained is kept
    records = [files.read_json(paths.results("smoke", run) / "run.json") for run in runs]

    begin = time.perf_counter()
    process = study(home)
    said = process.communicate()[0]
    assert process.returncode == 0 and "training" not in said and "running" not in said, said
    assert [files.read_json(paths.results("smoke", run) / "run.json") for run in runs] == records
    print(f"nothing to do took {time.perf_counter() - begin:.1f} s")


def test_an_unknown_profile_is_refused():
    command = [sys.executable, "-m", "lib.study", "--profile", "desktop"]
    done = subprocess.run(command, cwd=paths.PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "no profile 'desktop'; there are smoke, laptop" in done.stderr
