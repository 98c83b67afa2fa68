"""Study 1, Grad-CAM attention shift under attack (Chakraborty et al., CVPRW 2022): the measurement.

FGSM's direction is computed once an image and scaled by every eps, as in the paper; random signs of the same size are the
control. Each map of an attacked image is compared with the map of its clean image, at every stage, for two choices of the
class that is explained: `pred`, the class the network decides for (before and after), and `true`, the label in both.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

from lib import attacks, cam, datasets, metrics, models, profiles, training

PAPER_EPS = (0.01, 0.05, 0.075, 0.1)
FAMILY = {"plain": "plain (VGG-like)", "residual": "deep (residual)", "inception": "wide (multi-branch)"}
# FGSM and noise share their grid; `class` compares clean maps of two classes, without any attack.
ATTACKS = ("fgsm", "noise")
TARGETS = ("pred", "true")


class Parameters(profiles.Parameters):
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
    augment: Annotated[tuple[training.Augmentation, ...], Field(description="of training images")] = ("flip",)
    weights: Annotated[Literal["none", "imagenet"], Field(description="start from random or published weights")] = "none"
    images: Annotated[int, Field(ge=8, description="test images that are attacked")] = 300
    eps: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=2, description="radii, [0,1] pixels")] = (
        0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
    )  # fmt: skip
    window: Annotated[Literal["uniform", "gaussian", "global"], Field(description="of SSIM on enlarged maps")] = "uniform"


def networks(p: Parameters) -> list[training.TrainConfig]:
    """Every network the study needs, architecture by architecture."""
    return [
        training.TrainConfig(
            dataset=p.dataset, size=p.size, channels=p.channels, limit=p.train_images, arch=arch, weights=p.weights,
            seed=seed, epochs=p.epochs, batch_size=p.batch_size, lr=p.learning_rate, augment=p.augment,
        )
        for arch in p.architectures
        for seed in range(p.seeds)
    ]  # fmt: skip


def evaluation_set(p: Parameters) -> datasets.ImageSet:
    return datasets.load(p.dataset, "test", size=p.size, channels=p.channels, limit=p.images)


def shown(maps: Tensor, size: int) -> Tensor:
    """A positive map as the paper shows it: scaled to [0, 1] map by map, enlarged bilinearly to the image."""
    return cam.upsample(cam.normalise(maps), size)


def compare(clean: Tensor, other: Tensor, size: int, window: str) -> dict[str, np.ndarray]:
    """Every dissimilarity of two batches of positive maps (N, h, w) in their native grid, a column each, (N,)."""
    big_clean, big_other = shown(clean, size), shown(other, size)
    small_clean, small_other = cam.normalise(clean), cam.normalise(other)
    similarity = metrics.ssim(big_clean, big_other, window=window)
    grid = min(3, *(n - 1 + n % 2 for n in clean.shape[-2:]))
    columns = {
        "ssim": similarity,
        "nissim": ((1 - similarity) / 2).clamp(0, 1),
        "nissim_native": metrics.nissim(small_clean, small_other, size=grid),
        "spearman": metrics.spearman(small_clean, small_other),
        "iou": metrics.topk_iou(small_clean, small_other),
        "centroid_shift": metrics.centroid_shift(big_clean, big_other),
        "degenerate_clean": metrics.degenerate(clean),
        "degenerate_adv": metrics.degenerate(other),
    }
    return {k: v.cpu().numpy() for k, v in columns.items()}


def measure(
    model: models.Classifier, x: Tensor, y: Tensor, *, eps: Sequence[float], window: str = "uniform", first_image: int = 0,
    noise_seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """One row for each (image, layer, attack, eps, target): how far the map moved and what the network said.

    eps 0 is measured too, as the check that nothing moves. The pass that gives the maps gives the prediction, so an
    attacked image costs one forward pass and one backward pass for each of its two classes. `nissim_class` (for FGSM and
    `pred`) is the dissimilarity of two maps of the *clean* image: of the class predicted before and after the attack. It is
    how much of the shift a mere change of the explained class makes. `nissim_ceiling` compares the clean maps
    of the predicted class of two different images; it needs two images at least.
    """
    size, layers, n = x.shape[-1], list(model.stages), len(x)
    direction, clean_logits = attacks.fgsm_direction(model, x, y)
    noise = torch.cat([attacks.random_sign(x[:1], _generator(noise_seed, first_image + i)) for i in range(n)]).to(x)
    directions = {"fgsm": direction, "noise": noise}
    clean_pred = clean_logits.argmax(1)

    def explain(images: Tensor) -> cam.Maps:
        return cam.gradcam(model, images, lambda logits: torch.stack([logits.argmax(1), y], 1), layers)

    clean = explain(x)
    rows: list[dict[str, Any]] = []
    reached: list[Tensor] = []
    for attack in ATTACKS:
        for e in (0.0, *eps):
            attacked = explain(attacks.step_along(x, directions[attack], e))
            pred = attacked.logits.argmax(1)
            if attack == "fgsm":
                reached.append(pred)
            for layer in layers:
                for t, target in enumerate(TARGETS):
                    found = compare(clean.maps[layer][:, t], attacked.maps[layer][:, t], size, window)
                    where = {"layer": layer, "last": layer == layers[-1], "attack": attack, "eps": e, "target_mode": target}
                    rows.append(where | found | {"pred_adv": pred})
    elsewhere = cam.gradcam(model, x, torch.stack(reached, 1), layers)
    own = {layer: shown(clean.maps[layer][:, 0], size) for layer in layers}
    ceiling = {k: metrics.nissim(m, m.roll(1, 0), window=window).cpu().numpy() for k, m in own.items()}
    for row in rows:
        row["nissim_ceiling"] = ceiling[row["layer"]]
        row["nissim_class"] = np.full(n, np.nan, np.float32)
        if row["attack"] == "fgsm" and row["target_mode"] == "pred":
            other = shown(elsewhere.maps[row["layer"]][:, (0.0, *eps).index(row["eps"])], size)
            row["nissim_class"] = metrics.nissim(own[row["layer"]], other, window=window).cpu().numpy()
    common = {
        "image_id": np.arange(first_image, first_image + n),
        "true": y.cpu().numpy(),
        "pred_clean": clean_pred.cpu().numpy(),
        # no gradient at all: the loss has saturated or the model masks its gradients, and FGSM does nothing here
        "masked": (direction == 0).flatten(1).all(1).cpu().numpy(),
    }
    return pd.concat(
        [pd.DataFrame(common | row | {"pred_adv": row["pred_adv"].cpu().numpy()}) for row in rows], ignore_index=True
    )


def _generator(seed: int, image: int) -> torch.Generator:
    """Noise that belongs to an image: every network sees the same."""
    return torch.Generator().manual_seed(seed * 1_000_003 + image)


def measure_network(p: Parameters, config: training.TrainConfig, data: datasets.ImageSet, batch_size: int = 60) -> pd.DataFrame:
    """The measurement of one trained network, in batches of about one size."""
    network = training.trained(config, device_name=p.device)
    where = next(network.model.parameters()).device
    parts = []
    for index in torch.arange(len(data)).tensor_split(-(-len(data) // batch_size)):
        x, y = data.images[index].to(where), data.labels[index].to(where)
        parts.append(measure(network.model, x, y, eps=p.eps, window=p.window, first_image=int(index[0])))
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "model", config.arch)
    table.insert(1, "seed", config.seed)
    return table.astype(dict.fromkeys(("model", "layer", "attack", "target_mode"), "category"))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """By (model, seed, layer, attack, target, eps): MOD and its companions, accuracy, share of maps that are empty."""
    data = table.assign(
        correct=table.pred_adv == table.true,
        flipped=table.pred_adv != table.pred_clean,
        empty=table.degenerate_clean | table.degenerate_adv,
    )
    keys = ["model", "seed", "layer", "last", "attack", "target_mode", "eps"]
    columns = [
        "nissim", "nissim_native", "spearman", "iou", "centroid_shift", "nissim_ceiling", "correct", "flipped", "empty",
        "masked",
    ]  # fmt: skip
    means = data.groupby(keys, observed=True)[columns].mean().reset_index()
    means["mod_over_ceiling"] = means.nissim / means.nissim_ceiling
    return means.rename(columns={"nissim": "mod", "nissim_native": "mod_native", "correct": "accuracy"})


def vid(means: pd.DataFrame) -> pd.DataFrame:
    """VID in reading A, by (model, seed, layer, target): the population standard deviation over eps > 0 of MOD under FGSM."""
    under = means[(means.attack == "fgsm") & (means.eps > 0)].sort_values("eps")
    keys = ["model", "seed", "layer", "last", "target_mode"]
    wide = under.pivot_table(index=keys, columns="eps", values="mod", observed=True)
    return wide.index.to_frame(index=False).assign(vid=metrics.vid_model(torch.tensor(wide.to_numpy())).numpy())
