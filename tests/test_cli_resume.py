"""Resuming an interrupted run from the command line."""

import json
import subprocess

import numpy as np
import pytest

import run
from tests.command_line import command, write_csv
from tests.networks import digits
from training import TrainingState
from training.cli import arguments

pytest_plugins = ["tests.command_line_fixtures"]


def test_killed_run_ends_as_an_uninterrupted_one(cli, tmp_path, monkeypatch, csv_files):
    """The run is killed after its first epoch, and resumed from another folder."""
    flags = [
        *("--train_data", "train.csv", "--epochs", 3, "--batch_size", 50, "--backend", "numpy"),
        *("--schedule", "plateau", "--seed", 4, "--arch", "tiny", "--no_plots"),
    ]
    whole = cli(*flags, "--to_path", "a.json")
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        command(*flags, "--to_path", "b.json"), cwd=tmp_path, text=True, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            process.kill()
            break
    process.communicate(timeout=60)
    settings = json.loads((tmp_path / "b-run.json").read_text())["run"]["settings"]
    assert f"--augment {settings['augment']}: " in whole.stdout  # what auto stood for
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = ["--resume", "--to_path", "../b.json", "--no_plots"]
    wrong = cli(*again, "--seed", 5)
    assert wrong.returncode == 2
    assert "--seed: the run to resume has 4, not 5" in wrong.stderr
    done = cli(*again, "--seed", 4, "--arch", "tiny")
    assert done.returncode == 0, done.stderr
    assert "resuming the run of" in done.stdout
    assert "choosing the augmentation" not in done.stdout
    assert "epoch 1/3" not in done.stdout
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    for document in (first, second):
        document["history"].pop("images_per_second")
    assert first == second
    assert not (tmp_path / "b-run.json").exists()


@pytest.fixture
def saved_settings(monkeypatch):
    """Return the settings of an interrupted run, which a test may change."""
    settings = {"epochs": "7", "learning_rate": "0.25", "image_shape": "3,8,12", "seed": "4"}
    settings |= {"train_data": "/somewhere/train.csv", "schedule": "cosine", "batch_size": "32"}
    state = TrainingState("model-run.json", settings)
    monkeypatch.setattr(TrainingState, "open", lambda path: state)
    return settings


def test_typed_flags_override_saved_settings_and_defaults_do_not(saved_settings):
    argv = ["--resume", "--epochs", "9", "--batch_size=64"]  # 64 is the default, and typed
    args = arguments.parse(argv, run.ARCHITECTURES)
    assert (args.epochs, args.batch_size) == (9, 64)
    assert (args.learning_rate, args.schedule, args.image_shape) == (0.25, "cosine", (3, 8, 12))
    assert str(args.train_data) == "/somewhere/train.csv"
    assert (args.patience, args.batch_size, args.seed) == (None, 64, None)


def test_a_run_of_a_version_without_a_choice_of_optimizers_had_adamw(saved_settings):
    assert arguments.parse(["--resume"], run.ARCHITECTURES).optimizer == "adamw"
    saved_settings["optimizer"] = "muon"
    assert arguments.parse(["--resume"], run.ARCHITECTURES).optimizer == "muon"


def test_saved_settings_are_checked_like_typed_flags(capsys, saved_settings):
    saved_settings["epochs"] = "0"
    with pytest.raises(SystemExit) as stop:
        arguments.parse(["--resume"], run.ARCHITECTURES)
    assert stop.value.code == 2
    assert "argument --epochs: must be a whole number from 1" in capsys.readouterr().err


def test_typed_flag_that_conflicts_with_a_saved_setting(capsys, saved_settings):
    with pytest.raises(SystemExit):
        arguments.parse(["--resume", "--dataset", "mnist"], run.ARCHITECTURES)
    assert "--dataset and --train_data both name the training images" in capsys.readouterr().err


def test_settings_survive_a_round_trip_through_text(saved_settings):
    args = arguments.parse(["--resume"], run.ARCHITECTURES)
    texts = arguments.settings(args)
    assert texts["image_shape"] == "3,8,12"
    assert np.float64(texts["learning_rate"]) == 0.25
    assert "patience" not in texts


def test_class_names_and_class_weight_are_kept(cli, tmp_path):
    """The names of the classes are those of the data; the run file holds them and the flag."""
    images, labels = digits(200)
    write_csv(tmp_path / "train.csv", images, np.array([1, 5, 10, 20])[labels])
    flags = ["--train_data", "train.csv", "--epochs", 2, "--backend", "numpy", "--arch", "tiny"]
    flags += ["--no_plots"]
    for name, extra in (("a.json", ["--class_weight", "balanced"]), ("c.json", [])):
        done = cli(*flags, *extra, "--to_path", name)
        assert done.returncode == 0, done.stderr
    process = subprocess.Popen(
        command(*flags, "--class_weight", "balanced", "--to_path", "b.json"),
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            process.kill()
            break
    process.communicate(timeout=60)
    run_document = json.loads((tmp_path / "b-run.json").read_text())
    assert run_document["run"]["settings"]["class_weight"] == "balanced"
    assert run_document["class_names"] == ["1", "5", "10", "20"]
    old = run_document["run"]["settings"].copy()
    assert old.pop("split") == "stratified"
    document = run_document | {"run": run_document["run"] | {"settings": old}}
    (tmp_path / "old-run.json").write_text(json.dumps(document))
    done = cli("--resume", "--to_path", "old.json", "--no_plots")
    assert "old-run.json is of an earlier version, which set other images aside" in done.stdout
    done = cli("--resume", "--to_path", "b.json", "--no_plots")
    assert done.returncode == 0, done.stderr
    assert "earlier version" not in done.stdout
    a, b, c = (json.loads((tmp_path / f"{name}.json").read_text()) for name in "abc")
    assert a["class_names"] == b["class_names"] == ["1", "5", "10", "20"]
    assert a["layers"] == b["layers"]
    assert a["layers"] != c["layers"]
