"""Files that are whole or not there: atomic writes, locks, digests."""

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from lib.system import paths


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Name the remedy where a folder may not be written."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT):
            raise
        raise OSError(
            error.errno,
            f"{path} cannot be written ({error.strerror}). What is computed goes below {paths.home()}: set STUDY_HOME to a "
            "folder that may be written",
        ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved over it when the block ends well and removed when it does not.

    Raises OSError that names the file and the remedy when the disk is full or may not be written.
    """
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb") as written:
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        part.chmod(0o666 & ~umask)
        part.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(
                errno.ENOSPC, f"the disk is full; {path} was not written. Free some space and run again, finished work is kept"
            ) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as part:
        part.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    write_bytes(path, (json.dumps(content, indent=1, sort_keys=True, default=str) + "\n").encode())


def read_json(path: Path) -> Any | None:
    """The content, or None where the file is missing or is not JSON (a damaged file is as good as none)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; a second one waits. The lock goes with its process, also when that is killed.

    Raises OSError that names the remedy where no lock can be written.
    """
    with contextlib.ExitStack() as held:
        with _writable(Path(f"{path}.lock")):
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(filelock.FileLock(f"{path}.lock"))
        yield


def digest(content: bytes | Path) -> str:
    """SHA-256, in hexadecimal."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(content).hexdigest()


def digest_of(value: Any, length: int = 16) -> str:
    """A short digest of anything that JSON can hold; the order of keys does not matter."""
    return digest(json.dumps(value, sort_keys=True, default=str).encode())[:length]
