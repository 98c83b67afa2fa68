"""What Mangla et al. 2020 print, beside which study 5 puts its own numbers (`data/published`), one misprint left out."""

import functools

import numpy as np
import pandas as pd

from lib.studies.saliency_adversarial_training.plan import parsed
from lib.system import paths


@functools.cache
def published(table: str = "poster") -> pd.DataFrame:
    """The published numbers of a table, in percent."""
    found = pd.read_csv(paths.published() / "saliency_adversarial_training.csv", keep_default_na=False)
    return found[found.table == table].replace("", np.nan).astype({"alpha10": float, "eps0": float})


def printed(data: str, method: str, teacher: str = "", table: str = "poster") -> pd.Series | None:
    """Published accuracies by eps (of 255), as shares; None where there are none."""
    found = published(table)
    part = found[(found.data == data) & (found.method == method) & (found.teacher.fillna("") == teacher)]
    return part.set_index("eps").value / 100 if len(part) else None


def without_misprint(values: pd.Series) -> pd.Series:
    """Robust accuracy cannot rise with eps: what is below a later value is not there."""
    later = values[::-1].cummax()[::-1]
    return values.where(values >= later)


def theirs(arm: str, mix_maps: str = "masks") -> dict[str, pd.Series]:
    """What is published of an arm, by data set; the released guided backpropagation is the plain gradient. Mixed with PGD and
    TRADES only weak maps are published."""
    found = parsed(arm, mix_maps)
    if found.mix == "sign" or found.changes or (found.base != "plain" and found.teacher):
        return {}
    if found.base == "plain" and found.teacher:
        method = "guided" if found.attribution == "gradient" else found.attribution
        each = {"cifar-100": printed("cifar-100", method, found.teacher)}
    else:
        method = found.mix if found.base == "plain" else found.base + ("" if found.mix == "none" else f"+{found.mix}")
        method = {"none": "original"}.get(method, method)
        each = {d: printed(d, method) for d in ("tiny-imagenet", "flower-17", "cifar-100")}
    return {d: v for d, v in each.items() if v is not None}


def gaps(a: str, b: str, mix_maps: str = "masks") -> dict[str, float]:
    """Published differences of two arms, mean over the first three radii, by data set; without the misprint."""
    x, y = theirs(a, mix_maps), theirs(b, mix_maps)
    return {d: float((without_misprint(x[d]) - y[d]).loc[[1, 2, 3]].mean()) for d in x if d in y}


def said(found: dict[str, float]) -> str:
    return "published: " + ", ".join(f"{d} {v:+.3f}" for d, v in found.items()) if found else ""
