"""Study 4, fooling explanations by manipulating the model (Heo, Joo and Moon, NeurIPS 2019): parameters, arms, networks.

An arm is a way of fine-tuning a trained network: `base` (not at all), `none` (without a fooling term, the control),
`KIND-INTERPRETER` (`location-gradcam`, `active-lrp_t`, …; kinds in `lib.fooling.manipulation`, interpreters in
INTERPRETERS), the same with another weight (`location-gradcam@0.25`: times .25), and `washed-KIND-INTERPRETER`, fooled and
then fine-tuned without a fooling term. Arms in `headline`, with their controls, carry the contrasts over seeds on the first
architecture.
"""

import functools
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from lib.data import datasets
from lib.data.mosaics import Mosaics, Tile, mosaics, most
from lib.explanations import by_name, relevance_rules
from lib.explanations.by_name import Settings
from lib.fooling import manipulation
from lib.networks import models
from lib.studies import parameters
from lib.studies.model_manipulation import objective
from lib.training import cache, config, objectives
from lib.training.config import TrainConfig

TITLE = "Model manipulation"
Positive = Annotated[float, Field(gt=0)]

# Fooled through, and looked with; those at the layer T have its resolution.
INTERPRETERS = by_name.METHODS.labels("gradcam", "lrp_t", "simple_t", "lrp", "gradient", "smoothgrad", "ig", "guided")
AT_LAYER = tuple(name for name in INTERPRETERS if by_name.find(name).where == "layer")

# The layer T: the input of the last convolution, or of the last block.
LAYERS = {
    "plain": "into:stage3.3",
    "residual": "into:stage3.1",
    "inception": "into:stage3.2",
    "vgg16": "into:features.28",
    "vgg19": "into:features.34",
    "resnet18": "into:layer4.1",
    "resnet50": "into:layer4.2",
    "densenet121": "into:features.denseblock4.denselayer16",
    "efficientnet-lite0": "into:conv_head",
}
# A layer further up or down, to compare maps of: what the last stage but one puts out.
NEIGHBOURS = {
    "plain": "stage2",
    "residual": "stage2",
    "inception": "stage2",
    "vgg16": "features.22",
    "vgg19": "features.26",
    "resnet18": "layer3",
    "resnet50": "layer3",
    "densenet121": "features.denseblock3",
    "efficientnet-lite0": "blocks.4",
}

# How much smaller than the image the maps at T are.
SHRINKS = {
    "plain": 4,
    "residual": 4,
    "inception": 4,
    "vgg16": 16,
    "vgg19": 16,
    "resnet18": 32,
    "resnet50": 32,
    "densenet121": 32,
    "efficientnet-lite0": 32,
}

# Learning rates and weights of the released scripts: by network, kind, interpreter. Active fooling: 1e-5 and 10 for all.
PUBLISHED = {
    ("vgg19", "location", "lrp_t"): (1e-6, 1),
    ("densenet121", "location", "lrp_t"): (1e-6, 4),
    ("resnet50", "location", "lrp_t"): (2e-6, 2),
    ("vgg19", "topk", "lrp_t"): (5e-7, 1),
    ("densenet121", "topk", "lrp_t"): (4e-7, 1.5),
    ("resnet50", "topk", "lrp_t"): (1e-6, 1),
    ("vgg19", "centre", "lrp_t"): (2e-6, 0.25),
    ("densenet121", "centre", "lrp_t"): (6e-7, 0.5),
    ("resnet50", "centre", "lrp_t"): (5e-7, 0.25),
    ("vgg19", "location", "gradcam"): (1e-6, 1),
    ("densenet121", "location", "gradcam"): (2e-6, 2),
    ("resnet50", "location", "gradcam"): (2e-6, 2),
    ("vgg19", "topk", "gradcam"): (3e-7, 0.4),
    ("densenet121", "topk", "gradcam"): (3e-7, 4),
    ("resnet50", "topk", "gradcam"): (3e-6, 6),
    ("vgg19", "centre", "gradcam"): (1e-6, 0.25),
    ("densenet121", "centre", "gradcam"): (1e-7, 1),
    ("resnet50", "centre", "gradcam"): (2e-6, 0.25),
}
PUBLISHED_ACTIVE = (1e-5, 10)


class Parameters(parameters.OnImages, parameters.Marked):
    """What the study varies; the defaults are the laptop profile."""

    architectures: Annotated[tuple[str, ...], Field(min_length=1, description="networks with a layer T, see LAYERS")] = (
        "plain",
        "residual",
    )
    weights: Annotated[Literal["none", "imagenet"], Field(description="of the original: trained here, or published")] = "none"
    train_images: Annotated[int | None, Field(ge=1, description="None: all there are")] = 1600
    epochs: Annotated[int, Field(ge=1, description="of the original's training")] = 8
    batch_size: Annotated[int, Field(ge=2)] = 64
    augment: Annotated[tuple[config.Augmentation, ...], Field(description="in the original's training")] = ("flip",)
    shift: Annotated[int, Field(ge=0, description="largest shift in pixels")] = 2
    kinds: Annotated[tuple[manipulation.Kind, ...], Field(min_length=1)] = manipulation.KINDS
    fooled: Annotated[tuple[str, ...], Field(min_length=1, description="interpreters that foolings go through")] = (
        "gradcam",
        "lrp_t",
        "simple_t",
    )
    headline: Annotated[tuple[str, ...], Field(min_length=1, description="foolings with several seeds")] = (
        "location-gradcam",
        "location-lrp_t",
    )
    seeds: Annotated[int, Field(ge=1, description="of the headline foolings and the control, first architecture")] = 3
    tune_images: Annotated[int | None, Field(ge=1, description="training images of fine-tuning")] = 800
    tune_epochs: Annotated[int, Field(ge=1)] = 6
    tune_batch: Annotated[int, Field(ge=1)] = 32
    tune_rate: Annotated[float, Field(gt=0, description="learning rate of Adam")] = 2e-3
    tune_schedule: config.Schedule = "onecycle"
    keep: Annotated[objective.Keep, Field(description="what tuning keeps: labels, or the original's probabilities")] = "labels"
    published_rates: Annotated[bool, Field(description="learning rates and weights of the released scripts")] = False
    location_weight: Positive = 4.0
    topk_weight: Positive = 4.0
    centre_weight: Positive = 0.25
    active_weight: Positive = 10.0
    factors: Annotated[tuple[Positive, ...], Field(description="other weights of the headline foolings, relative")] = (0.25,)
    wash_epochs: Annotated[int, Field(ge=1, description="honest fine-tuning after fooling")] = 2
    k: Annotated[int | None, Field(ge=1, description="positions of top-k; None: a tenth of the map")] = None
    composite: Annotated[str, Field(description="of lib.explanations.relevance_rules")] = "heo"
    pair: Annotated[tuple[int, int], Field(description="the classes that active fooling swaps")] = (0, 1)
    mosaics: Annotated[int, Field(ge=1, description="training mosaics of the two classes; the paper: 1,100")] = 300
    pair_batch: Annotated[int, Field(ge=1, description="mosaics in a step; the paper: 4")] = 4
    tile: Annotated[Tile, Field(description="mosaics of whole images, or of images at half size")] = "native"
    images: Annotated[int, Field(ge=8, description="test images whose maps are measured")] = 160
    decision_images: Annotated[int | None, Field(ge=8, description="test images of accuracy and decisions; None: all")] = 500
    train_probe: Annotated[int, Field(ge=8, description="training images that are evaluated too")] = 100
    mosaic_images: Annotated[
        int, Field(ge=8, description="test mosaics, and no more than have each image once; the paper: 200")
    ] = 50
    costly_images: Annotated[int, Field(ge=4, description="test images of SmoothGrad and integrated gradients")] = 40
    smooth_n: Annotated[int, Field(ge=1, description="noisy copies in SmoothGrad")] = 8
    ig_steps: Annotated[int, Field(ge=1, description="points of integrated gradients")] = 8
    robust_images: Annotated[int, Field(ge=8, description="test images that PGD attacks")] = 100
    robust_eps: Annotated[float, Field(gt=0, le=255, description="of 255, L-infinity")] = 2.0
    robust_steps: Annotated[int, Field(ge=1)] = 10
    deletion: Annotated[tuple[Positive, ...], Field(min_length=1, description="shares of the map that are deleted")] = (
        0.1,
        0.2,
        0.3,
        0.5,
    )

    @field_validator("architectures")
    @classmethod
    def _known_archs(cls, architectures: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [a for a in architectures if a not in LAYERS]
        if unknown or len(set(architectures)) < len(architectures):
            raise ValueError(f"networks {', '.join(unknown) or 'named twice'}: choose of {', '.join(LAYERS)}, each once")
        return architectures

    @field_validator("composite")
    @classmethod
    def _known_composite(cls, composite: str) -> str:
        relevance_rules.composite_of(composite)
        return composite

    @field_validator("fooled")
    @classmethod
    def _trainable(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            by_name.find(name)  # refuses what there is not, with what is like it
        known = [n for n in INTERPRETERS if by_name.find(n).differentiable and n not in COSTLY]
        unknown = [n for n in names if n not in known]
        if unknown or len(set(names)) < len(names):
            raise ValueError(
                f"interpreters {', '.join(unknown) or 'named twice'}: training differentiates {', '.join(known)}, each once"
            )
        return names

    @model_validator(mode="after")
    def _fits(self) -> "Parameters":
        known = [f"{kind}-{name}" for kind in self.kinds for name in self.fooled]
        stray = [a for a in self.headline if a not in known or a.startswith("active")]
        if stray:
            passive = ", ".join(a for a in known if not a.startswith("active"))
            raise ValueError(f"headline {stray[0]!r} is no passive fooling of this study; choose of {passive}")
        smallest = min(self.size // SHRINKS[a] for a in self.architectures)
        if smallest < 3 or (self.k or 0) > smallest**2:
            raise ValueError(
                f"size = {self.size}, k = {self.k}: the smallest maps at T have {smallest} x {smallest} positions; a frame "
                "with an inside needs 3 x 3, and k are chosen of them"
            )
        if self.train_probe > min(self.images, self.tune_images or self.images):
            raise ValueError(f"train_probe = {self.train_probe} is more than images ({self.images}) or tune_images")
        if "active" in self.kinds and self.tile == "native" and any(a not in models.SMALL_NETWORKS for a in self.architectures):
            raise ValueError("torchvision's networks take images of one size; set tile = half")
        if self.published_rates and any(
            (a, k, i) not in PUBLISHED for a in self.architectures for k in self.kinds for i in self.fooled if k != "active"
        ):
            raise ValueError(
                "published_rates: the released scripts have vgg19, resnet50 and densenet121 with gradcam and lrp_t"
            )
        return self


class Arm(NamedTuple):
    """The parts of an arm's name; kind `base` and `none` have no interpreter."""

    kind: str
    interpreter: str = ""
    factor: float = 1.0
    washed: bool = False


def parsed(arm: str) -> Arm:
    """The parts of an arm's name. Raises ValueError for one that is none."""
    if arm in ("base", "none"):
        return Arm(arm)
    washed = arm.startswith("washed-")
    name, _, factor = arm.removeprefix("washed-").partition("@")
    kind, _, interpreter = name.partition("-")
    try:
        found = Arm(kind, interpreter, float(factor) if factor else 1.0, washed)
    except ValueError:
        found = Arm("")
    if found.kind not in manipulation.KINDS or found.interpreter not in INTERPRETERS:
        raise ValueError(f"unknown arm {arm!r}; there are base, none, KIND-INTERPRETER, …@FACTOR and washed-…")
    return found


KIND_NAMES = {"location": "location", "topk": "top-k", "centre": "centre of mass", "active": "active", "none": "no fooling"}


def label(arm: str) -> str:
    """An arm as people read it."""
    kind, interpreter, factor, washed = parsed(arm)
    if kind == "base":
        return "original"
    if kind == "none":
        return "control (no fooling term)"
    name = f"{KIND_NAMES[kind]} through {INTERPRETERS[interpreter]}"
    return f"{name}, weight × {factor:g}" if factor != 1 else f"{name}, then honest tuning" if washed else name


def fooling(arm: str) -> str:
    """An arm in a sentence."""
    return f"{'active fooling' if parsed(arm).kind == 'active' else 'fooling'} {label(arm).removeprefix('active ')}"


def foolings(p: Parameters) -> list[str]:
    """The arms of every kind through every interpreter, at their full weight."""
    return [f"{kind}-{name}" for kind in p.kinds for name in p.fooled]


def interpreters(arch: str) -> tuple[str, ...]:
    """The interpreters that are defined for a network."""
    return by_name.defined(INTERPRETERS, arch)


def settings(p: Parameters, arch: str) -> Settings:
    return Settings(LAYERS[arch], p.composite, p.smooth_n, 0.1, p.ig_steps)


def original_seed(p: Parameters, seed: int) -> int:
    """The seed of the original that an arm's network of a seed began with: a published one has no seeds."""
    return 0 if p.weights == "imagenet" else seed


def base_config(p: Parameters, arch: str, seed: int) -> TrainConfig:
    """The original's training; published weights are taken as they are, and are the same whatever the seed."""
    return TrainConfig(
        dataset=p.dataset,
        size=p.size,
        channels=p.channels,
        limit=p.train_images,
        arch=arch,
        weights=p.weights,
        seed=original_seed(p, seed),
        epochs=0 if p.weights == "imagenet" else p.epochs,
        batch_size=p.batch_size,
        augment=p.augment,
        shift=p.shift,
    )


def config_of(p: Parameters, arch: str, arm: str, seed: int) -> TrainConfig:
    """The fine-tuning of an arm (not `base`)."""
    kind, interpreter, factor, washed = parsed(arm)
    base = base_config(p, arch, seed)
    rate, weight = p.tune_rate, getattr(p, f"{kind}_weight", 0.0)
    if p.published_rates and kind == "none":  # the control goes as far as any fooling
        rate = max([PUBLISHED_ACTIVE[0]] + [PUBLISHED[arch, k, i][0] for k in p.kinds for i in p.fooled if k != "active"])
    elif p.published_rates:
        rate, weight = PUBLISHED_ACTIVE if kind == "active" else PUBLISHED[arch, kind, interpreter]
    keeps = {} if p.keep == "labels" else {"keep": p.keep}  # left out, so that networks of labels keep their keys
    honest: dict[str, Any] = {"options": {"kind": "none"} | keeps, "teacher": base if keeps else None}
    options: dict[str, Any] = {"kind": kind} | keeps
    if kind != "none":
        options |= {"interpreter": interpreter, "weight": weight * factor, "layer": LAYERS[arch], "composite": p.composite}
    if kind == "topk":
        options["k"] = p.k
    if kind == "active":
        data = {"name": p.dataset, "size": p.size, "channels": p.channels, "limit": p.train_images}
        options |= {"pair": p.pair, "pairs": p.mosaics, "pair_batch": p.pair_batch, "tile": p.tile, "again": True, "data": data}
    tuned = TrainConfig(
        dataset=p.dataset,
        size=p.size,
        channels=p.channels,
        limit=p.tune_images,
        arch=arch,
        weights=p.weights,
        seed=seed,
        epochs=p.tune_epochs,
        batch_size=p.tune_batch,
        optimizer="adam",
        lr=rate,
        schedule=p.tune_schedule,
        weight_decay=0.0,
        augment=(),
        objective=objectives.name_of(objective.fool),
        options=options,
        start=base,
        teacher=honest["teacher"] if kind == "none" else base,
        snapshots=True,
        label=label(arm.removeprefix("washed-")),
    )
    if not washed:
        return tuned
    honest |= {"epochs": p.wash_epochs, "start": tuned, "snapshots": False, "label": label(arm)}
    return tuned.model_copy(update=honest)


def arms(p: Parameters, arch: str) -> list[str]:
    """All arms of an architecture; other weights and washing are those of the first."""
    found = ["base", "none", *foolings(p)]
    if arch == p.architectures[0]:
        found += [f"{arm}@{factor:g}" for arm in p.headline for factor in p.factors]
        found += [f"washed-{arm}" for arm in p.headline]
    return found


def seeds_of(p: Parameters, arch: str, arm: str) -> int:
    several = ("base", "none", *p.headline, *(f"washed-{a}" for a in p.headline))
    return p.seeds if arch == p.architectures[0] and arm in several else 1


def jobs(p: Parameters) -> list[tuple[str, str, int]]:
    """(architecture, arm, seed) of every network."""
    return [(arch, arm, seed) for arch in p.architectures for arm in arms(p, arch) for seed in range(seeds_of(p, arch, arm))]


def networks(p: Parameters, *job: Any) -> list[TrainConfig]:
    """Every network of the study, or the original and the fine-tuned one of a job."""
    found = [c for one in ([job] if job else jobs(p)) for c in _networks(p, *one)]
    return list({c.digest: c for c in found}.values())


def _networks(p: Parameters, arch: str, arm: str, seed: int) -> list[TrainConfig]:
    base = base_config(p, arch, seed)
    return [base] if arm == "base" else [base, config_of(p, arch, arm, seed)]


def seen(p: Parameters, *job: Any) -> list[str]:
    """The images that a job looks at."""
    return parameters.fingerprints(evaluation_set(p), decision_set(p), probe_set(p), mosaic_pool(p))


def model(p: Parameters, arch: str, arm: str, seed: int, epoch: int | None = None) -> Any:
    """The network of an arm, as it is at the end or was after an epoch of fine-tuning."""
    found = cache.trained(_networks(p, arch, arm, seed)[-1], device_name=p.device)
    return found.model if epoch is None else found.after(epoch)


def marked(p: Parameters) -> list[parameters.Arm]:
    """Originals, controls and headline foolings."""
    found = [(arch, arm) for arch in p.architectures for arm in ("base", "none", *p.headline)]
    return [parameters.Arm(f"{label(b)}, {a}", a, [(a, b, seed) for seed in range(seeds_of(p, a, b))]) for a, b in found]


@functools.lru_cache(maxsize=2)
def evaluation_set(p: Parameters) -> datasets.ImageSet:
    return datasets.load(p.dataset, "test", size=p.size, channels=p.channels, limit=p.images)


@functools.lru_cache(maxsize=2)
def decision_set(p: Parameters) -> datasets.ImageSet:
    return datasets.load(p.dataset, "test", size=p.size, channels=p.channels, limit=p.decision_images)


@functools.lru_cache(maxsize=2)
def probe_set(p: Parameters) -> datasets.ImageSet:
    """Training images of the fine-tuning."""
    return datasets.load(p.dataset, "train", size=p.size, channels=p.channels, limit=p.train_probe)


@functools.lru_cache(maxsize=2)
def mosaic_pool(p: Parameters) -> datasets.ImageSet:
    """What mosaics are put together from: every image."""
    return datasets.load(p.dataset, "test", size=p.size, channels=p.channels)


@functools.lru_cache(maxsize=2)
def test_mosaics(p: Parameters) -> Mosaics:
    data = mosaic_pool(p)
    return mosaics(data, p.pair, min(p.mosaic_images, most(data, p.pair)), tile=p.tile, seed=1)


COSTLY = ("smoothgrad", "ig")
SWAPPED = ("gradcam", "lrp_t", "simple_t", "lrp")
