"""The object in the middle of a photograph: by its colours, at any size, and no more than is known."""

import pytest
import torch

from lib.data import datasets, segmentation
from tests.data import test_folders

root = test_folders.root


def on_grass(side=64, radius=0.3, centre=(0.5, 0.5), n=1):
    """A yellow disc on green, both with some noise; and where the disc is."""
    at = (torch.arange(side) + 0.5) / side
    disc = ((at[:, None] - centre[0]) ** 2 + (at[None] - centre[1]) ** 2).sqrt() < radius
    colour = torch.where(disc, torch.tensor([0.9, 0.8, 0.1])[:, None, None], torch.tensor([0.2, 0.5, 0.2])[:, None, None])
    noise = 0.05 * torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))
    return (colour + noise).clamp(0, 1), disc


def overlap(a, b):
    return ((a & b).sum() / (a | b).sum()).item()


@pytest.mark.parametrize("side", [32, 64, 128])
@pytest.mark.parametrize("radius", [0.15, 0.3, 0.4])
def test_an_object_in_the_middle_is_found(side, radius):
    x, disc = on_grass(side, radius)
    found = segmentation.foreground(x)[0]
    assert found.shape == (side, side) and found.dtype == torch.bool
    assert overlap(found, disc) > 0.9


def test_masks_are_wanted_in_another_size():
    x, _ = on_grass(64)
    _, disc = on_grass(32)
    found = segmentation.foreground(x, 32)[0]
    assert found.shape == (32, 32) and overlap(found, disc) > 0.9


def test_an_object_beside_the_middle_is_not_in_the_mask():
    x, disc = on_grass(centre=(0.25, 0.25), radius=0.12)
    assert overlap(segmentation.foreground(x)[0], disc) < 0.1


def test_of_one_colour_the_seed_is_all_that_is_known():
    found = segmentation.foreground(torch.full((1, 3, 64, 64), 0.5))[0]
    assert found.sum() == 88  # pixels whose centre is less than 64/12 from the middle
    assert found[28:36, 28:36].all() and not found[:26].any()


def test_the_seeds_by_hand():
    seeds = segmentation._seeds()
    assert (seeds[:3] == 2).all() and (seeds[3, 3:-3] == 0).all()  # a frame of 64/24 pixels: centres at .5, 1.5, 2.5
    assert (seeds[:, -3:] == 2).all() and seeds[32, 32] == 1 and (seeds == seeds.T).all() and (seeds == seeds[::-1]).all()


def test_a_batch_is_each_image_by_itself():
    x = torch.cat([on_grass(radius=r)[0] for r in (0.2, 0.3)] + [torch.zeros(1, 3, 64, 64)])
    together = segmentation.foreground(x)
    assert all(torch.equal(together[i : i + 1], segmentation.foreground(x[i : i + 1])) for i in range(3))
    assert segmentation.foreground(x[:0]).shape == (0, 64, 64)


@pytest.mark.parametrize(
    "x, size, message",
    [
        (torch.zeros(1, 1, 32, 32), None, "told from their background by colour"),
        (torch.zeros(1, 3, 8, 8), None, "16 pixels a side"),
        (torch.zeros(1, 3, 32, 32), 8, "masks of 8"),
    ],
)
def test_what_cannot_be_segmented_is_refused(x, size, message):
    with pytest.raises(ValueError, match=message):
        segmentation.foreground(x, size)


def test_a_folder_has_masks_by_its_name(root):
    test_folders.two(root)
    plain, masked = (datasets.load(f"{kind}:mine", "train", size=32) for kind in ("folder", "segmented"))
    assert torch.equal(plain.images, masked.images) and torch.equal(plain.labels, masked.labels)
    assert masked.masks.shape == (6, 32, 32) and masked.name == "segmented:mine" and masked.marks
    assert datasets.has_masks("segmented:mine") and not datasets.has_masks("folder:mine")
    assert datasets.count("segmented:mine", "test") == 6 and datasets.classes("segmented:mine") == ("cat", "dog")
    assert len(datasets.load("segmented:mine", "train", size=32, limit=2)) == 2
    assert datasets.load("segmented:mine", "test", size=32, channels=1).images.shape == (6, 1, 32, 32)


def test_what_is_too_large_to_be_held_is_refused(root, monkeypatch):
    test_folders.two(root)
    monkeypatch.setattr("lib.data.image_sets.EAGER_BYTES", 6)
    with pytest.raises(ValueError, match="give a limit"):
        datasets.load("segmented:mine", "train", size=32)
