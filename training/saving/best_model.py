"""The best state of a model during a run, in memory and on disk."""

from pathlib import Path
from typing import Any

import numpy as np

from layers import walk
from training.network import Network
from training.saving import model_file


class BestModel:
    """The best state of a model so far.

    The best state is the one with the highest validation accuracy; of equal ones, the one with the
    lowest validation loss. Without validation, it is the latest.

    Parameters
    ----------
    model : Model
    path : path, optional
        Where each new best state is saved.

    Attributes
    ----------
    score : (validation accuracy, -validation loss), or None before the first validation
    arrays : list of dict of str to array
        The arrays of each layer in the best state, in the order of `walk`; empty before the first
        epoch.
    epochs_since_best : int
        The number of epochs since the best one.
    saved : bool
        Whether this run, or the run that it resumes, has written the best state to disk.
    """

    def __init__(self, model: Network, path: str | Path | None):
        self._model, self._path = model, path
        self._encoded: list[dict[str, Any]] | None = None
        self.score: tuple[float, float] | None = None
        self.arrays: list[dict[str, np.ndarray]] = []
        self.epochs_since_best = 0
        self.saved = False

    def update(self, metrics: dict[str, Any], save: bool = True) -> bool:
        """Keep the current state of the model if it is the best; return whether it is."""
        if "validation_loss" in metrics:
            score = metrics["validation_accuracy"], -metrics["validation_loss"]
            if self.score is not None and score <= self.score:
                self.epochs_since_best += 1
                return False
            self.score = score
        arrays = [
            {name: array.copy() for name, array in layer.arrays.items()}
            for layer in walk(self._model.layers)
        ]
        self.set_arrays(arrays, epochs_since_best=0)
        if save and self._path is not None:
            self._write(self._path)
        return True

    def set_arrays(self, arrays: list[dict[str, np.ndarray]], epochs_since_best: int) -> None:
        """Take over the arrays of a best state."""
        self.arrays, self._encoded = arrays, None
        self.epochs_since_best = epochs_since_best

    def encoded(self) -> list[dict[str, Any]]:
        """Return the arrays of each layer as they are saved; they are encoded once."""
        if self._encoded is None:
            self._encoded = model_file.encode_layers(self.arrays)
        return self._encoded

    def save_if_missing(self) -> None:
        """Save the best state if it is not on disk.

        It may be the state of the run that was resumed, or its file may have been removed.
        """
        if not self.arrays or self._path is None or (self.saved and Path(self._path).exists()):
            return
        self._write(self._path)

    def save_interrupted(self) -> None:
        """Save the best state, or the current one before the first epoch has ended.

        Nothing is written where a file exists: it may be an earlier model.
        """
        if self._path is None or Path(self._path).exists():
            return
        if self.arrays:
            self._write(self._path)
        else:
            model_file.save(self._model, self._path)

    def _write(self, path: str | Path) -> None:
        model_file.write(model_file.to_document(self._model, self.encoded()), path)
        self.saved = True

    def restore(self) -> None:
        """Restore the best state of the model, if there is one."""
        for layer, arrays in zip(walk(self._model.layers), self.arrays, strict=False):
            layer.set_arrays(arrays)
