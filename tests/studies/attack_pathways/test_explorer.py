"""The explorer of study 6, and what it traces: the published network on photographs, one's own pictures and network."""

import datetime
import functools
import io

import numpy as np
import pytest
import torch
from PIL import Image

from lib import pathways
from lib.networks import models
from lib.pathways import pages
from lib.pathways.pages import page as drawn
from lib.runs import profiles
from lib.runs import run as run_
from lib.studies.attack_pathways import explorer, plan, traced
from lib.system import files, paths

RUN = "06-attack-pathways"
SMOKE = profiles.parameters(RUN, "smoke")
SIMILAR = SMOKE.pairs[0]


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(tmp_path_factory.mktemp("home")))
        plan.evaluation_set.cache_clear()
        yield


@pytest.fixture(scope="module")
def graph(home):
    return traced.of_pair(SMOKE, "plain", SIMILAR, attacks=("pgd",))


@pytest.fixture
def quick(monkeypatch):
    """Pages that name their graphs, in place of those that draw them."""
    for place in (pages, pathways):
        monkeypatch.setattr(place, "page", lambda graphs, *_names: f"page of {' and '.join(graphs)}")


@pytest.fixture
def tracings(monkeypatch, graph, quick):
    """What is asked to be traced; the same graph each time, at once."""
    asked = []

    def between(p, network, source, target, **options):
        asked.append((p, network, source, target, options))
        return graph

    monkeypatch.setattr(traced, "between", between)
    return asked


def test_the_first_view_is_there_at_once(graph, tracings):
    """The notebook's graphs; else the page of the report, unless it is of other parameters; else it is traced."""
    explore = explorer.explorer(SMOKE, graphs={"one": graph}).update()
    assert f"page of {graph.title}" in explore.frame.value and "traced" in explore.status.value and not tracings
    page = paths.figures("smoke") / RUN / "graph.html"
    files.write_bytes(page, drawn({"kept": graph}, {}, "kept").encode())
    explore = explorer.explorer(SMOKE).update()
    assert len(explore.frame.value) > 100_000 and "report of profile smoke" in explore.status.value and not tracings
    other = SMOKE.model_copy(update={"strengths": (0.3, 0.9)})
    assert f"page of {graph.title}" in explorer.explorer(other).update().frame.value and len(tracings) == 1
    page.unlink()
    explore = explorer.explorer(SMOKE).update()
    assert len(tracings) == 2 and explore.button.description == explorer.TRACE
    explore.update()
    assert len(tracings) == 2  # it is shown already


def test_the_published_network_and_photographs_come_first(tracings):
    explore = explorer.explorer(SMOKE)
    assert explore.arch.label == "EfficientNet-Lite0 (published)" and explore.source.label == "dalmatian (1 photograph)"
    assert ("jeep (2 photographs)", "jeep") in explore.source.options and "ocarina" in explore.target.options
    laptop = explorer.explorer(plan.Parameters())
    laptop.target.value = "ocarina"
    laptop.trace()
    p, network, source, target, options = tracings[-1]
    assert (network, source, target, options["attacks"]) == (plan.PHOTOGRAPHS, "dalmatian", "ocarina", ("pgd",))
    assert p.strengths == (0.2, 0.45, 0.75, 1.1, 1.5) and p.steps == 10  # so that nobody waits long
    laptop.arch.value = "plain"
    assert (laptop.source.label, laptop.target.value) == ("square/grass (50 images)", "cross/lawn")
    laptop.trace()
    assert tracings[-1][0] == plan.Parameters()


def same(a, b) -> None:
    assert (a.title, a.success, a.settings, a.images, a.targets) == (b.title, b.success, b.settings, b.images, b.targets)
    for attack in a.edges:
        for one, other in zip(a.edges[attack], b.edges[attack], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_one_photograph_and_the_code_beside_it_makes_the_same_graph(tmp_path, quick, monkeypatch):
    layers = ("blocks.6",)
    graph = traced.between(SMOKE, plan.PHOTOGRAPHS, "jeep", "cannon", layers=layers)
    assert graph.title == "EfficientNet-Lite0: jeep → cannon" and (graph.images, graph.targets) == (2, 1)
    assert [layer.name for layer in graph.layers] == list(layers) and all(graph.cards.values())
    monkeypatch.chdir(tmp_path)
    made = {}
    exec(graph.code, made)
    same(made["graph"], graph)
    assert (tmp_path / "graph.html").read_text() == f"page of {graph.title}"
    unseen = traced.between(SMOKE, plan.PHOTOGRAPHS, "jeep", "ocarina", layers=layers)
    assert unseen.targets == 0 and "none of ocarina" in pages.counted(unseen)


def test_the_code_beside_a_graph_of_the_study_makes_it_too(graph, quick, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = {}
    exec(graph.code, made)
    same(made["graph"], graph)


def test_the_code_names_what_was_traced_and_its_training_run():
    where = {"architectures": ("efficientnet-lite0",), "epochs": 0, "seeds": 1, "weights": "imagenet"}
    p = plan.Parameters(**SMOKE.model_dump(exclude={"architectures", "epochs", "seeds", "weights"}), **where)
    code = traced.code(p, plan.PHOTOGRAPHS, "'jeep'", "cannon", ("pgd",), (), 0)
    assert "between(p, 'photographs', 'jeep', 'cannon', attacks=('pgd',))" in code  # not the study's own network of that name
    assert "seed=3)" in traced.code(SMOKE, "plain", "'a'", "b", ("pgd",), (), 3)


def test_what_was_traced_is_found_again(tracings):
    """In the explorer, and after a restart beside the run's other measurements; another choice is traced."""
    run = run_.start(RUN, SMOKE.model_dump())
    explore = explorer.explorer(SMOKE, run)
    for _ in range(2):
        explore.button.click()
    assert len(tracings) == 1 and list(run.results.glob("parts/traced-*"))
    again = explorer.explorer(SMOKE, run)
    again.button.click()
    assert len(tracings) == 1 and again.frame.value == explore.frame.value
    again.attack.value = "fgsm"
    again.button.click()
    assert len(tracings) == 2


def test_another_choice_is_said_on_the_button_until_it_is_traced(graph, tracings):
    explore = explorer.explorer(SMOKE, graphs={"one": graph}).update()
    first = explore.frame.value
    explore.arch.value = "plain"
    assert explore.frame.value == first and "the graph below is of another choice" in explore.button.description
    explore.button.click()
    assert explore.button.description == explorer.TRACE and "traced" in explore.status.value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: setattr(e.layers, "value", "stage9"), "did you mean"),
        (lambda e: setattr(e.layers, "value", "head"), "a map needs a convolutional layer"),
        (lambda e: setattr(e.target, "value", e.source.value), "“from” and “to” are both square/grass; choose another class"),
        (lambda e: setattr(e.target, "value", "cross/lwn"), "no class of plain &#x27;cross/lwn&#x27;; did you mean cross/lawn"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_the_menus(graph, quick, change, message):
    explore = explorer.explorer(SMOKE, graphs={"one": graph}).update()
    before = explore.frame.value
    explore.arch.value = "plain"
    change(explore)
    explore.button.click()
    assert message in explore.status.value and explore.frame.value == before and not explore.button.disabled
    assert "another choice" in explore.button.description


def test_progress_is_shown_and_a_change_of_mind_ends_it(graph, quick, monkeypatch):
    explore = explorer.explorer(SMOKE, graphs={"one": graph}).update()
    before, seen = (explore.frame.value, explore.status.value), []

    def between(*_given, progress, **_options):
        progress("attacked by pgd at strength 0.5 (20 %)")
        seen.append((explore.status.value, explore.button.description))
        explore.target.value = "ocarina"
        progress("attacked by pgd at strength 1.5 (40 %)")
        raise AssertionError("it went on")

    monkeypatch.setattr(traced, "between", between)
    explore.button.click()
    assert seen == [
        (
            '<progress max="100" value="20" aria-label="traced"></progress> <i>attacked by pgd at strength 0.5 (20 %)</i>',
            explorer.STOP,
        )
    ]
    assert (explore.frame.value, explore.status.value) == before and "another choice" in explore.button.description


def upload(explore, *contents) -> None:
    now = datetime.datetime.now(datetime.UTC)
    about = {"type": "image/png", "last_modified": now}
    explore.own.file.value = tuple(
        about | {"name": f"<{i}>.png", "size": len(c), "content": memoryview(c)} for i, c in enumerate(contents)
    )


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return buffer.getvalue()


def test_pictures_of_ones_own_and_the_way_back(tracings):
    explore = explorer.explorer(SMOKE)
    upload(explore, png("red"), png("blue"))
    assert "&lt;0&gt;.png, &lt;1&gt;.png: the central square of each" in explore.own.said.value
    explore.button.click()
    assert tracings[0][2].shape == (2, 3, 224, 224) and tracings[0][2][1, 2].min() == 1
    explore.arch.value = "plain"
    explore.button.click()
    assert tracings[1][2].shape == (2, 3, 32, 32)
    upload(explore, b"text")
    assert "&lt;0&gt;.png cannot be read" in explore.own.said.value and len(explore.own.value) == 2
    explore.own.back.click()
    assert explore.own.value == () and explore.own.said.value == "" and explore.own.back.layout.display == "none"
    explore.button.click()
    assert tracings[2][2] == "square/grass"
    upload(explore, png("red"))
    explore.source.value = "ring/stars"  # a class is asked for instead
    assert explore.own.value == ()


def test_files_of_ones_own_by_code(tmp_path):
    for name in ("red", "blue"):
        (tmp_path / f"{name}.png").write_bytes(png(name))
    mine = [tmp_path / "red.png", tmp_path / "blue.png"]
    graph = traced.between(SMOKE, "plain", mine, "cross/lawn", layers=("stage3.3",))
    assert graph.title == "plain: your images → cross/lawn" and graph.images == 2 and "red.png" in graph.code


NETWORK = """
from lib.networks import models

def mine():
    net = models.create("small", classes=3)
    net.size, net.class_names = 32, ["a", "b", "c"]
    return net
"""


def test_a_network_of_ones_own(tmp_path, quick):
    """Beside photographs, in the size that it takes; what is no network is said below its field, and nothing else changes."""
    (tmp_path / "nets.py").write_text(NETWORK)
    explore = explorer.explorer(SMOKE)
    explore.network.field.value = f"{tmp_path}/nets.py:yours"
    assert "mine" in explore.network.said.value and explore.chosen == plan.PHOTOGRAPHS
    explore.network.field.value = f"{tmp_path}/nets.py:mine"
    assert explore.target.options == ("a", "b", "c") and explore.source.value == "dalmatian"
    explore.target.value, explore.layers.value = "b", "conv2"
    explore.button.click()
    assert "nets.py:mine: dalmatian → b" in explore.status.value and "none of b" in explore.status.value
    explore.arch.value = "plain"
    assert explore.chosen == "plain" and explore.network.field.value == ""


def test_controls_wrap_and_the_frame_is_as_wide_as_the_page(graph, quick):
    explore = explorer.explorer(SMOKE, graphs={"one": graph}).update()
    rows = explore.widget.children[:2]
    assert all("wrap" in row.layout.flex_flow for row in rows)
    assert all(c.layout.width in ("auto", None) and int(c.layout.min_width[:-2]) < 300 for c in rows[0].children)
    assert explore.frame.layout.width == "100%" and "width: 100%" in explore.frame.value


def test_the_readmes_example_runs(tmp_path, monkeypatch):
    readme = (paths.PROJECT / "README.md").read_text()
    code = readme.partition("## Explore")[2].partition("```python\n")[2].partition("```")[0]
    assert "pathways.page(" in code
    monkeypatch.chdir(tmp_path)
    model = models.create("resnet18", classes=4)
    source, target = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(pathways, "build", functools.partial(pathways.build, features=1, patches=1))
    exec(code, {"model": model, "source_images": source, "target_images": target, "target_class": 1})
    shown = pages.contents((tmp_path / "pathways.html").read_text())
    assert {n["name"].partition(" ")[0] for n in shown["spec"]["datasets"]["neurons"]} == {"layer1", "layer2", "layer3"}
