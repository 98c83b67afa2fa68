"""Study 1, Grad-CAM attention shift under attack (Chakraborty et al., CVPRW 2022): parameters and networks.

FGSM's direction is computed once an image and scaled by every eps, as in the paper; random signs of the same size are the
control. Each map of an attacked image is compared with the map of its clean image, at every stage, for two choices of the
class that is explained: `pred`, the class the network decides for (before and after), and `true`, the label in both.
"""

import functools
from typing import Annotated, Any, Literal

from pydantic import Field

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


def jobs(p: Parameters) -> list[tuple[str, int]]:
    """(architecture, seed) of every network."""
    return parameters.by_architecture(p)


def networks(p: Parameters, *job: Any) -> list[TrainConfig]:
    """Every network the study needs, or that of one job."""
    return [p.train_config(*one) for one in ([job] if job else jobs(p))]


def network(p: Parameters, arch: str, seed: int) -> cache.Trained:
    return cache.trained(*networks(p, arch, seed), device_name=p.device)


def seen(p: Parameters, *job: Any) -> list[str]:
    """The images that a job looks at."""
    return parameters.fingerprints(evaluation_set(p))


@functools.lru_cache(maxsize=2)
def evaluation_set(p: Parameters) -> datasets.ImageSet:
    return datasets.load(p.dataset, "test", size=p.size, channels=p.channels, limit=p.images)
