"""Training from the command line."""

import csv
import json
import re
import signal
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.command_line import command, start, write_csv
from tests.networks import digits
from training import Model, make_augmenter, split_validation
from training.cli.architectures import Recipe
from training.cli.train import default_epochs

pytest_plugins = ["tests.command_line_fixtures"]

NET = """
from layers import Dense, Flatten
from training import Model

def net(input_shape, classes, **options):
    return Model(input_shape, **options).add(Flatten()).add(Dense(classes))
"""


def read_history(path):
    """Return the columns of a history file, by name."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def test_train_then_test_on_own_csv(cli, tmp_path, csv_files):
    done = cli(*csv_files, "--epochs", 5, "--batch_size", 20, "--no_plots")
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
        tested = cli("--test", *csv_files[2:], "--backend", backend, "--no_plots")
        assert tested.returncode == 0, tested.stderr
        assert f"test accuracy {accuracy:.2%} on 200 images" in tested.stdout


def test_views_of_predictions_are_those_of_the_training_unless_a_flag_names_them(cli, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 28, 28)).astype(np.uint8)
    labels = np.arange(60) % 3
    write_csv(tmp_path / "noise.csv", images, labels)
    common = ["--epochs", 1, "--arch", "tiny", "--backend", "numpy", "--no_plots"]
    path = tmp_path / "models" / "model.json"
    for flags, expected in (
        (["--augment", "none"], "none"),
        (["--augment", "affine"], "shift"),
        (["--augment", "shift,flip", "--tta", "flip"], "flip"),
    ):
        done = cli("--train_data", "noise.csv", *common, *flags)
        assert done.returncode == 0, done.stderr
        model = Model.load(path, backend="numpy")
        assert model.test_time_augmentation == expected
    for names in ("auto", "none", "shift"):
        done = cli(
            *("--test", "--test_data", "noise.csv", "--backend", "numpy", "--no_plots"),
            *("--tta", names),
        )
        assert done.returncode == 0, done.stderr
        model.test_time_augmentation = "flip" if names == "auto" else names
        loss = model.mean_loss(model.logits(images), labels)
        assert f"mean loss {loss:.4f}" in done.stdout


def test_train_further_with_every_flag(tmp_path, csv_files):
    arguments = [*csv_files, "--batch_size", 50, "--backend", "numpy", "--threads", 1]
    first = start(
        *arguments,
        *("--epochs", 1, "--to_path", "a.json", "--schedule", "constant", "--arch", "tiny"),
        "--no_plots",
        cwd=tmp_path,
    )
    assert first.returncode == 0, first.stderr
    second = start(
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


def test_default_augmentation_is_chosen_by_the_images(cli, tmp_path, train_flags):
    """The choice does not disturb the random numbers of the run."""
    default = cli(*train_flags, "--to_path", "default.json")
    assert default.returncode == 0, default.stderr
    names = re.search("--augment (.*): (?:mirrored|images)", default.stdout)[1]
    typed = cli(*train_flags, "--augment", names, "--to_path", "typed.json")
    assert "--augment" not in typed.stdout
    paths = tmp_path / "default.json", tmp_path / "typed.json"
    documents = [json.loads(path.read_text()) for path in paths]
    for document in documents:
        document["history"].pop("images_per_second")
    assert documents[0] == documents[1]


def test_flags_reach_the_training(cli, tmp_path):
    train = write_csv(tmp_path / "train.csv", *digits(100, size=14))  # the least that is shifted
    base = ["--train_data", train, "--backend", "numpy", "--epochs", 1, "--no_plots"]
    results = {}
    for name, extra in {
        "base": [],
        "augmented": ["--augmenter_ratio", 4],
        "split": ["--validation_split", 0.5],
        "rate": ["--learning_rate", 0.01],
        "optimizer": ["--optimizer", "muon"],
        "batch": ["--batch_size", 7],
        "none": ["--augment", "none"],
        "affine": ["--augment", "affine"],
        "decay": ["--weight_decay", 0.5],
        "smoothing": ["--label_smoothing", 0.5],
        "clip": ["--clip_norm", 0.01],
        "schedule": ["--schedule", "constant"],
        "tiny": ["--arch", "tiny"],
    }.items():
        done = cli(*base, *extra, "--to_path", f"{name}.json")
        assert done.returncode == 0, done.stderr
        results[name] = json.loads((tmp_path / f"{name}.json").read_text())["layers"]
        if name == "split":
            assert "50 images" in done.stdout
    for name, layers in results.items():
        assert name == "base" or layers != results["base"], name


@pytest.mark.parametrize(("flag", "epochs"), [([], 356), (["--augmenter_ratio", 4], 89)])
def test_few_images_get_more_epochs(cli, csv_files, flag, epochs):
    """An epoch shows 540 images, or 2,160, and a run 192,000."""
    arguments = [*csv_files[:2], "--arch", "tiny", "--no_plots", "--backend", "numpy"]
    done = cli(*arguments, *flag, "--patience", 1)
    assert f"/{epochs}: loss" in done.stdout
    assert re.search("stopping early|model: ", done.stdout)


@pytest.mark.parametrize(
    ("n_images", "flip", "multiply_adds", "epochs"),
    [
        (60_000, False, 1e6, 8),
        (60_000, True, 1e6, 16),
        (6_000, False, 1e6, 32),
        (6_000, True, 1e8, 16),
        (500, True, 1e8, 100),  # 50,000 images, which take a minute
        (6_000, False, 0, 32),  # a network of layers whose weights have other names
    ],
)
def test_default_epochs_follow_the_images_and_the_network(n_images, flip, multiply_adds, epochs):
    args, model = SimpleNamespace(augmenter_ratio=1), SimpleNamespace(multiply_adds=multiply_adds)
    augmenter = make_augmenter("shift,flip" if flip else "shift")
    recipe = Recipe(epochs=8, photo_epochs=16)
    assert default_epochs(args, recipe, augmenter, model, n_images) == epochs


def test_few_images_are_shown_in_small_batches():
    recipe = Recipe(batch_size=256)
    assert recipe.for_images(25_600) is recipe
    assert recipe.for_images(25_599).batch_size == 64
    assert Recipe(batch_size=32).for_images(10).batch_size == 32


def test_an_optimizer_has_its_own_learning_rate():
    recipe = Recipe(learning_rate=0.3)
    assert recipe.with_optimizer("adamw") is recipe
    assert recipe.with_optimizer("muon").learning_rate == 0.1
    assert recipe.with_optimizer("muon").with_optimizer("adamw").learning_rate == 6e-3


def test_time_limit_ends_the_run_with_its_test(cli, tmp_path, csv_files):
    flags = ["--backend", "numpy", "--arch", "tiny", "--augment", "none", "--no_plots"]
    done = cli(*csv_files, *flags, "--time_limit", 4)
    assert done.returncode == 0, done.stderr
    assert "epoch 1:" in done.stdout
    assert "test accuracy" in done.stdout
    rates = read_history(tmp_path / "models" / "model-history.csv")["learning_rate"]
    assert rates[-1] < 0.1 * max(rates)


def test_time_limit_without_time_for_training(cli, tmp_path, csv_files):
    done = cli(*csv_files, "--backend", "numpy", "--augment", "none", "--time_limit", 1)
    assert done.returncode == 2
    assert "--time_limit 1: nothing is left for the training" in done.stderr
    assert not (tmp_path / "models" / "model.json").exists()


def test_normalization_excludes_the_validation_images(cli, tmp_path, train_flags):
    done = cli(*train_flags)
    assert done.returncode == 0, done.stderr
    model = Model.load(tmp_path / "models" / "model.json", backend="numpy")
    (images, _), _ = split_validation(*digits(600), 0.1, seed=0)
    assert model.mean[0] == pytest.approx(images.mean(), rel=1e-6)


def test_same_seed_gives_the_same_run(cli, tmp_path, csv_files):
    """Weights, statistics and history are equal bit for bit, on numba and all threads."""
    documents = []
    for name, seed in (("a.json", 1), ("b.json", 1), ("c.json", 2)):
        arguments = ["--epochs", 2, "--to_path", name, "--seed", seed, "--no_plots"]
        done = cli(*csv_files[:2], *arguments)
        assert done.returncode == 0, done.stderr
        documents.append(json.loads((tmp_path / name).read_text()))
        documents[-1]["history"].pop("images_per_second")
    assert documents[0] == documents[1]
    assert documents[0]["layers"] != documents[2]["layers"]


def test_bundled_images_need_no_network(cli):
    done = cli("--dataset", "mnist-5k", "--epochs", 1, "--no_plots")
    assert done.returncode == 0, done.stderr
    assert "3,600 images" in done.stdout
    assert "on 1,000 images" in done.stdout
    accuracy = float(done.stdout.split("test accuracy ")[1].split("%")[0])
    assert accuracy > 85


def test_colour_images_of_any_shape(cli, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    images = rng.integers(0, 100, (90, 3, 8, 12))
    images[np.arange(90), labels] += 120
    write_csv(tmp_path / "rgb.csv", images, labels)
    arguments = ["--train_data", "rgb.csv", "--image_shape", "3,8,12", "--epochs", 1]
    done = cli(*arguments, "--backend", "numpy", "--arch", "tiny", "--no_plots")
    assert done.returncode == 0, done.stderr
    model = Model.load(tmp_path / "models" / "model.json", backend="numpy")
    assert model.input_shape == (3, 8, 12)
    assert model.classes == 3


def test_own_architecture(cli, tmp_path, csv_files):
    (tmp_path / "net.py").write_text(NET)
    arguments = [*csv_files, "--epochs", 1, "--backend", "numpy", "--arch", "net.py:net"]
    done = cli(*arguments, "--no_plots")
    assert done.returncode == 0, done.stderr
    model = Model.load(tmp_path / "models" / "model.json", backend="numpy")
    assert [type(layer).__name__ for layer in model.layers] == ["Flatten", "Dense"]


def test_files_beside_the_model(cli, tmp_path, csv_files):
    flags = ["--epochs", 2, "--backend", "numpy", "--arch", "tiny", "--to_path", "a.json"]
    done = cli(*csv_files, *flags)
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
    head = [line.split() for line in done.stdout.splitlines()].index(
        ["class", "precision", "recall", "F1", "support"]
    )
    table = [line.split() for line in done.stdout.splitlines()[head + 1 :]][:4]
    assert [row[0] for row in table] == ["0", "1", "2", "3"]
    assert sum(int(row[-1]) for row in table) == 200
    history = read_history(tmp_path / "a-history.csv")
    assert history["epoch"] == [1, 2]
    model = Model.load(tmp_path / "a.json", backend="numpy")
    assert history["loss"][: len(model.history["loss"])] == model.history["loss"]
    for path in tmp_path.glob("*.png"):
        path.unlink()
    arguments = ["--test", "--from_path", "a.json", *csv_files[2:], "--backend", "numpy"]
    assert cli(*arguments, "--no_plots").returncode == 0
    assert not list(tmp_path.glob("*.png"))
    assert cli(*arguments).returncode == 0
    assert (tmp_path / "a-confusion.png").stat().st_size > 1000


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_run_leaves_the_best_model_on_disk(tmp_path, csv_files, number, code):
    process = subprocess.Popen(
        command(*csv_files, "--epochs", 100_000),
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
    assert "stopped; the best model so far is models/model.json; --resume continues" in out
    model = Model.load(tmp_path / "models" / "model.json", backend="numpy")
    assert len(model.history["loss"]) >= 1


def test_two_runs_cannot_write_to_the_same_model(cli, tmp_path, csv_files, train_flags):
    first = subprocess.Popen(
        command(*csv_files, "--no_plots", "--backend", "numpy", "--epochs", 100_000),
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
    )
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("training on"):
            break
    second = cli(*train_flags)
    assert second.returncode == 2
    assert "models/model.json: another run is writing there" in second.stderr
    other = cli(*train_flags, "--to_path", "models/other.json")
    assert other.returncode == 0, other.stderr
    first.kill()  # the lock must end with the process
    first.communicate(timeout=60)
    assert cli(*train_flags).returncode == 0


def test_tensorboard_events(cli, tmp_path, csv_files):
    from tensorboardX.proto.event_pb2 import Event

    arguments = [*csv_files[:2], "--epochs", 2, "--backend", "numpy", "--no_plots"]
    done = cli(*arguments, "--arch", "tiny", "--tensorboard", "events")
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "events").iterdir()
    content, position, found = file.read_bytes(), 0, {}
    while position < len(content):  # records: length, its checksum, data, their checksum
        size = int.from_bytes(content[position : position + 8], "little")
        event = Event.FromString(content[position + 12 : position + 12 + size])
        position += 16 + size
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value.simple_value))
    history = read_history(tmp_path / "models" / "model-history.csv")
    for name in ("loss", "validation_accuracy", "learning_rate"):
        assert [step for step, _ in found[name]] == [1, 2]
        assert [number for _, number in found[name]] == pytest.approx(history[name])


def test_run_does_not_replace_a_model_or_another_run(cli, tmp_path, train_flags):
    for name in ("x-run.json", "lr0.01", "lr0.001"):
        assert cli(*train_flags, "--to_path", name).returncode == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"lr0.01-history.csv", "lr0.001-history.csv"} < names
    before = (tmp_path / "x-run.json").read_bytes()
    done = cli(*train_flags, "--to_path", "x.json")
    assert done.returncode == 2
    assert "x-run.json: is a model, and the state of the run would be saved there" in done.stderr
    assert (tmp_path / "x-run.json").read_bytes() == before
    document = json.loads(before) | {"run": {}}
    (tmp_path / "y-run.json").write_text(json.dumps(document))
    done = cli(*train_flags, "--to_path", "y-run.json")
    assert done.returncode == 2
    assert "y-run.json: is the state of a run; name another" in done.stderr


def test_full_disk_under_the_log_is_reported_once(cli, tmp_path, train_flags):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "training.log").symlink_to("/dev/full")
    done = cli(*train_flags, "--epochs", 2, "--to_path", "m.json")
    assert done.returncode == 0
    assert done.stderr == f"{tmp_path / 'training.log'}: cannot be written: " + (
        "[Errno 28] No space left on device\n"
    )
