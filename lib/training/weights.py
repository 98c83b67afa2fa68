"""Weights on disk: written atomically, read back only where their digest matches."""

import os
import platform
import re
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from lib.data import datasets
from lib.system import files
from lib.system.progress import say
from lib.training import checkpoints
from lib.training.config import RECIPE, TrainConfig


def _load(path: Path, model: nn.Module) -> list[dict[str, float]] | None:
    """Put the weights of `path` into `model` and return their history, or None where they are missing or damaged."""
    record = files.read_json(path.with_suffix(".json"))
    if record is None or not path.exists():
        return None
    try:
        digests = {path: record["digest"]} | {_snapshot(path, int(e)): d for e, d in record.get("snapshots", {}).items()}
        if any(not p.exists() or files.digest(p) != d for p, d in digests.items()):
            raise ValueError("its digest does not match")
        model.load_state_dict(safetensors.torch.load_file(path))
    except (ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError) as error:
        say(f"{path.name} is damaged ({error}); training it again")
        return None
    return record["history"]


def _snapshot(path: Path, epoch: int) -> Path:
    """Where the weights after an epoch lie."""
    return path.with_suffix(f".epoch{epoch}.safetensors")


def _write(path: Path, model: nn.Module) -> None:
    """The weights as a file, copied once in memory on the way (`safetensors.torch.save` copies them twice)."""
    with files.replacing(path) as part:
        try:
            safetensors.torch.save_file(checkpoints.contiguous(model.state_dict()), part)
        except safetensors.SafetensorError as error:  # which hides that the disk is full
            if not (found := re.search(r"os error (\d+)", str(error))):
                raise
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


def _keep(path: Path, epoch: int, model: nn.Module) -> None:
    _write(_snapshot(path, epoch), model)


def _save(path: Path, model: nn.Module, config: TrainConfig, data: datasets.ImageSet, history: list[dict[str, float]]) -> None:
    _write(path, model)
    kept = range(len(history)) if config.snapshots else ()
    record = {
        "config": config.model_dump(),
        "data": {"name": data.name, "fingerprint": data.fingerprint, "images": len(data), "classes": list(data.classes)},
        "digest": files.digest(path),
        "snapshots": {str(e): files.digest(_snapshot(path, e)) for e in kept},
        "history": history,
        "recipe": RECIPE,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    files.write_json(path.with_suffix(".json"), record)
