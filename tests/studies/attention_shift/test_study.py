"""Study 1's measurement against a slow twin, its controls, and its claims on tables whose truth is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from skimage.metrics import structural_similarity

from lib.attacks import single_step
from lib.data import datasets
from lib.explanations import activation_maps
from lib.networks import models
from lib.studies.attention_shift import claims, plan
from lib.studies.attention_shift import measure as measure_
from lib.studies.attention_shift.measure import measure_images
from lib.studies.attention_shift.plan import Parameters

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


def test_noise_belongs_to_the_image_not_to_the_batch(measured):
    model, data, table = measured
    second = measure_images(model, data.images[6:], data.labels[6:], eps=EPS, first_image=6)
    whole = table[(table.image_id >= 6) & (table.attack == "noise")].sort_values(["layer", "eps", "target_mode", "image_id"])
    part = second[second.attack == "noise"].sort_values(["layer", "eps", "target_mode", "image_id"])
    assert np.allclose(whole.nissim, part.nissim, atol=1e-4)


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
                                }
                            )
                        )
    return pd.concat(rows, ignore_index=True)


RISING = {0.0: 0.0, 0.01: 0.1, 0.05: 0.2, 0.1: 0.3}
FLAT = {0.0: 0.0, 0.01: 0.0, 0.05: 0.0, 0.1: 0.0}


def verdicts(table, **options):
    return {c.id: c.verdict for c in claims.judge(table, Parameters(eps=(0.01, 0.05, 0.1)), **options)}


def test_claims_are_supported_where_the_table_says_so():
    found = verdicts(table_of(RISING, FLAT))
    for arch in ("plain", "residual", "inception"):
        for id in (
            "mod-rises",
            "mod-monotone",
            "attack-over-noise",
            "attack-over-noise-mean",
            "region-moves",
            "region-moves-mean",
        ):
            assert found[f"{id}/{arch}"] == "supported", id
    assert found["mod-zero"] == found["flipped-move-more"] == found["more-than-class-change"] == "supported"


def test_claims_are_contradicted_where_the_table_says_so():
    falling = {0.0: 0.0, 0.01: 0.3, 0.05: 0.2, 0.1: 0.1}
    found = verdicts(table_of(falling, {0.0: 0.0, 0.01: 0.5, 0.05: 0.5, 0.1: 0.5}))
    for id in ("mod-rises", "mod-monotone", "attack-over-noise", "region-moves"):
        assert found[f"{id}/plain"] == "contradicted", id


def test_smoke_judges_nothing():
    assert set(verdicts(table_of(RISING, FLAT), test=False).values()) == {"not tested"}


def test_what_the_specification_leaves_open_is_an_open_question():
    rows = claims.judge(table_of(RISING, FLAT), Parameters(eps=(0.01, 0.05, 0.1)))
    kinds = {c.id: c.kind for c in rows}
    for id in ("deep-keeps-more", "plain-most-stable", "plain-most-stable/ceiling", "vid-plain-smallest"):
        assert kinds[id] == "open question"
    one = table_of(RISING, FLAT, archs=("plain",))
    ids = {c.id for c in claims.judge(one, Parameters(eps=(0.01, 0.05, 0.1), architectures=("plain",)))}
    assert "plain-most-stable" not in ids and "mod-rises/plain" in ids


def test_accuracy_is_compared_at_equal_shift():
    """Claim 4: two networks on one curve of accuracy against MOD are equal, however far each was pushed along it."""
    table = table_of(RISING, FLAT, flips=0)
    wrong = table.image_id < 100 * table.nissim.clip(0, 0.4).groupby([table.model, table.eps]).transform("mean")
    slower = table.assign(pred_adv=wrong.astype(int))
    by = {c.id: c for c in claims.judge(slower, Parameters(eps=(0.01, 0.05, 0.1)))}
    assert by["deep-keeps-more"].value == pytest.approx(0, abs=0.02)
    keeps = slower.assign(pred_adv=slower.pred_adv.where(slower.model == "inception", 0))
    by = {c.id: c for c in claims.judge(keeps, Parameters(eps=(0.01, 0.05, 0.1)))}
    assert by["deep-keeps-more"].value > 0.05 and by["deep-keeps-more"].verdict == "supported"


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


def test_no_flip_means_not_tested_rather_than_a_number():
    found = verdicts(table_of(RISING, FLAT, flips=0))
    assert found["flipped-move-more"] == found["more-than-class-change"] == "not tested"


def test_networks_are_one_an_architecture_and_seed():
    configs = plan.networks(Parameters(seeds=2))
    assert len({c.digest for c in configs}) == len(configs) == 6


def test_the_study_attacks_with_the_papers_scale():
    """eps is a change of pixels in [0, 1], the same sign map at every eps."""
    x = torch.full((1, 3, 8, 8), 0.5)
    direction = single_step.random_sign(x, torch.Generator().manual_seed(0))
    for e in plan.PAPER_EPS:
        assert torch.allclose((single_step.step_along(x, direction, e) - x).abs(), torch.tensor(e), atol=1e-6)
