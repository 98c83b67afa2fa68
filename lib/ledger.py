"""The ledger: every claim of every study of a profile, the gallery, the runs. `99-ledger` shows it as the index page.

It reads what stands beside the committed figures (claims.csv, run.json, figures.json of each run), so that the index is
true for whatever has finished, here or before.
"""

import html
from pathlib import Path
from typing import Any

import pandas as pd

from lib import claims, files, paths, profiles, runs

TITLES = {
    "00": "Grad-CAM tour",
    "01": "Attention shift",
    "02": "Adversarially trained CNNs",
    "03": "Interpretability-aware training",
    "04": "Model manipulation",
    "05": "Saliency-based adversarial training",
    "06": "Attack pathways",
}
VERDICT_MARKS = {
    "supported": "✔ supported",
    "contradicted": "✘ contradicted",
    "inconclusive": "? inconclusive",
    "not tested": "– not tested",
}


class Parameters(profiles.Parameters):
    """The ledger takes a profile and nothing else."""


def finished(profile: str) -> list[Path]:
    """The figure folders of the runs that have finished, in order."""
    folder = paths.figures(profile)
    return sorted(p.parent for p in folder.glob("*/run.json") if (p.parent / "claims.csv").exists())


def shown_figures(profile: str, run: str) -> list[dict[str, Any]]:
    """The figures of a run: file, alt text, and whether the gallery shows it."""
    return files.read_json(paths.figures(profile) / run / "figures.json") or []


def signature(profile: str) -> str:
    """A digest of everything that decides the index: what it shows and how."""
    code = [paths.PROJECT / "lib" / n for n in ("ledger.py", "report.py", "claims.py", "templates/study/index.html.j2")]
    shown = [profiles.notebook_of(profiles.LEDGER), *code]
    for folder in finished(profile):
        shown += [folder / n for n in ("run.json", "claims.csv", "figures.json") if (folder / n).exists()]
    return files.digest_of([profiles.declared_runs(profile), [(p.parent.name, p.name, files.digest(p)) for p in shown]])


def claims_of(profile: str, run: str) -> pd.DataFrame:
    """The claims of one run."""
    found = pd.read_csv(paths.figures(profile) / run / "claims.csv", dtype={"study": str, "note": str})
    return found.assign(note=found.note.fillna(""))


def all_claims(profile: str) -> pd.DataFrame:
    """The claims of all finished runs, in the columns of claims.csv."""
    tables = [claims_of(profile, f.name) for f in finished(profile)]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(claims.COLUMNS))


def records(profile: str) -> dict[str, dict[str, Any]]:
    return {f.name: files.read_json(f / "run.json") or {} for f in finished(profile)}


def title(run: str) -> str:
    study, _, variant = run.partition(".")
    return f"{study[:2]} {TITLES.get(study[:2], study)}" + (f" ({variant})" if variant else "")


def overview(profile: str) -> str:
    """A table of the studies, with links, as HTML: what has finished, with its verdicts; what has not, as such."""
    rows = []
    for name, record in records(profile).items():
        tally = claims.tally(claims_of(profile, name))
        rows.append(
            f'<tr><td><a href="{name}.html">{html.escape(title(name))}</a></td><td>{tally}</td>'
            f"<td>{record.get('device', '')}</td><td>{record.get('seconds', float('nan')):.0f} s</td>"
            f"<td>{record.get('started', '')[:10]}</td><td>{record.get('commit', '')}</td></tr>"
        )
    for name in profiles.declared_runs(profile):
        if name not in records(profile):
            rows.append(f'<tr><td>{html.escape(title(name))}</td><td colspan="5">not run yet</td></tr>')
    head = "".join(f"<th>{h}</th>" for h in ("study", "claims", "device", "notebook time", "date", "commit"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def claims_html(found: pd.DataFrame) -> str:
    """Claims as a table for people: statement, statistic with its interval, verdict."""
    rows = []
    for c in found.itertuples():
        value = f"{c.value:.3g} [{c.ci_low:.3g}, {c.ci_high:.3g}]" if pd.notna(c.ci_low) else f"{c.value:.3g}"
        note = f"<br><small>{html.escape(c.note)}</small>" if isinstance(c.note, str) and c.note else ""
        rows.append(
            f"<tr><td>{c.study}</td><td>{c.kind}</td><td>{html.escape(c.statement)}<br><small>{html.escape(c.source)}</small></td>"
            f"<td>{html.escape(c.statistic)}</td><td>{value}<br><small>{html.escape(c.n)}</small></td>"
            f"<td>{VERDICT_MARKS[c.verdict]}<br><small>{html.escape(c.rule)}</small>{note}</td></tr>"
        )
    head = "".join(
        f"<th>{h}</th>"
        for h in ("study", "kind", "statement and source", "statistic", "value [95 % interval]", "verdict and rule")
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def gallery(profile: str) -> str:
    """The telling figure of each study, linked to its report, as HTML."""
    shown = []
    for folder in finished(profile):
        for figure in (f for f in shown_figures(profile, folder.name) if f["hero"]):
            shown.append(
                f'<p><a href="{folder.name}.html"><img class="study-figure" src="{figure["file"]}" '
                f'alt="{html.escape(figure["alt"], quote=True)}"></a><br>{html.escape(title(folder.name))}: '
                f"{html.escape(figure['alt'])}</p>"
            )
    return "".join(shown) or "<p>No study has finished yet.</p>"


def runs_html(profile: str) -> str:
    """The run cards, one after the other, as HTML."""
    return "".join(runs.card_html(record) for record in records(profile).values()) or "<p>None.</p>"


def write_claims(profile: str) -> Path:
    """figures/<profile>/claims.csv, all claims of the profile."""
    path = paths.figures(profile) / "claims.csv"
    files.write_bytes(path, all_claims(profile).to_csv(index=False, float_format="%.6g").encode())
    return path


def tell(profile: str) -> None:
    """Print a line a study, and where the index is."""
    for name in records(profile):
        print(f"{title(name)}: {claims.tally(claims_of(profile, name))}")
    target = paths.figures(profile) / "index.html"
    print(target if target.exists() else f"no index yet: {target}")
