"""A notebook executed by papermill, with nobody watching."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from lib.runs import needs, profiles
from lib.runs.pictures import ENDS
from lib.runs.run import BROUGHT, IN_JUPYTER, Run, start
from lib.system import files, paths
from lib.system.progress import say


def execute(run: str, profile: str, overrides: Mapping[str, Any] | None = None) -> Path:
    """Execute a notebook headlessly with papermill and return the path of its record, run.json.

    The executed notebook is kept as executed.ipynb, or failed.ipynb where it failed; success is this function's return,
    never the look of a notebook. Raises ValueError before anything runs for parameters that are not right, RuntimeError
    with the notebook's own error otherwise.
    """
    import papermill

    chosen = profiles.parameters(run, profile, overrides)
    notebook = profiles.notebook_of(run)
    declared = papermill.inspect_notebook(_literal(notebook))
    unknown = set(type(chosen).model_fields) ^ set(declared)
    if unknown:
        raise ValueError(f"{notebook.name} and its Parameters disagree about {', '.join(sorted(unknown))}; make them the same")
    with _headless():
        begun = start(run.split(".")[0], chosen.model_dump())
        with alone(begun.results / "run"):
            return _execute(begun, notebook)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """`files.locked`; where another command holds the lock, it is said that this one waits for it."""
    with contextlib.suppress(OSError):  # of which `locked` says what to do
        try:
            filelock.FileLock(f"{path}.lock").acquire(timeout=0).lock.release()
        except filelock.Timeout:
            say(f"another command works on {path.parent}: waiting for its end")
    with files.locked(path):
        yield


def _literal(path: Path) -> str:
    """A path as papermill takes it, which reads braces as fields to fill in."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _execute(begun: Run, notebook: Path) -> Path:
    import papermill

    folder = begun.results
    part, failed, done = folder / "running.ipynb", folder / "failed.ipynb", folder / "executed.ipynb"
    (folder / "run.json").unlink(missing_ok=True)
    for line in (f"running {notebook.name}, profile {begun.profile}", *needs.told(begun.parameters)):
        say(line)
    clock, began = time.perf_counter(), time.time() - 1  # file systems round times
    try:
        papermill.execute_notebook(
            _literal(notebook),
            _literal(part),
            parameters=begun.parameters.model_dump(mode="json"),
            kernel_name="python3",
            cwd=str(paths.PROJECT),
            progress_bar=False,
            stderr_file=sys.stderr,
            kernel_manager_class="lib.runs.jupyter.IPCKernelManager",
            extra_arguments=["--log-level=CRITICAL"],  # of the kernel: a traceback a socket where a run is interrupted
        )
    except BaseException as error:
        if part.exists():
            part.replace(failed)
        if not isinstance(error, Exception):
            raise
        raise RuntimeError(f"{notebook.name} failed; read {failed}\n{_said(error)}") from error
    part.replace(done)
    failed.unlink(missing_ok=True)
    tables = {p.name: files.digest(p) for p in sorted(folder.glob("*.parquet"))}
    record = begun.record() | {"seconds": round(time.perf_counter() - clock, 1), "tables": tables}
    if begun.is_study:
        claimed = begun.figures / "claims.csv"
        if not claimed.exists() or claimed.stat().st_mtime < began:
            raise RuntimeError(f"{notebook.name} ended without its claims; it must call run.claims(...)")
        shown = {Path(f["file"]).stem for f in files.read_json(begun.figures / "figures.json") or []} | {"claims"}
        for old in begun.figures.iterdir():  # figures that this run no longer draws
            if old.name.endswith(ENDS) and old.name not in {name + end for name in shown for end in ENDS}:
                old.unlink()
        files.write_json(begun.figures / "run.json", record)  # the report and the index read it there
    files.write_json(folder / "run.json", record)
    return folder / "run.json"


def _said(error: Exception) -> str:
    """An error of a notebook in words: of what is said to people the sentence alone, of anything else the way to it too."""
    told = getattr(error, "ename", "") in ("ValueError", "FileNotFoundError", "RuntimeError", "OSError")
    return f"{error.ename}: {error.evalue}" if told else str(error)


@contextlib.contextmanager
def _headless() -> Any:
    """The environment of a kernel that nobody watches, also where the command is given in a notebook of JupyterLab."""
    wanted = {"TQDM_DISABLE": "1", "MPLBACKEND": "agg", IN_JUPYTER: None, BROUGHT: "1"}
    before = {k: os.environ.get(k) for k in wanted}
    _set(wanted)
    try:
        yield
    finally:
        _set(before)


def _set(environment: Mapping[str, str | None]) -> None:
    """Set variables, or take them away where they are None."""
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
