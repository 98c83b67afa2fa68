"""What a network answers, in batches."""

import torch
from torch import Tensor, nn

from lib.data import datasets
from lib.networks import contract
from lib.system import devices


@torch.no_grad()
def predictions(model: nn.Module, x: Tensor, batch_size: int | None = None) -> Tensor:
    """Predicted classes (N,), in batches (default: 256, fewer large images), on the model's device."""
    batch_size = batch_size or devices.images_at_once(x.shape[-1], 256, graph=False)
    where = next(model.parameters()).device
    parts = (x[i : i + batch_size].to(where) for i in range(0, len(x), batch_size))
    return torch.cat([contract.logits_of(model, part).argmax(1).cpu() for part in parts])


def accuracy(model: nn.Module, data: datasets.ImageSet) -> float:
    return (predictions(model, data.images) == data.labels).float().mean().item()
