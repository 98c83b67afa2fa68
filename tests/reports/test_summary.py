"""The first page: papers, their claims side by side, marks, and why runs disagree."""

import re
import tomllib
from types import SimpleNamespace

import pytest

from lib.claims import claim
from lib.claims.court import ALONE
from lib.reports import browse, ledger, pages, primaries, readme, summary
from lib.runs import profiles, shown
from lib.system import paths
from tests.reports.finished import RUN, claims, finish

IDS = ("mod-rises", "region-moves", "flipped-move-more", "deep-keeps-more", "plain-most-stable")


def run(values, run=RUN, profile="laptop", gates=(), dataset="shapes", **options):
    """Study 1 with its primaries become what VALUES say; None: it is not there."""
    made = [f"{id}={value}" for id, value in zip(IDS, values, strict=True) if value]
    finish(
        run,
        profile,
        made,
        gates=gates,
        primaries=IDS,
        parameters={"dataset": dataset, **options.pop("parameters", {})},
        **options,
    )


@pytest.fixture
def two(home):
    """Drawn shapes and faces: one claim alike, one that they decide differently, one gated, one open, one that one lacks."""
    run(("up", "up", "up", "open", "nothing"))
    run(("up", "down", "up", "up", None), profile="datasets", dataset="folder:orl_faces", gates=IDS[2:3])
    return home


def test_a_paper_has_its_claims_in_order_and_a_column_a_run(two):
    (paper,) = primaries.papers(["laptop", "datasets"])
    assert paper.number == "01" and paper.title.startswith("Attention shift: where") and "CVPRW 2022" in paper.reference
    assert [(c.data, c.embedded, c.theirs) for c in paper.columns] == [
        ("drawn shapes", True, False),
        ("ORL faces", False, False),
    ]
    verdicts = [[c.row.adjusted if c.row is not None else None for c in line.cells] for line in paper.lines]
    assert verdicts == [
        ["supported", "supported"],
        ["supported", "contradicted"],
        ["supported", "not testable here"],
        ["inconclusive", "supported"],
        ["negligible", None],
    ]


def test_why_runs_disagree_is_computed_from_their_rows(two):
    (paper,) = primaries.papers(["laptop", "datasets"])
    alike, differ, gated, open_, alone = (line.why for line in paper.lines)
    assert alike == alone == ()
    assert differ == ("supported on drawn shapes, contradicted on ORL faces: other data",)
    gate = "the network is right on half of the clean images (above 0.5 asked, 0.26 found)"
    assert gated == (f"ORL faces: {gate}",)
    assert len(open_) == 1 and open_[0].startswith("drawn shapes: too few runs or images, would be settled by about ")
    assert open_[0].endswith(" images")


def test_runs_tell_in_what_they_differ(home):
    run(("up",) * 5, parameters={"epochs": 8})
    run(("down",) * 5, f"{RUN}.other", parameters={"epochs": 9, "architectures": ["plain"]})
    (paper,) = primaries.papers(["laptop"])
    (why,) = paper.lines[0].why
    assert why == "supported on drawn shapes, contradicted on drawn shapes (other): networks (all; plain), epochs (8; 9)"


def test_a_verdict_that_does_not_stand_among_the_others_says_so():
    (row,) = claims(made=("up",)).assign(adjusted="inconclusive", p=0.03).itertuples()
    cell = primaries.Cell(primaries.Column("laptop", RUN, "digits", True, False, {}), row)
    assert cell.reason == "supported on its own (p = 0.03), not once the others are counted"
    one = claims(made=("one=up",))
    assert one.adjusted.to_list() == ["one network"]
    (row,) = one.itertuples()
    told = primaries.why([cell, primaries.Cell(primaries.Column("laptop", RUN, "MNIST", False, False, {}), row)])
    assert [t.partition(":")[0] for t in told] == ["digits", "MNIST"] and "one training run" in told[1]


def test_runs_that_cannot_say_are_listed_with_what_they_lack():
    """Where neither more runs nor more images alone would settle a claim, that is said too."""
    (row,) = claims(made=("open",)).assign(note="").itertuples()
    cells = [
        primaries.Cell(primaries.Column("laptop", RUN, name, True, False, {}), row) for name in ("digits", "MNIST", "faces")
    ]
    assert primaries.why(cells) == ["digits, MNIST and faces: too few runs and images, more of one alone would not settle it"]


def test_the_authors_networks_have_a_column_of_their_own(home):
    published = [f"published/{id}=up" for id in IDS[:2]]
    finish(made=[*(f"{id}=down" for id in IDS), *published], primaries=IDS, parameters={"dataset": "mnist"})
    (paper,) = primaries.papers(["laptop"])
    own, theirs = paper.columns
    assert (own.theirs, theirs.theirs, theirs.told) == (False, True, "MNIST, the authors' networks")
    assert [line.cells[1].row is None for line in paper.lines] == [False, False, True, True, True]
    assert paper.lines[0].why == (
        "supported on MNIST, the authors' networks, contradicted on MNIST: networks that the authors trained",
    )


def test_what_differs_between_sentences_stands_in_the_cells(home):
    run(("up",) * 5, statements={IDS[0]: "Maps move (plain, ring → star)."})
    run(("up",) * 5, profile="datasets", dataset="mnist", statements={IDS[0]: "Maps move (residual, 3 → 8)."})
    (paper,) = primaries.papers(["laptop", "datasets"])
    assert paper.lines[0].statement == "Maps move"
    assert [c.about for c in paper.lines[0].cells] == ["plain, ring → star", "residual, 3 → 8"]
    assert paper.lines[1].statement == "It goes region-moves <here>" and paper.lines[1].cells[0].about == ""


def test_other_words_within_a_sentence_stand_in_the_cells(home):
    run(("up",) * 5, statements={IDS[0]: "The map of PGD 4/255 is sharper than that of the standard network (Sobel)"})
    says = {
        IDS[0]: "The map of PGD 8/255, adv. is sharper than that of the standard network (WResnet, Sobel)",
        IDS[1]: "No word of it",
    }
    run(("up",) * 5, profile="datasets", dataset="mnist", statements=says)
    (paper,) = primaries.papers(["laptop", "datasets"])
    assert [c.about for c in paper.lines[0].cells] == ["", "8/255, adv.; WResnet"]
    assert [c.about for c in paper.lines[1].cells] == ["", "here: No word of it"]  # another sentence altogether


@pytest.mark.parametrize(
    ("said", "alone"),
    [
        ("Deep networks keep more than a wide one", False),  # "a; one"
        ("Deep networks do (of WResnet) keep more than wide ones", False),  # "do (of WResnet"
        ("Deep networks keep more than wide ones published for ImageNet", True),
        ("Deep networks keep more", None),  # nothing of its own
    ],
)
def test_words_that_say_nothing_alone_are_not_taken_out_of_their_sentence(said, alone):
    told = primaries._otherwise(said, "Deep networks keep more than wide ones")
    assert told == {None: "", False: f"here: {said}", True: "published for ImageNet"}[alone]


def test_a_control_stands_beside_the_verdict_that_must_be_read_with_it(home):
    """Study 1 names one for its third claim; on both pages, with a link to it."""
    made = [*(f"{id}=up" for id in IDS), "more-than-class-change=down"]
    finish(made=made, primaries=IDS, parameters={"dataset": "shapes"})
    run(("up",) * 5, profile="datasets", dataset="mnist")  # where the run has no such control, nothing stands there
    (paper,) = primaries.papers(["laptop", "datasets"])
    besides = [[c.beside for c in line.cells] for line in paper.lines]
    assert besides[2][0].row.id == "more-than-class-change" and sum(b is not None for row in besides for b in row) == 1
    words = "moved farther than by explaining the new class on the clean image: "
    assert f"<br><sub>{words}✘ -1.00 [" in summary.summary_markdown(["laptop", "datasets"])
    told = f'{words}<a href="01-attention-shift.html#claim-more-than-class-change">{shown.verdict_html("contradicted")}</a>'
    assert told in summary.summary_html("laptop")


def test_claims_that_no_publication_makes_say_whose_they_are(home):
    run(("up",) * 5)
    path = paths.figures("laptop") / RUN / "claims.csv"
    table = ledger.claims_of("laptop", RUN)
    table.loc[table.id == IDS[0], "source"] = "a question of this study"
    path.write_text(table.to_csv(index=False))
    assert "5 claims that a reader would name, 4 of them published" in summary.summary_html("laptop")
    assert summary.summary_markdown(["laptop"]).count("; a question of this study</sub>") == 1


def test_what_is_measured_otherwise_stands_in_the_cell(home):
    run(("up",) * 5)
    run(("up",) * 5, profile="datasets", dataset="mnist")
    path = paths.figures("datasets") / RUN / "claims.csv"
    table = ledger.claims_of("datasets", RUN)
    table.loc[table.id == IDS[0], "statistic"] = "mean at eps 4"
    path.write_text(table.to_csv(index=False))
    (paper,) = primaries.papers(["laptop", "datasets"])
    assert [c.statistic for c in paper.lines[0].cells] == ["", "mean at eps 4"]
    assert "<sub>mean at eps 4</sub>" in summary.summary_markdown(["laptop", "datasets"])
    assert "<small>mean at eps 4</small>" in summary.summary_html("laptop")


def test_runs_on_the_same_data_are_told_apart_by_their_networks(home):
    rows = list(claims(made=("mod-rises=up",)).itertuples())
    found = [
        (primaries.Column("datasets", f"02-at-cnn.{arch}", "CIFAR-10", False, False, {"arch": arch}), rows)
        for arch in ("small", "wresnet")
    ]
    assert [c.name for c, _ in primaries._apart(found)] == ["CIFAR-10 (small)", "CIFAR-10 (wresnet)"]


def test_what_tells_runs_apart_does_not_repeat_their_data(home):
    rows = list(claims(made=("mod-rises=up",)).itertuples())
    given = (
        ("ORL faces", ""),
        ("ORL faces", "faces-published"),
        ("photographs", "photographs"),
        ("photographs", "photographs-black-box"),
    )
    found = [
        (primaries.Column("datasets", f"{RUN}.{variant}", data, False, False, {"variant": variant}), rows)
        for data, variant in given
    ]
    names = [c.name for c, _ in primaries._apart(found)]
    assert names == ["ORL faces", "ORL faces (published)", "photographs", "photographs (black box)"]


def test_more_training_runs_on_the_same_data_are_a_column_of_their_own(home):
    """Named after the variant; where it decides otherwise, the data are no reason and the number of runs is one."""
    run(("up", None, None, None, None), parameters={"seeds": 3})
    run(("down", None, None, None, None), f"{RUN}.ten-runs", "datasets", parameters={"seeds": 10})
    (paper,) = primaries.papers(["laptop", "datasets"])
    assert [(c.name, c.embedded) for c in paper.columns] == [("drawn shapes", True), ("drawn shapes (ten runs)", True)]
    (reason,) = paper.lines[0].why
    assert reason == "supported on drawn shapes, contradicted on drawn shapes (ten runs): training runs (3; 10)"
    assert "[drawn shapes (ten runs)](figures/datasets/01-attention-shift.ten-runs.html)" in summary.summary_markdown(
        ["laptop", "datasets"]
    )
    # of some networks alone more than of the others
    assert primaries._setting({"seeds": 3, "runs": [["int", 10], ["adv", 5]]}, "seeds") == 10
    assert primaries._setting({"seeds": 3, "runs": []}, "seeds") == 3 and primaries._setting({}, "seeds") is None


def test_a_gate_is_told_without_the_notes_behind_it():
    (row,) = claims(made=("up",)).assign(adjusted="not testable here", note=f"gate: it holds (1 asked); {ALONE}").itertuples()
    assert primaries.Cell(primaries.Column("laptop", RUN, "digits", True, False, {}), row).reason == "it holds (1 asked)"


def test_the_page_says_all_of_it_with_words_and_links(two):
    text = summary.summary_html("laptop")
    assert 'href="../datasets/01-attention-shift.html#claim-mod-rises"' in text
    assert 'href="01-attention-shift.html#claim-region-moves"' in text
    assert 'aria-label="3 supported, 1 negligible, 1 inconclusive"' in text
    assert 'href="https://arxiv.org/abs/2204.05427"' in text and "&lt;here&gt;" in text and "<here>" not in text
    assert "not part of this run" in text and "1 study judges 5 claims that a reader would name, 5 of them published" in text
    # on the other profile's index the same, with links from there
    assert 'href="../laptop/01-attention-shift.html#claim-mod-rises"' in summary.summary_html("datasets")


def test_links_lead_from_the_notebook_where_it_is_run_by_hand(two):
    """And from the page where that is made; those to other sites, to places of the page and of scripts stay."""
    text = summary.summary_html("laptop") + '<img class="x" src="a/b.png"><script src="s.js"></script>'
    in_page, by_hand = (SimpleNamespace(by_hand=b, parameters=SimpleNamespace(profile="laptop")) for b in (False, True))
    assert pages.placed(text, in_page) == text
    placed = pages.placed(text, by_hand)
    for link in re.findall(r'<(?:a|img)[^>]* (?:href|src)="([^"#:]+)[^":]*"', placed):
        folder = (paths.notebooks() / link).resolve()
        assert folder.is_relative_to(paths.figures("laptop").parent.resolve()), link
    for kept in ('href="https://arxiv.org/abs/2204.05427"', 'href="#paper-', '<script src="s.js">'):
        assert kept in placed
    assert placed.count("b.png") == 1 and 'src="a/b.png"' not in placed


def test_verdicts_count_once_the_others_are_and_the_nominal_ones_stand_beside(home):
    run(("up",) * 5)
    path = paths.figures("laptop") / RUN / "claims.csv"
    table = ledger.claims_of("laptop", RUN)
    table.loc[table.id == IDS[1], ["p", "adjusted"]] = [0.03, "inconclusive"]
    path.write_text(table.to_csv(index=False))
    told = "supported on its own (p = 0.03), not once the others are counted"
    assert "4 supported, 0 contradicted, 0 negligible, 1 inconclusive" in pages.overview("laptop")
    assert 'aria-label="4 supported, 1 inconclusive"' in summary.summary_html("laptop")
    assert "; claimed: above 0; Some &amp; others 2022<" in summary.summary_html("laptop")
    glance, claims_ = summary.summary_markdown(["laptop"]).split("<details>")
    assert claims_.count("✔") == 4 and claims_.count(" ? ") == 1 and glance.count("✔") == 5  # one of its legend
    for text in (shown.claims_html(ledger.claims_of("laptop", RUN)), browse.ledger_html("laptop", plain=True)):
        assert text.count(">✔ supported</span>") == 4 and told in text
    rules = browse.ledger_html("laptop", plain=True)
    assert rules.count("supported if the 95 % interval lies") == 1 and "<td>above 0, contradicted if below" in rules


def test_the_readme_cites_the_version_that_there_is():
    project = tomllib.loads((paths.PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (paths.PROJECT / "README.md").read_text(encoding="utf-8")
    assert f"version = {{{project['version']}}}" in text and f"author = {{{{{project['authors'][0]['name']}}}}}" in text


def test_smoke_runs_are_beside_nothing_but_their_own(home):
    run(("up",) * 5)
    finish(profile="smoke", made=[f"{id}=up" for id in IDS], primaries=IDS)
    assert ledger.compared("laptop") == ["laptop"] and ledger.compared("smoke") == ["smoke"]
    (paper,) = primaries.papers(["smoke"])
    assert paper.lines[0].why == () and paper.lines[0].cells[0].row.adjusted == "not tested"


def test_where_nothing_is_judged_the_page_says_so(home):
    assert "No primary claim has been judged yet" in summary.summary_html("laptop")
    finish("02-other")  # no study of this project
    assert "No primary claim" in summary.summary_html("laptop")


def test_the_tables_of_the_readme(two):
    """A row a paper with a mark a claim, one that a run lacks included; folded up, a row a claim with its numbers."""
    text = summary.summary_markdown(["laptop", "datasets"])
    glance, folded = (
        [line for line in part.splitlines() if line.startswith("|")]
        for part in text.split("<details>\n<summary>Claim by claim")
    )
    drawn, faces = (f"figures/{p}/01-attention-shift.html" for p in ("laptop", "datasets"))
    marks = [m.replace(" ", "\N{NO-BREAK SPACE}") for m in ("✔ ✔ ✔ ? ≈", "✔ ✘ ⊘ ✔ –")]
    assert glance[0] == "| paper | embedded data | real data |" and text.endswith("\n\n</details>")
    assert glance[2].endswith(f"</sub> | [drawn shapes]({drawn}) {marks[0]} | [ORL faces]({faces}) {marks[1]} |")
    assert glance[3].startswith("| in all | 3 supported, 1 negligible, 1 inconclusive | 2 supported, 1 contradicted, ")
    assert folded[0] == "| claim | embedded data | real data |"
    assert folded[2].endswith(f"** | [drawn shapes]({drawn}) | [ORL faces]({faces}) |")
    measured = r"| It goes mod-rises \<here\><br><sub>mean of mod-rises; claimed: above 0</sub> | ✔ 1.00 ["
    assert folded[3].startswith(measured) and folded[3].count("✔") == 2
    assert "<sub>supported on drawn shapes, contradicted on ORL faces: other data</sub>" in folded[4] and "✘" in folded[4]
    assert folded[7].endswith("| – |")
    assert all(row.count("|") - row.count(r"\|") == 4 for row in [*glance, *folded])


def test_a_readme_without_the_markers_is_refused_and_one_with_them_brought_up_to_date(two):
    with pytest.raises(ValueError, match="put the lines <!-- what holds"):
        readme.current("# A title\n")
    text = f"# A title\n{readme.BEGIN}\nold\n{readme.END}\nmore\n"
    now = readme.current(text)
    assert (
        "\nold\n" not in now and now.startswith("# A title\n") and now.endswith(f"{readme.END}\nmore\n") and "ORL faces" in now
    )
    assert readme.current(now) == now


def test_the_readme_is_left_alone_where_there_is_nothing_to_say(home, monkeypatch):
    before = (paths.PROJECT / "README.md").read_bytes()
    with pytest.raises(ValueError, match=r"README\.md tells of the project's own results; STUDY_HOME is"):
        readme.write()
    monkeypatch.setattr(paths, "PROJECT", home)  # a checkout without results
    (home / "README.md").write_text(f"{readme.BEGIN}\nold\n{readme.END}\n")
    with pytest.raises(ValueError, match=r"no finished run of laptop or datasets below .*; run `make report` first"):
        readme.write()
    monkeypatch.undo()
    assert (paths.PROJECT / "README.md").read_bytes() == before


def test_the_readme_is_current(monkeypatch):
    """Of the committed results: `make readme` would change nothing."""
    monkeypatch.delenv("STUDY_HOME", raising=False)
    text = (paths.PROJECT / "README.md").read_text(encoding="utf-8")
    assert readme.current(text) == text, "make readme"


@pytest.mark.parametrize("profile", readme.COMMITTED)
def test_every_primary_of_a_committed_run_is_on_the_page(monkeypatch, profile):
    monkeypatch.delenv("STUDY_HOME", raising=False)
    shown_ids = {c.row.id for p in primaries.papers([profile]) for line in p.lines for c in line.cells if c.row is not None}
    for run, table in ledger.tables(profile).items():
        assert set(table.id[table.kind == "primary"]) <= shown_ids, run


def test_figures_of_committed_runs_show_claims_that_there_are(monkeypatch):
    """What a figure names is the beginning of some claim's id, in some run of its study."""
    monkeypatch.delenv("STUDY_HOME", raising=False)
    ids, named = {}, {}
    for profile in readme.COMMITTED:
        for run, table in ledger.tables(profile).items():
            ids.setdefault(run[:2], set()).update(table.id)
            for figure in ledger.shown_figures(profile, run):
                named.setdefault(run[:2], set()).update(figure.get("claims", ()))
    assert {(n, b) for n, found in named.items() for b in found if not any(ledger.shows(b, i) for i in ids[n])} == set()


def test_a_figure_shows_claims_by_the_beginnings_of_their_ids():
    figures = [
        {"file": "01/a.png", "claims": ["up", "more-*"]},
        {"file": "01/b.png", "claims": ["more-x"]},
        {"file": "01/c.png"},
    ]
    found = {id: ledger.figure_of(figures, id) for id in ("up", "up/plain@faces", "upper", "more-x/y@z", "less")}
    assert found == {"up": "a", "up/plain@faces": "a", "upper": "", "more-x/y@z": "a", "less": ""}


@pytest.mark.parametrize(
    ("value", "low", "high", "told"),
    [
        (0.31234, 0.2512, 0.3711, "0.312 [0.251, 0.371]"),
        (-0.0004, -0.26, 0.2572, "0.00 [-0.26, 0.26]"),
        (12.34, 3.0, 21.0, "12.3 [3.0, 21.0]"),
        (1.48e-7, 1.2e-7, 1.75e-7, "1.48e-07 [1.2e-07, 1.75e-07]"),
        (1.0, 1.0, 1.0, "1"),
        (0.5, float("nan"), float("nan"), "0.5"),
        (1234.5, 900.0, 1600.0, "1.23e+03 [900, 1.6e+03]"),
    ],
)
def test_numbers_have_the_digits_of_their_intervals(value, low, high, told):
    assert shown.number(value, low, high).replace("\N{NO-BREAK SPACE}", " ") == told


def test_a_run_shows_its_claims_in_three_tables_with_anchors():
    table = claims(made=("main=up", "up", "sum=up", "gated/a>b=up"), gates=("gated/a>b",), primaries=("main",))
    text = shown.claims_html(table)
    captions = [text.index(c) for c in ("Primary claims", "Further claims", "Checks: identities")]
    assert captions == sorted(captions) and text.count("<caption>") == 3
    assert 'id="claim-gated/a&gt;b"' in text and shown.anchor("gated/a>b") == "#claim-gated%2Fa%3Eb"
    assert "⊘ not testable here" in text and "gate: the network is right on half" in text
    assert set(shown.MARKS) == set(shown.MEANS) == set(claim.Verdict.__args__) and set(shown.KINDS) == set(claim.Kind.__args__)


def test_a_run_that_begins_anew_meanwhile_is_left_out(home, monkeypatch):
    """Snakemake takes its record away, between one look at the folder and the next."""
    run(("up",) * 5)
    assert primaries.papers(["laptop"])
    monkeypatch.setattr(ledger, "records", lambda profile: {})
    assert primaries.papers(["laptop"]) == []


def test_parameters_that_no_longer_fit_leave_a_run_out(home):
    run(("up",) * 5, parameters={"gone": 1})
    assert primaries.papers(["laptop"]) == []
    assert profiles.LEDGER not in ledger.tables("laptop")
