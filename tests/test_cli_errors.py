"""Wrong arguments and files: one message, exit code 2, and no file changed."""

import pytest

from tests.command_line import start, write_csv
from tests.networks import digits

pytest_plugins = ["tests.command_line_fixtures"]

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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train_data", "none.csv"], "none.csv"),
        (["--train_data", "."], "no pictures"),
        (["--train_data", "text.csv"], "text.csv"),
        (["--train_data", "train.csv", "--dataset", "mnist"], "give one"),
        (["--test", "--train_data", "train.csv"], "--test_data"),
        (["--test", "--from_path", "none.json"], "no such model"),
        (["--test", "--from_path", "train.csv"], "train.csv: is not a model"),
        (["--train_data", "train.csv", "--test_data", "wide.csv"], "both must have the same shape"),
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
        (
            ["--train_data", "train.csv", "--to_path", "train.csv"],
            "train.csv: is not a model, and would",
        ),
        (["--train_data", "train.csv", "--to_path", "training.log"], "is not a model"),
        (["--from_path", "train.csv", "--seed", "3"], "--seed is for a new model"),
        (["--test", "--test_data", "test.csv.gz", "--dataset", "mnist"], "give one"),
        (["--batch_size", "-3"], "--batch_size: must be a whole number from 1"),
        (["--learning_rate", "nan"], "--learning_rate: must be a number above 0"),
        (["--learning_rate", "0"], "--learning_rate: must be a number above 0"),
        (["--seed", "-1"], "--seed: must be a whole number from 0"),
        (["--augmenter_ratio", "3"], "--augmenter_ratio"),
        (["--augment", "none", "--augmenter_ratio", "4"], "--augment none makes none"),
        (["--augment", "turn"], "--augment: must be one or more of none, shift, affine, flip"),
        (["--augment", "shift,none"], "--augment: must be none alone"),
        (["--augment", "shift,auto"], "(or auto alone)"),
        (["--schedule", "linear"], "--schedule"),
        (["--weight_decay", "-1"], "--weight_decay: must be a number from 0 to 10"),
        (
            ["--label_smoothing", "1"],
            "--label_smoothing: must be a number of at least",
        ),
        (["--clip_norm", "0"], "--clip_norm: must be a number above 0"),
        (["--patience", "0"], "--patience: must be a whole number from 1"),
        (
            ["--arch", "huge"],
            "resnet, mobile or path/to/file.py:",
        ),
        (["--arch", "gone.py:net"], "there is no file 'gone.py'"),
        (["--arch", "train.csv:net"], "'train.csv' cannot be run: NameError"),
        (["--arch", "net.py:other"], "has no function 'other'"),
        (["--arch", "broken.py:net"], "cannot be run: ZeroDivisionError"),
        (
            ["--train_data", "train.csv", "--arch", "net.py:net"],
            "the model has 3 classes, and the images 4",
        ),
        (["--train_data", "train.csv", "--arch", "net.py:none"], "must return a Model"),
        (["--train_data", "train.csv", "--arch", "net.py:images"], "not one score per class"),
        (["--train_data", "train.csv", "--arch", "net.py:unknown"], "add Mine to LAYER_TYPES"),
        (["--from_path", "a.json", "--arch", "tiny"], "--arch is for a new model"),
        (["--backend", "cuda"], "--backend"),
        (["--dataset", "imagenet"], "--dataset"),
        (["--train", "--test"], "not allowed with"),
        (["--bogus"], "--bogus"),
        (["--resume"], "there is no interrupted run"),
        (["--resume", "--to_path", "."], "there is no interrupted run"),
        (["--resume", "--to_path", "run-run.json"], "there is no interrupted run"),
        (["--resume", "--test"], "not allowed with"),
        (["--predict", "train.csv", "--from_path", "none.json"], "no such model"),
        (
            ["--predict", "train.csv", "--train_data", "train.csv"],
            "--predict cannot be combined with --train_data",
        ),
        (["--output", "a.csv"], "--output is for the labels of --predict"),
        (["--find_lr", "--from_path", "a.json"], "--find_lr trains a new model, not the one"),
        (["--test", "--to_path", "a.json"], "--test does not use it: name the model with --from_p"),
        (["--test", "--seed", "0"], "--seed is for training, and --test does not use it"),
        (["--predict", "a.png", "--epochs", "3"], "--epochs is for training, and --predict does"),
        (["--image_shape", "1,28,28"], "--image_shape is for a CSV file"),
        (["--train_data", "train.csv", "--data_dir", "."], "--data_dir is for a --dataset"),
        (
            ["--arch", ""],
            "resnet, mobile or path/to/file.py:function",
        ),
    ],
)
def test_wrong_input_is_reported_in_one_message(cli, tmp_path, csv_files, arguments, message):
    (tmp_path / "text.csv").write_text("0,1,2,3,4\n1,1,two,3,4\n")
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "broken.py").write_text("1 / 0")
    write_csv(tmp_path / "wide.csv", *digits(20, size=9))
    write_csv(tmp_path / "tiny.csv", digits(2)[0], [0, 1])
    before = sorted(tmp_path.iterdir())
    done = cli(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()[-1]) < 400
    assert [p for p in sorted(tmp_path.iterdir()) if p.name != "models"] == before


def test_wrong_input_ends_the_process_with_code_2(tmp_path):
    done = start("--train_data", "none.csv", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "run.py: none.csv: no such file: give the path of a CSV or IDX file\n"
