"""Claims as data: a statistic, its interval, a rule, and the verdict that follows."""

from lib.claims.claim import COLUMNS, Claim, Rule, table, tally
from lib.claims.court import ONE_SEED, OURS, OURS_ALONE, Court, noted
from lib.claims.cubes import Cubes, rows
from lib.claims.intervals import Interval, interval, minus, over

__all__ = [
    "COLUMNS",
    "ONE_SEED",
    "OURS",
    "OURS_ALONE",
    "Claim",
    "Court",
    "Cubes",
    "Interval",
    "Rule",
    "interval",
    "minus",
    "noted",
    "over",
    "rows",
    "table",
    "tally",
]
