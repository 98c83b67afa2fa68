"""`python -m lib rehearse`: every paper profile has its miniatures and its reductions; the cheapest run from end to end."""

import subprocess
import sys
import types

import pytest

from lib.commands import rehearse
from lib.data import miniatures
from lib.networks import zoo
from lib.runs import profiles, rehearsal
from lib.runs.rehearsal import Rehearsed, Stage
from lib.system import paths

RUNS = profiles.declared_runs(rehearsal.PROFILE)
CHEAPEST = "03-interpretability-aware-training"
FEW = {"arms": ["normal", "adv", "int2"], "headline": ["normal", "adv"], "published_networks": False}


@pytest.mark.parametrize("run", RUNS)
def test_reductions_are_parameters_that_a_study_takes(run):
    """Valid together, smaller than the profile's values, and told in a line each; architectures and sizes are left alone."""
    p, changes = profiles.parameters(run, "paper"), rehearsal.reduced(run, 24)
    less = profiles.parameters(run, "paper", changes)
    assert less != p and not set(changes) & {"architectures", "arch", "size", "dataset", "weights", "device"}
    for name, value in changes.items():
        before = getattr(p, name)
        assert before is None or (len(value) < len(before) if isinstance(value, tuple) else value < before), name
        assert f"{name} " in rehearsal.told(run, changes)
    assert changes.get("images", 24) == 24 and changes.get("seeds", 1) == 1


def test_a_study_with_no_lists_of_its_own_is_reduced_too(monkeypatch):
    """Somebody's new one, with a profile `paper`: its numbers are cut, its lists are not."""
    run, lists = RUNS[1], dict(rehearsal.LISTS)
    whole = rehearsal.reduced(run)
    del lists[profiles.package(run)]
    monkeypatch.setattr(rehearsal, "LISTS", lists)
    found = rehearsal.reduced(run)
    assert found and found.items() <= whole.items() and not any(isinstance(v, tuple) for v in found.values())


@pytest.mark.parametrize("run", RUNS)
def test_true_batches_are_the_profiles(run):
    p, changes = profiles.parameters(run, "paper"), rehearsal.reduced(run, true_batches=True)
    assert not {"batch_size", "tune_batch"} & set(changes)
    if getattr(p, "epochs", 0) and hasattr(p, "batch_size"):
        assert changes["train_images"] >= 2 * p.batch_size
    profiles.parameters(run, "paper", changes)


@pytest.mark.parametrize("run", RUNS)
def test_every_paper_profile_has_its_miniatures(run, tmp_path, monkeypatch):
    """By name: nothing is drawn here but what takes no time."""
    asked = []
    for writer in ("_once", "_imagenet"):
        monkeypatch.setattr(miniatures, writer, lambda place, *_: asked.append(place))
    monkeypatch.setattr(Stage, "_weights", lambda self, name, folder: name == "resnet50")
    random = Stage(tmp_path).prepare(run, 8)
    p = profiles.parameters(run, "paper")
    needed = [d for d in rehearsal.data_of(p) if d != "photographs"]
    assert len(asked) == len(needed) and all(place.parent == tmp_path / "datasets" for place in asked)
    assert random == [n for n in rehearsal.published_of(p) if n == "resnet50"]


def test_an_unknown_data_set_is_refused_with_its_run(tmp_path, monkeypatch):
    changed = profiles.parameters(CHEAPEST, "paper", {"dataset": "folder:celebrities"})
    monkeypatch.setattr(profiles, "parameters", lambda *_: changed)
    with pytest.raises(ValueError, match=f"{CHEAPEST}: data set 'folder:celebrities' has no miniature"):
        Stage(tmp_path).prepare(CHEAPEST, 8)


def test_classes_that_a_run_names():
    """By WordNet number, by name, and by the numbers of study 4: African elephant and fire engine."""
    found = {run: rehearsal.classes_of(profiles.parameters(run, "paper")) for run in RUNS}
    tour = {"n02108422", "n02123159", "n07742313"}  # bull mastiff, tiger cat, Granny Smith
    assert tour <= set(found["00-grad-cam"]) and found["04-model-manipulation"] == ["n02504458", "n03345487"]
    assert {"n02132136", "n06794110"} <= set(found["06-attack-pathways"]) and not found["02-at-cnn"]


def test_published_networks_of_a_run():
    found = {run: rehearsal.published_of(profiles.parameters(run, "paper")) for run in RUNS}
    assert found["02-at-cnn"] == ["resnet18", "vgg19"] and found["04-model-manipulation"][-1] == "densenet121"
    assert "xception" in found["01-attention-shift"] and not found[CHEAPEST]
    assert all(zoo.kept(n).suffix == ".pth" for names in found.values() for n in names)


def test_random_weights_stand_where_published_ones_are_looked_for(tmp_path, monkeypatch):
    """torchvision and timm take them; what this machine has is linked instead, and not called random."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "own"))
    stage, folder = Stage(tmp_path / "stage"), tmp_path / "stage" / "torch" / "hub" / "checkpoints"
    assert stage._weights("resnet18", folder) and stage._weights("resnet18", folder)
    own = zoo.kept("resnet18")
    own.parent.mkdir(parents=True)
    (folder / own.name).rename(own)
    (folder / f"{own.name}.random").unlink()
    assert not stage._weights("resnet18", folder) and (folder / own.name).is_symlink()
    zoo.build("resnet18", classes=1000, channels=3, weights="imagenet")


def test_runs_in_turn(capsys):
    short = list(rehearsal.SHORT)
    assert [rehearsal.in_turn(i) for i in range(len(short) + 1)] == [*short, short[0]] and set(short) <= set(RUNS)
    assert rehearse._chosen([], "ff") == [short[255 % len(short)]] and len(rehearse._chosen([], "")) == 1
    assert rehearse._chosen([], None) == RUNS and rehearse._chosen([CHEAPEST], None) == [CHEAPEST]
    assert rehearse.main(["08-nothing"]) == 2 and "08-nothing is no run of the profile paper" in capsys.readouterr().err
    assert rehearse.main(["--turn", "zz"]) == 2 and "--turn zz: give a commit's hash" in capsys.readouterr().err
    assert rehearse.main([CHEAPEST, "--turn"]) == 2 and rehearse.main([CHEAPEST, "--images", "4"]) == 2


def test_memory_is_that_of_the_largest_process():
    """A child of the child that holds 300 MiB for half a second."""
    inner = "import time; held = bytearray(300 * 2**20); time.sleep(0.5)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    found = rehearsal._peak(subprocess.Popen([sys.executable, "-c", outer]))
    assert 300 < found / 2**20 < 400


@pytest.fixture
def few(monkeypatch):
    """Three arms."""
    reduced = rehearsal.reduced
    monkeypatch.setattr(rehearsal, "reduced", lambda *given, **options: reduced(*given, **options) | FEW)


def test_a_rehearsal_from_end_to_end(few, tmp_path, capsys):
    """It leaves everything below its folder, and the checkout as it was."""
    there = [sorted(p.rglob("*")) for p in (paths.PROJECT / "figures", paths.PROJECT / "data" / "results")]
    assert rehearse.main([CHEAPEST, "--folder", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert "images 200 → 8" in err and out.splitlines()[0].startswith("run") and out.splitlines()[1].endswith("GiB")
    [record] = (tmp_path / "home" / "data" / "results").rglob("run.json")
    assert CHEAPEST in str(record) and "custom-" in str(record)
    assert there == [sorted(p.rglob("*")) for p in (paths.PROJECT / "figures", paths.PROJECT / "data" / "results")]


def test_an_error_in_a_notebook_names_the_run(few, tmp_path, monkeypatch, capsys):
    prepare = Stage.prepare

    def broken(self, run, images):
        found = prepare(self, run, images)
        with next(self.folder.rglob("00-miniatures.py")).open("a", encoding="utf-8") as startup:
            startup.write("from lib.studies.interpretability_aware_training import plan\nplan.jobs = None\n")
        return found

    monkeypatch.setattr(Stage, "prepare", broken)
    assert rehearse.main([CHEAPEST, "--folder", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert f"the rehearsal of {CHEAPEST} failed after" in err and "'NoneType' object is not callable" in err
    assert out.splitlines()[1].endswith("FAILED")


def test_what_was_rehearsed_is_told_where_a_later_run_cannot_begin(monkeypatch, tmp_path, capsys):
    def first_alone(stage, run, arguments):
        if run != CHEAPEST:
            raise ValueError("it cannot begin")
        return Rehearsed(run, 8, 1.0, 1.0, 2**30)

    monkeypatch.setattr(rehearse, "_rehearse", first_alone)
    assert rehearse.main([CHEAPEST, RUNS[0], "--folder", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert "it cannot begin" in err and out.splitlines()[1].startswith(CHEAPEST) and "1.00 GiB" in out


def test_too_much_memory_is_a_failure(monkeypatch, tmp_path, capsys):
    done = Rehearsed(CHEAPEST, 8, 1.0, 1.0, 7 * 2**30)
    monkeypatch.setattr(rehearsal, "rehearse", lambda *_, **__: done)
    monkeypatch.setattr(Stage, "prepare", lambda *_: ["vgg19"])
    given = types.SimpleNamespace(images=8, true_batches=False, limit=6.0)
    found = rehearse._rehearse(Stage(tmp_path), CHEAPEST, given)
    assert found.error == "its largest process took 7.00 GiB of memory, more than 6"
    assert "the weights of vgg19 are random here" in capsys.readouterr().err
