"""Images of any size and color are brought to those that the user asked for."""

import numpy as np
import pytest
from PIL import Image

from training import InputError
from training.datasets.dataset import Dataset, ReadOptions
from training.datasets.resize import fit_array, fit_images, fit_picture
from training.input_format import InputFormat

RNG = np.random.default_rng(0)


def dataset(images):
    return Dataset(images, np.arange(len(images)), tuple("abcdefgh")[: len(images)], "a.csv")


def fit(images, **options):
    return fit_images(dataset(images), ReadOptions(**options)).images


def test_without_options_nothing_changes():
    data = dataset(RNG.integers(0, 256, (3, 2, 5, 4), np.uint8))
    assert fit_images(data, ReadOptions()) is data
    like = InputFormat(
        (3, 9, 9), ("a", "b")
    )  # images that a model does not expect are refused later
    assert fit_images(data, ReadOptions(like=like)) is data


@pytest.mark.parametrize("rule", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("size", [(5, 4), (3, 3), (9, 2), (20, 30)])
def test_an_array_becomes_the_pixels_of_a_picture(rule, size):
    pixels = RNG.integers(0, 256, (5, 8, 3), np.uint8)
    picture = np.asarray(fit_picture(Image.fromarray(pixels), size, rule))
    array = fit_array(pixels.transpose(2, 0, 1), size, rule)
    np.testing.assert_array_equal(array, picture.transpose(2, 0, 1))
    as_float = fit_array(pixels.transpose(2, 0, 1).astype(np.float32), size, rule)
    np.testing.assert_allclose(as_float, array.astype(int), atol=1.01)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_size(dtype, channels):
    images = RNG.integers(0, 256, (4, channels, 12, 8)).astype(dtype)
    small = fit(images, image_size=(6, 4))
    assert small.shape == (4, channels, 6, 4)
    assert small.dtype == dtype
    np.testing.assert_allclose(small.mean(axis=(1, 2, 3)), images.mean(axis=(1, 2, 3)), rtol=0.1)
    np.testing.assert_array_equal(fit(images, image_size=(12, 8)), images)


def test_float_pixels_of_any_scale_are_not_rounded():
    images = RNG.uniform(-1, 1, (2, 1, 8, 8)).astype(np.float32)
    small = fit(images, image_size=(4, 4))
    assert np.abs(small).min() > 0
    assert small.min() >= -1


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_color(dtype):
    images = RNG.integers(0, 256, (4, 3, 6, 5)).astype(dtype)
    grey = fit(images, color="grey")
    assert grey.dtype == dtype
    want = np.tensordot([0.299, 0.587, 0.114], images, (0, 1))
    np.testing.assert_allclose(grey[:, 0].astype(float), want, atol=0.51)
    rgb = fit(grey, color="rgb")
    np.testing.assert_array_equal(rgb, np.repeat(grey, 3, axis=1))
    assert fit(images, color="rgb") is images
    with pytest.raises(InputError, match=r"a\.csv: its images have 2 channels.* leave --color out"):
        fit(images[:, :2], color="grey")


def test_the_rule_is_that_of_the_options_then_of_the_model():
    images = RNG.integers(0, 256, (1, 1, 12, 6), np.uint8)
    like = InputFormat((1, 6, 6), ("a", "b"), "crop")
    by_model = fit_images(dataset(images), ReadOptions(image_size=(6, 6), like=like))
    assert by_model.resize == "crop"
    np.testing.assert_array_equal(by_model.images[0], fit_array(images[0], (6, 6), "crop"))
    options = ReadOptions(image_size=(6, 6), like=like, resize="stretch")
    assert fit_images(dataset(images), options).resize == "stretch"
    assert fit_images(dataset(images), ReadOptions(resize="crop")).resize == "crop"


def test_a_crop_is_from_the_middle():
    image = np.zeros((1, 4, 9), np.uint8)
    image[..., 4] = 200
    cropped = fit_array(image, (2, 2), "crop")
    np.testing.assert_array_equal(cropped[..., 0], cropped[..., 1])
    assert cropped.min() > 20
