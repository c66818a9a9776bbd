"""Fixtures of the tests of the command line, which load them as a plugin of pytest."""

import pytest

import run
from tests.command_line import Result, write_csv
from tests.networks import digits


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Return a function that runs a command line in this process.

    The working directory is `tmp_path`, and no variable of the environment names a folder of data.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CNN_DATA_DIR", raising=False)

    def call(*arguments):
        capsys.readouterr()
        try:
            code = run.main([*map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def csv_files(tmp_path):
    """Return the flags of two CSV files: one with a header, and one gzipped and without header."""
    train = write_csv(tmp_path / "train.csv", *digits(600))
    test = write_csv(tmp_path / "test.csv.gz", *digits(200, seed=1), header=False)
    return ["--train_data", train, "--test_data", test]


@pytest.fixture
def train_flags(csv_files):
    """Return the flags of a training of one epoch that takes a fraction of a second."""
    return [*csv_files, "--epochs", 1, "--backend", "numpy", "--arch", "tiny", "--no_plots"]


@pytest.fixture
def folder(cli, tmp_path):
    """Return the working directory, with a CSV file to train on and a model."""
    write_csv(tmp_path / "data.csv", *digits(60))
    run.tiny((1, 8, 8), 4, backend="numpy").save(tmp_path / "model.json")
    return tmp_path
