"""Read labeled images: from a file of the user's, or a known data set by its name."""

from training.datasets.dataset import COLORS, Dataset
from training.datasets.download import DownloadError
from training.datasets.load import load_images
from training.datasets.named import DATASET_NAMES, load_dataset
from training.datasets.predict_inputs import load_predict_inputs

__all__ = [
    "COLORS",
    "DATASET_NAMES",
    "Dataset",
    "DownloadError",
    "load_dataset",
    "load_images",
    "load_predict_inputs",
]
