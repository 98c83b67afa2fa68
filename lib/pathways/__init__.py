"""Attack pathways through a network: neurons, what influences them, and the graph."""

from lib.pathways.cards import card, card_uri
from lib.pathways.features import Patch, cut, patches
from lib.pathways.graph import Attack, Graph, Layer, build, top_count
from lib.pathways.influences import influence, slices, strongest
from lib.pathways.interactive import page, specification, tables
from lib.pathways.layout import GROUPS, placed, shares
from lib.pathways.neurons import CHANGES, Groups, Scores, change, groups, median, percentile, scores, top, vulnerability
from lib.pathways.still_picture import still

__all__ = [
    "CHANGES",
    "GROUPS",
    "Attack",
    "Graph",
    "Groups",
    "Layer",
    "Patch",
    "Scores",
    "build",
    "card",
    "card_uri",
    "change",
    "cut",
    "groups",
    "influence",
    "median",
    "page",
    "patches",
    "percentile",
    "placed",
    "scores",
    "shares",
    "slices",
    "specification",
    "still",
    "strongest",
    "tables",
    "top",
    "top_count",
    "vulnerability",
]
