"""Pictures and their numbers in fewer bytes: a profile's figures together must stay below 12 MB."""

import gzip
import io
from pathlib import Path

from lib.system import files

LONGEST = 60_000  # bytes of a table that everything opens; larger ones are compressed, as `pandas.read_csv` takes them
ENDS = (".png", ".svg", ".csv", ".csv.gz")  # of the files of a figure
LARGEST = 60_000  # bytes of a picture in full colour; all of a profile's together must stay below 12 MB
WIDEST = 1040  # pixels of a figure of pictures, as wide as a report shows it
COARSE = 50  # dots an inch of a smoke run's figures, which nobody reads


def smaller(png: bytes, line_art: bool) -> bytes:
    """The same picture in fewer bytes: without transparency; line art, and what is above LARGEST, in 256 colours."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")

    def saved(picture: Image.Image) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", optimize=True)
        return buffer.getvalue()

    whole = b"" if line_art else min(saved(image), png, key=len)
    return (
        whole
        if 0 < len(whole) <= LARGEST
        else min(saved(image.quantize(256, kmeans=0 if line_art else 3)), whole or png, key=len)
    )


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
