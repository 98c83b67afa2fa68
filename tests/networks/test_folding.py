"""Folded networks: the same logits, the same layers by name, and a refusal where a normalisation runs elsewhere."""

import pytest
import torch
from torch import nn

from lib.explanations import activation_maps
from lib.networks import models
from lib.networks.folding import folded, measured


def stirred(net):
    """With running statistics that are no longer 0 and 1, as after training."""
    generator = torch.Generator().manual_seed(1)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            for value, low in ((m.running_mean, -0.5), (m.running_var, 0.5), (m.weight.data, 0.5), (m.bias.data, -0.5)):
                value.copy_(torch.rand(value.shape, generator=generator) + low)
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("arch", ["plain", "residual", "resnet18", "efficientnet-lite0", "densenet121"])
def test_a_folded_network_gives_the_same_logits_and_maps(arch):
    net = stirred(models.create(arch, classes=5))
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    found = folded(net, x)
    assert torch.allclose(found(x), net(x), rtol=1e-3, atol=1e-3 * float(net(x).abs().max()))
    here, there = (activation_maps.gradcam(m, x, 1, net.stages[-1]).values for m in (net, found))
    assert torch.allclose(here, there, rtol=1e-2, atol=1e-3 * float(here.abs().max()))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    count = [sum(isinstance(m, nn.BatchNorm2d) for m in n.modules()) for n in (net, found)]
    assert count[1] < count[0]


def test_by_hand():
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.0)).eval()
    with torch.no_grad():
        net[0].weight.fill_(3.0)
        net[1].running_mean.fill_(1.0), net[1].running_var.fill_(4.0), net[1].weight.fill_(2.0), net[1].bias.fill_(5.0)
    found = folded(net, torch.ones(1, 1, 2, 2))
    assert found[0].weight.item() == 3.0 and found[0].bias.item() == 4.0  # 2 (3 w - 1) / 2 + 5


def test_a_normalisation_that_runs_elsewhere_is_refused():
    class Before(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.norm.running_mean.fill_(0.5)

        def forward(self, x):
            return self.conv(self.norm(x)).mean((2, 3))

    with pytest.raises(ValueError, match="folded, Before gives other logits"):
        folded(Before().eval(), torch.rand(2, 3, 4, 4))


@pytest.mark.parametrize("arch", ["plain", "inception"])
def test_what_is_measured_is_the_network_laid_out_for_speed(arch):
    net = stirred(models.create(arch, classes=5))
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = measured(net, x[:2])
    assert found.stages == net.stages and type(found) is type(net)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in found.modules())
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected, logits = net(a), found(b)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    (there,), (here,) = torch.autograd.grad(expected[:, 1].sum(), [a]), torch.autograd.grad(logits[:, 1].sum(), [b])
    torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-4 * float(there.abs().max()))
    convolutions = [m.weight for m in found.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in convolutions) and len(convolutions) >= 6
    own = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]  # left as it was
    assert len(own) >= 12 and all(m.weight.is_contiguous() for m in own)
