"""The measures of a tested model as a JSON file."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation import accuracy, balanced_accuracy, class_measures
from training.saving.model_file import begins_with_format

FORMAT = "cnn-report"
VERSION = 1


def to_document(
    model_path: str | Path,
    source: str,
    class_names: Sequence[str],
    confusion: np.ndarray,
    mean_loss: float,
    calibration_error: float,
) -> dict[str, Any]:
    """Return all measures of a model in JSON's own types; a measure of no images is None.

    Parameters
    ----------
    model_path : path
    source : str
        The images that the model was tested on.
    class_names : sequence of str
    confusion : (classes, classes) of int
        See `confusion_matrix`.
    mean_loss : float
    calibration_error : float
        See `calibration_error` in `training.evaluation`.
    """
    columns = class_measures(confusion)._asdict()
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": str(model_path),
        "data": source,
        "images": int(confusion.sum()),
        "accuracy": _number(accuracy(confusion)),
        "balanced_accuracy": _number(balanced_accuracy(confusion)),
        "mean_loss": _number(mean_loss),
        "calibration_error": _number(calibration_error),
        "class_names": list(class_names),
        "classes": [
            {"name": name}
            | {measure: _number(column[index]) for measure, column in columns.items()}
            for index, name in enumerate(class_names)
        ],
        "confusion_matrix": confusion.tolist(),
    }


def _number(value: Any) -> float | int | None:
    """Return a number as JSON has it, which has neither NaN nor infinity."""
    number = value.item() if isinstance(value, np.generic) else value
    return number if math.isfinite(number) else None


def to_text(document: dict[str, Any]) -> str:
    """Return the text of a report's file."""
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def is_report(path: Path) -> bool:
    """Return whether a file begins as `to_text` writes reports."""
    return begins_with_format(path, FORMAT)
