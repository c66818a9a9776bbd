"""Plots of a training run and of the trained model."""

import numpy as np
import pytest

from tests.networks import digits, small_network
from training.evaluation import confusion_matrix
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
    plots.mistakes(rng.standard_normal((50, 3, 6, 6)), labels, probabilities, tmp_path / "m.png")
    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), 40)
    plots.confusion(matrix, tmp_path / "c.png")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("f.png", "m.png", "c.png"))
