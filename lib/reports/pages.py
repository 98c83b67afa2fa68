"""Parts of the index: titles, the overview, the gallery, what rules mean and the table of runs."""

import html
import os
import re
from collections.abc import Iterable
from pathlib import Path

from lib.claims import claim, measures
from lib.reports.ledger import claims_of, commit_of, deviations, finished, records, shown_figures
from lib.runs import profiles, shown
from lib.runs.run import Run
from lib.runs.shown import card_html
from lib.system import paths

RELATIVE = re.compile(r'<(?:a|img)\b[^>]*?\b(?:href|src)="(?![a-z]+:|[#/])')  # up to the address, not of other sites or places


def title(run: str) -> str:
    """A run's number, what its study calls itself (or its name, where results outlive their study), and its variant."""
    own, _, variant = run.partition(".")
    there = profiles.notebook_of(run).exists()
    called = profiles.part(run, "plan").TITLE if there else own[3:]
    return f"{run[:2]} {called}" + (f" ({variant})" if variant else "")


def tally(profile: str, run: str) -> str:
    """How a run's claims fared, in words; where they are of another version, what to do."""
    try:
        return claim.tally(claims_of(profile, run))
    except ValueError as error:
        return str(error)


def overview(profile: str) -> str:
    """A table of the studies, with links, as HTML: what has finished, with its verdicts; what has not, as such."""
    rows, there = [], records(profile)
    for name, record in there.items():
        rows.append(
            f'<tr><td><a href="{name}.html">{html.escape(title(name))}</a></td><td>{html.escape(tally(profile, name))}</td>'
            f"<td>{record.get('device', '')}</td><td>{record.get('seconds', float('nan')):.0f} s</td>"
            f'<td>{record.get("started", "")[:10]}</td><td><a href="#run-{name}">{commit_of(record) or "unknown"}</a></td></tr>'
        )
    for name in profiles.declared_runs(profile):
        if name not in there:
            rows.append(f'<tr><td>{html.escape(title(name))}</td><td colspan="5">not run yet</td></tr>')
    titles = ("study", "claims, adjusted for each other", "device", "notebook time", "date", "commit")
    head = "".join(f'<th scope="col">{h}</th>' for h in titles)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def gallery(profile: str) -> str:
    """The telling figure of each study, linked to its report, as HTML."""
    cards = []
    for folder in finished(profile):
        for figure in (f for f in shown_figures(profile, folder.name) if f["hero"]):
            alt = html.escape(figure["alt"], quote=True)
            cards.append(
                f'<figure><a href="{folder.name}.html"><img class="study-figure" src="{figure["file"]}" alt="{alt}"></a>'
                f"<figcaption><b>{html.escape(title(folder.name))}</b>: {alt}</figcaption></figure>"
            )
    return f'<div class="study-gallery">{"".join(cards)}</div>' if cards else "<p>No study has finished yet.</p>"


def placed(text: str, run: Run) -> str:
    """HTML of the index where its notebook shows it: links and pictures lead from the index's folder, and where the notebook
    is run by hand in JupyterLab, from the notebook's."""
    if not run.by_hand:
        return text
    from_notebook = Path(os.path.relpath(paths.figures(run.parameters.profile), paths.notebooks())).as_posix()
    return RELATIVE.sub(rf"\g<0>{from_notebook}/", text)


def rules_html() -> str:
    """What kinds and verdicts mean, and what is negligible of which measure, as HTML."""
    deltas = "".join(
        f"<tr><td>{name}</td><td>±{m.delta:g}</td><td>{html.escape(m.why)}</td></tr>"
        for name, m in measures.MEASURES.items()
        if name and m.delta
    )
    return (
        f"<h3>Kinds</h3>{_listed((html.escape(k), w) for k, w in shown.KINDS.items())}"
        f"<h3>Verdicts</h3>{_listed((shown.verdict_html(v), w) for v, w in shown.MEANS.items())}"
        "<h3>Negligible</h3><table><thead><tr><th>measure</th><th>differences that do not matter</th><th>why</th></tr></thead>"
        f"<tbody>{deltas}</tbody></table>"
    )


def _listed(pairs: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{term}</dt><dd>{html.escape(means)}</dd>" for term, means in pairs) + "</dl>"


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
        print(f"{title(name)}: {tally(profile, name)}")
    target = paths.figures(profile) / "index.html"
    print(target if target.exists() else f"no index yet: {target}")
