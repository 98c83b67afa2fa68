"""The whole study of a profile: `python -m lib study --profile laptop`, which `make report` calls.

Snakemake runs the graph in the Snakefile; what is done already is not done again, and what was interrupted goes on. One
call at a time works on a checkout: a second one waits for the first, and a lock that a killed call left behind is void.
Whatever ends the call, the index shows what has finished, and a line a study says how its claims fared.
"""

import argparse
import contextlib
import os
import re
import subprocess
import sys

import psutil
import torch

from lib.reports import pages
from lib.runs import profiles
from lib.runs.headless import alone
from lib.system import forks, paths
from lib.system.progress import say

GRACE = 20  # seconds that Snakemake has to end its jobs
ERRORS_ALONE = ("--quiet", "rules", "progress", "host", "reason")
# what of its words says nothing of an error: where that stood, and what it does on the way to it
PASSING = re.compile(r'\s+File "|\w+ in file "|Assuming unrestricted|Building DAG|host: |Config file ')


def snakemake(profile: str, cores: str, gpus: int, extra: list[str]) -> int:
    """Run the graph; returns Snakemake's exit code, 2 where the graph cannot be built, which is said. With GPUs every job that
    computes takes one, so many run at once."""
    folder = paths.PROJECT if os.access(paths.PROJECT, os.W_OK) else paths.home()  # Snakemake's own notes go there
    graph = [sys.executable, "-m", "snakemake", "--snakefile", str(paths.PROJECT / "Snakefile"), "--directory", str(folder)]
    graph += ["--nolock", "--rerun-incomplete", "--keep-going", "--resources", f"gpu={gpus}"]
    graph += ["--config", f"profile={profile}", f"gpu={min(1, gpus)}"]
    last = ["--cores", cores, *extra]  # after an option that takes one value, so that targets may follow
    command = [*graph, "--quiet", "all", *last]  # the jobs say what they do
    lib = os.pathsep.join([str(paths.PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": lib}
    elsewhere = {"--executor", "--dry-run", "--dryrun", "-n"} & set(extra)  # a cluster counts what its jobs take
    here = gpus == 0 and not elsewhere  # CUDA outlives no fork
    loaded = forks.serving([sys.executable, "-m", "lib", "serve"], environment, wanted=here)
    with loaded as told, subprocess.Popen(command, env=environment | told) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:  # a terminal tells Snakemake and its jobs too: they end by themselves
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.terminate()
            raise
        except SystemExit:
            end(process)
            raise
    refused = _refused([*graph, "--dry-run", *ERRORS_ALONE, *last], environment) if code == 1 else ""
    if refused:
        say(f"error: {refused}")
    return 2 if refused else code


def end(process: subprocess.Popen[bytes]) -> None:
    """End Snakemake and its jobs, whom nobody else tells: it begins no more of them, and each is told once, so that it can put
    away what is half made. What does not end is killed."""
    told: set[int] = set()
    process.terminate()
    for _ in range(GRACE):
        for job in _below(process):
            if job.pid not in told:
                told.add(job.pid)
                with contextlib.suppress(psutil.NoSuchProcess):
                    job.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
            return
    for left in (process, *_below(process)):  # Snakemake first, or it would go on to other jobs
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()
    process.wait()


def _below(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _refused(command: list[str], environment: dict[str, str]) -> str:
    """Why Snakemake cannot build the graph (a parameter, data that are not there, a target that nobody makes), of which it says
    nothing while it is quiet; empty where it can."""
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.strip() and not PASSING.match(line)]
    return "\n".join(lines) if done.returncode else ""


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib study", description="Run every study of a profile and render its reports."
    )
    parser.add_argument("--profile", default="laptop", help=", ".join(profiles.PROFILES))
    parser.add_argument("--cores", default="all")
    parser.add_argument("--gpus", type=int, default=torch.cuda.device_count(), help="jobs that use a GPU at the same time")
    parser.add_argument("extra", nargs="*", help="after --: arguments for snakemake, such as --executor slurm --jobs 20")
    arguments = parser.parse_args(given)
    if not profiles.declared_runs(arguments.profile):
        say(f"error: no profile {arguments.profile!r}; there are {', '.join(profiles.PROFILES)}")
        return 2
    try:
        with alone(paths.home() / "data" / "study"):
            code = snakemake(arguments.profile, arguments.cores, arguments.gpus, arguments.extra)
    except OSError as error:
        say(f"error: {error}")
        return 1
    if code == 2:
        return code
    if code:
        say("some of the study did not finish: read the message above, mend it, and run the same command again")
    pages.tell(arguments.profile)
    return code
