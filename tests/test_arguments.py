"""The flags of run.py, each with every kind of wrong value."""

import argparse

import pytest

import run
from training.cli import arguments
from training.cli.arguments import make_parser

WRONG = ["0", "-1", "1e300", str(10**18), "nan", "inf", "-inf", "abc", "", "1,2", "9" * 5000]
ACTIONS = [a for a in make_parser(run.ARCHITECTURES)._actions if a.nargs is None and a.metavar]
ACTIONS += [action for action in make_parser(run.ARCHITECTURES)._actions if action.choices]
PATHS = {"--data_dir", "--train_data", "--test_data", "--from_path", "--predict"}
WRITTEN = {"--to_path", "--output", "--report", "--tensorboard", "--show_input"}
TEXTS = {"--label_column"}  # any text may be right
RIGHT = {
    "--seed": {"0": 0},
    "--weight_decay": {"0": 0},
    "--label_smoothing": {"0": 0},
    "--image_size": {"1,2": (1, 2)},
}


def flags(kind):
    names = {action.option_strings[0] for action in ACTIONS}
    assert names > PATHS | WRITTEN | TEXTS
    return sorted(PATHS if kind == "paths" else names - PATHS - WRITTEN - TEXTS)


def run_main(capsys, arguments):
    """Return the exit code and the one line on stderr of a command."""
    try:
        code = run.main(arguments)
    except SystemExit as stop:
        code = stop.code
    message = capsys.readouterr().err.strip()
    assert len(message.splitlines()) == 1
    assert len(message) < 400
    return code, message


@pytest.mark.parametrize("flag", flags("numbers"))
def test_rejects_wrong_values(capsys, flag):
    for value in WRONG:
        if value in RIGHT.get(flag, ()):
            args = arguments.parse([f"{flag}={value}"], run.ARCHITECTURES)
            assert getattr(args, flag[2:]) == RIGHT[flag][value]
        else:
            code, message = run_main(capsys, [f"{flag}={value}"])
            assert code == 2, value
            assert f"argument {flag}: " in message


@pytest.mark.parametrize("flag", flags("paths"))
def test_rejects_wrong_paths(capsys, tmp_path, monkeypatch, flag):
    monkeypatch.chdir(tmp_path)
    # An empty path is the working directory, as for other programs.
    values = [value[:250] for value in WRONG if value or flag != "--data_dir"]
    more = ["--test"] if flag in ("--test_data", "--from_path") else []
    for value in [*values, "a" * 300, "/dev/null/x"]:
        code, message = run_main(capsys, [f"{flag}={value}", *more])
        assert code == 2, value
        assert "Traceback" not in message


def test_help_explains_every_flag(capsys):
    with pytest.raises(SystemExit) as stop:
        run.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for flag in [
        "--predict",
        "--output",
        "--top",
        "--report",
        "--class_weight",
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
        "--image_size",
        "--color",
        "--resize",
        "--label_column",
        "--show_data",
        "--validation_split",
    ]:
        assert flag in text


def test_command_line_is_parsed_once(monkeypatch):
    parsed = []
    parse_args = argparse.ArgumentParser.parse_args

    def record(self, argv=None, namespace=None):
        parsed.append(argv)
        return parse_args(self, argv, namespace)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", record)
    arguments.parse(["--epochs", "3"], run.ARCHITECTURES)
    assert parsed == [["--epochs", "3"]]
