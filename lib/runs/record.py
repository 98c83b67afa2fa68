"""What a result was made with: the commit, and the versions of the libraries."""

import importlib.metadata
import platform
import subprocess
from typing import Any

from lib.system import paths

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
