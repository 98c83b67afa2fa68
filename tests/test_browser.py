"""The explorer in JupyterLab, driven in a real browser: Debian's chromium through playwright."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from lib import attention_shift, paths, profiles, training

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.browser


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """JupyterLab on a copy of the notebook with smoke parameters and a data folder of its own; yields its address."""
    if CHROMIUM is None:
        assert os.environ.get("CI") != "true", "CI must have chromium: .ci/run installs it"
        pytest.skip("no chromium on this machine; on Debian: apt-get install chromium")
    monkeypatch.setenv("STUDY_HOME", str(tmp_path / "home"))
    values = profiles.parameters("01-attention-shift", "smoke").model_dump()
    for config in attention_shift.networks(attention_shift.Parameters(**values)):
        training.trained(config)
    content = nbformat.read(profiles.notebook_of("01-attention-shift"), as_version=4)
    kept = [c for c in content.cells if {"parameters", "interactive"} & set(c.metadata.get("tags", []))]
    start = 'from lib import runs\nrun = runs.start("01-attention-shift", globals())\np = run.parameters'
    kept.insert(1, nbformat.v4.new_code_cell(start))
    kept[0].source = "\n".join(f"{k} = {v!r}" for k, v in values.items())
    content.cells = kept
    folder = tmp_path / "notebooks"
    folder.mkdir()
    nbformat.write(content, folder / "explore.ipynb")
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0",
        "--IdentityProvider.token=", f"--notebook-dir={folder}",
    ]  # fmt: skip
    own = {"JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings")}
    with (tmp_path / "lab.log").open("w") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log, env=os.environ | own)
        try:
            yield _address(tmp_path / "lab.log")
        finally:
            process.terminate()
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
        page.locator(".jp-Notebook .jp-Cell").first.click()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.locator("li[data-command='runmenu:run-all']").click()
        for _ in range(40):
            prompts = page.locator(".jp-InputArea-prompt").all_inner_texts()
            if any(p.strip() not in ("", "[ ]:") for p in prompts):  # [*]: or [1]:
                return
            page.wait_for_timeout(250)
    raise AssertionError(f"the cells did not start: {prompts}")


def test_the_explorer_answers_in_jupyterlab(lab, tmp_path):
    from playwright.sync_api import expect, sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1700, "height": 1200})
        outside = []
        page.on("request", lambda r: outside.append(r.url) if not r.url.startswith((lab, "data:", "blob:", "ws:")) else None)
        page.goto(f"{lab}/lab/tree/explore.ipynb")
        expect(page.locator(".jp-Notebook .jp-Cell")).not_to_have_count(0, timeout=60_000)
        expect(page.locator(".jp-NotebookPanel-toolbar [data-status=idle]")).to_be_visible(timeout=60_000)
        run_all(page)
        status = page.locator(".widget-html", has_text="NISSIM")
        expect(status).to_be_visible(timeout=120_000)
        picture = page.locator("img.widget-image")

        def changed(act):
            before = picture.get_attribute("src"), status.inner_text()
            act()
            expect(picture).not_to_have_attribute("src", before[0], timeout=60_000)
            expect(status).to_contain_text("NISSIM", timeout=60_000)
            assert status.inner_text() != before[1]  # the numbers changed with the picture

        slider = page.locator(".widget-hslider", has_text="eps").locator(".noUi-handle")
        changed(lambda: (slider.focus(), page.keyboard.press("ArrowRight")))
        images = page.locator(".widget-hslider", has_text="image").locator(".noUi-handle")
        changed(lambda: (images.focus(), page.keyboard.press("ArrowRight")))
        changed(lambda: page.get_by_label("network").select_option(label="deep (residual)"))
        changed(lambda: page.get_by_label("attack").select_option(label="PGD (10 steps)"))
        changed(lambda: page.get_by_label("method").select_option(label="Grad-CAM++"))

        mine = tmp_path / "mine.png"
        from PIL import Image

        Image.linear_gradient("L").convert("RGB").save(mine)
        before = picture.get_attribute("src")
        with page.expect_file_chooser() as chooser:
            page.locator(".widget-upload").click()
        chooser.value.set_files(mine)
        expect(picture).not_to_have_attribute("src", before, timeout=60_000)

        hostile = tmp_path / "hostile.png"
        hostile.write_text("this is no picture")
        with page.expect_file_chooser() as chooser:
            page.locator(".widget-upload").click()
        chooser.value.set_files(hostile)
        expect(page.locator(".widget-html", has_text="hostile.png cannot be read")).to_be_visible(timeout=60_000)
        if os.environ.get("STUDY_SCREENSHOT"):
            page.screenshot(path=os.environ["STUDY_SCREENSHOT"])
        assert [u for u in outside if not u.startswith("http://127.0.0.1")] == []
        browser.close()


def test_the_committed_reports_ask_the_network_for_nothing():
    """Opened from the disk in the browser: no request leaves, no error in the console, every figure is drawn."""
    if CHROMIUM is None:
        assert os.environ.get("CI") != "true", "CI must have chromium: .ci/run installs it"
        pytest.skip("no chromium on this machine; on Debian: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    pages = [p for profile in ("laptop", "datasets") for p in sorted((paths.PROJECT / "figures" / profile).glob("*.html"))]
    assert len(pages) >= 4
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for path in pages:
            page = browser.new_page()
            outside, errors = [], []
            page.on("request", lambda r, o=outside: o.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
            page.on("console", lambda m, e=errors: e.append(m.text) if m.type == "error" else None)
            page.goto(path.as_uri())
            page.wait_for_load_state("networkidle")
            assert (outside, errors) == ([], []), path
            broken = page.eval_on_selector_all("img", "imgs => imgs.filter(i => !i.naturalWidth).map(i => i.src)")
            assert broken == [], path
            page.close()
        browser.close()
