"""Study 6: the claims of pathways under attack, judged from `statistics`."""

from lib.claims.claim import Claim, Kind, Rule
from lib.claims.court import Book
from lib.claims.intervals import Statistic, minus
from lib.studies.attack_pathways.plan import Parameters
from lib.studies.attack_pathways.statistics import DRAWS, FEW, LAST, Pathways, mean, thirds

SPEC = "expected at this scale; not in the paper"
OURS = "ours; not in the paper"
EMPTY = "Without interval: for a seed or a draw of images the group of neurons is empty."
NEVER = "Without interval: for a seed or a draw of images the attack succeeds on none."
# by group: whose class, its name, what its neurons do as the attack grows, what the attack makes them, and the rule
GROUPS = {
    "target": ("target", "T \\ O", "join", "excited", Rule("above", 0.0)),
    "original": ("source", "O \\ T", "leave", "inhibited", Rule("below", 0.0)),
}


def told(pairs: tuple[str, ...]) -> str:
    """Pairs of classes in words."""
    return "; ".join(pair.replace(">", " and ") for pair in pairs)


def judge(all_pathways: dict[tuple[str, str], Pathways], p: Parameters, *, test: bool) -> list[Claim]:
    """Every claim, for every network and pair."""
    found: list[Claim] = []
    strongest = p.strengths[-1]
    grow = f"{strongest:g} minus {p.strengths[0]:g}"
    over_noise = f"PGD minus a random direction at L2 {strongest:g}"

    def add(
        path: Pathways,
        id: str,
        kind: Kind,
        statement: str,
        compute: Statistic,
        rule: Rule,
        statistic: str,
        source: str,
        note: str = "",
        unknown: str = EMPTY,
    ) -> None:
        book = Book("06", path.scored.images(path.pair), p.seeds, p.variant, test, found, DRAWS)
        book.add(
            f"{id}/{path.arch}/{path.pair}",
            kind,
            f"{statement} ({path.arch}, {path.pair.replace('>', ' → ')}).",
            compute,
            rule,
            statistic=statistic,
            source=source,
            note=note,
            unknown=unknown,
        )

    for (arch, pair), path in all_pathways.items():
        first, last = thirds(path.layers)
        deep = f"the last {LAST} layers" if len(path.layers) >= LAST else "the only layer"
        above = Rule("above", 0.0)
        reach = "share of images that reach the target class"
        add(
            path,
            "success",
            "claim",
            "A stronger targeted attack succeeds more often",
            minus(path.success("pgd", -1), path.success("pgd", 0)),
            above,
            f"{reach}, PGD at L2 {grow}",
            SPEC,
        )
        add(
            path,
            "success-over-noise",
            "control",
            "It succeeds more often than a random direction of the same size",
            minus(path.success("pgd", -1), path.success("noise", -1)),
            above,
            f"{reach}, {over_noise}",
            OURS,
        )
        if len(path.layers) > 1:
            add(
                path,
                "shared-falls",
                "claim",
                "Two classes share fewer top neurons in late layers than in early ones",
                minus(mean([path.shared(n) for n in first]), mean([path.shared(n) for n in last])),
                above,
                "|O ∩ T| / K, the first third of the layers minus the last",
                SPEC,
            )
            add(
                path,
                "shared-falls-over-chance",
                "control",
                "The same beyond what two random sets of top neurons share, which is more in narrow layers",
                minus(mean([path.shared(n, True) for n in first]), mean([path.shared(n, True) for n in last])),
                above,
                "(|O ∩ T| / K - K / C) / (1 - K / C), the first third of the layers minus the last",
                OURS,
            )
            add(
                path,
                "early-change-less",
                "claim",
                "Early layers change less under attack than late ones",
                minus(path.correlation("pgd", -1, first), path.correlation("pgd", -1, last)),
                above,
                "Spearman correlation of attacked and clean medians over channels, the first third of the layers minus the "
                f"last, PGD at L2 {strongest:g}",
                SPEC,
            )
        for group, (whose, name, joins, made, rule) in GROUPS.items():
            add(
                path,
                f"{group}-{joins}",
                "claim",
                f"As the attack grows, neurons of the {whose} class {joins} the top neurons",
                minus(path.kept("pgd", -1, group), path.kept("pgd", 0, group)),
                rule,
                f"share of {name} among the top neurons of {deep}, the same images, PGD at L2 {grow}",
                SPEC,
            )
            measure = f"change of the medians of {name} in the last layer, in units of the layer's mean"
            add(
                path,
                f"{whose}-{made}",
                "claim",
                f"The {whose} class's own neurons of the last layer are {made} by the attack",
                path.moved("pgd", -1, group),
                rule,
                f"{measure}, PGD at L2 {strongest:g}",
                SPEC,
            )
            add(
                path,
                f"{whose}-{made}-over-noise",
                "control",
                f"The {whose} class's own neurons are {made} more than by a random direction of the same size",
                minus(path.moved("pgd", -1, group), path.moved("noise", -1, group)),
                rule,
                f"{measure}, {over_noise}",
                OURS,
            )
        weakest = path.first_success("pgd")
        if weakest is not None:
            at = f"PGD at L2 {p.strengths[weakest]:g}"
            new = "share of the top neurons that are in neither O nor T, all layers"
            few = int(path.scored.success(arch, pair, "pgd")[:, weakest].sum())
            own = path.new_among_successes("pgd", weakest)
            add(
                path,
                "selection",
                "control",
                "Looking at successes alone, as the original does, shows more neurons that neither class uses than as many "
                "images drawn from all of them do",
                minus(own, path.new_among_as_many("pgd", weakest)),
                above,
                f"{new}: successes minus as many images at random, {at}, the weakest with {FEW} successes for each seed",
                OURS,
                note=f"{few} successes of all seeds.",
                unknown=NEVER,
            )
            add(
                path,
                "selection-falls",
                "open question",
                "Among successes, neurons that neither class uses are most at the weakest attack, as in the released data",
                minus(own, path.new_among_successes("pgd", -1)),
                above,
                f"{new}, successes alone: {at} minus {strongest:g}",
                "released data of Das et al. 2020",
                unknown=NEVER,
            )
    for arch in dict.fromkeys(a for a, _ in all_pathways):
        alike, other = ([all_pathways[arch, pair] for pair in pairs] for pairs in (p.similar, p.dissimilar))

        def shared(paths: list[Pathways]) -> Statistic:
            return mean([path.shared(n) for path in paths for n in path.layers])

        images = min(path.scored.images(path.pair) for path in (*alike, *other))
        Book("06", images, p.seeds, p.variant, test, found, DRAWS).add(
            f"similar-share-more/{arch}",
            "claim",
            f"{told(p.similar)} share more top neurons than {told(p.dissimilar)} ({arch}).",
            minus(shared(alike), shared(other)),
            Rule("above", 0.0),
            source=SPEC,
            statistic="|O ∩ T| / K, mean of the layers: pairs that look alike minus pairs that do not",
            note="The interval is over images and seeds, not over pairs of classes.",
        )
    return found
