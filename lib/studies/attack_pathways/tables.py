"""Study 6's numbers as tables, a row a network, pair of classes and strength or layer, with 95 % intervals over images and
seeds; a graph's edges; and what the original released beside what is found here.

Intervals of pictures take fewer draws than those of claims: a curve has one at each strength.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from lib.claims.intervals import Interval, Statistic
from lib.pathways.graph import Graph
from lib.studies.attack_pathways.plan import ATTACKS, CLAMPED, NAMES, Parameters
from lib.studies.attack_pathways.statistics import Pathways, by_strength, mean
from lib.system import paths

All = Mapping[tuple[str, str], Pathways]  # by network and pair
Rows = Iterator[dict[str, Any]]
DRAWS = 60
CORRELATION = "correlation"  # a measure, and the column that it fills
SHARED_DRAWS = 100
OWN = {"target": "target's own", "original": "source's own"}
STAYS = {"original": "source's own, kept", "target": "target's own, joined", "new": "of neither, all layers"}
HELD = {"exploited": "exploited by the attack", "random": "as many at random", "excited": "as many, most excited"}
AT_ONCE = "all at once"
ALONE = "successes alone, of neither"
RELEASED = 90  # top neurons of the released data: nine layers, ten each
STRENGTHS = ("weakest", "middle", "strongest")


def arrow(pair: str) -> str:
    """A pair of classes as `source → target`."""
    return pair.replace(">", " → ")


def kind(p: Parameters, pair: str) -> str:
    """Whether the classes of a pair look alike."""
    return "similar" if pair in p.similar else "dissimilar"


def named(p: Parameters, pair: str) -> str:
    """A pair with its kind."""
    return f"{arrow(pair)} ({kind(p, pair)})"


def success(pathways: All) -> pd.DataFrame:
    """Rows (network, pair, attack, what, strength, value, low, high, n): the share of images that reach the target class."""
    return pd.DataFrame(
        row
        for path, attack in itertools.product(pathways.values(), ATTACKS)
        for row in _curve(path, attack, NAMES[attack], functools.partial(path.success, attack))
    )


def _curve(path: Pathways, attack: str, what: str, make: Callable[[int], Statistic], of: str = "share") -> Rows:
    """A statistic at each strength."""
    for strength, found in zip(path.p.strengths, by_strength(path, make, of, DRAWS), strict=True):
        about = {"network": path.arch, "pair": path.pair, "attack": attack, "what": what, "strength": strength}
        yield about | {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def shared(pathways: All) -> pd.DataFrame:
    """Rows (network, pair, layer, shared, low, high): the share of top neurons that clean images of both classes have."""
    return pd.DataFrame(
        _at(path, path.interval(path.shared(layer), draws=SHARED_DRAWS), "shared", layer=layer)
        for path in pathways.values()
        for layer in path.layers
    )


def _at(path: Pathways, found: Interval, value: str, **about: Any) -> dict[str, Any]:
    return {"network": path.arch, "pair": path.pair} | about | {value: found.value, "low": found.low, "high": found.high}


def groups(pathways: All) -> pd.DataFrame:
    """Rows as of `success`, under PGD: which top neurons are the source's, the target's, and of neither; last the ones of
    neither among successes alone, where n is how many succeeded, of all seeds."""
    return pd.DataFrame(row for path in pathways.values() for row in _groups(path))


def _groups(path: Pathways) -> Rows:
    for group, what in STAYS.items():
        layers = path.layers if group == "new" else None
        yield from _curve(path, "pgd", what, functools.partial(path.kept, "pgd", group=group, layers=layers))
    won = path.scored.success(path.arch, path.pair, "pgd").sum((0, 2))
    for j, strength in enumerate(path.p.strengths):
        about = {"network": path.arch, "pair": path.pair, "attack": "pgd", "what": ALONE, "strength": strength}
        yield about | {"value": over_all(path, path.new_among_successes("pgd", j)), "n": f"{int(won[j])} successes"}


def over_all(path: Pathways, statistic: Statistic) -> float:
    """A statistic of all images and seeds, without an interval."""
    return statistic(np.arange(path.images), np.arange(path.p.seeds))


def moved(pathways: All) -> pd.DataFrame:
    """Rows as of `success`: how the medians of the target's and of the source's own neurons of the last layer change."""
    return pd.DataFrame(
        row
        for path, attack, (group, whose) in itertools.product(pathways.values(), ("pgd", "fgsm", "noise"), OWN.items())
        for row in _curve(
            path, attack, f"{whose}, {NAMES[attack]}", functools.partial(path.moved, attack, group=group), "medians"
        )
    )


def depth(pathways: All) -> pd.DataFrame:
    """Rows (network, pair, attack, layer, correlation, low, high): Spearman's correlation of clean and attacked activations
    of a layer's channels, at the strongest attack."""
    return pd.DataFrame(
        _at(
            path,
            path.interval(path.correlation(attack, -1, [layer]), CORRELATION, DRAWS),
            CORRELATION,
            attack=attack,
            layer=layer,
        )
        for path, attack in itertools.product(pathways.values(), ("pgd", "noise"))
        for layer in path.layers
    )


def clamped(pathways: All) -> pd.DataFrame:
    """Rows (network, pair, what, layer, value, low, high, n): the share of the strongest attack's successes that fail while
    neurons hold their clean values, in each layer and AT_ONCE in all; no value where there is no exploited neuron."""
    rows = []
    for path, which in itertools.product(pathways.values(), CLAMPED):
        for layer in (*path.layers, None):
            if (statistic := path.undone(which, layer)) is not None:
                found = path.interval(statistic, draws=SHARED_DRAWS)
                at = layer or AT_ONCE
                rows.append(_at(path, found, "value", what=HELD[which], layer=at) | {"n": found.n})
    return pd.DataFrame(rows)


def held(pathways: All) -> pd.DataFrame:
    """Rows as of `success`: the share of PGD's successes that fail while neurons of all layers hold their clean values."""
    return pd.DataFrame(
        row
        for path, which in itertools.product(pathways.values(), CLAMPED)
        if path.undone(which)
        for row in _curve(path, "pgd", HELD[which], functools.partial(path.undone, which, None))
    )


def edges(graphs: Mapping[str, Graph], attack: str, strength: int) -> pd.DataFrame:
    """Rows (graph, layer, channel, next layer, next channel, clean, attacked): influence between the neurons that are shown,
    on clean images and at one strength (by number, from 0). Of a single graph nothing says which."""
    rows = pd.DataFrame(
        {
            "graph": title,
            "layer": lower.name,
            "channel": low,
            "next layer": upper.name,
            "next channel": high,
            "clean": influence[0, i, j],
            "attacked": influence[strength + 1, i, j],
        }
        for title, graph in graphs.items()
        for (lower, upper), influence in zip(itertools.pairwise(graph.layers), graph.edges[attack], strict=True)
        for i, low in enumerate(lower.groups.shown)
        for j, high in enumerate(upper.groups.shown)
    )
    return rows if len(graphs) > 1 or rows.empty else rows.drop(columns="graph")


def beside_released(pathways: All) -> pd.DataFrame:
    """The share of top neurons that two classes have in common, and of those of neither at a weak, a middle and a strong
    attack, among successes alone: released ones (nine layers, ten neurons each) above those found here (all layers)."""
    theirs = pd.read_csv(paths.published() / "attack_pathways.csv")
    theirs = theirs.assign(source="released", shared=theirs.both / RELEASED, new=theirs.new / RELEASED)
    theirs["strength"] = theirs.groupby(["pair", "attack"]).cumcount().map(dict(enumerate(STRENGTHS)))
    rows = []
    for path, attack in itertools.product(pathways.values(), ("pgd", "fgsm")):
        last = len(path.p.strengths) - 1
        for word, j in zip(STRENGTHS, (0, len(path.p.strengths) // 2, last), strict=True):
            rows.append(
                {
                    "source": f"ours, {path.arch}",
                    "pair": arrow(path.pair),
                    "kind": kind(path.p, path.pair),
                    "attack": attack,
                    "strength": word,
                    "shared": over_all(path, mean([path.shared(n) for n in path.layers])),
                    "new": over_all(path, path.new_among_successes(attack, j)),
                }
            )
    both = pd.concat([theirs, pd.DataFrame(rows)])
    about = ["source", "pair", "kind", "shared", "attack"]
    wide = both.pivot_table(index=about, columns="strength", values="new", sort=False, dropna=False)
    wide = wide.dropna(how="all")[list(STRENGTHS)].reset_index()
    return wide.rename(columns={"shared": "top neurons in common", **{w: f"of neither, {w}" for w in STRENGTHS}})
