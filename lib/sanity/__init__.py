"""Sanity of explanations: whether they depend on what a network has learnt, and mark what it rests on.

The index of this folder, a line a name: what it is, its source, its equation. What has no source is of this study.

* `randomised`, `Randomised`, `layers_of`, `Layer`: copies of a network with random weights, in a cascade or layer by layer.
  Adebayo et al. 2018, arXiv:1810.03292.
* `permuted`: a tensor's values in random order.
* `after_randomisation`, `Invariance`, `EDGES`: how similar maps stay then, and an edge detector's beside them. Likewise.
* `deletion`, `insertion`, `Curves`: the probability as pixels go or come in a map's order. Petsiuk et al. 2018,
  arXiv:1806.07421.
* `road`: the same, with pixels filled in from their neighbours. Rong et al. 2022, arXiv:2202.00449.
* `imputed`: that noisy linear imputation, without the noise. Likewise.
* `removal_ranks`, `shuffled`: the order of a map, and of its control.
* `blurred`: the image that insertion starts from.
"""

from lib.sanity.imputation import imputed
from lib.sanity.invariance import EDGES, Invariance, after_randomisation
from lib.sanity.randomisation import Layer, Randomised, layers_of, permuted, randomised
from lib.sanity.removal import Curves, blurred, deletion, insertion, removal_ranks, road, shuffled

__all__ = [
    "EDGES",
    "Curves",
    "Invariance",
    "Layer",
    "Randomised",
    "after_randomisation",
    "blurred",
    "deletion",
    "imputed",
    "insertion",
    "layers_of",
    "permuted",
    "randomised",
    "removal_ranks",
    "road",
    "shuffled",
]
