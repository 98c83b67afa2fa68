"""One image under a transformation and an attack, as two networks see it: the explorer of 02-at-cnn."""

import functools
import html

import torch
from PIL import Image
from torch import Tensor

from lib.attacks import projected
from lib.data import images, styles, transforms
from lib.explanations import by_name
from lib.figures import pictures, widgets
from lib.figures.explorer import Explorer, View
from lib.measures import appearance
from lib.networks import classifier
from lib.networks.style import StyleNet, stylize
from lib.studies.at_cnn import measure, plan
from lib.studies.at_cnn.plan import Parameters

TRANSFORMS = ("none", "saturation", "patch shuffle", "style (AdaIN)", "Fourier amplitude of the style")
STYLES = 24  # held-out styles to choose from


def transformed(x: Tensor, how: str, *, p: float, k: int, key: int, style: Tensor, alpha: float, painter: StyleNet) -> Tensor:
    """One of TRANSFORMS on a batch of one."""
    if how == "none":
        return x
    if how == "saturation":
        return transforms.saturation(x, p)
    if how == "patch shuffle":
        return transforms.patch_shuffle(x, k, [key])
    if how == "style (AdaIN)":
        return stylize(painter, x, style, alpha=alpha)
    if how == "Fourier amplitude of the style":
        return transforms.amplitude_swap(x, style if x.shape[1] == 3 else images.luma(style))
    raise ValueError(f"unknown transformation {how!r}; choose one of {', '.join(TRANSFORMS)}")


def draw(
    networks: dict[str, classifier.Classifier],
    x: Tensor,
    x_new: Tensor,
    y: int | None,
    classes: tuple[str, ...],
    *,
    eps: float,
    method: str,
    p: Parameters,
) -> View:
    """A row a network: the image it is shown (attacked by itself where eps > 0), its map, its decision; and a line of text.

    The class explained is the label, or for an upload (y None) the network's own decision on the image as it was.
    """
    fig, axes = pictures.canvas(len(networks), 4, (10.5, 2.7 * len(networks)))
    text = []
    for row, (name, model) in zip(axes, networks.items(), strict=True):
        with torch.no_grad():
            before = model(x).argmax(1)
        label = before if y is None else torch.tensor([y], device=x.device)
        shown = projected.pgd(model, x_new, label, eps=eps, steps=10, judge=False).x_adv if eps > 0 else x_new
        with torch.no_grad():
            probabilities = model(shown)[0].softmax(0).cpu()
        values = by_name.raw(method, model, shown, label, measure.settings(p)).values
        sharp = appearance.sensitivity(values)
        after = int(probabilities.argmax())
        edges = appearance.edge_agreement(values.abs().sum(1), shown).item()
        pictures.image(row[0], x[0].cpu(), "image" if y is None else f"image: {classes[y]}")
        pictures.image(row[1], shown[0].cpu(), "what it is shown" if eps > 0 else "transformed")
        drawn = pictures.heatmap(row[2], sharp[0], measure.METHODS[method])
        pictures.colour_bar(fig, drawn, row[2], "sensitivity")
        widgets.bars(row[3], probabilities, classes, "decision")
        row[0].annotate(
            name,
            (0, 0.5),
            xytext=(-8, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="center",
            rotation=90,
        )
        text.append(
            f"{html.escape(name)}: <b>{html.escape(classes[int(before)])}</b> before, "
            f"<b>{html.escape(classes[after])}</b> after; edge agreement {edges:.2f}, "
            f"total variation {appearance.total_variation(sharp).item():.2f}"
        )
    return View(fig, "<br>".join(text))


def explorer(p: Parameters) -> Explorer:
    """The explorer of a run; networks that are not in the cache are trained when they are first chosen."""

    data = plan.evaluation_set(p)

    @functools.lru_cache(maxsize=8)
    def network(arm: str) -> classifier.Classifier:
        return plan.network(p, arm, 0).model

    painter = measure.painter(p)
    paintings = styles.load(p.style_source, "test", p.size)

    def render(
        arm: str,
        image: int,
        own: Image.Image | None,
        how: str,
        p_level: float,
        k: int,
        style: int,
        alpha: float,
        eps: float,
        method: str,
    ) -> View:
        chosen = {plan.label(a): network(a) for a in dict.fromkeys(("standard", arm))}
        where = next(painter.parameters()).device
        if own is None:
            number = image % len(data)
            x, y = data.images[number], int(data.labels[number])
        else:
            number, x, y = 0, images.to_tensor(own, size=p.size, channels=p.channels), None
        x = x[None].to(where)
        painting = paintings[torch.tensor([style % len(paintings)])].to(where)
        x_new = transformed(x, how, p=p_level, k=k, key=number, style=painting, alpha=alpha, painter=painter)
        return draw(chosen, x, x_new, y, data.classes, eps=eps, method=method, p=p)

    grid = (0.0, *(e / 255 for e in p.robust_eps))
    controls = {
        "arm": widgets.choice("beside it", {plan.label(a): a for a in p.arms if a != "standard"}, p.headline[0]),
        "image": widgets.integer("image", 0, min(100, len(data)) - 1),
        "own": widgets.Upload("upload an image", p.size),
        "how": widgets.choice("change", TRANSFORMS, TRANSFORMS[0]),
        "p_level": widgets.slider("saturation p", sorted({*p.saturation, 2.0}), max(p.saturation)),
        "k": widgets.slider("shuffle k", (1, *p.shuffle), p.shuffle[-1]),
        "style": widgets.integer("style", 0, min(STYLES, len(paintings)) - 1),
        "alpha": widgets.slider("style alpha", sorted({0.0, 0.25, 0.5, 0.75, 1.0, p.alpha}), p.alpha),
        "eps": widgets.slider("PGD eps", grid, 0.0, text=lambda e: f"{255 * e:g}/255"),
        "method": widgets.choice("explain by", by_name.METHODS.menu(*measure.METHODS), "smoothgrad"),
    }
    return Explorer(p, controls, render)
