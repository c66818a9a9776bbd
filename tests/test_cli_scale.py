"""Pixels on another scale than in training, and --scale."""

import json

import numpy as np
import pytest

import run
from tests.command_line import write_csv
from tests.networks import digits
from training import Model
from training.cli import arguments
from training.cli.flag_types import pixel_scale
from training.datasets import load_dataset, load_images

pytest_plugins = ["tests.command_line_fixtures"]

IMAGES, LABELS = digits(60)
NOTE = (
    "unit.csv: its pixels are from 0 to 1, those of the training images from 0 to 255: they are "
    "scaled as by --scale 0,1; --scale none leaves them as they are\n"
)


@pytest.fixture
def model(cli, tmp_path):
    """Save an untrained model of pixels from 0 to 255, and files of pixels on other scales."""
    model = run.tiny((1, 8, 8), 4, backend="numpy").fit_normalization(digits(400, seed=1)[0])
    model.save(tmp_path / "model.json")
    images = IMAGES.copy()
    images[0, 0, 0, :2] = 0, 255
    write_csv(tmp_path / "bytes.csv", images, LABELS)
    write_csv(tmp_path / "unit.csv", images / 255, LABELS)
    write_csv(tmp_path / "signed.csv", images / 127.5 - 1, LABELS)
    write_csv(tmp_path / "percent.csv", images / 2.55, LABELS)
    np.savez(tmp_path / "unit.npz", x=images / 255, y=LABELS)
    return model


def call(cli, *flags):
    done = cli(*flags, "--from_path", "model.json", "--backend", "numpy")
    assert done.returncode == 0, done.stderr
    return done


def test_predicts_the_same_and_says_so_once(cli, model):
    expected = call(cli, "--predict", "bytes.csv")
    assert expected.stderr == ""
    found = call(cli, "--predict", "unit.csv")
    assert found.stderr == NOTE
    table = expected.stdout.splitlines()[:-1]
    assert found.stdout.splitlines()[:-1] == table
    for scale, name in (("0,1", "unit.csv"), ("-1,1", "signed.csv"), ("0,100", "percent.csv")):
        for flags in (["--scale", scale], [f"--scale={scale}"]):
            done = call(cli, "--predict", name, *flags)
            assert done.stderr == ""
            assert done.stdout.splitlines()[:-1] == table
    unchanged = call(cli, "--predict", "unit.csv", "--scale", "none")
    assert unchanged.stderr == ""
    assert unchanged.stdout.splitlines()[:-1] != table
    inverted = call(cli, "--predict", "bytes.csv", "--scale", "255,0")
    assert inverted.stdout.splitlines()[:-1] != table


@pytest.mark.parametrize("name", ["unit.csv", "unit.npz"])
def test_tests_the_same_and_says_so_once(cli, model, name):
    flags = "--test", "--no_plots", "--test_data"
    expected = call(cli, *flags, "bytes.csv")
    found = call(cli, *flags, name)
    assert found.stderr == NOTE.replace("unit.csv", name)
    assert found.stdout.splitlines()[1:] == expected.stdout.splitlines()[1:]
    by_hand = call(cli, *flags, name, "--scale", "0,1")
    assert (by_hand.stderr, by_hand.stdout) == ("", found.stdout)
    assert call(cli, *flags, name, "--scale", "none").stdout != found.stdout


def test_a_named_data_set_is_scaled_as_a_file(cli, tmp_path):
    data = load_dataset("mnist-5k")[1]
    images, labels = data.images, data.labels
    model = run.tiny((1, 28, 28), 10, backend="numpy").fit_normalization(images / 255)
    model.save(tmp_path / "model.json")
    done = call(cli, "--test", "--dataset", "mnist-5k", "--no_plots")
    assert "those of the training images from 0 to 1: they are scaled as by --scale 0,255;" in (
        done.stderr
    )
    accuracy = (model.predict(images / np.float32(255)) == labels).mean()
    assert f"{accuracy:.2%}" in done.stdout


def test_training_images_of_a_saved_model_are_scaled(cli, tmp_path, model):
    flags = ["--epochs", 1, "--no_plots", "--augment", "none"]
    for name in ("bytes", "unit"):
        done = call(cli, "--train_data", f"{name}.csv", "--to_path", f"{name}.json", *flags)
        assert (NOTE.strip() in done.stdout) == (name == "unit")
    first, second = (Model.load(tmp_path / f"{name}.json", "numpy") for name in ("bytes", "unit"))
    np.testing.assert_array_equal(first.predict_proba(IMAGES), second.predict_proba(IMAGES))
    assert first.input_stats == model.input_stats


def test_test_images_have_the_scale_of_the_training_images(cli, tmp_path, model):
    flags = ["--epochs", 1, "--no_plots", "--augment", "none", "--backend", "numpy"]
    flags += ["--train_data", "bytes.csv", "--arch", "tiny", "--to_path", "new.json"]
    outputs = [cli(*flags, "--test_data", name) for name in ("bytes.csv", "unit.csv")]
    expected, found = (
        [line for line in o.stdout.splitlines() if "test acc" in line] for o in outputs
    )
    assert found == expected != []
    assert NOTE.strip() in outputs[1].stdout


def test_a_resumed_run_keeps_the_scale():
    argv = ["--train_data", "a.csv", "--from_path", "m.json", "--scale", "-1,1"]
    args = arguments.parse(argv, run.ARCHITECTURES)
    assert args.scale == (-1, 1)
    text = arguments.settings(args)["scale"]
    assert pixel_scale(text) == (-1, 1)
    assert json.loads(json.dumps(text)) == text


def test_library(model, tmp_path):
    expected = load_images(tmp_path / "bytes.csv", like=model.input_format)
    found = load_images(tmp_path / "unit.csv", like=model.input_format)
    assert found.images.dtype == np.uint8
    np.testing.assert_array_equal(found.images, expected.images)
    assert [f"{note}\n" for note in found.notes if "scale" in note] == [
        NOTE.replace("unit.csv", str(tmp_path / "unit.csv"))
    ]
    by_hand = load_images(tmp_path / "percent.csv", like=model.input_format, scale=(0, 100))
    np.testing.assert_allclose(by_hand.images, expected.images, atol=1e-4)
    for scale, like, message in (
        ((1, 1), model.input_format, "scale must be two different numbers"),
        ((0, 1), None, "scale is for images of a saved model"),
    ):
        with pytest.raises(ValueError, match=message):
            load_images(tmp_path / "unit.csv", like=like, scale=scale)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train_data", "unit.csv", "--scale", "0,1"], "--scale is for a saved model"),
        (["--show_data", "--scale", "0,1"], "--scale is for a saved model"),
        (["--predict", "unit.csv", "--scale", "1"], "argument --scale: must be two different"),
        (["--predict", "unit.csv", "--scale", "-1"], "argument --scale: must be two different"),
        (["--predict", "unit.csv", "--scale", "1,1"], "argument --scale: must be two different"),
        (["--predict", "unit.csv", "--scale", "1,nan"], "argument --scale: must be two different"),
        (["--predict", ".", "--scale", "0,1"], "has pictures, whose pixels are from 0 to 255"),
        (["--predict", "a.png", "--scale", "0,1"], "has pictures, whose pixels are from 0 to 255"),
    ],
)
def test_wrong_flags(cli, model, flags, message):
    done = cli(*flags, *(["--from_path", "model.json"] if "--predict" in flags else []))
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
