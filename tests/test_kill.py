"""Training runs that are killed, or cannot save: the model on disk is complete and recent.

./run.sh pytest tests/test_kill.py --long    # 100 kills instead of 8
"""

import json
import random
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command_line import write_csv
from tests.networks import digits
from tests.unprivileged import drop_rights
from training import Model, TrainingState
from training.reporting import plots
from training.reporting.reporter import write_history

ROOT = Path(__file__).parents[1]


def reported_progress(line):
    """Return the progress that a line reports as saved: (epochs, steps of the next), or None."""
    step = re.match(r"epoch +(\d+)/\d+, step (\d+): saved", line)
    if step:
        return int(step[1]) - 1, int(step[2])
    best = re.match(r"epoch +(\d+)/.*\(best\)", line)
    return best and (int(best[1]), 0)


def saved_progress(path):
    """Return the progress of the run in a file: (epochs, steps of the next)."""
    run = json.loads(path.read_text())["run"]
    return run["epoch"], (run["underway"] or {"steps": 0})["steps"]


def test_a_kill_at_any_moment_leaves_complete_files(tmp_path, long_mode):
    kills = 100 if long_mode else 8
    train = write_csv(tmp_path / "train.csv", *digits(300))
    # Such short epochs consist mostly of saves. One thread: more take longer to start.
    command = [sys.executable, "-u", ROOT / "run.py", "--train_data", train, "--threads", "1"]
    command += ["--arch", "ancestor", "--epochs", "100000", "--no_plots", "--augment", "none"]
    command += ["--learning_rate", "1e-4", "--schedule", "constant"]
    rng, kill, while_saving = random.Random(0), 0, 0
    while kill < kills or while_saving < 0.3 * kills:
        kill += 1
        # An epoch is one step, or seven, of which every second saves the state.
        steps = ["--batch_size", "300"] if kill % 2 else ["--batch_size", "40", "--save_every", "2"]
        assert kill < 5 * kills, "kills hit no save"
        folder = tmp_path / str(kill)
        process = subprocess.Popen(
            [*map(str, command), *steps, "--to_path", str(folder / "m.json")],
            text=True,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        last, end = (0, 0), None
        for line in process.stdout:
            last = reported_progress(line) or last
            if last > (0, 0) and end is None:
                end = time.monotonic() + rng.uniform(0, 0.5)
            if end is not None and time.monotonic() > end:
                break
        time.sleep(rng.uniform(0, 0.1))  # lines follow saves at once; a kill must not always
        if kill % 4 < 2:  # every other kill of both kinds of epochs is aimed at a save
            deadline = time.monotonic() + 60
            while not list(folder.glob(".*.tmp")):
                assert time.monotonic() < deadline, "no save begins"
        process.kill()
        rest, _ = process.communicate(timeout=60)
        last = max([last, *(reported_progress(line) or (0, 0) for line in rest.splitlines())])
        if last[0] or (folder / "m.json").exists():
            model = Model.load(folder / "m.json", backend="numpy")
            assert len(model.history["loss"]) >= last[0]
        run = Model.load(folder / "m-run.json", backend="numpy")
        assert len(run.history.get("loss", [])) == saved_progress(folder / "m-run.json")[0]
        assert saved_progress(folder / "m-run.json") >= last
        TrainingState.open(folder / "m-run.json")
        while_saving += bool(list(folder.glob(".*.tmp")))
    print(f"{kill} kills, {while_saving} of them during a save")

    # The next run removes the temporary files.
    command += ["--to_path", folder / "m.json", "--epochs", "1"]
    subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL, timeout=120)
    assert not list(folder.glob(".*.tmp"))


def test_a_full_disk_leaves_the_earlier_model(tmp_path):
    """A limit on the size of files stands for a full disk. The model exceeds it, the log not."""
    images = write_csv(tmp_path / "train.csv", *digits(300))
    command = [sys.executable, ROOT / "run.py", "--train_data", images, "--no_plots"]
    command += ["--to_path", tmp_path / "m.json", "--epochs", "1", "--arch", "tiny"]
    command += ["--backend", "numpy"]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, timeout=120)
    before = (tmp_path / "m.json").read_bytes()
    limit = len(before) // 2
    done = subprocess.run(
        [*map(str, command), "--seed", "1"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        text=True,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"run.py: {tmp_path / 'm.json'}: cannot be saved: File too large")
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "m.json").read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_full_disk_leaves_the_earlier_history(tmp_path):
    history, plot = tmp_path / "m-history.csv", tmp_path / "m-curves.png"
    write_history({"loss": [1.0]}, history)
    plots.curves({"loss": [1.0]}, plot)
    before = history.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))
    try:
        with pytest.raises(OSError, match=rf"^{history}: cannot be saved: File too large"):
            write_history({"loss": [1.0, 2.0]}, history)
        with pytest.raises(OSError, match=rf"^{plot}: cannot be drawn: File too large.*--no_pl"):
            plots.curves({"loss": [1.0, 2.0]}, plot)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert history.read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_read_only_folder_keeps_the_earlier_model(tmp_path, when):
    images = write_csv(tmp_path / "train.csv", *digits(300))
    folder = tmp_path / "models"
    command = [sys.executable, "-u", ROOT / "run.py", "--train_data", images, "--no_plots"]
    command += ["--to_path", folder / "m.json", "--arch", "tiny", "--backend", "numpy"]
    first = [*map(str, command), "--epochs", "1"]
    subprocess.run(first, check=True, stdout=subprocess.DEVNULL, timeout=120)
    before = (folder / "m.json").read_bytes()
    if when == "before":
        folder.chmod(0o555)
    process = subprocess.Popen(
        [*map(str, command), "--epochs", "100000"],
        preexec_fn=drop_rights,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if re.match("epoch +2/", line):
                folder.chmod(0o555)
        _, err = process.communicate(timeout=60)
    finally:
        folder.chmod(0o755)
    assert process.returncode == 2
    assert re.search(r"m(-run)?\.json: cannot be (saved|written): Permission denied", err)
    assert len(err.splitlines()) == 1
    Model.load(folder / "m.json", backend="numpy")
    if when == "before":
        assert (folder / "m.json").read_bytes() == before


def test_a_folder_that_was_moved_is_created_again(tmp_path):
    images = write_csv(tmp_path / "train.csv", *digits(300))
    command = [sys.executable, "-u", ROOT / "run.py", "--train_data", images, "--no_plots"]
    command += ["--to_path", tmp_path / "models" / "m.json", "--epochs", "2000", "--arch", "tiny"]
    process = subprocess.Popen(
        list(map(str, command)), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch    2/"):
            (tmp_path / "models").rename(tmp_path / "away")
        if line.startswith("epoch   20/"):
            break
    process.terminate()
    _, err = process.communicate(timeout=60)
    if process.returncode == 143:
        assert err == ""
        for name in ("m.json", "m-run.json"):
            Model.load(tmp_path / "models" / name, backend="numpy")
    else:  # it was moved in the middle of a save
        assert process.returncode == 2
        assert "cannot be" in err
    Model.load(tmp_path / "away" / "m.json", backend="numpy")
