"""Load images by the path of a file, or by the name of a data set."""

import os
from pathlib import Path

from training.datasets import bundled
from training.datasets.csv_file import read_csv
from training.datasets.dataset import Dataset
from training.datasets.download import FILES, MIRRORS, cache_directory, download
from training.datasets.gzip_file import open_maybe_gzip
from training.datasets.idx_file import read_idx
from training.errors import InputError

DATASET_NAMES = (*MIRRORS, "mnist-5k")
TRAIN_SHAPE = (60_000, 1, 28, 28)
TEST_SHAPE = (10_000, 1, 28, 28)


def load_file(
    path: str | os.PathLike,
    image_shape: tuple[int, int, int] | None = None,
    n_classes: int | None = None,
    model_shape: tuple[int, int, int] | None = None,
) -> Dataset:
    """Load images from a CSV or IDX file. Its content decides the format, not its name.

    Parameters
    ----------
    path : str or path
        A CSV file, or the images of a pair of IDX files; gzip-compressed or not.
    image_shape : (C, H, W), optional
        Shape of an image of a CSV file. By default, images are square and have one channel.
    n_classes : int, optional
        Number of classes if it is known, as for a test file. Otherwise the labels must be 0 to K-1,
        and each of them must occur.
    model_shape : (C, H, W), optional
        Shape that a model expects. Images of a CSV file that have as many pixels get this shape,
        unless `image_shape` is given.

    Returns
    -------
    Dataset

    Raises
    ------
    InputError
        The file is missing or wrong. The message names the file and the line.
    """
    path = Path(path)
    with open_maybe_gzip(path) as stream:
        start = stream.read(2)
    if start == b"\0\0":
        return read_idx(path, image_shape, n_classes)
    return read_csv(path, image_shape, n_classes, model_shape)


def load_dataset(name: str, data_dir: str | os.PathLike | None = None) -> tuple[Dataset, Dataset]:
    """Load a data set by its name, from disk if it is there, else from the network.

    The directories searched are `data_dir`, the one that the environment variable CNN_DATA_DIR
    names, this program's folder data, and the user's cache. In each of them, the files may be in a
    folder of the data set's name. All four must be in one folder, each compressed (.gz) or not.

    Parameters
    ----------
    name : str
        One of `DATASET_NAMES`.
    data_dir : str or path, optional
        The directory to search first.

    Returns
    -------
    train, test : Dataset
        60,000 and 10,000 images; 4,000 and 1,000 for ``mnist-5k``.

    Raises
    ------
    InputError
        The name is unknown, `data_dir` is not a directory, or a file is wrong.
    DownloadError
        The data set is not on disk and cannot be downloaded.
    """
    if name not in DATASET_NAMES:
        raise InputError(f"no data set is called {name!r}: choose {', '.join(DATASET_NAMES)}")
    if name == "mnist-5k":
        return bundled.load_mnist_5k()
    folder = _find(name, data_dir) or download(name)
    return _load_part(folder, FILES[0], TRAIN_SHAPE), _load_part(folder, FILES[2], TEST_SHAPE)


def _find(name: str, data_dir: str | os.PathLike | None) -> Path | None:
    directories = []
    if data_dir is not None:
        if not Path(data_dir).is_dir():
            raise InputError(f"{data_dir}: no such directory: give one that has data sets")
        directories.append(Path(data_dir))
    if os.environ.get("CNN_DATA_DIR"):
        directories.append(Path(os.environ["CNN_DATA_DIR"]).expanduser())
    directories += [bundled.PATH.parent, cache_directory()]
    for directory in directories:
        folders = [directory / name]
        # The three data sets have the same file names: files in a folder called mnist must not be
        # loaded as kmnist.
        if directory.name not in MIRRORS or directory.name == name:
            folders.append(directory)
        for folder in folders:
            if all(_find_file(folder, file) for file in FILES):
                return folder
    return None


def _find_file(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / name.removesuffix(".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _load_part(folder: Path, name: str, shape: tuple[int, ...]) -> Dataset:
    path = _find_file(folder, name) or folder / name
    part = load_file(path, n_classes=10)
    if part.images.shape != shape:
        raise InputError(
            f"{path}: has images of N,C,H,W = {part.images.shape}, and those of the data set are "
            f"{shape}: move the file away, or load it by its path"
        )
    return part
