"""Claims as data: a statistic, its interval, a rule, and the verdict that follows."""

from lib.claims.claim import COLUMNS, Claim, Rule, table, tally
from lib.claims.court import OURS, OURS_ALONE, Court, Gate, noted
from lib.claims.cubes import Cubes
from lib.claims.intervals import Interval, Parts, interval, minus, over, over_pairs, parts, together
from lib.claims.many import adjusted, holm
from lib.claims.measures import MEASURES, Measure, measure
from lib.claims.moderation import Moderated, moderate, prior

__all__ = [
    "COLUMNS",
    "MEASURES",
    "OURS",
    "OURS_ALONE",
    "Claim",
    "Court",
    "Cubes",
    "Gate",
    "Interval",
    "Measure",
    "Moderated",
    "Parts",
    "Rule",
    "adjusted",
    "holm",
    "interval",
    "measure",
    "minus",
    "moderate",
    "noted",
    "over",
    "over_pairs",
    "parts",
    "prior",
    "table",
    "tally",
    "together",
]
