"""What the parameters of the studies have in common: of all, of those on images, of those that train networks; and how many
training runs an arm has."""

import ast
import re
import typing
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lib.attacks import ensemble
from lib.attacks.ensemble import Ensemble
from lib.attacks.masking import Doubt
from lib.attacks.square import LARGEST
from lib.claims import warned
from lib.data.datasets import ImageSet
from lib.networks import models
from lib.training.config import Augmentation, TrainConfig


class Parameters(BaseModel):
    """What every notebook takes. A study's own parameters extend this; the defaults are those of `laptop`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, given: Any) -> Any:
        """What papermill and YAML can write: papermill's API makes text of a tuple, its command line of any list, and YAML of
        None."""
        if not isinstance(given, dict):
            return given
        fields = cls.model_fields
        stray = [n for n, v in given.items() if n in fields and _has_bool(v) and bool not in _kinds(fields[n].annotation)]
        if stray:
            raise ValueError(
                f"{stray[0]} = {given[stray[0]]}: neither true nor false is asked (YAML reads yes, no, on and off so too; put "
                "a text into quotes)"
            )
        return {k: _read(v, fields[k].annotation) if k in fields else v for k, v in given.items()}

    profile: str = "laptop"
    variant: Annotated[str, Field(description="a second run of the same study, on other data", pattern="^[a-z0-9_-]*$")] = ""
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Field(description="auto: the fastest there is")] = "auto"


def _kinds(hint: Any) -> set[Any]:
    """A type and, where it is one of several, these."""
    return {typing.get_origin(h) or h for h in (hint, *typing.get_args(hint))}


def _has_bool(value: Any) -> bool:
    return any(isinstance(part, bool) for part in (value if isinstance(value, (list, tuple)) else [value]))


def _read(value: Any, hint: Any) -> Any:
    """A text as the tuple, dictionary or None that it stands for, where the parameter is one and never a text itself."""
    kinds = _kinds(hint)
    if not isinstance(value, str) or str in ({hint} | set(typing.get_args(hint) if type(None) in kinds else ())):
        return value
    text = value.strip()
    if type(None) in kinds and text in ("None", "null", "~"):
        return None
    if not kinds & {tuple, list, dict} or text[:1] not in ("(", "[", "{"):
        return value
    text = re.sub(r"np\.\w+\(([^()]*)\)", r"\1", text)  # numpy's numbers, as they stand in the text of a tuple
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):  # names without quotes, as on a command line: [plain, residual]
        try:
            return yaml.safe_load(f"[{text[1:-1]}]" if text[0] == "(" and text[-1] == ")" else text)
        except yaml.YAMLError:
            return value


class OnImages(Parameters):
    """Which images a study looks at."""

    dataset: Annotated[str, Field(description="any name that lib.data.datasets.load knows")] = "shapes"
    size: Annotated[int, Field(ge=16, description="image size, pixels")] = 32
    channels: Annotated[Literal[1, 3], Field(description="1 grey, 3 colour")] = 3
    images: Annotated[int, Field(ge=8, description="test images")] = 300


class Ensembled(Parameters):
    """How hard the ensemble of `lib.attacks.ensemble` attacks what a study's own attacks leave; AutoAttack: 100, 9, 5000."""

    ensemble_images: Annotated[int, Field(ge=0, description="test images that the ensemble attacks too; 0: none")] = 32
    ensemble_steps: Annotated[int, Field(ge=1, description="of auto-PGD in each run")] = 40
    ensemble_targets: Annotated[int, Field(ge=1, description="classes that auto-PGD aims at in turn")] = 2
    ensemble_queries: Annotated[int, Field(ge=1, le=LARGEST, description="of Square")] = 500

    def ensemble(self, eps: Iterable[float], images: int) -> Ensemble | bool:
        """Its budget at radii `eps`, in units of [0, 1] images, over the first of `images`; False where it is not wanted."""
        few = min(self.ensemble_images, images)
        steps, targets, queries = self.ensemble_steps, self.ensemble_targets, self.ensemble_queries
        return few > 0 and Ensemble(steps, targets, queries, eps=tuple(eps), images=few)


class Marked(Parameters):
    """How much a study looks at what its networks' maps mark (`lib.studies.marking`)."""

    marked_images: Annotated[int, Field(ge=2, description="test images whose marked pixels are taken away and put in")] = 16
    marked_steps: Annotated[int, Field(ge=1, description="in which they are, an equal share in each")] = 10


class Arm(NamedTuple):
    """An arm of a study as people read it, its architecture, and the jobs of its networks, a training run each."""

    name: str
    arch: str
    jobs: Sequence[tuple[Any, ...]]


class Trained(OnImages):
    """Which networks a study trains, and how; a study gives its own defaults where they differ."""

    architectures: Annotated[tuple[str, ...], Field(min_length=1, description="names that lib.networks.models knows")] = (
        "plain",
        "residual",
    )
    seeds: Annotated[int, Field(ge=1, description="networks trained for each architecture or arm")] = 3
    epochs: Annotated[int, Field(ge=0, description="0: published weights as they are")] = 8
    train_images: Annotated[int | None, Field(ge=1, description="None: all there are")] = 2000
    batch_size: Annotated[int, Field(ge=2, description="images in a training step")] = 64
    learning_rate: Annotated[float, Field(gt=0, description="peak of the schedule")] = 0.1
    augment: Annotated[tuple[Augmentation, ...], Field(description="of training images")] = ("flip",)
    weights: Annotated[Literal["none", "imagenet"], Field(description="start from random or published weights")] = "none"

    @field_validator("architectures")
    @classmethod
    def _known_networks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            models.check_name(name)
        return names

    @model_validator(mode="after")
    def _published_once(self) -> "Trained":
        if self.as_published and self.seeds > 1:
            raise ValueError(f"seeds = {self.seeds}: a published network (epochs: 0) is one network; use seeds: 1")
        if self.as_published and self.weights == "none":
            raise ValueError("epochs = 0 takes networks as published; set weights to imagenet, or train for an epoch at least")
        return self

    @property
    def as_published(self) -> bool:
        """Whether the networks are those that somebody published, as they are: nothing is trained."""
        return self.epochs == 0

    def train_config(self, arch: str, seed: int, **changes: Any) -> TrainConfig:
        """The standard training of one network, with `changes`."""
        given = {
            "dataset": self.dataset,
            "size": self.size,
            "channels": self.channels,
            "limit": self.train_images,
            "arch": arch,
            "weights": self.weights,
            "seed": seed,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "lr": self.learning_rate,
            "augment": self.augment,
        }
        return TrainConfig(**(given | changes))


Runs = Annotated[
    tuple[tuple[str, Annotated[int, Field(ge=1)]], ...],
    Field(description="headline arms with another number of training runs than `seeds`, and that number"),
]


def runs_of(p: Any, arm: str) -> int:
    """The training runs of an arm, from seeds 0, 1, …: as `p.runs` has it, `p.seeds` of the other headline arms, else one."""
    return dict(p.runs).get(arm, p.seeds) if arm in p.headline else 1


def by_architecture(p: Trained) -> list[tuple[str, int]]:
    """(architecture, seed) of every network of a study that trains each architecture from several seeds."""
    return [(arch, seed) for arch in p.architectures for seed in range(p.seeds)]


def fingerprints(*sets: ImageSet) -> list[str]:
    """What images, labels, masks and boxes a measurement looks at, as digests."""
    return [data.fingerprint + data.marks for data in sets]


def doubted(network: str, doubts: Iterable[Doubt], scale: float = 1.0) -> None:
    """Tells what `robust_accuracy` is to be distrusted for, at radii as the study counts them: `scale` of them in 1."""
    for doubt in doubts:
        warned.tell(network, ensemble.NAMES[doubt.attack], scale * doubt.eps, [doubt.text])
