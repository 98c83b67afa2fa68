"""What people read: offline pages with alt text, an index that is true, a watermark on smoke runs."""

import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pandas as pd
import pytest

from lib.claims import claim, intervals
from lib.figures import packed
from lib.reports import browse, ledger, pages, report
from lib.reports import index as index_
from lib.runs import profiles
from lib.system import files, paths
from tests.reports.finished import RUN, finish, ledger_in_process, outdate


@pytest.fixture
def quick(home, monkeypatch):
    """The index's notebook runs in this process, which takes no kernel to start."""
    monkeypatch.setattr(index_.headless, "execute", ledger_in_process)
    return home


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.images, self.links, self.loads, self.ids = [], [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids.add(found.get("id", found.get("name", "") if tag == "a" else ""))
        if tag == "img":
            self.images.append(found)
        if tag == "a":
            self.links.append(found.get("href", ""))
        if tag in ("script", "iframe", "link", "img"):
            self.loads.append(found.get("src") or (found.get("href") if tag == "link" else None) or "")


def read(path) -> str:
    """A page with what stands in it packed."""
    text = path.read_text()
    return text + (packed.held(text, browse.ROWS) if f'id="{browse.ROWS}"' in text else "")


def problems(path) -> list[str]:
    """What keeps a page from being read offline, or by somebody who cannot see its figures."""
    page, found = Page(read(path)), []
    found += [f"asks for {u}" for u in page.loads if re.match(r"(https?:)?//", u)]
    for image in page.images:
        if not image.get("alt", "").strip() or "No description" in image["alt"]:
            found.append(f"no alt text: {image.get('src', '')[:60]}")
        source = image.get("src", "")
        if not source.startswith("data:") and not (path.parent / source).exists():
            found.append(f"missing figure {source}")
    ids = {path: page.ids}
    for link in page.links:
        file, _, place = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if re.match(r"(https?:|mailto:)", link):
            continue
        if not target.exists():
            found.append(f"dead link {link}")
        elif place and target.suffix == ".html":
            if target not in ids:
                ids[target] = Page(target.read_text()).ids
            if unquote(place) not in ids[target]:
                found.append(f"no such place {link}")
    return found


@pytest.mark.parametrize("widget", [False, True])
def test_a_report_is_offline_with_alt_text_and_code_behind_a_toggle(quick, widget):
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
    assert len(text) < 100_000 and 'href="../assets/report.css"' in text
    assert 'id="figure-a"' in text  # where the ledger leads
    styles = path.parents[1] / "assets" / "report.css"  # those that all pages share
    assert ".jp-RenderedHTMLCommon" in styles.read_text()


def test_problems_are_found_where_there_are_some(home):
    """The check itself can fail."""
    bad = home / "bad.html"
    bad.write_text(
        '<script src="https://cdn.x/y.js"></script><img src="gone.png" alt=""><a href="nowhere.html">x</a><a href="#z">'
    )
    assert len(problems(bad)) == 5


def test_the_index_shows_what_has_finished_and_what_has_not(home, monkeypatch):
    finish()
    index_.publish(RUN, "laptop")
    index = paths.figures("laptop") / "index.html"
    assert problems(index) == []
    text = read(index)
    assert "1 supported, 1 contradicted, 0 negligible, 0 inconclusive" in text and "It goes up &lt;here&gt;" in text
    assert f'href="{RUN}.html#figure-a"' in text and f'href="{RUN}.html#claim-down"' in text and f'id="run-{RUN}"' in text
    assert text.index(">Gallery<") < text.index(">Ledger<") < text.index('id="ledger"')
    table = pd.read_csv(paths.figures("laptop") / ledger.CLAIMS, dtype={"study": str})
    assert list(table.columns) == list(claim.COLUMNS) and table.verdict.to_list() == ["supported", "contradicted"]
    # another study finishes: the index follows; nothing new: it is left alone
    monkeypatch.setattr(index_.headless, "execute", ledger_in_process)
    finish("02-other", made=("up",))
    before = index.stat().st_mtime_ns
    index_.index("laptop")
    assert index.stat().st_mtime_ns > before and "02-other.html" in index.read_text()
    before = index.stat().st_mtime_ns
    index_.index("laptop")
    assert index.stat().st_mtime_ns == before


def test_an_index_without_any_study_says_so(quick):
    text = index_.index("laptop").read_text()
    assert "not run yet" in text and "No study has finished yet" in text


def test_deviations_are_collected_from_comments_and_shown(quick, tmp_path):
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


def test_the_closing_lines(quick, capsys):
    finish()
    index_.index("laptop")
    pages.tell("laptop")
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "01 Attention shift: 1 supported, 1 contradicted, 0 negligible, 0 inconclusive",
        str(paths.figures("laptop") / "index.html"),
    ]


def test_claims_of_an_older_version_are_refused_and_the_others_shown(quick, capsys):
    finish()
    finish("02-other", made=("up",))
    outdate()
    with pytest.raises(
        ValueError, match=f"laptop/{RUN}/claims.csv is of another version .it lacks p, adjusted.; judge it anew"
    ):
        ledger.claims_of("laptop", RUN)
    text = read(index_.index("laptop"))
    assert f"of an older version: {RUN} of profile laptop. To judge them anew: make report PROFILE=laptop" in text
    row = '<tr><td><a href="#run-{}">'
    assert row.format(RUN) not in text and row.format("02-other") in text
    assert ledger.all_claims("laptop").study.to_list() == ["02"]
    pages.tell("laptop")
    assert "make report PROFILE=laptop" in capsys.readouterr().out.splitlines()[0]
    # where nothing is of this version, the old table stays
    outdate("02-other")
    before = (paths.figures("laptop") / ledger.CLAIMS).read_bytes()
    assert "all runs of profile laptop" in index_.index("laptop").read_text()
    assert (paths.figures("laptop") / ledger.CLAIMS).read_bytes() == before != b""


def test_verdicts_that_there_are_none_are_refused(home):
    finish()
    path = paths.figures("laptop") / RUN / "claims.csv"
    path.write_text(path.read_text().replace("contradicted,", "refuted,"))
    with pytest.raises(ValueError, match="another version"):
        ledger.claims_of("laptop", RUN)


def test_all_pages_say_one_commit_or_that_they_differ(quick):
    def told():
        pages_ = [report.page(run, "laptop").read_text() for run in (profiles.LEDGER, RUN, "02-other")]
        return [report.COMMIT.search(p)[0] for p in pages_]

    finish()
    finish("02-other")
    index_.publish(RUN, "laptop", with_index=False)
    index_.publish("02-other", "laptop")
    assert told() == ["All results of this profile: commit abc123", *["Commit abc123, as all results of this profile"] * 2]
    finish("02-other", commit="def456")
    index_.publish("02-other", "laptop")
    index, first, second = told()
    assert index == f"The results of this profile come from 2 commits: abc123 ({RUN}); def456 (02-other)"
    assert first == "Commit abc123, other results of this profile have others" and second.startswith("Commit def456, other")
    finish("03-third", commit="def456")  # of many runs, those that are an exception are named
    report.stamp("laptop")
    assert told()[0] == f"The results of this profile come from 2 commits: abc123 ({RUN}); def456 (the other 2)"
    index, first, second = told()
    # what somebody computed since is not what stands beside the page, where figures were fetched anew
    record = files.read_json(paths.results("laptop", RUN) / "run.json")
    files.write_json(paths.results("laptop", RUN) / "run.json", record | {"commit": "fed987"})
    report.stamp("laptop")
    assert told() == [index, first, second]


def test_the_index_follows_other_profiles(home):
    """It shows their results beside its own."""
    finish()
    before = ledger.signature("laptop")
    finish(profile="smoke")
    assert ledger.signature("laptop") == before  # which judges nothing
    finish(profile="datasets")
    assert ledger.signature("laptop") != before


def test_smoke_is_watermarked_and_judges_nothing(quick):
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


def test_committed_figures_are_small():
    """12 MiB a profile: what one spares the other may take."""
    sizes = {}
    for place in ("laptop", "datasets", "assets"):
        sizes[place] = sum(f.stat().st_size for f in (paths.PROJECT / "figures" / place).rglob("*") if f.is_file())
    assert 0 < sizes["laptop"] < 12 * 2**20 and sizes["datasets"] > 0 and sum(sizes.values()) < 24 * 2**20


@pytest.mark.parametrize("profile", ["laptop", "datasets"])
def test_committed_figures_are_whole(profile):
    folder = paths.PROJECT / "figures" / profile
    older = ledger.outdated(profile)
    index = pd.read_csv(folder / ledger.CLAIMS, dtype={"study": str})
    for run in profiles.declared_runs(profile):
        if not (folder / run).exists() and (older or profile != "laptop"):  # of public data, what has been run is there
            continue
        own = pd.read_csv(folder / run / "claims.csv", dtype={"study": str, "note": str})
        record = json.loads((folder / run / "run.json").read_text())
        if run in older:  # what an older version judged is shown as it is, until it is judged anew
            continue
        assert list(index.columns) == list(claim.COLUMNS) and set(own.id) <= set(index.id[index.study == run[:2]])
        # the committed results are those of the profile as it stands; what was no parameter then is as it is unless named
        then = profiles.validated(profiles.parameters_of(run), record["parameters"])
        assert then == profiles.parameters(run, profile)
        for row in own.itertuples():
            assert not follows(row), (row.id, follows(row))


def follows(row) -> str:
    """What is wrong with a row's verdicts, which follow from the rule, the interval, the gates and p; empty if nothing."""
    kind, threshold = re.search(r"lies (above|below|inside) ±?(-?[\d.e-]+)", row.rule).groups()
    rule = claim.Rule({"inside": "within"}.get(kind, kind), float(threshold))
    delta = re.search(r"negligible if it lies inside ±([\d.e-]+)", row.rule)
    if row.verdict == "not tested":
        return "" if isinstance(row.note, str) and row.note else "must say why it was not tested"
    if row.verdict == "not testable here":
        return "" if "gate: " in str(row.note) else "must say which gate failed"
    found = rule.judge(intervals.Interval(row.value, row.ci_low, row.ci_high, ""), float(delta[1]) if delta else 0.0)
    if row.verdict == "one network":
        return "" if "1 seed" in row.n or "one network" in row.n else "rests on more than one network"
    if found != row.verdict:
        return f"the rule gives {found}"
    if row.adjusted not in (row.verdict, "inconclusive") or (row.kind == "check" and row.adjusted != row.verdict):
        return f"{row.adjusted} cannot come of it"
    return "decided with a p above .05" if row.adjusted in claim.DECIDED and row.p > 0.05 and row.kind != "check" else ""


def test_the_index_waits_for_a_run_that_begins_anew(home, monkeypatch, capsys):
    """A file that goes away while the index reads it is no failure of the page that was written."""
    finish()
    missing = paths.figures("laptop") / "02-other" / "run.json"

    def gone(_profile):
        raise FileNotFoundError(2, "No such file", str(missing))

    monkeypatch.setattr(index_, "index", gone)
    assert index_.publish(RUN, "laptop").exists()
    assert f"the index stays as it was for now: {missing} is being made anew" in capsys.readouterr().err
    missing = home / "template.j2"  # no run's: that is a fault
    with pytest.raises(FileNotFoundError):
        index_.publish(RUN, "laptop")
