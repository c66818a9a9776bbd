"""Fixtures and helpers of the tests that run run.py, in this process or as one of its own."""

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import run
from tests.networks import digits

ROOT = Path(__file__).parents[1]


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def write_csv(path, images, labels, header=True):
    lines = ["label," + ",".join(f"pixel{i}" for i in range(images[0].size))] if header else []
    lines += [
        f"{label}," + ",".join(map(str, image.ravel()))
        for image, label in zip(images, labels, strict=True)
    ]
    text = "\n".join(lines) + "\n"
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt") as file:
        file.write(text)
    return path


def command(*arguments):
    """Return the words that start run.py as a process, with unbuffered output."""
    return [sys.executable, "-u", str(ROOT / "run.py"), *map(str, arguments)]


def start(*arguments, **options):
    """Run run.py as a process and return what it prints."""
    environment = {k: v for k, v in os.environ.items() if k != "CNN_DATA_DIR"}
    done = subprocess.run(
        command(*arguments),
        env=environment,
        text=True,
        capture_output=True,
        timeout=300,
        **options,
    )
    return Result(done.returncode, done.stdout, done.stderr)


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
