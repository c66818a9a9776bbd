"""The loop over epochs: batches, validation, the best model, the history."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.scalars import check_int, check_number
from training.augmentation import Augmenter, NoAugmenter
from training.errors import DivergedError, InputError
from training.optimizers import Optimizer
from training.reporting.reporter import Reporter
from training.saving import model_file
from training.saving.training_state import EpochProgress, TrainingState
from training.schedules import Constant, Schedule

if TYPE_CHECKING:
    from training.model import Model

# Batches are fetched and moved in groups of so many bytes of images, which stay in the second-level
# cache. Between two steps the code that does it is out of the caches, and takes 170 us for a batch
# of 64; a group of 20 batches takes 50 us a batch.
GROUP_BYTES = 1 << 20


def split_validation(
    x: np.ndarray, y: np.ndarray, fraction: float, seed: int
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Set a random share of the images aside; return (x, y) of the rest and of the share.

    Raises
    ------
    InputError
        When either part would have no image.
    """
    if not 0 < check_number(fraction, "validation_split") < 1:
        raise InputError(f"the validation split must be between 0 and 1, got {fraction!r}")
    count = round(len(x) * fraction)
    if not 0 < count < len(x):
        raise InputError(
            f"{len(x)} images are too few to set {fraction:g} of them aside: "
            "give more images, or another validation split"
        )
    order = np.random.default_rng(seed).permutation(len(x))
    validation_idx, training_idx = np.sort(order[:count]), np.sort(order[count:])
    return (x[training_idx], y[training_idx]), (x[validation_idx], y[validation_idx])


def batches(entries: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Cut an epoch's entries into batches; the last may be smaller.

    A single image left over joins the batch before it: batch statistics of one mean nothing.
    """
    count = len(entries)
    ends = list(range(batch_size, count, batch_size))
    if ends and count - ends[-1] == 1 and batch_size > 1:
        ends.pop()
    yield from np.split(entries, ends)


def train(
    model: "Model",
    x: np.ndarray,
    y: np.ndarray,
    epochs: int = 10,
    batch_size: int = 64,
    validation_data: tuple[np.ndarray, np.ndarray] | None = None,
    validation_split: float = 0.0,
    augmenter: Augmenter | None = None,
    augmenter_ratio: int = 1,
    schedule: Schedule | None = None,
    patience: int | None = None,
    to_path: str | Path | None = None,
    reporter: Reporter | None = None,
    run_file: TrainingState | None = None,
    save_every: int | None = None,
) -> dict[str, list]:
    """Train a compiled model, and leave it at its best epoch.

    The best epoch is the one with the highest validation accuracy (of equal ones, the lowest
    validation loss), or the last where nothing is validated on.

    Parameters
    ----------
    x : (N, C, H, W)
    y : (N,) of int
    epochs, batch_size : int
    validation_data : (x, y), optional
        Images that are never trained on.
    validation_split : float
        Share of x and y to set aside for that, before any augmentation.
    augmenter : Augmenter, optional
        Moves every image anew each time that it is shown.
    augmenter_ratio : int
        How many times an epoch shows each image; where it is more than once, the first time as
        it is.
    schedule : Schedule, optional
        Of the learning rate, which starts from the optimizer's and returns to it at the end.
    patience : int, optional
        Stop after so many epochs in a row that were not the best.
    to_path : path, optional
        Where each new best model is saved at once.
    reporter : Reporter, optional
        Told of every batch and epoch; None is silent.
    run_file : TrainingState, optional
        Where the run is kept after each epoch until it ends. One that was opened goes on: the
        model must be the one in it, compiled with the same optimizer, and all else be as it was.
    save_every : int, optional
        Keep the run also every so many steps.

    Returns
    -------
    history : dict of str to list
        One number an epoch, those of earlier calls first.

    Raises
    ------
    DivergedError
        When the loss or a weight is no longer a finite number. The best model so far is kept.
    """
    epochs, batch_size = check_int(epochs, "epochs", 1), check_int(batch_size, "batch_size", 1)
    x, y = model.check_data(x, y)
    if validation_split:
        if validation_data is not None:
            raise ValueError("give validation_data or validation_split, not both")
        (x, y), validation_data = split_validation(x, y, validation_split, model.seed)
    if validation_data is not None:
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
            raise TypeError("validation_data must be a pair (images, labels)")
        validation_data = model.check_data(*validation_data)
    ratio = check_int(augmenter_ratio, "augmenter_ratio", 1)
    if ratio * len(x) >= 2**31:
        raise ValueError(
            f"augmenter_ratio {ratio} is too large: an epoch has {len(x)} times as many"
        )
    if patience is not None:
        patience = check_int(patience, "patience", 1)
    if save_every is not None:
        save_every = check_int(save_every, "save_every", 1)
        if run_file is None:
            raise ValueError("save_every needs a run_file to keep the run in")
    for name, value, kind in (
        ("augmenter", augmenter, Augmenter),
        ("schedule", schedule, Schedule),
        ("reporter", reporter, Reporter),
        ("run_file", run_file, TrainingState),
    ):
        if not isinstance(value, (kind, type(None))):
            raise TypeError(f"{name} must be one of training's, got {value!r}")
    optimizer = model.optimizer
    if optimizer is None:
        raise RuntimeError("call compile(optimizer=...) before training")
    pace = _LearningRateSetter(optimizer, schedule or Constant(), epochs)
    run = _Epochs(model, x, y, batch_size, augmenter or NoAugmenter(), ratio, pace)
    reporter = reporter or Reporter(quiet=True)
    if to_path is not None:
        model_file.to_document(model)  # what cannot be saved is found out now, not in an hour
    best = BestModel(model, to_path)
    done, underway = 0, None
    resumed = run_file is not None and run_file.resumed
    if run_file is not None and resumed:
        done, underway = run_file.restore(model, pace.schedule, best, len(x))
        run.check(underway)

    def keep(underway: EpochProgress) -> None:
        """Keep the run in the middle of an epoch, every so many steps."""
        if run_file is not None and save_every and optimizer.steps % save_every == 0:
            _check_finite(model, f"epoch {done + 1}, step {underway.steps}")
            run_file.write(model, pace.schedule, best, done, len(x), underway)
            reporter.state_saved(underway.steps)

    reporter.run_started(epochs, done)
    try:
        if not resumed and validation_data is not None and model.history.get("loss"):
            # A model that is trained on must not be replaced by a worse one.
            best.update(_validate(model, validation_data, "before the first epoch"), save=False)
        for epoch in range(done + 1, epochs + 1):
            if patience is not None and best.epochs_since_best >= patience:
                reporter.line(f"stopping early: {patience} epochs in a row were not the best")
                break
            numbers = run.train(epoch, reporter, underway, keep)
            _check_finite(model, f"the end of epoch {epoch}")
            if validation_data is not None:
                numbers |= _validate(model, validation_data, f"epoch {epoch}")
            done, underway = epoch, None
            for name, number in numbers.items():
                model.history.setdefault(name, []).append(number)
            saved = best.update(numbers)
            best.save()
            pace.schedule.epoch_ended(numbers.get("validation_loss", numbers["loss"]))
            if run_file is not None:
                run_file.write(model, pace.schedule, best, epoch, len(x))
            reporter.epoch_ended(numbers, saved, model.history)
        best.save()
        if run_file is not None:
            run_file.remove()
    except KeyboardInterrupt:
        best.interrupted()
        raise
    finally:
        reporter.close()
        pace.end()
        best.restore()
    return model.history


def _validate(model, data, when: str) -> dict[str, float]:
    loss, accuracy = model.loss_and_accuracy(*data)
    if not math.isfinite(loss):
        raise DivergedError(
            f"{when}: the validation loss became {loss}: try a smaller learning rate"
        )
    return {"validation_loss": loss, "validation_accuracy": accuracy}


def _check_finite(model, when: str) -> None:
    """Raise DivergedError for a model that could not be loaded again."""
    found = model_file.not_finite(model)
    for name, array in model.optimizer.state.items():
        if not np.isfinite(array).all():
            found = f"{name} of {type(model.optimizer).__name__} holds numbers that are not finite"
    if found:
        raise DivergedError(f"{when}: {found}: try a smaller learning rate")


class _LearningRateSetter:
    """The learning rate of each step of a run."""

    def __init__(self, optimizer: Optimizer, schedule: Schedule, epochs: int):
        self.optimizer, self.schedule, self._epochs = optimizer, schedule, epochs
        self._base = optimizer.learning_rate

    def set(self, epoch: int, share: float) -> None:
        """Set the learning rate for the step at a share of an epoch, which counts from 1."""
        factor = self.schedule.factor((epoch - 1 + share) / self._epochs)
        self.optimizer.learning_rate = self._base * factor

    def end(self) -> None:
        self.optimizer.learning_rate = self._base


class _Epochs:
    """What every epoch of a run has in common."""

    def __init__(self, model, x, y, batch_size, augmenter, ratio, pace: _LearningRateSetter):
        self._model, self._x, self._y = model, x, y
        self._batch_size, self._augmenter, self._ratio = batch_size, augmenter, ratio
        self._pace = pace

    def check(self, underway: EpochProgress | None) -> None:
        """Raise where the steps of an epoch that is gone on with were of other batches."""
        if underway is None:
            return
        for name, then, now in (
            ("batch size", underway.batch_size, self._batch_size),
            ("augmenter ratio", underway.ratio, self._ratio),
        ):
            if then != now:
                raise InputError(
                    f"the run was interrupted in the middle of an epoch with {name} {then}: "
                    f"it can go on with that, not with {now}"
                )
        steps = sum(1 for _ in batches(np.arange(len(self._x) * self._ratio), self._batch_size))
        if underway.steps >= steps:
            raise InputError(f"the run has {underway.steps} steps of an epoch of {steps}")

    def train(
        self,
        epoch: int,
        reporter: Reporter,
        underway: EpochProgress | None,
        keep: Callable[[EpochProgress], None],
    ) -> dict[str, float]:
        """Show every image in random order; return what was measured.

        Parameters
        ----------
        underway : Underway, optional
            How far an earlier run has come with this epoch, which is gone on with.
        keep : callable
            Called with how far the epoch has come, after each step but the last.
        """
        model = self._model
        at = underway or EpochProgress(model.rng.bit_generator.state, self._batch_size, self._ratio)
        done = at.steps
        order = model.rng.permutation(len(self._x) * self._ratio)
        reporter.epoch_started(epoch, len(order))
        start = time.perf_counter() - at.seconds
        seen = 0
        for step, (images, labels) in enumerate(self._batches(order), start=1):
            if step <= done:  # drawn again, so that what is drawn after it is the same
                seen += len(labels)
                reporter.batch_skipped(len(labels))
                continue
            self._pace.set(epoch, seen / len(order))
            rate = float(self._pace.optimizer.learning_rate)
            try:
                loss, correct = model.train_batch(images, labels)
            except DivergedError as error:
                raise DivergedError(f"epoch {epoch}, step {step}: {error}") from None
            seen += len(labels)
            at.steps, at.loss, at.correct = step, at.loss + loss * len(labels), at.correct + correct
            at.seconds = time.perf_counter() - start
            reporter.batch_ended(len(labels), loss, correct)
            if seen < len(order):
                keep(at)
        return {
            "loss": at.loss / len(order),
            "accuracy": at.correct / len(order),
            "learning_rate": rate,
            "images_per_second": len(order) / at.seconds,
        }

    def _batches(self, order: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the images and labels of each batch of an epoch."""
        cut = list(batches(order, self._batch_size))
        size = max(1, GROUP_BYTES // (self._x[:1].nbytes * self._batch_size))
        for start in range(0, len(cut), size):
            group = cut[start : start + size]
            entries = np.concatenate(group)
            images, labels = self._take(entries), self._y[entries % len(self._x)]
            ends = np.cumsum([len(part) for part in group])[:-1]
            yield from zip(np.split(images, ends), np.split(labels, ends), strict=True)

    def _take(self, entries: np.ndarray) -> np.ndarray:
        """Return images: entry e is image e % N, moved unless this is its first of several."""
        model, count = self._model, len(self._x)
        images = model.as_contiguous(self._x[entries % count])
        if self._ratio == 1:
            return self._augmenter(images, model.rng, model.backend)
        moved = entries >= count
        images[moved] = self._augmenter(images[moved], model.rng, model.backend)
        return images


class BestModel:
    """The best state of a model so far, in memory and on disk.

    Attributes
    ----------
    score : (validation accuracy, -validation loss), or None before anything was validated
    arrays : list of dict of str to array
        What each layer validation_idx; empty before the first epoch.
    waited : int
        How many epochs in a row have not been the best since.
    saved : bool
        Whether this run, or the one that it goes on with, has written the best state to disk.
    """

    def __init__(self, model: "Model", path: str | Path | None):
        self._model, self._path = model, path
        self.score: tuple[float, float] | None = None
        self.arrays: list[dict[str, np.ndarray]] = []
        self.epochs_since_best = 0
        self.saved = False

    def update(self, numbers: dict[str, Any], save: bool = True) -> bool:
        """Keep the model as it is now if it is the best; return whether it was."""
        if "validation_loss" in numbers:
            score = numbers["validation_accuracy"], -numbers["validation_loss"]
            if self.score is not None and score <= self.score:
                self.epochs_since_best += 1
                return False
            self.score = score
        self.epochs_since_best = 0
        self.arrays = self._copy()
        if save and self._path is not None:
            self._model.save(self._path)
            self.saved = True
        return True

    def _copy(self) -> list[dict[str, np.ndarray]]:
        return [
            {name: array.copy() for name, array in layer.arrays.items()}
            for layer in self._model.layers
        ]

    def save(self) -> None:
        """Save the best state if it is not on disk: an earlier run's, or one that went away."""
        if not self.arrays or self._path is None or (self.saved and Path(self._path).exists()):
            return
        now = self._copy()
        self.restore()
        try:
            self._model.save(self._path)
        finally:
            for layer, arrays in zip(self._model.layers, now, strict=True):
                layer.set_arrays(arrays)
        self.saved = True

    def interrupted(self) -> None:
        """Save what there is, if nothing was saved yet and no earlier model would be lost."""
        if self._path is None or Path(self._path).exists():
            return
        if self.arrays:
            self.save()
        else:
            self._model.save(self._path)

    def restore(self) -> None:
        """Put the model back to its best state, if there was one."""
        for layer, arrays in zip(self._model.layers, self.arrays, strict=False):
            layer.set_arrays(arrays)
