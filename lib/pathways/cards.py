"""The card of a neuron: what it looks for, as one picture."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from lib.data import images


def card(feature: Tensor | None, parts: Sequence[Tensor], largest: int = 64) -> Image.Image:
    """A neuron's picture: what activation maximisation makes, if it was asked, then patches that excite it, side by side."""
    shown = [*([] if feature is None else [feature]), *parts]
    size = min(shown[0].shape[-1], largest)

    def picture(x: Tensor) -> Image.Image:
        pixels = (255 * images.from_tensor(x)).round().astype(np.uint8)
        return Image.fromarray(pixels).convert("RGBA").resize((size, size), Image.Resampling.LANCZOS)

    gap = size // 16
    apart = 0 if feature is None else 2 * gap  # what was made stands apart
    strip = Image.new("RGBA", (len(shown) * (size + gap) - gap + apart, size), (0, 0, 0, 0))  # on any ground
    for i, drawn in enumerate(map(picture, shown)):
        strip.paste(drawn, (i * (size + gap) + (apart if i else 0), 0))
    return strip


def to_png(picture: Image.Image) -> bytes:
    """A card without loss, to be kept."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def from_png(content: bytes) -> Image.Image:
    """What `to_png` has kept."""
    with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
        picture.load()
        return picture


def card_uri(picture: Image.Image) -> str:
    """A card as a page holds it."""
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=35, method=4)  # 6 saves a sixteenth more, in sixteen times as long
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
