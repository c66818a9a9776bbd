"""Testing a saved model from the command line, and the report of its measures."""

import json

import numpy as np
import pytest

import run
from layers import Dense, Flatten
from tests.command_line import write_csv
from tests.networks import digits
from training import Model
from training.cli.input_data import match_classes
from training.cli.summary import class_table
from training.datasets import Dataset
from training.errors import InputError

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
    assert "is not a label: there are 4 classes, 0 to 3" in done.stderr
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


NAMES = ("cat", "dog", "a very long name of a class that would not fit in a line", "\u732b")


def save_named_model(path, names=NAMES):
    """Save a model that labels an image with the place of its brightest pixel."""
    model = Model((1, 2, 2), backend="numpy").add(Flatten()).add(Dense(4))
    model.layers[1].params["weights"][:] = np.eye(4)
    model.class_names = names
    model.save(path)


@pytest.fixture
def named(cli, tmp_path):
    """Save a model of named classes, and 7 test images of which 5 are labeled correctly."""
    save_named_model(tmp_path / "m.json")
    labels, predicted = np.array([0, 0, 0, 1, 1, 3, 3]), [0, 0, 3, 1, 1, 0, 3]
    write_csv(tmp_path / "test.csv", 9 * np.eye(4, dtype=int)[predicted], labels)
    return ["--test", "--test_data", "test.csv", "--from_path", "m.json", "--backend", "numpy"]


def test_measures_of_each_class_are_printed(cli, named):
    done = cli(*named, "--no_plots")
    assert (done.returncode, done.stderr) == (0, "")
    first, second, *table = done.stdout.splitlines()
    assert first == "m.json on test.csv"
    assert second.startswith(
        "test accuracy 71.43% on 7 images, balanced accuracy 72.22%, mean loss 2."
    )
    assert table == [
        "class                                    precision  recall      F1  support",
        "cat                                          66.7%   66.7%   66.7%        3",
        "dog                                         100.0%  100.0%  100.0%        2",
        "a very long name o... not fit in a line          -       -       -        0",
        "\u732b                                           50.0%   50.0%   50.0%        2",
        "no test images of: a very long name o... not fit in a line",
    ]


def test_report_is_written_and_replaces_only_a_report(cli, tmp_path, named):
    for _ in range(2):
        done = cli(*named, "--no_plots", "--report", "r.json")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith("report: r.json\n")
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["model"], report["data"], report["images"]) == ("m.json", "test.csv", 7)
    assert report["class_names"] == list(NAMES)
    assert report["accuracy"] == 5 / 7
    assert report["classes"][2] == {
        "name": NAMES[2],
        "precision": None,
        "recall": None,
        "f1": None,
        "support": 0,
    }
    assert f"mean loss {report['mean_loss']:.4f}" in done.stdout
    assert f"calibration error {report['calibration_error']:.4f}\n" in done.stdout
    assert np.sum(report["confusion_matrix"]) == 7


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("m.json", "is not a report, and would be overwritten"),
        ("test.csv", "is not a report, and would be overwritten"),
        ("notes.txt", "is not a report, and would be overwritten"),
        (".", "is not a report, and would be overwritten"),
        ("r.png", "is the name of a picture or a log"),
        ("training.log", "is the name of a picture or a log"),
        ("no/r.json", "the folder no does not exist"),
    ],
)
def test_report_replaces_no_other_file(cli, tmp_path, named, path, message):
    (tmp_path / "notes.txt").write_text("mine")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    done = cli(*named, "--no_plots", "--report", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--report {path}: {message}" in done.stderr
    assert before == {file: file.read_bytes() for file in tmp_path.iterdir()}


def test_report_needs_test(cli):
    done = cli("--report", "r.json")
    assert done.returncode == 2
    assert "--report is for the measures of --test" in done.stderr


def test_of_many_classes_the_worst_are_listed():
    names = [f"class {index}" for index in range(40)]
    matrix = np.diag(np.full(40, 10))
    matrix[5] = matrix[:, 39] = 0  # class 5 has no images, and class 39 is never predicted
    matrix[39, 0] = matrix[7, 0] = 5
    head, _, *rows, last = class_table(matrix, names, "validation")
    assert head == "the 10 classes with the lowest F1, of 40:"
    assert [row[:8].strip() for row in rows[:3]] == ["class 39", "class 0", "class 7"]
    assert rows[0].split()[2:] == ["-", "0.0%", "0.0%", "5"]
    assert len(rows) == 10
    assert last == "no validation images of: class 5"


def dataset(names):
    images = np.zeros((len(names), 1, 2, 2), np.uint8)
    return Dataset(images, np.arange(len(names)), tuple(names), "data.csv")


@pytest.mark.parametrize(
    ("of_data", "of_model", "labels"),
    [
        (["cat", "dog"], ["cat", "dog"], [0, 1]),
        (["cat", "dog"], ["ant", "dog", "cat"], [2, 1]),
        (["2", "10"], ["1", "2", "10"], [1, 2]),
        (["0", "1"], ["cat", "dog", "ant"], [0, 1]),  # the numbers stand for the classes
        (["cat", "dog"], ["0", "1"], [0, 1]),
    ],
)
def test_classes_are_matched_by_name(of_data, of_model, labels):
    matched = match_classes(dataset(of_data), of_model, "m.json", "hint")
    assert matched.labels.tolist() == labels
    assert matched.class_names == tuple(of_model)


@pytest.mark.parametrize(
    ("of_data", "of_model", "message"),
    [
        (["cat", "cow"], ["ant", "dog", "cat"], r"the class cow, which .*m.json .*\(ant, dog, cat"),
        (["2", "10"], ["0", "1", "2"], r"the class 10, which .* \(0 to 2\): hint"),
        (["a", "b", "c"], ["a", "b"], "has 3 classes, and the model m.json has 2: hint"),
    ],
)
def test_classes_that_the_model_does_not_have_are_rejected(of_data, of_model, message):
    with pytest.raises(InputError, match=message):
        match_classes(dataset(of_data), of_model, "m.json", "hint")


def test_training_further_matches_the_classes_by_name(cli, tmp_path, monkeypatch):
    """Data with a class fewer trains on the model's classes, and keeps their names."""
    run.tiny((1, 8, 8), 3, backend="numpy").save(tmp_path / "m.json")
    model = Model.load(tmp_path / "m.json", backend="numpy")
    model.class_names = ("1", "3", "7")
    model.save(tmp_path / "m.json")
    images, labels = digits(100)
    write_csv(tmp_path / "train.csv", images, np.where(labels % 2, 3, 7))
    flags = ["--train_data", "train.csv", "--from_path", "m.json", "--epochs", 1]
    done = cli(*flags, "--backend", "numpy", "--no_plots", "--to_path", "n.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "no validation images of: 1" in done.stdout
    assert Model.load(tmp_path / "n.json").class_names == ("1", "3", "7")
