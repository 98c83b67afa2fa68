"""Many claims: Holm and Benjamini and Hochberg, by hand and by simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from lib.claims import many
from lib.claims.claim import Claim, Rule
from lib.claims.court import Court
from lib.studies.parameters import Parameters


def row(kind, verdict, p):
    words = dict.fromkeys(("study", "id", "statement", "source", "statistic", "n", "rule"), "")
    return Claim(**words, kind=kind, value=0.0, ci_low=0.0, ci_high=0.0, verdict=verdict, p=p)


def test_holm_by_hand():
    assert many.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert many.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert list(many.holm([])) == []


def test_primaries_and_the_rest_are_adjusted_apart_and_checks_not_at_all():
    rows = [row("primary", "supported", 0.03), row("primary", "contradicted", 0.01), row("primary", "inconclusive", 1.0)]
    rows += [row("claim", "supported", 0.04), row("control", "supported", 0.01), row("check", "supported", 0.9)]
    rows += [row("claim", "not tested", 1.0), row("open question", "one network", 1.0), row("claim", "negligible", 0.001)]
    assert [r.adjusted for r in many.adjusted(rows)] == [
        "inconclusive",  # .03 of three: .06
        "contradicted",
        "inconclusive",
        "supported",  # BH: .04 * 3 / 3
        "supported",
        "supported",
        "not tested",
        "one network",
        "negligible",
    ]
    assert [r.verdict for r in many.adjusted(rows)] == [r.verdict for r in rows]


def test_a_paper_is_wrongly_decided_in_one_run_of_twenty_at_most():
    """Four primaries whose truth is exactly the threshold: the share of runs with any decision."""
    rng, wrong, count = np.random.default_rng(0), 0, 300
    p = Parameters()
    for _ in range(count):
        court = Court("09", p, seeds=1, draws=200)
        for i in range(4):
            values = rng.normal(0, 1, 50)
            court.add(
                f"c{i}",
                "primary",
                f"s{i}",
                lambda n, _s, v=values: v[n].mean(),
                Rule("above", 0.0),
                statistic="mean",
                source="",
                over=50,
                trained=False,
            )
        wrong += any(r.adjusted in ("supported", "contradicted") for r in court.rows)
    assert wrong / count <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / count), wrong / count


def test_the_rest_agrees_with_scipy():
    p = [0.001, 0.008, 0.039, 0.041, 0.2]
    rows = many.adjusted([row("claim", "supported", v) for v in p])
    levels = scipy.stats.false_discovery_control(p)
    assert [r.adjusted for r in rows] == ["supported" if v <= 0.05 else "inconclusive" for v in levels]
