"""The contract of a network: images in [0, 1] in, logits out, convolutional stages by name."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Classifier(nn.Module):
    """`net((x - mean) / std)`; `stages` are the dotted names, within `net`, of the convolutional stages in order."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        stages: tuple[str, ...],
        classes: int,
        mean: tuple[float, ...] = (0.5,),
        std: tuple[float, ...] = (0.25,),
    ) -> None:
        super().__init__()
        self.net, self.stages, self.classes = net, stages, classes
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        return self.net((x - self.mean) / self.std)
