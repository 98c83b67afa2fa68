import pytest
import torch
from torch.nn import functional as F

from lib import hooks, models


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
