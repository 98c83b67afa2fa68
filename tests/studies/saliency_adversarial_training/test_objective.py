"""Saliency-based training by hand and against a twin in loops: the curriculum, the ball, the coin, TRADES, whole runs."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lib.attacks import losses
from lib.data import datasets
from lib.studies.saliency_adversarial_training import maps as maps_
from lib.studies.saliency_adversarial_training import objective
from lib.system import paths
from lib.training.cache import trained
from lib.training.config import TrainConfig
from lib.training.objectives import Moment
from tests.conftest import same_state, state_of, toy

D = torch.float64
SHORT = {"eps": 0.1, "steps": 3, "step": 0.04}
ARMS = list(itertools.product(("plain", "pgd", "trades"), ("none", "uniform", "sat")))
SHAPES = TrainConfig(
    dataset="shapes",
    limit=64,
    size=32,
    batch_size=32,
    epochs=2,
    arch="plain",
    lr=0.01,
    augment=("flip", "shift"),
    objective="studies.saliency_adversarial_training.objective:train",
    maps="studies.saliency_adversarial_training.maps:maps",
    maps_options={"kind": "masks"},
)
TEACHER = TrainConfig(dataset="shapes", limit=64, size=32, batch_size=32, epochs=1, arch="plain", seed=3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


FIRST = [torch.rand(1, generator=generator(s)).item() for s in range(8)]  # what the coin sees
HEADS, TAILS = FIRST.index(min(FIRST)), FIRST.index(max(FIRST))


def moment(seed=0, maps=None, epoch=1, epochs=10, teacher=None):
    return Moment(epoch, 1, 4, epoch / epochs, generator(seed), epochs, maps, teacher)


def signs(x, seed=7):
    """Directions with a few elements that say nothing."""
    return torch.randint(-2, 3, x.shape, generator=generator(seed)).sign().to(x)


class Seen(nn.Module):
    """Keeps the images of every pass, and whether it trained."""

    def __init__(self, net):
        super().__init__()
        self.net, self.images, self.modes = net, [], []

    def forward(self, x):
        self.images.append(x.detach().clone())
        self.modes.append(self.training)
        return self.net(x)


def new_images(x, y, base, mix, m, **options):
    model = Seen(toy())
    objective.train(model, x, y, m, base=base, mix=mix, **(SHORT | options))
    return model.images[-1][-len(x) :]


def test_the_curriculum_is_the_published_one():
    published = {0: 1.0, 5: 0.775, 10: 0.6, 20: 0.36, 30: 0.216, 50: 0.078, 99: 0.006}
    assert {t: round(objective.share_random(t, 100, 0.6), 3) for t in published} == published
    assert [objective.share_random(e, 20, 0.6) for e in range(20)] == [
        objective.share_random(5 * e, 100, 0.6) for e in range(20)
    ]
    assert {objective.share_random(e, 7, 1) for e in range(7)} == {1.0}
    assert objective.share_random(0, 5, 1e-300) == 1 and objective.share_random(1, 5, 1e-300) == 0  # the limit alpha = 0


def test_a_curriculum_that_is_none_is_refused():
    for epoch, alpha10 in ((0, 0), (0, -0.1), (0, 1.1), (0, math.nan), (10, 0.6), (-1, 0.6)):
        with pytest.raises(ValueError, match="lies in" if epoch == 0 else f"{epoch} of 10"):
            objective.share_random(epoch, 10, alpha10)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.sampled_from(["signs", "released"]))
def test_perturbations_are_signs_or_minus_the_map(seed, share, kind):
    s = torch.rand(2, 3, 6, 5, generator=generator(seed + 1))
    s = (3 * s).floor() - 1 if kind == "signs" else s
    s[0, 0, 0] = 0
    delta = objective.perturbation(s, share, generator(seed))
    assert delta.shape == s.shape and delta.dtype == s.dtype
    assert ((delta.abs() == 1) | (delta == -s)).all() and delta.abs().max() <= 1
    if kind == "signs" or share == 1:  # a sign that is none says nothing; a value of 0 does
        assert (delta[s == 0].abs() == 1).all()
    elif share == 0:
        assert (delta[s == 0] == 0).all()
    assert torch.equal(delta, objective.perturbation(s, share, generator(seed)))
    if share == 0:
        assert torch.equal(delta[s != 0], -s[s != 0])
    elif share == 1:
        assert torch.equal(delta, objective.perturbation(-s, 1, generator(seed)))


@pytest.mark.parametrize("share", [0.25, 0.6, 1.0])
def test_the_share_is_of_elements_and_their_signs_are_fair(share):
    """A map of halves shows which elements were random. Bounds: six standard errors."""
    s, g = torch.full((4, 3, 100, 100), 0.5), generator(1)
    delta, again = objective.perturbation(s, share, g), objective.perturbation(s, share, g)
    random = delta.abs() == 1
    assert abs(random.double().mean().item() - share) <= 6 * math.sqrt(share * (1 - share) / s.numel())
    for fair in (delta[random], objective.perturbation(torch.zeros_like(s), 0.0, g).flatten()):  # and where the map is silent
        assert (fair.abs() == 1).all() and abs(fair.double().mean().item()) < 6 / math.sqrt(len(fair))
    assert not torch.equal(delta, again)
    for a, b in ((random[:, 0], random[:, 1]), (random, again.abs() == 1)):  # channels, and calls, are drawn apart
        bound = 6 * math.sqrt(share**2 * (1 - share**2) / a.numel())
        assert abs((a & b).double().mean().item() - share**2) <= bound


def test_perturbations_need_directions_and_a_probability():
    s = torch.ones(1, 3, 4, 4)
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="is no probability"):
            objective.perturbation(s, share, generator())
    for wrong in (1.01 * s, -2 * s, s * math.nan):
        with pytest.raises(ValueError, match="binarise them first"):
            objective.perturbation(wrong, 0.5, generator())


@pytest.mark.parametrize(("base", "mix"), ARMS)
@pytest.mark.parametrize("seed", [HEADS, TAILS])
def test_new_images_stay_in_the_ball_and_the_box(base, mix, seed):
    x = torch.rand(8, 3, 8, 8, generator=generator(3), dtype=D)
    found = new_images(x, torch.arange(8) % 4, base, mix, moment(seed, signs(x)))
    assert found.min() >= 0 and found.max() <= 1
    distance = (found - x).abs().max().item()
    assert distance == 0 if (base, mix) == ("plain", "none") else 0.05 < distance <= 0.1 + 1e-12


def test_without_projection_pgd_s_start_and_the_map_add_up(y):
    x = torch.full((6, 3, 8, 8), 0.5, dtype=D)
    far, near = (new_images(x, y, "pgd", "sat", moment(HEADS, signs(x)), reproject=r) - x for r in (False, True))
    assert 0.15 < far.abs().max() <= 0.2 and far.abs().mean() > 0.05
    torch.testing.assert_close(near, far.clamp(-0.1, 0.1))


@pytest.mark.parametrize("base", ["plain", "pgd", "trades"])
def test_the_noise_arms_are_what_they_say(base):
    """Uniform noise has a third of sign noise's variance; alpha10 = 1 asks no maps. Bounds: six standard errors."""
    x, y, n = torch.full((40, 3, 16, 16), 0.5, dtype=D), torch.zeros(40, dtype=torch.long), 40 * 3 * 16 * 16
    uniform = (new_images(x, y, base, "uniform", moment(HEADS)) - x) / 0.1
    assert abs(uniform.mean().item()) < 6 * math.sqrt(1 / 3 / n)
    assert abs((uniform**2).mean().item() - 1 / 3) < 6 * math.sqrt(4 / 45 / n) and 0.99 < uniform.abs().max() <= 1 + 1e-9
    if base != "pgd":
        sign = (new_images(x, y, base, "sat", moment(HEADS, epoch=9), alpha10=1) - x) / 0.1
        torch.testing.assert_close(sign.abs(), torch.ones_like(sign))
        assert abs(sign.mean().item()) < 6 / math.sqrt(n)


def test_the_coin_is_fair():
    g, n = generator(), 4000
    assert abs(sum(objective.coin(g) for _ in range(n)) / n - 0.5) < 6 * 0.5 / math.sqrt(n)
    assert abs(sum(objective.coin(generator(s)) for s in range(n)) / n - 0.5) < 6 * 0.5 / math.sqrt(n)


@pytest.mark.parametrize(("base", "mix"), ARMS[3:])
def test_heads_attack_nothing_and_tails_do(x, y, base, mix):
    """By the passes: an attack takes its steps (TRADES' one more for the clean logits) in evaluation mode, then one trains."""
    attacked = []
    for seed in range(8):
        model = Seen(toy()).train()
        objective.train(model, x, y, moment(seed, signs(x)), base=base, mix=mix, **SHORT)
        steps = len(model.images) - 1
        attacked.append({0: False, 3 + (base == "trades"): True}[steps])
        assert model.modes == [False] * steps + [True] and len(model.images[-1]) == len(x) * (1 + (base == "trades"))
    assert attacked == [mix == "none" or u >= 0.5 for u in FIRST]


def test_the_divergence_of_two_classes_is_bernoulli_s():
    """(1/2, 1/2) against (1/4, 3/4): log(4/3) / 2; the other way round 3/4 log(3/2) - 1/4 log 2."""
    even, uneven = torch.zeros(1, 2, dtype=D), torch.tensor([[5.0, 5 + math.log(3)]], dtype=D)
    assert losses.kl(even, uneven).item() == pytest.approx(0.5 * math.log(4 / 3)) and losses.kl(uneven, uneven).item() == 0
    assert losses.kl(uneven, even).item() == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2))


def test_trades_attack_climbs_the_divergence(smooth, x):
    start, found = (objective.trades_attack(smooth, x, eps=0.1, step=0.02, steps=n, generator=generator()) for n in (0, 8))
    noise = ((start - x)[(x > 0.01) & (x < 0.99)] / 1e-3).std().item()
    assert noise == pytest.approx(1, abs=0.1)
    before, after = (losses.kl(smooth(x), smooth(z)) for z in (start, found))
    assert (after > 100 * before).all()
    assert (found - x).abs().max() <= 0.1 + 1e-12 and found.min() >= 0 and found.max() <= 1


def climbed(value, row, start, eps, steps, step):
    z = (row + start.clamp(-eps, eps)).clamp(0, 1)
    for _ in range(steps):
        z = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(value(z), z)
        z = torch.minimum(torch.maximum(z + step * gradient.sign(), row - eps), row + eps).clamp(0, 1)
    return z.detach()


def twin(model, x, y, s, g, *, base, mix, share, beta, reproject, eps, **rule):
    """The losses image by image and element by element, with the draws in the kernel's order."""

    def terms(row, z, c):
        p, q = (model(v[None])[0].log_softmax(0) for v in (row, z))
        return {"clean": -p[c], "attacked": -q[c], "kl": (p.exp() * (p - q)).sum()}

    z = x
    if mix == "none" or (base != "plain" and torch.rand(1, generator=g).item() >= 0.5):
        if base != "plain":
            draws = (torch.rand if base == "pgd" else torch.randn)(x.shape, generator=g).to(x)
            starts, up = ((2 * draws - 1) * eps, "attacked") if base == "pgd" else (1e-3 * draws, "kl")
            rows = zip(x, y, starts, strict=True)
            z = [climbed(lambda v, r=r, c=c: terms(r, v, c)[up], r, start, eps, **rule) for r, c, start in rows]
    else:
        if mix == "sat":
            random, sign = torch.rand(x.shape, generator=g), 2 * torch.randint(0, 2, x.shape, generator=g) - 1
        noise, z = (2 * torch.rand(x.shape, generator=g).to(x) - 1) * eps, torch.empty_like(x)
        for i in itertools.product(*map(range, x.shape)):
            move = noise[i]
            if mix == "sat":
                delta = eps * float(sign[i] if random[i] < share or s[i] == 0 else -s[i])
                move = delta + noise[i] if base == "pgd" else delta
            z[i] = min(max(x[i] + (min(max(move, -eps), eps) if reproject else move), 0), 1)
    found = [terms(*row) for row in zip(x, z, y, strict=True)]
    return torch.stack([t["clean"] + beta * t["kl"] if base == "trades" else t["attacked"] for t in found])


@pytest.mark.parametrize(("base", "mix"), ARMS)
@pytest.mark.parametrize(("seed", "reproject"), [(HEADS, True), (TAILS, True), (HEADS, False)])
def test_each_loss_is_the_table_s(x, y, base, mix, seed, reproject):
    model, s = toy(), signs(x)
    options = SHORT | {"base": base, "mix": mix, "beta": 2.5, "reproject": reproject}
    found = objective.train(model, x, y, moment(seed, s, epoch=3), alpha10=0.7, **options)
    assert found.shape == (6,) and found.requires_grad
    torch.testing.assert_close(found, twin(model, x, y, s, generator(seed), share=0.7**3, **options))


def watched(config, monkeypatch):
    """(images, moment) of every batch of a run, in its order."""
    seen, train = [], objective.train
    with monkeypatch.context() as patch:
        patch.setattr(
            objective, "train", lambda model, x, y, m, **o: seen.append((x.clone(), y, m)) or train(model, x, y, m, **o)
        )
        assert len(trained(config).history) == 2 and [m.epoch for *_, m in seen] == [0, 0, 1, 1]
    return seen


def test_a_run_moves_maps_with_their_images(home, monkeypatch):
    """The images are their own maps here: moved alike they stay equal, and left alone they are images of the data set."""
    monkeypatch.setattr(maps_, "maps", lambda data, teacher, **_: data.images)
    whole = {tuple(row.flatten().tolist()) for row in datasets.load("shapes", size=32, limit=64).images}
    for follow in (True, False):
        for x, _, m in watched(SHAPES.model_copy(update={"maps_follow": follow}), monkeypatch):
            assert torch.equal(x, m.maps) == follow and m.epochs == 2
            images, maps = (sum(tuple(row.flatten().tolist()) in whole for row in rows) for rows in (x, m.maps))
            assert images < 16 and maps == (images if follow else 32)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_run_asks_its_teacher(home, monkeypatch, fresh):
    made, directions = [], maps_.directions
    monkeypatch.setattr(maps_, "directions", lambda *a, **o: made.append(a[1]) or directions(*a, **o))
    options = {"maps": None, "maps_options": {}, "options": {"fresh": {"kind": "gradient"}}}
    kept = {"maps_options": {"kind": "gradient"}, "augment": ()}
    seen = watched(SHAPES.model_copy(update={"teacher": TEACHER} | (options if fresh else kept)), monkeypatch)
    if fresh:  # of the augmented batches; random signs alone in the first epoch
        assert len(made) == 2 and all(torch.equal(a, x) for a, (x, *_) in zip(made, seen[2:], strict=True))
    else:
        assert len(made) == 1
        for x, y, m in seen:
            torch.testing.assert_close(m.maps, directions(m.teacher, x.contiguous(), y, kind="gradient"))


FRESH = {"base": "pgd", "steps": 1, "alpha10": 0.1, "fresh": {"kind": "smoothgrad", "n": 2}}


@pytest.mark.parametrize("change", [{}, {"teacher": TEACHER, "maps": None, "maps_options": {}, "options": FRESH}])
def test_a_resumed_run_equals_an_unbroken_one(home, change):
    config = SHAPES.model_copy(update={"epochs": 3} | change)
    whole = trained(config)
    whole.path.unlink()
    with pytest.raises(ZeroDivisionError):  # in the report of the second epoch
        trained(config, on_epoch=lambda row: 1 / (2 - row["epoch"]))
    assert list(paths.models().glob("*.partial.safetensors"))
    states = [network.model.state_dict().values() for network in (whole, trained(config))]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


@pytest.mark.parametrize("how", ["gradient", "smoothgrad"])
def test_fresh_maps_are_the_teacher_s_of_this_very_batch(x, y, how):
    """The kept maps are ignored, and SmoothGrad's noise comes from the step's own generator."""
    model, teacher, g = toy(), toy(5), generator()
    s = maps_.directions(teacher, x, y, kind=how, n=2, generator=g)
    before = state_of(teacher)
    found = objective.train(model, x, y, moment(0, -s, teacher=teacher), fresh={"kind": how, "n": 2}, **SHORT)
    expected = objective.train(model, x, y, Moment(1, 1, 4, 0.1, g, 10, s), **SHORT)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert same_state(before, state_of(teacher))


@pytest.mark.parametrize(
    ("change", "given", "message"),
    [
        ({"alpha10": 0}, {}, "lies in"),
        ({"beta": -1e-9}, {}, "0 or more"),
        ({"fresh": {"kind": "ig"}}, {}, "has no teacher"),
        ({"base": "mart"}, {}, "base='mart'"),
        ({"mix": "noise"}, {}, "mix='noise'"),
        ({}, {"maps": None}, "needs maps"),
        ({}, {"maps": torch.ones(5, 3, 8, 8)}, "a map an image"),
        ({}, {"maps": torch.ones(6, 1, 8, 8)}, "a map an image"),
        ({}, {"maps": torch.full((6, 3, 8, 8), 2.0)}, "binarise them first"),
    ],
)
def test_what_makes_no_training_is_refused(x, y, change, given, message):
    with pytest.raises(ValueError, match=message):
        objective.train(toy(), x, y, moment(0, **({"maps": signs(x)} | given)), **(SHORT | change))


@pytest.mark.parametrize(("base", "seed"), [("pgd", HEADS), ("pgd", TAILS), ("trades", HEADS), ("trades", TAILS)])
def test_the_defaults_are_the_published_ones(x, y, base, seed):
    published = {"eps": 8 / 255, "alpha10": 0.6, "steps": 5, "step": 2 / 255, "beta": 1, "reproject": True, "mix": "sat"}
    found, expected = (objective.train(toy(), x, y, moment(seed, signs(x)), base=base, **o) for o in ({}, published))
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("base", "mix"), ARMS)
def test_the_network_and_the_world_s_randomness_are_left_alone(x, y, base, mix):
    model = toy().train()
    model.conv2.eval()
    model.head.weight.requires_grad_(False)
    model.conv1.weight.grad = torch.ones_like(model.conv1.weight)
    before, pixels = state_of(model), x.clone()
    for seed in (HEADS, TAILS):
        objective.train(model, x, y, moment(seed, signs(x)), base=base, mix=mix, **SHORT)
    assert same_state(before, state_of(model)) and torch.equal(pixels, x) and not x.requires_grad


@pytest.mark.parametrize("epoch", [0, 5])
def test_what_is_wrong_is_refused_in_the_first_batch(epoch):
    """Also where the first epoch would not ask: its share of random signs is 1."""
    x, y = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1])

    def call(maps=None, **options):
        objective.train(toy(), x, y, Moment(epoch, 0, 1, 0.0, torch.Generator().manual_seed(0), 10, maps), **options)

    for options, message in (
        ({}, "needs maps"),
        ({"maps": x[:, :1]}, "a map an image"),
        ({"fresh": {"kind": "gradient"}}, "has no teacher"),
        ({"mix": "none", "base": "pgd", "alpha10": 5.0}, "lies in"),
        ({"mix": "uniform", "eps": -0.1}, "eps = -0.1"),
        ({"mix": "uniform", "eps": math.nan}, "eps = nan"),
        ({"mix": "none", "beta": math.nan}, "beta = nan"),
    ):
        with pytest.raises(ValueError, match=message):
            call(**options)
