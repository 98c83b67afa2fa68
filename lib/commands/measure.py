"""`python -m lib measure 01-attention-shift --jobs JSON --record FILE`: measure trained networks, as the Snakefile does."""

import argparse
import json
from pathlib import Path
from typing import Any

from lib.runs import profiles
from lib.runs.run import start
from lib.system import devices, files
from lib.system.progress import say


def _listed(text: str) -> list[tuple[Any, ...]]:
    """Jobs as JSON. Raises ValueError for anything else."""
    try:
        found = json.loads(text)
        if not (isinstance(found, list) and all(isinstance(job, list) for job in found)):
            raise ValueError("no list of lists")
    except ValueError as error:
        raise ValueError(f'--jobs {text}: {error}; write a list of jobs as JSON, [["plain", 0]]') from None
    return [tuple(job) for job in found]


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m lib measure", description="Measure networks of a run, a table a job.")
    parser.add_argument("run", help="for example 01-attention-shift")
    parser.add_argument("--profile", default="laptop", help=", ".join(profiles.PROFILES))
    parser.add_argument("--jobs", help="as JSON, a list of jobs as `plan.jobs` has them; all unless given")
    parser.add_argument("--record", type=Path, help="JSON file to write when the tables are there")
    arguments = parser.parse_args(given)
    try:
        p = profiles.parameters(arguments.run, arguments.profile)
        run = start(arguments.run.split(".")[0], p.model_dump())
        known = [tuple(job) for job in run.study("plan").jobs(p)]
        jobs = known if arguments.jobs is None else _listed(arguments.jobs)
        stray = [job for job in jobs if job not in known]
        if stray:
            raise ValueError(f"{arguments.run} has no job {stray[0]}; there are {known[0]}, … ({len(known)})")
        with devices.one_thread_on_cpu(p.device):
            for i, job in enumerate(jobs, 1):
                run.job(job)
                say(f"  {arguments.run}: measured {i} of {len(jobs)} ({' '.join(map(str, job))})")
        if arguments.record:
            files.write_json(arguments.record, {"run": arguments.run, "jobs": jobs})
    except (ValueError, RuntimeError, OSError) as error:
        say(f"error: {error}")
        return 1
    return 0
