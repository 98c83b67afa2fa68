"""What study 3's claims have in common: their sources, rules and sentences, and how one arm is compared with another.

The paper's claims are judged on the networks of this study (`claims`) and on those that its authors published (`authors`), by
the same sentences. `{0}` and `{1}` in them name two arms, `{2}` says where.
"""

from typing import Any

from lib.claims.claim import Kind, Rule
from lib.claims.court import Court
from lib.claims.intervals import Statistic, minus
from lib.studies.interpretability_aware_training import statistics
from lib.studies.interpretability_aware_training.objective import ARMS

SOURCE = "Boopathy et al. 2020"
TABLE_1 = f"{SOURCE}, table 1"
TABLE_2 = f"{SOURCE}, table 2"
TABLE_3 = f"{SOURCE}, table 3"
PROPOSITION = f"{SOURCE}, proposition 1"
UP, FAR, NONE = Rule("above", 0.0), Rule("above", 0.1), Rule("within", 0.0)
LEFT, SURVIVING = Rule("above", 0.05), Rule("above", 29)  # 29: 30 at least
OVERSTATED = Rule("above", 0.02)
RIVALS = ("adv", "trades")
INTERPRETED = ("int-one-class", "int", "int-adv", "int2", "int2-adv")  # arms trained on discrepancies

FAR_BETTER = "{0} withstands attacks far better than {1}, at least .1 more often right at the training radius ({2})"
BEYOND = "Beyond the training radius {0} is right more often than {1} under the paper's PGD ({2})"
TWO_CLASS = {
    "int": "The discrepancy over all classes makes {0} more robust at the training radius than that of one class, {1} ({2})",
    "int2": "{0}, with all classes and images that attack the decision, is more robust at the training radius than {1} ({2})",
}
INT2 = "{0}, whose images attack the decision, is more robust at the training radius than {1} ({2})"
KEEPS = "Under the released attack the explanation of {0} keeps its order better than that of {1} where predictions stay ({2})"


class Whose(Court):
    """A court that judges the study's own networks, or those that the authors published (`whose`).

    Ids of the latter begin with `published/`. That they were trained needs no gate; gates of what is measured stay.
    """

    def add(self, id: str, kind: Kind, statement: str, compute: Statistic, rule: Rule, **further: Any) -> None:
        """As `Court.add`."""
        if self.whose:
            id = f"published/{id}"
            further["gates"] = tuple(g for g in further.pop("gates", ()) if not g.startswith("trained-"))
        super().add(id, kind, statement, compute, rule, **further)


def said(statement: str, arms: tuple[str, ...], where: str = "") -> str:
    """A sentence about these arms."""
    return statement.format(*(ARMS[a].name for a in arms), *([""] * (2 - len(arms))), where)


def better(
    court: Court,
    id: str,
    kind: Kind,
    statement: str,
    arms: tuple[str, str],
    how: str,
    eps: float,
    told: str,
    *,
    where: str = "",
    rule: Rule = UP,
    source: str = TABLE_1,
    gates: tuple[str, ...] = (),
    pool: str = "",
    trained: bool = True,
    note: str = "",
) -> None:
    """The first of two arms is right more often than the second, `how` attacked; `told` says in words what is counted."""
    court.add(
        id,
        kind,
        said(statement, arms, where),
        minus(*(court.cubes.mean(arm, how, eps) for arm in arms)),
        rule,
        statistic=f"{told}, {ARMS[arms[0]].name} - {ARMS[arms[1]].name}",
        source=source,
        measure="accuracy",
        over=how,
        arms=arms,
        gates=gates,
        pool=pool,
        trained=trained,
        note=note,
    )


def left(court: Court, how: str, eps: float, *arms: str) -> str:
    """The gate that one of these networks at least keeps something under an attack: its name."""
    most, name = max(statistics.right(court.cubes, arm, how, eps) for arm in arms), f"left-{how}-{'-'.join(arms)}"
    attack, both = "the strongest PGD" if how == "strong" else "the paper's PGD", " or ".join(ARMS[a].name for a in arms)
    court.gate(name, f"{attack} leaves something of {both} at eps {eps:.3g}", most, LEFT)
    return name
