"""A run looks for its data before a kernel starts: what is missing, or too little, is said in a line with what to do."""

import itertools
import re
import shlex
import shutil

import numpy as np
import pytest
import torch
import yaml
from papermill.exceptions import PapermillExecutionError
from PIL import Image

from lib.runs import headless, needs, profiles
from lib.runs import run as run_

STUDIES = [run for run in profiles.declared_runs("laptop") if "dataset" in profiles.parameters_of(run).model_fields]


@pytest.fixture
def no_kernel(home, monkeypatch):
    """Data sets below the test's own folder, and no notebook may begin."""

    def began(*_arguments, **_options):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr("papermill.execute_notebook", began)
    monkeypatch.setenv("STUDY_DATA", str(home / "own"))
    return home / "own"


def pictures(folder, count, splits=("train", "test")):
    """Pictures of two classes, `count` in each split."""
    for split in splits:
        for i in range(count):
            file = folder / split / ("cat", "dog")[i % 2] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((32, 32, 3), i, np.uint8)).save(file)


def test_a_machine_without_the_device_and_networks_without_weights_are_said(no_kernel, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device cuda: this machine has none such; nothing was run\. Use --set device=auto"):
        headless.execute("01-attention-shift", "smoke", {"device": "cuda"})
    with pytest.raises(ValueError, match=r"weights=imagenet: plain was never published; nothing was run\. Choose .* resnet18"):
        headless.execute("01-attention-shift", "smoke", {"weights": "imagenet"})


AS_PUBLISHED = {"epochs": 0, "seeds": 1, "weights": "imagenet", "architectures": ("resnet18",)}
MASKED = "05-saliency-adversarial-training"
BOXES = {
    name: value.replace("masks", "boxes")
    if isinstance(value, str)
    else list(dict.fromkeys(a.replace("sat-masks", "sat-boxes") for a in value))
    for name, value in profiles.parameters(MASKED, "laptop").model_dump().items()
    if name in ("arms", "headline", "switches", "sweep", "mix_maps")
}


def test_arms_along_masks_need_a_set_with_masks(no_kernel):
    """Said before anything is read, with settings that can be copied; those are then taken."""
    pictures(no_kernel / "mine", 60)
    with pytest.raises(ValueError, match=r"folder:mine has no masks of its objects, along which .*sat-masks.* step") as caught:
        headless.execute(MASKED, "laptop", {"dataset": "folder:mine"})
    assert "nothing was run" in str(caught.value) and "{'" not in str(caught.value)
    found = re.findall(r'--set "(\w+)=(.*?)"', str(caught.value))
    given = {name: yaml.safe_load(value) for name, value in found}
    assert {"mix_maps", "arms"} <= set(given)
    p = profiles.parameters(MASKED, "laptop", {"dataset": "folder:mine", **given})
    assert not [a for a in p.every if "masks" in a] and p.mix_maps == "boxes"
    needs.check(MASKED, p)


def refused(run, **own):
    """What is said, in one line, before the kernel starts. Study 5's arms along masks are first replaced, as it asks."""
    boxes = BOXES if run == MASKED else {}
    with pytest.raises((ValueError, OSError)) as caught:
        headless.execute(run, "laptop", {"dataset": "folder:mine", **boxes, **own})
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("run", STUDIES)
def test_data_that_is_missing_is_noticed_before_the_kernel(no_kernel, run):
    assert "there is no folder" in refused(run) and "Lay your images out as" in refused(run)
    pictures(no_kernel / "mine", 20, splits=("test",))
    assert "data set 'folder:mine' (train): there is no folder" in refused(run)
    pictures(no_kernel / "half", 20, splits=("train",))
    assert "data set 'folder:half' (test): there is no folder" in refused(run, dataset="folder:half")
    assert "unknown data set 'mine'; choose one of digits" in refused(run, dataset="mine")
    assert "shapes: unknown size 48" in refused(run, dataset="shapes", size=48)


def remedies(said):
    """The values that a refusal names."""
    words = shlex.split(said[said.index("--set") :])
    given = (word.partition("=") for option, word in itertools.pairwise(words) if option == "--set")
    return {name: yaml.safe_load(value) for name, _, value in given}


@pytest.mark.parametrize("run", STUDIES)
def test_fewer_images_than_a_batch_are_refused_with_a_value_that_works(no_kernel, run):
    """Each refusal is followed until there is none."""
    pictures(no_kernel / "mine", 20)
    own = dict(BOXES) if run == MASKED else {}
    while True:
        try:
            needs.check(run, profiles.parameters(run, "laptop", {"dataset": "folder:mine", **own}))
            break
        except ValueError:
            said = refused(run, **own)
        assert "nothing was run. Use " in said and remedies(said) and not set(remedies(said)) & set(own)
        own |= remedies(said)
    assert own["batch_size"] == 8


@pytest.mark.parametrize(
    ("run", "named", "instead"),
    [
        ("00-grad-cam", "first='star/print' and second='ring/stars'", "--set first=cat --set second=dog"),
        (
            "06-attack-pathways",
            "similar='cross/lawn' and dissimilar='arrow/writing'",
            """--set 'similar=["cat>dog"]' --set 'dissimilar=["dog>cat"]'""",
        ),
    ],
)
def test_classes_that_the_data_lack_are_noticed_before_the_kernel(no_kernel, run, named, instead):
    pictures(no_kernel / "mine", 80)
    said = refused(run)
    assert said == f"{named}: none of the classes of folder:mine, cat, dog; nothing was run. Use for example {instead}"
    needs.check(run, profiles.parameters(run, "laptop", {"dataset": "folder:mine", **remedies(said)}))


def test_what_is_to_be_typed_instead_is_quoted_for_the_shell(no_kernel):
    """Whatever classes are called."""
    for name in ("cat, tabby", "it's $m_1$"):
        for split in ("train", "test"):
            (no_kernel / "odd" / split / name).mkdir(parents=True)
            for i in range(80):
                Image.new("RGB", (32, 32), (i, 0, 0)).save(no_kernel / "odd" / split / name / f"{i}.png")
    said = refused("06-attack-pathways", dataset="folder:odd")
    assert remedies(said)["similar"] == ["cat, tabby>it's $m_1$"]
    needs.check(
        "06-attack-pathways", profiles.parameters("06-attack-pathways", "laptop", {"dataset": "folder:odd", **remedies(said)})
    )


def test_photographs_show_the_classes_that_parameters_name(no_kernel):
    pictures(no_kernel / "mine", 12)
    with pytest.raises(
        ValueError, match=r"photographs=folder:mine: its classes are not known to be ImageNet's; nothing was run"
    ):
        needs.check("00-grad-cam", profiles.parameters("00-grad-cam", "smoke", {"photographs": "folder:mine"}))
    for number in ("n01440764", "n01443537"):  # tench, goldfish
        (no_kernel / "part" / "val" / number).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(no_kernel / "part" / "val" / number / "a.png")
    own = {"photographs": "imagenet:part", "victim": "tench"}
    with pytest.raises(
        ValueError, match=r"left='bull mastiff' and right='tiger cat': imagenet:part shows tench, goldfish"
    ) as said:
        needs.check("00-grad-cam", profiles.parameters("00-grad-cam", "smoke", own))
    needs.check("00-grad-cam", profiles.parameters("00-grad-cam", "smoke", own | remedies(str(said.value))))
    own = {"photographs": "imagenet:part", "victim": "tench", "left": "tench"}
    with pytest.raises(ValueError, match=r"--set right=goldfish"):  # left and right are two
        needs.check("00-grad-cam", profiles.parameters("00-grad-cam", "smoke", own))
    shutil.rmtree(no_kernel / "part" / "val" / "n01440764")
    with pytest.raises(ValueError, match="imagenet:part shows goldfish; the tour compares two at least"):
        needs.check("00-grad-cam", profiles.parameters("00-grad-cam", "smoke", {"photographs": "imagenet:part"}))


def test_a_class_that_is_misspelt_is_noticed_too(home):
    with pytest.raises(ValueError, match=r"first='star/prnt': none of the classes of shapes, .*star/print, .* Use for example"):
        run_.start("00-grad-cam", profiles.parameters("00-grad-cam", "laptop", {"first": "star/prnt"}).model_dump())


@pytest.mark.parametrize("run", STUDIES)
def test_fewer_test_images_than_asked_for_are_said_at_the_beginning(no_kernel, capfd, run):
    """With no kernel begun: the line comes before it."""
    pictures(no_kernel / "mine", 200, splits=("train",))
    pictures(no_kernel / "mine", 12, splits=("test",))
    given = {"dataset": "folder:mine", "images": 13} | (BOXES if run == MASKED else {})
    p = profiles.parameters(run, "smoke", given)
    (line,) = needs.told(p)
    assert "images=13" in line and line.endswith(": folder:mine has 12 test images, which are all looked at")
    no_more = {n: 12 for n in type(p).model_fields if f"{n}=" in line and n != "images"}
    assert needs.told(p.model_copy(update={"images": 12, **no_more})) == []
    if run == "01-attention-shift":
        with pytest.raises(RuntimeError, match="a kernel was started"):
            headless.execute(run, "smoke", given)
        assert f"\n{line}\n" in capfd.readouterr().err


def test_ones_own_changes_to_a_profile_are_taken_however_many(no_kernel):
    """The runner has read the profile: whoever changes most of it has its values all the same."""
    own = {"images": 300, "seeds": 5, "epochs": 8, "train_images": 2000}
    with pytest.raises(RuntimeError, match="a kernel was started"):
        headless.execute("01-attention-shift", "smoke", own)
    with pytest.raises(ValueError, match="profile=smoke alone does not bring its values"):  # which a notebook cannot know
        run_.start("01-attention-shift", profiles.parameters("01-attention-shift", "smoke", own).model_dump())


def test_how_a_value_is_written_is_said():
    with pytest.raises(ValueError, match="refused") as said:
        profiles.parameters("01-attention-shift", "smoke", {"architectures": "plain", "eps": ["8/255"], "seeds": "x"})
    lines = str(said.value).splitlines()[1:]
    assert len(lines) == 3 and lines[0].endswith("write a list, architectures=[a, b]")
    assert lines[2].startswith("  eps.0 = '8/255'") and lines[2].endswith("write a decimal, .031 for 8/255")


@pytest.mark.parametrize(
    "given", [{"seeds": True}, {"epochs": False}, {"learning_rate": True}, {"train_images": True}, {"eps": [0.1, True]}]
)
def test_true_and_false_are_no_numbers(given):
    (name,) = given
    with pytest.raises(ValueError, match=f"{name} = .*(True|False).*: neither true nor false is asked"):
        profiles.parameters("01-attention-shift", "smoke", given)
    assert profiles.parameters("06-attack-pathways", "smoke", {"grouped": False}).grouped is False


def test_what_is_said_to_people_comes_without_the_way_to_it(home, monkeypatch):
    def failed(kind):
        def execute(*_given, **_options):
            raise PapermillExecutionError(3, 3, "source", kind, "the data are gone", ["a frame"])

        monkeypatch.setattr("papermill.execute_notebook", execute)
        with pytest.raises(RuntimeError, match="failed; read") as said:
            headless.execute("01-attention-shift", "smoke", {"seeds": 1})
        return str(said.value)

    assert failed("FileNotFoundError").splitlines()[1:] == ["FileNotFoundError: the data are gone"]
    assert "a frame" in failed("KeyError")


def test_48_pictures_and_a_batch_of_64(no_kernel):
    pictures(no_kernel / "mine", 48)
    said = refused("01-attention-shift")
    assert said == (
        "folder:mine gives 48 training images, fewer than one batch of 64; nothing was run. Use --set batch_size=16"
    )
    given = profiles.parameters("01-attention-shift", "laptop", {"dataset": "folder:mine"}).model_dump()
    with pytest.raises(ValueError, match="Use --set batch_size=16"):  # of plain papermill and JupyterLab: the first cell
        run_.start("01-attention-shift", given)
    run_.start("01-attention-shift", given | {"batch_size": 16})
    run_.start("01-attention-shift", given | AS_PUBLISHED)  # such networks need no training images


def test_a_batch_that_is_no_parameter_asks_for_images(no_kernel):
    """The style transfer of study 2 has batches of its own."""
    pictures(no_kernel / "mine", 12)
    few = "gives 12 training images, fewer than one batch of 16, whose size is no parameter; nothing was run. Please"
    assert refused("02-at-cnn") == f"folder:mine {few} add images"
    assert refused("02-at-cnn", dataset="shapes", train_images=12) == f"shapes {few} raise train_images"


@pytest.mark.parametrize(
    ("photographs", "message"),
    [("imagenet:mine", "neither .*mine/val nor"), ("folder:mine", "there is no folder"), ("phtographs", "unknown data set")],
)
def test_photographs_are_looked_for_too(no_kernel, photographs, message):
    with pytest.raises((ValueError, OSError), match=message):
        headless.execute("00-grad-cam", "laptop", {"photographs": photographs})


def test_data_that_is_there_once_it_is_downloaded_is_not_asked_for(home):
    """Whether a public set can be had shows when it is loaded; how many of its images are asked for is known before."""
    needs.check("01-attention-shift", profiles.parameters("01-attention-shift", "laptop", {"dataset": "cifar10"}))
    with pytest.raises(ValueError, match="cifar10 gives 40 training images, fewer than one batch of 64"):
        few = profiles.parameters("01-attention-shift", "laptop", {"dataset": "cifar10", "train_images": 40})
        needs.check("01-attention-shift", few)
