"""The court: what it makes of a claim, of a gate, of one training run, and of what is said within it."""

import functools
import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
import torch

from lib.claims import claim
from lib.claims.claim import Rule
from lib.claims.court import Court, noted
from lib.claims.cubes import Cubes
from lib.claims.intervals import over
from lib.claims.rows import rows
from lib.studies.parameters import Parameters

UP = Rule("above", 0.0)
VALUES = np.array([0.4, 0.5, 0.6] * 20)
P = Parameters(variant="faces")


def rises(i, s):
    return VALUES[i].mean()


def added(court, *, id="up", compute=rises, kind="claim", rule=UP, **options):
    """The claim that this court makes of one that rises; of these networks alone, unless said otherwise."""
    given = {"statistic": "mean", "source": "us", "over": 60, "trained": False} | options
    court.add(id, kind, "It rises", compute, rule, **given)
    return court.rows[-1]


@pytest.mark.parametrize(("test", "verdict"), [(True, "supported"), (False, "not tested")])
def test_a_court_judges_as_claims_are_added(test, verdict):
    court = Court("07", P, test=test)
    row = added(court)
    assert (row.study, row.id, row.verdict, row.note) == ("07", "up@faces", verdict, "")
    assert row.adjusted == verdict and (row.p < 0.001) == test
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


def test_a_gate_that_is_not_passed_is_said_and_nothing_is_judged():
    court = Court("07", P, unknown="no map has contrast", gates=("clean",))
    court.gate("clean", "right on enough clean images", 0.35, Rule("above", 0.7))
    court.gate("attacked", "the attack changes decisions", 0.9, Rule("above", 0.5))
    row = added(court, gates=("attacked",), note="as published")
    assert row.verdict == row.adjusted == "not testable here" and math.isfinite(row.ci_low)
    assert row.note == "gate: right on enough clean images (above 0.7 asked, 0.35 found); as published"
    assert added(Court("07", P, known_gates=court.known_gates), gates=("attacked",)).verdict == "supported"
    with pytest.raises(ValueError, match="unknown gate of claim 'up' 'cleen'; did you mean clean"):
        added(court, gates=("cleen",))


def test_one_network_is_no_verdict_unless_others_tell_how_much_runs_vary():
    alone = added(Court("07", P), trained=True)
    assert alone.verdict == alone.adjusted == "one network" and alone.ci_low > 0
    assert added(Court("07", P), trained=True, kind="check").verdict == "supported"
    court, rng = Court("07", P), np.random.default_rng(0)
    for arm in "abc":
        values = 0.5 + 0.01 * rng.normal(size=(3, 1)) + 0.1 * rng.normal(size=(1, 60))
        added(court, id=f"up/{arm}", compute=over(values), seeds=3, trained=True)
    row = added(court, id="up/d", trained=True)
    assert row.verdict == "supported"
    assert row.ci_high - row.ci_low > alone.ci_high - alone.ci_low  # the others' variance is in it


def test_differences_that_share_an_arm_have_no_more_freedom_than_its_runs():
    """Of three differences between three arms of three runs each: six degrees of freedom, as without the sharing."""
    rng, freedom = np.random.default_rng(0), []
    values = {arm: rng.normal(size=(3, 1)) + 0.1 * rng.normal(size=(1, 60)) for arm in "abc"}
    for named in (True, False):
        court = Court("07", P, seeds=lambda arm: 3)
        for a, b in ("ab", "ac", "bc"):
            more = {"arms": (a, b)} if named else {"seeds": 3}
            added(court, id=f"up/{a}{b}", compute=over(values[a] - values[b]), trained=True, **more)
        freedom.append(court._freedom([0, 1, 2]))
    assert freedom == [6.0, math.inf]


def test_claims_of_the_same_networks_have_the_freedom_of_these():
    """Whoever says of how many runs they speak: the whole court, a part of it, or each claim."""
    values = np.random.default_rng(0).normal(size=(3, 60))
    pairs = Court("06", P, seeds=3)  # two pairs of classes of two networks
    for arch, pair in itertools.product("pr", "xy"):
        added(pairs.within(f"{arch}/{pair}", networks=arch), id="up", compute=over(values), trained=True)
    assert pairs._freedom([0, 1]) == 2.0 and pairs._freedom([0, 1, 2, 3]) == 4.0
    arms = Court("04", P)  # the arm `none` of three runs of one network, of one of another
    for arch, runs in (("p", 3), ("r", 1)):
        own = arms.within(arch, seeds=lambda arm, runs=runs: runs, networks=arch)
        for kind in ("location", "topk"):
            added(own, id=f"{kind}/drift", compute=over(values), arms=("none",), trained=True)
    assert arms._freedom([0, 1]) == 2.0 and arms._freedom([0, 1, 2, 3]) == 2.0
    alone = Court("02", P, seeds=lambda arm: 5).within("", seeds=2)  # of an arm that has fewer where it is asked
    added(alone, compute=over(values), arms=("standard", "underfit"), trained=True)
    assert alone._freedom([0]) == 2.0
    mixed = Court("02", P, seeds=lambda arm: 5)  # and beside claims of all of them
    added(mixed, compute=over(np.vstack([values, values[:2]])), arms=("standard", "linf"), trained=True)
    added(mixed.within("", seeds=2), compute=over(values), arms=("linf", "underfit"), trained=True)
    assert mixed._freedom([0, 1]) == mixed._freedom([1, 0]) == 4 + 4 + 1


def test_what_nobody_would_act_on_is_negligible():
    small = functools.partial(added, compute=lambda i, s: 0.005 + 0.01 * (VALUES[i].mean() - 0.5), measure="accuracy")
    row = small(Court("07", P))
    assert row.verdict == "negligible" and row.rule.endswith("negligible if it lies inside ±0.02") and row.p < 0.001
    assert small(Court("07", P), rule=Rule("above", 0.1)).verdict == "contradicted"
    assert small(Court("07", P), rule=Rule("within", 0.1)).verdict == "supported"
    with pytest.raises(ValueError, match="unknown measure 'acuracy'; did you mean accuracy"):
        small(Court("07", P), measure="acuracy")


def test_two_primaries_with_one_id_are_refused():
    court = Court("07", P)
    added(court, kind="primary")
    with pytest.raises(ValueError, match="two primaries are called 'up@faces'"):
        added(court, kind="primary")
    added(court)  # a claim of that name is another matter


def test_primaries_are_named_before_anything_is_stated():
    court = Court("07", P, primaries=("up/plain",))
    assert added(court).kind == "claim" and added(court.within("plain")).kind == "primary"


def test_an_inconclusive_claim_says_what_would_settle_it():
    rng = np.random.default_rng(1)
    wide = 0.03 + 0.2 * rng.normal(size=(1, 60)) * np.ones((3, 1))
    row = added(Court("07", P), compute=over(wide - wide.mean() + 0.03), seeds=3, trained=True)
    found = re.search(r"settled by about (\d+) images if the value stays", row.note)
    assert row.verdict == "inconclusive"
    assert int(found[1]) == math.ceil(60 * ((row.ci_high - row.value) / row.value) ** 2)  # widths fall as the root of images
    pairs = added(Court("07", P), compute=over(wide - wide.mean() + 0.03), seeds=3, trained=True, unit="pairs")
    assert pairs.n == "60 pairs, 3 seeds" and f"settled by about {found[1]} pairs if" in pairs.note
    people = Court("07", P, units=np.repeat(np.arange(30), 2), unit="people")
    row = added(people, compute=over(wide - wide.mean() + 0.03), seeds=3, trained=True, over=60)
    assert re.search(r"settled by about \d+ people if", row.note) and "60 images of 30 people" in row.n
    runs = np.array([[0.4], [-0.2], [0.1]]) + 0.001 * rng.normal(size=(1, 60))
    row = added(Court("07", P), compute=over(runs), seeds=3, trained=True)
    assert re.search(r"settled by about \d+ training runs if", row.note) and "images" not in row.note


def test_what_is_nearly_nothing_is_settled_by_less_than_its_sign():
    """The interval lies inside ±.02 long before it leaves zero."""
    values = 0.001 + 0.1 * np.array([-1.0, 1.0] * 30)[None]
    row = added(Court("07", P), compute=over(values), measure="accuracy")
    found = re.search(r"settled by about (\d+) images", row.note)
    width = row.ci_high - row.value
    assert row.verdict == "inconclusive" and int(found[1]) == pytest.approx(60 * (width / (0.02 - 0.001)) ** 2, rel=0.03)
    far = added(Court("07", P), compute=over(values), measure="accuracy", rule=Rule("above", 0.01))
    assert int(re.search(r"about (\d+) images", far.note)[1]) == pytest.approx(60 * (width / 0.009) ** 2, rel=0.03)


def test_what_is_not_judged_does_not_speak_for_others():
    """A copy of a claim that is not tested tells nothing of how much training runs vary."""
    rng, court = np.random.default_rng(0), Court("07", P)
    values = [rng.normal(size=(3, 1)) + 0.1 * rng.normal(size=(1, 60)) for _ in range(2)]
    for i, one in enumerate(values):
        added(court, id=f"up/{i}", compute=over(one), seeds=3, trained=True)
    alone = court.rows[0]
    added(court.within("copy", test=False), id="up/0", compute=over(values[0]), seeds=3, trained=True)
    assert court.rows[0] == alone


def test_a_difference_of_differences_has_their_range():
    apart = np.array([1.5, 1.7, 1.6] * 20)
    row = added(Court("07", P), compute=lambda i, s: apart[i].mean(), measure="accuracy", difference=2)
    assert 1.5 < row.ci_low < row.value < row.ci_high < 1.7


def test_images_that_stand_together_are_not_taken_for_independent():
    """A claim over other images than the court's must say what its own unit is."""
    people = Court("07", P, units=np.repeat(np.arange(30), 2), unit="people", over=60)
    assert "60 images of 30 people" in added(people, over=None).n
    with pytest.raises(ValueError, match=r"claim 'up' is over 40 images.*are 60, by people"):
        added(people, over=40)
    assert added(people, over=40, unit="pairs").n == "40 pairs, 1 seed (spread over seeds unknown)"


def test_runs_that_were_measured_on_other_images_are_refused():
    def table(*images):
        return pd.concat([rows("a", seed, "right", 0, torch.zeros(n)) for seed, n in enumerate(images)], ignore_index=True)

    assert Cubes.of(table(4, 4)).values["a", "right", 0.0].shape == (2, 4)
    for mixed in (table(4, 2), table(4, 4).assign(image_id=[0, 1, 2, 3, 3, 4, 5, 6]), table(4).assign(image_id=[0, 0, 1, 2])):
        with pytest.raises(ValueError, match=r"right of a at 0: .*every run must be measured on the same images"):
            Cubes.of(mixed)


def test_without_interval_the_note_says_why():
    nothing = functools.partial(added, compute=lambda i, s: math.nan, note="as published")
    court = Court("07", P, unknown="no map has contrast")
    assert nothing(court).note == "no map has contrast; as published"
    assert nothing(court, unknown="none succeeded").note == "none succeeded; as published"
    assert nothing(court.within("", test=False)).note == "as published"  # nothing is judged, nothing to excuse


@pytest.mark.parametrize(("options", "named"), [({"over": None}, "over ''"), ({"arms": ()}, r"arms \(\)")])
def test_a_claim_over_nothing_is_refused(options, named):
    with pytest.raises(ValueError, match=f"claim 'up': .*{named}.*name a measure"):
        added(Court("07", P, seeds=lambda arm: 1), **{"arms": ("a",)} | options)


def test_only_notes_that_say_something_are_joined():
    assert noted("", "a", "", "b") == "a; b" and noted("", "") == ""


def test_what_a_study_has():
    court = Court("07", type("P", (), {"arms": ("a", "b"), "variant": ""})())
    assert court.there("a", "b") and not court.there("a", "c")
