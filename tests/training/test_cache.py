import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
import safetensors.torch
import torch
from PIL import Image
from pydantic import ValidationError

from lib import __main__
from lib.attacks import projected
from lib.data import datasets
from lib.networks import models
from lib.runs import graph
from lib.studies.grad_cam import measure, plan
from lib.system import devices, files, paths
from lib.training import cache, evaluate, loop, objectives
from lib.training import config as config_
from lib.training import weights as weights_
from lib.training.cache import trained
from lib.training.config import TrainConfig

TINY = TrainConfig(dataset="digits", size=16, channels=1, limit=192, arch="plain", epochs=3, batch_size=32)
LOSSES = {"plain": [2.2743, 2.0527], "residual": [2.247, 1.9756], "inception": [2.2977, 2.059], "small": [2.3006, 2.2836]}


def test_trains_and_loads_the_same_network(home, capsys):
    first = trained(TINY)
    assert first.history[-1]["loss"] < first.history[0]["loss"] and not first.model.training
    said = capsys.readouterr().err
    assert "digits/plain seed 0: epoch 3/3" in said and "s left" in said
    second = trained(TINY)
    assert capsys.readouterr().err == ""  # nothing is done again
    assert all(
        torch.equal(a, b) for a, b in zip(first.model.state_dict().values(), second.model.state_dict().values(), strict=True)
    )
    record = json.loads(first.path.with_suffix(".json").read_text())
    assert record["config"]["arch"] == "plain" and record["data"]["images"] == 192
    assert {"digest", "history", "versions", "recipe"} <= set(record)
    assert not list(paths.models().glob("*.part")) and not list(paths.models().glob("*.partial*"))


def test_the_key_is_everything_that_decides_the_weights():
    base = TINY.key("data")
    assert base != TINY.key("other data")
    for change in ({"seed": 1}, {"epochs": 4}, {"lr": 0.05}, {"augment": ()}, {"options": {"eps": 0.1}}, {"threads": 2}):
        assert TINY.model_copy(update=change).key("data") != base
    assert TrainConfig.model_validate_json(TINY.model_dump_json()).key("data") == base


def test_fields_that_came_later_leave_older_keys_alone():
    later = ("start", "snapshots", "teacher", "maps", "maps_options", "maps_follow", "label")
    older = {k: v for k, v in TINY.model_dump().items() if k not in later}
    assert TINY.key("data") == files.digest_of([config_.RECIPE, older, "data"])
    tuned = TINY.model_copy(update={"start": TINY})
    changes = ({"snapshots": True}, {"teacher": TINY}, {"maps": "a:b"}, {"maps_options": {"a": 1}}, {"maps_follow": False})
    assert len({c.key("data") for c in (TINY, tuned, *(TINY.model_copy(update=u) for u in changes))}) == 7
    assert tuned._deciding()["start"] == older
    assert TrainConfig.model_validate_json(tuned.model_dump_json()) == tuned


def test_recipe_guard(home):
    """The losses of a short run. If this fails, a change altered trained weights: raise RECIPE and set these again."""
    for arch, losses in LOSSES.items():
        config = TINY.model_copy(update={"arch": arch, "epochs": 2, "augment": ("flip", "shift"), "size": 28, "lr": 0.05})
        assert [h["loss"] for h in trained(config).history] == pytest.approx(losses, rel=2e-2), (arch, config_.RECIPE)


def test_a_network_that_was_just_trained_is_laid_out_as_a_loaded_one(home):
    """Sums in another order would differ in their last bits, which signs of a teacher's maps show."""
    config = TINY.model_copy(update={"seed": 8, "epochs": 1})
    fresh, loaded = (trained(config).model for _ in range(2))
    layouts = [{k: v.stride() for k, v in model.state_dict().items()} for model in (fresh, loaded)]
    assert layouts[0] == layouts[1]
    assert all(p.grad is None for p in fresh.parameters())  # as large as the network, and of no use


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_goes_on_from_its_last_epoch(home, capsys, optimizer):
    """Interrupted after two epochs, the run ends with the very weights of an unbroken one."""
    config = TINY.model_copy(update={"seed": 5, "optimizer": optimizer, "lr": 0.01})
    whole = trained(config)
    weights = {k: v.clone() for k, v in whole.model.state_dict().items()}
    for f in paths.models().iterdir():
        f.unlink()

    class Stop(Exception):
        pass

    def stop(row):
        if row["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        trained(config, on_epoch=stop)
    capsys.readouterr()
    again = trained(config)
    said = capsys.readouterr().err
    assert "going on after epoch 1" in said and "epoch 1/3" not in said  # stopped in epoch 2's report, before it was stored
    assert all(torch.equal(weights[k], v) for k, v in again.model.state_dict().items())
    assert [h["epoch"] for h in again.history] == [1, 2, 3]


def test_a_killed_process_resumes(home):
    """kill -9 in the middle of training, then the same call in a new process."""
    config = TINY.model_copy(update={"epochs": 12, "optimizer": "adam", "lr": 0.01, "seed": 3})
    command = [
        sys.executable,
        "-m",
        "lib",
        "train",
        "--config",
        config.model_dump_json(),
        "--record",
        str(home / "record.json"),
    ]
    process = subprocess.Popen(
        command, cwd=paths.PROJECT, stderr=subprocess.PIPE, text=True, env=os.environ | {"STUDY_HOME": str(home)}
    )
    for line in process.stderr:
        if "epoch 4/12" in line:
            process.send_signal(signal.SIGKILL)
            break
    process.stderr.close()
    process.wait()
    assert not (home / "record.json").exists() and list(paths.models().glob("*.partial.safetensors"))
    done = subprocess.run(
        command, cwd=paths.PROJECT, capture_output=True, text=True, env=os.environ | {"STUDY_HOME": str(home)}, check=True
    )
    assert "going on after epoch" in done.stderr and "epoch 1/12" not in done.stderr
    assert (home / "record.json").exists() and not list(paths.models().glob("*.partial*"))


def test_what_a_killed_process_left_half_written_goes(home):
    path = trained(TINY).path
    path.unlink()
    left, of_others = (path.parent / f".{name}.partial.safetensors.x1.part" for name in (path.stem, "other"))
    left.write_bytes(b"half")
    of_others.write_bytes(b"half")  # its owner may still be writing
    trained(TINY)
    assert not left.exists() and of_others.exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "no record", "bad record"])
def test_a_damaged_file_is_noticed_and_trained_again(home, capsys, damage):
    config = TINY.model_copy(update={"epochs": 1})
    path = trained(config).path
    good = path.read_bytes()
    if damage == "cut":
        path.write_bytes(good[:1000])
    elif damage == "flipped":
        path.write_bytes(good[:-10] + b"0123456789")
    elif damage == "no record":
        path.with_suffix(".json").unlink()
    else:
        path.with_suffix(".json").write_text("{")
    capsys.readouterr()
    trained(config)
    assert "training digits/plain" in capsys.readouterr().err
    assert path.read_bytes() == good


@pytest.mark.parametrize("damage", ["nothing", "flipped"])
def test_a_damaged_checkpoint_starts_over(home, capsys, damage):
    class Stop(Exception):
        pass

    def stop(row):
        if row["epoch"] == 2:
            raise Stop

    path = trained(TINY).path
    good = path.read_bytes()
    path.unlink()
    with pytest.raises(Stop):
        trained(TINY, on_epoch=stop)
    checkpoint = path.with_suffix(".partial.safetensors")
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(b"nothing" if damage == "nothing" else whole[:-8] + bytes(b ^ 255 for b in whole[-8:]))
    trained(TINY)
    assert "starting from the first epoch" in capsys.readouterr().err
    assert path.read_bytes() == good


def _train(home, started):
    os.environ["STUDY_HOME"] = str(home)
    started.wait()
    trained(TINY.model_copy(update={"seed": 9}))


def test_two_runs_at_once_train_one_network(home, capfd):
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    jobs = [context.Process(target=_train, args=(home, started)) for _ in range(2)]
    for job in jobs:
        job.start()
    time.sleep(0.5)
    started.set()
    for job in jobs:
        job.join()
        assert job.exitcode == 0
    assert capfd.readouterr().err.count("training digits/plain seed 9") == 1


def test_adversarial_training_resists_more_than_standard(home):
    config = TrainConfig(dataset="digits", size=16, channels=1, limit=400, arch="plain", epochs=6, batch_size=32, lr=0.05)
    robust = config.model_copy(update={"objective": "adversarial", "options": {"eps": 0.1, "steps": 3}})
    data = cache.images_of("digits", "test", 16, 1, 200)
    kept = []
    for c in (config, robust):
        model = trained(c).model
        x_adv = projected.pgd(model, data.images, data.labels, eps=0.1, steps=10, judge=False).x_adv
        kept.append((evaluate.predictions(model, x_adv) == data.labels).float().mean().item())
    assert kept[1] > kept[0] + 0.2, kept


def test_augmentation_moves_images_whole():
    x = torch.rand(50, 1, 12, 12)
    config = TINY.model_copy(update={"augment": ("flip", "shift"), "shift": 2})
    out = loop.augmented(x, config, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x, (2,) * 4, mode="reflect")
    for image, before, flipped in zip(out, padded, padded.flip(3), strict=True):
        windows = [w[:, i : i + 12, j : j + 12] for w in (before, flipped) for i in range(5) for j in range(5)]
        assert any(torch.equal(image, w) for w in windows)
    assert torch.equal(loop.augmented(x, TINY.model_copy(update={"augment": ()}), torch.Generator()), x)


def test_learning_rate_warms_up_and_falls_to_zero():
    rates = [loop.learning_rate(TINY, t / 100) for t in range(101)]
    assert max(rates) == pytest.approx(0.1) and rates.index(max(rates)) == 20
    assert rates[0] < 0.005 and rates[-1] == pytest.approx(0, abs=1e-9)


def test_objectives_are_found_in_lib_or_refused():
    assert objectives.objective("standard") is objectives.standard
    assert objectives.objective("training.objectives:adversarial") is objectives.adversarial
    for name in ("nothing", "training:nothing", "nowhere:x"):
        with pytest.raises(ValueError, match=f"unknown objective '{name}'"):
            objectives.objective(name)


def test_an_exploding_loss_says_so(home):
    with pytest.raises(RuntimeError, match="lower lr"):
        trained(TINY.model_copy(update={"arch": "small", "lr": 1e6, "size": 28}))
    assert not list(paths.models().glob("*.safetensors"))


def test_bad_configurations_are_refused(home):
    for bad in ({"arch": "vgg99"}, {"epochs": -1}, {"lr": -1.0}, {"typo": 1}, {"epochs": 8.5}):
        with pytest.raises(ValidationError):
            TrainConfig(**{"dataset": "digits", "arch": "plain"} | bad)
    with pytest.raises(ValueError, match="fewer than one batch"):
        trained(TINY.model_copy(update={"limit": 10}))


def test_the_command_says_what_is_wrong(home, capsys):
    for config, message in (
        ("{", "error:"),
        (TINY.model_copy(update={"dataset": "folder:none"}).model_dump_json(), "Lay your images out"),
    ):
        assert __main__.main(["train", "--config", config, "--record", str(home / "r.json")]) == 1
        said = capsys.readouterr().err
        assert message in said and "Traceback" not in said


def test_a_full_disk_keeps_what_was_trained(home, monkeypatch):
    """The weights cannot be written: the message says so, the last checkpoint stays, and the next call goes on from it."""

    def full(tensors, path):
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", full)
        with pytest.raises(OSError, match=r"the disk is full; .* was not written"):
            trained(TINY)
    assert [p.name.split(".", 1)[1] for p in paths.models().glob("*.safetensors")] == ["partial.safetensors"]
    assert len(trained(TINY).history) == 3


def test_device_is_chosen_or_set():
    assert devices.device("cpu").type == "cpu"
    assert devices.device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("device", ["cuda"])
def test_gpu_options(home, device):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here: mixed precision and compile are checked where there is one")
    config = TINY.model_copy(update={"precision": "bfloat16", "compile": True})
    assert trained(config, device_name=device).history[-1]["loss"] < 2.3


def test_mixed_precision_trains_on_the_cpu_too(home):
    config = TINY.model_copy(update={"precision": "bfloat16", "epochs": 2})
    found = trained(config)
    assert found.history[-1]["loss"] < found.history[0]["loss"]
    assert next(found.model.parameters()).dtype == torch.float32


def test_models_of_every_family_train(home):
    for arch in models.SMALL_NETWORKS:
        config = TINY.model_copy(update={"arch": arch, "epochs": 1, "size": 28, "lr": 0.02})
        assert trained(config).history[0]["loss"] < 3


def test_a_stepped_rate_falls_where_it_is_told():
    config = TrainConfig(dataset="digits", arch="small", lr=1.0, schedule="step:0.57,0.855")
    rates = [loop.learning_rate(config, p) for p in (0.0, 0.56, 0.57, 0.85, 0.86)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    half = config.model_copy(update={"schedule": "step"})
    assert [loop.learning_rate(half, p) for p in (0.49, 0.5, 0.8)] == pytest.approx([1, 0.1, 0.01])
    for wrong in ("step:", "step:2", "step:0.5,", "cosine"):
        with pytest.raises(ValueError, match="should match pattern"):
            TrainConfig(dataset="digits", arch="small", schedule=wrong)


def test_fine_tuning_starts_where_another_training_ended(home):
    tuned = TINY.model_copy(update={"start": TINY, "epochs": 2, "lr": 1e-3, "snapshots": True, "seed": 9})
    found = trained(tuned)
    states = [found.after(e).state_dict() for e in range(3)]
    first, last = trained(TINY).model.state_dict(), found.model.state_dict()
    assert all(torch.equal(states[0][k], first[k]) and torch.equal(states[2][k], last[k]) for k in first)
    stopped = trained(tuned.model_copy(update={"stop": 6})).model.state_dict()  # one epoch of the same run
    assert all(torch.equal(states[1][k], stopped[k]) for k in stopped)
    assert not torch.equal(states[0]["net.head.weight"], states[1]["net.head.weight"])
    other = TINY.model_copy(update={"seed": 1})
    assert trained(tuned.model_copy(update={"start": other})).path != found.path
    with pytest.raises(ValueError, match="keeps no weights of epoch 3; it has 2 epochs"):
        found.after(3)
    with pytest.raises(ValueError, match="keeps no weights of epoch 1"):
        trained(TINY).after(1)


@pytest.mark.parametrize("harm", ["missing", "changed"])
def test_a_snapshot_that_is_lost_is_made_again(home, capsys, harm):
    config = TINY.model_copy(update={"snapshots": True, "epochs": 2})
    found = trained(config)
    kept = weights_._snapshot(found.path, 1)
    before = kept.read_bytes()
    kept.unlink() if harm == "missing" else kept.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    again = trained(config)
    assert "is damaged" in capsys.readouterr().err and kept.read_bytes() == before
    assert again.after(1).training is False


def test_networks_of_one_depth_share_jobs():
    """Those of a study's own objective, or of few images together; fewer where an attack is in the inner loop or others come
    first; no two jobs need each other."""
    base, other = (TINY.model_copy(update={"seed": i, "limit": graph.SHARED}) for i in range(2))
    own = TINY.model_copy(update={"objective": "studies.saliency_adversarial_training.objective:train"})
    tuned = [own.model_copy(update={"start": base, "lr": 0.01 * (i + 1)}) for i in range(6)]
    washed = [own.model_copy(update={"start": t, "seed": 2}) for t in tuned[:2]]
    taught = [own.model_copy(update={"teacher": other, "lr": 0.01})]
    attacked = [own.model_copy(update={"options": {"steps": 5}, "lr": 0.01 * (i + 1)}) for i in range(3)]
    configs = [base, tuned[0], washed[0], *tuned[1:3], other, *tuned[3:], *taught, washed[1], *attacked]
    assert [c.depth for c in (base, tuned[0], washed[0], taught[0], attacked[0])] == [0, 1, 2, 1, 0]
    found = graph.jobs(configs, together=6)
    assert [len(v) for v in found.values()] == [1, 1, 2, 2, 3, 2, 1, 2]
    assert sorted(c.digest for v in found.values() for c in v) == sorted(c.digest for c in configs)
    assert all(len({c.depth for c in v}) == 1 for v in found.values())
    few = [TINY.model_copy(update={"seed": i, "limit": graph.SHARED // 3 // TINY.epochs}) for i in range(3)]
    assert [len(v) for v in graph.jobs([base, *few], together=4).values()] == [1, 3]
    assert graph.jobs(configs) == {c.digest: [c] for c in configs}
    assert all(job == v[0].digest for job, v in found.items() if len(v) == 1)


def test_maps_decide_the_weights(home):
    """Corrected masks make another network, where the objective sees them, and only there."""
    import dataclasses

    data = cache.images_of("shapes", "train", 32, 3, 32)
    other = dataclasses.replace(data, masks=~data.masks)
    assert data.fingerprint == other.fingerprint and data.marks != other.marks
    options = {"dataset": "shapes", "limit": 32, "arch": "small", "epochs": 1, "batch_size": 16}
    plain = TrainConfig(**options)
    seeing = TrainConfig(
        **options,
        objective="studies.saliency_adversarial_training.objective:train",
        maps="studies.saliency_adversarial_training.maps:maps",
        maps_options={"kind": "masks"},
    )
    before = [trained(c).path for c in (plain, seeing)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "images_of", lambda *a: other)
        after = [trained(c).path for c in (plain, seeing)]
    assert before[0] == after[0] and before[1] != after[1]


def test_no_epoch_leaves_the_weights_as_they_are(home):
    """Published weights, for instance: saved, found again, with an empty history."""
    config = TINY.model_copy(update={"epochs": 0})
    first = trained(config)
    start = cache.fresh(config, cache.images_of(config.dataset, "train", config.size, config.channels, config.limit))
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), start.parameters(), strict=True))
    assert first.history == [] == trained(config).history


def test_networks_as_published_need_no_training_images(home, tmp_path, monkeypatch):
    """A folder of images for evaluation alone: its classes decide the head; training on it is refused in words."""
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "data"))
    for split, name in (("test", "evaluation"), ("test", "both"), ("train", "both")):
        for i, c in enumerate(("a", "b", "c")):
            folder = tmp_path / "data" / name / split / c
            folder.mkdir(parents=True)
            for k in range(2 if split == "test" else 3):
                Image.new("RGB", (16, 16), (80 * i, 10 * k, len(split))).save(folder / f"{k}.png")
    given = {"size": 16, "arch": "plain", "batch_size": 64}
    alone = TrainConfig(dataset="folder:evaluation", epochs=0, **given)
    data = cache.training_images(alone)
    assert (data.split, len(data), data.classes) == ("test", 6, ("a", "b", "c"))
    network = trained(alone)
    assert network.model(data.images).shape == (6, 3) and network.history == []
    with pytest.raises(FileNotFoundError, match=r"no folder .*evaluation/train.*epochs: 0, need no train folder"):
        trained(TrainConfig(dataset="folder:evaluation", epochs=1, **given))
    both = TrainConfig(dataset="folder:both", epochs=0, **given)  # where there are training images, they are in the key
    assert cache.training_images(both).split == "train" and cache.key_of(both) == both.key(
        datasets.load("folder:both", "train", size=16, channels=3).fingerprint
    )


def test_grad_cam_looks_at_a_folder_without_training_images(home, tmp_path, monkeypatch):
    """Study 0 from its parameters: networks, what is seen, images of two objects; a random head is not judged."""
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "data"))
    for i, c in enumerate(("n01 [a] 50%", "n02 é#", "n03")):
        folder = tmp_path / "data" / "only for [looking]" / "test" / c
        folder.mkdir(parents=True)
        for k in range(4):
            Image.effect_noise((20, 18), 20 + 9 * k).convert("RGB").rotate(30 * i).save(folder / f"{k} [x].png")
    p = plan.Parameters(
        dataset="folder:only for [looking]",
        size=16,
        images=8,
        epochs=0,
        seeds=1,
        weights="imagenet",
        published="efficientnet-lite1",
        architectures=("efficientnet-lite0",),
        eps=(0.03,),
        steps=2,
        first="n01 [a] 50%",
        second="n02 é#",
    )
    job = ("efficientnet-lite0", 0)
    assert job in plan.jobs(p) and plan.networks(p, *job)[0].epochs == 0 and len(plan.seen(p, *job)) == 2
    assert plan.two_objects(p).images.shape[1:] == (3, 32, 32)
    with pytest.raises(ValueError, match="has 3 classes, the published efficientnet-lite0 has 1000: its new head"):
        measure.measure(p, *job)


def test_memory_of_a_training_goes_back(home, monkeypatch):
    given = []
    monkeypatch.setattr(cache, "give_back", lambda: given.append(1))
    trained(TINY)
    trained(TINY)  # loaded, not trained
    assert given == [1]
    devices.give_back()  # wherever it runs
