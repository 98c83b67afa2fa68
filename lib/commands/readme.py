"""`python -m lib readme`, which `make readme` calls: the table of what holds in README.md, from the committed claims."""

import argparse

from lib.reports import readme
from lib.system.progress import say


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m lib readme", description="Bring the table in README.md up to date.")
    parser.parse_args(given)
    try:
        say("README.md has changed" if readme.write() else "README.md is up to date")
    except (ValueError, OSError) as error:
        say(f"error: {error}")
        return 1
    return 0
