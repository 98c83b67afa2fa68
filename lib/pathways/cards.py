"""The card of a neuron: what it looks for, as one picture."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from lib.data import images


def card(feature: Tensor, parts: Sequence[Tensor], largest: int = 64) -> Image.Image:
    """A neuron's picture: what activation maximisation makes, then patches that excite it, side by side."""
    size = min(feature.shape[-1], largest)

    def picture(x: Tensor) -> Image.Image:
        pixels = (255 * images.from_tensor(x)).round().astype(np.uint8)
        return Image.fromarray(pixels).convert("RGB").resize((size, size), Image.Resampling.LANCZOS)

    pictures = [picture(t) for t in (feature, *parts)]
    gap = size // 16
    strip = Image.new("RGB", (len(pictures) * (size + gap) + gap, size), "white")
    for i, drawn in enumerate(pictures):
        strip.paste(drawn, (i * (size + gap) + (2 * gap if i else 0), 0))
    return strip


def card_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=35, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
