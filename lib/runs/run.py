"""Runs: a notebook, the profile's parameters, and what comes of them.

A notebook begins with `run = runs.start("01-attention-shift", globals())`, which validates its parameters and gives it
places for tables, figures and claims. The same notebook runs in JupyterLab, under plain papermill, and through
`python -m lib run RUN --profile laptop --set images=50`, which adds strict parameters, a record and the report.

A run whose parameters are exactly those of its profile writes to that profile's folders; any other one gets a folder
named after its parameters, `custom-…`, so that trying something never overwrites a profile's results. Nor does looking
around in JupyterLab: figures and claims of a notebook there go to a folder of their own (`paths.tried`).
"""

import dataclasses
import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from IPython.display import HTML, Image

from lib.claims import claim, warned
from lib.figures import style
from lib.networks import models
from lib.runs import needs, profiles, sources
from lib.runs.pictures import COARSE, WIDEST, plainer, write_picture, write_table
from lib.runs.record import commit, hashes, versions
from lib.runs.shown import card_html, claims_html, marks, warnings_html
from lib.studies import marking
from lib.studies.parameters import Arm
from lib.system import devices, files, paths
from lib.system.progress import say
from lib.training.cache import key_of
from lib.training.config import TrainConfig

T = TypeVar("T")
Found = TypeVar("Found")
LOADED = time.time()
COPIES = 8  # of its weights that a training holds: network, teacher, gradients, two moments, what is written, their rest
BROUGHT = "STUDY_BROUGHT"  # set where the runner itself has read a profile's values, and what was set beside them
SHARED = "assets"  # the folder of what the pages of all profiles use, beside those of the profiles
IN_JUPYTER = "JPY_SESSION_NAME"  # Jupyter's server tells the kernels of its notebooks and consoles their name by this


@dataclasses.dataclass
class Run:
    """A started run: its validated parameters and where its results go."""

    name: str
    parameters: Any
    official: bool
    started: datetime
    by_hand: bool = False
    manifest: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    warned: dict[str, pd.DataFrame] = dataclasses.field(default_factory=dict)  # by the table that was measured

    def study(self, part: str) -> Any:
        """A part of the study: its `plan`, `measure`, `claims` or `explorer`."""
        return profiles.part(self.name, part)

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
        """Where figures and claims go: those of a notebook in JupyterLab beside the results, so that `figures` stays what
        the study's own runs made of it."""
        return (paths.tried if self.by_hand else paths.figures)(self.profile) / self.name

    @property
    def assets(self) -> Path:
        """Where what the pages of all profiles share goes."""
        return self.figures.parents[1] / SHARED

    def table(self, name: str, data: pd.DataFrame) -> Path:
        """Store a results table as parquet."""
        path = self.results / f"{name}.parquet"
        buffer = io.BytesIO()
        data.to_parquet(buffer, index=False)
        files.write_bytes(path, buffer.getvalue())
        return path

    def cached(self, name: str, key: Any, compute: Callable[[], pd.DataFrame], *modules: str) -> pd.DataFrame:
        """A table that is computed once for `key`, and found again by an interrupted run.

        `key` is everything that decides the table but for the code: the sources that measure, those of further `modules`, and
        the versions of the libraries, are added here, so that a table never outlives the kernel that made it. What attacks
        warn of on the way (`warned.tell`) is stored beside it and found again with it.
        """
        code = sorted({*sources.of_measurement(self.name, self.networks()), *sources.reached((), modules)})
        newer = [p.name for p in code if p.stat().st_mtime > LOADED]
        if newer:
            say(f"{', '.join(newer)} changed since this kernel loaded it: nothing is cached; restart the kernel to use it")
            with warned.collected() as told:
                data = compute()
            self.warned[name] = warned.table(told)
            return data
        part = f"parts/{name}-{files.digest_of([key, sources.digest(code), versions()])}"
        path = self.results / f"{part}.parquet"
        if path.exists():
            try:
                self.warned[name] = pd.read_parquet(self.results / f"{part}.warnings.parquet")
                return pd.read_parquet(path)
            except (OSError, ValueError) as error:
                say(f"{path.name} is damaged ({error}); computing it again")
        with warned.collected() as told:
            data = compute()
        devices.give_back()  # a run's process measures much, one after the other
        self.warned[name] = warned.table(told)
        self.table(f"{part}.warnings", self.warned[name])  # first: where there is a table, its warnings are there
        self.table(part, data)
        return data

    def networks(self, *job: Any) -> list[TrainConfig]:
        """The networks of this run, or those that one measurement asks."""
        return self.study("plan").networks(self.parameters, *job)

    def job(self, job: tuple[Any, ...]) -> pd.DataFrame:
        """One measurement of the study, keyed by its networks (whose keys hold their training images), by what it looks at
        and by the parameters."""
        return self.cached(_called(job), self._key(job), lambda: self.study("measure").measure(self.parameters, *job))

    def _key(self, job: tuple[Any, ...]) -> list[Any]:
        p = self.parameters
        seen = self.study("plan").seen(p, *job)
        return [job, [key_of(c) for c in self.networks(*job)], seen, p.model_dump(mode="json", exclude={"profile", "variant"})]

    def measured(self, *, workers: int | None = None) -> pd.DataFrame:
        """Everything that the study measures: one table, in the order of its jobs, stored as `measurements`."""
        found = self.each(self.study("plan").jobs(self.parameters), self.job, workers=workers)
        self.table("measurements", found)
        return found

    def marked(self) -> pd.DataFrame:
        """What the maps of every explanation mark on the networks of the study's arms (`lib.studies.marking`), for people; the
        measurements are stored as `marked`."""
        p, plan = self.parameters, self.study("plan")
        if not hasattr(plan, "marked"):
            raise ValueError(f"{plan.__name__} has no marked(p): it names the networks to be asked, a list of {Arm.__name__}")
        images = plan.evaluation_set(p).head(p.marked_images).images[:]

        def work(one: tuple[Arm, tuple[Any, ...]]) -> pd.DataFrame:
            arm, job = one
            key = [self._key(job), arm.name]

            def compute() -> pd.DataFrame:
                return marking.measure(plan.model(p, *job), images, arm, job[-1], p.marked_steps)

            return self.cached(f"marked-{_called(job)}", key, compute, marking.__name__)

        found = self.each([(arm, job) for arm in plan.marked(p) for job in arm.jobs[: marking.RUNS]], work)
        self.table("marked", found)
        return marks(found)

    def each(self, items: Sequence[T], work: Callable[[T], pd.DataFrame], *, workers: int | None = None) -> pd.DataFrame:
        """One table from many pieces of work, as `side_by_side` does them."""
        return pd.concat(self.side_by_side(items, work, "measured", workers=workers), ignore_index=True)

    def side_by_side(
        self, items: Sequence[T], work: Callable[[T], Found], done: str, *, workers: int | None = None
    ) -> list[Found]:
        """Many pieces of work, side by side on the CPU's cores, one torch thread each; `done` says what was done to each.

        The numbers do not depend on how many cores there are. Fewer are used where networks are so large that their trainings
        would not fit into `devices.MEMORY` together. On another device: one after the other.
        """
        on_cpu = devices.device(self.parameters.device).type == "cpu"
        cores = len(os.sched_getaffinity(0)) if on_cpu and hasattr(os, "sched_getaffinity") else 1
        workers = workers or min(cores, self._at_once())
        found: list[Found] = []
        begin = time.perf_counter()
        with devices.one_thread_on_cpu(self.parameters.device), ThreadPoolExecutor(workers) as pool:
            for one in pool.map(work, items):
                found.append(one)
                left = (time.perf_counter() - begin) / len(found) * (len(items) - len(found))
                say(f"  {self.name}: {done} {len(found)} of {len(items)}, {left:.0f} s left")
        return found

    def _at_once(self) -> int:
        """How many of the run's networks may be in training together."""
        largest = max(map(models.bytes_of, {c.arch for c in self.networks()}), default=0)
        return max(1, devices.MEMORY // max(1, COPIES * largest))

    def show(
        self,
        fig: Any,
        name: str,
        alt: str,
        data: pd.DataFrame | None = None,
        *,
        line_art: bool = False,
        hero: bool = False,
        claims: Sequence[str] = (),
    ) -> Any:
        """Store a figure as PNG (a large picture as WebP, line art as SVG too) with its numbers as CSV; returns it for display.

        The index's gallery shows the `hero` of each run. The ledger leads from a claim to the first figure that shows it:
        `claims` are beginnings of their ids, `helps` or `shuffled-*`.
        """
        import matplotlib.pyplot as plt

        if not alt.strip():
            raise ValueError(f"figure {name!r} needs alt text: what a reader who cannot see it should know")
        metadata = {"png": {"Software": None}, "svg": {"Date": None}}
        style.as_written(fig)
        fine = plt.rcParams["savefig.dpi"] if self.judges else COARSE
        dpi = fine if line_art else min(fine, WIDEST / fig.get_figwidth())
        drawn = {}
        for suffix in ("png", "svg") if line_art else ("png",):
            buffer = io.BytesIO()
            fig.savefig(buffer, format=suffix, metadata=metadata[suffix], bbox_inches="tight", dpi=dpi)
            drawn[suffix] = buffer.getvalue()
        file = self.figures / f"{name}.png"
        if self.judges:
            file = write_picture(self.figures, name, drawn["png"], line_art)
        else:  # what nobody reads may be large
            files.write_bytes(file, drawn["png"])
        if line_art:
            files.write_bytes(file.with_suffix(".svg"), plainer(drawn["svg"]) if self.judges else drawn["svg"])
        plt.close(fig)
        if data is not None:
            write_table(self.figures, name, data.to_csv(index=False, float_format="%.6g").encode())
        address = f"{self.name}/{file.name}"
        self.manifest.append({"file": address, "alt": alt, "hero": hero, "claims": list(claims)})
        files.write_json(self.figures / "figures.json", self.manifest)
        return Image(drawn["png"], metadata={"alt": alt, "file": address})

    def claims(self, found: Sequence[claim.Claim]) -> HTML:
        """Store the claims of this run beside its figures; returns them as a table for people."""
        data = claim.table(found)
        files.write_bytes(self.figures / "claims.csv", data.to_csv(index=False, float_format="%.6g").encode())
        return HTML(claims_html(data))

    def warnings(self) -> HTML:
        """What attacks warned of in all that this run measured, stored as the table `warnings`; or a sentence that none did."""
        found = warned.joined(self.warned.values())
        self.table("warnings", found)
        return HTML(warnings_html(found))

    def judged(self, table: pd.DataFrame) -> HTML:
        """The study's claims, judged from its measurements, stored and shown."""
        return self.claims(self.study("claims").judge(table, self.parameters, test=self.judges))

    def record(self) -> dict[str, Any]:
        """What was run, with what, on what."""
        return {
            "run": self.name,
            "profile": self.profile,
            "parameters": self.parameters.model_dump(mode="json"),
            "device": str(devices.device(self.parameters.device)),
            "versions": versions(),
            "hashes": hashes(),
            "started": self.started.isoformat(timespec="seconds"),
            **commit(),
        }

    def card(self) -> HTML:
        """The run card: the record as a table for people, with where their figures go."""
        return HTML(card_html(self.record() | ({"figures": self.figures} if self.by_hand else {})))


def _called(job: tuple[Any, ...]) -> str:
    return "-".join(map(str, job)).replace("/", "_")


def start(name: str, given: Mapping[str, Any]) -> Run:
    """Validate a notebook's parameters (its `globals()` will do), look for the data that they name, and open the run.

    Raises ValueError as `profiles.parameters` and `profiles.check_brought` do, and what `needs.check` raises.
    """
    model = profiles.parameters_of(name)
    chosen = profiles.validated(model, {k: given[k] for k in model.model_fields if k in given})
    run = f"{name}.{chosen.variant}" if chosen.variant else name
    if chosen.profile not in profiles.PROFILES:
        raise ValueError(f"unknown profile {chosen.profile!r}; choose one of {', '.join(profiles.PROFILES)}")
    if BROUGHT not in os.environ:
        profiles.check_brought(run, chosen)
    needs.check(run, chosen)
    official = profiles.profile_file(run, chosen.profile).exists() and profiles.parameters(run, chosen.profile) == chosen
    style.use_style()
    return Run(run, chosen, official, datetime.now(UTC), by_hand=IN_JUPYTER in os.environ)
