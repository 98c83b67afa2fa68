"""What the interactive page of study 6 draws: rows of neurons and edges, and how they look (Vega-Lite, through Altair).

Rows are layers, the last on top; columns are groups. A neuron's share in a ranking is that of the neurons shown in its layer
that are higher, so that the highest p % (rounded up) are those with a share below p. Text, controls and the card of a neuron
stand in the page around it (`pages`), which sets the parameters; nothing here is bound to a control.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import torch

from lib.pathways.cards import card_uri
from lib.pathways.graph import Graph, Layer
from lib.pathways.layout import GROUPS, LETTER, placed, shares
from lib.pathways.neurons import CHANGES, change

STATES = ("neither", "weak only", "strong only", "both")
SHAPES = ("circle", "triangle-down", "triangle-up", "diamond")
ROW = 74  # pixels
DOT = 15.2  # pixels across, where there is room
FILLED = 0.95  # of a column's width: the next one stands apart
INK = "currentColor"  # black on white paper, white on black
SOURCE, TARGET = "#7bb573", "#2b83ba"

Rows = list[dict[str, Any]]


def library() -> str:
    """The scripts that draw it."""
    import vl_convert  # here, since it takes a second that most processes need not wait

    return vl_convert.javascript_bundle(vl_version=alt.VEGALITE_VERSION.rpartition(".")[0])


def tables(graphs: Mapping[str, Graph]) -> tuple[Rows, Rows, Rows, Rows]:
    """Neurons, edges, strengths and pictures of several graphs as rows; a neuron has a row an attack, values by strength from
    clean on, and names its picture."""
    neurons: Rows = []
    edges: Rows = []
    told: Rows = []
    pictures: dict[str, str] = {}  # by what they show: two graphs of one network share them
    for view, graph in graphs.items():
        spots = _side_by_side(graph)
        cards = {(name, c): card_uri(card) for name, own in graph.cards.items() for c, card in own.items()}
        for attack in graph.edges:
            for i in range(1 + len(graph.strengths)):
                row = {"view": view, "attack": attack, "s": i, "told": _told(graph, attack, i)}
                told.append(row | {"alt": described(graph, attack, i)})
            ids: dict[tuple[str, int], str] = {}
            for layer in graph.layers:
                own = [s for s in spots if s["layer"] == layer.name]
                channels = [s["channel"] for s in own]
                if not channels:
                    continue
                values = _values(layer, attack, channels)
                ranks = {c: _shares_of(values, values[0], c) for c in CHANGES}
                for c in CHANGES[1:]:
                    ranks[c][0] = 1.0  # without attack nothing has changed, and nothing is highlighted
                for j, spot in enumerate(own):
                    id_ = f"n{len(neurons)}"
                    ids[layer.name, spot["channel"]] = id_
                    card = cards.get((layer.name, spot["channel"]))
                    neurons.append(
                        {
                            "id": id_,
                            "key": f"{view}|{layer.name}|{spot['channel']}",
                            "view": view,
                            "attack": attack,
                            "layer": layer.name,
                            "channel": spot["channel"],
                            "name": f"{layer.name} · channel {spot['channel']}",
                            "letter": LETTER[spot["group"]],
                            "group": GROUPS[spot["group"]][0],
                            "x": spot["x"],
                            "row": spot["row"],
                            "v": _short(values[:, j]),
                            "t": _number(layer.target[spot["channel"]]),
                            "vulnerability": _number(layer.vulnerability[attack][spot["channel"]]),
                            "picture": pictures.setdefault(card, f"p{len(pictures)}") if card else "",
                            **{c: [round(float(v), 3) for v in ranks[c][:, j]] for c in CHANGES},
                        }
                    )
            for l, matrices in enumerate(graph.edges[attack]):
                lower, upper = graph.layers[l], graph.layers[l + 1]
                for a, low in enumerate(lower.groups.shown):
                    for b, high in enumerate(upper.groups.shown):
                        line = matrices[:, a, b]
                        if (line > 0).any():
                            edges.append({"a": ids[lower.name, low], "b": ids[upper.name, high], "pair": l, "w": _short(line)})
    return neurons, edges, told, [{"key": key, "url": url} for url, key in pictures.items()]


def columns(graph: Graph) -> list[float]:
    """How wide the columns of the four groups are, 4 together: as their fullest rows need, and enough for a heading."""
    widest = [max((len(layer.groups.of(g)) for layer in graph.layers), default=0) for g in GROUPS]
    needed = [max(1.0, n, 0.2 * sum(widest)) for n in widest]
    return [4 * n / sum(needed) for n in needed]


def _side_by_side(graph: Graph) -> Rows:
    """The neurons with their places where each column is as wide as `columns` says."""
    widths = columns(graph)
    spots = placed(graph)
    for spot in spots:
        column = int(spot["x"])
        spot["x"] = round(sum(widths[:column]) + (spot["x"] - column) * FILLED * widths[column], 4)
    return spots


def _told(graph: Graph, attack: str, strength: int) -> str:
    """Whether the attack does what it is for, at one strength (by number, 0: none)."""
    if not strength:
        said = f"no attack: {counted(graph.images)} of {graph.source}"
        return said + (f", of which the network takes {graph.taken} for {graph.target} as they are" if graph.taken else "")
    won = graph.success[attack][strength - 1]
    reach = "reaches" if 1 in (won, graph.images) else "reach"
    said = f"strength {graph.strengths[strength - 1]:g}: {won} of {counted(graph.images)} {reach} {graph.target}"
    return said if any(graph.success[attack]) else f"{said} (this attack never succeeds; the graph shows what it moves)"


def counted(images: int) -> str:
    """A number of images in words."""
    return f"{images} image{'' if images == 1 else 's'}"


def described(graph: Graph, attack: str, strength: int, most: int = 3) -> str:
    """What the graph says, for who cannot see it: how many neurons of each group a layer has, and which of them the attack
    excites most."""
    parts = []
    for layer in reversed(graph.layers):
        sizes = [f"{n} {GROUPS[g][0]}" for g in GROUPS if (n := len(layer.groups.of(g)))]
        said = f"{layer.name}: {', '.join(sizes) or 'none'}"
        channels = list(layer.groups.shown)
        if strength and channels:
            values = _values(layer, attack, channels)
            grown = values[strength] - values[0]
            best = [i for i in np.argsort(-grown, kind="stable")[:most] if grown[i] > 0]
            named = [f"channel {channels[i]} ({_group_of(layer, channels[i])}, {_signed(grown[i])})" for i in best]
            said += f"; most excited {', '.join(named)}" if named else "; none excited"
        parts.append(said)
    return f"Neurons of each layer, the last first. {'. '.join(parts)}."


def _group_of(layer: Layer, channel: int) -> str:
    return next(GROUPS[g][0] for g in GROUPS if channel in layer.groups.of(g))


def _values(layer: Layer, attack: str, channels: Sequence[int]) -> np.ndarray:
    """Medians of channels, (1 + strengths, channels), the first row clean."""
    chosen = list(channels)
    return np.concatenate([layer.clean[chosen][None], layer.attacked[attack][:, chosen]])


def _shares_of(values: np.ndarray, clean: np.ndarray, how: str) -> np.ndarray:
    found = change(torch.from_numpy(values), torch.from_numpy(clean), how)  # type: ignore[arg-type]
    return shares(found.numpy())


def _number(value: float) -> float | None:
    """Three digits; None, as JSON has it, where there is no value."""
    return None if math.isnan(value) else float(f"{float(value):.3g}")


def _signed(value: float) -> str:
    return f"{value:+.2g}"


def _short(values: np.ndarray) -> list[float | None]:
    return [_number(v) for v in values]


def alike(graphs: Mapping[str, Graph]) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """The strengths and attacks of all graphs of a page. Raises ValueError where they differ."""
    found = {(graph.strengths, tuple(graph.edges)) for graph in graphs.values()}
    if len(found) != 1:
        raise ValueError(f"{len(graphs)} graphs with other strengths or attacks than each other; a page has one of each")
    return next(iter(found))


def specification(graphs: Mapping[str, Graph], neurons: Rows, edges: Rows) -> dict[str, Any]:
    """The graphs of several networks and pairs, by the names that a reader chooses from, for Vega-Lite. Its parameters:

    `view`, `attack` and `strength` (by number, 0: none) say which graph; `by`, `topNeurons` and `topEdges` (%) what is
    highlighted; `show` whether `all` edges are drawn too; `compare` (yes, no) with the attack of strength `weak`; `at` is the
    neuron that is looked at, `pinned` are those whose edges are drawn, by key.
    """
    if not neurons:
        raise ValueError("nothing to draw: no layer has a neuron in any group")
    _, attacks = alike(graphs)
    rows = {view: [layer.name for layer in reversed(graph.layers)] for view, graph in graphs.items()}
    cells = {view: _cells(graph) for view, graph in graphs.items()}
    deepest = max(map(len, rows.values()))
    start = _first_success(next(iter(graphs.values())), attacks[0])
    own = [n for n in neurons if n["attack"] == attacks[0] and n["view"] == neurons[0]["view"]]
    most_excited = min(own, key=lambda n: (n["row"], n["excited"][start]))
    values = {"view": neurons[0]["view"], "attack": attacks[0], "strength": start, "by": "excited", "topNeurons": 20}
    values |= {"topEdges": 30, "show": "highlighted", "compare": "no", "weak": 1, "pinned": []}
    values |= {"at": most_excited["key"], "cells": cells}
    layers = [*_edges(deepest), *_nodes(deepest), _names(rows, deepest)]
    graph = alt.layer(*layers).add_params(*(alt.param(name=n, value=v) for n, v in values.items()))
    data = {"neurons": neurons, "edges": edges or [{"a": "", "b": "", "pair": 0, "w": [0]}]}
    return _plain(graph.properties(width="container", height=ROW * deepest, padding=2), data)


def _cells(graph: Graph) -> float:
    """How many dots would lie side by side in a row where they lie closest."""
    widest = [max(len(layer.groups.of(g)) for layer in graph.layers) for g in GROUPS]
    return max(4 * n / width / FILLED for n, width in zip(widest, columns(graph), strict=True))


def _first_success(graph: Graph, attack: str) -> int:
    """The weakest strength (by number, from 1) that moves half of the images to the target class that are not there before;
    else the middle one."""
    reached = (i for i, won in enumerate(graph.success[attack], 1) if won and 2 * won >= graph.images - graph.taken)
    return next(reached, max(1, len(graph.strengths) // 2))


def _plain(chart: Any, data: Mapping[str, Rows]) -> dict[str, Any]:
    ink = {f"{part}Color": INK for part in ("label", "title", "domain", "tick")}
    spec = chart.to_dict()
    spec["config"] = {  # on whatever ground the page has; the page says in words what the graph shows
        "background": "transparent",
        "aria": False,
        "view": {"stroke": None},
        "axis": {"grid": False, **ink},
        "legend": {"labelColor": INK, "titleColor": INK},
    }
    return spec | {"datasets": spec.get("datasets", {}) | data}


def _place(deepest: int, x: str = "x:Q", y: str = "row:Q") -> dict[str, Any]:
    # room above the first row, where its name stands
    down = alt.Scale(domain=[-0.55, deepest - 0.6], reverse=True, nice=False)
    across = alt.Scale(domain=[-0.02, 4.02], nice=False)
    return {"x": alt.X(x, scale=across, axis=None), "y": alt.Y(y, scale=down, axis=None)}


HERE = "datum.view === view && datum.attack === attack"
ACROSS = f"clamp(width / 4.04 * 4 / cells[view] * 0.94, 4, {DOT})"  # of a dot, so that those of a row lie side by side


def _nodes(deepest: int) -> list[Any]:
    """Neurons, and their letters where there is room."""
    high = "datum[by][strength] < topNeurons / 100"
    nodes = (
        alt.Chart(alt.NamedData(name="neurons"))
        .transform_filter(HERE)
        .transform_calculate(
            high=high,
            now="datum.v[strength]",
            clean="datum.v[0]",
            state=f"compare === 'no' ? 'neither' : ({high} ? (datum[by][weak] < topNeurons / 100 ? 'both' : 'strong only') "
            ": (datum[by][weak] < topNeurons / 100 ? 'weak only' : 'neither'))",
        )
    )
    strong = "datum.high || datum.state === 'weak only'"
    ringed = "datum.key === at || indexof(pinned, datum.key) >= 0"
    pinned = "indexof(pinned, datum.key) >= 0"
    colours = alt.Scale(domain=[g for g, _ in GROUPS.values()], range=[c for _, c in GROUPS.values()])
    marks = nodes.mark_point(filled=True, opacity=1, size=alt.ExprRef(f"pow({ACROSS}, 2)"), cursor="pointer").encode(
        **_place(deepest),
        color=alt.Color("group:N", scale=colours, legend=None),
        shape=alt.Shape("state:N", scale=alt.Scale(domain=STATES, range=SHAPES), legend=None),
        fillOpacity=alt.condition(strong, alt.value(1.0), alt.value(0.3)),
        stroke=alt.condition(ringed, alt.value(INK), alt.value("transparent")),
        strokeWidth=alt.condition(pinned, alt.value(3), alt.value(1.5)),
        tooltip=[alt.Tooltip("name:N"), alt.Tooltip("group:N"), alt.Tooltip("now:Q", title="activation", format=".3g")],
    )
    text = {"fontSize": alt.ExprRef(f"{ACROSS} > 9 ? 10 : 0"), "fontWeight": "bold", "cursor": "pointer"}
    letters = nodes.mark_text(**text).encode(
        **_place(deepest),
        text="letter:N",
        color=alt.condition(strong, alt.value("#000"), alt.value(INK)),  # a highlighted dot is light on any ground
        opacity=alt.condition(strong, alt.value(1.0), alt.value(0.6)),
    )
    return [marks, letters]


def _names(rows: Mapping[str, Sequence[str]], deepest: int) -> Any:
    """The names of layers, each above its row."""
    labels = [{"view": v, "row": i, "x": 0, "layer": n} for v, names in rows.items() for i, n in enumerate(names)]
    chart = alt.Chart(alt.InlineData(values=labels)).transform_filter("datum.view === view")
    return chart.mark_text(align="left", dy=-25, fontSize=12, color=INK).encode(**_place(deepest), text="layer:N")


def _edges(deepest: int) -> list[Any]:
    """All edges, those of highlighted neurons, and those of pinned ones."""

    def drawn(chart: Any, opacity: float, keep: str = "") -> Any:
        chart = chart.transform_joinaggregate(most="max(now)", count="count()", groupby=["pair"])
        ranked = chart.transform_window(
            rank="row_number()", sort=[alt.SortField("value", order="descending")], groupby=["pair"]
        ).transform_calculate(share="datum.now / datum.most")
        if keep:
            ranked = ranked.transform_filter(keep)
        width = alt.Size("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.3, 4]), legend=None)
        rule = ranked.mark_rule(color=INK, opacity=opacity)
        return rule.encode(**_place(deepest, "a_x:Q", "a_row:Q"), x2="b_x:Q", y2="b_row:Q", size=width)

    chosen = "datum.rank <= ceil(topEdges / 100 * datum.count)"
    pinned = "indexof(pinned, datum.a_key) >= 0 || indexof(pinned, datum.b_key) >= 0"
    return [
        drawn(_lines("show === 'all'"), 0.14),
        drawn(_lines("datum.aHigh && datum.bHigh"), 0.6, chosen),
        drawn(_lines(pinned), 0.9),
    ]


def _lines(keep: str) -> Any:
    """Edges with both of their ends, and what they are ranked by."""
    chart = alt.Chart(alt.NamedData(name="edges"))
    ends = ["key", "view", "attack", "x", "row", *CHANGES]
    for end in ("a", "b"):
        found = alt.LookupData(data=alt.NamedData(name="neurons"), key="id", fields=ends)
        chart = chart.transform_lookup(lookup=end, from_=found, as_=[f"{end}_{n}" for n in ends])
    high = "(by === 'activated' ? datum.{0}_activated : by === 'changed' ? datum.{0}_changed : by === 'excited' ? "
    high += "datum.{0}_excited : datum.{0}_inhibited)[strength] < topNeurons / 100"
    return (
        chart.transform_filter("datum.a_view === view && datum.a_attack === attack")
        .transform_calculate(
            now="datum.w[strength]",
            value="by === 'activated' ? datum.w[strength] : by === 'changed' ? abs(datum.w[strength] - datum.w[0]) "
            ": by === 'excited' ? datum.w[strength] - datum.w[0] : datum.w[0] - datum.w[strength]",
            aHigh=high.format("a"),
            bHigh=high.format("b"),
        )
        .transform_filter("datum.now > 0")
        .transform_filter(keep)
    )


def curve(unit: str) -> dict[str, Any]:
    """A neuron's activation against strength, between its clean ones, for Vega-Lite: rows `path` (s, v, i) and `levels` (level,
    line); the parameter `strength` marks a point by its number."""
    across = alt.X("s:Q", title=["strength", f"({unit})"])
    up = alt.Y("v:Q", title="median activation", scale=alt.Scale(zero=False))
    path = alt.Chart(alt.NamedData(name="path"))
    line = path.mark_line(point={"color": INK, "size": 24}, color=INK).encode(x=across, y=up)
    now = path.transform_filter("datum.i === strength").mark_point(size=140, color="#d7191c", filled=True, opacity=1)
    scale = alt.Scale(domain=["source class", "target class"], range=[SOURCE, TARGET])
    legend = alt.Legend(orient="bottom", direction="vertical", title="clean images of the")
    clean = alt.Chart(alt.NamedData(name="levels")).mark_rule(strokeDash=[6, 3], size=2)
    levels = clean.encode(y=alt.Y("level:Q", title="median activation"), color=alt.Color("line:N", scale=scale, legend=legend))
    chart = alt.layer(levels, line, now.encode(x=across, y=up)).add_params(alt.param(name="strength", value=0))
    return _plain(chart.properties(width="container", height=150), {"path": [], "levels": []})
