"""The benchmark of accuracy over time: the same training in PyTorch, and what is printed."""

import json
import math

import numpy as np
import pytest

import run
from bench import time_to_accuracy
from bench.time_to_accuracy import Curve, seconds_to, table, this_library
from tests.command_line import write_csv
from tests.networks import digits
from training.cli.architectures import Recipe
from training.datasets import load_dataset


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    ("network", "shape"), [(run.compact, (1, 21, 20)), (run.resnet, (3, 16, 16))]
)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_pytorch_trains_the_same_network_by_the_same_recipe(
    network, shape, optimizer, channels_last
):
    """The losses of two steps, and what both then predict of other images."""
    pytest.importorskip("torch")
    from bench.time_to_accuracy_torch import make_step

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, *shape)).astype(np.uint8)
    labels = np.arange(20) % 5
    recipe = Recipe(weight_decay=0.5, label_smoothing=0.2).with_optimizer(optimizer)
    model = network(shape, 5).fit_normalization(images)
    step, predict = make_step(model, recipe, 1, channels_last)
    ours = this_library(model, recipe)
    losses = []
    for rate in (0.01, 0.005, 0.002):
        losses.append([step(images, labels, rate), ours.step(images, labels, rate)])
    np.testing.assert_allclose(*np.transpose(losses), rtol=2e-3)
    assert len({round(loss, 3) for loss, _ in losses}) == 3  # it learned
    others = rng.integers(0, 256, (40, *shape)).astype(np.uint8)
    assert np.mean(predict(others) == ours.predict(others)) > 0.9


def test_seconds_to_an_accuracy_are_those_of_the_first_epoch_that_has_it():
    curve = Curve([1.0, 2.0, 3.0], [0.5, 0.9, 0.8])
    assert seconds_to(curve, 0.5) == 1
    assert seconds_to(curve, 0.6) == 2
    assert seconds_to(curve, 0.95) == math.inf


def test_table_has_the_means_over_the_seeds():
    runs = [
        {"library": "A", "seed": 0, "seconds": [1.0, 2.0], "accuracies": [0.8, 0.992]},
        {"library": "B", "seed": 0, "seconds": [3.0, 6.0], "accuracies": [0.8, 0.9]},
        {"library": "A", "seed": 1, "seconds": [3.0, 4.0], "accuracies": [0.8, 0.994]},
    ]
    lines = table(runs, [0.8, 0.99]).splitlines()
    assert lines[0] == "| | A | B |"
    assert lines[2] == "| to 80 % | 2 s | 3 s |"
    assert lines[3] == "| to 99 % | 3 s | not reached |"
    assert lines[4] == "| all epochs | 3 s | 6 s |"
    assert lines[5] == "| accuracy then | 99.30% | 90.00% |"


def test_runs_on_own_images(tmp_path, capsys):
    for name, seed in (("train", 0), ("test", 1)):
        write_csv(tmp_path / f"{name}.csv", *digits(150, size=20, seed=seed))
    files = ["--train_data", tmp_path / "train.csv", "--test_data", tmp_path / "test.csv"]
    outputs = ["--json", tmp_path / "a.json", "--plot", tmp_path / "a.png"]
    time_to_accuracy.main([*map(str, [*files, "--epochs", 2, "--targets", 0.5, *outputs])])
    assert "accuracy then" in capsys.readouterr().out
    document = json.loads((tmp_path / "a.json").read_text())
    for each in document["runs"]:
        assert len(each["seconds"]) == len(each["accuracies"]) == 2
        assert 0 < each["seconds"][0] < each["seconds"][1]
    assert document["runs"][0]["library"] == "this library"
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_its_own_data_set_is_mnist(monkeypatch):
    monkeypatch.setattr(
        time_to_accuracy, "load_dataset", lambda name: load_dataset({"mnist": "mnist-5k"}[name])
    )
    data, test = time_to_accuracy.load_both(time_to_accuracy.parse([]))
    assert data.images.shape[1:] == test.images.shape[1:] == (1, 28, 28)
    assert len(data.images) > len(test.images)


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ([], "time-to-accuracy-mnist.json"),
        (["--epochs", "1"], None),
        (["--augment", "none"], None),
        (["--train_data", "a", "--test_data", "b"], None),
        (["--train_data", "a", "--test_data", "b", "--name", "c"], "time-to-accuracy-c.json"),
        (["--train_data", "a", "--test_data", "b", "--name", "c", "--epochs", "1"], None),
    ],
)
def test_a_trial_does_not_replace_published_results(flags, name, tmp_path, monkeypatch):
    monkeypatch.setattr(time_to_accuracy, "results_folder", lambda: tmp_path)
    args = time_to_accuracy.parse(flags)
    assert args.json == (None if name is None else tmp_path / name)


@pytest.mark.parametrize("flags", [["--train_data", "a"], ["--test_data", "b"], ["--name", "c"]])
def test_rejects_images_without_the_others_and_a_name_without_images(flags, capsys):
    with pytest.raises(SystemExit):
        time_to_accuracy.parse(flags)
    assert "--train_data" in capsys.readouterr().err
