"""IDX files, good and bad."""

import gzip
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from training.datasets import load_dataset, load_images
from training.errors import InputError
from training.input_format import InputFormat, default_class_names

IMAGES = np.arange(4 * 3 * 2, dtype=np.uint8).reshape(4, 3, 2) + 100
LABELS = np.array([0, 1, 2, 1], np.uint8)
NAME = "train-images-idx3-ubyte"
LABELS_NAME = "train-labels-idx1-ubyte"


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def write(folder: Path, images=IMAGES, labels=LABELS, name=NAME, labels_name=LABELS_NAME) -> Path:
    for file, content in ((name, images), (labels_name, labels)):
        data = content if isinstance(content, bytes) else idx(content)
        (folder / file).write_bytes(gzip.compress(data) if file.endswith(".gz") else data)
    return folder / name


@pytest.mark.parametrize(
    ("name", "labels_name"),
    [
        (NAME, LABELS_NAME),
        (NAME + ".gz", LABELS_NAME + ".gz"),
        (NAME + ".gz", LABELS_NAME),
        (NAME, LABELS_NAME + ".gz"),
        ("train-images.idx3-ubyte", "train-labels.idx1-ubyte"),
    ],
)
def test_reads(tmp_path, name, labels_name):
    path = write(tmp_path, name=name, labels_name=labels_name)
    read = load_images(path)
    assert read.images.dtype == np.uint8
    np.testing.assert_array_equal(read.images, IMAGES[:, np.newaxis])
    assert read.labels.dtype == np.int64
    np.testing.assert_array_equal(read.labels, LABELS)
    assert read.n_classes == 3
    assert read.source == str(path)


def test_reads_channels(tmp_path):
    images = IMAGES.reshape(4, 2, 1, 3)
    path = write(tmp_path, images, name="a-images-idx4-ubyte", labels_name="a-labels-idx1-ubyte")
    np.testing.assert_array_equal(load_images(path, image_shape=(2, 1, 3)).images, images)


def test_gzip_is_recognized_by_content(tmp_path):
    path = write(tmp_path, gzip.compress(idx(IMAGES)), gzip.compress(idx(LABELS)))
    np.testing.assert_array_equal(load_images(path).labels, LABELS)


def test_numbers_with_gaps_are_names(tmp_path):
    read = load_images(write(tmp_path, labels=LABELS * 2))
    assert read.class_names == ("0", "2", "4")
    np.testing.assert_array_equal(read.labels, LABELS)


FIVE_CLASSES = InputFormat((1, 2, 3), default_class_names(5))


def test_test_file_need_not_have_every_class(tmp_path):
    assert load_images(write(tmp_path, labels=LABELS + 1), like=FIVE_CLASSES).n_classes == 5


GOOD = idx(IMAGES)


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize(
    ("images", "labels", "file", "remedy"),
    [
        pytest.param(GOOD[:-1], LABELS, "images", "only 23.*copy or download", id="truncated"),
        pytest.param(GOOD + b"x", LABELS, "images", "holds more.*copy or download", id="too long"),
        pytest.param(GOOD[:9], LABELS, "images", "within its header.*download", id="header cut"),
        pytest.param(b"\0\0", LABELS, "images", "0x00000803 or 0x00000804", id="magic cut"),
        pytest.param(b"\0\0\x0d\3" + GOOD[4:], LABELS, "images", "0x00000803", id="floats"),
        pytest.param(idx(LABELS), LABELS, "images", "0x00000801.* 0x00000803", id="labels given"),
        pytest.param(IMAGES[:0], LABELS[:0], "images", "holds no images", id="no images"),
        pytest.param(IMAGES, idx(LABELS)[:-1], "labels", "only 3.*download", id="labels cut"),
        pytest.param(IMAGES, LABELS[:3], "labels", "3 labels.*4 images.*same data set", id="fewer"),
        pytest.param(IMAGES, IMAGES, "labels", "0x00000803.* 0x00000801", id="images as labels"),
        pytest.param(IMAGES, LABELS * 0, "labels", "every label is 0.*two or more", id="one class"),
    ],
)
def test_rejects(tmp_path, packed, images, labels, file, remedy):
    path = write(tmp_path, images, labels, NAME + packed, LABELS_NAME + packed)
    named = path if file == "images" else tmp_path / (LABELS_NAME + packed)
    with pytest.raises(InputError, match=rf"^{named}: .*{remedy}"):
        load_images(path)


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_header_that_claims_much_allocates_little(tmp_path, packed):
    header = struct.pack(">4I", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    path = write(tmp_path, header + bytes(99), name=NAME + packed)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="only 99"):
            load_images(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * 2**20


def test_bomb_is_not_decompressed(tmp_path):
    path = write(tmp_path, GOOD + bytes(2**28), name=NAME + ".gz")
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="holds more"):
            load_images(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * 2**20


def test_rejects_cut_gzip(tmp_path):
    path = write(tmp_path, gzip.compress(GOOD)[:-9])
    with pytest.raises(InputError, match=f"^{path}: its gzip data.*download"):
        load_images(path)


def test_rejects_missing_labels(tmp_path):
    path = write(tmp_path)
    labels = tmp_path / LABELS_NAME
    labels.unlink()
    with pytest.raises(InputError, match=f"^{labels}: no such file: put the labels of {NAME}"):
        load_images(path)


def test_rejects_name_without_labels_file(tmp_path):
    path = write(tmp_path, name="pictures")
    with pytest.raises(InputError, match=f"^{path}: .*name the two files"):
        load_images(path)


def test_rejects_another_image_shape(tmp_path):
    path = write(tmp_path)
    with pytest.raises(InputError, match=f"^{path}: holds.* 1,3,2, and --image_shape is 1,2,3"):
        load_images(path, image_shape=(1, 2, 3))


def test_rejects_label_of_no_class(tmp_path):
    path = write(tmp_path)
    with pytest.raises(InputError, match=r"labels-idx1-ubyte: image 3 has label 2.* 0, 1"):
        load_images(path, like=InputFormat((1, 2, 3), ("0", "1")))


def mnist_directory() -> Path | None:
    """Find the whole MNIST: where CNN_DATA_DIR says, or beside the checkout."""
    checkout = Path(__file__).resolve().parents[1]
    for folder in (os.environ.get("CNN_DATA_DIR"), checkout.parent / "shared" / "data"):
        if folder and (Path(folder) / "mnist").is_dir():
            return Path(folder)
    return None


@pytest.mark.skipif(mnist_directory() is None, reason="MNIST is not here: set CNN_DATA_DIR")
def test_mnist():
    train, test = load_dataset("mnist", data_dir=mnist_directory())
    assert train.images.shape == (60_000, 1, 28, 28)
    assert test.images.shape == (10_000, 1, 28, 28)
    np.testing.assert_array_equal(train.labels[:10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4])
    np.testing.assert_array_equal(
        np.bincount(test.labels), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    )
    # Mean and standard deviation of MNIST's training pixels, as published everywhere.
    assert train.images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert train.images.std() / 255 == pytest.approx(0.3081, abs=5e-5)
