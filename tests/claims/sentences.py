"""Sentences that read alone: what no statement of a claim may be."""

import collections
import re
from collections.abc import Sequence

from lib.claims.claim import Claim

HANGING = re.compile(r"^(The same\b|and\b|And its\b|likewise\b|Likewise\b|…|\.\.\.)")
# a symbol, and what must stand in the row for a reader to know it
SYMBOLS = {
    r"[TO] \\ [TO]|[TO] ∩ [TO]": r"(?i)\btarget\b(?=.*\boriginal\b)|\boriginal\b(?=.*\btarget\b)",
    r"\bD[12]\b": r"discrepanc|distance",
    r"\btau\b": r"Kendall",
}


def faults(row: Claim) -> list[str]:
    """What is wrong with the sentence of one row, in words."""
    said, whole = row.statement, f"{row.statement}; {row.statistic}"
    found = []
    if start := HANGING.match(said):
        found.append(f"begins {start[0]!r}: its subject is elsewhere")
    if re.search(r"(\beps|…|\.\.\.)$", said):
        found.append("ends in the air")
    for symbol, words in SYMBOLS.items():
        if (used := re.search(symbol, whole)) and not re.search(words, whole):
            found.append(f"{used[0]!r} is not explained in the row")
    return found


def check(rows: Sequence[Claim]) -> None:
    """Fails with every sentence of a run that does not read alone, or stands there twice."""
    told = [f"{r.id}: {fault}: {r.statement}" for r in rows for fault in faults(r)]
    count = collections.Counter(r.statement for r in rows)
    told += [f"said {n} times: {s} ({', '.join(r.id for r in rows if r.statement == s)})" for s, n in count.items() if n > 1]
    assert not told, "\n".join(told)
