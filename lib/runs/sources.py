"""Which source files decide what is measured, and which a notebook shows.

Files are found by following imports from a root: `from lib.a.b import c` is `lib/a/b/c.py` where there is one, else
`lib/a/b.py`; a package leads to what its `__init__.py` hands on, and is no source itself.
"""

import ast
import functools
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from lib.runs import profiles
from lib.system import files, paths
from lib.training.config import TrainConfig

_PARSING = threading.Lock()  # CPython 3.11 cannot parse in two threads at once (SystemError: recursion depth mismatch)


def file_of(module: str) -> Path | None:
    """The file of a module of lib by dotted name: `__init__.py` of a package, None of what is no module."""
    place = paths.PROJECT.joinpath(*module.split("."))
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.exists():
            return file
    return None


def _imported(source: str) -> list[tuple[str, str]]:
    """What of lib a source imports, wherever in it: modules by dotted name, each with what is taken from it, if anything."""
    with _PARSING:
        tree = ast.parse(source)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(a.name, "") for a in node.names if a.name.split(".")[0] == "lib"]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lib":
            found += [(str(node.module), a.name) for a in node.names]
    return found


@functools.cache
def _imported_by(file: Path, changed: int, size: int) -> list[tuple[str, str]]:
    """The same of a file, parsed once as long as it does not change: all studies lead to the same files."""
    return _imported(file.read_text(encoding="utf-8"))


def _resolved(imported: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Dotted names of modules: what is taken from a package may be one."""
    for module, taken in imported:
        yield f"{module}.{taken}" if taken and file_of(f"{module}.{taken}") else module


def reached(sources: Iterable[str], modules: Iterable[str] = ()) -> list[Path]:
    """Every file of lib that `sources` or `modules` (dotted names) lead to, sorted."""
    found: set[Path] = set()
    waiting = [*modules, *(name for source in sources for name in _resolved(_imported(source)))]
    while waiting:
        file = file_of(waiting.pop())
        if file is not None and file not in found:
            found.add(file)
            state = file.stat()
            waiting += _resolved(_imported_by(file, state.st_mtime_ns, state.st_size))
    return sorted(f for f in found if f.name != "__init__.py")


def named(configs: Iterable[TrainConfig]) -> set[str]:
    """The modules that networks name as `module:function`: their objectives, maps and architectures, and their teachers'."""
    modules: set[str] = set()
    for config in configs:
        names = (config.objective, config.maps or "", config.arch)
        modules |= {f"lib.{name.partition(':')[0]}" for name in names if ":" in name}
        modules |= named(config.needs)
    return modules


@functools.lru_cache(maxsize=16)
def _measuring(study: str, modules: frozenset[str]) -> tuple[Path, ...]:
    return tuple(reached((), [f"lib.studies.{study}.measure", *modules]))


def of_measurement(run: str, configs: Iterable[TrainConfig] = ()) -> list[Path]:
    """The files that decide what a run measures: all that its `measure` leads to, and that the networks name.

    Claims, figures, runs and the notebook's text are none of them: a claim's wording measures nothing anew.
    """
    return list(_measuring(profiles.package(run), frozenset(named(configs))))


def digest(paths_: Iterable[Path]) -> str:
    """One digest of the names and contents of source files."""
    return files.digest_of([(str(p.relative_to(paths.PROJECT)), files.digest(p)) for p in paths_])


def of_notebook(run: str) -> list[Path]:
    """The files that a run's notebook leads to (but for its explorer), and its study's claims."""
    cells = files.read_json(profiles.notebook_of(run))["cells"]  # nbformat would take a second of every process
    told = [c for c in cells if c["cell_type"] == "code" and "interactive" not in c["metadata"].get("tags", [])]
    code = ["".join(c["source"]) for c in told]
    judged = [] if run == profiles.LEDGER else [f"lib.studies.{profiles.package(run)}.claims"]
    return reached(code, judged)
