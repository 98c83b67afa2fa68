"""Study 1: what Chakraborty et al. say of deep and wide networks, claims 4 and 5; and what a run says that lacks a family."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lib.claims.claim import Kind, Rule
from lib.claims.court import OURS, Court
from lib.claims.intervals import Statistic, least, over_pairs
from lib.studies.attention_shift.statistics import by_eps, cube

SOURCE = "Chakraborty et al. 2022"
UP = Rule("above", 0.0)
FAMILIES = 3  # a plain one, a deep one with shortcuts, a wide one
DEEP = "Where maps have moved equally far, deep networks (plain, residual) keep more accuracy than a wide one (inception)"
STABLE = "The plain (VGG-like) network's maps move less than the residual and the inception network's"


class Row(NamedTuple):
    """A claim in words, and its statistic: a difference of two values of `measure`."""

    id: str
    kind: Kind
    statement: str
    compute: Statistic
    statistic: str
    source: str
    measure: str = "NISSIM"
    rule: Rule = UP
    difference: bool = True
    note: str = ""


def families(architectures: Sequence[str]) -> int:
    """How many families the networks come from, by their names: resnet50 and resnet101 are of one."""
    return len({re.sub(r"[-_]?v?\d+$", "", arch) for arch in architectures})


def absent(court: Court) -> None:
    """The paper's claims that compare families, where the run has too few for it: not testable, and the gate says why."""
    says = "families that the networks come from, of which a plain, a deep and a wide one are compared"
    court.gate("families", says, families(court.p.architectures), Rule("above", FAMILIES - 1))
    barred = (("deep-keeps-more", DEEP, 4, "accuracy"), ("plain-most-stable", STABLE, 5, "NISSIM"))
    for id, statement, number, measure in barred:
        court.add(
            id,
            "open question",
            statement,
            lambda i, s: float("nan"),
            UP,
            statistic="not computed: networks of one family are no comparison of families",
            source=f"{SOURCE}, claim {number}",
            measure=measure,
            gates=("families",),
            trained=not court.p.as_published,
        )


def rows(table: pd.DataFrame) -> list[Row]:
    """Claims 4 and 5, from one training run an architecture in the paper, of the networks COMPARED."""
    nissim, between = (cube(table, c) for c in ("nissim", "nissim_ceiling"))
    ceiling = {m: over_pairs(values[:, 0]) for m, values in between.items()}  # it is of clean maps, the same at every eps
    pred, truth = (cube(table, c) for c in ("pred_adv", "true"))
    correct = {m: pred[m] == truth[m] for m in pred}

    def mean_mod(m: str, i: np.ndarray, s: np.ndarray) -> float:
        return float(by_eps(nissim[m], i, s)[1:].mean())

    def over_ceiling(m: str, i: np.ndarray, s: np.ndarray) -> float:
        most = ceiling[m](i, s)
        return mean_mod(m, i, s) / most if most > 0 else float("nan")  # all maps are empty

    def vid(m: str, i: np.ndarray, s: np.ndarray) -> float:
        return float(by_eps(nissim[m], i, s)[1:].std())

    def least_of_others(what: Callable[[str, np.ndarray, np.ndarray], float]) -> Statistic:
        def others(i: np.ndarray, s: np.ndarray) -> list[float]:
            plain = what("plain", i, s)
            return [what(m, i, s) - plain for m in ("residual", "inception")]

        return least(others)

    def at_mod(m: str, mods: np.ndarray, i: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Accuracy where MOD has risen to `mods`, along the curve from eps 0 to the eps of its largest MOD."""
        shift, right = by_eps(nissim[m], i, s), by_eps(correct[m], i, s)
        top = int(shift.argmax()) + 1
        return np.interp(mods, np.maximum.accumulate(shift[:top]), right[:top])

    def deep_less_wide(i: np.ndarray, s: np.ndarray) -> float:
        reach = min(by_eps(a, i, s).max() for a in nissim.values())
        mods = np.linspace(0, reach, 21)[1:]
        deep = (at_mod("plain", mods, i, s) + at_mod("residual", mods, i, s)) / 2
        return float((deep - at_mod("inception", mods, i, s)).mean())

    smaller = "smaller of the residual and the inception network's - plain network's"
    note = "architecture and sparsity decide this; the paper had one training run an architecture"
    return [
        Row(
            "deep-keeps-more",
            "open question",
            DEEP,
            deep_less_wide,
            "accuracy at equal MOD, mean over MOD up to the largest that all reach, deep - wide",
            f"{SOURCE}, claim 4",
            measure="accuracy",
            note=note,
        ),
        Row(
            "plain-most-stable",
            "open question",
            STABLE,
            least_of_others(mean_mod),
            f"MOD, mean over eps: {smaller}",
            f"{SOURCE}, claim 5",
            note=note,
        ),
        Row(
            "plain-most-stable/ceiling",
            "open question",
            "The plain (VGG-like) network's maps move less than the others', each as a share of how far maps of different "
            "images are apart",
            least_of_others(over_ceiling),
            f"MOD over MOD between clean maps of different images, mean over eps: {smaller}",
            OURS,
            measure="ratio",
            note=note,
        ),
        Row(
            "vid-plain-smallest",
            "open question",
            "The plain (VGG-like) network's shift depends least on eps: its VID, the spread of MOD over eps, is smallest",
            least_of_others(vid),
            f"VID (standard deviation over eps of MOD): {smaller}",
            f"{SOURCE}, claim 5",
            measure="VID",
            note=note,
        ),
    ]
