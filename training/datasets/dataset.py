"""The result of every reader in this package, and the classes that labels stand for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from training.errors import InputError
from training.input_format import InputFormat
from training.input_stats import InputStats
from training.preprocessing.ink_stats import measure_ink

COLORS = ("grey", "rgb")
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
    part : "train" or "test", optional
        The part of a source that is already split. None: "train", or "test" with `like`.
    preprocess : "auto", "ink" or "none", optional
        How pictures are brought to the form of `like`, see `training.preprocessing.preprocess`.
        None: only their size and color, as for the other parts of a source of training images.
    scale : (darkest, lightest) or "none", optional
        The pixels of arrays that stand for the smallest and the largest training pixel of `like`.
        None: it is found; see `training.preprocessing.pixel_scale.match_scale`.
    """

    image_size: tuple[int, int] | None = None
    color: str | None = None
    resize: str | None = None
    image_shape: tuple[int, int, int] | None = None
    label_column: str | None = None
    like: InputFormat | None = None
    part: str | None = None
    preprocess: str | None = None
    scale: tuple[float, float] | str | None = None

    @property
    def for_cache(self) -> "ReadOptions":
        """The options without those that change nothing in images that are kept in the cache."""
        like = self.like
        if like is not None and self.preprocess is None:
            like = InputFormat(*like[:3])  # any model's statistics
        return self._replace(like=like, scale=None)


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
        return InputFormat(
            (C, H, W),
            self.class_names,
            self.resize,
            InputStats.of(self.images),
            measure_ink(self.images),
        )


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
    names = list(map(str, present.tolist()))
    if class_names is not None:
        known = index_labels(class_names)
        unknown = [place for place, name in enumerate(names) if name not in known]
        if unknown:
            image = first[unknown].min()
            valid = [name for name in known if name.isdecimal()]
            raise InputError(
                f"{source}: image {image + 1} has label {numbers[image]}, and there are "
                f"{len(class_names)} classes: labels must be {list_names(valid)}"
            )
    return encode_strings(source, labels, names, class_names)


def encode_strings(
    source: str, indices: np.ndarray, names: Sequence[str], class_names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the class of each image and the names of the classes, from labels as text.

    Parameters
    ----------
    source : str
        Path of the file, for messages.
    indices : ndarray of int, shape (N,)
        The index in `names` of the label of each image.
    names : sequence of str
        The labels that occur, each once; keys of ``index_labels(class_names)`` if the classes are
        known.
    class_names : sequence of str or None
        As for `encode_numbers`.

    Returns
    -------
    labels : ndarray of int64, shape (N,)
    class_names : tuple of str
        In the order of `sort_class_names` if they were not known.

    Raises
    ------
    InputError
        There are fewer than two classes, for training images.
    """
    if class_names is None and len(names) < 2:
        raise InputError(
            f"{source}: every label is {names[0]}: training needs images of two or more classes"
        )
    classes = sort_class_names(names) if class_names is None else tuple(class_names)
    known = index_labels(classes)
    numbers = np.array([known[name] for name in names], np.int64)
    return numbers[indices].reshape(-1), classes


def index_labels(class_names: Sequence[str]) -> dict[str, int]:
    """Return the class of each text that is a label of known classes.

    It is the name of a class, or, if no name is a number, also the index of a class.

    Examples
    --------
    >>> index_labels(["1", "2"]), index_labels(["cat", "dog"])
    ({'1': 0, '2': 1}, {'cat': 0, 'dog': 1, '0': 0, '1': 1})
    """
    known = {name: index for index, name in enumerate(class_names)}
    if not any(name.isdecimal() for name in class_names):
        known |= {str(index): index for index in range(len(class_names))}
    return known


def describe_classes(class_names: Sequence[str]) -> tuple[str, ...]:
    """Return the note of a data set on its labels; none if they are the numbers of the classes.

    Examples
    --------
    >>> describe_classes(["0", "1"]), describe_classes(["2", "5", "10"])
    ((), ('labels 2, 5, 10 are classes 0 to 2, in this order',))
    """
    if list(class_names) == [str(index) for index in range(len(class_names))]:
        return ()
    last = len(class_names) - 1
    return (f"labels {list_names(class_names)} are classes 0 to {last}, in this order",)


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
