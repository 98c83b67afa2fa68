"""`python -m lib reproduce 01-attention-shift`: train and measure runs anew, from nothing, and compare their claims with those
that stand in `figures`; all runs of the profile that have finished unless named.

It ends with a line a run and one for each claim that is not the same. Of the checkout it reads code, data sets and the claims,
and its models, results and figures stay as they are.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from lib.reports import ledger, reproduced
from lib.runs import profiles, turns
from lib.system import names, paths
from lib.system.progress import say

PARTS = 4  # of a profile, of which `--turn` chooses one


def _chosen(named: list[str], profile: str, turn: str | None) -> list[str]:
    """The runs to compute. Raises ValueError for one that is not there to be compared with."""
    if profile not in profiles.PROFILES:
        raise names.unknown("profile", profile, profiles.PROFILES)
    there = {folder.name for folder in ledger.finished(profile)}
    known = [run for run in profiles.declared_runs(profile) if run in there]
    if not known:
        raise ValueError(f"figures/{profile} has no claims to compare with; make report PROFILE={profile} makes them")
    for run in named:
        if run not in known:
            raise names.unknown(f"run with claims in figures/{profile}", run, known)
    if turn is None:
        return named or known
    if named:
        raise ValueError("--turn chooses runs itself; name none")
    return known[turns.number(turn) % PARTS :: PARTS]


def _compute(runs: list[str], profile: str, cores: str, home: Path) -> None:
    """Train, measure and judge below `home`; what fails is said there. A run's record is there afterwards where it has finished
    just now: that of an earlier call goes, so that its notebook is executed once more, on what is trained and measured.
    """
    for run in runs:
        (home / "figures" / profile / run / "run.json").unlink(missing_ok=True)
    environment = os.environ | {"STUDY_DATA": str(paths.datasets()), "STUDY_HOME": str(home)}
    seen_from = paths.PROJECT if os.access(paths.PROJECT, os.W_OK) else home
    targets = [os.path.relpath(home / "figures" / profile / run / "run.json", seen_from) for run in runs]
    command = [sys.executable, "-m", "lib", "study", "--profile", profile, "--cores", cores, "--", *targets]
    with subprocess.Popen(command, env=environment, cwd=paths.PROJECT, stdout=subprocess.DEVNULL) as process:
        try:
            process.wait()
        except KeyboardInterrupt:  # a terminal tells it too: it ends by itself
            process.wait()
            raise
        except SystemExit:
            process.terminate()
            process.wait()
            raise


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib reproduce",
        description="Compute runs anew, from nothing, and compare their claims with those in figures.",
    )
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="for example 01-attention-shift; all that have finished unless named"
    )
    parser.add_argument("--profile", default="laptop", help=", ".join(profiles.PROFILES))
    parser.add_argument("--cores", default="all")
    parser.add_argument(
        "--turn", nargs="?", const="", metavar="HEX", help=f"a run in {PARTS}, by a commit's hash or by the day"
    )
    parser.add_argument(
        "--folder", type=Path, help="where to compute, which stays, so that it goes on there; temporary unless given"
    )
    arguments = parser.parse_args(given)
    try:
        if arguments.folder and arguments.folder.resolve() == paths.home().resolve():
            raise ValueError(f"--folder {arguments.folder}: what is compared with is there; give a folder of its own")
        runs = _chosen(arguments.runs, arguments.profile, arguments.turn)
        before = {run: ledger.claims_of(arguments.profile, run) for run in runs}
        with turns.folder(arguments.folder, "reproduced-") as home:
            _compute(runs, arguments.profile, arguments.cores, home)
            after = {run: home / "figures" / arguments.profile / run for run in runs}
            found = {
                run: reproduced.compare(before[run], ledger.read_claims(folder))
                for run, folder in after.items()
                if (folder / "run.json").exists()
            }
    except (ValueError, OSError) as error:
        say(f"error: {error}")
        return 2
    for run in runs:
        print(reproduced.told(run, found[run]) if run in found else f"{run}: did not finish; what stopped it is said above")
    return int(len(found) < len(runs) or any(map(reproduced.failed, found.values())))
