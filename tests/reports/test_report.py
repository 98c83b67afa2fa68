"""What people read: offline pages with alt text, an index that is true, a watermark on smoke runs."""

import json
import re
from html.parser import HTMLParser

import nbformat
import pandas as pd
import pytest

from lib.claims import claim, intervals
from lib.claims.claim import Rule
from lib.claims.court import Court
from lib.reports import index as index_
from lib.reports import ledger, pages
from lib.runs import profiles
from lib.studies.parameters import Parameters
from lib.system import files, paths


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.images, self.links, self.loads = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "img":
            self.images.append(found)
        if tag == "a":
            self.links.append(found.get("href", ""))
        if tag in ("script", "iframe", "link", "img"):
            self.loads.append(found.get("src") or (found.get("href") if tag == "link" else None) or "")


def problems(path) -> list[str]:
    """What keeps a page from being read offline, or by somebody who cannot see its figures."""
    page, found = Page(path.read_text()), []
    found += [f"asks for {u}" for u in page.loads if re.match(r"(https?:)?//", u)]
    for image in page.images:
        if not image.get("alt", "").strip() or "No description" in image["alt"]:
            found.append(f"no alt text: {image.get('src', '')[:60]}")
        source = image.get("src", "")
        if not source.startswith("data:") and not (path.parent / source).exists():
            found.append(f"missing figure {source}")
    found += [
        f"dead link {u}"
        for u in page.links
        if not re.match(r"(#|https?:|mailto:)", u) and not (path.parent / u.split("#")[0]).exists()
    ]
    return found


RUN = "01-attention-shift"


def finish(run=RUN, profile="laptop", verdicts=("up", "down"), widget=False):
    """A run that has finished, with a small notebook in the place of the real one."""
    v = nbformat.v4
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    figures = paths.figures(profile) / run
    files.write_bytes(figures / "a.png", b"png")
    shown = v.new_output(
        "display_data", {"image/png": png}, metadata={"image/png": {"alt": 'A "quoted" figure', "file": f"{run}/a.png"}}
    )
    inline = v.new_output("display_data", {"image/png": png}, metadata={"image/png": {"alt": "inline"}})
    cells = [
        v.new_markdown_cell("# A title"),
        v.new_code_cell("show()", outputs=[shown, inline]),
        v.new_code_cell(
            "secret_widget()", metadata={"tags": ["interactive"]}, outputs=[v.new_output("stream", text="a widget")]
        ),
        v.new_code_cell("hidden_input()", metadata={"tags": ["hide-input"]}, outputs=[v.new_output("stream", text="shown")]),
    ]
    content = v.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    if widget:
        content.metadata["widgets"] = {
            "application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2, "version_minor": 0}
        }
    folder = paths.results(profile, run)
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(content, folder / "executed.ipynb")
    court = Court(run[:2], Parameters(), test=profile != "smoke", over=20)
    for name in verdicts:
        court.add(
            name,
            "claim",
            f"It goes {name}",
            lambda i, s, n=name: 1.0 if n == "up" else -1.0,
            Rule("above", 0),
            statistic="x",
            source="y",
        )
    files.write_bytes(figures / "claims.csv", claim.table(court.rows).to_csv(index=False).encode())
    files.write_json(figures / "figures.json", [{"file": f"{run}/a.png", "alt": "A figure", "hero": True}])
    record = {
        "run": run,
        "profile": profile,
        "seconds": 1.0,
        "started": "2026-01-01T00:00",
        "parameters": {"eps": [0.1], "profile": profile},
        "versions": {},
    }
    files.write_json(folder / "run.json", record)
    files.write_json(figures / "run.json", record)


@pytest.mark.parametrize("widget", [False, True])
def test_a_report_is_offline_with_alt_text_and_code_behind_a_toggle(home, widget):
    finish(widget=widget)
    path = index_.publish(RUN, "laptop")
    assert problems(path) == []
    text = path.read_text()
    shown = [(i["src"], i["alt"]) for i in Page(text).images if not i["src"].startswith("data:")]
    assert shown == [("01-attention-shift/a.png", 'A "quoted" figure')]
    assert "<summary>Code</summary>" in text and "secret_widget" not in text and "a widget" not in text
    assert "hidden_input" not in text and "shown" in text
    assert "<title>A title</title>" in text and 'href="index.html"' in text
    assert "unpkg" not in text and "cdnjs" not in text
    assert len(text) < 200_000 and 'href="report.css"' in text
    assert ".jp-RenderedHTMLCommon" in (path.parent / "report.css").read_text()  # the styles that all pages share


def test_problems_are_found_where_there_are_some(home):
    """The check itself can fail."""
    bad = home / "bad.html"
    bad.write_text('<script src="https://cdn.x/y.js"></script><img src="gone.png" alt=""><a href="nowhere.html">x</a>')
    assert len(problems(bad)) == 4


def test_the_index_shows_what_has_finished_and_what_has_not(home):
    finish(verdicts=("up", "down"))
    index_.publish(RUN, "laptop")
    index = paths.figures("laptop") / "index.html"
    assert problems(index) == []
    text = index.read_text()
    assert "1 supported, 1 contradicted, 0 inconclusive" in text and f"{RUN}.html" in text and "It goes up" in text
    table = pd.read_csv(paths.figures("laptop") / "claims.csv", dtype={"study": str})
    assert list(table.columns) == list(claim.COLUMNS) and table.verdict.to_list() == ["supported", "contradicted"]
    # another study finishes: the index follows; nothing new: it is left alone
    finish("02-other", verdicts=("up",))
    before = index.stat().st_mtime_ns
    index_.index("laptop")
    assert index.stat().st_mtime_ns > before and "02-other.html" in index.read_text()
    before = index.stat().st_mtime_ns
    index_.index("laptop")
    assert index.stat().st_mtime_ns == before


def test_an_index_without_any_study_says_so(home):
    text = index_.index("laptop").read_text()
    assert "not run yet" in text and "No study has finished yet" in text


def test_deviations_are_collected_from_comments_and_shown(home, tmp_path):
    (tmp_path / "a.py").write_text(
        '"""# deviation: no comment."""\nx = 1  # deviation: beside code\n'
        "def f():\n    # deviation: one <thing>;\n    # another.\n    return x\n"
        "# deviation: last\n# deviation: and least\n# end\n"
    )
    rows = ledger.deviations(tmp_path).to_numpy().tolist()
    assert rows == [["a.py", 4, "one <thing>; another."], ["a.py", 7, "last"], ["a.py", 8, "and least end"]]
    found = ledger.deviations()
    assert {"fooling/manipulation.py", "attacks/unforeseen.py"} <= set(found.file) and len(found) > 30
    assert found.text.str.endswith(".").all() and not found.duplicated("text").any()
    lines = (paths.PROJECT / "lib" / found.file[0]).read_text().splitlines()
    assert lines[found.line[0] - 1].strip().startswith(ledger.DEVIATION)
    text = index_.index("laptop").read_text()
    assert found.text[0] in text


def test_deviations_decide_the_index(home, monkeypatch):
    before = ledger.signature("laptop")
    monkeypatch.setattr(ledger, "deviations", lambda: pd.DataFrame([["a.py", 1, "new."]], columns=["file", "line", "text"]))
    assert ledger.signature("laptop") != before


def test_the_closing_lines(home, capsys):
    finish()
    index_.index("laptop")
    pages.tell("laptop")
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "01 Attention shift: 1 supported, 1 contradicted, 0 inconclusive",
        str(paths.figures("laptop") / "index.html"),
    ]


def test_smoke_is_watermarked_and_judges_nothing(home):
    finish(profile="smoke")
    path = index_.publish(RUN, "smoke")
    assert "Nothing here is a result" in path.read_text()
    assert set(ledger.all_claims("smoke").verdict) == {"not tested"}
    finish()
    assert "Nothing here is a result" not in index_.publish(RUN, "laptop").read_text()


def test_an_unfinished_run_has_no_report(home):
    with pytest.raises(RuntimeError, match="has not finished under profile laptop"):
        index_.publish(RUN, "laptop")


COMMITTED = [p for profile in ("laptop", "datasets") for p in sorted((paths.PROJECT / "figures" / profile).glob("*.html"))]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_committed_reports_are_offline_with_alt_text(path):
    assert problems(path) == []
    assert "Nothing here is a result" not in path.read_text()


@pytest.mark.parametrize("profile", ["laptop", "datasets"])
def test_committed_figures_are_whole_and_small(profile):
    folder = paths.PROJECT / "figures" / profile
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 12 * 2**20
    index = pd.read_csv(folder / "claims.csv", dtype={"study": str})
    assert list(index.columns) == list(claim.COLUMNS) and set(index.verdict) <= {
        "supported",
        "contradicted",
        "inconclusive",
        "not tested",
    }
    for run in profiles.declared_runs(profile):
        own = pd.read_csv(folder / run / "claims.csv", dtype={"study": str})
        assert set(own.id) <= set(index.id[index.study == run[:2]])
        record = json.loads((folder / run / "run.json").read_text())
        # the committed results are those of the profile as it stands
        assert record["parameters"] == profiles.parameters(run, profile).model_dump(mode="json")
        for row in own.itertuples():  # verdicts follow from the rule that stands beside them
            kind, threshold = re.search(r"lies (above|below|inside) ±?(-?[\d.e-]+)", row.rule).groups()
            rule = Rule({"inside": "within"}.get(kind, kind), float(threshold))
            if row.verdict == "not tested":
                assert isinstance(row.note, str) and row.note, f"{row.id} must say why it was not tested"
                continue
            assert rule.judge(intervals.Interval(row.value, row.ci_low, row.ci_high, "")) == row.verdict, row.id
