"""The first page: what each paper claims and what holds, as HTML for the index and as Markdown for the README."""

import html
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from lib.claims.claim import Verdict
from lib.reports import ledger
from lib.reports.primaries import Cell, Column, Line, Paper, papers
from lib.runs import shown

SIDES = ("embedded data", "real data", "the authors' networks")


def summary_html(profile: str) -> str:
    """The first thing on the index of a profile: what holds, at a glance and claim by claim."""
    found = papers(ledger.compared(profile))
    older = "".join(f'<p class="study-older">{html.escape(told)}</p>' for told in older_lines(ledger.compared(profile)))
    if not found:
        return f'{older}<p class="study-older">No primary claim has been judged yet.</p>'
    return f"{older}{_glance(found)}{_legend()}<h2>Claim by claim</h2>{''.join(_paper(paper, profile) for paper in found)}"


def older_lines(compared: Iterable[str]) -> list[str]:
    """What is missing since its claims are of another version, a line a profile."""
    told = []
    for profile in compared:
        runs = ledger.outdated(profile)
        if runs:
            which = "all runs" if len(runs) == len(ledger.finished(profile)) else ", ".join(runs)
            told.append(
                f"Left out, since their claims are of an older version: {which} of profile {profile}. "
                f"To judge them anew: make report PROFILE={profile}"
            )
    return told


def _side(column: Column) -> str:
    return SIDES[2 if column.theirs else 0 if column.embedded else 1]


def _counted(verdicts: Iterable[Verdict | None]) -> str:
    """How many of each, those that there are."""
    return ", ".join(f"{n} {v}" for v, n in Counter(sorted(filter(None, verdicts), key=list(shown.MARKS).index)).items())


def _mark(verdict: Verdict | None) -> str:
    return shown.MARKS[verdict] if verdict else "–"


def _sides(found: Sequence[Paper]) -> list[str]:
    return [side for side in SIDES if any(_side(c) == side for p in found for c in p.columns)]


def _judged(paper: Paper, side: str) -> list[tuple[Column, list[Verdict | None]]]:
    """The runs of a side, each with its verdicts in the order of a paper's claims, None for one that it does not judge."""
    columns = [(i, column) for i, column in enumerate(paper.columns) if _side(column) == side]
    cells = [(column, [line.cells[i].row for line in paper.lines]) for i, column in columns]
    return [(column, [None if row is None else row.adjusted for row in rows]) for column, rows in cells]


def _in_all(found: Sequence[Paper], side: str) -> str:
    return _counted([v for paper in found for _, verdicts in _judged(paper, side) for v in verdicts])


def _glance(found: Sequence[Paper]) -> str:
    """A row a paper, a mark a claim: the claims in their order, run by run."""
    sides, rows = _sides(found), []
    for paper in found:
        cells = []
        for side in sides:
            told = []
            for column, verdicts in _judged(paper, side):
                marks = "".join(f'<span class="mark {(v or "").replace(" ", "-")}">{_mark(v)}</span>' for v in verdicts)
                seen = f'<span role="img" aria-label="{_counted(verdicts)}">{marks}</span>'
                told.append(f"<div>{html.escape(column.name)}: {seen}</div>")
            cells.append(f"<td>{''.join(told)}</td>")
        link = f'<a href="#paper-{paper.number}">{paper.number} {html.escape(paper.title)}</a>'
        rows.append(f'<tr><th scope="row">{link}<br><small>{_short(paper.reference)}</small></th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{h}</th>' for h in ("paper", *sides))
    foot = "".join(f"<td>{_in_all(found, side)}</td>" for side in sides)
    return (
        f"<p>{_many(found)} A mark is what became of one of them in a run (– is not part of it), in the order of the tables "
        "below, which have the numbers.</p>"
        f'<table class="study-glance"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        f'<tfoot><tr><th scope="row">in all</th>{foot}</tr></tfoot></table>'
    )


def _many(found: Sequence[Paper]) -> str:
    """How many claims there are, and whose."""
    lines = [line for paper in found for line in paper.lines]
    judge = f"{len(found)} studies judge" if len(found) > 1 else "1 study judges"
    return (
        f"{judge} {len(lines)} claims that a reader would name, {sum(line.published for line in lines)} of them published, the "
        "others ours or told elsewhere (their sources stand with them)."
    )


def _short(reference: str) -> str:
    """Authors and year or venue, without where to find it."""
    return html.escape("; ".join(re.sub(r", arXiv:[\d.]+", "", part) for part in reference.split("; ")))


def _linked(reference: str) -> str:
    """A reference with links to arXiv."""
    return re.sub(r"arXiv:([\d.]+\d)", r'<a href="https://arxiv.org/abs/\1">arXiv:\1</a>', html.escape(reference))


def _legend() -> str:
    told = {v: means for v, means in shown.MEANS.items() if v != "not tested"}
    rows = "".join(f"<div><dt>{shown.verdict_html(v)}</dt><dd>{means}</dd></div>" for v, means in told.items())
    return f'<dl class="study-legend">{rows}</dl>'


def _paper(paper: Paper, profile: str) -> str:
    head = "".join(
        f'<th scope="col"><a href="{_at(c, profile)}">{html.escape(c.name)}</a><br><small>{_side(c)}</small></th>'
        for c in paper.columns
    )
    rows = "".join(_row(line, profile) for line in paper.lines)
    return (
        f'<h3 id="paper-{paper.number}">{paper.number} {html.escape(paper.title)}</h3><p>{_linked(paper.reference)}</p>'
        f'<table class="study-holds"><thead><tr><th scope="col">claim, and what was measured</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _at(column: Column, profile: str) -> str:
    """The report of a run, from the index of a profile."""
    return f"{'' if column.profile == profile else f'../{column.profile}/'}{column.run}.html"


def _row(line: Line, profile: str) -> str:
    cells = "".join(f"<td>{_cell(cell, profile)}</td>" for cell in line.cells)
    measured = f"{line.statistic}{line.claimed}; {line.source}"
    says = f"{html.escape(line.statement)}<br><small>{html.escape(measured)}</small>"
    told = "".join(f"<li>{html.escape(reason)}</li>" for reason in line.why)
    why = f'<tr class="study-why"><td colspan="{len(line.cells) + 1}"><b>Why:</b><ul>{told}</ul></td></tr>' if told else ""
    return f'<tr><th scope="row">{says}</th>{cells}</tr>{why}'


def _cell(cell: Cell, profile: str) -> str:
    if cell.row is None:
        return f"<small>{cell.reason}</small>"
    row = cell.row
    link = f'<a href="{_at(cell.column, profile)}{shown.anchor(row.id)}">{shown.verdict_html(row.adjusted)}</a>'
    about = "".join(f"<br><small>{html.escape(words)}</small>" for words in (cell.about, cell.statistic) if words)
    beside = ""
    if cell.beside:
        control, at = cell.beside.row, f"{_at(cell.column, profile)}{shown.anchor(cell.beside.row.id)}"
        mark = f'<a href="{at}">{shown.verdict_html(control.adjusted)}</a>'
        beside = f"<br><small>{html.escape(cell.beside.words)}: {mark} {_number(control)}</small>"
    return f'{link}<br><span class="number">{_number(row)}</span>{about}{beside}'


def _number(row: Any) -> str:
    return shown.number(row.value, row.ci_low, row.ci_high) if math.isfinite(row.value) else "no value"


def summary_markdown(compared: Sequence[str]) -> str:
    """The same for the README: what holds at a glance, and folded up below it the table of claims, the runs of a side one below
    the other as in the row of their paper. Links begin at the project's folder."""
    found = papers(compared)
    lines = [f"*{told}*" for told in older_lines(compared)]
    if not found:
        return "\n\n".join(["The table of what holds is made by `make report && make readme`.", *lines])
    marks = ", ".join(f"{shown.MARKS[v]} {v}" for v in shown.MARKS if v != "not tested")
    told = (
        f"{_many(found)} A mark is what became of one of them in a run, in the order of the claims below: {marks}, "
        "– not part of it. A link leads to the run's report."
    )
    how = (
        "Numbers have their 95 % interval. Under a claim stands what is measured, then why runs disagree or cannot say. Where "
        "a cell has several results, they stand in the order of the reports in their paper's row."
    )
    folded = f"<details>\n<summary>Claim by claim, with numbers</summary>\n\n{how}\n\n{_claims_markdown(found)}\n\n</details>"
    return "\n\n".join([told, *lines, _glance_markdown(found), folded])


def _table_markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def _glance_markdown(found: Sequence[Paper]) -> str:
    sides, rows = _sides(found), []
    for paper in found:
        cells = [f"{_plain(f'{paper.number} {paper.title}')}<br><sub>{_plain(_short(paper.reference))}</sub>"]
        for side in sides:
            runs = [(c, "\N{NO-BREAK SPACE}".join(map(_mark, verdicts))) for c, verdicts in _judged(paper, side)]
            cells.append("<br>".join(f"{_report(column)} {marks}" for column, marks in runs))
        rows.append(cells)
    return _table_markdown(["paper", *sides], [*rows, ["in all", *(_in_all(found, side) for side in sides)]])


def _claims_markdown(found: Sequence[Paper]) -> str:
    sides, rows = _sides(found), []
    for paper in found:
        runs = [[c for c in paper.columns if _side(c) == side] for side in sides]
        head = f"**{paper.number} {_plain(paper.title)}**"
        rows.append([head, *("<br>".join(map(_report, alike)) for alike in runs)])
        for line in paper.lines:
            told = [f"{line.statistic}{line.claimed}{'' if line.published else f'; {line.source}'}", *line.why]
            under = "".join(f"<br><sub>{_plain(words)}</sub>" for words in told)
            cells = ["<br>".join(_brief(c) for c in line.cells if c.column in alike) for alike in runs]
            rows.append([f"{_plain(line.statement)}{under}", *cells])
    return _table_markdown(["claim", *sides], rows)


def _report(column: Column) -> str:
    return f"[{_plain(column.name)}](figures/{column.profile}/{column.run}.html)"


def _brief(cell: Cell) -> str:
    row = cell.row
    if row is None:
        return "–"
    mark = shown.MARKS[row.adjusted]
    under = [_plain(words) for words in (cell.about, cell.statistic) if words]
    if cell.beside:
        control = cell.beside.row
        under.append(f"{_plain(cell.beside.words)}: {shown.MARKS[control.adjusted]} {_number(control)}")
    number = f" {_number(row)}" if math.isfinite(row.value) else ""
    return f"{mark}{number}{''.join(f'<br><sub>{words}</sub>' for words in under)}"


def _plain(text: str) -> str:
    """Text that stands in a cell of a Markdown table as it is."""
    return re.sub(r"([|*_`\[\]<>])", r"\\\1", html.unescape(text)).replace("\n", " ")
