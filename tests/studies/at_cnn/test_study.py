"""Study 2: arms and their training, what is measured, the underfit control, and claims on tables whose truth is known."""

import functools
import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from lib.attacks import projected
from lib.data import datasets, transforms
from lib.explanations import by_name
from lib.measures import appearance, comparison
from lib.networks import models
from lib.networks import style as models_style
from lib.runs import profiles
from lib.studies.at_cnn import claims as claims_
from lib.studies.at_cnn import explorer, plan, statistics, tables
from lib.studies.at_cnn import measure as measure_
from lib.studies.at_cnn.plan import Parameters
from lib.training import cache, loop, objectives
from lib.training.objectives import Moment
from tests import authors
from tests.claims import sentences

SMOKE = profiles.parameters("02-at-cnn", "smoke")


@pytest.mark.parametrize(
    ("arm", "expected", "name"),
    [
        ("standard", None, "Standard"),
        ("underfit", None, "Underfit"),
        ("linf-8", ("linf", 8 / 255, None), "PGD-L∞ 8/255"),
        ("l2-1.14", ("l2", 1.14, None), "PGD-L2 1.14"),
        ("fgsm-4", ("fgsm", 4 / 255, None), "FGSM 4/255"),
        ("linf-4@1", ("linf", 4 / 255, 1.0), "PGD-L∞ 4/255, 100% adv."),
        ("linf-4@0.25", ("linf", 4 / 255, 0.25), "PGD-L∞ 4/255, 25% adv."),
    ],
)
def test_the_name_of_an_arm_says_its_training(arm, expected, name):
    assert plan.attacked(arm) == expected and plan.label(arm) == name


@pytest.mark.parametrize(
    "arm", ["linf", "linf-", "linf-0", "linf--4", "l3-4", "linf-4@2", "linf-4@0", "pgd-8", "linf-x", "l2-nan"]
)
def test_a_name_that_is_none_is_refused(arm):
    with pytest.raises(ValueError, match="unknown arm"):
        plan.attacked(arm)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": ["linf-8", "linf-4"]}, "arms need 'standard'"),
        ({"arms": ["standard", "standard", "linf-4"]}, "each name once"),
        ({"headline": ["linf-16"]}, "headline 'linf-16' is no adversarial arm"),
        ({"headline": ["underfit"]}, "headline 'underfit' is no adversarial arm"),
        ({"shuffle": [2, 3]}, "shuffle k = 3 does not divide the size, 32"),
        ({"saturation": [0]}, "saturation.0 = 0"),
        ({"saturation": [4, 4]}, "each level once"),
        ({"style_source": "van-gogh"}, "embedded or folder:NAME"),
        ({"size": 33, "shuffle": [3]}, "the small style encoder takes multiples of 2"),
        ({"size": 36, "shuffle": [2], "style_encoder": "vgg19"}, "the vgg19 style encoder takes multiples of 8"),
        ({"l2_direction": "linf"}, "say how long with relative_step"),
        ({"arms": ["standard", "linf-300"], "headline": ["linf-300"]}, "unknown arm 'linf-300'"),
        ({"arch": "resnet8"}, "unknown network 'resnet8'"),
        ({"adv_fraction": 0}, "adv_fraction = 0"),
        ({"alpha": 2}, "alpha = 2"),
    ],
)
def test_wrong_parameters_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        profiles.parameters("02-at-cnn", "laptop", change)


def test_arms_are_trained_as_said():
    p = Parameters(seeds=2)
    options = {arm: plan.config_of(p, arm, 1).options for arm in p.arms}
    assert options["standard"] == options["underfit"] == {}
    assert options["linf-4"] == {"eps": 4 / 255, "share": 0.5, "warmup": 0.5, "steps": 4, "random_start": True}
    assert options["linf-4@1"] == options["linf-4"] | {"share": 1.0}
    assert options["l2-1.14"] == options["linf-4"] | {"eps": 1.14, "norm": "l2"}
    one = options["fgsm-8"]
    assert (one["steps"], one["step"], one["eps"], one["random_start"]) == (1, 8 / 255, 8 / 255, False)
    seeds = [(c.options.get("eps"), c.seed) for c in plan.networks(p) if c.arch == "plain"]
    assert seeds.count((None, 1)) == 1 and (4 / 255, 1) in seeds and (8 / 255, 1) not in seeds
    assert sum(c.arch == "networks.style:small" for c in plan.networks(p)) == 1


def test_the_paper_profile_is_the_released_code():
    p = profiles.parameters("02-at-cnn", "paper")
    linf, l2 = (plan.config_of(p, arm, 0) for arm in ("linf-8", "l2-8"))
    assert linf.options == {"eps": 8 / 255, "share": 0.5, "warmup": 0.0, "steps": 20, "random_start": False, "step": 4 / 255}
    assert l2.options["direction"] == "linf" and l2.options["step"] == pytest.approx(8 / 510)
    assert (linf.epochs, plan.config_of(p, "standard", 0).epochs) == (20, 10)
    rates = [loop.learning_rate(linf, (e + 0.5) / 20) for e in range(20)]
    np.testing.assert_allclose(rates, [0.01] * 10 + [0.001] * 6 + [0.0001] * 4)


def test_the_datasets_profile_is_the_paper_in_kind():
    """A published network, fine-tuned as the released code does at the size of this copy of Flower-17."""
    p, paper = (profiles.parameters("02-at-cnn", name) for name in ("datasets", "paper"))
    standard, linf, l2, fgsm = (plan.config_of(p, arm, 2) for arm in ("standard", "linf-4", "l2-4.57", "fgsm-4"))
    for config in (standard, linf, l2, fgsm):
        assert (config.arch, config.weights, config.size, config.seed) == ("efficientnet-lite0", "imagenet", 128, 2)
        theirs = plan.config_of(paper, "linf-8", 0)
        assert all(getattr(config, n) == getattr(theirs, n) for n in ("lr", "schedule", "momentum", "weight_decay", "augment"))
        assert config.shift / config.size == pytest.approx(theirs.shift / 256)
    assert linf.options == {"eps": 4 / 255, "share": 0.5, "warmup": 0.0, "steps": 3, "random_start": True}
    assert l2.options == linf.options | {"eps": 4.57, "norm": "l2"}
    np.testing.assert_allclose(4.57 / 128, 8 / 224, rtol=1e-3)  # its root mean square a pixel
    assert tables.counterpart(p, "l2-4.57", ["l2-12", "l2-8"]) == "l2-8"
    assert (standard.epochs, linf.epochs, fgsm.epochs) == (8, 20, 20) and fgsm.options["steps"] == 1


# networks that Boopathy et al. published

AUTHORS = {
    "dataset": "folder:cifar10",
    "arch": "small",
    "authors": True,
    "arms": ("standard", "linf-8@1"),
    "headline": ("linf-8@1",),
    "seeds": 1,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "plain"}, "published no network 'plain' for 'folder:cifar10'; there are wresnet, small"),
        ({"dataset": "shapes"}, "published no network 'small' for 'shapes'; there are none"),
        ({"seeds": 2}, "there is one network each of standard, linf-8@1; set these arms, seeds: 1"),
        ({"arms": ("standard", "underfit", "linf-8@1")}, "set these arms, seeds: 1"),
    ],
)
def test_what_nobody_published_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Parameters(**AUTHORS | change)


def test_published_networks_are_measured_and_nobody_trains_them(home, tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    authors.cifar10(tmp_path)
    theirs = authors.publish("cifar_small_adv", 3)
    p, job = Parameters(**AUTHORS, images=8, robust_images=8, saliency_images=8, smooth_n=2, robust_steps=2), ("linf-8@1", 0)
    p = p.model_copy(update={"ensemble_images": 0, "saturation": (64,), "shuffle": (4,)})  # what is quick
    assert plan.jobs(p) == [("standard", 0), job, (plan.EDGES, 0)] and plan.cost(p).empty
    assert {c.arch for c in plan.networks(p)} == {c.arch for c in plan.networks(p, *job)} == {"networks.style:small"}
    before = plan.seen(p, *job)
    with pytest.raises(FileNotFoundError, match=r"no network 'normal' of Small on cifar10 .*there are adv"):
        plan.seen(p, "standard", 0)
    monkeypatch.setattr(measure_, "painter", lambda p: models_style.small(classes=10, channels=3, weights="none"))
    table = measure_.measure(p, *job)
    x = plan.evaluation_set(p).images[:]
    right = theirs(x).argmax(1) == plan.evaluation_set(p).labels
    np.testing.assert_array_equal(values(table, "clean"), right.numpy())
    assert set(table.arm) == {"linf-8@1"} and {"pgd", "smoothgrad/edges", "alignment"} <= set(table.measure)
    authors.publish("cifar_small_adv", 3, seed=4)
    after = plan.seen(p, *job)
    assert before[:-1] == after[:-1] and before[-1] != after[-1]  # another file is measured anew
    accuracy = dict.fromkeys(p.arms, 0.5)
    assert list(tables.arms(p, plan.cost(p), accuracy)) == ["seeds", "clean accuracy (seed 0)"]


def moment(batch, progress=1.0, batches=6):
    return Moment(0, batch, batches, progress, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("share", "expected"), [(0.5, [0, 1, 0, 1, 0, 1]), (1.0, [1] * 6), (1 / 3, [0, 0, 1, 0, 0, 1])])
def test_the_share_of_adversarial_batches(monkeypatch, share, expected):
    """0.5: every second batch, the odd ones counted from 0, as in the released code."""
    model = models.create("plain", classes=4).eval()
    x, y, attacked = torch.rand(2, 3, 16, 16), torch.tensor([0, 1]), []
    real = projected.pgd
    monkeypatch.setattr(projected, "pgd", lambda *a, **k: attacked.append(k["eps"]) or real(*a, **k))
    for batch in range(6):
        before = len(attacked)
        loss = objectives.adversarial(model, x, y, moment(batch), steps=1, share=share)
        assert loss.shape == (2,) and len(attacked) - before == expected[batch]


def test_a_share_of_no_batch_is_refused(home):
    """One batch an epoch, every second one adversarial: none would be."""
    with pytest.raises(ValueError, match=r"share 0.5 of 1 batch\(es\) an epoch is none"):
        cache.trained(plan.config_of(SMOKE.model_copy(update={"train_images": 100}), "linf-4", 0))


def test_eps_grows_over_the_warm_up(monkeypatch):
    model = models.create("plain", classes=4).eval()
    seen = []
    real = projected.pgd
    monkeypatch.setattr(projected, "pgd", lambda *a, **k: seen.append((k["eps"], k["step"])) or real(*a, **k))
    for progress in (0.0, 0.25, 0.5, 0.9):
        options = {"eps": 0.1, "step": 0.04, "steps": 2, "warmup": 0.5}
        objectives.adversarial(model, torch.rand(2, 3, 16, 16), torch.tensor([0, 1]), moment(1, progress), **options)
    np.testing.assert_allclose(seen, [(0, 0), (0.05, 0.02), (0.1, 0.04), (0.1, 0.04)])


def test_sign_steps_in_an_l2_ball(model, x, y):
    """The released code's L2 attack: one step of signs, then the projection."""
    z = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(z), y, reduction="sum"), z)
    delta = 0.01 * gradient.sign()
    length = delta.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    expected = (x + delta * (0.05 / length).clamp(max=1)).clamp(0, 1)
    found = projected.pgd(model, x, y, eps=0.05, steps=1, step=0.01, norm="l2", direction="linf", random_start=False)
    torch.testing.assert_close(found.x_adv, expected)


@pytest.fixture(scope="module")
def small_home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def measured(small_home):
    data = plan.evaluation_set(SMOKE)
    model = plan.network(SMOKE, "linf-4", 0).model
    return model, data, measure_.measure(SMOKE, "linf-4", 0)


def values(table, measure, level=0.0):
    part = table[(table.measure == measure) & (table.level == level)].sort_values("image_id")
    return part.value.to_numpy()


def test_decisions_are_those_of_the_changed_images(measured):
    model, data, table = measured
    assert (table.arm == "linf-4").all() and (table.seed == 0).all()
    changed = {
        ("clean", 0.0): data.images,
        ("saturation", 1024.0): transforms.saturation(data.images, 1024),
        ("shuffle", 8.0): transforms.patch_shuffle(data.images, 8, range(len(data))),
    }
    with torch.no_grad():
        for (measure, level), images in changed.items():
            expected = (model(images).argmax(1) == data.labels).numpy()
            np.testing.assert_array_equal(values(table, measure, level), expected)
        conflict = datasets.load("shapes-conflict", "test", limit=len(data))
        answer = model(conflict.images).argmax(1)
    np.testing.assert_array_equal(values(table, "conflict", 1.0), answer == conflict.attributes["shape"])
    np.testing.assert_array_equal(values(table, "conflict-texture", 1.0), answer == conflict.attributes["texture"])


def test_maps_are_measured_image_by_image(measured):
    model, data, table = measured
    ids = torch.arange(SMOKE.saliency_images)
    x, y = data.images[ids], data.labels[ids]
    z = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(z), y, reduction="sum"), z)
    magnitude = gradient.abs().sum(1)
    others = []
    for i in ids:  # its map with the others' edges, and their maps with its own
        both = [(a, b) for j in ids if j != i for a, b in ((i, j), (j, i))]
        others.append(torch.cat([appearance.edge_agreement(magnitude[a, None], x[b, None]) for a, b in both]).nanmean())
    for name, expected in {
        "gradient/edges": appearance.edge_agreement(magnitude, x),
        "gradient/edges-other": torch.stack(others),
        "gradient/tv": appearance.total_variation(appearance.sensitivity(gradient)),
        "gradient/mask": comparison.overlap(magnitude, data.masks[ids]),
    }.items():
        np.testing.assert_allclose(values(table, name), expected, rtol=1e-4, atol=1e-5, err_msg=name)
    with torch.no_grad():
        clean = (model(x).argmax(1) == y).numpy()
    np.testing.assert_array_equal(values(table, "pgd", 0.0), clean)
    assert (values(table, "pgd", 4.0) <= clean).all()
    few = values(table, "ensemble", 4.0)
    assert len(few) == SMOKE.ensemble_images and (few <= values(table, "pgd", 4.0)[: len(few)]).all()


def test_the_other_image_does_not_depend_on_batches(measured, monkeypatch):
    """One image at a time, as large images are measured, gives the same numbers as all at once."""
    model, _, table = measured
    monkeypatch.setattr(measure_, "batches", lambda n, size, **_: list(torch.arange(n).split(1)))
    single = pd.concat(measure_.saliency_rows(model, "linf-4", 0, SMOKE))
    for name in ("gradient/edges", "gradient/edges-other", "guided/edges-other", "alignment"):
        np.testing.assert_allclose(values(single, name), values(table, name), rtol=1e-3, atol=1e-4)
    assert not np.allclose(values(single, "gradient/edges"), values(single, "gradient/edges-other"))


@pytest.mark.parametrize("arch", ["plain", "residual", "resnet18", "efficientnet-lite0", "efficientnet-lite2"])
def test_every_method_of_a_network_is_defined_there(arch):
    model = models.create(arch, classes=3).eval()
    x, y = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([1])
    settings = measure_.settings(SMOKE)
    for method in measure_.methods(arch):
        assert by_name.raw(method, model, x, y, settings).values.isfinite().all()
    for method in measure_.METHODS.keys() - measure_.methods(arch).keys():
        with pytest.raises(ValueError, match="no ReLU ran"):
            by_name.raw(method, model, x, y, settings)


def test_views_do_not_depend_on_batches(small_home):
    whole = measure_.views(SMOKE, torch.arange(8))
    part = measure_.views(SMOKE, torch.tensor([5, 6]))
    assert [v.kind for v in whole] == [
        "clean",
        "saturation",
        "saturation",
        "shuffle",
        "shuffle",
        "style",
        "fourier",
        "conflict",
    ]
    for a, b in zip(whole, part, strict=True):
        torch.testing.assert_close(a.images[5:7], b.images, atol=1e-6, rtol=0)
        assert torch.equal(a.labels[5:7], b.labels)


def test_large_sets_are_not_kept_in_memory(small_home, monkeypatch):
    kept, made = list(measure_.prepared(SMOKE)), []
    real = measure_.views
    monkeypatch.setattr(measure_, "views", lambda *a: made.append(1) or real(*a))
    assert next(measure_.prepared(SMOKE))[0] is kept[0][0] and not made
    monkeypatch.setattr(measure_, "KEEP_BYTES", 1000)
    for (a, u), (b, v) in zip(kept, measure_.prepared(SMOKE), strict=True):
        assert torch.equal(a, b) and all(torch.equal(m.images, n.images) for m, n in zip(u, v, strict=True))
    assert len(made) == len(kept)


def test_images_that_share_a_photograph_stand_and_fall_together(small_home):
    """Of the styles that the measurement lends to images: crops of nine photographs, in turn."""
    held_out = measure_.styles.load("embedded", "test", SMOKE.size)
    lent = measure_.style_rows(SMOKE, torch.arange(len(held_out)))
    groups = statistics.by_style(SMOKE, len(held_out))["units"]
    crops = {crop.numpy().tobytes(): i for i, crop in enumerate(held_out)}
    assert groups.tolist() == [crops[style.numpy().tobytes()] % 9 for style in lent] and len(set(groups)) == 9


def test_images_that_share_a_painting_stand_and_fall_together(small_home, monkeypatch, tmp_path):
    """Of a folder a fifth of the files is held out, and each of them is lent to many images."""
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    (tmp_path / "paintings").mkdir()
    for i in range(15):
        Image.new("RGB", (40, 40), (i, 0, 0)).save(tmp_path / f"paintings/{i}.png")
    p = SMOKE.model_copy(update={"style_source": "folder:paintings"})
    lent = measure_.style_rows(p, torch.arange(10))
    shared = (lent[:, None] == lent[None]).flatten(2).all(-1).numpy()
    found = statistics.by_style(p, 10)
    assert found["unit"] == "styles" and len(set(found["units"])) == 3
    assert ((found["units"][:, None] == found["units"]) == shared).all()


def test_style_checks(small_home):
    table = measure_.measure_style(SMOKE)
    assert set(table.measure) == {"clean", "style", "style-distance"} and (table.arm == "edges").all()
    assert values(table, "clean").mean() > 0.5  # edges alone tell shapes apart, learnt from 256 images
    assert (values(table, "style-distance", 1.0) < values(table, "style-distance", 0.0)).mean() > 0.8
    assert values(table, "style-distance", 1.0).mean() < values(table, "style-distance", 2.0).mean()


def test_underfit_is_the_longest_stop_that_is_no_better(monkeypatch):
    """Against a run whose accuracy grows with its length: the last stopping point at most one point above the target."""
    lengths = []

    class Net:
        def __init__(self, accuracy):
            self.model = accuracy

    def trained(config, *, device_name):
        if config.objective == "adversarial":
            return Net(0.60)
        steps = config.stop or 8 * 31
        lengths.append(steps)
        return Net(min(0.95, 0.1 + steps / 100))

    monkeypatch.setattr(plan.cache, "trained", trained)
    monkeypatch.setattr(plan.evaluate, "accuracy", lambda model, data: model)
    found = plan.underfit(Parameters(), 0)
    points = sorted({round(plan.UNDERFIT_STEP**i) for i in range(60)})
    best = max(s for s in points if 0.1 + s / 100 <= 0.61)
    assert found.model == 0.1 + best / 100 and len(lengths) < 10
    monkeypatch.setattr(plan.evaluate, "accuracy", lambda model, data: 0.5)  # the full run is no better
    assert plan.underfit(Parameters(), 0).model == 0.95


def test_a_stopped_run_is_the_beginning_of_the_full_one(home, capsys):
    """After so many steps the weights are those that the full run had, also across epochs."""
    config = plan.config_of(SMOKE.model_copy(update={"epochs": 3}), "standard", 0)
    seen = {}
    real = objectives.standard
    counter = []

    def watched(model, x, y, moment):
        counter.append((moment.epoch, moment.batch, moment.progress))
        seen[len(counter) - 1] = model.net.head.weight.detach().clone()
        return real(model, x, y, moment)

    objectives.OBJECTIVES["standard"] = watched
    try:
        cache.trained(config)
        full = dict(seen)
        assert counter == [(e, b, (e + b / 4) / 3) for e in range(3) for b in range(4)]
        for stop in (3, 4, 6):
            counter.clear()
            stopped = cache.trained(config.model_copy(update={"stop": stop}))
            assert len(counter) == stop and f"to step {stop}: epoch {-(-stop // 4)}/{-(-stop // 4)}" in capsys.readouterr().err
            assert torch.equal(stopped.model.net.head.weight, full[stop])
    finally:
        objectives.OBJECTIVES["standard"] = real


def test_cost_counts_passes(small_home):
    p = SMOKE.model_copy(update={"attack_steps": 1})
    found = plan.cost(p).set_index("arm")
    assert found.loc["standard", "passes"] == 1 and found.loc["linf-4", "passes"] == 1.5
    assert found.loc["standard", "times standard"] == 1


def invented(gap, images=300, noise=0.05, p=None, **others):
    """A table in which adversarial arms differ from the others by `gap` in everything, in the paper's direction.

    Every gate is passed: what it looks at has a mean of its own, which `others` changes by `ARM` and measure.
    """
    p = p or Parameters()
    rng = np.random.default_rng(0)
    rows = []

    def add(arm, measure, level, mean, spread=0.1):
        mean = others.get(f"{arm}/{measure}", mean)
        for seed in range(plan.seeds_of(p, arm) if arm != "edges" else 1):
            if measure in ("clean", "style", "fourier", "conflict", "conflict-texture", "pgd", "saturation", "shuffle"):
                value = rng.random(images) < mean + rng.normal(0, noise / 10)
            else:
                value = rng.normal(mean, spread, images)
            where = {"arm": arm, "seed": seed, "image_id": range(images), "measure": measure, "level": float(level)}
            rows.append(pd.DataFrame(where | {"value": value.astype(float)}))

    for arm in p.arms:
        g = gap if plan.attacked(arm) else 0.0
        add(arm, "clean", 0, 0.95)
        for level in p.saturation:
            add(arm, "saturation", level, 0.5 + g * (level > 2) * np.log2(level) / 10)
        for k in p.shuffle:
            add(arm, "shuffle", k, 0.5 - g)
        for measure, mean in (("style", 0.28), ("fourier", 0.4), ("conflict", 0.4)):
            add(arm, measure, 1, mean + g)
        add(arm, "conflict-texture", 1, 0.4)
        for e in (0, *p.robust_eps):
            add(arm, "pgd", e, 0.6 if plan.attacked(arm) else 0.2)
        for name, sign in (("edges", 1), ("mask", 1), ("tv", -1), ("scatter", -1), ("edges-other", 0)):
            add(arm, f"smoothgrad/{name}", 0, 0.5 + sign * g - (name == "edges-other") * 0.2)
        add(arm, "alignment", 0, 2 + g)
    for level, mean in ((0.0, 1.2), (1.0, 0.3), (2.0, 0.9)):
        add("edges", "style-distance", level, mean)
    add("edges", "clean", 0, 0.98)
    add("edges", "style", 1, 0.999)
    return pd.concat(rows, ignore_index=True)


@pytest.fixture(scope="module", autouse=True)
def fewer_draws():
    """What is planted here is far from any edge: a hundred resamples tell it as five hundred do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims_, "Court", functools.partial(claims_.Court, draws=100))
        yield


def judged(table, p=None, **options):
    return {c.id: c for c in claims_.judge(table, p or Parameters(), **options)}


def verdicts(table, p=None, **options):
    return {id: c.verdict for id, c in judged(table, p, **options).items()}


@pytest.fixture(scope="module")
def gains():
    """The rows where adversarial training gains what the paper says."""
    return claims_.judge(invented(0.25), Parameters())


def test_true_claims_are_supported_and_their_opposites_contradicted(gains):
    up, down = {c.id: c.verdict for c in gains}, verdicts(invented(-0.25))
    core = [
        f"{name}/{arm}{rival}"
        for name in (
            "contours-edges",
            "contours-mask",
            "contours-tv",
            "alignment",
            "own-edges",
            "scatter",
            "style",
            "style-ratio",
            "fourier",
            "saturated",
            "shuffled-4",
            "shuffled-8",
        )
        for arm in Parameters().headline
        for rival in (("", "/over-underfit") if arm == "linf-4" else ("",))
    ]
    for id in core:
        assert up[id] == "supported" and down[id] == "contradicted", id
    for id in ("style-matched", "style-own", "shape-kept", "robust/linf-4", "robust/l2-1.14"):
        assert up[id] == down[id] == "supported", id


def test_published_networks_are_judged_alone_and_by_name():
    """One network an arm: images decide, and the sentences say whose the networks are; the style transfer is one of ours."""
    p = Parameters(**AUTHORS)
    found = judged(invented(0.25, p=p), p)
    assert {c.id for c in found.values() if c.kind == "primary"} == set(claims_.primaries(p))
    for id in claims_.primaries(p):
        assert found[id].verdict == "supported" and "Small of Boopathy et al." in found[id].statement, id
        assert "of another training nothing is said" in found[id].note
    assert "Boopathy" not in found["style-matched"].statement and not any("underfit" in id for id in found)


def test_where_nothing_differs_nothing_is_concluded():
    found = verdicts(invented(0.0))
    names = ("alignment", "style", "style-ratio", "saturated", "shuffled-4", "contours-tv")
    core = [v for id, v in found.items() if id.split("/")[0] in names]
    assert sum(v in ("inconclusive", "negligible") for v in core) >= 0.8 * len(core)


def test_the_primaries_are_among_the_rows_and_each_sentence_reads_alone(gains):
    assert {c.id for c in gains if c.kind == "primary"} == set(claims_.primaries(Parameters()))
    sentences.check(gains)


@pytest.mark.parametrize(
    ("others", "barred", "free", "why"),
    [
        (
            {"standard/clean": 0.5},
            {"contours-edges/linf-4", "style-ratio/l2-1.14", "saturated/linf-4/over-underfit", "robust/linf-4"},
            {"shape-kept"},
            r"the standard network is right on enough clean images \(above 0.6 asked",
        ),
        (
            {"standard/style": 0.6},
            {"style/linf-4", "style-ratio/linf-4", "style-ratio/linf-4/over-underfit", "underfit-style", "ratio-rises"},
            {"contours-edges/linf-4", "fourier/linf-4", "saturated/linf-4", "shape-bias/linf-4"},
            r"takes from the standard network as much as published: .* \(below 0.35 asked",
        ),
        (
            {"edges/style": 0.6},
            {"style/linf-4", "style-ratio/linf-4", "fgsm-anomaly"},
            {"contours-edges/linf-4", "shuffled-4/linf-4"},
            r"keeps the shape: .* \(above 0.9 asked",
        ),
        (
            {"linf-4/pgd": 0.25},
            {"contours-edges/linf-4", "shuffled-4/linf-4/over-underfit", "style-ratio/linf-4", "l2-over-linf"},
            {"contours-edges/l2-1.14", "style-ratio/l2-1.14", "robust/linf-4", "ratio-rises"},
            r"PGD-L∞ 4/255 stands clearly above the standard network under PGD",
        ),
        (
            {"underfit/clean": 0.7},
            {"contours-edges/linf-4/over-underfit", "style/linf-4/over-underfit", "underfit-style", "underfit-saturated"},
            {"contours-edges/linf-4", "style/linf-4"},
            r"Underfit is as accurate as PGD-L∞ 4/255 on clean images \(within 0.03 asked, -",
        ),
        (
            {"underfit/clean": 0.4, "linf-4/clean": 0.4},
            {"contours-edges/linf-4/over-underfit"},
            {"contours-edges/linf-4"},
            r"Underfit is right on enough clean images \(above 0.5 asked",
        ),
    ],
)
def test_what_must_hold_for_a_claim_is_asked(others, barred, free, why):
    found = judged(invented(0.25, **others))
    assert {found[id].verdict for id in barred} == {"not testable here"}
    for id in barred:
        assert re.search(why, found[id].note), found[id].note
    assert "not testable here" not in {found[id].verdict for id in free}


def test_one_run_is_one_network_unless_other_arms_say_how_runs_vary(gains):
    by = {c.id: c for c in gains}
    assert by["fgsm-anomaly"].verdict == "one network" != by["ratio-rises"].verdict
    assert by["own-edges/linf-4"].n == "300 images, 5 seeds"  # `over_pairs` knows that images share pairs


def without_underfit(table, seeds):
    """The table as it is where Underfit is the standard network in these seeds."""
    copied = table[(table.arm == "standard") & table.seed.isin(seeds)].assign(arm="underfit")
    return pd.concat([table[(table.arm != "underfit") | ~table.seed.isin(seeds)], copied])


def test_where_there_is_no_underfit_network_nothing_about_it_is_judged():
    """Where adversarial training costs no accuracy, Underfit is the standard network: a copy is no control."""
    claims = claims_.judge(without_underfit(invented(0.25), range(5)), Parameters())
    about = [c for c in claims if "underfit" in c.id]
    assert len(about) > 10 and {c.verdict for c in about} == {"not tested"}
    assert all("Underfit exists in 0 of 5 seeds" in c.note for c in about)
    assert {c.id: c.verdict for c in claims}["style/linf-4"] == "supported"
    sentences.check(claims)


def test_underfit_is_judged_on_the_seeds_that_have_one():
    table = invented(0.25)
    by = judged(without_underfit(table, [1]))
    claim = by["style/linf-4/over-underfit"]
    assert "300 images of 9 photographs of the styles, 4 seeds" in claim.n and "Underfit exists in 4 of 5 seeds" in claim.note
    some = table[table.seed != 1]
    mean = some[some.measure == "style"].groupby("arm").value.mean()
    assert claim.value == pytest.approx(mean["linf-4"] - mean["underfit"])
    assert "5 seeds" in by["style/linf-4"].n and by["style/linf-4"].note == ""


def test_grey_images_go_all_the_way(home):
    p = SMOKE.model_copy(update={"channels": 1})
    data = plan.evaluation_set(p)
    tables = [measure_.measure(p, arm, 0) for arm in p.arms]
    table = pd.concat([*tables, measure_.measure_style(p)])
    assert np.isfinite(table.value[~table.measure.str.contains("/")]).all()
    assert len(claims_.judge(table, p, test=False)) > 30
    model = plan.network(p, "standard", 0).model
    seen = explorer.Seen("a", model, data.images[:1], data.images[1:2], 0, data.classes)
    view = explorer.draw([seen], eps=0.01, method="smoothgrad", settings=measure_.settings(p))
    assert len(view._repr_png_()) > 5000 and "edge agreement" in view.text


def test_few_right_images_are_counted_and_said_in_the_note():
    p = Parameters(min_correct=100)
    table = invented(0.25, p=p)
    clean = (table.arm == "l2-1.14") & (table.measure == "clean") & (table.seed == 1)
    table.loc[clean, "value"] = (table.image_id[clean] < 150).astype(float)
    by = judged(table, p)
    assert by["shuffled-4/l2-1.14"].note == "rests on 150 right images in the network with fewest, fewer than 200"
    assert by["shuffled-4/linf-4"].note == ""


def test_kinds_and_ids(gains):
    ids = [c.id for c in gains]
    assert len(set(ids)) == len(ids) and {c.study for c in gains} == {"02"}
    by = {c.id: c for c in gains}
    assert by["style/linf-4"].kind == by["style-ratio/l2-1.14"].kind == "claim"
    assert by["style/linf-4/over-underfit"].kind == by["conflict/linf-4"].kind == by["robust/linf-4"].kind == "control"
    left_open = ("ratio-rises", "fgsm-anomaly", "l2-over-linf", "full-share", "shuffled-grows/linf-4", "shuffled-2/linf-4")
    assert all(by[i].kind == "open question" for i in left_open)
    assert "1 seed (spread over seeds as in other arms)" in by["ratio-rises"].n and "5 seeds" in by["style/linf-4"].n
    assert set(verdicts(invented(0.1), test=False).values()) == {"not tested"}


def test_the_ratio_by_hand():
    values = {("a", "clean", 0.0): np.array([[1, 1, 1, 0], [1, 0, 1, 0]]), ("a", "style", 1.0): np.array([[1, 0, 0, 0]] * 2)}
    statistic = statistics.Cubes(values, {}).ratio("a", 1.0)
    assert statistic(np.arange(4), np.arange(2)) == pytest.approx(2 / 5)
    assert np.isnan(statistic(np.array([3]), np.arange(2)))  # nothing is right as it is


def test_shape_bias_by_hand():
    table = pd.DataFrame(
        [
            ("a", 0, i, m, 1.0, v)
            for m, row in (("conflict", [1, 0, 1, 0]), ("conflict-texture", [0, 1, 0, 0]))
            for i, v in enumerate(row)
        ],
        columns=["arm", "seed", "image_id", "measure", "level", "value"],
    )
    statistic = statistics.shape_bias(statistics.Cubes.of(table, 1), "a")
    assert statistic(np.arange(4), np.arange(1)) == pytest.approx(2 / 3)
    assert np.isnan(statistic(np.array([3]), np.arange(1)))  # no decision for either cue


def test_retention_by_hand_and_too_few_right_images():
    table = pd.DataFrame(
        [
            ("a", s, i, m, 0.0 if m == "clean" else 4.0, v)
            for s, clean, after in ((0, [1, 1, 0, 1], [1, 0, 1, 0]), (1, [1, 1, 1, 1], [1, 1, 0, 0]))
            for m, row in (("clean", clean), ("shuffle", after))
            for i, v in enumerate(row)
        ],
        columns=["arm", "seed", "image_id", "measure", "level", "value"],
    )
    everything = np.arange(4), np.arange(2)
    assert statistics.Cubes.of(table, 3).retention("a", "shuffle", 4.0)(*everything) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert np.isnan(statistics.Cubes.of(table, 4).retention("a", "shuffle", 4.0)(*everything))
    p = Parameters(min_correct=299)
    found = judged(invented(0.25, p=p), p)
    assert found["saturated/linf-4"].verdict == found["shuffled-4/linf-4"].verdict == "not tested"
    assert found["fourier/linf-4"].verdict == "supported" and found["style/linf-4"].verdict == "not testable here"
    assert "which is right on fewer than 299 clean images (above 0.9 asked, nan found)" in found["style/linf-4"].note


def test_data_without_masks_or_conflict_and_without_underfit():
    p = Parameters(arms=("standard", "linf-4"), headline=("linf-4",))
    table = invented(0.25, p=p)
    table = table[~table.measure.isin(["smoothgrad/mask", "conflict", "conflict-texture"])]
    found = verdicts(table, p)
    assert found["style/linf-4"] == "supported" and not any("mask" in i or "conflict" in i or "underfit" in i for i in found)


def test_a_variant_is_told_apart():
    p = Parameters(variant="other")
    assert all(c.id.endswith("@other") for c in claims_.judge(invented(0.1), p))
