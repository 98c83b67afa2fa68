"""One image under a network before and after it was made to fool, with the success rate at that point: study 4's explorer."""

import functools
import html

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from lib.data import images
from lib.explanations import by_name
from lib.explanations.by_name import Settings
from lib.explanations.explanation import Explanation
from lib.figures import pictures, widgets
from lib.figures.explorer import Explorer, View
from lib.fooling import manipulation
from lib.measures import comparison
from lib.networks import hooks
from lib.studies.model_manipulation import plan
from lib.studies.model_manipulation.measure import maps_of
from lib.studies.model_manipulation.plan import Parameters

COUNTED = 60  # images that success and accuracy under the slider are counted on


def shares(p: Parameters, kind: str, h: Explanation, h0: Explanation, right: Tensor, name: str) -> str:
    """Success and accuracy over some images, in words."""
    if kind == "active":
        done = manipulation.succeeded("active", manipulation.swapped(h.values, h0.values)).float().mean(0)
        told = f"swapped {100 * done[0]:.0f} % and {100 * done[1]:.0f} % (c1, c2)"
    else:
        k = p.k if name in plan.AT_LAYER else None
        tested = manipulation.test(kind, h.values, h0.values, k=k)  # type: ignore[arg-type]
        done, dead = manipulation.succeeded(kind, tested.t).float().mean(), tested.dead.float().mean()  # type: ignore[arg-type]
        told = f"success rate {100 * done:.0f} %, dead maps {100 * dead:.0f} %"
    shown = "mosaics" if kind == "active" else "test images"
    return f"over {len(h.values)} {shown}: {told}; accuracy {100 * right.float().mean():.0f} %"


def one_image(kind: str, h: Tensor, h0: Tensor, k: int | None) -> str:
    """The test loss of a single image, in words."""
    low, high = manipulation.INTERVALS[kind]
    if kind == "active":
        t = manipulation.swapped(h, h0)[0].tolist()
        return f"t = {t[0]:.2f} and {t[1]:.2f} (swapped from {low:g} on)"
    tested = manipulation.test(kind, h, h0, k=k)  # type: ignore[arg-type]
    if bool(tested.dead):
        return "this map is dead: it shows nothing"
    return f"t = {tested.t.item():.2f}, {'fooled' if low <= tested.t.item() <= high else 'not fooled'} ([{low:g}, {high:g}])"


def draw(
    models: tuple[torch.nn.Module, torch.nn.Module],
    x: Tensor,
    shown: Tensor,
    classes: tuple[str, ...],
    name: str,
    settings: Settings,
) -> tuple[Figure, tuple[Explanation, Explanation]]:
    """Above the original network, below the manipulated one: image, maps of the classes `shown` (1,) or (1, 2), decision."""
    found = [by_name.explain(name, model, x, shown, settings) for model in models]
    titles = [classes[int(c)] for c in shown.flatten()]
    fig, axes = pictures.canvas(2, 2 + len(titles), (3 * (2 + len(titles)), 5.4))
    for row, seen, which in zip(axes, found, ("original", "manipulated"), strict=True):
        pictures.image(row[0], x[0].cpu(), f"{which} network")
        for ax, h, title in zip(row[1:-1], seen.values.view(-1, *seen.values.shape[-2:]).cpu(), titles, strict=True):
            drawn = pictures.heatmap(ax, h, f"{plan.INTERPRETERS[name]} of {title}")
            pictures.colour_bar(fig, drawn, ax, "map, scaled to [0, 1]")
        with torch.no_grad():
            widgets.bars(row[-1], seen.logits[0].softmax(0).cpu(), classes, "decision")
    return fig, (found[0], found[1])


def explorer(p: Parameters) -> Explorer:
    """The explorer of a run; networks that are not in the cache are trained when they are first chosen."""
    data = plan.evaluation_set(p)
    foolings = [a for a in plan.arms(p, p.architectures[0]) if a != "base" and "@" not in a and not a.startswith("washed")]

    @functools.lru_cache(maxsize=32)
    def network(arch: str, arm: str, epoch: int | None) -> torch.nn.Module:
        return plan.network(p, arch, arm, 0, epoch)

    def batch(kind: str, device: torch.device) -> tuple[Tensor, Tensor]:
        if kind == "active":
            x = plan.test_mosaics(p).images[:COUNTED].to(device)
            return x, torch.tensor([p.pair], device=device).expand(len(x), 2)
        return data.images[:COUNTED].to(device), data.labels[:COUNTED].to(device)

    @functools.lru_cache(maxsize=64)
    def counted(arch: str, arm: str, epoch: int, name: str) -> str:
        kind = plan.parsed(arm).kind
        original, model = network(arch, "base", None), network(arch, arm, epoch)
        device = next(model.parameters()).device
        x, y = batch(kind, device)
        few, labels = batch("", device)
        with hooks.frozen(model), torch.no_grad():
            right = model(few).argmax(1) == labels
        if kind == "none":
            return f"over {len(few)} test images: accuracy {100 * right.float().mean():.0f} %"
        settings = plan.settings(p, arch)
        return shares(p, kind, maps_of(name, model, x, y, settings), maps_of(name, original, x, y, settings), right, name)

    def render(arch: str, arm: str, epoch: int, name: str, image: int, own: Image.Image | None) -> View:
        original, model = network(arch, "base", None), network(arch, arm, epoch)
        device = next(model.parameters()).device
        kind, settings = plan.parsed(arm).kind, plan.settings(p, arch)
        x, y = batch(kind, device)
        x, y = x[image % len(x)][None], y[image % len(y)][None]
        if own is not None:
            x = images.to_tensor(own, size=p.size, channels=p.channels)[None].to(device)
            if kind != "active":
                with hooks.frozen(original), torch.no_grad():
                    y = original(x).argmax(1)
        fig, (before, after) = draw((original, model), x, y, data.classes, name, settings)
        same = before.logits.argmax(1) == after.logits.argmax(1)
        words = [f"<b>{html.escape(plan.label(arm))}</b>, {epoch} of {p.tune_epochs} epochs"]
        if kind != "none":
            words.append(one_image(kind, after.values, before.values, p.k if name in plan.AT_LAYER else None))
        else:
            words.append(f"rank correlation of the maps {comparison.spearman(before.values, after.values).item():.2f}")
        words.append("the decision is the same" if bool(same) else "the decision has changed")
        return View(fig, "; ".join(words) + f"<br>{counted(arch, arm, epoch, name)}")

    controls = {
        "arch": widgets.choice("network", p.architectures, p.architectures[0]),
        "arm": widgets.choice("fooling", {plan.label(a): a for a in foolings}, p.headline[0]),
        "epoch": widgets.integer("tuned epochs", 0, p.tune_epochs, p.tune_epochs),
        "name": widgets.choice("look with", by_name.METHODS.menu(*plan.INTERPRETERS), plan.parsed(p.headline[0]).interpreter),
        "image": widgets.integer("image", 0, COUNTED - 1),
        "own": widgets.Upload("upload an image", p.size),
    }
    return Explorer(p, controls, render)
