"""Profiles: which runs there are, and with what parameters, checked before anything runs.

A study is a notebook `NN-name.ipynb` with a folder `lib/studies/name` whose PARTS are alike in all studies. A profile is a
folder of YAML files, one a run, that hold differences from the typed defaults of `plan.Parameters`; `NN-name.variant.yaml`
is a second run of the same study, on other data.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from lib.studies.parameters import Parameters
from lib.system import paths

LEDGER = "99-ledger"
PROFILES = ("smoke", "laptop", "datasets", "paper")
PARTS = ("plan", "measure", "claims", "explorer")


def package(run: str) -> str:
    """The folder of a study in `lib/studies`: attention_shift for 01-attention-shift and its variants."""
    return run.split(".")[0].split("-", 1)[-1].replace("-", "_")


def part(run: str, name: str) -> Any:
    """One of the PARTS of a run's study, imported. Raises ValueError for an unknown study, or a part that it lacks."""
    folder = paths.PROJECT / "lib" / "studies" / package(run)
    if not folder.is_dir() or not package(run):
        known = ", ".join(sorted(p.stem for p in paths.notebooks().glob("[0-9]*.ipynb")))
        raise ValueError(f"no study {run!r}; there are {known}")
    missing = [f"{p}.py" for p in PARTS if not (folder / f"{p}.py").exists()]
    if missing:
        raise ValueError(f"{run}: lib/studies/{folder.name} lacks {', '.join(missing)}; a study has {', '.join(PARTS)}")
    return importlib.import_module(f"lib.studies.{folder.name}.{name}")


def parameters_of(run: str) -> type[Parameters]:
    """The typed parameters of a run's study; the ledger takes what all have in common."""
    return Parameters if run == LEDGER else part(run, "plan").Parameters


def profile_file(run: str, profile: str) -> Path:
    return paths.notebooks() / "profiles" / profile / f"{run}.yaml"


def declared_runs(profile: str) -> list[str]:
    """The runs of a profile, in order: one for each of its files."""
    return sorted(p.stem for p in (paths.notebooks() / "profiles" / profile).glob("*.yaml") if p.stem != LEDGER)


def parameters(run: str, profile: str, overrides: Mapping[str, Any] | None = None) -> Parameters:
    """A study's parameters: typed defaults, the profile's differences, then `overrides`.

    Raises ValueError that lists every unknown name and wrong value at once.
    """
    model = parameters_of(run)
    file = profile_file(run, profile)
    if not file.exists():
        known = [p for p in PROFILES if profile_file(run, p).exists()]
        raise ValueError(f"{run} has no profile {profile!r}; it has {', '.join(known) or 'none'} ({file} is missing)")
    differences = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    own = {"profile": profile, "variant": run.partition(".")[2]}
    return validated(model, {**differences, **own, **(overrides or {})})


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
