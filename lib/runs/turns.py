"""What commands have in common that compute beside the checkout, on their own or in turn from commit to commit."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

DAY = 86_400  # seconds


@contextlib.contextmanager
def folder(given: Path | None, prefix: str) -> Iterator[Path]:
    """A folder that goes when all is done, or the given one, which stays."""
    if given is None:
        with tempfile.TemporaryDirectory(prefix=prefix) as made:
            yield Path(made).resolve()
    else:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()


def number(turn: str) -> int:
    """Whose turn it is: the number that a commit's hash is, or that of the day where `turn` is empty. Raises ValueError."""
    if not turn:
        return int(time.time() // DAY)
    try:
        return int(turn, 16)
    except ValueError:
        raise ValueError(f"--turn {turn}: give a commit's hash, or nothing for the day") from None
