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
        known = ", ".join(sorted(p.stem for p in paths.notebooks().glob("[0-9]*.ipynb") if p.stem != LEDGER))
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

    Raises ValueError that lists every unknown name and wrong value at once, and one for overrides that name another profile
    or run, whose values they do not bring.
    """
    model = parameters_of(run)
    file = profile_file(run, profile)
    if not file.exists():
        known = [p for p in PROFILES if profile_file(run, p).exists()]
        if not known:
            raise ValueError(f"no run {run!r}; there are {', '.join(declared_runs(profile) or declared_runs('laptop'))}")
        raise ValueError(f"{run} has no profile {profile!r}; it has {', '.join(known)} ({file} is missing)")
    own = {"profile": profile, "variant": run.partition(".")[2]}
    asked = own | {name: value for name, value in (overrides or {}).items() if name in own}
    meant = f"{run.split('.')[0]}.{asked['variant']}".removesuffix(".")
    if asked != own and profile_file(meant, str(asked["profile"])).exists():
        raise ValueError(
            f"{_named(asked, own)} alone would not bring its values, nothing was run; use {command(meant, asked['profile'])}"
        )
    return validated(model, {**_written(file), **own, **(overrides or {})})


def _written(file: Path) -> dict[str, Any]:
    """The values of a profile's file. Raises ValueError, with the file's name, where it holds none."""
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{file} cannot be read ({said}); it holds lines `parameter: value`") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file} holds {type(found).__name__}, not lines `parameter: value`")
    return found


def command(run: str, profile: str) -> str:
    """What runs a notebook with a profile's values, to be read in a message."""
    return f"`python -m lib run {run} --profile {profile}`"


def _named(asked: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    return " and ".join(f"{name}={asked[name]}" for name in own if asked[name] != own[name])


def check_brought(run: str, chosen: Parameters) -> None:
    """Refuse parameters that name a profile, or a variant of a run, without having its values.

    A notebook's own values are those of `laptop`. Whoever sets `profile` alone (papermill's -p, the cell in JupyterLab) would
    run with them under another name. One's own changes to a profile are fine: so the values in which the profile differs
    from the notebook are counted, those that are its own against those that are the notebook's still. Raises ValueError.
    """
    named = run if profile_file(run, chosen.profile).exists() else run.split(".")[0]
    theirs, given = parameters(named, chosen.profile).model_dump(), chosen.model_dump()
    notebook = type(chosen)().model_dump() | {name: given[name] for name in ("profile", "variant")}
    differing = [name for name in theirs if name not in ("profile", "variant") and theirs[name] != notebook[name]]
    left = [name for name in differing if given[name] == notebook[name]]
    if len(left) > sum(given[name] == theirs[name] for name in differing):
        what = f"profile={chosen.profile}" + (f" and variant={chosen.variant}" if "." in named else "")
        instead = f"{command(named, chosen.profile)}, or papermill -f {profile_file(named, chosen.profile)}"
        raise ValueError(
            f"parameters refused, nothing was run: {what} alone does not bring its values ({', '.join(left)} are the "
            f"notebook's own still); use {instead}"
        )


WRITE = {  # how to write what is often written otherwise
    "tuple_type": "; write a list, {name}=[a, b]",
    "float_parsing": "; write a decimal, .031 for 8/255",
    "int_parsing": "; write a whole number",
}


def validated(model: type[Parameters], values: Mapping[str, Any]) -> Parameters:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        lines = []
        wrong = error.errors()
        parts = {e["loc"][:1] for e in wrong if len(e["loc"]) > 1}
        for e in wrong:
            name = ".".join(map(str, e["loc"]))
            if e["type"] == "too_short" and e["loc"] in parts:  # the parts that are wrong were not counted
                continue
            if e["type"] == "extra_forbidden":
                lines.append(f"unknown parameter {name!r}; there are {', '.join(model.model_fields)}")
            elif not name:  # of several together
                lines.append(e["msg"].removeprefix("Value error, "))
            else:
                lines.append(f"{name} = {e['input']!r}: {e['msg']}{WRITE.get(e['type'], '').format(name=e['loc'][0])}")
        raise ValueError("parameters refused, nothing was run:\n  " + "\n  ".join(lines)) from error


def notebook_of(run: str) -> Path:
    return paths.notebooks() / f"{run.split('.')[0]}.ipynb"
