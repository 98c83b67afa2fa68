"""Networks in the layout in which Boopathy et al. published theirs, and pictures of noise beside them, for tests."""

from pathlib import Path

import numpy as np
from PIL import Image

from lib.networks import classifier, models, released


def publish(name: str, channels: int, seed: int = 3) -> classifier.Classifier:
    """A random `Small`, as the file `name` of theirs, below STUDY_DATA; the network itself, in evaluation mode."""
    model = models.create("small", classes=10, channels=channels, seed=seed).eval()
    released.folder().mkdir(parents=True, exist_ok=True)
    state = {key.replace("head", "linear"): value.numpy() for key, value in model.net.state_dict().items()}
    np.savez(released.folder() / f"{name}.npz", **state)
    return model


def cifar10(root: Path) -> None:
    """`folder:cifar10` with one picture of noise a class, test images alone."""
    for i in range(10):
        folder = root / "cifar10" / "test" / f"class{i}"
        folder.mkdir(parents=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (32, 32, 3), np.uint8)).save(folder / "0.png")
