"""Data sets, images, and what is done to them."""

from lib.data.checks import check_images, check_labels
from lib.data.datasets import ImageFiles, ImageSet, load
from lib.data.images import from_tensor, luma, open_image, to_tensor
from lib.data.mosaics import Mosaics
from lib.data.shapes import CUES, SHAPES, TEXTURES, draw, texture
from lib.data.transforms import amplitude_swap, patch_shuffle, permutations, saturation

__all__ = [
    "CUES",
    "SHAPES",
    "TEXTURES",
    "ImageFiles",
    "ImageSet",
    "Mosaics",
    "amplitude_swap",
    "check_images",
    "check_labels",
    "draw",
    "from_tensor",
    "load",
    "luma",
    "open_image",
    "patch_shuffle",
    "permutations",
    "saturation",
    "texture",
    "to_tensor",
]
