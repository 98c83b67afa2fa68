import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from lib.networks import models
from lib.sanity import randomisation
from tests import conftest

SCHEMES = ("cascading", "independent")


def steps(model, x, scheme, seed=0, **options):
    return list(randomisation.randomised(model, x, scheme, generator=torch.Generator().manual_seed(seed), **options))


@pytest.fixture
def trained():
    """A network with BatchNorm whose tensors are not constant, as training leaves them."""
    net = models.create("residual", classes=10).double().eval()
    generator = torch.Generator().manual_seed(5)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            for t in (m.weight.data, m.bias.data, m.running_mean):
                t.add_(0.3 * torch.randn(t.shape, generator=generator, dtype=t.dtype))
            m.running_var.mul_(1 + torch.rand(m.running_var.shape, generator=generator, dtype=torch.float64))
    return net


@pytest.fixture
def pictures():
    return torch.rand(3, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def changed(model, network):
    own = dict(model.named_parameters())
    return {n for n, p in network.named_parameters() if not torch.equal(p, own[n])}


def test_a_tensor_keeps_its_values_and_loses_their_order():
    values = torch.randn(4, 3, 2)
    found = randomisation.permuted(values, torch.Generator().manual_seed(0))
    assert found.shape == values.shape and not torch.equal(found, values)
    assert found.flatten().sort().values.tolist() == values.flatten().sort().values.tolist()
    assert torch.equal(found, randomisation.permuted(values, torch.Generator().manual_seed(0)))


def test_two_values_change_places_and_equal_ones_stay():
    for seed in range(8):  # half of all orders of two are theirs
        generator = torch.Generator().manual_seed(seed)
        assert randomisation.permuted(torch.tensor([1.0, 2.0]), generator).tolist() == [2, 1]
        assert randomisation.permuted(torch.ones(3), generator).tolist() == [1, 1, 1]
        assert randomisation.permuted(torch.tensor(4.0), generator).item() == 4


def test_all_other_orders_are_as_likely():
    generator = torch.Generator().manual_seed(0)
    found = [tuple(randomisation.permuted(torch.tensor([1.0, 2.0, 3.0]), generator).tolist()) for _ in range(1000)]
    others = [p for p in itertools.permutations((1.0, 2.0, 3.0)) if p != (1.0, 2.0, 3.0)]
    assert set(found) == set(others)
    assert all(abs(found.count(p) - 200) < 60 for p in others)  # five standard deviations of a count are 63


def test_layers_stand_in_the_order_in_which_they_run(x):
    class Backwards(nn.Module):
        """Its head is made first, and one layer has no part in the logits."""

        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)
            self.unused = nn.Linear(3, 3)
            self.second = nn.Conv2d(5, 4, 3)
            self.first = nn.Conv2d(3, 5, 3)

        def forward(self, x):
            self.unused(x.mean((2, 3)))
            return self.head(self.second(self.first(x).relu()).mean((2, 3)))

    net = Backwards().double()
    found = randomisation.layers_of(net, x)
    assert [layer.name for layer in found] == ["first", "second", "head"]
    assert found[0].parameters == ("first.weight", "first.bias") and found[0].batch_norms == ()
    assert [s.layer for s in steps(net, x, "cascading")] == ["head", "second", "first"]


def test_a_layer_that_runs_twice_stands_where_it_runs_last(x):
    class Returns(nn.Module):
        def __init__(self):
            super().__init__()
            self.again, self.between = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.again(self.between(self.again(x).relu()).relu()).mean((2, 3))

    assert [layer.name for layer in randomisation.layers_of(Returns().double(), x)] == ["between", "again"]


def test_a_normalisation_belongs_to_the_layer_before_it(trained, pictures):
    found = randomisation.layers_of(trained, pictures)
    assert [layer.name for layer in found][:2] == ["stage1.0", "stage2.0.conv1.0"] and found[-1].name == "head"
    assert found[0].parameters == ("net.stage1.0.weight", "net.stage1.1.weight", "net.stage1.1.bias")
    assert found[0].batch_norms == ("net.stage1.1",)
    every = [p for layer in found for p in layer.parameters]
    assert sorted(every) == sorted(n for n, _ in trained.named_parameters())


def test_parameters_of_what_is_not_called_belong_to_what_is_around_it():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.randn(1, 1, 4))
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            tokens = x.flatten(2).transpose(1, 2)[..., :1] * self.token
            return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))

    found = randomisation.layers_of(Attends(), torch.rand(1, 3, 3, 3))
    assert [layer.name for layer in found] == ["Attends", "attention", "head"]
    assert found[0].parameters == ("token",)
    assert set(found[1].parameters) == {f"attention.{n}" for n in ("in_proj_weight", "in_proj_bias")} | {
        f"attention.out_proj.{n}" for n in ("weight", "bias")
    }


def test_modules_by_name_are_layers_with_all_that_is_in_them(trained, pictures):
    found = randomisation.layers_of(trained, pictures, ["head", "stage3", "stage1"])
    assert [layer.name for layer in found] == ["stage1", "stage3", "head"]
    assert all(p.startswith("net.stage3.") for p in found[1].parameters) and len(found[1].batch_norms) == 5
    names = {"net.head.weight", "net.head.bias"}
    first, second, third = steps(trained, pictures, "cascading", layers=["head", "stage3", "stage1"])
    assert changed(trained, first.network) == names
    assert changed(trained, second.network) == names | set(found[1].parameters)
    assert changed(trained, third.network) == names | {p for layer in found for p in layer.parameters}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_step_randomises_what_it_says_and_nothing_else(model, x, scheme):
    """The slow twin: for each layer from the top a seed, from the seed an order of each tensor's values."""
    layers = [["head.weight", "head.bias"], ["conv2.weight", "conv2.bias"], ["conv1.weight", "conv1.bias"]]
    seeds = torch.randint(2**62, (3,), generator=torch.Generator().manual_seed(7)).tolist()
    wanted = {n: p.detach().clone() for n, p in model.named_parameters()}
    found = steps(model, x, scheme, 7)
    assert [s.layer for s in found] == ["head", "conv2", "conv1"]
    for i, (names, seed, step) in enumerate(zip(layers, seeds, found, strict=True)):
        if scheme == "independent":
            wanted = {n: p.detach().clone() for n, p in model.named_parameters()}
        generator = torch.Generator().manual_seed(seed)
        for n in names:
            flat = wanted[n].flatten().tolist()
            order = torch.randperm(len(flat), generator=generator).tolist()
            wanted[n] = torch.tensor([flat[k] for k in order], dtype=torch.float64).view(wanted[n].shape)
        for n, p in step.network.named_parameters():
            assert torch.equal(p, wanted[n]), (i, n)
        assert step.random == (("head", "conv2", "conv1")[: i + 1] if scheme == "cascading" else (step.layer,))


def test_a_layer_is_as_random_in_either_scheme(trained, pictures):
    for c, i in zip(*(steps(trained, pictures, s) for s in SCHEMES), strict=True):
        own, other = dict(c.network.named_parameters()), dict(i.network.named_parameters())
        for name in changed(trained, i.network):
            assert torch.equal(own[name], other[name])
    again = steps(trained, pictures, "independent")[-1].network.state_dict()
    assert all(torch.equal(v, again[n]) for n, v in i.network.state_dict().items())
    third = steps(trained, pictures, "independent", seed=1)[-1].network
    assert not torch.equal(dict(third.named_parameters())[name], other[name])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_batch_norms_of_randomised_layers_look_again_and_the_others_do_not(trained, pictures, scheme):
    norms = {n: m for n, m in trained.named_modules() if isinstance(m, nn.BatchNorm2d)}
    layers = {layer.name: layer for layer in randomisation.layers_of(trained, pictures)}
    for step in steps(trained, pictures, scheme):
        own = {n for name in step.random for n in layers[name].batch_norms}
        seen = {}
        network = step.network
        for n in norms:
            network.get_submodule(n).register_forward_pre_hook(
                lambda _, args, n=n, seen=seen: seen.__setitem__(n, args[0].numpy())
            )
        with torch.no_grad():
            network(pictures)
        for n, old in norms.items():
            new = network.get_submodule(n)
            if n in own:
                channels = [seen[n][:, c].ravel() for c in range(seen[n].shape[1])]
                assert np.allclose(new.running_mean, [v.mean() for v in channels], rtol=1e-10, atol=1e-12)
                assert np.allclose(new.running_var, [v.var(ddof=1) for v in channels], rtol=1e-10, atol=1e-12)
            else:
                assert torch.equal(new.running_mean, old.running_mean) and torch.equal(new.running_var, old.running_var)


def test_activations_keep_their_scale_through_batch_norm(trained, pictures):
    """Whatever the random weights are, what leaves a randomised layer has the spread that its scale says."""
    (*_, last) = steps(trained, pictures, "cascading")
    seen = {}
    for m in last.network.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.register_forward_hook(lambda m, _, out: seen.__setitem__(m, out.clone()))
    with torch.no_grad():
        last.network(pictures)
    for m, out in seen.items():
        assert torch.allclose(out.std((0, 2, 3)), m.weight.detach().abs(), rtol=0.05, atol=0.05)
        assert torch.allclose(out.mean((0, 2, 3)), m.bias.detach(), atol=1e-9)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_model_stays_as_it_is_whatever_becomes_of_the_copies(trained, pictures, scheme):
    trained.train()
    trained.net.stage1[1].eval()
    trained.net.head.weight.requires_grad_(False)
    trained.net.head.bias.grad = torch.ones(10, dtype=torch.float64)
    before = conftest.state_of(trained)
    storages = {t.untyped_storage().data_ptr() for t in trained.state_dict().values()}
    with pytest.raises(RuntimeError, match="enough"):
        for i, step in enumerate(randomisation.randomised(trained, pictures, scheme)):
            assert conftest.same_state(before, conftest.state_of(trained))
            assert not storages & {t.untyped_storage().data_ptr() for t in step.network.state_dict().values()}
            assert [m.training for m in step.network.modules()] == before[0]
            assert not any(m._forward_hooks or m._forward_pre_hooks for m in step.network.modules())
            with torch.no_grad():
                for p in step.network.parameters():
                    p.zero_()  # and the next step does not feel it
            if i == 3:
                raise RuntimeError("enough")
    assert conftest.same_state(before, conftest.state_of(trained))


def test_what_is_done_to_a_copy_is_not_in_the_next(model, x):
    clean = [{n: p.clone() for n, p in s.network.named_parameters()} for s in steps(model, x, "cascading")]
    generator = torch.Generator().manual_seed(0)
    for step, wanted in zip(randomisation.randomised(model, x, "cascading", generator=generator), clean, strict=True):
        for n, p in step.network.named_parameters():
            assert torch.equal(p, wanted[n])
            p.data.zero_()


def test_the_model_stays_as_it_is_when_its_forward_pass_breaks(model, x):
    broken = conftest.Breaks(model)
    before = conftest.state_of(broken)
    with pytest.raises(RuntimeError, match="forced"):
        steps(broken, x, "cascading")
    assert conftest.same_state(before, conftest.state_of(broken))


def test_tied_weights_stay_tied(x):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x).relu()).mean((2, 3))

    net = Tied().double()
    for step in steps(net, x, "cascading"):
        assert step.network.a.weight is step.network.b.weight
    assert not torch.equal(step.network.a.weight, net.a.weight)


def test_inside_inference_mode_it_is_the_same(model, x):
    wanted = [dict(s.network.named_parameters()) for s in steps(model, x, "independent")]
    with torch.inference_mode():
        for own, step in zip(wanted, steps(model, x, "independent"), strict=True):
            assert all(torch.equal(p, own[n]) for n, p in step.network.named_parameters())


def test_what_cannot_be_randomised_is_refused(model, trained, x, pictures):
    class Pools(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    with pytest.raises(ValueError, match="no parameter of Pools"):
        steps(Pools(), x, "cascading")
    with pytest.raises(ValueError, match="unknown scheme 'top-down'; choose cascading or independent"):
        steps(model, x, "top-down")
    with pytest.raises(ValueError, match=r"no layer 'con1'.*conv1"):
        steps(model, x, "cascading", layers=["con1"])
    with pytest.raises(ValueError, match="layer 'act1' has no parameters"):
        steps(model, x, "cascading", layers=["act1"])
    with pytest.raises(ValueError, match=r"'stage2' and 'stage2\.0' share parameters"):
        steps(trained, pictures, "cascading", layers=["stage2", "stage2.0"])
    for layers in ("head", []):
        with pytest.raises(ValueError, match="give a list of names"):
            steps(model, x, "cascading", layers=layers)
    nn.init.zeros_(model.head.weight), nn.init.ones_(model.head.bias)
    with pytest.raises(ValueError, match="all tensors of layer 'head' are constant"):
        steps(model, x, "cascading")
    assert [s.layer for s in steps(model, x, "cascading", layers=["conv1", "conv2"])] == ["conv2", "conv1"]
    with pytest.raises(ValueError, match=r"range over .*, 1\.99"):
        steps(model, 2 * x, "cascading")
    small = nn.Sequential(nn.Conv2d(3, 2, 8), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2)).double().eval()
    with pytest.raises(ValueError, match="BatchNorm '1' sees one value a channel"):
        steps(small, x[:1], "cascading")
    assert len(steps(small, x, "cascading")) == 2


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")
def test_a_model_of_torch_jit_is_refused_and_so_is_a_part(model, x):
    traced = torch.jit.trace(model, x, check_trace=False)
    with pytest.raises(ValueError, match="cannot be looked into"):
        steps(traced, x, "cascading")
    model.conv1 = torch.jit.trace(model.conv1, x, check_trace=False)
    with pytest.raises(ValueError, match=r"layer 'conv1' is a torch\.jit model"):
        steps(model, x, "cascading")


def test_what_cannot_be_copied_is_refused(model, x):
    model.kept = model.head(torch.rand(1, 6, dtype=torch.float64))  # a tensor with a graph, as the old weight_norm leaves
    with pytest.raises(RuntimeError):
        copy.deepcopy(model)
    with pytest.raises(ValueError, match=r"Toy cannot be copied.*parametrizations"):
        steps(model, x, "cascading")
