"""Explanations of decisions."""

from lib.explanations.activation_maps import (
    Maps,
    all_cams,
    cam,
    gradcam,
    gradcams,
    last_stage,
    linear_head,
    normalise,
    upsample,
)
from lib.explanations.by_name import METHODS, Method, Settings, explain, raw
from lib.explanations.explanation import Explanation
from lib.explanations.gradients import completeness_gap, gradient, integrated_gradients, layer_gradient, smoothgrad
from lib.explanations.guided import guided_backpropagation, guided_gradcam
from lib.explanations.relevance import Relevance, lrp
from lib.explanations.relevance_rules import COMPOSITES, AlphaBeta, Composite, Epsilon, Rule

__all__ = [
    "COMPOSITES",
    "METHODS",
    "AlphaBeta",
    "Composite",
    "Epsilon",
    "Explanation",
    "Maps",
    "Method",
    "Relevance",
    "Rule",
    "Settings",
    "all_cams",
    "cam",
    "completeness_gap",
    "explain",
    "gradcam",
    "gradcams",
    "gradient",
    "guided_backpropagation",
    "guided_gradcam",
    "integrated_gradients",
    "last_stage",
    "layer_gradient",
    "linear_head",
    "lrp",
    "normalise",
    "raw",
    "smoothgrad",
    "upsample",
]
