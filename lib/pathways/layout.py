"""Where the neurons of a graph stand: groups side by side, a layer a row."""

from typing import Any

import numpy as np

from lib.pathways.graph import Graph

# The four groups with the colours and the order of Bluff
GROUPS = {
    "original": ("original", "#abdda4"),
    "both": ("both", "#fdae61"),
    "target": ("target", "#2b83ba"),
    "exploited": ("exploited by attack", "#d7191c"),
}
LETTER = {"original": "O", "both": "B", "target": "T", "exploited": "E"}


def shares(values: np.ndarray) -> np.ndarray:
    """The share of the others that are higher, along the last dimension, in [0, 1); of equal ones the first is higher."""
    order = np.argsort(-values, axis=-1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(values.shape[-1]), values.shape), axis=-1)
    return ranks / values.shape[-1]


def placed(graph: Graph) -> list[dict[str, Any]]:
    """Every neuron of the graph with its place: group, row (0 for the last layer), x in [0, 4)."""
    found = []
    widest = {g: max((len(layer.groups.of(g)) for layer in graph.layers), default=1) for g in GROUPS}
    for row, layer in enumerate(reversed(graph.layers)):
        for column, group in enumerate(GROUPS):
            for i, channel in enumerate(layer.groups.of(group)):
                x = column + (i + 0.5) / max(widest[group], 1)
                found.append({"layer": layer.name, "row": row, "channel": channel, "group": group, "x": round(x, 4)})
    return found
