"""The training loop: batches, validation, the best model, the history."""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from kernels.scalars import check_int, check_number
from kernels.validation import check_weights
from training.augmentation import Augmenter, NoAugmenter
from training.class_weights import ClassWeight, image_weights, scale_to_mean_1
from training.errors import DivergedError, InputError
from training.input_stats import check_finite_pixels
from training.network import Network
from training.optimizers import Optimizer
from training.reporting.reporter import Reporter
from training.rwlock import exclusive
from training.saving import model_file
from training.saving.best_model import BestModel
from training.saving.training_state import EpochProgress, TrainingState
from training.schedules import Constant, Schedule, TimeLimited

# Batches are fetched and augmented in groups of so many bytes of images, which stay in the
# second-level cache. Between two steps the code that does it is out of the caches, and takes 170 us
# for a batch of 64; a group of 20 batches takes 50 us a batch.
GROUP_BYTES = 1 << 20
VALIDATION_SHARE = 0.4  # the time to predict an image by that of a training step, at most


def split_validation(
    x: np.ndarray, y: np.ndarray, fraction: float, seed: int
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Split images and labels at random into a training and a validation part.

    Each class keeps its share, rounded down or up to whole images. A class with one image stays in
    the training part. Both parts keep the order of the images.

    Parameters
    ----------
    x : (N, C, H, W)
    y : (N,) of int
    fraction : float
        The validation part's share of the images, between 0 and 1.
    seed : int

    Returns
    -------
    training, validation : (x, y)

    Raises
    ------
    InputError
        When either part would have no image.
    """
    training_idx, validation_idx = _split_indices(np.asarray(y), fraction, seed)
    return (x[training_idx], y[training_idx]), (x[validation_idx], y[validation_idx])


def _split_indices(y: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the training and the validation part of `split_validation`."""
    if not 0 < check_number(fraction, "validation_split") < 1:
        raise InputError(f"the validation split must be between 0 and 1, got {fraction!r}")
    present, classes, sizes = np.unique(y, return_inverse=True, return_counts=True)
    counts = _validation_counts(sizes, fraction)
    if not counts.any():
        raise InputError(
            f"{len(y)} images of {len(present)} classes are too few for a validation split of "
            f"{fraction:g}: give more images, or another validation split"
        )
    order = np.random.default_rng(seed).permutation(len(y))
    by_class = order[np.argsort(classes.reshape(-1)[order], kind="stable")]
    rank = np.arange(len(y)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # within the class
    is_validation = rank < np.repeat(counts, sizes)
    return np.sort(by_class[~is_validation]), np.sort(by_class[is_validation])


def _validation_counts(sizes: np.ndarray, fraction: float) -> np.ndarray:
    """Return how many validation images each class gets, by the method of largest remainders.

    Of classes with equal remainders, the smaller is rounded up, then the first.
    """
    shares = np.where(sizes > 1, sizes * fraction, 0)
    counts = np.floor(shares).astype(np.int64)
    n_missing = round(shares.sum()) - counts.sum()
    counts[np.lexsort((sizes, counts - shares))[:n_missing]] += 1
    return np.minimum(counts, sizes - 1)


def batches(indices: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Split an epoch's indices into batches; the last may be smaller.

    A single image that is left over joins the batch before it: the batch statistics of one image
    mean nothing.
    """
    count = len(indices)
    ends = list(range(batch_size, count, batch_size))
    if ends and count - ends[-1] == 1 and batch_size > 1:
        ends.pop()
    yield from np.split(indices, ends)


@exclusive
def train(
    model: Network,
    x: np.ndarray,
    y: np.ndarray,
    epochs: int | None = 10,
    batch_size: int = 64,
    validation_data: tuple[np.ndarray, np.ndarray] | None = None,
    validation_split: float = 0.0,
    augmenter: Augmenter | None = None,
    augmenter_ratio: int = 1,
    schedule: Schedule | None = None,
    patience: int | None = None,
    to_path: str | Path | None = None,
    reporter: Reporter | None = None,
    training_state: TrainingState | None = None,
    save_every: int | None = None,
    class_weight: ClassWeight | None = None,
    sample_weight: np.ndarray | None = None,
) -> dict[str, list]:
    """Train a compiled model for some epochs, and leave it in the state of its best epoch.

    The best epoch is the one with the highest validation accuracy (of equal ones, the lowest
    validation loss), or the last one where there is no validation.

    Parameters
    ----------
    model : Model
        The compiled model. `Model.train` passes it.
    x : (N, C, H, W)
    y : (N,) of int
    epochs : int, optional
        None: until the schedule ends the run, such as `TimeLimited`.
    batch_size : int
    validation_data : (x, y), optional
        Images that are never trained on.
    validation_split : float
        Share of x and y to use as validation data instead. They are set aside before any
        augmentation.
    augmenter : Augmenter, optional
        Changes every image each time that it is shown.
    augmenter_ratio : int
        How many times an epoch shows each image. Where it is more than once, the first time is
        without augmentation.
    schedule : Schedule, optional
        Multiplies the optimizer's learning rate in each step. The learning rate has its old value
        again at the end.
    patience : int, optional
        Stop after so many epochs in a row that were not the best. Needs validation data.
    to_path : path, optional
        Where each new best model is saved at once.
    reporter : Reporter, optional
        Receives every batch and epoch; None reports nothing. It is not closed at the end.
    training_state : TrainingState, optional
        Where the state of the run is saved after each epoch until it ends. One that was opened
        resumes its run: the model must be the one in the file, compiled with the same optimizer,
        and all arguments must be as they were.
    save_every : int, optional
        Save the state of the run also every so many steps.
    class_weight : "balanced", dict of int to float, or sequence of float, optional
        The weight of the images of each class in the training loss; 1 for a class that is not in
        the dict. "balanced" gives all classes the same total: a class with n of N training images,
        where K classes have any, has weight N / (K * n).
    sample_weight : (N,) of float, optional
        The weight of each image of x, times that of its class. Only the ratios of the weights
        matter: they are scaled to a mean of 1 over the training images. The loss of an epoch is
        then the weighted mean over these images, and the learning rate keeps its meaning. A
        batch's loss is the sum of weight * loss, divided by its number of images; see `train_step`.
        Accuracy and validation are not weighted.

    Returns
    -------
    history : dict of str to list
        One number per epoch; those of earlier calls come first.

    Raises
    ------
    InputError
        When a pixel is not finite, when batches are of one image and a BatchNorm needs more, or
        when the run of `training_state` cannot be resumed with these arguments.
    DivergedError
        When the loss or a weight is no longer a finite number. The best model so far is kept.
    """
    epochs = None if epochs is None else check_int(epochs, "epochs", 1)
    batch_size = check_int(batch_size, "batch_size", 1)
    x, y = model.check_data(x, y)
    sample_weight = check_weights(sample_weight, len(x), "sample_weight")
    inputs = {"x": x}
    if validation_split:
        if validation_data is not None:
            raise ValueError("give validation_data or validation_split, not both")
        training_idx, validation_idx = _split_indices(y, validation_split, model.seed)
        validation_data = x[validation_idx], y[validation_idx]
        x, y = x[training_idx], y[training_idx]
        sample_weight = None if sample_weight is None else sample_weight[training_idx]
    elif validation_data is not None:
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
            raise TypeError("validation_data must be a pair (images, labels)")
        validation_data = model.check_data(*validation_data)
        inputs["validation_data[0]"] = validation_data[0]
    weights = image_weights(y, model.classes, class_weight, sample_weight)
    ratio = check_int(augmenter_ratio, "augmenter_ratio", 1)
    if ratio * len(x) >= 2**31:
        raise ValueError(
            f"augmenter_ratio {ratio} is too large: an epoch would have {ratio * len(x)} images, "
            "and at most 2147483647 are allowed"
        )
    model.check_batch_size(min(batch_size, ratio * len(x)))
    if patience is not None:
        patience = check_int(patience, "patience", 1)
        if validation_data is None:
            raise ValueError("patience needs validation data: without it, every epoch is the best")
    if save_every is not None:
        save_every = check_int(save_every, "save_every", 1)
        if training_state is None:
            raise ValueError("save_every needs a training_state to save the run in")
    for name, value, expected in (
        ("augmenter", augmenter, Augmenter),
        ("schedule", schedule, Schedule),
        ("reporter", reporter, Reporter),
        ("training_state", training_state, TrainingState),
    ):
        if not isinstance(value, (expected, type(None))):
            raise TypeError(f"{name} must be of type {expected.__name__}, got {value!r}")
    if epochs is None and not isinstance(schedule, TimeLimited):
        raise ValueError("epochs must be a number: only a TimeLimited schedule ends a run itself")
    if model.optimizer is None:
        raise RuntimeError("call compile(optimizer=...) before training")
    if to_path is not None:
        model_file.check_saveable(model)  # now, and not after an epoch
    rate_setter = _LearningRateSetter(model.optimizer, schedule or Constant(), epochs)
    best, reporter = BestModel(model, to_path), reporter or Reporter(quiet=True)
    try:
        augmenter = (augmenter or NoAugmenter()).fitted(x, model.mean)
        epoch_trainer = _EpochTrainer(
            model, x, y, weights, batch_size, augmenter, ratio, rate_setter
        )
        run = _Run(
            model,
            epoch_trainer,
            rate_setter,
            validation_data,
            best,
            reporter,
            training_state,
            save_every,
        )
        run.train(epochs, patience)
    except (DivergedError, InputError):
        for name, images in inputs.items():
            check_finite_pixels(images, name, model.dtype)
        raise
    return model.history


def _check_finite(model: Network, when: str) -> None:
    """Raise DivergedError for a model or an optimizer state that could not be loaded again."""
    problem = model_file.find_non_finite(model)
    assert model.optimizer is not None
    for name, array in model.optimizer.state.items():
        if not np.isfinite(array).all():
            optimizer_name = type(model.optimizer).__name__
            problem = f"{name} of {optimizer_name} holds numbers that are not finite"
    if problem:
        raise DivergedError(f"{when}: {problem}: try a smaller learning rate")


class _LearningRateSetter:
    """Sets the learning rate of each step of a run by a schedule."""

    def __init__(self, optimizer: Optimizer, schedule: Schedule, epochs: int | None):
        self.optimizer, self.schedule, self._epochs = optimizer, schedule, epochs
        self._base = optimizer.learning_rate

    def set(self, epoch: int, fraction: float) -> None:
        """Set the learning rate for a step.

        Parameters
        ----------
        epoch : int
            Counts from 1.
        fraction : float
            The share of the epoch's images that were trained on.
        """
        progress = 0.0 if self._epochs is None else (epoch - 1 + fraction) / self._epochs
        factor = self.schedule.factor(progress)
        self.optimizer.learning_rate = self._base * factor

    def restore(self) -> None:
        """Set the learning rate back to its value before the run."""
        self.optimizer.learning_rate = self._base


class _EpochTrainer:
    """Trains a model for one epoch at a time."""

    def __init__(
        self,
        model: Network,
        x: np.ndarray,
        y: np.ndarray,
        weights: np.ndarray | None,
        batch_size: int,
        augmenter: Augmenter,
        ratio: int,
        rate_setter: _LearningRateSetter,
    ):
        self._model, self._x = model, x
        # What each batch has beside its images: labels, and weights if there are any.
        self._targets = [y] if weights is None else [y, scale_to_mean_1(weights)]
        self._batch_size, self._augmenter, self._ratio = batch_size, augmenter, ratio
        self._rate_setter = rate_setter

    @property
    def n_images(self) -> int:
        """The number of training images, each counted once."""
        return len(self._x)

    def check_progress(self, progress: EpochProgress) -> None:
        """Raise InputError when an interrupted epoch had other batches."""
        for name, saved, current in (
            ("batch size", progress.batch_size, self._batch_size),
            ("augmenter ratio", progress.ratio, self._ratio),
        ):
            if saved != current:
                raise InputError(
                    f"the run was interrupted in the middle of an epoch with {name} {saved}: "
                    f"it can be resumed with that, not with {current}"
                )
        steps = sum(1 for _ in batches(np.arange(len(self._x) * self._ratio), self._batch_size))
        if progress.steps >= steps:
            raise InputError(f"the run has {progress.steps} steps of an epoch of {steps}")

    def train(
        self,
        epoch: int,
        reporter: Reporter,
        progress: EpochProgress | None,
        step_ended: Callable[[EpochProgress], bool],
    ) -> dict[str, float]:
        """Show every image in random order, or fewer; return the metrics of the epoch.

        Parameters
        ----------
        epoch : int
            Counts from 1.
        reporter : Reporter
        progress : EpochProgress, optional
            The progress of an earlier run with this epoch, which is resumed.
        step_ended : callable
            Called with the progress after each step but the last. Returns whether the epoch goes
            on.
        """
        model = self._model
        if progress is None:
            random = dict(model.rng.bit_generator.state)
            progress = EpochProgress(random, self._batch_size, self._ratio)
        steps_done = progress.steps
        order = model.rng.permutation(len(self._x) * self._ratio)
        reporter.epoch_started(epoch, len(order))
        start = time.perf_counter() - progress.seconds
        n_seen = 0
        for step, (images, *targets) in enumerate(self._batches(order), start=1):
            n_images = len(images)
            if step <= steps_done:  # drawn again, so that the random numbers after it are the same
                n_seen += n_images
                reporter.batch_skipped(n_images)
                continue
            self._rate_setter.set(epoch, n_seen / len(order))
            learning_rate = float(self._rate_setter.optimizer.learning_rate)
            try:
                loss, n_correct = model.train_batch(images, *targets)
            except DivergedError as error:
                raise DivergedError(f"epoch {epoch}, step {step}: {error}") from None
            n_seen += n_images
            progress.steps = step
            progress.loss += loss * n_images
            progress.n_correct += n_correct
            progress.seconds = time.perf_counter() - start
            reporter.batch_ended(n_images, loss, n_correct)
            if n_seen < len(order) and not step_ended(progress):
                break
        return {
            "loss": progress.loss / n_seen,
            "accuracy": progress.n_correct / n_seen,
            "learning_rate": learning_rate,
            "images_per_second": n_seen / progress.seconds,
        }

    def _batches(self, order: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield the images, the labels and, if there are any, the weights of each batch."""
        index_batches = list(batches(order, self._batch_size))
        size = max(1, GROUP_BYTES // (self._x[:1].nbytes * self._batch_size))
        for start in range(0, len(index_batches), size):
            group = index_batches[start : start + size]
            indices = np.concatenate(group)
            targets = [numbers[indices % len(self._x)] for numbers in self._targets]
            ends = np.cumsum([len(batch) for batch in group])[:-1]
            arrays = [self._get_images(indices), *targets]
            yield from zip(*(np.split(array, ends) for array in arrays), strict=True)

    def _get_images(self, indices: np.ndarray) -> np.ndarray:
        """Return the images of an epoch by their indices.

        Index i is image i % N. With a ratio above 1, those below N are not augmented.
        """
        model, N = self._model, len(self._x)
        images = model.as_contiguous(self._x[indices % N])
        if self._ratio == 1:
            return self._augmenter(images, model.rng, model.backend)
        is_augmented = indices >= N
        images[is_augmented] = self._augmenter(images[is_augmented], model.rng, model.backend)
        return images


class _Run:
    """A training run: its epochs, and everything that is saved and reported about them."""

    def __init__(
        self,
        model: Network,
        epoch_trainer: _EpochTrainer,
        rate_setter: _LearningRateSetter,
        validation_data: tuple[np.ndarray, np.ndarray] | None,
        best: BestModel,
        reporter: Reporter,
        training_state: TrainingState | None,
        save_every: int | None,
    ):
        self._model, self._epoch_trainer, self._rate_setter = model, epoch_trainer, rate_setter
        self._validation_data, self._best, self._reporter = validation_data, best, reporter
        self._run_file, self._save_every = training_state, save_every
        self._epochs_done, self._has_validated = 0, False
        self._max_validation_time = math.inf
        self._first_step: EpochProgress | None = None

    def train(self, epochs: int | None, patience: int | None) -> None:
        """Train until so many epochs have ended, those of an interrupted run included.

        The schedule may end the run before.
        """
        best, reporter, history = self._best, self._reporter, self._model.history
        progress, is_resumed = None, self._run_file is not None and self._run_file.resumed
        if is_resumed:
            progress = self._restore()
        schedule = self._rate_setter.schedule
        schedule.run_started()
        reporter.run_started(epochs, schedule)
        try:
            if not is_resumed and self._validation_data is not None and history.get("loss"):
                # A model that was trained before must not be replaced by a worse one.
                best.update(self._validate("before the first epoch"), save=False)
            for epoch in itertools.count(self._epochs_done + 1):
                if epochs is not None and epoch > epochs:
                    break
                if self._epochs_done and schedule.is_over:
                    break
                if patience is not None and best.epochs_since_best >= patience:
                    reporter.line(f"stopping early: {patience} epochs in a row were not the best")
                    break
                self._train_epoch(epoch, progress)
                progress = None
            best.save_if_missing()
            if self._run_file is not None:
                self._run_file.remove()
        except KeyboardInterrupt:
            best.save_interrupted()
            raise
        finally:
            reporter.run_ended()
            self._rate_setter.restore()
            best.restore()

    def _restore(self) -> EpochProgress | None:
        """Restore the interrupted run of the file; return the progress of its next epoch."""
        assert self._run_file is not None
        self._epochs_done, progress = self._run_file.restore(
            self._model, self._rate_setter.schedule, self._best, self._epoch_trainer.n_images
        )
        if progress is not None:
            self._epoch_trainer.check_progress(progress)
        return progress

    def _train_epoch(self, epoch: int, progress: EpochProgress | None) -> None:
        """Train for an epoch; then validate, save and report."""
        model, best, schedule = self._model, self._best, self._rate_setter.schedule
        metrics = self._epoch_trainer.train(epoch, self._reporter, progress, self._step_ended)
        _check_finite(model, f"the end of epoch {epoch}")
        if self._validation_data is not None:
            metrics |= self._validate(f"epoch {epoch}")
        self._epochs_done = epoch
        for name, number in metrics.items():
            model.history.setdefault(name, []).append(number)
        is_best = best.update(metrics)
        best.save_if_missing()
        schedule.epoch_ended(metrics.get("validation_loss", metrics["loss"]))
        if self._run_file is not None:
            self._run_file.write(model, schedule, best, epoch, self._epoch_trainer.n_images)
        self._reporter.epoch_ended(metrics, is_best, model.history)

    def _step_ended(self, progress: EpochProgress) -> bool:
        """Save the state of the run every so many steps; return whether its epoch goes on."""
        optimizer, schedule = self._rate_setter.optimizer, self._rate_setter.schedule
        if self._validation_data is not None and not self._has_validated:
            self._max_validation_time = self._estimate_validation_time(progress)
            schedule.validation_ended(self._max_validation_time)
        if schedule.is_over:
            return False
        if self._run_file is None or not self._save_every or optimizer.steps % self._save_every:
            return True
        _check_finite(self._model, f"epoch {self._epochs_done + 1}, step {progress.steps}")
        self._run_file.write(
            *(self._model, self._rate_setter.schedule, self._best),
            *(self._epochs_done, self._epoch_trainer.n_images, progress),
        )
        self._reporter.state_saved(progress.steps)
        return True

    def _estimate_validation_time(self, progress: EpochProgress) -> float:
        """Return the most that a validation may take, by the time of the steps.

        The first step is not counted, which compiles kernels or loads them.
        """
        assert self._validation_data is not None
        first = self._first_step = self._first_step or dataclasses.replace(progress)
        steps, seconds = progress.steps - first.steps, progress.seconds - first.seconds
        if steps == 0:
            return 0.0
        n_images = len(self._validation_data[0])
        return VALIDATION_SHARE * seconds / (steps * progress.batch_size) * n_images

    def _validate(self, when: str) -> dict[str, float]:
        """Return the metrics on the validation images."""
        assert self._validation_data is not None
        start = time.perf_counter()
        loss, accuracy = self._model.loss_and_accuracy(*self._validation_data)
        seconds = time.perf_counter() - start
        if not self._has_validated:  # the first one compiles kernels, or loads them
            seconds = min(seconds, self._max_validation_time)
        self._rate_setter.schedule.validation_ended(seconds)
        self._has_validated = True
        if not math.isfinite(loss):
            raise DivergedError(
                f"{when}: the validation loss became {loss}: try a smaller learning rate"
            )
        return {"validation_loss": loss, "validation_accuracy": accuracy}
