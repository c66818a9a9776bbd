"""Models, their training, and the files that they are saved in."""

from training.augmentation import (
    AUGMENTERS,
    AffineAugmenter,
    Augmenter,
    ComposedAugmenter,
    FlipAugmenter,
    PhotoAugmenter,
    ShiftAugmenter,
    make_augmenter,
)
from training.errors import DivergedError, InputError
from training.model import Model
from training.optimizers import SGD, Adam, AdamW, Momentum, Muon
from training.reporting.reporter import Reporter
from training.saving.training_state import TrainingState
from training.schedules import (
    SCHEDULES,
    Constant,
    Cosine,
    OneCycle,
    ReduceOnPlateau,
    Schedule,
    Steps,
    TimeLimited,
)
from training.trainer import split_validation

__all__ = [
    "AUGMENTERS",
    "SCHEDULES",
    "SGD",
    "Adam",
    "AdamW",
    "AffineAugmenter",
    "Augmenter",
    "ComposedAugmenter",
    "Constant",
    "Cosine",
    "DivergedError",
    "FlipAugmenter",
    "InputError",
    "Model",
    "Momentum",
    "Muon",
    "OneCycle",
    "PhotoAugmenter",
    "ReduceOnPlateau",
    "Reporter",
    "Schedule",
    "ShiftAugmenter",
    "Steps",
    "TimeLimited",
    "TrainingState",
    "make_augmenter",
    "split_validation",
]
