"""Study 3's tables: what stands in which row and cell, from measurements planted by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from lib.claims import cubes as cubes_
from lib.claims.rows import rows
from lib.studies.interpretability_aware_training import statistics, tables
from lib.studies.interpretability_aware_training.plan import Parameters

ARMS = ("normal", "adv", "int2")
P = Parameters(arms=ARMS, headline=("normal", "adv"), seeds=2, runs=(), aai_eps=(0.04, 0.12), eps_grid=(0.12, 0.2))
TENTHS = torch.arange(10)


def share(value):
    """Ten images of which this share is 1."""
    return (round(10 * value) > TENTHS).float()


def planted(p=P):
    """Accuracy: Normal .2, Adv .5, Int2 .8 under the paper's PGD, .1 less under the strongest, and 1 clean; the second seed
    of the headline arms is as the first."""
    found = []
    for i, arm in enumerate(p.arms):
        right = 0.2 + 0.3 * i

        def put(measure, level, values, arm=arm):
            for seed in range(2 if arm in p.headline else 1):
                found.append(rows(arm, seed, measure, level, torch.as_tensor(values)))

        put("clean", 0, share(1))
        put("warned", 0, torch.full((10,), float(arm == "adv")))
        for eps in p.eps_grid:
            put("plain", eps, share(right))
            put("strong", eps, share(right - 0.1))
            put("d2", eps, torch.full((10,), 2.0 + i))
            put("bound", eps, torch.where(TENTHS == 0, 5.0, 1.0))
            put("applies", eps, share(right))
        for eps in p.aai_eps:
            for kind in ("released", "l1", "topk", "noise", "ig"):
                put(f"tau/{kind}", eps, torch.where(TENTHS < 4, 0.9, 0.5) - eps * (kind == "l1"))
            put("kept/released", eps, share(0.4))
            put("top/topk", eps, share(0.7))
            put("moved/l1", eps, torch.full((10,), 3.0))
        for name, eps in ({"none": 0.0} | p.unforeseen_eps).items():
            put(f"unforeseen/{name}", eps, share(right if eps else 1))
        for name in p.unforeseen_eps:
            for radius in (1.0, 2.0) if arm != "int2" else ():
                put(f"calibration/{name}", radius, share(right / radius))
    return cubes_.Cubes.of(pd.concat(found, ignore_index=True))


@pytest.fixture(scope="module")
def cubes():
    return planted()


def test_each_arm_s_losses_in_symbols():
    history = [{"epoch": e, "seconds": s} for e, s in ((1, 1.0), (2, 2.0), (3, 6.0))]
    every = Parameters()
    found = tables.losses(every, dict.fromkeys(every.arms, 0.98765), dict.fromkeys(every.arms, history))
    told = {name: (row["outer loss"], row["inner objective"]) for name, row in found.iterrows()}
    assert told["Normal"] == ("CE(x)", "none") and told["Adv"] == ("CE(x′)", "CE(x′)")
    assert told["TRADES"] == ("CE(x) + KL", "KL") and told["IG-Norm-Sum"] == ("CE(x′) + w R", "CE(x′) + w R")
    assert told["Int-one-class"] == ("CE(x) + γ D1", "γ D1") and told["Int2"] == ("CE(x) + γ D̃", "CE(x′)")
    assert list(found.seeds) == [5, 5, 1, 1, 1, 5, 5, 1, 5, 1]
    assert (found["clean accuracy (seed 0)"] == 0.988).all() and (found["seconds an epoch"] == 2).all()
    assert tables.seconds(history, 1) == 4 and tables.seconds(history, 3) == 6


def test_accuracy_has_both_attacks_and_begins_clean(cubes):
    found = tables.accuracy(cubes, P).set_index(["arm", "attack", "eps"])
    assert found.value["adv", "plain", 0.12] == pytest.approx(0.5) and found.value["adv", "strong", 0.12] == pytest.approx(0.4)
    assert found.value["normal", "plain", 0.0] == found.value["normal", "strong", 0.0] == 1
    assert found.n["adv", "plain", 0.2] == "10 images, 2 seeds" and "1 seed" in found.n["int2", "plain", 0.2]
    assert len(found) == 3 * 2 * 3 and tables.warned(cubes, P) == ["Adv"]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Ten images a network here."""
    monkeypatch.setattr(tables, "FEWEST", 3)


def test_no_tau_is_shown_of_a_handful_of_survivors(cubes, monkeypatch):
    assert tables.table_3(cubes, P).loc["Int2"].iloc[0] == "0.90±0.00 of 4"  # all alike here
    monkeypatch.setattr(tables, "FEWEST", 5)
    assert tables.table_3(cubes, P).loc["Int2"].iloc[0] == "– of 4"
    found = tables.order(cubes, P)
    assert found[found.kind == "survivors"].value.isna().any() and found[found.kind != "survivors"].value.notna().all()


def test_tau_of_survivors_is_theirs_alone(cubes):
    found = tables.order(cubes, P).set_index(["arm", "kind", "eps"]).value
    assert found["adv", "survivors", 0.12] == pytest.approx(0.9) and found["adv", "released", 0.12] == pytest.approx(0.66)
    assert found["adv", "l1", 0.12] == pytest.approx(0.54) and len(found) == 3 * 6 * 2
    shown = tables.explanations(cubes, P).loc["Adv"]
    assert shown["CAM, L1 form"].startswith("0.54±") and shown["overlap of the top 3, top-k form"].startswith("0.70±")
    assert shown["D1, L1 form"] == "3.00±0.00"


def test_both_sides_of_the_proposition(cubes):
    """The first image's bound is 5: violated wherever its attack succeeds, by Normal's D2 of 2 as by Int2's of 4."""
    points = tables.margins(cubes, P)
    assert points.groupby("arm", sort=False).size().to_dict() == {"normal": 4, "adv": 10, "int2": 16}
    assert set(points.margin) == {10.0, 2.0} and set(points[points.arm == "adv"].d2) == {3.0}
    assert tables.violations(cubes, ["adv"]) == (4, 20) and tables.violations(cubes) == (4 + 4 + 2, 8 + 20 + 16)
    found = tables.proposition(cubes, P)
    assert list(found.columns) == ["CAM, PGD", "median D2 / bound, eps 0.12"]  # the others were not measured
    assert found.loc["Int2", "CAM, PGD"] == "2 of 16" and found.iloc[1, 1].startswith("3.00")


def test_radii_are_of_seed_0_and_their_score_is_a_ratio_of_sums(cubes):
    found = tables.calibration(cubes, P)
    by = found.set_index(["attack", "arm", "radius"])
    assert len(found) == 5 * 2 * 2 and by.value["snow", "adv", 2.0] == pytest.approx(0.2)
    assert "1 seed" in by.n["snow", "adv", 2.0]
    best = (0.922, 0.910, 0.884, 0.858, 0.813, 0.720)
    assert tables.uar(found).loc["Adv", "jpeg-l2"] == round(0.7 / sum(best), 3)


def test_costs_are_of_the_epochs_at_the_whole_radius(cubes):
    p = P.model_copy(update={"epochs": 4, "full_share": 0.5})
    history = [{"epoch": e, "seconds": float(10 * e)} for e in range(1, 5)]
    found = tables.costs(cubes, p, {"adv": history, "int2": history[:2]})
    assert found["seconds an epoch"].tolist() == [35, 20] and found.value.tolist() == pytest.approx([0.4, 0.7])


def test_published_numbers_stand_beside_ours(cubes):
    first = tables.table_1(cubes, P)
    assert first.columns.get_level_values(0).unique().tolist() == ["ours, digits", "published, mnist, small"]
    assert first.loc["Adv", ("published, mnist, small", "0.35")] == "0.010"
    assert first.loc["Adv", ("ours, digits", "0.12")] == "0.50±0.35 / 0.40"
    assert first.loc["Adv"].iloc[0] == "1.00±0.31"  # all of ten: 1 - .025^(1/10)
    second = tables.table_2(cubes, P)
    assert second.loc["Int2", ("ours, digits", "snow")].startswith("0.80±") and second.loc["Int2"].iloc[0] == "1.00±0.31"
    assert second.loc["Adv", ("published, cifar10, small", "gabor")] == "0.190"
    third = tables.table_3(cubes, P)
    assert third.loc["Int2"].iloc[0] == "0.90±0.00 of 4" and third.loc["Normal", ("published, mnist, small", "0.3")] == "-0.085"


def test_an_arm_that_is_not_printed_is_a_dash():
    p = P.model_copy(update={"dataset": "restricted-imagenet", "arms": ("normal", "adv", "trades")})
    found = tables.table_1(planted(p), p)["published, restricted-imagenet, wresnet"]
    assert set(found.loc["TRADES"]) == {"–"} and "–" not in set(found.loc["Adv"])


@pytest.mark.parametrize(
    ("dataset", "numbers"),
    [
        ("digits", ("mnist", "cifar10", "mnist")),
        ("cifar10", ("cifar10", "cifar10", "mnist")),
        ("restricted-imagenet", ("restricted-imagenet", "cifar10", "restricted-imagenet")),
    ],
)
def test_what_is_compared_is_printed(dataset, numbers):
    p = P.model_copy(update={"dataset": dataset})
    assert tuple(tables.alike(p, number) for number in (1, 2, 3)) == numbers
    for number, data in enumerate(numbers, 1):
        assert len(statistics.published(number, data)) > 3


def test_what_is_not_printed_is_refused():
    with pytest.raises(ValueError, match=r"no table 3 for 'cifar10'; .* has what is printed"):
        statistics.published(3, "cifar10")


@pytest.fixture
def theirs():
    """Two of the authors' networks: Adv as printed at 0 and .3, Normal as printed at 0 alone; half the images survive."""
    found = []
    for arm, accuracies in {"normal": {0.0: 1.0, 0.3: 0.1}, "adv": {0.0: 0.98, 0.3: 0.89}}.items():
        for eps, accuracy in accuracies.items():
            found.append(rows(arm, 0, "paper", eps, (torch.arange(100) < round(100 * accuracy)).float()))
        for starts, left in (("starts-1", 0.5), ("starts-3", 0.25)):
            found.append(rows(arm, 0, starts, 0.3, (torch.arange(100) < 100 * left).float()))
        found.append(rows(arm, 0, "tau", 0.3, torch.where(torch.arange(100) < 50, 0.8, 0.2)))
        found.append(rows(arm, 0, "kept", 0.3, (torch.arange(100) < 50 * (arm == "adv")).float()))
    return pd.concat(found, ignore_index=True)


def test_the_authors_networks_beside_their_tables(theirs):
    curves = tables.released_accuracy(theirs)
    found = tables.released_table_1(curves)
    assert found.index.tolist() == [("Normal", 0.0), ("Normal", 0.3), ("Adv", 0.0), ("Adv", 0.3)]
    assert found.columns.tolist() == ["measured", "published", "1 random start", "3 random starts"]
    assert found.loc[("Adv", 0.3)].tolist() == pytest.approx([0.89, 0.89, 0.5, 0.25])
    assert np.isnan(found.loc[("Adv", 0.0)].tolist()[2:]).all()
    assert tables.agreement(found) == "3 of 4 cells of table 1 come out to the digit; not: Normal at 0.3: 0.100, printed 0.000"
    assert tables.agreement(found.drop(("Normal", 0.3))) == "3 of 3 cells of table 1 come out to the digit"
    half = curves[(curves.arm == "adv") & (curves.attack == "1 random start")].iloc[0]
    assert half.low < 0.5 < half.high and half.n.startswith("100 images")


def test_the_authors_networks_tau_over_survivors_and_all(theirs):
    found = tables.released_table_3(theirs)
    assert found.loc[("Adv", 0.3)].tolist() == pytest.approx([0.8, 0.857, 50, 0.5])
    assert np.isnan(found.loc[("Normal", 0.3), "tau, survivors"]) and found.loc[("Normal", 0.3), "survivors of 200"] == 0
