"""Networks under one contract, and what looks inside them."""

from lib.networks.classifier import Classifier
from lib.networks.contract import check_logits, looks_like_probabilities, predicted, target_classes
from lib.networks.hooks import capture, find_layer, frozen
from lib.networks.models import SMALL_NETWORKS, create, names, parameter_count
from lib.networks.papers import CIFAR_RESNETS, SmallNet, WResNet, wresnet
from lib.networks.small import STAGES, inception, plain, residual
from lib.networks.style import StyleNet, adain, statistics, style_distance, stylize, vgg19
from lib.networks.tape import Normalisation, Step, Tape, bound, normalisation
from lib.networks.zoo import NETWORKS, Entry, build

__all__ = [
    "CIFAR_RESNETS",
    "NETWORKS",
    "SMALL_NETWORKS",
    "STAGES",
    "Classifier",
    "Entry",
    "Normalisation",
    "SmallNet",
    "Step",
    "StyleNet",
    "Tape",
    "WResNet",
    "adain",
    "bound",
    "build",
    "capture",
    "check_logits",
    "create",
    "find_layer",
    "frozen",
    "inception",
    "looks_like_probabilities",
    "names",
    "normalisation",
    "parameter_count",
    "plain",
    "predicted",
    "residual",
    "statistics",
    "style_distance",
    "stylize",
    "target_classes",
    "vgg19",
    "wresnet",
]
