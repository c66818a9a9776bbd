"""Models and how they are trained."""

from training.augmentation import AUGMENTERS, AffineAugmenter, Augmenter, ShiftAugmenter
from training.errors import DivergedError, InputError
from training.loop import split_validation
from training.model import Model
from training.optimizers import SGD, Adam, AdamW, Momentum
from training.reporting import Reporter
from training.run_file import RunFile
from training.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    Steps,
)

__all__ = [
    "AUGMENTERS",
    "SCHEDULES",
    "SGD",
    "Adam",
    "AdamW",
    "AffineAugmenter",
    "Augmenter",
    "Constant",
    "Cosine",
    "DivergedError",
    "InputError",
    "Model",
    "Momentum",
    "OneCycle",
    "ReduceOnPlateau",
    "Reporter",
    "RunFile",
    "Schedule",
    "ShiftAugmenter",
    "Steps",
    "split_validation",
]
