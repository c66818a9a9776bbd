"""The process of run.py: its streams, signals and exit codes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.command_line import ROOT, command

pytest_plugins = ["tests.command_line_fixtures"]

FLAGS = ["--backend", "numpy", "--arch", "tiny", "--epochs", "1"]


def start(*arguments, **options):
    return subprocess.run(command(*arguments), text=True, timeout=120, **options)


@pytest.mark.skipif(os.name != "posix", reason="closes streams as a shell of Unix does")
@pytest.mark.parametrize("closed", [1, 2])
def test_closed_streams_are_no_error(folder, closed):
    done = start(
        *("--train_data", "data.csv", "--to_path", "m.json", "--no_plots", *FLAGS),
        preexec_fn=lambda: os.close(closed),
        stdout=None if closed == 1 else subprocess.PIPE,
        stderr=None if closed == 2 else subprocess.PIPE,
    )
    assert done.returncode == 0
    assert not done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_streams_are_reported(folder):
    with open("/dev/full", "w") as full:
        assert start("--train_data", "none.csv", stderr=full).returncode == 2
        done = start("--train_data", "data.csv", *FLAGS, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == "run.py: standard output: No space left on device\n"


def test_characters_that_cannot_be_encoded_are_escaped(folder):
    (folder / "pictures").mkdir()
    Image.new("L", (8, 8)).save("pictures/ü.png")
    flags = ["--predict", "pictures", "--from_path", "model.json", *FLAGS[:2]]
    done = start(*flags, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert done.returncode == 0
    assert "\\xfc.png" in done.stdout


def test_numpy_backend_needs_no_scipy(folder):
    (folder / "scipy.py").write_text("raise ModuleNotFoundError('none', name='scipy')")
    environment = os.environ | {"PYTHONPATH": str(folder)}
    flags = ["--train_data", "data.csv", "--to_path", "m.json", "--no_plots", *FLAGS]
    assert start(*flags, env=environment, capture_output=True).returncode == 0
    done = start(*flags, "--backend", "scipy", env=environment, capture_output=True)
    assert done.returncode == 2
    assert done.stderr == "run.py: backend 'scipy' needs the package 'scipy': pip install scipy\n"


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_during_the_imports(folder, number, code):
    (folder / "filelock.py").write_text("import time; print('loads', flush=True); time.sleep(60)")
    process = subprocess.Popen(
        command("--train_data", "data.csv"),
        env=os.environ | {"PYTHONPATH": str(folder)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == "loads\n"
    process.send_signal(number)
    assert process.communicate(timeout=50) == ("", "")
    assert process.returncode == code


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_after_the_end_is_ignored(folder, number):
    program = (
        "import atexit, os, runpy, sys\n"
        f"atexit.register(lambda: os.kill(os.getpid(), {int(number)}))\n"
        "sys.argv = ['run.py', '--train_data', 'none.csv']\n"
        f"runpy.run_path({str(ROOT / 'run.py')!r}, run_name='__main__')"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, text=True, capture_output=True, timeout=60
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
