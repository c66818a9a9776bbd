"""Plots of a training run and of the trained model."""

import numpy as np
import pytest

from tests.networks import digits, small_network
from training.evaluation import confusion_matrix
from training.input_format import default_class_names
from training.reporting import plots


@pytest.mark.parametrize("all_correct", [False, True])
def test_draws_all_plots_with_and_without_mistakes(tmp_path, all_correct):
    images, labels = digits(60)
    model = small_network()
    if not all_correct:
        model.train(images, labels, 1, 20)
    logits = model.logits(images)
    if all_correct:
        labels = logits.argmax(axis=1)
    drawn = plots.draw_all(model, images, labels, logits, tmp_path / "a-{}.png")
    names = ["confusion", "mistakes", "filters"]
    if not all_correct:  # the untrained model has no history
        names = ["curves", *names]
    assert [path.name for path in drawn] == [f"a-{name}.png" for name in names]
    for path in drawn:
        assert path.read_bytes()[:4] == b"\x89PNG"


def test_draws_colour_images_and_many_classes(tmp_path):
    rng = np.random.default_rng(0)
    plots.filters(rng.standard_normal((5, 3, 3, 3)), tmp_path / "f.png")
    probabilities = rng.dirichlet(np.ones(40), 50)
    labels = rng.integers(0, 40, 50)
    names = default_class_names(40)
    images = rng.standard_normal((50, 3, 6, 6))
    plots.mistakes(images, labels, probabilities, names, tmp_path / "m.png")
    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), 40)
    plots.confusion(matrix, names, tmp_path / "c.png")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("f.png", "m.png", "c.png"))


def texts_of(monkeypatch, draw, *arguments):
    """Return the texts of the figure that a function draws."""
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: figures.append(figure))
    draw(*arguments, None)
    axes = figures[0].axes
    ticks = [label.get_text() for a in axes[:1] for label in a.get_xticklabels()]
    return ticks, [a.get_title() for a in axes]


def test_names_of_classes_are_shown(monkeypatch):
    names = ("cat", "dog", "a name of more than twenty-four characters")
    ticks, _ = texts_of(monkeypatch, plots.confusion, np.eye(3, dtype=int), names)
    assert ticks == ["cat", "dog", "a name of ...characters"]
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.0, 0.8]])
    images, labels = np.zeros((2, 1, 4, 4)), np.array([1, 0])
    draw = plots.mistakes
    _, titles = texts_of(monkeypatch, draw, images, labels, probabilities, names)
    assert titles[:2] == ["dog\n-> cat\n(90%)", "cat\n-> a name...acters\n(80%)"]
    _, titles = texts_of(monkeypatch, draw, images, labels, probabilities, ("0", "1", "2"))
    assert titles[:2] == ["1 -> 0 (90%)", "0 -> 2 (80%)"]


@pytest.mark.filterwarnings("error")
def test_draws_names_of_any_characters(tmp_path):
    """Neither a formula of "$" nor a character that the font lacks is an error or a warning."""
    names = ("$\\frac$", "a_b^{$c$", "\u732b", "%s {} \\n")
    plots.confusion(np.arange(16).reshape(4, 4), names, tmp_path / "c.png")
    probabilities = np.eye(4)[[1, 2, 3, 0]]
    images = np.zeros((4, 1, 4, 4))
    plots.mistakes(images, np.arange(4), probabilities, names, tmp_path / "m.png")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("c.png", "m.png"))
