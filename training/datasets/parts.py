"""Read a source that is split into training, validation and test images."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from training.datasets.dataset import Dataset, ReadOptions
from training.errors import InputError


def read_parts(
    path: Path,
    present: Mapping[str, object],
    read: Callable[[str, ReadOptions], Dataset],
    options: ReadOptions,
) -> Dataset:
    """Return the training images of a source, with its other parts as `validation` and `test`.

    If `options` ask for the test images, only these are read. If the source has only one part, it
    is that.

    Parameters
    ----------
    path : Path
        The source.
    present : mapping
        Its keys are the names of the parts that there are, "train", "validation" or "test"; at
        least one.
    read : callable
        Reads the part of a name.
    options : ReadOptions
        For the training images, which decide the form of the others.

    Raises
    ------
    InputError
        The source has other parts, but no training images, or no test images for a model.
    """
    needed = options.part or ("train" if options.like is None else "test")
    if len(present) > 1 and needed not in present:
        raise InputError(
            f"{path}: has {' and '.join(present)} images but no {needed} images: add these, or "
            "give only one of the others"
        )
    if len(present) == 1 or needed == "test":
        return read(next(iter(present)) if len(present) == 1 else "test", options)
    train = read("train", options)
    like_train = options._replace(like=train.input_format)
    validation, test = (
        read(part, like_train) if part in present else None for part in ("validation", "test")
    )
    return replace(train, validation=validation, test=test)
