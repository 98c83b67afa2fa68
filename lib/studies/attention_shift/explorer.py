"""One image under attack, seen through its maps: the explorer of 01-attention-shift, as a pure function and its controls."""

import functools
import html

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from lib.attacks import by_name as attacks
from lib.data import datasets, images
from lib.explanations import by_name as explanations
from lib.explanations.by_name import Settings
from lib.figures import pictures, widgets
from lib.measures import comparison
from lib.networks import classifier, contract, models
from lib.studies.attention_shift import plan
from lib.studies.attention_shift.measure import shown
from lib.studies.attention_shift.plan import FAMILY, Parameters
from lib.training import cache

METHODS = explanations.METHODS.menu("gradcam", "gradcam++", "cam")
ATTACKS = attacks.ATTACKS.menu("fgsm", "pgd", "noise", "none")
STEPS = 10  # of PGD
EXPLAINED = ("predicted class", "true class", "predicted class of the clean image")


def draw(
    model: classifier.Classifier,
    x: Tensor,
    y: int | None,
    classes: tuple[str, ...],
    *,
    attack: str,
    eps: float,
    layer: str,
    method: str,
    explain: str,
) -> tuple[Figure, str]:
    """Image (1,C,H,W), perturbation, attacked image, both maps, their difference, both predictions; and a line of numbers.

    `y` None (an upload): the clean prediction takes the place of the label, for the attack and for `explain`.
    """
    with torch.no_grad():
        clean_logits = model(x)
    before = int(clean_logits.argmax())
    label = torch.tensor([before if y is None else y], device=x.device)
    x_adv = attacks.find(attack)(model, x, label, eps=eps, steps=STEPS).x_adv
    fixed = {"true class": int(label), "predicted class of the clean image": before}
    target: contract.Targets = fixed.get(explain, contract.predicted)
    clean, adv = (explanations.raw(method, model, images_, target, Settings(layer)) for images_ in (x, x_adv))
    after = int(adv.logits.argmax())
    size = x.shape[-1]
    a, b = shown(clean.values, size), shown(adv.values, size)
    moved = comparison.nissim(a, b).item()

    fig, axes = plt.subplots(2, 4, figsize=(10.5, 5.2))
    pictures.image(axes[0, 0], x[0].cpu(), f"image: {classes[label] if y is not None else 'your upload'}")
    delta = (x_adv - x)[0].mean(0)
    drawn = pictures.heatmap(axes[0, 1], delta, f"perturbation, largest {float((x_adv - x).abs().max()):.3g}", signed=True)
    pictures.colour_bar(fig, drawn, axes[0, 1], "change of a pixel")
    pictures.image(axes[0, 2], x_adv[0].cpu(), "attacked image")
    pictures.overlay(axes[1, 0], x[0].cpu(), a[0], "map before")
    drawn = pictures.overlay(axes[1, 1], x_adv[0].cpu(), b[0], "map after")
    pictures.colour_bar(fig, drawn, axes[1, 1], "map, scaled to [0, 1]")
    drawn = pictures.heatmap(axes[1, 2], b[0] - a[0], "after - before", signed=True)
    pictures.colour_bar(fig, drawn, axes[1, 2], "difference")
    for ax, logits, title in ((axes[0, 3], clean_logits, "decision before"), (axes[1, 3], adv.logits, "decision after")):
        widgets.bars(ax, logits[0].softmax(0).cpu(), classes, title)

    empty = " One of the maps is empty." if comparison.degenerate(clean.values) | comparison.degenerate(adv.values) else ""
    text = (
        f"before: <b>{html.escape(classes[before])}</b>, after: <b>{html.escape(classes[after])}</b>; "
        f"NISSIM <b>{moved:.3f}</b> (0: same map, 1: as different as can be), "
        f"Spearman {comparison.spearman(a, b).item():.2f}, centre moved {comparison.centroid_shift(a, b).item():.1f} px.{empty}"
    )
    return fig, text


def sources(p: Parameters) -> dict[str, str]:
    """Data sets to choose from, and the one whose networks look at each: single-cue shapes meet networks for `shapes`."""
    found = {p.dataset: p.dataset}
    if p.dataset == "shapes":
        found |= {f"shapes-{cue}": "shapes" for cue in ("conflict", "shape", "texture")}
    return found | {name: name for name in ("shapes", "digits") if name not in found}


def explorer(p: Parameters) -> widgets.Explorer:
    """The explorer of a run; networks that are not in the cache are trained when they are first chosen."""
    named = sources(p)

    @functools.lru_cache(maxsize=4)
    def data(name: str) -> datasets.ImageSet:
        return datasets.load(name, "test", size=p.size, channels=p.channels, limit=100)

    @functools.lru_cache(maxsize=8)
    def network(name: str, arch: str) -> classifier.Classifier:
        own = p.model_copy(update={"dataset": named[name], "architectures": (arch,), "seeds": 1})
        return cache.trained(plan.networks(own)[0], device_name=p.device).model

    def render(
        dataset: str,
        arch: str,
        image: int,
        own: Image.Image | None,
        attack: str,
        eps: float,
        stage: int,
        method: str,
        explain: str,
    ) -> tuple[Figure, str]:
        model, shown_data = network(dataset, arch), data(dataset)
        where = next(model.parameters()).device
        if own is None:
            x, y = shown_data.images[image % len(shown_data)], int(shown_data.labels[image % len(shown_data)])
        else:
            x, y = images.to_tensor(own, size=p.size, channels=p.channels), None
        layer = model.stages[min(stage, len(model.stages)) - 1]
        return draw(
            model, x[None].to(where), y, shown_data.classes, attack=attack, eps=eps, layer=layer, method=method, explain=explain
        )

    stages = len(models.create(p.architectures[0], classes=2, channels=p.channels).stages)
    grid = (0.0, *p.eps)
    controls = {
        "dataset": widgets.choice("data set", list(named), p.dataset),
        "arch": widgets.choice("network", {FAMILY.get(a, a): a for a in p.architectures}, p.architectures[0]),
        "image": widgets.integer("image", 0, 99),
        "own": widgets.Upload("upload an image", p.size),
        "attack": widgets.choice("attack", ATTACKS, "fgsm"),
        "eps": widgets.slider("eps", grid, grid[len(grid) // 2]),
        "stage": widgets.integer("conv stage", 1, stages, stages),
        "method": widgets.choice("method", METHODS, "gradcam"),
        "explain": widgets.choice("explain the", EXPLAINED, EXPLAINED[0]),
    }
    return widgets.Explorer(controls, render)
