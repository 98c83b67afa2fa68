import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from lib.claims import claim, intervals
from lib.claims.claim import Rule
from lib.claims.intervals import Interval


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
    found = intervals.interval(lambda i, s: values[i].mean(), images=400, seeds=1, draws=2000)
    t = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((t.low, t.high), abs=0.01)
    assert "spread over seeds unknown" in found.n


def test_over_seeds_alone_it_is_students_t():
    by_seed = np.array([1.0, 2.0, 4.0])
    found = intervals.interval(lambda i, s: by_seed[s].mean(), images=50, seeds=3)
    t = scipy.stats.ttest_1samp(by_seed, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((t.low, t.high), rel=1e-9)


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Images and seeds both vary; 95 % intervals must cover the true mean in about 95 of 100 worlds."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        values = rng.normal(0, 0.3, (3, 1)) + rng.normal(0, 1.0, (1, 60)) + rng.normal(0, 0.5, (3, 60))
        found = intervals.interval(lambda i, s, v=values: v[s][:, i].mean(), images=60, seeds=3, draws=100)
        covered += found.low <= 0 <= found.high
    assert covered / 300 >= 0.92, covered


def test_a_constant_has_no_width_and_nan_is_not_tested():
    assert intervals.interval(lambda i, s: 0.0, images=5, seeds=2) == Interval(0.0, 0.0, 0.0, "5 images, 2 seeds")
    found = intervals.interval(lambda i, s: math.nan, images=5, seeds=2)
    assert math.isnan(found.low) and Rule("above", 0).judge(found) == "not tested"
    with pytest.raises(ValueError, match="2 images and 1 seed"):
        intervals.interval(lambda i, s: 0.0, images=1, seeds=1)


def test_the_tally_counts_claims_alone():
    rows = pd.DataFrame(
        {
            "kind": ["claim", "claim", "control", "open question"],
            "verdict": ["supported", "contradicted", "supported", "supported"],
        }
    )
    assert claim.tally(rows) == "1 supported, 1 contradicted, 0 inconclusive"
    assert claim.tally(rows.assign(verdict="not tested")).endswith("2 not tested")
