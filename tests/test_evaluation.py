"""What is told and drawn about a trained model."""

import csv

import numpy as np
import pytest

from tests.networks import digits, small_network
from training.evaluation import class_accuracies, confusion_matrix, worst_mistakes
from training.reporting import plots
from training.reporting.reporter import write_history


def test_confusion_matrix_and_class_accuracies():
    labels, predicted = np.array([0, 0, 1, 1, 1, 3]), np.array([0, 1, 1, 1, 0, 3])
    matrix = confusion_matrix(labels, predicted, 4)
    want = np.array([[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
    np.testing.assert_array_equal(matrix, want)
    np.testing.assert_allclose(class_accuracies(matrix), [0.5, 2 / 3, np.nan, 1])


def test_worst_mistakes_are_the_most_certain_ones():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.05, 0.95]])
    labels = np.array([1, 1, 1, 0])
    assert worst_mistakes(probabilities, labels, 2).tolist() == [3, 0]
    assert worst_mistakes(probabilities, labels, 9).tolist() == [3, 0, 1]
    assert worst_mistakes(probabilities, probabilities.argmax(axis=1), 9).tolist() == []


def test_history_as_csv(tmp_path):
    write_history({"loss": [3.0, 2.0, 1.0], "validation_loss": [5.0]}, tmp_path / "a.csv")
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["epoch", "loss", "validation_loss"],
        ["1", "3.0", ""],
        ["2", "2.0", ""],
        ["3", "1.0", "5.0"],
    ]


@pytest.mark.parametrize("perfect", [False, True])
def test_pictures_are_drawn_whatever_the_model_gets_right(tmp_path, perfect):
    images, labels = digits(60)
    model = small_network()
    if not perfect:
        model.train(images, labels, 1, 20)
    logits = model.logits(images)
    if perfect:
        labels = logits.argmax(axis=1)
    drawn = plots.draw_all(model, images, labels, logits, tmp_path / "a-{}.png")
    names = ["curves", "confusion", "mistakes", "filters"][perfect:]
    assert [path.name for path in drawn] == [f"a-{name}.png" for name in names]
    for path in drawn:
        assert path.read_bytes()[:4] == b"\x89PNG"


def test_pictures_of_colours_and_of_many_classes(tmp_path):
    rng = np.random.default_rng(0)
    plots.filters(rng.standard_normal((5, 3, 3, 3)), tmp_path / "f.png")
    shares = rng.dirichlet(np.ones(40), 50)
    labels = rng.integers(0, 40, 50)
    plots.mistakes(rng.standard_normal((50, 3, 6, 6)), labels, shares, tmp_path / "m.png")
    plots.confusion(confusion_matrix(labels, shares.argmax(axis=1), 40), tmp_path / "c.png")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("f.png", "m.png", "c.png"))
