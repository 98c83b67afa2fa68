"""The one result of whatever explains a decision."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Explanation(NamedTuple):
    """values, and the logits (N, classes) that the same forward pass gave for the images as they are.

    A map at a layer is (N, h, w), pixels are (N, C, H, W), raw and signed unless whoever made them says otherwise; for K
    classes an image there is a dimension more, (N, K, ...).
    """

    values: Float[Tensor, "n ..."]
    logits: Float[Tensor, "n classes"]
