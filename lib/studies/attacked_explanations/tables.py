"""Study 7's numbers as tables: explanation by attack by network, the radii, what attacks cost and what they warn of."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lib.explanations.by_name import METHODS
from lib.sanity.invariance import EDGES
from lib.studies.attacked_explanations.plan import ATTACKS, NAMES, PHOTOGRAPHS, Parameters


def told(wide: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """Numbers to so many digits, a dash where there is none."""
    return wide.map(lambda v: "–" if pd.isna(v) else f"{v:.{digits}f}" if isinstance(v, float) else str(v))


def parsed(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that say how far a map moved: with columns method, attack and of (`moved` or `ranks`)."""
    names = table.measure.astype(str)
    method, attack = (names.str.replace(cut, "", regex=True) for cut in ("/.*", "^[^/]*/"))
    ranks = attack.str.endswith("/ranks")
    rows = table.assign(method=method, attack=attack.str.removesuffix("/ranks"), of=np.where(ranks, "ranks", "moved"))
    return rows[rows.attack.isin(ATTACKS)].rename(columns={"level": "eps"})


def at_headline(rows: pd.DataFrame, p: Parameters) -> pd.DataFrame:
    """Each network at the radius at which its claims are judged."""
    return rows[rows.eps == np.where(rows.arm == PHOTOGRAPHS, p.photo_eps, p.headline)]


def moved(table: pd.DataFrame, p: Parameters, arm: str, of: str = "moved") -> pd.DataFrame:
    """One network: a row an explanation, a column an attack; means over seeds and over the images that count."""
    rows = at_headline(parsed(table), p)
    rows = rows[(rows.arm == arm) & (rows.of == of)]
    wide = rows.pivot_table(index="method", columns="attack", values="value", aggfunc="mean", sort=False)
    wide = wide.reindex(index=[m for m in METHODS if m in wide.index], columns=[a for a in ATTACKS if a in wide.columns])
    return wide.rename(index=METHODS.labels(*wide.index), columns=ATTACKS).rename_axis(index="explanation", columns=NAMES[arm])


def bars(table: pd.DataFrame, p: Parameters, arm: str) -> pd.DataFrame:
    """Rows (explanation, attack, value, low, high): the mean over images and seeds, the lowest and the highest seed's."""
    rows = at_headline(parsed(table), p)
    rows = rows[(rows.arm == arm) & (rows.of == "moved")]
    by_seed = rows.groupby(["method", "attack", "seed"], observed=True).value.mean().reset_index()
    found = by_seed.groupby(["method", "attack"]).value.agg(value="mean", low="min", high="max").reset_index()
    order = {m: i for i, m in enumerate(METHODS)}
    found = found.sort_values("method", key=lambda c: c.map(order)).reset_index(drop=True)
    return found.assign(explanation=found.method.map(METHODS.labels(*METHODS)), attack=found.attack.map(ATTACKS))


def curves(table: pd.DataFrame) -> pd.DataFrame:
    """Rows (method, network, eps, value, low, high) of the adaptive attack on the trained networks, over seeds."""
    rows = parsed(table)
    rows = rows[(rows.arm != PHOTOGRAPHS) & (rows.of == "moved") & (rows.attack == "adaptive")]
    by_seed = rows.groupby(["method", "arm", "eps", "seed"], observed=True, sort=False).value.mean().reset_index()
    found = by_seed.groupby(["method", "arm", "eps"], sort=False).value.agg(value="mean", low="min", high="max").reset_index()
    return found.assign(network=found.arm.map(NAMES))


def randomised(table: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Rows (explanation, layers, value, low, high): how like itself a map stays, over seeds; the edge detector is the last."""
    rows = table[table.measure.astype(str).str.endswith("/randomised") & (table.arm == arm)]
    rows = rows.assign(method=rows.measure.astype(str).str.partition("/")[0], layers=rows.level.astype(int))
    by_seed = rows.groupby(["method", "layers", "seed"], observed=True).value.mean().reset_index()
    found = by_seed.groupby(["method", "layers"]).value.agg(value="mean", low="min", high="max").reset_index()
    labels = METHODS.labels(*METHODS) | {EDGES: "edge detector (control)"}
    order = {m: i for i, m in enumerate(labels)}
    found = found.sort_values(["method", "layers"], key=lambda c: c.map(order) if c.name == "method" else c)
    at = {m.name: "maps at a layer" if m.where == "layer" else "maps of pixels" for m in METHODS.rows}
    return found.assign(explanation=found.method.map(labels), where=found.method.map(at)).reset_index(drop=True)


def removal(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of deletion and insertion, the networks by their names and in their order, for `lib.runs.shown.marks`."""
    rows = table[table.measure.astype(str).str.endswith(("/deletion", "/insertion"))]
    ordered = rows.sort_values("arm", key=lambda arms: arms.map(list(NAMES).index), kind="stable")
    return ordered.assign(measure=ordered.measure.astype(str), arm=ordered.arm.map(NAMES))


def hidden(table: pd.DataFrame) -> pd.DataFrame:
    """A row a network: what is left of the discrepancy that PGD makes, for one class and two, and the bound of two."""
    rows = table[table.measure.astype(str).str.startswith("hide/")]
    rows = rows.assign(left=rows.measure.astype(str).str.partition("/")[2])
    wide = rows.pivot_table(index="arm", columns="left", values="value", aggfunc="mean", sort=False)
    names = {"one": "left of one class", "two": "left of two classes", "bound": "bound of two classes"}
    cases = rows[rows.left == "two"].groupby("arm", observed=True).value
    fooled = cases.count().rename("cases (image, training run) that PGD fools").to_frame().assign(of=cases.size())
    return wide.rename(columns=names).join(fooled).rename(index=NAMES).rename_axis(index="network").round(3)


def costs(table: pd.DataFrame, p: Parameters) -> pd.DataFrame:
    """What a step of the adaptive attack costs an image beside its own forward pass, in forward passes."""
    rows = table[table.measure.astype(str).str.endswith("/cost")]
    step = (
        rows.assign(method=rows.measure.astype(str).str.partition("/")[0])
        .groupby(["arm", "method"], observed=True)
        .value.mean()
    )
    found = step.unstack("arm").reindex(index=[m for m in METHODS if m in step.index.unique("method")])
    return (
        found.rename(index=METHODS.labels(*found.index), columns=NAMES)
        .rename_axis(index="explanation", columns="a step, in forward passes")
        .round(1)
    )


def accuracies(accuracy: Mapping[tuple[str, int], float]) -> pd.DataFrame:
    """A row a network: over its seeds the mean accuracy, the lowest and the highest; `accuracy` is by (arm, seed)."""
    found = pd.DataFrame([(NAMES[arm], value) for (arm, _), value in accuracy.items()], columns=["network", "accuracy"])
    by = found.groupby("network", sort=False).accuracy
    return by.agg(seeds="count", accuracy="mean", lowest="min", highest="max").round(3)


def joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables below each other."""
    return pd.concat(parts, ignore_index=True)
