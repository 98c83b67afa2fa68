"""Study 1: what Chakraborty et al. say of deep and wide networks, claims 4 and 5; and what a run says that lacks a family."""

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
FAMILIES = 3  # a plain network, a deep one with shortcuts, a wide one
# which of the networks, ours and the paper's, are of which kind
PLAIN, DEEP, WIDE = ("plain", "vgg16"), ("residual", "resnet50", "resnet101"), ("inception", "inception_v3", "xception")
EQUALLY_FAR = "Where maps have moved equally far, deep networks ({}) keep more accuracy than wide ones ({})"
STABLE = "The plain (VGG-like) network's maps move less than those of {}"


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


def kinds(architectures: Sequence[str]) -> list[list[str]]:
    """The plain networks of a run, the deep and the wide ones."""
    return [[m for m in kind if m in architectures] for kind in (PLAIN, DEEP, WIDE)]


def absent(court: Court) -> None:
    """The paper's claims that compare families, where the run lacks one of them: not testable, and the gate says why."""
    says = "of a plain, a deep and a wide network, which are compared, how many kinds there are"
    court.gate("families", says, sum(map(bool, kinds(court.p.architectures))), Rule("above", FAMILIES - 1))
    deep, stable = EQUALLY_FAR.format("plain, residual", "inception"), STABLE.format("the residual and the inception network")
    barred = (("deep-keeps-more", deep, 4, "accuracy"), ("plain-most-stable", stable, 5, "NISSIM"))
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


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def rows(table: pd.DataFrame) -> list[Row]:
    """Claims 4 and 5, from one training run an architecture in the paper, of plain, deep and wide networks."""
    nissim, between = (cube(table, c) for c in ("nissim", "nissim_ceiling"))
    ceiling = {m: over_pairs(values[:, 0]) for m, values in between.items()}  # it is of clean maps, the same at every eps
    pred, truth = (cube(table, c) for c in ("pred_adv", "true"))
    correct = {m: pred[m] == truth[m] for m in pred}

    plains, deeps, wides = kinds(list(nissim))
    plain, others = plains[0], [*deeps, *wides]

    def mean_mod(m: str, i: np.ndarray, s: np.ndarray) -> float:
        return float(by_eps(nissim[m], i, s)[1:].mean())

    def over_ceiling(m: str, i: np.ndarray, s: np.ndarray) -> float:
        most = ceiling[m](i, s)
        return mean_mod(m, i, s) / most if most > 0 else float("nan")  # all maps are empty

    def vid(m: str, i: np.ndarray, s: np.ndarray) -> float:
        return float(by_eps(nissim[m], i, s)[1:].std())

    def least_of_others(what: Callable[[str, np.ndarray, np.ndarray], float]) -> Statistic:
        def more(i: np.ndarray, s: np.ndarray) -> list[float]:
            own = what(plain, i, s)
            return [what(m, i, s) - own for m in others]

        return least(more)

    def at_mod(m: str, mods: np.ndarray, i: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Accuracy where MOD has risen to `mods`, along the curve from eps 0 to the eps of its largest MOD."""
        shift, right = by_eps(nissim[m], i, s), by_eps(correct[m], i, s)
        top = int(shift.argmax()) + 1
        return np.interp(mods, np.maximum.accumulate(shift[:top]), right[:top])

    def deep_less_wide(i: np.ndarray, s: np.ndarray) -> float:
        reach = min(by_eps(nissim[m], i, s).max() for m in (*plains, *others))
        mods = np.linspace(0, reach, 21)[1:]
        deep, wide = (np.mean([at_mod(m, mods, i, s) for m in kind], axis=0) for kind in ([*plains, *deeps], wides))
        return float((deep - wide).mean())

    beside = _listed([f"the {m} network" for m in others])
    smaller = f"smallest of the others' ({', '.join(others)}) - plain network's ({plain})"
    note = "architecture and sparsity decide this; the paper had one training run an architecture"
    return [
        Row(
            "deep-keeps-more",
            "open question",
            EQUALLY_FAR.format(", ".join([*plains, *deeps]), ", ".join(wides)),
            deep_less_wide,
            "accuracy at equal MOD, mean over MOD up to the largest that all reach, deep - wide",
            f"{SOURCE}, claim 4",
            measure="accuracy",
            note=note,
        ),
        Row(
            "plain-most-stable",
            "open question",
            STABLE.format(beside),
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
