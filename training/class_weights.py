"""Weights of images in the loss, from weights of their classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kernels.scalars import check_number
from kernels.validation import check_weights

ClassWeight = str | Mapping[int, float] | Sequence[float] | np.ndarray


def balanced_weights(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the weight (n_classes,) of each class that gives all of them the same total weight.

    The weight of a class with n of N images, where K classes have images, is N / (K * n). A class
    without images has weight 1.

    References
    ----------
    King, Zeng: Logistic regression in rare events data (2001), section 4.2.

    Examples
    --------
    >>> balanced_weights(np.array([0, 0, 0, 1]), n_classes=2)
    array([0.66666667, 2.        ])
    """
    counts = np.bincount(labels, minlength=n_classes)
    n_present = np.count_nonzero(counts)
    return np.where(counts > 0, len(labels) / (n_present * np.maximum(counts, 1)), 1.0)


def image_weights(
    labels: np.ndarray,
    n_classes: int,
    class_weight: ClassWeight | None,
    sample_weight: Any,
) -> np.ndarray | None:
    """Return the weight (N,) of each image: that of its class times its own; None for all 1.

    Parameters
    ----------
    labels : (N,) of int
        0 to n_classes - 1.
    n_classes : int
    class_weight : "balanced", dict of int to float, sequence of float, optional
        The weight of each class. A class that is not in the dict has weight 1. "balanced": see
        `balanced_weights`.
    sample_weight : (N,), optional

    Raises
    ------
    TypeError, ValueError
        When a weight is not a finite number of at least 0, there are too few or too many, or the
        weights of all images are 0.
    """
    weights = check_weights(sample_weight, len(labels), "sample_weight")
    if class_weight is not None:
        of_images = _class_weights(class_weight, labels, n_classes)[labels]
        weights = of_images if weights is None else weights * of_images
    if weights is None:
        return None
    if not weights.any():
        raise ValueError("the weights of all images are 0: there is nothing to learn from")
    return weights


def _class_weights(class_weight: ClassWeight, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the checked weight (n_classes,) of each class."""
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(
                'class_weight must be None, "balanced", or a number for each class, got '
                f"{class_weight!r}"
            )
        return balanced_weights(labels, n_classes)
    if isinstance(class_weight, Mapping):
        unknown = [label for label in class_weight if label not in range(n_classes)]
        if unknown:
            raise ValueError(
                f"class_weight has {unknown[0]!r}: the classes are 0 to {n_classes - 1}"
            )
        class_weight = [class_weight.get(label, 1.0) for label in range(n_classes)]
    elif not isinstance(class_weight, (Sequence, np.ndarray)):
        raise TypeError(
            'class_weight must be None, "balanced", or a number for each class, got '
            f"{class_weight!r}"
        )
    weights = [check_number(weight, "class_weight", 0) for weight in class_weight]
    if len(weights) != n_classes:
        raise ValueError(f"class_weight has {len(weights)} numbers for {n_classes} classes")
    return np.array(weights)


def scale_to_mean_1(weights: np.ndarray) -> np.ndarray:
    """Return weights, not all 0, divided by their mean."""
    weights = weights / weights.max()  # a sum of numbers near the largest float would overflow
    return weights / weights.mean()
