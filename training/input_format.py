"""What a model expects of the images that it is given, as its training images decide it."""

import reprlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from training.input_stats import InputStats
from training.preprocessing.ink_stats import InkStats

RESIZE_RULES = ("pad", "crop", "stretch")


def default_class_names(n_classes: int) -> tuple[str, ...]:
    """Return the names of classes that have none: "0", "1", "2"."""
    return tuple(map(str, range(n_classes)))


def check_class_names(names: Any, n_classes: int) -> tuple[str, ...]:
    """Return the names of so many classes; raise TypeError or ValueError for anything else."""
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"class_names must be a sequence of names, got {reprlib.repr(names)}")
    names = tuple(names)
    for name in names:
        if not isinstance(name, str) or not name.isprintable() or not name:
            raise ValueError(f"class_names must be printable text, got {reprlib.repr(name)}")
    if len(set(names)) < len(names):
        name, _ = Counter(names).most_common(1)[0]
        raise ValueError(f"class_names has {reprlib.repr(name)} twice")
    if len(names) != n_classes:
        raise ValueError(f"class_names has {len(names)} names for {n_classes} classes")
    return names


def check_resize(rule: Any) -> str:
    """Return the name of a rule for resizing; raise ValueError for another name."""
    if rule not in RESIZE_RULES:
        raise ValueError(
            f"resize must be one of {', '.join(RESIZE_RULES)}, got {reprlib.repr(rule)}"
        )
    return rule


class InputFormat(NamedTuple):
    """The form of the images of a model, and the names of their classes.

    Attributes
    ----------
    shape : (C, H, W)
        Shape of an image.
    class_names : tuple of str
        The name of each class, in the order of the model's outputs.
    resize : "pad", "crop" or "stretch"
        How an image of other proportions is brought to H rows and W columns.
    stats : InputStats
        Statistics of the pixels of the training images.
    ink : InkStats or None
        What the ink of the training images looks like, if they are ink on a plain ground.
    """

    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    resize: str = "pad"
    stats: InputStats = InputStats()
    ink: InkStats | None = None
