"""Claims as data: a statement, its statistic with an interval, a rule, and the verdict that follows. Nobody types a verdict.

Kinds: `primary`, three to five a paper, the ones that its reader would name; `claim`, `control` and `open question`; `check`,
an identity, a theorem or an exact count, which is in no tally unless it fails.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict
from scipy.special import stdtr, stdtrit

from lib.claims.intervals import TAIL, Interval, Parts
from lib.claims.moderation import Moderated

Kind = Literal["primary", "claim", "control", "open question", "check"]
Verdict = Literal["supported", "contradicted", "negligible", "inconclusive", "one network", "not testable here", "not tested"]
SUPPORTED_IF = "supported if the 95 % interval lies "  # how every rule begins
DECIDED = ("supported", "contradicted", "negligible")
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
    "p",
    "adjusted",
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
            return f"{SUPPORTED_IF}inside ±{self.threshold:g}, contradicted if wholly outside"
        other = "below" if self.kind == "above" else "above"
        return f"{SUPPORTED_IF}{self.kind} {self.threshold:g}, contradicted if {other}"

    def judge(self, interval: Interval, delta: float = 0.0) -> Verdict:
        """The verdict of an interval. Against a threshold of zero an effect is `negligible` where the interval lies inside
        ±delta (which is above zero)."""
        low, high, t = interval.low, interval.high, self.threshold
        if not (math.isfinite(low) and math.isfinite(high)):
            return "not tested"
        if self.kind != "within" and t == 0 and delta > 0 and -delta <= low and high <= delta:
            return "negligible"
        if self.kind == "within":
            holds, fails = -t <= low and high <= t, low > t or high < -t
        elif self.kind == "above":
            holds, fails = low > t, high < t
        else:
            holds, fails = high < t, low > t
        return "supported" if holds else "contradicted" if fails else "inconclusive"


def p_value(found: Parts, seen: Moderated | None, rule: Rule, verdict: Verdict, delta: float) -> float:
    """Of a decision: the level at which the interval would touch the nearest threshold; .05 where it touches it at 95 %.

    The widths of the interval scale as those of Student's t with the degrees of freedom of both its parts, that of a share of
    none or all as the binomial tail that made it. Of two thresholds the one that the interval would touch first counts. 1 where
    nothing was decided, as for an interval that does not exist.
    """
    if verdict not in DECIDED:
        return 1.0
    seen = seen or found.own
    below, above = found.widths(seen)
    freedom = found.freedom(seen)
    edges = [rule.threshold]
    if verdict == "negligible":
        edges = [-delta, delta]
    elif rule.kind == "within":
        edges = [-rule.threshold, rule.threshold]
    edges = [e for e in edges if found.measure.low <= e <= found.measure.high] or edges  # a share is never below 0
    levels = []
    for edge in edges:
        gap = float(found.measure.out(edge, found.among)) - found.centre
        width = above if gap > 0 else below
        level = 2 * stdtr(freedom, -stdtrit(freedom, TAIL) * abs(gap) / width) if width > 0 else 0.0
        levels.append(max(level, found.exact_level(edge)))
    return float(max(levels))


class Claim(BaseModel):
    """One row of claims.csv; `adjusted` is the verdict once the other claims of the run are counted (`lib.claims.many`)."""

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
    p: float = 1.0
    adjusted: Verdict = "not tested"
    note: str = ""


def table(claims: Sequence[Claim]) -> pd.DataFrame:
    return pd.DataFrame([c.model_dump() for c in claims], columns=list(COLUMNS))


TOLD = ("supported", "contradicted", "negligible", "inconclusive")


def tally(claims: pd.DataFrame) -> str:
    """`3 supported, 1 contradicted, 0 negligible, 2 inconclusive` of what the paper claims, as adjusted, how many were not
    judged, and how many checks fail."""
    own, checks = claims[claims.kind.isin(["primary", "claim"])].adjusted, claims[claims.kind == "check"].adjusted
    counts = [f"{(own == v).sum()} {v}" for v in TOLD]
    for verdict in ("one network", "not testable here", "not tested"):
        if (own == verdict).any():
            counts.append(f"{(own == verdict).sum()} {verdict}")
    if (checks == "contradicted").any():
        counts.append(f"{(checks == 'contradicted').sum()} of {len(checks)} checks fail")
    return ", ".join(counts)
