"""Every flag with every kind of wrong value, in one process; test_cli.py runs the commands."""

import pytest

import run
from training.cli import arguments
from training.cli.arguments import make_parser

WRONG = ["0", "-1", "1e300", str(10**18), "nan", "inf", "-inf", "abc", "", "1,2", "9" * 5000]
ACTIONS = [a for a in make_parser(run.ARCHITECTURES)._actions if a.nargs is None and a.metavar]
ACTIONS += [action for action in make_parser(run.ARCHITECTURES)._actions if action.choices]
PATHS = {"--data_dir", "--train_data", "--test_data", "--from_path", "--predict"}
WRITTEN = {"--to_path", "--output", "--tensorboard"}
RIGHT = {"--seed": {"0"}, "--weight_decay": {"0"}, "--label_smoothing": {"0"}}


def flags(kind):
    names = {action.option_strings[0] for action in ACTIONS}
    assert names > PATHS | WRITTEN
    return sorted(PATHS if kind == "paths" else names - PATHS - WRITTEN)


def answer(capsys, arguments):
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
def test_wrong_values(capsys, flag):
    for value in WRONG:
        if value in RIGHT.get(flag, ()):
            args = arguments.parse([f"{flag}={value}"], run.ARCHITECTURES)
            assert getattr(args, flag[2:]) == 0
        else:
            code, message = answer(capsys, [f"{flag}={value}"])
            assert code == 2, value
            assert f"argument {flag}: " in message


@pytest.mark.parametrize("flag", flags("paths"))
def test_wrong_paths(capsys, tmp_path, monkeypatch, flag):
    monkeypatch.chdir(tmp_path)
    # An empty path is the folder that one is in, as for other programs.
    values = [value[:250] for value in WRONG if value or flag != "--data_dir"]
    more = ["--test"] if flag in ("--test_data", "--from_path") else []
    for value in [*values, "a" * 300, "/dev/null/x"]:
        code, message = answer(capsys, [f"{flag}={value}", *more])
        assert code == 2, value
        assert "Traceback" not in message
