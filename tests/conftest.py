"""What the tests share: float64 toy networks, a home of their own for files, real data where it is at hand."""

import gc
import os

os.environ.setdefault("MPLBACKEND", "agg")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores, and what they start inherits this

import pytest
import torch
from torch import Tensor, nn

from lib.networks import classifier, models
from tests import shapes

shapes.hold()  # before any test file takes a kernel by its name


class Toy(nn.Module):
    """Two convolutions with ReLU, average pooling, a linear head with a bias: CAM is defined at `conv2`'s ReLU."""

    def __init__(self, classes: int = 4, channels: int = 3, smooth: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 5, 3, padding=1)
        self.act1 = nn.Softplus() if smooth else nn.ReLU()
        self.conv2 = nn.Conv2d(5, 6, 3, stride=2, padding=1)
        self.act2 = nn.Softplus() if smooth else nn.ReLU()
        self.head = nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act2(self.conv2(self.act1(self.conv1(x))))
        return self.head(x.mean((2, 3)))


def toy(seed: int = 0, **options) -> Toy:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Toy(**options).double().eval()
        with torch.no_grad():  # every class is predicted somewhere, and decisions are not all close calls
            net.head.weight *= 5
            net.head.bias -= net(torch.rand(256, 3, 8, 8, dtype=torch.float64)).mean(0)
        return net


@pytest.fixture
def model() -> Toy:
    return toy()


@pytest.fixture
def smooth() -> Toy:
    return toy(smooth=True)


@pytest.fixture
def x() -> Tensor:
    return torch.rand(6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def y() -> Tensor:
    return torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.fixture
def small_plain() -> classifier.Classifier:
    return models.create("plain", classes=10).eval()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Models, results and figures go to a folder of the test's own."""
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))
    return tmp_path


class Breaks(nn.Module):
    """Raises inside forward, to see what is put back after an exception."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.net = inner

    def forward(self, x: Tensor) -> Tensor:
        self.net(x)
        raise RuntimeError("forced")


def state_of(model: nn.Module) -> list:
    """Everything a kernel must leave as it was."""
    flags = [m.training for m in model.modules()]
    hooks = [len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules()]
    parameters = [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    values = [v.clone() for v in model.state_dict().values()]
    return [flags, hooks, parameters, values, torch.get_rng_state()]


def same_state(a: list, b: list) -> bool:
    def same_grads(u: list, v: list) -> bool:
        return all(
            p[0] == q[0] and ((p[1] is None) == (q[1] is None)) and (p[1] is None or torch.equal(p[1], q[1]))
            for p, q in zip(u, v, strict=True)
        )

    return (
        a[0] == b[0]
        and a[1] == b[1]
        and same_grads(a[2], b[2])
        and all(torch.equal(u, v) for u, v in zip(a[3], b[3], strict=True))
        and torch.equal(a[4], b[4])
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: workers are dealt whole files in this order, and what comes last should be short."""
    longest = ("test_notebooks.py", "test_browser.py", "test_rehearse.py", "test_run.py", "test_shapes.py", "test_cache.py")
    items.sort(key=lambda item: longest.index(item.path.name) if item.path.name in longest else len(longest))


def pytest_collection_finish() -> None:
    """What all tests share, torch and their peers' modules and the tests themselves, is garbage for no collection; and there
    are fewer collections, which take a twentieth of the time otherwise."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_unconfigure() -> None:
    gc.unfreeze()
