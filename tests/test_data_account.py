"""The account of the data that is printed before a training."""

import numpy as np
import pytest

from training.datasets import Dataset
from training.reporting.data_account import describe


def dataset(images, labels=None, class_names=("cat", "dog"), **options):
    labels = np.arange(len(images)) % 2 if labels is None else np.asarray(labels)
    return Dataset(images, labels, class_names, "pets", **options)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (10, 3, 4, 5), np.uint8)


def test_says_what_the_images_are(images):
    test = dataset(images[:0:-1] ^ 1)
    lines = describe(dataset(images, notes=("skipped: a.txt",), test=test))
    assert lines == [
        "training images: 10 of 4x5 pixels, rgb, from pets",
        "test images: 9 of 4x5 pixels, rgb, from pets",
        "classes: cat (5), dog (5)",
        f"pixels: {images.min()} to {images.max()}, mean {images.mean():.4g}, "
        f"deviation {images.std():.4g}, border not plain",
        "skipped: a.txt",
    ]


def test_names_a_class_without_images(images):
    assert "classes: cat (10), dog (no images)" in describe(dataset(images, np.zeros(10, int)))


def test_shortens_a_list_of_many_classes():
    images = np.random.default_rng(0).random((101, 1, 8, 8), np.float32)
    names = tuple(map(str, range(100)))
    lines = describe(dataset(images, np.arange(101) % 100, names))
    assert "classes: 100, of 1 (1) to 2 images (0)" in lines
    assert "training images: 101 of 8x8 pixels, grey, from pets" in lines


def test_warns_of_constant_images(images):
    images[[3, 7]] = np.array([5, 6], np.uint8).reshape(2, 1, 1, 1)
    (warning,) = (line for line in describe(dataset(images)) if line.startswith("warning"))
    assert warning == (
        "warning: 2 of the training images have pixels that are all equal, such as image 4"
    )


def test_counts_repeated_images(images):
    images[9] = images[2]
    assert "1 of the training images repeat an earlier one" in describe(dataset(images))


def test_warns_of_images_that_are_all_alike(images):
    images[:] = images[0]
    assert "warning: all training images are alike" in describe(dataset(images))


@pytest.mark.parametrize("part", ["validation", "test"])
def test_warns_of_training_images_in_another_part(images, part):
    other = dataset(np.concatenate([images[:4] ^ 1, images[2:4]]))
    lines = describe(dataset(images, **{part: other}))
    assert lines[-1] == (
        f"warning: 2 of the {part} images are also training images, such as image 5: the {part} "
        "accuracy is too high"
    )
