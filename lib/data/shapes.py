"""`shapes`: drawn shapes filled with real textures, an instrument with two separable cues.

How an image is made. One of ten outlines is drawn at a random place, size and rotation (within 20 degrees) over a smooth
two-colour background, and filled with one of ten grey textures cut from scikit-image's photographs, modulating a random
tint. Shape and texture are the only things that may know the class:

* the area of the object follows one distribution for all shapes (outlines are scaled to equal area, not equal width), and
  so does its place (the centre of mass, not of the outline's frame);
* a texture is flattened (local mean and contrast removed), and what is cut from it is standardised inside the object, so
  neither mean brightness nor contrast depends on the class; tints and backgrounds are drawn independently of it;
* training and test textures come from disjoint parts of each photograph (the left 60 % and the rest).

What a split shows is chosen by `cue`:

========== ============================ ================================= ==========================
cue        the label is                 shape                             texture
========== ============================ ================================= ==========================
both       the class                    of the class                      of the class
shape      the shape                    of the class                      drawn independently
texture    the texture                  drawn independently               of the class
conflict   the shape                    of the class                      of another class, always
neither    drawn independently          drawn independently               drawn independently
========== ============================ ================================= ==========================

`neither` is the control: whoever beats chance on it has found a leak. Image i depends on (cue, split, size, i) and on
nothing else, so a longer split starts with a shorter one. At 64 pixels the textures keep their scale relative to the
object, so both sizes show the same world.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import skimage
from PIL import Image, ImageDraw
from scipy import ndimage
from skimage.transform import rescale

VERSION = 1  # part of the data fingerprint: raise it when a change here changes a pixel
CUES = ("both", "shape", "texture", "conflict", "neither")
SIZES = (32, 64)
SUPERSAMPLE = 6  # outlines are drawn this much larger and averaged down, so edges are smooth
AREA = (0.18, 0.27)  # of the image, covered by the object
TRAIN_SHARE = 0.6  # of each photograph's width

# photograph, scale for 32-pixel images, part used (top, bottom, left, right as shares)
TEXTURES: dict[str, tuple[str, float, tuple[float, float, float, float]]] = {
    "brick": ("brick.png", 0.2, (0, 1, 0, 1)),
    "grass": ("grass.png", 0.4, (0, 1, 0, 1)),
    "gravel": ("gravel.png", 0.5, (0, 1, 0, 1)),
    "print": ("page.png", 0.5, (0.27, 0.62, 0, 0.97)),
    "lawn": ("camera.png", 0.6, (0.72, 1, 0.55, 1)),
    "stars": ("hubble_deep_field.jpg", 0.25, (0, 1, 0, 1)),
    "coins": ("coins.png", 0.33, (0.02, 1, 0.02, 0.98)),
    "moon": ("moon.png", 0.25, (0, 0.8, 0.2, 1)),
    "writing": ("text.png", 0.35, (0, 1, 0, 1)),
    "cells": ("cell.png", 0.3, (0, 0.5, 0, 1)),
}


class Drawn(NamedTuple):
    """What `draw` returns: images (N,3,S,S) float32 in [0,1]; masks (N,S,S) bool; boxes (N,4) int: top, left, bottom,
    right, the last two exclusive; label, shape and texture (N,) int, indices into SHAPES and TEXTURES."""

    images: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    shapes: np.ndarray
    textures: np.ndarray


def _ring(radius: float, n: int = 48, centre: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([centre[0] + radius * np.cos(t), centre[1] + radius * np.sin(t)], 1)


def _star(points: int, inner: float) -> np.ndarray:
    t = np.arange(2 * points) * np.pi / points - np.pi / 2
    r = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return np.stack([r * np.cos(t), r * np.sin(t)], 1)


def _crescent() -> np.ndarray:
    outer = np.linspace(0.25 * np.pi, 1.75 * np.pi, 40)
    inner = np.linspace(1.75 * np.pi, 0.25 * np.pi, 40)  # the same chord, seen from a nearer circle
    chord_x, chord_y = np.cos(0.25 * np.pi), np.sin(0.25 * np.pi)
    centre = 0.55
    radius = np.hypot(chord_x - centre, chord_y)
    start = np.arctan2(chord_y, chord_x - centre)
    inner = np.linspace(2 * np.pi - start, start, 40)
    return np.concatenate(
        [np.stack([np.cos(outer), np.sin(outer)], 1), np.stack([centre + radius * np.cos(inner), radius * np.sin(inner)], 1)]
    )


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y], 1) / 17


def _polygon(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, float)


_ARM = 1 / 3
# Each shape: the outline, and a hole in it or None. Units are arbitrary, every outline is scaled to equal area.
_OUTLINES: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
    "disc": (_ring(1), None),
    "square": (_polygon((-1, -1), (1, -1), (1, 1), (-1, 1)), None),
    "triangle": (_star(3, 0.5), None),
    "star": (_star(5, 0.42), None),
    "cross": (
        _polygon(
            (-_ARM, -1),
            (_ARM, -1),
            (_ARM, -_ARM),
            (1, -_ARM),
            (1, _ARM),
            (_ARM, _ARM),
            (_ARM, 1),
            (-_ARM, 1),
            (-_ARM, _ARM),
            (-1, _ARM),
            (-1, -_ARM),
            (-_ARM, -_ARM),
        ),
        None,
    ),
    "ring": (_ring(1), _ring(0.55)),
    "crescent": (_crescent(), None),
    "heart": (_heart(), None),
    "arrow": (_polygon((1, 0), (0, -0.9), (0, -0.4), (-1, -0.4), (-1, 0.4), (0, 0.4), (0, 0.9)), None),
    "hourglass": (_polygon((-0.8, -1), (0.8, -1), (0.15, 0), (0.8, 1), (-0.8, 1), (-0.15, 0)), None),
}
SHAPES = tuple(_OUTLINES)


def _area_and_centroid(p: np.ndarray) -> tuple[float, np.ndarray]:
    """Shoelace formula."""
    q = np.roll(p, -1, 0)
    cross = p[:, 0] * q[:, 1] - q[:, 0] * p[:, 1]
    area = cross.sum() / 2
    return abs(area), ((p + q) * cross[:, None]).sum(0) / (6 * area)


def _unit(outline: np.ndarray, hole: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """The outline with area 1 and its centre of mass at the origin."""
    area, centre = _area_and_centroid(outline)
    if hole is not None:  # concentric, so the centre stays
        area -= _area_and_centroid(hole)[0]
    scale = 1 / np.sqrt(area)
    return (outline - centre) * scale, None if hole is None else (hole - centre) * scale


_UNIT = {name: _unit(*o) for name, o in _OUTLINES.items()}
WIDEST = 0.90  # the farthest that an outline of area 1 reaches along an axis, rotated by up to 20 degrees


@functools.lru_cache(maxsize=64)
def texture(name: str, split: str, size: int) -> np.ndarray:
    """The flattened photograph that patches of this texture are cut from, (h, w), zero local mean, unit local contrast."""
    file, scale, (top, bottom, left, right) = TEXTURES[name]
    with Image.open(Path(skimage.__file__).parent / "data" / file) as photo:
        grey = np.asarray(photo.convert("L"), np.float64) / 255
    h, w = grey.shape
    grey = grey[int(top * h) : int(bottom * h), int(left * w) : int(right * w)]
    grey = rescale(grey, scale * size / 32, anti_aliasing=scale * size < 32)
    sigma = 6 * size / 32
    flat = grey - ndimage.gaussian_filter(grey, sigma)
    flat = flat / (np.sqrt(ndimage.gaussian_filter(flat**2, sigma)) + 0.02)
    cut = int(TRAIN_SHARE * flat.shape[1])
    return flat[:, :cut] if split == "train" else flat[:, cut:]


def _patch(source: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random size x size window; a source narrower than the window is continued by reflection."""
    pad = [(0, max(0, size - n)) for n in source.shape]
    source = np.pad(source, pad, mode="symmetric") if any(p for _, p in pad) else source
    top, left = (rng.integers(0, n - size + 1) for n in source.shape)
    patch = source[top : top + size, left : left + size]
    return patch[:, ::-1] if rng.random() < 0.5 else patch


def _silhouette(shape: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """Coverage of each pixel by the shape, (size, size) in [0, 1]."""
    angle = np.deg2rad(rng.uniform(-20, 20))
    scale = size * np.sqrt(rng.uniform(*AREA))
    rotation = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outline, hole = _UNIT[shape]
    outline = outline @ rotation
    room = 0.5 - WIDEST * np.sqrt(AREA[1])  # one range of places for all shapes
    centre = size * (0.5 + rng.uniform(-room, room, 2))
    canvas = Image.new("L", (size * SUPERSAMPLE,) * 2)
    pen = ImageDraw.Draw(canvas)
    pen.polygon([tuple(p) for p in (outline + centre) * SUPERSAMPLE], fill=255)
    if hole is not None:
        pen.polygon([tuple(p) for p in (hole @ rotation + centre) * SUPERSAMPLE], fill=0)
    return np.asarray(canvas.reduce(SUPERSAMPLE), np.float32) / 255


def _background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth slope between two colours, with fine noise, (3, size, size)."""
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-0.5, 0.5, size)
    slope = 0.5 + (np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]) / np.sqrt(2)
    a, b = rng.uniform(0.1, 0.9, (2, 3))
    return a[:, None, None] * (1 - slope) + b[:, None, None] * slope + rng.normal(0, 0.02, (3, size, size))


def _image(shape: str, source: np.ndarray, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    alpha = _silhouette(shape, size, rng)
    mask = alpha >= 0.5
    patch = _patch(source, size, rng)
    for bound in (2.5, np.inf):  # standardised, outliers cut, standardised again
        patch = np.clip((patch - patch[mask].mean()) / (patch[mask].std() + 1e-6), -bound, bound)
    tint = rng.uniform(0.3, 0.5, 3)[:, None, None]
    filled = np.clip(tint * (1 + 0.36 * patch), 0, 1)  # hardly ever cut: 0.5 * (1 + 0.36 * 2.7) < 1
    image = alpha * filled + (1 - alpha) * _background(size, rng)
    return np.clip(image, 0, 1).astype(np.float32), mask


def check(cue: str, split: str, size: int) -> None:
    """Raises ValueError for an unknown cue, split or size."""
    for what, given, known in (("cue", cue, CUES), ("split", split, ("train", "test")), ("size", size, SIZES)):
        if given not in known:
            raise ValueError(f"shapes: unknown {what} {given!r}; choose one of {', '.join(map(str, known))}")


def draw(n: int, *, cue: str = "both", split: str = "train", size: int = 32) -> Drawn:
    """Draw the first `n` images of a split. Raises ValueError as `check` does."""
    check(cue, split, size)
    classes = len(SHAPES)
    names = list(TEXTURES)
    images = np.empty((n, 3, size, size), np.float32)
    masks = np.empty((n, size, size), bool)
    boxes, index = np.empty((n, 4), np.int64), np.empty((3, n), np.int64)
    stream = (CUES.index(cue), ("train", "test").index(split), size)
    for i in range(n):
        rng = np.random.default_rng((VERSION, *stream, i))
        label = i % classes  # balanced
        other_shape, other_texture = rng.integers(0, classes, 2)
        shift = rng.integers(1, classes)
        shape = label if cue in ("both", "shape", "conflict") else other_shape
        textured = {
            "both": label,
            "texture": label,
            "conflict": (label + shift) % classes,
            "shape": other_texture,
            "neither": other_texture,
        }[cue]
        images[i], masks[i] = _image(SHAPES[shape], texture(names[textured], split, size), size, rng)
        rows, columns = np.flatnonzero(masks[i].any(1)), np.flatnonzero(masks[i].any(0))
        boxes[i] = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
        index[:, i] = label, shape, textured
    return Drawn(images, masks, boxes, *index)
