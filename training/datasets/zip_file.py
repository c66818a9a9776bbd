"""Open the one file of a zip archive."""

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from training.datasets.gzip_file import decompression_bomb, max_decompressed_bytes, open_maybe_gzip
from training.errors import InputError

ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")  # the second one if it holds no file
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MAX_LISTED = 3  # files that a message names


@contextmanager
def open_maybe_compressed(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes: as it is, or decompressed from gzip or from a zip archive.

    Raises
    ------
    InputError
        As for `open_maybe_gzip`; a zip archive that is damaged or encrypted, or holds several
        files or none. Damage may be found while reading.
    """
    with open_maybe_gzip(path) as stream:
        if isinstance(stream, gzip.GzipFile) or not _is_zip(stream):
            yield stream
            return
        try:
            archive = zipfile.ZipFile(stream)
            member = archive.open(_find_member(path, archive))
        except InputError:
            raise
        except Exception as error:  # the module raises many types for a damaged file
            raise _damaged(path, error) from None
        try:
            with archive, member:
                yield cast(BinaryIO, member)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise _damaged(path, error) from None


def _is_zip(stream: BinaryIO) -> bool:
    start = stream.read(4)
    stream.seek(0)
    return start in ZIP_MAGICS


def _find_member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    members = [info for info in archive.infolist() if not _is_clutter(info)]
    if len(members) != 1:
        names = ", ".join(repr(info.filename[:40]) for info in members[:MAX_LISTED])
        more = ", ..." if len(members) > MAX_LISTED else ""
        held = f"{len(members)} files ({names}{more})" if members else "no file"
        raise InputError(
            f"{path}: is a zip archive that holds {held}: unzip it, and give the path of a CSV file"
        )
    member = members[0]
    if member.flag_bits & 1:
        raise InputError(f"{path}: is an encrypted zip archive: unzip it with its password")
    if member.compress_type not in METHODS:
        raise InputError(
            f"{path}: its zip archive is compressed by a method other than deflate: unzip it"
        )
    if member.file_size > max_decompressed_bytes(path):  # the module reads no more than this size
        raise decompression_bomb(path)
    return member


def _is_clutter(info: zipfile.ZipInfo) -> bool:
    """Return whether a member is a folder, or a file that a system added on its own."""
    parts = PurePosixPath(info.filename).parts
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return info.is_dir() or hidden or parts[-1:] == ("Thumbs.db",)


def _damaged(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:100] or type(error).__name__
    return InputError(
        f"{path}: its zip data is damaged or cut off ({reason}): copy or download it again"
    )
