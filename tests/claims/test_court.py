"""The court: what it makes of a claim, of a gate, of one training run, and of what is said within it."""

import functools
import math

import numpy as np
import pytest

from lib.claims import claim
from lib.claims.claim import Rule
from lib.claims.court import Court, noted
from lib.claims.cubes import Cubes
from lib.studies.parameters import Parameters

UP = Rule("above", 0.0)
VALUES = np.array([0.4, 0.5, 0.6] * 20)
P = Parameters(variant="faces")


def rises(i, s):
    return VALUES[i].mean()


def added(court, *, compute=rises, kind="claim", **options):
    """The claim that this court makes of one that rises."""
    court.add("up", kind, "It rises", compute, UP, **{"statistic": "mean", "source": "us", "over": 60} | options)
    return court.rows[-1]


@pytest.mark.parametrize(("test", "verdict"), [(True, "supported"), (False, "not tested")])
def test_a_court_judges_as_claims_are_added(test, verdict):
    court = Court("07", P, test=test)
    row = added(court)
    assert (row.study, row.id, row.verdict, row.note) == ("07", "up@faces", verdict, "")
    assert row.ci_low < row.value < row.ci_high and row.n.startswith("60 images, 1 seed")
    assert list(claim.table(court.rows).columns) == list(claim.COLUMNS)


def test_what_is_said_of_one_thing_alone_joins_the_same_rows():
    court = Court("07", P)
    own = court.within("plain", " (plain)")
    deeper, alike = own.within("a", " (plain, a)", over=30), own.within("", test=False)
    rows = [added(court), added(own), added(deeper, over=None), added(alike)]
    assert court.rows == rows
    assert [r.id for r in rows] == ["up@faces", "up/plain@faces", "up/plain/a@faces", "up/plain@faces"]
    assert [r.statement for r in rows] == ["It rises", "It rises (plain)", "It rises (plain, a)", "It rises"]
    assert [r.n.split()[0] for r in rows] == ["60", "60", "30", "60"] and rows[-1].verdict == "not tested"


def test_images_are_those_of_a_measure_and_seeds_those_that_all_arms_have():
    cubes = Cubes({("a", "clean", 0.0): np.zeros((3, 40))})
    court = Court("07", P, cubes, seeds=lambda arm: {"a": 3, "b": 2}[arm])
    assert added(court, over="clean", arms=("a", "b"), compute=lambda i, s: 0.0).n == "40 images, 2 seeds"
    assert added(court, over="clean", seeds=3, compute=lambda i, s: 0.0).n == "40 images, 3 seeds"
    assert added(Court("07", P, seeds=2), arms=("b",)).n == "60 images, 2 seeds"


def test_draws_are_those_of_the_court():
    drawn = []

    def counted(i, s):
        drawn.append(len(i))
        return rises(i, s)

    added(Court("07", P, draws=17), compute=counted)
    assert len(drawn) == 1 + 17


def test_a_gate_that_is_not_passed_is_said_and_nothing_is_tested():
    row = added(Court("07", P, unknown="no map has contrast"), gate="the fooling failed", note="as published")
    assert row.verdict == "not tested" and row.note == "the fooling failed; as published" and math.isfinite(row.ci_low)


def test_without_interval_the_note_says_why():
    nothing = functools.partial(added, compute=lambda i, s: math.nan, note="as published")
    court = Court("07", P, unknown="no map has contrast")
    assert nothing(court).note == "no map has contrast; as published"
    assert nothing(court, unknown="none succeeded").note == "none succeeded; as published"
    assert nothing(court.within("", test=False)).note == "as published"  # nothing is judged, nothing to excuse


def test_one_training_run_is_noted_where_it_says_something():
    court = Court("07", P, one_seed="one run")
    assert added(court).note == added(court, kind="open question").note == "one run"
    assert added(court, kind="control").note == added(court, theorem=True).note == added(court, seeds=2).note == ""


@pytest.mark.parametrize(("options", "named"), [({"over": None}, "over ''"), ({"arms": ()}, r"arms \(\)")])
def test_a_claim_over_nothing_is_refused(options, named):
    with pytest.raises(ValueError, match=f"claim 'up': .*{named}.*name a measure"):
        added(Court("07", P, seeds=lambda arm: 1), **{"arms": ("a",)} | options)


def test_only_notes_that_say_something_are_joined():
    assert noted("", "a", "", "b") == "a; b" and noted("", "") == ""


def test_what_a_study_has():
    court = Court("07", type("P", (), {"arms": ("a", "b"), "variant": ""})())
    assert court.there("a", "b") and not court.there("a", "c")
