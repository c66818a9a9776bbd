"""Models and how they are trained."""

from training.augmentation import ShiftAugmenter
from training.errors import DivergedError, InputError
from training.loop import split_validation
from training.model import Model
from training.optimizers import SGD, Adam, AdamW, Momentum
from training.reporting import Reporter
from training.schedules import ReduceOnPlateau

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "DivergedError",
    "InputError",
    "Model",
    "Momentum",
    "ReduceOnPlateau",
    "Reporter",
    "ShiftAugmenter",
    "split_validation",
]
