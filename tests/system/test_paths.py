"""Folders that variables name: from where a command was typed, also for what it starts elsewhere."""

import os

import lib.__main__ as command
from lib.system import paths


def test_relative_folders_are_those_of_who_typed_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDY_HOME", "home")
    monkeypatch.setenv("STUDY_DATA", "sets")
    assert paths.home() == tmp_path / "home" and paths.datasets() == tmp_path / "sets"
    assert command.main(["readme"]) == 1 and "STUDY_HOME is" in capsys.readouterr().err  # any command settles them
    monkeypatch.chdir("/")
    assert paths.home() == tmp_path / "home" and paths.datasets() == tmp_path / "sets"
    assert os.environ["STUDY_HOME"] == str(tmp_path / "home")
