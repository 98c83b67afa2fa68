"""What attacks say against their own numbers, collected while a study measures, and kept as a table beside what it measured.

A measurement tells whom an attack warned of, and how; whoever collects gets it, also when many measurements go on side by side,
each in a thread with its own. Rows are (network, attack, eps, warning): `eps` is the radius as the study counts it, 0 for what
holds at any radius.
"""

import contextlib
import contextvars
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pandas as pd

from lib.system.progress import say


class Warned(NamedTuple):
    """A row of the table."""

    network: str
    attack: str
    eps: float
    warning: str


_collecting: contextvars.ContextVar[list[Warned] | None] = contextvars.ContextVar("collecting", default=None)


@contextlib.contextmanager
def collected() -> Iterator[list[Warned]]:
    """A list that every warning told within this block, in this thread, is added to; one block inside another has its own."""
    found: list[Warned] = []
    token = _collecting.set(found)
    try:
        yield found
    finally:
        _collecting.reset(token)


def tell(network: str, attack: str, eps: float, warnings: Iterable[str]) -> None:
    """Says the warnings of an attack on a network as lines, and adds them to what is collected; each once."""
    found = _collecting.get()
    for warning in warnings:
        row = Warned(network, attack, float(eps), warning)
        if found is not None and row in found:
            continue
        say(f"  {network}, {attack}, eps {row.eps:.3g}: {warning}")
        if found is not None:
            found.append(row)


def table(found: Iterable[Warned]) -> pd.DataFrame:
    """Rows (network, attack, eps, warning), each once, in the order of these; columns of their types also where it is empty."""
    data = pd.DataFrame(list(dict.fromkeys(found)), columns=list(Warned._fields))
    data = data.astype({"network": "str", "attack": "str", "eps": "float64", "warning": "str"})
    return data.sort_values(list(Warned._fields), ignore_index=True)


def joined(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Several such tables as one."""
    return table(Warned(*row) for part in tables for row in part.itertuples(index=False, name=None))
