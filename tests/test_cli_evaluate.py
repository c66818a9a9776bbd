"""Testing a saved model from the command line; test_cli_train.py has the case that works."""

import numpy as np
import pytest

import run
from tests.command_line import write_csv
from tests.networks import digits

pytest_plugins = ["tests.command_line_fixtures"]

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def test_images_of_another_size_are_rejected(cli, tmp_path, train_flags):
    assert cli(*train_flags).returncode == 0
    other = write_csv(tmp_path / "other.csv", *digits(20, size=9))
    done = cli("--test", "--test_data", other, "--backend", "numpy")
    assert (done.returncode, done.stdout) == (2, "")
    assert "other.csv: its images are (1, 9, 9)" in done.stderr


def test_training_images_of_more_classes_than_the_model_are_rejected(cli, tmp_path, train_flags):
    assert cli(*train_flags).returncode == 0
    images, labels = digits(100)
    more = write_csv(tmp_path / "more.csv", images, labels + 4 * (np.arange(100) % 2))
    before = (tmp_path / "models" / "model.json").read_bytes()
    done = cli("--train_data", more, "--from_path", "models/model.json", "--backend", "numpy")
    assert done.returncode == 2
    assert "8 classes" in done.stderr
    assert (tmp_path / "models" / "model.json").read_bytes() == before


def test_data_set_of_more_classes_than_the_model_is_rejected(cli, tmp_path):
    train = write_csv(tmp_path / "train.csv", *digits(100, size=28))
    flags = ["--train_data", train, "--epochs", 1, "--arch", "tiny", "--backend", "numpy"]
    assert cli(*flags, "--no_plots").returncode == 0
    done = cli("--test", "--dataset", "mnist-5k", "--backend", "numpy")
    assert (done.returncode, done.stdout) == (2, "")
    assert "has 10 classes, and the model models/model.json has 4" in done.stderr


def save_model(path, shape):
    run.tiny(shape, 4, backend="numpy").save(path)


def write_idx(path, images, labels):
    """Write a pair of IDX files; return the path of the images."""
    for file, array in ((path, images[:, 0]), (path.parent / LABELS, labels)):
        magic = 0x800 + array.ndim
        header = np.array([magic, *array.shape], ">u4").tobytes()
        file.write_bytes(header + array.astype(np.uint8).tobytes())
    return path


def test_idx_images_of_another_shape_than_the_model(cli, tmp_path):
    """No message may name --image_shape, which nobody has typed."""
    save_model(tmp_path / "m.json", (3, 32, 32))
    images = write_idx(tmp_path / IMAGES, *digits(20, size=28))
    done = cli("--test", "--test_data", images, "--from_path", "m.json", "--backend", "numpy")
    assert (done.returncode, done.stdout) == (2, "")
    assert "its images are (1, 28, 28)" in done.stderr
    assert "m.json are (3, 32, 32)" in done.stderr
    assert "--image_shape" not in done.stderr


@pytest.mark.parametrize(
    ("n_pixels", "message"),
    [(784, "its images are (1, 28, 28)"), (10, "the model expects 3,8,12, which has 288")],
)
def test_csv_images_of_another_size_than_the_model(cli, tmp_path, n_pixels, message):
    save_model(tmp_path / "m.json", (3, 8, 12))
    test = write_csv(tmp_path / "test.csv", np.zeros((4, n_pixels), int), np.arange(4))
    done = cli("--test", "--test_data", test, "--from_path", "m.json", "--backend", "numpy")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "--image_shape" not in done.stderr


def test_csv_images_have_the_shape_of_the_model(cli, tmp_path):
    """Also where as many pixels could be a square: 64 are 4x16, and not 8x8."""
    for shape in ((3, 8, 12), (1, 4, 16)):
        save_model(tmp_path / "m.json", shape)
        rows = np.zeros((4, np.prod(shape)), int)
        test = write_csv(tmp_path / "test.csv", rows, np.arange(4))
        flags = ["--test", "--test_data", test, "--from_path", "m.json", "--no_plots"]
        assert cli(*flags, "--backend", "numpy").returncode == 0
