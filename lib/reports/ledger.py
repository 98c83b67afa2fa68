"""The ledger: every claim of every study of a profile, the gallery, where the code departs from its papers, the runs.
`99-ledger` shows it as the index page.

It reads what stands beside the committed figures (claims.csv, run.json, figures.json of each run), so that the index is
true for whatever has finished, here or before.
"""

import contextlib
import fnmatch
import gzip
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from lib.claims import claim
from lib.runs import profiles
from lib.system import files, paths

CLAIMS = "claims.csv.gz"  # of all runs of a profile; `pandas.read_csv` opens it as it is


def finished(profile: str) -> list[Path]:
    """The figure folders of the runs that have finished, in order."""
    folder = paths.figures(profile)
    return sorted(p.parent for p in folder.glob("*/run.json") if (p.parent / "claims.csv").exists())


def shown_figures(profile: str, run: str) -> list[dict[str, Any]]:
    """The figures of a run: file, alt text, and whether the gallery shows it."""
    return files.read_json(paths.figures(profile) / run / "figures.json") or []


def figure_of(figures: Iterable[Mapping[str, Any]], id: str) -> str:
    """The name of the figure that shows a claim: the first that names a beginning of its id; empty if none does."""
    return next((Path(f["file"]).stem for f in figures if any(shows(begins, id) for begins in f.get("claims", ()))), "")


def shows(begins: str, id: str) -> bool:
    """Whether what a figure names is the beginning of a claim's id: `helps` of `helps/boxes`, `shuffled-*` of `shuffled-4`."""
    own = id.partition("@")[0]
    return fnmatch.fnmatchcase(own, begins) or fnmatch.fnmatchcase(own, f"{begins}/*")


def commit_of(record: Mapping[str, Any]) -> str:
    """The commit of a run, in words."""
    return f"{record.get('commit') or 'unknown'}{' with changed files' if record.get('changed') else ''}"


def commit_told(profile: str, run: str) -> str:
    """What a page says of the commits of a profile's results: its own, and whether all are one."""
    found: dict[str, list[str]] = {}
    for name, record in records(profile).items():
        found.setdefault(commit_of(record), []).append(name)
    if run == profiles.LEDGER:
        if len(found) < 2:
            return f"All results of this profile: commit {next(iter(found), 'none yet')}"
        *few, (commit, most) = sorted(found.items(), key=lambda one: len(one[1]))
        told = [f"{c} ({', '.join(runs)})" for c, runs in few]
        told.append(f"{commit} ({most[0] if len(most) == 1 else f'the other {len(most)}'})")
        return f"The results of this profile come from {len(found)} commits: {'; '.join(told)}"
    # what stands beside the page; of a run that is not there, such as one that judges nothing, its own record
    own = commit_of(records(profile).get(run) or files.read_json(paths.results(profile, run) / "run.json") or {})
    alike = not set(found) - {own}
    return f"Commit {own}, {'as all results' if alike else 'other results'} of this profile{'' if alike else ' have others'}"


def compared(profile: str) -> list[str]:
    """The profiles whose results stand side by side on a profile's index: all that judge claims; of smoke runs, they alone."""
    return [p for p in profiles.PROFILES if (p == "smoke") == (profile == "smoke") and finished(p)]


def signature(profile: str) -> str:
    """A digest of everything that decides the index: what it shows and how."""
    lib = paths.PROJECT / "lib"
    code = [p for folder in ("reports", "claims") for p in sorted((lib / folder).rglob("*")) if p.suffix in (".py", ".j2")]
    shown = [profiles.notebook_of(profiles.LEDGER), lib / "runs" / "shown.py", *code]
    for one in compared(profile):
        for folder in finished(one):
            shown += [folder / n for n in ("run.json", "claims.csv", "figures.json") if (folder / n).exists()]
    departs = deviations()[["file", "text"]].to_numpy().tolist()
    told = [("/".join(p.parts[-3:]), files.digest(p)) for p in shown]
    return files.digest_of([profiles.declared_runs(profile), told, departs])


def claims_of(profile: str, run: str) -> pd.DataFrame:
    """The claims of one run. Raises ValueError as `read_claims`."""
    return read_claims(paths.figures(profile) / run)


def read_claims(folder: Path) -> pd.DataFrame:
    """The claims of the run whose figures lie in a folder.

    Raises ValueError that says what to do where they are of another version: other columns, or verdicts that are none.
    """
    found = pd.read_csv(folder / "claims.csv", dtype={"study": str, "note": str})
    verdicts = set(get_args(claim.Verdict))
    if tuple(found.columns) != claim.COLUMNS or not {*found.verdict, *found.adjusted} <= verdicts:
        lacks = ", ".join(c for c in claim.COLUMNS if c not in found.columns)
        profile = folder.parent.name
        raise ValueError(
            f"figures/{profile}/{folder.name}/claims.csv is of another version "
            f"({f'it lacks {lacks}' if lacks else 'unknown rows'}); judge it anew: make report PROFILE={profile}"
        )
    return found.assign(note=found.note.fillna(""))


def tables(profile: str) -> dict[str, pd.DataFrame]:
    """The claims of each finished run whose table is of this version."""
    found = {}
    for folder in finished(profile):
        with contextlib.suppress(ValueError):
            found[folder.name] = claims_of(profile, folder.name)
    return found


def outdated(profile: str) -> dict[str, str]:
    """The finished runs whose claims are of another version, each with what to do."""
    found = {}
    for folder in finished(profile):
        try:
            claims_of(profile, folder.name)
        except ValueError as error:
            found[folder.name] = str(error)
    return found


def all_claims(profile: str) -> pd.DataFrame:
    """The claims of all finished runs, in the columns of claims.csv; those of another version are left out."""
    found = list(tables(profile).values())
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(claim.COLUMNS))


def records(profile: str) -> dict[str, dict[str, Any]]:
    return {f.name: files.read_json(f / "run.json") or {} for f in finished(profile)}


def write_claims(profile: str) -> Path:
    """figures/<profile>/claims.csv.gz, all claims of the profile; left as it is where all of them are of another version."""
    path = paths.figures(profile) / CLAIMS
    if path.exists() and finished(profile) and not tables(profile):
        return path
    content = all_claims(profile).to_csv(index=False, float_format="%.6g").encode()
    files.write_bytes(path, gzip.compress(content, mtime=0))
    return path


DEVIATION = "# deviation:"


def deviations(folder: Path | None = None) -> pd.DataFrame:
    """Where the code says that it departs from its paper or from the authors' code: file, line, text, a row a comment.

    A comment line that begins with DEVIATION, and the comment lines right below it, in the Python files below `folder` (lib
    unless given).
    """
    folder = folder or paths.PROJECT / "lib"
    found = [(f.relative_to(folder).as_posix(), *one) for f in sorted(folder.rglob("*.py")) for one in _departures(f)]
    return pd.DataFrame(found, columns=["file", "line", "text"])


def _departures(file: Path) -> Iterator[tuple[int, str]]:
    with tokenize.open(file) as source:
        if DEVIATION not in source.read():  # most files: reading tokens takes a hundred times as long
            return
        source.seek(0)
        comments = {t.start[0]: t for t in tokenize.generate_tokens(source.readline) if t.type == tokenize.COMMENT}
    alone = {n: t.string for n, t in comments.items() if t.line.lstrip().startswith("#")}
    for line, comment in alone.items():
        if comment.startswith(DEVIATION):
            parts, below = [comment.removeprefix(DEVIATION)], line + 1
            while below in alone and not alone[below].startswith(DEVIATION):
                parts.append(alone[below].lstrip("#"))
                below += 1
            yield line, " ".join(part.strip() for part in parts)
