"""Neurons clamped to their clean values: against a loop in float64 that runs a toy network by hand, and identities."""

import itertools

import pytest
import torch
from torch import nn

from lib.networks import models
from lib.pathways import interventions
from tests.conftest import same_state, state_of

LAYERS = ("act1", "act2")
WIDTHS = {"act1": 5, "act2": 6}


@pytest.fixture
def attacked(x):
    return (x + 0.2 * torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))).clamp(0, 1)


def masks(*layers, n=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(n, WIDTHS[name], generator=generator) < 0.4 for name in layers}


def slow(model, x, clean, one):
    """Image by image and channel by channel, each layer called by name."""
    found = []
    for i in range(len(x)):
        own, own_clean = x[i : i + 1], clean[i : i + 1]
        for conv, act in (("conv1", "act1"), ("conv2", "act2")):
            own, own_clean = (getattr(model, act)(getattr(model, conv)(v)) for v in (own, own_clean))
            own = own.clone()
            for c in range(own.shape[1]):
                if act in one and one[act][i, c]:
                    own[0, c] = own_clean[0, c]
        found.append(model.head(own.mean((2, 3))))
    return torch.cat(found).detach()


@pytest.mark.parametrize("layers", [(), ("act1",), ("act2",), LAYERS])
@pytest.mark.parametrize("batch", [1, 4, 50])
def test_clamped_equals_the_loop(model, x, attacked, layers, batch):
    sets = [masks(*layers, seed=s) for s in range(3)]
    found = interventions.clamped(model, attacked, x, sets, batch_size=batch)
    for logits, one in zip(found, sets, strict=True):
        torch.testing.assert_close(logits, slow(model, attacked, x, one))


def test_sets_of_different_layers_do_not_touch_each_other(model, x, attacked):
    sets = [masks("act1"), {}, masks(*LAYERS, seed=1), masks("act2", seed=2)]
    together = interventions.clamped(model, attacked, x, sets)
    for logits, one in zip(together, sets, strict=True):
        assert torch.equal(logits, interventions.clamped(model, attacked, x, [one])[0])


def every(net, names, n, x):
    """All channels of each of the layers, a set a layer."""
    widths = {}
    handles = [
        dict(net.named_modules())[name].register_forward_hook(lambda _m, _a, out, name=name: widths.update({name: out.shape[1]}))
        for name in names
    ]
    net(x[:1])
    for handle in handles:
        handle.remove()
    return [{name: torch.ones(n, widths[name], dtype=torch.bool)} for name in names]


@pytest.mark.parametrize("arch", ["plain", "residual", "inception"])
def test_a_layer_that_is_clamped_whole_gives_the_clean_network_exactly(arch):
    """And none clamped the attacked one: at every stage, since all paths lead through it."""
    torch.manual_seed(0)
    net = models.create(arch, classes=4).eval()
    x = torch.rand(5, 3, 16, 16)
    attacked = (x + 0.3 * torch.randn_like(x)).clamp(0, 1)
    with torch.no_grad():
        before, after = net(x), net(attacked)
    inner = [f"net.{s}" if f"net.{s}" in dict(net.named_modules()) else s for s in net.stages]
    whole = [{s: one[n]} for s, n, one in zip(net.stages, inner, every(net, inner, 5, x), strict=True)]
    for logits in interventions.clamped(net, attacked, x, whole):
        assert torch.equal(logits, before)
    none = [{n: torch.zeros_like(m) for n, m in one.items()} for one in whole]
    for logits in interventions.clamped(net, attacked, x, [*none, {}]):
        assert torch.equal(logits, after)
    assert not torch.equal(before, after)


def test_the_channel_that_carries_a_planted_attack_undoes_it_and_no_other():
    """By hand: channel 1 alone sees what the attack adds, and the head asks it alone for class 1."""
    net = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0], [0, 1], [1, 1]])[:, :, None, None])
        net[4].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 4, 0]]))
        net[4].bias.zero_()
    clean = torch.zeros(2, 2, 3, 3)
    clean[:, 0] = 0.5
    attacked = clean.clone()
    attacked[:, 1] = torch.tensor([0.25, 0.5])[:, None, None]
    sets = [{"1": interventions.chosen(c, 3, 2)} for c in ((), (0,), (1,), (2,))]
    expected = torch.tensor([[0.5, 0.0]] * 2), torch.tensor([[0.5, 1.0], [0.5, 2.0]])
    for logits, c in zip(interventions.clamped(net, attacked, clean, sets), (None, 0, 1, 2), strict=True):
        torch.testing.assert_close(logits, expected[0] if c == 1 else expected[1])


def test_a_shortcut_around_a_clamped_layer_still_brings_the_attack():
    """What a layer takes is not what it puts out: an Identity that is clamped leaves the path beside it alone."""

    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.same, self.conv = nn.Identity(), nn.Conv2d(3, 3, 1)
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            return self.head((self.same(x) + self.conv(x)).mean((2, 3)))

    torch.manual_seed(0)
    net = Beside().double()
    clean, attacked = torch.rand(2, 2, 3, 4, 4, dtype=torch.float64)
    kept = attacked.clone()
    (found,) = interventions.clamped(net, attacked, clean, [{"same": torch.ones(2, 3, dtype=torch.bool)}])
    torch.testing.assert_close(found, net.head((clean + net.conv(attacked)).mean((2, 3))).detach())
    assert torch.equal(attacked, kept)


def forced(_):
    raise RuntimeError("forced")


def test_the_model_is_left_as_it_was_also_after_an_exception(model, x, attacked, monkeypatch):
    model.train()
    before, hooks = state_of(model), [len(m._forward_hooks) for m in model.modules()]
    interventions.clamped(model, attacked, x, [masks(*LAYERS)])
    with pytest.raises(ValueError, match="expected bool"):
        interventions.clamped(model, attacked, x, [masks("act1"), {"act2": torch.ones(6, 4, dtype=torch.bool)}])
    monkeypatch.setattr(model.head, "forward", forced)
    with pytest.raises(RuntimeError, match="forced"):
        interventions.clamped(model, attacked, x, [masks(*LAYERS)])
    assert same_state(before, state_of(model)) and hooks == [len(m._forward_hooks) for m in model.modules()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.rand(5, 3, 8, 8, dtype=torch.float64)}, r"attacked images have shape \(5, 3, 8, 8\), clean ones"),
        ({"x": torch.full((6, 3, 8, 8), 2.0, dtype=torch.float64)}, "0, 1"),
        ({"sets": [{"act3": torch.ones(6, 5, dtype=torch.bool)}]}, "did you mean"),
        ({"sets": [{"head": torch.ones(6, 4, dtype=torch.bool)}]}, "convolutional layer"),
        ({"sets": [{"act1": torch.ones(6, 5)}]}, r"float32 \(6, 5\); expected bool, .*\(6, 5\)"),
    ],
)
def test_what_cannot_be_clamped_is_named(model, x, attacked, changes, message):
    given = {"x": attacked, "clean": x, "sets": [masks("act1")]} | changes
    with pytest.raises(ValueError, match=message):
        interventions.clamped(model, **given)


def test_which_channels():
    assert interventions.chosen((0, 2), 4, 2).tolist() == [[True, False, True, False]] * 2
    assert interventions.most_excited(torch.tensor([5.0, 0, 1, 2]), torch.tensor([6.0, 3, 0, 4]), 2) == (1, 3)
    assert interventions.most_excited(torch.zeros(3), torch.ones(3), 0) == ()
    found = interventions.drawn(2, 5, 4000, torch.Generator().manual_seed(0))
    assert (found.sum(1) == 2).all()
    for a, b in itertools.combinations(range(5), 2):  # ten pairs, each as likely
        assert (found[:, a] & found[:, b]).double().mean() == pytest.approx(0.1, abs=0.02)
    with pytest.raises(ValueError, match="6 channels of a layer that has 5"):
        interventions.drawn(6, 5, 1, torch.Generator())
    with pytest.raises(ValueError, match=r"channels \(4,\) of a layer that has 4; they go from 0 to 3"):
        interventions.chosen((4,), 4, 1)
