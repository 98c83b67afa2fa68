"""The court: a run's claims, each judged as it is added.

A study opens one court and adds its claims. What is said of one network, arm or pair alone is added `within` it: the same
court under a suffix of the ids and a few words after each statement.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from lib.claims.claim import Claim, Kind, Rule
from lib.claims.cubes import Cubes
from lib.claims.intervals import Statistic, interval

OURS = "control of this study"
QUESTION = "a question of this study"
OURS_ALONE = "ours; not in the paper"
ONE_SEED = "one training run an arm: the spread over seeds is unknown"


def noted(*parts: str) -> str:
    """Notes that say something, joined."""
    return "; ".join(p for p in parts if p)


@dataclass
class Court:
    """The claims of one run, each judged as it is added.

    `study` is its number; the parameters' `variant` tells a second run of a study from the first in the claims' ids; with
    `test=False` (smoke runs) nothing is judged. `cubes` are the measures, where a study keeps them so. `seeds` says how many
    training runs stand behind an arm, or behind every network alike. `draws` are those of the bootstrap; `one_seed` is noted
    of claims that rest on one training run, where it says something; `unknown` joins the note where there is no interval, and
    says why that can be. `over` is what claims are resampled over that do not say so themselves.
    """

    study: str
    p: Any  # the study's parameters
    cubes: Cubes = field(default_factory=lambda: Cubes({}))
    test: bool = True
    seeds: Callable[[str], int] | int = 1
    draws: int = 500
    one_seed: str = ""
    unknown: str = ""
    over: str | int = ""
    suffix: str = ""
    about: str = ""
    rows: list[Claim] = field(default_factory=list)

    def within(self, suffix: str, about: str = "", **changes: Any) -> Self:
        """The same court for what is said of one thing alone: claims go to the same rows. `changes` are of its fields."""
        whole = f"{self.suffix}/{suffix}" if suffix else self.suffix
        return dataclasses.replace(self, suffix=whole, about=about, **changes)

    def there(self, *arms: str) -> bool:
        """Whether the study has all these arms."""
        return all(arm in self.p.arms for arm in arms)

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
        over: str | int | None = None,
        arms: tuple[str, ...] = (),
        seeds: int | None = None,
        note: str = "",
        gate: str = "",
        unknown: str = "",
        theorem: bool = False,
        n: str = "",
    ) -> None:
        """State a claim: `compute` is its statistic, `statistic` says in words what it is.

        It is resampled `over` the images of a measure (or so many images), and the training runs that all `arms` have (or
        `seeds`); `n` says in other words what it rests on. A `gate` that is not passed is said in words, and the claim is not
        tested then. A `theorem` holds for any network, however it was trained: one run is enough.

        Raises ValueError where neither the claim nor the court says what is resampled.
        """
        drawn = self.over if over is None else over
        count = self._seeds(arms) if seeds is None else seeds
        if not drawn or not count:
            raise ValueError(f"claim {id!r}: over {drawn!r}, arms {arms}; name a measure or a number of images, and the arms")
        images = drawn if isinstance(drawn, int) else self.cubes.images(drawn)
        found = interval(compute, images=images, seeds=count, draws=self.draws)
        tested = self.test and not gate
        verdict = rule.judge(found) if tested else "not tested"
        few = self.one_seed if count == 1 and kind != "control" and not theorem else ""
        lost = (unknown or self.unknown) if tested and verdict == "not tested" else ""
        name = f"{id}{self.suffix}" + (f"@{self.p.variant}" if self.p.variant else "")
        self.rows.append(
            Claim(
                study=self.study,
                id=name,
                kind=kind,
                statement=f"{statement}{self.about}",
                source=source,
                statistic=statistic,
                value=found.value,
                ci_low=found.low,
                ci_high=found.high,
                n=n or found.n,
                rule=str(rule),
                verdict=verdict,
                note=noted(lost, gate, note, few),
            )
        )

    def _seeds(self, arms: tuple[str, ...]) -> int:
        return self.seeds if isinstance(self.seeds, int) else min(map(self.seeds, arms), default=0)
