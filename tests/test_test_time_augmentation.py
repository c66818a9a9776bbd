"""Test-time augmentation: which views of an image count, and how much."""

import numpy as np
import pytest

from training.augmentation import make_augmenter
from training.test_time_augmentation import check_names, mean_logits, suitable


def weights_of_pixels(names, shape):
    """Return how much each pixel of an image counts in the top left pixel of the mean view."""
    pixels = np.eye(np.prod(shape)).reshape(-1, 1, *shape)  # image i is 1 at pixel i alone
    return mean_logits(lambda images: images[:, 0, 0, :1], pixels, names).reshape(shape)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("none", {(0, 0): 1}),
        ("flip", {(0, 0): 1 / 2, (0, 27): 1 / 2}),
        # Moved down and right, the border repeats: the pixel counts once more.
        ("shift", {(0, 0): 3 / 4, (1, 1): 1 / 4}),
        (
            "shift,flip",
            {(0, 0): 3 / 8, (0, 27): 1 / 4, (0, 26): 1 / 8, (1, 1): 1 / 8, (1, 27): 1 / 8},
        ),
    ],
)
def test_views_and_their_weights(names, expected):
    weights = weights_of_pixels(names, (28, 28))
    assert {tuple(index): weights[tuple(index)] for index in np.argwhere(weights)} == expected


def test_shifts_follow_the_size_of_the_image():
    assert weights_of_pixels("shift", (8, 8))[0, 0] == 1  # less than a pixel
    assert weights_of_pixels("shift", (64, 30))[2, 1] == 1 / 4
    assert weights_of_pixels("shift", (28, 8))[1, 0] == 1 / 4


@pytest.mark.parametrize(
    ("augment", "expected"),
    [
        ("none", "none"),
        ("shift", "shift"),
        ("affine", "shift"),
        ("flip", "flip"),
        ("shift,flip", "shift,flip"),
        ("photo", "shift,flip"),
        ("photo_no_flip", "shift"),
    ],
)
def test_a_model_is_shown_the_views_that_it_was_trained_on(augment, expected):
    assert suitable(make_augmenter(augment)) == expected


@pytest.mark.parametrize("names", ["", "mirror", "flip,shift", None, ["flip"]])
def test_unknown_names_are_refused(names):
    with pytest.raises(ValueError, match=r"augmentation must be one of 'none', 'flip'"):
        check_names(names)
