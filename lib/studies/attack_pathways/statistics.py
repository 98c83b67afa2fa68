"""Study 6: what happens to the pathways under attack, as statistics with intervals.

Statistics are functions of the images and of the seeds that they are computed on (`lib.claims`). A source image and the
target image of the same number are resampled together; a median is taken of the images that were drawn.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from lib.claims import intervals, measures
from lib.claims.intervals import Among, Interval, Statistic
from lib.measures import comparison
from lib.pathways import neurons
from lib.pathways.graph import top_count
from lib.studies.attack_pathways.plan import AMONG, GRAPH, TOGETHER, UNDONE, Parameters


class Scored:
    """The measurement as arrays: scores (seeds, strengths, images, channels), which images reach the target class (seeds,
    strengths, images); where they were measured, the influence among either class's own neurons, summed over the layers, and
    which attacks fail while neurons are clamped."""

    def __init__(self, table: pd.DataFrame, p: Parameters) -> None:
        self.p = p
        self.layers: dict[str, list[str]] = {a: list(dict.fromkeys(t.layer)) for a, t in table.groupby("arch", sort=False)}
        self._arrays: dict[tuple[str, str, str, str], np.ndarray] = {}
        self._reached: dict[tuple[str, str, str], np.ndarray] = {}
        self._among: dict[tuple[str, str, str, str], list[np.ndarray]] = {}
        self._undone: dict[tuple[str, str, str, str | None], np.ndarray] = {}
        order = ["seed", "strength", "image_id"]
        for (arch, pair, attack, layer), part in table.groupby(["arch", "pair", "attack", "layer"], sort=False):
            part = part.sort_values(order)
            shape = (part.seed.nunique(), part.strength.nunique(), -1)
            values = np.stack(part.scores.to_list()).astype(np.float32)
            self._arrays[arch, pair, attack, layer] = values.reshape(*shape, values.shape[1])
            self._reached[arch, pair, attack] = part.success.to_numpy().reshape(shape)
            for group, column in AMONG.items():
                if column in part and part[column].notna().any():
                    found = self._among.setdefault((arch, pair, attack, group), [])
                    found.append(part[column].to_numpy(np.float64).reshape(shape))
            if attack == "pgd":
                for which in (w for w, column in TOGETHER.items() if column in part):
                    for at, column in ((layer, UNDONE[which]), (None, TOGETHER[which])):
                        self._undone[arch, pair, which, at] = part[column].to_numpy(np.float64).reshape(shape)

    def scores(self, arch: str, pair: str, attack: str, layer: str) -> np.ndarray:
        """(seeds, strengths, images, channels)."""
        return self._arrays[arch, pair, attack, layer]

    def reached(self, arch: str, pair: str, attack: str) -> np.ndarray:
        """(seeds, strengths, images), bool: which images are taken for the target class, of as many as `images` says."""
        return self._reached[arch, pair, attack][..., : self.images(arch, pair)]

    def untaken(self, arch: str, pair: str) -> np.ndarray:
        """(seeds, 1, images), bool: which images of the source class are not taken for the target before any attack."""
        return ~self.reached(arch, pair, "source")

    def success(self, arch: str, pair: str, attack: str) -> np.ndarray:
        """(seeds, strengths, images), bool: which images of the source class an attack has made into the target class."""
        return self.reached(arch, pair, attack) & self.untaken(arch, pair)

    def among(self, arch: str, pair: str, attack: str, group: str) -> np.ndarray | None:
        """(seeds, strengths, images): the influence among a group's neurons, NaN where it has none; None if not measured."""
        found = self._among.get((arch, pair, attack, group))
        if not found:
            return None
        layers = np.stack(found)[..., : self.images(arch, pair)]
        return np.where(np.isfinite(layers).any(0), np.nan_to_num(layers).sum(0), np.nan)

    def undone(self, arch: str, pair: str, which: str, layer: str | None) -> np.ndarray | None:
        """(seeds, strengths, images): whether PGD fails while neurons of a layer, or of all (None), are clamped; NaN where it
        had not succeeded or exploits none; None if not measured."""
        found = self._undone.get((arch, pair, which, layer))
        return None if found is None else found[..., : self.images(arch, pair)]

    def images(self, arch: str, pair: str) -> int:
        """How many of the source class, or of the target class where those are fewer: what statistics are computed on."""
        return min(self._reached[arch, pair, c].shape[2] for c in ("source", "target"))


DRAWS = 200
LAST = 2  # layers that count as deep
AS_MANY = 5  # draws of as many images as an attack succeeds on
FEW = 3  # successes that a median is taken of, at least
Medians = dict[str, np.ndarray]


def median(values: np.ndarray) -> np.ndarray:
    """`np.median` of the last dimension, to the last bit, in a quarter of its time."""
    found, count = np.sort(values, axis=-1), values.shape[-1]
    middle = found[..., (count - 1) // 2 : count // 2 + 1].mean(-1)
    return np.where(np.isnan(found[..., -1]), found[..., -1], middle)  # NaN is sorted to the end


def top(medians: np.ndarray, k: int) -> np.ndarray:
    """Which are among the k highest of the last dimension, as `pathways.top` chooses them."""
    found = np.zeros(medians.shape, dtype=bool)
    np.put_along_axis(found, neurons.top(torch.from_numpy(medians), k).numpy(), True, axis=-1)
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

    @property
    def images(self) -> int:
        """How many images of the source class statistics are computed on."""
        return self.scored.images(self.arch, self.pair)

    def medians(self, attack: str, i: np.ndarray, s: np.ndarray) -> Medians:
        """By layer (seeds, strengths, channels); `source` and `target` have one strength, 0."""
        key = (attack, i.tobytes(), s.tobytes())
        if key not in self._found:
            self._found[key] = {n: median(self._sorted(attack, n)[s][..., i]) for n in self.layers}
        return self._found[key]

    def tops(self, i: np.ndarray, s: np.ndarray, layer: str) -> tuple[np.ndarray, np.ndarray]:
        """O and T of a layer, (seeds, 1, channels)."""
        source, target = (self.medians(c, i, s)[layer] for c in ("source", "target"))
        return top(source, self.k[layer]), top(target, self.k[layer])

    def success(self, attack: str, strength: int) -> Statistic:
        """The share of images on which the attack of a strength (by number) reaches its class, of those that the network does
        not take for that class as they are; NaN where it takes all so."""
        won, could = (
            self.scored.success(self.arch, self.pair, attack)[:, strength],
            self.scored.untaken(self.arch, self.pair)[:, 0],
        )

        def statistic(i: np.ndarray, s: np.ndarray) -> float:
            count = could[s][:, i].sum()
            return float(won[s][:, i].sum() / count) if count else float("nan")

        return Among(statistic, could)

    def apart(self) -> float:
        """How well the network of the worst seed tells clean images of the two classes apart: the share of the target's that
        it takes for the target, less that of the source's."""
        target, source = (self.scored.reached(self.arch, self.pair, c)[:, 0].mean(-1) for c in ("target", "source"))
        return float((target - source).min())

    def influence(self, attack: str, strength: int, group: str) -> Statistic | None:
        """By how much the influence among a group's neurons grows, as a share of what it is on clean images, all layers
        together; NaN where the group is empty, None where it was not measured."""
        clean, attacked = (self.scored.among(self.arch, self.pair, a, group) for a in ("source", attack))
        if clean is None or attacked is None:
            return None
        before, after = clean[:, 0], attacked[:, strength]
        known = np.isfinite(before) & np.isfinite(after)

        def statistic(i: np.ndarray, s: np.ndarray) -> float:
            there = known[s][:, i]
            whole = before[s][:, i][there].sum()
            return float(after[s][:, i][there].sum() / whole - 1) if whole > 0 else float("nan")

        return statistic

    def undone(self, which: str, layer: str | None = None, strength: int = -1) -> Statistic | None:
        """The share of the successes of PGD of a strength (by number) that fail while the neurons (CLAMPED) of a layer, or of
        all layers at once, hold their clean values; NaN where there is none, or nothing to clamp, and None where it was not
        measured."""
        failed = self.scored.undone(self.arch, self.pair, which, layer)
        if failed is None:
            return None

        def statistic(i: np.ndarray, s: np.ndarray) -> float:
            values = failed[s, strength][:, i]
            known = np.isfinite(values)
            return float(values[known].mean()) if known.any() else float("nan")

        return Among(statistic, np.isfinite(failed[:, strength]))

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
            return float(torch.stack([comparison.spearman(a, b).mean() for a, b in pairs]).mean())

        return statistic

    def new_among_successes(self, attack: str, strength: int) -> Statistic:
        """As `kept(…, "new")` of all layers, over the images on which this strength succeeds; NaN where none is."""
        return self._new_among(attack, strength, lambda i, won: [i[won]])

    def new_among_as_many(self, attack: str, strength: int) -> Statistic:
        """The same over as many images, drawn from all of them: a median of few images varies more, whichever they are."""

        def drawn(i: np.ndarray, won: np.ndarray) -> list[np.ndarray]:
            rng = np.random.default_rng(0)  # its own each time: the same images give the same number
            return [rng.choice(i, int(won.sum()), replace=False) for _ in range(AS_MANY) if won.any()]

        return self._new_among(attack, strength, drawn)

    def _new_among(self, attack: str, strength: int, choose: Callable[[np.ndarray, np.ndarray], list[np.ndarray]]) -> Statistic:
        succeeded = self.scored.success(self.arch, self.pair, attack)[:, strength]

        def statistic(i: np.ndarray, s: np.ndarray) -> float:
            found = []
            for seed in s:
                for chosen in (c for c in choose(i, succeeded[seed, i]) if len(c)):
                    inside, whole = 0, 0
                    for layer in self.layers:
                        own, other = (t[0, 0] for t in self.tops(i, np.array([seed]), layer))
                        medians = median(self._sorted(attack, layer)[seed, strength][:, chosen])
                        now = top(medians, self.k[layer])
                        inside, whole = inside + (now & ~own & ~other).sum(), whole + now.sum()
                    found.append(inside / whole)
            return float(np.mean(found)) if found else float("nan")

        return statistic

    def first_success(self, attack: str) -> int | None:
        """The weakest strength (by number) that succeeds on FEW images for every seed; None where none does."""
        ever = (self.scored.success(self.arch, self.pair, attack).sum(-1) >= FEW).all(0)
        return int(ever.argmax()) if ever.any() else None

    def interval(self, statistic: Statistic, of: str = "share", draws: int = DRAWS) -> Interval:
        """A statistic with its interval, within the range of what it is `of` (`lib.claims.measures`); over those training runs
        alone that have it, where others have none (no neuron in a group, nothing to clamp)."""
        seeds, every = len(self.scored.reached(self.arch, self.pair, "source")), np.arange(self.images)
        known = np.array([s for s in range(seeds) if np.isfinite(statistic(every, np.array([s])))])
        if not 0 < len(known) < seeds:
            return intervals.interval(statistic, measures.measure(of), images=self.images, seeds=seeds, draws=draws)

        def of_known(i: np.ndarray, s: np.ndarray) -> float:
            return statistic(i, known[s])

        own = Among(of_known, statistic.eligible[known]) if isinstance(statistic, Among) else of_known
        found = intervals.interval(own, measures.measure(of), images=self.images, seeds=len(known), draws=draws)
        unknown = f" ({intervals.UNKNOWN})" if len(known) == 1 else ""
        return dataclasses.replace(found, n=f"{found.n.partition(',')[0]}, {len(known)} of {seeds} seeds{unknown}")


def mean(parts: list[Statistic]) -> Statistic:
    return lambda i, s: float(np.mean([part(i, s) for part in parts]))


def thirds(layers: list[str]) -> tuple[list[str], list[str]]:
    """The first and the last third of the layers, one each at least."""
    n = max(1, len(layers) // 3)
    return layers[:n], layers[-n:]


def by_strength(path: Pathways, make: Callable[[int], Statistic], of: str = "share", draws: int = 100) -> list[Interval]:
    """A statistic's interval at each strength."""
    return [path.interval(make(j), of, draws) for j in range(len(path.p.strengths))]


class _Held:
    """A table as a key of `functools`: the same object is the same key, since a table has no hash."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and self.table is other.table

    def __hash__(self) -> int:
        return id(self.table)


@functools.lru_cache(maxsize=1)
def _measured(held: _Held, p: Parameters) -> dict[tuple[str, str], Pathways]:
    scored = Scored(held.table[held.table.attack != GRAPH], p)
    return {(arch, pair): Pathways(scored, arch, pair) for arch, pair in itertools.product(p.architectures, p.pairs)}


def measured(table: pd.DataFrame, p: Parameters) -> dict[tuple[str, str], Pathways]:
    """The pathways of every network and pair. Those of the last table are kept, with the medians that were taken of them:
    a notebook's pictures and its claims share them."""
    return _measured(_Held(table), p)
