"""The table of attacks: every row against its kernel, the size of its noise, names, menus, a row more."""

import math

import pytest
import torch
from torch import nn

from lib.attacks import by_name, projected, single_step, unforeseen
from lib.attacks.by_name import ATTACKS, Attack
from lib.attacks.steps import AttackResult
from lib.fooling import interpretation_attack
from tests.conftest import same_state, state_of

EPS = 0.1


def drawn(seed=0):
    return torch.Generator().manual_seed(seed)


def aimed(y):
    return (y + 1) % 4


def l2(model, x, y, targets, steps, generator):
    return projected.pgd(
        model, x, targets, eps=EPS, steps=steps, step=EPS / 5, norm="l2", targeted=True, judge=False, generator=generator
    ).x_adv


# What each row is by its kernel: (model, x, y, targets or None, generator) -> images
KERNELS = {
    "none": lambda m, x, y, t, g: x,
    "noise": lambda m, x, y, t, g: single_step.step_along(x, single_step.random_sign(x, g), EPS),
    "fgsm": lambda m, x, y, t, g: single_step.fgsm(m, x, y if t is None else t, eps=[EPS], targeted=t is not None)[0].x_adv,
    "pgd": lambda m, x, y, t, g: (
        projected.pgd(
            m, x, y if t is None else t, eps=EPS, steps=3, step=0.02, targeted=t is not None, judge=False, generator=g
        ).x_adv
    ),
    "gabor": lambda m, x, y, t, g: unforeseen.gabor(m, x, y, eps=EPS, steps=3, step=0.02, targets=t, generator=g).x_adv,
    "snow": lambda m, x, y, t, g: unforeseen.snow(m, x, y, eps=EPS, steps=3, step=0.02, targets=t, generator=g).x_adv,
    **{
        f"jpeg-{n}": lambda m, x, y, t, g, n=n: (
            unforeseen.jpeg_attack(m, x, y, eps=EPS, norm=n, steps=3, targets=t, generator=g).x_adv
        )
        for n in ("linf", "l2", "l1")
    },
}


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", KERNELS)
def test_a_row_is_its_kernel(model, x, y, name, targeted):
    targets = aimed(y) if targeted else None
    for given, own in ((drawn(3), drawn(3)), (None, drawn())):  # none: a fresh generator, seeded with 0
        found = by_name.find(name)(model, x, y, eps=EPS, steps=3, step=0.02, targets=targets, generator=given)
        assert torch.equal(found.x_adv, KERNELS[name](model, x, y, targets, own))
        assert isinstance(found, AttackResult) and (found.success is None) == (name not in unforeseen.ATTACKS)


def test_rows_in_the_l2_ball(model, x, y):
    x, t, size = 0.3 + 0.4 * x, aimed(y), math.sqrt(x[0].numel())
    pushed = {
        n: by_name.find(f"{n}-l2")(model, x, y, eps=EPS, steps=4, step=EPS / 5, targets=t).x_adv
        for n in ("noise", "fgsm", "pgd")
    }
    for name in ("noise", "fgsm"):  # far from the borders of [0, 1] nothing is cut
        torch.testing.assert_close((pushed[name] - x).flatten(1).norm(dim=1), torch.full_like(x[:, 0, 0, 0], EPS))
    torch.testing.assert_close(pushed["fgsm"], x - EPS / size * single_step.fgsm_direction(model, x, t)[0])
    assert torch.equal(pushed["pgd"], l2(model, x, y, t, 4, drawn()))
    draw = torch.randn(x.shape, generator=drawn()).to(x)
    torch.testing.assert_close(pushed["noise"], x + EPS * draw / draw.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
    assert {a.name for a in ATTACKS.rows if a.norm == "l2"} == {"noise-l2", "fgsm-l2", "pgd-l2"}


@pytest.mark.parametrize("name", ATTACKS)
def test_at_radius_zero_nothing_moves_and_the_model_is_left_as_it_was(model, x, y, name):
    model.train()
    model.conv2.eval()
    before = state_of(model)
    found = by_name.find(name)(model, x, y, eps=0.0, steps=2).x_adv
    assert same_state(before, state_of(model))
    if name != "snow" and not name.startswith("jpeg"):  # which whiten and round whatever the radius
        torch.testing.assert_close(found, x)


def test_every_row_is_checked_as_its_kernel_is(model, x, y):
    for name in set(ATTACKS) - {"none"}:
        with pytest.raises(ValueError, match="images range over"):
            by_name.find(name)(model, 2 * x, y, eps=EPS, steps=2)
        with pytest.raises(ValueError, match="eps is -1"):
            by_name.find(name)(model, x, y, eps=-1.0, steps=2)


def test_names_that_no_row_has_are_refused_with_what_is_like_them():
    for name, message in (
        ("pdg", "unknown attack 'pdg'; did you mean pgd.* There are none, noise, fgsm, pgd"),
        ("jpeg", r"unknown attack 'jpeg'; did you mean jpeg-l2 or jpeg-l1 or jpeg-linf or"),
        ("PGD (10 steps)", "unknown attack"),
        ("", "unknown attack ''; There are"),
    ):
        with pytest.raises(ValueError, match=message):
            by_name.find(name)


def test_menus_are_selections_of_the_table():
    assert ATTACKS.menu("pgd", "noise") == {"PGD": "pgd", "random signs": "noise"}
    assert list(ATTACKS.labels("noise-l2", "pgd-l2").values()) == ["random direction", "PGD (L2)"]
    assert set(unforeseen.ATTACKS) < set(ATTACKS)
    with pytest.raises(ValueError, match="fgsm, fgsm-l2 are called alike"):
        ATTACKS.menu("fgsm", "fgsm-l2")
    with pytest.raises(ValueError, match="unknown attack 'cw'"):
        ATTACKS.menu("pgd", "cw")


def test_an_attack_costs_one_function_and_one_row(model, x, y):
    def darker(model, x, y, *, eps):
        return AttackResult((x - eps).clamp(0, 1), None, None, None)

    table = ATTACKS.plus(Attack("darker", "a shadow", darker))
    assert torch.equal(table.find("darker")(model, x, y, eps=EPS, steps=9, targets=y).x_adv, (x - EPS).clamp(0, 1))
    assert table.menu("darker") == {"a shadow": "darker"} and "darker" not in ATTACKS


@pytest.mark.parametrize("form", interpretation_attack.LABELS)
def test_attacks_on_explanations_continue_the_table(model, x, y, form):
    model.stages = ("act2",)
    table = ATTACKS.plus(*interpretation_attack.attacks(k=3))
    found = table.find(form)(model, x, y, eps=EPS, steps=3, step=0.02, generator=drawn(5)).x_adv
    expected = interpretation_attack.aai(model, x, y, eps=EPS, form=form, k=3, steps=3, step=0.02, generator=drawn(5)).x_adv
    assert torch.equal(found, expected) and not torch.equal(found, x)


def test_what_an_attack_takes_is_read_from_its_function():
    taken = {name: ATTACKS.find(name).takes for name in ("none", "noise", "fgsm", "pgd-l2", "gabor")}
    assert taken == {
        "none": (),
        "noise": ("eps", "generator"),
        "fgsm": ("eps", "targets"),
        "pgd-l2": ("eps", "steps", "step", "targets", "generator"),
        "gabor": ("eps", "steps", "step", "targets", "generator"),
    }


def test_unless_told_an_attack_takes_its_own_number_of_steps(model, x, y, monkeypatch):
    """Those of Kang et al. have a fixed length: in 20 of their 200 they would go a tenth of the way."""
    own = {row.name: row.steps for row in ATTACKS.rows}
    kang = dict.fromkeys(unforeseen.ATTACKS, 200)
    assert own == {"pgd": 20, "pgd-l2": 20, **kang} | {n: 1 for n in own if n not in {"pgd", "pgd-l2", *kang}}
    taken = []
    monkeypatch.setattr(unforeseen, "_optimise", lambda *given, **_: taken.append(given) or AttackResult(x, None, None, None))
    by_name.find("gabor")(model, x, y, eps=EPS)
    assert 200 in [one for one in taken[0] if isinstance(one, int)]


@pytest.mark.parametrize("name", [row.name for row in ATTACKS.rows])
def test_images_of_an_attack_hang_on_no_graph(model, x, y, name):
    assert not by_name.find(name)(model, x.clone().requires_grad_(), y, eps=EPS, steps=1).x_adv.requires_grad


@pytest.mark.parametrize("name", unforeseen.ATTACKS)
def test_what_weakens_an_unforeseen_attack_is_told(model, x, y, name):
    told = by_name.find(name)(nn.Sequential(model, nn.Softmax(1)), x, y, eps=EPS, steps=1).warnings
    assert any("remove the softmax" in text for text in told)
    assert by_name.find(name)(model, x, y, eps=EPS, steps=1).warnings == ()
