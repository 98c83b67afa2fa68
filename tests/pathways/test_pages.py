"""A graph of any network as a page: what it holds, what it says, what it asks for; and as bytes that are kept."""

import dataclasses
import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from lib.pathways import graph as graph_
from lib.pathways import interactive, layout, neurons, pages, still_picture, stored
from lib.pathways.neurons import Groups

NAMES = {"mine": "my attack", "other": "another"}


class Odd(nn.Module):
    """Somebody's own network: no wrapper, two named layers, a dense head after flattening."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.features = nn.Sequential(nn.Conv2d(5, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4))
        self.head = nn.Linear(6 * 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(self.first(x)).flatten(1))


def brighter(_model, images, _classes, strength):
    return (images + strength).clamp(0, 1)


def build(**changes):
    torch.manual_seed(0)
    x = torch.rand(4, 3, 16, 16)
    options = {
        "names": ("one", "two"),
        "layers": ["first", "features"],
        "strengths": (0.1, 0.2),
        "title": "odd: one → two",
        "features": 2,
        "patches": 1,
        "attacks": {"mine": brighter, "other": lambda *given: brighter(*given[:3], -given[3])},
        "code": "graph = mine()\n",
    }
    given = {"source": x, "target": x.flip(0)} | changes
    source, target = given.pop("source"), given.pop("target")
    torch.manual_seed(0)
    return graph_.build(Odd(), source, target, given.pop("target_class", 1), **options | given)


@pytest.fixture(scope="module")
def graph():
    return build()


@pytest.fixture(scope="module")
def page(graph):
    return pages.page({"one": graph}, NAMES, "Attack pathways")


def test_the_page_holds_everything_and_asks_for_nothing(graph, page):
    shown = pages.contents(page)
    rows, edges = shown["spec"]["datasets"]["neurons"], shown["spec"]["datasets"]["edges"]
    assert len(rows) == 2 * sum(len(layer.groups.shown) for layer in graph.layers) and len(edges) > 5
    assert all(len(n["v"]) == 3 and shown["pictures"][n["picture"]].startswith("data:image/webp") for n in rows)
    assert {n["group"] for n in rows} <= {name for name, _ in layout.GROUPS.values()}
    ids = {n["id"] for n in rows}
    assert all({e["a"], e["b"]} <= ids and max(e["w"]) > 0 for e in edges)
    assert "src=" not in page.partition("<script")[0] and not re.search(r"(src|href)=.?https?:", page)
    assert len(page) < 600_000  # stored several times: the scripts and the numbers in it are compressed


def test_one_scale_of_strength_with_its_unit(page):
    """Of the parameters none is bound to a control of Vega's, which would show the strength's number in its place."""
    shown = pages.contents(page)
    assert not any("bind" in q for q in shown["spec"]["params"]) and shown["strengths"] == [0.1, 0.2]
    assert '<output id="strength-value"></output> (L2 length of the change, pixels in [0, 1])' in page
    assert "L2 length of the change" in json.dumps(shown["curve"])
    assert "(gray levels)" in pages.page({"one": build()}, NAMES, "mine", unit="gray levels")


def test_controls_stand_above_the_graph(page):
    places = [page.index(f'id="{name}"') for name in ("view", "attack", "strength", "by", "weak", "graph", "save-page")]
    assert places == sorted(places)


def test_columns_are_as_wide_as_their_fullest_rows_need(graph, page):
    widths = interactive.columns(graph)
    ends = np.cumsum([0, *widths])
    assert ends[-1] == pytest.approx(4) and pages.contents(page)["views"]["one"]["columns"] == widths
    fullest = [max(len(layer.groups.of(g)) for layer in graph.layers) for g in layout.GROUPS]
    assert widths[fullest.index(max(fullest))] == max(widths) and min(widths) >= 0.3
    rows = [n for n in interactive.tables({"one": graph})[0] if n["attack"] == "mine"]
    for i, (group, _) in enumerate(layout.GROUPS.values()):
        assert all(ends[i] < n["x"] < ends[i + 1] for n in rows if n["group"] == group)
    assert len({(n["row"], n["x"]) for n in rows}) == len(rows)


@pytest.mark.parametrize(("success", "strength"), [([0, 1, 2, 4], 3), ([0, 0, 0, 1], 2), ([3, 4, 4, 4], 1)])
def test_the_first_view_is_of_an_attack_that_succeeds(graph, success, strength):
    """The weakest that moves half of the images to the target class; else the middle one."""
    changed = dataclasses.replace(graph, success={"mine": success}, strengths=(0.1, 0.2, 0.3, 0.4))
    assert interactive._first_success(changed, "mine") == strength


def test_what_it_was_counted_over_and_what_it_shows_is_said(graph, page):
    shown = pages.contents(page)
    assert shown["views"]["one"]["counted"] == "counted over 4 images of one and 4 images of two"
    clean, weak = (next(t for t in shown["told"] if t["attack"] == "mine" and t["s"] == s) for s in (0, 1))
    assert clean["told"] == "no attack: 4 images of one, of which the network takes 1 for two as they are"
    assert re.fullmatch(r"strength 0\.1: \d of 4 images reach(es)? two.*", weak["told"])
    own = graph.layers[1]
    channels = list(own.groups.shown)
    grown = own.attacked["mine"][0][channels] - own.clean[channels]
    best = channels[int(grown.argmax())]
    assert f"features: {len(own.groups.original)} original" in weak["alt"] or not own.groups.original
    assert weak["alt"].index("features") < weak["alt"].index("first:")
    assert f"most excited channel {best} (" in weak["alt"] and "excited" not in clean["alt"]


def test_what_can_be_taken_away(graph, page):
    about = pages.contents(page)["views"]["one"]
    assert about["code"] == "graph = mine()\n" and about["layers"] == ["first", "features"]
    kept = about["settings"]
    assert kept["source"] == "one" and kept["top neurons of a layer, at least"] == 3
    assert all(f'id="save-{what}"' in page for what in ("picture", "edges", "parameters", "page")) and 'id="copy"' in page


def test_a_target_class_without_images():
    graph = build(target=None)
    assert graph.targets == 0 and all(not (layer.groups.target or layer.groups.both) for layer in graph.layers)
    shown = pages.contents(pages.page({"one": graph}, NAMES, "mine"))
    assert {n["t"] for n in shown["spec"]["datasets"]["neurons"]} == {None}
    assert shown["views"]["one"]["counted"].endswith("none of two: which neurons are the target's is not known")
    plt.close(still_picture.still(graph, "mine", 1))


def test_pictures_without_making_any():
    graph = build(features=0, patches=2)
    cards = [card for own in graph.cards.values() for card in own.values()]
    assert {card.size for card in cards} == {(2 * 16 + 1, 16)}
    assert "parts of images" in pages.contents(pages.page({"one": graph}, NAMES, "mine"))["views"]["one"]["pictures"]
    assert build(features=0, patches=0).cards == {}


def test_a_channel_that_nothing_excites_has_no_card_where_no_patches_are_asked(monkeypatch):
    real = graph_.features_.features

    def unreached(*given, **options):
        made = real(*given, **options)
        made[0] = torch.nan
        return made

    monkeypatch.setattr(graph_.features_, "features", unreached)
    whole, part = (build(features=2, patches=n).cards for n in (1, 0))
    missing = {layer: set(cards) - set(part[layer]) for layer, cards in whole.items()}
    assert all(len(channels) == 1 for channels in missing.values()) and missing


def test_how_far_it_is_is_told_and_can_end_it():
    said = []
    build(progress=said.append)
    assert said[0] == "attacked by mine at strength 0.1 (10 %)" and said[-1].endswith("(100 %)")

    class Enough(BaseException):
        pass

    def stop(_line):
        raise Enough

    with pytest.raises(Enough):
        build(progress=stop)


@pytest.mark.parametrize("changes", [{}, {"target": None, "features": 0, "patches": 0}, {"layers": ["features"]}])
def test_what_is_kept_comes_back_as_it_was(changes):
    before = build(**changes)
    after = stored.unpacked(stored.packed(before))
    assert stored.packed(after) == stored.packed(before)
    for f in dataclasses.fields(before):
        if f.name not in ("layers", "edges", "cards"):
            assert getattr(after, f.name) == getattr(before, f.name), f.name
    for a, b in zip(after.layers, before.layers, strict=True):
        assert (a.name, a.groups) == (b.name, b.groups)
        for name in ("clean", "target"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        for name in ("attacked", "vulnerability"):
            for attack in NAMES:
                np.testing.assert_array_equal(getattr(a, name)[attack], getattr(b, name)[attack])
    for attack in NAMES:
        for a, b in zip(after.edges[attack], before.edges[attack], strict=True):
            np.testing.assert_array_equal(a, b)
    assert {n: {c: p.tobytes() for c, p in own.items()} for n, own in after.cards.items()} == {
        n: {c: p.tobytes() for c, p in own.items()} for n, own in before.cards.items()
    }
    assert interactive.tables({"a": after}) == interactive.tables({"a": before})


def test_bytes_that_are_no_graph():
    with pytest.raises(ValueError, match="are no graph that was kept"):
        stored.unpacked(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match="this page has no element 'graphs'"):
        pages.contents("<html>")


def test_one_layer_and_an_attack_that_never_succeeds():
    torch.manual_seed(0)
    x = torch.rand(4, 3, 16, 16)
    torch.manual_seed(0)
    with torch.no_grad():
        never = next(c for c in range(3) if c not in Odd()(x).argmax(1))
    still = {"nothing": lambda _m, images, _y, _s: images}
    graph = build(source=x, target=x.flip(0), attacks=still, target_class=never, layers=["features"])
    assert graph.edges == {"nothing": []} and len(graph.layers) == 1 and graph.success == {"nothing": [0, 0]}
    told = pages.contents(pages.page({"mine": graph}, {"nothing": "nothing"}, "mine"))["told"]
    assert sum("this attack never succeeds" in t["told"] for t in told) == 2
    assert all("none excited" in t["alt"] for t in told if t["s"])
    plt.close(still_picture.still(graph, "nothing", 1))


def test_a_page_of_graphs_that_do_not_belong_together(graph):
    with pytest.raises(ValueError, match="other strengths or attacks"):
        pages.page({"one": graph, "other": build(strengths=(0.1,))}, {}, "mine")


def test_a_name_ends_no_script_and_no_attribute():
    name = "</script><b x=\"'&"
    page = pages.page({name: build(names=(name, "two"), code=name)}, {}, name)
    assert page.count("<script") == page.count("</script>") == 4 and "<b x" not in page
    assert pages.contents(page)["spec"]["params"][0] == {"name": "view", "value": name}
    frame = pages.framed(page, name)
    assert frame.count("<") == 4 and frame.startswith("<div><iframe title=") and frame.endswith("</iframe></div>")


def test_pages_of_reports_share_what_draws_them(page, tmp_path):
    """Each is read back as it was; what they share stands in one file, which fills a page and takes itself away."""
    written = [pages.write(page, tmp_path / profile / "06", tmp_path / "assets") for profile in ("a", "b")]
    library = re.search(r'id="library"[^>]*>([^<]+)<', page)[1]
    for file in written:
        shared = file.read_text()
        assert '<script src="../../assets/vega.js"></script>' in shared and len(shared) < len(page) - len(library) + 100
        assert pages.contents(shared) == pages.contents(page) and pages.read(file) == page
    assert (tmp_path / "assets" / "vega.js").read_text().count(library) == 1
    alone = tmp_path / "whole.html"  # as older versions wrote it, and as a reader saves it
    alone.write_text(page)
    assert pages.read(alone) == page


def test_in_a_report_the_page_is_named_and_elsewhere_nothing_is_asked_for(page):
    """In a notebook all of the page stands in its frame, as wide as the notebook; in a report, only where it lies."""
    frame, beside = pages.framed(page), pages.beside("06/graph.html")
    assert "srcdoc=" in frame and " src=" not in frame and "width: 100%" in frame
    assert 'src="06/graph.html"' in beside and 'href="06/graph.html"' in beside and len(beside) < 1500
    assert ".in-report { display: none }" in beside and 'loading="lazy"' in beside  # hidden frames are not loaded


def test_without_attack_nothing_is_highlighted(graph):
    rows = interactive.tables({"one": graph})[0]
    assert all(n[c][0] == 1.0 for n in rows for c in neurons.CHANGES[1:]) and any(n["activated"][0] == 0 for n in rows)
    keys = [n["key"] for n in rows]
    assert len(set(keys)) == len(keys) / 2  # a neuron is the same one under either attack: its card and pin stay


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": torch.zeros(0, 3, 16, 16)}, "no image of class 'one'"),
        ({"target": torch.zeros(0, 3, 16, 16)}, "no image of class 'two'"),
        ({"strengths": (0.2, 0.1)}, "ascending from above 0"),
        ({"attacks": {}}, "one attack at least"),
        ({"layers": ["head"]}, "a map needs a convolutional layer"),
        ({"layers": []}, "pathways need one at least"),
        ({"target_class": 7}, "the model has 3 classes"),
        ({"attacks": {"mine": lambda model, x, y, eps: x[:1]}}, r"'mine' gives \(1, 3, 16, 16\) for images \(4, 3, 16, 16\)"),
        ({"attacks": {"mine": lambda model, x, y, eps: x.numpy()}}, "'mine' gives ndarray for images"),
    ],
)
def test_bad_input_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_images_that_are_taken_for_the_target_before_are_no_successes():
    idle = {"mine": lambda _model, images, _classes, _strength: images}
    graphs = [build(attacks=idle, target_class=c) for c in range(3)]
    assert [list(g.success["mine"]) for g in graphs] == [[0, 0]] * 3
    assert sum(g.taken for g in graphs) == 4  # each image is taken for one class
    assert "takes" not in interactive._told(dataclasses.replace(graphs[0], taken=0), "mine", 0)


def test_a_channel_that_nothing_excites_is_shown_by_patches_alone(monkeypatch):
    made = torch.rand(6, 3, 16, 16)
    made[1] = torch.nan
    monkeypatch.setattr(graph_.features_, "features", lambda model, layer, channels, **_: made[: len(channels)])
    cards = graph_._cards(Odd(), "features", [0, 1], torch.rand(4, 3, 16, 16), 2, 2)
    assert [card.size for card in cards.values()] == [(3 * 17 - 1 + 2, 16), (2 * 17 - 1, 16)]


def test_what_any_attack_exploits_is_shown_for_all():
    clean = (torch.tensor([9.0, 0, 0, 0]), torch.tensor([0.0, 9, 0, 0]))
    attacked = {"a": torch.tensor([[0.0, 0, 9, 0]]), "b": torch.tensor([[0.0, 0, 0, 9]])}
    found = graph_._groups(clean, attacked, share=0.1, least=1, most=9, exploited=5)
    assert found == Groups((0,), (), (1,), ((2,), (3,)))
