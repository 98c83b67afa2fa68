"""Attack pathways through a network: neurons, what influences them, and the graph.

The index of this folder, a line a name: what it is and its source. Das, Park et al. 2020 (Bluff), arXiv:2009.02608, print no
numbered equations that are cited here; the quantities have names.

* `scores`, `Scores`, `median`, `percentile`, `top`: a neuron's score, medians over images, ranks. Bluff, arXiv:2009.02608.
* `groups`, `Groups`: original, both, target, exploited by the attack. Likewise.
* `change`, `CHANGES`: most activated, changed, excited, inhibited. Likewise.
* `vulnerability`: how far percentiles move over strength; in their code alone.
* `influence`, `slices`: influence of a neuron on one of the next layer. Likewise.
* `strongest`: of paths the strongest, of a path its weakest step. Likewise.
* `clamped`, `chosen`, `drawn`, `most_excited`: decisions while neurons hold their clean values, and which neurons. Geiger et
  al. 2021, arXiv:2106.02997.
* `build`, `Graph`, `Layer`, `Attack`, `top_count`: the graph of a network, two classes and attacks.
* `cut`, `patches`, `Patch`: of images, what excites a neuron most. What is made to excite it (`features.features`): Erhan et
  al. 2009; Olah et al. 2017, doi:10.23915/distill.00007.
* `card`, `card_uri`: both in one picture.
* `placed`, `shares`, `GROUPS`: where neurons stand.
* `page`, `framed`, `beside`: the graph to explore, as a page, within a notebook and within a report.
* `write`, `read`: a page as a file that shares what draws it with others, and as it was.
* `specification`, `tables`, `contents`, `still`, `examples`: what a page draws, the graph as a figure, and some of its neurons.
* `packed`, `unpacked`: a graph as bytes, to be kept.
"""

from lib.pathways.cards import card, card_uri
from lib.pathways.features import Patch, cut, patches
from lib.pathways.graph import Attack, Graph, Layer, build, top_count
from lib.pathways.influences import influence, slices, strongest
from lib.pathways.interactive import specification, tables
from lib.pathways.interventions import chosen, clamped, drawn, most_excited
from lib.pathways.layout import GROUPS, placed, shares
from lib.pathways.neurons import CHANGES, Groups, Scores, change, groups, median, percentile, scores, top, vulnerability
from lib.pathways.pages import beside, contents, framed, page, read, write
from lib.pathways.still_picture import examples, still
from lib.pathways.stored import packed, unpacked

__all__ = [
    "CHANGES",
    "GROUPS",
    "Attack",
    "Graph",
    "Groups",
    "Layer",
    "Patch",
    "Scores",
    "beside",
    "build",
    "card",
    "card_uri",
    "change",
    "chosen",
    "clamped",
    "contents",
    "cut",
    "drawn",
    "examples",
    "framed",
    "groups",
    "influence",
    "median",
    "most_excited",
    "packed",
    "page",
    "patches",
    "percentile",
    "placed",
    "read",
    "scores",
    "shares",
    "slices",
    "specification",
    "still",
    "strongest",
    "tables",
    "top",
    "top_count",
    "unpacked",
    "vulnerability",
    "write",
]
