"""Public data: read without a lock where they are complete, also from read-only folders; downloaded by one process else."""

import contextlib
import errno

import pytest
import torchvision

from lib.data import datasets, downloads
from lib.networks import released
from tests.data.test_datasets import mnist


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def read_only(monkeypatch):
    """No lock can be made: what a folder says that may not be written (to others than root, as which tests may run)."""

    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", f"{path}.lock")

    monkeypatch.setattr(downloads, "locked", refused)


@pytest.fixture
def offline(monkeypatch):
    def download(*_arguments, **_options):
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)


@pytest.mark.parametrize("left", [False, True])
def test_complete_data_are_read_from_a_read_only_folder(root, read_only, offline, left):
    """Also where a lock was left that may be anybody's."""
    mnist(root, n=10_000 // 500)
    if left:
        (root / "mnist.lock").touch()
    before = sorted(p.name for p in root.iterdir())
    assert len(datasets.load("mnist", "test")) == len(datasets.load("mnist", "train")) == 20
    assert sorted(p.name for p in root.iterdir()) == before


def test_published_networks_look_at_read_only_images_too(root, read_only, offline, monkeypatch):
    monkeypatch.setattr(released, "EVALUATED", 1)
    mnist(root, n=10_000)
    x, y = released.evaluation_images()
    assert x.shape == (1, 1, 28, 28) and y.shape == (1,)


def test_incomplete_data_in_a_read_only_folder_say_where_to_put_them(root, read_only):
    raw = mnist(root)
    (raw / "train-images-idx3-ubyte").unlink()
    with pytest.raises(RuntimeError, match=rf"not as a whole, below {root}, where nothing can be downl.*STUDY_DATA") as caught:
        datasets.load("mnist", "train")
    assert "delete" not in str(caught.value) and "Permission denied" in str(caught.value)


def test_damaged_files_are_told_from_missing_ones(root):
    raw = mnist(root)
    path = raw / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RuntimeError, match=rf"'mnist' could not be had: looked below {root}.*half downloaded.*Move it away"):
        datasets.load("mnist", "test")


def test_missing_data_without_a_network(root, offline):
    with pytest.raises(RuntimeError, match=r"download it: no network\. Run again with a connection.*set STUDY_DATA") as caught:
        datasets.load("mnist", "train")
    assert "damaged" not in str(caught.value) and "elete" not in str(caught.value)


def test_what_may_not_be_read_is_not_called_damaged(root, read_only, monkeypatch):
    mnist(root)

    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(torchvision.datasets.mnist, "read_image_file", refused)
    with pytest.raises(RuntimeError, match=r"it cannot be read \(.*Permission denied: .*t10k-images"):
        datasets.load("mnist", "test")


def test_one_process_downloads_and_others_wait_for_it(root, monkeypatch):
    """Whoever finds a lock takes it first: what is there may be half of what is coming."""
    waited = []

    @contextlib.contextmanager
    def lock(path):
        waited.append(path.name)
        (root / "mnist.lock").touch()
        yield

    def download(self):
        if not self._check_exists():
            mnist(root)

    monkeypatch.setattr(downloads, "locked", lock)
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    assert len(datasets.load("mnist", "test")) == 20 and waited == ["mnist"]
    assert len(datasets.load("mnist", "test")) == 20 and waited == ["mnist", "mnist"]
