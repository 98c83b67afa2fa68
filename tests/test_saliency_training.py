"""Saliency-based training by hand and against a twin in loops: the curriculum, the ball, the coin, TRADES, whole runs."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lib import attacks, paths, teacher_maps, training
from lib import saliency_training as sat
from lib.training import Moment, TrainConfig, trained
from tests.conftest import same_state, state_of, toy

D = torch.float64
SHORT = {"eps": 0.1, "steps": 3, "step": 0.04}
ARMS = list(itertools.product(("plain", "pgd", "trades"), ("none", "uniform", "sat")))
SHAPES = TrainConfig(
    dataset="shapes", limit=64, size=32, batch_size=32, epochs=2, arch="plain", lr=0.01, augment=("flip", "shift"),
    objective="saliency_training:train", maps="teacher_maps:maps", maps_options={"kind": "masks"},
)  # fmt: skip
TEACHER = TrainConfig(dataset="shapes", limit=64, size=32, batch_size=32, epochs=1, arch="plain", seed=3)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def first_draw(seed):
    return torch.rand(1, generator=generator(seed)).item()


HEADS = next(s for s in range(100) if first_draw(s) < 0.5)
TAILS = next(s for s in range(100) if first_draw(s) >= 0.5)


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
    """x' as the network sees it."""
    model = Seen(toy())
    sat.train(model, x, y, m, base=base, mix=mix, **(SHORT | options))
    return model.images[-1][-len(x) :]


def test_the_curriculum_is_the_published_one():
    published = {0: 1.0, 5: 0.775, 10: 0.6, 20: 0.36, 30: 0.216, 50: 0.078, 99: 0.006}
    assert {t: round(sat.share_random(t, 100, 0.6), 3) for t in published} == published
    assert [sat.share_random(e, 20, 0.6) for e in range(20)] == pytest.approx(
        [sat.share_random(5 * e, 100, 0.6) for e in range(20)], rel=1e-12
    )
    assert {sat.share_random(e, 7, 1) for e in range(7)} == {1.0}
    assert sat.share_random(0, 5, 1e-300) == 1 and sat.share_random(1, 5, 1e-300) == 0  # the limit alpha = 0


@pytest.mark.parametrize(
    ("epoch", "alpha10", "message"),
    [(0, 0, "lies in"), (0, -0.1, "lies in"), (0, 1.1, "lies in"), (0, math.nan, "lies in"), (10, 0.6, "10 of 10"), (-1, 0.6, "-1 of")],
)  # fmt: skip
def test_a_curriculum_that_is_none_is_refused(epoch, alpha10, message):
    with pytest.raises(ValueError, match=message):
        sat.share_random(epoch, 10, alpha10)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), st.sampled_from(["signs", "released"]))
def test_perturbations_are_signs_or_minus_the_map(seed, share, kind):
    s = torch.rand(2, 3, 6, 5, generator=generator(seed + 1))
    s = (3 * s).floor() - 1 if kind == "signs" else s
    s[0, 0, 0] = 0
    delta = sat.perturbation(s, share, generator(seed))
    assert delta.shape == s.shape and delta.dtype == s.dtype
    assert ((delta.abs() == 1) | (delta == -s)).all() and (delta[s == 0].abs() == 1).all() and delta.abs().max() <= 1
    assert torch.equal(delta, sat.perturbation(s, share, generator(seed)))
    if share == 0:
        assert torch.equal(delta[s != 0], -s[s != 0])
    elif share == 1:
        assert torch.equal(delta, sat.perturbation(-s, 1, generator(seed)))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.6, 1.0])
def test_the_share_is_of_elements_and_their_signs_are_fair(share):
    """A map of halves shows which elements were random. Bounds: six standard errors."""
    s, n = torch.full((4, 3, 100, 100), 0.5), 120_000
    g = generator(1)
    delta, again = sat.perturbation(s, share, g), sat.perturbation(s, share, g)
    random = delta.abs() == 1
    assert abs(random.double().mean().item() - share) <= 6 * math.sqrt(share * (1 - share) / n)
    if share:
        assert abs(delta[random].double().mean().item()) < 6 / math.sqrt(random.sum().item())
        assert not torch.equal(delta, again)
    if 0 < share < 1:  # a pixel's channels, and two calls, are drawn apart
        for a, b in ((random[:, 0], random[:, 1]), (random, again.abs() == 1)):
            bound = 6 * math.sqrt(share**2 * (1 - share**2) / a.numel())
            assert abs((a & b).double().mean().item() - share**2) < bound


def test_where_the_map_says_nothing_the_sign_is_fair():
    delta = sat.perturbation(torch.zeros(100, 3, 20, 20), 0.0, generator())
    assert (delta.abs() == 1).all() and abs(delta.mean().item()) < 6 / math.sqrt(120_000)


def test_perturbations_need_directions_and_a_probability():
    s = torch.ones(1, 3, 4, 4)
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="is no probability"):
            sat.perturbation(s, share, generator())
    for wrong in (1.01 * s, -2 * s, s * math.nan):
        with pytest.raises(ValueError, match="binarise them first"):
            sat.perturbation(wrong, 0.5, generator())


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
    assert 0.15 < far.abs().max() <= 0.2 and 0.05 < far.abs().mean()
    torch.testing.assert_close(near, far.clamp(-0.1, 0.1))
    edge = new_images(torch.ones_like(x), y, "pgd", "sat", moment(HEADS, signs(x)), reproject=False)
    assert edge.max() == 1


@pytest.mark.parametrize("base", ["plain", "pgd", "trades"])
def test_the_noise_arms_are_what_they_say(base):
    """Uniform noise has a third of sign noise's variance; alpha10 = 1 asks no maps. Bounds: six standard errors."""
    x, y = torch.full((40, 3, 16, 16), 0.5, dtype=D), torch.zeros(40, dtype=torch.long)
    n = x.numel()
    uniform = (new_images(x, y, base, "uniform", moment(HEADS)) - x) / 0.1
    assert abs(uniform.mean().item()) < 6 * math.sqrt(1 / 3 / n)
    assert abs((uniform**2).mean().item() - 1 / 3) < 6 * math.sqrt(4 / 45 / n) and 0.99 < uniform.abs().max() <= 1 + 1e-9
    if base != "pgd":
        sign = (new_images(x, y, base, "sat", moment(HEADS, epoch=9), alpha10=1) - x) / 0.1
        torch.testing.assert_close(sign.abs(), torch.ones_like(sign))
        assert abs(sign.mean().item()) < 6 / math.sqrt(n)


def test_the_coin_is_fair():
    g, n = generator(), 4000
    assert abs(sum(sat.coin(g) for _ in range(n)) / n - 0.5) < 6 * 0.5 / math.sqrt(n)
    assert abs(sum(sat.coin(generator(s)) for s in range(n)) / n - 0.5) < 6 * 0.5 / math.sqrt(n)


@pytest.mark.parametrize("base", ["pgd", "trades"])
@pytest.mark.parametrize("mix", ["none", "uniform", "sat"])
def test_heads_attack_nothing_and_tails_do(x, y, base, mix):
    """By the passes: an attack takes its steps (TRADES' one more for the clean logits) in evaluation mode, then one trains."""
    attacked = []
    for seed in range(24):
        model = Seen(toy()).train()
        sat.train(model, x, y, moment(seed, signs(x)), base=base, mix=mix, **SHORT)
        steps = len(model.images) - 1
        attacked.append({0: False, 3 + (base == "trades"): True}[steps])
        assert model.modes == [False] * steps + [True] and len(model.images[-1]) == len(x) * (1 + (base == "trades"))
    assert attacked == [mix == "none" or first_draw(s) >= 0.5 for s in range(24)]


def test_the_divergence_of_two_classes_is_bernoulli_s():
    def of(p, q):
        return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    clean, attacked = torch.tensor([[0.0, 0.0], [1.0, 3.0]], dtype=D), torch.tensor([[0.0, math.log(3)], [1.0, 3.0]], dtype=D)
    assert sat.kl(clean, attacked).tolist() == pytest.approx([of(0.5, 0.75), 0], abs=1e-15)
    assert sat.kl(attacked, clean).tolist() == pytest.approx([of(0.75, 0.5), 0], abs=1e-15)
    assert of(0.5, 0.75) == pytest.approx(0.5 * math.log(4 / 3))


def test_trades_attack_climbs_the_divergence(smooth, x):
    options = {"eps": 0.1, "step": 0.02}
    start = sat.trades_attack(smooth, x, steps=0, generator=generator(), **options)
    noise = ((start - x)[(x > 0.01) & (x < 0.99)] / 1e-3).std().item()
    assert noise == pytest.approx(1, abs=0.1)
    found = sat.trades_attack(smooth, x, steps=8, generator=generator(), **options)
    before, after = (sat.kl(smooth(x), smooth(z)) for z in (start, found))
    assert (after > 100 * before).all()
    assert (found - x).abs().max() <= 0.1 + 1e-12 and found.min() >= 0 and found.max() <= 1


def test_beta_scales_the_divergence(x, y):
    zero, one, three = (
        sat.train(toy(), x, y, moment(HEADS, signs(x)), base="trades", mix="sat", beta=b, **SHORT) for b in (0, 1, 3)
    )
    torch.testing.assert_close(three - zero, 3 * (one - zero))
    torch.testing.assert_close(zero, -toy()(x).log_softmax(1)[range(6), y])
    assert (one > zero).all()


def climbed(value, row, start, *, eps, steps, step):
    z = (row + start.clamp(-eps, eps)).clamp(0, 1)
    for _ in range(steps):
        z = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(value(z), z)
        z = torch.minimum(torch.maximum(z + step * gradient.sign(), row - eps), row + eps).clamp(0, 1)
    return z.detach()


def twin(model, x, y, s, g, *, base, mix, share, beta, reproject, eps, steps, step):
    """The losses image by image and element by element, with the draws in the kernel's order."""

    def log_p(z):
        return model(z[None])[0].log_softmax(0)

    def divergence(row, z):
        return (log_p(row).detach().exp() * (log_p(row).detach() - log_p(z))).sum()

    attack = mix == "none" or (base != "plain" and torch.rand(1, generator=g).item() >= 0.5)
    if attack:
        draws = torch.randn(x.shape, generator=g).to(x) if base == "trades" else torch.rand(x.shape, generator=g).to(x)
        start = {"plain": None, "pgd": (2 * draws - 1) * eps, "trades": 1e-3 * draws}[base]
        rule = {"eps": eps, "steps": steps, "step": step}
        z = [
            row if base == "plain"
            else climbed(lambda v, c=y[n]: -log_p(v)[c], row, start[n], **rule) if base == "pgd"
            else climbed(lambda v, r=row: divergence(r, v), row, start[n], **rule)
            for n, row in enumerate(x)
        ]  # fmt: skip
    else:
        random = mix == "sat" and torch.rand(x.shape, generator=g).flatten().tolist()
        sign = mix == "sat" and (2 * torch.randint(0, 2, x.shape, generator=g) - 1).flatten().tolist()
        noise = ((2 * torch.rand(x.shape, generator=g).to(x) - 1) * eps).flatten().tolist()
        found = []
        for i, (pixel, direction) in enumerate(zip(x.flatten().tolist(), s.flatten().tolist(), strict=True)):
            move = noise[i] if mix == "uniform" else 0.0
            if mix == "sat":
                move = eps * (sign[i] if random[i] < share or direction == 0 else -direction)
                if base == "pgd":
                    move += noise[i]
                    move = min(max(move, -eps), eps) if reproject else move
            found.append(min(max(pixel + move, 0.0), 1.0))
        z = torch.tensor(found, dtype=x.dtype).view(x.shape)
    if base == "trades":
        return torch.stack([-log_p(row)[c] + beta * divergence(row, v) for row, v, c in zip(x, z, y, strict=True)])
    return torch.stack([-log_p(v)[c] for v, c in zip(z, y, strict=True)])


@pytest.mark.parametrize(("base", "mix"), ARMS)
@pytest.mark.parametrize(("seed", "reproject"), [(HEADS, True), (TAILS, True), (HEADS, False)])
def test_each_loss_is_the_table_s(x, y, base, mix, seed, reproject):
    model, s = toy(), signs(x)
    options = SHORT | {"base": base, "mix": mix, "beta": 2.5, "reproject": reproject}
    found = sat.train(model, x, y, moment(seed, s, epoch=3), alpha10=0.7, **options)
    assert found.shape == (6,) and found.requires_grad
    torch.testing.assert_close(found, twin(model, x, y, s, generator(seed), share=0.7**3, **options))


class Linear(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return (x - 0.5).flatten(1) @ self.weight.T


@pytest.mark.parametrize("seed", range(3))
def test_of_two_opposed_classes_minus_the_gradient_is_the_shortest_way_out(seed):
    """And minus its sign under L-infinity: no other of many directions reaches the boundary sooner."""
    w = torch.randn(12, generator=generator(seed), dtype=D)
    model, x = Linear(torch.stack([-w, w])), torch.rand(1, 3, 2, 2, generator=generator(seed), dtype=D)
    label = model(x).argmax(1)
    s = teacher_maps.attribution(model, x, label, "gradient")
    gap = model(x).abs()[0, 0].item()
    others = torch.randn(4000, 12, generator=generator(9), dtype=D)
    directions = {2: -s / s.norm(), math.inf: sat.perturbation(s.sign(), 0.0, generator())}
    for norm, best in directions.items():
        reach = gap / (w.norm().item() if norm == 2 else w.abs().sum().item())
        assert model(x + reach * best)[0].tolist() == pytest.approx([0, 0], abs=1e-12)
        assert model(x + 0.999 * reach * best).argmax(1) == label
        away = others / torch.linalg.vector_norm(others, norm, dim=1, keepdim=True) * 0.999 * reach
        assert (model(x + away.view(-1, 3, 2, 2)).argmax(1) == label).all()


def test_where_classes_compete_minus_the_gradient_is_not():
    """The way to class j goes along s_j - s_i; here s_j is much the longer, so that -s is far from it."""
    weight = torch.tensor([[1.0, 0, 0, 0], [0, 4, 0, 0], [-9, 0, 0, 0]], dtype=D)
    model, x = Linear(weight), torch.tensor([0.9, 0.55, 0.5, 0.5], dtype=D).view(1, 1, 2, 2)
    label = model(x).argmax(1)
    s = teacher_maps.attribution(model, x, label, "gradient")
    along = -s / s.norm()
    best = (weight[1] - weight[0]).view(1, 1, 2, 2) / (weight[1] - weight[0]).norm()
    reach = 1.0001 * (model(x)[0, 0] - model(x)[0, 1]) / (weight[1] - weight[0]).norm()
    assert label == 0 and model(x + reach * best).argmax(1) == 1 and model(x + 4 * reach * along).argmax(1) == 0


def test_augmentation_moves_maps_with_their_images():
    x = torch.rand(40, 3, 12, 12, generator=generator())
    moved, maps = training._moved(x, x.clone(), SHAPES, generator(5))
    assert torch.equal(moved, maps) and not torch.equal(moved, x)
    alone, none = training._moved(x, None, SHAPES, generator(5))
    assert torch.equal(alone, moved) and none is None
    still = SHAPES.model_copy(update={"maps_follow": False})
    moved, maps = training._moved(x, x.clone(), still, generator(5))
    assert torch.equal(moved, alone) and torch.equal(maps, x)


def weights(network):
    return [v.clone() for v in network.model.state_dict().values()]


@pytest.mark.parametrize("arm", ["masks", "gradient", "fresh"])
def test_a_run_hands_on_maps_that_were_moved_with_their_images(home, monkeypatch, arm):
    """Every batch: the object's place in the mask, or the teacher's own gradient of the batch where maps are fresh."""
    seen, train, made = [], sat.train, []

    def recording(model, x, y, m, **options):
        seen.append((x.clone(), m.maps, m.teacher, m.epochs))
        return train(model, x, y, m, **options)

    def making(*args, **options):
        made.append(args[1].clone())
        return directions(*args, **options)

    directions = teacher_maps.directions
    monkeypatch.setattr(sat, "train", recording)
    monkeypatch.setattr(teacher_maps, "directions", making)
    taught = {"teacher": TEACHER, "augment": (), "maps_options": {"kind": "gradient"}}
    fresh = {"teacher": TEACHER, "maps": None, "maps_options": {}, "options": {"fresh": {"kind": "gradient"}}}
    config = SHAPES.model_copy(update={"masks": {}, "gradient": taught, "fresh": fresh}[arm])
    assert [row["epoch"] for row in trained(config).history] == [1, 2] and len(seen) == 4
    data = training._data("shapes", "train", 32, 3, 64)
    for x, maps, teacher, epochs in seen:
        assert epochs == 2
        if arm == "masks":
            assert set(maps.unique().tolist()) == {-1, 1} and torch.equal(maps[:, :1].expand_as(maps), maps)
            whole = {tuple(m.flip(*f)[2:-2, 2:-2].flatten().tolist()) for m in data.masks for f in ((), (1,))}
            shifted = maps[0, 0] > 0
            windows = (shifted[i : i + 28, j : j + 28] for i in range(5) for j in range(5))
            assert any(tuple(w.flatten().tolist()) in whole for w in windows)
        elif arm == "gradient":
            n = [(data.images == row).flatten(1).all(1).nonzero().item() for row in x]
            torch.testing.assert_close(maps, directions(teacher, x, data.labels[n], kind="gradient"))
    if arm == "fresh":  # random signs alone in the first epoch
        assert [torch.equal(a, b[0]) for a, b in zip(made, seen[2:], strict=True)] == [True, True]


@pytest.mark.parametrize("base", ["plain", "pgd"])
def test_a_resumed_run_equals_an_unbroken_one(home, base):
    class Stop(Exception):
        pass

    def stop(row):
        if row["epoch"] == 2:
            raise Stop

    options = {"base": base, "steps": 1, "alpha10": 0.1, "fresh": {"kind": "smoothgrad", "n": 2}}
    config = SHAPES.model_copy(update={"epochs": 3, "teacher": TEACHER, "maps": None, "maps_options": {}, "options": options})
    whole = trained(config)
    whole.path.unlink()
    with pytest.raises(Stop):
        trained(config, on_epoch=stop)
    assert list(paths.models().glob("*.partial.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(trained(config)), strict=True))
