"""Pictures of one's own, files or folders of them, all checked before anything is done with any of them."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lib.data import folders, images
from lib.system import names
from lib.system.progress import say

MOST = 200  # pictures at once
LEAST_SIDE = 8  # pixels: below, there is nothing to see


@dataclass(frozen=True)
class OwnPicture:
    """A picture: its path as it was given, its size in pixels as it stands upright, and what a network is shown of it."""

    path: Path
    width: int
    height: int
    x: Float[Tensor, "c h w"]


def gather(given: Sequence[Path], *, size: int, channels: int, crop: images.Crop) -> list[OwnPicture]:
    """Every picture of the files and folders that were given, as `lib.data.images.to_tensor` cuts them.

    Below a folder all pictures are taken, at any depth, in the order of their names; other files there are passed over,
    which is said.
    Raises ValueError for what is not there, a folder without pictures and more than MOST pictures; and one that names every
    picture that cannot be used, and why: no picture, cut short, an animation, sides below LEAST_SIDE, too many pixels.
    """
    files = list(dict.fromkeys(file for path in given for file in _files(path)))
    if len(files) > MOST:
        raise ValueError(
            f"{len(files)} pictures; at most {MOST} are taken at once. Give fewer, or make a data set of them: "
            "python -m lib run 01-attention-shift --set dataset=folder:NAME"
        )
    found: list[OwnPicture] = []
    refused: list[str] = []
    for file in files:
        try:
            picture = opened(file)
            x = images.to_tensor(picture, size=size, channels=channels, crop=crop)
            found.append(OwnPicture(file, *picture.size, x))
        except ValueError as error:
            refused.append(str(error))
    if len(refused) == 1:
        raise ValueError(refused[0])
    if refused:
        raise ValueError(f"{len(refused)} of {len(files)} pictures cannot be used:\n  " + "\n  ".join(refused))
    return found


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found, other = folders.images_below(path)
        if not found:
            there = f" (but {folders.told(other)})" if other else ", it is empty"
            raise ValueError(f"the folder {path} holds no picture{there}; name another")
        if other:
            say(f"passed over in {path}: {folders.told(other)}")
        return found
    if path.is_symlink() and not path.exists():
        raise ValueError(f"{path} is a link that leads nowhere; give the picture itself")
    if not path.exists():
        beside = list(path.parent.iterdir()) if path.parent.is_dir() else []
        pictures = [p.name for p in beside if p.is_dir() or p.suffix.lower() in images.SUFFIXES]
        close = [str(path.parent / c) for c in names.close(path.name, pictures)]
        meant = f"did you mean {' or '.join(close)}?" if close else f"give its path from {Path.cwd()}"
        raise ValueError(f"there is no file {path}; {meant}")
    return [path]


def opened(source: Path | bytes, *, name: str | None = None) -> Image.Image:
    """A picture to look at, as `lib.data.images.open_image` decodes it: one alone, and not so small that nothing is to be seen.

    Raises ValueError as that does, for an animation and for sides below LEAST_SIDE.
    """
    name = name or (str(source) if isinstance(source, Path) else "the upload")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # what it warns of is refused below
        if _moves(source):
            raise ValueError(
                f"{name} is an animation or has several pages; save the one that you mean as a picture of its own."
            )
        picture = images.open_image(source, name=name)
    if min(picture.size) < LEAST_SIDE:
        size = f"{picture.width} × {picture.height} pixel{'' if picture.size == (1, 1) else 's'}"
        raise ValueError(f"{name} has {size}; a picture has {LEAST_SIDE} at least each way. Take a larger one.")
    return picture


def _moves(source: Path | bytes) -> bool:
    """Whether a file holds several pictures. (A photograph in the format MPO holds its own preview.)"""
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=images.FORMATS) as picture:
            return picture.format != "MPO" and bool(getattr(picture, "is_animated", False))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False  # what is wrong is said where it is opened
