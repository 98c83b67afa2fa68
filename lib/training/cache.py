"""`trained(config)`: a network, loaded from the cache or trained into it.

The key of a network is a digest of everything that decides its weights: the configuration, the data it saw, and RECIPE.
Beside `data/models/<key>.safetensors` stands a JSON with configuration, data fingerprint, history, versions and the
digest of the weights. Writes are atomic and locked, training goes on from its last finished epoch, a damaged file is
noticed and trained again, and nothing is ever unpickled.
"""

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from lib.data import datasets
from lib.networks import models
from lib.system import files, paths
from lib.system.devices import device, give_back
from lib.system.progress import say
from lib.training.config import TrainConfig
from lib.training.loop import _fit
from lib.training.objectives import own
from lib.training.weights import _load, _snapshot


@dataclass(frozen=True)
class Trained:
    """A network in evaluation mode, where its weights lie, and how they came about (a row an epoch)."""

    model: Any  # a models.Classifier, or what the function that `arch` names returns
    config: TrainConfig
    path: Path
    history: list[dict[str, float]]

    def after(self, epoch: int) -> Any:
        """The network as it was after an epoch (0: at the start), in evaluation mode, where the run kept `snapshots`.

        Raises ValueError for an epoch that the run does not have, or where nothing was kept.
        """
        if epoch == len(self.history):
            return self.model
        if not (self.config.snapshots and 0 <= epoch < len(self.history)):
            raise ValueError(f"{self.config} keeps no weights of epoch {epoch}; it has {len(self.history)} epochs")
        model = copy.deepcopy(self.model)
        model.load_state_dict(safetensors.torch.load_file(_snapshot(self.path, epoch)))
        return model.eval()


@functools.lru_cache(maxsize=4)
def images_of(name: str, split: datasets.Split, size: int, channels: int, limit: int | None) -> datasets.ImageSet:
    """The images of a training; they stay in memory for the next one."""
    return datasets.load(name, split, size=size, channels=channels, limit=limit)


def training_images(config: TrainConfig) -> datasets.ImageSet:
    """The images that a network is trained on. Where it is taken as published, and there are none, those of the test split
    stand in: they tell its classes.
    """
    split: datasets.Split = "train" if config.epochs or datasets.has_split(config.dataset, "train") else "test"
    return images_of(config.dataset, split, config.size, config.channels, config.limit)


def fresh(config: TrainConfig, data: datasets.ImageSet, base: "Trained | None" = None) -> Any:
    """The network as it is before training: with new weights, or with those of `base`.

    Raises ValueError for published weights as they are where the classes are others.
    """
    if base is not None:
        return copy.deepcopy(base.model).cpu()
    if not config.epochs and config.weights == "imagenet" and len(data.classes) != 1000:
        raise ValueError(
            f"{config.dataset} has {len(data.classes)} classes, the published {config.arch} has 1000: its new head would stay "
            "random. Train for an epoch at least, or take images of ImageNet's classes"
        )
    given = {"classes": len(data.classes), "channels": config.channels, "weights": config.weights}
    if ":" not in config.arch:
        return models.create(config.arch, **given, seed=config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return own(config.arch, "network", models.names())(**given)


def key_of(config: TrainConfig) -> str:
    """The key of a network, trained or not: of its configuration, its training images, and the networks that it needs.

    Raises what `lib.data.datasets.load` raises.
    """
    data = training_images(config)
    content = data.fingerprint + (data.marks if config.maps else "")  # weak maps are made of masks and boxes
    return config.key(content + "".join(key_of(c) for c in config.needs))


def trained(
    config: TrainConfig, *, device_name: str = "auto", on_epoch: Callable[[dict[str, float]], None] | None = None
) -> Trained:
    """Load the network of `config`, or train it; a second process that wants the same one waits for the first.

    `on_epoch` gets the history row of each finished epoch. Raises what `lib.data.datasets.load` raises, ValueError for a
    configuration that cannot be built, RuntimeError where the loss stops being finite, OSError where the disk is full.
    """
    data = training_images(config)
    if config.epochs and len(data) < config.batch_size:
        raise ValueError(f"{config.dataset} has {len(data)} training images, fewer than one batch of {config.batch_size}")
    base = trained(config.start, device_name=device_name) if config.start else None
    same = config.teacher == config.start  # networks may be large: what is tuned away from its teacher needs it once
    teacher = base if same else trained(config.teacher, device_name=device_name) if config.teacher else None
    path = paths.models() / f"{key_of(config)}.safetensors"

    model = fresh(config, data, base)
    chosen = device(device_name)
    history = _load(path, model)
    if history is None:
        with files.locked(path):
            history = _load(path, model)  # somebody else may have trained it while we waited
            if history is None:
                del model  # a damaged file may have left its rest in it
                model = fresh(config, data, base)
                base = None
                say(f"training {config}: {config.epochs} epochs of {len(data)} images on {chosen}")
                history = _fit(config, data, model, teacher.model if teacher else None, path, chosen, on_epoch)
                give_back()
    # contiguous, as a network that is loaded is: what was trained a moment ago gives the same numbers to the last bit
    return Trained(model.to(chosen, memory_format=torch.contiguous_format).eval(), config, path, history)
