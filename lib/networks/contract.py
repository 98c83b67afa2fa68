"""What a network must give: logits of a class each, and classes that it knows.

Every kernel runs a network through `logits_of`, so that what counts as logits is said in one place:

* (N, classes), two classes or more, as they are;
* one logit z an image, (N, 1) or (N,), of a network that decides between two classes by its sign, as two: (-z/2, z/2).
  Label 1 is z > 0. The softmax of the two is (1 - sigmoid(z), sigmoid(z)), that of (0, z), so losses, margins and
  decisions are the same. But 0 depends on nothing: its gradient, and every map of class 0, would be zero without a word.
  Among the pairs with that softmax this one treats the classes alike, and what speaks for one speaks against the other.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn

from lib.data import checks

# one class for all images, (N,) or (N, K) classes as tensor, array or list, a function of the logits that gives these, or
# None: the predicted class, as in most libraries of explanations
Targets = (
    int
    | np.integer
    | Sequence[int]
    | Sequence[Sequence[int]]
    | Integer[np.ndarray, "..."]
    | Integer[Tensor, " n"]
    | Integer[Tensor, "n k"]
    | Integer[Tensor, ""]
    | Callable[[Float[Tensor, "n classes"]], Int[Tensor, "n ..."]]
    | None
)
PROBABILITIES = "the model returns probabilities, not logits"


class ProbabilitiesWarning(UserWarning):
    """What is explained are probabilities. A model that is meant to be explained so says `model.probabilities = True`."""


def logits_of(model: nn.Module, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
    """The model's logits for images, (N, classes), two classes at least; see the module's docstring.

    A model that returns (N, classes) gives the very tensor that it returned. Raises ValueError for anything but one tensor
    with a row an image (`classifier.adapt` picks the logits out of it), for one probability in place of one logit, and for a
    network that was made inside `torch.inference_mode`. Values are not looked at: `check_logits`.
    """
    try:
        output = model(x)
    except RuntimeError as error:
        if "nference tensor" in str(error):
            raise ValueError(_IN_INFERENCE) from error
        raise
    if not isinstance(output, Tensor):
        raise ValueError(
            f"the model returns {told(output)}; expected logits, one tensor (N, classes): wrap it, lib.networks.adapt(model, "
            f"output={_suggested(output)}), where output is their index, their key or a function that picks them"
        )
    shape = tuple(output.shape)
    if shape in ((), (len(x),)) and output.numel() == len(x):
        output = output.reshape(len(x), 1)
    if output.dim() != 2 or len(output) != len(x) or not output.shape[1] or not output.is_floating_point():
        kind = "" if output.is_floating_point() else f" of type {output.dtype}"
        raise ValueError(
            f"the model returns {shape}{kind} for {len(x)} image(s); expected logits (N, classes), or (N,) of "
            "two classes; lib.networks.adapt(model, output=FUNCTION) makes them of what it returns"
        )
    if output.shape[1] == 1 and _ends_in_sigmoid(output):
        raise ValueError(
            "the model returns one probability an image, by a sigmoid; expected a logit, of which the sign decides: leave the "
            "sigmoid out, or use lib.networks.adapt(model, output=torch.logit)"
        )
    return two_logits(output)


_IN_INFERENCE = (
    "the model was made, loaded or moved inside torch.inference_mode(), so gradients cannot pass it; do that outside, or under "
    "torch.no_grad()"
)


def check_outside_inference(parameters: Iterable[Tensor]) -> None:
    """ValueError for weights that `torch.inference_mode` made: the network can never be differentiated."""
    if any(p.is_inference() for p in parameters):
        raise ValueError(_IN_INFERENCE)


def two_logits(logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n _"]:
    """One logit z, (N, 1), as those of two classes, (-z/2, z/2); more than one as they are."""
    return torch.cat([logits * -0.5, logits * 0.5], 1) if logits.shape[1] == 1 else logits


def told(output: object) -> str:
    """What a model returned, for people: its type, and the names and shapes of what is in it."""
    if isinstance(output, Tensor):
        return str(tuple(output.shape))
    kind = type(output).__name__
    kind = f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"
    if isinstance(output, Mapping):
        return f"{kind} of {', '.join(f'{k!r}: {_shape(v)}' for k, v in output.items())}"
    if isinstance(output, tuple | list):
        names = getattr(output, "_fields", range(len(output)))
        return f"{kind} of {', '.join(f'{n}: {_shape(v)}' for n, v in zip(names, output, strict=True))}"
    return "None" if output is None else kind


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _suggested(output: object) -> str:
    """What would pick the logits: a key or index by that name, or of a tensor with two dimensions."""
    if isinstance(output, Mapping):
        named = list(output.items())
    elif isinstance(output, tuple | list):
        named = list(zip(getattr(output, "_fields", range(len(output))), output, strict=True))
    else:
        return "FUNCTION"
    for name, value in sorted(named, key=lambda n: n[0] != "logits"):
        if isinstance(value, Tensor) and value.dim() == 2:
            return repr(name)
    return repr(named[0][0]) if named else "FUNCTION"


# what reshapes or copies: behind it stands the operation that made the values
_MOVES = ("View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "Select", "Slice", "Alias", "Clone", "ToCopy")


def _ends_in_sigmoid(output: Tensor) -> bool:
    """Whether the graph says so; where none is recorded it is not known. (Values in [0, 1] alone prove nothing.)"""
    node = output.grad_fn
    while node is not None and node.name().startswith(_MOVES):
        node = node.next_functions[0][0]
    return node is not None and node.name().startswith("Sigmoid")


def predicted(logits: Float[Tensor, "n classes"]) -> Int[Tensor, " n"]:
    """The predicted class, (N,), for use as targets."""
    return logits.argmax(1)


def target_classes(targets: Targets, logits: Float[Tensor, "n classes"]) -> tuple[Int[Tensor, "n k"], bool]:
    """Targets as (N, K) integers within range, and whether the caller asked for one class an image."""
    n, count = logits.shape
    if targets is None:
        targets = predicted
    if callable(targets):
        targets = targets(logits.detach())
    if isinstance(targets, int):
        targets = torch.full((n,), targets, device=logits.device)
    targets = checks.integers(targets, "targets", logits.device)
    if targets.dim() == 0 and not targets.is_floating_point():
        targets = targets.repeat(n)
    if targets.is_floating_point() or targets.dim() not in (1, 2) or targets.shape[0] != n:
        raise ValueError(
            f"targets have shape {tuple(targets.shape)} and type {targets.dtype}; expected one class for all, (N,) or (N, K) "
            f"integers for N = {n} images"
        )
    if targets.numel():
        low, high = (int(t) for t in targets.aminmax())
        if low < 0 or high >= count:
            raise ValueError(f"targets range over [{low}, {high}], but there are {count} classes")
    single = targets.dim() == 1
    return (targets[:, None] if single else targets), single


def check_logits(model: nn.Module, logits: Float[Tensor, "n classes"]) -> None:
    """Logits are (N, classes) and finite; what is not finite is traced to the parameter that caused it, where one did."""
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise ValueError(f"the model returns {told(logits)}; expected logits (N, classes)")
    low, high = logits.detach().aminmax()  # NaN if one is
    if not (math.isfinite(low.item()) and math.isfinite(high.item())):
        named = [*model.named_parameters(), *model.named_buffers()]
        bad = [name for name, p in named if p.is_floating_point() and not torch.isfinite(p).all()]
        cause = f"its weights hold NaN or infinity in {', '.join(bad[:3])}" if bad else "its weights are finite"
        raise ValueError(f"the model's logits are not finite; {cause}. Load or train it again.")


def check_explained(model: nn.Module, logits: Float[Tensor, "n classes"]) -> None:
    """What an explanation starts from: `check_logits`, and a ProbabilitiesWarning where they are probabilities.

    The gradient of a probability vanishes where it is near 0 or 1: maps fade, and at 1 they are zero everywhere.
    """
    check_logits(model, logits)
    if getattr(model, "probabilities", False) is not True and looks_like_probabilities(logits):
        warnings.warn(
            f"{PROBABILITIES}: their gradient vanishes where the model is sure, and maps fade or are zero; remove the softmax "
            "(a model that is meant to be explained so says model.probabilities = True)",
            ProbabilitiesWarning,
            stacklevel=4,
        )


def looks_like_probabilities(logits: Float[Tensor, "n classes"]) -> bool:
    """True when every row lies in [0, 1] and sums to one, as softmax does and logits do not (two classes or more)."""
    if logits.shape[1] < 2:
        return False
    p = logits.detach()
    slack = max(1e-4, 2 * torch.finfo(p.dtype).eps)  # a sum in half precision is off by more
    low, high = p.aminmax()
    return bool(low.item() >= 0 and high.item() <= 1 and ((p.sum(1) - 1).abs() < slack).all())
