"""Read the binary files of CIFAR-10: for each image its label, then its pixels, a byte each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.datasets.gzip_file import open_maybe_gzip
from training.errors import InputError

SHAPE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32


def read_cifar_arrays(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Read the images and labels of binary files, one file after the other.

    Parameters
    ----------
    paths : sequence of Path
        Files such as ``data_batch_1.bin``.

    Returns
    -------
    images : ndarray of uint8, shape (N, 3, 32, 32)
    labels : ndarray of uint8, shape (N,)

    Raises
    ------
    InputError
        A file is missing or has another length than whole records.

    References
    ----------
    Krizhevsky, "Learning multiple layers of features from tiny images", 2009; the page of the data
    set describes the format.
    """
    parts = [_read_records(path) for path in paths]
    images = np.concatenate([part[:, 1:] for part in parts])
    return images.reshape(-1, *SHAPE), np.concatenate([part[:, 0] for part in parts])


def _read_records(path: Path) -> np.ndarray:
    with open_maybe_gzip(path) as stream:
        data = stream.read()
    if not data or len(data) % RECORD_BYTES:
        raise InputError(
            f"{path}: has {len(data)} bytes, and the binary files of CIFAR-10 have {RECORD_BYTES} "
            "for each image: copy or download the file again"
        )
    return np.frombuffer(data, np.uint8).reshape(-1, RECORD_BYTES)
