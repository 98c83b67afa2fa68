"""The graph of the study: train -> measure -> notebook -> report -> index.

`python -m lib study --profile laptop` runs it, as `make report` does; what it depends on is files, so it resumes, and the
same graph runs on a cluster (README, "Execute").
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, workflow.basedir)
from lib.reports import ledger
from lib.runs import graph, profiles, sources
from lib.system import paths

PROFILE = config.get("profile", "laptop")
HOME = Path(os.path.relpath(paths.home()))
RESULTS = HOME / "data" / "results" / PROFILE
TRAINED = HOME / "data" / "models" / "trained"
FIGURES = HOME / "figures" / PROFILE
RUNS = profiles.declared_runs(PROFILE)
TOGETHER = int(config.get("together", 16))  # short networks of one depth in a job; on a cluster, 1 spreads them furthest
NETWORKS = {run: graph.networks(run, PROFILE) for run in RUNS}
CONFIGS = graph.shared_out(NETWORKS, TOGETHER)
JOB_OF = {c.digest: job for job, configs in CONFIGS.items() for c in configs}
JOBS = {run: sorted({JOB_OF[c.digest] for c in configs}) for run, configs in NETWORKS.items()}
PARTS = {run: graph.measurements(run, PROFILE, TOGETHER // 2) for run in RUNS}
PYTHON = sys.executable
GPU = int(config.get("gpu", 0))  # what each job that computes asks for


def soon(run):
    """The page of the first study is made first, so that there is something to read while the rest is trained."""
    return 2 if run == RUNS[0] else 0


def needed(job):
    """The jobs that train what this one's networks begin with or ask."""
    return sorted({JOB_OF[n.digest] for c in CONFIGS[job] for n in c.needs if n.digest in JOB_OF} - {job})


def measured_on(run, part):
    """The jobs that train the networks of one process that measures."""
    configs = graph.asked(run, PROFILE, PARTS[run][f"{run}/{part}"])
    return sorted({TRAINED / f"{JOB_OF[c.digest]}.json" for c in configs if c.digest in JOB_OF})


rule all:
    input:
        RESULTS / "99-ledger" / "shown.json",
        [FIGURES / f"{run}.html" for run in RUNS],
        [FIGURES / run / "run.json" for run in RUNS],  # so that figures that were deleted are drawn again


rule train:
    input:
        lambda wildcards: [TRAINED / f"{job}.json" for job in needed(wildcards.job)],
    output:
        TRAINED / "{job}.json",
    priority: lambda wildcards: max(soon(run) for run in RUNS if wildcards.job in JOBS[run])
    params:
        config=lambda wildcards: json.dumps([c.model_dump(mode="json") for c in CONFIGS[wildcards.job]]),
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=4000,
        runtime=240,
    shell:
        "{PYTHON:q} -m lib train --config {params.config:q} --record {output:q}"


rule measure:
    input:
        networks=lambda wildcards: measured_on(wildcards.run, wildcards.part),
        profile=lambda wildcards: os.path.relpath(profiles.profile_file(wildcards.run, PROFILE)),
        code=lambda wildcards: [os.path.relpath(p) for p in sources.of_measurement(wildcards.run, graph.networks(wildcards.run, PROFILE))],
    output:
        RESULTS / "{run}" / "measured" / "{part}.json",
    priority: lambda wildcards: 1 + soon(wildcards.run)  # what can be measured is, before more is trained
    params:
        jobs=lambda wildcards: json.dumps(PARTS[wildcards.run][f"{wildcards.run}/{wildcards.part}"]),
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=4000,
        runtime=240,
    shell:
        "{PYTHON:q} -m lib measure {wildcards.run:q} --profile {PROFILE:q} --jobs {params.jobs:q} --record {output:q}"


rule notebook:
    input:
        networks=lambda wildcards: [TRAINED / f"{job}.json" for job in JOBS[wildcards.run]],
        measured=lambda wildcards: [RESULTS / wildcards.run / "measured" / f"{Path(part).name}.json" for part in PARTS[wildcards.run]],
        notebook=lambda wildcards: os.path.relpath(profiles.notebook_of(wildcards.run)),
        profile=lambda wildcards: os.path.relpath(profiles.profile_file(wildcards.run, PROFILE)),
        code=lambda wildcards: [os.path.relpath(p) for p in sources.of_notebook(wildcards.run)],
    output:
        RESULTS / "{run}" / "run.json",
        FIGURES / "{run}" / "run.json",
    log:
        RESULTS / "{run}" / "executed.ipynb",
    priority: lambda wildcards: 1 + soon(wildcards.run)
    threads: 1  # what takes long is measured before; numbers then do not depend on how many cores there are
    resources:
        gpu=GPU,
        mem_mb=8000,
        runtime=240,
    shell:
        "{PYTHON:q} -m lib run {wildcards.run:q} --profile {PROFILE:q} --no-report"


rule report:
    input:
        RESULTS / "{run}" / "run.json",
        FIGURES / "{run}" / "run.json",
        os.path.relpath(paths.PROJECT / "lib/reports/report.py"),
        os.path.relpath(paths.PROJECT / "lib/reports/templates/study/index.html.j2"),
    output:
        FIGURES / "{run,[0-9][^/]*}.html",
    priority: lambda wildcards: 1 + soon(wildcards.run)
    params:
        how=["--profile", PROFILE, *(["--alone"] if PROFILE == "smoke" else [])],  # nobody reads along in a smoke run
    resources:
        mem_mb=1000,
        runtime=10,
    shell:
        "{PYTHON:q} -m lib report {wildcards.run:q} {params.how:q}"


def shown_beside():
    """The other profiles whose results the index shows."""
    return [p for p in ledger.compared(PROFILE) if p != PROFILE and (paths.figures(p) / ledger.CLAIMS).exists()]


rule index:
    input:
        [FIGURES / f"{run}.html" for run in RUNS],
        os.path.relpath(paths.PROJECT / "notebooks/99-ledger.ipynb"),
        [os.path.relpath(p) for p in sorted((paths.PROJECT / "lib/reports").glob("*.py"))],
        [FIGURES.parent / p / ledger.CLAIMS for p in shown_beside()],
    output:
        # a mark, not the page: Snakemake removes an output before it is made anew
        RESULTS / "99-ledger" / "shown.json",
    shell:
        "{PYTHON:q} -m lib report --index --profile {PROFILE:q}"
