"""Atomic writes: a file is complete or absent, whenever the machine stops."""

import contextlib
import errno
import os
import stat
import tempfile
import threading
import zlib
from pathlib import Path

from training.errors import InputError

_umask_lock = threading.Lock()


def reject_special_files(path: Path) -> None:
    """Raise InputError for a pipe or a device, which cannot be read twice and may never end."""
    with contextlib.suppress(OSError):  # opening the file will raise it again
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise InputError(f"{path}: is a pipe or a device: give a file")


def replace(path: str | Path, text: str) -> None:
    """Write text to a temporary file beside ``path``, sync it, and rename it.

    A reader of ``path`` sees the complete old text or the complete new text, whenever the machine
    stops.

    Raises
    ------
    OSError
        With a message for the user. Either the text cannot be written, because the disk is full,
        say, and the old file is unchanged. Or the directory cannot be synced after the rename: the
        new file is in place, but may be lost if the machine stops.
    """
    path = Path(path)
    try:
        _replace(path, text)
    except OSError as error:
        raise OSError(
            f"{path}: cannot be saved: {error.strerror or error}; an earlier file is unchanged: "
            "free some space, or name another place"
        ) from error
    _sync_directory(path.parent)


def _replace(path: Path, text: str) -> None:
    make_folder(path.parent)
    handle, name = tempfile.mkstemp(prefix=_prefix(path), suffix=".tmp", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """Make a folder and its parents where they are missing, and sync them to the disk."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_directory(folder.parent)


def remove_leftovers(path: Path) -> None:
    """Delete the temporary files of killed processes for a path; none may be writing now."""
    for left in path.parent.glob(f"{_prefix(path)}*.tmp"):
        left.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    """Return the prefix of temporary files for a path; it is short, however long its name is."""
    return f".saving-{zlib.crc32(os.fsencode(path.name)):08x}-"


def _umask() -> int:
    """Return the permission mask for new files, which mkstemp does not apply."""
    with _umask_lock:  # while it is 0, any user may write to the files of other threads
        mask = os.umask(0)
        os.umask(mask)
    return mask


def _sync_directory(directory: Path) -> None:
    """Sync a directory after a rename, where the system can sync directories."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # a folder that may be written to but not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems
            raise OSError(f"{directory}: cannot be synced: {error.strerror}") from error
    finally:
        os.close(descriptor)
