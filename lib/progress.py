"""Progress for people: one line at a time from jobs, a bar where somebody is looking."""

import os
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def headless() -> bool:
    """True under the runner, which sets STUDY_HEADLESS: reports must not hold the remains of progress bars."""
    return os.environ.get("STUDY_HEADLESS") == "1"


def say(line: str) -> None:
    """A line on the standard error stream, whole and at once."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def progress(items: Iterable[T], what: str) -> Iterator[T]:
    """Iterate with a bar; without one where nobody would see it move."""
    yield from tqdm(items, desc=what, disable=headless(), leave=False)
