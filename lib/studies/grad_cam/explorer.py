"""The front door: one image, one class, one layer; what speaks for it and against it, before and after an attack."""

import functools
import html
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from lib.attacks import by_name as attacks
from lib.data import images
from lib.data.image_sets import ImageSet
from lib.explanations import activation_maps
from lib.explanations import by_name as explanations
from lib.explanations.by_name import Settings
from lib.figures import pictures, widgets
from lib.measures import comparison
from lib.networks import classifier
from lib.studies.grad_cam import plan
from lib.studies.grad_cam.plan import Parameters

METHODS = explanations.METHODS.menu("gradcam", "gradcam++", "cam")
ATTACKS = attacks.ATTACKS.menu("none", "pgd", "noise")
SHOWN = {"for the class (ReLU)": "positive", "against it (counterfactual)": "counterfactual", "both (no ReLU)": "signed"}


def draw(
    model: classifier.Classifier,
    x: Tensor,
    classes: tuple[str, ...],
    *,
    of: int,
    aimed: int,
    layer: str,
    method: str,
    sign: activation_maps.Sign,
    attack: str,
    eps: float,
    steps: int = 20,
    head: str = "head",
) -> tuple[Figure, str]:
    """Image (1, C, H, W) and map before and after, both decisions; and a line of numbers.

    The attack goes for the class `aimed`. Raises ValueError for CAM where it is not defined, and for a counterfactual of
    Grad-CAM++.
    """
    if method == "gradcam++" and sign == "counterfactual":
        raise ValueError("the weights of Grad-CAM++ are never below zero, so it has no counterfactual; choose Grad-CAM")
    chosen, aim = attacks.find(attack), torch.tensor([aimed], device=x.device)
    x_adv = chosen(model, x, aim, eps=eps, steps=steps, targets=aim).x_adv
    settings = Settings(layer, sign=sign, head=head)
    size = (x.shape[-2], x.shape[-1])
    fig, axes = plt.subplots(2, 3, figsize=(10.5, 6.2))
    told = []
    shown = []
    for row, (picture, when) in enumerate(((x, "before"), (x_adv, "after"))):
        found = explanations.raw(method, model, picture, of, settings)
        raw = activation_maps.upsample(found.values, size)[0].cpu()
        largest = float(raw.abs().max())
        pictures.image(axes[row, 0], picture[0].cpu(), "image" if row == 0 else f"attacked: {chosen.label}, eps {eps:g}")
        if sign == "signed":
            drawn = pictures.heatmap(axes[row, 1], raw, f"{when}: for (red) and against (blue) {classes[of]}", signed=True)
            pictures.colour_bar(fig, drawn, axes[row, 1], "map, in the score's units")
        else:
            drawn = pictures.overlay(
                axes[row, 1], picture[0].cpu(), raw / largest if largest else raw, f"{when}: {classes[of]}"
            )
            pictures.colour_bar(fig, drawn, axes[row, 1], "map over its largest value")
        widgets.bars(axes[row, 2], found.logits[0].softmax(0).cpu(), classes, f"decision {when}")
        told.append(
            f"{when}: <b>{html.escape(classes[int(found.logits.argmax())])}</b>, score of {html.escape(classes[of])} "
            f"{float(found.logits[0, of]):.3f}"
        )
        shown.append(activation_maps.normalise(raw.abs())[None])
    empty = " This map is empty: nothing in this layer speaks that way." if comparison.degenerate(shown[0]) else ""
    change = f"largest change of a pixel {float((x_adv - x).abs().max()):.3g}"
    between = f"NISSIM <b>{comparison.nissim(*shown).item():.3f}</b> between the two maps"
    return fig, f"{'; '.join(told)}; {change}; {between}.{empty}"


def explorer(p: Parameters) -> widgets.Explorer:
    """The explorer of a run: the published network on photographs first, then those that the study trains, on its data.

    Networks that are not in the cache are trained when they are first chosen.
    """

    @functools.lru_cache(maxsize=4)
    def network(arch: str) -> classifier.Classifier:
        return plan.published_network(p) if arch == p.published else plan.network(p, arch, 0).model

    def data_of(arch: str) -> ImageSet:
        return plan.photo_set(p) if arch == p.published else plan.evaluation_set(p)

    def two(arch: str, image: int) -> Tensor:
        if arch != p.published:
            found = plan.two_objects(p).images
            return found[image % len(found)]
        return torch.cat([data_of(arch).images[i] for i in pair(image)], 2)

    def pair(image: int) -> tuple[int, int]:
        """Which photographs stand side by side: first those of the notebook, then each with the next one."""
        data = data_of(p.published)
        if image == 0:
            first, second = ((data.labels == data.classes.index(c)).nonzero()[:, 0] for c in (p.left, p.right))
            if len(first) and len(second):
                return int(first[0]), int(second[0])
        return image % len(data), (image + 1) % len(data)

    def render(
        arch: str,
        show: str,
        image: int,
        own: Image.Image | None,
        of: int,
        layer: str,
        method: str,
        sign: activation_maps.Sign,
        attack: str,
        aimed: int,
        eps: float,
    ) -> tuple[Figure, str]:
        model, data = network(arch), data_of(arch)
        if own is not None:
            x = images.to_tensor(own, size=data.images.shape[-1], channels=data.channels)
        else:
            x = two(arch, image) if show == "two objects" else data.images[image % len(data)]
        return draw(
            model,
            x[None].to(next(model.parameters()).device),
            data.classes,
            of=of,
            aimed=aimed,
            layer=plan.layers_of(model, arch)[layer],
            method=method,
            sign=sign,
            attack=attack,
            eps=eps,
            steps=p.steps,
            head=plan.head_of(arch),
        )

    def menus(arch: str) -> dict[str, Any]:
        """What a network's classes and radii are, and those to begin with: (options, value) by control."""
        data, published = data_of(arch), arch == p.published
        # of ImageNet's thousand classes those that the photographs show, and what attacks aim at
        shown = [p.left, p.right, p.aim, *(data.classes[int(y)] for y in data.labels)] if published else data.classes
        numbered = {name: data.classes.index(name) for name in shown}
        of, aimed = (p.left, p.right) if published else (p.first, p.second)
        grid = (0.0, *(p.radii if published else p.eps))
        radii = [(f"{v:g}", v) for v in grid]
        return {"of": (numbered, numbered[of]), "aimed": (numbered, numbered[aimed]), "eps": (radii, grid[len(grid) // 2])}

    def follow(name: str, controls: dict[str, Any]) -> None:
        arch = controls["arch"].value
        if name in ("image", "show") and arch == p.published:  # ask for what the picture shows
            data, image = data_of(arch), controls["image"].value
            shown = pair(image) if controls["show"].value == "two objects" else (image % len(data), None)
            of, other = (data.classes.index(p.aim) if i is None else int(data.labels[i]) for i in shown)
            controls["of"].value, controls["aimed"].value = of, other
        if name == "arch":
            controls["own"].size = data_of(controls["arch"].value).images.shape[-1]
            for control, (options, value) in menus(controls["arch"].value).items():
                controls[control].options, controls[control].value = options, value

    first = menus(p.published)
    controls = {
        "arch": widgets.choice("network", {plan.named(a): a for a in (p.published, *p.architectures)}, p.published),
        "show": widgets.choice("objects", ("one object", "two objects"), "two objects"),
        "image": widgets.integer("image", 0, 99),
        "own": widgets.Upload("upload an image", data_of(p.published).images.shape[-1]),
        "of": widgets.choice("map of class", *first["of"]),
        "layer": widgets.choice("layer", {f"{level} stage": level for level in plan.LEVELS}, "last"),
        "method": widgets.choice("method", METHODS, "gradcam"),
        "sign": widgets.choice("what speaks", SHOWN, "positive"),
        "attack": widgets.choice("attack", ATTACKS, "pgd"),
        "aimed": widgets.choice("aimed at", *first["aimed"]),
        "eps": widgets.slider("eps, of [0, 1]", (0.0, *p.radii), first["eps"][1]),
    }
    return widgets.Explorer(controls, render, follow)
