"""Maps of layers that have their channels last or are tokens, against plain autograd; nothing is guessed."""

import pytest
import torch
import torchvision
from torch import nn

from lib.explanations import activation_maps, by_name, gradients, guided, relevance
from lib.explanations.by_name import Settings
from lib.networks import hooks, layouts, models
from lib.pathways import neurons


def drawn(net):
    """float64; a head that tells the classes apart."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for p in net.parameters():
            p.normal_(std=0.3)
    return net.double().eval()


@pytest.fixture(scope="module")
def vit():
    sizes = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 12, "mlp_dim": 24}
    return drawn(torchvision.models.VisionTransformer(**sizes, num_classes=5))


@pytest.fixture(scope="module")
def swin():
    kind = torchvision.models.SwinTransformer
    return drawn(kind([4, 4], embed_dim=8, depths=[2, 1], num_heads=[2, 2], window_size=[4, 4], num_classes=5))


@pytest.fixture(scope="module")
def convnext():
    block = torchvision.models.convnext.CNBlockConfig
    return drawn(torchvision.models.ConvNeXt([block(8, 16, 1), block(16, None, 2)], num_classes=5))


X = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([1, 4])


def by_hand(net, layer, turn, method="gradcam"):
    """Activation and gradient by a hook of PyTorch's own, turned into maps, and the formula position by position."""
    store = {}
    handle = hooks.find_layer(net, layer).register_forward_hook(lambda m, i, o: store.update(a=o))
    score = net(X)[torch.arange(2), Y].sum()
    handle.remove()
    a, g = (turn(t) for t in (store["a"].detach(), torch.autograd.grad(score, store["a"])[0]))
    if method == "gradcam":
        weights = g.mean((2, 3))
    else:
        alpha = g**2 / (2 * g**2 + a.sum((2, 3), keepdim=True) * g**3 + 1e-6)
        weights = (alpha * g.clamp(min=0)).sum((2, 3))
    return sum(weights[:, k, None, None] * a[:, k] for k in range(a.shape[1])), g


def last(t):
    return torch.stack([t[..., k] for k in range(t.shape[-1])], 1)


def tokens(t):
    """Without the class token; patches row by row, four a row."""
    return torch.stack([t[:, 1 + 4 * i : 5 + 4 * i] for i in range(4)], 1).permute(0, 3, 1, 2)


SWIN = {"features.0": 8, "features.1": 8, "features.1.0.mlp": 8, "features.2": 4, "features.3": 4, "norm": 4}
VIT = ("encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_0.mlp", "encoder.layers.encoder_layer_1.ln_1")


@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
@pytest.mark.parametrize("layer", SWIN)
def test_channels_last(swin, layer, method):
    found = activation_maps.gradcam(swin, X, Y, layer, method=method, sign="signed").values
    expected, g = by_hand(swin, layer, last, method)
    assert found.shape == (2, SWIN[layer], SWIN[layer])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients.layer_gradient(swin, X, Y, layer).values, g)
    graph = activation_maps.gradcam(swin, X, Y, layer, method=method, sign="signed", create_graph=True).values
    torch.testing.assert_close(graph.detach(), expected)


@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
@pytest.mark.parametrize("layer", [*VIT, "encoder.dropout"])
def test_tokens(vit, layer, method):
    found = activation_maps.gradcam(vit, X, Y, layer, method=method, sign="signed").values
    expected, g = by_hand(vit, layer, tokens, method)
    assert found.shape == (2, 4, 4) and found.any()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients.layer_gradient(vit, X, Y, layer).values, g)


@pytest.mark.parametrize(
    "layer", ["features.0", "features.1", "features.1.0", "features.1.0.block.6", "features.2", "features.3", "avgpool"]
)
def test_channels_first_beside_normalisations_that_turn_them_around(convnext, layer):
    found = activation_maps.gradcam(convnext, X, Y, layer, sign="signed").values
    torch.testing.assert_close(found, by_hand(convnext, layer, lambda t: t)[0])


@pytest.mark.parametrize("size", [8, 12, 16])
def test_as_many_channels_as_rows_is_no_question_for_convolutions(size):
    """Also of layers without weights, of which only what the network does with them tells."""
    body = nn.Sequential(
        nn.Conv2d(3, size, 3, padding=1), nn.BatchNorm2d(size), nn.ReLU(), nn.Identity(), nn.Conv2d(size, 4, 1)
    )
    net = drawn(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)))
    x = torch.rand(2, 3, size, size, dtype=torch.float64)
    for layer in ("0.0", "0.1", "0.2", "0.3"):
        a = body[: int(layer[-1]) + 1](x).detach().requires_grad_()
        g = torch.autograd.grad(net[1:](body[int(layer[-1]) + 1 :](a))[:, 2].sum(), a)[0]
        found = activation_maps.gradcam(net, x, 2, layer, sign="signed").values
        torch.testing.assert_close(found, (g.mean((2, 3), keepdim=True) * a.detach()).sum(1))


@pytest.mark.parametrize("size", [32, 24])
def test_as_many_channels_as_rows_where_they_are_last(size):
    """Eight channels, eight by eight patches, and not: the answer is that of the normalisation that comes next."""
    kind = torchvision.models.SwinTransformer
    net = drawn(kind([4, 4], embed_dim=8, depths=[2, 1], num_heads=[2, 2], window_size=[4, 4], num_classes=5))
    x = torch.rand(1, 3, size, size, dtype=torch.float64)
    store = {}
    handle = net.features[0].register_forward_hook(lambda m, i, o: store.update(a=o))
    g = torch.autograd.grad(net(x)[0, 1], store["a"])[0]
    handle.remove()
    expected = (g.mean((1, 2), keepdim=True) * store["a"].detach()).sum(3)
    for layer in ("features.0", "features.0.2"):
        torch.testing.assert_close(activation_maps.gradcam(net, x, 1, layer, sign="signed").values, expected)
    other = activation_maps.gradcam(net, x, 1, "features.0", layout="channels-first", sign="signed").values
    assert other.shape == (1, size // 4, 8) and (size != 32 or not torch.allclose(other, expected))


def test_what_goes_into_a_layer(swin, vit):
    for net, into, above in (
        (swin, "into:features.2", "features.1"),
        (vit, f"into:{VIT[2]}", VIT[0]),
        (swin, "into:permute", "norm"),
    ):
        a, b = (activation_maps.gradcam(net, X, Y, layer).values for layer in (into, above))
        torch.testing.assert_close(a, b)


def test_images_that_are_not_square_have_such_grids(vit):
    """Two rows of eight patches each are a grid of another shape than four by four."""
    x = torch.rand(1, 3, 16, 64, dtype=torch.float64)
    net = drawn(torchvision.models.VisionTransformer(32, 8, 2, 2, 12, 24, num_classes=5))
    net._process_input = lambda x: net.conv_proj(x).flatten(2).transpose(1, 2)  # which checks the size
    found = activation_maps.gradcam(net, x, 1, VIT[2], sign="signed").values
    given = activation_maps.gradcam(
        net, x, 1, VIT[2], sign="signed", layout=lambda t: t[:, 1:].transpose(1, 2).unflatten(2, (2, 8))
    ).values
    assert found.shape == (1, 2, 8) and torch.equal(found, given)


class Plain(nn.Module):
    """Tokens without a name for those that are of no patch; a layer of width six."""

    def __init__(self, tokens=17, first=True):
        super().__init__()
        self.tokens, self.first = tokens, first
        self.embed, self.norm = nn.Conv2d(3, 6, 8, 8), nn.LayerNorm(6)
        self.attention = nn.MultiheadAttention(6, 1, batch_first=first)
        self.act, self.head = nn.Identity(), nn.Linear(6, 5)

    def forward(self, x):
        t = self.embed(x).flatten(2).transpose(1, 2)
        t = torch.cat([t.mean(1, keepdim=True).expand(-1, self.tokens - 16, -1), t], 1)
        t = self.norm(t if self.first else t.transpose(0, 1))
        t = self.act(self.attention(t, t, t)[0])
        return self.head(t.mean(1 if self.first else 0))


class Lost(nn.Module):
    """Channels last, and nothing says so: dense layers on flattened maps follow."""

    def __init__(self, norm):
        super().__init__()
        self.conv, self.act, self.norm, self.head = nn.Conv2d(3, 8, 4, 4), nn.Identity(), norm, nn.Linear(512, 5)

    def forward(self, x):
        return self.head(self.act(self.norm(self.conv(x).permute(0, 2, 3, 1))).flatten(1))


def test_what_does_not_tell_has_to_be_said(vit, swin):
    given = {"layout": lambda t: t[:, -16:].transpose(1, 2).unflatten(2, (4, 4))}
    for net, layer, message in (
        (
            Plain(),
            "norm",
            r"'norm' has 17 tokens, where .* has 0 before the patches, which leaves no grid .*32 x 32; give layout=",
        ),
        (Plain(19), "act", "'act' has 19 tokens"),
        (Plain(16, first=False), "norm", r"'norm' has \(16, 2, 6\) for 2 image.s.: tokens do not come image by image"),
        (Lost(nn.LayerNorm(8)), "act", r"'act' has \(2, 8, 8, 8\), and where its channels are does not tell; say layout="),
    ):
        with pytest.raises(ValueError, match=message):
            activation_maps.gradcam(drawn(net), X, Y, layer)
    assert activation_maps.gradcam(drawn(Plain()), X, Y, "norm", **given).values.shape == (2, 4, 4)
    assert activation_maps.gradcam(drawn(Plain(16)), X, Y, "norm").values.shape == (2, 4, 4)
    late = Plain(16)
    late.class_token = nn.Parameter(torch.zeros(1, 1, 6))  # which comes in further up: sixteen are a grid, fifteen none
    assert activation_maps.gradcam(drawn(late), X, Y, "norm").values.shape == (2, 4, 4)
    lost = drawn(Lost(nn.LayerNorm(8)))
    a, b = (
        activation_maps.gradcam(lost, X, Y, layer, layout=o).values for layer, o in (("act", "channels-last"), ("norm", None))
    )
    assert torch.equal(a, b) and a.any()
    for options, message in (
        ({"layout": "last"}, "unknown layout 'last'; say layout="),
        ({"layout": "tokens"}, r"'features.1' has \(2, 8, 8, 8\), which is not tokens"),
        ({"layout": lambda t: t[0]}, r"layout makes \(8, 8, 8\) of layer 'features.1', \(2, 8, 8, 8\); expected maps"),
    ):
        with pytest.raises(ValueError, match=message):
            activation_maps.gradcam(swin, X, Y, "features.1", **options)
    with pytest.raises(ValueError, match=r"does not tell|convolutional layer|leaves no grid"):
        activation_maps.gradcam(vit, X, Y, "heads")


def test_above_the_last_attention_only_the_class_token_counts(vit):
    """A map of zeros says nothing about the image."""
    for kernel in (activation_maps.gradcam, gradients.layer_gradient):
        with pytest.raises(
            ValueError, match=r"the class depends on tokens that belong to no patch .* name a layer below the last"
        ):
            kernel(vit, X, Y, "encoder.layers.encoder_layer_1")


def test_what_needs_channels_first_refuses_other_layouts(swin, vit):
    for call in (
        lambda: neurons.scores(swin, X, ["features.1"]),
        lambda: activation_maps.cam(swin, X, Y, "norm"),
        lambda: relevance.lrp(swin, X, Y, "features.3"),
    ):
        with pytest.raises(
            ValueError, match=r"its channels last(, which nothing in it tells)?; what is asked for needs maps \(N, C, h, w\)"
        ):
            call()
    with pytest.raises(ValueError, match=r"puts out \(2, 17, 12\); a map needs"):
        neurons.scores(vit, X, [VIT[0]])
    assert neurons.scores(swin, X, ["features.0.0", "avgpool"]).of["avgpool"].shape == (2, 16)


def test_by_name_on_transformers(swin, vit):
    for net, layer in ((swin, "features.1"), (vit, VIT[2])):
        for name in ("gradcam", "gradcam++", "simple_t"):
            shown = by_name.explain(name, net, X, Y, Settings(layer)).values
            side = 8 if net is swin else 4
            assert shown.shape == (2, side, side) and (name == "gradcam++" or shown.flatten(1).amax(1).eq(1).all()), name
        for name in ("gradient", "smoothgrad", "ig"):
            assert by_name.raw(name, net, X, Y, Settings(n=2, steps=2)).values.any(), name
        with pytest.raises(ValueError, match=r"no ReLU ran"):
            guided.guided_backpropagation(net, X, Y)
        last = "norm" if net is swin else "encoder.ln"
        with pytest.raises(ValueError, match=f"LRP has no rule for 'layer_norm', which runs in layer '{last}'"):
            relevance.lrp(net, X, Y)


def test_attention_has_no_rule_of_relevance(vit):
    net = drawn(torchvision.models.VisionTransformer(32, 8, 1, 2, 12, 24, num_classes=5, norm_layer=nn.Identity))
    with pytest.raises(ValueError, match=r"LRP has no rule for 'multi_head_attention_forward', .* layer '.*self_attention'"):
        relevance.lrp(net, X, Y)


@pytest.mark.parametrize("arch", list(models.SMALL_NETWORKS))
def test_the_studys_networks_are_known_by_their_parts(arch):
    """No second look at what the network does with a map: stages tell by themselves."""
    net = models.create(arch, classes=4).eval()
    for stage in net.stages:
        assert layouts.by_parts(hooks.find_layer(net, stage), (2, 16, 8, 8)) == "channels-first" or not list(
            hooks.find_layer(net, stage).parameters()
        )


def test_half_precision():
    net = models.create("residual", classes=4).eval()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    exact = activation_maps.gradcam(net, x, 1, "stage3", sign="signed").values
    for half in (torch.bfloat16, torch.float16):
        found = activation_maps.gradcam(net.to(half), x.to(half), 1, "stage3", sign="signed").values
        assert found.dtype == half and (found.float() - exact).norm() < 0.1 * exact.norm()
