"""Any network by what a person types, and what has to be known to use it: sizes, classes by name, layers.

* a network of the project that comes with weights: `efficientnet-lite0`, … (`lib.networks.zoo.NETWORKS`);
* `torchvision:NAME`, any of torchvision's classifiers with the newest of its published weights;
* `module:function` or `folder/file.py:function`, code of one's own: a function without arguments that returns the network.

A network of one's own takes images in [0, 1]. One that takes them normalised, returns more than logits or has stages of its
choice says so: its function returns `lib.networks.adapt(net, mean=…, std=…, output=…, stages=…)`. `size` (pixels) and
`class_names` are taken from attributes of these names where the network has them.
"""

import contextlib
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.data import imagenet
from lib.data.images import Crop
from lib.networks import classifier, contract, folding, hooks, models, own_code, stages, zoo
from lib.system import names

SIZE = 224  # pixels, of a network that does not say
SIZES = (8, 2048)


@dataclass(frozen=True)
class Named:
    """A network under the contract, in evaluation mode on the CPU (one's own: where its function put it).

    It takes square images, (N, channels, size, size) in [0, 1], of pictures that are cut as `crop` says
    (`lib.data.images.to_tensor`). `layer` is where maps are made unless another one is named: the last convolutional stage;
    empty where there is none. `head` is the linear layer of a CAM at that layer, empty where CAM is not defined there.
    `classes` are numbers as text where their names are not known.
    """

    name: str
    model: classifier.Classifier
    size: int
    channels: int
    classes: tuple[str, ...]
    layer: str
    head: str
    crop: Crop

    def class_number(self, typed: str) -> int:
        """The number of a class by its name, in capitals or not, or by its number. Raises ValueError with close matches."""
        typed = typed.strip()
        lower = [c.lower() for c in self.classes]
        if typed in self.classes:
            return self.classes.index(typed)
        if typed.lower() in lower:
            return lower.index(typed.lower())
        if typed.isdecimal() and int(typed) < len(self.classes):
            return int(typed)
        count = len(self.classes)
        if typed.isdecimal():
            raise ValueError(f"{self.name} has no class {typed}; its {count:,} classes have the numbers 0 to {count - 1}")
        close = [self.classes[lower.index(c)] for c in names.close(typed.lower(), lower)]
        some = f"did you mean {' or '.join(map(repr, close))}?" if close else f"it has {', '.join(self.classes[:8])}, …"
        raise ValueError(f"{self.name} has no class {typed!r} among its {count:,}; {some}")

    def check_layer(self, layer: str) -> str:
        """The name, after a pass. Raises ValueError for a layer that is not there, with close matches, and for one that maps
        cannot be made at."""
        with torch.no_grad(), hooks.frozen(self.model), hooks.capture(self.model, [layer], cut=False, any_layout=True):
            contract.logits_of(self.model, _probe(self.model, self.channels, self.size))
        return layer


def load(text: str, *, size: int | None = None) -> Named:
    """The network that a person typed; see the module's docstring. `size`, in pixels, is that of its images where it shall
    be another one than the network was published for, or says itself.

    Raises ValueError, in one sentence that says what to do, for a name that is not known (with close matches), a network of
    the project without weights, code that gives no network, and a network that takes images of another size or number of
    channels; RuntimeError where published weights cannot be had.
    """
    if size is not None and not SIZES[0] <= size <= SIZES[1]:
        raise ValueError(f"size {size}: images have {SIZES[0]} to {SIZES[1]} pixels a side")
    if text.startswith("torchvision:"):
        return _torchvision(text, size)
    if ":" in text:
        return _own(text, size)
    return _of_project(text, size)


def _of_project(name: str, size: int | None) -> Named:
    if name not in zoo.NETWORKS:
        with_weights = ", ".join(zoo.NETWORKS)
        if name in models.names():
            raise ValueError(
                f"{name!r} comes without weights, studies train it; give one that comes with weights ({with_weights}), "
                "torchvision:NAME, or a function of yours that loads the weights, folder/file.py:function"
            )
        if Path(name).suffix == ".py" and Path(name).exists():
            raise ValueError(f"{name} is a file; name the function in it that returns the network, {name}:build")
        close = names.close(name, zoo.NETWORKS)
        meant = f"did you mean {' or '.join(close)}? " if close else ""
        raise ValueError(f"unknown network {name!r}; {meant}There are {with_weights}, torchvision:NAME and module:function")
    entry = zoo.NETWORKS[name]
    model = models.create(name, classes=1000, weights="imagenet")
    return _published(name, model, imagenet.class_names(), size, entry.size)


def _torchvision(text: str, size: int | None) -> Named:
    found = zoo.published(text.partition(":")[2])
    model = classifier.adapt(found.net, mean=found.mean, std=found.std, classes=len(found.classes))
    return _published(text, model, found.classes, size, found.size)


def _published(
    name: str, model: classifier.Classifier, classes: tuple[str, ...], size: int | None, published_size: int
) -> Named:
    """Three channels, cut as ImageNet's classifiers are evaluated; normalisations are folded where that changes nothing."""
    model.eval()
    side = size or published_size
    x = _probe(model, 3, side)
    _checked_pass(name, model, x, published_size)
    with contextlib.suppress(ValueError):  # the network as it is, where they do not follow their convolutions
        folded = folding.folded(model, x)
        assert isinstance(folded, classifier.Classifier)
        model = folded
    return _with_layers(name, model, side, 3, classes, "imagenet", x)


def _own(text: str, size: int | None) -> Named:
    net = own_code.build(text)
    side = size or _own_size(text, net)
    model = net if isinstance(net, classifier.Classifier) else classifier.adapt(net)
    model.eval()
    channels, logits = _fitting(text, model, side)
    classes = _class_names(text, net, logits.shape[1])
    return _with_layers(text, model, side, channels, classes, "whole", _probe(model, channels, side))


def _attribute(net: nn.Module, name: str) -> object:
    """An attribute of a network, or of what `adapt` has wrapped."""
    return getattr(net, name, getattr(getattr(net, "net", None), name, None))


def _own_size(text: str, net: nn.Module) -> int:
    """The side of its images that a network says itself, as a number or a square pair of them; SIZE where it says none. Raises
    ValueError for numbers that are no such side."""
    own = _attribute(net, "size")
    pair = list(own) if isinstance(own, (tuple, list)) else [own]
    if not all(isinstance(side, numbers.Integral) and not isinstance(side, bool) for side in pair) or not pair:
        return SIZE  # of something else
    if min(pair) != max(pair) or not SIZES[0] <= min(pair) <= SIZES[1]:
        raise ValueError(
            f"{text} has size {own!r}; size is the side of its square images, {SIZES[0]} to {SIZES[1]} pixels. Mend it, or say "
            "which size it takes (--size N)"
        )
    return int(pair[0])


def _class_names(text: str, net: nn.Module, count: int) -> tuple[str, ...]:
    known = _attribute(net, "class_names")
    if known is None:
        return tuple(map(str, range(count)))
    if isinstance(known, str) or not isinstance(known, Sequence) or len(known) != count:
        listed = isinstance(known, Sequence) and not isinstance(known, str)
        has = f"{len(known)} class_names" if listed else f"class_names of type {type(known).__name__}"
        raise ValueError(
            f"{text} has {has} and gives {count} logits; class_names are a list of text, one a logit, in their order"
        )
    return tuple(map(str, known))


def _probe(model: nn.Module, channels: int, side: int) -> Tensor:
    """An image of noise, on the device of a network's weights; always the same."""
    first = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    x = torch.rand(1, channels, side, side, generator=torch.Generator().manual_seed(0))
    return x.to(first.device)


def _fitting(text: str, model: classifier.Classifier, side: int) -> tuple[int, Tensor]:
    """The number of channels that a network takes, colour before grey, and its logits. The convolution that it defines first
    tells only what to say: it need not be the one that sees the picture."""
    refused = {}
    for channels in (3, 1):
        try:
            return channels, _checked_pass(text, model, _probe(model, channels, side), None)
        except ValueError as error:
            refused[channels] = error
    asked = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), 3)
    if asked in refused or asked == 0:
        raise refused[asked or 3]
    raise ValueError(
        f"{text} takes images of {asked} channels; pictures have 1 (grey) or 3 (colour): let its function return a module that "
        "makes what it needs of them"
    ) from refused[3]


def _checked_pass(text: str, model: nn.Module, x: Tensor, published_size: int | None) -> Tensor:
    """Its logits. Raises ValueError for a network that does not take such images, or gives none."""
    channels, side = x.shape[1], x.shape[-1]
    try:
        with torch.no_grad():
            logits = contract.logits_of(model, x)
    except (RuntimeError, AssertionError, IndexError, TypeError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        kinds = {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.dtype in (torch.half, torch.bfloat16)}
        remedy = f"leave the size out, it is {published_size}" if published_size else "say which size it takes (--size, size=)"
        if kinds:
            remedy = f"its weights are of {' and '.join(sorted(kinds))}: let its function return net.float()"
        raise ValueError(f"{text} does not take images of {channels} × {side} × {side} ({line}); {remedy}") from error
    except ValueError:  # of the contract, which says what to do
        raise
    except Exception as error:
        line = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(f"{text} fails on a picture ({type(error).__name__}: {line}); mend its forward") from error
    contract.check_logits(model, logits)
    return logits


def _with_layers(
    name: str, model: classifier.Classifier, side: int, channels: int, classes: tuple[str, ...], crop: Crop, x: Tensor
) -> Named:
    """With the stages that the network says, or those that are found."""
    if not model.stages:
        with contextlib.suppress(ValueError):  # it cannot be looked into, and is still good for maps of pixels
            model.stages = stages.find_stages(model, x)
    layer = model.stages[-1] if model.stages else ""
    if layer:
        hooks.find_layer(model, layer)
    head = stages.find_head(model, layer, x) if layer else ""
    if model.classes is None:
        model.classes = len(classes)
    return Named(name, model, side, channels, classes, layer, head, crop)
