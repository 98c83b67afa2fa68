"""Study 2, what adversarially trained CNNs look at (Zhang and Zhu, ICML 2019): arms, transformed images, measurement.

Arms. `standard`; `linf-E` and `fgsm-E`, trained on PGD's or FGSM's images of radius E/255; `l2-R`, on PGD's under L2 of
radius R in units of [0, 1] pixels; `linf-4@1`, the same with another share of adversarial batches (here all); and
`underfit`, the standard run stopped where its clean accuracy is that of the first headline arm, so that lower accuracy can
be told from what adversarial training does. Arms in `headline` carry the claims and are trained from several seeds, as
`standard` and `underfit` are; the others from one.

Scores. Absolute accuracy, and retention: of the images that a network gets right as they are, the share that it still gets
right after a transformation.
"""

import functools
import sys
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from lib import (
    datasets,
    gradients,
    hooks,
    metrics,
    models,
    profiles,
    robustness,
    saliency,
    styles,
    stylize,
    training,
    transforms,
)
from lib.progress import say
from lib.training import TrainConfig, Trained


class Parameters(profiles.Parameters):
    """What the study varies; the defaults are the laptop profile."""

    dataset: Annotated[str, Field(description="any name that lib.datasets.load knows")] = "shapes"
    size: Annotated[int, Field(ge=16, description="image size, pixels")] = 32
    channels: Annotated[Literal[1, 3], Field(description="1 grey, 3 colour")] = 3
    arch: Annotated[str, Field(description="any name that lib.models.create knows")] = "plain"
    weights: Annotated[Literal["none", "imagenet"], Field(description="start from random or published weights")] = "none"
    arms: Annotated[tuple[str, ...], Field(min_length=2, description="see the module's docstring")] = (
        "standard", "underfit", "linf-8", "linf-4", "linf-2", "l2-1.14", "l2-0.57", "fgsm-8", "fgsm-4", "linf-4@1",
    )  # fmt: skip
    headline: Annotated[tuple[str, ...], Field(min_length=1, description="adversarial arms that carry the claims")] = (
        "linf-4", "l2-1.14",
    )  # fmt: skip
    seeds: Annotated[int, Field(ge=1, description="of standard, underfit and the headline arms")] = 3
    train_images: Annotated[int | None, Field(ge=1, description="None: all there are")] = 2000
    epochs: Annotated[int, Field(ge=1)] = 8
    adversarial_epochs: Annotated[int | None, Field(ge=1, description="of adversarial arms; None: as many")] = None
    batch_size: Annotated[int, Field(ge=2)] = 64
    learning_rate: Annotated[float, Field(gt=0, description="peak of the schedule")] = 0.1
    schedule: Annotated[Literal["onecycle", "step", "constant"], Field(description="of the learning rate")] = "onecycle"
    augment: Annotated[tuple[training.Augmentation, ...], Field(description="of training images")] = ("flip",)
    shift: Annotated[int, Field(ge=0, description="largest shift in pixels")] = 2
    adv_fraction: Annotated[float, Field(gt=0, le=1, description="share of adversarial batches")] = 0.5
    attack_steps: Annotated[int, Field(ge=1, description="of PGD in training")] = 5
    relative_step: Annotated[float | None, Field(gt=0, description="step / eps; None: 2.5 / attack_steps")] = None
    random_start: Annotated[bool, Field(description="of PGD in training")] = True
    l2_direction: Annotated[Literal["l2", "linf"], Field(description="steepest step, or signs as released")] = "l2"
    warmup: Annotated[float, Field(ge=0, lt=1, description="share of the run in which eps grows")] = 0.5
    images: Annotated[int, Field(ge=8, description="test images that are transformed")] = 500
    min_correct: Annotated[int, Field(ge=1, description="retention over fewer right images is not judged")] = 200
    saturation: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, description="levels p")] = (
        0.25, 0.5, 1, 4, 8, 16, 64, 1024,
    )  # fmt: skip
    shuffle: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(min_length=1, description="levels k")] = (2, 4, 8)
    styles: Annotated[str, Field(description="embedded, or folder:NAME with paintings")] = "embedded"
    style_encoder: Annotated[Literal["small", "vgg19"], Field(description="trained here, or published")] = "small"
    style_epochs: Annotated[int, Field(ge=1, description="of the style transfer's training")] = 14
    alpha: Annotated[float, Field(ge=0, le=1, description="strength of the style")] = 1.0
    robust_images: Annotated[int, Field(ge=8, description="test images that PGD attacks")] = 200
    robust_eps: Annotated[tuple[Annotated[float, Field(gt=0, le=255)], ...], Field(min_length=1, description="of 255")] = (
        2, 4, 6, 8,
    )  # fmt: skip
    robust_steps: Annotated[int, Field(ge=1)] = 20
    saliency_images: Annotated[int, Field(ge=8, description="test images that are explained")] = 150
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
        return self


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
    if kind not in ("linf", "l2", "fgsm") or not 0 < eps < 256 or (share is not None and not 0 < share <= 1):
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
        dataset=p.dataset, size=p.size, channels=p.channels, limit=p.train_images, arch=p.arch, weights=p.weights, seed=seed,
        epochs=p.epochs, batch_size=p.batch_size, lr=p.learning_rate, schedule=p.schedule, augment=p.augment, shift=p.shift,
    )  # fmt: skip
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
        if p.l2_direction == "linf":  # a step in pixels that has the step's length, as a root mean square, spread evenly
            options |= {"direction": "linf"} | ({"step": p.relative_step * eps / 255} if p.relative_step else {})
    update = {"objective": "adversarial", "options": options, "epochs": p.adversarial_epochs or p.epochs}
    return base.model_copy(update=update)


def style_config(p: Parameters) -> TrainConfig:
    return stylize.config(
        p.dataset, p.size, p.channels, p.train_images, encoder=p.style_encoder, source=p.styles, epochs=p.style_epochs
    )


def networks(p: Parameters) -> list[TrainConfig]:
    """Every network that can be named before training: all but `underfit`, whose length depends on the others."""
    trained = [config_of(p, arm, seed) for arm in p.arms if arm != "underfit" for seed in range(seeds_of(p, arm))]
    return [style_config(p), *trained]


def evaluation_set(p: Parameters) -> datasets.ImageSet:
    return datasets.load(p.dataset, "test", size=p.size, channels=p.channels, limit=p.images)


UNDERFIT_STEP = 2**0.25  # stopping points of `underfit` lie this far apart, as ratios


def underfit(p: Parameters, seed: int, data: datasets.ImageSet) -> Trained:
    """The standard run of this seed, stopped where its accuracy on `data` is that of the first headline arm, within a point.

    Of stopping points in geometric steps, the last whose accuracy is at most the adversarial network's plus .01, found by
    bisection: accuracy is taken to rise with training, which early on it does but for noise. The learning rate's schedule
    is that of the full run. Where the full run is no better, it is its own underfit control.
    """
    target = training.accuracy(training.trained(config_of(p, p.headline[0], seed), device_name=p.device).model, data) + 0.01
    full = config_of(p, "standard", seed)
    best = training.trained(full, device_name=p.device)
    if training.accuracy(best.model, data) <= target:
        return best
    train = datasets.load(p.dataset, "train", size=p.size, channels=p.channels, limit=p.train_images)
    last = full.epochs * (len(train) // full.batch_size)
    points = sorted({round(UNDERFIT_STEP**i) for i in range(200) if UNDERFIT_STEP**i < last})
    low, high = 0, len(points)  # points[low] is good enough a control, points[high] is trained too well
    best = training.trained(full.model_copy(update={"stop": points[0]}), device_name=p.device)
    while high - low > 1:
        middle = (low + high) // 2
        found = training.trained(full.model_copy(update={"stop": points[middle]}), device_name=p.device)
        if training.accuracy(found.model, data) <= target:
            low, best = middle, found
        else:
            high = middle
    return best


def network(p: Parameters, arm: str, seed: int, data: datasets.ImageSet) -> Trained:
    """The trained network of an arm; `data` is what `underfit` is matched on."""
    if arm == "underfit":
        return underfit(p, seed, data)
    return training.trained(config_of(p, arm, seed), device_name=p.device)


class View(NamedTuple):
    """Test images as one transformation shows them, the labels that are right, and for a cue conflict the texture's."""

    kind: str
    level: float
    images: Tensor
    labels: Tensor
    textures: Tensor | None = None


def style_rows(p: Parameters, ids: Tensor) -> Tensor:
    """The style of each image, (N, 3, S, S): a held-out one, fixed by the image's number."""
    held_out = styles.load(p.styles, "test", p.size)
    return held_out[(ids * 7919) % len(held_out)]


def views(p: Parameters, data: datasets.ImageSet, ids: Tensor) -> list[View]:
    """The images `ids` of `data` under every transformation; all networks see the same."""
    x, y = data.images[ids], data.labels[ids]
    found = [View("clean", 0, x, y)]
    found += [View("saturation", level, transforms.saturation(x, level), y) for level in p.saturation]
    found += [View("shuffle", k, transforms.patch_shuffle(x, k, ids), y) for k in p.shuffle]
    style = style_rows(p, ids)
    painter = stylize.trained(style_config(p), p.device)
    where = next(painter.parameters()).device
    painted = stylize.stylize(painter, x.to(where), style.to(where), alpha=p.alpha).cpu()
    swapped = transforms.amplitude_swap(x, style if p.channels == 3 else stylize.grey(style))
    found += [View("style", p.alpha, painted, y), View("fourier", 1, swapped, y)]
    if p.dataset == "shapes":
        conflict = _conflict(p).select(ids)
        found.append(View("conflict", 1, conflict.images, conflict.attributes["shape"], conflict.attributes["texture"]))
    return found


@functools.lru_cache(maxsize=1)
def _conflict(p: Parameters) -> datasets.ImageSet:
    return datasets.load("shapes-conflict", "test", size=p.size, channels=p.channels, limit=p.images)


def batches(n: int, size: int, pixels: int = 4_000_000) -> list[Tensor]:
    """Image numbers in groups of about `pixels` pixels."""
    return list(torch.arange(n).split(max(1, pixels // size**2)))


@functools.lru_cache(maxsize=1)
def _kept(p: Parameters) -> list[tuple[Tensor, list[View]]] | None:
    """All views at once where they fit in memory, so that they are made once for all networks."""
    data = evaluation_set(p)
    if len(data) * p.size**2 * p.channels * 4 * (len(p.saturation) + len(p.shuffle) + 4) > 2**30:
        return None
    return [(ids, views(p, data, ids)) for ids in batches(len(data), p.size)]


def prepared(p: Parameters, data: datasets.ImageSet) -> Iterator[tuple[Tensor, list[View]]]:
    """(ids, views) batch by batch."""
    kept = _kept(p)
    yield from kept if kept is not None else ((ids, views(p, data, ids)) for ids in batches(len(data), p.size))


def rows(arm: str, seed: int, ids: Tensor, measure: str, level: float, values: Tensor) -> pd.DataFrame:
    """One row an image: the study's table has (arm, seed, image_id, measure, level, value)."""
    return pd.DataFrame(
        {
            "arm": arm, "seed": seed, "image_id": ids.numpy(), "measure": measure, "level": float(level),
            "value": values.detach().cpu().to(torch.float32).numpy(),
        }
    )  # fmt: skip


def decisions(model: models.Classifier, arm: str, seed: int, p: Parameters, data: datasets.ImageSet) -> list[pd.DataFrame]:
    """Right (1) or wrong (0) on every view, and for a cue conflict whether the texture's class was answered."""
    found = []
    for ids, shown in prepared(p, data):
        for view in shown:
            answer = training.predictions(model, view.images)
            found.append(rows(arm, seed, ids, view.kind, view.level, answer == view.labels))
            if view.textures is not None:
                found.append(rows(arm, seed, ids, "conflict-texture", view.level, answer == view.textures))
    return found


def robustness_rows(
    model: models.Classifier, arm: str, seed: int, p: Parameters, data: datasets.ImageSet
) -> list[pd.DataFrame]:
    """Still right (1) or not (0) under PGD at every radius, level 0 without attack."""
    part, where = data.head(p.robust_images), next(model.parameters()).device
    x, y = part.images[:].to(where), part.labels.to(where)
    eps = [e / 255 for e in p.robust_eps]
    found = robustness.robust_accuracy(model, x, y, eps=eps, steps=p.robust_steps)
    for warning in found.warnings:
        say(f"  {arm} seed {seed}: {warning}")
    ids = torch.arange(len(part))
    return [rows(arm, seed, ids, "pgd", 255 * e, right) for e, right in zip(found.eps, found.correct, strict=True)]


METHODS = {
    "smoothgrad": "SmoothGrad",
    "gradient": "gradient",
    "integrated": "integrated gradients",
    "guided": "guided backpropagation",
}


def explain(model: models.Classifier, x: Tensor, y: Tensor, method: str, p: Parameters, *, seed: int = 0) -> Tensor:
    """Raw values (N, C, H, W) by one of METHODS, of the loss at the label or its logit as `p.of` says."""
    if method == "smoothgrad":
        generator = torch.Generator().manual_seed(seed)
        return gradients.smoothgrad(
            model, x, y, n=p.smooth_n, spread=p.smooth_spread, of=p.of, generator=generator
        ).values  # fmt: skip
    if method == "gradient":
        return gradients.gradient(model, x, y, of=p.of).values
    if method == "integrated":
        return gradients.integrated_gradients(model, x, y, of="score", steps=max(8, p.smooth_n // 2)).values
    if method == "guided":
        return gradients.guided_backpropagation(model, x, y, of="score").values
    raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")


def saliency_rows(model: models.Classifier, arm: str, seed: int, p: Parameters, data: datasets.ImageSet) -> list[pd.DataFrame]:
    """What the maps of every method look like: measures of `lib.saliency`, and the share of the map inside the object."""
    part, where, found = data.head(p.saliency_images), next(model.parameters()).device, []
    for ids in batches(len(part), p.size, pixels=60_000):
        x, y = part.images[ids].to(where), part.labels[ids].to(where)
        for method in METHODS:
            # noise is drawn anew for each batch of images, and is the same for every network
            values = explain(model, x, y, method, p, seed=int(ids[0]))
            shown, magnitude = saliency.sensitivity(values), values.abs().sum(1)
            numbers = {
                "edges": saliency.edge_agreement(magnitude, x),
                "edges-other": saliency.edge_agreement(magnitude, x.roll(1, 0)),
                "tv": saliency.total_variation(shown),
                "gini": saliency.gini(magnitude),
            }
            if part.masks is not None:
                numbers["mask"] = metrics.overlap(magnitude, part.masks[ids].to(where))
            found += [rows(arm, seed, ids, f"{method}/{name}", 0, v) for name, v in numbers.items()]
        winning = gradients.gradient(model, x, hooks.predicted).values
        found.append(rows(arm, seed, ids, "alignment", 0, saliency.alignment(x, winning)))
    return found


def measure_network(p: Parameters, arm: str, seed: int, data: datasets.ImageSet) -> pd.DataFrame:
    """Everything about one network, a row a measurement."""
    model = network(p, arm, seed, data).model
    parts = [*decisions(model, arm, seed, p, data), *robustness_rows(model, arm, seed, p, data)]
    return pd.concat([*parts, *saliency_rows(model, arm, seed, p, data)], ignore_index=True)


def edge_features(x: Tensor) -> np.ndarray:
    """Histograms of oriented gradients (Dalal and Triggs 2005) of the grey images: edges and nothing else."""
    from skimage.feature import hog

    cell = max(4, x.shape[-1] // 8)
    return np.stack([hog(image, pixels_per_cell=(cell, cell), cells_per_block=(2, 2)) for image in x.mean(1).numpy()])


def measure_style(p: Parameters, data: datasets.ImageSet) -> pd.DataFrame:
    """Two checks of the stylised images: do their statistics match the style's, and is the shape still there?

    `style-distance` (level 0: the image as it is, level 1: stylised). And arm `edges`: a linear classifier of edges alone,
    trained on images as they are (of `shapes`: with textures that tell nothing), which never saw a stylised image.
    """
    from sklearn.svm import LinearSVC

    source = "shapes-shape" if p.dataset == "shapes" else p.dataset
    train = datasets.load(source, "train", size=p.size, channels=p.channels, limit=min(p.train_images or 4000, 4000))
    classifier = LinearSVC(C=0.1, random_state=0).fit(edge_features(train.images[:]), train.labels.numpy())
    painter = stylize.trained(style_config(p), p.device)
    where, found = next(painter.parameters()).device, []
    for ids, shown in prepared(p, data):
        style = style_rows(p, ids).to(where)
        for level, view in enumerate(v for v in shown if v.kind in ("clean", "style")):
            right = torch.from_numpy(classifier.predict(edge_features(view.images))) == view.labels
            found.append(rows("edges", 0, ids, view.kind, view.level, right))
            distance = stylize.style_distance(painter, view.images.to(where), style)
            found.append(rows("edges", 0, ids, "style-distance", level, distance))
    return pd.concat(found, ignore_index=True)


def cost(p: Parameters, data: datasets.ImageSet) -> pd.DataFrame:
    """A row an arm: passes a training image (forward and backward), steps of training, time an epoch over the standard arm's.

    Seconds come from the networks' own records. Arms that were trained at different times or side by side with other work
    are compared with care; passes are exact.
    """
    train = datasets.load(p.dataset, "train", size=p.size, channels=p.channels, limit=p.train_images)
    per_epoch, found = len(train) // p.batch_size, []
    for arm in p.arms:
        trained = network(p, arm, 0, data)
        seconds = float(np.median([h["seconds"] for h in trained.history]))
        options = config_of(p, arm, 0).options
        extra = options["share"] * options["steps"] if options else 0
        steps = min(trained.config.epochs * per_epoch, trained.config.stop or sys.maxsize)
        found.append({"arm": arm, "passes": 1 + extra, "seconds an epoch": seconds, "steps": steps})
    table = pd.DataFrame(found)
    standard = table.loc[table.arm == "standard", "seconds an epoch"].item()
    return table.assign(**{"times standard": table["seconds an epoch"] / standard})
