"""Study 1's numbers as tables: MOD and its companions, VID, what the networks answer, and the paper's numbers beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lib.measures import comparison
from lib.studies.attention_shift import statistics
from lib.studies.attention_shift.plan import FAMILY, Parameters
from lib.system import paths

ATTACK_NAMES = {"fgsm": "FGSM", "noise": "random signs"}
COMPANIONS = {
    "spearman": "rank correlation",
    "iou": "overlap of top 20 % (IoU)",
    "centroid_shift": "centre of mass moved (pixels)",
    "mod_over_ceiling": "MOD / ceiling",
}
LOOKS = {
    "background": ("Mass on the background", "share of the map's mass"),
    "area": ("Area at half of the maximum", "share of the image"),
    "inverted": ("Ranks turned round", "share of maps"),
}
CUES = ("shape", "texture")
# the paper's networks that ours are compared with
PUBLISHED = {"plain": "vgg16", "residual": "resnet50", "inception": "inception_v3"}


def named(arch: str) -> str:
    """What a network is called in tables and pictures."""
    return FAMILY.get(arch, arch)


def accuracies(parameters: Mapping[str, int], accuracy: Mapping[tuple[str, int], float]) -> pd.DataFrame:
    """A row a network: its number of parameters, and over its seeds the mean accuracy, the lowest and the highest;
    `accuracy` is by (architecture, seed)."""
    rows = [(named(arch), parameters[arch], value) for (arch, _), value in accuracy.items()]
    by = pd.DataFrame(rows, columns=["network", "parameters", "accuracy"]).groupby("network", sort=False)
    spread = by.accuracy.agg(seeds="count", accuracy="mean", lowest="min", highest="max")
    return pd.concat([by.parameters.first(), spread], axis=1).round(3)


def cues(answers: Mapping[tuple[str, int], Tensor], cue: Mapping[str, Tensor]) -> pd.DataFrame:
    """How often the answers (N,) of each network, by (architecture, seed), are the class of a cue (N,): means over seeds."""
    share = {f"answers with the {name}": [(a == cue[name]).float().mean().item() for a in answers.values()] for name in CUES}
    return (
        pd.DataFrame({"network": [named(arch) for arch, _ in answers]} | share).groupby("network", sort=False).mean().round(3)
    )


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """By (model, seed, layer, attack, target, eps): MOD and its companions, how maps look, accuracy, share of maps that are
    empty."""
    data = table.assign(
        correct=table.pred_adv == table.true,
        flipped=table.pred_adv != table.pred_clean,
        inverted=statistics.inverted(table.spearman.to_numpy()),
        empty=table.degenerate_clean | table.degenerate_adv,
    )
    keys = ["model", "seed", "layer", "last", "attack", "target_mode", "eps"]
    columns = [
        "nissim",
        "nissim_native",
        "spearman",
        "iou",
        "centroid_shift",
        "nissim_ceiling",
        *LOOKS,
        "correct",
        "flipped",
        "empty",
        "masked",
    ]
    means = data.groupby(keys, observed=True)[columns].mean().reset_index()
    means["mod_over_ceiling"] = means.nissim / means.nissim_ceiling
    return means.rename(columns={"nissim": "mod", "nissim_native": "mod_native", "correct": "accuracy"})


def where(table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The rows that have these values in these columns."""
    for column, value in columns.items():
        table = table[table[column] == value]
    return table


def headline(table: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The rows of each network's last stage and the predicted class; further `columns` as in `where`."""
    return where(table[table["last"]], target_mode="pred", **columns)


def curve(means: pd.DataFrame, column: str, **columns: Any) -> pd.DataFrame:
    """Rows (eps, value, low, high) over eps > 0: the mean over seeds, the lowest and the highest; `columns` as in `where`."""
    part = where(means[means.eps > 0], **columns)
    return part.groupby("eps")[column].agg(value="mean", low="min", high="max").reset_index()


def looks(means: pd.DataFrame, architectures: Sequence[str]) -> pd.DataFrame:
    """Rows (measure, line, eps, value, low, high) of LOOKS, without those that are not known: of the last stage and the
    predicted class the mean over seeds, the lowest and the highest, by network and attack; eps 0 is the clean image."""
    head = headline(means)
    found = [
        where(head, model=arch, attack=attack)
        .groupby("eps")[column]
        .agg(value="mean", low="min", high="max")
        .reset_index()
        .assign(measure=column, line=f"{named(arch)}, {says}")
        for column in LOOKS
        if head[column].notna().any()
        for arch in architectures
        for attack, says in ATTACK_NAMES.items()
    ]
    return pd.concat(found, ignore_index=True)


def accuracy_and_shift(means: pd.DataFrame, architectures: Sequence[str]) -> pd.DataFrame:
    """Rows (network, eps, mod, value, low, high) under FGSM: value is the accuracy, the mean over seeds as MOD is; low and
    high are the seeds' lowest and highest accuracy."""
    found = []
    for arch in architectures:
        by = headline(means, model=arch, attack="fgsm").groupby("eps")
        spread = by.accuracy.agg(value="mean", low="min", high="max")
        found.append(spread.assign(network=named(arch), mod=by["mod"].mean()).reset_index())
    return pd.concat(found, ignore_index=True)


def commonest(table: pd.DataFrame) -> pd.DataFrame:
    """The share of images that get a network's commonest answer, by (model, attack) and eps: the mean over seeds."""
    answers = headline(table).groupby(["model", "seed", "attack", "eps"], observed=True).pred_adv
    share = answers.agg(lambda v: v.value_counts(normalize=True).iloc[0])
    by_eps = share.groupby(["model", "attack", "eps"], observed=True).mean().unstack("eps")
    return by_eps.round(2).rename(columns="{:g}".format)


def mode(values: pd.Series, bins: int = 40) -> float:
    """Where values in [-1, 1] are densest: the middle of the bin with most, after smoothing with (1, 2, 3, 2, 1)."""
    counts, _ = np.histogram(values, bins=bins, range=(-1, 1))
    top = np.convolve(counts, [1, 2, 3, 2, 1], mode="same").argmax()
    return float(-1 + (2 * top + 1) / bins)


def printed(quantity: str) -> pd.DataFrame:
    """What the paper has of a `mode`, of `psnr` (no network) or of figure 5's face being `right`: a row an eps, a column a
    network. Each number's place in the paper stands in the column `where` of data/published/attention_shift.csv."""
    found = pd.read_csv(paths.published() / "attention_shift.csv", keep_default_na=False)
    return found[found.quantity == quantity].pivot(index="eps", columns="network", values="value")


def beside_published(table: pd.DataFrame, p: Parameters, psnr: Mapping[float, float]) -> pd.DataFrame:
    """The modes of the similarity of clean and attacked maps, the paper's and ours, at each eps that both have; and PSNR in
    dB, ours as given by eps."""
    modes, levels = printed("mode"), printed("psnr")[""]
    rows = []
    for e in (e for e in modes.index if e in p.eps):
        row = {"eps": f"{e:g}", "PSNR published (dB)": levels[e], "PSNR ours (dB)": psnr[e]}
        for arch in p.architectures:
            if (theirs := PUBLISHED.get(arch, arch)) in modes:
                own = headline(table, model=arch, attack="fgsm", eps=e).ssim
                row |= {f"{arch} published": modes[theirs][e], f"{arch} ours": mode(own)}
        rows.append(row)
    return pd.DataFrame(rows, columns=None if rows else ["eps"]).set_index("eps").round(3)


def beside_one_face(table: pd.DataFrame, p: Parameters) -> pd.DataFrame:
    """Whether the paper's networks are right on the one face of its figure 5, and in brackets the share of all images that ours
    are right on, by network and eps."""
    face = printed("right")
    rows = {}
    for arch in (a for a in p.architectures if PUBLISHED.get(a, a) in face):
        row = rows[arch] = {}
        for e in (e for e in face.index if e == 0 or e in p.eps):
            own = headline(table, model=arch, attack="fgsm", eps=e)
            word = "right" if face[PUBLISHED.get(arch, arch)][e] else "wrong"
            row[f"{e:g}"] = f"{word} ({(own.pred_adv == own.true).mean():.2f})"
    return pd.DataFrame.from_dict(rows, orient="index")


def companions(means: pd.DataFrame, eps: float) -> pd.DataFrame:
    """MOD and what stands beside it at one eps for the predicted class, by network, layer and attack: means over seeds."""
    said = (
        {"mod": "MOD", "mod_native": "MOD at the map's own size"} | COMPANIONS | {"empty": "empty maps", "accuracy": "accuracy"}
    )
    part = where(means, eps=eps, target_mode="pred")
    found = part.groupby(["model", "layer", "attack"], observed=True)[list(said)].mean().round(3)
    return found.rename(columns=said, index=ATTACK_NAMES).rename_axis(index={"model": "network"})


def vid(means: pd.DataFrame) -> pd.DataFrame:
    """VID in reading A, by (model, seed, layer, target): the population standard deviation over eps > 0 of MOD under FGSM."""
    under = where(means[means.eps > 0], attack="fgsm").sort_values("eps")
    keys = ["model", "seed", "layer", "last", "target_mode"]
    wide = under.pivot_table(index=keys, columns="eps", values="mod", observed=True)
    return wide.index.to_frame(index=False).assign(vid=comparison.vid_model(torch.tensor(wide.to_numpy())).numpy())


def vids(table: pd.DataFrame, means: pd.DataFrame) -> pd.DataFrame:
    """VID of each network's last stage by target: reading A with its lowest and highest seed, and the mean over images of
    reading B, the same deviation of one image's NISSIM."""
    keys = ["model", "layer", "target_mode"]
    of_seeds = where(vid(means), last=True).groupby(keys, observed=True).vid.agg(["mean", "min", "max"])
    under = where(table[table.eps > 0], last=True, attack="fgsm")
    wide = under.pivot_table(index=[*keys, "seed", "image_id"], columns="eps", values="nissim", observed=True)
    of_images = pd.Series(comparison.vid_image(torch.tensor(wide.to_numpy())).numpy(), wide.index)
    found = of_seeds.rename(columns={"mean": "VID (A)", "min": "lowest seed", "max": "highest seed"})
    return found.assign(**{"VID (B), mean over images": of_images.groupby(keys, observed=True).mean()}).round(4)
