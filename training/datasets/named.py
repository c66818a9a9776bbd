"""Load a data set by its name."""

import os
from pathlib import Path

from training.datasets import bundled
from training.datasets.dataset import Dataset
from training.datasets.download import FILES, MIRRORS, cache_directory, download
from training.datasets.load import load_images
from training.errors import InputError
from training.input_format import InputFormat, default_class_names

DATASET_NAMES = (*MIRRORS, "mnist-5k")
CLASS_NAMES = {
    "mnist": default_class_names(10),
    "fashion-mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
}
TRAIN_SHAPE = (60_000, 1, 28, 28)
TEST_SHAPE = (10_000, 1, 28, 28)


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
    return (
        _load_part(folder, FILES[0], TRAIN_SHAPE, CLASS_NAMES[name]),
        _load_part(folder, FILES[2], TEST_SHAPE, CLASS_NAMES[name]),
    )


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


def _load_part(
    folder: Path, name: str, shape: tuple[int, int, int, int], class_names: tuple[str, ...]
) -> Dataset:
    path = _find_file(folder, name) or folder / name
    part = load_images(path, like=InputFormat(shape[1:], class_names))
    if part.images.shape != shape:
        raise InputError(
            f"{path}: has images of N,C,H,W = {part.images.shape}, and those of the data set are "
            f"{shape}: move the file away, or load it by its path"
        )
    return part
