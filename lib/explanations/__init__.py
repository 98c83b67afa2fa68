"""Explanations of decisions.

The index of this folder, a line a name: what it is, its source, its equation. Where no equation is named, the source has it
in the text of the section; what has no source is of this study.

* `METHODS`, `Method`, `Settings`, `Explanation`: every explanation by name, called in one way, and what it gives.
* `raw`, `explain`: its values, and its map as it is shown. The latter: Heo et al. 2019, arXiv:1902.02041.
* `cam`: class activation maps. Zhou et al. 2016, arXiv:1512.04150, eq. 2.
* `all_cams`: those of all classes, over the number of positions. Boopathy et al. 2020, arXiv:2006.14748.
* `gradcam`: Grad-CAM. Selvaraju et al. 2017, arXiv:1610.02391, eqs. 1 and 2; the counterfactual map, sec. 3. Grad-CAM++.
  Chattopadhay et al. 2018, arXiv:1710.11063, eq. 19.
* `gradcams`, `Maps`: of several layers in one pass. Likewise.
* `normalise`, `upsample`: maps scaled to [0, 1], and enlarged.
* `last_stage`, `linear_head`: the layer and the head of a CAM.
* `gradient`: the gradient. Simonyan et al. 2014, arXiv:1312.6034, sec. 3.
* `layer_gradient`: the same at a layer; SimpleGrad_T is its magnitude. Heo et al. 2019, arXiv:1902.02041.
* `gradient_times_input`: gradient x input. Shrikumar et al. 2017, arXiv:1605.01713.
* `smoothgrad`: SmoothGrad. Smilkov et al. 2017, arXiv:1706.03825.
* `integrated_gradients`: integrated gradients. Sundararajan et al. 2017, arXiv:1703.01365, sec. 3; as a sum, sec. 5.
* `completeness_gap`: how far it is from complete. Likewise, prop. 1.
* `guided_backpropagation`: guided backpropagation. Springenberg et al. 2015, arXiv:1412.6806, fig. 1.
* `guided_gradcam`: guided Grad-CAM++. Chattopadhay et al. 2018, arXiv:1710.11063; joined as in the code of Mangla et al. 2020.
* `lrp`, `Relevance`: layer-wise relevance propagation. Bach et al. 2015, doi:10.1371/journal.pone.0130140.
* `Epsilon`: the rules 0 and epsilon. Likewise, eqs. 56 and 58.
* `AlphaBeta`: the rule alpha-beta. Likewise, eq. 60; z+, its alpha = 1. Montavon et al. 2017, arXiv:1512.02479.
* `Gamma`: the rule gamma. Montavon et al. 2019, doi:10.1007/978-3-030-28954-6_10, sec. 10.2.3; with both signs Andéol et al.
  2021, arXiv:2106.04923.
* `ZBox`, `WSquare`: the rules z^B and w² of a layer that reads pixels. Montavon et al. 2017, arXiv:1512.02479.
* `Flat`: the flat rule. Lapuschkin et al. 2019, arXiv:1902.10178.
* `Rule`, `Composite`, `COMPOSITES`: a rule; which layer takes which; those with a name, `heo`: Heo et al. 2019,
  arXiv:1902.02041.
"""

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
from lib.explanations.gradients import (
    completeness_gap,
    gradient,
    gradient_times_input,
    integrated_gradients,
    layer_gradient,
    smoothgrad,
)
from lib.explanations.guided import guided_backpropagation, guided_gradcam
from lib.explanations.relevance import Relevance, lrp
from lib.explanations.relevance_rules import COMPOSITES, AlphaBeta, Composite, Epsilon, Flat, Gamma, Rule, WSquare, ZBox

__all__ = [
    "COMPOSITES",
    "METHODS",
    "AlphaBeta",
    "Composite",
    "Epsilon",
    "Explanation",
    "Flat",
    "Gamma",
    "Maps",
    "Method",
    "Relevance",
    "Rule",
    "Settings",
    "WSquare",
    "ZBox",
    "all_cams",
    "cam",
    "completeness_gap",
    "explain",
    "gradcam",
    "gradcams",
    "gradient",
    "gradient_times_input",
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
