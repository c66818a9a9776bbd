"""Load the 5,000 images of MNIST that come with this repository."""

import zipfile
from pathlib import Path

import numpy as np

from training.datasets.dataset import Dataset
from training.errors import InputError
from training.input_format import default_class_names

PATH = Path(__file__).resolve().parents[2] / "data" / "mnist_5k.npz"
N_TRAIN = 4000


def load_mnist_5k() -> tuple[Dataset, Dataset]:
    """Load 4,000 training and 1,000 test images, 400 and 100 of each class.

    Returns
    -------
    train, test : Dataset
        Always the same images, of 28x28 pixels.

    Raises
    ------
    InputError
        The file is missing or damaged.

    References
    ----------
    ``data/README.md`` says where the images come from.
    """
    try:
        with np.load(PATH) as arrays:
            images, labels = arrays["images"], arrays["labels"].astype(np.int64)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else "is damaged"
        raise InputError(
            f"{PATH}: {reason}: restore it with git, or make it with data/make_mnist_5k.py"
        ) from None
    class_names = default_class_names(10)
    return (
        Dataset(images[:N_TRAIN], labels[:N_TRAIN], class_names, str(PATH)),
        Dataset(images[N_TRAIN:], labels[N_TRAIN:], class_names, str(PATH)),
    )
