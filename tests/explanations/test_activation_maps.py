"""CAM kernels against slow twins written from the papers' formulas, against captum and grad-cam, and by identities."""

import numpy as np
import pytest
import torch
from torch import nn

from lib.explanations import activation_maps
from lib.networks import contract, hooks, models
from lib.system.flops import flops
from tests.conftest import Breaks, same_state, state_of, toy

LAYERS = ["act1", "conv2", "act2"]


def twin(model, x, c, layer, method="gradcam"):
    """One image, one class, one layer; every sum written out."""
    store = {}
    handle = hooks.find_layer(model, layer).register_forward_hook(lambda m, i, o: store.update(a=o))
    logit = model(x[None])[0, c]
    handle.remove()
    a = store["a"]
    g = torch.autograd.grad(logit, a)[0][0]
    a = a[0].detach()
    channels, height, width = a.shape
    out = torch.zeros(height, width, dtype=a.dtype)
    for k in range(channels):
        weight = 0.0
        for i in range(height):
            for j in range(width):
                d = g[k, i, j]
                if method == "gradcam":
                    weight += d / (height * width)
                elif d != 0:
                    alpha = d**2 / (2 * d**2 + a[k].sum() * d**3 + 1e-6)
                    weight += alpha * max(d, torch.zeros_like(d))
        out += weight * a[k]
    return out


@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_equals_the_slow_twin(model, x, y, method):
    found = activation_maps.gradcams(model, x, y, LAYERS, method=method, sign="signed")
    for layer in LAYERS:
        for i in range(len(x)):
            expected = twin(model, x[i], int(y[i]), layer, method)
            assert torch.allclose(found.maps[layer][i], expected, rtol=1e-10, atol=1e-14)
    assert torch.equal(found.logits, model(x))


def test_hand_computed():
    """One 1x1 convolution, two channels, two classes: every number by hand."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
        net[3].weight.copy_(torch.tensor([[1.0, -1.0], [0.5, 0.25]]))
    x = torch.tensor([[[[0.0, 0.4], [0.8, 1.0]]]])
    # class 0: weights (1, -1) / 4, so S = (x - 2 x) / 4; class 1: (0.5 x + 0.25 * 2 x) / 4
    found = activation_maps.gradcam(net, x, torch.tensor([[0, 1]]), "0", sign="signed").values
    assert torch.allclose(found[0, 0], -x[0, 0] / 4)
    assert torch.allclose(found[0, 1], x[0, 0] / 4)


def test_cam_over_z_is_signed_gradcam_exactly(model, x):
    classes = torch.arange(4).expand(len(x), 4)
    a = activation_maps.cam(model, x, classes, "act2").values
    b = activation_maps.gradcam(model, x, classes, "act2", sign="signed").values
    assert torch.allclose(a / a[0, 0].numel(), b, rtol=1e-12, atol=1e-16)


def test_cam_of_the_networks_with_heads(small_plain):
    x = torch.rand(2, 3, 32, 32)
    a = activation_maps.cam(small_plain, x, 3, "stage3")
    b = activation_maps.gradcam(small_plain, x, 3, "stage3", sign="signed").values * 64
    assert torch.allclose(a.values, b, rtol=1e-4, atol=1e-6)
    # completeness: the mean of the map and the bias are the logit
    bias = small_plain.net.head.bias[3]
    assert torch.allclose(a.values.mean((1, 2)) + bias, a.logits[:, 3], atol=1e-5)


def test_positive_less_counterfactual_is_signed_and_they_never_meet(model, x, y):
    s, p, c = (activation_maps.gradcam(model, x, y, "act2", sign=k).values for k in ("signed", "positive", "counterfactual"))
    assert torch.equal(p - c, s)
    assert torch.equal(p * c, torch.zeros_like(p))
    assert (p >= 0).all() and (c >= 0).all() and c.any()


def test_counterfactual_is_gradcam_of_negated_logits(model, x, y):
    class Negated(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return -self.net(x)

    a = activation_maps.gradcam(model, x, y, "act2", sign="counterfactual").values
    b = activation_maps.gradcam(Negated(model), x, y, "act2").values
    assert torch.allclose(a, b, rtol=1e-12)


def test_the_logit_is_explained_not_the_probability(model, x):
    a = activation_maps.gradcam(model, x, 1, "act2", sign="signed").values
    with pytest.warns(contract.ProbabilitiesWarning, match="probabilities, not logits"):
        b = activation_maps.gradcam(nn.Sequential(model, nn.Softmax(1)), x, 1, "0.act2", sign="signed").values
    assert not torch.allclose(a, b, rtol=1e-2)


def test_captum_agrees(model, x, y):
    from captum.attr import LayerGradCam

    for layer in LAYERS:
        theirs = LayerGradCam(model, getattr(model, layer)).attribute(x, y)[:, 0]
        assert torch.allclose(
            activation_maps.gradcam(model, x, y, layer, sign="signed").values, theirs.detach(), rtol=1e-10, atol=1e-15
        )


@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_pytorch_grad_cam_agrees(x, y, method):
    from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    net, x = toy().float(), x.float()
    kind = {"gradcam": GradCAM, "gradcam++": GradCAMPlusPlus}[method]
    with kind(model=net, target_layers=[net.act2]) as theirs:
        expected = theirs(input_tensor=x, targets=[ClassifierOutputTarget(int(c)) for c in y])
    ours = activation_maps.upsample(activation_maps.gradcam(net, x, y, "act2", method=method).values, 8)
    assert np.abs(activation_maps.normalise(ours).numpy() - expected).max() < (1e-5 if method == "gradcam" else 2e-3)


def test_torch_cam_agrees(model, x, y):
    from torchcam.methods import GradCAM

    with GradCAM(model, model.act2) as theirs:
        (expected,) = theirs(y.tolist(), model(x), normalized=False)
    assert torch.allclose(activation_maps.gradcam(model, x, y, "act2").values, expected.to(x), rtol=1e-6, atol=1e-9)


def test_several_classes_and_layers_equal_one_at_a_time(model, x):
    classes = torch.tensor([[0, 2], [1, 3], [2, 0], [3, 1], [0, 1], [1, 1]])
    together = activation_maps.gradcams(model, x, classes, LAYERS).maps
    for k in range(2):
        for layer in LAYERS:
            alone = activation_maps.gradcam(model, x, classes[:, k], layer).values
            assert torch.allclose(together[layer][:, k], alone, rtol=1e-12, atol=1e-16)


def test_a_batch_equals_its_images(model, x, y):
    together = activation_maps.gradcam(model, x, y, "conv2", sign="signed").values
    alone = torch.cat(
        [activation_maps.gradcam(model, x[i : i + 1], y[i : i + 1], "conv2", sign="signed").values for i in range(6)]
    )
    assert torch.allclose(together, alone, rtol=1e-10, atol=1e-15)


def test_targets_may_be_a_function_of_the_logits(model, x):
    a = activation_maps.gradcam(model, x, contract.predicted, "act2").values
    b = activation_maps.gradcam(model, x, model(x).argmax(1), "act2").values
    assert torch.equal(a, b)


def test_differentiable_twice_in_parameters_and_input(smooth, x):
    """gradcheck and gradgradcheck through activations and channel weights alike, in float64."""
    x = x[:1, :, :3, :3].clone().requires_grad_()
    weight = smooth.conv2.weight

    def of(x, weight):
        net = toy(smooth=True)
        values = {**dict(net.named_parameters()), "conv2.weight": weight}

        # functional_call keeps the caller's tensors in the graph
        class Bound(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner = net

            def forward(self, x):
                return torch.func.functional_call(self.inner, values, (x,))

        return activation_maps.gradcam(Bound(), x, 1, "inner.act2", sign="signed", create_graph=True).values

    weight = weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(of, (x, weight), atol=1e-6)
    assert torch.autograd.gradgradcheck(of, (x, weight), atol=1e-5, nondet_tol=0, fast_mode=True)


def test_create_graph_reaches_the_head_through_the_channel_weights(model, x, y):
    """Trap: captum's default drops this path (peers: fc weight gradient None)."""
    maps = activation_maps.gradcam(model, x, y, "act2", create_graph=True).values
    (gradient,) = torch.autograd.grad(maps.sum(), model.head.weight)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("create_graph", [False, True])
def test_leaves_the_model_as_it_was(model, x, y, create_graph):
    model.train()
    model.conv1.weight.grad = torch.ones_like(model.conv1.weight)
    before, images = state_of(model), x.clone()
    activation_maps.gradcams(model, x, y, LAYERS, create_graph=create_graph)
    activation_maps.cam(model, x, y, "act2")
    assert same_state(before, state_of(model))
    assert torch.equal(images, x) and not x.requires_grad


def test_leaves_the_model_as_it_was_after_an_exception(model, x, y):
    broken = Breaks(model.train())
    before = state_of(broken)
    with pytest.raises(RuntimeError, match="forced"):
        activation_maps.gradcam(broken, x, y, "act2")
    assert same_state(before, state_of(broken))


def test_flops_are_one_forward_and_the_backward_of_what_lies_above(small_plain):
    x = torch.rand(4, 3, 32, 32)
    net = small_plain.net

    forward = flops(lambda: small_plain(x))
    head = flops(lambda: net.head(torch.rand(4, 64)))
    combine = {s: 2 * 4 * c * z for s, c, z in (("stage1", 16, 32**2), ("stage2", 32, 16**2), ("stage3", 64, 8**2))}
    assert flops(lambda: activation_maps.gradcam(small_plain, x, 1, "stage3")) == forward + head + combine["stage3"]
    # three classes, all stages: one forward; per class one backward to stage 1, which is everything above it once
    stage1 = flops(lambda: net.stage1(x))
    above = forward - stage1
    classes = torch.arange(3).expand(4, 3)
    assert flops(lambda: activation_maps.gradcams(small_plain, x, classes, list(small_plain.stages))) == forward + 3 * (
        above + sum(combine.values())
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: activation_maps.gradcam(m, x, 9, "act2"), r"range over \[9, 9\], but there are 4"),
        (lambda m, x: activation_maps.gradcam(m, x, torch.zeros(2, dtype=torch.long), "act2"), "expected one class for all"),
        (lambda m, x: activation_maps.gradcam(m, x, 0, "act3"), "did you mean act"),
        (lambda m, x: activation_maps.gradcams(m, x, 0, []), "no layer named"),
        (lambda m, x: activation_maps.gradcam(m, x * 3, 0, "act2"), "normalise inside"),
        (lambda m, x: activation_maps.gradcam(m, x, 0, "act2", sign="negative"), "unknown sign"),
        (lambda m, x: activation_maps.gradcam(m, x, 0, "act2", method="scorecam"), "unknown method"),
        (lambda m, x: activation_maps.cam(m, x, 0, "act1"), "CAM is not defined here"),
        (lambda m, x: activation_maps.cam(m, x, 0, "act2", head="conv2"), "needs the linear layer"),
    ],
)
def test_bad_input_says_what_to_do(model, x, call, message):
    with pytest.raises(ValueError, match=message):
        call(model, x)


def test_a_class_that_ignores_the_layer_gives_a_map_of_zeros(model, x):
    class Ignoring(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x):
            return torch.stack([x.mean((1, 2, 3)), self.net(x)[:, 0]], 1)

    # with parameters frozen, the image cut off and class 0 untouched by act2, nothing of it reaches the layer
    found = activation_maps.gradcam(Ignoring(), x, torch.tensor([[1, 0]]).expand(6, 2), "act2", sign="signed").values
    assert found[:, 0].abs().sum() > 0 and not found[:, 1].any()


def test_normalise_rules():
    maps = torch.tensor([[[0.0, 1.0], [2.0, 4.0]], [[3.0, 3.0], [3.0, 3.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert torch.equal(activation_maps.normalise(maps)[0], maps[0] / 4)
    assert not activation_maps.normalise(maps)[1:].any()  # no contrast, no scale, no NaN
    assert torch.equal(activation_maps.normalise(maps, "max")[1], torch.ones(2, 2))
    assert not activation_maps.normalise(maps, "max")[2].any()


def test_upsample_is_bilinear_without_aligned_corners():
    up = activation_maps.upsample(torch.tensor([[[0.0, 1.0]]]), (1, 4))
    assert torch.allclose(up, torch.tensor([[[0.0, 0.25, 0.75, 1.0]]]))
    nested = torch.rand(2, 3, 4, 4)
    assert torch.allclose(activation_maps.upsample(nested, 8)[1, 2], activation_maps.upsample(nested[1:2, 2], 8)[0])


def test_the_zoo_of_small_families_has_maps_at_every_stage():
    x = torch.rand(2, 3, 32, 32)
    for arch in models.SMALL_NETWORKS:
        net = models.create(arch, classes=10).eval()
        found = activation_maps.gradcams(net, x, contract.predicted, list(net.stages))
        assert list(found.maps) == list(net.stages)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradcam_plus_plus_of_half_precision_is_no_map_of_zeros(dtype):
    """Its squared gradients, of a mean over many positions, end below what float16 can hold."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    net = nn.Sequential(net, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    x = torch.rand(2, 3, 56, 56)
    expected = activation_maps.gradcam(net, x, [0, 1], "0", method="gradcam++").values
    found = activation_maps.gradcam(net.to(dtype), x.to(dtype), [0, 1], "0", method="gradcam++").values
    assert expected.max() > 0
    assert (found.float() - expected).abs().max() < 0.05 * expected.max()
