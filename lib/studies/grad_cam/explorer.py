"""The front door: one image, one class, one layer; what speaks for it and against it, before and after an attack."""

import functools
import html

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from lib.attacks import by_name as attacks
from lib.data import images
from lib.explanations import activation_maps
from lib.explanations import by_name as explanations
from lib.explanations.by_name import Settings
from lib.figures import pictures, widgets
from lib.measures import comparison
from lib.networks import classifier
from lib.studies.grad_cam import plan
from lib.studies.grad_cam.plan import FAMILY, Parameters

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
    size = x.shape[-1]
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
    """The explorer of a run; networks that are not in the cache are trained when they are first chosen."""
    data = plan.evaluation_set(p)

    @functools.lru_cache(maxsize=4)
    def network(arch: str) -> classifier.Classifier:
        return plan.network(p, arch, 0).model

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
        model = network(arch)
        where = next(model.parameters()).device
        if own is not None:
            x = images.to_tensor(own, size=p.size, channels=p.channels)
        else:
            found = data.images if show == "one object" else plan.two_objects(p).images
            x = found[image % len(found)]
        name = plan.layers_of(model, arch)[layer]
        return draw(
            model,
            x[None].to(where),
            data.classes,
            of=of,
            aimed=aimed,
            layer=name,
            method=method,
            sign=sign,
            attack=attack,
            eps=eps,
            steps=p.steps,
            head=plan.head_of(arch),
        )

    numbered = {name: i for i, name in enumerate(data.classes)}
    grid = (0.0, *p.eps)
    controls = {
        "arch": widgets.choice("network", {FAMILY.get(a, a): a for a in p.architectures}, p.architectures[0]),
        "show": widgets.choice("objects", ("one object", "two objects"), "two objects"),
        "image": widgets.integer("image", 0, 99),
        "own": widgets.upload("upload an image"),
        "of": widgets.choice("map of class", numbered, numbered[p.first]),
        "layer": widgets.choice("layer", {f"{level} stage": level for level in plan.LEVELS}, "last"),
        "method": widgets.choice("method", METHODS, "gradcam"),
        "sign": widgets.choice("what speaks", SHOWN, "positive"),
        "attack": widgets.choice("attack", ATTACKS, "pgd"),
        "aimed": widgets.choice("aimed at", numbered, numbered[p.second]),
        "eps": widgets.slider("eps", grid, grid[len(grid) // 2]),
    }
    return widgets.Explorer(controls, render)
