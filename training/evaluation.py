"""What a classifier gets right and wrong."""

import numpy as np


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return how many images (classes, classes) of each class (row) were taken for which (column).

    Parameters
    ----------
    labels, predicted : (N,) of int
        0 to classes - 1.
    """
    pairs = np.asarray(labels) * classes + np.asarray(predicted)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def class_accuracies(confusion: np.ndarray) -> np.ndarray:
    """Return the share (classes,) of each class that is right; NaN where it has no images."""
    with np.errstate(invalid="ignore"):
        return confusion.diagonal() / confusion.sum(axis=1)


def worst_mistakes(probabilities: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Return where the images are that were taken for another class with the most certainty."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    certainty = probabilities[wrong].max(axis=1)
    return wrong[np.argsort(-certainty, kind="stable")[:count]]
