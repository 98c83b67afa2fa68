"""Study 1's measurement against a slow twin, its controls, and its claims on tables whose truth is known."""

import functools

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.metrics import structural_similarity

from lib.attacks import single_step
from lib.claims import intervals, measures
from lib.data import datasets
from lib.explanations import activation_maps
from lib.networks import models
from lib.studies.attention_shift import claims, compared, plan, statistics
from lib.studies.attention_shift import measure as measure_
from lib.studies.attention_shift.measure import measure_images
from lib.studies.attention_shift.plan import Parameters
from tests.claims import sentences

EPS = (0.02, 0.1)


@pytest.fixture(scope="module")
def measured():
    model = models.create("plain", classes=10, seed=3).eval()
    data = datasets.load("shapes", "test", limit=12)
    return model, data, measure_images(model, data.images, data.labels, eps=EPS)


def row_of(table, **chosen):
    for column, value in chosen.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


@pytest.mark.parametrize("target", ["pred", "true"])
@pytest.mark.parametrize("layer", ["stage1", "stage3"])
def test_every_column_equals_the_paper_s_formula_image_by_image(measured, target, layer):
    model, data, table = measured
    for i in range(3):
        x, y = data.images[i : i + 1], data.labels[i : i + 1]
        x_req = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(x_req), y), x_req)
        for e in EPS:
            x_adv = (x + e * gradient.sign()).clamp(0, 1)
            maps = []
            for image in (x, x_adv):
                c = y if target == "true" else model(image).argmax(1)
                m = activation_maps.gradcam(model, image, c, layer).values[0]
                m = (m - m.min()) / (m.max() - m.min()) if m.max() > m.min() else m * 0
                maps.append(torch.nn.functional.interpolate(m[None, None], (32, 32), mode="bilinear")[0, 0].numpy())
            expected = structural_similarity(*maps, data_range=1.0)
            row = row_of(table, image_id=i, eps=e, layer=layer, attack="fgsm", target_mode=target)
            assert row.ssim == pytest.approx(expected, abs=2e-4)
            assert row.nissim == pytest.approx((1 - expected) / 2, abs=1e-4)
            assert (
                row.pred_adv == int(model(x_adv).argmax()) and row.pred_clean == int(model(x).argmax()) and row.true == int(y)
            )


def test_nothing_moves_without_attack(measured):
    _, _, table = measured
    still = table[table.eps == 0]
    assert still.nissim.max() < 1e-6 and (still.pred_adv == still.pred_clean).all()
    assert still.iou.min() == 1 and still.centroid_shift.dropna().max() == 0


def test_class_change_without_attack_is_zero_where_the_class_stayed(measured):
    model, data, table = measured
    part = table[(table.attack == "fgsm") & (table.target_mode == "pred")]
    stayed = part[part.pred_adv == part.pred_clean]
    assert stayed.nissim_class.max() < 1e-6
    assert table[(table.attack == "noise") | (table.target_mode == "true")].nissim_class.isna().all()
    changed = part[(part.pred_adv != part.pred_clean) & (part.layer == "stage3")]
    for row in changed.head(3).itertuples():
        x = data.images[row.image_id : row.image_id + 1]
        maps = [
            measure_.shown(activation_maps.gradcam(model, x, int(c), "stage3").values, 32)
            for c in (row.pred_clean, row.pred_adv)
        ]
        expected = structural_similarity(*(m[0].numpy() for m in maps), data_range=1.0)
        assert row.nissim_class == pytest.approx((1 - expected) / 2, abs=1e-4)


def test_the_ceiling_is_of_all_pairs_of_different_images(measured):
    model, data, table = measured
    for layer, part in table[(table.attack == "fgsm") & (table.eps == 0) & (table.target_mode == "pred")].groupby(
        "layer", observed=True
    ):
        classes = model(data.images).argmax(1)
        maps = measure_.shown(activation_maps.gradcam(model, data.images, classes, layer).values, 32).numpy()
        for row in part.itertuples():
            every = [structural_similarity(maps[row.image_id], m, data_range=1.0) for m in np.delete(maps, row.image_id, 0)]
            assert row.nissim_ceiling == pytest.approx((1 - np.mean(every)) / 2, abs=1e-4)
    assert np.isnan(measure_.to_others(torch.rand(1, 32, 32), "uniform")).all()


def test_noise_belongs_to_the_image_not_to_the_batch(measured):
    model, data, table = measured
    second = measure_images(model, data.images[6:], data.labels[6:], eps=EPS, first_image=6)
    whole = table[(table.image_id >= 6) & (table.attack == "noise")].sort_values(["layer", "eps", "target_mode", "image_id"])
    part = second[second.attack == "noise"].sort_values(["layer", "eps", "target_mode", "image_id"])
    assert np.allclose(whole.nissim, part.nissim, atol=1e-4)


def test_background_area_and_masks_image_by_image():
    model = models.create("plain", classes=10, seed=3).eval()
    data = datasets.load("shapes", "test", limit=3)
    table = measure_images(model, data.images, data.labels, eps=(0.1,), masks=data.masks)
    direction, _ = single_step.fgsm_direction(model, data.images, data.labels)
    for e, i in ((0.0, 0), (0.1, 1), (0.1, 2)):
        x = single_step.step_along(data.images, direction, e)[i : i + 1]
        m = measure_.shown(activation_maps.gradcam(model, x, int(data.labels[i]), "stage2").values, 32)[0].double().numpy()
        row = row_of(table, image_id=i, eps=e, layer="stage2", attack="fgsm", target_mode="true")
        outside = sum(m[a, b] for a in range(32) for b in range(32) if not data.masks[i, a, b])
        assert row.background == pytest.approx(outside / m.sum(), abs=1e-4)
        assert row.area == pytest.approx(sum(v >= m.max() / 2 for v in m.flat) / 1024, abs=2e-3)
    assert measure_images(model, data.images, data.labels, eps=(0.1,)).background.isna().all()


def test_background_and_area_by_hand():
    mask = torch.zeros(3, 2, 2, dtype=torch.bool)
    mask[:, 0, 0] = True
    maps = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[1.0, 0.5], [0.25, 0.25]], [[0.0, 0.0], [0.0, 0.0]]])
    np.testing.assert_allclose(measure_.on_background(maps, mask), [0.0, 0.5, np.nan])
    np.testing.assert_allclose(measure_.area(maps), [0.25, 0.5, np.nan])


def test_a_black_box_attack_takes_the_gradient_of_the_other_network(measured):
    """What it does to the attacker is what its own attack does to it; on another network it is another attack."""
    model, data, table = measured
    other = models.create("residual", classes=10, seed=5).eval()
    found = measure_images(other, data.images, data.labels, eps=EPS, attacker=model)
    direction, _ = single_step.fgsm_direction(model, data.images, data.labels)
    x_adv = single_step.step_along(data.images, direction, 0.1)
    part = found[(found.eps == 0.1) & (found.attack == "fgsm") & (found.layer == "stage3") & (found.target_mode == "true")]
    with torch.no_grad():
        assert part.pred_adv.tolist() == other(x_adv).argmax(1).tolist()
        assert part.pred_clean.tolist() == other(data.images).argmax(1).tolist()
    same = measure_images(model, data.images, data.labels, eps=EPS, attacker=model)
    pd.testing.assert_frame_equal(same, table)
    white = measure_images(other, data.images, data.labels, eps=EPS)
    noise, moved = (found.attack == "noise"), (found.attack == "fgsm") & (found.eps > 0)
    np.testing.assert_array_equal(found[noise].nissim, white[noise].nissim)
    assert (found[moved].nissim != white[moved].nissim).any()


def test_the_network_of_another_seed_attacks():
    p = Parameters(black_box="residual", seeds=3)
    own, other = plan.networks(p, "plain", 2)
    assert (own.arch, own.seed, other.arch, other.seed) == ("plain", 2, "residual", 0)
    assert plan.attacker_of(p, "residual", 0) == ("residual", 1)  # also of the residual network of seed 0
    assert len(plan.networks(p)) == 9 and len(plan.networks(Parameters(), "plain", 2)) == 1
    with pytest.raises(ValueError, match="none of the architectures plain, residual, inception"):
        Parameters(black_box="vgg16")
    with pytest.raises(ValueError, match="train two seeds at least"):
        Parameters(black_box="plain", seeds=1)


LITE = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
PUBLISHED = {"architectures": LITE, "epochs": 0, "seeds": 1, "weights": "imagenet"}


def test_a_published_network_is_attacked_by_another_published_one():
    p = Parameters(black_box=LITE[1], **PUBLISHED)
    assert [plan.attacker_of(p, arch, 0) for arch in LITE] == [(LITE[1], 0), (LITE[2], 0), (LITE[1], 0)]
    last = Parameters(black_box=LITE[2], **PUBLISHED)
    assert plan.attacker_of(last, LITE[2], 0) == (LITE[0], 0)
    own, other = plan.networks(p, LITE[0], 0, 0)
    assert (own.arch, other.arch, own.epochs, len(plan.networks(p))) == (LITE[0], LITE[1], 0, 3)
    with pytest.raises(ValueError, match="name two architectures at least"):
        Parameters(black_box=LITE[0], **PUBLISHED | {"architectures": LITE[:1]})
    with pytest.raises(ValueError, match=r"a published network .* is one network; use seeds: 1"):
        Parameters(**PUBLISHED | {"seeds": 2})


def test_a_published_network_is_measured_folded_and_computes_what_it_did(monkeypatch, tmp_path):
    monkeypatch.setattr(plan.cache.paths, "models", lambda: tmp_path)
    p = Parameters(**PUBLISHED | {"architectures": LITE[:1]}, dataset="photographs", size=64, images=8)
    model, x = plan.model(p, LITE[0], 0), plan.evaluation_set(p).images[:3]
    whole = models.create(LITE[0], classes=1000, weights="imagenet").eval()
    with torch.no_grad():
        torch.testing.assert_close(model(x), whole(x), rtol=1e-3, atol=1e-3)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules()) and model.stages == whole.stages
    found = activation_maps.gradcams(model, x, 3, model.stages).maps
    for layer, maps in activation_maps.gradcams(whole, x, 3, whole.stages).maps.items():
        torch.testing.assert_close(found[layer], maps, rtol=1e-2, atol=1e-4)


def test_large_images_are_measured_in_parts_that_are_all_of_them(monkeypatch):
    p = Parameters(**PUBLISHED, size=224, images=1000)
    assert plan.parts(p) == 5 and measure_.batch(p) == 8 and len(plan.jobs(p)) == 15
    assert [job[0] for job in plan.jobs(p)[:3]] == list(LITE)  # so that neighbours cost alike
    assert plan.parts(Parameters()) == 1 and measure_.batch(Parameters()) == 60
    net = models.create("plain", classes=10, seed=3).eval()
    monkeypatch.setattr(plan, "model", lambda _p, *job: net)
    p = Parameters(images=10, eps=EPS)
    whole = measure_.measure(p, "plain", 0)
    monkeypatch.setattr(plan, "A_JOB", 4 * 32**2)
    jobs = [job for job in plan.jobs(p) if job[:2] == ("plain", 0)]
    parts = pd.concat([measure_.measure(p, *job) for job in jobs], ignore_index=True)
    assert len(jobs) == 3 and sorted(parts.image_id.unique()) == list(range(10))
    order = ["layer", "attack", "eps", "target_mode", "image_id"]
    a, b = (t.sort_values(order, ignore_index=True) for t in (whole, parts))
    for column in ("nissim", "nissim_native", "nissim_class", "area"):
        np.testing.assert_allclose(a[column], b[column], atol=1e-3, err_msg=column)
    np.testing.assert_array_equal(a.pred_adv, b.pred_adv)


def test_the_study_measures_a_black_box_attack_where_it_is_asked_for(monkeypatch):
    nets = {(a, s): models.create(a, classes=10, seed=s).eval() for a in ("plain", "residual") for s in (0, 1)}
    monkeypatch.setattr(plan, "model", lambda _p, *job: nets[job])
    p = Parameters(architectures=("plain", "residual"), seeds=2, images=8, eps=EPS)
    white, black = (measure_.measure(q, "plain", 0) for q in (p, p.model_copy(update={"black_box": "residual"})))
    data = plan.evaluation_set(p)
    direct = measure_images(nets["plain", 0], data.images, data.labels, eps=EPS, masks=data.masks, attacker=nets["residual", 1])
    np.testing.assert_array_equal(black.nissim, direct.nissim)
    assert (white.nissim != black.nissim).any() and black.background.notna().any()
    monkeypatch.setattr(measure_, "batch", lambda _p: 3)
    psnr = measure_.psnr(p, nets["plain", 0])
    direction, _ = single_step.fgsm_direction(nets["plain", 0], data.images, data.labels)
    for e in EPS:
        error = (single_step.step_along(data.images, direction, e) - data.images).square().flatten(1).mean(1)
        assert psnr[e] == pytest.approx((-10 * error.log10()).mean().item(), abs=1e-3)


def slow_told(shift, wrong, known):
    found = np.full((len(shift), shift.shape[2]), np.nan)
    for s in range(len(shift)):
        for i in range(shift.shape[2]):
            pairs = [(a, b) for a in range(shift.shape[1]) for b in range(shift.shape[1]) if wrong[s, a, i] > wrong[s, b, i]]
            if pairs and known[s, i]:
                points = [
                    1.0 if shift[s, a, i] > shift[s, b, i] else 0.5 * (shift[s, a, i] == shift[s, b, i]) for a, b in pairs
                ]
                found[s, i] = np.mean(points)
    return found


def test_shift_and_failure_within_an_image():
    rng = np.random.default_rng(0)
    shift, wrong, known = rng.integers(0, 4, (2, 5, 30)) / 4, rng.random((2, 5, 30)) < 0.4, rng.random((2, 30)) < 0.8
    found = statistics.told_by_shift(shift, wrong, known)
    np.testing.assert_allclose(found, slow_told(shift, wrong, known))
    assert np.isnan(found[~known]).all() and np.isfinite(found).any()
    by_hand = np.array([0.1, 0.2, 0.3])[None, :, None], np.array([False, True, False])[None, :, None]
    assert statistics.told_by_shift(*by_hand, np.array([[True]])).item() == 0.5
    np.testing.assert_array_equal(statistics.inverted(np.array([-0.1, 0.0, 0.5, np.nan])), [1, 0, 0, np.nan])


def test_planted_failures_are_told_by_the_images_own_shift_alone():
    """Each image fails at an eps of its own, and jumps there; the mean shift rises smoothly, so it tells nothing more than eps.
    Where eps alone decides and shifts are noisy, the image's own tells less than the mean."""
    table = table_of(FLAT, FLAT)
    place = {e: k for k, e in enumerate(RISING)}
    order = table.eps.map(place)
    fails = ((table.image_id + order) % 3 == 0) & (table.eps > 0)  # not the later the likelier
    planted = table.assign(nissim=0.3 * fails + 0.01 * order, pred_adv=fails.astype(int))
    found = judged(planted)
    assert found["shift-tells-failure"].value == pytest.approx(1) and found["shift-tells-failure"].verdict == "supported"
    assert found["shift-tells-failure/beyond-eps"].verdict == "supported"
    late = (table.image_id % 3 + order >= 3) & (table.eps > 0)  # the larger eps alone decides
    rng = np.random.default_rng(0)
    noisy = 0.1 * order + 0.6 * rng.random(len(table)) * (table.eps > 0)
    found = judged(table.assign(nissim=noisy, pred_adv=late.astype(int)))
    assert found["shift-tells-failure"].verdict == "supported"
    assert found["shift-tells-failure/beyond-eps"].verdict == "contradicted"
    sentences.check(list(found.values()))


def test_planted_looks_are_found_and_their_opposites():
    table = table_of(RISING, FLAT)
    under = (table.attack == "fgsm") & (table.eps == 0.1)
    wide = table.assign(background=0.4 + 0.2 * under, area=0.2 + 0.3 * under, spearman=np.where(under, -0.3, 0.6))
    ids = ("background-rises", "background-rises-over-noise", "area-grows", "area-grows-over-noise", "inverted-over-noise")
    found = judged(wide)
    assert {found[id].verdict for id in ids} == {"supported"}
    assert [round(found[id].value, 6) for id in ids] == [0.2, 0.2, 0.3, 0.3, 1.0]
    both = (table.eps == 0.1) & (table.attack == "noise")
    other = judged(wide.assign(background=0.6 - 0.2 * under, area=0.6 - 0.3 * under, spearman=np.where(both, -0.3, 0.6)))
    assert {other[id].verdict for id in ids} == {"contradicted"}
    found = judged(wide.assign(background=np.nan))
    assert not set(ids[:2]) & set(found) and set(ids[2:]) <= set(found)
    holes = wide.assign(background=wide.background.where(wide.image_id % 2 == 0))  # empty maps have no mass anywhere
    assert judged(holes)["background-rises"].value == pytest.approx(0.2)


def table_of(values, noise, *, archs=("plain", "residual", "inception"), seeds=3, images=40, flips=0.5):
    """A table with known MOD by eps (and known noise), images differing by +-0.02."""
    rng = np.random.default_rng(0)
    rows = []
    for arch in archs:
        for seed in range(seeds):
            for attack, levels in (("fgsm", values), ("noise", noise)):
                for e, v in levels.items():
                    for target in ("pred", "true"):
                        flip = (np.arange(images) < flips * images) & (e > 0)
                        nissim = v + 0.02 * rng.standard_normal(images) * (e > 0) + 0.1 * flip
                        rows.append(
                            pd.DataFrame(
                                {
                                    "model": arch,
                                    "seed": seed,
                                    "layer": "stage3",
                                    "last": True,
                                    "attack": attack,
                                    "eps": e,
                                    "target_mode": target,
                                    "image_id": np.arange(images),
                                    "true": 0,
                                    "pred_clean": 0,
                                    "pred_adv": flip.astype(int),
                                    "masked": False,
                                    "nissim": nissim,
                                    "nissim_class": 0.05,
                                    "nissim_ceiling": 0.5,
                                    "centroid_shift": 10 * v,
                                    "background": 0.5,
                                    "area": 0.3,
                                    "spearman": 0.9,
                                }
                            )
                        )
    return pd.concat(rows, ignore_index=True)


RISING = {0.0: 0.0, 0.01: 0.1, 0.05: 0.2, 0.1: 0.3}
FLAT = {0.0: 0.0, 0.01: 0.0, 0.05: 0.0, 0.1: 0.0}


def judged(table, *, test=True, **parameters):
    given = {"eps": (0.01, 0.05, 0.1)} | parameters
    return {c.id: c for c in claims.judge(table, Parameters(**given), test=test)}


def verdicts(table, **options):
    return {id: c.verdict for id, c in judged(table, **options).items()}


@functools.cache
def rising():
    return judged(table_of(RISING, FLAT))


OF_ONE = ("mod-rises", "mod-monotone", "attack-over-noise", "attack-over-noise-mean", "region-moves", "region-moves-mean")


def test_claims_are_supported_where_the_table_says_so():
    rows = rising()
    for arch in ("plain", "residual", "inception"):
        assert {rows[f"{id}/{arch}"].verdict for id in OF_ONE} == {"supported"}, arch
    assert {rows[id].verdict for id in ("mod-zero", "mod-rises", "region-moves", "flipped-move-more")} == {"supported"}
    assert rows["more-than-class-change"].verdict == "supported" and rows["mod-zero"].kind == "check"
    assert rows["mod-rises"].value == pytest.approx(np.mean([rows[f"mod-rises/{a}"].value for a in Parameters().architectures]))
    assert rows["region-moves"].value == pytest.approx(3) and rows["mod-rises"].statement.endswith("mean of the architectures")
    sentences.check(list(rows.values()))


def test_claims_are_contradicted_where_the_table_says_so():
    falling = {0.0: 0.0, 0.01: 0.3, 0.05: 0.2, 0.1: 0.1}
    found = verdicts(table_of(falling, {0.0: 0.0, 0.01: 0.5, 0.05: 0.5, 0.1: 0.5}))
    for id in ("mod-rises", "mod-monotone", "attack-over-noise", "region-moves"):
        assert found[f"{id}/plain"] == "contradicted", id
    assert found["mod-rises"] == found["region-moves"] == "contradicted"


def test_shifts_that_nobody_would_act_on_are_negligible():
    still = {0.0: 0.0, 0.01: 0.2, 0.05: 0.2, 0.1: 0.205}
    found = judged(table_of(still, {e: v + 0.01 for e, v in still.items()}, images=80))
    for id in ("mod-rises", "mod-rises/plain", "region-moves", "region-moves-mean/inception"):
        assert found[id].verdict == "negligible", id  # a MOD of .005 more, a tenth of a pixel less
    assert found["mod-monotone/plain"].verdict == "supported"


def test_smoke_judges_nothing():
    assert set(verdicts(table_of(RISING, FLAT), test=False).values()) == {"not tested"}


def test_what_rests_on_one_run_in_the_paper_is_open_unless_it_is_the_papers_own():
    kinds = {id: c.kind for id, c in rising().items()}
    assert kinds["plain-most-stable/ceiling"] == kinds["vid-plain-smallest"] == "open question"
    assert {id for id, kind in kinds.items() if kind == "primary"} == set(claims.primaries(Parameters()))
    one = verdicts(table_of(RISING, FLAT, archs=("plain",)), architectures=("plain",))
    assert {"mod-rises", "mod-rises/plain"} <= set(one) and "vid-plain-smallest" not in one
    assert one["plain-most-stable"] == one["deep-keeps-more"] == "not testable here"


def test_what_is_said_of_published_networks_is_said_of_these_over_images():
    found = judged(table_of(RISING, FLAT, archs=LITE, seeds=1), **PUBLISHED)
    for id in ("mod-rises", "region-moves", "flipped-move-more", f"mod-rises/{LITE[1]}"):
        assert found[id].verdict == "supported", id  # not `one network`: nothing is said of another training
    assert found["mod-rises"].statement.endswith(
        "of the published networks EfficientNet-Lite0, EfficientNet-Lite1, EfficientNet-Lite2"
    )
    assert found["mod-rises"].n == "40 images, one network as it was published each"
    trained = judged(table_of(RISING, FLAT, seeds=1), seeds=1)
    assert trained["mod-rises"].verdict == "one network"
    for id in ("deep-keeps-more", "plain-most-stable"):
        assert found[id].verdict == "not testable here" and found[id].kind == "primary"
        assert "how many kinds there are (above 2 asked, 0 found)" in found[id].note
    sentences.check(list(found.values()))
    other = judged(table_of(RISING, FLAT, archs=LITE, seeds=1), black_box=LITE[0], **PUBLISHED)
    assert all(
        "another network's gradient" in c.statement for c in other.values() if c.kind != "check" and "testable" not in c.verdict
    )


PAPER = ("vgg16", "resnet50", "resnet101", "inception_v3", "xception")


def test_the_papers_own_networks_are_compared_by_kind():
    assert compared.kinds(PAPER) == [["vgg16"], ["resnet50", "resnet101"], ["inception_v3", "xception"]]
    p = {"architectures": PAPER, "seeds": 1}
    found = judged(table_of(RISING, FLAT, archs=PAPER, seeds=1), **p)
    assert set(claims.primaries(Parameters())) <= set(found)
    keeps = found["deep-keeps-more"]
    assert "(vgg16, resnet50, resnet101) keep more accuracy than wide ones (inception_v3, xception)" in keeps.statement
    assert keeps.value == keeps.value and "network" in found["plain-most-stable"].statement
    without = judged(table_of(RISING, FLAT, archs=PAPER[:3], seeds=1), architectures=PAPER[:3], seeds=1)
    assert without["deep-keeps-more"].verdict == "not testable here" and "2 found" in without["deep-keeps-more"].note


def test_a_network_that_does_not_know_its_data_is_no_ground():
    table = table_of(RISING, FLAT)
    unknown = table.assign(true=table.true + ((table.model == "plain") & (table.seed == 1) & (table.image_id % 2 == 0)))
    found = judged(unknown)
    for id in ("mod-rises/plain", "mod-rises", "flipped-move-more", "plain-most-stable"):
        assert found[id].verdict == "not testable here", id
    assert "worst seed gets right (above 0.6 asked, 0.5 found)" in found["region-moves/plain"].note
    assert found["mod-rises/residual"].verdict == found["mod-zero"].verdict == "supported"


def test_an_attack_that_changes_no_decision_is_none():
    found = judged(table_of(RISING, FLAT, flips=0.1))
    assert {c.verdict for c in found.values() if c.kind != "check"} == {"not testable here"}
    assert "FGSM changes at eps 0.1, plain (VGG-like) network (above 0.2 asked, 0.1 found)" in found["mod-rises/plain"].note
    table = table_of(RISING, FLAT)
    resists = table.assign(pred_adv=table.pred_adv.where(table.model != "plain", 0))
    found = verdicts(resists)  # what compares architectures asks the mean, or none could be found to resist
    assert found["mod-rises/plain"] == "not testable here" and found["deep-keeps-more"] == "supported"


def test_pictures_of_one_person_stand_and_fall_together():
    table = table_of(RISING, FLAT, images=40)
    nissim = table.nissim + 0.05 * ((table.image_id // 4) % 2) * (table.eps == 0.1)  # a person is four pictures
    faces = table.assign(true=table.image_id // 4, pred_clean=table.image_id // 4, nissim=nissim)
    faces["pred_adv"] = faces.true + table.pred_adv
    alone, together = (judged(faces, dataset=d)["mod-rises/plain"] for d in ("shapes", "folder:orl_faces"))
    assert together.n == "40 images of 10 people, 3 seeds" and alone.n == "40 images, 3 seeds"
    assert together.value == alone.value and together.ci_high - together.ci_low > 1.5 * (alone.ci_high - alone.ci_low)


def test_networks_share_their_variance_with_networks_and_means_with_none():
    rng = np.random.default_rng(0)
    table = table_of(RISING, FLAT, images=20)
    shift = {key: 0.03 * rng.normal() for key in table.groupby(["model", "seed"]).size().index}
    moved = [shift[m, s] if e == 0.1 else 0.0 for m, s, e in zip(table.model, table.seed, table.eps, strict=True)]
    table = table.assign(nissim=table.nissim + moved)
    found = judged(table)
    widths = {a: found[f"mod-rises/{a}"].ci_high - found[f"mod-rises/{a}"].ci_low for a in Parameters().architectures}
    alone = judged(table[table.model == "plain"], architectures=("plain",))
    assert max(widths.values()) < 1.5 * min(widths.values())  # three variances of two degrees each would differ more
    cube = statistics.cube(table, "nissim")["plain"]
    own = intervals.interval(intervals.over(cube[:, -1] - cube[:, 1]), measures.measure(""), images=20, seeds=3)
    for id in ("mod-rises", "mod-rises/plain"):  # the mean of one network and that network are not two
        assert alone[id].ci_high - alone[id].ci_low == pytest.approx(own.high - own.low, rel=0.05)


def test_accuracy_is_compared_at_equal_shift():
    """Claim 4: two networks on one curve of accuracy against MOD are equal, however far each was pushed along it."""
    table = table_of(RISING, FLAT, flips=0)
    wrong = table.image_id < 200 * table.nissim.clip(0, 0.4).groupby([table.model, table.eps]).transform("mean")
    slower = table.assign(pred_adv=wrong.astype(int))
    assert judged(slower)["deep-keeps-more"].value == pytest.approx(0, abs=0.02)
    keeps = slower.assign(pred_adv=slower.pred_adv.where(slower.model == "inception", 0))
    found = judged(keeps)["deep-keeps-more"]
    assert found.value > 0.05 and found.kind == "primary" and found.verdict == "supported"


def test_the_last_stage_is_each_networks_own(measured):
    _, _, table = measured
    assert set(table.layer[table["last"]]) == {"stage3"}
    other = models.create("small", classes=10, seed=1).eval()
    x = torch.rand(4, 3, 32, 32)
    small = measure_images(other, x, torch.arange(4), eps=EPS)
    assert set(small.layer[small["last"]]) == {"conv3"}
    both = pd.concat([table.head(0).assign(model="plain", seed=0), small.assign(model="small", seed=0)])
    assert claims.judge(both, Parameters(architectures=("small",), eps=EPS))


def test_masked_gradients_are_recorded():
    class Constant(torch.nn.Module):
        stages = ("conv",)

        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.conv(x).mean((2, 3)) * 0 + torch.tensor([2.0, 0.0])

    table = measure_images(Constant(), torch.rand(3, 3, 16, 16), torch.tensor([0, 1, 0]), eps=(0.1,))
    assert table.masked.all()


def test_nothing_to_compare_means_not_tested_rather_than_a_number():
    table = table_of(RISING, FLAT)
    everywhere = table.assign(pred_adv=(table.eps > 0).astype(int))
    assert verdicts(everywhere)["flipped-move-more"] == "not tested"  # no image keeps its decision


def test_networks_are_one_an_architecture_and_seed():
    configs = plan.networks(Parameters(seeds=2))
    assert len({c.digest for c in configs}) == len(configs) == 6


def test_the_study_attacks_with_the_papers_scale():
    """eps is a change of pixels in [0, 1], the same sign map at every eps."""
    x = torch.full((1, 3, 8, 8), 0.5)
    direction = single_step.random_sign(x, torch.Generator().manual_seed(0))
    for e in plan.PAPER_EPS:
        assert torch.allclose((single_step.step_along(x, direction, e) - x).abs(), torch.tensor(e), atol=1e-6)
