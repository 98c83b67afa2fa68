"""What explanations mark on a study's own networks, asked everywhere in one way: does the decision rest on these pixels?

Each explanation of EXPLAINED that a network has is asked about the class that the network decides for, and pixels are taken
away, or put in, in the order of its map (`lib.sanity.removal`). Measures are METHOD/deletion and METHOD/insertion: of the area
under the probability of the class, that of random orders less that of the map's (insertion: the other way round). Above 0 the
map marks what the decision rests on.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from lib.claims import intervals, measures
from lib.claims.cubes import Cubes
from lib.claims.rows import rows
from lib.explanations import by_name
from lib.explanations.by_name import METHODS, Settings
from lib.networks import contract, hooks
from lib.networks.classifier import Classifier
from lib.sanity.removal import deletion, insertion
from lib.system import devices

# CAM is left out: where it is defined it is Grad-CAM but for a factor (study 0)
EXPLAINED = ("gradcam", "gradcam++", "gradient", "gradxinput", "smoothgrad", "ig", "guided", "lrp")
RUNS = 2  # training runs of an arm, at most
WORDS = {"deletion": "taken away", "insertion": "put in"}


class Arm(NamedTuple):
    """An arm of a study as people read it, its architecture, and the jobs of its networks, a training run each."""

    name: str
    arch: str
    jobs: Sequence[tuple[Any, ...]]


def rows_of(
    model: torch.nn.Module, x: Tensor, y: Tensor, maps: Tensor, arm: str, seed: int, method: str, steps: int = 10
) -> list[pd.DataFrame]:
    """Both measures of one explanation: of its maps (N, h, w) of the classes y of images x (N, C, H, W)."""
    many, shares = devices.images_at_once(x.shape[-1], 256, graph=False), [i / steps for i in range(steps + 1)]
    gone, come = (curve(model, x, y, maps, shares=shares, batch=many) for curve in (deletion, insertion))
    return [
        rows(arm, seed, f"{method}/deletion", 0, gone.control - gone.area),
        rows(arm, seed, f"{method}/insertion", 0, come.area - come.control),
    ]


def measure(model: Classifier, x: Tensor, arm: Arm, seed: int, steps: int = 10) -> pd.DataFrame:
    """Both measures of every explanation of one network on images x; maps at a layer are those of its last stage."""
    settings = Settings(model.stages[-1], n=8, steps=8)
    x = x.to(next(model.parameters()).device)
    parts = x.split(devices.images_at_once(x.shape[-1], len(x)))
    with hooks.frozen(model), torch.no_grad():
        classes = [contract.logits_of(model, some).argmax(1) for some in parts]
    found = []
    for method in by_name.defined(EXPLAINED, arm.arch):
        maps = [by_name.explain(method, model, some, y, settings).values for some, y in zip(parts, classes, strict=True)]
        found += rows_of(model, x, torch.cat(classes), torch.cat(maps), arm.name, seed, method, steps)
    return pd.concat(found, ignore_index=True)


def table(found: pd.DataFrame) -> pd.DataFrame:
    """A row an arm and what is done, a column an explanation: the mean over images and training runs with half the width of its
    95 % interval, in which the runs of all arms moderate each other."""
    cubes = Cubes.of(found)
    arms = list(dict.fromkeys(found.arm))
    measured = dict.fromkeys(found.measure)
    cells = {}
    for name in measured:
        method, _, what = name.partition("/")
        known = {arm: cubes.values[arm, name, 0.0] for arm in arms if (arm, name, 0.0) in cubes.values}
        parts = [
            intervals.parts(intervals.over(v), images=v.shape[1], seeds=len(v), of=measures.measure("share", difference=True))
            for v in known.values()
        ]
        for arm, interval in zip(known, intervals.together(parts), strict=True):
            cells[WORDS[what], arm, METHODS.find(method).label] = _cell(interval)
    wide = pd.Series(cells).unstack(2, fill_value="–")
    columns = [METHODS.find(m).label for m in EXPLAINED if METHODS.find(m).label in wide]
    order = [(word, arm) for word in WORDS.values() for arm in arms]
    return wide.reindex(index=pd.MultiIndex.from_tuples(order, names=["pixels", "network"]), columns=columns)


def _cell(found: intervals.Interval) -> str:
    """A dash where no map marks anything, so that there is no number; a number alone where too few do for an interval."""
    if not math.isfinite(found.value):
        return "–"
    value, half = round(found.value, 3) + 0.0, (found.high - found.low) / 2
    return f"{value:.3f} ± {half:.3f}" if math.isfinite(half) else f"{value:.3f}"
