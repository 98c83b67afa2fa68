"""Study 4's tables: rates, accuracies and curves of measurements whose numbers are known, beside the published ones."""

import numpy as np
import pandas as pd
import pytest
import torch

from lib.claims.cubes import Cubes
from lib.data.datasets import ImageSet
from lib.networks import models
from lib.studies.model_manipulation import plan, published, tables
from lib.studies.model_manipulation.plan import Parameters
from tests.data.test_imagenet import validation_set

P = Parameters(
    kinds=("location", "active"),
    fooled=("gradcam", "lrp_t"),
    headline=("location-lrp_t",),
    seeds=2,
    tune_epochs=1,
    deletion=(0.5,),
    images=10,
    train_probe=10,
)
N = 10


def hits(share):
    """Values that a share of the images has in [0, .2] and [.5, 2], the others in neither."""
    return np.where(np.arange(N) < round(N * share), 0.1, 0.4)


def swaps(share):
    return np.where(np.arange(N) < round(N * share), 1.0, 0.0)


@pytest.fixture(scope="module")
def cubes():
    """Location through LRP_T fools half of the images under LRP_T (a fifth at .25 of the weight, a tenth once washed), and .3
    under Grad-CAM; the active fooling swaps .8 through Grad-CAM on the plain network, and .2 elsewhere."""
    found = {}
    for arch in P.architectures:
        for arm in plan.arms(P, arch):
            seeds, own, name = plan.seeds_of(P, arch, arm), plan.parsed(arm), f"{arch}/{arm}"

            def add(measure, values, level=0.0, name=name, seeds=seeds):
                found[name, measure, level] = np.tile(np.asarray(values, float), (seeds, 1))

            share = {"location-lrp_t": 0.5, "location-lrp_t@0.25": 0.2, "washed-location-lrp_t": 0.1}.get(arm, 0.0)
            for looking in plan.INTERPRETERS:
                if looking in plan.COSTLY and arm not in ("base", "none", *P.headline):
                    continue
                add(f"t/location/{looking}", hits(share if looking == "lrp_t" else 0.3 if arm == "location-lrp_t" else 0.0))
                add(f"dead/{looking}", np.arange(N) < (4 if arm == "location-lrp_t" else 1))
            add("right", np.arange(N) < (8 if own.kind == "location" else 9))
            add("top5", np.ones(N))
            add("agrees", np.ones(N))
            add("confidence", np.full(N, 0.9))
            add("robust", np.arange(N) < 3)
            swapped = 0.8 if name == "plain/active-gradcam" else 0.2
            for c, looking in ((c, looking) for c in tables.CLASSES for looking in plan.SWAPPED):
                add(f"swap-{c}/{looking}", swaps(swapped))
                add(f"swap-ternary-{c}", swaps(0.4))
                add(f"alike/{looking}", np.r_[np.nan, np.full(N - 1, 0.25)])
            for what in tables.AGREE:
                add(f"consistency/{what}", np.r_[np.nan, np.linspace(0, 1, N - 1)] if arm == "none" else np.full(N, np.nan))
            for i, order in enumerate(tables.ORDER_NAMES):
                add(f"deleted/{order}", np.full(N, 0.9))
                add(f"deleted/{order}", np.full(N, 0.1 * i), 0.5)
            for epoch in range(P.tune_epochs + 1):
                kind = "active" if own.kind == "active" else "location"
                add("steps-t", (swaps if kind == "active" else hits)(0.6 * epoch), float(epoch))
                add("steps-t2", swaps(0.2 * epoch), float(epoch))
                add("steps-right", np.arange(N) < 7, float(epoch))
    return Cubes(found)


def test_transfer_has_a_row_for_what_was_measured_and_a_grey_cell_for_what_was_not(cubes):
    found = tables.transfer(cubes, P)
    one = found.set_index(["network", "arm", "interpreter"]).fsr
    assert one["plain", "location-lrp_t", "lrp_t"] == 0.5 and one["plain", "location-lrp_t", "ig"] == 0.3
    assert ("plain", "location-gradcam", "ig") not in one.index and set(found.kind) == {"location"}
    values = tables.rates(found, P, "plain", "location")
    assert values.shape == (4, len(plan.INTERPRETERS))
    assert values[3, list(plan.INTERPRETERS).index("lrp_t")] == 50 and values[0].max() == 0
    assert np.isnan(values[2, list(plan.INTERPRETERS).index("smoothgrad")])


def test_rates_stand_beside_the_published_ones(cubes):
    found = tables.beside_published(cubes, P).loc[("location", "through LRP_T")]
    assert found["ours, shapes", "plain", "LRP_T"].startswith("50±")
    assert found["ours, shapes", "residual", "Grad-CAM"].startswith("30±")
    assert found[tables.PUBLISHED, "resnet50", "SimpleG_T"] == "81.1"
    assert tables.beside_published(cubes, P).index.tolist() == [("location", f"through {n}") for n in ("Grad-CAM", "LRP_T")]


def test_accuracies_and_dead_maps_are_percents(cubes):
    found = tables.accuracies(cubes, P)
    assert found.index[:2].tolist() == ["original", "control (no fooling term)"] and len(found) == 2 + 4
    fooled = found.loc["location through LRP_T"]
    assert fooled["ours, shapes", "plain", "dead maps"] == "10 → 40" and found.iloc[0, 1] == "–"
    top1, _, top5 = fooled["ours, shapes", "plain", "top-1 / top-5"].partition(" / ")
    assert top1.startswith("80.0±") and top5 == "100.0"
    assert found.loc["control (no fooling term)"][tables.PUBLISHED].eq("–").all()
    assert not fooled[tables.PUBLISHED].eq("–").any()


def test_curves_along_the_tuning_and_by_weight(cubes):
    along = tables.along(cubes, P, "plain").set_index(["arm", "epoch"])
    assert along.fsr["location-gradcam", 1] == 0.6 and along.fsr["location-gradcam", 0] == 0
    assert along.fsr["active-gradcam", 1] == pytest.approx(0.4)  # of both classes
    assert set(along.accuracy) == {0.7} and set(along.images) == {N}
    ending = tables.by_weight(cubes, P, "plain")
    assert ending.weight.tolist() == [0, P.location_weight / 4, P.location_weight] and ending.fsr.tolist() == [0, 0.2, 0.5]
    assert ending.accuracy.tolist() == [0.9, 0.8, 0.8] and (ending.low <= ending.fsr).all()


def test_swaps_by_class_and_the_best_of_them(cubes):
    assert tables.best_swap(cubes, P) == ("plain", "gradcam")
    found = tables.swaps(cubes, P)
    assert found.index.tolist() == [(f"through {n}", c) for n in ("Grad-CAM", "LRP_T") for c in ("c1", "c2")]
    first = found.loc[("through Grad-CAM", "c1"), "ours, shapes"]["plain"]
    assert first["Grad-CAM"].startswith("80±") and first["mean t"] == "0.80 of 0.75"
    assert first["own, code's correlation"] == "40"
    rates = published.table()
    theirs = rates[(rates.fooling == "active") & (rates["class"] == "c2") & (rates.network == "vgg19")]
    theirs = theirs[(theirs.table == "fsr") & (theirs.through == "lrp_t")].set_index("column").value
    told = found.loc[("through LRP_T", "c2"), tables.PUBLISHED]["vgg19"]
    assert told["Grad-CAM"] == f"{theirs['gradcam']:.1f}"


def test_a_run_that_trains_on_an_evaluation_set_says_so(tmp_path, monkeypatch):
    """Ten photographs of two classes, of which the three held out are of both (see the test of `lib.data.imagenet`)."""
    assert tables.about(P) == ""
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    validation_set(tmp_path, wnids=("n01440764", "n02123159"), each=5)
    p = P.model_copy(update={"dataset": "imagenet:divided:sample", "tune_images": 1})
    said = tables.about(p)
    assert "`sample` has no training images" in said and "7 of its 10 photographs are there to fool with (1 are used)" in said
    assert "3 are held out" in said and "Of the 2 classes of those held out, 1 have no photograph" in said


def test_what_gives_it_away(cubes):
    deleted = tables.deletion(cubes, P, "plain").set_index(["arm", "order", "share"]).probability
    assert deleted["none", "own", 0.5] == pytest.approx(0.1) and deleted["location-lrp_t", "random", 0.0] == pytest.approx(0.9)
    assert len(tables.agreement(cubes, "plain", "none", "layers")) == 2 * (N - 1)  # but for what is not defined
    agrees = tables.agreements(cubes, P, "plain").set_index(["arm", "compared"])
    assert agrees["median"]["none", "layers"] == 0.5 and agrees.images["location-lrp_t", "layers"] == 0
    assert np.isnan(agrees["median"]["location-lrp_t", "layers"])
    washed = tables.washed(cubes, P, "plain")
    assert washed.arm.tolist() == ["none", "location-lrp_t", "washed-location-lrp_t"]
    assert washed.fsr.tolist() == [0, 0.5, 0.1] and set(washed.fooling) == {"location-lrp_t"}
    decided = tables.decisions(cubes, P)
    assert decided.loc[("plain", "original"), "agrees with the original"] == "1.000±0.308"  # all of ten: 1 - .025^(1/10)
    assert decided.filter(like="PGD").iloc[0].item().startswith("0.300±") and len(decided) == 2 * 3


def test_originals_tell_the_layer_and_what_is_fooled_on_it():
    torch.manual_seed(0)
    data = ImageSet("x", "test", torch.rand(6, 3, 32, 32), torch.arange(6), tuple("abcdef"))
    found = tables.originals(P, {"plain": models.create("plain", classes=6, seed=0).eval()}, data)
    row = found.loc["plain"]
    assert (row["layer T"], row["map"]) == ("input of stage3.3", "8 × 8")
    assert (row["frame"], row["top-k"]) == ("28 of 64 positions", "6 of 64 positions")
    assert 0 <= row["accuracy (seed 0)"] <= 1 and isinstance(found, pd.DataFrame)
    assert np.isfinite(row[["LRP keeps (heo)", "LRP keeps (epsilon-plus)"]].astype(float)).all()
