"""Images and labels as every kernel takes them; anything else is refused in words."""

from jaxtyping import Float, Int
from torch import Tensor


def check_images(x: Float[Tensor, "n c h w"], what: str = "images") -> None:
    """Images are (N, C, H, W), floating point, finite and in [0, 1]; anything else is a ValueError that says so."""
    if x.dim() != 4:
        raise ValueError(f"{what} have shape {tuple(x.shape)}; expected (N, C, H, W); for one image use x[None]")
    if not x.is_floating_point():
        raise ValueError(f"{what} are {x.dtype}; expected floating point in [0, 1]; for uint8 use x.float() / 255")
    if x.shape[0] == 0:
        raise ValueError(f"{what}: an empty batch, shape {tuple(x.shape)}; there is nothing to do")
    low, high = x.aminmax()
    if not (low >= 0 and high <= 1):  # NaN fails both comparisons
        raise ValueError(
            f"{what} range over [{low:.4g}, {high:.4g}]; models here take [0, 1] and normalise inside: "
            "undo any mean/std normalisation, divide 8-bit images by 255"
        )


def check_labels(y: Int[Tensor, " n"], classes: int, n: int) -> None:
    """Labels are integers (N,) in [0, classes)."""
    if y.shape != (n,) or y.is_floating_point():
        raise ValueError(f"labels have shape {tuple(y.shape)} and type {y.dtype}; expected {n} integers, one an image")
    if n and (y.min() < 0 or y.max() >= classes):
        raise ValueError(f"labels range over [{y.min()}, {y.max()}], but the model has {classes} classes: 0..{classes - 1}")
