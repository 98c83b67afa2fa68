"""Gradients that a network cuts, and operations that a tape cannot see: one sentence with the layer, never a silent zero."""

import contextlib
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib import attacks
from lib.explanations import activation_maps, gradients, guided, relevance
from lib.fooling import interpretation_attack
from lib.networks import classifier, hooks
from lib.pathways import features, influences
from tests.conftest import Toy, toy


class Cut(Toy):
    """The toy network, cut between its convolutions, or with its first stage under a context."""

    def __init__(self, between=lambda z: z, around=contextlib.nullcontext):
        super().__init__()
        self.between, self.around = between, around

    def forward(self, x):
        with self.around():
            x = self.act1(self.conv1(x))
        return self.head(self.act2(self.conv2(self.between(x))).mean((2, 3)))


CUTS = {
    "no_grad": ({"around": torch.no_grad}, "under torch.no_grad"),
    "detach": ({"between": lambda z: z.detach()}, "at 'detach'"),
    "data": ({"between": lambda z: z.data * 1}, "at 'data'"),
    "integers": ({"between": lambda z: (z * 255).long().double() / 255}, "at 'long'"),
    "comparison": ({"between": lambda z: (z > 0.1).double()}, "at '(gt|__gt__)'"),
}


def cut(how):
    net = Cut(**CUTS[how][0]).double().eval()
    net.stages = ("act2",)
    net.load_state_dict(toy().state_dict())
    return net


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("graph", [False, True])
def test_a_map_below_a_cut_is_refused(how, graph, x, y):
    net = cut(how)
    for layer in ("conv1", "act1"):
        message = f"the gradient is cut above layer '{layer}', in layer '.*', {CUTS[how][1]}"
        if how == "no_grad":
            message = f"the gradient is cut above layer '{layer}', in layer '{layer}', at 'clone' {CUTS[how][1]}"
        for kernel in (activation_maps.gradcam, gradients.layer_gradient):
            with pytest.raises(ValueError, match=message):
                kernel(net, x, y, layer, create_graph=graph)
    found = activation_maps.gradcam(net, x, y, "act2", create_graph=graph).values  # above it all is as ever
    same = activation_maps.gradcam(toy(), x, y, "act2").values
    assert found.detach().any() and (how in ("integers", "comparison") or torch.allclose(found, same))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize(
    "kernel",
    [
        lambda m, x, y: gradients.gradient(m, x, y),
        lambda m, x, y: gradients.gradient(m, x, y, create_graph=True),
        lambda m, x, y: gradients.gradient(m, x, y, of="loss"),
        lambda m, x, y: gradients.smoothgrad(m, x, y, n=2),
        lambda m, x, y: gradients.integrated_gradients(m, x, y, steps=2),
        lambda m, x, y: gradients.integrated_gradients(m, x, y, steps=2, create_graph=True),
        lambda m, x, y: guided.guided_backpropagation(m, x, y),
        lambda m, x, y: attacks.pgd(m, x, y, eps=0.1, steps=1),
        lambda m, x, y: attacks.fgsm(m, x, y, eps=[0.1]),
        lambda m, x, y: attacks.snow(m, x, y, eps=0.1, steps=1),
        lambda m, x, y: interpretation_attack.aai(m, x, y, eps=0.1, k=2, steps=1),
    ],
    ids=["gradient", "graph", "loss", "smoothgrad", "ig", "ig-graph", "guided", "pgd", "fgsm", "snow", "aai"],
)
def test_pixels_below_a_cut_are_refused(how, kernel, x, y):
    with pytest.raises(ValueError, match=f"cut below the logits, in layer .*{CUTS[how][1]}.* nothing reaches the images"):
        kernel(cut(how), x, y)


@pytest.mark.parametrize("how", CUTS)
def test_features_of_a_layer_above_a_cut_are_refused(how, x):
    """An image that nothing but smoothness moves excites no channel."""
    for call in (
        lambda net: features.features(net, "conv2", [0], shape=(3, 8, 8), steps=1),
        lambda net: features.patches(net, x, "conv2", [0], count=1),
    ):
        with pytest.raises(ValueError, match=f"the gradient is cut below layer 'conv2', in layer .*{CUTS[how][1]}"):
            call(cut(how))


def test_an_objective_that_ignores_the_images_is_refused(x):
    with pytest.raises(ValueError, match="the objective does not depend on the images as far as autograd knows"):
        attacks.ascend(lambda z: z.detach().mean((1, 2, 3)), x, eps=0.1, steps=1, step=0.1)


def test_a_part_that_is_cut_is_no_cut(x, y):
    """A branch without a gradient beside one that has it is the model's own choice, and the gradient is autograd's."""

    class Stopped(Toy):
        def forward(self, x):
            z = self.act1(self.conv1(x))
            return self.head(self.act2(self.conv2(z + z.detach())).mean((2, 3)))

    net = Stopped().double().eval()
    assert activation_maps.gradcam(net, x, y, "act1").values.any() and gradients.gradient(net, x, y).values.any()


def test_a_layer_that_leads_nowhere_has_a_map_of_zeros(x, y):
    class Aside(Toy):
        def forward(self, x):
            z = self.act1(self.conv1(x))
            self.spare(z.detach()).mean().item()
            return self.head(self.act2(self.conv2(z)).mean((2, 3)))

    net = Aside()
    net.spare = nn.Conv2d(5, 2, 1)
    net = net.double().eval()
    for kernel in (activation_maps.gradcam, gradients.layer_gradient):
        found = kernel(net, x, torch.stack([y, y], 1), "spare").values
        assert found.shape[:2] == (6, 2) and not found.any()
        assert kernel(net, x, y, "act1").values.any()


def test_a_model_that_ignores_the_image_says_so(x, y):
    class Constant(Toy):
        def forward(self, x):
            return self.head(torch.ones(len(x), 6, dtype=x.dtype))

    net = Constant().double().eval()
    with pytest.raises(ValueError, match=r"autograd knows of no way from the images to the logits"):
        gradients.gradient(net, x, y)
    with pytest.raises(ValueError, match=r"nothing that was recorded leads from the image to the logits"):
        relevance.lrp(net, x, y)


def test_an_inner_inference_mode_is_refused(x, y):
    net = cut("no_grad")
    net.around = torch.inference_mode
    for kernel in (lambda: activation_maps.gradcam(net, x, y, "act1"), lambda: gradients.gradient(net, x, y)):
        with pytest.raises(ValueError, match=r"inference_mode|cut below the logits"):
            kernel()


# -- what a tape cannot see --------------------------------------------------------------------------------------------


def _relu(z: torch.Tensor) -> torch.Tensor:
    return torch.relu(z)


with warnings.catch_warnings():  # it still works, and networks still have it
    warnings.simplefilter("ignore", FutureWarning)
    scripted = torch.jit.script(_relu)


class Foreign(torch.autograd.Function):
    """A ReLU as extensions write them: what runs forward is no operation of torch."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return torch.from_numpy(np.maximum(z.detach().numpy(), 0))

    @staticmethod
    def backward(ctx, g):
        return g * (ctx.saved_tensors[0] > 0)


class Custom(torch.autograd.Function):
    """A ReLU in Python, whose forward pass is operations of torch."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        return g * (ctx.saved_tensors[0] > 0)


class Act(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, z):
        return self.f(z)


class Skips(nn.Module):
    """An activation of any kind in a branch beside a shortcut."""

    def __init__(self, f, shortcut=True):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.act, self.head, self.shortcut = Act(f), nn.Linear(3, 4), shortcut

    def forward(self, x):
        z = self.conv1(x)
        z = self.conv2(self.act(z)) + z * self.shortcut
        return self.head(z.mean((2, 3)))


def skips(f, shortcut=True):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Skips(f, shortcut).double().eval()


@pytest.mark.parametrize("f", [scripted, Foreign.apply], ids=["scripted", "foreign"])
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_relevance_that_would_be_lost_is_refused(f, graph, wrapped, x, y):
    """Beside a shortcut, which keeps a part of it, and without one, where all would be zero."""
    for shortcut in (True, False):
        net = skips(f, shortcut)
        net = classifier.Classifier(net, stages=("conv1",), classes=4).double() if wrapped else net
        for layers in ("pixels", "conv1", ["pixels", "conv2"]):
            with pytest.raises(ValueError, match=r"what layer 'act' makes of the image is not recorded"):
                relevance.lrp(net, x, y, layers, create_graph=graph)
        above, expected = (relevance.lrp(m, x, y, "conv2").values["conv2"] for m in (net, skips(torch.relu, shortcut)))
        assert wrapped or torch.equal(above, expected)  # nothing is lost above it
    with pytest.raises(ValueError, match=r"what layer 'act' makes of the image is not recorded"):
        influences.influence(net, x, ["conv1", "conv2"])


def test_relevance_knows_what_is_written_in_torch(x, y):
    """Constants of the model's own that are no buffers, and an autograd.Function whose forward pass is plain operations."""
    constant = torch.full((1, 3, 1, 1), 2.0, dtype=torch.float64)
    expected = relevance.lrp(skips(lambda z: torch.relu(z) * 2.0), x, y).values["pixels"]
    assert torch.equal(relevance.lrp(skips(lambda z: torch.relu(z) * constant), x, y).values["pixels"], expected)
    with pytest.raises(ValueError, match=r"LRP has no rule for 'clamp', which runs in layer 'act'"):
        relevance.lrp(skips(Custom.apply), x, y)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda z: torch.from_numpy(z.numpy() * 1), "layer 'act' takes what it makes of the image out of torch"),
        (lambda z: torch.fft.irfft2(torch.fft.rfft2(z), s=z.shape[-2:]), "no rule for 'fft_.*' .*runs in layer 'act'"),
        (lambda z: (z * 255).to(torch.uint8).double() / 255, "no rule for '(double|to)'.* layer 'act'"),
        (lambda z: (z * 255).to(torch.int32).to(torch.float64) / 255, "no rule for 'to' of integers or complex numbers.*'act'"),
    ],
)
def test_values_that_leave_are_not_lost_in_silence(f, message, x, y):
    for shortcut in (True, False):
        with pytest.raises(ValueError, match=message):
            relevance.lrp(skips(f, shortcut), x, y)


RELUS = {
    "clamp": lambda z: z.clamp(min=0),
    "clamp, by place": lambda z: torch.clamp(z, 0),
    "clamp_": lambda z: (z * 1).clamp_(0.0),
    "clip": lambda z: torch.clip(z, min=0),
    "clamp_min": lambda z: z.clamp_min(0),
    "clamp_min_": lambda z: (z * 1).clamp_min_(0),
    "threshold": lambda z: F.threshold(z, 0, 0),
    "threshold, in place": lambda z: F.threshold(z * 1, 0.0, 0.0, True),
    "module": lambda z: nn.Threshold(0, 0)(z),
    "maximum": lambda z: torch.maximum(z, torch.zeros_like(z)),
    "maximum, other way": lambda z: torch.maximum(torch.zeros((), dtype=z.dtype), z),
    "max": lambda z: torch.max(z, z.new_zeros(1)),
    "where": lambda z: torch.where(z > 0, z, 0.0),
    "where, method": lambda z: z.where(z > 0, torch.zeros_like(z)),
    "mask": lambda z: z * (z > 0),
    "mask of floats": lambda z: (z > 0).double() * z,
    "leaky": lambda z: F.leaky_relu(z, 0.0),
    "aten": lambda z: torch.ops.aten.relu(z),
}


@pytest.mark.parametrize("how", RELUS)
def test_every_way_to_write_a_relu_is_guided(how, x, y):
    expected = guided.guided_backpropagation(skips(torch.relu), x, y).values
    torch.testing.assert_close(guided.guided_backpropagation(skips(RELUS[how]), x, y).values, expected)
    assert not torch.allclose(expected, gradients.gradient(skips(torch.relu), x, y).values)


@pytest.mark.parametrize(
    "f",
    [
        lambda z: z.clamp(0, 6),
        lambda z: z.clamp(min=0.1),
        lambda z: z.clamp(max=0),
        lambda z: F.threshold(z, 0, 1),
        lambda z: F.relu6(z),
        lambda z: torch.maximum(z, z * 0.1),
        lambda z: torch.where(z > 0.2, z, 0.0),
        lambda z: z * (z > -1),
        lambda z: F.leaky_relu(z),
        lambda z: z * z.sigmoid(),
    ],
)
def test_other_activations_keep_their_own_gradient(f, x, y):
    with pytest.raises(ValueError, match=r"no ReLU ran"):
        guided.guided_backpropagation(skips(f), x, y)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (scripted, "a scripted or compiled function, or an extension runs in or below layer"),
        (Custom.apply, "the autograd.Function Custom runs in or below layer 'conv2'"),
        (Foreign.apply, "runs in or below layer 'conv2'"),
    ],
)
def test_guiding_what_cannot_be_looked_into_is_refused(f, message, x, y):
    for g in (f, lambda z: f(torch.relu(z))):
        with pytest.raises(ValueError, match=message):
            guided.guided_backpropagation(skips(g), x, y)


# -- scripted and compiled models --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("made", [torch.jit.script, lambda m: torch.jit.trace(m, torch.rand(6, 3, 8, 8).double())])
@pytest.mark.parametrize("freeze", [False, True])
def test_a_scripted_model_takes_gradients_and_attacks_and_refuses_the_rest(made, freeze, x, y):
    net = toy()
    jit = torch.jit.freeze(made(net)) if freeze else made(net)
    wrapped = classifier.Classifier(jit, stages=("act2",), classes=4, mean=(0.0,), std=(1.0,)).double().eval()
    for model in (jit, wrapped):
        torch.testing.assert_close(gradients.gradient(model, x, y).values, gradients.gradient(net, x, y).values)
        torch.testing.assert_close(
            gradients.integrated_gradients(model, x, y, steps=3).values,
            gradients.integrated_gradients(net, x, y, steps=3).values,
        )
        a, b = (attacks.pgd(m, x, y, eps=0.1, steps=3).x_adv for m in (model, net))
        torch.testing.assert_close(a, b)
    for kernel in (
        lambda m: activation_maps.gradcam(m, x, y, "act2"),
        lambda m: relevance.lrp(m, x, y),
        lambda m: guided.guided_backpropagation(m, x, y),
        lambda m: gradients.layer_gradient(m, x, y, "act2"),
    ):
        with pytest.raises(ValueError, match=r"a torch.jit model, which cannot be looked into: give the model"):
            kernel(jit)
        with pytest.raises(ValueError, match=r"cannot be looked into|is not recorded|scripted or compiled|no layer 'act2'"):
            kernel(wrapped)


def test_a_compiled_model_gives_what_it_gave(model, x, y):
    """Also where an earlier call has compiled it without anybody looking on."""
    calls = []

    def backend(graph, _examples):
        return lambda *given: calls.append(1) or graph(*given)

    compiled = torch.compile(model, backend=backend)
    kernels = (
        lambda m: gradients.gradient(m, x, y).values,
        lambda m: activation_maps.gradcam(m, x, y, "act2").values,
        lambda m: relevance.lrp(m, x, y).values["pixels"],
        lambda m: guided.guided_backpropagation(m, x, y).values,
        lambda m: attacks.pgd(m, x, y, eps=0.1, steps=2).x_adv,
    )
    for kernel in (*kernels, *kernels):
        torch.testing.assert_close(kernel(compiled), kernel(model))
    before = len(calls)
    compiled(x)
    assert len(calls) > before  # compiled as before


def test_an_exported_model_takes_gradients_and_attacks(model, x, y):
    exported = torch.export.export(model, (x,)).module()
    for kernel in (
        lambda m: gradients.gradient(m, x, y).values,
        lambda m: guided.guided_backpropagation(m, x, y).values,
        lambda m: attacks.pgd(m, x, y, eps=0.1, steps=2).x_adv,
    ):
        torch.testing.assert_close(kernel(exported), kernel(model))
    with pytest.raises(ValueError, match=r"layer 'act2' did not run|no layer 'act2'"):
        activation_maps.gradcam(exported, x, y, "act2")
    with pytest.raises(ValueError, match=r"LRP has no rule for 'linear.default'"):
        relevance.lrp(exported, x, y)


def test_layers_of_several_outputs(x, y):
    """The one tensor among them is the map."""

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3)

        def forward(self, x):
            return self.conv(x), None

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.two, self.head = Two(), nn.Linear(5, 4)

        def forward(self, x):
            return self.head(self.two(x)[0].mean((2, 3)))

    net = Net().double().eval()
    a, b = (activation_maps.gradcam(net, x, y, layer).values for layer in ("two", "two.conv"))
    assert torch.equal(a, b) and a.any()
    net.two.forward = lambda x: (net.two.conv(x), x)
    with pytest.raises(ValueError, match=r"layer 'two' puts out tuple"):
        activation_maps.gradcam(net, x, y, "two")
    with pytest.raises(ValueError, match=r"runs more than once"), hooks.capture(net, ["head"], cut=False, any_layout=True):
        net.head(torch.rand(1, 2, 5).double()), net.head(torch.rand(1, 2, 5).double())
