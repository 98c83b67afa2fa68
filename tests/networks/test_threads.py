"""Kernels that run on one model in several threads give what they give alone, and leave it as it was."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.utils import checkpoint

from lib import attacks
from lib.explanations import activation_maps, gradients, guided, relevance
from lib.networks import hooks, models
from lib.networks.tape import Tape
from lib.pathways import influences
from tests.conftest import Toy, same_state, state_of, toy

KERNELS = {
    "gradcam": lambda m, x, y: activation_maps.gradcam(m, x, y, "stage3").values,
    "gradcam for training": lambda m, x, y: activation_maps.gradcam(m, x, y, "stage2", create_graph=True).values.detach(),
    "cams": lambda m, x, y: activation_maps.cam(m, x, y, "stage3").values,
    "lrp": lambda m, x, y: relevance.lrp(m, x, y, ["pixels", "stage2"]).values["pixels"],
    "guided": lambda m, x, y: guided.guided_backpropagation(m, x, y).values,
    "gradient": lambda m, x, y: gradients.gradient(m, x, y).values,
    "layer": lambda m, x, y: gradients.layer_gradient(m, x, y, "into:stage3").values,
    "influence": lambda m, x, y: influences.influence(m, x, ["stage1", "stage2"])[0],
    "pgd": lambda m, x, y: attacks.pgd(m, x, y, eps=0.03, steps=2).x_adv,
}


def together(count, work):
    """`work(i)` in as many threads, begun at the same moment; their results in order."""
    barrier = threading.Barrier(count)

    def begun(i):
        barrier.wait()
        return work(i)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begun, range(count)))


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("first", KERNELS)
def test_two_threads_on_one_model_give_what_one_gives(first, one_thread):
    net = models.create("residual", classes=4).train()
    net.net.stage1.eval()
    next(net.parameters()).requires_grad_(False)
    x = torch.rand(4, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 3])
    names = list(KERNELS)
    pairs = [(first, first), (first, names[(names.index(first) + 1) % len(names)]), ("gradcam for training", first)]
    before = state_of(net)
    alone = {(n, i): KERNELS[n](net, x[i], y) for n in names for i in range(4)}
    for turn in range(12):
        pair = pairs[turn % len(pairs)]
        found = together(2, lambda i: KERNELS[pair[i]](net, x[(turn + i) % 4], y))  # noqa: B023
        for i in range(2):
            torch.testing.assert_close(found[i], alone[pair[i], (turn + i) % 4], rtol=1e-4, atol=1e-6)
        assert same_state(before, state_of(net)) and not any(m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize("kinds", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("order", ["nested", "crossed"])
def test_flags_come_back_in_whatever_order_threads_leave(model, kinds, order):
    """And while one needs live parameters they are live, whoever else is there."""
    model.train()
    model.act1.eval()
    model.conv1.weight.requires_grad_(False)
    before, flags = state_of(model), [p.requires_grad for p in model.parameters()]
    steps = [threading.Event() for _ in range(4)]

    def held(own, begin, entered, leave, left):
        if begin:
            begin.wait(10)
        with hooks.frozen(model, parameters=kinds[own]):
            entered.set()
            leave.wait(10)
            assert not any(m.training for m in model.modules())
            if kinds[own]:
                assert [p.requires_grad for p in model.parameters()] == flags
        if left:
            left.set()

    both, out = steps[1], steps[2]
    firsts, seconds = ((out, None), (both, out)) if order == "nested" else ((both, out), (out, None))
    with ThreadPoolExecutor(2) as pool:
        a = pool.submit(held, 0, None, steps[0], *firsts)
        b = pool.submit(held, 1, steps[0], both, *seconds)
        a.result(20), b.result(20)
    assert same_state(before, state_of(model)) and not hooks._HOLDS


def test_within_one_thread_blocks_nest_as_ever(model):
    def live():
        return [p.requires_grad for p in model.parameters()]

    with hooks.frozen(model, parameters=True):
        assert all(live())
        with hooks.frozen(model):
            assert not any(live())
            with hooks.frozen(model, parameters=True):
                assert not any(live())  # the block around it froze them
            assert not any(live())
        assert all(live())
    with hooks.frozen(nn.ModuleDict({"net": model})), hooks.frozen(model.conv1):
        assert not any(live())
    assert all(live()) and not hooks._HOLDS


def test_a_model_that_runs_its_layers_in_threads_of_its_own_is_told_so(model, x):
    class Threaded(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = model

        def forward(self, x):
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(self.net, x).result()

    with pytest.raises(ValueError, match=r"'act2' did not run in the forward pass \(another thread ran it"):
        activation_maps.gradcam(Threaded(), x, 0, "act2")
    parallel = nn.DataParallel(model)
    torch.testing.assert_close(
        activation_maps.gradcam(parallel, x, 0, "module.act2").values, activation_maps.gradcam(model, x, 0, "act2").values
    )
    parallel.device_ids = [0, 1]
    for kernel in (
        lambda: activation_maps.gradcam(parallel, x, 0, "module.act2"),
        lambda: relevance.lrp(parallel, x, 0),
        lambda: guided.guided_backpropagation(parallel, x, 0),
    ):
        with pytest.raises(
            ValueError, match=r"2 devices at once .DataParallel. and cannot be looked into so; give its `module`"
        ):
            kernel()


class Checkpointed(Toy):
    """The toy network, whose layers run again in the backward pass."""

    def forward(self, x):
        x = checkpoint.checkpoint(lambda x: self.act2(self.conv2(self.act1(self.conv1(x)))), x, use_reentrant=False)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("layer", ["act1", "conv2", "act2", "into:conv2"])
def test_layers_that_run_again_in_the_backward_pass(x, y, layer):
    net, plain = Checkpointed().double().eval(), toy()
    net.load_state_dict(plain.state_dict())
    for graph in (False, True):
        found, expected = (activation_maps.gradcam(m, x, y, layer, create_graph=graph).values for m in (net, plain))
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        gradients.layer_gradient(net, x, y, layer).values, gradients.layer_gradient(plain, x, y, layer).values
    )
    found, expected = (relevance.lrp(m, x, y, ["pixels", layer]).values["pixels"] for m in (net, plain))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(guided.guided_backpropagation(m, x, y).values for m in (net, plain)))


def test_a_tape_names_the_layers_of_its_own_thread(model, x):
    """Each thread's refusal names the layer that it met, though both have hooks on all layers."""
    nets = copy.deepcopy(model)
    seen = []

    def work(i):
        for _ in range(20):
            record = Tape()
            record.want(x)
            with record.naming(nets), torch.no_grad(), record:
                nets(x)
            assert not record.layers
            seen.append([(s.name, s.layer) for s in record.steps])

    together(2, work)
    assert len(seen) == 40 and all(s == seen[0] for s in seen) and seen[0][0] == ("conv2d", "conv1")
