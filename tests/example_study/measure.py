"""Rank correlation of a network's map with that of the next seed, a row an image."""

import pandas as pd
from lib.studies.example.plan import Parameters, evaluation_set, network

from lib.claims.rows import rows
from lib.explanations.activation_maps import gradcam
from lib.measures import comparison


def measure(p: Parameters, arch: str, seed: int) -> pd.DataFrame:
    """Everything about one network: rows (arm, seed, image_id, measure, level, value)."""
    data = evaluation_set(p)
    models = (network(p, arch, s).model for s in (seed, (seed + 1) % p.seeds))
    own, other = (gradcam(m, data.images[:], data.labels, m.stages[-1]).values for m in models)
    return rows(arch, seed, "agreement", 0, comparison.spearman(own, other))
