"""Pathways against loops written from the definitions, on plain, residual, multi-branch, grouped and dense networks."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lib.networks import classifier, models, small
from lib.pathways import influences, neurons
from lib.pathways.neurons import Groups

D = torch.float64


def settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """In float64, with BatchNorm statistics, scales and shifts that differ from channel to channel."""
    generator = torch.Generator().manual_seed(seed)
    model = model.to(D).eval()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            for value, low in ((m.running_mean, -0.2), (m.running_var, 0.5), (m.weight.data, -0.3), (m.bias.data, -0.2)):
                value.copy_(low + torch.rand(value.shape, generator=generator, dtype=D))
    return model


def images(n: int = 5, size: int = 12, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(seed), dtype=D)


def slow_hop(x: np.ndarray, weight: np.ndarray, stride: int, padding: int, dilation: int = 1) -> np.ndarray:
    """(N, I, O): for each image and each pair of channels, a loop over positions; the maximum."""
    n, rows, height, width = x.shape
    k = weight.shape[2]
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    reach = dilation * (k - 1) + 1
    found = np.full((n, rows, len(weight)), -np.inf)
    for image in range(n):
        for i in range(rows):
            for o in range(len(weight)):
                for top in range(0, height + 2 * padding - reach + 1, stride):
                    for left in range(0, width + 2 * padding - reach + 1, stride):
                        patch = padded[image, i, top : top + reach : dilation, left : left + reach : dilation]
                        found[image, i, o] = max(found[image, i, o], (patch * weight[o, i]).sum())
    return found


def slow_strongest(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    found = np.zeros((len(first), second.shape[1]))
    for i in range(len(first)):
        for o in range(second.shape[1]):
            found[i, o] = max(min(first[i, b], second[b, o]) for b in range(len(second)))
    return found


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None) -> np.ndarray:
    weight = conv.weight.detach()
    if norm is not None:
        weight = weight * (norm.weight.detach() / (norm.running_var + norm.eps).sqrt()).view(-1, 1, 1, 1)
    return weight.numpy()


def med(x: np.ndarray) -> np.ndarray:
    return np.median(x, axis=0)


# -- scores, groups, rankings ------------------------------------------------------------------------------------------


def test_scores_are_maxima_over_positions_and_batches_do_not_matter():
    model, x = settled(models.create("plain", classes=4)), images()
    found = neurons.scores(model, x, ["stage1", "stage3"], batch_size=2)
    with torch.no_grad():
        z = (x - model.mean) / model.std
        first = model.net.stage1(z)
        last = model.net.stage3(model.net.stage2(first))
        assert torch.allclose(found.logits, model(x))
    for name, maps in (("stage1", first), ("stage3", last)):
        slow = [[max(map(float, maps[i, c].flatten())) for c in range(maps.shape[1])] for i in range(len(x))]
        assert torch.allclose(found.of[name], torch.tensor(slow, dtype=D))


@pytest.mark.parametrize(("values", "expected"), [([3, 1, 2], 2), ([4, 1, 2, 3], 2.5), ([7], 7)])
def test_median(values, expected):
    assert neurons.median(torch.tensor(values, dtype=D)[:, None]).item() == expected


def test_percentiles_are_ranks_over_the_size():
    assert neurons.percentile(torch.tensor([0.1, 5.0, 0.1, 7.0])).tolist() == [0.375, 0.75, 0.375, 1.0]
    assert neurons.percentile(torch.zeros(2, 3, 5)).shape == (2, 3, 5)


def test_groups_by_hand():
    source = torch.tensor([9.0, 8, 7, 1, 2, 3, 0, 0])
    target = torch.tensor([9.0, 1, 2, 8, 7, 3, 0, 0])
    attacked = torch.tensor([[0.0, 0, 0, 0, 1, 9, 8, 7], [9.0, 0, 0, 8, 7, 6, 0, 0]])
    found = neurons.groups(source, target, attacked, 3, exploited=2)
    assert found == Groups(original=(1, 2), both=(0,), target=(3, 4), exploited=((5, 6), ()))
    assert found.exploited_ever == (5, 6) and found.shown == (1, 2, 0, 3, 4, 5, 6)


def test_without_images_of_the_target_no_neuron_is_known_to_be_its():
    source, attacked = torch.tensor([9.0, 8, 1, 2]), torch.tensor([[0.0, 8, 9, 0]])
    assert neurons.groups(source, None, attacked, 2) == Groups(original=(0, 1), both=(), target=(), exploited=((2,),))


@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=3, max_size=5), st.integers(1, 6))
def test_groups_are_disjoint_and_complete(rows, k):
    """With ties too: O and T are split without rest, and what is exploited is in neither."""
    values = torch.tensor(rows, dtype=D)
    found = neurons.groups(values[0], values[1], values[2:], k)
    assert len(found.original) + len(found.both) == k == len(found.target) + len(found.both)
    assert len(set(found.shown)) == len(found.shown)
    assert all(len(e) <= 5 for e in found.exploited)
    assert min(values[0][[*found.original, *found.both]]) >= max(
        [v for c, v in enumerate(values[0].tolist()) if c not in found.original + found.both], default=0
    )


def test_of_equal_neurons_the_first_is_higher():
    assert neurons.top(torch.tensor([1.0] * 40 + [2.0]), 12).tolist() == [40, *range(11)]


@pytest.mark.parametrize("k", [0, 5])
def test_more_neurons_than_there_are(k):
    with pytest.raises(ValueError, match="of 4 channels"):
        neurons.top(torch.zeros(4), k)


def test_rankings_by_hand():
    attacked, clean = torch.tensor([1.0, 5.0, 2.0]), torch.tensor([3.0, 4.0, 2.0])
    expected = {"activated": [1, 5, 2], "changed": [2, 1, 0], "excited": [-2, 1, 0], "inhibited": [2, -1, 0]}
    assert {how: neurons.change(attacked, clean, how).tolist() for how in neurons.CHANGES} == expected
    with pytest.raises(ValueError, match="choose one of activated"):
        neurons.change(attacked, clean, "most")


def test_vulnerability_by_hand():
    clean, attacked = torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    assert neurons.vulnerability(attacked, clean, (0.5, 0.25)).tolist() == [2.0, 2.0]  # half a layer's size, over 1/4
    with pytest.raises(ValueError, match="one each, above 0"):
        neurons.vulnerability(attacked, clean, (0.5,))


# -- influence ---------------------------------------------------------------------------------------------------------


def test_a_plain_network_through_pooling():
    """Directly, and through the channels of a convolution between."""
    model, x = settled(models.create("plain", classes=4)), images(3, 8)
    with torch.no_grad():
        first = model.net.stage1((x - model.mean) / model.std)
        pooled = F.max_pool2d(first, 2)
        between = model.net.stage2[1](pooled)
    hop1 = med(slow_hop(pooled.numpy(), folded(model.net.stage2[1][0], model.net.stage2[1][1]), 1, 1))
    hop2 = med(slow_hop(between.numpy(), folded(model.net.stage2[2][0], model.net.stage2[2][1]), 1, 1))
    direct, second = influences.influence(model, x, ["stage1", "stage2.1", "stage2.2"], batch_size=2)
    np.testing.assert_allclose(direct, hop1, atol=1e-10)
    np.testing.assert_allclose(second, hop2, atol=1e-10)
    (through,) = influences.influence(model, x, ["stage1", "stage2"])
    np.testing.assert_allclose(through, slow_strongest(hop1, hop2), atol=1e-10)


def residual_by_hand(block: small.Residual, x: np.ndarray, stride: int) -> np.ndarray:
    """max(main path through its channels, projection or identity)."""
    with torch.no_grad():
        between = block.conv1(torch.from_numpy(x)).numpy()
    first = med(slow_hop(x, folded(block.conv1[0], block.conv1[1]), stride, 1))
    second = med(slow_hop(between, folded(block.conv2[0], block.conv2[1]), 1, 1))
    if isinstance(block.shortcut, nn.Identity):
        own = med(x.max((2, 3)))
        short = np.where(np.eye(len(own)), own, -np.inf)
    else:
        short = med(slow_hop(x, folded(block.shortcut[0], block.shortcut[1]), stride, 0))
    return np.maximum(slow_strongest(first, second), short)


def test_residual_blocks_with_projection_and_identity():
    torch.manual_seed(1)
    net = nn.Sequential(small.ConvBNReLU(3, 4), small.Residual(4, 6, 2), small.Residual(6, 6, 1))
    model = settled(
        classifier.Classifier(
            nn.Sequential(*net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)), stages=("0", "1", "2"), classes=3
        )
    )
    x = images(4, 7)
    with torch.no_grad():
        a = model.net[0]((x - model.mean) / model.std)
        b = model.net[1](a)
    one, two = influences.influence(model, x, ["0", "1", "2"], batch_size=3)
    np.testing.assert_allclose(one, residual_by_hand(model.net[1], a.numpy(), 2), atol=1e-10)
    np.testing.assert_allclose(two, residual_by_hand(model.net[2], b.numpy(), 1), atol=1e-10)


def test_branches_side_by_side():
    """Inception: 1x1, 3x3 and 5x5 through their own channels, pooling with a projection; one after the other."""
    torch.manual_seed(2)
    block = small.Inception(4, 2, (2, 3), (2, 2), 3)
    net = nn.Sequential(small.ConvBNReLU(3, 4), block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 3))
    model = settled(classifier.Classifier(net, stages=("0", "1"), classes=3))
    x = images(3, 6)
    with torch.no_grad():
        a = model.net[0]((x - model.mean) / model.std)
        pooled = F.max_pool2d(a, 3, 1, 1).numpy()
        three = block.three[0](a)
        five = [block.five[0](a), block.five[1](block.five[0](a))]
    a = a.numpy()

    def hop(maps, conv, padding):
        return med(slow_hop(np.asarray(maps), folded(conv[0], conv[1]), 1, padding))

    expected = np.concatenate(
        [
            hop(a, block.one, 0),
            slow_strongest(hop(a, block.three[0], 0), hop(three, block.three[1], 1)),
            slow_strongest(
                slow_strongest(hop(a, block.five[0], 0), hop(five[0], block.five[1], 1)), hop(five[1], block.five[2], 1)
            ),
            hop(pooled, block.pool[1], 0),
        ],
        axis=1,
    )
    (found,) = influences.influence(model, x, ["0", "1"])
    np.testing.assert_allclose(found, expected, atol=1e-10)
    shown = {"0": (3, 1), "1": (9, 0, 4, 6, 2)}
    (some,) = influences.influence(model, x, ["0", "1"], shown)
    np.testing.assert_allclose(some, expected[np.ix_(shown["0"], shown["1"])], atol=1e-10)
    (released,) = influences.influence(model, x, ["0", "1"], released=True)
    by_three = med(slow_hop(a, folded(block.one[0], block.one[1]), 3, 0))
    un_pooled = med(slow_hop(a, folded(block.pool[1][0], block.pool[1][1]), 3, 0))
    np.testing.assert_allclose(released[:, :2], by_three, atol=1e-10)
    np.testing.assert_allclose(released[:, 7:], un_pooled, atol=1e-10)
    second = med(slow_hop(three.numpy(), folded(block.three[1][0], block.three[1][1]), 3, 1))
    np.testing.assert_allclose(
        released[:, 2:5],
        slow_strongest(med(slow_hop(a, folded(block.three[0][0], block.three[0][1]), 3, 0)), second),
        atol=1e-10,
    )


def test_a_shortcut_with_more_channels():
    """Channels of zeros beside the old ones: influence on itself where a channel was, and none where none was."""

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 4, 1), nn.Identity()
            self.head = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a = self.a(x).relu()
            return self.head(self.c(self.b(a) + F.pad(a, (0, 0, 0, 0, 1, 1))).mean((2, 3)))

    torch.manual_seed(4)
    model, x = Padded().to(D).eval(), images(3, 6)
    with torch.no_grad():
        a = model.a(x).relu().numpy()
    expected = med(slow_hop(a, folded(model.b), 1, 0))
    own = med(model.a(x).detach().amax((2, 3)).numpy())
    for i in range(2):
        expected[i, i + 1] = max(expected[i, i + 1], own[i])
    (found,) = influences.influence(model, x, ["a", "c"])
    np.testing.assert_allclose(found, expected, atol=1e-10)


class Odd(nn.Module):
    """A grouped, dilated, strided convolution without normalisation, of what two layers put out."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 1)
        self.c = nn.Conv2d(8, 6, 3, stride=2, padding=2, dilation=2, groups=2)
        self.mixed = nn.Identity()
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.a(x).relu()
        c = self.c(torch.cat([F.gelu(self.b(a)), a], 1))
        return self.head(self.mixed(c.roll(1, 1)).mean((2, 3)))


class Inverted(nn.Module):
    """What mobile networks are made of: one pixel wide to more channels, depthwise, one pixel wide in steps; values below 0."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.wide = nn.Conv2d(4, 6, 1)
        self.each = nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6)
        self.twice = nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.narrow = nn.Conv2d(12, 5, 1, stride=2)
        self.grouped = nn.Conv2d(5, 5, 1, padding=1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.narrow(self.twice(self.each(self.wide(self.a(x)))))
        return self.head(self.grouped(x).mean((2, 3)))


def dense(conv: nn.Conv2d) -> np.ndarray:
    """A depthwise kernel with zeros where it has no slice."""
    weight = np.zeros((conv.out_channels, conv.in_channels, *conv.kernel_size))
    for o in range(conv.out_channels):
        weight[o, o * conv.in_channels // conv.out_channels] = conv.weight.detach()[o, 0].numpy()
    return weight


def test_depthwise_and_pointwise_convolutions():
    """Products and single convolutions in place of a convolution for each pair of channels: the same numbers."""
    torch.manual_seed(6)
    model, x = Inverted().to(D).eval(), images(3, 9)
    steps = {"wide": (1, 0), "each": (2, 1), "twice": (1, 1), "narrow": (2, 0), "grouped": (1, 1)}
    with torch.no_grad():
        maps, hops = model.a(x), []
        for name, (stride, padding) in steps.items():
            conv = getattr(model, name)
            weight = dense(conv) if conv.groups > 1 else folded(conv)
            hop = slow_hop(maps.numpy(), weight, stride, padding)
            hops.append(np.where((weight == 0).all((2, 3)).T, 0.0, med(hop)))
            maps = conv(maps)
    expected = functools.reduce(slow_strongest, hops)
    (found,) = influences.influence(model, x, ["a", "grouped"])
    np.testing.assert_allclose(found, expected, atol=1e-10)
    shown = {"a": (3, 1), "grouped": (4, 0)}
    (some,) = influences.influence(model, x, ["a", "grouped"], shown)
    np.testing.assert_allclose(some, expected[np.ix_((3, 1), (4, 0))], atol=1e-10)


def test_groups_dilation_stride_and_what_does_not_come_from_the_layer():
    torch.manual_seed(3)
    model, x = Odd().to(D).eval(), images(3, 8)
    with torch.no_grad():
        b = F.gelu(model.b(model.a(x).relu()))
    dense = np.zeros((6, 4, 3, 3))
    dense[:3] = model.c.weight.detach()[:3].numpy()  # the first group reads b, the second the four channels of a
    expected = med(slow_hop(b.numpy(), dense, 2, 2, 2))
    (found,) = influences.influence(model, x, ["b", "c"])
    np.testing.assert_allclose(found[:, :3], expected[:, :3], atol=1e-10)
    assert (found[:, 3:] == 0).all()
    with pytest.raises(ValueError, match="order in which they run"):
        influences.influence(model, x, ["c", "b"])


def test_what_cannot_be_followed_is_named():
    with pytest.raises(ValueError, match="cannot be followed through 'roll'"):
        influences.influence(Odd().to(D).eval(), images(2, 8), ["c", "mixed"])


def test_no_neuron_shown_has_no_edges_also_through_a_block():
    model = settled(models.create("residual", classes=4))
    (found,) = influences.influence(model, images(), ("stage1", "stage2.0"), {"stage1": (), "stage2.0": (1, 2)})
    assert found.shape == (0, 2)


def test_one_layer_has_no_edges():
    assert influences.influence(settled(models.create("plain", classes=4)), images(), ["stage1"]) == []


@pytest.mark.parametrize(
    ("layers", "message"),
    [(["stage9"], "did you mean"), (["head"], "a map needs a convolutional layer"), ([], "pathways need one at least")],
)
def test_layers_that_are_none(layers, message):
    model = settled(models.create("plain", classes=4))
    with pytest.raises(ValueError, match=message):
        neurons.scores(model, images(), layers)


def test_the_model_is_left_as_it_was():
    model = models.create("residual", classes=4).to(D).train()
    model.net.stage1.eval()
    before = [(m.training, len(m._forward_hooks)) for m in model.modules()]
    influences.influence(model, images(), model.stages)
    neurons.scores(model, images(), model.stages)
    assert before == [(m.training, len(m._forward_hooks)) for m in model.modules()]
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("arch", ["densenet121", "googlenet", "resnet18", "resnet34-cifar"])
def test_any_network(arch):
    model = models.create(arch, classes=3)
    shown = dict.fromkeys(model.stages, (0, 1, 2))
    for matrix in influences.influence(model, images(2, 64).float(), model.stages, shown):
        assert matrix.shape == (3, 3) and matrix.isfinite().all()


class Between(nn.Module):
    """What lies between the ReLU behind convolution a and the end: any function of its maps and of a second convolution."""

    def __init__(self, function) -> None:
        super().__init__()
        self.a, self.first, self.b, self.end = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.Identity()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.first(self.a(x))
        return self.end(self.function(maps, self.b)).mean((2, 3))


def between(function) -> torch.Tensor:
    torch.manual_seed(5)
    (found,) = influences.influence(Between(function).to(D).eval(), images(), ["first", "end"])
    return found


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: b(F.dropout(a, training=False)),  # gives back its input, as all of the first line do
        lambda a, b: b(F.alpha_dropout(a).contiguous().to(D).type_as(a)),
        lambda a, b: b(a) * torch.sigmoid(a.mean((2, 3), keepdim=True) - 30),  # a gate is no path
        lambda a, b: b(a).clamp(min=-9),
        lambda a, b: b(F.threshold(a, -1, 0)),
        lambda a, b: b(a[:, :, :, :])[..., :],
        lambda a, b: b(a) * 1.0 / 1,
    ],
)
def test_what_changes_no_influence(function):
    assert torch.equal(between(function), between(lambda a, b: b(a)))


def test_a_constant_factor_belongs_to_the_kernel():
    plain = between(lambda a, b: b(a))
    factors = torch.tensor([0.5, 2.0, 0.0, 1.0, 3.0, 0.25], dtype=D).view(-1, 1, 1)
    torch.testing.assert_close(between(lambda a, b: factors * b(a)), plain * factors.flatten())
    torch.testing.assert_close(between(lambda a, b: b(a) / 4), plain / 4)
    for several in (lambda a, b: (z := b(a)) * 0.1 + z, lambda a, b: (z := b(a)) * (z / 6 + 0.5).clamp(0, 1)):
        assert torch.equal(between(several), plain)  # a factor of one path of several is not the convolution's
    lowest = between(lambda a, b: -1 * b(a))  # the maximum of -z is not that of z
    assert not torch.allclose(lowest.abs(), plain.abs())
    torch.manual_seed(5)
    turned = Between(lambda a, b: b(a)).to(D).eval()
    turned.b.weight.data *= -1
    (expected,) = influences.influence(turned, images(), ["first", "end"])
    torch.testing.assert_close(lowest, expected)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda a, b: a - b(a), "sub"),
        (lambda a, b: 1 - b(a), "__rsub__|rsub"),
        (lambda a, b: a / (1 + b(a)), "div"),
        (lambda a, b: b(a)[:, [1, 0, 2, 3, 4, 5]], "__getitem__"),
        (lambda a, b: b(a)[:, 1:], "__getitem__"),
    ],
)
def test_a_sign_or_an_order_that_no_kernel_holds_is_refused(function, name):
    with pytest.raises(ValueError, match=f"cannot be followed through '({name})'"):
        between(function)


def test_a_stage_of_many_blocks_is_followed_to_its_beginning():
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.end = nn.Conv2d(3, 2, 1), nn.Identity()
            self.blocks = nn.ModuleList(nn.Conv2d(2, 2, 1) for _ in range(120))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            for block in self.blocks:
                x = x + F.relu(F.relu(F.relu(F.relu(block(x))))) * 0
            return self.end(x).mean((2, 3))

    (found,) = influences.influence(Deep().to(D).eval(), images(2, 4), ["first", "end"])
    assert found.shape == (2, 2) and found.isfinite().all()


def test_channels_that_a_layer_lacks_have_no_influence_to_ask_for():
    model, x = Between(lambda a, b: b(a)).to(D).eval(), images()
    for shown, message in (
        ({"first": [0], "end": [77]}, r"channels \[77\] of layer 'end', which has 6"),
        ({"first": [-1], "end": [0]}, r"channels \[-1\] of layer 'first'"),
        ({"first": [0]}, "names no channels of layer 'end'"),
    ):
        with pytest.raises(ValueError, match=message):
            influences.influence(model, x, ["first", "end"], shown)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_medians_of_half_precision(kind):
    assert neurons.median(torch.tensor([[1.0], [2.0], [4.0], [8.0]], dtype=kind)).tolist() == [3.0]
