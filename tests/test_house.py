"""The house: which folder of `lib` may import which, what kernels stand on, and that all studies are alike."""

import ast
import importlib
import inspect
import itertools
import re

import pytest

from lib.runs import profiles
from lib.system import paths

LIB = paths.PROJECT / "lib"
# From the ground up. A file imports its own folder and lower floors; folders on one floor do not know each other.
FLOORS = (
    ("system",),
    ("claims", "measures"),
    ("data",),
    ("networks", "figures"),
    ("attacks", "explanations"),
    ("fooling", "pathways", "sanity"),
    ("training",),
    ("studies",),
    ("runs",),
    ("reports",),
    ("commands",),
)
FLOOR = {folder: i for i, floor in enumerate(FLOORS) for folder in floor}
KERNELS = ("measures", "attacks", "explanations", "fooling", "networks", "pathways", "sanity")
VIEWS = {"pathways": ("cards", "interactive", "still_picture", "graph", "layout", "features")}
THIRD = {"torch", "numpy", "scipy", "jaxtyping"}
FURTHER = {"networks/zoo.py": {"torchvision", "timm"}}
EQUATIONS = ("objective", "fooling", "discrepancy")  # of a study: its own kernels
STUDIES = sorted(p.name for p in (LIB / "studies").iterdir() if (p / "__init__.py").exists())
PARTS = {
    "measure": ("plan", "statistics", "traced"),
    "claims": ("plan", "statistics", "published", "authors", "terms", "passes"),
    "explorer": ("plan", "measure", "statistics", "traced", "claims"),
}


def sources(*folders):
    return [p for f in folders or FLOOR for p in sorted((LIB / f).rglob("*.py"))]


def name(file):
    return file.relative_to(LIB).as_posix()


def imports(file):
    """(dotted name, whether inside a function) of every import of a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((a.name, id(node) not in top) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(file)}: a relative import; name the file from lib down"
            for a in node.names:
                dotted = f"{node.module}.{a.name}"
                place = paths.PROJECT.joinpath(*dotted.split("."))
                module = place.with_suffix(".py").exists() or place.is_dir()
                yield (dotted if module else node.module), id(node) not in top


def of_lib(file):
    return [(m, inside) for m, inside in imports(file) if m.split(".")[0] == "lib"]


@pytest.mark.parametrize("file", sources(), ids=name)
def test_imports_go_down(file):
    own = name(file).split("/")
    for module, inside in of_lib(file):
        assert not inside, f"{name(file)} imports {module} inside a function"
        parts = module.split(".")[1:]
        assert parts and parts[0] in FLOOR, f"{name(file)} imports {module}, which stands on no floor"
        if own[0] == parts[0] == "studies":
            same = (len(parts) == 2 and parts[1] in ("parameters", "subjects", "marking")) or parts[1] == own[1]
            assert same, f"{name(file)} imports {module}: a study imports no other"
        else:
            down = FLOOR[parts[0]] < FLOOR[own[0]] or parts[0] == own[0]
            assert down, f"{name(file)} imports {module}, which is not below it"
        if file.name != "__init__.py":
            assert paths.PROJECT.joinpath(*module.split(".")).with_suffix(".py").exists(), (
                f"{name(file)} imports the face {module}; inside lib name the file that defines it"
            )


def test_no_file_imports_itself_in_a_circle():
    graph = {
        ".".join(f.relative_to(paths.PROJECT).with_suffix("").parts): {m for m, _ in of_lib(f)}
        for f in sources()
        if f.name != "__init__.py"
    }
    done, path = set(), []

    def visit(module):
        assert module not in path, f"a circle: {' -> '.join([*path[path.index(module) :], module])}"
        if module in done or module not in graph:
            return
        path.append(module)
        for below in sorted(graph[module]):
            visit(below)
        done.add(path.pop())

    for module in graph:
        visit(module)


def kernels():
    found = [f for f in sources(*KERNELS) if f.stem not in VIEWS.get(name(f).split("/")[0], ())]
    return found + [f for s in STUDIES for e in EQUATIONS if (f := LIB / "studies" / s / f"{e}.py").exists()]


@pytest.mark.parametrize("file", kernels(), ids=name)
def test_kernels_stand_on_torch_numpy_and_scipy(file):
    known = set(__import__("sys").stdlib_module_names) | THIRD | FURTHER.get(name(file), set()) | {"lib"}
    foreign = {m.split(".")[0] for m, _ in imports(file)} - known
    assert not foreign, f"{name(file)} is a kernel and imports {', '.join(sorted(foreign))}"


# what may look at the plan, and is looked at by claims and explorer
BETWEEN = {"explorer", "gates", "rivals", "statistics", "tables", "terms", "traced", "published", "passes", "__init__"}


@pytest.mark.parametrize("study", STUDIES)
def test_within_a_study_imports_go_one_way(study):
    """equations < plan < measure, claims < explorer; claims does not import measure."""
    folder = LIB / "studies" / study
    for file in sorted(folder.glob("*.py")):
        own = {m.split(".")[3] for m, _ in of_lib(file) if m.startswith(f"lib.studies.{study}.")}
        if file.stem == "claims":
            assert "measure" not in own, f"{study}/claims.py imports measure"
        later = {"plan": {"measure", "claims", "explorer"}, "measure": {"claims", "explorer"}, "claims": {"explorer"}}
        wrong = own & later.get(
            file.stem, {"plan", "measure", "claims", "explorer"} if file.stem not in BETWEEN else {"explorer"}
        )
        assert not wrong, f"{study}/{file.name} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("file", [f for f in sources() if f.name == "__init__.py"], ids=name)
def test_faces_define_nothing(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{name(file)} has no docstring"
    handed = set()
    for node in tree.body[1:]:
        told = isinstance(node, ast.ImportFrom) or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__")
        assert told, f"{name(file)} does more than hand on names: line {node.lineno}"
        handed |= {a.name for a in node.names} if isinstance(node, ast.ImportFrom) else set()
    twice = handed & {p.stem for p in file.parent.glob("*.py")}
    assert not twice, f"{name(file)}: {', '.join(twice)} is a file and a name that its folder hands on"


@pytest.mark.parametrize("folder", [*KERNELS, "data"])
def test_faces_of_kernels_are_indexes(folder):
    """One line a name, `* `name`: what it is. Its source.`; every name that is handed on, and no other."""
    text = ast.get_docstring(ast.parse((LIB / folder / "__init__.py").read_text(encoding="utf-8")))
    lines = [line for line in text.splitlines() if line.startswith("*")]
    named = [n for line in lines for n in re.findall(r"`(\w+)`", line.partition(":")[0])]
    assert sorted(named) == sorted(importlib.import_module(f"lib.{folder}").__all__)


@pytest.mark.parametrize("study", STUDIES)
def test_studies_open_with_a_table_of_their_equations(study):
    """`equation | symbol | function`: the last is a dotted path, from the study's own folder or from lib down."""
    text = ast.get_docstring(ast.parse((LIB / "studies" / study / "__init__.py").read_text(encoding="utf-8")))
    lines = text.splitlines()
    bars = [i for i, line in enumerate(lines) if line.startswith("===")]
    starts = [m.start() for m in re.finditer("=+", lines[bars[0]])]
    rows = [[line[a:b].strip() for a, b in itertools.pairwise([*starts, None])] for line in lines[bars[0] : bars[2]]]
    assert bars[0] == 2 and rows[1] == ["equation", "symbol", "function"] and len(rows) > 4
    for equation, symbol, function in rows[3:]:
        assert equation and symbol
        file, _, found = function.rpartition(".")
        own = (LIB / "studies" / study / f"{file}.py").exists()
        module = importlib.import_module(f"lib.studies.{study}.{file}" if own else f"lib.{file}")
        assert callable(getattr(module, found)), f"{study}: {function}"


SIGNATURES = {
    "plan": {"networks": ["p", "job"], "jobs": ["p"], "seen": ["p", "job"]},
    "measure": {"measure": ["p"]},
    "claims": {"judge": ["table", "p", "test"]},
    "explorer": {"explorer": ["p"]},
}


@pytest.mark.parametrize("study", STUDIES)
def test_all_studies_are_alike(study):
    run = next(p.stem for p in paths.notebooks().glob("[0-9]*.ipynb") if profiles.package(p.stem) == study)
    assert issubclass(profiles.part(run, "plan").Parameters, profiles.Parameters)
    for part, functions in SIGNATURES.items():
        for function, first in functions.items():
            found = list(inspect.signature(getattr(profiles.part(run, part), function)).parameters)
            assert found[: len(first)] == first, f"{study}.{part}.{function}({', '.join(found)})"


def test_processes_that_the_benchmark_starts_import_what_is_there():
    """Their code is text, which no import of the benchmark looks at."""
    module = ast.parse((paths.PROJECT / "tests" / "bench.py").read_text(encoding="utf-8"))
    texts = [n.value.value for n in module.body if isinstance(n, ast.Assign) and isinstance(n.value, ast.Constant)]
    codes = [ast.parse(t) for t in texts if isinstance(t, str) and "import" in t]
    assert len(codes) == 3
    for node in (n for code in codes for n in ast.walk(code) if isinstance(n, ast.ImportFrom)):
        origin = importlib.import_module(node.module)
        for alias in node.names:
            assert hasattr(origin, alias.name) or importlib.import_module(f"{node.module}.{alias.name}"), alias.name
