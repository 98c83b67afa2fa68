"""`python -m lib run 01-attention-shift --profile laptop --set images=50`: execute one notebook with strict parameters."""

import argparse

import yaml

from lib.reports.index import publish
from lib.runs import profiles
from lib.runs.headless import execute
from lib.system import files
from lib.system.progress import say


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m lib run", description="Execute one notebook with a profile's parameters.")
    parser.add_argument("run", help="for example 01-attention-shift")
    parser.add_argument("--profile", default="laptop", help=", ".join(profiles.PROFILES))
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="override one parameter; a list as NAME=[a, b]; the notebook's cell "
        "of parameters has all of them, with what they mean",
    )
    parser.add_argument("--no-report", action="store_true", help="leave the HTML to a later `python -m lib report`")
    arguments = parser.parse_args(given)
    try:
        overrides = {}
        for pair in arguments.set:
            name, equals, value = pair.partition("=")
            if not equals:
                raise ValueError(f"--set takes NAME=VALUE, got {pair!r}")
            try:
                overrides[name] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise ValueError(f"--set {pair}: {value!r} is no YAML ({error})") from error
        record = execute(arguments.run, arguments.profile, overrides)
        if not arguments.no_report:
            done = files.read_json(record)
            publish(done["run"], done["profile"])
    except (ValueError, RuntimeError, OSError) as error:
        say(f"error: {error}")
        return 2 if isinstance(error, ValueError) else 1
    return 0
