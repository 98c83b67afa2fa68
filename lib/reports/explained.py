"""The figure and the table of somebody's own pictures: what `python -m lib explain` writes."""

import csv
import io
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

from lib.data.own_pictures import OwnPicture
from lib.figures import sheet, style
from lib.fooling.before_after import Asked, BeforeAfter, Force, Moved, Shift
from lib.measures import comparison
from lib.networks.named import Named
from lib.system import files

FIRST = "picture,width (pixels)"  # of a table
LIKELIEST = 3  # classes before, and after
MADE_BY = "python -m lib explain"
# the same figure is the same file; and a picture (.png) says that it is a figure
_ABOUT = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": MADE_BY}}


def pages(out: Path, count: int) -> list[Path]:
    """The files of the figure: `out`, or `out-1`, `out-2`, … where `count` pictures take several sheets."""
    number = len(_parts(count))
    return [out] if number == 1 else [out.with_name(f"{out.stem}-{i}{out.suffix}") for i in range(1, number + 1)]


def table_beside(out: Path) -> Path:
    """The file of the table."""
    return out.with_suffix(".csv")


def is_figure(path: Path) -> bool:
    """Whether a picture is a figure that was written here, as it says itself."""
    with Image.open(path) as picture:
        return picture.info.get("Software") == MADE_BY


def is_table(path: Path) -> bool:
    """Whether a file is a table that was written here, by how it begins."""
    with path.open("rb") as file:
        return file.read(len(FIRST)).decode(errors="replace") == FIRST


RADIUS = {
    "linf": "values of pixels from 0 to 1, the largest change (L-infinity)",
    "l2": "values of pixels from 0 to 1, the length of the change (L2)",
    None: "the attack's own measure",
}


def _parts(count: int) -> list[slice]:
    """Which pictures are on which sheet, as many on each as on any other."""
    each = -(-count // -(-count // sheet.ROWS))
    return [slice(start, start + each) for start in range(0, count, each)]


def write(
    out: Path, network: Named, pictures: Sequence[OwnPicture], found: Sequence[BeforeAfter], force: Force | None
) -> list[Path]:
    """Write the sheets, and beside them the table as CSV; the files that were written."""
    written = pages(out, len(pictures))
    for page, part in zip(written, _parts(len(pictures)), strict=True):
        with mpl.rc_context(style.STYLE):
            content = _encoded(figure(network, pictures[part], found[part], force), page.suffix[1:].lower())
        files.write_bytes(page, content)
    rows = [row for picture, one in zip(pictures, found, strict=True) for row in records(network, picture, one, force)]
    text = io.StringIO()
    table = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    files.write_bytes(table_beside(out), text.getvalue().encode())
    return [*written, table_beside(out)]


def _encoded(fig: Figure, kind: str) -> bytes:
    style.as_written(fig)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of a file's name; the table has it whole
        fig.savefig(content, format=kind, metadata=_ABOUT.get(kind))
    return content.getvalue()


# -- the figure --------------------------------------------------------------------------------------------------------


def figure(network: Named, pictures: Sequence[OwnPicture], found: Sequence[BeforeAfter], force: Force | None) -> Figure:
    """One sheet: a row a picture."""
    asked = [shift.asked for shift in found[0].shifts]
    columns = [sheet.MapColumn(_title(a), a.method.where == "layer") for a in asked]
    rows = [_row(network, picture, one, force) for picture, one in zip(pictures, found, strict=True)]
    attack = force.attack.label if force else ""
    return sheet.sheet(rows, columns, _caption(network, force), attack=attack)


def _title(asked: Asked) -> str:
    if not asked.layer:
        return asked.method.label
    return f"{asked.method.label} at {'layer ' if asked.layer.isdecimal() else ''}{asked.layer}"


def _called(network: Named, number: int) -> str:
    """A class in the figure, where a bare number would tell nothing."""
    name = network.classes[number]
    return f"class {name}" if name.isdecimal() else name


def _caption(network: Named, force: Force | None) -> str:
    told = (
        f"{network.name} sees the centre of each picture, {network.size} × {network.size} pixels. Maps are of the class "
        "that is named on the left: the yellower, the more a place counts for it."
    )
    if force is None:
        return told
    if "targets" not in force.attack.takes:
        towards = ""  # it knows nothing of the decision
    else:
        towards = f" towards {_called(network, force.aim)}" if force.aim is not None else ", away from the decision"
    radius = {
        "linf": f"no value of a pixel changes by more than {force.eps * 255:.3g}/255",
        "l2": f"the change has a length of {force.eps:.3g} at most (values of pixels from 0 to 1)",
        None: f"radius {force.eps:.3g} in a measure of its own",
    }[force.attack.norm]
    return (
        f"{told} Attack: {force.attack.label}{towards}; {radius}. Below a map: how far it moved (NISSIM, 0 the same, 1 as "
        "unlike as can be), and in brackets how far random signs of the same size move it."
    )


def _row(network: Named, picture: OwnPicture, one: BeforeAfter, force: Force | None) -> sheet.SheetRow:
    label = (
        sheet.shortened(picture.path.name, 24),
        f"{picture.width} × {picture.height} pixels",
        "maps of:",
        sheet.shortened(_called(network, one.of), 24),
    )
    after = tuple(s.after for s in one.shifts if s.after is not None)
    below = tuple(_told(s) for s in one.shifts if s.after is not None)
    return sheet.SheetRow(
        label, one.x, one.attacked, tuple(s.before for s in one.shifts), after, _decisions(network, one, force), below
    )


def _told(shift: Shift) -> str:
    """How far a map moved, and whether there is one left."""
    assert shift.after is not None and shift.moved is not None and shift.moved_by_noise is not None
    empty = "empty; " if comparison.degenerate(shift.after) else ""
    return f"{empty}moved by {shift.moved.nissim:.2f} ({shift.moved_by_noise.nissim:.2f})"


def _decisions(network: Named, one: BeforeAfter, force: Force | None) -> tuple[tuple[str, float, float | None], ...]:
    """The likeliest classes before and after, the explained one and the one aimed at, as (name, before, after)."""
    attacked = "after" in one.logits
    chosen: list[int] = []
    for version in ("before", "after") if attacked else ("before",):
        logits = one.logits[version]
        chosen += logits.topk(min(LIKELIEST - attacked, len(logits))).indices.tolist()
    chosen += [one.of] if force is None or force.aim is None else [one.of, force.aim]
    numbers = list(dict.fromkeys(chosen))
    return tuple(
        (_called(network, n), one.probability("before", n), one.probability("after", n) if attacked else None) for n in numbers
    )


# -- the table ---------------------------------------------------------------------------------------------------------


def records(network: Named, picture: OwnPicture, one: BeforeAfter, force: Force | None) -> list[dict[str, Any]]:
    """A row a map; names of columns end in their unit."""
    about = {
        "picture": str(picture.path),
        "width (pixels)": picture.width,
        "height (pixels)": picture.height,
        "network": network.name,
        "side of its images (pixels)": network.size,
        "class of the map": network.classes[one.of],
    }
    attack: dict[str, Any] = {
        "attack": force.attack.name if force else "none",
        "aim": "" if force is None or force.aim is None else network.classes[force.aim],
        "radius": force.eps if force else "",
        "radius in": RADIUS[force.attack.norm] if force else "",
        "steps": force.steps if force and "steps" in force.attack.takes else "",
        "largest change of a value (1/255)": _number(one.largest_change * 255) if force else "",
        "what the attack warns of": "; ".join(one.warnings),
    }
    said: dict[str, Any] = {}
    for version, called in (("before", "before"), ("after", "after"), ("noise", "random signs")):
        there = version in one.logits
        decided = one.decision(version) if there else 0
        said |= {
            f"decision, {called}": network.classes[decided] if there else "",
            f"probability of the decision, {called} (0 to 1)": _number(one.probability(version, decided)) if there else "",
            f"probability of the class, {called} (0 to 1)": _number(one.probability(version, one.of)) if there else "",
            f"score of the class, {called} (logit)": _number(float(one.logits[version][one.of])) if there else "",
        }
    return [
        about
        | {"method": shift.asked.method.name, "layer": shift.asked.layer or "pixels"}
        | attack
        | said
        | _moved("after", shift.moved)
        | _moved("random signs", shift.moved_by_noise)
        for shift in one.shifts
    ]


def _moved(called: str, moved: Moved | None) -> dict[str, Any]:
    return {
        f"NISSIM of the maps, {called} (0 same to 1)": _number(moved.nissim) if moved else "",
        f"rank correlation of the maps, {called} (-1 to 1)": _number(moved.rank_correlation) if moved else "",
    }


def _number(value: float) -> str:
    """Six digits; nothing where there is no value, such as the rank correlation of a map that is the same everywhere."""
    return f"{value:.6g}" if math.isfinite(value) else ""
