"""Networks of anybody's own code, by `module:function` or `folder/file.py:function`, and refused in one sentence.

The code runs as Python runs a script: what lies in its folder (of a module: in the current folder) can be imported.
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import torch
from torch import nn

from lib.system import names, paths


def build(text: str) -> nn.Module:
    """The network that a function without arguments returns, or that stands there under that name itself.

    `text` is `module:function`, where the module is looked for as `import` does, or `folder/file.py:function`. The code is
    read anew each time, and so are modules of its folder that own code imported before. Raises ValueError in one sentence, with
    the remedy, for code that is missing or cannot be imported, for a function that is not there, takes arguments or fails, and
    for one that gives no nn.Module.
    """
    place, colon, name = text.rpartition(":")
    if not (place and colon and name):
        raise ValueError(f"{text!r} names no code: write module:function, or folder/file.py:function")
    file = Path(place) if place.endswith(".py") or "/" in place or "\\" in place else None
    with _importing_from(file.resolve().parent if file else Path.cwd()):
        module = _from_file(file) if file else _by_name(place)
        found = _attribute(module, name, place)
        net = found if isinstance(found, nn.Module) else _called(found, text, module)
    if isinstance(net, nn.Module):
        return net
    remedy = "return the network itself"
    if isinstance(net, Mapping) and net and all(isinstance(v, torch.Tensor) for v in net.values()):
        remedy = "those are weights alone: build the network, load_state_dict them into it, and return it"
    kind = "None" if net is None else _a(net)
    raise ValueError(f"{text} returns {kind}, no torch.nn.Module; {remedy}")


def _a(thing: object) -> str:
    kind = type(thing).__name__
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


_IMPORTED: set[str] = set()  # what own code has imported from its folder, by name


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """What lies in a folder can be imported inside the block, as it is now.

    What earlier code imported is forgotten where the folder has a module of that name: `model` and `utils` are in many.
    """
    for name in [n for n in _IMPORTED if _provides(folder, n.partition(".")[0])]:
        sys.modules.pop(name, None)
        _IMPORTED.discard(name)
    before, writes = set(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True  # a kept compilation counts as current within a second, and nothing is left in the folder
    importlib.invalidate_caches()
    try:
        yield
    finally:
        _IMPORTED.update(n for n in set(sys.modules) - before if _lies_in(sys.modules[n], folder))
        sys.dont_write_bytecode = writes
        with contextlib.suppress(ValueError):  # the code may have removed it
            sys.path.remove(str(folder))


def _provides(folder: Path, name: str) -> bool:
    return (folder / f"{name}.py").is_file() or (folder / name).is_dir()


def _lies_in(module: ModuleType, folder: Path) -> bool:
    """Whether a module is somebody's in the folder: not Python's, not installed in an environment there, not this project's."""
    file = getattr(module, "__file__", None)
    places = [Path(p) for p in ([file] if file else list(getattr(module, "__path__", ())))]
    others = [*(Path(sysconfig.get_path(p)) for p in ("stdlib", "platstdlib", "purelib", "platlib")), paths.PROJECT / "lib"]
    return any(p.is_relative_to(folder) and not any(map(p.is_relative_to, others)) for p in places)


def _by_name(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise ValueError(
                f"there is no module {module!r}, neither in {Path.cwd()} nor among what is installed; of a file elsewhere give "
                "its path, folder/file.py:function"
            ) from None
        raise _unimportable(module, error) from error
    except (Exception, SystemExit) as error:
        raise _unimportable(module, error) from error


class _AsWritten(importlib.machinery.SourceFileLoader):
    """Compiled from what the file says now, and nothing is left beside it. Python's own loader takes a kept compilation for
    current where the second of the last change and the size are the same."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _from_file(file: Path) -> ModuleType:
    if not file.is_file():
        beside = sorted(p.stem for p in file.parent.glob("*.py")) if file.parent.is_dir() else []
        close = names.close(file.stem, beside)
        meant = f"give its path from {Path.cwd()}"
        if close:
            meant = f"did you mean {' or '.join(str(file.parent / f'{c}.py') for c in close)}?"
        raise ValueError(f"there is no file {file}; {meant}")
    if file.suffix != ".py":
        raise ValueError(f"{file} is no Python file; write folder/file.py:function")
    name = f"own_{file.stem}"  # so that it hides no module of another
    loader = _AsWritten(name, str(file.absolute()))
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location(name, loader.path, loader=loader))
    sys.modules[name] = module  # dataclasses and pickles look there
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise _unimportable(str(file), error) from error
    return module


def _told(error: BaseException, file: str | None) -> str:
    """What went wrong in a line, and where in the file that it is about."""
    lines = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    at = [f.lineno for f in traceback.extract_tb(error.__traceback__) if file and f.filename == file]
    return f"{what}, line {at[-1]}" if at else what


def _unimportable(place: str, error: BaseException) -> ValueError:
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.startswith("lib."):
        return ValueError(
            f"{place} cannot be imported, since it imports {error.name!r}, and `lib` is this project's own folder here; rename "
            "yours, or copy what it needs of it"
        )
    if isinstance(error, ModuleNotFoundError) and error.name:
        return ValueError(f"{place} cannot be imported, since it imports {error.name!r}, which is not here; install it")
    file = str(Path(place).resolve()) if place.endswith(".py") else None
    return ValueError(f"{place} cannot be imported ({_told(error, file)}); mend that, and try it alone: python {place}")


def _attribute(module: ModuleType, name: str, place: str) -> Any:
    if hasattr(module, name):
        return getattr(module, name)
    own = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__]
    close = names.close(name, own) or own[:8]
    there = f"did you mean {' or '.join(close)}?" if close else "it defines no function"
    raise ValueError(f"{place} has no function {name!r}; {there}")


def _called(found: Any, text: str, module: ModuleType) -> Any:
    if not callable(found):
        raise ValueError(f"{text} is {_a(found)}; name a function without arguments that returns the network")
    try:
        inspect.signature(found).bind()
    except TypeError:
        given = ", ".join(inspect.signature(found).parameters)
        raise ValueError(
            f"{text} takes arguments ({given}); write a function without, which calls it and returns the network"
        ) from None
    except ValueError:  # of a function in C, whose signature is not known
        pass
    try:
        return found()
    except (Exception, SystemExit) as error:
        raise ValueError(f"{text} fails ({_told(error, module.__file__)}); mend that, and call it alone") from error
