"""Study 2's measurement: what each network answers on transformed and attacked images, and what its maps look like.

Every network sees the same transformed images. The results are one tidy table, a row a measurement: (arm, seed, image_id,
measure, level, value). Scores are drawn from it: absolute accuracy, and retention, which is, of the images that a network
gets right as they are, the share that it still gets right after a transformation.
"""

import functools
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.attacks import robustness
from lib.claims.rows import rows
from lib.data import datasets, styles, transforms
from lib.data.image_sets import ImageFiles
from lib.data.images import luma
from lib.explanations import by_name, gradients
from lib.measures import appearance, comparison
from lib.networks import contract
from lib.networks.classifier import Classifier
from lib.networks.style import StyleNet, style_distance, stylize
from lib.studies import parameters
from lib.studies.at_cnn import plan
from lib.studies.at_cnn.plan import EDGES, Parameters, conflict_set, edges_set, evaluation_set, label, style_config, style_of
from lib.system import devices
from lib.training import cache, evaluate


class View(NamedTuple):
    """Test images as one transformation shows them, the labels that are right, and for a cue conflict the texture's."""

    kind: str
    level: float
    images: Tensor
    labels: Tensor
    textures: Tensor | None = None


def style_rows(p: Parameters, ids: Tensor) -> Tensor:
    """The style of each image, (N, 3, S, S): a held-out one."""
    held_out = styles.load(p.style_source, "test", p.size)
    return held_out[style_of(ids, len(held_out))]


@functools.lru_cache(maxsize=2)
def painter(p: Parameters) -> StyleNet:
    """The style transfer of a run, loaded once."""
    return cache.trained(style_config(p), device_name=p.device).model


def views(p: Parameters, ids: Tensor) -> list[View]:
    """The evaluation images `ids` under every transformation; all networks see the same."""
    data = evaluation_set(p)
    x, y = data.images[ids], data.labels[ids]
    found = [View("clean", 0, x, y)]
    found += [View("saturation", level, transforms.saturation(x, level), y) for level in p.saturation]
    found += [View("shuffle", k, transforms.patch_shuffle(x, k, ids), y) for k in p.shuffle]
    style = style_rows(p, ids)
    where = next(painter(p).parameters()).device
    painted = stylize(painter(p), x.to(where), style.to(where), alpha=p.alpha).cpu()
    swapped = transforms.amplitude_swap(x, style if p.channels == 3 else luma(style))
    found += [View("style", p.alpha, painted, y), View("fourier", 1, swapped, y)]
    if datasets.has_cue_conflict(p.dataset):
        conflict = conflict_set(p).select(ids)
        found.append(View("conflict", 1, conflict.images, conflict.attributes["shape"], conflict.attributes["texture"]))
    return found


def batches(n: int, size: int, pixels: int = 4_000_000) -> list[Tensor]:
    """Image numbers in groups of about `pixels` pixels."""
    return list(torch.arange(n).split(max(1, pixels // size**2)))


KEEP_BYTES = 2**30
_making = threading.Lock()


def _made(p: Parameters) -> Iterator[tuple[Tensor, list[View]]]:
    for ids in batches(len(evaluation_set(p)), p.size):
        with devices.threads(1):  # the same last bits, whoever asks first
            found = views(p, ids)
        yield ids, found


@functools.lru_cache(maxsize=1)
def _kept(p: Parameters) -> list[tuple[Tensor, list[View]]]:
    return list(_made(p))


def prepared(p: Parameters) -> Iterator[tuple[Tensor, list[View]]]:
    """(ids, views) batch by batch: made once for all networks where they fit in memory, else anew for each."""
    pixels = len(evaluation_set(p)) * p.channels * p.size**2
    if 4 * pixels * (len(p.saturation) + len(p.shuffle) + 4) > KEEP_BYTES:
        yield from _made(p)
        return
    with _making:  # networks are measured side by side
        kept = _kept(p)
    yield from kept


def decisions(model: Classifier, arm: str, seed: int, p: Parameters) -> list[pd.DataFrame]:
    """Right (1) or wrong (0) on every view, and for a cue conflict whether the texture's class was answered."""
    found = []
    for ids, shown in prepared(p):
        for view in shown:
            answer = evaluate.predictions(model, view.images)
            found.append(rows(arm, seed, view.kind, view.level, answer == view.labels, ids))
            if view.textures is not None:
                found.append(rows(arm, seed, "conflict-texture", view.level, answer == view.textures, ids))
    return found


def robustness_rows(model: Classifier, arm: str, seed: int, p: Parameters) -> list[pd.DataFrame]:
    """Still right (1) or not (0) under PGD at every radius, level 0 without attack (`pgd`); and of the first images, at the
    radius that is judged, under the ensemble too (`ensemble`)."""
    part, where = evaluation_set(p).head(p.robust_images), next(model.parameters()).device
    x, y = part.images[:].to(where), part.labels.to(where)
    eps = [e / 255 for e in p.robust_eps]
    budget = p.ensemble([p.judged_eps / 255], len(part))
    found = robustness.robust_accuracy(model, x, y, eps=eps, steps=p.robust_steps, ensemble=budget)
    parameters.doubted(f"{label(arm)}, seed {seed}", found.doubts, 255)
    ids = torch.arange(len(part))
    under = [rows(arm, seed, "pgd", 255 * e, right, ids) for e, right in zip(found.eps, found.after["pgd"], strict=True)]
    few = min(p.ensemble_images, len(part))
    if few:
        right = found.correct[found.eps.index(p.judged_eps / 255)][:few]
        under.append(rows(arm, seed, "ensemble", p.judged_eps, right, ids[:few]))
    return under


METHODS = by_name.METHODS.labels("smoothgrad", "gradient", "ig", "guided")


def methods(arch: str) -> dict[str, str]:
    """The kinds of maps that networks of this name have, and what they are called."""
    return {m: METHODS[m] for m in by_name.defined(METHODS, arch)}


def settings(p: Parameters, seed: int = 0) -> by_name.Settings:
    """What the methods take: of the loss at the label or of its logit, as `p.of` says; noise is drawn from the seed."""
    generator = torch.Generator().manual_seed(seed)
    return by_name.Settings(n=p.smooth_n, spread=p.smooth_spread, steps=max(8, p.smooth_n // 2), of=p.of, generator=generator)


def saliency_rows(model: Classifier, arm: str, seed: int, p: Parameters) -> list[pd.DataFrame]:
    """What the maps of every method that is defined look like: `lib.measures.appearance`, and the share inside the object."""
    part, where, found = evaluation_set(p).head(p.saliency_images), next(model.parameters()).device, []
    magnitudes: dict[str, list[Tensor]] = {method: [] for method in methods(p.arch)}
    for ids in batches(len(part), p.size, pixels=60_000):
        x, y = part.images[ids].to(where), part.labels[ids].to(where)
        for method in magnitudes:
            # noise is drawn anew for each batch of images, and is the same for every network
            values = by_name.raw(method, model, x, y, settings(p, int(ids[0]))).values
            shown, magnitude = appearance.sensitivity(values), values.abs().sum(1)
            magnitudes[method].append(magnitude.cpu())
            numbers = {
                "edges": appearance.edge_agreement(magnitude, x),
                "tv": appearance.total_variation(shown),
                "scatter": appearance.scatter(shown),
                "gini": appearance.gini(magnitude),
            }
            if part.masks is not None:
                numbers["mask"] = comparison.overlap(magnitude, part.masks[ids].to(where))
            found += [rows(arm, seed, f"{method}/{name}", 0, v, ids) for name, v in numbers.items()]
        winning = gradients.gradient(model, x, contract.predicted).values
        found.append(rows(arm, seed, "alignment", 0, appearance.alignment(x, winning), ids))
    contours = appearance.edges(part.images[:])
    for method, kept in magnitudes.items():
        found.append(rows(arm, seed, f"{method}/edges-other", 0, with_others(torch.cat(kept), contours)))
    return found


def with_others(maps: Tensor, contours: Tensor) -> Tensor:
    """Of each image (N,), the mean rank correlation of its map with the others' contours and of the others' maps with its own
    contours; NaN where there is no other. Their mean is that over all pairs of different images (`claims.over_pairs`)."""
    found = comparison.spearman_of_all(maps, contours)
    found = (found + found.T) / 2
    return found.fill_diagonal_(torch.nan).nanmean(1)


def measure(p: Parameters, arm: str, seed: int) -> pd.DataFrame:
    """Everything about one network, a row a measurement; of EDGES the check of the stylised images."""
    if arm == EDGES:
        return measure_style(p)
    model = plan.model(p, arm, seed)
    parts = [*decisions(model, arm, seed, p), *robustness_rows(model, arm, seed, p)]
    return pd.concat([*parts, *saliency_rows(model, arm, seed, p)], ignore_index=True)


def edge_features(x: Tensor | ImageFiles) -> np.ndarray:
    """Histograms of oriented gradients (Dalal and Triggs 2005) of the grey images: edges and nothing else."""
    from skimage.feature import hog

    cell = max(4, x.shape[-1] // 8)
    grey = (x[i].mean(0).numpy() for i in range(len(x)))  # images that stay on disk are opened one by one
    return np.stack([hog(image, pixels_per_cell=(cell, cell), cells_per_block=(2, 2)) for image in grey])


def measure_style(p: Parameters) -> pd.DataFrame:
    """Two checks of the stylised images: do their statistics match the style's, and is the shape still there?

    `style-distance` (level 0: the image as it is, 1: stylised, 2: stylised, to the style of the next image). And arm `edges`:
    a linear classifier of edges alone, trained on images as they are (of `shapes`: with textures that tell nothing), which
    never saw a stylised image.
    """
    from sklearn.svm import LinearSVC

    train = edges_set(p)
    classifier = LinearSVC(C=0.1, random_state=0).fit(edge_features(train.images), train.labels.numpy())
    where, found = next(painter(p).parameters()).device, []
    for ids, shown in prepared(p):
        seen = {v.kind: v for v in shown if v.kind in ("clean", "style")}
        for view in seen.values():
            right = torch.from_numpy(classifier.predict(edge_features(view.images))) == view.labels
            found.append(rows("edges", 0, view.kind, view.level, right, ids))
        for level, kind, asked in ((0, "clean", ids), (1, "style", ids), (2, "style", ids + 1)):
            with devices.threads(1):
                distance = style_distance(painter(p), seen[kind].images.to(where), style_rows(p, asked).to(where))
            found.append(rows("edges", 0, "style-distance", level, distance, ids))
    return pd.concat(found, ignore_index=True)
