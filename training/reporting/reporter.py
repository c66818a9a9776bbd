"""What a user sees while a model trains: a progress bar, or plain lines, and a log file."""

import contextlib
import csv
import io
import logging
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training.errors import InputError
from training.saving import atomic_file

COMPILING = "compiling the kernels for this machine, once: the next start finds them ready"


def write_history(history: dict[str, list], path: str | Path) -> None:
    """Write a CSV file with a row an epoch; what an epoch did not measure stays empty."""
    epochs = max(map(len, history.values()), default=0)
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["epoch", *history])
    for epoch in range(epochs):
        # What was measured for some epochs only was measured for the last ones.
        places = (epoch - epochs + len(numbers) for numbers in history.values())
        numbers = [
            numbers[place] if place >= 0 else ""
            for numbers, place in zip(history.values(), places, strict=True)
        ]
        rows.writerow([epoch + 1, *numbers])
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
    """A log whose disk may be full: that is told once, and the training goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        self.setLevel(logging.CRITICAL + 1)
        print(f"{self.baseFilename}: cannot be written: {sys.exc_info()[1]}", file=sys.stderr)
        # Left open, it would be written again at the very end: newer Pythons print that error too.
        with contextlib.suppress(OSError):
            self.close()


class Reporter:
    """Reports a training run.

    On a terminal, a bar an epoch; elsewhere, a line an epoch. The lines also go to a log file,
    with the time.

    Parameters
    ----------
    log_path : path, optional
        Log file; lines are appended.
    history_path : path, optional
        CSV file of the history, a row an epoch; written anew after each.
    quiet : bool
        Whether to print nothing.
    compiling : bool
        Whether a first batch that takes over a second is compiling kernels, and to say so.
    tensorboard : path, optional
        Directory for TensorBoard's event files; needs the package tensorboardX.
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
        self._events = None if tensorboard is None else _open_events(tensorboard)
        self._quiet = quiet
        self._bar: tqdm | None = None
        self._compiling: threading.Timer | None = None
        self._first_batch = compiling
        self._log = logging.Logger("training")
        if log_path is not None:
            handler = _LogFile(log_path, encoding="utf-8", errors="backslashreplace")
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            self._log.addHandler(handler)

    def line(self, text: str) -> None:
        """Print a line, and log it."""
        self._log.info(text)
        if not self._quiet:
            tqdm.write(text, file=sys.stdout)

    def run_started(self, epochs: int, done: int = 0) -> None:
        """Expect a number of epochs, of which some were done by an earlier run."""
        self._epochs, self._done, self._started = epochs, done, time.perf_counter()

    def epoch_started(self, epoch: int, images: int) -> None:
        self._title, self._epoch = f"epoch {epoch:>{len(str(self._epochs))}}/{self._epochs}", epoch
        self._seen, self._loss, self._correct = 0, 0.0, 0
        if self._first_batch:
            self._compiling = threading.Timer(1.0, self.line, [COMPILING])
            self._compiling.daemon = True
            self._compiling.start()
        if not self._quiet and sys.stdout.isatty():
            self._bar = tqdm(
                total=images, desc=self._title, unit=" images", leave=False, file=sys.stdout
            )

    def batch_skipped(self, images: int) -> None:
        """Count in a batch that an earlier run has trained on."""
        if self._bar is not None:
            self._bar.update(images)

    def batch_ended(self, images: int, loss: float, correct: int) -> None:
        """Count a batch in; ``loss`` is its mean."""
        if self._first_batch:
            self._first_batch = False
            self._stop_waiting()
        if self._bar is None:
            return
        self._seen += images
        self._loss += loss * images
        self._correct += correct
        self._bar.set_postfix_str(
            f"loss {self._loss / self._seen:.4f}, accuracy {self._correct / self._seen:.2%}",
            refresh=False,
        )
        self._bar.update(images)

    def state_saved(self, step: int) -> None:
        """Tell that the run could go on from this step of the epoch."""
        self.line(f"{self._title}, step {step}: kept")

    def epoch_ended(self, numbers: dict[str, float], saved: bool, history: dict[str, list]) -> None:
        """Print what an epoch measured, and whether its model is the best so far."""
        self._close_bar()
        if self._history_path is not None:
            write_history(history, self._history_path)
        if self._events is not None:
            for name, number in numbers.items():
                self._events.add_scalar(name, number, len(history["loss"]))
            self._events.flush()
        parts = [
            f"{self._title}: loss {numbers['loss']:.4f}, accuracy {numbers['accuracy']:.2%}",
            f"{numbers['images_per_second']:,.0f} images/s",
        ]
        if "validation_accuracy" in numbers:
            parts.insert(
                1,
                f"validation loss {numbers['validation_loss']:.4f}, "
                f"accuracy {numbers['validation_accuracy']:.2%}" + (" (best)" if saved else ""),
            )
        each = (time.perf_counter() - self._started) / (self._epoch - self._done)
        left = each * (self._epochs - self._epoch)
        if left:
            parts.append(f"{timedelta(seconds=round(left))} left")
        self.line(" | ".join(parts))

    def close(self) -> None:
        """End the bar and the event file; needed after an interruption."""
        self._stop_waiting()
        self._close_bar()
        if self._events is not None:
            self._events.close()

    def _stop_waiting(self) -> None:
        if self._compiling is not None:
            self._compiling.cancel()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
