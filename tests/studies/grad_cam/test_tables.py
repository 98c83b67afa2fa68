"""Study 0's tables: what stands in which row, from measurements planted by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from lib.claims import cubes as cubes_
from lib.claims.rows import rows
from lib.runs import profiles
from lib.studies.grad_cam import tables

P = profiles.parameters("00-grad-cam", "smoke")
MEANS = {
    "right": 0.75,
    "identity/sum": 1e-7,
    "identity/product": 0.0,
    "identity/softmax": 0.5,
    "energy/middle": 0.5,
    "energy/last": 0.25,
    "pointing/middle": 0.875,
    "pointing/last": 0.625,
    "two/positive/first": 0.9,
    "two/counterfactual/first": 0.1,
    "two/positive/second": 0.8,
    "two/counterfactual/second": 0.2,
    "by/shape": 0.3,
    "by/texture": 0.6,
}
UNDER = {"reached": 0.5, "nissim": 0.25, "energy": 0.125}


def planted(**more: float) -> cubes_.Cubes:
    """Constant measures of both networks and seeds; the residual network's are 0.01 above the plain one's."""
    levels = {(m, 0.0): v for m, v in (MEANS | more).items()}
    levels |= {(f"{m}/{k}", e): v + (k == "attack") * e for m, v in UNDER.items() for k in ("attack", "noise") for e in P.eps}
    parts = [
        rows(a, s, m, level, torch.full((6,), v + 0.01 * (a == "residual")))
        for a in P.architectures
        for s in range(P.seeds)
        for (m, level), v in levels.items()
    ]
    return cubes_.Cubes.of(pd.concat(parts, ignore_index=True))


def test_shares_are_those_of_their_class_map_and_network():
    found = tables.two_objects(planted(), P)
    assert list(found.columns) == ["network", "class", "map", "share", "low", "high"]
    own = found.set_index(["network", "class", "map"]).share
    assert own["plain (VGG-like)", P.first, "for it"] == pytest.approx(0.9)
    assert own["plain (VGG-like)", P.second, "against it"] == pytest.approx(0.2)
    assert own["residual", P.first, "against it"] == pytest.approx(0.11)
    assert len(found) == 8 and np.allclose(found.low, found.share) and np.allclose(found.high, found.share)


def test_layers_and_decisions():
    cubes = planted()
    found = tables.by_layer(cubes, P).set_index(["network", "layer", "measure"]).value
    assert found["plain (VGG-like)", "middle", "pointing"] == pytest.approx(0.875)
    assert found["residual", "last", "energy"] == pytest.approx(0.26) and len(found) == 8
    assert tables.right(cubes, P).value.tolist() == pytest.approx([0.75, 0.76])
    assert tables.cues(cubes, P).loc["goes by texture"].tolist() == ["0.60 [0.60, 0.60]", "0.61 [0.61, 0.61]"]


def test_the_largest_difference_of_any_image_counts():
    cubes = planted()
    one_off = np.full((P.seeds, 6), 1e-7)
    one_off[1, 3] = 0.5
    cubes.values["plain", "identity/sum", 0.0] = one_off
    found = tables.identities(cubes, P)["plain (VGG-like)"]
    assert found[tables.IDENTITIES["sum"]] == "0.5" and found[tables.IDENTITIES["cam"]] == "CAM not defined"
    assert tables.identities(planted(**{"identity/cam": 2e-7}), P)["plain (VGG-like)"].iloc[0] == "2e-07"


def test_attack_and_noise_by_eps():
    found = tables.under_attack(planted(), P)
    assert found.measure.unique().tolist() == ["reached", "nissim", "energy"] and len(found) == 3 * 2 * 2 * len(P.eps)
    own = found.set_index(["measure", "line", "eps"]).value
    assert own["nissim", "plain (VGG-like), targeted attack", P.eps[1]] == pytest.approx(0.25 + P.eps[1])
    assert own["energy", "residual, random signs", P.eps[0]] == pytest.approx(0.135)


PHOTO = {
    "two/positive": 0.9,
    "two/positive/middle": 0.5,
    "two/counterfactual": 0.1,
    "removal/positive/score": -4.0,
    "removal/positive/score/elsewhere": -1.0,
    "removal/counterfactual/score": 0.2,
    "removal/counterfactual/score/elsewhere": -0.3,
    "removal/positive/log": -3.0,
    "removal/positive/log/elsewhere": -0.5,
    "removal/counterfactual/log": 0.4,
    "removal/counterfactual/log/elsewhere": -0.6,
}


def test_photographs():
    of = [rows(P.published, 0, f"photo/{m}", 0, torch.full((5,), v)) for m, v in PHOTO.items()]
    for eps in P.radii:
        for m, v in (("reached", 0.5), ("nissim", 0.25)):
            of += [rows(P.published, 0, f"photo/{m}/{k}", eps, torch.full((5,), v + eps)) for k in ("attack", "noise")]
    cubes = cubes_.Cubes.of(pd.concat(of, ignore_index=True))
    assert tables.two_photographs(cubes, P).value.tolist() == pytest.approx([0.9, 0.5, 0.1])
    found = tables.removal(cubes, P).set_index(["growth of", "map", "taken away"]).value
    assert found["the class's log-probability", "for it", "what the map marks"] == pytest.approx(-3)
    assert found["the class's score", "against it", "as much elsewhere"] == pytest.approx(-0.3) and len(found) == 8
    curves = tables.photographs_under_attack(cubes, P).set_index(["measure", "line", "eps"]).value
    assert curves["nissim", "random signs", P.radii[1]] == pytest.approx(0.25 + P.radii[1]) and len(curves) == 4 * len(P.radii)


def test_without_masks_nothing_lies_on_an_object():
    cubes = planted()
    kept = cubes_.Cubes({k: v for k, v in cubes.values.items() if not k[1].startswith("energy")})
    assert tables.under_attack(kept, P).measure.unique().tolist() == ["reached", "nissim"]
