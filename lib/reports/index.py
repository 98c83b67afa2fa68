"""The index of a profile: the ledger's notebook, executed and rendered as `index.html`, and its metadata."""

from pathlib import Path

from lib.reports import crate, ledger
from lib.reports.report import page, render, stamp
from lib.runs import headless, profiles
from lib.system import files, paths
from lib.system.progress import say


def index(profile: str) -> Path:
    """Bring index.html, the table of all claims and the metadata of a profile up to date: they show the studies that have finished."""
    target = page(profiles.LEDGER, profile)
    record = paths.results(profile, profiles.LEDGER) / "signature.json"
    with files.locked(record):
        now = {"shown": ledger.signature(profile)}
        made = [target, *(paths.figures(profile) / name for name in (ledger.CLAIMS, crate.FILE))]
        if not all(file.exists() for file in made) or files.read_json(record) != now:
            headless.execute(profiles.LEDGER, profile)
            render(profiles.LEDGER, profile)
            stamp(profile)
            crate.write(profile)
            files.write_json(record, now)
    files.write_json(record.with_name("shown.json"), now)  # Snakemake's mark that the index is up to date
    return target


def publish(run: str, profile: str, with_index: bool = True) -> Path:
    """The report of a finished run, which is told at once, and the index that leads to it (of one of PROFILES)."""
    written = render(run, profile)
    say(f"report: {written}")
    if with_index and profile in profiles.PROFILES:
        try:
            index(profile)
        except FileNotFoundError as gone:
            if paths.figures(profile) not in Path(gone.filename or "").parents:
                raise
            # of a run that begins anew just now, whose own page brings the index up to date
            say(f"the index stays as it was for now: {gone.filename} is being made anew")
    return written
