"""The graph of study 6 as a page that needs no kernel and no network.

Moving the strength or the highlighting, pointing, keys and saving are answered by the page itself. Its scripts and numbers
stand in it compressed. Pages of reports share one file of what draws them (`write`); any other page, and what a reader saves,
needs no file beside it.
"""

import functools
import html
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.figures.packed import element, held, packed
from lib.pathways import interactive
from lib.pathways.graph import Graph
from lib.pathways.layout import GROUPS, LETTER
from lib.pathways.neurons import CHANGES
from lib.pathways.page_script import SCRIPT, STYLE
from lib.system import files

UNIT = "L2 length of the change, pixels in [0, 1]"
FILE, LIBRARY = "graph.html", "vega.js"  # a page of a report, and what draws all such pages
_SHARING = re.compile(re.escape(element("library", "")) + r'<script src="[^"]*"></script>')

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="UTF-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1 id="title">{title}</h1>
<p><b id="told" role="status">drawing …</b><br><span id="counted" class="faint"></span></p>
<div class="controls">{controls}</div>
<details id="more" open><summary>What is highlighted, and a comparison of two strengths</summary>
<div class="controls">{more}</div></details>
<div class="both">
<div>
<div id="groups">{groups}</div>
<div id="graph" tabindex="0" role="group" aria-label="The graph: arrow keys move from neuron to neuron, Enter pins one"
 aria-describedby="alternative"></div>
<p id="alternative" class="said"></p>
<p id="shapes" class="faint" hidden>Highlighted by ▼ the weaker attack alone, ▲ the stronger alone, ◆ both, ● neither.</p>
</div>
<aside aria-live="polite">
<h2 id="name"></h2>
<p id="group" class="faint"></p>
<span id="what" class="faint"></span>
<img id="picture" alt="">
<dl id="numbers"></dl>
<div id="curve" role="img" aria-label="The neuron's median activation against strength; the numbers above say it"></div>
</aside>
</div>
<p class="faint">Rows are layers, the last on top. A dot is a neuron, a channel of the layer; letter and colour are its group:
which of the highest neurons are those of clean images of the source class alone (original), of the target class alone, of
both, or of attacked images alone (exploited). A line is how strongly a neuron drives one of the next layer. Point at a neuron,
or move with the arrow keys; a click, or Enter, pins it and draws all its edges. Its vulnerability is how far its rank in the
layer moves, over the strength, summed over all strengths.</p>
<p><b>Save</b> <button id="save-picture">picture (SVG)</button><button id="save-edges">edges at this strength (CSV)</button>
<button id="save-parameters">parameters (JSON)</button><button id="save-page">this page (HTML)</button></p>
<details id="has-code"><summary>The code that makes this graph</summary>
<button id="copy">copy</button><pre id="code"></pre></details>
</main>
<script type="application/json" id="state">{{}}</script>
{library}
{data}
<script>{script}</script>
</body>
</html>
"""


@functools.cache
def _library() -> str:
    return packed(interactive.library())


def write(page: str, folder: Path, assets: Path) -> Path:
    """Write a page as FILE into a folder, and what draws it, once for all pages, as LIBRARY into `assets`. That fills the page
    before anything is drawn and takes itself away: the page saves itself whole."""
    fills = f'document.getElementById("library").textContent = "{_library()}";\ndocument.currentScript.remove();\n'
    files.write_bytes(assets / LIBRARY, fills.encode())
    address = Path(os.path.relpath(assets / LIBRARY, folder)).as_posix()
    shares = element("library", "") + f'<script src="{html.escape(address, quote=True)}"></script>'
    files.write_bytes(folder / FILE, page.replace(element("library", _library()), shares).encode())
    return folder / FILE


def read(file: Path) -> str:
    """A page as `page` made it, wherever it shall be shown."""
    return _SHARING.sub(lambda _: element("library", _library()), file.read_text(encoding="utf-8"))


def contents(page: str) -> dict[str, Any]:
    """What a page shows: `spec` (for Vega-Lite, with all rows), `told` by strength, `pictures`, `views` and their settings."""
    return json.loads(held(page, "graphs"))


def page(graphs: Mapping[str, Graph], attack_names: Mapping[str, str], title: str, *, unit: str = UNIT) -> str:
    """Graphs as one HTML page, by what a reader chooses them by; `attack_names` are what attacks are called, `unit` is that of
    their strengths. Raises ValueError for graphs of other strengths or attacks than each other, and where nothing is shown."""
    strengths, attacks = interactive.alike(graphs)
    neurons, edges, told, pictures = interactive.tables(graphs)
    data = {
        "spec": interactive.specification(graphs, neurons, edges),
        "curve": interactive.curve(unit),
        "told": told,
        "pictures": {p["key"]: p["url"] for p in pictures},
        "views": {view: _about(graph) for view, graph in graphs.items()},
        "attacks": {a: attack_names.get(a, a) for a in attacks},
        "strengths": strengths,
        "unit": unit,
    }
    last = len(strengths)
    controls = [
        _menu("view", "network and classes", {v: v for v in graphs}),
        _menu("attack", "attack", data["attacks"]),
        _range("strength", "strength", 0, last, 1, unit),
    ]
    more = [
        _menu("by", "highlight neurons most", {c: c for c in CHANGES}),
        _range("topNeurons", "highest % of neurons", 5, 100, 5),
        _range("topEdges", "highest % of edges", 5, 100, 5),
        _menu("show", "edges", {"highlighted": "highlighted", "all": "all"}),
        _menu("compare", "compare with a weaker attack", {"no": "no", "yes": "yes"}),
        _range("weak", "weaker strength", 0, last, 1),
    ]
    groups = [f'<span style="--own: {c}" data-letter="{LETTER[g]}">{name}</span>' for g, (name, c) in GROUPS.items()]
    return _PAGE.format(
        title=html.escape(title),
        style=STYLE,
        controls="\n".join(controls),
        more="\n".join(more),
        groups="".join(groups),
        library=element("library", _library()),
        data=element("graphs", packed(json.dumps(data, separators=(",", ":"), allow_nan=False))),
        script=SCRIPT,
    )


def counted(graph: Graph) -> str:
    """How many images everything that a graph shows is counted over."""
    over = f"counted over {interactive.counted(graph.images)} of {graph.source}"
    if not graph.targets:
        return f"{over} and none of {graph.target}: which neurons are the target's is not known"
    return f"{over} and {interactive.counted(graph.targets)} of {graph.target}"


def _about(graph: Graph) -> dict[str, Any]:
    """What is said of a graph beside it, and kept with what is saved of it."""
    made = graph.settings.get("steps that make a picture of a neuron", 1)
    shown = "an image made to excite it, then parts of images that do most" if made else "parts of images that excite it most"
    return {
        "title": graph.title or f"{graph.source} → {graph.target}",
        "counted": counted(graph),
        "columns": interactive.columns(graph),
        "layers": [layer.name for layer in graph.layers],
        "settings": {"source": graph.source, "target": graph.target} | dict(graph.settings),
        "pictures": shown,
        "code": graph.code,
    }


def _menu(name: str, label: str, options: Mapping[str, str]) -> str:
    chosen = "".join(f'<option value="{html.escape(v, quote=True)}">{html.escape(t)}</option>' for v, t in options.items())
    alone = " hidden" if name == "view" and len(options) == 1 else ""
    return f'<div{alone}><label for="{name}">{label}</label><select id="{name}">{chosen}</select></div>'


def _range(name: str, label: str, low: int, high: int, step: int, unit: str = "") -> str:
    told = f" ({html.escape(unit)})" if unit else ""
    slider = f'<input id="{name}" type="range" min="{low}" max="{high}" step="{step}">'
    return f'<div><label for="{name}">{label} <output id="{name}-value"></output>{told}</label>{slider}</div>'


def framed(page: str, title: str = "attack pathways") -> str:
    """A page within another one, as wide as that is and as high as it needs: HTML that holds all of it."""
    return (
        f'<div><iframe title="{html.escape(title, quote=True)}" style="width: 100%; height: 1000px; border: 0" '
        f'srcdoc="{html.escape(page, quote=True)}"></iframe></div>'
    )


def beside(address: str, title: str = "The interactive graph of attack pathways") -> str:
    """A page that lies beside a report, shown in it: HTML that holds its address alone. Elsewhere (in JupyterLab, whose folder
    is another) there is no such page at that address, and nothing is shown or asked for."""
    told, name = html.escape(address, quote=True), html.escape(title, quote=True)
    only = "<style>.in-report { display: none } body.jp-Notebook .in-report { display: block }</style>"
    look = "width: 100%; height: 1100px; border: 1px solid #ccc"
    return (
        f'{only}<div class="in-report"><p><a href="{told}">The graph on a page of its own</a></p>'
        f'<iframe title="{name}" src="{told}" loading="lazy" style="{look}"></iframe></div>\n<script>{_FITTING}</script>'
    )


# A page in a file may not reach the one around it, but tells its height.
_FITTING = """addEventListener("message", event => {
  const frame = document.querySelector(".in-report iframe");
  if (frame && event.source === frame.contentWindow && event.data.height > 0) frame.style.height = `${event.data.height}px`;
});"""
