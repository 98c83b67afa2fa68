"""One image's map, what the curriculum makes of it, and what a student says of the result: the explorer of study 5."""

import functools
import html
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from lib.attacks import single_step
from lib.data.image_sets import ImageSet
from lib.explanations import by_name
from lib.figures import pictures, widgets
from lib.figures.explorer import Explorer, Number, View, over_levels
from lib.networks import classifier, contract, hooks
from lib.studies import subjects
from lib.studies.saliency_adversarial_training import maps, objective, plan
from lib.studies.saliency_adversarial_training.plan import Parameters
from lib.system import devices
from lib.system.progress import say

WAYS = {"sign": "sign", "above the median": "median", "above the mean": "mean", "scaled to [0, 1]": "minmax"}
ALPHAS = (0.001, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
RADII, BEGIN = (0.5, 1.0, 2.0, 4.0, 8.0), 2.0  # eps0, of 255, on photographs, whose networks give way sooner
COPIES = 4  # in SmoothGrad, and points of integrated gradients, at 224 pixels, so that a map takes a third of a second
ITSELF = "itself"  # in place of a teacher
SHOWN = 100  # images to choose from
MANY, MANY_PHOTOGRAPHS = 60, 22  # images that the curve is over
FIRST = 4  # the first photograph, of strawberries, whose decision goes to something that is no relative of it
COSINE = "-1 to 1; 1: the same direction, 0: none in common"


class Looked(NamedTuple):
    """A student, the images beside it, what its classes are called, and whether the images' labels are among them."""

    model: classifier.Classifier
    data: ImageSet
    classes: tuple[str, ...]
    labelled: bool


def strength(values: Tensor) -> Tensor:
    """A signed map of one image summed over channels, divided by its largest magnitude, (H, W)."""
    flat = values.sum(0)
    return flat / flat.abs().amax().clamp_min(1e-12)


def probabilities(model: torch.nn.Module, x: Tensor) -> Tensor:
    """Of all classes, (N, classes)."""
    with hooks.frozen(model), torch.no_grad():
        return contract.logits_of(model, x).softmax(1)


def delta_of(s: Tensor, share: float) -> Tensor:
    """The perturbation that the curriculum makes of maps s, always the same."""
    return objective.perturbation(s, share, torch.Generator().manual_seed(0))


def random_signs(x: Tensor) -> Tensor:
    """What a perturbation is compared with."""
    return single_step.random_sign(x, torch.Generator().manual_seed(1))


def cosine(a: Tensor, b: Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), 0).item()


def draw(
    student: classifier.Classifier,
    x: Tensor,
    raw: Tensor,
    s: Tensor,
    y: Tensor,
    *,
    share: float,
    eps: float,
    classes: tuple[str, ...],
    known: bool,
) -> View:
    """The image, its map, the direction, delta, the perturbed image and the student's decision; and the numbers, random signs
    of the same size beside them."""
    delta, signs = delta_of(s, share), random_signs(x)
    x_new, noisy = (single_step.step_along(x, d, eps) for d in (delta, signs))
    before, after, chance = (probabilities(student, z)[0].cpu() for z in (x, x_new, noisy))
    direction, _ = single_step.fgsm_direction(student, x, y)
    fig, axes = pictures.canvas(2, 4, (11, 5.4))
    name = classes[int(y)]
    pictures.image(axes[0, 0], x[0].cpu(), f"image: {name}" if known else "image")
    drawn = pictures.heatmap(axes[0, 1], strength(raw[0].cpu()), "raw map", signed=True)
    pictures.colour_bar(fig, drawn, axes[0, 1], "of its largest")
    drawn = pictures.heatmap(axes[0, 2], s[0].mean(0).cpu(), "direction s", signed=True, limit=1.0)
    pictures.colour_bar(fig, drawn, axes[0, 2], "mean of channels")
    widgets.bars(axes[0, 3], before, classes, "student, image as it is")
    drawn = pictures.heatmap(axes[1, 0], delta[0].mean(0).cpu(), "perturbation δ", signed=True, limit=1.0)
    pictures.colour_bar(fig, drawn, axes[1, 0], "mean of channels")
    pictures.image(axes[1, 1], x_new[0].cpu(), "image + ε₀ δ")
    drawn = pictures.heatmap(axes[1, 2], direction[0].mean(0).cpu(), "attack on the student", signed=True, limit=1.0)
    pictures.colour_bar(fig, drawn, axes[1, 2], "mean of channels")
    widgets.bars(axes[1, 3], after, classes, "student, perturbed image")
    decisions = [classes[int(z.argmax())] for z in (before, after, chance)]
    aligned, by_chance = cosine(direction, delta), cosine(direction, signs)
    change = float((x_new - x).abs().max())
    numbers = [
        Number("predicted class, as it is", decisions[0]),
        Number("predicted class, perturbed", decisions[1]),
        Number("predicted class under random signs of the same size", decisions[2]),
        Number(f"probability of {name}, as it is", float(before[int(y)]), "0 to 1"),
        Number(f"probability of {name}, perturbed", float(after[int(y)]), "0 to 1"),
        Number(f"probability of {name} under random signs of the same size", float(chance[int(y)]), "0 to 1"),
        Number("P(random), that a pixel's step is random", share, "probability", "each pixel and channel"),
        Number("largest change of a pixel", change, "of [0, 1]"),
        Number("cosine of δ with the attack on the student", aligned, COSINE),
        Number("cosine of random signs with the attack on the student", by_chance, COSINE),
    ]
    said = [html.escape(d) for d in decisions]
    text = (
        f"<b>{said[0]}</b> as it is, <b>{said[1]}</b> perturbed; random signs of the same size: <b>{said[2]}</b>; "
        f"probability of {html.escape(name)} {before[int(y)]:.2f} as it is, {after[int(y)]:.2f} perturbed, "
        f"{chance[int(y)]:.2f} under random signs<br>"
        f"δ steps ε₀ = {255 * eps:g}/255 against the map, -s; each pixel and channel, with P(random) {share:.2f}, at random "
        "instead. P(random) falls with the epoch: α¹⁰ to the power 10 epoch / epochs<br>"
        f"cosine of δ with the attack on the student (the sign of its loss gradient) {aligned:+.3f}, of random signs "
        f"{by_chance:+.3f} (1: the same direction)"
    )
    return View(fig, text, numbers)


def curve(seen: Looked, x: Tensor, y: Tensor, s: Tensor, radii: tuple[float, ...], *, share: float, present: float) -> View:
    """The probability that the student gives the class of the images x at each eps0 (of 255): under delta, under random signs,
    and under a step of the attack on it."""
    found, attack = {}, single_step.fgsm_direction(seen.model, x, y)[0]
    for label, d in (("δ", delta_of(s, share)), ("random signs", random_signs(x)), ("attack on the student", attack)):
        values = []
        for i, eps in enumerate(radii):
            say(f"{label}, ε₀ {i + 1} of {len(radii)}")
            z = single_step.step_along(x, d, eps / 255)
            values.append(probabilities(seen.model, z).gather(1, y[:, None])[:, 0].cpu())
        found[label] = torch.stack(values)
    return over_levels(radii, found, present, xlabel="ε₀, of 255", ylabel="probability of the image's class", unit="0 to 1")


def explorer(p: Parameters) -> Explorer:
    """The explorer of a run: a published network, or one's own, against maps of its own on photographs first; then the study's
    students on its data, against their teachers' maps.

    Networks that are not in the cache are trained when they are first chosen.
    """

    @functools.lru_cache(maxsize=16)
    def trained(arm: str) -> classifier.Classifier:
        return plan.model(p, arm, 0)

    def photographed(arch: str, network: str) -> bool:
        return bool(network) or arch == subjects.PUBLISHED

    def published() -> subjects.Subject:
        return subjects.published(subjects.PUBLISHED, "photographs", p.device)

    def data_of(arch: str, network: str) -> ImageSet:
        if network:
            return subjects.own(network, p.device).data
        return published().data if photographed(arch, network) else plan.evaluation_set(p)

    def looked(arch: str, network: str) -> Looked:
        if not photographed(arch, network):
            data = plan.evaluation_set(p)
            return Looked(trained(arch), data, data.classes, True)
        found = subjects.own(network, p.device) if network else published()
        return Looked(found.model, found.data, found.classes, found.labelled)

    def weak_maps(arch: str, network: str) -> Tensor:
        data = data_of(arch, network)
        return maps.weak(data, "masks" if data.masks is not None else "boxes")

    def picture(seen: Looked, image: int, own: Image.Image | None) -> tuple[Tensor, Tensor]:
        """An image and its class: the label, or where none is known what the student takes it for."""
        number = image % len(seen.data)
        x = seen.data.images[number] if own is None else seen.data.like(own)
        x = x[None].to(devices.device(p.device))
        if own is None and seen.labelled:
            return x, seen.data.labels[number][None].to(x.device)
        return x, probabilities(seen.model, x).argmax(1)

    def mapped(x: Tensor, y: Tensor, numbers: list[int], student: classifier.Classifier, chosen: dict[str, Any]) -> Any:
        """The raw maps of images x with these numbers in the data set, and their directions s."""
        arch, network, taught = chosen["arch"], chosen["network"], chosen["taught"]
        photographs = photographed(arch, network)
        if not taught:
            s = weak_maps(arch, network)[numbers].to(x.device)
            return s, s
        guide = student if taught == ITSELF else plan.teacher(p, taught, 0)
        n, points = (COPIES, COPIES) if photographs else (p.smooth_n, p.ig_steps)
        raw = by_name.raw(chosen["kind"], guide, x, y, maps.settings(n, points)).values
        return raw, maps.binarise(raw, "none" if chosen["kind"] == "guided-gradcam++" else chosen["how"])

    def render(
        arch: str,
        network: str,
        image: int,
        own: Image.Image | None,
        taught: str,
        kind: str,
        how: str,
        epoch: int,
        alpha10: float,
        eps: float,
    ) -> View:
        seen = looked(arch, network)
        if own is not None and not taught and not anywhere(seen.data):
            raise ValueError(f"an upload comes without the {weak_of(seen.data)}: choose another “map from”")
        x, y = picture(seen, image, own)
        chosen = {"arch": arch, "network": network, "taught": taught, "kind": kind, "how": how}
        raw, s = mapped(x, y, [image % len(seen.data)], seen.model, chosen)
        share, known = objective.share_random(epoch, p.epochs, alpha10), own is None and seen.labelled
        return draw(seen.model, x, raw, s, y, share=share, eps=eps / 255, classes=seen.classes, known=known)

    def many(arch: str, network: str, epoch: int, alpha10: float, eps: float, **chosen: Any) -> View:
        seen, photographs = looked(arch, network), photographed(arch, network)
        count, where = min(MANY_PHOTOGRAPHS if photographs else MANY, len(seen.data)), devices.device(p.device)
        x, y = seen.data.images[:count].to(where), seen.data.labels[:count].to(where)
        y = y if seen.labelled else probabilities(seen.model, x).argmax(1)
        say(f"maps of {count} images")
        _, s = mapped(x, y, list(range(count)), seen.model, chosen | {"arch": arch, "network": network})
        share = objective.share_random(epoch, p.epochs, alpha10)
        return curve(seen, x, y, s, (0.0, *grid(photographs)), share=share, present=eps)

    def seek(arch: str, network: str, image: int, epoch: int, alpha10: float, eps: float, **chosen: Any) -> int:
        """The next image whose decision changes under delta."""
        seen, share = looked(arch, network), objective.share_random(epoch, p.epochs, alpha10)
        count = min(SHOWN, len(seen.data))
        for step in range(1, count):
            at = (image + step) % count
            say(f"image {at}")
            x, y = picture(seen, at, None)
            _, s = mapped(x, y, [at], seen.model, chosen | {"arch": arch, "network": network})
            before, after = (
                probabilities(seen.model, z).argmax(1) for z in (x, single_step.step_along(x, delta_of(s, share), eps / 255))
            )
            if bool(before != after):
                return at
        return image

    def grid(photographs: bool) -> tuple[float, ...]:
        return RADII if photographs else tuple(sorted({1.0, 2.0, 4.0, 8.0, 16.0, 32.0, p.eps}))

    def fit(name: str, controls: dict[str, Any]) -> None:
        arch, network = controls["arch"].value, controls["network"].value
        data = data_of(arch, network)
        if name in ("arch", "network"):
            controls["own"].size = data.images.shape[-1]
            _fit_menus(controls, data, photographed(arch, network), bool(network))
        if controls["own"].value is not None and not controls["taught"].value and not anywhere(data):
            if name == "taught":  # of the last choice: an upload comes without a mask
                controls["own"].leave()
            else:
                controls["taught"].index = 0
        of_network = bool(controls["taught"].value)
        controls["kind"].disabled = not of_network
        controls["how"].disabled = not of_network or controls["kind"].value == "guided-gradcam++"

    def _fit_menus(controls: dict[str, Any], data: ImageSet, photographs: bool, own: bool) -> None:
        teachers = {f"{name} teacher": key for key, name in plan.TEACHERS.items() if key == "std" or "pgd" in p.arms}
        teachers = {"the network itself": ITSELF} if photographs else teachers
        widgets.offer(controls["taught"], [*teachers.items(), (weak_of(data), "")])
        # EfficientNet-Lite0 cuts its activations above too, so guided backpropagation is not defined there
        kinds = [k for k in plan.NAMES if own or not photographs or not k.startswith("guided")]
        widgets.offer(controls["kind"], list(maps.ATTRIBUTIONS.menu(*kinds).items()))
        radii = [(f"{e:g}", e) for e in grid(photographs)]
        if list(controls["eps"].options) != radii:  # other images too
            controls["image"].options = widgets.numbers([data.classes[int(y)] for y in data.labels[:SHOWN]])
            controls["image"].value = FIRST if photographs else 0
            controls["eps"].options = radii
            controls["eps"].value = BEGIN if photographs else p.eps

    epochs = sorted({round(i * (p.epochs - 1) / 6) for i in range(7)})
    menu = {"EfficientNet-Lite0, published": subjects.PUBLISHED}
    controls = {
        "arch": widgets.choice("student", menu | {plan.label(a): a for a in p.arms}, subjects.PUBLISHED),
        "network": widgets.OwnNetwork(lambda name: subjects.anew(name, p.device)),
        "image": widgets.numbered("image", ("",)),
        "own": widgets.Upload("upload an image", published().size),
        "taught": widgets.choice("map from", {"": ITSELF}, ITSELF),
        "kind": widgets.choice("attribution", maps.ATTRIBUTIONS.menu(*plan.NAMES), "gradient"),
        "how": widgets.choice("binarised by", WAYS, "sign"),
        "epoch": widgets.slider("epoch", epochs, epochs[len(epochs) // 2], text=lambda e: f"{int(e) + 1} of {p.epochs}"),
        "alpha10": widgets.slider("α¹⁰, of [0, 1]", sorted({*ALPHAS, p.alpha10}), p.alpha10),
        "eps": widgets.slider("ε₀, of 255", (0.0,), 0.0),
    }
    fit("arch", controls)
    return Explorer(p, controls, render, fit, many, seek)


def anywhere(data: ImageSet) -> bool:
    """Whether its weak maps are of no image in particular: the box around the centre of a set without masks and boxes."""
    return data.masks is None and data.boxes is None


def weak_of(data: ImageSet) -> str:
    """What a data set's weak maps are, in the words of the menu."""
    return "object's mask" if data.masks is not None else "box around the centre" if anywhere(data) else "object's box"
