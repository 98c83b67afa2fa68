"""Study 3, interpretability-aware robust training (Boopathy et al., ICML 2020): parameters, arms, networks.

The ten arms are those of `objective.ARMS`. Arms in `headline` carry the contrasts over seeds; the others are
trained once, and their intervals say so. An arm with an architecture before its name, `wresnet/int2`, is the network that the
authors published for the data set (`lib.networks.released`): one, trained by nobody here, and measured as the others are.
"""

import functools
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from lib.attacks import unforeseen
from lib.data import datasets
from lib.networks import classifier, models, released
from lib.studies import parameters
from lib.studies.interpretability_aware_training import objective
from lib.studies.interpretability_aware_training.objective import ARMS
from lib.system import devices, files
from lib.training import cache, config, objectives
from lib.training.cache import Trained
from lib.training.config import TrainConfig

TITLE = "Interpretability-aware training"
Positive = Annotated[float, Field(gt=0)]


class Parameters(parameters.Ensembled, parameters.Marked):
    """What the study varies; the defaults are the laptop profile."""

    dataset: Annotated[str, Field(description="any name that lib.data.datasets.load knows")] = "digits"
    size: Annotated[int, Field(ge=8, description="image size, pixels")] = 16
    channels: Annotated[Literal[1, 3], Field(description="1 grey, 3 colour")] = 1
    arch: Annotated[
        str, Field(description="a network of lib.networks.models that ends in average pooling and a linear head")
    ] = "small"
    arms: Annotated[
        tuple[str, ...], Field(min_length=2, description="of objective.ARMS; ARCHITECTURE/ARM: the authors' published network")
    ] = tuple(ARMS)
    headline: Annotated[tuple[str, ...], Field(min_length=2, description="arms with several seeds")] = (
        "normal",
        "adv",
        "int-one-class",
        "int",
        "int2",
    )
    seeds: Annotated[int, Field(ge=1, description="of the headline arms")] = 3
    runs: parameters.Runs = (("normal", 5), ("adv", 5), ("int-one-class", 5), ("int", 5), ("int2", 5))  # what primaries compare
    train_images: Annotated[int | None, Field(ge=1, description="None: all there are")] = None
    epochs: Annotated[int, Field(ge=1)] = 28
    batch_size: Annotated[int, Field(ge=2)] = 50
    learning_rate: Annotated[float, Field(gt=0, description="of Adam")] = 1e-3
    schedule: config.Schedule = "constant"
    eps: Annotated[float, Field(gt=0, le=1, description="radius in training, L-infinity")] = 0.12
    attack_steps: Annotated[int, Field(ge=1, description="of the inner maximisation")] = 6
    attack_step: Annotated[float, Field(gt=0, description="of constant length")] = 0.05
    ig_attack_steps: Annotated[int, Field(ge=1, description="of the arms with integrated gradients, longer to match")] = 2
    clean_share: Annotated[float, Field(ge=0, lt=1, description="of the run, before eps grows")] = 0.167
    full_share: Annotated[float, Field(gt=0, le=1, description="of the run, when eps is whole")] = 0.733
    gamma: Annotated[float, Field(ge=0, description="weight of the discrepancy, at the authors' scale")] = 0.01
    ig_weight: Annotated[float, Field(ge=0, description="weight of IG-Norm's term; the code's 1 / batch size")] = 0.02
    images: Annotated[int, Field(ge=8, description="test images that are attacked")] = 200
    eps_grid: Annotated[tuple[Positive, ...], Field(min_length=2, description="radii of the evaluation")] = (
        0.04,
        0.08,
        0.12,
        0.16,
        0.2,
    )
    pgd_steps: Annotated[int, Field(ge=1, description="of the paper's PGD, without a random start")] = 200
    pgd_step: Annotated[float, Field(gt=0)] = 0.01
    restarts: Annotated[int, Field(ge=1, description="random starts of the strongest PGD, for each loss")] = 3
    restart_steps: Annotated[int, Field(ge=1)] = 40
    ensemble_images: Annotated[int, Field(ge=0, description="test images that the ensemble attacks too; 0: none")] = 60
    # at two, AutoAttack breaks two more images of 60 of Int2-Adv; at five none of any arm
    ensemble_targets: Annotated[int, Field(ge=1, description="classes that auto-PGD aims at in turn")] = 5
    aai_images: Annotated[int, Field(ge=8, description="test images whose explanation is attacked")] = 100
    aai_eps: Annotated[tuple[Positive, ...], Field(min_length=2, description="radii, eps among them")] = (0.04, 0.12, 0.2)
    aai_steps: Annotated[int, Field(ge=1)] = 60
    aai_step: Annotated[float, Field(gt=0)] = 0.01
    top_k: Annotated[int, Field(ge=1, description="positions of the top-k form; the paper: 8 of 49")] = 3
    ig_images: Annotated[int, Field(ge=4, description="test images explained by integrated gradients too")] = 40
    ig_points: Annotated[int, Field(ge=1, description="of integrated gradients in the evaluation")] = 16
    unforeseen_images: Annotated[int, Field(ge=0, description="test images of the unforeseen attacks; 0: none")] = 100
    unforeseen_steps: Annotated[int, Field(ge=1, description="the paper: 200")] = 50
    gabor_eps: Annotated[float, Field(gt=0, description="of 255; the paper: 400, which saturates colours")] = 400
    snow_eps: Positive = 2
    jpeg_eps: Annotated[tuple[Positive, Positive, Positive], Field(description="L-infinity, L2, L1")] = (1, 8, 256)
    calibration_images: Annotated[int, Field(ge=0, description="of Normal and Adv at every calibrated radius")] = 40
    targeted: Annotated[bool, Field(description="unforeseen attacks towards a random class, as published")] = False
    published_networks: Annotated[bool, Field(description="also measure the authors' published MNIST networks")] = False

    @field_validator("arms")
    @classmethod
    def _known_arms(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [a for a in arms if method_of(a) not in ARMS]
        if unknown or len(set(arms)) < len(arms):
            raise ValueError(f"arms {', '.join(unknown) or 'named twice'}: choose of {', '.join(ARMS)}, each once")
        for arch in architectures(arms):
            if not {"normal", "adv"} <= {method_of(a) for a in arms if arch_of(a) == arch}:
                raise ValueError(
                    f"{arch + ': ' if arch else ''}normal and adv are what the others are compared with; name both"
                )
        return arms

    @field_validator("runs")
    @classmethod
    def _of_arms(cls, runs: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
        if unknown := [a for a, _ in runs if a not in ARMS]:
            raise ValueError(f"runs of {', '.join(unknown)}: choose of {', '.join(ARMS)}")
        return runs

    @field_validator("eps_grid", "aai_eps")
    @classmethod
    def _ascending(cls, grid: tuple[float, ...]) -> tuple[float, ...]:
        if list(grid) != sorted(set(grid)):
            raise ValueError("radii in ascending order, each once")
        return grid

    @field_validator("arch")
    @classmethod
    def _known_arch(cls, arch: str) -> str:
        if arch not in models.SMALL_NETWORKS:
            raise ValueError(
                f"{arch!r} does not end in average pooling and a linear head that CAM can use; choose one of "
                f"{', '.join(models.SMALL_NETWORKS)}"
            )
        return arch

    @model_validator(mode="after")
    def _fits(self) -> "Parameters":
        for arch in filter(None, architectures(self.arms)):
            released.family(self.dataset, arch)
        stray = [a for a in self.headline if a not in self.arms]
        if stray:
            raise ValueError(f"headline {stray[0]!r} is none of the arms {', '.join(self.arms)}")
        if self.full_share < self.clean_share:
            raise ValueError(
                f"the warm-up is too long: eps grows from {self.clean_share:g} of the run and should be whole at "
                f"{self.full_share:g}"
            )
        for name, grid in (("eps_grid", self.eps_grid), ("aai_eps", self.aai_eps)):
            if self.eps not in grid:
                raise ValueError(f"{name} needs the radius of training, {self.eps:g}, among {grid}")
        positions = (self.size // 4) ** 2  # of the last feature maps: every network here halves its images twice
        if self.top_k > positions:
            raise ValueError(f"top_k = {self.top_k}: the maps of {self.size}-pixel images have {positions} positions")
        if self.eps == self.eps_grid[-1]:
            raise ValueError(f"eps_grid needs a radius beyond that of training, {self.eps:g}")
        return self

    @property
    def beyond(self) -> float:
        """The first radius of the grid beyond that of training."""
        return min(e for e in self.eps_grid if e > self.eps)

    @property
    def ensemble_eps(self) -> tuple[float, ...]:
        """The radii that the ensemble is judged at: that of training, and those beyond."""
        return tuple(e for e in self.eps_grid if e >= self.eps)

    @property
    def unforeseen_eps(self) -> dict[str, float]:
        """The radius of each unforeseen attack, in its own units."""
        return dict(zip(unforeseen.ATTACKS, (self.gabor_eps / 255, self.snow_eps, *self.jpeg_eps), strict=True))


def method_of(arm: str) -> str:
    """How an arm is trained: one of ARMS."""
    return arm.rpartition("/")[2]


def arch_of(arm: str) -> str:
    """The architecture of a network that the authors published; empty for what is trained here."""
    return arm.rpartition("/")[0]


def architectures(arms: Sequence[str]) -> tuple[str, ...]:
    """Those of these arms, each once; empty stands for what is trained here."""
    return tuple(dict.fromkeys(map(arch_of, arms)))


def groups(p: Parameters) -> list[Parameters]:
    """The arms that are compared with each other, as parameters of their own: what is trained here, and by architecture what
    the authors published."""
    found = []
    for arch in architectures(p.arms):
        arms, headline = (tuple(a for a in names if arch_of(a) == arch) for names in (p.arms, p.headline))
        found.append(p.model_copy(update={"arms": arms, "headline": headline} | ({"arch": arch} if arch else {})))
    return found


def family(p: Parameters, arm: str) -> released.Family:
    """What the authors published for the run's data set, of the architecture of this arm."""
    return released.family(p.dataset, arch_of(arm))


def label(arm: str) -> str:
    """An arm as the paper writes it; with its architecture, where the authors published it."""
    names = {f.arch: f.name for f in released.FAMILIES}
    return f"{ARMS[method_of(arm)].name}, {names[arch_of(arm)]}" if arch_of(arm) else ARMS[arm].name


def seeds_of(p: Parameters, arm: str) -> int:
    return 1 if arch_of(arm) else parameters.runs_of(p, arm)


def config_of(p: Parameters, arm: str, seed: int) -> TrainConfig:
    """The training of an arm; only what decides its weights, so that arms are shared between settings of the others."""
    chosen = ARMS[arm]
    options: dict[str, object] = {"arm": arm}
    if chosen.climbs:
        steps = p.ig_attack_steps if chosen.penalty == "ig" else p.attack_steps
        step = p.attack_step * p.attack_steps / p.ig_attack_steps if chosen.penalty == "ig" else p.attack_step
        options |= {"eps": p.eps, "steps": steps, "step": step, "begin": p.clean_share, "full": p.full_share}
    if chosen.penalty in ("one", "all"):
        options["gamma"] = p.gamma
    if chosen.penalty == "ig":
        options["ig_weight"] = p.ig_weight
    if chosen.penalty == "kl":
        options["kl_weight"] = 1.0
    return TrainConfig(
        dataset=p.dataset,
        size=p.size,
        channels=p.channels,
        limit=p.train_images,
        arch=p.arch,
        seed=seed,
        epochs=p.epochs,
        batch_size=p.batch_size,
        optimizer="adam",
        lr=p.learning_rate,
        schedule=p.schedule,
        weight_decay=0.0,
        augment=(),
        objective=objectives.name_of(objective.train),
        options=options,
        label=label(arm),
    )


RELEASED = "released:"  # before the names of the authors' own networks, where they are measured


def jobs(p: Parameters) -> list[tuple[str, int]]:
    """(arm, seed) of every network, and the authors' own where they are asked for and lie beside the data."""
    trained = [(arm, seed) for arm in p.arms for seed in range(seeds_of(p, arm))]
    return trained + (
        [(f"{RELEASED}{arm}", 0) for arm in released.available(released.MNIST_SMALL)] if p.published_networks else []
    )


def networks(p: Parameters, *job: Any) -> list[TrainConfig]:
    """Every network that is trained for the study, or that of one job."""
    asked = [job] if job else jobs(p)
    return [config_of(p, arm, seed) for arm, seed in asked if not (arm.startswith(RELEASED) or arch_of(arm))]


def seen(p: Parameters, *job: Any) -> list[str]:
    """The images that a job looks at, and the file of a network that the authors published."""
    if job and job[0].startswith(RELEASED):
        return [files.digest(released.find(released.MNIST_SMALL, job[0].removeprefix(RELEASED)))]
    own = [files.digest(released.find(family(p, job[0]), method_of(job[0])))] if job and arch_of(job[0]) else []
    return parameters.fingerprints(evaluation_set(p)) + own


def network(p: Parameters, arm: str, seed: int) -> Trained:
    """The network of an arm that is trained here."""
    return cache.trained(config_of(p, arm, seed), device_name=p.device)


def model(p: Parameters, arm: str, seed: int = 0) -> classifier.Classifier:
    """The network of an arm, trained here or published by the authors, on the run's device."""
    if arch_of(arm):
        return released.load(family(p, arm), method_of(arm)).to(devices.device(p.device))
    return network(p, arm, seed).model


def marked(p: Parameters) -> list[parameters.Arm]:
    """All arms, those that the authors published too."""
    arms = [(arm, [(arm, seed) for seed in range(seeds_of(p, arm))]) for arm in p.arms]
    return [parameters.Arm(label(arm), arch_of(arm) or p.arch, jobs) for arm, jobs in arms]


@functools.lru_cache(maxsize=2)
def evaluation_set(p: Parameters) -> datasets.ImageSet:
    return datasets.load(p.dataset, "test", size=p.size, channels=p.channels, limit=p.images)
