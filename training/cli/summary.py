"""Summary of a trained model: printed measures and plots."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.cli.answers import answer_probabilities
from training.cli.output_paths import sibling_path
from training.datasets.dataset import list_names
from training.evaluation import (
    accuracy,
    balanced_accuracy,
    calibration_error,
    class_measures,
    confusion_matrix,
)
from training.model import Model
from training.reporting import plots
from training.reporting.text_table import format_table, shorten

MAX_LISTED_CLASSES = 30  # of a model of more classes, only the worst are listed
N_WORST = 10
MAX_NAME = 40  # columns of a class name in a table


class Summary(NamedTuple):
    """What `summarize` measured.

    Attributes
    ----------
    confusion : (classes, classes) of int
        See `confusion_matrix`.
    mean_loss : float
        Of the network's own probabilities.
    calibration_error : float
        Of the probabilities that `--predict` prints.
    """

    confusion: np.ndarray
    mean_loss: float
    calibration_error: float


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
) -> Summary:
    """Print the measures of a model, in total and by class, and draw plots beside its file.

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
    mean_loss = model.mean_loss(logits, labels)
    error = calibration_error(answer_probabilities(model, logits), labels)
    print_line(
        f"{name} accuracy {accuracy(confusion):.2%} on {len(images):,} images, "
        f"balanced accuracy {balanced_accuracy(confusion):.2%}, mean loss {mean_loss:.4f}, "
        f"calibration error {error:.4f}"
    )
    for line in class_table(confusion, model.class_names, name):
        print_line(line)
    if plots_wanted(no_plots, print_line):
        pattern = sibling_path(path, "{}.png")
        drawn = plots.draw_all(model, images, labels, logits, pattern, history)
        print_line("plots: " + ", ".join(map(str, drawn)))
    return Summary(confusion, mean_loss, error)


def class_table(confusion: np.ndarray, class_names: Sequence[str], name: str) -> list[str]:
    """Return the lines of a table of precision, recall, F1 and support by class.

    Of many classes, it lists those with the lowest F1. A share of no images is shown as "-", and
    classes without images are named below the table.

    Parameters
    ----------
    confusion : (classes, classes) of int
        See `confusion_matrix`.
    class_names : sequence of str
    name : str
        Of the images, such as "test".
    """
    measures = class_measures(confusion)
    listed, lines = np.arange(len(class_names)), []
    if len(class_names) > MAX_LISTED_CLASSES:
        with_images = np.flatnonzero(measures.support)
        listed = with_images[np.argsort(measures.f1[with_images], kind="stable")][:N_WORST]
        lines.append(f"the {len(listed)} classes with the lowest F1, of {len(class_names):,}:")
    rows = [["class", "precision", "recall", "F1", "support"]]
    for index in listed.tolist():
        shares = (column[index] for column in measures[:3])
        texts = ["-" if np.isnan(share) else f"{share:.1%}" for share in shares]
        name_shown = shorten(class_names[index], MAX_NAME)
        rows.append([name_shown, *texts, f"{measures.support[index]:,}"])
    lines += format_table(rows, "<>>>>")
    missing = [class_names[index] for index in np.flatnonzero(measures.support == 0).tolist()]
    if missing:
        names = list_names([shorten(name, MAX_NAME) for name in missing])
        lines.append(f"no {name} images of: {names}")
    return lines


def plots_wanted(no_plots: bool, print_line: Callable[[str], object]) -> bool:
    """Return whether to draw plots; print a line if only matplotlib is missing."""
    if no_plots:
        return False
    if not plots.can_draw():
        print_line(f"no plots: they need matplotlib ({plots.INSTALL}); --no_plots omits them")
        return False
    return True
