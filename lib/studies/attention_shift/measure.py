"""Study 1: how far each map moves under attack, one row for each image, layer, attack, eps and target."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.attacks import single_step
from lib.attacks.steps import weaknesses
from lib.claims import warned
from lib.explanations import activation_maps
from lib.measures import comparison
from lib.measures.similarity import ssim
from lib.networks import classifier
from lib.studies.attention_shift import plan
from lib.studies.attention_shift.plan import ATTACKS, TARGETS, Parameters, attacker_of, evaluation_set
from lib.system import devices

BATCH = 60  # small images that are measured together: the maps of all pairs of them are compared


def shown(maps: Tensor, size: int) -> Tensor:
    """A positive map as the paper shows it: scaled to [0, 1] map by map, enlarged bilinearly to the image."""
    return activation_maps.upsample(activation_maps.normalise(maps), size)


def compare(clean: Tensor, other: Tensor, size: int, window: str) -> dict[str, np.ndarray]:
    """Every dissimilarity of two batches of positive maps (N, h, w) in their native grid, a column each, (N,)."""
    big_clean, big_other = shown(clean, size), shown(other, size)
    small_clean, small_other = activation_maps.normalise(clean), activation_maps.normalise(other)
    similarity = ssim(big_clean, big_other, window=window)
    grid = min(3, *(n - 1 + n % 2 for n in clean.shape[-2:]))
    columns = {
        "ssim": similarity,
        "nissim": ((1 - similarity) / 2).clamp(0, 1),
        "nissim_native": comparison.nissim(small_clean, small_other, size=grid),
        "spearman": comparison.spearman(small_clean, small_other),
        "iou": comparison.topk_iou(small_clean, small_other),
        "centroid_shift": comparison.centroid_shift(big_clean, big_other),
        "degenerate_clean": comparison.degenerate(clean),
        "degenerate_adv": comparison.degenerate(other),
    }
    return {k: v.cpu().numpy() for k, v in columns.items()}


def on_background(maps: Tensor, masks: Tensor | None) -> np.ndarray:
    """The share of the mass of maps (N, H, W), as shown, that lies outside of the object's masks (N, H, W), in [0, 1]; NaN for
    a map of zeros, and where no masks are known."""
    if masks is None:
        return np.full(len(maps), np.nan, np.float32)
    return (1 - comparison.overlap(maps, masks.to(maps))).cpu().numpy()


def area(maps: Tensor) -> np.ndarray:
    """The share of the image on which a map (N, H, W), as shown, is at least half of its maximum; NaN for a map of zeros."""
    highest = maps.amax((1, 2), keepdim=True)
    share = (maps >= highest / 2).flatten(1).float().mean(1)
    return share.masked_fill(highest.flatten() <= 0, torch.nan).cpu().numpy()


def to_others(maps: Tensor, window: str) -> np.ndarray:
    """The mean NISSIM of each map (N, H, W) in [0, 1] to all others, (N,); NaN where there is no other."""
    first, second = torch.triu_indices(len(maps), len(maps), 1)
    found = comparison.nissim(maps[first], maps[second], window=window).cpu().double()
    total = found.new_zeros(len(maps)).index_add_(0, first, found).index_add_(0, second, found)
    return (total / max(1, len(maps) - 1) if len(maps) > 1 else total.fill_(torch.nan)).float().numpy()


def measure_images(
    model: classifier.Classifier,
    x: Tensor,
    y: Tensor,
    *,
    eps: Sequence[float],
    window: str = "uniform",
    masks: Tensor | None = None,
    attacker: classifier.Classifier | None = None,
    first_image: int = 0,
    noise_seed: int = 0,
    network: str = "network",
) -> pd.DataFrame:
    """One row for each (image, layer, attack, eps, target): how far the map moved and what the network said.

    eps 0 is measured too, as the check that nothing moves. The pass that gives the maps gives the prediction, so an
    attacked image costs one forward pass and one backward pass for each of its two classes; one under noise is explained for
    the class that is predicted alone. `nissim_class` (for FGSM and
    `pred`) is the dissimilarity of two maps of the *clean* image: of the class predicted before and after the attack. It is
    how much of the shift a mere change of the explained class makes. `nissim_ceiling` is the mean
    dissimilarity of the image's clean map of the predicted class to those of all others here; it needs two images at least.
    `background` and `area` are of the attacked image's map, at eps 0 of the clean one's (`on_background` of the objects'
    `masks` (N, H, W), `area`). FGSM's direction is that of `attacker`, or else of the model itself; what it warns of is told of
    `network`.
    """
    size, layers, n = x.shape[-1], list(model.stages), len(x)
    direction, logits = single_step.fgsm_direction(attacker or model, x, y)
    warned.tell(network, "FGSM", 0, weaknesses(direction, logits))
    noise = torch.cat([single_step.random_sign(x[:1], _generator(noise_seed, first_image + i)) for i in range(n)]).to(x)
    directions = {"fgsm": direction, "noise": noise}

    def explain(images: Tensor, targets: tuple[str, ...] = TARGETS) -> activation_maps.Maps:
        def classes(logits: Tensor) -> Tensor:
            return torch.stack([logits.argmax(1), y], 1)[:, : len(targets)]

        return activation_maps.gradcams(model, images, classes, layers)

    clean = explain(x)
    clean_pred = clean.logits.argmax(1)
    still = explain(single_step.step_along(x, direction, 0.0))  # at eps 0 attacks are one
    rows: list[dict[str, Any]] = []
    reached: list[Tensor] = []
    for attack in ATTACKS:
        targets = TARGETS if attack == "fgsm" else TARGETS[:1]
        for e in (0.0, *eps):
            attacked = explain(single_step.step_along(x, directions[attack], e), targets) if e else still
            pred = attacked.logits.argmax(1)
            if attack == "fgsm":
                reached.append(pred)
            for layer in layers:
                for t, target in enumerate(targets):
                    found = compare(clean.maps[layer][:, t], attacked.maps[layer][:, t], size, window)
                    now = shown(attacked.maps[layer][:, t], size)
                    found |= {"background": on_background(now, masks), "area": area(now)}
                    where = {"layer": layer, "last": layer == layers[-1], "attack": attack, "eps": e, "target_mode": target}
                    rows.append(where | found | {"pred_adv": pred})
    elsewhere = activation_maps.gradcams(model, x, torch.stack(reached, 1), layers)
    own = {layer: shown(clean.maps[layer][:, 0], size) for layer in layers}
    ceiling = {layer: to_others(maps, window) for layer, maps in own.items()}
    for row in rows:
        row["nissim_ceiling"] = ceiling[row["layer"]]
        row["nissim_class"] = np.full(n, np.nan, np.float32)
        if row["attack"] == "fgsm" and row["target_mode"] == "pred":
            other = shown(elsewhere.maps[row["layer"]][:, (0.0, *eps).index(row["eps"])], size)
            row["nissim_class"] = comparison.nissim(own[row["layer"]], other, window=window).cpu().numpy()
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


def psnr(p: Parameters, model: classifier.Classifier, images: int = 300) -> dict[float, float]:
    """By eps, the PSNR in dB of images that FGSM has moved, mean over the first ones."""
    data, where = evaluation_set(p).head(images), next(model.parameters()).device
    found: dict[float, list[Tensor]] = {e: [] for e in p.eps}
    for index in torch.arange(len(data)).split(batch(p)):
        x, y = data.images[index].to(where), data.labels[index].to(where)
        direction, _ = single_step.fgsm_direction(model, x, y)
        for e, values in found.items():
            values.append(comparison.psnr(x, single_step.step_along(x, direction, e)))
    return {e: float(torch.cat(values).mean()) for e, values in found.items()}


def batch(p: Parameters) -> int:
    """How many images are looked at together."""
    return max(2, devices.images_at_once(p.size, BATCH))


def measure(p: Parameters, arch: str, seed: int, part: int = 0) -> pd.DataFrame:
    """The measurement of one network on a part of the images, in batches of about one size."""
    model, data = plan.model(p, arch, seed), evaluation_set(p)
    other = plan.model(p, *attacker_of(p, arch, seed)) if p.black_box else None
    where = next(model.parameters()).device
    found = []
    chosen = torch.arange(len(data)).tensor_split(plan.parts(p))[part]
    for index in chosen.tensor_split(-(-len(chosen) // batch(p))):
        x, y = data.images[index].to(where), data.labels[index].to(where)
        masks = None if data.masks is None else data.masks[index].to(where)
        about = {
            "window": p.window,
            "masks": masks,
            "attacker": other,
            "first_image": int(index[0]),
            "network": arch if p.as_published else f"{arch}, seed {seed}",
        }
        found.append(measure_images(model, x, y, eps=p.eps, **about))
    table = pd.concat(found, ignore_index=True)
    table.insert(0, "model", arch)
    table.insert(1, "seed", seed)
    return table.astype(dict.fromkeys(("model", "layer", "attack", "target_mode"), "category"))
