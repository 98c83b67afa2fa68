"""Image files and uploads, read with suspicion: size and format are checked before a pixel is decoded."""

import io
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64 * 10**6


def open_image(source: Path | bytes, *, name: str | None = None) -> Image.Image:
    """Decode an image file, or the bytes of an upload, upright (EXIF) and in mode L or RGB (alpha over white).

    Raises ValueError that names the file and says what is wrong: too many bytes or pixels (also of a decompression
    bomb, which is refused from its header), not an image, an unsupported format, cut short.
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
            image.load()
            image = ImageOps.exif_transpose(image)
    except ValueError:
        raise
    except UnidentifiedImageError:
        raise ValueError(
            f"{name} cannot be read as an image: its content is none of {', '.join(FORMATS)}, whatever its name says."
        ) from None
    except Exception as error:  # Pillow's decoders raise whatever their format's parser meets
        raise ValueError(
            f"{name} cannot be read as an image ({error}). It may have been cut short: copy or save it again."
        ) from error
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        top = 65535.0 if image.mode.startswith("I") else max(values.max(), 1.0)
        return Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image if image.mode == "L" else image.convert("RGB")


def to_tensor(image: Image.Image, *, size: int | None = None, channels: int | None = None) -> Tensor:
    """(C, H, W) float32 in [0, 1]; with `size`, the shorter side is scaled to it and the centre cut out, square."""
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    if channels is not None:
        image = image.convert("L" if channels == 1 else "RGB")
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    array = np.asarray(image, np.float32) / 255
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def luma(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Colour images (N, 3, H, W) as grey ones (N, 1, H, W), by the weights of ITU-R BT.601."""
    return (x * x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)


def from_tensor(x: Tensor) -> np.ndarray:
    """(H, W) or (H, W, 3) in [0, 1], for plotting."""
    array = x.detach().cpu().clamp(0, 1).numpy()
    return array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)
