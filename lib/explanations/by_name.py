r"""Explanations under one interface: a map for a class, normalised as it is shown, differentiable where it can be trained.

=============  =======================================================  ==========  ==========
name           raw map                                                  resolution  scaled by
=============  =======================================================  ==========  ==========
`gradcam`      Grad-CAM, ReLU, at the layer T                           T's         max
`lrp_t`        relevance at T, summed over channels, positive part      T's         min, max
`simple_t`     gradient of the logit at T, sum over channels of |.|     T's         min, max
`lrp`          relevance at the pixels, summed over channels, positive  pixels      min, max
`simple`       gradient of the logit, sum over channels of |.|          pixels      min, max
`smoothgrad`   SmoothGrad, likewise                                     pixels      min, max
`ig`           integrated gradients from black, likewise                pixels      min, max
`guided`       guided backpropagation, likewise                         pixels      min, max
=============  =======================================================  ==========  ==========

The first four are those of Heo et al. 2019 (who leave `lrp` signed and unscaled), with their layer T: the input of the last
convolution or block. (Right under average pooling the gradient is constant, and `simple_t` would show rounding.) The last
three are differentiated nowhere and serve to look at what was done.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lib.explanations import activation_maps, gradients, guided
from lib.explanations.relevance import PIXELS, lrp

NAMES = {
    "gradcam": "Grad-CAM",
    "lrp_t": "LRP_T",
    "simple_t": "SimpleG_T",
    "lrp": "LRP",
    "simple": "gradient",
    "smoothgrad": "SmoothGrad",
    "ig": "integrated gradients",
    "guided": "guided backprop",
}
AT_LAYER = ("gradcam", "lrp_t", "simple_t")
DIFFERENTIABLE = (*AT_LAYER, "lrp", "simple")


class Explained(NamedTuple):
    """maps (N, h, w), or (N, K, h, w) for K classes an image, in [0, 1]; logits (N, classes) of the same pass.

    A map without contrast is dead: zero everywhere (or one, where a constant above zero is scaled by its maximum).
    """

    maps: Tensor
    logits: Tensor


class Settings(NamedTuple):
    """What interpreters take beyond network, images and classes. `layer` is T; composite: see `lib.lrp`."""

    layer: str
    composite: str = "heo"
    smooth_n: int = 16
    smooth_spread: float = 0.1
    ig_steps: int = 16


def _pixels(name: str, model: nn.Module, x: Tensor, y: Tensor, s: Settings, create_graph: bool) -> gradients.Attribution:
    if name == "simple":
        return gradients.gradient(model, x, y, create_graph=create_graph)
    if name == "smoothgrad":
        return gradients.smoothgrad(model, x, y, n=s.smooth_n, spread=s.smooth_spread)
    if name == "ig":
        return gradients.integrated_gradients(model, x, y, steps=s.ig_steps)
    return guided.guided_backpropagation(model, x, y)


def explain(
    name: str, model: nn.Module, x: Tensor, classes: Tensor, settings: Settings, *, create_graph: bool = False
) -> Explained:
    """The map of one of NAMES for `classes`, (N,) or (N, K); see the module's docstring for definitions and scales.

    With `create_graph` maps and logits are differentiable in the parameters and `x`, the scaling included. Raises
    ValueError for an unknown name, for `create_graph` on one that is not differentiable here, and what the kernels raise.
    """
    if name not in NAMES:
        raise ValueError(f"unknown interpreter {name!r}; choose one of {', '.join(NAMES)}")
    if create_graph and name not in DIFFERENTIABLE:
        raise ValueError(f"{NAMES[name]} is not differentiated here; choose one of {', '.join(DIFFERENTIABLE)}")
    if name == "gradcam":
        found = activation_maps.gradcam(model, x, classes, settings.layer, create_graph=create_graph)
        return Explained(activation_maps.normalise(found.maps[settings.layer], "max"), found.logits)
    if name in ("lrp_t", "lrp"):
        layer = settings.layer if name == "lrp_t" else PIXELS
        relevance = lrp(model, x, classes, layer, composite=settings.composite, create_graph=create_graph)
        raw, logits = relevance.values[layer].sum(-3).clamp(min=0), relevance.logits
    elif name == "simple_t":
        gradient, logits = gradients.layer_gradient(model, x, classes, settings.layer, create_graph=create_graph)
        raw = gradient.abs().sum(-3)
    elif classes.dim() == 1:
        found = _pixels(name, model, x, classes, settings, create_graph)
        raw, logits = found.values.abs().sum(-3), found.logits
    else:
        each = [_pixels(name, model, x, one, settings, create_graph) for one in classes.T]
        raw, logits = torch.stack([e.values.abs().sum(-3) for e in each], 1), each[0].logits
    return Explained(activation_maps.normalise(raw), logits)
