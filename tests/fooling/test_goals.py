"""What attacks on maps climb: hand-computed values, loops in float64, derivatives."""

import math

import pytest
import torch
from scipy import stats

from lib.fooling import goals
from lib.fooling.goals import GOALS
from lib.measures import comparison

M0 = torch.tensor([[[4.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]], dtype=torch.float64)
M = torch.tensor([[[0.0, 0.0], [0.0, 2.0]], [[2.0, 0.0], [1.0, 1.0]]], dtype=torch.float64)


def some(n=3, h=7, w=9, seed=0):
    return torch.rand(n, h, w, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_by_hand():
    torch.testing.assert_close(goals.mass_moved(M, M0), torch.tensor([1.0, 0.25], dtype=torch.float64))
    torch.testing.assert_close(goals.top_lost(M, M0), torch.tensor([1.0, 0.5], dtype=torch.float64))  # the first of the equal
    torch.testing.assert_close(goals.centre_moved(M, M0)[0], torch.tensor(1.0, dtype=torch.float64))  # from corner to corner
    # (0, -1/4) rows, columns: half of the mass in the left column more than before would be 1/2
    torch.testing.assert_close(goals.centre_moved(M, M0)[1], torch.tensor(0.25 / math.sqrt(2), dtype=torch.float64))
    torch.testing.assert_close(goals.towards(M0, M0, M), torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(goals.towards(M, M0, M), torch.ones(2, dtype=torch.float64))


def test_twins():
    m, m0, given = some(seed=1), some(seed=2), some(seed=3)
    for i in range(len(m)):
        a, b, t = (v[i].flatten().tolist() for v in (m, m0, given))
        a, b, t = ([v / sum(values) for v in values] for values in (a, b, t))
        assert goals.mass_moved(m, m0)[i].item() == pytest.approx(sum(abs(u - v) for u, v in zip(a, b, strict=True)) / 2)
        top = sorted(range(len(b)), key=lambda k: -b[k])[: math.ceil(0.1 * len(b))]
        assert goals.top_lost(m, m0)[i].item() == pytest.approx(1 - sum(a[k] for k in top))
        own, whole = (sum((u - v) ** 2 for u, v in zip(p, t, strict=True)) for p in (a, b))
        assert goals.towards(m, m0, given)[i].item() == pytest.approx(1 - own / whole)
    shift = comparison.centroid_shift(m, m0) / math.hypot(6, 8)
    torch.testing.assert_close(goals.centre_moved(m, m0), shift)


def test_soft_ranks_are_ranks_in_the_limit(monkeypatch):
    """With many quantiles r is Spearman's correlation (scipy's)."""
    m, m0 = some(seed=4), some(seed=5) + 0.5 * some(seed=4)
    wanted = torch.tensor([stats.spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(m, m0, strict=True)])
    coarse = 1 - 2 * goals.ranks_moved(m, m0)
    assert (coarse - wanted).abs().max() < 0.05
    monkeypatch.setattr(goals, "QUANTILES", 2000)
    torch.testing.assert_close(1 - 2 * goals.ranks_moved(m, m0), wanted, rtol=0, atol=0.002)


@pytest.mark.parametrize("goal", GOALS.rows, ids=lambda g: g.name)
def test_what_all_have_in_common(goal):
    m, m0 = some(seed=6), some(seed=7)
    given = (some(seed=8),) if goal.aimed else ()
    value = goal.function(m, m0, *given)
    assert value.shape == (3,) and (value <= 1).all()
    scaled = goal.function(3 * m, 5 * m0, *given)
    torch.testing.assert_close(scaled, value)  # of distributions
    torch.testing.assert_close(
        value, torch.cat([goal.function(m[i : i + 1], m0[i : i + 1], *(g[i : i + 1] for g in given)) for i in range(3)])
    )
    if goal.name != "topk":
        assert goal.function(m0, m0, *given).abs().max() < 1e-6
    assert goal.function(torch.zeros_like(m), m0, *given).isfinite().all()
    # a step along the gradient goes farther
    z = m.clone().requires_grad_()
    (slope,) = torch.autograd.grad(goal.function(z, m0, *given).sum(), z)
    assert (goal.function((m + 1e-3 * slope / slope.abs().amax()).clamp_min(0), m0, *given) > value).all()


@pytest.mark.parametrize("goal", [g for g in GOALS.rows if g.name != "ranks"], ids=lambda g: g.name)
def test_derivatives(goal):
    m0, given = some(seed=7), ((some(seed=8),) if goal.aimed else ())
    assert torch.autograd.gradcheck(lambda m: goal.function(m, m0, *given), some(seed=6).requires_grad_())


def test_one_position_has_no_centre():
    with pytest.raises(ValueError, match="1 x 1 positions"):
        goals.centre_moved(torch.ones(2, 1, 1), torch.ones(2, 1, 1))
