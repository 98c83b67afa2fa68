"""Images and labels as every kernel takes them; what is meant without doubt is converted, anything else refused in words."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

# one class an image, (N,), or one for all of them
Labels = (
    int
    | np.integer
    | Sequence[int]
    | Integer[np.ndarray, "..."]
    | Integer[Tensor, " n"]
    | Bool[Tensor, " n"]
    | Integer[Tensor, ""]
)


def tolerance(dtype: torch.dtype) -> float:
    """How far outside [0, 1] rounding can carry a pixel that was normalised and brought back.

    Four roundings of the type, of float32 at least: images of higher precision are mostly made from such ones.
    """
    return 4 * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)


def usable(t: Tensor) -> Tensor:
    """The tensor, or a copy that gradients may pass where `torch.inference_mode` made it, which forbids them for ever."""
    if not t.is_inference():
        return t
    with torch.inference_mode(False), torch.no_grad():
        return t.clone()


def check_images(x: Float[Tensor, "n c h w"], what: str = "images") -> Float[Tensor, "n c h w"]:
    """The images: (N, C, H, W), floating point, finite and in [0, 1]; anything else is a ValueError that says so.

    Pixels that rounding carried out of [0, 1] are cut to it (with the gradient of those that are inside); images that are
    in it come back as they are. Images made inside `torch.inference_mode` come back as a copy that can be differentiated.
    """
    if not isinstance(x, Tensor):
        raise ValueError(
            f"{what} are a {type(x).__name__}; expected a tensor (N, C, H, W) in [0, 1]; of an array use torch.from_numpy"
        )
    if x.dim() != 4:
        raise ValueError(f"{what} have shape {tuple(x.shape)}; expected (N, C, H, W); for one image use x[None]")
    if not x.is_floating_point():
        raise ValueError(f"{what} are {x.dtype}; expected floating point in [0, 1]; for uint8 use x.float() / 255")
    if x.numel() == 0:
        raise ValueError(f"{what}: an empty batch, shape {tuple(x.shape)}; there is nothing to do")
    x = usable(x)
    low, high = x.detach().aminmax()
    if low >= 0 and high <= 1:
        return x
    slack = tolerance(x.dtype)
    if low >= -slack and high <= 1 + slack:  # NaN fails every comparison
        return x + (x.clamp(0, 1) - x).detach()
    meant = "did you mean x / 255? " if low >= 0 and 2 < high <= 255 else ""
    raise ValueError(
        f"{what} range over [{low:.7g}, {high:.7g}]; {meant}models here take [0, 1] and normalise inside: "
        "undo any mean/std normalisation, divide 8-bit images by 255"
    )


def integers(values: Any, what: str, device: torch.device) -> Tensor:
    """Numbers, lists and arrays as a tensor on the device, whole numbers as int64; the shape is for the caller to judge."""
    if not isinstance(values, Tensor):
        try:
            listed = isinstance(values, list | tuple) and len(values) and all(isinstance(v, Tensor) for v in values)
            values = torch.stack(list(values)) if listed else torch.as_tensor(np.array(values))  # a copy: some are read-only
        except (TypeError, ValueError, RuntimeError):
            raise ValueError(
                f"{what} are {_told(values)}; expected integers, the index of each image's class in the model's logits"
            ) from None
    whole = not values.is_floating_point() and not values.is_complex()
    return usable(values.to(device, torch.long) if whole else values.to(device))


def _told(values: object) -> str:
    text = repr(values)
    return text if len(text) <= 80 else f"{text[:77]}..."


def as_labels(y: Labels, x: Float[Tensor, "n c h w"], what: str = "labels") -> Integer[Tensor, " n"]:
    """Labels as int64 (N,) on the images' device: of a tensor, array or list of one integer an image, or of one for all.

    Booleans are classes 0 and 1. Raises ValueError for labels that are none or not integers, and for another number of them.
    `check_labels` holds their range, once the number of classes is known.
    """
    if y is None:
        raise ValueError(
            f"{what} are None; give the class of each of the {len(x)} image(s), or what the model decides, "
            "lib.networks.logits_of(model, x).argmax(1)"
        )
    found = integers(y, what, x.device)
    if found.dim() == 0 and not found.is_floating_point():
        return usable(found.repeat(len(x)))
    if found.dim() == 1 and len(found) != len(x) and what == "labels":
        raise ValueError(f"{len(x)} images but {len(found)} labels")
    if found.shape != (len(x),) or found.is_floating_point() or found.is_complex():
        raise ValueError(_mismatch(found, len(x), what))
    return found


def _mismatch(y: Tensor, n: int, what: str = "labels") -> str:
    text = f"{what} have shape {tuple(y.shape)} and type {y.dtype}; expected {n} integers, one an image"
    if y.shape == (n, 1):
        return f"{text}: did you mean y[:, 0]{'.long()' if y.is_floating_point() else ''}?"
    if y.shape == (n,) and bool((y == y.round()).all()):
        return f"{text}: did you mean y.long()?"
    if y.dim() == 2 and len(y) == n and bool((y.sum(1) == 1).all()):
        return f"{text}: did you mean y.argmax(1)?"
    return text


def check_labels(y: Integer[Tensor, " n"], classes: int, n: int) -> None:
    """Labels are integers (N,) in [0, classes)."""
    if y.shape != (n,) or y.is_floating_point():
        raise ValueError(_mismatch(y, n))
    if n and (y.min() < 0 or y.max() >= classes):
        raise ValueError(f"labels range over [{y.min()}, {y.max()}], but the model has {classes} classes: 0..{classes - 1}")
