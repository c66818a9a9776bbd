"""Predicting labels from the command line."""

import csv
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.command_line import command
from tests.networks import digits
from training import Model

pytest_plugins = ["tests.command_line_fixtures"]


@pytest.fixture
def trained(cli, train_flags):
    """Train models/model.json for a few epochs."""
    done = cli(*train_flags, "--epochs", 5)
    assert done.returncode == 0, done.stderr


def test_labels_of_a_csv_file_and_of_pictures(cli, tmp_path, trained):
    images, labels = digits(200, seed=1)
    done = cli("--predict", "test.csv.gz", "--backend", "numpy")
    assert done.returncode == 0, done.stderr
    head, *rows, last = done.stdout.splitlines()
    assert head.split() == ["image", "label", "probability"]
    predicted = np.array([int(row.split()[1]) for row in rows])
    model = Model.load(tmp_path / "models" / "model.json", backend="numpy")
    np.testing.assert_array_equal(predicted, model.predict(images))
    assert last == f"accuracy {(predicted == labels).mean():.2%} on the labels in test.csv.gz"

    (tmp_path / "pictures").mkdir()
    for number in range(12):
        Image.fromarray(images[number, 0]).save(tmp_path / "pictures" / f"{number}.png")
    done = cli("--predict", "pictures", "--output", "labels.csv", "--backend", "numpy")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "labels.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["image"] for row in table] == [f"{number}.png" for number in range(12)]
    assert [int(row["label"]) for row in table] == predicted[:12].tolist()
    assert all(0.25 <= float(row["probability"]) <= 1 for row in table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.png"], "none.png: no such file"),
        (["pictures", "--output", "no/where.csv"], "no/where.csv: the folder no does not exist"),
        (["pictures", "--image_shape", "1,9"], "C,H,W"),
    ],
)
def test_wrong_input(cli, tmp_path, trained, arguments, message):
    (tmp_path / "pictures").mkdir()
    Image.fromarray(digits(1)[0][0, 0]).save(tmp_path / "pictures" / "0.png")
    done = cli("--predict", *arguments, "--backend", "numpy")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_reader_that_closes_the_output_is_not_an_error(tmp_path, trained):
    argv = command("--predict", "train.csv", "--backend", "numpy")
    done = subprocess.run(
        f"{' '.join(argv)} | head -2", shell=True, cwd=tmp_path, text=True, capture_output=True
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.parametrize("output", ["train.csv", "./models/model.json"])
def test_labels_replace_neither_the_images_nor_the_model(cli, tmp_path, trained, output):
    before = (tmp_path / output).read_bytes()
    done = cli("--predict", "train.csv", "--output", output, "--backend", "numpy")
    assert done.returncode == 2
    assert "would be overwritten" in done.stderr
    assert (tmp_path / output).read_bytes() == before
