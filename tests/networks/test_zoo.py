"""torchvision's networks with random weights; the loading code on files laid out as torchvision lays out its own."""

import pytest
import torch
import torchvision

from lib.explanations import activation_maps
from lib.networks import contract, models, zoo

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


def test_xception_comes_from_timm_or_says_how_to_get_it():
    try:
        import timm  # noqa: F401
    except ImportError:
        with pytest.raises(RuntimeError, match=r"pip install -e '\.\[zoo\]'"):
            models.create("xception", classes=5)
    else:
        net = models.create("xception", classes=5).eval()
        found = activation_maps.gradcams(net, torch.rand(1, 3, 96, 96), 0, list(net.stages))
        assert len(found.maps) == 4
