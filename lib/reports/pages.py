"""Parts of the index: titles, the overview, the gallery and the table of runs."""

import html

from lib.claims import claim
from lib.reports.ledger import claims_of, deviations, finished, records, shown_figures
from lib.runs import profiles
from lib.runs.shown import card_html
from lib.system import paths


def title(run: str) -> str:
    """A run's number, what its study calls itself (or its name, where results outlive their study), and its variant."""
    own, _, variant = run.partition(".")
    there = profiles.notebook_of(run).exists()
    called = profiles.part(run, "plan").TITLE if there else own[3:]
    return f"{run[:2]} {called}" + (f" ({variant})" if variant else "")


def overview(profile: str) -> str:
    """A table of the studies, with links, as HTML: what has finished, with its verdicts; what has not, as such."""
    rows = []
    for name, record in records(profile).items():
        tally = claim.tally(claims_of(profile, name))
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


def deviations_html() -> str:
    """Where the code departs from its papers, as HTML."""
    rows = "".join(f"<tr><td>{html.escape(d.file)}</td><td>{html.escape(d.text)}</td></tr>" for d in deviations().itertuples())
    return f"<table><thead><tr><th>file</th><th>deviation</th></tr></thead><tbody>{rows}</tbody></table>"


def runs_html(profile: str) -> str:
    """The run cards, one after the other, as HTML."""
    return "".join(card_html(record) for record in records(profile).values()) or "<p>None.</p>"


def tell(profile: str) -> None:
    """Print a line a study, and where the index is."""
    for name in records(profile):
        print(f"{title(name)}: {claim.tally(claims_of(profile, name))}")
    target = paths.figures(profile) / "index.html"
    print(target if target.exists() else f"no index yet: {target}")
