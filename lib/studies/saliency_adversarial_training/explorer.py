"""One image's map, what the curriculum makes of it, and what a student says of the result: the explorer of study 5."""

import functools
import html

import torch
from PIL import Image
from torch import Tensor

from lib.attacks import single_step
from lib.data import images
from lib.explanations import by_name
from lib.figures import pictures, widgets
from lib.figures.explorer import Explorer, View
from lib.networks import classifier, contract, hooks
from lib.studies.saliency_adversarial_training import maps, objective, plan
from lib.studies.saliency_adversarial_training.plan import Parameters

WAYS = {"sign": "sign", "above the median": "median", "above the mean": "mean", "scaled to [0, 1]": "minmax"}
ALPHAS = (0.001, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)


def strength(values: Tensor) -> Tensor:
    """A signed map of one image summed over channels, divided by its largest magnitude, (H, W)."""
    flat = values.sum(0)
    return flat / flat.abs().amax().clamp_min(1e-12)


def draw(
    student: classifier.Classifier,
    x: Tensor,
    raw: Tensor,
    s: Tensor,
    y: Tensor,
    *,
    share: float,
    eps: float,
    classes: tuple[str, ...],
    known: bool,
) -> View:
    """The image, its map, the direction, delta, the perturbed image and the student's decision; and a line of numbers."""
    delta = objective.perturbation(s, share, torch.Generator().manual_seed(0))
    x_new = single_step.step_along(x, delta, eps)
    with hooks.frozen(student), torch.no_grad():
        before, after = student(x).softmax(1)[0].cpu(), student(x_new).softmax(1)[0].cpu()
    direction, _ = single_step.fgsm_direction(student, x, y)
    aligned = torch.nn.functional.cosine_similarity(direction.flatten(), delta.flatten(), 0).item()
    fig, axes = pictures.canvas(2, 4, (11, 5.4))
    name = classes[int(y)]
    pictures.image(axes[0, 0], x[0].cpu(), f"image: {name}" if known else "image")
    drawn = pictures.heatmap(axes[0, 1], strength(raw[0].cpu()), "raw map", signed=True)
    pictures.colour_bar(fig, drawn, axes[0, 1], "of its largest")
    drawn = pictures.heatmap(axes[0, 2], s[0].mean(0).cpu(), "direction s", signed=True, limit=1.0)
    pictures.colour_bar(fig, drawn, axes[0, 2], "mean of channels")
    widgets.bars(axes[0, 3], before, classes, "student, image as it is")
    drawn = pictures.heatmap(axes[1, 0], delta[0].mean(0).cpu(), "perturbation δ", signed=True, limit=1.0)
    pictures.colour_bar(fig, drawn, axes[1, 0], "mean of channels")
    pictures.image(axes[1, 1], x_new[0].cpu(), "image + ε₀ δ")
    drawn = pictures.heatmap(axes[1, 2], direction[0].mean(0).cpu(), "attack on the student", signed=True, limit=1.0)
    pictures.colour_bar(fig, drawn, axes[1, 2], "mean of channels")
    widgets.bars(axes[1, 3], after, classes, "student, perturbed image")
    decisions = [html.escape(classes[int(z.argmax())]) for z in (before, after)]
    text = (
        f"<b>{decisions[0]}</b> as it is, <b>{decisions[1]}</b> perturbed; probability of {html.escape(name)} "
        f"{before[int(y)]:.2f} and {after[int(y)]:.2f}<br>ε₀ {255 * eps:g}/255, P(random) {share:.2f}; cosine of δ with "
        "the attack on the student "
        f"(sign of its loss gradient) {aligned:+.3f}"
    )
    return View(fig, text)


def explorer(p: Parameters) -> Explorer:
    """The explorer of a run; networks that are not in the cache are trained when they are first chosen."""
    data = plan.evaluation_set(p)
    masks = maps.weak(data, "masks" if data.masks is not None else "boxes")
    weak = "object's mask" if data.masks is not None else "object's box"
    teachers = {weak: ""} | {name: key for key, name in plan.TEACHERS.items() if key == "std" or "pgd" in p.arms}

    @functools.lru_cache(maxsize=16)
    def network(arm: str) -> classifier.Classifier:
        return plan.network(p, arm, 0).model

    def render(
        student: str,
        image: int,
        own: Image.Image | None,
        taught: str,
        kind: str,
        how: str,
        epoch: int,
        alpha10: float,
        eps: float,
    ) -> View:
        model = network(student)
        where = next(model.parameters()).device
        if own is None:
            number = image % len(data)
            x, y = data.images[number][None].to(where), data.labels[number : number + 1].to(where)
        else:
            x = images.to_tensor(own, size=p.size, channels=p.channels)[None].to(where)
            y = decided(model, x)
        if taught:
            guide = plan.teacher(p, taught, 0)
            raw = by_name.raw(kind, guide, x, y, maps.settings(p.smooth_n, p.ig_steps)).values
            s = maps.binarise(raw, "none" if kind == "guided-gradcam++" else how)  # type: ignore[arg-type]
        elif own is not None:
            raise ValueError("an upload comes without a mask; choose a teacher's map")
        else:
            raw = s = masks[number][None].to(where)
        share = objective.share_random(epoch, p.epochs, alpha10)
        return draw(model, x, raw, s, y, share=share, eps=eps / 255, classes=data.classes, known=own is None)

    epochs = sorted({round(i * (p.epochs - 1) / 6) for i in range(7)})
    controls = {
        "student": widgets.choice("student", {plan.label(a): a for a in p.arms}, p.arms[0]),
        "image": widgets.integer("image", 0, min(100, len(data)) - 1),
        "own": widgets.Upload("upload an image", p.size),
        "taught": widgets.choice("map from", teachers, "std"),
        "kind": widgets.choice("attribution", maps.ATTRIBUTIONS.menu(*plan.NAMES), "smoothgrad"),
        "how": widgets.choice("binarised by", WAYS, "sign"),
        "epoch": widgets.slider("epoch", epochs, epochs[len(epochs) // 2], text=lambda e: f"{int(e) + 1} of {p.epochs}"),
        "alpha10": widgets.slider("alpha^10", sorted({*ALPHAS, p.alpha10}), p.alpha10),
        "eps": widgets.slider("eps0, of 255", sorted({1, 2, 4, 8, 16, 32, p.eps}), p.eps),
    }
    return Explorer(p, controls, render)


def decided(model: classifier.Classifier, x: Tensor) -> Tensor:
    """What the network takes an image for, (N,): an upload has no label."""
    with hooks.frozen(model), torch.no_grad():
        return contract.predicted(model(x))
