"""`trained(config)`: a network, loaded from the cache or trained into it."""

from lib.training.cache import Trained, fresh, images_of, key_of, trained
from lib.training.config import TrainConfig
from lib.training.evaluate import accuracy, predictions
from lib.training.loop import augmented, learning_rate, optimizer_of
from lib.training.objectives import OBJECTIVES, adversarial, name_of, objective, own, standard

__all__ = [
    "OBJECTIVES",
    "TrainConfig",
    "Trained",
    "accuracy",
    "adversarial",
    "augmented",
    "fresh",
    "images_of",
    "key_of",
    "learning_rate",
    "name_of",
    "objective",
    "optimizer_of",
    "own",
    "predictions",
    "standard",
    "trained",
]
