"""Weights of classes and images in the training loss."""

import doctest

import numpy as np
import pytest

from training import class_weights
from training.class_weights import balanced_weights, image_weights, scale_to_mean_1

LABELS = np.array([0, 0, 0, 2, 2, 0])


def test_examples_of_the_documentation():
    failed, attempted = doctest.testmod(class_weights)
    assert attempted
    assert not failed


def test_balanced_classes_have_the_same_total():
    weights = balanced_weights(LABELS, 3)
    np.testing.assert_allclose(weights, [6 / (2 * 4), 1, 6 / (2 * 2)])
    totals = np.bincount(LABELS, weights[LABELS], 3)
    np.testing.assert_allclose(totals, [3, 0, 3])


@pytest.mark.parametrize(
    ("class_weight", "sample_weight", "expected"),
    [
        (None, None, None),
        (None, np.arange(6), [0, 1, 2, 3, 4, 5]),
        ({2: 5}, None, [1, 1, 1, 5, 5, 1]),
        ({np.int64(0): np.float32(0.5), 1: 0}, None, [0.5, 0.5, 0.5, 1, 1, 0.5]),
        ([2, 9, 0], None, [2, 2, 2, 0, 0, 2]),
        (np.array([2.0, 9.0, 1.0]), np.arange(6), [0, 2, 4, 3, 4, 10]),
        (None, LABELS == 0, [1, 1, 1, 0, 0, 1]),
        ("balanced", None, [0.75, 0.75, 0.75, 1.5, 1.5, 0.75]),
    ],
)
def test_weight_of_an_image_is_that_of_its_class_times_its_own(
    class_weight, sample_weight, expected
):
    weights = image_weights(LABELS, 3, class_weight, sample_weight)
    if expected is None:
        assert weights is None
    else:
        np.testing.assert_allclose(weights, expected)
        assert weights.dtype == np.float64


@pytest.mark.parametrize(
    ("class_weight", "sample_weight", "error", "message"),
    [
        ("equal", None, ValueError, "\"balanced\", or a number for each class, got 'equal'"),
        (3, None, TypeError, "number for each class, got 3"),
        ({3: 1}, None, ValueError, "class_weight has 3: the classes are 0 to 2"),
        ({"0": 1}, None, ValueError, "class_weight has '0': the classes are 0 to 2"),
        ({0: -1}, None, ValueError, "class_weight must be at least 0"),
        ([1, np.inf, 1], None, ValueError, "class_weight must be at least 0"),
        ([1, "1", 1], None, TypeError, "class_weight must be a number"),
        ([1, 1], None, ValueError, "class_weight has 2 numbers for 3 classes"),
        ({0: 0, 2: 0}, None, ValueError, "the weights of all images are 0"),
        ([1, 0, 0], LABELS == 2, ValueError, "the weights of all images are 0"),
        (None, np.zeros(6), ValueError, "the weights of all images are 0"),
        (None, np.ones(5), ValueError, r"sample_weight must have shape \(6,\)"),
        (None, -np.ones(6), ValueError, "sample_weight must be finite and at least 0"),
    ],
)
def test_rejects_wrong_weights(class_weight, sample_weight, error, message):
    with pytest.raises(error, match=message):
        image_weights(LABELS, 3, class_weight, sample_weight)


@pytest.mark.parametrize("weights", [[1.0, 3.0], [1e308, 1.7e308], [5e-324, 0.0]])
def test_scaled_weights_have_mean_1(weights):
    scaled = scale_to_mean_1(np.array(weights))
    assert scaled.mean() == pytest.approx(1)
    assert scaled[0] / scaled[1] == pytest.approx(weights[0] / weights[1]) if weights[1] else True
