"""Runs: a notebook, the profile's parameters, and what comes of them.

A notebook begins with `run = runs.start("01-attention-shift", globals())`, which validates its parameters and gives it
places for tables, figures and claims. The same notebook runs in JupyterLab, under plain papermill, and through
`python -m lib.runs RUN --profile laptop --set n_images=50`, which adds strict parameters, a record and the report.

A run whose parameters are exactly those of its profile writes to that profile's folders; any other one gets a folder
named after its parameters, `custom-…`, so that trying something never overwrites a profile's results.
"""

import argparse
import contextlib
import dataclasses
import functools
import html
import importlib.metadata
import io
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import yaml

from lib import claims as claims_
from lib import files, paths, profiles
from lib.progress import say

T = TypeVar("T")
LOADED = time.time()
VERSIONS_OF = ("torch", "torchvision", "numpy", "scikit-image", "pandas", "papermill")


def commit() -> dict[str, Any]:
    """The commit of the project and whether the working tree differs from it; empty outside git."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(paths.PROJECT), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()  # fmt: skip

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!figures")
        return {"commit": git("rev-parse", "HEAD")[:12], "changed": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {}


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in VERSIONS_OF}


@dataclasses.dataclass
class Run:
    """A started run: its validated parameters and where its results go."""

    name: str
    parameters: Any
    official: bool
    started: datetime
    manifest: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def study(self) -> str:
        """Two digits."""
        return self.name[:2]

    @property
    def profile(self) -> str:
        if self.official:
            return self.parameters.profile
        return f"custom-{files.digest_of(self.parameters.model_dump(), 8)}"

    @property
    def is_study(self) -> bool:
        """Everything but the ledger, which draws from the studies and claims nothing itself."""
        return self.name != profiles.LEDGER

    @property
    def judges(self) -> bool:
        """A smoke run judges no claim."""
        return self.parameters.profile != "smoke"

    @property
    def results(self) -> Path:
        return paths.results(self.profile, self.name)

    @property
    def figures(self) -> Path:
        return paths.figures(self.profile) / self.name

    def table(self, name: str, data: pd.DataFrame) -> Path:
        """Store a results table as parquet."""
        path = self.results / f"{name}.parquet"
        buffer = io.BytesIO()
        data.to_parquet(buffer, index=False)
        files.write_bytes(path, buffer.getvalue())
        return path

    def cached(self, name: str, key: Any, compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """A table that is computed once for `key`, and found again by an interrupted run.

        `key` is everything that decides the table but for the code: the modules that the study uses and the versions of
        the libraries are added here, so that a table never outlives the kernel that made it.
        """
        newer = [p.name for p in profiles.code_of(self.name) if p.stat().st_mtime > LOADED]
        if newer:
            say(f"{', '.join(newer)} changed since this kernel loaded it: nothing is cached; restart the kernel to use it")
            return compute()
        part = f"parts/{name}-{files.digest_of([key, self.code, versions()])}"
        path = self.results / f"{part}.parquet"
        if path.exists():
            try:
                return pd.read_parquet(path)
            except (OSError, ValueError) as error:
                say(f"{path.name} is damaged ({error}); computing it again")
        data = compute()
        self.table(part, data)
        return data

    @functools.cached_property
    def code(self) -> str:
        """A digest of the notebook's and its modules' sources."""
        return files.digest_of([profiles.notebook_code(self.name), *map(files.digest, profiles.code_of(self.name))])

    def each(self, items: Sequence[T], work: Callable[[T], pd.DataFrame], *, workers: int | None = None) -> pd.DataFrame:
        """One table from many pieces of work, side by side on the CPU's cores, one torch thread each.

        The numbers do not depend on how many cores there are. On another device: one after the other.
        """
        import torch

        from lib import training

        on_cpu = training.device(self.parameters.device).type == "cpu"
        workers = workers or (len(os.sched_getaffinity(0)) if on_cpu and hasattr(os, "sched_getaffinity") else 1)
        done: list[pd.DataFrame] = []
        begin = time.perf_counter()
        with training.threads(1 if on_cpu else torch.get_num_threads()), ThreadPoolExecutor(workers) as pool:
            for data in pool.map(work, items):
                done.append(data)
                left = (time.perf_counter() - begin) / len(done) * (len(items) - len(done))
                say(f"  {self.name}: measured {len(done)} of {len(items)}, {left:.0f} s left")
        return pd.concat(done, ignore_index=True)

    def show(
        self, fig: Any, name: str, alt: str, data: pd.DataFrame | None = None, *, line_art: bool = False, hero: bool = False
    ) -> Any:
        """Store a figure as PNG (line art as SVG too) with its numbers as CSV, and return it for display with alt text.

        The index's gallery shows the `hero` of each run.
        """
        import matplotlib.pyplot as plt
        from IPython.display import Image

        if not alt.strip():
            raise ValueError(f"figure {name!r} needs alt text: what a reader who cannot see it should know")
        metadata = {"png": {"Software": None}, "svg": {"Date": None}}
        for suffix in ("png", "svg") if line_art else ("png",):
            buffer = io.BytesIO()
            fig.savefig(buffer, format=suffix, metadata=metadata[suffix], bbox_inches="tight")
            content = smaller(buffer.getvalue(), line_art) if suffix == "png" else plainer(buffer.getvalue())
            files.write_bytes(self.figures / f"{name}.{suffix}", content)
            if suffix == "png":
                png = content
        plt.close(fig)
        if data is not None:
            files.write_bytes(self.figures / f"{name}.csv", data.to_csv(index=False, float_format="%.6g").encode())
        self.manifest.append({"file": f"{self.name}/{name}.png", "alt": alt, "hero": hero})
        files.write_json(self.figures / "figures.json", self.manifest)
        return Image(png, metadata={"alt": alt, "file": f"{self.name}/{name}.png"})

    def claims(self, found: Sequence[claims_.Claim]) -> pd.DataFrame:
        """Store the claims of this run beside its figures."""
        data = claims_.table(found)
        files.write_bytes(self.figures / "claims.csv", data.to_csv(index=False, float_format="%.6g").encode())
        return data

    def card(self) -> dict[str, Any]:
        """The run card: what was run, with what, on what."""
        from lib import training

        return {
            "run": self.name,
            "profile": self.profile,
            "parameters": self.parameters.model_dump(mode="json"),
            "device": str(training.device(self.parameters.device)),
            "versions": versions(),
            "started": self.started.isoformat(timespec="seconds"),
            **commit(),
        }


LARGEST = 100_000  # bytes of a picture in full colour; all of a profile's together must stay below 12 MB


def smaller(png: bytes, line_art: bool) -> bytes:
    """The same picture in fewer bytes: without transparency; line art, and what is above LARGEST, in 256 colours."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")

    def saved(picture: Image.Image) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        return buffer.getvalue()

    whole = b"" if line_art else min(saved(image), png, key=len)
    return (
        whole
        if 0 < len(whole) <= LARGEST
        else min(saved(image.quantize(256, kmeans=0 if line_art else 3)), whole or png, key=len)
    )


def plainer(svg: bytes) -> bytes:
    """The same drawing in fewer bytes: five digits, short names, no blanks."""
    from scour import scour

    options = ["--set-precision=5", "--enable-id-stripping", "--shorten-ids", "--indent=none", "--no-line-breaks"]
    options += ["--enable-comment-stripping", "--remove-metadata", "--strip-xml-space"]
    return scour.scourString(svg.decode(), scour.parse_args(options)).encode()


def card_html(card: Mapping[str, Any]) -> str:
    """A run card as a table for people."""

    def told(value: Any) -> str:
        pairs = value.items() if isinstance(value, dict) else ()
        return html.escape(", ".join(f"{k} {v}" for k, v in pairs) if pairs else str(value))

    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{told(v)}</td></tr>" for k, v in card.items())
    return f"<table><caption>Run card</caption>{rows}</table>"


def start(name: str, given: Mapping[str, Any]) -> Run:
    """Validate a notebook's parameters (its `globals()` will do) and open the run.

    Raises ValueError as `profiles.parameters` does.
    """
    from lib import figures

    model = profiles.study_module(name).Parameters
    chosen = profiles.validated(model, {k: given[k] for k in model.model_fields if k in given})
    run = f"{name}.{chosen.variant}" if chosen.variant else name
    if chosen.profile not in profiles.PROFILES:
        raise ValueError(f"unknown profile {chosen.profile!r}; choose one of {', '.join(profiles.PROFILES)}")
    official = profiles.profile_file(run, chosen.profile).exists() and profiles.parameters(run, chosen.profile) == chosen
    figures.use_style()
    return Run(run, chosen, official, datetime.now(UTC))


def execute(run: str, profile: str, overrides: Mapping[str, Any] | None = None) -> Path:
    """Execute a notebook headlessly with papermill and return the path of its record, run.json.

    The executed notebook is kept as executed.ipynb, or failed.ipynb where it failed; success is this function's return,
    never the look of a notebook. Raises ValueError before anything runs for parameters that are not right, RuntimeError
    with the notebook's own error otherwise.
    """
    import papermill

    chosen = profiles.parameters(run, profile, overrides)
    notebook = profiles.notebook_of(run)
    declared = papermill.inspect_notebook(str(notebook))
    unknown = set(type(chosen).model_fields) ^ set(declared)
    if unknown:
        raise ValueError(f"{notebook.name} and its Parameters disagree about {', '.join(sorted(unknown))}; make them the same")
    begun = start(run.split(".")[0], chosen.model_dump())
    with files.locked(begun.results / "run"):  # a second run of the same results waits for the first
        return _execute(begun, notebook)


def _execute(begun: Run, notebook: Path) -> Path:
    import papermill

    folder = begun.results
    part, failed, done = folder / "running.ipynb", folder / "failed.ipynb", folder / "executed.ipynb"
    (folder / "run.json").unlink(missing_ok=True)
    say(f"running {notebook.name}, profile {begun.profile}")
    clock, began = time.perf_counter(), time.time() - 1  # file systems round times
    try:
        with _headless():
            papermill.execute_notebook(
                # papermill reads braces in a path as format fields
                str(notebook).replace("{", "{{").replace("}", "}}"),
                str(part).replace("{", "{{").replace("}", "}}"),
                parameters=begun.parameters.model_dump(mode="json"),
                kernel_name="python3",
                cwd=str(paths.PROJECT),
                progress_bar=False,
                stderr_file=sys.stderr,
                kernel_manager_class="lib.kernels.IPCKernelManager",
            )
    except BaseException as error:
        if part.exists():
            part.replace(failed)
        if not isinstance(error, Exception):
            raise
        raise RuntimeError(f"{notebook.name} failed; read {failed}\n{error}") from error
    part.replace(done)
    failed.unlink(missing_ok=True)
    tables = {p.name: files.digest(p) for p in sorted(folder.glob("*.parquet"))}
    record = begun.card() | {"seconds": round(time.perf_counter() - clock, 1), "tables": tables}
    if begun.is_study:
        claimed = begun.figures / "claims.csv"
        if not claimed.exists() or claimed.stat().st_mtime < began:
            raise RuntimeError(f"{notebook.name} ended without its claims; it must call run.claims(...)")
        shown = {Path(f["file"]).stem for f in files.read_json(begun.figures / "figures.json") or []}
        for old in begun.figures.iterdir():  # figures that this run no longer draws
            if old.suffix in (".png", ".svg", ".csv") and old.stem not in shown | {"claims"}:
                old.unlink()
        files.write_json(begun.figures / "run.json", record)  # the report and the index read it there
    files.write_json(folder / "run.json", record)
    return folder / "run.json"


@contextlib.contextmanager
def _headless() -> Any:
    """The environment of a kernel that nobody watches."""
    wanted = {"TQDM_DISABLE": "1", "MPLBACKEND": "agg"}
    before = {k: os.environ.get(k) for k in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for k, v in before.items():
            os.environ.pop(k) if v is None else os.environ.update({k: v})


def main() -> int:
    parser = argparse.ArgumentParser(description="Execute one notebook with a profile's parameters.")
    parser.add_argument("run", help="for example 01-attention-shift")
    parser.add_argument("--profile", default="laptop", help=", ".join(profiles.PROFILES))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="override one parameter")
    parser.add_argument("--no-report", action="store_true", help="leave the HTML to a later `python -m lib.report`")
    arguments = parser.parse_args()
    try:
        overrides = {}
        for pair in arguments.set:
            name, equals, value = pair.partition("=")
            if not equals:
                raise ValueError(f"--set takes NAME=VALUE, got {pair!r}")
            overrides[name] = yaml.safe_load(value)
        record = execute(arguments.run, arguments.profile, overrides)
        if not arguments.no_report:
            from lib import report

            done = files.read_json(record)
            say(f"report: {report.render(done['run'], done['profile'])}")
    except (ValueError, RuntimeError, OSError) as error:
        if os.environ.get("STUDY_TRACEBACK") == "1":
            traceback.print_exc()
        say(f"error: {error}")
        return 2 if isinstance(error, ValueError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
