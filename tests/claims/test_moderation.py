"""Variances moderated by those of other arms: Smyth's estimator, its limits, and how often intervals cover the truth."""

import math

import numpy as np
import pytest
import scipy.stats
from scipy.special import digamma, polygamma

from lib.claims import intervals, moderation
from lib.claims.moderation import Moderated


def test_a_variance_is_drawn_to_the_prior_by_its_degrees_of_freedom():
    found = moderation.prior([0.5, 2.0, 8.0, 0.1], [2, 2, 2, 2])
    assert found is not None and 0 < found.df < math.inf
    got = moderation.moderate([0.5, 2.0, 8.0, 0.1], [2, 2, 2, 2])
    for m, s2 in zip(got, [0.5, 2.0, 8.0, 0.1], strict=True):
        assert m.variance == pytest.approx((found.df * found.variance + 2 * s2) / (found.df + 2))
        assert m.df == pytest.approx(min(found.df + 2, 8))


def test_the_prior_solves_smyths_equations():
    """Mean and variance of log s^2 as the fitted prior has them: digamma and trigamma, written out."""
    rng = np.random.default_rng(3)
    s2 = 0.3 * scipy.stats.f(4, 7).rvs(size=40, random_state=rng)
    d0, s0 = moderation.prior(list(s2), [4] * 40)
    z = np.log(s2)
    assert z.var(ddof=1) == pytest.approx(polygamma(1, 2) + polygamma(1, d0 / 2), rel=1e-6)
    assert z.mean() == pytest.approx(np.log(s0) + digamma(2) - np.log(2) - digamma(d0 / 2) + np.log(d0 / 2), rel=1e-6)


def test_equal_variances_are_pooled_and_never_have_more_freedom_than_all_together():
    got = moderation.moderate([1.0, 1.1, 0.9], [2, 2, 2])
    assert [m.variance for m in got] == pytest.approx([1.0] * 3) and {m.df for m in got} == {6.0}
    assert {m.df for m in moderation.moderate([1.0, 1.1, 0.9], [2, 2, 2], most=4)} == {4.0}


def test_one_run_takes_the_variance_of_the_others_and_nothing_takes_nothing():
    pooled, alone = moderation.moderate([1.0, 1.2, 0.0], [2, 2, 0])[2], moderation.moderate([0.0], [0])
    assert pooled is not None and pooled.variance == pytest.approx(1.1) and alone == [None]
    assert moderation.moderate([0.7, 0.0], [2, 0]) == [Moderated(0.7, 2), None]  # one variance is no prior


def worlds(runs, arms, interaction, seed_sd, count=120, images=80):
    """(value, moderated interval) of arms whose truth is 0; of single runs those beside arms of three."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        sizes = [runs] * arms + ([3] * arms if runs == 1 else [])
        values = [
            rng.normal(0, seed_sd, (m, 1)) + rng.normal(0, 1, (1, images)) + rng.normal(0, interaction, (m, images))
            for m in sizes
        ]
        found = [intervals.parts(intervals.over(v), images=images, seeds=len(v), draws=100) for v in values]
        seen = moderation.moderate([f.variance for f in found], [f.runs - 1 for f in found])
        yield from (f.interval(s) for f, s in zip(found[:arms], seen[:arms], strict=True))


@pytest.mark.parametrize("interaction", [0.0, 0.4])
@pytest.mark.parametrize("runs", [1, 3, 5, 10])
def test_intervals_cover_the_truth_as_often_as_they_say(runs, interaction):
    """Images and training runs vary, and both together: 95 % intervals hold the truth in .93 to .97 of 480 arms."""
    covered = [i.low <= 0 <= i.high for i in worlds(runs, 4, interaction, 0.15)]
    assert 0.93 - 0.01 <= np.mean(covered) <= 0.97 + 0.01, np.mean(covered)  # and the simulation's own error of .01


def test_without_the_others_three_runs_give_wider_intervals():
    rng = np.random.default_rng(1)
    found = [
        intervals.parts(intervals.over(rng.normal(0, 0.3, (3, 1)) + rng.normal(0, 1, (1, 60))), images=60, seeds=3, draws=100)
        for _ in range(12)
    ]
    seen = moderation.moderate([f.variance for f in found], [2] * 12)
    own, moderated = (
        np.mean([i.high - i.low for i in each])
        for each in ([f.interval() for f in found], [f.interval(s) for f, s in zip(found, seen, strict=True)])
    )
    assert moderated < 0.8 * own


def test_intervals_of_alike_arms_are_moderated_together():
    rng = np.random.default_rng(3)
    values = [0.5 + 0.02 * rng.normal(size=(runs, 1)) + 0.1 * rng.normal(size=(1, 80)) for runs in (3, 3, 3, 1)]
    found = [intervals.parts(intervals.over(v), images=80, seeds=len(v)) for v in values]
    seen = moderation.moderate([f.variance for f in found], [2, 2, 2, 0])
    assert intervals.together(found) == [f.interval(s) for f, s in zip(found, seen, strict=True)]
    alone = found[3].interval()
    assert intervals.together(found)[3].high - intervals.together(found)[3].low > alone.high - alone.low
