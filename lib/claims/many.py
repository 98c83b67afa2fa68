"""Many claims at once: what is decided by one in twenty intervals alone is not decided.

Over a paper's primaries Holm (1979), who keeps the chance of any wrong decision below .05; over the rest Benjamini and Hochberg
(1995), who keep the share of wrong ones among the decided below .05. Checks are exact and are left as they are.
"""

from collections.abc import Sequence

import numpy as np

from lib.claims.claim import DECIDED, Claim

LEVEL = 0.05


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p values, in the order given."""
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    found = np.empty_like(values)
    found[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return found


def adjusted(rows: Sequence[Claim]) -> list[Claim]:
    """The rows with their adjusted verdicts: what was decided and does not stand among the others is inconclusive."""
    found = list(rows)
    for primary in (True, False):
        at = [i for i, r in enumerate(rows) if (r.kind == "primary") == primary and r.kind != "check" and _judged(r)]
        if not at:
            continue
        from scipy.stats import false_discovery_control  # here, since scipy.stats takes half a second to load

        p = [rows[i].p for i in at]
        levels = holm(p) if primary else false_discovery_control(p)
        for i, level in zip(at, levels, strict=True):
            stands = rows[i].verdict not in DECIDED or level <= LEVEL
            found[i] = rows[i].model_copy(update={"adjusted": rows[i].verdict if stands else "inconclusive"})
    return [r if r.kind != "check" and _judged(r) else r.model_copy(update={"adjusted": r.verdict}) for r in found]


def _judged(row: Claim) -> bool:
    return row.verdict in (*DECIDED, "inconclusive")
