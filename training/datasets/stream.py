"""Opening a data file, gzip or not."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from training.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"


@contextmanager
def open_stream(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, decompressed when it starts with gzip's magic number.

    Raises
    ------
    InputError
        The file cannot be opened, or its gzip data is damaged; the latter while reading.
    """
    try:
        with open(path, "rb") as file:
            is_gzip = file.read(2) == GZIP_MAGIC
            file.seek(0)
            if is_gzip:
                with gzip.open(file) as unpacked:
                    yield cast(BinaryIO, unpacked)
            else:
                yield file
    except FileNotFoundError:
        raise InputError(f"{path}: no such file: give the path of a CSV or IDX file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a directory: give a CSV or IDX file in it") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{path}: its gzip data is damaged or cut off ({error}): copy or download it again"
        ) from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}): check the path and its permissions"
        ) from None
