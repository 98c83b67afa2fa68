"""The ledger as a table that is searched, sorted and filtered in the browser, offline: DataTables, as itables brings it.

itables' bundle is a module, which a browser does not load from a file; in a folder that all profiles share lies the same code
as a plain script (SCRIPT) with its style sheet. Its rows stand in the page packed, a tenth as long.
"""

import html
import importlib.metadata
import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from lib.figures import packed
from lib.reports import ledger
from lib.reports.pages import title
from lib.runs import shown
from lib.runs.run import SHARED
from lib.system import files, paths

SCRIPT, SHEET = "datatables.js", "datatables.css"
ROWS = "ledger-rows"  # the element that holds them
EXPORTS = re.compile(r"export\{([^}]*)\};?\s*")

BEGIN = (
    """
<script>
(async () => {
  %UNPACKED%
  const dark = matchMedia("(prefers-color-scheme: dark)"), root = document.documentElement.classList;
  const follow = () => root.toggle("dark", dark.matches);
  follow();
  dark.addEventListener("change", follow);
  document.querySelector("#ledger tbody").innerHTML = await unpacked("%ROWS%");
  const box = document.getElementById("ledger-filters"), selects = box.querySelectorAll("select");
  const table = new DataTable("#ledger", {
    order: [], autoWidth: false, pageLength: 25, lengthMenu: [10, 25, 100, {label: "all", value: -1}],
    columnDefs: [{targets: ["statement", "rule"], orderable: false}],
    layout: {topStart: "search", topEnd: "pageLength", bottomStart: "info", bottomEnd: "paging"},
    language: {search: "Search the ledger", lengthMenu: "_MENU_ rows a page",
      info: "rows _START_ to _END_ of _TOTAL_", infoEmpty: "no row", infoFiltered: "(of _MAX_ in all)",
      zeroRecords: "No row has all of this."},
  });
  table.search.fixed("filters", (text, data, index) => {
    const [first, kind, , , verdict] = table.row(index).node().cells, run = first.firstChild.hash.slice("#run-".length);
    const row = {study: run.slice(0, 2), run, kind: kind.textContent, verdict: verdict.firstChild.textContent};
    return [...selects].every(s => !s.value || row[s.name] === s.value);
  });
  selects.forEach(s => s.addEventListener("change", () => table.draw()));
  document.getElementById("ledger-all").addEventListener("click", () => {
    selects.forEach(s => s.value = "");
    table.search("").order([]).draw();
  });
  box.hidden = false;
})().catch(error => {
  const told = ` (It cannot be searched here: ${error.message}. That needs a browser of 2023 or newer, and the folder`
    + " %SHARED% beside the profile's. Each report lists its claims.)";
  document.querySelector("#ledger caption").append(told);
});
</script>
""".replace("%UNPACKED%", packed.SCRIPT)
    .replace("%ROWS%", ROWS)
    .replace("%SHARED%", SHARED)
)


def library(folder: Path) -> None:
    """Write SCRIPT and SHEET into a folder. Raises RuntimeError where itables brings another bundle than is known."""
    found = {Path(f).name: Path(str(f.locate())) for f in importlib.metadata.files("itables") or [] if "/html/dt_" in str(f)}
    code = found["dt_bundle.js"].read_text(encoding="utf-8")
    exports = list(EXPORTS.finditer(code))
    default = re.search(r"(\w+) as default\b", exports[0][1]) if len(exports) == 1 else None
    if default is None:
        version = importlib.metadata.version("itables")
        raise RuntimeError(f"itables {version} bundles DataTables in another way; install what constraints.txt names")
    at = exports[0]
    plain = f'(() => {{"use strict";\n{code[: at.start()]}\nwindow.DataTable = {default[1]};\n}})();\n{code[at.end() :]}'
    files.write_bytes(folder / SCRIPT, plain.encode())
    files.write_bytes(folder / SHEET, found["dt_bundle.css"].read_bytes())


def ledger_html(profile: str, *, plain: bool = False) -> str:
    """All claims of a profile as a table with filters; `plain`: without, where scripts beside the page are not reached."""
    tables = ledger.tables(profile)
    if not tables:
        return "<p>Nothing has finished yet.</p>"
    rows = ""
    for run, table in tables.items():
        figures = ledger.shown_figures(profile, run)
        kinds = table.kind.map(list(shown.KINDS).index)
        rows += "".join(_row(run, figures, c) for c in table.iloc[kinds.argsort(kind="stable")].itertuples())
    head = "".join(f'<th scope="col" class="{name}">{words}</th>' for name, words in {"run": "run", **shown.COLUMNS}.items())
    begins = (
        '<table id="ledger" class="study-claims"><caption>All claims of the runs of this profile, and '
        f'<a href="#Rules">what kinds, verdicts and rules mean</a></caption><thead><tr>{head}</tr></thead>'
    )
    if plain:
        return f"{begins}<tbody>{rows}</tbody></table>"
    library(paths.figures(profile).parent / SHARED)
    return (
        f'<link rel="stylesheet" href="../{SHARED}/{SHEET}">{_filters(tables)}{begins}<tbody></tbody></table>'
        f"<noscript><p>This table needs scripts. Each report lists its claims, and {ledger.CLAIMS} all of them.</p></noscript>"
        f'{packed.element(ROWS, packed.packed(rows))}<script src="../{SHARED}/{SCRIPT}"></script>{BEGIN}'
    )


def _filters(tables: dict[str, pd.DataFrame]) -> str:
    """A list for each thing to filter by; shown by the script that makes them work."""
    every = pd.concat(tables.values())
    studies = {run[:2]: title(run.partition(".")[0]) for run in tables}
    lists: tuple[tuple[str, Iterable[str], Callable[[str], str]], ...] = (
        ("study", studies, studies.get),
        ("run", tables, title),
        ("kind", [k for k in shown.KINDS if (every.kind == k).any()], str),
        ("verdict", [f"{mark} {v}" for v, mark in shown.MARKS.items() if (every.adjusted == v).any()], str),
    )
    told = ""
    for name, values, words in lists:
        options = "".join(f'<option value="{html.escape(v, quote=True)}">{html.escape(words(v))}</option>' for v in values)
        choice = f'<select id="ledger-{name}" name="{name}"><option value="">all</option>{options}</select>'
        told += f'<span><label for="ledger-{name}">{name}</label> {choice}</span>'
    return f'<form id="ledger-filters" hidden>{told}<button type="button" id="ledger-all">Show all</button></form>'


def _row(run: str, figures: list[dict[str, Any]], c: Any) -> str:
    order = [*shown.MARKS].index(c.adjusted)
    figure = ledger.figure_of(figures, c.id)
    links = {"report": f"{run}.html{shown.anchor(c.id)}"}
    if figure:
        links = {"figure": f"{run}.html#figure-{figure}", **links}
    told = " · ".join(f'<a href="{html.escape(u, quote=True)}">{words}</a>' for words, u in links.items())
    return (
        f'<tr><td><a href="#run-{run}">{html.escape(title(run))}</a></td><td>{c.kind}</td>'
        f"<td>{html.escape(c.statement)}<br><small>{html.escape(c.source)}<br>{told}</small></td>"
        f'<td data-order="{c.value if math.isfinite(c.value) else ""}">{shown.number(c.value, c.ci_low, c.ci_high)}'
        f"<br><small>{html.escape(c.statistic)}; {html.escape(c.n)}</small></td>"
        f'<td data-order="{order}">{shown.told(c)}</td>'
        f"<td>{shown.rule(c)}</td></tr>"
    )
