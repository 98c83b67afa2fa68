"""Claims as data: a statement, its statistic with an interval, a rule, and the verdict that follows. Nobody types a verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

from lib.claims.intervals import Interval

Kind = Literal["claim", "control", "open question"]
Verdict = Literal["supported", "contradicted", "inconclusive", "not tested"]
COLUMNS = (
    "study",
    "id",
    "kind",
    "statement",
    "source",
    "statistic",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "rule",
    "verdict",
    "note",
)


@dataclass(frozen=True)
class Rule:
    """`above t`: the claim holds where the whole interval lies above t, fails where it lies below; `below` likewise.

    `within t`: it holds where the interval lies inside [-t, t], fails where it lies wholly outside.
    """

    kind: Literal["above", "below", "within"]
    threshold: float

    def __str__(self) -> str:
        if self.kind == "within":
            return f"supported if the 95 % interval lies inside ±{self.threshold:g}, contradicted if wholly outside"
        other = "below" if self.kind == "above" else "above"
        return f"supported if the 95 % interval lies {self.kind} {self.threshold:g}, contradicted if {other}"

    def judge(self, interval: Interval) -> Verdict:
        low, high, t = interval.low, interval.high, self.threshold
        if not (math.isfinite(low) and math.isfinite(high)):
            return "not tested"
        if self.kind == "within":
            holds, fails = -t <= low and high <= t, low > t or high < -t
        elif self.kind == "above":
            holds, fails = low > t, high < t
        else:
            holds, fails = high < t, low > t
        return "supported" if holds else "contradicted" if fails else "inconclusive"


class Claim(BaseModel):
    """One row of claims.csv."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study: str
    id: str
    kind: Kind
    statement: str
    source: str
    statistic: str
    value: float
    ci_low: float
    ci_high: float
    n: str
    rule: str
    verdict: Verdict
    note: str = ""


def table(claims: Sequence[Claim]) -> pd.DataFrame:
    return pd.DataFrame([c.model_dump() for c in claims], columns=list(COLUMNS))


def tally(claims: pd.DataFrame) -> str:
    """`3 supported, 1 contradicted, 0 inconclusive` of the rows that are claims, and how many were not tested."""
    own = claims[claims.kind == "claim"].verdict
    counts = [f"{(own == v).sum()} {v}" for v in ("supported", "contradicted", "inconclusive")]
    untested = (own == "not tested").sum()
    return ", ".join(counts + ([f"{untested} not tested"] if untested else []))
