r"""The maps s that saliency-based adversarial training steps against (Mangla et al. 2020), a map an image.

Weak maps need no network: +1 inside an object's mask or box, -1 outside. Teachers' maps are attributions of the true
class's logit (or the predicted one's): gradient, SmoothGrad, guided backpropagation, integrated gradients, guided
Grad-CAM++. `binarise` turns raw maps into {-1, 1}; the released code does it for some of them only, and `RELEASED` says how
its maps are made where they differ: guided backpropagation that guides nothing in its residual networks (the plain
gradient's sign), SmoothGrad and integrated gradients scaled to [0, 1], the latter of the loss instead of the logit.

Guided Grad-CAM++ (`guided.guided_gradcam`) is a map in [0, 1] or -1. Any threshold between would give back the sign that it
was joined with, so these maps are used as they are.
"""

import dataclasses
import functools
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lib.data.datasets import ImageSet
from lib.explanations import by_name, guided
from lib.explanations.by_name import Method, Settings
from lib.explanations.gradients import Of
from lib.networks import contract
from lib.system.names import Table

Weak = Literal["masks", "boxes"]
Attribution = Literal["gradient", "guided", "smoothgrad", "guided-gradcam++", "ig"]
Binarise = Literal["sign", "median", "mean", "minmax", "none"]
OfClass = Literal["true", "predicted"]
ATTRIBUTIONS = Table("attribution", [by_name.find(name) for name in get_args(Attribution)])
_UNGUIDED = dataclasses.replace(
    by_name.find("guided-gradcam++"), function=functools.partial(guided.guided_gradcam, guiding=False)
)
# (what is computed, of the logit or of the loss, how it becomes a direction) in the released code, which never guides
RELEASED: dict[Attribution, tuple[Method, Of, Binarise]] = {
    "gradient": (by_name.find("gradient"), "score", "sign"),
    "guided": (by_name.find("gradient"), "score", "sign"),
    "smoothgrad": (by_name.find("smoothgrad"), "score", "minmax"),
    "guided-gradcam++": (_UNGUIDED, "score", "none"),
    "ig": (by_name.find("ig"), "loss", "minmax"),
}
CENTRE = (1 / 6, 5 / 6)  # a box where a data set has none: the middle two thirds of height and width, for centred objects
BATCH = 128


def binarise(maps: Float[Tensor, "n c h w"], how: Binarise) -> Float[Tensor, "n c h w"]:
    """Raw maps (N, C, H, W) as directions: `sign`; above or not above each map's `median` or `mean`, as 1 and -1;
    `minmax`, scaled to [0, 1] as the released code has SmoothGrad; `none`.

    Zeros stay zero under `sign`: they say nothing, and training draws a random sign there. Raises ValueError for maps that
    are zero everywhere, are not finite, or that the chosen way cannot part (all values alike, say).
    """
    if how not in get_args(Binarise):
        raise ValueError(f"unknown binarisation {how!r}; choose one of {', '.join(get_args(Binarise))}")
    if maps.dim() != 4:
        raise ValueError(f"maps have shape {tuple(maps.shape)}; a map an image, (N, C, H, W), is needed")
    flat = maps.flatten(1)
    if not torch.isfinite(flat).all():
        raise ValueError("maps have values that are not finite; look at the teacher's gradients")
    _refuse((flat == 0).all(1), "are zero everywhere and say nothing", "train the teacher further, or use another attribution")
    # deviation: maps become signs unless told otherwise, as printed; the code scales SmoothGrad and integrated gradients to [0,
    # 1].
    if how == "sign":
        return maps.sign()
    if how == "none":
        return maps
    low, high = (v.view(-1, 1, 1, 1) for v in (flat.amin(1), flat.amax(1)))
    if how == "minmax":
        _refuse((low == high).flatten(), "have one value everywhere, so they cannot be scaled", "use sign")
        return (maps - low) / (high - low)
    threshold = flat.quantile(0.5, 1) if how == "median" else flat.mean(1)
    above = maps > threshold.view(-1, 1, 1, 1)
    parted = above.flatten(1).any(1) & ~above.flatten(1).all(1)
    _refuse(~parted, f"are not parted by their {how}: too many values are alike", "use sign")
    return torch.where(above, 1.0, -1.0).to(maps)


def _refuse(which: Tensor, what: str, remedy: str) -> None:
    if which.any():
        numbers = which.nonzero()[:, 0].tolist()
        shown = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
        raise ValueError(f"{len(numbers)} of {len(which)} maps {what} (images {shown}): {remedy}")


def weak(data: ImageSet, kind: Weak) -> Float[Tensor, "n c h w"]:
    """+1 on the object, -1 elsewhere, (N, C, H, W), the same for all channels; see the module's docstring.

    `masks` are the data set's; `boxes` too, where it has them, and else CENTRE. Raises ValueError where there are no masks,
    some of them are empty, or they are of another size than the images.
    """
    n, channels, height, width = data.images.shape
    if kind == "boxes":
        rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
        boxes = data.boxes
        if boxes is None:
            boxes = torch.tensor([[round(a * s) for a in CENTRE for s in (height, width)]]).expand(n, 4)
        top, left, bottom, right = (boxes[:, i].view(-1, 1, 1) for i in range(4))
        inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    elif kind == "masks":
        if data.masks is None:
            raise ValueError(f"{data.name} has no masks of its objects; use boxes, or a teacher's maps")
        inside = data.masks
    else:
        raise ValueError(f"unknown weak map {kind!r}; choose masks or boxes")
    if inside.shape != (n, height, width):
        raise ValueError(f"masks of shape {tuple(inside.shape)} for {n} images of {height} x {width} pixels")
    _refuse(~inside.flatten(1).any(1), f"({kind}) mark nothing", "give each image one, or leave these images out")
    return torch.where(inside, 1.0, -1.0)[:, None].expand(n, channels, height, width)


def settings(n: int = 10, ig_steps: int = 100, *, of: Of = "score", generator: torch.Generator | None = None) -> Settings:
    """What attributions take. SmoothGrad: `n` copies with noise of .15 of each image's range; integrated gradients: `ig_steps`
    points from black; guided Grad-CAM++: of the last stage."""
    return Settings(n=n, spread=0.15, steps=ig_steps, of=of, generator=generator)


def default_binarise(kind: Weak | Attribution) -> Binarise:
    return "none" if kind in ("masks", "boxes", "guided-gradcam++") else "sign"


def directions(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    y: Int[Tensor, " n"],
    *,
    kind: Attribution,
    how: Binarise | None = None,
    of_class: OfClass = "true",
    released: bool = False,
    n: int = 10,
    ig_steps: int = 100,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
) -> Float[Tensor, "n c h w"]:
    """A teacher's maps s of images, binarised: what training steps against, on the images' device. `how` defaults to `sign`
    (guided Grad-CAM++: as it is); `released` takes what RELEASED says of the kind instead. Raises ValueError for unknown
    kinds and classes, and as `binarise` does."""
    own = ATTRIBUTIONS.find(kind)
    if of_class not in get_args(OfClass):
        raise ValueError(f"unknown class {of_class!r}; maps are of the true or of the predicted one")
    # deviation: maps of the true class's logit, guided where they are called so, unless `released`; see RELEASED for the code's
    # own.
    method, of, chosen = RELEASED[kind] if released else (own, "score", default_binarise(kind))
    taken = settings(n, ig_steps, of=of, generator=generator)
    where = next(model.parameters()).device
    raw = [
        method(model, part.to(where), labels.to(where) if of_class == "true" else contract.predicted, taken).values.to(x)
        for part, labels in zip(x.split(batch_size or BATCH), y.split(batch_size or BATCH), strict=True)
    ]
    return binarise(torch.cat(raw), how or chosen)


def maps(
    data: ImageSet,
    teacher: nn.Module | None,
    *,
    kind: Weak | Attribution,
    how: Binarise | None = None,
    of_class: OfClass = "true",
    released: bool = False,
    inverted: bool = False,
    another: bool = False,
    n: int = 10,
    ig_steps: int = 100,
) -> Float[Tensor, "n c h w"]:
    """A direction for every image of a data set, (N, C, H, W): what `lib.training` hands to the objective.

    `inverted` negates them, `another` gives each image the map of another one, both as controls. Masks and boxes need no
    teacher. Raises ValueError for what is missing, and as `binarise` does.
    """
    if kind in ("masks", "boxes"):
        found = weak(data, kind)  # type: ignore[arg-type]
    elif teacher is None:
        raise ValueError(f"{kind} maps come from a teacher, and none was given")
    else:
        found = directions(
            teacher,
            data.images[:],
            data.labels,
            kind=kind,
            how=how,
            of_class=of_class,
            released=released,
            n=n,  # type: ignore[arg-type]
            ig_steps=ig_steps,
            generator=torch.Generator().manual_seed(0),
        )
    if another:
        found = found[derangement(len(found))]
    return -found if inverted else found


def derangement(n: int) -> Int[Tensor, " n"]:
    """For each of n images another one, at random: a cycle through a random order, the same for every call."""
    if n < 2:
        raise ValueError("another image's map needs two images at least")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    found = torch.empty_like(order)
    found[order] = order.roll(1)
    return found
