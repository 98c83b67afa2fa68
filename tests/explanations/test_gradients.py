"""Pixel explanations against slow twins in float64, captum, completeness, FLOPs, and the traps of guided backpropagation."""

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils import checkpoint

from lib.explanations import gradients, guided
from lib.networks import contract, models
from lib.system.flops import flops
from tests.conftest import Breaks, same_state, state_of, toy


def twin(model, x, y, of="score"):
    """The gradient row by row."""
    found = []
    for row, label in zip(x, y, strict=True):
        z = row[None].clone().requires_grad_()
        logits = model(z)
        value = logits[0, label] if of == "score" else -logits[0].log_softmax(0)[label]
        found.append(torch.autograd.grad(value, z)[0][0])
    return torch.stack(found)


@pytest.mark.parametrize("of", ["score", "loss"])
def test_gradient_is_the_gradient_row_by_row(model, x, y, of):
    found = gradients.gradient(model, x, y, of=of)
    torch.testing.assert_close(found.values, twin(model, x, y, of))
    torch.testing.assert_close(found.logits, model(x))


def test_gradient_against_captum(model, x, y):
    expected = captum.attr.Saliency(model).attribute(x.clone().requires_grad_(), target=y, abs=False)
    torch.testing.assert_close(gradients.gradient(model, x, y).values, expected)


def noise(x, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(x.shape, generator=generator).to(x) for _ in range(n)]


@pytest.mark.parametrize("of", ["score", "loss"])
def test_smoothgrad_is_the_mean_over_noisy_copies(model, x, y, of):
    sigma = 0.2 * (x.flatten(1).amax(1) - x.flatten(1).amin(1)).view(-1, 1, 1, 1)
    expected = sum(twin(model, x + sigma * e, y, of) for e in noise(x, 5)) / 5
    found = gradients.smoothgrad(model, x, y, n=5, spread=0.2, of=of)
    torch.testing.assert_close(found.values, expected)
    torch.testing.assert_close(found.logits, model(x))


@pytest.mark.parametrize("batch_size", [1, 4, 6, 7, 12, 100])
def test_batching_changes_nothing(model, x, y, batch_size):
    whole = gradients.smoothgrad(model, x, y, n=5)
    torch.testing.assert_close(gradients.smoothgrad(model, x, y, n=5, batch_size=batch_size).values, whole.values)
    whole = gradients.integrated_gradients(model, x, y, steps=5)
    torch.testing.assert_close(gradients.integrated_gradients(model, x, y, steps=5, batch_size=batch_size).values, whole.values)


def test_no_pass_is_larger_than_asked(model, x, y):
    seen = []
    handle = model.register_forward_pre_hook(lambda _m, args: seen.append(len(args[0])))
    gradients.smoothgrad(model, x, y, n=5, batch_size=4)
    assert seen == [4, 2] * 6  # the logits and each of five copies, in two passes
    seen.clear()
    gradients.smoothgrad(model, x[:1], y[:1], n=5, batch_size=4)
    assert seen == [1, 4, 1]
    handle.remove()


def test_one_copy_without_noise_is_the_gradient(model, x, y):
    found = gradients.smoothgrad(model, x, y, n=1, spread=0.0)
    torch.testing.assert_close(found.values, gradients.gradient(model, x, y).values)


def test_the_noise_has_the_variance_it_says(y):
    """Seen from inside the model, on images of ranges 1, 1/2 and 0."""

    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen = []

        def forward(self, x):
            self.seen.append(x.detach().clone())
            return torch.stack([x.sum((1, 2, 3)), -x.sum((1, 2, 3))], 1)

    x = torch.rand(3, 3, 32, 32, dtype=torch.float64)
    x = (x - x.amin((1, 2, 3), keepdim=True)) / (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))
    x = x * torch.tensor([1.0, 0.5, 0.0]).view(-1, 1, 1, 1)
    probe = Probe()
    gradients.smoothgrad(probe, x, 0, n=40, spread=0.15, batch_size=3)
    added = torch.stack(probe.seen[1:]) - x
    assert added[:, 2].abs().max() == 0  # no contrast, no noise
    deviations = added.transpose(0, 1).flatten(1).std(1)
    torch.testing.assert_close(deviations[:2], torch.tensor([0.15, 0.075], dtype=torch.float64), rtol=0.01, atol=0)
    assert added[:, :2].mean().abs() < 1e-3
    assert added.amin() < -0.15 and (x + added).amin() < 0  # not clipped


def test_a_constant_image_is_explained(model):
    x = torch.full((2, 3, 8, 8), 0.5, dtype=torch.float64)
    torch.testing.assert_close(gradients.smoothgrad(model, x, 0, n=3).values, gradients.gradient(model, x, 0).values)


@pytest.mark.parametrize("rule", ["midpoint", "right", "gausslegendre"])
def test_integrated_gradients_is_the_sum_along_the_path(model, x, y, rule):
    places = {"midpoint": [0.25, 0.75], "right": [0.5, 1.0], "gausslegendre": [0.5 - 0.5 / 3**0.5, 0.5 + 0.5 / 3**0.5]}[rule]
    origin = torch.full_like(x, 0.25)
    expected = (x - origin) * sum(twin(model, origin + a * (x - origin), y) for a in places) / 2
    found = gradients.integrated_gradients(model, x, y, baseline=0.25, steps=2, rule=rule)
    torch.testing.assert_close(found.values, expected)


def test_integrated_gradients_are_complete(smooth, model, x, y):
    found = gradients.integrated_gradients(smooth, x, y, steps=64)
    gap = gradients.completeness_gap(smooth, x, y, found.values)
    assert gap.abs().max() < 1e-4
    logits = smooth(x).gather(1, y[:, None])[:, 0] - smooth(torch.zeros_like(x)).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(found.values.sum((1, 2, 3)) - gap, logits)
    coarse = gradients.integrated_gradients(model, x, y, steps=2)
    fine = gradients.integrated_gradients(model, x, y, steps=200)
    gaps = [gradients.completeness_gap(model, x, y, a.values).abs().max() for a in (coarse, fine)]
    assert gaps[1] < 0.05 * gaps[0] + 1e-3
    loss = gradients.integrated_gradients(smooth, x, y, steps=64, of="loss", baseline=0.5)
    assert gradients.completeness_gap(smooth, x, y, loss.values, of="loss", baseline=0.5).abs().max() < 1e-4


def test_a_linear_model_is_explained_exactly():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    x = torch.rand(2, 3, 2, 2, dtype=torch.float64)
    found = gradients.integrated_gradients(net, x, 1, steps=1)
    torch.testing.assert_close(found.values.flatten(1), x.flatten(1) * net[1].weight[1])


def test_integrated_gradients_against_captum(model, x, y):
    expected = captum.attr.IntegratedGradients(model).attribute(x, target=y, n_steps=20, method="gausslegendre")
    found = gradients.integrated_gradients(model, x, y, steps=20, rule="gausslegendre")
    torch.testing.assert_close(found.values, expected)


@pytest.mark.parametrize("kernel", [gradients.gradient, gradients.integrated_gradients])
def test_second_order(smooth, x, y, kernel):
    """What a training loss on the explanation needs: derivatives with respect to parameters and images."""
    options = {"steps": 3} if kernel is gradients.integrated_gradients else {}
    weight = smooth.conv2.weight

    def of_weight(w):
        values = torch.func.functional_call(_Kernel(smooth, kernel, x[:2], y[:2], options), {"net.conv2.weight": w})
        return values.square().sum((1, 2, 3))

    assert torch.autograd.gradcheck(of_weight, weight.detach()[:, :1].repeat(1, 5, 1, 1).requires_grad_(), fast_mode=True)
    z = x[:1].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: kernel(smooth, z, y[:1], create_graph=True, **options).values, z, fast_mode=True)
    assert torch.autograd.gradgradcheck(
        lambda z: kernel(smooth, z, y[:1], create_graph=True, **options).values, z, fast_mode=True
    )


class _Kernel(nn.Module):
    """A kernel as a module, so that functional_call can put weights into its network."""

    def __init__(self, net, kernel, x, y, options):
        super().__init__()
        self.net, self.kernel, self.x, self.y, self.options = net, kernel, x, y, options

    def forward(self):
        return self.kernel(self.net, self.x, self.y, create_graph=True, **self.options).values


def test_with_a_graph_and_without_agree(model, x, y):
    for kernel, options in ((gradients.gradient, {}), (gradients.integrated_gradients, {"steps": 4})):
        a, b = (kernel(model, x, y, create_graph=g, **options) for g in (True, False))
        torch.testing.assert_close(a.values, b.values)
        assert a.values.requires_grad and not b.values.requires_grad


class Functional(nn.Module):
    """The toy network with every way to write a ReLU but a module."""

    def __init__(self, inner, relu):
        super().__init__()
        self.inner, self.relu = inner, relu

    def forward(self, x):
        x = self.relu(self.inner.conv2(self.relu(self.inner.conv1(x))))
        return self.inner.head(x.mean((2, 3)))


RELUS = {
    "F.relu": F.relu,
    "F.relu in place": lambda z: F.relu(z, inplace=True),
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "method": lambda z: z.relu(),
    "method in place": lambda z: z.relu_(),
    "F.relu_": F.relu_,
}


def guided_by_hand(net, x, y):
    """Backwards through the toy network with the rule written out."""
    z1 = net.conv1(x)
    z2 = net.conv2(z1.relu())
    r = net.head.weight[y][:, :, None, None].expand_as(z2) / z2[0, 0].numel()
    r = r * (z2 > 0) * (r > 0)
    r = F.conv_transpose2d(r, net.conv2.weight, stride=2, padding=1, output_padding=1)
    r = r * (z1 > 0) * (r > 0)
    return F.conv_transpose2d(r, net.conv1.weight, padding=1)


def test_guided_backpropagation_by_hand_and_by_captum(model, x, y):
    found = guided.guided_backpropagation(model, x, y)
    torch.testing.assert_close(found.values, guided_by_hand(model, x, y))
    with pytest.warns(UserWarning, match="Setting backward hooks"):
        expected = captum.attr.GuidedBackprop(model).attribute(x.clone().requires_grad_(), target=y)
    torch.testing.assert_close(found.values, expected)
    assert not torch.allclose(found.values, gradients.gradient(model, x, y).values)


@pytest.mark.parametrize("how", RELUS)
def test_functional_relus_are_guided_too(model, x, y, how):
    """The trap: captum's hooks do not see these, and return the plain gradient."""
    net = Functional(model, RELUS[how])
    torch.testing.assert_close(guided.guided_backpropagation(net, x, y).values, guided_by_hand(model, x, y))
    torch.testing.assert_close(gradients.gradient(net, x, y).values, gradients.gradient(model, x, y).values)  # only inside


def test_guided_on_real_families(x):
    """Shortcuts, branches, in-place modules: equal to captum where every ReLU is a module of its own."""
    for arch in ("plain", "inception"):
        net = models.create(arch, classes=4).double().eval()
        images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
        found = guided.guided_backpropagation(net, images, 1).values
        for module in net.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        with pytest.warns(UserWarning, match="Setting backward hooks"):
            expected = captum.attr.GuidedBackprop(net).attribute(images.clone().requires_grad_(), target=1)
        torch.testing.assert_close(found, expected, msg=arch)


class RunsAgain(nn.Module):
    """The toy network in two checkpointed parts, one inside the other or one after the other."""

    def __init__(self, net, nested, inplace, **options):
        super().__init__()
        self.net, self.nested, self.relu, self.options = net, nested, torch.relu_ if inplace else torch.relu, options

    def again(self, f, x):
        return checkpoint.checkpoint(f, x, **{"use_reentrant": False, **self.options})

    def forward(self, x):
        def first(x):
            return self.relu(self.net.conv1(x))

        def second(x):
            return self.net.conv2(self.again(first, x) if self.nested else x).clamp(min=0)

        x = self.again(second, x if self.nested else self.again(first, x))
        return self.net.head(x.mean((2, 3)))


@pytest.mark.parametrize("options", [{}, {"determinism_check": "none"}, {"early_stop": False}])
@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_what_runs_again_in_the_backward_pass_is_guided_too(model, x, y, nested, inplace, options):
    """Else a checkpoint that does not compare what it saves gives parts of the plain gradient, in silence."""
    net = RunsAgain(model, nested, inplace, **options)
    torch.testing.assert_close(guided.guided_backpropagation(net, x, y).values, guided_by_hand(model, x, y))
    torch.testing.assert_close(gradients.gradient(net, x, y).values, gradients.gradient(model, x, y).values)


def test_a_gradient_inside_the_forward_pass_is_not_in_the_way(model, x, y):
    """Of a network that makes part of its features from gradients of its own."""

    class Inner(nn.Module):
        def forward(self, x):
            z = torch.full((1,), 0.5, dtype=x.dtype, requires_grad=True)
            (slope,) = torch.autograd.grad(z.pow(2).sum(), z)
            return model(x * slope)

    torch.testing.assert_close(guided.guided_backpropagation(Inner(), x, y).values, guided_by_hand(model, x, y))


def test_the_older_checkpoint_is_refused(model, x, y):
    with pytest.raises(ValueError, match=r"autograd.Function CheckpointFunction runs in or below .* use the gradient"):
        guided.guided_backpropagation(RunsAgain(model, False, False, use_reentrant=True), x, y)


class Precise(nn.Module):
    """A network that computes in float32 whatever surrounds it, as careful ones do in parts."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            return self.net(x)


def test_autocast_rounds_no_backward_pass(x, y):
    """It may round what the network lets it round going forward, and nothing again on the way back."""
    net, x = Precise(toy().float()), x.float()
    for name, kernel in KERNELS.items():
        expected = kernel(net, x, y).values
        with torch.autocast("cpu", torch.bfloat16):
            found = kernel(net, x, y).values
        torch.testing.assert_close(found, expected, rtol=0, atol=0, msg=name)


def test_without_a_relu_guided_says_so(smooth, x):
    with pytest.raises(ValueError, match="no ReLU ran in the forward pass"):
        guided.guided_backpropagation(smooth, x, 0)


KERNELS = {
    "gradient": lambda m, x, y: gradients.gradient(m, x, y),
    "gradient x input": lambda m, x, y: gradients.gradient_times_input(m, x, y),
    "smoothgrad": lambda m, x, y: gradients.smoothgrad(m, x, y, n=2),
    "integrated": lambda m, x, y: gradients.integrated_gradients(m, x, y, steps=2),
    "guided": lambda m, x, y: guided.guided_backpropagation(m, x, y),
}


@pytest.mark.parametrize("name", KERNELS)
def test_the_model_is_left_as_it_was(model, x, y, name):
    model.train()
    model.conv2.eval()
    model.head.weight.requires_grad_(False)
    model.conv1.weight.grad = torch.ones_like(model.conv1.weight)
    before, pixels = state_of(model), x.clone()
    KERNELS[name](model, x, y)
    assert same_state(before, state_of(model)) and torch.equal(pixels, x) and not x.requires_grad
    broken = Breaks(model)
    before = state_of(broken)
    with pytest.raises(RuntimeError, match="forced"):
        KERNELS[name](broken, x, y)
    assert same_state(before, state_of(broken))


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (x * 2 - 1, y), "range over"),
        (lambda x, y: (x[0], y), "expected .N, C, H, W."),
        (lambda x, y: (x, y + 3), "targets range over"),
        (lambda x, y: (x, torch.stack([y, y], 1)), "take one class an image"),
        (lambda x, y: (x, y.double()), "expected one class for all"),
    ],
)
def test_bad_input_is_refused(model, x, y, name, spoil, message):
    with pytest.raises(ValueError, match=message):
        KERNELS[name](model, *spoil(x, y))


def test_bad_options_are_refused(model, x, y):
    for call, message in (
        (lambda: gradients.gradient(model, x, y, of="probability"), "unknown objective 'probability'"),
        (lambda: gradients.smoothgrad(model, x, y, n=0), "n=0"),
        (lambda: gradients.smoothgrad(model, x, y, spread=-0.1), "spread=-0.1"),
        (lambda: gradients.smoothgrad(model, x, y, spread=float("nan")), "spread=nan"),
        (lambda: gradients.integrated_gradients(model, x, y, steps=0), "steps=0"),
        (lambda: gradients.integrated_gradients(model, x, y, rule="simpson"), "unknown rule 'simpson'"),
        (lambda: gradients.integrated_gradients(model, x, y, baseline=2.0), "the baseline's images range over"),
        (lambda: gradients.integrated_gradients(model, x, y, baseline=torch.zeros(5, 5)), "the baseline has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_costs_are_n_passes_and_one_forward(small_plain):
    x = torch.rand(4, 3, 32, 32)
    y = torch.tensor([0, 1, 2, 3])
    with torch.no_grad():
        forward = flops(lambda: small_plain(x))
    one = flops(lambda: gradients.gradient(small_plain, x, y))
    assert flops(lambda: gradients.smoothgrad(small_plain, x, y, n=6, batch_size=4)) == 6 * one + forward
    assert flops(lambda: gradients.smoothgrad(small_plain, x, y, n=6)) == 6 * one + forward  # in larger passes
    assert flops(lambda: gradients.integrated_gradients(small_plain, x, y, steps=6)) == 6 * one + forward
    assert flops(lambda: guided.guided_backpropagation(small_plain, x, y)) == one


def test_targets_may_be_what_the_model_decides(model, x):
    decided = model(x).argmax(1)
    for kernel in KERNELS.values():
        torch.testing.assert_close(kernel(model, x, contract.predicted).values, kernel(model, x, decided).values)


def test_rows_do_not_see_each_other():
    net = toy(seed=3)
    x = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    whole = gradients.integrated_gradients(net, x, 2, steps=4).values
    each = torch.cat([gradients.integrated_gradients(net, row[None], 2, steps=4).values for row in x])
    torch.testing.assert_close(whole, each)


def test_gradient_times_input_sums_to_the_logit_of_a_network_without_biases():
    """Euler's theorem for homogeneous functions; and captum's InputXGradient."""
    from captum.attr import InputXGradient

    net = toy(seed=6)
    x = torch.rand(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    peer = InputXGradient(net).attribute(x.clone().requires_grad_(), target=1).detach()
    torch.testing.assert_close(gradients.gradient_times_input(net, x, 1).values, peer)
    for layer in (net.conv1, net.conv2, net.head):
        torch.nn.init.zeros_(layer.bias)
    torch.testing.assert_close(gradients.gradient_times_input(net, x, 1).values.flatten(1).sum(1), net(x)[:, 1].detach())
