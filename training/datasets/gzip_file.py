"""Open a data file, gzip-compressed or not."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from training.errors import InputError
from training.saving.atomic_file import reject_special_files

GZIP_MAGIC = b"\x1f\x8b"
# A gzip file may decompress to a thousand times its size, and then to more than the memory of a
# machine. Images do not: MNIST decompresses to 5 times its size as IDX and 7 times as CSV.
MAX_RATIO = 200
MIN_LIMIT_BYTES = 1 << 30  # below this, the ratio is not limited


def max_decompressed_bytes(path: Path) -> int:
    """Return the number of bytes that the content of a compressed file may have."""
    return max(MIN_LIMIT_BYTES, MAX_RATIO * path.stat().st_size)


def decompression_bomb(path: Path) -> InputError:
    """Return the error for a file whose content is larger than that."""
    return InputError(
        f"{path}: decompresses to more than {MAX_RATIO} times its size, which images do not: "
        "decompress it yourself if its content is right"
    )


class _LimitedGzipFile(gzip.GzipFile):
    """A gzip file that raises InputError if it decompresses to more than images could."""

    def __init__(self, file: BinaryIO, path: Path):
        super().__init__(fileobj=file, mode="rb")
        self._path, self._n_bytes = path, 0
        self._max_bytes = max_decompressed_bytes(path)

    def _count(self, data: bytes) -> bytes:
        self._n_bytes += len(data)
        if self._n_bytes > self._max_bytes:
            raise decompression_bomb(self._path)
        return data

    def read(self, size: int | None = -1) -> bytes:
        return self._count(super().read(size))

    def read1(self, size: int = -1) -> bytes:
        return self._count(super().read1(size))


@contextmanager
def open_maybe_gzip(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, decompressed if it starts with gzip's magic number.

    Raises
    ------
    InputError
        The file cannot be opened, or its gzip data is damaged. Damage is found while reading.
    """
    reject_special_files(path)
    try:
        with open(path, "rb") as file:
            is_gzip = file.read(2) == GZIP_MAGIC
            file.seek(0)
            if is_gzip:
                with _LimitedGzipFile(file, path) as decompressed:
                    yield cast(BinaryIO, decompressed)
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
