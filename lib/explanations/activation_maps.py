r"""Class activation maps: CAM, Grad-CAM, Grad-CAM++, signed and counterfactual, for many layers and classes in one pass.

For a layer with activations :math:`A^k_{ij}` at Z positions and a class with logit :math:`Y_c`:

* Grad-CAM (Selvaraju et al. 2017): :math:`S = \sum_k a_k A^k`, :math:`a_k = \frac1Z \sum_{ij} \partial Y_c/\partial A^k_{ij}`;
* Grad-CAM++ (Chattopadhay et al. 2018): :math:`a_k = \sum_{ij} \alpha^k_{ij} \mathrm{ReLU}(g^k_{ij})` with
  :math:`g = \partial Y_c/\partial A` and :math:`\alpha = g^2 / (2 g^2 + g^3 \sum_{ab} A_{ab} + 10^{-6})`, 0 where g = 0;
* CAM (Zhou et al. 2016), where the head is global average pooling and a linear layer: :math:`S = \sum_k w^c_k A^k`.

A layer may also have its channels last, or be the tokens of a vision transformer (`lib.networks.layouts`).

`sign` chooses what is shown of the raw map S: `positive` is ReLU(S), the map of the papers; `counterfactual` is ReLU(-S),
which equals Grad-CAM with negated gradients; `signed` is S itself, so positive - counterfactual = signed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lib.data import checks
from lib.explanations.explanation import Explanation
from lib.networks import contract, hooks, layouts, reach
from lib.networks.contract import Targets
from lib.networks.layouts import Layout
from lib.system import devices

Sign = Literal["positive", "signed", "counterfactual"]
Method = Literal["gradcam", "gradcam++"]


@dataclass(frozen=True)
class Maps:
    """`maps[layer]` is (N, h, w), or (N, K, h, w) where K classes a row were asked for, in the layer's own resolution
    and units; `logits` (N, classes) are those of the same forward pass."""

    maps: dict[str, Float[Tensor, "n ..."]]
    logits: Float[Tensor, "n classes"]


def _weights(gradient: Tensor, activation: Tensor, method: Method) -> Tensor:
    """Channel weights (N, C) of a map."""
    if method == "gradcam":
        return gradient.mean((2, 3))
    # deviation: without the factor exp(score) of Chattopadhay et al., which only scales a map.
    dtype = gradient.dtype
    gradient, activation = devices.wide(gradient), devices.wide(activation)  # a square is zero where float16 ends
    g2 = gradient**2
    total = activation.sum((2, 3), keepdim=True)
    denominator = 2 * g2 + total * g2 * gradient + 1e-6
    alpha = torch.where(gradient == 0, 0.0, g2 / denominator)
    return (alpha * gradient.relu()).sum((2, 3)).to(dtype)


def _signed(raw: Tensor, sign: Sign) -> Tensor:
    if sign == "signed":
        return raw
    return raw.relu() if sign == "positive" else (-raw).relu()


def gradcam(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    targets: Targets,
    layer: str,
    *,
    method: Method = "gradcam",
    sign: Sign = "positive",
    layout: Layout | None = None,
    create_graph: bool = False,
) -> Explanation:
    """The Grad-CAM or Grad-CAM++ map of one layer, (N, h, w), or (N, K, h, w) for K classes an image; see `gradcams`."""
    found = gradcams(model, x, targets, [layer], method=method, sign=sign, layout=layout, create_graph=create_graph)
    return Explanation(found.maps[layer], found.logits)


def gradcams(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    targets: Targets,
    layers: Sequence[str],
    *,
    method: Method = "gradcam",
    sign: Sign = "positive",
    layout: Layout | None = None,
    create_graph: bool = False,
) -> Maps:
    """Grad-CAM or Grad-CAM++ maps of several layers and several classes.

    One forward pass, without a graph below the first explained layer, and one backward pass a class down to that layer;
    all layers share it. `x` is (N, C, H, W) in [0, 1]. `targets` is one class for all images, (N,), or (N, K) for K
    classes an image, a function of the logits that gives these (`predicted`), or None: the predicted class. The pre-softmax
    logit is explained. Values are raw: neither normalised nor enlarged (`normalise`, `upsample`). `layout` says where the
    layers have their channels, or makes maps of what they put out; None: as `lib.networks.layouts` finds.

    With `create_graph` the maps (through activations and channel weights alike) and logits are differentiable with
    respect to the parameters and `x`, any number of times. Flags, hooks and `.grad` are left as they were.

    Raises ValueError for images outside [0, 1], classes out of range, a wrong or shared layer, logits that are not finite,
    a layer that no gradient reaches because the network cuts it, and for one whose layout does not tell itself.
    """
    if sign not in ("positive", "signed", "counterfactual"):
        raise ValueError(f"unknown sign {sign!r}; choose positive, signed or counterfactual")
    if method not in ("gradcam", "gradcam++"):
        raise ValueError(f"unknown method {method!r}; choose gradcam or gradcam++")
    if isinstance(layers, str):
        raise ValueError(f"layers is {layers!r}, one name; give a list of names, or use gradcam, which takes one")
    names = list(layers)
    if not names:
        raise ValueError("no layer named; a map needs one at least")
    x = checks.check_images(x)
    unreached: set[str] = set()
    with (
        hooks.frozen(model, parameters=create_graph),
        hooks.capture(model, names, cut=not create_graph, any_layout=True) as seen,
        torch.enable_grad(),
    ):
        logits = contract.logits_of(model, x if create_graph else x.detach())
        contract.check_explained(model, logits)
        classes, single = contract.target_classes(targets, logits)
        activations = [seen[n] for n in names]
        as_maps = [layouts.maps_of(model, n, seen[n], logits, x.shape[2:], layout) for n in names]
        found: list[list[Tensor]] = [[] for _ in names]
        last = classes.shape[1] - 1
        for k in range(classes.shape[1]):
            score = logits.gather(1, classes[:, k : k + 1]).sum()  # summed: rows do not see each other
            keep = create_graph or k < last
            gradients = reach.gradients(score, activations, create_graph=create_graph, retain_graph=keep)
            for name, maps, activation, gradient, as_map in zip(names, found, activations, gradients, as_maps, strict=True):
                if gradient is None:
                    gradient = torch.zeros_like(activation)  # the class does not depend on this layer
                    unreached.add(name)
                kept = activation if create_graph else activation.detach()
                if as_map:
                    gradient, kept = layouts.both(gradient, kept, as_map, name)
                weights = _weights(gradient, kept, method)
                maps.append(torch.einsum("nc,nchw->nhw", weights, kept))
    reach.check(model, x, [n for n in names if n in unreached])
    stacked = [m[0] if single else torch.stack(m, 1) for m in found]
    return Maps({n: _signed(m, sign) for n, m in zip(names, stacked, strict=True)}, logits if create_graph else logits.detach())


def cam(
    model: nn.Module,
    x: Float[Tensor, "n c h w"],
    targets: Targets,
    layer: str,
    *,
    head: str = "head",
    sign: Sign = "signed",
    create_graph: bool = False,
) -> Explanation:
    """CAM (Zhou et al. 2016) of a network whose `layer` is followed by global average pooling and the linear `head`.

    The map is sum_k w_k^c A^k, without the bias and without 1/Z; its mean over positions plus the bias is the logit, which
    is checked: ValueError where the network is not of that form, and then Grad-CAM is the map to use. `sign` defaults to
    `signed`, as in the paper. Shapes, targets and `create_graph` as in `gradcam`.
    """
    linear = linear_head(model, head)
    x = checks.check_images(x)
    with (
        hooks.frozen(model, parameters=create_graph),
        hooks.capture(model, [layer], cut=False) as seen,
        torch.set_grad_enabled(create_graph),
    ):
        logits = contract.logits_of(model, x)
        contract.check_explained(model, logits)
        activation = seen[layer]
        _check_head(activation, linear, logits, layer, head, "use gradcam, which needs no such head")
        classes, single = contract.target_classes(targets, logits)
        maps = torch.einsum("nkc,nchw->nkhw", _weights_of(linear)[classes], activation)
    return Explanation(_signed(maps[:, 0] if single else maps, sign), logits)


def all_cams(
    model: nn.Module, x: Float[Tensor, "n c h w"], *, layer: str | None = None, head: str = "head", check: bool = True
) -> Explanation:
    """The CAMs of all classes, (N, classes, h, w), scaled by 1/u for u positions, and the logits, from one forward pass.

    The maps are linear in the feature maps, so whatever differentiates them pays one backward pass, as for the logits. The
    layer is the model's last stage unless named. Grad mode and training flags are the caller's. `check` refuses, with a
    ValueError, networks that are not (layer, average pooling, linear head); once is enough.
    """
    linear = linear_head(model, head)
    name = layer or last_stage(model)
    with hooks.capture(model, [name], cut=False) as seen:
        logits = contract.logits_of(model, x)
    activation = seen[name]
    if check:
        contract.check_explained(model, logits)
        _check_head(activation, linear, logits, name, head, _WITHOUT)
    return Explanation(F.conv2d(activation, _weights_of(linear)[:, :, None, None]) / activation[0, 0].numel(), logits)


_WITHOUT = "train an arm that needs no CAM (Normal, Adv, TRADES, IG-Norm, IG-Norm-Sum), or a network that ends so"


def linear_head(model: nn.Module, head: str = "head") -> nn.Linear:
    """The linear layer after average pooling. Raises ValueError where `head` is none."""
    found = hooks.find_layer(model, head)
    if not isinstance(found, nn.Linear):
        raise ValueError(f"head {head!r} is a {type(found).__name__}; CAM needs the linear layer after average pooling")
    return found


def _weights_of(linear: nn.Linear) -> Tensor:
    """Its weights, a row a class: two where it puts out one logit."""
    return contract.two_logits(linear.weight.T).T if linear.out_features == 1 else linear.weight


def last_stage(model: nn.Module) -> str:
    """The layer that a network calls its last. Raises ValueError for one that does not say."""
    stages = getattr(model, "stages", None)
    if not stages:
        raise ValueError("name the layer: this network does not say which its last stage is (it has no `stages`)")
    return stages[-1]


def _check_head(activation: Tensor, linear: nn.Linear, logits: Tensor, layer: str, head: str, remedy: str) -> None:
    """ValueError where the layer's activations, average pooling and the linear head do not give the logits."""
    pooled = activation.mean((2, 3))
    if pooled.shape[1] != linear.in_features or not torch.allclose(
        contract.two_logits(linear(pooled)), logits, rtol=1e-3, atol=1e-3
    ):
        raise ValueError(
            f"{layer!r}, average pooling and {head!r} do not give the model's logits, so CAM is not defined here; {remedy}"
        )


def normalise(maps: Float[Tensor, "*n h w"], how: Literal["minmax", "max"] = "minmax") -> Float[Tensor, "*n h w"]:
    """Scale each map (the last two dimensions) to [0, 1]: (S - min) / (max - min), or S / max.

    A map without contrast has no scale: it becomes zeros (or ones, where `max` scales a constant above zero). One with a NaN
    or an infinite value becomes NaN, so that it is seen and counted. For `max`, maps are expected to be >= 0.
    """
    high = maps.amax((-2, -1), keepdim=True)
    low = maps.amin((-2, -1), keepdim=True) if how == "minmax" else torch.zeros_like(high)
    span = high - low
    lost = torch.zeros_like(span).masked_fill(~span.isfinite(), torch.nan)
    return torch.where((span > 0) & span.isfinite(), (maps - low) / torch.where(span > 0, span, 1.0), lost)


def upsample(maps: Float[Tensor, "*n h w"], size: int | tuple[int, int]) -> Float[Tensor, "*n a b"]:
    """Enlarge maps (..., h, w) bilinearly to `size`, corners not aligned."""
    size = (size, size) if isinstance(size, int) else size
    if tuple(maps.shape[-2:]) == size:
        return maps
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    return F.interpolate(flat, size, mode="bilinear", align_corners=False).reshape(*maps.shape[:-2], *size)
