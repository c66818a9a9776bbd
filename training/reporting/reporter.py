"""Progress of a training run: a progress bar or plain lines, a log file and a history."""

import contextlib
import csv
import io
import logging
import sys
import threading
import time
from collections import deque
from datetime import timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training.errors import InputError
from training.saving import atomic_file
from training.schedules import Schedule, TimeLimited

COMPILING = "compiling the kernels for this machine; later runs load them from the cache"
RECENT_STEPS = 100  # the time left is estimated from so many steps


def write_history(history: dict[str, list], path: str | Path) -> None:
    """Write a history as a CSV file with one row per epoch.

    Parameters
    ----------
    history : dict of str to list
        A column for each entry. A list that is shorter than the others holds the last epochs; the
        fields of the earlier ones stay empty.
    path : path
    """
    epochs = max(map(len, history.values()), default=0)
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["epoch", *history])
    columns = [[""] * (epochs - len(column)) + column for column in history.values()]
    for epoch, row in enumerate(zip(*columns, strict=True), start=1):
        rows.writerow([epoch, *row])
    atomic_file.replace(path, text.getvalue())


def _open_events(directory: str | Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise InputError("--tensorboard needs a package: pip install tensorboardX") from None
    try:
        return SummaryWriter(str(directory))
    except OSError as error:
        raise InputError(f"--tensorboard {directory}: {error.strerror}: name a folder") from None


class _LogFile(logging.FileHandler):
    """A log file. When the disk is full, one message says so, and the training continues."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        self.setLevel(logging.CRITICAL + 1)
        print(f"{self.baseFilename}: cannot be written: {sys.exc_info()[1]}", file=sys.stderr)
        # An open file is flushed at exit once more; newer Pythons print that error too.
        with contextlib.suppress(OSError):
            self.close()


class _TimeLeft:
    """Estimates the time left of a run from its recent steps.

    The first step of a run, and the time from its first epoch's last step to that epoch's end, are
    not counted: kernels are compiled there once, which takes many times as long as the step.
    """

    def __init__(self, epochs: int | None, schedule: Schedule | None):
        self._epochs = epochs
        self._limit = schedule if isinstance(schedule, TimeLimited) else None
        self._steps: deque[tuple[int, float]] = deque(maxlen=RECENT_STEPS)
        self._after_steps: float | None = None
        self._is_warm = False
        self._last = 0.0

    def restart_clock(self) -> None:
        """Start to measure the next step."""
        self._last = time.perf_counter()

    def epoch_started(self, n_images: int) -> None:
        self._n_images = n_images
        self.restart_clock()

    def step_ended(self, n_images: int) -> None:
        seconds = time.perf_counter() - self._last
        if self._is_warm:
            self._steps.append((n_images, seconds))
        self._is_warm = True
        self.restart_clock()

    def epoch_ended(self, epoch: int) -> float | None:
        """Return the estimate in seconds; None while nothing is known."""
        after_steps, is_first = time.perf_counter() - self._last, self._after_steps is None
        self._after_steps = 0.0 if is_first else after_steps
        left = [] if self._limit is None else [max(0.0, self._limit.seconds_left)]
        images = sum(n_images for n_images, _ in self._steps)
        if images and self._epochs is not None:
            seconds = sum(seconds for _, seconds in self._steps) / images * self._n_images
            left.append((seconds + self._after_steps) * (self._epochs - epoch))
        return min(left, default=None)


class Reporter:
    """Reports a training run.

    On a terminal, it shows a progress bar per epoch; elsewhere, it prints a line per epoch. The
    lines also go to a log file, with the time.

    Parameters
    ----------
    log_path : path, optional
        Log file; lines are appended.
    quiet : bool
        Whether to print nothing.
    compiling : bool
        Whether kernels may be compiled in the first batch. If it takes over a second, a line says
        so.
    history_path : path, optional
        CSV file of the history, one row per epoch; written again after each epoch.
    tensorboard : path, optional
        Directory for TensorBoard's event files; needs the package tensorboardX.

    Notes
    -----
    `close` closes the log file and the event files. So does the end of a ``with`` statement.

    Examples
    --------
    >>> with Reporter(quiet=True) as reporter:
    ...     reporter.line("not printed, and logged nowhere")
    """

    def __init__(
        self,
        log_path: str | Path | None = None,
        quiet: bool = False,
        compiling: bool = False,
        history_path: str | Path | None = None,
        tensorboard: str | Path | None = None,
    ):
        self._history_path = history_path
        self._events: Any = None
        self._quiet = quiet
        self._bar: tqdm | None = None
        self._compiling_timer: threading.Timer | None = None
        self._is_first_batch = compiling
        self._log = logging.Logger("training")
        try:
            if log_path is not None:
                handler = _LogFile(log_path, encoding="utf-8", errors="backslashreplace")
                handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
                self._log.addHandler(handler)
            if tensorboard is not None:
                self._events = _open_events(tensorboard)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def line(self, text: str) -> None:
        """Print a line, and log it."""
        self._log.info(text)
        if not self._quiet:
            tqdm.write(text, file=sys.stdout)

    def run_started(self, epochs: int | None, schedule: Schedule | None = None) -> None:
        """Start a run that ends after so many epochs, those of an interrupted run included.

        None: a schedule with a time limit ends it.
        """
        self._epochs, self._time_left = epochs, _TimeLeft(epochs, schedule)

    def epoch_started(self, epoch: int, n_images: int) -> None:
        """Start an epoch, counted from 1, with so many images."""
        self._title, self._epoch = f"epoch {epoch}", epoch
        if self._epochs is not None:
            self._title = f"epoch {epoch:>{len(str(self._epochs))}}/{self._epochs}"
        self._n_seen, self._loss_sum, self._n_correct = 0, 0.0, 0
        self._time_left.epoch_started(n_images)
        if self._is_first_batch:
            self._compiling_timer = threading.Timer(1.0, self.line, [COMPILING])
            self._compiling_timer.daemon = True
            self._compiling_timer.start()
        if not self._quiet and sys.stdout.isatty():
            self._bar = tqdm(
                total=n_images, desc=self._title, unit=" images", leave=False, file=sys.stdout
            )

    def batch_skipped(self, n_images: int) -> None:
        """Count a batch that the interrupted run has trained on."""
        self._time_left.restart_clock()
        if self._bar is not None:
            self._bar.update(n_images)

    def batch_ended(self, n_images: int, loss: float, n_correct: int) -> None:
        """Count a batch with its mean loss and its number of correct labels."""
        if self._is_first_batch:
            self._is_first_batch = False
            self._cancel_compiling_timer()
        self._time_left.step_ended(n_images)
        if self._bar is None:
            return
        self._n_seen += n_images
        self._loss_sum += loss * n_images
        self._n_correct += n_correct
        loss, accuracy = self._loss_sum / self._n_seen, self._n_correct / self._n_seen
        self._bar.set_postfix_str(f"loss {loss:.4f}, accuracy {accuracy:.2%}", refresh=False)
        self._bar.update(n_images)

    def state_saved(self, step: int) -> None:
        """Report that the run can be resumed from this step of the epoch."""
        self.line(f"{self._title}, step {step}: saved")

    def epoch_ended(
        self, metrics: dict[str, float], is_best: bool, history: dict[str, list]
    ) -> None:
        """Print the metrics of an epoch, and whether its model is the best so far."""
        self._close_bar()
        if self._history_path is not None:
            write_history(history, self._history_path)
        if self._events is not None:
            for name, number in metrics.items():
                self._events.add_scalar(name, number, len(history["loss"]))
            self._events.flush()
        parts = [
            f"{self._title}: loss {metrics['loss']:.4f}, accuracy {metrics['accuracy']:.2%}",
            f"{metrics['images_per_second']:,.0f} images/s",
        ]
        if "validation_accuracy" in metrics:
            parts.insert(
                1,
                f"validation loss {metrics['validation_loss']:.4f}, "
                f"accuracy {metrics['validation_accuracy']:.2%}" + (" (best)" if is_best else ""),
            )
        seconds = self._time_left.epoch_ended(self._epoch)
        if seconds:
            parts.append(f"{timedelta(seconds=round(seconds))} left")
        self.line(" | ".join(parts))

    def run_ended(self) -> None:
        """Close the bar at the end of a run, or when it is interrupted."""
        self._cancel_compiling_timer()
        self._close_bar()

    def close(self) -> None:
        """Close the log file and the event files. Later lines are printed, but not logged."""
        self.run_ended()
        if self._events is not None:
            self._events.close()
        for handler in self._log.handlers[:]:
            self._log.removeHandler(handler)
            handler.close()

    def _cancel_compiling_timer(self) -> None:
        if self._compiling_timer is not None:
            self._compiling_timer.cancel()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
