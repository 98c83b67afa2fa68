"""`TrainConfig`: everything that decides the weights of a network, and its digest."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lib.networks import models
from lib.system import files

# Part of every key: raise it when a change to this module, to lib.networks, lib.attacks, or to what makes objectives and
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

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    dataset: str
    size: Annotated[int, Field(ge=8, description="image size in pixels")] = 32
    channels: Literal[1, 3] = 3
    limit: Annotated[int | None, Field(ge=1, description="number of training images")] = None
    arch: Annotated[str, Field(description="a name that lib.networks.models.create knows, or module:function within lib")]
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
    label: Annotated[str, Field(description="what people call this training; it decides nothing")] = ""
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
        deciding = self.model_dump(exclude={*unused, "label"})
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
        objective = "" if self.objective == "standard" else f" {self.label or self.objective}"
        if "eps" in self.options:
            objective += f" {self.options.get('norm', 'linf')} {self.options['eps']:.3g}"
        stop = f" to step {self.stop}" if self.stop else ""
        return f"{self.dataset}/{self.arch}{objective} seed {self.seed}{stop}"
