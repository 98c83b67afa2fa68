"""Intervals of statistics that some resamples have no value of."""

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
