"""Read Parquet files of encoded images, as data sets are published on the Hugging Face Hub."""

import json
import re
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from training.datasets.cache import cached, file_state
from training.datasets.dataset import Dataset, ReadOptions
from training.datasets.gzip_file import MAX_RATIO, MIN_LIMIT_BYTES
from training.datasets.labels import encode_classes
from training.datasets.parts import read_parts
from training.datasets.pictures import decode_pictures, decoder_version
from training.errors import InputError
from training.saving.atomic_file import reject_special_files

MAGIC = b"PAR1"
BATCH_ROWS = 64  # memory holds so many encoded images
IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "class")
MAX_LISTED = 20  # columns that a message names
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
        The training images, with the other parts as its `validation` and `test`; only the test
        images if `options` has `like`. If there is only one part, that.

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
    files = _split_shards(_find_shards(path)) if path.is_dir() else {"train": [path]}

    def read(part: str, options: ReadOptions) -> Dataset:
        identity = "parquet", str(path.resolve()), part, options.for_cache
        states = [(file.name, file_state(file)) for file in files[part] if file.is_file()]
        dataset = cached(
            identity,
            (decoder_version(options), states),
            lambda: _read_part(path, files[part], options),
        )
        return replace(dataset, source=str(path))

    return read_parts(path, files, read, options)


# -- folders --------------------------------------------------------------------------------------
def _find_shards(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.glob("*.parquet")
        if not file.name.startswith(".")  # metadata files of macOS
    )


def _split_shards(files: Sequence[Path]) -> dict[str, list[Path]]:
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
            f"{others[0]}: has no name of training or test images, as other files beside it have: "
            "begin its name with train-, validation- or test-, or move it away"
        )
    for part_files in parts.values() if parts else [others]:
        _check_complete(part_files)
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
    missing = next(index for index in range(len(present) + 1) if index not in present)
    if missing < int(first["count"]):
        width = len(first["index"])
        raise InputError(
            f"{files[0].parent}: lacks {first['start']}-{missing:0{width}}-of-{first['count']}"
            ".parquet: download it too"
        )


# -- one part -------------------------------------------------------------------------------------
class _Spool:
    """A temporary file of encoded images, which can be read in any order.

    A Parquet file can be read only in large groups of rows, and the images of a data set need not
    fit into memory while they are encoded.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self._ends = [0]
        self._lock = threading.Lock()

    @property
    def n_bytes(self) -> int:
        """The size of all images."""
        return self._ends[-1]

    def append(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise InputError(
                f"{tempfile.gettempdir()}: cannot hold a temporary file of the encoded images "
                f"({error.strerror}): free some space, or name another folder with TMPDIR"
            ) from None
        self._ends.append(self._ends[-1] + len(data))

    def read(self, index: int) -> bytes:
        """Return an image. Threads may call this at the same time."""
        start, end = self._ends[index : index + 2]
        with self._lock:
            self._file.seek(start)
            return self._file.read(end - start)

    def close(self) -> None:
        self._file.close()


def _read_part(path: Path, files: Sequence[Path], options: ReadOptions) -> Dataset:
    """Read the files of one part of the source `path`, one after the other."""
    with closing(_Spool()) as spool:
        tables = [_read_file(file, options.label_column, spool) for file in files]
        columns = tables[0][0]
        for file, (other_columns, _) in zip(files, tables, strict=True):
            if other_columns != columns:
                raise InputError(
                    f"{file}: has other columns or class names than {files[0]}: all files of a "
                    "part must be of one data set"
                )
        values = [value for _, file_values in tables for value in file_values]
        if not values:
            raise InputError(f"{path}: holds no images: it has no rows")
        labels, class_names = encode_classes(
            f"{path}, column {columns.label}",
            np.array(values, object if isinstance(values[0], str) else None),
            columns.class_names,
            options.like and options.like.class_names,
        )
        names = [
            f"{file}, row {row}"
            for file, (_, file_values) in zip(files, tables, strict=True)
            for row in range(1, len(file_values) + 1)
        ]
        pictures = decode_pictures(names, spool.read, options)
    return Dataset(
        pictures.images,
        labels[pictures.decoded],
        class_names,
        str(path),
        pictures.resize,
        pictures.notes + pictures.describe_rules(),
    )


@contextmanager
def _report_damage(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file: give the path of a Parquet file") from None
    except PermissionError:
        raise InputError(f"{path}: cannot be read: check its permissions") from None
    # OSError: of damaged data. MemoryError: a damaged file claims to hold any number of bytes.
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: is no Parquet file, or damaged or cut off ({reason}): copy or download it "
            "again"
        ) from None


def _read_file(
    path: Path, label_column: str | None, spool: _Spool
) -> tuple[Columns, list[int | float | str]]:
    """Append the images of a file to the spool; return its columns and the labels."""
    import pyarrow.parquet

    reject_special_files(path)
    values: list[int | float | str] = []
    max_bytes = spool.n_bytes + max(MIN_LIMIT_BYTES, MAX_RATIO * _size(path))
    with (
        _report_damage(path),
        pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file,
    ):
        columns = _choose_columns(path, file.schema_arrow, label_column)
        for batch in file.iter_batches(BATCH_ROWS, columns=[columns.image, columns.label]):
            images = _image_bytes(batch.column(columns.image))
            labels = batch.column(columns.label).to_pylist()
            for image, label in zip(images, labels, strict=True):
                if image is None or label is None:
                    missing = columns.image if image is None else columns.label
                    raise InputError(
                        f"{path}, row {len(values) + 1}: has no value in column {missing}: remove "
                        "the row"
                    )
                spool.append(image)
                values.append(label)
            if spool.n_bytes > max_bytes:
                raise InputError(
                    f"{path}: decompresses to more than {MAX_RATIO} times its size, which images "
                    "do not: save it without compression if its content is right"
                )
    return columns, values


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _image_bytes(array: Any) -> list[bytes | None]:
    """Return the encoded images of a column; None where there are none."""
    import pyarrow

    if pyarrow.types.is_struct(array.type):
        array = array.field("bytes")
    return array.to_pylist()


# -- columns --------------------------------------------------------------------------------------
def _choose_columns(path: Path, schema: Any, label_column: str | None) -> Columns:
    features = _features(schema.metadata)
    images = [field.name for field in schema if _holds_images(field.type)]
    image = _choose(images, _of_type(features, "Image"), IMAGE_NAMES)
    if image is None:
        raise InputError(
            f"{path}: has {'no column' if not images else 'several columns'} of encoded images "
            f"({_describe(schema)}): it must have one, of binary data or of structs with bytes and "
            "path, or one that is called image"
        )
    labels = [field.name for field in schema if _holds_labels(field.type)]
    if label_column is not None:
        label = _find_column(label_column, schema.names)
        if label not in labels:
            raise InputError(
                f"{path}: --label_column is {label_column}, and that is no column of whole numbers "
                f"or text ({_describe(schema)})"
            )
    else:
        label = _choose(labels, _of_type(features, "ClassLabel"), LABEL_NAMES)
    if label is None:
        raise InputError(
            f"{path}: which column has the labels is not clear ({_describe(schema)}): name it with "
            "--label_column"
        )
    feature = features.get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return Columns(image, label, tuple(names) if names and is_list else None)


def _choose(columns: Sequence[str], typed: Sequence[str], usual: Sequence[str]) -> str | None:
    """Return the column that is the only one by the metadata, by its usual name, or of all."""
    for candidates in (
        [column for column in columns if column in typed],
        [column for column in columns if column.lower() in usual],
        columns,
    ):
        if len(candidates) == 1:
            return candidates[0]
    return None


def _find_column(text: str, names: Sequence[str]) -> str | None:
    """Return the column of a name, or of a position from 1."""
    if text in names:
        return text
    position = int(text) if text.isdecimal() and len(text) < 10 else 0
    return names[position - 1] if 0 < position <= len(names) else None


def _features(metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    """Return what the Hugging Face library wrote about each column; {} if it wrote nothing."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _of_type(features: dict[str, Any], kind: str) -> list[str]:
    return [
        name
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == kind
    ]


def _holds_images(dtype: Any) -> bool:
    import pyarrow.types as types

    if types.is_struct(dtype):
        index = dtype.get_field_index("bytes")
        return index >= 0 and _holds_images(dtype.field(index).type)
    return types.is_binary(dtype) or types.is_large_binary(dtype) or types.is_binary_view(dtype)


def _holds_labels(dtype: Any) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(dtype):  # as of a categorical column of pandas
        return _holds_labels(dtype.value_type)
    return any(
        is_type(dtype)
        for is_type in (
            *(types.is_integer, types.is_boolean, types.is_floating),
            *(types.is_string, types.is_large_string, types.is_string_view),
        )
    )


def _describe(schema: Any) -> str:
    """Return the columns and their types, for messages."""
    columns = [f"{field.name}: {field.type}" for field in schema]
    more = len(columns) - MAX_LISTED
    return f"columns are {', '.join(columns[:MAX_LISTED])}" + (f" and {more} more" * (more > 0))
