"""What run.py writes takes the place of nothing else; what it prints, and signals, end it well."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import run
from tests.networks import digits
from tests.test_cli import write_csv
from training import Model, TrainingState

ROOT = Path(__file__).parents[1]
FLAGS = ["--backend", "numpy", "--arch", "tiny", "--epochs", "1"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the working directory, with images to train on and a model."""
    monkeypatch.chdir(tmp_path)
    write_csv(tmp_path / "data.csv", *digits(60))
    network = run.tiny((1, 8, 8), 4, backend="numpy")
    network.save(tmp_path / "model.json")
    return tmp_path


def answer(capsys, *arguments):
    """Return the exit code of a command and what it says on stderr."""
    capsys.readouterr()
    try:
        code = run.main([*map(str, arguments)])
    except SystemExit as stop:
        code = stop.code
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["m-history.csv", "training.log", "m-curves.png", "m-confusion.png", "m.json"]
)
def test_what_is_read_is_not_written_over(folder, capsys, name):
    shutil.copy("data.csv", name)
    before = Path(name).read_bytes()
    code, said = answer(capsys, "--train_data", name, "--to_path", "m.json", *FLAGS)
    assert code == 2
    assert "name another" in said
    assert Path(name).read_bytes() == before


@pytest.mark.parametrize("name", ["m-history.csv", "training.log", "m-filters.png"])
def test_a_folder_in_the_place_of_a_file(folder, capsys, name):
    (folder / name).mkdir()
    code, said = answer(capsys, "--train_data", "data.csv", "--to_path", "m.json", *FLAGS)
    assert code == 2
    assert said == (
        f"run.py: {name}: is no file, and one of this name is written beside the model: "
        "move it away, or name another --to_path\n"
    )
    assert not (folder / "m.json").exists()


def test_a_table_that_is_no_history(folder, capsys):
    Path("m-history.csv").write_text("year,rain\n1999,3\n")
    code, said = answer(capsys, "--train_data", "data.csv", "--to_path", "m.json", *FLAGS)
    assert code == 2
    assert said.startswith("run.py: m-history.csv: is no history of a training")
    assert Path("m-history.csv").read_text() == "year,rain\n1999,3\n"


def test_a_link_leads_to_the_model(folder, capsys):
    (folder / "elsewhere").mkdir()
    Path("m.json").symlink_to("elsewhere/real.json")
    command = ["--train_data", "data.csv", "--to_path", "m.json", "--no_plots", *FLAGS]
    for _ in range(2):
        assert answer(capsys, *command) == (0, "")
        assert Path("m.json").is_symlink()
        Model.load(folder / "elsewhere" / "real.json", "numpy")


@pytest.mark.parametrize("name", ["pictures/1.png", "new.png", "sorted.json", "training.log"])
def test_labels_take_the_place_of_nothing(folder, capsys, name):
    (folder / "pictures").mkdir()
    Image.new("L", (8, 8)).save("pictures/1.png")
    document = json.loads(Path("model.json").read_text())
    Path("sorted.json").write_text(json.dumps({"layers": document["layers"], **document}))
    before = Path(name).read_bytes() if Path(name).exists() else None
    code, said = answer(
        capsys, *("--predict", "pictures", "--from_path", "sorted.json"), "--output", name,
        *FLAGS[:2],
    )  # fmt: skip
    assert code == 2
    assert said == f"run.py: --output {name}: would be overwritten; name another\n"
    assert (Path(name).read_bytes() if Path(name).exists() else None) == before


def test_labels_that_do_not_fit_on_the_disk(folder):
    Path("out.csv").write_text("earlier")
    resource = pytest.importorskip("resource", reason="this system has no limits of files")
    command = [sys.executable, ROOT / "run.py", "--predict", "data.csv", "--output", "out.csv"]
    done = subprocess.run(
        [*map(str, command), "--from_path", "model.json", *FLAGS[:2]],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)),
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("run.py: --output out.csv: cannot be saved: File too large")
    assert Path("out.csv").read_text() == "earlier"


def test_a_run_without_its_numbers(folder):
    document = json.loads(Path("model.json").read_text())
    Path("model-run.json").write_text(json.dumps(document | {"run": {"settings": {}}}))
    with pytest.raises(ValueError, match="not a valid run: the entry 'epoch' is missing"):
        TrainingState.open("model-run.json")


@pytest.mark.parametrize(
    "flag", ["--epochs=3", "--schedule=step", "--patience=3", "--learning_rate=1", "--resume"]
)
def test_flags_that_find_lr_would_ignore(folder, capsys, flag):
    code, said = answer(capsys, "--find_lr", "--train_data", "data.csv", flag)
    assert code == 2
    assert "--find_lr" in said


@pytest.mark.parametrize(
    "body", ["import sys; sys.exit(0)", "raise SystemExit", "raise ValueError('a\\nb')"]
)
@pytest.mark.parametrize("when", ["run", "called"])
def test_an_architecture_that_exits(folder, capsys, body, when):
    text = body if when == "run" else f"def net(*a, **k):\n    {body}\n"
    Path("net.py").write_text(text)
    code, said = answer(capsys, "--arch", "net.py:net", "--train_data", "data.csv", *FLAGS[:2])
    assert code == 2
    assert len(said.splitlines()) == 1
    assert "SystemExit" in said or "ValueError: a b" in said


def start(*arguments, **options):
    command = [sys.executable, ROOT / "run.py", *arguments]
    return subprocess.run([*map(str, command)], text=True, timeout=120, **options)


@pytest.mark.skipif(os.name != "posix", reason="closes streams as a shell of Unix does")
@pytest.mark.parametrize("closed", [1, 2])
def test_closed_streams(folder, closed):
    done = start(
        *("--train_data", "data.csv", "--to_path", "m.json", "--no_plots", *FLAGS),
        preexec_fn=lambda: os.close(closed),
        stdout=None if closed == 1 else subprocess.PIPE,
        stderr=None if closed == 2 else subprocess.PIPE,
    )
    assert done.returncode == 0
    assert not done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_streams(folder):
    with open("/dev/full", "w") as full:
        assert start("--train_data", "none.csv", stderr=full).returncode == 2
        told = start("--train_data", "data.csv", *FLAGS, stdout=full, stderr=subprocess.PIPE)
    assert told.returncode == 2
    assert told.stderr == "run.py: what is printed: No space left on device\n"


def test_names_that_cannot_be_printed(folder):
    (folder / "pictures").mkdir()
    Image.new("L", (8, 8)).save("pictures/ü.png")
    command = ["--predict", "pictures", "--from_path", "model.json", *FLAGS[:2]]
    done = start(*command, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert done.returncode == 0
    assert "\\xfc.png" in done.stdout


def test_the_references_need_no_scipy(folder):
    (folder / "scipy.py").write_text("raise ModuleNotFoundError('none', name='scipy')")
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = ["--train_data", "data.csv", "--to_path", "m.json", "--no_plots", *FLAGS]
    assert start(*command, env=environment, capture_output=True).returncode == 0
    done = start(*command, "--backend", "scipy", env=environment, capture_output=True)
    assert done.returncode == 2
    assert done.stderr == "run.py: backend 'scipy' needs the package 'scipy': pip install scipy\n"


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_while_the_program_loads(folder, number, code):
    (folder / "filelock.py").write_text("import time; print('loads', flush=True); time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), "--train_data", "data.csv"],
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
def test_a_signal_after_the_end_changes_nothing(folder, number):
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


def test_events_need_a_folder(folder, capsys):
    pytest.importorskip("tensorboardX")
    command = ["--train_data", "data.csv", "--to_path", "m.json", *FLAGS]
    code, said = answer(capsys, *command, "--tensorboard", "data.csv")
    assert (code, said) == (2, "run.py: --tensorboard data.csv: Not a directory: name a folder\n")


def test_a_byte_order_mark_before_a_model(folder):
    Path("model.json").write_bytes(b"\xef\xbb\xbf" + Path("model.json").read_bytes())
    Model.load("model.json", "numpy")
    Path("model.json").write_text("{")
    with pytest.raises(ValueError, match=r"; copy the file once more, or train again$"):
        Model.load("model.json", "numpy")
