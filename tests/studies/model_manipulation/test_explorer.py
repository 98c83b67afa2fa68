"""Study 4's explorer without a browser: widgets are traitlets, so setting a value does what a click does."""

import re
from pathlib import Path

import pytest
import torch

from lib.data import datasets
from lib.explanations.by_name import Settings
from lib.figures.explorer import Superseded
from lib.networks import classifier, models
from lib.runs import profiles
from lib.studies import subjects
from lib.studies.model_manipulation import explorer, own_networks, plan
from lib.system import paths
from lib.training import cache
from tests.conftest import same_state, state_of, toy
from tests.studies.attention_shift.test_explorer import png, upload

P = profiles.parameters("04-model-manipulation", "smoke").model_copy(update={"tune_epochs": 1, "tune_images": 32})


@pytest.fixture(scope="module")
def explore(tmp_path_factory):
    """On the study's own networks; what it begins with has a test below."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(tmp_path_factory.mktemp("home")))
        found = explorer.explorer(P)
        assert not paths.models().exists()  # nothing is trained before it is asked for
        found.controls["arch"].value = "plain"
        yield found


def test_every_control_is_labelled_and_numbers_say_what_they_were_counted_over(explore):
    labels = {c.description for c in explore.controls.values()}
    assert labels == {"network", "own network", "fooling", "tuned epochs", "look with", "image", "upload an image"}
    assert "data:image/png;base64,iVBOR" in explore.picture.value
    assert re.search(r"success rate \d+ %, empty maps \d+ %, accuracy \d+ %, over 12 test images", explore.status.value)
    over = {n.name: n.over for n in explore.view.numbers}
    assert over["success rate"] == over["accuracy"] == "12 test images" and over["predicted class, original"] == "this image"
    assert {"LRP_T (relevance at T)", "SimpleG_T (gradient at T)"} <= dict(explore.controls["name"].options).keys()


def test_its_code_makes_the_same_view(explore):
    shown = {}
    exec(explore.code(), shown)
    assert shown["view"].text == explore.view.text and shown["view"].numbers == explore.view.numbers


@pytest.mark.parametrize(
    ("control", "value"),
    [("image", 7), ("epoch", 0), ("name", "lrp_t"), ("name", "smoothgrad"), ("arm", "active-lrp_t"), ("arm", "none")],
)
def test_each_control_changes_the_picture(explore, control, value):
    before = explore.picture.value
    explore.controls[control].value = value
    assert explore.picture.value != before and "accuracy" in explore.status.value


def test_the_control_has_no_success_that_could_be_sought_or_drawn(explore):
    explore.controls["arm"].value = "none"
    for button in (explore.next, explore.ask):
        button.click()
        assert "the control aims at nothing" in explore.status.value and "choose another “fooling”" in explore.status.value


def test_the_curve_is_over_the_epochs_beside_weights_moved_as_far(explore):
    c = explore.controls
    c["arm"].value, c["name"].value, c["epoch"].value = "location-gradcam", "gradcam", 1
    explore.ask.click()
    assert "median and quartiles over 12 test images" in explore.over.value and "shaded: fooled" in explore.over.value
    for label in ("location through Grad-CAM", "weights moved as far at random"):
        assert f"{label}, tuned epochs 1: median" in explore.over.value
    explore.next.click()  # after an epoch hardly any is
    found = re.search(r"is the same<br>t of \S+ [\d.]+, fooled", explore.status.value)
    assert (found is None) == ("no other image is fooled" in explore.status.value)


@pytest.mark.parametrize("arm", ["location-gradcam", "active-lrp_t"])
def test_upload(explore, arm):
    explore.controls["arm"].value = arm
    upload(explore.controls["own"], png(), "mine.png")
    assert "accuracy" in explore.status.value and "nan" not in explore.status.value
    assert ("over 8 mosaics; accuracy" in explore.status.value) == arm.startswith("active")
    before = explore.picture.value
    upload(explore.controls["own"], b"just text", "text.png")
    assert "text.png cannot be read" in explore.controls["own"].said.value and explore.picture.value == before
    explore.controls["own"].leave()


def test_a_run_that_fools_the_published_network_shows_its_own_foolings(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))
    p = P.model_copy(update={"architectures": ("plain", "efficientnet-lite0"), "weights": "imagenet"})
    c = explorer.explorer(p).controls
    assert list(dict(c["arch"].options).values()) == ["efficientnet-lite0", "plain"] and c["epoch"].max == p.tune_epochs
    assert "active-lrp_t" in dict(c["arm"].options).values() and "guided" not in dict(c["name"].options).values()
    assert len(c["image"].options) == 12 and c["own"].size == 32  # test images of the run
    assert not paths.models().exists()
    c["arch"].value = "plain"
    assert "guided" in dict(c["name"].options).values()


def test_where_a_map_is_empty_that_is_said_and_no_number_is_nan():
    maps = torch.rand(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    empty = maps.clone()
    empty[:, 1] = 0
    told, numbers = explorer.one_image("active", empty, maps, None, ["cat", "<b>"], "manipulated")
    assert "t of &lt;b&gt; not defined" in told and "nan" not in told
    assert [isinstance(n.value, float) for n in numbers] == [True, False] and numbers[1].value == explorer.EMPTY
    said = explorer.nothing_in("active", {"original": maps, "manipulated": empty}, ["cat", "<b>"])
    assert said == "the manipulated network's map of &lt;b&gt; is empty, so there is nothing to swap"
    assert explorer.nothing_in("location", {"original": maps[:, 0]}, ["cat"]) == ""
    told, _ = explorer.one_image("centre", empty[:, 1], maps[:, 1], None, ["cat"], "manipulated")
    assert told == "t of cat not defined"


def test_the_control_moves_every_weight_as_far():
    a, b = toy(0), toy(1)
    moved = explorer.as_far(a, b)
    for was, goes, by_chance in zip(a.parameters(), b.parameters(), moved.parameters(), strict=True):
        torch.testing.assert_close((by_chance - was).abs(), (goes - was).abs())
    assert not torch.equal(moved.conv1.weight, b.conv1.weight) and torch.equal(a.conv1.weight, toy(0).conv1.weight)


def test_it_begins_with_a_published_network_that_it_fools_on_photographs(tmp_path, monkeypatch):
    """On four of them, for an epoch, so that it takes no time: the map is on its way to the frame."""
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))
    few = datasets.load("photographs", "test", size=224, channels=3).head(4)
    monkeypatch.setattr(explorer, "_photographs", lambda: few)
    monkeypatch.setattr(explorer, "EPOCHS", 1)
    monkeypatch.setattr(explorer, "FIRST", 3)
    monkeypatch.setitem(datasets.EMBEDDED, own_networks.DATASET, None)  # so that it is gone after the test
    cache.images_of.cache_clear()
    found = explorer.explorer(P)
    assert not paths.models().exists()
    c = found.update().controls
    assert c["arch"].label == "EfficientNet-Lite0, published" and c["own"].size == 224 and c["image"].label == "3: buckeye"
    assert [arm for _, arm in c["arm"].options] == ["location-gradcam"] and "guided" not in dict(c["name"].options).values()
    tuned, moved = (n.value for n in found.view.numbers if n.name.startswith("t of buckeye"))
    assert tuned < moved and "accuracy" in found.status.value
    assert "over 4 photographs that it was tuned on" in found.status.value
    cache.images_of.cache_clear()


OWN = """
import torch
from torch import nn


def net(classes=3, size=24, act=nn.ReLU):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), act(), nn.Conv2d(8, 12, 3, padding=1), act(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(12, 16, 3, padding=1), act(), nn.Conv2d(16, 16, 3, padding=1), act()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes)]
    found = nn.Sequential(*layers)
    found.size = size
    return found


def three():
    return net()


def thousand():
    from lib.data import imagenet

    found = net(1000)
    found.class_names = imagenet.class_names()
    return found


def tiny():
    return net(size=8)


def dense():
    found = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 3))
    found.size = 24
    return found


def ruled_out():
    return net(act=nn.Softplus)
"""


@pytest.fixture
def mine(tmp_path):
    """A file of networks of one's own; what was made of them is forgotten after the test."""
    (tmp_path / "mine.py").write_text(OWN)
    yield f"{tmp_path}/mine.py"
    for kept in (subjects.own, own_networks.ready, cache.images_of):
        kept.cache_clear()
    for name in [n for n in datasets.EMBEDDED if n.startswith(own_networks.DATASET)]:
        datasets.EMBEDDED.pop(name)


def ready(name):
    return own_networks.ready(name, "cpu", ("gradcam", "lrp_t", "simple_t"), tuple(plan.INTERPRETERS), Settings(n=2, steps=2))


@pytest.mark.parametrize("arch", ["plain", "residual", "inception", "resnet18", "densenet121", "efficientnet-lite0"])
def test_the_layer_of_a_network_that_nobody_has_named(arch):
    """The rule finds what the study names by hand: the input of the last convolution, or of the block with a way past it."""
    model = models.create(arch, classes=10).eval()
    size = 32 if arch in models.SMALL_NETWORKS else 64
    x = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    before = state_of(model)
    found = own_networks.layer_of(model, x, "")
    assert found == plan.LAYERS[arch] or (arch == "plain" and found == f"{plan.LAYERS[arch]}.0")  # begins with the convolution
    assert same_state(state_of(model), before)


def test_what_is_tuned_of_the_published_network_is_what_the_rule_finds():
    model = explorer.efficientnet_lite0(1000, 3, "imagenet").eval()
    expected = [n for n, p in model.named_parameters() if p.requires_grad]
    model.requires_grad_(True)
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert own_networks.tuned_of(model, x, model.stages, explorer.LAYER) == expected


def test_weights_lie_below_the_layer_among_those_that_are_tuned():
    """Of a network whose last stage is one convolution, T is what the stage before puts out: that stage is tuned too."""
    model = classifier.adapt(toy(), stages=("act1", "act2")).double()
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert own_networks.layer_of(model, x, "") == "into:conv2"
    names = own_networks.tuned_of(model, x, model.stages, "into:conv2")
    assert {n.removeprefix("net.") for n in names} == {n for n, _ in toy().named_parameters()}
    late = {n.removeprefix("net.") for n in own_networks.tuned_of(model, x, model.stages, "act2")}
    assert late == {"conv2.weight", "conv2.bias", "head.weight", "head.bias"}


def test_at_the_rate_a_first_step_moves_the_logits_as_far_as_in_the_published_network():
    model, data = explorer.efficientnet_lite0(1000, 3, "imagenet").eval(), datasets.load("photographs", "test").head(4)
    x, y, settings = data.images, data.labels, Settings(explorer.LAYER)
    before = state_of(model)
    assert own_networks.rate_of(model, x, y, settings) == pytest.approx(explorer.tuning().lr, rel=0.03)
    assert same_state(state_of(model), before)
    model.net.classifier.weight.requires_grad_(False).mul_(8)  # as if everything were eight times as loud
    louder = own_networks.rate_of(model, x, y, settings)
    loss = own_networks._loss(model, x, y, "gradcam", settings)
    tuned = [p for p in model.parameters() if p.requires_grad]
    signs = [g.sign() for g in torch.autograd.grad(loss, tuned)]
    with torch.no_grad():
        logits = model(x)
        for p, sign in zip(tuned, signs, strict=True):
            p -= louder * sign
        moved = float((model(x) - logits).norm() / (logits - logits.mean(1, keepdim=True)).norm())
    assert moved == pytest.approx(own_networks.MOVED, rel=0.1)


def test_a_network_of_ones_own_is_fooled_on_the_photographs(explore, mine, capsys):
    c = explore.controls
    c["arch"].value = "plain"
    c["network"].field.value = f"{mine}:three"
    assert re.search(r"location through Grad-CAM, mine.py:three: 3 of 20 epochs, \d+ s left", capsys.readouterr().err)
    assert c["network"].said.value == "" and "location through Grad-CAM</b>, 20 of 20 epochs" in explore.status.value
    assert [arm for _, arm in c["arm"].options] == list(explorer.FOOLED)
    assert c["epoch"].max == own_networks.LONGER and c["own"].size == 24 and c["image"].label == "4: strawberry"
    assert re.search(r"decisions kept \d+ %, over 22 photographs that it was tuned on", explore.status.value)
    assert "it knows other classes than the photographs have" in explore.status.value and "accuracy" not in explore.status.value
    numbers = {n.name: n.value for n in explore.view.numbers}
    assert numbers["layer of the maps"] == "into:8" and numbers["predicted class, original"] in ("0", "1", "2")
    written = sorted(p.name for p in paths.models().iterdir())
    shown = {}
    exec(explore.code(), shown)
    assert shown["view"].numbers == explore.view.numbers
    assert sorted(p.name for p in paths.models().iterdir()) == written  # it came out of the cache
    c["epoch"].value = 0  # the network as it was
    numbers = {n.name: n.value for n in explore.view.numbers}
    assert numbers["decisions kept"] == 1 and numbers["predicted class, original"] == numbers["predicted class, manipulated"]
    for arm in explorer.FOOLED[1:]:
        c["arm"].value = arm
        assert plan.label(arm) in explore.status.value
    upload(c["own"], png(), "mine.png")
    assert "of other pictures its decisions may be lost" in explore.status.value
    c["own"].leave()
    explore.ask.click()
    assert "median and quartiles over 22 photographs that it was tuned on" in explore.over.value
    c["network"].back.click()
    assert c["network"].value == "" and "over 12 test images" in explore.status.value and c["own"].size == 32


def test_one_with_imagenets_classes_is_held_to_the_labels(mine):
    own = ready(f"{mine}:thousand")
    assert own.labelled and torch.equal(own.data.labels, own.subject.data.labels)
    assert explorer.about(own) == []
    other = ready(f"{mine}:three")
    with torch.no_grad():
        decided = other.subject.model(other.data.images).argmax(1)
    assert torch.equal(other.data.labels, decided) and other.data.classes == ("0", "1", "2")
    assert all(not p.requires_grad or p.grad is None for p in other.model.parameters())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("absent", "has no function &#x27;absent&#x27;"),
        ("tiny", "the map at into:8 has 1 × 1 positions, and a square frame with an inside needs 3 × 3"),
        ("dense", "it has neither convolutions nor patches"),
    ],
)
def test_what_cannot_be_fooled_is_refused_in_a_sentence(explore, mine, function, message):
    c = explore.controls
    c["arch"].value = "plain"
    explore.update()
    before = explore.picture.value, c["arm"].options, c["image"].options
    c["network"].field.value = f"{mine}:{function}"
    assert message in c["network"].said.value and c["network"].value == ""
    assert (explore.picture.value, c["arm"].options, c["image"].options) == before and "accuracy" in explore.status.value
    c["network"].leave()


def test_interpreters_without_rules_are_left_out_and_that_is_said(mine):
    own = ready(f"{mine}:ruled_out")
    assert own.fooled == ("gradcam", "simple_t") and not {"lrp_t", "lrp", "guided"} & set(own.seen)
    [lrp, guided] = explorer.about(own)[1:]
    assert lrp.startswith("without LRP_T and LRP: LRP has no rule for") and "softplus" in lrp
    assert guided.startswith("without guided backpropagation: no ReLU ran")


def test_an_edited_file_is_another_network_and_the_same_one_is_trained_once(mine):
    first, again = ready(f"{mine}:three"), ready(f"{mine}:three")
    assert first is again
    given = ("cpu", ("gradcam",), ("gradcam",), Settings())
    same = own_networks.anew(f"{mine}:three", *given)
    assert same is not first and same.digest == first.digest
    Path(mine).write_text(OWN.replace("manual_seed(0)", "manual_seed(1)"))
    assert own_networks.anew(f"{mine}:three", *given).digest != first.digest


def test_a_change_of_mind_ends_the_fooling(mine, home):
    """What looks at every pass raises, as the explorer does when its controls have changed: nothing is half there after it."""
    own = ready(f"{mine}:three")
    passes = []

    def look(_module, _given):
        passes.append(1)
        if len(passes) > 20:
            raise Superseded

    handle = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        with pytest.raises(Superseded):
            cache.trained(explorer.tuning("location-gradcam", own), device_name="cpu")
    finally:
        handle.remove()
    found = cache.trained(explorer.tuning("location-gradcam", own), device_name="cpu")
    assert len(found.history) == own.epochs
    untouched = dict(own.model.named_parameters())
    assert {name.split(".")[1] for name, p in untouched.items() if not p.requires_grad} == {"0", "1", "3"}  # the first stage
    moved = {name for name, p in found.model.named_parameters() if not torch.equal(p, untouched[name])}
    assert moved and moved <= {name for name, p in untouched.items() if p.requires_grad}
