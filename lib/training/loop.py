"""One training run: batches, augmentation, learning rate, checkpoints."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.data import datasets
from lib.system.devices import threads
from lib.system.progress import say
from lib.training import checkpoints
from lib.training.config import TrainConfig
from lib.training.objectives import Moment, objective, own
from lib.training.weights import _keep, _save


def optimizer_of(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Adam or SGD (with Nesterov's momentum), as the configuration says."""
    if config.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.momentum > 0,
    )


def learning_rate(config: TrainConfig, progress: float) -> float:
    """At `progress` in [0, 1] of the run: a linear warm-up over the first fifth, then a cosine to zero; or as named."""
    if config.schedule == "constant":
        return config.lr
    if config.schedule.startswith("step"):
        shares = config.schedule.removeprefix("step").removeprefix(":") or "0.5,0.8"
        return config.lr * 0.1 ** sum(progress >= float(share) for share in shares.split(","))
    if progress < 0.2:
        return config.lr * (0.04 + 0.96 * progress / 0.2)
    return config.lr * 0.5 * (1 + float(np.cos(np.pi * (progress - 0.2) / 0.8)))


def augmented(x: Tensor, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """Each image flipped with probability 1/2, and shifted by up to `shift` pixels either way."""
    if "flip" in config.augment:
        flip = torch.rand(len(x), generator=generator) < 0.5
        x = torch.where(flip.view(-1, 1, 1, 1).to(x.device), x.flip(3), x)
    if "shift" in config.augment and config.shift:
        n, height, width, s = len(x), *x.shape[2:], config.shift
        padded = F.pad(x, (s,) * 4, mode="reflect")
        top, left = torch.randint(0, 2 * s + 1, (2, n, 1), generator=generator).to(x.device)
        rows, columns = top + torch.arange(height, device=x.device), left + torch.arange(width, device=x.device)
        x = padded[torch.arange(n, device=x.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        x = x.permute(0, 3, 1, 2)
    return x


def _maps(config: TrainConfig, data: datasets.ImageSet, teacher: Any) -> Tensor | None:
    """A map an image, (N, C, H, W), as `config.maps` makes them."""
    if config.maps is None:
        return None
    # deviation: maps are made once, of the images as they are; Mangla et al. make them of every augmented batch.
    maps: Tensor = own(config.maps, "maps", ())(data, teacher, **config.maps_options)
    if maps.shape != data.images.shape:
        raise ValueError(f"{config.maps} gave maps of shape {tuple(maps.shape)} for images of {tuple(data.images.shape)}")
    return maps


def _moved(x: Tensor, maps: Tensor | None, config: TrainConfig, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Images augmented, and their maps in the same way, or left as they were where the configuration says so."""
    if maps is None:
        return augmented(x, config, generator), None
    maps = maps.to(x)
    if not config.maps_follow:
        return augmented(x, config, generator), maps
    # deviation: maps move with their images unless told otherwise; the code of Mangla et al. flips images and leaves their
    # boxes.
    both = augmented(torch.cat([x, maps], 1), config, generator)
    return both[:, : x.shape[1]], both[:, x.shape[1] :]


def _fit(
    config: TrainConfig,
    data: datasets.ImageSet,
    model: nn.Module,
    teacher: Any,
    path: Path,
    device: torch.device,
    on_epoch: Callable[[dict[str, float]], None] | None,
) -> list[dict[str, float]]:
    loss_of = objective(config.objective)
    with threads(config.threads):
        maps = _maps(config, data, teacher)
    model.to(device, memory_format=torch.channels_last).train()
    optimizer = optimizer_of(config, model)
    checkpoint = path.with_suffix(".partial.safetensors")
    history = checkpoints.resume(checkpoint, model, optimizer)
    if history:
        say(f"  {config}: going on after epoch {len(history)}")
    forward = torch.compile(model) if config.compile else model
    if config.snapshots and not history:
        _keep(path, 0, model)
    steps = max(1, len(data) // config.batch_size)  # fewer images than a batch are enough where nothing is trained
    end = min(config.epochs * steps, config.stop or sys.maxsize)
    with threads(config.threads):
        for epoch in range(len(history), -(-end // steps)):
            started = time.perf_counter()
            # All randomness of an epoch comes from (seed, epoch), so a resumed run repeats an unbroken one.
            order = torch.randperm(len(data), generator=torch.Generator().manual_seed(2 * (config.seed * 10_007 + epoch)))
            generator = torch.Generator().manual_seed(2 * (config.seed * 10_007 + epoch) + 1)
            total = 0.0
            batches = min(steps, end - epoch * steps)
            for i in range(batches):
                rate = learning_rate(config, (epoch + (i + 0.5) / steps) / config.epochs)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                index = order[i * config.batch_size : (i + 1) * config.batch_size]
                x, seen = _moved(data.images[index].to(device), None if maps is None else maps[index], config, generator)
                x = x.contiguous(memory_format=torch.channels_last)
                progress = (epoch + i / steps) / config.epochs
                moment = Moment(epoch, i, steps, progress, generator, config.epochs, seen, teacher)
                y = data.labels[index].to(device)
                with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
                    loss = loss_of(forward, x, y, moment, **config.options).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                total += loss.item()
            if not np.isfinite(total):
                checkpoint.unlink(missing_ok=True)
                raise RuntimeError(f"training {config}: the loss is {total} in epoch {epoch + 1}; lower lr ({config.lr})")
            row = {"epoch": epoch + 1, "loss": total / batches, "lr": rate, "seconds": time.perf_counter() - started}
            history.append(row)
            left = row["seconds"] * max(0.0, end / steps - epoch - 1)
            say(f"  {config}: epoch {epoch + 1}/{-(-end // steps)}, loss {row['loss']:.3f}, {left:.0f} s left")
            if on_epoch:
                on_epoch(row)
            if (epoch + 1) * steps < end:
                if config.snapshots:
                    _keep(path, epoch + 1, model)
                checkpoints.write(checkpoint, model, optimizer, history)
    optimizer.zero_grad(set_to_none=True)  # those of the last step are as large as the network
    _save(path, model.eval(), config, data, history)
    checkpoint.unlink(missing_ok=True)
    for left in path.parent.glob(f".{path.stem}.*.part"):  # by processes killed while they wrote; the lock is ours
        left.unlink()
    return history
