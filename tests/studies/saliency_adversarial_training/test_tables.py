"""Study 5's tables: accuracies, costs and differences of measurements whose numbers are known, beside the published ones."""

from types import SimpleNamespace

import numpy as np
import pytest

from lib.claims.cubes import Cubes
from lib.studies.saliency_adversarial_training import plan, published, tables
from lib.studies.saliency_adversarial_training.plan import Parameters

ARMS = ("original", "uniform", "sign", "sat-masks", "sat-masks@inverted", "sat-std-gradient", "pgd", "pgd+sat", "trades-1")
P = Parameters(
    arms=ARMS,
    headline=("original", "sat-masks"),
    seeds=2,
    runs=(),
    switches=("sat-std-gradient@fresh",),
    sweep=("sat-std-gradient",),
    alphas=(1e-9,),
    eps0s=(16.0,),
    images=10,
    strong_images=8,
    strong_eps=(1.0, 3.0),
    epochs=4,
)
RIGHT = {"original": 0.2, "sat-masks": 0.8, "sat-masks@inverted": 0.5, "sat-std-gradient": 0.6, "sign": 0.4}
SECONDS = {"original": 1.0, "sign": 1.5, "sat-masks": 2.0, "pgd": 4.0, "maps/gradient": 8.0}


def measured(*leave_out):
    """RIGHT (else .5) is the share of right answers under PGD, one tenth less at every further radius; the strong attack
    breaks one image more, and clean images are one tenth better."""
    found = {}
    for arm in P.every:
        share, several = RIGHT.get(arm, 0.5), (plan.seeds_of(P, arm), 1)

        def right(share, n=P.images, several=several):
            return np.tile(np.arange(n) < round(P.images * share), several).astype(float)

        found[arm, "clean", 0.0] = right(share + 0.1)
        found[arm, "noise", P.eps] = right(share + 0.1)
        found |= {(arm, "pgd", e): right(share - 0.1 * i) for i, e in enumerate(P.eps_grid)}
        found |= {(arm, "transfer", e): right(1, P.strong_images) for e in P.strong_eps}
        if arm in P.headline:
            found |= {(arm, "strong", e): right(share - 0.05 * e - 0.05, P.strong_images) for e in P.strong_eps}
        if plan.parsed(arm, P.mix_maps).mix == "sat":
            found |= {
                (arm, m, 0.0): np.full((several[0], P.images), v) for m, v in (("cosine", 0.1), ("cosine-another", -0.02))
            }
    found |= {(arm, "seconds", 0.0): np.full((1, P.rounds), v) for arm, v in SECONDS.items()}
    return Cubes({k: v for k, v in found.items() if k[0] not in leave_out or k[1] != "seconds"})


@pytest.fixture(scope="module")
def cubes():
    return measured()


def test_every_arm_has_a_family_and_a_short_name():
    found = tables.families(Parameters())
    assert list(found) == ["noise and weak maps", "standard teacher", "adversarially trained teacher", "PGD", "TRADES"]
    assert sorted(a for members in found.values() for a in members) == sorted(set(Parameters().arms) - {"original"})
    few = tables.families(P.model_copy(update={"arms": (*ARMS, "sat-std-gradient@median")}))
    assert "adversarially trained teacher" not in few and few["standard teacher"] == ["sat-std-gradient"]
    names = {a: tables.named(a) for a in Parameters().arms}
    assert names["sat-adv-ig"] == "integrated gradients" and names["sat-masks@inverted"] == "masks, inverted"
    assert names["pgd+sat"] == "PGD + SAT" and names["sat-std-guided-gradcam++"] == "guided Grad-CAM++"
    for members in found.values():
        assert len({names[a] for a in members}) == len(members)


def test_the_arms_tell_their_seeds_accuracy_and_loss(monkeypatch):
    history, asked = [{"loss": 2.0}, {"loss": 0.12345}], []
    network = SimpleNamespace(history=history, model=None)
    monkeypatch.setattr(tables.plan, "network", lambda p, arm, seed: asked.append((arm, seed)) or network)
    monkeypatch.setattr(tables.evaluate, "accuracy", lambda model, data: 0.98765)
    found = tables.trained(P, None)
    assert found.loc["SAT (masks)"].tolist() == [2, 0.988, 0.123]
    assert asked == [(arm, 0) for arm in P.every] and found.index.tolist() == [plan.label(arm) for arm in P.every]


def test_curves_have_every_attack_that_was_made(cubes):
    found = tables.curves(cubes, P).set_index(["arm", "attack", "eps"])
    assert found.accuracy["sat-masks", "pgd", 2.0] == pytest.approx(0.7)
    assert found.accuracy["sat-masks", "clean", 0.0] == pytest.approx(0.9)
    assert found.accuracy["original", "strong", 1.0] == pytest.approx(1 / 8) and ("pgd", "strong", 1.0) not in found.index
    assert "2 seeds" in found.n["original", "pgd", 1.0] and set(found.index.get_level_values("arm")) == set(ARMS)
    assert (found.low <= found.accuracy).all() and (found.accuracy <= found.high).all()


def test_without_a_sweep_the_published_ones_are_left(cubes):
    found = tables.sweeps(cubes, P.model_copy(update={"sweep": ()}))
    assert set(found.whose) == {tables.CIFAR} and found[["low", "high"]].isna().all(axis=None)


def test_published_accuracies_stand_beside_ours(cubes):
    found = tables.beside_published(cubes, P)
    assert found.index.tolist() == [plan.label(a) for a in ARMS if "@" not in a]
    row = found.loc["SAT (masks)"]
    assert row["ours, shapes, 0"].startswith("90.0±") and row["ours, 3"].startswith("60.0±")
    theirs = published.theirs("sat-masks")["flower-17"]
    assert row["published, flower-17, 1 / 2 / 3"] == " / ".join(f"{100 * v:.2f}" for v in theirs)
    assert row["published, cifar-100, 1 / 2 / 3 / 4"] == "–"
    assert found.loc["TRADES β=1"].filter(like="published").eq("–").all()  # alone, beta 6 is published


def test_costs_are_multiples_of_the_originals_step_with_the_share_of_the_maps(cubes):
    found = tables.costs(cubes, P).set_index("arm")
    assert found.time.to_dict() == {
        "original": 1,
        "sign": 1.5,
        "sat-masks": 2,
        "sat-std-gradient": 2 + 8 / P.epochs,  # maps are made once a run
        "pgd": 4,
    }
    assert found.accuracy["sat-masks"] == pytest.approx(0.7) and found["time low"].tolist() == pytest.approx(found.time)
    assert found.passes.to_dict() == pytest.approx(
        {"original": 1, "sign": 1, "sat-masks": 1, "sat-std-gradient": 1 + 1 / P.epochs, "pgd": 1 + P.steps}
    )
    told = tables.times(found.reset_index())
    assert told.loc["PGD"].tolist() == ["6.00", "4.00 [4.00, 4.00]"] and len(told) == len(found)
    anew = tables.costs_anew(cubes)
    assert anew.index.tolist() == ["gradient"] and anew.iloc[0, 0] == "10.00 [10.00, 10.00]"
    assert "sat-std-gradient" not in set(tables.costs(measured("maps/gradient"), P).arm)
    assert tables.costs_anew(measured("sat-masks")).iloc[0, 0].startswith("9.50")  # a step of the same work
    assert tables.costs_anew(measured("maps/gradient")).empty


def test_sweeps_end_where_there_are_no_maps_or_nothing_else(cubes):
    found = tables.sweeps(cubes, P)
    ours = found[(found.whose == "ours") & (found.eps == 1)].set_index(["what", "at"]).accuracy
    assert ours["alpha"].to_dict() == pytest.approx({0.0: 0.5, P.alpha10: 0.6, 1.0: 0.4})
    assert ours["eps0"].to_dict() == pytest.approx({0.0: 0.2, P.eps: 0.6, 16.0: 0.5})
    lucky = Cubes(cubes.values | {("original", "pgd", e): np.eye(2, 10) for e in P.eps_grid})
    lucky.values["original", "pgd", 1.0][0] = 1.0  # all right in the first run, whose companions the other points are
    drawn = tables.sweeps(lucky, P)
    drawn = drawn[(drawn.whose == "ours") & (drawn.eps == 1) & (drawn.what == "eps0")].set_index("at").accuracy
    assert drawn[0.0] == 1.0
    theirs = found[found.whose == tables.CIFAR]
    assert set(theirs.teacher) == {"std", "adv"} and theirs.low.isna().all()
    at = theirs[(theirs.what == "alpha") & (theirs.eps == 1)].set_index(["teacher", "at"]).accuracy
    assert at["std", 0.6] == pytest.approx(0.2053, abs=1e-3) and at["std", 1.0] == at["adv", 1.0]  # the same network


def test_switches_are_compared_with_their_own_arm(cubes):
    found = tables.switches(cubes, P)
    assert found.index.tolist() == [plan.label("sat-std-gradient@fresh"), plan.label("sat-masks@inverted")]
    row = found.loc[plan.label("sat-masks@inverted")]
    assert (row["robust accuracy"], row["without the switch"], row["seeds"]) == ("0.400", "0.700", 1)
    assert row["difference"].startswith("-0.300 [-") and row["difference, clean"].startswith("-0.300 [")


def test_attacks_are_compared_on_the_images_of_the_strong_one(cubes):
    found = tables.attacks(cubes, P)
    row = found.loc["SAT (masks)"]
    assert row["PGD-5"].startswith("75.0±")  # six of eight, and not of ten
    assert row["PGD-50, restarts"].startswith("75.0±") and row["transferred"] == "100.0±36.9"  # all of eight: 1 - .025^(1/8)
    assert row["clean"] == row["random signs of 8/255"] and row["clean"].startswith("90.0±")
    assert (row["cosine, this image"], row["another"]) == ("+0.100", "-0.020")
    assert found.loc["PGD", "PGD-50, restarts"] == "" and found.loc["original", "another"] == ""
