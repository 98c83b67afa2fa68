import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch

from lib.claims import claim, intervals, measures
from lib.claims.claim import Rule
from lib.claims.cubes import Cubes
from lib.claims.intervals import Interval
from lib.claims.rows import rows

ANY = measures.measure("")


@pytest.mark.parametrize(
    ("rule", "low", "high", "verdict"),
    [
        (Rule("above", 0.0), 0.1, 0.3, "supported"),
        (Rule("above", 0.0), -0.1, 0.3, "inconclusive"),
        (Rule("above", 0.0), -0.3, -0.1, "contradicted"),
        (Rule("above", 0.5), 0.1, 0.3, "contradicted"),
        (Rule("below", 0.0), -0.3, -0.1, "supported"),
        (Rule("below", 0.0), 0.1, 0.3, "contradicted"),
        (Rule("below", 0.0), -0.1, 0.3, "inconclusive"),
        (Rule("within", 0.2), -0.1, 0.2, "supported"),
        (Rule("within", 0.2), 0.3, 0.4, "contradicted"),
        (Rule("within", 0.2), -0.1, 0.4, "inconclusive"),
        (Rule("above", 0.0), math.nan, math.nan, "not tested"),
    ],
)
def test_verdicts_follow_from_the_interval(rule, low, high, verdict):
    assert rule.judge(Interval((low + high) / 2, low, high, "")) == verdict


def test_over_images_alone_it_is_the_standard_error_of_a_mean():
    values = np.random.default_rng(1).normal(size=400)
    found = intervals.interval(lambda i, s: values[i].mean(), ANY, images=400, seeds=1, draws=2000)
    t = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((t.low, t.high), abs=0.01)
    assert "spread over seeds unknown" in found.n


def test_over_seeds_alone_it_is_students_t():
    by_seed = np.array([1.0, 2.0, 4.0])
    found = intervals.interval(lambda i, s: by_seed[s].mean(), ANY, images=50, seeds=3)
    t = scipy.stats.ttest_1samp(by_seed, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((t.low, t.high), rel=1e-9)


def test_a_mean_over_pairs_varies_more_than_its_images_means_would():
    """g(i, j) = u_i + u_j + noise: the mean over pairs is twice that of u, so that its standard error is twice theirs."""
    rng = np.random.default_rng(0)
    found, said = [], []
    for _ in range(150):
        u, noise = rng.standard_normal(40), 0.1 * rng.standard_normal((40, 40))
        pairs = u[:, None] + u[None, :] + (noise + noise.T) / 2
        np.fill_diagonal(pairs, 0)
        means = pairs.sum(1, keepdims=True).T / 39
        got = intervals.interval(intervals.over_pairs(means), ANY, images=40, seeds=1, draws=200)
        assert got.value == pytest.approx(pairs.sum() / (40 * 39))
        found.append(got.value)
        said.append((got.high - got.low) / 2 / 2.02)
    assert np.mean(said) == pytest.approx(np.std(found), rel=0.12) == pytest.approx(2 / np.sqrt(40), rel=0.12)


def test_people_with_several_pictures_are_drawn_as_people():
    """Two pictures of a person that are alike are no two people: the interval is that of the people's means."""
    people = np.random.default_rng(2).normal(size=40)
    values, units = np.repeat(people, 2), np.repeat(np.arange(40), 2)
    found = intervals.parts(
        lambda i, s: values[i].mean(), images=80, seeds=1, units=units, unit="people", draws=2000
    ).interval()
    t = scipy.stats.ttest_1samp(people, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((t.low, t.high), abs=0.02)
    assert found.n.startswith("80 images of 40 people")
    naive = intervals.interval(lambda i, s: values[i].mean(), ANY, images=80, seeds=1, draws=2000)
    assert naive.high - naive.low < 0.8 * (found.high - found.low)


@pytest.mark.parametrize(("k", "n"), [(0, 100), (100, 100), (0, 8)])
def test_shares_of_none_and_of_all_are_exact(k, n):
    values = (np.arange(n) < k).astype(float)
    found = intervals.parts(lambda i, s: values[i].mean(), images=n, seeds=1, of=measures.measure("share")).interval()
    exact = scipy.stats.binomtest(k, n).proportion_ci(method="exact")
    if k:
        assert found.high == 1 and found.low <= exact.low + 1e-12 and found.low == pytest.approx(exact.low, abs=0.02)
    else:
        assert found.low == 0 and found.high >= exact.high - 1e-12 and found.high == pytest.approx(exact.high, abs=0.02)


@pytest.mark.parametrize(("name", "difference"), [("share", False), ("correlation", False), ("share", True)])
def test_intervals_stay_within_their_range(name, difference):
    of = measures.measure(name, difference=difference)
    values = np.full((3, 12), of.high)
    values[:, 0], values[0, 1] = of.low, (of.low + of.high) / 2  # nearly all are at the end
    found = intervals.parts(intervals.over(values), images=12, seeds=3, of=of).interval()
    assert of.low < found.low < found.value < found.high < of.high
    assert intervals.interval(intervals.over(values), ANY, images=12, seeds=3).high > of.high  # what the scale is for


@pytest.mark.parametrize(("name", "difference"), [("share", False), ("correlation", True)])
def test_shares_that_are_no_counts_stay_where_they_are(name, difference):
    """Of few pairs, a share of .999 is no count of pairs: half a pair is far more than it is away from the end."""
    of = measures.measure(name, difference=difference)
    values = of.low + (of.high - of.low) * np.array([0.3, 0.97, 0.999, 1.0, 0.0])
    back = of.back(of.out(values, 8))
    np.testing.assert_allclose(back[:3], values[:3])
    assert back[2] < back[3] < of.high and of.low < back[4] < values[0]  # and what is at an end lies beyond all others
    counts = of.low + (of.high - of.low) * np.array([1.0, 0.5])
    assert of.back(of.out(counts, 99))[0] == pytest.approx(of.high - (of.high - of.low) * 0.005)
    rounded = np.array([of.high - 1e-13, (of.low + of.high) / 2])  # at the end, but for rounding
    assert of.out(rounded, 99)[0] == pytest.approx(of.out(counts, 99)[0]) and np.isnan(of.out(math.nan, 8))


def test_the_interval_of_a_continuous_share_of_few_pairs_holds_its_truth():
    rng, truth, held = np.random.default_rng(0), 0.985, 0
    for _ in range(300):
        shares = 1 - rng.gamma(4, (1 - truth) / 4, (1, 11))
        found = intervals.parts(intervals.over(shares), images=11, seeds=1, draws=200, of=measures.measure("share")).interval()
        held += found.low <= truth <= found.high
    assert 0.9 <= held / 300 <= 0.98  # taken as half a pair from the end, it never would: .985 is nearer


@pytest.mark.parametrize(
    ("means", "most"), [([0] * 4, 0.97), ([0] * 6, 0.98), ([0] * 10, 0.99), ([0, 0, 0.1, 0.2], 0.99), ([0, 1, 1, 1, 1, 1], 1.0)]
)
def test_the_interval_of_an_extreme_holds_its_truth(means, most):
    """However many of the values are alike. The smallest of a sample is lower than that of the truth, and that of a resample
    lower still: a symmetric interval of the smallest, or a bias-corrected one, lies too low."""
    rng, held, usual, count = np.random.default_rng(0), 0, 0, 200
    truth = min(means)
    for _ in range(count):
        values = rng.normal(0, 1, (120, len(means))) + np.array(means)
        for extreme, sign in ((intervals.least, 1), (intervals.most, -1)):
            found = intervals.parts(extreme(lambda i, s, v=sign * values: v[i].mean(0)), images=120, seeds=1, draws=200)
            held += found.interval().low <= sign * truth <= found.interval().high
        plain = intervals.parts(lambda i, s, v=values: v[i].mean(0).min(), images=120, seeds=1, draws=200).interval()
        usual += plain.low <= truth <= plain.high
    assert 0.93 <= held / count / 2 <= most, (held / count / 2, usual / count)
    if len(set(means)) == 1:
        assert usual / count < 0.85  # what the interval would be without


def test_an_extreme_of_one_value_is_that_value():
    """But for the quantile of the largest deviation, which is the bootstrap's own."""
    values = np.random.default_rng(0).normal(0, 1, 200)
    one = intervals.parts(intervals.least(lambda i, s: [values[i].mean()]), images=200, seeds=1, draws=2000).interval()
    usual = intervals.parts(lambda i, s: values[i].mean(), images=200, seeds=1, draws=2000).interval()
    assert (
        one.value == usual.value
        and one.low == pytest.approx(usual.low, abs=0.01)
        and one.high == pytest.approx(usual.high, abs=0.01)
    )


def test_an_extreme_says_which_values_it_is_of():
    cells = intervals.most(lambda i, s: [i.mean(), s.mean()])
    assert (
        cells(np.array([1, 2]), np.array([5])) == 5.0 and intervals.least(cells.cells)(np.array([1, 2]), np.array([5])) == 1.5
    )
    still = intervals.parts(intervals.least(lambda i, s: [1.0, 2.0]), images=9, seeds=2).interval()
    assert (still.value, still.low, still.high) == (1.0, 1.0, 1.0)


def test_p_of_a_decision_is_the_level_at_which_its_interval_touches_the_threshold_first():
    """Of a contradicted `within` the nearer edge; of a share that cannot be negative not the edge below zero; of a share of all
    the binomial tail."""
    values = np.random.default_rng(3).normal(0.9, 0.5, 12)
    values += 0.9 - values.mean()
    found = intervals.parts(lambda i, s: values[i].mean(), images=12, seeds=1, draws=2000)
    low = found.interval().low
    edge = low - 0.01
    alike = [
        claim.p_value(found, None, rule, verdict, 0.0)
        for rule, verdict in ((Rule("within", edge), "contradicted"), (Rule("above", edge), "supported"))
    ]
    assert alike[0] == pytest.approx(alike[1]) and 0.03 < alike[0] < 0.05
    rare = np.zeros(2000)
    rare[0] = 1.0
    of = measures.measure("share")
    seen = intervals.parts(lambda i, s: rare[i].mean(), images=2000, seeds=1, of=of)
    assert Rule("above", 0.0).judge(seen.interval(), of.delta) == "negligible"
    assert claim.p_value(seen, None, Rule("above", 0.0), "negligible", of.delta) < 1e-3
    every = intervals.parts(lambda i, s: 1.0, images=5, seeds=1, of=of)
    assert every.interval().low == pytest.approx(0.025**0.2)
    assert claim.p_value(every, None, Rule("above", 0.47), "supported", 0.0) == pytest.approx(2 * 0.47**5)
    touched = claim.p_value(every, None, Rule("above", every.interval().low), "supported", 0.0)
    assert touched == pytest.approx(0.05)
    none = intervals.parts(lambda i, s: 0.0, images=50, seeds=1, of=measures.measure("share", difference=True))
    high = none.interval().high
    assert claim.p_value(none, None, Rule("below", high), "supported", 0.0) == pytest.approx(0.05)


def test_tables_have_the_intervals_of_claims():
    """No share leaves [0, 1]; none of the images is not nothing; image by image, what one side lacks leaves no gap."""
    right = (np.arange(40) < 2).astype(float)
    table = pd.concat(
        rows(arm, seed, "right", 0, torch.tensor(right if arm == "few" else right * 0))
        for arm in ("few", "none")
        for seed in (0, 1)
    )
    cubes = Cubes.of(table)
    few, none = (cubes.interval(cubes.mean(arm, "right"), "right", 2, "share") for arm in ("few", "none"))
    assert 0 < few.low < 0.05 < few.high < 0.25 and intervals.side(few) == few.high - few.value
    assert none.low == 0 and none.high == pytest.approx(1 - 0.025 ** (1 / 40))
    less = cubes.interval(cubes.less(("few", "right", 0.0), ("none", "right", 0.0)), "right", 2, "share", difference=True)
    assert -1 <= less.low < less.value == pytest.approx(0.05)
    with pytest.raises(ValueError, match="unknown measure 'shar'; did you mean share"):
        cubes.interval(cubes.mean("few", "right"), "right", 2, "shar")
    gaps = Cubes({("a", "m", 0.0): np.array([[1.0, np.nan, 3.0]]), ("b", "m", 0.0): np.array([[0.0, 9.0, 1.0], [0, 0, 0]])})
    assert gaps.less(("a", "m", 0.0), ("b", "m", 0.0))(np.arange(3), np.array([0])) == 1.5


def test_a_share_of_few_images_is_as_exact_as_these_few():
    """Of 200 images twenty count, all of them: Clopper and Pearson of twenty, not of 200."""
    few = np.full((2, 200), np.nan)
    few[:, :20] = 1.0
    found = intervals.parts(intervals.over(few), images=200, seeds=2, of=measures.measure("share"))
    assert found.interval().low == pytest.approx(0.025 ** (1 / 20)) and found.among == 20
    every = intervals.parts(intervals.over(np.ones((2, 200))), images=200, seeds=2, of=measures.measure("share"))
    assert every.interval().low == pytest.approx(0.025 ** (1 / 200))
    touched = claim.p_value(found, None, Rule("above", found.interval().low), "supported", 0.0)
    assert touched == pytest.approx(0.05)


def test_a_constant_has_no_width_and_nan_is_not_tested():
    assert intervals.interval(lambda i, s: 0.0, ANY, images=5, seeds=2) == Interval(0.0, 0.0, 0.0, "5 images, 2 seeds")
    found = intervals.interval(lambda i, s: math.nan, ANY, images=5, seeds=2)
    assert math.isnan(found.low) and Rule("above", 0).judge(found) == "not tested"
    with pytest.raises(ValueError, match="2 images and 1 seed"):
        intervals.interval(lambda i, s: 0.0, ANY, images=1, seeds=1)


def test_the_tally_counts_claims_alone():
    rows = pd.DataFrame(
        {
            "kind": ["claim", "primary", "control", "open question", "check"],
            "adjusted": ["supported", "contradicted", "supported", "supported", "supported"],
        }
    )
    assert claim.tally(rows) == "1 supported, 1 contradicted, 0 negligible, 0 inconclusive"
    assert claim.tally(rows.assign(adjusted="not tested")).endswith("2 not tested")
    assert claim.tally(rows.assign(adjusted="contradicted")).endswith("0 inconclusive, 1 of 1 checks fail")
