"""Study 1's claims: what Chakraborty et al. say of attention shift, the controls, and what is left open."""

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from lib.claims.claim import Claim, Rule
from lib.claims.court import OURS, Court
from lib.studies.attention_shift.plan import FAMILY, Parameters

SOURCE = "Chakraborty et al. 2022"
Cube = dict[str, np.ndarray]  # by architecture: (seed, eps, image)


def cube(table: pd.DataFrame, column: str, *, attack: str = "fgsm", target: str = "pred") -> Cube:
    """A column of the table as arrays (seed, eps, image), one an architecture, for statistics that resample."""
    part = table[(table.attack == attack) & (table.target_mode == target)]
    found = {}
    for model, rows in part.groupby("model", observed=True):
        rows = rows.sort_values(["seed", "eps", "image_id"])
        shape = tuple(rows[c].nunique() for c in ("seed", "eps", "image_id"))
        found[str(model)] = rows[column].to_numpy().reshape(shape)
    return found


def pick(a: np.ndarray, images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    return a[seeds][:, :, images]


def by_eps(a: np.ndarray, images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """The mean over seeds and images, (eps,): MOD, for NISSIM."""
    return pick(a, images, seeds).mean((0, 2))


def mean_where(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Mean over images of the values where `where` holds, NaN where it never does; (seed, eps, image) -> (seed, eps)."""
    count = where.sum(-1)
    return np.where(count > 0, np.where(where, values, 0).sum(-1) / np.maximum(count, 1), np.nan)


def pooled(parts: list[np.ndarray]) -> float:
    """The mean of all finite values, NaN where there is none."""
    values = np.concatenate([p.ravel() for p in parts])
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def primaries(p: Parameters) -> tuple[str, ...]:
    """The ids of the paper's five claims: maps move, the attended region moves, failures go with it, and two on architectures."""
    return ("mod-rises", "region-moves", "flipped-move-more", "deep-keeps-more", "plain-most-stable")


def judge(table: pd.DataFrame, p: Parameters, *, test: bool = True) -> list[Claim]:
    """All claims from the table of measurements; the headline layer is each network's last stage."""
    table = table[table["last"]]
    court = Court("01", p, test=test, seeds=table.seed.nunique(), over=table.image_id.nunique())
    nissim = cube(table, "nissim")
    court.add(
        "mod-zero",
        "control",
        "Without attack nothing moves: MOD(0) = 0",
        lambda i, s: max(pick(a, i, s)[:, 0].max() for a in nissim.values()),
        Rule("within", 1e-6),
        statistic="largest NISSIM at eps 0",
        source=OURS,
    )
    for m in p.architectures:
        _shift(court.within(m, f": {FAMILY.get(m, m)}"), table, m)
    _failure(court, table)
    if {"plain", "residual", "inception"} <= set(p.architectures):
        _architectures(court, table)
    return court.rows


def _shift(court: Court, table: pd.DataFrame, m: str) -> None:
    """Claims 1 and 2, of one network: maps move, and more than under noise."""
    eps = sorted(table.eps.unique())
    nissim, noise = (cube(table, "nissim", attack=a)[m] for a in ("fgsm", "noise"))
    shift, shift_noise = (cube(table, "centroid_shift", attack=a)[m] for a in ("fgsm", "noise"))

    def over_noise(i: np.ndarray, s: np.ndarray) -> np.ndarray:
        return (by_eps(nissim, i, s) - by_eps(noise, i, s))[1:]

    def farther(i: np.ndarray, s: np.ndarray, which: slice) -> float:
        return pooled([pick(shift, i, s)[:, which]]) - pooled([pick(shift_noise, i, s)[:, which]])

    for id, kind, statement, compute, least, statistic, source, note in (
        (
            "mod-rises",
            "claim",
            "MOD rises with eps",
            lambda i, s: by_eps(nissim, i, s)[-1] - by_eps(nissim, i, s)[1],
            0.0,
            f"MOD({eps[-1]:g}) - MOD({eps[1]:g})",
            f"{SOURCE}, claim 1",
            "",
        ),
        (
            "mod-monotone",
            "claim",
            "MOD never falls by 0.01 or more from one eps to the next",
            lambda i, s: np.diff(by_eps(nissim, i, s)).min(),
            -0.01,
            "smallest step of MOD along eps",
            f"{SOURCE}, claim 1; the tolerance is ours",
            "biased downwards by noise; where contradicted, the report's table of commonest answers gives the reason",
        ),
        (
            "attack-over-noise",
            "control",
            "FGSM moves the map more than random signs of the same size, at every eps",
            lambda i, s: over_noise(i, s).min(),
            0.0,
            "smallest MOD(FGSM) - MOD(random signs) over eps",
            OURS,
            "",
        ),
        (
            "attack-over-noise-mean",
            "control",
            "The same on average over eps",
            lambda i, s: over_noise(i, s).mean(),
            0.0,
            "mean over eps of MOD(FGSM) - MOD(random signs)",
            OURS,
            "",
        ),
        (
            "region-moves",
            "claim",
            f"The attended region moves: its centre of mass shifts farther than under noise at eps {eps[-1]:g}",
            lambda i, s: farther(i, s, slice(-1, None)),
            0.0,
            "mean centroid shift, FGSM - random signs (pixels)",
            f"{SOURCE}, claim 2",
            "",
        ),
        (
            "region-moves-mean",
            "claim",
            "The same on average over eps",
            lambda i, s: farther(i, s, slice(1, None)),
            0.0,
            "mean centroid shift over eps, FGSM - random signs (pixels)",
            f"{SOURCE}, claim 2",
            "",
        ),
    ):
        court.add(id, kind, statement, compute, Rule("above", least), statistic=statistic, source=source, note=note)


def _failure(court: Court, table: pd.DataFrame) -> None:
    """Claim 3: larger shifts go with more failures; and what a mere change of the explained class makes of it."""
    nissim, class_only = cube(table, "nissim"), cube(table, "nissim_class")
    same_class = cube(table, "nissim", target="true")
    pred, clean, truth = (cube(table, c) for c in ("pred_adv", "pred_clean", "true"))
    wrong = {m: pred[m] != truth[m] for m in pred}
    flipped = {m: pred[m] != clean[m] for m in pred}

    def mod_and_error(i: np.ndarray, s: np.ndarray) -> float:
        shifts, errors = ([by_eps(a[m], i, s)[1:] for m in court.p.architectures] for a in (nissim, wrong))
        a, b = rankdata(np.concatenate(shifts)), rankdata(np.concatenate(errors))
        return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")

    def gap(values: Cube, i: np.ndarray, s: np.ndarray) -> float:
        """NISSIM of flipped less not-flipped images, within (architecture, seed, eps), where both exist."""
        parts = []
        for m in court.p.architectures:
            v, f = pick(values[m], i, s)[:, 1:], pick(flipped[m], i, s)[:, 1:]
            parts.append(mean_where(v, f) - mean_where(v, ~f))
        return pooled(parts)

    def beyond_class(i: np.ndarray, s: np.ndarray) -> float:
        parts = []
        for m in court.p.architectures:
            difference = pick(nissim[m], i, s)[:, 1:] - pick(class_only[m], i, s)[:, 1:]
            parts.append(difference[pick(flipped[m], i, s)[:, 1:]])
        return pooled(parts)

    for id, kind, statement, compute, least, statistic, source, note in (
        (
            "mod-with-error",
            "claim",
            "Larger MOD goes with more failures, over architectures and eps",
            mod_and_error,
            0.5,
            "Spearman correlation of MOD and error rate over (architecture, eps)",
            f"{SOURCE}, claim 3; the threshold is ours",
            "both rise with eps, which alone makes them correlate",
        ),
        (
            "flipped-move-more",
            "claim",
            "Within one eps, maps of images whose prediction flipped moved more than the others'",
            lambda i, s: gap(nissim, i, s),
            0.0,
            "mean NISSIM, flipped - not flipped, within (architecture, seed, eps)",
            f"{SOURCE}, claim 3",
            "explains the predicted class, which a flip changes: see the next two",
        ),
        (
            "flipped-move-more/true-class",
            "control",
            "The same with the label's class explained before and after",
            lambda i, s: gap(same_class, i, s),
            0.0,
            "mean NISSIM, flipped - not flipped, target true",
            OURS,
            "",
        ),
        (
            "more-than-class-change",
            "control",
            "Of flipped images, the map moves more than explaining the new class on the clean image would move it",
            beyond_class,
            0.0,
            "mean NISSIM(clean, attacked) - NISSIM(clean: old class, clean: new class), flipped images",
            OURS,
            "where this is contradicted, asking for another class moves the map as much without any attack",
        ),
    ):
        court.add(id, kind, statement, compute, Rule("above", least), statistic=statistic, source=source, note=note)


def _architectures(court: Court, table: pd.DataFrame) -> None:
    """Claims 4 and 5, from one training run an architecture in the paper: reported, not asserted."""
    nissim, ceiling = (cube(table, c) for c in ("nissim", "nissim_ceiling"))
    pred, truth = (cube(table, c) for c in ("pred_adv", "true"))
    correct = {m: pred[m] == truth[m] for m in pred}
    others = ("residual", "inception")

    def mean_mod(m: str, i: np.ndarray, s: np.ndarray) -> float:
        return float(by_eps(nissim[m], i, s)[1:].mean())

    def over_ceiling(m: str, i: np.ndarray, s: np.ndarray) -> float:
        most = float(pick(ceiling[m], i, s).mean())
        return mean_mod(m, i, s) / most if most > 0 else float("nan")  # all maps are empty

    def vid(m: str, i: np.ndarray, s: np.ndarray) -> float:
        return float(by_eps(nissim[m], i, s)[1:].std())

    def at_mod(m: str, mods: np.ndarray, i: np.ndarray, s: np.ndarray) -> np.ndarray:
        """Accuracy where MOD has risen to `mods`, along the curve from eps 0 to the eps of its largest MOD."""
        shift, right = by_eps(nissim[m], i, s), by_eps(correct[m], i, s)
        top = int(shift.argmax()) + 1
        return np.interp(mods, np.maximum.accumulate(shift[:top]), right[:top])

    def deep_less_wide(i: np.ndarray, s: np.ndarray) -> float:
        reach = min(by_eps(a, i, s).max() for a in nissim.values())
        mods = np.linspace(0, reach, 21)[1:]
        deep = (at_mod("plain", mods, i, s) + at_mod("residual", mods, i, s)) / 2
        return float((deep - at_mod("inception", mods, i, s)).mean())

    rows = (
        (
            "deep-keeps-more",
            "At similar shift, deep networks (plain, residual) keep more accuracy than wide ones",
            "accuracy at equal MOD, mean over MOD up to the largest that all reach, deep - wide",
            deep_less_wide,
            f"{SOURCE}, claim 4",
        ),
        (
            "plain-most-stable",
            "The plain (VGG-like) network's maps move least",
            "mean MOD, smaller of the others - plain",
            lambda i, s: min(mean_mod(m, i, s) for m in others) - mean_mod("plain", i, s),
            f"{SOURCE}, claim 5",
        ),
        (
            "plain-most-stable/ceiling",
            "The same, MOD divided by the MOD between clean maps of different images",
            "mean MOD / ceiling, smaller of the others - plain",
            lambda i, s: min(over_ceiling(m, i, s) for m in others) - over_ceiling("plain", i, s),
            OURS,
        ),
        (
            "vid-plain-smallest",
            "The plain network has the smallest VID",
            "VID (reading A), smaller of the others - plain",
            lambda i, s: min(vid(m, i, s) for m in others) - vid("plain", i, s),
            f"{SOURCE}, claim 5",
        ),
    )
    note = "architecture and sparsity decide this; the paper had one training run an architecture"
    for id, statement, statistic, compute, source in rows:
        court.add(id, "open question", statement, compute, Rule("above", 0.0), statistic=statistic, source=source, note=note)
