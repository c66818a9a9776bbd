"""What a user sees while a model trains: a progress bar, or plain lines, and a log file."""

import logging
import sys
import threading
from pathlib import Path

from tqdm import tqdm

COMPILING = "compiling the kernels for this machine, once: the next start finds them ready"


class Reporter:
    """Reports a training run.

    On a terminal, a bar an epoch; elsewhere, a line an epoch. The lines also go to a log file,
    with the time.

    Parameters
    ----------
    log_path : path, optional
        Log file; lines are appended.
    quiet : bool
        Whether to print nothing.
    compiling : bool
        Whether a first batch that takes over a second is compiling kernels, and to say so.
    """

    def __init__(
        self, log_path: str | Path | None = None, quiet: bool = False, compiling: bool = False
    ):
        self._quiet = quiet
        self._bar: tqdm | None = None
        self._compiling: threading.Timer | None = None
        self._first_batch = compiling
        self._log = logging.Logger("training")
        if log_path is not None:
            handler = logging.FileHandler(log_path, encoding="utf-8")
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            self._log.addHandler(handler)

    def line(self, text: str) -> None:
        """Print a line, and log it."""
        self._log.info(text)
        if not self._quiet:
            tqdm.write(text, file=sys.stdout)

    def epoch_started(self, epoch: int, epochs: int, images: int) -> None:
        self._title = f"epoch {epoch}/{epochs}"
        self._seen, self._loss, self._correct = 0, 0.0, 0
        if self._first_batch:
            self._compiling = threading.Timer(1.0, self.line, [COMPILING])
            self._compiling.daemon = True
            self._compiling.start()
        if not self._quiet and sys.stdout.isatty():
            self._bar = tqdm(
                total=images, desc=self._title, unit=" images", leave=False, file=sys.stdout
            )

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

    def epoch_ended(self, numbers: dict[str, float], saved: bool) -> None:
        """Print what an epoch measured, and whether its model is the best so far."""
        self._close_bar()
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
        self.line(" | ".join(parts))

    def close(self) -> None:
        """End the bar; needed after an interruption."""
        self._stop_waiting()
        self._close_bar()

    def _stop_waiting(self) -> None:
        if self._compiling is not None:
            self._compiling.cancel()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
