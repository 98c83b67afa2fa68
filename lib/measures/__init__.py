"""Measures of maps."""

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
    "ssim",
    "topk_iou",
    "total_variation",
    "vid_image",
    "vid_model",
]
