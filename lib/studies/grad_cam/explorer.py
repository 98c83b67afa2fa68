"""The front door: one image, one class, one layer; what speaks for it and against it, before and after an attack."""

import html
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from lib.attacks import by_name as attacks
from lib.data.image_sets import ImageSet
from lib.explanations import activation_maps
from lib.explanations import by_name as explanations
from lib.explanations.by_name import Settings
from lib.figures import pictures, widgets
from lib.figures.explorer import Explorer, Number, View, over_levels
from lib.measures import comparison
from lib.networks import classifier, contract
from lib.studies import subjects
from lib.studies.grad_cam import plan
from lib.studies.grad_cam.plan import Parameters
from lib.system import devices
from lib.system.progress import say

METHODS = explanations.METHODS.menu("gradcam", "gradcam++", "cam")
ATTACKS = attacks.ATTACKS.menu("none", "pgd", "noise")
SHOWN = {"for the class (ReLU)": "positive", "against it (counterfactual)": "counterfactual", "both (no ReLU)": "signed"}
PREDICTED = -1  # in place of a class: the one that is predicted now
SHOWN_IMAGES = 100  # to choose from
MANY = 16  # images that the curve is over
UNIT = "0: same map, 1: as different as can be"


class Looked(NamedTuple):
    """A network and the names that its maps are asked for by."""

    model: classifier.Classifier
    classes: tuple[str, ...]
    layers: dict[str, str]  # by plan.LEVELS
    head: str


def draw(
    subject: Looked,
    x: Tensor,
    *,
    of: int,
    aimed: int,
    level: str,
    method: str,
    sign: activation_maps.Sign,
    attack: str,
    eps: float,
    steps: int = 20,
) -> View:
    """Image (1, C, H, W) and map before and after, both decisions; and the numbers, random signs of the same size beside them.

    The attack goes for the class `aimed`; `of` PREDICTED is the class that is predicted now. Raises ValueError for CAM where it
    is not defined, and for a counterfactual of Grad-CAM++.
    """
    if method == "gradcam++" and sign == "counterfactual":
        raise ValueError("the weights of Grad-CAM++ are never below zero, so it has no counterfactual; choose Grad-CAM")
    if method == "cam" and level != "last":
        raise ValueError("CAM is read off the last stage alone: choose the layer “last stage”, or Grad-CAM")
    model, classes = subject.model, subject.classes
    chosen, aim = attacks.find(attack), torch.tensor([aimed], device=x.device)
    target: contract.Targets = contract.predicted if of == PREDICTED else of
    settings = Settings(subject.layers[level], sign=sign, head=subject.head)
    size = (x.shape[-2], x.shape[-1])

    def explained(picture: Tensor) -> tuple[Tensor, Tensor]:
        found = explanations.raw(method, model, picture, target, settings)
        return activation_maps.upsample(found.values, size)[0].cpu(), found.logits[0].cpu()

    def distance(a: Tensor, b: Tensor) -> float:
        return comparison.nissim(*(activation_maps.normalise(raw.abs())[None] for raw in (a, b))).item()

    x_adv = chosen(model, x, aim, eps=eps, steps=steps, targets=aim).x_adv
    fig, axes = pictures.canvas(2, 3, (10.5, 6.2))
    told, numbers = [], []
    looks = [explained(picture) for picture in (x, x_adv)]
    maps = [raw for raw, _ in looks]
    limit = max(float(raw.abs().max()) for raw in maps)  # one scale for both, where they have units
    attacked = "the image again" if attack == "none" else f"attacked: {chosen.label}, eps {eps:g}"
    for row, (picture, when) in enumerate(((x, "before"), (x_adv, "after"))):
        raw, logits = looks[row]
        now, largest = int(logits.argmax()), float(raw.abs().max())
        about = classes[now if of == PREDICTED else of]
        pictures.image(axes[row, 0], picture[0].cpu(), "image" if row == 0 else attacked)
        if sign == "signed":
            title = f"{when}: for (red) and against (blue) {about}"
            drawn = pictures.heatmap(axes[row, 1], raw, title, signed=True, limit=limit)
            pictures.colour_bar(fig, drawn, axes[row, 1], "map, in the score's units")
        else:
            scaled = raw / largest if largest else raw
            drawn = pictures.overlay(axes[row, 1], picture[0].cpu(), scaled, f"{when}: {about}")
            pictures.colour_bar(fig, drawn, axes[row, 1], "map over its largest value")
        widgets.bars(axes[row, 2], logits.softmax(0), classes, f"decision {when}")
        score = float(logits[now if of == PREDICTED else of])
        told.append(f"{when}: <b>{html.escape(classes[now])}</b>, score of {html.escape(about)} {score:.3f}")
        numbers += [
            Number(f"predicted class, {when}", classes[now]),
            Number(f"score of {about}, {when}", score, "logit"),
            Number(f"probability of {about}, {when}", float(logits.softmax(0)[now if of == PREDICTED else of])),
            Number(f"largest value of the map, {when}", largest, "logit"),
        ]
    moved = distance(*maps)
    change = float((x_adv - x).abs().max())
    numbers += [Number("NISSIM of the two maps", moved, UNIT), Number("largest change of a pixel", change, "of [0, 1]")]
    said = f"NISSIM <b>{moved:.3f}</b> between the two maps ({UNIT})"
    if attack not in ("none", "noise") and eps:
        raw, logits = explained(attacks.find("noise")(model, x, aim, eps=eps).x_adv)
        by_chance, still = distance(maps[0], raw), classes[int(logits.argmax())]
        numbers += [Number("NISSIM under random signs of the same size", by_chance, UNIT)]
        numbers += [Number("predicted class under random signs of the same size", still)]
        said += f"; random signs of the same size: {by_chance:.3f}, <b>{html.escape(still)}</b>"
    empty = " This map is empty: nothing in this layer speaks that way." if bool((maps[0] == 0).all()) else ""
    return View(fig, f"{'; '.join(told)}; largest change of a pixel {change:.3g}; {said}.{empty}", numbers)


def curve(
    subject: Looked,
    x: Tensor,
    radii: tuple[float, ...],
    *,
    of: int,
    sign: activation_maps.Sign,
    method: str,
    level: str,
    attack: str,
    aimed: int,
    present: float,
    steps: int,
) -> View:
    """How far the map that the view shows moves, over the images x, at each radius: under PGD and under random signs."""
    settings = Settings(subject.layers[level], sign=sign, head=subject.head)
    model, size = subject.model, (x.shape[-2], x.shape[-1])
    target: contract.Targets = contract.predicted if of == PREDICTED else of
    clean = explanations.raw(method, model, x, target, settings)
    kept = clean.logits.argmax(1) != aimed  # those that show what is aimed at already are no victims
    x = x[kept]
    aim = torch.full((len(x),), aimed, device=x.device)

    def shown(values: Tensor) -> Tensor:
        return activation_maps.normalise(activation_maps.upsample(values, size).abs()).cpu()

    before, found = shown(clean.values[kept]), {}
    for name in ("noise",) if attack == "noise" else ("pgd", "noise"):
        moved = []
        for i, eps in enumerate(radii):
            say(f"{attacks.find(name).label}, radius {i + 1} of {len(radii)}")
            x_adv = attacks.find(name)(model, x, aim, eps=eps, steps=steps, targets=aim).x_adv
            moved.append(comparison.nissim(before, shown(explanations.raw(method, model, x_adv, target, settings).values)))
        found[f"{attacks.find(name).label}" + (f" at {subject.classes[aimed]}" if name == "pgd" else "")] = torch.stack(moved)
    about = "the predicted class" if of == PREDICTED else subject.classes[of]
    speaks = {"positive": "for", "counterfactual": "against", "signed": "for and against"}[sign]
    label = f"NISSIM, {explanations.find(method).label} {speaks}\n{about}, before and after"
    at = 0.0 if attack == "none" else present
    return over_levels(radii, found, at, xlabel="eps, of [0, 1]", ylabel=label, unit=UNIT)


def explorer(p: Parameters) -> Explorer:
    """The explorer of a run: the published network on photographs first, then those that the study trains, on its data; and
    one's own network and picture in their place.

    Networks that are not in the cache are trained when they are first chosen.
    """

    def photographed(arch: str, network: str) -> bool:
        return bool(network) or arch == p.published

    def looked(arch: str, network: str) -> tuple[Looked, ImageSet, bool]:
        """A network with its layers, the images beside it, and whether their labels are its classes'."""
        if network:
            model, data, classes, head, last, labelled = subjects.own(network, p.device)
            stages = [s for s in model.stages if s != last]
            return Looked(model, classes, {"middle": (stages or [last])[-1], "last": last}, head), data, labelled
        if arch == p.published:
            model, data = plan.published_network(p), plan.photo_set(p)
        else:
            model, data = plan.network(p, arch, 0).model, plan.evaluation_set(p)
        return Looked(model, data.classes, plan.layers_of(model, arch), plan.head_of(arch)), data, True

    def pair(data: ImageSet, image: int) -> tuple[int, int]:
        """Which photographs stand side by side: first those of the notebook, then each with the next one."""
        if image == 0 and {p.left, p.right} <= set(data.classes):
            first, second = ((data.labels == data.classes.index(c)).nonzero()[:, 0] for c in (p.left, p.right))
            if len(first) and len(second):
                return int(first[0]), int(second[0])
        return image % len(data), (image + 1) % len(data)

    def picture(data: ImageSet, arch: str, network: str, show: str, image: int, own: Image.Image | None) -> Tensor:
        if own is not None:
            x = data.like(own)
        elif show != "two objects":
            x = data.images[image % len(data)]
        elif photographed(arch, network):
            x = torch.cat([data.images[i] for i in pair(data, image)], 2)
        else:
            found = plan.two_objects(p).images
            x = found[image % len(found)]
        return x[None].to(devices.device(p.device))

    def render(
        arch: str,
        network: str,
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
    ) -> View:
        subject, data, _ = looked(arch, network)
        x = picture(data, arch, network, show, image, own)
        options = {"method": method, "sign": sign, "attack": attack, "eps": eps, "steps": p.steps}
        return draw(subject, x, of=of, aimed=aimed, level=layer, **options)

    def many(
        arch: str,
        network: str,
        of: int,
        layer: str,
        method: str,
        sign: activation_maps.Sign,
        attack: str,
        aimed: int,
        eps: float,
        **_other: Any,
    ) -> View:
        subject, data, _ = looked(arch, network)
        x = data.images[:MANY].to(devices.device(p.device))
        radii = p.radii if photographed(arch, network) else p.eps
        options = {"of": of, "sign": sign, "method": method, "level": layer, "attack": attack, "aimed": aimed}
        return curve(subject, x, radii, **options, present=eps, steps=p.steps)

    def seek(arch: str, network: str, show: str, image: int, attack: str, aimed: int, eps: float, **_other: Any) -> int:
        """The next image that is taken for the class aimed at once it is attacked, and not before."""
        subject, data, _ = looked(arch, network)
        count = len(names(arch, network, show))
        for step in range(1, count):
            at = (image + step) % count
            say(f"image {at}")
            x = picture(data, arch, network, show, at, None)
            aim = torch.tensor([aimed], device=x.device)
            x_adv = attacks.find(attack)(subject.model, x, aim, eps=eps, steps=p.steps, targets=aim).x_adv
            with torch.no_grad():
                before, after = (int(contract.logits_of(subject.model, z).argmax()) for z in (x, x_adv))
            if before != aimed == after:
                return at
        return image

    def names(arch: str, network: str, show: str) -> list[str]:
        """What the pictures to choose from show."""
        _, data, _ = looked(arch, network)
        shown = [data.classes[int(y)] for y in data.labels[:SHOWN_IMAGES]]
        if show != "two objects":
            return shown
        if not photographed(arch, network):
            return ["two objects"] * len(plan.two_objects(p).images[:SHOWN_IMAGES])
        return [" | ".join(data.classes[int(data.labels[i])] for i in pair(data, image)) for image in range(len(shown))]

    def menus(arch: str, network: str) -> dict[str, Any]:
        """What a network's classes and radii are, and those to begin with: (options, value) by control."""
        subject, data, labelled = looked(arch, network)
        classes = subject.classes
        if not photographed(arch, network) or not labelled:
            shown, of, aimed = classes, p.first, p.second
        else:  # of ImageNet's thousand classes those that the photographs show, and what attacks aim at
            shown, of, aimed = (p.left, p.right, p.aim, *(classes[int(y)] for y in data.labels)), p.left, p.right
        numbered = {name: classes.index(name) for name in shown}
        grid = (0.0, *(p.radii if photographed(arch, network) else p.eps))
        radii = [(f"{v:g}", v) for v in grid]
        first = numbered.get(of, PREDICTED)
        return {
            "of": ({"the predicted class": PREDICTED} | numbered, first),
            "aimed": (numbered, numbered.get(aimed, next(iter(numbered.values())))),
            "eps": (radii, grid[len(grid) // 2]),
        }

    def follow(name: str, controls: dict[str, Any]) -> None:
        arch, network = controls["arch"].value, controls["network"].value
        if name in ("image", "show") and photographed(arch, network):  # ask for what the picture shows
            _, data, labelled = looked(arch, network)
            image = controls["image"].value
            if labelled:
                two = controls["show"].value == "two objects"
                first, second = pair(data, image) if two else (image % len(data), None)
                controls["of"].value = int(data.labels[first])
                controls["aimed"].value = data.classes.index(p.aim) if second is None else int(data.labels[second])
        if name in ("arch", "network"):
            controls["own"].size = looked(arch, network)[1].images.shape[-1]
        if name in ("arch", "network", "show"):
            offered, at = widgets.numbers(names(arch, network, controls["show"].value)), controls["image"].value
            controls["image"].options, controls["image"].value = offered, at if name == "show" and at < len(offered) else 0
        if name in ("arch", "network"):
            for control, (options, value) in menus(arch, network).items():
                controls[control].options, controls[control].value = options, value
        fitting(name, controls)

    first = menus(p.published, "")
    controls = {
        "arch": widgets.choice("network", {plan.named(a): a for a in (p.published, *p.architectures)}, p.published),
        "network": widgets.OwnNetwork(lambda name: subjects.anew(name, p.device)),
        "show": widgets.choice("objects", ("one object", "two objects"), "two objects"),
        "image": widgets.numbered("image", names(p.published, "", "two objects")),
        "own": widgets.Upload("upload an image", plan.photo_set(p).images.shape[-1]),
        "of": widgets.choice("map of class", *first["of"]),
        "layer": widgets.choice("layer", {f"{level} stage": level for level in plan.LEVELS}, "last"),
        "method": widgets.choice("method", METHODS, "gradcam"),
        "sign": widgets.choice("what speaks", SHOWN, "positive"),
        "attack": widgets.choice("attack", ATTACKS, "pgd"),
        "aimed": widgets.choice("aimed at", *first["aimed"]),
        "eps": widgets.slider("eps, of [0, 1]", (0.0, *p.radii), first["eps"][1]),
    }
    return Explorer(p, controls, render, follow, many, seek)


def fitting(name: str, controls: dict[str, Any]) -> None:
    """What was chosen stands, and what cannot go with it gives way: CAM is of the last stage, and Grad-CAM++ has no
    counterfactual."""
    if controls["method"].value == "cam" and controls["layer"].value != "last":
        changed, value = ("method", "gradcam") if name == "layer" else ("layer", "last")
        controls[changed].value = value
    if controls["method"].value == "gradcam++" and controls["sign"].value == "counterfactual":
        changed, value = ("method", "gradcam") if name == "sign" else ("sign", "positive")
        controls[changed].value = value
