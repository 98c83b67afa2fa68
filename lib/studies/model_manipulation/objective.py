r"""Fine-tuning that fools an explanation and keeps the decision (Heo, Joo and Moon 2019), as a training objective.

.. math:: L = \mathrm{CE}(D) + \lambda L_{fool}(D_{fool}; w, w_0)

All weights are trained, in evaluation mode: BatchNorm keeps its running statistics (its scale and shift are trained), and
dropout is off. The explained class is the label. Passive foolings explain the batch of the cross-entropy itself, in the same
forward pass; the active one explains a batch of mosaics. The frozen network w0 gives the original maps.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.data import datasets
from lib.data.mosaics import Tile, mosaics
from lib.explanations import by_name
from lib.explanations.by_name import Settings
from lib.fooling import manipulation
from lib.networks import hooks, models
from lib.system import devices
from lib.training import cache
from lib.training.config import TrainConfig
from lib.training.objectives import Moment


def original(config: TrainConfig, device_name: str = "auto") -> Any:
    """The network that fine-tuning starts from, w0: trained here, or published (`weights="imagenet"`)."""
    if config.weights == "imagenet":
        classes = len(datasets.load(config.dataset, "test", size=config.size, channels=config.channels, limit=1).classes)
        network = models.create(config.arch, classes=classes, channels=config.channels, weights="imagenet")
        return network.to(devices.device(device_name)).eval()
    return cache.trained(config, device_name=device_name).model


@functools.lru_cache(maxsize=4)
def _original(config: str, device: str) -> nn.Module:
    return original(TrainConfig.model_validate_json(config), device)


@functools.lru_cache(maxsize=4)
def _pairs(
    config: str, device: str, pair: tuple[int, int], n: int, tile: Tile, interpreter: str, settings: Settings
) -> tuple[Tensor, Tensor]:
    """Mosaics of training images, and the original maps of both classes, (n, 2, l, l)."""
    c = TrainConfig.model_validate_json(config)
    data = datasets.load(c.dataset, "train", size=c.size, channels=c.channels, limit=c.limit)
    shown = mosaics(data, pair, n, tile=tile).images.to(device)
    classes = torch.tensor([pair], device=device).expand(len(shown), 2)
    model = _original(config, device)
    maps = [
        by_name.explain(interpreter, model, x, y, settings).values
        for x, y in zip(shown.split(64), classes.split(64), strict=True)
    ]
    return shown, torch.cat(maps)


def fool(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    moment: Moment,
    *,
    kind: str,
    interpreter: str = "gradcam",
    weight: float = 0.0,
    original: str = "",
    layer: str = "",
    composite: str = "heo",
    k: int | None = None,
    mask: list[list[float]] | None = None,
    pair: tuple[int, int] = (0, 1),
    pairs: int = 1100,
    pair_batch: int = 8,
    tile: Tile = "native",
) -> Tensor:
    """Cross-entropy plus `weight` times the fooling loss of `kind` (`lib.fooling`), per sample.

    `original` is the configuration of w0 as JSON; `mask` that of `location`, by rows at the resolution of `layer` (the frame
    unless given), `k` that of `topk`. Kind `none` is the control: the same fine-tuning without a fooling term;
    it takes no weight, and the others need one: ValueError otherwise.
    """
    if kind != "none" and (kind not in manipulation.KINDS or not weight > 0):
        raise ValueError(
            f"fooling {kind!r} with weight {weight:g}: choose one of {', '.join(manipulation.KINDS)} with a weight above 0"
        )
    if kind == "none" and weight:
        raise ValueError(f"the control 'none' has no fooling term, so its weight must be 0, not {weight:g}")
    settings = Settings(layer, composite)
    with hooks.frozen(model, parameters=True):
        if kind == "none":
            return F.cross_entropy(model(x), y, reduction="none")
        device = str(x.device)
        if kind == "active":
            shown, h0 = _pairs(original, device, tuple(pair), pairs, tile, interpreter, settings)
            index = torch.randint(len(shown), (pair_batch,), generator=moment.generator).to(x.device)
            both = torch.tensor([tuple(pair)], device=x.device).expand(pair_batch, 2)
            h = by_name.explain(interpreter, model, shown[index], both, settings, create_graph=True).values
            return F.cross_entropy(model(x), y, reduction="none") + weight * manipulation.swap(h, h0[index]).mean()
        h, logits = by_name.explain(interpreter, model, x, y, settings, create_graph=True)
        if kind == "location":
            loss = manipulation.location(h, None if mask is None else torch.tensor(mask))
        else:
            h0 = by_name.explain(interpreter, _original(original, device), x, y, settings).values
            loss = manipulation.topk(h, h0, k) if kind == "topk" else manipulation.centre(h, h0)
        return F.cross_entropy(logits, y, reduction="none") + weight * loss
