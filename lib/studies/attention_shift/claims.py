"""Study 1's claims: what Chakraborty et al. say of attention shift, the controls, and what is left open.

Gates, chosen before any number was seen. A network that is wrong on every other clean image has no attention that could
shift from what it ought to look at: each must be right on more than .6 of them (by chance .1 on ten classes, .025 on 40). An
attack that changes next to no decision is none, and without flips there is nothing to compare: FGSM at the largest eps must
change more than .2 of the decisions. What compares architectures asks this of their mean, since one that resists would
otherwise bar the claim that it does. The paper sets deep networks against wide ones, so that comparison asks for a plain, a
deep and a wide network (`compared.kinds`): a few of one family say nothing of it.

What is said of published networks speaks of these networks alone, and its interval is over images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from lib.claims.claim import Claim, Rule
from lib.claims.court import OURS, QUESTION, Court
from lib.claims.intervals import Statistic, least
from lib.studies.attention_shift import compared
from lib.studies.attention_shift.compared import SOURCE, Row
from lib.studies.attention_shift.plan import FAMILY, Parameters
from lib.studies.attention_shift.statistics import (
    Cube,
    by_eps,
    cube,
    failures_told,
    finite_mean,
    inverted,
    mean_of,
    mean_where,
    pick,
    pooled,
)

FACES = ("folder:orl_faces", "folder:vggface2")  # a class is a person, whose pictures stand and fall together
RIGHT, ATTACKED = 0.6, 0.2  # see above
MOVES = {"region-moves": slice(-1, None), "region-moves-mean": slice(1, None)}  # at which of the eps, of which the first is 0


def primaries(p: Parameters) -> tuple[str, ...]:
    """The ids of the paper's five claims: maps move, the attended region moves, failures go with it, two on architectures."""
    return ("mod-rises", "region-moves", "flipped-move-more", "deep-keeps-more", "plain-most-stable")


def beside(p: Parameters) -> dict[str, tuple[str, str]]:
    """The paper speaks of growing attacks, the claim of the largest alone; a flip changes the class that is explained, and that
    alone moves the map."""
    return {
        "region-moves": ("region-moves-mean", "on average over eps"),
        "flipped-move-more": ("more-than-class-change", "moved farther than by explaining the new class on the clean image"),
    }


def judge(table: pd.DataFrame, p: Parameters, *, test: bool = True) -> list[Claim]:
    """All claims from the table of measurements; the headline layer is each network's last stage."""
    table = table[table["last"]]
    people = None
    if p.dataset in FACES:  # labels are whose picture it is
        people = table.drop_duplicates("image_id").sort_values("image_id").true.to_numpy()
    court = Court(
        "01",
        p,
        test=test,
        seeds=table.seed.nunique(),
        over=table.image_id.nunique(),
        units=people,
        unit="people",
        primaries=primaries(p),
    )
    _gates(court, table)
    nissim = cube(table, "nissim")
    court.add(
        "mod-zero",
        "check",
        "Without attack no map moves: MOD, the mean NISSIM between two maps, is 0 at eps 0",
        lambda i, s: max(pick(a, i, s)[:, 0].max() for a in nissim.values()),
        Rule("within", 1e-6),
        statistic="largest NISSIM at eps 0",
        source=OURS,
        difference=False,
    )
    shifts = {m: _shift(table, m) for m in p.architectures}
    by = ", attacked with another network's gradient" if p.black_box else ""
    for m, rows in shifts.items():
        own = {"gates": (f"right/{m}", f"attacked/{m}"), "networks": m}
        _add(court.within(m, f", in the {named(m)} network{by}", **own), rows)
    told = ", ".join(named(m) for m in p.architectures)
    about = f", mean of the published networks {told}" if p.as_published else ", mean of the architectures"
    every = court.within("", about + by, gates=("right", "attacked"))
    for id in ("mod-rises", "region-moves", "region-moves-mean"):
        each = [row for rows in shifts.values() for row in rows if row.id == id]
        whole = each[0]._replace(compute=mean_of([row.compute for row in each]))
        if id in MOVES:
            whole = whole._replace(note=_plainly(table, p.architectures, MOVES[id]))
        _add(every, [whole], pool=f"{id}, all architectures")  # a mean of networks varies less than one: nothing is shared
    for row in [*_looks(table, p), *_within(table, p)]:
        _add(every, [row], pool=row.id)
    about = f", in the published networks {told}" if p.as_published else ""
    _failure(court.within("", about + by, gates=("right", "attacked")), table)
    if all(compared.kinds(p.architectures)):
        for row in compared.rows(table):
            _add(court.within("", gates=("right", "attacked")), [row], pool=row.id)
    else:
        compared.absent(court)
    return court.rows


def named(m: str) -> str:
    """What a network is called in sentences."""
    return FAMILY.get(m, m)


def _gates(court: Court, table: pd.DataFrame) -> None:
    """Of each network and of all: whether it knows its data, and whether the attack does anything."""
    clean, truth, pred = (cube(table, c) for c in ("pred_clean", "true", "pred_adv"))
    right = {m: float((clean[m] == truth[m])[:, 0].mean(-1).min()) for m in court.p.architectures}
    changed = {m: float((pred[m] != clean[m])[:, -1].mean()) for m in court.p.architectures}
    known, enough = Rule("above", RIGHT), Rule("above", ATTACKED)
    at = f"share of decisions that FGSM changes at eps {table.eps.max():g}"
    for m in court.p.architectures:
        worst = "" if court.p.as_published else " of the worst seed"
        court.gate(f"right/{m}", f"share of clean images that the {named(m)} network{worst} gets right", right[m], known)
        court.gate(f"attacked/{m}", f"{at}, {named(m)} network", changed[m], enough)
    court.gate("right", "share of clean images that the worst network gets right", min(right.values()), known)
    court.gate("attacked", f"{at}, mean of the networks", float(np.mean(list(changed.values()))), enough)


def _add(court: Court, rows: list[Row], pool: str = "") -> None:
    for row in rows:
        told = {"statistic": row.statistic, "source": row.source, "measure": row.measure, "note": row.note}
        told |= {"difference": row.difference} | alone(court)
        court.add(row.id, row.kind, row.statement, row.compute, row.rule, pool=pool, **told)


def alone(court: Court) -> dict[str, Any]:
    """What a claim is told of published networks: that it speaks of these alone, over images."""
    if not court.p.as_published:
        return {}
    return {"trained": False, "n": f"{court.over} images, one network as it was published each"}


def _plainly(table: pd.DataFrame, architectures: Sequence[str], which: slice) -> str:
    """How far the centre of mass moves under either change alone, at some of the eps, mean of the networks."""
    told = []
    for attack in ("fgsm", "noise"):
        moved = cube(table, "centroid_shift", attack=attack)
        told.append(np.mean([pooled([moved[m][:, which]]) for m in architectures]))
    return "alone it moves {:.2f} pixels under FGSM, {:.2f} under random signs".format(*told)


def _shift(table: pd.DataFrame, m: str) -> list[Row]:
    """Claims 1 and 2, of one network: maps move, and more than under noise."""
    eps = sorted(table.eps.unique())
    nissim, noise = (cube(table, "nissim", attack=a)[m] for a in ("fgsm", "noise"))
    shift, shift_noise = (cube(table, "centroid_shift", attack=a)[m] for a in ("fgsm", "noise"))

    def over_noise(i: np.ndarray, s: np.ndarray) -> np.ndarray:
        return (by_eps(nissim, i, s) - by_eps(noise, i, s))[1:]

    def farther(which: slice) -> Statistic:
        return lambda i, s: pooled([pick(shift - shift_noise, i, s)[:, which]])  # images that have both

    first, second = f"{SOURCE}, claim 1", f"{SOURCE}, claim 2; that it moves more than under random signs is asked by us"
    centre = "The centre of mass of the map moves farther under FGSM than under random signs of the same size"
    moved = "pixels that the centre of mass moves, FGSM - random signs"
    return [
        Row(
            "mod-rises",
            "claim",
            f"Maps move farther under a larger attack: MOD, the mean NISSIM between clean and attacked map, is higher under "
            f"FGSM at eps {eps[-1]:g} than at eps {eps[1]:g}",
            lambda i, s: by_eps(nissim, i, s)[-1] - by_eps(nissim, i, s)[1],
            f"MOD at eps {eps[-1]:g} - MOD at eps {eps[1]:g}",
            first,
        ),
        Row(
            "mod-monotone",
            "claim",
            "From one eps to the next, MOD (mean NISSIM between clean and attacked map) never falls by 0.01 or more",
            least(lambda i, s: np.diff(by_eps(nissim, i, s))),
            "smallest step of MOD along eps",
            f"{first}; the tolerance is ours",
            rule=Rule("above", -0.01),
            note="where contradicted, the report's table of commonest answers gives the reason",
        ),
        Row(
            "attack-over-noise",
            "control",
            "FGSM moves the map more than random signs of the same size at every eps",
            least(over_noise),
            "smallest difference over eps of mean NISSIM, FGSM - random signs",
            OURS,
        ),
        Row(
            "attack-over-noise-mean",
            "control",
            "FGSM moves the map more than random signs of the same size on average over eps",
            lambda i, s: over_noise(i, s).mean(),
            "mean over eps of mean NISSIM, FGSM - random signs",
            OURS,
        ),
        Row(
            "region-moves",
            "claim",
            f"{centre} at eps {eps[-1]:g}",
            farther(MOVES["region-moves"]),
            f"{moved}, eps {eps[-1]:g}",
            second,
            measure="pixels",
            note=_plainly(table, [m], MOVES["region-moves"]),
        ),
        Row(
            "region-moves-mean",
            "claim",
            f"{centre} on average over eps",
            farther(MOVES["region-moves-mean"]),
            f"{moved}, mean over eps",
            second,
            measure="pixels",
            note=_plainly(table, [m], MOVES["region-moves-mean"]),
        ),
    ]


def _looks(table: pd.DataFrame, p: Parameters) -> list[Row]:
    """What the map of an attacked image is like: how much of it is on the background (where objects have masks), how large it
    is, whether its order is turned round. Each map explains what the network decides."""
    top, rows = f"eps {table.eps.max():g}", []

    def rise(column: str) -> tuple[Statistic, Statistic]:
        """Under FGSM; and by how much more than under noise, over images that have both."""
        each = [cube(table, column, attack=a) for a in ("fgsm", "noise")]
        grows = [[values[m][:, -1] - values[m][:, 0] for m in p.architectures] for values in each]
        more = [a - b for a, b in zip(*grows, strict=True)]
        return mean_of([finite_mean(g) for g in grows[0]]), mean_of([finite_mean(g) for g in more])

    covers = "The map covers more of the image, counted where it is at least half of its maximum"
    for column, id, says, shares in (
        ("background", "background-rises", "More of the map's mass lies on the background", "share of the map's mass"),
        ("area", "area-grows", covers, "share of the image"),
    ):
        if table[column].isna().all():
            continue
        attacked, beyond_noise = rise(column)
        rows += [
            Row(
                id,
                "open question",
                f"{says} under FGSM at {top} than without attack",
                attacked,
                f"{shares}, {top} - clean image",
                QUESTION,
                measure="share",
            ),
            Row(
                f"{id}-over-noise",
                "control",
                f"{says} under FGSM at {top} than under random signs of the same size",
                beyond_noise,
                f"{shares}, {top}, FGSM - random signs",
                OURS,
                measure="share",
            ),
        ]
    after, noise = (cube(table, "spearman", attack=a) for a in ("fgsm", "noise"))
    turned = [inverted(after[m][:, -1]) - inverted(noise[m][:, -1]) for m in p.architectures]
    more = "More maps are turned round (ranks correlate negatively with the clean map's)"
    last = Row(
        "inverted-over-noise",
        "open question",
        f"{more} under FGSM at {top} than under random signs of the same size",
        mean_of([finite_mean(values) for values in turned]),
        f"share of maps whose rank correlation with the clean map is negative, {top}, FGSM - random signs",
        QUESTION,
        measure="share",
    )
    return [*rows, last]


def _within(table: pd.DataFrame, p: Parameters) -> list[Row]:
    """Whether an image's own shift tells at which eps the network fails on it, which a mean over images cannot say. Of the
    label's class, since a flip changes the class that is explained otherwise."""
    own, mean = failures_told(table)
    says = "Within an image, over eps, the network fails where the map of the label's class has moved farther"
    shares = "share of pairs of eps, one that the image is wrong at and one that it is right at, that"
    return [
        Row(
            "shift-tells-failure",
            "open question",
            says,
            mean_of([finite_mean(own[m]) for m in p.architectures]),
            f"{shares} NISSIM orders rightly, mean over images with both",
            QUESTION,
            measure="auc",
            rule=Rule("above", 0.5),
            difference=False,
            note="both rise with eps, which alone orders them: see shift-tells-failure/beyond-eps",
        ),
        Row(
            "shift-tells-failure/beyond-eps",
            "control",
            f"{says}, and this tells more than the mean shift of all images at that eps does",
            mean_of([finite_mean(own[m] - mean[m]) for m in p.architectures]),
            f"{shares} are ordered rightly: by the image's NISSIM - by MOD",
            OURS,
            measure="auc",
        ),
    ]


def _failure(court: Court, table: pd.DataFrame) -> None:
    """Claim 3: larger shifts go with more failures; and what a mere change of the explained class makes of it."""
    nissim, class_only = cube(table, "nissim"), cube(table, "nissim_class")
    same_class = cube(table, "nissim", target="true")
    pred, clean, truth = (cube(table, c) for c in ("pred_adv", "pred_clean", "true"))
    wrong = {m: pred[m] != truth[m] for m in pred}
    flipped = {m: pred[m] != clean[m] for m in pred}

    def mod_and_error(i: np.ndarray, s: np.ndarray) -> float:
        shifts, errors = ([by_eps(a[m], i, s)[1:] for m in court.p.architectures] for a in (nissim, wrong))
        a, b = rankdata(np.concatenate(shifts)), rankdata(np.concatenate(errors))
        return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")

    def gap(values: Cube) -> Statistic:
        """NISSIM of flipped less not-flipped images, within (architecture, seed, eps), where both exist."""

        def statistic(i: np.ndarray, s: np.ndarray) -> float:
            parts = []
            for m in court.p.architectures:
                v, f = pick(values[m], i, s)[:, 1:], pick(flipped[m], i, s)[:, 1:]
                parts.append(mean_where(v, f) - mean_where(v, ~f))
            return pooled(parts)

        return statistic

    def beyond_class(i: np.ndarray, s: np.ndarray) -> float:
        parts = []
        for m in court.p.architectures:
            difference = pick(nissim[m], i, s)[:, 1:] - pick(class_only[m], i, s)[:, 1:]
            parts.append(difference[pick(flipped[m], i, s)[:, 1:]])
        return pooled(parts)

    court.add(
        "mod-with-error",
        "claim",
        "Over architectures and eps, more decisions are wrong where MOD (mean NISSIM of clean and attacked map) is larger",
        mod_and_error,
        Rule("above", 0.5),
        statistic="Spearman correlation of MOD and error rate over (architecture, eps)",
        source=f"{SOURCE}, claim 3; the threshold is ours",
        measure="correlation",
        difference=False,
        **alone(court),
        note="both rise with eps, which alone makes them correlate",
    )
    flips = "Under one and the same attack, maps of images whose decision flips move more than those of the others"
    within = "mean NISSIM, flipped - not flipped, within (architecture, seed, eps)"
    between = "NISSIM(clean, attacked) - NISSIM(clean: old class, clean: new class)"
    rows: list[Row] = [
        Row(
            "flipped-move-more",
            "claim",
            f"{flips}, each map explaining what the network decides",
            gap(nissim),
            within,
            f"{SOURCE}, claim 3",
            note="a flip changes the class that is explained: see flipped-move-more/true-class and more-than-class-change",
        ),
        Row(
            "flipped-move-more/true-class",
            "control",
            f"{flips}, each map explaining the label's class",
            gap(same_class),
            f"{within}, label's class",
            OURS,
        ),
        Row(
            "more-than-class-change",
            "control",
            "Of flipped images, the map moves more than explaining the new class on the clean image would move it",
            beyond_class,
            f"mean over flipped images of {between}",
            OURS,
            note="where this is contradicted, asking for another class moves the map as much without any attack",
        ),
    ]
    for row in rows:
        _add(court, [row], pool=row.id)  # of the same networks: not one statistic of two arms
