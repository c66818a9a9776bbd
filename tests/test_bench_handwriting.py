"""The program that measures how well handwriting is read."""

from types import SimpleNamespace

import numpy as np
import pytest

from bench import handwriting
from run import tiny
from tests.handwriting import ROWS, STYLES
from training.datasets import load_dataset


@pytest.fixture(scope="module")
def digits():
    train, _ = load_dataset("mnist-5k")
    return train.images, train.labels


@pytest.fixture
def model_path(digits, tmp_path):
    """Return the file of a model that has not learned anything."""
    model = tiny((1, 28, 28), 10, backend="numpy", dtype="float32", seed=0)
    model.fit_normalization(digits[0])
    model.save(tmp_path / "model.json")
    return tmp_path / "model.json"


@pytest.fixture
def small_set(digits, monkeypatch):
    """Measure with the digits that are part of the program."""
    monkeypatch.setattr(handwriting, "split_digits", lambda: (digits, digits))


def answers(style, written, read, probabilities):
    return handwriting.Answers(style, written, SimpleNamespace(), [], read, np.array(probabilities))


def test_table_has_accuracy_and_sure_answers_of_each_style():
    results = [
        answers("thin", ["1", "2", "3", "4"], ["1", "2", "8", "9"], [0.95, 0.8, 0.9, 0.3]),
        answers("dim", ["1", "2"], ["1", ""], [0.5, 0]),
    ]
    assert handwriting.table(results).splitlines()[2:] == [
        "| thin | 4 | 50.0 % | 50.0 % | 50.0 % |",
        "| dim | 2 | 50.0 % | 0.0 % |  |",
        "| **all, mean of the styles** | 6 | 50.0 % | 25.0 % | 50.0 % |",
    ]


def test_pictures_are_labeled_as_a_person_reads_them(digits, tmp_path, model_path):
    """The same pictures in the same order: what a model that knows the labels says is right."""
    labels = handwriting.write_pictures("gif", digits, 12, tmp_path / "gif")
    assert list(labels) == [f"{index}.gif" for index in range(12)]
    model = handwriting.Model.load(model_path, backend="numpy")
    known = np.eye(10)[[int(label) for label in labels.values()]]
    model.probabilities = lambda logits: known
    found = handwriting.label_pictures(model, "gif", tmp_path / "gif", labels, "auto")
    assert found.is_right.all()
    assert found.is_sure.all()


def test_program_prints_and_writes_the_table(small_set, model_path, tmp_path, capsys):
    page, sheet = tmp_path / "page.md", tmp_path / "sheet.png"
    page.write_text("before\n<!-- generated: handwriting -->\n<!-- end of generated text -->\nend")
    arguments = ["--model", str(model_path), "--pictures", "2", "--styles", "gif", "on a line"]
    assert handwriting.main([*arguments, "--output", str(page), "--sheet", str(sheet)]) == 0
    table = capsys.readouterr().out
    single, rows = table.split("\n\n")
    assert "| gif | 2 |" in single
    assert "| on a line | 2 |" in rows
    assert f"before\n<!-- generated: handwriting -->\n{table}" in page.read_text()
    assert page.read_text().endswith("<!-- end of generated text -->\nend")
    assert sheet.read_bytes().startswith(b"\x89PNG\r\n")


def test_training_uses_the_settings_of_run_py(digits, tmp_path, monkeypatch):
    typed = []
    monkeypatch.setattr(handwriting.run, "main", lambda argv: typed.extend(argv) or 0)
    path = handwriting.train_model((digits[0][:20], digits[1][:20]), tmp_path)
    assert typed == [
        "--train_data",
        str(tmp_path / "train.npz"),
        "--to_path",
        str(path),
        "--no_plots",
    ]
    assert np.load(typed[1])["x_train"].shape == (20, 1, 28, 28)


def test_held_out_digits_are_not_trained_on(monkeypatch):
    images = np.arange(6000).reshape(-1, 1, 1, 1)
    train = SimpleNamespace(images=images, labels=images.ravel())
    monkeypatch.setattr(handwriting, "load_dataset", lambda name: (train, None))
    (x, _), (held_out, _) = handwriting.split_digits()
    assert len(held_out) == handwriting.N_HELD_OUT
    assert not set(x.ravel()) & set(held_out.ravel())


@pytest.mark.parametrize(
    "arguments",
    [["--styles", "nothing"], ["--pictures", "0"], ["--output", "no/such/folder/a.md"]],
    ids=" ".join,
)
def test_wrong_arguments_are_rejected(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        handwriting.main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("error:") == 1


def test_page_without_a_place_for_the_table_is_rejected(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("no block")
    with pytest.raises(SystemExit):
        handwriting.main(["--output", str(page)])
    assert "has no line <!-- generated: handwriting -->" in capsys.readouterr().err


def test_missing_model_is_one_message(small_set, capsys):
    assert handwriting.main(["--model", "no.json"]) == 2
    assert capsys.readouterr().err.startswith("handwriting.py: ")


def test_default_is_every_style_and_row():
    args = handwriting.make_parser().parse_args([])
    assert args.styles == [*STYLES, *ROWS]
    assert args.pictures >= 200
