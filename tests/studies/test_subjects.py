"""Photographs beside a network, and a person's own picture, are cut as the network expects them."""

import importlib.util
from pathlib import Path

import pytest
import torch

from lib.data import datasets, images
from lib.data.images import open_image
from lib.studies import subjects

FOOLBOX = Path(importlib.util.find_spec("foolbox").origin).parent
FILES = sorted((FOOLBOX / "data").glob("imagenet_*.jpg"))
NETWORK = """
import torch
from torch import nn


def small():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    net.size = 48
    return net
"""


@pytest.fixture(autouse=True)
def forgotten():
    yield
    subjects.own.cache_clear()


def files_as(crop, size):
    return torch.stack([images.to_tensor(open_image(f), size=size, channels=3, crop=crop) for f in FILES])


def test_of_code_of_ones_own_the_whole_square(tmp_path):
    (tmp_path / "mine.py").write_text(NETWORK)
    data = subjects.own(f"{tmp_path}/mine.py:small", "cpu").data
    whole, cut = files_as("whole", 48), files_as("imagenet", 48)
    assert torch.equal(data.images[: len(FILES)], whole) and not torch.equal(whole, cut)
    assert torch.equal(data.like(open_image(FILES[0])), whole[0])


def test_of_a_published_network_without_the_border():
    """As it was evaluated, whether it is named by the menu or typed; an upload of a photograph is that photograph."""
    menu, typed = subjects.published(subjects.PUBLISHED, "photographs", "cpu"), subjects.own(subjects.PUBLISHED, "cpu")
    for data in (menu.data, typed.data, datasets.load("photographs", "test", size=224, channels=3)):
        assert torch.equal(data.images[: len(FILES)], files_as("imagenet", 224))
        assert torch.equal(data.like(open_image(FILES[3])), data.images[3])


def test_a_part_of_a_set_is_cut_as_the_set():
    data = datasets.load("photographs", "test", size=32, channels=1, limit=3)
    assert torch.equal(data.like(open_image(FILES[1])), data.images[1]) and data.like(open_image(FILES[1])).shape == (1, 32, 32)
