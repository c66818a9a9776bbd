"""Read CSV files of images: one image per line, its label and its pixels."""

import math
from pathlib import Path

import numpy as np

from training.datasets.csv_labels import LabelEncoder
from training.datasets.csv_layout import (
    Layout,
    Table,
    arrange_columns,
    find_label_column,
    inspect_table,
    pixel_numbers,
)
from training.datasets.csv_parser import BlockParser
from training.datasets.csv_text import read_blocks
from training.datasets.dataset import Dataset, ReadOptions, describe_classes
from training.errors import InputError
from training.input_format import InputFormat


def read_csv(path: Path, options: ReadOptions) -> Dataset:
    """Read labels and pixels from a CSV file.

    Parameters
    ----------
    path : Path
        Text in UTF-8, as it is, gzip-compressed, or alone in a zip archive. Commas, semicolons or
        tabs separate its cells. The first line is a header if its label is not a number and the
        other cells are names: at least half of them are not numbers, or they count up from 0 or 1.
        The labels are in the column that `options` names, else in one called label, class, labels
        or target, else in the first one. Columns at the start without a name, or called id or
        index, are skipped. Pixels whose names in the header are a prefix and numbers (pixel0, 1x1)
        are in the order of these numbers, others in that of the file.
    options : ReadOptions
        By default, images have the shape that a model expects, or are square with one channel, or
        square with three, one after another.

    Returns
    -------
    Dataset
        The pixels are uint8 if all of them are whole numbers from 0 to 255, else float32.

    Raises
    ------
    InputError
        The file is not such a table. The message names the line and the column of a bad cell.
    """
    table = inspect_table(path, options.label_column)
    label_column = find_label_column(table, options.label_column)
    if label_column is None:
        label_column = table.n_index_columns
    return _read_labelled(table, label_column, options)


def read_pixels(path: Path, options: ReadOptions) -> tuple[np.ndarray, np.ndarray | None]:
    """Read images (N, C, H, W) for prediction, and their labels if the file has labels.

    Parameters
    ----------
    path : Path
        As for `read_csv`, but there may be no labels. It has labels if `options` or the header
        names their column. It has none if the names in its header are all a prefix and a number.
        Otherwise the number of cells decides whether the first one of a line is a label.
    options : ReadOptions
        If the number of pixels differs from that of the images that the model expects, they are
        taken as square with its number of channels, unless `image_shape` says otherwise.

    Returns
    -------
    images : ndarray of uint8 or float32, shape (N, C, H, W)
    labels : ndarray of int64, shape (N,), or None

    Raises
    ------
    InputError
        As for `read_csv`.
    """
    assert options.like is not None
    table = inspect_table(path, options.label_column)
    image_shape = options.image_shape or options.like.shape
    label_columns = _possible_label_columns(table, options)
    n_cells = table.n_columns - table.n_index_columns
    for label_column in label_columns:
        if n_cells - (label_column is not None) == math.prod(image_shape):
            return _read_images(table, label_column, image_shape, options)
    for label_column in label_columns:
        n_pixels = n_cells - (label_column is not None)
        square = _square_shape(n_pixels, options.like.shape[:1])
        if square is not None and options.image_shape is None:
            return _read_images(table, label_column, square, options)
    hint = "a label may come before the pixels"
    if label_columns == (None,):
        hint = "name the column of labels, if there is one, with --label_column"
    raise InputError(
        f"{path}: has {n_cells} cells a line, and an image of "
        f"{','.join(map(str, image_shape))} has {math.prod(image_shape)} pixels: give the shape of "
        f"the images with --image_shape C,H,W; {hint}"
    )


def _possible_label_columns(table: Table, options: ReadOptions) -> tuple[int | None, ...]:
    label_column = find_label_column(table, options.label_column)
    if label_column is not None:
        return (label_column,)
    first = table.n_index_columns
    names = (table.names or ())[first:]
    # Names that are numbers only may include that of a label.
    if names and not names[0].isdecimal() and pixel_numbers(names) is not None:
        return (None,)
    return None, first


def _read_images(
    table: Table,
    label_column: int | None,
    image_shape: tuple[int, int, int],
    options: ReadOptions,
) -> tuple[np.ndarray, np.ndarray | None]:
    if label_column is not None:
        data = _read_labelled(table, label_column, options._replace(image_shape=image_shape))
        return data.images, data.labels
    encoder = LabelEncoder(table.path, None, None)
    images, _ = _read(table.path, arrange_columns(table, None), encoder)
    return images.reshape(-1, *image_shape), None


def _read_labelled(table: Table, label_column: int, options: ReadOptions) -> Dataset:
    like, path = options.like, table.path
    layout = arrange_columns(table, label_column)
    shape = _image_shape(table, layout, options.image_shape, like)
    encoder = LabelEncoder(path, label_column, like and like.class_names)
    images, codes = _read(path, layout, encoder)
    labels, class_names = encoder.decode(codes)
    notes = describe_classes(class_names) if like is None else ()
    notes = (*_describe_columns(table, layout), *notes)
    return Dataset(images.reshape(-1, *shape), labels, class_names, str(path), notes=notes)


def _describe_columns(table: Table, layout: Layout) -> tuple[str, ...]:
    """Return notes on what could be a surprise in the arrangement of the columns."""
    names = [
        repr(name)
        for column, name in enumerate((table.names or ())[: table.n_index_columns])
        if column != layout.label_column
    ]
    notes = [f"columns skipped as an index of the images: {', '.join(names)}"] if names else []
    if list(layout.pixel_columns) != sorted(layout.pixel_columns):
        notes.append("the pixels are in the order of the numbers in the header, not of the file")
    return tuple(notes)


def _read(path: Path, layout: Layout, encoder: LabelEncoder) -> tuple[np.ndarray, np.ndarray]:
    """Read pixels (rows, n), uint8 or float32, and the codes of labels (rows,)."""
    parser = BlockParser(path, layout, encoder)
    # Rows that the file turns out not to have take no memory: their pages are never written to.
    shape = layout.max_rows, len(layout.pixel_columns)
    images: np.ndarray = np.empty(shape, np.uint8)
    codes = np.empty(layout.max_rows, np.int64)
    n_rows, line_number = 0, layout.n_skipped + 1
    for block in read_blocks(path, layout.n_skipped):
        pixels, block_codes = parser.parse(block, line_number)
        if pixels.dtype == np.float32 and images.dtype == np.uint8:
            as_bytes = images[:n_rows]
            images = np.empty(shape, np.float32)
            images[:n_rows] = as_bytes
        rows = slice(n_rows, n_rows + len(pixels))
        images[rows], codes[rows] = pixels, block_codes
        n_rows = rows.stop
        line_number += block.count(b"\n")
    return images[:n_rows], codes[:n_rows]


def _square_shape(
    n_pixels: int, possible_channels: tuple[int, ...] = (1, 3)
) -> tuple[int, int, int] | None:
    """Return the shape of a square image with so many channels; None if there is none."""
    for channels in possible_channels:
        side = math.isqrt(n_pixels // channels)
        if channels * side**2 == n_pixels:
            return channels, side, side
    return None


def _image_shape(
    table: Table,
    layout: Layout,
    image_shape: tuple[int, int, int] | None,
    like: InputFormat | None,
) -> tuple[int, int, int]:
    n_pixels = len(layout.pixel_columns)
    has = f"{table.path}: has {n_pixels} pixels an image"
    if image_shape is not None:
        if math.prod(image_shape) == n_pixels:
            return image_shape
        raise InputError(
            f"{has}, and --image_shape {','.join(map(str, image_shape))} has "
            f"{math.prod(image_shape)}: C times H times W must be the number of pixels"
        )
    if like is not None and math.prod(like.shape) == n_pixels:
        return like.shape
    square = _square_shape(n_pixels)
    if square is not None:
        return square
    hint = ""
    if table.names is not None and layout.label_column is not None:
        taken = table.names[layout.label_column][:40]
        hint = f"; the labels are in column {taken!r}, if --label_column does not name another"
    if like is not None:
        raise InputError(
            f"{has}; the model expects {','.join(map(str, like.shape))}, which has "
            f"{math.prod(like.shape)}{hint}"
        )
    raise InputError(f"{has}, which make no square: give the shape with --image_shape C,H,W{hint}")
