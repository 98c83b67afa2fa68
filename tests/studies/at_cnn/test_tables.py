"""Study 2's tables: means, intervals, retention and the paper's numbers, of measurements whose numbers are known."""

import numpy as np
import pandas as pd
import pytest
import torch

from lib.studies.at_cnn import tables
from lib.studies.at_cnn.measure import METHODS, View
from lib.studies.at_cnn.plan import Parameters
from lib.studies.at_cnn.statistics import Cubes

P = Parameters(
    arms=("standard", "linf-4", "l2-1.14"), headline=("l2-1.14",), seeds=2, saturation=(8, 0.5, 2), shuffle=(4, 2), images=8
)
SEEDS = {"standard": 2, "linf-4": 1, "l2-1.14": 2}
LEVELS = {"saturation": (0.5, 2.0, 8.0), "shuffle": (2.0, 4.0), "style": (1.0,), "fourier": (1.0,), "pgd": (0.0, 2.0, 4.0, 8.0)}


def values():
    """Eight images: all right as they are, a fixed number of them under each change; maps whose numbers are named below."""
    found = {}
    for number, (arm, seeds) in enumerate(SEEDS.items()):
        right = {("clean", 0.0): 8, ("conflict", 1.0): 2, ("conflict-texture", 1.0): 4}
        right |= {(m, v): 6 - which - number for m, levels in LEVELS.items() for which, v in enumerate(levels)}
        for (measure, level), count in right.items():
            found[arm, measure, level] = np.tile(np.arange(8) < count, (seeds, 1)).astype(float)
        for method in METHODS:
            found[arm, f"{method}/edges", 0.0] = np.full((seeds, 8), 0.5 + number / 10)
            found[arm, f"{method}/edges-other", 0.0] = np.full((seeds, 8), 0.25)
        found[arm, "smoothgrad/tv", 0.0] = np.where(np.arange(8) < 2, np.nan, 0.1)[None].repeat(seeds, 0)
        found[arm, "alignment", 0.0] = np.full((seeds, 8), 2.0)
    for (measure, level), value in {("clean", 0.0): 1.0, ("style", 1.0): 0.5}.items():
        found["edges", measure, level] = np.full((1, 8), value)
    for level, value in ((0.0, 2.0), (1.0, 0.25), (2.0, 1.5)):
        found["edges", "style-distance", level] = np.full((1, 8), value)
    return found


@pytest.fixture
def cubes():
    return Cubes(values(), 1)


def test_a_view_is_called_after_its_level():
    view = View("saturation", 1024, torch.zeros(1), torch.zeros(1))
    assert tables.title(view) == "saturation\np = 1024" and tables.title(view._replace(kind="style")) == "stylised"


def test_arms_are_in_their_order():
    costs = pd.DataFrame({"arm": ["l2-1.14", "linf-4", "standard"], "steps": [3, 2, 1]})
    found = tables.arms(P, costs, {"standard": 0.12345, "linf-4": 0.5, "l2-1.14": 0.7})
    assert found.index.to_list() == ["Standard", "PGD-L∞ 4/255", "PGD-L2 1.14"]
    assert found.iloc[0].to_list() == [2, 1, 0.123] and found["seeds"].to_list() == [2, 1, 2]


def test_what_was_measured_under_attack_is_told(cubes):
    fewer = {k: v[:, 2:] if k[1] == "pgd" else v for k, v in cubes.values.items()}  # PGD attacks the first images alone
    assert tables.under_attack(Cubes(fewer, 1), P).loc["Standard"].to_list() == ["0.50", "0.33", "0.17"]
    found = tables.under_attack(cubes, P)
    assert list(found) == ["2/255", "4/255", "8/255"] and found.loc["Standard"].to_list() == ["0.62", "0.50", "0.38"]


def test_underfit_is_told_where_it_is_a_network_of_its_own(cubes):
    """Else its rows are the standard network's, which nobody shall take for a control."""
    p = P.model_copy(update={"arms": ("standard", "underfit", "linf-4", "l2-1.14")})
    copied = {("underfit", m, v): array.copy() for (arm, m, v), array in cubes.values.items() if arm == "standard"}
    same = Cubes(cubes.values | copied, 1)
    assert "underfit" not in tables.trained(same, p) and "Underfit" not in tables.scores(same, p).index
    other = Cubes(cubes.values | copied | {("underfit", "clean", 0.0): np.zeros((2, 8))}, 1)
    assert tables.trained(other, p) == p.arms and "Underfit" in tables.agreement(other, p).index
    assert tables.trained(cubes, P) == P.arms


def test_painted_images_are_as_many_as_their_photographs(cubes):
    found = tables.with_intervals(cubes, P, ["standard"], [("style", 1.0), ("fourier", 1.0), ("clean", 0.0)])
    assert found.n.to_list() == [*["8 images of 8 photographs of the styles, 2 seeds"] * 2, "8 images, 2 seeds"]


def test_the_style_check(cubes):
    found = tables.style_check(cubes, P)
    assert found.iloc[0].to_list()[::2] == [2.0, 1.0] and np.isnan(found.iloc[0, 1])
    assert found.iloc[1].to_list() == [0.25, 1.5, 0.5]


def test_intervals_put_what_is_drawn_behind_first(cubes):
    found = tables.with_intervals(cubes, P, P.arms, tables.appearance(cubes))
    assert found.measure.unique().tolist() == ["smoothgrad/edges-other", "smoothgrad/edges", "smoothgrad/tv", "alignment"]
    own = tables.where(found, measure="smoothgrad/edges")
    assert own.arm.to_list() == list(P.arms) and own.value.to_list() == pytest.approx([0.5, 0.6, 0.7])
    assert own.n.to_list() == ["8 images, 2 seeds", "8 images, 1 seed (spread over seeds unknown)", "8 images, 2 seeds"]
    assert tables.without_contrast(cubes, P) == 0.25


def test_accuracy_is_shown_on_what_there_is(cubes):
    assert tables.accuracies(cubes, P) == {
        ("clean", 0.0): "clean",
        ("style", 1.0): "stylised",
        ("fourier", 1.0): "Fourier swap",
        ("conflict", 1.0): "cue conflict",
        ("pgd", 4.0): "PGD-20, 4/255",
    }
    without = Cubes({k: v for k, v in cubes.values.items() if "conflict" not in k[1]}, 1)
    assert ("conflict", 1.0) not in tables.accuracies(without, P)


def test_agreement_is_beside_that_with_another_image(cubes):
    found = tables.agreement(cubes, P)
    assert found.loc["PGD-L∞ 4/255", "SmoothGrad"] == "0.60 (0.25)" and found.shape == (3, len(METHODS))


def test_retention_is_of_the_arms_that_are_compared_and_curves_meet_where_nothing_changes(cubes):
    kept = tables.retention(cubes, P)
    assert kept.arm.unique().tolist() == ["standard", "l2-1.14"] and (kept.score == "retention").all()
    assert tables.where(kept, arm="standard").value.to_list() == [6 / 8, 5 / 8, 4 / 8, 6 / 8, 5 / 8]
    found = tables.curves(kept, "saturation")
    assert found.network.to_list() == ["Standard"] * 3 + ["PGD-L2 1.14"] * 3
    assert found.level.to_list() == [0.5, 2, 8] * 2 and found.value.to_list() == [0.75, 1, 0.5, 0.5, 1, 0.25]
    assert tables.curves(kept, "shuffle").level.to_list() == [1, 2, 4] * 2


def test_scores_are_accuracy_and_retention(cubes):
    found = tables.scores(cubes, P)
    assert found.columns.to_list() == ["clean", "p = 8", "p = 0.5", "p = 2", "k = 4", "k = 2", "stylised", "Fourier swap"]
    assert found.loc["Standard"].to_list()[:2] == ["1.00", "0.50 (0.50)"]
    half = cubes.values | {("standard", "clean", 0.0): np.tile(np.arange(8) >= 2, (2, 1)).astype(float)}
    assert tables.scores(Cubes(half, 1), P).loc["Standard", "p = 8"] == "0.50 (0.33)"
    assert tables.scores(Cubes(half, 7), P).loc["Standard", "p = 8"] == "0.50 (nan)"  # too few right images


@pytest.mark.parametrize(
    ("arm", "expected"), [("linf-4", "linf-4"), ("linf-4@1", None), ("l2-1.14", "l2-8"), ("l2-0.3", None), ("underfit", None)]
)
def test_the_papers_counterpart_has_the_same_root_mean_square(arm, expected):
    assert tables.counterpart(P, arm, ["standard", "linf-4", "l2-4", "l2-8"]) == expected


def test_the_papers_numbers_stand_beside_ours(cubes):
    found = tables.beside_published(cubes, P)
    row = found.loc["Standard"]
    assert row[["seeds", "clean", "stylised", "ratio"]].to_list() == [2, 100, 75, 0.75]
    assert row[["caltech clean", "caltech stylised"]].to_list() == [83.32, 16.83]
    assert row["tiny ratio"] == pytest.approx(7.25 / 72.02) and found.loc["PGD-L2 1.14", "tiny clean"] == 58.21
