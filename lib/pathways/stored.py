"""A graph as bytes, to be kept and found again as it was: numbers to the last bit, cards without loss."""

import dataclasses
import io
import json
import zipfile

import numpy as np

from lib.pathways.cards import from_png, to_png
from lib.pathways.graph import Graph, Layer
from lib.pathways.neurons import Groups


def packed(graph: Graph) -> bytes:
    """A graph as one file in numpy's format for several arrays."""
    arrays: dict[str, np.ndarray] = {}
    layers = []
    for i, layer in enumerate(graph.layers):
        layers.append({"name": layer.name, "groups": layer.groups._asdict()})
        arrays |= {f"{i}/clean": layer.clean, f"{i}/target": layer.target}
        for attack in graph.edges:
            arrays |= {f"{i}/attacked/{attack}": layer.attacked[attack]}
            arrays |= {f"{i}/vulnerability/{attack}": layer.vulnerability[attack]}
        for channel, picture in graph.cards.get(layer.name, {}).items():
            arrays[f"{i}/card/{channel}"] = np.frombuffer(to_png(picture), np.uint8)
    for attack, pairs in graph.edges.items():
        arrays |= {f"edges/{attack}/{i}": matrices for i, matrices in enumerate(pairs)}
    plain = {f.name: getattr(graph, f.name) for f in dataclasses.fields(graph) if f.name not in ("layers", "edges", "cards")}
    told = {**plain, "layers": layers, "attacks": list(graph.edges), "pictured": list(graph.cards)}
    arrays["graph"] = np.frombuffer(json.dumps(told).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpacked(content: bytes) -> Graph:
    """The graph that `packed` made bytes of. Raises ValueError for other bytes."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        told = json.loads(arrays["graph"].tobytes())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"these {len(content)} bytes are no graph that was kept ({error}); trace it anew") from error
    attacks, cards = told.pop("attacks"), {name: {} for name in told.pop("pictured")}  # type: dict[str, Any]
    layers = []
    for i, layer in enumerate(told.pop("layers")):
        groups = layer["groups"]
        exploited = tuple(map(tuple, groups.pop("exploited")))
        layers.append(
            Layer(
                layer["name"],
                Groups(**{name: tuple(channels) for name, channels in groups.items()}, exploited=exploited),
                arrays[f"{i}/clean"],
                arrays[f"{i}/target"],
                {a: arrays[f"{i}/attacked/{a}"] for a in attacks},
                {a: arrays[f"{i}/vulnerability/{a}"] for a in attacks},
            )
        )
        for name in (n for n in arrays if n.startswith(f"{i}/card/")):
            cards[layer["name"]][int(name.rsplit("/", 1)[1])] = from_png(arrays[name].tobytes())
    edges = {a: [arrays[f"edges/{a}/{i}"] for i in range(len(layers) - 1)] for a in attacks}
    strengths = tuple(told.pop("strengths"))
    return Graph(**told, strengths=strengths, layers=tuple(layers), edges=edges, cards=cards)
