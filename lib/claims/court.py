"""The court: a run's claims, judged together once all are stated.

A study opens one court and adds its claims. What is said of one network, arm or pair alone is added `within` it: the same
court under a suffix of the ids and a few words after each statement. Judging waits for the last claim: variances over training
runs are moderated by those of the other arms, and decisions are adjusted for each other.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from scipy.special import stdtrit

from lib.claims import measures
from lib.claims.claim import Claim, Kind, Rule, Verdict, p_value
from lib.claims.cubes import Cubes
from lib.claims.intervals import TAIL, UNKNOWN, Interval, Parts, Statistic, parts
from lib.claims.many import adjusted
from lib.claims.moderation import Moderated, moderate
from lib.system import names

OURS = "control of this study"
QUESTION = "a question of this study"
OURS_ALONE = "ours; not in the paper"
ALONE = "one network an arm: of another training nothing is said"
MOST_RUNS, MOST_IMAGES = 100, 100_000  # that anybody would take


def noted(*parts: str) -> str:
    """Notes that say something, joined."""
    return "; ".join(p for p in parts if p)


def _bracketed(statement: str, whose: str) -> str:
    """A statement that says whose networks it is about, in the brackets that it ends with, or in its own."""
    sentence, bracket, where = statement.rpartition(" (")
    ends = bracket and where.endswith(")")
    return f"{sentence} ({whose}, {where}" if ends else f"{statement} ({whose})"


@dataclass(frozen=True)
class Gate:
    """What must hold for a claim to mean anything: `says` in words, a value, and a rule that the value itself keeps or not."""

    says: str
    value: float
    rule: Rule

    @property
    def failed(self) -> str:
        """In words what did not hold; empty where it did."""
        holds = self.rule.judge(Interval(self.value, self.value, self.value, "")) == "supported"
        return "" if holds else f"{self.says} ({self.rule.kind} {self.rule.threshold:g} asked, {self.value:.3g} found)"


@dataclass(frozen=True)
class Stated:
    """A claim before it is judged: its words, its statistic with both uncertainties, and what its verdict depends on."""

    words: dict[str, Any]
    parts: Parts
    rule: Rule
    pool: str
    lost: str  # why there may be no interval
    barred: str  # the gates that failed, in words
    tested: bool
    trained: bool  # whether it speaks of networks as they are trained, of which more than one must be seen
    behind: dict[tuple[str, str], int]  # the training runs that it rests on, by networks and arm; empty: nobody said
    note: str

    def verdict(self, seen: Moderated | None) -> Verdict:
        """From the interval, the gates, and how many networks were seen."""
        if not self.tested:
            return "not tested"
        if self.barred:
            return "not testable here"
        found = self.rule.judge(self.parts.interval(seen), self.parts.measure.delta)
        if found != "not tested" and self.trained and self.parts.runs == 1 and seen is None:
            return "one network"
        return found

    def claim(self, seen: Moderated | None) -> Claim:
        """Judged, but for the other claims."""
        found, verdict = self.parts.interval(seen), self.verdict(seen)
        settles = settled_by(self.parts, seen, self.rule) if verdict == "inconclusive" else ""
        rule, delta = str(self.rule), self.parts.measure.delta
        if self.rule.kind != "within" and self.rule.threshold == 0 and delta > 0:
            rule += f"; negligible if it lies inside ±{delta:g}"
        gone = self.lost if self.tested and verdict == "not tested" else ""
        words = dict(self.words)
        if seen is not None and self.parts.runs == 1:  # the interval holds what other arms with several runs say of it
            words["n"] = words["n"].replace(UNKNOWN, "spread over seeds as in other arms")
        return Claim(
            **words,
            value=found.value,
            ci_low=found.low,
            ci_high=found.high,
            rule=rule,
            verdict=verdict,
            p=p_value(self.parts, seen, self.rule, verdict, delta),
            note=noted(gone, f"gate: {self.barred}" if self.barred else "", self.note, settles),
        )


def settled_by(found: Parts, seen: Moderated | None, rule: Rule) -> str:
    """What would settle an inconclusive claim if its value stays: training runs, or images (people, pairs: the unit that is
    resampled), from the parts of its variance."""
    delta = found.measure.delta

    def gap_to(*edges: float) -> float:
        there = [e for e in edges if found.measure.low <= e <= found.measure.high] or edges  # a share is never below 0
        return min(abs(float(found.measure.out(e, found.among)) - found.centre) for e in there)

    gap = gap_to(rule.threshold) if rule.kind != "within" else gap_to(-rule.threshold, rule.threshold)
    if rule.kind != "within" and rule.threshold == 0 and abs(found.value) < delta:  # negligible, or not: what needs less
        gap = max(gap, gap_to(-delta, delta))
    seen = seen or found.own
    images = max(found.below, found.above) ** 2
    runs = max(found.widths(seen)) ** 2 - images
    if gap == 0 or not math.isfinite(gap):
        return ""
    told = []
    if seen:  # more runs also tell more of their variance
        for count in range(found.runs + 1, MOST_RUNS + 1):
            quantile = stdtrit(seen.df + count - found.runs, TAIL)
            if images + quantile**2 * seen.variance / count < gap**2:
                told.append(f"{count} training runs")
                break
    count = math.ceil(found.units * images / (gap**2 - runs)) if gap**2 > runs else math.inf
    if found.units < count <= MOST_IMAGES:
        told.append(f"{count} {found.unit}")
    return f"would be settled by about {' or '.join(told)} if the value stays" if told else ""


@dataclass
class Court:
    """The claims of one run, judged together when `rows` are asked for.

    `study` is its number; the parameters' `variant` tells a second run of a study from the first in the claims' ids; with
    `test=False` (smoke runs) nothing is judged. `cubes` are the measures, where a study keeps them so. `seeds` says how many
    training runs stand behind an arm, or behind every network alike. `draws` are those of the bootstrap; `unknown` joins the
    note where there is no interval, and says why that can be. `over` is what claims are resampled over that do not say so
    themselves, `units` which of these images stand and fall together, called `unit`. `gates` are the names of gates that
    every claim must pass here; `primaries` the ids, without the variant, of the claims that are the paper's own. `whose` says
    whose the networks are, in words, where somebody published them, one an arm: claims then speak of these alone, not of a way
    of training, so that images are what is resampled. `networks` tells networks apart that are called alike, or not at all:
    those of one arm and of one name here are the same ones, whatever claims say of them.
    """

    study: str
    p: Any  # the study's parameters
    cubes: Cubes = field(default_factory=lambda: Cubes({}))
    test: bool = True
    seeds: Callable[[str], int] | int = 1
    draws: int = 500
    unknown: str = "too few images have a value"
    over: str | int = ""
    units: np.ndarray | None = None
    unit: str = "images"
    suffix: str = ""
    about: str = ""
    gates: tuple[str, ...] = ()
    primaries: tuple[str, ...] = ()
    whose: str = ""
    networks: str = ""
    known_gates: dict[str, Gate] = field(default_factory=dict)
    stated: list[Stated] = field(default_factory=list)

    def within(self, suffix: str, about: str = "", **changes: Any) -> Self:
        """The same court for what is said of one thing alone: claims go to the same rows. `changes` are of its fields."""
        whole = f"{self.suffix}/{suffix}" if suffix else self.suffix
        return dataclasses.replace(self, suffix=whole, about=about, **changes)

    def there(self, *arms: str) -> bool:
        """Whether the study has all these arms."""
        return all(arm in self.p.arms for arm in arms)

    def gate(self, name: str, says: str, value: float, rule: Rule) -> None:
        """Make a gate known by name: claims name what they stand on."""
        self.known_gates[name] = Gate(says, value, rule)

    def add(
        self,
        id: str,
        kind: Kind,
        statement: str,
        compute: Statistic,
        rule: Rule,
        *,
        statistic: str,
        source: str,
        measure: str = "",
        difference: int = 1,
        over: str | int | None = None,
        arms: tuple[str, ...] = (),
        seeds: int | None = None,
        gates: tuple[str, ...] = (),
        pool: str = "",
        trained: bool = True,
        note: str = "",
        unknown: str = "",
        n: str = "",
        unit: str = "",
    ) -> None:
        """State a claim: `compute` is its statistic, `statistic` says in words what it is.

        `measure` (`lib.claims.measures`) has its range and what is negligible, of a `difference` of two values unless said
        otherwise (0: of one; 2: of two differences). It is resampled `over` the images of a measure (or so many images), and
        the training runs that all `arms` have (or `seeds`). Its variance over runs is moderated by that of the claims of the
        same `pool` that are tested, by default those whose id begins alike. `trained=False`: it speaks of these networks alone,
        or of any. `n` says in other words what it rests on, `unit` what is resampled where it is not images; `gates` are those
        that it must pass, beyond the court's.

        Raises ValueError where neither the claim nor the court says what is resampled, for an unknown gate or measure, for a
        primary whose id is taken, and where the court's images stand together and the claim is over others, whose `unit` it
        does not name.
        """
        drawn = self.over if over is None else over
        count = self._seeds(arms) if seeds is None else seeds
        if not drawn or not count:
            raise ValueError(f"claim {id!r}: over {drawn!r}, arms {arms}; name a measure or a number of images, and the arms")
        name = f"{id}{self.suffix}" + (f"@{self.p.variant}" if self.p.variant else "")
        kind = "primary" if f"{id}{self.suffix}" in self.primaries else kind
        if kind == "primary" and any(s.words["id"] == name and s.words["kind"] == "primary" for s in self.stated):
            raise ValueError(f"two primaries are called {name!r}; a paper's primaries are told apart by their ids")
        barred = noted(*(self._gate(g, id).failed for g in (*self.gates, *gates)))
        images = drawn if isinstance(drawn, int) else self.cubes.images(drawn)
        units = self.units if self.units is not None and len(self.units) == images else None
        if self.units is not None and units is None and not unit:
            raise ValueError(
                f"claim {id!r} is over {images} images, of which nothing says which stand and fall together; those of the "
                f"court are {len(self.units)}, by {self.unit}. Name its own unit"
            )
        if self.whose:
            statement, note = _bracketed(statement, self.whose), noted(note, ALONE)
        of = measures.measure(measure, difference=difference)
        called = unit or (self.unit if units is not None else "images")
        options = {"draws": self.draws, "of": of, "units": units, "unit": called}
        found = parts(compute, images=images, seeds=count, **options)
        words = {
            "study": self.study,
            "id": name,
            "kind": kind,
            "statement": f"{statement}{self.about}",
            "source": source,
            "statistic": statistic,
            "n": n or found.n,
        }
        self.stated.append(
            Stated(
                words,
                found,
                rule,
                pool or id.split("/")[0],
                unknown or self.unknown,
                barred,
                self.test,
                trained and kind != "check" and not self.whose,
                self._behind(arms, count),
                note,
            )
        )

    @property
    def rows(self) -> list[Claim]:
        """All claims that were stated, judged."""
        pools: dict[str, list[int]] = {}
        for i, one in enumerate(self.stated):
            if one.trained and one.tested and one.parts.finite:
                pools.setdefault(one.pool, []).append(i)
        seen: dict[int, Moderated | None] = {}
        for at in pools.values():
            alike = [self.stated[i].parts for i in at]
            each = moderate([a.variance for a in alike], [a.runs - 1 for a in alike], most=self._freedom(at))
            seen |= dict(zip(at, each, strict=True))
        return adjusted([one.claim(seen.get(i)) for i, one in enumerate(self.stated)])

    def _freedom(self, at: list[int]) -> float:
        """How many training runs, beyond the first of each arm, stand behind claims; no limit where one names no arms."""
        behind = [self.stated[i].behind for i in at]
        runs: dict[tuple[str, str], int] = {}
        for network, count in (pair for one in behind for pair in one.items()):
            runs[network] = max(count, runs.get(network, 0))  # a claim may ask for fewer of them than there are
        return float(sum(count - 1 for count in runs.values())) if all(behind) else math.inf

    def _behind(self, arms: tuple[str, ...], count: int) -> dict[tuple[str, str], int]:
        """The training runs that a claim rests on; nothing where neither it nor the court says of which networks."""
        if arms and not isinstance(self.seeds, int):
            return {(self.networks, arm): self.seeds(arm) for arm in arms}
        return {(self.networks, arm): count for arm in arms or ([""] if self.networks else [])}

    def _gate(self, name: str, id: str) -> Gate:
        if name not in self.known_gates:
            raise names.unknown(f"gate of claim {id!r}", name, self.known_gates)
        return self.known_gates[name]

    def _seeds(self, arms: tuple[str, ...]) -> int:
        return self.seeds if isinstance(self.seeds, int) else min(map(self.seeds, arms), default=0)
