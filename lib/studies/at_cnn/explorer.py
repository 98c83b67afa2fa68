"""One image under a change and an attack, as one or two networks see it: the explorer of 02-at-cnn."""

import functools
import html
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from lib.attacks import by_name as attacks
from lib.data import images, styles, transforms
from lib.data.image_sets import ImageSet
from lib.explanations import by_name
from lib.explanations.by_name import Settings
from lib.figures import pictures, widgets
from lib.figures.explorer import Explorer, Number, View, over_levels
from lib.measures import appearance
from lib.networks import classifier, contract, hooks
from lib.networks.style import StyleNet, stylize
from lib.studies import subjects
from lib.studies.at_cnn import measure, plan
from lib.studies.at_cnn.plan import Parameters
from lib.system import devices
from lib.system.progress import say

# What a change leaves and takes, and the controls that it listens to.
CHANGES = {
    "none": ("the image as it is", ()),
    "saturation": ("saturation p = {p_level:g}: 2 changes nothing, more leaves edges alone, less leaves grey", ("p_level",)),
    "patch shuffle": ("{k} × {k} pieces in random order: textures stay, outlines do not", ("k",)),
    "style (AdaIN)": (
        "painted in another image's style, strength α = {alpha:g} of 1: outlines stay, textures do not",
        ("style", "alpha"),
    ),
    "Fourier amplitude of the style": (
        "another image's amplitude at each frequency, its own phase: edges stay in place, textures do not",
        ("style",),
    ),
}
TRANSFORMS = tuple(CHANGES)
MAIN = {  # the control that says how strong a change is, and what it is called
    "saturation": ("p_level", "saturation p"),
    "patch shuffle": ("k", "pieces k × k"),
    "style (AdaIN)": ("alpha", "strength α of the style"),
}
STYLES = 24  # held-out styles to choose from
SHOWN = 100  # images to choose from
PIECES, MOST_PIECES = 4, 8  # a side, to begin with and at most
STEPS = 10  # of PGD
RADII = (0.5, 1.0, 2.0, 4.0)  # of 255, on photographs, whose networks give way sooner
COPIES = 4  # in SmoothGrad at 224 pixels, so that a map takes a third of a second
MANY, MANY_PHOTOGRAPHS = 40, 8  # images that a curve under attack is over
FIRST = 1  # the first photograph that is recognised in 4 × 4 pieces, and not by its edges alone (p = 1024)
FIRST_TRAINED = 2  # the first image of `shapes` that fools the standard network of laptop's profile at 4/255, and no other
EDGES = "-1 to 1: rank correlation of map and edges of the image"
FLAT = "not defined: map or image is flat"


class Seen(NamedTuple):
    """A network by name, an image and what a change makes of it, (1, C, H, W), its label where that is known, the classes."""

    name: str
    model: classifier.Classifier
    x: Tensor
    x_new: Tensor
    label: int | None
    classes: tuple[str, ...]


class Subject(NamedTuple):
    """A network by name, and the images beside it; their labels are numbers of `classes` where `labelled`."""

    name: str
    model: classifier.Classifier
    data: ImageSet
    classes: tuple[str, ...]
    labelled: bool


def transformed(
    x: Tensor,
    how: str,
    *,
    p_level: float,
    k: int,
    keys: Sequence[int],
    style: Tensor,
    alpha: float,
    painter: StyleNet | None = None,
) -> Tensor:
    """One of TRANSFORMS on images (N, C, H, W) with the numbers `keys`; `painter` paints styles (1 or N, 3, H, W)."""
    if how == "none":
        return x
    if how == "saturation":
        return transforms.saturation(x, p_level)
    if how == "patch shuffle":
        return transforms.patch_shuffle(x, k, keys)
    if how == "style (AdaIN)" and painter is not None:
        return stylize(painter, x, style, alpha=alpha)
    if how == "Fourier amplitude of the style":
        style = style if x.shape[1] == style.shape[1] else images.luma(style)
        return transforms.amplitude_swap(x, style.expand(len(x), -1, -1, -1))
    raise ValueError(f"unknown transformation {how!r}; choose one of {', '.join(TRANSFORMS)}")


def probabilities(model: torch.nn.Module, x: Tensor) -> Tensor:
    """Of all classes, (N, classes)."""
    with hooks.frozen(model), torch.no_grad():
        return contract.logits_of(model, x).softmax(1)


def attacked(seen: Seen, eps: float, attack: str = "pgd") -> Tensor:
    """The changed image after an attack of the network on itself, away from the label or else from its decision."""
    if not eps:
        return seen.x_new
    label = probabilities(seen.model, seen.x).argmax(1) if seen.label is None else seen.label
    return attacks.find(attack)(seen.model, seen.x_new, label, eps=eps, steps=STEPS).x_adv


def draw(rows: Sequence[Seen], *, eps: float, method: str, settings: Settings, change: str = "") -> View:
    """A row a network: the image and its map, the image that it is shown (attacked by itself where eps > 0) and its map, its
    decision; and the numbers, random signs of the same size beside them. `change` says in a line what was done to the image.

    The class explained is the label, or where none is known the network's own decision on the image as it was.
    """
    fig, axes = pictures.canvas(len(rows), 5, (12, 2.6 * len(rows) + 0.3))
    numbers: list[Number] = []
    told = [_one(fig, row, seen, numbers, eps, method, settings) for row, seen in zip(axes, rows, strict=True)]
    if eps:
        change += (
            f"; then each network's own attack, PGD of {STEPS} steps, eps {255 * eps:g} of 255 (largest change of a pixel)"
        )
    told.append(f"Shown: {html.escape(change.removeprefix('; '))}. Edge agreement: {EDGES}.")
    return View(fig, "<br>".join(told), numbers)


def _one(fig: Any, row: Any, seen: Seen, numbers: list[Number], eps: float, method: str, settings: Settings) -> str:
    """Draw one network's row; its numbers are added, and what is said of it is returned."""
    name, model, classes = seen.name, seen.model, seen.classes
    shown = attacked(seen, eps)
    before, after = (probabilities(model, z)[0].cpu() for z in (seen.x, shown))
    of = int(before.argmax()) if seen.label is None else seen.label

    def looks(z: Tensor) -> tuple[Tensor, float, float]:
        values = by_name.raw(method, model, z, of, settings).values
        sharp = appearance.sensitivity(values)
        edges = appearance.edge_agreement(values.abs().sum(1), z).item()
        return sharp[0], edges, appearance.total_variation(sharp).item()

    first = looks(seen.x)
    last = first if shown is seen.x else looks(shown)
    label = by_name.find(method).label
    pictures.image(row[0], seen.x[0].cpu(), "image" if seen.label is None else classes[seen.label])
    pictures.heatmap(row[1], first[0], label)
    pictures.image(row[2], shown[0].cpu(), "what it is shown")
    drawn = pictures.heatmap(row[3], last[0], label)
    pictures.colour_bar(fig, drawn, row[3], "sensitivity")
    widgets.bars(row[4], after, classes, "decision")
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
    decisions = [classes[int(z.argmax())] for z in (before, after)]
    change = float((shown - seen.x_new).abs().max())
    for when, decision, z, (_, edges, variation) in zip(
        ("as it is", "shown"), decisions, (before, after), (first, last), strict=True
    ):
        numbers += [
            Number(f"{name}: predicted class, {when}", decision),
            Number(f"{name}: probability of {classes[of]}, {when}", float(z[of]), "0 to 1"),
            Number(f"{name}: edge agreement of the map, {when}", _defined(edges), EDGES),
            Number(f"{name}: total variation of the map, {when}", _defined(variation), "of a map in [0, 1]; 2: a chessboard"),
        ]
    numbers += [Number(f"{name}: largest change of a pixel by the attack", change, "of [0, 1]")]
    by_chance = ""
    if eps:
        noisy = attacked(seen, eps, "noise")
        z, (_, edges, _) = probabilities(model, noisy)[0].cpu(), looks(noisy)
        numbers += [
            Number(f"{name}: predicted class under random signs of the same size", classes[int(z.argmax())]),
            Number(f"{name}: probability of {classes[of]} under random signs of the same size", float(z[of]), "0 to 1"),
            Number(f"{name}: edge agreement under random signs of the same size", _defined(edges), EDGES),
        ]
        by_chance = f"; random signs of the same size: <b>{html.escape(classes[int(z.argmax())])}</b>, {_said(edges)}"
    return (
        f"{html.escape(name)}: <b>{html.escape(decisions[0])}</b> as it is, <b>{html.escape(decisions[1])}</b> shown; "
        f"probability of {html.escape(classes[of])} {before[of]:.2f} and {after[of]:.2f}, "
        f"edge agreement of the map {_said(first[1])} and {_said(last[1])}{by_chance}"
    )


def _defined(value: float) -> float | str:
    return FLAT if math.isnan(value) else value


def _said(value: float) -> str:
    return FLAT if math.isnan(value) else f"{value:.2f}"


def curve(
    subjects_: Sequence[Subject], change: Any, levels: Sequence[float], count: int, *, over: str, eps: float, present: float
) -> View:
    """The probability that each network gives the class of `count` images, over levels of a change without an attack, or where
    eps > 0 over its radii, under PGD and under random signs.

    `change(x, data, level)` makes images (N, C, H, W) of the first ones of a data set. The class is the label, or where none is
    known the decision on the image as it is.
    """
    found = {}
    for name, model, data, _, labelled in subjects_:
        where = next(model.parameters()).device
        x, y = data.images[:count].to(where), data.labels[:count].to(where)
        y = y if labelled else probabilities(model, x).argmax(1)
        for attack in ("pgd", "noise") if eps else ("none",):
            label = f"{name}, {attacks.find(attack).label}" if eps else name
            values = []
            for i, level in enumerate(levels):
                say(f"{label}: level {i + 1} of {len(levels)}")
                z = change(x, data, None if eps else level)
                if eps and level:
                    z = attacks.find(attack)(model, z, y, eps=level / 255, steps=STEPS).x_adv
                values.append(probabilities(model, z).gather(1, y[:, None])[:, 0].cpu())
            found[label] = torch.stack(values)
    return over_levels(levels, found, present, xlabel=over, ylabel="probability of the image's class", unit="0 to 1")


def explorer(p: Parameters) -> Explorer:
    """The explorer of a run: a published network on photographs first, one's own beside it; then the study's networks on its
    data, the standard one beside one that was trained on attacks.

    Networks that are not in the cache are trained when they are first chosen.
    """

    @functools.lru_cache(maxsize=8)
    def trained(arm: str) -> classifier.Classifier:
        return plan.model(p, arm)

    def photographed(arch: str, network: str) -> bool:
        return bool(network) or arch == subjects.PUBLISHED

    def data_of(arch: str, network: str) -> ImageSet:
        """The images that are chosen from; an own network sees the same in the size that it takes."""
        return published().data if photographed(arch, network) else plan.evaluation_set(p)

    def published() -> subjects.Subject:
        return subjects.published(subjects.PUBLISHED, "photographs", p.device)

    def looked(arch: str, network: str) -> list[Subject]:
        if not photographed(arch, network):
            data = plan.evaluation_set(p)
            return [Subject(plan.label(a), trained(a), data, data.classes, True) for a in ("standard", arch)]
        first = published()
        found = [Subject("EfficientNet-Lite0", first.model, first.data, first.classes, True)]
        if network:
            own = subjects.own(network, p.device)
            found.append(Subject(network.rpartition("/")[2], own.model, own.data, own.classes, own.labelled))
        return found

    def paintings(data: ImageSet, arch: str, network: str) -> Any:
        """What lends style and amplitude: the study's held-out styles; to photographs, other photographs."""
        return data.images if photographed(arch, network) else styles.load(p.style_source, "test", p.size)

    def changed(x: Tensor, keys: Sequence[int], data: ImageSet, arch: str, network: str, chosen: dict[str, Any]) -> Tensor:
        lent = paintings(data, arch, network)
        style = lent[torch.tensor([chosen["style"] % len(lent)])].to(x.device)
        painter = measure.painter(p) if chosen["how"] == "style (AdaIN)" else None
        return transformed(x, **chosen | {"style": style, "keys": keys, "painter": painter})

    def settings(arch: str, network: str) -> Settings:
        found = measure.settings(p)
        return found._replace(n=min(p.smooth_n, COPIES), steps=2 * COPIES) if photographed(arch, network) else found

    def seen(arch: str, network: str, image: int, own: Image.Image | None, chosen: dict[str, Any]) -> list[Seen]:
        rows = []
        for name, model, data, classes, labelled in looked(arch, network):
            number = image % len(data)
            if own is None:
                x, label = data.images[number], int(data.labels[number]) if labelled else None
            else:
                x, label = data.like(own), None
            x = x[None].to(devices.device(p.device))
            x_new = changed(x, [number if own is None else 0], data, arch, network, chosen)
            rows.append(Seen(name, model, x, x_new, label, classes))
        return rows

    def render(
        arch: str,
        network: str,
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
        chosen = {"how": how, "p_level": p_level, "k": k, "style": style, "alpha": alpha}
        line = CHANGES[how][0].format(**chosen)
        rows = seen(arch, network, image, own, chosen)
        return draw(rows, eps=eps, method=method, settings=settings(arch, network), change=line)

    def many(arch: str, network: str, eps: float, own: Any, image: int, method: str, **chosen: Any) -> View:
        """Over the levels of the change; of an attack, or where the change has none, over radii."""
        how, photographs = chosen["how"], photographed(arch, network)
        main = MAIN.get(how)

        def change(x: Tensor, data: ImageSet, level: float | None) -> Tensor:
            given = chosen if level is None else chosen | {main[0]: level}
            return changed(x, range(len(x)), data, arch, network, given)

        if main is None or eps:
            count = MANY_PHOTOGRAPHS if photographs else MANY
            levels = (0.0, *(RADII if photographs else p.robust_eps))
            over = "eps of 255, L∞" + ("" if how == "none" else f", after the change “{how}”")
            return curve(looked(arch, network), change, levels, count, over=over, eps=1.0, present=255 * eps)
        options = {"over": main[1], "eps": 0.0, "present": chosen[main[0]]}
        levels = pieces(arch, network) if main[0] == "k" else grids[main[0]]
        view = curve(looked(arch, network), change, levels, SHOWN, **options)
        if how == "saturation":
            view.figure.axes[0].set_xscale("log")
        return view

    def seek(arch: str, network: str, image: int, eps: float, own: Any, method: str, **chosen: Any) -> int:
        """The next image that some network takes for something else once it is changed and attacked."""
        count = min(SHOWN, len(data_of(arch, network)))
        for step in range(1, count):
            at = (image + step) % count
            say(f"image {at}")
            for one in seen(arch, network, at, None, chosen):
                before, after = (probabilities(one.model, z).argmax(1) for z in (one.x, attacked(one, eps)))
                if bool(before != after):
                    return at
        return image

    def pieces(arch: str, network: str) -> list[int]:
        """Into how many pieces a side the images of all networks in view can be cut, equal ones."""
        sizes = [published().size if photographed(arch, network) else p.size]
        sizes += [subjects.own(network, p.device).size] if network else []
        return [k for k in sorted({*grids["k"], *range(1, MOST_PIECES + 1)}) if math.gcd(*sizes) % k == 0]

    def fit(name: str, controls: dict[str, Any]) -> None:
        arch, network = controls["arch"].value, controls["network"].value
        if name in ("arch", "network"):
            photographs, cut = photographed(arch, network), pieces(arch, network)
            fit_images(controls, data_of(arch, network), photographs, len(paintings(data_of(arch, network), arch, network)))
            without = ("style (AdaIN)",) * photographs + ("patch shuffle",) * (len(cut) < 2)
            widgets.offer(controls["how"], [t for t in TRANSFORMS if t not in without])
            widgets.offer(controls["k"], [(f"{k}", k) for k in cut], cut[-1])
            controls["own"].size = subjects.own(network, p.device).size if network else data_of(arch, network).images.shape[-1]
            methods = measure.methods(subjects.PUBLISHED if photographs else p.arch)
            widgets.offer(controls["method"], list(by_name.METHODS.menu(*methods).items()))
        for slider in ("p_level", "k", "style", "alpha"):
            controls[slider].disabled = slider not in CHANGES[controls["how"].value][1]

    def fit_images(controls: dict[str, Any], data: ImageSet, photographs: bool, lent: int) -> None:
        names = widgets.numbers([data.classes[int(y)] for y in data.labels[:SHOWN]])
        if list(controls["image"].options) == names:
            return
        controls["image"].options = names
        controls["style"].max = min(STYLES, lent) - 1
        controls["how"].options = TRANSFORMS
        grid = (0.0, *(RADII if photographs else p.robust_eps))
        controls["eps"].options = [(f"{e:g}/255", e / 255) for e in grid]
        begin = (FIRST, "patch shuffle", 0) if photographs else (FIRST_TRAINED % len(names), "none", len(grid) // 2)
        controls["image"].value, controls["how"].value, controls["eps"].index = begin

    grids = {
        "p_level": sorted({*p.saturation, 2.0}),
        "k": sorted({1, *p.shuffle} | ({PIECES} if p.size % PIECES == 0 else set())),
        "alpha": sorted({0.0, 0.25, 0.5, 0.75, 1.0, p.alpha}),
    }
    menu = {"EfficientNet-Lite0, published": subjects.PUBLISHED}
    menu |= {f"standard beside {plan.label(a)}": a for a in p.arms if a != "standard"}
    controls = {
        "arch": widgets.choice("network", menu, subjects.PUBLISHED),
        "network": widgets.OwnNetwork(lambda name: subjects.anew(name, p.device)),
        "image": widgets.numbered("image", ("",)),
        "own": widgets.Upload("upload an image", published().size),
        "how": widgets.choice("change", TRANSFORMS, "patch shuffle"),
        "p_level": widgets.slider("saturation p", grids["p_level"], max(p.saturation)),
        "k": widgets.slider("pieces k × k", grids["k"], PIECES if PIECES in grids["k"] else p.shuffle[-1]),
        "style": widgets.integer("style", 0, STYLES - 1),
        "alpha": widgets.slider("strength α", grids["alpha"], p.alpha),
        "eps": widgets.slider("PGD eps, L∞", (0.0,), 0.0),
        "method": widgets.choice("explain by", by_name.METHODS.menu(*measure.methods(p.arch)), "smoothgrad"),
    }
    fit("arch", controls)
    return Explorer(p, controls, render, fit, many, seek)
