"""The run cards of a profile as RO-Crate metadata (researchobject.org/ro-crate), beside its pages: what was run at which
commit, with which versions of which libraries, on which data, and what came of it, each file with its hash.

It follows the profile Process Run Crate, which has an action a run.
"""

import importlib.metadata
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from lib.reports import ledger
from lib.reports.pages import title
from lib.system import files, paths

FILE = "ro-crate-metadata.json"
PROCESS = "https://w3id.org/ro/wfrun/process/0.5"
TERMS = "https://w3id.org/ro/terms/workflow-run/context"  # where `sha256` is defined
DISTRIBUTION = "explanations-under-attack"
AUTHOR = f"The maintainers of {DISTRIBUTION}"


def write(profile: str) -> Path:
    """Write FILE of a profile."""
    from rocrate.model import ContextEntity
    from rocrate.rocrate import ROCrate

    found, folder = ledger.records(profile), paths.figures(profile)
    crate = ROCrate(version="1.1")
    crate.metadata.extra_contexts.append(TERMS)
    author = crate.add(ContextEntity(crate, "#author", properties={"@type": "Organization", "name": AUTHOR}))
    crate.add(
        ContextEntity(
            crate, PROCESS, properties={"@type": "CreativeWork", "name": "Process Run Crate", "version": PROCESS.split("/")[-1]}
        )
    )
    about = importlib.metadata.metadata(DISTRIBUTION)
    root = crate.root_dataset
    root["name"] = f"Explanations under attack: results of profile {profile}"
    root["description"] = about["Summary"]
    root["license"] = "https://spdx.org/licenses/MIT.html"
    root["version"] = about["Version"]
    root["author"] = author
    root["conformsTo"] = {"@id": PROCESS}
    # of the results, not of this file: the same results have the same metadata
    root["datePublished"] = max((r.get("started", "")[:10] for r in found.values()), default="") or "1970-01-01"
    for name in ("index.html", ledger.CLAIMS):
        if (folder / name).exists():
            _file(crate, folder, folder / name)
    root["mentions"] = [_action(crate, folder, run, record) for run, record in found.items()]
    crate.metadata.datePublished = root["datePublished"]
    told = json.loads(b"".join(chunk for _, chunk in crate.metadata.stream()))
    files.write_bytes(folder / FILE, json.dumps(told, indent=1, ensure_ascii=False).encode() + b"\n")  # less than with four
    return folder / FILE


def _file(crate: Any, folder: Path, path: Path) -> Any:
    name = path.relative_to(folder).as_posix()
    properties = {"name": name, "sha256": files.digest(path), "contentSize": str(path.stat().st_size)}
    return crate.add_file(dest_path=name, properties=properties)


def _action(crate: Any, folder: Path, run: str, record: dict[str, Any]) -> Any:
    """A run: its program, what it was given, and what it wrote."""
    from rocrate.model import ContextEntity

    own = [folder / f"{run}.html", *sorted(p for p in (folder / run).iterdir() if p.is_file())]
    made = [_file(crate, folder, path) for path in own if path.exists()]
    given = record.get("parameters", {})
    data = given.get("dataset", "")
    properties: dict[str, Any] = {
        "@type": "CreateAction",
        "name": title(run),
        "description": f"notebooks/{run.split('.')[0]}.ipynb with the parameters in {run}/run.json",
        "instrument": _program(crate, record),
        "agent": {"@id": "#author"},
        "result": made,
        "actionStatus": {"@id": "http://schema.org/CompletedActionStatus"},
    }
    if record.get("started"):
        began = datetime.fromisoformat(record["started"])
        properties["startTime"] = began.isoformat()
        properties["endTime"] = (began + timedelta(seconds=round(record.get("seconds", 0)))).isoformat()
    if data:
        properties["object"] = crate.add(ContextEntity(crate, f"#data-{data}", properties={"@type": "Dataset", "name": data}))
    return crate.add(ContextEntity(crate, f"#run-{run}", properties=properties))


def _program(crate: Any, record: dict[str, Any]) -> Any:
    """The project at a commit, and the libraries under it, each with the hash of its files."""
    from rocrate.model import ContextEntity

    libraries = []
    for name, version in record.get("versions", {}).items():
        told = {"@type": "SoftwareApplication", "name": name, "version": version}
        if name in record.get("hashes", {}):
            told["sha256"] = record["hashes"][name]
        libraries.append(crate.add(ContextEntity(crate, f"#{name}-{version}", properties=told)))
    properties = {
        "@type": "SoftwareApplication",
        "name": DISTRIBUTION,
        "version": ledger.commit_of(record),
        "softwareRequirements": libraries,
    }
    return crate.add(ContextEntity(crate, f"#code-{ledger.commit_of(record).replace(' ', '-')}", properties=properties))
