"""One image under one attack as one network sees it, with its maps and the proposition: the explorer of study 3."""

import functools
import html

import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from lib.attacks import by_name, unforeseen
from lib.attacks.steps import default_step
from lib.data import images
from lib.figures import pictures, widgets
from lib.figures.explorer import Explorer, View
from lib.fooling import discrepancy, interpretation_attack
from lib.measures import comparison
from lib.networks import classifier, hooks
from lib.studies.interpretability_aware_training import plan
from lib.studies.interpretability_aware_training.measure import unforeseen_attack
from lib.studies.interpretability_aware_training.plan import Parameters

# on the decision, on the explanation, and those that training did not foresee
ATTACKS = by_name.ATTACKS.plus(*interpretation_attack.attacks()).menu(
    "none", "pgd", *interpretation_attack.LABELS, *unforeseen.ATTACKS
)


def attacked(model: classifier.Classifier, x: Tensor, y: Tensor, how: str, *, eps: float, steps: int, p: Parameters) -> Tensor:
    """A batch of one under one of ATTACKS, as the network takes it; eps is the radius of PGD and AAI."""
    if how in unforeseen.ATTACKS:  # which have radii of their own, and work in colour
        return unforeseen_attack(model, x, y, how, p.unforeseen_eps[how], steps, p).x_adv
    rows = by_name.ATTACKS.plus(*interpretation_attack.attacks(p.top_k))
    return rows.find(how)(model, x, y, eps=eps, steps=steps, step=default_step(eps, steps)).x_adv


def _map(ax: Axes, values: Tensor, limit: float, title: str) -> None:
    drawn = pictures.heatmap(ax, values, title, signed=True, limit=limit)
    ax.title.set_fontsize(9)
    pictures.colour_bar(ax.figure, drawn, ax, "CAM")


def draw(model: classifier.Classifier, x: Tensor, x_new: Tensor, y: Tensor, classes: tuple[str, ...], *, known: bool) -> View:
    """Above the image and its maps of two classes, below the attacked image and its; and a line of numbers.

    The classes are y (the label, or an upload's decision) and the one that the attacked image favours most among the others.
    """
    with torch.no_grad():
        logits = model(x_new)
        other = logits.scatter(1, y[:, None], -torch.inf).argmax(1)
        both = torch.stack([y, other], 1)
        before, after = discrepancy.cam(model, x, both), discrepancy.cam(model, x_new, both)
    sides = discrepancy.proposition(model, x, x_new, y)
    limit = max(float(before.values.abs().max()), float(after.values.abs().max())) or 1.0
    fig, axes = pictures.canvas(2, 4, (11, 5.2))
    names = [classes[int(y)], classes[int(other)]]
    for row, z, seen, title in zip(axes, (x, x_new), (before, after), ("image", "attacked image"), strict=True):
        label = f": {names[0]}" if known and title == "image" else ""
        pictures.image(row[0], z[0].cpu(), title + label)
        for ax, one, name, kind in zip(row[1:3], seen.values[0], names, ("true" if known else "decided", "other"), strict=True):
            _map(ax, one, limit, f"map of {name} ({kind} class)")
        widgets.bars(row[3], seen.logits[0].softmax(0).cpu(), classes, "decision")
    decisions = [html.escape(classes[int(s.logits.argmax())]) for s in (before, after)]
    tau = comparison.kendall(before.values[:, 0], after.values[:, 0]).item()
    d1 = discrepancy.one_class(before.values[:, :1], after.values[:, :1]).item()
    holds = "which the proposition asks for" if bool(sides.applies) else "the decision holds, so nothing is asked"
    change, margin = float((x_new - x).abs().max()), 2 * sides.bound.item()
    text = (
        f"<b>{decisions[0]}</b> before, <b>{decisions[1]}</b> after; largest change of a pixel {change:.3f}<br>"
        f"margin {margin:.2f}, bound {margin / 2:.2f}, discrepancy D2 {sides.discrepancy.item():.2f} ({holds}); "
        f"D1 {d1:.2f}, Kendall's tau {tau:.2f}"
    )
    return View(fig, text)


def explorer(p: Parameters) -> Explorer:
    """The explorer of a run; networks that are not in the cache are trained when they are first chosen."""
    data = plan.evaluation_set(p)

    @functools.lru_cache(maxsize=16)
    def network(arm: str) -> classifier.Classifier:
        return plan.network(p, arm, 0).model

    def render(arm: str, image: int, own: Image.Image | None, how: str, eps: float, steps: int) -> View:
        model = network(arm)
        where = next(model.parameters()).device
        if own is None:
            number = image % len(data)
            x, y = data.images[number][None].to(where), data.labels[number : number + 1].to(where)
        else:
            x = images.to_tensor(own, size=p.size, channels=p.channels)[None].to(where)
            with hooks.frozen(model), torch.no_grad():
                y = model(x).argmax(1)
        x_new = attacked(model, x, y, how, eps=eps, steps=steps, p=p)
        return draw(model, x, x_new, y, data.classes, known=own is None)

    controls = {
        "arm": widgets.choice("trained as", {plan.label(a): a for a in p.arms}, p.arms[-1]),
        "image": widgets.integer("image", 0, min(100, len(data)) - 1),
        "own": widgets.Upload("upload an image", p.size),
        "how": widgets.choice("attack", ATTACKS, "pgd"),
        "eps": widgets.slider(
            "eps, L∞", (0.0, *p.eps_grid), p.eps, text=lambda e: f"{255 * e:.3g}/255" if p.eps < 0.1 else f"{e:g}"
        ),
        "steps": widgets.slider("steps", (5, 10, 20, 40, 100), 20),
    }
    return Explorer(p, controls, render)
