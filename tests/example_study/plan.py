"""What the example varies, and the networks that it needs."""

import functools
from typing import Any

from lib.data import datasets
from lib.studies import parameters
from lib.training import cache
from lib.training.config import TrainConfig

TITLE = "Do seeds agree?"


class Parameters(parameters.Trained):
    """What the study varies; the defaults are the laptop profile."""

    architectures: tuple[str, ...] = ("plain",)


def jobs(p: Parameters) -> list[tuple[str, int]]:
    """(architecture, seed) of every network."""
    return parameters.by_architecture(p)


def networks(p: Parameters, *job: Any) -> list[TrainConfig]:
    """Every network the study needs, or those of one job: its own, and the next seed's, in a circle."""
    arch_seeds = [job, (job[0], (job[1] + 1) % p.seeds)] if job else jobs(p)
    return [p.train_config(*one) for one in arch_seeds]


def network(p: Parameters, arch: str, seed: int) -> cache.Trained:
    return cache.trained(p.train_config(arch, seed), device_name=p.device)


@functools.lru_cache(maxsize=2)
def evaluation_set(p: Parameters) -> datasets.ImageSet:
    return datasets.load(p.dataset, "test", size=p.size, channels=p.channels, limit=p.images)


def seen(p: Parameters, *job: Any) -> list[str]:
    """The images that a job looks at."""
    return parameters.fingerprints(evaluation_set(p))
