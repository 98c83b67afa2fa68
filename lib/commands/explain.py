"""`python -m lib explain PICTURE…`: what a network sees in somebody's own pictures, before and after an attack."""

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lib.attacks import by_name as attacks
from lib.attacks import steps
from lib.attacks.unforeseen import CALIBRATED
from lib.data import own_pictures
from lib.data.own_pictures import OwnPicture
from lib.explanations import by_name as explanations
from lib.fooling import before_after
from lib.fooling.before_after import Asked, BeforeAfter, Force
from lib.measures import comparison
from lib.networks import named
from lib.networks.named import Named
from lib.reports import explained
from lib.system import devices
from lib.system.progress import say

FORMATS = (".png", ".pdf", ".svg")
MOST_MAPS = 4  # columns of a figure that can still be read
EPS = "2/255"
EXAMPLES = """examples:
  python -m lib explain cat.jpg
  python -m lib explain cat.jpg dog.jpg --method gradcam,lrp --out both.pdf
  python -m lib explain photos/ --attack pgd --eps 2/255 --aim ocarina --steps 5 --out photos.png
  python -m lib explain cat.jpg --of "tiger cat" --layer blocks.4,bn2 --attack fgsm --eps .01 --out layers.svg
  python -m lib explain cat.jpg --network mynet.py:build --size 64 --method gradcam
"""
ABOUT = """Maps of what speaks for a class in your own pictures; with --attack, before and after it. Writes one figure,
a row a picture, and beside it a table (CSV) of decisions, scores and how far the maps moved, next to random signs
of the same size. Of a picture the network sees the central square."""


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m lib explain", description=ABOUT, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE", help="a file, or a folder of pictures")
    found.add_argument(
        "--network",
        metavar="NAME",
        default="efficientnet-lite0",
        help="a name (%(default)s unless given), torchvision:NAME, or your own code: module:function or "
        "folder/file.py:function, a function without arguments that returns the network",
    )
    found.add_argument(
        "--size", type=int, metavar="N", help="side of the images that the network takes, in pixels; its own unless given"
    )
    found.add_argument(
        "--method",
        metavar="NAME",
        default="gradcam",
        help=f"one or, comma between, several of {', '.join(explanations.METHODS)}",
    )
    found.add_argument(
        "--layer", metavar="NAME", help="one or, comma between, several; the last convolutional stage unless given"
    )
    found.add_argument("--of", metavar="CLASS", help="whose map: a name or number; unless given, what the network decides for")
    found.add_argument(
        "--attack", metavar="NAME", default="none", help=f"one of {', '.join(attacks.ATTACKS)}; %(default)s unless given"
    )
    found.add_argument(
        "--eps",
        metavar="2/255",
        help=f"its radius: in images from 0 to 1, such as 2/255 or .01; {EPS} unless given. Of L2, "
        "gabor, snow and jpeg attacks in a measure of their own",
    )
    found.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="of an attack that takes several; unless given 20 of PGD, 200 of Gabor, snow and JPEG",
    )
    found.add_argument("--aim", metavar="CLASS", help="what the attack shall make of it; unless given, anything else")
    found.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        default=Path("explained.png"),
        help="the figure, as .png, .pdf or .svg; %(default)s unless given",
    )
    found.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu, cuda, mps")
    return found


def main(given: list[str]) -> int:
    a = parser().parse_args(given)
    try:
        _check_form(a)
        device = devices.usable(a.device)
        network = named.load(a.network, size=a.size)
        asked, of, force = _asked(network, a), _class(network, a.of, "--of"), _force(network, a)
        pictures = own_pictures.gather(a.pictures, size=network.size, channels=network.channels, crop=network.crop)
        pictures = _without_earlier(a.pictures, pictures)
        pages = dict.fromkeys((a.out, *explained.pages(a.out, len(pictures))))  # of fewer, if some are left out, these or it
        _check_writable([*pages, explained.table_beside(a.out)], pictures)
        network.model.to(device)
        found: dict[int, BeforeAfter] = {}
        with devices.one_thread_on_cpu(a.device):  # the numbers of an attack do not depend on how many cores there are
            for i, picture in enumerate(pictures):
                try:
                    one = before_after.before_and_after(
                        network.model, picture.x[None].to(device), asked, of=of, force=force, head=network.head
                    )
                except Exception as error:  # of this picture, whatever somebody's own network raises: the others are not lost
                    known = isinstance(error, (ValueError, RuntimeError))
                    told = error if known else RuntimeError(f"the network raised {type(error).__name__}: {error}")
                    if len(pictures) == 1:
                        raise told from None
                    say(f"{picture.path} is left out: {told}")
                    continue
                found[i] = one
                _tell(picture, one)
                if len(pictures) > 1:
                    say(f"{i + 1} of {len(pictures)}: {picture.path}")
        if not found:
            raise ValueError("every picture was left out; nothing is written")
        for written in explained.write(a.out, network, [pictures[i] for i in found], list(found.values()), force):
            say(str(written))
    except (ValueError, RuntimeError, OSError) as error:
        say(f"error: {error}")
        return 2 if isinstance(error, ValueError) else 1
    return 0 if len(found) == len(pictures) else 1


def _tell(picture: OwnPicture, one: BeforeAfter) -> None:
    """What a figure does not show: why nothing may have moved, and that a map is empty."""
    for warning in one.warnings:
        say(f"{picture.path}: {warning}")
    for shift in one.shifts:
        if comparison.degenerate(shift.before[None]):
            say(f"{picture.path}: the map of {shift.asked.method.label} is the same everywhere, so that it marks nothing")


# -- what was typed ----------------------------------------------------------------------------------------------------


def _listed(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _check_form(a: argparse.Namespace) -> None:
    """ValueError for what is wrong whatever the network is."""
    if a.out.suffix.lower() not in FORMATS:
        raise ValueError(f"--out {a.out}: a figure is written as {', '.join(FORMATS)}; give it one of these endings")
    methods = [explanations.find(name) for name in _listed(a.method)]
    attack = attacks.find(a.attack)
    if not methods:
        raise ValueError(f"--method names none; there are {', '.join(explanations.METHODS)}")
    if a.layer is not None and not _listed(a.layer):
        raise ValueError("--layer names none; leave it out for the last convolutional stage")
    if a.layer is not None and not any("layer" in m.takes for m in methods):
        raise ValueError(f"--layer {a.layer}: {', '.join(m.name for m in methods)} is made at the pixels; leave the layer out")
    stray = [f"--{name}" for name in ("eps", "steps", "aim") if getattr(a, name) is not None]
    if attack.name == "none" and stray:
        raise ValueError(f"{' and '.join(stray)} without an attack; name one, --attack pgd")
    if a.steps is not None and (a.steps < 1 or "steps" not in attack.takes):
        raise ValueError(f"--steps {a.steps}: " + ("one at least" if a.steps < 1 else f"{attack.name} takes a single step"))
    if a.aim is not None and "targets" not in attack.takes:
        raise ValueError(f"--aim {a.aim}: {attack.name} aims at nothing; choose pgd or fgsm")
    if a.eps is None and attack.norm != "linf":
        known = CALIBRATED.get(attack.name)
        such = f", such as {known[0]:.2g} (weak) to {known[-1]:g} (strong; Kang et al. 2019)" if known else ""
        raise ValueError(f"--attack {attack.name} has a radius in another measure than {EPS} is meant for; give --eps{such}")


def _eps(text: str) -> float:
    """`2/255` or `.01` as a number."""
    number = r"\s*(\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*"
    top, slash, bottom = text.partition("/")
    if not re.fullmatch(number, top) or (slash and not re.fullmatch(number, bottom)) or (slash and float(bottom) == 0):
        raise ValueError(f"--eps {text}: write a number from 0 up, such as 2/255 or .01")
    return float(top) / (float(bottom) if slash else 1.0)


def _class(network: Named, typed: str | None, option: str) -> int | None:
    if typed is None:
        return None
    try:
        return network.class_number(typed)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _asked(network: Named, a: argparse.Namespace) -> list[Asked]:
    """The maps to make. Raises ValueError for a layer that the network lacks, or that maps cannot be made at."""
    layers = [network.check_layer(layer) for layer in _listed(a.layer)] if a.layer is not None else [network.layer]
    found: list[Asked] = []
    for method in map(explanations.find, _listed(a.method)):
        if "layer" not in method.takes:
            found.append(Asked(method, ""))
            continue
        if not any(layers):
            raise ValueError(
                f"{network.name} has no layer that {method.label} can be made at; choose a method of pixels, --method gradient"
            )
        if method.name == "cam" and not network.head:
            raise ValueError(
                f"{network.name} does not end in average pooling and a linear layer; choose gradcam instead of cam"
            )
        found += [Asked(method, layer) for layer in layers]
    if len(found) > MOST_MAPS:
        raise ValueError(f"{len(found)} maps a picture; a figure holds {MOST_MAPS}, so give fewer methods or layers at once")
    return found


def _force(network: Named, a: argparse.Namespace) -> Force | None:
    attack = attacks.find(a.attack)
    if attack.name == "none":
        return None
    eps = _eps(EPS if a.eps is None else a.eps)
    try:
        steps.check_radius(eps, attack.norm, network.channels * network.size**2)
    except ValueError as error:
        raise ValueError(f"--eps {a.eps}: {error}") from None
    return Force(attack, eps, a.steps or attack.steps, _class(network, a.aim, "--aim"))


def _without_earlier(given: Sequence[Path], pictures: list[OwnPicture]) -> list[OwnPicture]:
    """The pictures without figures that this command wrote into their folder before, but for files that were named."""
    named_ = {p.resolve() for p in given}
    earlier = {p.path for p in pictures if p.path.resolve() not in named_ and explained.is_figure(p.path)}
    for path in sorted(earlier):
        say(f"{path} is left out: it is a figure of this command")
    if len(earlier) == len(pictures):
        raise ValueError("there is no picture but figures of this command; name others")
    return [p for p in pictures if p.path not in earlier]


def _check_writable(pages: Sequence[Path], pictures: Sequence[OwnPicture]) -> None:
    """ValueError where a figure or the table, the last of `pages`, cannot be written, or would be written over a picture or
    over somebody's table."""
    seen = {p.path.resolve() for p in pictures}
    for page in pages:
        if page.resolve() in seen:
            raise ValueError(f"--out {page} is one of the pictures; name another file")
        if page.is_dir():
            raise ValueError(f"--out {page} is a folder; name a file in it, {page / 'explained.png'}")
        if page.suffix.lower() == ".png" and page.exists() and not explained.is_figure(page):
            raise ValueError(f"--out {page} is a picture that this command did not make; name another file")
        if page.suffix == ".csv" and page.exists() and not explained.is_table(page):
            raise ValueError(f"--out {pages[0]} would write its table over {page}, which is another one; name another file")
    folder = pages[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"--out {pages[0]} cannot be written ({error.strerror}); name a file in a folder of yours") from None
