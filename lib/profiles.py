"""Profiles: which runs there are, and with what parameters, checked before anything runs.

A study is a notebook `NN-name.ipynb` with a module `lib.name` that has `Parameters` (typed defaults) and, where it needs
trained networks, `networks(parameters)`. A profile is a folder of YAML files, one a run, that hold differences from those
defaults; `NN-name.variant.yaml` is a second run of the same study, on other data.
"""

import ast
import importlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lib import paths

LEDGER = "99-ledger"
SHOWING = ("ledger", "report")  # modules that show results and do not decide them
_PARSING = threading.Lock()  # CPython 3.11 cannot parse in two threads at once (SystemError: recursion depth mismatch)
PROFILES = ("smoke", "laptop", "datasets", "paper")


class Parameters(BaseModel):
    """What every notebook takes. A study's own parameters extend this; the defaults are those of `laptop`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    profile: str = "laptop"
    variant: Annotated[str, Field(description="a second run of the same study, on other data", pattern="^[a-z0-9_-]*$")] = ""
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Field(description="auto: the fastest there is")] = "auto"


def study_module(run: str) -> Any:
    """The module of a study: lib.attention_shift for 01-attention-shift and its variants."""
    name = run.split(".")[0].split("-", 1)[-1].replace("-", "_")
    try:
        return importlib.import_module(f"lib.{name}")
    except ImportError as error:
        known = ", ".join(sorted(p.stem for p in paths.notebooks().glob("[0-9]*.ipynb")))
        raise ValueError(f"no study {run!r}; there are {known}") from error


def profile_file(run: str, profile: str) -> Path:
    return paths.notebooks() / "profiles" / profile / f"{run}.yaml"


def declared_runs(profile: str) -> list[str]:
    """The runs of a profile, in order: one for each of its files."""
    return sorted(p.stem for p in (paths.notebooks() / "profiles" / profile).glob("*.yaml") if p.stem != LEDGER)


def parameters(run: str, profile: str, overrides: Mapping[str, Any] | None = None) -> Parameters:
    """A study's parameters: typed defaults, the profile's differences, then `overrides`.

    Raises ValueError that lists every unknown name and wrong value at once.
    """
    model = study_module(run).Parameters
    file = profile_file(run, profile)
    if not file.exists():
        known = [p for p in PROFILES if profile_file(run, p).exists()]
        raise ValueError(f"{run} has no profile {profile!r}; it has {', '.join(known) or 'none'} ({file} is missing)")
    differences = yaml.safe_load(file.read_text()) or {}
    own = {"profile": profile, "variant": run.partition(".")[2]}
    return validated(model, {**differences, **own, **(overrides or {})})


def networks(run: str, profile: str) -> list[Any]:
    """The networks that a run needs, as TrainConfigs: what its module's `networks(parameters)` says, or none."""
    needed = getattr(study_module(run), "networks", None)
    return needed(parameters(run, profile)) if needed else []


def notebook_code(run: str) -> str:
    """The code cells of a run's notebook that decide its results: all but the explorer."""
    import nbformat

    cells = nbformat.read(notebook_of(run), as_version=4).cells
    own = [c.source for c in cells if c.cell_type == "code" and "interactive" not in c.metadata.get("tags", [])]
    return "\n".join(own)


def code_of(run: str) -> list[Path]:
    """The modules of lib that decide a run's results: those its module and notebook import, and theirs in turn."""
    sources = [notebook_code(run), Path(study_module(run).__file__).read_text()]
    found: set[Path] = {Path(study_module(run).__file__)}
    while sources:
        with _PARSING:
            tree = ast.parse(sources.pop())
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("lib"):
                continue
            names = [a.name for a in node.names] if node.module == "lib" else [node.module.removeprefix("lib.")]
            for file in (paths.PROJECT / "lib" / f"{name}.py" for name in names):
                if file not in found and file.exists() and file.stem not in SHOWING:
                    found.add(file)
                    sources.append(file.read_text())
    return sorted(found)


def validated(model: type[Parameters], values: Mapping[str, Any]) -> Parameters:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        lines = []
        for e in error.errors():
            name = ".".join(map(str, e["loc"]))
            if e["type"] == "extra_forbidden":
                lines.append(f"unknown parameter {name!r}; there are {', '.join(model.model_fields)}")
            else:
                lines.append(f"{name} = {e['input']!r}: {e['msg']}")
        raise ValueError("parameters refused, nothing was run:\n  " + "\n  ".join(lines)) from error


def notebook_of(run: str) -> Path:
    return paths.notebooks() / f"{run.split('.')[0]}.ipynb"
