"""Claims computed anew beside those that stand in `figures`: which numbers and which verdicts are the same.

Training ends elsewhere where a processor rounds otherwise, so that numbers may move and a verdict near its threshold may
change. No verdict should turn round: between supported and contradicted lies a whole interval.
"""

import pandas as pd

from lib.runs import shown

NUMBERS = ["value", "ci_low", "ci_high"]
TURNED = {"supported", "contradicted"}
CHANGES = {
    "same": "the same to the digit",
    "number": "with another number",
    "verdict": "with another verdict",
    "turned": "turned round",
    "gone": "no longer there",
    "new": "new",
}
FAILED = ("turned", "gone", "new")


def compare(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """A row a claim of either table (columns of claims.csv), in order: id, change (one of CHANGES), before, after, in words.

    Numbers are the same where they are as claims.csv has them, to six digits; the verdict is the adjusted one.
    """
    there, now = before.set_index("id"), after.set_index("id")
    ids = [*there.index, *(id for id in now.index if id not in there.index)]
    rows = [(id, _change(there, now, id), *(_said(t.loc[id]) if id in t.index else "" for t in (there, now))) for id in ids]
    return pd.DataFrame(rows, columns=["id", "change", "before", "after"])


def _change(there: pd.DataFrame, now: pd.DataFrame, id: str) -> str:
    if id not in now.index:
        return "gone"
    if id not in there.index:
        return "new"
    verdicts = {there.adjusted[id], now.adjusted[id]}
    if len(verdicts) == 2:
        return "turned" if verdicts == TURNED else "verdict"
    same = all(f"{there.at[id, c]:.6g}" == f"{now.at[id, c]:.6g}" for c in NUMBERS)
    return "same" if same else "number"


def _said(row: pd.Series) -> str:
    return f"{row.adjusted} {shown.number(row.value, row.ci_low, row.ci_high)}"


def failed(found: pd.DataFrame) -> bool:
    """Whether a verdict turned round, or claims came or went."""
    return bool(found.change.isin(FAILED).any())


def told(run: str, found: pd.DataFrame) -> str:
    """What a reader wants to know of one run: how many claims of each change, and those that are not the same."""
    counts = found.change.value_counts()
    parts = [f"{counts[change]} {words}" for change, words in CHANGES.items() if change in counts]
    lines = [f"{run}: {len(found)} claim{'' if len(found) == 1 else 's'}, {', '.join(parts) or 'none to compare'}"]
    for one in found[found.change != "same"].itertuples():
        lines.append(f"  {one.id} ({CHANGES[one.change]}): {one.before or '–'} -> {one.after or '–'}")
    return "\n".join(lines)
