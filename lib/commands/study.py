"""The whole study of a profile: `python -m lib study --profile laptop`, which `make report` calls.

Snakemake runs the graph in the Snakefile; what is done already is not done again, and what was interrupted goes on. One
call at a time works on a checkout: a second one waits for the first, and a lock that a killed call left behind is void.
Whatever ends the call, the index shows what has finished, and a line a study says how its claims fared.
"""

import argparse
import os
import subprocess
import sys

import torch

from lib.reports import pages
from lib.runs import profiles
from lib.system import files, forks, paths
from lib.system.progress import say

GRACE = 20  # seconds that Snakemake has to end its jobs


def snakemake(profile: str, cores: str, gpus: int, extra: list[str]) -> int:
    """Run the graph; returns Snakemake's exit code. With GPUs every job that computes takes one, so many run at once."""
    folder = paths.PROJECT if os.access(paths.PROJECT, os.W_OK) else paths.home()  # Snakemake's own notes go there
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(paths.PROJECT / "Snakefile"),
        "--directory",
        str(folder),
        "--cores",
        cores,
        "--nolock",
        "--rerun-incomplete",
        "--keep-going",
        "--quiet",
        "all",
        "--resources",
        f"gpu={gpus}",
        "--config",
        f"profile={profile}",
        f"gpu={min(1, gpus)}",
        *extra,
    ]
    lib = os.pathsep.join([str(paths.PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": lib}
    elsewhere = {"--executor", "--dry-run", "--dryrun", "-n"} & set(extra)  # a cluster counts what its jobs take
    here = gpus == 0 and not elsewhere  # CUDA outlives no fork
    loaded = forks.serving([sys.executable, "-m", "lib", "serve"], environment, wanted=here)
    with loaded as told, subprocess.Popen(command, env=environment | told) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:  # a terminal tells Snakemake and its jobs too: they end by themselves
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.terminate()
            raise


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
        with files.locked(paths.home() / "data" / "study"):
            code = snakemake(arguments.profile, arguments.cores, arguments.gpus, arguments.extra)
    except OSError as error:
        say(f"error: {error}")
        return 1
    if code:
        say("some of the study did not finish: read the message above, mend it, and run the same command again")
    pages.tell(arguments.profile)
    return code
