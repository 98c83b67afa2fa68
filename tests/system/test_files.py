import errno
import json
import multiprocessing
import time

import pytest

from lib.system import files


def test_replacing_leaves_the_old_file_when_the_new_one_fails(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"b": 1, "a": 2})
    with pytest.raises(RuntimeError, match="forced"), files.replacing(path) as part:
        part.write_text("half")
        raise RuntimeError("forced")
    assert files.read_json(path) == {"a": 2, "b": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]  # no rest


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match=r"the disk is full; .*finished work is kept") as caught, files.replacing(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_damaged_json_is_none(tmp_path):
    (tmp_path / "a").write_text('{"a": 1')
    (tmp_path / "b").write_bytes(b"\xff\xfe\x00")
    assert [files.read_json(tmp_path / n) for n in "abc"] == [None, None, None]


def test_digests():
    assert files.digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert files.digest_of({"a": 1, "b": 2}) == files.digest_of(dict(reversed(list({"a": 1, "b": 2}.items()))))
    assert files.digest_of({"a": 1}) != files.digest_of({"a": 1.5})
    assert json.dumps(files.digest_of([1])).strip('"').isalnum()


def _append(path, text):
    with files.locked(path):
        path.write_text((path.read_text() if path.exists() else "") + text)
        time.sleep(0.2)
        path.write_text(path.read_text() + text)


def test_one_process_at_a_time(tmp_path):
    path = tmp_path / "shared"
    context = multiprocessing.get_context("spawn")
    jobs = [context.Process(target=_append, args=(path, c)) for c in "ab"]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert path.read_text() in ("aabb", "bbaa")
