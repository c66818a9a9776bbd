"""Testing a saved model from the command line; test_cli_train.py has the case that works."""

import numpy as np

from tests.command_line import write_csv
from tests.networks import digits

pytest_plugins = ["tests.command_line_fixtures"]


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
