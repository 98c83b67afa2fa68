"""The contract of a network: images in [0, 1] in, logits out, convolutional stages by name; and `adapt`, for any other."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.networks import contract

# where the logits are in what a network returns: an index, a key or name, or a function
Output = int | str | Callable[[Any], Tensor]


class Classifier(nn.Module):
    """`net((x - mean) / std)`; `stages` are the dotted names, within `net`, of the convolutional stages in order.

    `output` says where in what `net` returns the logits are; nothing, where it returns them.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        stages: tuple[str, ...],
        classes: int | None,
        mean: tuple[float, ...] = (0.5,),
        std: tuple[float, ...] = (0.25,),
        output: Output | None = None,
    ) -> None:
        super().__init__()
        self.net, self.stages, self.classes, self.output = net, stages, classes, output
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        found = self.net((x - self.mean) / self.std)
        return found if self.output is None else _picked(found, self.output)


def adapt(
    model: nn.Module,
    *,
    output: Output | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    stages: Sequence[str] = (),
    classes: int | None = None,
) -> Classifier:
    """Anybody's network under the contract, without a change to it: what it shares with `model` are the weights themselves.

    `output` picks the logits where it returns more than them, or something else: their index in a tuple (0), their key or
    name in a dict or a Hugging Face `ModelOutput` ("logits"), or a function of what it returns (`torch.logit` of a
    probability). `mean` and `std`, one value or one a channel, are those that its images were normalised with: kernels give
    it images in [0, 1]. `stages` are the dotted names in `model` of the layers that a map can be made at, the last one
    where no layer is named. Raises ValueError for a `std` that is not above 0 or another number of values than `mean` has.
    """
    if len(mean) != len(std) or not all(s > 0 for s in std):
        raise ValueError(f"mean={tuple(mean)}, std={tuple(std)}: as many values each, one or one a channel, std above 0")
    adapted = Classifier(model, stages=tuple(stages), classes=classes, mean=tuple(mean), std=tuple(std), output=output)
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    if first is not None:  # beside the weights, and of their type
        adapted.mean, adapted.std = adapted.mean.to(first), adapted.std.to(first)
    adapted.training = model.training
    return adapted


def _picked(found: Any, output: Output) -> Tensor:
    """The part of what a network returns that `output` names. Raises ValueError where there is no such part."""
    if callable(output):
        return output(found)
    try:
        if isinstance(output, str) and not isinstance(found, Mapping):
            return getattr(found, output)
        return found[output]
    except (KeyError, IndexError, AttributeError, TypeError):
        raise ValueError(f"output={output!r} picks nothing: the model returns {contract.told(found)}") from None
