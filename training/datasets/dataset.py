"""The result of every reader in this package, and the classes that labels stand for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from training.errors import InputError
from training.input_format import InputFormat

MAX_LISTED = 10  # classes that a message names; of more, it names the first ones


class ReadOptions(NamedTuple):
    """How a source of images is read.

    Attributes
    ----------
    image_size : (H, W), optional
        Size that all images are brought to. None: that of `like`, or as the images decide.
    color : "grey" or "rgb", optional
        None: that of `like`, or as the images decide.
    resize : "pad", "crop" or "stretch", optional
        How an image of other proportions is brought to the size. None: that of `like`, or "pad".
    image_shape : (C, H, W), optional
        Shape of the images in a file that holds only their pixels, such as CSV.
    label_column : str, optional
        Name, or position from 1, of the column of labels in a CSV file.
    like : InputFormat, optional
        What the model expects that the images are for. None for training images, which decide it.
    """

    image_size: tuple[int, int] | None = None
    color: str | None = None
    resize: str | None = None
    image_shape: tuple[int, int, int] | None = None
    label_column: str | None = None
    like: InputFormat | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and the class of each.

    Attributes
    ----------
    images : ndarray of uint8 or float32, shape (N, C, H, W)
        Pixels on the scale of the file: uint8 if all of them are whole numbers from 0 to 255, else
        float32.
    labels : ndarray of int64, shape (N,)
        The class of each image, an index of `class_names`.
    class_names : tuple of str
        The name of each class.
    source : str
        Path of the file or folder, for messages.
    resize : "pad", "crop" or "stretch"
        How images of other proportions were, or would have been, brought to this size.
    notes : tuple of str
        What the user should know of the reading, such as files that were skipped; one line each.
    validation, test : Dataset, optional
        The other parts of a source that is already split.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    source: str
    resize: str = "pad"
    notes: tuple[str, ...] = ()
    validation: "Dataset | None" = None
    test: "Dataset | None" = None

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def input_format(self) -> InputFormat:
        """What a model expects that is trained on these images."""
        C, H, W = self.images.shape[1:]
        return InputFormat((C, H, W), self.class_names, self.resize)


def sort_class_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return names in order: by number if all are whole numbers (2 before 10), else by text.

    Examples
    --------
    >>> sort_class_names(["10", "2"]), sort_class_names(["10", "2", "b"])
    (('2', '10'), ('10', '2', 'b'))
    """
    unique = set(names)
    if all(name.isdecimal() and name.isascii() for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    return tuple(sorted(unique))


def encode_numbers(
    source: str, numbers: np.ndarray, class_names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the class of each image and the names of the classes, from whole numbers.

    Parameters
    ----------
    source : str
        Path of the file, for messages.
    numbers : ndarray of int, shape (N,)
        At least one label, none of them negative.
    class_names : sequence of str or None
        Names of the classes if they are known; a test file need not have all of them. A number is
        one of them, or, if no name is a number, the index of one. None for training images, whose
        numbers are the names.

    Returns
    -------
    labels : ndarray of int64, shape (N,)
    class_names : tuple of str

    Raises
    ------
    InputError
        There are fewer than two classes, or a number is none of the known classes.
    """
    present, first, labels = np.unique(numbers, return_index=True, return_inverse=True)
    if class_names is None:
        names = tuple(map(str, present.tolist()))
        if len(names) < 2:
            raise InputError(
                f"{source}: every label is {names[0]}: training needs images of two or more classes"
            )
        return labels.astype(np.int64).reshape(-1), names
    names = tuple(class_names)
    by_name = {name: index for index, name in enumerate(names)}
    if not any(name.isdecimal() for name in names):
        by_name = {str(index): index for index in range(len(names))}
    classes = np.array([by_name.get(str(number), -1) for number in present.tolist()])
    unknown = np.flatnonzero(classes < 0)
    if len(unknown):
        image = first[unknown].min()
        raise InputError(
            f"{source}: image {image + 1} has label {numbers[image]}, and there are "
            f"{len(names)} classes: labels must be {list_names(tuple(by_name))}"
        )
    return classes[labels].reshape(-1), names


def list_names(names: Sequence[str]) -> str:
    """Return class names as text: "0 to 9", or "cat, dog"; of many, only the first ones.

    Examples
    --------
    >>> list_names(["0", "1", "2", "3"]), list_names(["cat", "dog"])
    ('0 to 3', 'cat, dog')
    """
    if len(names) > 2 and list(names) == [str(index) for index in range(len(names))]:
        return f"0 to {len(names) - 1}"
    more = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
