"""Networks whose weights share memory, written and read like any other; and one logit in training."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.networks import classifier, small
from lib.training import checkpoints, evaluate, objectives
from lib.training.cache import trained
from lib.training.config import TrainConfig


class Tied(nn.Module):
    """Two layers with one weight, a bias that is a part of another, and a buffer that is the bias itself."""

    def __init__(self, classes: int):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.conv1, self.conv2 = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
        self.conv2.weight = self.conv1.weight
        self.conv2.bias = self.conv1.bias
        self.head = nn.Linear(4, classes)
        pool = torch.zeros(8)
        self.register_buffer("whole", pool)
        self.register_buffer("part", pool[2:6])

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.conv2(F.relu(self.conv1(x))) + x)
        return self.head(x.mean((2, 3)))


def network(*, classes, channels, weights):
    return classifier.Classifier(Tied(classes), stages=("first", "conv1"), classes=classes)


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setattr(small, "tied", network, raising=False)
    return TrainConfig(
        dataset="digits", size=16, channels=1, limit=96, arch="networks.small:tied", epochs=3, batch_size=32, snapshots=True
    )


def test_tied_weights_are_written_and_read(home, config):
    """safetensors#98: of checkpoints, of snapshots and of what was trained; ties hold after reading."""

    def interrupted(row):
        if row["epoch"] == 3:
            raise KeyboardInterrupt

    whole = trained(config)
    net = whole.model.net
    assert net.conv1.weight is net.conv2.weight and len(whole.history) == 3
    read = trained(config)
    assert read.history == whole.history and read.model.net.conv1.weight is read.model.net.conv2.weight
    assert all(
        torch.equal(a, b) for a, b in zip(read.model.state_dict().values(), whole.model.state_dict().values(), strict=True)
    )
    assert not torch.equal(whole.after(1).net.conv1.weight, net.conv1.weight)
    for path in home.rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(KeyboardInterrupt):
        trained(config, on_epoch=interrupted)
    again = trained(config)  # from its checkpoint
    for a, b in zip(again.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_a_checkpoint_of_tied_weights_holds_network_and_optimiser(tmp_path):
    path, model = tmp_path / "a.safetensors", network(classes=3, channels=1, weights="none")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.rand(2, 1, 8, 8)).sum().backward()
    optimizer.step()
    checkpoints.write(path, model, optimizer, [{"epoch": 1.0}])
    other = network(classes=3, channels=1, weights="none")
    fresh = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    assert checkpoints.resume(path, other, fresh) == [{"epoch": 1.0}]
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(optimizer.state_dict()["state"].values(), fresh.state_dict()["state"].values(), strict=True):
        assert torch.equal(a["momentum_buffer"], b["momentum_buffer"])


def test_what_shares_no_memory_is_not_copied():
    tensors = {"a": torch.rand(3), "b": torch.rand(2, 2)}
    found = checkpoints.contiguous(tensors)
    assert all(found[k].data_ptr() == tensors[k].data_ptr() for k in tensors)
    a = torch.rand(6)
    found = checkpoints.contiguous({"a": a, "same": a, "part": a[2:4], "turned": a.view(2, 3).T})
    assert torch.equal(found["same"], a) and torch.equal(found["part"], a[2:4]) and torch.equal(found["turned"], a.view(2, 3).T)
    assert len({v.untyped_storage().data_ptr() for v in found.values()}) == 4


@pytest.mark.parametrize("flat", [False, True])
def test_one_logit_trains_and_predicts_two_classes(flat):
    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Tied(1)

        def forward(self, x):
            return self.net(x).squeeze(1) if flat else self.net(x)

    model, x, y = One().eval(), torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 1, 0, 1, 0])
    moment = objectives.Moment(0, 0, 1, 0.0, torch.Generator())
    loss = objectives.standard(model, x, y, moment)
    z = model.net(x)[:, 0]
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(z, y.float(), reduction="none"))
    attacked = objectives.adversarial(model, x, y, moment, eps=0.1, steps=3)
    assert (attacked > loss).all()
    assert torch.equal(evaluate.predictions(model, x), (z > 0).long())
