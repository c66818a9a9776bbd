"""Measures of what a classifier gets right and wrong."""

import numpy as np


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count the images of each class by the class that was predicted.

    Parameters
    ----------
    labels, predicted : (N,) of int
        0 to classes - 1.
    classes : int

    Returns
    -------
    (classes, classes) of int
        Row i, column j: the number of images of class i that were labeled j.
    """
    # In a small dtype, such as the labels' own uint8, the product could overflow.
    pairs = np.asarray(labels, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def class_accuracies(confusion: np.ndarray) -> np.ndarray:
    """Return the accuracy (classes,) on the images of each class; NaN where there are none."""
    with np.errstate(invalid="ignore"):
        return confusion.diagonal() / confusion.sum(axis=1)


def worst_mistakes(probabilities: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the wrongly labeled images, the most certain mistakes first.

    Parameters
    ----------
    probabilities : (N, classes)
    labels : (N,) of int
    count : int
        The number of indices to return at most.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    certainty = probabilities[wrong].max(axis=1)
    return wrong[np.argsort(-certainty, kind="stable")[:count]]
