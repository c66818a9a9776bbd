"""Predicting labels from the command line."""

import csv
import os
import subprocess

import numpy as np
import pytest
from PIL import Image

from layers import Dense, Flatten, Softmax
from tests.command_line import command, write_csv
from tests.networks import digits
from training import Adam, Model
from training.datasets import load_dataset
from training.input_stats import InputStats
from training.reporting import input_sheet

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
    columns = ["image", "label", "probability", "label_2", "probability_2"]
    assert head.split()[:5] == columns
    rows = rows[:200]
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
    assert list(table[0]) == [*columns, "preprocessing", "remarks"]
    assert {row["preprocessing"] for row in table} == {"as it is"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.png"], "none.png: no such file"),
        (["pictures", "--output", "no/where.csv"], "no/where.csv: the folder no does not exist"),
        (["pictures", "--image_shape", "1,9"], "C,H,W"),
        (["pictures", "--output", "pictures"], "--output pictures: is a directory"),
        (["pictures", "--digits", "auto", "--preprocess", "none"], "looks for no ink"),
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
    done = cli(*pixels, "numbers.json")
    assert done.stdout.splitlines() == [
        "image  label  probability  label_2  probability_2  preprocessing  remarks",
        "1          0       0.4269        2         0.2589  as it is       unsure",
        "2          2       0.6694        1         0.1494  as it is       unsure",
        "3          3       0.9479        0         0.0174  as it is",
        "unsure (a probability below 0.7): 2 of 3",
    ]


def test_names_of_the_most_probable_classes(cli, tmp_path, pixels):
    done = cli(*pixels, "named.json")
    assert (done.returncode, done.stderr) == (0, "")
    long = "a very long name o... not fit in a line"
    head, *rows, _ = done.stdout.splitlines()
    columns = ["image", "label", "probability", "label_2", "probability_2"]
    assert head.split() == [*columns, "preprocessing", "remarks"]
    assert [row.split(maxsplit=1)[1][:39].strip() for row in rows] == [
        "cat",
        long,
        'a,"b"',
    ]
    assert rows[0].split()[-5:] == ["0.2589", "as", "it", "is", "unsure"]
    second = "  0.6694  dog                                             0.1494"
    assert rows[1].endswith(second + "  as it is       unsure")

    done = cli(*pixels, "named.json", "--top", 3, "--output", "labels.csv")
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "labels.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    columns = ["label", "probability", "label_2", "probability_2", "label_3", "probability_3"]
    assert list(table[0]) == ["image", *columns, "preprocessing", "remarks"]
    assert [row["remarks"] for row in table] == ["unsure", "unsure", ""]
    assert [row["label"] for row in table] == ["cat", NAMES[2], NAMES[3]]
    assert [table[0][name] for name in columns[::2]] == ["cat", NAMES[2], "dog"]
    assert [table[2][name] for name in columns[::2]] == [NAMES[3], "cat", "dog"]  # equal: in order


def test_top_is_limited_to_the_number_of_classes(cli, pixels):
    done = cli(*pixels, "named.json", "--top", 100)
    assert done.stdout.splitlines()[0].split()[-3] == "probability_4"
    for top, message in ((0, "whole number from 1"), ("x", "whole number from 1")):
        done = cli(*pixels, "named.json", "--top", top)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
    done = cli("--top", 2)
    assert done.returncode == 2
    assert "--top is for the classes of --predict" in done.stderr


# -- pictures of ink ------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def ink_model(tmp_path_factory):
    """Save a model that knows the ink of MNIST's digits; it is not trained for long."""
    train, _ = load_dataset("mnist-5k")
    model = Model((1, 28, 28), backend="numpy", seed=0).add(Flatten()).add(Dense(10)).add(Softmax())
    model.fit_normalization(train.images)
    model.compile(Adam(3e-3)).train(
        train.images[:2000], train.labels[:2000], epochs=3, reporter=None
    )
    path = tmp_path_factory.mktemp("models") / "ink.json"
    model.save(path)
    return path


def draw_pictures(folder):
    """Save digits of each kind of rule, and a blank page."""
    folder.mkdir()
    _, test = load_dataset("mnist-5k")
    digit = test.images[0, 0]
    Image.fromarray(digit).save(folder / "1.png")
    Image.fromarray(255 - digit).save(folder / "2.png")
    drawing = np.pad(np.kron(255 - digit, np.ones((9, 9), np.uint8)), ((0, 90), (80, 0)), "edge")
    Image.fromarray(drawing).save(folder / "3.jpg")
    Image.new("L", (200, 100), "white").save(folder / "4.png")


def test_rules_and_remarks_of_pictures(cli, tmp_path, ink_model):
    draw_pictures(tmp_path / "in")
    flags = ["--predict", "in", "--from_path", ink_model, "--backend", "numpy"]
    done = cli(*flags)
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = (line.split() for line in done.stdout.splitlines())
    assert head[-2:] == ["preprocessing", "remarks"]
    assert [" ".join(row[5:]).removesuffix(" unsure") for row in rows[:4]] == [
        "as it is",
        "inverted",
        "ink",
        "ink blank page",
    ]
    assert rows[0][1:5] == rows[1][1:5]
    assert rows[3] == ["4.png", "-", "-", "-", "-", "ink", "blank", "page"]

    done = cli(*flags, "--output", "labels.csv")
    assert (done.returncode, done.stderr) == (0, "")
    counts = "preprocessing: ink (2), as it is (1), inverted (1)"
    assert done.stdout.splitlines()[1:3] == [counts, "remarks: blank page (1)"]
    with open(tmp_path / "labels.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["preprocessing"] for row in table] == ["as it is", "inverted", "ink", "ink"]
    assert [table[3][name] for name in ("label", "probability", "label_2")] == ["", "", ""]
    assert table[3]["remarks"] == "blank page"

    done = cli(*flags, "--preprocess", "none")
    assert "resized" in done.stdout
    assert "blank page" not in done.stdout
    done = cli(*flags, "--preprocess", "ink")
    assert "as it is" not in done.stdout


def test_a_model_of_an_earlier_version_says_that_it_only_resizes(cli, tmp_path, ink_model):
    draw_pictures(tmp_path / "in")
    model = Model.load(ink_model, backend="numpy")
    model.input_stats, model.ink_stats = InputStats(0, 255, 3), None
    model.save(tmp_path / "old.json")
    for flags, is_noted in (([], True), (["--preprocess", "none"], False)):
        done = cli("--predict", "in", "--from_path", "old.json", "--backend", "numpy", *flags)
        assert done.returncode == 0
        hint = "old.json: is of an earlier version, which did not measure its training images"
        assert done.stderr.startswith(hint) == is_noted


def test_a_model_of_colors_of_an_earlier_version_has_no_hint_on_ink(cli, tmp_path):
    model = Model((3, 8, 8), backend="numpy").add(Flatten()).add(Dense(2)).add(Softmax())
    model.save(tmp_path / "old.json")
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    done = cli("--predict", "a.png", "--from_path", "old.json", "--backend", "numpy")
    assert (done.returncode, done.stderr) == (0, "")
    assert "resized" in done.stdout


def test_no_answer_is_certain(cli, tmp_path, pixels):
    """A network that is more certain than its smoothed labels asked it to be."""
    (tmp_path / "x.csv").write_text("99,0,0,0")
    model = Model.load(tmp_path / "numbers.json", backend="numpy")
    model.label_smoothing = 0.1
    model.save(tmp_path / "numbers.json")
    row = cli(*pixels, "numbers.json").stdout.splitlines()[1]
    assert row.split()[:5] == ["1", "0", "0.9999", "1", "0.0000"]


def test_many_pictures_have_counts_instead_of_rules(cli, tmp_path, ink_model):
    (tmp_path / "in").mkdir()
    _, test = load_dataset("mnist-5k")
    for index in range(21):
        Image.fromarray(test.images[index, 0]).save(tmp_path / "in" / f"{index}.png")
    flags = ["--from_path", ink_model, "--backend", "numpy"]
    head, *lines = cli("--predict", "in", *flags).stdout.splitlines()
    assert "preprocessing" not in head
    assert "preprocessing: as it is (21)" in lines
    (tmp_path / "in" / "20.png").unlink()
    assert "preprocessing" in cli("--predict", "in", *flags).stdout.splitlines()[0]


def test_blank_pages_are_not_right(cli, tmp_path, ink_model):
    """A page that the network labels with its favourite class, and a row with that label."""
    labels = range(10)
    write_csv(tmp_path / "blank.csv", np.zeros((10, 1, 28, 28), int), labels)
    done = cli("--predict", "blank.csv", "--from_path", ink_model, "--backend", "numpy")
    assert done.stdout.splitlines()[-1] == "accuracy 0.00% on the labels in blank.csv"


def test_pictures_of_a_test_follow_the_same_rules(cli, tmp_path, ink_model):
    _, test = load_dataset("mnist-5k")
    for name, images in (("dark", test.images[:60]), ("light", 255 - test.images[:60])):
        for index, (image, label) in enumerate(zip(images, test.labels, strict=False)):
            folder = tmp_path / name / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0]).save(folder / f"{index}.png")
    flags = ["--from_path", ink_model, "--backend", "numpy", "--no_plots"]
    dark = cli("--test", "--test_data", "dark", *flags)
    light = cli("--test", "--test_data", "light", *flags)
    assert light.stderr == "preprocessing: inverted (60)\n"
    assert dark.stderr == ""
    assert dark.stdout.replace("dark", "light") == light.stdout
    assert "test accuracy" in light.stdout
    worse = cli("--test", "--test_data", "light", *flags, "--preprocess", "none")
    assert worse.stdout != light.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preprocess", "ink"], "--preprocess is for the images of --predict and --test"),
        (["--predict", "in", "--preprocess", "no"], "argument --preprocess: invalid choice: 'no'"),
        (["--show_input", "a.png"], "--show_input is for the images of --predict and --test"),
    ],
)
def test_wrong_flags(cli, arguments, message):
    done = cli(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_ink_is_refused_for_a_model_of_other_images(cli, tmp_path, trained):
    Image.fromarray(digits(1)[0][0, 0]).save(tmp_path / "a.png")
    done = cli("--predict", "a.png", "--preprocess", "ink", "--backend", "numpy")
    assert (done.returncode, done.stdout) == (2, "")
    assert "a.png: preprocess ink is for a model whose training images are ink" in done.stderr


# -- the sheet ------------------------------------------------------------------------------------
def entries_of(monkeypatch):
    """Return a list to which the entries of the sheets that are drawn are appended."""
    sheets = []
    draw = input_sheet.draw

    def record(entries, *arguments):
        sheets.append(entries)
        draw(entries, *arguments)

    monkeypatch.setattr(input_sheet, "draw", record)
    return sheets


def test_the_sheet_shows_pictures_and_answers(cli, tmp_path, ink_model, monkeypatch):
    draw_pictures(tmp_path / "in")
    sheets = entries_of(monkeypatch)
    flags = ["--from_path", ink_model, "--backend", "numpy", "--show_input", "sheet.png"]
    for _ in range(2):  # a sheet may be replaced
        done = cli("--predict", "in", *flags)
        assert (done.returncode, done.stderr) == (0, "")
    line = "images as they came and as the network sees them: sheet.png"
    assert done.stdout.splitlines()[-1] == line
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 400
    entries = sheets[0]
    assert [entry.title.splitlines()[0] for entry in entries] == [f"{n}.png" for n in (1, 2)] + [
        "3.jpg",
        "4.png",
    ]
    assert entries[3].title == "4.png\nno answer"
    assert entries[3].note == "ink; blank page"
    assert [entry.is_marked for entry in entries][3]
    np.testing.assert_array_equal(entries[0].image, entries[1].image)
    np.testing.assert_array_equal(entries[0].original, 255 - entries[1].original)


def test_the_sheet_of_a_test_shows_wrong_answers_first(cli, tmp_path, ink_model, monkeypatch):
    _, test = load_dataset("mnist-5k")
    for index, (image, label) in enumerate(zip(test.images[:120], test.labels, strict=False)):
        folder = tmp_path / "in" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0]).save(folder / f"{index}.png")
    model = Model.load(ink_model, backend="numpy")
    predicted = model.predict(test.images[:120])
    wrong = np.flatnonzero(predicted != test.labels[:120])
    assert 0 < len(wrong) < 60
    sheets = entries_of(monkeypatch)
    flags = ["--from_path", ink_model, "--backend", "numpy", "--no_plots"]
    done = cli("--test", "--test_data", "in", *flags, "--show_input", "sheet.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert "see them, 100 of 120, the wrong answers first" in done.stdout.replace("sees", "see")
    (entries,) = sheets
    assert len(entries) == 100
    shown = {int(entry.title.split("/")[1].split(".")[0]) for entry in entries[: len(wrong)]}
    assert shown == set(wrong.tolist())
    first = int(entries[0].title.split("/")[1].split(".")[0])
    answer = f"{test.labels[first]} -> {predicted[first]} ("
    assert entries[0].title.splitlines()[1].startswith(answer)
    assert [entry.is_marked for entry in entries] == [True] * len(wrong) + [False] * (
        100 - len(wrong)
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--show_input", "sheet.png"], "--show_input is for files of pictures: give a folder"),
        (["--preprocess", "none"], "--preprocess is for pictures: give a folder or a Parquet file"),
    ],
)
def test_flags_for_the_pictures_of_a_test(cli, tmp_path, ink_model, flags, message):
    """They are refused for images that are no pictures, and the sheet for Parquet."""
    write_csv(tmp_path / "x.csv", np.zeros((10, 1, 28, 28), int), range(10))
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "test.parquet").write_bytes(b"PAR1")
    sources = [["--dataset", "mnist-5k"], ["--test_data", "x.csv"]]
    if "--show_input" in flags:
        sources.append(["--test_data", "shards"])
    for source in sources:
        done = cli("--test", *source, "--from_path", ink_model, "--backend", "numpy", *flags)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr


def test_the_sheet_shows_rows_of_numbers_of_any_number_of_channels(cli, tmp_path):
    model = Model((2, 4, 4), backend="numpy").add(Flatten()).add(Dense(2)).add(Softmax())
    model.save(tmp_path / "two.json")
    (tmp_path / "x.csv").write_text(",".join("9" * 32))
    flags = ["--from_path", "two.json", "--backend", "numpy", "--show_input", "sheet.png"]
    done = cli("--predict", "x.csv", *flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "sheet.png").exists()


def test_a_sheet_that_cannot_be_written_names_what_to_do(cli, tmp_path, ink_model, monkeypatch):
    draw_pictures(tmp_path / "in")

    def fail(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    flags = ["--from_path", ink_model, "--backend", "numpy", "--show_input", "sheet.png"]
    done = cli("--predict", "in", *flags)
    assert done.returncode == 2
    end = "No space left on device: free some space, or name another file\n"
    assert done.stderr.endswith(end)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("pipe.png", "pipe.png: is not a sheet of this program"),
        ("photo.png", "photo.png: is not a sheet of this program, and would be overwritten"),
        ("in/sheet.png", "in/sheet.png: is in the folder of the images"),
        ("sheet.jpg", "sheet.jpg: the sheet is a PNG"),
        ("no/sheet.png", "the folder no does not exist"),
    ],
)
def test_the_sheet_replaces_no_picture(cli, tmp_path, ink_model, path, message):
    draw_pictures(tmp_path / "in")
    Image.new("L", (9, 9)).save(tmp_path / "photo.png")
    os.mkfifo(tmp_path / "pipe.png")
    before = (tmp_path / "photo.png").read_bytes()
    flags = ["--from_path", ink_model, "--backend", "numpy", "--show_input", path]
    done = cli("--predict", "in", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert (tmp_path / "photo.png").read_bytes() == before


def test_the_sheet_needs_matplotlib(cli, tmp_path, ink_model, monkeypatch):
    draw_pictures(tmp_path / "in")
    monkeypatch.setattr("training.cli.output_paths.can_draw", lambda: False)
    flags = ["--from_path", ink_model, "--backend", "numpy", "--show_input", "sheet.png"]
    done = cli("--predict", "in", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--show_input needs matplotlib: pip install matplotlib" in done.stderr
