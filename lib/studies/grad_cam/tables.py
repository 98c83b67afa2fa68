"""Study 0's numbers as tables, a row a network and measure, with 95 % intervals over images and seeds."""

import itertools
from typing import Any

import numpy as np
import pandas as pd

from lib.claims.cubes import Cubes
from lib.claims.intervals import Interval
from lib.studies.grad_cam.plan import LEVELS, Parameters, named

IDENTITIES = {
    "cam": "CAM = Z · Grad-CAM without ReLU, last layer",
    "sum": "without ReLU = Grad-CAM − counterfactual",
    "product": "Grad-CAM · counterfactual = 0",
    "softmax": "map of the probability = map of the score (it is not)",
}
SIGNS = {"positive": "for it", "counterfactual": "against it"}
CUES = ("shape", "texture")
EVIDENCE = {"score": "the class's score", "log": "the class's log-probability"}
KINDS = {"attack": "targeted attack", "noise": "random signs"}


def told(cubes: Cubes, p: Parameters, arch: str, measure: str, level: float = 0.0) -> Interval:
    """A measure of one network, a share: the mean over images and seeds, with its interval."""
    return cubes.interval(cubes.mean(arch, measure, level), measure, p.seeds, "share")


def _row(found: Interval, value: str = "value", **about: Any) -> dict[str, Any]:
    return about | {value: found.value, "low": found.low, "high": found.high}


def removal(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Rows (growth of, map, taken away, value, low, high): the growth of a class's score and log-probability once what its map
    marks is taken away, and once as much elsewhere on the same photographs is."""
    regions = {"what the map marks": "", "as much elsewhere": "/elsewhere"}
    return pd.DataFrame(
        [
            _row(
                _of_photographs(cubes, p, f"removal/{sign}/{kind}{suffix}", of=""),
                **{"growth of": what, "map": says, "taken away": region},
            )
            for (kind, what), (sign, says), (region, suffix) in itertools.product(
                EVIDENCE.items(), SIGNS.items(), regions.items()
            )
        ]
    )


def two_photographs(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Rows (map, value, low, high): the share of a class's map on its own half of a picture of two photographs."""
    asked = {
        "positive": "for it, last layer",
        "positive/middle": "for it, middle layer",
        "counterfactual": "against it, last layer",
    }
    return pd.DataFrame([_row(_of_photographs(cubes, p, f"two/{which}"), map=says) for which, says in asked.items()])


def photographs_under_attack(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Rows (measure, line, eps, value, low, high): whether the class aimed at is reached, how far the map moves."""
    return pd.DataFrame(
        [
            _row(_of_photographs(cubes, p, f"{measure}/{kind}", eps), measure=measure, line=says, eps=eps)
            for measure, (kind, says), eps in itertools.product(("reached", "nissim"), KINDS.items(), p.radii)
        ]
    )


def _of_photographs(cubes: Cubes, p: Parameters, measure: str, level: float = 0.0, of: str = "share") -> Interval:
    """The mean over photographs of the one published network, with its interval."""
    name = f"photo/{measure}"
    return cubes.interval(cubes.mean(p.published, name, level), name, 1, of)


def right(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Rows (network, value, low, high): the share of test images that a network gets right."""
    return pd.DataFrame([_row(told(cubes, p, a, "right"), network=named(a)) for a in p.architectures])


def identities(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """The largest relative difference of the two sides of each identity, of all images and seeds: a column a network."""

    def apart(arch: str, which: str) -> str:
        values = cubes.values.get((arch, f"{'photo/' if arch == p.published else ''}identity/{which}", 0.0))
        return "CAM not defined" if values is None else f"{np.nanmax(values):.2g}"

    every = [p.published, *p.architectures]
    columns = {named(a): {says: apart(a, which) for which, says in IDENTITIES.items()} for a in every}
    return pd.DataFrame(columns).rename_axis("largest relative difference, all images and seeds")


def two_objects(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Rows (network, class, map, share, low, high): how much of a class's map lies on the class's own objects."""
    classes = (("first", p.first), ("second", p.second))
    return pd.DataFrame(
        [
            _row(told(cubes, p, a, f"two/{sign}/{word}"), "share", network=named(a), **{"class": own, "map": says})
            for a, (word, own), (sign, says) in itertools.product(p.architectures, classes, SIGNS.items())
        ]
    )


def by_layer(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Rows (network, layer, measure, value, low, high): the share of a map's mass, and of peaks, that lies on the object."""
    return pd.DataFrame(
        [
            _row(told(cubes, p, a, f"{how}/{level}"), network=named(a), layer=level, measure=how)
            for a, level, how in itertools.product(p.architectures, LEVELS, ("energy", "pointing"))
        ]
    )


def under_attack(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Rows (measure, line, eps, value, low, high): whether the class aimed at is reached, how far the map of the true class
    moves, and, where there are masks, how much of it stays on the object; a line is a network and what is done to images."""
    there = {measure for _, measure, _ in cubes.values}
    measures = [m for m in ("reached", "nissim", "energy") if f"{m}/attack" in there]
    return pd.DataFrame(
        [
            _row(told(cubes, p, a, f"{measure}/{kind}", eps), measure=measure, line=f"{named(a)}, {says}", eps=eps)
            for measure, a, (kind, says), eps in itertools.product(measures, p.architectures, KINDS.items(), p.eps)
        ]
    )


def cues(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """The share of decisions for the class of the shape, and of the texture, where they disagree: a column a network."""

    def share(arch: str, cue: str) -> str:
        found = told(cubes, p, arch, f"by/{cue}")
        return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"

    columns = {named(a): {f"goes by {cue}": share(a, cue) for cue in CUES} for a in p.architectures}
    return pd.DataFrame(columns).rename_axis("share of decisions, 95 % interval")
