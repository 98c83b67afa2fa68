"""Study 2, what adversarially trained CNNs look at (Zhang and Zhu, ICML 2019): parameters, arms, networks.

Arms. `standard`; `linf-E` and `fgsm-E`, trained on PGD's or FGSM's images of radius E/255; `l2-R`, on PGD's under L2 of
radius R in units of [0, 1] pixels; `linf-4@1`, the same with another share of adversarial batches (here all); and
`underfit`, the standard run stopped where its clean accuracy is that of the first headline arm, so that lower accuracy can
be told from what adversarial training does. Arms in `headline` carry the claims and are trained from several seeds, as
`standard` and `underfit` are; the others from one.

With `authors` nothing is trained: `standard` and `linf-8@1` are then the networks Normal and Adv that Boopathy et al. published
for the data set, a pair that nobody here has chosen or trained. There is one network an arm.
"""

import functools
import sys
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
from pydantic import Field, field_validator, model_validator

from lib.data import datasets, styles
from lib.explanations import gradients
from lib.networks import classifier, folding, models, released, style
from lib.studies import parameters
from lib.studies.at_cnn import painter
from lib.system import devices, files
from lib.training import cache, config, evaluate
from lib.training.cache import Trained
from lib.training.config import TrainConfig

TITLE = "Adversarially trained CNNs"
STYLE_STRIDE = 7919  # from one image's style to the next one's
PUBLISHED = {"standard": "normal", "linf-8@1": "adv"}  # Boopathy et al.'s: Adv saw attacked images alone, of radius 8/255


class Parameters(parameters.OnImages, parameters.Ensembled, parameters.Marked):
    """What the study varies; the defaults are the laptop profile."""

    arch: Annotated[str, Field(description="any name that lib.networks.models.create knows")] = "plain"
    weights: Annotated[Literal["none", "imagenet"], Field(description="start from random or published weights")] = "none"
    authors: Annotated[bool, Field(description="nothing is trained: Boopathy et al.'s published networks of `arch`")] = False
    arms: Annotated[tuple[str, ...], Field(min_length=2, description="see the module's docstring")] = (
        "standard",
        "underfit",
        "linf-8",
        "linf-4",
        "linf-2",
        "l2-1.14",
        "l2-0.57",
        "fgsm-8",
        "fgsm-4",
        "linf-4@1",
    )
    headline: Annotated[tuple[str, ...], Field(min_length=1, description="adversarial arms that carry the claims")] = (
        "linf-4",
        "l2-1.14",
    )
    seeds: Annotated[int, Field(ge=1, description="of standard, underfit and the headline arms")] = 5
    train_images: Annotated[int | None, Field(ge=1, description="None: all there are")] = 1600
    epochs: Annotated[int, Field(ge=1)] = 8
    adversarial_epochs: Annotated[int | None, Field(ge=1, description="of adversarial arms; None: as many")] = None
    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: Annotated[float, Field(gt=0, description="peak of the schedule")] = 0.1
    schedule: Annotated[Literal["onecycle", "step", "constant"], Field(description="of the learning rate")] = "onecycle"
    augment: Annotated[tuple[config.Augmentation, ...], Field(description="of training images")] = ("flip",)
    shift: Annotated[int, Field(ge=0, description="largest shift in pixels")] = 2
    adv_fraction: Annotated[float, Field(gt=0, le=1, description="share of adversarial batches")] = 0.5
    attack_steps: Annotated[int, Field(ge=1, description="of PGD in training")] = 4
    relative_step: Annotated[float | None, Field(gt=0, description="step / eps; None: 2.5 / attack_steps")] = None
    random_start: Annotated[bool, Field(description="of PGD in training")] = True
    l2_direction: Annotated[Literal["l2", "linf"], Field(description="steepest step, or signs as released")] = "l2"
    warmup: Annotated[float, Field(ge=0, lt=1, description="share of the run in which eps grows")] = 0.5
    images: Annotated[int, Field(ge=8, description="test images that are transformed")] = 500
    min_correct: Annotated[int, Field(ge=1, description="retention over fewer right images is not judged")] = 200
    saturation: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, description="levels p")] = (
        0.25,
        0.5,
        1,
        4,
        8,
        16,
        64,
        1024,
    )
    shuffle: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1, description="levels k")] = (2, 4, 8)
    style_source: Annotated[str, Field(description="embedded, or folder:NAME with paintings")] = "embedded"
    style_encoder: Annotated[painter.Encoder, Field(description="trained here, or published (lite0, vgg19)")] = "small"
    style_epochs: Annotated[int, Field(ge=1, description="of the style transfer's training")] = 12
    alpha: Annotated[float, Field(ge=0, le=1, description="strength of the style")] = 1.0
    robust_images: Annotated[int, Field(ge=8, description="test images that PGD attacks")] = 150
    robust_eps: Annotated[tuple[Annotated[float, Field(gt=0, le=255)], ...], Field(min_length=1, description="of 255")] = (
        2,
        4,
        8,
    )
    robust_steps: Annotated[int, Field(ge=1)] = 20
    saliency_images: Annotated[int, Field(ge=8, description="test images that are explained")] = 120
    smooth_n: Annotated[int, Field(ge=1, description="noisy copies in SmoothGrad")] = 32
    smooth_spread: Annotated[float, Field(ge=0, description="of the noise, share of an image's range")] = 0.1
    of: Annotated[gradients.Of, Field(description="explain the loss at the label, or its logit")] = "loss"

    @field_validator("arms")
    @classmethod
    def _known_arms(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        for arm in arms:
            attacked(arm)
        if "standard" not in arms or len(set(arms)) < len(arms):
            raise ValueError("arms need 'standard', and each name once")
        return arms

    @field_validator("robust_eps", "saturation", "shuffle")
    @classmethod
    def _once(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(levels)) < len(levels):
            raise ValueError("each level once")
        return levels

    @field_validator("style_source")
    @classmethod
    def _known_styles(cls, source: str) -> str:
        if source != "embedded" and not source.startswith("folder:"):
            raise ValueError("embedded or folder:NAME")
        return source

    @field_validator("arch")
    @classmethod
    def _known_arch(cls, arch: str) -> str:
        if arch not in models.names():
            raise ValueError(f"unknown network {arch!r}; choose one of {', '.join(models.names())}")
        return arch

    @model_validator(mode="after")
    def _fits(self) -> "Parameters":
        stray = [a for a in self.headline if a not in self.arms or attacked(a) is None]
        if stray:
            raise ValueError(f"headline {stray[0]!r} is no adversarial arm of {', '.join(self.arms)}")
        bad = [k for k in self.shuffle if self.size % k]
        if bad:
            raise ValueError(f"shuffle k = {bad[0]} does not divide the size, {self.size} pixels")
        if self.size % style.MULTIPLE[self.style_encoder]:
            multiple = style.MULTIPLE[self.style_encoder]
            raise ValueError(f"size {self.size}: the {self.style_encoder} style encoder takes multiples of {multiple}")
        if self.authors:
            released.family(self.dataset, self.arch)
            if self.arms != tuple(PUBLISHED) or self.seeds != 1:
                raise ValueError(f"authors: there is one network each of {', '.join(PUBLISHED)}; set these arms, seeds: 1")
        if self.l2_direction == "linf" and self.relative_step is None:
            raise ValueError("l2_direction = linf takes steps of signs: say how long with relative_step (the paper: 0.5)")
        return self

    @property
    def judged_eps(self) -> float:
        """The radius that robustness is shown and judged at, of 255: the second of those that PGD has, or the only one."""
        return sorted(self.robust_eps)[:2][-1]


class Attacked(NamedTuple):
    """What an adversarial arm's name says: kind, radius in units of [0, 1] images, share of adversarial batches or None."""

    kind: str
    eps: float
    share: float | None


def attacked(arm: str) -> Attacked | None:
    """The parts of an arm's name; None for arms that meet no attack. Raises ValueError for a name that is none."""
    if arm in ("standard", "underfit"):
        return None
    kind, _, rest = arm.partition("-")
    value, at, part = rest.partition("@")
    try:
        found = Attacked(kind, float(value) if kind == "l2" else float(value) / 255, float(part) if at else None)
    except ValueError:
        found = Attacked("", 0.0, None)
    kind, eps, share = found
    if (
        kind not in ("linf", "l2", "fgsm")
        or not 0 < eps <= (256 if kind == "l2" else 1)
        or (share is not None and not 0 < share <= 1)
    ):
        raise ValueError(f"unknown arm {arm!r}; there are standard, underfit, linf-E, fgsm-E (eps E/255), l2-R, linf-E@share")
    return found


def label(arm: str) -> str:
    """An arm as people read it."""
    kind, _, rest = arm.partition("-")
    value, _, share = rest.partition("@")
    name = {"linf": f"PGD-L∞ {value}/255", "l2": f"PGD-L2 {value}", "fgsm": f"FGSM {value}/255"}.get(kind, arm.capitalize())
    return f"{name}, {float(share):.0%} adv." if share else name


def seeds_of(p: Parameters, arm: str) -> int:
    return p.seeds if arm in ("standard", "underfit", *p.headline) else 1


def config_of(p: Parameters, arm: str, seed: int) -> TrainConfig:
    """The training of an arm; `underfit` starts as `standard` does (`underfit` finds where it stops)."""
    base = TrainConfig(
        dataset=p.dataset,
        size=p.size,
        channels=p.channels,
        limit=p.train_images,
        arch=p.arch,
        weights=p.weights,
        seed=seed,
        epochs=p.epochs,
        batch_size=p.batch_size,
        lr=p.learning_rate,
        schedule=p.schedule,
        augment=p.augment,
        shift=p.shift,
    )
    if (found := attacked(arm)) is None:
        return base
    kind, eps, share = found
    options: dict[str, Any] = {"eps": eps, "share": share or p.adv_fraction, "warmup": p.warmup}
    if kind == "fgsm":
        options |= {"steps": 1, "step": eps, "random_start": False}
    else:
        options |= {"steps": p.attack_steps, "random_start": p.random_start}
        if p.relative_step is not None:
            options["step"] = p.relative_step * eps
    if kind == "l2":
        options["norm"] = "l2"
        if p.l2_direction == "linf" and p.relative_step is not None:  # as released: r/255 a pixel, times relative_step
            options |= {"direction": "linf", "step": p.relative_step * eps / 255}
    update = {"objective": "adversarial", "options": options, "epochs": p.adversarial_epochs or p.epochs}
    return base.model_copy(update=update)


def style_of(image: Any, styles: int) -> Any:
    """Which of so many held-out styles an image, or each of an array of them, is painted in: fixed by the image's number."""
    return image * STYLE_STRIDE % styles


def style_config(p: Parameters) -> TrainConfig:
    return painter.config(
        p.dataset, p.size, p.channels, p.train_images, encoder=p.style_encoder, source=p.style_source, epochs=p.style_epochs
    )


EDGES = "edges"  # the job that checks the stylised images by a classifier of edges alone


def jobs(p: Parameters) -> list[tuple[str, int]]:
    """(arm, seed) of every network, and the check of the stylised images."""
    return [*((arm, seed) for arm in p.arms for seed in range(seeds_of(p, arm))), (EDGES, 0)]


def networks(p: Parameters, *job: Any) -> list[TrainConfig]:
    """Every network that can be named before training, or those that decide one job.

    `underfit` is none: its length depends on the standard network and on the first headline arm.
    """
    found = {c.digest: c for one in ([job] if job else jobs(p)) for c in _networks(p, *one)}
    return list(found.values())


def family(p: Parameters) -> released.Family:
    """What Boopathy et al. published for the data set, of the run's architecture."""
    return released.family(p.dataset, p.arch)


def _networks(p: Parameters, arm: str, seed: int) -> list[TrainConfig]:
    deciding = () if p.authors else {EDGES: (), "underfit": ("standard", p.headline[0])}.get(arm, (arm,))
    return [style_config(p), *(config_of(p, one, seed) for one in deciding)]


def seen(p: Parameters, *job: Any) -> list[str]:
    """The images that a job looks at: those that are transformed, their styles; of a published network the file."""
    conflict = [conflict_set(p)] if datasets.has_cue_conflict(p.dataset) else []
    train = [edges_set(p)] if job[:1] == (EDGES,) else []
    own = [files.digest(released.find(family(p), PUBLISHED[job[0]]))] if p.authors and job and job[0] != EDGES else []
    return [*parameters.fingerprints(evaluation_set(p), *conflict, *train), styles.fingerprint(p.style_source), *own]


@functools.lru_cache(maxsize=2)
def conflict_set(p: Parameters) -> datasets.ImageSet:
    return datasets.load(f"{p.dataset}-conflict", "test", size=p.size, channels=p.channels, limit=p.images)


@functools.lru_cache(maxsize=2)
def edges_set(p: Parameters) -> datasets.ImageSet:
    """Training images of the classifier of edges; of two cues, with textures that tell nothing."""
    name = f"{p.dataset}-shape" if datasets.has_cue_conflict(p.dataset) else p.dataset
    return datasets.load(name, "train", size=p.size, channels=p.channels, limit=min(p.train_images or 4000, 4000))


@functools.lru_cache(maxsize=2)
def evaluation_set(p: Parameters) -> datasets.ImageSet:
    return datasets.load(p.dataset, "test", size=p.size, channels=p.channels, limit=p.images)


@functools.lru_cache(maxsize=2)
def training_set(p: Parameters) -> tuple[int, str]:
    """How many training images there are, and their fingerprint."""
    data = datasets.load(p.dataset, "train", size=p.size, channels=p.channels, limit=p.train_images)
    return len(data), data.fingerprint


UNDERFIT_STEP = 2**0.25  # stopping points of `underfit` lie this far apart, as ratios


def underfit(p: Parameters, seed: int) -> Trained:
    """The standard run of this seed, stopped before its accuracy exceeds that of the first headline arm by a point.

    Of stopping points in geometric steps, the last whose accuracy is at most the adversarial network's plus .01, found by
    bisection on the evaluation images: accuracy is taken to rise with training, which early on it does but for noise. The
    learning rate's schedule is that of the full run. Where the full run is no better, it is returned: there is no underfit
    control then, and that seed does not count in the claims that need one.
    """
    data = evaluation_set(p)
    target = evaluate.accuracy(network(p, p.headline[0], seed).model, data) + 0.01
    full = config_of(p, "standard", seed)
    best = network(p, "standard", seed)
    if evaluate.accuracy(best.model, data) <= target:
        return best
    last = full.epochs * (training_set(p)[0] // full.batch_size)
    points = sorted({1, *(round(UNDERFIT_STEP**i) for i in range(200) if UNDERFIT_STEP**i < last)})
    low, high = 0, len(points)  # points[low] is good enough a control, points[high] is trained too well
    best = cache.trained(full.model_copy(update={"stop": points[0]}), device_name=p.device)
    while high - low > 1:
        middle = (low + high) // 2
        found = cache.trained(full.model_copy(update={"stop": points[middle]}), device_name=p.device)
        if evaluate.accuracy(found.model, data) <= target:
            low, best = middle, found
        else:
            high = middle
    return best


def network(p: Parameters, arm: str, seed: int) -> Trained:
    """The network of an arm that is trained here."""
    if arm == "underfit":
        return underfit(p, seed)
    return cache.trained(config_of(p, arm, seed), device_name=p.device)


def model(p: Parameters, arm: str, seed: int = 0) -> classifier.Classifier:
    """The network of an arm as it is measured; trained here, or published by Boopathy et al., on the run's device."""
    if p.authors:
        return released.load(family(p), PUBLISHED[arm]).to(devices.device(p.device))
    return folding.measured(network(p, arm, seed).model, evaluation_set(p).images[:2])


def marked(p: Parameters) -> list[parameters.Arm]:
    """All arms."""
    return [parameters.Arm(label(arm), p.arch, [(arm, seed) for seed in range(seeds_of(p, arm))]) for arm in p.arms]


def cost(p: Parameters) -> pd.DataFrame:
    """A row an arm (seed 0): passes a training image (forward and backward), steps of training, time a step over standard's.

    Empty where nothing is trained. Passes are exact. Seconds come from the networks' own records: compare with care what was
    trained at different times or beside other work.
    """
    if p.authors:
        return pd.DataFrame()
    per_epoch, found = training_set(p)[0] // p.batch_size, []
    for arm in p.arms:
        trained = network(p, arm, 0)
        steps = min(trained.config.epochs * per_epoch, trained.config.stop or sys.maxsize)
        seconds = sum(h["seconds"] for h in trained.history) / steps
        options = config_of(p, arm, 0).options
        extra = int(per_epoch * options["share"]) / per_epoch * options["steps"] if options else 0
        found.append({"arm": arm, "passes": 1 + extra, "seconds a step": seconds, "steps": steps})
    table = pd.DataFrame(found)
    standard = table.loc[table.arm == "standard", "seconds a step"].item()
    return table.assign(**{"times standard": table["seconds a step"] / standard})
