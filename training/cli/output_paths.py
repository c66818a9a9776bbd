"""Where a run writes: found out before it, and nothing that lies there is lost."""

import csv
import io
import tempfile
from pathlib import Path

from training.cli.arguments import run_path, sibling_path
from training.datasets.predict_inputs import SUFFIXES
from training.errors import InputError
from training.reporting.plots import NAMES
from training.saving import atomic_file
from training.saving.model_file import is_model, is_run

LOG_NAME = "training.log"


def same(path: Path, other: Path | None) -> bool:
    return other is not None and path.exists() and other.exists() and path.samefile(other)


def prepare_training(to_path: Path, given: list[Path | None], plots: bool) -> None:
    """Find out before a training, not after it, that something could not be saved.

    Parameters
    ----------
    to_path : Path
        Of the model.
    given : list of Path or None
        Files that the training reads.
    plots : bool
        Whether pictures are drawn.

    Raises
    ------
    InputError
        Naming what is in the way.
    """
    prepare_target(to_path, of_run=False)
    prepare_target(run_path(to_path), of_run=True)
    history = sibling_path(to_path, "history.csv")
    pictures = [sibling_path(to_path, f"{name}.png") for name in NAMES] if plots else []
    for path in (history, to_path.parent / LOG_NAME, *pictures):
        if path.is_dir() or path.is_fifo():
            raise InputError(
                f"{path}: is no file, and one of this name is written beside the model: "
                "move it away, or name another --to_path"
            )
        if any(same(path, other) for other in given):
            raise InputError(
                f"{path}: is to be read, and would be written over: name another --to_path"
            )
    if history.exists() and not _is_history(history):
        raise InputError(
            f"{history}: is no history of a training, and would be written over: "
            "move it away, or name another --to_path"
        )


def _is_history(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(6) in (b"epoch,", b"")


def prepare_target(path: Path, of_run: bool) -> None:
    """Find out whether a model, or a run, can be saved at a path, and nothing else is there."""
    if path.is_dir():
        raise InputError(f"--to_path {path}: is a directory; name a file in it")
    if path.name == LOG_NAME or (path.exists() and not is_model(path)):
        raise InputError(f"--to_path {path}: is no model, and would be overwritten; name another")
    if path.exists() and is_run(path) != of_run:
        what = "is a model, and the run would be kept there" if of_run else "keeps a run"
        raise InputError(f"--to_path {path}: {what}; name another")
    prepare_folder(path)


def prepare_folder(path: Path) -> None:
    """Make the folder of a file that is to be written, and see that one can be."""
    try:
        atomic_file.make_folder(path.parent)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(
            f"--to_path {path}: cannot be written: {error.strerror}; name a path that can"
        ) from None


def check_output(output: Path, given: list[Path]) -> None:
    """Raise InputError where labels cannot be written, or over something that is not theirs."""
    if not output.parent.is_dir():
        raise InputError(f"--output {output}: No such file or directory: name another")
    taken = is_model(output) or output.name == LOG_NAME or output.suffix.lower() in SUFFIXES
    if taken or any(same(output, other) for other in given):
        raise InputError(f"--output {output}: would be overwritten; name another")


def write_table(rows: list[tuple], output: Path) -> None:
    """Write rows as CSV, whole or not at all."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    try:
        if output.exists() and not output.is_file():  # /dev/stdout is not to be replaced
            output.write_text(text.getvalue(), encoding="utf-8", newline="")
        else:
            atomic_file.replace(output, text.getvalue())
    except OSError as error:
        reason = f"{error.strerror}: name another" if error.errno else error
        raise InputError(f"--output {reason}") from None
