"""Pictures in fewer bytes: a profile's figures together must stay below 12 MB."""

import io

LARGEST = 100_000  # bytes of a picture in full colour; all of a profile's together must stay below 12 MB
WIDEST = 1400  # pixels of a figure of pictures; a report shows it narrower
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


def plainer(svg: bytes) -> bytes:
    """The same drawing in fewer bytes: five digits, short names, no blanks."""
    from scour import scour

    options = ["--set-precision=5", "--enable-id-stripping", "--shorten-ids", "--indent=none", "--no-line-breaks"]
    options += ["--enable-comment-stripping", "--remove-metadata", "--strip-xml-space"]
    return scour.scourString(svg.decode(), scour.parse_args(options)).encode()
