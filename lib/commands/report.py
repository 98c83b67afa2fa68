"""`python -m lib report RUN --profile laptop`: render the report of a run that is there, or with --index the index."""

import argparse

from lib.reports.index import index, publish
from lib.runs import profiles
from lib.system.progress import say


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m lib report", description="Render reports of finished runs.")
    parser.add_argument("run", nargs="?", help="for example 01-attention-shift")
    parser.add_argument("--profile", default="laptop")
    parser.add_argument("--index", action="store_true", help="the index alone")
    parser.add_argument("--alone", action="store_true", help="leave the index as it is")
    arguments = parser.parse_args(given)
    if bool(arguments.run) == arguments.index:
        parser.error("name a run, or give --index")
    try:
        if arguments.profile not in profiles.PROFILES and arguments.index:
            raise ValueError(f"no profile {arguments.profile!r} has an index; there are {', '.join(profiles.PROFILES)}")
        if arguments.index:
            say(str(index(arguments.profile)))
        else:
            publish(arguments.run, arguments.profile, not arguments.alone)
    except (ValueError, RuntimeError, OSError) as error:
        say(f"error: {error}")
        return 1
    return 0
