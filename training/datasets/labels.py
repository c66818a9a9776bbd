"""Map the labels of a source that has names for its classes to classes."""

from collections.abc import Sequence

import numpy as np

from training.datasets.dataset import encode_numbers, list_names, sort_class_names
from training.errors import InputError
from training.input_format import check_class_names


def encode_indices(
    source: str,
    indices: np.ndarray,
    names: Sequence[str],
    class_names: Sequence[str] | None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the class of each image and the names of the classes, from names in the source.

    Parameters
    ----------
    source : str
        Path of the file, for messages.
    indices : ndarray of int, shape (N,)
        The class of each image as an index of `names`; at least one.
    names : sequence of str
        The names of the classes in the source.
    class_names : sequence of str or None
        Names of the classes if they are known; a test file need not have all of them, nor the same
        order. None for training images, whose names these are.

    Returns
    -------
    labels : ndarray of int64, shape (N,)
    class_names : tuple of str

    Raises
    ------
    InputError
        The images are of fewer than two classes, or one is of none of the known classes.

    Examples
    --------
    >>> encode_indices("test.npz", np.array([0, 1, 0]), ["dog", "cat"], ["bird", "cat", "dog"])
    (array([2, 1, 2]), ('bird', 'cat', 'dog'))
    """
    if class_names is None:
        if (indices == indices[0]).all():
            raise InputError(
                f"{source}: every image is of class {names[indices[0]]}: training needs images of "
                "two or more classes"
            )
        return indices.astype(np.int64), tuple(names)
    by_name = {name: index for index, name in enumerate(class_names)}
    labels = np.array([by_name.get(name, -1) for name in names])[indices]
    unknown = np.flatnonzero(labels < 0)
    if len(unknown):
        raise InputError(
            f"{source}: image {unknown[0] + 1} is of class {names[indices[unknown[0]]]}, and there "
            f"are {len(by_name)} classes: {list_names(tuple(by_name))}"
        )
    return labels, tuple(class_names)


def encode_classes(
    source: str,
    labels: np.ndarray,
    source_names: Sequence[str] | None,
    class_names: Sequence[str] | None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the class of each image and the names of the classes, from numbers or text.

    Parameters
    ----------
    source : str
        Path of the file, for messages.
    labels : ndarray of numbers or str, shape (N,)
        At least one label.
    source_names : sequence of str or None
        The names of the classes in the source, whose indices or names the labels are. None if it
        has none: text is the names, and numbers are as in `encode_numbers`.
    class_names : sequence of str or None
        As in `encode_indices`.

    Returns
    -------
    labels : ndarray of int64, shape (N,)
    class_names : tuple of str

    Raises
    ------
    InputError
        A number is negative or not whole, a name is not printable or unknown, or as in
        `encode_indices` and `encode_numbers`.
    """
    if labels.dtype.kind in "UO":
        found, indices = np.unique(labels, return_inverse=True)
        indices = indices.reshape(-1)
        names = found.tolist()
        if source_names is None:
            source_names = sort_class_names(names)
        indices, _ = encode_indices(source, indices, names, source_names)
    else:
        indices = _check_numbers(source, labels)
        if source_names is None:
            return encode_numbers(source, indices, class_names)
        if indices.max() >= len(source_names):
            raise InputError(
                f"{source}: image {indices.argmax() + 1} has label {indices.max()}, and the file "
                f"has names of {len(source_names)} classes, 0 to {len(source_names) - 1}"
            )
    try:
        source_names = check_class_names(source_names, len(source_names))
    except ValueError as error:
        raise InputError(f"{source}: {error}: give each class a name of its own") from None
    return encode_indices(source, indices, source_names, class_names)


def _check_numbers(source: str, labels: np.ndarray) -> np.ndarray:
    """Return labels as int64."""
    with np.errstate(invalid="ignore"):  # from numbers that int64 does not hold
        numbers = labels.astype(np.int64)
    wrong = np.flatnonzero((numbers != labels) | (numbers < 0))
    if len(wrong):
        raise InputError(
            f"{source}: image {wrong[0] + 1} has label {labels[wrong[0]]}: labels must be whole "
            "numbers from 0, or names"
        )
    return numbers
