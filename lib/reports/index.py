"""The index of a profile: the ledger's notebook, executed and rendered as `index.html`."""

from pathlib import Path

from lib.reports import ledger
from lib.reports.report import page, render
from lib.runs import headless, profiles
from lib.system import files, paths
from lib.system.progress import say


def index(profile: str) -> Path:
    """Bring index.html and claims.csv of a profile up to date: they show the studies that have finished, whichever."""
    target = page(profiles.LEDGER, profile)
    record = paths.results(profile, profiles.LEDGER) / "signature.json"
    with files.locked(record):
        now = {"shown": ledger.signature(profile)}
        there = target.exists() and (paths.figures(profile) / "claims.csv").exists()
        if not there or files.read_json(record) != now:
            headless.execute(profiles.LEDGER, profile)
            render(profiles.LEDGER, profile)
            files.write_json(record, now)
    files.write_json(record.with_name("shown.json"), now)  # Snakemake's mark that the index is up to date
    return target


def publish(run: str, profile: str, with_index: bool = True) -> Path:
    """The report of a finished run, which is told at once, and the index that leads to it (of one of PROFILES)."""
    written = render(run, profile)
    say(f"report: {written}")
    if with_index and profile in profiles.PROFILES:
        index(profile)
    return written
