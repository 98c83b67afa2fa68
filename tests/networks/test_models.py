import pytest
import torch
from torch.nn import functional as F

from lib.networks import hooks, models


def test_families_are_of_one_size_and_shape():
    counts = {a: models.parameter_count(models.create(a, classes=10)) for a in ("plain", "residual", "inception")}
    assert max(counts.values()) <= 1.12 * min(counts.values()), counts
    for arch in counts:
        net = models.create(arch, classes=10).eval()
        with hooks.capture(net, net.stages, cut=False) as seen:
            assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)
        assert [seen[s].shape[-1] for s in net.stages] == [32, 16, 8]


def test_small_is_the_published_network():
    """Boopathy et al.: 166,396 parameters for MNIST, 166,908 for CIFAR-10, maps of 7x7 and 8x8, last layer not rectified."""
    for channels, size, count, grid in ((1, 28, 166_396, 7), (3, 32, 166_908, 8)):
        net = models.create("small", classes=10, channels=channels).eval()
        assert models.parameter_count(net) == count
        x = torch.rand(4, channels, size, size)
        with hooks.capture(net, ["conv3"], cut=False) as seen:
            logits = net(x)
        maps = seen["conv3"]
        assert maps.shape[-2:] == (grid, grid) and (maps < 0).any()
        assert torch.allclose(logits, maps.mean((2, 3)) @ net.net.head.weight.T, atol=1e-5)


def test_small_by_hand():
    net = models.create("small", classes=3, channels=1).double().eval()
    n = net.net
    x = torch.rand(1, 1, 28, 28, dtype=torch.float64)
    a = F.conv2d(F.pad(x, (1, 1, 1, 1)), n.conv1.weight, n.conv1.bias, stride=2)
    b = F.conv2d(F.pad(a.clamp(min=0), (1, 1, 1, 1)), n.conv2.weight, n.conv2.bias, stride=2)
    c = F.conv2d(F.pad(b.clamp(min=0), (3, 3, 3, 3)), n.conv3.weight, n.conv3.bias)
    assert torch.allclose(net(x), c.mean((2, 3)) @ n.head.weight.T)
    for layer, fan_in in ((n.conv1, 16), (n.conv3, 32 * 49)):
        assert layer.weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.1)
        assert not layer.bias.any()


def test_normalises_inside():
    net = models.create("plain", classes=10).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(net(x), net.net((x - 0.5) / 0.25))


def test_seed_decides_the_weights_and_the_global_state_is_left_alone():
    before = torch.get_rng_state()
    a, b, c = (models.create("residual", classes=10, seed=s) for s in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    first = [next(iter(m.parameters())) for m in (a, b, c)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "vgg61", "classes": 10}, "unknown network 'vgg61'; choose one of plain"),
        ({"arch": "plain", "classes": 1}, "2 classes"),
        ({"arch": "plain", "classes": 10, "weights": "imagenet"}, "no published weights"),
        ({"arch": "resnet18", "classes": 10, "channels": 1}, "takes colour images"),
    ],
)
def test_bad_input_says_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.create(**arguments)


def same_padding(x, weight, bias, stride):
    """TensorFlow's SAME: the output has ceil(size / stride) pixels, and what is missing is put after rather than before."""
    k, size = weight.shape[2], x.shape[2]
    total = max((-(-size // stride) - 1) * stride + k - size, 0)
    return F.conv2d(F.pad(x, (total // 2, total - total // 2) * 2), weight, bias, stride)


@pytest.mark.parametrize(("channels", "size", "parameters", "side"), [(1, 28, 166_396, 7), (3, 32, 166_908, 8)])
def test_small_is_the_papers(channels, size, parameters, side):
    model = models.create("small", classes=10, channels=channels)
    net = model.net
    assert models.parameter_count(model) == parameters and net.head.bias is None
    x = torch.rand(2, channels, size, size)
    a = same_padding(x, net.conv1.weight, net.conv1.bias, 2)
    a = same_padding(a.relu(), net.conv2.weight, net.conv2.bias, 2)
    a = same_padding(a.relu(), net.conv3.weight, net.conv3.bias, 1)
    assert a.shape[2:] == (side, side) and (a < 0).any()  # the last feature maps are not rectified
    torch.testing.assert_close(model(x), a.mean((2, 3)) @ net.head.weight.T, rtol=1e-4, atol=1e-5)
    assert net.conv3.weight.std().item() == pytest.approx((49 * 32) ** -0.5, rel=0.02)


@pytest.mark.parametrize("size", [32, 48])
def test_wresnet_is_the_papers(size):
    """Written out: convolutions on rectified inputs, shortcuts by 2 x 2 averages and zero channels, half on each side."""
    model = models.create("wresnet", classes=10)
    net = model.net
    assert models.parameter_count(model) == 463_008
    assert sum(isinstance(m, torch.nn.Conv2d) for m in model.modules()) == 31
    x = torch.rand(2, 3, size, size)
    with torch.no_grad():
        for m in model.modules():  # biases that are not zero, so that they are seen
            if isinstance(m, torch.nn.Conv2d):
                m.bias.normal_(std=0.1)
        a = same_padding(x, net.stem.weight, net.stem.bias, 1)
        for stage, width in ((net.stage1, 16), (net.stage2, 32), (net.stage3, 64)):
            for i, block in enumerate(stage):
                stride = 2 if i == 0 and width > 16 else 1
                h = same_padding(a.relu(), block.conv1.weight, block.conv1.bias, stride)
                h = same_padding(h.relu(), block.conv2.weight, block.conv2.bias, 1)
                if stride == 2:
                    a = a.view(2, width // 2, h.shape[2], 2, h.shape[3], 2).mean((3, 5))
                    zero = torch.zeros(2, width // 4, *h.shape[2:])
                    a = torch.cat([zero, a, zero], 1)
                a = h + a
        assert a.shape == (2, 64, size // 4, size // 4)
        torch.testing.assert_close(model(x), a.mean((2, 3)) @ net.head.weight.T, rtol=1e-4, atol=1e-4)


def test_the_resnets_for_small_images_are_those_of_the_literature():
    """Parameters of ResNet-34 with a 3x3 stem and ten classes: torchvision's 21.8 M less the larger stem and head."""
    import torchvision

    theirs = torchvision.models.resnet34(num_classes=10)
    stem = theirs.conv1.weight.numel() - 64 * 3 * 9
    ours = models.parameter_count(models.create("resnet34-cifar", classes=10))
    assert ours == models.parameter_count(theirs) - stem
    net = models.create("resnet10-thin", classes=10)
    seen = {}
    for name in net.stages:
        net.net.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: tuple(o.shape[1:])}))
    with torch.no_grad():
        net.eval()(torch.rand(2, 3, 32, 32))
    assert list(seen.values()) == [(16, 32, 32), (32, 16, 16), (64, 8, 8), (128, 4, 4)]


def test_the_size_of_a_network_is_known_without_it():
    assert models.bytes_of("plain") == 4 * sum(p.numel() for p in models.create("plain", classes=1000).parameters())
    assert models.bytes_of("vgg19") == 4 * 143_667_240  # torchvision's documentation
    assert models.bytes_of("nowhere:net") == 0
    with pytest.raises(ValueError, match="vgg19"):
        models.bytes_of("vgg20")
