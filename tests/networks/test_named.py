"""A network by what a person types: what is known of it, and every refusal in a sentence with the remedy."""

import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from lib.data import datasets, images, own_pictures
from lib.networks import models, named, zoo

OWN = """
import torch
from torch import nn
from lib.networks import adapt

def net(channels=3, classes=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )

def grey(): return net(1)
def deep(): return net(5)
def one(): return net(classes=1)

def told():
    found = net()
    found.size, found.class_names = 40, ["cat", "Dog", "7"]
    return found

def pair():
    found = net()
    found.size = (32, 32)
    return found

def other():
    found = net()
    found.size = {"height": 32}
    return found

def oblong():
    found = net()
    found.size = (32, 48)
    return found

def adapted(): return adapt(told(), mean=(0.5,), std=(0.25,), stages=("0",))
def misnamed():
    found = net()
    found.class_names = ["cat"]
    return found

def fixed(): return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
def fixed_grey(): return nn.Sequential(nn.Flatten(), nn.Linear(16 * 16, 4))
def tuples():
    class T(nn.Module):
        def forward(self, x): return x.mean((2, 3)), x
    return T()
def infinite():
    found = net()
    found[4].weight.data.fill_(float("inf"))
    return found
class Sees(nn.Module):
    def __init__(self, first, see):
        super().__init__()
        self.first, self.net, self.see = first, net(), see
    def forward(self, x): return self.see(self, x)

def head_first(): return Sees(nn.Conv2d(16, 3, 1), lambda self, x: self.net(x))
def saturation(): return Sees(nn.Conv2d(1, 3, 3), lambda self, x: self.net(self.first(x.amax(1, True) - x.amin(1, True))))
def lazy(): return nn.Sequential(nn.LazyConv2d(4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
def half(): return net().half()
def raises():
    def see(self, x): return {}["logits"]
    return Sees(nn.Identity(), see)
def texts():
    found = net()
    found.class_names = "abc"
    return found
def ill_staged(): return adapt(net(), stages=("nowhere",))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        yield lambda function, **given: named.load(f"mine.py:{function}", **given)


@pytest.fixture(scope="module")
def lite():
    return named.load("efficientnet-lite0")


def test_the_packaged_network(lite):
    """As `create` builds it, with normalisations folded; what it takes is what it was published for."""
    assert (lite.size, lite.channels, lite.crop, lite.layer, lite.head) == (224, 3, "imagenet", "bn2", "classifier")
    assert len(lite.classes) == 1000 and lite.classes[949] == "strawberry" and not lite.model.training
    x = datasets.load("photographs", "test").images[4:5]
    plain = models.create("efficientnet-lite0", classes=1000, weights="imagenet").eval()
    with torch.no_grad():
        logits = lite.model(x)
        assert torch.allclose(logits, plain(x), atol=1e-3 * float(logits.abs().max()))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in lite.model.modules()) and int(logits.argmax()) == 949


def test_a_class_by_name_or_number(lite):
    assert lite.class_number("ocarina") == lite.class_number(" Ocarina") == lite.class_number("684") == 684
    with pytest.raises(
        ValueError, match=r"efficientnet-lite0 has no class 'tigercat' among its 1,000; did you mean 'tiger cat'"
    ):
        lite.class_number("tigercat")
    with pytest.raises(ValueError, match=r"has no class 1000; its 1,000 classes have the numbers 0 to 999"):
        lite.class_number("1000")
    with pytest.raises(ValueError, match=r"no class '§' among its 1,000; it has tench, goldfish"):
        lite.class_number("§")


def test_a_layer_that_it_lacks_or_that_makes_no_maps(lite):
    assert lite.check_layer("blocks.4") == "blocks.4"
    with pytest.raises(ValueError, match=r"no layer 'bn3' in EfficientNet; did you mean bn2"):
        lite.check_layer("bn3")
    with pytest.raises(ValueError, match=r"layer 'classifier' puts out \(1, 1000\); a map needs a convolutional layer"):
        lite.check_layer("classifier")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain", r"'plain' comes without weights, .*; give one that comes with weights \(vgg16, .*folder/file\.py:function"),
        (
            "efficientnet-lite",
            r"unknown network 'efficientnet-lite'; did you mean efficientnet-lite\d or .* and module:function",
        ),
        ("torchvision:resnet5", r"torchvision has no classifier 'resnet5'; did you mean resnet"),
        ("torchvision:§", r"torchvision has no classifier '§'; there are alexnet, "),
        ("torchvision:fcn_resnet50", r"torchvision has no classifier 'fcn_resnet50'; did you mean"),
        ("nowhere:net", r"there is no module 'nowhere'"),
    ],
)
def test_a_name_that_is_none_is_refused(text, said):
    with pytest.raises(ValueError, match=said) as refused:
        named.load(text)
    assert "\n" not in str(refused.value)


def test_torchvisions_weights_are_read_where_it_keeps_them(tmp_path, monkeypatch):
    """By its own code; the newest ones, with their classes, size and normalisation."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with torch.random.fork_rng():
        torch.manual_seed(7)
        original = torchvision.models.get_model("squeezenet1_1", weights=None).eval()
    weights = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT
    (tmp_path / "checkpoints").mkdir()
    torch.save(original.state_dict(), tmp_path / "checkpoints" / weights.url.rsplit("/", 1)[-1])
    found = named.load("torchvision:squeezenet1_1", size=64)
    assert (found.size, found.channels, found.crop, found.head) == (64, 3, "imagenet", "")
    assert found.layer == "classifier.2" and found.classes[949] == "strawberry" and found.model.classes == 1000
    x = torch.rand(1, 3, 64, 64)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (zoo.IMAGENET_MEAN, zoo.IMAGENET_STD))
    with torch.no_grad():
        assert torch.allclose(found.model(x), original((x - mean) / std), atol=1e-5)


def test_torchvisions_weights_that_cannot_be_had(tmp_path, monkeypatch):
    def offline(*_args, **_options):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(RuntimeError, match=r"\(IMAGENET1K_V1\) are not on this machine .*put a copy of .* at .*checkpoints/sq"):
        named.load("torchvision:squeezenet1_1")


def test_own_code_is_found_out_by_a_pass(own):
    found = own("net")
    assert (found.size, found.channels, found.crop, found.layer, found.head) == (224, 3, "whole", "1", "4")
    assert found.classes == ("0", "1", "2") and found.class_number("2") == 2 and found.name == "mine.py:net"
    assert own("grey", size=16).channels == 1 and own("one", size=16).classes == ("0", "1")
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(found.model(x), found.model.net(x))  # images in [0, 1], as they are


@pytest.mark.parametrize("function", ["head_first", "saturation", "lazy"])
def test_the_convolution_defined_first_need_not_be_the_one_that_sees_the_picture(own, function):
    assert own(function, size=16).channels == 3


def test_what_own_code_says_of_itself_holds(own):
    for function in ("told", "adapted"):
        found = own(function)
        assert found.size == 40 and found.classes == ("cat", "Dog", "7")
        assert found.class_number("dog") == 1 and found.class_number("7") == 2  # names come before numbers
    assert found.layer == "0" and float(found.model.mean) == 0.5
    assert own("told", size=24).size == 24
    assert own("pair").size == 32 and own("other").size == 224


def test_a_network_without_a_layer_for_maps(own):
    found = own("fixed", size=16)
    assert (found.layer, found.head, found.channels) == ("", "", 3)
    assert own("fixed_grey", size=16).channels == 1


@pytest.mark.parametrize(
    ("function", "given", "said"),
    [
        ("fixed", {}, r"mine\.py:fixed does not take images of 3 × 224 × 224 \(.*\); say which size it takes \(--size"),
        ("net", {"size": 4}, r"size 4: images have 8 to 2048 pixels a side"),
        ("deep", {}, r"takes images of 5 channels; pictures have 1 \(grey\) or 3 \(colour\)"),
        ("half", {}, r"does not take .*; its weights are of float16: let its function return net\.float\(\)"),
        ("raises", {}, r"mine\.py:raises fails on a picture \(KeyError: 'logits'\); mend its forward"),
        ("texts", {}, r"has class_names of type str and gives 3 logits"),
        ("misnamed", {}, r"has 1 class_names and gives 3 logits"),
        ("oblong", {}, r"has size \(32, 48\); size is the side of its square images, 8 to 2048 pixels"),
        ("tuples", {"size": 16}, r"the model returns a tuple .*adapt\(model, output=0\)"),
        ("infinite", {"size": 16}, r"logits are not finite; its weights hold NaN or infinity in net\.4\.weight"),
        ("ill_staged", {"size": 16}, r"no layer 'nowhere' in Sequential; did you mean"),
    ],
)
def test_own_code_that_does_not_fit_is_refused(own, function, given, said):
    with pytest.raises(ValueError, match=said) as refused:
        own(function, **given)
    assert "\n" not in str(refused.value)


def test_pictures_are_cut_as_the_network_takes_them(own, tmp_path):
    Image.new("L", (60, 90), 128).save(tmp_path / "a.png")
    found = own("told")
    (picture,) = own_pictures.gather([tmp_path / "a.png"], size=found.size, channels=found.channels, crop=found.crop)
    assert picture.x.shape == (3, 40, 40) and found.model(picture.x[None]).shape == (1, 3)
    assert torch.equal(picture.x, images.to_tensor(images.open_image(tmp_path / "a.png"), size=40, channels=3))
