"""The files of a run replace no file of another kind."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.command_line import command
from training import Model, TrainingState

pytest_plugins = ["tests.command_line_fixtures"]

FLAGS = ["--backend", "numpy", "--arch", "tiny", "--epochs", "1"]


@pytest.mark.parametrize(
    "name", ["m-history.csv", "training.log", "m-curves.png", "m-confusion.png", "m.json"]
)
def test_input_is_not_overwritten(folder, cli, name):
    shutil.copy("data.csv", name)
    before = Path(name).read_bytes()
    code, _, message = cli("--train_data", name, "--to_path", "m.json", *FLAGS)
    assert code == 2
    assert "name another" in message
    assert Path(name).read_bytes() == before


@pytest.mark.parametrize("name", ["m-history.csv", "training.log", "m-filters.png"])
def test_rejects_folder_with_the_name_of_a_file(folder, cli, name):
    (folder / name).mkdir()
    code, _, message = cli("--train_data", "data.csv", "--to_path", "m.json", *FLAGS)
    assert code == 2
    assert message == (
        f"run.py: {name}: is not a regular file, and a file of this name is written beside the "
        "model: move it away, or name another --to_path\n"
    )
    assert not (folder / "m.json").exists()


def test_rejects_table_that_is_not_a_history(folder, cli):
    Path("m-history.csv").write_text("year,rain\n1999,3\n")
    code, _, message = cli("--train_data", "data.csv", "--to_path", "m.json", *FLAGS)
    assert code == 2
    assert message.startswith("run.py: m-history.csv: is not the history of a training")
    assert Path("m-history.csv").read_text() == "year,rain\n1999,3\n"


def test_symbolic_link_is_followed_and_kept(folder, cli):
    (folder / "elsewhere").mkdir()
    Path("m.json").symlink_to("elsewhere/real.json")
    flags = ["--train_data", "data.csv", "--to_path", "m.json", "--no_plots", *FLAGS]
    for _ in range(2):
        assert cli(*flags)[::2] == (0, "")
        assert Path("m.json").is_symlink()
        Model.load(folder / "elsewhere" / "real.json", "numpy")


@pytest.mark.parametrize("name", ["pictures/1.png", "sorted.json"])
def test_labels_replace_no_other_file(folder, cli, name):
    (folder / "pictures").mkdir()
    Image.new("L", (8, 8)).save("pictures/1.png")
    document = json.loads(Path("model.json").read_text())
    Path("sorted.json").write_text(json.dumps({"layers": document["layers"], **document}))
    before = Path(name).read_bytes()
    code, _, message = cli(
        *("--predict", "pictures", "--from_path", "sorted.json"), "--output", name,
        *FLAGS[:2],
    )  # fmt: skip
    assert code == 2
    assert message == f"run.py: --output {name}: would be overwritten; name another\n"
    assert Path(name).read_bytes() == before


@pytest.mark.parametrize("name", ["new.png", "training.log"])
def test_labels_are_not_written_under_the_name_of_a_picture_or_a_log(folder, cli, name):
    flags = ["--predict", "data.csv", "--from_path", "model.json", *FLAGS[:2]]
    code, _, message = cli(*flags, "--output", name)
    assert code == 2
    assert message == (
        f"run.py: --output {name}: is the name of a picture or a log, and labels are written as "
        "CSV; name another\n"
    )
    assert not Path(name).exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_failed_output_to_a_device_is_named(folder, cli):
    flags = ["--predict", "data.csv", "--from_path", "model.json", *FLAGS[:2]]
    code, _, message = cli(*flags, "--output", "/dev/full")
    assert code == 2
    assert message.startswith("run.py: --output /dev/full: No space left on device; name another")


def test_labels_that_do_not_fit_on_the_disk_leave_the_file_unchanged(folder):
    Path("out.csv").write_text("earlier")
    resource = pytest.importorskip("resource", reason="this system has no limits of files")
    argv = ["--predict", "data.csv", "--output", "out.csv", "--from_path", "model.json"]
    done = subprocess.run(
        command(*argv, *FLAGS[:2]),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)),
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("run.py: --output out.csv: cannot be saved: File too large")
    assert Path("out.csv").read_text() == "earlier"


def test_rejects_run_file_without_its_numbers(folder):
    document = json.loads(Path("model.json").read_text())
    Path("model-run.json").write_text(json.dumps(document | {"run": {"settings": {}}}))
    with pytest.raises(ValueError, match="not a valid run: the entry 'epoch' is missing"):
        TrainingState.open("model-run.json")


@pytest.mark.parametrize(
    "flag", ["--epochs=3", "--schedule=step", "--patience=3", "--learning_rate=1", "--resume"]
)
def test_rejects_flags_that_find_lr_would_ignore(folder, cli, flag):
    code, _, message = cli("--find_lr", "--train_data", "data.csv", flag)
    assert code == 2
    assert "--find_lr" in message


@pytest.mark.parametrize(
    "body", ["import sys; sys.exit(0)", "raise SystemExit", "raise ValueError('a\\nb')"]
)
@pytest.mark.parametrize("when", ["run", "called"])
def test_architecture_that_exits_or_raises(folder, cli, body, when):
    text = body if when == "run" else f"def net(*a, **k):\n    {body}\n"
    Path("net.py").write_text(text)
    code, _, message = cli("--arch", "net.py:net", "--train_data", "data.csv", *FLAGS[:2])
    assert code == 2
    assert len(message.splitlines()) == 1
    assert "SystemExit" in message or "ValueError: a b" in message


def test_tensorboard_needs_a_folder(folder, cli):
    pytest.importorskip("tensorboardX")
    flags = ["--train_data", "data.csv", "--to_path", "m.json", *FLAGS]
    code, _, message = cli(*flags, "--tensorboard", "data.csv")
    assert (code, message) == (
        2,
        "run.py: --tensorboard data.csv: Not a directory: name a folder\n",
    )


def test_byte_order_mark_before_a_model_is_ignored(folder):
    Path("model.json").write_bytes(b"\xef\xbb\xbf" + Path("model.json").read_bytes())
    Model.load("model.json", "numpy")
    Path("model.json").write_text("{")
    with pytest.raises(ValueError, match=r"; copy the file once more, or train again$"):
        Model.load("model.json", "numpy")
