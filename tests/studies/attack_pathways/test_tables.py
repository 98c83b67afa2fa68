"""Study 6's tables: what stands in which row, from measurements made by hand."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest

from lib.pathways.graph import Graph, Layer
from lib.pathways.neurons import Groups
from lib.runs import profiles
from lib.studies.attack_pathways import plan, statistics, tables

IMAGES, STRENGTHS = 8, (0.5, 1.0, 2.0)
P = profiles.parameters("06-attack-pathways", "smoke").model_copy(
    update={"architectures": ("plain",), "seeds": 2, "images": IMAGES, "strengths": STRENGTHS}
)
SIMILAR, DISSIMILAR = P.pairs
OWN, OTHER = np.array([5.0, 5, 5, 0, 0, 0, 1, 1]), np.array([0.0, 0, 0, 5, 5, 5, 1, 1])


@pytest.fixture(scope="module")
def found():
    """Neurons 0-2 are the source's, 3-5 the target's. From the second strength on PGD succeeds on half of the images and puts
    the target's in the source's place. Layer `early` answers to both classes alike, layer `late` of the similar pair too."""
    rows = []
    for seed, pair, (attack, k, layer) in itertools.product(
        range(P.seeds),
        P.pairs,
        [("source", 0, "early"), ("source", 0, "late"), ("target", 0, "early"), ("target", 0, "late")]
        + [(a, k, n) for a in ("pgd", "fgsm", "noise") for k in range(3) for n in ("early", "late")],
    ):
        turned = attack == "target" or (attack == "pgd" and k > 0)
        alike = layer == "early" or (pair == SIMILAR and attack == "target")
        values = OWN if alike or not turned else OTHER
        about = {"arch": "plain", "seed": seed, "pair": pair, "attack": attack, "layer": layer}
        about["strength"] = 0.0 if attack in ("source", "target") else STRENGTHS[k]
        won = (np.arange(IMAGES) < IMAGES // 2) & (attack == "pgd") & (k > 0)
        rows.append(pd.DataFrame({**about, "image_id": range(IMAGES), "success": won, "scores": [values] * IMAGES}))
    return statistics.measured(pd.concat(rows, ignore_index=True), P)


def test_pairs_in_words():
    assert tables.named(P, DISSIMILAR) == DISSIMILAR.replace(">", " → ") + " (dissimilar)"
    assert tables.kind(P, SIMILAR) == "similar"


def test_success_by_attack_and_strength(found):
    rows = tables.success(found)
    assert list(rows.columns) == ["network", "pair", "attack", "what", "strength", "value", "low", "high", "n"]
    own = rows.groupby(["pair", "attack"]).value.apply(list)
    assert own[SIMILAR, "pgd"] == [0, 0.5, 0.5] and own[SIMILAR, "noise"] == [0, 0, 0] and len(rows) == 2 * 3 * 3
    assert (rows.low <= rows.value).all() and (rows.high >= rows.value).all() and set(rows.n) == {"8 images, 2 seeds"}


def test_layers(found):
    shared = tables.shared(found).set_index(["pair", "layer"]).shared
    assert shared.to_dict() == {
        (pair, n): float(n == "early" or pair == SIMILAR) for pair in P.pairs for n in ("early", "late")
    }
    depth = tables.depth(found).set_index(["pair", "attack", "layer"]).correlation
    assert depth[DISSIMILAR, "pgd", "early"] == pytest.approx(1) and depth[DISSIMILAR, "pgd", "late"] < 0.5
    assert depth[DISSIMILAR, "noise", "late"] == pytest.approx(1) and len(depth) == 2 * 2 * 2


def test_groups_and_how_they_move(found):
    rows = tables.groups(found)
    own = rows[rows.pair == DISSIMILAR].groupby("what", sort=False).value.apply(list)
    assert list(own.index) == [*tables.STAYS.values(), tables.ALONE]
    assert own[tables.STAYS["original"]] == [1, 0, 0] and own[tables.STAYS["target"]] == [0, 1, 1]
    assert np.isnan(own[tables.ALONE][0]) and own[tables.ALONE][1:] == [0, 0]
    alone = rows[rows.what == tables.ALONE]
    assert alone.n.tolist() == ["0 successes", "8 successes", "8 successes"] * 2 and alone.low.isna().all()
    moved = tables.moved(found).set_index(["pair", "what", "strength"]).value
    assert moved[DISSIMILAR, "target's own, PGD (L2)", 2.0] == pytest.approx(5 / OWN.mean())
    assert moved[DISSIMILAR, "source's own, PGD (L2)", 2.0] == pytest.approx(-5 / OWN.mean())
    assert moved[DISSIMILAR, "source's own, FGSM", 2.0] == 0


def test_edges_name_their_neurons():
    groups = (Groups((4,), (), (2,), ()), Groups((1,), (), (), ()))
    none = np.zeros(5)
    layers = tuple(Layer(f"stage{i}", g, none, none, {}, {}) for i, g in enumerate(groups))
    influence = np.arange(6.0).reshape(3, 2, 1)
    fields = {f.name: () for f in dataclasses.fields(Graph)} | {"layers": layers, "edges": {"pgd": [influence]}}
    rows = tables.edges({"one": Graph(**fields)}, "pgd", 1)
    both = tables.edges(dict.fromkeys(("one", "two"), Graph(**fields)), "pgd", 1)
    assert both.graph.to_list() == ["one"] * 2 + ["two"] * 2
    assert rows.to_dict("list") == {
        "layer": ["stage0"] * 2,
        "channel": [4, 2],
        "next layer": ["stage1"] * 2,
        "next channel": [1, 1],
        "clean": [0, 1],
        "attacked": [4, 5],
    }


def test_released_numbers_stand_above_ours(found):
    rows = tables.beside_released(found)
    assert list(rows.source[[0, len(rows) - 1]]) == ["released", "ours, plain"]
    panda = rows[(rows.pair == "panda > armadillo") & (rows.attack == "pgd")].iloc[0]
    assert panda["top neurons in common"] == pytest.approx(27 / 90)
    assert [panda[f"of neither, {w}"] for w in tables.STRENGTHS] == pytest.approx([46 / 90, 21 / 90, 15 / 90])
    ours = rows[(rows.source == "ours, plain") & (rows.kind == "dissimilar")]
    assert ours.attack.tolist() == ["pgd"]  # FGSM never succeeds: nothing to tell
    assert ours["top neurons in common"].iloc[0] == 0.5 and np.isnan(ours["of neither, weakest"].iloc[0])


def test_clamped_neurons_by_layer_and_all_at_once(found):
    """Here the early layer exploits none; of the four successes of a pair one in two fails while the late one is clamped."""
    assert tables.clamped(found).empty and tables.held(found).empty  # not measured
    table = pd.DataFrame(
        {
            "arch": "plain",
            "seed": seed,
            "pair": pair,
            "attack": attack,
            "layer": layer,
            "strength": strength,
            "image_id": range(4),
            "success": attack == "pgd",
            "scores": [OWN] * 4,
        }
        | dict.fromkeys(plan.TOGETHER.values(), [1.0, 1.0, 1.0, np.nan] if attack == "pgd" else np.nan)
        | dict.fromkeys(plan.UNDONE.values(), [1.0, 0.0, 0.5, np.nan] if attack == "pgd" and layer == "late" else np.nan)
        for seed, pair, (attack, strength), layer in itertools.product(
            range(P.seeds), P.pairs, (("source", 0.0), ("target", 0.0), ("pgd", 2.0)), ("early", "late")
        )
    )
    table = pd.concat([pd.DataFrame(one) for one in table.to_dict("records")], ignore_index=True)
    one = P.model_copy(update={"strengths": (2.0,)})
    over = tables.held(statistics.measured(table, one))
    assert over.what.tolist() == list(tables.HELD.values()) * len(P.pairs) and (over.strength == 2.0).all()
    assert (over.value == 1.0).all()
    rows = tables.clamped(statistics.measured(table, P))
    assert list(rows.columns) == ["network", "pair", "what", "layer", "value", "low", "high", "n"]
    assert rows.layer.tolist() == ["early", "late", tables.AT_ONCE] * 3 * len(P.pairs)
    for _, part in rows.groupby(["pair", "what"]):
        assert np.isnan(part.value.iloc[0]) and part.value.iloc[1:].tolist() == [0.5, 1.0]
    assert set(rows.what) == set(tables.HELD.values())
    assert set(rows.n) == {"0 of 4 images, 2 seeds", "3 of 4 images, 2 seeds"}  # of the successes that there are
