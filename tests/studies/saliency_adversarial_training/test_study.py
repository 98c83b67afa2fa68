"""Study 5: parameters, arms, measurements, claims, explorer."""

import itertools
import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from lib.attacks import projected
from lib.claims import claim
from lib.claims.cubes import Cubes
from lib.claims.rows import rows
from lib.networks import models
from lib.runs import profiles
from lib.studies.saliency_adversarial_training import claims, explorer, maps, plan, published
from lib.studies.saliency_adversarial_training import measure as measure_
from lib.studies.saliency_adversarial_training.objective import coin
from lib.studies.saliency_adversarial_training.plan import Parameters
from lib.system import paths
from lib.training import cache
from tests.claims import sentences
from tests.conftest import same_state, state_of
from tests.studies.attention_shift.test_explorer import OWN, png, upload

SMOKE = profiles.parameters("05-saliency-adversarial-training", "smoke")
FEW = ("original", "uniform", "sign", "pgd", "sat-masks")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """One home for the file: its small networks are trained once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDY_HOME", str(tmp_path_factory.mktemp("home")))
        plan.teacher.cache_clear()
        measure_.transferred.cache_clear()
        yield


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"arms": ("original", "uniform", "sign", "sat-edges")},
            "unknown arm 'sat-edges'; did you mean sat-boxes or .* or sat-masks. There are original",
        ),
        ({"arms": ("original", "uniform", "sign", "sat-masks@sideways")}, "unknown arm 'sat-masks@sideways'"),
        ({"arms": ("original", "uniform", "sign", "sat-masks@a")}, "unknown arm"),
        ({"arms": ("original", "uniform", "sign", "sign")}, "named twice: sign"),
        ({"arms": FEW[1:], "headline": ("sign",), "switches": (), "sweep": ()}, "arms original are what others are compared"),
        ({"arms": (*FEW[:3], "sat-adv-ig"), "headline": ("sign",), "switches": (), "sweep": ()}, "arms pgd are"),
        ({"arms": FEW, "headline": ("trades-1",), "switches": (), "sweep": ()}, "headline 'trades-1' is none of the arms"),
        ({"arms": FEW, "headline": FEW, "switches": ("sat-boxes@unflipped",), "sweep": ()}, "arms sat-boxes are"),
        ({"mix_maps": "std-lrp"}, "unknown maps 'std-lrp'; choose masks, boxes"),
        ({"alpha10": 0}, "alpha10 = 0: Input should be greater than 0"),
        ({"alpha10": 1.5}, "alpha10 = 1.5: Input should be less than or equal to 1"),
        ({"alphas": (0.0, 0.5)}, "alphas.0 = 0.0: Input should be greater than 0"),
        ({"alphas": (0.8, 0.2)}, "in ascending order, each once"),
        ({"eps_grid": (1, 2, 2, 4)}, "in ascending order"),
        ({"strong_eps": (2, 5)}, "strong_eps .* must be among eps_grid"),
        ({"headline": ("sign",)}, "headline needs original"),
        ({"sweep": ("sat-std-gradient", "sat-std-ig")}, "one arm a teacher"),
        ({"switches": ("sat-masks@fresh",)}, "what stands after @ does not apply to sat-masks"),
        ({"switches": ("sat-std-gradient@fresh,another",)}, "does not apply"),
        ({"switches": ("original@median",)}, "does not apply to original"),
        ({"switches": ("pgd@inverted",)}, "does not apply to pgd"),
        ({"switches": ("sat-masks@unprojected",)}, "does not apply"),
        ({"switches": ("sat-std-gradient@a2",)}, "does not apply"),
        ({"switches": ("sat-std-gradient@e-4",)}, "does not apply"),
        ({"switches": ("sat-std-gradient@anan",)}, "does not apply"),
        ({"alphas": (0.5, 1.0)}, "alphas.1 = 1.0: Input should be less than 1"),
        ({"arms": (*plan.SIMPLE, "sat-std-ig@median", "sat-adv-ig@median")[1:]}, "arms original are"),
        ({"strong_images": 500}, "strong_images = 500 is more than images = 400"),
        ({"runs": (("sat-edges", 5),)}, "unknown arm 'sat-edges'"),
        ({"runs": (("pgd", 0),)}, "runs.0.1 = 0"),
        ({"runs": (("pgd", 101),)}, "101 runs of pgd: 100 at most, since there the seeds of teachers begin"),
        ({"seeds": 101}, "seeds = 101"),
        ({"arch": "vgg99"}, "unknown network 'vgg99'"),
        ({"teacher_arch": "vgg99"}, "unknown network 'vgg99'"),
        ({"lamda": 1}, "unknown parameter 'lamda'"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        profiles.validated(Parameters, given)


def test_arms_are_read_and_named():
    arm = plan.parsed("sat-adv-guided-gradcam++@e16,predicted")
    assert (arm.base, arm.mix, arm.teacher, arm.attribution, arm.eps0, arm.alpha10) == (
        "plain",
        "sat",
        "adv",
        "guided-gradcam++",
        16,
        None,
    )
    assert arm.changes == ("predicted",)
    assert plan.parsed("trades-6+sat", "masks")[:4] == ("trades", "sat", "masks", 6)
    assert plan.parsed("pgd+uniform", "masks").source == "" and plan.parsed("sign").mix == "sign"
    assert plan.label("sat-std-ig@a0.8") == "SAT (integrated gradients, standard teacher), α¹⁰ = 0.8"
    assert plan.label("trades-1+uniform") == "TRADES β=1 + uniform noise"
    names = [plan.label(a) for a in Parameters().every]
    assert len(set(names)) == len(names)
    assert plan.parsed("pgd+sat@unprojected,predicted", "adv-ig").changes == ("unprojected", "predicted")
    for wrong in ("sat-std", "sat-std-lrp", "pgd+noise", "trades", "original@much"):
        with pytest.raises(ValueError, match="unknown arm"):
            plan.parsed(wrong)


def test_configurations_are_the_arms():
    p = Parameters()
    original, sign = plan.config_of(p, "original", 2), plan.config_of(p, "sign", 2)
    assert (original.objective, original.options, original.maps, original.optimizer) == ("standard", {}, None, "adam")
    assert sign.options["alpha10"] == 1.0 and sign.options["mix"] == "sat" and sign.maps is None
    taught = plan.config_of(p, "sat-adv-smoothgrad@a0.8", 2)
    assert taught.teacher == plan.config_of(p, "pgd", 102)  # a network of its own
    assert taught.options["alpha10"] == 0.8 and taught.maps_options == {"kind": "smoothgrad", "n": 6} and taught.maps_follow
    assert plan.config_of(p, "sat-std-gradient@e16", 0).options["eps"] == 16 / 255
    fresh = plan.config_of(p, "sat-std-gradient@fresh", 0)
    assert fresh.maps is None and fresh.options["fresh"] == {"kind": "gradient"} and fresh.teacher is not None
    assert plan.config_of(p, "sat-masks@unflipped", 0).maps_follow is False
    assert plan.config_of(p, "sat-masks@another", 0).maps_options == {"kind": "masks", "another": True}
    assert plan.config_of(p, "pgd+sat@unprojected", 0).options["reproject"] is False
    assert (
        plan.config_of(p, "trades-6+sat", 0).options | {"beta": 6.0, "base": "trades"}
        == plan.config_of(p, "trades-6+sat", 0).options
    )
    assert plan.config_of(p, "sat-std-ig@released", 0).maps_options == {"kind": "ig", "released": True, "ig_steps": 6}


def test_networks_are_each_there_once_and_teachers_of_another_architecture_too():
    p = Parameters()
    configs = plan.networks(p)
    assert len({c.digest for c in configs}) == len(configs) == len(plan.jobs(p)) + 10 + 5  # originals and PGD networks behind
    order = [c.digest for c in configs]
    students = {plan.config_of(p, *job).digest for job in plan.jobs(p)}
    assert not students & {c.teacher.digest for c in configs if c.teacher}  # no student is compared with another's teacher
    assert all(order.index(c.teacher.digest) < order.index(c.digest) for c in configs if c.teacher)
    for seed in range(10):  # attacks are transferred from an original that is there, and teaches others
        (taught, *_), other = (
            plan.networks(p, "sat-std-gradient", seed),
            plan.config_of(p, "original", plan.transfer_seed(p, seed)),
        )
        assert taught.seed == 100 + seed != other.seed and other.digest in order
        assert other.digest in {c.digest for c in plan.networks(p, "sat-std-gradient", seed)}
    paper = profiles.parameters("05-saliency-adversarial-training", "paper")
    found = plan.networks(paper)
    assert {c.teacher.arch for c in found if c.teacher} == {"resnet10-cifar"}
    assert {c.arch for c in found} == {"resnet10-cifar", "resnet34-cifar"}
    assert (paper.eps, paper.alpha10, paper.learning_rate, paper.epochs, paper.steps, paper.step) == (8, 0.6, 1e-3, 100, 5, 2)


def test_a_network_is_shared_between_settings_that_do_not_touch_it():
    p = Parameters()
    other = p.model_copy(update={"images": 71, "smooth_n": 3, "strong_steps": 5, "alphas": (0.5,)})
    for arm in ("original", "sat-masks", "sat-std-gradient", "pgd+sat"):
        assert plan.config_of(p, arm, 1).digest == plan.config_of(other, arm, 1).digest
    assert plan.config_of(p, "sat-std-smoothgrad", 0).digest != plan.config_of(other, "sat-std-smoothgrad", 0).digest


def test_a_measurement_is_what_a_slow_twin_measures(home):
    p = SMOKE.model_copy(update={"images": 10, "strong_images": 8, "headline": ("original", "pgd", "sat-std-gradient")})
    model = plan.model(p, "sat-std-gradient", 0)
    before = state_of(model)
    table = measure_.measure(p, "sat-std-gradient", 0)
    assert same_state(before, state_of(model))
    cubes, data = Cubes.of(table), plan.evaluation_set(p)
    x, y = data.images, data.labels
    with torch.no_grad():
        clean = model(x).argmax(1) == y
    np.testing.assert_array_equal(cubes.values["sat-std-gradient", "clean", 0.0][0], clean.numpy())
    for eps in p.eps_grid:
        found = projected.pgd(model, x[clean], y[clean], eps=eps / 255, steps=p.steps, step=p.step / 255)
        held = clean.clone()
        held[clean] = ~found.success
        np.testing.assert_array_equal(cubes.values["sat-std-gradient", "pgd", eps][0], held.numpy())
    for eps in p.strong_eps[-1:]:
        other = plan.model(p, "original", 101)  # not 100, which teaches it
        moved = projected.pgd(other, x[:8], y[:8], eps=eps / 255, steps=20, judge=False).x_adv
        with torch.no_grad():
            held = model(moved).argmax(1) == y[:8]
        np.testing.assert_array_equal(cubes.values["sat-std-gradient", "transfer", eps][0], held.numpy())
    strong, weak = (cubes.values["sat-std-gradient", m, 2.0][0, :8] for m in ("strong", "pgd"))
    assert (strong <= weak).all()
    few = cubes.values["sat-std-gradient", "ensemble", 2.0][0]
    assert len(few) == p.ensemble_images and (few <= strong[: len(few)]).all()
    s = maps.directions(plan.teacher(p, "std", 0), x, y, kind="gradient")
    z = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(z), y, reduction="sum"), z)
    expected = [F.cosine_similarity(g.sign().flatten(), -v.flatten(), 0).item() for g, v in zip(gradient, s, strict=True)]
    np.testing.assert_allclose(cubes.values["sat-std-gradient", "cosine", 0.0][0], expected, atol=1e-5)


def test_the_strong_attack_is_no_weaker_than_a_peers_auto_pgd(home):
    """Auto-PGD of torchattacks, on cross-entropy: what it breaks, ours breaks too, but for a few."""
    torchattacks = pytest.importorskip("torchattacks")
    p = SMOKE.model_copy(update={"images": 60, "strong_images": 60, "strong_steps": 50, "restarts": 2, "strong_eps": (4.0,)})
    config = plan.config_of(p, "pgd", 0).model_copy(update={"epochs": 6, "limit": 320})

    model = cache.trained(config).model
    data = plan.evaluation_set(p)
    x, y = data.images, data.labels
    ours = measure_.strong(model, x, y, p).correct[1]
    theirs = torchattacks.APGD(model, eps=4 / 255, steps=50, n_restarts=1, loss="ce", seed=0)
    with torch.no_grad():
        held = model(theirs(x, y)).argmax(1) == y
    assert ours.sum() <= held.sum() + 1 and 0 < ours.sum() < 60
    assert not (ours & ~held).sum() > 1  # an image that only theirs breaks


def test_a_coin_is_tossed_between_a_mix_and_an_attack_alone():
    """`guided-gradcam++` has a plus in its name, and no attack."""
    tossed = {arm: claims._tosses(plan.parsed(arm)) for arm in ("uniform", "pgd", "pgd+sat", "sat-std-guided-gradcam++")}
    assert tossed == {"uniform": False, "pgd": False, "pgd+sat": True, "sat-std-guided-gradcam++": False}


def test_times_are_of_both_sides_of_the_coin(home):

    sides = measure_._both_sides()
    assert [coin(torch.Generator().manual_seed(s)) for s in sides] == [True, False]
    clock = measure_.timing(SMOKE)
    assert set(clock.arm) == {a for a in measure_.TIMED if a in SMOKE.arms} | {"maps/gradient", "maps/smoothgrad"}
    assert (clock.groupby("arm").size() == SMOKE.rounds).all() and (clock.value > 0).all()
    middle = clock.groupby("arm").value.median()
    assert middle["pgd"] > middle["original"]  # it does several times the work


P = Parameters(
    arms=(*plan.SIMPLE, "trades-6+uniform", "trades-6+sat"),
    sweep=("sat-std-gradient", "sat-adv-gradient"),
    strong_images=40,
    images=60,
    seeds=3,
    alphas=(1e-9, 0.8),
    eps0s=(16.0,),
    rounds=6,
)


def table_of(levels: dict[str, float], seed: int = 0, spread: float = 0.0, clean: float = 0.95) -> pd.DataFrame:
    """A table in which arm a is right with probability levels[a] (default .5) under every attack."""
    random = torch.Generator().manual_seed(seed)
    found = []
    for arm, s in plan.jobs(P):
        p = levels.get(arm, 0.5) + spread * (s - 1)
        u = torch.rand(P.images, generator=random)
        found.append(rows(arm, s, "clean", 0.0, u < clean))
        for measure, grid in (("pgd", P.eps_grid), ("noise", (P.eps,))):
            found += [rows(arm, s, measure, e, u < p) for e in grid]
        for measure, e in itertools.product(("strong", "transfer"), P.strong_eps):
            found.append(rows(arm, s, measure, e, (u < p - 0.01)[: P.strong_images]))
        found += [rows(arm, s, "ensemble", e, (u < p - 0.01)[: P.ensemble_images]) for e in P.strong_eps]
        if plan.parsed(arm, P.mix_maps).mix == "sat":
            found += [rows(arm, s, m, 0, v + 0 * u) for m, v in (("cosine", 0.1 + 0.01 * u), ("cosine-another", 0.0))]
    for arm, seconds in {
        "original": 1.0,
        "sign": 1.1,
        "sat-masks": 1.1,
        "pgd": 4.0,
        "pgd+sat": 2.4,
        "trades-1": 5.0,
        "trades-1+sat": 3.0,
    }.items():
        found.append(rows(arm, 0, "seconds", 0, seconds + 0.001 * torch.arange(6.0)))
    found += [rows(f"maps/{k}", 0, "seconds", 0, torch.full((6,), 3.6)) for k in maps.ATTRIBUTIONS]
    return pd.concat(found, ignore_index=True)


def verdicts(levels: dict[str, float], spread: float = 0.0) -> dict[str, claim.Claim]:
    return {c.id: c for c in claims.judge(table_of(levels, spread=spread), P)}


@pytest.fixture(scope="module")
def even(few_draws):
    """The claims where all arms are alike."""
    return verdicts({})


def test_verdicts_follow_the_numbers():
    strong = {
        "original": 0.02,  # under attack; clean images are another matter, see `table_of`
        "sign": 0.6,
        "uniform": 0.5,
        "sat-std-gradient": 0.05,
        "sat-masks": 0.95,
        "pgd": 0.5,
        "pgd+uniform": 0.55,
        "pgd+sat": 0.99,
        "sat-adv-gradient": 0.9,
        "sat-std-gradient@a1e-09": 0.02,
    }
    found = verdicts(strong)
    assert found["helps/sat-masks"].verdict == "supported" and found["helps/sat-masks"].kind == "claim"
    assert found["over-sign/sat-masks"].verdict == "supported"
    assert found["awkward"].verdict == "supported" and found["awkward"].kind == "claim"
    assert found["over-uniform/sat-std-gradient"].verdict == "contradicted"
    assert found["sat-over-noise/pgd"].verdict == "supported"
    assert found["own-map/sat-masks@another"].verdict == "supported"  # one run an arm; others tell how much runs vary
    assert found["better-teacher/gradient"].verdict == "one network"  # at one radius one pair alone has several runs
    opposite = verdicts({"original": 0.9, "sign": 0.1, "sat-std-gradient": 0.9, "pgd+sat": 0.1, "pgd+uniform": 0.9})
    assert opposite["helps/sat-boxes"].verdict == "contradicted" and opposite["awkward"].verdict == "contradicted"
    assert opposite["sat-over-noise/pgd"].verdict == "not testable here"  # PGD does not protect there
    worse = verdicts({"original": 0.1, "pgd+sat": 0.2, "pgd+uniform": 0.9})
    assert worse["sat-over-noise/pgd"].verdict == "contradicted"
    alike = verdicts({}, spread=0.2)
    assert alike["helps/sat-masks"].verdict == "inconclusive"
    untested = claims.judge(table_of({}), P, test=False)
    assert all(c.verdict == "not tested" for c in untested) and len({c.id for c in untested}) == len(untested)


def test_what_the_paper_does_not_say_is_no_claim_of_its(even):
    found = even
    assert found["helps/sat-std-gradient"].kind == "open question"  # published below the original
    assert "published: cifar-100 -0.018" in found["helps/sat-std-gradient"].note
    assert found["helps/sat-adv-gradient"].kind == "claim"
    assert found["over-uniform/sat-adv-ig"].kind == "claim" and found["over-uniform/sat-std-guided"].kind == "open question"
    assert found["over-uniform/sat-std-ig"].kind == "claim"  # but for a misprint
    assert "published: cifar-100 +0.022" in found["over-uniform/sat-std-ig"].note
    assert found["sat-over-noise/trades-6"].kind == "open question" and found["sat-over-noise/trades-1"].kind == "claim"
    assert "does not compare like with like" in found["trades-as-published/sat"].note
    assert all("misprint" in found[f"{c}/sat-std-ig"].note for c in ("helps", "over-uniform", "over-sign"))


def test_cost_is_counted_and_seconds_are_not_judged(even):
    found = even
    assert not [c for c in found.values() if "seconds" in c.statistic]
    steps = P.steps
    assert (
        found["faster/pgd"].value == pytest.approx((2 + steps) / (2 + 2 * steps)) and found["faster/pgd"].verdict == "supported"
    )
    assert found["cheap/sat-masks"].value == 1 and found["cheap/sat-masks"].kind == "check"
    made = found["cheap/sat-std-smoothgrad"]
    assert made.value == pytest.approx(1 + (2 * P.smooth_n + 1) / P.epochs / 2) and made.kind == "primary"
    assert made.verdict == made.adjusted == ("supported" if made.value < 1.25 else "contradicted") and made.n == "exact"
    assert made.ci_low == made.value == made.ci_high
    over = found["cheap-100/sat-std-smoothgrad"]
    assert (
        over.value == pytest.approx(1.06, abs=0.01)
        and over.verdict == "supported"
        and "Over the paper's 100 epochs" in over.statement
    )
    assert found["fresh/sat-std-gradient"].value == pytest.approx(1 + (1 - 1 / P.epochs))  # but for the epoch of random signs


def test_nothing_is_judged_behind_a_gate_that_failed():
    table = table_of({"pgd": 0.8, "original": 0.2}, clean=0.4)
    rows_ = claims.judge(table, P)
    barred = [c for c in rows_ if c.kind not in ("check",) and not c.id.startswith("cheap")]
    assert barred and all(c.verdict == "not testable here" for c in barred)
    assert "the original network is right on clean images (above 0.6 asked" in barred[0].note
    weak = {c.id: c for c in claims.judge(table_of({"pgd": 0.21, "original": 0.2}), P)}
    assert weak["sat-over-noise/pgd"].verdict == weak["helps/sat-adv-gradient"].verdict == "not testable here"
    assert weak["helps/sat-std-gradient"].verdict != "not testable here"
    assert "training with PGD gains robust accuracy (above 0.05 asked" in weak["sat-over-noise/pgd"].note
    torn = {c.id: c for c in claims.judge(table_of({"pgd": 0.4, "original": 0.3}, spread=0.3), P)}
    assert "by the lower end of the interval (above 0 asked" in torn["sat-over-noise/pgd"].note
    p = P.model_copy(update={"arms": tuple(a for a in P.arms if a != "pgd"), "headline": ("original",)})
    alone = {c.id: c for c in claims.judge(table_of({}), p)}
    assert "(name pgd in arms)" in alone["sat-over-noise/pgd"].note


def test_how_lucky_the_compared_runs_are_is_said():
    """An arm of one run is compared with the first of several of the original: its luck is the comparison's."""
    p = P.model_copy(update={"headline": ("original",), "runs": (("original", 3),)})
    table = table_of({})
    own = table[(table.arm == "original") & (table.seed == 0)]
    table = table[(table.arm != "original") & (table.seed == 0)]
    worse = own.assign(value=np.where((own.measure == "pgd") & (own.image_id % 2 == 0), 0.0, own.value))
    table = pd.concat([table, own, worse.assign(seed=1), worse.assign(seed=2)], ignore_index=True)
    found = {c.id: c for c in claims.judge(table, p)}
    first, rest = (float(t[t.measure == "pgd"].value.mean()) for t in (own, worse))
    told = f"original has {first:.3f} in the run compared, {(first + 2 * rest) / 3:.3f} over all its 3"
    assert told in found["helps/sat-std-gradient"].note and "compared" not in found["over-uniform/sat-masks"].note


def test_an_attack_that_overstates_by_less_than_two_points_does_not():
    """What is never below 0 is asked for more than 0."""
    table = table_of({})
    assert {c.rule.split(";")[0] for c in claims.judge(table, P) if c.id.startswith("overstated")} == {
        "supported if the 95 % interval lies above 0.02, contradicted if below"
    }
    assert all(c.ci_low >= 0 for c in claims.judge(table, P) if c.id.startswith("overstated") and c.ci_low == c.ci_low)


def test_primaries_are_there_and_sentences_read_alone(even):
    assert {i for i, c in even.items() if c.kind == "primary"} == set(claims.primaries(P))
    sentences.check(list(even.values()))
    assert not [c.statistic for c in even.values() if c.statistic.endswith("eps")]


def test_what_is_too_small_to_matter_is_said():
    """Many images on which all arms but the original's under attack agree: no difference is beyond the margin."""
    alike = table_of({})
    many = pd.concat([alike.assign(image_id=alike.image_id + 1000 * i) for i in range(8)], ignore_index=True)
    many.loc[many.measure.isin(["clean", "strong", "pgd"]), "value"] = (many.image_id % 4 > 0).astype(float)
    many.loc[many.measure.isin(["strong", "pgd"]) & (many.arm == "original"), "value"] = 0.0  # PGD protects
    found = {c.id: c for c in claims.judge(many, P)}
    told = ("clean/sat-masks", "better-teacher/smoothgrad")
    assert {found[k].verdict for k in told} == {"negligible"} and "inside ±0.02" in found["clean/sat-masks"].rule


def test_published_numbers_are_those_of_the_specification():
    assert published.theirs("pgd+sat")["flower-17"].tolist() == pytest.approx([0.7867, 0.7573, 0.75])
    assert published.theirs("sat-std-gradient")["cifar-100"].loc[1] == pytest.approx(0.2053)
    assert published.theirs("trades-6")["tiny-imagenet"].loc[2] == pytest.approx(0.1676)
    assert published.gaps("sat-masks", "uniform") == pytest.approx(
        {"tiny-imagenet": (0.34 + 0.14 + 0) / 300, "flower-17": (1.61 + 2.51 + 2.73) / 300}
    )
    sweeps = pd.read_csv(paths.published() / "saliency_adversarial_training.csv", keep_default_na=False)
    assert len(sweeps[sweeps.table == "alpha"]) == 3 * 3 * 5 + 3 and len(sweeps[sweeps.table == "eps0"]) == 2 * 3 * 5


def test_only_weak_maps_are_published_in_mixes():
    assert published.theirs("pgd+sat", "boxes") and not published.theirs("pgd+sat", "adv-smoothgrad")
    p = P.model_copy(update={"mix_maps": "adv-smoothgrad"})
    found = {c.id: c for c in claims.judge(table_of({}), p)}
    assert found["sat-over-noise/trades-1"].kind == "open question"
    assert "with maps: SmoothGrad, adversarially trained teacher" in found["sat-over-noise/pgd"].note


def test_one_box_for_all_is_said_and_not_asked_whose_it_is():
    table = table_of({})
    table.loc[(table.arm == "sat-boxes") & (table.measure == "cosine"), "value"] = 0.0
    found = {c.id: c for c in claims.judge(table, P)}
    assert "one and the same for all" in found["helps/sat-boxes"].note and "looks-like-attack/sat-boxes" not in found
    assert "one and the same" not in found["helps/sat-masks"].note


def test_ablations_are_claims_only_where_there_were_any(even):
    assert even["collapse/sat-std-gradient"].kind == "claim" and ".205 and .045" in even["collapse/sat-std-gradient"].note
    p = P.model_copy(update={"sweep": ("sat-masks",)})
    table = table_of({})
    renamed = table[table.arm.str.startswith("sat-std-gradient@")]
    more = renamed.assign(arm=renamed.arm.str.replace("sat-std-gradient", "sat-masks"))
    found = {c.id: c for c in claims.judge(pd.concat([table, more]), p)}
    assert {found[f"{c}/sat-masks"].kind for c in ("pure-maps", "later-maps", "collapse")} == {"open question"}


@pytest.fixture(scope="module")
def explore(home):
    """On the study's own networks; what it begins with has a test below."""
    found = explorer.explorer(SMOKE)
    found.controls["arch"].value = "original"
    return found


def test_the_explorer_follows_its_controls(explore):
    first = explore.picture.value
    assert "data:image/png;base64,iVBOR" in first and "P(random)" in explore.status.value
    seen, c = {first}, explore.controls
    acts = (
        ("kind", "smoothgrad"),
        ("taught", "adv"),
        ("how", "minmax"),
        ("alpha10", 1.0),
        ("taught", ""),
        ("image", 2),
        ("eps", 32),
        ("arch", "pgd"),
        ("taught", "std"),
        ("kind", "guided-gradcam++"),
    )
    for name, value in acts:
        assert not c[name].disabled
        c[name].value = value
        said = explore.status.value
        assert "working" not in said and "color:#D55E00" not in said, (name, said)
        if name not in ("how", "kind"):
            assert explore.picture.value not in seen, name
        seen.add(explore.picture.value)
        assert c["kind"].disabled == (c["taught"].value == "")  # a mask has no attribution
    shown = {}
    exec(explore.code(), shown)
    assert shown["view"].text == explore.view.text and shown["view"].numbers == explore.view.numbers


def test_an_upload_and_the_object_s_mask_do_not_go_together(explore):
    """The choice that was made last stands."""
    c = explore.controls
    assert (c["taught"].options[-1]) == ("object's mask", "")
    c["taught"].value = ""
    upload(c["own"], png(), "mine.png")
    assert c["taught"].value == "std" and "P(random)" in explore.status.value
    c["taught"].value = ""
    assert c["own"].value is None and "P(random)" in explore.status.value
    given = explore.values | {"own": Image.new("RGB", (9, 9))}
    with pytest.raises(ValueError, match="an upload comes without the object's mask: choose another “map from”"):
        explore.render(**given)


def test_the_curve_is_over_many_images_and_the_next_one_is_found_or_missed_in_words(explore):
    explore.controls["eps"].value = 32.0
    explore.ask.click()
    assert "median and quartiles over 12 images" in explore.over.value
    for label in ("δ", "random signs", "attack on the student"):
        assert f"{label}, ε₀, of 255 32: median" in explore.over.value
    explore.next.click()  # after two epochs nearly everything is an hourglass
    found = re.search(r"<b>(.*?)</b> as it is, <b>(.*?)</b> perturbed", explore.status.value)
    assert (found is None) == ("succeeds on no other image" in explore.status.value) and (not found or found[1] != found[2])


def test_the_explorer_begins_with_a_published_network_that_its_own_map_fools(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))
    found = explorer.explorer(SMOKE).update()
    assert not paths.models().exists()  # nothing is trained for it
    c = found.controls
    assert c["arch"].label == "EfficientNet-Lite0, published" and c["own"].size == 224
    said = found.status.value
    assert "<b>strawberry</b> as it is, <b>agaric</b> perturbed; random signs of the same size: <b>strawberry</b>" in said
    numbers = {n.name: n.value for n in found.view.numbers}
    assert numbers["cosine of δ with the attack on the student"] > 0.5
    assert abs(numbers["cosine of random signs with the attack on the student"]) < 0.05
    assert dict(c["taught"].options) == {"the network itself": explorer.ITSELF, "box around the centre": ""}
    assert not any(kind.startswith("guided") for _, kind in c["kind"].options)
    found.next.click()
    assert (
        c["image"].value == explorer.FIRST + 1 and "<b>thatch</b> as it is, <b>mobile home</b> perturbed" in found.status.value
    )
    (tmp_path / "mine.py").write_text(OWN)
    c["network"].field.value = f"{tmp_path}/mine.py:net"
    assert re.search("<b>[012]</b> as it is", found.status.value) and "guided" in dict(c["kind"].options).values()


def test_the_picture_of_a_direction_is_the_direction(home):
    """share 0: delta is -s, and the perturbed image is x - eps s where it stays in [0, 1]."""
    p = SMOKE
    data = plan.evaluation_set(p)
    model = models.create("plain", classes=10).eval()
    x, y = data.images[:1], data.labels[:1]
    s = maps.weak(data, "masks")[:1]
    before = state_of(model)
    view = explorer.draw(model, x, s, s, y, share=0.0, eps=8 / 255, classes=data.classes, known=True)
    assert same_state(before, state_of(model))
    shown = view.figure.axes[4].images[0].get_array()
    np.testing.assert_allclose(shown, -s[0].mean(0).numpy())
    assert "P(random) 0.00" in view.text


def test_every_pair_of_arms_has_its_own_network():
    p = Parameters()
    for a, b in itertools.combinations(p.every, 2):
        assert plan.config_of(p, a, 0).digest != plan.config_of(p, b, 0).digest, (a, b)
