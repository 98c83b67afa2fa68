"""Tables of a run for people: its card, its claims, what its attacks warned of, and what maps mark on its networks."""

import html
import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pandas as pd

from lib.claims import intervals, measures
from lib.claims.claim import SUPPORTED_IF, Verdict
from lib.claims.cubes import Cubes
from lib.explanations.by_name import METHODS
from lib.studies.marking import EXPLAINED

MARKS: dict[Verdict, str] = {
    "supported": "✔",
    "contradicted": "✘",
    "negligible": "≈",
    "inconclusive": "?",
    "one network": "①",
    "not testable here": "⊘",
    "not tested": "–",
}
COLUMNS = {
    "kind": "kind",
    "statement": "statement and source",
    "value": "value [95 % interval] and statistic",
    "verdict": "adjusted verdict",
    "rule": f"rule: {SUPPORTED_IF}…",
}
MEANS: dict[Verdict, str] = {
    "supported": "the whole 95 % interval lies where the claim says",
    "contradicted": "the whole interval lies on the other side",
    "negligible": "the whole interval lies so close to zero that the effect does not matter",
    "inconclusive": "the interval reaches both sides, or what it says alone does not stand once the other claims are counted",
    "one network": "one network was trained, and nothing says how much another one would differ",
    "not testable here": "what the claim stands on did not hold in this run",
    "not tested": "nothing was judged",
}
KINDS = {
    "primary": "one of the three to five claims of a study that a reader would name, the paper's own unless its source says "
    "otherwise, fixed before their numbers were known",
    "claim": "another statement of the paper",
    "control": "a check of ours beside it",
    "open question": "a statement that the paper's evidence does not carry, or a question of ours; in no tally",
    "check": "an identity, a theorem or an exact count, which leave nothing to chance; in no tally, unless one fails",
}


def anchor(id: str) -> str:
    """The place of a claim in its report, as the end of a link."""
    return f"#claim-{quote(id, safe='')}"


def verdict_html(verdict: str) -> str:
    """A verdict with its mark, in its colour."""
    return f'<span class="verdict {verdict.replace(" ", "-")}">{MARKS[verdict]} {verdict}</span>'


def alone(claim: Any) -> str:
    """What a claim's own interval says, where that does not stand among the other claims; else empty."""
    if claim.verdict == claim.adjusted:
        return ""
    return f"{claim.verdict} on its own (p = {claim.p:.2g}), not once the others are counted"


def number(value: float, low: float, high: float) -> str:
    """A value and its interval, to two digits of its half-width; the interval is not broken between lines."""
    if not (math.isfinite(low) and math.isfinite(high)) or low == high:  # counted exactly: no interval
        return f"{value:.3g}"
    half = (high - low) / 2
    digits = 1 - math.floor(math.log10(half)) if half > 0 else 9
    if not 0 <= digits <= 4:
        return f"{value:.3g} [{low:.3g},\N{NO-BREAK SPACE}{high:.3g}]"
    return f"{_fixed(value, digits)} [{_fixed(low, digits)},\N{NO-BREAK SPACE}{_fixed(high, digits)}]"


def _fixed(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def told(claim: Any) -> str:
    """The verdict of a claim as a cell: once the others are counted, what it is alone, and why (gates, remedies)."""
    why = [alone(claim), claim.note if isinstance(claim.note, str) else ""]
    return verdict_html(claim.adjusted) + "".join(f"<br><small>{html.escape(w)}</small>" for w in why if w)


def rule(claim: Any) -> str:
    """What a claim's rule says beyond how all rules begin, which the column's title says (COLUMNS)."""
    return html.escape(claim.rule.removeprefix(SUPPORTED_IF))


def claims_html(found: pd.DataFrame) -> str:
    """A run's claims as tables for people, each row with an anchor: the primaries, what else is claimed, and the checks."""
    groups = (
        ("Primary claims", found[found.kind == "primary"]),
        ("Further claims, controls and open questions", found[~found.kind.isin(["primary", "check"])]),
        ("Checks: identities, theorems and exact counts", found[found.kind == "check"]),
    )
    return "".join(_table(caption, rows) for caption, rows in groups if len(rows))


def _table(caption: str, found: pd.DataFrame) -> str:
    rows = []
    for c in found.itertuples():
        rows.append(
            f'<tr id="claim-{html.escape(c.id, quote=True)}"><td>{c.kind}</td>'
            f"<td>{html.escape(c.statement)}<br><small>{html.escape(c.source)}</small></td>"
            f"<td>{number(c.value, c.ci_low, c.ci_high)}<br><small>{html.escape(c.statistic)}; {html.escape(c.n)}</small></td>"
            f"<td>{told(c)}</td><td>{rule(c)}</td></tr>"
        )
    head = "".join(f'<th scope="col" class="{name}">{words}</th>' for name, words in COLUMNS.items())
    return (
        f'<table class="study-claims"><caption>{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def card_html(card: Mapping[str, Any]) -> str:
    """A run card as a table for people."""

    def told(value: Any) -> str:
        pairs = value.items() if isinstance(value, dict) else ()
        return html.escape(", ".join(f"{k} {v}" for k, v in pairs) if pairs else str(value))

    rows = "".join(f'<tr><th scope="row">{html.escape(k)}</th><td>{told(v)}</td></tr>' for k, v in card.items())
    name = html.escape(str(card.get("run", "")), quote=True)
    return f'<table id="run-{name}"><caption>Run card{f" of {name}" if name else ""}</caption>{rows}</table>'


def warnings_html(found: pd.DataFrame) -> str:
    """What attacks warned of, as a table for people: rows (network, attack, eps, warning); or a sentence that none did."""
    if found.empty:
        return "<p>Warnings of the attacks: there were none.</p>"
    rows = "".join(
        f"<tr><td>{html.escape(w.network)}</td><td>{html.escape(w.attack)}</td><td>{w.eps:.3g}</td>"
        f"<td>{html.escape(w.warning)}</td></tr>"
        for w in found.itertuples()
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("network", "attack", "radius", "warning"))
    caption = "Warnings of the attacks: reasons to distrust a robust accuracy"
    return f'<table class="warnings"><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


WORDS = {"deletion": "taken away", "insertion": "put in"}


def marks(found: pd.DataFrame) -> pd.DataFrame:
    """A row an arm and what is done, a column an explanation: the mean over images and training runs with the longer side of
    its 95 % interval, in which the runs of all arms moderate each other; an arm of one run has the variance of the others."""
    cubes = Cubes.of(found)
    arms = list(dict.fromkeys(found.arm))
    measured = dict.fromkeys(found.measure)
    cells = {}
    for name in measured:
        method, _, what = name.partition("/")
        known = {arm: cubes.values[arm, name, 0.0] for arm in arms if (arm, name, 0.0) in cubes.values}
        parts = [
            intervals.parts(intervals.over(v), images=v.shape[1], seeds=len(v), of=measures.measure("share", difference=True))
            for v in known.values()
        ]
        for arm, interval in zip(known, intervals.together(parts), strict=True):
            cells[WORDS[what], arm, METHODS.find(method).label] = _mark(interval)
    wide = pd.Series(cells).unstack(2, fill_value="–")
    columns = [METHODS.find(m).label for m in EXPLAINED if METHODS.find(m).label in wide]
    order = [(word, arm) for word in WORDS.values() for arm in arms]
    wide = wide.reindex(index=pd.MultiIndex.from_tuples(order, names=["pixels", "network"]), columns=columns)
    runs = {arm: f"{n} run{'' if n == 1 else 's'}" for arm, n in found.groupby("arm", observed=True).seed.nunique().items()}
    return wide.set_index(wide.index.get_level_values("network").map(runs).rename("trained"), append=True)


def _mark(found: intervals.Interval) -> str:
    """A dash where no map marks anything, so that there is no number; a number alone where too few do for an interval."""
    if not math.isfinite(found.value):
        return "–"
    value, side = round(found.value, 2) + 0.0, intervals.side(found)
    return f"{value:.2f} ± {side:.2f}" if math.isfinite(side) else f"{value:.2f}"
