"""Pictures of one's own: found in folders, cut as asked, and all that cannot be used refused at once, by name."""

import numpy as np
import pytest
import torch
from PIL import Image

from lib.data import images, own_pictures
from tests.data.test_images import bomb

WIDE = np.linspace(0, 255, 40 * 20 * 3, dtype=np.uint8).reshape(20, 40, 3)


def gather(*paths, size=16):
    return own_pictures.gather(paths, size=size, channels=3, crop="imagenet")


@pytest.fixture
def folder(tmp_path):
    """Three pictures at two depths, and what else lies about."""
    (tmp_path / "photos" / "deeper").mkdir(parents=True)
    for name in ("b.png", "a.JPG", "deeper/c.png"):
        Image.fromarray(WIDE).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("none")
    (tmp_path / "photos" / ".hidden.png").write_text("none")
    return tmp_path / "photos"


def test_files_and_folders_in_the_order_given(folder):
    found = gather(folder / "b.png", folder)
    assert [p.path.name for p in found] == ["b.png", "a.JPG", "c.png"]  # each once
    assert {(p.width, p.height) for p in found} == {(40, 20)}
    expected = images.to_tensor(Image.fromarray(WIDE), size=16, channels=3, crop="imagenet")
    assert torch.equal(found[0].x, expected)


def test_a_photograph_that_was_turned_is_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(WIDE).save(tmp_path / "a.jpg", exif=exif)
    (picture,) = gather(tmp_path / "a.jpg")
    assert (picture.width, picture.height) == (20, 40)


def test_a_photograph_with_its_own_preview_is_no_animation(tmp_path):
    frames = [Image.fromarray(WIDE)] * 2
    frames[0].save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert len(gather(tmp_path / "phone.jpg")) == 1


def bad(folder):
    (folder / "text.png").write_text("no picture")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("RGB", (7, 300)).save(folder / "thin.png")
    (folder / "huge.png").write_bytes(bomb(20_000))
    (folder / "large.png").write_bytes(bomb(9_500))
    frames = [Image.new("RGB", (20, 20), c) for c in ("red", "blue")]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    (folder / "cut.jpg").write_bytes((folder / "a.JPG").read_bytes()[:400])


SAID = {
    "text.png": r"cannot be read as an image: its content is none of",
    "dot.png": r"has 1 × 1 pixel; a picture has 8 at least each way",
    "thin.png": r"has 7 × 300 pixels; a picture has 8 at least each way",
    "huge.png": r"has more than \d+ million pixels; at most 64 million are decoded\. Scale it down",
    "large.png": r"has 9500 x 9500 pixels; at most 64 million are decoded\. Scale it down",
    "moving.gif": r"is an animation or has several pages; save the one that you mean",
    "cut.jpg": r"It may have been cut short",
}


@pytest.mark.parametrize("name", SAID)
def test_what_cannot_be_used_is_refused_in_a_sentence(folder, name):
    bad(folder)
    with pytest.raises(ValueError, match=rf"{name} {SAID[name]}" if name != "cut.jpg" else SAID[name]) as refused:
        gather(folder / name)
    assert "\n" not in str(refused.value) and name in str(refused.value)


def test_all_of_them_at_once(folder):
    bad(folder)
    with pytest.raises(ValueError, match=r"^7 of 10 pictures cannot be used:\n") as refused:
        gather(folder)
    assert all(name in str(refused.value) for name in SAID) and "b.png" not in str(refused.value)


def test_nothing_there(folder, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"the folder .*empty holds no picture, it is empty; name another"):
        gather(tmp_path / "empty")
    (tmp_path / "empty" / "a.txt").touch()
    with pytest.raises(ValueError, match=r"holds no picture \(but 1 \.txt\); name another"):
        gather(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"there is no file .*/bb\.png; did you mean .*/photos/b\.png"):
        gather(folder / "bb.png")
    with pytest.raises(ValueError, match=r"there is no file .*/none/b\.png; give its path from /.*"):
        gather(tmp_path / "none" / "b.png")
    monkeypatch.setattr(own_pictures, "MOST", 2)
    with pytest.raises(ValueError, match=r"3 pictures; at most 2 are taken at once\. Give fewer, or make a data set"):
        gather(folder)
