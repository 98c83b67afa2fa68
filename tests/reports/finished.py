"""Runs that have finished, made up: what the reports read, without running anything."""

import ast

import nbformat
import numpy as np

from lib.claims import claim
from lib.claims.claim import Rule
from lib.claims.court import Court
from lib.runs import profiles
from lib.runs.shown import claims_html
from lib.studies.parameters import Parameters
from lib.system import files, paths

RUN = "01-attention-shift"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
# what a claim is to become, by the beginning of its name: the mean of its values over 20 images
VALUES = {
    "up": np.full(20, 1.0),
    "down": np.full(20, -1.0),
    "open": np.linspace(-0.9, 1, 20),
    "nothing": np.linspace(0, 2e-3, 20),
}


def claims(run=RUN, made=("up", "down"), profile="laptop", gates=(), statements=None, **options):
    """A claims table: a row for each of `made`, ID=VALUE or a value alone, for a run."""
    court = Court(run[:2], Parameters(variant=run.partition(".")[2]), test=profile != "smoke", over=20, **options)
    court.gate("clean", "the network is right on half of the clean images", 0.26, Rule("above", 0.5))
    for one in made:
        id, _, value = one.rpartition("=")
        id = id or value
        court.add(
            id,
            "check" if id.startswith("sum") else "claim",
            (statements or {}).get(id, f"It goes {id} <here>"),
            lambda i, s, v=value: VALUES[v][i].mean(),
            Rule("above", 0),
            statistic=f"mean of {id}",
            source="Some & others 2022",
            measure="accuracy",
            trained=id.startswith("one"),
            gates=("clean",) if id in gates else (),
        )
    return claim.table(court.rows)


def finish(run=RUN, profile="laptop", made=("up", "down"), widget=False, parameters=None, commit="abc123", **options):
    """A run that has finished, with a small notebook in the place of the real one."""
    v = nbformat.v4
    figures = paths.figures(profile) / run
    files.write_bytes(figures / "a.png", b"png")
    shown = v.new_output(
        "display_data", {"image/png": PNG}, metadata={"image/png": {"alt": 'A "quoted" figure', "file": f"{run}/a.png"}}
    )
    inline = v.new_output("display_data", {"image/png": PNG}, metadata={"image/png": {"alt": "inline"}})
    table = claims(run, made, profile, **options)
    files.write_bytes(figures / "claims.csv", table.to_csv(index=False).encode())
    cells = [
        v.new_markdown_cell("# A title"),
        v.new_code_cell("show()", outputs=[shown, inline]),
        v.new_code_cell(
            "secret_widget()", metadata={"tags": ["interactive"]}, outputs=[v.new_output("stream", text="a widget")]
        ),
        v.new_code_cell("hidden_input()", metadata={"tags": ["hide-input"]}, outputs=[v.new_output("stream", text="shown")]),
        v.new_code_cell("judged()", outputs=[v.new_output("display_data", {"text/html": claims_html(table)})]),
    ]
    content = v.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    if widget:
        content.metadata["widgets"] = {
            "application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2, "version_minor": 0}
        }
    folder = paths.results(profile, run)
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(content, folder / "executed.ipynb")
    files.write_json(
        figures / "figures.json", [{"file": f"{run}/a.png", "alt": "A figure", "hero": True, "claims": ["up", "mod-rises"]}]
    )
    record = {
        "run": run,
        "profile": profile,
        "seconds": 1.0,
        "started": "2026-01-01T00:00:00+00:00",
        "parameters": {"profile": profile, "variant": run.partition(".")[2], **(parameters or {})},
        "versions": {"torch": "2.9"},
        "hashes": {"torch": "f" * 64},
        "commit": commit,
        "changed": False,
    }
    files.write_json(folder / "run.json", record)
    files.write_json(figures / "run.json", record)


def outdate(run=RUN, profile="laptop"):
    """The claims of a run as an older version wrote them."""
    path = paths.figures(profile) / run / "claims.csv"
    lines = path.read_text().splitlines()
    names = lines[0].split(",")
    assert "adjusted" in names
    path.write_text("\n".join([",".join(n for n in names if n not in ("p", "adjusted")), *lines[1:]]) + "\n")


def ledger_in_process(run, profile):
    """What `headless.execute` does to the ledger's notebook, without a kernel."""
    v, content = nbformat.v4, nbformat.read(profiles.notebook_of(run), as_version=4)
    scope = {"profile": profile, "variant": "", "device": "auto"}
    for cell in content.cells:
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
            tree = ast.parse(cell.source)
            last = ast.Expression(tree.body.pop().value)
            exec(compile(tree, run, "exec"), scope)
            shown = eval(compile(last, run, "eval"), scope)
            cell.outputs = [v.new_output("execute_result", {"text/html": shown._repr_html_()}, execution_count=1)]
    folder = paths.results(profile, run)
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(content, folder / "executed.ipynb")
    files.write_json(folder / "run.json", {"parameters": {"profile": profile}})
