"""Files that are there whole or not at all, whenever the machine stops."""

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
    """Raise InputError for a pipe or a device: reading one may never end, nor begin anew."""
    with contextlib.suppress(OSError):  # whoever opens it says what is wrong
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise InputError(f"{path}: is no file but a pipe or a device: give a file")


def replace(path: str | Path, text: str) -> None:
    """Write text to a temporary file beside ``path``, sync it, and rename it.

    Whoever reads ``path`` sees the old text or the whole new one, whenever the machine stops.

    Raises
    ------
    OSError
        With a message for the user, when the disk is full, say; what was there is untouched.
    """
    path = Path(path)
    try:
        _replace(path, text)
    except OSError as error:
        raise OSError(
            f"{path}: cannot be saved: {error.strerror or error}; what was there is as it was: "
            "make room, or name another place"
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
    """Make a folder and those that it lies in, where they are missing, to outlast a power cut."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_directory(folder.parent)


def remove_leftovers(path: Path) -> None:
    """Delete what killed processes left of their writing to a path; none may be writing now."""
    for left in path.parent.glob(f"{_prefix(path)}*.tmp"):
        left.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    """Return what temporary files for a path begin with, however long its name is."""
    return f".saving-{zlib.crc32(os.fsencode(path.name)):08x}-"


def _umask() -> int:
    """Return the mask for new files, which mkstemp leaves out of account."""
    with _umask_lock:  # in between, other threads' files would be anyone's to write
        mask = os.umask(0)
        os.umask(mask)
    return mask


def _sync_directory(directory: Path) -> None:
    """Make a rename last through a power cut, where the system lets directories be synced."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # a folder that may be written to, and not read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems'
            raise OSError(f"{directory}: cannot be synced: {error.strerror}") from error
    finally:
        os.close(descriptor)
