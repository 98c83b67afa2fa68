"""Study 1, Grad-CAM attention shift under attack (Chakraborty et al., CVPRW 2022): parameters and networks.

FGSM's direction is computed once an image and scaled by every eps, as in the paper; random signs of the same size are the
control. The paper does not say whether its example attacks each network with its own gradient, as is done here, or all with
one network's; with `black_box` the direction is that of another network. Each map of an attacked image is compared with the map
of its clean image, at every stage, for two choices of the class that is explained: `pred`, the class the network decides for
(before and after), and `true`, the label in both.

With no epochs of training the networks are published ones as they are, one of each architecture, all of them on images of one
size: a perturbation that one network makes must fit the others.
"""

import functools
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lib.data import datasets
from lib.networks import classifier, folding
from lib.studies import parameters
from lib.training import cache
from lib.training.config import TrainConfig

TITLE = "Attention shift"
PAPER_EPS = (0.01, 0.05, 0.075, 0.1)
FAMILY = {
    "plain": "plain (VGG-like)",
    "residual": "deep (residual)",
    "inception": "wide (multi-branch)",
    "efficientnet-lite0": "EfficientNet-Lite0",
    "efficientnet-lite1": "EfficientNet-Lite1",
    "efficientnet-lite2": "EfficientNet-Lite2",
}
# FGSM and noise share their grid; `class` compares clean maps of two classes, without any attack.
ATTACKS = ("fgsm", "noise")
TARGETS = ("pred", "true")
COMPARED = ("plain", "residual", "inception")  # one of each family that the paper compares
# pixels of the images that one job measures, and how many jobs a network has at most: what an interruption costs
A_JOB, MOST_JOBS = 30 * 224**2, 5


class Parameters(parameters.Trained, parameters.Marked):
    """What the study varies; the defaults are the laptop profile."""

    architectures: Annotated[tuple[str, ...], Field(min_length=1)] = COMPARED
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
        if self.black_box and self.as_published and len(self.architectures) < 2:
            raise ValueError("black_box takes the gradient of another published network; name two architectures at least")
        if self.black_box and not self.as_published and self.seeds < 2:
            raise ValueError("black_box takes the gradient of a network of another seed; train two seeds at least")
        return self


def jobs(p: Parameters) -> list[tuple[str, int, int]]:
    """(architecture, seed, part of the images) of every measurement; large networks and small ones in turn."""
    return [(*one, part) for part in range(parts(p)) for one in parameters.by_architecture(p)]


def parts(p: Parameters) -> int:
    """In how many jobs the images are measured: one where they are small or few."""
    return min(MOST_JOBS, -(-p.images * p.size**2 // A_JOB))


def networks(p: Parameters, *job: Any) -> list[TrainConfig]:
    """Every network the study needs, or those of one job: its own, and where another's gradient attacks it, that one."""
    own = job[:2]
    wanted = parameters.by_architecture(p) if not job else [own, attacker_of(p, *own)] if p.black_box else [own]
    return [p.train_config(*one) for one in wanted]


def model(p: Parameters, arch: str, seed: int) -> classifier.Classifier:
    """A network, trained or published, as it is measured."""
    found = cache.trained(p.train_config(arch, seed), device_name=p.device).model
    return folding.measured(found, evaluation_set(p).images[:2])


def marked(p: Parameters) -> list[parameters.Arm]:
    """The networks of each architecture."""
    return [parameters.Arm(arch, arch, [(arch, seed) for seed in range(p.seeds)]) for arch in p.architectures]


def attacker_of(p: Parameters, arch: str, seed: int) -> tuple[str, int]:
    """(architecture, seed) of the network whose gradient attacks another in the black-box reading.

    Of trained networks it is that of the next seed, so that it is another network also where the architecture is the same.
    There is one published network of an architecture: it attacks all others, and the next of the architectures attacks it.
    """
    if not p.as_published:
        return p.black_box, (seed + 1) % p.seeds
    if arch != p.black_box:
        return p.black_box, seed
    return p.architectures[(p.architectures.index(arch) + 1) % len(p.architectures)], seed


def seen(p: Parameters, *job: Any) -> list[str]:
    """The images that a job looks at."""
    return parameters.fingerprints(evaluation_set(p))


@functools.lru_cache(maxsize=2)
def evaluation_set(p: Parameters) -> datasets.ImageSet:
    return datasets.load(p.dataset, "test", size=p.size, channels=p.channels, limit=p.images)
