r"""Explanations under one interface: one table, the raw map of a class, and the map as it is shown, scaled to [0, 1].

`METHODS` is the table: a method costs one function and one row. Names are what is typed, kept in tables and part of the names
of trained networks. What a method takes of `Settings` is read from its function.

`raw` gives what the function gives. `explain` gives what is shown: of pixels and of relevance the sum over channels, of
magnitudes (Heo et al. 2019 for the gradient, "SimpleGrad"), of which the positive part is kept (relevance), or of places
between -1 and 1 (guided Grad-CAM++, whose -1 speaks against the class), and then each map scaled by its largest value
(activation maps) or by its smallest and largest value (the others).

`gradcam`, `lrp_t`, `simple_t` and `lrp` are those of Heo et al. 2019 (arXiv:1902.02041; they leave `lrp` signed and unscaled),
with their layer T, the input of the last convolution or block, as `Settings.layer`: where none is named, maps are made at the
last stage, and right under average pooling the gradient is constant, so that `simple_t` has nothing to show there.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.data import checks
from lib.explanations import activation_maps, gradients, guided
from lib.explanations.activation_maps import Sign
from lib.explanations.explanation import Explanation
from lib.explanations.gradients import Of
from lib.explanations.relevance import PIXELS, lrp
from lib.networks import zoo
from lib.networks.contract import Targets
from lib.networks.layouts import Layout
from lib.system.names import Table


class Settings(NamedTuple):
    """What methods take beyond network, images and classes. Each takes what it has a use for, by these names."""

    layer: str = ""  # that a map is made at; none: the network's last stage
    composite: str = "heo"  # of LRP
    n: int = 16  # noisy copies of SmoothGrad
    spread: float = 0.1  # their noise, of an image's range
    steps: int = 16  # points of integrated gradients
    of: Of = "score"  # the logit, or the loss
    sign: Sign = "positive"  # of activation maps: what speaks for the class, against it, or both
    head: str = "head"  # the linear layer of CAM
    generator: torch.Generator | None = None  # of SmoothGrad's noise; none: a fresh one, seeded with 0
    layout: Layout | None = None  # where the layer has its channels; none: what it and the network tell


@dataclass(frozen=True)
class Method:
    """A row: how a method is called, what computes it, where it lies, and how it is shown.

    `function(model, x, targets, **settings)` gives an Explanation. `shown` says how channels become one map: by their
    magnitudes, by the positive part of their sum, by how far above -1 they are together, or as it is; `scale` what [0, 1]
    means. `many` methods take K classes an image at once, others are asked class by class. `differentiable` functions have
    `create_graph`.
    """

    name: str
    label: str
    function: Callable[..., Explanation]
    where: Literal["pixels", "layer"]
    shown: Literal["magnitude", "positive", "share", "map"] = "magnitude"
    scale: Literal["minmax", "max"] = "minmax"
    many: bool = False
    differentiable: bool = False

    @property
    def takes(self) -> tuple[str, ...]:
        """The fields of Settings that the function has a use for."""
        return tuple(f for f in Settings._fields if f in inspect.signature(self.function).parameters)

    def __call__(
        self, model: nn.Module, x: Float[Tensor, "n c h w"], targets: Targets, settings: Settings, *, create_graph: bool = False
    ) -> Explanation:
        """The function's own result. Raises ValueError for `create_graph` or a loss where there is none, and as it does."""
        if create_graph and not self.differentiable:
            raise ValueError(f"{self.label} is not differentiated here; choose one of {', '.join(DIFFERENTIABLE)}")
        if settings.of != "score" and "of" not in self.takes:
            raise ValueError(f"{self.label} is of the logit alone, of={settings.of!r} is not defined here; set of='score'")
        given: dict[str, Any] = {field: getattr(settings, field) for field in self.takes}
        if "layer" in given:
            given["layer"] = settings.layer or activation_maps.last_stage(model)
        if create_graph:
            given["create_graph"] = True
        return self.function(model, x, targets, **given)

    def one_map(self, values: Float[Tensor, "*n h w"]) -> Float[Tensor, "*m h w"]:
        """Raw values, (..., C, h, w) or a map (..., h, w), as one map (..., h, w) >= 0."""
        if self.shown == "magnitude":
            return values.abs().sum(-3)
        if self.shown == "share":
            return (values + 1).sum(-3) / 2
        return values.sum(-3).clamp(min=0) if self.shown == "positive" else values


def _relevance(
    model: nn.Module, x: Tensor, targets: Targets, layer: str = PIXELS, *, composite: str, create_graph: bool = False
) -> Explanation:
    found = lrp(model, x, targets, layer, composite=composite, create_graph=create_graph)
    return Explanation(found.values[layer], found.logits)


def _relevance_at_pixels(
    model: nn.Module, x: Tensor, targets: Targets, *, composite: str, create_graph: bool = False
) -> Explanation:
    return _relevance(model, x, targets, composite=composite, create_graph=create_graph)


_MAP: dict[str, Any] = {"where": "layer", "shown": "map", "scale": "max", "many": True, "differentiable": True}
_GRADCAM_PP = functools.partial(activation_maps.gradcam, method="gradcam++")
METHODS = Table(
    "explanation",
    (
        Method("gradcam", "Grad-CAM", activation_maps.gradcam, **_MAP),
        Method("gradcam++", "Grad-CAM++", _GRADCAM_PP, **_MAP),
        Method("cam", "CAM", activation_maps.cam, **_MAP),
        Method("lrp_t", "LRP_T", _relevance, "layer", "positive", many=True, differentiable=True),
        Method("simple_t", "SimpleG_T", gradients.layer_gradient, "layer", many=True, differentiable=True),
        Method("lrp", "LRP", _relevance_at_pixels, "pixels", "positive", many=True, differentiable=True),
        Method("gradient", "gradient", gradients.gradient, "pixels", differentiable=True),
        Method("gradxinput", "gradient × input", gradients.gradient_times_input, "pixels", differentiable=True),
        Method("smoothgrad", "SmoothGrad", gradients.smoothgrad, "pixels", differentiable=True),
        Method("ig", "integrated gradients", gradients.integrated_gradients, "pixels", differentiable=True),
        Method("guided", "guided backpropagation", guided.guided_backpropagation, "pixels", differentiable=True),
        Method("guided-gradcam++", "guided Grad-CAM++", guided.guided_gradcam, "pixels", "share"),
    ),
)
find = METHODS.find
DIFFERENTIABLE = tuple(m.name for m in METHODS.rows if m.differentiable)


def defined(methods: Iterable[str], arch: str) -> tuple[str, ...]:
    """Those of some methods that are defined for a network of `zoo.NETWORKS` by name, or for any other one: guided
    backpropagation asks for ReLUs, and ReLU6 is none."""
    capped = arch in zoo.NETWORKS and zoo.NETWORKS[arch].capped
    return tuple(name for name in methods if not (capped and name == "guided"))


def raw(
    name: str,
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    targets: Targets,
    settings: Settings,
    *,
    create_graph: bool = False,
) -> Explanation:
    """Raw, signed values of one of METHODS for one class an image, or K: (N, C, H, W), (N, h, w), (N, K, ...).

    With `create_graph` values and logits are differentiable in the parameters and `x`. Raises ValueError for an unknown name,
    for `create_graph` on a method that is not differentiable here, for `of="loss"` on one of the logit, and as the kernels do.
    """
    return _each(find(name), model, x, targets, settings, create_graph, lambda values: values)


def explain(
    name: str,
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    targets: Targets,
    settings: Settings,
    *,
    create_graph: bool = False,
) -> Explanation:
    """The map of one of METHODS as it is shown, (N, h, w) or (N, K, h, w) in [0, 1]; see the module's docstring.

    A map without contrast is dead: zero everywhere (or one, where a constant above zero is scaled by its maximum). The
    scaling is differentiable too. Raises as `raw`, and ValueError for signed maps, which lie in no [0, 1].
    """
    method = find(name)
    if settings.sign == "signed" and "sign" in method.takes:
        raise ValueError("sign='signed': such a map has no place in [0, 1]; choose positive or counterfactual, or take `raw`")
    found = _each(method, model, x, targets, settings, create_graph, method.one_map)
    return Explanation(activation_maps.normalise(found.values, method.scale), found.logits)


def _each(
    method: Method,
    model: nn.Module,
    x: Tensor,
    targets: Targets,
    settings: Settings,
    create_graph: bool,
    seen: Callable[[Tensor], Tensor],
) -> Explanation:
    """`seen` of a method's values, class by class where it takes one class an image."""
    if isinstance(targets, Sequence | np.ndarray):
        targets = checks.integers(targets, "targets", x.device)
    if method.many or not isinstance(targets, Tensor) or targets.dim() < 2:
        found = method(model, x, targets, settings, create_graph=create_graph)
        return Explanation(seen(found.values), found.logits)
    each = [method(model, x, one, settings, create_graph=create_graph) for one in targets.T]
    return Explanation(torch.stack([seen(e.values) for e in each], 1), each[0].logits)
