"""Explanations under attack: how far a map moves, attacks on maps, manipulated networks."""

from lib.fooling.discrepancy import Bound, all_class, cam, integrated, l1, one_class, other_weights, proposition, two_class
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

__all__ = [
    "INTERVALS",
    "KINDS",
    "PASSIVE",
    "Bound",
    "Shifted",
    "Test",
    "aai",
    "all_class",
    "attacks",
    "cam",
    "centre",
    "frame",
    "integrated",
    "l1",
    "location",
    "one_class",
    "other_weights",
    "proposition",
    "succeeded",
    "swap",
    "swapped",
    "ternary",
    "test",
    "topk",
    "two_class",
]
