"""Which sentences do not read alone."""

import pytest

from lib.claims.claim import Claim
from tests.claims import sentences


def row(statement, statistic="accuracy, A - B", id="a"):
    words = {"study": "07", "id": id, "kind": "claim", "source": "us", "n": "", "rule": "", "verdict": "supported"}
    return Claim(**words, statement=statement, statistic=statistic, value=0, ci_low=0, ci_high=0)


@pytest.mark.parametrize(
    ("statement", "statistic", "fault"),
    [
        ("The same for B", "", "begins 'The same'"),
        ("and its map moves", "", "begins 'and'"),
        ("… more than B", "", "begins '…'"),
        ("A moves more at a larger eps", "", "ends in the air"),
        ("A moves more than …", "", "ends in the air"),
        ("Of T \\ O more are excited", "", r"'T \\\\ O' is not explained"),
        ("A shares more neurons than B", "|O ∩ T| / K", "'O ∩ T' is not explained"),
        ("D2 is at least half the margin", "", "'D2' is not explained"),
        ("A keeps its order", "tau, A - B", "'tau' is not explained"),
    ],
)
def test_sentences_that_lean_on_others_are_told(statement, statistic, fault):
    with pytest.raises(AssertionError, match=fault):
        sentences.check([row(statement, statistic)])


def test_a_sentence_stands_once_in_a_run():
    with pytest.raises(AssertionError, match=r"said 2 times: A is better \(a, b\)"):
        sentences.check([row("A is better"), row("A is better", id="b")])


def test_sentences_that_explain_themselves_pass():
    sentences.check(
        [
            row("A is right more often than B on clean images"),
            row("The discrepancy D2 of CAM is at least half the margin wherever PGD fools A", id="b"),
            row("A keeps its order better than B", "Kendall's tau at eps 0.12, A - B", id="c"),
            row("More neurons join", "T \\ O: the target's neurons that are not the original class's (original: O)", id="d"),
        ]
    )
