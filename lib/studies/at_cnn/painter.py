"""Study 2: the network that paints images in a style, trained like any other (Huang and Belongie, ICCV 2017)."""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lib.data import styles
from lib.networks import style as style_
from lib.networks.style import StyleNet, adain, statistics
from lib.training.config import TrainConfig
from lib.training.objectives import Moment, name_of

Encoder = Literal["small", "lite0", "vgg19"]
VERSION = 1  # part of every StyleNet's key: raise it when a change here changes trained weights; a test guards it


def _per_image(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)


def loss(
    model: StyleNet,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    moment: Moment,
    *,
    source: str = "embedded",
    fingerprint: str = "",
    version: int = VERSION,
    restore: float = 0.5,
    style_weight: float = 10.0,
    identity_weight: float = 50.0,
) -> Float[Tensor, " n"]:
    """The training loss of a StyleNet on content images x, an objective for `lib.training`.

    During the first `restore` of the run encoder and decoder learn to restore contents and styles (mean squared error).
    From then on the encoder stays as it is, and the decoder learns content + style_weight * style (Huang and Belongie) +
    identity_weight * the squared error of restoring x, which is not in the paper and lets a short training keep edges sharp.
    `source` names the styles (`lib.data.styles`); `fingerprint` and `version` are not used, but are part of the network's key:
    what the styles were, and VERSION.
    """
    x = x.expand(-1, 3, -1, -1)
    pool = styles.load(source, "train", x.shape[-1])
    s = pool[torch.randint(0, len(pool), (len(x),), generator=moment.generator)].to(x)
    restoring = moment.progress < restore
    model.encoder.train(restoring).requires_grad_(restoring)
    if restoring:
        return (_per_image((model(x) - x) ** 2) + _per_image((model(s) - s) ** 2)) * identity_weight / 2
    with torch.no_grad():
        content, style = model.encoder(x)[-1], model.encoder(s)
        target = adain(content, style[-1])
    painted = model.encoder(model.decoder(target))
    kept = _per_image((painted[-1] - target) ** 2)
    found = x.new_zeros(len(x))
    for mine, theirs in zip(painted, style, strict=True):
        for a, b in zip(statistics(mine), statistics(theirs), strict=True):
            found = found + _per_image((a - b) ** 2)
    # deviation: an error of restoring x, not in Huang and Belongie, keeps edges sharp in a short training; 0 leaves it out.
    identity = _per_image((model.decoder(content) - x) ** 2) if identity_weight else 0.0
    return kept + style_weight * found + identity_weight * identity


def config(
    dataset: str, size: int, channels: int, limit: int | None, *, encoder: Encoder, source: str, epochs: int
) -> TrainConfig:
    """The StyleNet for a data set. `small` learns everything here; `vgg19` and `lite0` keep their published
    encoder, and the decoder is trained: as published after VGG-19, in fewer and longer steps after EfficientNet-Lite0."""
    common = {"dataset": dataset, "size": size, "channels": channels, "limit": limit, "epochs": epochs, "optimizer": "adam"}
    options: dict[str, Any] = {"source": source, "fingerprint": styles.fingerprint(source), "version": VERSION}
    if encoder == "small":
        return TrainConfig(
            **common,
            arch=name_of(style_.small),
            objective=name_of(loss),
            options=options,
            batch_size=16,
            lr=2e-3,
            weight_decay=0.0,
        )
    return TrainConfig(
        **common,
        arch=name_of(style_.vgg19 if encoder == "vgg19" else style_.lite0),
        weights="imagenet",
        objective=name_of(loss),
        batch_size=8,
        lr=1e-4 if encoder == "vgg19" else 1e-3,
        weight_decay=0.0,
        options=options | {"restore": 0.0, "identity_weight": 0.0 if encoder == "vgg19" else 10.0},
    )
