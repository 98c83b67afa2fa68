"""Layers by dotted name, and all of them at once."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from lib.system import names as names_

INTO = "into:"  # `into:NAME` is what goes into a layer, where NAME alone is what it puts out


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The module called `name`: dotted, from the model itself, else from its `net` where the model is a wrapper.

    Raises ValueError with the closest names when there is none, and with all of them where a name means several modules:
    layers of a network with `stages` are named within its `net`, so a layer of its own must not be called as one there.
    """
    found: dict[str, nn.Module] = {}
    root, prefix = model, ""
    while isinstance(root, nn.Module):
        module = _within(root, name) if name else None
        if module is not None and not any(module is m for m in found.values()):
            found[prefix + name] = module
        root, prefix = getattr(root, "net", None), f"{prefix}net."
    if not found:
        inner = getattr(model, "net", None)
        root = inner if isinstance(inner, nn.Module) else model
        names = [n for n, _ in root.named_modules() if n]
        close = names_.close(name, names) or names[:8]
        raise ValueError(f"no layer {name!r} in {type(root).__name__}; did you mean {', '.join(close)}?")
    exact = name in found and not hasattr(model, "stages")
    if len(found) > 1 and not exact:
        inner = ", ".join(repr(n) for n in found if n != name)
        raise ValueError(
            f"layer {name!r} of {type(model).__name__} means {' and '.join(map(repr, found))}; write {inner}, or give one of "
            "the two another name"
        )
    return next(iter(found.values()))


def _within(root: nn.Module, name: str) -> nn.Module | None:
    try:
        return root.get_submodule(name)
    except AttributeError:
        return None
    except RuntimeError:  # a torch.jit model has modules, and does not give them by name
        return dict(root.named_modules()).get(name)


def walk(model: nn.Module) -> Iterator[tuple[nn.Module, Iterable[Tensor | None]]]:
    """Every module once, with parameters of its own (one that modules share comes with each; None: a place without one).

    In a fraction of the time of `model.modules()` and `model.parameters()`, which a map of one image would feel: after a
    forward pass each look at a module is one at cold memory.
    """
    seen, queue = {id(model)}, [model]
    for module in queue:  # which grows as it is read
        inner: Iterable[nn.Module | None]
        if isinstance(module, torch.jit.ScriptModule):  # keeps them elsewhere
            inner, held = list(module.modules()), list(module.parameters())
        else:
            inner, held = module._modules.values(), module._parameters.values()
        for m in inner:
            if m is not None and id(m) not in seen:
                seen.add(id(m))
                queue.append(m)
        yield module, held
