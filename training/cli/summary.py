"""Summary of a trained model: printed accuracy and plots."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from training.cli.output_paths import sibling_path
from training.evaluation import class_accuracies, confusion_matrix
from training.model import Model
from training.reporting import plots

MAX_LISTED_CLASSES = 30  # a model of more classes is not reported class by class


def summarize(
    model: Model,
    images: np.ndarray,
    labels: np.ndarray,
    name: str,
    path: Path,
    *,
    no_plots: bool,
    print_line: Callable[[str], object],
    history: bool = True,
) -> None:
    """Print the accuracy of a model, in total and by class, and draw plots beside its file.

    Parameters
    ----------
    model : Model
    images : ndarray of shape (N, C, H, W)
    labels : ndarray of int, shape (N,)
    name : str
        Of the images, such as "test".
    path : Path
        Of the model.
    no_plots : bool
    print_line : callable
        Prints one line.
    history : bool
        Whether to draw the loss and the accuracy of each epoch as well.
    """
    logits = model.logits(images)
    confusion = confusion_matrix(labels, logits.argmax(axis=1), model.classes)
    print_line(f"{name} accuracy {confusion.trace() / len(images):.2%} on {len(images):,} images")
    if model.classes <= MAX_LISTED_CLASSES:
        accuracies = [
            "no images" if math.isnan(accuracy) else f"{accuracy:.1%}"
            for accuracy in class_accuracies(confusion)
        ]
        print_line("by class: " + ", ".join(f"{c} {text}" for c, text in enumerate(accuracies)))
    if plots_wanted(no_plots, print_line):
        pattern = sibling_path(path, "{}.png")
        drawn = plots.draw_all(model, images, labels, logits, pattern, history)
        print_line("plots: " + ", ".join(map(str, drawn)))


def plots_wanted(no_plots: bool, print_line: Callable[[str], object]) -> bool:
    """Return whether to draw plots; print a line if only matplotlib is missing."""
    if no_plots:
        return False
    if not plots.can_draw():
        print_line(f"no plots: they need matplotlib ({plots.INSTALL}); --no_plots omits them")
        return False
    return True
