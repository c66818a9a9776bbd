"""The result of every reader in this package, and the checks of its labels."""

from dataclasses import dataclass

import numpy as np

from training.errors import InputError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and the class of each.

    Attributes
    ----------
    images : ndarray of uint8 or float32, shape (N, C, H, W)
        Pixels as they are in the file, not scaled: uint8 if all of them are whole numbers from 0
        to 255, else float32.
    labels : ndarray of int64, shape (N,)
        The class of each image, from 0 to ``n_classes - 1``.
    n_classes : int
        Number of classes.
    source : str
        Path of the file, for messages.
    """

    images: np.ndarray
    labels: np.ndarray
    n_classes: int
    source: str


def count_classes(source: str, labels: np.ndarray, n_classes: int | None) -> int:
    """Check non-negative labels and return the number of classes.

    Parameters
    ----------
    source : str
        Path of the file, for messages.
    labels : ndarray of int64, shape (N,)
        At least one label.
    n_classes : int or None
        Number of classes if it is known; a test file need not have all of them. None for training
        data, in which every class from 0 to the largest label must occur.

    Returns
    -------
    int

    Raises
    ------
    InputError
        A class between 0 and the largest label is missing, there are fewer than two classes, or a
        label is not below `n_classes`.
    """
    if n_classes is not None:
        too_large = np.flatnonzero(labels >= n_classes)
        if len(too_large):
            raise InputError(
                f"{source}: image {too_large[0] + 1} has label {labels[too_large[0]]}, and there "
                f"are {n_classes} classes: labels must be 0 to {n_classes - 1}"
            )
        return n_classes

    present = np.unique(labels)
    if len(present) < 2:
        raise InputError(
            f"{source}: every label is {present[0]}: training needs images of two or more classes"
        )
    if present[-1] != len(present) - 1:
        gap = np.flatnonzero(present != np.arange(len(present)))[0]
        raise InputError(
            f"{source}: no image has label {gap}, and labels go up to {present[-1]}: number the "
            f"{len(present)} classes from 0 to {len(present) - 1}"
        )
    return len(present)
