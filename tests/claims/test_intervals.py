"""Intervals of statistics that some images have no value of, or that few images decide."""

import numpy as np
import pytest

from lib.claims import intervals, measures


def test_rare_resamples_without_a_value_cost_no_interval():
    """Of four images one has no value: two resamples of 500 hold it alone."""
    values = np.array([[0.2, np.nan, 0.5, 0.6]])
    found = intervals.interval(intervals.over(values), measures.measure("share"), images=4, seeds=1)
    assert found.low < found.value < found.high
    rare = np.array([[0.2, np.nan, np.nan, np.nan]])  # most hold no value: nothing can be said
    assert np.isnan(intervals.interval(intervals.over(rare), measures.measure("share"), images=4, seeds=1).low)


def test_a_difference_is_as_exact_as_its_rarer_half():
    """1 of 20 images less 0 of 100: Clopper and Pearson's end for 20 images, of two uncertain shares, not for 100."""
    some, every = np.full((1, 100), np.nan), np.zeros((1, 100))
    some[0, :20] = 1
    reach = {}
    for name, (a, b) in {"some": (some, every), "turned": (every, some), "all": (np.ones((1, 100)), every)}.items():
        statistic = intervals.minus(intervals.over(a), intervals.over(b))
        found = intervals.interval(statistic, measures.measure("share", difference=True), images=100, seeds=1)
        reach[name] = max(found.high - found.value, found.value - found.low)
    assert reach["some"] == reach["turned"] == pytest.approx((1 - 0.025 ** (1 / 20)) * np.sqrt(2), rel=1e-6)
    assert reach["all"] == pytest.approx((1 - 0.025 ** (1 / 100)) * np.sqrt(2), rel=1e-6)


def coverage(draw, truth: float, of: str, images: int) -> float:
    """How often, of 400 times, the interval of the values that `draw` draws holds what they are drawn about."""
    rng, of_what = np.random.default_rng(0), measures.measure(of, difference=True)
    found = (intervals.interval(intervals.over(draw(rng)), of_what, images=images, seeds=1, draws=200) for _ in range(400))
    return float(np.mean([one.low <= truth <= one.high for one in found]))


@pytest.mark.parametrize(("eligible", "images"), [(4, 100), (3, 16)])
def test_few_images_of_many_have_the_freedom_of_these_few(eligible, images):
    """By that of all images it would be .81 to .9."""

    def draw(rng):
        values = np.full((1, images), np.nan)
        values[0, :eligible] = rng.normal(size=eligible)
        return values

    assert coverage(draw, 0.0, "", images) > 0.925
    found = intervals.interval(intervals.over(draw(np.random.default_rng(0))), measures.measure(""), images=images, seeds=1)
    assert found.n.startswith(f"{eligible} of {images} images, 1 seed")


def test_units_that_hold_none_of_the_few_images_do_not_count():
    """Ten of forty images have a value, pictures of four of ten people."""
    values = np.full((1, 40), np.nan)
    values[0, :10] = np.arange(10.0)
    people = np.minimum(np.arange(40) // 3, 9)
    found = intervals.parts(intervals.over(values), images=40, seeds=1, units=people, unit="people")
    assert found.n.startswith("10 of 40 images of 4 people, 1 seed") and (found.units, found.among) == (10, 4)


@pytest.mark.parametrize(("images", "one", "other"), [(50, 0.1, 0.0), (50, 0.065, 0.0), (200, 0.02, 0.02), (500, 0.01, 0.0)])
def test_few_decisions_that_differ_say_little(images, one, other):
    """Networks that decide few images differently, most of them to one's advantage; without a half on either side .87 to .9."""

    def draw(rng):
        u = rng.random((1, images))
        return np.where(u < one, 1.0, np.where(u < one + other, -1.0, 0.0))

    assert coverage(draw, one - other, "accuracy", images) > 0.935


def test_the_smallest_of_one_value_is_as_wide_as_the_value():
    """What widens an interval widens that of an extreme too."""
    values, of = np.zeros((1, 50)), measures.measure("accuracy", difference=True)
    values[0, :3] = 1
    plain = intervals.over(values)
    both = (plain, intervals.least(lambda i, s: [plain(i, s)]))
    alone, least = (intervals.interval(one, of, images=50, seeds=1) for one in both)
    assert least.high - least.low > 0.85 * (alone.high - alone.low)  # without: .76


def test_a_difference_of_no_counts_is_as_it_was():
    values = np.random.default_rng(0).normal(scale=0.01, size=(1, 200))
    found = intervals.interval(intervals.over(values), measures.measure("share", difference=True), images=200, seeds=1)
    assert found.high - found.low == pytest.approx(2 * 1.972 * values.std(ddof=1) / np.sqrt(200), rel=0.06)


def test_tiny_values_are_no_counts():
    """Differences of 1e-9 are not images that are decided differently."""
    values = np.random.default_rng(0).choice([-1e-9, 1e-9], size=(1, 60))
    found = intervals.interval(intervals.over(values), measures.measure("share", difference=True), images=60, seeds=1)
    assert found.high - found.low < 1e-8


def test_runs_that_differ_by_rounding_do_not_vary():
    """Their variance would be 1e-30, whose logarithm would speak for all other arms; a run without a value stays one."""
    assert intervals._variance(np.array([-1.2, -1.2 - 2e-16, -1.2])) == 0 < np.var([-1.2, -1.2 - 2e-16, -1.2])
    assert intervals._variance(np.array([1e-16, -1e-16, 0.0])) == 0  # about zero too
    assert intervals._variance(np.array([1.0, 2.0])) == 0.5 and np.isnan(intervals._variance(np.array([1.0, np.nan])))
