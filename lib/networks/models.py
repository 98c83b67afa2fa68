"""`create`: any network by name, with weights drawn from a seed, or published ones."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from lib.networks import zoo
from lib.networks.classifier import Classifier
from lib.networks.papers import CIFAR_RESNETS, small, wresnet
from lib.networks.small import connected, inception, plain, residual
from lib.system.names import close

SMALL_NETWORKS: dict[str, Callable[[int, int], Classifier]] = {
    "plain": plain,
    "residual": residual,
    "connected": connected,
    "inception": inception,
    "small": small,
    "wresnet": wresnet,
}


def names() -> tuple[str, ...]:
    """Every name that `create` knows."""

    return (*SMALL_NETWORKS, *CIFAR_RESNETS, *zoo.NETWORKS)


def check_name(arch: str) -> None:
    """Raises ValueError for a name that `create` does not know, with those that come close."""
    if arch not in names():
        found = close(arch, names())
        meant = f" (did you mean {' or '.join(found)}?)" if found else ""
        raise ValueError(f"unknown network {arch!r}; choose one of {', '.join(names())}{meant}")


def create(
    arch: str, *, classes: int, channels: int = 3, seed: int = 0, weights: Literal["none", "imagenet"] = "none"
) -> Classifier:
    """Build a network by name, with random weights drawn from `seed`; the global random state is left alone.

    `weights="imagenet"` loads torchvision's (or timm's) published weights, for the networks of the zoo; where `classes` is
    not 1000 the head is new. Raises ValueError for an unknown name, RuntimeError where weights cannot be had.
    """

    check_name(arch)
    if classes < 2 or channels < 1:
        raise ValueError(f"a network needs 2 classes and 1 channel at least, got {classes} and {channels}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if arch in zoo.NETWORKS:
            return zoo.build(arch, classes=classes, channels=channels, weights=weights)
        if weights != "none":
            raise ValueError(f"{arch!r} has no published weights; use weights='none' and train it")
        return (SMALL_NETWORKS | CIFAR_RESNETS)[arch](channels, classes)


def bytes_of(arch: str) -> int:
    """How much memory the weights of a network take, with a head of 1,000 classes; nothing is allocated to know it.

    0 for own code, which is not run to know it. Raises ValueError for an unknown name.
    """
    if ":" in arch:
        return 0
    with torch.device("meta"):
        return sum(w.numel() * w.element_size() for w in create(arch, classes=1000).parameters())


def parameter_count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())
