"""Predicting labels from the command line."""

import csv
import subprocess

import numpy as np
import pytest
from PIL import Image

from layers import Dense, Flatten
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


NAMES = ("cat", "dog", "a very long name of a class that would not fit in a line", 'a,"b"')


@pytest.fixture
def pixels(cli, tmp_path):
    """Save models of a Dense layer, with and without names, and three images of 2x2 pixels."""
    model = Model((1, 2, 2), backend="numpy").add(Flatten()).add(Dense(4))
    model.layers[1].params["weights"][:] = np.eye(4) / 2
    model.save(tmp_path / "numbers.json")
    model.class_names = NAMES
    model.save(tmp_path / "named.json")
    rows = [[2, 0, 1, 0], [0, 1, 4, 0], [0, 0, 0, 8]]
    (tmp_path / "x.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    return ["--predict", "x.csv", "--backend", "numpy", "--from_path"]


def test_a_table_of_numbers(cli, pixels):
    """This text has been the same since before classes had names."""
    done = cli(*pixels, "numbers.json")
    assert done.stdout.splitlines() == [
        "image  label  probability",
        "1          0       0.4269",
        "2          2       0.6694",
        "3          3       0.9479",
    ]


def test_names_of_the_most_probable_classes(cli, tmp_path, pixels):
    done = cli(*pixels, "named.json", "--top", 2)
    assert (done.returncode, done.stderr) == (0, "")
    long = "a very long name o... not fit in a line"
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["image", "label", "probability", "label_2", "probability_2"]
    assert [row.split(maxsplit=1)[1][:39].strip() for row in rows] == [
        "cat",
        long,
        'a,"b"',
    ]
    assert rows[0].split()[-1] == "0.2589"
    assert rows[1].endswith("  0.6694  dog                                             0.1494")
    assert len({len(row) for row in [head, *rows]}) == 1

    done = cli(*pixels, "named.json", "--top", 3, "--output", "labels.csv")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "labels.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    columns = ["label", "probability", "label_2", "probability_2", "label_3", "probability_3"]
    assert list(table[0]) == ["image", *columns]
    assert [row["label"] for row in table] == ["cat", NAMES[2], NAMES[3]]
    assert [table[0][name] for name in columns[::2]] == ["cat", NAMES[2], "dog"]
    assert [table[2][name] for name in columns[::2]] == [NAMES[3], "cat", "dog"]  # equal: in order


def test_top_is_limited_to_the_number_of_classes(cli, pixels):
    done = cli(*pixels, "named.json", "--top", 100)
    assert done.stdout.splitlines()[0].split()[-1] == "probability_4"
    for top, message in ((0, "whole number from 1"), ("x", "whole number from 1")):
        done = cli(*pixels, "named.json", "--top", top)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
    done = cli("--top", 2)
    assert done.returncode == 2
    assert "--top is for the classes of --predict" in done.stderr
