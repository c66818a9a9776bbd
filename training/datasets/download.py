"""Download the files of a data set from public mirrors, each checked by its SHA-256."""

import hashlib
import os
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

TIMEOUT_SECONDS = (5, 15)  # to connect, and between two packets
BLOCK_BYTES = 1 << 20


class DownloadError(OSError):
    """All sources failed. The message names each, why, and where to put the files by hand."""


class Archive(NamedTuple):
    """A .zip or .tar.gz file on the network with all files of a data set in one folder.

    Attributes
    ----------
    url : str
    sha256 : str
        SHA-256 of the archive.
    folder : str
        Path in the archive of the folder with the files.
    """

    url: str
    sha256: str
    folder: str


def _root_cause(error: BaseException) -> BaseException:
    """Return the first exception of a chain, such as "Connection refused"."""
    return error if error.__context__ is None else _root_cause(error.__context__)


def cache_directory() -> Path:
    """Return the directory for the downloads of this user; it may not exist."""
    import pooch

    return Path(pooch.os_cache("cnn"))


def download(name: str, checksums: Mapping[str, str], sources: Sequence[str | Archive]) -> Path:
    """Download the files of a data set into the cache, from the first source that works.

    A file gets its final name after its checksum was verified. A file that is there with the right
    checksum is not downloaded again.

    Parameters
    ----------
    name : str
        Name of the data set, and of the folder in the cache.
    checksums : mapping of str to str
        SHA-256 of each file, by its name.
    sources : sequence of str or Archive
        A string is the URL of a folder that has all files; it ends with a slash.

    Returns
    -------
    Path
        The directory of the files.

    Raises
    ------
    DownloadError
        Every source failed, or the cache cannot be written to.
    """
    folder = cache_directory() / name
    failures = []
    for source in sources:
        try:
            if isinstance(source, Archive):
                _download_archive(source, checksums, folder)
            else:
                for file, checksum in checksums.items():
                    _retrieve(source + file, checksum, folder)
            return folder
        except (OSError, ValueError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
            # The errors of requests are OSErrors.
            url = source.url if isinstance(source, Archive) else source
            failures.append(f"  {url}: {_root_cause(error)}")
    unpack = any(isinstance(source, Archive) for source in sources)
    raise DownloadError(
        "\n".join(
            [
                f"cannot download {name} into {folder}:",
                *failures,
                f"Download {', '.join(checksums)} by hand into that directory, or into one that "
                f"--data_dir or CNN_DATA_DIR names{' (unpack the archive there)' * unpack}. "
                "mnist-5k needs no network.",
            ]
        )
    )


def _retrieve(url: str, checksum: str, folder: Path) -> Path:
    """Download one file, unless it is there with the right checksum."""
    import pooch  # takes 0.1 s, and is rarely needed

    pooch.get_logger().setLevel("WARNING")  # the progress bar is enough
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT_SECONDS)
    name = url.rpartition("/")[2]
    return Path(pooch.retrieve(url, f"sha256:{checksum}", name, folder, downloader=downloader))


def _download_archive(archive: Archive, checksums: Mapping[str, str], folder: Path) -> None:
    """Download an archive, copy the files out of it, and delete it."""
    path = _retrieve(archive.url, archive.sha256, folder)
    missing = {f"{archive.folder}/{file}": file for file in checksums}
    for member, stream in _open_members(path, missing):
        file = missing.pop(member)
        _copy(stream, folder / file, checksums[file])
    if missing:
        raise ValueError(f"the archive lacks {', '.join(missing)}")
    path.unlink(missing_ok=True)


def _open_members(path: Path, names: Mapping[str, str]) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield those members of an archive that are plain files and have one of the names, opened.

    Nothing is extracted to a path that the archive names, and links in it are not followed.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as zip_file:
            for info in zip_file.infolist():
                if info.filename in names:
                    yield info.filename, zip_file.open(info)
    else:
        with tarfile.open(path, "r:gz") as tar_file:
            for member in tar_file:
                stream = tar_file.extractfile(member) if member.isreg() else None
                if stream is not None and member.name in names:
                    yield member.name, stream


def _copy(stream: IO[bytes], path: Path, checksum: str) -> None:
    """Write a stream to a file, which gets its name after its checksum was verified."""
    sha256 = hashlib.sha256()
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with open(handle, "wb") as file:
            while block := stream.read(BLOCK_BYTES):
                sha256.update(block)
                file.write(block)
        if sha256.hexdigest() != checksum:
            raise ValueError(f"SHA-256 hash of {path.name} in the archive does not match")
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
