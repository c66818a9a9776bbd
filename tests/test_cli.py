"""The command line, run as a process."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

from tests.networks import digits
from training import Model, split_validation

ROOT = Path(__file__).parents[1]


def write_csv(path, images, labels, header=True):
    lines = ["label," + ",".join(f"pixel{i}" for i in range(images[0].size))] if header else []
    lines += [
        f"{label}," + ",".join(map(str, image.ravel()))
        for image, label in zip(images, labels, strict=True)
    ]
    text = "\n".join(lines) + "\n"
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt") as file:
        file.write(text)
    return path


def run(*arguments, cwd, **options):
    """Run run.py; no variable of the caller's environment decides where data comes from."""
    environment = {k: v for k, v in os.environ.items() if k != "CNN_DATA_DIR"}
    return subprocess.run(
        [sys.executable, ROOT / "run.py", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        text=True,
        capture_output=True,
        timeout=300,
        **options,
    )


NET = """
from layers import Dense, Flatten, Relu
from training import Model

def net(input_shape, classes, **options):
    return Model(input_shape, **options).add(Flatten()).add(Dense(3))

def none(input_shape, classes, **options):
    pass

def images(input_shape, classes, **options):
    return Model(input_shape, **options).add(Relu())

class Mine(Relu):
    pass

def unknown(input_shape, classes, **options):
    return Model(input_shape, **options).add(Flatten()).add(Mine()).add(Dense(classes))
"""


@pytest.fixture
def data(tmp_path):
    """Training and test images as CSV, one with a header and one gzipped without."""
    train = write_csv(tmp_path / "train.csv", *digits(600))
    test = write_csv(tmp_path / "test.csv.gz", *digits(200, seed=1), header=False)
    return {"--train_data": train, "--test_data": test}


def flags(options):
    return [word for pair in options.items() for word in pair]


def test_train_then_test_on_ones_own_csv(tmp_path, data):
    done = run(*flags(data), "--epochs", 5, "--batch_size", 20, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "epoch 5/5" in done.stdout
    assert "test accuracy" in done.stdout
    path = tmp_path / "models" / "model.json"
    model = Model.load(path, backend="numpy")
    images, labels = digits(200, seed=1)
    accuracy = model.evaluate(images, labels)
    assert accuracy > 0.9
    assert 1 <= len(model.history["loss"]) <= 5
    assert f"test accuracy {accuracy:.2%} on 200 images" in done.stdout
    assert "epoch 5/5" in (path.parent / "training.log").read_text()
    assert model.mean[0] == pytest.approx(digits(600)[0].mean(), rel=0.05)

    for backend in ("numba", "scipy", "numpy"):
        tested = run(
            "--test", "--test_data", data["--test_data"], "--backend", backend, cwd=tmp_path
        )
        assert tested.returncode == 0, tested.stderr
        assert f"test accuracy {accuracy:.2%} on 200 images" in tested.stdout


def test_train_on_from_a_model_with_every_flag(tmp_path, data):
    arguments = [*flags(data), "--batch_size", 50, "--backend", "numpy", "--threads", 1]
    first = run(
        *arguments,
        *("--epochs", 1, "--to_path", "a.json", "--schedule", "constant", "--arch", "tiny"),
        cwd=tmp_path,
    )
    assert first.returncode == 0, first.stderr
    second = run(
        *arguments,
        *("--train", "--epochs", 2, "--from_path", "a.json", "--to_path", "b.json"),
        *("--augmenter_ratio", 4, "--learning_rate", 0.001, "--dtype", "float64"),
        *("--schedule", "constant", "--augment", "shift", "--weight_decay", 0.01),
        *("--label_smoothing", 0.1, "--clip_norm", 5, "--patience", 9, "--no_plots"),
        cwd=tmp_path,
    )
    assert second.returncode == 0, second.stderr
    model = Model.load(tmp_path / "b.json", backend="numpy")
    assert model.history["learning_rate"][:2] == [0.006, 0.001]
    assert model.dtype == np.float64
    # 540 images in four versions each: another count than the first run's.
    assert "540 images" in second.stdout


def test_flags_reach_the_training(tmp_path):
    train = write_csv(tmp_path / "train.csv", *digits(600, size=14))
    base = ["--train_data", train, "--backend", "numpy", "--epochs", 1]
    results = {}
    for name, extra in {
        "base": [],
        "augmented": ["--augmenter_ratio", 4],
        "split": ["--validation_split", 0.5],
        "rate": ["--learning_rate", 0.01],
        "batch": ["--batch_size", 7],
        "none": ["--augment", "none"],
        "affine": ["--augment", "affine"],
        "decay": ["--weight_decay", 0.5],
        "smoothing": ["--label_smoothing", 0.5],
        "clip": ["--clip_norm", 0.01],
        "schedule": ["--schedule", "constant"],
        "tiny": ["--arch", "tiny"],
    }.items():
        done = run(*base, *extra, "--to_path", f"{name}.json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        results[name] = json.loads((tmp_path / f"{name}.json").read_text())["layers"]
        if name == "split":
            assert "300 images" in done.stdout
    for name, layers in results.items():
        assert name == "base" or layers != results["base"], name


@pytest.mark.parametrize(("flag", "epochs"), [([], 334), (["--augmenter_ratio", 4], 89)])
def test_few_images_are_trained_on_for_more_epochs(tmp_path, data, flag, epochs):
    """540 images, 9 or 34 steps an epoch: 3,000 steps."""
    arguments = ["--train_data", data["--train_data"], "--arch", "tiny", "--no_plots"]
    done = run(*arguments, *flag, "--patience", 1, cwd=tmp_path)
    assert f"/{epochs}: loss" in done.stdout
    assert re.search("stopping early|model: ", done.stdout)


def test_normalization_leaves_the_validation_images_out(tmp_path, data):
    done = run("--train_data", data["--train_data"], "--epochs", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = Model.load(tmp_path / "models" / "model.json", backend="numpy")
    (images, _), _ = split_validation(*digits(600), 0.1, seed=0)
    assert model.mean[0] == pytest.approx(images.mean(), rel=1e-6)


def test_a_seed_repeats_a_run(tmp_path, data):
    """Bit for bit, with the numba backend on all threads, in weights, statistics and history."""
    documents = []
    for name, seed in (("a.json", 1), ("b.json", 1), ("c.json", 2)):
        arguments = ["--epochs", 2, "--to_path", name, "--seed", seed, "--no_plots"]
        done = run("--train_data", data["--train_data"], *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        documents.append(json.loads((tmp_path / name).read_text()))
        documents[-1]["history"].pop("images_per_second")
    assert documents[0] == documents[1]
    assert documents[0]["layers"] != documents[2]["layers"]


def test_embedded_images_need_no_network(tmp_path):
    done = run("--dataset", "mnist-5k", "--epochs", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3,600 images" in done.stdout
    assert "on 1,000 images" in done.stdout
    accuracy = float(done.stdout.split("test accuracy ")[1].split("%")[0])
    assert accuracy > 85


def test_colour_images_of_any_shape(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    images = rng.integers(0, 100, (90, 3, 8, 12))
    images[np.arange(90), labels] += 120
    write_csv(tmp_path / "rgb.csv", images, labels)
    arguments = ["--train_data", "rgb.csv", "--image_shape", "3,8,12", "--epochs", 1]
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = Model.load(tmp_path / "models" / "model.json", backend="numpy")
    assert model.input_shape == (3, 8, 12)
    assert model.classes == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train_data", "none.csv"], "none.csv"),
        (["--train_data", "."], "directory"),
        (["--train_data", "text.csv"], "text.csv"),
        (["--train_data", "train.csv", "--dataset", "mnist"], "give one"),
        (["--test", "--train_data", "train.csv"], "--test_data"),
        (["--test", "--from_path", "none.json"], "no such model"),
        (["--test", "--from_path", "train.csv"], "train.csv: is not a model"),
        (["--train_data", "train.csv", "--test_data", "wide.csv"], "must be alike"),
        (["--train_data", "train.csv", "--image_shape", "1,9,9"], "train.csv"),
        (["--train_data", "train.csv", "--image_shape", "8x8"], "C,H,W"),
        (["--train_data", "train.csv", "--to_path", "."], "is a directory"),
        (["--train_data", "train.csv", "--to_path", "train.csv/m.json"], "cannot be written"),
        (["--train_data", "train.csv", "--threads", "100000"], "threads must be 1 to"),
        (["--train_data", "tiny.csv"], "too few"),
        (["--data_dir", "nowhere"], "nowhere"),
        (["--epochs", "0"], "--epochs: must be a whole number from 1"),
        (["--epochs", "many"], "--epochs: must be a whole number from 1 to 2147483647, got 'many'"),
        (["--epochs", "3000000000"], "--epochs: must be a whole number from 1"),
        (["--train_data", "train.csv", "--to_path", "train.csv"], "train.csv: is no model"),
        (["--train_data", "train.csv", "--to_path", "training.log"], "is no model"),
        (["--from_path", "train.csv", "--seed", "3"], "--seed is for a new model"),
        (["--test", "--test_data", "test.csv.gz", "--dataset", "mnist"], "give one"),
        (["--batch_size", "-3"], "--batch_size: must be a whole number from 1"),
        (["--learning_rate", "nan"], "--learning_rate: must be a number above 0"),
        (["--learning_rate", "0"], "--learning_rate: must be a number above 0"),
        (["--seed", "-1"], "--seed: must be a whole number from 0"),
        (["--augmenter_ratio", "3"], "--augmenter_ratio"),
        (["--augment", "none", "--augmenter_ratio", "4"], "--augment none makes none"),
        (["--augment", "flip"], "--augment"),
        (["--schedule", "linear"], "--schedule"),
        (["--weight_decay", "-1"], "--weight_decay: must be a number from 0 to 10"),
        (
            ["--label_smoothing", "1"],
            "--label_smoothing: must be a number of at least",
        ),
        (["--clip_norm", "0"], "--clip_norm: must be a number above 0"),
        (["--patience", "0"], "--patience: must be a whole number from 1"),
        (["--arch", "huge"], "--arch: must be tiny, small, wide, large or path/to/file.py:"),
        (["--arch", "gone.py:net"], "there is no file 'gone.py'"),
        (["--arch", "train.csv:net"], "'train.csv' cannot be run: NameError"),
        (["--arch", "net.py:other"], "has no function 'other'"),
        (["--arch", "broken.py:net"], "cannot be run: ZeroDivisionError"),
        (["--train_data", "train.csv", "--arch", "net.py:net"], "tells 3 classes apart, not 4"),
        (["--train_data", "train.csv", "--arch", "net.py:none"], "must return a Model"),
        (["--train_data", "train.csv", "--arch", "net.py:images"], "not one number a class"),
        (["--train_data", "train.csv", "--arch", "net.py:unknown"], "add Mine to LAYER_TYPES"),
        (["--from_path", "a.json", "--arch", "tiny"], "--arch is for a new model"),
        (["--backend", "cuda"], "--backend"),
        (["--dataset", "imagenet"], "--dataset"),
        (["--train", "--test"], "not allowed with"),
        (["--bogus"], "--bogus"),
        (["--resume"], "there is no interrupted run to resume"),
        (["--resume", "--to_path", "."], "there is no interrupted run to resume"),
        (["--resume", "--to_path", "run-run.json"], "there is no interrupted run"),
        (["--resume", "--test"], "not allowed with"),
        (["--predict", "train.csv", "--from_path", "none.json"], "no such model"),
        (["--predict", "train.csv", "--train_data", "train.csv"], "--predict names the images"),
        (["--output", "a.csv"], "--output is for the labels of --predict"),
        (["--find_lr", "--from_path", "a.json"], "--find_lr tries the rates on a new model"),
        (["--test", "--to_path", "a.json"], "--test does not use it: name the model with --from_p"),
        (["--test", "--seed", "0"], "--seed is for training, and --test does not use it"),
        (["--predict", "a.png", "--epochs", "3"], "--epochs is for training, and --predict does"),
        (["--image_shape", "1,28,28"], "--image_shape is for a CSV file"),
        (["--train_data", "train.csv", "--data_dir", "."], "--data_dir is where a --dataset"),
        (["--arch", ""], "--arch: must be tiny, small, wide, large or path/to/file.py:function"),
    ],
)
def test_bad_input_is_answered_in_one_message(tmp_path, data, arguments, message):
    (tmp_path / "text.csv").write_text("0,1,2,3,4\n1,1,two,3,4\n")
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "broken.py").write_text("1 / 0")
    write_csv(tmp_path / "wide.csv", *digits(20, size=9))
    write_csv(tmp_path / "tiny.csv", digits(2)[0], [0, 1])
    before = sorted(tmp_path.iterdir())
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()[-1]) < 400
    assert [p for p in sorted(tmp_path.iterdir()) if p.name != "models"] == before


def test_a_model_and_data_that_do_not_fit_are_answered(tmp_path, data):
    arguments = ["--train_data", data["--train_data"], "--epochs", 1, "--backend", "numpy"]
    assert run(*arguments, cwd=tmp_path).returncode == 0
    wide = write_csv(tmp_path / "wide.csv", *digits(20, size=9))
    done = run("--test", "--test_data", wide, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "wide.csv: its images are (1, 9, 9)" in done.stderr
    images, labels = digits(100)
    more = write_csv(tmp_path / "more.csv", images, labels + 4 * (np.arange(100) % 2))
    before = (tmp_path / "models" / "model.json").read_bytes()
    done = run("--train_data", more, "--from_path", "models/model.json", cwd=tmp_path)
    assert done.returncode == 2
    assert "8 classes" in done.stderr
    assert (tmp_path / "models" / "model.json").read_bytes() == before


def test_a_data_set_with_more_classes_than_the_model_is_answered(tmp_path):
    images, labels = digits(100, size=28)
    train = write_csv(tmp_path / "train.csv", images, labels)
    assert run("--train_data", train, "--epochs", 1, cwd=tmp_path).returncode == 0
    done = run("--test", "--dataset", "mnist-5k", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "has 10 classes, but models/model.json tells 4 apart" in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_the_best_model_on_disk(tmp_path, data, number, code):
    process = subprocess.Popen(
        [sys.executable, "-u", ROOT / "run.py", *map(str, flags(data)), "--epochs", "100000"],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Where the tests run in the background, Ctrl-C may be ignored from the start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    assert process.stdout is not None
    for line in process.stdout:
        if re.match("epoch +2/", line):
            break
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    watchdog.cancel()
    assert process.returncode == code
    assert "Traceback" not in err
    assert "stopped; the best model so far is models/model.json; --resume goes on" in out
    model = Model.load(tmp_path / "models" / "model.json", backend="numpy")
    assert len(model.history["loss"]) >= 1


def test_ones_own_architecture(tmp_path, data):
    (tmp_path / "net.py").write_text(NET.replace("Dense(3)", "Dense(classes)"))
    arguments = [*flags(data), "--epochs", 1, "--backend", "numpy", "--arch", "net.py:net"]
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = Model.load(tmp_path / "models" / "model.json", backend="numpy")
    assert [type(layer).__name__ for layer in model.layers] == ["Flatten", "Dense"]


def test_what_a_training_leaves_beside_the_model(tmp_path, data):
    done = run(
        *flags(data), "--epochs", 2, "--backend", "numpy", "--to_path", "a.json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    names = {path.name for path in tmp_path.iterdir()}
    drawn = {f"a-{name}.png" for name in ("curves", "confusion", "mistakes", "filters")}
    assert names == {
        "a.json",
        ".a-run.json.lock",
        "a-history.csv",
        "training.log",
        "train.csv",
        "test.csv.gz",
        *drawn,
    }
    assert "by class: 0 " in done.stdout
    # Before version 3.1, pandas reads some numbers with another last bit than was written.
    history = pandas.read_csv(tmp_path / "a-history.csv", converters={"loss": float})
    assert history["epoch"].tolist() == [1, 2]
    model = Model.load(tmp_path / "a.json", backend="numpy")
    assert history["loss"].tolist()[: len(model.history["loss"])] == model.history["loss"]
    for path in tmp_path.glob("*.png"):
        path.unlink()
    arguments = ["--test", "--from_path", "a.json", "--test_data", data["--test_data"]]
    assert run(*arguments, "--no_plots", cwd=tmp_path).returncode == 0
    assert not list(tmp_path.glob("*.png"))
    assert run(*arguments, cwd=tmp_path).returncode == 0
    assert (tmp_path / "a-confusion.png").stat().st_size > 1000


def test_a_run_is_gone_on_with(tmp_path, data):
    """Killed after its first epoch, with settings of its own, and gone on with elsewhere."""
    arguments = [
        *("--train_data", data["--train_data"].name, "--epochs", 3, "--batch_size", 50),
        *("--schedule", "plateau", "--seed", 4, "--arch", "tiny", "--no_plots"),
    ]
    whole = run(*arguments, "--to_path", "a.json", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        [sys.executable, "-u", ROOT / "run.py", *map(str, arguments), "--to_path", "b.json"],
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
    assert (tmp_path / "b-run.json").exists()
    (tmp_path / "elsewhere").mkdir()
    again = ["--resume", "--to_path", "../b.json", "--no_plots"]
    wrong = run(*again, "--seed", 5, cwd=tmp_path / "elsewhere")
    assert wrong.returncode == 2
    assert "--seed: the run to go on with has 4, not 5" in wrong.stderr
    done = run(*again, "--seed", 4, "--arch", "tiny", cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    assert "epoch 1/3" not in done.stdout
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    for document in (first, second):
        document["history"].pop("images_per_second")
    assert first == second
    assert not (tmp_path / "b-run.json").exists()


def test_images_are_labelled(tmp_path, data):
    arguments = ["--train_data", data["--train_data"], "--epochs", 5, "--arch", "tiny"]
    assert run(*arguments, "--no_plots", cwd=tmp_path).returncode == 0
    images, labels = digits(200, seed=1)
    done = run("--predict", data["--test_data"], "--backend", "numpy", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    head, *rows, last = done.stdout.splitlines()
    assert head.split() == ["image", "label", "probability"]
    guesses = np.array([int(row.split()[1]) for row in rows])
    model = Model.load(tmp_path / "models" / "model.json", backend="numpy")
    np.testing.assert_array_equal(guesses, model.predict(images))
    assert last == f"{(guesses == labels).mean():.2%} are labelled so in {data['--test_data']}"

    (tmp_path / "pictures").mkdir()
    for place in range(12):
        Image.fromarray(images[place, 0]).save(tmp_path / "pictures" / f"{place}.png")
    done = run("--predict", "pictures", "--output", "labels.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    table = pandas.read_csv(tmp_path / "labels.csv")
    assert table["image"].tolist() == [f"{place}.png" for place in range(12)]
    assert table["label"].tolist() == guesses[:12].tolist()
    assert table["probability"].between(0.25, 1).all()
    for arguments, message in (
        (["none.png"], "none.png: no such file"),
        (["pictures", "--output", "no/where.csv"], "--output no/where.csv: No such file"),
        (["pictures", "--image_shape", "1,9"], "C,H,W"),
    ):
        done = run("--predict", *arguments, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error(tmp_path, data):
    arguments = ["--train_data", data["--train_data"], "--epochs", 1, "--arch", "tiny"]
    assert run(*arguments, "--no_plots", cwd=tmp_path).returncode == 0
    command = f"{sys.executable} {ROOT / 'run.py'} --predict train.csv | head -2"
    done = subprocess.run(command, shell=True, cwd=tmp_path, text=True, capture_output=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 2


def test_a_learning_rate_is_found(tmp_path, data):
    done = run("--find_lr", "--train_data", data["--train_data"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rate = float(re.search("suggestion: --learning_rate (.*)", done.stdout)[1])
    assert 1e-4 < rate < 1
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["model-find_lr.png"]


def test_two_runs_do_not_write_to_the_same_model(tmp_path, data):
    arguments = [sys.executable, "-u", ROOT / "run.py", *map(str, flags(data)), "--no_plots"]
    first = subprocess.Popen(
        [*arguments, "--epochs", "100000"], cwd=tmp_path, text=True, stdout=subprocess.PIPE
    )
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("training on"):
            break
    second = run(*flags(data), "--epochs", 1, cwd=tmp_path)
    assert second.returncode == 2
    assert "models/model.json: another run is writing there" in second.stderr
    other = run(*flags(data), "--epochs", 1, "--to_path", "models/other.json", cwd=tmp_path)
    assert other.returncode == 0, other.stderr
    first.kill()  # which leaves no lock behind
    first.communicate(timeout=60)
    assert run(*flags(data), "--epochs", 1, cwd=tmp_path).returncode == 0


def test_tensorboard_events(tmp_path, data):
    from tensorboardX.proto.event_pb2 import Event

    arguments = ["--train_data", data["--train_data"], "--epochs", 2, "--backend", "numpy"]
    done = run(*arguments, "--arch", "tiny", "--tensorboard", "events", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "events").iterdir()
    content, start, found = file.read_bytes(), 0, {}
    while start < len(content):  # records: length, its checksum, data, their checksum
        size = int.from_bytes(content[start : start + 8], "little")
        event = Event.FromString(content[start + 12 : start + 12 + size])
        start += 16 + size
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    history = pandas.read_csv(tmp_path / "models" / "model-history.csv")
    for name in ("loss", "validation_accuracy", "learning_rate"):
        assert [step for step, _ in found[name]] == [1, 2]
        assert [number for _, number in found[name]] == pytest.approx(history[name].tolist())


def test_no_run_takes_the_place_of_a_model_or_of_another_run(tmp_path, data):
    arguments = ["--train_data", data["--train_data"], "--epochs", 1, "--backend", "numpy"]
    arguments += ["--no_plots", "--arch", "tiny"]
    for name in ("x-run.json", "lr0.01", "lr0.001"):
        assert run(*arguments, "--to_path", name, cwd=tmp_path).returncode == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"lr0.01-history.csv", "lr0.001-history.csv"} < names
    before = (tmp_path / "x-run.json").read_bytes()
    done = run(*arguments, "--to_path", "x.json", cwd=tmp_path)
    assert done.returncode == 2
    assert "x-run.json: is a model, and the run would be kept there" in done.stderr
    assert (tmp_path / "x-run.json").read_bytes() == before
    document = json.loads(before) | {"run": {}}
    (tmp_path / "y-run.json").write_text(json.dumps(document))
    done = run(*arguments, "--to_path", "y-run.json", cwd=tmp_path)
    assert done.returncode == 2
    assert "y-run.json: keeps a run; name another" in done.stderr


def test_labels_do_not_take_the_place_of_images_or_a_model(tmp_path, data):
    arguments = ["--train_data", data["--train_data"], "--epochs", 1, "--arch", "tiny"]
    assert run(*arguments, "--no_plots", "--to_path", "m.json", cwd=tmp_path).returncode == 0
    for output in ("train.csv", "./m.json"):
        before = (tmp_path / output).read_bytes()
        predict = ["--predict", "train.csv", "--from_path", "m.json", "--output", output]
        done = run(*predict, cwd=tmp_path)
        assert done.returncode == 2
        assert "would be overwritten" in done.stderr
        assert (tmp_path / output).read_bytes() == before


def test_a_full_disk_under_the_log_is_told_once(tmp_path, data):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "training.log").symlink_to("/dev/full")
    arguments = [*flags(data), "--epochs", 2, "--backend", "numpy", "--to_path", "m.json"]
    done = run(*arguments, "--no_plots", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == f"{tmp_path / 'training.log'}: cannot be written: " + (
        "[Errno 28] No space left on device\n"
    )


def test_help_explains_every_flag(tmp_path):
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    for flag in [
        "--predict",
        "--output",
        "--resume",
        "--find_lr",
        "--tensorboard",
        "--train",
        "--test",
        "--train_data",
        "--test_data",
        "--epochs",
        "--batch_size",
        "--arch",
        "--augment",
        "--augmenter_ratio",
        "--clip_norm",
        "--label_smoothing",
        "--no_plots",
        "--patience",
        "--schedule",
        "--weight_decay",
        "--to_path",
        "--from_path",
        "--backend",
        "--dataset",
        "--data_dir",
        "--learning_rate",
        "--seed",
        "--threads",
        "--dtype",
        "--image_shape",
        "--validation_split",
    ]:
        assert flag in done.stdout
