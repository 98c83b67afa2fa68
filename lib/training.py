"""`trained(config)`: a network, loaded from the cache or trained into it.

The key of a network is a digest of everything that decides its weights: the configuration, the data it saw, and RECIPE.
Beside `data/models/<key>.safetensors` stands a JSON with configuration, data fingerprint, history, versions and the
digest of the weights. Writes are atomic and locked, training goes on from its last finished epoch, a damaged file is
noticed and trained again, and nothing is ever unpickled.

`python -m lib.training --config JSON --record FILE` trains one network, as the Snakefile does.
"""

import argparse
import contextlib
import copy
import functools
import itertools
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from lib import checkpoints, datasets, files, models, paths
from lib.objectives import OBJECTIVES, Moment, objective, own
from lib.progress import say

# Part of every key: raise it when a change to this module, to lib.models, lib.attacks, or to what makes objectives and
# maps, changes trained weights.
# tests/test_training.py holds the losses of a short run and fails when that is forgotten.
RECIPE = 1

Augmentation = Literal["flip", "shift"]
Schedule = Annotated[
    str,
    Field(
        description="onecycle: warm-up and cosine; constant; step: a tenth after 1/2 and 4/5; step:A,B: after shares A, B",
        pattern=r"^(onecycle|constant|step(:0?\.\d+(,0?\.\d+)*)?)$",
    ),
]


class TrainConfig(BaseModel):
    """Everything that decides the weights of a network, but for the data's own content."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    size: Annotated[int, Field(ge=8, description="image size in pixels")] = 32
    channels: Literal[1, 3] = 3
    limit: Annotated[int | None, Field(ge=1, description="number of training images")] = None
    arch: Annotated[str, Field(description="a name that lib.models.create knows, or module:function within lib")]
    weights: Annotated[Literal["none", "imagenet"], Field(description="start: random, or torchvision's")] = "none"
    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Annotated[int, Field(ge=0, description="0: the weights it starts from")] = 8
    stop: Annotated[int | None, Field(ge=1, description="end after this many steps of the run: undertrained")] = None
    batch_size: Annotated[int, Field(ge=2)] = 64
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: Annotated[float, Field(gt=0, description="peak learning rate")] = 0.1
    schedule: Schedule = "onecycle"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    augment: tuple[Augmentation, ...] = ("flip",)
    shift: Annotated[int, Field(ge=0, description="largest shift in pixels, reflected at the edge")] = 2
    objective: Annotated[str, Field(description="a name in OBJECTIVES, or module:function within lib")] = "standard"
    options: Annotated[dict[str, Any], Field(description="arguments of the objective")] = {}
    precision: Annotated[Literal["float32", "bfloat16"], Field(description="autocast, for GPUs")] = "float32"
    compile: Annotated[bool, Field(description="torch.compile, for GPUs")] = False
    threads: Annotated[int, Field(ge=1, description="CPU threads; the last bits of the weights depend on it")] = 1
    start: Annotated["TrainConfig | None", Field(description="begin with this network's weights: fine-tuning")] = None
    snapshots: Annotated[bool, Field(description="keep the weights after every epoch")] = False
    teacher: Annotated["TrainConfig | None", Field(description="a network that maps or the objective ask")] = None
    maps: Annotated[str | None, Field(description="module:function within lib, a map an image for the objective")] = None
    maps_options: Annotated[dict[str, Any], Field(description="arguments of that function")] = {}
    maps_follow: Annotated[bool, Field(description="augmentation moves the maps with their images")] = True

    @field_validator("arch")
    @classmethod
    def _known(cls, arch: str) -> str:
        if ":" not in arch and arch not in models.names():
            raise ValueError(f"unknown network {arch!r}; choose one of {', '.join(models.names())}")
        return arch

    def _deciding(self) -> dict[str, Any]:
        # fields that came later are left out where they are not used, so that older networks keep their keys
        later = ("start", "snapshots", "teacher", "maps", "maps_options")
        unused = {name for name in later if not getattr(self, name)} | ({"maps_follow"} if self.maps_follow else set())
        deciding = self.model_dump(exclude=unused)
        return deciding | {n: c._deciding() for n in ("start", "teacher") if (c := getattr(self, n)) is not None}

    @property
    def needs(self) -> "list[TrainConfig]":
        """The networks that must be there before this one is trained."""
        return [c for c in (self.start, self.teacher) if c is not None]

    @property
    def depth(self) -> int:
        """How many trainings must come one after the other before this one."""
        return max((1 + c.depth for c in self.needs), default=0)

    @property
    def digest(self) -> str:
        """Of the configuration alone, known before the data is read."""
        return files.digest_of([RECIPE, self._deciding()])

    def key(self, fingerprint: str) -> str:
        """Of the configuration and of the data's fingerprint (and of the network that training starts from)."""
        return files.digest_of([RECIPE, self._deciding(), fingerprint])

    def __str__(self) -> str:
        named = "-".join(str(self.options[k]) for k in ("arm", "kind", "interpreter") if k in self.options)
        objective = "" if self.objective == "standard" else f" {named or self.objective}"
        if "eps" in self.options:
            objective += f" {self.options.get('norm', 'linf')} {self.options['eps']:.3g}"
        stop = f" to step {self.stop}" if self.stop else ""
        return f"{self.dataset}/{self.arch}{objective} seed {self.seed}{stop}"


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


def device(name: str = "auto") -> torch.device:
    """The device by name; `auto` takes CUDA, then Apple's MPS, then the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.lru_cache(maxsize=4)
def images_of(name: str, split: datasets.Split, size: int, channels: int, limit: int | None) -> datasets.ImageSet:
    """The images of a training; they stay in memory for the next one."""
    return datasets.load(name, split, size=size, channels=channels, limit=limit)


def fresh(config: TrainConfig, data: datasets.ImageSet, base: "Trained | None" = None) -> Any:
    """The network as it is before training: with new weights, or with those of `base`."""
    if base is not None:
        return copy.deepcopy(base.model).cpu()
    given = {"classes": len(data.classes), "channels": config.channels, "weights": config.weights}
    if ":" not in config.arch:
        return models.create(config.arch, **given, seed=config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return own(config.arch, "network", models.names())(**given)


def trained(
    config: TrainConfig, *, device_name: str = "auto", on_epoch: Callable[[dict[str, float]], None] | None = None
) -> Trained:
    """Load the network of `config`, or train it; a second process that wants the same one waits for the first.

    `on_epoch` gets the history row of each finished epoch. Raises what `lib.datasets.load` raises, ValueError for a
    configuration that cannot be built, RuntimeError where the loss stops being finite, OSError where the disk is full.
    """
    data = images_of(config.dataset, "train", config.size, config.channels, config.limit)
    if len(data) < config.batch_size:
        raise ValueError(f"{config.dataset} has {len(data)} training images, fewer than one batch of {config.batch_size}")
    base = trained(config.start, device_name=device_name) if config.start else None
    teacher = trained(config.teacher, device_name=device_name) if config.teacher else None
    content = data.fingerprint + (data.marks if config.maps else "")  # weak maps are made of masks and boxes
    key = config.key(content + "".join(t.path.stem for t in (base, teacher) if t))
    path = paths.models() / f"{key}.safetensors"

    model = fresh(config, data, base)
    chosen = device(device_name)
    history = _load(path, model)
    if history is None:
        with files.locked(path):
            history = _load(path, model)  # somebody else may have trained it while we waited
            if history is None:
                model = fresh(config, data, base)  # a damaged file may have left its rest in the other one
                say(f"training {config}: {config.epochs} epochs of {len(data)} images on {chosen}")
                history = _fit(config, data, model, teacher.model if teacher else None, path, chosen, on_epoch)
    return Trained(model.to(chosen).eval(), config, path, history)


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


def _keep(path: Path, epoch: int, model: nn.Module) -> None:
    files.write_bytes(_snapshot(path, epoch), safetensors.torch.save(checkpoints.contiguous(model.state_dict())))


def optimizer_of(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Adam or SGD (with Nesterov's momentum), as the configuration says."""
    if config.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay,
        nesterov=config.momentum > 0,
    )  # fmt: skip


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
    both = augmented(torch.cat([x, maps], 1), config, generator)
    return both[:, : x.shape[1]], both[:, x.shape[1] :]


def _fit(
    config: TrainConfig, data: datasets.ImageSet, model: nn.Module, teacher: Any, path: Path, device: torch.device,
    on_epoch: Callable[[dict[str, float]], None] | None,
) -> list[dict[str, float]]:  # fmt: skip
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
    steps = len(data) // config.batch_size
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
    _save(path, model.eval(), config, data, history)
    checkpoint.unlink(missing_ok=True)
    for left in path.parent.glob(f".{path.stem}.*.part"):  # by processes killed while they wrote; the lock is ours
        left.unlink()
    return history


def _save(path: Path, model: nn.Module, config: TrainConfig, data: datasets.ImageSet, history: list[dict[str, float]]) -> None:
    content = safetensors.torch.save(checkpoints.contiguous(model.state_dict()))
    files.write_bytes(path, content)
    kept = range(len(history)) if config.snapshots else ()
    record = {
        "config": config.model_dump(),
        "data": {"name": data.name, "fingerprint": data.fingerprint, "images": len(data), "classes": list(data.classes)},
        "digest": files.digest(content),
        "snapshots": {str(e): files.digest(_snapshot(path, e)) for e in kept},
        "history": history,
        "recipe": RECIPE,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    files.write_json(path.with_suffix(".json"), record)


@torch.no_grad()
def predictions(model: nn.Module, x: Tensor, batch_size: int = 256) -> Tensor:
    """Predicted classes (N,), in batches, on the model's device."""
    where = next(model.parameters()).device
    return torch.cat([model(x[i : i + batch_size].to(where)).argmax(1).cpu() for i in range(0, len(x), batch_size)])


def accuracy(model: nn.Module, data: datasets.ImageSet) -> float:
    return (predictions(model, data.images) == data.labels).float().mean().item()


FEW = 5_000  # images in a whole training: fewer take less time than the start of a process


def jobs(configs: Iterable[TrainConfig], together: int = 1) -> dict[str, list[TrainConfig]]:
    """Networks by the job that trains them: those of one depth that are short (with a study's own objective, or FEW images)
    may share one, since a process takes a while to load. A job takes `together` of them: a third as many with an attack in
    the inner loop, half as many that wait for others, since those end a run, when nothing else keeps the other cores busy.
    A job of one is called by its network's digest."""
    found: dict[str, list[TrainConfig]] = {}
    alike: dict[tuple[int, int], list[TrainConfig]] = {}
    for config in configs:
        size = together // (3 if "steps" in config.options else 2 if config.depth else 1)
        few = config.limit is not None and config.limit * config.epochs <= FEW
        if (config.objective in OBJECTIVES and not few) or size < 2:
            found[config.digest] = [config]
        else:
            alike.setdefault((size, config.depth), []).append(config)  # of one depth: no two jobs need each other
    for (size, _), group in alike.items():
        count = -(-len(group) // size)
        ends = [i * len(group) // count for i in range(count + 1)]  # alike in size, so that no core waits for a last long job
        for part in (group[a:b] for a, b in itertools.pairwise(ends)):
            found[files.digest_of([c.digest for c in part]) if len(part) > 1 else part[0].digest] = part
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Train networks into the cache, one after the other.")
    parser.add_argument("--config", required=True, help="the fields of TrainConfig, as JSON, or a list of such")
    parser.add_argument("--record", required=True, type=Path, help="JSON file to write when the networks are there")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    try:
        given = json.loads(arguments.config)
        configs = [TrainConfig.model_validate_json(json.dumps(c)) for c in (given if isinstance(given, list) else [given])]
        networks = [trained(c, device_name=arguments.device) for c in configs]
        record = [{"network": n.path.stem, "config": n.config.model_dump()} for n in networks]
        files.write_json(arguments.record, {"networks": record})
    except (ValueError, RuntimeError, OSError) as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
