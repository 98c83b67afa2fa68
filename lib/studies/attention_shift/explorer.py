"""One image under attack, seen through its maps: the explorer of 01-attention-shift, as a pure function and its controls."""

import functools
import html
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from lib.attacks import by_name as attacks
from lib.data import datasets
from lib.data.image_sets import ImageSet
from lib.explanations import by_name as explanations
from lib.explanations.by_name import Settings
from lib.figures import pictures, widgets
from lib.figures.explorer import Explorer, Number, View, over_levels
from lib.measures import comparison
from lib.networks import classifier, contract
from lib.studies import subjects
from lib.studies.attention_shift import plan
from lib.studies.attention_shift.measure import shown
from lib.studies.attention_shift.plan import FAMILY, Parameters
from lib.system import devices
from lib.system.progress import say
from lib.training import cache

METHODS = explanations.METHODS.menu("gradcam", "gradcam++", "cam")
ATTACKS = attacks.ATTACKS.menu("fgsm", "pgd", "noise", "none")
STEPS = 10  # of PGD
EXPLAINED = ("predicted class", "true class", "predicted class of the clean image")
PHOTOGRAPHS = "photographs"
RADII = (0.002, 0.004, 0.008, 0.016, 0.031)  # on photographs, whose networks give way sooner
STAGES = 4
SHOWN, MANY = 100, 16  # images to choose from, and that the curve is over
UNIT = "0: same map, 1: as different as can be"


class Looked(NamedTuple):
    """A network, what its maps are made at, and what its classes are called."""

    model: classifier.Classifier
    layer: str
    head: str
    classes: tuple[str, ...]


def draw(seen: Looked, x: Tensor, y: int | None, *, attack: str, eps: float, method: str, explain: str) -> View:
    """Image (1, C, H, W), perturbation, attacked image, both maps, their difference, both predictions; and the numbers, random
    signs of the same size beside them.

    `y` None (an upload): the clean prediction takes the place of the label, for the attack and for `explain`.
    """
    model, classes = seen.model, seen.classes
    with torch.no_grad():
        clean_logits = contract.logits_of(model, x)
    before = int(clean_logits.argmax())
    label = torch.tensor([before if y is None else y], device=x.device)
    fixed = {"true class": int(label), "predicted class of the clean image": before}
    target: contract.Targets = fixed.get(explain, contract.predicted)
    size = x.shape[-1]

    def explained(picture: Tensor) -> tuple[Tensor, Tensor]:
        found = explanations.raw(method, model, picture, target, Settings(seen.layer, head=seen.head))
        return found.values, found.logits

    x_adv = attacks.find(attack)(model, x, label, eps=eps, steps=STEPS).x_adv
    (clean, _), (adv, adv_logits) = explained(x), explained(x_adv)
    after = int(adv_logits.argmax())
    a, b = shown(clean, size), shown(adv, size)
    moved, change = comparison.nissim(a, b).item(), float((x_adv - x).abs().max())
    agree, centre = comparison.spearman(a, b).item(), comparison.centroid_shift(a, b).item()
    numbers = [
        Number("predicted class, before", classes[before]),
        Number("predicted class, after", classes[after]),
        Number(f"probability of {classes[before]}, before", float(clean_logits.softmax(1)[0, before])),
        Number(f"probability of {classes[before]}, after", float(adv_logits.softmax(1)[0, before])),
        Number("NISSIM of the two maps", moved, UNIT),
        Number("Spearman's rank correlation of the two maps", agree, "-1 to 1"),
        Number("distance of the maps' centres of mass", centre, "pixels"),
        Number("largest change of a pixel", change, "of [0, 1]"),
    ]
    numbers = [n for n in numbers if n.value == n.value]  # of an empty map there is no rank and no centre
    fig, axes = pictures.canvas(2, 4, (10.5, 5.2))
    pictures.image(axes[0, 0], x[0].cpu(), f"image: {classes[label]}" if y is not None else "image")
    delta = (x_adv - x)[0].mean(0)
    drawn = pictures.heatmap(axes[0, 1], delta, f"perturbation, largest {change:.3g}", signed=True)
    pictures.colour_bar(fig, drawn, axes[0, 1], "change of a pixel")
    pictures.image(axes[0, 2], x_adv[0].cpu(), "attacked image")
    pictures.overlay(axes[1, 0], x[0].cpu(), a[0], "map before")
    drawn = pictures.overlay(axes[1, 1], x_adv[0].cpu(), b[0], "map after")
    pictures.colour_bar(fig, drawn, axes[1, 1], "map, scaled to [0, 1]")
    drawn = pictures.heatmap(axes[1, 2], b[0] - a[0], "after - before", signed=True)
    pictures.colour_bar(fig, drawn, axes[1, 2], "difference")
    for ax, logits, title in ((axes[0, 3], clean_logits, "decision before"), (axes[1, 3], adv_logits, "decision after")):
        widgets.bars(ax, logits[0].softmax(0).cpu(), classes, title)

    said = ""
    if attack not in ("none", "noise") and eps:
        values, logits = explained(attacks.find("noise")(model, x, label, eps=eps).x_adv)
        by_chance, still = comparison.nissim(a, shown(values, size)).item(), classes[int(logits.argmax())]
        numbers += [Number("NISSIM under random signs of the same size", by_chance, UNIT)]
        numbers += [Number("predicted class under random signs of the same size", still)]
        said = f"; random signs of the same size: {by_chance:.3f}, <b>{html.escape(still)}</b>"
    ranked = f"rank correlation {agree:.2f}, centre moved {centre:.1f} px"
    if comparison.degenerate(clean) | comparison.degenerate(adv):
        ranked = "a map is empty (nothing in this stage speaks for the class), so ranks and centres are not compared"
    text = (
        f"before: <b>{html.escape(classes[before])}</b>, after: <b>{html.escape(classes[after])}</b>; "
        f"NISSIM <b>{moved:.3f}</b> ({UNIT}){said}; {ranked}."
    )
    return View(fig, text, numbers)


def curve(
    seen: Looked,
    x: Tensor,
    y: Tensor | None,
    radii: tuple[float, ...],
    *,
    attack: str,
    method: str,
    explain: str,
    present: float,
) -> View:
    """How far the map of the class that `explain` names moves over the images x at each radius, and under random signs."""
    settings, size = Settings(seen.layer, head=seen.head), x.shape[-1]
    with torch.no_grad():
        predicted = contract.logits_of(seen.model, x).argmax(1)
    label = predicted if y is None else y
    of = {"true class": label, "predicted class of the clean image": predicted}.get(explain, contract.predicted)
    before = shown(explanations.raw(method, seen.model, x, of, settings).values, size)
    found = {}
    for name in dict.fromkeys((attack, "noise")):
        moved, row = [], attacks.find(name)
        for i, eps in enumerate(radii):
            say(f"{row.label}, radius {i + 1} of {len(radii)}")
            x_adv = row(seen.model, x, label, eps=eps, steps=STEPS).x_adv
            after = explanations.raw(method, seen.model, x_adv, of, settings).values
            moved.append(comparison.nissim(before, shown(after, size)).cpu())
        found[row.label] = torch.stack(moved)
    label_y = f"NISSIM, {explanations.find(method).label} of the {explain}"
    return over_levels(radii, found, present, xlabel="eps, of [0, 1]", ylabel=label_y, unit=UNIT)


def sources(p: Parameters) -> dict[str, str]:
    """Data sets for the trained networks, and whose networks look at each: single-cue shapes meet those for `shapes`."""
    found = {p.dataset: p.dataset}
    if p.dataset == "shapes":
        found |= {f"shapes-{cue}": "shapes" for cue in ("conflict", "shape", "texture")}
    return found | {name: name for name in ("shapes", "digits") if name not in found}


def explorer(p: Parameters) -> Explorer:
    """The explorer of a run: a published network on photographs first, or one's own; then those of the study on its data.

    Networks that are not in the cache are trained when they are first chosen.
    """
    trained_on = sources(p)

    @functools.lru_cache(maxsize=4)
    def of_study(name: str) -> ImageSet:
        return datasets.load(name, "test", size=p.size, channels=p.channels, limit=SHOWN)

    @functools.lru_cache(maxsize=8)
    def trained(name: str, arch: str) -> classifier.Classifier:
        own = p.model_copy(update={"dataset": trained_on[name], "architectures": (arch,), "seeds": 1})
        return cache.trained(plan.networks(own)[0], device_name=p.device).model

    def looked(dataset: str, arch: str, network: str, stage: int) -> tuple[Looked, ImageSet, bool]:
        """A network and one of its stages; the images beside it, and whether their labels are its classes'."""
        if photographed(arch, network):
            found = subjects.own(network, p.device) if network else published()
            model, data, classes, head, labelled = found.model, found.data, found.classes, found.head, found.labelled
        else:
            model, data, head, labelled = trained(dataset, arch), of_study(dataset), "head", True
            classes = data.classes
        stages = model.stages
        return Looked(model, stages[min(stage, len(stages)) - 1], head, classes), data, labelled

    def photographed(arch: str, network: str) -> bool:
        return bool(network) or arch == subjects.PUBLISHED

    def published() -> subjects.Subject:
        return subjects.published(subjects.PUBLISHED, PHOTOGRAPHS, p.device)

    def render(
        arch: str,
        network: str,
        dataset: str,
        image: int,
        own: Image.Image | None,
        attack: str,
        eps: float,
        stage: int,
        method: str,
        explain: str,
    ) -> View:
        seen, data, labelled = looked(dataset, arch, network, stage)
        if own is None:
            x, y = data.images[image % len(data)], int(data.labels[image % len(data)]) if labelled else None
        else:
            x, y = data.like(own), None
        return draw(seen, x[None].to(devices.device(p.device)), y, attack=attack, eps=eps, method=method, explain=explain)

    def many(
        arch: str, network: str, dataset: str, attack: str, eps: float, stage: int, method: str, explain: str, **_other: Any
    ) -> View:
        seen, data, labelled = looked(dataset, arch, network, stage)
        x, y = data.images[:MANY].to(devices.device(p.device)), data.labels[:MANY].to(devices.device(p.device))
        radii = RADII if photographed(arch, network) else p.eps
        options = {"attack": attack, "method": method, "explain": explain, "present": eps}
        return curve(seen, x, y if labelled else None, radii, **options)

    def seek(dataset: str, arch: str, network: str, image: int, attack: str, eps: float, stage: int, **_other: Any) -> int:
        """The next image that is taken for something else once it is attacked, as the view attacks it."""
        seen, data, labelled = looked(dataset, arch, network, stage)
        for step in range(1, len(data)):
            at = (image + step) % len(data)
            x = data.images[at][None].to(devices.device(p.device))
            with torch.no_grad():
                before = contract.logits_of(seen.model, x).argmax(1)
            away = data.labels[at][None].to(before) if labelled else before
            x_adv = attacks.find(attack)(seen.model, x, away, eps=eps, steps=STEPS).x_adv
            with torch.no_grad():
                if int(contract.logits_of(seen.model, x_adv).argmax()) != int(before):
                    return at
        return image

    def follow(name: str, controls: dict[str, Any]) -> None:
        dataset, arch, network = (controls[n].value for n in ("dataset", "arch", "network"))
        if name in ("arch", "network"):
            sets = [PHOTOGRAPHS] if photographed(arch, network) else list(trained_on)
            if dataset not in sets:
                controls["dataset"].options = sets
                controls["dataset"].value = dataset = sets[0]
        if name in ("arch", "network", "dataset"):
            seen, data, _ = looked(dataset, arch, network, STAGES)
            names = [data.classes[int(y)] for y in data.labels[:SHOWN]]
            controls["image"].options, controls["image"].value = widgets.numbers(names), 0
            controls["own"].size = data.images.shape[-1]
            grid = (0.0, *(RADII if photographed(arch, network) else p.eps))
            controls["eps"].options = [(f"{v:g}", v) for v in grid]
            controls["eps"].value = grid[len(grid) // 2]
            controls["stage"].max = len(seen.model.stages)
        fitting(name, controls)

    first = published().data
    menu = {"EfficientNet-Lite0, published": subjects.PUBLISHED}
    menu |= {FAMILY.get(a, a): a for a in p.architectures if a != subjects.PUBLISHED}
    controls = {
        "arch": widgets.choice("network", menu, subjects.PUBLISHED),
        "network": widgets.OwnNetwork(lambda name: subjects.anew(name, p.device)),
        "dataset": widgets.choice("data set", [PHOTOGRAPHS], PHOTOGRAPHS),
        "image": widgets.numbered("image", [first.classes[int(y)] for y in first.labels]),
        "own": widgets.Upload("upload an image", first.images.shape[-1]),
        "attack": widgets.choice("attack", ATTACKS, "fgsm"),
        "eps": widgets.slider("eps, of [0, 1]", (0.0, *RADII), RADII[2]),
        "stage": widgets.integer("conv stage", 1, STAGES, STAGES),
        "method": widgets.choice("method", METHODS, "gradcam"),
        "explain": widgets.choice("explain the", EXPLAINED, EXPLAINED[0]),
    }
    return Explorer(p, controls, render, follow, many, seek)


def fitting(name: str, controls: dict[str, Any]) -> None:
    """What was chosen stands, and what cannot go with it gives way: CAM is of the last stage alone."""
    if controls["method"].value == "cam" and controls["stage"].value != controls["stage"].max:
        if name == "stage":
            controls["method"].value = "gradcam"
        else:
            controls["stage"].value = controls["stage"].max
