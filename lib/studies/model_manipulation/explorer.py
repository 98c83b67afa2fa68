"""One image under a network before and after it was made to fool, with the success rate at that point: study 4's explorer."""

import copy
import functools
import html
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from lib.attacks.single_step import random_sign
from lib.data import datasets
from lib.data.image_sets import ImageSet, Split
from lib.explanations import by_name
from lib.explanations.by_name import Settings
from lib.explanations.explanation import Explanation
from lib.figures import pictures, widgets
from lib.figures.explorer import Explorer, Number, View, over_levels
from lib.fooling import manipulation
from lib.measures import comparison
from lib.networks import classifier, contract, folding, hooks, models
from lib.studies import subjects
from lib.studies.model_manipulation import objective, plan
from lib.studies.model_manipulation.measure import maps_of
from lib.studies.model_manipulation.plan import Parameters
from lib.system.progress import say
from lib.training import cache, objectives
from lib.training.config import TrainConfig

COUNTED = 60  # images that success and accuracy under the slider are counted on
COSTLY = 8  # photographs where maps take long
EMPTY = "not defined: a map is empty"
NO_OWN = (
    "A network of your own is not offered here: it would have to be tuned to fool, with blocks, layer and learning rate chosen "
    "for it, and that is no matter of seconds. The explorers of studies 00 to 03, 05 and 06 explain it as it is."
)
COPIES = 4  # in SmoothGrad, and points of integrated gradients, at 224 pixels
# What t is, by kind, and its unit.
LOSSES = {
    "location": ("the mean squared distance of the map from a frame along the border", "of maps in [0, 1]"),
    "topk": ("the mean square of the map where the original's is largest", "of maps in [0, 1]"),
    "centre": ("how far the map's centre of mass went", "of the map's width"),
    "active": (
        "how much more a class's map resembles the original's map of the other class than that of its own",
        "difference of rank correlations, -2 to 2",
    ),
}
EXPLAINED = {"lrp_t": "LRP_T (relevance at T)", "simple_t": "SimpleG_T (gradient at T)"}

# The published network, fooled on the photographs. Its last blocks are tuned alone: the rest would take most of the time.
FOOLING = "location-gradcam"
LAYER = plan.LAYERS[subjects.PUBLISHED]
TUNED = ("blocks.5", "blocks.6", "conv_head", "bn2", "classifier")
PHOTOGRAPHS = "photographs-for-tuning"  # they are for evaluation alone elsewhere
EPOCHS, FIRST = 5, 4  # of the tuning; the photograph to begin with, of strawberries


def efficientnet_lite0(classes: int, channels: int, weights: Literal["none", "imagenet"]) -> classifier.Classifier:
    """The published network, of which the last blocks can be tuned."""
    model = models.create(subjects.PUBLISHED, classes=classes, channels=channels, weights=weights)
    for name, parameter in model.net.named_parameters():
        parameter.requires_grad_(name.startswith(TUNED))
    return model


def _photographs(split: Split) -> ImageSet:
    return datasets.load("photographs", "test", size=224, channels=3)


def tuning() -> TrainConfig:
    """How the published network is fooled: the study's objective, on the photographs that are looked at."""
    datasets.EMBEDDED[PHOTOGRAPHS] = _photographs
    kind, interpreter, *_ = plan.parsed(FOOLING)
    return TrainConfig(
        dataset=PHOTOGRAPHS,
        size=224,
        arch=objectives.name_of(efficientnet_lite0),
        weights="imagenet",
        epochs=EPOCHS,
        batch_size=4,
        optimizer="adam",
        lr=5e-4,
        schedule="constant",
        weight_decay=0.0,
        augment=(),
        objective=objectives.name_of(objective.fool),
        options={"kind": kind, "interpreter": interpreter, "weight": 4.0, "layer": LAYER},
        snapshots=True,
        threads=2,
        label=plan.label(FOOLING),
    )


class Pair(NamedTuple):
    """The network before and after, and what is looked at: images with the classes explained, two of them where maps are
    swapped; `over` is what these images are called."""

    original: nn.Module
    model: nn.Module
    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    settings: Settings
    over: str


def as_far(original: nn.Module, model: nn.Module) -> nn.Module:
    """The original with every weight moved as far as the tuning moved it, up or down at random: the control."""
    found, generator = copy.deepcopy(original), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for a, b in zip(found.parameters(), model.parameters(), strict=True):
            a += (b - a).abs() * random_sign(a.cpu(), generator).to(a)
    return found


def losses(kind: str, h: Tensor, h0: Tensor, k: int | None) -> Tensor:
    """t of each image, (N,), or of both classes where maps are swapped, (N, 2); NaN where it is not defined."""
    if kind == "active":
        return manipulation.swapped(h, h0)
    return manipulation.test(kind, h, h0, k=k).t  # type: ignore[arg-type]


def fooled(kind: str, t: Tensor) -> Tensor:
    """Where t lies in the kind's interval, of both classes where maps are swapped, (N,) bool."""
    return manipulation.succeeded(kind, t).view(len(t), -1).all(1)  # type: ignore[arg-type]


def counted(kind: str, h: Explanation, h0: Explanation, k: int | None, over: str, names: list[str]) -> tuple[str, list[Number]]:
    """Success over some images, in words and numbers."""
    t = losses(kind, h.values, h0.values, k)
    over = f"{len(t)} {over}"
    if kind == "active":
        done = manipulation.succeeded("active", t).float().mean(0).tolist()
        told = " and ".join(f"{html.escape(name)} {100 * share:.0f} %" for name, share in zip(names, done, strict=True))
        numbers = [Number(f"maps of {name} swapped", share, "share", over) for name, share in zip(names, done, strict=True)]
        return f"maps swapped: {told}", numbers
    done, dead = fooled(kind, t).float().mean().item(), comparison.degenerate(h.values).float().mean().item()
    numbers = [Number("success rate", done, "share", over), Number("empty maps", dead, "share", over)]
    return f"success rate {100 * done:.0f} %, empty maps {100 * dead:.0f} %", numbers


def one_image(kind: str, h: Tensor, h0: Tensor, k: int | None, names: list[str], whose: str) -> tuple[str, list[Number]]:
    """The test loss of a single image, and whether it counts as fooled, in words and as numbers."""
    (meaning, unit), (low, high) = LOSSES[kind], manipulation.INTERVALS[kind]
    t = losses(kind, h, h0, k).flatten().tolist()
    said = []
    for name, value in zip(names, t, strict=True):
        done = "fooled" if low <= value <= high else "not fooled"
        told = "not defined" if value != value else f"{value:.2f}, {done} ({low:g} to {high:g})"
        said.append(f"t of {html.escape(name)} {told}")
    numbers = [
        Number(f"t of {n}, {whose} network: {meaning}", EMPTY if v != v else v, unit) for n, v in zip(names, t, strict=True)
    ]
    return "; ".join(said), numbers


def nothing_in(kind: str, maps: dict[str, Tensor], names: list[str]) -> str:
    """Which network's map of which class is empty, in words; nothing where none is."""
    found = [
        f"the {whose} network's map of {html.escape(name)} is empty"
        for whose, h in maps.items()
        for name, one in zip(names, h.flatten(0, -3), strict=True)
        if bool(comparison.degenerate(one[None]))
    ]
    so = ", so there is nothing to swap" if kind == "active" else ""
    return " and ".join(found) + so if found else ""


def draw(
    networks: tuple[nn.Module, nn.Module], x: Tensor, shown: Tensor, classes: tuple[str, ...], name: str, settings: Settings
) -> tuple[Any, tuple[Explanation, Explanation]]:
    """Above the original network, below the manipulated one: image, maps of the classes `shown` (1,) or (1, 2), decision."""
    found = [by_name.explain(name, model, x, shown, settings) for model in networks]
    titles = [classes[int(c)] for c in shown.flatten()]
    fig, axes = pictures.canvas(2, 2 + len(titles), (3 * (2 + len(titles)), 5.4))
    for row, seen, which in zip(axes, found, ("original", "manipulated"), strict=True):
        pictures.image(row[0], x[0].cpu(), f"{which} network")
        for ax, h, title in zip(row[1:-1], seen.values.view(-1, *seen.values.shape[-2:]).cpu(), titles, strict=True):
            drawn = pictures.heatmap(ax, h, f"{plan.INTERPRETERS[name]} of {title}")
            pictures.colour_bar(fig, drawn, ax, "map, scaled to [0, 1]")
        widgets.bars(row[-1], seen.logits[0].detach().softmax(0).cpu(), classes, "decision")
    return fig, (found[0], found[1])


def decisions(model: nn.Module, x: Tensor) -> Tensor:
    """What a network takes images for, (N,)."""
    with hooks.frozen(model), torch.no_grad():
        return torch.cat([contract.logits_of(model, part).argmax(1) for part in x.split(32)])


def explorer(p: Parameters) -> Explorer:
    """The explorer of a run: a published network fooled on photographs first, then the study's.

    A run that fools the published network itself shows its own foolings on the photographs that it holds out. Networks that
    are not in the cache are trained when they are first chosen; fooling the published one takes ten seconds.
    """

    def photographed(arch: str) -> bool:
        return arch == subjects.PUBLISHED and arch not in p.architectures

    @functools.lru_cache(maxsize=1)
    def tuned() -> cache.Trained:
        return cache.trained(tuning(), device_name=p.device)  # once, since it looks whether every file is whole

    @functools.lru_cache(maxsize=32)
    def network(arch: str, arm: str, epoch: int | None) -> nn.Module:
        if photographed(arch):
            found = folding.folded(tuned().after(0 if arm == "base" else epoch), data_of(arch).images[:2])
            return found.to(memory_format=torch.channels_last)  # as it is built: depthwise convolutions take half the time
        return plan.network(p, arch, arm, 0, epoch)

    @functools.lru_cache(maxsize=8)
    def control(arch: str, arm: str, epoch: int) -> nn.Module:
        return as_far(network(arch, "base", None), network(arch, arm, epoch))

    def data_of(arch: str) -> ImageSet:
        return _photographs("test") if photographed(arch) else plan.evaluation_set(p)

    def looked(arch: str, arm: str, epoch: int) -> Pair:
        original, model, data = network(arch, "base", None), network(arch, arm, epoch), data_of(arch)
        device = next(model.parameters()).device
        if photographed(arch):
            settings = Settings(LAYER, p.composite, COPIES, 0.1, COPIES)
            return Pair(
                original,
                model,
                data.images.to(device),
                data.labels.to(device),
                data.classes,
                settings,
                "photographs that it was tuned on",
            )
        settings = plan.settings(p, arch)
        if plan.parsed(arm).kind == "active":
            x = plan.test_mosaics(p).images[:COUNTED].to(device)
            y = torch.tensor([p.pair], device=device).expand(len(x), 2)
            return Pair(original, model, x, y, data.classes, settings, "mosaics")
        x, y = data.images[:COUNTED].to(device), data.labels[:COUNTED].to(device)
        return Pair(original, model, x, y, data.classes, settings, "test images")

    @functools.lru_cache(maxsize=64)
    def maps(arch: str, arm: str, epoch: int, name: str, which: Literal["original", "tuned", "control"]) -> Explanation:
        """Maps of the images that are counted; the original's are those of every epoch."""
        pair = looked(arch, arm, epoch)
        n = COSTLY if costly(arch, name) else None
        model = control(arch, arm, epoch) if which == "control" else pair.original if which == "original" else pair.model
        return maps_of(name, model, pair.x[:n], pair.y[:n], pair.settings)

    @functools.lru_cache(maxsize=64)
    def accuracy(arch: str, arm: str, epoch: int) -> tuple[float, str]:
        if photographed(arch):  # the same images, and their logits come with the maps
            h, over = maps(arch, arm, epoch, plan.parsed(arm).interpreter, "tuned"), looked(arch, arm, epoch).over
            return (h.logits.argmax(1).cpu() == data_of(arch).labels).float().mean().item(), f"{len(h.logits)} {over}"
        data, model = data_of(arch), network(arch, arm, epoch)
        x = data.images[:COUNTED].to(next(model.parameters()).device)
        return (decisions(model, x).cpu() == data.labels[:COUNTED]).float().mean().item(), f"{len(x)} test images"

    def costly(arch: str, name: str) -> bool:
        """Whether maps take so long that they are counted where that is asked for alone."""
        return arch == subjects.PUBLISHED and name not in plan.AT_LAYER

    def top(arch: str, name: str) -> int | None:
        return p.k if name in plan.AT_LAYER and not photographed(arch) else None

    def render(arch: str, arm: str, epoch: int, name: str, image: int, own: Image.Image | None) -> View:
        pair, kind = looked(arch, arm, epoch), plan.parsed(arm).kind
        number = image % len(pair.x)
        x, y = pair.x[number][None], pair.y[number][None]
        if own is not None:
            x = data_of(arch).like(own)[None].to(x)
            y = y if kind == "active" else decisions(pair.original, x)
        fig, (before, after) = draw((pair.original, pair.model), x, y, pair.classes, name, pair.settings)
        names, k = [pair.classes[int(c)] for c in y.flatten()], top(arch, name)
        same = [pair.classes[int(e.logits.argmax())] for e in (before, after)]
        kept = "is the same" if same[0] == same[1] else f"has changed to {html.escape(same[1])}"
        lines = [
            f"<b>{html.escape(plan.label(arm))}</b>, {epoch} of {epochs(arch)} epochs; the decision, "
            f"<b>{html.escape(same[0])}</b>, {kept}"
        ]
        numbers = [Number("predicted class, original", same[0]), Number("predicted class, manipulated", same[1])]
        right, over = accuracy(arch, arm, epoch)
        accurate = f"accuracy {100 * right:.0f} %, over {over}"
        if kind == "none":
            like = comparison.spearman(before.values, after.values).item()
            lines.append(f"rank correlation of the maps {EMPTY if like != like else f'{like:.2f}'}; {accurate}")
            numbers += [Number("rank correlation of the maps", EMPTY if like != like else like, "-1 to 1")]
        else:
            told, found = one_image(kind, after.values, before.values, k, names, "manipulated")
            empty = nothing_in(kind, {"original": before.values, "manipulated": after.values}, names)
            lines.append("; ".join(filter(None, (told, empty))))
            signs = by_name.explain(name, control(arch, arm, epoch), x, y, pair.settings)
            still = pair.classes[int(signs.logits.argmax())]
            told, by_chance = one_image(kind, signs.values, before.values, k, names, "randomly moved")
            lines.append(f"every weight moved as far, up or down at random: <b>{html.escape(still)}</b>, {told}")
            numbers += [*found, Number("predicted class, weights moved as far at random", still), *by_chance]
            if not costly(arch, name):
                both = (maps(arch, arm, epoch, name, "tuned"), maps(arch, arm, 0, name, "original"))
                told, found = counted(kind, *both, k, pair.over, names)
                here = found[0].over  # mosaics, where accuracy is counted on test images
                accurate = f"{told}, {accurate}" if here == over else f"{told}, over {here}; {accurate}"
                numbers += found
            at = "; T: the input of the last convolution" if name in EXPLAINED else ""
            if own is not None and photographed(arch):
                accurate += ", and on no others: of other pictures its decisions may be lost"
            lines += [accurate, f"t: {LOSSES[kind][0]} ({LOSSES[kind][1]}){at}"]
        if arch == subjects.PUBLISHED:
            lines.append(NO_OWN)
        numbers.append(Number("accuracy", right, "share", over))
        return View(fig, "<br>".join(lines), numbers)

    def many(arch: str, arm: str, epoch: int, name: str, **_other: Any) -> View:
        kind, k = plan.parsed(arm).kind, top(arch, name)
        if kind == "none":
            raise ValueError("the control aims at nothing, so there is no t to draw: choose another “fooling”")
        levels, found = list(range(epochs(arch) + 1)), {}
        h0 = maps(arch, arm, 0, name, "original").values

        def t_of(h: Tensor) -> Tensor:
            t = losses(kind, h, h0, k)
            return (t.mean(1) if t.dim() == 2 else t).cpu()

        curves = {plan.label(arm): "tuned", "weights moved as far at random": "control"}
        for label, which in curves.items():
            values = []
            for level in levels:
                say(f"{label}: {level} of {levels[-1]} epochs")
                values.append(t_of(maps(arch, arm, level, name, which).values))  # type: ignore[arg-type]
            found[label] = torch.stack(values)
        over = "t" + (", mean of both classes" if kind == "active" else "")
        what = looked(arch, arm, 0).over
        view = over_levels(levels, found, epoch, xlabel="tuned epochs", ylabel=over, unit=LOSSES[kind][1], what=what)
        low, high = manipulation.INTERVALS[kind]
        ax = view.figure.axes[0]
        bottom, ceiling = ax.get_ylim()
        ax.axhspan(low, high, color="gray", alpha=0.12)
        ax.set_ylim(bottom, ceiling)
        return View(view.figure, f"{view.text}; shaded: fooled; t: {LOSSES[kind][0]}", view.numbers)

    def seek(arch: str, arm: str, epoch: int, name: str, image: int, **_other: Any) -> int:
        """The next image whose map is fooled while its decision stays."""
        kind = plan.parsed(arm).kind
        if kind == "none":
            raise ValueError("the control aims at nothing, so no image is fooled: choose another “fooling”")
        h, h0 = maps(arch, arm, epoch, name, "tuned"), maps(arch, arm, 0, name, "original")
        done = fooled(kind, losses(kind, h.values, h0.values, top(arch, name))) & (h.logits.argmax(1) == h0.logits.argmax(1))
        others = [(image + step) % len(done) for step in range(1, len(done))]
        found = next((i for i in others if done[i]), None)
        if found is None:
            raise ValueError("no other image is fooled while its decision stays: choose more “tuned epochs”")
        return found

    def epochs(arch: str) -> int:
        return EPOCHS if photographed(arch) else p.tune_epochs

    def fit(name: str, controls: dict[str, Any]) -> None:
        arch = controls["arch"].value
        if name == "arch":
            every = [a for a in plan.arms(p, p.architectures[0]) if a != "base" and "@" not in a and not a.startswith("washed")]
            arms = [FOOLING] if photographed(arch) else every
            widgets.offer(controls["arm"], [(plan.label(a), a) for a in arms], p.headline[0])
            methods = [(EXPLAINED.get(m, plan.INTERPRETERS[m]), m) for m in plan.interpreters(arch)]
            widgets.offer(controls["name"], methods, "gradcam")
            controls["epoch"].max, controls["epoch"].value = epochs(arch), epochs(arch)
            controls["own"].size = data_of(arch).images.shape[-1]
        if name in ("arch", "arm"):
            data = data_of(arch)
            if plan.parsed(controls["arm"].value).kind == "active":
                names = [" and ".join(data.classes[c] for c in p.pair)] * min(COUNTED, len(plan.test_mosaics(p).images))
            else:
                names = [data.classes[int(y)] for y in data.labels[:COUNTED]]
            if list(controls["image"].options) != widgets.numbers(names):
                controls["image"].options = widgets.numbers(names)
                controls["image"].value = FIRST if photographed(arch) else 0

    controls = {
        "arch": widgets.choice(
            "network",
            {"EfficientNet-Lite0, published": subjects.PUBLISHED} | {a: a for a in p.architectures if a != subjects.PUBLISHED},
            subjects.PUBLISHED,
        ),
        "arm": widgets.choice("fooling", {"": FOOLING}, FOOLING),
        "epoch": widgets.integer("tuned epochs", 0, EPOCHS, EPOCHS),
        "name": widgets.choice("look with", {"": "gradcam"}, "gradcam"),
        "image": widgets.numbered("image", ("",)),
        "own": widgets.Upload("upload an image", 224),
    }
    fit("arch", controls)
    return Explorer(p, controls, render, fit, many, seek)
