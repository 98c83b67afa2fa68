"""Image files and uploads, read with suspicion: size and format are checked before a pixel is decoded."""

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pbm", ".pgm", ".pnm", ".ppm")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64 * 10**6
Crop = Literal["whole", "imagenet"]
RESAMPLE = {"whole": Image.Resampling.BILINEAR, "imagenet": Image.Resampling.BICUBIC}
BORDER = {"whole": 0.0, "imagenet": 1 / 16}  # the share of the shorter side that is left out at each edge
GREY = ("1", "L", "LA", "La")  # of Pillow's modes, beside those of numbers with more than 8 bits
# TIFF's tags: bits of a sample, how black and white are meant, format (1 unsigned, 2 signed, 3 float), lowest and highest value
BITS, PHOTOMETRIC, FORMAT, LOWEST, HIGHEST = 258, 262, 339, 340, 341


def is_grey(mode: str) -> bool:
    """Whether a picture of one of Pillow's modes is opened as grey."""
    return mode in GREY or _is_deep(mode)


def _is_deep(mode: str) -> bool:
    return mode == "F" or mode.startswith("I")


def header(path: Path) -> tuple[str, tuple[int, int]] | None:
    """Pillow's mode and the size in pixels (as stored) that a file's header tells; None where it has no header of an image."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.mode, image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def open_image(source: Path | bytes, *, name: str | None = None) -> Image.Image:
    """Decode an image file, or the bytes of an upload, upright (EXIF) and in mode L or RGB (alpha over white).

    Of several frames or pages the first is taken. Numbers of more than 8 bits are scaled by what the file says is white: its
    bits, 1 for floating point, or a TIFF's SMaxSampleValue. Raises ValueError that names the file and says what is wrong: too
    many bytes or pixels (also of a decompression bomb, which is refused from its header), not an image, an unsupported
    format, cut short, numbers outside black and white, or so far below white that the picture would be all but black.
    """
    name = name or (str(source) if isinstance(source, Path) else "the upload")
    size = source.stat().st_size if isinstance(source, Path) else len(source)
    if size > MAX_BYTES:
        raise ValueError(f"{name} has {size / 2**20:.0f} MiB; at most {MAX_BYTES // 2**20} MiB are read. Make it smaller.")
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(
                    f"{name} has {width} x {height} pixels; at most {MAX_PIXELS // 10**6} million are decoded. Scale it down."
                )
            tags = dict(getattr(image, "tag_v2", {}))
            cut = image.mode in ("RGB", "RGBA") and any(";16" in str(tile) for tile in image.tile)  # to 8 bits, by Pillow
            image.load()
            image = ImageOps.exif_transpose(image)
    except ValueError:
        raise
    except Image.DecompressionBombError:  # so many that Pillow does not tell how many
        raise ValueError(
            f"{name} has more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} million pixels; at most "
            f"{MAX_PIXELS // 10**6} million are decoded. Scale it down."
        ) from None
    except UnidentifiedImageError:
        raise ValueError(
            f"{name} cannot be read as an image: its content is none of {', '.join(FORMATS)}, whatever its name says."
        ) from None
    except Exception as error:  # Pillow's decoders raise whatever their format's parser meets
        if isinstance(error, OSError) and error.strerror:  # of the system: no permission, a folder, a broken disk
            raise ValueError(f"{name} cannot be read: {error.strerror}.") from error
        raise ValueError(
            f"{name} cannot be read as an image ({error}). It may have been cut short: copy or save it again."
        ) from error
    if _is_deep(image.mode):
        return _scaled(image, tags, name)
    if cut and (brightest := max(high for _, high in image.getextrema()[:3])) < 16:  # type: ignore[index]
        raise ValueError(_all_but_black(name, f"its brightest value is below {256 * (brightest + 1)}", "65535"))
    grey = is_grey(image.mode)
    if image.mode in ("RGBa", "La"):  # colours that were multiplied by their alpha
        image = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode])
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert("L" if grey else "RGB")


def _scaled(image: Image.Image, tags: dict[int, Any], name: str) -> Image.Image:
    """Numbers of more than 8 bits as a grey picture of 8, by what the file says is black and white."""

    def tag(number: int, default: float) -> float:
        found = tags.get(number, default)
        return found[0] if isinstance(found, tuple) else found

    values = np.asarray(image, np.float64)
    bits, kind = tag(BITS, 32 if image.mode == "F" else 16), tag(FORMAT, 3 if image.mode == "F" else 1)
    black = float(tag(LOWEST, 0))
    white = float(tag(HIGHEST, 1 if kind == 3 else 2 ** (bits - (kind == 2)) - 1))
    low, high = float(values.min()), float(values.max())
    if not (white > black and black - 1e-6 <= low and high <= white * (1 + 1e-6)):  # NaN fails too
        raise ValueError(
            f"{name}: its values range over [{low:g}, {high:g}], but black is {black:g} and white is {white:g}"
            f"{' in a picture of floating-point numbers' if kind == 3 else ''}. Scale them, or save it with 8 bits."
        )
    if black < high and 16 * (high - black) < white - black:
        raise ValueError(_all_but_black(name, f"its largest value is {high:g}", f"{white:.10g}"))
    share = (values - black) / (white - black)
    if tags.get(PHOTOMETRIC) == 0:  # white is zero: Pillow turns only 8 bits over
        share = 1 - share
    if isinstance(clear := image.info.get("transparency"), int):
        share[values == clear] = 1.0
    return Image.fromarray(np.rint(share.clip(0, 1) * 255).astype(np.uint8))


def _all_but_black(name: str, brightest: str, white: str) -> str:
    return (
        f"{name} would be all but black: {brightest}, where the file says that white is {white}. Its numbers seem to have "
        "fewer bits than the file: scale them up to white, or save it with 8 bits."
    )


def to_tensor(
    image: Image.Image, *, size: int | None = None, channels: int | None = None, crop: Crop = "whole"
) -> Float[Tensor, "c h w"]:
    """(C, H, W) float32 in [0, 1]; with `size`, the shorter side is scaled to it and the centre cut out, square.

    `crop="imagenet"` is how ImageNet's classifiers are evaluated: the shorter side is scaled to 8/7 of `size` (256 for 224),
    bicubic, so that a border is left out. A picture that has the size already stays as it is.
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    if channels is not None:
        image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), method=RESAMPLE[crop], bleed=BORDER[crop])
    array = np.asarray(image, np.float32) / 255
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def luma(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Colour images (N, 3, H, W) as grey ones (N, 1, H, W), by the weights of ITU-R BT.601."""
    return (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)


def from_tensor(x: Tensor) -> np.ndarray:
    """(H, W) or (H, W, 3) in [0, 1], for plotting."""
    array = x.detach().cpu().clamp(0, 1).numpy()
    return array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)
