"""Folders beside the checkout, and whose turn it is."""

import pytest

from lib.runs import turns


def test_numbers(monkeypatch):
    """A commit's hash, or the day where none is given."""
    assert turns.number("ff") == 255 and turns.number("0A") == 10
    monkeypatch.setattr(turns.time, "time", lambda: 3 * turns.DAY + 5)
    assert turns.number("") == 3
    with pytest.raises(ValueError, match="--turn zz: give a commit's hash, or nothing for the day"):
        turns.number("zz")


def test_a_folder_goes_unless_it_is_given(tmp_path):
    with turns.folder(None, "begins-") as made:
        (made / "file").touch()
        assert made.name.startswith("begins-")
    assert not made.exists()
    with turns.folder(tmp_path / "new" / "kept", "begins-") as given:
        (given / "file").touch()
    assert (tmp_path / "new" / "kept" / "file").exists()
