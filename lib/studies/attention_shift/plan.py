"""Study 1, Grad-CAM attention shift under attack (Chakraborty et al., CVPRW 2022): parameters and networks.

FGSM's direction is computed once an image and scaled by every eps, as in the paper; random signs of the same size are the
control. The paper does not say whether its example attacks each network with its own gradient, as is done here, or all with
one network's; with `black_box` the direction is that of another network. Each map of an attacked image is compared with the map
of its clean image, at every stage, for two choices of the class that is explained: `pred`, the class the network decides for
(before and after), and `true`, the label in both.
"""

import functools
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lib.data import datasets
from lib.studies import parameters
from lib.training import cache
from lib.training.config import TrainConfig

TITLE = "Attention shift"
PAPER_EPS = (0.01, 0.05, 0.075, 0.1)
FAMILY = {"plain": "plain (VGG-like)", "residual": "deep (residual)", "inception": "wide (multi-branch)"}
# FGSM and noise share their grid; `class` compares clean maps of two classes, without any attack.
ATTACKS = ("fgsm", "noise")
TARGETS = ("pred", "true")


class Parameters(parameters.Trained):
    """What the study varies; the defaults are the laptop profile."""

    architectures: Annotated[tuple[str, ...], Field(min_length=1)] = ("plain", "residual", "inception")
    seeds: Annotated[int, Field(ge=1, description="networks trained for each architecture")] = 5
    eps: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=2, description="radii, [0,1] pixels")] = (
        0.0025,
        0.005,
        0.01,
        0.025,
        0.05,
        0.075,
        0.1,
    )
    window: Annotated[Literal["uniform", "gaussian", "global"], Field(description="of SSIM on enlarged maps")] = "uniform"
    black_box: Annotated[
        str, Field(description="architecture whose gradient makes every network's perturbations; empty: each its own")
    ] = ""

    @model_validator(mode="after")
    def _another_network(self) -> "Parameters":
        if self.black_box and self.black_box not in self.architectures:
            raise ValueError(f"black_box {self.black_box!r}: none of the architectures {', '.join(self.architectures)}")
        if self.black_box and self.seeds < 2:
            raise ValueError("black_box takes the gradient of a network of another seed; train two seeds at least")
        return self


def jobs(p: Parameters) -> list[tuple[str, int]]:
    """(architecture, seed) of every network."""
    return parameters.by_architecture(p)


def networks(p: Parameters, *job: Any) -> list[TrainConfig]:
    """Every network the study needs, or those of one job: its own, and where another's gradient attacks it, that one."""
    wanted = jobs(p) if not job else [job, attacker_of(p, job[1])] if p.black_box else [job]
    return [p.train_config(*one) for one in wanted]


def network(p: Parameters, arch: str, seed: int) -> cache.Trained:
    return cache.trained(p.train_config(arch, seed), device_name=p.device)


def attacker_of(p: Parameters, seed: int) -> tuple[str, int]:
    """(architecture, seed) of the network whose gradient attacks those of a seed in the black-box reading: of the next seed, so
    that it is another network also where the architecture is the same."""
    return p.black_box, (seed + 1) % p.seeds


def seen(p: Parameters, *job: Any) -> list[str]:
    """The images that a job looks at."""
    return parameters.fingerprints(evaluation_set(p))


@functools.lru_cache(maxsize=2)
def evaluation_set(p: Parameters) -> datasets.ImageSet:
    return datasets.load(p.dataset, "test", size=p.size, channels=p.channels, limit=p.images)
