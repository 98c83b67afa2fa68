"""Study 3's measurement: accuracy under plain and strong PGD, maps under attacks on the decision and on the explanation.

The results are one tidy table, a row a measurement: (arm, seed, image_id, measure, level, value). Levels are radii.

* `clean`: right as it is; `plain`: right under the paper's PGD (no random start, one run of cross-entropy); `strong`: right
  under that and under random restarts with both losses; `ensemble`: right under both and under the ensemble, on the first
  images, at the radius of training and beyond; `warned`: did an attack meet gradients that are exactly zero.
* `tau/F`, `top/F`, `moved/F`: Kendall's tau, overlap of the top positions and L1 distance of the true class's CAM; F an
  attack on explanations: `l1`, `topk`, both over all images with the prediction kept, `released` the authors' last iterate;
  `kept/F`: is the prediction that of the clean image. `tau/noise`: random signs of the same size. `tau/ig`: integrated
  gradients of the L1 form's images.
* `d2`, `bound`, `applies`: both sides of Proposition 1 on PGD's images; with `-ig` by integrated gradients, with `-aai` and
  `-unforeseen` on those attacks' images (level: the attack's place in the list).
* `unforeseen/NAME`, and `calibration/NAME` at every radius that their authors calibrated; `unforeseen/snow-start`: under
  snow as it begins, before any step.
"""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from lib.attacks import by_name, jpeg, losses, projected, robustness, single_step, unforeseen
from lib.claims.rows import rows
from lib.data import images
from lib.explanations import gradients
from lib.explanations.explanation import Explanation
from lib.fooling import discrepancy, interpretation_attack
from lib.fooling.interpretation_attack import Form
from lib.measures import comparison
from lib.networks import classifier, hooks, released
from lib.studies import parameters
from lib.studies.interpretability_aware_training import plan
from lib.studies.interpretability_aware_training.plan import RELEASED, Parameters, evaluation_set, label
from lib.system import devices


def _constant(step: float) -> Callable[[float, int, int], float]:
    return lambda eps, steps, i: step


def plain(model: classifier.Classifier, x: Tensor, y: Tensor, p: Parameters) -> robustness.RobustAccuracy:
    """The paper's PGD: steps of constant size from the image itself, cross-entropy. Every right row is attacked at every eps.

    A row counts as broken as soon as one iterate fools it, or one at a smaller radius did; the paper looks at the last
    iterate of each radius alone, which can only be higher.
    """
    return robustness.robust_accuracy(
        model,
        x,
        y,
        eps=p.eps_grid,
        steps=p.pgd_steps,
        step=_constant(p.pgd_step),
        random_start=False,
        screen=1.0,
        second_look=0.0,
    )


def strong(model: classifier.Classifier, x: Tensor, y: Tensor, p: Parameters) -> robustness.RobustAccuracy:
    """Random starts, cross-entropy and the margin, steps that shrink; then the ensemble, on what these leave.

    `after["pgd"]` is what the first three leave, whatever the ensemble does.
    """
    return robustness.robust_accuracy(
        model,
        x,
        y,
        eps=p.eps_grid,
        steps=p.restart_steps,
        losses=(losses.cross_entropy, losses.margin),
        restarts=p.restarts,
        screen=1.0,
        second_look=0.0,
        ensemble=p.ensemble(p.ensemble_eps, len(x)),
    )


def accuracy_rows(model: classifier.Classifier, x: Tensor, y: Tensor, arm: str, seed: int, p: Parameters) -> list[pd.DataFrame]:
    without, with_starts = plain(model, x, y, p), strong(model, x, y, p)
    parameters.doubted(f"{label(arm)}, seed {seed}", without.doubts + with_starts.doubts)
    few = min(p.ensemble_images, len(x))
    found = [rows(arm, seed, "clean", 0, without.correct[0])]
    for i, eps in enumerate(p.eps_grid, 1):
        found.append(rows(arm, seed, "plain", eps, without.correct[i]))
        found.append(rows(arm, seed, "strong", eps, without.correct[i] & with_starts.after["pgd"][i]))
        if few and eps in p.ensemble_eps:
            found.append(rows(arm, seed, "ensemble", eps, (without.correct[i] & with_starts.correct[i])[:few]))
    zero = any("zero gradients" in w for w in without.warnings + with_starts.warnings)
    return [*found, rows(arm, seed, "warned", 0, torch.full((len(x),), float(zero)))]


@torch.no_grad()
def in_batches(what: Callable[..., Tensor], *given: Tensor) -> Tensor:
    """A function of images, and of what goes with each, of all of them: large images some at a time, without a graph."""
    many = devices.images_at_once(given[0].shape[-1], len(given[0]), graph=False)
    return torch.cat([what(*part) for part in zip(*(g.split(many) for g in given), strict=True)])


def aai_rows(model: classifier.Classifier, x: Tensor, y: Tensor, arm: str, seed: int, p: Parameters) -> list[pd.DataFrame]:
    """Attacks on the explanation, and random signs of the same size."""
    found = []
    clean_ig = _integrated(model, x, y, p)
    forms: dict[str, tuple[Form, bool, float]] = {
        "l1": ("l1", True, 1.0),
        "topk": ("topk", True, 1.0),
        "released": ("topk", False, 0.0),
    }
    for eps in p.aai_eps:
        for name, (form, keep, hinge) in forms.items():
            moved = interpretation_attack.aai(
                model, x, y, eps=eps, form=form, k=p.top_k, hinge=hinge, steps=p.aai_steps, step=p.aai_step, keep=keep
            )
            share = p.top_k / moved.before[0].numel()
            found += [
                rows(arm, seed, f"tau/{name}", eps, comparison.kendall(moved.before, moved.after)),
                rows(arm, seed, f"moved/{name}", eps, (moved.after - moved.before).flatten(1).abs().sum(1)),
                rows(arm, seed, f"top/{name}", eps, comparison.topk_iou(moved.before, moved.after, share)),
                rows(arm, seed, f"kept/{name}", eps, moved.kept),
            ]
            if name == "l1":
                after = _integrated(model, moved.x_adv, y, p)
                found.append(rows(arm, seed, "tau/ig", eps, comparison.kendall(clean_ig, after)))
            if name == "released":
                found += _bound(discrepancy.proposition(model, x, moved.x_adv, y), arm, seed, "-aai", eps)
        noise = single_step.step_along(x, single_step.random_sign(x, torch.Generator().manual_seed(0)), eps)
        before, after = (in_batches(lambda a, b: discrepancy.cam(model, a, b[:, None]).values[:, 0], z, y) for z in (x, noise))
        found.append(rows(arm, seed, "tau/noise", eps, comparison.kendall(before, after)))
    return found


def _integrated(model: classifier.Classifier, x: Tensor, y: Tensor, p: Parameters) -> Tensor:
    """Integrated gradients, summed over colours, of the first images."""
    part = slice(0, p.ig_images)
    return gradients.integrated_gradients(model, x[part], y[part], steps=p.ig_points).values.sum(1)


def bound_rows(model: classifier.Classifier, x: Tensor, y: Tensor, arm: str, seed: int, p: Parameters) -> list[pd.DataFrame]:
    """Both sides of Proposition 1 on PGD's images at every radius, for CAM, and for integrated gradients on some."""
    found = []
    for eps in p.eps_grid:
        x_adv = projected.pgd_in_batches(model, x, y, eps=eps, steps=20, judge=False).x_adv
        found += _bound(discrepancy.proposition(model, x, x_adv, y), arm, seed, "", eps)
        if eps == p.eps:
            part = slice(0, p.ig_images)

            def integrated(model: torch.nn.Module, z: Tensor, classes: Tensor) -> Explanation:
                return discrepancy.integrated(model, z, classes, steps=4 * p.ig_points)

            sides = discrepancy.proposition(model, x[part], x_adv[part], y[part], integrated)
            found += _bound(sides, arm, seed, "-ig", eps)
    return found


def _bound(sides: discrepancy.Bound, arm: str, seed: int, suffix: str, level: float) -> list[pd.DataFrame]:
    named = {"d2": sides.discrepancy, "bound": sides.bound, "applies": sides.applies}
    return [rows(arm, seed, name + suffix, level, values) for name, values in named.items()]


def in_colour(model: classifier.Classifier, x: Tensor) -> tuple[torch.nn.Module, Tensor]:
    """Model and images as the unforeseen attacks take them."""
    return (model, x) if x.shape[1] == 3 else (unforeseen.InColour(model), x.expand(-1, 3, -1, -1))


class Hit(NamedTuple):
    """An unforeseen attack on images: drawn in colour, as the network takes them, and where it is still right (N,)."""

    drawn: Tensor
    x_adv: Tensor
    right: Tensor


def unforeseen_attack(
    model: classifier.Classifier, x: Tensor, y: Tensor, name: str, eps: float, steps: int, p: Parameters
) -> Hit:
    """One of `unforeseen.ATTACKS`, towards random classes where the parameters say so; grey networks see its luma."""
    seeing, shown = in_colour(model, x)
    targets = unforeseen.wrong_classes(y, model.classes) if p.targeted else None
    found = by_name.find(name)(seeing, shown, y, eps=eps, steps=steps, targets=targets)
    own = found.x_adv if x.shape[1] == 3 else images.luma(found.x_adv).clamp(0, 1)
    return Hit(found.x_adv, own, ~found.success)


def unforeseen_rows(
    model: classifier.Classifier, x: Tensor, y: Tensor, arm: str, seed: int, p: Parameters
) -> list[pd.DataFrame]:
    """Right or wrong under Gabor, snow and JPEG; under JPEG's codec alone; and on the same images as they are."""
    if not p.unforeseen_images:
        return []
    network_, shown = in_colour(model, x)
    with hooks.frozen(model):
        logits = in_batches(network_, shown)
        coded = in_batches(lambda z: network_(jpeg.decode(jpeg.encode(z), tuple(z.shape[2:]))), shown)
        sky = in_batches(lambda z: network_(unforeseen.whitened(z)), shown)
    found = [
        rows(arm, seed, name, 0, answer.argmax(1) == y)
        for name, answer in (("unforeseen/none", logits), ("unforeseen/codec", coded), ("unforeseen/sky", sky))
    ]
    idle = unforeseen.snow(network_, shown, y, eps=p.snow_eps, steps=1, step=0.0)
    found.append(rows(arm, seed, "unforeseen/snow-start", p.snow_eps, ~idle.success))
    for i, (name, eps) in enumerate(p.unforeseen_eps.items()):
        hit = unforeseen_attack(model, x, y, name, eps, p.unforeseen_steps, p)
        found.append(rows(arm, seed, f"unforeseen/{name}", eps, hit.right))
        found += _bound(discrepancy.proposition(model, x, hit.x_adv, y), arm, seed, "-unforeseen", i)
    return found


def calibration_rows(
    model: classifier.Classifier, x: Tensor, y: Tensor, arm: str, seed: int, p: Parameters
) -> list[pd.DataFrame]:
    """Right or wrong at all radii that the attacks' authors calibrated, for Normal and Adv, seed 0: is a radius of any use?"""
    if plan.method_of(arm) not in ("normal", "adv") or seed or not p.unforeseen_images or not p.calibration_images:
        return []
    found = []
    for name, radii in unforeseen.CALIBRATED.items():
        for eps in radii:
            hit = unforeseen_attack(model, x, y, name, eps, p.unforeseen_steps, p)
            found.append(rows(arm, seed, f"calibration/{name}", eps, hit.right))
    return found


def measure_model(model: classifier.Classifier, arm: str, seed: int, p: Parameters, x: Tensor, y: Tensor) -> pd.DataFrame:
    """Everything about one network on images x with labels y, a row a measurement."""
    part = slice(0, p.aai_images)
    found = accuracy_rows(model, x, y, arm, seed, p)
    found += aai_rows(model, x[part], y[part], arm, seed, p)
    found += bound_rows(model, x, y, arm, seed, p)
    part = slice(0, p.unforeseen_images)
    found += unforeseen_rows(model, x[part], y[part], arm, seed, p)
    part = slice(0, p.calibration_images)
    found += calibration_rows(model, x[part], y[part], arm, seed, p)
    return pd.concat(found, ignore_index=True)


def measure(p: Parameters, arm: str, seed: int) -> pd.DataFrame:
    """Everything about one of the study's networks; by the paper's protocol about one of the authors' on MNIST's digits."""
    if arm.startswith(RELEASED):
        own = arm.removeprefix(RELEASED)
        return measure_released(own, p.pgd_steps).assign(arm=arm)
    model, data = plan.model(p, arm, seed), evaluation_set(p)
    where = next(model.parameters()).device
    return measure_model(model, arm, seed, p, data.images[:].to(where), data.labels.to(where))


# The paper's protocol on its own networks: MNIST radii, sign steps of .01, the last iterate.
PAPER_EPS = (0.05, 0.1, 0.2, 0.3, 0.35, 0.4)
RESTARTED_EPS = (0.3, 0.35, 0.4)


def measure_released(arm: str, steps: int = 200) -> pd.DataFrame:
    """One of the published networks by the paper's protocol (200 steps), and then under random restarts.

    Measures: `paper` (right under the last iterate of one run without random start), `starts-1`, `starts-3` (right under
    that and under the last iterates of 1 or 3 random starts, each with cross-entropy and with the margin), `tau` and `kept`
    of the attack on interpretability as released (k = 8), and both sides of Proposition 1.
    """
    model = released.load(released.MNIST_SMALL, arm)
    x, y = released.evaluation_images()
    found = []
    for eps in (0.0, *PAPER_EPS):
        hit = projected.pgd(model, x, y, eps=eps, steps=steps if eps else 0, step=0.01, random_start=False)
        right = ~hit.success
        found.append(rows(arm, 0, "paper", eps, right))
        if eps in RESTARTED_EPS:
            for start in range(3):
                for loss in (losses.cross_entropy, losses.margin):
                    left = right.nonzero()[:, 0]
                    if len(left):
                        generator = torch.Generator().manual_seed(start)
                        again = projected.pgd(
                            model, x[left], y[left], eps=eps, steps=steps, step=0.01, loss=loss, generator=generator
                        )
                        right = right.index_put((left,), ~again.success)
                if start in (0, 2):
                    found.append(rows(arm, 0, f"starts-{start + 1}", eps, right))
        if eps:
            moved = interpretation_attack.aai(
                model, x, y, eps=eps, form="topk", k=8, hinge=0.0, steps=steps, step=0.01, keep=False
            )
            found.append(rows(arm, 0, "tau", eps, comparison.kendall(moved.before, moved.after)))
            found.append(rows(arm, 0, "kept", eps, moved.kept))
            found += _bound(discrepancy.proposition(model, x, hit.x_adv, y), arm, 0, "", eps)
    return pd.concat(found, ignore_index=True)
