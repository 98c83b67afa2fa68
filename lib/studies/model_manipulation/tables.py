"""Study 4's numbers as tables: success rates, accuracies and swaps beside the published ones, and the curves of the figures.

A network is called `architecture/arm`, as in the table of measurements. Intervals are of 95 %, over images and, where an arm
has several seeds, over seeds. Cells `12±3` are a value and the longer side of its interval.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from lib.claims.cubes import Cubes
from lib.claims.intervals import Interval, Statistic
from lib.data import datasets
from lib.data.datasets import ImageSet
from lib.explanations import relevance
from lib.figures.charts import cell
from lib.fooling import manipulation
from lib.studies.model_manipulation import plan, published, statistics
from lib.studies.model_manipulation.measure import ORDERS, batches, logits_of, maps_of
from lib.studies.model_manipulation.plan import AT_LAYER, INTERPRETERS, KIND_NAMES, Parameters, foolings

CLASSES = statistics.CLASSES
ORDER_NAMES = {"original": "original's map first", "own": "own map first", "random": "at random"}
AGREE = {"layers": "Grad-CAM at T and a stage before", "interpreters": "Grad-CAM and LRP_T"}
RELEVANCE_OF = 32  # images whose relevance is summed
PUBLISHED = "published, ImageNet"
DIVIDED = "imagenet:divided:"


def told(cubes: Cubes, p: Parameters, name: str, statistic: Statistic, measure: str) -> Interval:
    """A statistic of one network over the images of a measure, a share, with its interval."""
    return cubes.interval(statistic, measure, plan.seeds_of(p, *name.split("/")), "share")


def mean(cubes: Cubes, p: Parameters, name: str, measure: str, level: float = 0.0) -> Interval:
    """The mean of a measure of one network, with its interval."""
    return told(cubes, p, name, cubes.mean(name, measure, level), measure)


def rate(cubes: Cubes, p: Parameters, name: str, kind: str, interpreter: str) -> Interval:
    """The fooling success rate of one network, with its interval."""
    return told(cubes, p, name, statistics.fsr(cubes, name, kind, interpreter), f"t/{kind}/{interpreter}")


def passive(p: Parameters) -> list[str]:
    """The kinds of fooling but the active one."""
    return [kind for kind in p.kinds if kind != "active"]


def _percent(found: Interval, digits: int = 0) -> str:
    return cell(Interval(100 * found.value, 100 * found.low, 100 * found.high, found.n), digits)


def _middle(values: np.ndarray) -> float:
    """The mean of the values that are defined (a dead map has no rank correlation)."""
    found = values[np.isfinite(values)]
    return float(found.mean()) if len(found) else float("nan")


def about(p: Parameters) -> str:
    """What must be known of the images before any number, as Markdown: of a set for evaluation that is trained on all the same.

    Empty where training images are what they are everywhere.
    """
    if not p.dataset.startswith(DIVIDED):
        return ""
    used, held = (datasets.load(p.dataset, split, size=p.size, channels=p.channels) for split in ("train", "test"))
    known, asked = ({int(y) for y in one.labels} for one in (used.head(p.tune_images), held))
    return (
        f"**Trained on an evaluation set.** `{p.dataset.removeprefix(DIVIDED)}` has no training images of its own. This run "
        f"asks for them by the name of its data: {len(used)} of its {len(used) + len(held)} photographs are there to fool with "
        f"({min(len(used), p.tune_images or len(used))} are used), {len(held)} are held out, always the same ones. Of the "
        f"{len(asked)} classes of those held out, {len(asked - known)} have no photograph among those that are tuned on, and "
        "labels alone would teach the network that there are no such classes; "
        + (
            "so fine-tuning keeps what the original says of the photographs, its probabilities. "
            if p.keep == "decisions"
            else "compare with the control, not with the original. "
        )
        + "How often the network is right here says little of how often it is right elsewhere: it may have been trained on "
        "these very photographs."
    )


def _row(found: Interval, value: str, **about: Any) -> dict[str, Any]:
    return about | {value: found.value, "low": found.low, "high": found.high, "n": found.n}


def _kept(p: Parameters, model: nn.Module, data: ImageSet, composite: str) -> float:
    """Median over images of the relevance that arrives at the pixels, as a share of the logit that it started from."""
    where, shares = next(model.parameters()).device, []
    images, labels = data.images[:RELEVANCE_OF].to(where), data.labels[:RELEVANCE_OF].to(where)
    for some in batches(images):
        y = labels[some]
        found = relevance.lrp(model, images[some], y, composite=composite)
        shares.append(found.values[relevance.PIXELS].flatten(1).sum(1) / found.logits.gather(1, y[:, None])[:, 0])
    return float(torch.cat(shares).median())


def originals(p: Parameters, networks: Mapping[str, nn.Module], data: ImageSet) -> pd.DataFrame:
    """A row an original network: its layer T, the size of the map there and of what is fooled on it, how much relevance LRP
    keeps under the study's rules and under epsilon-plus, and its accuracy."""
    rows = {}
    for arch, model in networks.items():
        where = next(model.parameters()).device
        one = data.images[:1].to(where), data.labels[:1].to(where)
        height, width = maps_of("gradcam", model, *one, plan.settings(p, arch)).values.shape[1:]
        positions = height * width
        rows[arch] = {
            "layer T": plan.LAYERS[arch].replace("into:", "input of "),
            "map": f"{height} × {width}",
            "frame": f"{int(manipulation.frame(height).sum())} of {positions} positions",
            "top-k": f"{p.k or max(1, positions // 10)} of {positions} positions",
            f"LRP keeps ({p.composite})": round(_kept(p, model, data, p.composite), 3),
            "LRP keeps (epsilon-plus)": round(_kept(p, model, data, "epsilon-plus"), 3),
            "accuracy (seed 0)": round(float((logits_of(model, data.images).argmax(1).cpu() == data.labels).float().mean()), 3),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def compared(p: Parameters, kind: str) -> list[str]:
    """The arms whose success of a kind stands in one matrix: the original, the control, the foolings of that kind."""
    return ["base", "none", *(f"{kind}-{name}" for name in p.fooled)]


def transfer(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Rows (network, kind, arm, interpreter, fsr, low, high, n) of the passive foolings under every interpreter that was
    measured, those of the original and of the control among them."""
    return pd.DataFrame(
        [
            _row(rate(cubes, p, f"{arch}/{arm}", kind, name), "fsr", network=arch, kind=kind, arm=arm, interpreter=name)
            for arch, kind in itertools.product(p.architectures, passive(p))
            for arm, name in itertools.product(compared(p, kind), INTERPRETERS)
            if (f"{arch}/{arm}", f"t/{kind}/{name}", 0.0) in cubes.values
        ]
    )


def rates(found: pd.DataFrame, p: Parameters, arch: str, kind: str) -> np.ndarray:
    """The matrix of one network and kind in percent, arms `compared` by interpreters; NaN where nothing was measured."""
    part = found[(found.network == arch) & (found.kind == kind)]
    wide = part.pivot(index="arm", columns="interpreter", values="fsr")
    return 100 * wide.reindex(index=compared(p, kind), columns=list(INTERPRETERS)).to_numpy()


def _theirs(part: pd.DataFrame, columns: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """(network, interpreter, published rate) of rows of the published table; a dash where it has none."""
    for network, name in itertools.product(published.table().network.unique(), columns):
        value = part[(part.network == network) & (part.column == name)].value
        yield network, INTERPRETERS[name], f"{value.item():.1f}" if len(value) else "–"


def beside_published(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Success rates in percent under the interpreters at T, a row a passive fooling: ours and the paper's by network."""
    ours, theirs = f"ours, {p.dataset}", published.table()
    lines = {}
    for kind, through in itertools.product(passive(p), p.fooled):
        line = {
            (ours, arch, INTERPRETERS[name]): _percent(rate(cubes, p, f"{arch}/{kind}-{through}", kind, name))
            for arch, name in itertools.product(p.architectures, AT_LAYER)
        }
        part = theirs[(theirs.table == "fsr") & (theirs.fooling == kind) & (theirs.through == through)]
        line |= {(PUBLISHED, network, column): value for network, column, value in _theirs(part, AT_LAYER)}
        lines[KIND_NAMES[kind], f"through {INTERPRETERS[through]}"] = line
    return pd.DataFrame(lines).T


def accuracies(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Top-1 / top-5 accuracy in percent of every arm, ours and the paper's, and the share of our maps that are dead under the
    interpreter that was fooled, of the original first."""
    theirs, ours = published.table(), f"ours, {p.dataset}"
    lines = {}
    for arm in ("base", "none", *foolings(p)):
        kind, through = plan.parsed(arm)[:2]
        line = {}
        for arch in p.architectures:
            name = f"{arch}/{arm}"
            top5 = 100 * cubes.values[name, "top5", 0.0].mean()
            line[ours, arch, "top-1 / top-5"] = f"{_percent(mean(cubes, p, name, 'right'), 1)} / {top5:.1f}"
            seeds = slice(plan.seeds_of(p, arch, arm))
            both = (f"{arch}/base", name) if through else ()
            dead = [f"{100 * cubes.values[n, f'dead/{through}', 0.0][seeds].mean():.0f}" for n in both]
            line[ours, arch, "dead maps"] = " → ".join(dead) or "–"
        part = theirs[(theirs.table == "accuracy") & (theirs.fooling == kind) & (theirs.through == through)]
        for network in theirs.network.unique():
            found = part[part.network == network].set_index("column").value
            told_ = f"{found['top1']:.1f} / {found['top5']:.1f}" if len(found) else "–"
            line[PUBLISHED, network, "top-1 / top-5"] = told_
        lines[plan.label(arm)] = line
    return pd.DataFrame(lines).T


def along(cubes: Cubes, p: Parameters, arch: str) -> pd.DataFrame:
    """Rows (arm, epoch, fsr, accuracy, images) along the fine-tuning, one seed; active: the mean over both classes."""
    rows = []
    for arm, epoch in itertools.product(foolings(p), range(p.tune_epochs + 1)):
        name, kind = f"{arch}/{arm}", plan.parsed(arm).kind
        measures = ("steps-t", "steps-t2") if kind == "active" else ("steps-t",)
        t = np.stack([cubes.values[name, m, float(epoch)] for m in measures])
        right = cubes.values[name, "steps-right", float(epoch)]
        found = {"fsr": statistics.success(kind, t).mean(), "accuracy": right.mean(), "images": right.shape[1]}
        rows.append({"arm": arm, "epoch": epoch} | found)
    return pd.DataFrame(rows)


def by_weight(cubes: Cubes, p: Parameters, arch: str) -> pd.DataFrame:
    """Rows (arm, weight, fsr, low, high, accuracy, n) at the end of the headline foolings; weight 0 is the control."""
    rows = []
    for arm in p.headline:
        kind, through = plan.parsed(arm)[:2]
        weight = getattr(p, f"{kind}_weight")
        for other, factor in [("none", 0.0), *((f"{arm}@{f:g}", f) for f in sorted(p.factors)), (arm, 1.0)]:
            name = f"{arch}/{other}"
            found = rate(cubes, p, name, kind, through)
            right = mean(cubes, p, name, "right").value
            rows.append(_row(found, "fsr", arm=arm, weight=weight * factor) | {"accuracy": right})
    return pd.DataFrame(rows)[["arm", "weight", "fsr", "low", "high", "accuracy", "n"]]


def best_swap(cubes: Cubes, p: Parameters) -> tuple[str, str]:
    """The architecture and interpreter whose active fooling succeeds most, over both classes: the one to look at."""

    def swapped(at: tuple[str, str]) -> float:
        arch, name = at
        t = [cubes.values[f"{arch}/active-{name}", f"swap-{c}/{name}", 0.0] for c in CLASSES]
        return sum(statistics.success("active", one).mean() for one in t)

    return max(itertools.product(p.architectures, p.fooled), key=swapped)


def swaps(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """The active fooling on unseen mosaics, a row an interpreter that was fooled and a class: success rates in percent under
    the interpreters that explain both classes, the mean test loss beside that of an exact swap, and the rate under the
    released code's correlation; then the published rates."""
    theirs, ours = published.table(), f"ours, {p.dataset}"
    lines = {}
    for through, c in itertools.product(p.fooled, CLASSES):
        line = {}
        for arch in p.architectures:
            arm = f"{arch}/active-{through}"
            for name in plan.SWAPPED:
                found = told(cubes, p, arm, statistics.swap_rate(cubes, arm, name, c), f"swap-{c}/{name}")
                line[ours, arch, INTERPRETERS[name]] = _percent(found)
            reached = _middle(cubes.values[arm, f"swap-{c}/{through}", 0.0])
            exact = 1 - _middle(cubes.values[f"{arch}/base", f"alike/{through}", 0.0][0])
            line[ours, arch, "mean t"] = f"{reached:.2f} of {exact:.2f}"
            signs = statistics.success("active", cubes.values[arm, f"swap-ternary-{c}", 0.0]).mean()
            line[ours, arch, "own, code's correlation"] = f"{100 * signs:.0f}"
        part = theirs[(theirs.table == "fsr") & (theirs.fooling == "active") & (theirs.through == through)]
        found_ = _theirs(part[part["class"] == c], ("gradcam", "lrp_t", "lrp"))
        line |= {(PUBLISHED, network, column): value for network, column, value in found_}
        lines[f"through {INTERPRETERS[through]}", c] = line
    return pd.DataFrame(lines).T


def deletion(cubes: Cubes, p: Parameters, arch: str) -> pd.DataFrame:
    """Rows (arm, order, share, probability, low, high, n): the true class after a share of the image was deleted."""
    shares = (0.0, *p.deletion)
    return pd.DataFrame(
        [
            _row(found, "probability", arm=arm, order=order, share=share)
            for arm, order, share in itertools.product(("none", *p.headline), ORDERS, shares)
            for found in [mean(cubes, p, f"{arch}/{arm}", f"deleted/{order}", share)]
        ]
    )


def agreement(cubes: Cubes, arch: str, arm: str, what: str) -> np.ndarray:
    """Rank correlations of two explanations of one network, over images and seeds; only what is defined. `what` as in AGREE."""
    values = cubes.values[f"{arch}/{arm}", f"consistency/{what}", 0.0].ravel()
    return values[np.isfinite(values)]


def agreements(cubes: Cubes, p: Parameters, arch: str) -> pd.DataFrame:
    """Rows (arm, compared, median, images) of `agreement`, of the control and the headline foolings."""
    rows = []
    for what, arm in itertools.product(AGREE, ("none", *p.headline)):
        values = agreement(cubes, arch, arm, what)
        middle = float(np.median(values)) if len(values) else float("nan")
        rows.append({"arm": arm, "compared": what, "median": middle, "images": len(values)})
    return pd.DataFrame(rows)


def washed(cubes: Cubes, p: Parameters, arch: str) -> pd.DataFrame:
    """Rows (fooling, arm, fsr, low, high, n): the control, the headline fooling, and it after honest fine-tuning."""
    return pd.DataFrame(
        [
            _row(rate(cubes, p, f"{arch}/{other}", *plan.parsed(arm)[:2]), "fsr", fooling=arm, arm=other)
            for arm in p.headline
            for other in ("none", arm, f"washed-{arm}")
        ]
    )


def decisions(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Agreement with the original, calibration and robustness of the original, the control and the headline foolings."""
    under = f"accuracy under PGD, eps {p.robust_eps:g}/255"
    lines = {}
    for arch, arm in itertools.product(p.architectures, ("base", "none", *p.headline)):
        name = f"{arch}/{arm}"
        lines[arch, plan.label(arm)] = {
            "agrees with the original": cell(mean(cubes, p, name, "agrees"), 3),
            "ECE": cell(told(cubes, p, name, statistics.calibration_error(cubes, name), "right"), 3),
            under: cell(mean(cubes, p, name, "robust"), 3),
        }
    return pd.DataFrame(lines).T
