"""What explanations mark on a study's own networks, asked everywhere in one way: does the decision rest on these pixels?

Each explanation of EXPLAINED that a network has is asked about the class that the network decides for, and pixels are taken
away, or put in, in the order of its map (`lib.sanity.removal`). Measures are METHOD/deletion and METHOD/insertion: of the area
under the probability of the class, that of random orders less that of the map's (insertion: the other way round). Above 0 the
map marks what the decision rests on.
"""

import pandas as pd
import torch
from torch import Tensor

from lib.claims.rows import rows
from lib.explanations import by_name
from lib.explanations.by_name import Settings
from lib.networks import contract, hooks
from lib.networks.classifier import Classifier
from lib.sanity.removal import deletion, insertion
from lib.studies.parameters import Arm
from lib.system import devices

# CAM is left out: where it is defined it is Grad-CAM but for a factor (study 0)
EXPLAINED = ("gradcam", "gradcam++", "gradient", "gradxinput", "smoothgrad", "ig", "guided", "lrp")
RUNS = 2  # training runs of an arm, at most


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


def measure(model: Classifier, x: Tensor, arm: Arm, seed: int, steps: int) -> pd.DataFrame:
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
