"""Layers by dotted name, and all of them at once."""

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


def parts(model: nn.Module) -> tuple[list[nn.Module], list[Tensor]]:
    """Every module and every parameter once, as `model.modules()` and `model.parameters()` have them, without their names: in
    a fraction of the time, which a map of one image would feel."""
    modules: dict[int, nn.Module] = {id(model): model}
    parameters: dict[int, Tensor] = {}
    queue = [model]
    for module in queue:  # which grows as it is read
        if isinstance(module, torch.jit.ScriptModule):  # keeps them elsewhere
            found, held = list(module.modules()), list(module.parameters())
        else:
            found, held = module._modules.values(), module._parameters.values()
        for p in held:
            if p is not None:
                parameters[id(p)] = p
        for m in found:
            if m is not None and id(m) not in modules:
                modules[id(m)] = m
                queue.append(m)
    return list(modules.values()), list(parameters.values())
