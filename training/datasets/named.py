"""Load a data set by its name."""

import os
from pathlib import Path

import numpy as np

from training.datasets import bundled
from training.datasets.catalog import DATASETS, NamedDataset, Part
from training.datasets.dataset import Dataset, list_names
from training.datasets.download import Archive, cache_directory, download
from training.errors import InputError

DATASET_NAMES = (*DATASETS, "mnist-5k")


def load_dataset(name: str, data_dir: str | os.PathLike | None = None) -> tuple[Dataset, Dataset]:
    """Load a data set by its name, from disk if it is there, else from the network.

    The directories searched are `data_dir`, the one that the environment variable CNN_DATA_DIR
    names, this program's folder data, and the user's cache. In each of them, the files may be in a
    folder of the data set's name, or in the folder that its archive has. All of them must be in one
    folder, each compressed (.gz) or not.

    Parameters
    ----------
    name : str
        One of `DATASET_NAMES`.
    data_dir : str or path, optional
        The directory to search first.

    Returns
    -------
    train, test : Dataset
        60,000 and 10,000 images of ``mnist``, ``fashion-mnist`` and ``kmnist``; 124,800 and 20,800
        of ``emnist-letters``; 112,800 and 18,800 of ``emnist-balanced``; 50,000 and 10,000 of
        ``cifar10``; 4,000 and 1,000 of ``mnist-5k``.

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
    dataset = DATASETS[name]
    folder = _find(name, data_dir) or download(name, dataset.checksums, dataset.sources)
    return _load_part(folder, dataset, dataset.train), _load_part(folder, dataset, dataset.test)


def _find(name: str, data_dir: str | os.PathLike | None) -> Path | None:
    directories = []
    if data_dir is not None:
        if not Path(data_dir).is_dir():
            raise InputError(f"{data_dir}: no such directory: give one that has data sets")
        directories.append(Path(data_dir))
    if os.environ.get("CNN_DATA_DIR"):
        directories.append(Path(os.environ["CNN_DATA_DIR"]).expanduser())
    directories += [bundled.PATH.parent, cache_directory()]
    dataset = DATASETS[name]
    unpacked = {source.folder for source in dataset.sources if isinstance(source, Archive)}
    for directory in directories:
        folders = [directory / name]
        # Three data sets have the same file names: files in a folder called mnist must not be
        # loaded as kmnist.
        if directory.name not in DATASETS or directory.name == name:
            folders.append(directory)
        for folder in [folder / inner for folder in folders for inner in (".", *unpacked)]:
            if all(_find_file(folder, file) for file in dataset.checksums):
                return folder
    return None


def _find_file(folder: Path, name: str) -> Path | None:
    candidates = (folder / name, folder / name.removesuffix(".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _load_part(folder: Path, dataset: NamedDataset, part: Part) -> Dataset:
    paths = [_find_file(folder, file) or folder / file for file in part.checksums]
    images, numbers = dataset.read(paths)
    names = dataset.class_names
    if images.shape != part.shape:
        raise InputError(
            f"{paths[0]}: has images of N,C,H,W = {images.shape}, and those of the data set are "
            f"{part.shape}: move the file away, or load it by its path"
        )
    labels = numbers.astype(np.int64)
    if labels.min() < 0 or labels.max() >= len(names):
        raise InputError(
            f"{paths[-1]}: has a label of none of the {len(names)} classes ({list_names(names)}): "
            "move the file away, or load it by its path"
        )
    return Dataset(images, labels, names, str(paths[0]))
