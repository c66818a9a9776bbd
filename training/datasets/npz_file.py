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
from typing import IO

import numpy as np

from training.datasets.cache import cached, file_state
from training.datasets.dataset import Dataset, ReadOptions
from training.datasets.gzip_file import MAX_RATIO, MIN_LIMIT_BYTES
from training.datasets.labels import encode_classes
from training.datasets.parts import read_parts
from training.datasets.resize import fit_images, fit_scale
from training.errors import InputError
from training.saving.atomic_file import reject_special_files

Keys = tuple[str, str]
# The names of the images and the labels of each part.
LAYOUTS: tuple[dict[str, Keys], ...] = (
    {
        "train": ("x_train", "y_train"),
        "validation": ("x_val", "y_val"),
        "test": ("x_test", "y_test"),
    },
    {
        "train": ("train_images", "train_labels"),
        "validation": ("val_images", "val_labels"),
        "test": ("test_images", "test_labels"),
    },
    {"train": ("images", "labels")},
    {"train": ("x", "y")},
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
    """Return whether a file is called .npz, or is a zip archive of arrays."""
    if path.suffix.lower() == ".npz":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except (OSError, *DAMAGE):
        return False


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
        The training images, with the other parts as its `validation` and `test`; only the test
        images if `options` has `like`. If the archive has only one part, that.

    Raises
    ------
    InputError
        The file is missing or damaged, or has other arrays than these.

    References
    ----------
    NumPy's documentation of ``numpy.lib.format``.
    """
    with _NpzFile(path) as file:
        state = file_state(path)
        keys = _find_parts(file)

        def read(part: str, options: ReadOptions) -> Dataset:
            identity = "npz", str(path.resolve()), part, options.for_cache
            dataset = cached(
                identity, state, lambda: fit_images(_read_part(file, keys[part], options), options)
            )
            return fit_scale(replace(dataset, source=str(path)), options)

        return read_parts(path, keys, read, options)


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
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"{path}: is no .npz file, or damaged or cut off ({reason}): copy or download it "
                "again, or save it again with numpy.savez"
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

    def _read_header(self, key: str, stream: IO[bytes]) -> tuple:
        """Return the shape, whether the first axis varies fastest, and the dtype."""
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):  # version 3 has structures with fields
            raise InputError(f"{self.path}: {key} is no array of numbers or text")
        try:
            if version == (1, 0):
                header = np.lib.format.read_array_header_1_0(stream)
            else:
                header = np.lib.format.read_array_header_2_0(stream)
        except Exception:  # NumPy parses it as Python, which raises many types
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


def _find_parts(file: _NpzFile) -> dict[str, Keys]:
    """Return the keys of each part that is there."""
    keys = set(file.keys)
    layouts = [
        layout for layout in LAYOUTS if any(keys.issuperset(pair) for pair in layout.values())
    ]
    if len(layouts) != 1:
        more = len(file.keys) - MAX_LISTED_KEYS
        found = ", ".join(file.keys[:MAX_LISTED_KEYS]) + (f" and {more} more" if more > 0 else "")
        pairs = [
            f"{images} and {labels}" for layout in LAYOUTS for images, labels in layout.values()
        ]
        raise InputError(
            f"{file.path}: has arrays called {found or 'nothing'}: name the images and the labels "
            f"by {'one' if layouts else 'any'} of these pairs: {'; '.join(pairs)}"
        )
    for images, labels in layouts[0].values():
        if (images in keys) != (labels in keys):
            there, missing = (images, labels) if images in keys else (labels, images)
            raise InputError(f"{file.path}: has an array {there} and no {missing}: save both")
    return {part: pair for part, pair in layouts[0].items() if pair[0] in keys}


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
    return tuple(array.tolist())


def _read_part(file: _NpzFile, keys: Keys, options: ReadOptions) -> Dataset:
    images_source, labels_source = (f"{file.path}, {key}" for key in keys)
    pixels, labels = (file.read(key) for key in keys)
    images = _as_pixels(images_source, _arrange(images_source, pixels, options))
    labels, class_names = encode_classes(
        labels_source,
        _flatten_labels(labels_source, labels, len(images)),
        _read_class_names(file),
        options.like and options.like.class_names,
    )
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


def _flatten_labels(source: str, labels: np.ndarray, n_images: int) -> np.ndarray:
    """Return labels (N,) from labels (N,), (N, 1), or (N, K) with a single 1 in each row."""
    if labels.ndim == 0 or len(labels) != n_images:
        raise InputError(
            f"{source}: has shape {labels.shape} for {n_images} images: give each image one label"
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
    return labels
