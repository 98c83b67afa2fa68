"""How many images pass a network together, and how exactly a device computes."""

import pytest
import torch

from lib.system import devices

ALL, FEW = [(32, 200, 200), (64, 60, 60), (32, 1000, 392)], [(224, 60, 8), (299, 60, 4), (5000, 9, 1)]


@pytest.mark.parametrize(("size", "most", "expected"), [*ALL, *FEW])
def test_images_at_once(size, most, expected):
    """By hand: 8 * 224 * 224 pixels; all of small images, one at least."""
    assert devices.images_at_once(size, most) == expected


@pytest.mark.parametrize(("size", "most", "expected"), [(224, 256, 32), (224, 20, 20), (32, 256, 256)])
def test_without_a_graph_four_times_as_many(size, most, expected):
    assert devices.images_at_once(size, most, graph=False) == expected


def test_apples_gpus_have_no_float64():
    found = {name: devices.exact(torch.device(name)) for name in ("cpu", "cuda", "mps")}
    assert found == {"cpu": torch.float64, "cuda": torch.float64, "mps": torch.float32}
