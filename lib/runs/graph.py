"""Which process trains which networks, and which measures them."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lib.runs import profiles
from lib.system import files
from lib.training.config import TrainConfig
from lib.training.objectives import OBJECTIVES

SHARED = 50_000  # images that all trainings of one job go through: a few times what the start of a process takes


def networks(run: str, profile: str) -> list[TrainConfig]:
    """The networks that a run needs. Raises ValueError that names the run for parameters that are refused, and for data that
    are not there."""
    try:
        return profiles.part(run, "plan").networks(profiles.parameters(run, profile))
    except (ValueError, OSError) as error:
        raise ValueError(f"{run}, profile {profile}: {error}") from error


def jobs(configs: Iterable[TrainConfig], together: int = 1) -> dict[str, list[TrainConfig]]:
    """Networks by the job that trains them: those of one depth that are short (with a study's own objective, or so that they
    are SHARED images together) may share one, since a process takes a while to load. A job takes `together` of them at most:
    a third as many with an attack in the inner loop, half as many that wait for others, since those end a run, when nothing
    else keeps the other cores busy. A job of one is called by its network's digest."""
    found: dict[str, list[TrainConfig]] = {}
    alike: dict[tuple[int, int], list[TrainConfig]] = {}
    for config in configs:
        size = together // (3 if "steps" in config.options else 2 if config.depth else 1)
        if config.objective in OBJECTIVES:
            images = (config.limit or SHARED) * config.epochs * (1 + config.options.get("steps", 0))
            size = min(size, SHARED // max(1, images))
        if size < 2:
            found[config.digest] = [config]
        else:
            alike.setdefault((size, config.depth), []).append(config)  # of one depth: no two jobs need each other
    for (size, _), group in alike.items():
        count = -(-len(group) // size)
        ends = [i * len(group) // count for i in range(count + 1)]  # alike in size, so that no core waits for a last long job
        for part in (group[a:b] for a, b in itertools.pairwise(ends)):
            found[files.digest_of([c.digest for c in part]) if len(part) > 1 else part[0].digest] = part
    return found


def shared_out(networks: Mapping[str, Sequence[TrainConfig]], together: int = 1) -> dict[str, list[TrainConfig]]:
    """`jobs` of several runs, each network in one job alone: one of the first run that needs it, so that no run waits for what
    a later one needs beside it, and no two processes for one training."""
    found: dict[str, list[TrainConfig]] = {}
    taken: set[str] = set()
    for configs in networks.values():
        found |= jobs([c for c in configs if c.digest not in taken], together)
        taken |= {c.digest for c in configs}
    return found


def measurements(run: str, profile: str, together: int = 1) -> dict[str, list[tuple[Any, ...]]]:
    """The jobs of a run that one process measures, by its name: neighbours, alike in number, `together` at most.

    What asks no network that must be trained has a process of its own, since it can begin at once.
    """
    p = profiles.parameters(run, profile)
    plan = profiles.part(run, "plan")
    found = plan.jobs(p)
    parts = [[job] for job in found if not any(c.epochs for c in plan.networks(p, *job))]
    waiting = [job for job in found if [job] not in parts]
    count = -(-len(waiting) // max(1, together))
    ends = [i * len(waiting) // count for i in range(count + 1)] if waiting else []
    parts += [waiting[a:b] for a, b in itertools.pairwise(ends)]
    return {f"{run}/{files.digest_of(part)}": part for part in parts}


def asked(run: str, profile: str, jobs: Sequence[tuple[Any, ...]]) -> list[TrainConfig]:
    """The networks that jobs of a run ask, each once."""
    p = profiles.parameters(run, profile)
    needed = profiles.part(run, "plan").networks
    return list({c.digest: c for job in jobs for c in needed(p, *job)}.values())
