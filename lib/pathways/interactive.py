"""The graph of study 6 as an interactive page (Vega-Lite, through Altair).

Everything the page needs stands in it: moving the strength or the highlighting asks neither a kernel nor the network.
Rows are layers, the last on top; columns are groups. A neuron's share in a ranking is that of the neurons shown in its layer
that are higher, so that the highest p % (rounded up) are those with a share below p.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
from altair.utils.html import spec_to_html

from lib.pathways.cards import card_uri
from lib.pathways.graph import Graph
from lib.pathways.layout import GROUPS, LETTER, placed, shares
from lib.pathways.neurons import CHANGES, change

STATES = ("neither", "weak only", "strong only", "both")
SHAPES = ("circle", "triangle-down", "triangle-up", "diamond")
WIDTH, ROW = 620, 74
STYLE = """<style>
  body { font: 13px sans-serif; margin: 12px; }
  #vis.vega-embed { display: block !important; }
  .vega-bindings { margin-bottom: 10px; }
  .vega-bind { display: inline-block; margin: 2px 14px 2px 0; }
  .vega-bind-name { font-weight: bold; }
</style>"""


Rows = list[dict[str, Any]]


def tables(graphs: Mapping[str, Graph]) -> tuple[Rows, Rows, Rows, Rows]:
    """Neurons, edges, attacks and pictures of several graphs as rows; a neuron has a row an attack, values by strength from
    clean on, and names its picture."""
    neurons: Rows = []
    edges: Rows = []
    attacks: Rows = []
    pictures: dict[str, str] = {}  # by what they show: two graphs of one network share them
    for view, graph in graphs.items():
        spots = placed(graph)
        for attack in graph.edges:
            for i, strength in enumerate((0.0, *graph.strengths)):
                won = "" if i == 0 else f"{graph.success[attack][i - 1]} of {graph.images} images reach {graph.target}"
                told = f"strength {strength:g}: {won}" if i else f"no attack: {graph.images} images of {graph.source}"
                if i and not any(graph.success[attack]):
                    told += " (this attack never succeeds; the graph shows what it moves)"
                attacks.append({"view": view, "attack": attack, "s": i, "told": told, "title": graph.title})
            ids: dict[tuple[str, int], str] = {}
            for layer in graph.layers:
                own = [s for s in spots if s["layer"] == layer.name]
                channels = [s["channel"] for s in own]
                if not channels:
                    continue
                clean = layer.clean[channels]
                values = np.concatenate([clean[None], layer.attacked[attack][:, channels]])
                ranks = {c: _shares_of(values, clean, c) for c in CHANGES}
                for c in CHANGES[1:]:
                    ranks[c][0] = 1.0  # without attack nothing has changed, and nothing is highlighted
                for j, spot in enumerate(own):
                    id_ = f"n{len(neurons)}"
                    ids[layer.name, spot["channel"]] = id_
                    card = graph.cards.get(layer.name, {}).get(spot["channel"])
                    neurons.append(
                        {
                            "id": id_,
                            "key": f"{view}|{layer.name}|{spot['channel']}",
                            "view": view,
                            "attack": attack,
                            "name": f"{layer.name} · channel {spot['channel']}",
                            "letter": LETTER[spot["group"]],
                            "group": GROUPS[spot["group"]][0],
                            "x": spot["x"],
                            "row": spot["row"],
                            "v": _short(values[:, j]),
                            "t": _number(layer.target[spot["channel"]]),
                            "vulnerability": _number(layer.vulnerability[attack][spot["channel"]]),
                            "picture": pictures.setdefault(card_uri(card), f"p{len(pictures)}") if card is not None else "",
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
    return neurons, edges, attacks, [{"key": key, "url": url} for url, key in pictures.items()]


def _shares_of(values: np.ndarray, clean: np.ndarray, how: str) -> np.ndarray:
    import torch

    found = change(torch.from_numpy(values), torch.from_numpy(clean), how)  # type: ignore[arg-type]
    return shares(found.numpy())


def _number(value: float) -> float:
    return float(f"{float(value):.3g}")


def _short(values: np.ndarray) -> list[float]:
    return [_number(v) for v in values]


def specification(graphs: Mapping[str, Graph], attack_names: Mapping[str, str]) -> dict[str, Any]:
    """The interactive graph of several networks and pairs, by the names that a reader chooses from, for Vega-Lite."""
    alike = {(graph.strengths, tuple(graph.edges)) for graph in graphs.values()}
    if len(alike) != 1:
        raise ValueError(f"{len(graphs)} graphs with other strengths or attacks than each other; a page has one of each")
    neurons, edges, attacks, pictures = tables(graphs)
    if not neurons:
        raise ValueError("nothing to draw: no layer has a neuron in any group")
    rows = {view: [layer.name for layer in reversed(graph.layers)] for view, graph in graphs.items()}
    deepest = max(map(len, rows.values()))
    strengths = next(iter(graphs.values())).strengths
    last = len(strengths)

    def dropdown(name: str, label: str, options: Sequence[Any], labels: Sequence[str] | None = None, value: Any = None) -> Any:
        binding = alt.binding_select(options=list(options), labels=list(labels or options), name=f"{label} ")
        return alt.param(name=name, bind=binding, value=options[0] if value is None else value)

    def ranged(name: str, label: str, low: int, high: int, step: int, value: int) -> Any:
        return alt.param(name=name, bind=alt.binding_range(min=low, max=high, step=step, name=f"{label} "), value=value)

    kinds = list(next(iter(graphs.values())).edges)
    controls = [
        dropdown("view", "network and classes", list(graphs)),
        dropdown("attack", "attack", kinds, [attack_names.get(k, k) for k in kinds]),
        ranged("strength", f"strength (0: none, {last}: {strengths[-1]:g})", 0, last, 1, max(1, last // 2)),
        dropdown("by", "highlight neurons most", CHANGES, value="excited"),
        ranged("topNeurons", "highest % of neurons", 5, 100, 5, 20),
        ranged("topEdges", "highest % of edges", 5, 100, 5, 30),
        dropdown("show", "edges", ["highlighted", "all"]),
        dropdown("compare", "compare with a weaker attack", ["no", "yes"]),
        ranged("weak", "weaker strength", 0, last, 1, 1),
    ]
    hover = alt.selection_point(name="hover", on="pointerover", fields=["key"], empty=False, value=[{"key": neurons[0]["key"]}])
    pin = alt.selection_point(name="pin", on="click", fields=["key"], empty=False, toggle="true")
    here = "datum.view === view && datum.attack === attack"
    high = "datum[by][strength] < topNeurons / 100"
    x = alt.X("x:Q", scale=alt.Scale(domain=[-0.05, 4.05]), axis=None)
    y = alt.Y("row:Q", scale=alt.Scale(domain=[-0.6, deepest - 0.4], reverse=True), axis=None)

    all_neurons = alt.NamedData(name="neurons")
    all_edges = alt.NamedData(name="edges")
    nodes = (
        alt.Chart(all_neurons)
        .transform_filter(here)
        .transform_calculate(
            high=high,
            now="datum.v[strength]",
            clean="datum.v[0]",
            change="datum.v[strength] - datum.v[0]",
            state="compare === 'no' ? 'neither' : (datum[by][strength] < topNeurons / 100 "
            "? (datum[by][weak] < topNeurons / 100 ? 'both' : 'strong only') "
            ": (datum[by][weak] < topNeurons / 100 ? 'weak only' : 'neither'))",
        )
    )
    strong = "datum.high || datum.state === 'weak only'"
    colours = alt.Scale(domain=[g for g, _ in GROUPS.values()], range=[c for _, c in GROUPS.values()])
    marks = nodes.mark_point(filled=True, size=230, strokeWidth=1.6).encode(
        x=x,
        y=y,
        color=alt.Color("group:N", scale=colours, legend=None),
        shape=alt.Shape(
            "state:N",
            scale=alt.Scale(domain=STATES, range=SHAPES),
            legend=alt.Legend(title="compared: highlighted in", orient="bottom"),
        ),
        opacity=alt.condition(strong, alt.value(1.0), alt.value(0.28)),
        stroke=alt.condition(pin, alt.value("black"), alt.value("white")),
        tooltip=[
            alt.Tooltip("name:N"),
            alt.Tooltip("group:N"),
            alt.Tooltip("now:Q", title="activation", format=".3g"),
            alt.Tooltip("clean:Q", title="without attack", format=".3g"),
            alt.Tooltip("vulnerability:Q", format=".3g"),
        ],
    )
    letters = nodes.mark_text(fontSize=10, fontWeight="bold").encode(
        x=x, y=y, text="letter:N", opacity=alt.condition(strong, alt.value(1.0), alt.value(0.35))
    )

    def lines(*keep: str, pinned: str = "") -> Any:
        base = alt.Chart(all_edges)
        ends = ["key", "view", "attack", "x", "row", *CHANGES]
        for end in ("a", "b"):
            found = alt.LookupData(data=all_neurons, key="id", fields=ends)
            base = base.transform_lookup(lookup=end, from_=found, as_=[f"{end}_{n}" for n in ends])
        base = (
            base.transform_filter("datum.a_view === view && datum.a_attack === attack")
            .transform_calculate(
                now="datum.w[strength]",
                value="by === 'activated' ? datum.w[strength] : by === 'changed' ? abs(datum.w[strength] - datum.w[0]) "
                ": by === 'excited' ? datum.w[strength] - datum.w[0] : datum.w[0] - datum.w[strength]",
                aHigh="(by === 'activated' ? datum.a_activated : by === 'changed' ? datum.a_changed "
                ": by === 'excited' ? datum.a_excited : datum.a_inhibited)[strength] < topNeurons / 100",
                bHigh="(by === 'activated' ? datum.b_activated : by === 'changed' ? datum.b_changed "
                ": by === 'excited' ? datum.b_excited : datum.b_inhibited)[strength] < topNeurons / 100",
            )
            .transform_filter("datum.now > 0")
        )
        for expression in keep:
            base = base.transform_filter(expression)
        if pinned:
            return base.transform_calculate(key=f"datum.{pinned}_key").transform_filter(pin)
        return base

    def drawn(base: Any, colour: str, opacity: float) -> Any:
        return base.mark_rule(color=colour, opacity=opacity).encode(
            x=alt.X("a_x:Q", scale=alt.Scale(domain=[-0.05, 4.05]), axis=None),
            x2="b_x:Q",
            y=alt.Y("a_row:Q", scale=alt.Scale(domain=[-0.6, deepest - 0.4], reverse=True), axis=None),
            y2="b_row:Q",
            size=alt.Size("share:Q", scale=alt.Scale(domain=[0, 1], range=[0.3, 4]), legend=None),
        )

    def ranked(base: Any) -> Any:
        base = base.transform_joinaggregate(most="max(now)", count="count()", groupby=["pair"])
        return base.transform_window(
            rank="row_number()", sort=[alt.SortField("value", order="descending")], groupby=["pair"]
        ).transform_calculate(share="datum.now / datum.most")

    every = drawn(ranked(lines("show === 'all'")), "#777", 0.18)
    chosen = drawn(
        ranked(lines("datum.aHigh && datum.bHigh")).transform_filter("datum.rank <= ceil(topEdges / 100 * datum.count)"),
        "#333",
        0.65,
    )
    pinned = [drawn(ranked(lines(pinned=end)), "#000", 0.9) for end in ("a", "b")]
    headings = [{"x": i + 0.1, "group": name, "row": -0.52} for i, (name, _) in enumerate(GROUPS.values())]
    heads = alt.Chart(alt.InlineData(values=headings)).encode(x=x, y=y)
    titles = heads.mark_point(shape="square", filled=True, size=150, opacity=1).encode(
        color=alt.Color("group:N", scale=colours, legend=None)
    ) + heads.mark_text(fontWeight="bold", fontSize=12, align="left", dx=10).encode(text="group:N")
    labels = [{"view": v, "row": i, "x": -0.04, "layer": n} for v, names in rows.items() for i, n in enumerate(names)]
    layer_names = (
        alt.Chart(alt.InlineData(values=labels))
        .transform_filter("datum.view === view")
        .mark_text(align="left", dy=-26, fontSize=11, color="#444")
        .encode(x=x, y=y, text="layer:N")
    )
    graph = alt.layer(every, chosen, *pinned, marks.add_params(hover, pin), letters, titles, layer_names).properties(
        width=WIDTH, height=ROW * deepest
    )
    told = alt.Chart(alt.InlineData(values=attacks)).transform_filter(f"{here} && datum.s === strength")
    heading = told.mark_text(align="left", fontSize=13).encode(x=alt.value(0), y=alt.value(8), text="told:N")
    name = told.mark_text(align="left", fontSize=14, fontWeight="bold").encode(x=alt.value(0), y=alt.value(-10), text="title:N")
    left = alt.vconcat((name + heading).properties(width=WIDTH, height=20), graph, spacing=4)
    right = _detail(all_neurons, here, hover, strengths)
    whole = alt.hconcat(left, right, spacing=24).resolve_scale(color="independent").add_params(*controls)
    spec = whole.configure_view(stroke=None).configure_axis(grid=False).configure_legend(symbolSize=120).to_dict()
    spec["datasets"] = spec.get("datasets", {}) | {
        "neurons": neurons,
        "edges": edges or [{"a": "", "b": "", "pair": 0, "w": [0]}],
        "pictures": pictures or [{"key": "", "url": ""}],
    }
    return spec


def _detail(neurons: Any, here: str, hover: Any, strengths: tuple[float, ...]) -> Any:
    """The card of the neuron under the pointer: its picture, and its activation against strength between two clean lines."""
    own = alt.Chart(neurons).transform_filter(hover).transform_filter(here)
    width = 250
    name = own.mark_text(align="left", fontSize=13, fontWeight="bold").encode(x=alt.value(0), y=alt.value(6), text="name:N")
    group = own.mark_text(align="left", fontSize=11).encode(x=alt.value(0), y=alt.value(24), text="group:N")
    heading = (name + group).properties(width=width, height=32)
    picture = (
        own.transform_filter("datum.picture !== ''")
        .transform_lookup(
            lookup="picture", from_=alt.LookupData(data=alt.NamedData(name="pictures"), key="key", fields=["url"])
        )
        .mark_image(width=width, height=54, align="left", baseline="top")
        .encode(x=alt.value(0), y=alt.value(0), url="url:N")
        .properties(width=width, height=54, title=alt.Title("what excites it: made, then images", fontSize=11, anchor="start"))
    )
    across, up = "strength (L2 radius)", "median activation"
    grid = "[" + ",".join(f"{s:g}" for s in (0.0, *strengths)) + "]"
    path = (
        own.transform_calculate(s=grid)
        .transform_flatten(["v", "s"])
        .mark_line(point=True, color="#000")
        .encode(x=alt.X("s:Q", title=across), y=alt.Y("v:Q", title=up, scale=alt.Scale(zero=False)))
    )
    at = (  # not written over v, from which it is computed anew when the strength is moved
        own.transform_calculate(here=f"{grid}[strength]", now="datum.v[strength]")
        .mark_point(size=140, color="#d7191c", filled=True)
        .encode(x=alt.X("here:Q", title=across), y=alt.Y("now:Q", title=up))
    )
    references = [
        own.transform_calculate(level=level, line=f"'{label}'")
        .mark_rule(strokeDash=dash, size=2)
        .encode(
            y="level:Q",
            color=alt.Color(
                "line:N",
                title="clean images of the",
                scale=alt.Scale(domain=["source class", "target class"], range=["#7bb573", "#2b83ba"]),
                legend=alt.Legend(orient="bottom"),
            ),
        )
        for level, label, dash in (("datum.v[0]", "source class", [6, 3]), ("datum.t", "target class", [2, 2]))
    ]
    lines = alt.layer(*references, path, at).properties(width=width - 40, height=170)
    return alt.vconcat(heading, picture, lines, spacing=8)


def page(graphs: Mapping[str, Graph], attack_names: Mapping[str, str], title: str) -> str:
    """The graph as one HTML page that needs nothing else."""
    found = spec_to_html(
        specification(graphs, attack_names),
        mode="vega-lite",
        vega_version=alt.VEGA_VERSION,
        vegalite_version=alt.VEGALITE_VERSION,
        vegaembed_version=alt.VEGAEMBED_VERSION,
        template="inline",
        embed_options={"actions": False, "renderer": "svg"},
        json_kwds={"separators": (",", ":")},
    )
    head = f"<title>{html.escape(title)}</title>\n{STYLE}"
    told = (
        "<p>Point at a neuron to see its card; click pins it and draws its edges, a click more lets go. A letter is its "
        "group: O original, B both, T target, E exploited by the attack.</p>"
    )
    begin = found.index("const spec = ")
    end = found.index("const embedOpt", begin)  # a name in the data must not end the script that it stands in
    found = found[:begin] + found[begin:end].replace("</", "<\\/") + found[end:]
    for before, after in (('<meta charset="UTF-8">', head), ("</head>\n<body>", told)):
        found = found.replace(before, f"{before}\n{after}", 1)
    return found
