"""One image under a network before and after it was made to fool, with the success rate at that point: study 4's explorer."""

import copy
import functools
import html
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from lib.attacks.single_step import random_sign
from lib.data import datasets
from lib.data.image_sets import ImageSet
from lib.explanations import by_name
from lib.explanations.by_name import Settings
from lib.explanations.explanation import Explanation
from lib.figures import pictures, widgets
from lib.figures.explorer import Explorer, Number, View, over_levels
from lib.fooling import manipulation
from lib.measures import comparison
from lib.networks import classifier, contract, folding, hooks, models
from lib.studies import subjects
from lib.studies.model_manipulation import objective, own_networks, plan
from lib.studies.model_manipulation.measure import maps_of
from lib.studies.model_manipulation.own_networks import Own
from lib.studies.model_manipulation.plan import Parameters
from lib.system import devices
from lib.system.progress import say
from lib.training import cache, objectives
from lib.training.config import TrainConfig

COUNTED = 60  # images that success and accuracy under the slider are counted on
COSTLY = 8  # photographs where maps take long
EMPTY = "not defined: a map is empty"
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
EPOCHS, FIRST = 5, 4  # of the tuning; the photograph to begin with, of strawberries
FOOLED = tuple(f"location-{name}" for name in ("gradcam", "lrp_t", "simple_t"))  # what is offered for a network of one's own
Whose = str | Own  # a network by its name in the menu, or one's own


def efficientnet_lite0(classes: int, channels: int, weights: Literal["none", "imagenet"]) -> classifier.Classifier:
    """The published network, of which the last blocks can be tuned."""
    model = models.create(subjects.PUBLISHED, classes=classes, channels=channels, weights=weights)
    for name, parameter in model.net.named_parameters():
        parameter.requires_grad_(name.startswith(TUNED))
    return model


@functools.lru_cache(maxsize=1)
def _photographs() -> ImageSet:
    """They are for evaluation alone elsewhere."""
    return datasets.load("photographs", "test", size=224, channels=3)


def tuning(arm: str = FOOLING, own: Own | None = None, composite: str = "heo") -> TrainConfig:
    """How the published network is fooled, or one's own: the study's objective, on the photographs that are looked at."""
    datasets.EMBEDDED[own_networks.DATASET] = lambda _split: _photographs()
    kind, interpreter, *_ = plan.parsed(arm)
    if own:
        whose = own.config
    else:
        published = {"arch": objectives.name_of(efficientnet_lite0), "weights": "imagenet", "lr": 5e-4}
        whose = {"dataset": own_networks.DATASET, "size": 224, **published}
    options = {"kind": kind, "interpreter": interpreter, "weight": own_networks.WEIGHT, "layer": own.layer if own else LAYER}
    if interpreter == "lrp_t":
        options["composite"] = composite
    return TrainConfig(
        **whose,
        epochs=own.epochs if own else EPOCHS,
        batch_size=own_networks.BATCH,
        optimizer="adam",
        schedule="constant",
        weight_decay=0.0,
        augment=(),
        objective=objectives.name_of(objective.fool),
        options=options,
        snapshots=True,
        threads=1,  # two are a third faster alone, and wait for each other by the second where the machine has other work
        label=plan.label(arm),
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


def about(own: Own) -> list[str]:
    """What has to be said of a network of one's own: what it was tuned for, and which interpreters it has no rules for."""
    lines = []
    if not own.labelled:
        lines.append("it knows other classes than the photographs have: what is explained, and kept, is what it decided for")
    for why in dict.fromkeys(own.without.values()):
        names = " and ".join(plan.INTERPRETERS[i] for i, reason in own.without.items() if reason == why)
        lines.append(f"without {html.escape(names)}: {html.escape(why)}")
    return lines


class Looked:
    """What the explorer of a run looks at: networks before and after, the images that are counted, and maps of these; kept for
    as long as they may be looked at again."""

    def __init__(self, p: Parameters) -> None:
        self.p = p
        self.tuned = functools.lru_cache(maxsize=2)(self._tuned)  # the cache looks each time whether its files are whole
        self.network = functools.lru_cache(maxsize=8)(self._network)
        self.control = functools.lru_cache(maxsize=4)(self._control)
        self.maps = functools.lru_cache(maxsize=64)(self._maps)
        self.accuracy = functools.lru_cache(maxsize=64)(self._accuracy)

    def own(self, name: str, load: Callable[..., Own] = own_networks.ready) -> Own:
        through = tuple(plan.parsed(arm).interpreter for arm in FOOLED)
        return load(name, self.p.device, through, tuple(plan.INTERPRETERS), self.settings(LAYER))

    def settings(self, layer: str) -> Settings:
        return Settings(layer, self.p.composite, COPIES, 0.1, COPIES)

    def whose(self, arch: str, network: str) -> Whose:
        return self.own(network) if network else arch

    def photographed(self, who: Whose) -> bool:
        return isinstance(who, Own) or (who == subjects.PUBLISHED and who not in self.p.architectures)

    def epochs(self, who: Whose) -> int:
        return who.epochs if isinstance(who, Own) else EPOCHS if self.photographed(who) else self.p.tune_epochs

    def costly(self, who: Whose, name: str) -> bool:
        """Whether maps take so long that they are counted where that is asked for alone."""
        return (isinstance(who, Own) or who == subjects.PUBLISHED) and name not in plan.AT_LAYER

    def top(self, who: Whose, name: str) -> int | None:
        return self.p.k if name in plan.AT_LAYER and not self.photographed(who) else None

    def data_of(self, who: Whose) -> ImageSet:
        if isinstance(who, Own):
            return who.data
        return _photographs() if self.photographed(who) else plan.evaluation_set(self.p)

    def looked(self, who: Whose, arm: str, epoch: int) -> Pair:
        original, model, data = self.network(who, "base", None), self.network(who, arm, epoch), self.data_of(who)
        device = next(model.parameters()).device
        if self.photographed(who):
            x, y = data.images.to(device), data.labels.to(device)
            at = self.settings(who.layer if isinstance(who, Own) else LAYER)
            return Pair(original, model, x, y, data.classes, at, "photographs that it was tuned on")
        at = plan.settings(self.p, who)
        if plan.parsed(arm).kind == "active":
            x = plan.test_mosaics(self.p).images[:COUNTED].to(device)
            y = torch.tensor([self.p.pair], device=device).expand(len(x), 2)
            return Pair(original, model, x, y, data.classes, at, "mosaics")
        x, y = data.images[:COUNTED].to(device), data.labels[:COUNTED].to(device)
        return Pair(original, model, x, y, data.classes, at, "test images")

    def _tuned(self, who: Whose, arm: str) -> cache.Trained:
        """Says how far it is in the words of the menus."""
        own = who if isinstance(who, Own) else None

        def told(row: dict[str, float]) -> None:
            done, name = int(row["epoch"]), own.name.rpartition("/")[2] if own else "EfficientNet-Lite0"
            left = row["seconds"] * (self.epochs(who) - done)
            say(f"{plan.label(arm)}, {name}: {done} of {self.epochs(who)} epochs, {left:.0f} s left")

        return cache.trained(tuning(arm, own, self.p.composite), device_name=self.p.device, on_epoch=told)

    def _network(self, who: Whose, arm: str, epoch: int | None) -> nn.Module:
        if isinstance(who, Own):
            return who.subject.model if arm == "base" else self.tuned(who, arm).after(epoch).requires_grad_(False)
        if self.photographed(who):
            found = self.tuned(who, FOOLING).after(0 if arm == "base" else epoch)
            found = folding.folded(found, self.data_of(who).images[:2].to(devices.device(self.p.device)))
            return found.to(memory_format=torch.channels_last)  # as it is built: depthwise convolutions take half the time
        return plan.model(self.p, who, arm, 0, epoch)

    def _control(self, who: Whose, arm: str, epoch: int) -> nn.Module:
        return as_far(self.network(who, "base", None), self.network(who, arm, epoch))

    def _maps(self, who: Whose, arm: str, epoch: int, name: str, which: Literal["original", "tuned", "control"]) -> Explanation:
        """Maps of the images that are counted; the original's are those of every epoch."""
        pair = self.looked(who, arm, epoch)
        n = COSTLY if self.costly(who, name) else None
        model = self.control(who, arm, epoch) if which == "control" else pair.original if which == "original" else pair.model
        return maps_of(name, model, pair.x[:n], pair.y[:n], pair.settings)

    def _accuracy(self, who: Whose, arm: str, epoch: int) -> tuple[float, str]:
        if self.photographed(who):  # the same images, and their logits come with the maps
            h, over = self.maps(who, arm, epoch, plan.parsed(arm).interpreter, "tuned"), self.looked(who, arm, epoch).over
            return (h.logits.argmax(1).cpu() == self.data_of(who).labels).float().mean().item(), f"{len(h.logits)} {over}"
        data, model = self.data_of(who), self.network(who, arm, epoch)
        x = data.images[:COUNTED].to(next(model.parameters()).device)
        return (decisions(model, x).cpu() == data.labels[:COUNTED]).float().mean().item(), f"{len(x)} test images"


def explorer(p: Parameters) -> Explorer:
    """The explorer of a run: a published network fooled on photographs first, or one's own; then the study's.

    A run that fools the published network itself shows its own foolings on the photographs that it holds out. Networks that
    are not in the cache are trained when they are first chosen; fooling the published one takes five seconds, which is said
    while it is done.
    """
    seen = Looked(p)

    def render(arch: str, network: str, arm: str, epoch: int, name: str, image: int, own: Image.Image | None) -> View:
        who = seen.whose(arch, network)
        pair, kind = seen.looked(who, arm, epoch), plan.parsed(arm).kind
        number = image % len(pair.x)
        x, y = pair.x[number][None], pair.y[number][None]
        if own is not None:
            x = seen.data_of(who).like(own)[None].to(x)
            y = y if kind == "active" else decisions(pair.original, x)
        fig, (before, after) = draw((pair.original, pair.model), x, y, pair.classes, name, pair.settings)
        names, k = [pair.classes[int(c)] for c in y.flatten()], seen.top(who, name)
        same = [pair.classes[int(e.logits.argmax())] for e in (before, after)]
        kept = "is the same" if same[0] == same[1] else f"has changed to {html.escape(same[1])}"
        lines = [
            f"<b>{html.escape(plan.label(arm))}</b>, {epoch} of {seen.epochs(who)} epochs; the decision, "
            f"<b>{html.escape(same[0])}</b>, {kept}"
        ]
        numbers = [Number("predicted class, original", same[0]), Number("predicted class, manipulated", same[1])]
        right, over = seen.accuracy(who, arm, epoch)
        what = "decisions kept" if isinstance(who, Own) and not who.labelled else "accuracy"
        accurate = f"{what} {100 * right:.0f} %, over {over}"
        if kind == "none":
            like = comparison.spearman(before.values, after.values).item()
            lines.append(f"rank correlation of the maps {EMPTY if like != like else f'{like:.2f}'}; {accurate}")
            numbers += [Number("rank correlation of the maps", EMPTY if like != like else like, "-1 to 1")]
        else:
            told, found = one_image(kind, after.values, before.values, k, names, "manipulated")
            empty = nothing_in(kind, {"original": before.values, "manipulated": after.values}, names)
            lines.append("; ".join(filter(None, (told, empty))))
            signs = by_name.explain(name, seen.control(who, arm, epoch), x, y, pair.settings)
            still = pair.classes[int(signs.logits.argmax())]
            told, by_chance = one_image(kind, signs.values, before.values, k, names, "randomly moved")
            lines.append(f"every weight moved as far, up or down at random: <b>{html.escape(still)}</b>, {told}")
            numbers += [*found, Number("predicted class, weights moved as far at random", still), *by_chance]
            if not seen.costly(who, name):
                both = (seen.maps(who, arm, epoch, name, "tuned"), seen.maps(who, arm, 0, name, "original"))
                told, found = counted(kind, *both, k, pair.over, names)
                here = found[0].over  # mosaics, where accuracy is counted on test images
                accurate = f"{told}, {accurate}" if here == over else f"{told}, over {here}; {accurate}"
                numbers += found
            place = who.place if isinstance(who, Own) else "the input of the last convolution"
            stands = f"; T: {html.escape(place)}" if name in EXPLAINED or isinstance(who, Own) else ""
            if own is not None and seen.photographed(who):
                accurate += ", and on no others: of other pictures its decisions may be lost"
            lines += [accurate, f"t: {LOSSES[kind][0]} ({LOSSES[kind][1]}){stands}"]
        if isinstance(who, Own):
            lines += about(who)
            numbers += [Number("layer of the maps", who.layer, over=pair.over)]
            numbers += [Number("learning rate", who.rate, "of a step of Adam", over=pair.over)]
        numbers.append(Number(what, right, "share", over))
        return View(fig, "<br>".join(lines), numbers)

    def many(arch: str, network: str, arm: str, epoch: int, name: str, **_other: Any) -> View:
        who = seen.whose(arch, network)
        kind, k = plan.parsed(arm).kind, seen.top(who, name)
        if kind == "none":
            raise ValueError("the control aims at nothing, so there is no t to draw: choose another “fooling”")
        levels, found = list(range(seen.epochs(who) + 1)), {}
        h0 = seen.maps(who, arm, 0, name, "original").values

        def t_of(h: Tensor) -> Tensor:
            t = losses(kind, h, h0, k)
            return (t.mean(1) if t.dim() == 2 else t).cpu()

        curves = {plan.label(arm): "tuned", "weights moved as far at random": "control"}
        for label, which in curves.items():
            values = []
            for level in levels:
                say(f"{label}: {level} of {levels[-1]} epochs")
                values.append(t_of(seen.maps(who, arm, level, name, which).values))  # type: ignore[arg-type]
            found[label] = torch.stack(values)
        over = "t" + (", mean of both classes" if kind == "active" else "")
        what = seen.looked(who, arm, 0).over
        view = over_levels(levels, found, epoch, xlabel="tuned epochs", ylabel=over, unit=LOSSES[kind][1], what=what)
        low, high = manipulation.INTERVALS[kind]
        ax = view.figure.axes[0]
        bottom, ceiling = ax.get_ylim()
        ax.axhspan(low, high, color="gray", alpha=0.12)
        ax.set_ylim(bottom, ceiling)
        return View(view.figure, f"{view.text}; shaded: fooled; t: {LOSSES[kind][0]}", view.numbers)

    def seek(arch: str, network: str, arm: str, epoch: int, name: str, image: int, **_other: Any) -> int:
        """The next image whose map is fooled while its decision stays."""
        who = seen.whose(arch, network)
        kind = plan.parsed(arm).kind
        if kind == "none":
            raise ValueError("the control aims at nothing, so no image is fooled: choose another “fooling”")
        h, h0 = seen.maps(who, arm, epoch, name, "tuned"), seen.maps(who, arm, 0, name, "original")
        done = fooled(kind, losses(kind, h.values, h0.values, seen.top(who, name))) & (
            h.logits.argmax(1) == h0.logits.argmax(1)
        )
        others = [(image + step) % len(done) for step in range(1, len(done))]
        found = next((i for i in others if done[i]), None)
        if found is None:
            raise ValueError("no other image is fooled while its decision stays: choose more “tuned epochs”")
        return found

    def fit(name: str, controls: dict[str, Any]) -> None:
        who = seen.whose(controls["arch"].value, controls["network"].value)
        if name in ("arch", "network"):
            every = [a for a in plan.arms(p, p.architectures[0]) if a != "base" and "@" not in a and not a.startswith("washed")]
            if isinstance(who, Own):
                arms, methods = [a for a in FOOLED if plan.parsed(a).interpreter in who.fooled], who.seen
            else:
                arms, methods = [FOOLING] if seen.photographed(who) else every, plan.interpreters(who)
            first = FOOLING if seen.photographed(who) else p.headline[0]
            widgets.offer(controls["arm"], [(plan.label(a), a) for a in arms], first)
            widgets.offer(controls["name"], [(EXPLAINED.get(m, plan.INTERPRETERS[m]), m) for m in methods], "gradcam")
            controls["epoch"].max, controls["epoch"].value = seen.epochs(who), seen.epochs(who)
            controls["own"].size = seen.data_of(who).images.shape[-1]
        if name in ("arch", "network", "arm"):
            data = who.subject.data if isinstance(who, Own) else seen.data_of(who)  # what photographs show, whatever it knows
            if plan.parsed(controls["arm"].value).kind == "active":
                names = [" and ".join(data.classes[c] for c in p.pair)] * min(COUNTED, len(plan.test_mosaics(p).images))
            else:
                names = [data.classes[int(y)] for y in data.labels[:COUNTED]]
            if list(controls["image"].options) != widgets.numbers(names):
                controls["image"].options = widgets.numbers(names)
                controls["image"].value = FIRST if seen.photographed(who) else 0

    controls = {
        "arch": widgets.choice(
            "network",
            {"EfficientNet-Lite0, published": subjects.PUBLISHED} | {a: a for a in p.architectures if a != subjects.PUBLISHED},
            subjects.PUBLISHED,
        ),
        "network": widgets.OwnNetwork(lambda name: seen.own(name, own_networks.anew)),
        "arm": widgets.choice("fooling", {"": FOOLING}, FOOLING),
        "epoch": widgets.integer("tuned epochs", 0, EPOCHS, EPOCHS),
        "name": widgets.choice("look with", {"": "gradcam"}, "gradcam"),
        "image": widgets.numbered("image", ("",)),
        "own": widgets.Upload("upload an image", 224),
    }
    fit("arch", controls)
    return Explorer(p, controls, render, fit, many, seek)
