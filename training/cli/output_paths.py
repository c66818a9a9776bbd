"""The files that a run writes, and checks that they replace nothing of another kind."""

import csv
import io
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from training.datasets.picture_file import SUFFIXES
from training.errors import InputError
from training.reporting.input_sheet import is_sheet
from training.reporting.plots import INSTALL, NAMES, can_draw
from training.saving import atomic_file
from training.saving.model_file import is_model, is_run
from training.saving.report_file import is_report

LOG_NAME = "training.log"


def sibling_path(to_path: Path, suffix: str) -> Path:
    """Return the path of a file that belongs to a model, such as model-run.json of model.json."""
    name = to_path.stem if to_path.suffix == ".json" else to_path.name
    return to_path.parent / f"{name}-{suffix}"


def run_path(to_path: Path) -> Path:
    """Return the path of the state from which the run that writes a model can be resumed."""
    return sibling_path(to_path, "run.json")


def is_same_file(path: Path, other: Path | None) -> bool:
    """Return whether two paths lead to one existing file."""
    return other is not None and path.exists() and other.exists() and path.samefile(other)


def prepare_training(to_path: Path, inputs: Iterable[Path | None], plots: bool) -> None:
    """Check before a training that everything it saves can be saved, and make the folder.

    Parameters
    ----------
    to_path : Path
        Of the model.
    inputs : iterable of Path or None
        Files that the training reads.
    plots : bool
        Whether plots are drawn.

    Raises
    ------
    InputError
        Naming the file that would be overwritten or cannot be written.
    """
    inputs = list(inputs)
    _prepare_json(to_path, is_for_run=False)
    _prepare_json(run_path(to_path), is_for_run=True)
    history = sibling_path(to_path, "history.csv")
    plot_paths = [sibling_path(to_path, f"{name}.png") for name in NAMES] if plots else []
    for path in (history, to_path.parent / LOG_NAME, *plot_paths):
        if path.is_dir() or path.is_fifo():
            raise InputError(
                f"{path}: is not a regular file, and a file of this name is written beside the "
                "model: move it away, or name another --to_path"
            )
        if any(is_same_file(path, other) for other in inputs):
            raise InputError(
                f"{path}: is an input, and would be overwritten: name another --to_path"
            )
    if history.exists() and not _is_history(history):
        raise InputError(
            f"{history}: is not the history of a training, and would be overwritten: "
            "move it away, or name another --to_path"
        )


def _is_history(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(6) in (b"epoch,", b"")


def _prepare_json(path: Path, is_for_run: bool) -> None:
    """Check that a model, or the state of a run, can be saved at a path and replaces only one."""
    if path.is_dir():
        raise InputError(f"--to_path {path}: is a directory; name a file in it")
    if path.name == LOG_NAME or (path.exists() and not is_model(path)):
        raise InputError(
            f"--to_path {path}: is not a model, and would be overwritten; name another"
        )
    if path.exists() and is_run(path) != is_for_run:
        content = (
            "is a model, and the state of the run would be saved there"
            if is_for_run
            else "is the state of a run"
        )
        raise InputError(f"--to_path {path}: {content}; name another")
    prepare_folder(path)


def prepare_folder(path: Path) -> None:
    """Make the folder of a file to be written, and check that files can be made in it."""
    try:
        atomic_file.make_folder(path.parent)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(
            f"--to_path {path}: cannot be written: {error.strerror}; choose a writable path"
        ) from None


def check_output(output: Path, inputs: Iterable[Path]) -> None:
    """Raise InputError if labels cannot be written to a path, or would replace another file.

    Parameters
    ----------
    output : Path
        The path of --output.
    inputs : iterable of Path
        Files that the prediction reads.
    """
    _check_folder("--output", output)
    if output.is_dir():
        raise InputError(f"--output {output}: is a directory; name a file in it")
    is_reserved_name = output.name == LOG_NAME or output.suffix.lower() in SUFFIXES
    if is_reserved_name and not output.exists():
        raise InputError(
            f"--output {output}: is the name of a picture or a log, and labels are written as CSV; "
            "name another"
        )
    if is_reserved_name or is_model(output) or any(is_same_file(output, path) for path in inputs):
        raise InputError(f"--output {output}: would be overwritten; name another")


def check_sheet(path: Path, source: Path) -> None:
    """Raise InputError if a sheet of images cannot be drawn at a path, or would replace a picture.

    Parameters
    ----------
    path : Path
        The path of --show_input.
    source : Path
        The file or the folder of the images.
    """
    if not can_draw():
        raise InputError(f"--show_input needs matplotlib: {INSTALL}")
    _check_folder("--show_input", path)
    if path.suffix.lower() != ".png":
        raise InputError(f"--show_input {path}: the sheet is a PNG: name a file that ends in .png")
    if path.exists() and not (path.is_file() and is_sheet(path)):
        raise InputError(
            f"--show_input {path}: is not a sheet of this program, and would be overwritten; name "
            "another"
        )
    if source.is_dir() and source.resolve() in path.resolve().parents:
        raise InputError(
            f"--show_input {path}: is in the folder of the images, and would be one of them next "
            "time: name a file elsewhere"
        )


def check_report(path: Path) -> None:
    """Raise InputError if a report cannot be written to a path, or would replace another file."""
    _check_folder("--report", path)
    if path.name == LOG_NAME or path.suffix.lower() in SUFFIXES:
        raise InputError(
            f"--report {path}: is the name of a picture or a log, and a report is written as JSON; "
            "name another"
        )
    if path.is_dir() or (path.is_file() and not is_report(path)):
        raise InputError(
            f"--report {path}: is not a report, and would be overwritten; name another"
        )


def _check_folder(flag: str, path: Path) -> None:
    if not path.parent.is_dir():
        raise InputError(f"{flag} {path}: the folder {path.parent} does not exist")


def write_table(rows: Iterable[Sequence], output: Path) -> None:
    """Write rows as CSV to the file of --output; see `write_text`."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    write_text("--output", output, text.getvalue())


def write_text(flag: str, path: Path, text: str) -> None:
    """Write the file of a flag. The file is complete, or unchanged if that fails."""
    try:
        if path.exists() and not path.is_file():  # such as /dev/stdout, not to be replaced
            path.write_text(text, encoding="utf-8", newline="")
        else:
            atomic_file.replace(path, text)
    except OSError as error:
        # The messages of `atomic_file` name the file already.
        reason = f"{path}: {error.strerror}; name another" if error.errno else error
        raise InputError(f"{flag} {reason}") from None
