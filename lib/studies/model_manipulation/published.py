"""What Heo et al. 2019 print, beside which study 4 puts its own numbers: success rates and accuracies of three networks on
ImageNet (`data/published/model_manipulation.csv`).

The row of active success rates has eight values for nine columns; it is read from the left, the only reading in which fooled
interpreters score high on themselves.
"""

import functools

import pandas as pd

from lib.system import paths

NETWORKS = {"vgg19": "VGG19", "resnet50": "ResNet50", "densenet121": "DenseNet121"}


@functools.cache
def table() -> pd.DataFrame:
    """Rows (table, fooling, through, class, network, column, value), in percent."""
    return pd.read_csv(paths.published() / "model_manipulation.csv", keep_default_na=False, dtype={"value": float})


def _rates(kind: str, through: str, column: str) -> pd.DataFrame:
    found = table()
    return found[(found.table == "fsr") & (found.fooling == kind) & (found.through == through) & (found.column == column)]


def rates(kind: str, through: str, column: str) -> dict[str, float]:
    """Success rates of a passive fooling by network, as shares; empty where the paper has none."""
    part = _rates(kind, through, column)
    return {NETWORKS[n]: v / 100 for n, v in zip(part.network, part.value, strict=True)}


def swaps(through: str) -> dict[str, float]:
    """Success rates of an active fooling under the interpreter that was fooled, as shares: by network, of the class where they
    are smaller; empty where the paper has none."""
    part = _rates("active", through, through)
    return {NETWORKS[n]: v / 100 for n, v in part.groupby("network", sort=False).value.min().items()}


def difference(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    """By network, where both are printed."""
    return {network: a[network] - b[network] for network in a}


def told(values: dict[str, float], sign: str = "") -> str:
    """As a note; empty where there is nothing to tell."""
    return "published: " + ", ".join(f"{n} {v:{sign}.3f}" for n, v in values.items()) if values else ""
