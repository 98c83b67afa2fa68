"""torchvision's data sets: read where they are complete, downloaded where they are not."""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from lib.system import paths
from lib.system.files import locked

Found = TypeVar("Found")


def read(name: str, kind: str, use: Callable[[Any], Found], **options: Any) -> Found:
    """What `use` makes of torchvision's data set `kind` below the data root; `name` is what it is called in messages.

    What is complete is only read, so that its folder may be read-only. What is not is downloaded, by one process while others
    wait. Raises RuntimeError that says what is the matter with the files or with the download, and what to do.
    """
    root = paths.datasets()
    import torchvision  # here, since it takes a second that most processes need not wait

    def attempt(download: bool) -> Found:
        return use(getattr(torchvision.datasets, kind)(root=str(root), download=download, **options))

    first: Exception | None = None
    if not (root / f"{name}.lock").exists():  # where somebody has downloaded, somebody may do so now: wait for them first
        try:
            return attempt(False)
        except Exception as error:  # torchvision raises what its archives and parsers meet
            first = error
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(root / name))
        except OSError as unwritable:  # a read-only folder, or a file system without locks: nobody downloads here
            try:
                return attempt(False)
            except Exception as error:
                raise RuntimeError(
                    f"data set {name!r} could not be had: {_wrong(error)} below {root}, where nothing can be downloaded to "
                    f"({unwritable.__cause__ or unwritable}). Put torchvision's layout of {kind} there, or set STUDY_DATA to a "
                    "folder that holds it or can be written."
                ) from error
        try:
            return attempt(True)
        except Exception as error:
            damaged = "" if first is None or _absent(first) else f" What lies there is not right: {_wrong(first)}."
            raise RuntimeError(
                f"data set {name!r} could not be had: looked below {root}, then asked torchvision to download it: {error}."
                f"{damaged} {'Move it away and run' if damaged else 'Run'} again with a connection, or set STUDY_DATA to a "
                f"folder that holds torchvision's layout of {kind}."
            ) from error


def _absent(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and "not found" in str(error)


def _wrong(error: Exception) -> str:
    """What hinders reading, in words."""
    if _absent(error):
        return "it is not, or not as a whole,"
    if isinstance(error, OSError) and error.strerror:
        return f"it cannot be read ({error})"
    return f"it seems damaged or half downloaded ({error or type(error).__name__})"
