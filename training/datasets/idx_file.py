"""Read IDX, the format of the MNIST files: a magic number, the dimensions, then bytes."""

import math
import re
from pathlib import Path

import numpy as np

from training.datasets.dataset import Dataset, ReadOptions, encode_numbers
from training.datasets.gzip_file import open_maybe_gzip
from training.errors import InputError

LABELS_MAGIC = 0x801
IMAGES_MAGICS = (0x803, 0x804)
BLOCK_BYTES = 1 << 20


def read_idx(path: Path, options: ReadOptions) -> Dataset:
    """Read an IDX file of images, and the labels from the IDX file beside it.

    Parameters
    ----------
    path : Path
        The images: unsigned bytes in three (N, H, W) or four (N, C, H, W) dimensions, gzip-
        compressed or not. The two files have the same name, but for ``images-idx3`` in this one
        and ``labels-idx1`` in that of the labels.
    options : ReadOptions
        Its `image_shape` is the only shape of an image that is accepted.

    Raises
    ------
    InputError
        A file is missing, is not IDX, or has another length than its header says; or the numbers of
        images and labels differ.

    References
    ----------
    LeCun, Cortes and Burges, "The MNIST database of handwritten digits", whose end describes the
    format.
    """
    labels_path = _labels_path(path)
    images, numbers = read_idx_arrays(path, labels_path)
    image_shape, like = options.image_shape, options.like
    if image_shape is not None and images.shape[1:] != tuple(image_shape):
        raise InputError(
            f"{path}: holds images of C,H,W = {_join(images.shape[1:], ',')}, and "
            f"--image_shape is {_join(image_shape, ',')}: an IDX file needs no --image_shape"
        )
    labels, class_names = encode_numbers(str(labels_path), numbers, like and like.class_names)
    return Dataset(images, labels, class_names, str(path))


def read_idx_arrays(path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (N, C, H, W) and the labels (N,) of a pair of IDX files, both uint8.

    Raises
    ------
    InputError
        As `read_idx`, but for the meaning of the labels.
    """
    images = _read_bytes(path, IMAGES_MAGICS, "images")
    if images.ndim == 3:
        images = images[:, np.newaxis]
    numbers = _read_bytes(labels_path, (LABELS_MAGIC,), "labels")
    if len(numbers) != len(images):
        raise InputError(
            f"{labels_path}: holds {len(numbers)} labels for the {len(images)} images of {path}: "
            "the two files must come from the same data set"
        )
    return images, numbers


def _labels_path(path: Path) -> Path:
    name, replaced = re.subn(r"images([-.])idx[34]", r"labels\1idx1", path.name)
    if not replaced:
        raise InputError(
            f"{path}: the file of the labels is found by its name beside that of the images: "
            "name the two files NAME-images-idx3-ubyte and NAME-labels-idx1-ubyte"
        )
    expected = path.with_name(name)
    other = path.with_name(name.removesuffix(".gz") if name.endswith(".gz") else name + ".gz")
    for candidate in (expected, other):
        if candidate.is_file():
            return candidate
    raise InputError(f"{expected}: no such file: put the labels of {path.name} there")


def _read_bytes(path: Path, magics: tuple[int, ...], content: str) -> np.ndarray:
    with open_maybe_gzip(path) as stream:
        magic = int.from_bytes(stream.read(4), "big")
        if magic not in magics:
            raise InputError(
                f"{path}: starts with 0x{magic:08x} and is not an IDX file of {content}: "
                f"IDX files of bytes start with {' or '.join(f'0x{m:08x}' for m in magics)}"
            )
        n_dimensions = magic & 0xFF
        header = stream.read(4 * n_dimensions)
        if len(header) < 4 * n_dimensions:
            raise InputError(f"{path}: ends within its header: copy or download the file again")
        shape = tuple(np.frombuffer(header, ">u4").tolist())
        size = math.prod(shape)
        # The header may claim any number of bytes, so that memory is allocated as they are read.
        data = bytearray()
        while len(data) <= size and (block := stream.read(BLOCK_BYTES)):
            data += block
    if len(data) != size:
        holds = f"only {len(data)}" if len(data) < size else "more"
        raise InputError(
            f"{path}: its header says {_join(shape, ' x ')} = {size} bytes, and it holds {holds}: "
            "copy or download the file again"
        )
    if size == 0:
        raise InputError(f"{path}: holds no {content}: its header says {_join(shape, ' x ')}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _join(numbers: tuple[int, ...], separator: str) -> str:
    return separator.join(map(str, numbers))
