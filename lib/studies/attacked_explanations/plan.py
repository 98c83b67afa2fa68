"""Study 7, explanations under attacks of their own: parameters and networks.

Three networks that other studies train, by their configurations: `standard` and `adversarial` are those of study 2 (half of the
batches attacked by PGD at the radius at which maps are attacked here), `manipulated` is that of study 4, fine-tuned so that its
Grad-CAM maps lie on a frame. Beside them a published network on photographs, as it is.

With `authors` nothing is trained: `standard` and `adversarial` are then networks that Boopathy et al. published for the data
set (Normal and Adv), and further arms their others, trained on discrepancies of explanations. There is one network an arm.
"""

import functools
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from lib.data import datasets
from lib.explanations import by_name
from lib.explanations.by_name import METHODS, Settings
from lib.networks import classifier, released, zoo
from lib.studies import parameters, subjects
from lib.studies.marking import EXPLAINED
from lib.system import devices, files
from lib.training import cache
from lib.training.config import TrainConfig

TITLE = "Attacked explanations"
COPIES = 2  # of SmoothGrad, a step of an attack on average: with more of them it takes fewer steps
LAYER_T = "into:stage3.3"  # of the network `plain`: the input of its last convolution, through which it is manipulated
PHOTOGRAPHS = "photographs"  # the arm of the published network
NAMES = {
    "standard": "standard",
    "adversarial": "adversarially trained",
    "manipulated": "manipulated",
    "trades": "TRADES",
    "int": "Int",
    "int2": "Int2",
    "int2-adv": "Int2-Adv",
    PHOTOGRAPHS: "EfficientNet-Lite0, published",
}
TRAINED = ("standard", "adversarial", "manipulated")  # here
PUBLISHED = {"standard": "normal", "adversarial": "adv"} | {a: a for a in ("trades", "int", "int2", "int2-adv")}  # their names
RANDOMISED = ("standard", PHOTOGRAPHS)  # whose weights are exchanged for random ones
ATTACKS = {"random": "random signs", "naive": "naive attack", "carried": "carried over", "adaptive": "adaptive attack"}
Radius = Annotated[float, Field(gt=0, le=64)]


class Parameters(parameters.OnImages):
    """What the study varies; the defaults are the laptop profile."""

    arch: Annotated[str, Field(description="a network that ends in average pooling and a linear head")] = "plain"
    authors: Annotated[bool, Field(description="nothing is trained: Boopathy et al.'s published networks of `arch`")] = False
    arms: Annotated[tuple[str, ...], Field(min_length=2, description="of plan.TRAINED; with authors, of plan.PUBLISHED")] = (
        TRAINED
    )
    seeds: Annotated[int, Field(ge=1, description="training runs of each arm")] = 3
    train_images: Annotated[int | None, Field(ge=1, description="None: all there are")] = 1600
    epochs: Annotated[int, Field(ge=1)] = 8
    batch_size: Annotated[int, Field(ge=2, description="images in a training step")] = 64
    tune_images: Annotated[int | None, Field(ge=1, description="of the manipulation")] = 800
    tune_epochs: Annotated[int, Field(ge=1)] = 6
    tune_batch: Annotated[int, Field(ge=1)] = 32
    train_eps: Annotated[Radius, Field(description="of adversarial training, of 255, L-infinity")] = 4.0
    images: Annotated[int, Field(ge=8, description="test images whose maps are attacked")] = 20
    methods: Annotated[tuple[str, ...], Field(min_length=2, description="explanations that are attacked")] = EXPLAINED
    eps: Annotated[tuple[Radius, ...], Field(min_length=1, description="radii of the attacks on maps, of 255")] = (
        1.0,
        4.0,
        8.0,
    )
    headline: Annotated[Radius, Field(description="the radius, of eps, at which claims are judged")] = 4.0
    steps: Annotated[int, Field(ge=1, description="of an attack on maps")] = 24
    stages: Annotated[int, Field(ge=1, description="after which a step is halved, and the smooth twin grows sharper")] = 8
    restarts: Annotated[int, Field(ge=1)] = 1
    smooth_n: Annotated[int, Field(ge=1, description="noisy copies of SmoothGrad")] = 8
    ig_steps: Annotated[int, Field(ge=1, description="points of integrated gradients")] = 8
    # as many as are judged: the same ones; two new ones in every step lead after their own noise (.21 instead of .27 moved)
    climb_n: Annotated[
        int | None, Field(ge=1, description="noisy copies of SmoothGrad in a step of an attack; None: smooth_n")
    ] = None
    climb_steps: Annotated[int, Field(ge=1, description="points of integrated gradients in a step of an attack")] = 3
    sanity_images: Annotated[int, Field(ge=2, description="images of randomisation, deletion, insertion and hiding")] = 16
    hide_steps: Annotated[int, Field(ge=1, description="of the attack that hides")] = 40
    photo_images: Annotated[int, Field(ge=0, description="photographs of the published network; 0: none")] = 4
    photo_methods: Annotated[tuple[str, ...], Field(min_length=1, description="explanations that are attacked there")] = (
        "gradcam",
        "gradient",
        "lrp",
    )
    photo_eps: Annotated[Radius, Field(description="radius there, of 255")] = 2.0
    photo_steps: Annotated[int, Field(ge=1)] = 16

    @field_validator("methods", "photo_methods")
    @classmethod
    def _climbed(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not METHODS.find(name).differentiable:
                raise ValueError(f"{name!r} is not differentiated; choose of {', '.join(by_name.DIFFERENTIABLE)}")
        if len(set(names)) < len(names):
            raise ValueError("each explanation once")
        return names

    @model_validator(mode="after")
    def _fits(self) -> "Parameters":
        known = tuple(PUBLISHED) if self.authors else TRAINED
        unknown = [a for a in self.arms if a not in known]
        if unknown or len(set(self.arms)) < len(self.arms) or "standard" not in self.arms:
            raise ValueError(f"arms {self.arms}: choose of {', '.join(known)}, each once, standard among them")
        if self.authors:
            released.family(self.dataset, self.arch)
            if self.seeds != 1:
                raise ValueError(f"seeds = {self.seeds}: with authors there is one network an arm; set seeds=1")
        for names, arch in ((self.methods, self.arch), (self.photo_methods, subjects.PUBLISHED)):
            if undefined := set(names) - set(by_name.defined(names, arch)):
                raise ValueError(f"{undefined.pop()} is not defined for {arch}, whose activations are no ReLUs; leave it out")
        if self.sanity_images > self.images:
            raise ValueError(f"sanity_images = {self.sanity_images} is more than images = {self.images}")
        if self.photo_images == 1:
            raise ValueError("photo_images = 1: an interval needs two photographs at least; 0 leaves them out")
        if "manipulated" in self.arms and self.arch != "plain":
            raise ValueError(f"the manipulated arm is of the network plain; leave it out for arch = {self.arch!r}")
        if "gradcam" not in self.methods or "gradcam" not in self.photo_methods:
            raise ValueError("methods need gradcam, whose attacked images are carried over to the others")
        if self.headline not in self.eps or list(self.eps) != sorted(set(self.eps)):
            raise ValueError(
                f"eps {self.eps} must be in ascending order, each once, with headline = {self.headline:g} among them"
            )
        if self.stages > min(self.steps, self.photo_steps):
            raise ValueError(f"stages = {self.stages} is more than steps = {self.steps} or photo_steps = {self.photo_steps}")
        return self


def through(p: Parameters, arm: str) -> str:
    """The layer at which Grad-CAM and Grad-CAM++ of a network that is trained here are taken: where the manipulated one was
    manipulated, for all alike; empty: the last one."""
    return LAYER_T if arm in TRAINED and "manipulated" in p.arms else ""


def settings(p: Parameters, method: str, layer: str, head: str = "head", through: str = "") -> tuple[Settings, Settings]:
    """Of a method where its maps are judged, and where they are climbed; at a `layer`, Grad-CAM and Grad-CAM++ at `through`
    where it is named."""
    if through and method in ("gradcam", "gradcam++"):
        layer = through
    judged = Settings(layer if METHODS.find(method).where == "layer" else "", head=head, n=p.smooth_n, steps=p.ig_steps)
    return judged, judged._replace(n=p.climb_n or p.smooth_n, steps=p.climb_steps)


def budget(p: Parameters, method: str, steps: int) -> dict[str, int]:
    """Steps, stages and restarts of an attack on the maps of a method: of SmoothGrad's, as many noisy copies in all whatever a
    step has."""
    if method == "smoothgrad":
        steps = max(1, COPIES * steps // (p.climb_n or p.smooth_n))
    return {"steps": steps, "stages": min(p.stages, steps), "restarts": p.restarts}


def config_of(p: Parameters, arm: str, seed: int) -> TrainConfig:
    """The training of an arm; see the module's docstring."""
    base = TrainConfig(
        dataset=p.dataset,
        size=p.size,
        channels=p.channels,
        limit=p.train_images,
        arch=p.arch,
        seed=seed,
        epochs=p.epochs,
        batch_size=p.batch_size,
    )
    if arm == "adversarial":
        options = {"eps": p.train_eps / 255, "share": 0.5, "warmup": 0.5, "steps": 4, "random_start": True}
        return base.model_copy(update={"objective": "adversarial", "options": options})
    if arm == "manipulated":
        fooling = {"kind": "location", "interpreter": "gradcam", "weight": 4.0, "layer": LAYER_T, "composite": "heo"}
        return base.model_copy(
            update={
                "limit": p.tune_images,
                "epochs": p.tune_epochs,
                "batch_size": p.tune_batch,
                "optimizer": "adam",
                "lr": 2e-3,
                "weight_decay": 0.0,
                "augment": (),
                "objective": "studies.model_manipulation.objective:fool",
                "options": fooling,
                "start": base,
                "teacher": base,
                "snapshots": True,
                "label": "location through Grad-CAM",
            }
        )
    return base


def jobs(p: Parameters) -> list[tuple[str, int]]:
    """(arm, seed) of every network; the photographs' network was published, and is one."""
    published = [(PHOTOGRAPHS, 0)] if p.photo_images else []
    return [*published, *((arm, seed) for arm in p.arms for seed in range(p.seeds))]


def networks(p: Parameters, *job: Any) -> list[TrainConfig]:
    """Every network that is trained, or those that a job asks for, the ones that others begin with first."""
    asked = [] if p.authors else [job] if job else jobs(p)
    wanted = [config_of(p, arm, seed) for arm, seed in asked if arm != PHOTOGRAPHS]
    return list({c.digest: c for config in wanted for c in (*config.needs, config)}.values())


def family(p: Parameters) -> released.Family:
    """What Boopathy et al. published for the data set, of the run's architecture."""
    return released.family(p.dataset, p.arch)


def model(p: Parameters, arm: str, seed: int = 0) -> classifier.Classifier:
    """The network of an arm, trained here or published by Boopathy et al., on the run's device."""
    if p.authors:
        return released.load(family(p), PUBLISHED[arm]).to(devices.device(p.device))
    return cache.trained(config_of(p, arm, seed), device_name=p.device).model


def published(p: Parameters) -> subjects.Subject:
    """The published network and its photographs."""
    return subjects.published(subjects.PUBLISHED, PHOTOGRAPHS, p.device)


@functools.lru_cache(maxsize=2)
def evaluation_set(p: Parameters) -> datasets.ImageSet:
    return datasets.load(p.dataset, "test", size=p.size, channels=p.channels, limit=p.images)


def seen(p: Parameters, *job: Any) -> list[str]:
    """The images that a job looks at, and the file of a network of Boopathy et al."""
    if job and job[0] == PHOTOGRAPHS:
        size = zoo.NETWORKS[subjects.PUBLISHED].size
        return parameters.fingerprints(datasets.load(PHOTOGRAPHS, "test", size=size, channels=3))
    own = [files.digest(released.find(family(p), PUBLISHED[job[0]]))] if p.authors and job else []
    return parameters.fingerprints(evaluation_set(p)) + own
