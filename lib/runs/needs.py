"""What a run needs of data, looked up before a kernel starts and before anything is decoded, drawn or trained."""

import itertools
import json
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from lib.data import datasets, imagenet
from lib.networks import zoo
from lib.runs import profiles
from lib.studies.parameters import Parameters
from lib.training.config import TrainConfig

LOOKED_AT = ("dataset", "photographs")  # parameters that name data of which a study looks at the test split
EMBEDDED = "photographs"  # the ones that come with packages
# and those that name a class of photographs, one of which is shown, each with the parameter that names another class
SHOWN = {"left": "right", "right": "left", "victim": "aim"}


def _every(configs: Iterable[TrainConfig]) -> Iterator[TrainConfig]:
    for config in configs:
        yield config
        yield from _every(config.needs)


def check(run: str, p: Parameters) -> None:
    """That the device and the data sets are there, and published weights where training begins with them; that data have the
    classes that parameters name, and are a batch at least where something is trained.

    Raises ValueError with the parameter to set, and what `lib.data.datasets.load` raises for data that is missing.
    """
    if run == profiles.LEDGER:
        return
    if not _there(p.device):
        raise ValueError(f"device {p.device}: this machine has none such; nothing was run. Use --set device=auto")
    for name in LOOKED_AT:
        if hasattr(p, name):
            datasets.count(getattr(p, name), "test", size=getattr(p, "size", None) if name == "dataset" else None)
            _check_numbers(getattr(p, name))
    _check_photographs(p)
    seen: set[tuple[str, int | None, int]] = set()
    for config in _every(profiles.part(run, "plan").networks(p)):
        if config.weights == "imagenet" and config.arch not in zoo.NETWORKS and ":" not in config.arch:
            raise ValueError(
                f"weights=imagenet: {config.arch} was never published; nothing was run. Choose an architecture of "
                f"{', '.join(zoo.NETWORKS)}, or weights=none"
            )
        asked = (config.dataset, config.limit, config.batch_size)
        if config.epochs and asked not in seen:  # a published network needs no training images
            seen.add(asked)
            _check_batch(p, config)
    _check_classes(p)


def _check_numbers(name: str) -> None:
    """Folders of `imagenet:NAME` are called by the WordNet numbers of ImageNet's classes."""
    if name.startswith("imagenet:"):
        unknown = [c for c in imagenet.listed(name.removeprefix("imagenet:"), "test") if c not in imagenet.wnids()]
        if unknown:
            raise ValueError(
                f"{name}: {unknown[0]} is none of the 1,000 classes of ILSVRC 2012; nothing was run. Remove its folder"
            )


def _check_photographs(p: Parameters) -> None:
    """Photographs have ImageNet's classes, and show those that parameters name."""
    source = getattr(p, "photographs", EMBEDDED)
    if source == EMBEDDED:
        return
    if not source.startswith("imagenet:"):
        raise ValueError(
            f"photographs={source}: its classes are not known to be ImageNet's; nothing was run. Use --set photographs="
            f"{EMBEDDED}, or imagenet:NAME with folders named by WordNet numbers (n01440764, …)"
        )
    called = dict(zip(imagenet.wnids(), imagenet.class_names(), strict=True))
    found = imagenet.listed(source.removeprefix("imagenet:"), "test")
    there = [called[number] for number, pictures in found.items() if pictures and number in called]
    missing = {name: getattr(p, name) for name in SHOWN if getattr(p, name, there[0] if there else "") not in there}
    if len(there) < 2:
        shows = ", ".join(there) or "none of ImageNet's classes"
        raise ValueError(f"{source} shows {shows}; the tour compares two at least. Nothing was run")
    if missing:
        said = " and ".join(f"{name}={value!r}" for name, value in missing.items())
        instead: dict[str, str] = {}
        for name in missing:
            unlike = instead.get(SHOWN[name], getattr(p, SHOWN[name]))
            instead[name] = next(c for c in there if c != unlike)
        listed = ", ".join(there[:12]) + (", …" if len(there) > 12 else "")
        raise ValueError(f"{said}: {source} shows {listed}; nothing was run. Use for example {_options(instead.items())}")


def _options(values: Iterable[tuple[str, Any]]) -> str:
    """How values are given on the command line, quoted for the shell."""
    return " ".join(
        f"--set {shlex.quote(f'{n}={v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)}')}" for n, v in values
    )


def told(p: Parameters) -> list[str]:
    """What a run says at its beginning: where it asks for more test images than there are, it looks at all of them."""
    there = datasets.count(p.dataset, "test", size=p.size) if hasattr(p, "dataset") else None
    asked = {n: getattr(p, n) for n, field in type(p).model_fields.items() if "test images" in (field.description or "")}
    more = [f"{name}={value}" for name, value in asked.items() if there is not None and value is not None and value > there]
    return [f"{', '.join(more)}: {p.dataset} has {there} test images, which are all looked at"] if more else []


def _there(device: str) -> bool:
    """Whether this machine has a device; it is not touched, since the work is another process's."""
    if device == "cuda":
        return torch.cuda.is_available()
    return device != "mps" or torch.backends.mps.is_available()


def _check_batch(p: Parameters, config: TrainConfig) -> None:
    there = datasets.count(config.dataset, "train", size=config.size)
    images = min((n for n in (there, config.limit) if n is not None), default=config.batch_size)
    if images >= config.batch_size:
        return
    few = f"{config.dataset} gives {images} training images, fewer than one batch of {config.batch_size}"
    names = [n for n, value in p.model_dump().items() if "batch" in n and value == config.batch_size]
    if names:
        smaller = 2 ** max(1, (images // 2).bit_length() - 1)  # so that an epoch has two steps at least
        raise ValueError(f"{few}; nothing was run. Use --set {names[0]}={smaller}")
    limited = config.limit is not None and (there is None or there > config.limit)
    more = "raise train_images" if limited else "add images"
    raise ValueError(f"{few}, whose size is no parameter; nothing was run. Please {more}")


def _check_classes(p: Parameters) -> None:
    """A parameter names classes, or pairs SOURCE>TARGET of them, where its default names those of the default data set."""
    default = {name: field.default for name, field in type(p).model_fields.items()}
    if "dataset" not in default:
        return
    named = {name for name, value in default.items() if set(_parts(value)) & set(datasets.classes(default["dataset"]) or ())}
    known = datasets.classes(p.dataset) if named else None
    strange = {n: part for n in default if n in named for part in _parts(getattr(p, n)) if known and part not in known}
    if not strange:
        return
    said = " and ".join(f"{name}={part!r}" for name, part in strange.items())
    pairs = itertools.cycle([f"{known[0]}>{known[1]}", f"{known[1]}>{known[0]}"])
    single, listed = itertools.cycle(known), ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    instead = _options((n, next(single) if isinstance(default[n], str) else [next(pairs)]) for n in strange)
    raise ValueError(f"{said}: none of the classes of {p.dataset}, {listed}; nothing was run. Use for example {instead}")


def _parts(value: Any) -> list[str]:
    """The names in a text, a pair SOURCE>TARGET, or several of them."""
    texts = value if isinstance(value, tuple) else (value,)
    return [part for text in texts if isinstance(text, str) for part in text.split(">")]
