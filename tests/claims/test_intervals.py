"""Intervals of statistics that some resamples have no value of."""

import numpy as np

from lib.claims import intervals, measures


def test_rare_resamples_without_a_value_cost_no_interval():
    """Of four images one has no value: two resamples of 500 hold it alone."""
    values = np.array([[0.2, np.nan, 0.5, 0.6]])
    found = intervals.interval(intervals.over(values), measures.measure("share"), images=4, seeds=1)
    assert found.low < found.value < found.high
    rare = np.array([[0.2, np.nan, np.nan, np.nan]])  # most hold no value: nothing can be said
    assert np.isnan(intervals.interval(intervals.over(rare), measures.measure("share"), images=4, seeds=1).low)
