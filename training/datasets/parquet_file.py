"""Read Parquet files of encoded images, as data sets are published on the Hugging Face Hub."""

import json
import re
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from training.datasets.dataset import (
    Dataset,
    ReadOptions,
    encode_names,
    encode_numbers,
    sort_class_names,
)
from training.datasets.pictures import decode_pictures
from training.errors import InputError
from training.input_format import check_class_names
from training.saving.atomic_file import reject_special_files

MAGIC = b"PAR1"
BATCH_ROWS = 256
IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "class")
PARTS = ("train", "validation", "test")
# Names of shards, such as train-00000-of-00002.parquet; the part of each first word.
PART_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}
SHARD_PATTERN = re.compile(r"(?P<start>.*)-(?P<index>\d+)-of-(?P<count>\d+)\.parquet")


class Columns(NamedTuple):
    """What is read of a table.

    Attributes
    ----------
    image : str
        Name of the column of encoded images.
    label : str
        Name of the column of labels.
    class_names : tuple of str or None
        Names of the classes 0, 1, 2, ... if the metadata has them.
    """

    image: str
    label: str
    class_names: tuple[str, ...] | None


def is_parquet_folder(path: Path) -> bool:
    """Return whether a path is a folder with Parquet files in it."""
    return path.is_dir() and bool(_find_shards(path))


def read_parquet(path: Path, options: ReadOptions) -> Dataset:
    """Read encoded images and their labels from a Parquet file, or a folder of such files.

    Parameters
    ----------
    path : Path
        A file with a column of images in the format of their files, as binary data or as a struct
        with a field ``bytes``, and a column of labels, whole numbers or text. If there are several
        such columns, it is the image column that is called image or img, and the label column that
        has class names in the metadata or is called label, labels or class. The metadata are those
        of the Hugging Face library, ``datasets``.

        The files of a folder whose names begin with train, validation (valid, val, dev) or test
        (testing, eval) are the parts of a split set. Files of one part, such as
        ``train-00000-of-00002.parquet``, are read in the order of their names.
    options : ReadOptions
        Its `label_column` is the name of the column of labels, or its position from 1.

    Returns
    -------
    Dataset
        The training images, with the other parts as its `validation` and `test`. If there is only
        one part, that.

    Raises
    ------
    InputError
        A file is missing, damaged or no Parquet file, has no such columns or too many, has a row
        without image or label; or pyarrow is missing.

    References
    ----------
    https://parquet.apache.org/docs/file-format
    """
    if find_spec("pyarrow") is None:
        raise InputError(f"{path}: reading Parquet files needs pyarrow: pip install pyarrow")
    files = {"train": [path]}
    if path.is_dir():
        files = _split_shards(path, _find_shards(path))
    known_names = options.like and options.like.class_names
    parts: dict[str, Dataset] = {}
    for part in PARTS:
        if part in files:
            parts[part] = _read_part(path, files[part], options, known_names)
            known_names = parts[part].class_names
            # The training images decide the form of the others.
            options = options._replace(like=options.like or parts[part].input_format)
    if len(parts) == 1:
        return next(iter(parts.values()))
    return replace(parts["train"], validation=parts.get("validation"), test=parts.get("test"))


# -- folders --------------------------------------------------------------------------------------
def _find_shards(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.glob("*.parquet")
        if not file.name.startswith(".")  # metadata files of macOS
    )


def _split_shards(folder: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the files of each part, or all as training files if no name says which part it is."""
    parts: dict[str, list[Path]] = {}
    others = []
    for file in files:
        part = PART_WORDS.get(re.split(r"[-_.]", file.name.lower())[0])
        if part is None:
            others.append(file)
        else:
            parts.setdefault(part, []).append(file)
    if others and parts:
        raise InputError(
            f"{others[0]}: is neither of the training images nor of the test images, as other files "
            "beside it are: begin its name with train-, validation- or test-, or move it away"
        )
    for part_files in parts.values() if parts else [others]:
        _check_complete(part_files)
    if len(parts) > 1 and "train" not in parts:
        raise InputError(
            f"{folder}: has files of {' and '.join(parts)} but no training images: add files whose "
            "names begin with train-"
        )
    return parts or {"train": others}


def _check_complete(files: Sequence[Path]) -> None:
    """Raise InputError if numbered files are of different sets, or one of a set is missing."""
    matches = [match for file in files if (match := SHARD_PATTERN.fullmatch(file.name))]
    if not matches:
        return
    first = matches[0]
    if len(matches) < len(files) or len({(m["start"], m["count"]) for m in matches}) > 1:
        raise InputError(
            f"{files[0]}: the files of its part are not of one set, NAME-00000-of-{first['count']}"
            ".parquet to the last: move the others away"
        )
    present = {int(match["index"]) for match in matches}
    missing = [index for index in range(int(first["count"])) if index not in present]
    if missing:
        width = len(first["index"])
        raise InputError(
            f"{files[0].parent}: lacks {first['start']}-{missing[0]:0{width}}-of-{first['count']}"
            ".parquet: download it too"
        )


# -- one part -------------------------------------------------------------------------------------
class _Spool:
    """A temporary file of encoded images, for random access: a Parquet file has it in large groups.

    The images of a data set need not fit into memory as long as they are encoded.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()
        self._ends = [0]
        self._lock = threading.Lock()

    def append(self, data: bytes) -> None:
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))

    def read(self, index: int) -> bytes:
        """Return an image; threads may call it at the same time."""
        start, end = self._ends[index : index + 2]
        with self._lock:
            self._file.seek(start)
            return self._file.read(end - start)

    def close(self) -> None:
        self._file.close()


def _read_part(
    path: Path,
    files: Sequence[Path],
    options: ReadOptions,
    known_names: tuple[str, ...] | None,
) -> Dataset:
    names: list[str] = []
    values: list[Any] = []
    class_names = None
    with _open_spool() as spool:
        for number, file in enumerate(files):
            columns, labels = _read_file(file, options.label_column, spool)
            if number and columns != first_columns:
                raise InputError(
                    f"{file}: has other columns or class names than {files[0]}: all files of a "
                    "part must be of one data set"
                )
            first_columns = columns
            names += [f"{file}, row {row}" for row in range(1, len(labels) + 1)]
            values += labels
        if not values:
            raise InputError(f"{path}: has no rows")
        pictures = decode_pictures(names, spool.read, options)
    kept = [values[index] for index in pictures.decoded]
    labels, class_names = _encode(path, kept, first_columns, known_names)
    return Dataset(
        pictures.images, labels, class_names, str(path), pictures.resize, pictures.notes
    )
