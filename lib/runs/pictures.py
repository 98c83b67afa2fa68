"""Pictures and their numbers in fewer bytes: those of both committed profiles together stay below 24 MB."""

import gzip
import io
from pathlib import Path
from typing import Any

from lib.system import files

LONGEST = 60_000  # bytes of a table that everything opens; larger ones are compressed, as `pandas.read_csv` takes them
ENDS = (".png", ".webp", ".svg", ".csv", ".csv.gz")  # of the files of a figure
LARGEST = 100_000  # bytes of a picture without loss
QUALITY = 75  # of a larger one, which photographs or noise make so
WIDEST = 1200  # pixels of a figure of pictures; a report shows it in 1030
COARSE = 50  # dots an inch of a smoke run's figures, which nobody reads


def write_picture(folder: Path, name: str, png: bytes, line_art: bool) -> Path:
    """A PNG file in fewer bytes, without transparency: as NAME.png, line art in 256 colours; or as NAME.webp, where it is no
    line art and longer than LARGEST. The other is no longer there."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")

    def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        return buffer.getvalue()

    content = min(saved(image.quantize(256) if line_art else image, "PNG", optimize=True), png, key=len)
    written, other = folder / f"{name}.png", folder / f"{name}.webp"
    if len(content) > LARGEST and not line_art:
        written, other = other, written
        content = saved(image, "WEBP", quality=QUALITY, method=6)
    files.write_bytes(written, content)
    other.unlink(missing_ok=True)
    return written


def write_table(folder: Path, name: str, content: bytes) -> Path:
    """A CSV file as NAME.csv, or as NAME.csv.gz where it is longer than LONGEST; the other is no longer there."""
    plain, packed = folder / f"{name}.csv", folder / f"{name}.csv.gz"
    written, other = (packed, plain) if len(content) > LONGEST else (plain, packed)
    files.write_bytes(written, gzip.compress(content, mtime=0) if written == packed else content)
    other.unlink(missing_ok=True)
    return written


def plainer(svg: bytes) -> bytes:
    """The same drawing in fewer bytes: five digits, short names, no blanks."""
    from scour import scour

    options = ["--set-precision=5", "--enable-id-stripping", "--shorten-ids", "--indent=none", "--no-line-breaks"]
    options += ["--enable-comment-stripping", "--remove-metadata", "--strip-xml-space"]
    return scour.scourString(svg.decode(), scour.parse_args(options)).encode()
