"""The explorers in JupyterLab, driven in a real browser: Debian's chromium through playwright."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from lib.commands.lab import arguments
from lib.reports import index
from lib.runs import profiles
from lib.system import paths
from lib.training import cache
from tests.reports import finished

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.browser


def needs_chromium() -> None:
    if CHROMIUM is None:
        assert os.environ.get("CI") != "true", "CI must have chromium: .ci/run installs it"
        pytest.skip("no chromium on this machine; on Debian: apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    """One browser for all tests here: a start takes a second, and JupyterLab's scripts are compiled once in a context."""
    needs_chromium()
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(browser):
    with contextlib.closing(browser.new_context()) as context:
        yield context


@pytest.fixture
def page(context):
    """A page of its own, in the browser that knows JupyterLab."""
    with contextlib.closing(context.new_page()) as page:
        yield page


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder like the project, with the notebooks that `make lab` shows."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(paths.notebooks(), folder / "notebooks")
    return folder


@pytest.fixture(scope="module")
def lab(project):
    """JupyterLab as `make lab` starts it, the explorers' notebooks with smoke parameters, in a data folder of its own; yields
    its address."""
    needs_chromium()
    folder = project
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(folder / "home"))
        for run in (*EXPLORERS, GRAPH):
            p = profiles.parameters(run, "smoke")
            for config in profiles.part(run, "plan").networks(p):
                cache.trained(config)
            content = nbformat.read(profiles.notebook_of(run), as_version=4)
            kept = [c for c in content.cells if {"parameters", "interactive"} & set(c.metadata.get("tags", []))]
            start = f'from lib.runs import start\nrun = start("{run}", globals())\np = run.parameters\nrun.card()'
            kept.insert(1, nbformat.v4.new_code_cell(start))
            kept[0].source = "\n".join(f"{k} = {v!r}" for k, v in p.model_dump().items())
            if run == GRAPH:
                kept.insert(2, nbformat.v4.new_code_cell(SHOWN))
            content.cells = kept
            nbformat.write(content, folder / "notebooks" / f"{run}.ipynb")
        command = [
            sys.executable,
            "-m",
            "jupyterlab",
            *arguments(["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", "--IdentityProvider.token="], folder),
        ]
        own = {"JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
        with (folder / "lab.log").open("w") as log:
            process = subprocess.Popen(command, stderr=log, stdout=log, env=os.environ | own)
            try:
                yield _address(folder / "lab.log")
            finally:
                process.kill()  # its kernels end with it, and do not clean up what nobody uses again
                process.wait(20)


def _address(log: Path) -> str:
    for _ in range(240):
        found = re.search(r"http://127\.0\.0\.1:(\d+)/lab", log.read_text())
        if found:
            return f"http://127.0.0.1:{found[1]}"
        time.sleep(0.25)
    raise AssertionError(f"JupyterLab did not start:\n{log.read_text()}")


def run_all(page) -> None:
    """Run > Run All Cells; again, if JupyterLab was still busy with itself and the cells did not start."""
    for _ in range(4):
        asked = page.locator("dialog.jp-Dialog")
        if asked.count():  # a server that is slow to know its kernels asks which one; whatever else it says is a failure
            assert "Select Kernel" in asked.first.inner_text(), asked.first.inner_text()
            asked.first.locator("button.jp-mod-accept").click()
        page.locator(".jp-Notebook .jp-Cell").first.click()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.locator("li[data-command='runmenu:run-all']").click()
        for _ in range(40):
            prompts = page.locator(".jp-InputArea-prompt").all_inner_texts()
            if any(p.strip() not in ("", "[ ]:") for p in prompts):  # [*]: or [1]:
                return
            page.wait_for_timeout(250)
    raise AssertionError(f"the cells did not start: {prompts}")


class Driver:
    """An explorer in a page of JupyterLab: its picture, its line of text, its sliders and menus."""

    def __init__(self, page, word: str) -> None:
        from playwright.sync_api import expect

        self.page, self.word, self.expect = page, word, expect
        self.status = page.locator(".view-text", has_text=word)
        expect(self.status).to_be_visible(timeout=120_000)
        self.picture = page.locator("img.view").first

    def changed(self, act) -> None:
        """The picture changes, and what is said beside it is not an error."""
        before = self.picture.get_attribute("src")
        act()
        self.expect(self.picture).not_to_have_attribute("src", before, timeout=60_000)
        self.expect(self.status).to_contain_text(self.word, timeout=60_000)

    def slide(self, label: str, key: str = "ArrowRight") -> None:
        handle = self.page.locator(".widget-hslider", has_text=label).locator(".noUi-handle")
        before = self.status.inner_text()
        self.changed(lambda: (handle.focus(), self.page.keyboard.press(key)))
        assert self.status.inner_text() != before  # the numbers changed with the picture

    def choose(self, label: str, option: str) -> None:
        self.changed(lambda: self.page.get_by_label(label, exact=True).select_option(label=option))

    def press(self, label: str) -> None:
        self.changed(lambda: self.page.get_by_role("button", name=label).click())

    def own_network(self, text: str) -> None:
        field = self.page.get_by_label("own network")
        field.fill(text)
        field.press("Enter")

    def upload(self, path) -> None:
        with self.page.expect_file_chooser() as chooser:
            self.page.locator(".widget-upload").click()
        chooser.value.set_files(path)

    def in_proportion(self) -> bool:
        """Whether the picture is as wide and high as it was drawn, but for its size."""
        box, (width, height) = self.picture.bounding_box(), self.picture.evaluate("e => [e.naturalWidth, e.naturalHeight]")
        drawn, shown = width / height, box["width"] / box["height"]
        return abs(drawn / shown - 1) < 0.02


def drive_grad_cam(d: Driver) -> None:
    d.slide("eps")
    d.choose("map of class", "tiger cat")
    d.choose("attack", "random signs")
    d.choose("method", "Grad-CAM++")
    d.choose("method", "Grad-CAM")
    d.choose("what speaks", "both (no ReLU)")
    d.choose("layer", "middle stage")
    d.choose("network", "residual")
    d.choose("map of class", "ring/stars")
    d.choose("what speaks", "against it (counterfactual)")
    d.choose("objects", "one object")


def drive_attention_shift(d: Driver) -> None:
    d.slide("eps")
    d.press("next image where the attack succeeds")
    d.own_network("nowhere.py:net")
    d.expect(d.page.locator(".widget-html", has_text="nowhere.py").first).to_be_visible()
    d.changed(lambda: d.own_network("efficientnet-lite0"))
    d.choose("network", "deep (residual)")
    d.choose("attack", "PGD")
    d.choose("method", "Grad-CAM++")


def drive_at_cnn(d: Driver) -> None:
    d.choose("change", "saturation")
    d.slide("saturation p", "ArrowLeft")
    d.slide("PGD eps")
    d.press("next image where the attack succeeds")
    d.choose("network", "standard beside PGD-L2 1.14")
    d.choose("change", "patch shuffle")
    d.slide("pieces k × k", "ArrowLeft")
    d.choose("change", "style (AdaIN)")
    d.slide("strength α", "ArrowLeft")
    d.slide("image")
    d.slide("PGD eps", "ArrowLeft")
    d.choose("explain by", "guided backpropagation")


def drive_interpretability(d: Driver) -> None:
    d.choose("attack", "AAI, L1 form (map)")
    d.press("next image where the attack succeeds")
    d.choose("attack", "JPEG L1")
    d.choose("attack", "PGD")
    d.slide("eps, of [0, 1]")
    d.choose("network", "trained as Adv")
    d.slide("steps")
    d.slide("image")
    d.choose("attack", "snow")


def drive_manipulation(d: Driver) -> None:
    d.slide("tuned epochs", "ArrowLeft")
    d.press("next image where the attack succeeds")
    d.slide("image")
    d.choose("look with", "LRP_T (relevance at T)")
    d.choose("look with", "SmoothGrad")
    d.own_network("nowhere.py:net")
    d.expect(d.page.locator(".widget-html", has_text="nowhere.py").first).to_be_visible()
    d.choose("network", "plain")
    d.choose("fooling", "active through Grad-CAM")
    d.choose("fooling", "location through LRP_T")
    d.slide("image")


def drive_saliency(d: Driver) -> None:
    d.slide("ε₀, of 255")
    d.press("next image where the attack succeeds")
    d.slide("α¹⁰")
    d.slide("epoch", "ArrowLeft")
    d.choose("attribution", "SmoothGrad")
    d.choose("binarised by", "above the median")
    d.choose("student", "PGD")
    d.choose("map from", "adversarially trained teacher")
    d.slide("image")


def drive_attacked(d: Driver) -> None:
    d.slide("eps, of 255")
    d.choose("attack", "random signs")
    d.choose("explanation", "LRP")
    d.choose("network", "Standard")
    d.choose("explanation", "gradient")
    d.choose("attack", "naive attack")
    d.choose("attack", "adaptive attack")
    d.choose("goal", "centre of mass, of the diagonal")
    d.slide("image")


# what each explorer's text always says, and how it is driven
EXPLORERS = {
    "00-grad-cam": ("NISSIM", drive_grad_cam),
    "01-attention-shift": ("NISSIM", drive_attention_shift),
    "02-at-cnn": ("edge agreement", drive_at_cnn),
    "03-interpretability-aware-training": ("D2", drive_interpretability),
    "04-model-manipulation": ("accuracy", drive_manipulation),
    "05-saliency-adversarial-training": ("P(random)", drive_saliency),
    "07-attacked-explanations": ("share of the map", drive_attacked),
}


GRAPH = "06-attack-pathways"  # draws no picture, but a page of its own in a frame


def drive_graph(frame) -> None:
    """Strength, highlighting, card and pin, by pointer and by keys, in the page or in a frame of it."""
    from playwright.sync_api import expect

    expect(frame.locator("html[data-ready=yes]")).to_be_attached(timeout=60_000)
    heading, neurons, name = frame.locator("#told"), frame.locator("#graph .mark-symbol path"), frame.locator("#name")

    def drawn() -> tuple[str, str]:
        """What is said of the strength, and how the neurons and edges look."""
        marks = frame.locator("#graph .mark-symbol path, #graph .mark-rule line")
        return heading.text_content(), marks.evaluate_all("m => m.map(e => e.outerHTML).join()")

    def changed(act, told: bool = False) -> None:
        before = drawn()
        act()
        for _ in range(100):
            now = drawn()
            if now[1] != before[1] and (not told or now[0] != before[0]):
                return
            heading.page.wait_for_timeout(50)
        raise AssertionError(f"nothing changed: {now[0]}")

    for strength in ("0", "2", "1", "2"):
        changed(lambda s=strength: frame.locator("#strength").fill(s), told=True)
    expect(heading).to_contain_text(f"strength {frame.locator('#strength-value').text_content()}:")  # one scale
    frame.locator("#more").evaluate("d => d.open = true")  # closed where it is narrow
    changed(lambda: frame.locator("#topNeurons").fill("100"))
    changed(lambda: frame.get_by_label("highlight neurons most").select_option("inhibited"))
    changed(lambda: frame.locator("#topEdges").fill("100"))
    changed(lambda: frame.get_by_label("compare with a weaker attack").select_option("yes"))
    changed(lambda: frame.locator("#show").select_option("all"))
    first = name.text_content()
    for i in range(4, neurons.count()):
        neurons.nth(i).hover(force=True)
        if name.text_content() != first:
            break
    assert name.text_content() != first  # the card is another neuron's
    changed(lambda: neurons.nth(i).click(force=True))  # its edges are drawn
    expect(frame.locator("#group")).to_contain_text("pinned")
    graph, here = frame.locator("#graph"), name.text_content()
    graph.press("ArrowUp")
    if name.text_content() == here:
        graph.press("ArrowDown")
    expect(name).not_to_have_text(here)
    changed(lambda: graph.press("Enter"))
    expect(frame.locator("#group")).to_contain_text("pinned")
    changed(lambda: graph.press("Escape"))
    expect(frame.locator("#group")).not_to_contain_text("pinned")


@pytest.mark.parametrize("run", EXPLORERS)
def test_the_explorer_answers_in_jupyterlab(lab, page, tmp_path, run):
    from PIL import Image
    from playwright.sync_api import expect

    word, drive = EXPLORERS[run]
    page.set_viewport_size({"width": 1700, "height": 1200})
    outside = []
    page.on("request", lambda r: outside.append(r.url) if not r.url.startswith((lab, "data:", "blob:", "ws:")) else None)
    page.goto(f"{lab}/lab/workspaces/{run}/tree/notebooks/{run}.ipynb")  # a workspace of its own: no other notebook is open
    expect(page.locator(".jp-Notebook .jp-Cell")).not_to_have_count(0, timeout=60_000)
    expect(page.locator(".jp-NotebookPanel-toolbar [data-status=idle]")).to_be_visible(timeout=60_000)
    run_all(page)
    driver = Driver(page, word)
    assert page.locator("td", has_text=f"home/data/figures/smoke/{run}").count() == 1  # on the run card
    drive(driver)
    mine = tmp_path / "mine.png"
    Image.linear_gradient("L").convert("RGB").save(mine)
    driver.changed(lambda: driver.upload(mine))
    if os.environ.get("STUDY_SCREENSHOT"):
        page.screenshot(path=f"{os.environ['STUDY_SCREENSHOT']}-{run}.png")
    hostile = tmp_path / "hostile.png"
    hostile.write_text("this is no picture")
    driver.upload(hostile)
    expect(page.locator(".widget-html", has_text="hostile.png cannot be read")).to_be_visible(timeout=60_000)
    driver.changed(lambda: page.get_by_role("button", name="back to the data set").click())
    for width, least in ((1440, 500), (900, 300), (400, 20)):  # with the list of files beside it
        page.set_viewport_size({"width": width, "height": 1200})
        page.wait_for_timeout(300)
        assert driver.in_proportion() and driver.picture.bounding_box()["width"] > least, width
    assert word.split()[-1] in driver.picture.get_attribute("alt")
    readout, menu = page.locator(".widget-hslider .widget-readout").first, page.locator(".widget-dropdown > select").first
    assert readout.evaluate("e => getComputedStyle(e).whiteSpace") == "normal"  # nothing said beside a slider is cut off
    page.evaluate("document.body.dataset.jpThemeLight = 'false'")
    assert "ddd" in menu.evaluate("e => getComputedStyle(e).backgroundImage")  # an arrow that is seen on dark ground
    assert driver.page.get_by_text("save picture, numbers and code").get_attribute("href").startswith("data:application/zip")
    assert [u for u in outside if not u.startswith("http://127.0.0.1")] == []


def save(page, file: Path) -> None:
    before = file.stat().st_mtime_ns
    page.keyboard.press("Control+s")
    for _ in range(100):
        if file.stat().st_mtime_ns != before and file.stat().st_size:  # JupyterLab empties it before it writes
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"{file.name} was not saved")


def test_looking_around_leaves_the_notebook_as_it_is(lab, page, project):
    """What `make lab` opens: one cell, then the first picture; saved with it, to the byte the tracked notebook."""
    from playwright.sync_api import expect

    page.set_viewport_size({"width": 1440, "height": 1000})
    page.goto(f"{lab}/lab/workspaces/looking/tree/notebooks/explore.ipynb")
    expect(page.locator(".jp-NotebookPanel-toolbar [data-status=idle]")).to_be_visible(timeout=60_000)
    run_all(page)
    study = page.get_by_label("study")
    expect(study).to_be_visible(timeout=60_000)
    assert "Grad-CAM" in study.evaluate("e => e.selectedOptions[0].label")
    picture = page.locator("img.view").first
    expect(picture).to_be_visible(timeout=60_000)
    assert "bull mastiff" in picture.get_attribute("alt")
    save(page, project / "notebooks" / "explore.ipynb")
    assert (project / "notebooks" / "explore.ipynb").read_bytes() == (paths.notebooks() / "explore.ipynb").read_bytes()


# as the notebook shows its graphs: what a report finds beside it, and what the notebook holds
SHOWN = """
import torch
from IPython.display import HTML
from lib import pathways

torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Conv2d(3, 40, 3), torch.nn.ReLU(), torch.nn.Conv2d(40, 40, 3), torch.nn.AdaptiveAvgPool2d(1))
net.append(torch.nn.Flatten())
x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
moved = {"inverted": lambda _net, images, _classes, strength: images.lerp(1 - images, strength).roll(int(9 * strength), 1)}
given = {"layers": ["0", "2"], "attacks": moved, "strengths": (0.1, 0.9), "features": 0, "title": "toy", "share": 0.2}
page = pathways.page({"toy": pathways.build(net, x, x.flip(0), 1, names=("a", "b"), **given)}, {}, "toy")
HTML(pathways.beside("06/graph.html") + pathways.framed(page, "in the notebook"))
"""


def test_the_graph_answers_in_jupyterlab(lab, page, tmp_path):
    """The frame under "The graph", light and dark; the explorer on a photograph, then on what the study trains; any window."""
    from playwright.sync_api import expect

    page.set_viewport_size({"width": 1700, "height": 1500})
    missing = []
    page.on("response", lambda r: missing.append(r.url) if r.status == 404 and "graph.html" in r.url else None)
    page.goto(f"{lab}/lab/workspaces/{GRAPH}/tree/notebooks/{GRAPH}.ipynb")
    expect(page.locator(".jp-NotebookPanel-toolbar [data-status=idle]")).to_be_visible(timeout=60_000)
    run_all(page)
    status = page.locator(".widget-html", has_text="traced")
    expect(status).to_contain_text("EfficientNet-Lite0: dalmatian → tiger cat, counted over 1 image", timeout=120_000)
    before = status.inner_text()
    shown = page.frame_locator("iframe[title='in the notebook']")
    drive_graph(shown)
    ground = shown.locator("body").evaluate("b => getComputedStyle(b).backgroundColor")
    page.evaluate("document.body.dataset.jpThemeLight = 'false'")
    expect(shown.locator("html.dark")).to_be_attached()
    assert shown.locator("body").evaluate("b => getComputedStyle(b).backgroundColor") != ground
    page.evaluate("document.body.dataset.jpThemeLight = 'true'")
    drive_graph(page.frame_locator("iframe[title='attack pathways']"))
    hostile = tmp_path / "hostile.png"
    hostile.write_text("this is no picture")
    with page.expect_file_chooser() as chooser:
        page.locator(".widget-upload").click()
    chooser.value.set_files(hostile)
    expect(page.locator(".widget-html", has_text="hostile.png cannot be read")).to_be_visible(timeout=60_000)
    page.get_by_label("network", exact=True).select_option(index=1)
    page.get_by_label("to class").fill("heart/moon")
    page.get_by_label("to class").press("Enter")
    page.get_by_role("button", name="Trace anew").click()
    expect(status).to_contain_text("heart/moon", timeout=120_000)
    assert status.inner_text() != before
    for width in (1440, 900, 400):  # with the list of files beside it, where there is room
        page.set_viewport_size({"width": width, "height": 1200})
        if width == 400:
            page.keyboard.press("Control+b")
        page.wait_for_timeout(500)
        if os.environ.get("STUDY_SCREENSHOT"):
            page.screenshot(path=f"{os.environ['STUDY_SCREENSHOT']}-{GRAPH}-{width}.png")
        wide = page.locator("iframe[title='attack pathways']").evaluate("f => [f.clientWidth, f.parentElement.clientWidth]")
        own = page.frame_locator("iframe[title='attack pathways']").locator("html")
        controls = page.locator(".widget-hbox", has=page.get_by_label("to class")).last.bounding_box()
        assert controls["height"] < (350 if width > 400 else 600), width
        assert abs(wide[0] - wide[1]) < 3 and own.evaluate("e => e.scrollWidth <= e.clientWidth"), width
    assert missing == []


def test_the_graph_answers_as_a_file(browser, tmp_path):
    """The committed one, opened from the disk, alone and in its report: no kernel, no request; in a narrow and dark window too,
    and what it saves."""
    from playwright.sync_api import expect

    folder = paths.PROJECT / "figures" / "laptop"
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    outside, errors = [], []
    page.on("request", lambda r: outside.append(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.goto((folder / GRAPH / "graph.html").as_uri())
    drive_graph(page)
    told = page.locator("#told")
    before = told.text_content()
    page.get_by_label("attack", exact=True).select_option(label="FGSM")
    expect(told).not_to_have_text(before)
    graph = page.locator("#graph").bounding_box()
    assert page.locator("#strength").bounding_box()["y"] < graph["y"] < 450  # the controls are above it, it above the fold
    assert told.text_content() in page.locator("#alternative").text_content()
    saved = {}
    for what in ("edges", "parameters", "picture", "page"):
        with page.expect_download() as download:
            page.locator(f"#save-{what}").click()
        saved[what] = Path(download.value.path()).read_text()
    lines = saved["edges"].splitlines()
    assert lines[0].startswith('graph,attack,"strength (L2 length of the change, pixels in [0, 1])",layer') and len(lines) > 50
    assert '"unit of strength": "L2 length of the change' in saved["parameters"] and "traced.between(" in saved["parameters"]
    assert saved["picture"].startswith("<svg")
    for width in (900, 400, 280):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("#graph svg").bounding_box()["width"] > 0.55 * width
    page.goto((folder / f"{GRAPH}.html").as_uri())
    drive_graph(page.frame_locator("iframe[title*='attack pathways']"))
    page.set_content(saved["page"])  # as it was when it was saved
    expect(page.locator("#told")).to_contain_text("FGSM", timeout=60_000)
    shutil.copy(folder / GRAPH / "graph.html", tmp_path)
    alone = browser.new_page()  # torn from what draws it
    alone.goto((tmp_path / "graph.html").as_uri())
    expect(alone.locator("#told")).to_contain_text("assets/vega.js two folders up, and is not there")
    dark = browser.new_page(color_scheme="dark")
    dark.goto((folder / GRAPH / "graph.html").as_uri())
    ink, paper = dark.locator("body").evaluate("b => [getComputedStyle(b).color, getComputedStyle(b).backgroundColor]")
    assert max(map(int, re.findall(r"\d+", paper))) < 60 < 180 < min(map(int, re.findall(r"\d+", ink)))
    assert (outside, errors) == ([], [])


def test_the_ledger_is_searched_sorted_and_filtered_as_a_file(home, monkeypatch, browser):
    """By keyboard, with what a screen reader hears, and with no request but for files."""
    from playwright.sync_api import expect

    monkeypatch.setattr(index.headless, "execute", finished.ledger_in_process)
    finished.finish(made=[f"up/{i}=up" for i in range(30)] + ["down", "sum=up"])
    finished.finish("02-other", made=("open", "down/most=down"))
    index.publish(finished.RUN, "laptop", with_index=False)
    path = index.index("laptop")
    page = browser.new_page(color_scheme="dark")
    outside, errors = [], []
    page.on("request", lambda r: outside.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.goto(path.as_uri())
    told, rows = page.get_by_role("status"), page.locator("#ledger tbody tr")
    expect(told).to_have_text("rows 1 to 25 of 34")
    page.get_by_role("searchbox", name="Search the ledger").press_sequentially("goes down")
    expect(told).to_have_text("rows 1 to 2 of 2 (of 34 in all)")
    page.get_by_role("button", name="Show all").press("Enter")
    expect(told).to_have_text("rows 1 to 25 of 34")
    # two filters at once, then the values in order
    page.get_by_label("verdict", exact=True).select_option(label="✘ contradicted")
    expect(rows).to_have_count(2)
    page.get_by_label("study", exact=True).select_option(label="02 other")
    expect(rows).to_have_count(1)
    assert (
        rows.first.locator("a").first.get_attribute("href") == "#run-02-other"
        and "It goes down/most" in rows.first.inner_text()
    )
    page.get_by_label("kind", exact=True).select_option("check")
    expect(rows).to_have_text(["No row has all of this."])
    page.get_by_role("button", name="Show all").press("Enter")
    by_value = page.get_by_role("columnheader", name=re.compile("value"))
    by_value.get_by_role("button").press("Enter")
    expect(by_value).to_have_attribute("aria-sort", "ascending")
    assert "It goes down" in rows.first.inner_text()
    page.get_by_role("link", name="report").first.click()
    assert page.url.endswith(f"{finished.RUN}.html#claim-down")
    assert (outside, errors) == ([], [])
    shutil.copy(path, home / "alone.html")  # torn from what searches it: all rows, and what is missing
    page.goto((home / "alone.html").as_uri())
    expect(page.locator("#ledger caption")).to_contain_text("It cannot be searched here")
    expect(rows).to_have_count(34)


def test_the_committed_reports_ask_the_network_for_nothing(browser):
    """Opened from the disk in the browser: no request leaves, no error in the console, every figure is drawn."""
    pages = [p for profile in ("laptop", "datasets") for p in sorted((paths.PROJECT / "figures" / profile).glob("*.html"))]
    assert len(pages) >= 4
    page, outside, errors = browser.new_page(), [], []
    page.on("request", lambda r: outside.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    for path in pages:
        page.goto(path.as_uri())
        page.wait_for_load_state("networkidle")
        assert (outside, errors) == ([], []), path
        broken = page.eval_on_selector_all("img", "imgs => imgs.filter(i => !i.naturalWidth).map(i => i.src)")
        assert broken == [], path
