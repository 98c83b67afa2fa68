"""Progress for people: whole lines, which stay readable when several jobs speak at once."""

import functools
import sys


def say(line: str) -> None:
    """A line on the standard error stream, whole and at once."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


@functools.cache
def say_once(line: str) -> None:
    """A line that a process says no second time."""
    say(line)
