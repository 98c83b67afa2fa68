"""Study 6: what happens to the pathways under attack, as statistics with intervals, and the claims that rest on them.

Statistics are functions of the images and of the seeds that they are computed on (`lib.claims`). A source image and the
target image of the same number are resampled together; a median is taken of the images that were drawn.
"""

import functools
from collections.abc import Callable

import numpy as np
import torch

from lib import claims, metrics, pathways
from lib.attack_pathways import Parameters, Scored
from lib.claims import Book, Claim, Interval, Kind, Rule, Statistic
from lib.cubes import minus
from lib.pathways_graph import top_count

SPEC = "expected at this scale; not in the paper"
OURS = "ours; not in the paper"
DRAWS = 200
LAST = 2  # layers that count as deep
EMPTY = "Without interval: for a seed or a draw of images the group of neurons is empty."
NEVER = "Without interval: for a seed or a draw of images the attack succeeds on none."
FEW = 3  # successes that a median is taken of, at least
# by group: whose class, its name, what its neurons do as the attack grows, what the attack makes them, and the rule
GROUPS = {
    "target": ("target", "T \\ O", "join", "excited", Rule("above", 0.0)),
    "original": ("source", "O \\ T", "leave", "inhibited", Rule("below", 0.0)),
}
Medians = dict[str, np.ndarray]


def top(medians: np.ndarray, k: int) -> np.ndarray:
    """Which are among the k highest of the last dimension, as `pathways.top` chooses them."""
    found = np.zeros(medians.shape, dtype=bool)
    np.put_along_axis(found, pathways.top(torch.from_numpy(medians), k).numpy(), True, axis=-1)
    return found


class Pathways:
    """Statistics of one network on one pair of classes; medians of a draw of images are taken once."""

    def __init__(self, scored: Scored, arch: str, pair: str) -> None:
        self.arch, self.pair, self.p, self.scored = arch, pair, scored.p, scored
        self.layers = scored.layers[arch]
        self.widths = {n: scored.scores(arch, pair, "source", n).shape[-1] for n in self.layers}
        self.k = {n: top_count(width, scored.p.share, scored.p.least, scored.p.most) for n, width in self.widths.items()}
        self._sorted = functools.cache(self._values)
        self._found: dict[tuple[str, bytes, bytes], Medians] = {}

    def _values(self, attack: str, layer: str) -> np.ndarray:
        """(seeds, strengths, channels, images), so that a draw of images lies together."""
        return np.ascontiguousarray(self.scored.scores(self.arch, self.pair, attack, layer).swapaxes(2, 3))

    def medians(self, attack: str, i: np.ndarray, s: np.ndarray) -> Medians:
        """By layer (seeds, strengths, channels); `source` and `target` have one strength, 0."""
        key = (attack, i.tobytes(), s.tobytes())
        if key not in self._found:
            self._found[key] = {n: np.median(self._sorted(attack, n)[s][..., i], axis=-1) for n in self.layers}
        return self._found[key]

    def tops(self, i: np.ndarray, s: np.ndarray, layer: str) -> tuple[np.ndarray, np.ndarray]:
        """O and T of a layer, (seeds, 1, channels)."""
        source, target = (self.medians(c, i, s)[layer] for c in ("source", "target"))
        return top(source, self.k[layer]), top(target, self.k[layer])

    def success(self, attack: str, strength: int) -> Statistic:
        """The share of images on which the attack of a strength (by number) reaches its class."""
        won = self.scored.success(self.arch, self.pair, attack)[:, strength]
        return lambda i, s: float(won[s][:, i].mean())

    def shared(self, layer: str, over_chance: bool = False) -> Statistic:
        """|O ∩ T| / K; `over_chance` moves the K/C that two sets drawn at random have in common to 0, and leaves 1 at 1."""
        chance = self.k[layer] / self.widths[layer] if over_chance else 0.0

        def statistic(i: np.ndarray, s: np.ndarray) -> float:
            own, other = self.tops(i, s, layer)
            return float(((own & other).sum(-1).mean() / self.k[layer] - chance) / (1 - chance)) if chance < 1 else 0.0

        return statistic

    def kept(self, attack: str, strength: int, group: str, layers: list[str] | None = None) -> Statistic:
        """The share of a group's neurons that are top neurons of the attacked images: `original`, `target`; for `new` the
        share of the top neurons that are in neither. Over the deep layers unless named; NaN where the group is empty."""

        def statistic(i: np.ndarray, s: np.ndarray) -> float:
            inside, whole = 0.0, 0.0
            for layer in layers or self.layers[-LAST:]:
                own, other = (t[:, 0] for t in self.tops(i, s, layer))
                now = top(self.medians(attack, i, s)[layer][:, strength], self.k[layer])
                part = {"original": own & ~other, "target": other & ~own, "both": own & other}.get(group)
                inside += (now & ~own & ~other).sum() if part is None else (now & part).sum()
                whole += now.sum() if part is None else part.sum()
            return float(inside / whole) if whole else float("nan")

        return statistic

    def moved(self, attack: str, strength: int, group: str) -> Statistic:
        """Mean change of the medians of a group of the last layer (attacked - clean), as multiples of the layer's mean."""

        def statistic(i: np.ndarray, s: np.ndarray) -> float:
            layer = self.layers[-1]
            own, other = (t[:, 0] for t in self.tops(i, s, layer))
            clean = self.medians("source", i, s)[layer][:, 0]
            change = (self.medians(attack, i, s)[layer][:, strength] - clean) / np.abs(clean).mean(-1, keepdims=True)
            part = own & ~other if group == "original" else other & ~own
            return float(change[part].mean()) if part.any() else float("nan")

        return statistic

    def correlation(self, attack: str, strength: int, layers: list[str]) -> Statistic:
        """Spearman's correlation of attacked and clean medians over a layer's channels, mean of the layers."""

        def statistic(i: np.ndarray, s: np.ndarray) -> float:
            after, before = self.medians(attack, i, s), self.medians("source", i, s)
            pairs = [(torch.from_numpy(after[n][:, strength]), torch.from_numpy(before[n][:, 0])) for n in layers]
            return float(torch.stack([metrics.spearman(a, b).mean() for a, b in pairs]).mean())

        return statistic

    def new_among_successes(self, attack: str, strength: int) -> Statistic:
        """As `kept(…, "new")` of all layers, over the images on which this strength succeeds; NaN where none is."""
        return self._new_among(attack, strength, lambda i, won: [i[won]])

    def new_among_as_many(self, attack: str, strength: int) -> Statistic:
        """The same over as many images, drawn from all of them: a median of few images varies more, whichever they are."""
        rng = np.random.default_rng(0)
        return self._new_among(
            attack, strength, lambda i, won: [rng.choice(i, int(won.sum()), replace=False) for _ in range(5) if won.any()]
        )

    def _new_among(self, attack: str, strength: int, choose: Callable[[np.ndarray, np.ndarray], list[np.ndarray]]) -> Statistic:
        succeeded = self.scored.success(self.arch, self.pair, attack)[:, strength]

        def statistic(i: np.ndarray, s: np.ndarray) -> float:
            found = []
            for seed in s:
                for chosen in (c for c in choose(i, succeeded[seed, i]) if len(c)):
                    inside, whole = 0, 0
                    for layer in self.layers:
                        own, other = (t[0, 0] for t in self.tops(i, np.array([seed]), layer))
                        medians = np.median(self._sorted(attack, layer)[seed, strength][:, chosen], axis=-1)
                        now = top(medians, self.k[layer])
                        inside, whole = inside + (now & ~own & ~other).sum(), whole + now.sum()
                    found.append(inside / whole)
            return float(np.mean(found)) if found else float("nan")

        return statistic

    def first_success(self, attack: str) -> int | None:
        """The weakest strength (by number) that succeeds on FEW images for every seed; None where none does."""
        ever = (self.scored.success(self.arch, self.pair, attack).sum(-1) >= FEW).all(0)
        return int(ever.argmax()) if ever.any() else None

    def interval(self, statistic: Statistic, draws: int = DRAWS) -> Interval:
        images = self.scored.images(self.pair)
        seeds = len(self.scored.success(self.arch, self.pair, "source"))
        return claims.interval(statistic, images=images, seeds=seeds, draws=draws)


def mean(parts: list[Statistic]) -> Statistic:
    return lambda i, s: float(np.mean([part(i, s) for part in parts]))


def told(pairs: tuple[str, ...]) -> str:
    """Pairs of classes in words."""
    return "; ".join(pair.replace(">", " and ") for pair in pairs)


def thirds(layers: list[str]) -> tuple[list[str], list[str]]:
    """The first and the last third of the layers, one each at least."""
    n = max(1, len(layers) // 3)
    return layers[:n], layers[-n:]


def judge(all_pathways: dict[tuple[str, str], Pathways], p: Parameters, *, test: bool) -> list[Claim]:
    """Every claim, for every network and pair."""
    found: list[Claim] = []
    strongest = p.strengths[-1]
    grow = f"{strongest:g} minus {p.strengths[0]:g}"
    over_noise = f"PGD minus a random direction at L2 {strongest:g}"

    def add(
        path: Pathways, id: str, kind: Kind, statement: str, compute: Statistic, rule: Rule, statistic: str, source: str,
        note: str = "", unknown: str = EMPTY,
    ) -> None:  # fmt: skip
        book = Book("06", path.scored.images(path.pair), p.seeds, p.variant, test, found, DRAWS)
        book.add(
            f"{id}/{path.arch}/{path.pair}", kind, f"{statement} ({path.arch}, {path.pair.replace('>', ' → ')}).", compute,
            rule, statistic=statistic, source=source, note=note, unknown=unknown,
        )  # fmt: skip

    for (arch, pair), path in all_pathways.items():
        first, last = thirds(path.layers)
        deep = f"the last {LAST} layers" if len(path.layers) >= LAST else "the only layer"
        above = Rule("above", 0.0)
        reach = "share of images that reach the target class"
        add(
            path, "success", "claim", "A stronger targeted attack succeeds more often",
            minus(path.success("pgd", -1), path.success("pgd", 0)), above, f"{reach}, PGD at L2 {grow}", SPEC,
        )  # fmt: skip
        add(
            path, "success-over-noise", "control", "It succeeds more often than a random direction of the same size",
            minus(path.success("pgd", -1), path.success("noise", -1)), above, f"{reach}, {over_noise}", OURS,
        )  # fmt: skip
        if len(path.layers) > 1:
            add(
                path, "shared-falls", "claim", "Two classes share fewer top neurons in late layers than in early ones",
                minus(mean([path.shared(n) for n in first]), mean([path.shared(n) for n in last])), above,
                "|O ∩ T| / K, the first third of the layers minus the last", SPEC,
            )  # fmt: skip
            add(
                path, "shared-falls-over-chance", "control",
                "The same beyond what two random sets of top neurons share, which is more in narrow layers",
                minus(mean([path.shared(n, True) for n in first]), mean([path.shared(n, True) for n in last])), above,
                "(|O ∩ T| / K - K / C) / (1 - K / C), the first third of the layers minus the last", OURS,
            )  # fmt: skip
            add(
                path, "early-change-less", "claim", "Early layers change less under attack than late ones",
                minus(path.correlation("pgd", -1, first), path.correlation("pgd", -1, last)), above,
                "Spearman correlation of attacked and clean medians over channels, the first third of the layers minus the "
                f"last, PGD at L2 {strongest:g}", SPEC,
            )  # fmt: skip
        for group, (whose, name, joins, made, rule) in GROUPS.items():
            add(
                path, f"{group}-{joins}", "claim", f"As the attack grows, neurons of the {whose} class {joins} the top neurons",
                minus(path.kept("pgd", -1, group), path.kept("pgd", 0, group)), rule,
                f"share of {name} among the top neurons of {deep}, the same images, PGD at L2 {grow}", SPEC,
            )  # fmt: skip
            measure = f"change of the medians of {name} in the last layer, in units of the layer's mean"
            add(
                path, f"{whose}-{made}", "claim", f"The {whose} class's own neurons of the last layer are {made} by the attack",
                path.moved("pgd", -1, group), rule, f"{measure}, PGD at L2 {strongest:g}", SPEC,
            )  # fmt: skip
            add(
                path, f"{whose}-{made}-over-noise", "control",
                f"The {whose} class's own neurons are {made} more than by a random direction of the same size",
                minus(path.moved("pgd", -1, group), path.moved("noise", -1, group)), rule, f"{measure}, {over_noise}", OURS,
            )  # fmt: skip
        weakest = path.first_success("pgd")
        if weakest is not None:
            at = f"PGD at L2 {p.strengths[weakest]:g}"
            new = "share of the top neurons that are in neither O nor T, all layers"
            few = int(path.scored.success(arch, pair, "pgd")[:, weakest].sum())
            own = path.new_among_successes("pgd", weakest)
            add(
                path, "selection", "control",
                "Looking at successes alone, as the original does, shows more neurons that neither class uses than as many "
                "images drawn from all of them do",
                minus(own, path.new_among_as_many("pgd", weakest)), above,
                f"{new}: successes minus as many images at random, {at}, the weakest with {FEW} successes for each seed", OURS,
                note=f"{few} successes of all seeds.", unknown=NEVER,
            )  # fmt: skip
            add(
                path, "selection-falls", "open question",
                "Among successes, neurons that neither class uses are most at the weakest attack, as in the released data",
                minus(own, path.new_among_successes("pgd", -1)), above,
                f"{new}, successes alone: {at} minus {strongest:g}", "released data of Das et al. 2020", unknown=NEVER,
            )  # fmt: skip
    for arch in dict.fromkeys(a for a, _ in all_pathways):
        alike, other = ([all_pathways[arch, pair] for pair in pairs] for pairs in (p.similar, p.dissimilar))

        def shared(paths: list[Pathways]) -> Statistic:
            return mean([path.shared(n) for path in paths for n in path.layers])

        images = min(path.scored.images(path.pair) for path in (*alike, *other))
        Book("06", images, p.seeds, p.variant, test, found, DRAWS).add(
            f"similar-share-more/{arch}", "claim",
            f"{told(p.similar)} share more top neurons than {told(p.dissimilar)} ({arch}).",
            minus(shared(alike), shared(other)), Rule("above", 0.0), source=SPEC,
            statistic="|O ∩ T| / K, mean of the layers: pairs that look alike minus pairs that do not",
            note="The interval is over images and seeds, not over pairs of classes.",
        )  # fmt: skip
    return found


def by_strength(path: Pathways, make: Callable[[int], Statistic], draws: int = 100) -> list[Interval]:
    """A statistic's interval at each strength."""
    return [path.interval(make(j), draws) for j in range(len(path.p.strengths))]
