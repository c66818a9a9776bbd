"""The data set in the repository."""

import numpy as np
import pytest

from training.datasets import bundled, load_dataset
from training.errors import InputError


def test_mnist_5k():
    train, test = load_dataset("mnist-5k")
    for part, n in ((train, 4000), (test, 1000)):
        assert part.images.shape == (n, 1, 28, 28)
        assert part.images.dtype == np.uint8
        assert part.images.max() == 255
        assert part.labels.dtype == np.int64
        assert part.n_classes == 10
        np.testing.assert_array_equal(np.bincount(part.labels), n // 10)


def test_no_image_is_in_both_parts():
    train, test = load_dataset("mnist-5k")
    assert not set(map(bytes, train.images)) & set(map(bytes, test.images))


def test_missing_file(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "PATH", tmp_path / "mnist_5k.npz")
    with pytest.raises(InputError, match=r"mnist_5k\.npz: no such file: .*make_mnist_5k\.py"):
        load_dataset("mnist-5k")


def test_damaged_file(tmp_path, monkeypatch):
    path = tmp_path / "mnist_5k.npz"
    path.write_bytes(bundled.PATH.read_bytes()[:5000])
    monkeypatch.setattr(bundled, "PATH", path)
    with pytest.raises(InputError, match=r"mnist_5k\.npz: is damaged: .*make_mnist_5k\.py"):
        load_dataset("mnist-5k")
