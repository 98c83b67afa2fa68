"""The ledger: every claim of every study of a profile, the gallery, where the code departs from its papers, the runs.
`99-ledger` shows it as the index page.

It reads what stands beside the committed figures (claims.csv, run.json, figures.json of each run), so that the index is
true for whatever has finished, here or before.
"""

import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from lib.claims import claim
from lib.runs import profiles
from lib.system import files, paths


def finished(profile: str) -> list[Path]:
    """The figure folders of the runs that have finished, in order."""
    folder = paths.figures(profile)
    return sorted(p.parent for p in folder.glob("*/run.json") if (p.parent / "claims.csv").exists())


def shown_figures(profile: str, run: str) -> list[dict[str, Any]]:
    """The figures of a run: file, alt text, and whether the gallery shows it."""
    return files.read_json(paths.figures(profile) / run / "figures.json") or []


def signature(profile: str) -> str:
    """A digest of everything that decides the index: what it shows and how."""
    lib = paths.PROJECT / "lib"
    code = [p for folder in ("reports", "claims") for p in sorted((lib / folder).rglob("*")) if p.suffix in (".py", ".j2")]
    shown = [profiles.notebook_of(profiles.LEDGER), *code]
    for folder in finished(profile):
        shown += [folder / n for n in ("run.json", "claims.csv", "figures.json") if (folder / n).exists()]
    departs = deviations()[["file", "text"]].to_numpy().tolist()
    return files.digest_of(
        [profiles.declared_runs(profile), [(p.parent.name, p.name, files.digest(p)) for p in shown], departs]
    )


def claims_of(profile: str, run: str) -> pd.DataFrame:
    """The claims of one run."""
    found = pd.read_csv(paths.figures(profile) / run / "claims.csv", dtype={"study": str, "note": str})
    return found.assign(note=found.note.fillna(""))


def all_claims(profile: str) -> pd.DataFrame:
    """The claims of all finished runs, in the columns of claims.csv."""
    tables = [claims_of(profile, f.name) for f in finished(profile)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(claim.COLUMNS))


def records(profile: str) -> dict[str, dict[str, Any]]:
    return {f.name: files.read_json(f / "run.json") or {} for f in finished(profile)}


def write_claims(profile: str) -> Path:
    """figures/<profile>/claims.csv, all claims of the profile."""
    path = paths.figures(profile) / "claims.csv"
    files.write_bytes(path, all_claims(profile).to_csv(index=False, float_format="%.6g").encode())
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
        comments = {t.start[0]: t for t in tokenize.generate_tokens(source.readline) if t.type == tokenize.COMMENT}
    alone = {n: t.string for n, t in comments.items() if t.line.lstrip().startswith("#")}
    for line, comment in alone.items():
        if comment.startswith(DEVIATION):
            parts, below = [comment.removeprefix(DEVIATION)], line + 1
            while below in alone and not alone[below].startswith(DEVIATION):
                parts.append(alone[below].lstrip("#"))
                below += 1
            yield line, " ".join(part.strip() for part in parts)
