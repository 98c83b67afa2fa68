"""Study 6: parameters, attacks, measurement, statistics, claims, the graph and its page, the explorer."""

import dataclasses
import functools

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch

from lib.claims import intervals, measures
from lib.data import datasets, imagenet_groups
from lib.networks import models
from lib.pathways import graph as graph_
from lib.pathways import influences, interventions, layout, still_picture
from lib.pathways import neurons as neurons_
from lib.pathways.neurons import Groups
from lib.runs import profiles
from lib.studies.attack_pathways import claims, measure, plan, statistics, tables, traced
from lib.studies.attack_pathways.plan import NAMES, Parameters
from lib.system import paths as paths_
from tests.claims import sentences

SMOKE = profiles.parameters("06-attack-pathways", "smoke")
SIMILAR = "square/grass>cross/lawn"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(tmp_path_factory.mktemp("home")))
        plan.evaluation_set.cache_clear()
        yield


@pytest.fixture(scope="module")
def table(home):
    return pd.concat([measure.measure(SMOKE, "plain", s) for s in range(SMOKE.seeds)])


@pytest.fixture(scope="module")
def graph(home):
    return traced.of_pair(SMOKE, "plain", SIMILAR)


# -- parameters, layers, attacks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"similar": ("a>a",)}, "two different classes"),
        ({"dissimilar": ("a",)}, "as SOURCE>TARGET"),
        ({"strengths": (1.0, 0.5)}, "ascending order"),
        ({"layers": ("stage1",)}, "those of one network"),
        ({"share": 1.5}, "less than or equal to 1"),
        ({"grouped": True}, "groups are of ImageNet's classes; use epochs: 0"),
        ({"epochs": 0}, "a published network .* is one network; use seeds: 1"),
        ({"epochs": 0, "seeds": 1}, "epochs = 0 takes networks as published; set weights to imagenet"),
    ],
)
def test_bad_parameters(given, message):
    with pytest.raises(ValueError, match=message):
        Parameters(**given)


GROUPED = Parameters(
    architectures=("efficientnet-lite0",),
    epochs=0,
    seeds=1,
    weights="imagenet",
    dataset="photographs",
    size=64,
    grouped=True,
    similar=("dogs>birds",),
    dissimilar=("birds>vehicles",),
    images=8,
)


def test_a_network_of_groups_has_the_probabilities_of_their_classes():
    data = datasets.load("photographs", "test", size=64, limit=3)
    whole = models.create("efficientnet-lite0", classes=1000, weights="imagenet").eval()
    found = plan.in_groups(whole, data.images)
    with torch.no_grad():
        each, sums = whole(data.images).softmax(1), found(data.images).softmax(1)
    for name, classes, own in zip(imagenet_groups.NAMES, imagenet_groups.members(), sums.T, strict=True):
        torch.testing.assert_close(own, each[:, list(classes)].sum(1), rtol=1e-3, atol=1e-5, msg=name)
    layers = ("blocks.1", "blocks.6")
    a, b = (neurons_.scores(m, data.images, layers).of for m in (whole, found))
    for layer in layers:  # the neurons are those of the network as it was published
        torch.testing.assert_close(a[layer], b[layer], rtol=1e-3, atol=1e-3)
    assert plan.layers_of(found, layers) == layers and found.classes == len(imagenet_groups.NAMES)


def test_a_group_is_seen_in_the_photographs_that_the_network_takes_for_it():
    plan.evaluation_set.cache_clear()
    data = plan.evaluation_set(GROUPED)
    birds = imagenet_groups.NAMES.index("birds")
    every = plan.of_class(data, birds, 100)

    class Bright(torch.nn.Module):
        def forward(self, x):  # takes the brighter half of the birds for birds, all else for dogs
            bright = x.mean((1, 2, 3)) >= every.mean((1, 2, 3)).median()
            return torch.nn.functional.one_hot(torch.where(bright, birds, 0), len(imagenet_groups.NAMES)).float()

    kept = every.mean((1, 2, 3)) >= every.mean((1, 2, 3)).median()
    net = torch.nn.Sequential(Bright(), torch.nn.Identity())
    net.register_parameter("where", torch.nn.Parameter(torch.zeros(1)))
    torch.testing.assert_close(plan.shown(GROUPED, net, data, birds), every[kept])
    assert 0 < kept.sum() < len(every) and len(plan.shown(GROUPED.model_copy(update={"images": 1}), net, data, birds)) == 1
    with pytest.raises(ValueError, match="takes no photograph of 'vehicles' for it"):
        plan.shown(GROUPED, net, dataclasses.replace(data, images=data.images * 0), imagenet_groups.NAMES.index("vehicles"))
    assert plan.jobs(GROUPED)[1:] == [
        ("efficientnet-lite0", 0, 0, "scores"),
        ("efficientnet-lite0", 0, 1, "scores"),
        ("efficientnet-lite0", 0, 0),
        ("efficientnet-lite0", 0, 1),
    ]


def test_the_scores_of_one_pair_are_those_among_all_pairs(table):
    whole = table[(table.seed == 0) & (table.pair == SMOKE.pairs[1])].reset_index(drop=True)
    own = measure.measure(SMOKE, "plain", 0, 1, plan.SCORES)
    pd.testing.assert_frame_equal(own.drop(columns="scores"), whole.drop(columns="scores"), check_like=True)
    np.testing.assert_array_equal(np.stack(own.scores.tolist()[:9]), np.stack(whole.scores.tolist()[:9]))


def test_what_is_said_of_a_published_network_is_said_of_it_over_images():
    table, p = synthetic(seeds=1)
    trained = {c.id: c.verdict for c in claims.judge(table, p, test=True)}
    published = {c.id: c.verdict for c in claims.judge(table, p.model_copy(update={"epochs": 0}), test=True)}
    assert "one network" in trained.values() and "one network" not in published.values()
    assert published[f"success/plain/{p.pairs[0]}"] == "supported"
    rows = claims.judge(table, p.model_copy(update={"epochs": 0}), test=True)
    assert {c.n for c in rows} == {"40 images, one network as it was published"}


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("plain", ("stage1", "stage2.1", "stage2.2", "stage3.1", "stage3.2", "stage3.3")),
        ("residual", ("stage1", "stage2.0", "stage2.1", "stage3.0", "stage3.1")),
        ("resnet10-thin", ("stage1.0", "stage2.0", "stage3.0", "stage4.0")),
        ("small", ("conv1", "conv2", "conv3")),
        ("resnet18", tuple(f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1))),
        ("googlenet", ("conv3", "inception3b", "inception4e", "inception5b")),
    ],
)
def test_the_rows_are_blocks_of_the_network(arch, expected):
    assert plan.layers_of(models.create(arch, classes=3)) == expected


def test_layers_by_name():
    net = models.create("googlenet", classes=3)
    named = tuple(f"inception{n}" for n in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"))
    assert plan.layers_of(net, named) == named
    with pytest.raises(ValueError, match="did you mean"):
        plan.layers_of(net, ("inception9z",))


def test_classes_that_are_none(home):
    data = plan.evaluation_set(SMOKE)
    with pytest.raises(ValueError, match="'zebra' is none of the classes"):
        plan.pair_of("zebra>cross/lawn", data.classes)
    empty = dataclasses.replace(data, labels=torch.zeros_like(data.labels))
    with pytest.raises(ValueError, match="shows no image of class 'square/grass'"):
        plan.of_class(empty, 1, 5)


@pytest.mark.parametrize("attack", plan.ATTACKS)
def test_attacks_have_the_length_of_their_strength(attack):
    net = models.create("plain", classes=4)
    x = 0.3 + 0.4 * torch.rand(4, 3, 16, 16)
    moved = plan.attacked(net, x, torch.full((4,), 2), 0.5, name=attack, steps=4)
    length = (moved - x).flatten(1).norm(dim=1)
    assert length.max() <= 0.5 + 1e-4
    if attack != "pgd":  # far from the borders of [0, 1] nothing is cut
        assert length.min() > 0.5 - 1e-3


def test_targeted_attacks_raise_the_target_and_noise_is_drawn_once(monkeypatch):
    net = models.create("plain", classes=4).eval()
    x, y = torch.rand(4, 3, 16, 16), torch.full((4,), 2)

    def score(images):
        with torch.no_grad():
            return net(images).log_softmax(1)[:, 2]

    for attack in ("pgd", "fgsm"):
        assert (score(plan.attacked(net, x, y, 1.0, name=attack, steps=20)) > score(x)).all()
    a, b = (plan.attacked(net, x, y, s, name="noise", steps=20) - x for s in (0.01, 0.02))
    inside = (x > 0.05) & (x < 0.95)
    assert torch.allclose((2 * a)[inside], b[inside], atol=1e-5)
    monkeypatch.setattr(plan.neurons, "rows_of", lambda x: 2)  # what passes together: no direction is drawn twice
    c = plan.attacked(net, x, y, 0.02, name="noise", steps=20) - x
    assert torch.nn.functional.cosine_similarity(c[:2].flatten(1), c[2:].flatten(1)).abs().max() < 0.2
    with pytest.raises(ValueError, match=r"unknown attack 'cw-l2'; .*There are none, noise, fgsm, pgd"):
        plan.attacked(net, x, y, 1.0, name="cw", steps=20)


# -- measurement and claims --------------------------------------------------------------------------------------------


def test_the_same_images_at_every_strength(table):
    counts = table.groupby(["seed", "pair", "attack", "strength", "layer"]).image_id.agg(["size", "nunique"])
    assert (counts["size"] == SMOKE.images).all() and (counts["nunique"] == SMOKE.images).all()
    assert set(table.strength) == {0.0, *SMOKE.strengths} and set(table.attack) == {"source", "target", *NAMES}


def test_scores_are_those_of_the_attacked_images(table):
    data = plan.evaluation_set(SMOKE)
    model = plan.network(SMOKE, "plain", 1).model
    pair = plan.pair_of(SIMILAR, data.classes)
    x = plan.of_class(data, pair.source, SMOKE.images)
    moved = plan.attacked(model, x, torch.full((len(x),), pair.target), 1.5, name="pgd", steps=SMOKE.steps)
    expected = neurons_.scores(model, moved, ["stage3.3"])
    part = table.query("seed == 1 and attack == 'pgd' and strength == 1.5 and layer == 'stage3.3' and pair == @SIMILAR")
    part = part.sort_values("image_id")
    np.testing.assert_allclose(
        np.stack(part.scores.to_list()), expected.of["stage3.3"], rtol=2e-2, atol=1e-3
    )  # rounding grows over the steps
    assert part.success.tolist() == (expected.logits.argmax(1) == pair.target).tolist()


def test_influence_among_own_neurons_is_that_of_each_image():
    torch.manual_seed(0)
    net, x = models.create("residual", classes=4).eval(), torch.rand(3, 3, 16, 16)
    layers = ("stage1", "stage2.0", "stage2.1")
    groups = {n: Groups((0, 3), (1,), (2,), ()) for n in layers} | {"stage2.1": Groups((), (1,), (2, 4), ())}
    found = measure.among(net, x, layers, groups)
    whole = influences.influence(net, x[1:2], layers)
    for layer, group, matrix in (
        ("stage2.0", "original", whole[0][[0, 3]][:, [0, 3]]),
        ("stage2.1", "target", whole[1][[2]][:, [2, 4]]),
    ):
        assert found[layer][group][1] == pytest.approx(matrix.clamp_min(0).mean().item(), rel=1e-5)
    assert (
        np.isnan(found["stage1"]["target"]).all() and np.isnan(found["stage2.1"]["original"]).all()
    )  # nothing below; no group


def test_edges_are_measured_of_clean_images_and_the_strongest_attack(table):
    strongest = (table.strength == SMOKE.strengths[-1]) & table.attack.isin(["pgd", "noise"])
    asked = ((table.attack == "source") | strongest) & (table.layer != "stage1")
    for column in plan.AMONG.values():
        known = table[column].notna()
        assert (known <= asked).all() and known.any() and (table[column][known] >= 0).all()


def test_clamped_neurons_are_those_of_the_groups(table):
    """Of the images that the strongest attack has moved, alone: the columns are what the kernel says of the groups."""
    data = plan.evaluation_set(SMOKE)
    model, seed = plan.network(SMOKE, "plain", 0).model, 0
    pair = plan.pair_of(SIMILAR, data.classes)
    layers = plan.layers_of(model)
    clean, other = (plan.of_class(data, c, SMOKE.images) for c in pair)
    moved = plan.attacked(model, clean, torch.full((len(clean),), pair.target), 1.5, name="pgd", steps=SMOKE.steps)
    scores = [neurons_.scores(model, images, layers) for images in (clean, other, moved)]
    won = (scores[2].logits.argmax(1) == pair.target) & (scores[0].logits.argmax(1) != pair.target)
    found = measure.undone(model, (clean, moved), tuple(scores), pair, SMOKE, layers, alone=True)
    part = table[(table.seed == seed) & (table.attack == "pgd") & (table.strength == 1.5) & (table.pair == SIMILAR)]
    groups = {}
    for layer in layers:
        before, after, now = (neurons_.median(s.of[layer]) for s in scores)
        k = graph_.top_count(len(now), SMOKE.share, SMOKE.least, SMOKE.most)
        one = neurons_.groups(before, after, now[None], k, exploited=SMOKE.exploited).exploited[0]
        groups |= {layer: interventions.chosen(one, len(now), len(clean))} if one else {}
        for column in (*plan.UNDONE.values(), *plan.TOGETHER.values()):
            rows = part[part.layer == layer].sort_values("image_id")[column]
            np.testing.assert_array_equal(rows, found[layer][column])
    logits = interventions.clamped(model, moved, clean, [groups, *({n: m} for n, m in groups.items())])
    fails = np.where(won, (logits.argmax(2) != pair.target).float(), np.nan)
    assert won.any() and groups
    np.testing.assert_array_equal(found[layers[0]][plan.TOGETHER["exploited"]], fails[0])
    for layer, expected in zip(groups, fails[1:], strict=True):
        np.testing.assert_array_equal(found[layer][plan.UNDONE["exploited"]], expected)
    short = measure.undone(model, (clean, moved), tuple(scores), pair, SMOKE, layers, alone=False)
    np.testing.assert_array_equal(short[layers[0]][plan.TOGETHER["exploited"]], fails[0])
    assert all(np.isnan(short[n][c]).all() for n in layers for c in plan.UNDONE.values())
    for layer in set(layers) - set(groups):
        assert np.isnan(found[layer][plan.UNDONE["random"]]).all()


def test_a_planted_pathway_is_undone_by_its_own_neurons_alone(monkeypatch):
    """One channel of sixteen brings the attack to the head, and no class has it among its top neurons: its clean value undoes
    every attack; as many at random hit it seldom."""

    class Planted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.maps = torch.nn.Conv2d(2, 16, 1, bias=False)
            self.head = torch.nn.Linear(16, 2)
            with torch.no_grad():
                self.maps.weight.zero_()
                self.maps.weight[:8, 0] = torch.linspace(1, 2, 8)[:, None, None]  # of both classes
                self.maps.weight[12, 1] = 9.0  # the pathway
                self.head.weight.zero_()
                self.head.weight[1, 12], self.head.bias[1], self.head.bias[0] = 1.0, -0.5, 0.0

        def forward(self, x):
            return self.head(self.maps(x).mean((2, 3)))

    net, p = Planted(), SMOKE.model_copy(update={"least": 3, "most": 3, "exploited": 1})
    clean = torch.zeros(20, 2, 4, 4)
    clean[:, 0] = 0.5
    moved = clean.clone()
    moved[:15, 1] = 0.5  # of twenty images five are not moved
    scores = [neurons_.scores(net, images, ("maps",)) for images in (clean, clean, moved)]
    found = measure.undone(net, (clean, moved), tuple(scores), plan.Pair(0, 1), p, ("maps",), alone=True)["maps"]
    for columns in (plan.UNDONE, plan.TOGETHER):
        assert found[columns["exploited"]][:15].tolist() == found[columns["excited"]][:15].tolist() == [1.0] * 15
        assert 0 < found[columns["random"]][:15].mean() < 0.25
        assert all(np.isnan(found[c][15:]).all() for c in columns.values())
    nothing = measure.undone(net, (clean, clean), (scores[0],) * 3, plan.Pair(0, 1), p, ("maps",), alone=True)["maps"]
    assert all(np.isnan(values).all() for values in nothing.values())


def clamped_table(exploited=0.9, random=0.3, excited=0.6, images=40):
    """Which successes of the strongest attack fail while neurons are clamped; the first layer exploits none."""
    table, p = synthetic(images=images)
    rng = np.random.default_rng(0)
    there = (table.attack == "pgd") & (table.strength == p.strengths[-1])
    shares = {"exploited": exploited, "random": random, "excited": excited}
    for which, share in shares.items():
        failed = pd.Series((rng.random((len(table)))) < share, index=table.index).astype(float)
        table[plan.TOGETHER[which]] = failed.where(there)
        table[plan.UNDONE[which]] = failed.where(there & (table.layer == "b"))
    first = table[there & (table.layer == "a")].index
    for column in plan.TOGETHER.values():  # all layers repeat it
        table.loc[table[there & (table.layer == "b")].index, column] = table.loc[first, column].to_numpy()
    return table, p


def test_clamping_is_judged_where_it_was_measured():
    table, p = clamped_table()
    pair = p.dissimilar[0]
    path = statistics.measured(table, p)["plain", pair]
    i, s = np.arange(40), np.arange(3)
    values = table[(table.pair == pair) & (table.layer == "a")][plan.TOGETHER["exploited"]]
    assert path.undone("exploited")(i, s) == pytest.approx(values.mean())
    assert np.isnan(path.undone("exploited", "a")(i, s)) and path.undone("exploited", "b")(i, s) > 0.7
    rows = claims.judge(table, p, test=True)
    sentences.check(rows)
    found = {c.id: c for c in rows}
    assert found[f"exploited-carry/plain/{pair}"].verdict == "supported"
    assert found[f"exploited-carry/plain/{pair}"].value == pytest.approx(0.6, abs=0.12)
    assert found[f"exploited-carry-over-excited/plain/{pair}"].verdict == "supported"
    found = {c.id: c for c in claims.judge(*clamped_table(0.3, 0.8, 0.8), test=True)}
    for id in ("exploited-carry", "exploited-carry-over-excited"):
        assert found[f"{id}/plain/{pair}"].verdict == "contradicted"
    assert not [c for c in found.values() if "whatever is clamped" in c.note]
    still = {c.id: c for c in claims.judge(*clamped_table(0.0, 0.0, 0.0), test=True)}
    for id in ("exploited-carry", "exploited-carry-over-excited"):
        assert "next to no attack fails whatever is clamped" in still[f"{id}/plain/{pair}"].note
    plain, p = synthetic()
    assert statistics.measured(plain, p)["plain", pair].undone("random") is None
    assert not [c for c in claims.judge(plain, p, test=True) if c.id.startswith("exploited-carry")]


def synthetic(seeds: int = 3, images: int = 40) -> tuple[pd.DataFrame, Parameters]:
    """Two layers of eight neurons: neurons 0-2 are the source's, 3-5 the target's in the last layer, 0-2 both's in the
    first; the attack moves the last layer from source to target and leaves the first alone."""
    p = SMOKE.model_copy(update={"images": images, "seeds": seeds, "strengths": (0.5, 1.0, 1.5)})
    rng = np.random.default_rng(0)
    own, other = np.array([5.0, 5, 5, 0, 0, 0, 1, 1]), np.array([0.0, 0, 0, 5, 5, 5, 1, 1])
    rows = []
    for seed in range(seeds):
        for pair in p.pairs:
            shared = pair in p.similar
            for attack in ("source", "target", *NAMES):
                for k, strength in enumerate((0.0,) if attack in ("source", "target") else p.strengths):
                    share = {"source": 0.0, "target": 1.0, "noise": 0.0}.get(attack, (k + 0.4) / 2.4)
                    late = (1 - share) * own + share * other
                    last = late + (own if shared and attack == "target" else 0)
                    for layer, mean in (("a", own), ("b", last)):
                        values = mean + 0.05 * rng.standard_normal((images, 8))
                        success = (np.arange(images) < images * share) & (attack in ("pgd", "fgsm", "target"))
                        rows.append(
                            pd.DataFrame(
                                {
                                    "arch": "plain",
                                    "seed": seed,
                                    "pair": pair,
                                    "attack": attack,
                                    "strength": strength,
                                    "layer": layer,
                                    "image_id": range(images),
                                    "success": success,
                                    "scores": list(values),
                                }
                            )
                        )
    return pd.concat(rows, ignore_index=True), p


def test_statistics_by_hand():
    table, p = synthetic()
    path = statistics.measured(table, p)["plain", p.dissimilar[0]]
    i, s = np.arange(40), np.arange(3)
    assert path.k == {"a": 3, "b": 3}
    assert path.shared("a")(i, s) == 1.0 and path.shared("b")(i, s) == 0.0
    chance = 3 / 8
    assert path.shared("a", True)(i, s) == 1.0 and path.shared("b", True)(i, s) == pytest.approx(-chance / (1 - chance))
    assert path.kept("pgd", 0, "new", ["b"])(i, s) == 0.0
    assert path.success("pgd", 0)(i, s) == pytest.approx(7 / 40) and path.success("noise", -1)(i, s) == 0
    assert path.kept("pgd", 0, "original", ["b"])(i, s) == 1.0 and path.kept("pgd", -1, "original", ["b"])(i, s) == 0.0
    assert path.kept("pgd", -1, "target", ["b"])(i, s) == 1.0 and np.isnan(path.kept("pgd", 0, "target", ["a"])(i, s))
    clean = np.median(path.scored.scores("plain", path.pair, "source", "b"), axis=2)[:, 0]
    after = np.median(path.scored.scores("plain", path.pair, "pgd", "b"), axis=2)[:, -1]
    expected = ((after - clean) / np.abs(clean).mean(-1, keepdims=True))[:, 3:6].mean()
    assert path.moved("pgd", -1, "target")(i, s) == pytest.approx(expected)
    assert path.moved("pgd", -1, "original")(i, s) < -1 < 0 < path.moved("pgd", -1, "target")(i, s)
    assert path.correlation("pgd", -1, ["a"])(i, s) > 0.5 > path.correlation("pgd", -1, ["b"])(i, s)
    few = i[i < 10]  # another draw of images has other medians
    assert path.moved("pgd", -1, "target")(few, s) != pytest.approx(expected, abs=1e-9)


def test_successes_alone_are_other_images():
    """Neurons 6 and 7 answer on the first images alone, which are those that succeed."""
    table, p = synthetic()
    first = (table.attack == "pgd") & (table.image_id < 7) & (table.layer == "b")
    table.loc[first, "scores"] = table[first].scores.map(lambda v: v + np.array([0, 0, 0, 0, 0, 0, 20, 20]))
    path = statistics.measured(table, p)["plain", p.dissimilar[0]]
    i, s = np.arange(40), np.arange(3)
    assert path.new_among_successes("pgd", 0)(i, s) == pytest.approx(2 / 6)  # two of three, in one of two layers
    assert path.kept("pgd", 0, "new", ["a", "b"])(i, s) == 0
    assert np.isnan(path.new_among_successes("noise", 0)(i, s)) and np.isnan(path.new_among_as_many("noise", 0)(i, s))
    assert path.new_among_as_many("pgd", 0)(i, s) < 2 / 6  # as many images, but drawn from all
    again = path.new_among_as_many("pgd", 0)
    assert again(i, s) == again(i, s)  # however often it was asked before
    assert path.first_success("pgd") == 0 and path.first_success("noise") is None
    there = table.assign(success=table.success | ((table.attack == "source") & (table.image_id < 5)))
    path = statistics.measured(there, p)["plain", p.dissimilar[0]]
    assert path.first_success("pgd") == 1  # of the seven that the weakest attack has, two were not the target's before
    assert path.scored.success("plain", path.pair, "pgd")[:, 0].sum() == 3 * 2


def test_an_interval_is_over_the_training_runs_that_have_what_is_asked():
    table, p = synthetic()
    path = statistics.measured(table, p)["plain", p.dissimilar[0]]
    values = np.random.default_rng(0).random((3, 40))
    values[1] = np.nan  # nothing to clamp in one run
    found = path.interval(intervals.over(values))
    alone = intervals.interval(intervals.over(values[[0, 2]]), measures.measure("share"), images=40, seeds=2, draws=200)
    assert (found.value, found.low, found.high) == (alone.value, alone.low, alone.high) and alone.low < alone.value
    assert found.n == "40 images, 2 of 3 seeds"
    values[2] = np.nan
    assert path.interval(intervals.over(values)).n == "40 images, 1 of 3 seeds (spread over seeds unknown)"
    assert np.isnan(path.interval(intervals.over(np.full((3, 40), np.nan))).low)


def test_planted_effects_are_found_and_their_opposites():
    table, p = synthetic()
    found = {c.id: c for c in claims.judge(table, p, test=True)}
    pair = p.dissimilar[0]
    for claim in (
        "success",
        "success-over-noise",
        "early-change-less",
        "target-excited",
        "source-inhibited",
        "target-join",
        "target-excited-over-noise",
        "source-inhibited-over-noise",
        "original-leave",
        "shared-falls",
    ):
        assert found[f"{claim}/plain/{pair}"].verdict == "supported", claim
    assert found["similar-share-more/plain"].verdict == "supported"  # the similar pair was given the last layer in common
    swapped = table.assign(attack=table.attack.replace({"pgd": "noise", "noise": "pgd"}))
    swapped = swapped.assign(success=swapped.success | (swapped.attack == "pgd"))  # or the gate would bar it
    found = {c.id: c for c in claims.judge(swapped, p, test=True)}
    for claim in ("target-excited-over-noise", "source-inhibited-over-noise"):
        assert found[f"{claim}/plain/{pair}"].verdict == "contradicted", claim
    assert {c.verdict for c in claims.judge(table, p, test=False)} == {"not tested"}


def test_sentences_read_alone_and_primaries_are_there():
    table, p = synthetic()
    found = claims.judge(table, p, test=True)
    sentences.check(found)
    assert {c.id for c in found if c.kind == "primary"} == set(claims.primaries(p))


def test_an_image_that_is_taken_for_the_target_already_is_no_success():
    table, p = synthetic()
    path = statistics.measured(table, p)["plain", p.dissimilar[0]]
    before = path.success("pgd", -1)(np.arange(40), np.arange(3))
    there = table.assign(success=table.success | ((table.attack == "source") & (table.image_id < 20)))
    path = statistics.measured(there, p)["plain", p.dissimilar[0]]
    left = path.success("pgd", -1)(np.arange(40), np.arange(3))  # the attack wins on the first images first
    assert before == 1.0 == left and path.success("pgd", 0)(np.arange(40), np.arange(3)) == 0.0
    assert np.isnan(path.success("pgd", 0)(np.arange(20), np.arange(3)))


def test_an_attack_that_fails_leaves_its_pathways_untested():
    table, p = synthetic()
    weak = table.assign(success=table.success & ((table.image_id < 10) | (table.attack == "target")))
    found = {c.id: c for c in claims.judge(weak, p, test=True)}
    pair = p.dissimilar[0]
    assert found[f"target-excited/plain/{pair}"].verdict == "not testable here"
    assert "the strongest attack reaches its aim" in found[f"target-excited/plain/{pair}"].note
    assert found[f"shared-falls/plain/{pair}"].verdict == "supported"  # which asks no attack


def test_classes_that_a_network_takes_for_each_other_are_no_pair():
    """Of one seed, and of one pair: what compares pairs needs both."""
    table, p = synthetic()
    pair, other = p.dissimilar[0], p.similar[0]
    confused = (table.attack == "source") & (table.seed == 2) & (table.pair == pair) & (table.image_id < 24)
    found = {c.id: c for c in claims.judge(table.assign(success=table.success | confused), p, test=True)}
    for id in (f"shared-falls/plain/{pair}", f"success/plain/{pair}", "similar-share-more/plain"):
        assert found[id].verdict == "not testable here" and "worst seed (above 0.5 asked, 0.4 found)" in found[id].note, id
    assert found[f"success/plain/{other}"].verdict == "supported"


def test_few_top_neurons_are_said():
    table, p = synthetic()
    note = "3 top neurons in the narrowest layer: one more or less moves its share by 0.33"
    found = {c.id.partition("/")[0]: c for c in claims.judge(table, p, test=True)}
    told = {id for id, c in found.items() if note in c.note}
    assert {"shared-falls", "target-join", "selection", "similar-share-more"} <= told
    assert not told & {"success", "success-over-noise", "early-change-less"}
    many = claims.judge(table, p.model_copy(update={"least": 5, "most": 9}), test=True)
    assert not [c for c in many if "narrowest" in c.note]


def with_edges(table, grows=0.5, fades=0.2):
    """Influence among the own neurons of the last layer: under PGD the target's grows, the source's fades, a
    fifth of it under noise; a seed has none."""
    rng = np.random.default_rng(0)
    there = (table.layer == "b") & (table.attack != "target")
    noise = 1 + 0.02 * rng.standard_normal(len(table))
    size = (table.attack == "pgd") + 0.2 * (table.attack == "noise")
    by = {"original": 1 - fades * size, "target": 1 + grows * size}
    columns = {plan.AMONG[g]: (2.0 * noise * v).where(there & (table.seed > 0)) for g, v in by.items()}
    return table.assign(**columns)


def test_edges_of_either_class_are_judged_where_they_were_measured():
    table, p = synthetic()
    pair = p.dissimilar[0]
    assert statistics.measured(table, p)["plain", pair].influence("pgd", -1, "target") is None
    rows = claims.judge(with_edges(table), p, test=True)
    found = {c.id: c for c in rows}
    sentences.check(rows)
    path = statistics.measured(with_edges(table), p)["plain", pair]
    i, s = np.arange(40), np.array([1, 2])
    before, after = (path.scored.among("plain", pair, a, "target")[1:, -1] for a in ("source", "pgd"))
    assert path.influence("pgd", -1, "target")(i, s) == pytest.approx(after.sum() / before.sum() - 1)
    assert np.isnan(path.influence("pgd", -1, "target")(i, np.array([0])))  # a seed whose group is empty
    assert found[f"influence-target-grows/plain/{pair}"].value == pytest.approx(0.5, abs=0.02)
    assert found[f"influence-source-fades-over-noise/plain/{pair}"].value == pytest.approx(-0.16, abs=0.02)
    assert found[f"influence-target-grows/plain/{pair}"].verdict == "not tested"  # of three seeds one has none
    table, p = table[table.seed > 0], p.model_copy(update={"seeds": 2})
    judged = claims.judge(with_edges(table), p, test=True)
    found = {c.id: c.verdict for c in judged if c.id.startswith("influence") and c.id.endswith(pair)}
    assert set(found.values()) == {"supported"} and len(found) == 4
    still = claims.judge(with_edges(table, 0.01, 0.0), p, test=True)
    assert {c.verdict for c in still if c.id.startswith("influence")} == {"negligible"}


def test_claims_and_pictures_share_the_pathways_of_a_table():
    table, p = synthetic(images=10, seeds=2)
    found = statistics.measured(table, p)
    assert statistics.measured(table, p) is found
    path = found["plain", p.pairs[0]]
    path.medians("pgd", np.arange(10), np.arange(2))
    other = table.assign(scores=table.scores.map(lambda v: v + 1.0))  # as large, other numbers
    moved = statistics.measured(other, p)["plain", p.pairs[0]].medians("pgd", np.arange(10), np.arange(2))
    for layer, before in path.medians("pgd", np.arange(10), np.arange(2)).items():
        np.testing.assert_allclose(moved[layer], before + 1.0, atol=1e-5)


def test_neurons_of_neither_are_not_those_of_both():
    """Attacked images of the similar pair keep the neurons of both classes; none of the top neurons is new."""
    table, p = synthetic()
    path = statistics.measured(table, p)["plain", p.similar[0]]
    i, s = np.arange(40), np.arange(3)
    assert path.kept("noise", 0, "new", ["b"])(i, s) == 0.0 and path.kept("noise", 0, "both", ["b"])(i, s) > 0


def test_an_attack_that_never_succeeds_is_judged_without_the_selection():
    table, p = synthetic()
    found = [c.id for c in claims.judge(table.assign(success=False), p, test=True)]
    assert not [c for c in found if c.startswith("selection")] and len(found) == len(set(found))


def test_what_was_published():

    published = pd.read_csv(paths_.published() / "attack_pathways.csv")
    assert len(published) == 30 and published.pair.nunique() == 5
    panda = published[(published.pair == "panda > armadillo") & (published.attack == "pgd")]
    assert panda.new.tolist() == [46, 21, 15] and (panda.both == 27).all()


# -- the graph ---------------------------------------------------------------------------------------------------------


def test_the_graph_is_what_the_kernels_say(graph):
    data = plan.evaluation_set(SMOKE)
    model = plan.network(SMOKE, "plain", 0).model
    pair = plan.pair_of(SIMILAR, data.classes)
    x = plan.of_class(data, pair.source, SMOKE.images)
    layers = [layer.name for layer in graph.layers]
    shown = {layer.name: layer.groups.shown for layer in graph.layers}
    y = torch.full((len(x),), pair.target)
    for k, moved in enumerate((x, plan.attacked(model, x, y, SMOKE.strengths[0], name="fgsm", steps=SMOKE.steps))):
        for found, expected in zip(graph.edges["fgsm"], influences.influence(model, moved, layers, shown), strict=True):
            np.testing.assert_allclose(found[k], expected, atol=1e-5)
    assert set(graph.success) == {"pgd", "fgsm"} and graph.images == len(x)
    assert all(set(graph.cards[n]) == set(shown[n]) for n in layers)


def test_graphs_are_measured_like_everything_else(table, graph, tmp_path):
    """A job each, the photographs' without any training; in the stored table a row each, that no statistic looks at. The
    notebook unpacks them."""
    jobs = plan.jobs(SMOKE)
    assert jobs[0] == (plan.PHOTOGRAPHS, 0, 0) and not plan.networks(SMOKE, *jobs[0])
    assert jobs[-2:] == [("plain", 0, 0), ("plain", 0, 1)] and plan.networks(SMOKE, *jobs[-1]) == plan.networks(
        SMOKE, "plain", 0
    )
    assert plan.seen(SMOKE, *jobs[0]) != plan.seen(SMOKE, *jobs[-1]) == plan.seen(SMOKE)
    whole = pd.concat([measure.measure(SMOKE, "plain", 0, 0), table], ignore_index=True)
    whole.to_parquet(tmp_path / "measurements.parquet")
    stored = pd.read_parquet(tmp_path / "measurements.parquet")
    ((title, found),) = traced.graphs(stored).items()
    assert title == graph.title and found.success == graph.success
    for a, b in zip(found.edges["pgd"], graph.edges["pgd"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    success = [tables.success(statistics.measured(t, SMOKE)) for t in (stored, table)]
    pd.testing.assert_frame_equal(*success)
    cells = [c.source for c in nbformat.read(profiles.notebook_of("06-attack-pathways"), as_version=4).cells]
    assert any("graphs = traced.graphs(table)" in c for c in cells) and not any("traced.of_pair" in c for c in cells)


def test_shares_round_up():
    values = np.array([[3.0, 1.0, 2.0, 2.0]])
    assert layout.shares(values).tolist() == [[0.0, 0.75, 0.25, 0.5]]
    assert (layout.shares(values) < 0.3).sum() == 2 and (layout.shares(values) < 1).all()


def test_neurons_do_not_lie_on_each_other(graph):
    spots = pd.DataFrame(layout.placed(graph))
    assert not spots.duplicated(["row", "x"]).any()
    columns = {g: (spots[spots.group == g].x.min(), spots[spots.group == g].x.max()) for g in set(spots.group)}
    for i, group in enumerate(layout.GROUPS):
        if group in columns:
            assert i <= columns[group][0] and columns[group][1] <= i + 1


def test_the_picture_shows_every_neuron(graph):
    fig = still_picture.still(graph, "pgd", 1)
    plt.close(fig)
    (ax,) = fig.axes
    letters = [t.get_text() for t in ax.texts if len(t.get_text()) == 1]
    assert len(letters) == sum(len(layer.groups.shown) for layer in graph.layers)


def test_the_first_neuron_of_every_group_is_shown_with_its_card(graph):
    fig = still_picture.examples(graph)
    plt.close(fig)
    shown = [ax for ax in fig.axes if ax.images]
    expected = []
    for layer in reversed(graph.layers):
        ever = [c for at in layer.groups.exploited for c in at]
        expected += [(layer.name, g[0]) for g in (layer.groups.original, layer.groups.both, layer.groups.target, ever) if g]
    assert [ax.get_title() for ax in shown] == [f"neuron {c}" for _, c in expected]
    for ax, (name, channel) in zip(shown, expected, strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), np.asarray(graph.cards[name][channel]))
    headings = {t.get_text(): t for ax in fig.axes for t in ax.texts}
    assert {"original", "both", "target", "exploited by attack"} <= set(headings)
    fig.canvas.draw()
    for name in ("original", "both", "target"):  # clear of what is below: numbers and pictures
        below = [ax.title.get_window_extent() for ax in shown] + [ax.get_window_extent() for ax in shown]
        assert not any(headings[name].get_window_extent().overlaps(box) for box in below), name
    with pytest.raises(ValueError, match="no pictures of neurons"):
        still_picture.examples(dataclasses.replace(graph, cards={name: {} for name in graph.cards}))


def test_what_a_graph_costs():
    """Counted in passes of single images, since seconds are a machine's: for each strength the attack's own, one that gives
    the scores and one that gives influence; two for each clean set but the target's, which has one."""
    counted = {"images": 0}
    net = models.create("plain", classes=10)
    net.register_forward_hook(lambda _m, args, _o: counted.update(images=counted["images"] + len(args[0])))
    x = torch.rand(10, 3, 32, 32)
    attack = functools.partial(plan.attacked, name="pgd", steps=20)
    graph_.build(
        net,
        x,
        x.flip(0),
        1,
        names=("a", "b"),
        layers=plan.layers_of(net),
        attacks={"pgd": attack},
        strengths=Parameters().strengths,
        features=0,
        patches=0,
    )
    assert counted["images"] == 10 * (2 + 10 * (20 + 1) + (1 + 10))


@pytest.mark.parametrize("count", [1, 2, 5, 100])
def test_medians_are_numpys_to_the_last_bit(count):
    values = np.random.default_rng(0).normal(size=(3, 4, count)).astype(np.float32)
    assert np.array_equal(statistics.median(values), np.median(values, axis=-1))
    values[1, 2, count // 2] = np.nan
    assert np.isnan(statistics.median(values)).tolist() == np.isnan(values).any(-1).tolist()
