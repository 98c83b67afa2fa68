"""Explanations under attack: how far a map moves, attacks on maps, manipulated networks.

The index of this folder, a line a name: what it is, its source, its equation. Neither paper's equation numbers are cited:
the quantities have names there, and these are given.

* `l1`: the L1 distance of maps. Boopathy et al. 2020, arXiv:2006.14748.
* `one_class`: the 1-class discrepancy. Likewise.
* `two_class`: the 2-class discrepancy. Likewise.
* `all_class`, `other_weights`: the discrepancy that training lowers, over all classes. Likewise.
* `proposition`, `Bound`: both sides of Proposition 1. Likewise.
* `cam`, `integrated`: the complete maps that these compare. Likewise; integrated gradients, arXiv:1703.01365, sec. 3.
* `aai`, `attacks`, `Shifted`: the attack against interpretability, in the form printed and in that of the code. Likewise.
* `move_maps`, `MovedMaps`: attacks on any explanation. Ghorbani et al. 2019, arXiv:1710.10547, sec. 2; Dombrowski
  et al. 2019, arXiv:1906.07983, secs. 2 and 3.
* `GOALS`, `Goal`: what they climb: how far a map has gone. Likewise.
* `sneak`, `Sneaked`: the attack that fools the decision and hides from the map. Boopathy et al. 2020, arXiv:2006.14748.
* `location`, `frame`: location fooling, and its mask. Heo et al. 2019, arXiv:1902.02041.
* `topk`: top-k fooling. Likewise.
* `centre`: center-mass fooling. Likewise.
* `swap`, `swapped`: active fooling: its loss, and its test loss by rank correlation. Likewise.
* `ternary`: the maps of signs that their code correlates.
* `before_and_after`, `BeforeAfter`, `Asked`, `Force`: one image before and after an attack: decisions, maps, how far they move.
* `signs_of_the_size`: the control beside it, random signs.
* `test`, `Test`, `succeeded`, `INTERVALS`, `KINDS`, `PASSIVE`: test losses and the fooling success rate. Likewise.
"""

from lib.fooling.before_after import Asked, BeforeAfter, Force, before_and_after, signs_of_the_size
from lib.fooling.discrepancy import Bound, all_class, cam, integrated, l1, one_class, other_weights, proposition, two_class
from lib.fooling.goals import GOALS, Goal
from lib.fooling.interpretation_attack import Shifted, aai, attacks
from lib.fooling.manipulation import (
    INTERVALS,
    KINDS,
    PASSIVE,
    Test,
    centre,
    frame,
    location,
    succeeded,
    swap,
    swapped,
    ternary,
    test,
    topk,
)
from lib.fooling.map_attack import MovedMaps, move_maps
from lib.fooling.sneaking import Sneaked, sneak

__all__ = [
    "GOALS",
    "INTERVALS",
    "KINDS",
    "PASSIVE",
    "Asked",
    "BeforeAfter",
    "Bound",
    "Force",
    "Goal",
    "MovedMaps",
    "Shifted",
    "Sneaked",
    "Test",
    "aai",
    "all_class",
    "attacks",
    "before_and_after",
    "cam",
    "centre",
    "frame",
    "integrated",
    "l1",
    "location",
    "move_maps",
    "one_class",
    "other_weights",
    "proposition",
    "signs_of_the_size",
    "sneak",
    "succeeded",
    "swap",
    "swapped",
    "ternary",
    "test",
    "topk",
    "two_class",
]
