import io
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from lib.data import images


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_reads_what_it_should():
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    x = images.to_tensor(images.open_image(encoded(Image.fromarray(grey))))
    assert x.shape == (1, 6, 8) and torch.equal((x * 255).round()[0].to(torch.uint8), torch.from_numpy(grey))
    colour = Image.new("RGB", (8, 6), (255, 0, 51))
    x = images.to_tensor(images.open_image(encoded(colour, "BMP")))
    assert torch.allclose(x[:, 0, 0], torch.tensor([1.0, 0.0, 0.2]))


def test_alpha_lies_over_white_and_sixteen_bits_are_scaled():
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert images.to_tensor(images.open_image(encoded(clear))).min() == 1
    deep = Image.fromarray(np.full((4, 4), 65535, np.uint16))
    assert images.to_tensor(images.open_image(encoded(deep))).min() == 1


def test_photos_are_turned_upright():
    picture = Image.new("L", (8, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert images.open_image(encoded(picture, "JPEG", exif=exif)).size == (4, 8)


def test_size_and_channels():
    picture = images.open_image(encoded(Image.new("RGB", (40, 20), (10, 200, 30))))
    assert images.to_tensor(picture, size=16, channels=1).shape == (1, 16, 16)
    assert images.to_tensor(picture.convert("L"), size=16, channels=3).shape == (3, 16, 16)
    with pytest.raises(ValueError, match="1 or 3"):
        images.to_tensor(picture, channels=2)


def bomb(side: int) -> bytes:
    """A PNG whose header promises side x side pixels in a few hundred bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8_500, 12_000, 60_000])
def test_a_decompression_bomb_is_refused_from_its_header(side):
    with pytest.raises(ValueError, match=r"at most 64 million|cannot be read"):
        images.open_image(bomb(side), name="bomb.png")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"just text, named .png",
        encoded(Image.new("RGB", (64, 64), (1, 2, 3)), "JPEG")[:300],
        b"\x89PNG\r\n\x1a\n" + b"\0" * 64,
    ],
)
def test_what_is_no_image_is_refused_by_name(content):
    with pytest.raises(ValueError, match=r"evil\.png cannot be read as an image"):
        images.open_image(content, name="evil.png")


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    with pytest.raises(ValueError, match="at most 64 MiB"):
        images.open_image(path)


def test_from_tensor_clips_for_plotting():
    assert images.from_tensor(torch.full((1, 2, 2), 1.5)).max() == 1
    assert images.from_tensor(torch.rand(3, 4, 5)).shape == (4, 5, 3)
