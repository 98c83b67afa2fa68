"""Rows of a study's table of measurements. On their own, so that what judges can change and nothing is measured again.

The table is tidy, a row a measurement: (arm, seed, image_id, measure, level, value).
"""

import pandas as pd
import torch
from torch import Tensor


def rows(arm: str, seed: int, measure: str, level: float, values: Tensor, ids: Tensor | None = None) -> pd.DataFrame:
    """A row an image of one measure, values (N,); `ids` are the images' numbers, 0 to N - 1 unless given."""
    return pd.DataFrame(
        {
            "arm": arm,
            "seed": seed,
            "image_id": range(len(values)) if ids is None else ids.numpy(),
            "measure": measure,
            "level": float(level),
            "value": values.detach().cpu().to(torch.float32).numpy(),
        }
    )
