"""The graph as a still picture."""

from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from lib.pathways.graph import Graph
from lib.pathways.layout import GROUPS, LETTER, placed, shares

FITTING = 9  # full-sized dots that lie side by side in a group


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
    fitting = min(1.0, FITTING / max(Counter((s["row"], s["group"]) for s in spots).values(), default=1))
    for s in spots:
        strong = high[s["layer"], s["channel"]]
        ax.scatter(
            s["x"],
            -s["row"],
            s=190 * fitting**2,
            color=GROUPS[s["group"]][1],
            alpha=1.0 if strong else 0.4,
            zorder=2,
            edgecolors="black" if strong else "none",
        )
        ax.text(s["x"], -s["row"], LETTER[s["group"]], ha="center", va="center", fontsize=8 * fitting, zorder=3)
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


def examples(graph: Graph) -> Figure:
    """By layer (the last on top) and group, the first neuron with its number and its card: what excites it most.

    The first of a group is its most activated one, of the exploited ones that of the weakest strength. Raises ValueError for a
    graph without cards.
    """
    if not any(graph.cards.values()):
        raise ValueError("this graph has no pictures of neurons; build it with patches or features above 0")
    widest = max(card.width / card.height for of_layer in graph.cards.values() for card in of_layer.values())
    size = (len(GROUPS) * 0.7 * widest + 1.0, 0.9 * len(graph.layers) + 0.4)
    fig, axes = plt.subplots(len(graph.layers), len(GROUPS), figsize=size, squeeze=False)
    for line, layer in zip(axes, reversed(graph.layers), strict=True):
        groups = layer.groups
        first = (groups.original, groups.both, groups.target, groups.exploited_ever)
        for ax, channels in zip(line, first, strict=True):
            ax.axis("off")
            if channels and channels[0] in graph.cards[layer.name]:
                ax.imshow(graph.cards[layer.name][channels[0]], interpolation="lanczos")
                ax.set_title(f"neuron {channels[0]}", fontsize=7, pad=2)
        line[0].annotate(
            layer.name, (0, 0.5), xytext=(-6, 0), xycoords="axes fraction", textcoords="offset points", ha="right", va="center"
        )
    for ax, (name, colour) in zip(axes[0], GROUPS.values(), strict=True):
        ax.annotate(
            name,
            (0.5, 1),
            xytext=(0, 14),  # above the neurons' numbers
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            fontweight="bold",
            bbox={"color": colour, "alpha": 0.5, "pad": 2},
        )
    return fig
