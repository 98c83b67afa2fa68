"""One explanation of one image under the attack that is made for it: the explorer of 07-attacked-explanations."""

import functools
import html
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from lib.data.image_sets import ImageSet
from lib.explanations import by_name
from lib.explanations.activation_maps import upsample
from lib.explanations.by_name import METHODS, Settings
from lib.figures import pictures, widgets
from lib.figures.explorer import Explorer, Number, View, over_levels
from lib.fooling import goals, map_attack
from lib.fooling.goals import GOALS
from lib.measures import comparison
from lib.networks import classifier
from lib.studies import subjects
from lib.studies.attacked_explanations import measure, plan
from lib.studies.attacked_explanations.plan import ATTACKS, NAMES, PHOTOGRAPHS, Parameters
from lib.system import devices
from lib.system.progress import say

MENU = METHODS.menu(*by_name.DIFFERENTIABLE)
HOW = {label: name for name, label in ATTACKS.items()}
AIMS = {g.label: g.name for g in GOALS.rows if not g.aimed}
RADII = (0.5, 1.0, 2.0, 4.0, 8.0)  # of 255
STEPS, STAGES = 10, 5
GRAIN = 32  # blocks a side that maps of pixels are drawn in
MANY = 4  # images of the curve
UNIT = "0: as it was, 1: nothing is where it was"


class Looked(NamedTuple):
    """A network, what its maps are made at, its head, and what its classes are called."""

    model: classifier.Classifier
    layer: str
    head: str
    classes: tuple[str, ...]
    through: str = ""  # where Grad-CAM is taken, if not at the layer

    def settings(self, p: Parameters, method: str) -> tuple[Settings, Settings]:
        """As in the study, but for fewer noisy copies in a step of an attack, so that nobody waits."""
        judged, climbing = plan.settings(p, method, self.layer, self.head, self.through)
        return judged, climbing._replace(n=plan.COPIES)


def moved_by(seen: Looked, p: Parameters, x: Tensor, method: str, how: str, goal: str, eps: float) -> Tensor:
    """The images that an attack makes of x, for the maps of a method."""
    if how == "random":
        return measure.signs(x, eps / 255)
    of = "gradcam" if how == "carried" else method
    judged, climbing = seen.settings(p, of)
    given: dict[str, Any] = {"eps": eps / 255, "goal": goal, "settings": judged, "climbing": climbing, "steps": STEPS}
    if how == "naive":
        given |= {"stages": 1, "betas": None, "step": 2.5 * eps / 255 / STEPS}
    else:
        given |= {"stages": STAGES}
    return map_attack.move_maps(seen.model, x, of, **given).x_adv


def draw(seen: Looked, p: Parameters, x: Tensor, *, method: str, attack: str, goal: str, eps: float) -> View:
    """Image (1, C, H, W), what was added, attacked image; its map before and after and their difference; and the numbers, with
    random signs of the same size beside them."""
    judged, _ = seen.settings(p, method)
    before = by_name.explain(method, seen.model, x, None, judged)
    y = before.logits.argmax(1)
    x_adv = moved_by(seen, p, x, method, attack, goal, eps)
    after = by_name.explain(method, seen.model, x_adv, y, judged)
    noisy = by_name.explain(method, seen.model, measure.signs(x, eps / 255), y, judged)
    a, b = (seen_from_afar(method, e.values, x) for e in (before, after))
    moved, by_chance = (goals.mass_moved(e.values, before.values).item() for e in (after, noisy))
    agree = comparison.spearman(before.values, after.values).item()
    dead = bool((comparison.degenerate(before.values) | comparison.degenerate(after.values)).any())
    change = float((x_adv - x).abs().max())
    now, name = seen.classes[int(after.logits.argmax())], seen.classes[int(y)]
    numbers = [
        Number("predicted class, before", name),
        Number("predicted class, after", now),
        Number(f"probability of {name}, before", float(before.logits.softmax(1)[0, y])),
        Number(f"probability of {name}, after", float(after.logits.softmax(1)[0, y])),
        Number("share of the map that moved", "not defined: a map is empty" if dead else moved, UNIT),
        Number("Spearman's rank correlation of the two maps", agree, "-1 to 1"),
        Number("share of the map that moved under random signs of the same size", by_chance, UNIT),
        Number("largest change of a pixel", change, "of [0, 1]"),
    ]
    numbers = [n for n in numbers if n.value == n.value]  # a dead map has no ranks
    fig, axes = pictures.canvas(2, 3, (8.4, 5.4))
    pictures.image(axes[0, 0], x[0].cpu(), f"image: {name}")
    drawn = pictures.heatmap(axes[0, 1], (x_adv - x)[0].mean(0), f"what was added, largest {change:.3g}", signed=True)
    pictures.colour_bar(fig, drawn, axes[0, 1], "change of a pixel")
    pictures.image(axes[0, 2], x_adv[0].cpu(), f"attacked: {now}")
    pictures.overlay(axes[1, 0], x[0].cpu(), a, f"{METHODS.find(method).label} before")
    drawn = pictures.overlay(axes[1, 1], x_adv[0].cpu(), b, "after")
    pictures.colour_bar(fig, drawn, axes[1, 1], "map, scaled to [0, 1]")
    drawn = pictures.heatmap(axes[1, 2], b - a, "after - before", signed=True)
    pictures.colour_bar(fig, drawn, axes[1, 2], "difference")
    text = (
        f"<b>{html.escape(name)}</b> before, <b>{html.escape(now)}</b> after; {METHODS.find(method).label}: share of the map "
        f"that moved <b>{moved:.2f}</b> ({UNIT}), under random signs of the same size {by_chance:.2f}; rank correlation "
        f"{agree:.2f}."
    )
    if dead:
        text = (
            f"<b>{html.escape(name)}</b> before, <b>{html.escape(now)}</b> after; a map of {METHODS.find(method).label} is "
            "empty (nothing here speaks for the class), so what moved is not defined."
        )
    return View(fig, text, numbers)


def seen_from_afar(method: str, values: Tensor, x: Tensor) -> Tensor:
    """The map (1, h, w) of an image as it is drawn: enlarged; of pixels in blocks, since single ones of many are not seen."""
    if METHODS.find(method).where == "layer":
        return upsample(values, (x.shape[-2], x.shape[-1]))[0].cpu()
    block = x.shape[-1] // GRAIN
    return pictures.coarse(values[0].cpu(), block) if block > 1 else values[0].cpu()


def curve(seen: Looked, p: Parameters, x: Tensor, *, method: str, attack: str, goal: str, present: float) -> View:
    """How far the maps of the images x move at each radius, and under random signs."""
    judged, _ = seen.settings(p, method)
    before = by_name.explain(method, seen.model, x, None, judged)
    y, found = before.logits.argmax(1), {}
    for how in dict.fromkeys((attack, "random")):
        moved = []
        for i, eps in enumerate(RADII):
            say(f"{ATTACKS[how]}, radius {i + 1} of {len(RADII)}")
            x_adv = moved_by(seen, p, x, method, how, goal, eps)
            after = by_name.explain(method, seen.model, x_adv, y, judged).values
            moved.append(goals.mass_moved(after, before.values).cpu())
        found[ATTACKS[how]] = torch.stack(moved)
    label = f"share of the map that moved, {METHODS.find(method).label}"
    return over_levels(RADII, found, present, xlabel="eps, of 255", ylabel=label, unit=UNIT)


def explorer(p: Parameters) -> Explorer:
    """The explorer of a run: a published network on photographs first, or one's own; then the study's networks on its data.

    Networks that are not in the cache are trained when they are first chosen.
    """

    def looked(arch: str, network: str) -> tuple[Looked, ImageSet]:
        if network or arch == PHOTOGRAPHS:
            found = subjects.own(network, p.device) if network else plan.published(p)
            return Looked(found.model, found.layer, found.head, found.classes), found.data
        data = plan.evaluation_set(p)
        model = plan.model(p, arch, 0)
        return Looked(model, model.stages[-1], "head", data.classes, plan.through(p, arch)), data

    def render(
        arch: str, network: str, image: int, own: Image.Image | None, method: str, attack: str, goal: str, eps: float
    ) -> View:
        seen, data = looked(arch, network)
        x = data.images[image % len(data)]
        if own is not None:
            x = data.like(own)
        x = x[None].to(devices.device(p.device))
        return draw(seen, p, x, method=method, attack=attack, goal=goal, eps=eps)

    def many(arch: str, network: str, method: str, attack: str, goal: str, eps: float, **_other: Any) -> View:
        seen, data = looked(arch, network)
        x = data.images[:MANY].to(devices.device(p.device))
        return curve(seen, p, x, method=method, attack=attack, goal=goal, present=eps)

    @functools.lru_cache(maxsize=4)
    def names(arch: str, network: str) -> list[str]:
        data = looked(arch, network)[1]
        return [data.classes[int(y)] for y in data.labels[:100]]

    def follow(name: str, controls: dict[str, Any]) -> None:
        arch, network = controls["arch"].value, controls["network"].value
        if name in ("arch", "network"):
            seen, data = looked(arch, network)
            controls["image"].options, controls["image"].value = widgets.numbers(names(arch, network)), 0
            controls["own"].size = data.images.shape[-1]
            able = {k: v for k, v in MENU.items() if v != "cam" or _has_cam(seen, data.images[:1])}
            if list(controls["method"].options) != list(able.items()):
                chosen = controls["method"].value
                controls["method"].options = list(able.items())
                controls["method"].value = chosen if chosen in able.values() else "gradcam"

    menu = {NAMES[PHOTOGRAPHS]: PHOTOGRAPHS} | {NAMES[a].capitalize(): a for a in p.arms}
    first = plan.published(p).data
    controls = {
        "arch": widgets.choice("network", menu, PHOTOGRAPHS),
        "network": widgets.OwnNetwork(lambda name: subjects.anew(name, p.device)),
        "image": widgets.numbered("image", [first.classes[int(y)] for y in first.labels]),
        "own": widgets.Upload("upload an image", first.images.shape[-1]),
        "method": widgets.choice("explanation", MENU, "gradcam"),
        "attack": widgets.choice("attack", HOW, "adaptive"),
        "goal": widgets.choice("goal", AIMS, "mass"),
        "eps": widgets.slider("eps, of 255", RADII, 2.0),
    }
    return Explorer(p, controls, render, follow, many)


def _has_cam(seen: Looked, x: Tensor) -> bool:
    """Whether CAM is defined: average pooling and one linear layer end the network, which looks at x (1, C, H, W)."""
    try:
        by_name.explain("cam", seen.model, x.to(next(seen.model.parameters()).device), 0, Settings(seen.layer, head=seen.head))
    except ValueError:
        return False
    return True
