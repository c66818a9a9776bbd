"""The scale of the pixels in files of arrays, found by their statistics or set by hand."""

import numpy as np
import pytest
from scipy import ndimage

from training import InputError
from training.datasets import load_dataset
from training.input_stats import InputStats
from training.preprocessing.pixel_scale import check_scale, match_scale

DIGITS = load_dataset("mnist-5k")
TRAIN, TEST = DIGITS[0].images[::8], DIGITS[1].images[:100]


def photographs(n, seed=0):
    """Return smooth random images (n, 3, 16, 16), uint8, most of them with black and white."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal((n, 3, 16, 16)), (0, 0, 2, 2))
    noise /= noise.std(axis=(1, 2, 3), keepdims=True)
    contrast, level = rng.uniform(40, 90, (n, 1, 1, 1)), rng.uniform(90, 170, (n, 1, 1, 1))
    return np.clip(level + contrast * noise, 0, 255).astype(np.uint8)


# Of images from 0 to 255, and the scale that is named by hand for them.
SCALES = {
    "0 to 255": (lambda x: x, "0,255"),
    "0 to 1": (lambda x: x / 255, "0,1"),
    "-1 to 1": (lambda x: x / 127.5 - 1, "-1,1"),
    "two-valued": (lambda x: (x > 127).astype(np.uint8), "0,1"),
    "two-valued, -1 and 1": (lambda x: (x > 127) * 2.0 - 1, "-1,1"),
    "0 to 16": (lambda x: np.rint(x / 255 * 16).astype(np.uint8), "0,16"),
    "16 bits": (lambda x: np.float32(x) * 257, "0,65535"),
    "12 bits": (lambda x: np.float32(np.rint(x / 255 * 4095)), "0,4095"),
    "standardized": (lambda x: (x / 255 - 0.1307) / 0.3081, "-0.424213,2.82149"),
    "inverted": (lambda x: 255 - x, "255,0"),
    "inverted, 0 to 1": (lambda x: 1 - x / 255, "1,0"),
    "inverted, -1 to 1": (lambda x: 1 - x / 127.5, "1,-1"),
}
TRAINING = ["0 to 255", "0 to 1", "-1 to 1", "0 to 16", "16 bits", "standardized", "inverted"]


@pytest.mark.parametrize("n", [100, 1])
@pytest.mark.parametrize("of_training", TRAINING)
@pytest.mark.parametrize("of_file", SCALES)
def test_digits_on_every_scale(of_file, of_training, n):
    to_file, name = SCALES[of_file]
    to_training, training_name = SCALES[of_training]
    stats = InputStats.of(to_training(TRAIN))
    images = to_file(TEST[:n])
    if name == training_name:  # two-valued digits of 0 and 1 are on the scale from 0 to 1
        scaled, notes = match_scale(images, stats, name="a.csv")
        assert scaled is images
        assert notes == ()
        return
    narrow = {"standardized": ("0 to 16",), "12 bits": ("16 bits",)}
    if n == 1 and of_training in narrow.get(of_file, ()):
        return  # one image within the training range: it may just be faint
    scaled, (note,) = match_scale(images, stats, name="a.csv")
    low, high = stats.low, stats.high
    if training_name == "255,0":
        name = ",".join(name.split(",")[::-1])
    found = [float(number) for number in note.split("--scale ")[1].split(";")[0].split(",")]
    # The range of the file itself is nearly that of its scale.
    np.testing.assert_allclose(found, [float(number) for number in name.split(",")], rtol=0.01)
    is_exact = "two" not in of_file and "16" not in (of_file[-2:], of_training[-2:])
    error = 0.01 if is_exact else 0.04 if "two" not in of_file else 0.55
    expected = to_training(TEST[:n]).astype(float)
    np.testing.assert_allclose(scaled, expected, atol=error * (high - low))


def test_scaled_pictures_are_the_same_to_the_bit():
    stats = InputStats.of(TRAIN)
    for of_file in ("0 to 1", "-1 to 1", "16 bits", "inverted", "inverted, 0 to 1"):
        for dtype in (np.float32, np.float64):
            images = SCALES[of_file][0](TEST).astype(dtype)
            scaled, notes = match_scale(images, stats)
            assert scaled.dtype == np.uint8
            np.testing.assert_array_equal(scaled, TEST)
            assert len(notes) == 1


def test_pixels_outside_of_those_of_pictures_stay_so():
    images = TEST / 255
    images[0, 0, 0, 0] = -5 / 255
    scaled, _ = match_scale(images, InputStats.of(TRAIN))
    assert scaled[0, 0, 0, 0] == pytest.approx(-5)
    np.testing.assert_allclose(scaled[1:], TEST[1:], atol=1e-4)


def test_the_note_names_the_file_and_the_way_back():
    _, notes = match_scale(TEST / 255, InputStats.of(TRAIN), name="mine.csv")
    assert notes == (
        "mine.csv: its pixels are from 0 to 1, those of the training images from 0 to 255: they "
        "are scaled as by --scale 0,1; --scale none leaves them as they are",
    )


def test_a_scale_given_by_hand():
    stats = InputStats.of(TRAIN)
    images = np.array([[[[0, 50, 100]]]])
    scaled, notes = match_scale(images, stats, (0, 100))
    np.testing.assert_array_equal(scaled, [[[[0, 127.5, 255]]]])
    assert scaled.dtype == np.float32
    assert notes == ()
    scaled, _ = match_scale(images, stats, (100, 0))
    np.testing.assert_array_equal(scaled, [[[[255, 127.5, 0]]]])
    scaled, _ = match_scale(images, InputStats(-1, 1, 0), (0, 100))
    np.testing.assert_array_equal(scaled, [[[[-1, 0, 1]]]])
    for wrong_scale in (TEST / 255, TEST * 1e9):
        scaled, notes = match_scale(wrong_scale, stats, "none")
        assert scaled is wrong_scale
        assert notes == ()


@pytest.mark.parametrize(
    "scale", [1, "0,1", (1,), (1, 1), (0, np.nan), (0, "1"), "auto", (0, 1, 2)]
)
def test_rejects_other_scales(scale):
    with pytest.raises(InputError, match="scale must be two different numbers"):
        check_scale(scale)


@pytest.mark.parametrize(
    "images",
    [
        TEST[:1] * 0,  # blank
        TEST[:1] * 0 + np.uint8(255),  # all ink
        TEST[:1] // 2,  # faint
        TEST[:1] // 4,
        np.clip(TEST.astype(int) + 40, 0, 255),
        TEST + np.random.default_rng(0).normal(0, 15, TEST.shape),  # some pixels are outside
        ndimage.grey_dilation(TEST, (1, 1, 5, 5)),  # thick
        ndimage.grey_dilation(TEST, (1, 1, 9, 9))[:1],
        np.random.default_rng(0).integers(0, 256, (50, 1, 28, 28)),
        photographs(40)[:, :1],
        (TEST > 127) * np.uint8(255),
    ],
)
def test_images_that_are_only_unusual_stay_as_they_are(images):
    scaled, _ = match_scale(images, InputStats.of(TRAIN))
    assert scaled is images


def test_a_file_of_low_contrast_is_scaled_by_its_own_range():
    """Where all training images are from black to white."""
    stats = InputStats.of(TRAIN)
    scaled, (note,) = match_scale(TEST // 3 + 60, stats)
    assert "--scale 60,145;" in note
    np.testing.assert_allclose(scaled, TEST, atol=3)
    one = TEST[:1] // 3 + 60
    assert match_scale(one, stats)[0] is one


def test_very_faint_images_are_reported():
    images = TEST[:1] // 5
    scaled, notes = match_scale(images, InputStats.of(TRAIN), name="a.csv")
    assert scaled is images
    assert notes == (
        "a.csv: its pixels are from 0 to 51, those of the training images from 0 to 255: they are "
        "used as they are; if they are on another scale, name it with --scale",
    )


@pytest.mark.parametrize("n", [100, 1])
def test_photographs(n):
    stats, images = InputStats.of(photographs(500)), photographs(n, seed=1)
    scaled, notes = match_scale(images, stats)
    assert scaled is images
    assert notes == ()
    for to_file in (lambda x: x / 255, lambda x: x / 127.5 - 1, lambda x: x * 257.0):
        scaled, notes = match_scale(to_file(images), stats)
        np.testing.assert_array_equal(scaled, images)
        assert len(notes) == 1
    inverted = 255 - images  # nobody can tell
    assert match_scale(inverted, stats)[0] is inverted


def test_light_photographs_are_not_taken_for_inverted_dark_ones():
    dark = np.float32(photographs(500)) ** 2 / 255
    images = 1 - photographs(1, seed=1) ** 2.0 / 255**2
    scaled, (note,) = match_scale(images, InputStats.of(dark))
    assert scaled is images
    assert "used as they are" in note


def test_dark_photographs_stay_dark():
    stats = InputStats.of(photographs(500))
    images = photographs(40, seed=1) // 4
    scaled, notes = match_scale(images, stats)
    assert scaled is images
    assert len(notes) == 1
    assert match_scale(images[:1] // 4, stats)[0].max() < 16
    # 40 images of 0 to 16 are not all dark by chance.
    assert match_scale(photographs(40, seed=1) // 16, stats)[1][0].endswith(
        "scaled as by --scale 0,16; --scale none leaves them as they are"
    )


def test_an_unclear_scale_is_rejected_with_the_remedy():
    stats = InputStats.of(photographs(500) / 255)
    standardized = (photographs(1, seed=1) / 255 - 0.45) / 0.22
    with pytest.raises(InputError) as error:
        match_scale(standardized, stats, name="a.npz")
    low, high = standardized.min(), standardized.max()
    assert str(error.value) == (
        f"a.npz: its pixels are from {low:.4g} to {high:.4g}, those of the training images from 0 "
        f"to 1: say which pixels stand for these with --scale, such as --scale {low:.6g},"
        f"{high:.6g}, or leave them as they are with --scale none"
    )
    with pytest.raises(InputError, match="such as --scale 0,255, or"):
        match_scale(photographs(1, seed=1) // 3, stats)
    with pytest.raises(InputError, match="from 255 to 255"):
        match_scale(np.full((1, 3, 16, 16), 255), stats)


def test_models_of_earlier_versions():
    """They know the range and the border of their training images."""
    stats = InputStats(*InputStats.of(TRAIN)[:3])
    for of_file in SCALES:
        if of_file in ("0 to 16", "standardized"):
            continue  # they need statistics
        images = SCALES[of_file][0](TEST)
        scaled, _ = match_scale(images, stats)
        np.testing.assert_allclose(scaled, TEST, atol=5 if "two" not in of_file else 130)
    for images in (TEST, TEST[:1], photographs(40)):
        assert match_scale(images, stats)[0] is images


def test_nothing_is_scaled_to_training_images_that_were_not_measured():
    images = TEST / 255
    assert match_scale(images, InputStats())[0] is images
    stats = InputStats.of(np.full((3, 1, 2, 2), 7))  # without a range
    assert match_scale(images, stats, (0, 1))[0] is images


def test_training_images_are_on_their_own_scale():
    rng = np.random.default_rng(0)
    for images in (
        TRAIN,
        photographs(60),
        rng.normal(size=(50, 2, 5, 5)),
        rng.random((3, 1, 2, 2)) ** 9,
        np.concatenate([np.zeros((90, 1, 4, 4)), rng.random((10, 1, 4, 4))]),
        np.eye(16).reshape(16, 1, 4, 4),
    ):
        for training in (images, images[::2], -images.astype(float)):
            assert match_scale(training, InputStats.of(training))[0] is training
