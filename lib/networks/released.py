"""The networks that Boopathy et al. 2020 (arXiv:2006.14748) published, as plain arrays or as the authors' own pickles.

A `Family` is what they trained on one data set with one architecture, a network an arm. The files are looked for below
`<root>/released_nets` (the root is `data/datasets`, or STUDY_DATA). Either `<data>_<architecture>_<name>.npz` (`cifar` for
CIFAR-10; the authors' names, as in `NAMES`) with arrays `conv1.weight` (out, in, height, width), `conv1.bias`, … in the order
of the convolutions (WResnet: the stem, then both of each block) and `linear.weight` (classes, channels). Or a copy of the
authors' repository (github.com/AkhilanB/Proper-Interpretability), whose `networks/<data>_<theirs>_<name>_<epochs>.pkl` are read
by an unpickler that admits numpy arrays and nothing else. All of them take pixels in [0, 1] as they are.
"""

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lib.data import downloads
from lib.networks import classifier, models
from lib.system import paths

# our arms, and what the authors call them
NAMES = {
    "normal": "normal",
    "adv": "adv",
    "trades": "trades",
    "ig-norm": "ig",
    "ig-norm-sum": "igsum",
    "int-one-class": "intone",
    "int": "int",
    "int-adv": "intadv",
    "int2": "int2",
    "int2-adv": "int2adv",
}
EVALUATED = 200  # MNIST's test images, drawn with numpy's seed 99


@dataclass(frozen=True)
class Family:
    """What the authors trained on one data set with one architecture: the names of both, epochs, and channels of images."""

    data: str
    arch: str  # of lib.networks.models
    name: str  # as the paper writes the architecture
    prefix: str  # of files of plain arrays
    theirs: str  # of the authors' pickles
    epochs: int
    channels: int


MNIST_SMALL = Family("mnist", "small", "Small", "mnist_small", "mnist_smallgap", 100, 1)
CIFAR_WRESNET = Family("cifar10", "wresnet", "WResnet", "cifar_wresnet", "cifar_wresnet", 200, 3)
CIFAR_SMALL = Family("cifar10", "small", "Small", "cifar_small", "cifar_smallgap", 200, 3)
FAMILIES = (MNIST_SMALL, CIFAR_WRESNET, CIFAR_SMALL)  # of each data set first what the paper's table 1 has


def families(dataset: str) -> tuple[Family, ...]:
    """Those of a data set, `folder:cifar10` as `cifar10`; none where the authors published nothing."""
    return tuple(f for f in FAMILIES if f.data == dataset.rpartition(":")[2])


def family(dataset: str, arch: str) -> Family:
    """That of a data set and an architecture. Raises ValueError where there is none."""
    found = {f.arch: f for f in families(dataset)}
    if arch not in found:
        there = f"there are {', '.join(found)}" if found else "there are none"
        raise ValueError(f"Boopathy et al. published no network {arch!r} for {dataset!r}; {there}")
    return found[arch]


def folder() -> Path:
    return paths.datasets() / "released_nets"


def available(family: Family) -> dict[str, Path]:
    """The file of each arm that is there; plain arrays before pickles."""
    found = {}
    for arm, name in NAMES.items():
        plain = folder() / f"{family.prefix}_{name}.npz"
        own = [folder() / part / f"{family.theirs}_{name}_{family.epochs}.pkl" for part in (".", "networks")]
        there = [p for p in (plain, *own) if p.exists()]
        if there:
            found[arm] = there[0]
    return found


def missing(*of: Family) -> str:
    """What to say where none of these families is there."""
    files = " or ".join(f"{family.prefix}_<name>.npz" for family in of)
    return (
        f"no published networks below {folder()}: this part is skipped. Copy {NAMES['adv']!r} and the others there as "
        f"{files}, or the folder `networks` of github.com/AkhilanB/Proper-Interpretability."
    )


class _Arrays(pickle.Unpickler):
    """Reads numpy arrays of numbers and the containers that hold them; every other global is refused."""

    ALLOWED: ClassVar = {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}; only numpy arrays are admitted")
        if module == "_codecs":
            return lambda text, encoding: _bytes(text, encoding)  # a new one each time: a pickle may write to what it gets
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _bytes(text: str, encoding: str) -> bytes:
    """How older pickles spell bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}; bytes are written as latin1")
    return text.encode("latin1")


def unpickle(content: bytes) -> list[Any]:
    """The list of layers of one of the authors' files. Raises ValueError for anything but lists of numpy arrays."""
    try:
        found = _Arrays(io.BytesIO(content)).load()
    except Exception as error:  # a pickle's parser raises whatever its bytes lead to
        raise ValueError(f"not one of the published networks ({error})") from error
    layers = found if isinstance(found, list) else [found]
    arrays = [part for layer in layers for part in (layer if isinstance(layer, (list, tuple)) else [layer])]
    wrong = [a for a in arrays if not (isinstance(a, np.ndarray) and a.dtype.kind == "f")]
    if wrong or not all(isinstance(layer, (list, tuple)) for layer in layers):
        what = getattr(wrong[0], "dtype", type(wrong[0]).__name__) if wrong else "arrays outside of layers"
        raise ValueError(f"not one of the published networks: it holds {what}, expected lists of floating-point arrays")
    return found


def _state(path: Path, family: Family, convolutions: list[str]) -> dict[str, np.ndarray]:
    """The arrays of a file by the names that the network has for them."""
    if path.suffix == ".npz":
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            state = dict(stored)
        named = {f"conv{i}.{kind}": f"{name}.{kind}" for i, name in enumerate(convolutions, 1) for kind in ("weight", "bias")}
        named["linear.weight"] = "head.weight"
        return {named.get(key, key): value for key, value in state.items()}
    layers = unpickle(path.read_bytes())
    if len(layers) != len(convolutions) + 1:
        raise ValueError(f"it has {len(layers)} layers; {family.name} has {len(convolutions)} convolutions and a linear layer")
    if len(layers[-1]) != 1 or layers[-1][0].shape[:2] != (1, 1):
        raise ValueError("its last layer is no 1 x 1 map of channels to classes without a bias")
    state = {"head.weight": layers[-1][0][0, 0].T}
    for name, (weight, bias) in zip(convolutions, layers[:-1], strict=True):
        state |= {f"{name}.weight": weight.transpose(3, 2, 0, 1), f"{name}.bias": bias}
    return state


def load_network(path: Path, family: Family) -> classifier.Classifier:
    """One published network in evaluation mode. Raises ValueError that names the file where it does not fit."""
    model = models.create(family.arch, classes=10, channels=family.channels)
    convolutions = [name for name, layer in model.net.named_modules() if isinstance(layer, nn.Conv2d)]
    try:
        state = _state(path, family, convolutions)
        tensors = {k: torch.from_numpy(np.ascontiguousarray(v, np.float32)) for k, v in state.items()}
        if not all(t.isfinite().all() for t in tensors.values()):
            raise ValueError("its weights are not all finite")
        model.net.load_state_dict(tensors)
    except Exception as error:  # zip archives, pickles and state dictionaries each raise what their parsers meet
        raise ValueError(f"{path} is not a published network of the architecture {family.name}: {error}") from error
    return model.eval()


def find(family: Family, arm: str) -> Path:
    """The file of an arm. Raises FileNotFoundError where it is not there, in words."""
    there = available(family)
    if arm not in there:
        known = f"there are {', '.join(there)}" if there else missing(family)
        raise FileNotFoundError(f"no network {arm!r} of {family.name} on {family.data} below {folder()}; {known}")
    return there[arm]


def load(family: Family, arm: str) -> classifier.Classifier:
    """The network of an arm in evaluation mode. Raises FileNotFoundError as `find` and ValueError as `load_network`."""
    return load_network(find(family, arm), family)


def evaluation_images() -> tuple[Tensor, Tensor]:
    """The 200 MNIST test images of the paper's tables, (200, 1, 28, 28) in [0, 1], and their labels.

    numpy's seed 99, the first 200 of a permutation of the 10,000, in the files' own order.
    """
    images, labels = downloads.read("mnist", "MNIST", lambda test: (test.data, test.targets), train=False)
    chosen = torch.from_numpy(np.random.RandomState(99).permutation(10_000)[:EVALUATED])
    return images[chosen][:, None].float() / 255, labels[chosen]
