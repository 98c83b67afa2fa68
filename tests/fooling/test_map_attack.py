"""Attacks on explanations: what they must keep, what they must find, what they cost, and when they say that they are weak."""

import gc
import re
import weakref
from typing import ClassVar

import pytest
import torch
from torch import nn

from lib.attacks import random_sign, step_along
from lib.attacks.losses import margin
from lib.explanations import Settings, by_name
from lib.fooling import map_attack
from lib.fooling.goals import GOALS
from lib.measures import comparison
from lib.networks import rectifiers
from lib.system import paths
from lib.system.flops import flops
from tests.conftest import Breaks, same_state, state_of, toy

AT = Settings("act2", n=2, steps=3)
INTO = AT._replace(layer="into:conv2")
EPS = 0.05


def at(name):
    return INTO if name in ("lrp_t", "simple_t") else AT


def attack(model, x, name, **options):
    return map_attack.move_maps(model, x, name, **{"eps": EPS, "settings": at(name), "steps": 12, "stages": 4} | options)


@pytest.mark.parametrize("name", by_name.DIFFERENTIABLE)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_ball_the_box_and_the_decision_are_kept(model, x, name, norm):
    before = state_of(model)
    eps = EPS if norm == "linf" else 0.5
    found = attack(model, x, name, norm=norm, eps=eps)
    assert same_state(before, state_of(model))
    change = (found.x_adv - x).flatten(1)
    assert (change.abs().amax(1) if norm == "linf" else change.norm(dim=1)).max() <= eps + 1e-9
    assert found.x_adv.min() >= 0 and found.x_adv.max() <= 1
    y = model(x).argmax(1)
    assert torch.equal(model(found.x_adv).argmax(1), y)
    # what is told is what the network itself shows
    for images, maps in ((x, found.before), (found.x_adv, found.after)):
        torch.testing.assert_close(by_name.explain(name, model, images, y, at(name)).values, maps)
    torch.testing.assert_close(GOALS.find("mass").function(found.after, found.before), found.moved)
    assert torch.equal(found.found, (found.x_adv != x).flatten(1).any(1)) and found.found.any()
    assert (found.trace.diff(dim=0) >= 0).all() and torch.equal(found.trace[-1], found.moved)


@pytest.mark.parametrize("name", ["gradcam", "simple_t", "lrp", "gradient", "ig", "smoothgrad", "guided"])
def test_it_beats_what_follows_the_network_itself_and_random_signs(name):
    """An attack that does not adapt: the network's own derivatives, one step length, the last iterate."""
    model = toy(seed=5)
    x = torch.rand(12, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    own = attack(model, x, name, steps=24, stages=6)
    naive = attack(model, x, name, steps=24, stages=1, betas=None, step=2.5 * EPS / 24)
    signs = step_along(x, random_sign(x, torch.Generator().manual_seed(3)), EPS)
    noise = by_name.explain(name, model, signs, model(x).argmax(1), at(name)).values
    moved = GOALS.find("mass").function(noise, own.before)
    assert own.moved.mean() > naive.moved.mean() and own.moved.mean() > 1.2 * moved.mean()


@pytest.mark.parametrize("goal", GOALS.rows, ids=lambda g: g.name)
def test_each_goal_is_climbed(model, x, goal):
    y = model(x).argmax(1)
    own = by_name.explain("gradient", model, x, y, AT).values
    given = {"given": own.flip(2)} if goal.aimed else {}
    found = attack(model, x, "gradient", goal=goal.name, **given)
    start = goal.function(own, own, *given.values())
    assert (found.moved >= start - 1e-9).all() and found.moved.mean() > start.mean() + 0.02


@pytest.mark.parametrize("slack", [0.1, 0.99])
def test_the_twin_of_one_step(slack):
    """By hand: the gradient of the distance of the softplus network's maps (of the margin, where that is thin), its sign,
    momentum, the ball."""
    model, x = toy(seed=1), torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    found = attack(model, x, "gradient", steps=1, stages=1, betas=(7.0, 7.0), step=0.02, seed=3, slack=slack)
    y, thin = model(x).argmax(1), 0
    for i in range(2):
        key = (3 * 1_000_003 + i) % 2**63
        start = (torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(key)).double() * 2 - 1) * EPS
        z = (x[i : i + 1] + start).clamp(0, 1).requires_grad_()

        def weight(image, c=int(y[i])):
            out = model.head(soft(model.conv2(soft(model.conv1(image)))).mean((2, 3)))
            (g,) = torch.autograd.grad(out[0, c], image, create_graph=True)
            m = g[0].abs().sum(0)
            m = m - m.min()
            return m / m.sum()

        def soft(v):
            return rectifiers.softplus(v, 7.0)

        before = torch.autograd.grad(model(xi := x[i : i + 1].clone().requires_grad_())[0, y[i]], xi)[0][0].abs().sum(0)
        before = (before - before.min()) / (before - before.min()).sum()
        room = -margin(model(z), y[i : i + 1]) / -margin(model(x[i : i + 1]), y[i : i + 1])
        goal = 0.5 * (weight(z) - before).abs().sum() if room > slack else room.sum()
        thin += int(room <= slack)
        (g,) = torch.autograd.grad(goal, z)
        ahead = (x[i] + (z[0] + 0.02 * g[0].sign() - x[i]).clamp(-EPS, EPS)).clamp(0, 1)
        wanted = z[0] + 0.75 * (ahead - z[0])
        kept = model(wanted[None]).argmax(1) == y[i]
        torch.testing.assert_close(found.x_adv[i], wanted.detach() if kept else x[i])
    assert thin == (0 if slack == 0.1 else 1)


def test_no_attack_moves_the_gradient_of_a_linear_network_and_it_says_so():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4)).double().eval()
        x = torch.rand(3, 3, 8, 8, dtype=torch.float64)  # none so near to a boundary that its margin is climbed
    found = attack(net, x, "gradient", eps=1e-3)
    assert not found.found.any() and torch.equal(found.x_adv, x) and (found.moved == 0).all()
    assert found.warnings[0].startswith("the distance of gradient maps has no gradient on 3 of 3 images")
    assert "no ReLU runs where it can be seen" in found.warnings[1]
    assert found.passes < 12 * 3  # what does not move is not attacked on


def test_the_networks_own_derivatives_are_masked_and_it_says_so(model, x):
    naive = attack(model, x, "gradient", betas=None)
    assert any("no gradient on 6 of 6 images" in w for w in naive.warnings)
    assert attack(model, x, "gradient").warnings == ()


def test_a_twin_that_is_too_smooth_is_told():
    model, x = toy(seed=2), torch.rand(6, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = attack(model, x, "gradient", betas=(1e-3, 1e-3))
    assert any("smooth twin and of the network correlate by" in w for w in found.warnings)


def test_decisions_that_are_hard_to_keep_are_told(x):
    """Almost a tie: every way leads over the boundary. Without slack nothing holds it back."""
    model = toy()
    with torch.no_grad():
        model.head.weight[1] = model.head.weight[0] + 1e-6
        model.head.bias[1] = model.head.bias[0]
        model.head.bias[2:] -= 100
    found = attack(model, x, "gradcam", slack=0.0, eps=0.2)
    y = model(x).argmax(1)
    assert torch.equal(model(found.x_adv).argmax(1), y)
    assert all("keep their decision" in w for w in found.warnings)


@pytest.mark.parametrize("name", ["gradcam", "gradient"])
def test_a_batch_is_a_loop_and_a_seed_a_result(model, x, name):
    whole, small = attack(model, x, name, restarts=2), attack(model, x, name, restarts=2, batch_size=2)
    torch.testing.assert_close(whole.x_adv, small.x_adv)
    assert whole.trace.shape == (8, 6) and (whole.passes, whole.looks) == (small.passes, small.looks)
    assert not torch.allclose(attack(model, x, name, seed=1).x_adv, attack(model, x, name).x_adv)


@pytest.mark.parametrize(("passed", "together"), [(1000, 6), (6, 3), (1, 1)])
def test_of_large_images_few_are_attacked_at_once(model, x, monkeypatch, passed, together):
    """Half as many as pass a network in other attacks, and never none."""
    looked, shown = [], map_attack._Climb.shown
    monkeypatch.setattr(map_attack._Climb, "shown", lambda self, x, y: looked.append(len(x)) or shown(self, x, y))
    monkeypatch.setattr(map_attack.devices, "PIXELS_WITH_GRAPH", passed * x.shape[-1] ** 2)
    attack(model, x, "gradcam", steps=1, stages=1)
    assert max(looked) == together


def test_restarts_find_no_less(model, x):
    one, two = attack(model, x, "gradcam"), attack(model, x, "gradcam", restarts=3)
    assert (two.moved >= one.moved - 1e-12).all() and (two.moved > one.moved + 1e-6).any()


def test_steps_that_do_not_come_out_even_are_taken_too(model, x):
    """15 over 4 stages: 4, 4, 4 and 3, of every image and restart; a row of the trace for each stage of each."""
    found = attack(model, x, "smoothgrad", steps=15, stages=4, restarts=2)  # of which no image leaves early
    assert found.passes == 2 * 15 * len(x) and found.trace.shape == (2 * 4, len(x))
    assert (found.trace.diff(dim=0) >= 0).all()


def test_it_costs_what_it_must(small_plain):
    """A step: a map that is differentiated, its backward pass, one forward pass; a stage: one map."""
    x = torch.rand(2, 3, 32, 32)
    settings = Settings("stage3" if "stage3" in small_plain.stages else small_plain.stages[-1])
    y = small_plain(x).argmax(1)

    def one_step():
        z = x.clone().requires_grad_()
        with rectifiers.smoothed(small_plain, 10.0):
            m = by_name.explain("gradient", small_plain, z, y, settings, create_graph=True).values
        torch.autograd.grad(m.sum(), z)

    for p in small_plain.parameters():
        p.requires_grad_(False)
    step, forward = flops(one_step), flops(lambda: small_plain(x))
    look = flops(lambda: by_name.explain("gradient", small_plain, x, y, settings))
    # room: kept by all, so that the margin is never climbed
    spent = flops(lambda: map_attack.move_maps(small_plain, x, "gradient", eps=1e-4, settings=settings, steps=6, stages=3))
    twin = flops(lambda: smooth_map(small_plain, x, y, settings))
    assert spent == 6 * (step + forward) + (3 + 1) * look + twin


class _Held(torch.autograd.Function):
    """The identity, whose node holds a token: as long as the token lives, so does a graph."""

    live: ClassVar[list] = []

    @staticmethod
    def forward(ctx, x):
        ctx.token = _Token()
        _Held.live.append(weakref.ref(ctx.token))
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class _Token:
    pass


def test_the_graph_of_the_margin_is_gone_before_the_map_is_built(x, monkeypatch):
    net = toy()
    model = nn.Sequential(net)
    model.forward = lambda z: net(_Held.apply(z))
    alive = []
    original = map_attack._Climb.climbed

    def climbed(self, *given):
        gc.collect()
        alive.append(sum(ref() is not None for ref in _Held.live))
        return original(self, *given)

    monkeypatch.setattr(map_attack._Climb, "climbed", climbed)
    # a slack that leaves some rows unsafe, so that both branches are walked
    map_attack.move_maps(model, x, "gradient", eps=8 / 255, steps=4, stages=1, slack=0.9, betas=None)
    assert len(_Held.live) > 4 and alive and max(alive) == 0


def smooth_map(model, x, y, settings):
    with rectifiers.smoothed(model, 10.0):
        by_name.explain("gradient", model, x, y, settings, create_graph=True)


def test_after_an_exception_all_is_as_it_was(x):
    model = toy()
    broken = Breaks(model)
    before = state_of(model)
    with pytest.raises(RuntimeError, match="forced"):
        attack(broken, x, "gradient")
    assert same_state(before, state_of(model))


def test_half_precision_is_moved_in_float32(x):
    model = toy().bfloat16()
    found = attack(model, x.bfloat16(), "gradcam", settings=AT)
    assert found.x_adv.dtype == torch.bfloat16 and (found.x_adv.float() - x.bfloat16().float()).abs().max() <= EPS * 1.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "guided-gradcam++"}, r"guided Grad-CAM\+\+ is not differentiated here, so that no attack can climb it"),
        ({"name": "gradcamm"}, "unknown explanation 'gradcamm'; did you mean gradcam"),
        ({"goal": "mas"}, "unknown goal 'mas'; did you mean mass"),
        ({"goal": "towards"}, "goal 'towards' needs map to reach; given=None"),
        ({"given": torch.rand(6, 8, 8)}, "goal 'mass' takes no map to reach; given=maps"),
        ({"goal": "towards", "given": torch.rand(6, 2, 2)}, r"maps to reach have shape \(6, 2, 2\)"),
        ({"steps": 3, "stages": 4}, "steps=3, stages=4"),
        ({"restarts": 0}, "restarts=0"),
        ({"slack": 1.0}, "slack=1.0"),
        ({"betas": (5.0, 2.0)}, "the sharper one last"),
        ({"eps": 8}, "did you mean"),
        ({"step": -0.1}, "step"),
    ],
)
def test_bad_input_is_refused(model, x, options, message):
    name = options.pop("name", "gradient")
    with pytest.raises(ValueError, match=message):
        attack(model, x, name, **options)


class OneSpot(nn.Module):
    """What lies above 1/2 speaks for class 0; Grad-CAM's map is that, and class 0 wins whatever there is of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Linear(1, 2)
        with torch.no_grad():
            for weight, values in ((self.conv.weight, 1.0), (self.conv.bias, -0.5), (self.head.weight, 1.0)):
                weight.fill_(values)
            self.head.weight[1] = 0
            self.head.bias.copy_(torch.tensor([1.5, 0.0]))

    def forward(self, x):
        return self.head(self.act(self.conv(x)).mean((2, 3)))


def spot():
    x = torch.full((1, 1, 8, 8), 0.1, dtype=torch.float64)
    x[0, 0, 2, 3] = 0.6
    options = {"eps": 0.2, "goal": "topk", "settings": Settings("act"), "steps": 12, "stages": 12}
    return map_attack.move_maps(OneSpot().double().eval(), x, "gradcam", **options)


def test_dead_maps_do_not_count():
    """All that this attack can do is to put the spot out: what has no map left explains nothing, and is not farther."""
    found = spot()
    assert not found.found.any() and (found.x_adv == found.x_adv[0, 0, 0, 0]).sum() == 63
    assert float(found.moved) == 0 and not comparison.degenerate(found.after).any()


def test_what_finds_nothing_steps_shorter_and_ends():
    """Half as long after each stage: after seven a step is below a 64th of the first, and five stages are saved."""
    assert spot().passes == 7


def test_the_readmes_example_runs(model, x):
    text = (paths.PROJECT / "README.md").read_text(encoding="utf-8").partition("## Attack an explanation")[2]
    scope = {"model": model, "images": x}
    exec(re.search(r"```python\n(.*?)```", text, flags=re.DOTALL)[1], scope)
    assert scope["found"].found.any() and scope["found"].warnings == ()
