"""What is known of the ink in training images, and which images look like them."""

import numpy as np
import pytest
from scipy import ndimage

from training.datasets import load_dataset
from training.input_stats import Spread
from training.preprocessing.ink_stats import looks_like, measure_ink
from training.preprocessing.strokes import stroke_width


@pytest.fixture(scope="module")
def digits():
    """Return images (N, 1, 28, 28) of MNIST's training set, uint8."""
    return load_dataset("mnist-5k")[0].images[::8]


@pytest.fixture(scope="module")
def ink(digits):
    return measure_ink(digits)


def bars(n=40, H=20, W=30, width=3):
    """Return images of a bar each, whose length and place differ."""
    images = np.zeros((n, 1, H, W), np.float32)
    for index, image in enumerate(images[:, 0]):
        image[4 : 14 + index % 3, 10 : 10 + width] = 200
    return images


def test_measures_of_bars():
    images = bars()
    ink = measure_ink(images)
    assert (ink.background, ink.ink) == (0, 200)
    assert ink.side == (10, 11, 12)
    assert ink.row == (pytest.approx(8.5 - 9.5), pytest.approx(9 - 9.5), pytest.approx(9.5 - 9.5))
    assert ink.column == (pytest.approx(11 - 14.5),) * 3
    assert ink.contrast == (1, 1, 1)
    assert ink.plain[1] == pytest.approx(1 - 33 / 600)
    assert 2.2 < ink.stroke_width.median < 2.5  # 3, less the ends of a short bar


def test_polarity_and_scale_change_nothing_else(digits, ink):
    for images in (255 - digits, digits / 255, 1 - digits / 127.5, digits.astype(np.int64) * 257):
        other = measure_ink(images)
        np.testing.assert_allclose(other[2:], ink[2:], atol=1e-4)
        assert {other.background, other.ink} == {images.min(), images.max()}
        assert looks_like(images[0, 0], other)


def test_to_strength(ink):
    image = np.array([[-5, 0, 51, 255, 300]])
    np.testing.assert_allclose(ink.to_strength(image), [[0, 0, 0.2, 1, 1]], atol=1e-6)


def test_width_of_strokes():
    images = np.zeros((3, 90, 90))
    images[0, :, 40:42] = 1
    images[1, 30:50] = 0.5
    rows, columns = np.mgrid[:90, :90]
    images[2] = np.clip(5.5 - np.abs(np.hypot(rows - 44, columns - 44) - 30), 0, 1)
    np.testing.assert_allclose(stroke_width(images), [1.96, 16.4, 9.6], rtol=0.04)
    assert stroke_width(images[2]) == stroke_width(images)[2]
    assert stroke_width(images[0] * 0) == 0


def test_images_that_are_no_ink(digits):
    rng = np.random.default_rng(0)
    photographs = ndimage.gaussian_filter(rng.standard_normal((99, 1, 28, 28)), (0, 0, 2, 2))
    shirts = np.zeros((90, 1, 28, 28))
    for index, shirt in enumerate(shirts[:, 0]):
        shirt[3:25, 14 - 5 - index % 4 : 14 + 5 + index % 4] = 180
        shirt[4:9, 2:26] = 180 + 3 * np.arange(24) % 50  # with a pattern
    assert measure_ink(photographs) is None
    assert measure_ink(shirts) is None
    assert measure_ink(np.repeat(digits, 3, axis=1)) is None  # three channels
    assert measure_ink(np.zeros_like(digits)) is None
    assert measure_ink(np.full((2, 1, 1, 1), 9)) is None
    framed = digits.copy()
    framed[::10, :, [0, -1]] = framed[::10, :, :, [0, -1]] = 255
    assert measure_ink(framed) is None  # a tenth of them


def test_a_few_blank_images_are_left_out(digits, ink):
    some_blank = digits.copy()
    some_blank[::25] = 0
    np.testing.assert_allclose(measure_ink(some_blank)[2:], ink[2:], atol=0.2)
    some_blank[::10] = 0
    assert measure_ink(some_blank) is None


def test_strokes_may_touch_the_border():
    """As in scikit-learn's digits, which fill their 8 rows."""
    images = np.zeros((50, 1, 8, 8), np.uint8)
    images[:, 0, :, 3] = 16
    images[::2, 0, 0, 2:6] = images[1::2, 0, 7, 2:6] = 12
    ink = measure_ink(images)
    assert ink.side == (8, 8, 8)
    assert all(looks_like(image, ink) for image in images[:2, 0])


def test_training_images_look_like_themselves(digits, ink):
    other_digits = load_dataset("mnist-5k")[1].images[:300]
    assert all(looks_like(image, ink) for image in [*digits[:200, 0], *other_digits[:, 0]])


CHANGES = {
    "off center": lambda image: np.roll(image, 3, axis=1),
    "too low": lambda image: np.roll(image, 3, axis=0),
    "larger": lambda image: ndimage.zoom(image, 1.3, order=1)[4:32, 4:32],
    "smaller": lambda image: np.pad(ndimage.zoom(image, 0.7, order=1), 4),
    "inverted": lambda image: 255 - image,
    "grey ground": lambda image: 40 + image * 0.8,
    "faint ground": lambda image: 20 + image * 0.9,
    "noise": lambda image: image + np.random.default_rng(0).normal(0, 25, image.shape),
    "pencil": lambda image: image * 0.5,
    "blank": lambda image: image * 0,
    "all ink": lambda image: image * 0 + 255,
    "bold": lambda image: ndimage.grey_dilation(image, 7),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_images_do_not_look_like_them(digits, ink, change):
    alike = [looks_like(CHANGES[change](image.astype(float)), ink) for image in digits[:50, 0]]
    assert sum(alike) <= 1


def test_hairlines_do_not_look_like_strokes(ink):
    image = np.zeros((28, 28))
    image[4:24, 14] = image[4, 9:20] = image[23, 9:20] = 255
    thick = np.maximum(image, np.roll(image, 1, axis=1))
    thick[5, 8:20] = thick[22, 8:20] = 255
    assert not looks_like(image, ink)
    assert looks_like(thick, ink)


def test_spread_is_of_percentiles():
    assert Spread.of(np.arange(101)) == (1, 50, 99)
    assert Spread.of(np.array([True])) == (1, 1, 1)
