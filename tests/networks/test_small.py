"""`max_pool2d` of the small networks is torch's to the last bit, derivatives included, and one step to who watches."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.networks import models, small
from lib.networks.tape import Tape

LAST = torch.channels_last


def derivatives(pool, x, *how):
    """Values, gradient and gradient of that gradient, for weights that depend on nothing else."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = pool(x, *how)
    weights = torch.linspace(-1, 1, y.numel(), dtype=x.dtype).view_as(y).requires_grad_()
    (first,) = torch.autograd.grad((weights * y).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad((first * x.detach().cos()).sum(), weights)
    return y.detach(), first.detach(), second


@pytest.mark.parametrize("how", [(2, 2, 0), (3, 1, 1), (3, 2, 1), (2, 1, 0)])
@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (1, 1, 5, 7), (2, 3, 9, 4)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, LAST])
def test_max_pooling_is_torchs_to_the_last_bit(shape, how, memory_format):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).relu()  # zeros are ties: the first is the maximum
    x = x.to(memory_format=memory_format)
    for ours, torchs in zip(derivatives(small.max_pool2d, x, *how), derivatives(F.max_pool2d, x, *how), strict=True):
        assert torch.equal(ours, torchs)
    assert small.max_pool2d(x, *how).is_contiguous(memory_format=memory_format)


def test_not_a_number_stays_one():
    x = torch.randn(2, 3, 4, 4)
    x[0, 1, 2, 3] = torch.nan
    assert torch.equal(small.max_pool2d(x, 2, 2).isnan(), F.max_pool2d(x, 2, 2).isnan())


@pytest.mark.parametrize("arch", ["plain", "inception"])
def test_networks_train_as_with_torchs_pooling(arch):
    torch.manual_seed(0)
    ours = models.create(arch, classes=10)
    torchs = copy.deepcopy(ours)
    pools = [
        (m, name, child) for m in torchs.modules() for name, child in m.named_children() if isinstance(child, nn.MaxPool2d)
    ]
    for module, name, pool in pools:
        setattr(module, name, nn.MaxPool2d(pool.kernel_size, pool.stride, pool.padding))
    assert pools
    x, y = torch.rand(8, 3, 16, 16), torch.arange(8)
    for model in (ours, torchs):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), torchs.state_dict().values(), strict=True))


def test_who_watches_functions_sees_one_pooling():
    x = torch.rand(1, 2, 4, 4, requires_grad=True)
    with Tape() as tape:
        tape.want(x)
        y = small.max_pool2d(x, 2, 2)
    assert torch.equal(y, F.max_pool2d(x, 2, 2))
    assert [s.name for s in tape.steps] == ["max_pool2d"]
