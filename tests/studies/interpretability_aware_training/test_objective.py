"""The ten training arms: each loss against a twin written from the table, special cases, the inner loop, the warm-up."""

import pytest
import torch
from torch.nn import functional as F

from lib.attacks import steps as steps_
from lib.networks import models
from lib.studies.interpretability_aware_training import objective
from lib.studies.interpretability_aware_training.objective import ARMS, Weights
from lib.system.flops import flops
from lib.training import cache
from lib.training.config import TrainConfig
from lib.training.objectives import Moment
from tests.fooling.test_discrepancy import Deep, Headed, twin_all, twin_cam

CALM = {"eps": 0.1, "steps": 2, "step": 0.05, "begin": 0.0, "full": 0.0}


def moment(progress=0.5, seed=0, batch=1):
    return Moment(1, batch, 4, progress, torch.Generator().manual_seed(seed))


def loss(model, x, y, arm, **options):
    return objective.train(model, x, y, moment(), arm=arm, **(CALM | options))


def ce(model, x, y):
    return torch.stack([-model(row[None])[0].log_softmax(0)[label] for row, label in zip(x, y, strict=True)])


def twin_ig(model, x, x_adv, y, points):
    """|| (x' - x) * mean of the gradients at the right ends ||_1, image by image."""
    found = []
    for row, adv, label in zip(x, x_adv, y, strict=True):
        total = torch.zeros_like(row)
        for k in range(1, points + 1):
            z = (row + k / points * (adv - row)).detach().requires_grad_()
            total += torch.autograd.grad(-model(z[None])[0].log_softmax(0)[label], z)[0]
        found.append(((adv - row) * total / points).abs().sum())
    return torch.stack(found)


@pytest.mark.parametrize("arm", ARMS)
def test_each_loss_is_the_table_s(x, y, arm, monkeypatch):
    model = Headed()
    x_adv = (x + 0.1 * torch.rand(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype) - 0.05).clamp(0, 1)
    monkeypatch.setattr(objective, "inner", lambda *_, **__: x_adv)
    found = loss(model, x, y, arm, gamma=0.3, ig_weight=0.7, kl_weight=2.0)
    clean, attacked = model(x).log_softmax(1), model(x_adv).log_softmax(1)
    divergence = (clean.exp() * (clean - attacked)).sum(1)
    one, all_ = [], []
    for n in range(len(x)):
        before, after = ({c: 16 * twin_cam(model, z[n], c) for c in range(4)} for z in (x, x_adv))
        one.append(float((before[int(y[n])] - after[int(y[n])]).abs().sum()))
        all_.append(twin_all(before, after, int(y[n]), model(x_adv)[n]))
    one, all_ = torch.tensor(one).double(), torch.tensor(all_).double()
    expected = {
        "normal": ce(model, x, y),
        "adv": ce(model, x_adv, y),
        "trades": ce(model, x, y) + 2 * divergence,
        "ig-norm": ce(model, x, y) + 0.7 * twin_ig(model, x, x_adv, y, 5),
        "ig-norm-sum": ce(model, x_adv, y) + 0.7 * twin_ig(model, x, x_adv, y, 5),
        "int-one-class": ce(model, x, y) + 0.3 * one,
        "int": ce(model, x, y) + 0.3 * all_,
        "int-adv": ce(model, x_adv, y) + 0.3 * all_,
        "int2": ce(model, x, y) + 0.3 * all_,
        "int2-adv": ce(model, x_adv, y) + 0.3 * all_,
    }[arm]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("arm", [arm for arm in ARMS if ARMS[arm].climbs])
def test_the_inner_loop_climbs_its_own_objective(x, y, arm):
    """x' stays in the box and is the last iterate of sign steps up the gradient of the table's objective."""
    model, weights, eps, step = Headed(), Weights(gamma=0.3, ig=0.7), 0.1, 0.04
    chosen = ARMS[arm]
    generator = torch.Generator().manual_seed(5)
    options = {"eps": eps, "steps": 3, "step": step, "weights": weights}
    found = objective.inner(chosen, model, x, y, generator=torch.Generator().manual_seed(5), **options)
    z = (x + steps_.random_point(x, eps, "linf", generator)).clamp(0, 1)
    for _ in range(3):
        z = z.detach().requires_grad_()
        logits = model(z)
        value = torch.zeros((), dtype=x.dtype)
        if "ce" in chosen.climbs:
            value = value + F.cross_entropy(logits, y, reduction="sum")
        if "kl" in chosen.climbs:
            value = value + F.kl_div(logits.log_softmax(1), model(x).softmax(1), reduction="sum")
        if {"one", "all"} & set(chosen.climbs):
            act = {"x": model.net.act2(model.net.conv2(model.net.act1(model.net.conv1(x))))}
            act["z"] = model.net.act2(model.net.conv2(model.net.act1(model.net.conv1(z))))
            maps = {k: torch.einsum("ck,nkij->ncij", model.net.head.weight, a) for k, a in act.items()}
            moved = (maps["x"] - maps["z"]).abs().sum((2, 3))
            own = moved.gather(1, y[:, None]).sum()
            others = logits.scatter(1, y[:, None], -torch.inf).softmax(1)
            value = value + 0.3 * (own if "one" in chosen.climbs else own + (others * moved).sum())
        if "ig" in chosen.climbs:
            along = torch.cat([x + k / 5 * (z - x) for k in range(1, 6)])
            g = torch.autograd.grad(F.cross_entropy(model(along), y.repeat(5), reduction="sum"), along, create_graph=True)[0]
            value = value + 0.7 * ((z - x) * g.view(5, *x.shape).mean(0)).abs().sum()
        (gradient,) = torch.autograd.grad(value, z)
        z = (x + (z + step * gradient.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    torch.testing.assert_close(found, z.detach())
    assert ((found - x).abs() <= eps + 1e-12).all() and found.min() >= 0 and found.max() <= 1


def test_int_attacks_the_explanation_and_int2_the_decision(x, y):
    """Int's images do not depend on the cross-entropy: a head shifted by a constant for every class gives the same ones."""
    model, shifted = Headed(), Headed()
    with torch.no_grad():
        shifted.net.head.bias += torch.tensor([30.0, 0.0, 0.0, 0.0])  # changes the cross-entropy, not the maps
    options = {"eps": 0.1, "steps": 3, "step": 0.04, "weights": Weights()}

    def found(arm, net):
        return objective.inner(ARMS[arm], net, x, y, generator=torch.Generator().manual_seed(5), **options)

    torch.testing.assert_close(found("int-one-class", model), found("int-one-class", shifted))
    assert not torch.allclose(found("int2", model), found("int2", shifted))
    torch.testing.assert_close(found("int2", model), found("adv", model))
    assert not torch.allclose(found("int", model), found("int2", model))


@pytest.mark.parametrize(
    ("arm", "plain", "options"),
    [
        ("int", "normal", {"gamma": 0.0}),
        ("int-one-class", "normal", {"gamma": 0.0}),
        ("int2", "normal", {"gamma": 0.0}),
        ("int2-adv", "adv", {"gamma": 0.0}),
        ("trades", "normal", {"kl_weight": 0.0}),
        ("ig-norm", "normal", {"ig_weight": 0.0}),
    ],
)
def test_without_its_weight_an_arm_is_the_plain_one(x, y, arm, plain, options):
    torch.testing.assert_close(loss(Headed(), x, y, arm, **options), loss(Headed(), x, y, plain))


@pytest.mark.parametrize("arm", ARMS)
def test_without_a_radius_every_arm_is_normal_and_attacks_nothing(x, y, arm, monkeypatch):
    monkeypatch.setattr(objective, "inner", None)  # would fail if it were called
    model = Headed()
    torch.testing.assert_close(loss(model, x, y, arm, eps=0.0), ce(model, x, y))
    early = objective.train(model, x, y, moment(0.1), arm=arm, eps=0.1, steps=2, step=0.1, begin=0.2, full=0.8)
    torch.testing.assert_close(early, ce(model, x, y))


def test_warm_up():
    ramp = objective.ramp
    assert [ramp(p, 0.2, 0.7) for p in (0, 0.2, 0.45, 0.7, 0.9)] == [0, 0, pytest.approx(0.5), 1, 1]
    assert [ramp(p, 0.0, 0.0) for p in (0, 0.5)] == [1, 1] and ramp(0.3, 0.5, 0.5) == 0


def test_at_the_image_itself_a_discrepancy_has_no_gradient(x, y):
    """Why the inner loop must start elsewhere."""
    model = Headed()
    z = x.clone().requires_grad_()
    seen = objective._see(model, z, True)
    clean = objective._see(model, x, True)
    term = objective._term("all", model, x, z, y, clean, seen, Weights())
    assert torch.autograd.grad(term.sum(), z)[0].eq(0).all()


def test_the_penalty_of_integrated_gradients_trains(y):
    """Second order: its gradient in a weight is that of finite differences."""
    model = Headed(smooth=True)
    x = torch.rand(2, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x_adv = (x + 0.1).clamp(0, 1)
    weight = model.net.conv1.weight

    def value():
        return objective.ig_norm(model, x, x_adv, y[:2]).sum()

    (gradient,) = torch.autograd.grad(value(), weight)
    for index in ((0, 0, 0, 0), (2, 1, 2, 1), (4, 2, 1, 1)):
        sides = []
        for h in (1e-6, -1e-6):
            with torch.no_grad():
                weight[index] += h
            sides.append(value().item())
            with torch.no_grad():
                weight[index] -= h
        assert gradient[index].item() == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-4, abs=1e-8)


PASSES = {"normal": (0, 1), "adv": (1, 1), "int2": (1, 2), "trades": (1, 2), "int": (1, 2), "int2-adv": (1, 2)}


@pytest.mark.parametrize("arm", PASSES)
def test_a_step_costs_its_passes(arm):
    """Exactly: inner steps forward and back to the input, x once forward where it is compared, the copies of the outer loss."""
    net = models.create("small", classes=10, channels=1)
    x, y = torch.rand(4, 1, 28, 28), torch.zeros(4, dtype=torch.long)
    steps = 3

    def one(parameters, images):
        net.requires_grad_(parameters)
        z = images.clone().requires_grad_(not parameters)
        out = F.cross_entropy(net(z), y.repeat(len(images) // 4), reduction="sum")
        torch.autograd.grad(out, list(net.parameters()) if parameters else [z])
        net.requires_grad_(True)

    def forward():
        with torch.no_grad():
            net(x)

    def step():
        found = objective.train(net, x, y, moment(), arm=arm, eps=0.1, steps=steps, step=0.05, begin=0.0, full=0.0)
        torch.autograd.grad(found.sum(), list(net.parameters()))

    inner, copies = PASSES[arm]
    passes = inner * steps * flops(lambda: one(False, x)) + flops(lambda: one(True, torch.cat([x] * copies)))
    compared = arm in ("trades", "int")
    passes += flops(forward) if compared else 0
    one_map = 2 * 4 * 49 * 100 * 10  # a 1 x 1 convolution to ten classes; as much back to its input, and to its weight
    maps = {"int": steps * 2 * one_map + one_map + 2 * 3 * one_map, "int2": 2 * 3 * one_map, "int2-adv": 2 * 3 * one_map}
    allowed = maps.get(arm, 0)
    head = 2 * 4 * 100 * 10
    assert abs(flops(step) - passes - allowed) <= 2 * steps * head + 2 * head, (flops(step) - passes, allowed)
    assert flops(step) <= 1.1 * passes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arm": "int3"}, "unknown arm 'int3'"),
        ({"arm": "int", "gamma": -1.0}, "gamma=-1.0"),
        ({"arm": "int", "begin": 0.5, "full": 0.2}, "starts to grow at 0.5 of the run and is whole at 0.2"),
        ({"arm": "int", "full": 1.2}, "whole at 1.2"),
        ({"arm": "adv", "eps": -0.1}, "eps=-0.1"),
    ],
)
def test_bad_options_are_refused(x, y, options, message):
    with pytest.raises(ValueError, match=message):
        loss(Headed(), x, y, **options)


def test_a_network_without_cam_is_refused_at_the_first_step(x, y):
    first = Moment(0, 0, 4, 0.0, torch.Generator().manual_seed(0))
    model = Deep().double()
    with pytest.raises(ValueError, match="CAM is not defined here; train an arm that needs no CAM"):
        objective.train(model, x, y, first, arm="int", **CALM)
    assert objective.train(model, x, y, first, arm="adv", **CALM).isfinite().all()


def test_the_loop_trains_every_arm(home):
    """Through `trained`: the history is finite, another arm is another network, the same one is found again."""
    found = {}
    for arm in ("normal", "int", "ig-norm-sum"):
        config = TrainConfig(
            dataset="digits",
            size=16,
            channels=1,
            limit=100,
            arch="small",
            epochs=2,
            batch_size=50,
            optimizer="adam",
            lr=1e-3,
            weight_decay=0.0,
            augment=(),
            objective="studies.interpretability_aware_training.objective:train",
            options={"arm": arm} | ({} if arm == "normal" else CALM),
        )
        network = cache.trained(config)
        assert all(torch.isfinite(p).all() for p in network.model.parameters())
        found[arm] = network.model.net.conv3.weight.clone()
        torch.testing.assert_close(cache.trained(config).model.net.conv3.weight, found[arm])
    assert not torch.allclose(found["normal"], found["int"]) and not torch.allclose(found["int"], found["ig-norm-sum"])
