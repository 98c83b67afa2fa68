"""Study 7: its measurement on small networks, its verdicts on planted numbers, its tables and its explorer."""

import copy
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch

from lib.claims.rows import rows
from lib.explanations import by_name
from lib.explanations.explanation import Explanation
from lib.figures.explorer import Explorer
from lib.fooling import goals
from lib.networks import contract
from lib.runs import shown
from lib.sanity import EDGES
from lib.studies.attacked_explanations import claims, explorer, measure, plan, tables
from lib.studies.attacked_explanations.plan import Parameters
from tests import authors
from tests.claims import sentences

SMALL = {
    "seeds": 1,
    "train_images": 256,
    "epochs": 1,
    "tune_images": 64,
    "tune_epochs": 1,
    "images": 8,
    "methods": ("gradcam", "gradient", "smoothgrad", "guided"),
    "eps": (4.0, 8.0),
    "steps": 4,
    "stages": 2,
    "smooth_n": 2,
    "ig_steps": 2,
    "sanity_images": 4,
    "hide_steps": 4,
    "photo_images": 2,
    "photo_methods": ("gradcam",),
    "photo_steps": 2,
}


AUTHORS = {
    "authors": True,
    "dataset": "folder:cifar10",
    "arch": "small",
    "arms": ("standard", "adversarial", "int2"),
    "seeds": 1,
}


@pytest.fixture(scope="module")
def p():
    return Parameters(**SMALL)


@pytest.fixture(scope="module")
def measured(p, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(tmp_path_factory.mktemp("home")))
        yield pd.concat([measure.measure(p, *job) for job in plan.jobs(p)], ignore_index=True)


def test_the_measurement_is_whole(measured, p):
    moved = tables.parsed(measured)
    for arm in p.arms:
        for method, eps in itertools.product(p.methods, p.eps):
            part = moved[(moved.arm == arm) & (moved.method == method) & (moved.eps == eps)]
            wanted = {"adaptive", "random"} | ({"naive"} if eps == p.headline else set())
            wanted |= {"carried"} if method != "gradcam" else set()
            assert set(part.attack) == wanted and set(part.of) == {"moved", "ranks"}
            assert (part.groupby(["attack", "of"]).image_id.nunique() == p.images).all()
    known = moved.value.dropna()
    assert known[moved.of == "moved"].between(0, 1).all() and known.between(-1, 1 + 1e-6).all()
    photos = moved[moved.arm == plan.PHOTOGRAPHS]
    assert set(photos.method) == {"gradcam"} and set(photos.eps) == {p.photo_eps}
    edges = measured[measured.measure == f"{EDGES}/randomised"]
    assert len(edges) and edges.value.dropna().sub(1).abs().max() < 1e-5


def test_numbers_are_those_of_the_kernels(measured, p, tmp_path, monkeypatch):
    """Random signs, recomputed image by image from their own seeds."""
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))
    model, data = plan.model(p, "standard", 0), plan.evaluation_set(p)
    x, eps = data.images[:], p.headline / 255
    for method in ("gradcam", "gradient"):
        settings, _ = plan.settings(p, method, model.stages[-1], through=plan.through(p, "standard"))
        assert (settings.layer == plan.LAYER_T) == (method == "gradcam")
        part = measured[
            (measured.arm == "standard") & (measured.measure == f"{method}/random") & (measured.level == p.headline)
        ]
        for i, told in enumerate(part.sort_values("image_id").value):
            noise = torch.randint(0, 2, (1, 3, 32, 32), generator=torch.Generator().manual_seed(i)) * 2.0 - 1
            noisy = (x[i : i + 1] + eps * noise).clamp(0, 1)
            y = int(model(x[i : i + 1]).argmax())
            a, b = (by_name.explain(method, model, image, y, settings).values[0] for image in (x[i : i + 1], noisy))
            if int(model(noisy).argmax()) != y or float(a.max()) == 0 or float(b.max()) == 0:
                assert math.isnan(told)
            else:
                assert told == pytest.approx(0.5 * float((a / a.sum() - b / b.sum()).abs().sum()), abs=1e-5)


def test_maps_that_do_not_count_have_no_value():
    m = torch.rand(4, 3, 3)
    dead = torch.zeros(4, 3, 3)
    found = measure.compared(m, m.flip(1), torch.tensor([True, True, False, False]))
    assert found[""].isnan().tolist() == [False, False, True, True]
    torch.testing.assert_close(found[""][:2], goals.mass_moved(m.flip(1), m)[:2])
    for pair in ((m, dead), (dead, m)):
        assert measure.compared(*pair, torch.ones(4, dtype=torch.bool))[""].isnan().all()


def planted(p, effect):
    """A table in which `effect(measure, arm)` is the mean of each measure; small noise over images and seeds."""
    rng, found = np.random.default_rng(0), []
    jobs = [(arm, seed) for arm in p.arms for seed in range(p.seeds)] + [(plan.PHOTOGRAPHS, 0)]
    for arm, seed in jobs:
        photos = arm == plan.PHOTOGRAPHS
        methods, eps = (p.photo_methods, p.photo_eps) if photos else (p.methods, p.headline)
        n = p.photo_images if photos else p.images

        def put(name, level, arm=arm, seed=seed, n=n):
            values = effect(name, arm) + 0.01 * rng.standard_normal(n)
            found.append(rows(arm, seed, name, level, torch.tensor(values)))

        for method in methods:
            for attack in plan.ATTACKS:
                if (method, attack) != ("gradcam", "carried"):
                    put(f"{method}/{attack}", eps)
            for name in ("deletion", "insertion"):
                put(f"{method}/{name}", 0)
            put(f"{method}/randomised", 1)
        if not photos:
            put("right", 0)
            put("robust", p.headline)
            for name in ("one", "two", "bound"):
                put(f"hide/{name}", p.headline)
            put("frame", 0)
    return pd.concat(found, ignore_index=True)


def as_published(name, arm):
    method, _, what = name.partition("/")
    value = {"adaptive": 0.5, "naive": 0.3, "carried": 0.2, "random": 0.1, "right": 0.9, "deletion": 0.1, "insertion": 0.1}
    value |= {"one": 0.2, "two": 0.4, "bound": 0.1, "randomised": 0.7 if method == "guided" else 0.1}
    if name == "frame":
        return 0.8 if arm == "manipulated" else 0.4
    if name == "robust":
        return 0.6 if arm == "adversarial" else 0.1
    if what == "adaptive":
        return 0.5 - 0.2 * (arm == "adversarial") - 0.15 * (method == "smoothgrad")
    return value[what or name]


@pytest.fixture(scope="module")
def several():
    return Parameters(**SMALL | {"seeds": 3, "images": 24})


def test_planted_effects_are_found_and_their_opposites(several):
    found = {c.id: c for c in claims.judge(planted(several, as_published), several)}
    assert {c.id for c in found.values() if c.kind == "primary"} == set(claims.primaries(several))
    for id in (*claims.primaries(several), "adaptive-over-naive/gradient/standard", "guided-survives", "hides/standard"):
        assert found[id].verdict == "supported", (id, found[id])
    assert found["bound-holds/standard"].verdict == "supported"

    def opposite(name, arm):
        value = as_published(name, arm)
        return value if name in ("right", "robust", "frame") else 1 - value

    other = {c.id: c for c in claims.judge(planted(several, opposite), several)}
    for id in (*claims.primaries(several), "adaptive-over-naive/gradient/standard", "guided-survives", "hides/standard"):
        assert other[id].verdict == "contradicted", (id, other[id])


@pytest.mark.parametrize(
    ("name", "arm", "value", "barred"),
    [
        ("right", "standard", 0.4, "fragile"),
        ("right", "adversarial", 0.4, "robust-training-holds"),
        ("robust", "adversarial", 0.15, "robust-training-holds"),
        ("frame", "manipulated", 0.5, "holds/gradcam/manipulated"),
    ],
)
def test_gates_bar_what_stands_on_them(several, name, arm, value, barred):
    def effect(n, a):
        return value if (n, a) == (name, arm) else as_published(n, a)

    found = {c.id: c for c in claims.judge(planted(several, effect), several)}
    assert found[barred].verdict == "not testable here" and "gate: " in found[barred].note


def test_what_is_manipulated_is_looked_at_where_it_was_manipulated(measured, p):
    """On the frame, at the layer of the manipulation; of the standard network at the same one."""
    at = {arm: plan.through(p, arm) for arm in (*p.arms, plan.PHOTOGRAPHS)}
    assert at == dict.fromkeys(p.arms, plan.LAYER_T) | {plan.PHOTOGRAPHS: ""}
    assert plan.through(p.model_copy(update={"arms": ("standard", "adversarial")}), "standard") == ""
    framed = measured[measured.measure == "frame"]
    assert set(framed.arm) == set(p.arms) and framed.value.dropna().between(0, 1).all()
    corner = torch.zeros(1, 8, 8)
    corner[0, 0, 0] = 1.0
    for maps, share in ((corner, 1.0), (corner.roll((3, 3), (1, 2)), 0.0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(measure.by_name, "explain", lambda *_, maps=maps: Explanation(maps, None))
            assert measure.on_frame(None, maps, plan.LAYER_T).tolist() == [share]


def test_an_attack_on_smoothgrad_has_as_many_copies_in_all(p):
    found = {n: plan.budget(Parameters(climb_n=n), "smoothgrad", 24) for n in (2, 8)}
    assert found == {2: {"steps": 24, "stages": 8, "restarts": 1}, 8: {"steps": 6, "stages": 6, "restarts": 1}}
    assert plan.budget(p, "gradient", 4) == {"steps": 4, "stages": 2, "restarts": 1}


def test_tables_are_means_over_seeds_and_images(several):
    table = planted(several, as_published)
    wide = tables.moved(table, several, "adversarial")
    assert list(wide.columns) == list(plan.ATTACKS.values()) and wide.index[0] == "Grad-CAM"
    assert wide.loc["gradient", "adaptive attack"] == pytest.approx(0.3, abs=0.01)
    assert math.isnan(wide.loc["Grad-CAM", "carried over"]) and tables.told(wide).loc["Grad-CAM", "carried over"] == "–"
    bars = tables.bars(table, several, "standard")
    assert (bars.low <= bars.value).all() and (bars.value <= bars.high).all()
    left = tables.hidden(table).loc["standard"]
    assert left["left of two classes"] == pytest.approx(0.4, abs=0.01)
    assert left["cases (image, training run) that PGD fools"] == left["of"] == 3 * several.images
    marked = shown.marks(tables.removal(table))
    own = [("taken away", name, "3 runs") for arm, name in plan.NAMES.items() if arm in several.arms]
    last = ("taken away", plan.NAMES[plan.PHOTOGRAPHS], "1 run")
    assert list(marked.index[:4]) == [*own, last] and marked.shape == (2 * 4, 4)
    assert all(" ± " in cell for cell in marked.loc[("taken away", "standard", "3 runs")])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("gradient", "ig")}, "methods need gradcam"),
        ({"methods": ("gradcam", "guided-gradcam++")}, "'guided-gradcam\\+\\+' is not differentiated"),
        ({"headline": 2.0}, "headline = 2 among them"),
        ({"stages": 30}, "stages = 30 is more than steps"),
        ({"arms": ("adversarial", "manipulated")}, "standard among them"),
        ({"arch": "residual"}, "leave it out for arch = 'residual'"),
        ({"photo_images": 1}, "two photographs at least"),
        ({"arms": ("standard", "int2")}, "choose of standard, adversarial, manipulated"),
        (
            {"authors": True, "arms": ("standard", "manipulated")},
            "choose of standard, adversarial, trades, int, int2, int2-adv",
        ),
        ({"authors": True, "arms": ("standard", "int")}, "published no network 'plain' for 'shapes'; there are none"),
        (AUTHORS | {"arch": "plain"}, "published no network 'plain' for 'folder:cifar10'; there are wresnet, small"),
        (AUTHORS | {"seeds": 3}, "seeds = 3: with authors there is one network an arm"),
        ({"sanity_images": 20}, "more than images"),
        ({"methods": ("gradcam", "gradcam")}, "each explanation once"),
        ({"photo_methods": ("gradcam", "guided")}, "guided is not defined for efficientnet-lite0"),
    ],
)
def test_bad_parameters_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Parameters(**SMALL | changes)


@pytest.fixture(scope="module")
def explore(tmp_path_factory, p):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(tmp_path_factory.mktemp("home")))
        found = explorer.explorer(p)
        found.controls["eps"].value = 8.0
        yield found


def test_the_explorer_begins_with_the_published_network_and_a_map_that_moves(explore):
    assert isinstance(explore, Explorer) and explore.controls["arch"].value == plan.PHOTOGRAPHS
    values = {n.name: n.value for n in explore.view.numbers}
    assert values["predicted class, before"] == values["predicted class, after"] == "bull mastiff"
    own, chance = (values[f"share of the map that moved{end}"] for end in ("", " under random signs of the same size"))
    assert own > 3 * chance


@pytest.mark.parametrize(
    ("control", "value"),
    [
        ("arch", "standard"),
        ("method", "gradient"),
        ("attack", "naive"),
        ("attack", "carried"),
        ("attack", "random"),
        ("attack", "adaptive"),
        ("goal", "centre"),
        ("image", 3),
        ("eps", 1.0),
    ],
)
def test_each_control_changes_the_picture(explore, control, value):
    before = explore.picture.value
    explore.controls[control].value = value
    assert explore.picture.value != before and "moved" in explore.status.value


def test_what_is_said_is_what_the_kernels_say(explore, p):
    model, data = plan.model(p, "standard", 0), plan.evaluation_set(p)
    view = explore.render("standard", "", 2, None, "gradient", "random", "mass", 4.0)
    x = data.images[2:3]
    settings, _ = plan.settings(p, "gradient", model.stages[-1])
    y = model(x).argmax(1)
    a = by_name.explain("gradient", model, x, contract.predicted, settings).values
    b = by_name.explain("gradient", model, measure.signs(x, 4 / 255), y, settings).values
    told = {n.name: n.value for n in view.numbers}["share of the map that moved"]
    assert told == pytest.approx(goals.mass_moved(b, a).item(), abs=1e-6)


def test_the_curve_over_radii(explore, p):
    """At the present radius its number is that of the kernels, over its own images."""
    view = explore.many(**explore.values | {"arch": "standard", "method": "gradcam", "attack": "random", "eps": 4.0})
    model, x = plan.model(p, "standard", 0), plan.evaluation_set(p).images[: explorer.MANY]
    settings, _ = plan.settings(p, "gradcam", model.stages[-1], through=plan.LAYER_T)
    before = by_name.explain("gradcam", model, x, None, settings)
    after = by_name.explain("gradcam", model, measure.signs(x, 4 / 255), before.logits.argmax(1), settings).values
    wanted = goals.mass_moved(after, before.values).double().quantile(0.5).item()
    (told,) = [n for n in view.numbers if n.name.endswith("eps, of 255 4: median")]
    assert told.value == pytest.approx(wanted, abs=1e-6) and told.over == "4 images"


GREY = """
from torch import nn

def net():
    found = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16 * 16, 3))
    found.size, found.channels = 16, 1
    return found
"""


def test_an_own_network_of_another_kind_loses_cam_from_the_menu(explore, tmp_path):
    (tmp_path / "grey.py").write_text(GREY)
    field = explore.controls["network"]
    assert "cam" in dict(explore.controls["method"].options).values()
    field.value = f"{tmp_path / 'grey.py'}:net"
    offered = dict(explore.controls["method"].options).values()
    assert "cam" not in offered and "gradient" in offered and "share of the map that moved" in explore.status.value


# networks that Boopathy et al. published --------------------------------------------------------------------------------


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """Pictures of noise laid out as the data set is, and an Int2 in the authors' layout: parameters, and the network."""
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    authors.cifar10(tmp_path)
    plan.evaluation_set.cache_clear()
    model = authors.publish("cifar_small_int2", 3)
    yield Parameters(**SMALL | AUTHORS | {"methods": ("gradcam", "gradient"), "eps": (4.0,), "photo_images": 0}), model
    plan.evaluation_set.cache_clear()


def test_published_networks_are_measured_and_nobody_trains_them(theirs):
    p, model = theirs
    assert plan.jobs(p) == [(arm, 0) for arm in p.arms] and plan.networks(p) == plan.networks(p, "int2", 0) == []
    x = plan.evaluation_set(p).images[:]
    assert torch.equal(plan.model(p, "int2")(x), model(x))
    assert plan.seen(p, "int2", 0)[:-1] == plan.seen(p)
    with pytest.raises(FileNotFoundError, match=r"no network 'adv' of Small on cifar10 .*there are int2"):
        plan.seen(p, "adversarial", 0)
    table = measure.measure(p, "int2", 0)
    assert set(table.arm) == {"int2"} and (table.seed == 0).all()
    names = set(table.measure.astype(str))
    assert {"gradient/adaptive", "gradient/carried", "hide/two", "robust"} <= names and "gradcam/randomised" not in names
    assert list(tables.moved(table, p, "int2").index) == ["Grad-CAM", "gradient"]


def test_what_runs_would_decide_is_one_network_s(several):
    """What is said of one network is decided by images; what compares ways of training is not."""
    p = several.model_copy(update=AUTHORS)
    found = {c.id: c for c in claims.judge(planted(p, as_published), p)}
    assert {c.id for c in found.values() if c.kind == "primary"} == set(claims.primaries(p))
    assert found["robust-training-holds"].verdict == found["holds/gradient/int2"].verdict == "one network"
    assert found["robust-training-holds"].kind == "primary" and found["holds/gradient/int2"].kind == "open question"
    for id in ("fragile", "smoothing-holds", "adaptive-over-naive/gradient/int2", "depends-on-weights/gradcam/standard"):
        assert found[id].verdict == "supported" and found[id].statement.endswith("(Small of Boopathy et al.)"), id
    assert "Boopathy" not in found["adaptive-over-random/gradcam/photographs"].statement
    sentences.check(list(found.values()))


def test_an_empty_map_has_not_moved_nowhere(explore, p):
    model, data = plan.model(p, "standard", 0), plan.evaluation_set(p)
    dead = copy.deepcopy(model)
    dead.net.head.weight.data.zero_()  # nothing speaks for any class
    seen = explorer.Looked(dead, dead.stages[-1], "head", data.classes)
    view = explorer.draw(seen, p, data.images[:1], method="gradcam", attack="random", goal="mass", eps=4.0)
    told = {n.name: n.value for n in view.numbers}
    assert told["share of the map that moved"] == "not defined: a map is empty" and "0.00" not in view.text
    assert "so what moved is not defined" in view.text
