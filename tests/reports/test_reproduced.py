"""Claims beside the same claims computed anew."""

import numpy as np
import pandas as pd
import pytest

from lib.reports import reproduced


def table(**rows):
    """Claims by id: adjusted verdict, value, ends of the interval."""
    found = [(id, *row) for id, row in rows.items()]
    return pd.DataFrame(found, columns=["id", "adjusted", "value", "ci_low", "ci_high"])


BEFORE = table(
    a=("supported", 0.5, 0.4, 0.6),
    b=("supported", 0.5, 0.4, 0.6),
    c=("supported", 0.1, 0.01, 0.2),
    d=("contradicted", -0.5, -0.6, -0.4),
    e=("not tested", np.nan, np.nan, np.nan),
    f=("negligible", 0.0, -0.01, 0.01),
)
AFTER = table(
    g=("supported", 1.0, 1.0, 1.0),
    a=("supported", 0.5 + 1e-9, 0.4, 0.6),
    b=("supported", 0.5, 0.4, 0.60001),
    c=("inconclusive", 0.1, -0.01, 0.2),
    d=("supported", 0.5, 0.4, 0.6),
    e=("not tested", np.nan, np.nan, np.nan),
)


def test_each_kind_of_change():
    """Written out by hand: equal to six digits, the sixth digit, a verdict, one that turned, none either time, gone, new."""
    found = reproduced.compare(BEFORE, AFTER).set_index("id").change
    expected = {"a": "same", "b": "number", "c": "verdict", "d": "turned", "e": "same", "f": "gone", "g": "new"}
    assert found.to_dict() == expected and set(expected.values()) == set(reproduced.CHANGES)


def test_what_is_told():
    lines = reproduced.told("01-x", reproduced.compare(BEFORE, AFTER)).splitlines()
    assert lines[0] == (
        "01-x: 7 claims, 2 the same to the digit, 1 with another number, 1 with another verdict, 1 turned round, "
        "1 no longer there, 1 new"
    )
    assert "  d (turned round): contradicted -0.50 [-0.60,\N{NO-BREAK SPACE}-0.40] -> supported 0.50" in "\n".join(lines)
    assert [line.split()[0] for line in lines[1:]] == ["b", "c", "d", "f", "g"] and lines[4].endswith("-> –")
    assert reproduced.told("01-x", reproduced.compare(BEFORE[:0], AFTER[:0])) == "01-x: 0 claims, none to compare"


@pytest.mark.parametrize(
    ("before", "after", "fails"),
    [("abc", "abc", False), ("d", "d", True), ("abcde", "abce", True), ("a", "ag", True), ("", "", False)],
)
def test_what_fails(before, after, fails):
    """Verdicts that change near a threshold do not, one that turns round, claims that go and claims that come do."""
    kept = (t[t.id.isin(list(ids))] for t, ids in ((BEFORE, before), (AFTER, after)))
    assert reproduced.failed(reproduced.compare(*kept)) is fails
