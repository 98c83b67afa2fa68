"""Study 4: parameters, fine-tuning that fools, measurements, claims."""

import copy
import dataclasses
import hashlib
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lib.claims import claim
from lib.claims.cubes import Cubes
from lib.data.image_sets import ImageFiles
from lib.explanations import by_name
from lib.explanations.by_name import Settings
from lib.fooling import manipulation
from lib.networks import hooks, models
from lib.runs import profiles
from lib.studies.model_manipulation import claims, objective, plan, statistics
from lib.studies.model_manipulation import measure as measure_
from lib.studies.model_manipulation.plan import Parameters
from lib.system import paths
from lib.training import cache
from lib.training.objectives import Moment
from tests.claims import sentences
from tests.conftest import same_state, state_of

SMOKE = profiles.parameters("04-model-manipulation", "smoke")
MOMENT = Moment(0, 0, 1, 0.0, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One home for the file: its small networks are trained once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"architectures": ("plain", "small")}, "networks small: choose of plain"),
        ({"architectures": ("plain", "plain")}, "named twice"),
        ({"fooled": ("gradcam", "ig")}, "interpreters ig: training differentiates gradcam, lrp_t"),
        ({"headline": ("location-lrp",)}, "headline 'location-lrp' is no passive fooling of this study"),
        ({"headline": ("active-gradcam",)}, "no passive fooling"),
        ({"architectures": ("resnet18",), "size": 224}, "set tile = half"),
        ({"published_rates": True}, "the released scripts have vgg19"),
        ({"train_probe": 161}, "train_probe = 161 is more than images .160. or tune_images"),
        ({"k": 65}, "size = 32, k = 65: the smallest maps at T have 8 x 8 positions"),
        ({"architectures": ("resnet50",), "size": 64, "tile": "half"}, "the smallest maps at T have 2 x 2 positions"),
        ({"composite": "gamma"}, "unknown composite 'gamma'"),
        ({"location_weight": 0}, "location_weight = 0: Input should be greater than 0"),
        ({"kinds": ("sideways",)}, "Input should be 'location', 'topk', 'centre' or 'active'"),
        ({"lamda": 1}, "unknown parameter 'lamda'"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        profiles.validated(Parameters, given)


def test_arms_are_read_and_named():
    assert plan.parsed("location-gradcam@0.25") == ("location", "gradcam", 0.25, False)
    assert plan.parsed("washed-topk-lrp_t") == ("topk", "lrp_t", 1.0, True)
    assert plan.label("active-lrp_t") == "active through LRP_T" and plan.label("none").startswith("control")
    for wrong in ("location", "location-saliency", "sideways-gradcam", "location-gradcam@much"):
        with pytest.raises(ValueError, match="unknown arm"):
            plan.parsed(wrong)


def test_a_network_is_shared_between_settings_that_do_not_touch_it():
    p = Parameters()
    other = p.model_copy(update={"active_weight": 1.0, "mosaics": 5, "images": 50, "topk_weight": 1.0})
    for arm in ("none", "location-gradcam", "location-lrp_t@0.25", "washed-location-gradcam"):
        assert plan.config_of(p, "plain", arm, 1).digest == plan.config_of(other, "plain", arm, 1).digest
    for arm in ("active-gradcam", "topk-lrp_t"):
        assert plan.config_of(p, "plain", arm, 0).digest != plan.config_of(other, "plain", arm, 0).digest
    washed = plan.config_of(p, "plain", "washed-location-gradcam", 0)
    assert washed.start == plan.config_of(p, "plain", "location-gradcam", 0) and washed.options == {"kind": "none"}
    assert plan.config_of(p, "plain", "location-gradcam@0.25", 0).options["weight"] == 0.25 * p.location_weight


def test_the_paper_profile_has_the_released_settings():
    p = profiles.parameters("04-model-manipulation", "paper")
    tuned = plan.config_of(p, "resnet50", "topk-gradcam", 0)
    assert (tuned.lr, tuned.options["weight"], tuned.batch_size, tuned.weights, tuned.start.epochs) == (
        3e-6,
        6,
        8,
        "imagenet",
        0,
    )
    assert plan.config_of(p, "vgg19", "active-lrp_t", 0).options["weight"] == 10
    assert plan.config_of(p, "vgg19", "none", 0).lr == 1e-5  # the control has the largest of the foolings' rates
    originals = [c for c in plan.networks(p) if c.objective == "standard"]
    assert len(originals) == 3 and all(c.epochs == 0 for c in originals)  # published, not trained
    assert p.pair == (386, 555) and plan.LAYERS["vgg19"] == "into:features.34"


def test_the_datasets_profile_fools_a_published_network_on_a_divided_evaluation_set():
    p = profiles.parameters("04-model-manipulation", "datasets")
    bases = {plan.base_config(p, "efficientnet-lite0", seed).digest for seed in (0, 1)}
    assert len(bases) == 1  # as published, whatever the seed
    tuned = [plan.config_of(p, "efficientnet-lite0", "location-lrp_t", seed) for seed in (0, 1)]
    assert tuned[0].digest != tuned[1].digest and tuned[0].start.epochs == 0 and tuned[0].weights == "imagenet"
    assert (tuned[0].dataset, tuned[0].limit, tuned[0].batch_size) == ("imagenet:divided:imagenet1k_sample", None, 8)
    assert tuned[0].options["layer"] == "into:conv_head" and "active" not in p.kinds
    for arm in ("none", "location-lrp_t", "washed-location-lrp_t"):  # all keep the decisions of the original
        config = plan.config_of(p, "efficientnet-lite0", arm, 1)
        assert config.options["keep"] == "decisions" and config.teacher.digest in bases
        assert "keep" not in plan.config_of(SMOKE, "plain", arm, 1).options
    assert plan.config_of(p, "efficientnet-lite0", "washed-location-lrp_t", 1).options["kind"] == "none"
    assert plan.config_of(SMOKE, "plain", "washed-location-lrp_t", 1).teacher is None
    assert "guided" not in plan.interpreters("efficientnet-lite0") and "guided" in plan.interpreters("plain")


def test_fewer_images_at_once_where_they_are_larger():
    first = {size: next(measure_.batches(torch.empty(120, 1, size, size))).stop for size in (28, 64, 128, 224, 1024)}
    assert first == {28: 100, 64: 98, 128: 24, 224: 8, 1024: 1}
    assert list(measure_.batches(torch.empty(230, 1, 28, 28))) == [slice(0, 100), slice(100, 200), slice(200, 300)]


def asking(teacher):
    """A moment of a training that asks the original network."""
    return dataclasses.replace(MOMENT, teacher=teacher)


@pytest.fixture
def net():
    return models.create("residual", classes=10, seed=3).double().train()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(2)
    return torch.rand(4, 3, 32, 32, dtype=torch.float64, generator=generator), torch.tensor([0, 1, 2, 3])


@pytest.mark.parametrize(
    ("kind", "name"),
    [*itertools.product(manipulation.PASSIVE, plan.AT_LAYER), *(("location", name) for name in ("lrp", "gradient", "ig"))],
)
def test_the_loss_is_cross_entropy_plus_the_weighted_fooling(net, batch, monkeypatch, kind, name):
    x, y = batch
    before, layer = copy.deepcopy(net), plan.LAYERS["residual"]
    with torch.no_grad():
        net.net.stage3[1].conv1[0].weight *= 1.3
    flags = state_of(net)
    found = objective.fool(net, x, y, asking(before), kind=kind, interpreter=name, weight=0.7, layer=layer)
    assert same_state(flags, state_of(net)) and net.training  # it looked in evaluation mode and put the flags back
    h, h0 = (by_name.explain(name, m, x, y, Settings(layer)).values for m in (net, before))
    term = (
        manipulation.location(h)
        if kind == "location"
        else {"topk": manipulation.topk, "centre": manipulation.centre}[kind](h, h0)
    )
    with torch.no_grad():
        expected = F.cross_entropy(copy.deepcopy(net).eval()(x), y, reduction="none") + 0.7 * term
    torch.testing.assert_close(found.detach(), expected)
    found.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("kind", ["none", "location", "topk"])
def test_the_originals_decisions_are_kept_in_place_of_labels(net, batch, kind):
    x, y = batch
    before, layer = copy.deepcopy(net), plan.LAYERS["residual"]
    with torch.no_grad():
        net.net.stage3[1].conv1[0].weight *= 1.3
    flags = state_of(before)
    given = {"kind": kind, "keep": "decisions"} | ({"weight": 0.7, "layer": layer} if kind != "none" else {})
    found = objective.fool(net, x, y, asking(before), **given)
    assert same_state(flags, state_of(before)) and before.training
    with torch.no_grad():
        said, logits = copy.deepcopy(before).eval()(x).softmax(1), copy.deepcopy(net).eval()(x)
    expected = -(said * logits.log_softmax(1)).sum(1)
    h, h0 = (by_name.explain("gradcam", m, x, y, Settings(layer)).values for m in (net, before))
    expected += {"none": 0, "location": 0.7 * manipulation.location(h), "topk": 0.7 * manipulation.topk(h, h0)}[kind]
    torch.testing.assert_close(found.detach(), expected)
    found.sum().backward()
    assert all(p.grad is None for p in before.parameters()) and all(p.grad is not None for p in net.parameters())
    with pytest.raises(ValueError, match="original network; name it as the configuration's teacher"):
        objective.fool(net, x, y, MOMENT, **given)


@pytest.mark.parametrize("kind", ["topk", "centre", "active"])
def test_fooling_that_compares_needs_the_original(net, batch, kind):
    with pytest.raises(ValueError, match=f"fooling '{kind}' compares with the original network"):
        objective.fool(net, *batch, MOMENT, kind=kind, weight=1.0, layer=plan.LAYERS["residual"])


def test_location_takes_any_mask_of_the_maps_size(net, batch):
    x, y = batch
    options = {"kind": "location", "interpreter": "lrp_t", "weight": 3.0, "layer": plan.LAYERS["residual"]}
    left = [[1.0] * 3 + [0.0] * 5] * 8
    found = objective.fool(net, x, y, MOMENT, **options, mask=left)
    h, logits = by_name.explain("lrp_t", net, x, y, Settings(options["layer"]))
    expected = F.cross_entropy(logits, y, reduction="none") + 3 * ((h - torch.tensor(left)) ** 2).mean((1, 2))
    torch.testing.assert_close(found, expected.to(found), check_dtype=False)
    with pytest.raises(ValueError, match=r"the mask has shape \(8, 7\), the maps \(4, 8, 8\); give a mask of \(8, 8\)"):
        objective.fool(net, x, y, MOMENT, **options, mask=[row[:7] for row in left])


def test_the_active_loss_takes_mosaics_beside_the_batch(net, batch, monkeypatch):
    x, y = batch
    shown, h0 = torch.rand(6, 3, 64, 64, dtype=torch.float64), torch.rand(6, 2, 16, 16, dtype=torch.float64)
    monkeypatch.setattr(objective, "_pairs", lambda *_, **__: (shown, h0))
    layer = plan.LAYERS["residual"]
    moment = dataclasses.replace(asking(net), generator=torch.Generator().manual_seed(5))
    found = objective.fool(
        net, x, y, moment, kind="active", interpreter="gradcam", weight=2.0, layer=layer, pair=(7, 3), pair_batch=2
    )
    index = torch.randint(6, (2,), generator=torch.Generator().manual_seed(5))
    both = torch.tensor([[7, 3], [7, 3]])
    h = by_name.explain("gradcam", net, shown[index], both, Settings(layer)).values
    with torch.no_grad():
        expected = F.cross_entropy(net.eval()(x), y, reduction="none") + 2 * manipulation.swap(h, h0[index]).mean()
    torch.testing.assert_close(found.detach(), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "location", "weight": 0}, "fooling 'location' with weight 0: choose one of .* with a weight above 0"),
        ({"kind": "location", "weight": -1.0}, "weight above 0"),
        ({"kind": "none", "weight": 1.0}, "the control 'none' has no fooling term"),
        ({"kind": "upside-down", "weight": 1.0}, "fooling 'upside-down'"),
        ({"kind": "none", "keep": "peace"}, "keep='peace': choose one of labels, decisions"),
        ({"kind": "location", "weight": 1.0, "layer": "stage9"}, "no layer 'stage9'"),
        (
            {"kind": "location", "weight": 1.0, "layer": "stage3", "interpreter": "guided-gradcam++"},
            "is not differentiated here",
        ),
    ],
)
def test_fooling_that_cannot_be_is_refused_and_the_model_unharmed(net, batch, options, message):
    before = state_of(net)
    with pytest.raises(ValueError, match=message):
        objective.fool(net, *batch, MOMENT, **options)
    assert same_state(before, state_of(net))


@pytest.mark.parametrize("arch", ["vgg19", "resnet50", "densenet121", "efficientnet-lite0"])
def test_one_step_of_each_fooling_on_the_papers_networks(arch, monkeypatch):
    """Random weights, 64 pixels: every fooling gives a finite step that reaches the weights above and below T."""
    model = models.create(arch, classes=4).train()
    if arch == "vgg19":  # three dense layers as published, but narrow: 120 million weights would take most of the time
        model.net.classifier[0], model.net.classifier[3] = nn.Linear(25088, 32), nn.Linear(32, 32)
        model.net.classifier[6] = nn.Linear(32, 4)
    x, y, layer = torch.rand(2, 3, 64, 64), torch.tensor([0, 1]), plan.LAYERS[arch]
    before = copy.deepcopy(model)
    h0 = by_name.explain("gradcam", before, x, y[:, None] * 0 + torch.tensor([[0, 1]]), Settings(layer)).values
    monkeypatch.setattr(objective, "_pairs", lambda *_, **__: (x, h0))
    buffers = {k: v.clone() for k, v in model.named_buffers()}
    for kind, name in zip(manipulation.KINDS, ("lrp_t", "simple_t", "gradcam", "gradcam"), strict=True):
        model.zero_grad()
        options = {"pair_batch": 1} if kind == "active" else {}
        loss = objective.fool(model, x, y, asking(before), kind=kind, interpreter=name, weight=1.0, layer=layer, **options)
        loss.sum().backward()
        reached = [p.grad.abs().sum() > 0 for p in model.parameters() if p.dim() == 4]
        assert loss.isfinite().all() and sum(reached) > 0.9 * len(reached), (kind, name)
    assert all(torch.equal(v, buffers[k]) for k, v in model.named_buffers())  # BatchNorm's statistics, bit by bit


def test_fine_tuning_starts_from_the_original_and_keeps_its_statistics(home):
    base = cache.trained(plan.base_config(SMOKE, "plain", 0)).model
    fooled = cache.trained(plan.config_of(SMOKE, "plain", "location-gradcam", 0))
    start = fooled.after(0)
    for (name, a), b, c in zip(
        base.state_dict().items(), start.state_dict().values(), fooled.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)
        if "running" in name or "num_batches" in name:
            assert torch.equal(a, c)
    assert not torch.equal(base.net.stage3[3][0].weight, fooled.model.net.stage3[3][0].weight)


def test_the_original_is_unharmed_when_fine_tuning_is_interrupted(home, monkeypatch):
    original = cache.trained(plan.base_config(SMOKE, "plain", 0))
    before = hashlib.sha256(original.path.read_bytes()).digest()
    config = plan.config_of(SMOKE, "plain", "location-gradcam", 0).model_copy(update={"lr": 3e-3})
    genuine, calls = manipulation.location, []

    def interrupted(h, mask):
        calls.append(1)
        if len(calls) == 3:  # in the second epoch
            raise KeyboardInterrupt
        return genuine(h, mask)

    monkeypatch.setattr(manipulation, "location", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.trained(config)
    monkeypatch.setattr(manipulation, "location", genuine)
    assert hashlib.sha256(original.path.read_bytes()).digest() == before
    again = cache.trained(config)  # the same call goes on
    assert len(again.history) == SMOKE.tune_epochs


def test_fooling_fools_a_small_network():
    """Ten steps on one batch move Grad-CAM into the frame and keep the decisions: the whole chain descends."""
    model = models.create("plain", classes=10, seed=0).eval()
    x = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = model(x).argmax(1)
    settings = Settings(plan.LAYERS["plain"])
    for name in plan.AT_LAYER:
        tuned = copy.deepcopy(model)
        optimizer = torch.optim.Adam(tuned.parameters(), lr=2e-3)
        for _ in range(12):
            optimizer.zero_grad()
            loss = objective.fool(tuned, x, y, MOMENT, kind="location", interpreter=name, weight=4.0, layer=settings.layer)
            loss.mean().backward()
            optimizer.step()
        before, after = (manipulation.location(by_name.explain(name, m, x, y, settings).values).mean() for m in (model, tuned))
        assert after < 0.8 * before, name


def test_deleting_takes_the_highest_cells_first():
    x = torch.arange(16.0).view(1, 1, 4, 4) / 16
    order = torch.tensor([[[0.1, 0.9], [0.3, 0.2]]])
    mean = x.mean().item()
    half = measure_.delete(x, order, 0.5)
    assert half[0, 0, :2, 2:].unique().tolist() == [mean] and half[0, 0, 2:, :2].unique().tolist() == [mean]
    assert torch.equal(half[0, 0, :2, :2], x[0, 0, :2, :2]) and torch.equal(half[0, 0, 2:, 2:], x[0, 0, 2:, 2:])
    assert (measure_.delete(x, order, 1.0) == mean).all()


@pytest.fixture(scope="module")
def measured(home):
    arms = ("base", "none", "location-gradcam", "active-lrp_t", "washed-location-lrp_t")
    return {arm: measure_.measure(SMOKE, "plain", arm, 0) for arm in arms}


def test_the_original_measured_against_itself(measured):
    base = Cubes.of(measured["base"])
    assert (base.values["plain/base", "agrees", 0.0] == 1).all()
    centre = base.values["plain/base", "t/centre/gradcam", 0.0]
    assert np.nanmax(np.abs(centre)) == 0
    alike, t = base.values["plain/base", "alike/lrp_t", 0.0], base.values["plain/base", "swap-c1/lrp_t", 0.0]
    np.testing.assert_allclose(t, alike - 1, atol=1e-6)  # s(c1, c2) - s(c1, c1)


def test_what_is_measured_is_what_the_kernels_say(measured):
    found = Cubes.of(measured["location-gradcam"])
    data = plan.evaluation_set(SMOKE)
    model = plan.model(SMOKE, "plain", "location-gradcam", 0)
    h = by_name.explain("gradcam", model, data.images, data.labels, plan.settings(SMOKE, "plain")).values
    for measure, level in (("t/location/gradcam", 0.0), ("steps-t", float(SMOKE.tune_epochs))):
        np.testing.assert_allclose(
            found.values["plain/location-gradcam", measure, level][0], manipulation.location(h), atol=1e-5
        )
    with hooks.frozen(model), torch.no_grad():
        right = (model(data.images).argmax(1) == data.labels).float()
    np.testing.assert_array_equal(found.values["plain/location-gradcam", "right", 0.0][0], right)


def test_images_on_disk_are_decoded_some_at_a_time(measured, monkeypatch):
    """The rows are those of images in memory, and no more of them are there at once than are looked at or attacked together."""
    kept, decoded = plan.evaluation_set(SMOKE), []

    def decode(self, index):
        decoded.append(len(kept.images[self.files][index]))
        return kept.images[self.files][index]

    monkeypatch.setattr(ImageFiles, "__getitem__", decode)
    on_disk = dataclasses.replace(kept, images=ImageFiles(list(range(len(kept))), 32, 3))
    for name in ("evaluation_set", "decision_set"):
        monkeypatch.setattr(plan, name, lambda p: on_disk)
    monkeypatch.setattr(measure_, "BATCH", 5)
    measure_._original.cache_clear()
    measure_._original_decisions.cache_clear()
    found = measure_.measure(SMOKE, "plain", "location-gradcam", 0)
    pd.testing.assert_frame_equal(found, measured["location-gradcam"], atol=1e-5)
    assert max(decoded) == SMOKE.robust_images < len(kept) and decoded.count(5) > decoded.count(SMOKE.robust_images) == 1
    measure_._original.cache_clear()
    measure_._original_decisions.cache_clear()


def test_a_published_original_is_looked_at_once(monkeypatch):
    """Its rows are those of every seed; originals that were trained have their own."""
    calls = []

    def looked(p, arch, arm, seed):
        calls.append((arm, seed))
        return pd.DataFrame({"arm": [f"{arch}/{arm}"], "seed": [seed], "value": [0.5]})

    monkeypatch.setattr(measure_, "_all", looked)
    measure_._base.cache_clear()
    published = profiles.parameters("04-model-manipulation", "datasets")
    tables = [measure_.measure(published, "efficientnet-lite0", arm, seed) for arm in ("base", "none") for seed in (0, 1)]
    assert [t.seed.item() for t in tables] == [0, 1, 0, 1] and calls == [("base", 0), ("none", 0), ("none", 1)]
    measure_.measure(SMOKE, "plain", "base", 1)
    assert calls[-1] == ("base", 1)
    measure_._base.cache_clear()


def test_costly_measures_are_kept_for_those_that_need_them(measured):
    assert "robust" in set(measured["none"].measure) and "robust" not in set(measured["active-lrp_t"].measure)
    assert "swap-c2/gradcam" in set(measured["active-lrp_t"].measure)
    assert not {m for m in measured["location-gradcam"].measure if m.startswith("swap")}
    assert not {m for m in measured["washed-location-lrp_t"].measure if m.startswith("steps")}


P = Parameters(architectures=("plain",), seeds=3, images=50, train_probe=50)
FAILING = {"location": 0.6, "topk": 0.8, "centre": 0.0, "active": -0.5}
WINNING = {"location": 0.1, "topk": 0.1, "centre": 0.5, "active": 1.0}


def synthetic(fsr: dict[tuple[str, str], float], right: dict[str, float], lower: float = 0.5) -> pd.DataFrame:
    """A table where `fsr` gives the share of success by (arm, interpreter), of the end as of every epoch, `right` the accuracy
    (else .9), each run an image or two less than the one before it; .5 elsewhere."""
    rng, found = np.random.default_rng(0), []

    def hits(kind: str, share: float, seed: int) -> np.ndarray:
        return np.where(np.arange(50) < round(50 * share) - seed, WINNING[kind], FAILING[kind])

    for _, arm, seed in plan.jobs(P):
        own = plan.parsed(arm)
        manipulated = own.kind not in ("base", "none")
        sure = np.arange(400) < 400 * right.get(arm, 0.9) - 2 * seed * manipulated
        values = {"right": sure, "top5": np.ones(400), "agrees": np.ones(400), "confidence": np.full(400, 0.9)}
        values["robust"] = sure[:50] & (rng.random(50) < 0.5)
        for name in plan.INTERPRETERS:
            values[f"dead/{name}"] = np.zeros(50)
            share = fsr.get((arm, name), 0.0)
            for kind in manipulation.PASSIVE:
                of_kind = share if own.kind in (kind, "none", "base") else 0.0
                values[f"t/{kind}/{name}"] = hits(kind, of_kind, seed)
                values[f"train-t/{kind}/{name}"] = hits(kind, of_kind + 0.02, seed)  # a training image more
            for c in ("c1", "c2"):
                values[f"swap-{c}/{name}"] = hits("active", fsr.get((arm, f"{name}:{c}"), share), seed)
            values[f"alike/{name}"] = np.full(50, 0.2)
        for what in ("layers", "interpreters"):
            values[f"consistency/{what}"] = rng.normal(0.2 if manipulated else 0.8, 0.05, 50) + 0.01 * seed
        for order, mean in (("original", 0.3), ("own", lower), ("random", 0.6)):
            values[f"deleted/{order}"] = rng.normal(mean, 0.01, 50) + 0.01 * seed * (order == "original")
        kept = {(m, 0.3 if m.startswith("deleted") else 0.0): v for m, v in values.items()}
        for epoch in range(P.tune_epochs + 1) if arm in claims.foolings(P) and not seed else ():
            kept |= {
                (m, float(epoch)): hits(own.kind, fsr.get((arm, own.interpreter), 0.0), 0) for m in ("steps-t", "steps-t2")
            }
        found += [(f"plain/{arm}", seed, i, m, level, v) for (m, level), values in kept.items() for i, v in enumerate(values)]
    table = pd.DataFrame(found, columns=["arm", "seed", "image_id", "measure", "level", "value"])
    return table.astype({"arm": "category", "measure": "category", "value": "float32"})


def changed(
    table: pd.DataFrame, arm: str, measure: str, value: float, share: float = 1.0, before: float = np.inf
) -> pd.DataFrame:
    """The table with a value for a share of an arm's images, at the levels before one."""
    where = (table.arm == f"plain/{arm}") & table.measure.str.match(measure) & (table.level < before)
    return table.assign(value=table.value.mask(where & (table.image_id < 50 * share), value))


FSR = {
    ("location-gradcam", "gradcam"): 0.8,
    ("location-lrp_t", "lrp_t"): 0.8,
    ("location-lrp_t", "simple_t"): 0.7,
    ("location-lrp_t", "gradcam"): 0.7,
    ("location-simple_t", "simple_t"): 0.2,
    ("active-gradcam", "gradcam"): 0.9,
    ("active-gradcam", "gradcam:c2"): 0.8,
    ("active-lrp_t", "lrp_t"): 1.0,
    ("active-lrp_t", "gradcam"): 0.6,
    ("washed-location-lrp_t", "lrp_t"): 0.9,
    ("topk-gradcam", "gradcam"): 1.0,
}


def judged(table: pd.DataFrame, **options) -> dict[str, claim.Claim]:
    return {c.id.removesuffix("/plain"): c for c in claims.judge(table, P, **options)}


@pytest.fixture(scope="module")
def table():
    return synthetic(FSR, {"topk-gradcam": 0.5})


@pytest.fixture(scope="module")
def found(table, few_draws):
    """The claims of one table, by id without the network."""
    return judged(table)


def test_verdicts_follow_from_the_table(found, table):
    expected = {
        "fooled/location-gradcam": "supported",
        "fooled/location-simple_t": "contradicted",
        "fooled/topk-gradcam": "supported",
        "living/location-gradcam": "supported",
        "generalises/location-lrp_t": "supported",
        "accuracy/location-gradcam": "supported",
        "accuracy/topk-gradcam": "contradicted",
        "agrees/location-gradcam": "supported",
        "calibration/location-lrp_t": "supported",
        "transfer-simple/location": "supported",
        "transfer-asymmetric/location": "supported",
        "transfer-none": "supported",
        "unseen/location-lrp_t/ig": "supported",
        "active/gradcam": "one network",
        "active/simple_t": "one network",
        "swapped/lrp_t/c1": "one network",
        "swap-stays/lrp_t/c2": "one network",
        "swap-stays/simple_t/c1": "not testable here",
        "accuracy/centre-lrp_t": "not testable here",
        "robust/location-gradcam": "inconclusive",
        "depends/location-gradcam": "supported",
        "misleads/location-lrp_t": "supported",
        "drift/topk-gradcam": "supported",
        "detect-layers/location-gradcam": "supported",
        "washes-out/location-gradcam": "supported",
        "washes-out/location-lrp_t": "contradicted",
        "weight/location-gradcam": "one network",
    }
    assert {k: found[k].verdict for k in expected} == expected
    assert "gate: fooling centre of mass through LRP_T succeeds beyond the control" in found["accuracy/centre-lrp_t"].note
    kinds = {k: found[f"fooled/{k}"].kind for k in ("topk-gradcam", "topk-lrp_t", "location-simple_t", "centre-lrp_t")}
    assert set(kinds.values()) == {"claim", "open question"} and kinds["location-simple_t"] == "open question"
    assert "published: VGG19 0.875, ResNet50 0.832, DenseNet121 0.266" in found["fooled/location-lrp_t"].note
    assert "VGG19 +0.668" in found["transfer-simple/location"].note
    assert found["transfer-simple/topk"].kind == "claim" and found["transfer-simple/centre"].kind == "open question"
    assert "3 seeds" in found["fooled/location-gradcam"].n
    assert {c.verdict for c in judged(table, test=False).values()} == {"not tested"}


def test_the_papers_own_claims_are_there(found):
    assert {f"{k}/plain" for k, c in found.items() if c.kind == "primary"} == set(claims.primaries(P))
    sentences.check(list(found.values()))
    assert not [c.statistic for c in found.values() if c.statistic.startswith("the same") or c.statistic.endswith("eps")]


def test_a_swap_is_of_both_classes(found):
    row = found["active/gradcam"]
    assert row.kind == "primary" and row.value == pytest.approx(0.8)  # of c1 .9, of c2 .8
    assert row.ci_low < 0.8 < row.ci_high <= 1 and row.verdict == "one network"
    assert "published: VGG19 0.010, ResNet50 0.760, DenseNet121 0.000" in row.note
    assert found["active/lrp_t"].kind == "claim" and found["active/simple_t"].kind == "open question"
    assert found["swap-stays/lrp_t/c2"].value == pytest.approx(0.6)  # the largest of the others
    assert found["swapped/gradcam/c1"].value == pytest.approx(0.9)


def test_a_fooling_that_still_moves_is_not_judged(table):
    moving = changed(table, "location-gradcam", "steps-t$", 0.6, before=P.tune_epochs)
    moving = changed(moving, "active-gradcam", "steps-t2$", -0.5, 0.2, before=P.tune_epochs)
    found = judged(changed(moving, "location-lrp_t", "steps-t$", 0.6, 0.02, before=P.tune_epochs))
    barred = ("fooled", "living", "accuracy", "agrees", "depends", "washes-out", "weight")
    assert {found[f"{k}/location-gradcam"].verdict for k in barred} == {"not testable here"}
    note = found["fooled/location-gradcam"].note
    assert "gate: fooling location through Grad-CAM has reached its plateau" in note and "(below 0.05 asked, 0.8 found)" in note
    assert found["active/gradcam"].verdict == found["transfer-asymmetric/location"].verdict == "not testable here"
    assert found["fooled/location-lrp_t"].verdict == "supported" and found["drift/location-gradcam"].verdict == "supported"
    once = Cubes({("plain/location-gradcam", "steps-t", e): np.zeros((1, 4)) for e in (0.0, 1.0)})
    assert np.isnan(statistics.still_moving(once, "plain/location-gradcam"))  # one epoch says nothing of a plateau


def test_the_last_quarter_is_compared_with_the_one_before():
    share = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 0.9, 0.7]  # after epoch 0 to 8
    values = {
        ("plain/topk-lrp_t", "steps-t", float(e)): np.where(np.arange(10) < 10 * v, 0.0, 1.0)[None] for e, v in enumerate(share)
    }
    assert statistics.still_moving(Cubes(values), "plain/topk-lrp_t") == pytest.approx(0.8 - 0.7)


@pytest.mark.parametrize(
    ("change", "barred", "still"),
    [
        (("base", "right", 0.0, 8.0), ("fooled/location-gradcam", "drift/topk-gradcam", "active/gradcam"), ()),
        (
            ("none", "right", 0.0, 8.0),
            ("accuracy/location-gradcam",),
            ("fooled/location-gradcam", "accuracy-control/location-gradcam"),
        ),
        (("base", "alike", 0.6), ("active/gradcam", "swapped/lrp_t/c1", "swap-stays/lrp_t/c1"), ("fooled/location-gradcam",)),
        (("none", "robust", 0.0), ("robust/location-lrp_t",), ("agrees/location-lrp_t",)),
        (("none", "robust", 1.0), ("robust/location-lrp_t",), ("agrees/location-lrp_t",)),
    ],
)
def test_claims_stand_on_their_gates(table, change, barred, still):
    found = judged(changed(table, *change))
    assert {found[k].verdict for k in barred} == {"not testable here"} and all("gate: " in found[k].note for k in barred)
    assert "not testable here" not in {found[k].verdict for k in still}


def test_a_dead_map_counts_by_the_formula_and_not_among_the_living():
    """Nor does an image stay among them on one side alone."""
    t, dead = np.array([[0.0, 0.0, 0.5, 0.9]]), np.array([[1.0, 0.0, 0.0, 0.0]])
    honest, dark = np.array([[0.9, 0.9, 0.0, 0.9]]), np.array([[0.0, 0.0, 1.0, 0.0]])
    table = Cubes(
        {
            ("a", "t/topk/gradcam", 0.0): t,
            ("a", "dead/gradcam", 0.0): dead,
            ("b", "t/topk/gradcam", 0.0): honest,
            ("b", "dead/gradcam", 0.0): dark,
        }
    )
    every, one = np.arange(4), np.array([0])
    assert statistics.fsr(table, "a", "topk", "gradcam")(every, one) == 0.5
    assert statistics.living(table, "a", "b", "topk", "gradcam")(every, one) == 0.5  # of the second image and the last


def test_a_swap_succeeds_by_class():
    t = {("active-gradcam", "c1"): 0.0, ("active-gradcam", "c2"): 0.9, ("none", "c1"): 0.0, ("none", "c2"): 0.1}
    values = {(f"plain/{arm}", f"swap-{c}/gradcam", 0.0): np.full((1, 4), v) for (arm, c), v in t.items()}
    table = Cubes(values)
    rates = {need: statistics.beyond(table, "plain", f"active-gradcam{need}") for need in ("", ":c1", ":c2")}
    assert rates == {"": 0.0, ":c1": 0.0, ":c2": 1.0}  # of both classes, unless one is named
    every, one = np.arange(4), np.array([0])
    assert statistics.both_swapped(table, "plain/active-gradcam", "plain/none", "gradcam")(every, one) == 0


def test_claims_of_dead_maps_say_why(table):
    dead = changed(table, "location-gradcam", "dead/gradcam", 1.0)
    row = judged(dead)["living/location-gradcam"]
    assert row.verdict == "not tested" and row.note == "not defined: every map concerned is dead"
    assert judged(dead, test=False)["living/location-gradcam"].note == ""


def test_what_an_exact_swap_would_reach_and_what_pgd_breaks():
    found = Cubes(
        {
            ("a", "alike/gradcam", 0.0): np.array([[0.5, 0.6, -0.2, np.nan]]),
            ("a", "right", 0.0): np.array([[1.0, 1.0, 0.0, 1.0, 1.0]]),
            ("a", "robust", 0.0): np.array([[1.0, 0.0, 0.0]]),
        }
    )
    assert statistics.swappable(found, "a", "gradcam") == 0.5  # 1 - .5 is just enough; a flat map cannot be swapped
    assert statistics.broken(found, "a") == 0.5  # of the two that are right among those attacked
    assert statistics.halved(lambda i, s: 0.8, lambda i, s: 0.1)(np.arange(2), np.arange(1)) == pytest.approx(0.3)


def test_calibration_error_and_auc_by_hand():
    table = Cubes(
        {
            ("a", "right", 0.0): np.array([[1.0, 0.0, 1.0, 1.0]]),
            ("a", "confidence", 0.0): np.array([[0.55, 0.55, 0.95, 1.0]]),
            ("a", "m", 0.0): np.array([[0.1, 0.3, np.nan, 0.3]]),
            ("b", "m", 0.0): np.array([[0.3, 0.5, 0.6, 0.2]]),
        }
    )
    every, one = np.arange(4), np.array([0])
    # bins: two at .55 of which one is right (gap .1), two near 1 that are right (gap .05)
    assert statistics.calibration_error(table, "a")(every, one) == pytest.approx((0.1 + 0.05) / 4)
    more = {("h", "robust", 0.0): [[1, 0, 1, 1]], ("h", "right", 0.0): [[1, 0, 1, 1]], ("m", "robust", 0.0): [[0, 0, 1, 1]]}
    more |= {("m", "right", 0.0): [[1, 1, 1, 0]]}
    lost = statistics.robustness_lost(Cubes({k: np.array(v, float) for k, v in more.items()}), "h", "m")
    assert lost(every, one) == 0.5  # of the two that both get right, one
    pairs = [(v > u) + 0.5 * (v == u) for u in (0.1, 0.3, 0.3) for v in (0.3, 0.5, 0.6, 0.2)]
    assert statistics.auc(table, "a", "b", "m")(every, one) == pytest.approx(np.mean(pairs))


def test_the_published_tables_are_whole():
    table = pd.read_csv(paths.published() / "model_manipulation.csv", keep_default_na=False)
    rates = table[(table.table == "fsr") & (table.fooling != "active")]
    assert len(rates) == 6 * 9 and len(table[table.table == "accuracy"]) == 9 * 6
    assert len(table[table.fooling == "active"]) == 4 * 8 + 12  # eight success rates a row as printed, and accuracies
    one = rates.set_index(["network", "fooling", "through", "column"]).value
    assert one["resnet50", "location", "lrp_t", "simple_t"] == 81.1 and one["densenet121", "centre", "gradcam", "lrp_t"] == 21.8
