"""Study 5's numbers as tables: robust accuracy beside the published, the cost of training, the sweeps, switches and attacks.

Intervals are of 95 %, over images and, where an arm has several seeds, over seeds; those of times are over the rounds of the
timing. Cells `12.0±3.0` are a value and the longer side of its interval, `0.1 [0.0, 0.2]` a value and its interval.
"""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from lib.claims.cubes import Cubes
from lib.claims.intervals import Interval, Statistic, minus, over
from lib.data.image_sets import ImageSet
from lib.figures.charts import cell
from lib.studies.saliency_adversarial_training import passes, plan, published, statistics
from lib.studies.saliency_adversarial_training.maps import ATTRIBUTIONS
from lib.studies.saliency_adversarial_training.plan import Parameters
from lib.training import evaluate

SOURCES = {"tiny-imagenet": "1 / 2 / 3", "flower-17": "1 / 2 / 3", "cifar-100": "1 / 2 / 3 / 4"}  # published: radii, of 255
CIFAR = "published, CIFAR-100"
NO_MAPS = 1e-6  # alpha^10 below which a curriculum counts as maps alone
TIMES = ("time", "time low", "time high")
PLAIN_STEPS = ("sat-masks", "sat-boxes", "sign")  # one of them is timed for all steps along a map


def mean(cubes: Cubes, p: Parameters, arm: str, measure: str, level: float = 0.0, of: str = "accuracy") -> Interval:
    """The mean of a measure of one arm, with its interval."""
    return cubes.interval(cubes.mean(arm, measure, level), measure, plan.seeds_of(p, arm), of)


def named(arm: str) -> str:
    """An arm within its family: an attribution without its teacher, weak maps without SAT."""
    name = plan.label(arm).removeprefix("SAT (")
    for teacher in plan.TEACHERS.values():
        name = name.replace(f", {teacher} teacher)", "")
    return name.replace("(masks)", "masks").replace(")", "")


def families(p: Parameters) -> dict[str, list[str]]:
    """The arms by what they are trained with, families without arms left out."""

    def weak(arm: str) -> bool:
        found = plan.parsed(arm)
        return arm in ("uniform", "sign") or (found.base == "plain" and found.source in plan.WEAK)

    taught = {f"{word} teacher": f"sat-{short}" for short, word in plan.TEACHERS.items()}
    found = {"noise and weak maps": [a for a in p.arms if weak(a)]}
    found |= {name: [a for a in p.arms if a.startswith(start) and "@" not in a] for name, start in taught.items()}
    found |= {name: [a for a in p.arms if a.startswith(name.lower())] for name in ("PGD", "TRADES")}
    return {name: members for name, members in found.items() if members}


def trained(p: Parameters, data: ImageSet) -> pd.DataFrame:
    """A row an arm: its seeds, and of its first network the accuracy on `data` and the loss in the last epoch.

    One network is in memory at a time: of ResNet-34, all arms take gigabytes.
    """
    found = {}
    for arm in p.every:
        network = plan.network(p, arm, 0)
        right, loss = evaluate.accuracy(network.model, data), network.history[-1]["loss"]
        found[plan.label(arm)] = (plan.seeds_of(p, arm), round(right, 3), round(loss, 3))
    columns = ["seeds", "clean accuracy (seed 0)", "loss in the last epoch"]
    return pd.DataFrame.from_dict(found, orient="index", columns=columns)


def _row(found: Interval, value: str = "accuracy", **about: Any) -> dict[str, Any]:
    return about | {value: found.value, "low": found.low, "high": found.high}


def _percent(found: Interval) -> str:
    return cell(Interval(100 * found.value, 100 * found.low, 100 * found.high, found.n), 1)


def _told(found: Interval, form: str) -> str:
    return f"{found.value:{form}} [{found.low:{form}}, {found.high:{form}}]"


def curves(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Rows (arm, attack, eps, accuracy, low, high, n): clean, under the paper's attack, the strong one and the ensemble."""
    levels = {"clean": (0.0,), "pgd": p.eps_grid, "strong": p.strong_eps, "ensemble": p.strong_eps}
    return pd.DataFrame(
        [
            _row(found, arm=arm, attack=how, eps=e) | {"n": found.n}
            for arm in p.arms
            for how, grid in levels.items()
            for e in grid
            if (arm, how, e) in cubes.values
            for found in [mean(cubes, p, arm, how, e)]
        ]
    )


def beside_published(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Percent right by eps, ours and the paper's; TRADES stands with the beta that is published, 6 alone and 1 when mixed."""
    rows = {}
    for arm in (a for a in p.arms if "@" not in a):
        found, theirs = plan.parsed(arm), published.theirs(arm, p.mix_maps)
        if found.base == "trades" and found.beta != (6 if found.mix == "none" else 1):
            theirs = {}
        row = {f"ours, {p.dataset}, 0": _percent(mean(cubes, p, arm, "clean"))}
        row |= {f"ours, {e:g}": _percent(mean(cubes, p, arm, "pgd", e)) for e in p.eps_grid}
        for source, radii in SOURCES.items():
            values = theirs.get(source, ())
            row[f"published, {source}, {radii}"] = " / ".join(f"{100 * v:.2f}" for v in values) or "–"
        rows[plan.label(arm)] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _costed(cubes: Cubes, p: Parameters, arm: str) -> bool:
    """Whether a step of the arm, and the making of its maps, were timed."""
    found = plan.parsed(arm, p.mix_maps)
    made = not found.teacher or statistics.timed(cubes, f"maps/{found.attribution}")
    return made and (statistics.timed(cubes, arm) or (found.base == "plain" and found.mix == "sat"))


def costs(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Rows (arm, passes, time, time low, time high, accuracy, low, high): passes of an image in an epoch and time of a step,
    both with the share of making the maps and as multiples of the original's, and robust accuracy; the cheapest first, and of
    those that cost the same the most robust."""
    rows, original = [], cubes.values["original", "seconds", 0.0]
    once = passes.STEP["plain"].total
    for arm in (a for a in p.arms if "@" not in a and _costed(cubes, p, a)):
        took = cubes.interval(statistics.ratio(statistics.cost(cubes, arm, p), original), "seconds", 1, "ratio")
        found = cubes.interval(statistics.robust(cubes, arm, p), "pgd", plan.seeds_of(p, arm), "accuracy")
        counted = passes.of(plan.config_of(p, arm, 0)).total / once
        rows.append(_row(found, arm=arm, passes=counted, time=took.value, **{"time low": took.low, "time high": took.high}))
    return pd.DataFrame(rows).sort_values(["passes", "accuracy"], ascending=[True, False], ignore_index=True)


def times(found: pd.DataFrame) -> pd.DataFrame:
    """`costs` as a table to read: multiples of the original's step, counted, and in seconds of this machine."""
    took = [f"{t:.2f} [{low:.2f}, {high:.2f}]" for t, low, high in zip(*(found[c] for c in TIMES), strict=True)]
    columns = {"passes": [f"{v:.2f}" for v in found.passes], "seconds of this run": took}
    return pd.DataFrame(columns, index=[plan.label(arm) for arm in found.arm])


def costs_anew(cubes: Cubes) -> pd.DataFrame:
    """The time of a step whose maps are made for it, as a multiple of the original's, by attribution."""
    original = cubes.values["original", "seconds", 0.0]
    step = next((cubes.values[a, "seconds", 0.0] for a in PLAIN_STEPS if statistics.timed(cubes, a)), None)
    found = {}
    for name in (k for k in ATTRIBUTIONS if statistics.timed(cubes, f"maps/{k}")):
        both = statistics.ratio([step, cubes.values[f"maps/{name}", "seconds", 0.0]], original)
        found[plan.NAMES[name]] = _told(cubes.interval(both, "seconds", 1, "ratio"), ".2f")
    return pd.DataFrame({"maps made anew for every batch, as released: multiple of the original's step": found})


def _points(p: Parameters, arm: str) -> dict[str, list[tuple[float, str]]]:
    """The values that a sweep has, and the arm of each, by what is varied."""
    alphas = [(v, arm if v == p.alpha10 else f"{arm}@a{v:g}") for v in sorted({*p.alphas, p.alpha10})]
    eps0s = [(v, arm if v == p.eps else f"{arm}@e{v:g}") for v in sorted({*p.eps0s, p.eps})]
    return {"alpha": [*alphas, (1.0, "sign")], "eps0": [(0.0, "original"), *eps0s]}


def sweeps(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Rows (whose, what, teacher, at, eps, accuracy, low, high) at the first three radii against alpha^10 and against eps0:
    ours, and the authors' early plots. Random signs throughout are the same network for every teacher."""
    rows = []
    for arm in p.sweep:
        teacher = plan.parsed(arm).teacher or "weak"
        for what, points in _points(p, arm).items():
            runs = min(plan.seeds_of(p, name) for _, name in points)  # the same ones at every point of a curve
            for at, name in points:
                for e in p.eps_grid[: statistics.FIRST]:
                    about = {"whose": "ours", "what": what, "teacher": teacher, "at": 0.0 if at < NO_MAPS else at, "eps": e}
                    found = cubes.interval(over(cubes.values[name, "pgd", e][:runs]), "pgd", runs, "accuracy")
                    rows.append(_row(found, **about))
    for what, column in (("alpha", "alpha10"), ("eps0", "eps0")):
        for row in published.published(what).itertuples():
            for teacher in plan.TEACHERS if row.method == "sign" else {row.teacher} & set(plan.TEACHERS):
                about = {"whose": CIFAR, "what": what, "teacher": teacher, "at": getattr(row, column), "eps": row.eps}
                rows.append(about | {"accuracy": row.value / 100, "low": math.nan, "high": math.nan})  # printed without one
    return pd.DataFrame(rows)


def _apart(cubes: Cubes, arms: Sequence[Statistic], measure: str, seeds: int) -> str:
    return _told(cubes.interval(minus(*arms), measure, seeds, "accuracy", difference=True), "+.3f")


def switches(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """A row a switch: robust accuracy of its arm, of the same arm without it, and the differences."""
    rows = {}
    for arm in dict.fromkeys((*p.switches, *(a for a in p.arms if "@" in a))):
        both = (arm, arm.partition("@")[0])
        seeds = min(plan.seeds_of(p, a) for a in both)
        robust = [statistics.robust(cubes, a, p) for a in both]
        with_it, without = (f"{cubes.interval(one, 'pgd', seeds, 'accuracy').value:.3f}" for one in robust)
        rows[plan.label(arm)] = {
            "robust accuracy": with_it,
            "without the switch": without,
            "difference": _apart(cubes, robust, "pgd", seeds),
            "difference, clean": _apart(cubes, [cubes.mean(a, "clean") for a in both], "clean", seeds),
            "seeds": seeds,
        }
    return pd.DataFrame(rows).T


def attacks(cubes: Cubes, p: Parameters) -> pd.DataFrame:
    """Percent right at the largest radius of the strong attack under each attack, and how much the loss's gradient looks like
    the direction of training; the paper's attack is on the strong one's images, the ensemble on the first of these."""
    rows, high = {}, p.strong_eps[-1]
    for arm in p.arms:
        weak = cubes.interval(cubes.mean(arm, "pgd", high), "strong", plan.seeds_of(p, arm), "accuracy")
        row = {
            "clean": _percent(mean(cubes, p, arm, "clean")),
            f"PGD-{p.steps}": _percent(weak),
            f"PGD-{p.strong_steps}, restarts": _percent(mean(cubes, p, arm, "strong", high)) if arm in p.headline else "",
            "ensemble": _percent(mean(cubes, p, arm, "ensemble", high)) if (arm, "ensemble", high) in cubes.values else "",
            "transferred": _percent(mean(cubes, p, arm, "transfer", high)),
            f"random signs of {p.eps:g}/255": _percent(mean(cubes, p, arm, "noise", p.eps)),
        }
        if (arm, "cosine", 0.0) in cubes.values:
            row["cosine, this image"] = f"{mean(cubes, p, arm, 'cosine', of='cosine').value:+.3f}"
            row["another"] = f"{mean(cubes, p, arm, 'cosine-another', of='cosine').value:+.3f}"
        rows[plan.label(arm)] = row
    return pd.DataFrame(rows).T.fillna("")
