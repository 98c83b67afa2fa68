"""Data sets, images, and what is done to them.

The index of this folder, a line a name: what it is, its source, its equation. What has no source is of this study.

* `load`, `ImageSet`, `ImageFiles`: data sets by name.
* `EMBEDDED`, `PUBLIC`: the names, beside folders of your own.
* `draw`, `texture`, `SHAPES`, `TEXTURES`, `CUES`: drawn shapes with real textures.
* `saturation`: saturation of pixels. Zhang and Zhu 2019, arXiv:1905.09797.
* `patch_shuffle`, `permutations`: shuffled patches. Likewise.
* `amplitude_swap`: the phase of one image with the amplitude of another. Oppenheim and Lim 1981, doi:10.1109/PROC.1981.12022.
* `foreground`: the object in the middle of a photograph. Grady 2006, doi:10.1109/TPAMI.2006.233.
* `Mosaics`: two objects in one image, as active fooling asks. Heo et al. 2019, arXiv:1902.02041.
* `grouped`, `by_group`: groups of ImageNet's classes, and their logits.
* `open_image`, `to_tensor`, `from_tensor`, `luma`: files and uploads; grey values by ITU-R BT.601.
* `gather`, `OwnPicture`: pictures of one's own, files or folders of them, all checked first.
* `check_images`, `check_labels`: what kernels take.
"""

from lib.data.checks import check_images, check_labels
from lib.data.datasets import EMBEDDED, PUBLIC, ImageFiles, ImageSet, load
from lib.data.imagenet_groups import by_group, grouped
from lib.data.images import from_tensor, luma, open_image, to_tensor
from lib.data.mosaics import Mosaics
from lib.data.own_pictures import OwnPicture, gather
from lib.data.segmentation import foreground
from lib.data.shapes import CUES, SHAPES, TEXTURES, draw, texture
from lib.data.transforms import amplitude_swap, patch_shuffle, permutations, saturation

__all__ = [
    "CUES",
    "EMBEDDED",
    "PUBLIC",
    "SHAPES",
    "TEXTURES",
    "ImageFiles",
    "ImageSet",
    "Mosaics",
    "OwnPicture",
    "amplitude_swap",
    "by_group",
    "check_images",
    "check_labels",
    "draw",
    "foreground",
    "from_tensor",
    "gather",
    "grouped",
    "load",
    "luma",
    "open_image",
    "patch_shuffle",
    "permutations",
    "saturation",
    "texture",
    "to_tensor",
]
