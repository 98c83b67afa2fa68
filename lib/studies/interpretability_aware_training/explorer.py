"""One image under one attack as one network sees it, with its maps and the proposition: the explorer of study 3."""

import functools
import html
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor, nn

from lib.attacks import by_name, unforeseen
from lib.attacks.steps import default_step
from lib.data.image_sets import ImageSet
from lib.figures import pictures, widgets
from lib.figures.explorer import Explorer, Number, View, over_levels
from lib.fooling import discrepancy, interpretation_attack
from lib.measures import comparison
from lib.networks import contract, hooks, layers
from lib.studies import subjects
from lib.studies.interpretability_aware_training import plan
from lib.studies.interpretability_aware_training.measure import unforeseen_attack
from lib.studies.interpretability_aware_training.plan import Parameters
from lib.system import devices
from lib.system.progress import say

# on the decision, on the explanation, and those that training did not foresee
ATTACKS = by_name.ATTACKS.plus(*interpretation_attack.attacks()).menu(
    "none", "pgd", *interpretation_attack.LABELS, *unforeseen.ATTACKS
)
RADII = (0.002, 0.004, 0.008, 0.016)  # on photographs, whose networks give way sooner
TOP = 8  # positions of the top-k form there, the paper's 8 of 49
SHOWN = 100  # images to choose from
MANY, MANY_PHOTOGRAPHS = 40, 10  # images that the curve is over
FIRST = 4  # the first photograph, of strawberries, whose decision goes to something that is no relative of it
MOVED = 0.5  # Kendall's tau, below which an attack on a map has done what it is for
TAU = "-1 to 1; 1: same order of positions, 0: none"


class Headed(nn.Module):
    """A network with CAM's layers under the names that this study's kernels ask for: `layer`, its last maps, and `head`, the
    linear layer after average pooling. It shares them with the network."""

    stages = ("layer",)

    def __init__(self, found: subjects.Subject) -> None:
        super().__init__()
        self.inner, self.classes = found.model, found.model.classes
        self.layer, self.head = layers.find_layer(found.model, found.layer), layers.find_layer(found.model, found.head)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Looked(NamedTuple):
    """A network, the images beside it, what its classes are called, and whether the images' labels are among them."""

    model: nn.Module
    data: ImageSet
    classes: tuple[str, ...]
    labelled: bool


def attacked(
    model: nn.Module, x: Tensor, y: Tensor, how: str, *, eps: float, steps: int, p: Parameters, top_k: int | None = None
) -> Tensor:
    """Images under one of ATTACKS, as the network takes them; eps is the radius of PGD, of AAI and of random signs."""
    if how in unforeseen.ATTACKS:  # which have radii of their own, and work in colour
        return unforeseen_attack(model, x, y, how, p.unforeseen_eps[how], steps, p).x_adv  # type: ignore[arg-type]
    rows = by_name.ATTACKS.plus(*interpretation_attack.attacks(top_k or p.top_k))
    return rows.find(how)(model, x, y, eps=eps, steps=steps, step=default_step(eps, steps)).x_adv


def beside(x: Tensor, x_new: Tensor, y: Tensor, how: str, model: nn.Module) -> Tensor | None:
    """Random signs of the attack's size: of its largest change of a pixel, or for unforeseen attacks, which change some pixels
    a lot and others not at all, of its L2 length. None where nothing has changed."""
    change = x_new - x
    size = float(change.norm()) / x.numel() ** 0.5 if how in unforeseen.ATTACKS else float(change.abs().max())
    return by_name.find("noise")(model, x, y, eps=size).x_adv if size else None


def decided(model: nn.Module, x: Tensor) -> Tensor:
    """What the network takes images for, (N,)."""
    with hooks.frozen(model), torch.no_grad():
        return contract.logits_of(model, x).argmax(1)


def _cams(model: nn.Module, x: Tensor, classes: Tensor) -> Any:
    with hooks.frozen(model), torch.no_grad():
        return discrepancy.cam(model, x, classes)


def _map(ax: Axes, values: Tensor, limit: float, title: str) -> None:
    drawn = pictures.heatmap(ax, values, title, signed=True, limit=limit)
    ax.title.set_fontsize(9)
    pictures.colour_bar(ax.figure, drawn, ax, "CAM, logit")


def _said(value: float) -> str:
    return "not defined (the map is flat)" if math.isnan(value) else f"{value:.2f}"


def _defined(value: float) -> float | str:
    return _said(value) if math.isnan(value) else value


def draw(
    model: nn.Module,
    x: Tensor,
    x_new: Tensor,
    y: Tensor,
    classes: tuple[str, ...],
    *,
    known: bool,
    noisy: Tensor | None = None,
    size: str = "size",
) -> View:
    """Above the image and its maps of two classes, below the attacked image and its; and the numbers, those of `noisy`, random
    signs of the same `size`, beside them.

    The classes are y (the label, or an upload's decision) and the one that the attacked image favours most among the others.
    """
    other = _cams(model, x_new, y[:, None]).logits.scatter(1, y[:, None], -torch.inf).argmax(1)
    both = torch.stack([y, other], 1)
    before, after = _cams(model, x, both), _cams(model, x_new, both)
    sides = discrepancy.proposition(model, x, x_new, y)
    limit = max(float(before.values.abs().max()), float(after.values.abs().max())) or 1.0
    fig, axes = pictures.canvas(2, 4, (11, 5.2))
    names = [classes[int(y)], classes[int(other)]]
    for row, z, seen, title in zip(axes, (x, x_new), (before, after), ("image", "attacked image"), strict=True):
        label = f": {names[0]}" if known and title == "image" else ""
        pictures.image(row[0], z[0].cpu(), title + label)
        for ax, one, name, kind in zip(row[1:3], seen.values[0], names, ("true" if known else "decided", "other"), strict=True):
            _map(ax, one, limit, f"{name} ({kind} class)")
        widgets.bars(row[3], seen.logits[0].softmax(0).cpu(), classes, "decision")

    def moved(seen: Any) -> tuple[float, float]:
        """Kendall's tau and D1 of the maps of y, from the image as it is."""
        a, b = before.values[:, :1], seen.values[:, :1]
        return comparison.kendall(a[:, 0], b[:, 0]).item(), discrepancy.one_class(a, b).item()

    decisions = [classes[int(s.logits.argmax())] for s in (before, after)]
    (tau, d1), d2, bound = moved(after), sides.discrepancy.item(), sides.bound.item()
    change = float((x_new - x).abs().max())
    signs = {"decision": "", "d2": "", "tau": ""}  # what random signs of the same size do
    numbers = [
        Number("predicted class, before", decisions[0]),
        Number("predicted class, after", decisions[1]),
        Number(f"probability of {names[0]}, before", float(before.logits.softmax(1)[0, int(y)]), "0 to 1"),
        Number(f"probability of {names[0]}, after", float(after.logits.softmax(1)[0, int(y)]), "0 to 1"),
        Number("largest change of a pixel", change, "of [0, 1]"),
        Number("margin before, true class over the other", 2 * bound, "logit"),
        Number("bound of the proposition, half the margin", bound, "logit"),
        Number("discrepancy D2, of both classes' maps", d2, "logit"),
        Number("discrepancy D1, of the true class's map", d1, "logit"),
        Number("Kendall's tau of the true class's maps", _defined(tau), TAU),
    ]
    if noisy is not None:
        seen = _cams(model, noisy, both)
        still = classes[int(seen.logits.argmax())]
        by_chance, two = moved(seen)[0], discrepancy.two_class(before.values, seen.values).item()
        signs = {
            "decision": f"; random signs of the same {size}: <b>{html.escape(still)}</b>",
            "d2": f" (random signs: {two:.2f})",
            "tau": f"; random signs: {_said(by_chance)}",
        }
        numbers += [
            Number(f"predicted class under random signs of the same {size}", still),
            Number(f"discrepancy D2 under random signs of the same {size}", two, "logit"),
            Number(f"Kendall's tau under random signs of the same {size}", _defined(by_chance), TAU),
        ]
    first, second = (html.escape(name) for name in names)
    text = (
        f"<b>{html.escape(decisions[0])}</b> before, <b>{html.escape(decisions[1])}</b> after{signs['decision']}. Largest "
        f"change of a pixel {change:.3f} of [0, 1].<br>Discrepancy D2, how far the maps of both classes move: {d2:.2f} logits"
        f"{signs['d2']}. Where {second} ends above {first} (here it {'does' if bool(sides.applies) else 'does not'}), D2 is at "
        f"least half the margin that {first} had over it: {bound:.2f}.<br>D1, the map of {first} alone: {d1:.2f} logits; "
        f"Kendall's tau of that map {_said(tau)} ({TAU}{signs['tau']})."
    )
    return View(fig, text, numbers)


def curve(
    seen: Looked, count: int, radii: tuple[float, ...], *, how: str, steps: int, p: Parameters, top_k: int, present: float
) -> View:
    """D2 under an attack on the decision, or tau under one on the map, over the first images at each radius; and under random
    signs. Raises ValueError for an attack with a radius of its own."""
    if how in unforeseen.ATTACKS:
        raise ValueError(f"{by_name.find(how).label} has a radius of its own: choose PGD or an attack on the map")
    how = "pgd" if how == "none" else how
    model, where = seen.model, next(seen.model.parameters()).device
    x, y = seen.data.images[:count].to(where), seen.data.labels[:count].to(where)
    y = y if seen.labelled else decided(model, x)
    of_map, found = how in interpretation_attack.LABELS, {}
    clean = _cams(model, x, y[:, None]).values[:, 0]
    label = {v: k for k, v in ATTACKS.items()} | {"noise": "random signs"}
    for attack in (how, "noise"):
        values = []
        for i, eps in enumerate(radii):
            say(f"{label[attack]}, radius {i + 1} of {len(radii)}")
            z = attacked(model, x, y, attack, eps=eps, steps=steps, p=p, top_k=top_k) if eps else x
            if of_map:
                values.append(comparison.kendall(clean, _cams(model, z, y[:, None]).values[:, 0]).cpu())
            else:
                values.append(discrepancy.proposition(model, x, z, y).discrepancy.cpu())
        found[label[attack]] = torch.stack(values)
    name, unit = ("Kendall's tau of the class's maps", TAU) if of_map else ("discrepancy D2, logit", "logit")
    return over_levels(radii, found, present, xlabel="eps, of [0, 1]", ylabel=name, unit=unit)


def explorer(p: Parameters) -> Explorer:
    """The explorer of a run: a published network on photographs first, or one's own that CAM is defined for; then those of the
    study on its data.

    Networks that are not in the cache are trained when they are first chosen.
    """

    @functools.lru_cache(maxsize=16)
    def trained(arm: str) -> nn.Module:
        return plan.model(p, arm)

    def photographed(arch: str, network: str) -> bool:
        return bool(network) or arch == subjects.PUBLISHED

    def own_network(name: str, load: Callable[[str, str], subjects.Subject] = subjects.own) -> subjects.Subject:
        found = load(name, p.device)
        if not found.head:
            raise ValueError(
                f"{name} does not end in average pooling and one linear layer, of which CAM is made, and the proposition is of "
                "CAM; give a network that ends so, such as torchvision:resnet18"
            )
        return found

    def looked(arch: str, network: str) -> Looked:
        if not photographed(arch, network):
            data = plan.evaluation_set(p)
            return Looked(trained(arch), data, data.classes, True)
        found = own_network(network) if network else published()
        return Looked(Headed(found), found.data, found.classes, found.labelled)

    def published() -> subjects.Subject:
        return subjects.published(subjects.PUBLISHED, "photographs", p.device)

    def grid(arch: str, network: str) -> tuple[float, ...]:
        return (0.0, *(RADII if photographed(arch, network) else p.eps_grid))

    def top(arch: str, network: str) -> int:
        return TOP if photographed(arch, network) else p.top_k

    def picture(seen: Looked, image: int, own: Image.Image | None) -> tuple[Tensor, Tensor, bool]:
        """An image, its class, and whether that is a label; else it is the decision."""
        number = image % len(seen.data)
        x = seen.data.images[number] if own is None else seen.data.like(own)
        x, known = x[None].to(devices.device(p.device)), own is None and seen.labelled
        return x, seen.data.labels[number][None].to(x.device) if known else decided(seen.model, x), known

    def render(arch: str, network: str, image: int, own: Image.Image | None, how: str, eps: float, steps: int) -> View:
        seen = looked(arch, network)
        x, y, known = picture(seen, image, own)
        x_new = attacked(seen.model, x, y, how, eps=eps, steps=steps, p=p, top_k=top(arch, network))
        noisy, size = beside(x, x_new, y, how, seen.model), "L2 length" if how in unforeseen.ATTACKS else "size"
        return draw(seen.model, x, x_new, y, seen.classes, known=known, noisy=noisy, size=size)

    def many(arch: str, network: str, how: str, eps: float, steps: int, **_other: Any) -> View:
        seen, count = looked(arch, network), MANY_PHOTOGRAPHS if photographed(arch, network) else MANY
        options = {"how": how, "steps": steps, "p": p, "top_k": top(arch, network), "present": eps}
        return curve(seen, count, grid(arch, network), **options)

    def seek(arch: str, network: str, image: int, how: str, eps: float, steps: int, **_other: Any) -> int:
        """The next image that is taken for something else once it is attacked; under an attack on the map, whose map keeps less
        of its order than MOVED."""
        seen = looked(arch, network)
        count = min(SHOWN, len(seen.data))
        for step in range(1, count):
            at = (image + step) % count
            say(f"image {at}")
            x, y, _ = picture(seen, at, None)
            x_new = attacked(seen.model, x, y, how, eps=eps, steps=steps, p=p, top_k=top(arch, network))
            if how in interpretation_attack.LABELS:
                a, b = (_cams(seen.model, z, y[:, None]).values[:, 0] for z in (x, x_new))
                succeeded = comparison.kendall(a, b).item() < MOVED
            else:
                succeeded = bool(decided(seen.model, x) != decided(seen.model, x_new))
            if succeeded:
                return at
        return image

    def fit(name: str, controls: dict[str, Any]) -> None:
        arch, network = controls["arch"].value, controls["network"].value
        if name in ("arch", "network"):
            data = (
                own_network(network).data if network else published().data if photographed(arch, "") else plan.evaluation_set(p)
            )
            radii = [(f"{e:.3g}", e) for e in grid(arch, network)]
            controls["own"].size = data.images.shape[-1]
            if list(controls["eps"].options) != radii:  # other images too
                controls["image"].options = widgets.numbers([data.classes[int(y)] for y in data.labels[:SHOWN]])
                controls["image"].value = FIRST if photographed(arch, network) else 0
                controls["eps"].options = radii
                controls["eps"].value = RADII[1] if photographed(arch, network) else p.eps
        controls["eps"].disabled = controls["how"].value in ("none", *unforeseen.ATTACKS)  # they have radii of their own
        controls["steps"].disabled = controls["how"].value == "none"

    menu = {"EfficientNet-Lite0, published": subjects.PUBLISHED}
    menu |= {f"{'published as' if plan.arch_of(a) else 'trained as'} {plan.label(a)}": a for a in p.arms}
    controls = {
        "arch": widgets.choice("network", menu, subjects.PUBLISHED),
        "network": widgets.OwnNetwork(lambda name: own_network(name, subjects.anew)),
        "image": widgets.numbered("image", ("",)),
        "own": widgets.Upload("upload an image", published().size),
        "how": widgets.choice("attack", ATTACKS, "pgd"),
        "eps": widgets.slider("eps, of [0, 1]", (0.0,), 0.0),
        "steps": widgets.slider("steps", (5, 10, 20, 40, 100), 10),
    }
    fit("arch", controls)
    return Explorer(p, controls, render, fit, many, seek)
