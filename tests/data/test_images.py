import errno
import io
import struct
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


ORANGE, SHADE = (200, 100, 50), 100
DEEP = round(SHADE / 255 * 65535)
# mode, what fills it, formats that Pillow writes it in, what is seen
FILLED = (
    ("1", 1, "PNG BMP TIFF PPM", 255),
    ("L", SHADE, "PNG JPEG BMP GIF WEBP TIFF PPM", SHADE),
    ("RGB", ORANGE, "PNG JPEG BMP GIF WEBP TIFF PPM", ORANGE),
    ("RGBX", (*ORANGE, 0), "JPEG TIFF", ORANGE),
    ("RGBA", (*ORANGE, 128), "PNG WEBP TIFF", (227, 177, 152)),
    ("CMYK", (55, 155, 205, 0), "JPEG TIFF", ORANGE),
    ("YCbCr", (124, 86, 182), "JPEG TIFF", ORANGE),
    ("LAB", (138, 166, 174), "TIFF", ORANGE),  # for D50, by Bradford: L* of 100 is 255, a* and b* begin at -128
    ("HSV", (14, 191, 200), "WEBP", ORANGE),
    ("LA", (SHADE, 128), "PNG WEBP TIFF", 177),
    ("I;16", DEEP, "PNG TIFF PPM", SHADE),
    ("I;16B", DEEP, "PNG TIFF", SHADE),
    ("I;16L", DEEP, "TIFF", SHADE),
    ("I", DEEP, "PPM", SHADE),
    ("I", round(SHADE / 255 * (2**31 - 1)), "TIFF", SHADE),
    ("F", SHADE / 255, "TIFF PPM", SHADE),
)


@pytest.mark.parametrize(("mode", "fill", "kind", "seen"), [(m, f, k, s) for m, f, ks, s in FILLED for k in ks.split()])
def test_every_mode_has_its_values(mode, fill, kind, seen):
    picture = images.open_image(encoded(Image.new(mode, (8, 8), fill), kind))
    found = np.asarray(picture.convert("RGB"), float)[4, 4]
    assert np.abs(found - seen).max() <= (3 if kind in ("JPEG", "WEBP") or mode in ("YCbCr", "LAB", "HSV") else 1), found
    assert picture.mode == "L" or np.ndim(seen) or kind in ("GIF", "WEBP")  # which have no grey


def test_palettes_have_their_values():
    for mode in ("P", "PA"):
        picture = Image.new("P", (4, 4), 7)
        picture.putpalette([0] * 21 + list(ORANGE))
        for kind in ("PNG", "TIFF", "GIF", "BMP") if mode == "P" else ("TIFF",):
            assert images.open_image(encoded(picture.convert(mode), kind)).getpixel((1, 1)) == ORANGE, (mode, kind)
    clear = encoded(Image.new("P", (4, 4)), "PNG", transparency=0)
    assert images.open_image(clear).getpixel((0, 0)) == (255, 255, 255)


def test_no_mode_of_pillow_is_left_out():
    """What Pillow reads and does not write (RGBa, La) is in the TIFF files below; I;16N is how it computes, in no file."""
    assert set(Image.MODES) <= {m for m, *_ in FILLED} | {"P", "PA", "RGBa", "La", "I;16N"}


def tiff(samples: np.ndarray, bits: int, photometric: int = 1, kind: int = 1, extra: int | None = None, white=None) -> bytes:
    """An uncompressed little-endian TIFF of samples as they lie, (H, W) or (H, W, C)."""
    height, width, *channels = samples.shape
    channels = channels[0] if channels else 1
    content, tags = samples.tobytes(), []
    for number, value in (
        (256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, channels), (278, height),
        (279, len(content)), (338, extra), (339, kind), (341, white),
    ):  # fmt: skip
        if value is not None:
            count = channels if number == 258 else 1
            tags.append(struct.pack("<HHI", number, 3 if value < 65536 else 4, count) + struct.pack("<I", value))
    after = 8 + len(content)
    if channels > 2:  # their bits stand outside of the tag
        tags[2] = struct.pack("<HHII", 258, 3, channels, after)
        content += struct.pack(f"<{channels}H", *[bits] * channels)
        after = 8 + len(content)
    elif channels == 2:
        tags[2] = struct.pack("<HHIHH", 258, 3, 2, bits, bits)
    return struct.pack("<2sHI", b"II", 42, after) + content + struct.pack("<H", len(tags)) + b"".join(tags) + b"\0" * 4


def full(value, kind, *channels):
    return np.full((4, 4, *channels), value, kind)


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (tiff(full(DEEP, "<u2"), 16), 100),
        (tiff(full(65535 - DEEP, "<u2"), 16, photometric=0), 100),  # white is zero
        (tiff(full(155, "u1"), 8, photometric=0), 100),
        (tiff(full(SHADE / 255, "<f4"), 32, kind=3), 100),
        (tiff(full(1 - SHADE / 255, "<f4"), 32, photometric=0, kind=3), 100),
        (tiff(full(DEEP // 2, "<i2"), 16, kind=2), 100),  # signed: white is 32767
        (tiff(full(100, "<i4"), 32, kind=2, white=255), 100),  # the file says what white is
        (tiff(full(1606, "<u2"), 16, white=4095), 100),
        (tiff(full((50, 128), "u1", 2), 8, extra=1), 177),  # La: the grey is multiplied by its alpha already
        (tiff(full((100, 50, 25, 128), "u1", 4), 8, photometric=2, extra=1), (227, 177, 152)),  # RGBa likewise
        (tiff(full((DEEP, DEEP, 0), "<u2", 3), 16, photometric=2), (100, 100, 0)),
    ],
)
def test_a_tiff_is_scaled_by_what_it_says(content, seen):
    found = np.asarray(images.open_image(content).convert("RGB"), float)[2, 2]
    assert np.abs(found - seen).max() <= 1, found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tiff(full(255, "<i4"), 32, kind=2), r"all but black: its largest value is 255, .* white is 2147483647"),
        (tiff(full(255, "<u2"), 16), r"largest value is 255, where the file says that white is 65535.*fewer bits"),
        (encoded(Image.fromarray(np.full((4, 4), 4095, np.uint16))), r"largest value is 4095, .* white is 65535"),
        (tiff(full(4095, "<u2", 3), 16, photometric=2), r"brightest value is below 4096, .* white is 65535"),
        (tiff(full(200.0, "<f4"), 32, kind=3), r"range over \[200, 200\], but black is 0 and white is 1 in a picture of fl"),
        (tiff(full(np.nan, "<f4"), 32, kind=3), r"range over \[nan, nan\]"),
        (tiff(full(-5, "<i2"), 16, kind=2), r"range over \[-5, -5\]"),
    ],
)
def test_numbers_that_would_be_black_are_refused(content, message):
    with pytest.raises(ValueError, match=f"^mine.tif.*{message}.*8 bits"):
        images.open_image(content, name="mine.tif")


def test_black_stays_black():
    for content in (tiff(full(0, "<u2"), 16), tiff(full(0, "<i4"), 32, kind=2), tiff(full(0.0, "<f4"), 32, kind=3)):
        assert images.open_image(content).getextrema() == (0, 0)


def test_the_first_frame_is_taken():
    frames = [Image.new("RGB", (6, 4), c) for c in (ORANGE, (0, 0, 255))]
    for kind in ("GIF", "TIFF", "PNG", "WEBP"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.abs(np.subtract(images.open_image(content).getpixel((2, 2)), ORANGE)).max() <= 3, kind
    assert images.to_tensor(images.open_image(encoded(Image.new("RGB", (1, 1), ORANGE))), size=16).shape == (3, 16, 16)


def test_what_the_system_refuses_is_said_as_such(tmp_path, monkeypatch):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match=r"folder\.png cannot be read: Is a directory\.$"):
        images.open_image(tmp_path / "folder.png")
    (tmp_path / "mine.png").write_bytes(b"")

    def refused(*_arguments, **_options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(images.Image, "open", refused)  # root may read everything, so that chmod would show nothing
    with pytest.raises(ValueError, match=r"mine\.png cannot be read: Permission denied\.$"):
        images.open_image(tmp_path / "mine.png")


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
    with pytest.raises(
        ValueError, match=r"^bomb\.png has (more than )?\d.* pixels; at most 64 million are decoded\. Scale it down"
    ):
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
