"""`python -m lib explain`: its examples as printed, its figure and table, and every refusal before anything is done."""

import re
import shlex

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lib import __main__ as command
from lib.commands import explain
from lib.data import datasets, images
from lib.fooling import before_after
from lib.networks import named
from lib.reports import explained
from tests.data.test_images import bomb

NET = """
import torch
from torch import nn

def build():
    torch.manual_seed(1)
    net = nn.Sequential()
    net.add_module("layer1", nn.Conv2d(3, 6, 3, padding=1))
    net.add_module("relu", nn.ReLU())
    net.add_module("layer2", nn.Conv2d(6, 6, 3, 2, padding=1))
    net.add_module("last", nn.ReLU())
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flat", nn.Flatten())
    net.add_module("head", nn.Linear(6, 4))
    net.class_names = ["cat", "dog", "tiger", "ti$er"]
    net.size = 32
    return net

def dense(): return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
"""
OWN = ["--network", "mynet.py:build"]


@pytest.fixture(scope="module")
def photographs():
    """A cat and a dog, in their size for efficientnet-lite0."""
    data = datasets.load("photographs", "test")
    return [Image.fromarray((images.from_tensor(data.images[i]) * 255).round().astype(np.uint8)) for i in (20, 0)]


@pytest.fixture
def here(tmp_path, monkeypatch, photographs):
    """A person's folder: two pictures, one of them upright, a folder of two, and a network."""
    monkeypatch.chdir(tmp_path)
    cat, dog = photographs
    cat.save("cat.jpg", quality=95)
    dog.crop((30, 0, 190, 224)).save("dog.jpg", quality=95)
    (tmp_path / "photos").mkdir()
    for name, picture in (("a.png", cat), ("b.png", dog)):
        picture.save(tmp_path / "photos" / name)
    (tmp_path / "mynet.py").write_text(NET)
    with torch.random.fork_rng():
        yield tmp_path


def run(*given):
    return explain.main([str(g) for g in given])


@pytest.mark.parametrize(("attack", "given", "steps"), [("pgd", (), 20), ("gabor", (), 200), ("gabor", ("--steps", 2), 2)])
def test_an_attack_takes_its_own_number_of_steps_unless_told(here, attack, given, steps):
    assert run("cat.jpg", *OWN, "--attack", attack, "--eps", 0.05, *given, "--out", "c.png") == 0
    assert set(pd.read_csv("c.csv").steps) == {steps}


EXAMPLES = re.findall(r"^  python -m lib (.*)$", explain.EXAMPLES, flags=re.MULTILINE)


@pytest.mark.parametrize("line", EXAMPLES)
def test_the_examples_run_as_printed(here, line):
    given = shlex.split(line)
    assert command.main(given) == 0
    out = next((given[i + 1] for i, g in enumerate(given) if g == "--out"), "explained.png")
    table = pd.read_csv(here / out.replace(out[-4:], ".csv"))
    content = (here / out).read_bytes()
    assert content.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[out[-3:]])
    several = sum(len(v.split(",")) - 1 for v in given if re.fullmatch(r"[\w.]+(,[\w.]+)+", v))
    pictures = sum(2 if g == "photos/" else g in ("cat.jpg", "dog.jpg") for g in given)
    assert len(table) == pictures * (1 + several)


def test_there_are_examples_and_every_option_is_told():
    assert len(EXAMPLES) >= 4 and "explain" in command.COMMANDS
    text = explain.parser().format_help()
    for option in ("--network", "--method", "--layer", "--attack", "--eps", "--steps", "--of", "--aim", "--out", "--size"):
        assert option in text


def test_numbers_are_those_of_the_kernels(here):
    """And a picture of the published network is told as what it shows."""
    assert run("cat.jpg", "--attack", "fgsm", "--eps", "4/255", "--of", "Egyptian cat") == 0
    (row,) = pd.read_csv(here / "explained.csv").to_dict("records")
    network = named.load("efficientnet-lite0")
    x = images.to_tensor(images.open_image(here / "cat.jpg"), size=224, channels=3, crop="imagenet")[None]
    force = before_after.Force(explain.attacks.find("fgsm"), 4 / 255, 20, None)
    asked = [before_after.Asked(explain.explanations.find("gradcam"), "bn2")]
    of = network.class_number("Egyptian cat")
    found = before_after.before_and_after(network.model, x, asked, of=of, force=force)
    assert row["decision, before"] in ("tiger cat", "Egyptian cat", "tabby") and row["class of the map"] == "Egyptian cat"
    assert row["method"] == "gradcam" and row["layer"] == "bn2" and row["attack"] == "fgsm" and np.isnan(row["steps"])
    moved, noise = found.shifts[0].moved, found.shifts[0].moved_by_noise
    for name, value in {
        "probability of the class, before (0 to 1)": found.probability("before", of),
        "score of the class, after (logit)": float(found.logits["after"][of]),
        "probability of the decision, random signs (0 to 1)": found.probability("noise", found.decision("noise")),
        "NISSIM of the maps, after (0 same to 1)": moved.nissim,
        "rank correlation of the maps, random signs (-1 to 1)": noise.rank_correlation,
        "largest change of a value (1/255)": 4.0,
        "radius": 4 / 255,
    }.items():
        assert row[name] == pytest.approx(value, rel=1e-4), name
    assert row["radius in"] == "values of pixels from 0 to 1, the largest change (L-infinity)"


def test_without_an_attack_what_it_would_say_is_empty(here):
    assert run("cat.jpg", *OWN, "--method", "gradcam,lrp,gradient", "--out", "new/folder/a.PNG") == 0
    table = pd.read_csv(here / "new" / "folder" / "a.csv")
    assert list(table.method) == ["gradcam", "lrp", "gradient"] and list(table.layer) == ["last", "pixels", "pixels"]
    empty = [c for c in table if "after" in c or "random signs" in c or c in ("radius", "radius in", "aim")]
    assert len(empty) == 15 and table[empty].isna().all().all()
    assert set(table["decision, before"]) <= {"cat", "dog", "tiger", "ti$er"}


def test_many_pictures_make_several_sheets_of_one_length(here, monkeypatch, capsys):
    for i in range(5):
        Image.new("RGB", (40, 40), (i * 50, 0, 0)).save(here / "photos" / f"c{i}.png")
    monkeypatch.setattr(explained.sheet, "ROWS", 3)
    assert run("photos", *OWN, "--out", "many.svg") == 0
    assert sorted(p.name for p in here.glob("many*")) == ["many-1.svg", "many-2.svg", "many-3.svg", "many.csv"]
    assert len(pd.read_csv("many.csv")) == 7
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == "many.csv" and next(s for s in said if " of 7: " in s) == "1 of 7: photos/a.png"
    assert "photos/c0.png: the map of Grad-CAM is the same everywhere, so that it marks nothing" in said
    assert "c4.png" in (here / "many-3.svg").read_text() or "<path" in (here / "many-3.svg").read_text()


@pytest.mark.parametrize(
    ("forward", "told", "code"),
    [
        ("self.net(x / x.sum((1, 2, 3), keepdim=True))", "the model's logits are not finite", 2),
        ("self.net(x) if x.sum() > 0 else {}['black']", "the network raised KeyError: 'black'", 1),
    ],
)
def test_one_picture_that_fails_does_not_lose_the_others(here, capsys, forward, told, code):
    """Whatever somebody's network raises on it."""
    Image.new("RGB", (40, 40)).save(here / "photos" / "black.png")
    (here / "mynet.py").write_text(
        NET
        + f"""
class Picky(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.size = build(), 32
    def forward(self, x): return {forward}
"""
    )
    assert run("photos", "--network", "mynet.py:Picky", "--method", "gradient", "--out", "o.png") == 1
    assert f"photos/black.png is left out: {told}" in capsys.readouterr().err
    assert pd.read_csv("o.csv").picture.tolist() == ["photos/a.png", "photos/b.png"]
    assert run("photos/black.png", "--network", "mynet.py:Picky", "--out", "p.png") == code and not (here / "p.csv").exists()
    assert f"error: {told}" in capsys.readouterr().err.splitlines()[-1]


def test_what_a_folder_holds_beside_pictures_is_said(here, capsys):
    (here / "photos" / "text.txt").write_text("no picture")
    (here / "photos" / "gone.jpg").symlink_to("nowhere.jpg")
    assert run("photos", *OWN, "--out", "o.png") == 0
    assert "passed over in photos: 1 links that lead nowhere, 1 .txt" in capsys.readouterr().err
    assert run("photos/gone.jpg", *OWN, "--out", "o.png") == 2
    assert "photos/gone.jpg is a link that leads nowhere" in capsys.readouterr().err


def test_somebodys_picture_is_not_written_over(here, capsys):
    before = (here / "photos" / "a.png").read_bytes()
    assert run("cat.jpg", *OWN, "--out", "photos/a.png") == 2 and (here / "photos" / "a.png").read_bytes() == before
    assert "photos/a.png is a picture that this command did not make" in capsys.readouterr().err
    (here / "photos" / "mine.PNG").write_bytes(before)
    assert run("cat.jpg", *OWN, "--out", "photos/mine.PNG") == 2 and (here / "photos" / "mine.PNG").read_bytes() == before


def test_an_attack_with_a_measure_of_its_own_says_what_radii_are_like(here, capsys):
    assert run("cat.jpg", *OWN, "--attack", "jpeg-l1") == 2
    assert "give --eps, such as 2 (weak) to 1024 (strong; Kang et al. 2019)" in capsys.readouterr().err


def test_an_attack_that_sees_no_gradient_says_so(here, capsys):
    (here / "mynet.py").write_text(
        NET
        + """
class Rounds(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.size = build(), 32
    def forward(self, x): return self.net((x * 255).round() / 255)
"""
    )
    assert run("cat.jpg", "--network", "mynet.py:Rounds", "--attack", "pgd", "--method", "gradient", "--out", "o.png") == 0
    said = capsys.readouterr().err
    assert (
        "cat.jpg: zero gradients on 100% of the images" in said and "the map of gradient is the same everywhere" in said.lower()
    )
    assert pd.read_csv("o.csv")["what the attack warns of"][0].startswith("zero gradients")


def test_one_sheet_less_is_not_written_over_a_picture(here, monkeypatch, capsys):
    """Were one of two pictures left out, the one sheet that is left would have the name of a picture."""
    monkeypatch.setattr(explained.sheet, "ROWS", 1)
    before = (here / "photos" / "a.png").read_bytes()
    assert run("photos", *OWN, "--out", "photos/a.png") == 2 and (here / "photos" / "a.png").read_bytes() == before
    assert "photos/a.png is one of the pictures" in capsys.readouterr().err


def test_somebodys_table_is_not_written_over(here, capsys):
    (here / "mine.csv").write_text("a,b\n1,2\n")
    assert run("cat.jpg", *OWN, "--out", "mine.png") == 2 and (here / "mine.csv").read_text() == "a,b\n1,2\n"
    assert "would write its table over mine.csv, which is another one" in capsys.readouterr().err
    (here / "folder.csv").mkdir()
    assert run("cat.jpg", *OWN, "--out", "folder.png") == 2 and not (here / "folder.png").exists()
    assert run("cat.jpg", *OWN, "--out", "own.png") == run("cat.jpg", *OWN, "--out", "own.png") == 0  # its own it may


def test_the_figure_of_an_earlier_time_is_no_picture(here, monkeypatch, capsys):
    monkeypatch.chdir(here / "photos")
    own = ["--network", "../mynet.py:build"]
    for _ in range(2):
        assert run(".", *own) == 0 and pd.read_csv("explained.csv").picture.tolist() == ["a.png", "b.png"]
    assert "explained.png is left out: it is a figure of this command" in capsys.readouterr().err
    assert run(".", *own, "--out", "a.png") == 2 and "--out a.png is one of the pictures" in capsys.readouterr().err
    assert run("a.png", *own, "--out", "b.svg") == 0  # its table stands beside a picture b.png, which is nobody's figure
    before = (here / "photos" / "b.png").read_bytes()
    assert run(".", *own, "--out", "b.png") == 2 and (here / "photos" / "b.png").read_bytes() == before


def test_a_map_of_each_layer_and_the_class_aimed_at(here):
    given = ["--layer", "layer1,last", "--method", "gradcam,gradcam++", "--attack", "pgd", "--steps", 2, "--aim", "ti$er"]
    assert run("cat.jpg", *OWN, *given, "--eps", ".1", "--out", "a.png") == 0
    table = pd.read_csv("a.csv")
    assert list(zip(table.method, table.layer, strict=True)) == [
        ("gradcam", "layer1"), ("gradcam", "last"), ("gradcam++", "layer1"), ("gradcam++", "last")
    ]  # fmt: skip
    assert set(table.aim) == {"ti$er"} and set(table.steps) == {2}


BAD = {
    "text.jpg": r"text\.jpg cannot be read as an image: its content is none of",
    "dot.png": r"dot\.png has 1 × 1 pixel; a picture has 8 at least",
    "huge.png": r"huge\.png has more than \d+ million pixels; at most 64 million",
    "moving.gif": r"moving\.gif is an animation",
    "empty": r"the folder empty holds no picture, it is empty",
    "cats.jpg": r"there is no file cats\.jpg; did you mean cat\.jpg",
    "cat.jpg --of tigre": r"--of: mynet\.py:build has no class 'tigre' among its 4; did you mean 'tiger'",
    "cat.jpg --attack pgd --aim 4": r"--aim: mynet\.py:build has no class 4; its 4 classes have the numbers 0 to 3",
    "cat.jpg --layer layer3": r"no layer 'layer3' in Sequential; did you mean layer",
    "cat.jpg --layer head": r"layer 'head' puts out \(1, 4\); a map needs a convolutional layer",
    "cat.jpg --layer layer1 --method lrp": r"--layer layer1: lrp is made at the pixels; leave the layer out",
    "cat.jpg --layer ,": r"--layer names none; leave it out",
    "cat.jpg --method grad-cam": r"unknown explanation 'grad-cam'; did you mean gradcam",
    "cat.jpg --method ,": r"--method names none",
    "cat.jpg --method gradcam,gradcam++,lrp,ig,gradient": r"5 maps a picture; a figure holds 4",
    "cat.jpg --attack pdg": r"unknown attack 'pdg'; did you mean pgd",
    "cat.jpg --eps .1 --steps 3": r"--eps and --steps without an attack; name one, --attack pgd",
    "cat.jpg --attack pgd --eps 2/0": r"--eps 2/0: write a number from 0 up, such as 2/255 or \.01",
    "cat.jpg --attack pgd --eps -1": r"--eps -1: write a number",
    "cat.jpg --attack pgd --eps 2": r"--eps 2: eps is 2; images are in \[0, 1\].*did you mean 2/255",
    "cat.jpg --attack pgd-l2": r"--attack pgd-l2 has a radius in another measure .*; give --eps",
    "cat.jpg --attack fgsm --steps 3": r"--steps 3: fgsm takes a single step",
    "cat.jpg --attack pgd --steps 0": r"--steps 0: one at least",
    "cat.jpg --attack noise --aim dog": r"--aim dog: noise aims at nothing; choose pgd or fgsm",
    "cat.jpg --out a.jpeg": r"--out a\.jpeg: a figure is written as \.png, \.pdf, \.svg",
    "cat.jpg --out cat.jpg/a.png": r"--out cat\.jpg/a\.png cannot be written \(.*\); name a file in a folder of yours",
    "photos/a.png --out photos/a.png": r"--out photos/a\.png is one of the pictures; name another file",
    "cat.jpg --out folder.png": r"--out folder\.png is a folder; name a file in it",
    "cat.jpg --network mynet.py:dense --size 32": r"has no layer that Grad-CAM can be made at; .*--method gradient",
    "cat.jpg --network mynet.py:dense": r"mynet\.py:dense does not take images of .* say which size it takes",
    "cat.jpg --network connected": r"'connected' comes without weights",
    "cat.jpg --size 3": r"size 3: images have 8 to 2048 pixels a side",
    "cat.jpg --device abacus": r"device abacus: this machine has none such",
}


@pytest.mark.parametrize("typed", BAD)
def test_what_is_wrong_is_said_before_anything_is_done(here, capsys, monkeypatch, typed):
    (here / "text.jpg").write_text("no picture")
    Image.new("RGB", (1, 1)).save("dot.png")
    (here / "huge.png").write_bytes(bomb(20_000))
    frames = [Image.new("RGB", (20, 20), c) for c in ("red", "blue")]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:])
    for name in ("empty", "folder.png"):
        (here / name).mkdir()
    before = sorted(here.rglob("*"))
    monkeypatch.setattr(before_after, "before_and_after", None)
    given = shlex.split(typed)
    assert run(*given, *([] if "--network" in given else OWN)) == 2
    said = capsys.readouterr().err
    assert re.match(rf"error: .*{BAD[typed]}", said) and said.count("\n") == 1
    assert sorted(p for p in here.rglob("*") if "__pycache__" not in str(p)) == before


def test_all_bad_pictures_are_named_at_once(here, capsys):
    for name in ("one.png", "two.png"):
        (here / "photos" / name).write_text("none")
    assert run("photos", *OWN) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: 2 of 4 pictures cannot be used:\n") and "one.png" in said and "two.png" in said


def test_cam_where_it_is_not_defined_and_a_method_that_the_network_has_no_use_for(here, capsys):
    (here / "mynet.py").write_text(NET.replace("AdaptiveAvgPool2d", "AdaptiveMaxPool2d").replace("nn.ReLU", "nn.Tanh"))
    assert run("cat.jpg", *OWN, "--method", "cam") == 2
    assert "does not end in average pooling and a linear layer; choose gradcam instead of cam" in capsys.readouterr().err
    assert run("cat.jpg", *OWN, "--method", "guided") == 2
    assert "no ReLU ran in the forward pass" in capsys.readouterr().err and not (here / "explained.png").exists()


def test_eps_as_people_write_it():
    assert explain._eps("2/255") == 2 / 255 and explain._eps(".01") == 0.01 and explain._eps("1e-3") == 0.001
    assert explain._eps("0") == 0 and explain._eps(" 0.5 / 255 ") == 0.5 / 255
    for text in ("", "two", "1/2/3", "nan", "inf", "1/", "/2"):
        with pytest.raises(ValueError, match="write a number from 0 up"):
            explain._eps(text)
