"""Keep decoded data sets on disk, from where the next start maps them into memory.

An entry of the cache is one file:

    magic, length of the header (uint64), CRC-32 of the header (uint32)
    header: JSON, filled up with spaces to a whole page
    images, labels: the bytes of the arrays

It gets its name after it is complete. Its checksums are compared whenever it is opened, so that
one that a crash of the machine or a fault of the disk has damaged is built again.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import mmap
import os
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock

from training.datasets.dataset import Dataset
from training.datasets.download import cache_directory

MAGIC = b"CNN images v1\n\0\0"
PREFIX = struct.Struct(f"<{len(MAGIC)}sQI")
SUFFIX = ".images"
PAGE_BYTES = 4096  # images begin at a page
BLOCK_BYTES = 1 << 20
MAX_HEADER_BYTES = 1 << 26
MAX_CACHE_BYTES = 20 << 30  # the entries that were used least recently are removed beyond this
MIN_SECONDS = 0.3  # a data set that is read in less time is not kept
LOCK_SECONDS = 60  # to wait for another process that writes


class _DamagedError(Exception):
    """A file is no complete entry of the cache, or another one."""


def images_directory() -> Path:
    """Return the directory of the entries; the variable CNN_CACHE_DIR names another one."""
    named = os.environ.get("CNN_CACHE_DIR")
    return Path(named).expanduser() if named else cache_directory() / "images"


def cached(identity: object, state: object, build: Callable[[], Dataset]) -> Dataset:
    """Return a data set from the cache, or build it and keep it there.

    Without a cache that can be written to, the data set is built, and a note says so. Two processes
    may do this at once. Entries are removed, those that were used least recently first, when all
    have more than 20 GB.

    Parameters
    ----------
    identity : object
        What is read and how, such as the path and the options; its `repr` is used. A data set
        replaces an earlier one of the same identity.
    state : object
        All that the content depends on besides, such as the sizes and the times of the files; its
        `repr` is used. An entry with another state is not used.
    build : callable
        Reads the data set. One that has other parts is not kept.

    Returns
    -------
    Dataset
        Its images may be mapped from the cache. Writing to them changes nothing on disk.
    """
    directory = images_directory()
    key = _hash((sys.byteorder, identity, state))
    path = directory / f"{_hash(identity)}{SUFFIX}"
    _remove_leftovers(directory)
    try:
        dataset = _open(path, key)
    except (OSError, _DamagedError):
        pass
    else:
        with contextlib.suppress(OSError):
            os.utime(path)  # now, as the time of the last use
        return dataset
    start = time.perf_counter()
    dataset = build()
    is_quick = time.perf_counter() - start < MIN_SECONDS
    if is_quick or dataset.validation is not None or dataset.test is not None:
        return dataset
    try:
        _store(path, key, dataset)
        return _open(path, key, verify=False)  # which frees the memory of the images
    except (OSError, _DamagedError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        note = f"{directory}: the images are not kept for the next start: {reason}"
        return dataclasses.replace(dataset, notes=(*dataset.notes, note))


def file_state(path: Path) -> tuple[int, int, int]:
    """Return what changes if a file is written to: its size, mtime_ns and ctime_ns."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hash(value: object) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "surrogatepass")).hexdigest()[:40]


# -- reading --------------------------------------------------------------------------------------
def _open(path: Path, key: str, verify: bool = True) -> Dataset:
    """Map an entry into memory; raise _DamagedError if it is not complete or has another key."""
    with open(path, "rb") as file:
        header = _read_header(file)
        if header["key"] != key:
            raise _DamagedError("is stale")
        start = file.tell()
        shape, dtype = tuple(header["shape"]), np.dtype(header["dtype"])
        n_bytes = math.prod(shape) * dtype.itemsize
        n_labels_bytes = 8 * shape[0]
        if os.fstat(file.fileno()).st_size != start + n_bytes + n_labels_bytes:
            raise _DamagedError("has another length")
        if verify and _checksum(file) != header["checksum"]:
            raise _DamagedError("has another checksum")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    images: np.ndarray = np.frombuffer(mapped, dtype, math.prod(shape), start)
    labels = np.frombuffer(mapped, np.int64, shape[0], start + n_bytes).copy()
    return Dataset(
        images.reshape(shape),
        labels,
        tuple(header["class_names"]),
        header["source"],
        header["resize"],
        tuple(header["notes"]),
    )


def _read_header(file: BinaryIO) -> dict[str, Any]:
    prefix = file.read(PREFIX.size)
    if len(prefix) < PREFIX.size:
        raise _DamagedError("is too short")
    magic, n_bytes, checksum = PREFIX.unpack(prefix)
    if magic != MAGIC or n_bytes > MAX_HEADER_BYTES:
        raise _DamagedError("is not an entry")
    text = file.read(n_bytes)
    if len(text) < n_bytes or zlib.crc32(text) != checksum:
        raise _DamagedError("has a damaged header")
    return json.loads(text)  # of this program, as the checksum shows


def _checksum(file: BinaryIO) -> int:
    """Return the CRC-32 of the rest of a file: 0.2 s for 150 MB."""
    checksum, buffer = 0, memoryview(bytearray(BLOCK_BYTES))
    while n_bytes := file.readinto(buffer):  # type: ignore[attr-defined]
        checksum = zlib.crc32(buffer[:n_bytes], checksum)
    return checksum


# -- writing --------------------------------------------------------------------------------------
def _store(path: Path, key: str, dataset: Dataset) -> None:
    """Write an entry under a temporary name, and rename it."""
    directory = path.parent
    images, labels = np.ascontiguousarray(dataset.images), dataset.labels.astype(np.int64)
    header = {
        "key": key,
        "shape": images.shape,
        "dtype": images.dtype.name,
        "checksum": zlib.crc32(_as_bytes(labels), zlib.crc32(_as_bytes(images))),
        "class_names": dataset.class_names,
        "source": dataset.source,
        "resize": dataset.resize,
        "notes": dataset.notes,
    }
    text = json.dumps(header).encode()
    text += b" " * (-(PREFIX.size + len(text)) % PAGE_BYTES)
    directory.mkdir(parents=True, exist_ok=True)
    with _lock(directory, LOCK_SECONDS):
        _delete(directory.glob("*.tmp"))  # of killed processes, for no other one has the lock
        handle, name = tempfile.mkstemp(suffix=".tmp", dir=directory)
        try:
            with open(handle, "wb") as file:
                file.write(PREFIX.pack(MAGIC, len(text), zlib.crc32(text)) + text)
                file.write(_as_bytes(images))
                file.write(_as_bytes(labels))
            os.replace(name, path)
        finally:
            _delete([Path(name)])
        _remove_least_used(directory, path)


def _as_bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _lock(directory: Path, timeout: float) -> FileLock:
    """Return the lock of processes that write; the system releases it if they are killed."""
    return FileLock(directory / ".lock", timeout=timeout)


def _remove_leftovers(directory: Path) -> None:
    """Delete the temporary files of killed processes, unless a process is writing."""
    leftovers = list(directory.glob("*.tmp"))
    if leftovers:
        with contextlib.suppress(OSError, NotImplementedError), _lock(directory, 0):
            _delete(leftovers)


def _remove_least_used(directory: Path, newest: Path) -> None:
    """Delete the entries that were used least recently until the others are small enough."""
    entries = []
    for path in directory.glob(f"*{SUFFIX}"):
        with contextlib.suppress(OSError):
            status = path.stat()
            entries.append((path == newest, status.st_mtime_ns, status.st_size, path))
    total = sum(size for _, _, size, _ in entries)
    for is_newest, _, size, path in sorted(entries):
        if total <= MAX_CACHE_BYTES or is_newest:
            return
        _delete([path])
        total -= size


def _delete(paths: Any) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()
