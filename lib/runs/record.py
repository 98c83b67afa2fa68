"""What a result was made with: the commit, and the versions of the libraries."""

import csv
import functools
import importlib.metadata
import platform
import subprocess
from typing import Any

from lib.system import files, paths

VERSIONS_OF = ("torch", "torchvision", "numpy", "scikit-image", "pandas", "papermill")


def commit() -> dict[str, Any]:
    """The commit of the project and whether the working tree differs from it; empty outside git."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(paths.PROJECT), *arguments], capture_output=True, encoding="utf-8", check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!figures")
        return {"commit": git("rev-parse", "HEAD")[:12], "changed": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {}


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in VERSIONS_OF}


@functools.cache
def hashes() -> dict[str, str]:
    """A SHA-256 of each of these libraries as installed: of what its RECORD says of its files, so that two machines with the
    same wheel have the same. Without those that have no RECORD."""
    read = {name: importlib.metadata.distribution(name).read_text for name in VERSIONS_OF}  # which is UTF-8 everywhere
    return {name: _digest(text) for name, of in read.items() if (text := of("RECORD"))}


def _digest(text: str) -> str:
    # what pip writes itself (scripts, its own notes) depends on where it writes
    rows = [r for r in csv.reader(text.splitlines()) if r[1] and ".dist-info/" not in r[0] and not r[0].startswith("..")]
    return files.digest("\n".join(f"{name},{hash}" for name, hash, *_ in sorted(rows)).encode())
