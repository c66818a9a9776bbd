"""Measures of what a classifier gets right and wrong."""

from typing import NamedTuple

import numpy as np

CALIBRATION_BINS = 15


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


class ClassMeasures(NamedTuple):
    """Measures of each class, arrays (classes,). A share of no images is NaN.

    Attributes
    ----------
    precision : ndarray of float
        Share of the images labeled as the class that are of the class.
    recall : ndarray of float
        Share of the images of the class that are labeled so: the accuracy on them.
    f1 : ndarray of float
        Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN).
    support : ndarray of int
        Number of images of the class.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray


def class_measures(confusion: np.ndarray) -> ClassMeasures:
    """Return precision, recall, F1 and support of each class from a confusion matrix.

    References
    ----------
    van Rijsbergen: Information retrieval (1979), chapter 7.

    Examples
    --------
    >>> class_measures(np.array([[3, 1], [0, 4]])).precision
    array([1. , 0.8])
    """
    true_positive = confusion.diagonal()
    predicted, support = confusion.sum(axis=0), confusion.sum(axis=1)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        return ClassMeasures(
            true_positive / predicted,
            true_positive / support,
            2 * true_positive / (predicted + support),
            support,
        )


def accuracy(confusion: np.ndarray) -> float:
    """Return the share of images that are labeled correctly; NaN if there are none."""
    n_images = confusion.sum()
    return float(confusion.trace() / n_images) if n_images else float("nan")


def balanced_accuracy(confusion: np.ndarray) -> float:
    """Return the mean recall of the classes that have images; NaN if there are none.

    References
    ----------
    Brodersen et al.: The balanced accuracy and its posterior distribution (2010).

    Examples
    --------
    >>> balanced_accuracy(np.array([[3, 1], [0, 4]]))
    0.875
    """
    measures = class_measures(confusion)
    has_images = measures.support > 0
    return float(measures.recall[has_images].mean()) if has_images.any() else float("nan")


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error; NaN if there are no images.

    A model is calibrated where of its answers with a probability of 0.9, say, nine in ten are
    right. The answers are sorted into 15 bins of equal width by the probability of the predicted
    class. The error is the mean distance of a bin's accuracy from its mean probability, weighted
    by the bin's number of images.

    Parameters
    ----------
    probabilities : (N, classes)
    labels : (N,) of int

    References
    ----------
    Guo, Pleiss, Sun, Weinberger: On calibration of modern neural networks (2017), equation 3.

    Examples
    --------
    >>> round(calibration_error(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1])), 6)
    0.4
    """
    if len(labels) == 0:
        return float("nan")
    confidence = probabilities.max(axis=1).astype(np.float64)
    is_correct = probabilities.argmax(axis=1) == labels
    # A bin includes its upper end, as in the reference.
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS) - 1, 0, CALIBRATION_BINS - 1)
    excess = np.bincount(bins.astype(np.int64), confidence - is_correct)
    return float(np.abs(excess).sum() / len(labels))


def remove_smoothing(probabilities: np.ndarray, smoothing: float) -> np.ndarray:
    """Return the probabilities of classes, from those of a model trained with label smoothing.

    The loss is lowest where the model's output is q = (1 - s) p + s / K, for probabilities p of K
    classes and a smoothing s. This is solved for p; what is negative then becomes 0.

    Parameters
    ----------
    probabilities : (N, K)
    smoothing : float
        0 <= smoothing < 1.

    References
    ----------
    Szegedy et al.: Rethinking the Inception architecture for computer vision (2016), on smoothing.

    Examples
    --------
    >>> remove_smoothing(np.array([[0.92, 0.03, 0.05, 0.0]]), 0.1).round(3)
    array([[0.968, 0.005, 0.027, 0.   ]])
    """
    K = probabilities.shape[1]
    removed = np.maximum(probabilities - smoothing / K, 0)
    return removed / removed.sum(axis=1, keepdims=True)


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
