"""No stale number: a measurement is found again only while its training images and the code that made it are the same."""

import shutil

import numpy as np
import pytest
from PIL import Image

from lib.runs import profiles, sources
from lib.runs.run import start
from lib.system import paths
from lib.training import cache
from lib.training.config import TrainConfig

RUN = "01-attention-shift"


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of lib that can be changed byte by byte."""
    shutil.copytree(paths.PROJECT / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(paths, "PROJECT", tmp_path)
    sources._measuring.cache_clear()
    yield tmp_path
    sources._measuring.cache_clear()


def digest(run=RUN, configs=()):
    sources._measuring.cache_clear()
    return sources.digest(sources.of_measurement(run, configs))


TAUGHT = "05-saliency-adversarial-training"
CONFIGS = {RUN: [], TAUGHT: profiles.part(TAUGHT, "plan").networks(profiles.parameters(TAUGHT, "smoke"))}


@pytest.mark.parametrize("run", CONFIGS)
def test_every_byte_that_measures_counts(copied, run):
    configs = CONFIGS[run]
    files_ = sources.of_measurement(run, configs)
    assert len(files_) > 20
    before = digest(run, configs)
    for file in files_:
        kept = file.read_bytes()
        file.write_bytes(kept + b"\n")
        assert digest(run, configs) != before, file
        file.write_bytes(kept)
    assert digest(run, configs) == before


@pytest.mark.parametrize("file", ["studies/attention_shift/claims.py", "claims/court.py", "figures/charts.py", "runs/run.py"])
def test_what_tells_measures_nothing_anew(copied, file):
    before = digest()
    (copied / "lib" / file).write_bytes((copied / "lib" / file).read_bytes() + b"\n")
    assert digest() == before


def test_all_ways_of_importing_are_followed(copied):
    lib = copied / "lib"
    (lib / "measures" / "first.py").write_text("from lib.measures.second import x\n")
    (lib / "measures" / "second.py").write_text("import lib.measures.third\n\ndef f():\n    from lib.measures import fourth\n")
    (lib / "measures" / "third.py").write_text("from lib import measures\n")
    (lib / "measures" / "fourth.py").write_text("import torch, json\n")
    (lib / "measures" / "__init__.py").write_text("from lib.measures.fifth import y\n")
    (lib / "measures" / "fifth.py").write_text("y = 1\n")
    found = {p.name for p in sources.reached(["import numpy\nfrom lib.measures import first"])}
    assert found == {f"{n}.py" for n in ("first", "second", "third", "fourth", "fifth")}  # and no __init__.py


def test_a_file_is_parsed_once_until_it_changes(copied, monkeypatch):
    parse, parsed = sources._imported, []
    monkeypatch.setattr(sources, "_imported", lambda source: parsed.append(source) or parse(source))
    file = copied / "lib" / "measures" / "first.py"
    file.write_text("from lib.measures import similarity\n")
    before = sources.reached((), ["lib.measures.first"])
    assert copied / "lib" / "measures" / "similarity.py" in before and len(parsed) == len(before) == 3  # and what that imports
    parsed.clear()
    assert sources.reached((), ["lib.measures.first"]) == before and not parsed
    file.write_text("from lib.measures import appearance\n")
    after = sources.reached((), ["lib.measures.first"])
    assert parsed[0] == "from lib.measures import appearance\n" and before != after
    assert copied / "lib" / "measures" / "appearance.py" in after


def test_what_networks_name_is_followed():
    config = TrainConfig(dataset="digits", arch="plain", objective="studies.interpretability_aware_training.objective:train")
    assert "objective.py" in {p.name for p in sources.of_measurement(RUN, [config.model_copy(update={"teacher": config})])}
    assert "objective.py" not in {p.name for p in sources.of_measurement(RUN)}
    taught = TrainConfig(dataset="digits", arch="plain", teacher=config)
    assert "lib.studies.interpretability_aware_training.objective" in sources.named([taught])


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def test_a_changed_training_image_makes_another_table(tmp_path, monkeypatch):
    """The test images stay as they are: the networks are trained anew, and so the old table is not found."""
    monkeypatch.setenv("STUDY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("STUDY_DATA", str(tmp_path / "sets"))
    root = tmp_path / "sets" / "own"
    for split in ("train", "test"):
        for i in range(16):
            picture(root / split / f"class{i % 2}" / f"{i}.png", i)
    given = {"dataset": "folder:own", "size": 16, "train_images": 16, "batch_size": 8, "epochs": 1, "seeds": 1, "images": 8}
    given |= {"architectures": ("plain",), "eps": (0.05, 0.1)}

    def tables():
        profiles.part(RUN, "plan").evaluation_set.cache_clear()
        cache.images_of.cache_clear()
        run = start(RUN, given)
        run.job(("plain", 0))
        return {p.name for p in (run.results / "parts").glob("*.parquet") if not p.name.endswith(".warnings.parquet")}

    first = tables()
    assert len(first) == 1 and tables() == first
    picture(root / "train" / "class0" / "0.png", 99)
    second = tables()
    assert len(second) == 2 and first < second
