"""Parameters, profiles, runs: strict before anything runs, nothing lost after a kill."""

import io
import json
import os
import signal
import subprocess
import sys
import threading

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
import yaml
from papermill.translators import PythonTranslator

from lib import __main__ as command
from lib.claims import warned
from lib.data import datasets
from lib.runs import headless, pictures, profiles, record, sources
from lib.runs import run as run_
from lib.studies.attention_shift import plan
from lib.system import files, paths

STUDIES = [p.stem for p in sorted(paths.notebooks().glob("[0-9]*.ipynb"))]
NAMED = [(run, profile) for profile in profiles.PROFILES if profile != "laptop" for run in profiles.declared_runs(profile)]


def smoke():
    """The values of smoke, as a notebook has them."""
    return profiles.parameters("01-attention-shift", "smoke").model_dump()


@pytest.mark.parametrize(("run", "profile"), [(r, q) for q in profiles.PROFILES for r in profiles.declared_runs(q)])
def test_every_profile_is_valid(run, profile):
    assert profiles.parameters(run, profile).profile == profile


@pytest.mark.parametrize("profile", profiles.PROFILES)
def test_every_study_is_in_every_profile(profile):
    """But for the tour of Grad-CAM, which is about embedded shapes with masks and about the presentation's networks."""
    missing = set(STUDIES) - set(profiles.declared_runs(profile)) - {profiles.LEDGER}
    assert missing == ({"00-grad-cam"} if profile == "datasets" else set())


@pytest.mark.parametrize("run", STUDIES)
def test_laptop_is_the_defaults(run):
    assert profiles.parameters(run, "laptop") == profiles.parameters_of(run)()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"typo": 1}, "unknown parameter 'typo'; there are profile"),
        ({"seeds": 2.5}, "seeds = 2.5"),
        ({"seeds": "three"}, "seeds = 'three'"),
        ({"eps": [0.1, -0.1]}, r"eps.1 = -0.1: Input should be greater than 0"),
        ({"device": "tpu"}, "device = 'tpu'"),
        ({"architectures": []}, "architectures"),
        ({"images": 0}, "images = 0"),
        ({"learning_rate": float("inf")}, "learning_rate = inf: Input should be a finite number"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(home, overrides, message):
    with pytest.raises(ValueError, match=message) as caught:
        headless.execute("01-attention-shift", "smoke", overrides)
    assert "nothing was run" in str(caught.value)
    assert not list(home.rglob("*.ipynb"))


@pytest.mark.parametrize("text", [b"images: [1", b"- a", b"images", b"\timages: 1", "images: 1".encode("utf-16")])
def test_a_profile_that_holds_no_values_is_refused_by_its_file(tmp_path, monkeypatch, text):
    (tmp_path / "x.yaml").write_bytes(text)
    monkeypatch.setattr(profiles, "profile_file", lambda run, profile: tmp_path / "x.yaml")
    with pytest.raises(ValueError, match=r"x\.yaml (cannot be read|holds \w+, not lines `parameter: value`)") as refused:
        profiles.parameters("01-attention-shift", "smoke")
    assert "\n" not in str(refused.value)


def test_scientific_notation_arrives_as_a_number():
    """YAML reads 1e-3 as text; the schema makes it a number."""
    assert profiles.parameters("01-attention-shift", "smoke", {"learning_rate": "1e-3"}).learning_rate == 0.001


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("eps", (0.01, 0.05), (0.01, 0.05)),
        ("eps", [0.01, 0.05], (0.01, 0.05)),
        ("eps", (np.float64(0.01), np.float32(0.25)), (0.01, 0.25)),
        ("eps", "[0.01, 5e-2]", (0.01, 0.05)),  # papermill -p eps "[0.01, 5e-2]"
        ("architectures", ("plain", "residual"), ("plain", "residual")),
        ("architectures", "(plain, residual)", ("plain", "residual")),
        ("architectures", "[plain]", ("plain",)),
        ("augment", (), ()),
        ("train_images", None, None),
        ("train_images", "None", None),
        ("train_images", np.int64(64), 64),
        ("dataset", "folder:(a, b)", "folder:(a, b)"),  # a text stays one
        ("dataset", "[x]", "[x]"),
    ],
)
def test_whatever_papermill_writes_arrives_as_it_was(name, value, expected):
    """papermill's API writes tuples, and what it does not know, as text in quotes; YAML has its own None."""
    written = {}
    exec(PythonTranslator.codify({name: value}), written)
    given = smoke() | {name: written[name]}
    assert getattr(profiles.validated(plan.Parameters, given), name) == expected
    dumped = yaml.safe_load(yaml.safe_dump({name: written[name]}))
    assert getattr(profiles.parameters("01-attention-shift", "smoke", dumped), name) == expected


@pytest.mark.parametrize("value", ["(0.01, 0.05", "(0.01, x)", "[[0.1]]", "{0.1: 2}", "(0.05; 0.01)", "__import__('os')"])
def test_what_is_no_tuple_is_refused_as_before(value):
    with pytest.raises(ValueError, match="nothing was run"):
        profiles.parameters("01-attention-shift", "smoke", {"eps": value})


def test_unknown_runs_and_profiles_are_refused():
    with pytest.raises(ValueError, match="no study '08-nothing'; there are 00-grad-cam"):
        profiles.parameters("08-nothing", "laptop")
    with pytest.raises(ValueError, match="no profile 'desktop'; it has smoke, laptop"):
        profiles.parameters("01-attention-shift", "desktop")


def test_a_variant_is_named_by_its_file_and_an_unknown_profile_is_refused(home, monkeypatch, tmp_path):
    folder = tmp_path / "profiles" / "laptop"
    folder.mkdir(parents=True)
    (folder / "01-attention-shift.few.yaml").write_text("images: 20\n")
    monkeypatch.setattr(profiles, "profile_file", lambda run, profile: tmp_path / "profiles" / profile / f"{run}.yaml")
    chosen = profiles.parameters("01-attention-shift.few", "laptop")
    assert (chosen.variant, chosen.images) == ("few", 20)
    run = run_.start("01-attention-shift", chosen.model_dump())
    assert run.official and run.name == "01-attention-shift.few"
    with pytest.raises(ValueError, match="unknown profile 'lptop'"):
        run_.start("01-attention-shift", {"profile": "lptop"})


def test_only_a_profiles_own_parameters_write_to_its_folders(home):
    official = run_.start("01-attention-shift", {"profile": "laptop"})
    assert official.results == home / "data/results/laptop/01-attention-shift"
    tried = run_.start("01-attention-shift", {"profile": "laptop", "seeds": 1, "unrelated": "ignored"})
    assert tried.profile.startswith("custom-") and tried.results != official.results
    again = run_.start("01-attention-shift", {"profile": "laptop", "seeds": 1})
    assert again.profile == tried.profile


def as_papermill_has_it(run, **injected):
    """The names of a notebook after its parameters cell and what papermill's -p puts below it."""
    cells = nbformat.read(profiles.notebook_of(run), as_version=4).cells
    given = {}
    exec(next(c.source for c in cells if "parameters" in c.metadata.get("tags", [])), given)
    return given | injected


@pytest.mark.parametrize(("run", "profile"), NAMED)
def test_a_profile_is_not_named_without_its_values(home, run, profile):
    """papermill -p profile smoke, or the cell edited: the notebook's own values would run under another name."""
    study, _, variant = run.partition(".")
    for own in ({}, {"device": "cpu"}):
        with pytest.raises(ValueError, match="nothing was run") as refused:
            run_.start(study, as_papermill_has_it(study, profile=profile, variant=variant, **own))
        said = str(refused.value)
        assert f"use `python -m lib run {run} --profile {profile}`, or papermill -f " in said and "\n" not in said
        assert said.endswith(str(profiles.profile_file(run, profile)))


def test_ones_own_changes_to_a_profile_run(home):
    """With all its values but some: those are no profile's, and go to folders of their own."""
    base = yaml.safe_load(profiles.profile_file("01-attention-shift", "smoke").read_text(encoding="utf-8"))
    for own in ({"images": 50}, {"images": 50, "seeds": 3, "variant": "mine"}):  # seeds: 3 is the notebook's
        for given in (base | own, profiles.parameters("01-attention-shift", "smoke", own).model_dump()):
            run = run_.start("01-attention-shift", as_papermill_has_it("01-attention-shift", **given))
            assert (run.parameters.profile, run.parameters.epochs, run.official) == ("smoke", 1, False)
    assert run_.start("01-attention-shift", as_papermill_has_it("01-attention-shift", images=50)).parameters.images == 50
    with pytest.raises(ValueError, match="profile=smoke alone does not bring its values"):  # one value by chance
        run_.start("01-attention-shift", as_papermill_has_it("01-attention-shift", profile="smoke", images=24))


@pytest.mark.parametrize(
    ("run", "profile", "own", "meant"),
    [
        ("01-attention-shift", "laptop", {"profile": "smoke"}, "`python -m lib run 01-attention-shift --profile smoke`"),
        ("02-at-cnn", "datasets", {"variant": "cifar10"}, "`python -m lib run 02-at-cnn.cifar10 --profile datasets`"),
        ("02-at-cnn.cifar10", "datasets", {"variant": ""}, "`python -m lib run 02-at-cnn --profile datasets`"),
    ],
)
def test_a_profile_is_no_parameter_among_others(run, profile, own, meant):
    """--set profile=smoke. A variant that no profile knows is a name of one's own."""
    with pytest.raises(ValueError, match="would not bring its values, nothing was run") as refused:
        profiles.parameters(run, profile, own)
    assert str(refused.value).endswith(f"use {meant}")
    assert profiles.parameters(run, profile, {"variant": "mine"}).variant == "mine"


def test_a_notebook_in_jupyterlab_leaves_the_figures_of_the_study_alone(home, monkeypatch):
    """Its measurements are those of the study; what is run headlessly from a cell there is the study's own."""
    monkeypatch.setenv(run_.IN_JUPYTER, "notebooks/01-attention-shift.ipynb")
    run = run_.start("01-attention-shift", smoke())
    assert run.figures == home / "data/figures/smoke/01-attention-shift" and str(run.figures) in run.card().data
    assert run.results == home / "data/results/smoke/01-attention-shift" and "figures" not in run.record()
    with headless._headless():
        begun = run_.start("01-attention-shift", smoke())
    assert begun.figures == home / "figures/smoke/01-attention-shift"
    assert os.environ[run_.IN_JUPYTER] == "notebooks/01-attention-shift.ipynb"


def test_tables_are_computed_once_for_their_key(home, capsys, monkeypatch):
    run = run_.start("01-attention-shift", smoke())
    calls = []

    def compute():
        calls.append(1)
        return pd.DataFrame({"a": [1, 2]})

    for key in (["x", 1], ["x", 1], ["x", 2]):
        assert run.cached("part", key, compute)["a"].to_list() == [1, 2]
    assert len(calls) == 2
    monkeypatch.setattr(run_, "LOADED", 0.0)  # the modules on disk are newer than those in memory
    run.cached("part", ["x", 1], compute)
    assert len(calls) == 3 and "restart the kernel" in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setenv("STUDY_HOME", str(home))
    monkeypatch.setattr(sources, "digest", lambda files: "another kernel")  # a table does not outlive its code
    run.cached("part", ["x", 1], compute)
    assert len(calls) == 4
    for path in (run.results / "parts").iterdir():
        path.write_bytes(b"damaged")
    run.cached("part", ["x", 1], compute)
    assert len(calls) == 5 and "damaged" in capsys.readouterr().err


def test_warnings_are_stored_and_found_again_with_what_was_measured(home, capsys):
    def compute():
        warned.tell("a <net>", "PGD", 0.1, ["zero gradients"])
        return pd.DataFrame({"a": [1]})

    run = run_.start("01-attention-shift", smoke())
    assert "there were none" in run.warnings().data
    run.side_by_side([2, 1], lambda n: run.cached(f"part-{n}", n, compute), "done", workers=2)
    again = run_.start("01-attention-shift", smoke())
    capsys.readouterr()
    again.cached("part-1", 1, compute)
    assert "zero gradients" not in capsys.readouterr().err  # nothing was computed
    shown = again.warnings().data
    assert "a &lt;net&gt;" in shown and "zero gradients" in shown and "Warnings of the attacks" in shown
    stored = pd.read_parquet(again.results / "warnings.parquet")
    assert stored.to_dict("records") == [{"network": "a <net>", "attack": "PGD", "eps": 0.1, "warning": "zero gradients"}]
    for path in (run.results / "parts").glob("*.warnings.parquet"):
        path.unlink()
    run_.start("01-attention-shift", smoke()).cached("part-1", 1, compute)  # never a table without its warnings
    assert "zero gradients" in capsys.readouterr().err


def test_every_study_shows_its_warnings():
    for run in (s for s in STUDIES if s != profiles.LEDGER):
        cells = nbformat.read(paths.notebooks() / f"{run}.ipynb", as_version=4).cells
        assert sum(c.source == "run.warnings()" for c in cells) == 1, run


def test_work_side_by_side_keeps_its_order(home):
    run = run_.start("01-attention-shift", smoke())
    table = run.each([3, 1, 2], lambda n: pd.DataFrame({"n": [n] * n}), workers=2)
    assert table.n.to_list() == [3, 3, 3, 1, 2, 2]


@pytest.mark.parametrize(("weights", "at_once"), [(400_000, 3), (300 * 2**20, 2), (600 * 2**20, 1), (10**12, 1)])
def test_networks_that_are_large_are_worked_on_one_after_the_other(home, monkeypatch, weights, at_once):
    monkeypatch.setattr(run_.models, "bytes_of", lambda arch: weights)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    run, lock, working = run_.start("01-attention-shift", smoke()), threading.Lock(), []
    together = threading.Barrier(at_once)

    def work(n: int) -> pd.DataFrame:
        with lock:
            working.append(n)
            assert len(working) <= at_once
        together.wait(20)  # as many as may do meet here
        with lock:
            working.remove(n)
        return pd.DataFrame({"n": [n]})

    assert run.each(range(6), work).n.to_list() == list(range(6))


def test_figures_need_alt_text_and_bring_their_numbers(home):
    import matplotlib.pyplot as plt

    plt.close("all")  # whatever other tests have left open
    run = run_.start("01-attention-shift", smoke())
    with pytest.raises(ValueError, match="needs alt text"):
        run.show(plt.figure(), "empty", " ")
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    shown = run.show(fig, "line", "A line that rises", pd.DataFrame({"x": [0, 1]}), line_art=True, claims=("rises",))
    assert files.read_json(run.figures / "figures.json")[0]["claims"] == ["rises"]
    assert {p.name for p in run.figures.iterdir()} == {"line.png", "line.svg", "line.csv", "figures.json"}
    assert shown.metadata == {"alt": "A line that rises", "file": "01-attention-shift/line.png"}
    assert not plt.get_fignums()[1:]  # the shown figure is closed
    plt.close("all")


def test_long_tables_are_compressed_and_read_the_same(home):
    """As CSV or as CSV.GZ, never both; the same numbers are the same bytes, whenever they are written."""
    run = run_.start("01-attention-shift", smoke())
    run.figures.mkdir(parents=True)
    few = b"x\n" + b"1.5\n" * 10
    many = b"x\n" + b"2.5\n" * pictures.LONGEST
    for content, name in ((few, "a.csv"), (many, "a.csv.gz"), (few, "a.csv")):
        written = pictures.write_table(run.figures, "a", content)
        assert [p.name for p in run.figures.iterdir()] == [written.name] == [name]
        assert pd.read_csv(written).to_csv(index=False).encode() == content
    packed = pictures.write_table(run.figures, "a", many)
    before = packed.read_bytes()
    assert len(before) < len(many) / 50 and pictures.write_table(run.figures, "a", many).read_bytes() == before


def test_wide_figures_of_pictures_are_drawn_with_fewer_pixels(home):
    import matplotlib.pyplot as plt
    from PIL import Image

    pixels = {}
    for profile, given in (("laptop", {"profile": "laptop"}), ("smoke", smoke())):
        run = run_.start("01-attention-shift", given)
        for name, width, line_art in (("narrow", 5, False), ("wide", 20, False), ("drawing", 20, True)):
            fig, ax = plt.subplots(figsize=(width, 2))
            ax.imshow(np.eye(3), aspect="auto")
            run.show(fig, name, "A diagonal", line_art=line_art)
            with Image.open(run.figures / f"{name}.png") as image:
                pixels[profile, name] = image.width
    fine = {("laptop", "narrow"): 600, ("laptop", "wide"): pictures.WIDEST, ("laptop", "drawing"): 2400}
    coarse = {("smoke", "narrow"): 250, ("smoke", "wide"): 1000, ("smoke", "drawing"): 1000}
    assert pixels == pytest.approx(fine | coarse, rel=0.05)


def test_pictures_lose_bytes_and_nothing_else(tmp_path):
    from PIL import Image

    def kept(image, line_art=False, **options):
        png = io.BytesIO()
        image.save(png, "PNG", **options)
        file = pictures.write_picture(tmp_path, "a", png.getvalue(), line_art)
        assert [p.name for p in tmp_path.iterdir()] == [file.name]  # what it was before is no longer there
        assert file.stat().st_size < len(png.getvalue())
        with Image.open(file) as opened:
            return file.suffix, len(png.getvalue()), opened.convert("RGB")

    small = Image.effect_noise((40, 30), 80).convert("RGBA")
    line = Image.new("RGBA", (60, 60), "white")
    line.paste("#0072B2", (10, 10, 50, 12))
    for image, line_art in ((small, False), (line, True)):
        suffix, _, found = kept(image, line_art, compress_level=0)
        assert suffix == ".png" and found.tobytes() == image.convert("RGB").tobytes()
    photograph = datasets.load("photographs", "test", size=224, channels=3).images[0]
    large = Image.fromarray((255 * photograph.permute(1, 2, 0).numpy()).round().astype(np.uint8)).resize((448, 448))
    suffix, before, found = kept(large)
    assert suffix == ".webp" and before > pictures.LARGEST and found.size == large.size
    assert np.abs(np.asarray(found, float) - np.asarray(large)).mean() < 5
    assert kept(small)[0] == ".png"


def test_drawings_lose_bytes_and_nothing_that_is_drawn():
    """Every text and every mark is there still, each point within a hundredth of its place."""
    import re

    import matplotlib.pyplot as plt

    fig, ax = plt.subplots()
    ax.plot([0, 1, 2], [3, 1, 2], marker="o", label="a line")
    ax.legend()
    buffer = io.BytesIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(fig)
    small = pictures.plainer(buffer.getvalue()).decode()
    assert len(small) < 0.7 * len(buffer.getvalue()) and small == pictures.plainer(buffer.getvalue()).decode()
    before, after = ([*re.findall(r"<use[^>]*>", s)] for s in (buffer.getvalue().decode(), small))
    assert len(before) == len(after)
    places = [[tuple(map(float, re.findall(r'\b[xy]="([-\d.]+)"', u))) for u in uses] for uses in (before, after)]
    pairs = [(a, b) for a, b in zip(*places, strict=True) if len(a) == len(b) == 2]
    assert len(pairs) > 10 and np.abs(np.subtract(*map(np.array, zip(*pairs, strict=True)))).max() < 0.01


def test_code_of_a_run_is_what_its_results_depend_on():
    names = {p.stem for p in sources.of_measurement("01-attention-shift")}
    assert {"measure", "plan", "activation_maps", "steps", "comparison", "similarity", "hooks", "cache", "models"} <= names
    assert not {"explorer", "claims", "widgets", "run", "report"} & names


def test_parameters_of_notebook_and_model_agree():
    for run in STUDIES:
        declared = papermill.inspect_notebook(str(profiles.notebook_of(run)))
        model = profiles.parameters_of(run)
        assert sorted(declared) == sorted(model.model_fields), run
        for name, found in declared.items():
            default = model.model_validate({name: eval(found["default"])})  # literals, checked in test_notebooks
            assert getattr(default, name) == model.model_fields[name].default, (run, name)


def runner(home, *arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "lib", "run", *arguments]
    environment = os.environ | {"STUDY_HOME": str(home)}
    return subprocess.Popen(command, cwd=paths.PROJECT, stderr=subprocess.PIPE, text=True, env=environment)


def kernel_of(process) -> int:
    children = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    return next(int(line.split()[0]) for line in children.stdout.splitlines() if "ipykernel" in line)


def test_a_killed_run_is_no_success_and_resumes(home):
    """kill -9 the kernel in the middle of the measurement, then the runner; run again: what was finished is kept."""
    four = {"architectures": ["plain"], "seeds": 4}
    p = profiles.parameters("01-attention-shift", "smoke", four)
    folder = home / "data/results" / run_.start("01-attention-shift", p.model_dump()).profile / "01-attention-shift"
    few = ["--profile", "smoke", "--no-report", *(f"--set={name}={value}" for name, value in four.items())]

    def kept() -> dict[str, int]:
        """What is finished: networks, and measurements with their warnings, which are written first."""
        parts = [p for p in folder.glob("parts/[!.]*") if (folder / "parts" / f"{p.name.split('.')[0]}.parquet").exists()]
        return {p.name: p.stat().st_mtime_ns for p in [*parts, *paths.models().glob("*.safetensors")]}

    before: dict[str, int] = {}
    for victim, moment in (("kernel", "measured 1 of 4"), ("runner", "measured 2 of 4")):
        said = ""
        with runner(home, "01-attention-shift", *few) as process:
            for line in process.stderr:
                said += line
                if moment in line:
                    os.kill(kernel_of(process) if victim == "kernel" else process.pid, signal.SIGKILL)
                    break
            rest = process.stderr.read()
        assert process.returncode != 0, said + rest
        assert not (folder / "run.json").exists() and not (folder / "executed.ipynb").exists()
        if victim == "kernel":
            assert (folder / "failed.ipynb").exists() and "failed; read" in rest
        assert sum(n.endswith(".parquet") for n in kept()) >= 2 and len(list(paths.models().glob("*.safetensors"))) == 4
        assert {n: t for n, t in kept().items() if n in before} == before
        before = kept()
    with runner(home, "01-attention-shift", *few) as again:
        said = again.stderr.read()
    assert again.returncode == 0, said
    assert "training" not in said
    assert {n: t for n, t in kept().items() if n in before} == before
    assert (folder / "run.json").exists() and not (folder / "failed.ipynb").exists()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epss=[0.1]", "unknown parameter 'epss'"),
        ("typo=ü", "unknown parameter 'typo'"),
        ("seeds", "--set takes NAME=VALUE"),
        ("eps=[0.1", "--set eps=[0.1: '[0.1' is no YAML"),
    ],
)
def test_the_command_says_what_is_wrong_in_a_line(home, capsys, assignment, message):
    assert command.main(["run", "01-attention-shift", "--profile", "smoke", "--set", assignment]) == 2
    said = capsys.readouterr().err
    assert message in said and "Traceback" not in said


def test_the_record_says_what_was_run(home):
    card = run_.start("01-attention-shift", {"profile": "laptop"}).record()
    assert {"run", "profile", "parameters", "device", "versions", "started"} <= set(card)
    assert json.loads(json.dumps(card)) == card and set(record.VERSIONS_OF) <= set(card["versions"])
    assert files.digest_of(card["parameters"]) == files.digest_of(plan.Parameters().model_dump(mode="json"))
