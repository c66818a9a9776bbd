"""Measures of what a classifier gets right and wrong."""

import numpy as np

from training.evaluation import class_accuracies, confusion_matrix, worst_mistakes


def test_confusion_matrix_and_class_accuracies():
    labels, predicted = np.array([0, 0, 1, 1, 1, 3]), np.array([0, 1, 1, 1, 0, 3])
    matrix = confusion_matrix(labels, predicted, 4)
    expected = np.array([[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    np.testing.assert_array_equal(matrix, expected)
    np.testing.assert_allclose(class_accuracies(matrix), [0.5, 2 / 3, np.nan, 1])


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
