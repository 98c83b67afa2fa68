"""Study 1's tables: means, spreads, modes and VID of measurements whose numbers are known."""

import numpy as np
import pandas as pd
import pytest
import torch

from lib.studies.attention_shift import tables
from lib.studies.attention_shift.plan import Parameters

MOD = {0.0: 0.0, 0.1: 0.1, 0.2: 0.2, 0.3: 0.3, 0.4: 0.4}


def measurements(*, models=("plain",), seeds=1, attack="fgsm", target="pred", last=True):
    """Two images whose NISSIM is 0.05 above and below MOD (seed 1: MOD / 2); predictions flip from eps 0.3 on."""
    rows = []
    for model in models:
        for seed in range(seeds):
            for e, value in MOD.items():
                for i, d in enumerate((0.05, -0.05)):
                    which = {"model": model, "seed": seed, "layer": "stage3" if last else "stage1", "last": last}
                    where = {"attack": attack, "target_mode": target, "eps": e, "image_id": i, "masked": False}
                    found = {"nissim": value / (1 + seed) + d, "nissim_native": 0.0, "iou": 1.0, "ssim": 0.42}
                    more = {"centroid_shift": 0.0, "nissim_ceiling": 0.5, "degenerate_clean": False, "degenerate_adv": d > 0}
                    more |= {"background": value + d, "area": 0.5, "spearman": -1.0 if d > 0 and e > 0.3 else 1.0}
                    answers = {"true": 1, "pred_clean": 1, "pred_adv": 1 if e < 0.3 else 2 + i * (e > 0.3)}
                    rows.append(which | where | found | more | answers)
    return pd.DataFrame(rows)


def test_accuracies_and_cues_are_means_over_seeds_in_the_order_of_the_networks():
    found = tables.accuracies({"plain": 7, "small": 3}, {("plain", 0): 0.9, ("plain", 1): 0.8, ("small", 0): 0.5})
    assert found.index.to_list() == ["plain (VGG-like)", "small"]
    assert found.iloc[0].to_dict() == {"parameters": 7, "seeds": 2, "accuracy": 0.85, "lowest": 0.8, "highest": 0.9}
    answers = {("plain", 0): torch.tensor([1, 2, 3, 4]), ("plain", 1): torch.tensor([1, 1, 1, 1])}
    shape, texture = torch.tensor([1, 1, 1, 1]), torch.tensor([4, 2, 3, 4])
    found = tables.cues(answers, {"shape": shape, "texture": texture, "other": shape})
    assert found.loc["plain (VGG-like)"].to_list() == [0.625, 0.375]


def test_summary_and_vid_by_hand():
    means = tables.summary(measurements()).set_index("eps")
    assert means["mod"].to_list() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert means.accuracy.to_list() == [1, 1, 1, 0, 0]
    assert means["empty"].to_list() == [0.5] * 5 and means.mod_over_ceiling[0.4] == pytest.approx(0.8)
    assert tables.vid(means.reset_index()).vid.item() == pytest.approx(0.1118, abs=1e-4)


def test_both_readings_of_vid_are_of_the_last_stage_under_fgsm():
    table = measurements(seeds=2)
    table.loc[(table.image_id == 1) & (table.eps > 0), "nissim"] = 0.3  # this image stays where it is
    others = [measurements(last=False), measurements(attack="noise").assign(nissim=9.0)]
    whole = pd.concat([table, *others], ignore_index=True)
    found = tables.vids(whole, tables.summary(whole))
    assert found.index.to_list() == [("plain", "stage3", "pred")]
    row = found.iloc[0]
    one = np.std([0.1, 0.2, 0.3, 0.4])
    assert row["VID (A)"] == pytest.approx((one / 2 + one / 4) / 2, abs=1e-4)
    assert (row["lowest seed"], row["highest seed"]) == pytest.approx((one / 4, one / 2), abs=1e-4)
    assert row["VID (B), mean over images"] == pytest.approx((one + 0 + one / 2 + 0) / 4, abs=1e-4)


def test_a_curve_has_the_mean_and_the_range_of_the_seeds():
    table = pd.concat([measurements(seeds=2), measurements(target="true")], ignore_index=True)
    found = tables.curve(tables.summary(table), "mod", model="plain", target_mode="pred")
    assert found.eps.to_list() == [0.1, 0.2, 0.3, 0.4]
    assert found.value.to_list() == pytest.approx([0.075, 0.15, 0.225, 0.3])
    assert found.low.to_list() == pytest.approx([0.05, 0.1, 0.15, 0.2]) and found.high[3] == pytest.approx(0.4)


def test_the_headline_is_the_last_stage_and_the_predicted_class():
    parts = [measurements(), measurements(last=False), measurements(target="true"), measurements(attack="noise")]
    table = pd.concat(parts, ignore_index=True)
    assert len(tables.headline(table)) == 20 and len(tables.headline(table, attack="noise")) == 10


def test_accuracy_and_shift_are_in_the_order_of_the_networks():
    table = measurements(models=("inception", "plain"), seeds=2)
    found = tables.accuracy_and_shift(tables.summary(table), ("plain", "inception"))
    assert found.network.unique().tolist() == ["plain (VGG-like)", "wide (multi-branch)"]
    assert found["mod"][:5].to_list() == pytest.approx([0, 0.075, 0.15, 0.225, 0.3])
    assert found.value[:5].to_list() == found.high[:5].to_list() == [1, 1, 1, 0, 0]


def test_the_commonest_answer():
    found = tables.commonest(measurements(seeds=2))
    assert found.columns.to_list() == ["0", "0.1", "0.2", "0.3", "0.4"]
    assert found.loc[("plain", "fgsm")].to_list() == [1, 1, 1, 1, 0.5]


def test_the_mode_is_where_most_values_are():
    values = pd.Series([0.52] * 5 + [0.56] * 4 + [-0.9] * 6)
    assert tables.mode(values) == pytest.approx(0.525)


def test_the_papers_numbers_stand_beside_ours():
    table = measurements(models=("plain", "small")).replace({"eps": {0.2: 0.05}})
    p = Parameters(architectures=("plain", "small"), eps=(0.05, 0.1, 0.3))
    found = tables.beside_published(table, p, {0.05: 26.0, 0.1: 20.0})
    assert found.index.to_list() == ["0.05", "0.1"]  # 0.3 is not the paper's, its other eps are not ours
    assert found.columns.to_list() == ["PSNR published (dB)", "PSNR ours (dB)", "plain published", "plain ours"]
    assert found.loc["0.05"].to_list() == pytest.approx([25.97, 26.0, 0.82, 0.425], abs=1e-9)
    nothing = p.model_copy(update={"eps": (0.3, 0.4)})
    assert tables.beside_published(table, nothing, {}).empty


def test_figure_5_s_face_stands_beside_the_shares_of_all():
    table = measurements(models=("plain", "small")).replace({"eps": {0.2: 0.05}})
    found = tables.beside_one_face(table, Parameters(architectures=("plain", "small"), eps=(0.05, 0.3)))
    assert found.index.to_list() == ["plain"] and found.columns.to_list() == ["0", "0.05"]
    own = table[(table.model == "plain") & (table.attack == "fgsm") & (table.target_mode == "pred") & (table.eps == 0.05)]
    assert found.loc["plain", "0.05"] == f"wrong ({(own.pred_adv == own.true).mean():.2f})"
    assert found.loc["plain", "0"].startswith("right (")
    grid = tables.printed("right").astype(int)
    assert ["".join("WC"[v] for v in grid[n]) for n in ("vgg16", "resnet50", "xception")] == ["CCWWW", "CCCCC", "CCCWW"]


def test_companions_are_those_of_one_eps():
    found = tables.companions(tables.summary(measurements(seeds=2)), 0.4)
    assert found.loc[("plain", "stage3", "FGSM"), ["MOD", "MOD / ceiling", "accuracy"]].to_list() == [0.3, 0.6, 0.0]


def test_looks_by_network_and_attack():
    """Of two images one is turned round at the largest eps; the mass on the background is MOD's, in the mean over two seeds."""
    table = pd.concat([measurements(models=("plain", "small"), seeds=2, attack=a) for a in ("fgsm", "noise")])
    rows = tables.looks(tables.summary(table), ("plain", "small"))
    assert list(rows.columns) == ["eps", "value", "low", "high", "measure", "line"]
    assert rows.measure.unique().tolist() == list(tables.LOOKS) and rows.line.nunique() == 4
    part = tables.where(rows, line="plain (VGG-like), FGSM").set_index(["measure", "eps"]).value
    assert part["inverted"].tolist() == [0, 0, 0, 0, 0.5] and part["background"].tolist() == pytest.approx(list(MOD.values()))
    unknown = tables.looks(tables.summary(table.assign(background=np.nan)), ("plain",))
    assert unknown.measure.unique().tolist() == ["area", "inverted"]
