"""Read a folder of pictures that has a subfolder for each class."""

import dataclasses
import errno
import hashlib
import os
import unicodedata
import zipfile
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from training.datasets.cache import cached
from training.datasets.dataset import Dataset, ReadOptions, list_names, sort_class_names
from training.datasets.picture_file import SUFFIXES, printable
from training.datasets.pictures import decode_pictures, decoder_version
from training.datasets.resize import check_pillow
from training.errors import InputError

# Files and folders that systems make beside pictures; hidden ones, with a dot, are skipped as well.
SYSTEM_NAMES = ("__macosx", "thumbs.db", "desktop.ini")
PART_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
N_NAMED = 5  # files or folders that a message names


class Listing(NamedTuple):
    """The files in a folder and in all folders in it, without those that systems make.

    Attributes
    ----------
    pictures : list of str
        Paths in the folder, with "/" between, of the files that are named as pictures, sorted.
    stats : ndarray of int64, shape (n, 3)
        The size, mtime_ns and ctime_ns of each of them; -1 for a link that leads nowhere.
    others : list of str
        Paths of the other files, sorted.
    """

    pictures: list[str]
    stats: np.ndarray
    others: list[str]


def read_folder(path: Path, options: ReadOptions) -> Dataset:
    """Read a folder of pictures that has a subfolder for each class.

    The images are in the order of their classes, see `sort_class_names`, and those of a class in
    the order of their paths in its folder, compared as text. All folders in that of a class belong
    to the class. Skipped are hidden files, other files that systems make (``Thumbs.db``,
    ``__MACOSX``), and files that are not named as pictures.

    Parameters
    ----------
    path : Path
        The folder of the class folders. Or a folder of ``train`` and one or both of ``test`` and
        ``val`` (or ``valid``, ``validation``), each of which has class folders. The classes, size,
        color and rule for resizing are those of ``train``. Only ``test`` is read if `options` ask
        for that part, or have `like` and ask for none.
    options : ReadOptions
        Those of `decode_pictures`. A folder must not have classes that `like` has not, by name.

    Raises
    ------
    InputError
        The folder has fewer than two classes, pictures beside the class folders, or pictures that
        cannot be decoded: all of a class, or more than `decode_pictures` skips. Or a folder cannot
        be read.
    """
    check_pillow(path)
    parts = _find_parts(path)
    if not parts:
        return _read_classes(path, options)
    if (options.part or ("train" if options.like is None else "test")) == "test":
        if "test" not in parts:
            raise InputError(f"{path}: has no folder test: give the folder of the test images")
        return _read_classes(path / parts["test"], options)
    train = _read_classes(path / parts["train"], options)
    notes = list(train.notes)
    others: dict[str, Any] = {}
    for part, name in parts.items():
        if part == "train":
            continue
        if _has_classes(path / name):
            like_train = options if options.like else ReadOptions(like=train.input_format)
            others[part] = _read_classes(path / name, like_train)
        else:  # such as the test images of a competition
            notes.append(f"{name} has no class folders and is not read")
    return dataclasses.replace(train, notes=tuple(notes), **others)


def _find_parts(path: Path) -> dict[str, str]:
    """Return the name of the folder of each part of a split folder; {} if it is not split."""
    folders, _ = _entries(path)
    parts = {
        part: name
        for part, part_names in PART_NAMES.items()
        for name in folders
        if name.lower() in part_names
    }
    if "train" not in parts or len(parts) == 1:
        return {}
    others = sorted(set(folders) - set(parts.values()))
    if others:
        raise InputError(
            f"{path}: has {', '.join(sorted(parts.values()))} and other folders, such as "
            f"{printable(others[0])}: move these away, or name the one of the training images"
        )
    return parts


def _has_classes(path: Path) -> bool:
    folders, _ = _entries(path)
    return bool(folders)


def _read_classes(path: Path, options: ReadOptions) -> Dataset:
    """Read a folder of class folders."""
    folders = _find_class_folders(path)
    listings = {name: list_pictures(path / folder) for name, folder in folders.items()}
    like = options.like
    names = sort_class_names(name for name, listing in listings.items() if listing.pictures)
    class_names = names if like is None else like.class_names
    _check_classes(path, folders, names, None if like is None else class_names)
    listing = Listing(
        [f"{folders[name]}/{file}" for name in names for file in listings[name].pictures],
        np.concatenate([listings[name].stats for name in names]),
        [f"{folders[name]}/{file}" for name in sorted(listings) for file in listings[name].others],
    )
    labels = np.repeat(
        np.array([class_names.index(name) for name in names], np.int64),
        [len(listings[name].pictures) for name in names],
    )

    def decode() -> Dataset:
        return _decode(path, listing.pictures, labels, class_names, options)

    identity = "folder", str(path.resolve()), options.for_cache
    state = decoder_version(options), class_names, digest(listing)
    dataset = cached(identity, state, decode)
    notes = [*dataset.notes, *describe_ignored(listing.others)]
    empty = [printable(name) for name in sorted(set(listings) - set(names))]
    if empty:
        notes.append(f"class folders without pictures: {list_names(empty)}")
    return dataclasses.replace(dataset, source=str(path), notes=tuple(notes))


def _find_class_folders(path: Path) -> dict[str, str]:
    """Return the folder of each class by the name of the class."""
    folders, files = _entries(path)
    pictures = [name for name in files if _is_picture_name(name)]
    if pictures and folders:
        raise InputError(
            f"{path}: has pictures beside the class folders, such as {printable(pictures[0])} "
            f"({len(pictures):,} in all): move them into the folder of their class, or away"
        )
    if not folders:
        content = f"pictures ({len(pictures):,}) and no folders" if pictures else "no pictures"
        raise InputError(f"{path}: has {content}: it must have a folder of pictures for each class")
    by_lower_case: dict[str, str] = {}
    classes = {}
    for folder in folders:
        if not folder.isprintable():  # nor are the surrogates that stand for other bytes than UTF-8
            raise InputError(
                f"{path}: the name of the folder {folder!r} is not printable text in UTF-8: "
                "rename it, for it is the name of a class"
            )
        name = unicodedata.normalize("NFC", folder)  # macOS and Linux write accents differently
        other = by_lower_case.setdefault(name.casefold(), folder)
        if other != folder:
            raise InputError(
                f"{path}: the folders {other} and {folder} differ only in case: if they are one "
                "class, move the pictures into one folder; else rename one"
            )
        classes[name] = folder
    return classes


def _check_classes(
    path: Path, folders: dict[str, str], names: Sequence[str], known: Sequence[str] | None
) -> None:
    """Raise InputError for too few classes, or for one that is not known."""
    if not names:
        raise InputError(
            f"{path}: its folders have no pictures: files whose names end in "
            f"{', '.join(sorted(SUFFIXES))}"
        )
    if known is not None:
        unknown = next((name for name in names if name not in known), None)
        if unknown is not None:
            raise InputError(
                f"{path}: has a folder {unknown}, and there is no such class: the folders must be "
                f"named as the {len(known)} classes, {list_names(known)}"
            )
    elif len(names) < 2:
        inner, _ = _entries(path / folders[names[0]])
        hint = f": give {path / folders[names[0]]} if its folders are the classes"
        raise InputError(
            f"{path}: has pictures of one class, {names[0]}, and training needs two or more"
            + (hint if len(inner) > 1 else "")
        )


def _decode(
    path: Path,
    files: Sequence[str],
    labels: np.ndarray,
    class_names: tuple[str, ...],
    options: ReadOptions,
) -> Dataset:
    names = [printable(f"{path}/{file}") for file in files]
    pictures = decode_pictures(names, lambda index: path / files[index], options)
    kept = labels[pictures.decoded]
    lost = np.setdiff1d(labels, kept)
    if len(lost):
        index = int((labels == lost[0]).argmax())
        raise InputError(
            f"{names[index]}: {pictures.skipped[index]}; nor can any other of the "
            f"{(labels == lost[0]).sum():,} pictures of the class {class_names[lost[0]]} be used"
        )
    notes = pictures.notes + pictures.describe_rules()
    return Dataset(pictures.images, kept, class_names, str(path), pictures.resize, notes)


def describe_ignored(files: Sequence[str]) -> list[str]:
    """Return a note on files whose names are not those of pictures, if there are any."""
    if not files:
        return []
    named = ", ".join(map(printable, files[:N_NAMED])) + (", ..." if len(files) > N_NAMED else "")
    return [f"ignored files whose names are not those of pictures ({len(files):,}): {named}"]


# -- files and folders ----------------------------------------------------------------------------
def list_pictures(path: Path) -> Listing:
    """Return the files in a folder and in all folders in it; links to folders are followed.

    Raises
    ------
    InputError
        A folder cannot be read, or is a link to a folder that it is in.

    Notes
    -----
    A million files in 1,000 folders take 5 s of one core and 320 MB on an Intel Xeon, if the system
    has them in its cache.
    """
    pictures: list[str] = []
    others: list[str] = []
    stats = array("q")
    todo: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    with _readable_folders(path):
        while todo:
            prefix, parents = todo.pop()
            parents = _check_loop(path / prefix, parents)
            for entry in _scan(path / prefix):
                if entry.is_dir():
                    todo.append((f"{prefix}{entry.name}/", parents))
                elif _is_picture_name(entry.name):
                    pictures.append(prefix + entry.name)
                    stats.extend(_stat(entry))
                else:
                    others.append(prefix + entry.name)
    order = sorted(range(len(pictures)), key=pictures.__getitem__)
    table = np.frombuffer(stats, np.int64).reshape(-1, 3)[order]
    return Listing([pictures[index] for index in order], table, sorted(others))


def digest(listing: Listing) -> str:
    """Return a hash of the names, the sizes and the times of the pictures."""
    names = "\0".join(listing.pictures).encode("utf-8", "surrogatepass")
    return hashlib.sha256(names + b"\0" + listing.stats.tobytes()).hexdigest()


def reject_zipped_pictures(path: Path) -> None:
    """Raise InputError if a file is a zip archive of pictures."""
    try:
        with zipfile.ZipFile(path) as archive:
            picture = next(filter(_is_picture_name, archive.namelist()), None)
    except (OSError, zipfile.BadZipFile):
        return
    if picture is not None:
        raise InputError(
            f"{path}: is a zip archive of pictures, such as {printable(picture)}: unzip it, and "
            "give the folder that has a folder for each class"
        )


def _entries(path: Path) -> tuple[list[str], list[str]]:
    """Return the sorted names of the folders and of the files in a folder."""
    folders: list[str] = []
    files: list[str] = []
    with _readable_folders(path):
        for entry in _scan(path):
            (folders if entry.is_dir() else files).append(entry.name)
    return sorted(folders), sorted(files)


@contextmanager
def _readable_folders(path: Path) -> Iterator[None]:
    """Raise InputError for a folder that cannot be read."""
    try:
        yield
    except OSError as error:
        name = error.filename or path
        if error.errno == errno.ELOOP:
            raise _link_loop(name) from None
        raise InputError(
            f"{printable(str(name))}: cannot be read ({error.strerror}): check the path and its "
            "permissions"
        ) from None


def _scan(path: Path) -> Iterator[os.DirEntry]:
    """Yield the entries of a folder, without those that systems make."""
    with os.scandir(path) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.name.lower() not in SYSTEM_NAMES:
                yield entry


def _stat(entry: os.DirEntry) -> tuple[int, int, int]:
    try:
        status = entry.stat()
    except FileNotFoundError:
        return -1, -1, -1
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _check_loop(folder: Path, parents: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Return the identities of a folder and of those that it is in; it must be none of them."""
    status = folder.stat()
    identity = status.st_dev, status.st_ino
    if identity in parents:
        raise _link_loop(folder)
    return (*parents, identity)


def _link_loop(path: Path | str) -> InputError:
    return InputError(
        f"{printable(str(path))}: is a link that leads back to a folder that it is in: delete it"
    )


def _is_picture_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES
