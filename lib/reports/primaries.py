"""What each paper claims, and what became of it in every run: its primaries as rows, a column a run.

All of it comes from the runs' claims.csv and run.json. The rows of two runs of a study are brought together by the order in
which the study names its primaries, since their ids end in what only one run has: a network, a pair of classes, an arm.
"""

import difflib
import importlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lib.claims.claim import DECIDED
from lib.claims.court import ALONE
from lib.data.datasets import EMBEDDED
from lib.reports import ledger
from lib.runs import profiles, shown
from lib.system import files

NAMES = {
    "shapes": "drawn shapes",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "flowers17": "Flower-17",
    "flowers102": "Flower-102",
    "orl_faces": "ORL faces",
    "imagenet1k_sample": "ImageNet photographs",
}
DIFFER = {  # parameters that tell two runs apart, in words
    "arch": "network",
    "architectures": "networks",
    "size": "image size",
    "epochs": "epochs",
    "train_images": "training images",
    "seeds": "training runs",
}
NEITHER = "too few runs and images, more of one alone would not settle it"
THEIRS = "published/"  # ids of what is said of the authors' own networks: this, and the id of the primary


@dataclass(frozen=True)
class Column:
    """One run of a paper's study, or what it says of the authors' own networks."""

    profile: str
    run: str
    data: str
    embedded: bool
    theirs: bool
    parameters: dict[str, Any] = field(compare=False)
    apart: str = ""  # what tells it from others on the same data

    @property
    def name(self) -> str:
        return f"{self.data} ({self.apart})" if self.apart else self.data

    @property
    def told(self) -> str:
        """In words: the data, and whose networks."""
        return f"{self.name}, the authors' networks" if self.theirs else self.name


@dataclass(frozen=True)
class Beside:
    """A control that a verdict must be read with, as a study's `beside(p)` names it: a few words, and its row of claims.csv."""

    words: str
    row: Any


@dataclass(frozen=True)
class Cell:
    """What one run says of one claim: its row of claims.csv (None: the run has no such claim), the control beside it, of what
    it speaks there, and what was measured there where that differs from the first run's."""

    column: Column
    row: Any
    beside: Beside | None = None
    about: str = ""
    statistic: str = ""

    @property
    def reason(self) -> str:
        """Why the claim was not decided here; empty where it was."""
        row = self.row
        if row is None:
            return "not part of this run"
        gates = re.search(r"gate: (.*?)(?:; would be settled.*)?$", row.note)
        settles = re.search(r"would be settled by .*?(?= if the value stays)", row.note)
        told = {
            "one network": "one training run, and nothing tells how much another would differ",
            "not testable here": gates[1].removesuffix(f"; {ALONE}") if gates else "a gate failed",
            "not tested": row.note or "nothing was judged",
            "inconclusive": shown.alone(row) or (f"too few runs or images, {settles[0]}" if settles else NEITHER),
        }
        return told.get(row.adjusted, "")


Said = tuple[Any, Beside | None]  # a row of claims.csv or None, and the control beside it


@dataclass(frozen=True)
class Line:
    """A claim: its words, its statistic and what it should be, where it is from, a cell a run, and why runs disagree."""

    statement: str
    statistic: str
    claimed: str
    source: str
    cells: tuple[Cell, ...]
    why: tuple[str, ...]

    @property
    def published(self) -> bool:
        """Whether a publication makes the claim, whose source then has its year; else it is ours, or told elsewhere."""
        return re.search(r"\b(19|20)\d\d\b", self.source) is not None


@dataclass(frozen=True)
class Paper:
    """A paper, its runs and its claims."""

    number: str
    title: str
    reference: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


def papers(compared: Iterable[str]) -> list[Paper]:
    """Of every study that has finished in these profiles."""
    of_study: dict[str, list[tuple[Column, list[Said]]]] = {}
    for profile in compared:
        records = ledger.records(profile)
        for run, table in ledger.tables(profile).items():
            if records.get(run):  # a run that begins anew meanwhile loses its record first
                of_study.setdefault(run[:2], []).extend(_columns(profile, run, table, records[run]))
    return [_paper(number, _apart(found)) for number, found in sorted(of_study.items()) if found]


def _apart(found: list[tuple[Column, list[Said]]]) -> list[tuple[Column, list[Said]]]:
    """The columns with names of their own, the authors' networks last: two runs on the same data are told apart by their
    networks, by their variants (one of them may have none), by their profiles, or by what they are called."""
    told = [c.told for c, _ in found]
    same = [c for c, _ in found if told.count(c.told) > 1]
    variants = []
    for c in same:  # without what its data are called
        words = c.parameters.get("variant", "").split("-")
        variants.append(" ".join(w for w in words if w not in c.data.split()))
    ways = ([c.parameters.get("arch", "") for c in same], variants, [c.profile for c in same], [c.run for c in same])
    tells = (way for way in ways if len({(c.told, own) for c, own in zip(same, way, strict=True)}) == len(same))
    by = dict(zip(same, next(tells, ways[-1]), strict=True))
    found = sorted(found, key=lambda one: one[0].theirs)
    named = [replace(c, apart=by.get(c, "")) for c, _ in found]
    return [(column, rows) for column, (_, rows) in zip(named, found, strict=True)]


def _columns(profile: str, run: str, table: Any, record: Mapping[str, Any]) -> list[tuple[Column, list[Said]]]:
    """The columns that a run fills, each with its rows in the order of the study's primaries, and the controls beside them."""
    try:
        p = profiles.validated(profiles.parameters_of(run), record.get("parameters", {}))
        claims = profiles.part(run, "claims")
        ids = getattr(claims, "primaries", lambda p: ())(p)
        beside = getattr(claims, "beside", lambda p: {})(p)
    except ValueError:  # a study that is gone, or parameters that have changed since
        return []
    rows, at = {row.id: row for row in table.itertuples()}, f"@{p.variant}" if p.variant else ""
    data = getattr(p, "photographs", None) or getattr(p, "dataset", "")
    bare = data.rpartition(":")[2]
    embedded = data in EMBEDDED or data == "photographs" or data.startswith("shapes")
    found = []
    for theirs in (False, True):
        called = [f"{THEIRS if theirs else ''}{id}{at}" for id in ids]
        controls = [f"{THEIRS if theirs else ''}{beside.get(id, ('', ''))[0]}{at}" for id in ids]
        own = [
            (rows.get(name), Beside(beside[id][1], rows[control]) if control in rows else None)
            for id, name, control in zip(ids, called, controls, strict=True)
        ]
        if any(row is not None for row, _ in own):
            column = Column(profile, run, NAMES.get(bare, bare), embedded and not theirs, theirs, record["parameters"])
            found.append((column, own))
    return found


def _paper(number: str, found: Sequence[tuple[Column, list[Said]]]) -> Paper:
    run = found[0][0].run
    study = importlib.import_module(f"lib.studies.{profiles.package(run)}")
    first = re.match(r"Study \d+: .*?\((.*)\)\.", study.__doc__ or "")
    lines = []
    for said in itertools.zip_longest(*(said for _, said in found), fillvalue=(None, None)):
        if any(row is not None for row, _ in said):
            lines.append(_line([Cell(column, *one) for (column, _), one in zip(found, said, strict=True)]))
    return Paper(number, _title(run), first[1] if first else "", tuple(c for c, _ in found), tuple(lines))


def _title(run: str) -> str:
    """What the notebook calls itself."""
    first = "".join(files.read_json(profiles.notebook_of(run))["cells"][0]["source"])
    return first.splitlines()[0].lstrip("# ")


def _line(cells: Sequence[Cell]) -> Line:
    there = [c for c in cells if c.row is not None]
    # what stands in parentheses at the end of a sentence is of which networks and classes it speaks, which runs differ in
    split = {c.column: re.fullmatch(r"(.*?)(?: \(([^()]*)\))?\.?", c.row.statement, re.DOTALL) for c in there}
    statement = there[0].row.statement
    if len({m[1] for m in split.values()}) == 1 and len({m[2] for m in split.values()}) > 1:
        statement = split[there[0].column][1]
        cells = [replace(c, about=(split[c.column][2] or "") if c.row is not None else "") for c in cells]
    elif len({m[1] for m in split.values()}) > 1:
        cells = [replace(c, about=_otherwise(c.row.statement, statement) if c.row is not None else "") for c in cells]
    measured = there[0].row.statistic
    cells = [replace(c, statistic=c.row.statistic) if c.row is not None and c.row.statistic != measured else c for c in cells]
    asked = re.search(r"lies ((?:above|below|inside) \S+?),? ", there[0].row.rule)
    claimed = f"; claimed: {asked[1]}" if asked else ""
    return Line(statement, measured, claimed, there[0].row.source, tuple(cells), tuple(why(cells)))


def _otherwise(said: str, than: str) -> str:
    """The words of a sentence that stand in place of those of another, or all of it where they say nothing alone; empty where
    words are only missing."""
    own, other = said.split(), than.split()
    bare = [[word.strip("(),.;") for word in words] for words in (other, own)]  # what punctuation follows does not matter
    blocks = difflib.SequenceMatcher(None, *bare, autojunk=False).get_opcodes()
    words = [" ".join(own[begin:end]).strip(" ,()") for kind, _, _, begin, end in blocks if kind != "equal" and end > begin]
    few = 2 * sum(len(w.split()) for w in words) < len(own)
    return "; ".join(words) if few and all(map(_says_something, words)) else f"here: {said}"


def _says_something(words: str) -> bool:
    """Whether words that were taken out of a sentence can be read alone: a number, a name, or several words in no open
    parenthesis."""
    named = re.search(r"\d|^[A-Z]", words) is not None or " " in words
    return named and words.count("(") == words.count(")")


def why(cells: Iterable[Cell]) -> list[str]:
    """Why runs disagree on a claim, or cannot say: a line a reason; none where all decide, and alike."""
    there = [c for c in cells if c.row is not None]
    verdicts = {c.row.adjusted for c in there}
    if len(verdicts) == 1 and verdicts <= {*DECIDED, "not tested"}:
        return []
    told = []
    decided = [c for c in there if c.row.adjusted in DECIDED]
    sides = {v: [c for c in decided if c.row.adjusted == v] for v in DECIDED}
    said = [f"{v} on {_names(alike)}" for v, alike in sides.items() if alike]
    if len(said) > 1:
        told.append(f"{', '.join(said)}: {_differences([c.column for c in decided])}")
    reasons: dict[str, list[Cell]] = {}
    for cell in there:
        if cell.row.adjusted not in DECIDED:
            reasons.setdefault(cell.reason, []).append(cell)
    told += [f"{_names(alike)}: {reason}" for reason, alike in reasons.items()]
    return told


def _names(cells: Iterable[Cell]) -> str:
    *most, last = [c.column.told for c in cells]
    return f"{', '.join(most)} and {last}" if most else last


def _setting(parameters: Mapping[str, Any], name: str) -> Any:
    """A parameter; training runs are as many as any network has."""
    value = parameters.get(name)
    return max([value, *(n for _, n in parameters.get("runs") or ())]) if name == "seeds" and value else value


def _differences(columns: Sequence[Column]) -> str:
    """In what runs differ that decide differently."""
    told = ["other data"] if len({c.data for c in columns}) > 1 else []
    if any(c.theirs for c in columns) and not all(c.theirs for c in columns):
        told.append("networks that the authors trained")
    for name, words in DIFFER.items():
        values = [_setting(c.parameters, name) for c in columns if not c.theirs]
        listed = [", ".join(map(str, v)) if isinstance(v, list) else "all" if v is None else str(v) for v in values]
        if len(set(listed)) > 1:
            told.append(f"{words} ({'; '.join(dict.fromkeys(listed))})")
    return ", ".join(told) or "the same settings"
