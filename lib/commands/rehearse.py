"""`python -m lib rehearse 02-at-cnn`: a `paper` run from beginning to end on miniatures of its data sets; all unless named.

It ends with a table: seconds, peak memory, what was reduced to what. Nothing lands in the checkout's data or figures.
"""

import argparse
from pathlib import Path

from lib.runs import profiles, rehearsal, turns
from lib.runs.rehearsal import Rehearsed, Stage
from lib.system.progress import say

GIB = 2**30


def _chosen(named: list[str], turn: str | None) -> list[str]:
    """The runs to rehearse. Raises ValueError for one that the profile does not have."""
    known = profiles.declared_runs(rehearsal.PROFILE)
    unknown = [run for run in named if run not in known]
    if unknown:
        raise ValueError(f"{unknown[0]} is no run of the profile {rehearsal.PROFILE}; there are {', '.join(known)}")
    if turn is None:
        return named or known
    if named:
        raise ValueError("--turn chooses a run itself; name none")
    return [rehearsal.in_turn(turns.number(turn))]


def table(found: list[Rehearsed]) -> str:
    """A line a rehearsal, for people."""
    width = max(len(r.run) for r in found)
    lines = [f"{'run':{width}}  images  seconds  of processors  peak memory"]
    for r in found:
        end = "FAILED" if r.error else f"{r.memory / GIB:.2f} GiB"
        lines.append(f"{r.run:{width}}  {r.images:6}  {r.seconds:7.0f}  {r.cpu_seconds:13.0f}  {end:>11}")
    return "\n".join(lines)


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m lib rehearse", description="Execute runs of the profile `paper` on miniatures of their data sets."
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="for example 02-at-cnn; all unless named")
    parser.add_argument("--images", type=int, default=rehearsal.IMAGES, help="test images of each measurement, 8 at least")
    parser.add_argument("--true-batches", action="store_true", help="train with the profile's batch sizes: its memory")
    parser.add_argument("--turn", nargs="?", const="", metavar="HEX", help="a short run, by a commit's hash or by the day")
    parser.add_argument("--folder", type=Path, help="where to lay everything out, and to leave it; temporary unless given")
    parser.add_argument("--limit", type=float, default=6.0, help="GiB of memory above which a rehearsal fails")
    arguments = parser.parse_args(given)
    found: list[Rehearsed] = []
    try:
        if arguments.images < rehearsal.IMAGES:
            raise ValueError(f"--images {arguments.images}: studies measure {rehearsal.IMAGES} at least")
        runs = _chosen(arguments.runs, arguments.turn)
        with turns.folder(arguments.folder, "rehearsal-") as folder:
            for run in runs:
                found.append(_rehearse(Stage(folder), run, arguments))
    except (ValueError, OSError) as error:
        say(f"error: {error}")
        if found:  # what was rehearsed before is told
            print(table(found))
        return 2
    print(table(found))
    return int(any(r.error for r in found))


def _rehearse(stage: Stage, run: str, arguments: argparse.Namespace) -> Rehearsed:
    changes = rehearsal.reduced(run, arguments.images, true_batches=arguments.true_batches)
    random = stage.prepare(run, arguments.images)
    say(f"{run}: {rehearsal.told(run, changes)}")
    if random:
        say(f"{run}: the weights of {', '.join(random)} are random here; the published ones are not on this machine")
    done = rehearsal.rehearse(stage, run, arguments.images, true_batches=arguments.true_batches)
    if not done.error and done.memory > arguments.limit * GIB:
        done.error = f"its largest process took {done.memory / GIB:.2f} GiB of memory, more than {arguments.limit:g}"
    if done.error:
        say(f"error: the rehearsal of {run} failed after {done.seconds:.0f} s:\n{done.error}")
    else:
        say(f"{run}: {done.seconds:.0f} s, {done.memory / GIB:.2f} GiB")
    return done
