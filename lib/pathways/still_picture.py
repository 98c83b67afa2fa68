"""The graph as a still picture."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lib.pathways.graph import Graph
from lib.pathways.layout import GROUPS, LETTER, placed, shares


def still(graph: Graph, attack: str, strength: int, *, neurons: float = 0.3, edges: float = 0.3) -> Figure:
    """The graph as a picture: edges of the most excited neurons, at one strength (by number, from 1)."""
    spots = placed(graph)
    fig, ax = plt.subplots(figsize=(9.5, 0.9 * len(graph.layers) + 1.2))
    place: dict[tuple[str, int], tuple[float, float]] = {(s["layer"], s["channel"]): (s["x"], -s["row"]) for s in spots}
    high: dict[tuple[str, int], bool] = {}
    for layer in graph.layers:
        shown = list(layer.groups.shown)
        if shown:
            excited = shares(layer.attacked[attack][strength - 1][shown] - layer.clean[shown]) < neurons
            high |= {(layer.name, c): bool(e) for c, e in zip(shown, excited, strict=True)}
    for lower, upper, matrices in zip(graph.layers, graph.layers[1:], graph.edges[attack], strict=False):
        now, clean = matrices[strength], matrices[0]
        ends = [
            (now[i, j] - clean[i, j], now[i, j], place[lower.name, a], place[upper.name, b])
            for i, a in enumerate(lower.groups.shown)
            for j, b in enumerate(upper.groups.shown)
            if now[i, j] > 0 and high[lower.name, a] and high[upper.name, b]
        ]
        ends.sort(key=lambda e: -e[0])
        most = max((e[1] for e in ends), default=1.0)
        for _, value, (x0, y0), (x1, y1) in ends[: int(np.ceil(edges * len(ends)))]:
            ax.plot([x0, x1], [y0, y1], color="#333333", linewidth=0.4 + 2.4 * value / most, alpha=0.55, zorder=1)
    for s in spots:
        strong = high[s["layer"], s["channel"]]
        ax.scatter(
            s["x"],
            -s["row"],
            s=190,
            color=GROUPS[s["group"]][1],
            alpha=1.0 if strong else 0.4,
            zorder=2,
            edgecolors="black" if strong else "none",
        )
        ax.text(s["x"], -s["row"], LETTER[s["group"]], ha="center", va="center", fontsize=8, zorder=3)
    for i, (name, colour) in enumerate(GROUPS.values()):
        ax.text(i + 0.5, 0.55, name, ha="center", fontweight="bold", bbox={"color": colour, "alpha": 0.5, "pad": 2})
        if i:
            ax.axvline(i, color="#dddddd", zorder=0)
    ax.set_yticks([-i for i in range(len(graph.layers))], [layer.name for layer in reversed(graph.layers)])
    ax.set_ylim(-len(graph.layers) + 0.5, 0.9)
    ax.set_xlim(0, 4)
    ax.set_xticks([])
    ax.grid(False)
    ax.set_ylabel("layer")
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    return fig
