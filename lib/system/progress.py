"""Progress for people: whole lines, which stay readable when several jobs speak at once."""

import contextlib
import contextvars
import functools
import sys
from collections.abc import Callable, Iterator

_listener: contextvars.ContextVar[Callable[[str], None] | None] = contextvars.ContextVar("listener", default=None)


def say(line: str) -> None:
    """A line on the standard error stream, whole and at once; and to whoever listens in this thread."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
    listener = _listener.get()
    if listener:
        listener(line)


@contextlib.contextmanager
def heard(listener: Callable[[str], None]) -> Iterator[None]:
    """Within it, `listener` is told every line that this thread says: an explorer shows how far a training is."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@functools.cache
def say_once(line: str) -> None:
    """A line that a process says no second time."""
    say(line)
