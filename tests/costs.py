"""`python -m tests.costs PROFILE …`: what training the networks of each run takes, in forward passes, counted and not timed.

What counts are floating-point operations (`lib.system.flops`), as multiples of those of one image's forward pass, so that what
an attack, a map or a second derivative adds is in it: a standard step comes to three an image, one for the forward pass and two
for the derivatives of activations and weights, less what the first layer saves. (Study 5 counts forward and backward passes as
one each, whatever they take: `lib.studies.saliency_adversarial_training.passes`.) Steps are sampled from all parts of a
training, of few images each, the same ones on every machine. Networks that differ in their seed alone cost the same. What
measuring takes is not counted. The table is printed and written to figures/bench/costs.csv; profiles that are not named keep
their rows.
"""

import dataclasses
import sys
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import torch

from lib.runs import graph, profiles
from lib.system import files, paths
from lib.system.flops import flops
from lib.system.progress import say
from lib.training import cache, loop, objectives
from lib.training.config import TrainConfig

IMAGES = 4  # of a step that is counted
MANY, FEW, SMALL = 24, 4, 64  # pairs of steps that are counted, of images up to SMALL pixels and of larger ones
FILE = paths.PROJECT / "figures" / "bench" / "costs.csv"


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one training, or of several: steps, floating-point operations, and forward passes of an image that are as many."""

    steps: int
    forward_passes: float
    operations: float

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.steps + other.steps, self.forward_passes + other.forward_passes, self.operations + other.operations)


def untrained(config: TrainConfig) -> Any:
    """A network of this architecture, its weights random: they decide nothing here."""
    config = config.model_copy(update={"weights": "none", "epochs": max(1, config.epochs)})
    return cache.fresh(config, cache.training_images(config)).eval()


def of(config: TrainConfig) -> Cost:
    """Raises what `lib.training.cache.trained` raises for data that are not there."""
    count = len(cache.training_images(config))
    few = config.batch_size if "pair_batch" in config.options else IMAGES  # mosaics are as many in any step
    data = cache.images_of(config.dataset, "train", config.size, config.channels, few)
    model, loss_of = untrained(config), objectives.objective(config.objective)
    teacher = untrained(config.teacher) if config.teacher else None
    first = torch.arange(len(data))
    x, y = data.images[first], data.labels[first]
    with torch.no_grad():
        forward = flops(lambda: model(x)) / len(x)
    made: list[Any] = []
    once = flops(lambda: made.append(loop._maps(config, data, teacher))) / len(x) * count
    (maps,) = made
    steps = max(1, count // config.batch_size)
    end = min(config.epochs * steps, config.stop or sys.maxsize)
    model.train()

    def taken(at: int) -> int:
        """Operations of one step."""
        epoch, batch = divmod(at, steps)
        generator = torch.Generator().manual_seed(at)
        moment = objectives.Moment(epoch, batch, steps, at / steps / config.epochs, generator, config.epochs, maps, teacher)
        return flops(lambda: loss_of(model, x, y, moment, **config.options).mean().backward())

    chosen = np.linspace(0, end - 1, MANY if config.size <= SMALL else FEW).round().astype(int)
    pairs = np.unique([chosen, np.minimum(chosen ^ 1, end - 1)])  # where every second batch is attacked, one of the two is
    step = float(np.mean([taken(int(at)) for at in pairs])) / len(x)
    operations = step * config.batch_size * end + once
    return Cost(end, operations / forward, operations)


def _alike(config: TrainConfig) -> TrainConfig:
    """The same training with seed 0, and with networks of seed 0 behind it."""
    behind = {n: _alike(c) for n in ("start", "teacher") if (c := getattr(config, n)) is not None}
    return config.model_copy(update={"seed": 0, "label": "", **behind})


def of_run(run: str, profile: str) -> dict[str, Any]:
    """A row of the table."""
    many = Counter(_alike(c).digest for c in graph.networks(run, profile) if c.epochs)
    kinds = {_alike(c).digest: _alike(c) for c in graph.networks(run, profile)}
    total = Cost(0, 0.0, 0.0)
    for digest, times in many.items():
        found = of(kinds[digest])
        say(f"  {kinds[digest]}, {times} times: {found.forward_passes / 1e6:.3g} million forward passes")
        total = sum([found] * times, total)
    return {
        "profile": profile,
        "run": run,
        "trainings": sum(many.values()),
        "steps": total.steps,
        "million forward passes": float(f"{total.forward_passes / 1e6:.3g}"),
        "petaflop": float(f"{total.operations / 1e15:.3g}"),
    }


def main(named: list[str]) -> int:
    unknown = set(named) - set(profiles.PROFILES)
    if unknown or not named:
        say(f"error: name profiles; there are {', '.join(profiles.PROFILES)}")
        return 2
    kept = pd.read_csv(FILE).to_dict("records") if FILE.exists() else []
    rows = [row for row in kept if row["profile"] not in named]
    rows += [of_run(run, profile) for profile in named for run in profiles.declared_runs(profile) if run != profiles.LEDGER]
    rows.sort(key=lambda row: profiles.PROFILES.index(row["profile"]))
    table = pd.DataFrame(rows).astype({"trainings": int, "steps": int})
    files.write_bytes(FILE, table.to_csv(index=False).encode())
    print(table.to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
