r"""Fine-tuning that fools an explanation and keeps the decision (Heo, Joo and Moon 2019), as a training objective.

.. math:: L = \mathrm{CE}(D) + \lambda L_{fool}(D_{fool}; w, w_0)

All weights are trained, in evaluation mode: BatchNorm keeps its running statistics (its scale and shift are trained), and
dropout is off. The explained class is the label. Passive foolings explain the batch of the cross-entropy itself, in the same
forward pass; the active one explains a batch of mosaics. The frozen network w0 gives the original maps.

The cross-entropy is with the labels, or with the probabilities of w0 (`keep="decisions"`): where images show some of the
classes alone, labels teach a network that there are no others.
"""

import functools
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lib.data import datasets
from lib.data.mosaics import Tile, mosaics
from lib.explanations import by_name
from lib.explanations.by_name import Settings
from lib.fooling import manipulation
from lib.networks import hooks
from lib.system import devices
from lib.training.objectives import Moment

Keep = Literal["labels", "decisions"]


@functools.lru_cache(maxsize=4)
def _pairs(
    teacher: nn.Module,
    name: str,
    size: int,
    channels: Literal[1, 3],
    limit: int | None,
    pair: tuple[int, int],
    n: int,
    tile: Tile,
    again: bool,
    interpreter: str,
    settings: Settings,
) -> tuple[Tensor, Tensor]:
    """Mosaics of training images, and the original maps of both classes, (n, 2, l, l)."""
    data = datasets.load(name, "train", size=size, channels=channels, limit=limit)
    device = next(teacher.parameters()).device
    shown = mosaics(data, pair, n, tile=tile, again=again).images.to(device)
    classes = torch.tensor([pair], device=device).expand(len(shown), 2)
    many = devices.images_at_once(size, 64)
    maps = [
        by_name.explain(interpreter, teacher, x, y, settings).values
        for x, y in zip(shown.split(many), classes.split(many), strict=True)
    ]
    return shown, torch.cat(maps)


def _kept(logits: Tensor, x: Tensor, y: Tensor, moment: Moment, keep: Keep, said: Tensor | None = None) -> Tensor:
    """Cross-entropy with the labels, or with what w0 says of the images (its logits, where they are known), per sample."""
    if keep == "labels":
        return F.cross_entropy(logits, y, reduction="none")
    # deviation: the probabilities of w0 in place of labels; Heo et al. have images of every class, and use labels.
    if said is None:
        with hooks.frozen(moment.teacher), torch.no_grad():
            said = moment.teacher(x)
    return F.cross_entropy(logits, said.detach().softmax(1), reduction="none")


def fool(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    moment: Moment,
    *,
    kind: str,
    interpreter: str = "gradcam",
    weight: float = 0.0,
    layer: str = "",
    composite: str = "heo",
    k: int | None = None,
    mask: list[list[float]] | None = None,
    pair: tuple[int, int] = (0, 1),
    pairs: int = 1100,
    pair_batch: int = 8,
    tile: Tile = "native",
    again: bool = False,
    data: dict[str, Any] | None = None,
    keep: Keep = "labels",
) -> Float[Tensor, " n"]:
    """Cross-entropy plus `weight` times the fooling loss of `kind` (`lib.fooling.manipulation`), per sample.

    w0 is the moment's teacher; `data` says which training images the mosaics of `active` are made of (name, size, channels,
    limit), `again` that images may be in several; `mask` is that of `location`, by rows at the resolution of `layer` (the frame
    unless given), `k` that of `topk`; `keep` says what the cross-entropy is with. Kind `none` is the control: the same
    fine-tuning without a fooling term; it takes no weight, and the others need one. ValueError otherwise, and where w0 is
    needed and missing.
    """
    if kind != "none" and (kind not in manipulation.KINDS or not weight > 0):
        raise ValueError(
            f"fooling {kind!r} with weight {weight:g}: choose one of {', '.join(manipulation.KINDS)} with a weight above 0"
        )
    if kind == "none" and weight:
        raise ValueError(f"the control 'none' has no fooling term, so its weight must be 0, not {weight:g}")
    if keep not in get_args(Keep):
        raise ValueError(f"keep={keep!r}: choose one of {', '.join(get_args(Keep))}")
    if (kind in ("topk", "centre", "active") or keep == "decisions") and moment.teacher is None:
        asks = "compares with the original network" if kind != "none" else "keeps the decisions of the original network"
        raise ValueError(f"fooling {kind!r} {asks}; name it as the configuration's teacher")
    settings = Settings(layer, composite)
    with hooks.frozen(model, parameters=True):
        if kind == "none":
            return _kept(model(x), x, y, moment, keep)
        if kind == "active":
            made = {"pair": tuple(pair), "n": pairs, "tile": tile, "again": again}
            shown, h0 = _pairs(moment.teacher, **(data or {}), **made, interpreter=interpreter, settings=settings)
            index = torch.randint(len(shown), (pair_batch,), generator=moment.generator).to(x.device)
            both = torch.tensor([tuple(pair)], device=x.device).expand(pair_batch, 2)
            h = by_name.explain(interpreter, model, shown[index], both, settings, create_graph=True).values
            return _kept(model(x), x, y, moment, keep) + weight * manipulation.swap(h, h0[index]).mean()
        h, logits = by_name.explain(interpreter, model, x, y, settings, create_graph=True)
        if kind == "location":
            loss, said = manipulation.location(h, None if mask is None else torch.tensor(mask)), None
        else:
            h0, said = by_name.explain(interpreter, moment.teacher, x, y, settings)
            loss = manipulation.topk(h, h0, k) if kind == "topk" else manipulation.centre(h, h0)
        return _kept(logits, x, y, moment, keep, said) + weight * loss
