"""Study 1, Grad-CAM attention shift under attack (Chakraborty et al., CVPRW 2022): parameters and networks.

FGSM's direction is computed once an image and scaled by every eps, as in the paper; random signs of the same size are the
control. Each map of an attacked image is compared with the map of its clean image, at every stage, for two choices of the
class that is explained: `pred`, the class the network decides for (before and after), and `true`, the label in both.
"""

from typing import Annotated, Literal

from pydantic import Field

from lib.data import datasets
from lib.studies import parameters
from lib.training import config

TITLE = "Attention shift"
PAPER_EPS = (0.01, 0.05, 0.075, 0.1)
FAMILY = {"plain": "plain (VGG-like)", "residual": "deep (residual)", "inception": "wide (multi-branch)"}
# FGSM and noise share their grid; `class` compares clean maps of two classes, without any attack.
ATTACKS = ("fgsm", "noise")
TARGETS = ("pred", "true")


class Parameters(parameters.Parameters):
    """What the study varies; the defaults are the laptop profile."""

    dataset: Annotated[str, Field(description="any name that lib.datasets.load knows")] = "shapes"
    size: Annotated[int, Field(ge=16, description="image size, pixels")] = 32
    channels: Annotated[Literal[1, 3], Field(description="1 grey, 3 colour")] = 3
    architectures: Annotated[tuple[str, ...], Field(min_length=1)] = ("plain", "residual", "inception")
    seeds: Annotated[int, Field(ge=1, description="networks trained for each architecture")] = 3
    epochs: Annotated[int, Field(ge=1)] = 8
    train_images: Annotated[int | None, Field(ge=1, description="None: all there are")] = 2000
    batch_size: Annotated[int, Field(ge=2, description="images in a training step")] = 64
    learning_rate: Annotated[float, Field(gt=0, description="peak of the schedule")] = 0.1
    augment: Annotated[tuple[config.Augmentation, ...], Field(description="of training images")] = ("flip",)
    weights: Annotated[Literal["none", "imagenet"], Field(description="start from random or published weights")] = "none"
    images: Annotated[int, Field(ge=8, description="test images that are attacked")] = 300
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


def networks(p: Parameters) -> list[config.TrainConfig]:
    """Every network the study needs, architecture by architecture."""
    return [
        config.TrainConfig(
            dataset=p.dataset,
            size=p.size,
            channels=p.channels,
            limit=p.train_images,
            arch=arch,
            weights=p.weights,
            seed=seed,
            epochs=p.epochs,
            batch_size=p.batch_size,
            lr=p.learning_rate,
            augment=p.augment,
        )
        for arch in p.architectures
        for seed in range(p.seeds)
    ]


def evaluation_set(p: Parameters) -> datasets.ImageSet:
    return datasets.load(p.dataset, "test", size=p.size, channels=p.channels, limit=p.images)
