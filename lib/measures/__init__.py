"""Measures of maps.

The index of this folder, a line a name: what it is, its source, its equation. What has no source is of this study, or common.

* `nissim`: normalised inverted structural similarity, NISSIM. Chakraborty et al. 2022, arXiv:2204.05427.
* `mod`: mean observed dissimilarity, MOD. Likewise.
* `vid_model`, `vid_image`: variation in dissimilarity, VID, in two readings. Likewise.
* `ssim`: structural similarity, SSIM. Wang et al. 2004, doi:10.1109/TIP.2003.819861, eq. 13.
* `spearman`, `spearman_of_all`, `ranks`: Spearman's rank correlation, of pairs and of every pair, and ranks with ties.
* `kendall`: Kendall's tau-b. Kendall 1945, doi:10.1093/biomet/33.3.239.
* `topk_iou`: intersection over union of the highest pixels.
* `centroid`, `centroid_shift`: centres of mass, and how far they are apart.
* `overlap`: energy inside a mask, and the pointing game. Zhang et al. 2016, arXiv:1608.00507.
* `psnr`: peak signal-to-noise ratio.
* `degenerate`: maps without contrast.
* `sensitivity`: a map for the eye. Smilkov et al. 2017, arXiv:1706.03825, as Zhang and Zhu 2019, arXiv:1905.09797, draw it.
* `edges`, `edge_agreement`: Sobel's gradient magnitude, and how a map's order agrees with it.
* `total_variation`, `scatter`: roughness of a map, and that over the roughness of its shuffled values.
* `gini`: Gini's index of sparsity. Hurley and Rickard 2009, arXiv:0811.4706.
* `alignment`: alignment of image and gradient. Etmann et al. 2019, arXiv:1905.04172.
"""

from lib.measures.appearance import alignment, edge_agreement, edges, gini, scatter, sensitivity, total_variation
from lib.measures.comparison import (
    centroid,
    centroid_shift,
    degenerate,
    kendall,
    mod,
    nissim,
    overlap,
    psnr,
    ranks,
    spearman,
    spearman_of_all,
    topk_iou,
    vid_image,
    vid_model,
)
from lib.measures.similarity import ssim

__all__ = [
    "alignment",
    "centroid",
    "centroid_shift",
    "degenerate",
    "edge_agreement",
    "edges",
    "gini",
    "kendall",
    "mod",
    "nissim",
    "overlap",
    "psnr",
    "ranks",
    "scatter",
    "sensitivity",
    "spearman",
    "spearman_of_all",
    "ssim",
    "topk_iou",
    "total_variation",
    "vid_image",
    "vid_model",
]
