"""The metadata of a profile: an RO-Crate that its library reads back, with an action a run and the hash of every file."""

import json

from rocrate.rocrate import ROCrate

from lib.reports import crate
from lib.runs import record
from lib.system import files, paths
from tests.reports.finished import RUN, finish


def test_the_metadata_names_runs_versions_and_files(home):
    finish()
    finish("02-other", commit="def456")
    folder = paths.figures("laptop")
    files.write_bytes(folder / f"{RUN}.html", b"a page")
    path = crate.write("laptop")
    before = path.read_bytes()
    assert crate.write("laptop").read_bytes() == before  # it says nothing of when it was written
    found = ROCrate(folder)
    assert found.root_dataset["datePublished"].startswith("2026-01-01") and found.root_dataset["license"].endswith("MIT.html")
    first, second = found.root_dataset["mentions"]
    assert (first.id, first.type, first["name"]) == (f"#run-{RUN}", "CreateAction", "01 Attention shift")
    assert first["endTime"] == "2026-01-01T00:00:01+00:00"
    assert first["instrument"]["version"] == "abc123" and second["instrument"]["version"] == "def456"
    (library,) = first["instrument"]["softwareRequirements"]
    assert (library["name"], library["version"], library["sha256"]) == ("torch", "2.9", "f" * 64)
    made = {f.id: f["sha256"] for f in first["result"]}
    assert set(made) == {f"{RUN}.html", *(f"{RUN}/{n}" for n in ("a.png", "claims.csv", "figures.json", "run.json"))}
    assert all(files.digest(folder / name) == digest for name, digest in made.items())


def test_the_metadata_is_whole(home):
    """Every reference leads to an entity, and no id occurs twice."""
    finish()
    graph = json.loads(crate.write("laptop").read_text())["@graph"]
    ids = [e["@id"] for e in graph]
    assert len(set(ids)) == len(ids)

    def references(value):
        if isinstance(value, dict):
            yield value["@id"]
        elif isinstance(value, list):
            for one in value:
                yield from references(one)

    asked = {r for e in graph for k, v in e.items() if k not in ("@id", "@type") for r in references(v)}
    assert {r for r in asked if not r.startswith("http")} <= set(ids)


def test_libraries_have_hashes_that_do_not_depend_on_the_machine():
    found = record.hashes()
    assert set(found) == set(record.VERSIONS_OF) and all(len(h) == 64 for h in found.values())
    assert found == record.hashes() and len(set(found.values())) == len(found)
