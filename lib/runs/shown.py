"""Tables of a run as HTML for people: its card and its claims."""

import html
from collections.abc import Mapping
from typing import Any

import pandas as pd

VERDICT_MARKS = {
    "supported": "✔ supported",
    "contradicted": "✘ contradicted",
    "inconclusive": "? inconclusive",
    "not tested": "– not tested",
}


def claims_html(found: pd.DataFrame) -> str:
    """Claims as a table for people: statement, statistic with its interval, verdict."""
    rows = []
    for c in found.itertuples():
        value = f"{c.value:.3g} [{c.ci_low:.3g}, {c.ci_high:.3g}]" if pd.notna(c.ci_low) else f"{c.value:.3g}"
        note = f"<br><small>{html.escape(c.note)}</small>" if isinstance(c.note, str) and c.note else ""
        rows.append(
            f"<tr><td>{c.study}</td><td>{c.kind}</td><td>{html.escape(c.statement)}<br><small>{html.escape(c.source)}</small></td>"
            f"<td>{html.escape(c.statistic)}</td><td>{value}<br><small>{html.escape(c.n)}</small></td>"
            f"<td>{VERDICT_MARKS[c.verdict]}<br><small>{html.escape(c.rule)}</small>{note}</td></tr>"
        )
    head = "".join(
        f"<th>{h}</th>"
        for h in ("study", "kind", "statement and source", "statistic", "value [95 % interval]", "verdict and rule")
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def card_html(card: Mapping[str, Any]) -> str:
    """A run card as a table for people."""

    def told(value: Any) -> str:
        pairs = value.items() if isinstance(value, dict) else ()
        return html.escape(", ".join(f"{k} {v}" for k, v in pairs) if pairs else str(value))

    rows = "".join(f"<tr><th>{html.escape(k)}</th><td>{told(v)}</td></tr>" for k, v in card.items())
    return f"<table><caption>Run card</caption>{rows}</table>"
