"""Shapes at run time: what a kernel takes and gives has the shapes that its signature names, in every test.

Arguments are looked at after the call, so that a kernel refuses what it does not take in its own words; what it does take,
and what it gives, must be what it says. Names of dimensions mean the same number throughout a call, also in the fields of the
result. `hold` puts this around every public function below lib that has shapes in its signature; nothing of it runs elsewhere.
"""

import dataclasses
import functools
import importlib
import inspect
import sys
import types
import typing

import jaxtyping
import torch
from jaxtyping import AbstractArray

from lib.system import paths

FOLDERS = ("measures", "data", "networks", "attacks", "explanations", "fooling", "pathways", "sanity")
EQUATIONS = ("objective", "maps", "painter")  # of a study
EITHER = (typing.Union, types.UnionType)


def _is_shape(hint) -> bool:
    return isinstance(hint, type) and issubclass(hint, AbstractArray)


def _speaks(hint) -> bool:
    """Whether a hint names a shape, or a result with shapes in its fields."""
    inside = typing.get_args(hint) if typing.get_origin(hint) in (*EITHER, tuple, list, dict) else ()
    return _is_shape(hint) or any(map(_speaks, inside)) or bool(_fields(hint))


def _fields(hint) -> dict:
    record = isinstance(hint, type) and (dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"))
    return {n: h for n, h in inspect.get_annotations(hint).items() if _speaks(h)} if record else {}


def fits(value, hint) -> bool:
    """Whether a value has the shapes of a hint, within the dimensions that are known already."""
    if _is_shape(hint):
        return isinstance(value, hint)
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in EITHER:
        shapes = [p for p in parts if _speaks(p)]
        return any(fits(value, p) for p in shapes) or any(_of_another_kind(value, p) for p in parts if p not in shapes)
    if origin is tuple:
        return all(fits(v, h) for v, h in zip(value, parts, strict=True))
    if origin is list:
        return all(fits(v, parts[0]) for v in value)
    if origin is dict:
        return all(fits(v, parts[1]) for v in value.values())
    return isinstance(value, hint) and all(fits(getattr(value, name), field) for name, field in _fields(hint).items())


def _of_another_kind(value, hint) -> bool:
    return isinstance(value, typing.get_origin(hint) or hint)


def told(value) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if hasattr(value, "shape") else repr(value)[:200]


def checked(function):
    """The function, which after each call holds what went in and came out against its signature."""
    signature = inspect.signature(function)
    hints = {name: hint for name, hint in inspect.get_annotations(function).items() if _speaks(hint)}
    held = set()  # shapes that have been looked at: kernels are called again and again with the same ones

    @functools.wraps(function)
    def call(*args, **kwargs):
        result = function(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments | {"return": result}
        spoken = [(name, given[name]) for name in hints if name in given]
        plain = all(type(value) is torch.Tensor for _, value in spoken)
        seen = tuple((name, value.shape, value.dtype) for name, value in spoken) if plain else None
        if seen in held:
            return result
        with jaxtyping.jaxtyped("context"):
            for name, value in spoken:
                if not fits(value, hints[name]):
                    where = f"{function.__module__}.{function.__name__}"
                    raise AssertionError(f"{where}: {name} is {told(value)}, but the signature says {hints[name]}")
        if plain:
            held.add(seen)
        return result

    return call


def files() -> list[str]:
    lib = paths.PROJECT / "lib"
    found = [f for folder in FOLDERS for f in sorted((lib / folder).glob("*.py"))]
    found += [f for name in EQUATIONS for f in sorted((lib / "studies").glob(f"*/{name}.py"))]
    return [".".join(f.relative_to(paths.PROJECT).with_suffix("").parts) for f in found if f.stem != "__init__"]


def hold() -> list[str]:
    """Check every public function with shapes in its signature, wherever lib refers to it by name; their dotted names."""
    instead = {}
    for name in files():
        for function in vars(importlib.import_module(name)).values():
            own = inspect.isfunction(function) and function.__module__ == name and not function.__name__.startswith("_")
            if own and any(map(_speaks, inspect.get_annotations(function).values())):
                instead[function] = checked(function)
    for module in [m for n, m in sys.modules.items() if n == "lib" or n.startswith("lib.")]:
        for name, value in list(vars(module).items()):
            if inspect.isfunction(value) and value in instead:
                setattr(module, name, instead[value])
    return [f"{f.__module__}.{f.__name__}" for f in instead]
