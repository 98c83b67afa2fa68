"""Executed notebooks as offline HTML: figures beside the page, alt text, code behind a toggle."""

import html
import re
from contextlib import AbstractContextManager
from pathlib import Path

import nbformat

from lib.reports import ledger
from lib.runs import profiles
from lib.runs.run import SHARED
from lib.system import files, paths

TEMPLATES = Path(__file__).resolve().parent / "templates"
STYLES = "report.css"


def _html(notebook: Path, run: str, profile: str, smoke: bool) -> str:
    """The page of an executed notebook. Figures lie beside it; styles still stand in it."""
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    content = nbformat.read(notebook, as_version=4)
    content.metadata.pop("widgets", None)  # or the page would ask the network for the widget manager
    content.metadata["title"] = _title(content, run)
    for cell in content.cells:  # progress is for whoever waited; the executed notebook keeps it
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_input_tags = {"hide-input"}
    config.TagRemovePreprocessor.remove_cell_tags = {
        "hide-cell",
        "interactive",
        "parameters",
        "injected-parameters",  # the run card shows the parameters
    }
    exporter = HTMLExporter(config=config, template_name="study", extra_template_basedirs=[str(TEMPLATES)])
    about = {"run": run, "profile": profile, "smoke": smoke, "commit": ledger.commit_told(profile, run)}
    text, _ = exporter.from_notebook_node(content, resources={"study": about, "metadata": {"name": content.metadata["title"]}})
    return text


def _styled(page: str, folder: Path) -> str:
    """The page with nbconvert's own style sheets in a file below `folder` that the pages of all profiles share."""
    found = list(re.finditer(r'<style type="text/css">(.*?)</style>\n?', page, re.DOTALL))
    for i, m in enumerate(reversed(found)):
        link = f'<link rel="stylesheet" href="../{SHARED}/{STYLES}">\n' if i == len(found) - 1 else ""
        page = page[: m.start()] + link + page[m.end() :]
    if found:
        files.write_bytes(folder / SHARED / STYLES, "\n".join(m[1] for m in found).encode())
    return page


def _title(content: nbformat.NotebookNode, run: str) -> str:
    for cell in content.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            return cell.source.splitlines()[0][2:]
    return run


def page(run: str, profile: str) -> Path:
    return paths.figures(profile) / ("index.html" if run == profiles.LEDGER else f"{run}.html")


def render(run: str, profile: str) -> Path:
    """Write the report of a finished run; returns its path.

    Raises RuntimeError where the run has not finished.
    """
    folder = paths.results(profile, run)
    record = files.read_json(folder / "run.json")
    if record is None:
        gone = f"{folder / 'run.json'} is missing or damaged"
        raise RuntimeError(f"{run} has not finished under profile {profile}: {gone}. Run it first.")
    missing = [f["file"] for f in ledger.shown_figures(profile, run) if not (paths.figures(profile) / f["file"]).exists()]
    if missing:
        raise RuntimeError(f"{run}: {', '.join(missing)} missing below {paths.figures(profile)}; run it again to draw them")
    # a smoke run with changed parameters is a smoke run still
    smoke = record["parameters"]["profile"] == "smoke"
    target = page(run, profile)
    text = _styled(_html(folder / "executed.ipynb", run, profile, smoke), target.parents[1])
    with _pages(profile):
        files.write_bytes(target, text.encode())
    return target


def _pages(profile: str) -> AbstractContextManager[None]:
    """Whoever writes pages of a profile does so alone."""
    return files.locked(paths.results(profile, profiles.LEDGER) / "pages")


COMMIT = re.compile(r'(?<=<span class="study-commit">).*?(?=</span>)')


def stamp(profile: str) -> None:
    """Bring what all pages of a profile say of its commits up to date."""
    with _pages(profile):
        for run in (profiles.LEDGER, *ledger.records(profile)):
            target = page(run, profile)
            if target.exists():
                text = target.read_text(encoding="utf-8")
                told = html.escape(ledger.commit_told(profile, run))
                now = COMMIT.sub(lambda _, told=told: told, text, count=1)
                if now != text:
                    files.write_bytes(target, now.encode())
