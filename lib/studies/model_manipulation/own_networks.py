"""A network of one's own, made ready to be fooled on the photographs: where its map lies, what of it is tuned, and how far.

What the study has by name for the networks that it knows (`plan.LAYERS`, learning rates), rules find here for any other one:

* the layer T: the input of the last convolution. Where other ways lead past that, as in a residual block, the input of the
  smallest block around it that everything goes through. Where there is no such place (transformers), the network's last stage;
* tuned is what the image goes through after the last stage that T still has weights behind; the stages before stay as they are;
* Adam moves every weight by about its learning rate in its first step, along the sign of its gradient. The rate is that at
  which such a step moves the logits of BATCH photographs as far as it does in the published network: by MOVED of their length.

The published network has 5 epochs; others, at rates that nobody has tried, twice as many, and small ones four times.

`ready` tries every fooling and every map once, so that what is offered works.
"""

import copy
import functools
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lib.data import datasets
from lib.data.image_sets import ImageSet, Split
from lib.explanations import by_name
from lib.explanations.by_name import Settings
from lib.networks import contract, hooks
from lib.networks.layers import INTO, find_layer
from lib.studies import subjects
from lib.studies.model_manipulation import objective
from lib.system import files
from lib.training.objectives import Moment

BATCH, WEIGHT = 4, 4.0  # photographs in a step; of the fooling, beside the cross-entropy
MOVED = 1.37  # by the first step of the published network, at its rate of 5e-4
RATES = (1e-7, 1e-2)  # beyond, something is wrong with the network
EPOCHS, LONGER = 10, 20  # of the tuning; where images have SMALL pixels a side or fewer, and a step costs little
SMALL = 64
SMALLEST = 3  # positions a side of a map: a frame has an inside
DATASET = "photographs-for-tuning"  # for one's own network followed by its digest


@dataclass(frozen=True, eq=False)
class Own:
    """A network of one's own and all that its fooling needs.

    `model` says in its parameters' `requires_grad` which are tuned. The labels of `data` are the photographs' where `labelled`,
    else what the network decides for of its own accord. `fooled` and `seen` are the interpreters that it can be fooled through
    and looked at with; `without` says of the others why not.
    """

    name: str  # as a person typed it
    subject: subjects.Subject
    model: nn.Module
    data: ImageSet
    layer: str
    rate: float
    fooled: tuple[str, ...]
    seen: tuple[str, ...]
    without: dict[str, str]
    digest: str

    @property
    def labelled(self) -> bool:
        """Whether the photographs' labels are among the network's classes."""
        return self.subject.labelled

    @property
    def arch(self) -> str:
        """As a configuration of training names it: what `__getattr__` resolves."""
        return f"{__name__.removeprefix('lib.')}:{self.digest}"

    @property
    def epochs(self) -> int:
        return LONGER if self.subject.size <= SMALL else EPOCHS

    @property
    def place(self) -> str:
        """The layer in words."""
        return f"the input of {self.layer.removeprefix(INTO)}" if self.layer.startswith(INTO) else self.layer

    @property
    def dataset(self) -> str:
        return f"{DATASET}-{self.digest}"

    @property
    def config(self) -> dict[str, Any]:
        """What a configuration of training says of it."""
        size, channels = self.subject.size, self.data.channels
        return {"dataset": self.dataset, "size": size, "channels": channels, "arch": self.arch, "lr": self.rate}


_READY: "weakref.WeakValueDictionary[str, Own]" = weakref.WeakValueDictionary()


def __getattr__(name: str) -> Callable[..., nn.Module]:
    """By its digest, what gives a network that is ready: training builds networks by name, `lib.training.objectives.own`."""
    found = _READY.get(name)
    if found is None:
        raise AttributeError(f"no network {name} is ready")
    return lambda **_given: copy.deepcopy(found.model)


def _photographs(digest: str, _split: Split) -> ImageSet:
    return _READY[digest].data


def layer_of(model: nn.Module, x: Tensor, last_stage: str) -> str:
    """The layer T of a network for images x (N, C, H, W); see the module's docstring. `last_stage` may be empty.

    Raises ValueError where maps can be made nowhere.
    """
    ran: list[str] = []
    with hooks.frozen(model), torch.no_grad(), hooks.naming(model, lambda _output, name: ran.append(name)):
        contract.logits_of(model, x)
    last = next((n for n in reversed(ran) if isinstance(_module(model, n), nn.modules.conv._ConvNd)), "")
    while last:
        if _everything_through(model, x, INTO + last):
            return INTO + last
        last = last.rpartition(".")[0]
    if last_stage:
        return last_stage
    raise ValueError("it has neither convolutions nor patches that its decision goes through, so there is no map to fool")


def _module(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return find_layer(model, name)
    except ValueError:  # of the wrapper, or of two by that name
        return None


def _everything_through(model: nn.Module, x: Tensor, layer: str) -> bool:
    """Whether the logits depend on the image through a layer alone, and the layer on weights: it is not the image itself."""
    image, weighted = x.detach().requires_grad_(), []

    def cut(_name: str, record: Tensor) -> Tensor:
        return record.detach().clone()

    try:
        with hooks.frozen(model), torch.enable_grad(), hooks.capture(model, [layer], cut=False, instead=cut):
            past = contract.logits_of(model, image).requires_grad
        seeing = hooks.capture(model, [layer], cut=False, seeing=lambda record: weighted.append(record.requires_grad))
        with hooks.frozen(model, parameters=True), torch.enable_grad(), seeing:
            contract.logits_of(model, x)
    except ValueError:  # runs several times, or takes no map
        return False
    return not past and any(weighted)


def tuned_of(model: nn.Module, x: Tensor, stages: Sequence[str], layer: str) -> list[str]:
    """The names of the parameters that are tuned, for a network whose parameters all require gradients; see the module's
    docstring. All that the logits depend on, where there is no such stage."""
    weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for stage in (*reversed(stages[:-1]), None):

        def cut(name: str, record: Tensor, stage: str | None = stage) -> Tensor:
            return record.detach().clone() if name == stage else record.clone()

        places = [layer] if stage is None else [stage, layer]
        with (
            hooks.frozen(model, parameters=True),
            torch.enable_grad(),
            hooks.capture(model, places, cut=False, any_layout=True, instead=cut) as at,
        ):
            logits = contract.logits_of(model, x)
            if not logits.requires_grad:
                raise ValueError("no gradient leads from its logits to its weights")
            if stage is None or at[layer].requires_grad:
                found = torch.autograd.grad(logits.sum(), list(weights.values()), allow_unused=True)
                return [n for n, gradient in zip(weights, found, strict=True) if gradient is not None]
    raise AssertionError("unreachable")


def _loss(model: nn.Module, x: Tensor, y: Tensor, interpreter: str, settings: Settings) -> Tensor:
    """What a step of the tuning minimises."""
    moment = Moment(0, 0, 1, 0.0, torch.Generator().manual_seed(0))
    options = {"kind": "location", "interpreter": interpreter, "weight": WEIGHT, "layer": settings.layer}
    return objective.fool(model, x, y, moment, **options, composite=settings.composite).mean()


def rate_of(model: nn.Module, x: Tensor, y: Tensor, settings: Settings) -> float:
    """The learning rate, from images x (N, C, H, W) with classes y; see the module's docstring. To two digits, so that rounding
    changes no key; within RATES.

    How far logits move, `|f(w - rate sign g) - f(w)| / |f(w) - mean f(w)|`, grows about as the rate does: three times the rate
    is set to what that would make MOVED.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(_loss(model, x, y, "gradcam", settings), weights, allow_unused=True)
    pairs = [(w, g.sign()) for w, g in zip(weights, found, strict=True) if g is not None]
    moving = copy.deepcopy(model)
    towards = [p for p, g in zip((p for p in moving.parameters() if p.requires_grad), found, strict=True) if g is not None]
    with hooks.frozen(moving), torch.no_grad():
        before = contract.logits_of(moving, x)
        length = (before - before.mean(1, keepdim=True)).norm()
        rate = 1e-5
        for _ in range(3):
            for p, (w, sign) in zip(towards, pairs, strict=True):
                p.copy_(w - rate * sign)
            moved = float((contract.logits_of(moving, x) - before).norm() / length)
            if not moved > 0:
                raise ValueError("a step of the tuning does not change what it says of the photographs")
            rate = min(max(rate * MOVED / moved, RATES[0]), RATES[1])
    return float(f"{rate:.1e}")


def _digest(model: nn.Module, decided: Tensor) -> str:
    """Of its weights and modules, and of what it decides for, which tells of code that neither shows."""
    held = dict([*model.named_parameters(), *model.named_buffers()])
    content = {n: files.digest(t.detach().cpu().flatten().view(torch.uint8).numpy().tobytes()) for n, t in held.items()}
    return files.digest_of([content, repr(model), decided.tolist()])


def _told(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or repr(error)


def _fooling(model: nn.Module, x: Tensor, y: Tensor, interpreter: str, settings: Settings) -> str:
    """Why a fooling through an interpreter cannot be trained, by a step of it without the step; empty where it can."""
    weights = [p for p in model.parameters() if p.requires_grad]
    try:
        torch.autograd.grad(_loss(model, x, y, interpreter, settings), weights, allow_unused=True)
    except (ValueError, RuntimeError) as error:
        return _told(error)
    return ""


def _looking(model: nn.Module, x: Tensor, y: Tensor, interpreter: str, settings: Settings) -> str:
    """Why a map cannot be made; empty where it can."""
    try:
        by_name.explain(interpreter, model, x, y, settings)
    except (ValueError, RuntimeError) as error:
        return _told(error)
    return ""


@functools.lru_cache(maxsize=4)
def ready(name: str, device: str, fooled: tuple[str, ...], seen: tuple[str, ...], settings: Settings) -> Own:
    """The network that a person typed, ready to be fooled through those of `fooled` and looked at with those of `seen` that it
    has rules for. `settings` are those of its maps, but for the layer.

    Raises ValueError in a sentence for a network that Grad-CAM cannot be fooled in, and as `subjects.own`.
    """
    subject = subjects.own(name, device)
    if any(isinstance(m, torch.jit.ScriptModule) for m in subject.model.modules()):
        raise ValueError(f"{name} is a torch.jit model, which cannot be looked into; give the model that it was made from")
    model = copy.deepcopy(subject.model).eval()
    for p in model.parameters():
        p.requires_grad_(p.is_floating_point())
    data = subject.data
    x = data.images[:1].to(next(model.parameters()).device)
    try:
        layer = layer_of(model, x, subject.layer)
        tuned = set(tuned_of(model, x, model.stages, layer))
    except ValueError as error:
        raise ValueError(f"{name} cannot be fooled here: {_told(error)}") from error
    for n, p in model.named_parameters():
        p.requires_grad_(n in tuned)
    with hooks.frozen(model), torch.no_grad():
        decided = torch.cat([contract.logits_of(model, part.to(x.device)).argmax(1).cpu() for part in data.images.split(8)])
    if not subject.labelled:
        data = ImageSet(data.name, data.split, data.images, decided, subject.classes, crop=data.crop)
    y, settings = data.labels[:1].to(x.device), settings._replace(layer=layer)
    without = {i: why for i in fooled if (why := _fooling(model, x, y, i, settings))}
    if "gradcam" in without:
        raise ValueError(f"{name} cannot be fooled through Grad-CAM: {without['gradcam']}")
    _check_size(name, by_name.explain("gradcam", model, x, y, settings).values, layer, subject.size)
    try:
        rate = rate_of(model, data.images[:BATCH].to(x.device), data.labels[:BATCH].to(x.device), settings)
    except ValueError as error:
        raise ValueError(f"{name} cannot be fooled here: {_told(error)}") from error
    without |= {i: why for i in seen if i not in without and (why := _looking(model, x, y, i, settings))}
    usable, shown = (tuple(i for i in some if i not in without) for some in (fooled, seen))
    found = Own(name, subject, model, data, layer, rate, usable, shown, without, _digest(model, decided))
    _READY[found.digest] = found
    datasets.EMBEDDED[found.dataset] = functools.partial(_photographs, found.digest)
    return found


def _check_size(name: str, maps: Tensor, layer: str, size: int) -> None:
    height, width = maps.shape[-2:]
    if height != width or height < SMALLEST:
        raise ValueError(
            f"{name} cannot be fooled here: of images of {size} × {size} pixels the map at {layer} has {height} × {width} "
            f"positions, and a square frame with an inside needs {SMALLEST} × {SMALLEST}; let its function give a larger `size`"
        )


def anew(*given: Any) -> Own:
    """`ready`, from the network's file as it is now: whoever names a network again may have edited it."""
    subjects.own.cache_clear()
    ready.cache_clear()
    return ready(*given)
