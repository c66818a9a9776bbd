"""Read .npz, the archive of arrays that numpy.savez writes."""

import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from training.datasets.dataset import (
    Dataset,
    ReadOptions,
    encode_names,
    encode_numbers,
    sort_class_names,
)
from training.datasets.gzip_file import MAX_RATIO, MIN_LIMIT_BYTES
from training.errors import InputError
from training.input_format import check_class_names
from training.saving.atomic_file import reject_special_files

Keys = tuple[str, str]
# The names of images and labels: of the training, the validation and the test part.
LAYOUTS: tuple[tuple[Keys | None, Keys | None, Keys | None], ...] = (
    (("x_train", "y_train"), ("x_val", "y_val"), ("x_test", "y_test")),
    (
        ("train_images", "train_labels"),
        ("val_images", "val_labels"),
        ("test_images", "test_labels"),
    ),
    (("images", "labels"), None, None),
    (("x", "y"), None, None),
)
CLASS_NAMES_KEY = "class_names"
CHANNELS = (1, 3)  # lengths of an axis that may be that of the channels
BLOCK_BYTES = 1 << 22
MAX_LISTED_KEYS = 20
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,  # of zipfile: a method or a password is missing
)


def is_npz(path: Path) -> bool:
    """Return whether a file is a zip archive of arrays, or a damaged zip archive called .npz."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (OSError, *DAMAGE):
        return path.suffix.lower() == ".npz"


def read_npz(path: Path, options: ReadOptions) -> Dataset:
    """Read images and labels from an archive of arrays.

    Parameters
    ----------
    path : Path
        An archive whose arrays of images and labels have one of these pairs of names: ``x_train``
        and ``y_train``, as in files of Keras, with ``val`` and ``test`` for the other parts;
        ``train_images`` and ``train_labels``, as in MedMNIST, with ``val`` and ``test``; ``images``
        and ``labels``; ``x`` and ``y``. An array ``class_names`` has the names of the classes 0, 1,
        2, ... Other arrays are not read, and nothing is unpickled.

        Images have the shape (N, H, W), (N, H, W, C) or (N, C, H, W). Of the last two, it is the
        one whose axis C has length 1 or 3. If that is both or none, or if the pixels of an image
        are in a row (N, C*H*W), the shape that is expected of an image decides. Pixels are of any
        real dtype.

        Labels have the shape (N,) or (N, 1), or (N, K) with a single 1 in each row. They are whole
        numbers from 0, or names.
    options : ReadOptions
        Its `image_shape` is the only shape of an image that is accepted. Without it, the shape of
        `like` is expected.

    Returns
    -------
    Dataset
        The training images, with the other parts as its `validation` and `test`. If the archive has
        only one part, that.

    Raises
    ------
    InputError
        The file is missing or damaged, or has other arrays than these.

    References
    ----------
    NumPy's documentation of ``numpy.lib.format``.
    """
    parts: list[Dataset | None] = []
    known_names = options.like and options.like.class_names
    with _NpzFile(path) as file:
        file_names = _read_class_names(file)
        for keys in _find_parts(file):
            part = None
            if keys is not None:
                part = _read_part(file, keys, options, file_names, known_names)
                known_names = part.class_names
            parts.append(part)
    train, validation, test = parts
    if train is None:
        return next(part for part in parts if part is not None)
    return replace(train, validation=validation, test=test)


class _NpzFile:
    """An archive of arrays. It is closed when its ``with`` block ends."""

    def __init__(self, path: Path):
        self.path = path
        self._n_bytes = 0
        reject_special_files(path)
        with self._report_damage():
            self._zip = zipfile.ZipFile(path)
        self.keys = [
            name.removesuffix(".npy") for name in self._zip.namelist() if name.endswith(".npy")
        ]

    def __enter__(self) -> "_NpzFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    @contextmanager
    def _report_damage(self) -> Iterator[None]:
        path = self.path
        try:
            yield
        except InputError:
            raise
        except FileNotFoundError:
            raise InputError(f"{path}: no such file: give the path of an .npz file") from None
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read ({error.strerror or error}): check the path and its "
                "permissions"
            ) from None
        except DAMAGE as error:
            raise InputError(
                f"{path}: is damaged or cut off ({error}): copy or download it again, or save it "
                "again with numpy.savez"
            ) from None

    def read(self, key: str) -> np.ndarray:
        """Return the array of a key, of any dtype but objects and structures."""
        with self._report_damage():
            info = self._zip.getinfo(key + ".npy")
            self._n_bytes += info.file_size
            max_bytes = max(MIN_LIMIT_BYTES, MAX_RATIO * self.path.stat().st_size)
            if self._n_bytes > max_bytes:
                raise InputError(
                    f"{self.path}: decompresses to {self._n_bytes:,} bytes with {key}, more than "
                    f"{MAX_RATIO} times its size, which images do not: save it with numpy.savez, "
                    "uncompressed, if its content is right"
                )
            with self._zip.open(info) as stream:
                shape, is_fortran, dtype = self._read_header(key, stream)
                size = math.prod(shape) * dtype.itemsize
                if min(shape, default=0) < 0 or size != info.file_size - stream.tell():
                    raise ValueError(f"{key} has another length than its header says")
                # The header may be wrong: memory is used as bytes are read, and none before.
                data = np.empty(size, np.uint8)
                n_read = 0
                while block := stream.read(BLOCK_BYTES):
                    data[n_read : n_read + len(block)] = np.frombuffer(block, np.uint8)
                    n_read += len(block)
                if n_read < size:
                    raise ValueError(f"{key} is cut off")
            array = data.view(dtype)
            return array.reshape(shape[::-1]).T if is_fortran else array.reshape(shape)

    def _read_header(self, key: str, stream: zipfile.ZipExtFile) -> tuple:
        """Return the shape, whether the first axis varies fastest, and the dtype."""
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):  # version 3 has structures with fields
            raise InputError(f"{self.path}: {key} is no array of numbers or text")
        try:
            if version == (1, 0):
                header = np.lib.format.read_array_header_1_0(stream)
            else:
                header = np.lib.format.read_array_header_2_0(stream)
        except MemoryError:  # of Python's parser, on a damaged header
            raise ValueError(f"the header of {key} cannot be parsed") from None
        dtype = header[2]
        if dtype.hasobject:
            raise InputError(
                f"{self.path}: {key} is an array of Python objects, which could run any code when "
                "they are loaded: convert it to an array of numbers or text, and save that"
            )
        if dtype.kind not in "biufU" or dtype.itemsize == 0:
            raise InputError(
                f"{self.path}: {key} has dtype {dtype}: it must be an array of numbers or text"
            )
        return header


def _find_parts(file: _NpzFile) -> tuple[Keys | None, Keys | None, Keys | None]:
    """Return the keys of each part; None for a part that is not there."""
    keys = set(file.keys)
    present = [
        layout for layout in LAYOUTS if any(pair and keys.issuperset(pair) for pair in layout)
    ]
    if len(present) != 1:
        more = len(file.keys) - MAX_LISTED_KEYS
        found = ", ".join(file.keys[:MAX_LISTED_KEYS]) + (f" and {more} more" if more > 0 else "")
        expected = "; ".join(f"{images} and {labels}" for images, labels in _pairs(LAYOUTS))
        raise InputError(
            f"{file.path}: holds arrays called {found}: name the images and the labels by one of "
            f"these pairs: {expected}"
        )
    for images, labels in _pairs(present):
        if (images in keys) != (labels in keys):
            there, missing = (images, labels) if images in keys else (labels, images)
            raise InputError(f"{file.path}: has an array {there} and no {missing}: save both")
    train, validation, test = (pair if pair and pair[0] in keys else None for pair in present[0])
    if train is None and validation and test:
        raise InputError(
            f"{file.path}: has {validation[0]} and {test[0]} but no training images: save each in "
            "a file of its own, or all in one"
        )
    return train, validation, test


def _pairs(layouts: Iterator | list | tuple) -> list[Keys]:
    return [pair for layout in layouts for pair in layout if pair is not None]


def _read_class_names(file: _NpzFile) -> tuple[str, ...] | None:
    """Return the names in the file, or None."""
    if CLASS_NAMES_KEY not in file.keys:
        return None
    array = file.read(CLASS_NAMES_KEY)
    if array.dtype.kind != "U" or array.ndim != 1:
        raise InputError(
            f"{file.path}: {CLASS_NAMES_KEY} has dtype {array.dtype} and shape {array.shape}: it "
            "must be an array of text, one name for each class"
        )
    return _check_names(f"{file.path}, {CLASS_NAMES_KEY}", array.tolist())


def _check_names(source: str, names: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    try:
        return check_class_names(names, len(names))
    except ValueError as error:
        raise InputError(f"{source}: {error}: give each class a name of its own") from None


def _read_part(
    file: _NpzFile,
    keys: Keys,
    options: ReadOptions,
    file_names: tuple[str, ...] | None,
    known_names: tuple[str, ...] | None,
) -> Dataset:
    images_source, labels_source = (f"{file.path}, {key}" for key in keys)
    arrays = [file.read(key) for key in keys]
    images = _as_pixels(images_source, _arrange(images_source, arrays[0], options))
    numbers = _plain_labels(labels_source, arrays[1], len(images))
    if numbers.dtype.kind == "U":
        names, labels = np.unique(numbers, return_inverse=True)
        ordered = _check_names(labels_source, sort_class_names(names.tolist()))
        labels, names = encode_names(labels_source, labels, names.tolist(), ordered)
        if file_names is not None:
            labels, names = encode_names(labels_source, labels, names, file_names)
        labels, class_names = encode_names(labels_source, labels, names, known_names)
    elif file_names is None:
        labels, class_names = encode_numbers(labels_source, numbers, known_names)
    else:
        if numbers.max() >= len(file_names):
            raise InputError(
                f"{labels_source}: image {numbers.argmax() + 1} has label {numbers.max()}, and "
                f"{CLASS_NAMES_KEY} has {len(file_names)} names, of 0 to {len(file_names) - 1}"
            )
        labels, class_names = encode_names(labels_source, numbers, file_names, known_names)
    return Dataset(images, labels, class_names, str(file.path))


def _arrange(source: str, images: np.ndarray, options: ReadOptions) -> np.ndarray:
    """Return a view of images with the shape (N, C, H, W)."""
    if 0 in images.shape or images.ndim < 2:
        raise InputError(f"{source}: has shape {images.shape}, and images are (N, H, W, C)")
    expected = options.image_shape or (options.like.shape if options.like else None)
    if images.ndim == 2 and expected and math.prod(expected) == images.shape[1]:
        views = [images.reshape(-1, *expected)]
    elif images.ndim == 3:
        views = [images[:, np.newaxis]]
    elif images.ndim == 4:
        views = [images, np.moveaxis(images, -1, 1)]
    else:
        raise InputError(
            f"{source}: has shape {images.shape}: images are (N, H, W), (N, H, W, C) or "
            "(N, C, H, W); for pixels in a row, give their shape with --image_shape C,H,W"
        )
    fitting = [view for view in views if view.shape[1:] == expected]
    if options.image_shape is not None and not fitting:
        raise InputError(
            f"{source}: has shape {images.shape}, and --image_shape is "
            f"{','.join(map(str, options.image_shape))}: it must be C,H,W of these images"
        )
    fitting = fitting or [view for view in views if view.shape[1] in CHANNELS]
    if not fitting or (len(fitting) == 2 and max(images.shape[1:]) > 1):
        raise InputError(
            f"{source}: has shape {images.shape}, and which axis is that of the channels is not "
            f"clear ({'both may be' if fitting else 'none has length 1 or 3'}): give the shape of "
            "an image with --image_shape C,H,W, or save grey images as (N, H, W)"
        )
    return fitting[0]


def _as_pixels(source: str, images: np.ndarray) -> np.ndarray:
    """Return images as uint8, if all pixels are whole numbers from 0 to 255, else as float32."""
    if images.dtype.kind not in "biuf":
        raise InputError(f"{source}: has dtype {images.dtype}: pixels must be numbers")
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    step = max(1, BLOCK_BYTES // images[0].nbytes)
    blocks = [slice(start, start + step) for start in range(0, len(images), step)]
    as_bytes: np.ndarray = np.empty(images.shape, np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):  # from numbers that do not fit
        for block in blocks:
            as_bytes[block] = images[block].astype(np.uint8)
            if (as_bytes[block] != images[block]).any():
                break
        else:
            return as_bytes
        del as_bytes
        pixels = np.empty(images.shape, np.float32)
        for block in blocks:
            pixels[block] = images[block]
            if not np.isfinite(pixels[block]).all():
                index = np.argwhere(~np.isfinite(pixels[block]))[0]
                raise InputError(
                    f"{source}: image {block.start + index[0] + 1} has a pixel "
                    f"{images[block][tuple(index)]}: pixels must be finite numbers of float32"
                )
    return pixels


def _plain_labels(source: str, labels: np.ndarray, n_images: int) -> np.ndarray:
    """Return labels (N,) as text or as int64 numbers that are not negative."""
    if labels.ndim == 0 or len(labels) != n_images:
        count = len(labels) if labels.ndim else "one label"
        raise InputError(
            f"{source}: has {count} labels for {n_images} images: give each image one"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "biuf":
        is_one_hot = ((labels == 0) | (labels == 1)).all(axis=1) & ((labels == 1).sum(axis=1) == 1)
        if not is_one_hot.all():
            raise InputError(
                f"{source}: has shape {labels.shape}, and its row {is_one_hot.argmin() + 1} is not "
                "a single 1 and zeros: each image must be of one class"
            )
        labels = labels.argmax(axis=1)
    if labels.ndim != 1:
        raise InputError(
            f"{source}: has shape {labels.shape}: labels are (N,), or (N, K) with a single 1 in "
            "each row"
        )
    if labels.dtype.kind == "U":
        return labels
    with np.errstate(invalid="ignore"):  # from numbers that int64 does not hold
        numbers = labels.astype(np.int64)
    # 2**63 as a float becomes a negative number, and as uint64 too.
    wrong = np.flatnonzero((numbers != labels) | (numbers < 0))
    if len(wrong):
        raise InputError(
            f"{source}: image {wrong[0] + 1} has label {labels[wrong[0]]}: labels must be whole "
            "numbers from 0, or names"
        )
    return numbers
