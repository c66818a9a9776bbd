"""Measures of what a classifier gets right and wrong."""

import doctest

import numpy as np
import pytest

from training import evaluation
from training.evaluation import (
    accuracy,
    balanced_accuracy,
    calibration_error,
    class_measures,
    confusion_matrix,
    worst_mistakes,
)

LABELS, PREDICTED = np.array([0, 0, 1, 1, 1, 3]), np.array([0, 1, 1, 1, 0, 3])
MATRIX = np.array([[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])


def test_examples_of_the_documentation():
    failed, attempted = doctest.testmod(evaluation, extraglobs={"np": np})
    assert attempted
    assert not failed


def test_confusion_matrix():
    np.testing.assert_array_equal(confusion_matrix(LABELS, PREDICTED, 4), MATRIX)


def test_measures_of_classes():
    precision, recall, f1, support = class_measures(MATRIX)
    np.testing.assert_allclose(precision, [1 / 2, 2 / 3, np.nan, 1])
    np.testing.assert_allclose(recall, [1 / 2, 2 / 3, np.nan, 1])
    np.testing.assert_allclose(f1, [1 / 2, 2 / 3, np.nan, 1])
    assert support.tolist() == [2, 3, 0, 1]
    assert accuracy(MATRIX) == pytest.approx(4 / 6)
    assert balanced_accuracy(MATRIX) == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)


@pytest.mark.filterwarnings("error")
def test_measures_of_a_class_that_is_never_predicted_or_has_no_images():
    """Class 0 is never predicted, and class 1 has no images."""
    precision, recall, f1, support = class_measures(np.array([[0, 3, 1], [0, 0, 0], [0, 1, 5]]))
    np.testing.assert_allclose(precision, [np.nan, 0, 5 / 6])
    np.testing.assert_allclose(recall, [0, np.nan, 5 / 6])
    np.testing.assert_allclose(f1, [0, 0, 5 / 6])
    assert support.tolist() == [4, 0, 6]
    assert np.isnan(
        [accuracy(np.zeros((2, 2), int)), balanced_accuracy(np.zeros((2, 2), int))]
    ).all()


def test_calibration_error_agrees_with_its_definition():
    rng = np.random.default_rng(0)
    logits, labels = 3 * rng.standard_normal((500, 4)), rng.integers(0, 4, 500)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    shares[0], shares[1] = [0.6, 0.4, 0, 0], [1, 0, 0, 0]  # the upper ends of two bins
    confidence, is_correct = shares.max(axis=1), shares.argmax(axis=1) == labels
    expected, n_seen = 0.0, 0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        n_seen += inside.sum()
        if inside.any():
            distance = abs(is_correct[inside].mean() - confidence[inside].mean())
            expected += distance * inside.mean()
    assert n_seen == 500
    assert calibration_error(shares, labels) == pytest.approx(expected)


def test_calibration_error_of_perfect_and_of_no_answers():
    assert calibration_error(np.eye(3), np.arange(3)) == 0
    assert calibration_error(np.eye(3), np.array([1, 2, 0])) == 1
    assert np.isnan(calibration_error(np.empty((0, 3)), np.empty(0, int)))


def test_measures_agree_with_their_definitions():
    """Computed image by image from random labels; scikit-learn returns the same."""
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 7, 500), rng.integers(0, 7, 500)
    matrix = confusion_matrix(labels, predicted, 7)
    precision, recall, f1, support = class_measures(matrix)
    for index in range(7):
        true, positive = labels == index, predicted == index
        assert precision[index] == true[positive].mean()
        assert recall[index] == positive[true].mean()
        mean = 2 * precision[index] * recall[index] / (precision[index] + recall[index])
        assert f1[index] == pytest.approx(mean)
        assert support[index] == true.sum()
    assert balanced_accuracy(matrix) == pytest.approx(recall.mean())
    assert accuracy(matrix) == (labels == predicted).mean()


def test_worst_mistakes_are_the_most_certain_ones():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.05, 0.95]])
    labels = np.array([1, 1, 1, 0])
    assert worst_mistakes(probabilities, labels, 2).tolist() == [3, 0]
    assert worst_mistakes(probabilities, labels, 9).tolist() == [3, 0, 1]
    assert worst_mistakes(probabilities, probabilities.argmax(axis=1), 9).tolist() == []


def test_confusion_matrix_of_small_label_types():
    """The pair of a label and a prediction is a number up to classes * classes."""
    labels = np.repeat(np.arange(20), 2)
    expected = confusion_matrix(labels, labels[::-1], 20)
    for dtype in (np.uint8, np.int8):
        matrix = confusion_matrix(labels.astype(dtype), labels[::-1].astype(dtype), 20)
        np.testing.assert_array_equal(matrix, expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothing_is_removed(smoothing):
    p = np.random.default_rng(0).dirichlet(np.ones(6), 40)
    smoothed = (1 - smoothing) * p + smoothing / 6
    np.testing.assert_allclose(evaluation.remove_smoothing(smoothed, smoothing), p, atol=1e-12)


def test_more_certain_than_the_smoothing_allows():
    removed = evaluation.remove_smoothing(np.array([[0.99, 0.01, 0.0, 0.0]]), 0.1)
    np.testing.assert_array_equal(removed, [[1, 0, 0, 0]])
